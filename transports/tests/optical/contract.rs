//! The contract of `Endpoint`, by its numbers.

use crate::harness::{Harness, INPUT, OUTPUT, SIGNATURE, key, receive, reduce, send, span};
use std::time::Duration;
use ubccl_core::endpoint::{
    Clock, Counters, Fault, Key, POINT_TO_POINT_LANE, Posted, Stream, TAGGED_LANE, Token,
};
use ubccl_core::plan::PeerRun;
use ubccl_core::{ErrorKind, Signature};

const PLAIN: &str = "custom:latency_ps=1000000,bytes_per_s=1000000000";

fn two(elements: usize) -> Harness {
    Harness::new(PLAIN, 2).with_floats(|rank, k| (100 * rank + k as u32) as f32, elements)
}

/// World contract 3: a rank that waits for a tag without a post is woken when a message comes, on that lane only.
#[test]
fn a_tagged_message_without_a_post_wakes_its_receiver() {
    let mut harness = two(4);
    let tagged = Key { stream: Stream::Tagged(9), lane: TAGGED_LANE, ..key(0) };
    let direct = Key { stream: Stream::Direct, lane: POINT_TO_POINT_LANE, ..key(0) };
    for (key, woken) in [(direct, false), (tagged, true)] {
        harness.woken.clear();
        harness.post_with(0, 1, &key, &send(span(INPUT, 0, 16), 1)).unwrap();
        harness.run();
        assert_eq!(harness.woken.iter().any(|woken| woken.0 == 1), woken, "{key:?}");
    }
    let found = harness.endpoints[1].probe(0).unwrap();
    assert_eq!(found.map(|header| (header.stream, header.len)), Some((Stream::Tagged(9), 16)));
    assert_eq!(harness.post_with(1, 2, &tagged, &receive(span(OUTPUT, 0, 16), 0)).unwrap(), Posted::Done);
    assert_eq!(harness.endpoints[1].probe(0).unwrap(), None);
}

/// Contract 1: a hundred posts wait, none is refused. Contract 2: the k-th send meets the k-th receive.
#[test]
fn posts_wait_and_lanes_keep_order() {
    let mut harness = two(100);
    for k in 0..50 {
        assert_eq!(harness.post(1, k, &receive(span(OUTPUT, 4 * k, 4), 0)), Posted::Pending);
    }
    for k in 0..100 {
        assert_eq!(harness.post(0, k, &send(span(INPUT, 4 * k, 4), 1)), Posted::Pending);
    }
    harness.run();
    for k in 50..100 {
        assert_eq!(harness.post(1, k, &receive(span(OUTPUT, 4 * k, 4), 0)), Posted::Done);
    }
    assert_eq!(harness.floats(1, OUTPUT), (0..100).map(|k| k as f32).collect::<Vec<_>>());
    let tokens: Vec<u64> = harness.done.iter().filter(|done| done.0 == 1).map(|done| done.1).collect();
    assert_eq!(tokens, (0..100).collect::<Vec<_>>());
}

/// Contract 2: an unread message on one lane, or from one peer, holds nothing up on another.
#[test]
fn lanes_and_peers_are_independent() {
    let mut harness = Harness::new(PLAIN, 3).with_floats(|rank, _| rank as f32, 1);
    let word = |region| span(region, 0, 4);
    harness.post_with(0, 1, &key(0), &send(word(INPUT), 1)).unwrap();
    harness.post_with(0, 2, &key(1), &send(span(INPUT, 0, 0), 1)).unwrap();
    harness.post_with(2, 3, &key(0), &send(word(INPUT), 1)).unwrap();
    harness.run();
    assert_eq!(harness.post_with(1, 4, &key(0), &receive(word(OUTPUT), 2)).unwrap(), Posted::Done);
    assert_eq!(harness.floats(1, OUTPUT), [2.0]);
    assert_eq!(
        harness.post_with(1, 5, &key(1), &receive(span(OUTPUT, 0, 0), 0)).unwrap(),
        Posted::Done,
        "lane 1 has its own line"
    );
    assert_eq!(harness.post_with(1, 6, &key(0), &receive(word(OUTPUT), 0)).unwrap(), Posted::Done);
    assert_eq!(harness.floats(1, OUTPUT), [0.0]);
}

/// Contract 4, whoever comes first, for each of stream, signature and length.
#[test]
fn a_header_that_differs_is_a_mismatch_and_moves_no_byte() {
    let right = key(0);
    let cases = [
        (Key { stream: Stream::Collective(2), ..right }, 8),
        (Key { stream: Stream::Tagged(1), ..right }, 8),
        (Key { signature: Signature(78), ..right }, 8),
        (right, 4),
        (right, 0),
    ];
    for (wrong, len) in cases {
        for receive_is_first in [true, false] {
            let mut harness = two(2);
            let fault = {
                if !receive_is_first {
                    harness.post_with(0, 1, &wrong, &send(span(INPUT, 0, len), 1)).unwrap();
                    harness.run();
                    harness.post_with(1, 2, &right, &receive(span(OUTPUT, 0, 8), 0)).unwrap_err()
                } else {
                    harness.post_with(1, 2, &right, &receive(span(OUTPUT, 0, 8), 0)).unwrap();
                    harness.post_with(0, 1, &wrong, &send(span(INPUT, 0, len), 1)).unwrap();
                    harness.run();
                    let (rank, fault) = harness.faults.pop().unwrap();
                    assert_eq!(rank, 1);
                    fault
                }
            };
            let Fault::Mismatch { peer, theirs, ours } = fault else { panic!("{fault:?}") };
            assert_eq!(peer, 0);
            assert_eq!((theirs.stream, theirs.signature, theirs.len), (wrong.stream, wrong.signature, len));
            assert_eq!((ours.stream, ours.signature, ours.len), (right.stream, right.signature, 8));
            assert_eq!(harness.floats(1, OUTPUT), [-1.0, -1.0]);
            assert_eq!(harness.time(1, 2), None);
        }
    }
}

#[test]
fn a_reduction_with_one_wrong_source_writes_nothing() {
    let mut harness = Harness::new(PLAIN, 4).with_floats(|_, _| 1.0, 1);
    let word = |region| span(region, 0, 4);
    let wrong = Key { signature: Signature(1), ..key(0) };
    harness.post(0, 1, &reduce(PeerRun::circle(0, 4, 4), word(INPUT), word(OUTPUT)));
    harness.post(1, 1, &send(word(INPUT), 0));
    harness.post_with(2, 1, &wrong, &send(word(INPUT), 0)).unwrap();
    harness.post_with(3, 1, &wrong, &send(word(INPUT), 0)).unwrap();
    harness.run();
    assert!(matches!(harness.faults[..], [(0, Fault::Mismatch { peer: 2, .. })]), "{:?}", harness.faults);
    assert_eq!(harness.floats(0, OUTPUT), [-1.0]);
    assert_eq!(harness.time(0, 1), None);
}

/// Contract 5.
#[test]
fn zero_bytes_are_a_message() {
    let mut harness = Harness::new(PLAIN, 2);
    // No memory at all is registered.
    let nothing = span(INPUT, 0, 0);
    harness.post(1, 1, &receive(nothing, 0));
    harness.post(1, 2, &reduce(PeerRun::circle(0, 2, 2), nothing, nothing));
    harness.post(0, 3, &send(nothing, 1));
    harness.post(0, 4, &send(nothing, 1));
    harness.run();
    assert_eq!([1, 2].map(|token| harness.time(1, token)), [Some(1_000_000); 2]);
    let expected = Counters { messages_received: 2, ..Counters::default() };
    assert_eq!(harness.endpoints[1].counters(), expected);
    assert_eq!(harness.world.stats().messages, 2);
}

/// Contract 7.
#[test]
fn after_cancel_nothing_is_touched_and_nothing_completes() {
    let mut harness = two(2);
    let whole = |region| span(region, 0, 8);
    harness.post(1, 1, &receive(whole(OUTPUT), 0));
    harness.post(1, 2, &send(whole(INPUT), 0));
    harness.post(0, 3, &receive(whole(OUTPUT), 1));
    harness.post(0, 4, &send(whole(INPUT), 1));
    harness.endpoints[1].cancel();
    harness.run();
    assert_eq!(harness.floats(1, OUTPUT), [-1.0, -1.0]);
    assert!(harness.done.iter().all(|done| done.0 == 0), "{:?}", harness.done);
    assert_eq!(harness.floats(0, OUTPUT), [100.0, 101.0], "what was sent before is on its way");
    // Its memory is forgotten as well, so a post that names it is a defect that is told.
    let fault = harness.post_with(1, 5, &key(0), &send(whole(INPUT), 0)).unwrap_err();
    assert!(matches!(&fault, Fault::Other(error) if error.kind() == ErrorKind::Internal), "{fault:?}");
}

/// Contract 9.
#[test]
fn inspect_finds_what_can_no_longer_be_taken() {
    let of = |sequence: u64, signature: u128| Key {
        stream: Stream::Collective(sequence),
        signature: Signature(signature),
        lane: 0,
        engine: None,
    };
    let tagged = Key { stream: Stream::Tagged(9), ..of(0, 5) };
    let cases = [
        (of(3, 77), true), // older
        (of(4, 78), true), // current, another call
        (of(4, 77), false),
        (of(5, 1), false), // later: somebody is ahead
        (tagged, false),
    ];
    for (sent, is_found) in cases {
        let mut harness = two(1);
        harness.post_with(0, 1, &sent, &send(span(INPUT, 0, 4), 1)).unwrap();
        assert!(harness.endpoints[1].inspect(4, SIGNATURE).is_ok(), "it is not there yet");
        harness.run();
        match harness.endpoints[1].inspect(4, SIGNATURE) {
            Err(Fault::Mismatch { peer: 0, theirs, ours }) if is_found => {
                assert_eq!((theirs.stream, theirs.signature), (sent.stream, sent.signature));
                assert_eq!((ours.stream, ours.signature), (Stream::Collective(4), SIGNATURE));
            }
            other => assert!(other.is_ok() && !is_found, "{sent:?}: {other:?}"),
        }
    }
}

/// Contract 10, as virtual time has it.
#[test]
fn sleeping_is_refused_and_waking_harmless() {
    let mut harness = two(1);
    let error = harness.endpoints[0].sleep(Duration::from_secs(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("rank 0 cannot block in virtual time"), "{error}");
    harness.endpoints[0].waker().wake();
    assert!(!harness.endpoints[0].poll(&mut Vec::<Token>::new()).unwrap());
}

#[test]
fn counters_count_each_peer() {
    let mut harness = Harness::new(PLAIN, 3).with_phantom(12, 4);
    let to = PeerRun::circle(1, 2, 3);
    harness.post(0, 1, &ubccl_core::endpoint::Post::Send { from: span(INPUT, 0, 48), to });
    harness.post(1, 1, &receive(span(OUTPUT, 0, 48), 0));
    harness.post(2, 1, &receive(span(OUTPUT, 0, 48), 0));
    harness.run();
    let sent = Counters { messages_sent: 2, bytes_sent: 96, ..Counters::default() };
    let received = Counters { messages_received: 1, bytes_received: 48, ..Counters::default() };
    let counters: Vec<_> = harness.endpoints.iter().map(|endpoint| endpoint.counters()).collect();
    assert_eq!(counters, [sent, received, received]);
}

#[test]
fn endpoints_are_handed_out_once_and_the_transport_is_found_by_either_name() {
    let mut harness = two(1);
    for (rank, text) in [(0, "rank 0 was taken before"), (2, "no rank 2 in a world of 2")] {
        let error = harness.world.endpoint(rank).err().unwrap();
        assert!(error.message().contains(text), "{error}");
    }
    let found = ["optical", "sim"].map(|name| ubccl_transports::find(name).unwrap().descriptor());
    assert!(std::ptr::eq(found[0], found[1]));
    assert_eq!(found[0].clock, Clock::Virtual);
    let fault = harness.post_with(0, 1, &key(0), &send(span(INPUT, 0, 4), 2)).unwrap_err();
    assert!(
        matches!(fault, Fault::Other(error) if error.message().contains("rank 2 of a communicator of 2"))
    );
}
