//! Receives, reductions and copies: one kind of pending work, because all combine sources into a destination.
#![allow(unsafe_code)] // reads slots and the caller's memory

use super::announcements::Announced;
use super::channel::INLINE_BYTES;
use super::endpoint::{AT_ONCE, Incoming, ShmEndpoint, Source, Step};
use super::foreign::Unreadable;
use super::sends::{too_many, too_many_with};
use crate::host::HostMemory;
use crate::local::is_there;
use crate::local::label::Label;
use crate::local::stores::per_line;
use crate::local::ways::Ways;
use std::time::{Duration, Instant};
use ubccl_core::endpoint::{Fault, HostPointer, Key, MessageNow, Now, Post, Posted, Span, Token};
use ubccl_core::plan::PeerRun;
use ubccl_core::{DataType, Error, Rank, ReduceOp, kernels};

/// Bytes from which a slot is given back at once and not with the others of half a ring.
const LARGE_BITE: u64 = 4096;

/// A receive that waits. All sources are cut alike, since their messages have the same length and their rings the same
/// shape, so that piece k of all of them is combined in one pass.
#[derive(Debug)]
pub(crate) struct ReceiveOp {
    token: Token,
    /// What every message has to say of itself.
    pub(crate) label: Label,
    /// From whom, in order; this rank itself stands for `own`.
    sources: PeerRun,
    own: Span,
    into: Span,
    /// How to combine; nothing to combine if there is one source.
    fold: Option<(DataType, ReduceOp)>,
    /// Whether what is copied goes past the caches.
    streams: bool,
    /// Whether any source is another rank.
    remote: bool,
    /// Bytes that are finished.
    done: u64,
    /// How many sources are known to have their next piece there.
    ready: usize,
    /// What reading messages in other processes has taken, for all sources together.
    reading: Duration,
}

/// What was combined at once.
struct Piece {
    bytes: u64,
    /// Entries of each source that it was in.
    entries: u64,
}

impl ReceiveOp {
    /// Whether no byte was taken yet.
    pub(crate) fn is_untouched(&self) -> bool {
        self.done == 0
    }
}

impl ShmEndpoint {
    /// Takes the first piece at once if it is there.
    pub(crate) fn post_receive(
        &mut self,
        token: Token,
        (channel, key): (usize, &Key),
        post: &Post,
    ) -> Result<Posted, Fault> {
        let mut op = self.receive_op(token, key, post)?;
        if let Post::Receive { from, into } = *post {
            let index = self.index(from, channel)?;
            // What `receive_now` began is the next message of this channel, and this is its post.
            op.done = std::mem::take(&mut self.incoming[index].begun).min(into.len);
        }
        let sources = op.sources;
        let number = self.receives[channel].insert(op).ok_or_else(|| too_many(channel))?;
        for peer in sources.iter().filter(|&peer| peer as usize != self.rank) {
            let index = self.index(peer, channel)?;
            let queue = &mut self.incoming[index].queue;
            if queue.back() == Some(number) {
                return Err(Error::internal("a receive names the same rank twice").into());
            }
            if !queue.push(number) {
                return Err(too_many_with(peer as usize, channel).into());
            }
            let op = self.receives[channel].get_mut(number);
            op.remote = true;
            self.outgoing[index].is_answered |= Ways::matter(op.label.len());
        }
        if self.advance(channel, number)? == Step::Finished {
            self.receives[channel].remove(number);
            return Ok(Posted::Done);
        }
        Ok(Posted::Pending)
    }

    /// Receives as much of a message as is there now, or comes while it looks.
    ///
    /// # Safety
    /// As for `Endpoint::message_now`.
    #[inline]
    pub(crate) unsafe fn receive_now(
        &mut self,
        index: usize,
        key: &Key,
        message: &MessageNow,
    ) -> Result<Now, Fault> {
        let MessageNow { peer, len, looks, memory: HostPointer(address), .. } = *message;
        let streams = self.is_beyond_caches(len);
        let Incoming { memory, consumer, queue, begun, counters, .. } = &mut self.incoming[index];
        if !queue.is_empty() {
            return Ok(Now::Never);
        }
        let mut now = Now::NotYet;
        loop {
            let number = consumer.next();
            let stamp = memory.stamp(number);
            if !(0..looks).any(|look| is_there(look, || consumer.has_entry(stamp))) {
                return Ok(now);
            }
            consumer.see(|| memory.entries(number));
            if *begun == 0 {
                if memory.is_announced(number) {
                    return Ok(Now::Never);
                }
                let (theirs, ours) = (memory.label(number), Label::new(key, len));
                if !ours.is_of(theirs) {
                    return Err(Fault::Mismatch { peer, theirs: theirs.header(), ours: ours.header() });
                }
            }
            let bite = (len - *begun).min(memory.slot_bytes() as u64);
            let payload = memory.payload(memory.spot(consumer.stamped(), number, len), len, *begun);
            let into = std::ptr::with_exposed_provenance_mut(address + *begun as usize);
            let start =
                (len > INLINE_BYTES && consumer.is_stamped() && memory.is_timed(number)).then(Instant::now);
            // SAFETY: the caller vouches for the destination for the whole length, of which `begun` bytes were filled; the
            // payload has a bite by the layout and is in no region.
            unsafe { copy(payload, into, bite as usize, streams) };
            if let Some(start) = start {
                memory.tell_reading(start.elapsed(), bite);
            }
            if consumer.take(memory.consumed(), bite > LARGE_BITE) {
                self.bells.mark(peer as usize);
            }
            *begun += bite;
            if *begun == len {
                *begun = 0;
                self.outgoing[index].is_answered |= Ways::matter(len);
                if streams {
                    kernels::fence_streaming();
                }
                counters.received(len);
                return Ok(Now::Done);
            }
            now = Now::Begun;
        }
    }

    /// Whether the buffers of a call, the longest of which has so many bytes, of all ranks, are more than half of the cache
    /// that they share: not all that is written to an output is read from there, and to fetch its lines before would be for
    /// nothing. (Measured on Zen 4 with 32 MiB, ordinary -> streaming, two near processors: ping-pong 8 MiB 1,200 to 1,400 ->
    /// 390 us, all-to-all 1,260 -> 780, all-gather 990 -> 790; of 4 MiB, all-gather 240 to 310 -> 360.)
    #[inline]
    pub(crate) fn is_beyond_caches(&self, longest: u64) -> bool {
        longest.saturating_mul(2 * self.ranks as u64) > self.caches.third / 2
    }

    fn receive_op(&self, token: Token, key: &Key, post: &Post) -> Result<ReceiveOp, Fault> {
        let this = PeerRun::one(self.rank as Rank);
        let (sources, own, into, fold) = match *post {
            Post::Receive { into, from } if from as usize == self.rank => {
                return Err(Error::internal(format!("rank {from} receives {into:?} from itself")).into());
            }
            Post::Receive { into, from } => (PeerRun::one(from), into, into, None),
            Post::Copy { from, into } => (this, from, into, None),
            Post::ReceiveReduce { sources, own, into, dtype, op } => (sources, own, into, Some((dtype, op))),
            Post::Send { .. } => return Err(Error::internal("a send is not a receive").into()),
        };
        let mut own = own;
        if !sources.iter().any(|peer| peer as usize == self.rank) {
            own = into; // it is not read, and need not be anything
        }
        let size = fold.map_or(1, |(dtype, _)| dtype.size() as u64);
        let is_foreign = |peer: Rank| peer as usize >= self.ranks;
        let is_cut = own.len != into.len || !into.len.is_multiple_of(size);
        if sources.is_empty() || sources.iter().any(is_foreign) || is_cut {
            let message = format!("{sources:?} of {} ranks combined from {own:?} into {into:?}", self.ranks);
            return Err(Error::internal(message).into());
        }
        // Once here, so that a wrong span is found before anything moves.
        self.memory.address(own)?;
        self.memory.address(into)?;
        let label = Label::new(key, into.len);
        Ok(ReceiveOp {
            token,
            label,
            sources,
            own,
            into,
            fold,
            streams: self.is_beyond_caches(key.signature.buffer_bytes(self.ranks as u32)),
            remote: false,
            done: 0,
            ready: 0,
            reading: Duration::ZERO,
        })
    }

    /// Moves one piece of every receive whose sources all have theirs there.
    pub(crate) fn poll_receives(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault> {
        let mut moved = false;
        for channel in 0..self.channels {
            let mut from = 0;
            while let Some(number) = self.receives[channel].next(from) {
                from = number + 1;
                let step = self.advance(channel, number)?;
                moved |= step != Step::Stuck;
                if step == Step::Finished {
                    done.push(self.receives[channel].remove(number).token);
                }
            }
        }
        Ok(moved)
    }

    /// Moves some pieces of one receive, as far as they are there.
    fn advance(&mut self, channel: usize, number: u16) -> Result<Step, Fault> {
        let from = self.receives[channel].get(number).done;
        let mut moved = Step::Stuck;
        loop {
            match self.advance_by_a_piece(channel, number)? {
                Step::Stuck => return Ok(moved),
                Step::Finished => return Ok(Step::Finished),
                Step::Moved => moved = Step::Moved,
            }
            if self.receives[channel].get(number).done - from >= AT_ONCE {
                return Ok(moved);
            }
        }
    }

    /// Moves one piece of one receive, if it can.
    #[inline]
    fn advance_by_a_piece(&mut self, channel: usize, number: u16) -> Result<Step, Fault> {
        if !self.gather(channel, number)? {
            return Ok(Step::Stuck);
        }
        let Some(Piece { bytes, entries }) = self.combine(channel, number)? else {
            return Ok(Step::Stuck);
        };
        let op = self.receives[channel].get_mut(number);
        op.done += bytes;
        op.ready = 0;
        let (len, is_finished) = (op.label.len(), op.done == op.label.len());
        let reading = op.reading;
        if is_finished && op.streams {
            kernels::fence_streaming(); // who is told that it is done may be another thread
        }
        let read = self.sources.iter().filter(|source| source.elsewhere.is_some()).count() as u64;
        for at in 0..self.sources.len() {
            let Source { index, is_announced, elsewhere, .. } = self.sources[at];
            let incoming = &mut self.incoming[index];
            if is_announced {
                if !is_finished {
                    continue; // the entry stands for all of the message
                }
                incoming.check_there()?;
                if elsewhere.is_some() {
                    incoming.memory.tell_foreign_reading(per_line(reading, (len * read) as usize));
                }
            }
            let soon = is_announced || bytes > LARGE_BITE;
            if incoming.consumer.take_all(entries, incoming.memory.consumed(), soon) {
                self.bells.mark(incoming.peer);
            }
            if is_finished {
                incoming.queue.pop();
                incoming.counters.received(len);
            }
        }
        Ok(if is_finished { Step::Finished } else { Step::Moved })
    }

    /// Whether every source has its next piece there. Goes on where it got stuck last time; a first piece is taken
    /// for one only if it is what this rank called for.
    fn gather(&mut self, channel: usize, number: u16) -> Result<bool, Fault> {
        let op = self.receives[channel].get_mut(number);
        while op.ready < op.sources.len() {
            let peer = op.sources.get(op.ready) as usize;
            if peer != self.rank {
                let incoming = &mut self.incoming[peer * self.channels + channel];
                if incoming.queue.front() != Some(number) || !incoming.has_entry() {
                    return Ok(false);
                }
                incoming.see();
                if op.done == 0 && !op.label.is_of(incoming.label()) {
                    let (theirs, ours) = (incoming.label().header(), op.label.header());
                    return Err(Fault::Mismatch { peer: peer as Rank, theirs, ours });
                }
            }
            op.ready += 1;
        }
        Ok(true)
    }

    /// Combines the next piece of all sources into the destination, and leaves in `self.sources` the channels it
    /// came from; and the pieces after it that are known to be there. None if a source is gone.
    fn combine(&mut self, channel: usize, number: u16) -> Result<Option<Piece>, Fault> {
        let op = self.receives[channel].get(number);
        self.sources.clear();
        self.pointers.0.clear();
        let own = self.memory.address(op.own)?.wrapping_add(op.done as usize);
        let (parts, mut bite, mut own_at, mut entries) =
            (op.sources.len(), HostMemory::BITE as u64, None, u64::MAX);
        for peer in op.sources.iter().map(|peer| peer as usize) {
            if peer == self.rank {
                own_at = Some(self.pointers.0.len());
                self.pointers.0.push(own);
                continue;
            }
            let index = peer * self.channels + channel;
            let incoming = &self.incoming[index];
            let is_announced = incoming.is_announced();
            entries = entries.min(if is_announced { 1 } else { incoming.consumer.known() });
            let mut elsewhere = None;
            let pointer = self.pointers.0.len();
            self.pointers.0.push(match is_announced {
                true => match incoming.message(op.label.len())? {
                    Announced::Mapped(message) => message.wrapping_add(op.done as usize),
                    Announced::Elsewhere(foreign, address) => {
                        elsewhere = Some((foreign, address.wrapping_add(op.done)));
                        // One message alone is read to where it belongs, several and those that are folded to the stage.
                        match op.fold {
                            None => self.memory.address(op.into)?.wrapping_add(op.done as usize),
                            Some(_) => {
                                let (part, len) = self.stage.part(self.sources.len(), parts);
                                bite = bite.min(len);
                                part
                            }
                        }
                    }
                },
                false => {
                    bite = bite.min(incoming.memory.slot_bytes() as u64);
                    let Incoming { memory, consumer, .. } = incoming;
                    let spot = memory.spot(consumer.stamped(), consumer.next(), op.label.len());
                    memory.payload(spot, op.label.len(), op.done)
                }
            });
            self.sources.push(Source { index, is_announced, elsewhere, pointer });
        }
        debug_assert!(op.label.len() > INLINE_BYTES || op.done == 0);
        let (len, done, fold, streams) = (op.label.len(), op.done, op.fold, op.streams);
        let slot_bytes = bite;
        let bite = (len - done).min(slot_bytes);
        let into = Span { offset: op.into.offset + done, len: bite, ..op.into };
        let has_slots = len > INLINE_BYTES;
        if self.sources.iter().any(|source| source.elsewhere.is_some()) {
            let start = Instant::now();
            if !self.read_elsewhere(bite)? {
                return Ok(None);
            }
            self.receives[channel].get_mut(number).reading += start.elapsed();
            if fold.is_none() {
                self.pointers.0.clear();
                return Ok(Some(Piece { bytes: bite, entries: 1 }));
            }
        }
        let timed = self.sources.iter().find(|source| has_slots && self.is_timed(source)).copied();
        let start = timed.map(|_| Instant::now());
        // SAFETY: own memory was checked for the whole length by `address`; payloads hold `bite` bytes by the layout and
        // are not in anybody's regions; announced messages were checked for the whole length by `message`, and are mapped
        // at addresses of their own, even if a rank of this process announced them. `into` is `own` or apart from it,
        // which the poster vouches for.
        unsafe { self.run_kernel(fold, into, streams) }?;
        if let (Some(source), Some(start)) = (timed, start) {
            self.incoming[source.index].memory.tell_reading(start.elapsed(), bite);
        }
        let mut piece = Piece { bytes: bite, entries: 1 };
        while !self.sources.is_empty() && piece.entries < entries && done + piece.bytes < len {
            let at = done + piece.bytes;
            for &Source { index, pointer, .. } in &self.sources {
                let Incoming { memory, consumer, .. } = &self.incoming[index];
                let spot = memory.spot(consumer.stamped(), consumer.next() + piece.entries, len);
                self.pointers.0[pointer] = memory.payload(spot, len, at);
            }
            if let Some(own_at) = own_at {
                self.pointers.0[own_at] = own.wrapping_add(piece.bytes as usize);
            }
            let bite = (len - at).min(slot_bytes);
            let into = Span { offset: into.offset + piece.bytes, len: bite, ..into };
            // SAFETY: as above, of the next piece of each; there are more than one of slots only.
            unsafe { self.run_kernel(fold, into, streams) }?;
            piece = Piece { bytes: piece.bytes + bite, entries: piece.entries + 1 };
        }
        self.pointers.0.clear();
        Ok(Some(piece))
    }

    /// Reads a piece of every source that is in another process to where its pointer says. `false` if a process is gone,
    /// which is not for this rank to tell.
    fn read_elsewhere(&self, bite: u64) -> Result<bool, Fault> {
        for source in &self.sources {
            let Some((foreign, from)) = source.elsewhere else {
                continue;
            };
            let into = self.pointers.0[source.pointer];
            // SAFETY: `into` is the destination, which `address` checked for the whole length, or a part of the stage with
            // at least `bite` bytes.
            match unsafe { foreign.read(from, into.cast_mut(), bite as usize) } {
                Ok(()) => {}
                Err(Unreadable::Gone) => return Ok(false),
                Err(Unreadable::Refused(why)) => {
                    let incoming = &self.incoming[source.index];
                    incoming.check_there()?;
                    return Err(incoming.lost(format!("{bite} bytes at {from:#x} cannot be read: {why}")));
                }
            }
        }
        Ok(true)
    }

    #[inline]
    fn is_timed(&self, source: &Source) -> bool {
        let Incoming { memory, consumer, .. } = &self.incoming[source.index];
        !source.is_announced && consumer.is_stamped() && memory.is_timed(consumer.next())
    }

    /// # Safety
    /// Every pointer in `self.pointers` is valid for `into.len` bytes, and is `into` itself or apart from it.
    #[inline]
    unsafe fn run_kernel(
        &self,
        fold: Option<(DataType, ReduceOp)>,
        into: Span,
        streams: bool,
    ) -> Result<(), Error> {
        match fold {
            // SAFETY: as the caller vouches.
            Some(fold) => unsafe { self.memory.reduce(fold, &self.pointers.0, into) },
            None => {
                let destination = self.memory.address(into)?;
                // SAFETY: as the caller vouches; `address` checked the destination.
                unsafe { copy(self.pointers.0[0], destination, into.len as usize, streams) };
                Ok(())
            }
        }
    }

    /// Whether a receive that waits could move: a copy always can, another if the source it waits for has something.
    pub(crate) fn can_receive(&self) -> bool {
        (0..self.channels).any(|channel| {
            let table = &self.receives[channel];
            let mut from = 0;
            while let Some(number) = table.next(from) {
                if self.may_advance(channel, number) {
                    return true;
                }
                from = number + 1;
            }
            false
        })
    }

    fn may_advance(&self, channel: usize, number: u16) -> bool {
        let op = self.receives[channel].get(number);
        let Some(peer) = (op.ready < op.sources.len()).then(|| op.sources.get(op.ready) as usize) else {
            return true;
        };
        let incoming = &self.incoming[peer * self.channels + channel];
        !op.remote || peer == self.rank || incoming.queue.front() == Some(number) && incoming.has_entry()
    }
}

/// Copies, past the caches or through them.
///
/// # Safety
/// As for `kernels::copy`.
#[inline]
pub(super) unsafe fn copy(from: *const u8, into: *mut u8, bytes: usize, streams: bool) {
    if streams && from != into.cast_const() {
        // SAFETY: as the caller vouches; what is not the same is apart.
        unsafe { kernels::copy_streaming(from, into, bytes) }
    } else {
        // SAFETY: as the caller vouches.
        unsafe { kernels::copy_fresh(from, into, bytes) }
    }
}
