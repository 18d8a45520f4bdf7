//! Signals: a count for each pair of ranks in memory that both address. One rank adds to it, the other reads it.
//!
//! Whoever reads a total that a signal is part of sees what was written before that signal. A sleeper raises its flag,
//! then looks at the count once more (`Endpoint::sleep_unless`); a signaller adds, then reads the flag
//! (`Endpoint::notify`): the order of entries and doorbell, with the count in the place of a stamp.

use super::atomics::Word;
use std::sync::atomic::Ordering;

/// Signals `by`, after everything that was written before.
#[inline]
pub(crate) fn add<W: Word<u64>>(count: &W, by: u64) {
    // Release: partner of the acquire in `total`; what was written comes first. Adding keeps what several threads of the
    // rank have written before their signals in one release sequence.
    count.fetch_add(by, Ordering::Release);
}

/// What was signalled so far; what was written before those signals can be read afterwards.
#[inline]
pub(crate) fn total<W: Word<u64>>(count: &W) -> u64 {
    count.load(Ordering::Acquire)
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::local::doorbell::{ASLEEP, Doorbell};
    use crate::local::fences::Fences;
    use loom::sync::atomic::{AtomicU32, AtomicU64};
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    /// An element for each signaller, its count, and the sleeper's doorbell with a futex made of a lock.
    #[derive(Default)]
    struct Shared {
        elements: [AtomicU64; 2],
        counts: [AtomicU64; 2],
        rings: AtomicU32,
        flags: AtomicU32,
        kernel: Mutex<()>,
        woken: Condvar,
    }

    impl Shared {
        fn bell(&self) -> Doorbell<'_, AtomicU32> {
            Doorbell { rings: &self.rings, flags: &self.flags }
        }

        fn put_and_signal(&self, rank: usize, value: u64) {
            self.elements[rank].store(value, Ordering::Relaxed);
            add(&self.counts[rank], 1);
            Fences::Symmetric.of_writer::<u32, AtomicU32>();
            if self.bell().claim() & ASLEEP != 0 {
                let _kernel = self.kernel.lock().expect("no poison");
                self.woken.notify_all();
            }
        }

        /// As a wait in a window does. Loom reports a sleep that nobody ends.
        fn wait_signal(&self, from: usize, wanted: u64) {
            let mut heard = self.bell().heard();
            while total(&self.counts[from]) < wanted {
                self.bell().raise(ASLEEP, Fences::Symmetric).expect("a fence does not fail");
                if total(&self.counts[from]) < wanted {
                    self.sleep(heard);
                }
                self.bell().lower(ASLEEP);
                heard = self.bell().heard();
            }
        }

        fn sleep(&self, heard: u32) {
            let kernel = self.kernel.lock().expect("no poison");
            if self.rings.load(Ordering::Relaxed) == heard {
                drop(self.woken.wait(kernel).expect("no poison"));
            }
        }
    }

    fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(check);
    }

    #[test]
    fn loom_a_signal_wakes_a_sleeper_that_then_sees_what_was_put() {
        model(8, || {
            let shared = Arc::new(Shared::default());
            let signaller = shared.clone();
            let thread = thread::spawn(move || signaller.put_and_signal(0, 7));
            shared.wait_signal(0, 1);
            assert_eq!(shared.elements[0].load(Ordering::Relaxed), 7);
            thread.join().expect("the signaller ends");
        });
    }

    /// The ring of one signaller may be all that wakes a rank that waits for another.
    #[test]
    fn loom_two_signallers_wake_who_waits_for_one_after_the_other() {
        model(3, || {
            let shared = Arc::new(Shared::default());
            let signal = |rank: usize| {
                let signaller = shared.clone();
                thread::spawn(move || signaller.put_and_signal(rank, 7 + rank as u64))
            };
            let threads = [signal(0), signal(1)];
            for rank in [1, 0] {
                shared.wait_signal(rank, 1);
                assert_eq!(shared.elements[rank].load(Ordering::Relaxed), 7 + rank as u64);
            }
            threads.into_iter().for_each(|thread| thread.join().expect("a signaller ends"));
        });
    }

    /// Two threads of a rank signal the same peer: who sees both sees what both have put.
    #[test]
    fn loom_the_total_of_two_threads_of_a_rank_orders_both() {
        model(3, || {
            let shared = Arc::new(Shared::default());
            let put = |at: usize| {
                let thread = shared.clone();
                thread::spawn(move || {
                    thread.elements[at].store(1, Ordering::Relaxed);
                    add(&thread.counts[0], 1);
                })
            };
            let threads = [put(0), put(1)];
            if total(&shared.counts[0]) == 2 {
                assert!(shared.elements.iter().all(|element| element.load(Ordering::Relaxed) == 1));
            }
            threads.into_iter().for_each(|thread| thread.join().expect("a thread ends"));
        });
    }
}
