//! Tests of the transport as a whole. The endpoints of all ranks are driven by one thread where that suffices: they
//! never block, and what happens is then the same every time.
#![allow(unsafe_code)] // memory that endpoints write by address

mod announced;
mod elsewhere;
mod hostile;
mod meeting;
mod messages;
mod one_pass;
mod publications;
mod sleeping;
mod windows;

use super::*;
use crate::caches::Caches;
use crate::exchange::LocalExchange;
use crate::local::stores::Stores;
use std::cell::UnsafeCell;
use std::time::{Duration, Instant};
use ubccl_core::endpoint::{
    Allocation, Fault, Header, HostPointer, Key, Memory, Post, Posted, RegionId, Span, Stream, TAGGED_LANE,
    Token,
};
use ubccl_core::plan::PeerRun;
use ubccl_core::{DataType, Rank, ReduceOp, Signature};

/// Long enough that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects all ranks, each with its own options, and gives every answer.
fn try_connect(options: &[ConnectOptions], patience: Duration) -> Vec<Result<ShmEndpoint>> {
    let exchanges = LocalExchange::all(options.len() as u32, Instant::now() + patience);
    std::thread::scope(|scope| {
        let start = |(mut exchange, options): (LocalExchange, &ConnectOptions)| {
            let options = options.clone();
            scope.spawn(move || connect(&mut exchange, &options))
        };
        let threads: Vec<_> = exchanges.into_iter().zip(options).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn connected(ranks: usize, lanes: u8, pair_bytes: u64, peer_reads: bool) -> Vec<ShmEndpoint> {
    let options =
        vec![ConnectOptions { lanes, pair_bytes: Some(pair_bytes), paced: None, peer_reads }; ranks];
    try_connect(&options, PATIENCE).into_iter().map(|endpoint| endpoint.unwrap()).collect()
}

/// Memory that an endpoint may write while a test looks at it in between.
enum Area {
    Own(Box<[UnsafeCell<u8>]>),
    Given(Box<dyn Allocation>, usize),
}

impl Area {
    fn new(bytes: &[u8]) -> Self {
        Area::Own(bytes.iter().map(|&byte| UnsafeCell::new(byte)).collect())
    }

    fn within(allocation: Box<dyn Allocation>, bytes: &[u8]) -> Self {
        let area = Area::Given(allocation, bytes.len());
        area.write(bytes);
        area
    }

    fn first(&self) -> *mut u8 {
        match self {
            Area::Own(bytes) => bytes.as_ptr().cast::<u8>().cast_mut(),
            Area::Given(allocation, _) => std::ptr::with_exposed_provenance_mut(allocation.address().0),
        }
    }

    fn len(&self) -> usize {
        match self {
            Area::Own(bytes) => bytes.len(),
            Area::Given(_, len) => *len,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let first = self.first();
        // SAFETY: inside the area; endpoints write only inside post and poll, which this thread is not in.
        (0..self.len()).map(|at| unsafe { first.wrapping_add(at).read() }).collect()
    }

    fn write(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len());
        // SAFETY: inside the area; endpoints touch it only inside post and poll, which this thread is not in.
        unsafe { self.first().copy_from(bytes.as_ptr(), bytes.len()) };
    }
}

/// All ranks of one communicator and their memory.
struct Rig {
    endpoints: Vec<ShmEndpoint>,
    areas: Vec<Vec<Area>>,
    done: Vec<Vec<Token>>,
}

impl Rig {
    fn new(ranks: usize, lanes: u8, pair_bytes: u64) -> Self {
        Self::of(connected(ranks, lanes, pair_bytes, false))
    }

    /// Two ranks that are near each other for good, with as much memory as two have if nobody says, and a third cache of which
    /// a few MiB are little.
    fn near_pair() -> Self {
        let mut rig = Self::new(2, 1, 5248 << 10);
        for endpoint in &mut rig.endpoints {
            endpoint.caches = Caches { third: 32 << 20, ..endpoint.caches };
            endpoint.outgoing.iter_mut().for_each(|out| out.stores = Stores::near());
        }
        rig
    }

    fn of(endpoints: Vec<ShmEndpoint>) -> Self {
        let ranks = endpoints.len();
        Rig { endpoints, areas: (0..ranks).map(|_| Vec::new()).collect(), done: vec![Vec::new(); ranks] }
    }

    /// Registers memory of a rank and names all of it.
    fn area(&mut self, rank: usize, bytes: &[u8]) -> Span {
        self.register(rank, Area::new(bytes), bytes)
    }

    /// The same in memory of the rank's heap.
    fn heap_area(&mut self, rank: usize, bytes: &[u8]) -> Span {
        let allocation = self.endpoints[rank].allocate(bytes.len() as u64).unwrap().expect("there is room");
        self.register(rank, Area::within(allocation, bytes), bytes)
    }

    fn register(&mut self, rank: usize, area: Area, bytes: &[u8]) -> Span {
        let region = RegionId(self.areas[rank].len() as u32);
        let address = HostPointer(area.first().expose_provenance());
        let memory = Memory::Host { address, len: bytes.len() as u64 };
        // SAFETY: the area lives in the rig as long as the endpoint, and only posts touch it.
        unsafe { self.endpoints[rank].register(region, memory) }.unwrap();
        self.areas[rank].push(area);
        Span { region, offset: 0, len: bytes.len() as u64 }
    }

    fn bytes(&self, rank: usize, span: Span) -> Vec<u8> {
        let all = self.areas[rank][span.region.0 as usize].bytes();
        all[span.offset as usize..][..span.len as usize].to_vec()
    }

    fn post(&mut self, rank: usize, token: u64, key: &Key, post: Post) -> Result<Posted, Fault> {
        let posted = self.endpoints[rank].post(Token(token), key, &post);
        if let Ok(Posted::Done) = posted {
            self.done[rank].push(Token(token));
        }
        posted
    }

    /// Polls every rank in turn until none moves.
    fn settle(&mut self) -> Result<(), Fault> {
        loop {
            let mut moved = false;
            for (endpoint, done) in self.endpoints.iter_mut().zip(&mut self.done) {
                moved |= endpoint.poll(done)?;
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
    Key { stream: Stream::Tagged(tag), lane: TAGGED_LANE, signature: Signature(9), engine: None }
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

/// Every rank sends all others what it has, in its heap or not, and sums what all have.
fn everybody_sums(rig: &mut Rig, outputs: &[Span], is_in_heap: impl Fn(usize) -> bool) {
    let (ranks, len) = (outputs.len(), outputs[0].len as usize);
    let inputs: Vec<_> = (0..ranks as u64).map(|rank| pattern(rank + 7, len)).collect();
    for rank in 0..ranks {
        let own = match is_in_heap(rank) {
            true => rig.heap_area(rank, &inputs[rank]),
            false => rig.area(rank, &inputs[rank]),
        };
        let others = PeerRun::circle(rank as u32 + 1, ranks as u32 - 1, ranks as u32);
        rig.post(rank, 1, &key(1, 0), Post::Send { from: own, to: others }).unwrap();
        let everybody = PeerRun::circle(0, ranks as u32, ranks as u32);
        rig.post(rank, 2, &key(1, 0), sum(everybody, own, outputs[rank])).unwrap();
    }
    rig.settle().unwrap();
    let expected: Vec<u8> =
        (0..len).map(|at| inputs.iter().fold(0, |sum: u8, input| sum.wrapping_add(input[at]))).collect();
    for (rank, &output) in outputs.iter().enumerate() {
        assert_eq!(rig.bytes(rank, output), expected, "rank {rank}");
        assert_eq!(rig.finished(rank), [1, 2]);
    }
}

/// Bytes that differ with seed and place.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| byte()).collect()
}
