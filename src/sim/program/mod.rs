//! Programs of simulated ranks: user code in virtual time.
//!
//! Every rank runs the same `async` program on a [`Communicator`] of its own; a single-threaded executor polls the
//! programs and moves virtual time on when all of them wait. Operations are the product's: the same engine, plans and
//! executor as in real time. Programs await only what is of their world; another runtime's timers or channels are found
//! out when nothing can happen any more.

mod audit;
pub(crate) mod blocking;
mod buffer;
mod calls;
mod communicator;
mod inside;
mod report;
mod silence;
mod tasks;
mod window;
mod work;

pub use buffer::{Buffer, Phantom};
pub use communicator::Communicator;
pub use report::{End, Ended, Report};
pub use window::Window;
pub use work::{Compute, Work};

use super::{World, WorldConfig};
use crate::engine::Engine;
use inside::{Inside, State};
use std::collections::BTreeSet;
use tasks::Tasks;
use ubccl_core::Result;

impl World {
    /// Runs a program on every rank of a new world on `fabric`, and tells how each ended.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ubccl::ReduceOp;
    /// use ubccl::sim::World;
    ///
    /// let report = World::run("cloudmatrix384", 16, async |comm| {
    ///     // Issued now; it moves on while the rank computes.
    ///     let sum = comm.all_reduce(vec![comm.rank() as f32; 1000], ReduceOp::Sum);
    ///     comm.compute(Duration::from_micros(20)).await;
    ///     let node = comm.split(Some(comm.rank() / 8), 0).await?.expect("every rank has a colour");
    ///     node.barrier().await?;
    ///     Ok((sum.await?[0], comm.now()))
    /// })?;
    /// for (sum, now) in report.into_results()? {
    ///     assert_eq!(sum, 120.0);
    ///     assert!(now > Duration::from_micros(20));
    /// }
    /// # Ok::<(), ubccl::Error>(())
    /// ```
    ///
    /// Units:  virtual time throughout.
    /// Order:  the same program and fabric give the same events, and the same hash in [`Report::stats`], always: unless
    ///         the program itself looks at clocks, other threads or addresses.
    /// Errors: InvalidArgument, for a fabric that does not exist or too many ranks. What goes wrong in programs is in the
    ///         report: a rank whose program fails or panics is dead to the others, who are told by the first cause.
    /// Source: MPI programs under SimGrid's SMPI, which run in virtual time likewise.
    pub fn run<T>(
        fabric: &str,
        ranks: u32,
        program: impl AsyncFn(Communicator<'_>) -> Result<T>,
    ) -> Result<Report<T>> {
        let config = WorldConfig { fabric: fabric.to_owned(), ranks, ..WorldConfig::default() };
        Ok(World::new(config)?.run_program(program))
    }

    /// Runs a program on every rank of this world. See [`World::run`].
    pub fn run_program<T>(self, program: impl AsyncFn(Communicator<'_>) -> Result<T>) -> Report<T> {
        let ranks = self.ranks();
        let inside = Inside::new(self);
        let ended = Tasks::new(&inside, ranks, &program).run();
        let Inside { state } = inside;
        let mut state = state.into_inner();
        let all_returned = ended.iter().all(|ended| matches!(ended.end, End::Returned(_)));
        let closed = if all_returned { state.close() } else { Ok(()) };
        let elapsed_ps = ended.iter().map(|ended| ended.at_ps).max().unwrap_or(0);
        Report { ended, elapsed_ps, stats: state.world.stats(), closed, world: state.world }
    }
}

impl State {
    /// Lets everything happen that is still under way, and looks for what nobody took.
    fn close(&mut self) -> Result<()> {
        while self.step() {}
        let everybody: BTreeSet<_> = (0..self.world.ranks()).collect();
        while self.break_silence(&everybody) {}
        for company in &mut self.world.communicators {
            company.check_ended()?;
            company.inspect(Engine::inspect_closing);
            company.check_ended()?;
        }
        Ok(())
    }
}
