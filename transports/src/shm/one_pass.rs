//! All-reduces in one pass over heaps (`Endpoint::one_pass`): every rank shows where its buffers are, by a publication
//! (`publications`); if all are in heaps, each combines its share of all inputs and writes it to all outputs.
//!
//! A publication says that its rank has called, so that its buffers may be touched; `finished` says that its rank is
//! through with its share, so that nobody does any more once all are. Who gives up before that takes its memory back as
//! with announcements, waits until nobody is at work there, and after that leaves those pages to whoever does not go.
#![allow(unsafe_code)] // combines what lies in memory that other processes write

use super::announcements::LEAST_BYTES;
use super::endpoint::ShmEndpoint;
use super::publications::{Publications, label_of};
use super::receives::copy;
use super::shelf::{HEADER_BYTES, IN_HEAD_BYTES};
use crate::host::HostMemory;
use crate::local::announcement::is_still_there;
use crate::local::is_there;
use crate::local::publication::finish;
use crate::local::visit::{enter, is_visiting, leave};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use ubccl_core::direct::Direct;
use ubccl_core::endpoint::{
    DirectCall, Fault, HostPointer, Key, OnePass, OnePassCall, OnePassProgress, Stream,
};
use ubccl_core::{DataType, Error, Rank, kernels};

/// Shares from so many bytes on: the whole then takes several microseconds, so that asking, which is an exchange of a line,
/// costs little where it is in vain. (Measured on two near CPUs, ordinary memory of 384 KiB to 4 MiB, without and with it: equal
/// within 2 %; not measured where ranks share cores.)
pub(crate) const LEAST_SHARE: u64 = 64 << 10;
/// What is combined before it is written to the other outputs, out of the first cache.
const PIECE: usize = 8 << 10;
/// How long somebody who takes memory back waits for a visitor, which is there for some microseconds unless it is stopped.
const VISIT: Duration = Duration::from_millis(500);

/// Where a rank's buffers are: words of its publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offer {
    /// From the heap's first byte, plus one; 0 if the buffer is elsewhere.
    input: u64,
    output: u64,
    /// The epoch it was made in.
    epoch: u64,
}

impl Offer {
    const BYTES: u64 = 24;

    fn is_complete(self) -> bool {
        self.input > 0 && self.output > 0
    }
}

/// What every rank shows every other, if it is `rank` of `ranks`.
pub(crate) fn offering(rank: usize, ranks: usize) -> Direct {
    let others = || (0..ranks as Rank).filter(|&other| other as usize != rank).collect();
    Direct {
        input: Offer::BYTES,
        keeps_own: false,
        longest: Offer::BYTES,
        is_exchange: true,
        carries: true,
        readers: others(),
        writers: others(),
        reads_first: false,
        parts: Vec::new(),
        dtype: DataType::U8,
        op: None,
    }
}

/// What this rank offers to be written, since it showed it: an output, from this byte of its heap on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered {
    offset: u64,
    call: OnePassCall,
}

impl ShmEndpoint {
    /// See `Endpoint::one_pass`.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn run_one_pass(
        &mut self,
        key: &Key,
        call: &OnePassCall,
        progress: &mut OnePassProgress,
    ) -> Result<OnePass, Fault> {
        let Stream::Collective(number) = key.stream else {
            return Err(Error::internal("an all-reduce is a collective").into());
        };
        if !progress.agreed {
            if !self.ask((number, key), call, progress)? {
                return Ok(OnePass::Pending);
            }
            if !self.others().all(|peer| self.offer(number, peer).is_complete()) || self.offered.is_none() {
                self.is_through(number);
                self.offered = None;
                return Ok(OnePass::Declined);
            }
            progress.agreed = true;
        }
        if !progress.finished {
            // SAFETY: the caller vouches for this rank's buffers, and the others' callers did before they showed theirs.
            if !unsafe { self.combine_share(number, call, progress) }? {
                return Ok(OnePass::Pending);
            }
            progress.finished = true;
            self.is_through(number);
        }
        if !self.all_are_through(number, progress) {
            return Ok(OnePass::Pending);
        }
        self.offered = None;
        self.count_shares(call);
        Ok(OnePass::Done)
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let rank = self.rank;
        (0..self.ranks).filter(move |&peer| peer != rank)
    }

    /// Shows the others where this rank's buffers are; whether all others have shown theirs.
    fn ask(
        &mut self,
        (number, key): (u64, &Key),
        call: &OnePassCall,
        progress: &mut OnePassProgress,
    ) -> Result<bool, Fault> {
        let direct = Arc::clone(&self.publications.offering);
        let Offer { input, output, epoch } = self.own_offer(call);
        let words = [input, output, epoch];
        let ask = DirectCall {
            direct: &direct,
            block_bytes: 1,
            input: HostPointer(words.as_ptr().expose_provenance()),
            output: HostPointer(0),
            looks: 1,
        };
        let label = label_of(key, &ask);
        let spot = self.publications.author.spot(number);
        if !progress.asked.written {
            // SAFETY: the words are this function's, and as long as said.
            if !unsafe { self.write(spot, &label, &ask, ask.input) } {
                return Ok(false);
            }
            progress.asked.written = true;
            // Before anybody can see it.
            let offered = Offered { offset: output.wrapping_sub(1), call: *call };
            self.offered = (input > 0 && output > 0).then_some(offered);
            self.show(spot, &ask);
        }
        self.all_are_there(spot, &label, &ask, &mut progress.asked)
    }

    fn own_offer(&self, call: &OnePassCall) -> Offer {
        let place = |HostPointer(address): HostPointer| {
            let offset = self.own.heap_offset(address, call.bytes());
            offset.map_or(0, |offset| offset + 1)
        };
        // Relaxed: this rank alone writes it.
        let epoch = self.own.epoch().load(Ordering::Relaxed);
        Offer { input: place(call.input), output: place(call.output), epoch }
    }

    /// What a peer has shown.
    #[inline]
    fn offer(&self, number: u64, peer: usize) -> Offer {
        let Publications { shelves, author, .. } = &self.publications;
        let (shelf, spot) = (&shelves[peer], author.spot(number));
        // Relaxed: ordered by the stamp.
        let word = |at: usize| shelf.word(spot, HEADER_BYTES / 8 + at).load(Ordering::Relaxed);
        Offer { input: word(0), output: word(1), epoch: word(2) }
    }

    /// Combines the next bytes of this rank's share; whether that was the last of it.
    ///
    /// # Safety
    /// This rank's buffers are as the call says, and every rank has offered its own, for this call.
    unsafe fn combine_share(
        &mut self,
        number: u64,
        call: &OnePassCall,
        progress: &mut OnePassProgress,
    ) -> Result<bool, Fault> {
        let share = call.share(self.rank as Rank, self.ranks as u32);
        let begin = share.start + progress.shared;
        // As much memory as is moved at once elsewhere, which is two buffers.
        let bite = (2 * HostMemory::BITE / self.ranks).max(PIECE).next_multiple_of(PIECE);
        let end = share.end.min(begin + bite as u64);
        let mut late = None;
        let is_offered = || {
            late = self.others().find(|&peer| {
                let epoch = self.publications.shelves[peer].segment().epoch();
                epoch.load(Ordering::Relaxed) != self.offer(number, peer).epoch
            });
            late.is_none()
        };
        if !enter(self.own.visiting(), is_offered) {
            return Err(self.took_back(late));
        }
        // SAFETY: as the caller vouches; nobody takes back what is visited.
        let combined = unsafe { self.combine_pieces(number, call, begin..end) };
        leave(self.own.visiting());
        combined?;
        progress.shared += end - begin;
        if end < share.end {
            return Ok(false);
        }
        let is_there = |&peer: &usize| {
            is_still_there(self.publications.shelves[peer].segment().epoch(), self.offer(number, peer).epoch)
        };
        match self.others().find(|peer| !is_there(peer)) {
            None => Ok(true),
            late => Err(self.took_back(late)),
        }
    }

    /// # Safety
    /// As for `combine_share`, of these bytes of the buffers, which nobody takes back meanwhile.
    unsafe fn combine_pieces(
        &mut self,
        number: u64,
        call: &OnePassCall,
        bytes: std::ops::Range<u64>,
    ) -> Result<(), Fault> {
        let size = call.dtype.size();
        let streams = self.is_beyond_caches(call.bytes());
        let own = |HostPointer(address): HostPointer, at: u64| {
            std::ptr::with_exposed_provenance_mut::<u8>(address + at as usize)
        };
        let mut at = bytes.start;
        while at < bytes.end {
            let len = (PIECE as u64).min(bytes.end - at) as usize;
            self.pointers.0.clear();
            for rank in 0..self.ranks {
                let source = match rank == self.rank {
                    true => own(call.input, at),
                    false => self.reach(number, rank, call, |offer| offer.input)?.wrapping_add(at as usize),
                };
                self.pointers.0.push(source);
            }
            let into = own(call.output, at);
            // SAFETY: this rank alone touches these bytes of the outputs, and in inputs nobody writes them: they are its
            // share of buffers that all have offered, checked to be in their heaps. Its own output is its own input or apart
            // from it, as its caller vouches, and apart from the others', which are mapped elsewhere.
            unsafe { kernels::reduce(call.dtype, call.op, &self.pointers.0, into, len / size) }?;
            for peer in self.others() {
                let theirs = self.reach(number, peer, call, |offer| offer.output)?.wrapping_add(at as usize);
                // Lines that were just read are in the cache.
                let streams = streams && self.pointers.0[peer] != theirs;
                // SAFETY: as above; what a peer's output has in common with its input was read before.
                unsafe { copy(into, theirs, len, streams) };
            }
            at += len as u64;
        }
        self.pointers.0.clear();
        if streams {
            kernels::fence_streaming(); // before it is said that nobody is at work there
        }
        Ok(())
    }

    /// The first byte of a peer's buffer, as this rank has it mapped.
    #[inline]
    fn reach(
        &self,
        number: u64,
        peer: usize,
        call: &OnePassCall,
        place: impl Fn(Offer) -> u64,
    ) -> Result<*mut u8, Fault> {
        let offset = place(self.offer(number, peer)).wrapping_sub(1);
        let range = self.publications.shelves[peer].segment().heap_range(offset, call.bytes());
        range.ok_or_else(|| {
            let message = format!("it offered {} bytes at {offset}, outside its memory", call.bytes());
            Fault::Lost { peer: peer as Rank, message }
        })
    }

    #[cold]
    fn took_back(&self, peer: Option<usize>) -> Fault {
        let message = "it took back the buffers of an all-reduce that was under way".into();
        Fault::Lost { peer: peer.unwrap_or(self.rank) as Rank, message }
    }

    /// Says that this rank is through with what the others showed, and with their memory.
    fn is_through(&mut self, number: u64) {
        let Publications { shelves, offering, .. } = &self.publications;
        finish(number, shelves[self.rank].finished());
        self.bells.ring_at(&offering.writers);
    }

    /// Whether all others are through. Goes on where it got stuck last time.
    fn all_are_through(&mut self, number: u64, progress: &mut OnePassProgress) -> bool {
        while (progress.ended as usize) < self.ranks {
            let peer = progress.ended as usize;
            if peer != self.rank && !self.publications.has_ended(peer, number) {
                return false;
            }
            progress.ended += 1;
        }
        true
    }

    /// Counts what messages would have been: everybody's part of the own share, and the share to everybody.
    fn count_shares(&mut self, call: &OnePassCall) {
        let share = |rank: usize| {
            let share = call.share(rank as Rank, self.ranks as u32);
            share.end - share.start
        };
        let own = share(self.rank);
        for peer in self.others() {
            let (theirs, index) = (share(peer), peer * self.channels);
            for len in [own, theirs] {
                self.outgoing[index].counters.sent(len);
                self.incoming[index].counters.received(len);
            }
        }
    }

    /// Waits until nobody is at work in what this rank has offered and just taken back. A visitor that stays is stopped, or
    /// dead: it keeps its share's pages, and this process gets others.
    pub(crate) fn wait_for_visitors(&mut self) {
        let Some(Offered { offset, call }) = self.offered.take() else { return };
        let start = Instant::now();
        let mut looks = 0;
        for peer in self.others() {
            let visiting = self.publications.shelves[peer].segment().visiting();
            while is_there(looks, || is_visiting(visiting)) {
                looks += 1;
                if start.elapsed() > VISIT {
                    self.leave_to(peer, offset, &call);
                    break;
                }
                std::thread::yield_now();
            }
        }
    }

    /// Leaves the pages of a peer's share to it.
    #[cold]
    fn leave_to(&self, peer: usize, offset: u64, call: &OnePassCall) {
        let share = call.share(peer as Rank, self.ranks as u32);
        let (first, len) = ((offset + share.start) as usize, (share.end - share.start) as usize);
        match self.own.detach_heap(first, len) {
            Ok(()) => tracing::warn!(
                target: "ubccl::shm", rank = self.rank, peer,
                "rank {peer} stopped while it wrote {len} bytes of registered memory: these became private"
            ),
            Err(error) => tracing::error!(
                target: "ubccl::shm", rank = self.rank, peer, %error,
                "rank {peer} stopped while it wrote {len} bytes of registered memory, and writes on if it is continued: \
                 do not use that memory"
            ),
        }
    }
}

const _: () = assert!(Offer::BYTES <= IN_HEAD_BYTES);
const _: () = assert!(PIECE.is_multiple_of(64) && LEAST_SHARE >= LEAST_BYTES);
