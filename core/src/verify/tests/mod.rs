//! Faulty plans, each refused by exactly the check that it is for; and plans beside them that are right.

use super::*;
use crate::algorithm::{Choice, Spec};
use crate::collective::Collective;
use crate::dtype::DataType;
use crate::op::ReduceOp;
use crate::plan::*;

mod form;
mod hazards;
mod operations;
mod outcome;
mod parts;
mod progress;
mod tables;

const COUNT: u64 = 8;

fn input() -> Shape {
    Shape::whole(Buffer::Input)
}

fn output() -> Shape {
    Shape::whole(Buffer::Output)
}

fn rank(rank: u32) -> Index {
    Index::fixed(rank as i32)
}

fn half(shape: Shape, which: i32) -> Shape {
    shape.even(2, Index::fixed(which))
}

fn scratch(slot: i32) -> Slice {
    Slice::Scratch { slot: Index::fixed(slot), shape: output(), part: Vec::new() }
}

fn check(
    call: impl Fn(Rank) -> Collective<'static>,
    ranks: u32,
    in_place: bool,
    association: Association,
    fill: impl Fn(Rank, &mut PlanBuilder),
) -> Result<Report, Violation> {
    let plans = |rank| {
        let spec = Spec::new(&call(rank), ranks, rank, in_place, Choice::default());
        let mut plan = PlanBuilder::new(&spec, "by hand", association);
        fill(rank, &mut plan);
        plan.finish()
    };
    verify(&plans, ranks, COUNT)
}

/// Rank 0 sends to rank 1.
fn one_way(fill: impl Fn(Rank, &mut PlanBuilder)) -> Result<Report, Violation> {
    let call = |rank| {
        let (to, from) = if rank == 0 { (Some(1), None) } else { (None, Some(0)) };
        Collective::send_receive(COUNT, DataType::F32, to, from)
    };
    check(call, 2, false, Association::None, fill)
}

/// Both ranks send to each other; each lane has this window.
fn exchange(window: u32, fill: impl Fn(u32, &mut PlanBuilder)) -> Result<Report, Violation> {
    let call = |rank| Collective::send_receive(COUNT, DataType::F32, Some(1 - rank), Some(1 - rank));
    check(call, 2, false, Association::None, |rank, plan| {
        plan.lane(window);
        plan.straight();
        fill(1 - rank, plan);
    })
}

/// Broadcast from 0 over a chain; `fill` makes the middle rank's plan.
fn chain(window: u32, fill: impl Fn(&mut PlanBuilder)) -> Result<Report, Violation> {
    let call = |_| Collective::broadcast(COUNT, DataType::F32, 0);
    check(call, 3, false, Association::None, |me, plan| {
        plan.lane(window);
        plan.straight();
        match me {
            0 => {
                plan.send(input(), Peers::one(rank(1)));
                plan.copy(input(), output());
            }
            1 => fill(plan),
            _ => {
                plan.receive(output(), rank(1));
            }
        }
    })
}

/// One-shot all-reduce with these sources.
fn one_shot(
    ranks: u32,
    association: Association,
    sources: impl Fn(Rank) -> Peers,
) -> Result<Report, Violation> {
    let call = |_| Collective::all_reduce(COUNT, DataType::F32, ReduceOp::Sum);
    check(call, ranks, false, association, |me, plan| {
        plan.lane(4);
        plan.straight();
        let first = Index::on_circle(me as i32 + 1, ranks);
        plan.send(input(), Peers::Run { first, stride: 1, count: ranks - 1 });
        plan.receive_reduce(sources(me), input(), output());
    })
}

fn in_order(ranks: u32) -> Peers {
    Peers::Run { first: Index::fixed(0), stride: 1, count: ranks }
}

#[track_caller]
fn refused(result: Result<Report, Violation>, wanted: impl Fn(&Violation) -> bool, text: &str) {
    let violation = result.expect_err("the plans are faulty");
    assert!(wanted(&violation), "{violation:?}");
    let told = violation.to_string();
    assert!(told.contains(text), "'{told}' does not say '{text}'");
}
