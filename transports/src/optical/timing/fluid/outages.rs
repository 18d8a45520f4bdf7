//! Faults: what ports pass changes while flows cross them.

use super::super::super::faults::LinkFaults;
use super::super::{Agenda, Way};
use super::Fluid;

/// Faults of links, and how many of their changes were made.
#[derive(Debug)]
pub(super) struct Outages {
    pub(super) faults: Box<LinkFaults>,
    made: usize,
    /// Bytes of each message, those that errors send again with them.
    bytes: Vec<u64>,
}

impl Outages {
    pub(super) fn new(faults: Box<LinkFaults>) -> Self {
        Outages { faults, made: 0, bytes: Vec::new() }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.faults.memory_bytes() + self.bytes.capacity() * size_of::<u64>()
    }
}

impl Fluid {
    /// The shares of time 0.
    pub(super) fn change_from_start(&mut self, ranks: u32) {
        (0..=ranks).for_each(|line| self.change(line, 0));
    }

    /// The next change is of interest only while something is under way.
    pub(super) fn next_with_faults_ps(&self, next_ps: Option<u64>) -> Option<u64> {
        let change_ps = self.faults.as_ref().and_then(|own| Some(own.faults.changes().get(own.made)?.0));
        match (next_ps, change_ps) {
            (Some(next_ps), Some(change_ps)) => Some(next_ps.min(change_ps)),
            (None, change_ps) if self.sharing.is_active() => change_ps,
            (next_ps, _) => next_ps,
        }
    }

    /// Makes the changes up to now.
    pub(super) fn make_changes(&mut self, now_ps: u64) {
        while let Some(own) = &mut self.faults
            && let Some(&(at_ps, line)) = own.faults.changes().get(own.made)
            && at_ps <= now_ps
        {
            own.made += 1;
            self.change(line, now_ps);
        }
    }

    fn change(&mut self, line: u32, now_ps: u64) {
        let Some(own) = &mut self.faults else { return };
        let share = own.faults.share(line, now_ps);
        let (flows, links) = (&self.flows, &self.links);
        let mut in_flight = |message: u32| {
            let way = &flows[message as usize];
            (own.bytes[message as usize], links[usize::from(way.class)].latency_ps)
        };
        let mut hits = 0;
        for resource in self.routes.resources(line) {
            hits += self.sharing.change(resource, share, now_ps, &mut in_flight);
        }
        (0..hits).for_each(|_| own.faults.hit());
    }

    /// A flow begins: its bytes, and those that errors send again.
    pub(super) fn bytes_with_errors(&mut self, message: u32, way: &Way, agenda: &Agenda<'_>) -> u64 {
        let link = self.links[usize::from(way.class)];
        let Some(own) = &mut self.faults else { return way.bytes };
        let more = own.faults.more_bytes((way.from, way.to), agenda.now_ps, way.bytes, &link);
        let bytes = way.bytes.saturating_add(more);
        own.bytes.resize(own.bytes.len().max(message as usize + 1), 0);
        own.bytes[message as usize] = bytes;
        bytes
    }
}
