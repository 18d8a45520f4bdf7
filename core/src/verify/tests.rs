//! Faulty plans, each refused by exactly the check that it is for; and plans beside them that are right.

use super::*;
use crate::algorithm::{Choice, Spec};
use crate::collective::Collective;
use crate::dtype::DataType;
use crate::op::ReduceOp;
use crate::plan::*;

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
    call: impl Fn(Rank) -> Collective,
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

#[test]
fn plans_of_different_calls_disagree() {
    let call = |rank| Collective::broadcast(COUNT, DataType::F32, rank);
    let result = check(call, 2, false, Association::None, |_, _| {});
    refused(result, |v| matches!(v, Violation::Disagreement { rank: 1, what: "root" }), "different root");
    let spec = Spec::new(&Collective::barrier(), 2, 0, false, Choice::default());
    let same = |_| PlanBuilder::new(&spec, "by hand", Association::None).finish();
    refused(
        verify(&same, 2, 0),
        |v| matches!(v, Violation::Disagreement { what: "rank", .. }),
        "ranks 0 and 1",
    );
    refused(verify(&same, 0, 0), |v| matches!(v, Violation::Malformed { .. }), "at least one rank");
}

#[test]
fn plans_without_form_are_refused() {
    fn form(text: &str, change: impl Fn(&mut Plan)) {
        let spec = Spec::new(&Collective::barrier(), 1, 0, false, Choice::default());
        let plans = |_| {
            let mut plan = PlanBuilder::new(&spec, "by hand", Association::None);
            plan.lane(1);
            plan.straight();
            plan.copy(Slice::Empty, Slice::Empty);
            let mut plan = plan.finish();
            change(&mut plan);
            plan
        };
        refused(verify(&plans, 1, 0), |v| matches!(v, Violation::Malformed { step: None, .. }), text);
    }
    form("window", |plan| plan.lanes[0].window = 0);
    form("window", |plan| plan.lanes[0].window = MAX_WINDOW + 1);
    form("more lanes", |plan| plan.lanes = vec![plan.lanes[0].clone(); MAX_LANES + 1]);
    form("another number of ranks", |plan| plan.spec.ranks = 2);
    form("no elements", |plan| {
        plan.lanes[0].loops[0].outer = Trips::Chunks { shape: input(), elements: 0 };
    });
    form("more than 2^31", |plan| {
        plan.lanes[0].loops[0].outer = Trips::Fixed(1 << 31);
        plan.lanes[0].loops[0].inner = Trips::Fixed(2);
    });
    form("does not exist", |plan| {
        let (outer, inner) = (Index::OUTER, Index::INNER);
        let after = After { step: StepId(7), outer, inner, edge: Edge::Whole };
        plan.lanes[0].loops[0].steps[0].after.push(after);
    });
    form("more peers", |plan| {
        let sources = Peers::List(vec![Index::fixed(0); MAX_LISTED_PEERS + 1]);
        let action = Action::ReceiveReduce { sources, own: Slice::Empty, into: Slice::Empty };
        plan.lanes[0].loops[0].steps[0].action = action;
    });
}

#[test]
fn steps_that_mean_nothing_are_refused() {
    fn step(text: &str, fill: impl Fn(&mut PlanBuilder)) {
        let result = one_way(|_, plan| {
            plan.lane(1);
            plan.straight();
            fill(plan);
        });
        refused(result, |v| matches!(v, Violation::Malformed { rank: 0, step: Some(_), .. }), text);
    }
    let empty = || Slice::Empty;
    step("itself as its peer", |plan| {
        plan.send(input(), Peers::one(rank(0)));
    });
    step("itself as its peer", |plan| {
        plan.receive(empty(), rank(0));
    });
    step("no rank", |plan| {
        plan.send(input(), Peers::one(rank(2)));
    });
    step("no rank", |plan| {
        plan.receive(empty(), Index::fixed(-1));
    });
    step("own contribution twice", |plan| {
        plan.receive_reduce(Peers::List(vec![rank(0), rank(1), rank(0)]), empty(), empty());
    });
    step("list of sources is empty", |plan| {
        plan.receive_reduce(Peers::List(vec![]), empty(), empty());
    });
    step("different lengths", |plan| {
        plan.copy(input(), half(input(), 0));
    });
    step("different lengths", |plan| {
        plan.receive_reduce(Peers::List(vec![rank(0), rank(1)]), empty(), input());
    });
    step("block or chunk", |plan| {
        plan.send(half(input(), 2), Peers::one(rank(1)));
    });
    step("block or chunk", |plan| {
        plan.send(input().chunk(3, Index::fixed(-1)), Peers::one(rank(1)));
    });
    step("did not ask for", |plan| {
        plan.send(scratch(0), Peers::one(rank(1)));
    });
    step("did not ask for", |plan| {
        plan.scratch(2, input());
        let slot = Slice::Scratch { slot: Index::fixed(2), shape: input(), part: Vec::new() };
        plan.send(slot, Peers::one(rank(1)));
    });
    step("did not ask for", |plan| {
        plan.scratch(2, half(input(), 0));
        let slot = Slice::Scratch { slot: Index::fixed(0), shape: input(), part: Vec::new() };
        plan.send(slot, Peers::one(rank(1)));
    });
}

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
    for window in [2, MAX_WINDOW] {
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

#[test]
fn every_send_meets_a_receive_of_its_length() {
    let messages = |sends: u32, receives: u32, sent: Shape| {
        one_way(|me, plan| {
            plan.lane(4);
            plan.repeat(Trips::Fixed(if me == 0 { sends } else { receives }), Trips::ONCE);
            if me == 0 {
                plan.send(sent.clone(), Peers::one(rank(1)));
            } else {
                let take = plan.receive(output(), rank(0));
                plan.after_turn(take, take, Index::OUTER.plus(-1), Index::INNER);
            }
        })
    };
    assert!(messages(2, 2, input()).is_ok());
    let unmatched = |sends: bool, ordinal: u32| move |v: &Violation| matches!(v, Violation::Unmatched { sends: s, ordinal: o, .. } if (*s, *o) == (sends, ordinal));
    refused(messages(3, 2, input()), unmatched(true, 2), "sends message 2 from rank 0 to rank 1");
    refused(messages(1, 2, input()), unmatched(false, 1), "which rank 0 never sends");
    let lengths = |v: &Violation| matches!(v, Violation::Lengths { sent: 4, expected: 8, .. });
    refused(messages(1, 1, half(input(), 0)), lengths, "sends 4 elements");
}

#[test]
fn messages_meet_on_their_own_lane() {
    let result = one_way(|me, plan| {
        plan.lane(1);
        if me == 1 {
            plan.lane(1);
        }
        plan.straight();
        if me == 0 {
            plan.send(input(), Peers::one(rank(1)));
        } else {
            plan.receive(output(), rank(0));
        }
    });
    refused(result, |v| matches!(v, Violation::Unmatched { sends: true, .. }), "rank 1 never receives");
}

#[test]
fn sends_that_wait_for_each_other_are_a_deadlock_only_as_rendezvous() {
    let both = |window| {
        exchange(window, |peer, plan| {
            plan.send(input(), Peers::one(rank(peer)));
            plan.receive(output(), rank(peer));
        })
    };
    assert!(both(2).is_ok());
    let window = |v: &Violation| {
        matches!(v, Violation::Deadlock { mode: Mode::Rendezvous, waits: Waits::ForWindow(_), .. })
    };
    refused(both(1), window, "with every send a rendezvous");
}

#[test]
fn receives_that_wait_for_each_other_are_a_deadlock_whatever_is_buffered() {
    let plans = |me: Rank| {
        let call = Collective::send_receive(COUNT, DataType::F32, Some(1 - me), Some(1 - me));
        let spec = Spec::new(&call, 2, me, false, Choice::default());
        let mut plan = PlanBuilder::new(&spec, "by hand", Association::None);
        plan.lane(4);
        plan.straight();
        let take = plan.receive(output(), rank(1 - me));
        let give = plan.send(input(), Peers::one(rank(1 - me)));
        plan.after(give, take);
        plan.finish()
    };
    refused(verify(&plans, 2, COUNT), |v| matches!(v, Violation::Deadlock { .. }), "waits by an edge for");
    // The verifier stops at the rendezvous; buffering does not help either.
    let mut flat = Flat::new(&plans, 2, COUNT).unwrap();
    matching::match_messages(&mut flat).unwrap();
    let result = Run::new(&flat, Mode::Buffered).finish(&mut Track::new(&flat, Depth));
    let deadlock = |v: &Violation| matches!(v, Violation::Deadlock { mode: Mode::Buffered, .. });
    assert!(deadlock(&result.expect_err("nobody sends first")));
}

#[test]
fn an_edge_to_a_later_step_is_a_deadlock() {
    let result = chain(4, |plan| {
        let first = plan.copy(Slice::Empty, Slice::Empty);
        let take = plan.receive(output(), rank(0));
        let give = plan.send(output(), Peers::one(rank(2)));
        plan.after(give, take);
        plan.after(first, take);
    });
    refused(
        result,
        |v| matches!(v, Violation::Deadlock { waits: Waits::ForEdge(_), .. }),
        "rank 1 lane 0 step 0",
    );
}

#[test]
fn a_posted_step_names_the_peer_step_that_never_comes() {
    // Ranks 1 and 2 wait for each other; rank 0 has posted all it has to.
    let result = check(
        |_| Collective::barrier(),
        3,
        false,
        Association::None,
        |me, plan| {
            plan.lane(1);
            plan.straight();
            let receive = |plan: &mut PlanBuilder, peer| plan.receive(Slice::Empty, rank(peer));
            let send = |plan: &mut PlanBuilder, peer| plan.send(Slice::Empty, Peers::one(rank(peer)));
            match me {
                0 => {
                    send(plan, 1);
                }
                1 => {
                    receive(plan, 2);
                    receive(plan, 0);
                    send(plan, 2);
                }
                _ => {
                    receive(plan, 1);
                    send(plan, 1);
                }
            }
        },
    );
    let peer = |v: &Violation| matches!(v, Violation::Deadlock { waits: Waits::ForPeer(step), .. } if step.rank == 1);
    refused(
        result,
        peer,
        "rank 0 lane 0 step 0 turn (0, 0) [send nothing -> [1]] waits for its peer to post rank 1",
    );
}

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
    assert_eq!(report, Ok(Report { steps: 5, messages: 2, elements: 2 * COUNT, depth: 2 }));
}
