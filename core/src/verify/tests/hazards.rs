//! Accesses that nothing orders.

use super::*;

#[test]
fn a_step_may_write_the_slice_that_it_reads_but_not_one_that_overlaps_it() {
    let copy = |from: Shape, into: Shape| {
        let call = |_| Collective::all_reduce(COUNT, DataType::F32, ReduceOp::Sum);
        check(call, 1, true, Association::Flat, |_, plan| {
            plan.lane(1);
            plan.straight();
            plan.copy(from.clone(), into.clone());
        })
    };
    assert!(copy(output(), output()).is_ok());
    // Elements 3..6 onto 4..7.
    let result = copy(output().even(3, rank(1)), half(output(), 1).chunk(3, rank(0)));
    refused(
        result,
        |v| matches!(v, Violation::Malformed { step: Some(_), .. }),
        "overlap and are not the same",
    );
}

#[test]
fn inputs_stay_as_they_are() {
    let result = exchange(4, |peer, plan| {
        plan.send(input(), Peers::one(rank(peer)));
        plan.receive(input(), rank(peer));
    });
    refused(result, |v| matches!(v, Violation::ForbiddenWrite { .. }), "writes input elements 0..8");
    let call = |_| Collective::reduce_scatter(COUNT, DataType::F32, ReduceOp::Sum);
    let result = check(call, 2, true, Association::Flat, |me, plan| {
        plan.lane(1);
        plan.straight();
        plan.receive(half(input(), 1 - me as i32), rank(1 - me));
    });
    refused(result, |v| matches!(v, Violation::ForbiddenWrite { .. }), "writes buffer elements 8..16");
}

#[test]
fn nothing_is_read_before_it_is_written() {
    let result = one_way(|me, plan| {
        plan.lane(1);
        plan.straight();
        plan.scratch(1, input());
        if me == 0 {
            let slot = Slice::Scratch { slot: rank(0), shape: input(), part: Vec::new() };
            plan.send(slot, Peers::one(rank(1)));
        } else {
            plan.receive(output(), rank(0));
        }
    });
    refused(result, |v| matches!(v, Violation::UnwrittenRead { .. }), "reads scratch elements 0..8");
    let result = chain(4, |plan| {
        // The send is posted before the receive that fills what it sends.
        let send = plan.send(output(), Peers::one(rank(2)));
        let take = plan.receive(output(), rank(0));
        plan.after(take, send);
    });
    refused(result, |v| matches!(v, Violation::UnwrittenRead { .. }), "reads output elements 0..8");
}

#[test]
fn reading_what_a_receive_writes_needs_an_edge() {
    let forward = |window, edge: Option<Edge>| {
        chain(window, |plan| {
            let take = plan.receive(output(), rank(0));
            let give = plan.send(output(), Peers::one(rank(2)));
            if let Some(edge) = edge {
                plan.edge(give, After { step: take, outer: Index::OUTER, inner: Index::INNER, edge });
            }
        })
    };
    for window in [2, MAX_WINDOW_PER_PEER] {
        refused(
            forward(window, None),
            |v| matches!(v, Violation::Unordered { .. }),
            "an edge after it is missing",
        );
        assert!(forward(window, Some(Edge::Whole)).is_ok());
        assert!(forward(window, Some(Edge::Elementwise)).is_ok());
    }
    assert!(forward(1, None).is_ok(), "a window of one step is an order");
}

#[test]
fn a_wide_window_orders_nothing_however_far_two_steps_are_apart() {
    let result = chain(2, |plan| {
        plan.receive(output(), rank(0));
        for _ in 0..10 {
            plan.copy(Slice::Empty, Slice::Empty);
        }
        plan.send(output(), Peers::one(rank(2)));
    });
    refused(result, |v| matches!(v, Violation::Unordered { .. }), "touches output elements 0..8");
}

#[test]
fn overwriting_what_a_send_reads_needs_an_edge() {
    let overwrite = |edge: Option<Edge>, shifted: bool| {
        let call = |_| Collective::broadcast(COUNT, DataType::F32, 0);
        check(call, 2, false, Association::None, |me, plan| {
            plan.lane(4);
            plan.scratch(1, output());
            plan.straight();
            if me == 1 {
                let first = plan.receive(output(), rank(0));
                let second = plan.receive(output(), rank(0));
                return plan.after(second, first);
            }
            let fill = plan.copy(input(), scratch(0));
            let send = plan.send(scratch(0), Peers::one(rank(1)));
            plan.after(send, fill);
            let mut over = Vec::new();
            for part in 0..if shifted { 2 } else { 1 } {
                let (parts, index) = (if shifted { 2 } else { 1 }, rank(part));
                let cut = Cut::Even { parts, index };
                let into = Slice::Scratch { slot: rank(0), shape: output(), part: vec![cut] };
                over.push(plan.copy(input().even(parts, index), into));
            }
            for &step in &over {
                plan.after(step, fill);
                if let Some(edge) = edge {
                    plan.edge(step, After { step: send, outer: Index::OUTER, inner: Index::INNER, edge });
                }
            }
            let again = plan.send(scratch(0), Peers::one(rank(1)));
            over.iter().for_each(|&step| plan.after(again, step));
            plan.copy(input(), output());
        })
    };
    let unordered = |v: &Violation| matches!(v, Violation::Unordered { .. });
    refused(overwrite(None, false), unordered, "while rank 0 lane 0 step 1");
    assert!(overwrite(Some(Edge::Whole), false).is_ok());
    assert!(
        overwrite(Some(Edge::Elementwise), false).is_ok(),
        "the same range may follow element by element"
    );
    assert!(overwrite(Some(Edge::Whole), true).is_ok());
    refused(overwrite(Some(Edge::Elementwise), true), unordered, "an edge after it is missing");
}

#[test]
fn knowledge_passes_along_edges_between_lanes() {
    // The middle rank receives on lane 0 and sends on lane 1, two steps after a step that waits for lane 0.
    let relay = |wait_for_mark: bool, mark_after_take: bool| {
        let call = |_| Collective::broadcast(COUNT, DataType::F32, 0);
        check(call, 3, false, Association::None, |me, plan| {
            plan.lane(4);
            plan.straight();
            if me == 0 {
                plan.send(input(), Peers::one(rank(1)));
                plan.copy(input(), output());
            } else if me == 1 {
                let take = plan.receive(output(), rank(0));
                let mark = plan.copy(Slice::Empty, Slice::Empty);
                if mark_after_take {
                    plan.after(mark, take);
                }
                plan.lane(4);
                plan.straight();
                let wait = plan.copy(Slice::Empty, Slice::Empty);
                plan.after(wait, if wait_for_mark { mark } else { take });
                plan.copy(Slice::Empty, Slice::Empty);
                plan.send(output(), Peers::one(rank(2)));
            } else {
                plan.lane(4);
                plan.straight();
                plan.receive(output(), rank(1));
            }
        })
    };
    let unordered = |v: &Violation| matches!(v, Violation::Unordered { .. });
    refused(relay(true, false), unordered, "rank 1 lane 1 step 4");
    assert!(relay(true, true).is_ok(), "what the target knew");
    assert!(relay(false, false).is_ok(), "the target itself");
}
