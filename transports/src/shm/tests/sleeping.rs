//! Sleeping and being woken.

use super::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::Timespec;

fn is_readable(endpoint: &ShmEndpoint) -> bool {
    let descriptor = endpoint.descriptor().expect("shm has one");
    let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
}

/// Sleeps without ever polling in vain, until a token comes. A lost wake shows as a sleep that its timeout ended.
fn finish(endpoint: &mut ShmEndpoint, posted: Posted, watch: bool) {
    let mut done = Vec::new();
    if posted == Posted::Done {
        return;
    }
    let start = Instant::now();
    while done.is_empty() {
        if watch {
            endpoint.watch(true);
            let descriptor = endpoint.descriptor().expect("shm has one");
            let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&limit)).unwrap();
            assert_eq!(ready, 1, "nobody rang");
            endpoint.watch(false);
        } else {
            endpoint.sleep(PATIENCE).unwrap();
        }
        endpoint.poll(&mut done).unwrap();
        assert!(start.elapsed() < PATIENCE, "a wake was lost");
    }
}

/// Two ranks that only sleep pass a message of each length back and forth.
fn ping_pong(rounds: u64, lengths: &[usize], watch: bool) {
    let endpoints = connected(2, 1, 32 << 10, true);
    std::thread::scope(|scope| {
        for (rank, mut endpoint) in (0..).zip(endpoints) {
            scope.spawn(move || {
                let area = Area::new(&vec![0; 60_000]);
                let address = HostPointer(area.first().expose_provenance());
                // SAFETY: the area outlives the endpoint's use below, and nobody else has it.
                unsafe { endpoint.register(RegionId(0), Memory::Host { address, len: 60_000 }) }.unwrap();
                for round in 0..rounds {
                    let len = lengths[round as usize % lengths.len()] as u64;
                    let span = Span { region: RegionId(0), offset: 0, len };
                    let posts = [send(span, 1 - rank), receive(span, 1 - rank)];
                    let first = rank as usize;
                    for post in [posts[first], posts[1 - first]] {
                        let posted = endpoint.post(Token(round), &key(round + 1, 0), &post).unwrap();
                        finish(&mut endpoint, posted, watch);
                    }
                }
            });
        }
    });
}

#[test]
fn no_wake_is_lost_over_many_rounds() {
    ping_pong(10_000, &[8], false);
}

#[test]
fn a_sender_that_sleeps_for_room_is_woken() {
    ping_pong(1_000, &[60_000, 100, 0, 5_000], false);
}

#[test]
fn a_watched_descriptor_rings_for_every_arrival() {
    ping_pong(2_000, &[8, 40_000], true);
}

#[test]
fn a_waker_ends_the_current_or_the_next_sleep() {
    let mut endpoint = connected(1, 1, 32 << 10, true).remove(0);
    let waker = endpoint.waker();
    waker.wake();
    let start = Instant::now();
    endpoint.sleep(PATIENCE).unwrap();
    let thread = std::thread::spawn(move || waker.wake());
    endpoint.sleep(PATIENCE).unwrap();
    thread.join().unwrap();
    assert!(start.elapsed() < PATIENCE);
    endpoint.sleep(Duration::from_millis(1)).unwrap();
}

#[test]
fn a_message_nobody_posted_for_ends_one_sleep() {
    let mut rig = Rig::new(2, 1, 32 << 10);
    let from = rig.area(0, &[1; 8]);
    rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
    let start = Instant::now();
    rig.endpoints[1].sleep(PATIENCE).unwrap();
    assert!(start.elapsed() < PATIENCE);
    let start = Instant::now();
    rig.endpoints[1].sleep(Duration::from_millis(20)).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(20), "the same message ended a second sleep");
}

#[test]
fn the_descriptor_rings_only_while_it_is_watched() {
    let mut rig = Rig::new(2, 1, 32 << 10);
    let (from, into) = (rig.area(0, &[1; 8]), rig.area(1, &[0; 8]));
    rig.post(1, 1, &key(1, 0), receive(into, 0)).unwrap();
    rig.endpoints[1].watch(true);
    assert!(!is_readable(&rig.endpoints[1]));
    rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
    assert!(is_readable(&rig.endpoints[1]));
    rig.endpoints[1].watch(false);
    rig.settle().unwrap();
    rig.post(0, 1, &key(2, 0), send(from, 1)).unwrap();
    assert!(!is_readable(&rig.endpoints[1]), "not watched");
    rig.endpoints[1].watch(true);
    assert!(is_readable(&rig.endpoints[1]), "what came in between rings at once");
    rig.endpoints[1].watch(true);
    assert!(!is_readable(&rig.endpoints[1]));
    rig.endpoints[1].waker().wake();
    assert!(is_readable(&rig.endpoints[1]), "the waker rings as well");
}
