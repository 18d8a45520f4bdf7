//! Flow between well-behaved ranks: bounds, slow receivers, leaving.

use super::memory::pattern;
use super::work::{direct, key, list, receive, send, tagged};
use super::{Node, finish, world};
use crate::tcp::wire::MESSAGE_COST;
use std::time::Duration;
use ubccl_core::endpoint::{ConnectOptions, Post};
use ubccl_core::{DataType, ReduceOp};

/// The smallest rings there are: eight messages.
const TIGHT: ConnectOptions =
    ConnectOptions { lanes: 3, pair_bytes: Some(0), paced: None, peer_reads: false };
const TIGHT_RING_BYTES: u64 = 8 * MESSAGE_COST;

#[test]
fn large_messages_go_both_ways_on_all_lanes_though_all_are_sent_before_any_is_received() {
    let len = 6 << 20;
    let mut nodes = world(2, &ConnectOptions { lanes: 3, ..Default::default() });
    let keys = [key(1, 0), key(1, 1), key(1, 2), tagged(5)];
    let mut wanted = Vec::new();
    for (rank, node) in nodes.iter_mut().enumerate() {
        for (lane, key) in keys.iter().enumerate() {
            let area = node.area(&pattern((rank * 10 + lane) as u64, len));
            let span = node.areas[area].all();
            wanted.push((rank, node.post(key, &send(span, 1 - rank as u32))));
        }
    }
    nodes.iter_mut().for_each(Node::settle);
    // Received in the other order of lanes.
    for (rank, node) in nodes.iter_mut().enumerate() {
        for key in keys.iter().rev() {
            let area = node.area(&vec![0; len]);
            let span = node.areas[area].all();
            wanted.push((rank, node.post(key, &receive(span, 1 - rank as u32))));
        }
    }
    finish(&mut nodes, &wanted);
    for (rank, node) in nodes.iter().enumerate() {
        for lane in 0..keys.len() {
            let expected = pattern(((1 - rank) * 10 + lane) as u64, len);
            node.areas[2 * keys.len() - 1 - lane].assert_holds(0, &expected, "a received message");
        }
    }
}

#[test]
fn a_slow_receiver_gets_everything_in_order() {
    let (count, len) = (40, 300_001);
    let mut nodes = world(2, &ConnectOptions::default());
    let mut wanted = Vec::new();
    for message in 0..count {
        let area = nodes[0].area(&pattern(message, len));
        let span = nodes[0].areas[area].all();
        wanted.push((0, nodes[0].post(&key(1, 0), &send(span, 1))));
    }
    nodes[0].settle();
    let into = nodes[1].area(&vec![0; len]);
    let span = nodes[1].areas[into].all();
    for message in 0..count {
        let token = nodes[1].post(&key(1, 0), &receive(span, 0));
        finish(&mut nodes, &[(1, token)]);
        nodes[1].areas[into].assert_holds(0, &pattern(message, len), "a message");
    }
    finish(&mut nodes, &wanted);
}

#[test]
fn unexpected_small_messages_stop_at_the_bound_and_hold_up_nobody() {
    let mut nodes = world(2, &TIGHT);
    let bound = TIGHT_RING_BYTES / (MESSAGE_COST + 64);
    let mut sends = Vec::new();
    for message in 0..4 * bound {
        let area = nodes[0].area(&message.to_le_bytes());
        let span = nodes[0].areas[area].all();
        sends.push((0, nodes[0].post(&key(1, 0), &send(span, 1))));
        nodes.iter_mut().for_each(Node::settle);
    }
    let gone = sends.iter().filter(|(_, token)| nodes[0].done.contains(token)).count() as u64;
    assert_eq!(gone, bound, "messages sent that nobody received");

    // Another lane, and the other direction, know nothing of that.
    let out = nodes[0].area(&[1; 100_000]);
    let span = nodes[0].areas[out].all();
    let sent = nodes[0].post(&key(1, 1), &send(span, 1));
    let into = nodes[1].area(&[0; 100_000]);
    let span = nodes[1].areas[into].all();
    let received = nodes[1].post(&key(1, 1), &receive(span, 0));
    finish(&mut nodes, &[(0, sent), (1, received)]);
    nodes[1].areas[into].assert_holds(0, &[1; 100_000], "the other lane");

    let into = nodes[1].area(&[0; 8]);
    let span = nodes[1].areas[into].all();
    for message in 0..4 * bound {
        let token = nodes[1].post(&key(1, 0), &receive(span, 0));
        finish(&mut nodes, &[(1, token)]);
        nodes[1].areas[into].assert_holds(0, &message.to_le_bytes(), "a message");
    }
    finish(&mut nodes, &sends);
}

#[test]
fn empty_messages_are_bounded_too() {
    let mut nodes = world(2, &TIGHT);
    let area = nodes[0].area(&[]);
    let span = nodes[0].areas[area].all();
    let sends: Vec<_> = (0..32).map(|_| (0, nodes[0].post(&key(1, 0), &send(span, 1)))).collect();
    for _ in 0..3 {
        nodes.iter_mut().for_each(Node::settle);
    }
    assert_eq!(nodes[0].done.len() as u64, TIGHT_RING_BYTES / MESSAGE_COST);
    let into = nodes[1].area(&[]);
    let span = nodes[1].areas[into].all();
    let receives: Vec<_> = (0..32).map(|_| (1, nodes[1].post(&key(1, 0), &receive(span, 0)))).collect();
    finish(&mut nodes, &sends);
    finish(&mut nodes, &receives);
}

/// Rank 0 reduces what ranks 1 and 2 send, many times what its rings hold, while rank 2 comes late.
#[test]
fn a_reduction_larger_than_every_buffer_waits_for_a_late_source() {
    let count = 100_003;
    let mut nodes = world(3, &TIGHT);
    let value = |rank: usize, i: usize| (i as i32).wrapping_mul(7 + rank as i32 * 1000);
    let bytes = |rank: usize| (0..count).flat_map(|i| value(rank, i).to_le_bytes()).collect::<Vec<_>>();
    // A message of odd length first: elements still may not be cut where the ring ends.
    let odd = nodes[1].area(&[9; 13]);
    let span = nodes[1].areas[odd].all();
    let first = nodes[1].post(&key(1, 0), &send(span, 0));

    let own = nodes[0].area(&bytes(0));
    let own = nodes[0].areas[own].all();
    let odd = nodes[0].area(&[0; 13]);
    let odd = nodes[0].areas[odd].all();
    let odd = nodes[0].post(&key(1, 0), &receive(odd, 1));
    let reduce = Post::ReceiveReduce {
        sources: list(&[2, 0, 1]),
        own,
        into: own,
        dtype: DataType::I32,
        op: ReduceOp::Sum,
    };
    // Both sources are asked for the same lane; rank 2 has no odd message.
    let reduced = nodes[0].post(&key(1, 0), &reduce);
    let mut wanted = vec![(1, first), (0, odd), (0, reduced)];
    for rank in [1, 2] {
        let area = nodes[rank].area(&bytes(rank));
        let span = nodes[rank].areas[area].all();
        wanted.push((rank, nodes[rank].post(&key(1, 0), &send(span, 0))));
        nodes.iter_mut().for_each(Node::settle);
        assert!(rank == 2 || !nodes[0].done.contains(&reduced), "a source was missing");
    }
    finish(&mut nodes, &wanted);
    let sum = |i| value(0, i).wrapping_add(value(1, i)).wrapping_add(value(2, i));
    let expected: Vec<u8> = (0..count).flat_map(|i| sum(i).to_le_bytes()).collect();
    nodes[0].areas[0].assert_holds(0, &expected, "the reduction");
}

#[test]
fn a_large_copy_goes_in_bites() {
    let len = (1 << 20) + 3;
    let mut nodes = world(1, &ConnectOptions::default());
    let from = nodes[0].area(&pattern(1, len));
    let into = nodes[0].area(&vec![0; len]);
    let post = Post::Copy { from: nodes[0].areas[from].all(), into: nodes[0].areas[into].all() };
    let token = nodes[0].post(&key(1, 0), &post);
    assert!(!nodes[0].done.contains(&token), "the whole copy was made at once");
    finish(&mut nodes, &[(0, token)]);
    nodes[0].areas[into].assert_holds(0, &pattern(1, len), "the copy");
}

/// What the kernel accepted has to arrive, though the sender leaves at once, with bytes of the receiver unread, and the
/// receiver still sends. It is more than the receiver's kernel takes before anybody reads.
#[test]
fn the_last_messages_before_a_rank_leaves_are_not_lost() {
    let len = 4000;
    let mut nodes = world(2, &ConnectOptions { lanes: 2, ..Default::default() });
    let mut stayer = nodes.pop().unwrap();
    let mut leaver = nodes.pop().unwrap();
    // Bytes that the leaver never reads would turn its closing into a reset.
    let unread = stayer.area(&pattern(1, 60_000));
    let span = stayer.areas[unread].all();
    stayer.post(&key(1, 1), &send(span, 0));
    // The lanes of point-to-point messages have half a ring each.
    let keys = [(key(1, 0), 25), (key(1, 1), 25), (tagged(9), 12), (direct(), 12)];
    let all = keys.iter().flat_map(|(key, count)| (0..*count).map(move |message| (message, key)));
    for (message, key) in all {
        let area = leaver.area(&pattern(message, len));
        let span = leaver.areas[area].all();
        let token = leaver.post(key, &send(span, 1));
        assert!(leaver.done.contains(&token), "message {message} is within the bound");
    }
    let Node { endpoint, areas: _areas, .. } = leaver;
    let leaving = std::thread::spawn(move || drop(endpoint));
    std::thread::sleep(Duration::from_millis(50)); // enough to be gone, were it not polite
    let into = stayer.area(&vec![0; len]);
    let span = stayer.areas[into].all();
    for (key, count) in &keys {
        for message in 0..*count {
            let token = stayer.post(key, &receive(span, 0));
            finish(std::slice::from_mut(&mut stayer), &[(0, token)]);
            stayer.areas[into].assert_holds(0, &pattern(message, len), "a message");
        }
    }
    leaving.join().unwrap();
}
