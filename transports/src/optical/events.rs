//! The queue of events: by time, and within one time in the order they were made.
//!
//! Most events are made for times later than most others: pushing them appends to a list, popping walks along the sorted
//! part of them, and what comes soon can be told.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    /// The last byte of a send has left its rank. Target: the send.
    Injected = 1,
    /// The first byte of a message reaches the receiver's port. Target: the message.
    Head = 2,
    /// A message is there, all of it. Target: the message.
    Arrived = 3,
    /// A copy or reduction is over. Target: the receive (or copy).
    Computed = 4,
    /// A rank dies. Target: the rank.
    Died = 5,
    /// The others may know that a rank died. Target: the rank.
    Detected = 6,
    /// The first byte of a message leaves its rank (where it is timed as a flow). Target: the message.
    Begun = 7,
    /// The last byte of one of a send's messages has left its rank (of a flow); never in the queue.
    Left = 8,
    /// A time that a rank waits for. Target: the rank.
    Alarm = 9,
    /// A rank that stood still goes on. Target: the rank.
    Resumed = 10,
}

/// Something that will happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: Kind,
    pub(super) target: u32,
}

/// An event with its place in the order of all.
#[derive(Clone, Copy, Debug)]
struct Timed {
    time_ps: u64,
    number: u64,
    event: Event,
}

impl Timed {
    /// Time and number as one number, which is compared without branches.
    #[inline]
    fn order(&self) -> u128 {
        u128::from(self.time_ps) << 64 | u128::from(self.number)
    }
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

/// Events to come. Those of the next while lie in buckets of equal lengths of time, which are sorted one by one as they
/// come near.
#[derive(Debug)]
pub(super) struct EventQueue {
    /// Up to this time all are in `near`, in order from `head` on, or in `late`. One of the two holds something if anything
    /// is to come.
    near_until_ps: u64,
    near: Vec<Timed>,
    head: usize,
    /// Those that were made when `near` was sorted that far.
    late: BinaryHeap<Reverse<Timed>>,
    /// What comes up to this time, by the length of time since `origin_ps`; the bucket `next` is sorted next.
    buckets_until_ps: u64,
    buckets: [Vec<Timed>; BUCKETS],
    origin_ps: u64,
    shift: u32,
    next: usize,
    /// All after that.
    far: Vec<Timed>,
    pushed: u64,
}

const BUCKETS: usize = 128;
/// So many events are sorted ahead, if there are as many: hints look at them.
const LEAST_SORTED: usize = 64;
/// So many that are over are kept before the rest is moved to their place.
const MOST_OVER: usize = 1024;

impl Default for EventQueue {
    fn default() -> Self {
        EventQueue {
            near_until_ps: 0,
            near: Vec::new(),
            head: 0,
            late: BinaryHeap::new(),
            buckets_until_ps: 0,
            buckets: [const { Vec::new() }; BUCKETS],
            origin_ps: 0,
            shift: 0,
            next: 0,
            far: Vec::new(),
            pushed: 0,
        }
    }
}

impl EventQueue {
    /// Bytes of memory it has taken.
    pub(super) fn bytes(&self) -> usize {
        let buckets: usize = self.buckets.iter().map(Vec::capacity).sum();
        let events = self.near.capacity() + self.late.capacity() + buckets + self.far.capacity();
        events * size_of::<Timed>()
    }

    /// Adds an event; events of one time keep the order of their pushes.
    #[inline]
    pub(super) fn push(&mut self, time_ps: u64, kind: Kind, target: u32) {
        let timed = Timed { time_ps, number: self.pushed, event: Event { kind, target } };
        self.pushed += 1;
        if time_ps <= self.near_until_ps {
            return self.late.push(Reverse(timed));
        }
        if time_ps <= self.buckets_until_ps {
            let bucket = (time_ps - self.origin_ps) >> self.shift;
            return self.buckets[bucket as usize].push(timed);
        }
        self.far.push(timed);
        if !self.has_sorted() {
            self.sort_further();
        }
    }

    /// Sorts the next ones, if there are any, until enough are sorted.
    fn sort_further(&mut self) {
        while self.near.len() - self.head < LEAST_SORTED {
            if self.near_until_ps < self.buckets_until_ps {
                self.sort_bucket();
            } else if self.far.len() < LEAST_SORTED && (self.far.is_empty() || self.has_sorted()) {
                return;
            } else {
                self.fill_buckets();
            }
        }
    }

    #[inline]
    fn has_sorted(&self) -> bool {
        self.head < self.near.len() || !self.late.is_empty()
    }

    fn sort_bucket(&mut self) {
        let bucket = &mut self.buckets[self.next];
        bucket.sort_unstable();
        if self.head > MOST_OVER {
            self.near.drain(..self.head);
            self.head = 0;
        }
        self.near.append(bucket);
        self.next += 1;
        let last_ps = (self.next as u64).checked_shl(self.shift).unwrap_or(0).wrapping_sub(1);
        self.near_until_ps = self.buckets_until_ps.min(self.origin_ps.saturating_add(last_ps));
    }

    /// Puts the first ones of those that are far off, most of them, into buckets. What is left may be much further.
    fn fill_buckets(&mut self) {
        let Self { far, buckets, .. } = self;
        let most = far.len() - far.len() / 4 - 1;
        let (before, last, _) = far.select_nth_unstable_by_key(most, |timed| timed.time_ps);
        let until_ps = last.time_ps;
        let origin_ps = before.iter().map(|timed| timed.time_ps).min().unwrap_or(until_ps);
        // One bucket, if they are few.
        let bits = u64::BITS - (until_ps - origin_ps).leading_zeros();
        let kept = if most < LEAST_SORTED { 0 } else { BUCKETS.ilog2() };
        let shift = bits.saturating_sub(kept);
        for timed in far.extract_if(.., |timed| timed.time_ps <= until_ps) {
            let bucket = (timed.time_ps - origin_ps).checked_shr(shift).unwrap_or(0);
            buckets[bucket as usize].push(timed);
        }
        (self.origin_ps, self.shift, self.next) = (origin_ps, shift, 0);
        self.buckets_until_ps = until_ps;
    }

    /// Moves all events of the next time to `out`, in their order. Later pushes to the same time come at another call.
    pub(super) fn take_next(&mut self, out: &mut Vec<Event>) -> Option<u64> {
        let now_ps = self.next_time_ps()?;
        while let Some(timed) = self.near.get(self.head).filter(|timed| timed.time_ps == now_ps) {
            out.push(timed.event);
            self.head += 1;
        }
        // What is late was made after all that is near.
        while self.late.peek().is_some_and(|timed| timed.0.time_ps == now_ps) {
            out.extend(self.late.pop().map(|timed| timed.0.event));
        }
        self.sort_further();
        Some(now_ps)
    }

    /// The next time at which something happens.
    #[inline]
    pub(super) fn next_time_ps(&self) -> Option<u64> {
        match (self.near.get(self.head), self.late.peek()) {
            (Some(near), Some(late)) => Some(near.time_ps.min(late.0.time_ps)),
            (near, late) => near.or(late.map(|late| &late.0)).map(|timed| timed.time_ps),
        }
    }

    /// The k-th event from the next one on, as far as that is known already: for hints.
    #[inline]
    pub(super) fn coming(&self, k: usize) -> Option<Event> {
        self.near.get(self.head + k).map(|timed| timed.event)
    }
}

/// A map whose hash is the same in every process.
pub(super) type FixedMap<V> = HashMap<u64, V, BuildHasherDefault<Multiply>>;

/// Hashes one 64-bit number by a multiplication; the maps here have such keys only.
#[derive(Debug, Default)]
pub(super) struct Multiply(u64);

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

/// The link of an event that happens on none.
pub(super) const NO_LINK: u8 = u8::MAX;

/// The order-sensitive hash over all events. Part of what users compare: never change it silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventHash(u64);

impl EventHash {
    pub(super) fn new() -> Self {
        EventHash(0x243f_6a88_85a3_08d3)
    }

    #[inline]
    pub(super) fn event(&mut self, time_ps: u64, kind: Kind, rank: u32, link: u8, bytes: u64) {
        self.fold(time_ps);
        self.fold(u64::from(rank) << 32 | u64::from(link) << 8 | kind as u64);
        self.fold(bytes);
    }

    #[inline]
    fn fold(&mut self, word: u64) {
        let product = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_in_order_of_creation() {
        let mut queue = EventQueue::default();
        let (mut expected, mut seen, mut out) = (Vec::new(), Vec::new(), Vec::new());
        let mut random = 9_u64;
        let mut push = |queue: &mut EventQueue, expected: &mut Vec<_>, from_ps: u64, target| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let time_ps = from_ps + (random >> 58) * if random >> 30 & 7 == 0 { 1000 } else { 1 };
            queue.push(time_ps, Kind::Head, target);
            expected.push((time_ps, target));
        };
        (0..1000).for_each(|target| push(&mut queue, &mut expected, 0, target));
        // Events make others, at once or later.
        let mut made = 1000;
        while let Some(time_ps) = queue.take_next(&mut out) {
            assert!(!out.is_empty());
            seen.extend(out.drain(..).map(|event| (time_ps, event.target)));
            for _ in 0..2 * u32::from(made < 3000) {
                push(&mut queue, &mut expected, time_ps, made);
                made += 1;
            }
        }
        // Stable: numbers were given in the order of creation.
        expected.sort();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_time_that_was_taken_may_come_again() {
        let (mut queue, mut out) = (EventQueue::default(), Vec::new());
        for target in 1..=2 {
            for time_ps in [5, u64::MAX] {
                queue.push(time_ps, Kind::Head, target);
            }
            assert_eq!((queue.take_next(&mut out), out.len()), (Some(5), 1), "what is pushed later stays");
            assert_eq!(out.pop(), Some(Event { kind: Kind::Head, target }));
        }
        assert_eq!((queue.next_time_ps(), queue.take_next(&mut out)), (Some(u64::MAX), Some(u64::MAX)));
        assert_eq!((out.len(), queue.take_next(&mut out)), (2, None));
    }

    #[test]
    fn the_hash_covers_every_field_and_the_order() {
        let hash = |events: &[(u64, Kind, u32, u8, u64)]| {
            let mut hash = EventHash::new();
            events
                .iter()
                .for_each(|&(time, kind, rank, link, bytes)| hash.event(time, kind, rank, link, bytes));
            hash.value()
        };
        let one = (1, Kind::Head, 2, 0, 8);
        let others = [
            (2, Kind::Head, 2, 0, 8),
            (1, Kind::Arrived, 2, 0, 8),
            (1, Kind::Head, 3, 0, 8),
            (1, Kind::Head, 2, 1, 8),
            (1, Kind::Head, 2, 0, 9),
        ];
        for other in others {
            assert_ne!(hash(&[one]), hash(&[other]));
            assert_ne!(hash(&[one, other]), hash(&[other, one]));
        }
        // A fixed value: the hash is the same on every machine and in every build.
        assert_eq!(hash(&[one]), 18_109_948_893_533_619_924);
    }
}
