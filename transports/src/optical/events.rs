//! The queue of events: by time, and within one time in the order they were made.
//!
//! Collectives are symmetric, so many events fall on few times. Events of one time share a bucket, and only times are
//! sorted: pushing is then a look-up, popping a walk along a vector, and the order of creation comes for free.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Events to come.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    times: BinaryHeap<Reverse<(u64, u32)>>,
    buckets: Vec<Vec<Event>>,
    /// The bucket of each time in `times`.
    bucket_of: FixedMap<u32>,
    /// Time and bucket of the last push: the next event likely falls on the same time.
    recent: Option<(u64, u32)>,
    free: Vec<u32>,
}

impl EventQueue {
    /// Bytes of memory it has taken.
    pub(super) fn bytes(&self) -> usize {
        let buckets: usize = self.buckets.iter().map(|bucket| bucket.capacity() * size_of::<Event>()).sum();
        let times = self.times.capacity() * size_of::<Reverse<(u64, u32)>>();
        let map = self.bucket_of.capacity() * (size_of::<(u64, u32)>() + 1);
        buckets + self.buckets.capacity() * size_of::<Vec<Event>>() + times + map
    }

    /// Adds an event; events of one time keep the order of their pushes.
    #[inline]
    pub(super) fn push(&mut self, time_ps: u64, kind: Kind, target: u32) {
        let bucket = match self.recent {
            Some((recent_ps, bucket)) if recent_ps == time_ps => bucket,
            _ => self.find(time_ps),
        };
        self.buckets[bucket as usize].push(Event { kind, target });
    }

    fn find(&mut self, time_ps: u64) -> u32 {
        let Self { times, buckets, bucket_of, free, .. } = self;
        let bucket = *bucket_of.entry(time_ps).or_insert_with(|| {
            let bucket = free.pop().unwrap_or_else(|| {
                buckets.push(Vec::new());
                buckets.len() as u32 - 1
            });
            times.push(Reverse((time_ps, bucket)));
            bucket
        });
        self.recent = Some((time_ps, bucket));
        bucket
    }

    /// Takes the next time at which something happens, and its bucket. Later pushes to the same time make a new one.
    pub(super) fn pop(&mut self) -> Option<(u64, u32)> {
        let Reverse((time_ps, bucket)) = self.times.pop()?;
        self.bucket_of.remove(&time_ps);
        self.recent = self.recent.filter(|recent| recent.0 != time_ps);
        Some((time_ps, bucket))
    }

    /// The next time at which something happens.
    pub(super) fn next_time_ps(&self) -> Option<u64> {
        self.times.peek().map(|time| time.0.0)
    }

    /// The k-th event of a popped bucket.
    #[inline]
    pub(super) fn event(&self, bucket: u32, k: usize) -> Option<Event> {
        self.buckets[bucket as usize].get(k).copied()
    }

    /// Gives a popped bucket back.
    pub(super) fn recycle(&mut self, bucket: u32) {
        self.buckets[bucket as usize].clear();
        self.free.push(bucket);
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
        let mut expected = Vec::new();
        let mut random = 9_u64;
        for target in 0..1000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let time_ps = random >> 58;
            queue.push(time_ps, Kind::Head, target);
            expected.push((time_ps, target));
        }
        expected.sort();
        let mut seen = Vec::new();
        while let Some((time_ps, bucket)) = queue.pop() {
            let targets = (0..).map_while(|k| queue.event(bucket, k)).map(|event| event.target);
            seen.extend(targets.map(|target| (time_ps, target)));
            queue.recycle(bucket);
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_time_that_was_popped_may_come_again() {
        let mut queue = EventQueue::default();
        queue.push(5, Kind::Head, 1);
        let (_, first) = queue.pop().unwrap();
        queue.push(5, Kind::Head, 2);
        assert_eq!(queue.event(first, 1), None, "the popped bucket stays as it was");
        assert_eq!(queue.next_time_ps(), Some(5));
        let (_, second) = queue.pop().unwrap();
        assert_eq!(queue.event(second, 0), Some(Event { kind: Kind::Head, target: 2 }));
        assert_eq!(queue.pop(), None);
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
