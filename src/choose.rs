//! Which algorithm a call gets, with how many lanes and what chunks: what is forced, otherwise what the tuner expects to
//! be fastest. The same on all ranks, since they reckon with the same costs.

use crate::config::Config;
use crate::sim::WorldConfig;
use std::sync::Arc;
use ubccl_algorithms::select;
use ubccl_algorithms::tuner::{Limits, Model, Pick, Tuner};
use ubccl_core::{Collective, Kind, Layout, Result};

/// What a communicator is told about its algorithms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// One for every call, or one composed for the layout.
    pub(crate) algorithm: Option<String>,
    /// Only those that reduce in rank order.
    pub(crate) reproducible: bool,
    /// Lanes that a plan may use.
    pub(crate) lanes: u8,
    /// Bytes of every chunk.
    pub(crate) chunk_bytes: Option<u32>,
}

impl Wishes {
    /// Of a communicator.
    pub(crate) fn of(config: &Config) -> Self {
        let algorithm = config.algorithm.clone();
        let Config { reproducible, lanes, chunk_bytes, .. } = *config;
        Wishes { algorithm, reproducible, lanes, chunk_bytes }
    }

    /// Of a simulated world.
    pub(crate) fn of_world(config: &WorldConfig) -> Self {
        let algorithm = config.algorithm.clone();
        let WorldConfig { reproducible, lanes, chunk_bytes, .. } = *config;
        Wishes { algorithm, reproducible, lanes, chunk_bytes }
    }
}

/// Chooses algorithms.
#[derive(Clone)]
pub(crate) struct Chooser {
    free: Arc<Tuner>,
    forced: Option<Arc<Tuner>>,
}

impl Chooser {
    /// By costs, or always what is wished.
    ///
    /// Errors: InvalidArgument, listing what there is; Unsupported, for an algorithm that is not reproducible where that
    /// is wished too.
    pub(crate) fn new(model: Model, layout: &Arc<Layout>, wishes: &Wishes) -> Result<Self> {
        let Wishes { lanes, chunk_bytes, reproducible, .. } = *wishes;
        let limits = Limits { lanes, chunk_bytes, reproducible };
        let only = wishes.algorithm.as_deref().map(|text| select(text, layout)).transpose()?;
        let forced = only.map(|only| Arc::new(Tuner::with_only(model.clone(), layout.clone(), limits, only)));
        Ok(Chooser { free: Arc::new(Tuner::new(model, layout.clone(), limits)), forced })
    }

    /// The same, with nothing forced.
    pub(crate) fn free(&self) -> Self {
        Chooser { free: self.free.clone(), forced: None }
    }

    /// What a call gets. Barriers and point-to-point calls, which algorithms are not forced for, take the tuner's choice
    /// if the forced algorithm can't do them.
    ///
    /// Errors: Unsupported, if the forced algorithm can't do it.
    pub(crate) fn choose(&self, call: &Collective<'_>) -> Result<Pick> {
        let Some(forced) = &self.forced else { return self.free.pick(call) };
        match forced.pick(call) {
            Err(_) if has_no_choice(call.kind()) => self.free.pick(call),
            picked => picked,
        }
    }

    /// Whose candidates a call may choose from.
    pub(crate) fn tuner(&self) -> &Tuner {
        self.forced.as_ref().unwrap_or(&self.free)
    }
}

/// Kinds that there is one good way for.
fn has_no_choice(kind: Kind) -> bool {
    matches!(kind, Kind::Barrier | Kind::SendReceive | Kind::Group)
}

impl std::fmt::Debug for Chooser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chooser").field("is_forced", &self.forced.is_some()).finish_non_exhaustive()
    }
}
