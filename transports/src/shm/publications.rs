//! Small inputs that a rank shows to all its peers at once: rounds of publications (`Endpoint::direct`), each on its rank's
//! shelf.
#![allow(unsafe_code)] // hands callers' memory on

use super::endpoint::ShmEndpoint;
use super::geometry::Geometry;
use super::one_pass::offering;
use super::segment::Segment;
use super::shelf::{IN_HEAD_BYTES, Shelf, TURN, takes_a_place};
use crate::local::is_there;
use crate::local::label::Label;
use crate::local::publication::{Author, Depth, Spot, finish, show, stamp_of};
use crate::local::stores::{Stores, clock, per_line};
use memmap2::Advice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use ubccl_core::direct::{Direct, DirectLimits, Part};
use ubccl_core::endpoint::{DirectCall, DirectProgress, Fault, Header, HostPointer, Key, Stream};
use ubccl_core::{Error, Rank, Result, kernels};

/// The longest payload that beats messages which are read part by part while they are written. Measured on Zen 4.
const LONGEST_ONE_WAY: u64 = 32 << 10;

/// The shelves of all ranks, and what this rank knows of its own.
#[derive(Debug)]
pub(crate) struct Publications {
    pub(super) shelves: Vec<Shelf>,
    pub(super) author: Author,
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
    Publication(usize, Spot),
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
        let exchange = self.shelves.first().map_or(0, |shelf| shelf.longest());
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
            Some(Awaited::Publication(peer, spot)) => {
                stamp_of(self.shelves[peer].word(spot, 0)) >= spot.number
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
        meanwhile: &mut dyn FnMut(),
    ) -> Result<bool, Fault> {
        let Stream::Collective(number) = key.stream else {
            return Err(Error::internal("a round of publications is a collective").into());
        };
        let (spot, label) = (self.publications.author.spot(number), label_of(key, call));
        let reads_first = call.direct.reads_first;
        if !reads_first && !progress.written {
            // SAFETY: the caller vouches for the input.
            if !unsafe { self.write(spot, &label, call, call.input) } {
                return Ok(false);
            }
            progress.written = true;
            self.show(spot, call);
            self.count_shown(call);
        }
        meanwhile();
        if !self.all_are_there(spot, &label, call, progress)? {
            return Ok(false);
        }
        let takes_a_place = takes_a_place(longest_bytes(call));
        if takes_a_place {
            self.expect(spot, &call.direct.writers);
        }
        let start = (takes_a_place && self.any_is_timed(spot, &call.direct.writers)).then(Instant::now);
        // SAFETY: the caller vouches for both buffers; every writer's publication is there.
        unsafe { self.make(spot, call) }?;
        if let Some(start) = start {
            self.tell_reading(start.elapsed(), call);
        }
        if reads_first {
            // SAFETY: the caller vouches for the output, which was made.
            if !unsafe { self.write(spot, &label, call, call.output) } {
                return Err(
                    Error::internal("who has published is through with what was published before").into()
                );
            }
            progress.written = true;
            self.show(spot, call);
            self.count_shown(call);
        }
        if takes_a_place {
            let turns = &mut self.publications.turns;
            call.direct
                .writers
                .iter()
                .for_each(|&writer| turns[writer as usize] = turns[writer as usize].wrapping_add(1));
        }
        finish(number, self.publications.shelves[self.rank].finished());
        self.count_read(call);
        Ok(true)
    }

    /// Writes what this rank shows where its peers are going to read it, if they are through with what stands there.
    ///
    /// # Safety
    /// What is shown, the call's input or its output, may be read.
    #[inline(always)]
    pub(super) unsafe fn write(
        &mut self,
        spot: Spot,
        label: &Label,
        call: &DirectCall<'_>,
        shown: HostPointer,
    ) -> bool {
        if call.direct.readers.is_empty() {
            return true;
        }
        let Publications { shelves, author, awaited, .. } = &mut self.publications;
        let pieces = pieces(self.rank, call, shown);
        let [first, second] = pieces;
        let len = first.1 + second.1;
        if let Some((reader, held)) =
            author.waits_for(spot, takes_a_place(len), |reader| shelves[reader].finished())
        {
            *awaited = Some(Awaited::End(reader, held));
            return false;
        }
        if len > IN_HEAD_BYTES {
            // SAFETY: the caller vouches for the pieces, which are in the limit: `label_of` and the caller's choice of this
            // way keep it. The readers of what stood there are through.
            unsafe { self.write_payload(spot, label, call, pieces) };
        } else if first.1 == 0 || second.1 == 0 {
            let from = if first.1 > 0 { first.0 } else { second.0 };
            // SAFETY: as above, and it is short enough.
            unsafe { shelves[self.rank].write_all(spot, label, from, len as usize) };
        } else {
            // SAFETY: as above, and together they are short enough.
            unsafe { shelves[self.rank].write_both(spot, label, pieces) };
        }
        true
    }

    /// Writes a payload that does not stand in the head, and what is said of it.
    ///
    /// # Safety
    /// The pieces may be read, and are in the limit; entry and, if it takes one, the next place are this rank's to write.
    #[inline(always)]
    unsafe fn write_payload(
        &mut self,
        spot: Spot,
        label: &Label,
        call: &DirectCall<'_>,
        pieces: [(*const u8, u64); 2],
    ) {
        let Publications { shelves, author, stores, .. } = &mut self.publications;
        let len = pieces[0].1 + pieces[1].1;
        shelves[self.rank].populate(Advice::PopulateWrite, len);
        let shelf = &shelves[self.rank];
        let mut turn = 0;
        if takes_a_place(len) {
            turn = author.take_place(spot.number, &call.direct.readers);
        }
        let (mut payload, mut is_timed) = (shelf.payload(spot, turn, len), false);
        let reading = || {
            let readings = call.direct.readers.iter().map(|&reader| shelves[reader as usize].reading());
            readings.map(|reading| reading.load(Ordering::Relaxed)).max().unwrap_or(0)
        };
        for (from, len) in pieces {
            if len > 0 {
                // SAFETY: the caller vouches for the source; the payload has room for what is in the limit, and is this
                // rank's to write.
                is_timed |= unsafe { stores.copy(from, payload, len as usize, reading) };
                payload = payload.wrapping_add(len as usize);
            }
        }
        stores.settle();
        if takes_a_place(len) {
            shelf.word(spot, TURN).store(turn << 1 | u64::from(is_timed), Ordering::Relaxed);
        }
        shelf.write_label(spot, label);
    }

    /// Shows what was written. What only this rank is to know of it is noted after that, while it travels.
    #[inline(always)]
    pub(super) fn show(&mut self, spot: Spot, call: &DirectCall<'_>) {
        if !call.direct.readers.is_empty() {
            let Publications { shelves, author, .. } = &mut self.publications;
            show(spot.number, shelves[self.rank].word(spot, 0));
            author.take(spot, &call.direct.readers);
            self.bells.ring_at(&call.direct.readers);
        }
    }

    /// Whether every writer's publication is there. Goes on where it got stuck last time.
    #[inline(always)]
    pub(super) fn all_are_there(
        &mut self,
        spot: Spot,
        label: &Label,
        call: &DirectCall<'_>,
        progress: &mut DirectProgress,
    ) -> Result<bool, Fault> {
        let Publications { shelves, author, awaited, .. } = &mut self.publications;
        while let Some(&writer) = call.direct.writers.get(progress.ready as usize) {
            let peer = writer as usize;
            let word = shelves[peer].word(spot, 0);
            let has_come = || {
                shelves[peer].fetch_beside(spot, label.len());
                stamp_of(word) >= spot.number
            };
            if !(0..call.looks).any(|look| is_there(look, has_come)) {
                *awaited = Some(Awaited::Publication(peer, spot));
                return Ok(false);
            }
            let stamp = stamp_of(word);
            if stamp > spot.number || !shelves[peer].says(spot, label) {
                return Err(mismatch(writer, stamp, &shelves[peer].label(spot), label));
            }
            author.saw(peer, spot.number);
            if label.len() > IN_HEAD_BYTES {
                shelves[peer].populate(Advice::PopulateRead, label.len());
            }
            progress.ready += 1;
        }
        *awaited = None;
        Ok(true)
    }

    /// Puts right what is expected of publications that are there: a rank has not read all of the others' payloads.
    #[inline]
    fn expect(&mut self, spot: Spot, writers: &[Rank]) {
        let Publications { shelves, turns, .. } = &mut self.publications;
        for &writer in writers {
            let turn = shelves[writer as usize].turn(spot);
            if turn != turns[writer as usize] {
                put_right(turns, writer, turn);
            }
        }
    }

    #[inline]
    fn any_is_timed(&self, spot: Spot, writers: &[Rank]) -> bool {
        writers.iter().any(|&writer| self.publications.shelves[writer as usize].is_timed(spot))
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
    #[inline(always)]
    unsafe fn make(&mut self, spot: Spot, call: &DirectCall<'_>) -> Result<(), Fault> {
        let len = call.block_bytes as usize;
        for part in &call.direct.parts {
            match *part {
                Part::Copy { from, at, into } => {
                    let source = self.block_of(from as usize, spot, call, at);
                    let into = pointer(call.output, into * call.block_bytes);
                    // SAFETY: the caller vouches for the destination and the own input; a publication is apart. In place
                    // they are the same block or apart.
                    unsafe { kernels::copy_fresh(source, into, len) };
                }
                Part::Fold { at, into } => {
                    self.pointers.0.clear();
                    for rank in 0..self.ranks {
                        let source = self.block_of(rank, spot, call, at);
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
    fn block_of(&self, rank: usize, spot: Spot, call: &DirectCall<'_>, at: u64) -> *const u8 {
        if rank == self.rank {
            return pointer(call.input, at * call.block_bytes);
        }
        let offset = call.direct.place(rank as Rank, at) * call.block_bytes;
        let Publications { shelves, turns, .. } = &self.publications;
        // The label says how long the longest publication is; every rank that publishes has as much.
        let payload = shelves[rank].payload(spot, turns[rank], longest_bytes(call));
        payload.wrapping_add(offset as usize)
    }

    /// Counts what the plan's messages to its readers would have been; of a barrier, those that it comes to here.
    #[inline(always)]
    fn count_shown(&mut self, call: &DirectCall<'_>) {
        let len = message_bytes(call);
        for &reader in &call.direct.readers {
            self.outgoing[reader as usize * self.channels].counters.sent(len);
        }
    }

    /// The same of those from its writers, and wakes who may wait for this rank to be through.
    #[inline(always)]
    fn count_read(&mut self, call: &DirectCall<'_>) {
        let len = message_bytes(call);
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

#[inline]
fn longest_bytes(call: &DirectCall<'_>) -> u64 {
    call.direct.longest * call.block_bytes
}

#[inline]
fn message_bytes(call: &DirectCall<'_>) -> u64 {
    if call.direct.carries { call.block_bytes } else { 0 }
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
