//! Runs a test body on all ranks of a transport: a thread for each rank in real time, all in turn in virtual time.

use super::exchange::LocalExchange;
use super::rank::{Running, Shared, TestRank};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};
use ubccl_core::endpoint::{
    Clock, CommunicatorId, ConnectOptions, Fidelity, Place, Transport, World, WorldOptions, WorldStats,
};

/// A test body.
pub type Body = fn(Rc<TestRank>) -> Running;

/// Lanes that tests use beside the one for tagged messages.
pub const LANES: u8 = 2;

/// A flat link for every pair: 1 µs and 1 GB/s.
pub const FABRIC: &str = "custom:latency_ps=1000000,bytes_per_s=1000000000";

/// Begins the message of a rank that only stopped because another failed.
const GAVE_UP: &str = "gave up";

/// One run of a body.
#[derive(Clone, Copy)]
pub struct Run {
    /// On which transport.
    pub transport: &'static dyn Transport,
    /// How many ranks.
    pub ranks: u32,
    /// What each does.
    pub body: Body,
    /// Which variant of it.
    pub variant: usize,
    /// How long nothing at all may happen before the test fails.
    pub patience: Duration,
}

impl Run {
    /// Runs it; the error says which rank failed where. Virtual worlds give their statistics.
    pub fn go(self) -> Result<WorldStats, String> {
        let shared = Arc::new(Shared::default());
        let (report, reports) = channel();
        let threads = match self.transport.descriptor().clock {
            Clock::Real => self.start_ranks(&shared, &report),
            Clock::Virtual => {
                let shared = shared.clone();
                spawn(0, report.clone(), move || self.drive_world(&shared));
                1
            }
        };
        drop(report);
        watch(&shared, &reports, threads, self.patience)
    }

    fn start_ranks(self, shared: &Arc<Shared>, report: &Sender<Report>) -> u32 {
        for exchange in LocalExchange::all(self.ranks, Instant::now() + self.patience) {
            let shared = shared.clone();
            spawn(rank_of(&exchange), report.clone(), move || {
                self.drive_rank(exchange, shared);
                WorldStats::default()
            });
        }
        self.ranks
    }

    fn drive_rank(self, mut exchange: LocalExchange, shared: Arc<Shared>) {
        let options = ConnectOptions { lanes: LANES, ..ConnectOptions::default() };
        let me = rank_of(&exchange);
        let endpoint = self.transport.connect(&mut exchange, &options);
        let endpoint = endpoint.unwrap_or_else(|error| panic!("rank {me}: connect: {error}"));
        let rank = TestRank::new((me, self.ranks), self, shared.clone(), endpoint);
        let mut running = whole(self.body, rank.clone());
        while running.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            let (what, number) = rank.waits_for.get();
            assert!(!shared.failed.load(SeqCst), "{GAVE_UP}: rank {me} waited for {what} {number}");
            if !rank.pump() {
                thread::yield_now();
            }
        }
    }

    fn drive_world(self, shared: &Arc<Shared>) -> WorldStats {
        let options = WorldOptions {
            ranks: self.ranks,
            fabric: FABRIC.into(),
            seed: 1,
            fidelity: Fidelity::default(),
            faults: String::new(),
        };
        let world = self.transport.world(&options);
        let mut world = world.unwrap_or_else(|error| panic!("world: {error}"));
        let ranks: Vec<_> = (0..self.ranks)
            .map(|me| {
                let endpoint = world.endpoint(me).unwrap_or_else(|error| panic!("endpoint {me}: {error}"));
                TestRank::new((me, self.ranks), self, shared.clone(), endpoint)
            })
            .collect();
        let mut running: Vec<_> = ranks.iter().map(|rank| Some(whole(self.body, rank.clone()))).collect();
        loop {
            resume(&mut running, shared);
            if running.iter().all(Option::is_none) {
                return world.stats();
            }
            assert!(!shared.failed.load(SeqCst), "{GAVE_UP}: nothing happened for {:?}", self.patience);
            if !step(&mut *world, &ranks, shared) {
                let waiting: Vec<_> = ranks.iter().map(|rank| (rank.me, rank.waits_for.get())).collect();
                assert!(
                    ranks.iter().any(|rank| rank.settling.get()),
                    "nothing ever happens; wait: {waiting:?}"
                );
                shared.quiet.fetch_add(1, SeqCst);
            }
        }
    }
}

/// Goes to the next time of a world and polls whom it names; checks what the contract of `World` says of both.
fn step(world: &mut dyn World, ranks: &[Rc<TestRank>], shared: &Shared) -> bool {
    let (before, mut woken) = (world.now_ps(), Vec::new());
    let any = world.step(&mut woken).unwrap_or_else(|error| panic!("step: {error}"));
    let now = world.now_ps();
    assert!(now >= before, "World 1: time went back from {before} to {now}");
    assert!(woken.is_sorted_by(|a, b| a < b), "World 3: each once, in order, not {woken:?}");
    for Place { communicator, rank } in woken {
        assert_eq!(communicator, CommunicatorId::WORLD, "there is one communicator");
        ranks[rank as usize].pump();
    }
    shared.activity.fetch_add(u64::from(any), SeqCst);
    any
}

/// Resumes every body until none gets any further at this time.
fn resume(running: &mut [Option<Running>], shared: &Shared) {
    loop {
        let before = shared.activity.load(SeqCst);
        for body in running.iter_mut() {
            let poll = |body: &mut Running| body.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if body.as_mut().is_some_and(|body| poll(body).is_ready()) {
                *body = None;
            }
        }
        if shared.activity.load(SeqCst) == before {
            return;
        }
    }
}

/// A body with what follows every body: nobody's endpoint goes before everybody has checked.
fn whole(body: Body, rank: Rc<TestRank>) -> Running {
    Box::pin(async move {
        body(rank.clone()).await;
        rank.meet().await;
        rank.finish();
        rank.meet().await;
    })
}

fn rank_of(exchange: &LocalExchange) -> u32 {
    ubccl_core::Exchange::rank(exchange)
}

struct Report {
    end: Result<WorldStats, String>,
}

fn spawn(rank: u32, report: Sender<Report>, run: impl FnOnce() -> WorldStats + Send + 'static) {
    let run = move || {
        let end = catch_unwind(AssertUnwindSafe(run)).map_err(|_| PANIC.take());
        // Nobody listens any more if the watchdog has given up.
        let _ = report.send(Report { end });
    };
    thread::Builder::new()
        .name(format!("{THREAD}{rank}"))
        .spawn(run)
        .expect("a test may start a few threads");
}

/// Collects the ends of all ranks; stops them all when one fails or nothing happens for too long.
fn watch(
    shared: &Shared,
    reports: &Receiver<Report>,
    threads: u32,
    patience: Duration,
) -> Result<WorldStats, String> {
    let (mut left, mut stats, mut failures) = (threads, WorldStats::default(), Vec::new());
    let (mut seen, mut since, mut stop_at) = (0, Instant::now(), None);
    while left > 0 {
        match reports.recv_timeout(Duration::from_millis(50)) {
            Ok(report) => {
                left -= 1;
                report.end.map_or_else(|message| failures.push(message), |end| stats = end);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = Instant::now();
        if std::mem::replace(&mut seen, shared.activity.load(SeqCst)) != seen {
            since = now;
        }
        if stop_at.is_none() && (!failures.is_empty() || now - since > patience) {
            shared.failed.store(true, SeqCst);
            stop_at = Some(now + patience);
        }
        if stop_at.is_some_and(|stop_at| now > stop_at) {
            failures.push(format!("watchdog: {left} ranks hang in a call of the endpoint"));
            break;
        }
    }
    if failures.is_empty() { Ok(stats) } else { Err(told(failures)) }
}

/// The failures that are not mere consequences, or all of them if nothing happened at all.
fn told(failures: Vec<String>) -> String {
    let is_cause = |message: &&String| !message.contains(GAVE_UP);
    let causes: Vec<_> = failures.iter().filter(is_cause).cloned().collect();
    if causes.is_empty() {
        format!("nothing happened any more:\n{}", failures.join("\n"))
    } else {
        causes.join("\n")
    }
}

const THREAD: &str = "test rank ";

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Lets the panics of rank threads be told by whoever runs them, once, instead of being printed.
pub fn quiet_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let is_rank = thread::current().name().is_some_and(|name| name.starts_with(THREAD));
        if is_rank { PANIC.set(info.to_string()) } else { usual(info) }
    }));
}
