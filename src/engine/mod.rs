//! One rank's operations: plans looked up, executions in program order, driven by whoever owns the engine.
#![allow(unsafe_code)] // registers the caller's memory with the endpoint

mod express;
mod foresight;
mod journal;
mod loose;
mod place;
mod progress;
mod recent;
mod slots;
mod tagged;
#[cfg(test)]
mod tests;

pub(crate) use express::{Eligible, Express};
pub(crate) use journal::Begun;
pub(crate) use recent::Lengths;
pub(crate) use slots::{Buffers, OpId, Status, Taken};
pub(crate) use tagged::{TaggedCall, TaggedKind};

use crate::breakdown::{Breakdown, Stopwatch};
use crate::choose::Chooser;
use crate::executor::{Base, Bases, execution_of};
use crate::one_pass::Pass;
use crate::planned::Planned;
use crate::round::Round;
use crate::usage::{MemoryUse, plan_bytes};
use loose::Loose;
use place::{place, region};
use recent::Recent;
use slots::{Ready, Role, Slot, Slots, scratch};
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};
use tagged::{Tagged, Unexpected};
use ubccl_algorithms::tuner::Pick;
use ubccl_core::endpoint::{CLOSING, Endpoint, Fault, RegionId, Stream, Token};
use ubccl_core::usage::MemoryKind;
use ubccl_core::{Choice, Collective, Rank, Result, Signature, Spec};

/// An operation that was found waiting.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    number: u64,
    since: Instant,
    /// Whether somebody was told.
    warned: bool,
}

/// What an engine is made for.
#[derive(Clone, Debug)]
pub(crate) struct EngineOptions {
    pub(crate) rank: u32,
    pub(crate) ranks: u32,
    pub(crate) is_crowded: bool,
    pub(crate) chooser: Chooser,
}

/// See the module.
pub(crate) struct Engine {
    endpoint: Box<dyn Endpoint>,
    options: EngineOptions,
    plans: HashMap<(&'static str, Spec), Arc<Planned>>,
    /// The last calls and their plans, so that repeating a call costs one comparison.
    recent: Recent,
    slots: Slots,
    /// Collectives in program order; the first one runs.
    queue: VecDeque<usize>,
    /// Point-to-point operations.
    loose: Loose,
    tagged: Tagged,
    completions: Vec<Token>,
    sequence: u64,
    /// Of the last collective that was done.
    last_signature: Signature,
    /// Of the last collectives that were issued, by sequence number.
    calls: [Signature; CALLS_KEPT as usize],
    cancelled: bool,
    /// Where the time goes, while somebody asks.
    pub(crate) breakdown: Option<Breakdown>,
    /// What was begun, while somebody records.
    pub(crate) journal: Option<Vec<Begun>>,
    /// The oldest operation under way, since it was first found waiting.
    waiting: Option<Waiting>,
    /// What the board says this rank is doing: sequence, and the signature while it runs.
    pub(crate) shown: (u64, Option<Signature>),
}

/// Completions of one poll that there is room for from the start.
const COMPLETIONS: usize = 64;
/// Calls that are remembered.
pub(crate) const CALLS_KEPT: u64 = 32;

impl Engine {
    pub(crate) fn new(endpoint: Box<dyn Endpoint>, options: EngineOptions) -> Self {
        Engine {
            endpoint,
            options,
            plans: HashMap::new(),
            recent: Recent::default(),
            slots: Slots::default(),
            queue: VecDeque::new(),
            loose: Loose::default(),
            tagged: Tagged::default(),
            completions: Vec::with_capacity(COMPLETIONS),
            sequence: 0,
            last_signature: Signature::default(),
            calls: [Signature::default(); CALLS_KEPT as usize],
            cancelled: false,
            waiting: None,
            breakdown: None,
            journal: None,
            shown: (0, None),
        }
    }

    /// The plan for a call.
    pub(crate) fn plan(&mut self, call: &Collective<'_>, in_place: bool) -> Result<Arc<Planned>> {
        let place = self.look_up(call, in_place)?;
        Ok(self.recent[place].plan.clone())
    }

    /// With how many lanes and what chunks a call runs, and by which engine.
    pub(crate) fn choice(&mut self, call: &Collective<'_>, in_place: bool) -> Result<Choice> {
        let place = self.look_up(call, in_place)?;
        Ok(self.recent[place].plan.spec().choice)
    }

    /// Where among the recent calls this one stands, with its plan.
    #[inline]
    fn look_up(&mut self, call: &Collective<'_>, in_place: bool) -> Result<usize> {
        let wanted = recent::Key::new(call, in_place);
        match self.recent.find(&wanted) {
            Some(place) => Ok(place),
            None => self.look_up_anew(call, wanted),
        }
    }

    #[cold]
    fn look_up_anew(&mut self, call: &Collective<'_>, key: recent::Key) -> Result<usize> {
        let plan = self.planned(call, key.in_place())?;
        let signature = call.signature(plan.number());
        Ok(self.recent.keep(recent::Call { key, plan, signature }))
    }

    fn planned(&mut self, call: &Collective<'_>, in_place: bool) -> Result<Arc<Planned>> {
        let EngineOptions { rank, ranks, is_crowded, .. } = self.options;
        let Pick { algorithm, choice } = self.options.chooser.choose(call)?;
        let (name, spec) = (algorithm.descriptor().name, Spec::new(call, ranks, rank, in_place, choice));
        let limits = (self.endpoint.direct_limits(), self.endpoint.one_pass_from());
        let make = || {
            let Choice { lanes, chunk_bytes, .. } = spec.choice;
            let engine = self.options.chooser.tuner().engines().name(&spec.choice);
            tracing::debug!(
                target: "ubccl::plan",
                rank, in_place, lanes, chunk_bytes, engine,
                "{name} for {call}, and for other counts of it"
            );
            Arc::new(Planned::new(&spec, |spec| algorithm.plan(spec), limits, is_crowded))
        };
        Ok(self.plans.entry((name, spec)).or_insert_with(make).clone())
    }

    /// How calls choose their algorithms.
    pub(crate) fn chooser(&self) -> &Chooser {
        &self.options.chooser
    }

    /// Has calls choose their algorithms so from now on; how they did before.
    pub(crate) fn replace_chooser(&mut self, chooser: Chooser) -> Chooser {
        self.recent.clear();
        std::mem::replace(&mut self.options.chooser, chooser)
    }

    /// Issues a call: it starts when the collectives before it are done, or the messages of its pairs before it are on
    /// their way. Nothing is sent if this fails.
    ///
    /// # Safety
    /// Host memory in `buffers` stays valid, and is left alone by everybody else, until the operation is done or the
    /// engine is cancelled.
    pub(crate) unsafe fn issue(
        &mut self,
        call: &Collective<'_>,
        buffers: Buffers,
        owned: Option<Box<dyn Any + Send>>,
    ) -> Result<OpId> {
        let mut stopwatch = Stopwatch::start(self.breakdown.is_some());
        let place = self.look_up(call, matches!(buffers, Buffers::InPlace(_)))?;
        let recent::Call { plan, signature, .. } = &self.recent[place];
        let (plan, signature) = (plan.clone(), *signature);
        stopwatch.lap(self.breakdown.as_mut().map(|breakdown| &mut breakdown.look_up));
        // SAFETY: the caller vouches.
        Ok(unsafe { self.issue_planned(call, (plan, signature), buffers, owned) })
    }

    /// The same with a plan that was made before, and what all ranks are to have called.
    ///
    /// # Safety
    /// As for [`Engine::issue`]; the plan is one of this rank's for the call, in place if the buffers are.
    pub(crate) unsafe fn issue_planned(
        &mut self,
        call: &Collective<'_>,
        (plan, signature): (Arc<Planned>, Signature),
        buffers: Buffers,
        owned: Option<Box<dyn Any + Send>>,
    ) -> OpId {
        if call.kind().is_point_to_point() {
            let ready = Ready { plan, buffers, stream: Stream::Direct, signature };
            let index = self.slots.take(call, Some(ready), Role::Loose, owned);
            self.loose.list(&mut self.slots, index);
            self.loose.queue(&mut self.slots, index, false);
            return self.slots.id(index);
        }
        self.sequence += 1;
        let ready = Ready { plan, buffers, stream: Stream::Collective(self.sequence), signature };
        let index = self.slots.take(call, Some(ready), Role::Collective, owned);
        self.calls[(self.sequence % CALLS_KEPT) as usize] = signature;
        self.queue.push_back(index);
        self.slots.id(index)
    }

    /// Has an operation own something until it is over.
    pub(crate) fn entrust(&mut self, id: OpId, owned: Box<dyn Any + Send>) {
        self.slots.entrust(id, owned);
    }

    /// Begins and posts what may be.
    #[inline]
    fn post(&mut self) -> Result<bool, Fault> {
        let mut moved = false;
        let mut stopwatch = Stopwatch::start(self.breakdown.is_some());
        if let Some(&front) = self.queue.front() {
            if self.slots[front].call.is_some() {
                self.begin(front)?;
                moved = true; // a plan without steps is done now, and the next one may begin
            }
            moved |= self.advance(front)?;
        }
        if !self.loose.is_empty() {
            moved |= self.advance_loose()?;
        }
        self.retire();
        stopwatch.lap(self.breakdown.as_mut().map(|breakdown| &mut breakdown.post));
        Ok(moved)
    }

    /// Takes note of what was completed since.
    #[inline]
    fn collect(&mut self) -> Result<bool, Fault> {
        let mut stopwatch = Stopwatch::start(self.breakdown.is_some());
        let moved = self.endpoint.poll(&mut self.completions)?;
        self.complete()?;
        self.retire();
        stopwatch.lap(self.breakdown.as_mut().map(|breakdown| &mut breakdown.poll));
        Ok(moved)
    }

    /// Whether the collective whose turn it is has not begun.
    fn is_front_new(&self) -> bool {
        self.queue.front().is_some_and(|&front| self.slots[front].call.is_some())
    }

    /// Moves on point-to-point operations: those with steps left to post, those whose turn has come, tagged ones.
    fn advance_loose(&mut self) -> Result<bool, Fault> {
        let (mut moved, mut k) = (false, 0);
        while let Some(index) = self.loose.posting(k) {
            moved |= self.advance(index)?;
            self.settle(index)?;
            // One that has posted all leaves its place to the next.
            k += usize::from(self.loose.posting(k) == Some(index));
        }
        while let Some(index) = self.loose.next_ready(&mut self.slots) {
            self.start(index)?;
            moved = true;
        }
        if self.tagged.is_waiting() {
            moved |= self.match_tagged()?;
        }
        Ok(moved)
    }

    /// Takes note of what the endpoint has completed.
    #[inline]
    fn complete(&mut self) -> Result<(), Fault> {
        for k in 0..self.completions.len() {
            let token = self.completions[k];
            let index = execution_of(token);
            let slot = &mut self.slots[index];
            slot.execution.complete(token);
            if slot.role != Role::Collective {
                self.settle(index)?;
            }
        }
        self.completions.clear();
        Ok(())
    }

    /// How an operation stands.
    pub(crate) fn status(&self, id: OpId) -> Status {
        self.slots.status(id)
    }

    /// Gives back what a finished (or cancelled) operation leaves, and its place.
    pub(crate) fn take(&mut self, id: OpId) -> Taken {
        self.slots.release(id.slot)
    }

    /// Nobody will take this operation: it cleans up after itself.
    pub(crate) fn detach(&mut self, id: OpId) {
        self.slots.detach(id);
    }

    /// Who is told when an operation completes.
    pub(crate) fn set_waker(&mut self, id: OpId, waker: &Waker) {
        self.slots[id.slot].waker = Some(waker.clone());
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.loose.is_empty()
    }

    /// Forgets everything under way; registered memory is not touched again.
    pub(crate) fn cancel(&mut self) {
        self.cancelled = true;
        self.endpoint.cancel();
        self.completions.clear();
        while let Some(index) = self.queue.pop_front() {
            self.slots.finish(index);
        }
        let mut bringers = self.tagged.clear();
        while let Some(index) = self.loose.first() {
            bringers.extend(self.slots[index].message.as_ref().and_then(Unexpected::arriving));
            self.loose.unlist(&mut self.slots, index);
            self.slots.finish(index);
        }
        bringers.retain(|&index| self.slots[index].role == Role::Absorbing);
        bringers.into_iter().for_each(|index| self.slots.finish(index));
        self.loose.clear();
    }

    /// The current collective: its sequence and signature (the last one's, if none runs).
    pub(crate) fn current(&self) -> (u64, Option<Signature>) {
        let front = self.queue.front().map(|&index| &self.slots[index]);
        match front.and_then(|slot| slot.execution.running()) {
            Some((Stream::Collective(sequence), signature)) => (sequence, Some(signature)),
            _ => (self.sequence - self.queue.len() as u64, None),
        }
    }

    /// Whether operations were given up: those that are done may not have been completed.
    pub(crate) fn was_cancelled(&self) -> bool {
        self.cancelled
    }

    /// What this rank is doing: the running collective, else a point-to-point operation, else nothing since the last
    /// collective.
    #[inline]
    pub(crate) fn doing(&self) -> (u64, Option<Signature>) {
        match (self.queue.front(), self.loose.first()) {
            (Some(&front), _) => {
                let sequence = self.sequence - self.queue.len() as u64 + 1;
                (sequence, self.slots[front].signature())
            }
            (None, Some(loose)) => (self.sequence, self.slots[loose].signature()),
            (None, None) => (self.sequence, None),
        }
    }

    /// The first peer that a point-to-point operation under way waits for and that `matches`; one that waits for any
    /// rank waits for none as long as there is one that does not match, be it this rank, which `may_send`.
    pub(crate) fn find_loose_peer(&self, may_send: bool, matches: impl Fn(Rank) -> bool) -> Option<Rank> {
        let EngineOptions { rank, ranks, .. } = self.options;
        let mut found = None;
        for slot in self.loose.iter(&self.slots).map(|index| &self.slots[index]) {
            match slot.wish.as_ref().filter(|_| slot.message.is_none()).map(TaggedCall::source) {
                None => {
                    slot.execution.waits_for(|peer| found = found.or_else(|| matches(peer).then_some(peer)))
                }
                Some(Some(source)) => found = found.or_else(|| matches(source).then_some(source)),
                Some(None) if may_send => {}
                Some(None) => {
                    let mut others = (0..ranks).filter(|&peer| peer != rank);
                    if others.clone().all(&matches) {
                        found = found.or(others.next());
                    }
                }
            }
        }
        found
    }

    /// The peers that the oldest operation under way waits for.
    pub(crate) fn awaited(&self) -> Vec<Rank> {
        let mut peers = Vec::new();
        if let Some(oldest) = self.oldest() {
            let slot = &self.slots[oldest];
            peers.extend(slot.wish.as_ref().and_then(|wish| slot.source.or(wish.source())));
            slot.execution.waits_for(|peer| peers.push(peer));
            self.loose.peers_of(&self.slots, oldest, |peer| peers.push(peer));
        }
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// What the oldest operation under way waits for, if it is a receive that no message has come for.
    pub(crate) fn wish(&self) -> Option<String> {
        self.slots[self.oldest()?].wish.as_ref().map(tagged::describe)
    }

    fn oldest(&self) -> Option<usize> {
        self.queue.front().copied().or(self.loose.first())
    }

    /// How long the oldest operation under way has been found waiting. The clock is read by whoever asks, not when an
    /// operation is issued.
    pub(crate) fn oldest_wait(&mut self, now: Instant) -> Option<Duration> {
        let oldest = self.slots[self.oldest()?].number;
        match self.waiting {
            Some(Waiting { number, since, .. }) if number == oldest => Some(now - since),
            _ => {
                self.waiting = Some(Waiting { number: oldest, since: now, warned: false });
                Some(Duration::ZERO)
            }
        }
    }

    /// Whether a warning about the oldest operation is due now, of which there is one, whoever waits.
    pub(crate) fn warns_now(&mut self) -> bool {
        self.waiting.as_mut().is_some_and(|waiting| !std::mem::replace(&mut waiting.warned, true))
    }

    /// Whether the oldest operation under way is point to point.
    pub(crate) fn is_loose(&self) -> bool {
        self.queue.is_empty() && !self.loose.is_empty()
    }

    /// The last collective issued.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What was called as this collective, if that was not long ago.
    pub(crate) fn called(&self, sequence: u64) -> Option<Signature> {
        let is_kept = sequence <= self.sequence && sequence + CALLS_KEPT > self.sequence && sequence > 0;
        is_kept.then(|| self.calls[(sequence % CALLS_KEPT) as usize])
    }

    /// Looks for messages of any kind: this rank takes none any more. For an idle engine.
    pub(crate) fn inspect_closing(&mut self) -> Result<(), Fault> {
        // What arrived last may be known to the kernel only.
        self.endpoint.poll(&mut self.completions)?;
        self.complete()?;
        self.unread()?;
        self.endpoint.inspect(CLOSING, Signature::default())
    }

    /// Looks for messages nobody can take any more.
    pub(crate) fn inspect(&mut self) -> Result<(), Fault> {
        match self.current() {
            (sequence, Some(signature)) => self.endpoint.inspect(sequence, signature),
            // What belongs to the next call may lie there already; what belongs to the last one or before may not.
            (sequence, None) => self.endpoint.inspect(sequence, self.last_signature),
        }
    }

    /// The endpoint, for waiting and counting.
    pub(crate) fn endpoint(&mut self) -> &mut dyn Endpoint {
        &mut *self.endpoint
    }

    /// The endpoint, for those who only look.
    pub(crate) fn links(&self) -> &dyn Endpoint {
        &*self.endpoint
    }

    /// What it keeps in memory, the endpoint included.
    pub(crate) fn memory(&self) -> MemoryUse {
        let mut memory = MemoryUse::default();
        self.endpoint.count_memory(&mut |kind, bytes| memory.add(kind, bytes));
        let plans: usize = self.plans.values().map(|plan| plan_bytes(plan)).sum();
        memory.add(MemoryKind::Plans, plans as u64);
        self.slots.count_memory(&mut memory);
        memory.add(MemoryKind::Buffers, self.tagged.bytes());
        memory
    }

    /// The region that holds the result of an operation that was just issued or is running.
    pub(crate) fn output_region(&self, id: OpId) -> RegionId {
        RegionId(region(id.slot).0 + 1)
    }

    #[inline]
    fn advance(&mut self, index: usize) -> Result<bool, Fault> {
        let moved = self.slots[index].execution.advance(&mut *self.endpoint, index as u32)?;
        if self.slots[index].execution.has_declined() {
            self.begin_steps(index)?;
            self.advance(index)?;
            return Ok(true);
        }
        Ok(moved)
    }

    /// Begins a point-to-point operation whose turn has come, and posts what it can at once.
    fn start(&mut self, index: usize) -> Result<(), Fault> {
        self.begin(index)?;
        self.advance(index)?;
        self.settle(index)
    }

    /// Looks how a point-to-point operation stands after something of it was posted or completed.
    fn settle(&mut self, index: usize) -> Result<(), Fault> {
        let slot = &self.slots[index];
        let (has_posted_all, is_over) = (slot.execution.has_posted_all(), slot.is_over());
        self.loose.note_posted(&mut self.slots, index, has_posted_all);
        if !is_over {
            return Ok(());
        }
        self.loose.leave(&mut self.slots, index);
        let Slot { role, feeds, .. } = self.slots[index];
        if role != Role::Absorbing {
            self.loose.unlist(&mut self.slots, index);
        }
        self.slots.finish(index);
        match role {
            Role::ToItself | Role::Absorbing => self.has_arrived(index, feeds),
            Role::Loose | Role::Collective => Ok(()),
        }
    }

    fn begin(&mut self, index: usize) -> Result<()> {
        let slot = &mut self.slots[index];
        let ready = slot.call.take().expect("begin is called once for each issued call");
        let Ready { plan, buffers, stream, signature } = &ready;
        let (call, key) = (slot.called.get(), (*stream, *signature));
        if let Some(places) = buffers.places(&call, self.options.rank) {
            if let Some(block_bytes) = plan.direct_block(call.count()) {
                // SAFETY: whoever issued the call vouched for its memory until the operation is done.
                let round = unsafe { Round::new(block_bytes, places) };
                slot.execution.start_direct(plan.clone(), key, round);
                return Ok(());
            }
            if plan.may_be_one_pass(call.count()) {
                // SAFETY: as above.
                let pass = unsafe { Pass::new(plan, call.count(), places) };
                slot.execution.start_one_pass(plan.clone(), key, pass);
                slot.begun = Some(ready);
                return Ok(());
            }
        }
        slot.begun = Some(ready);
        self.begin_steps(index)
    }

    /// Begins what is done step by step.
    fn begin_steps(&mut self, index: usize) -> Result<()> {
        let slot = &mut self.slots[index];
        let Ready { plan, buffers, stream, signature } =
            slot.begun.take().expect("it was begun and is not done");
        let (call, is_phantom) = (slot.called.get(), buffers.is_phantom());
        // SAFETY: whoever issued the call vouched for its memory until the operation is done.
        let (input, output) = unsafe { place(&mut *self.endpoint, region(index), &call, &plan, buffers) }?;
        let mut bases = Bases { input, output, scratch: output };
        let scratch_bytes = slot.execution.bind(&plan, &call);
        if plan.scratch().is_some() {
            let size = plan.spec().dtype.size() as u32;
            let memory = scratch(&mut slot.scratch, scratch_bytes, is_phantom, size)?;
            bases.scratch = Base { region: RegionId(region(index).0 + 2), offset: 0 };
            // SAFETY: the slot keeps its scratch until the operation is over, and nobody else knows it.
            unsafe { self.endpoint.register(bases.scratch.region, memory) }?;
        }
        if let Some(journal) = &mut self.journal {
            let binding = slot.execution.binding().clone();
            journal.push(Begun { stream, signature, plan: Arc::clone(&plan), binding });
        }
        slot.execution.start(plan, bases, (stream, signature));
        Ok(())
    }

    /// Takes finished collectives out of the running.
    #[inline]
    fn retire(&mut self) {
        while let Some(&front) = self.queue.front()
            && self.slots[front].is_over()
        {
            self.queue.pop_front();
            if let Some((_, signature)) = self.slots[front].execution.running() {
                self.last_signature = signature;
            }
            self.slots.finish(front);
        }
    }
}
