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
    let mut flat = Flat::new(&plans, &|me| plans(me).spec.collective(COUNT), 2).unwrap();
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

/// Three ranks: 0 waits in one reduction for 1 and 2. Rank 1 sends to 0 and then to 2, which sends to 0 only afterwards.
fn held_by_a_third(window: u32) -> Result<Report, Violation> {
    let call = |_| Collective::all_reduce(COUNT, DataType::F32, ReduceOp::Sum);
    check(call, 3, false, Association::Flat, |me, plan| {
        plan.lane(if me == 1 { window } else { 4 });
        plan.straight();
        let give = |plan: &mut PlanBuilder, from: Shape, to| plan.send(from, Peers::one(rank(to)));
        match me {
            0 => {
                plan.receive_reduce(in_order(3), input(), output());
                plan.straight();
                let last = StepId(0);
                let both = Peers::List(vec![rank(1), rank(2)]);
                let share = plan.send(output(), both);
                plan.after(share, last);
            }
            1 => {
                give(plan, input(), 0);
                plan.send(Slice::Empty, Peers::one(rank(2)));
                plan.receive(output(), rank(0));
            }
            _ => {
                let go = plan.receive(Slice::Empty, rank(1));
                let sent = give(plan, input(), 0);
                plan.after(sent, go);
                plan.receive(output(), rank(0));
            }
        }
    })
}

#[test]
fn a_send_waits_for_all_that_its_receiver_waits_for() {
    // With a window of 1, rank 1's second send waits for the first. That was received by a step that is posted, but
    // which waits for rank 2, which waits for the second.
    assert!(held_by_a_third(2).is_ok());
    let held = |v: &Violation| matches!(v, Violation::Deadlock { mode: Mode::Rendezvous, .. });
    refused(held_by_a_third(1), held, "with every send a rendezvous");
}

#[test]
fn a_send_names_the_posted_step_that_never_completes() {
    // Rank 1 reduces what ranks 0 and 2 send; rank 2 waits for rank 1 first.
    let result = check(
        |_| Collective::barrier(),
        3,
        false,
        Association::None,
        |me, plan| {
            plan.lane(1);
            plan.straight();
            let send = |plan: &mut PlanBuilder, peer| plan.send(Slice::Empty, Peers::one(rank(peer)));
            match me {
                0 => {
                    send(plan, 1);
                }
                1 => {
                    let sources = Peers::List(vec![rank(0), rank(2)]);
                    plan.receive_reduce(sources, Slice::Empty, Slice::Empty);
                    send(plan, 2);
                }
                _ => {
                    plan.receive(Slice::Empty, rank(1));
                    send(plan, 1);
                }
            }
        },
    );
    let receiver = |v: &Violation| matches!(v, Violation::Deadlock { waits: Waits::ForReceiver(step), .. } if step.rank == 1);
    refused(result, receiver, "waits for its peer to complete rank 1 lane 0 step 0");
}

/// Like [`held_by_a_third`], but what rank 2 waits for is nobody's fault but the channel's: rank 1 has all under way.
fn held_by_a_turn(ordered: bool) -> Result<Report, Violation> {
    let call = |_| Collective::barrier();
    check(call, 3, false, Association::None, |me, plan| {
        plan.lane(8);
        plan.straight();
        let give = |plan: &mut PlanBuilder, to| plan.send(Slice::Empty, Peers::one(rank(to)));
        let sources = |of: [u32; 2]| Peers::List(of.map(rank).to_vec());
        match me {
            // The first message of rank 1 is taken together with one of rank 2, the second alone; the third tells 2.
            0 => {
                plan.receive_reduce(sources([1, 2]), Slice::Empty, Slice::Empty);
                let second = plan.receive(Slice::Empty, rank(1));
                let tell = give(plan, 2);
                if ordered {
                    plan.after(tell, second);
                }
                give(plan, 1);
            }
            1 => {
                give(plan, 0);
                give(plan, 0);
                give(plan, 2);
                plan.receive(Slice::Empty, rank(0));
                plan.receive(Slice::Empty, rank(2));
            }
            _ => {
                let told = plan.receive(Slice::Empty, rank(0));
                plan.receive(Slice::Empty, rank(1));
                let late = give(plan, 0);
                plan.after(late, told);
                give(plan, 1);
            }
        }
    })
}

#[test]
fn a_message_waits_behind_the_one_before_it_on_its_channel() {
    assert!(held_by_a_turn(false).is_ok());
    let held = |v: &Violation| matches!(v, Violation::Deadlock { mode: Mode::Rendezvous, .. });
    refused(held_by_a_turn(true), held, "waits by an edge for rank 0 lane 0 step 1");
}
