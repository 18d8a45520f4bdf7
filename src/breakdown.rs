//! Where the time of operations goes: measured only while asked for, because looking costs clock reads.

use std::time::{Duration, Instant};

/// Time spent in the parts of blocking calls, summed over calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breakdown {
    /// Blocking calls.
    pub calls: u64,
    /// Checking arguments.
    pub check: Duration,
    /// Finding (or making) the plan.
    pub look_up: Duration,
    /// Binding the plan and posting its steps, with what completes at once.
    pub post: Duration,
    /// Polling for what did not, waiting included.
    pub poll: Duration,
}

/// A stopwatch that runs only if somebody asked.
#[derive(Debug)]
pub(crate) struct Stopwatch(Option<Instant>);

impl Stopwatch {
    #[inline]
    pub(crate) fn start(is_asked: bool) -> Self {
        Stopwatch(is_asked.then(Instant::now))
    }

    /// Adds the time since the start (or the last lap) to `sum`.
    #[inline]
    pub(crate) fn lap(&mut self, sum: Option<&mut Duration>) {
        if let (Some(since), Some(sum)) = (&mut self.0, sum) {
            let now = Instant::now();
            *sum += now - *since;
            *since = now;
        }
    }
}
