//! Calls on phantom data, checked once every rank has what it gets.

use crate::sim::check::{all_contributors, wrong_elements};
use std::collections::BTreeMap;
use ubccl_core::collective::{CallStore, Rank};
use ubccl_core::endpoint::{CommunicatorId, Place};
use ubccl_core::symbolic::Piece;
use ubccl_core::{Collective, Error, Result};

/// A phantom call of one rank.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audited {
    /// Its number among the communicator's collectives; none for point to point.
    pub(super) sequence: Option<u64>,
    pub(super) in_place: bool,
}

/// What one rank called and holds.
#[derive(Debug, Default)]
struct Part {
    call: CallStore,
    held: Option<(bool, Vec<Piece>)>,
    is_over: bool,
}

/// The collectives that are not over on all ranks.
#[derive(Debug, Default)]
pub(super) struct Audits {
    open: BTreeMap<(CommunicatorId, u64), Vec<Part>>,
}

impl Audits {
    /// Notes what a rank called.
    pub(super) fn called(&mut self, place: Place, ranks: u32, sequence: u64, call: &Collective<'_>) {
        let parts = self.open.entry((place.communicator, sequence)).or_default();
        parts.resize_with(ranks as usize, Part::default);
        parts[place.rank as usize].call.set(call);
    }

    /// A rank's part is over: what it holds, unless nobody looks. Once all are over, all are checked.
    ///
    /// Errors: Internal, naming the rank that holds something else than is promised.
    pub(super) fn over(
        &mut self,
        place: Place,
        audited: Audited,
        call: &Collective<'_>,
        ranks: u32,
        held: Option<Vec<Piece>>,
    ) -> Result<()> {
        let Some(sequence) = audited.sequence else {
            // A message is its sender's contribution; no other call is needed to know that.
            let held = held.unwrap_or_default();
            let wrong = wrong_elements(&|_| *call, (ranks, 0), place.rank, audited.in_place, &held);
            return verdict(place.rank, call, wrong);
        };
        let key = (place.communicator, sequence);
        let Some(parts) = self.open.get_mut(&key) else { return Ok(()) };
        let part = &mut parts[place.rank as usize];
        (part.held, part.is_over) = (held.map(|held| (audited.in_place, held)), true);
        if parts.iter().any(|part| !part.is_over) {
            return Ok(());
        }
        let parts = self.open.remove(&key).unwrap_or_default();
        let calls = |rank: Rank| parts[rank as usize].call.get();
        let all = all_contributors(ranks);
        (0..).zip(&parts).try_for_each(|(rank, part)| {
            let Some((in_place, held)) = &part.held else { return Ok(()) };
            verdict(rank, &calls(rank), wrong_elements(&calls, (ranks, all), rank, *in_place, held))
        })
    }
}

fn verdict(rank: Rank, call: &Collective<'_>, wrong: u64) -> Result<()> {
    if wrong == 0 {
        return Ok(());
    }
    Err(Error::internal(format!("{call}: rank {rank} holds {wrong} elements that are not what it promises")))
}
