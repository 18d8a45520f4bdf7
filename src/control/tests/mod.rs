//! Tests of the control plane as a whole: ranks as threads here, as processes in `processes`.

mod failures;
mod processes;
mod start;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use ubccl_core::{Cause, Result};

use super::{Control, DEFAULT_GRACE, Identity, Join, Poison, Progress, ProgressState, Rendezvous, Service};

/// Long enough for the slowest machine; only a hang takes it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends the test program if a test hangs.
struct Watchdog(#[allow(dead_code, reason = "its drop tells the thread")] Sender<()>);

fn watchdog() -> Watchdog {
    let (alive, end) = channel();
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if end.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::abort();
        }
    });
    Watchdog(alive)
}

fn describe(signature: u128) -> String {
    format!("operation {signature}")
}

fn join_as(rank: u32, size: u32) -> Join {
    Join {
        rank,
        size,
        deadline: (Instant::now() + PATIENCE).into(),
        identity: Identity::of_this_process().unwrap(),
        describe,
        grace: DEFAULT_GRACE,
    }
}

const _: fn() = || {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Control>();
};

/// Starts these ranks as threads; each runs `body` with its outcome of joining.
fn try_ranks<T: Send>(joins: Vec<Join>, body: impl Fn(u32, Result<Control>) -> T + Sync) -> Vec<T> {
    let rendezvous = Rendezvous::create().unwrap();
    let text = rendezvous.text();
    let mut first = Some(rendezvous);
    std::thread::scope(|scope| {
        let threads: Vec<_> = joins
            .into_iter()
            .map(|join| {
                let (body, text) = (&body, &text);
                let listening = if join.rank == 0 { first.take() } else { None };
                scope.spawn(move || {
                    let rendezvous = listening.unwrap_or_else(|| text.parse().unwrap());
                    body(join.rank, Control::join(rendezvous, join))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Starts `size` ranks as threads that all join.
fn ranks<T: Send>(size: u32, body: impl Fn(u32, Control) -> T + Sync) -> Vec<T> {
    let joins = (0..size).map(|rank| join_as(rank, size)).collect();
    try_ranks(joins, |rank, joined| body(rank, joined.unwrap()))
}

/// Sleeps until the communicator is poisoned.
fn wait_for_cause(poison: &Arc<Poison>) -> Cause {
    let (wake, woken): (Sender<()>, Receiver<()>) = channel();
    let _guard = poison.on_change(move || {
        let _ = wake.send(()); // the sleeper has gone
    });
    while !poison.is_set() {
        woken.recv().unwrap();
    }
    poison.cause().unwrap().clone()
}

type Action = Box<dyn FnOnce() + Send>;

/// An action that keeps itself until it has run.
struct Once(parking_lot::Mutex<Option<(Arc<Once>, Action)>>);

impl Progress for Once {
    fn progress(&self) -> ProgressState {
        let taken = self.0.lock().take();
        if let Some((_itself, action)) = taken {
            action();
        }
        ProgressState::Idle
    }
}

/// Runs `action` on the service thread, soon.
fn on_service(service: &Service, action: impl FnOnce() + Send + 'static) {
    let once = Arc::new(Once(parking_lot::Mutex::new(None)));
    *once.0.lock() = Some((once.clone(), Box::new(action)));
    let progress: Arc<dyn Progress> = once;
    service.register_progress(Arc::downgrade(&progress));
}

/// Sleeps until `condition` holds, looking again at every change of the communicator.
fn wait_until(poison: &Arc<Poison>, condition: impl Fn() -> bool) {
    let (wake, woken): (Sender<()>, Receiver<()>) = channel();
    let _guard = poison.on_change(move || {
        let _ = wake.send(()); // the sleeper has gone
    });
    while !condition() {
        woken.recv().unwrap();
    }
}
