//! Calls to make plans for.
#![allow(dead_code, reason = "each test binary uses its part of it")]

mod tables;

pub(crate) use tables::{Lengths, Messages, Pattern, Placed, Placement};
use ubccl_core::blocks::Blocks;
use ubccl_core::plan::Plan;
use ubccl_core::{Algorithm, Choice, Collective, DataType, Kind, Rank, ReduceOp, Spec, UserOp};

fn first(_: usize, _: &mut [u8], _: &[u8], _: DataType) {}

/// An operation that does not commute.
pub(crate) static FIRST: UserOp = UserOp::new("first", false, first, 0);

/// How many operations are tried.
pub(crate) const OPS: u32 = 3;

/// One that nests and commutes, and one each that doesn't.
const OPERATIONS: [ReduceOp; OPS as usize] = [ReduceOp::Sum, ReduceOp::Avg, ReduceOp::User(&FIRST)];

/// One call of one algorithm.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) algorithm: &'static dyn Algorithm,
    pub(crate) kind: Kind,
    pub(crate) ranks: u32,
    /// The root; for send/receive who talks to whom.
    pub(crate) variant: u32,
    /// Which operation, if it reduces.
    pub(crate) operation: u32,
    pub(crate) count: u64,
    /// What tables are made by, for kinds that have them.
    pub(crate) lengths: Lengths,
    pub(crate) in_place: bool,
    pub(crate) dtype: DataType,
    pub(crate) choice: Choice,
}

impl Case {
    /// What every rank calls.
    pub(crate) fn calls(&self) -> Calls {
        Calls::new(self)
    }

    /// A rank's call; with empty tables, if it has any.
    fn call(&self, rank: Rank) -> Collective<'static> {
        let Case { count, dtype, ranks, variant: root, .. } = *self;
        let ops = OPERATIONS.iter().copied().filter(|&op| self.algorithm.supports_op(op).is_ok());
        let op = ops.cycle().nth(self.operation as usize).expect("everything that reduces does sums");
        let none = Blocks::packed(&[]);
        match self.kind {
            Kind::AllReduce => Collective::all_reduce(count, dtype, op),
            Kind::AllGather => Collective::all_gather(count, dtype),
            Kind::ReduceScatter => Collective::reduce_scatter(count, dtype, op),
            Kind::Broadcast => Collective::broadcast(count, dtype, root),
            Kind::Barrier => Collective::barrier(),
            Kind::SendReceive => {
                let (to, from) = talk(self.variant, ranks, rank);
                Collective::send_receive(count, dtype, to, from)
            }
            Kind::Reduce => Collective::reduce(count, dtype, op, root),
            Kind::Gather => Collective::gather(count, dtype, root),
            Kind::Scatter => Collective::scatter(count, dtype, root),
            Kind::AllToAll => Collective::all_to_all(count, dtype),
            Kind::GatherV => Collective::gather_v(count, dtype, root, None),
            Kind::ScatterV => Collective::scatter_v(count, dtype, root, None),
            Kind::AllGatherV => Collective::all_gather_v(dtype, none),
            Kind::ReduceScatterV => Collective::reduce_scatter_v(dtype, op, &[]),
            Kind::AllToAllV => Collective::all_to_all_v(dtype, none, none),
            Kind::Group => Collective::group(&[], &[]),
            other => panic!("the proofs do not know {}", other.name()),
        }
    }

    /// The root, or the rank that extreme tables are about.
    fn hot(&self) -> Rank {
        if self.kind.row().rooted { self.variant } else { self.ranks / 2 }
    }

    pub(crate) fn plan(&self, rank: Rank) -> Plan {
        self.algorithm.plan(&Spec::new(&self.call(rank), self.ranks, rank, self.in_place, self.choice))
    }

    pub(crate) fn text(&self) -> String {
        let place = if self.in_place { "in place" } else { "out of place" };
        let Choice { lanes, chunk_bytes, .. } = self.choice;
        let tables = match self.kind.row().tabled {
            true => format!(", {:?}", self.lengths),
            false => String::new(),
        };
        format!(
            "{} {} of {} ranks, {place}, {lanes} lanes, chunks of {chunk_bytes} B{tables}",
            self.algorithm.descriptor().name,
            self.call(0),
            self.ranks
        )
    }
}

/// The calls of all ranks with their tables.
pub(crate) struct Calls {
    case: Case,
    /// Of kinds that need it: what each rank has for each other, and the other way round.
    blocks: Vec<[Placed; 2]>,
    messages: Vec<Messages>,
}

impl Calls {
    fn new(case: &Case) -> Self {
        let (mut blocks, mut messages) = (Vec::new(), Vec::new());
        match case.kind {
            Kind::Group => messages = tables::group(&case.lengths, case.ranks, case.hot(), case.in_place),
            Kind::AllToAllV => blocks = pairs(case),
            kind if kind.row().tabled => blocks = one_for_each_rank(case),
            _ => {}
        }
        Calls { case: *case, blocks, messages }
    }

    /// A rank's call.
    pub(crate) fn get(&self, rank: Rank) -> Collective<'_> {
        let Case { kind, dtype, variant: root, .. } = self.case;
        let call = self.case.call(rank);
        let placed = |side: usize| self.blocks[rank as usize][side].blocks();
        let own = || self.blocks[root as usize][0].counts[rank as usize];
        let if_root = |side: usize| (rank == root).then(|| placed(side));
        match kind {
            Kind::GatherV => Collective::gather_v(own(), dtype, root, if_root(1)),
            Kind::ScatterV => Collective::scatter_v(own(), dtype, root, if_root(0)),
            Kind::AllGatherV => Collective::all_gather_v(dtype, placed(1)),
            Kind::ReduceScatterV => {
                let op = call.op().expect("it reduces");
                Collective::reduce_scatter_v(dtype, op, placed(0).counts)
            }
            Kind::AllToAllV => Collective::all_to_all_v(dtype, placed(0), placed(1)),
            Kind::Group => {
                let Messages { send, receive } = &self.messages[rank as usize];
                Collective::group(send, receive)
            }
            _ => call,
        }
    }
}

/// Tables of one length for each rank, which all ranks know, placed by each for itself.
fn one_for_each_rank(case: &Case) -> Vec<[Placed; 2]> {
    let (lengths, hot, ranks) = (&case.lengths, case.hot(), case.ranks);
    let mut random = lengths.random();
    let length = |rank, random: &mut _| match case.kind {
        Kind::ScatterV => lengths.length(hot, rank, hot, ranks, random),
        _ => lengths.length(rank, hot, hot, ranks, random),
    };
    let counts: Vec<u64> = (0..ranks).map(|rank| length(rank, &mut random)).collect();
    let mut place = |sends| lengths.place(counts.clone(), sends && !case.in_place, &mut random);
    (0..ranks).map(|_| [place(true), place(false)]).collect()
}

/// Tables of a matrix of lengths.
fn pairs(case: &Case) -> Vec<[Placed; 2]> {
    let (lengths, ranks) = (&case.lengths, case.ranks);
    let mut random = lengths.random();
    let row = |from| (0..ranks).map(|to| (from, to)).collect::<Vec<_>>();
    let mut matrix: Vec<Vec<u64>> = (0..ranks)
        .map(|from| {
            let length = |(from, to)| lengths.length(from, to, case.hot(), ranks, &mut random);
            row(from).into_iter().map(length).collect()
        })
        .collect();
    if case.in_place {
        // What goes to a rank is replaced by as much from it.
        (0..matrix.len()).for_each(|a| (0..a).for_each(|b| matrix[a][b] = matrix[b][a]));
    }
    (0..ranks as usize)
        .map(|rank| {
            let received = matrix.iter().map(|row| row[rank]).collect();
            let receive = lengths.place(received, false, &mut random);
            let send = match case.in_place {
                true => receive.clone(),
                false => lengths.place(matrix[rank].clone(), true, &mut random),
            };
            [send, receive]
        })
        .collect()
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
        Kind::SendReceive => vec![0, 1, 2, 3],
        _ if kind.row().rooted => vec![0, 1 % ranks, ranks / 2, ranks - 1],
        _ => vec![0],
    };
    variants.sort_unstable();
    variants.dedup();
    variants
}
