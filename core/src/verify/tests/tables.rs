//! Plans whose sizes and peers come from tables: what a table says must come about, and nothing beside it.

use super::*;
use crate::blocks::{Blocks, Message};
use crate::group::GroupSide;
use crate::signature::Signature;
use crate::verify::mutate::Random;

const RANKS: u32 = 4;

/// One rank's tables.
#[derive(Clone, Default)]
struct Lengths {
    counts: Vec<u64>,
    starts: Vec<u64>,
}

impl Lengths {
    /// Blocks of these lengths, in random order and with gaps.
    fn scattered(counts: Vec<u64>, random: &mut Random) -> Self {
        let mut order: Vec<usize> = (0..counts.len()).collect();
        (1..order.len()).rev().for_each(|k| order.swap(k, random.below(k + 1)));
        let (mut starts, mut next) = (vec![0; counts.len()], 0);
        for rank in order {
            next += random.below(3) as u64;
            starts[rank] = next;
            next += counts[rank];
        }
        Lengths { counts, starts }
    }

    fn blocks(&self) -> Blocks<'_> {
        Blocks::at(&self.counts, &self.starts)
    }
}

/// All ranks' send and receive tables for a random matrix of counts, many of them 0.
fn matrix(random: &mut Random) -> Vec<[Lengths; 2]> {
    let mut count = |_| if random.below(3) == 0 { 0 } else { random.below(9) as u64 };
    let counts: Vec<Vec<u64>> = (0..RANKS).map(|_| (0..RANKS).map(&mut count).collect()).collect();
    let column = |rank: usize| counts.iter().map(|row| row[rank]).collect();
    (0..RANKS as usize)
        .map(|rank| {
            let send = Lengths::scattered(counts[rank].clone(), random);
            [send, Lengths::scattered(column(rank), random)]
        })
        .collect()
}

/// Everybody exchanges blocks with everybody, one after the other.
fn exchange_blocks(spec: &Spec, received: impl Fn(Index) -> Slice) -> Plan {
    let mut plan = PlanBuilder::new(spec, "by hand", Association::None);
    let circle = |by: i32| Index::on_circle(spec.rank as i32 + by, RANKS);
    plan.lane(4);
    plan.straight();
    plan.copy(input().block(Side::Send, circle(0)), output().block(Side::Receive, circle(0)));
    plan.repeat(Trips::Fixed(RANKS - 1), Trips::ONCE);
    let (to, from) = (circle(1).per_outer(1), circle(-1).per_outer(-1));
    plan.send(input().block(Side::Send, to), Peers::one(to));
    plan.receive(received(from), from);
    plan.finish()
}

fn all_to_all_v(tables: &[[Lengths; 2]], received: impl Fn(Index) -> Slice) -> Result<Report, Violation> {
    let calls = |rank: Rank| {
        let [send, receive] = &tables[rank as usize];
        Collective::all_to_all_v(DataType::F32, send.blocks(), receive.blocks())
    };
    let plans =
        |rank| exchange_blocks(&Spec::new(&calls(rank), RANKS, rank, false, Choice::default()), &received);
    verify_calls(&plans, &calls, RANKS)
}

fn block(index: Index) -> Slice {
    output().block(Side::Receive, index).into()
}

#[test]
fn random_tables_are_proved_and_wrong_ones_refused() {
    let mut random = Random(7);
    for _ in 0..50 {
        let mut tables = matrix(&mut random);
        let report = all_to_all_v(&tables, block).unwrap();
        assert_eq!(report.messages, u64::from(RANKS * (RANKS - 1)));
        // Rank 2 expects an element more from rank 1 than comes, at the end of its buffer.
        let [_, receive] = &mut tables[2];
        receive.starts[1] = receive.blocks().extent();
        receive.counts[1] += 1;
        refused(all_to_all_v(&tables, block), |v| matches!(v, Violation::Lengths { .. }), "sends");
    }
}

#[test]
fn a_block_in_the_wrong_place_is_seen() {
    let same = || Lengths { counts: vec![2; 4], starts: vec![0, 3, 6, 9] };
    let tables: Vec<_> = (0..RANKS).map(|_| [same(), same()]).collect();
    assert!(all_to_all_v(&tables, block).is_ok());
    let next = |index: Index| block(Index { modulo: RANKS, ..index.plus(1) });
    refused(all_to_all_v(&tables, next), |_| true, "");
    // All of the buffer but its first element, cut in 3: 3 elements each, and the table says 2.
    let beyond = |index: Index| Slice::from(output().even(4, index));
    refused(all_to_all_v(&tables, beyond), |v| matches!(v, Violation::Lengths { .. }), "sends 2");
}

#[test]
fn what_lies_between_blocks_must_stay() {
    let tables = Lengths { counts: vec![2, 2], starts: vec![0, 3] };
    let run = |spoil: bool| {
        let call = |_| Collective::all_gather_v(DataType::F32, tables.blocks());
        let plans = |me: Rank| {
            let spec = Spec::new(&call(me), 2, me, false, Choice::default());
            let mut plan = PlanBuilder::new(&spec, "by hand", Association::None);
            plan.lane(4);
            plan.straight();
            let own = plan.copy(input(), output().block(Side::Receive, rank(me)));
            plan.send(input(), Peers::one(rank(1 - me)));
            plan.receive(output().block(Side::Receive, rank(1 - me)), rank(1 - me));
            if spoil && me == 1 {
                let third = |shape: Shape| shape.chunk(1, Index::fixed(2));
                let copy = plan.copy(input().chunk(1, rank(0)), third(output()));
                plan.after(copy, own);
            }
            plan.finish()
        };
        verify_calls(&plans, &call, 2)
    };
    assert!(run(false).is_ok());
    let gap = |v: &Violation| matches!(v, Violation::Outcome { rank: 1, element: 2, wrong: Wrong::Gap });
    refused(run(true), gap, "between blocks");
}

/// A random group of a few ranks: what each sends and receives, in the order that ends.
fn random_group(ranks: u32, most: usize, random: &mut Random) -> Vec<[Vec<Message>; 2]> {
    let mut sides: Vec<[GroupSide; 2]> = (0..ranks).map(|_| Default::default()).collect();
    let mut ends = vec![[0; 2]; ranks as usize];
    for from in 0..ranks {
        for to in (0..ranks).filter(|&to| to != from) {
            for number in 0..random.below(most) {
                let len = if random.below(4) == 0 { 0 } else { random.below(6) as u64 };
                let signature = Signature(number as u128);
                for (rank, peer, side) in [(from, to, 0), (to, from, 1)] {
                    let start = &mut ends[rank as usize][side];
                    sides[rank as usize][side].push(Message { peer, start: *start, len, signature });
                    *start += len;
                }
            }
        }
    }
    let sorted = |(rank, [mut send, mut receive]): (usize, [GroupSide; 2])| {
        let rank = rank as Rank;
        [send.sort(Side::Send, rank, ranks).to_vec(), receive.sort(Side::Receive, rank, ranks).to_vec()]
    };
    sides.into_iter().enumerate().map(sorted).collect()
}

#[test]
fn random_groups_in_their_order_are_proved_with_any_window() {
    let mut random = Random(11);
    for round in 0..40 {
        let ranks = 1 + random.below(7) as u32;
        let tables = random_group(ranks, if round % 8 == 0 { 90 } else { 5 }, &mut random);
        let count: usize = tables.iter().map(|[send, _]| send.len()).sum();
        for window in [1, 2, 64] {
            assert_eq!(group(&tables, window).unwrap().messages, count as u64, "window {window}");
        }
    }
}

/// The order is what makes them end: with every rank's peers in an order of its own they do not, in a narrow window.
#[test]
fn groups_in_another_order_may_get_stuck() {
    let mut random = Random(3);
    let stuck = (0..20).filter(|_| {
        let mut tables = random_group(5, 4, &mut random);
        for side in tables.iter_mut().flatten() {
            let order: Vec<u64> = (0..5).map(|_| random.bits()).collect();
            side.sort_by_key(|message| order[message.peer as usize]);
        }
        group(&tables, 1).is_err()
    });
    let stuck = stuck.count();
    assert!(stuck > 10, "{stuck} of 20 get stuck");
}

fn message(peer: Rank, start: u64, len: u64) -> Message {
    Message { peer, start, len, signature: Signature::default() }
}

/// Sends in one lane, receives in another, as the tables list them.
fn group(tables: &[[Vec<Message>; 2]], window: u32) -> Result<Report, Violation> {
    let calls = |rank: Rank| {
        let [send, receive] = &tables[rank as usize];
        Collective::group(send, receive)
    };
    let ranks = tables.len() as u32;
    let plans = |rank: Rank| {
        let spec = Spec::new(&calls(rank), ranks, rank, false, Choice::default());
        let mut plan = PlanBuilder::new(&spec, "by hand", Association::None);
        plan.lane(window);
        plan.repeat(Trips::ONCE, Trips::Entries(Side::Send));
        plan.send(input().block(Side::Send, Index::INNER), Peers::one(Index::INNER.peer_of(Side::Send)));
        plan.lane(window);
        plan.repeat(Trips::ONCE, Trips::Entries(Side::Receive));
        plan.receive(output().block(Side::Receive, Index::INNER), Index::INNER.peer_of(Side::Receive));
        plan.finish()
    };
    verify_calls(&plans, &calls, ranks)
}

#[test]
fn groups_of_messages_are_proved_with_their_tables() {
    // 0 sends twice to 1 and once to 2; 1 sends to 0; 2 nothing.
    let mut tables = [
        [vec![message(1, 0, 4), message(2, 4, 1), message(1, 9, 2)], vec![message(1, 3, 3)]],
        [vec![message(0, 0, 3)], vec![message(0, 5, 4), message(0, 1, 2)]],
        [vec![], vec![message(0, 0, 1)]],
    ];
    let report = group(&tables, 4).unwrap();
    assert_eq!((report.messages, report.elements), (4, 10));
    assert!(group(&tables, 1).is_ok());
    tables[1][1].swap(0, 1);
    refused(group(&tables, 4), |v| matches!(v, Violation::Lengths { .. }), "sends 4 elements");
    tables[1][1].pop();
    refused(group(&tables, 4), |_| true, "");
}

#[test]
fn a_group_in_an_order_that_gets_stuck_is_refused() {
    // With one message at a time, each rank first sends to whom receives from it last.
    let to = |a: Rank, b: Rank| vec![message(a, 0, 1), message(b, 1, 1)];
    let around = [[to(1, 2), to(1, 2)], [to(2, 0), to(2, 0)], [to(0, 1), to(0, 1)]];
    refused(group(&around, 1), |v| matches!(v, Violation::Deadlock { .. }), "");
    assert!(group(&around, 2).is_ok());
}
