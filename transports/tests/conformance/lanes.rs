//! Points 1 and 2: posting never blocks and is never refused; lanes keep order, lanes and peers are independent.

use crate::cases::Case;
use crate::support::memory::pattern;
use crate::support::rank::TestRank;
use crate::support::work::{direct, key, receive, send, send_to, tagged};
use std::rc::Rc;
use ubccl_core::Rank;
use ubccl_core::endpoint::{Key, Token};
use ubccl_core::plan::MAX_WINDOW_PER_PEER;

pub const CASES: &[Case] = &[
    Case::new("c1_a_window_of_sends_is_taken_before_anybody_receives", &[2, 3], |r| Box::pin(sends_first(r))),
    Case::new("c1_a_window_of_receives_is_taken_before_anybody_sends", &[2, 3], |r| {
        Box::pin(receives_first(r))
    }),
    Case::new("c1_a_lane_has_a_window_for_each_peer", &[4], |r| Box::pin(window_for_each_peer(r))),
    Case::new("c1_both_sides_may_send_much_before_they_receive", &[2], |r| Box::pin(crossing(r))),
    Case::new("c2_messages_of_a_lane_keep_their_order", &[2], |r| Box::pin(order(r))),
    Case::new("c2_the_kth_send_meets_the_kth_receive_with_peer_lists", &[3, 5], |r| Box::pin(peer_lists(r))),
    Case::new("c2_a_small_unreceived_message_holds_up_no_other_lane", &[2], |r| Box::pin(lanes_apart(r, 24))),
    Case::new("c2_a_large_unreceived_message_holds_up_no_other_lane", &[2], |r| {
        Box::pin(lanes_apart(r, 8 << 20))
    }),
    Case::new("c2_a_full_window_holds_up_no_other_lane", &[2], |r| Box::pin(full_window_apart(r))),
    Case::new("c2_an_unreceived_message_holds_up_no_other_peer", &[3], |r| Box::pin(peers_apart(r))),
];

/// Bytes of message `k` from `from`.
fn message(from: Rank, k: usize, len: usize) -> Vec<u8> {
    pattern(u64::from(from) << 32 | k as u64, len)
}

/// Test lanes.
const LANES: u8 = 4;

/// The key of a test lane: collectives' lanes, then those of tagged and of direct messages.
fn lane(lane: u8) -> Key {
    match lane {
        0 | 1 => key(1, lane),
        2 => tagged(5),
        _ => direct(),
    }
}

/// The window towards one peer.
const WINDOW: usize = MAX_WINDOW_PER_PEER as usize;

/// Rank 0 fills the window of every lane to every peer; only then do the others begin to receive.
async fn sends_first(rank: Rc<TestRank>) {
    for len in [8, 16 << 10] {
        window(&rank, len, true).await;
    }
}

/// The receivers fill their windows; only then does rank 0 begin to send.
async fn receives_first(rank: Rc<TestRank>) {
    for len in [8, 16 << 10] {
        window(&rank, len, false).await;
    }
}

async fn window(rank: &TestRank, len: usize, senders_first: bool) {
    let area = rank.area(usize::from(LANES) * WINDOW * len);
    let at = |lane: u8, k: usize| (usize::from(lane) * WINDOW + k) * len;
    let peers: Vec<Rank> = (1..rank.ranks).collect();
    let is_sender = rank.me == 0;
    if is_sender != senders_first {
        rank.meet().await;
    }
    let mut tokens = Vec::new();
    for k in 0..WINDOW {
        for l in 0..LANES {
            let span = area.span(at(l, k), len);
            if is_sender {
                area.write(at(l, k), &message(0, at(l, k), len));
                tokens.push(rank.post(&lane(l), &send_to(span, &peers)));
            } else {
                tokens.push(rank.post(&lane(l), &receive(span, 0)));
            }
        }
    }
    if is_sender == senders_first {
        rank.meet().await;
    }
    rank.wait(&tokens).await;
    for l in 0..LANES {
        for k in 0..WINDOW {
            area.assert_holds(at(l, k), &message(0, at(l, k), len), &format!("message {k} of lane {l}"));
        }
    }
}

/// On one lane, every rank fills its window towards each of the others with sends of one peer each; only then do they
/// fill those of the receives.
async fn window_for_each_peer(rank: Rc<TestRank>) {
    let others: Vec<Rank> = (0..rank.ranks).filter(|&peer| peer != rank.me).collect();
    for (sequence, len) in [(1, 8), (2, 16 << 10)] {
        let (out, back) = (rank.area(others.len() * WINDOW * len), rank.area(others.len() * WINDOW * len));
        let at = |place: usize, k: usize| (place * WINDOW + k) * len;
        // What goes to one peer is told apart from what goes to another.
        let number = |to: Rank, k: usize| to as usize * WINDOW + k;
        let mut tokens = Vec::new();
        for k in 0..WINDOW {
            for (place, &peer) in others.iter().enumerate() {
                out.write(at(place, k), &message(rank.me, number(peer, k), len));
                tokens.push(rank.post(&key(sequence, 0), &send(out.span(at(place, k), len), peer)));
            }
        }
        rank.meet().await;
        for k in 0..WINDOW {
            for (place, &peer) in others.iter().enumerate() {
                tokens.push(rank.post(&key(sequence, 0), &receive(back.span(at(place, k), len), peer)));
            }
        }
        rank.wait(&tokens).await;
        for (place, &peer) in others.iter().enumerate() {
            for k in 0..WINDOW {
                let expected = message(peer, number(rank.me, k), len);
                back.assert_holds(at(place, k), &expected, &format!("message {k} of rank {peer}"));
            }
        }
    }
}

/// Two ranks send 8 MiB to each other on each lane and only then post receives: nobody may wait for the other inside
/// a post.
async fn crossing(rank: Rc<TestRank>) {
    let (len, peer) = (8 << 20, 1 - rank.me);
    let mut tokens = Vec::new();
    for l in 0..LANES {
        let out = rank.area_of(&message(rank.me, l.into(), len));
        tokens.push(rank.post(&lane(l), &send(out.all(), peer)));
    }
    rank.meet().await;
    for l in 0..LANES {
        let area = rank.area(len);
        let token = rank.post(&lane(l), &receive(area.all(), peer));
        rank.wait(&[token]).await;
        area.assert_holds(0, &message(peer, l.into(), len), "crossing message");
    }
    rank.wait(&tokens).await;
}

/// 600 messages of mixed sizes on each lane, a window at a time; the receiver lags behind now and then.
async fn order(rank: Rc<TestRank>) {
    let sizes = [8, 0, 1, 70_000, 24, 25, 4096, 3, 65_536, 64];
    let size = |k: usize| sizes[k % sizes.len()];
    let area = rank.area(WINDOW * 70_000);
    for round in 0..10 {
        let mut tokens = Vec::new();
        let number = |k: usize| round * WINDOW + k;
        for k in 0..WINDOW {
            let (offset, len) = (k * 70_000, size(number(k)));
            let span = area.span(offset, len);
            let l = (number(k) % usize::from(LANES)) as u8;
            if rank.me == 0 {
                area.write(offset, &message(0, number(k), len));
                tokens.push(rank.post(&lane(l), &send(span, 1)));
            } else {
                tokens.push(rank.post(&lane(l), &receive(span, 0)));
            }
        }
        rank.wait(&tokens).await;
        for k in 0..WINDOW {
            area.assert_holds(
                k * 70_000,
                &message(0, number(k), size(number(k))),
                &format!("message {}", number(k)),
            );
        }
    }
}

/// Rank 0 sends to varying lists of peers, on one lane; every peer counts only what is meant for it.
async fn peer_lists(rank: Rc<TestRank>) {
    let last = rank.ranks - 1;
    let lists: [Vec<Rank>; 6] =
        [(1..=last).collect(), vec![last], vec![1], (1..=last).rev().collect(), vec![last, 1], vec![1]];
    let len = 3000;
    let area = rank.area(lists.len() * len);
    let mut tokens = Vec::new();
    for (k, list) in lists.iter().enumerate() {
        let span = area.span(k * len, len);
        if rank.me == 0 {
            area.write(k * len, &message(0, k, len));
            tokens.push(rank.post(&key(1, 0), &send_to(span, list)));
        } else if list.contains(&rank.me) {
            tokens.push(rank.post(&key(1, 0), &receive(span, 0)));
        }
    }
    rank.wait(&tokens).await;
    for (k, _) in lists.iter().enumerate().filter(|(_, list)| list.contains(&rank.me)) {
        area.assert_holds(k * len, &message(0, k, len), &format!("message {k} of a list"));
    }
}

/// On every ordered pair of lanes: a message of `len` bytes that nobody receives yet, then a small one that arrives.
async fn lanes_apart(rank: Rc<TestRank>, len: usize) {
    for (held, free) in [(1, 0), (0, 1), (2, 0), (0, 2), (3, 0), (2, 3), (3, 2)] {
        let (big, small) = (rank.area(len), rank.area(24));
        if rank.me == 0 {
            big.write(0, &message(0, 1, len));
            small.write(0, &message(0, 2, 24));
            let first = rank.post(&lane(held), &send(big.all(), 1));
            let second = rank.post(&lane(free), &send(small.all(), 1));
            rank.wait(&[first, second]).await;
        } else {
            let token = rank.post(&lane(free), &receive(small.all(), 0));
            rank.wait(&[token]).await;
            let token = rank.post(&lane(held), &receive(big.all(), 0));
            rank.wait(&[token]).await;
            small.assert_holds(0, &message(0, 2, 24), "the small message");
            big.assert_holds(0, &message(0, 1, len), "the held message");
        }
        rank.meet().await;
    }
}

/// A whole window of unreceived messages on lane 1, then 200 that come through on lane 0.
async fn full_window_apart(rank: Rc<TestRank>) {
    let len = 32 << 10;
    let (held, free) = (rank.area(WINDOW * len), rank.area(len));
    let post_held = |k: usize| {
        let span = held.span(k * len, len);
        if rank.me == 0 {
            held.write(k * len, &message(0, k, len));
            rank.post(&key(1, 1), &send(span, 1))
        } else {
            rank.post(&key(1, 1), &receive(span, 0))
        }
    };
    let mut tokens: Vec<Token> = Vec::new();
    if rank.me == 0 {
        tokens.extend((0..WINDOW).map(post_held));
    }
    for k in 0..200 {
        let expected = message(0, 1000 + k, len);
        let token = if rank.me == 0 {
            free.write(0, &expected);
            rank.post(&key(1, 0), &send(free.all(), 1))
        } else {
            rank.post(&key(1, 0), &receive(free.all(), 0))
        };
        rank.wait(&[token]).await;
        free.assert_holds(0, &expected, "a message beside a full window");
    }
    if rank.me == 1 {
        tokens.extend((0..WINDOW).map(post_held));
    }
    rank.wait(&tokens).await;
    for k in 0..WINDOW {
        held.assert_holds(k * len, &message(0, k, len), "a held message");
    }
}

/// Rank 0's message to rank 1 is not received; what 0 sends to 2, and what 2 sends to 1, arrives all the same.
async fn peers_apart(rank: Rc<TestRank>) {
    let len = 8 << 20;
    let (big, small) = (rank.area(len), rank.area(100));
    match rank.me {
        0 => {
            big.write(0, &message(0, 1, len));
            small.write(0, &message(0, 2, 100));
            let held = rank.post(&key(1, 0), &send(big.all(), 1));
            let free = rank.post(&key(1, 0), &send(small.all(), 2));
            rank.wait(&[held, free]).await;
        }
        1 => {
            let token = rank.post(&key(1, 0), &receive(small.all(), 2));
            rank.wait(&[token]).await;
            let token = rank.post(&key(1, 0), &receive(big.all(), 0));
            rank.wait(&[token]).await;
            small.assert_holds(0, &message(0, 2, 100), "what came round by rank 2");
            big.assert_holds(0, &message(0, 1, len), "the held message");
        }
        _ => {
            let token = rank.post(&key(1, 0), &receive(small.all(), 0));
            rank.wait(&[token]).await;
            let token = rank.post(&key(1, 0), &send(small.all(), 1));
            rank.wait(&[token]).await;
        }
    }
}
