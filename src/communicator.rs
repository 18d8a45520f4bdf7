//! The communicator: what users call.
#![allow(unsafe_code)] // hands callers' buffers to the engine

use crate::breakdown::{Breakdown, Stopwatch};
use crate::choose::{Chooser, Wishes};
use crate::config::{Config, check_alike, settings};
use crate::control::{
    Control, DEFAULT_GRACE, Identity, Join, LEFT_TOO_EARLY, Progress, ProgressState, Rendezvous, WakerGuard,
};
use crate::cores;
use crate::costs::Costs;
use crate::engine::{Buffers, Engine, EngineOptions, OpId, Status};
use crate::group::Entries;
use crate::logging;
use crate::planned::Planned;
use crate::region::Buffer;
use crate::sim::refuse_blocking;
use crate::waiting::Limits;
use crate::work::Work;
use parking_lot::{Mutex, MutexGuard};
use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use ubccl_core::endpoint::{HostPointer, Memory, Wake};
use ubccl_core::{Collective, DataType, Deadline, Error, ErrorKind, Kind, Layout, Rank, Result, Signature};

/// A group of ranks that call collectives together.
///
/// Every rank makes the same calls in the same order. One thread at a time need not be arranged for: calls of several
/// threads take turns, but then *their* order is the program's to keep equal on all ranks.
///
/// **When something goes wrong**, one cause (who, on which host, in which operation) ends the communicator on every
/// rank: operations under way fail with it, and so does every later call, [`Communicator::close`] included. A call that
/// has already returned on some rank is right; that rank is told by its next call or by `close`.
/// - A rank that dies or leaves early: `Remote`, within milliseconds.
/// - Ranks that call different things: `Mismatch`, naming two ranks and what both called as the same operation. A rank
///   that closed before another made one call too many has nothing to be told; the other has.
/// - A rank that does not call: a warning through `tracing` after `warn_after`, `Timeout` after `operation_timeout`.
///   Two ranks that both receive, or both send much, to each other end like this too: a thread of either may still make
///   the call that is missing, so it is no mismatch.
///
/// **What the death of a rank is**, whether it is a process or a thread among others of one:
/// - Its process ends, however: every rank in it is dead. The cause names one and says which others went with it.
/// - A panic drops the communicator: it is dead at once, in the middle of an operation or between two.
/// - The communicator and every [`Work`] of it are dropped with an operation under way: it is dead. A [`Work`] alone
///   keeps its operation going; dropped between operations, the rank has left, as if by [`Communicator::close`].
/// - It is leaked, or its thread blocks or ends without dropping it: it is merely slow. What it had issued goes on, what
///   it does not call ends with the deadline.
pub struct Communicator {
    pub(crate) shared: Arc<Shared>,
    _wake_on_change: WakerGuard,
}

/// What a communicator knows from the one that it is a part of.
pub(crate) struct Inherited {
    pub(crate) costs: Costs,
    /// Whether there are more ranks than cores.
    pub(crate) crowded: bool,
    /// Whether it always has a receive that nobody waits for: a window's.
    pub(crate) is_of_window: bool,
}

/// The receive of a window's communicator for the next message has no deadline; who waits has one of its own.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What a communicator, its works and the service thread share.
pub(crate) struct Shared {
    pub(crate) rank: Rank,
    pub(crate) ranks: u32,
    /// Goes before the engine: an endpoint may take its time to part from its peers, and they are to know why by then.
    pub(crate) control: Control,
    pub(crate) engine: Mutex<Engine>,
    /// Threads that wait for the engine while its owner drives or sleeps.
    pub(crate) wanted: AtomicUsize,
    pub(crate) waker: Arc<dyn Wake>,
    pub(crate) limits: Limits,
    /// What a communicator split from this one is made with.
    pub(crate) settings: Settings,
    /// Memory of groups that are over.
    pub(crate) spare_groups: Mutex<Vec<Entries>>,
    /// Whether it was said that regions are ordinary memory.
    pub(crate) told_of_private_memory: AtomicBool,
    pub(crate) closed: AtomicBool,
    /// How many windows were made.
    pub(crate) windows: AtomicU32,
    /// Whether the engine keeps a breakdown.
    is_measuring: AtomicBool,
}

/// What a communicator hands on to those split from it, beside its [`Limits`].
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) transport: String,
    pub(crate) paced: Option<String>,
    pub(crate) wishes: Wishes,
    pub(crate) layout: Arc<Layout>,
    pub(crate) costs: Costs,
    pub(crate) pair_bytes: Option<u64>,
    pub(crate) peer_reads: bool,
    pub(crate) start_timeout: Duration,
}

impl Communicator {
    /// Joins a communicator; returns when all ranks have.
    ///
    /// Order:  every rank calls it once, with its own rank and the same rendezvous, size, transport and algorithm.
    /// Errors: InvalidArgument; Start, naming the ranks that are missing or disagree; System, saying what was refused.
    /// Source: ncclCommInitRank, HcclCommInitRootInfo.
    pub fn init(config: Config) -> Result<Self> {
        let deadline = Deadline::at(Instant::now() + config.start_timeout);
        Self::start(config, deadline, None)
    }

    /// The same until a deadline that may have reasons to be over early, with what a parent knows if there is one.
    pub(crate) fn start(config: Config, deadline: Deadline, parent: Option<Inherited>) -> Result<Self> {
        let rank = config.rank;
        refuse_blocking(|| {
            ("Communicator::init", "the sim::Communicator that the program was given".into())
        })?;
        Self::connect(config, deadline, parent)
            .inspect_err(|error| tracing::error!(target: "ubccl::init", rank, "cannot start: {error}"))
    }

    fn connect(mut config: Config, deadline: Deadline, parent: Option<Inherited>) -> Result<Self> {
        config.check()?;
        config.origins.tell(&config);
        let layout = Arc::new(config.layout()?);
        if let Some(algorithm) = &config.algorithm {
            // Known before anybody is met.
            ubccl_algorithms::select(algorithm, &layout)
                .map_err(|error| config.blame(&settings::ALGO, error))?;
        }
        let (costs, parent_crowded, is_of_window) = match parent {
            Some(Inherited { costs, crowded, is_of_window }) => (costs, crowded, is_of_window),
            None => (Costs::of_config(&config)?, false, false),
        };
        let transport = ubccl_transports::find(&config.transport)
            .map_err(|error| config.blame(&settings::TRANSPORT, error))?;
        let mut control = join(&mut config, deadline)?;
        check_alike(&mut control, &config)?;
        let cores = cores::shared_by(&mut control)?;
        let options = config.connect_options();
        // Who waits for a peer in vain knows less than the board, if that has a cause.
        let endpoint = transport
            .connect(&mut control, &options)
            .map_err(|error| control.poison().check().err().unwrap_or(error))?;
        // The last exchange: whoever has started knows that all have connected.
        let costs = costs.of_first(&mut control, cores)?;
        let wishes = Wishes::of(&config);
        let chooser = Chooser::new(costs.engines(&layout), &layout, &wishes)?;
        let crowded = parent_crowded || cores < config.ranks;
        let waker = endpoint.waker();
        let (rank, ranks) = (config.rank, config.ranks);
        let options = EngineOptions { rank, ranks, is_crowded: crowded, chooser };
        let (on_change, poison) = (waker.clone(), control.poison().clone());
        let shared = Arc::new(Shared {
            rank,
            ranks,
            engine: Mutex::new(Engine::new(endpoint, options)),
            wanted: AtomicUsize::new(0),
            waker,
            control,
            limits: Limits {
                operation_timeout: if is_of_window { NEVER } else { config.operation_timeout }.into(),
                warn_after: if is_of_window { NEVER } else { config.warn_after },
                spin: config.spin,
                crowded,
                longest_rest: if is_of_window { LONGEST_REST_OF_WINDOW } else { LONGEST_REST },
            },
            settings: Settings {
                transport: config.transport.clone(),
                paced: config.paced.clone(),
                wishes,
                layout,
                costs,
                pair_bytes: config.pair_bytes,
                peer_reads: config.peer_reads,
                start_timeout: config.start_timeout,
            },
            spare_groups: Mutex::default(),
            told_of_private_memory: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            windows: AtomicU32::new(0),
            is_measuring: AtomicBool::new(false),
        });
        logging::tell_start(&config, crowded);
        let progress: Weak<dyn Progress> = Arc::downgrade(&(shared.clone() as Arc<dyn Progress>));
        shared.control.service().register_progress(progress);
        let communicator =
            Communicator { shared, _wake_on_change: poison.on_change(move || on_change.wake()) };
        communicator.tell_memory();
        Ok(communicator)
    }

    /// This rank.
    pub fn rank(&self) -> Rank {
        self.shared.rank
    }

    /// How many ranks.
    pub fn ranks(&self) -> u32 {
        self.shared.ranks
    }

    /// Checks a call in place on a buffer of so many bytes.
    pub(crate) fn check_joint(&self, call: &Collective<'_>, bytes: usize) -> Result<()> {
        self.shared.check_call(call)?;
        check_in_place(call)?;
        check_size(call, "buffer", bytes, call.in_place_elements(self.ranks(), self.rank()))
    }

    /// Any collective without waiting; the buffers come back from [`Work::wait`].
    ///
    /// Errors: as [`Communicator::run`]; what fails later comes from the [`Work`].
    pub fn run_async<A: Buffer, B: Buffer<Element = A::Element>>(
        &self,
        call: &Collective<'_>,
        input: A,
        mut output: B,
    ) -> Result<Work<(A, B)>> {
        self.shared.check_call(call)?;
        let (ranks, rank) = (self.ranks(), self.rank());
        let bytes: &[u8] = bytemuck::cast_slice(input.elements());
        check_size(call, "input", bytes.len(), call.input_elements(ranks, rank))?;
        let into: &mut [u8] = bytemuck::cast_slice_mut(output.elements_mut());
        check_size(call, "output", into.len(), call.output_elements(ranks, rank))?;
        let buffers = Buffers::Apart { input: host(bytes.as_ptr(), bytes.len()), output: host_mut(into) };
        // SAFETY: the buffers' memory stays where it is when they move into the box, and the engine keeps the box
        // until the operation is over.
        let op = unsafe { self.shared.issue(call, buffers, Some(Box::new((input, output)))) }?;
        Ok(Work::new(self.shared.clone(), op))
    }

    /// Any collective in place without waiting. See [`Communicator::run_async`].
    pub fn run_in_place_async<B: Buffer>(&self, call: &Collective<'_>, mut buffer: B) -> Result<Work<B>> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(buffer.elements_mut());
        self.check_joint(call, bytes.len())?;
        let memory = host_mut(bytes);
        // SAFETY: as in `run_async`.
        let op = unsafe { self.shared.issue(call, Buffers::InPlace(memory), Some(Box::new(buffer))) }?;
        Ok(Work::new(self.shared.clone(), op))
    }

    /// Begins to measure where the time of calls goes, which slows them by some clock reads each.
    pub fn start_breakdown(&self) {
        self.shared.lock().breakdown = Some(Breakdown::default());
        self.shared.is_measuring.store(true, Ordering::Relaxed);
    }

    /// Ends what [`Communicator::start_breakdown`] began and tells what it found.
    pub fn stop_breakdown(&self) -> Option<Breakdown> {
        self.shared.is_measuring.store(false, Ordering::Relaxed);
        self.shared.lock().breakdown.take()
    }

    /// Sets how long an operation issued or waited for from now on may take. Default 30 minutes.
    pub fn set_operation_timeout(&self, timeout: Duration) {
        *self.shared.limits.operation_timeout.write() = timeout;
    }

    /// The first cause, if the communicator is poisoned. Never blocks.
    ///
    /// Source: ncclCommGetAsyncError.
    pub fn async_error(&self) -> Option<Error> {
        let poison = self.shared.control.poison();
        poison.is_set().then(|| poison.error())
    }

    /// Whether no operation of this rank is under way, so that [`Communicator::close`] has nothing to refuse.
    pub fn is_idle(&self) -> bool {
        self.shared.lock().is_idle()
    }

    /// Ends the communicator on every rank: all operations under way or issued later fail with this cause. Returns
    /// when no buffer of this rank is touched any more, for which it waits half a second at most, where a peer stopped in it.
    ///
    /// Source: ncclCommAbort.
    pub fn abort(&self, why: &str) -> Result<()> {
        let message = format!("it called abort: {why}");
        let cause = self.shared.control.cause(ErrorKind::Aborted, self.rank(), message);
        self.shared.control.report(cause)?;
        self.shared.lock().cancel();
        Ok(())
    }

    /// Leaves in good order: the others may close later, and operations of theirs that need this rank fail.
    ///
    /// Errors: InvalidArgument if asynchronous operations are still under way (wait for them first); Mismatch if a
    /// message came that no call of this rank took, or another rank has called something else or more than this one; Remote if another
    /// has called less and left; the first cause if the communicator is poisoned. A rank that closes before the
    /// others make a call too many is told nothing: they are.
    /// Source: ncclCommFinalize and ncclCommDestroy.
    pub fn close(self) -> Result<()> {
        let mut engine = self.shared.lock();
        if self.shared.control.poison().is_set() {
            return Err(self.shared.give_up(&mut engine));
        }
        if !engine.is_idle() {
            return Err(Error::invalid("operations are still under way; wait for every Work before close()"));
        }
        let sequence = engine.sequence();
        if let Err(fault) = engine.inspect_closing() {
            return Err(self.shared.fail(&mut engine, fault));
        }
        self.shared.closed.store(true, Ordering::Release);
        self.shared.control.leave(sequence)?;
        // After leaving, so that of two ranks, one with a call that the other does not make, one finds out.
        if let Err(fault) = self.shared.compare_closing(&engine) {
            return Err(self.shared.fail(&mut engine, fault));
        }
        match self.shared.control.check_left(sequence) {
            Some(cause) => self.shared.fail_with(&mut engine, cause),
            None => Ok(()),
        }
    }
}

impl Shared {
    pub(crate) fn stopwatch(&self) -> Stopwatch {
        Stopwatch::start(self.is_measuring.load(Ordering::Relaxed))
    }

    /// The arguments of a blocking call were checked.
    pub(crate) fn checked(&self, mut stopwatch: Stopwatch) {
        if self.is_measuring.load(Ordering::Relaxed)
            && let Some(breakdown) = &mut self.lock().breakdown
        {
            breakdown.calls += 1;
            stopwatch.lap(Some(&mut breakdown.check));
        }
    }

    pub(crate) fn check_call(&self, call: &Collective<'_>) -> Result<()> {
        self.control.poison().check()?;
        call.check(self.ranks, self.rank)?;
        check_own(call, self.rank)
    }

    /// A call that needs a rank that has left is not begun: it might even look complete here.
    pub(crate) fn check_present(&self, engine: &mut Engine, call: &Collective<'_>) -> Result<()> {
        let cause = match call.kind() {
            Kind::SendReceive | Kind::Group => {
                let listed = call.send().messages().iter().map(|message| message.peer);
                let gone = call.to().into_iter().chain(listed).find(|&to| self.control.left(to).is_some());
                gone.map(|to| self.control.cause(ErrorKind::Remote, to, LEFT_TOO_EARLY))
            }
            _ => self.control.check_left(engine.sequence() + 1),
        };
        cause.map_or(Ok(()), |cause| self.fail_with(engine, cause))
    }

    /// Puts a call that was just issued on the board.
    pub(crate) fn tell(&self, engine: &mut Engine, call: &Collective<'_>) {
        let sequence = engine.sequence();
        tracing::trace!(target: "ubccl::coll", rank = self.rank, sequence, "{call}");
        if let Some(signature) = engine.called(sequence).filter(|_| !call.kind().is_point_to_point()) {
            self.control.board().called(sequence, signature.0);
        }
        self.show(engine);
    }

    /// All-gathers bytes for the library itself, whatever algorithm is forced for the user's calls. Blocks.
    pub(crate) fn gather_bytes(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        debug_assert_eq!(all.len(), own.len() * self.ranks as usize);
        let call = Collective::all_gather(own.len() as u64, DataType::U8);
        self.run_own(&call, own, all)
    }

    /// Returns when every rank has called it.
    pub(crate) fn barrier(&self) -> Result<()> {
        self.run_own(&Collective::barrier(), &[], &mut [])
    }

    fn run_own(&self, call: &Collective<'_>, input: &[u8], output: &mut [u8]) -> Result<()> {
        self.check_call(call)?;
        let buffers = Buffers::Apart { input: host(input.as_ptr(), input.len()), output: host_mut(output) };
        let mut engine = self.lock();
        self.check_present(&mut engine, call)?;
        let free = engine.chooser().free();
        let forced = engine.replace_chooser(free);
        // SAFETY: both slices are borrowed until this returns, by which time nothing is under way.
        let issued = unsafe { engine.issue(call, buffers, None) };
        engine.replace_chooser(forced);
        let op = issued?;
        self.tell(&mut engine, call);
        self.finish_blocking(engine, op)
    }

    /// Waits for an operation that was just issued, and sees to it that nothing of it is under way afterwards.
    pub(crate) fn finish_blocking(&self, engine: MutexGuard<'_, Engine>, op: OpId) -> Result<()> {
        self.wait_borrowed(engine, &[op]).map(drop)
    }

    /// Issues, and leaves the rest to the works and the service thread.
    ///
    /// # Safety
    /// As for `Engine::issue`.
    pub(crate) unsafe fn issue(
        &self,
        call: &Collective<'_>,
        buffers: Buffers,
        owned: Option<Box<dyn Any + Send>>,
    ) -> Result<OpId> {
        let mut engine = self.lock();
        self.check_present(&mut engine, call)?;
        // SAFETY: the caller vouches.
        let op = unsafe { engine.issue(call, buffers, owned) }?;
        self.tell(&mut engine, call);
        self.carry_on(engine, &[op]);
        Ok(op)
    }

    /// The same with a plan that was looked up before.
    ///
    /// # Safety
    /// As for `Engine::issue_planned`.
    pub(crate) unsafe fn issue_planned(
        &self,
        call: &Collective<'_>,
        planned: (Arc<Planned>, Signature),
        buffers: Buffers,
    ) -> Result<OpId> {
        self.control.poison().check()?;
        let mut engine = self.lock();
        self.check_present(&mut engine, call)?;
        // SAFETY: the caller vouches.
        let op = unsafe { engine.issue_planned(call, planned, buffers, None) };
        self.tell(&mut engine, call);
        self.carry_on(engine, &[op]);
        Ok(op)
    }

    /// Moves on operations that were just issued and that nobody waits for; what is left is the service thread's.
    pub(crate) fn carry_on(&self, mut engine: MutexGuard<'_, Engine>, ops: &[OpId]) {
        // A failure now is the works' to tell: the operations were issued.
        let _told_by_the_works = self.drive(&mut engine);
        let is_pending = ops.iter().any(|&op| engine.status(op) == Status::Pending);
        drop(engine);
        if is_pending {
            self.control.service().ring();
        }
    }
}

/// How long the service thread rests at least, and at most, while an operation waits that nobody waits for.
const SHORTEST_REST: Duration = Duration::from_micros(50);
const LONGEST_REST: Duration = Duration::from_millis(5);
/// The same at most for a window without traffic, which must cost next to nothing.
const LONGEST_REST_OF_WINDOW: Duration = Duration::from_millis(200);

impl Shared {
    /// How long the service thread may sleep while an operation waits: a fraction of what it has waited, within bounds.
    fn rest(&self, engine: &mut Engine) -> Duration {
        let waited = engine.oldest_wait(Instant::now()).unwrap_or_default();
        (waited / 8).clamp(SHORTEST_REST, self.limits.longest_rest)
    }
}

impl Progress for Shared {
    fn progress(&self) -> ProgressState {
        // Whoever holds the engine drives it.
        let Some(mut engine) = self.engine.try_lock() else { return ProgressState::Idle };
        if engine.is_idle() {
            return ProgressState::Idle;
        }
        match self.background(&mut engine) {
            Err(_told_by_the_works) => ProgressState::Idle,
            Ok(_) if engine.is_idle() => ProgressState::Idle,
            Ok(true) => ProgressState::Pending { next_poll: Duration::ZERO },
            Ok(false) => ProgressState::Pending { next_poll: self.rest(&mut engine) },
        }
    }
}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Communicator").field("rank", &self.rank()).field("ranks", &self.ranks()).finish()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("rank", &self.rank).field("ranks", &self.ranks).finish_non_exhaustive()
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // Works may outlive it; what they wait for goes on until the last is gone.
        if self.shared.closed.load(Ordering::Acquire) {
            return;
        }
        tracing::debug!(target: "ubccl::init", rank = self.rank(), "communicator dropped without close()");
        if std::thread::panicking() && !self.shared.control.poison().is_set() {
            let message = "the thread that held its communicator panicked";
            let cause = self.shared.control.cause(ErrorKind::Remote, self.rank(), message);
            if let Err(error) = self.shared.control.report(cause) {
                tracing::debug!(target: "ubccl::init", %error, "nobody was told");
            }
        }
    }
}

fn join(config: &mut Config, deadline: Deadline) -> Result<Control> {
    let rendezvous = match config.rendezvous.take() {
        Some(rendezvous) => rendezvous,
        None if config.ranks == 1 => Rendezvous::create()?,
        None => {
            return Err(Error::invalid(
                "no rendezvous: rank 0 makes one with Rendezvous::create() and passes its text() to the others, as \
                 an argument or in UBCCL_RENDEZVOUS",
            ));
        }
    };
    let join = Join {
        rank: config.rank,
        size: config.ranks,
        deadline,
        identity: Identity::of_this_process()?,
        describe: |signature| Signature(signature).describe(),
        grace: DEFAULT_GRACE,
    };
    Control::join(rendezvous, join)
}

pub(crate) fn host(address: *const u8, len: usize) -> Memory {
    Memory::Host { address: HostPointer(address.expose_provenance()), len: len as u64 }
}

pub(crate) fn host_mut(slice: &mut [u8]) -> Memory {
    host(slice.as_mut_ptr().cast_const(), slice.len())
}

/// A rank that sends to itself receives from itself.
pub(crate) fn check_own(call: &Collective<'_>, rank: Rank) -> Result<()> {
    let me = Some(rank);
    let is_mixed = (call.to() == me) != (call.from() == me);
    if call.kind() == Kind::SendReceive && is_mixed {
        return Err(Error::invalid(format!(
            "{call}: rank {rank} sends to or receives from itself; name it both as destination and as source"
        )));
    }
    Ok(())
}

/// In place, an all-to-all can only take as much from a rank as goes to it.
pub(crate) fn check_in_place(call: &Collective<'_>) -> Result<()> {
    if call.kind() == Kind::AllToAllV && call.send() != call.receive() {
        return Err(Error::invalid(format!(
            "{call}: in place, what is sent and what is received are the same blocks"
        )));
    }
    Ok(())
}

pub(crate) fn check_size(call: &Collective<'_>, what: &str, bytes: usize, elements: u64) -> Result<()> {
    let size = call.dtype().size();
    let needed = elements * size as u64;
    // What lies beyond a table's last block is the caller's own.
    if bytes as u64 == needed || call.kind().is_tabled() && bytes as u64 > needed {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{call}: the {what} has {} elements, it needs {elements}",
        bytes as f64 / size as f64
    )))
}
