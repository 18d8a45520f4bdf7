//! Points 3 and 5: what completion means, and that zero bytes are a message; copies, counters, every awkward size.

use crate::cases::Case;
use crate::support::memory::pattern;
use crate::support::rank::TestRank;
use crate::support::work::{key, receive, send, send_to, tagged};
use std::rc::Rc;
use ubccl_core::Rank;
use ubccl_core::endpoint::{Counters, Post};

pub const CASES: &[Case] = &[
    Case::new("c3_every_size_arrives_whole", &[2, 3], |r| Box::pin(sizes(r))),
    Case::new("c3_a_source_may_be_overwritten_once_its_send_completed", &[2], |r| Box::pin(overwrite(r))),
    Case::new("c3_a_source_is_busy_until_every_peer_has_it", &[3], |r| Box::pin(overwrite_shared(r))),
    Case::new("c3_one_buffer_serves_many_rounds", &[2], |r| Box::pin(reuse(r))),
    Case::new("c3_a_copy_completes_with_its_bytes_in_place", &[1, 2], |r| Box::pin(copies(r))),
    Case::new("c3_ranks_may_pass_data_on_round_a_ring", &[1, 2, 3, 5, 8], |r| Box::pin(ring(r))),
    Case::new("c3_counters_tell_what_was_posted", &[3], |r| Box::pin(counters(r))),
    Case::new("c5_zero_bytes_are_a_message_like_any_other", &[2], |r| Box::pin(empty(r))),
    Case::new("c5_an_empty_message_says_that_its_sender_came", &[2, 5], |r| Box::pin(empty_barrier(r))),
];

/// Around every border a transport may have: inline words, cache lines, pages, slots, pipes.
const SIZES: &[usize] = &[
    0,
    1,
    3,
    8,
    24,
    25,
    63,
    64,
    65,
    4095,
    4096,
    4097,
    65_535,
    65_536,
    65_537,
    (256 << 10) + 1,
    (512 << 10) - 1,
    (1 << 20) + 3,
    5 << 20,
];

/// Every size from rank 0 to all others, with receives posted early (even sizes of the list) or late.
async fn sizes(rank: Rc<TestRank>) {
    let peers: Vec<Rank> = (1..rank.ranks).collect();
    for (k, &len) in SIZES.iter().enumerate() {
        for key in [key(1, 0), key(1, 1), tagged(9)] {
            let expected = pattern(len as u64, len);
            let area = if rank.me == 0 { rank.area_of(&expected) } else { rank.area(len) };
            let is_late = (rank.me == 0) == (k % 2 == 0);
            if is_late {
                rank.meet().await;
            }
            let post = if rank.me == 0 { send_to(area.all(), &peers) } else { receive(area.all(), 0) };
            let token = rank.post(&key, &post);
            if !is_late {
                rank.meet().await;
            }
            rank.wait(&[token]).await;
            area.assert_holds(0, &expected, &format!("{len} bytes"));
        }
    }
}

/// The sender overwrites its buffer the moment the send completes; the receiver comes late, so that a transport that
/// only remembered the address is found out.
async fn overwrite(rank: Rc<TestRank>) {
    for &len in SIZES {
        for receiver_lags in [false, true] {
            let expected = pattern(len as u64 + 7, len);
            if rank.me == 0 {
                let area = rank.area_of(&expected);
                let token = rank.post(&key(1, 0), &send(area.all(), 1));
                if rank.is_done(token) {
                    area.write(0, &vec![0x99; len]);
                }
                rank.wait(&[token]).await;
                area.write(0, &vec![0x99; len]);
            } else {
                if receiver_lags {
                    rank.settle().await;
                }
                let area = rank.area(len);
                let token = rank.post(&key(1, 0), &receive(area.all(), 0));
                rank.wait(&[token]).await;
                area.assert_holds(0, &expected, &format!("{len} bytes, overwritten after completion"));
            }
        }
    }
}

/// One send to two peers of which one comes late: the source is not free before both have it.
async fn overwrite_shared(rank: Rc<TestRank>) {
    for &len in SIZES {
        for late in [1, 2] {
            let expected = pattern(len as u64 + u64::from(late), len);
            if rank.me == 0 {
                let area = rank.area_of(&expected);
                let token = rank.post(&key(1, 1), &send_to(area.all(), &[1, 2]));
                rank.wait(&[token]).await;
                area.write(0, &vec![0x99; len]);
            } else {
                if rank.me == late {
                    rank.settle().await;
                }
                let area = rank.area(len);
                let token = rank.post(&key(1, 1), &receive(area.all(), 0));
                rank.wait(&[token]).await;
                area.assert_holds(0, &expected, &format!("{len} bytes for two"));
            }
        }
    }
}

/// 300 rounds out of one buffer into one buffer, both directions at once.
async fn reuse(rank: Rc<TestRank>) {
    let peer = 1 - rank.me;
    for len in [8, 1000, 40_000] {
        let (out, back) = (rank.area(len), rank.area(len));
        for round in 0..300 {
            out.write(0, &pattern(round * 2 + u64::from(rank.me), len));
            let sent = rank.post(&key(round + 1, 0), &send(out.all(), peer));
            let received = rank.post(&key(round + 1, 0), &receive(back.all(), peer));
            rank.wait(&[sent, received]).await;
            back.assert_holds(0, &pattern(round * 2 + u64::from(peer), len), &format!("round {round}"));
        }
    }
}

/// Copies within a rank, between regions and inside one.
async fn copies(rank: Rc<TestRank>) {
    for &len in SIZES {
        let expected = pattern(len as u64, len);
        let (from, into) = (rank.area_of(&expected), rank.area(2 * len));
        let first = rank.post(&key(1, 0), &Post::Copy { from: from.all(), into: into.span(0, len) });
        rank.wait(&[first]).await;
        let second = Post::Copy { from: into.span(0, len), into: into.span(len, len) };
        let second = rank.post(&key(1, 0), &second);
        rank.wait(&[second]).await;
        into.assert_holds(0, &expected, "the copy");
        into.assert_holds(len, &expected, "the copy of the copy");
        from.assert_holds(0, &expected, "the original");
    }
}

/// Every rank's block goes all the way round: what was received is sent on. One rank alone has nothing to post.
async fn ring(rank: Rc<TestRank>) {
    let n = rank.ranks;
    let block = |owner: Rank, len: usize| pattern(u64::from(owner) << 8 | 3, len);
    for len in [24, 50_000] {
        let area = rank.area(n as usize * len);
        let span = |owner: Rank| area.span(owner as usize * len, len);
        area.write(rank.me as usize * len, &block(rank.me, len));
        let (next, previous) = ((rank.me + 1) % n, (rank.me + n - 1) % n);
        for step in 0..n - 1 {
            let (mine, theirs) = ((rank.me + n - step) % n, (previous + n - step) % n);
            let sent = rank.post(&key(1, 0), &send(span(mine), next));
            let received = rank.post(&key(1, 0), &receive(span(theirs), previous));
            rank.wait(&[sent, received]).await;
        }
        for owner in 0..n {
            area.assert_holds(owner as usize * len, &block(owner, len), &format!("block of rank {owner}"));
        }
    }
}

/// A send counts once for each peer, an entry of this rank itself in a reduction not at all.
async fn counters(rank: Rc<TestRank>) {
    let area = rank.area(1000);
    assert_eq!(rank.counters(), Counters::default());
    let tokens = match rank.me {
        0 => vec![
            rank.post(&key(1, 0), &send_to(area.all(), &[1, 2])),
            rank.post(&key(1, 1), &send(area.span(0, 0), 1)),
        ],
        1 => vec![
            rank.post(&key(1, 0), &receive(area.all(), 0)),
            rank.post(&key(1, 1), &receive(area.span(0, 0), 0)),
        ],
        _ => vec![rank.post(&key(1, 0), &receive(area.all(), 0))],
    };
    rank.wait(&tokens).await;
    rank.meet().await;
    let counted = rank.counters();
    let of = |messages, bytes| (messages, bytes);
    let (sent, received) = match rank.me {
        0 => (of(3, 2000), of(0, 0)),
        1 => (of(0, 0), of(2, 1000)),
        _ => (of(0, 0), of(1, 1000)),
    };
    assert_eq!((counted.messages_sent, counted.bytes_sent), sent);
    assert_eq!((counted.messages_received, counted.bytes_received), received);
    assert_eq!(rank.counted_over_links(), counted, "the links' counts sum up to the total");
}

/// Empty messages between full ones, on every lane: none is lost, none overtakes.
async fn empty(rank: Rc<TestRank>) {
    let sizes = [0, 0, 10, 0, 70_000, 0, 0, 0, 24, 0];
    for key in [key(1, 0), key(1, 1), tagged(0)] {
        let mut tokens = Vec::new();
        let mut areas = Vec::new();
        for (k, &len) in sizes.iter().enumerate() {
            let expected = pattern(k as u64, len);
            let area = if rank.me == 0 { rank.area_of(&expected) } else { rank.area(len) };
            let post = if rank.me == 0 { send(area.all(), 1) } else { receive(area.all(), 0) };
            tokens.push(rank.post(&key, &post));
            areas.push((area, expected));
        }
        rank.wait(&tokens).await;
        for (area, expected) in areas {
            area.assert_holds(0, &expected, "a message among empty ones");
        }
    }
}

/// A receive of nothing completes when its message has come, not before: rank 1 would see the flag too early.
async fn empty_barrier(rank: Rc<TestRank>) {
    let nothing = rank.area(0);
    if rank.me == 0 {
        rank.settle().await;
        rank.meet().await;
        let peers: Vec<Rank> = (1..rank.ranks).collect();
        let token = rank.post(&key(1, 0), &send_to(nothing.all(), &peers));
        rank.wait(&[token]).await;
    } else {
        let token = rank.post(&key(1, 0), &receive(nothing.all(), 0));
        rank.settle().await;
        assert!(!rank.is_done(token), "an empty message was received before it was sent");
        rank.meet().await;
        rank.wait(&[token]).await;
    }
}
