//! The out-of-band exchange that transports use while a communicator starts.

use crate::error::Result;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest blob of one rank in one round of an [`Exchange`], in bytes.
pub const BLOB_BYTES_MAX: usize = 1 << 20;

/// Lets every rank of a starting communicator tell every other rank a few bytes: addresses, capabilities, names of
/// segments. It is slow (a round trip through rank 0) and meant for start-up only.
///
/// The contract:
/// 1. All ranks call [`all_gather`](Exchange::all_gather) the same number of times, in the same order.
/// 2. A round ends on a rank only after every rank has entered it, so a round is a barrier too.
/// 3. The answer has one blob per rank, in rank order, the own one included; blobs may be empty and differ in length.
/// 4. A blob is at most [`BLOB_BYTES_MAX`] long; a longer one is `InvalidArgument` and nothing is sent.
/// 5. A rank that does not come, dies or fails ends the round with one error on every rank, which names it; after
///    an error (other than point 4) the exchange cannot be used any more.
/// 6. Nothing blocks for longer than a few seconds after [`deadline`](Exchange::deadline) is over.
pub trait Exchange {
    /// The own rank.
    fn rank(&self) -> u32;

    /// The number of ranks.
    fn ranks(&self) -> u32;

    /// Gives `blob` to every rank and returns the blobs of all ranks, in rank order.
    ///
    /// # Errors
    /// `InvalidArgument` if the blob is too long; `Start`, naming the culprits, if the round failed.
    fn all_gather(&mut self, blob: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// When the start-up as a whole must be over.
    fn deadline(&self) -> Deadline;
}

/// Until when somebody waits: a time, and reasons to give up before it.
///
/// A wait that sleeps asks for [`Deadline::pause`], sleeps no longer than that, and looks at [`Deadline::is_over`]
/// again; so it notices a reason soon, whatever it sleeps on.
#[derive(Clone)]
pub struct Deadline {
    at: Instant,
    reasons: Vec<Arc<dyn Fn() -> bool + Send + Sync>>,
}

/// Between two looks at the reasons. Starting takes longer than this; a look costs less than a microsecond.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Deadline {
    /// Over at this time.
    pub fn at(at: Instant) -> Self {
        Deadline { at, reasons: Vec::new() }
    }

    /// The same, and over as soon as `is_hopeless` says so. It is asked often and must be quick.
    #[must_use]
    pub fn unless(mut self, is_hopeless: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.reasons.push(Arc::new(is_hopeless));
        self
    }

    /// The same with a later time.
    #[must_use]
    pub fn later(&self, by: Duration) -> Self {
        Deadline { at: self.at + by, reasons: self.reasons.clone() }
    }

    /// The same with this time, if that is earlier.
    #[must_use]
    pub fn no_later_than(&self, at: Instant) -> Self {
        Deadline { at: self.at.min(at), reasons: self.reasons.clone() }
    }

    /// Whether there is nothing more to wait for.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.at || self.is_hopeless()
    }

    /// How long a wait may sleep before it looks again; zero when it is over.
    pub fn pause(&self) -> Duration {
        if self.is_hopeless() {
            return Duration::ZERO;
        }
        let left = self.at.saturating_duration_since(Instant::now());
        if self.reasons.is_empty() { left } else { left.min(LOOK_EVERY) }
    }

    fn is_hopeless(&self) -> bool {
        self.reasons.iter().any(|reason| reason())
    }
}

impl From<Instant> for Deadline {
    fn from(at: Instant) -> Self {
        Deadline::at(at)
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline").field("at", &self.at).field("reasons", &self.reasons.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_deadline_is_over_at_its_time_or_when_a_reason_says_so() {
        let long = Duration::from_secs(1000);
        let far = Deadline::at(Instant::now() + long);
        assert!(!far.is_over() && far.pause() > long / 2);
        assert!(far.no_later_than(Instant::now()).is_over());
        assert!(
            Deadline::at(Instant::now()).is_over() && !Deadline::at(Instant::now()).later(long).is_over()
        );

        let hopeless = Arc::new(AtomicBool::new(false));
        let asked = hopeless.clone();
        let watched = far.unless(|| false).unless(move || asked.load(Ordering::Relaxed));
        assert!(!watched.is_over() && watched.pause() <= LOOK_EVERY);
        hopeless.store(true, Ordering::Relaxed);
        assert!(watched.is_over() && watched.later(long).is_over() && watched.pause().is_zero());
    }
}
