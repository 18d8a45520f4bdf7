//! Several communicators of one world: apart in what they say, together in time, links and lives.

use crate::harness::{Harness, INPUT, OUTPUT, key, receive, reduce, send, span};
use ubccl_core::endpoint::{CommunicatorId, Posted};
use ubccl_core::plan::PeerRun;
use ubccl_core::symbolic::Value;

/// 1 byte takes 1 ns; latency 1 µs; others know of a death after 10 µs.
const PLAIN: &str = "custom:latency_ps=1000000,bytes_per_s=1000000000";
const NS: u64 = 1000;

/// World 4: the same pair, lane, sequence and signature, in three communicators: each receive gets its own's message.
#[test]
fn messages_of_different_communicators_never_meet() {
    let mut harness = Harness::new(PLAIN, 3).with_phantom(10, 1);
    let (_, pair) = harness.add(&[2, 0], 20, 1);
    let (_, other) = harness.add(&[0, 2], 30, 1);
    // Received in another order than sent. Rank 2 sends to rank 0 in each.
    harness.post(other, 1, &receive(span(OUTPUT, 0, 30), 1));
    harness.post(2, 2, &send(span(INPUT, 0, 10), 0));
    harness.post(pair, 3, &send(span(INPUT, 0, 20), 1));
    harness.post(other + 1, 4, &send(span(INPUT, 0, 30), 0));
    harness.post(pair + 1, 5, &receive(span(OUTPUT, 0, 20), 0));
    harness.post(0, 6, &receive(span(OUTPUT, 0, 10), 2));
    harness.run();
    assert!(harness.faults.is_empty(), "{:?}", harness.faults);
    // Ranks are numbered within each, and so are contributions.
    assert_eq!(harness.values(0, OUTPUT)[9], Value::contribution(2, 3, 9));
    assert_eq!(harness.values(pair + 1, OUTPUT)[19], Value::contribution(0, 2, 19));
    assert_eq!(harness.values(other, OUTPUT)[29], Value::contribution(1, 2, 29));
    // One port for all of them: the messages left one after the other.
    assert_eq!(
        [2, 3, 4].map(|token| harness.time([2, pair, other + 1][token as usize - 2], token)),
        [Some(10 * NS), Some(30 * NS), Some(60 * NS)]
    );
}

#[test]
fn a_reduction_knows_the_ranks_of_its_communicator() {
    let mut harness = Harness::new(PLAIN, 4).with_phantom(8, 1);
    let (_, first) = harness.add(&[3, 1, 2], 8, 1);
    let whole = |region| span(region, 0, 8);
    for rank in [1, 2] {
        harness.post(first + rank, 1, &send(whole(INPUT), 0));
    }
    harness.post(first, 2, &reduce(PeerRun::circle(0, 3, 3), whole(INPUT), whole(OUTPUT)));
    harness.run();
    let all = Value::reduction((0..3).map(|rank| Value::contribution(rank, 3, 0)), 3);
    assert_eq!(harness.values(first, OUTPUT)[0].contributors, all.contributors);
}

/// The hash of a world that has communicators which are silent is that of a world without.
#[test]
fn silent_communicators_change_nothing() {
    let run = |is_split: bool| {
        let mut harness = Harness::new(PLAIN, 3).with_phantom(100, 1);
        if is_split {
            harness.add(&[1, 0], 5, 1);
            harness.add(&[2], 5, 1);
        }
        harness.post(0, 1, &send(span(INPUT, 0, 100), 1));
        harness.post(1, 2, &receive(span(OUTPUT, 0, 100), 0));
        harness.run();
        (harness.world.stats(), harness.done.clone())
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn cancelling_one_endpoint_leaves_the_ranks_others_alone() {
    let mut harness = Harness::new(PLAIN, 2).with_phantom(10, 1);
    let (_, pair) = harness.add(&[0, 1], 10, 1);
    let whole = |region| span(region, 0, 10);
    for rank in [0, pair] {
        harness.post(rank, 1, &send(whole(INPUT), 1));
        harness.post(rank + 1, 2, &receive(whole(OUTPUT), 0));
    }
    harness.endpoints[pair as usize + 1].cancel();
    harness.run();
    assert_eq!(harness.values(1, OUTPUT)[0], Value::contribution(0, 2, 0));
    assert_eq!((harness.time(1, 2).is_some(), harness.time(pair + 1, 2)), (true, None));
    assert!(harness.endpoints[pair as usize + 1].phantom(OUTPUT).is_none());
}

#[test]
fn the_dead_are_dead_in_every_communicator_and_all_who_live_are_told_in_each() {
    let mut harness = Harness::new(PLAIN, 3).with_phantom(10, 1);
    let (_, pair) = harness.add(&[2, 1], 10, 1);
    let (_, alone) = harness.add(&[1], 10, 1);
    harness.world.kill(1, 0);
    harness.step();
    assert_eq!(harness.post(pair + 1, 1, &send(span(INPUT, 0, 10), 0)), Posted::Pending);
    harness.post(pair, 2, &receive(span(OUTPUT, 0, 10), 1));
    assert_eq!(harness.post(alone, 3, &send(span(INPUT, 0, 10), 0)), Posted::Pending);
    harness.run();
    assert!(harness.done.is_empty(), "{:?}", harness.done);
    assert_eq!(harness.world.dead(), [1]);
    let at = 10_000 * NS;
    assert_eq!(harness.woken, [(0, at), (2, at), (pair, at)]);
}

#[test]
fn what_cannot_be_a_communicator_is_refused() {
    let mut harness = Harness::new(PLAIN, 3).with_phantom(10, 1);
    for (ranks, problem) in [(&[][..], "needs a rank"), (&[3], "no rank 3"), (&[1, 0, 1], "rank 1 cannot be")]
    {
        let error = harness.world.communicator(ranks).err().unwrap();
        assert!(error.to_string().contains(problem), "{error}");
    }
    let (id, first) = harness.add(&[1], 10, 1);
    assert_eq!(id, CommunicatorId(1), "what was refused took no number");
    // A peer is one of the communicator, not of the world.
    let fault = harness.post_with(first, 1, &key(0), &send(span(INPUT, 0, 1), 1)).unwrap_err();
    assert!(format!("{fault:?}").contains("a communicator of 1"), "{fault:?}");
}
