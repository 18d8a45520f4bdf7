//! Operations that do not allow every plan.

use super::*;
use crate::user_op::UserOp;

fn first(_: usize, _: &mut [u8], _: &[u8], _: DataType) {}

static FIRST: UserOp = UserOp::new("first", false, first, 0);
static ANY: UserOp = UserOp::new("any", true, first, 0);

/// Everybody sends to everybody and reduces in rank order; or, nested, in two steps: the ranks up to its own first.
fn mesh(op: ReduceOp, ranks: u32, nested: bool) -> Result<Report, Violation> {
    let call = move |_| Collective::all_reduce(COUNT, DataType::F32, op);
    check(call, ranks, false, Association::Flat, |me, plan| {
        plan.lane(4);
        plan.straight();
        let others = Index::on_circle(me as i32 + 1, ranks);
        plan.send(input(), Peers::Run { first: others, stride: 1, count: ranks - 1 });
        if !nested || me == 0 || me + 1 == ranks {
            plan.receive_reduce(in_order(ranks), input(), output());
            return;
        }
        let early = plan.receive_reduce(in_order(me + 1), input(), output());
        let late = Peers::Run { first: rank(me), stride: 1, count: ranks - me };
        let step = plan.receive_reduce(late, output(), output());
        plan.after(step, early);
    })
}

#[test]
fn an_average_is_one_reduction_of_plain_contributions() {
    assert!(mesh(ReduceOp::Avg, 4, false).is_ok());
    let nested = |v: &Violation| matches!(v, Violation::Nested { op: "avg", .. });
    refused(mesh(ReduceOp::Avg, 4, true), nested, "avg needs all contributions in one reduction");
    refused(mesh(ReduceOp::Avg, 130, true), nested, "combines what was combined before");
    let order = |v: &Violation| matches!(v, Violation::Outcome { wrong: Wrong::Association, .. });
    refused(mesh(ReduceOp::Sum, 4, true), order, "another order than the plan declares");
}

/// A chain of ranks that hands a partial result on; the last has the result, and sends it back.
fn chain_of_sums(op: ReduceOp, association: Association) -> Result<Report, Violation> {
    let call = move |_| Collective::all_reduce(COUNT, DataType::F32, op);
    check(call, 2, false, association, |me, plan| {
        plan.lane(4);
        plan.straight();
        let (mine, other) = (half(input(), me as i32), half(input(), 1 - me as i32));
        plan.send(other, Peers::one(rank(1 - me)));
        let result = half(output(), me as i32);
        let sources = Peers::List(vec![rank(1 - me), rank(me)]);
        let sum = plan.receive_reduce(sources, mine, result.clone());
        let give = plan.send(result, Peers::one(rank(1 - me)));
        plan.after(give, sum);
        plan.receive(half(output(), 1 - me as i32), rank(1 - me));
    })
}

#[test]
fn what_does_not_commute_is_combined_in_rank_order_only() {
    assert!(mesh(ReduceOp::User(&FIRST), 5, false).is_ok());
    // A ring of two: each block is the other rank's element and then the own.
    assert!(chain_of_sums(ReduceOp::User(&ANY), Association::Ring).is_ok());
    assert!(chain_of_sums(ReduceOp::Avg, Association::Ring).is_ok(), "of two ranks, one reduction is all");
    let form = |v: &Violation| matches!(v, Violation::Malformed { step: None, .. });
    refused(chain_of_sums(ReduceOp::User(&FIRST), Association::Ring), form, "does not commute");
    let order = |v: &Violation| matches!(v, Violation::Outcome { wrong: Wrong::Association, .. });
    refused(chain_of_sums(ReduceOp::User(&FIRST), Association::Flat), order, "another order");
}

/// Everybody sends to everybody; who reduces in which order is given.
fn all_by_orders(orders: [&'static [i32]; 3]) -> Result<Report, Violation> {
    let call = move |_| Collective::all_reduce(COUNT, DataType::F32, ReduceOp::Sum);
    check(call, 3, false, Association::Own, move |me, plan| {
        plan.lane(4);
        plan.straight();
        let others = Index::on_circle(me as i32 + 1, 3);
        plan.send(input(), Peers::Run { first: others, stride: 1, count: 2 });
        let sources = orders[me as usize].iter().map(|&rank| Index::fixed(rank)).collect();
        plan.receive_reduce(Peers::List(sources), input(), output());
    })
}

#[test]
fn an_order_of_its_own_is_the_same_on_all_ranks() {
    assert!(all_by_orders([&[2, 0, 1]; 3]).is_ok());
    let order = |v: &Violation| matches!(v, Violation::Outcome { rank: 1, wrong: Wrong::Association, .. });
    refused(all_by_orders([&[2, 0, 1], &[0, 1, 2], &[2, 0, 1]]), order, "another order");
    let missing = |v: &Violation| matches!(v, Violation::Outcome { rank: 0, .. });
    let partial = check(
        move |_| Collective::all_reduce(COUNT, DataType::F32, ReduceOp::Sum),
        2,
        false,
        Association::Own,
        |_, plan| {
            plan.lane(1);
            plan.straight();
            plan.copy(input(), output());
        },
    );
    refused(partial, missing, "contribution");
}
