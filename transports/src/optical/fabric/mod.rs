//! What a fabric is: its topology, what its ranks cost, and where the numbers come from.

mod description;

use super::events::NO_LINK;
use super::timing::{Rings, Wiring};
use description::{Description, EngineDescription, RankDescription};
pub(super) use description::{Striping, Uplink};
use std::num::NonZeroU64;
use ubccl_core::endpoint::{EngineCosts, Fidelity, Machine};
use ubccl_core::topology::{Link, Topology, parse_toml};
use ubccl_core::{Error, Rank, Result};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fabric {
    name: String,
    /// With the links of the first engine.
    topology: Topology,
    /// The links of the first engine's levels, of the second's, …
    links: Vec<Link>,
    engines: Vec<Engine>,
    planes: Vec<(u32, Striping)>,
    uplinks: Vec<Option<Uplink>>,
    streams: Option<u32>,
    detection_ps: u64,
    sources: Vec<String>,
    unseen: Vec<String>,
}

/// A software path that is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Engine {
    /// None, if the description has no engines.
    name: Option<String>,
    most_bytes: Option<u64>,
    most_ranks: Option<u32>,
    costs: Costs,
}

/// What an engine costs beside its links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Costs {
    pub(super) start_ps: u64,
    pub(super) fold_ps: u64,
    pub(super) reduce_bytes_per_s: Option<NonZeroU64>,
    pub(super) copy_bytes_per_s: Option<NonZeroU64>,
}

/// Name and text of every preset.
const PRESETS: &[(&str, &str)] = &[
    ("cloudmatrix384", include_str!("../../../fabrics/cloudmatrix384.toml")),
    ("cloudmatrix384-die", include_str!("../../../fabrics/cloudmatrix384-die.toml")),
    ("cloudmatrix384-host", include_str!("../../../fabrics/cloudmatrix384-host.toml")),
    ("gb200-nvl72", include_str!("../../../fabrics/gb200-nvl72.toml")),
    ("ideal", include_str!("../../../fabrics/ideal.toml")),
    ("ring", include_str!("../../../fabrics/ring.toml")),
    ("switch", include_str!("../../../fabrics/switch.toml")),
];

/// What stands between a fabric and the engines it is to use.
const ENGINES: char = '+';

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
        let topology = Topology::flat("rank", Link::plain(latency_ps, bytes_per_s))?;
        let links = topology.levels().iter().map(|level| level.link).collect();
        Ok(Fabric {
            name: "custom".to_owned(),
            topology,
            links,
            engines: vec![Engine::default()],
            planes: Vec::new(),
            uplinks: Vec::new(),
            streams: None,
            detection_ps: RankDescription::default().detection_ps,
            sources: vec!["the caller".to_owned()],
            unseen: vec!["everything but one latency and one rate".to_owned()],
        })
    }

    /// A fabric from a preset's name, the form `custom:latency_ps=…,bytes_per_s=…`, or TOML text. A preset's name may go
    /// on with engines of it, `cloudmatrix384-die+read`: of several each post says which does it.
    ///
    /// Errors: InvalidArgument, listing the presets or naming the wrong key.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if let Some(terms) = text.strip_prefix("custom:") {
            return Self::parse_custom(terms);
        }
        let mut parts = text.split(ENGINES);
        let name = parts.next().unwrap_or_default();
        if let Some((name, preset)) = PRESETS.iter().find(|preset| preset.0 == name) {
            return Self::from_toml(name, preset, &parts.collect::<Vec<_>>());
        }
        if text.contains('=') {
            return Self::from_toml("the fabric", text, &[]);
        }
        let names: Vec<_> = PRESETS.iter().map(|preset| preset.0).collect();
        Err(Error::invalid(format!(
            "unknown fabric '{text}'; there are: {}, {CUSTOM_FORM}, or TOML text",
            names.join(", ")
        )))
    }

    /// Of the engines, those that are named, or the first.
    fn from_toml(what: &str, text: &str, wanted: &[&str]) -> Result<Self> {
        let description: Description = parse_toml(what, text)?;
        Self::build(description, wanted).map_err(|problem| Error::invalid(format!("{what}: {problem}")))
    }

    fn build(description: Description, wanted: &[&str]) -> Result<Self, String> {
        let RankDescription { reduce_bytes_per_s, copy_bytes_per_s, detection_ps, streams } =
            description.rank;
        if detection_ps > Link::MAX_TERM_PS {
            return Err(format!("detection_ps is over {} (1000 s)", Link::MAX_TERM_PS));
        }
        if streams == Some(0) {
            return Err("streams = 0: no message could be under way".to_owned());
        }
        let used = used(&description.engine, wanted)?;
        let mut links = Vec::new();
        for engine in &used {
            links.extend(description.links(*engine)?);
        }
        if links.len() > usize::from(NO_LINK) {
            return Err(format!("engines times levels are more than {NO_LINK}"));
        }
        let engine = |engine: Option<&EngineDescription>| {
            let costs = Costs { start_ps: 0, fold_ps: 0, reduce_bytes_per_s, copy_bytes_per_s };
            let Some(own) = engine else {
                return Engine { costs, ..Engine::default() };
            };
            Engine {
                name: Some(own.name.clone()),
                most_bytes: own.most_bytes,
                most_ranks: own.most_ranks,
                costs: Costs {
                    start_ps: own.start_ps,
                    fold_ps: own.fold_ps,
                    reduce_bytes_per_s: own.reduce_bytes_per_s.or(reduce_bytes_per_s),
                    copy_bytes_per_s: own.copy_bytes_per_s.or(copy_bytes_per_s),
                },
            }
        };
        let uplinks = description.uplinks()?;
        Ok(Fabric {
            engines: used.iter().map(|used| engine(*used)).collect(),
            topology: description.topology.with_links(&links),
            links,
            planes: description.port.iter().map(|port| (port.planes, port.striping)).collect(),
            uplinks,
            streams,
            detection_ps,
            name: description.name,
            sources: description.sources,
            unseen: description.unseen,
        })
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
    pub fn machine(&self, fidelity: Fidelity) -> Machine {
        let at_once = match fidelity {
            Fidelity::Fluid => Some(self.streams.unwrap_or(u32::MAX)),
            _ => None,
        };
        let costs = |(engine, links): (&Engine, &[Link])| {
            let Costs { start_ps, fold_ps, reduce_bytes_per_s, copy_bytes_per_s } = engine.costs;
            EngineCosts {
                name: engine.name.clone(),
                links: links.to_vec(),
                most_bytes: engine.most_bytes,
                most_ranks: engine.most_ranks,
                reduce_bytes_per_s,
                copy_bytes_per_s,
                start_ps,
                fold_overhead_ps: fold_ps,
                at_once,
            }
        };
        let links = self.links.chunks(self.topology.levels().len());
        Machine {
            topology: self.topology.clone(),
            engines: self.engines.iter().zip(links).map(costs).collect(),
        }
    }

    /// The link from one rank to another as an engine drives it.
    pub(super) fn link(&self, engine: u8, from: Rank, to: Rank) -> &Link {
        let levels = self.topology.levels().len();
        &self.links[usize::from(engine) * levels + self.topology.shared_level(from, to)]
    }

    /// What the links out of a group of a level pass together, each way, if they are told.
    pub(super) fn uplink_bytes_per_s(&self, level: usize) -> Option<u64> {
        let Uplink { bytes_per_s, links } = self.uplinks.get(level).copied().flatten()?;
        let port = self.topology.levels().get(level + 1)?.link.port;
        let planes = self.planes.get(usize::from(port)).map_or(1, |planes| planes.0);
        Some(bytes_per_s.saturating_mul(u64::from(links)).saturating_mul(u64::from(planes)))
    }

    /// Of how many planes its ports are, if it tells.
    pub(super) fn planes(&self) -> Option<u32> {
        self.planes.iter().map(|planes| planes.0).find(|&planes| planes > 1)
    }

    /// What a fidelity needs to know.
    pub(super) fn wiring(&self, ranks: u32, seed: u64) -> Wiring<'_> {
        Wiring {
            topology: &self.topology,
            links: &self.links,
            planes: &self.planes,
            uplinks: &self.uplinks,
            streams: self.streams,
            rings: Rings::of(
                &self.topology,
                ranks,
                self.links.iter().map(|link| link.port).max().unwrap_or(0) + 1,
            ),
            ranks,
            seed,
        }
    }

    /// Which engine a post is for: the one it names, or the first.
    ///
    /// Errors: Internal, for one that there is not.
    #[inline]
    pub(super) fn engine(&self, wanted: Option<u8>) -> Result<u8> {
        let engine = wanted.unwrap_or(0);
        if usize::from(engine) < self.engines.len() {
            return Ok(engine);
        }
        let (name, engines) = (&self.name, self.engines.len());
        Err(Error::internal(format!("a post for engine {engine} of fabric '{name}', which has {engines}")))
    }

    /// What an engine costs beside its links.
    #[inline]
    pub(super) fn costs(&self, engine: u8) -> &Costs {
        &self.engines[usize::from(engine)].costs
    }

    /// How long after a death the other ranks may know of it.
    pub(super) fn detection_ps(&self) -> u64 {
        self.detection_ps
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
        let names: Vec<&str> = self.engines.iter().filter_map(|engine| engine.name.as_deref()).collect();
        let engines =
            if names.is_empty() { String::new() } else { format!("\nengines: {}", names.join(", ")) };
        format!(
            "{}: {}{engines}\nsources: {}\nnot seen: {}",
            self.name,
            self.topology,
            list(&self.sources),
            list(&self.unseen)
        )
    }
}

/// The engines of these names, in this order; without names the first, if there is one.
fn used<'a>(
    engines: &'a [EngineDescription],
    wanted: &[&str],
) -> Result<Vec<Option<&'a EngineDescription>>, String> {
    if wanted.is_empty() {
        return Ok(vec![engines.first()]);
    }
    let find = |name: &&str| {
        let found = engines.iter().find(|engine| engine.name == *name);
        found.map(Some).ok_or_else(|| {
            let names: Vec<&str> = engines.iter().map(|engine| &engine.name[..]).collect();
            let there = if names.is_empty() { "it has none".to_owned() } else { names.join(", ") };
            format!("no engine is called '{name}'; there are: {there}")
        })
    };
    wanted.iter().map(find).collect()
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
                "there are: cloudmatrix384, cloudmatrix384-die, cloudmatrix384-host, gb200-nvl72, ideal, ring",
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
        let ring = PRESETS.iter().find(|preset| preset.0 == "ring").unwrap().1;
        let outer =
            "[[topology.level]]\nname = 'pod'\nholds = 2\nlink = { latency_ps = 1, rate_bytes_per_s = 1 }\n";
        let port =
            "[[port]]\nname = 'wire'\nlevels = ['ring']\nplanes = 2\nlane_bytes_per_s = 50_000_000_000\n";
        for (text, expected) in [
            (format!("{ring}{outer}"), "level 'pod' uses the same port"),
            (format!("{ring}{port}striping = 'hash'"), "port 'wire' is a ring's: its striping"),
            (ring.replace("{ hop_ps", "{ hops"), "did you mean `hop_ps`?"),
        ] {
            let error = Fabric::parse(&text).unwrap_err();
            assert!(error.message().contains(expected), "{error}, expected {expected}");
        }
        assert!(Fabric::parse(&format!("{ring}{outer}{port}")).unwrap_err().message().contains("same port"));
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
