//! Points 4 and 9: messages that do not fit what this rank called, met by a post or found by `inspect`.

use crate::cases::Case;
use crate::support::memory::pattern;
use crate::support::rank::TestRank;
use crate::support::work::{call, key, list, receive, send, tagged};
use std::rc::Rc;
use ubccl_core::endpoint::{CLOSING, Fault, Header, Key, Post, Stream};
use ubccl_core::{Collective, DataType, Rank, ReduceOp, Signature};

pub const CASES: &[Case] = &[
    Case::new("c4_another_sequence_is_a_mismatch", &[2], |r| Box::pin(meet_wrongly(r, SEQUENCES)))
        .variants(2 * SEQUENCES.len()),
    Case::new("c4_another_signature_is_a_mismatch", &[2], |r| Box::pin(meet_wrongly(r, SIGNATURES)))
        .variants(2 * SIGNATURES.len()),
    Case::new("c4_another_length_is_a_mismatch", &[2], |r| Box::pin(meet_wrongly(r, LENGTHS)))
        .variants(2 * LENGTHS.len()),
    Case::new("c4_another_tag_is_a_mismatch", &[2], |r| Box::pin(meet_wrongly(r, TAGS)))
        .variants(2 * TAGS.len()),
    Case::new("c4_a_mismatch_among_the_sources_of_a_reduction_is_found", &[3], |r| Box::pin(in_reduction(r)))
        .variants(4),
    Case::new("c4_what_came_before_a_mismatch_stays_right", &[2], |r| Box::pin(after_good_ones(r))),
    Case::new("c9_inspect_finds_a_message_of_another_call", &[2], |r| Box::pin(inspect(r, 4, other_call()))),
    Case::new("c9_inspect_finds_a_message_of_an_older_operation", &[2], |r| Box::pin(inspect(r, 3, call()))),
    Case::new("c9_inspect_finds_anything_when_closing", &[2], |r| Box::pin(inspect_closing(r))).variants(3),
    Case::new("c9_inspect_passes_what_can_still_be_taken", &[2], |r| Box::pin(inspect_takeable(r))),
];

const SMALL: usize = 16;
const LARGE: usize = (1 << 20) + 8;

/// What is sent and what is expected: a stream number, whether the call is the other one, and a length.
type Pair = [(u32, bool, usize); 2];

const SEQUENCES: &[Pair] = &[
    [(4, false, SMALL), (5, false, SMALL)],
    [(6, false, SMALL), (5, false, SMALL)],
    [(4, false, LARGE), (5, false, LARGE)],
    [(4, false, 0), (5, false, 0)],
];

const SIGNATURES: &[Pair] = &[
    [(5, true, SMALL), (5, false, SMALL)],
    [(5, true, LARGE), (5, false, LARGE)],
    [(5, true, 0), (5, false, 0)],
];

const LENGTHS: &[Pair] = &[
    [(5, false, SMALL), (5, false, SMALL - 4)],
    [(5, false, SMALL - 4), (5, false, SMALL)],
    [(5, false, 0), (5, false, SMALL)],
    [(5, false, SMALL), (5, false, 0)],
    [(5, false, LARGE), (5, false, LARGE + 4)],
    [(5, false, LARGE), (5, false, SMALL)],
    [(5, false, SMALL), (5, false, LARGE)],
];

/// Numbers from here on are tags.
const TAG: u32 = 1000;

const TAGS: &[Pair] =
    &[[(TAG, false, SMALL), (TAG + 1, false, SMALL)], [(TAG + 1, false, LARGE), (TAG, false, LARGE)]];

fn other_call() -> Signature {
    Collective::all_reduce(1001, DataType::F32, ReduceOp::Sum).signature(7)
}

fn key_of((stream, is_other, _): (u32, bool, usize)) -> Key {
    let key = if stream < TAG { key(stream.into(), 0) } else { tagged(stream) };
    if is_other { Key { signature: other_call(), ..key } } else { key }
}

/// What a message of this key and length says of itself.
fn header(key: Key, len: usize) -> Header {
    Header { stream: key.stream, signature: key.signature, len: len as u64 }
}

/// Rank 0 sends one thing where rank 1 expects another; in even variants the receive is there first, in odd ones the
/// message.
async fn meet_wrongly(rank: Rc<TestRank>, pairs: &[Pair]) {
    let [theirs, ours] = pairs[rank.variant / 2];
    let receive_first = rank.variant.is_multiple_of(2);
    rank.expect_faults();
    if rank.me == 0 {
        if receive_first {
            rank.meet().await;
        }
        let area = rank.area_of(&pattern(3, theirs.2));
        rank.try_post(&key_of(theirs), &send(area.all(), 1));
        if !receive_first {
            rank.meet().await;
        }
        return;
    }
    if !receive_first {
        rank.meet().await;
        rank.settle().await;
    }
    let area = rank.area(ours.2);
    let before = area.read(0, area.len());
    let token = rank.try_post(&key_of(ours), &receive(area.all(), 0));
    if receive_first {
        rank.meet().await;
    }
    let fault = rank.fault_instead_of(&[token]).await;
    assert_mismatch(fault, 0, header(key_of(theirs), theirs.2), header(key_of(ours), ours.2));
    area.assert_holds(0, &before, "the destination of a mismatch");
    rank.with(|endpoint| endpoint.cancel());
    rank.settle().await;
    area.assert_holds(0, &before, "the destination of a mismatch, after cancel");
}

#[track_caller]
fn assert_mismatch(fault: Fault, from: Rank, expected_theirs: Header, expected_ours: Header) {
    match fault {
        Fault::Mismatch { peer, theirs, ours } => {
            assert_eq!(peer, from, "the peer of a mismatch");
            assert_eq!(theirs, expected_theirs, "their header");
            assert_eq!(ours, expected_ours, "our header");
        }
        other => panic!("a mismatch was expected, not {other:?}"),
    }
}

/// Rank 2 reduces what ranks 0 and 1 send; one of them is in another call. The output is not touched, not even where
/// it is the input.
async fn in_reduction(rank: Rc<TestRank>) {
    let len = if rank.variant < 2 { SMALL } else { LARGE };
    let culprit = (rank.variant % 2) as Rank;
    rank.expect_faults();
    if rank.me < 2 {
        let signature = if rank.me == culprit { other_call() } else { call() };
        let area = rank.area_of(&pattern(rank.me.into(), len));
        rank.try_post(&Key { signature, ..key(5, 1) }, &send(area.all(), 2));
        return;
    }
    let before = pattern(77, len);
    let own = rank.area_of(&before);
    let post = Post::ReceiveReduce {
        sources: list(&[0, 2, 1]),
        own: own.all(),
        into: own.all(),
        dtype: DataType::I32,
        op: ReduceOp::Sum,
    };
    let token = rank.try_post(&key(5, 1), &post);
    let fault = rank.fault_instead_of(&[token]).await;
    let theirs = Key { signature: other_call(), ..key(5, 1) };
    assert_mismatch(fault, culprit, header(theirs, len), header(key(5, 1), len));
    own.assert_holds(0, &before, "the output of a mismatched reduction");
}

/// Good messages are received, then a wrong one comes on the same lane: what is there stays.
async fn after_good_ones(rank: Rc<TestRank>) {
    rank.expect_faults();
    let wrong = Key { signature: other_call(), ..key(5, 0) };
    if rank.me == 0 {
        for k in 0..20 {
            let area = rank.area_of(&pattern(k, 5000));
            rank.try_post(&if k < 19 { ours_key() } else { wrong }, &send(area.all(), 1));
        }
        return;
    }
    let area = rank.area(20 * 5000);
    for k in 0..19 {
        let token = rank.try_post(&ours_key(), &receive(area.span(k * 5000, 5000), 0));
        rank.wait(&[token]).await;
    }
    let token = rank.try_post(&ours_key(), &receive(area.span(19 * 5000, 5000), 0));
    let fault = rank.fault_instead_of(&[token]).await;
    assert_mismatch(fault, 0, header(wrong, 5000), header(ours_key(), 5000));
    for k in 0..19 {
        area.assert_holds(k * 5000, &pattern(k as u64, 5000), &format!("good message {k}"));
    }
    area.assert_holds(19 * 5000, &[0xEE; 5000], "the destination of the wrong message");
}

/// What rank 1 expects.
fn ours_key() -> Key {
    key(5, 0)
}

/// Rank 0's message of operation `sequence` and `signature` waits on a lane where rank 1, in operation 4, posts
/// nothing.
async fn inspect(rank: Rc<TestRank>, sequence: u64, signature: Signature) {
    rank.expect_faults();
    let theirs = Key { signature, ..key(sequence, 1) };
    if rank.me == 0 {
        let area = rank.area_of(&pattern(1, SMALL));
        rank.try_post(&theirs, &send(area.all(), 1));
        return;
    }
    let fault = loop {
        match rank.inspect(4, call()) {
            Ok(()) => rank.turn("inspect to find the message of", sequence).await,
            Err(fault) => break fault,
        }
    };
    let Fault::Mismatch { peer, theirs: found, ours } = fault else { panic!("not a mismatch: {fault:?}") };
    assert_eq!((peer, found), (0, header(theirs, SMALL)));
    assert_eq!((ours.stream, ours.signature), (Stream::Collective(4), call()));
}

/// A rank that closes takes nothing any more, whatever it is.
async fn inspect_closing(rank: Rc<TestRank>) {
    rank.expect_faults();
    let theirs = [key(3, 1), key(5, 1), tagged(2)][rank.variant];
    if rank.me == 0 {
        let area = rank.area_of(&pattern(1, SMALL));
        rank.try_post(&theirs, &send(area.all(), 1));
        return;
    }
    let fault = loop {
        match rank.inspect(CLOSING, call()) {
            Ok(()) => rank.turn("inspect to find the message", 1).await,
            Err(fault) => break fault,
        }
    };
    let Fault::Mismatch { peer, theirs: found, ours } = fault else { panic!("not a mismatch: {fault:?}") };
    assert_eq!((peer, found), (0, header(theirs, SMALL)));
    assert_eq!(ours.stream, Stream::Collective(CLOSING));
}

/// Messages of the current call, of a later operation and of a tag wait; none is an error, and all are taken later.
async fn inspect_takeable(rank: Rc<TestRank>) {
    let keys = [key(4, 0), key(5, 1), tagged(2)];
    if rank.me == 0 {
        let posts = keys.map(|key| (key, rank.area_of(&pattern(1, SMALL))));
        let tokens = posts.map(|(key, area)| rank.post(&key, &send(area.all(), 1)));
        rank.wait(&tokens).await;
        return;
    }
    assert!(rank.inspect(4, call()).is_ok(), "inspect complains, although what may have come can be taken");
    rank.settle().await;
    if let Err(fault) = rank.inspect(4, call()) {
        panic!("inspect complains of what can still be taken: {fault:?}");
    }
    for key in keys {
        let area = rank.area(SMALL);
        let token = rank.post(&key, &receive(area.all(), 0));
        rank.wait(&[token]).await;
        area.assert_holds(0, &pattern(1, SMALL), "a message that waited through inspect");
    }
    if let Err(fault) = rank.inspect(9, other_call()) {
        panic!("inspect complains although everything was taken: {fault:?}");
    }
}
