//! Sends: copying messages into the channels of their receivers.
#![allow(unsafe_code)] // reads the caller's memory

use super::announcements::Place;
use super::channel::{Bites, INLINE_BYTES, NARROWEST_MESSAGE, Spot};
use super::endpoint::{AT_ONCE, ShmEndpoint, Step};
use crate::local::label::Label;
use crate::local::queue::{MAX_PENDING, MAX_PENDING_PER_PEER};
use crate::local::ring::Corrupt;
use crate::local::ways::Ways;
use ubccl_core::endpoint::{Fault, HostPointer, Key, MessageNow, Now, Posted, Span, Token};
use ubccl_core::plan::PeerRun;
use ubccl_core::{Error, Rank};

/// The most bites that are shown together: each look at a stamp is a line's way. Those of an exchange are from the first on,
/// since the receiver is still sending itself, and it does not matter when they are there. (Measured on Zen 4, one by one ->
/// by fours, all-reduce of 64 KiB 5.0 -> 4.7 us, 512 KiB 37.3 -> 35.3.)
///
/// A receiver that only waits is to begin early, and not to have much left when the last is there: to it, no more are shown
/// together than were shown before, nor than half of what is left. (Near, one by one -> like this: ping-pong 512 KiB 20.5 ->
/// 19.3 us, 1 MiB 41.2 -> 36.9, 4 MiB 240 -> 207, broadcast 512 KiB 23.2 -> 19.1, 1 MiB 46 -> 38.6; by fours all along is a
/// loss at tens of KiB, eight no better than four.)
const TOGETHER: u64 = 4;

/// To a far receiver, whose bites go past the caches: a message is shown in so many parts, of at most so many bites. The
/// sender waits for memory once for each part, and the receiver reads one while the next is written. (C model on Zen 4, far,
/// shown by 8 KiB -> like this: 64 KiB 6.3 -> 5.6 us, 256 KiB 24 -> 19, 512 KiB 47 -> 28, 1 MiB 94 -> 63.)
const FAR_PARTS: u64 = 4;
const FAR_TOGETHER: u64 = 8;

/// Messages longer than this that are answered by others as long go round in half of a ring's slots, if that half is as much
/// as a private cache has: so much moves through the receiver's caches that it has lost the lines of a slot when the slot is
/// written again, and the smaller rings are, the more of the cache that both share is left to buffers. Those of an exchange
/// do from a shorter length on ([`NARROWEST_MESSAGE`]), since each rank writes as much besides. Outputs that go past the
/// caches displace nothing: these messages have all slots, and so do those that nobody answers. (Measured on Zen 4 with 1 MiB
/// and 32 MiB, near, whole ring -> half: ping-pong 128 KiB 4.4 -> 5.4 us, 256 KiB 8.4 -> 8.9, 384 KiB 13.7 -> 13.1, 2 MiB
/// 80 -> 68, 4 MiB 216 to 358 -> 186 to 196, streamed 8 MiB 567 -> 754; exchanged by 64 KiB 5.5 -> 6.5, 96 KiB 11.4 -> 8.8,
/// 1 MiB 94 -> 90, all-gather of 4 MiB 220 -> 189, all-reduce 403 -> 346; broadcast of 4 MiB 144 -> 155.)
const NARROW: u64 = 256 << 10;
const NARROWEST_RING: usize = 1 << 20;

/// A send that waits for room on one channel or more.
#[derive(Debug)]
pub(crate) struct SendOp {
    token: Token,
    label: Label,
    from: HostPointer,
    /// Where peers read it, if it is announced to them.
    place: Option<Place>,
    /// Peers that do not have all of it yet.
    waiting: u32,
}

impl ShmEndpoint {
    /// Sends what fits at once, some bites if there is one peer and one to each of several; the rest waits.
    pub(crate) fn post_send(
        &mut self,
        token: Token,
        (channel, key): (usize, &Key),
        from: Span,
        to: &PeerRun,
    ) -> Result<Posted, Fault> {
        let message = self.memory.address(from)?;
        let label = Label::new(key, from.len);
        if Ways::matter(from.len) {
            let is_of_collectives = self.is_of_collectives(channel);
            for peer in to.iter() {
                let index = self.index(peer, channel)?;
                let out = &mut self.outgoing[index];
                out.is_two_way = std::mem::take(&mut out.is_answered);
                out.is_exchange = out.is_two_way && is_of_collectives;
            }
        }
        let place = self.place(message, from.len, (channel, key, to))?;
        let mut pending = None;
        let at_once = if to.len() == 1 { AT_ONCE } else { 1 };
        for peer in to.iter() {
            let index = self.index(peer, channel)?;
            if place.is_none() && self.outgoing[index].queue.is_empty() {
                // SAFETY: `address` checked the span against a region whose owner vouches for it while the post lives.
                let step = unsafe { self.push(index, &label, message, at_once) }?;
                if step == Step::Finished {
                    continue;
                }
            }
            let from = HostPointer(message.expose_provenance());
            let op = SendOp { token, label, from, place, waiting: 0 };
            let number = match pending {
                Some(number) => number,
                None => self.sends[channel].insert(op).ok_or_else(|| too_many(channel))?,
            };
            pending = Some(number);
            self.queue_send(index, channel, number)?;
            if let Some(place) = place
                && self.outgoing[index].queue.front() == Some(number)
                && self.announce(index, &label, (place, number))? == Step::Finished
            {
                self.leave_queue(index);
            }
        }
        Ok(if pending.is_some() { Posted::Pending } else { Posted::Done })
    }

    /// Sends a message if there is room for all of it now.
    ///
    /// # Safety
    /// As for `Endpoint::message_now`.
    #[inline]
    pub(crate) unsafe fn send_now(
        &mut self,
        index: usize,
        key: &Key,
        message: &MessageNow,
    ) -> Result<Now, Fault> {
        let MessageNow { len, memory: HostPointer(address), .. } = *message;
        let from = std::ptr::with_exposed_provenance(address);
        if !self.outgoing[index].queue.is_empty() || self.heap_place(from, len).is_some() {
            return Ok(Now::Never);
        }
        if Ways::matter(len) {
            // If there is no room, it is posted, and the answer counts then.
            self.outgoing[index].is_two_way = self.outgoing[index].is_answered;
        }
        let is_narrow = self.is_narrow(index, len);
        let out = &mut self.outgoing[index];
        let bites = match len {
            ..=INLINE_BYTES => 1,
            _ => len.div_ceil(out.memory.slot_bytes() as u64),
        };
        if is_narrow {
            out.producer.halve();
        }
        let has_room = out.producer.has_room_for(bites, out.memory.consumed());
        if !has_room.map_err(|corrupt| spoilt(out.peer, corrupt))? {
            return Ok(Now::Never);
        }
        // SAFETY: the caller vouches.
        let step = unsafe { self.push(index, &Label::new(key, len), from, u64::MAX) }?;
        debug_assert_eq!(step, Step::Finished);
        self.outgoing[index].is_answered &= !Ways::matter(len);
        Ok(Now::Done)
    }

    fn queue_send(&mut self, index: usize, channel: usize, number: u16) -> Result<(), Fault> {
        let queue = &mut self.outgoing[index].queue;
        if queue.back() == Some(number) {
            return Err(Error::internal("a send names the same rank twice").into());
        }
        if !queue.push(number) {
            return Err(too_many_with(index / self.channels, channel).into());
        }
        self.sending.insert(index);
        self.sends[channel].get_mut(number).waiting += 1;
        Ok(())
    }

    /// Moves one bite on every channel that has a send waiting and room for it.
    pub(crate) fn poll_sends(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault> {
        let (mut moved, mut from) = (false, 0);
        while let Some(index) = self.sending.next(from) {
            moved |= self.poll_send(index, done)?;
            from = index + 1;
        }
        Ok(moved)
    }

    fn poll_send(&mut self, index: usize, done: &mut Vec<Token>) -> Result<bool, Fault> {
        let channel = index % self.channels;
        let number =
            self.outgoing[index].queue.front().expect("`sending` names channels that have a send waiting");
        let op = self.sends[channel].get(number);
        let (label, message, place) = (op.label, op.from.0 as *const u8, op.place);
        let step = match place {
            Some(place) => self.announce(index, &label, (place, number)),
            // SAFETY: checked when it was posted; its owner vouches for it until the send completes or is cancelled.
            None => unsafe { self.push(index, &label, message, AT_ONCE) },
        };
        match step? {
            Step::Stuck => return Ok(false),
            Step::Moved => return Ok(true),
            Step::Finished => self.leave_queue(index),
        }
        if place.is_none() {
            self.has_read(channel, number, done);
        }
        Ok(true)
    }

    /// The first send of a channel makes room for the next.
    fn leave_queue(&mut self, index: usize) {
        let queue = &mut self.outgoing[index].queue;
        queue.pop();
        if queue.is_empty() {
            self.sending.remove(index);
        }
    }

    /// One peer more has all of a send.
    pub(crate) fn has_read(&mut self, channel: usize, number: u16, done: &mut Vec<Token>) {
        let op = self.sends[channel].get_mut(number);
        op.waiting -= 1;
        if op.waiting == 0 {
            done.push(self.sends[channel].remove(number).token);
        }
    }

    /// Whether a message of so many bytes goes round in half of the slots.
    #[inline]
    fn is_narrow(&self, index: usize, len: u64) -> bool {
        let out = &self.outgoing[index];
        len > if out.is_exchange { NARROWEST_MESSAGE } else { NARROW }
            && out.is_two_way
            && !out.stores.is_far()
            && out.memory.half_bytes() >= NARROWEST_RING
            && !self.is_beyond_caches(len)
    }

    /// Copies bites of the message at the head of a channel while there is room, until `at_once` bytes have gone.
    ///
    /// # Safety
    /// `message` is valid for reads of `label.len()` bytes.
    #[inline]
    unsafe fn push(
        &mut self,
        index: usize,
        label: &Label,
        message: *const u8,
        at_once: u64,
    ) -> Result<Step, Fault> {
        let is_narrow = self.is_narrow(index, label.len());
        let out = &mut self.outgoing[index];
        let enough = out.sent.saturating_add(at_once);
        let mut step = Step::Stuck;
        let slot_bytes = out.memory.slot_bytes() as u64;
        let is_far = out.stores.is_far();
        loop {
            let together = match out.is_exchange {
                _ if is_far => (label.len() / FAR_PARTS / slot_bytes).clamp(1, FAR_TOGETHER),
                true => TOGETHER,
                false if out.sent == 0 => 1,
                false => {
                    let left = label.len() - out.sent;
                    (out.sent.min(left / 2) / slot_bytes).clamp(1, TOGETHER)
                }
            };
            let (mut bites, mut is_timed) = (0, false);
            let first = out.producer.next();
            if is_narrow {
                out.producer.halve();
            }
            let spot = Spot { first, number: first, is_narrow };
            let together = together.min(out.memory.up_to_the_end(spot));
            while bites < together && (bites == 0 || out.sent < label.len()) {
                match out.producer.has_room_for(bites + 1, out.memory.consumed()) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(corrupt) => {
                        out.sent = 0; // whatever is sent next is another message
                        return Err(spoilt(out.peer, corrupt));
                    }
                }
                // SAFETY: the caller vouches for the message; there is room, so the entry is ours.
                let bite = unsafe {
                    let spot = Spot { number: first + bites, ..spot };
                    out.memory.fill(spot, label, message, out.sent, &mut out.stores)
                };
                out.sent += bite.bytes;
                is_timed |= bite.is_timed;
                bites += 1;
            }
            if bites == 0 {
                return Ok(step);
            }
            out.memory.write_label(first, label, Bites { entries: bites, is_narrow, is_timed });
            out.stores.settle();
            out.producer.publish_all(bites, out.memory.stamp(first));
            self.bells.mark(out.peer);
            if out.sent == label.len() {
                (out.sent, out.last_len) = (0, label.len());
                out.counters.sent(label.len());
                return Ok(Step::Finished);
            }
            step = Step::Moved;
            if out.sent >= enough {
                return Ok(step);
            }
        }
    }

    /// Whether a send that waits has room by now.
    pub(crate) fn can_send(&mut self) -> bool {
        let mut from = 0;
        while let Some(index) = self.sending.next(from) {
            let out = &mut self.outgoing[index];
            // What cannot be is for the poll to tell.
            if out.producer.has_room(out.memory.consumed()) != Ok(false) {
                return true;
            }
            from = index + 1;
        }
        false
    }
}

/// More posts than the contract allows.
pub(crate) fn too_many(channel: usize) -> Error {
    Error::internal(format!("more than {} posts wait on channel {channel}", MAX_PENDING))
}

/// More posts with one peer than the contract allows.
pub(crate) fn too_many_with(peer: usize, channel: usize) -> Error {
    Error::internal(format!(
        "more than {MAX_PENDING_PER_PEER} posts with rank {peer} wait on channel {channel}"
    ))
}

#[cold]
pub(crate) fn spoilt(peer: usize, Corrupt { consumed, written }: Corrupt) -> Fault {
    let message = format!("its shared memory is spoilt: it says it took {consumed} entries of {written}");
    Fault::Lost { peer: peer as Rank, message }
}
