//! Point 6: reductions fold in list order, accumulate wide, round once; `into` may be `own`.

use crate::cases::Case;
use crate::support::memory::Random;
use crate::support::oracle::{bf16_bits, bf16_value, elements, reduce};
use crate::support::rank::TestRank;
use crate::support::work::{key, list, send};
use std::rc::Rc;
use ubccl_core::endpoint::{Clock, Post, Span};
use ubccl_core::plan::PeerRun;
use ubccl_core::symbolic::{Piece, Value, reduce_pieces};
use ubccl_core::{DataType, Rank, ReduceOp};

pub const CASES: &[Case] = &[
    Case::new("c6_the_order_of_the_list_is_the_order_of_the_sum", &[4], |r| Box::pin(orders(r))),
    Case::new("c6_sums_of_bf16_round_once", &[3], |r| Box::pin(rounding(r))),
    Case::new("c6_into_may_be_own_or_apart", &[2, 3], |r| Box::pin(in_place(r))),
    Case::new("c6_every_type_and_operation_gives_the_bits_of_the_oracle", &[3, 5], |r| Box::pin(types(r))),
    Case::new("c6_one_source_or_eight", &[1, 2, 8], |r| Box::pin(source_counts(r))),
    Case::new("c6_sources_may_come_in_any_order_of_time", &[4], |r| Box::pin(late_sources(r))),
    Case::new("c6_every_size_is_reduced_whole", &[3], |r| Box::pin(sizes(r))),
    Case::on(Clock::Virtual, "c6_phantoms_tell_who_was_combined_in_which_order", &[4], |r| {
        Box::pin(phantoms(r))
    }),
];

/// What rank `rank` brings to reduction `number`.
fn contribution(number: u64, rank: Rank, dtype: DataType, count: usize) -> Vec<u8> {
    elements(dtype, &mut Random(number << 16 | u64::from(rank)), count)
}

/// One reduction at rank 0 over a list, everybody in it sending; checked against the oracle.
struct Reduction {
    number: u64,
    sources: PeerRun,
    dtype: DataType,
    op: ReduceOp,
    count: usize,
    in_place: bool,
}

impl Reduction {
    async fn check(&self, rank: &TestRank) {
        let brings = |r: Rank| contribution(self.number, r, self.dtype, self.count);
        let own = rank.area_of(&brings(rank.me));
        if rank.me != 0 {
            if self.sources.iter().any(|source| source == rank.me) {
                let token = rank.post(&key(1, 0), &send(own.all(), 0));
                rank.wait(&[token]).await;
            }
            return;
        }
        let result = if self.in_place { own.clone() } else { rank.area(own.len()) };
        let token = rank.post(&key(1, 0), &self.post(own.all(), result.all()));
        rank.wait(&[token]).await;
        let order: Vec<_> = self.sources.iter().collect();
        let expected = reduce(self.dtype, self.op, &order.iter().map(|&r| brings(r)).collect::<Vec<_>>());
        let what = format!(
            "{} {} of {} over {order:?}, in place: {}",
            self.dtype.name(),
            self.op.name(),
            self.count,
            self.in_place
        );
        result.assert_holds(0, &expected, &what);
        if !self.in_place {
            own.assert_holds(0, &brings(0), "own contribution");
        }
    }

    fn post(&self, own: Span, into: Span) -> Post {
        let Reduction { sources, dtype, op, .. } = *self;
        Post::ReceiveReduce { sources, own, into, dtype, op }
    }
}

/// All orders of four, own among them at every place, in types where order shows.
async fn orders(rank: Rc<TestRank>) {
    let lists: Vec<[Rank; 4]> = permutations();
    let data: Vec<_> = (0..4).map(|r| contribution(0, r, DataType::F32, 500)).collect();
    let of =
        |order: &[Rank; 4]| reduce(DataType::F32, ReduceOp::Sum, &order.map(|r| data[r as usize].clone()));
    let distinct: std::collections::BTreeSet<_> = lists.iter().map(of).collect();
    assert_eq!(distinct.len(), 12, "a sum of four is the same only when its first two are swapped");
    for (number, order) in (0..).zip(&lists) {
        for dtype in [DataType::F32, DataType::BF16] {
            let (sources, op, in_place) = (list(order), ReduceOp::Sum, number % 2 == 0);
            Reduction { number, sources, dtype, op, count: 500, in_place }.check(&rank).await;
        }
    }
}

fn permutations() -> Vec<[Rank; 4]> {
    let digits = |code: u32| [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6 & 3];
    let is_permutation = |order: &[Rank; 4]| order.iter().fold(0, |seen, r| seen | 1 << r) == 15;
    (0..256).map(digits).filter(is_permutation).collect()
}

/// Triples (a, b, c) of bf16 chosen so that rounding after a + b, and every other order, gives another result.
async fn rounding(rank: Rc<TestRank>) {
    let triples = telling_triples(400);
    let column = |r: usize| triples.iter().flat_map(|t| t[r].to_le_bytes()).collect::<Vec<u8>>();
    let own = rank.area_of(&column(rank.me as usize));
    if rank.me != 1 {
        let token = rank.post(&key(1, 0), &send(own.all(), 1));
        return rank.wait(&[token]).await;
    }
    let post = Post::ReceiveReduce {
        sources: list(&[0, 1, 2]),
        own: own.all(),
        into: own.all(),
        dtype: DataType::BF16,
        op: ReduceOp::Sum,
    };
    let token = rank.post(&key(1, 0), &post);
    rank.wait(&[token]).await;
    let once = |t: &[u16; 3]| bf16_bits(bf16_value(t[0]) + bf16_value(t[1]) + bf16_value(t[2]));
    let expected: Vec<u8> = triples.iter().flat_map(|t| once(t).to_le_bytes()).collect();
    own.assert_holds(0, &expected, "sums that must be rounded once");
}

fn telling_triples(count: usize) -> Vec<[u16; 3]> {
    let mut random = Random(99);
    let mut triples = Vec::new();
    while triples.len() < count {
        let data = elements(DataType::BF16, &mut random, 3);
        let triple = [0, 2, 4].map(|at| u16::from_le_bytes([data[at], data[at + 1]]));
        let [a, b, c] = triple.map(bf16_value);
        let twice = bf16_bits(bf16_value(bf16_bits(a + b)) + c);
        if twice != bf16_bits(a + b + c) {
            triples.push(triple);
        }
    }
    triples
}

async fn in_place(rank: Rc<TestRank>) {
    let n = rank.ranks;
    for (number, count) in (0..).zip([1, 7, 100, 5000, 300_000]) {
        for in_place in [true, false] {
            let (sources, dtype) = (PeerRun::circle(1, n, n), DataType::BF16);
            Reduction { number, sources, dtype, op: ReduceOp::Sum, count, in_place }.check(&rank).await;
        }
    }
}

async fn types(rank: Rc<TestRank>) {
    let n = rank.ranks;
    let mut number = 0;
    for row in DataType::TABLE {
        for &(op, _) in ReduceOp::TABLE.iter().filter(|(op, _)| op.supports(row.dtype).is_ok()) {
            for count in [1, 33, 3001] {
                number += 1;
                let sources = PeerRun::circle(number as Rank % n, n, n);
                let in_place = number % 2 == 0;
                Reduction { number, sources, dtype: row.dtype, op, count, in_place }.check(&rank).await;
            }
        }
    }
}

/// Own alone (no message at all), one peer alone (own is not in it), everybody but own, everybody.
async fn source_counts(rank: Rc<TestRank>) {
    let n = rank.ranks;
    let mut lists = vec![PeerRun::one(0), PeerRun::circle(0, n, n)];
    if n > 1 {
        lists.extend([PeerRun::one(n - 1), PeerRun::circle(1, n - 1, n)]);
    }
    for (number, sources) in (0..).zip(lists) {
        for count in [9, 40_000] {
            let dtype = DataType::F32;
            Reduction { number, sources, dtype, op: ReduceOp::Sum, count, in_place: false }
                .check(&rank)
                .await;
        }
    }
}

/// One source at a time is late; the reduction waits for it and still keeps the order.
async fn late_sources(rank: Rc<TestRank>) {
    for late in 1..4 {
        for count in [4, 200_000] {
            if rank.me == late {
                rank.settle().await;
            }
            let (sources, number) = (list(&[3, 0, 2, 1]), u64::from(late));
            let (dtype, op) = (DataType::F32, ReduceOp::Sum);
            Reduction { number, sources, dtype, op, count, in_place: true }.check(&rank).await;
        }
    }
}

/// Counts around words, lines, pages and the bites in which kernels run; 0 elements are reduced as well.
async fn sizes(rank: Rc<TestRank>) {
    let counts = [0, 1, 3, 12, 13, 31, 32, 33, 2047, 2048, 2049, 32_767, 32_769, 131_071, 131_073, 700_001];
    for (number, count) in (0..).zip(counts) {
        let (sources, dtype) = (list(&[2, 0, 1]), DataType::BF16);
        let in_place = number % 2 == 0;
        Reduction { number, sources, dtype, op: ReduceOp::Sum, count, in_place }.check(&rank).await;
    }
}

/// In virtual time memory may hold who contributed instead of bytes: it moves, and combines in order.
async fn phantoms(rank: Rc<TestRank>) {
    let (unit, len) = (4, 1000);
    let of = |r: Rank| Piece { len, value: Value::contribution(r, 4, 0) };
    let own = rank.phantom(unit, vec![of(rank.me)]);
    let result = rank.phantom(unit, vec![Piece { len, value: Value::UNWRITTEN }]);
    let whole = |region| Span { region, offset: 0, len: len * u64::from(unit) };
    if rank.me != 2 {
        let token = rank.post(&key(1, 0), &send(whole(own), 2));
        return rank.wait(&[token]).await;
    }
    let order = [3, 0, 2, 1];
    let post = Post::ReceiveReduce {
        sources: list(&order),
        own: whole(own),
        into: whole(result),
        dtype: DataType::F32,
        op: ReduceOp::Sum,
    };
    let token = rank.post(&key(1, 0), &post);
    rank.wait(&[token]).await;
    let pieces = order.map(|r| [of(r)]);
    let mut expected = Vec::new();
    reduce_pieces(&pieces.each_ref().map(|piece| piece.as_slice()), 4, &mut expected);
    let found = rank.with(|endpoint| endpoint.phantom(result)).expect("a phantom region can be read");
    assert_eq!(found, expected);
}
