//! The least time that a fabric's ports allow: what results are compared with.
//!
//! A rank's port must pass the bytes that nccl-tests' bus bandwidth counts, whatever the algorithm: 2(n − 1)/n of the
//! buffer for an all-reduce, (n − 1)/n for an all-gather, … Where switches both copy and fold, an all-reduce's port need
//! pass the buffer only once. They pass at most at the rate of the fastest link in use, the first of them after that
//! link's latency; and no rank is done before something has come from the farthest. Of an all-to-all on a ring of n ranks
//! n²/8 blocks ((n² − 1)/8, if n is odd) pass every link, each way, if no link passes more than another.

use crate::call::Call;
use crate::target::Kind;
use crate::units::{show_bytes_per_second, show_picoseconds};

/// One rank's ports, as far as a call on so many ranks uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    /// What they pass in one direction.
    pub(crate) rate_bytes_per_s: u64,
    /// What the first byte of a message takes on the nearest way, both ranks' overheads included.
    pub(crate) nearest_ps: u64,
    /// The same on the way to the farthest rank.
    pub(crate) farthest_ps: u64,
    /// Whether all ranks stand in one ring; `rate_bytes_per_s` is then that of both links of a rank.
    pub(crate) around: bool,
    /// Whether switches in use copy and fold.
    pub(crate) folds: bool,
    /// What a call costs each rank before its first message.
    pub(crate) start_ps: u64,
}

impl Ports {
    /// The least time of a call.
    pub(crate) fn bound_us(&self, call: &Call) -> f64 {
        if call.ranks < 2 {
            return 0.0;
        }
        let bytes_ps = self.bytes(call) / self.rate_bytes_per_s as f64 * 1e12;
        let through_ps = if bytes_ps > 0.0 { self.nearest_ps as f64 + bytes_ps } else { 0.0 };
        (self.start_ps as f64 + through_ps.max(self.farthest_ps as f64)) / 1e6
    }

    /// Bytes that a rank's port passes at least, in the direction in which it passes more.
    fn bytes(&self, call: &Call) -> f64 {
        if self.folds && call.kind == Kind::AllReduce {
            return call.bytes() as f64;
        }
        if self.around && call.kind == Kind::AllToAll {
            // Through both links of a rank; two ranks have one.
            let (n, odd) = (f64::from(call.ranks), f64::from(call.ranks % 2));
            let blocks = if call.ranks == 2 { 1.0 } else { (n * n - odd) / 4.0 };
            return blocks * call.bytes() as f64 / n;
        }
        // In one microsecond, GB/s are thousands of bytes.
        call.bandwidths(1.0).1 * 1e3
    }

    /// How the bound is made, for the head of the table.
    pub(crate) fn describe(&self, call: &Call) -> String {
        let share = self.bytes(call) / (call.bytes() as f64).max(1.0);
        let mut text = format!(
            "bound: {share:.3} of the size through a rank's port at {}, after {}; at least {} to the farthest rank",
            show_bytes_per_second(self.rate_bytes_per_s),
            show_picoseconds(self.nearest_ps),
            show_picoseconds(self.farthest_ps),
        );
        if self.start_ps > 0 {
            text += &format!("; and {} to start", show_picoseconds(self.start_ps));
        }
        text
    }
}

/// How near a time comes to its bound, in percent.
pub(crate) fn percent(bound_us: f64, time_us: f64) -> f64 {
    if time_us > 0.0 { 100.0 * bound_us / time_us } else { 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::tests::call;

    const PORTS: Ports = Ports {
        rate_bytes_per_s: 1_000_000_000,
        nearest_ps: 1_000_000,
        farthest_ps: 3_000_000,
        around: false,
        folds: false,
        start_ps: 0,
    };

    #[test]
    fn bounds_are_what_ports_must_pass() {
        let us = |kind, count, ranks| PORTS.bound_us(&call(kind, count, ranks));
        // 4,000,000 bytes at 1 kB a microsecond.
        assert_eq!(us(Kind::AllReduce, 1_000_000, 4), 1.0 + 4000.0 * 1.5);
        assert_eq!(us(Kind::AllGather, 250_000, 4), 1.0 + 4000.0 * 0.75);
        assert_eq!(us(Kind::Broadcast, 1_000_000, 4), 1.0 + 4000.0);
        assert_eq!(us(Kind::AllReduce, 1, 4), 3.0, "latency to the farthest");
        assert_eq!(us(Kind::Barrier, 0, 4), 3.0);
        assert_eq!(us(Kind::AllReduce, 1_000_000, 1), 0.0, "alone");
    }

    #[test]
    fn switches_that_fold_and_starts_count() {
        let ports = Ports { folds: true, start_ps: 5_000_000, ..PORTS };
        assert_eq!(ports.bound_us(&call(Kind::AllReduce, 1_000_000, 4)), 5.0 + 1.0 + 4000.0);
        assert_eq!(ports.bound_us(&call(Kind::ReduceScatter, 250_000, 4)), 5.0 + 1.0 + 3000.0);
    }

    #[test]
    fn blocks_of_an_all_to_all_on_a_ring_pass_many_links() {
        let ring = Ports { around: true, rate_bytes_per_s: 2_000_000_000, ..PORTS };
        let blocks = |ranks: u32| {
            let call = call(Kind::AllToAll, 1000, ranks);
            (ring.bound_us(&call) - 1.0) / (call.bytes() as f64 / f64::from(ranks) / 1e3)
        };
        // Through a link, of two that pass 1 kB a microsecond each; two ranks have one of 2 kB here.
        for (ranks, most) in [(2, 0.5), (3, 1.0), (4, 2.0), (5, 3.0), (8, 8.0)] {
            assert!((blocks(ranks) - most).abs() < 1e-9, "{ranks} ranks: {}", blocks(ranks));
        }
    }

    #[test]
    fn the_head_says_how() {
        let text = PORTS.describe(&call(Kind::AllGather, 1, 4));
        assert_eq!(
            text,
            "bound: 0.750 of the size through a rank's port at 1 GB/s, after 1 us; at least 3 us to the farthest rank"
        );
    }
}
