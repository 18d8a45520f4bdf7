//! What fidelities ask: how bytes pass a rank's ports, and when what they pass changes.

use super::errors::ErrorStream;
use super::script::{Fault, FaultKind, mixed};
use super::timeline::{Bytes, Passage, Timeline};
use ubccl_core::Rank;
use ubccl_core::topology::Link;

/// The ports of all ranks under faults.
#[derive(Debug)]
pub(in crate::optical) struct LinkFaults {
    /// By rank; the last one is of what concerns all: the links inside the machine.
    lines: Vec<Timeline>,
    /// Those with bit errors.
    errors: Vec<Fault>,
    /// Out and in of rank 0, of rank 1, …
    streams: Vec<ErrorStream>,
    /// When which line changes, in order of time.
    changes: Vec<(u64, u32)>,
    /// When the last byte of each message leaves, and what of that is due to faults.
    sent: Vec<(u64, u64)>,
    retries: u64,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::optical) enum Side {
    Out = 0,
    In = 1,
}

/// What bytes lose to errors.
#[derive(Clone, Copy, Debug, Default)]
struct Delay {
    ps: u64,
    retries: u64,
}

impl LinkFaults {
    pub(super) fn new(faults: &[Fault], ranks: u32, seed: u64) -> Self {
        let lines: Vec<Timeline> =
            (0..ranks).map(Some).chain([None]).map(|rank| Timeline::of(faults, rank)).collect();
        let changes = |(line, timeline): (u32, &Timeline)| {
            timeline.changes().map(|at_ps| (at_ps, line)).collect::<Vec<_>>()
        };
        let mut changes: Vec<(u64, u32)> = (0..).zip(&lines).flat_map(changes).collect();
        changes.sort_unstable();
        let has_errors = |fault: &&Fault| matches!(fault.kind, FaultKind::BitErrors { .. });
        let errors: Vec<Fault> = faults.iter().filter(has_errors).copied().collect();
        let streams = if errors.is_empty() { 0 } else { 2 * u64::from(ranks) };
        LinkFaults {
            lines,
            errors,
            streams: (0..streams).map(|stream| ErrorStream::new(seed ^ mixed(stream))).collect(),
            changes,
            sent: Vec::new(),
            retries: 0,
        }
    }

    /// How often bytes were sent again.
    pub(in crate::optical) fn retries(&self) -> u64 {
        self.retries
    }

    /// Bytes in flight were lost.
    pub(in crate::optical) fn hit(&mut self) {
        self.retries += 1;
    }

    /// When which rank's ports change, in order of time; the number of ranks stands for the links inside the machine.
    pub(in crate::optical) fn changes(&self) -> &[(u64, u32)] {
        &self.changes
    }

    /// The share of its rate that a rank's ports pass, in 2⁻³² parts.
    pub(in crate::optical) fn share(&self, line: u32, now_ps: u64) -> u64 {
        self.lines[line as usize].share(now_ps)
    }

    /// When something passes from one rank to another: now, or once both are up.
    pub(in crate::optical) fn up_ps(&self, from: Rank, to: Rank, now_ps: u64) -> u64 {
        let up_ps = |rank: Rank| self.lines[rank as usize].up_ps(now_ps);
        up_ps(from).max(up_ps(to))
    }

    /// How a message passes a port from a time on, and when it is through as far as the port is concerned, which takes it
    /// from a time of its own on.
    pub(in crate::optical) fn pass(
        &mut self,
        (rank, side): (Rank, Side),
        (now_ps, port_now_ps): (u64, u64),
        bytes: u64,
        link: &Link,
    ) -> (Passage, u64) {
        let delay = self.delay((rank, side), now_ps, bytes, link);
        let line = &self.lines[rank as usize];
        let port_rate = link.port_rate_bytes_per_s();
        let message = Bytes { bytes, rate: link.rate_bytes_per_s, port_rate, latency_ps: link.latency_ps };
        let begin_ps = line.up_ps(now_ps);
        let from_ps = begin_ps.saturating_add(delay.ps);
        let passage = line.pass(from_ps, &message);
        let port_ps = match link.rate_bytes_per_s < port_rate {
            false => passage.end_ps,
            true => {
                let from_ps = line.up_ps(port_now_ps).saturating_add(delay.ps);
                line.pass(from_ps, &Bytes { rate: port_rate, latency_ps: 0, ..message }).end_ps
            }
        };
        self.retries += delay.retries + passage.hits;
        // Errors are got over before the first byte, or that may find the link down: where in the time does not matter.
        let recovery_ps = passage.recovery_ps.saturating_add(passage.begin_ps - begin_ps);
        (Passage { begin_ps, recovery_ps, ..passage }, port_ps)
    }

    /// What errors of now cost a message between two ranks, as bytes that it has more to send.
    pub(in crate::optical) fn more_bytes(
        &mut self,
        (from, to): (Rank, Rank),
        now_ps: u64,
        bytes: u64,
        link: &Link,
    ) -> u64 {
        let out = self.delay((from, Side::Out), now_ps, bytes, link);
        let into = self.delay((to, Side::In), now_ps, bytes, link);
        self.retries += out.retries + into.retries;
        bytes_in(out.ps.saturating_add(into.ps), link.rate_bytes_per_s)
    }

    /// Each error costs a round trip, in which what follows it is dropped.
    fn delay(&mut self, (rank, side): (Rank, Side), now_ps: u64, bytes: u64, link: &Link) -> Delay {
        let active = self.errors.iter().filter(|fault| {
            fault.rank.is_none_or(|own| own == rank) && fault.from_ps <= now_ps && now_ps < fault.until_ps
        });
        let worst = active.filter_map(|fault| match fault.kind {
            FaultKind::BitErrors { one_in_bytes, retrain_ps } => Some((one_in_bytes, retrain_ps)),
            _ => None,
        });
        let Some((one_in_bytes, retrain_ps)) = worst.min() else { return Delay::default() };
        let round_trip_ps = link.latency_ps.saturating_mul(2);
        let window = bytes_in(round_trip_ps, link.rate_bytes_per_s);
        let stream = &mut self.streams[2 * rank as usize + side as usize];
        let damage = stream.take(bytes, one_in_bytes, window);
        let replays_ps = damage.retries.saturating_mul(round_trip_ps);
        let ps = replays_ps.saturating_add(damage.trainings.saturating_mul(retrain_ps));
        Delay { ps, retries: damage.retries }
    }

    /// When the last byte of a message leaves, and what of that is due to faults; kept for [`LinkFaults::sent`].
    pub(in crate::optical) fn leaves(&mut self, message: u32, sent: (u64, u64)) {
        let message = message as usize;
        self.sent.resize(self.sent.len().max(message + 1), (0, 0));
        self.sent[message] = sent;
    }

    /// See [`LinkFaults::leaves`].
    pub(in crate::optical) fn sent(&self, message: u32) -> (u64, u64) {
        self.sent[message as usize]
    }

    /// Bytes of memory it has taken.
    pub(in crate::optical) fn memory_bytes(&self) -> usize {
        self.sent.capacity() * size_of::<(u64, u64)>() + self.streams.capacity() * size_of::<ErrorStream>()
    }
}

fn bytes_in(ps: u64, rate_bytes_per_s: u64) -> u64 {
    let bytes = u128::from(ps) * u128::from(rate_bytes_per_s) / 1_000_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
