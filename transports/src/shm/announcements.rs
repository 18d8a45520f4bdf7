//! Messages that stay where they are: a long one that lies in its sender's heap, or elsewhere in its memory if its receivers
//! can read that (`foreign`) and do it more cheaply, is not copied into slots but announced, by one entry that says where,
//! and its receiver reads it there.
//!
//! The entry is in the ring until the receiver is through with the message, so the ring's counter of consumed entries is
//! the acknowledgement that completes the send. A sender that gives up before that counts its epoch on, and only then
//! lets go of the memory; what a receiver has read counts only if the epoch is still the one of the announcement.

use super::endpoint::{Incoming, Outgoing, ShmEndpoint, Step};
use super::foreign::Foreign;
use super::sends::spoilt;
use crate::caches::Caches;
use crate::local::announcement::{is_still_there, take_back};
use crate::local::label::Label;
use crate::local::ways::Ways;
use std::sync::atomic::Ordering;
use ubccl_core::Rank;
use ubccl_core::endpoint::{Fault, Key, Token};
use ubccl_core::plan::PeerRun;

/// Of so many messages that are to be reduced where they are, so many go through slots.
const HEAP_ROUND: u32 = 256;
const HEAP_TRIED: u32 = 4;
/// From so many bytes on reading a message in place is worth the wait for the acknowledgement.
pub(crate) const LEAST_BYTES: u64 = 4096;

/// Where a message of this rank is that stays there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the heap.
    Heap {
        /// From the heap's first byte.
        offset: u64,
    },
    /// Anywhere in the process.
    Process {
        /// As the process has it.
        address: u64,
    },
}

/// An announced message that its receiver has not read to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unread {
    /// The entry that tells of it.
    entry: u64,
    /// The number of its send.
    send: u16,
    /// Bytes, if its receiver tells what reading them took.
    timed: Option<u64>,
}

/// What a receiver may do with an announced message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Announced {
    /// Read it at this address of its own.
    Mapped(*const u8),
    /// Have the kernel read it.
    Elsewhere(Foreign, u64),
}

impl ShmEndpoint {
    /// Where a message is, if it is in the heap and can be announced.
    #[inline]
    pub(crate) fn heap_place(&self, message: *const u8, len: u64) -> Option<Place> {
        if len < LEAST_BYTES {
            return None;
        }
        self.own.heap_offset(message.addr(), len).map(|offset| Place::Heap { offset })
    }

    /// Where a message is, if it is announced to these peers.
    #[inline]
    pub(crate) fn place(
        &mut self,
        message: *const u8,
        len: u64,
        (channel, key, to): (usize, &Key, &PeerRun),
    ) -> Result<Option<Place>, Fault> {
        let in_heap = self.heap_place(message, len);
        if in_heap.is_some() && key.signature.reduces() && self.is_of_collectives(channel) {
            let reads = self.is_better_reduced_in_place(len, channel, to)?;
            return Ok(in_heap.filter(|_| reads));
        }
        if in_heap.is_some() || !Ways::matter(len) || !self.may_be_read(channel, key) {
            return Ok(in_heap);
        }
        let reads = self.is_better_read(len, channel, to)?;
        Ok(reads.then(|| Place::Process { address: message.expose_provenance() as u64 }))
    }

    /// Whether a message in the heap of a call that reduces should be read there. What such a call sends was written just
    /// before and will be written again: while its lines are in its sender's second cache they are dear to read there
    /// and, once read, dear to write; and so they are in the third if the reader has another. (Measured on two
    /// processors, in-place all-reduce, through slots -> read there: near 256 KiB 17 -> 32 us, 1 MiB 71 -> 80, 2 MiB 142
    /// -> 54, 4 MiB 291 -> 92; far 256 KiB 57 -> 201, 4 MiB 845 -> 1793.)
    fn is_better_reduced_in_place(&mut self, len: u64, channel: usize, to: &PeerRun) -> Result<bool, Fault> {
        let Caches { second, third } = self.caches;
        for peer in to.iter() {
            let index = self.index(peer, channel)?;
            let out = &mut self.outgoing[index];
            let least = if out.stores.is_far() { third } else { second };
            if 2 * len <= least {
                return Ok(false);
            }
            // Some go through slots all the same, or nobody would find out how far the reader is.
            out.read_in_heap = (out.read_in_heap + 1) % HEAP_ROUND;
            if out.read_in_heap < HEAP_TRIED {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether reading a message of this call in this process is worth thinking about.
    ///
    /// Not if users may send it before it is received: whether there is room for it has to be the same each time. And not if
    /// the call reduces: what such calls send is mostly what they have just written and will write again, and lines that
    /// another processor has read are dear to write. (Measured on two processors, all-reduce of 1 MiB, when they were
    /// allowed: near 75 -> 124 us, far 175 -> 403.)
    fn may_be_read(&self, channel: usize, key: &Key) -> bool {
        self.is_of_collectives(channel) && !key.signature.reduces()
    }

    /// Whether all of these peers can read a message in this process, and should.
    fn is_better_read(&mut self, len: u64, channel: usize, to: &PeerRun) -> Result<bool, Fault> {
        let mut all = true;
        for peer in to.iter() {
            let index = self.index(peer, channel)?;
            let out = &mut self.outgoing[index];
            // Relaxed: nothing else hangs on it.
            if out.memory.foreign_reading().load(Ordering::Relaxed) == 0 {
                return Ok(false);
            }
            if let Some(cost) = out.stores.take_cost() {
                out.ways.went_through_slots(out.last_len, cost.of(out.is_exchange));
            }
            all &= out.ways.reads(len);
        }
        Ok(all)
    }

    /// Announces the message at the head of a channel, if there is room for an entry.
    pub(crate) fn announce(
        &mut self,
        index: usize,
        label: &Label,
        (place, send): (Place, u16),
    ) -> Result<Step, Fault> {
        let out = &mut self.outgoing[index];
        let has_room = out.producer.has_room(out.memory.consumed());
        if !has_room.map_err(|corrupt| spoilt(out.peer, corrupt))? {
            return Ok(Step::Stuck);
        }
        let entry = out.producer.next();
        // Relaxed: this rank alone writes it.
        let epoch = self.own.epoch().load(Ordering::Relaxed);
        out.memory.write_announcement(entry, &label.announced(), place, epoch);
        out.producer.publish(out.memory.stamp(entry));
        let timed = matches!(place, Place::Process { .. }).then_some(label.len());
        out.unread.push_back(Unread { entry, send, timed });
        out.counters.sent(label.len());
        self.announcing.insert(index);
        self.bells.mark(out.peer);
        Ok(Step::Finished)
    }

    /// Completes the announced sends that everybody has read.
    pub(crate) fn poll_announced(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault> {
        let (mut moved, mut from) = (false, 0);
        while let Some(index) = self.announcing.next(from) {
            from = index + 1;
            while let Some(send) = self.outgoing[index].take_read()? {
                moved = true;
                self.has_read(index % self.channels, send, done);
            }
            if self.outgoing[index].unread.is_empty() {
                self.announcing.remove(index);
            }
        }
        Ok(moved)
    }

    /// Whether a message that was announced has been read since.
    pub(crate) fn has_been_read(&mut self) -> bool {
        let mut from = 0;
        while let Some(index) = self.announcing.next(from) {
            // What cannot be is for the poll to tell.
            if self.outgoing[index].first_is_read() != Ok(false) {
                return true;
            }
            from = index + 1;
        }
        false
    }

    /// Takes back what was announced and not read: its memory may be written as soon as this returns.
    pub(crate) fn take_back(&mut self) {
        if self.offered.is_some() || self.outgoing.iter().any(|out| !out.unread.is_empty()) {
            take_back(self.own.epoch());
        }
        self.wait_for_visitors();
        self.outgoing.iter_mut().for_each(|out| out.unread.clear());
        self.announcing.clear();
    }
}

impl Outgoing {
    fn first_is_read(&mut self) -> Result<bool, crate::local::ring::Corrupt> {
        match self.unread.front() {
            Some(first) => self.producer.is_consumed(first.entry, self.memory.consumed()),
            None => Ok(false),
        }
    }

    /// The send of the first announced message, if it has been read.
    fn take_read(&mut self) -> Result<Option<u16>, Fault> {
        let is_read = self.first_is_read().map_err(|corrupt| spoilt(self.peer, corrupt))?;
        let Some(first) = self.unread.pop_front_if(|_| is_read) else {
            return Ok(None);
        };
        if let Some(len) = first.timed {
            self.ways.was_read(len, self.memory.foreign_reading().load(Ordering::Relaxed));
        }
        Ok(Some(first.send))
    }
}

impl Incoming {
    /// Whether the message of the next entry, which is there, is in its sender's heap.
    #[inline]
    pub(crate) fn is_announced(&self) -> bool {
        self.consumer.is_stamped() && self.memory.is_announced(self.consumer.next())
    }

    /// Such a message of so many bytes.
    #[inline]
    pub(crate) fn message(&self, len: u64) -> Result<Announced, Fault> {
        match self.memory.announced_place(self.consumer.next()) {
            Place::Heap { offset } => match self.segment.heap_range(offset, len) {
                Some(message) => Ok(Announced::Mapped(message.cast_const())),
                None => Err(self.lost(format!("it announced {len} bytes at {offset}, outside its memory"))),
            },
            Place::Process { address } => match self.foreign {
                Some(foreign) => Ok(Announced::Elsewhere(foreign, address)),
                None => Err(self.lost("it announced memory that this rank never said it can read".into())),
            },
        }
    }

    /// Whether what was read of such a message counts: its sender has not taken it back.
    pub(crate) fn check_there(&self) -> Result<(), Fault> {
        let epoch = self.memory.announced_epoch(self.consumer.next());
        match is_still_there(self.segment.epoch(), epoch) {
            true => Ok(()),
            false => Err(self.lost("it took back a message while it was being read".into())),
        }
    }

    #[cold]
    pub(crate) fn lost(&self, message: String) -> Fault {
        Fault::Lost { peer: self.peer as Rank, message }
    }
}
