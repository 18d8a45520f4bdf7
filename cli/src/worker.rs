//! A rank's process: joins the communicator and does as the parent orders.

use crate::failure::{Failure, Outcome};
use crate::orders::Order;
use crate::rank::Rank;
use crate::target::{self, Config, Error, Member, Settings};
use crate::wire::{self, Word};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::ClockId;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// What the parent tells a rank on its command line.
#[derive(Debug)]
pub(crate) struct Worker {
    /// The parent's process id.
    pub(crate) parent: u32,
    /// Whether to bind to a processor.
    pub(crate) pin: bool,
    /// How to join, but for what stands in the environment.
    pub(crate) settings: Settings,
}

/// Runs until the parent closes the connection. What goes wrong is told to the parent.
pub(crate) fn run(worker: Worker) -> Outcome<()> {
    die_with(worker.parent)?;
    let standard_input = std::io::stdin().as_fd().try_clone_to_owned();
    let owned =
        standard_input.map_err(|error| Failure::new(format!("no connection to the parent: {error}")))?;
    let mut parent = UnixStream::from(owned);
    let served = begin(&worker, &mut parent);
    if let Err(error) = served {
        // If the parent is gone too, nobody is left to tell.
        let _ = wire::send(&mut parent, &Word::Failed(error.to_string()));
        return Err(Failure::Told);
    }
    Ok(())
}

/// Asks the kernel to kill this process when its parent ends; that may have happened already.
fn die_with(parent: u32) -> Outcome<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::new(format!("cannot ask to end with the parent: {error}")))?;
    let now = getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32);
    if now == parent { Ok(()) } else { Err(Failure::NobodyListens) }
}

/// Whom a rank listens to.
pub(crate) trait Parent {
    /// Tells it.
    fn say(&mut self, word: Word) -> Result<(), Error>;
    /// Waits for the next order; nothing when there will be none.
    fn next(&mut self) -> Result<Option<Order>, Error>;
}

impl Parent for UnixStream {
    fn say(&mut self, word: Word) -> Result<(), Error> {
        wire::send(self, &word).map_err(gone)
    }

    fn next(&mut self) -> Result<Option<Order>, Error> {
        wire::receive(self).map_err(gone)
    }
}

fn gone(error: std::io::Error) -> Error {
    Error::system("the connection to the parent broke", error)
}

fn begin(worker: &Worker, parent: &mut UnixStream) -> Result<(), Error> {
    let mut config = target::configuration(&worker.settings)?;
    if config.rank == 0 {
        let rendezvous = target::new_rendezvous()?;
        parent.say(Word::Rendezvous(rendezvous.text()))?;
        config.rendezvous = Some(rendezvous);
    }
    serve(config, worker.pin, ClockId::ProcessCPUTime, parent)
}

/// Joins and does as ordered until there are no more orders. Processor time is that of `cpu_clock`.
pub(crate) fn serve(
    config: Config,
    is_pinned: bool,
    cpu_clock: ClockId,
    parent: &mut impl Parent,
) -> Result<(), Error> {
    let cpu = if is_pinned { pin(config.rank)? } else { None };
    let mut rank = Rank::new(Member::join(config)?)?.counting_by(cpu_clock);
    let memory_bytes = rank.target.memory_bytes();
    parent.say(Word::Ready { cpu, memory_bytes })?;
    while let Some(order) = parent.next()? {
        let answer = rank.obey(&order)?;
        parent.say(Word::Answer(answer))?;
    }
    rank.target.close()
}

/// Binds this thread, and those it will start, to one of the processors it may use: rank r to the r-th, round and round.
fn pin(rank: u32) -> Result<Option<usize>, Error> {
    let refused =
        |errno| Error::system("cannot bind to a processor; use --pin off", std::io::Error::from(errno));
    let allowed = sched_getaffinity(None).map_err(refused)?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    let Some(&cpu) = cpus.get(rank as usize % cpus.len().max(1)) else { return Ok(None) };
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).map_err(refused)?;
    Ok(Some(cpu))
}
