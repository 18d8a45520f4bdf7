//! Simulated worlds: all ranks in one process, in virtual time, running the same plans with the same executor.
//!
//! A [`World`] begins with one communicator of all ranks ([`CommunicatorId::WORLD`], which the methods without a
//! communicator mean); others are [split](World::split) from it. Calls run one by one ([`World::run_phantom`],
//! [`World::run_real`] and their `_on` forms), a handful at once ([`World::run_together`]), or are
//! [issued](World::issue) and waited for later: then time stands still until somebody waits.
//!
//! Programs of ranks, user code that awaits its calls, run by [`World::run`].
//!
//! ```
//! use ubccl::sim::{CommunicatorId, RankMemory, World, WorldConfig};
//! use ubccl::{Collective, DataType, ReduceOp};
//!
//! let mut world = World::new(WorldConfig { ranks: 4, ..WorldConfig::default() })?;
//! let halves = world.split(CommunicatorId::WORLD, &|rank| Some(rank / 2), &|_| 0)?;
//! assert_eq!(world.members(halves[1])?, [2, 3]);
//! let mut memory = [3_u8, 4].map(|byte| RankMemory::Apart { input: vec![byte], output: vec![0] });
//! let sum = Collective::all_reduce(1, DataType::U8, ReduceOp::Sum);
//! world.run_real_on(halves[1], &|_| sum, &mut memory)?;
//! assert_eq!(memory[1].output(), [7]);
//! # Ok::<(), ubccl::Error>(())
//! ```

mod check;
mod company;
mod foresight;
mod operations;
mod program;
mod recording;
mod tagged;

use crate::choose::{Chooser, Wishes};
use crate::costs::Costs;
use crate::engine::Engine;
use crate::usage::{LinkClass, MemoryUse, Traffic};
use company::Company;
use foresight::Foresight;
use operations::Operation;
pub use operations::{Data, Issued, Job};
pub(crate) use program::blocking::{is_in_program, refuse_blocking};
pub use program::{Buffer, Communicator, Compute, End, Ended, Phantom, Report, Window, Work};
pub use recording::Moment;
use recording::Watch;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
pub use tagged::{TaggedStep, TaggedWay};
pub use ubccl_algorithms::tuner::Candidate;
use ubccl_core::collective::Rank;
use ubccl_core::endpoint::{self, WorldOptions, WorldStats};
pub use ubccl_core::endpoint::{CommunicatorId, EngineCosts, Fidelity, Machine};
use ubccl_core::plan::Plan;
use ubccl_core::{Choice, Collective, Error, Layout, Result};
pub use ubccl_transports::optical::{Fabric, FabricLevel};

/// How a world is made.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// The virtual transport's name.
    pub transport: String,
    /// The fabric: a preset's name, `custom:latency_ps=…,bytes_per_s=…`, or TOML text.
    pub fabric: String,
    /// How many ranks.
    pub ranks: u32,
    /// An algorithm for every call (`ring`), or a family for each level of the layout (`node:mesh;supernode:nhr`),
    /// instead of the tuner's.
    pub algorithm: Option<String>,
    /// The engine for every call, of a fabric with several, instead of the tuner's.
    pub engine: Option<String>,
    /// Which ranks stand together, as [`Layout::parse`] reads it, instead of the fabric's levels.
    pub layout: Option<String>,
    /// Only algorithms that give the same bits, whichever of them runs, on any transport and layout.
    pub reproducible: bool,
    /// Bytes of a chunk where an algorithm pipelines, instead of the tuner's.
    pub chunk_bytes: Option<u32>,
    /// Lanes that a plan may use.
    pub lanes: u8,
    /// Seed of everything random.
    pub seed: u64,
    /// How exactly messages are timed.
    pub fidelity: Fidelity,
    /// What goes wrong and when, in TOML; nothing, unless said. docs/simulation.md has the form.
    pub faults: String,
    /// How long an operation may take, in virtual time: past that it ends in a timeout.
    pub operation_timeout: Duration,
}

impl Default for WorldConfig {
    fn default() -> Self {
        WorldConfig {
            transport: "optical".into(),
            fabric: "cloudmatrix384".into(),
            ranks: 384,
            algorithm: None,
            engine: None,
            layout: None,
            reproducible: false,
            chunk_bytes: None,
            lanes: 4,
            seed: 0,
            fidelity: Fidelity::default(),
            faults: String::new(),
            operation_timeout: Duration::from_secs(30 * 60),
        }
    }
}

impl WorldConfig {
    /// What the transport is told.
    pub(crate) fn options(&self) -> WorldOptions {
        let WorldConfig { ranks, ref fabric, seed, fidelity, ref faults, .. } = *self;
        WorldOptions { ranks, fabric: fabric.clone(), seed, fidelity, faults: faults.clone() }
    }

    fn operation_timeout_ps(&self) -> u64 {
        u64::try_from(self.operation_timeout.as_nanos().saturating_mul(1000)).unwrap_or(u64::MAX)
    }

    /// Where ranks stand: as configured, otherwise as the machine is built.
    pub(crate) fn layout(&self, machine: &Machine) -> Result<Layout> {
        match &self.layout {
            Some(text) => Layout::parse(text, self.ranks),
            None => Ok(Layout::of(&machine.topology, self.ranks)),
        }
    }
}

/// What one call cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Virtual picoseconds from the issue to the last rank's end.
    pub elapsed_ps: u64,
    /// Virtual picoseconds to each rank's end.
    pub rank_ps: Vec<u64>,
    /// What happened in the world from the issue to the last rank's end, by this call and by others; the hash covers
    /// the world's whole history.
    pub stats: WorldStats,
    /// Elements that are not what the collective promises, over all ranks; counted for phantom data.
    pub wrong: u64,
    /// The algorithm that ran.
    pub algorithm: &'static str,
    /// With how many lanes and what chunks, and by which of the [engines](World::engines).
    pub choice: Choice,
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

impl RankMemory {
    /// What the rank gets; in place, the whole buffer.
    pub fn output(&self) -> &[u8] {
        match self {
            RankMemory::Apart { output, .. } | RankMemory::InPlace(output) => output,
        }
    }
}

/// A simulated world. Calls on one communicator run one after the other; all ranks of one begin at the same time.
/// Calls on several run at the same time, on the same links.
pub struct World {
    // Before the operations: engines know their memory.
    communicators: Vec<Company>,
    /// Issued and not collected, by number.
    operations: BTreeMap<u64, Operation>,
    issued: u64,
    world: Box<dyn endpoint::World>,
    is_recording: bool,
    has_faults: bool,
    watch: Watch,
    foresight: Foresight,
    costs: Costs,
    /// Of the communicator of all.
    layout: Layout,
    /// Why ranks died, where that is known.
    reasons: BTreeMap<Rank, String>,
    config: WorldConfig,
}

impl World {
    /// Makes a world.
    ///
    /// Errors: InvalidArgument, for a fabric, algorithm or engine that does not exist or too many ranks.
    pub fn new(config: WorldConfig) -> Result<Self> {
        if config.ranks == 0 {
            return Err(Error::invalid("a world needs at least one rank"));
        }
        let transport = ubccl_transports::find(&config.transport)?;
        let options = config.options();
        let mut world = transport.world(&options)?;
        let machine = world.machine();
        let layout = config.layout(&machine)?;
        let endpoints = (0..config.ranks).map(|rank| world.endpoint(rank)).collect::<Result<_>>()?;
        let mut world = World {
            communicators: Vec::new(),
            operations: BTreeMap::new(),
            issued: 0,
            world,
            is_recording: false,
            has_faults: !config.faults.trim().is_empty(),
            watch: Watch::default(),
            foresight: Foresight::default(),
            costs: Costs::of_machine(&machine),
            layout,
            reasons: BTreeMap::new(),
            config,
        };
        world.add((0..world.config.ranks).collect(), endpoints)?;
        Ok(world)
    }

    /// How many ranks.
    pub fn ranks(&self) -> u32 {
        self.config.ranks
    }

    /// What the fabric is.
    pub fn describe(&self) -> String {
        self.world.describe()
    }

    /// How exactly its times are: which of the fidelities, whose [`Fidelity::unseen`] says what they cannot show.
    pub fn fidelity(&self) -> Fidelity {
        self.world.fidelity()
    }

    /// What its costs are made of.
    pub fn machine(&self) -> Machine {
        self.world.machine()
    }

    /// Everything that happened so far.
    pub fn stats(&self) -> WorldStats {
        self.world.stats()
    }

    /// Now, in virtual picoseconds.
    pub fn now_ps(&self) -> u64 {
        self.world.now_ps()
    }

    /// What one rank has sent and received so far in the communicator of all, by level of the fabric. A rank shares the
    /// innermost with itself.
    pub fn counters(&self, rank: Rank) -> Traffic {
        traffic(&self.communicators[0], rank)
    }

    /// The same in any communicator.
    pub fn counters_on(&self, communicator: CommunicatorId, rank: Rank) -> Result<Traffic> {
        let company = self.company(communicator)?;
        company.check_rank(rank)?;
        Ok(traffic(company, rank))
    }

    /// Bytes of memory that one rank takes for the communicator of all; of the world's tables its share.
    pub fn memory(&self, rank: Rank) -> MemoryUse {
        self.communicators[0].engines[rank as usize].memory()
    }

    /// Kills a rank of the world `after_ps` from now. Once the others know, every communicator it is in is poisoned.
    pub fn kill(&mut self, rank: Rank, after_ps: u64) {
        self.world.kill(rank, after_ps);
    }

    /// A rank is no more, for this reason.
    fn bury(&mut self, rank: Rank, why: String) {
        self.reasons.entry(rank).or_insert(why);
        self.kill(rank, 0);
    }

    /// Every communicator, in the order made.
    pub fn communicators(&self) -> impl Iterator<Item = CommunicatorId> + use<> {
        (0..self.communicators.len() as u32).map(CommunicatorId)
    }

    /// The ranks of the world that are in a communicator, in its order.
    ///
    /// Errors: InvalidArgument, for a communicator that this world does not have; so do all methods that take one.
    pub fn members(&self, communicator: CommunicatorId) -> Result<&[Rank]> {
        Ok(&self.company(communicator)?.ranks)
    }

    /// The first cause, if a communicator is poisoned.
    pub fn async_error(&self, communicator: CommunicatorId) -> Result<Option<Error>> {
        Ok(self.company(communicator)?.poisoned.clone())
    }

    /// Splits a communicator as [`Communicator::split`](crate::Communicator::split) does: one for each colour, in the
    /// order of colours. Takes no virtual time.
    ///
    /// Errors: the cause, if it is poisoned.
    pub fn split(
        &mut self,
        of: CommunicatorId,
        colour: &dyn Fn(Rank) -> Option<u32>,
        key: &dyn Fn(Rank) -> i64,
    ) -> Result<Vec<CommunicatorId>> {
        let ranks = self.usable(of)?.size();
        let mut groups: BTreeMap<u32, Vec<(i64, Rank)>> = BTreeMap::new();
        for rank in 0..ranks {
            if let Some(colour) = colour(rank) {
                groups.entry(colour).or_default().push((key(rank), rank));
            }
        }
        let ordered = groups.into_values().map(|mut group| {
            group.sort_unstable();
            group.into_iter().map(|(_, rank)| rank).collect::<Vec<Rank>>()
        });
        ordered.collect::<Vec<_>>().iter().map(|group| self.split_ranks(of, group)).collect()
    }

    /// Makes a communicator of these ranks of another, in this order.
    ///
    /// Errors: InvalidArgument, for no rank, one that does not exist or comes twice; the cause, if it is poisoned.
    pub fn split_ranks(&mut self, of: CommunicatorId, ranks: &[Rank]) -> Result<CommunicatorId> {
        let members = &self.usable(of)?.ranks;
        let known = |rank: &Rank| {
            let unknown = || format!("there is no rank {rank} in a communicator of {}", members.len());
            members.get(*rank as usize).copied().ok_or_else(|| Error::invalid(unknown()))
        };
        let ranks: Vec<Rank> = ranks.iter().map(known).collect::<Result<_>>()?;
        let (id, endpoints) = self.world.communicator(&ranks)?;
        debug_assert_eq!(
            id.0 as usize,
            self.communicators.len(),
            "worlds count communicators as they are made"
        );
        self.add(ranks, endpoints)?;
        Ok(id)
    }

    /// Makes another communicator of the same ranks.
    ///
    /// Errors: the cause, if it is poisoned.
    pub fn duplicate(&mut self, of: CommunicatorId) -> Result<CommunicatorId> {
        let ranks: Vec<Rank> = (0..self.company(of)?.size()).collect();
        self.split_ranks(of, &ranks)
    }

    /// The plan that one rank's call gets.
    pub fn plan(&mut self, rank: Rank, call: &Collective<'_>, in_place: bool) -> Result<Plan> {
        call.check(self.config.ranks, rank)?;
        Ok(Plan::clone(&*self.communicators[0].engines[rank as usize].plan(call, in_place)?))
    }

    /// The names of the engines that calls choose from, as [`Choice::engine`] counts them; none, where there is but one.
    pub fn engines(&self) -> Vec<String> {
        self.communicators[0].engines[0].chooser().engines()
    }

    /// What a call may be done with, by predicted time: the first is what it gets.
    pub fn candidates(&self, call: &Collective<'_>) -> Result<Vec<Candidate>> {
        call.check(self.config.ranks, 0)?;
        Ok(self.communicators[0].engines[0].chooser().tuner().explain(call))
    }

    /// Runs one call on phantom data and checks it: every element of every output must be what the collective
    /// promises.
    ///
    /// Errors: InvalidArgument (nothing ran), or the cause that poisoned the communicator.
    pub fn run_phantom<'a>(
        &mut self,
        calls: &dyn Fn(Rank) -> Collective<'a>,
        in_place: bool,
    ) -> Result<Outcome> {
        self.run_phantom_on(CommunicatorId::WORLD, calls, in_place)
    }

    /// The same on any communicator; `calls` is asked for its ranks.
    pub fn run_phantom_on<'a>(
        &mut self,
        communicator: CommunicatorId,
        calls: &dyn Fn(Rank) -> Collective<'a>,
        in_place: bool,
    ) -> Result<Outcome> {
        self.run_one(Job { communicator, calls, data: Data::Phantom { in_place } })
    }

    /// Runs one call on real data; what it should give is the caller's to check.
    ///
    /// Errors: as [`World::run_phantom`], and InvalidArgument for buffers of the wrong size.
    pub fn run_real<'a>(
        &mut self,
        calls: &dyn Fn(Rank) -> Collective<'a>,
        memory: &mut [RankMemory],
    ) -> Result<Outcome> {
        self.run_real_on(CommunicatorId::WORLD, calls, memory)
    }

    /// The same on any communicator; `calls` and `memory` are for its ranks.
    pub fn run_real_on<'a>(
        &mut self,
        communicator: CommunicatorId,
        calls: &dyn Fn(Rank) -> Collective<'a>,
        memory: &mut [RankMemory],
    ) -> Result<Outcome> {
        self.run_one(Job { communicator, calls, data: Data::Real(memory) })
    }

    /// Ends the world: lets everything happen that is still under way, and looks for messages that no call took.
    ///
    /// Errors: InvalidArgument, if something was issued and not waited for; Mismatch, if there is such a message;
    /// Remote, if a rank dies; the cause of the first communicator that is poisoned.
    pub fn close(mut self) -> Result<()> {
        if let Some(error) = self.communicators.iter().find_map(|company| company.poisoned.clone()) {
            return Err(error);
        }
        if !self.operations.is_empty() {
            return Err(Error::invalid("operations are still under way; wait for each before close()"));
        }
        let mut woken = Vec::new();
        while self.world.step(&mut woken)? {
            woken.clear();
        }
        self.notice_deaths();
        for company in &mut self.communicators {
            company.check()?;
            company.inspect(Engine::inspect_closing);
            company.check()?;
        }
        Ok(())
    }

    fn add(&mut self, ranks: Vec<Rank>, endpoints: Vec<Box<dyn endpoint::Endpoint>>) -> Result<()> {
        let layout = Arc::new(self.layout.of_members(&ranks));
        let wishes = Wishes::of_world(&self.config);
        let chooser = Chooser::new(self.costs.engines(&layout), &layout, &wishes)?;
        let host = self.config.fabric.lines().next().unwrap_or_default();
        let host = format!("virtual {host}");
        let mut company = Company::new(ranks, endpoints, host, &chooser);
        company.keep_journals(self.is_recording);
        self.communicators.push(company);
        Ok(())
    }

    /// Poisons every communicator that has an operation over its deadline.
    fn notice_lateness(&mut self) {
        let deadline_ps = self.config.operation_timeout_ps();
        let now_ps = self.world.now_ps();
        let is_late = |operation: &&Operation| operation.is_late(now_ps, deadline_ps);
        let late: Vec<_> = self.operations.values().filter(is_late).map(Operation::straggler).collect();
        for place in late {
            self.communicators[place.communicator.0 as usize].run_late(place.rank, deadline_ps);
        }
    }

    fn company(&self, id: CommunicatorId) -> Result<&Company> {
        self.communicators.get(id.0 as usize).ok_or_else(|| unknown(id))
    }

    fn usable(&self, id: CommunicatorId) -> Result<&Company> {
        let company = self.company(id)?;
        company.check().map(|()| company)
    }

    /// Poisons every communicator that has a rank which is known to be dead.
    fn notice_deaths(&mut self) {
        let dead = self.world.dead();
        if !dead.is_empty() {
            self.communicators.iter_mut().for_each(|company| company.mourn(&dead, &self.reasons));
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("config", &self.config)
            .field("communicators", &self.communicators.len())
            .finish_non_exhaustive()
    }
}

fn traffic(company: &Company, rank: Rank) -> Traffic {
    let nowhere = |_| LinkClass::Level(String::new());
    Traffic::of(company.engines[rank as usize].links(), nowhere, company.size(), rank)
}

fn unknown(id: CommunicatorId) -> Error {
    Error::invalid(format!("this world has no communicator {}; was it split from another world?", id.0))
}
