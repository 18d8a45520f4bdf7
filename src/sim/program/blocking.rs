//! Calls that block have no place in a program of simulated ranks: nobody would move time on.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use ubccl_core::{Error, Rank, Result};

/// How many programs are being run, by whatever threads. A call looks here first: a variable of its thread costs more to
/// find.
static PROGRAMS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whose program this thread runs right now.
    static RUNNING: Cell<Option<Rank>> = const { Cell::new(None) };
}

/// As long as it lives, this thread runs a rank's program.
pub(super) struct Running(Option<Rank>);

impl Running {
    pub(super) fn enter(rank: Rank) -> Self {
        PROGRAMS.fetch_add(1, Ordering::Relaxed); // a thread sees its own
        Running(RUNNING.replace(Some(rank)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(self.0);
        PROGRAMS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Refuses `call` inside a program of simulated ranks, naming what to use `instead`.
///
/// Errors: Unsupported.
#[inline]
pub(crate) fn refuse_blocking(call: impl FnOnce() -> (&'static str, String)) -> Result<()> {
    match running() {
        None => Ok(()),
        Some(rank) => Err(refusal(rank, call())),
    }
}

/// Whether this thread runs the program of a rank of a simulated world.
#[inline]
pub(crate) fn is_in_program() -> bool {
    running().is_some()
}

#[inline]
fn running() -> Option<Rank> {
    if PROGRAMS.load(Ordering::Relaxed) == 0 { None } else { RUNNING.get() }
}

#[cold]
fn refusal(rank: Rank, (call, instead): (&str, String)) -> Error {
    Error::unsupported(format!(
        "{call} blocks in real time, and this is the program of rank {rank} of a simulated world, whose time would \
         stand still: use {instead}"
    ))
}
