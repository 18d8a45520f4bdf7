//! One rank's operations: plans looked up, executions in program order, driven by whoever owns the engine.
#![allow(unsafe_code)] // registers the caller's memory with the endpoint

use crate::breakdown::{Breakdown, Stopwatch};
use crate::choose::Chooser;
use crate::executor::{Base, Bases, Execution, execution_of};
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};
use ubccl_core::collective::CallStore;
use ubccl_core::endpoint::{
    CLOSING, Counters, Endpoint, Fault, HostPointer, Memory, RegionId, Stream, Token,
};
use ubccl_core::plan::{MAX_WINDOW_PER_PEER, Plan};
use ubccl_core::{Choice, Collective, Error, Rank, Result, Signature, Spec};

/// The memory of a call.
#[derive(Debug)]
pub(crate) enum Buffers {
    /// Input and output apart.
    Apart {
        /// What the rank brings.
        input: Memory,
        /// Where the result goes.
        output: Memory,
    },
    /// One buffer, laid out by [`Collective::in_place_offsets`].
    InPlace(Memory),
}

/// Names an issued operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpId {
    slot: usize,
    generation: u64,
}

/// How an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Under way or waiting for its turn.
    Pending,
    /// Completed; its buffers may be used.
    Done,
}

/// A place for one operation; used again and again.
#[derive(Debug, Default)]
struct Slot {
    execution: Execution,
    call: Option<Ready>,
    /// What was called, with its tables.
    called: CallStore,
    generation: u64,
    /// Counts operations over all slots.
    number: u64,
    scratch: Vec<u64>,
    owned: Option<Box<dyn Any + Send>>,
    waker: Option<Waker>,
    /// Of a point-to-point operation: to and from.
    peers: [Option<Rank>; 2],
    detached: bool,
    done: bool,
}

/// An operation whose turn has not come.
#[derive(Debug)]
struct Ready {
    plan: Arc<Plan>,
    buffers: Buffers,
    stream: Stream,
    signature: Signature,
}

/// An operation that was found waiting.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    number: u64,
    since: Instant,
    /// Whether somebody was told.
    warned: bool,
}

/// What an engine is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineOptions {
    pub(crate) rank: u32,
    pub(crate) ranks: u32,
    pub(crate) chooser: Chooser,
    pub(crate) choice: Choice,
    /// Whether scratch is phantom, as the caller's buffers are.
    pub(crate) phantom: bool,
}

/// See the module.
pub(crate) struct Engine {
    endpoint: Box<dyn Endpoint>,
    options: EngineOptions,
    plans: HashMap<(&'static str, Spec), Arc<Plan>>,
    /// The last plan, so that repeating a call costs one comparison.
    last: Option<(&'static str, Spec, Arc<Plan>)>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Collectives in program order; the first one runs.
    queue: VecDeque<usize>,
    /// Point-to-point operations in the order issued; as many run as the endpoint takes.
    loose: Vec<usize>,
    completions: Vec<Token>,
    sequence: u64,
    issued: u64,
    /// Of the last collective that was done.
    last_signature: Signature,
    /// Of the last collectives that were issued, by sequence number.
    calls: [Signature; CALLS_KEPT as usize],
    cancelled: bool,
    /// Where the time goes, while somebody asks.
    pub(crate) breakdown: Option<Breakdown>,
    /// The oldest operation under way, since it was first found waiting.
    waiting: Option<Waiting>,
    /// What the board says this rank is doing: sequence, and the signature while it runs.
    pub(crate) shown: (u64, Option<Signature>),
}

const REGIONS_PER_SLOT: u32 = 3;
/// Calls that are remembered.
pub(crate) const CALLS_KEPT: u64 = 32;

impl Engine {
    pub(crate) fn new(endpoint: Box<dyn Endpoint>, options: EngineOptions) -> Self {
        Engine {
            endpoint,
            options,
            plans: HashMap::new(),
            last: None,
            slots: Vec::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            loose: Vec::new(),
            completions: Vec::new(),
            sequence: 0,
            issued: 0,
            last_signature: Signature::default(),
            calls: [Signature::default(); CALLS_KEPT as usize],
            cancelled: false,
            waiting: None,
            breakdown: None,
            shown: (0, None),
        }
    }

    /// The plan for a call and the algorithm's name.
    pub(crate) fn plan(&mut self, call: &Collective<'_>, in_place: bool) -> Result<Arc<Plan>> {
        let EngineOptions { rank, ranks, chooser, choice, .. } = self.options;
        let algorithm = chooser.choose(call, ranks)?;
        let name = algorithm.descriptor().name;
        let spec = Spec::new(call, ranks, rank, in_place, choice);
        if let Some((last_name, last_spec, plan)) = &self.last
            && *last_spec == spec
            && std::ptr::eq(*last_name, name)
        {
            return Ok(plan.clone());
        }
        let plan = self.plans.entry((name, spec)).or_insert_with(|| Arc::new(algorithm.plan(&spec))).clone();
        self.last = Some((name, spec, plan.clone()));
        Ok(plan)
    }

    /// Has calls choose their algorithms so from now on; how they did before.
    pub(crate) fn replace_chooser(&mut self, chooser: Chooser) -> Chooser {
        std::mem::replace(&mut self.options.chooser, chooser)
    }

    /// Issues a call: it starts when the collectives before it are done. Nothing is sent if this fails.
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
        let plan = self.plan(call, matches!(buffers, Buffers::InPlace(_)))?;
        stopwatch.lap(self.breakdown.as_mut().map(|breakdown| &mut breakdown.look_up));
        let is_loose = call.kind().is_point_to_point();
        let stream = if is_loose {
            Stream::Tagged(0)
        } else {
            self.sequence += 1;
            Stream::Collective(self.sequence)
        };
        let signature = call.signature(plan.number());
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        self.issued += 1;
        slot.number = self.issued;
        (slot.done, slot.detached, slot.owned) = (false, false, owned);
        slot.called.set(call);
        slot.call = Some(Ready { plan, buffers, stream, signature });
        let id = OpId { slot: index, generation: slot.generation };
        if !is_loose {
            self.calls[(self.sequence % CALLS_KEPT) as usize] = signature;
            self.queue.push_back(index);
            return Ok(id);
        }
        self.slots[index].peers = [call.to(), call.from()];
        self.loose.push(index);
        if self.may_begin(self.loose.len() - 1)
            && let Err(error) = self.begin(index)
        {
            self.loose.pop();
            self.release(index);
            return Err(error);
        }
        Ok(id)
    }

    /// Whether the k-th point-to-point operation may begin: an endpoint takes a bounded number with one peer, and
    /// those with one peer begin in the order issued.
    fn may_begin(&self, k: usize) -> bool {
        (0..2).all(|direction| {
            let Some(peer) = self.slots[self.loose[k]].peers[direction] else { return true };
            let before = self.loose[..k].iter().map(|&index| &self.slots[index]);
            let with_peer = before.filter(|slot| slot.peers[direction] == Some(peer));
            let mut running = 0;
            with_peer.into_iter().all(|slot| {
                running += 1;
                slot.call.is_none() && running < MAX_WINDOW_PER_PEER
            })
        })
    }

    /// Moves on everything that can move. `true` if anything did.
    pub(crate) fn progress(&mut self) -> Result<bool, Fault> {
        let mut moved = false;
        loop {
            let again = self.turn()?;
            moved |= again;
            if !again {
                return Ok(moved);
            }
        }
    }

    /// One round: begin, post, poll, complete.
    #[inline]
    pub(crate) fn turn(&mut self) -> Result<bool, Fault> {
        let mut moved = false;
        let mut stopwatch = Stopwatch::start(self.breakdown.is_some());
        if let Some(&front) = self.queue.front() {
            if self.slots[front].call.is_some() {
                self.begin(front)?;
                moved = true; // a plan without steps is done now, and the next one may begin
            }
            moved |= self.advance(front)?;
        }
        for k in 0..self.loose.len() {
            let index = self.loose[k];
            if self.slots[index].call.is_some() {
                if !self.may_begin(k) {
                    continue;
                }
                self.begin(index)?;
                moved = true;
            }
            moved |= self.advance(index)?;
        }
        if self.queue.is_empty() && self.loose.is_empty() {
            return Ok(false);
        }
        self.retire();
        stopwatch.lap(self.breakdown.as_mut().map(|breakdown| &mut breakdown.post));
        if self.queue.is_empty() && self.loose.is_empty() {
            return Ok(true);
        }
        moved |= self.endpoint.poll(&mut self.completions)?;
        for token in self.completions.drain(..) {
            self.slots[execution_of(token)].execution.complete(token);
        }
        self.retire();
        stopwatch.lap(self.breakdown.as_mut().map(|breakdown| &mut breakdown.poll));
        Ok(moved)
    }

    /// How an operation stands.
    pub(crate) fn status(&self, id: OpId) -> Status {
        let slot = &self.slots[id.slot];
        debug_assert_eq!(slot.generation, id.generation, "an operation is taken once");
        if slot.done { Status::Done } else { Status::Pending }
    }

    /// Gives back a finished (or cancelled) operation's buffers and its place.
    pub(crate) fn take(&mut self, id: OpId) -> Option<Box<dyn Any + Send>> {
        let owned = self.slots[id.slot].owned.take();
        self.release(id.slot);
        owned
    }

    /// Nobody will take this operation: it cleans up after itself.
    pub(crate) fn detach(&mut self, id: OpId) {
        if self.slots[id.slot].done {
            self.take(id);
        } else {
            self.slots[id.slot].detached = true;
        }
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
        while let Some(index) = self.queue.pop_front().or_else(|| self.loose.pop()) {
            self.finish(index);
        }
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
                let slot = &self.slots[front];
                let waiting = slot.call.as_ref().map(|call| call.signature);
                let running = slot.execution.running().map(|running| running.1);
                (self.sequence - self.queue.len() as u64 + 1, waiting.or(running))
            }
            (None, Some(&loose)) => {
                (self.sequence, self.slots[loose].execution.running().map(|running| running.1))
            }
            (None, None) => (self.sequence, None),
        }
    }

    /// The first peer that a point-to-point operation under way waits for and that `matches`.
    pub(crate) fn find_loose_peer(&self, matches: impl Fn(Rank) -> bool) -> Option<Rank> {
        let mut found = None;
        for &index in &self.loose {
            self.slots[index]
                .execution
                .waits_for(|peer| found = found.or_else(|| matches(peer).then_some(peer)));
        }
        found
    }

    /// The peers that the oldest operation under way waits for.
    pub(crate) fn awaited(&self) -> Vec<Rank> {
        let mut peers = Vec::new();
        if let Some(&oldest) = self.queue.front().or(self.loose.first()) {
            self.slots[oldest].execution.waits_for(|peer| peers.push(peer));
        }
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// How long the oldest operation under way has been found waiting. The clock is read by whoever asks, not when an
    /// operation is issued.
    pub(crate) fn oldest_wait(&mut self, now: Instant) -> Option<Duration> {
        let oldest = self.queue.front().or(self.loose.first()).map(|&index| self.slots[index].number)?;
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

    /// What has been moved.
    pub(crate) fn counters(&self) -> Counters {
        self.endpoint.counters()
    }

    /// Says whether the scratch of the operations issued from now on is phantom, as their buffers are.
    pub(crate) fn set_phantom(&mut self, phantom: bool) {
        self.options.phantom = phantom;
    }

    /// The region that holds the result of an operation that was just issued or is running.
    pub(crate) fn output_region(&self, id: OpId) -> RegionId {
        RegionId(id.slot as u32 * REGIONS_PER_SLOT + 1)
    }

    #[inline]
    fn advance(&mut self, index: usize) -> Result<bool, Fault> {
        self.slots[index].execution.advance(&mut *self.endpoint, index as u32)
    }

    fn begin(&mut self, index: usize) -> Result<()> {
        let slot = &mut self.slots[index];
        let Ready { plan, buffers, stream, signature } =
            slot.call.take().expect("begin is called once for each issued call");
        let call = slot.called.get();
        let scratch_bytes = slot.execution.bind(&plan, &call);
        let region = |k| RegionId(index as u32 * REGIONS_PER_SLOT + k);
        let at = |k| Base { region: region(k), offset: 0 };
        let size = plan.spec().dtype.size() as u64;
        let (input, output) = match buffers {
            Buffers::Apart { input, output } => {
                // SAFETY: whoever issued the call vouched for its memory until the operation is done.
                unsafe { self.endpoint.register(region(0), input) }?;
                // SAFETY: as above.
                unsafe { self.endpoint.register(region(1), output) }?;
                (at(0), at(1))
            }
            Buffers::InPlace(memory) => {
                let (input, output) = call.in_place_offsets(plan.spec().rank);
                // SAFETY: as above.
                unsafe { self.endpoint.register(region(1), memory) }?;
                let joint = |offset: u64| Base { region: region(1), offset: offset * size };
                (joint(input), joint(output))
            }
        };
        if plan.scratch().is_some() {
            let memory = scratch(&mut slot.scratch, scratch_bytes, self.options.phantom, size as u32)?;
            // SAFETY: the slot keeps its scratch until the operation is over, and nobody else knows it.
            unsafe { self.endpoint.register(region(2), memory) }?;
        }
        slot.execution.start(plan, Bases { input, output, scratch: at(2) }, (stream, signature));
        Ok(())
    }

    /// Takes finished operations out of the running.
    #[inline]
    fn retire(&mut self) {
        while let Some(&front) = self.queue.front()
            && self.slots[front].call.is_none()
            && self.slots[front].execution.is_done()
        {
            self.queue.pop_front();
            if let Some((_, signature)) = self.slots[front].execution.running() {
                self.last_signature = signature;
            }
            self.finish(front);
        }
        let mut k = 0;
        while k < self.loose.len() {
            let index = self.loose[k];
            if self.slots[index].call.is_none() && self.slots[index].execution.is_done() {
                self.loose.remove(k);
                self.finish(index);
            } else {
                k += 1;
            }
        }
    }

    fn finish(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.execution.stop();
        slot.call = None;
        slot.done = true;
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
        if slot.detached {
            slot.owned = None;
            self.release(index);
        }
    }

    fn release(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.generation += 1;
        slot.waker = None;
        self.free.push(index);
    }
}

/// Scratch memory of at least `bytes`, kept for the next time.
fn scratch(kept: &mut Vec<u64>, bytes: u64, phantom: bool, unit: u32) -> Result<Memory> {
    if phantom {
        let value = ubccl_core::symbolic::Value::UNWRITTEN;
        let piece = ubccl_core::symbolic::Piece { len: bytes / u64::from(unit), value };
        return Ok(Memory::Phantom { unit, content: vec![piece] });
    }
    let words = usize::try_from(bytes.div_ceil(8)).map_err(|_| Error::invalid("scratch exceeds memory"))?;
    if kept.len() < words {
        let more = words - kept.len();
        kept.try_reserve_exact(more).map_err(|error| {
            Error::system(format!("no memory for {bytes} bytes of scratch; use a smaller count"), error)
        })?;
        kept.resize(words, 0);
    }
    Ok(Memory::Host { address: HostPointer(kept.as_mut_ptr().expose_provenance()), len: bytes })
}
