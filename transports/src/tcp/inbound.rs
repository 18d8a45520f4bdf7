//! The receiving side of a channel: which message meets which post, where its bytes go, and how far the sender may send.
//!
//! The k-th message meets the k-th post. Bytes of a message that a plain receive waits for go straight to memory. Bytes
//! that nobody waits for yet, or that wait to be folded with those of other sources, go to a bounded ring. A sender is
//! granted what has a place: all of the messages that plain receives wait for, and after them what fits the ring.

use super::raw::Place;
use super::ring::Ring;
use super::wire::{ALIGNMENT, MESSAGE_COST, cost};
use std::collections::VecDeque;
use ubccl_core::endpoint::Header;
use ubccl_core::plan::MAX_WINDOW_PER_PEER;

/// Messages of one lane from one peer: those posted and those arrived, until both and done with.
#[derive(Debug)]
pub(super) struct Inbound {
    /// In order; posts and arrivals each fill it from the front.
    entries: VecDeque<Entry>,
    /// Ordinal of the first entry.
    first: u64,
    /// Ordinal of the next post.
    posted: u64,
    /// Ordinal of the message that arrives, or arrives next.
    arriving: u64,
    /// Where the channel stands, see `wire`.
    position: u64,
    /// The limit that the sender was told.
    granted: u64,
    ring: Ring,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    ours: Option<Posting>,
    theirs: Option<Header>,
    received: u64,
    /// Where byte 0 is in the ring, if bytes of it are there.
    start: Option<u64>,
    /// Bytes that were folded.
    taken: u64,
    is_done: bool,
}

/// A post that waits for one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Posting {
    pub(super) header: Header,
    pub(super) source: Source,
    pub(super) destination: Destination,
}

/// One of the messages that a post waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Index of the post.
    pub(super) post: u32,
    /// Which of its sources.
    pub(super) number: u32,
}

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Destination {
    /// They are written there.
    Memory(Place),
    /// They are taken by a reduction, in multiples of this many.
    Fold { unit: u32 },
}

/// What bytes or a post led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing that anybody waits for.
    None,
    /// A plain receive has all its bytes.
    Arrived { post: u32, bytes: u64 },
    /// A source that had nothing to fold has something.
    Foldable { post: u32 },
}

/// Why a message cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not the one that was posted.
    Mismatch { theirs: Header, ours: Header },
    /// The peer breaks the rules.
    Protocol(&'static str),
}

/// Where the next bytes go.
pub(super) enum Target<'a> {
    Memory(Place),
    Ring(&'a mut [u8]),
}

impl Inbound {
    /// One whose sender begins with a limit of `ring_bytes`.
    pub(super) fn new(ring_bytes: u64) -> Self {
        Inbound {
            entries: VecDeque::new(),
            first: 0,
            posted: 0,
            arriving: 0,
            position: 0,
            granted: ring_bytes,
            ring: Ring::new(ring_bytes),
        }
    }

    /// Posts a receive.
    pub(super) fn post(&mut self, posting: Posting) -> Result<Outcome, Refusal> {
        self.warm();
        let index = (self.posted - self.first) as usize;
        self.posted += 1;
        if index == self.entries.len() {
            self.entries.push_back(Entry { ours: Some(posting), ..Entry::default() });
            return Ok(Outcome::None);
        }
        let is_arriving = self.posted - 1 == self.arriving;
        let entry = &mut self.entries[index];
        entry.ours = Some(posting);
        entry.check()?;
        if let Destination::Memory(into) = posting.destination {
            entry.empty(&self.ring, into);
            if is_arriving {
                // The rest of it does not go to the ring: there, the next message begins.
                self.ring.align();
            }
        }
        let outcome = self.outcome(index, false);
        self.settle();
        Ok(outcome)
    }

    /// A fragment begins to arrive.
    pub(super) fn begin(&mut self, header: Header, offset: u64, fragment: u32) -> Result<Outcome, Refusal> {
        self.warm();
        let index = (self.arriving - self.first) as usize;
        let is_new = self.entries.get(index).is_none_or(|entry| entry.theirs.is_none());
        let needs = u64::from(fragment) + if is_new { MESSAGE_COST } else { 0 };
        if self.granted.checked_sub(self.position).is_none_or(|room| needs > room) {
            return Err(Refusal::Protocol("sent more than was granted"));
        }
        if is_new {
            return self.begin_message(index, header, offset);
        }
        let entry = &self.entries[index];
        if entry.theirs != Some(header) || entry.received != offset {
            return Err(Refusal::Protocol("sent a fragment out of order"));
        }
        Ok(Outcome::None)
    }

    fn begin_message(&mut self, index: usize, header: Header, offset: u64) -> Result<Outcome, Refusal> {
        if offset != 0 {
            return Err(Refusal::Protocol("sent a message without its beginning"));
        }
        if index == self.entries.len() {
            self.entries.push_back(Entry::default());
        }
        let entry = &mut self.entries[index];
        entry.theirs = Some(header);
        entry.check()?;
        self.position += MESSAGE_COST;
        if !matches!(entry.ours, Some(Posting { destination: Destination::Memory(_), .. })) {
            entry.start = Some(self.ring.head() + MESSAGE_COST);
            self.ring.advance(MESSAGE_COST);
        }
        if header.len > 0 {
            return Ok(Outcome::None);
        }
        self.arriving += 1;
        let outcome = self.outcome(index, false);
        self.settle();
        Ok(outcome)
    }

    /// Where the next bytes of the fragment go: one piece, which may be less than the fragment.
    pub(super) fn target(&mut self) -> Target<'_> {
        match self.entries[(self.arriving - self.first) as usize] {
            Entry {
                ours: Some(Posting { destination: Destination::Memory(into), .. }), received, ..
            } => Target::Memory(into.from(received)),
            _ => Target::Ring(self.ring.space()),
        }
    }

    /// That many bytes were put where [`Inbound::target`] said.
    pub(super) fn fill(&mut self, bytes: u64) -> Outcome {
        let index = (self.arriving - self.first) as usize;
        let entry = &mut self.entries[index];
        let was_foldable = entry.is_foldable();
        entry.received += bytes;
        self.position += bytes;
        if entry.start.is_some() {
            self.ring.advance(bytes);
        }
        if entry.theirs.is_some_and(|theirs| theirs.len == entry.received) {
            self.position = self.position.next_multiple_of(ALIGNMENT);
            if entry.start.is_some() {
                self.ring.align();
            }
            self.arriving += 1;
        }
        let outcome = self.outcome(index, was_foldable);
        self.settle();
        outcome
    }

    /// Puts bytes of the fragment in their places; at most as many as it has left.
    pub(super) fn write(&mut self, mut bytes: &[u8], mut on_outcome: impl FnMut(Outcome)) {
        while !bytes.is_empty() {
            let len = match self.target() {
                Target::Memory(into) => {
                    let len = bytes.len().min(into.len());
                    into.write(&bytes[..len]);
                    len
                }
                Target::Ring(space) => {
                    let len = bytes.len().min(space.len());
                    space[..len].copy_from_slice(&bytes[..len]);
                    len
                }
            };
            assert!(len > 0, "granted bytes have a place");
            on_outcome(self.fill(len as u64));
            bytes = &bytes[len..];
        }
    }

    /// Bytes of a source that may be folded now: whole units, one piece.
    pub(super) fn foldable(&self, source: Source) -> &[u8] {
        let entry = &self.entries[self.find(source)];
        let start = entry.start.expect("what is folded goes through the ring");
        let unit = u64::from(entry.unit());
        let whole = (entry.received - entry.taken) / unit * unit;
        self.ring.piece(start + entry.taken, whole)
    }

    /// That many of [`Inbound::foldable`] were folded. Says whether there are more.
    pub(super) fn take(&mut self, source: Source, bytes: u64) -> bool {
        let index = self.find(source);
        let entry = &mut self.entries[index];
        entry.taken += bytes;
        entry.is_done = entry.theirs.is_some_and(|theirs| theirs.len == entry.taken);
        let is_foldable = entry.is_foldable();
        self.settle();
        is_foldable
    }

    /// A new limit, if it is time to tell the sender. Few grants are better than many, but one that waits for a grant
    /// must get what there is.
    pub(super) fn grant_due(&mut self) -> Option<u64> {
        let limit = self.limit();
        let is_new = limit > self.granted;
        let is_much = limit.saturating_sub(self.granted) >= self.ring.capacity() / 4;
        let is_low = self.granted.saturating_sub(self.position) < self.ring.capacity() / 2;
        (is_new && (is_much || is_low)).then(|| {
            self.granted = limit;
            limit
        })
    }

    /// Headers of messages that no post has met.
    pub(super) fn unclaimed(&self) -> impl Iterator<Item = Header> + '_ {
        self.entries.iter().skip((self.posted - self.first) as usize).filter_map(|entry| entry.theirs)
    }

    /// The header of the first message that no post has met.
    pub(super) fn next_unclaimed(&self) -> Option<Header> {
        self.entries.get((self.posted - self.first) as usize).and_then(|entry| entry.theirs)
    }

    /// Whether a post waits for bytes.
    pub(super) fn is_waiting(&self) -> bool {
        self.posted > self.arriving
    }

    /// Forgets every post and message.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        (self.first, self.posted, self.arriving) = (0, 0, 0);
    }

    /// Bytes of its ring, none before the channel is used.
    pub(super) fn ring_bytes(&self) -> usize {
        self.ring.bytes()
    }

    /// Bytes of its queue.
    pub(super) fn queue_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// Takes its memory when the channel is first used: the ring, and entries for every post and message there can be.
    fn warm(&mut self) {
        if self.entries.capacity() == 0 {
            let unclaimed = self.ring.capacity() / MESSAGE_COST;
            self.entries.reserve(MAX_WINDOW_PER_PEER as usize + unclaimed as usize + 1);
            self.ring.warm();
        }
    }

    fn find(&self, source: Source) -> usize {
        let is_it = |entry: &Entry| entry.ours.is_some_and(|ours| ours.source == source) && !entry.is_done;
        self.entries.iter().position(is_it).expect("a source is in the queue until all of it is folded")
    }

    /// How far everything has a place.
    fn limit(&self) -> u64 {
        let (mut position, mut room) = (self.position, self.ring.free());
        for entry in self.entries.iter().skip((self.arriving - self.first) as usize) {
            let Some(Posting { header, destination, .. }) = entry.ours else { break };
            let all = cost(header.len);
            let rest = if entry.theirs.is_some() { all - MESSAGE_COST - entry.received } else { all };
            if let Destination::Fold { .. } = destination {
                if rest > room {
                    break;
                }
                room -= rest;
            }
            position = position.saturating_add(rest);
        }
        position.saturating_add(room)
    }

    fn outcome(&mut self, index: usize, was_foldable: bool) -> Outcome {
        let entry = &mut self.entries[index];
        let (Some(ours), Some(theirs)) = (entry.ours, entry.theirs) else { return Outcome::None };
        let post = ours.source.post;
        match ours.destination {
            Destination::Memory(_) if entry.received == theirs.len => {
                entry.is_done = true;
                Outcome::Arrived { post, bytes: theirs.len }
            }
            Destination::Fold { .. } if entry.is_foldable() && !was_foldable => Outcome::Foldable { post },
            _ => Outcome::None,
        }
    }

    /// Lets go of what is done with, and of ring memory before the oldest bytes still needed.
    fn settle(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.is_done) {
            self.entries.pop_front();
            self.first += 1;
        }
        let oldest = self.entries.iter().find(|entry| entry.start.is_some() && !entry.is_done);
        let kept = oldest.and_then(|entry| {
            let start = entry.start?;
            Some(match entry.taken {
                0 => start - MESSAGE_COST,
                taken => start + taken / ALIGNMENT * ALIGNMENT,
            })
        });
        self.ring.release(kept.unwrap_or(self.ring.head()));
    }
}

impl Entry {
    fn check(&self) -> Result<(), Refusal> {
        match (self.ours, self.theirs) {
            (Some(Posting { header: ours, .. }), Some(theirs)) if ours != theirs => {
                Err(Refusal::Mismatch { theirs, ours })
            }
            _ => Ok(()),
        }
    }

    fn unit(&self) -> u32 {
        match self.ours {
            Some(Posting { destination: Destination::Fold { unit }, .. }) => unit,
            _ => 1,
        }
    }

    /// Whether a reduction can go on, as far as this source is concerned.
    fn is_foldable(&self) -> bool {
        let is_fold = matches!(self.ours, Some(Posting { destination: Destination::Fold { .. }, .. }));
        is_fold
            && self
                .theirs
                .is_some_and(|theirs| theirs.len == 0 || self.received - self.taken >= u64::from(self.unit()))
    }

    /// Moves what arrived before its post out of the ring.
    fn empty(&mut self, ring: &Ring, into: Place) {
        let Some(start) = self.start.take() else { return };
        let mut moved = 0;
        while moved < self.received {
            let piece = ring.piece(start + moved, self.received - moved);
            into.from(moved).write(piece);
            moved += piece.len() as u64;
        }
    }
}
