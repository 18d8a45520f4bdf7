//! One row's collective: how its size becomes a count, and what each rank brings and gets. Who gets what stands here
//! a second time on purpose: the check shares no code with the library's definitions.

use crate::target::{DataType, Kind, ReduceOp};
use serde::{Deserialize, Serialize};

/// One collective with everything but its data, the same on every rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Which collective.
    pub(crate) kind: Kind,
    /// Elements, as the library counts them: of one rank's part where every rank has one; of all parts together where a
    /// table says how long each is.
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

/// One rank's part of a buffer, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Where it begins.
    pub(crate) start: u64,
    /// How long it is.
    pub(crate) len: u64,
}

impl Call {
    /// The kind that moves the same with parts of one length. Only [`Call::part`] knows that tables give others.
    pub(crate) fn shape(&self) -> Kind {
        match self.kind {
            Kind::AllGatherV => Kind::AllGather,
            Kind::ReduceScatterV => Kind::ReduceScatter,
            Kind::GatherV => Kind::Gather,
            Kind::ScatterV => Kind::Scatter,
            Kind::AllToAllV => Kind::AllToAll,
            kind => kind,
        }
    }

    /// Whether the larger buffer has a part for each rank.
    fn has_parts(&self) -> bool {
        let shape = self.shape();
        matches!(shape, Kind::AllGather | Kind::ReduceScatter | Kind::Gather | Kind::Scatter | Kind::AllToAll)
    }

    /// Whether `count` is that of one part.
    fn counts_parts(&self) -> bool {
        self.has_parts() && !self.kind.row().tabled
    }

    /// The same call with the count for a buffer of about `asked_bytes`: rounded down, but one element (per rank) at
    /// least, unless zero bytes were asked for.
    pub(crate) fn sized(self, asked_bytes: u64) -> Self {
        let parts = if self.counts_parts() { u64::from(self.ranks) } else { 1 };
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
        if self.counts_parts() { self.count * u64::from(self.ranks) } else { self.count }
    }

    /// The part of `other` in the larger buffer of `rank`. Tables share the elements out evenly, and what is left over
    /// goes one by one to the first ranks; in an all-to-all, where each rank has a table, to others on every rank,
    /// but so that two ranks have equally much for each other, which in place they must.
    pub(crate) fn part(&self, rank: u32, other: u32) -> Part {
        let column = u64::from(other);
        if !self.kind.row().tabled {
            return Part { start: self.count * column, len: self.count };
        }
        let ranks = u64::from(self.ranks);
        let (even, left_over) = (self.count / ranks, self.count % ranks);
        let row = if self.kind == Kind::AllToAllV { u64::from(rank) } else { 0 };
        let longer_before = |place: u64| place / ranks * left_over + (place % ranks).min(left_over);
        let is_longer = (row + column) % ranks < left_over;
        Part {
            start: even * column + longer_before(row + column) - longer_before(row),
            len: even + u64::from(is_longer),
        }
    }

    /// The parts of all ranks in the one buffer of `rank` in place: one part, the whole buffer, if it has no others.
    pub(crate) fn parts_in_place(&self, rank: u32) -> Vec<Part> {
        let is_partner = matches!(self.shape(), Kind::Gather | Kind::Scatter) && rank != self.root;
        if self.has_parts() && !is_partner {
            return (0..self.ranks).map(|other| self.part(rank, other)).collect();
        }
        vec![Part { start: 0, len: self.input_elements(rank).max(self.output_elements(rank)) }]
    }

    /// Elements that this rank hands in.
    pub(crate) fn input_elements(&self, rank: u32) -> u64 {
        match self.shape() {
            Kind::Broadcast | Kind::Scatter if rank != self.root => 0,
            Kind::AllGather | Kind::Gather => self.part(rank, rank).len,
            _ => self.elements(),
        }
    }

    /// Elements that this rank gets.
    pub(crate) fn output_elements(&self, rank: u32) -> u64 {
        match self.shape() {
            Kind::Reduce | Kind::Gather if rank != self.root => 0,
            Kind::ReduceScatter | Kind::Scatter => self.part(rank, rank).len,
            _ => self.elements(),
        }
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
    /// round the ring, an all-to-all back and forth. The average of equal numbers is the same number, but only where all
    /// ranks get it.
    pub(crate) fn accumulates_in_place(&self) -> bool {
        match (self.shape(), self.op) {
            (Kind::SendReceive | Kind::AllToAll, _) => true,
            (_, ReduceOp::Max | ReduceOp::Min | ReduceOp::And | ReduceOp::Or) => false,
            (_, ReduceOp::Avg) => self.meets_others_again(),
            (kind, _) => kind.row().reduces,
        }
    }

    /// Whether, repeated in place, a rank's result meets what the others brought to the first call: they keep it.
    pub(crate) fn meets_others_again(&self) -> bool {
        matches!(self.shape(), Kind::ReduceScatter | Kind::Reduce)
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

    /// The kinds that move data.
    pub(crate) const KINDS: [Kind; 14] = [
        Kind::AllReduce,
        Kind::AllGather,
        Kind::ReduceScatter,
        Kind::Broadcast,
        Kind::SendReceive,
        Kind::Reduce,
        Kind::Gather,
        Kind::Scatter,
        Kind::AllToAll,
        Kind::AllGatherV,
        Kind::ReduceScatterV,
        Kind::GatherV,
        Kind::ScatterV,
        Kind::AllToAllV,
    ];

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
        let lens = |kind, rank| {
            let call = call(kind, 10, 4);
            (call.input_elements(rank), call.output_elements(rank), call.bytes())
        };
        assert_eq!(lens(Kind::AllGather, 1), (10, 40, 160));
        assert_eq!(lens(Kind::ReduceScatter, 1), (40, 10, 160));
        assert_eq!((lens(Kind::Reduce, 0), lens(Kind::Reduce, 1)), ((10, 10, 40), (10, 0, 40)));
        assert_eq!((lens(Kind::Gather, 0), lens(Kind::Gather, 1)), ((10, 40, 160), (10, 0, 160)));
        assert_eq!((lens(Kind::Scatter, 0), lens(Kind::Scatter, 1)), ((40, 10, 160), (0, 10, 160)));
        assert_eq!(lens(Kind::AllToAll, 1), (40, 40, 160));
        assert_eq!(call(Kind::AllReduce, 1000, 4).bandwidths(2.0), (2.0, 3.0));
        assert_eq!(call(Kind::AllGather, 1000, 4).bandwidths(8.0), (2.0, 1.5));
        assert_eq!(call(Kind::Broadcast, 1000, 4).bandwidths(2.0), (2.0, 2.0));
        assert_eq!(call(Kind::Reduce, 1000, 4).bandwidths(2.0), (2.0, 2.0));
        for kind in [Kind::Gather, Kind::Scatter, Kind::AllToAll] {
            assert_eq!(call(kind, 1000, 4).bandwidths(8.0), (2.0, 1.5), "{kind:?}");
        }
        assert_eq!(call(Kind::AllToAllV, 4000, 4).bandwidths(8.0), (2.0, 1.5));
        assert_eq!(call(Kind::Barrier, 0, 4).bandwidths(2.0), (0.0, 0.0));
        let alone = call(Kind::SendReceive, 1, 1);
        assert_eq!((alone.sender_to(0), alone.receiver_of(0)), (0, 0), "to itself is allowed");
    }

    #[test]
    fn tables_share_out_every_element_and_two_ranks_have_equally_much_for_each_other() {
        for (count, ranks) in [(0, 3), (1, 3), (7, 5), (10, 5), (23, 4), (9, 1)] {
            let exchange = call(Kind::AllToAllV, count, ranks);
            for rank in 0..ranks {
                let mut next = 0;
                for other in 0..ranks {
                    let part = exchange.part(rank, other);
                    assert_eq!((part.start, part.len), (next, exchange.part(other, rank).len));
                    assert!(part.len.abs_diff(count / u64::from(ranks)) <= 1);
                    next += part.len;
                }
                assert_eq!(next, count);
            }
            let gather = call(Kind::AllGatherV, count, ranks);
            assert_eq!(gather.part(ranks - 1, 0), gather.part(0, 0), "one table for all");
            assert_eq!(gather.elements(), count);
        }
        assert_eq!(call(Kind::GatherV, 0, 4).sized(40).count, 10, "a table need not be divided");
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
