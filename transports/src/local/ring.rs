//! The two ends of a ring with one producer and one consumer, in different threads or processes.
//!
//! Entry number i stands at position i mod capacity. It is there once its stamp, a word beside it, is i + 1: stamps only
//! grow, so nothing is ever cleared, and a stamp left over from an earlier turn is a smaller number. A stamp may stand for
//! entries after its own, too, which were written before it and have none; how many is for the entry to say. The producer
//! may reuse a position when the consumer's counter of finished entries, one word that the consumer writes, says so. Both
//! ends keep their own counts in memory of their own and trust nothing that the other side may write.

use super::atomics::Word;
use std::sync::atomic::Ordering;

/// The other side's counter says what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt {
    /// What the counter says.
    pub(crate) consumed: u64,
    /// How many entries were written so far.
    pub(crate) written: u64,
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Producer {
    written: u64,
    consumed: u64,
    capacity: u64,
    /// Entries before this one have half of the ring.
    halved_until: u64,
}

impl Producer {
    pub(crate) fn new(capacity: u32) -> Self {
        Producer { written: 0, consumed: 0, capacity: u64::from(capacity), halved_until: 0 }
    }

    /// The next entries, fewer than the ring has, go round in half of its memory: entry i shares with entry i + half a ring,
    /// too. So no more than half a ring is out at once, from now until all of these are consumed.
    #[inline]
    pub(crate) fn halve(&mut self) {
        self.halved_until = self.written + 2 * self.capacity;
    }

    /// How many entries may be out at once.
    #[inline]
    fn usable(&self) -> u64 {
        if self.written < self.halved_until { self.capacity.div_ceil(2) } else { self.capacity }
    }

    /// Whether the next entry may be written. Looks at the consumer's counter only when its last known value does not
    /// suffice, so that the line travels once per turn of the ring and not once per entry.
    #[inline]
    pub(crate) fn has_room(&mut self, consumed: &impl Word<u64>) -> Result<bool, Corrupt> {
        self.has_room_within(self.usable(), consumed)
    }

    /// The same for a producer that means to keep fewer entries than the ring has.
    #[inline]
    pub(crate) fn has_room_within(
        &mut self,
        entries: u64,
        consumed: &impl Word<u64>,
    ) -> Result<bool, Corrupt> {
        if self.written - self.consumed < entries {
            return Ok(true);
        }
        // Acquire: partner of the release in `Consumer::acknowledge`; the consumer's reads of the entry come first.
        let now = consumed.load(Ordering::Acquire);
        if now < self.consumed || now > self.written {
            return Err(Corrupt { consumed: now, written: self.written });
        }
        self.consumed = now;
        Ok(self.written - now < entries)
    }

    /// Whether the next so many entries may be written.
    #[inline]
    pub(crate) fn has_room_for(&mut self, entries: u64, consumed: &impl Word<u64>) -> Result<bool, Corrupt> {
        match self.usable().checked_sub(entries) {
            Some(others) => self.has_room_within(others + 1, consumed),
            None => Ok(false),
        }
    }

    /// Whether the consumer is through with entry `number`, which was written. Looks at its counter only if that is news.
    #[inline]
    pub(crate) fn is_consumed(&mut self, number: u64, consumed: &impl Word<u64>) -> Result<bool, Corrupt> {
        debug_assert!(number < self.written);
        let unread = self.written - number;
        Ok(self.consumed > number || self.has_room_within(unread, consumed)?)
    }

    /// The number of the next entry.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.written
    }

    /// Hands the next entry, already written, to the consumer.
    #[inline]
    pub(crate) fn publish(&mut self, stamp: &impl Word<u64>) {
        self.publish_all(1, stamp);
    }

    /// The same of so many entries; `stamp` is the first one's.
    #[inline]
    pub(crate) fn publish_all(&mut self, entries: u64, stamp: &impl Word<u64>) {
        let first = self.written + 1;
        self.written += entries;
        // Release: partner of the acquire in `Consumer::has_entry`; the entries' bytes come first.
        stamp.store(first, Ordering::Release);
    }
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Consumer {
    taken: u64,
    /// The last entry that was seen to have a stamp, and up to where it stands for others.
    stamped: u64,
    known: u64,
    acknowledged: u64,
    capacity: u64,
}

impl Consumer {
    pub(crate) fn new(capacity: u32) -> Self {
        Consumer { taken: 0, stamped: u64::MAX, known: 0, acknowledged: 0, capacity: u64::from(capacity) }
    }

    /// The number of the next entry.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.taken
    }

    /// Whether the next entry is there, given the stamp at its position.
    #[inline]
    pub(crate) fn has_entry(&self, stamp: &impl Word<u64>) -> bool {
        // Acquire: partner of the release in `Producer::publish`.
        self.taken < self.known || stamp.load(Ordering::Acquire) == self.taken + 1
    }

    /// The next entry is there: how many it stands for, itself included, as `entries` reads in it if it has a stamp.
    #[inline]
    pub(crate) fn see(&mut self, entries: impl FnOnce() -> u64) {
        if self.taken >= self.known {
            self.stamped = self.taken;
            // Whatever a producer says, it has no more.
            self.known = self.taken + entries().clamp(1, self.capacity);
        }
    }

    /// How many entries from the next one on, which was [seen](Self::see), are there without a look.
    #[inline]
    pub(crate) fn known(&self) -> u64 {
        self.known - self.taken
    }

    /// The entry whose stamp stands for the next one, which was [seen](Self::see).
    #[inline]
    pub(crate) fn stamped(&self) -> u64 {
        self.stamped
    }

    /// Whether the next entry, which was [seen](Self::see), has a stamp of its own; the others say nothing of themselves.
    #[inline]
    pub(crate) fn is_stamped(&self) -> bool {
        self.stamped == self.taken
    }

    /// Is done with the next entry. The producer hears of it at once if `soon`, else when half the ring has gathered:
    /// until then the ring is merely smaller, and a producer that waits has entries before it that wait for a receive.
    /// `true` if it was told.
    #[inline]
    pub(crate) fn take(&mut self, consumed: &impl Word<u64>, soon: bool) -> bool {
        self.take_all(1, consumed, soon)
    }

    /// The same of so many entries. What one stamp stands for is given back together, when the last of it is done with:
    /// these share their memory.
    #[inline]
    pub(crate) fn take_all(&mut self, entries: u64, consumed: &impl Word<u64>, soon: bool) -> bool {
        self.taken += entries;
        let through = if self.taken < self.known { self.stamped } else { self.taken };
        let least = if soon { 1 } else { self.capacity.div_ceil(2) };
        if through < self.acknowledged + least {
            return false;
        }
        self.acknowledged = through;
        // Release: partner of the acquire in `Producer::has_room`.
        consumed.store(through, Ordering::Release);
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn a_counter_that_cannot_be_is_found_and_not_believed() {
        let (stamp, consumed) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut producer = Producer::new(2);
        for _ in 0..2 {
            assert_eq!(producer.has_room(&consumed), Ok(true));
            producer.publish(&stamp);
        }
        assert_eq!(producer.has_room(&consumed), Ok(false));
        consumed.store(3, Ordering::Relaxed);
        assert_eq!(producer.has_room(&consumed), Err(Corrupt { consumed: 3, written: 2 }));
        consumed.store(1, Ordering::Relaxed);
        assert_eq!(producer.has_room(&consumed), Ok(true));
        producer.publish(&stamp);
        consumed.store(0, Ordering::Relaxed);
        assert_eq!(producer.has_room(&consumed), Err(Corrupt { consumed: 0, written: 3 }), "it went back");
    }

    #[test]
    fn a_stamp_of_an_earlier_or_a_later_turn_is_no_entry() {
        let (stamp, consumed) = (AtomicU64::new(1), AtomicU64::new(0));
        let mut consumer = Consumer::new(1);
        assert!(consumer.has_entry(&stamp));
        assert!(consumer.take(&consumed, false), "a ring of one is told at once");
        assert!(!consumer.has_entry(&stamp));
        stamp.store(u64::MAX, Ordering::Relaxed);
        assert!(!consumer.has_entry(&stamp));
    }

    #[test]
    fn a_stamp_stands_for_the_entries_after_it() {
        let (stamps, consumed) = ([(); 4].map(|()| AtomicU64::new(0)), AtomicU64::new(0));
        let (mut producer, mut consumer) = (Producer::new(4), Consumer::new(4));
        producer.publish_all(3, &stamps[0]);
        assert_eq!((producer.next(), producer.has_room_for(2, &consumed)), (3, Ok(false)));
        assert!(consumer.has_entry(&stamps[0]));
        for entry in 0..3 {
            consumer.see(|| 3);
            assert_eq!((consumer.known(), consumer.is_stamped()), (3 - entry, entry == 0));
            assert!(consumer.has_entry(&stamps[entry as usize]), "without a look");
            assert_eq!(consumer.take(&consumed, true), entry == 2, "they are given back together");
            assert_eq!(consumed.load(Ordering::Relaxed), if entry == 2 { 3 } else { 0 });
        }
        assert!(!consumer.has_entry(&stamps[3]), "it stood for three");
        producer.publish(&stamps[3]);
        assert!(consumer.has_entry(&stamps[3]));
        consumer.see(|| u64::MAX);
        assert_eq!(consumer.known(), 4, "no more than the ring has, whatever it says");
    }

    #[test]
    fn half_a_ring_is_out_until_the_last_that_shared_is_consumed() {
        let (stamp, consumed) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut producer = Producer::new(4);
        for _ in 0..3 {
            producer.publish(&stamp);
        }
        producer.halve();
        assert_eq!(producer.has_room(&consumed), Ok(false), "entry 1 shares with entry 3");
        consumed.store(2, Ordering::Relaxed);
        assert_eq!(producer.has_room(&consumed), Ok(true));
        assert_eq!(producer.has_room_for(2, &consumed), Ok(false));
        producer.publish(&stamp);
        // Entry 3 went round in half of the ring: until entry 7 nobody knows whether it is consumed.
        let mut most = 0;
        while producer.next() < 16 {
            match producer.has_room(&consumed).expect("an honest consumer") {
                true => producer.publish(&stamp),
                false => consumed.store(consumed.load(Ordering::Relaxed) + 1, Ordering::Relaxed),
            }
            let out = producer.next() - consumed.load(Ordering::Relaxed);
            assert!(producer.next() > 7 || out <= 2, "{out} are out before entry {}", producer.next());
            most = most.max(out);
        }
        assert_eq!(most, 4, "afterwards all of it is used again");
    }

    #[test]
    fn small_entries_are_acknowledged_by_the_half_ring() {
        let consumed = AtomicU64::new(0);
        let mut consumer = Consumer::new(8);
        let told: Vec<bool> = (0..8).map(|_| consumer.take(&consumed, false)).collect();
        assert_eq!(told, [false, false, false, true, false, false, false, true]);
        assert!(consumer.take(&consumed, true));
        assert_eq!(consumed.load(Ordering::Relaxed), 9);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    struct Shared {
        stamps: [AtomicU64; 2],
        payload: [UnsafeCell<u64>; 2],
        consumed: AtomicU64,
    }

    impl Shared {
        fn new() -> Arc<Self> {
            Arc::new(Shared {
                stamps: [AtomicU64::new(0), AtomicU64::new(0)],
                payload: [UnsafeCell::new(0), UnsafeCell::new(0)],
                consumed: AtomicU64::new(0),
            })
        }
    }

    /// Every entry arrives once, in order and whole; loom itself finds any access of a payload that races.
    fn entries_arrive(soon: bool) {
        loom::model(move || {
            let shared = Shared::new();
            let writer = shared.clone();
            let thread = thread::spawn(move || {
                let mut producer = Producer::new(2);
                for value in 100..103 {
                    while !producer.has_room(&writer.consumed).expect("an honest consumer") {
                        thread::yield_now();
                    }
                    let at = producer.next() as usize % 2;
                    #[expect(unsafe_code, reason = "loom's cells hand out pointers")]
                    // SAFETY: loom checks that nobody else has the cell now.
                    writer.payload[at].with_mut(|payload| unsafe { *payload = value });
                    producer.publish(&writer.stamps[at]);
                }
            });
            let mut consumer = Consumer::new(2);
            for value in 100..103 {
                let at = consumer.next() as usize % 2;
                while !consumer.has_entry(&shared.stamps[at]) {
                    thread::yield_now();
                }
                #[expect(unsafe_code, reason = "loom's cells hand out pointers")]
                // SAFETY: loom checks that nobody writes the cell now.
                shared.payload[at].with(|payload| assert_eq!(unsafe { *payload }, value));
                consumer.take(&shared.consumed, soon);
            }
            thread.join().expect("the writer ends");
        });
    }

    /// One stamp for two entries, and the ring used again behind it.
    #[test]
    fn loom_a_stamp_stands_for_two_entries() {
        loom::model(|| {
            let shared = Shared::new();
            let writer = shared.clone();
            let thread = thread::spawn(move || {
                let mut producer = Producer::new(2);
                for first in [0, 2] {
                    while !producer.has_room_for(2, &writer.consumed).expect("an honest consumer") {
                        thread::yield_now();
                    }
                    for at in 0..2 {
                        #[expect(unsafe_code, reason = "loom's cells hand out pointers")]
                        // SAFETY: loom checks that nobody else has the cell now.
                        writer.payload[at].with_mut(|payload| unsafe { *payload = first + at as u64 });
                    }
                    producer.publish_all(2, &writer.stamps[0]);
                }
            });
            let mut consumer = Consumer::new(2);
            for value in 0..4 {
                let at = consumer.next() as usize % 2;
                while !consumer.has_entry(&shared.stamps[at]) {
                    thread::yield_now();
                }
                consumer.see(|| 2);
                #[expect(unsafe_code, reason = "loom's cells hand out pointers")]
                // SAFETY: loom checks that nobody writes the cell now.
                shared.payload[at].with(|payload| assert_eq!(unsafe { *payload }, value));
                consumer.take(&shared.consumed, false);
            }
            thread.join().expect("the writer ends");
        });
    }

    /// An entry that goes round in half of the ring's memory, between others that do in all of it.
    #[test]
    fn loom_half_of_a_ring_is_shared() {
        const IS_NARROW: [bool; 4] = [false, true, false, false];
        let place = |number: usize| if IS_NARROW[number] { 0 } else { number % 2 };
        loom::model(move || {
            let shared = Shared::new();
            let writer = shared.clone();
            let thread = thread::spawn(move || {
                let mut producer = Producer::new(2);
                for (number, is_narrow) in IS_NARROW.into_iter().enumerate() {
                    if is_narrow {
                        producer.halve();
                    }
                    while !producer.has_room(&writer.consumed).expect("an honest consumer") {
                        thread::yield_now();
                    }
                    #[expect(unsafe_code, reason = "loom's cells hand out pointers")]
                    // SAFETY: loom checks that nobody else has the cell now.
                    writer.payload[place(number)].with_mut(|payload| unsafe { *payload = number as u64 });
                    producer.publish(&writer.stamps[number % 2]);
                }
            });
            let mut consumer = Consumer::new(2);
            for number in 0..IS_NARROW.len() {
                while !consumer.has_entry(&shared.stamps[number % 2]) {
                    thread::yield_now();
                }
                #[expect(unsafe_code, reason = "loom's cells hand out pointers")]
                // SAFETY: loom checks that nobody writes the cell now.
                shared.payload[place(number)].with(|payload| assert_eq!(unsafe { *payload }, number as u64));
                consumer.take(&shared.consumed, false);
            }
            thread.join().expect("the writer ends");
        });
    }

    #[test]
    fn loom_ring_told_at_once() {
        entries_arrive(true);
    }

    #[test]
    fn loom_ring_told_by_the_half() {
        entries_arrive(false);
    }
}
