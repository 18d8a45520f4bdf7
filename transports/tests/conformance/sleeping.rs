//! Point 10: sleeping, and what ends it. Real time only: in virtual time nobody waits in the kernel.

use crate::cases::Case;
use crate::support::memory::pattern;
use crate::support::rank::TestRank;
use crate::support::work::{key, receive, send};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};
use ubccl_core::endpoint::{Clock, Key, Post, Token};

pub const CASES: &[Case] = &[
    Case::on(Clock::Real, "c10_sleep_ends_when_its_time_is_up", &[2], |r| Box::pin(time_is_up(r))),
    Case::on(Clock::Real, "c10_sleep_ends_when_a_message_arrives", &[2, 3], |r| Box::pin(ping_pong(r))),
    Case::on(Clock::Real, "c10_sleep_ends_when_a_large_transfer_can_move_on", &[2], |r| Box::pin(large(r))),
    Case::on(Clock::Real, "c10_wake_ends_the_current_or_the_next_sleep", &[1, 2], |r| Box::pin(wake(r))),
    Case::on(Clock::Real, "c10_the_descriptor_rings_when_a_message_arrives", &[2], |r| {
        Box::pin(descriptor(r))
    }),
];

/// Nothing arrives, so ten sleeps of 20 ms take time, though one or the other may end early.
async fn time_is_up(rank: Rc<TestRank>) {
    rank.meet().await;
    rank.settle().await;
    let began = Instant::now();
    for _ in 0..10 {
        sleep(&rank, Duration::from_millis(20));
    }
    assert!(began.elapsed() >= Duration::from_millis(60), "sleep returns at once: {:?}", began.elapsed());
}

fn sleep(rank: &TestRank, time: Duration) {
    rank.with(|endpoint| endpoint.sleep(time)).unwrap_or_else(|error| panic!("sleep: {error}"));
}

/// Waits for posts by sleeping only. A sleep that takes all its time has missed what it should have been woken by.
fn wait_asleep(rank: &TestRank, tokens: &[Token]) {
    let patience = rank.patience / 2;
    while tokens.iter().any(|&token| !rank.is_done(token)) {
        if !rank.pump() {
            let began = Instant::now();
            sleep(rank, patience);
            assert!(began.elapsed() < patience, "rank {}: slept through an arrival", rank.me);
        }
    }
}

/// A message goes round and round, and everybody sleeps until it comes.
async fn ping_pong(rank: Rc<TestRank>) {
    let n = rank.ranks;
    let area = rank.area(24);
    rank.meet().await;
    for round in 0..300 {
        let (next, previous) = ((rank.me + 1) % n, (rank.me + n - 1) % n);
        let lane = (round % 2) as u8;
        let take = |rank: &TestRank| {
            let token = rank.post(&key(round + 1, lane), &receive(area.all(), previous));
            wait_asleep(rank, &[token]);
            area.assert_holds(0, &pattern(round, 24), "what went round");
        };
        if rank.me != 0 {
            take(&rank);
        }
        area.write(0, &pattern(round, 24));
        let token = rank.post(&key(round + 1, lane), &send(area.all(), next));
        wait_asleep(&rank, &[token]);
        if rank.me == 0 {
            take(&rank);
        }
    }
}

/// Transfers larger than any buffer, both ways: each side has to wake the other whenever there is room again.
async fn large(rank: Rc<TestRank>) {
    let len = (6 << 20) + 5;
    let peer = 1 - rank.me;
    let (out, back) = (rank.area_of(&pattern(rank.me.into(), len)), rank.area(len));
    for round in 1..=4 {
        rank.meet().await;
        let sent = rank.post(&key(round, 0), &send(out.all(), peer));
        let received = rank.post(&key(round, 0), &receive(back.all(), peer));
        wait_asleep(&rank, &[sent, received]);
        back.assert_holds(0, &pattern(peer.into(), len), "a large message");
        back.write(0, &vec![0; len]);
    }
}

/// A wake before the sleep, and one from another thread at any time around it.
async fn wake(rank: Rc<TestRank>) {
    let patience = rank.patience / 2;
    let waker = rank.with(|endpoint| endpoint.waker());
    let timed = |what: &str| {
        let began = Instant::now();
        sleep(&rank, patience);
        assert!(began.elapsed() < patience, "rank {}: slept through {what}", rank.me);
    };
    waker.wake();
    timed("a wake before it");
    for round in 0..100 {
        let waker = waker.clone();
        let thread = thread::spawn(move || {
            if round % 2 == 0 {
                thread::yield_now();
            }
            waker.wake();
        });
        timed("a wake from another thread");
        thread.join().unwrap();
    }
}

/// Where there is a descriptor, it becomes readable once watched for: the round trip sleeps in `poll` only.
async fn descriptor(rank: Rc<TestRank>) {
    if rank.with(|endpoint| endpoint.descriptor().is_none()) {
        return;
    }
    rank.with(|endpoint| endpoint.watch(true));
    rank.meet().await;
    let area = rank.area(50);
    for round in 1..=100 {
        let turns: [fn(_, _) -> Post; 2] = [send, receive];
        for turn in [rank.me as usize, 1 - rank.me as usize] {
            area.write(0, &pattern(round, 50));
            let token = rank.post(&key(round, 0), &turns[turn](area.all(), 1 - rank.me));
            wait_in_poll(&rank, token, &key(round, 0));
        }
        area.assert_holds(0, &pattern(round, 50), "what was waited for in poll");
    }
    rank.with(|endpoint| endpoint.watch(false));
}

fn wait_in_poll(rank: &TestRank, token: Token, key: &Key) {
    while !rank.is_done(token) {
        if rank.pump() {
            continue;
        }
        let readable = rank.with(|endpoint| {
            let descriptor = endpoint.descriptor().expect("seen before");
            let timeout = Timespec { tv_sec: rank.patience.as_secs() as i64 / 2, tv_nsec: 0 };
            poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)).expect("poll works")
        });
        assert!(readable > 0, "rank {}: the descriptor did not ring in {:?}", rank.me, key.stream);
    }
}
