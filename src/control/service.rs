//! The one thread of the process that watches what nobody waits for.
//!
//! It sleeps in epoll, with no timeout while nothing is due, so an idle communicator costs no CPU. It serves descriptors
//! (deaths, rings of other ranks) and asynchronous operations whose caller went away to compute. It starts with the first communicator of the process and ends with the
//! last user; no signal handlers, nothing global but a weak pointer.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, epoll, eventfd};
use ubccl_core::{Error, Result};

use super::conn;
use super::identity::check_not_forked;

/// What a [`Progress`] wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgressState {
    /// Nothing pending, or somebody else drives it: not asked again before the next [`Service::ring`].
    Idle,
    /// To be asked again after this time (zero: at once), or at the next ring.
    Pending {
        /// How long the service thread may sleep.
        next_poll: Duration,
    },
}

/// Something the service thread drives while it has work and no caller of its own.
pub(crate) trait Progress: Send + Sync {
    /// Does what can be done without blocking.
    fn progress(&self) -> ProgressState;
}

/// When a registered descriptor's handler is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Whenever it is readable (level-triggered: the handler must read).
    Readable,
    /// The first time it is readable only.
    Once,
}

/// The process's service thread. Cheap to share; the thread ends when the last `Arc` is dropped.
pub(crate) struct Service {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
    /// The process the thread runs in.
    owner: u32,
}

/// What the thread and its users share.
struct Core {
    epoll: OwnedFd,
    bell: OwnedFd,
    rung: AtomicBool,
    stop: AtomicBool,
    wakes: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    entries: HashMap<u64, Arc<Entry>>,
    progress: Vec<Weak<dyn Progress>>,
}

struct Entry {
    fd: Arc<OwnedFd>,
    handler: Box<dyn Fn() + Send + Sync>,
}

/// The epoll key of the bell; registrations count from 1.
const BELL: u64 = 0;

static SHARED: Mutex<Weak<Service>> = Mutex::new(Weak::new());
/// The process that [`SHARED`] belongs to, 0 while there is no service: read before locking, because a fork may have
/// copied the lock while another thread held it.
static OWNER: AtomicU32 = AtomicU32::new(0);

impl Service {
    /// The service of this process, started if there is none.
    ///
    /// # Errors
    /// `System` if descriptors or threads have run out; `Unsupported` in a child forked from a process that has one.
    pub(crate) fn shared() -> Result<Arc<Service>> {
        let owner = OWNER.load(Ordering::Acquire);
        if owner != 0 {
            check_not_forked(owner)?;
        }
        let mut shared = SHARED.lock();
        if let Some(service) = shared.upgrade() {
            return Ok(service);
        }
        let service = Arc::new(Service::start()?);
        *shared = Arc::downgrade(&service);
        OWNER.store(service.owner, Ordering::Release);
        Ok(service)
    }

    fn start() -> Result<Service> {
        let failed = |e: rustix::io::Errno| {
            let message = "cannot create the service thread's descriptors; raise `ulimit -n`";
            Error::system(message, std::io::Error::from(e))
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN).map_err(failed)?;
        let core = Arc::new(Core {
            epoll,
            bell,
            rung: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            wakes: AtomicU64::new(0),
            state: Mutex::new(State { next: BELL + 1, ..State::default() }),
        });
        let run = core.clone();
        let thread = std::thread::Builder::new()
            .name("ubccl-service".into())
            .spawn(move || Worker::new(run).run())
            .map_err(|e| Error::system("cannot start the service thread; raise `ulimit -u`", e))?;
        Ok(Service { core, thread: Some(thread), owner: std::process::id() })
    }

    /// Calls `handler` on the service thread when `fd` is readable, until the registration is dropped. The handler
    /// must not block; a call that has begun may still be running when the drop returns.
    pub(crate) fn register(
        self: &Arc<Self>,
        fd: Arc<OwnedFd>,
        interest: Interest,
        handler: impl Fn() + Send + Sync + 'static,
    ) -> Result<Registration> {
        let flags = match interest {
            Interest::Readable => epoll::EventFlags::IN,
            Interest::Once => epoll::EventFlags::IN | epoll::EventFlags::ONESHOT,
        };
        let key = {
            let mut state = self.core.state.lock();
            let key = state.next;
            state.next += 1;
            state.entries.insert(key, Arc::new(Entry { fd: fd.clone(), handler: Box::new(handler) }));
            key
        };
        let registration = Registration { service: self.clone(), key };
        epoll::add(&self.core.epoll, &*fd, epoll::EventData::new_u64(key), flags)
            .map_err(|e| Error::system("cannot watch a descriptor with epoll", std::io::Error::from(e)))?;
        Ok(registration)
    }

    /// Has `progress` driven after each [`ring`](Service::ring) until it is idle. It is held weakly.
    pub(crate) fn register_progress(&self, progress: Weak<dyn Progress>) {
        self.core.state.lock().progress.push(progress);
        self.ring();
    }

    /// Wakes the service thread to drive what is pending. One atomic swap if it was rung already.
    #[inline]
    pub(crate) fn ring(&self) {
        self.core.ring();
    }

    /// How often the thread has woken, for tests of idleness.
    #[cfg(test)]
    pub(crate) fn wakes(&self) -> u64 {
        self.core.wakes.load(Ordering::SeqCst)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if check_not_forked(self.owner).is_err() {
            return; // a forked child: the thread is the parent's, and so is the eventfd
        }
        {
            let shared = SHARED.lock();
            if shared.strong_count() == 0 {
                OWNER.store(0, Ordering::Release);
            }
        }
        self.core.stop.store(true, Ordering::Release); // pairs with the Acquire in `Worker::run`
        self.core.ring();
        let Some(thread) = self.thread.take() else { return };
        // The last user may be a handler on the thread itself, which then ends by itself.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!(target: "ubccl::control", "the service thread panicked");
        }
    }
}

/// A descriptor being watched; dropping it ends that.
pub(crate) struct Registration {
    service: Arc<Service>,
    key: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if check_not_forked(self.service.owner).is_err() {
            return; // the epoll instance is shared with the parent, whose watch must stay
        }
        let core = &self.service.core;
        let entry = core.state.lock().entries.remove(&self.key);
        if let Some(entry) = entry {
            // Fails only if `register` failed to add it.
            let _ = epoll::delete(&core.epoll, &*entry.fd);
        }
    }
}

impl Core {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Full (2^64 - 2 rings unread) is impossible, and a closed bell means the process is ending.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Clears the bell. What was rung for happened before, so it is seen by whoever looks after this.
    fn hush(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count); // nothing to read: not rung
        self.rung.swap(false, Ordering::AcqRel);
    }
}

/// The service thread's loop and its scratch memory.
struct Worker {
    core: Arc<Core>,
    events: Vec<epoll::Event>,
    driven: Vec<Arc<dyn Progress>>,
    /// When pending progress is to be polled next.
    poll_at: Option<Instant>,
}

impl Worker {
    fn new(core: Arc<Core>) -> Self {
        Worker { core, events: Vec::with_capacity(64), driven: Vec::new(), poll_at: None }
    }

    fn run(&mut self) {
        loop {
            conn::wait_readable(self.core.epoll.as_fd(), self.poll_at);
            self.core.wakes.fetch_add(1, Ordering::Relaxed);
            let rung = self.serve_descriptors();
            if self.core.stop.load(Ordering::Acquire) {
                return;
            }
            if rung || self.poll_at.is_some_and(|due| due <= Instant::now()) {
                self.drive();
            }
        }
    }

    /// Calls the handlers of readable descriptors; true if the bell was among them.
    fn serve_descriptors(&mut self) -> bool {
        let mut rung = false;
        self.events.clear();
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        if epoll::wait(&self.core.epoll, buffer, Some(&now)).is_err() {
            return false; // interrupted: the loop comes back
        }
        for event in &self.events {
            let key = event.data.u64();
            if key == BELL {
                self.core.hush();
                rung = true;
                continue;
            }
            let entry = self.core.state.lock().entries.get(&key).cloned();
            if let Some(entry) = entry {
                guarded(|| (entry.handler)());
            }
        }
        rung
    }

    fn drive(&mut self) {
        self.core.state.lock().progress.retain(|weak| match weak.upgrade() {
            Some(progress) => {
                self.driven.push(progress);
                true
            }
            None => false,
        });
        let mut soonest: Option<Duration> = None;
        for progress in self.driven.drain(..) {
            let mut state = ProgressState::Idle;
            guarded(|| state = progress.progress());
            if let ProgressState::Pending { next_poll } = state {
                soonest = Some(soonest.map_or(next_poll, |other| other.min(next_poll)));
            }
        }
        self.poll_at = soonest.map(|wait| Instant::now() + wait);
    }
}

/// Runs foreign code; a panic in one communicator's handler must not silence the others.
fn guarded(action: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(action)).is_err() {
        tracing::error!(target: "ubccl::control", "a handler panicked on the service thread");
    }
}
