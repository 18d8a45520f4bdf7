//! Which algorithm a call gets, with how many lanes and what chunks, and which engine: what is forced, otherwise what the
//! tuner expects to be fastest. The same on all ranks, since they reckon with the same costs.

use crate::communicator::{Communicator, Settings};
use crate::config::Config;
use crate::sim::WorldConfig;
use std::sync::Arc;
use ubccl_algorithms::select;
use ubccl_algorithms::tuner::{Candidate, Engines, Limits, Pick, Tuner};
use ubccl_core::plan::Plan;
use ubccl_core::{Choice, Collective, Error, Kind, Layout, Result};

/// What a communicator is told about its algorithms and engines.
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
    /// The engine for every call.
    pub(crate) engine: Option<String>,
}

impl Wishes {
    /// Of a communicator.
    pub(crate) fn of(config: &Config) -> Self {
        let (algorithm, engine) = (config.algorithm.clone(), config.engine.clone());
        let Config { reproducible, lanes, chunk_bytes, .. } = *config;
        Wishes { algorithm, reproducible, lanes, chunk_bytes, engine }
    }

    /// Of a simulated world.
    pub(crate) fn of_world(config: &WorldConfig) -> Self {
        let (algorithm, engine) = (config.algorithm.clone(), config.engine.clone());
        let WorldConfig { reproducible, lanes, chunk_bytes, .. } = *config;
        Wishes { algorithm, reproducible, lanes, chunk_bytes, engine }
    }
}

impl Wishes {
    /// What a tuner may choose from by them.
    ///
    /// Errors: InvalidArgument, listing the engines there are.
    fn limits(&self, engines: &Engines) -> Result<Limits> {
        let Wishes { lanes, chunk_bytes, reproducible, .. } = *self;
        let engine = self.engine.as_deref().map(|name| engines.find(name)).transpose()?;
        Ok(Limits { lanes, chunk_bytes, reproducible, engine })
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
    pub(crate) fn new(engines: Engines, layout: &Arc<Layout>, wishes: &Wishes) -> Result<Self> {
        let limits = Limits { engine: None, ..wishes.limits(&engines)? };
        let free = Arc::new(Tuner::new(engines.clone(), layout.clone(), limits));
        Chooser { free, forced: None }.forcing(engines, layout, wishes)
    }

    /// The same, with what these wishes force.
    ///
    /// Errors: as [`Chooser::new`].
    fn forcing(&self, engines: Engines, layout: &Arc<Layout>, wishes: &Wishes) -> Result<Self> {
        let limits = wishes.limits(&engines)?;
        let only = wishes.algorithm.as_deref().map(|text| select(text, layout)).transpose()?;
        let forced = match (only, limits.engine) {
            (Some(only), _) => Some(Tuner::with_only(engines, layout.clone(), limits, only)),
            (None, Some(_)) => Some(Tuner::new(engines, layout.clone(), limits)),
            (None, None) => None,
        };
        Ok(Chooser { forced: forced.map(Arc::new), ..self.free() })
    }

    /// The same, with nothing forced.
    pub(crate) fn free(&self) -> Self {
        Chooser { free: self.free.clone(), forced: None }
    }

    /// What a call gets. Barriers and point-to-point calls, which algorithms are not forced for, take the tuner's choice
    /// if the forced algorithm or engine can't do them.
    ///
    /// Errors: Unsupported, if what is forced can't do it.
    pub(crate) fn choose(&self, call: &Collective<'_>) -> Result<Pick> {
        let Some(forced) = &self.forced else { return self.free.pick(call) };
        match forced.pick(call) {
            Err(_) if has_no_choice(call.kind()) => self.free.pick(call),
            picked => picked,
        }
    }

    /// The engines that calls choose from, if there are several.
    pub(crate) fn engines(&self) -> Vec<String> {
        let names: Vec<String> = self.free.engines().names().map(str::to_owned).collect();
        if names.len() > 1 { names } else { Vec::new() }
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

    /// Has calls use this algorithm from now on, with so many lanes and such chunks, and this engine if the choice has one;
    /// with `None`, whatever the configuration says.
    ///
    /// Order:  every rank calls it between the same two calls, with the same arguments; until then their plans differ,
    ///         and calls fail as a Mismatch.
    /// Errors: InvalidArgument, listing what there is, or for more lanes than this communicator was made with.
    pub fn force(&self, wanted: Option<(&str, Choice)>) -> Result<()> {
        let Settings { wishes, layout, costs, .. } = &self.shared.settings;
        let engines = costs.engines(layout);
        let wishes = match wanted {
            None => wishes.clone(),
            Some((_, Choice { lanes, .. })) if lanes == 0 || lanes > wishes.lanes => {
                let most = wishes.lanes;
                return Err(Error::invalid(format!("{lanes} lanes: this communicator has 1 to {most}")));
            }
            Some((algorithm, choice)) => Wishes {
                algorithm: Some(algorithm.to_owned()),
                lanes: choice.lanes,
                chunk_bytes: Some(choice.chunk_bytes),
                reproducible: wishes.reproducible,
                engine: match choice.engine {
                    Some(number) => Some(engines.name(&choice).map(str::to_owned).ok_or_else(|| {
                        Error::invalid(format!("engine {number}: this communicator has no choice of so many"))
                    })?),
                    None => wishes.engine.clone(),
                },
            },
        };
        let mut engine = self.shared.lock();
        let chooser = engine.chooser().forcing(engines, layout, &wishes)?;
        engine.replace_chooser(chooser);
        Ok(())
    }

    /// With how many lanes and what chunks a call runs here, and by which engine.
    ///
    /// Errors: as [`Communicator::algorithm_for`].
    pub fn choice_for(&self, call: &Collective<'_>) -> Result<Choice> {
        self.shared.lock().choice(call, false)
    }

    /// The names of the engines that calls choose from, as [`Choice::engine`] counts them; none, where there is but one.
    pub fn engines(&self) -> Vec<String> {
        self.shared.lock().chooser().engines()
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
