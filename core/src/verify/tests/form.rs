//! Plans and steps that mean nothing.

use super::*;

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
    form("turns depend on the call", |plan| {
        plan.lanes[0].window = MAX_WINDOW_PER_PEER + 1;
        plan.lanes[0].loops[0].inner = Trips::Chunks { shape: input(), elements: 1 };
    });
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
fn a_wide_window_is_for_many_peers() {
    let lane = |window, messages| {
        one_way(|me, plan| {
            plan.lane(window);
            plan.repeat(Trips::Fixed(messages), Trips::ONCE);
            if me == 0 {
                plan.send(input(), Peers::one(rank(1)));
            } else {
                let take = plan.receive(output(), rank(0));
                plan.after_turn(take, take, Index::OUTER.plus(-1), Index::INNER);
            }
        })
    };
    let most = MAX_WINDOW_PER_PEER;
    assert!(lane(most, 10 * most).is_ok());
    assert!(lane(most + 1, most).is_ok());
    let malformed = |v: &Violation| matches!(v, Violation::Malformed { rank: 0, step: Some(_), .. });
    refused(lane(most + 1, most + 1), malformed, "turn (64, 0) [send");
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
    step("block or chunk", |plan| {
        plan.send(input().span(4, Index::fixed(2), 3), Peers::one(rank(1)));
    });
    step("did not ask for", |plan| {
        plan.send(scratch(0), Peers::one(rank(1)));
    });
    step("did not ask for", |plan| {
        plan.scratch(1, input().times(2));
        let slot = Slice::Scratch { slot: Index::fixed(0), shape: input().times(3), part: Vec::new() };
        plan.send(slot, Peers::one(rank(1)));
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
fn only_scratch_is_longer_than_a_buffer() {
    let run = |slice: Slice| {
        let call = |_| Collective::broadcast(COUNT, DataType::F32, 0);
        let plans = move |_| {
            let spec = Spec::new(&call(0), 1, 0, false, Choice::default());
            let mut plan = PlanBuilder::new(&spec, "by hand", Association::None);
            plan.scratch(1, input().times(2));
            plan.lane(1);
            plan.straight();
            plan.copy(input(), output());
            let mut plan = plan.finish();
            // The builder would not have it.
            let (from, into) = (slice.clone(), slice.clone());
            plan.lanes[0].loops[0].steps[0].action = Action::Copy { from, into };
            plan
        };
        verify(&plans, 1, COUNT)
    };
    let malformed = |v: &Violation| matches!(v, Violation::Malformed { step: Some(_), .. });
    refused(run(input().times(2).into()), malformed, "more than there is");
    let part = vec![Cut::Times(2)];
    let slot = Slice::Scratch { slot: Index::fixed(0), shape: input(), part };
    refused(run(slot), malformed, "more than there is");
}
