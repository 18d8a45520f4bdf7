//! Tests of the TCP transport beside the conformance suite: strangers, broken peers, leaving, bounds.
//!
//! Once connected, most tests drive all ranks from one thread: what happens then depends on the test alone.

#[allow(dead_code, unreachable_pub, reason = "shared with the test programs")]
#[path = "../../../tests/support/memory.rs"]
mod memory;
#[allow(dead_code, unreachable_pub, reason = "shared with the test programs")]
#[path = "../../../tests/support/work.rs"]
mod work;

mod channel;
mod faults;
mod flow;
mod start;

use super::endpoint::TcpEndpoint;
use crate::exchange::LocalExchange;
use memory::Area;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use ubccl_core::endpoint::{ConnectOptions, Endpoint, Fault, Key, Post, Posted, RegionId, Token};

/// A watchdog, far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One rank: its endpoint, and memory that outlives it.
struct Node {
    endpoint: TcpEndpoint,
    areas: Vec<Area>,
    posted: u64,
    done: HashSet<Token>,
}

/// The ranks of a communicator over real sockets, in rank order.
fn world(ranks: u32, options: &ConnectOptions) -> Vec<Node> {
    let exchanges = LocalExchange::all(ranks, Instant::now() + PATIENCE);
    std::thread::scope(|scope| {
        let connect = |mut exchange: LocalExchange| {
            scope.spawn(move || super::connect(&mut exchange, options).unwrap())
        };
        let threads: Vec<_> = exchanges.into_iter().map(connect).collect();
        threads.into_iter().map(|thread| Node::new(thread.join().unwrap())).collect()
    })
}

impl Node {
    fn new(endpoint: TcpEndpoint) -> Self {
        Node { endpoint, areas: Vec::new(), posted: 0, done: HashSet::new() }
    }

    /// Registers new memory with these bytes; says which area it is.
    #[expect(unsafe_code, reason = "registers memory")]
    fn area(&mut self, bytes: &[u8]) -> usize {
        let area = Area::new(RegionId(self.areas.len() as u32), bytes.len());
        area.write(0, bytes);
        // SAFETY: the area lives as long as this node, which drops its endpoint first; tests touch it only between posts.
        unsafe { self.endpoint.register(area.region(), area.memory()) }.unwrap();
        self.areas.push(area);
        self.areas.len() - 1
    }

    fn try_post(&mut self, key: &Key, post: &Post) -> Result<Token, Fault> {
        self.posted += 1;
        let token = Token(self.posted);
        if self.endpoint.post(token, key, post)? == Posted::Done {
            self.done.insert(token);
        }
        Ok(token)
    }

    #[track_caller]
    fn post(&mut self, key: &Key, post: &Post) -> Token {
        self.try_post(key, post).unwrap()
    }

    fn try_poll(&mut self) -> Result<bool, Fault> {
        let mut done = Vec::new();
        let result = self.endpoint.poll(&mut done);
        self.done.extend(done);
        result
    }

    #[track_caller]
    fn poll(&mut self) -> bool {
        self.try_poll().unwrap()
    }

    /// Polls until a fault comes.
    #[track_caller]
    fn fault(&mut self) -> Fault {
        let began = Instant::now();
        loop {
            if let Err(fault) = self.try_poll() {
                return fault;
            }
            assert!(began.elapsed() < PATIENCE, "no fault came");
            std::thread::yield_now();
        }
    }

    /// Polls until nothing has moved for a while.
    #[track_caller]
    fn settle(&mut self) {
        let mut idle = 0;
        while idle < 200 {
            idle = if self.poll() { 0 } else { idle + 1 };
            std::thread::yield_now();
        }
    }
}

/// Polls all ranks until these posts of theirs are done.
#[track_caller]
fn finish(nodes: &mut [Node], wanted: &[(usize, Token)]) {
    let began = Instant::now();
    while !wanted.iter().all(|(rank, token)| nodes[*rank].done.contains(token)) {
        let mut has_moved = false;
        for node in nodes.iter_mut() {
            has_moved |= node.poll();
        }
        if !has_moved {
            assert!(began.elapsed() < PATIENCE, "some of {wanted:?} never completed");
            std::thread::yield_now();
        }
    }
}
