//! Where the ranks of one communicator stand: which of them share a node, a supernode, and so on.

use crate::collective::Rank;
use crate::error::{Error, Result};
use crate::topology::Topology;
use std::fmt;

/// The levels of a communicator, innermost first: at each, the ranks fall into groups of neighbours. The outermost
/// level is one group of all ranks. Groups need not be equally large.
///
/// ```
/// let layout = ubccl_core::Layout::parse("node=5+8+3", 16)?;
/// assert_eq!(layout.levels()[0].group(1), 5..13);
/// assert_eq!((layout.shared_level(4, 5), layout.shared_level(5, 12)), (1, 0));
/// assert_eq!(layout.to_string(), "node=5+8+3;all=16");
/// # Ok::<(), ubccl_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    levels: Vec<LayoutLevel>,
}

/// One level of a [`Layout`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LayoutLevel {
    name: String,
    /// Which level of the topology its links are: [`Topology::levels`].
    link: usize,
    /// The first rank of each group, and at last the number of ranks.
    starts: Vec<Rank>,
}

/// The name of the level of all ranks, where nothing names it.
const ALL: &str = "all";

impl Layout {
    /// One level: every rank is as near to every other.
    pub fn flat(ranks: u32) -> Self {
        Layout { levels: vec![LayoutLevel { name: ALL.to_owned(), link: 0, starts: vec![0, ranks] }] }
    }

    /// Ranks 0 to `ranks` − 1 of a machine.
    pub fn of(topology: &Topology, ranks: u32) -> Self {
        Self::of_places(topology, &(0..ranks).collect::<Vec<_>>())
    }

    /// Ranks that stand at these places of a machine. A level at which the members of a group are no neighbours is left
    /// out: the next one takes its place.
    pub fn of_places(topology: &Topology, places: &[Rank]) -> Self {
        let outermost = topology.levels().len() - 1;
        let mut levels = Vec::new();
        for (link, level) in topology.levels().iter().enumerate() {
            let starts = match link == outermost {
                true => Some(vec![0, places.len() as Rank]),
                false => runs(places.iter().map(|&place| topology.group(link, place))),
            };
            let Some(starts) = starts else { continue };
            levels.push(LayoutLevel { name: level.name.clone(), link, starts });
        }
        Layout { levels }
    }

    /// The levels of a communicator of these ranks of this one, in this order. A level at which the members of a group
    /// are no neighbours is left out, as in [`Layout::of_places`].
    pub fn of_members(&self, members: &[Rank]) -> Self {
        let outermost = self.levels.len() - 1;
        let mut levels = Vec::new();
        for (index, level) in self.levels.iter().enumerate() {
            let starts = match index == outermost {
                true => Some(vec![0, members.len() as Rank]),
                false => runs(members.iter().map(|&rank| level.group_of(rank) as u32)),
            };
            levels.extend(starts.map(|starts| LayoutLevel { starts, ..level.clone() }));
        }
        Layout { levels }
    }

    /// Levels from the innermost on, `NAME=SIZES;NAME=SIZES`, sizes in ranks: one number for groups of as many (the last
    /// may be smaller), or all of them, `5+8+3`. The level of all ranks may be left out.
    ///
    /// Errors: InvalidArgument, saying what is wrong.
    pub fn parse(text: &str, ranks: u32) -> Result<Self> {
        let mut layout = Layout { levels: Vec::new() };
        for item in text.split(';').map(str::trim).filter(|item| !item.is_empty()) {
            let level = LayoutLevel::parse(item, layout.levels.len(), ranks)?;
            layout.add(level)?;
        }
        if layout.levels.last().is_none_or(|level| level.groups() > 1) {
            let all = LayoutLevel { name: ALL.to_owned(), link: layout.levels.len(), starts: vec![0, ranks] };
            layout.add(all)?;
        }
        Ok(layout)
    }

    fn add(&mut self, level: LayoutLevel) -> Result<()> {
        if self.levels.iter().any(|inner| inner.name == level.name) {
            return Err(Error::invalid(format!("a layout has two levels called '{}'", level.name)));
        }
        if let Some(inner) = self.levels.last()
            && let Some(start) = level.starts.iter().find(|start| inner.starts.binary_search(start).is_err())
        {
            return Err(Error::invalid(format!(
                "a group of level '{}' ends before rank {start}, in the middle of one of '{}': levels go from the \
                 innermost to the outermost, sizes in ranks",
                level.name, inner.name
            )));
        }
        self.levels.push(level);
        Ok(())
    }

    /// How many ranks.
    pub fn ranks(&self) -> u32 {
        self.levels[0].starts[self.levels[0].groups()]
    }

    /// The levels, innermost first; at least one.
    pub fn levels(&self) -> &[LayoutLevel] {
        &self.levels
    }

    /// The innermost level whose group two ranks share.
    #[inline]
    pub fn shared_level(&self, a: Rank, b: Rank) -> usize {
        let outermost = self.levels.len() - 1;
        let shares = |level: &usize| self.levels[*level].group_of(a) == self.levels[*level].group_of(b);
        (0..outermost).find(shares).unwrap_or(outermost)
    }
}

impl LayoutLevel {
    fn parse(item: &str, link: usize, ranks: u32) -> Result<Self> {
        let wrong = |what: &str| {
            Error::invalid(format!(
                "'{item}' is no level of a layout of {ranks} ranks: {what}; write NAME=SIZE or NAME=SIZE+SIZE+…, \
                 for example node=8 or node=5+8+3"
            ))
        };
        let (name, sizes) = item.split_once('=').ok_or_else(|| wrong("there is no '='"))?;
        let name = name.trim();
        if name.is_empty() || name.contains(':') {
            return Err(wrong("it needs a name without ':'"));
        }
        let size = |text: &str| text.trim().parse::<u32>().ok().filter(|&size| size > 0);
        let sizes: Option<Vec<u32>> = sizes.split('+').map(size).collect();
        let sizes = sizes.ok_or_else(|| wrong("a size is a whole number from 1 on"))?;
        let mut starts = vec![0];
        match sizes[..] {
            [each] => starts.extend((1..ranks.div_ceil(each)).map(|group| group * each).chain([ranks])),
            _ => {
                for size in &sizes {
                    let end = starts[starts.len() - 1].checked_add(*size);
                    starts.push(end.filter(|&end| end <= ranks).ok_or_else(|| wrong("the sizes are more"))?);
                }
                if starts[starts.len() - 1] < ranks {
                    return Err(wrong("the sizes are fewer"));
                }
            }
        }
        Ok(LayoutLevel { name: name.to_owned(), link, starts })
    }

    /// What a group is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which level of the topology its links are.
    pub fn link(&self) -> usize {
        self.link
    }

    /// How many groups.
    pub fn groups(&self) -> usize {
        self.starts.len() - 1
    }

    /// The ranks of a group.
    pub fn group(&self, group: usize) -> std::ops::Range<Rank> {
        self.starts[group]..self.starts[group + 1]
    }

    /// The group of a rank.
    #[inline]
    pub fn group_of(&self, rank: Rank) -> usize {
        self.starts.partition_point(|&start| start <= rank) - 1
    }

    /// Ranks in the largest group.
    pub fn largest(&self) -> u32 {
        self.starts.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0)
    }

    /// Whether all groups are as large.
    pub fn is_even(&self) -> bool {
        self.starts.windows(2).all(|ends| ends[1] - ends[0] == self.largest())
    }
}

/// Where runs of equal values begin, and the end; none if a value comes back after another.
fn runs(values: impl Iterator<Item = u32>) -> Option<Vec<Rank>> {
    let (mut starts, mut seen, mut end) = (Vec::new(), Vec::new(), 0);
    for (rank, value) in values.enumerate() {
        if seen.last() != Some(&value) {
            seen.push(value);
            starts.push(rank as Rank);
        }
        end = rank as Rank + 1;
    }
    starts.push(end);
    let runs = seen.len();
    seen.sort_unstable();
    seen.dedup();
    (seen.len() == runs).then_some(starts)
}

/// As [`Layout::parse`] reads it.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (k, level) in self.levels.iter().enumerate() {
            let sizes: Vec<u32> = level.starts.windows(2).map(|ends| ends[1] - ends[0]).collect();
            let (last, whole) = sizes.split_last().map_or((0, &[][..]), |(last, whole)| (*last, whole));
            let is_repeated = whole.iter().all(|&size| size == level.largest()) && last <= level.largest();
            let separator = if k == 0 { "" } else { ";" };
            write!(f, "{separator}{}=", level.name)?;
            match is_repeated {
                true => write!(f, "{}", level.largest())?,
                false => f.write_str(&sizes.iter().map(u32::to_string).collect::<Vec<_>>().join("+"))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Link;

    #[test]
    fn layouts_are_written_as_they_are_read() {
        for (text, ranks, written) in [
            ("", 3, "all=3"),
            ("node=8", 20, "node=8;all=20"),
            ("node=5+8+3", 16, "node=5+8+3;all=16"),
            ("npu=2; node=16; supernode=48", 48, "npu=2;node=16;supernode=48"),
            ("node=3+3+1", 7, "node=3;all=7"),
        ] {
            let layout = Layout::parse(text, ranks).unwrap();
            assert_eq!(layout.to_string(), written);
            assert_eq!(Layout::parse(written, ranks).unwrap(), layout);
            assert_eq!(layout.ranks(), ranks);
        }
    }

    #[test]
    fn what_is_wrong_with_a_layout_is_said() {
        for (text, ranks, what) in [
            ("node", 4, "there is no '='"),
            ("node=0", 4, "whole number"),
            ("=2", 4, "needs a name"),
            ("node=3+3", 4, "the sizes are more"),
            ("node=1+2", 4, "the sizes are fewer"),
            ("node=2;node=4", 4, "two levels called 'node'"),
            ("node=2+2;pod=3+1", 4, "in the middle of one of 'node'"),
        ] {
            let error = Layout::parse(text, ranks).unwrap_err();
            assert!(error.message().contains(what), "{error}");
        }
    }

    #[test]
    fn a_machines_last_group_may_be_smaller_and_scattered_ranks_share_no_group() {
        let link = |latency| Link::plain(latency, 1);
        let text = "unit = 'NPU'\n[[level]]\nname = 'node'\nholds = 4\nlink = { latency_ps = 1, rate_bytes_per_s = 1 }\n\
                    [[level]]\nname = 'supernode'\nholds = 3\nlink = { latency_ps = 2, rate_bytes_per_s = 1 }";
        let topology = Topology::from_toml(text).unwrap();
        let layout = Layout::of(&topology, 10);
        assert_eq!(layout.to_string(), "node=4;supernode=10");
        assert_eq!(layout.levels()[0].group(2), 8..10);
        assert_eq!((layout.levels()[0].largest(), layout.levels()[0].is_even()), (4, false));
        assert_eq!((layout.shared_level(3, 4), layout.shared_level(4, 4)), (1, 0));
        // Ranks 0 and 2 share a node, rank 1 stands between them.
        let scattered = Layout::of_places(&topology, &[0, 4, 1]);
        assert_eq!((scattered.to_string().as_str(), scattered.levels()[0].link()), ("supernode=3", 1));
        assert_eq!(Layout::flat(5).shared_level(0, 4), 0);
        // The same of a communicator's ranks.
        assert_eq!(layout.of_members(&[0, 4, 1]), scattered);
        assert_eq!(layout.of_members(&[1, 2, 4, 9]).to_string(), "node=2+1+1;supernode=4");
        assert_eq!(topology.link(0, 4), &link(2));
    }
}
