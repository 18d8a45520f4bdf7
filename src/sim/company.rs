//! One communicator of a simulated world: its ranks' engines, and what ended it.

use crate::choose::Chooser;
use crate::engine::{Engine, EngineOptions};
use crate::faults::{Scene, Verdict, judge};
use std::collections::BTreeMap;
use ubccl_core::collective::Rank;
use ubccl_core::endpoint::{Endpoint, Fault, Header, Stream};
use ubccl_core::{Cause, Collective, Culprit, Error, ErrorKind, Result};

/// A message names at most this many ranks.
const MOST_NAMED: usize = 8;

/// See the module. Its methods count ranks within the communicator.
pub(super) struct Company {
    /// Who they are in the world.
    pub(super) ranks: Vec<Rank>,
    pub(super) engines: Vec<Engine>,
    pub(super) poisoned: Option<Error>,
    /// What stands for the host of every rank.
    host: String,
}

impl Company {
    pub(super) fn new(
        ranks: Vec<Rank>,
        endpoints: Vec<Box<dyn Endpoint>>,
        host: String,
        chooser: &Chooser,
    ) -> Self {
        let size = ranks.len() as u32;
        let engine = |(rank, endpoint)| {
            let options = EngineOptions { rank, ranks: size, is_crowded: false, chooser: chooser.clone() };
            Engine::new(endpoint, options)
        };
        let engines = (0..).zip(endpoints).map(engine).collect();
        Company { ranks, engines, poisoned: None, host }
    }

    pub(super) fn size(&self) -> u32 {
        self.ranks.len() as u32
    }

    /// Has every engine write down what it begins, or not.
    pub(super) fn keep_journals(&mut self, on: bool) {
        self.engines.iter_mut().for_each(|engine| engine.journal = on.then(Vec::new));
    }

    /// Fails with the first cause.
    pub(super) fn check(&self) -> Result<()> {
        self.poisoned.clone().map_or(Ok(()), Err)
    }

    pub(super) fn check_rank(&self, rank: Rank) -> Result<()> {
        if rank < self.size() {
            return Ok(());
        }
        Err(Error::invalid(format!("there is no rank {rank} in a communicator of {}", self.size())))
    }

    /// Checks a call of every rank.
    pub(super) fn check_calls<'a>(&self, calls: &dyn Fn(Rank) -> Collective<'a>) -> Result<()> {
        self.check()?;
        (0..self.size()).try_for_each(|rank| calls(rank).check(self.size(), rank))
    }

    /// Looks on every rank for messages that nobody can take any more; the first one poisons.
    pub(super) fn inspect(&mut self, look: fn(&mut Engine) -> Result<(), Fault>) {
        for rank in 0..self.size() {
            if let Err(fault) = look(&mut self.engines[rank as usize]) {
                return self.fail(rank, fault);
            }
        }
    }

    /// Makes what a rank saw the cause.
    pub(super) fn fail(&mut self, me: Rank, fault: Fault) {
        let members = self.members();
        let called = |rank: Rank, sequence| self.engines[rank as usize].called(sequence);
        let cause = match judge(fault, &Scene { me, members: &members, called: &called }) {
            Verdict::Cause(cause) => cause,
            Verdict::Suspect { rank, message } => self.cause(rank, ErrorKind::Remote, message),
        };
        self.poison(Error::from(cause));
    }

    /// Ends it, unless it has ended: nothing under way goes on, and no memory is touched any more.
    pub(super) fn poison(&mut self, error: Error) {
        if self.poisoned.is_none() {
            self.engines.iter_mut().for_each(Engine::cancel);
            self.poisoned = Some(error);
        }
    }

    /// These ranks of the world are dead; of some it is known why.
    pub(super) fn mourn(&mut self, dead: &[Rank], reasons: &BTreeMap<Rank, String>) {
        let Some(rank) = self.ranks.iter().position(|rank| dead.contains(rank)) else { return };
        let reason = reasons.get(&self.ranks[rank]).map(String::as_str);
        let mut message = reason.unwrap_or("the rank died in virtual time").to_owned();
        if self.ranks[rank] != rank as Rank {
            message += &format!("; it is rank {} of the world", self.ranks[rank]);
        }
        let cause = self.cause(rank as Rank, ErrorKind::Remote, message);
        self.poison(Error::from(cause));
    }

    /// Nothing will ever happen again and `rank` waits: because the ranks called different things, or because one that
    /// it waits for does not take part.
    pub(super) fn fall_silent(&mut self, rank: Rank) {
        let told = format!("rank {rank} waits for it, and nothing more will ever happen");
        self.stall(rank, &format!("it does not take part: {told}"));
    }

    /// `rank` has waited in vain, as `message` tells: unless it called something else than the others, which says more.
    pub(super) fn stall(&mut self, rank: Rank, message: &str) {
        if self.poisoned.is_some() {
            return;
        }
        let (sequence, signature) = self.engines[rank as usize].current();
        let calls = (0..self.size()).map(|peer| (peer, self.engines[peer as usize].called(sequence)));
        let other =
            calls.filter_map(|(peer, call)| Some((peer, call?))).find(|(_, call)| Some(*call) != signature);
        if let (Some(ours), Some((peer, theirs))) = (signature, other) {
            let header = |signature| Header { stream: Stream::Collective(sequence), signature, len: 0 };
            return self.fail(rank, Fault::Mismatch { peer, theirs: header(theirs), ours: header(ours) });
        }
        let awaited = self.engines[rank as usize].awaited().into_iter().find(|&peer| peer != rank);
        let cause = self.cause(awaited.unwrap_or(rank), ErrorKind::Timeout, message.to_owned());
        self.poison(Error::from(cause));
    }

    /// For whom a rank waits, and in what; `is_over` tells whose program has ended.
    pub(super) fn waits(&self, rank: Rank, is_over: &dyn Fn(Rank) -> bool) -> String {
        let engine = &self.engines[rank as usize];
        let (sequence, signature) = engine.doing();
        let named =
            |&peer: &Rank| format!("rank {peer}{}", if is_over(peer) { " (which has ended)" } else { "" });
        let awaited = engine.awaited();
        let mut whom: Vec<String> = awaited.iter().filter(|&&peer| peer != rank).map(named).collect();
        let more = whom.len().saturating_sub(MOST_NAMED);
        whom.truncate(MOST_NAMED);
        if more > 0 {
            whom.push(format!("{more} more"));
        }
        let whom = if whom.is_empty() { "others".to_owned() } else { whom.join(", ") };
        match engine.wish() {
            Some(wish) => format!("waits for {wish}"),
            None => {
                let what = signature.map(|signature| signature.describe()).unwrap_or_default();
                format!("waits for {whom} in {what} (operation {sequence})")
            }
        }
    }

    /// Fails with the first cause; nothing may be under way any more.
    pub(super) fn check_ended(&self) -> Result<()> {
        self.check()?;
        match self.engines.iter().position(|engine| !engine.is_idle()) {
            None => Ok(()),
            Some(rank) => Err(Error::invalid(format!("rank {rank} has operations under way"))),
        }
    }

    /// An operation is over its deadline, and `rank` is not done with it.
    pub(super) fn run_late(&mut self, rank: Rank, deadline_ps: u64) {
        let message = format!("it is not done after {deadline_ps} virtual ps, the deadline of operations");
        let cause = self.cause(rank, ErrorKind::Timeout, message);
        self.poison(Error::from(cause));
    }

    fn members(&self) -> Vec<Culprit> {
        (0..self.size()).map(|rank| Culprit { rank, host: self.host.clone(), pid: 0 }).collect()
    }

    fn cause(&self, rank: Rank, kind: ErrorKind, message: String) -> Cause {
        let (sequence, signature) = self.engines[rank as usize].current();
        let operation = signature.map(|signature| signature.describe()).unwrap_or_default();
        let culprit = Culprit { rank, host: self.host.clone(), pid: 0 };
        Cause { kind, culprit, operation, sequence, message }
    }
}
