//! Faults: what goes wrong and when, known from a world's beginning.
//!
//! ```text
//! slower ports    bytes pass a rank's ports at a share of their rate, in both directions
//! link down       a flap: nothing passes; bytes that were in flight are lost and sent again once the link has trained
//! bit errors      the receiver drops what follows a damaged frame and asks for it again (go-back-N): a round trip each
//! rank stands     a pause, or a late start: its software posts and sees nothing, its ports go on
//! rank dies
//! ```
//!
//! `script` reads or draws them, [`Timeline`] is what a port passes when, [`LinkFaults`] what fidelities ask, and
//! [`Pauses`] what the network asks. A world without faults has none of these.

mod errors;
mod links;
mod pauses;
mod script;
mod timeline;

pub(super) use links::{LinkFaults, Side};
pub(super) use pauses::Pauses;

use script::{Fault, FaultKind};
use ubccl_core::record::{At, Incident};
use ubccl_core::{Rank, Result};

/// Everything that goes wrong in a world.
#[derive(Debug)]
pub(super) struct Faults {
    list: Vec<Fault>,
    ranks: u32,
    seed: u64,
}

impl Faults {
    /// Reads faults; see `script` for the form. `None`, if nothing goes wrong. `planes` are those of the fabric's ports,
    /// if it has any; `seed` is for what the text draws without a seed of its own.
    ///
    /// Errors: InvalidArgument.
    pub(super) fn parse(text: &str, ranks: u32, planes: Option<u32>, seed: u64) -> Result<Option<Self>> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        let (list, seed) = script::parse(text, ranks, planes, seed)?;
        Ok(Some(Faults { list, ranks, seed }))
    }

    /// What fidelities need; `None`, if no port is concerned.
    pub(super) fn links(&self) -> Option<LinkFaults> {
        let concerns = |fault: &Fault| !matches!(fault.kind, FaultKind::Pause | FaultKind::Death);
        self.list.iter().any(concerns).then(|| LinkFaults::new(&self.list, self.ranks, self.seed))
    }

    /// When ranks stand still; `None`, if none does.
    pub(super) fn pauses(&self) -> Option<Pauses> {
        let pauses = self.list.iter().filter(|fault| fault.kind == FaultKind::Pause);
        let mut pauses = pauses.peekable();
        pauses.peek()?;
        Some(Pauses::new(pauses, self.ranks))
    }

    /// Who dies when.
    pub(super) fn deaths(&self) -> impl Iterator<Item = (Rank, u64)> + '_ {
        let deaths = self.list.iter().filter(|fault| fault.kind == FaultKind::Death);
        deaths.filter_map(|fault| Some((fault.rank?, fault.from_ps)))
    }

    /// Those that a record from and to these times has.
    pub(super) fn incidents(&self, start_ps: u64, end_ps: u64, levels: usize) -> Vec<Incident> {
        let seen = self.list.iter().filter(|fault| fault.from_ps <= end_ps && fault.until_ps >= start_ps);
        seen.map(|fault| Incident {
            at: fault.rank.map_or(At::Level(levels.saturating_sub(1) as u8), At::Rank),
            from_ps: fault.from_ps,
            until_ps: Some(fault.until_ps).filter(|&until_ps| until_ps <= end_ps),
            text: fault.text(),
        })
        .collect()
    }

    /// One line for each.
    pub(super) fn describe(&self) -> String {
        self.list.iter().map(|fault| format!("\nfault: {}", fault.describe())).collect()
    }
}
