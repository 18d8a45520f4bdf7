//! Parts that the profiles of several algorithms are made of.

use std::ops::Range;
use ubccl_core::profile::{Profile, Round, Share, Traffic};
use ubccl_core::{Layout, Rank, Spec};

/// A rank with the fewest near neighbours: of those who talk to everybody, it has most to do on far links.
pub(crate) fn loneliest(layout: &Layout) -> Rank {
    // Groups hold whole groups of the level within: the smallest of the smallest, from the outermost on.
    let mut within = 0..layout.ranks();
    for level in layout.levels().iter().rev().skip(1) {
        let groups = level.group_of(within.start)..=level.group_of(within.end.saturating_sub(1));
        let smallest = groups.map(|group| level.group(group)).min_by_key(|group| group.len());
        within = smallest.unwrap_or(within);
    }
    within.start
}

/// A round in which a rank has a message of `parts` of `of` with each of all others.
pub(crate) fn with_everybody(layout: &Layout, rank: Rank, (parts, of): (u64, u64)) -> Round {
    let mut round = Round { times: 1, ..Round::default() };
    // Of the neighbours at each level, those nearer than that are counted before.
    let mut nearer = 1;
    for (level, groups) in layout.levels().iter().enumerate() {
        let near = groups.group(groups.group_of(rank)).len() as u32;
        let messages = near - nearer;
        if messages > 0 {
            let share = Share::new(u64::from(messages) * parts, of);
            round.traffic.push(Traffic { level, messages, peers: messages, share });
        }
        nearer = near;
    }
    round
}

/// Rounds of `hops` hops along the circle of all ranks, each from a rank to the next: as many of each level as there are
/// on the circle, from the outermost on, as long as there are hops.
pub(crate) fn along_circle(layout: &Layout, hops: u32, share: Share) -> Vec<Round> {
    let mut rounds = Vec::new();
    let (laps, mut lap) = (hops / layout.ranks(), hops % layout.ranks());
    for (level, of_level) in hops_of_circle(layout).into_iter().enumerate().rev() {
        let times = laps * of_level + of_level.min(lap);
        lap -= of_level.min(lap);
        if times > 0 {
            let traffic = vec![Traffic { level, messages: 1, peers: 1, share }];
            rounds.push(Round { times, traffic, ..Round::default() }.alone());
        }
    }
    rounds
}

/// How many hops from a rank to the next are on links of each level.
fn hops_of_circle(layout: &Layout) -> Vec<u32> {
    // A circle leaves each group once, unless all ranks are in one.
    let leaves = |level: usize| match layout.levels()[level].groups() {
        1 => 0,
        groups => groups as u32,
    };
    let entered = |level: usize| level.checked_sub(1).map_or(layout.ranks(), leaves);
    (0..layout.levels().len()).map(|level| entered(level) - leaves(level)).collect()
}

/// The level of the circle's longest hop.
pub(crate) fn longest_hop(layout: &Layout) -> usize {
    let hops = hops_of_circle(layout);
    hops.iter().rposition(|&hops| hops > 0).unwrap_or(0)
}

/// The outermost level that some rank crosses to the one at this distance.
pub(crate) fn farthest(layout: &Layout, distance: u32) -> usize {
    let ranks = layout.ranks();
    let crossed = (0..ranks).map(|rank| layout.shared_level(rank, (rank + distance) % ranks));
    crossed.max().unwrap_or(0)
}

/// A message's way round the circle of its innermost group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The group's first rank, and how many it has.
    first: Rank,
    members: u32,
    /// The place in the group from which on it passes links, going forwards, and how many: the shorter way round.
    start: u32,
    pub(crate) links: u32,
    /// Whether it goes backwards on them.
    is_back: bool,
}

/// The way of a message, unless it leaves its innermost group.
pub(crate) fn around_circle(layout: &Layout, from: Rank, to: Rank) -> Option<Way> {
    if layout.shared_level(from, to) > 0 {
        return None;
    }
    let level = &layout.levels()[0];
    let group = level.group(level.group_of(from));
    let (first, members) = (group.start, group.len() as u32);
    let ahead = (to + members - from) % members;
    // Half way round every other rank sends either way.
    let is_back = 2 * ahead > members || 2 * ahead == members && !(from - first).is_multiple_of(2);
    let start = if is_back { to - first } else { from - first };
    Some(Way { first, members, start, links: ahead.min(members - ahead), is_back })
}

/// How many of these messages pass the link that most pass, where ranks stand in rings.
pub(crate) fn busiest_link(layout: &Layout, messages: impl Iterator<Item = (Rank, Rank)>) -> u64 {
    // By how much more pass a rank's link than the one before, forwards and backwards.
    let mut more = vec![[0_i64; 2]; layout.ranks() as usize + 1];
    for way in messages.filter_map(|(from, to)| around_circle(layout, from, to)) {
        let mut add = |places: Range<u32>| {
            more[(way.first + places.start) as usize][usize::from(way.is_back)] += 1;
            more[(way.first + places.end) as usize][usize::from(way.is_back)] -= 1;
        };
        let end = way.start + way.links;
        add(way.start..end.min(way.members));
        add(0..end.saturating_sub(way.members));
    }
    let mut passing = [0; 2];
    let most = more.iter().map(|more| {
        (passing[0], passing[1]) = (passing[0] + more[0], passing[1] + more[1]);
        passing[0].max(passing[1])
    });
    most.max().unwrap_or(0).unsigned_abs()
}

/// What one port has to do that sends `messages` of `parts` of `of` to one rank, over a link of this level.
pub(crate) fn one_port(level: usize, messages: u32, (parts, of): (u64, u64)) -> Vec<Traffic> {
    vec![Traffic { level, messages, peers: 1, share: Share::new(u64::from(messages) * parts, of) }]
}

/// What a call of one rank costs: the copy of so much, unless it is in place.
pub(crate) fn copy_only(spec: &Spec, parts: u64, of: u64) -> Profile {
    Profile::of(own_copy(spec, parts, of).into_iter().collect())
}

/// The copy of the own contribution to its place.
pub(crate) fn own_copy(spec: &Spec, parts: u64, of: u64) -> Option<Round> {
    (!spec.in_place).then(|| Round { times: 1, ..Round::default() }.copying(parts, of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_hop_as_often_as_they_leave_groups() {
        let hops = |text, ranks| hops_of_circle(&Layout::parse(text, ranks).unwrap());
        assert_eq!(hops("", 5), [5]);
        assert_eq!(hops("node=8", 20), [17, 3]);
        assert_eq!(hops("npu=2;node=4", 8), [4, 2, 2]);
        assert_eq!(hops("node=8;pod=8", 8), [8, 0]);
        let layout = Layout::parse("node=4", 12).unwrap();
        let times = |hops| {
            let rounds = along_circle(&layout, hops, Share::ALL);
            rounds.iter().map(|round| (round.traffic[0].level, round.times)).collect::<Vec<_>>()
        };
        assert_eq!(times(22), [(1, 6), (0, 16)]);
        assert_eq!(times(11), [(1, 3), (0, 8)]);
        assert_eq!(times(2), [(1, 2)]);
        assert_eq!((longest_hop(&layout), longest_hop(&Layout::flat(3))), (1, 0));
    }

    #[test]
    fn links_of_a_ring_are_passed_the_shorter_way_round() {
        let layout = Layout::parse("node=8", 16).unwrap();
        let links = |from, to| around_circle(&layout, from, to).map(|way| (way.links, way.is_back));
        assert_eq!((links(9, 12), links(9, 14)), (Some((3, false)), Some((3, true))));
        assert_eq!((links(8, 12), links(9, 13)), (Some((4, false)), Some((4, true))));
        assert_eq!((links(7, 0), links(7, 8)), (Some((1, false)), None));
        let busiest = |messages: &[(Rank, Rank)]| busiest_link(&layout, messages.iter().copied());
        assert_eq!(busiest(&[]), 0);
        // Round the end; the same links the other way; the other group's.
        assert_eq!(busiest(&[(14, 8), (15, 9), (9, 15), (8, 10), (7, 1), (6, 0)]), 2);
        let all = (0..8).flat_map(|from| (0..8).map(move |to| (from, to)));
        assert_eq!(busiest(&all.collect::<Vec<_>>()), 8);
    }

    #[test]
    fn whoever_has_the_fewest_neighbours_talks_farthest() {
        let layout = Layout::parse("node=5+2+4", 11).unwrap();
        assert_eq!(loneliest(&layout), 5);
        let round = with_everybody(&layout, 5, (1, 11));
        let traffic = |level, messages: u32| Traffic {
            level,
            messages,
            peers: messages,
            share: Share::new(u64::from(messages), 11),
        };
        assert_eq!(round.traffic, [traffic(0, 1), traffic(1, 9)]);
        assert_eq!(loneliest(&Layout::flat(7)), 0);
        assert!(with_everybody(&Layout::flat(1), 0, (1, 1)).traffic.is_empty());
    }
}
