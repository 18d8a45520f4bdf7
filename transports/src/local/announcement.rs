//! Memory that was announced to be read in place, and is taken back: a count, the epoch, that its owner alone writes.
//!
//! An announcement names the epoch it was made in. The owner counts on before it writes the memory again; a reader looks
//! at the count after it has read. Of these, either the reader sees the new count, or it has read none of what was written
//! later.

use super::atomics::Word;
use std::sync::atomic::Ordering;

/// Takes back everything that was announced so far. What follows, of this thread, may write the memory.
pub(crate) fn take_back<W: Word<u64>>(epoch: &W) {
    // Relaxed: the fence orders it.
    epoch.fetch_add(1, Ordering::Relaxed);
    // SeqCst: partner of the fences in `is_still_there` and `visit::enter`; the count comes before every write that follows, and
    // before the look at visitors.
    W::fence(Ordering::SeqCst);
}

/// Whether what this thread has just read was what had been announced in epoch `then`.
pub(crate) fn is_still_there<W: Word<u64>>(epoch: &W, then: u64) -> bool {
    // SeqCst: partner of the fence in `take_back`; the reads come before the look at the count.
    W::fence(Ordering::SeqCst);
    epoch.load(Ordering::Relaxed) == then
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::local::ring::{Consumer, Producer};
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    /// A channel of one entry, and memory that its messages stay in: a word that both sides may touch at any time.
    struct Shared {
        stamp: AtomicU64,
        consumed: AtomicU64,
        epoch: AtomicU64,
        memory: AtomicU64,
    }

    impl Shared {
        fn new() -> Arc<Self> {
            Arc::new(Shared {
                stamp: AtomicU64::new(0),
                consumed: AtomicU64::new(0),
                epoch: AtomicU64::new(0),
                memory: AtomicU64::new(0),
            })
        }
    }

    /// The owner writes a message, announces it, and writes the next one only when the first has been read.
    #[test]
    fn loom_a_message_is_overwritten_only_when_it_was_read() {
        loom::model(|| {
            let shared = Shared::new();
            let owner = shared.clone();
            let thread = thread::spawn(move || {
                let mut producer = Producer::new(1);
                for value in 1..3 {
                    owner.memory.store(value, Ordering::Relaxed);
                    producer.publish(&owner.stamp);
                    while !producer.is_consumed(value - 1, &owner.consumed).expect("an honest consumer") {
                        thread::yield_now();
                    }
                }
            });
            let mut consumer = Consumer::new(1);
            for value in 1..3 {
                while !consumer.has_entry(&shared.stamp) {
                    thread::yield_now();
                }
                assert_eq!(shared.memory.load(Ordering::Relaxed), value);
                assert!(is_still_there(&shared.epoch, 0));
                consumer.take(&shared.consumed, true);
            }
            thread.join().expect("the owner ends");
        });
    }

    /// The owner takes a message back and at once writes the memory: who has read what was written later finds out.
    #[test]
    fn loom_what_was_taken_back_does_not_count() {
        loom::model(|| {
            let shared = Shared::new();
            let owner = shared.clone();
            let thread = thread::spawn(move || {
                owner.memory.store(1, Ordering::Relaxed);
                Producer::new(1).publish(&owner.stamp);
                take_back(&owner.epoch);
                owner.memory.store(2, Ordering::Relaxed);
            });
            if Consumer::new(1).has_entry(&shared.stamp) {
                let read = shared.memory.load(Ordering::Relaxed);
                assert!(read == 1 || !is_still_there(&shared.epoch, 0), "{read} was read and counted");
            }
            thread.join().expect("the owner ends");
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn what_was_announced_before_is_gone_and_what_comes_after_is_not() {
        let epoch = AtomicU64::new(7);
        assert!(is_still_there(&epoch, 7));
        take_back(&epoch);
        assert!(!is_still_there(&epoch, 7));
        assert!(is_still_there(&epoch, 8));
    }
}
