//! The sending side of a channel: messages in order, cut into fragments as far as the receiver has places.

use super::raw::Place;
use super::wire::{ALIGNMENT, FRAGMENT_BYTES, Frame, MESSAGE_COST};
use std::collections::VecDeque;
use ubccl_core::endpoint::Header;
use ubccl_core::plan::MAX_WINDOW_PER_PEER;

/// Messages of one lane to one peer that are not wholly handed on.
#[derive(Debug)]
pub(super) struct Outbound {
    queue: VecDeque<Outgoing>,
    position: u64,
    limit: u64,
}

/// A message that is being sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing {
    pub(super) header: Header,
    pub(super) from: Place,
    /// Index of its post.
    pub(super) post: u32,
    /// Bytes that went into fragments.
    pub(super) sent: u64,
}

/// A part of a message, ready to be written.
#[derive(Debug)]
pub(super) struct Fragment {
    pub(super) frame: Frame,
    pub(super) payload: Place,
    /// The message that it completes.
    pub(super) completes: Option<Sent>,
}

/// A message that went out wholly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) post: u32,
    pub(super) bytes: u64,
}

impl Outbound {
    /// One that may send up to `limit` at first.
    pub(super) fn new(limit: u64) -> Self {
        Outbound { queue: VecDeque::new(), position: 0, limit }
    }

    pub(super) fn push(&mut self, message: Outgoing) {
        if self.queue.capacity() == 0 {
            self.queue.reserve(MAX_WINDOW_PER_PEER as usize);
        }
        self.queue.push_back(message);
    }

    /// The receiver has places up to here.
    pub(super) fn grant(&mut self, limit: u64) -> Result<(), &'static str> {
        if limit < self.limit {
            return Err("a grant that takes back an earlier one");
        }
        self.limit = limit;
        Ok(())
    }

    /// Whether [`Outbound::next`] has something.
    pub(super) fn is_ready(&self) -> bool {
        self.queue.front().is_some_and(|message| self.fits(message).is_some())
    }

    /// The next fragment, if there is one and the receiver has a place for it.
    pub(super) fn next(&mut self, lane: usize) -> Option<Fragment> {
        let message = self.queue.front()?;
        let (begin, len) = self.fits(message)?;
        let Outgoing { header, from, post, sent } = *message;
        let frame = Frame::Data { lane, header, offset: sent, fragment: len as u32 };
        self.position += begin + len;
        let is_last = sent + len == header.len;
        if is_last {
            self.position = self.position.next_multiple_of(ALIGNMENT);
            self.queue.pop_front();
        } else if let Some(message) = self.queue.front_mut() {
            message.sent += len;
        }
        Some(Fragment {
            frame,
            payload: from.part(sent, len),
            completes: is_last.then_some(Sent { post, bytes: header.len }),
        })
    }

    /// The cost of beginning it, if it has not begun, and the bytes of it that the receiver has places for.
    fn fits(&self, message: &Outgoing) -> Option<(u64, u64)> {
        let begin = if message.sent == 0 { MESSAGE_COST } else { 0 };
        let room = self.limit.checked_sub(self.position)?.checked_sub(begin)?;
        let len = (message.header.len - message.sent).min(room).min(FRAGMENT_BYTES);
        (len > 0 || message.header.len == 0).then_some((begin, len))
    }

    /// Bytes of its queue.
    pub(super) fn queue_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<Outgoing>()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }
}
