//! Small inputs that a rank shows to all its peers at once: the memory of `local::publication` in segments, and rounds of
//! them (`Endpoint::direct`).
#![allow(unsafe_code)] // entries are raw memory that another process may write at any time

use super::endpoint::ShmEndpoint;
use super::geometry::{Geometry, PublicationShape};
use super::one_pass::offering;
use super::segment::Segment;
use crate::local::is_there;
use crate::local::label::Label;
use crate::local::publication::{Author, Depth, finish, show, stamp_of};
use crate::local::stores::{Stores, clock, per_line, word_at};
use memmap2::Advice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use ubccl_core::direct::{Direct, DirectLimits, Part};
use ubccl_core::endpoint::{DirectCall, DirectProgress, Fault, Header, HostPointer, Key, Stream};
use ubccl_core::{Error, Rank, Result, kernels};

/// Words of an entry before the payload of a small publication: stamp, signature (low, high), length.
pub(super) const HEADER_BYTES: usize = 32;
/// The word after them says which payload it is, if that stands in a place of its own, and whether reading it is to be timed.
const TURN: usize = HEADER_BYTES / 8;
/// The longest payload that stands in the head.
pub(super) const IN_HEAD_BYTES: u64 = (Geometry::PUBLICATION_HEAD - HEADER_BYTES) as u64;

/// The longest payload that beats messages which are read part by part while they are written. Measured on Zen 4.
const LONGEST_ONE_WAY: u64 = 32 << 10;

/// One rank's publications. No reference to them is ever formed but to words, which are atomic: a peer that misbehaves
/// can spoil bytes, not more.
#[derive(Debug)]
pub(super) struct Shelf {
    heads: *mut u8,
    shorts: *mut u8,
    payloads: *mut u8,
    finished: *mut u8,
    entries: Depth,
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
    fn new(segment: &Arc<Segment>, geometry: &Geometry) -> Self {
        let shape = geometry.publications();
        Shelf {
            heads: segment.range(Geometry::PUBLICATIONS, geometry.publications_bytes()),
            shorts: segment.range(geometry.shorts(), shape.shorts_bytes()),
            payloads: segment.range(geometry.payloads(), shape.payloads_bytes()),
            finished: segment.range(Geometry::FINISHED, 16),
            entries: Depth::new(shape.entries),
            places: Depth::new(shape.places),
            stride: shape.stride(),
            shape,
            is_populated: [false; 2],
            segment: segment.clone(),
        }
    }

    /// A payload of so many bytes is about to be written or read.
    #[inline]
    fn populate(&mut self, advice: Advice, len: u64) {
        if len > IN_HEAD_BYTES
            && !std::mem::replace(&mut self.is_populated[usize::from(takes_a_place(len))], true)
        {
            let (first, len) = match takes_a_place(len) {
                false => (self.shorts, self.shape.shorts_bytes()),
                true => (self.payloads, self.shape.payloads_bytes()),
            };
            self.segment.populate(advice, first, len);
        }
    }

    #[inline]
    fn head(&self, number: u64) -> *mut u8 {
        self.heads.wrapping_add(self.entries.entry(number) * Geometry::PUBLICATION_HEAD)
    }

    #[inline]
    pub(super) fn word(&self, number: u64, word: usize) -> &AtomicU64 {
        debug_assert!(word < Geometry::PUBLICATION_HEAD / 8);
        let address = self.head(number).cast::<u64>().wrapping_add(word);
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
    fn reading(&self) -> &AtomicU64 {
        // SAFETY: as for `finished`, which has its line to itself but for this.
        unsafe { AtomicU64::from_ptr(self.finished.cast::<u64>().wrapping_add(1)) }
    }

    /// Where the payload of publication `number` is: `len` usable bytes, whatever the number and the turn.
    #[inline]
    fn payload(&self, number: u64, turn: u64, len: u64) -> *mut u8 {
        if len <= IN_HEAD_BYTES {
            return self.head(number).wrapping_add(HEADER_BYTES);
        }
        if !takes_a_place(len) {
            return self.shorts.wrapping_add(self.entries.entry(number) * Geometry::SHORT_STRIDE);
        }
        debug_assert!(len as usize <= self.shape.longest);
        let at = self.places.entry(turn) * self.stride;
        self.payloads.wrapping_add(at + self.places.offset(turn, self.stride, len as usize))
    }

    /// Which payload a publication that is there has, if it stands in a place of its own.
    #[inline]
    fn turn(&self, number: u64) -> u64 {
        // Relaxed: ordered by the stamp.
        self.word(number, TURN).load(Ordering::Relaxed) >> 1
    }

    /// Whether its readers should time their reading of it.
    #[inline]
    fn is_timed(&self, number: u64) -> bool {
        self.word(number, TURN).load(Ordering::Relaxed) & 1 == 1
    }

    /// Writes what a publication says of itself, except its stamp. The last word first, here and below: the readers look
    /// at the stamp's line meanwhile, and each time they do the line travels.
    #[inline]
    fn write_label(&self, number: u64, label: &Label) {
        for word in (1..label.0.len()).rev() {
            self.word(number, word).store(label.0[word], Ordering::Relaxed);
        }
    }

    /// The same with a payload that stands in the head.
    ///
    /// # Safety
    /// `from` is valid for reads of `len` bytes, at most `IN_HEAD_BYTES`.
    #[inline]
    unsafe fn write_all(&self, number: u64, label: &Label, from: *const u8, len: usize) {
        for at in (0..len.div_ceil(8)).rev() {
            // SAFETY: the word begins inside the payload, and what is read of it is.
            let value = unsafe { word_at(from.wrapping_add(8 * at), len - 8 * at) };
            self.word(number, HEADER_BYTES / 8 + at).store(value, Ordering::Relaxed);
        }
        self.write_label(number, label);
    }

    /// Whether a publication that is there says of itself what `label` does, but for its number. Word by word: to compare
    /// what was loaded and put together again would wait for the stores in between.
    #[inline]
    fn says(&self, number: u64, label: &Label) -> bool {
        // Relaxed: ordered by the stamp.
        (1..label.0.len()).all(|word| self.word(number, word).load(Ordering::Relaxed) == label.0[word])
    }

    /// What a publication says of itself; meaningful if it is there.
    #[inline]
    fn label(&self, number: u64) -> Label {
        // Relaxed: ordered by the stamp.
        let [low, high, len] = [1, 2, 3].map(|word| self.word(number, word).load(Ordering::Relaxed));
        Label([number << 2, low, high, len])
    }
}

/// The shelves of all ranks, and what this rank knows of its own.
#[derive(Debug)]
pub(crate) struct Publications {
    pub(super) shelves: Vec<Shelf>,
    author: Author,
    /// By rank: which payload its next one is, as far as is known. A payload's lines are fetched from where it is expected
    /// while the head is still on its way.
    turns: Vec<u64>,
    /// How payloads are written.
    stores: Stores,
    /// The operation and peer that a round got stuck at: a sleeper looks there.
    awaited: Option<Awaited>,
    /// How ranks show each other where their buffers are (`one_pass`).
    pub(super) offering: Arc<Direct>,
}

#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// The peer's publication of an operation.
    Publication(usize, u64),
    /// The peer's being through with one.
    End(usize, u64),
}

impl Publications {
    /// Of the ranks with these segments, for `rank`.
    pub(crate) fn new<'a>(
        rank: usize,
        geometry: &Geometry,
        segments: impl Iterator<Item = &'a Arc<Segment>>,
    ) -> Self {
        let shelves: Vec<_> = segments.map(|segment| Shelf::new(segment, geometry)).collect();
        let shape = geometry.publications();
        let author = Author::new(shelves.len(), Depth::new(shape.entries), Depth::new(shape.places));
        Publications {
            author,
            turns: vec![0; shelves.len()],
            offering: Arc::new(offering(rank, shelves.len())),
            shelves,
            stores: Stores::new(shape.places as u32),
            awaited: None,
        }
    }

    /// The longest publications.
    pub(crate) fn limits(&self) -> DirectLimits {
        let exchange = self.shelves.first().map_or(0, |shelf| shelf.shape.longest as u64);
        DirectLimits { any: exchange.min(LONGEST_ONE_WAY), exchange }
    }

    pub(crate) fn clear(&mut self) {
        self.awaited = None;
    }

    /// Whether a peer is through with a publication; if not, that is what is waited for.
    pub(super) fn has_ended(&mut self, peer: usize, number: u64) -> bool {
        let has_ended = self.author.has_finished(peer, number, self.shelves[peer].finished());
        self.awaited = (!has_ended).then_some(Awaited::End(peer, number));
        has_ended
    }

    /// Whether what a round waits for has come.
    pub(crate) fn has_news(&mut self) -> bool {
        match self.awaited {
            None => false,
            Some(Awaited::Publication(peer, number)) => {
                stamp_of(self.shelves[peer].word(number, 0)) >= number
            }
            Some(Awaited::End(peer, held)) => {
                self.author.has_finished(peer, held, self.shelves[peer].finished())
            }
        }
    }
}

impl ShmEndpoint {
    /// See `Endpoint::direct`.
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub(crate) unsafe fn run_direct(
        &mut self,
        key: &Key,
        call: &DirectCall<'_>,
        progress: &mut DirectProgress,
    ) -> Result<bool, Fault> {
        let Stream::Collective(number) = key.stream else {
            return Err(Error::internal("a round of publications is a collective").into());
        };
        let label = label_of(key, call);
        let reads_first = call.direct.reads_first;
        if !reads_first && !progress.written {
            // SAFETY: the caller vouches for the input.
            if !unsafe { self.write(number, &label, call, call.input) } {
                return Ok(false);
            }
            progress.written = true;
            self.show(number, call);
        }
        if !self.all_are_there(number, &label, call, progress)? {
            return Ok(false);
        }
        let takes_a_place = takes_a_place(longest_bytes(call));
        if takes_a_place {
            self.expect(number, &call.direct.writers);
        }
        let start = (takes_a_place && self.any_is_timed(number, &call.direct.writers)).then(Instant::now);
        // SAFETY: the caller vouches for both buffers; every writer's publication is there.
        unsafe { self.make(number, call) }?;
        if let Some(start) = start {
            self.tell_reading(start.elapsed(), call);
        }
        if reads_first {
            // SAFETY: the caller vouches for the output, which was made.
            if !unsafe { self.write(number, &label, call, call.output) } {
                return Err(
                    Error::internal("who has published is through with what was published before").into()
                );
            }
            progress.written = true;
            self.show(number, call);
        }
        if takes_a_place {
            let turns = &mut self.publications.turns;
            call.direct
                .writers
                .iter()
                .for_each(|&writer| turns[writer as usize] = turns[writer as usize].wrapping_add(1));
        }
        finish(number, self.publications.shelves[self.rank].finished());
        self.count_direct(call);
        Ok(true)
    }

    /// Writes what this rank shows where its peers are going to read it, if they are through with what stands there.
    ///
    /// # Safety
    /// What is shown, the call's input or its output, may be read.
    #[inline]
    pub(super) unsafe fn write(
        &mut self,
        number: u64,
        label: &Label,
        call: &DirectCall<'_>,
        shown: HostPointer,
    ) -> bool {
        if call.direct.readers.is_empty() {
            return true;
        }
        let Publications { shelves, author, stores, awaited, .. } = &mut self.publications;
        let [first, second] = pieces(self.rank, call, shown);
        let len = first.1 + second.1;
        if let Some((reader, held)) =
            author.waits_for(number, takes_a_place(len), |reader| shelves[reader].finished())
        {
            *awaited = Some(Awaited::End(reader, held));
            return false;
        }
        author.take(number, &call.direct.readers);
        shelves[self.rank].populate(Advice::PopulateWrite, len);
        let shelf = &shelves[self.rank];
        if len > IN_HEAD_BYTES {
            let mut turn = 0;
            if takes_a_place(len) {
                turn = author.take_place(number, &call.direct.readers);
            }
            let (mut payload, mut is_timed) = (shelf.payload(number, turn, len), false);
            let reading = || {
                let readings = call.direct.readers.iter().map(|&reader| shelves[reader as usize].reading());
                readings.map(|reading| reading.load(Ordering::Relaxed)).max().unwrap_or(0)
            };
            for (from, len) in [first, second] {
                if len > 0 {
                    // SAFETY: the caller vouches for the source; the payload has room for what is in the limit, which
                    // `label_of` and the caller's choice of this way keep; it is this rank's to write, since its readers are
                    // through.
                    is_timed |= unsafe { stores.copy(from, payload, len as usize, reading) };
                    payload = payload.wrapping_add(len as usize);
                }
            }
            stores.settle();
            if takes_a_place(len) {
                shelf.word(number, TURN).store(turn << 1 | u64::from(is_timed), Ordering::Relaxed);
            }
            shelf.write_label(number, label);
        } else if first.1 == 0 || second.1 == 0 {
            let from = if first.1 > 0 { first.0 } else { second.0 };
            // SAFETY: as above, and it is short enough.
            unsafe { shelf.write_all(number, label, from, len as usize) };
        } else {
            let mut both = [0; IN_HEAD_BYTES as usize];
            let (before, after) = both.split_at_mut(first.1 as usize);
            // SAFETY: the caller vouches for the source; the part is as long.
            unsafe { kernels::copy(first.0, before.as_mut_ptr(), before.len()) };
            // SAFETY: the same of the other; together they are at most as long as the array.
            unsafe { kernels::copy(second.0, after.as_mut_ptr(), second.1 as usize) };
            // SAFETY: an array of this function, short enough.
            unsafe { shelf.write_all(number, label, both.as_ptr(), len as usize) };
        }
        true
    }

    /// Shows what was written.
    #[inline]
    pub(super) fn show(&mut self, number: u64, call: &DirectCall<'_>) {
        if !call.direct.readers.is_empty() {
            show(number, self.publications.shelves[self.rank].word(number, 0));
            self.bells.ring_at(&call.direct.readers);
        }
    }

    /// Whether every writer's publication is there. Goes on where it got stuck last time.
    #[inline]
    pub(super) fn all_are_there(
        &mut self,
        number: u64,
        label: &Label,
        call: &DirectCall<'_>,
        progress: &mut DirectProgress,
    ) -> Result<bool, Fault> {
        let Publications { shelves, author, awaited, .. } = &mut self.publications;
        while let Some(&writer) = call.direct.writers.get(progress.ready as usize) {
            let peer = writer as usize;
            let word = shelves[peer].word(number, 0);
            if !(0..call.looks).any(|look| is_there(look, || stamp_of(word) >= number)) {
                *awaited = Some(Awaited::Publication(peer, number));
                return Ok(false);
            }
            let stamp = stamp_of(word);
            if stamp > number || !shelves[peer].says(number, label) {
                return Err(mismatch(writer, stamp, &shelves[peer].label(number), label));
            }
            author.saw(peer, number);
            shelves[peer].populate(Advice::PopulateRead, label.len());
            progress.ready += 1;
        }
        *awaited = None;
        Ok(true)
    }

    /// Puts right what is expected of publications that are there: a rank has not read all of the others' payloads.
    #[inline]
    fn expect(&mut self, number: u64, writers: &[Rank]) {
        let Publications { shelves, turns, .. } = &mut self.publications;
        for &writer in writers {
            let turn = shelves[writer as usize].turn(number);
            if turn != turns[writer as usize] {
                put_right(turns, writer, turn);
            }
        }
    }

    #[inline]
    fn any_is_timed(&self, number: u64, writers: &[Rank]) -> bool {
        writers.iter().any(|&writer| self.publications.shelves[writer as usize].is_timed(number))
    }

    /// Tells the writers what making the output of their publications took.
    #[cold]
    fn tell_reading(&self, took: Duration, call: &DirectCall<'_>) {
        let own = |part: &&Part| matches!(part, Part::Copy { from, .. } if *from as usize == self.rank);
        let blocks = call.direct.parts.iter().filter(|part| !own(part)).count();
        let line = per_line(took.saturating_sub(clock()), blocks * call.block_bytes as usize);
        self.publications.shelves[self.rank].reading().store(line, Ordering::Relaxed);
    }

    /// Makes the output of what is there.
    ///
    /// # Safety
    /// The call's buffers are as it says, and all that it reads of others has been published.
    #[inline]
    unsafe fn make(&mut self, number: u64, call: &DirectCall<'_>) -> Result<(), Fault> {
        let len = call.block_bytes as usize;
        for part in &call.direct.parts {
            match *part {
                Part::Copy { from, at, into } => {
                    let source = self.block_of(from as usize, number, call, at);
                    let into = pointer(call.output, into * call.block_bytes);
                    // SAFETY: the caller vouches for the destination and the own input; a publication is apart. In place
                    // they are the same block or apart.
                    unsafe { kernels::copy_fresh(source, into, len) };
                }
                Part::Fold { at, into } => {
                    self.pointers.0.clear();
                    for rank in 0..self.ranks {
                        let source = self.block_of(rank, number, call, at);
                        self.pointers.0.push(source);
                    }
                    let into = pointer(call.output, into * call.block_bytes);
                    let op = call.direct.op.expect("only kinds with an operation fold");
                    let (dtype, sources) = (call.direct.dtype, &self.pointers.0);
                    // SAFETY: as above; in place, this rank's own block is the destination itself.
                    unsafe { kernels::reduce(dtype, op, sources, into, len / dtype.size()) }?;
                }
            }
        }
        Ok(())
    }

    /// Block `at` of what a rank brings: the own input, or what another published.
    #[inline]
    fn block_of(&self, rank: usize, number: u64, call: &DirectCall<'_>, at: u64) -> *const u8 {
        if rank == self.rank {
            return pointer(call.input, at * call.block_bytes);
        }
        let offset = call.direct.place(rank as Rank, at) * call.block_bytes;
        let Publications { shelves, turns, .. } = &self.publications;
        // The label says how long the longest publication is; every rank that publishes has as much.
        let payload = shelves[rank].payload(number, turns[rank], longest_bytes(call));
        payload.wrapping_add(offset as usize)
    }

    /// Counts what the plan's messages would have been; of a barrier, those that it comes to here.
    #[inline]
    fn count_direct(&mut self, call: &DirectCall<'_>) {
        let len = if call.direct.carries { call.block_bytes } else { 0 };
        for &reader in &call.direct.readers {
            self.outgoing[reader as usize * self.channels].counters.sent(len);
        }
        for &writer in &call.direct.writers {
            self.incoming[writer as usize * self.channels].counters.received(len);
        }
        self.bells.ring_at(&call.direct.writers); // they may wait for this rank's end
    }
}

/// What every publication of a call says of itself.
#[inline]
pub(super) fn label_of(key: &Key, call: &DirectCall<'_>) -> Label {
    Label::new(key, longest_bytes(call))
}

/// A byte of a caller's buffer.
#[inline]
fn pointer(HostPointer(address): HostPointer, offset: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address + offset as usize)
}

/// Whether a payload of so many bytes stands in a place of its own.
#[inline]
fn takes_a_place(len: u64) -> bool {
    len > Geometry::SHORT_PAYLOAD as u64
}

#[inline]
fn longest_bytes(call: &DirectCall<'_>) -> u64 {
    call.direct.longest * call.block_bytes
}

/// What a rank publishes of what it shows: two pieces, either of which may be empty.
#[inline]
fn pieces(rank: usize, call: &DirectCall<'_>, shown: HostPointer) -> [(*const u8, u64); 2] {
    let (before, after) = call.direct.published(rank as Rank);
    let piece = |at: u64, blocks: u64| {
        (pointer(shown, at * call.block_bytes).cast_const(), blocks * call.block_bytes)
    };
    [piece(0, before), piece(before + 1, after)]
}

/// Apart, so that no compiler makes the branch an assignment: then every payload would wait for its head.
#[cold]
#[inline(never)]
fn put_right(turns: &mut [u64], writer: Rank, turn: u64) {
    turns[writer as usize] = turn;
}

#[cold]
fn mismatch(peer: Rank, stamp: u64, theirs: &Label, ours: &Label) -> Fault {
    let Header { signature, len, .. } = theirs.header();
    let theirs = Header { stream: Stream::Collective(stamp), signature, len };
    Fault::Mismatch { peer, theirs, ours: ours.header() }
}
