//! Calls under way in a simulated world: issued on every rank of a communicator, driven together, collected one by one.
#![allow(unsafe_code)] // hands buffers that the world owns to the engines

use super::check::{check_sizes, phantom_buffers, real_buffers, wrong_elements};
use super::company::Company;
use super::{Outcome, RankMemory, World};
use crate::engine::{Buffers, Engine, OpId, Status};
use ubccl_core::collective::Rank;
use ubccl_core::endpoint::{CommunicatorId, Place, WorldStats};
use ubccl_core::{Collective, Error, Result};

/// A call to be run together with others.
pub struct Job<'j, 'a> {
    /// On which communicator.
    pub communicator: CommunicatorId,
    /// What each of its ranks calls.
    pub calls: &'j dyn Fn(Rank) -> Collective<'a>,
    /// On what.
    pub data: Data<'j>,
}

/// What a call runs on.
#[derive(Debug)]
pub enum Data<'j> {
    /// Fingerprints, which are checked.
    Phantom {
        /// Whether input and output are one buffer.
        in_place: bool,
    },
    /// Bytes of each rank of the communicator.
    Real(&'j mut [RankMemory]),
}

impl std::fmt::Debug for Job<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Job { communicator, calls, data } = self;
        let job = &mut f.debug_struct("Job");
        job.field("communicator", communicator).field("rank 0", &calls(0)).field("data", data).finish()
    }
}

/// An operation that was issued and owns its memory, which [`World::wait`] gives back.
#[derive(Debug)]
#[must_use = "an operation's memory comes back from wait()"]
pub struct Issued(u64);

/// What one rank does of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) rank: Rank,
    pub(super) id: OpId,
    /// When it was done.
    end_ps: Option<u64>,
}

impl Part {
    pub(super) fn new(rank: Rank, id: OpId) -> Part {
        Part { rank, id, end_ps: None }
    }
}

/// One call on ranks of a communicator, until it is collected.
pub(super) struct Operation {
    communicator: CommunicatorId,
    /// By rank.
    parts: Vec<Part>,
    /// Parts that are not done.
    left: usize,
    start_ps: u64,
    before: WorldStats,
    /// What had happened when the last rank was done.
    after: Option<WorldStats>,
    algorithm: &'static str,
    /// Of every part; nothing for phantom data. Engines know where it is until all are done or cancelled.
    memory: Vec<RankMemory>,
}

/// What is left of an operation that is over.
pub(super) struct Collected {
    pub(super) outcome: Result<Outcome>,
    pub(super) memory: Vec<RankMemory>,
    /// Whose messages the parts received, by rank of the part.
    pub(super) sources: Vec<Option<Rank>>,
}

impl Operation {
    /// What a rank does of it.
    fn of_rank(&mut self, rank: Rank) -> &mut [Part] {
        let first = self.parts.partition_point(|part| part.rank < rank);
        let count = self.parts[first..].iter().take_while(|part| part.rank == rank).count();
        &mut self.parts[first..first + count]
    }
}

impl World {
    /// Runs calls at the same time, on as many communicators as they name; those on one communicator run in the order
    /// given. Each has its own result: what is wrong with one does not touch those on other communicators.
    ///
    /// Errors, of each: as [`World::run`] and [`World::run_real`].
    pub fn run_together(&mut self, jobs: &mut [Job<'_, '_>]) -> Vec<Result<Outcome>> {
        let issued: Vec<Result<u64>> = jobs.iter_mut().map(|job| self.issue_job(job)).collect();
        let numbers: Vec<u64> = issued.iter().flatten().copied().collect();
        self.drive(&numbers);
        jobs.iter_mut().zip(issued).map(|(job, issued)| self.collect_job(job, issued?)).collect()
    }

    pub(super) fn run_one(&mut self, job: Job<'_, '_>) -> Result<Outcome> {
        self.run_together(&mut [job]).pop().expect("one job has one result")
    }

    /// Issues a call on real memory, one for each rank of the communicator. Time stands still until somebody waits;
    /// then everything issued moves on.
    ///
    /// Errors: as [`World::run_real`]; the memory is dropped.
    pub fn issue<'a>(
        &mut self,
        communicator: CommunicatorId,
        calls: &dyn Fn(Rank) -> Collective<'a>,
        memory: Vec<RankMemory>,
    ) -> Result<Issued> {
        self.issue_real(communicator, calls, memory).map(Issued).map_err(|(error, _)| error)
    }

    /// Waits for an operation; others move on meanwhile, and may be waited for in any order.
    ///
    /// Errors: the cause that poisoned its communicator, and the memory is dropped; InvalidArgument, if it was issued
    /// in another world.
    pub fn wait(&mut self, issued: Issued) -> Result<(Outcome, Vec<RankMemory>)> {
        if !self.operations.contains_key(&issued.0) {
            return Err(Error::invalid("the operation was issued in another world"));
        }
        self.drive(&[issued.0]);
        let Collected { outcome, memory, .. } = self.collect(issued.0);
        Ok((outcome?, memory))
    }

    fn issue_job(&mut self, job: &mut Job<'_, '_>) -> Result<u64> {
        match &mut job.data {
            Data::Phantom { in_place } => self.issue_phantom(job.communicator, job.calls, *in_place),
            Data::Real(memory) => {
                let taken = memory.iter_mut().map(|memory| std::mem::replace(memory, nothing())).collect();
                self.issue_real(job.communicator, job.calls, taken).map_err(|(error, back)| {
                    give_back(memory, back);
                    error
                })
            }
        }
    }

    fn collect_job(&mut self, job: &mut Job<'_, '_>, number: u64) -> Result<Outcome> {
        match &mut job.data {
            Data::Phantom { in_place } => {
                let wrong = self.wrong(number, job.calls, *in_place);
                Ok(Outcome { wrong, ..self.collect(number).outcome? })
            }
            Data::Real(memory) => {
                let Collected { outcome, memory: back, .. } = self.collect(number);
                give_back(memory, back);
                outcome
            }
        }
    }

    fn issue_phantom<'a>(
        &mut self,
        communicator: CommunicatorId,
        calls: &dyn Fn(Rank) -> Collective<'a>,
        in_place: bool,
    ) -> Result<u64> {
        let company = self.usable(communicator)?;
        company.check_calls(calls)?;
        let ranks = company.size();
        let buffers = (0..ranks).map(|rank| phantom_buffers(&calls(rank), ranks, rank, in_place)).collect();
        self.issue_buffers(communicator, calls, buffers, Vec::new()).map_err(|(error, _)| error)
    }

    fn issue_real<'a>(
        &mut self,
        communicator: CommunicatorId,
        calls: &dyn Fn(Rank) -> Collective<'a>,
        mut memory: Vec<RankMemory>,
    ) -> Result<u64, (Error, Vec<RankMemory>)> {
        let checked = self.usable(communicator).and_then(|company| {
            company.check_calls(calls)?;
            check_memory(company, calls, &memory)
        });
        if let Err(error) = checked {
            return Err((error, memory));
        }
        let buffers = memory.iter_mut().map(real_buffers).collect();
        self.issue_buffers(communicator, calls, buffers, memory)
    }

    /// Issues a call that was checked on every rank. `memory` is what real buffers name; it comes back if this fails.
    fn issue_buffers<'a>(
        &mut self,
        communicator: CommunicatorId,
        calls: &dyn Fn(Rank) -> Collective<'a>,
        buffers: Vec<Buffers>,
        memory: Vec<RankMemory>,
    ) -> Result<u64, (Error, Vec<RankMemory>)> {
        let company = &mut self.communicators[communicator.0 as usize];
        let algorithm = match company.engines[0].plan(&calls(0), false) {
            Ok(plan) => plan.algorithm(),
            Err(error) => return Err((error, memory)),
        };
        let mut parts = Vec::with_capacity(company.engines.len());
        for ((rank, engine), buffers) in (0..).zip(&mut company.engines).zip(buffers) {
            engine.set_phantom(memory.is_empty());
            // SAFETY: phantom memory has no bytes; real memory is in `memory`, which nobody touches until `collect`
            // gives it back, when the operation is done or `Company::poison` has cancelled it.
            match unsafe { engine.issue(&calls(rank), buffers, None) } {
                Ok(id) => parts.push(Part::new(rank, id)),
                Err(error) => {
                    company.poison(error.clone()); // ranks before this one have begun
                    return Err((error, memory));
                }
            }
        }
        Ok(self.enter(communicator, parts, algorithm, memory))
    }

    /// Lists what was just issued: parts by rank, and the memory they work on.
    pub(super) fn enter(
        &mut self,
        communicator: CommunicatorId,
        parts: Vec<Part>,
        algorithm: &'static str,
        memory: Vec<RankMemory>,
    ) -> u64 {
        let (start_ps, before) = (self.world.now_ps(), self.world.stats());
        // What is nothing to do is done.
        let after = parts.is_empty().then_some(before);
        let left = parts.len();
        self.issued += 1;
        let operation = Operation { communicator, parts, left, start_ps, before, after, algorithm, memory };
        self.operations.insert(self.issued, operation);
        self.issued
    }

    /// Moves time on until each of these operations is over, well or not.
    pub(super) fn drive(&mut self, numbers: &[u64]) {
        let mut woken = self.places_under_way();
        loop {
            self.notice_deaths();
            for &place in &woken {
                self.advance(place);
            }
            let Some(unfinished) = numbers.iter().find(|number| !self.is_over(**number)) else { return };
            woken.clear();
            match self.world.step(&mut woken) {
                Ok(true) => {}
                Ok(false) => {
                    let operation = &self.operations[unfinished];
                    let stuck = operation.parts.iter().find(|part| part.end_ps.is_none());
                    let stuck = stuck.map_or(0, |part| part.rank);
                    self.communicators[operation.communicator.0 as usize].fall_silent(stuck);
                }
                Err(error) => self.communicators.iter_mut().for_each(|company| company.poison(error.clone())),
            }
        }
    }

    /// Every rank of every communicator with something under way: what was issued has not begun yet.
    fn places_under_way(&self) -> Vec<Place> {
        let open = self.operations.values().filter(|operation| operation.after.is_none());
        let mut communicators: Vec<CommunicatorId> = open.map(|operation| operation.communicator).collect();
        communicators.sort_unstable();
        communicators.dedup();
        let places = communicators.into_iter().flat_map(|communicator| {
            let ranks = 0..self.communicators[communicator.0 as usize].size();
            ranks.map(move |rank| Place { communicator, rank })
        });
        places.collect()
    }

    /// Moves one rank on, and notes what it has done.
    fn advance(&mut self, place: Place) {
        let company = &mut self.communicators[place.communicator.0 as usize];
        if company.poisoned.is_some() {
            return;
        }
        let now_ps = self.world.now_ps();
        if let Err(fault) = company.engines[place.rank as usize].progress() {
            return company.fail(place.rank, fault);
        }
        let of_place = |operation: &&mut Operation| operation.communicator == place.communicator;
        for operation in self.operations.values_mut().filter(of_place) {
            let engine = &company.engines[place.rank as usize];
            let open = operation.of_rank(place.rank).iter_mut().filter(|part| part.end_ps.is_none());
            let done = open.filter(|part| engine.status(part.id) == Status::Done);
            let count = done.map(|part| part.end_ps = Some(now_ps)).count();
            operation.left -= count;
            if count > 0 && operation.left == 0 {
                operation.after = Some(self.world.stats());
                company.inspect(Engine::inspect);
            }
        }
    }

    fn is_over(&self, number: u64) -> bool {
        let operation = &self.operations[&number];
        operation.after.is_some() || self.communicators[operation.communicator.0 as usize].poisoned.is_some()
    }

    /// Takes an operation out that is over: what it cost and its memory.
    pub(super) fn collect(&mut self, number: u64) -> Collected {
        let operation = self.operations.remove(&number).expect("an operation is collected once");
        let company = &mut self.communicators[operation.communicator.0 as usize];
        if let Err(error) = company.check() {
            return Collected { outcome: Err(error), memory: operation.memory, sources: Vec::new() };
        }
        let take = |part: &Part| company.engines[part.rank as usize].take(part.id).source;
        let sources = operation.parts.iter().map(take).collect();
        let Operation { parts, start_ps, before, after, algorithm, memory, .. } = operation;
        let after = after.unwrap_or(before);
        let stats = WorldStats {
            messages: after.messages - before.messages,
            bytes: after.bytes - before.bytes,
            events: after.events - before.events,
            hash: after.hash,
        };
        let ends = parts.iter().filter_map(|part| part.end_ps);
        let rank_ps: Vec<u64> = ends.map(|end_ps| end_ps - start_ps).collect();
        let elapsed_ps = rank_ps.iter().copied().max().unwrap_or(0);
        let outcome = Ok(Outcome { elapsed_ps, rank_ps, stats, wrong: 0, algorithm });
        Collected { outcome, memory, sources }
    }

    /// Elements of a finished operation on phantom data that are not what it promises.
    fn wrong<'a>(&mut self, number: u64, calls: &dyn Fn(Rank) -> Collective<'a>, in_place: bool) -> u64 {
        let operation = &self.operations[&number];
        let company = &mut self.communicators[operation.communicator.0 as usize];
        if company.poisoned.is_some() {
            return 0;
        }
        let ranks = company.size();
        let of_part = |&Part { rank, id, .. }: &Part| {
            let engine = &mut company.engines[rank as usize];
            let region = engine.output_region(id);
            let held = engine.endpoint().phantom(region).unwrap_or_default();
            wrong_elements(calls, ranks, rank, in_place, &held)
        };
        operation.parts.iter().map(of_part).sum()
    }
}

/// What stands in a caller's memory while its bytes are with the world.
pub(super) fn nothing() -> RankMemory {
    RankMemory::InPlace(Vec::new())
}

fn give_back(memory: &mut [RankMemory], back: Vec<RankMemory>) {
    memory.iter_mut().zip(back).for_each(|(memory, back)| *memory = back);
}

fn check_memory<'a>(
    company: &Company,
    calls: &dyn Fn(Rank) -> Collective<'a>,
    memory: &[RankMemory],
) -> Result<()> {
    let ranks = company.size();
    if memory.len() != ranks as usize {
        return Err(Error::invalid(format!("{ranks} ranks need as many memories, not {}", memory.len())));
    }
    (0..).zip(memory).try_for_each(|(rank, memory)| check_sizes(&calls(rank), ranks, rank, memory))
}
