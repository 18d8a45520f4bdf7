//! Point 11: looking at tagged messages that no post has taken.

use crate::cases::Case;
use crate::support::memory::pattern;
use crate::support::rank::TestRank;
use crate::support::work::{direct, key, receive, send, tagged};
use std::rc::Rc;
use std::time::Instant;
use ubccl_core::Rank;
use ubccl_core::endpoint::{Clock, Header, Key};

pub const CASES: &[Case] = &[
    Case::new("c11_probe_tells_the_next_message_and_leaves_it_there", &[2, 3], |r| Box::pin(in_order(r))),
    Case::new("c11_probe_passes_other_lanes_other_peers_and_no_peers", &[3], |r| Box::pin(others(r))),
    Case::new("c11_what_a_post_takes_is_told_no_more", &[2], |r| Box::pin(taken(r))),
    Case::on(Clock::Real, "c11_sleep_ends_when_a_message_without_a_post_arrives", &[2], |r| {
        Box::pin(asleep(r))
    }),
];

/// Tags and sizes that a sender uses, one message after the other.
const MESSAGES: [(u32, usize); 6] = [(7, 16), (8, 0), (7, 3 << 20), (u32::MAX, 24), (0, 25), (0, 70_000)];

fn header(key: Key, len: usize) -> Header {
    Header { stream: key.stream, signature: key.signature, len: len as u64 }
}

fn probe(rank: &TestRank, peer: Rank) -> Option<Header> {
    rank.with(|endpoint| endpoint.probe(peer)).unwrap_or_else(|fault| panic!("probe: {fault:?}"))
}

async fn probe_until(rank: &TestRank, peer: Rank) -> Header {
    loop {
        if let Some(header) = probe(rank, peer) {
            return header;
        }
        rank.turn("probe to tell a message of rank", peer.into()).await;
    }
}

/// Every other rank learns of each message before it posts for it.
async fn in_order(rank: Rc<TestRank>) {
    if rank.me == 0 {
        let mut tokens = Vec::new();
        for (k, (tag, len)) in MESSAGES.into_iter().enumerate() {
            let area = rank.area_of(&pattern(k as u64, len));
            tokens.extend((1..rank.ranks).map(|to| rank.post(&tagged(tag), &send(area.all(), to))));
        }
        rank.wait(&tokens).await;
        return;
    }
    for (k, (tag, len)) in MESSAGES.into_iter().enumerate() {
        let before = rank.counters();
        let expected = header(tagged(tag), len);
        assert_eq!(probe_until(&rank, 0).await, expected, "message {k}");
        rank.settle().await;
        assert_eq!(probe(&rank, 0), Some(expected), "message {k}, looked at again");
        assert_eq!(rank.counters(), before, "what probe counted");
        let area = rank.area(len);
        let token = rank.post(&tagged(tag), &receive(area.all(), 0));
        rank.wait(&[token]).await;
        area.assert_holds(0, &pattern(k as u64, len), &format!("message {k}"));
    }
    assert_eq!(probe(&rank, 0), None, "everything was taken");
}

/// Rank 0's messages to rank 1 are on other lanes; only rank 2's is tagged.
async fn others(rank: Rc<TestRank>) {
    let area = rank.area_of(&pattern(rank.me.into(), 40));
    let from_zero = [key(1, 0), key(1, 1), direct()];
    match rank.me {
        0 => {
            let tokens = from_zero.map(|key| rank.post(&key, &send(area.all(), 1)));
            rank.wait(&tokens).await;
            rank.meet().await;
        }
        2 => {
            rank.meet().await;
            let token = rank.post(&tagged(3), &send(area.all(), 1));
            rank.wait(&[token]).await;
        }
        _ => {
            rank.settle().await;
            for peer in [0, 1, 2, 3, Rank::MAX >> 12] {
                assert_eq!(probe(&rank, peer), None, "of rank {peer}");
            }
            rank.meet().await;
            assert_eq!(probe_until(&rank, 2).await, header(tagged(3), 40));
            assert_eq!(probe(&rank, 0), None, "of rank 0, which sent on other lanes");
            let keys = from_zero.map(|key| (key, 0)).into_iter().chain([(tagged(3), 2)]);
            for (key, from) in keys {
                let into = rank.area(40);
                let token = rank.post(&key, &receive(into.all(), from));
                rank.wait(&[token]).await;
                into.assert_holds(0, &pattern(from.into(), 40), "a message beside a probe");
            }
        }
    }
}

/// The receive is there first; the message behind the one it takes is told once that one is there.
async fn taken(rank: Rc<TestRank>) {
    for (round, len) in [8, 2 << 20].into_iter().enumerate() {
        let first = rank.area_of(&pattern(round as u64, len));
        if rank.me == 0 {
            rank.meet().await;
            let one = rank.post(&tagged(1), &send(first.all(), 1));
            rank.wait(&[one]).await;
            rank.meet().await;
            let two = rank.post(&tagged(2), &send(first.all(), 1));
            rank.wait(&[two]).await;
            continue;
        }
        let into = rank.area(len);
        let one = rank.post(&tagged(1), &receive(into.all(), 0));
        assert_eq!(probe(&rank, 0), None, "nothing was sent");
        rank.meet().await;
        rank.wait(&[one]).await;
        assert_eq!(probe(&rank, 0), None, "the post took it");
        rank.meet().await;
        assert_eq!(probe_until(&rank, 0).await, header(tagged(2), len));
        let two = rank.post(&tagged(2), &receive(into.all(), 0));
        rank.wait(&[two]).await;
        into.assert_holds(0, &pattern(round as u64, len), "what was received twice");
    }
}

/// A message that nobody posts for ends a sleep: whoever matches tags has to look at it.
async fn asleep(rank: Rc<TestRank>) {
    let (area, patience) = (rank.area(30), rank.patience / 2);
    for round in 0..100_u32 {
        rank.meet().await;
        if rank.me == 0 {
            let token = rank.post(&tagged(round), &send(area.all(), 1));
            rank.wait(&[token]).await;
            continue;
        }
        while probe(&rank, 0).is_none() {
            if rank.pump() {
                continue;
            }
            let began = Instant::now();
            rank.with(|endpoint| endpoint.sleep(patience)).unwrap_or_else(|error| panic!("sleep: {error}"));
            assert!(began.elapsed() < patience, "slept through an arrival");
        }
        assert_eq!(probe(&rank, 0), Some(header(tagged(round), 30)));
        let token = rank.post(&tagged(round), &receive(area.all(), 0));
        rank.wait(&[token]).await;
    }
}
