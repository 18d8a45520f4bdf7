//! Messages that do not meet, and plans that stop.

use super::*;

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
