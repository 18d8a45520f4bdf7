//! The engines of a machine: software paths that move a call's bytes, each with limits and costs of its own.

use super::Model;
use serde::{Deserialize, Serialize};
use ubccl_core::endpoint::Machine;
use ubccl_core::topology::parse_toml;
use ubccl_core::{Choice, Collective, Error, Kind, Result};

/// What a call may be done by, and what it costs then. There is one at least.
///
/// ```
/// use ubccl_algorithms::tuner::{Engines, Model};
///
/// let model = Model::from_toml("[[level]]\nname = 'node'\nlatency_ps = 800_000\nrate_bytes_per_s = 9e9\n")?;
/// let engines = Engines::from(model);
/// assert!(engines.names().next().is_none() && engines.find("kernel").is_err());
/// assert_eq!(Engines::from_toml(&engines.to_toml()?)?, engines);
/// # Ok::<(), ubccl_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engines {
    engine: Vec<Engine>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Engine {
    /// None, where the one there is has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// It does calls of so many bytes, as the kind counts them (a block's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    most_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    most_ranks: Option<u32>,
    model: Model,
}

impl From<Model> for Engines {
    /// One without a name, which does every call.
    fn from(model: Model) -> Self {
        Engines { engine: vec![Engine { name: None, most_bytes: None, most_ranks: None, model }] }
    }
}

impl Engines {
    /// Those of a simulated machine.
    pub fn of(machine: &Machine) -> Self {
        let engines = machine.engines.iter().map(|costs| Engine {
            name: costs.name.clone(),
            most_bytes: costs.most_bytes,
            most_ranks: costs.most_ranks,
            model: Model::of(&machine.topology, costs),
        });
        Engines { engine: engines.collect() }
    }

    /// Reads what [`Engines::to_toml`] wrote.
    ///
    /// Errors: InvalidArgument, naming the key that is unknown, missing or out of range.
    pub fn from_toml(text: &str) -> Result<Self> {
        let engines: Engines = parse_toml("the cost models", text)?;
        if engines.engine.is_empty() || engines.engine.len() > usize::from(u8::MAX) {
            return Err(Error::invalid(format!(
                "the cost models: there is one [[engine]] at least, and {} at most",
                u8::MAX
            )));
        }
        engines.engine.iter().try_for_each(|engine| engine.model.check())?;
        Ok(engines)
    }

    /// Writes them.
    ///
    /// Errors: Internal, if they cannot be written.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::internal(format!("the cost models: {error}")))
    }

    /// The same with other models.
    pub fn map(mut self, change: impl Fn(Model) -> Model) -> Self {
        self.engine = self.engine.into_iter().map(|one| Engine { model: change(one.model), ..one }).collect();
        self
    }

    /// The names of those that have one, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.engine.iter().filter_map(|engine| engine.name.as_deref())
    }

    /// What the engine of a choice is called; none, where there is nothing to choose.
    pub fn name(&self, choice: &Choice) -> Option<&str> {
        self.engine.get(usize::from(choice.engine?))?.name.as_deref()
    }

    /// The engine of this name, as a choice has it.
    ///
    /// Errors: InvalidArgument, listing what there is.
    pub fn find(&self, name: &str) -> Result<u8> {
        let found = self.engine.iter().position(|engine| engine.name.as_deref() == Some(name));
        found.map(|index| index as u8).ok_or_else(|| {
            let names: Vec<&str> = self.names().collect();
            let there = match names[..] {
                [] => "there is one, which has no name: leave it out".to_owned(),
                _ => format!("there are: {}", names.join(", ")),
            };
            Error::invalid(format!("unknown engine '{name}'; {there}"))
        })
    }

    /// As choices have them: all, or the one that is forced; none, where there is nothing to choose.
    pub(super) fn choices(&self, forced: Option<u8>) -> Vec<Option<u8>> {
        match (self.engine.len(), forced) {
            (1, _) => vec![None],
            (_, Some(_)) => vec![forced],
            (several, None) => (0..several).map(|index| Some(index as u8)).collect(),
        }
    }

    /// The first one's costs.
    pub fn first(&self) -> &Model {
        &self.engine[0].model
    }

    /// What the engine of a choice costs.
    #[inline]
    pub(super) fn model(&self, choice: &Choice) -> &Model {
        &self.engine[usize::from(choice.engine.unwrap_or(0))].model
    }
}

/// Which engines do calls of one kind, by their size: those whose limits they are within, or the last if there is none.
pub(super) struct Reach {
    /// Bytes of the longest buffer that each does; none, if it does none of these calls.
    most: Vec<Option<u64>>,
    /// Why an engine does not do a longer one, or none.
    why: Vec<String>,
}

impl Reach {
    /// Of all calls like this one, whatever their size.
    pub(super) fn new(engines: &Engines, call: &Collective<'_>, ranks: u32) -> Self {
        // How many of what the kind counts make its longest buffer; none, if ranks do not know each other's lengths.
        let parts = match call.kind() {
            Kind::GatherV | Kind::ScatterV | Kind::AllToAllV | Kind::Group => None,
            Kind::AllGatherV | Kind::ReduceScatterV => Some(1),
            _ => Some((call.longest_bytes(ranks) / call.dtype().size() as u64).max(1)),
        };
        let bytes = |engine: &Engine| match (engine.most_bytes, parts) {
            (None, _) => Some(u64::MAX),
            (Some(bytes), Some(parts)) => Some(bytes.saturating_mul(parts)),
            (Some(_), None) => None,
        };
        let most =
            |engine: &Engine| bytes(engine).filter(|_| engine.most_ranks.is_none_or(|most| ranks <= most));
        let why = |engine: &Engine| {
            let limits = [
                engine.most_bytes.map(|bytes| format!("up to {bytes} bytes")),
                engine.most_ranks.map(|ranks| format!("up to {ranks} ranks")),
            ];
            let limits: Vec<String> = limits.into_iter().flatten().collect();
            let name = engine.name.as_deref().unwrap_or_default();
            format!("the engine {name} does calls of {}", limits.join(" on "))
        };
        Reach {
            most: engines.engine.iter().map(most).collect(),
            why: engines.engine.iter().map(why).collect(),
        }
    }

    /// Whether the engine of a choice does a call of so many bytes.
    ///
    /// Errors: Unsupported, with its limits.
    pub(super) fn check(&self, choice: &Choice, bytes: u64) -> Result<()> {
        let Some(engine) = choice.engine.map(usize::from) else { return Ok(()) };
        let is_within = |most: &Option<u64>| most.is_some_and(|most| bytes <= most);
        let is_last = engine + 1 == self.most.len();
        match is_within(&self.most[engine]) || is_last && !self.most.iter().any(is_within) {
            true => Ok(()),
            false => Err(Error::unsupported(self.why[engine].clone())),
        }
    }

    /// The longest sizes that engines with limits do.
    pub(super) fn borders(&self) -> impl Iterator<Item = u64> {
        self.most.iter().filter_map(|most| most.filter(|&most| most < u64::MAX))
    }
}
