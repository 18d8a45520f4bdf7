//! Calls under way in a simulated world: issued on every rank of a communicator, driven together, collected one by one.
#![allow(unsafe_code)] // hands buffers that the world owns to the engines

use super::check::{all_contributors, check_sizes, phantom_buffers, real_buffers, wrong_elements};
use super::company::Company;
use super::{Outcome, RankMemory, World};
use crate::engine::{Buffers, Engine, OpId, Status};
use ubccl_core::collective::Rank;
use ubccl_core::endpoint::{CommunicatorId, Place, WorldStats};
use ubccl_core::{Choice, Collective, Error, Result};

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

/// One call on all ranks of a communicator, until it is collected.
pub(super) struct Operation {
    communicator: CommunicatorId,
    ids: Vec<OpId>,
    /// When each rank was done.
    ends: Vec<Option<u64>>,
    /// Ranks that are not done.
    left: usize,
    start_ps: u64,
    before: WorldStats,
    /// What had happened when the last rank was done.
    after: Option<WorldStats>,
    algorithm: &'static str,
    choice: Choice,
    /// Of every rank; nothing for phantom data. Engines know where it is until all are done or cancelled.
    memory: Vec<RankMemory>,
}

impl Operation {
    /// Whether it was issued so long ago and some rank is not done.
    pub(super) fn is_late(&self, now_ps: u64, deadline_ps: u64) -> bool {
        self.after.is_none() && now_ps - self.start_ps > deadline_ps
    }

    /// The first rank that is not done.
    pub(super) fn straggler(&self) -> Place {
        let rank = self.ends.iter().position(Option::is_none).unwrap_or(0);
        Place { communicator: self.communicator, rank: rank as Rank }
    }
}

impl World {
    /// Runs calls at the same time, on as many communicators as they name; those on one communicator run in the order
    /// given. Each has its own result: what is wrong with one does not touch those on other communicators.
    ///
    /// Errors, of each: as [`World::run_phantom`] and [`World::run_real`].
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
        let (outcome, memory) = self.collect(issued.0);
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
                Ok(Outcome { wrong, ..self.collect(number).0? })
            }
            Data::Real(memory) => {
                let (outcome, back) = self.collect(number);
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
        let (start_ps, before) = (self.world.now_ps(), self.world.stats());
        let company = &mut self.communicators[communicator.0 as usize];
        let engine = &mut company.engines[0];
        let told = engine
            .plan(&calls(0), false)
            .and_then(|plan| Ok((plan.algorithm(), engine.choice(&calls(0), false)?)));
        let (algorithm, choice) = match told {
            Ok(told) => told,
            Err(error) => return Err((error, memory)),
        };
        let mut ids = Vec::with_capacity(company.engines.len());
        for ((rank, engine), buffers) in (0..).zip(&mut company.engines).zip(buffers) {
            // SAFETY: phantom memory has no bytes; real memory is in `memory`, which nobody touches until `collect`
            // gives it back, when the operation is done or `Company::poison` has cancelled it.
            match unsafe { engine.issue(&calls(rank), buffers, None) } {
                Ok(id) => ids.push(id),
                Err(error) => {
                    company.poison(error.clone()); // ranks before this one have begun
                    return Err((error, memory));
                }
            }
        }
        self.issued += 1;
        let operation = Operation {
            communicator,
            ends: vec![None; ids.len()],
            left: ids.len(),
            ids,
            start_ps,
            before,
            after: None,
            algorithm,
            choice,
            memory,
        };
        self.operations.insert(self.issued, operation);
        Ok(self.issued)
    }

    /// Moves time on until each of these operations is over, well or not.
    fn drive(&mut self, numbers: &[u64]) {
        self.drive_until(self.places_under_way(), |world| {
            let unfinished = numbers.iter().find(|number| !world.is_over(**number))?;
            Some(world.operations[unfinished].straggler())
        });
    }

    /// Moves time on, beginning with these places, as long as `unfinished` names one that waits.
    pub(super) fn drive_until(
        &mut self,
        mut woken: Vec<Place>,
        mut unfinished: impl FnMut(&World) -> Option<Place>,
    ) {
        loop {
            self.notice_deaths();
            for &place in &woken {
                self.advance(place);
            }
            let Some(stuck) = unfinished(self) else { return };
            woken.clear();
            match self.world.step(&mut woken) {
                Ok(true) => {
                    self.foresee();
                    self.stepped();
                    self.notice_lateness();
                }
                Ok(false) => self.communicators[stuck.communicator.0 as usize].fall_silent(stuck.rank),
                Err(error) => self.communicators.iter_mut().for_each(|company| company.poison(error.clone())),
            }
        }
    }

    /// Every rank of every communicator with something under way: what was issued has not begun yet.
    pub(super) fn places_under_way(&self) -> Vec<Place> {
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
    pub(super) fn advance(&mut self, place: Place) {
        let company = &mut self.communicators[place.communicator.0 as usize];
        if company.poisoned.is_some() {
            return;
        }
        let rank = place.rank as usize;
        // A rank that stands still is named again when it goes on.
        if self.has_faults && self.world.stands_until_ps(company.ranks[rank]) > self.world.now_ps() {
            return;
        }
        if let Err(fault) = company.engines[rank].step() {
            return company.fail(place.rank, fault);
        }
        let of_place = |operation: &&mut Operation| operation.communicator == place.communicator;
        for operation in self.operations.values_mut().filter(of_place) {
            if operation.ends[rank].is_some()
                || company.engines[rank].status(operation.ids[rank]) != Status::Done
            {
                continue;
            }
            operation.ends[rank] = Some(self.world.now_ps());
            operation.left -= 1;
            if operation.left == 0 {
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
    fn collect(&mut self, number: u64) -> (Result<Outcome>, Vec<RankMemory>) {
        let operation = self.operations.remove(&number).expect("an operation is collected once");
        let company = &mut self.communicators[operation.communicator.0 as usize];
        if let Err(error) = company.check() {
            return (Err(error), operation.memory);
        }
        for (engine, &id) in company.engines.iter_mut().zip(&operation.ids) {
            engine.take(id);
        }
        let Operation { ends, start_ps, before, after, algorithm, choice, memory, .. } = operation;
        let after = after.unwrap_or(before);
        let stats = WorldStats {
            messages: after.messages - before.messages,
            bytes: after.bytes - before.bytes,
            events: after.events - before.events,
            retries: after.retries - before.retries,
            lost: after.lost - before.lost,
            hash: after.hash,
        };
        let rank_ps: Vec<u64> = ends.into_iter().flatten().map(|end| end - start_ps).collect();
        let elapsed_ps = rank_ps.iter().copied().max().unwrap_or(0);
        (Ok(Outcome { elapsed_ps, rank_ps, stats, wrong: 0, algorithm, choice }), memory)
    }

    /// Elements of a finished operation on phantom data that are not what it promises.
    fn wrong<'a>(&mut self, number: u64, calls: &dyn Fn(Rank) -> Collective<'a>, in_place: bool) -> u64 {
        let operation = &self.operations[&number];
        let company = &mut self.communicators[operation.communicator.0 as usize];
        if company.poisoned.is_some() {
            return 0;
        }
        let ranks = company.size();
        let all = all_contributors(ranks);
        let of_rank = |((rank, engine), &id): ((Rank, &mut Engine), &OpId)| {
            let region = engine.output_region(id);
            let held = engine.endpoint().phantom(region).unwrap_or_default();
            wrong_elements(calls, (ranks, all), rank, in_place, &held)
        };
        (0..).zip(&mut company.engines).zip(&operation.ids).map(of_rank).sum()
    }
}

/// What stands in a caller's memory while its bytes are with the world.
fn nothing() -> RankMemory {
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
