//! Calls to make plans for.

use ubccl_core::plan::Plan;
use ubccl_core::{Algorithm, Choice, Collective, DataType, Kind, Rank, ReduceOp, Spec, UserOp};

fn first(_: usize, _: &mut [u8], _: &[u8], _: DataType) {}

/// An operation that does not commute.
pub(crate) static FIRST: UserOp = UserOp::new("first", false, first, 0);

/// How many operations are tried: variants of what reduces.
pub(crate) const OPS: u32 = 3;

/// One that nests and commutes, and one each that doesn't.
const OPERATIONS: [ReduceOp; OPS as usize] = [ReduceOp::Sum, ReduceOp::Avg, ReduceOp::User(&FIRST)];

/// One call of one algorithm.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) algorithm: &'static dyn Algorithm,
    pub(crate) kind: Kind,
    pub(crate) ranks: u32,
    /// The root; for send/receive who talks to whom; for what reduces the operation.
    pub(crate) variant: u32,
    pub(crate) count: u64,
    pub(crate) in_place: bool,
    pub(crate) dtype: DataType,
    pub(crate) choice: Choice,
}

impl Case {
    pub(crate) fn call(&self, rank: Rank) -> Collective<'static> {
        let Case { count, dtype, ranks, .. } = *self;
        let ops = OPERATIONS.iter().copied().filter(|&op| self.algorithm.supports_op(op).is_ok());
        let op = ops.cycle().nth(self.variant as usize).expect("everything that reduces does sums");
        match self.kind {
            Kind::AllReduce => Collective::all_reduce(count, dtype, op),
            Kind::AllGather => Collective::all_gather(count, dtype),
            Kind::ReduceScatter => Collective::reduce_scatter(count, dtype, op),
            Kind::Broadcast => Collective::broadcast(count, dtype, self.variant),
            Kind::Barrier => Collective::barrier(),
            Kind::SendReceive => {
                let (to, from) = talk(self.variant, ranks, rank);
                Collective::send_receive(count, dtype, to, from)
            }
            other => panic!("the proofs do not know {}", other.name()),
        }
    }

    pub(crate) fn plan(&self, rank: Rank) -> Plan {
        self.algorithm.plan(&Spec::new(&self.call(rank), self.ranks, rank, self.in_place, self.choice))
    }

    pub(crate) fn text(&self) -> String {
        let place = if self.in_place { "in place" } else { "out of place" };
        let Choice { lanes, chunk_bytes } = self.choice;
        format!(
            "{} {} of {} ranks, {place}, {lanes} lanes, chunks of {chunk_bytes} B",
            self.algorithm.descriptor().name,
            self.call(0),
            self.ranks
        )
    }
}

/// Whom a rank sends to and receives from: round the circle, in pairs, with itself, or from 0 to the last only.
fn talk(pattern: u32, ranks: u32, rank: Rank) -> (Option<Rank>, Option<Rank>) {
    let pair = Some(rank ^ 1).filter(|&other| other < ranks);
    match pattern {
        0 => (Some((rank + 1) % ranks), Some((rank + ranks - 1) % ranks)),
        1 => (pair, pair),
        2 => (Some(rank), Some(rank)),
        _ if ranks == 1 => (None, None),
        _ => ((rank == 0).then_some(ranks - 1), (rank == ranks - 1).then_some(0)),
    }
}

pub(crate) fn variants(kind: Kind, ranks: u32) -> Vec<u32> {
    let mut variants = match kind {
        Kind::Broadcast => vec![0, 1 % ranks, ranks / 2, ranks - 1],
        Kind::SendReceive => vec![0, 1, 2, 3],
        Kind::AllReduce | Kind::ReduceScatter => (0..OPS).collect(),
        _ => vec![0],
    };
    variants.sort_unstable();
    variants.dedup();
    variants
}
