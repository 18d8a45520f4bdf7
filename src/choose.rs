//! Which algorithm a call gets, with how many lanes and what chunks: what is forced, otherwise what the tuner expects to
//! be fastest. The same on all ranks, since they reckon with the same costs.

use crate::communicator::{Communicator, Settings};
use crate::config::Config;
use crate::sim::WorldConfig;
use std::sync::Arc;
use ubccl_algorithms::select;
use ubccl_algorithms::tuner::{Candidate, Limits, Model, Pick, Tuner};
use ubccl_core::plan::Plan;
use ubccl_core::{Choice, Collective, Error, Kind, Layout, Result};

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
        let free = Arc::new(Tuner::new(model.clone(), layout.clone(), limits));
        Chooser { free, forced: None }.forcing(model, layout, wishes)
    }

    /// The same, with what these wishes force.
    ///
    /// Errors: as [`Chooser::new`].
    fn forcing(&self, model: Model, layout: &Arc<Layout>, wishes: &Wishes) -> Result<Self> {
        let Wishes { lanes, chunk_bytes, reproducible, .. } = *wishes;
        let limits = Limits { lanes, chunk_bytes, reproducible };
        let only = wishes.algorithm.as_deref().map(|text| select(text, layout)).transpose()?;
        let forced = only.map(|only| Arc::new(Tuner::with_only(model, layout.clone(), limits, only)));
        Ok(Chooser { forced, ..self.free() })
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

/// Which algorithm calls get, and how to have it otherwise.
impl Communicator {
    /// The algorithm that a call gets here.
    ///
    /// Errors: Unsupported, if the configured algorithm can't do it.
    pub fn algorithm_for(&self, call: &Collective<'_>) -> Result<&'static str> {
        Ok(self.shared.lock().plan(call, false)?.algorithm())
    }

    /// Has calls use this algorithm from now on, with so many lanes and such chunks; with `None`, whatever the
    /// configuration says.
    ///
    /// Order:  every rank calls it between the same two calls, with the same arguments; until then their plans differ,
    ///         and calls fail as a Mismatch.
    /// Errors: InvalidArgument, listing what there is, or for more lanes than this communicator was made with.
    pub fn force(&self, wanted: Option<(&str, Choice)>) -> Result<()> {
        let Settings { wishes, layout, costs, .. } = &self.shared.settings;
        let wishes = match wanted {
            None => wishes.clone(),
            Some((_, Choice { lanes, .. })) if lanes == 0 || lanes > wishes.lanes => {
                let most = wishes.lanes;
                return Err(Error::invalid(format!("{lanes} lanes: this communicator has 1 to {most}")));
            }
            Some((algorithm, Choice { lanes, chunk_bytes })) => Wishes {
                algorithm: Some(algorithm.to_owned()),
                lanes,
                chunk_bytes: Some(chunk_bytes),
                reproducible: wishes.reproducible,
            },
        };
        let mut engine = self.shared.lock();
        let chooser = engine.chooser().forcing(costs.model(layout), layout, &wishes)?;
        engine.replace_chooser(chooser);
        Ok(())
    }

    /// With how many lanes and what chunks a call runs here.
    ///
    /// Errors: as [`Communicator::algorithm_for`].
    pub fn choice_for(&self, call: &Collective<'_>) -> Result<Choice> {
        self.shared.lock().choice(call, false)
    }

    /// What a call may be done with here, by predicted time: the first is what it gets.
    ///
    /// Errors: InvalidArgument, for a call that cannot be.
    pub fn candidates(&self, call: &Collective<'_>) -> Result<Vec<Candidate>> {
        self.shared.check_call(call)?;
        Ok(self.shared.lock().chooser().tuner().explain(call))
    }

    /// This rank's plan of a call.
    ///
    /// Errors: as [`Communicator::algorithm_for`].
    pub fn plan(&self, call: &Collective<'_>, in_place: bool) -> Result<Plan> {
        self.shared.check_call(call)?;
        Ok(Plan::clone(&*self.shared.lock().plan(call, in_place)?))
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
