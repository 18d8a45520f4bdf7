//! The memory of one channel: entries and slots in the sender's segment, the counter in the receiver's.
#![allow(unsafe_code)] // entries and slots are raw memory that another process may write at any time

use super::announcements::Place;
use super::geometry::{ENTRY_BYTES, Geometry, RingShape};
use super::segment::Segment;
use crate::local::label::Label;
use crate::local::scattered::Scattered;
use crate::local::stores::{Stores, clock, per_line, word_at};
use memmap2::Advice;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes that fit into an entry itself.
pub(crate) const INLINE_BYTES: u64 = 24;
/// The word of an entry with a slot that says for how many bites its stamp stands, whether these go round in half of the
/// slots, and whether reading the first is to be timed.
const BITES_WORD: usize = 7;
/// Messages up to this never do. That is known without the entry, for which their payload would wait else.
pub(crate) const NARROWEST_MESSAGE: u64 = 64 << 10;
const IS_TIMED: u64 = 1;
const IS_NARROW: u64 = 2;
const FLAGS: u32 = 2;
/// The word of an announcement that says whose addresses it names.
const SPACE_WORD: usize = 7;
const HEAP: u64 = 0;
const PROCESS: u64 = 1;
const INLINE_OFFSET: usize = ENTRY_BYTES - INLINE_BYTES as usize;

/// The bites of a message that one stamp stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bites {
    /// Entries, each with a bite.
    pub(crate) entries: u64,
    /// Whether they go round in half of the slots.
    pub(crate) is_narrow: bool,
    /// Whether the receiver is to time the first.
    pub(crate) is_timed: bool,
}

/// Where a bite is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    /// The entry whose stamp stands for it.
    pub(crate) first: u64,
    /// Its own entry.
    pub(crate) number: u64,
    /// Whether it goes round in half of the slots.
    pub(crate) is_narrow: bool,
}

/// What an entry carries of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bite {
    pub(crate) bytes: u64,
    /// Whether its receiver is to time it.
    pub(crate) is_timed: bool,
}

/// The memory of one channel. An entry is a line: stamp, label (4 words), payload of a message that fits or where a
/// message is that stays in its sender's heap (`announcements`).
///
/// No reference to it is ever formed but to words, which are atomic: a peer that misbehaves can spoil bytes, not more.
/// Which end may write what, and when, is the ring's business.
#[derive(Debug)]
pub(crate) struct ChannelMemory {
    entries: *mut u8,
    slots: *mut u8,
    consumed: *mut u8,
    slot_bytes: usize,
    slot_stride: usize,
    mask: usize,
    /// Where entries stand. Slots follow one another.
    places: Scattered,
    /// Whether the slots' pages are there for this end: only what is used takes memory.
    is_populated: Cell<bool>,
    /// Keep the mappings that the pointers point into.
    outbox: Arc<Segment>,
    _inbox: Arc<Segment>,
}

// SAFETY: the pointers point into mappings that the Arcs keep alive, and are valid on every thread.
unsafe impl Send for ChannelMemory {}

impl ChannelMemory {
    /// Channel `channel` from rank `from` to rank `to`, whose segments these are.
    pub(crate) fn new(
        geometry: &Geometry,
        channel: usize,
        (from, outbox): (usize, &Arc<Segment>),
        (to, inbox): (usize, &Arc<Segment>),
    ) -> Self {
        let place = geometry.channel(to, channel);
        let RingShape { entries, slot_bytes, slot_stride } = place.shape;
        let count = entries as usize;
        assert!(count.is_power_of_two() && place.entries.is_multiple_of(ENTRY_BYTES));
        ChannelMemory {
            entries: outbox.range(place.entries, count * ENTRY_BYTES),
            slots: outbox.range(place.slots, count * slot_stride),
            consumed: inbox.range(geometry.consumed(from, channel), 24),
            slot_bytes,
            slot_stride,
            mask: count - 1,
            places: Scattered::new(count),
            is_populated: Cell::new(false),
            outbox: outbox.clone(),
            _inbox: inbox.clone(),
        }
    }

    /// Bytes of a slot.
    #[inline]
    pub(crate) fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// The receiver's counter of consumed entries.
    #[inline]
    pub(crate) fn consumed(&self) -> &AtomicU64 {
        // SAFETY: 24 bytes inside a live mapping (`new`), at a multiple of 128 from a page; atomic on all sides.
        unsafe { AtomicU64::from_ptr(self.consumed.cast()) }
    }

    /// What reading a timed entry took the receiver last, in picoseconds a line.
    #[inline]
    fn reading(&self) -> &AtomicU64 {
        // SAFETY: as for `consumed`, which has its line to itself but for this.
        unsafe { AtomicU64::from_ptr(self.consumed.cast::<u64>().wrapping_add(1)) }
    }

    /// What reading a message in its sender's process took the receiver last, in picoseconds a line. 0: it cannot.
    #[inline]
    pub(crate) fn foreign_reading(&self) -> &AtomicU64 {
        // SAFETY: as for `reading`.
        unsafe { AtomicU64::from_ptr(self.consumed.cast::<u64>().wrapping_add(2)) }
    }

    /// Whether the receiver should time its reading of entry `number`, which has a slot and a stamp.
    #[inline]
    pub(crate) fn is_timed(&self, number: u64) -> bool {
        self.word(number, BITES_WORD).load(Ordering::Relaxed) & IS_TIMED != 0
    }

    /// Where, for a receiver, the bite of entry `number` is, for which the stamp of entry `first` stands, of a message of so many
    /// bytes.
    #[inline]
    pub(crate) fn spot(&self, first: u64, number: u64, len: u64) -> Spot {
        let word = || self.word(first, BITES_WORD).load(Ordering::Relaxed);
        let is_narrow = len > NARROWEST_MESSAGE && word() & IS_NARROW != 0;
        Spot { first, number, is_narrow }
    }

    /// Bytes of half of the slots.
    #[inline]
    pub(crate) fn half_bytes(&self) -> usize {
        (self.mask_of(true) + 1) * self.slot_bytes
    }

    /// How many entries the stamp of entry `number` stands for.
    #[inline]
    pub(crate) fn entries(&self, number: u64) -> u64 {
        let len = self.label(number).len();
        if len <= INLINE_BYTES || self.is_announced(number) {
            return 1;
        }
        self.populate(Advice::PopulateRead);
        let stands_for = self.word(number, BITES_WORD).load(Ordering::Relaxed) >> FLAGS;
        stands_for.min(self.up_to_the_end(self.spot(number, number, len)))
    }

    /// How many entries there are from this one to the last of its turn of the ring: a stamp stands for these at most, because
    /// their bites follow one another.
    #[inline]
    pub(crate) fn up_to_the_end(&self, spot: Spot) -> u64 {
        let mask = self.mask_of(spot.is_narrow);
        (mask - (spot.number as usize & mask)) as u64 + 1
    }

    #[inline]
    fn mask_of(&self, is_narrow: bool) -> usize {
        self.mask >> u32::from(is_narrow)
    }

    /// Tells the sender what reading such an entry took.
    #[cold]
    pub(crate) fn tell_reading(&self, took: Duration, bytes: u64) {
        self.reading().store(per_line(took.saturating_sub(clock()), bytes as usize), Ordering::Relaxed);
    }

    /// Tells the sender what reading a message in its process took, or that it can be done.
    pub(crate) fn tell_foreign_reading(&self, line: u64) {
        self.foreign_reading().store(line.max(1), Ordering::Relaxed);
    }

    /// The stamp of entry `number`.
    #[inline]
    pub(crate) fn stamp(&self, number: u64) -> &AtomicU64 {
        self.word(number, 0)
    }

    /// What entry `number` says of its message. Only a stamped entry says anything.
    #[inline]
    pub(crate) fn label(&self, number: u64) -> Label {
        // Relaxed, here and below: ordered by the stamp.
        Label([1, 2, 3, 4].map(|word| self.word(number, word).load(Ordering::Relaxed)))
    }

    /// Where the payload of an entry is, of a message of `len` bytes of which `done` were in earlier entries: as many readable
    /// bytes as are left, `slot_bytes` at most. Bites of one stamp follow one another without a gap: to read memory that is far
    /// in steps that a processor foresees takes half the time. (C model on Zen 4, 512 KiB shown by 64 KiB to a far reader: 47 us
    /// if bites are 512 bytes apart or more, else 24.)
    #[inline]
    pub(crate) fn payload(&self, spot: Spot, len: u64, done: u64) -> *mut u8 {
        let Spot { first, number, is_narrow } = spot;
        if len <= INLINE_BYTES {
            return self.entry(number).wrapping_add(INLINE_OFFSET);
        }
        if number > first {
            debug_assert!(number - first < self.up_to_the_end(Spot { number: first, ..spot }));
            return self.slot(first, is_narrow).wrapping_add((number - first) as usize * self.slot_bytes);
        }
        let bite = (len - done).min(self.slot_bytes as u64) as usize;
        self.slot(number, is_narrow).wrapping_add(self.places.offset(number, self.slot_stride, bite))
    }

    /// Writes what an entry carries, which may be timed if it is the one with the stamp: the bytes of the message from `done` on,
    /// as many as fit.
    ///
    /// # Safety
    /// `message` is valid for reads of `label.len()` bytes, and the entry is the producer's to write.
    #[inline]
    pub(crate) unsafe fn fill(
        &self,
        spot: Spot,
        label: &Label,
        message: *const u8,
        done: u64,
        stores: &mut Stores,
    ) -> Bite {
        if label.len() <= INLINE_BYTES {
            let len = label.len() as usize;
            for at in (0..len.div_ceil(8)).rev() {
                // SAFETY: the word begins inside the message, which the caller vouches for, and what is read of it is.
                let value = unsafe { word_at(message.wrapping_add(8 * at), len - 8 * at) };
                self.word(spot.number, INLINE_OFFSET / 8 + at).store(value, Ordering::Relaxed);
            }
            return Bite { bytes: label.len(), is_timed: false };
        }
        self.populate(Advice::PopulateWrite);
        let bite = (label.len() - done).min(self.slot_bytes as u64);
        let payload = self.payload(spot, label.len(), done);
        let source = message.wrapping_add(done as usize);
        let reading = || self.reading().load(Ordering::Relaxed);
        let is_timed = if spot.number == spot.first {
            // SAFETY: the source is inside the message, which the caller vouches for; the payload has room for the bite, by
            // `min` and `offset`.
            unsafe { stores.copy(source, payload, bite as usize, reading) }
        } else {
            // SAFETY: as above.
            unsafe { stores.copy_on(source, payload, bite as usize) };
            false
        };
        Bite { bytes: bite, is_timed }
    }

    /// Writes what entry `number` says of its message and of the bites that it stands for, all but its stamp. After the
    /// payload and right before the stamp: the receiver looks at this line meanwhile, and each time it does the line
    /// travels.
    #[inline]
    pub(crate) fn write_label(&self, number: u64, label: &Label, bites: Bites) {
        if label.len() > INLINE_BYTES {
            let Bites { entries, is_narrow, is_timed } = bites;
            let flags = u64::from(is_narrow) * IS_NARROW + u64::from(is_timed) * IS_TIMED;
            self.word(number, BITES_WORD).store((entries << FLAGS) + flags, Ordering::Relaxed);
        }
        for (at, value) in (1..).zip(label.0) {
            self.word(number, at).store(value, Ordering::Relaxed);
        }
    }

    /// Writes entry `number`, except its stamp, of a message whose bytes stay where they are: three words say where.
    #[inline]
    pub(crate) fn write_announcement(&self, number: u64, label: &Label, place: Place, epoch: u64) {
        let place = match place {
            Place::Heap { offset } => [offset, epoch, HEAP],
            Place::Process { address } => [address, epoch, PROCESS],
        };
        for (at, value) in (1..).zip(label.0.into_iter().chain(place)) {
            self.word(number, at).store(value, Ordering::Relaxed);
        }
    }

    /// Whether entry `number` is such an announcement.
    #[inline]
    pub(crate) fn is_announced(&self, number: u64) -> bool {
        Label::is_announced(self.word(number, 4).load(Ordering::Relaxed))
    }

    /// Where the message of such an entry is, if that is what it is. A peer may change it at any time.
    #[inline]
    pub(crate) fn announced_place(&self, number: u64) -> Place {
        let [at, space] = [5, SPACE_WORD].map(|word| self.word(number, word).load(Ordering::Relaxed));
        match space {
            PROCESS => Place::Process { address: at },
            _ => Place::Heap { offset: at },
        }
    }

    /// Since which epoch it is there.
    #[inline]
    pub(crate) fn announced_epoch(&self, number: u64) -> u64 {
        self.word(number, 6).load(Ordering::Relaxed)
    }

    /// The slots are about to be used.
    #[inline]
    fn populate(&self, advice: Advice) {
        if !self.is_populated.replace(true) {
            self.outbox.populate(advice, self.slots, (self.mask + 1) * self.slot_stride);
        }
    }

    #[inline]
    fn entry(&self, number: u64) -> *mut u8 {
        self.entries.wrapping_add(self.places.position(number) * ENTRY_BYTES)
    }

    #[inline]
    fn slot(&self, number: u64, is_narrow: bool) -> *mut u8 {
        self.slots.wrapping_add((number as usize & self.mask_of(is_narrow)) * self.slot_stride)
    }

    #[inline]
    fn word(&self, number: u64, word: usize) -> &AtomicU64 {
        debug_assert!(word < 8);
        let address = self.entry(number).cast::<u64>().wrapping_add(word);
        // SAFETY: `entry` masks the number, so the line is inside the range that `new` checked, in a mapping that the
        // Arcs keep alive; lines are aligned to 64; every side touches these words by atomic operations only.
        unsafe { AtomicU64::from_ptr(address) }
    }
}
