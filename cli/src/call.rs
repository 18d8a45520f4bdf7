//! One row's collective: how its size becomes a count, and what each rank brings and gets. Who gets what stands here
//! a second time on purpose: the check shares no code with the library's definitions.

use crate::target::{DataType, Kind, ReduceOp};
use serde::{Deserialize, Serialize};

/// One collective with everything but its data, the same on every rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Which collective.
    pub(crate) kind: Kind,
    /// Elements, as the library counts them: per rank for all-gather and reduce-scatter.
    pub(crate) count: u64,
    /// Type of the elements.
    pub(crate) dtype: DataType,
    /// How elements are combined; ignored where nothing is.
    pub(crate) op: ReduceOp,
    /// The root; ignored where there is none.
    pub(crate) root: u32,
    /// How many ranks.
    pub(crate) ranks: u32,
}

/// Whether a size in bytes covers a buffer with one part per rank.
fn is_per_rank(kind: Kind) -> bool {
    matches!(kind, Kind::AllGather | Kind::ReduceScatter)
}

impl Call {
    /// The same call with the count for a buffer of about `asked_bytes`: rounded down, but one element (per rank) at
    /// least, unless zero bytes were asked for.
    pub(crate) fn sized(self, asked_bytes: u64) -> Self {
        let parts = if is_per_rank(self.kind) { u64::from(self.ranks) } else { 1 };
        let unit = self.dtype.size() as u64 * parts;
        let moves_nothing = asked_bytes == 0 || self.kind == Kind::Barrier;
        Call { count: if moves_nothing { 0 } else { (asked_bytes / unit).max(1) }, ..self }
    }

    /// Bytes of the larger buffer, which is the size that nccl-tests prints.
    pub(crate) fn bytes(&self) -> u64 {
        self.elements() * self.dtype.size() as u64
    }

    /// Elements of the larger buffer.
    pub(crate) fn elements(&self) -> u64 {
        if is_per_rank(self.kind) { self.count * u64::from(self.ranks) } else { self.count }
    }

    /// Elements that this rank hands in.
    pub(crate) fn input_elements(&self, rank: u32) -> u64 {
        match self.kind {
            Kind::Broadcast if rank != self.root => 0,
            Kind::ReduceScatter => self.elements(),
            _ => self.count,
        }
    }

    /// Elements that every rank gets.
    pub(crate) fn output_elements(&self) -> u64 {
        if self.kind == Kind::AllGather { self.elements() } else { self.count }
    }

    /// The rank that sends to `rank` in a send/receive: the one before, in a ring as in nccl-tests.
    pub(crate) fn sender_to(&self, rank: u32) -> u32 {
        (rank + self.ranks - 1) % self.ranks
    }

    /// The rank that `rank` sends to in a send/receive.
    pub(crate) fn receiver_of(&self, rank: u32) -> u32 {
        (rank + 1) % self.ranks
    }

    /// Whether there is an in-place form: there is unless there are no data.
    pub(crate) fn has_in_place(&self) -> bool {
        self.kind != Kind::Barrier
    }

    /// Whether the calls pipeline: behind a root, whose own part ends early.
    pub(crate) fn is_rooted(&self) -> bool {
        self.kind.row().rooted
    }

    /// Whether each repetition in place, on its own result, makes another result: sums grow, a send/receive goes
    /// round the ring. The average of equal numbers is the same number, but a reduce-scatter averages with the others'.
    pub(crate) fn accumulates_in_place(&self) -> bool {
        match (self.kind, self.op) {
            (Kind::SendReceive, _) => true,
            (_, ReduceOp::Max | ReduceOp::Min | ReduceOp::And | ReduceOp::Or) => false,
            (kind, ReduceOp::Avg) => kind == Kind::ReduceScatter,
            (kind, _) => kind.row().reduces,
        }
    }

    /// Algorithm bandwidth and bus bandwidth in GB/s (10⁹) for a call that takes this long.
    pub(crate) fn bandwidths(&self, time_us: f64) -> (f64, f64) {
        let algorithm = if time_us > 0.0 { self.bytes() as f64 / time_us / 1000.0 } else { 0.0 };
        (algorithm, algorithm * self.kind.bus_factor(self.ranks))
    }
}

/// A [`Call`] as it travels to the ranks: stable numbers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct CallCode {
    kind: u8,
    count: u64,
    dtype: u8,
    op: u8,
    root: u32,
    ranks: u32,
}

impl From<Call> for CallCode {
    fn from(call: Call) -> Self {
        let Call { kind, count, dtype, op, root, ranks } = call;
        CallCode { kind: kind.code(), count, dtype: dtype.code(), op: op.code(), root, ranks }
    }
}

impl CallCode {
    /// The call, or nothing if a number is unknown (another build of the program).
    pub(crate) fn decode(self) -> Option<Call> {
        let CallCode { kind, count, dtype, op, root, ranks } = self;
        let kind = Kind::from_code(kind)?;
        Some(Call {
            kind,
            count,
            dtype: DataType::from_code(dtype)?,
            op: ReduceOp::from_code(op)?,
            root,
            ranks,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A call for tests.
    pub(crate) fn call(kind: Kind, count: u64, ranks: u32) -> Call {
        Call { kind, count, dtype: DataType::F32, op: ReduceOp::Sum, root: 0, ranks }
    }

    #[test]
    fn counts_are_one_element_per_rank_at_least_and_not_floored_to_16_bytes() {
        let gather = call(Kind::AllGather, 0, 384);
        assert_eq!(gather.sized(8).count, 1);
        assert_eq!(gather.sized(8).bytes(), 1536);
        assert_eq!(gather.sized(1 << 20).count, 682);
        assert_eq!(gather.sized(0).count, 0);
        let reduce = call(Kind::AllReduce, 0, 2);
        assert_eq!(reduce.sized(3).count, 1);
        assert_eq!(reduce.sized(5 << 30).count, 5 << 28);
        assert_eq!(call(Kind::Barrier, 0, 2).sized(64).count, 0);
    }

    #[test]
    fn sizes_and_bandwidths_are_those_of_nccl_tests() {
        let gather = call(Kind::AllGather, 10, 4);
        assert_eq!((gather.input_elements(1), gather.output_elements(), gather.bytes()), (10, 40, 160));
        let scatter = call(Kind::ReduceScatter, 10, 4);
        assert_eq!((scatter.input_elements(1), scatter.output_elements(), scatter.bytes()), (40, 10, 160));
        assert_eq!(call(Kind::AllReduce, 1000, 4).bandwidths(2.0), (2.0, 3.0));
        assert_eq!(call(Kind::AllGather, 1000, 4).bandwidths(8.0), (2.0, 1.5));
        assert_eq!(call(Kind::Broadcast, 1000, 4).bandwidths(2.0), (2.0, 2.0));
        assert_eq!(call(Kind::Barrier, 0, 4).bandwidths(2.0), (0.0, 0.0));
        let alone = call(Kind::SendReceive, 1, 1);
        assert_eq!((alone.sender_to(0), alone.receiver_of(0)), (0, 0), "to itself is allowed");
    }

    #[test]
    fn every_call_survives_the_journey_to_the_ranks() {
        for row in Kind::TABLE {
            let sent = Call { dtype: DataType::BF16, op: ReduceOp::Max, root: 3, ..call(row.kind, 7, 5) };
            assert_eq!(CallCode::from(sent).decode(), Some(sent));
        }
        assert!(CallCode { kind: 0, ..call(Kind::Barrier, 0, 1).into() }.decode().is_none());
    }
}
