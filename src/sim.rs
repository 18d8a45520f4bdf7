//! Simulated worlds: all ranks in one process, in virtual time, running the same plans with the same executor.
#![allow(unsafe_code)] // hands buffers that the world owns to the engines

mod tagged;

pub use tagged::{TaggedStep, TaggedWay};

use crate::choose::Chooser;
use crate::engine::{Buffers, Engine, EngineOptions, OpId, Status};
use crate::faults::{Scene, Verdict, judge};
use crate::usage::{LinkClass, MemoryUse, Traffic};
use ubccl_core::collective::{Content, Rank};
use ubccl_core::endpoint::{self, Fault, Header, HostPointer, Memory, Stream, WorldOptions, WorldStats};
use ubccl_core::plan::Plan;
use ubccl_core::symbolic::{Piece, Value};
use ubccl_core::{Cause, Choice, Collective, Culprit, Error, ErrorKind, Result};

/// How a world is made.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// The virtual transport's name.
    pub transport: String,
    /// The fabric: a preset's name, `custom:latency_ps=…,bytes_per_s=…`, or TOML text.
    pub fabric: String,
    /// How many ranks.
    pub ranks: u32,
    /// An algorithm for every call, instead of the chooser's.
    pub algorithm: Option<String>,
    /// Lanes and chunk of every plan.
    pub choice: Choice,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for WorldConfig {
    fn default() -> Self {
        WorldConfig {
            transport: "optical".into(),
            fabric: "cloudmatrix384".into(),
            ranks: 384,
            algorithm: None,
            // The model charges a message once, whatever its size: nothing is gained by cutting it.
            choice: Choice { chunk_bytes: u32::MAX, ..Choice::default() },
            seed: 0,
        }
    }
}

/// What one call cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Virtual picoseconds from the common start to the last rank's end.
    pub elapsed_ps: u64,
    /// Virtual picoseconds to each rank's end.
    pub rank_ps: Vec<u64>,
    /// What happened in this call; the hash covers the world's whole history.
    pub stats: WorldStats,
    /// Elements that are not what the collective promises, over all ranks.
    pub wrong: u64,
    /// The algorithm that ran.
    pub algorithm: &'static str,
}

/// One rank's real memory for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RankMemory {
    /// Input and output apart.
    Apart {
        /// What the rank brings.
        input: Vec<u8>,
        /// What it gets.
        output: Vec<u8>,
    },
    /// One buffer for both, laid out by [`Collective::in_place_offsets`].
    InPlace(Vec<u8>),
}

/// A simulated world. Collectives run one after the other; all ranks of one begin at the same time.
pub struct World {
    world: Box<dyn endpoint::World>,
    engines: Vec<Engine>,
    config: WorldConfig,
    poisoned: Option<Error>,
}

impl World {
    /// Makes a world.
    ///
    /// Errors: InvalidArgument, for a fabric or algorithm that does not exist or too many ranks.
    pub fn new(config: WorldConfig) -> Result<Self> {
        if config.ranks == 0 {
            return Err(Error::invalid("a world needs at least one rank"));
        }
        let transport = ubccl_transports::find(&config.transport)?;
        let options = WorldOptions { ranks: config.ranks, fabric: config.fabric.clone(), seed: config.seed };
        let mut world = transport.world(&options)?;
        let chooser = Chooser::new(config.algorithm.as_deref())?;
        let engines = (0..config.ranks)
            .map(|rank| {
                let options = EngineOptions {
                    rank,
                    ranks: config.ranks,
                    chooser,
                    choice: config.choice,
                    phantom: false,
                };
                Ok(Engine::new(world.endpoint(rank)?, options))
            })
            .collect::<Result<_>>()?;
        Ok(World { world, engines, config, poisoned: None })
    }

    /// How many ranks.
    pub fn ranks(&self) -> u32 {
        self.config.ranks
    }

    /// What the fabric is.
    pub fn describe(&self) -> String {
        self.world.describe()
    }

    /// Everything that happened so far.
    pub fn stats(&self) -> WorldStats {
        self.world.stats()
    }

    /// What one rank has sent and received so far, by level of the fabric. A rank shares the innermost with itself.
    pub fn counters(&self, rank: Rank) -> Traffic {
        let nowhere = |_| LinkClass::Level(String::new());
        Traffic::of(self.engines[rank as usize].links(), nowhere, self.config.ranks, rank)
    }

    /// Bytes of memory that one rank takes; of the world's tables its share.
    pub fn memory(&self, rank: Rank) -> MemoryUse {
        self.engines[rank as usize].memory()
    }

    /// Now, in virtual picoseconds.
    pub fn now_ps(&self) -> u64 {
        self.world.now_ps()
    }

    /// The plan that one rank's call gets.
    pub fn plan(&mut self, rank: Rank, call: &Collective<'_>, in_place: bool) -> Result<Plan> {
        call.check(self.config.ranks, rank)?;
        Ok((*self.engines[rank as usize].plan(call, in_place)?).clone())
    }

    /// Kills a rank `after_ps` from now.
    pub fn kill(&mut self, rank: Rank, after_ps: u64) {
        self.world.kill(rank, after_ps);
    }

    /// Runs one call on phantom data and checks it: every element of every output must be what the collective
    /// promises.
    ///
    /// Errors: InvalidArgument (nothing ran), or the cause that poisoned the world.
    pub fn run<'a>(&mut self, calls: &dyn Fn(Rank) -> Collective<'a>, in_place: bool) -> Result<Outcome> {
        self.check(calls)?;
        let ranks = self.config.ranks;
        let buffers = |rank: Rank| phantom_buffers(&calls(rank), ranks, rank, in_place);
        let (ids, mut outcome) = self.run_buffers(calls, buffers, true)?;
        for (rank, id) in ids.into_iter().enumerate() {
            let engine = &mut self.engines[rank];
            let region = engine.output_region(id);
            let held = engine.endpoint().phantom(region).unwrap_or_default();
            outcome.wrong += wrong_elements(calls, ranks, rank as Rank, in_place, &held);
        }
        Ok(outcome)
    }

    /// Runs one call on real data; what it should give is the caller's to check.
    ///
    /// Errors: as [`World::run`], and InvalidArgument for buffers of the wrong size.
    pub fn run_real<'a>(
        &mut self,
        calls: &dyn Fn(Rank) -> Collective<'a>,
        memory: &mut [RankMemory],
    ) -> Result<Outcome> {
        self.check(calls)?;
        let ranks = self.config.ranks;
        if memory.len() != ranks as usize {
            return Err(Error::invalid(format!("{} ranks need as many memories", ranks)));
        }
        for (rank, memory) in memory.iter().enumerate() {
            check_sizes(&calls(rank as Rank), ranks, rank as Rank, memory)?;
        }
        let host = |bytes: &mut Vec<u8>| Memory::Host {
            address: HostPointer(bytes.as_mut_ptr().expose_provenance()),
            len: bytes.len() as u64,
        };
        let mut parts: Vec<Option<Buffers>> = memory
            .iter_mut()
            .map(|memory| {
                Some(match memory {
                    RankMemory::Apart { input, output } => {
                        Buffers::Apart { input: host(input), output: host(output) }
                    }
                    RankMemory::InPlace(buffer) => Buffers::InPlace(host(buffer)),
                })
            })
            .collect();
        let take = |rank: Rank| parts[rank as usize].take().expect("each rank is issued once");
        Ok(self.run_buffers(calls, take, false)?.1)
    }

    fn check<'a>(&self, calls: &dyn Fn(Rank) -> Collective<'a>) -> Result<()> {
        if let Some(error) = &self.poisoned {
            return Err(error.clone());
        }
        (0..self.config.ranks).try_for_each(|rank| calls(rank).check(self.config.ranks, rank))
    }

    /// Issues a call on every rank and runs the world until all are done. The buffers that `buffers` names must
    /// outlive this call.
    fn run_buffers<'a>(
        &mut self,
        calls: &dyn Fn(Rank) -> Collective<'a>,
        mut buffers: impl FnMut(Rank) -> Buffers,
        phantom: bool,
    ) -> Result<(Vec<OpId>, Outcome)> {
        let (start, before) = (self.world.now_ps(), self.world.stats());
        let algorithm = self.engines[0].plan(&calls(0), false)?.algorithm();
        let mut ids = Vec::with_capacity(self.engines.len());
        for (rank, engine) in self.engines.iter_mut().enumerate() {
            let rank = rank as Rank;
            engine.set_phantom(phantom);
            // SAFETY: phantom memory has no bytes; real memory is borrowed by `run_real` until this call returns, and
            // on failure `poison` cancels the engines before.
            match unsafe { engine.issue(&calls(rank), buffers(rank), None) } {
                Ok(id) => ids.push(id),
                Err(error) => {
                    // The others hold buffers that end with this call.
                    self.engines.iter_mut().for_each(Engine::cancel);
                    self.poisoned = Some(error.clone());
                    return Err(error);
                }
            }
        }
        let mut rank_ps: Vec<Option<u64>> = vec![None; ids.len()];
        let ended = |engines: &[Engine], rank: Rank, now_ps| {
            let index = rank as usize;
            let has_ended = rank_ps[index].is_none() && engines[index].status(ids[index]) == Status::Done;
            rank_ps[index] = rank_ps[index].or(has_ended.then_some(now_ps));
            usize::from(has_ended)
        };
        self.drive(ids.len(), ended).inspect_err(|error| self.poisoned = Some(error.clone()))?;
        let rank_ps: Vec<u64> = rank_ps.into_iter().flatten().collect();
        for (engine, id) in self.engines.iter_mut().zip(&ids) {
            engine.take(*id);
        }
        let after = self.world.stats();
        let stats = WorldStats {
            messages: after.messages - before.messages,
            bytes: after.bytes - before.bytes,
            events: after.events - before.events,
            hash: after.hash,
        };
        let elapsed_ps = rank_ps.iter().copied().max().unwrap_or(start) - start;
        let rank_ps = rank_ps.into_iter().map(|end| end - start).collect();
        Ok((ids, Outcome { elapsed_ps, rank_ps, stats, wrong: 0, algorithm }))
    }

    /// Runs the world until so many operations are over; `ended` counts those of a rank that were not before.
    fn drive(&mut self, mut left: usize, mut ended: impl FnMut(&[Engine], Rank, u64) -> usize) -> Result<()> {
        let mut woken: Vec<Rank> = (0..self.config.ranks).collect();
        loop {
            if let Some(&dead) = self.world.dead().first() {
                return Err(self.poison(self.death(dead)));
            }
            for &rank in &woken {
                let index = rank as usize;
                if let Err(fault) = self.engines[index].progress() {
                    return Err(self.fail(rank, fault));
                }
                left -= ended(&self.engines, rank, self.world.now_ps());
            }
            if left == 0 {
                return self.inspect(Engine::inspect);
            }
            woken.clear();
            if !self.world.step(&mut woken)? {
                let stuck = self.engines.iter().position(|engine| !engine.is_idle()).unwrap_or(0);
                return Err(self.silence(stuck as Rank));
            }
        }
    }

    /// Ends the world: lets everything happen that is still under way, and looks for messages that no call took.
    ///
    /// Errors: Mismatch, if there is one; Remote, if a rank dies; the cause that poisoned the world.
    pub fn close(mut self) -> Result<()> {
        if let Some(error) = self.poisoned.take() {
            return Err(error);
        }
        let mut woken = Vec::new();
        while self.world.step(&mut woken)? {
            woken.clear();
        }
        if let Some(&dead) = self.world.dead().first() {
            return Err(self.poison(self.death(dead)));
        }
        self.inspect(Engine::inspect_closing)
    }

    /// Looks on every rank for messages that nobody can take any more.
    fn inspect(&mut self, look: fn(&mut Engine) -> Result<(), Fault>) -> Result<()> {
        for rank in 0..self.config.ranks {
            if let Err(fault) = look(&mut self.engines[rank as usize]) {
                return Err(self.fail(rank, fault));
            }
        }
        Ok(())
    }

    /// Makes what a rank saw the cause.
    fn fail(&mut self, me: Rank, fault: Fault) -> Error {
        let members = self.members();
        let called = |rank: Rank, sequence| self.engines[rank as usize].called(sequence);
        let cause = match judge(fault, &Scene { me, members: &members, called: &called }) {
            Verdict::Cause(cause) => cause,
            Verdict::Suspect { rank, message } => self.cause(rank, ErrorKind::Remote, &message),
        };
        self.poison(cause)
    }

    fn poison(&mut self, cause: Cause) -> Error {
        for engine in &mut self.engines {
            engine.cancel();
        }
        Error::from(cause)
    }

    fn members(&self) -> Vec<Culprit> {
        let host = self.config.fabric.lines().next().unwrap_or_default();
        (0..self.config.ranks).map(|rank| Culprit { rank, host: format!("virtual {host}"), pid: 0 }).collect()
    }

    fn death(&self, rank: Rank) -> Cause {
        self.cause(rank, ErrorKind::Remote, "the rank died in virtual time")
    }

    /// Nothing will ever happen again and `rank` waits: because the ranks called different things, or because one that
    /// it waits for does not take part.
    fn silence(&mut self, rank: Rank) -> Error {
        let (sequence, signature) = self.engines[rank as usize].current();
        let calls = (0..self.config.ranks).map(|peer| (peer, self.engines[peer as usize].called(sequence)));
        let other =
            calls.filter_map(|(peer, call)| Some((peer, call?))).find(|(_, call)| Some(*call) != signature);
        if let (Some(ours), Some((peer, theirs))) = (signature, other) {
            let header = |signature| Header { stream: Stream::Collective(sequence), signature, len: 0 };
            return self.fail(rank, Fault::Mismatch { peer, theirs: header(theirs), ours: header(ours) });
        }
        let awaited = self.engines[rank as usize].awaited().into_iter().find(|&peer| peer != rank);
        let missing = awaited.unwrap_or(rank);
        let message =
            format!("it does not take part: rank {rank} waits for it, and nothing more will ever happen");
        self.poison(self.cause(missing, ErrorKind::Timeout, &message))
    }

    fn cause(&self, rank: Rank, kind: ErrorKind, message: &str) -> Cause {
        let (sequence, signature) = self.engines[rank as usize].current();
        let operation = signature.map(|signature| signature.describe()).unwrap_or_default();
        let culprit = self.members().swap_remove(rank as usize);
        Cause { kind, culprit, operation, sequence, message: message.into() }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Phantom buffers of one rank: the input holds its contribution, the rest nothing anybody wrote.
fn phantom_buffers(call: &Collective<'_>, ranks: u32, rank: Rank, in_place: bool) -> Buffers {
    let unit = call.dtype().size() as u32;
    let (input, output) = (call.input_elements(ranks, rank), call.output_elements(ranks, rank));
    let own = Piece { len: input, value: Value::contribution(rank, ranks, 0) };
    let empty = |len| Piece { len, value: Value::UNWRITTEN };
    let phantom = |content| Memory::Phantom { unit, content };
    if !in_place {
        return Buffers::Apart { input: phantom(vec![own]), output: phantom(vec![empty(output)]) };
    }
    let total = call.in_place_elements(ranks, rank);
    let before = call.in_place_offsets(rank).0;
    let content = vec![empty(before), own, empty(total - before - input)];
    Buffers::InPlace(phantom(content.into_iter().filter(|piece| piece.len > 0).collect()))
}

/// Elements of one rank's output that are not what the collective promises.
fn wrong_elements<'a>(
    calls: &dyn Fn(Rank) -> Collective<'a>,
    ranks: u32,
    rank: Rank,
    in_place: bool,
    held: &[Piece],
) -> u64 {
    let mut memory =
        ubccl_core::symbolic::SymbolicMemory::unwritten(held.iter().map(|piece| piece.len).sum());
    memory.write(0, held);
    let base = if in_place { calls(rank).in_place_offsets(rank).1 } else { 0 };
    let all = Value::reduction((0..ranks).map(|rank| Value::contribution(rank, ranks, 0)), ranks);
    let mut wrong = 0;
    let mut pieces = Vec::new();
    for holding in Collective::holdings(calls, ranks, rank) {
        pieces.clear();
        if base + holding.start + holding.len > memory.len() {
            wrong += holding.len;
            continue;
        }
        memory.read(base + holding.start, holding.len, &mut pieces);
        let mut done = 0;
        for piece in &pieces {
            let is_right = match holding.content {
                Content::Of { rank, at } => piece.value == Value::contribution(rank, ranks, at + done),
                Content::Reduction { at } => {
                    piece.value.contributors == all.contributors
                        && piece.value.origin == (at + done) as i64
                        && !piece.value.doubled
                }
            };
            wrong += if is_right { 0 } else { piece.len };
            done += piece.len;
        }
    }
    wrong
}

fn check_sizes(call: &Collective<'_>, ranks: u32, rank: Rank, memory: &RankMemory) -> Result<()> {
    let size = call.dtype().size() as u64;
    let expect = |what: &str, bytes: usize, elements: u64| {
        let is_longer = call.kind().row().tabled && bytes as u64 > elements * size;
        if bytes as u64 == elements * size || is_longer {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{call}: rank {rank}'s {what} has {bytes} bytes, it needs {} ({elements} elements)",
            elements * size
        )))
    };
    match memory {
        RankMemory::Apart { input, output } => {
            expect("input", input.len(), call.input_elements(ranks, rank))?;
            expect("output", output.len(), call.output_elements(ranks, rank))
        }
        RankMemory::InPlace(buffer) => expect("buffer", buffer.len(), call.in_place_elements(ranks, rank)),
    }
}
