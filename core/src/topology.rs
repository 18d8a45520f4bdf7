//! Where ranks stand: levels of a machine (die, NPU, node, supernode) and the link between any two ranks.

use crate::collective::Rank;
use crate::error::{Error, Result};
use crate::memory_nodes::MemoryNodes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::num::NonZeroU64;

/// The levels of a machine, innermost first. Ranks fill it in order: rank 0 is the first unit of the first group.
///
/// ```
/// let topology = ubccl_core::Topology::from_toml(
///     r#"
///     unit = "NPU"
///     level = [
///         { name = "node", holds = 8, link = { latency_ps = 1_300_000, rate_bytes_per_s = 274_000_000_000 } },
///         { name = "supernode", holds = 48, link = { latency_ps = 2_100_000, rate_bytes_per_s = 270_000_000_000 } },
///     ]"#,
/// )?;
/// assert_eq!(topology.capacity(), 384);
/// assert_eq!(topology.levels()[topology.shared_level(0, 7)].name, "node");
/// assert_eq!(topology.link(7, 8).latency_ps, 2_100_000);
/// # Ok::<(), ubccl_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Description")]
pub struct Topology {
    unit: String,
    levels: Vec<Level>,
    /// Ranks in one whole group of each level.
    group_ranks: Vec<u32>,
    /// Of the host, if it is a real one.
    memory: Option<MemoryNodes>,
}

/// One level: groups of the level below (of ranks, at the innermost).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// What a group is called: NPU, node, supernode.
    pub name: String,
    /// How many groups of the level below it holds (ranks, at the innermost).
    pub holds: u32,
    /// The link between two ranks that share this group and no smaller one.
    pub link: Link,
    /// If its ranks stand in a ring of links between neighbours; innermost level only. [`Level::link`] is then that
    /// between neighbours, and its rate that of one link, one direction: each rank has two.
    #[serde(default)]
    pub ring: Option<Ring>,
}

/// What a ring takes that a switch does not. The ring is closed over the ranks that are used, if they do not fill it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ring {
    /// How much later a message's first byte is there for each rank that it passes on its way.
    pub hop_ps: u64,
}

/// A link class, in the terms of the LogGP model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// From the first byte's leaving to its arrival.
    pub latency_ps: u64,
    /// How fast one rank's port puts bytes on it, one direction.
    pub rate_bytes_per_s: u64,
    /// What a rank spends on a message before its first byte leaves.
    #[serde(default)]
    pub send_overhead_ps: u64,
    /// What a rank spends on a message after its last byte arrived.
    #[serde(default)]
    pub receive_overhead_ps: u64,
    /// The least time from one message's start to the next one's on a port; overlaps overhead and serialisation: a
    /// message takes `max(gap, overhead + bytes / rate)` of its port.
    #[serde(default)]
    pub gap_ps: u64,
    /// Bytes per second that a rank's port passes of several messages to or from different ranks together. None: no more
    /// than of one, `rate_bytes_per_s`.
    #[serde(default)]
    pub port_bytes_per_s: Option<NonZeroU64>,
    /// Which of a rank's ports: levels of one port share it.
    #[serde(default)]
    pub port: u8,
    /// Whether its switches copy a message to many: the sender's port passes it once.
    #[serde(default)]
    pub multicast: bool,
    /// Whether its switches fold what many send to one: the receiver's port passes the result once.
    #[serde(default)]
    pub reduces: bool,
}

/// A topology as it is written, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    unit: String,
    level: Vec<Level>,
}

impl Topology {
    /// The most ranks a topology may hold.
    pub const MAX_RANKS: u32 = 1 << 20;

    /// One level, on which every rank reaches every other over the same link.
    pub fn flat(unit: &str, link: Link) -> Result<Self> {
        let level = Level { name: "flat".to_owned(), holds: Self::MAX_RANKS, link, ring: None };
        Self::new(unit.to_owned(), vec![level]).map_err(Error::invalid)
    }

    /// Reads a topology: `unit`, and for each `[[level]]`, innermost first, `name`, `holds` and `link`.
    ///
    /// Errors: InvalidArgument, naming the key and the line.
    pub fn from_toml(text: &str) -> Result<Self> {
        parse_toml("the topology", text)
    }

    fn new(unit: String, levels: Vec<Level>) -> Result<Self, String> {
        if unit.is_empty() || levels.is_empty() {
            return Err("a topology needs a unit (what one rank is) and at least one level".to_owned());
        }
        let mut group_ranks = Vec::with_capacity(levels.len());
        let mut ranks = 1_u32;
        for (index, level) in levels.iter().enumerate() {
            level.check()?;
            if index > 0 && level.ring.is_some() {
                return Err(format!(
                    "level '{}' is a ring: only ranks, the innermost level, can be",
                    level.name
                ));
            }
            if levels[..index].iter().any(|earlier| earlier.name == level.name) {
                return Err(format!("two levels are called '{}'", level.name));
            }
            ranks = ranks
                .checked_mul(level.holds)
                .filter(|&ranks| ranks <= Self::MAX_RANKS)
                .ok_or_else(|| format!("level '{}' makes more than {} ranks", level.name, Self::MAX_RANKS))?;
            group_ranks.push(ranks);
        }
        Ok(Topology { unit, levels, group_ranks, memory: None })
    }

    /// The same on a host with these memory nodes.
    pub fn with_memory(self, memory: MemoryNodes) -> Self {
        Topology { memory: Some(memory), ..self }
    }

    /// The host's memory nodes: their processors, memory and distances. None if that is not known, or simulated.
    pub fn memory(&self) -> Option<&MemoryNodes> {
        self.memory.as_ref()
    }

    /// The same with other links, level by level.
    pub fn with_links(mut self, links: &[Link]) -> Self {
        self.levels.iter_mut().zip(links).for_each(|(level, &link)| level.link = link);
        self
    }

    /// What one rank stands for: NPU, die, process.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// The levels, innermost first.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// How many ranks fit.
    pub fn capacity(&self) -> u32 {
        self.group_ranks[self.group_ranks.len() - 1]
    }

    /// How many ranks one whole group of a level has.
    pub fn group_ranks(&self, level: usize) -> u32 {
        self.group_ranks[level]
    }

    /// Which group of a level a rank is in, counted over the whole machine.
    #[inline]
    pub fn group(&self, level: usize, rank: Rank) -> u32 {
        rank / self.group_ranks[level]
    }

    /// The innermost level whose group two ranks share; a rank shares the innermost with itself.
    #[inline]
    pub fn shared_level(&self, a: Rank, b: Rank) -> usize {
        let outermost = self.levels.len() - 1;
        (0..outermost).find(|&level| self.group(level, a) == self.group(level, b)).unwrap_or(outermost)
    }

    /// How many links of a ring a message between two of so many ranks passes, the shorter way round; 1 where its level is
    /// no ring.
    pub fn hops(&self, a: Rank, b: Rank, ranks: u32) -> u32 {
        if self.levels[0].ring.is_none() || self.shared_level(a, b) > 0 {
            return 1;
        }
        let first = a - a % self.levels[0].holds;
        let clockwise = a.abs_diff(b);
        clockwise.min(self.levels[0].holds.min(ranks - first) - clockwise)
    }

    /// How long the first byte of a message between two of so many ranks travels: [`Link::latency_ps`], and what a ring adds.
    pub fn latency_ps(&self, a: Rank, b: Rank, ranks: u32) -> u64 {
        self.link(a, b).latency_ps.saturating_add(self.passing_ps(a, b, ranks))
    }

    /// What it takes of that to pass the ranks of a ring between two of so many.
    pub fn passing_ps(&self, a: Rank, b: Rank, ranks: u32) -> u64 {
        let hop_ps = self.levels[0].ring.map_or(0, |ring| ring.hop_ps);
        u64::from(self.hops(a, b, ranks).saturating_sub(1)).saturating_mul(hop_ps)
    }

    /// The link between two ranks: that of the innermost level they share. On a ring, that of neighbours.
    pub fn link(&self, a: Rank, b: Rank) -> &Link {
        &self.levels[self.shared_level(a, b)].link
    }
}

impl TryFrom<Description> for Topology {
    type Error = String;

    fn try_from(description: Description) -> Result<Self, String> {
        Self::new(description.unit, description.level)
    }
}

/// `up to 384 ranks, each a NPU, 8 × NPU in a node, 48 × node in a supernode`.
impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = &self.levels[..]
            && only.holds == Self::MAX_RANKS
        {
            return write!(f, "any number of ranks, each a {}, on one {} link", self.unit, only.name);
        }
        write!(f, "up to {} ranks, each a {}", self.capacity(), self.unit)?;
        let mut lower = &self.unit;
        for level in &self.levels {
            write!(f, ", {} × {lower} in a {}", level.holds, level.name)?;
            lower = &level.name;
        }
        Ok(())
    }
}

impl Level {
    fn check(&self) -> Result<(), String> {
        let Level { name, holds, link, ring } = self;
        if name.is_empty() || *holds == 0 {
            return Err(format!("level '{name}' needs a name and must hold at least one"));
        }
        if let Some(Ring { hop_ps }) = ring {
            if *hop_ps > Link::MAX_TERM_PS {
                return Err(format!(
                    "hop_ps = {hop_ps} of level '{name}' is over {} (1000 s)",
                    Link::MAX_TERM_PS
                ));
            }
            if link.multicast || link.reduces {
                return Err(format!(
                    "level '{name}' is a ring: it has no switches that copy (multicast) or fold (reduces)"
                ));
            }
        }
        link.check().map_err(|what| format!("the link of level '{name}': {what}"))
    }
}

impl Link {
    /// The longest time a link's term may be: a thousand seconds.
    pub const MAX_TERM_PS: u64 = 1_000 * PS_PER_S;

    /// A link without overheads.
    pub fn plain(latency_ps: u64, rate_bytes_per_s: u64) -> Self {
        Link {
            latency_ps,
            rate_bytes_per_s,
            send_overhead_ps: 0,
            receive_overhead_ps: 0,
            gap_ps: 0,
            port_bytes_per_s: None,
            port: 0,
            multicast: false,
            reduces: false,
        }
    }

    /// What a rank's port passes of all messages together.
    #[inline]
    pub fn port_rate_bytes_per_s(&self) -> u64 {
        self.port_bytes_per_s.map_or(self.rate_bytes_per_s, NonZeroU64::get)
    }

    /// How long `bytes` take to pass a point: `⌈bytes · 10¹² / rate⌉`.
    #[inline]
    pub fn serialisation_ps(&self, bytes: u64) -> u64 {
        time_at_rate_ps(bytes, self.rate_bytes_per_s)
    }

    /// Checks that its numbers are possible.
    ///
    /// Errors: which is not, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.rate_bytes_per_s == 0 {
            return Err("rate_bytes_per_s must be at least 1".to_owned());
        }
        if self.port_rate_bytes_per_s() < self.rate_bytes_per_s {
            return Err(format!(
                "port_bytes_per_s = {} is below rate_bytes_per_s = {}: one message cannot be faster than its port",
                self.port_rate_bytes_per_s(),
                self.rate_bytes_per_s
            ));
        }
        let terms = [
            ("latency_ps", self.latency_ps),
            ("send_overhead_ps", self.send_overhead_ps),
            ("receive_overhead_ps", self.receive_overhead_ps),
            ("gap_ps", self.gap_ps),
        ];
        match terms.iter().find(|term| term.1 > Self::MAX_TERM_PS) {
            Some((name, value)) => Err(format!("{name} = {value} is over {} (1000 s)", Self::MAX_TERM_PS)),
            None => Ok(()),
        }
    }
}

const PS_PER_S: u64 = 1_000_000_000_000;

/// `⌈bytes · 10¹² / rate⌉`, exact; the end of time if it is beyond it.
#[inline]
pub fn time_at_rate_ps(bytes: u64, rate_bytes_per_s: u64) -> u64 {
    // Dividing 64 bits is several times as fast as 128, and most messages are below 18 MB.
    if let Some(dividend) = bytes.checked_mul(PS_PER_S) {
        return dividend.div_ceil(rate_bytes_per_s);
    }
    let exact = (u128::from(bytes) * u128::from(PS_PER_S)).div_ceil(u128::from(rate_bytes_per_s));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

/// Reads a description written in TOML; `what` is what it describes.
///
/// Errors: InvalidArgument, naming the line and the key that is unknown, missing or of the wrong kind.
pub fn parse_toml<T: DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let line =
            error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let hint = suggestion(error.message());
        Error::invalid(format!("{what}, about line {line}: {}{hint}", error.message()))
    })
}

/// Of "unknown field `x`, expected one of `a`, `b`" the name that is nearest to x, if one is near.
fn suggestion(message: &str) -> String {
    if !message.starts_with("unknown field") {
        return String::new();
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let Some(unknown) = names.next() else { return String::new() };
    let distances = names.map(|name| (distance(unknown, name), name));
    match distances.min() {
        Some((distance, name)) if distance <= 2.max(unknown.len() / 2) => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}

/// How many letters must be put in, left out or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_LEVELS: &str = "
        unit = 'die'
        [[level]]
        name = 'NPU'
        holds = 2
        link = { latency_ps = 10, rate_bytes_per_s = 270_000_000_000 }
        [[level]]
        name = 'node'
        holds = 8
        link = { latency_ps = 20, rate_bytes_per_s = 137_000_000_000, gap_ps = 3 }
    ";

    #[test]
    fn the_innermost_shared_level_gives_the_link() {
        let topology = Topology::from_toml(TWO_LEVELS).unwrap();
        assert_eq!((topology.capacity(), topology.unit()), (16, "die"));
        for (a, b, level) in [(0, 1, 0), (1, 2, 1), (14, 15, 0), (0, 15, 1), (3, 3, 0)] {
            assert_eq!(topology.shared_level(a, b), level, "{a} {b}");
            assert_eq!(topology.link(a, b), topology.link(b, a));
        }
        assert_eq!(topology.link(1, 2), &Link { gap_ps: 3, ..Link::plain(20, 137_000_000_000) });
        assert_eq!((topology.group(0, 5), topology.group(1, 5)), (2, 0));
        assert_eq!(topology.to_string(), "up to 16 ranks, each a die, 2 × die in a NPU, 8 × NPU in a node");
    }

    #[test]
    fn a_ring_goes_the_shorter_way_round_the_ranks_that_are_used() {
        let text = "unit = 'NPU'\nlevel = [{ name = 'ring', holds = 8, ring = { hop_ps = 5 }, link = { latency_ps = 20, \
                    rate_bytes_per_s = 1 } }, { name = 'pod', holds = 2, link = { latency_ps = 70, rate_bytes_per_s = 1 } }]";
        let topology = Topology::from_toml(text).unwrap();
        let hops = |ranks| [(0, 1), (1, 0), (0, 4), (0, 6), (5, 1)].map(|(a, b)| topology.hops(a, b, ranks));
        assert_eq!(hops(16), [1, 1, 4, 2, 4]);
        assert_eq!(hops(7), [1, 1, 3, 1, 3]);
        // The second ring has three ranks; between rings there is one link.
        assert_eq!((topology.hops(8, 10, 11), topology.hops(0, 10, 11)), (1, 1));
        assert_eq!([(0, 4), (0, 1), (0, 9)].map(|(a, b)| topology.latency_ps(a, b, 16)), [35, 20, 70]);
    }

    #[test]
    fn a_real_host_has_memory_nodes() {
        let topology = Topology::from_toml(TWO_LEVELS).unwrap();
        assert_eq!(topology.memory(), None);
        let with = topology.clone().with_memory(MemoryNodes::default());
        assert_eq!(with.memory(), Some(&MemoryNodes::default()));
        assert_eq!(with.levels(), topology.levels());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (TWO_LEVELS.replace("gap_ps", "gap_ns"), "unknown field `gap_ns`"),
            (TWO_LEVELS.replace("holds = 8", "hold = 8"), "unknown field `hold`"),
            (TWO_LEVELS.replace("holds = 8", ""), "missing field `holds`"),
            (TWO_LEVELS.replace("holds = 8", "holds = 0"), "'node' needs a name and must hold"),
            (TWO_LEVELS.replace("holds = 8", "holds = 600000"), "'node' makes more than 1048576 ranks"),
            (TWO_LEVELS.replace("137_000_000_000", "0"), "level 'node': rate_bytes_per_s must be"),
            (
                TWO_LEVELS.replace("20, rate", "20000000000000000, rate"),
                "latency_ps = 20000000000000000 is over",
            ),
            (TWO_LEVELS.replace("'node'", "'NPU'"), "two levels are called 'NPU'"),
            (TWO_LEVELS.replace("holds = 8", "holds = 8\nring = {}"), "missing field `hop_ps`"),
            (TWO_LEVELS.replace("holds = 8", "holds = 8\nring = { hops_ps = 1 }"), "did you mean `hop_ps`?"),
            (
                TWO_LEVELS.replace("holds = 8", "holds = 8\nring = { hop_ps = 1 }"),
                "level 'node' is a ring: only ranks",
            ),
            (
                TWO_LEVELS.replace("holds = 2", "holds = 2\nring = { hop_ps = 2000000000000000 }"),
                "hop_ps = 2000000000000000",
            ),
            (
                TWO_LEVELS
                    .replace("holds = 2", "holds = 2\nring = { hop_ps = 1 }")
                    .replace("10,", "10, reduces = true,"),
                "'NPU' is a ring: it has no switches",
            ),
            (TWO_LEVELS.replace("unit = 'die'", "unit = 'die'\nports = 7"), "unknown field `ports`"),
            ("unit = 'die'\nlevel = []".to_owned(), "at least one level"),
        ];
        for (text, expected) in cases {
            let error = Topology::from_toml(&text).unwrap_err();
            assert!(error.message().contains(expected), "{error}, expected {expected}");
        }
        let error = Topology::from_toml(&TWO_LEVELS.replace("gap_ps", "gap_ns")).unwrap_err();
        assert!(error.message().contains("line 10"), "{error}");
        assert!(error.message().ends_with("did you mean `gap_ps`?"), "{error}");
    }

    #[test]
    fn serialisation_is_rounded_up_and_exact_beyond_64_bits() {
        assert_eq!(Link::plain(0, 3).serialisation_ps(1), 333_333_333_334);
        assert_eq!(Link::plain(0, 392_000_000_000).serialisation_ps(0), 0);
        assert_eq!(Link::plain(0, 1_000_000_000_000).serialisation_ps(1 << 40), 1 << 40);
        assert_eq!(Link::plain(0, 7).serialisation_ps(7 << 20), (1 << 20) * PS_PER_S);
        assert_eq!(time_at_rate_ps(u64::MAX, 1), u64::MAX);
    }
}
