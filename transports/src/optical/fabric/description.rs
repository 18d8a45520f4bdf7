//! What a fabric's TOML may say. Every key that is not here is refused.

use serde::Deserialize;
use std::num::NonZeroU64;
use ubccl_core::Topology;
use ubccl_core::topology::{Level, Link};

/// A whole description.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    pub(super) name: String,
    pub(super) topology: Topology,
    #[serde(default)]
    pub(super) rank: RankDescription,
    /// Of a way between ranks, beside what a link's latency says.
    #[serde(default)]
    pub(super) wire: Wire,
    #[serde(default)]
    pub(super) port: Vec<Port>,
    #[serde(default)]
    pub(super) uplink: Vec<Uplinks>,
    #[serde(default)]
    pub(super) engine: Vec<EngineDescription>,
    /// Where the numbers come from.
    #[serde(default)]
    pub(super) sources: Vec<String>,
    /// What this description cannot show.
    #[serde(default)]
    pub(super) unseen: Vec<String>,
}

/// What happens inside a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RankDescription {
    /// Bytes folded in per second: a reduction of k terms of n bytes folds (k − 1)·n. None takes no time.
    pub(super) reduce_bytes_per_s: Option<NonZeroU64>,
    /// Bytes copied per second. None takes no time.
    pub(super) copy_bytes_per_s: Option<NonZeroU64>,
    /// How long after a death the other ranks may know of it.
    pub(super) detection_ps: u64,
    /// How many messages an engine has under way on a port at once, where they are timed as flows. None: any number.
    pub(super) streams: Option<u32>,
}

impl Default for RankDescription {
    fn default() -> Self {
        // 10 µs: a few round trips. Nobody has published one.
        RankDescription {
            reduce_bytes_per_s: None,
            copy_bytes_per_s: None,
            detection_ps: 10_000_000,
            streams: None,
        }
    }
}

/// What the parts of a way take, and how many of them there are between two ranks of each level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wire {
    /// Through one switch.
    pub(super) switch_ps: u64,
    /// Along one metre of fibre or copper.
    pub(super) metre_ps: u64,
    /// Forward error correction at one receiver.
    pub(super) fec_ps: u64,
    /// Through one optical module.
    pub(super) module_ps: u64,
    pub(super) path: Vec<Path>,
}

/// What stands between two ranks that share a group of this level and no smaller one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Path {
    pub(super) level: String,
    #[serde(default)]
    pub(super) switches: u64,
    #[serde(default)]
    pub(super) metres: u64,
    #[serde(default)]
    pub(super) fecs: u64,
    #[serde(default)]
    pub(super) modules: u64,
}

impl Wire {
    fn latency_ps(&self, path: &Path) -> u64 {
        let parts = [
            (path.switches, self.switch_ps),
            (path.metres, self.metre_ps),
            (path.fecs, self.fec_ps),
            (path.modules, self.module_ps),
        ];
        parts.iter().fold(0_u64, |sum, &(count, each_ps)| sum.saturating_add(count.saturating_mul(each_ps)))
    }
}

/// A port of every rank: planes of lanes, and the levels whose messages pass it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) levels: Vec<String>,
    #[serde(default = "one")]
    pub(super) planes: u32,
    /// Lanes of a plane.
    #[serde(default = "one")]
    pub(super) lanes: u32,
    /// What a lane passes, each way.
    pub(super) lane_bytes_per_s: u64,
    #[serde(default)]
    pub(super) striping: Striping,
}

impl Port {
    fn bytes_per_s(&self) -> Option<NonZeroU64> {
        let lanes = u64::from(self.planes).checked_mul(u64::from(self.lanes))?;
        NonZeroU64::new(lanes.checked_mul(self.lane_bytes_per_s)?)
    }
}

fn one() -> u32 {
    1
}

/// How messages take the planes of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::optical) enum Striping {
    /// Every message over all planes at once.
    #[default]
    Spray,
    /// The messages of a pair of ranks over one plane, drawn by hash.
    Hash,
    /// All messages of a rank over one plane, that of its number.
    Pinned,
    /// Each message over the plane with the fewest messages of its sender.
    Adaptive,
}

/// The links out of each group of a level, and as many into it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Uplinks {
    pub(super) level: String,
    /// Of each plane.
    pub(super) links: u32,
    /// What one link passes, each way.
    pub(super) bytes_per_s: u64,
}

/// The links out of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::optical) struct Uplink {
    pub(in crate::optical) bytes_per_s: u64,
    pub(in crate::optical) links: u32,
}

/// A software path: who moves bytes, and what that costs. What it does not say is as the rest of the description has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EngineDescription {
    pub(super) name: String,
    /// It does calls of so many bytes, as the kind counts them (a block's), and on so many ranks; none: any.
    #[serde(default)]
    pub(super) most_bytes: Option<u64>,
    #[serde(default)]
    pub(super) most_ranks: Option<u32>,
    /// What a collective costs each rank before its first message.
    #[serde(default)]
    pub(super) start_ps: u64,
    /// What each folded term costs beside its bytes.
    #[serde(default)]
    pub(super) fold_ps: u64,
    #[serde(default)]
    pub(super) reduce_bytes_per_s: Option<NonZeroU64>,
    #[serde(default)]
    pub(super) copy_bytes_per_s: Option<NonZeroU64>,
    #[serde(default)]
    pub(super) link: Vec<EngineLink>,
}

/// What an engine makes of the links of some levels.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EngineLink {
    pub(super) levels: Vec<String>,
    /// What its ends take, instead of the link's latency; the wire comes beside.
    #[serde(default)]
    pub(super) latency_ps: Option<u64>,
    /// The most that one stream gets.
    #[serde(default)]
    pub(super) rate_bytes_per_s: Option<u64>,
    /// The most that it moves over a port, all streams together.
    #[serde(default)]
    pub(super) port_bytes_per_s: Option<NonZeroU64>,
    #[serde(default)]
    pub(super) send_overhead_ps: Option<u64>,
    #[serde(default)]
    pub(super) receive_overhead_ps: Option<u64>,
    #[serde(default)]
    pub(super) gap_ps: Option<u64>,
}

impl EngineLink {
    fn apply(&self, link: &mut Link) {
        let set = |term: &mut u64, own: Option<u64>| *term = own.unwrap_or(*term);
        set(&mut link.latency_ps, self.latency_ps);
        set(&mut link.rate_bytes_per_s, self.rate_bytes_per_s);
        set(&mut link.send_overhead_ps, self.send_overhead_ps);
        set(&mut link.receive_overhead_ps, self.receive_overhead_ps);
        set(&mut link.gap_ps, self.gap_ps);
        link.port_bytes_per_s = self.port_bytes_per_s.or(link.port_bytes_per_s);
    }
}

impl Description {
    /// The links as an engine drives them, by level; those of the rank itself, if there is none.
    ///
    /// Errors: what is wrong, in words.
    pub(super) fn links(&self, engine: Option<&EngineDescription>) -> Result<Vec<Link>, String> {
        let levels = self.topology.levels();
        let mut links: Vec<Link> = levels.iter().map(|level| level.link).collect();
        for (number, port) in (0_u8..).zip(&self.port) {
            let rate = port.bytes_per_s().ok_or_else(|| format!("port '{}' passes nothing", port.name))?;
            for level in &port.levels {
                let link = &mut links[position(levels, level)?];
                (link.port, link.port_bytes_per_s) = (number, Some(rate));
            }
        }
        for own in engine.iter().flat_map(|engine| &engine.link) {
            for level in &own.levels {
                own.apply(&mut links[position(levels, level)?]);
            }
        }
        for path in &self.wire.path {
            let link = &mut links[position(levels, &path.level)?];
            link.latency_ps = link.latency_ps.saturating_add(self.wire.latency_ps(path));
        }
        if levels[0].ring.is_some() {
            self.check_ring(&links)?;
        }
        for (level, link) in levels.iter().zip(&links) {
            link.check().map_err(|what| format!("the link of level '{}': {what}", level.name))?;
        }
        Ok(links)
    }

    /// The links of a ring are its own: no other level's messages pass them, and each takes all its planes.
    fn check_ring(&self, links: &[Link]) -> Result<(), String> {
        let (own, name) = (links[0].port, &self.topology.levels()[0].name);
        let others = links.iter().zip(self.topology.levels()).skip(1);
        if let Some((_, other)) = others.clone().find(|(link, _)| link.port == own) {
            return Err(format!(
                "level '{name}' is a ring, and level '{}' uses the same port: give each a [[port]] of its own",
                other.name
            ));
        }
        match self.port.get(usize::from(own)).filter(|port| port.striping != Striping::Spray) {
            Some(port) => {
                Err(format!("port '{}' is a ring's: its striping can only be \"spray\"", port.name))
            }
            None => Ok(()),
        }
    }

    /// The links out of the groups of each level.
    pub(super) fn uplinks(&self) -> Result<Vec<Option<Uplink>>, String> {
        let levels = self.topology.levels();
        let mut uplinks = vec![None; levels.len()];
        for Uplinks { level, links, bytes_per_s } in &self.uplink {
            if *links == 0 || *bytes_per_s == 0 {
                return Err(format!(
                    "an uplink of level '{level}' needs links and bytes_per_s of at least 1"
                ));
            }
            uplinks[position(levels, level)?] = Some(Uplink { bytes_per_s: *bytes_per_s, links: *links });
        }
        Ok(uplinks)
    }
}

fn position(levels: &[Level], name: &str) -> Result<usize, String> {
    levels.iter().position(|level| level.name == name).ok_or_else(|| {
        let names: Vec<&str> = levels.iter().map(|level| &level.name[..]).collect();
        format!("there is no level '{name}'; there are: {}", names.join(", "))
    })
}
