//! The tuner: picks the algorithm, lanes, chunk and engine of a call by predicted cost, and can say why.
//!
//! All ranks of a communicator have the same model and layout, and the arithmetic is the same everywhere (no operation
//! beyond + − × ÷ and comparisons), so all pick alike without talking.

mod candidates;
mod correction;
mod engines;
mod fit;
mod flows;
mod line;
mod model;
mod nnls;
mod passing;
mod predict;
mod replay;
mod table;
mod usage;

pub use correction::Correction;
pub use engines::Engines;
pub use fit::{Point, Residuals};
pub use model::{Fitted, LinkCost, Model};
pub use predict::Cost;

use crate::Selected;
use candidates::representative;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use table::Table;
use ubccl_core::{Choice, Collective, Error, Kind, Layout, Rank, Result};

/// What a tuner may choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At most so many lanes.
    pub lanes: u8,
    /// Chunks of so many bytes, instead of those that cost least.
    pub chunk_bytes: Option<u32>,
    /// Only what gives the same bits whatever is picked.
    pub reproducible: bool,
    /// This of the engines, instead of the one that costs least.
    pub engine: Option<u8>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { lanes: 4, chunk_bytes: None, reproducible: false, engine: None }
    }
}

/// How a call is to be done.
#[derive(Clone)]
pub struct Pick {
    /// By which algorithm.
    pub algorithm: Selected,
    /// With how many lanes and how long chunks, by which engine.
    pub choice: Choice,
}

/// One way to do a call, for [`Tuner::explain`].
#[derive(Clone)]
pub struct Candidate {
    /// By which algorithm.
    pub algorithm: Selected,
    /// With how many lanes and how long chunks, by which engine.
    pub choice: Choice,
    /// What it is predicted to cost, or why it is refused.
    pub cost: Result<Cost>,
    /// Messages that the busiest rank sends, or takes in.
    pub messages: f64,
    /// Whether it cuts its messages into chunks.
    pub is_chunked: bool,
    /// Whether it is the pick.
    pub is_picked: bool,
}

/// Picks by predicted cost. One serves all ranks and threads of a process.
pub struct Tuner {
    engines: Engines,
    layout: Arc<Layout>,
    limits: Limits,
    /// The one algorithm for every call, with all lanes there are.
    only: Option<Selected>,
    /// For each kind and class of operations, of root 0.
    tables: Vec<OnceLock<Table>>,
    /// For other roots, where groups differ, so that it matters who is the root.
    rooted: RwLock<BTreeMap<(usize, Rank), Arc<Table>>>,
}

/// Bytes that one rank has for another, where no rank knows of the others' tables. From about there on four lanes carry more
/// than one where they may (gather_v on 8 dies, simulated: blocks of 9 KiB 1.01 times, 56 KiB 1.03, 350 KiB 1.05), and for
/// less they cost nothing.
const GUESSED_BLOCK_BYTES: u64 = 64 << 10;

/// Classes of operations: those that nest and commute, or don't.
const CLASSES: usize = 4;

impl Tuner {
    /// For the ranks of a layout. Tables are made when they are first asked for.
    pub fn new(engines: impl Into<Engines>, layout: Arc<Layout>, limits: Limits) -> Self {
        let codes = Kind::TABLE.iter().map(|row| usize::from(row.kind.code())).max().unwrap_or(0) + 1;
        let tables = (0..codes * CLASSES).map(|_| OnceLock::new()).collect();
        let engines = engines.into();
        Tuner { engines, layout, limits, only: None, tables, rooted: RwLock::default() }
    }

    /// The same with one algorithm for every call, and all lanes there are.
    pub fn with_only(
        engines: impl Into<Engines>,
        layout: Arc<Layout>,
        limits: Limits,
        only: Selected,
    ) -> Self {
        Tuner { only: Some(only), ..Tuner::new(engines, layout, limits) }
    }

    /// How a call is to be done: the cheapest way, or one that is hardly dearer and sends fewer messages.
    ///
    /// Errors: Unsupported, if no algorithm can do it; says why the first can't.
    pub fn pick(&self, call: &Collective<'_>) -> Result<Pick> {
        let bytes = self.bytes(call);
        self.with_table(call, |table| table.pick(&self.engines, &self.layout, bytes))?
            .ok_or_else(|| self.refusal(call))
    }

    /// Everything considered for a call, the cheapest first, those refused last.
    pub fn explain(&self, call: &Collective<'_>) -> Vec<Candidate> {
        let bytes = self.bytes(call);
        self.with_table(call, |table| table.explain(&self.engines, &self.layout, bytes)).unwrap_or_default()
    }

    /// Where the ranks stand.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// What may do its calls, and what that costs.
    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    /// What it may choose from.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What a call is reckoned with: of tables that each rank knows for itself, nothing but a common guess.
    fn bytes(&self, call: &Collective<'_>) -> u64 {
        let ranks = self.layout.ranks();
        match call.kind() {
            Kind::GatherV | Kind::ScatterV | Kind::AllToAllV => GUESSED_BLOCK_BYTES * u64::from(ranks),
            _ => call.longest_bytes(ranks),
        }
    }

    fn with_table<T>(&self, call: &Collective<'_>, act: impl FnOnce(&Table) -> T) -> Result<T> {
        let class = call.op().map_or(0, |op| usize::from(!op.nests()) + 2 * usize::from(!op.commutes()));
        let key = usize::from(call.kind().code()) * CLASSES + class;
        let make = || {
            Table::new(
                &self.engines,
                &representative(call, &self.layout),
                &self.layout,
                (self.limits, self.only.as_ref()),
            )
        };
        let root = call.root().filter(|&root| root > 0 && !self.is_even());
        let Some(root) = root else {
            let table =
                self.tables.get(key).ok_or_else(|| Error::internal("a kind without a row in its table"))?;
            return Ok(act(table.get_or_init(make)));
        };
        let known = self.rooted.read().unwrap_or_else(PoisonError::into_inner).get(&(key, root)).cloned();
        let table = known.unwrap_or_else(|| {
            let mut tables = self.rooted.write().unwrap_or_else(PoisonError::into_inner);
            tables.entry((key, root)).or_insert_with(|| Arc::new(make())).clone()
        });
        Ok(act(&table))
    }

    /// Whether all groups of each level are as large.
    fn is_even(&self) -> bool {
        self.layout.levels().iter().all(|level| level.is_even())
    }

    fn refusal(&self, call: &Collective<'_>) -> Error {
        let (kind, ranks) = (call.kind().name(), self.layout.ranks());
        let first = self.explain(call).into_iter().find_map(|candidate| candidate.cost.err());
        if let (Some(_), Some(error)) = (&self.only, &first) {
            return error.clone();
        }
        let why = first.map_or_else(String::new, |error| format!(": {}", error.message()));
        Error::unsupported(format!("no algorithm does this {kind} on {ranks} ranks{why}"))
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pick")
            .field("algorithm", &self.algorithm.descriptor().name)
            .field("choice", &self.choice)
            .finish()
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Candidate { algorithm, choice, cost, is_picked, .. } = self;
        f.debug_struct("Candidate")
            .field("algorithm", &algorithm.descriptor().name)
            .field("choice", choice)
            .field("cost", cost)
            .field("is_picked", is_picked)
            .finish()
    }
}

impl fmt::Debug for Tuner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tuner")
            .field("layout", &self.layout)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
