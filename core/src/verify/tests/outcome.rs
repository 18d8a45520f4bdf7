//! Results that are not what was asked.

use super::*;

#[test]
fn each_contribution_is_in_the_result_exactly_once() {
    let sums = |sources: fn(Rank) -> Peers| one_shot(3, Association::Flat, sources);
    assert!(sums(|_| in_order(3)).is_ok());
    let others = |me: Rank| Peers::Run { first: Index::on_circle(me as i32 + 1, 3), stride: 1, count: 2 };
    let outcome = |wanted: Wrong| move |v: &Violation| matches!(v, Violation::Outcome { wrong, .. } if *wrong == wanted);
    refused(sums(others), outcome(Wrong::Missing(0)), "lacks the contribution of rank 0");
    let many = one_shot(130, Association::Flat, |me| Peers::Run {
        first: Index::on_circle(me as i32 + 1, 130),
        stride: 1,
        count: 129,
    });
    refused(many, outcome(Wrong::Contributors), "exactly once");
    assert!(one_shot(130, Association::Flat, |_| in_order(130)).is_ok());
    let call = |_| Collective::all_reduce(COUNT, DataType::F32, ReduceOp::Sum);
    let twice = check(call, 2, false, Association::Flat, |me, plan| {
        plan.lane(4);
        plan.straight();
        plan.send(input(), Peers::List(vec![rank(1 - me), rank(1 - me)]));
        plan.receive_reduce(Peers::List(vec![rank(0), rank(1), rank(1 - me)]), input(), output());
    });
    refused(twice, outcome(Wrong::Doubled), "twice");
}

#[test]
fn the_order_of_combination_is_the_declared_one() {
    let association = |v: &Violation| matches!(v, Violation::Outcome { wrong: Wrong::Association, .. });
    let from_me = |me: Rank| Peers::Run { first: Index::on_circle(me as i32, 3), stride: 1, count: 3 };
    refused(one_shot(3, Association::Flat, from_me), association, "rank 1 ends with a wrong output");
    refused(one_shot(3, Association::Ring, |_| in_order(3)), association, "another order");
    let none = one_shot(3, Association::None, |_| in_order(3));
    refused(none, |v| matches!(v, Violation::Malformed { .. }), "declares no order");
}

#[test]
fn a_tree_is_reduced_by_neighbours_from_the_root_on() {
    // What the root, rank 1, does to the sum: one reduction after the other, each of its sum so far and these.
    let reduce = |radix, steps: &[&[Rank]]| {
        let call = |_| Collective::reduce(COUNT, DataType::F32, ReduceOp::Sum, 1);
        check(call, 3, false, Association::Tree { radix }, |me, plan| {
            plan.lane(4);
            plan.straight();
            if me != 1 {
                plan.send(input(), Peers::one(rank(1)));
                return;
            }
            let mut own = input();
            let mut before = None;
            for step in steps {
                let sources = Peers::List(step.iter().map(|&source| rank(source)).collect());
                let sum = plan.receive_reduce(sources, own, output());
                before.into_iter().for_each(|before| plan.after(sum, before));
                (own, before) = (output(), Some(sum));
            }
        })
    };
    let association = |v: &Violation| matches!(v, Violation::Outcome { wrong: Wrong::Association, .. });
    assert!(reduce(2, &[&[1, 2], &[1, 0]]).is_ok());
    assert!(reduce(3, &[&[1, 2, 0]]).is_ok());
    assert!(reduce(4, &[&[1, 2, 0]]).is_ok(), "a group that is not full");
    refused(reduce(2, &[&[1, 0], &[1, 2]]), association, "another order");
    refused(reduce(2, &[&[1, 2, 0]]), association, "another order");
    refused(reduce(3, &[&[1, 2], &[1, 0]]), association, "another order");
    refused(reduce(3, &[&[0, 1, 2]]), association, "another order");
}

#[test]
fn every_element_ends_in_its_place() {
    let broadcast = |fill: fn(&mut PlanBuilder)| {
        let call = |_| Collective::broadcast(COUNT, DataType::F32, 0);
        check(call, 2, false, Association::None, |me, plan| {
            plan.lane(4);
            plan.straight();
            if me == 0 {
                plan.send(half(input(), 0), Peers::one(rank(1)));
                plan.send(half(input(), 1), Peers::one(rank(1)));
                plan.copy(input(), output());
            } else {
                fill(plan);
            }
        })
    };
    let outcome = |wanted: Wrong| move |v: &Violation| matches!(v, Violation::Outcome { rank: 1, wrong, .. } if *wrong == wanted);
    let swapped = broadcast(|plan| {
        plan.receive(half(output(), 1), rank(0));
        plan.receive(half(output(), 0), rank(0));
    });
    refused(swapped, outcome(Wrong::Displaced { wanted: 0, found: 4 }), "should be element 0");
    let lost = broadcast(|plan| {
        plan.scratch(1, half(output(), 0));
        plan.receive(half(output(), 0), rank(0));
        let slot = Slice::Scratch { slot: rank(0), shape: half(output(), 0), part: Vec::new() };
        plan.receive(slot, rank(0));
    });
    refused(lost, outcome(Wrong::Unwritten), "was never written");
}

#[test]
fn nobody_elses_contribution_is_in_a_block() {
    let call = |_| Collective::all_gather(COUNT, DataType::F32);
    let gather = |own_block: fn(u32) -> u32, both: bool| {
        check(call, 2, false, Association::None, |me, plan| {
            let block = |index: u32| half(output(), index as i32);
            plan.lane(4);
            plan.straight();
            plan.send(input(), Peers::one(rank(1 - me)));
            if both {
                plan.receive_reduce(Peers::List(vec![rank(0), rank(1)]), input(), block(1 - me));
            } else {
                plan.receive(block(1 - own_block(me)), rank(1 - me));
            }
            plan.copy(input(), block(own_block(me)));
        })
    };
    assert!(gather(|me| me, false).is_ok());
    let outcome = |wanted: Wrong| move |v: &Violation| matches!(v, Violation::Outcome { wrong, .. } if *wrong == wanted);
    refused(gather(|me| 1 - me, false), outcome(Wrong::Missing(0)), "element 0 lacks");
    refused(gather(|me| me, true), outcome(Wrong::Stranger(0)), "rank 0, which does not belong");
}

#[test]
fn a_barrier_lets_nobody_go_before_everybody_has_come() {
    let ring = |turns: u32, edge: bool| {
        check(
            |_| Collective::barrier(),
            5,
            false,
            Association::None,
            |me, plan| {
                plan.lane(8);
                plan.repeat(Trips::Fixed(turns), Trips::ONCE);
                let give = plan.send(Slice::Empty, Peers::one(rank((me + 1) % 5)));
                let take = plan.receive(Slice::Empty, rank((me + 4) % 5));
                if edge {
                    plan.after_turn(give, take, Index::OUTER.plus(-1), Index::INNER);
                }
            },
        )
    };
    assert!(ring(4, true).is_ok());
    refused(
        ring(3, true),
        |v| matches!(v, Violation::Leak { rank: 0, missing: 1 }),
        "before rank 1 has come",
    );
    refused(ring(4, false), |v| matches!(v, Violation::Leak { .. }), "may leave the barrier");
    assert!(check(|_| Collective::barrier(), 1, false, Association::None, |_, _| {}).is_ok());
}

#[test]
fn a_report_counts_steps_messages_elements_and_the_longest_chain() {
    let report = chain(4, |plan| {
        let take = plan.receive(output(), rank(0));
        let give = plan.send(output(), Peers::one(rank(2)));
        plan.after(give, take);
    });
    assert_eq!(report, Ok(Report { steps: 5, messages: 2, elements: 2 * COUNT, busiest: COUNT, depth: 2 }));
}
