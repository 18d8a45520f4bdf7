//! What a rank's ports pass when, as a share of their rate.

use super::script::Fault;
use ubccl_core::Rank;

const PS_PER_S: u128 = 1_000_000_000_000;
/// A share of all.
pub(super) const WHOLE: u64 = 1 << 32;

/// Shares from some times on, the first from 0, no two that follow each other the same; the last one is not 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Timeline(Vec<(u64, u64)>);

/// How bytes pass a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::optical) struct Passage {
    /// When the first one begins to pass: later than asked, if the link is down.
    pub(in crate::optical) begin_ps: u64,
    /// When all have passed.
    pub(in crate::optical) end_ps: u64,
    /// What of that time nothing new passed in.
    pub(in crate::optical) recovery_ps: u64,
    /// How often bytes in flight were lost.
    pub(in crate::optical) hits: u64,
}

/// Bytes that are to pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes {
    pub(super) bytes: u64,
    /// How fast they can be, and what the port passes when whole.
    pub(super) rate: u64,
    pub(super) port_rate: u64,
    /// How long a byte is in flight: until then it may be lost.
    pub(super) latency_ps: u64,
}

impl Timeline {
    /// That of one rank's ports, or of the links inside the machine.
    pub(super) fn of(faults: &[Fault], rank: Option<Rank>) -> Self {
        let own = |fault: &&Fault| match rank {
            Some(_) => fault.rank.is_none() || fault.rank == rank,
            None => fault.rank.is_none() && fault.kind.is_inside(),
        };
        // From, until, share.
        let spans = faults.iter().filter(own).filter_map(|fault| {
            let (share, retrain_ps) = fault.kind.share()?;
            Some((fault.from_ps, fault.until_ps.saturating_add(retrain_ps), share))
        });
        let spans: Vec<(u64, u64, u64)> = spans.collect();
        let mut times: Vec<u64> = spans.iter().flat_map(|span| [span.0, span.1]).chain([0]).collect();
        times.retain(|&time| time < u64::MAX);
        times.sort_unstable();
        times.dedup();
        let share_at = |time: u64| {
            let active = spans.iter().filter(|span| span.0 <= time && time < span.1);
            active.fold(WHOLE, |all, span| ((u128::from(all) * u128::from(span.2)) >> 32) as u64)
        };
        let mut shares: Vec<(u64, u64)> = times.into_iter().map(|time| (time, share_at(time))).collect();
        shares.dedup_by_key(|share| share.1);
        Timeline(shares)
    }

    fn at(&self, time_ps: u64) -> usize {
        self.0.partition_point(|share| share.0 <= time_ps) - 1
    }

    /// The share at a time.
    pub(super) fn share(&self, time_ps: u64) -> u64 {
        self.0[self.at(time_ps)].1
    }

    /// When something passes: at that time, or once the link is up again.
    pub(super) fn up_ps(&self, time_ps: u64) -> u64 {
        let at = self.at(time_ps);
        match self.0[at].1 {
            0 => self.0.get(at + 1).map_or(time_ps, |next| next.0),
            _ => time_ps,
        }
    }

    /// The times after 0 at which it changes.
    pub(super) fn changes(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().skip(1).map(|share| share.0)
    }

    /// How bytes pass that could from `now_ps` on.
    pub(super) fn pass(&self, now_ps: u64, it: &Bytes) -> Passage {
        let begin_ps = self.up_ps(now_ps);
        let (all, whole_rate) = (u128::from(it.bytes) * PS_PER_S, u128::from(it.rate.max(1)));
        let (mut now_ps, mut left, mut again) = (begin_ps, all, 0);
        let (mut down_ps, mut hits) = (0, 0);
        let mut at = self.at(begin_ps);
        let end_ps = loop {
            let share = self.0[at].1;
            let port_rate = (u128::from(it.port_rate) * u128::from(share)) >> 32;
            let rate = whole_rate.min(port_rate).max(1);
            let end_ps = now_ps.saturating_add(u64::try_from(left.div_ceil(rate)).unwrap_or(u64::MAX));
            let Some(&(next_ps, next_share)) = self.0.get(at + 1) else { break end_ps };
            let has_left = share > 0 && end_ps <= next_ps;
            if has_left && (next_share > 0 || end_ps.saturating_add(it.latency_ps) <= next_ps) {
                break end_ps;
            }
            if share == 0 {
                down_ps += next_ps - now_ps;
            } else {
                left = left.saturating_sub(rate * u128::from(next_ps - now_ps));
            }
            if next_share == 0 {
                // What is in flight is lost.
                let since_ps = it.latency_ps.saturating_sub(next_ps.saturating_sub(end_ps));
                let lost = (all - left).min(rate * u128::from(since_ps));
                (left, again, hits) = (left + lost, again + lost, hits + 1);
            }
            (now_ps, at) = (next_ps, at + 1);
        };
        let again_ps = u64::try_from(again / whole_rate).unwrap_or(u64::MAX);
        let recovery_ps = again_ps.saturating_add(down_ps).min(end_ps - begin_ps);
        Passage { begin_ps, end_ps, recovery_ps, hits }
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::FaultKind;
    use super::*;

    fn fault(kind: FaultKind, from_ps: u64, until_ps: u64) -> Fault {
        Fault { kind, rank: Some(0), from_ps, until_ps }
    }

    /// One byte takes a picosecond.
    fn bytes(bytes: u64, latency_ps: u64) -> Bytes {
        let rate = 1_000_000_000_000;
        Bytes { bytes, rate, port_rate: rate, latency_ps }
    }

    const HALF: FaultKind = FaultKind::Slow { share: WHOLE / 2, what: "slow-port" };
    const FLAP: FaultKind = FaultKind::Flap { retrain_ps: 10 };

    #[test]
    fn shares_multiply_and_a_flap_ends_with_its_training() {
        let faults = [fault(HALF, 100, 300), fault(HALF, 200, u64::MAX), fault(FLAP, 50, 60)];
        let line = Timeline::of(&faults, Some(0));
        let expected =
            [(0, WHOLE), (50, 0), (70, WHOLE), (100, WHOLE / 2), (200, WHOLE / 4), (300, WHOLE / 2)];
        assert_eq!(line.0, expected);
        assert_eq!(Timeline::of(&faults, Some(1)).0, [(0, WHOLE)]);
        assert_eq!(line.changes().collect::<Vec<_>>(), [50, 70, 100, 200, 300]);
        assert_eq!([49, 50, 69, 70].map(|time| line.up_ps(time)), [49, 70, 70, 70]);
    }

    #[test]
    fn bytes_pass_as_the_port_is() {
        let line = Timeline::of(&[fault(HALF, 100, 300)], Some(0));
        let end = |now_ps, count| line.pass(now_ps, &bytes(count, 1000)).end_ps;
        assert_eq!((end(0, 100), end(0, 101), end(0, 200), end(0, 250)), (100, 102, 300, 350));
        assert_eq!((end(250, 25), end(300, 7), end(120, 0)), (300, 307, 120));
        // Slower than the port by itself: half a port is enough.
        let slow = Bytes { rate: 500_000_000_000, ..bytes(100, 0) };
        assert_eq!(line.pass(50, &slow), Passage { begin_ps: 50, end_ps: 250, recovery_ps: 0, hits: 0 });
    }

    #[test]
    fn what_is_in_flight_when_the_link_goes_down_is_sent_again() {
        let line = Timeline::of(&[fault(FLAP, 100, 140)], Some(0));
        let pass = |now_ps, count, latency_ps| line.pass(now_ps, &bytes(count, latency_ps));
        // Sixty bytes had left, the last twenty of them are lost; forty and twenty follow from 150 on.
        assert_eq!(pass(40, 100, 20), Passage { begin_ps: 40, end_ps: 210, recovery_ps: 70, hits: 1 });
        // All had left, of the last twenty-five picoseconds' bytes ten had arrived.
        assert_eq!(pass(40, 50, 25), Passage { begin_ps: 40, end_ps: 165, recovery_ps: 65, hits: 1 });
        assert_eq!(pass(40, 50, 10), Passage { begin_ps: 40, end_ps: 90, recovery_ps: 0, hits: 0 });
        assert_eq!(pass(120, 5, 10), Passage { begin_ps: 150, end_ps: 155, recovery_ps: 0, hits: 0 });
        // No bytes are in flight too.
        assert_eq!(pass(95, 0, 10), Passage { begin_ps: 95, end_ps: 150, recovery_ps: 50, hits: 1 });
    }
}
