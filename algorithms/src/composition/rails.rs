//! Collectives in which every rank has a block of its own: all-gather, reduce-scatter.

use super::{Tier, member_of, members, one};
use crate::schedule::Schedule;
use crate::team::{Family, Team};
use std::ops::Range;
use ubccl_core::{Layout, Rank};

/// The blocks of collectives in which every rank has one. Between the members of a group, ranks at the same place meet:
/// place l of a member with fewer ranks is taken by the rank at l modulo its size.
pub(super) struct Rails<'a> {
    pub(super) layout: &'a Layout,
    pub(super) tiers: &'a [Tier],
}

impl Rails<'_> {
    pub(super) fn all_gather(&self, schedule: &mut Schedule<'_>) {
        for tier in (0..self.tiers.len()).rev() {
            self.each_team(schedule, tier, |family, schedule, team| family.all_gather(schedule, &team));
        }
    }

    pub(super) fn reduce_scatter(&self, schedule: &mut Schedule<'_>) {
        for tier in 0..self.tiers.len() {
            self.each_team(schedule, tier, |family, schedule, mut team| {
                // What the next tier has last in an all-gather, it wants first.
                team.blocks.iter_mut().for_each(|blocks| blocks.reverse());
                family.reduce_scatter(schedule, &team);
            });
        }
    }

    fn each_team(
        &self,
        schedule: &mut Schedule<'_>,
        tier: usize,
        act: impl Fn(&dyn Family, &mut Schedule<'_>, Team),
    ) {
        let Tier { family, level } = self.tiers[tier];
        if self.tiers.len() > 1 {
            // One tier hands on what another brings, in the order in which it comes: what the last member of a group has is
            // not of one time with what the first of the next group has, though they are neighbours.
            let level = &self.layout.levels()[level];
            schedule.as_named((0..level.groups()).map(|group| level.group(group).start).collect());
        }
        let teams = self.teams(tier, schedule.spec().rank);
        schedule.phase(family.window(teams.iter().map(Team::len).max().unwrap_or(0)));
        schedule.for_each_beside(teams, |schedule, team| act(family, schedule, team));
    }

    /// The teams of a tier that `rank` is in.
    fn teams(&self, tier: usize, rank: Rank) -> Vec<Team> {
        let members = members(self.layout, self.tiers, tier, rank);
        let me = member_of(&members, rank);
        let team = |place: u32| {
            let at = |member: &Range<Rank>| member.start + place % member.len() as u32;
            let block = |member: &Range<Rank>| match place < member.len() as u32 {
                true => self.held(tier, at(member)),
                false => Vec::new(),
            };
            Team { ranks: members.iter().map(at).collect(), me, blocks: members.iter().map(block).collect() }
        };
        places(&members, me, rank).map(team).collect()
    }

    /// The blocks that a rank has when an all-gather comes to this tier, from the outermost on; in the order in which they
    /// came.
    fn held(&self, tier: usize, rank: Rank) -> Vec<Range<u32>> {
        if tier + 1 == self.tiers.len() {
            return one(rank..rank + 1);
        }
        let members = members(self.layout, self.tiers, tier + 1, rank);
        let me = member_of(&members, rank);
        let of = |place: u32| {
            let back = (0..members.len()).map(|by| &members[(me + members.len() - by) % members.len()]);
            let held = back.map(|member| match place < member.len() as u32 {
                true => self.held(tier + 1, member.start + place),
                false => Vec::new(),
            });
            self.tiers[tier + 1].family.arrivals(me, held.collect())
        };
        places(&members, me, rank).flat_map(of).collect()
    }
}

/// The places that `rank` takes in its member: its own, and those that the member lacks.
fn places(members: &[Range<Rank>], me: usize, rank: Rank) -> impl Iterator<Item = u32> {
    let most = members.iter().map(|member| member.len() as u32).max().unwrap_or(0);
    (rank - members[me].start..most).step_by(members[me].len())
}
