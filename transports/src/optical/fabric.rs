//! What a fabric is: its topology, what its ranks cost, and where the numbers come from.

use serde::Deserialize;
use std::num::NonZeroU64;
use ubccl_core::endpoint::Machine;
use ubccl_core::topology::{Link, Topology, parse_toml};
use ubccl_core::{Error, Result};

/// A fabric: read from a preset's name, the `custom:` form, or TOML text.
///
/// ```
/// use ubccl_transports::optical::Fabric;
///
/// assert_eq!(Fabric::parse("cloudmatrix384")?.topology().capacity(), 384);
/// let custom = Fabric::parse("custom:latency_ps=2100000,bytes_per_s=392000000000")?;
/// assert_eq!(custom, Fabric::custom(2_100_000, 392_000_000_000)?);
/// # Ok::<(), ubccl_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fabric {
    name: String,
    topology: Topology,
    #[serde(default)]
    rank: RankCosts,
    /// Where the numbers come from.
    #[serde(default)]
    sources: Vec<String>,
    /// What this description cannot show.
    #[serde(default)]
    unseen: Vec<String>,
}

/// What happens inside a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RankCosts {
    /// Bytes folded in per second: a reduction of k terms of n bytes folds (k − 1)·n. None takes no time.
    pub(super) reduce_bytes_per_s: Option<NonZeroU64>,
    /// Bytes copied per second. None takes no time.
    pub(super) copy_bytes_per_s: Option<NonZeroU64>,
    /// How long after a death the other ranks may know of it.
    pub(super) detection_ps: u64,
}

impl Default for RankCosts {
    fn default() -> Self {
        // 10 µs: a few round trips. Nobody has published one.
        RankCosts { reduce_bytes_per_s: None, copy_bytes_per_s: None, detection_ps: 10_000_000 }
    }
}

/// Name and text of every preset.
const PRESETS: &[(&str, &str)] = &[
    ("cloudmatrix384", include_str!("../../fabrics/cloudmatrix384.toml")),
    ("cloudmatrix384-die", include_str!("../../fabrics/cloudmatrix384-die.toml")),
    ("ideal", include_str!("../../fabrics/ideal.toml")),
];

const CUSTOM_FORM: &str = "custom:latency_ps=2100000,bytes_per_s=392000000000";

impl Fabric {
    /// Names of the presets and their TOML texts, to be shown or copied.
    pub fn presets() -> &'static [(&'static str, &'static str)] {
        PRESETS
    }

    /// A flat link of this latency and rate between any two of any number of ranks, and nothing else that takes time.
    pub fn custom(latency_ps: u64, bytes_per_s: u64) -> Result<Self> {
        if latency_ps > Link::MAX_TERM_PS || bytes_per_s == 0 {
            return Err(Error::invalid(format!(
                "a custom fabric needs latency_ps of at most {} and bytes_per_s of at least 1, not {latency_ps} and \
                 {bytes_per_s}",
                Link::MAX_TERM_PS
            )));
        }
        Ok(Fabric {
            name: "custom".to_owned(),
            topology: Topology::flat("rank", Link::plain(latency_ps, bytes_per_s))?,
            rank: RankCosts::default(),
            sources: vec!["the caller".to_owned()],
            unseen: vec!["everything but one latency and one rate".to_owned()],
        })
    }

    /// A fabric from a preset's name, the form `custom:latency_ps=…,bytes_per_s=…`, or TOML text.
    ///
    /// Errors: InvalidArgument, listing the presets or naming the wrong key.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if let Some(terms) = text.strip_prefix("custom:") {
            return Self::parse_custom(terms);
        }
        if let Some((name, preset)) = PRESETS.iter().find(|preset| preset.0 == text) {
            return Self::from_toml(name, preset);
        }
        if text.contains('=') {
            return Self::from_toml("the fabric", text);
        }
        let names: Vec<_> = PRESETS.iter().map(|preset| preset.0).collect();
        Err(Error::invalid(format!(
            "unknown fabric '{text}'; there are: {}, {CUSTOM_FORM}, or TOML text",
            names.join(", ")
        )))
    }

    fn from_toml(what: &str, text: &str) -> Result<Self> {
        let fabric: Fabric = parse_toml(what, text)?;
        if fabric.rank.detection_ps > Link::MAX_TERM_PS {
            return Err(Error::invalid(format!(
                "{what}: detection_ps is over {} (1000 s)",
                Link::MAX_TERM_PS
            )));
        }
        Ok(fabric)
    }

    fn parse_custom(terms: &str) -> Result<Self> {
        let (mut latency_ps, mut bytes_per_s) = (None, None);
        for term in terms.split(',') {
            let (key, value) = term.split_once('=').unwrap_or((term, ""));
            let slot = match key.trim() {
                "latency_ps" => &mut latency_ps,
                "bytes_per_s" => &mut bytes_per_s,
                unknown => {
                    return Err(Error::invalid(format!(
                        "unknown key '{unknown}' of a custom fabric; write {CUSTOM_FORM}"
                    )));
                }
            };
            let number = value.trim().replace('_', "").parse::<u64>().map_err(|error| {
                Error::invalid(format!("{key}={value} of a custom fabric is no whole number: {error}"))
            })?;
            if slot.replace(number).is_some() {
                return Err(Error::invalid(format!("a custom fabric names {key} twice")));
            }
        }
        match (latency_ps, bytes_per_s) {
            (Some(latency_ps), Some(bytes_per_s)) => Self::custom(latency_ps, bytes_per_s),
            _ => Err(Error::invalid(format!("a custom fabric needs both numbers; write {CUSTOM_FORM}"))),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its ranks stand.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// What a tuner reckons with.
    pub fn machine(&self) -> Machine {
        let RankCosts { reduce_bytes_per_s, copy_bytes_per_s, .. } = self.rank;
        Machine {
            topology: self.topology.clone(),
            reduce_bytes_per_s,
            copy_bytes_per_s,
            start_ps: 0,
            fold_overhead_ps: 0,
        }
    }

    /// What the links out of a group of a level pass together, each way, if they are told.
    pub(super) fn uplink_bytes_per_s(&self, _level: usize) -> Option<u64> {
        None
    }

    pub(super) fn rank_costs(&self) -> &RankCosts {
        &self.rank
    }

    /// Refuses more ranks than it holds, and none.
    pub(super) fn check_ranks(&self, ranks: u32) -> Result<()> {
        let (name, capacity, unit) = (&self.name, self.topology.capacity(), self.topology.unit());
        if ranks == 0 || ranks > capacity {
            return Err(Error::invalid(format!(
                "fabric '{name}' holds 1 to {capacity} ranks (each a {unit}), not {ranks}"
            )));
        }
        Ok(())
    }

    /// Name, unit, levels, sources, and what it cannot show.
    pub fn describe(&self) -> String {
        let list = |items: &[String]| if items.is_empty() { "not said".to_owned() } else { items.join("; ") };
        format!(
            "{}: {}\nsources: {}\nnot seen: {}",
            self.name,
            self.topology,
            list(&self.sources),
            list(&self.unseen)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_what_their_machine_is() {
        for &(name, _) in Fabric::presets() {
            let fabric = Fabric::parse(name).unwrap();
            assert_eq!(fabric.name(), name);
            assert!(!fabric.sources.is_empty() && !fabric.unseen.is_empty(), "{name}");
        }
        let [npus, dies] = ["cloudmatrix384", "cloudmatrix384-die"].map(|name| Fabric::parse(name).unwrap());
        assert_eq!((npus.topology().capacity(), npus.topology().unit()), (384, "NPU"));
        assert_eq!((dies.topology().capacity(), dies.topology().unit()), (768, "die"));
        assert_eq!(dies.topology().group_ranks(1), 16);
        // 512 bytes take what Table 1 says.
        for (a, b, published_ps) in [(0, 2, 1_300_000), (0, 16, 2_100_000)] {
            let link = dies.topology().link(a, b);
            assert_eq!(link.latency_ps + link.serialisation_ps(512), published_ps);
        }
    }

    #[test]
    fn limits_and_mistakes_are_named() {
        let preset = PRESETS[0].1;
        let cases = [
            (
                "cloudmatrix385".to_owned(),
                "there are: cloudmatrix384, cloudmatrix384-die, ideal, custom:latency_ps=",
            ),
            ("custom".to_owned(), "unknown fabric 'custom'"),
            ("custom:latency_ps=1".to_owned(), "needs both numbers"),
            ("custom:latency_ps=1,latency_ps=1".to_owned(), "names latency_ps twice"),
            ("custom:latency_us=1".to_owned(), "unknown key 'latency_us'"),
            ("custom:latency_ps=1.5,bytes_per_s=1".to_owned(), "latency_ps=1.5 of a custom"),
            ("custom:latency_ps=1,bytes_per_s=0".to_owned(), "bytes_per_s of at least 1"),
            (preset.replace("detection_ps", "detect_ps"), "unknown field `detect_ps`"),
            (preset.replace("latency_ps =", "latency ="), "unknown field `latency`"),
            (preset.replace("unseen", "blind"), "unknown field `blind`"),
        ];
        for (text, expected) in cases {
            let error = Fabric::parse(&text).unwrap_err();
            assert!(error.message().contains(expected), "{error}, expected {expected}");
        }
        let error = Fabric::parse("cloudmatrix384").unwrap().check_ranks(385).unwrap_err();
        assert!(error.message().contains("1 to 384 ranks (each a NPU), not 385"), "{error}");
    }

    #[test]
    fn a_description_says_unit_sources_and_limits() {
        let text = Fabric::parse("cloudmatrix384-die").unwrap().describe();
        for part in ["cloudmatrix384-die", "768 ranks, each a die", "arXiv 2506.12708", "not seen: start-up"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
