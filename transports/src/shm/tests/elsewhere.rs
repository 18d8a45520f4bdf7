//! Long messages in ordinary memory, which their receivers read in their sender's process.

use super::*;
use crate::host::HostMemory;
use crate::local::label::Label;
use crate::local::ways::Ways;
use crate::shm::announcements::Place;
use ubccl_core::Collective;

const LONG: usize = 600_000;

/// A rig in which reading is known to be the better way.
fn rig(ranks: usize) -> Rig {
    reading(connected(ranks, 1, 48 << 10, true))
}

fn reading(mut endpoints: Vec<ShmEndpoint>) -> Rig {
    for out in endpoints.iter_mut().flat_map(|endpoint| &mut endpoint.outgoing) {
        out.ways.went_through_slots(LONG as u64, 50_000);
        (0..10).for_each(|_| out.ways.was_read(LONG as u64, 5_000));
    }
    Rig::of(endpoints)
}

#[test]
fn a_long_message_is_read_where_it_is_and_under_way_until_then() {
    let mut rig = rig(2);
    let from = rig.area(0, &pattern(1, LONG));
    assert_eq!(rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap(), Posted::Pending);
    rig.settle().unwrap();
    assert!(rig.finished(0).is_empty(), "nobody has read it");
    let into = rig.area(1, &vec![0; LONG]);
    rig.post(1, 2, &key(1, 0), receive(into, 0)).unwrap();
    let changed = pattern(2, LONG);
    rig.areas[0][from.region.0 as usize].write(&changed);
    rig.settle().unwrap();
    assert_eq!((rig.finished(0), rig.finished(1)), (vec![1], vec![2]));
    assert_eq!(rig.bytes(1, into)[HostMemory::BITE..], changed[HostMemory::BITE..]);
    let counters = rig.endpoints[0].counters();
    assert_eq!((counters.messages_sent, counters.bytes_sent), (1, LONG as u64));
    assert_eq!(rig.endpoints[1].counters().bytes_received, LONG as u64);
}

#[test]
fn whoever_is_not_to_read_gets_everything_through_slots() {
    let options = [true, false].map(|peer_reads| ConnectOptions {
        pair_bytes: Some(48 << 10),
        peer_reads,
        ..Default::default()
    });
    let endpoints = try_connect(&options, PATIENCE).into_iter().map(|endpoint| endpoint.unwrap());
    let mut rig = reading(endpoints.collect());
    for (from, to) in [(0, 1), (1, 0)] {
        let message = rig.area(from, &pattern(3, LONG));
        rig.post(from, 1, &key(1, 0), send(message, to as Rank)).unwrap();
        let is_announced = !rig.endpoints[from].outgoing[to * rig.endpoints[from].channels].unread.is_empty();
        assert_eq!(is_announced, to == 0, "from {from} to {to}");
        let into = rig.area(to, &vec![0; LONG]);
        rig.post(to, 2, &key(1, 0), receive(into, from as Rank)).unwrap();
        rig.settle().unwrap();
        assert_eq!(rig.bytes(to, into), pattern(3, LONG));
    }
}

#[test]
fn messages_of_users_and_of_calls_that_reduce_go_through_slots() {
    let mut rig = reading(connected(2, 1, 8 << 20, true));
    let summed = Collective::all_reduce(LONG as u64, DataType::U8, ReduceOp::Sum).signature(5);
    let keys = [tagged(7), Key { signature: summed, ..key(1, 0) }];
    let from = rig.area(0, &pattern(1, LONG));
    for (token, call) in (1..).zip(keys) {
        rig.post(0, token, &call, send(from, 1)).unwrap();
        rig.settle().unwrap();
        assert!(rig.finished(0).contains(&token), "its memory is the sender's again");
        let into = rig.area(1, &vec![0; LONG]);
        rig.post(1, token, &call, receive(into, 0)).unwrap();
        rig.settle().unwrap();
        assert_eq!(rig.bytes(1, into), pattern(1, LONG));
    }
}

#[test]
fn a_sum_takes_some_from_heaps_some_from_processes_and_its_own() {
    let ranks = 4;
    let mut rig = rig(ranks);
    let outputs: Vec<_> = (0..ranks).map(|rank| rig.area(rank, &vec![0; LONG])).collect();
    everybody_sums(&mut rig, &outputs, |rank| rank % 3 == 0);
}

#[test]
fn what_was_taken_back_while_it_was_read_does_not_count() {
    let mut rig = rig(2);
    let from = rig.area(0, &[5; LONG]);
    let into = rig.area(1, &[0; LONG]);
    rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
    rig.post(1, 1, &key(1, 0), receive(into, 0)).unwrap();
    assert!(rig.finished(1).is_empty(), "it takes several bites");
    rig.endpoints[0].cancel();
    let fault = rig.settle().unwrap_err();
    assert!(matches!(&fault, Fault::Lost { peer: 0, message } if message.contains("took back")), "{fault:?}");
    assert!(rig.finished(1).is_empty());
}

#[test]
fn memory_that_is_not_there_is_the_senders_fault_and_not_a_crash() {
    let mut rig = rig(2);
    let from = rig.area(0, &[5; LONG]);
    let into = rig.area(1, &[0; LONG]);
    rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
    let channels = rig.endpoints[0].channels;
    for address in [8, u64::MAX - 5, 1 << 63] {
        let label = Label::new(&key(1, 0), LONG as u64).announced();
        rig.endpoints[0].outgoing[channels].memory.write_announcement(
            0,
            &label,
            Place::Process { address },
            0,
        );
        let fault = rig.post(1, 1, &key(1, 0), receive(into, 0)).unwrap_err();
        assert!(
            matches!(&fault, Fault::Lost { peer: 0, message } if message.contains("cannot be read")),
            "{fault:?}"
        );
        rig.endpoints[1].receives[0].clear();
        rig.endpoints[1].incoming.iter_mut().for_each(|incoming| incoming.queue.clear());
    }
}

#[test]
fn the_way_of_a_message_follows_what_both_ways_cost() {
    let mut rig = Rig::of(connected(2, 1, 8 << 20, true));
    let from = rig.area(0, &pattern(1, LONG));
    let into = rig.area(1, &vec![0; LONG]);
    let channels = rig.endpoints[0].channels;
    let mut round = 0;
    let mut is_announced = |slots: u64, reading: u64| {
        round += 2;
        let ways = &mut rig.endpoints[0].outgoing[channels].ways;
        *ways = Ways::default();
        ways.went_through_slots(LONG as u64, slots);
        (0..10).for_each(|_| ways.was_read(LONG as u64, reading));
        rig.post(0, round, &key(round, 0), send(from, 1)).unwrap();
        let is_announced = !rig.endpoints[0].outgoing[channels].unread.is_empty();
        rig.post(1, round + 1, &key(round, 0), receive(into, 0)).unwrap();
        rig.settle().unwrap();
        assert_eq!(rig.bytes(1, into), pattern(1, LONG));
        rig.areas[1][into.region.0 as usize].write(&[0; LONG]);
        is_announced
    };
    assert!(is_announced(20_000_000, 5_000) && !is_announced(1, 5_000) && is_announced(20_000_000, 5_000));
}
