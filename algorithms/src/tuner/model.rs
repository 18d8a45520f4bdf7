//! What a machine costs: the numbers of which a profile becomes a time.

use super::correction::Correction;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;
use ubccl_core::algorithm::Switching;
use ubccl_core::endpoint::EngineCosts;
use ubccl_core::topology::{Level, Link, Topology, parse_toml};
use ubccl_core::{Error, Layout, Result};

/// A machine's costs: LogGP for the links of each level, rates for what ranks do, and what happens where ranks share a
/// core or a way out.
///
/// ```
/// use ubccl_algorithms::tuner::Model;
///
/// let text = "reduce_bytes_per_s = 12e9\ncores = 2\n[[level]]\nname = 'node'\nlatency_ps = 800_000\n\
///             rate_bytes_per_s = 9e9\n";
/// let model = Model::from_toml(text)?;
/// assert_eq!((model.level[0].latency_ps, model.cores), (8e5, Some(2)));
/// assert_eq!(Model::from_toml(&model.to_toml()?)?, model);
/// # Ok::<(), ubccl_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What a call costs before its first message.
    #[serde(default)]
    pub launch_ps: f64,
    /// Bytes that a rank folds in per second: a reduction of k terms of n bytes folds (k − 1)·n. None takes no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce_bytes_per_s: Option<f64>,
    /// What each folded term costs beside its bytes.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub fold_ps: f64,
    /// Bytes that a rank copies per second. None takes no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_bytes_per_s: Option<f64>,
    /// How many ranks of a node (a group of the innermost level) run at once, where processors move the bytes: ranks
    /// beyond wait for a core. None where each rank has engines of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// How many messages to different ranks a port passes at once, each at its share of the rate. None: one after the
    /// other, in the order posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
    /// The links, by level of the topology, innermost first. Further levels are like the last.
    pub level: Vec<LinkCost>,
    /// What was measured of single algorithms beside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub correction: Vec<Correction>,
    /// Where the numbers come from, if they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fitted: Option<Fitted>,
}

/// The links of one level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkCost {
    /// What a group of this level is called.
    pub name: String,
    /// From a message's leaving to its arrival, for each of the messages that hang on one another.
    pub latency_ps: f64,
    /// What the two ranks spend on a message beside its bytes. Where ranks have engines of their own, those of messages
    /// to different ranks overlap; a processor does one after the other.
    #[serde(default)]
    pub overhead_ps: f64,
    /// What of that holds the sender's port, before the bytes; of a processor all does.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub port_overhead_ps: f64,
    /// The least time from one message's start to the next one's on a port; overlaps its bytes.
    #[serde(default)]
    pub gap_ps: f64,
    /// How fast one rank's port puts bytes on it, one direction.
    pub rate_bytes_per_s: f64,
    /// How fast one rank's port puts bytes of several messages on it, where that is faster than one message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_bytes_per_s: Option<f64>,
    /// Which of a rank's ports: levels of one port share it, those of several are used at once.
    #[serde(default, skip_serializing_if = "is_first")]
    pub port: u8,
    /// Whether switches copy what goes to many: the sender's port passes it once.
    #[serde(default, skip_serializing_if = "is_not")]
    pub multicast: bool,
    /// Whether switches fold what comes from many: the receiver's port passes the result once.
    #[serde(default, skip_serializing_if = "is_not")]
    pub reduces: bool,
    /// If its ranks stand in a ring of such links: what passing a rank on the way takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hop_ps: Option<f64>,
    /// How many ranks of a group within can send at this rate at once, if their group has a way out that they share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<u32>,
}

/// How a model came from measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// The machine that was measured: the model holds on no other.
    pub machine: String,
    /// When.
    pub date: String,
    /// How far predictions are from measurements, as a share of these: half of them are nearer.
    pub residual_median: f64,
    /// The farthest.
    pub residual_worst: f64,
    /// How many measurements.
    pub points: u32,
}

const PS_PER_S: f64 = 1e12;
/// The most levels a model may have.
pub(super) const MAX_LEVELS: usize = 8;

impl Model {
    /// Reads a model.
    ///
    /// Errors: InvalidArgument, naming the key that is unknown, missing or out of range.
    pub fn from_toml(text: &str) -> Result<Self> {
        let model: Model = parse_toml("the cost model", text)?;
        model.check()?;
        Ok(model)
    }

    /// Writes it, as [`Model::from_toml`] reads it.
    ///
    /// Errors: Internal, if it cannot be written.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::internal(format!("the cost model: {error}")))
    }

    /// That of an engine of a simulated machine.
    pub fn of(topology: &Topology, costs: &EngineCosts) -> Self {
        let rate = |rate: Option<NonZeroU64>| rate.map(|rate| rate.get() as f64);
        let levels = topology.levels().iter().zip(&costs.links);
        let level = levels.map(|(level, link)| LinkCost::of(level, link));
        Model {
            launch_ps: costs.start_ps as f64,
            reduce_bytes_per_s: rate(costs.reduce_bytes_per_s),
            fold_ps: costs.fold_overhead_ps as f64,
            copy_bytes_per_s: rate(costs.copy_bytes_per_s),
            cores: None,
            at_once: costs.at_once,
            level: level.collect(),
            correction: Vec::new(),
            fitted: None,
        }
    }

    /// Checks every number.
    ///
    /// Errors: InvalidArgument, naming the key and its range.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::invalid(format!("the cost model: {what}")));
        if self.level.is_empty() || self.level.len() > MAX_LEVELS {
            return wrong(format!("it needs at least one [[level]] and at most {MAX_LEVELS}"));
        }
        let rates =
            [("reduce_bytes_per_s", self.reduce_bytes_per_s), ("copy_bytes_per_s", self.copy_bytes_per_s)];
        for (key, rate) in rates {
            check_rate(key, rate.unwrap_or(1.0)).or_else(wrong)?;
        }
        check_term("launch_ps", self.launch_ps).or_else(wrong)?;
        check_term("fold_ps", self.fold_ps).or_else(wrong)?;
        if self.cores == Some(0) {
            return wrong(
                "cores = 0: somebody must run; leave it out where every rank has its own".to_owned(),
            );
        }
        if self.at_once == Some(0) {
            return wrong(
                "at_once = 0: no message could pass; leave it out where one passes after the other"
                    .to_owned(),
            );
        }
        for (index, level) in self.level.iter().enumerate() {
            let name = &level.name;
            if name.is_empty() || self.level[..index].iter().any(|other| other.name == *name) {
                return wrong(format!("level {index} needs a name of its own, not '{name}'"));
            }
            level.check().or_else(|what| wrong(format!("level '{name}': {what}")))?;
        }
        self.correction.iter().try_for_each(Correction::check)
    }

    /// How many ports a rank has. A processor does what all of them do, one after the other.
    #[inline]
    pub(super) fn ports(&self) -> u8 {
        match self.cores {
            Some(_) => 1,
            None => self.level.iter().map(|link| link.port).max().unwrap_or(0) + 1,
        }
    }

    /// Whether a link is one of a port's.
    #[inline]
    pub(super) fn is_of_port(&self, link: &LinkCost, port: u8) -> bool {
        self.cores.is_some() || link.port == port
    }

    /// The same where switches only pass messages on.
    pub fn with_plain_switches(mut self) -> Self {
        self.level.iter_mut().for_each(|level| (level.multicast, level.reduces) = (false, false));
        self
    }

    /// Checks that the switches between all ranks do what is wanted.
    ///
    /// Errors: what the links of which level do not, in words.
    pub(super) fn check_switches(
        &self,
        wanted: Switching,
        layout: &Layout,
    ) -> std::result::Result<(), String> {
        let levels = layout.levels();
        let groups = |level: usize| {
            level.checked_sub(1).map_or(layout.ranks() as usize, |in_it| levels[in_it].groups())
        };
        let used = (0..levels.len()).filter(|&level| levels[level].groups() < groups(level));
        let lacking = |level: usize| {
            let link = &self.level[self.link(layout, level)];
            match wanted {
                Switching { reduces: true, .. } if !link.reduces => Some("fold what many send to one"),
                Switching { multicast: true, .. } if !link.multicast => Some("copy what one sends to many"),
                _ => None,
            }
        };
        match used.map(|level| (level, lacking(level))).find(|(_, lacking)| lacking.is_some()) {
            Some((level, Some(lacking))) => {
                Err(format!("switches of level '{}' do not {lacking}", levels[level].name()))
            }
            _ => Ok(()),
        }
    }

    /// Which of its levels the links of a layout's level are.
    #[inline]
    pub fn link(&self, layout: &Layout, level: usize) -> usize {
        layout.levels()[level].link().min(self.level.len() - 1)
    }
}

impl LinkCost {
    fn of(level: &Level, link: &Link) -> Self {
        LinkCost {
            name: level.name.clone(),
            latency_ps: link.latency_ps as f64,
            overhead_ps: (link.send_overhead_ps + link.receive_overhead_ps) as f64,
            port_overhead_ps: link.send_overhead_ps as f64,
            gap_ps: link.gap_ps as f64,
            rate_bytes_per_s: link.rate_bytes_per_s as f64,
            port_bytes_per_s: link.port_bytes_per_s.map(|rate| rate.get() as f64),
            port: link.port,
            multicast: link.multicast,
            reduces: link.reduces,
            hop_ps: level.ring.map(|ring| ring.hop_ps as f64),
            ports: None,
        }
    }

    /// How much faster so many messages to different ranks pass a port together than one after the other.
    #[inline]
    pub(super) fn abreast(&self, messages: f64) -> f64 {
        self.streams().min(messages).max(1.0)
    }

    /// How many messages it takes to fill a port.
    #[inline]
    pub(super) fn streams(&self) -> f64 {
        self.port_bytes_per_s.map_or(1.0, |rate| (rate / self.rate_bytes_per_s).max(1.0))
    }

    /// Which share of a message's overhead holds a port that is no processor.
    #[inline]
    pub(super) fn port_share(&self) -> f64 {
        if self.overhead_ps > 0.0 { self.port_overhead_ps / self.overhead_ps } else { 0.0 }
    }

    fn check(&self) -> std::result::Result<(), String> {
        check_term("latency_ps", self.latency_ps)?;
        check_term("overhead_ps", self.overhead_ps)?;
        check_term("port_overhead_ps", self.port_overhead_ps)?;
        check_term("gap_ps", self.gap_ps)?;
        check_rate("rate_bytes_per_s", self.rate_bytes_per_s)?;
        check_rate("port_bytes_per_s", self.port_bytes_per_s.unwrap_or(1.0))?;
        check_term("hop_ps", self.hop_ps.unwrap_or(0.0))?;
        if self.ports == Some(0) {
            return Err("ports = 0: nobody could leave; leave it out where nothing is shared".to_owned());
        }
        Ok(())
    }

    /// How long one byte takes.
    #[inline]
    pub(super) fn byte_ps(&self) -> f64 {
        PS_PER_S / self.rate_bytes_per_s
    }
}

/// How long one byte takes at a rate; nothing, if it takes no time.
#[inline]
pub(super) fn byte_ps(rate_bytes_per_s: Option<f64>) -> f64 {
    rate_bytes_per_s.map_or(0.0, |rate| PS_PER_S / rate)
}

fn is_first(port: &u8) -> bool {
    *port == 0
}

fn is_not(flag: &bool) -> bool {
    !flag
}

fn is_nothing(ps: &f64) -> bool {
    *ps == 0.0
}

fn check_term(key: &str, value: f64) -> std::result::Result<(), String> {
    let most = Link::MAX_TERM_PS as f64;
    match (0.0..=most).contains(&value) {
        true => Ok(()),
        false => Err(format!("{key} = {value} is not between 0 and {most} (1000 s)")),
    }
}

fn check_rate(key: &str, value: f64) -> std::result::Result<(), String> {
    match (1.0..=1e18).contains(&value) {
        true => Ok(()),
        false => Err(format!("{key} = {value} is not between 1 and 1e18")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "launch_ps = 300000\nreduce_bytes_per_s = 12_000_000_000\ncores = 2\n[[level]]\nname = 'node'\n\
        latency_ps = 800000.5\noverhead_ps = 90000\nrate_bytes_per_s = 9e9\n[[level]]\nname = 'all'\n\
        latency_ps = 20_000_000\ngap_ps = 5\nrate_bytes_per_s = 1e9\nports = 1\n[fitted]\nmachine = 'this one'\n\
        date = '2026-01-01'\nresidual_median = 0.02\nresidual_worst = 0.3\npoints = 48\n";

    #[test]
    fn models_are_written_as_they_are_read() {
        let model = Model::from_toml(TEXT).unwrap();
        assert_eq!(Model::from_toml(&model.to_toml().unwrap()).unwrap(), model);
        assert_eq!((model.launch_ps, model.copy_bytes_per_s, model.level[1].ports), (3e5, None, Some(1)));
        assert_eq!(model.fitted.as_ref().unwrap().points, 48);
        let layout = Layout::parse("npu=2;node=4;pod=8", 16).unwrap();
        assert_eq!([0, 1, 2, 3].map(|level| model.link(&layout, level)), [0, 1, 1, 1]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (TEXT.replace("launch_ps", "launch_us"), "unknown field `launch_us`"),
            (TEXT.replace("gap_ps", "gap_ns"), "unknown field `gap_ns`"),
            (TEXT.replace("points", "pts"), "unknown field `pts`"),
            (TEXT.replace("rate_bytes_per_s = 9e9", ""), "missing field `rate_bytes_per_s`"),
            (
                TEXT.replace("rate_bytes_per_s = 9e9", "rate_bytes_per_s = 0"),
                "level 'node': rate_bytes_per_s = 0",
            ),
            (TEXT.replace("rate_bytes_per_s = 9e9", "rate_bytes_per_s = nan"), "rate_bytes_per_s = NaN"),
            (
                TEXT.replace("latency_ps = 800000.5", "latency_ps = -1"),
                "level 'node': latency_ps = -1 is not",
            ),
            (TEXT.replace("latency_ps = 800000.5", "latency_ps = inf"), "latency_ps = inf"),
            (TEXT.replace("launch_ps = 300000", "launch_ps = 1e16"), "launch_ps = 10000000000000000 is not"),
            (
                TEXT.replace("reduce_bytes_per_s = 12_000_000_000", "reduce_bytes_per_s = 0.5"),
                "reduce_bytes_per_s",
            ),
            (TEXT.replace("cores = 2", "cores = 0"), "cores = 0"),
            (TEXT.replace("ports = 1", "ports = 0"), "level 'all': ports = 0"),
            (TEXT.replace("'all'", "'node'"), "level 1 needs a name of its own, not 'node'"),
            ("level = []".to_owned(), "at least one [[level]]"),
        ];
        for (text, expected) in cases {
            let error = Model::from_toml(&text).unwrap_err();
            assert!(error.message().contains(expected), "{error}, expected {expected}");
        }
    }

    #[test]
    fn a_machines_model_has_its_links() {
        let text = "unit = 'NPU'\n[[level]]\nname = 'node'\nholds = 4\nlink = { latency_ps = 7, \
                    rate_bytes_per_s = 1000, send_overhead_ps = 2, receive_overhead_ps = 3, gap_ps = 4 }";
        let topology = Topology::from_toml(text).unwrap();
        let costs = EngineCosts {
            links: topology.levels().iter().map(|level| level.link).collect(),
            reduce_bytes_per_s: NonZeroU64::new(5),
            start_ps: 6,
            fold_overhead_ps: 7,
            ..EngineCosts::default()
        };
        let model = Model::of(&topology, &costs);
        model.check().unwrap();
        let LinkCost { latency_ps, overhead_ps, gap_ps, ports, .. } = &model.level[0];
        assert_eq!((*latency_ps, *overhead_ps, *gap_ps, *ports), (7.0, 5.0, 4.0, None));
        assert_eq!((model.level[0].port_overhead_ps, model.level[0].port_share()), (2.0, 0.4));
        assert_eq!((model.reduce_bytes_per_s, model.copy_bytes_per_s), (Some(5.0), None));
        assert_eq!((model.launch_ps, model.fold_ps), (6.0, 7.0));
        assert_eq!((model.level[0].byte_ps(), byte_ps(None)), (1e9, 0.0));
    }
}
