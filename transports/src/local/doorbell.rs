//! How a rank that sleeps is woken by the ranks that write to it.
//!
//! Each rank has two words in its own segment: `flags` says that it sleeps or that its descriptor is watched, `rings`
//! counts rings and is what the futex compares. A writer publishes, passes a fence, then reads the flags; a sleeper
//! raises its flag, passes a fence, then looks for entries once more. One of the two sees the other, whatever the
//! order. The writer that takes the flag down rings, the others may pass by: the sleeper wakes anyway and looks at all.

use super::atomics::Word;
use super::fences::Fences;
use std::sync::atomic::Ordering;
use ubccl_core::Result;

/// The rank waits on the futex.
pub(crate) const ASLEEP: u32 = 1;
/// The rank's descriptor is watched.
pub(crate) const WATCHED: u32 = 2;

/// The two words.
pub(crate) struct Doorbell<'a, W> {
    /// Counts rings.
    pub(crate) rings: &'a W,
    /// Who has to be rung: [`ASLEEP`], [`WATCHED`].
    pub(crate) flags: &'a W,
}

impl<W: Word<u32>> Doorbell<'_, W> {
    /// The flags that the caller has to serve now, after [`Fences::of_writer`]: with [`ASLEEP`] wake the futex, with
    /// [`WATCHED`] signal the descriptor. Nearly always none, at the price of one load.
    #[inline]
    pub(crate) fn claim(&self) -> u32 {
        match self.flags.load(Ordering::Relaxed) {
            0 => 0,
            flags => self.take_down(flags),
        }
    }

    #[cold]
    fn take_down(&self, flags: u32) -> u32 {
        if flags & ASLEEP == 0 || !self.take_over() {
            return flags & WATCHED;
        }
        // Before the wake, so that a sleeper that is on its way into the kernel finds another number and stays out.
        self.rings.fetch_add(1, Ordering::Release);
        flags & (ASLEEP | WATCHED)
    }

    /// Takes down the flag of a sleeper; `true` if it was up, and waking the futex is therefore the caller's job.
    fn take_over(&self) -> bool {
        // Relaxed: the flag carries nothing; what the sleeper reads after waking is guarded by the stamps.
        self.flags.fetch_and(!ASLEEP, Ordering::Relaxed) & ASLEEP != 0
    }

    /// Rings from another thread: the current or the next sleep ends, even one that has not begun. The answer is as
    /// for [`Doorbell::claim`].
    pub(crate) fn ring(&self) -> u32 {
        self.rings.fetch_add(1, Ordering::Release);
        // SeqCst: as `Fences::of_writer`, whoever pays.
        W::fence(Ordering::SeqCst);
        let watched = self.flags.load(Ordering::Relaxed) & WATCHED;
        if self.take_over() { watched | ASLEEP } else { watched }
    }

    /// What the sleeper does before it looks for entries a last time and waits.
    pub(crate) fn raise(&self, flag: u32, fences: Fences) -> Result<()> {
        self.flags.fetch_or(flag, Ordering::Relaxed);
        fences.of_sleeper::<u32, W>()
    }

    /// What the sleeper does when it is awake.
    pub(crate) fn lower(&self, flag: u32) {
        self.flags.fetch_and(!flag, Ordering::Relaxed);
    }

    /// The count of rings.
    pub(crate) fn heard(&self) -> u32 {
        self.rings.load(Ordering::Acquire)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::local::ring::{Consumer, Producer};
    use loom::sync::atomic::{AtomicU32, AtomicU64};
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    /// The doorbell, one ring entry per writer, and a futex made of a lock.
    struct Shared {
        rings: AtomicU32,
        flags: AtomicU32,
        stamps: [AtomicU64; 2],
        kernel: Mutex<()>,
        woken: Condvar,
    }

    impl Shared {
        fn new() -> Arc<Self> {
            Arc::new(Shared {
                rings: AtomicU32::new(0),
                flags: AtomicU32::new(0),
                stamps: [AtomicU64::new(0), AtomicU64::new(0)],
                kernel: Mutex::new(()),
                woken: Condvar::new(),
            })
        }

        fn bell(&self) -> Doorbell<'_, AtomicU32> {
            Doorbell { rings: &self.rings, flags: &self.flags }
        }

        fn futex_wake(&self) {
            let _kernel = self.kernel.lock().expect("no poison");
            self.woken.notify_all();
        }

        fn futex_wait(&self, heard: u32) {
            let kernel = self.kernel.lock().expect("no poison");
            if self.rings.load(Ordering::Relaxed) == heard {
                drop(self.woken.wait(kernel).expect("no poison"));
            }
        }

        fn publish(&self, writer: usize) {
            Producer::new(1).publish(&self.stamps[writer]);
            Fences::Symmetric.of_writer::<u32, AtomicU32>();
            if self.bell().claim() & ASLEEP != 0 {
                self.futex_wake();
            }
        }

        /// Sleeps, as an endpoint does, until every writer's entry is there. Loom reports a sleep nobody ends.
        fn sleep_until_all(&self, writers: usize) {
            let consumer = Consumer::new(1);
            let mut heard = 0;
            let mut seen = 0;
            let count = || self.stamps[..writers].iter().filter(|stamp| consumer.has_entry(*stamp)).count();
            while seen < writers {
                self.bell().raise(ASLEEP, Fences::Symmetric).expect("a fence does not fail");
                if count() == seen {
                    self.futex_wait(heard);
                }
                self.bell().lower(ASLEEP);
                heard = self.bell().heard();
                seen = count();
            }
        }
    }

    fn no_wake_is_lost(writers: usize, preemptions: usize) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(move || {
            let shared = Shared::new();
            let threads: Vec<_> = (0..writers)
                .map(|writer| {
                    let shared = shared.clone();
                    thread::spawn(move || shared.publish(writer))
                })
                .collect();
            shared.sleep_until_all(writers);
            threads.into_iter().for_each(|thread| thread.join().expect("a writer ends"));
        });
    }

    #[test]
    fn loom_no_wake_is_lost_with_one_writer() {
        no_wake_is_lost(1, 8);
    }

    #[test]
    fn loom_no_wake_is_lost_with_two_writers() {
        no_wake_is_lost(2, 3);
    }

    #[test]
    fn loom_a_ring_ends_the_current_or_the_next_sleep() {
        loom::model(|| {
            let shared = Shared::new();
            let ringer = shared.clone();
            let thread = thread::spawn(move || {
                if ringer.bell().ring() & ASLEEP != 0 {
                    ringer.futex_wake();
                }
            });
            shared.bell().raise(ASLEEP, Fences::Symmetric).expect("a fence does not fail");
            shared.futex_wait(0);
            shared.bell().lower(ASLEEP);
            assert_eq!(shared.bell().heard(), 1, "it ended by the ring, which ends no second sleep");
            thread.join().expect("the ringer ends");
        });
    }
}
