//! Errors that ranks make or meet: calls that differ, ranks that do not call, deadlines, abort, close, drop, start-up.
//! Ranks are threads here, or simulated; `deaths` has processes.

#[path = "../support/mod.rs"]
mod support;

mod deadlines;
mod endings;
mod gone;
mod mismatch;
mod program;
mod starting;
mod virtual_time;

use support::ranks::Setup;
use ubccl::{Choice, Clock};

/// The transports whose ranks are processes or threads.
fn real_transports() -> Vec<&'static str> {
    ubccl::transports().filter(|t| t.clock == Clock::Real).map(|t| t.name).collect()
}

/// The transports of simulated worlds.
fn virtual_transports() -> Vec<&'static str> {
    ubccl::transports().filter(|t| t.clock == Clock::Virtual).map(|t| t.name).collect()
}

fn setup(transport: &'static str, ranks: u32) -> Setup {
    Setup { transport, ranks, algorithm: None, choice: Choice::default() }
}
