//! Deaths of ranks.

use crate::harness::{Harness, INPUT, OUTPUT, receive, send, span};
use ubccl_core::endpoint::Posted;

/// 1 byte takes 1 ns; latency 1 µs; others know of a death after 10 µs.
const PLAIN: &str = "custom:latency_ps=1000000,bytes_per_s=1000000000";
const NS: u64 = 1000;

#[test]
fn the_others_are_woken_after_the_detection_delay() {
    let mut harness = Harness::new(PLAIN, 4);
    harness.world.kill(2, 5 * NS);
    harness.world.kill(2, 6 * NS);
    assert!(harness.step());
    assert_eq!((harness.world.now_ps(), harness.world.dead()), (5 * NS, vec![]));
    harness.run();
    assert_eq!(harness.world.now_ps(), 10_005 * NS);
    assert_eq!(harness.world.dead(), [2]);
    let at = 10_005 * NS;
    assert_eq!(harness.woken, [(0, at), (1, at), (3, at)]);
}

#[test]
fn what_is_not_fully_delivered_is_lost_and_what_is_stays() {
    for (death_ns, is_delivered) in [(0, false), (50, false), (1099, false), (1101, true)] {
        for victim in [0, 1] {
            let mut harness = Harness::new(PLAIN, 3).with_phantom(100, 1);
            harness.post(0, 1, &send(span(INPUT, 0, 100), 1));
            harness.post(1, 2, &receive(span(OUTPUT, 0, 100), 0));
            harness.world.kill(victim, death_ns * NS);
            harness.run();
            let case = format!("rank {victim} dies at {death_ns}");
            assert_eq!(harness.time(1, 2).is_some(), is_delivered, "{case}");
            assert_eq!(harness.world.stats().messages, u64::from(is_delivered), "{case}");
            // A sender's post completes when its bytes have left, whoever listens, if it lives so long.
            let has_sent = victim == 1 || death_ns > 100;
            assert_eq!(harness.time(0, 1).is_some(), has_sent, "{case}");
            assert_eq!(harness.world.dead(), [victim]);
        }
    }
}

#[test]
fn the_dead_send_and_receive_nothing_and_block_nobody() {
    let mut harness = Harness::new(PLAIN, 3).with_phantom(100, 1);
    harness.world.kill(2, 0);
    harness.step();
    let whole = |region| span(region, 0, 100);
    assert_eq!(harness.post(2, 1, &send(whole(INPUT), 1)), Posted::Pending);
    harness.post(1, 2, &receive(whole(OUTPUT), 2));
    harness.post(0, 3, &send(whole(INPUT), 2));
    harness.post(0, 4, &send(whole(INPUT), 1));
    harness.post(1, 5, &receive(whole(OUTPUT), 0));
    harness.run();
    assert_eq!([harness.time(2, 1), harness.time(1, 2)], [None, None]);
    assert_eq!(harness.time(0, 3), Some(100 * NS));
    // The dead rank's message took no time of the port; the message to it did.
    assert_eq!(harness.time(1, 5), Some(1200 * NS));
    assert!(harness.done.iter().all(|done| done.0 != 2));
    assert_eq!(harness.endpoints[2].counters().messages_sent, 0);
}

#[test]
fn a_death_is_part_of_the_hash() {
    let hash = |death_ps: Option<u64>| {
        let mut harness = Harness::new(PLAIN, 2).with_phantom(8, 1);
        harness.post(0, 1, &send(span(INPUT, 0, 8), 1));
        if let Some(death_ps) = death_ps {
            harness.world.kill(1, death_ps);
        }
        harness.run();
        harness.world.stats().hash
    };
    assert_eq!(hash(Some(7)), hash(Some(7)));
    assert_ne!(hash(Some(7)), hash(Some(8)));
    assert_ne!(hash(Some(7)), hash(None));
}
