//! Waits for what a peer brings about without an operation of this rank: a signal, an answer.

use super::WindowId;
use crate::communicator::Shared;
use crate::control::LEFT_TOO_EARLY;
use crate::waiting::{IDLE_POLLS, LONGEST_SLEEP};
use std::time::{Duration, Instant};
use ubccl_core::{Cause, ErrorKind, Rank, Result};

/// One such wait.
pub(super) struct Wait<'a> {
    /// Whose endpoint tells that something came.
    pub(super) shared: &'a Shared,
    /// The communicator that the user has: its limits count, and a failure ends it. It may be the same.
    pub(super) parent: &'a Shared,
    pub(super) window: WindowId,
    /// Who brings it about; this rank itself if many do.
    pub(super) peer: Rank,
    pub(super) what: &'a str,
    /// A sleeper looks again after this long.
    pub(super) longest_sleep: Duration,
}

impl Wait<'_> {
    /// Waits until `is_there`. `at_bedtime` tells that it is, of what a peer brings about before it wakes this rank.
    ///
    /// Errors: those of `is_there`; the cause, if a communicator is poisoned; Remote if the peer has left; Timeout.
    pub(super) fn until(
        &self,
        mut is_there: impl FnMut() -> Result<bool>,
        at_bedtime: &dyn Fn() -> bool,
    ) -> Result<()> {
        if is_there()? {
            return Ok(());
        }
        let begin = Instant::now();
        let (mut looks, mut has_warned) = (IDLE_POLLS, false);
        loop {
            for look in 1..=looks {
                self.shared.limits.pause(look);
                if is_there()? {
                    return Ok(());
                }
            }
            let waited = begin.elapsed();
            self.check(waited, &mut has_warned, &mut is_there)?;
            // Who sleeps anyway looks only once in between.
            looks = if self.rest(waited, at_bedtime)? { 1 } else { IDLE_POLLS };
        }
    }

    /// Looks who has left, and at the clock.
    fn check(
        &self,
        waited: Duration,
        has_warned: &mut bool,
        is_there: &mut impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        self.parent.control.poison().check()?;
        // In this order: what it sent before it left has come by now.
        let has_left = self.shared.control.left(self.peer).is_some();
        let has_moved = self.shared.drive(&mut self.shared.lock())?;
        if has_left && !has_moved && !is_there()? {
            return self.fail(ErrorKind::Remote, LEFT_TOO_EARLY.into());
        }
        if waited >= *self.parent.limits.operation_timeout.read() {
            return self
                .fail(ErrorKind::Timeout, format!("{}; it waited {:.1} s", self, waited.as_secs_f64()));
        }
        if waited >= self.parent.limits.warn_after && !std::mem::replace(has_warned, true) {
            let rank = self.parent.rank;
            tracing::warn!(target: "ubccl::coll", rank, "{self} for {:.1} s", waited.as_secs_f64());
        }
        Ok(())
    }

    /// Sleeps, if it is time to.
    fn rest(&self, waited: Duration, at_bedtime: &dyn Fn() -> bool) -> Result<bool> {
        let Wait { shared, parent, .. } = self;
        if waited < shared.limits.spin || shared.is_wanted() || shared.control.poison().is_set() {
            return Ok(false);
        }
        let left = (*parent.limits.operation_timeout.read()).saturating_sub(waited);
        let longest = LONGEST_SLEEP.min(self.longest_sleep).min(left);
        shared.lock().endpoint().sleep_unless(longest, at_bedtime)?;
        Ok(true)
    }

    #[cold]
    fn fail(&self, kind: ErrorKind, message: String) -> Result<()> {
        let cause: Cause = self.parent.control.cause(kind, self.peer, message);
        self.parent.fail_with(&mut self.parent.lock(), cause)
    }
}

impl std::fmt::Display for Wait<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Wait { parent, window, peer, what, .. } = self;
        write!(f, "rank {} waits in {window} for {what}", parent.rank)?;
        if *peer == parent.rank { Ok(()) } else { write!(f, " of rank {peer}") }
    }
}
