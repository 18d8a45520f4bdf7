//! The line on standard error that says how far a long sweep is, and about how long it will take yet.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A sweep is long after this time: then the line appears.
const LONG: Duration = Duration::from_secs(2);
/// The line changes at most so often.
const PAUSE: Duration = Duration::from_millis(200);

/// Whether standard error can show progress.
pub(crate) fn can_show() -> bool {
    std::io::stderr().is_terminal()
}

/// The line, for everybody who knows something.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Mutex<State>>);

struct State {
    out: Option<Box<dyn Write + Send>>,
    start: Instant,
    shown: Option<Instant>,
    /// What is being measured, how the many-th and of how many.
    row: String,
    index: usize,
    count: usize,
    row_start: Instant,
    /// How long each row before took.
    rows: Vec<Duration>,
}

/// How far a simulated call is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Simulated {
    /// Virtual time since its beginning.
    pub(crate) now_ps: u64,
    /// Virtual time that it is expected to take, if anybody knows.
    pub(crate) expected_ps: Option<f64>,
    /// Messages so far.
    pub(crate) messages: u64,
}

impl Progress {
    /// A line on standard error, or none.
    pub(crate) fn new(enabled: bool) -> Self {
        let out = enabled.then(|| Box::new(std::io::stderr()) as Box<dyn Write + Send>);
        Self::to(out)
    }

    fn to(out: Option<Box<dyn Write + Send>>) -> Self {
        let now = Instant::now();
        let (row, rows) = (String::new(), Vec::new());
        Progress(Arc::new(Mutex::new(State {
            out,
            start: now,
            shown: None,
            row,
            index: 0,
            count: 0,
            row_start: now,
            rows,
        })))
    }

    /// Whether there is a line.
    pub(crate) fn is_on(&self) -> bool {
        self.state().out.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Another row begins: what it is, and its place among all.
    pub(crate) fn begin(&self, row: String, index: usize, count: usize) {
        let state = &mut *self.state();
        (state.row, state.index, state.count, state.row_start) = (row, index, count, Instant::now());
        let left = state.left(0.0);
        state.show("", left);
    }

    /// It is over.
    pub(crate) fn end(&self) {
        let state = &mut *self.state();
        let took = state.row_start.elapsed();
        state.rows.push(took);
    }

    /// A simulated call goes on.
    pub(crate) fn simulated(&self, simulated: Simulated) {
        let state = &mut *self.state();
        if state.out.is_none() || state.shown.is_some_and(|shown| shown.elapsed() < PAUSE) {
            return;
        }
        let left = state.left(simulated.share());
        state.show(&simulated.to_string(), left);
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        let state = &mut *self.state();
        if state.shown.take().is_some()
            && let Some(out) = &mut state.out
        {
            let _ = write!(out, "\r\x1b[K");
        }
    }
}

impl Simulated {
    /// How much of the call is done, if it takes as long as expected. Never all: what is late is not over.
    fn share(&self) -> f64 {
        let expected_ps = self.expected_ps.unwrap_or(f64::INFINITY).max(1.0);
        (self.now_ps as f64 / expected_ps).min(0.99)
    }
}

impl std::fmt::Display for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = |ps: f64| format!("{:.1} us", ps / 1e6);
        write!(f, ": {} simulated", us(self.now_ps as f64))?;
        if let Some(expected_ps) = self.expected_ps {
            write!(f, " of about {}", us(expected_ps))?;
        }
        write!(f, ", {} messages", self.messages)
    }
}

impl State {
    /// About how long it will take yet: what is left of this row at the pace so far, and the rows after it, each taking
    /// as much longer than the one before as the last ones did.
    fn left(&self, share: f64) -> Option<Duration> {
        let in_row = self.row_start.elapsed().as_secs_f64();
        let last = self.rows.last().map_or(0.0, Duration::as_secs_f64);
        let row = if share > 0.01 { in_row / share } else { last.max(in_row) };
        if row == 0.0 || self.rows.is_empty() && share <= 0.01 {
            return None;
        }
        let growth = if last > 0.0 { (row / last).clamp(1.0, 2.0) } else { 1.0 };
        let after = self.count.saturating_sub(self.index + 1);
        let (mut seconds, mut next) = ((row - in_row).max(0.0), row);
        for _ in 0..after {
            next *= growth;
            seconds += next;
        }
        Duration::try_from_secs_f64(seconds).ok()
    }

    fn show(&mut self, detail: &str, left: Option<Duration>) {
        if self.start.elapsed() < LONG {
            return;
        }
        let left = left.map_or(String::new(), |left| format!("; about {} left", spoken(left)));
        let Some(out) = &mut self.out else { return };
        // A terminal that is gone must not end the measurement.
        let _ = write!(out, "\r\x1b[K{}/{}: {}{detail}{left}", self.index + 1, self.count, self.row);
        let _ = out.flush();
        self.shown = Some(Instant::now());
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.shown.is_some()
            && let Some(out) = &mut self.out
        {
            let _ = write!(out, "\r\x1b[K");
        }
    }
}

/// A time as one says it.
fn spoken(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, kept.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn long_ago(progress: &Progress, in_row: Duration, rows: &[Duration]) {
        let state = &mut *progress.state();
        state.start = Instant::now().checked_sub(LONG).unwrap();
        state.row_start = Instant::now().checked_sub(in_row).unwrap();
        state.rows = rows.to_vec();
    }

    fn text(kept: &Kept) -> String {
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_has_the_simulated_time_and_what_is_left() {
        let kept = Kept::default();
        let progress = Progress::to(Some(Box::new(kept.clone())));
        progress.begin("1 MiB, out of place".into(), 1, 3);
        assert_eq!(text(&kept), "", "a sweep that is not long yet shows nothing");
        // 10 s for half of this row, 10 s for the one before: 10 s are left of it, and the next takes 40 s.
        long_ago(&progress, Duration::from_secs(10), &[Duration::from_secs(10)]);
        progress.simulated(Simulated { now_ps: 500_000_000, expected_ps: Some(1e9), messages: 12 });
        let line = "2/3: 1 MiB, out of place: 500.0 us simulated of about 1000.0 us, 12 messages; about ";
        assert!(text(&kept).contains(line), "{}", text(&kept));
        let left = text(&kept).split("about ").last().unwrap().split(' ').next().unwrap().parse::<u64>();
        assert!((49..=51).contains(&left.clone().unwrap()), "{left:?}");
        progress.simulated(Simulated { now_ps: 500_000_001, expected_ps: None, messages: 13 });
        assert!(!text(&kept).contains("13 messages"), "the line does not flicker");
        progress.clear();
        assert!(text(&kept).ends_with("\r\x1b[K"));
    }

    #[test]
    fn nothing_is_estimated_from_nothing() {
        let progress = Progress::to(None);
        progress.begin("8 B".into(), 0, 5);
        assert_eq!(progress.state().left(0.0), None);
        long_ago(&progress, Duration::from_secs(4), &[]);
        assert!(progress.state().left(0.5).unwrap() >= Duration::from_secs(4));
    }

    #[test]
    fn times_are_spoken() {
        let spoken = [5, 119, 120, 7199, 7200, 90_000].map(|s| spoken(Duration::from_secs(s)));
        assert_eq!(spoken, ["5 s", "119 s", "2 min", "120 min", "2 h", "25 h"]);
    }
}
