//! Cancelling and dropping: what is withdrawn, what stays, and what the others are told.

use super::*;
use crate::threads::channel::ENTRIES;
use std::sync::atomic::{AtomicBool, Ordering};

const LARGE: usize = 3 * crate::host::HostMemory::BITE;

#[test]
fn what_was_sent_in_full_outlives_its_sender() {
    let mut rig = Rig::new(2);
    let (from, into) = (rig.area(0, b"goodbye"), rig.area(1, &[0; 7]));
    assert_eq!(rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap(), Posted::Done);
    rig.endpoints[0] = None;
    assert_eq!(rig.post(1, 2, &key(1, 0), receive(into, 0)).unwrap(), Posted::Done);
    assert_eq!(rig.bytes(1, into), b"goodbye");
    rig.settle().expect("nothing else is expected of rank 0");
}

#[test]
fn a_message_that_a_rank_left_without_sending_is_lost() {
    let mut rig = Rig::new(3);
    let into = rig.area(1, &[0; 9]);
    rig.post(1, 1, &key(1, 0), receive(into, 0)).unwrap();
    rig.settle().expect("rank 0 may still send");
    rig.endpoints[2] = None;
    rig.settle().expect("rank 2 was not needed");
    rig.endpoints[0] = None;
    let (peer, message) = lost(rig.settle());
    assert!(peer == 0 && message.contains("waits for a message"), "rank {peer}: {message}");
}

#[test]
fn any_source_of_a_reduction_may_be_the_lost_one() {
    for leaver in [0, 2] {
        let mut rig = Rig::new(3);
        let own = rig.area(1, &[0; 900]);
        let sources = [rig.area(0, &[1; 900]), rig.area(2, &[1; 900])];
        let stays = 2 - leaver;
        rig.post(stays, 1, &key(1, 0), send(sources[stays / 2], 1)).unwrap();
        rig.post(1, 2, &key(1, 0), sum(PeerRun::circle(0, 3, 3), own, own)).unwrap();
        rig.settle().expect("one message is to come");
        rig.endpoints[leaver] = None;
        assert_eq!(lost(rig.settle()).0, leaver as Rank);
        assert_eq!(rig.bytes(1, own), [0; 900]);
    }
}

#[test]
fn a_message_that_a_rank_left_without_reading_is_lost_unless_it_was_copied() {
    let mut rig = Rig::new(2);
    let (small, large) = (rig.area(0, &[1; 8]), rig.area(0, &[1; LARGE]));
    rig.post(0, 1, &key(1, 0), send(small, 1)).unwrap();
    rig.endpoints[1] = None;
    rig.settle().expect("the small one is done with");
    rig.post(0, 2, &key(1, 1), send(large, 1)).unwrap();
    let (peer, message) = lost(rig.settle());
    assert!(peer == 1 && message.contains("without having read"), "rank {peer}: {message}");
}

/// Half of a message has been read when its sender withdraws it: the rest is not touched, and the reader is told.
#[test]
fn a_message_withdrawn_halfway_is_lost_and_its_memory_left_alone() {
    for by_drop in [false, true] {
        let mut rig = Rig::new(2);
        let (from, into) = (rig.area(0, &vec![1; LARGE]), rig.area(1, &vec![0; LARGE]));
        rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
        rig.post(1, 2, &key(1, 0), receive(into, 0)).unwrap();
        if by_drop {
            rig.endpoints[0] = None;
        } else {
            rig.endpoint(0).cancel();
        }
        rig.areas[0][0].fill(9);
        let (peer, message) = lost(rig.poll(1));
        assert!(peer == 0 && message.contains("withdrew"), "rank {peer}: {message}");
        assert!(!rig.bytes(1, into).contains(&9), "memory was read after it was withdrawn");
        assert!(rig.finished(1).is_empty());
    }
}

/// The sender cancels and at once overwrites its memory, over and over, while the receiver reads: no byte of what came
/// after arrives.
#[test]
fn cancel_waits_for_a_reader_in_the_middle_of_a_bite() {
    let len = crate::host::HostMemory::BITE;
    for round in 0..200 {
        let mut rig = Rig::new(2);
        let (from, into) = (rig.area(0, &vec![1; len]), rig.area(1, &vec![0; len]));
        rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
        let [sender, receiver] = &mut rig.endpoints[..] else { unreachable!("two ranks") };
        let (sender, receiver) = (sender.as_mut().unwrap(), receiver.as_mut().unwrap());
        let source = HostPointer(rig.areas[0][0].0.as_ptr().expose_provenance());
        let is_reading = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                is_reading.store(true, Ordering::Release);
                let posted = receiver.post(Token(2), &key(1, 0), &receive(into, 0));
                assert!(matches!(posted, Ok(Posted::Done) | Err(Fault::Lost { peer: 0, .. })), "{posted:?}");
            });
            while !is_reading.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
            (0..round * 50).for_each(|_| std::hint::spin_loop());
            sender.cancel();
            let source = source.0 as *mut u8;
            // SAFETY: inside the area; after the cancel nobody else touches it, which is what is tested.
            unsafe { source.write_bytes(9, len) };
        });
        assert!(!rig.bytes(1, into).contains(&9), "round {round}: read after the cancel");
    }
}

/// After a cancel everything works again, though old entries are in the way of the same lane.
#[test]
fn another_lane_works_after_a_cancel() {
    let mut rig = Rig::new(2);
    let (from, _) = (rig.area(0, &vec![1; LARGE]), rig.area(1, &vec![0; LARGE]));
    rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
    rig.endpoint(0).cancel();
    rig.areas.iter_mut().for_each(Vec::clear);
    let (from, into) = (rig.area(0, &pattern(5, LARGE)), rig.area(1, &vec![0; LARGE]));
    rig.post(0, 2, &key(2, 1), send(from, 1)).unwrap();
    rig.post(1, 3, &key(2, 1), receive(into, 0)).unwrap();
    rig.settle().unwrap();
    assert_eq!((rig.finished(0), rig.finished(1)), (vec![2], vec![3]));
    assert_eq!(rig.bytes(1, into), pattern(5, LARGE));
}

/// A rank that sleeps is woken by a departure, and by nothing but the first look at it.
#[test]
fn a_departure_wakes_a_sleeper() {
    let mut rig = Rig::new(2);
    let into = rig.area(1, &[0; 4]);
    rig.post(1, 1, &key(1, 0), receive(into, 0)).unwrap();
    let leaver = rig.endpoints[0].take();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(leaver));
        let began = Instant::now();
        while rig.endpoint(1).poll(&mut Vec::new()).is_ok() {
            assert!(began.elapsed() < PATIENCE, "it was not told");
            rig.endpoint(1).sleep(PATIENCE).unwrap();
        }
        assert!(began.elapsed() < PATIENCE, "slept through a departure");
    });
}

#[test]
fn rings_go_round_many_times() {
    let mut rig = Rig::new(2);
    let (from, into) = (rig.area(0, &[0; 100]), rig.area(1, &[0; 100]));
    for round in 0..u64::from(5 * ENTRIES) {
        let len = 1 + round % 100;
        let cut = |of: Span| Span { len, ..of };
        rig.areas[0][0].fill(round as u8);
        rig.post(0, round, &key(1, 0), send(cut(from), 1)).unwrap();
        rig.post(1, round, &key(1, 0), receive(cut(into), 0)).unwrap();
        rig.settle().unwrap();
        assert_eq!(rig.bytes(1, cut(into)), vec![round as u8; len as usize]);
    }
    assert_eq!(rig.finished(0).len(), 5 * ENTRIES as usize);
}
