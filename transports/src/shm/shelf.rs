//! One rank's publications in its segment: where heads and payloads stand, how they are written and read.
#![allow(unsafe_code)] // entries are raw memory that another process may write at any time

use super::geometry::{Geometry, PublicationShape};
use super::segment::Segment;
use crate::local::label::Label;
use crate::local::publication::{Depth, Spot};
use crate::local::stores::word_at;
use memmap2::Advice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use ubccl_core::kernels;
use ubccl_core::prefetch::prefetch_line;

/// Words of an entry before the payload of a small publication: stamp, signature (low, high), length.
pub(super) const HEADER_BYTES: usize = 32;
/// The word after them says which payload it is, if that stands in a place of its own, and whether reading it is to be timed.
pub(super) const TURN: usize = HEADER_BYTES / 8;
/// The longest payload that stands in the head.
pub(super) const IN_HEAD_BYTES: u64 = (Geometry::PUBLICATION_HEAD - HEADER_BYTES) as u64;

const LINE: usize = 64;
/// The longest payload that stands in the head's first line, with the stamp.
const IN_FIRST_LINE_BYTES: u64 = (LINE - HEADER_BYTES) as u64;
/// The longest payload whose lines are fetched while its stamp is waited for. They are written before it, so they are on their
/// way when it is seen: payloads of 33 to 256 bytes take .87 to .95 of the time, longer ones 1.04. Measured on Zen 4.
const FETCHED_BYTES: u64 = 4 * LINE as u64;

/// One rank's publications. No reference to them is ever formed but to words, which are atomic: a peer that misbehaves
/// can spoil bytes, not more.
#[derive(Debug)]
pub(super) struct Shelf {
    heads: *mut u8,
    shorts: *mut u8,
    payloads: *mut u8,
    finished: *mut u8,
    places: Depth,
    /// From one place to the next.
    stride: usize,
    shape: PublicationShape,
    /// Whether the pages of short payloads, and of long ones, are there for this rank: only what is used takes memory.
    is_populated: [bool; 2],
    /// Keeps the mapping that the pointers point into.
    segment: Arc<Segment>,
}

// SAFETY: the pointers point into a mapping that the Arc keeps alive, and are valid on every thread.
unsafe impl Send for Shelf {}

impl Shelf {
    pub(super) fn new(segment: &Arc<Segment>, geometry: &Geometry) -> Self {
        let shape = geometry.publications();
        Shelf {
            heads: segment.range(Geometry::PUBLICATIONS, geometry.publications_bytes()),
            shorts: segment.range(geometry.shorts(), shape.shorts_bytes()),
            payloads: segment.range(geometry.payloads(), shape.payloads_bytes()),
            finished: segment.range(Geometry::FINISHED, 16),
            places: Depth::new(shape.places),
            stride: shape.stride(),
            shape,
            is_populated: [false; 2],
            segment: segment.clone(),
        }
    }

    /// A payload of so many bytes, that does not stand in the head, is about to be written or read.
    #[inline]
    pub(super) fn populate(&mut self, advice: Advice, len: u64) {
        if !std::mem::replace(&mut self.is_populated[usize::from(takes_a_place(len))], true) {
            let (first, len) = match takes_a_place(len) {
                false => (self.shorts, self.shape.shorts_bytes()),
                true => (self.payloads, self.shape.payloads_bytes()),
            };
            self.segment.populate(advice, first, len);
        }
    }

    /// The longest payload.
    pub(super) fn longest(&self) -> u64 {
        self.shape.longest as u64
    }

    #[inline]
    fn head(&self, spot: Spot) -> *mut u8 {
        self.heads.wrapping_add(spot.entry * Geometry::PUBLICATION_HEAD)
    }

    #[inline]
    pub(super) fn word(&self, spot: Spot, word: usize) -> &AtomicU64 {
        debug_assert!(spot.entry < self.shape.entries && word < Geometry::PUBLICATION_HEAD / 8);
        let address = self.head(spot).cast::<u64>().wrapping_add(word);
        // SAFETY: the entry is below the depth, so the line is inside the range that `new` checked, in a mapping that the
        // Arc keeps alive; heads are multiples of 64 from a page; they are written by atomic operations only, and what is
        // not read by such is copied as bytes when the stamp says that it is whole.
        unsafe { AtomicU64::from_ptr(address) }
    }

    #[inline]
    pub(super) fn finished(&self) -> &AtomicU64 {
        // SAFETY: 16 bytes inside a live mapping (`new`), at a multiple of 64 from a page; atomic on all sides.
        unsafe { AtomicU64::from_ptr(self.finished.cast()) }
    }

    /// Whose it is.
    #[inline]
    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// What reading a timed payload took this rank last, in picoseconds a line.
    #[inline]
    pub(super) fn reading(&self) -> &AtomicU64 {
        // SAFETY: as for `finished`, which has its line to itself but for this.
        unsafe { AtomicU64::from_ptr(self.finished.cast::<u64>().wrapping_add(1)) }
    }

    /// Where the payload of a publication is: `len` usable bytes, whatever its number and turn.
    #[inline]
    pub(super) fn payload(&self, spot: Spot, turn: u64, len: u64) -> *mut u8 {
        if len <= IN_HEAD_BYTES {
            return self.head(spot).wrapping_add(HEADER_BYTES);
        }
        if !takes_a_place(len) {
            return self.shorts.wrapping_add(spot.entry * Geometry::SHORT_STRIDE);
        }
        debug_assert!(len as usize <= self.shape.longest);
        let at = self.places.entry(turn) * self.stride;
        self.payloads.wrapping_add(at + self.places.offset(turn, self.stride, len as usize))
    }

    /// Has the lines of a payload of so many bytes fetched that may be there before the stamp is.
    #[inline]
    pub(super) fn fetch_beside(&self, spot: Spot, len: u64) {
        if len <= IN_FIRST_LINE_BYTES || len > FETCHED_BYTES {
            return;
        }
        let (first, lines) = match len <= IN_HEAD_BYTES {
            true => (self.head(spot).wrapping_add(LINE), 1),
            false => (self.payload(spot, 0, len), (len as usize).div_ceil(LINE)),
        };
        (0..lines).for_each(|line| prefetch_line(first.wrapping_add(line * LINE)));
    }

    /// Which payload a publication that is there has, if it stands in a place of its own.
    #[inline]
    pub(super) fn turn(&self, spot: Spot) -> u64 {
        // Relaxed: ordered by the stamp.
        self.word(spot, TURN).load(Ordering::Relaxed) >> 1
    }

    /// Whether its readers should time their reading of it.
    #[inline]
    pub(super) fn is_timed(&self, spot: Spot) -> bool {
        self.word(spot, TURN).load(Ordering::Relaxed) & 1 == 1
    }

    /// Writes what a publication says of itself, except its stamp. The last word first, here and below: the readers look
    /// at the stamp's line meanwhile, and each time they do the line travels.
    #[inline]
    pub(super) fn write_label(&self, spot: Spot, label: &Label) {
        for word in (1..label.0.len()).rev() {
            self.word(spot, word).store(label.0[word], Ordering::Relaxed);
        }
    }

    /// The same with a payload that stands in the head.
    ///
    /// # Safety
    /// `from` is valid for reads of `len` bytes, at most `IN_HEAD_BYTES`.
    #[inline(always)]
    pub(super) unsafe fn write_all(&self, spot: Spot, label: &Label, from: *const u8, len: usize) {
        for at in (0..len.div_ceil(8)).rev() {
            // SAFETY: the word begins inside the payload, and what is read of it is.
            let value = unsafe { word_at(from.wrapping_add(8 * at), len - 8 * at) };
            self.word(spot, HEADER_BYTES / 8 + at).store(value, Ordering::Relaxed);
        }
        self.write_label(spot, label);
    }

    /// The same of two pieces.
    ///
    /// # Safety
    /// They may be read, and have at most `IN_HEAD_BYTES` together.
    pub(super) unsafe fn write_both(
        &self,
        spot: Spot,
        label: &Label,
        [first, second]: [(*const u8, u64); 2],
    ) {
        let mut both = [0; IN_HEAD_BYTES as usize];
        let (before, after) = both.split_at_mut(first.1 as usize);
        // SAFETY: the caller vouches for the source; the part is as long.
        unsafe { kernels::copy(first.0, before.as_mut_ptr(), before.len()) };
        // SAFETY: the same of the other; together they are at most as long as the array.
        unsafe { kernels::copy(second.0, after.as_mut_ptr(), second.1 as usize) };
        // SAFETY: an array of this function, short enough.
        unsafe { self.write_all(spot, label, both.as_ptr(), (first.1 + second.1) as usize) };
    }

    /// Whether a publication that is there says of itself what `label` does, but for its number. Word by word: to compare
    /// what was loaded and put together again would wait for the stores in between.
    #[inline]
    pub(super) fn says(&self, spot: Spot, label: &Label) -> bool {
        // Relaxed: ordered by the stamp.
        (1..label.0.len()).all(|word| self.word(spot, word).load(Ordering::Relaxed) == label.0[word])
    }

    /// What a publication says of itself; meaningful if it is there.
    #[inline]
    pub(super) fn label(&self, spot: Spot) -> Label {
        // Relaxed: ordered by the stamp.
        let [low, high, len] = [1, 2, 3].map(|word| self.word(spot, word).load(Ordering::Relaxed));
        Label([spot.number << 2, low, high, len])
    }
}

/// Whether a payload of so many bytes stands in a place of its own.
#[inline]
pub(super) fn takes_a_place(len: u64) -> bool {
    len > Geometry::SHORT_PAYLOAD as u64
}
