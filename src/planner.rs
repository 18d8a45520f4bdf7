//! Plans and their predicted costs without a communicator.

use crate::choose::{Chooser, Wishes};
use crate::config::Config;
use crate::cores;
use crate::costs::Costs;
use crate::sim::WorldConfig;
use std::sync::Arc;
use ubccl_algorithms::tuner::{Candidate, Pick};
use ubccl_core::plan::Plan;
use ubccl_core::{Collective, Layout, Rank, Result, Spec};

/// Chooses and plans as the communicators of one configuration do.
///
/// ```
/// use ubccl::{Collective, Config, DataType, Planner, ReduceOp};
///
/// let planner = Planner::new(&Config { ranks: 4, ..Config::default() })?;
/// let call = Collective::all_reduce(1000, DataType::F32, ReduceOp::Sum);
/// let best = &planner.candidates(&call)?[0];
/// assert_eq!(planner.plan(&call, 0, false)?.algorithm(), best.algorithm.descriptor().name);
/// # Ok::<(), ubccl::Error>(())
/// ```
#[derive(Debug)]
pub struct Planner {
    chooser: Chooser,
    ranks: u32,
}

impl Planner {
    /// As a communicator of this configuration, all of whose ranks share this process's cores.
    ///
    /// Errors: InvalidArgument, as [`Communicator::init`](crate::Communicator::init) without meeting anybody.
    pub fn new(config: &Config) -> Result<Self> {
        config.check()?;
        let layout = Arc::new(config.layout()?);
        let costs = Costs::of_config(config)?.on_cores(cores::own());
        let chooser = Chooser::new(costs.engines(&layout), &layout, &Wishes::of(config))?;
        Ok(Planner { chooser, ranks: config.ranks })
    }

    /// As a simulated world of this configuration.
    ///
    /// Errors: as [`World::new`](crate::sim::World::new).
    pub fn simulated(config: &WorldConfig) -> Result<Self> {
        let options = config.options();
        let machine = ubccl_transports::find(&config.transport)?.world(&options)?.machine();
        let layout = Arc::new(config.layout(&machine)?);
        let costs = Costs::of_machine(&machine);
        let chooser = Chooser::new(costs.engines(&layout), &layout, &Wishes::of_world(config))?;
        Ok(Planner { chooser, ranks: config.ranks })
    }

    /// The plan that one rank's call gets.
    ///
    /// Errors: InvalidArgument; Unsupported, if the configured algorithm can't do it.
    pub fn plan(&self, call: &Collective<'_>, rank: Rank, in_place: bool) -> Result<Plan> {
        call.check(self.ranks, rank)?;
        let Pick { algorithm, choice } = self.chooser.choose(call)?;
        Ok(algorithm.plan(&Spec::new(call, self.ranks, rank, in_place, choice)))
    }

    /// What a call may be done with, by predicted time: the first is what it gets; what can't do it comes last.
    ///
    /// Errors: InvalidArgument, for a call that cannot be.
    pub fn candidates(&self, call: &Collective<'_>) -> Result<Vec<Candidate>> {
        call.check(self.ranks, 0)?;
        Ok(self.chooser.tuner().explain(call))
    }

    /// The names of the engines that calls choose from, as [`Choice::engine`](ubccl_core::Choice::engine) counts them;
    /// none, where there is but one.
    pub fn engines(&self) -> Vec<String> {
        self.chooser.engines()
    }

    /// Where its ranks stand.
    pub fn layout(&self) -> &Layout {
        self.chooser.tuner().layout()
    }
}
