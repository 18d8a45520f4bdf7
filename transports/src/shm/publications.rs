//! Small inputs that a rank shows to all its peers at once: the memory of `local::publication` in segments, and rounds of
//! them (`Endpoint::direct`).
#![allow(unsafe_code)] // entries are raw memory that another process may write at any time

use super::endpoint::ShmEndpoint;
use super::geometry::Geometry;
use super::segment::Segment;
use crate::local::label::Label;
use crate::local::publication::{Author, Depth, finish, stamp_of};
use crate::local::stores::Stores;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use ubccl_core::direct::Part;
use ubccl_core::endpoint::{DirectCall, DirectProgress, Fault, Header, Key, Span, Stream};
use ubccl_core::{Error, Rank, Result, kernels};

/// Words of an entry before the payload of a small publication: stamp, signature (low, high), length.
const HEADER_BYTES: usize = 32;
/// The longest payload that stands in the head.
const IN_HEAD_BYTES: u64 = (Geometry::PUBLICATION_HEAD - HEADER_BYTES) as u64;

/// One rank's publications. No reference to them is ever formed but to words, which are atomic: a peer that misbehaves
/// can spoil bytes, not more.
#[derive(Debug)]
struct Shelf {
    heads: *mut u8,
    payloads: *mut u8,
    finished: *mut u8,
    depth: Depth,
    /// Keeps the mapping that the pointers point into.
    _segment: Arc<Segment>,
}

// SAFETY: the pointers point into a mapping that the Arc keeps alive, and are valid on every thread.
unsafe impl Send for Shelf {}

impl Shelf {
    fn new(segment: &Arc<Segment>, geometry: &Geometry) -> Self {
        Shelf {
            heads: segment.range(Geometry::PUBLICATIONS, geometry.publications_bytes()),
            payloads: segment.range(geometry.payloads(), geometry.depth() * Geometry::PUBLICATION_STRIDE),
            finished: segment.range(Geometry::FINISHED, 8),
            depth: Depth::new(geometry.depth()),
            _segment: segment.clone(),
        }
    }

    #[inline]
    fn head(&self, number: u64) -> *mut u8 {
        self.heads.wrapping_add(self.depth.entry(number) * Geometry::PUBLICATION_HEAD)
    }

    #[inline]
    fn word(&self, number: u64, word: usize) -> &AtomicU64 {
        debug_assert!(word < HEADER_BYTES / 8);
        let address = self.head(number).cast::<u64>().wrapping_add(word);
        // SAFETY: the entry is below the depth, so the line is inside the range that `new` checked, in a mapping that the Arc
        // keeps alive; heads are multiples of 64 from a page; every side touches these words by atomic operations only.
        unsafe { AtomicU64::from_ptr(address) }
    }

    #[inline]
    fn finished(&self) -> &AtomicU64 {
        // SAFETY: 8 bytes inside a live mapping (`new`), at a multiple of 64 from a page; atomic on all sides.
        unsafe { AtomicU64::from_ptr(self.finished.cast()) }
    }

    /// Where the payload of a publication of `len` bytes is: `len` readable bytes, if `len` is in the limit.
    #[inline]
    fn payload(&self, number: u64, len: u64) -> *mut u8 {
        if len <= IN_HEAD_BYTES {
            return self.head(number).wrapping_add(HEADER_BYTES);
        }
        let at = self.depth.entry(number) * Geometry::PUBLICATION_STRIDE;
        self.payloads.wrapping_add(at + self.depth.offset(number, Geometry::PUBLICATION_STRIDE, len as usize))
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
    shelves: Vec<Shelf>,
    author: Author,
    /// How payloads are written.
    stores: Stores,
    /// The operation and peer that a round got stuck at: a sleeper looks there.
    awaited: Option<Awaited>,
}

#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// The peer's publication of an operation.
    Publication(usize, u64),
    /// The peer's being through with one.
    End(usize, u64),
}

impl Publications {
    /// Of the ranks with these segments.
    pub(crate) fn new<'a>(geometry: &Geometry, segments: impl Iterator<Item = &'a Arc<Segment>>) -> Self {
        let shelves: Vec<_> = segments.map(|segment| Shelf::new(segment, geometry)).collect();
        let author = Author::new(shelves.len(), Depth::new(geometry.depth()));
        Publications { author, shelves, stores: Stores::default(), awaited: None }
    }

    pub(crate) fn clear(&mut self) {
        self.awaited = None;
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
    #[inline]
    pub(crate) fn run_direct(
        &mut self,
        key: &Key,
        call: &DirectCall<'_>,
        progress: &mut DirectProgress,
    ) -> Result<bool, Fault> {
        let Stream::Collective(number) = key.stream else {
            return Err(Error::internal("a round of publications is a collective").into());
        };
        let label = label_of(key, call);
        if !progress.published {
            if !self.publish(number, &label, call)? {
                return Ok(false);
            }
            progress.published = true;
        }
        if !self.all_are_there(number, &label, call, progress)? {
            return Ok(false);
        }
        self.make(number, call)?;
        finish(number, self.publications.shelves[self.rank].finished());
        self.count_direct(call);
        Ok(true)
    }

    /// Writes this rank's input where its peers read it, if they are through with what stands there.
    #[inline]
    fn publish(&mut self, number: u64, label: &Label, call: &DirectCall<'_>) -> Result<bool, Fault> {
        if call.direct.readers.is_empty() {
            return Ok(true);
        }
        let Publications { shelves, author, stores, awaited } = &mut self.publications;
        if let Some((reader, held)) = author.waits_for(number, |reader| shelves[reader].finished()) {
            *awaited = Some(Awaited::End(reader, held));
            return Ok(false);
        }
        let shelf = &shelves[self.rank];
        for (at, value) in (1..).zip(&label.0[1..]) {
            shelf.word(number, at).store(*value, Ordering::Relaxed);
        }
        let len = published_bytes(call);
        if len > 0 {
            let from = self.memory.address(Span { len, ..call.input })?;
            // SAFETY: `address` checked the source; the payload has room for what is in the limit, which `label_of` and
            // the caller's choice of this way keep; the entry is this rank's to write, since its readers are through.
            unsafe { stores.copy(from, shelf.payload(number, len), len as usize, || 0) };
        }
        author.publish(number, &call.direct.readers, shelf.word(number, 0));
        call.direct.readers.iter().for_each(|&reader| self.bells.mark(reader as usize));
        self.bells.ring();
        Ok(true)
    }

    /// Whether every writer's publication is there. Goes on where it got stuck last time.
    #[inline]
    fn all_are_there(
        &mut self,
        number: u64,
        label: &Label,
        call: &DirectCall<'_>,
        progress: &mut DirectProgress,
    ) -> Result<bool, Fault> {
        let Publications { shelves, author, awaited, .. } = &mut self.publications;
        while let Some(&writer) = call.direct.writers.get(progress.ready as usize) {
            let peer = writer as usize;
            let stamp = stamp_of(shelves[peer].word(number, 0));
            if stamp < number {
                *awaited = Some(Awaited::Publication(peer, number));
                return Ok(false);
            }
            let theirs = shelves[peer].label(number);
            if stamp > number || theirs != *label {
                return Err(mismatch(writer, stamp, &theirs, label));
            }
            author.saw(peer, number);
            progress.ready += 1;
        }
        *awaited = None;
        Ok(true)
    }

    /// Makes the output of what is there.
    #[inline]
    fn make(&mut self, number: u64, call: &DirectCall<'_>) -> Result<(), Fault> {
        let len = call.block_bytes;
        let span = |base: Span, block: u64| Span { offset: base.offset + block * len, len, ..base };
        for part in &call.direct.parts {
            self.pointers.0.clear();
            match *part {
                Part::Copy { from, at, into } => {
                    let source = self.block_of(from as usize, number, call, at)?;
                    let into = self.memory.address(span(call.output, into))?;
                    // SAFETY: `address` checked the destination, `block_of` the source: of this rank's own input, or of
                    // a publication, which is apart. In place they are the same block or apart.
                    unsafe { kernels::copy(source, into, len as usize) };
                }
                Part::Fold { at, into } => {
                    for rank in 0..self.ranks {
                        let source = self.block_of(rank, number, call, at)?;
                        self.pointers.0.push(source);
                    }
                    let op = call.direct.op.expect("only kinds with an operation fold");
                    let fold = (call.direct.dtype, op);
                    // SAFETY: as above; in place, this rank's own block is the destination itself.
                    unsafe { self.memory.reduce(fold, &self.pointers.0, span(call.output, into)) }?;
                }
            }
        }
        self.pointers.0.clear();
        Ok(())
    }

    /// Block `at` of what a rank brings: the own input, or what another published.
    #[inline]
    fn block_of(&self, rank: usize, number: u64, call: &DirectCall<'_>, at: u64) -> Result<*const u8, Fault> {
        let (offset, len) = (at * call.block_bytes, call.block_bytes);
        if rank == self.rank {
            let offset = call.input.offset + offset;
            return Ok(self.memory.address(Span { offset, len, ..call.input })?);
        }
        // The label says how long the longest publication is; every rank that publishes has as much.
        let published = call.direct.longest * call.block_bytes;
        Ok(self.publications.shelves[rank].payload(number, published).wrapping_add(offset as usize))
    }

    /// Counts what the plan's messages would have been.
    #[inline]
    fn count_direct(&mut self, call: &DirectCall<'_>) {
        let len = if call.direct.carries { call.block_bytes } else { 0 };
        for &reader in &call.direct.readers {
            self.outgoing[reader as usize * self.channels].counters.sent(len);
        }
        for &writer in &call.direct.writers {
            self.incoming[writer as usize * self.channels].counters.received(len);
            self.bells.mark(writer as usize); // it may wait for this rank's end
        }
        self.bells.ring();
    }
}

/// What every publication of a call says of itself.
#[inline]
fn label_of(key: &Key, call: &DirectCall<'_>) -> Label {
    Label::new(key, call.direct.longest * call.block_bytes)
}

#[inline]
fn published_bytes(call: &DirectCall<'_>) -> u64 {
    call.direct.input * call.block_bytes
}

#[cold]
fn mismatch(peer: Rank, stamp: u64, theirs: &Label, ours: &Label) -> Fault {
    let Header { signature, len, .. } = theirs.header();
    let theirs = Header { stream: Stream::Collective(stamp), signature, len };
    Fault::Mismatch { peer, theirs, ours: ours.header() }
}
