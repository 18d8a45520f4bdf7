//! How a caller waits: who owns the engine drives all that is pending, spins a while, then sleeps.

use crate::communicator::Shared;
use crate::control::LEFT_TOO_EARLY;
use crate::engine::{CALLS_KEPT, Engine, OpId, Status};
use crate::faults::{Scene, Verdict, judge};
use crate::sim::refuse_blocking;
use parking_lot::{MutexGuard, RwLock};
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};
use ubccl_core::endpoint::{CLOSING, Fault, Header, Stream};
use ubccl_core::{Cause, Error, ErrorKind, Rank, Result, Signature};

/// Polls between two looks at the clock.
pub(crate) const IDLE_POLLS: u32 = 256;
/// How long nothing has moved before a rank looks at who left and at stray messages: that takes as long as a small message,
/// and reads lines that the peers write at every call.
const FIRST_LOOK: Duration = Duration::from_micros(20);
/// Polls before a rank gives its core to another, if there are more ranks than cores.
const POLLS_PER_YIELD: u32 = 8;
/// A sleeper looks again after this long even if nothing woke it: a backstop, not a rhythm.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// A message names at most this many ranks.
const MOST_NAMED: usize = 8;

/// The limits of waiting.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) operation_timeout: RwLock<Duration>,
    pub(crate) warn_after: Duration,
    pub(crate) spin: Duration,
    /// Whether there are more ranks than cores: a rank that waits keeps the one it waits for from running, unless it
    /// gives its core away between looks.
    pub(crate) crowded: bool,
    /// How long the service thread may rest while an operation waits.
    pub(crate) longest_rest: Duration,
}

impl Limits {
    /// What a rank does between two looks that found nothing.
    #[inline]
    pub(crate) fn pause(&self, looks: u32) {
        match self.crowded && looks.is_multiple_of(POLLS_PER_YIELD) {
            true => std::thread::yield_now(),
            false => std::hint::spin_loop(),
        }
    }
}

/// What a waiting call remembers between looks at the clock.
#[derive(Default)]
struct Patience {
    idle_since: Option<Instant>,
}

impl Shared {
    /// The engine, driven by nobody else until the guard is dropped. Asks a sleeping owner to hand it over.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Engine> {
        if let Some(engine) = self.engine.try_lock() {
            return engine;
        }
        self.wanted.fetch_add(1, Ordering::SeqCst); // seen by the owner before it sleeps, or the wake comes after
        self.waker.wake();
        let engine = self.engine.lock();
        self.wanted.fetch_sub(1, Ordering::SeqCst);
        engine
    }

    /// Waits for an operation, or until `until`; `false` if that came first.
    pub(crate) fn wait(&self, op: OpId, until: Option<Instant>) -> Result<bool> {
        refuse_blocking(|| ("wait", "await on the Work of a sim::Communicator".into()))?;
        self.wait_holding(self.lock(), op, until).1
    }

    /// The same for who has the engine already, and gets it back.
    #[inline]
    pub(crate) fn wait_holding<'a>(
        &'a self,
        mut engine: MutexGuard<'a, Engine>,
        op: OpId,
        until: Option<Instant>,
    ) -> (MutexGuard<'a, Engine>, Result<bool>) {
        let mut patience = Patience::default();
        loop {
            match self.wait_a_while(&mut engine, op, until, &mut patience) {
                Ok(None) => {}
                Ok(Some(is_done)) => return (engine, Ok(is_done)),
                Err(error) => return (engine, Err(error)),
            }
            if self.is_wanted() {
                MutexGuard::unlock_fair(engine);
                engine = self.lock();
            }
        }
    }

    /// Waits for operations over borrowed buffers: when it returns, nothing of them is under way. Answers whose message
    /// the last one received, if it did.
    pub(crate) fn wait_borrowed<'a>(
        &'a self,
        engine: MutexGuard<'a, Engine>,
        ops: &[OpId],
    ) -> Result<Option<Rank>> {
        let unwind = Unwind(self);
        let (mut engine, mut result) = (engine, Ok(()));
        for &op in ops {
            let done;
            (engine, done) = self.wait_holding(engine, op, None);
            result = done.map(drop);
            if result.is_err() {
                break;
            }
        }
        std::mem::forget(unwind);
        if ops.iter().any(|&op| engine.status(op) == Status::Pending) {
            // Waiting itself failed: the buffers go back to the caller, so nothing may be under way.
            engine.cancel();
        }
        let source = ops.iter().map(|&op| engine.take(op).source).last();
        self.show(&mut engine);
        result.map(|()| source.flatten())
    }

    /// After a wait that failed: if it was the waiting itself that failed, the operation is still under way, but its
    /// raw buffers go back to the caller.
    pub(crate) fn end_failed(&self, op: OpId) {
        let mut engine = self.lock();
        if engine.status(op) == Status::Pending {
            engine.cancel();
        }
    }

    /// Whether another thread waits for the engine.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) > 0 // pairs with `lock`
    }

    /// Drives for a while, looks around, and sleeps if it is time to. `None`: go on.
    #[inline]
    fn wait_a_while(
        &self,
        engine: &mut Engine,
        op: OpId,
        until: Option<Instant>,
        patience: &mut Patience,
    ) -> Result<Option<bool>> {
        if self.burst(engine, op, patience)? {
            return Ok(Some(true));
        }
        let now = Instant::now();
        if until.is_some_and(|until| now >= until) {
            return Ok(Some(false));
        }
        let idle_for = now - *patience.idle_since.get_or_insert(now);
        if idle_for < self.limits.spin.min(FIRST_LOOK) {
            return Ok(None);
        }
        let next_look = self.look_around(engine, now, false)?;
        if idle_for >= self.limits.spin && !self.is_wanted() && !self.control.poison().is_set() {
            let longest = until.map_or(next_look, |until| next_look.min(until - now));
            engine.endpoint().sleep(longest)?;
        }
        Ok(None)
    }

    /// Drives for a while. `true` if the operation is done.
    #[inline]
    fn burst(&self, engine: &mut Engine, op: OpId, patience: &mut Patience) -> Result<bool> {
        let mut idle = 0;
        while idle < IDLE_POLLS {
            if engine.status(op) == Status::Done {
                return if engine.was_cancelled() { Err(self.control.poison().error()) } else { Ok(true) };
            }
            if self.control.poison().is_set() {
                return Err(self.give_up(engine));
            }
            match engine.turn() {
                Ok(true) => {
                    self.show(engine);
                    idle = 0;
                    patience.idle_since = None;
                }
                Ok(false) => {
                    idle += 1;
                    self.limits.pause(idle);
                }
                Err(fault) => return Err(self.fail(engine, fault)),
            }
        }
        Ok(false)
    }

    /// What is done rarely while nothing moves; after how long it is to be done again even if nothing happens.
    /// A rank that `may_send` does not sit in a wait: it may still send a message to itself.
    fn look_around(&self, engine: &mut Engine, now: Instant, may_send: bool) -> Result<Duration> {
        if let Err(fault) = engine.inspect().and_then(|()| self.compare_calls(engine)) {
            return Err(self.fail(engine, fault));
        }
        self.check_leavers(engine, may_send)?;
        let Some(waited) = engine.oldest_wait(now) else { return Ok(LONGEST_SLEEP) };
        let timeout = *self.limits.operation_timeout.read();
        if waited >= timeout {
            let message = format!("{}; it waited {:.1} s", self.missing(engine), waited.as_secs_f64());
            let cause = self.control.cause(ErrorKind::Timeout, self.first_missing(engine), message);
            self.control.report(cause)?;
            return Err(self.give_up(engine));
        }
        if waited >= self.limits.warn_after && engine.warns_now() {
            let missing = self.missing(engine);
            tracing::warn!(target: "ubccl::coll", rank = self.rank, "waiting for {:.1} s: {missing}", waited.as_secs_f64());
        }
        let warning = self.limits.warn_after.checked_sub(waited).unwrap_or(LONGEST_SLEEP);
        Ok(LONGEST_SLEEP.min(timeout - waited).min(warning))
    }

    /// Whether another rank called something else as this operation. Messages tell most of that; they do not tell two
    /// ranks that wait for each other, as when each takes the other for the root.
    fn compare_calls(&self, engine: &Engine) -> Result<(), Fault> {
        match engine.current() {
            (sequence, Some(signature)) => self.compare_call(sequence, signature),
            (_, None) => Ok(()),
        }
    }

    /// Whether another rank called something else as one of the last operations, or one more, before this one closes.
    /// Not every rank gets a message that does not fit: its calls may all have worked.
    pub(crate) fn compare_closing(&self, engine: &Engine) -> Result<(), Fault> {
        let last = engine.sequence();
        for sequence in last.saturating_sub(CALLS_KEPT) + 1..=last {
            if let Some(signature) = engine.called(sequence) {
                self.compare_call(sequence, signature)?;
            }
        }
        let next = |peer| Some((peer, self.call_of(peer, last + 1)?));
        self.others().find_map(next).map_or(Ok(()), |(peer, theirs)| {
            Err(Fault::Mismatch {
                peer,
                theirs: header(last + 1, theirs),
                ours: header(CLOSING, Signature(0)),
            })
        })
    }

    fn compare_call(&self, sequence: u64, signature: Signature) -> Result<(), Fault> {
        for peer in self.others() {
            let theirs = self.call_of(peer, sequence).unwrap_or(signature);
            if theirs != signature {
                let (theirs, ours) = (header(sequence, theirs), header(sequence, signature));
                return Err(Fault::Mismatch { peer, theirs, ours });
            }
        }
        Ok(())
    }

    fn call_of(&self, rank: Rank, sequence: u64) -> Option<Signature> {
        self.control.board().call_of(rank, sequence).map(Signature)
    }

    /// An operation that needs a rank that left can never complete.
    fn check_leavers(&self, engine: &mut Engine, may_send: bool) -> Result<()> {
        let (sequence, running) = engine.current();
        let mut cause = running.and_then(|_| self.control.check_left(sequence));
        if cause.is_none() {
            let gone = engine.find_loose_peer(may_send, |peer| self.control.left(peer).is_some());
            cause = gone.map(|peer| self.control.cause(ErrorKind::Remote, peer, LEFT_TOO_EARLY));
        }
        let Some(cause) = cause else { return Ok(()) };
        // What the leaver sent before it left may have come in between.
        match engine.turn() {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.control.report(cause)?;
                Err(self.give_up(engine))
            }
            Err(fault) => Err(self.fail(engine, fault)),
        }
    }

    /// Reports a cause and gives up: fails with it, or with an earlier one.
    pub(crate) fn fail_with(&self, engine: &mut Engine, cause: Cause) -> Result<()> {
        self.control.report(cause)?;
        Err(self.give_up(engine))
    }

    /// Makes what an endpoint saw the cause, everywhere, and gives up.
    pub(crate) fn fail(&self, engine: &mut Engine, fault: Fault) -> Error {
        let called = |rank, sequence| self.call_of(rank, sequence);
        let scene = Scene { me: self.rank, members: self.control.members(), called: &called };
        match judge(fault, &scene) {
            Verdict::Cause(cause) => {
                if let Err(error) = self.control.report(cause) {
                    return error;
                }
            }
            Verdict::Suspect { rank, message } => {
                if let Err(error) = self.control.verdict(rank, message) {
                    return error;
                }
            }
        }
        self.give_up(engine)
    }

    /// Forgets everything under way, so that no caller's memory is touched again; answers the first cause.
    pub(crate) fn give_up(&self, engine: &mut Engine) -> Error {
        engine.cancel();
        self.control.poison().error()
    }

    /// How an operation stands, after moving on what can move.
    pub(crate) fn test(&self, op: OpId) -> Result<Status> {
        let mut engine = self.lock();
        if engine.status(op) == Status::Pending {
            self.drive(&mut engine)?;
        }
        match engine.status(op) {
            Status::Done if engine.was_cancelled() => Err(self.control.poison().error()),
            status => Ok(status),
        }
    }

    /// The same, and if it is pending `waker` is called when it is not.
    pub(crate) fn test_or_wake(&self, op: OpId, waker: &Waker) -> Result<Status> {
        let status = self.test(op)?;
        if status == Status::Pending {
            self.lock().set_waker(op, waker);
            self.control.service().ring();
        }
        Ok(status)
    }

    /// Moves on everything that can move.
    pub(crate) fn drive(&self, engine: &mut Engine) -> Result<bool> {
        self.check_usable(engine)?;
        let moved = engine.progress().map_err(|fault| self.fail(engine, fault))?;
        self.show(engine);
        Ok(moved)
    }

    fn check_usable(&self, engine: &mut Engine) -> Result<()> {
        if self.control.poison().is_set() { Err(self.give_up(engine)) } else { Ok(()) }
    }

    /// What the service thread does for operations nobody waits for.
    pub(crate) fn background(&self, engine: &mut Engine) -> Result<bool> {
        let moved = self.drive(engine)?;
        if !moved {
            self.look_around(engine, Instant::now(), true)?;
        }
        Ok(moved)
    }

    /// Puts what this rank is doing on the board.
    #[inline]
    pub(crate) fn show(&self, engine: &mut Engine) {
        let doing = engine.doing();
        if doing == engine.shown {
            return;
        }
        match doing {
            (sequence, Some(signature)) => self.control.board().start(sequence, signature.0),
            (sequence, None) => self.control.board().finish(sequence),
        }
        engine.shown = doing;
    }

    /// What this rank waits in, and for whom, as far as the board and the plan tell.
    fn missing(&self, engine: &Engine) -> String {
        let (sequence, _) = engine.current();
        if let Some(wish) = engine.wish() {
            return self.unsent(engine, sequence, &wish);
        }
        let what = engine.doing().1.map(|signature| signature.describe()).unwrap_or_default();
        let place = if engine.is_loose() { "after its operation" } else { "its operation" };
        let missing = self.missing_ranks(engine);
        let named: Vec<String> = missing
            .iter()
            .take(MOST_NAMED)
            .map(|&rank| {
                format!("rank {rank}, which {}", self.progress_of(rank, sequence, engine.is_loose()))
            })
            .collect();
        let more = missing.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!(
            "rank {} is in {what}, {place} {sequence}, and waits for {}{more}",
            self.rank,
            named.join(", ")
        )
    }

    /// The same for a receive that no message has come for.
    fn unsent(&self, engine: &Engine, sequence: u64, wish: &str) -> String {
        let awaited = engine.awaited().first().map(|&rank| self.progress_of(rank, sequence, true));
        let state = awaited.map(|state| format!(", which {state}")).unwrap_or_default();
        format!("rank {} waits for {wish}{state}, after its operation {sequence}", self.rank)
    }

    /// The ranks that have not come to the oldest operation; if all have, or it is point to point, those that the plan
    /// waits for.
    fn missing_ranks(&self, engine: &Engine) -> Vec<Rank> {
        let (sequence, _) = engine.current();
        let has_not_come = |rank: &Rank| self.control.board().read(*rank).sequence < sequence;
        let late: Vec<Rank> = self.others().filter(has_not_come).collect();
        if !late.is_empty() && !engine.is_loose() {
            return late;
        }
        engine.awaited().into_iter().filter(|&rank| rank != self.rank).collect()
    }

    /// How far another rank is, seen from operation `sequence`, or from point to point after it.
    fn progress_of(&self, rank: Rank, sequence: u64, is_loose: bool) -> String {
        let last = self.control.board().read(rank).sequence;
        let state = match is_loose {
            true => "has not answered",
            false if last < sequence => "has not come to it",
            false => "is in it or past it",
        };
        format!("{state} (its last operation is {last})")
    }

    /// The rank to blame for a timeout: the first that is missing, or this one.
    fn first_missing(&self, engine: &Engine) -> Rank {
        self.missing_ranks(engine).first().copied().unwrap_or(self.rank)
    }

    fn others(&self) -> impl Iterator<Item = Rank> + '_ {
        (0..self.ranks).filter(|&rank| rank != self.rank)
    }
}

/// Cancels everything if a panic unwinds through a blocking call, so that its buffers are not touched afterwards.
struct Unwind<'a>(&'a Shared);

impl Drop for Unwind<'_> {
    fn drop(&mut self) {
        self.0.lock().cancel();
    }
}

/// A call as a message would tell it; what is compared is the call, not a length.
fn header(sequence: u64, signature: Signature) -> Header {
    Header { stream: Stream::Collective(sequence), signature, len: 0 }
}
