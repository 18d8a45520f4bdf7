//! Sends: a small message goes into its entry and is done with, any other is announced and waits to be read.
#![allow(unsafe_code)] // reads the caller's memory

use super::channel::{Announcement, INLINE_BYTES, INLINE_ENTRIES};
use super::endpoint::ThreadsEndpoint;
use crate::local::label::Label;
use crate::local::queue::{MAX_PENDING, MAX_PENDING_PER_PEER};
use ubccl_core::Error;
use ubccl_core::endpoint::{Fault, HostPointer, Key, Posted, Span, Token};
use ubccl_core::plan::PeerRun;

/// Why the counter of consumed entries can be trusted.
const HONEST: &str = "the receiver's endpoint is the only one that counts what it consumed";

/// A send that somebody has still to read.
#[derive(Debug)]
pub(crate) struct SendOp {
    token: Token,
    len: u64,
    /// To how many peers it was announced.
    announced: u32,
}

impl ThreadsEndpoint {
    /// Tells every peer of the message.
    pub(crate) fn post_send(
        &mut self,
        token: Token,
        (channel, key): (usize, &Key),
        from: Span,
        to: &PeerRun,
    ) -> Result<Posted, Fault> {
        let message = self.memory.address(from)?;
        let label = Label::new(key, from.len);
        // First of all, so that nobody is told of a message that another cannot be told of.
        to.iter().try_for_each(|peer| self.index(peer, channel).map(drop))?;
        let (mut pending, mut left) = (None, to.len() as u32);
        for peer in to.iter().map(|peer| peer as usize) {
            // SAFETY: `address` checked the span against a region whose owner vouches for it while the post lives.
            let is_told = unsafe { self.send_inline((peer, channel), &label, message) };
            match pending {
                Some(number) if is_told => {
                    self.world.seat(self.rank).read(channel, number);
                }
                None if is_told => {}
                known => {
                    let number = match known {
                        Some(number) => number,
                        None => {
                            self.begin_send(channel, SendOp { token, len: from.len, announced: 0 }, left)?
                        }
                    };
                    pending = Some(number);
                    self.announce((peer, channel), &label, message, number)?;
                }
            }
            self.bells.mark(peer);
            left -= 1;
        }
        Ok(if pending.is_some() { Posted::Pending } else { Posted::Done })
    }

    /// Copies a message into an entry, if it is small and few are unread.
    ///
    /// # Safety
    /// `message` is valid for reads of `label.len()` bytes.
    #[inline]
    unsafe fn send_inline(
        &mut self,
        (peer, channel): (usize, usize),
        label: &Label,
        message: *const u8,
    ) -> bool {
        let ring = self.world.ring(self.rank, peer, channel);
        let producer = &mut self.outgoing[peer * self.world.channels() + channel];
        let is_small = label.len() <= INLINE_BYTES;
        if !is_small || !producer.has_room_within(INLINE_ENTRIES, &*ring.consumed).expect(HONEST) {
            return false;
        }
        let entry = ring.blank(producer.next());
        // SAFETY: there is room, so the entry is ours; the message is small, and the caller vouches for it.
        unsafe { entry.write_inline(label, message) };
        producer.publish(entry.stamp());
        self.counters.messages_sent += 1;
        self.counters.bytes_sent += label.len();
        true
    }

    /// Begins a send that so many peers have still to be told of.
    fn begin_send(&mut self, channel: usize, op: SendOp, peers: u32) -> Result<u16, Fault> {
        let number = self.sends[channel].insert(op).ok_or_else(|| too_many(channel))?;
        self.world.seat(self.rank).set_unread(channel, number, peers);
        Ok(number)
    }

    /// Tells a peer where a message is.
    fn announce(
        &mut self,
        (peer, channel): (usize, usize),
        label: &Label,
        message: *const u8,
        number: u16,
    ) -> Result<(), Fault> {
        let ring = self.world.ring(self.rank, peer, channel);
        let producer = &mut self.outgoing[peer * self.world.channels() + channel];
        if !producer.has_room(&*ring.consumed).expect(HONEST) {
            return Err(too_many_with(peer, channel).into());
        }
        let entry = ring.blank(producer.next());
        let address = HostPointer(message.expose_provenance());
        let epoch = self.world.seat(self.rank).epoch();
        entry.announce(label, &Announcement { address, epoch, send: number });
        producer.publish(entry.stamp());
        self.sends[channel].get_mut(number).announced += 1;
        Ok(())
    }

    /// Completes the sends that everybody has read.
    pub(crate) fn poll_sends(&mut self, done: &mut Vec<Token>) -> bool {
        let before = done.len();
        for channel in 0..self.sends.len() {
            let mut from = 0;
            while let Some(number) = self.sends[channel].next(from) {
                from = number + 1;
                if self.world.seat(self.rank).unread(channel, number) == 0 {
                    let op = self.sends[channel].remove(number);
                    self.counters.messages_sent += u64::from(op.announced);
                    self.counters.bytes_sent += u64::from(op.announced) * op.len;
                    done.push(op.token);
                }
            }
        }
        done.len() > before
    }

    /// Whether a send has been read by everybody and not been told so.
    pub(crate) fn has_read_sends(&self) -> bool {
        let seat = self.world.seat(self.rank);
        (0..self.sends.len()).any(|channel| {
            let mut from = 0;
            while let Some(number) = self.sends[channel].next(from) {
                if seat.unread(channel, number) == 0 {
                    return true;
                }
                from = number + 1;
            }
            false
        })
    }
}

/// More posts than the contract allows.
pub(crate) fn too_many(channel: usize) -> Error {
    Error::internal(format!("more than {MAX_PENDING} posts wait on channel {channel}"))
}

/// More posts with one peer than the contract allows.
pub(crate) fn too_many_with(peer: usize, channel: usize) -> Error {
    Error::internal(format!(
        "more than {MAX_PENDING_PER_PEER} posts with rank {peer} wait on channel {channel}"
    ))
}
