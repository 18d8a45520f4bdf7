//! Tests of the transport as a whole. Endpoints are driven by one thread where that suffices: they never block, and what
//! happens is then the same every time.
#![allow(unsafe_code)] // memory that endpoints write by address

mod ends;
mod meeting;
mod messages;

use super::*;
use crate::exchange::LocalExchange;
use std::cell::UnsafeCell;
use std::time::{Duration, Instant};
use ubccl_core::endpoint::{
    Fault, HostPointer, Key, Memory, POINT_TO_POINT_LANE, Post, Posted, RegionId, Span, Stream, Token,
};
use ubccl_core::plan::PeerRun;
use ubccl_core::{DataType, Rank, ReduceOp, Signature};

/// Long enough that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects all ranks, each with its own options, and gives every answer.
fn try_connect(options: &[ConnectOptions]) -> Vec<Result<ThreadsEndpoint>> {
    let exchanges = LocalExchange::all(options.len() as u32, Instant::now() + PATIENCE);
    std::thread::scope(|scope| {
        let start = |(mut exchange, options): (LocalExchange, &ConnectOptions)| {
            let options = options.clone();
            scope.spawn(move || connect(&mut exchange, &options))
        };
        let threads: Vec<_> = exchanges.into_iter().zip(options).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Memory that an endpoint may write while a test looks at it in between.
struct Area(Box<[UnsafeCell<u8>]>);

impl Area {
    fn new(bytes: &[u8]) -> Self {
        Area(bytes.iter().map(|&byte| UnsafeCell::new(byte)).collect())
    }

    fn bytes(&self) -> Vec<u8> {
        // SAFETY: endpoints write only inside post and poll, which this thread is not in.
        self.0.iter().map(|byte| unsafe { *byte.get() }).collect()
    }

    fn fill(&self, byte: u8) {
        // SAFETY: no post that names the area is under way, or its rank has cancelled.
        self.0.iter().for_each(|cell| unsafe { *cell.get() = byte });
    }
}

/// All ranks of one communicator and their memory.
struct Rig {
    // First, so that they are gone before the memory. A rank that left has none.
    endpoints: Vec<Option<ThreadsEndpoint>>,
    areas: Vec<Vec<Area>>,
    done: Vec<Vec<Token>>,
}

impl Rig {
    fn new(ranks: usize) -> Self {
        let options = vec![ConnectOptions { lanes: 2, ..ConnectOptions::default() }; ranks];
        let endpoints = try_connect(&options).into_iter().map(|endpoint| Some(endpoint.unwrap())).collect();
        Rig { endpoints, areas: (0..ranks).map(|_| Vec::new()).collect(), done: vec![Vec::new(); ranks] }
    }

    fn endpoint(&mut self, rank: usize) -> &mut ThreadsEndpoint {
        self.endpoints[rank].as_mut().expect("the rank has not left")
    }

    /// Registers memory of a rank and names all of it.
    fn area(&mut self, rank: usize, bytes: &[u8]) -> Span {
        let area = Area::new(bytes);
        let region = RegionId(self.areas[rank].len() as u32);
        let address = HostPointer(area.0.as_ptr().expose_provenance());
        let memory = Memory::Host { address, len: bytes.len() as u64 };
        // SAFETY: the area lives in the rig as long as the endpoint, and only posts touch it.
        unsafe { self.endpoint(rank).register(region, memory) }.unwrap();
        self.areas[rank].push(area);
        Span { region, offset: 0, len: bytes.len() as u64 }
    }

    fn bytes(&self, rank: usize, span: Span) -> Vec<u8> {
        let all = self.areas[rank][span.region.0 as usize].bytes();
        all[span.offset as usize..][..span.len as usize].to_vec()
    }

    fn post(&mut self, rank: usize, token: u64, key: &Key, post: Post) -> Result<Posted, Fault> {
        let posted = self.endpoint(rank).post(Token(token), key, &post);
        if let Ok(Posted::Done) = posted {
            self.done[rank].push(Token(token));
        }
        posted
    }

    fn poll(&mut self, rank: usize) -> Result<bool, Fault> {
        let endpoint = self.endpoints[rank].as_mut().expect("the rank has not left");
        endpoint.poll(&mut self.done[rank])
    }

    /// Polls every rank in turn until none moves.
    fn settle(&mut self) -> Result<(), Fault> {
        loop {
            let mut moved = false;
            for rank in 0..self.endpoints.len() {
                moved |= self.endpoints[rank].is_some() && self.poll(rank)?;
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// The tokens that completed on a rank, sorted.
    fn finished(&self, rank: usize) -> Vec<u64> {
        let mut tokens: Vec<_> = self.done[rank].iter().map(|token| token.0).collect();
        tokens.sort_unstable();
        tokens
    }
}

/// The key of collective `sequence` on `lane`.
fn key(sequence: u64, lane: u8) -> Key {
    Key { stream: Stream::Collective(sequence), lane, signature: Signature(0x1234 << 64 | 5), engine: None }
}

fn tagged(tag: u32) -> Key {
    Key { stream: Stream::Tagged(tag), lane: POINT_TO_POINT_LANE, signature: Signature(9), engine: None }
}

fn send(from: Span, to: Rank) -> Post {
    Post::Send { from, to: PeerRun::one(to) }
}

fn receive(into: Span, from: Rank) -> Post {
    Post::Receive { into, from }
}

fn sum(sources: PeerRun, own: Span, into: Span) -> Post {
    Post::ReceiveReduce { sources, own, into, dtype: DataType::U8, op: ReduceOp::Sum }
}

/// Bytes that differ with seed and place.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| ((at + 1).wrapping_mul(seed * 2 + 0x9e37_79b9) >> 7) as u8).collect()
}

/// Who was lost and what was seen.
fn lost(result: Result<impl std::fmt::Debug, Fault>) -> (Rank, String) {
    match result {
        Err(Fault::Lost { peer, message }) => (peer, message),
        other => panic!("not lost: {other:?}"),
    }
}
