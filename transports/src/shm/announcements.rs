//! Messages that stay where they are: a long one that lies in its sender's heap is not copied into slots but announced, by
//! one entry that says where, and its receiver reads it there.
//!
//! The entry is in the ring until the receiver is through with the message, so the ring's counter of consumed entries is
//! the acknowledgement that completes the send. A sender that gives up before that counts its epoch on, and only then
//! lets go of the memory; what a receiver has read counts only if the epoch is still the one of the announcement.

use super::endpoint::{Incoming, Outgoing, ShmEndpoint, Step};
use super::sends::spoilt;
use crate::local::announcement::{is_still_there, take_back};
use crate::local::label::Label;
use std::sync::atomic::Ordering;
use ubccl_core::Rank;
use ubccl_core::endpoint::{Fault, Token};

/// From so many bytes on reading a message in place is worth the wait for the acknowledgement.
pub(crate) const LEAST_BYTES: u64 = 4096;

/// A message of this rank in its heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where in the heap.
    offset: u64,
}

/// An announced message that its receiver has not read to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unread {
    /// The entry that tells of it.
    entry: u64,
    /// The number of its send.
    send: u16,
}

impl ShmEndpoint {
    /// Where a message is, if it can be announced.
    #[inline]
    pub(crate) fn place(&self, message: *const u8, len: u64) -> Option<Place> {
        if len < LEAST_BYTES {
            return None;
        }
        self.own.heap_offset(message.addr(), len).map(|offset| Place { offset })
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
        out.memory.write_announcement(entry, &label.announced(), [place.offset, epoch]);
        out.producer.publish(out.memory.stamp(entry));
        out.unread.push_back(Unread { entry, send });
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
        if self.outgoing.iter().any(|out| !out.unread.is_empty()) {
            take_back(self.own.epoch());
        }
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
        Ok(if is_read { self.unread.pop_front().map(|first| first.send) } else { None })
    }
}

impl Incoming {
    /// Whether the message of the next entry, which is there, is in its sender's heap.
    #[inline]
    pub(crate) fn is_announced(&self) -> bool {
        self.memory.is_announced(self.consumer.next())
    }

    /// The first byte of such a message of so many bytes.
    #[inline]
    pub(crate) fn message(&self, len: u64) -> Result<*const u8, Fault> {
        let [offset, _] = self.memory.announcement(self.consumer.next());
        match self.segment.heap_range(offset, len) {
            Some(message) => Ok(message.cast_const()),
            None => Err(self.lost(format!("it announced {len} bytes at {offset}, outside its memory"))),
        }
    }

    /// Whether what was read of such a message counts: its sender has not taken it back.
    pub(crate) fn check_there(&self) -> Result<(), Fault> {
        let [_, epoch] = self.memory.announcement(self.consumer.next());
        match is_still_there(self.segment.epoch(), epoch) {
            true => Ok(()),
            false => Err(self.lost("it took back a message while it was being read".into())),
        }
    }

    #[cold]
    fn lost(&self, message: String) -> Fault {
        Fault::Lost { peer: self.peer as Rank, message }
    }
}
