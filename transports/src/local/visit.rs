//! Ranks that write in each other's memory. One that does says so in a word of its own, which it alone writes, and looks
//! whether the memory was not taken back (`announcement`) in between; who takes memory back waits until nobody is at work
//! there. Of these, either the visitor sees that it comes too late, or the owner sees the visitor.

use super::atomics::Word;
use std::sync::atomic::Ordering;

/// Begins a visit to memory that was offered, if `is_offered` still; that looks at the owners' epochs.
#[inline]
pub(crate) fn enter<W: Word<u64>>(visiting: &W, is_offered: impl FnOnce() -> bool) -> bool {
    // Relaxed: the fence orders it.
    visiting.store(1, Ordering::Relaxed);
    // SeqCst: partner of the fence in `announcement::take_back`; the word comes before the look at the epochs.
    W::fence(Ordering::SeqCst);
    let may_stay = is_offered();
    if !may_stay {
        leave(visiting);
    }
    may_stay
}

/// Ends it.
#[inline]
pub(crate) fn leave<W: Word<u64>>(visiting: &W) {
    // Release: partner of the acquire in `is_visiting`; what was done there comes first.
    visiting.store(0, Ordering::Release);
}

/// Whether a peer may be at work in memory that this thread has taken back; once it is not, it does not come again.
#[inline]
pub(crate) fn is_visiting<W: Word<u64>>(visiting: &W) -> bool {
    // Acquire: partner of the release in `leave`.
    visiting.load(Ordering::Acquire) != 0
}

#[cfg(all(test, loom))]
#[allow(unsafe_code)] // loom's cells give pointers
mod loom_tests {
    use super::*;
    use crate::local::announcement::{is_still_there, take_back};
    use crate::local::publication::{finish, show, stamp_of};
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    /// Memory that loom guards: a write beside anything else fails the model.
    struct Shared {
        visiting: AtomicU64,
        epoch: AtomicU64,
        memory: UnsafeCell<u64>,
    }

    /// The owner takes its memory back while a visitor comes twice: nobody is there when it writes.
    #[test]
    fn loom_memory_that_was_taken_back_is_its_owners_alone() {
        loom::model(|| {
            let [visiting, epoch] = [0, 0].map(AtomicU64::new);
            let shared = Arc::new(Shared { visiting, epoch, memory: UnsafeCell::new(0) });
            let visitor = shared.clone();
            let thread = thread::spawn(move || {
                for _ in 0..2 {
                    if enter(&visitor.visiting, || visitor.epoch.load(Ordering::Relaxed) == 0) {
                        // SAFETY: loom checks that nobody else is there.
                        visitor.memory.with_mut(|memory| unsafe { *memory += 1 });
                        leave(&visitor.visiting);
                    }
                }
            });
            take_back(&shared.epoch);
            while is_visiting(&shared.visiting) {
                thread::yield_now();
            }
            // SAFETY: as above.
            shared.memory.with_mut(|memory| unsafe { *memory = 7 });
            thread.join().expect("the visitor ends");
            // SAFETY: as above; the other thread is gone.
            assert_eq!(shared.memory.with(|memory| unsafe { *memory }), 7);
        });
    }

    /// One of two ranks: what it shows, and memory of two shares.
    struct Side {
        stamp: AtomicU64,
        finished: AtomicU64,
        visiting: AtomicU64,
        epoch: AtomicU64,
        memory: [UnsafeCell<u64>; 2],
    }

    /// Sums share `me` of both into both, between the offers and the ends.
    fn sum(sides: &[Side; 2], me: usize) {
        let [own, theirs] = [&sides[me], &sides[1 - me]];
        show(1, &own.stamp);
        while stamp_of(&theirs.stamp) < 1 {
            thread::yield_now();
        }
        assert!(enter(&own.visiting, || theirs.epoch.load(Ordering::Relaxed) == 0));
        // SAFETY: loom checks that nobody writes it.
        let read = |side: &Side| side.memory[me].with(|memory| unsafe { *memory });
        let sum = read(own) + read(theirs);
        for side in sides {
            // SAFETY: loom checks that nobody else is there.
            side.memory[me].with_mut(|memory| unsafe { *memory = sum });
        }
        leave(&own.visiting);
        assert!(is_still_there(&theirs.epoch, 0));
        finish(1, &own.finished);
        while theirs.finished.load(Ordering::Acquire) < 1 {
            thread::yield_now();
        }
        for share in &own.memory {
            // SAFETY: as above.
            assert_eq!(share.with(|memory| unsafe { *memory }), 3);
        }
    }

    #[test]
    fn loom_every_rank_has_both_shares_when_both_are_through() {
        loom::model(|| {
            let side = |value: u64| Side {
                stamp: AtomicU64::new(0),
                finished: AtomicU64::new(0),
                visiting: AtomicU64::new(0),
                epoch: AtomicU64::new(0),
                memory: [value, value].map(UnsafeCell::new),
            };
            let sides = Arc::new([side(1), side(2)]);
            let other = sides.clone();
            let thread = thread::spawn(move || sum(&other, 1));
            sum(&sides, 0);
            thread.join().expect("the other rank ends");
        });
    }
}
