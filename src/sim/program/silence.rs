//! When nothing can happen any more: who waits for whom.

use super::inside::State;
use crate::engine::Engine;
use crate::sim::company::Company;
use std::collections::BTreeSet;
use ubccl_core::collective::Rank;
use ubccl_core::endpoint::CommunicatorId;

/// A message names at most this many waiting ranks.
const MOST_NAMED: usize = 8;

impl State {
    /// Nothing will happen any more: ends a communicator in which somebody waits, saying who waits for whom. If there
    /// are several it is the youngest: ranks may wait in the others for those that are stuck here.
    /// `ended` are the ranks of the world whose programs are over. `false` if nobody waits for another rank.
    pub(super) fn break_silence(&mut self, ended: &BTreeSet<Rank>) -> bool {
        let is_waiting = |company: &Company| {
            company.poisoned.is_none() && company.engines.iter().any(|engine| !engine.is_idle())
        };
        let Some(stuck) = self.world.communicators.iter().rposition(is_waiting) else { return false };
        let told = self.who_waits(ended);
        let company = &mut self.world.communicators[stuck];
        // A message that nobody can take says more than that somebody waits.
        company.inspect(Engine::inspect);
        let waiting = company.engines.iter().position(|engine| !engine.is_idle());
        if let Some(rank) = waiting {
            company.stall(rank as Rank, &told);
        }
        true
    }

    fn who_waits(&self, ended: &BTreeSet<Rank>) -> String {
        let mut waits = Vec::new();
        for (id, company) in self.world.communicators.iter().enumerate() {
            if company.poisoned.is_some() {
                continue;
            }
            let is_over = |rank: Rank| ended.contains(&company.ranks[rank as usize]);
            let waiting = (0..company.size()).filter(|&rank| !company.engines[rank as usize].is_idle());
            let place = match CommunicatorId(id as u32) {
                CommunicatorId::WORLD => String::new(),
                id => format!(" of communicator {}", id.0),
            };
            waits.extend(waiting.map(|rank| format!("rank {rank}{place} {}", company.waits(rank, &is_over))));
        }
        let more = waits.len().saturating_sub(MOST_NAMED);
        waits.truncate(MOST_NAMED);
        let more = if more > 0 { format!("; and {more} more ranks wait") } else { String::new() };
        format!("nothing can happen any more: {}{more}", waits.join("; "))
    }
}
