//! Waking ranks and being woken: the doorbell's protocol with a real futex and a real descriptor behind it.

use super::doorbell::{ASLEEP, Doorbell, WATCHED};
use super::fences::Fences;
use super::queue::Bits;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::thread::{Timespec, futex};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use ubccl_core::endpoint::Wake;
use ubccl_core::{Error, Rank, Result};

/// Where the words of a doorbell are: in a segment, or in this process's own memory.
pub(crate) trait Words: Send + Sync {
    /// The words.
    fn doorbell(&self) -> Doorbell<'_, AtomicU32>;
}

/// What it takes to wake one rank: its doorbell and its descriptor.
#[derive(Debug)]
pub(crate) struct Bell<W> {
    words: Arc<W>,
    descriptor: OwnedFd,
}

impl<W: Words> Bell<W> {
    pub(crate) fn new(words: Arc<W>, descriptor: OwnedFd) -> Self {
        Bell { words, descriptor }
    }

    /// The words.
    #[inline]
    pub(crate) fn doorbell(&self) -> Doorbell<'_, AtomicU32> {
        self.words.doorbell()
    }

    /// Where the words are.
    pub(crate) fn place(&self) -> &Arc<W> {
        &self.words
    }

    /// Wakes the rank if it sleeps or is watched. A writer calls it behind a fence.
    #[inline(always)]
    fn ring_if_needed(&self) {
        let flags = self.doorbell().claim();
        if flags != 0 {
            self.serve(flags);
        }
    }

    #[cold]
    fn serve(&self, flags: u32) {
        if flags & ASLEEP != 0 {
            // Perhaps shared between processes, hence no PRIVATE. A wake cannot fail on a mapped word, and a sleeper that
            // misses one still has its timeout.
            let _ = futex::wake(self.doorbell().rings, futex::Flags::empty(), i32::MAX as u32);
        }
        if flags & WATCHED != 0 {
            self.signal();
        }
    }

    /// Makes the descriptor readable.
    pub(crate) fn signal(&self) {
        // The only refusal is a counter at its limit, which is readable already.
        let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable.
    pub(crate) fn silence(&self) {
        // The only refusal is that it is unreadable already.
        let _ = rustix::io::read(&self.descriptor, &mut [0; 8]);
    }

    /// Sleeps until a ring after the `heard`-th, or the time is up.
    pub(crate) fn wait(&self, heard: u32, timeout: Duration) -> Result<()> {
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        match futex::wait(self.doorbell().rings, futex::Flags::empty(), heard, Some(&timeout)) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => Ok(()),
            Err(errno) => Err(Error::system("sleeping on a futex refused (allow it in the sandbox)", errno)),
        }
    }
}

impl<W> AsFd for Bell<W> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl<W: Words> Wake for Bell<W> {
    fn wake(&self) {
        let flags = self.doorbell().ring();
        self.serve(flags);
    }
}

/// A descriptor for a bell.
pub(crate) fn descriptor(rank: u32) -> Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| {
        Error::system(format!("rank {rank}: eventfd refused (raise the limit of open files)"), errno)
    })
}

/// The bells of all peers and which of them a post or poll has given news.
#[derive(Debug)]
pub(crate) struct Bells<W> {
    bells: Vec<Arc<Bell<W>>>,
    news: Bits,
    any: bool,
    fences: Fences,
}

impl<W: Words> Bells<W> {
    pub(crate) fn new(bells: Vec<Arc<Bell<W>>>, fences: Fences) -> Self {
        let news = Bits::new(bells.len());
        Bells { bells, news, any: false, fences }
    }

    /// Who pays for the order between publishing and waking.
    pub(crate) fn fences(&self) -> Fences {
        self.fences
    }

    /// Something was published for this rank.
    #[inline]
    pub(crate) fn mark(&mut self, rank: usize) {
        self.news.insert(rank);
        self.any = true;
    }

    /// Wakes one whatever it does.
    pub(crate) fn wake(&self, rank: usize) {
        self.bells[rank].wake();
    }

    /// Wakes those among these that sleep. One fence serves them all.
    #[inline(always)]
    pub(crate) fn ring_at(&self, ranks: &[Rank]) {
        if !ranks.is_empty() {
            self.fences.of_writer::<u32, AtomicU32>();
            for &rank in ranks {
                self.bells[rank as usize].ring_if_needed();
            }
        }
    }

    /// Wakes those among the marked that sleep. One fence serves them all.
    #[inline]
    pub(crate) fn ring(&mut self) {
        if !self.any {
            return;
        }
        self.any = false;
        self.fences.of_writer::<u32, AtomicU32>();
        let mut from = 0;
        while let Some(rank) = self.news.next(from) {
            self.news.remove(rank);
            self.bells[rank].ring_if_needed();
            from = rank + 1;
        }
    }
}
