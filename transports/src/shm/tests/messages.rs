//! What arrives, in which order, and what is refused.

use super::*;

const SMALL_PAIR: u64 = 32 << 10;

/// Bytes of a slot of lane 0 of these endpoints.
fn slot_bytes(rig: &Rig) -> usize {
    rig.endpoints[0].outgoing[rig.endpoints[0].channels].memory.slot_bytes()
}

#[test]
fn every_length_around_a_boundary_arrives_whole() {
    let mut rig = Rig::new(2, 1, SMALL_PAIR);
    let slot = slot_bytes(&rig);
    let around = |middle: usize| [middle - 1, middle, middle + 1];
    let lengths = [vec![0, 1, 8], around(24).into(), around(slot).into(), around(4 * slot).into()].concat();
    for (sequence, len) in (1..).zip(lengths.into_iter().chain([9 * slot + 7])) {
        for (lane_key, first) in [(key(sequence, 0), 0), (tagged(sequence as u32), 1)] {
            let bytes = pattern(sequence, len);
            let from = rig.area(first, &bytes);
            let into = rig.area(1 - first, &vec![0xEE; len]);
            rig.post(1 - first, 2 * sequence, &lane_key, receive(into, first as u32)).unwrap();
            rig.post(first, 2 * sequence + 1, &lane_key, send(from, 1 - first as u32)).unwrap();
            rig.settle().unwrap();
            assert_eq!(rig.bytes(1 - first, into), bytes, "{len} bytes");
            assert!(rig.finished(first).contains(&(2 * sequence + 1)));
            assert!(rig.finished(1 - first).contains(&(2 * sequence)));
        }
    }
}

#[test]
fn a_small_message_is_done_at_once_on_both_sides() {
    let mut rig = Rig::new(2, 1, SMALL_PAIR);
    let (from, own) = (rig.area(0, &[1; 8]), rig.area(1, &[2; 8]));
    assert_eq!(rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap(), Posted::Done);
    let post = sum(PeerRun::circle(0, 2, 2), own, own);
    assert_eq!(rig.post(1, 1, &key(1, 0), post).unwrap(), Posted::Done);
    assert_eq!(rig.bytes(1, own), [3; 8]);
}

#[test]
fn a_send_to_many_waits_for_each_of_them() {
    let mut rig = Rig::new(4, 1, SMALL_PAIR);
    let len = 10 * slot_bytes(&rig) + 3;
    let bytes = pattern(4, len);
    let from = rig.area(0, &bytes);
    let post = Post::Send { from, to: PeerRun::circle(1, 3, 4) };
    assert_eq!(rig.post(0, 1, &key(1, 0), post).unwrap(), Posted::Pending);
    for rank in 1..4 {
        assert!(rig.finished(0).is_empty());
        let into = rig.area(rank, &vec![0; len]);
        rig.post(rank, 1, &key(1, 0), receive(into, 0)).unwrap();
        rig.settle().unwrap();
        assert_eq!(rig.bytes(rank, into), bytes);
    }
    assert_eq!(rig.finished(0), [1]);
    let counters = rig.endpoints[0].counters();
    assert_eq!((counters.messages_sent, counters.bytes_sent), (3, 3 * len as u64));
    let counters = rig.endpoints[2].counters();
    assert_eq!((counters.messages_received, counters.bytes_received), (1, len as u64));
}

/// From the second exchange on, a stamp stands for several bites; how many depends on the room that is left. What two
/// ranks send each other is copied, what three send each other is summed with what is there of the others.
#[test]
fn exchanges_arrive_whole_however_many_bites_a_stamp_stands_for() {
    for ranks in [2, 3_usize] {
        for pair_bytes in [SMALL_PAIR, 1 << 20] {
            let mut rig = Rig::new(ranks, 1, pair_bytes);
            let slot = slot_bytes(&rig);
            let (mut several, longest) = (false, 11 * slot + 3);
            for (sequence, len) in (1..).zip([longest, 16 << 10, 3 * slot + 1, longest, longest, 16 << 10]) {
                let len = len.max(16 << 10);
                let inputs: Vec<_> =
                    (0..ranks as u64).map(|rank| pattern(sequence * 8 + rank, len)).collect();
                let spans: Vec<_> = (0..ranks).map(|rank| rig.area(rank, &inputs[rank])).collect();
                let outputs: Vec<_> = (0..ranks).map(|rank| rig.area(rank, &vec![0; len])).collect();
                for (rank, &from) in spans.iter().enumerate() {
                    let to = PeerRun::circle(rank as u32 + 1, ranks as u32 - 1, ranks as u32);
                    let post = Post::Send { from, to };
                    rig.post(rank, 2 * sequence, &key(sequence, 0), post).unwrap();
                }
                let incoming = &rig.endpoints[1].incoming[0];
                let stands_for = incoming.memory.entries(incoming.consumer.next());
                let most = if sequence == 1 { 1 } else { 4 };
                assert!((1..=most).contains(&stands_for), "{stands_for} in exchange {sequence}");
                several |= stands_for > 1;
                for rank in 0..ranks {
                    let post = match ranks {
                        2 => receive(outputs[rank], 1 - rank as Rank),
                        _ => sum(PeerRun::circle(0, 3, 3), spans[rank], outputs[rank]),
                    };
                    rig.post(rank, 2 * sequence + 1, &key(sequence, 0), post).unwrap();
                }
                rig.settle().unwrap();
                let sum = |at: usize| inputs.iter().fold(0, |sum: u8, input| sum.wrapping_add(input[at]));
                for (rank, &output) in outputs.iter().enumerate() {
                    let expected = match ranks {
                        2 => inputs[1 - rank].clone(),
                        _ => (0..len).map(sum).collect(),
                    };
                    assert_eq!(rig.bytes(rank, output), expected, "rank {rank} of {ranks}, {len} bytes");
                }
            }
            let is_exchange =
                rig.endpoints.iter().all(|endpoint| endpoint.outgoing.iter().any(|out| out.is_exchange));
            assert!(is_exchange && several, "ranks that answer each other are known to");
        }
    }
}

/// Bites of one stamp share memory: none of it is written again before the last of them has been read, though a reduction
/// takes them one by one, as its other source comes.
#[test]
fn what_one_stamp_stands_for_is_given_back_whole() {
    let mut rig = Rig::new(3, 1, 400 << 10);
    let (slot, channels) = (slot_bytes(&rig), rig.endpoints[0].channels);
    rig.endpoints[1].outgoing[0].stores = Stores::far();
    let mut several = 0;
    for turn in 0..16 {
        // Parts of five bites, and behind them a message whose first bites are shown one by one.
        let messages = [(2 * turn + 1, 20 * slot + 5), (2 * turn + 2, 7 * slot - 1)];
        let mut sums = Vec::new();
        for (sequence, len) in messages {
            let inputs = [0, 1, 2].map(|rank| pattern(rank * 31 + sequence, len));
            let spans = [0, 1, 2].map(|rank| rig.area(rank, &inputs[rank]));
            for rank in [1, 2] {
                let post = Post::Send { from: spans[rank], to: PeerRun::one(0) };
                rig.post(rank, sequence, &key(sequence, 0), post).unwrap();
            }
            let output = rig.area(0, &vec![0; len]);
            let add = |at: usize| inputs.iter().fold(0_u8, |sum, input| sum.wrapping_add(input[at]));
            sums.push((sequence, spans[0], output, (0..len).map(add).collect::<Vec<_>>()));
        }
        let incoming = &rig.endpoints[0].incoming[channels];
        several += usize::from(incoming.memory.entries(incoming.consumer.next()) > 1);
        for &(sequence, own, output, _) in &sums {
            rig.post(0, sequence, &key(sequence, 0), sum(PeerRun::circle(0, 3, 3), own, output)).unwrap();
        }
        // Rank 1 goes on as far as it may while the sum has some bites of a part and waits for rank 2.
        for _ in 0..16 {
            rig.endpoints[1].poll(&mut rig.done[1]).unwrap();
        }
        rig.settle().unwrap();
        for (sequence, _, output, expected) in sums {
            assert!(rig.bytes(0, output) == expected, "{sequence}");
        }
    }
    assert!(several > 8, "{several}");
}

/// To a receiver that only waits the first bites and the last are shown one by one, those between together.
#[test]
fn a_message_one_way_begins_and_ends_with_single_bites() {
    let mut rig = Rig::near_pair();
    let slot = slot_bytes(&rig);
    let bytes = pattern(1, 20 * slot);
    let from = rig.area(0, &bytes);
    let into = rig.area(1, &vec![0; bytes.len()]);
    rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
    rig.settle().unwrap();
    assert_eq!(rig.finished(0), [1], "there is room for all of it");
    let incoming = &rig.endpoints[1].incoming[0];
    let (mut number, mut shown) = (incoming.consumer.next(), Vec::new());
    while shown.iter().sum::<u64>() < 20 {
        shown.push(incoming.memory.entries(number));
        number += shown[shown.len() - 1];
    }
    assert_eq!(shown[..3], [1, 1, 2], "{shown:?}");
    assert_eq!(shown.iter().rev().take(2).copied().collect::<Vec<_>>(), [1, 1], "{shown:?}");
    assert_eq!(shown.iter().max(), Some(&4), "{shown:?}");
    rig.post(1, 1, &key(1, 0), receive(into, 0)).unwrap();
    rig.settle().unwrap();
    assert_eq!(rig.bytes(1, into), bytes);
}

/// Long messages that are answered go round in half of the slots, others before, between and behind them in all: none writes
/// what another still has there, whatever is out.
#[test]
fn long_messages_go_round_in_half_of_the_slots_beside_others() {
    let mut rig = Rig::near_pair();
    let mut sequence = 0;
    let mut narrow = Vec::new();
    for turn in 0..8 {
        let mut expected = Vec::new();
        for len in [300 << 10, 40 << 10, 30, 900 << 10, 20 << 10, 65 << 10] {
            sequence += 1;
            let inputs = [0, 1].map(|rank| pattern(2 * sequence + rank, len));
            let spans = [0, 1].map(|rank| rig.area(rank, &inputs[rank]));
            for rank in [0, 1] {
                let post = Post::Send { from: spans[rank], to: PeerRun::one(1 - rank as Rank) };
                rig.post(rank, 2 * sequence, &key(sequence, 0), post).unwrap();
            }
            let outputs = [0, 1].map(|rank| rig.area(rank, &vec![0; len]));
            expected.push((sequence, outputs, inputs));
        }
        // As far as there is room while nobody receives.
        for rank in [0, 1].repeat(4 * turn) {
            rig.endpoints[rank].poll(&mut rig.done[rank]).unwrap();
        }
        let incoming = &rig.endpoints[1].incoming[0];
        let first = incoming.consumer.next();
        narrow.push(incoming.memory.spot(first, first, 300 << 10).is_narrow);
        for &(sequence, outputs, _) in &expected {
            for rank in [0, 1] {
                let post = receive(outputs[rank], 1 - rank as Rank);
                rig.post(rank, 2 * sequence + 1, &key(sequence, 0), post).unwrap();
            }
        }
        rig.settle().unwrap();
        for (sequence, outputs, inputs) in expected {
            for rank in [0, 1] {
                assert!(rig.bytes(rank, outputs[rank]) == inputs[1 - rank], "rank {rank}, {sequence}");
            }
        }
    }
    assert_eq!(narrow, [false, true, true, true, true, true, true, true], "from the first answer on");
}

#[test]
fn reductions_fold_all_sources_in_place_piece_by_piece() {
    for ranks in [2, 3, 5] {
        let mut rig = Rig::new(ranks, 1, SMALL_PAIR);
        for (sequence, len) in (1..).zip([0, 8, 24, 25, 5000, 9 * slot_bytes(&rig) + 1]) {
            let inputs: Vec<_> = (0..ranks).map(|rank| pattern(rank as u64 * 31 + sequence, len)).collect();
            let spans: Vec<_> = (0..ranks).map(|rank| rig.area(rank, &inputs[rank])).collect();
            let outputs: Vec<_> = (0..ranks).map(|rank| rig.area(rank, &vec![0; len])).collect();
            for rank in 0..ranks {
                let others = PeerRun::circle(rank as u32 + 1, ranks as u32 - 1, ranks as u32);
                rig.post(rank, 1, &key(sequence, 0), Post::Send { from: spans[rank], to: others }).unwrap();
                let everybody = PeerRun::circle(0, ranks as u32, ranks as u32);
                rig.post(rank, 2, &key(sequence, 0), sum(everybody, spans[rank], outputs[rank])).unwrap();
            }
            rig.settle().unwrap();
            let add = |at: usize| inputs.iter().fold(0_u8, |sum, input| sum.wrapping_add(input[at]));
            let expected: Vec<u8> = (0..len).map(add).collect();
            for (rank, output) in outputs.into_iter().enumerate() {
                assert_eq!(rig.bytes(rank, output), expected, "{ranks} ranks, {len} bytes");
                assert_eq!(std::mem::take(&mut rig.done[rank]).len(), 2);
            }
        }
    }
}

#[test]
fn a_reduction_without_this_rank_does_not_look_at_its_own() {
    let mut rig = Rig::new(3, 1, SMALL_PAIR);
    let into = rig.area(0, &[9; 40]);
    let nothing = Span { region: RegionId(77), offset: 0, len: 0 };
    rig.post(0, 1, &key(1, 0), sum(PeerRun::circle(1, 2, 3), nothing, into)).unwrap();
    for rank in [1, 2] {
        let from = rig.area(rank, &[rank as u8; 40]);
        rig.post(rank, 1, &key(1, 0), send(from, 0)).unwrap();
    }
    rig.settle().unwrap();
    assert_eq!(rig.bytes(0, into), [3; 40]);
}

#[test]
fn copies_and_lonely_reductions_need_no_peer() {
    let mut rig = Rig::new(1, 1, SMALL_PAIR);
    let bytes = pattern(1, 600 << 10);
    let from = rig.area(0, &bytes);
    let (copied, reduced) = (rig.area(0, &vec![0; bytes.len()]), rig.area(0, &vec![0; bytes.len()]));
    let posted = rig.post(0, 1, &key(1, 0), Post::Copy { from, into: copied }).unwrap();
    assert_eq!(posted, Posted::Pending, "a large copy goes bite by bite");
    rig.post(0, 2, &key(1, 0), sum(PeerRun::one(0), from, reduced)).unwrap();
    assert!(rig.endpoints[0].sleep(PATIENCE).is_ok(), "with work to do it does not sleep");
    rig.settle().unwrap();
    assert_eq!(rig.bytes(0, copied), bytes);
    assert_eq!(rig.bytes(0, reduced), bytes);
}

#[test]
fn full_windows_on_all_lanes_of_all_pairs_come_through() {
    const RANKS: usize = 3;
    let mut rig = Rig::new(RANKS, 8, 48 << 10);
    let len = |post: u64| [0, 8, 24, 100, 3000, 20_000][post as usize % 6];
    let mut expected = Vec::new();
    for post in 0..32 {
        for rank in 0..RANKS {
            for lane in 0..9 {
                let lane_key = if lane == 8 { tagged(post as u32) } else { key(1, lane) };
                let others = (0..RANKS).filter(|&peer| peer != rank);
                let bytes = pattern(post * 100 + u64::from(lane) * 10 + rank as u64, len(post));
                let from = rig.area(rank, &bytes);
                let to = PeerRun::circle(rank as u32 + 1, RANKS as u32 - 1, RANKS as u32);
                rig.post(rank, 1, &lane_key, Post::Send { from, to }).unwrap();
                expected.extend(others.map(|peer| (peer, lane_key, rank, bytes.clone())));
            }
        }
    }
    let mut posted = Vec::new();
    for (peer, lane_key, from, bytes) in expected {
        let into = rig.area(peer, &vec![0; bytes.len()]);
        rig.post(peer, 2, &lane_key, receive(into, from as u32)).unwrap();
        posted.push((peer, into, bytes));
    }
    rig.settle().unwrap();
    for (peer, into, bytes) in posted {
        assert_eq!(rig.bytes(peer, into), bytes);
    }
    for rank in 0..RANKS {
        assert_eq!(rig.done[rank].len(), 9 * 32 * (1 + (RANKS - 1)));
    }
}

#[test]
fn a_lane_that_is_full_does_not_hold_up_others() {
    let mut rig = Rig::new(2, 2, SMALL_PAIR);
    let from = rig.area(0, &vec![7; 100_000]);
    let into = rig.area(1, &[0; 8]);
    let small = Span { len: 8, ..from };
    assert_eq!(rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap(), Posted::Pending);
    rig.post(0, 2, &key(1, 1), send(small, 1)).unwrap();
    rig.post(1, 3, &key(1, 1), receive(into, 0)).unwrap();
    rig.settle().unwrap();
    assert_eq!((rig.finished(0), rig.finished(1)), (vec![2], vec![3]));
}

#[test]
fn more_than_a_window_is_an_error_and_not_a_crash() {
    let mut rig = Rig::new(2, 1, SMALL_PAIR);
    let into = rig.area(0, &[0; 8]);
    for token in 0..64 {
        assert_eq!(rig.post(0, token, &key(1, 0), receive(into, 1)).unwrap(), Posted::Pending);
    }
    let Err(Fault::Other(error)) = rig.post(0, 64, &key(1, 0), receive(into, 1)) else { panic!("no error") };
    assert!(error.to_string().contains("more than 64"), "{error}");
}

#[test]
fn wrong_peers_lanes_and_spans_are_errors() {
    let mut rig = Rig::new(2, 1, SMALL_PAIR);
    let span = rig.area(0, &[0; 8]);
    let beyond = Span { offset: 1, ..span };
    for (lane, post) in [
        (0, send(span, 0)),
        (0, send(span, 2)),
        (0, receive(span, 0)),
        (0, receive(span, 2)),
        (1, send(span, 1)),
        (0, send(beyond, 1)),
        (0, receive(beyond, 1)),
        (0, sum(PeerRun::circle(0, 0, 2), span, span)),
        (0, sum(PeerRun::circle(1, 3, 2), span, span)),
    ] {
        assert!(matches!(rig.post(0, 1, &key(1, lane), post), Err(Fault::Other(_))), "{post:?}");
    }
}

#[test]
fn a_message_that_does_not_fit_delivers_nothing() {
    let other_signature = Key { signature: Signature(6), ..key(1, 0) };
    for (theirs, len) in [(key(2, 0), 8), (other_signature, 8), (key(1, 0), 9), (key(1, 0), 5000)] {
        let mut rig = Rig::new(2, 1, SMALL_PAIR);
        let (from, into) = (rig.area(0, &vec![1; len]), rig.area(1, &[0xEE; 8]));
        rig.post(1, 1, &key(1, 0), receive(into, 0)).unwrap();
        rig.post(0, 1, &theirs, send(from, 1)).unwrap();
        for _ in 0..2 {
            let Err(Fault::Mismatch { peer, theirs: found, ours }) = rig.settle() else {
                panic!("no mismatch")
            };
            assert_eq!(peer, 0);
            let expected = Header { stream: theirs.stream, signature: theirs.signature, len: len as u64 };
            assert_eq!(found, expected);
            assert_eq!(
                ours,
                Header { stream: Stream::Collective(1), signature: key(1, 0).signature, len: 8 }
            );
        }
        assert_eq!(rig.bytes(1, into), [0xEE; 8]);
        assert!(rig.endpoints[1].inspect(1, key(1, 0).signature).is_err(), "it is found by looking as well");
    }
}

#[test]
fn one_wrong_source_spoils_a_whole_reduction() {
    let mut rig = Rig::new(3, 1, SMALL_PAIR);
    let own = rig.area(0, &[1; 100]);
    rig.post(0, 1, &key(1, 0), sum(PeerRun::circle(0, 3, 3), own, own)).unwrap();
    for (rank, len) in [(1, 100), (2, 99)] {
        let from = rig.area(rank, &vec![1; len]);
        rig.post(rank, 1, &key(1, 0), send(from, 0)).unwrap();
    }
    assert!(matches!(rig.settle(), Err(Fault::Mismatch { peer: 2, .. })));
    assert_eq!(rig.bytes(0, own), [1; 100]);
}

#[test]
fn looking_finds_what_can_no_longer_be_taken_and_nothing_else() {
    let mut rig = Rig::new(2, 2, SMALL_PAIR);
    let signature = key(0, 0).signature;
    let from = rig.area(0, &[1; 8]);
    assert!(rig.endpoints[1].inspect(5, signature).is_ok());
    rig.post(0, 1, &tagged(3), send(from, 1)).unwrap();
    rig.post(0, 1, &key(5, 1), send(from, 1)).unwrap();
    rig.post(0, 1, &key(6, 0), send(from, 1)).unwrap();
    assert!(rig.endpoints[1].inspect(5, signature).is_ok(), "of this and later operations, and tagged");
    let Err(Fault::Mismatch { peer: 0, theirs, .. }) = rig.endpoints[1].inspect(5, Signature(1)) else {
        panic!()
    };
    assert_eq!(theirs.stream, Stream::Collective(5), "of this operation by another call");
    let Err(Fault::Mismatch { peer: 0, theirs, .. }) = rig.endpoints[1].inspect(6, signature) else {
        panic!()
    };
    assert_eq!(theirs.stream, Stream::Collective(5), "of an older operation");
}

#[test]
fn after_cancelling_nothing_is_touched() {
    let mut rig = Rig::new(2, 1, SMALL_PAIR);
    let (from, into) = (rig.area(0, &vec![1; 50_000]), rig.area(1, &vec![0xEE; 50_000]));
    rig.post(1, 1, &key(1, 0), receive(into, 0)).unwrap();
    rig.endpoints[1].cancel();
    rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
    rig.settle().unwrap();
    assert_eq!(rig.bytes(1, into), vec![0xEE; 50_000]);
    rig.endpoints[0].cancel();
    assert!(!rig.endpoints[0].poll(&mut Vec::new()).unwrap());
    assert!(rig.finished(0).is_empty());
}
