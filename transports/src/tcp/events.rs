//! What the kernel says of the sockets: who may be read or written, and sleeping until somebody may.
//!
//! Sockets are watched edge-triggered, both ways, once and for all: an event is told once, and who is told has to
//! remember it until the socket is drained or full. The descriptor for others is a second epoll around the first, so that
//! it can be silenced with one call.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use ubccl_core::endpoint::Wake;
use ubccl_core::{Error, Result};

/// Events fetched in one call; more wait for the next.
const MAX_EVENTS: usize = 64;
const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The sockets' events and the sleeper's bell.
#[derive(Debug)]
pub(super) struct Events {
    sockets: OwnedFd,
    outside: OwnedFd,
    waker: Arc<Waker>,
}

/// What an event says of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) peer: u32,
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
}

impl Events {
    pub(super) fn new() -> Result<Self> {
        let failed = |error: Errno| {
            Error::system("cannot make the descriptors for waiting on sockets (see ulimit -n)", error)
        };
        let sockets = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let outside = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let silent = epoll::EventFlags::empty();
        epoll::add(&outside, &sockets, epoll::EventData::new_u64(0), silent).map_err(failed)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
        Ok(Events { sockets, outside, waker: Arc::new(Waker { bell }) })
    }

    /// Watches a peer's socket from now on.
    pub(super) fn add(&self, peer: u32, socket: BorrowedFd<'_>) -> Result<()> {
        epoll::add(&self.sockets, socket, epoll::EventData::new_u64(u64::from(peer)), interest())
            .map_err(|error| Error::system(format!("cannot watch the connection to rank {peer}"), error))
    }

    /// Forgets a socket that has nothing to say any more.
    pub(super) fn remove(&self, socket: BorrowedFd<'_>) {
        if let Err(error) = epoll::delete(&self.sockets, socket) {
            tracing::debug!(target: "ubccl::net", %error, "a closed connection could not be removed from epoll");
        }
    }

    /// Has the event of a socket that was told, but not acted upon, told again.
    pub(super) fn repeat(&self, peer: u32, socket: BorrowedFd<'_>) {
        let data = epoll::EventData::new_u64(u64::from(peer));
        if let Err(error) = epoll::modify(&self.sockets, socket, data, interest()) {
            tracing::debug!(target: "ubccl::net", %error, peer, "a connection could not be watched again");
        }
    }

    /// Tells what happened since it was last asked, without waiting.
    pub(super) fn fetch(&self, mut tell: impl FnMut(Event)) -> Result<()> {
        loop {
            let mut buffer = [MaybeUninit::uninit(); MAX_EVENTS];
            let fetched = match epoll::wait(&self.sockets, &mut buffer[..], Some(&NO_TIME)) {
                Ok((fetched, _)) => fetched,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(Error::system("cannot ask which sockets are ready", error)),
            };
            for event in fetched.iter() {
                let (flags, data) = (event.flags, event.data);
                let ended = epoll::EventFlags::ERR | epoll::EventFlags::HUP | epoll::EventFlags::RDHUP;
                tell(Event {
                    peer: data.u64() as u32,
                    is_readable: flags.intersects(epoll::EventFlags::IN | ended),
                    is_writable: flags.intersects(epoll::EventFlags::OUT | ended),
                });
            }
            if fetched.len() < MAX_EVENTS {
                return Ok(());
            }
        }
    }

    /// Waits until there is something to fetch, or a wake, or `timeout` is over.
    pub(super) fn sleep(&self, timeout: Duration) -> Result<()> {
        let mut both =
            [PollFd::new(&self.sockets, PollFlags::IN), PollFd::new(&self.waker.bell, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut both, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => (),
            Err(error) => return Err(Error::system("cannot wait for sockets", error)),
        }
        if !both[1].revents().is_empty() {
            // Only who sleeps takes the bell's ring; "already taken" is fine.
            let _ = rustix::io::read(&self.waker.bell, &mut [0; 8]);
        }
        Ok(())
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// A descriptor that is readable while there is something to fetch, if it is watched.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.outside.as_fd()
    }

    /// Turns the descriptor on or off.
    pub(super) fn watch(&self, on: bool) {
        let flags = if on { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
        if let Err(error) = epoll::modify(&self.outside, &self.sockets, epoll::EventData::new_u64(0), flags) {
            tracing::warn!(target: "ubccl::net", %error, on, "the descriptor of a tcp endpoint could not be switched");
        }
    }
}

fn interest() -> epoll::EventFlags {
    epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET
}

/// Ends a sleep from another thread.
#[derive(Debug)]
pub(super) struct Waker {
    bell: OwnedFd,
}

impl Wake for Waker {
    fn wake(&self) {
        // It can only be refused when 2^64 − 1 wakes are already waiting.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}
