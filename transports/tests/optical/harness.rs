//! A driver of a simulated world: posts by hand, records when and what completes.
#![allow(unsafe_code)] // registers memory

use ubccl_core::endpoint::{
    CommunicatorId, Endpoint, Fault, Fidelity, HostPointer, Key, Memory, Place, Post, Posted, RegionId, Span,
    Stream, Token, World, WorldOptions,
};
use ubccl_core::plan::PeerRun;
use ubccl_core::symbolic::{Piece, Value};
use ubccl_core::{DataType, Rank, ReduceOp, Result, Signature};

/// A world, its endpoints, and what completed at which time.
pub(crate) struct Harness {
    pub(crate) world: Box<dyn World>,
    /// Those of all ranks, then those of further communicators; methods take places in this list as ranks.
    pub(crate) endpoints: Vec<Box<dyn Endpoint>>,
    /// Where the endpoints of each communicator begin.
    firsts: Vec<u32>,
    /// (rank, token, picoseconds), in the order seen.
    pub(crate) done: Vec<(Rank, u64, u64)>,
    pub(crate) faults: Vec<(Rank, Fault)>,
    /// Ranks that `step` named, with the time.
    pub(crate) woken: Vec<(Rank, u64)>,
    /// Real memory: address and floats of each rank's regions.
    floats: Vec<[(*mut f32, usize); 2]>,
}

pub(crate) const SIGNATURE: Signature = Signature(77);
/// Region 0 is the input, 1 the output.
pub(crate) const INPUT: RegionId = RegionId(0);
pub(crate) const OUTPUT: RegionId = RegionId(1);

/// The key of the first collective on a lane.
pub(crate) fn key(lane: u8) -> Key {
    Key { stream: Stream::Collective(1), lane, signature: SIGNATURE, engine: None }
}

pub(crate) fn span(region: RegionId, offset: u64, len: u64) -> Span {
    Span { region, offset, len }
}

pub(crate) fn send(from: Span, to: Rank) -> Post {
    Post::Send { from, to: PeerRun::one(to) }
}

pub(crate) fn receive(into: Span, from: Rank) -> Post {
    Post::Receive { into, from }
}

pub(crate) fn reduce(sources: PeerRun, own: Span, into: Span) -> Post {
    Post::ReceiveReduce { sources, own, into, dtype: DataType::F32, op: ReduceOp::Sum }
}

impl Harness {
    pub(crate) fn try_new(fabric: &str, ranks: u32) -> Result<Self> {
        Self::with_fidelity(fabric, ranks, Fidelity::LogGp)
    }

    pub(crate) fn with_fidelity(fabric: &str, ranks: u32, fidelity: Fidelity) -> Result<Self> {
        let options =
            WorldOptions { ranks, fabric: fabric.to_owned(), seed: 1, fidelity, faults: String::new() };
        let mut world = ubccl_transports::find("optical")?.world(&options)?;
        let endpoints = (0..ranks).map(|rank| world.endpoint(rank)).collect::<Result<_>>()?;
        Ok(Harness {
            world,
            endpoints,
            firsts: vec![0],
            done: Vec::new(),
            faults: Vec::new(),
            woken: Vec::new(),
            floats: Vec::new(),
        })
    }

    pub(crate) fn new(fabric: &str, ranks: u32) -> Self {
        Self::try_new(fabric, ranks).unwrap()
    }

    /// Every rank gets an input that is its contribution, and an output nobody has written.
    pub(crate) fn with_phantom(mut self, elements: u64, unit: u32) -> Self {
        register_phantom(&mut self.endpoints, elements, unit);
        self
    }

    /// A further communicator of these ranks, with phantom memory of its own; where its endpoints begin.
    pub(crate) fn add(&mut self, ranks: &[Rank], elements: u64, unit: u32) -> (CommunicatorId, Rank) {
        let (id, mut endpoints) = self.world.communicator(ranks).unwrap();
        assert_eq!((id.0 as usize, endpoints.len()), (self.firsts.len(), ranks.len()));
        register_phantom(&mut endpoints, elements, unit);
        let first = self.endpoints.len() as Rank;
        self.firsts.push(first);
        self.endpoints.extend(endpoints);
        (id, first)
    }

    /// Every rank gets real memory: an input of these floats, and an output of the same length full of −1.
    pub(crate) fn with_floats(mut self, input: impl Fn(Rank, usize) -> f32, count: usize) -> Self {
        for rank in 0..self.endpoints.len() {
            let floats: Vec<f32> = (0..count).map(|k| input(rank as Rank, k)).collect();
            let regions = [(INPUT, floats), (OUTPUT, vec![-1.0; count])].map(|(region, floats)| {
                // Leaked, so that it outlives every endpoint.
                let address = floats.leak().as_mut_ptr();
                let memory = Memory::Host { address: HostPointer(address as usize), len: 4 * count as u64 };
                // SAFETY: leaked memory stays, and only posts and `Harness::floats` touch it.
                unsafe { self.endpoints[rank].register(region, memory) }.unwrap();
                (address, count)
            });
            self.floats.push(regions);
        }
        self
    }

    /// What a region of real memory holds.
    pub(crate) fn floats(&self, rank: Rank, region: RegionId) -> Vec<f32> {
        let (address, count) = self.floats[rank as usize][region.0 as usize];
        // SAFETY: leaked memory of `count` floats; the driver is one thread and no step is under way.
        unsafe { std::slice::from_raw_parts(address, count) }.to_vec()
    }

    /// What a phantom region holds, element by element.
    pub(crate) fn values(&self, rank: Rank, region: RegionId) -> Vec<Value> {
        let pieces = self.endpoints[rank as usize].phantom(region).unwrap();
        pieces.iter().flat_map(|piece| (0..piece.len).map(|k| piece.value.further(k))).collect()
    }

    pub(crate) fn post(&mut self, rank: Rank, token: u64, post: &Post) -> Posted {
        self.post_with(rank, token, &key(0), post).unwrap()
    }

    pub(crate) fn post_with(
        &mut self,
        rank: Rank,
        token: u64,
        key: &Key,
        post: &Post,
    ) -> Result<Posted, Fault> {
        let posted = self.endpoints[rank as usize].post(Token(token), key, post)?;
        if posted == Posted::Done {
            self.done.push((rank, token, self.world.now_ps()));
        }
        Ok(posted)
    }

    /// One step; polls whom it names.
    pub(crate) fn step(&mut self) -> bool {
        let mut woken = Vec::new();
        if !self.world.step(&mut woken).unwrap() {
            return false;
        }
        assert!(woken.is_sorted_by(|a, b| a < b), "each rank once, in order: {woken:?}");
        let now_ps = self.world.now_ps();
        for Place { communicator, rank } in woken {
            let rank = self.firsts[communicator.0 as usize] + rank;
            self.woken.push((rank, now_ps));
            let mut tokens = Vec::new();
            if let Err(fault) = self.endpoints[rank as usize].poll(&mut tokens) {
                self.faults.push((rank, fault));
            }
            self.done.extend(tokens.iter().map(|token| (rank, token.0, now_ps)));
        }
        true
    }

    /// Steps until nothing happens any more.
    pub(crate) fn run(&mut self) -> &mut Self {
        while self.step() {}
        self
    }

    /// Each rank posts `posts(rank, phase)` and goes on to the next phase when all of them completed.
    pub(crate) fn run_phases(&mut self, phases: usize, posts: impl Fn(Rank, usize) -> Vec<Post>) -> u64 {
        let ranks = self.endpoints.len();
        let mut state = vec![(0_usize, 0_usize); ranks]; // next phase, posts open
        let mut ready: Vec<Rank> = (0..ranks as Rank).collect();
        loop {
            for rank in std::mem::take(&mut ready) {
                while state[rank as usize].1 == 0 && state[rank as usize].0 < phases {
                    let phase = state[rank as usize].0;
                    state[rank as usize].0 += 1;
                    for post in posts(rank, phase) {
                        let posted = self.post(rank, phase as u64, &post);
                        state[rank as usize].1 += usize::from(posted == Posted::Pending);
                    }
                }
            }
            let seen = self.done.len();
            if !self.step() {
                break;
            }
            for &(rank, ..) in &self.done[seen..] {
                state[rank as usize].1 -= 1;
                ready.push(rank);
            }
        }
        assert!(state.iter().all(|&rank| rank == (phases, 0)), "not over: {state:?}");
        self.world.now_ps()
    }

    /// When a post completed.
    pub(crate) fn time(&self, rank: Rank, token: u64) -> Option<u64> {
        let mut times = self.done.iter().filter(|done| (done.0, done.1) == (rank, token));
        let time = times.next().map(|done| done.2);
        assert!(times.next().is_none(), "rank {rank} saw token {token} twice");
        time
    }
}

fn register_phantom(endpoints: &mut [Box<dyn Endpoint>], elements: u64, unit: u32) {
    let ranks = endpoints.len() as u32;
    for (rank, endpoint) in endpoints.iter_mut().enumerate() {
        let contents = [(INPUT, Value::contribution(rank as u32, ranks, 0)), (OUTPUT, Value::UNWRITTEN)];
        for (region, value) in contents {
            let content = vec![Piece { len: elements, value }];
            // SAFETY: phantom memory has no address.
            unsafe { endpoint.register(region, Memory::Phantom { unit, content }) }.unwrap();
        }
    }
}
