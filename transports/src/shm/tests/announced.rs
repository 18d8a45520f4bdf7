//! Messages that stay in their sender's heap.

use super::*;
use crate::host::HostMemory;
use crate::local::label::Label;
use crate::shm::announcements::{LEAST_BYTES, Place};
use ubccl_core::Collective;
use ubccl_core::usage::MemoryKind;

const LONG: usize = 300_000;

/// A rig whose slots are much shorter than the messages here.
fn rig(ranks: usize) -> Rig {
    Rig::new(ranks, 1, 48 << 10)
}

#[test]
fn a_message_in_the_heap_is_under_way_until_it_has_been_read() {
    let mut rig = rig(2);
    let bytes = pattern(1, LONG);
    let from = rig.heap_area(0, &bytes);
    assert_eq!(rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap(), Posted::Pending);
    rig.settle().unwrap();
    assert!(rig.finished(0).is_empty(), "nobody has read it");
    let into = rig.area(1, &vec![0; LONG]);
    rig.post(1, 2, &key(1, 0), receive(into, 0)).unwrap();
    // It was read where it is: what is there after the announcement is what arrives.
    let changed = pattern(2, LONG);
    rig.areas[0][from.region.0 as usize].write(&changed);
    rig.settle().unwrap();
    assert_eq!((rig.finished(0), rig.finished(1)), (vec![1], vec![2]));
    assert_eq!(rig.bytes(1, into)[HostMemory::BITE..], changed[HostMemory::BITE..]);
}

#[test]
fn short_messages_are_copied_and_parts_of_a_heap_arrive() {
    let mut rig = rig(2);
    let bytes = pattern(3, LONG);
    let from = rig.heap_area(0, &bytes);
    let lens = [0, 1, 24, 25, LEAST_BYTES - 1, LEAST_BYTES, LEAST_BYTES + 1, 70_001];
    for (sequence, len) in (1..).zip(lens) {
        let part = Span { offset: 17 * sequence, len, ..from };
        let into = rig.area(1, &vec![0; len as usize]);
        let posted = rig.post(0, sequence, &key(sequence, 0), send(part, 1)).unwrap();
        assert_eq!(posted == Posted::Done, len < LEAST_BYTES, "{len} bytes");
        rig.post(1, sequence, &key(sequence, 0), receive(into, 0)).unwrap();
        rig.settle().unwrap();
        assert_eq!(rig.bytes(1, into), bytes[part.offset as usize..][..len as usize]);
        assert!(rig.finished(0).contains(&sequence));
    }
}

#[test]
fn more_messages_than_entries_arrive_in_order_among_others() {
    let mut rig = rig(2);
    let count = 40;
    for k in 0..count {
        let bytes = pattern(k, 5000);
        let from = if k % 3 == 0 { rig.area(0, &bytes) } else { rig.heap_area(0, &bytes) };
        rig.post(0, k, &key(1, 0), send(from, 1)).unwrap();
    }
    let places: Vec<_> = (0..count)
        .map(|k| {
            let into = if k % 2 == 0 { rig.area(1, &[0; 5000]) } else { rig.heap_area(1, &[0; 5000]) };
            rig.post(1, k, &key(1, 0), receive(into, 0)).unwrap();
            into
        })
        .collect();
    rig.settle().unwrap();
    for (k, into) in (0..count).zip(places) {
        assert_eq!(rig.bytes(1, into), pattern(k, 5000), "message {k}");
    }
    assert_eq!(rig.finished(0), (0..count).collect::<Vec<_>>());
    let counters = rig.endpoints[0].counters();
    assert_eq!((counters.messages_sent, counters.bytes_sent), (count, count * 5000));
    assert_eq!(rig.endpoints[1].counters().bytes_received, count * 5000);
}

#[test]
fn a_sum_takes_some_from_heaps_and_some_from_slots() {
    let ranks = 4;
    let mut rig = rig(ranks);
    let outputs: Vec<_> = (0..ranks).map(|rank| rig.heap_area(rank, &vec![0; LONG])).collect();
    everybody_sums(&mut rig, &outputs, |rank| rank % 2 == 1);
}

#[test]
fn what_is_reduced_stays_where_it_is_beyond_the_second_cache_but_for_a_few() {
    let mut rig = rig(2);
    let summed = Collective::all_reduce(LONG as u64, DataType::U8, ReduceOp::Sum).signature(5);
    let from = rig.heap_area(0, &pattern(1, LONG));
    let into = rig.area(1, &[0; LONG]);
    let channels = rig.endpoints[0].channels;
    let mut announced_of = |second: u64, call: Signature| {
        rig.endpoints[0].caches = Caches { second, third: 1 << 40 };
        let announced = |round: &u64| {
            let key = Key { signature: call, ..key(*round, 0) };
            rig.post(0, *round, &key, send(from, 1)).unwrap();
            let is_announced = !rig.endpoints[0].outgoing[channels].unread.is_empty();
            rig.post(1, *round, &key, receive(into, 0)).unwrap();
            rig.settle().unwrap();
            assert_eq!(rig.bytes(1, into), pattern(1, LONG));
            is_announced
        };
        (0..300).filter(announced).count()
    };
    assert_eq!(announced_of(2 * LONG as u64, summed), 0);
    let most = announced_of(2 * LONG as u64 - 1, summed);
    assert!((250..300).contains(&most), "{most}");
    assert_eq!(announced_of(1 << 40, Signature(5)), 300, "nothing is written again");
}

#[test]
fn a_message_of_another_call_is_a_mismatch_and_is_not_read() {
    let mut rig = rig(2);
    let from = rig.heap_area(0, &[5; LONG]);
    let into = rig.area(1, &[0; LONG]);
    rig.post(0, 1, &key(2, 0), send(from, 1)).unwrap();
    let fault = rig.post(1, 1, &key(1, 0), receive(into, 0)).unwrap_err();
    let Fault::Mismatch { peer: 0, theirs, ours } = fault else { panic!("{fault:?}") };
    assert_eq!((theirs.stream, theirs.len), (Stream::Collective(2), LONG as u64));
    assert_eq!((ours.stream, ours.len), (Stream::Collective(1), LONG as u64));
    assert_eq!(rig.bytes(1, into), [0; LONG]);
    let stale = rig.endpoints[1].inspect(3, Signature(1)).unwrap_err();
    assert!(matches!(stale, Fault::Mismatch { peer: 0, .. }), "{stale:?}");
}

#[test]
fn what_was_taken_back_while_it_was_read_does_not_count() {
    let mut rig = rig(2);
    let from = rig.heap_area(0, &[5; LONG]);
    let into = rig.area(1, &[0; LONG]);
    rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
    rig.post(1, 1, &key(1, 0), receive(into, 0)).unwrap();
    assert!(rig.finished(1).is_empty(), "it takes several bites");
    rig.endpoints[0].cancel();
    let fault = rig.settle().unwrap_err();
    let Fault::Lost { peer: 0, message } = fault else { panic!("{fault:?}") };
    assert!(message.contains("took back"), "{message}");
    assert!(rig.finished(1).is_empty());
}

#[test]
fn an_endpoint_that_is_dropped_takes_back_what_it_announced() {
    let mut rig = rig(2);
    let from = rig.heap_area(0, &[5; LONG]);
    let into = rig.area(1, &[0; LONG]);
    rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
    rig.post(1, 1, &key(1, 0), receive(into, 0)).unwrap();
    drop(rig.endpoints.remove(0));
    let fault = rig.endpoints[0].poll(&mut Vec::new()).unwrap_err();
    assert!(matches!(fault, Fault::Lost { peer: 0, .. }), "{fault:?}");
}

#[test]
fn an_announcement_outside_the_heap_is_a_fault() {
    let mut rig = rig(2);
    let from = rig.heap_area(0, &[5; 10_000]);
    let into = rig.area(1, &[0; 10_000]);
    rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
    let beyond = rig.endpoints[0].own.heap_len() as u64 - 9_999;
    for offset in [beyond, u64::MAX - 5, u64::MAX] {
        let label = Label::new(&key(1, 0), 10_000).announced();
        rig.endpoints[0].outgoing[rig.endpoints[0].channels].memory.write_announcement(
            0,
            &label,
            Place::Heap { offset },
            0,
        );
        let fault = rig.post(1, 1, &key(1, 0), receive(into, 0)).unwrap_err();
        assert!(
            matches!(&fault, Fault::Lost { peer: 0, message } if message.contains("outside")),
            "{fault:?}"
        );
        rig.endpoints[1].receives[0].clear();
        rig.endpoints[1].incoming.iter_mut().for_each(|incoming| incoming.queue.clear());
    }
}

#[test]
fn memory_is_counted_zeroed_and_comes_back() {
    let mut rig = rig(2);
    let regions = |rig: &Rig| {
        let mut bytes = 0;
        rig.endpoints[0]
            .count_memory(&mut |kind, more| bytes += if kind == MemoryKind::Regions { more } else { 0 });
        bytes
    };
    assert_eq!(regions(&rig), 0);
    for _ in 0..3 {
        let allocation = rig.endpoints[0].allocate(LONG as u64).unwrap().expect("there is room");
        assert_eq!(regions(&rig), LONG.next_multiple_of(4096) as u64);
        let area = Area::Given(allocation, LONG);
        assert!(area.bytes().iter().all(|&byte| byte == 0));
        area.write(&[9; LONG]);
        drop(area);
        assert_eq!(regions(&rig), 0);
    }
    let most = rig.endpoints[0].own.heap_len() as u64;
    assert!(rig.endpoints[0].allocate(most + 1).unwrap().is_none());
    assert!(rig.endpoints[0].allocate(u64::MAX).unwrap().is_none());
}

#[test]
fn a_sleeper_wakes_when_its_message_has_been_read() {
    let mut rig = rig(2);
    let from = rig.heap_area(0, &[5; LONG]);
    let into = rig.area(1, &[0; LONG]);
    rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
    let (mut reader, mut done) = (rig.endpoints.remove(1), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            reader.post(Token(2), &key(1, 0), &receive(into, 0)).unwrap();
            while done.is_empty() {
                reader.poll(&mut done).unwrap();
            }
        });
        let begin = Instant::now();
        while rig.done[0].is_empty() {
            rig.endpoints[0].sleep(PATIENCE).unwrap();
            rig.endpoints[0].poll(&mut rig.done[0]).unwrap();
        }
        assert!(begin.elapsed() < PATIENCE, "it was woken");
    });
}
