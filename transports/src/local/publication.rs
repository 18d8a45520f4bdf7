//! A rank's publications: a few entries that it writes and all its peers read.
//!
//! A publication has the sequence number of its operation, counts up, and stands where `Scattered` puts it. It is
//! there once the entry's stamp is its number; stamps only grow, so nothing is ever cleared. Each rank has one more word
//! that it alone writes, `finished`: the last operation whose publications it has read. An entry may be written again once
//! every reader has finished the operation that stood there, which is known
//! - from its `finished`, or
//! - from a publication of its own with a higher number: it began that only when it was through with this one.
//!
//! The second is why ranks that all publish, as in an all-reduce, never look at each other's `finished`.
//! All ends keep their own counts in memory of their own and trust nothing that another side may write.

use super::atomics::Word;
use super::scattered::Scattered;
use std::sync::atomic::Ordering;

/// How many entries each rank has: it may be so many operations ahead of its readers, less one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depth(Scattered);

impl Depth {
    /// So many, which is a power of two and at least 2.
    pub(crate) fn new(entries: usize) -> Self {
        assert!(entries >= 2);
        Depth(Scattered::new(entries))
    }

    /// The entry that operation `number` uses.
    #[inline]
    pub(crate) fn entry(self, number: u64) -> usize {
        self.0.position(number)
    }

    /// Where in its place the payload of operation `number` begins: see [`Scattered::offset`].
    #[inline]
    pub(crate) fn offset(self, number: u64, stride: usize, len: usize) -> usize {
        self.0.offset(number, stride, len)
    }

    fn entries(self) -> usize {
        self.0.positions()
    }
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Author {
    depth: Depth,
    /// What stands in each entry; 0 is nothing.
    held: Vec<u64>,
    /// By rank: all operations up to this one are finished, as far as is known.
    known: Vec<u64>,
}

impl Author {
    pub(crate) fn new(ranks: usize, depth: Depth) -> Self {
        Author { depth, held: vec![0; depth.entries()], known: vec![0; ranks] }
    }

    /// The operation that stands where operation `number` is to be published.
    #[inline]
    pub(crate) fn held(&self, number: u64) -> u64 {
        self.held[self.depth.entry(number)]
    }

    /// Whether `reader` is through with what stands in an entry. Looks at its word only if what is known does not suffice.
    #[inline]
    pub(crate) fn has_finished(&mut self, reader: usize, held: u64, finished: &impl Word<u64>) -> bool {
        if self.known[reader] < held {
            // Acquire: partner of the release in `finish`; the reader's reads of the entry come first.
            self.known[reader] = self.known[reader].max(finished.load(Ordering::Acquire));
        }
        self.known[reader] >= held
    }

    /// Shows the entry of operation `number`, already written, to all.
    #[inline]
    pub(crate) fn publish(&mut self, number: u64, stamp: &impl Word<u64>) {
        let entry = self.depth.entry(number);
        self.held[entry] = number;
        // Release: partner of the acquire in `is_there`; the entry's bytes come first.
        stamp.store(number, Ordering::Release);
    }

    /// A publication of `peer` for operation `number` was seen, by an acquire: it has finished all before.
    #[inline]
    pub(crate) fn saw(&mut self, peer: usize, number: u64) {
        self.known[peer] = self.known[peer].max(number - 1);
    }
}

/// What stands in an entry, for a reader.
#[inline]
pub(crate) fn stamp_of(stamp: &impl Word<u64>) -> u64 {
    // Acquire: partner of the release in `Author::publish`.
    stamp.load(Ordering::Acquire)
}

/// Says that this rank has read all that it needs of operation `number`.
#[inline]
pub(crate) fn finish(number: u64, finished: &impl Word<u64>) {
    // Release: partner of the acquire in `Author::has_finished`.
    finished.store(number, Ordering::Release);
}

#[cfg(all(test, loom))]
#[allow(unsafe_code)] // loom's cells give pointers
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    const DEPTH: u64 = 4;

    fn entry(number: u64) -> usize {
        Depth::new(DEPTH as usize).entry(number)
    }

    /// One rank's words, and a payload that loom guards: a read beside a write fails the model.
    struct Side {
        stamps: [AtomicU64; DEPTH as usize],
        payloads: [UnsafeCell<u64>; DEPTH as usize],
        finished: AtomicU64,
    }

    impl Side {
        fn new() -> Self {
            Side {
                stamps: std::array::from_fn(|_| AtomicU64::new(0)),
                payloads: std::array::from_fn(|_| UnsafeCell::new(0)),
                finished: AtomicU64::new(0),
            }
        }

        fn publish(&self, author: &mut Author, number: u64, reader: usize, theirs: &Side) {
            let held = author.held(number);
            while !author.has_finished(reader, held, &theirs.finished) {
                thread::yield_now();
            }
            self.payloads[entry(number)].with_mut(|payload| {
                // SAFETY: loom checks that nobody else touches it.
                unsafe { *payload = number * 10 }
            });
            author.publish(number, &self.stamps[entry(number)]);
        }

        fn read(&self, number: u64) {
            while stamp_of(&self.stamps[entry(number)]) != number {
                thread::yield_now();
            }
            self.payloads[entry(number)].with(|payload| {
                // SAFETY: loom checks that nobody writes it meanwhile.
                assert_eq!(unsafe { *payload }, number * 10);
            });
        }
    }

    /// One writes, one reads: the writer runs ahead as far as there are entries, and overwrites nothing that is unread.
    #[test]
    fn loom_a_publication_stays_until_its_reader_has_finished() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let sides = Arc::new([Side::new(), Side::new()]);
            let shared = sides.clone();
            // The first two numbers that share an entry, and the one after.
            let numbers = [1, 1 + DEPTH, 2 + DEPTH];
            let writer = thread::spawn(move || {
                let mut author = Author::new(2, Depth::new(4));
                for number in numbers {
                    shared[0].publish(&mut author, number, 1, &shared[1]);
                }
            });
            for number in numbers {
                sides[0].read(number);
                finish(number, &sides[1].finished);
            }
            writer.join().expect("the writer ends");
        });
    }

    /// Both publish and read each other: nobody looks at `finished`, and still nothing unread is overwritten.
    #[test]
    fn loom_who_publishes_the_next_has_finished_the_last() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let sides = Arc::new([Side::new(), Side::new()]);
            let run = |sides: Arc<[Side; 2]>, me: usize| {
                let mut author = Author::new(2, Depth::new(4));
                let never = AtomicU64::new(0);
                for number in [1, 2, 1 + DEPTH] {
                    // By the rule of all ranks publishing, `finished` is never needed.
                    assert!(author.has_finished(1 - me, author.held(number), &never));
                    sides[me].publish(&mut author, number, 1 - me, &sides[1 - me]);
                    sides[1 - me].read(number);
                    author.saw(1 - me, number);
                }
            };
            let shared = sides.clone();
            let other = thread::spawn(move || run(shared, 1));
            run(sides, 0);
            other.join().expect("the other rank ends");
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn an_entry_is_free_when_all_readers_have_finished_what_stands_there() {
        let (stamp, finished) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut author = Author::new(2, Depth::new(4));
        let later = 3 + 4;
        assert!(author.has_finished(1, author.held(3), &finished), "nothing stands there");
        author.publish(3, &stamp);
        assert_eq!((stamp_of(&stamp), author.held(later)), (3, 3));
        assert!(!author.has_finished(1, 3, &finished));
        author.saw(1, 3);
        assert!(!author.has_finished(1, 3, &finished), "it has begun it, not ended it");
        finish(3, &finished);
        assert!(author.has_finished(1, 3, &finished));
        author.publish(later, &stamp);
        author.saw(1, later + 1);
        assert!(author.has_finished(1, later, &AtomicU64::new(0)), "a later publication says the same");
        finished.store(0, Ordering::Relaxed);
        assert!(author.has_finished(1, later, &finished), "what is known stays known");
    }
}
