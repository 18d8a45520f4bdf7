//! Point 8 of the contract of `Endpoint`: once warm, posting and polling allocate nothing, on every real transport of
//! the index. A program of its own, because the counting allocator is the whole program's.
#![allow(unsafe_code)] // an allocator that counts and passes on
#![allow(unreachable_pub, reason = "nothing is public outside a test program")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};
use support::exchange::LocalExchange;
use support::memory::Area;
use support::work::{key, receive, send, tagged};
use ubccl_core::endpoint::{
    Clock, ConnectOptions, Endpoint, Fault, Key, Post, Posted, RegionId, Token, Transport,
};
use ubccl_core::plan::{MAX_WINDOW_PER_PEER, PeerRun};
use ubccl_core::{DataType, Exchange, Rank, ReduceOp, UserOp};

struct Counting;

thread_local! {
    /// Allocations of this thread.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands every request on to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's obligations are ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's obligations are ours.
        unsafe { System.dealloc(ptr, layout) };
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's obligations are ours.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes of the messages: inline, a few lines, a slot, many slots.
const SIZES: [usize; 5] = [0, 8, 1000, 65_536, (1 << 20) + 4];

/// Bytes of each message of a burst. Those of two peers' windows fill an area, and one window is more than a lane buffers.
const BURST_BYTES: usize = 8 << 10;

/// A user's operation that allocates nothing itself.
static ADD: UserOp = UserOp::new("add bytes", true, add_bytes, 0);

fn add_bytes(_: usize, accumulator: &mut [u8], next: &[u8], _: DataType) {
    accumulator.iter_mut().zip(next).for_each(|(a, b)| *a = a.wrapping_add(*b));
}

/// Rounds that count, after [`WARM_UP`] that do not.
const ROUNDS: u64 = 200;
const WARM_UP: u64 = 20;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_counter_sees_an_allocation() {
    let before = ALLOCATIONS.get();
    drop(black_box(Box::new(7)));
    assert_eq!(ALLOCATIONS.get(), before + 1);
}

/// Every real transport; what it may allocate in one round is nothing.
#[test]
fn c8_once_warm_posting_and_polling_allocate_nothing() {
    let real = |t: &&&'static dyn Transport| t.descriptor().clock == Clock::Real;
    for transport in ubccl_transports::index().iter().filter(real) {
        for ranks in [2, 3] {
            let exchanges = LocalExchange::all(ranks, Instant::now() + PATIENCE);
            let threads: Vec<_> = exchanges
                .into_iter()
                .map(|exchange| thread::spawn(move || count_allocations(*transport, exchange)))
                .collect();
            for (rank, thread) in threads.into_iter().enumerate() {
                let allocations = thread.join().expect("the rank's message is above");
                let name = transport.descriptor().name;
                assert_eq!(allocations, 0, "{name}, rank {rank} of {ranks}: in {ROUNDS} rounds");
            }
        }
    }
}

/// Runs the rounds of one rank and counts what its thread allocates after the warm-up.
fn count_allocations(transport: &'static dyn Transport, mut exchange: LocalExchange) -> u64 {
    let options = ConnectOptions { lanes: 2, ..ConnectOptions::default() };
    let (me, ranks) = (exchange.rank(), exchange.ranks());
    let mut rank = Driver::new(transport.connect(&mut exchange, &options).unwrap(), me, ranks);
    for round in 0..WARM_UP {
        rank.round(round);
    }
    let before = ALLOCATIONS.get();
    for round in WARM_UP..WARM_UP + ROUNDS {
        rank.round(round);
    }
    let allocations = ALLOCATIONS.get() - before;
    // Nobody leaves before all have counted.
    exchange.all_gather(&[]).unwrap();
    allocations
}

/// One rank with all it needs for a round.
struct Driver {
    // First, so that it is gone before the memory.
    endpoint: Box<dyn Endpoint>,
    me: Rank,
    ranks: u32,
    out: Area,
    back: Area,
    done: Vec<Token>,
    began: Instant,
}

impl Driver {
    fn new(mut endpoint: Box<dyn Endpoint>, me: Rank, ranks: u32) -> Self {
        let len = SIZES[SIZES.len() - 1];
        let (out, back) = (Area::new(RegionId(0), len), Area::new(RegionId(1), len));
        for area in [&out, &back] {
            area.write(0, &vec![1; len]);
            // SAFETY: the areas live in the driver, after the endpoint; nobody else touches them.
            unsafe { endpoint.register(area.region(), area.memory()) }.unwrap();
        }
        Driver { endpoint, me, ranks, out, back, done: Vec::with_capacity(1024), began: Instant::now() }
    }

    /// Every lane and size once: to the next rank and back from the previous one, then everybody to everybody with a
    /// reduction; at times whole windows.
    fn round(&mut self, round: u64) {
        let (next, previous) = ((self.me + 1) % self.ranks, (self.me + self.ranks - 1) % self.ranks);
        for len in SIZES {
            for key in [key(round + 1, 0), key(round + 1, 1), tagged(3)] {
                let (out, back) = (self.out.span(0, len), self.back.span(0, len));
                self.exchange(&key, &send(out, next), &receive(back, previous));
            }
            let others = PeerRun::circle(next, self.ranks - 1, self.ranks);
            let publish = Post::Send { from: self.out.span(0, len), to: others };
            for op in [ReduceOp::Max, ReduceOp::User(&ADD)] {
                let combine = Post::ReceiveReduce {
                    sources: PeerRun::circle(0, self.ranks, self.ranks),
                    own: self.out.span(0, len),
                    into: self.back.span(0, len),
                    dtype: DataType::I32,
                    op,
                };
                self.exchange(&key(round + 1, 0), &publish, &combine);
            }
        }
        if round.is_multiple_of(10) {
            self.burst(&key(round + 1, 1));
        }
    }

    /// A window of sends to each other rank, and only then the receives.
    fn burst(&mut self, key: &Key) {
        let (me, ranks) = (self.me, self.ranks);
        let mut left = 0;
        for is_send in [true, false] {
            let mut offset = 0;
            for _ in 0..MAX_WINDOW_PER_PEER {
                for peer in (0..ranks).filter(|&peer| peer != me) {
                    let post = match is_send {
                        true => send(self.out.span(offset, BURST_BYTES), peer),
                        false => receive(self.back.span(offset, BURST_BYTES), peer),
                    };
                    left += self.post(Token(3), key, &post);
                    offset += BURST_BYTES;
                }
            }
        }
        self.wait(key, left);
    }

    /// Posts both and polls until both are done.
    fn exchange(&mut self, key: &Key, first: &Post, second: &Post) {
        let left = self.post(Token(1), key, first) + self.post(Token(2), key, second);
        self.wait(key, left);
    }

    /// How many completions are to come: one or none.
    fn post(&mut self, token: Token, key: &Key, post: &Post) -> usize {
        let posted = self.endpoint.post(token, key, post).map_err(told).unwrap();
        usize::from(posted == Posted::Pending)
    }

    /// Polls until so many posts have completed.
    fn wait(&mut self, key: &Key, mut left: usize) {
        while left > 0 {
            let moved = self.endpoint.poll(&mut self.done).map_err(told).unwrap();
            left -= self.done.len();
            self.done.clear();
            if !moved {
                assert!(self.began.elapsed() < PATIENCE, "rank {}: no end of {key:?}", self.me);
                thread::yield_now();
            }
        }
    }
}

fn told(fault: Fault) -> String {
    format!("{fault:?}")
}
