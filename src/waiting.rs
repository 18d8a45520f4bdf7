//! How a caller waits: who owns the engine drives all that is pending, spins a while, then sleeps.

use crate::communicator::Shared;
use crate::control::LEFT_TOO_EARLY;
use crate::engine::{Engine, OpId, Status};
use crate::faults::{Verdict, judge};
use parking_lot::{MutexGuard, RwLock};
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};
use ubccl_core::endpoint::Fault;
use ubccl_core::{Error, ErrorKind, Rank, Result};

/// Polls between two looks at the clock, at who left and at stray messages.
const IDLE_POLLS: u32 = 256;
/// A sleeper looks again after this long even if nothing woke it: a backstop, not a rhythm.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// A message names at most this many ranks.
const MOST_NAMED: usize = 8;

/// The limits of waiting.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) operation_timeout: RwLock<Duration>,
    pub(crate) warn_after: Duration,
    pub(crate) spin: Duration,
}

/// What a waiting call remembers between looks at the clock.
#[derive(Default)]
struct Patience {
    idle_since: Option<Instant>,
    warned: bool,
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
    #[inline]
    pub(crate) fn wait(&self, op: OpId, until: Option<Instant>) -> Result<bool> {
        let mut patience = Patience::default();
        loop {
            let mut engine = self.lock();
            if self.burst(&mut engine, op, &mut patience)? {
                return Ok(true);
            }
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                return Ok(false);
            }
            self.look_around(&mut engine, now, &mut patience)?;
            let idle_for = now - *patience.idle_since.get_or_insert(now);
            let is_wanted = self.wanted.load(Ordering::SeqCst) > 0; // pairs with `lock`
            if idle_for >= self.limits.spin && !is_wanted && !self.control.poison().is_set() {
                let longest = until.map_or(LONGEST_SLEEP, |until| LONGEST_SLEEP.min(until - now));
                engine.endpoint().sleep(longest)?;
            }
            MutexGuard::unlock_fair(engine);
        }
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
                    std::hint::spin_loop();
                }
                Err(fault) => return Err(self.fail(engine, fault)),
            }
        }
        Ok(false)
    }

    /// What is done rarely while nothing moves.
    fn look_around(&self, engine: &mut Engine, now: Instant, patience: &mut Patience) -> Result<()> {
        if let Err(fault) = engine.inspect() {
            return Err(self.fail(engine, fault));
        }
        self.check_leavers(engine)?;
        let Some(waited) = engine.oldest_wait(now) else { return Ok(()) };
        let timeout = *self.limits.operation_timeout.read();
        if waited >= timeout {
            let message = format!("{}; it waited {:.1} s", self.missing(engine), waited.as_secs_f64());
            let cause = self.control.cause(ErrorKind::Timeout, self.first_missing(engine), message);
            self.control.report(cause)?;
            return Err(self.give_up(engine));
        }
        if waited >= self.limits.warn_after && !patience.warned {
            patience.warned = true;
            tracing::warn!(
                rank = self.rank,
                "waiting for {:.0} s: {}",
                waited.as_secs_f64(),
                self.missing(engine)
            );
        }
        Ok(())
    }

    /// An operation that needs a rank that left can never complete.
    fn check_leavers(&self, engine: &mut Engine) -> Result<()> {
        let (sequence, running) = engine.current();
        let mut cause = running.and_then(|_| self.control.check_left(sequence));
        if cause.is_none() {
            let gone = engine.find_loose_peer(|peer| self.control.left(peer).is_some());
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

    /// Makes what an endpoint saw the cause, everywhere, and gives up.
    pub(crate) fn fail(&self, engine: &mut Engine, fault: Fault) -> Error {
        match judge(fault, self.rank, self.control.members()) {
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
            self.look_around(engine, Instant::now(), &mut Patience::default())?;
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

    /// What this rank waits in, and for whom, as far as the plan and the board tell.
    fn missing(&self, engine: &Engine) -> String {
        let (sequence, _) = engine.current();
        let what = engine.doing().1.map(|signature| signature.describe()).unwrap_or_default();
        let awaited = engine.awaited();
        let named: Vec<String> = awaited
            .iter()
            .filter(|&&rank| rank != self.rank)
            .take(MOST_NAMED)
            .map(|&rank| {
                let last = self.control.board().read(rank).sequence;
                let state = if last < sequence { "has not come to it" } else { "is in it or past it" };
                format!("rank {rank}, which {state} (its last operation is {last})")
            })
            .collect();
        let more = awaited.len().saturating_sub(MOST_NAMED + 1);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!(
            "rank {} is in {what}, its operation {sequence}, and waits for {}{more}",
            self.rank,
            named.join(", ")
        )
    }

    /// The rank to blame for a timeout: the first that has not come, or this one.
    fn first_missing(&self, engine: &Engine) -> Rank {
        let (sequence, _) = engine.current();
        let has_not_come = |rank: &Rank| self.control.board().read(*rank).sequence < sequence;
        self.others().find(has_not_come).unwrap_or(self.rank)
    }

    fn others(&self) -> impl Iterator<Item = Rank> + '_ {
        (0..self.ranks).filter(|&rank| rank != self.rank)
    }
}
