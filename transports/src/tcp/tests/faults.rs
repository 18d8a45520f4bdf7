//! Broken, leaving and disagreeing peers.

use super::memory::pattern;
use super::work::{call, key, receive, send};
use super::{Node, finish, world};
use crate::tcp::connection::Connection;
use crate::tcp::endpoint::TcpEndpoint;
use crate::tcp::wire::{Frame, MESSAGE_COST};
use proptest::prelude::*;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use ubccl_core::endpoint::{ConnectOptions, Endpoint, Fault, Header, Key, Stream};
use ubccl_core::{ErrorKind, Signature};

const RING_BYTES: u64 = 16 * MESSAGE_COST;

/// A node that is rank 0 of two, and the bare socket of its peer.
fn node_and_socket() -> (Node, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let ours = listener.accept().unwrap().0;
    let connection = Connection::new(ours.into(), RING_BYTES, RING_BYTES);
    (Node::new(TcpEndpoint::new(0, vec![None, Some(connection)]).unwrap()), socket)
}

fn data(len: u64, offset: u64, fragment: u32) -> Vec<u8> {
    let header = Header { stream: Stream::Collective(1), signature: call(), len };
    Frame::Data { lane: 0, header, offset, fragment }.encode().to_vec()
}

#[track_caller]
fn assert_lost(fault: Fault, part: &str) {
    match fault {
        Fault::Lost { peer: 1, message } => {
            assert!(message.contains("rank 1") && message.contains(part), "{message}");
        }
        other => panic!("not a lost peer: {other:?}"),
    }
}

#[test]
fn a_peer_that_closes_in_the_middle_of_a_message_is_lost_and_the_rest_of_memory_untouched() {
    let (mut node, mut socket) = node_and_socket();
    let area = node.area(&[7; 100]);
    let span = node.areas[area].all();
    node.post(&key(1, 0), &receive(span, 1));
    socket.write_all(&data(100, 0, 100)).unwrap();
    socket.write_all(&[1; 40]).unwrap();
    drop(socket);
    assert_lost(node.fault(), "middle of a message");
    // It stays lost.
    assert_lost(node.try_poll().unwrap_err(), "middle of a message");
    node.areas[area].assert_holds(40, &[7; 60], "what was not sent");
}

#[test]
fn a_leaver_is_silent_until_it_is_needed_and_what_it_sent_can_be_taken() {
    let (mut node, mut socket) = node_and_socket();
    let area = node.area(&[0; 5]);
    let span = node.areas[area].all();
    socket.write_all(&data(5, 0, 5)).unwrap();
    socket.write_all(&[3; 5]).unwrap();
    drop(socket);
    node.settle();
    let token = node.post(&key(1, 0), &receive(span, 1));
    assert!(node.done.contains(&token));
    node.areas[area].assert_holds(0, &[3; 5], "its last message");
    node.settle();
    assert_lost(node.try_post(&key(1, 0), &receive(span, 1)).unwrap_err(), "closed its connection");
}

#[test]
fn sending_to_a_leaver_is_a_lost_peer_even_if_the_kernel_would_take_the_bytes() {
    let (mut node, socket) = node_and_socket();
    let area = node.area(&[0; 5]);
    let span = node.areas[area].all();
    drop(socket);
    node.settle();
    assert_lost(node.try_post(&key(1, 0), &send(span, 1)).unwrap_err(), "closed its connection");
    assert_lost(node.try_poll().unwrap_err(), "closed its connection");
}

#[test]
fn a_peer_that_leaves_during_a_send_is_lost() {
    let (mut node, socket) = node_and_socket();
    let area = node.area(&[0; 50_000]);
    let span = node.areas[area].all();
    node.post(&key(1, 0), &send(span, 1));
    node.settle();
    drop(socket);
    assert_lost(node.fault(), "connection");
}

#[test]
fn other_peers_go_on_while_one_is_lost() {
    let mut nodes = world(3, &ConnectOptions::default());
    nodes.pop();
    for node in &mut nodes {
        node.settle();
    }
    let area = nodes[0].area(&pattern(1, 70_000));
    let span = nodes[0].areas[area].all();
    let sent = nodes[0].post(&key(1, 0), &send(span, 1));
    let area = nodes[1].area(&[0; 70_000]);
    let span = nodes[1].areas[area].all();
    let received = nodes[1].post(&key(1, 0), &receive(span, 0));
    finish(&mut nodes, &[(0, sent), (1, received)]);
    let span = nodes[0].areas[0].all();
    let fault = nodes[0].try_post(&key(1, 0), &receive(span, 2));
    assert!(matches!(fault, Err(Fault::Lost { peer: 2, .. })), "{fault:?}");
}

#[test]
fn a_message_larger_than_all_buffers_is_found_to_differ_before_it_is_received() {
    let mut nodes = world(2, &ConnectOptions::default());
    let theirs = Key { signature: Signature(77), ..key(1, 0) };
    let area = nodes[1].area(&vec![1; 8 << 20]);
    let span = nodes[1].areas[area].all();
    nodes[1].post(&theirs, &send(span, 0));
    let area = nodes[0].area(&[6; 10]);
    let span = nodes[0].areas[area].all();
    nodes[0].post(&key(1, 0), &receive(span, 1));
    let Fault::Mismatch { peer, theirs, ours } = nodes[0].fault() else { panic!("no mismatch") };
    assert_eq!((peer, theirs.signature, theirs.len), (1, Signature(77), 8 << 20));
    assert_eq!((ours.signature, ours.len), (call(), 10));
    nodes[0].areas[area].assert_holds(0, &[6; 10], "memory of a refused message");
    assert!(matches!(nodes[0].try_poll(), Err(Fault::Mismatch { .. })), "a mismatch does not go away");
}

#[test]
fn more_than_was_granted_is_refused() {
    let (mut node, mut socket) = node_and_socket();
    for _ in 0..RING_BYTES / MESSAGE_COST + 1 {
        socket.write_all(&data(0, 0, 0)).unwrap();
    }
    node.settle();
    let area = node.area(&[]);
    let span = node.areas[area].all();
    // What was in order before is taken; then the connection is out of order.
    for _ in 0..RING_BYTES / MESSAGE_COST {
        let token = node.post(&key(1, 0), &receive(span, 1));
        assert!(node.done.contains(&token));
    }
    assert_lost(node.try_post(&key(1, 0), &receive(span, 1)).unwrap_err(), "more than was granted");
}

#[test]
fn fragments_out_of_order_and_grants_taken_back_are_refused() {
    let wrong: [(&[Vec<u8>], &str); 3] = [
        (&[data(9, 3, 3)], "without its beginning"),
        (&[data(9, 0, 3), vec![0; 3], data(9, 6, 3), vec![0; 3]], "out of order"),
        (&[Frame::Grant { lane: 0, limit: RING_BYTES - 1 }.encode().to_vec()], "takes back"),
    ];
    for (frames, part) in wrong {
        let (mut node, mut socket) = node_and_socket();
        let area = node.area(&[0; 9]);
        let span = node.areas[area].all();
        node.post(&key(1, 0), &receive(span, 1));
        socket.write_all(&frames.concat()).unwrap();
        assert_lost(node.fault(), part);
    }
}

#[test]
fn after_cancel_there_are_only_errors() {
    let (mut node, mut socket) = node_and_socket();
    let area = node.area(&[4; 9]);
    let span = node.areas[area].all();
    node.post(&key(1, 0), &receive(span, 1));
    node.endpoint.cancel();
    socket.write_all(&data(9, 0, 9)).unwrap();
    socket.write_all(&[1; 9]).unwrap();
    let faults = [node.try_poll().unwrap_err(), node.try_post(&key(1, 0), &receive(span, 1)).unwrap_err()];
    for fault in faults {
        assert!(matches!(&fault, Fault::Other(error) if error.kind() == ErrorKind::Closed), "{fault:?}");
    }
    node.areas[area].assert_holds(0, &[4; 9], "memory after cancel");
}

/// Random frames that mostly fit, with payload, as an authenticated but broken peer may send.
fn broken_frames() -> impl Strategy<Value = Vec<u8>> {
    let frame = (0..3usize, 0..3u64, 0..2000u64, 0..2000u64, 0..600u32, any::<bool>());
    let frame = frame.prop_map(|(lane, sequence, len, offset, fragment, is_whole)| {
        let header = Header { stream: Stream::Collective(sequence), signature: call(), len };
        let (offset, fragment) = if is_whole { (0, len as u32) } else { (offset, fragment) };
        let mut bytes = Frame::Data { lane, header, offset, fragment }.encode().to_vec();
        bytes.resize(bytes.len() + fragment as usize, 1);
        bytes
    });
    let grant = (0..3usize, 0..4 * RING_BYTES)
        .prop_map(|(lane, limit)| Frame::Grant { lane, limit: RING_BYTES + limit }.encode().to_vec());
    let junk = proptest::collection::vec(any::<u8>(), 0..60);
    let any = prop_oneof![8 => frame, 2 => grant, 1 => junk];
    proptest::collection::vec(any, 1..30).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_a_peer_sends_nothing_panics_and_no_guard_is_touched(
        bytes in broken_frames(),
        posts in proptest::collection::vec((0..3u8, 0..2000usize), 0..10),
    ) {
        let (mut node, mut socket) = node_and_socket();
        let area = node.area(&[0; 2000]);
        for (lane, len) in posts {
            let span = node.areas[area].span(0, len);
            let _ = node.try_post(&key(1, lane), &receive(span, 1));
        }
        socket.write_all(&bytes).unwrap();
        drop(socket);
        for _ in 0..20 {
            let _ = node.try_poll();
        }
        node.areas[area].assert_guards("the receiver");
    }
}
