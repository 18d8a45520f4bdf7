//! Receives, reductions and copies: one kind of pending work, because all combine sources into a destination.
#![allow(unsafe_code)] // reads entries and the memory of other threads

use super::channel::{Content, INLINE_BYTES};
use super::endpoint::{Incoming, ThreadsEndpoint};
use super::sends::{too_many, too_many_with};
use super::world::World;
use crate::host::HostMemory;
use crate::local::label::Label;
use parking_lot::MutexGuard;
use ubccl_core::endpoint::{Fault, Key, Post, Posted, Span, Token};
use ubccl_core::plan::PeerRun;
use ubccl_core::{DataType, Error, Rank, ReduceOp, kernels};

/// How far an attempt to move a post got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Not every source is there.
    Stuck,
    /// One bite moved, more to come.
    Moved,
    /// The last bite moved.
    Finished,
}

/// A receive that waits.
#[derive(Debug)]
pub(crate) struct ReceiveOp {
    token: Token,
    /// What every message has to say of itself.
    pub(crate) label: Label,
    /// From whom, in order; this rank itself stands for `own`.
    pub(crate) sources: PeerRun,
    own: Span,
    into: Span,
    /// How to combine; nothing to combine if there is one source.
    fold: Option<(DataType, ReduceOp)>,
    /// Bytes that are finished.
    done: u64,
    /// How many sources are known to be there.
    pub(crate) ready: usize,
}

impl ReceiveOp {
    /// Whether no byte was taken yet.
    pub(crate) fn is_untouched(&self) -> bool {
        self.done == 0
    }
}

impl ThreadsEndpoint {
    /// Takes the first bite at once if it is there.
    pub(crate) fn post_receive(
        &mut self,
        token: Token,
        (channel, key): (usize, &Key),
        post: &Post,
    ) -> Result<Posted, Fault> {
        let op = self.receive_op(token, key, post)?;
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
        }
        if self.advance(channel, number)? == Step::Finished {
            self.receives[channel].remove(number);
            return Ok(Posted::Done);
        }
        Ok(Posted::Pending)
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
        let is_read = sources.iter().any(|peer| peer as usize == self.rank);
        let own = if is_read { own } else { into }; // else it need not be anything
        let size = fold.map_or(1, |(dtype, _)| dtype.size() as u64);
        let is_foreign = |peer: Rank| peer as usize >= self.world.ranks();
        let is_cut = own.len != into.len || !into.len.is_multiple_of(size);
        if sources.is_empty() || sources.iter().any(is_foreign) || is_cut {
            let ranks = self.world.ranks();
            let message = format!("{sources:?} of {ranks} ranks combined from {own:?} into {into:?}");
            return Err(Error::internal(message).into());
        }
        // Once here, so that a wrong span is found before anything moves.
        self.memory.address(own)?;
        self.memory.address(into)?;
        let label = Label::new(key, into.len);
        Ok(ReceiveOp { token, label, sources, own, into, fold, done: 0, ready: 0 })
    }

    /// Moves one bite of every receive whose sources are all there.
    pub(crate) fn poll_receives(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault> {
        let mut moved = false;
        for channel in 0..self.receives.len() {
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

    /// Moves one bite of one receive, if it can.
    #[inline]
    fn advance(&mut self, channel: usize, number: u16) -> Result<Step, Fault> {
        if !self.gather(channel, number)? {
            return Ok(Step::Stuck);
        }
        self.combine(channel, number)
    }

    /// Whether every source is there and is what this rank called for. Goes on where it got stuck last time.
    fn gather(&mut self, channel: usize, number: u16) -> Result<bool, Fault> {
        let op = self.receives[channel].get(number);
        let (mut ready, label) = (op.ready, op.label);
        while ready < op.sources.len() {
            let peer = op.sources.get(ready) as usize;
            if peer != self.rank {
                let index = peer * self.world.channels() + channel;
                let is_next = self.incoming[index].queue.front() == Some(number);
                let Some(theirs) = is_next.then(|| self.arrived(index)).flatten() else { break };
                if theirs != label {
                    let (theirs, ours) = (theirs.header(), label.header());
                    return Err(Fault::Mismatch { peer: peer as Rank, theirs, ours });
                }
            }
            ready += 1;
        }
        let is_complete = ready == op.sources.len();
        self.receives[channel].get_mut(number).ready = ready;
        Ok(is_complete)
    }

    /// Combines the next bite of all sources into the destination; with the last one the senders are told.
    fn combine(&mut self, channel: usize, number: u16) -> Result<Step, Fault> {
        let world = &*self.world;
        let op = self.receives[channel].get_mut(number);
        let bite = (op.label.len() - op.done).min(HostMemory::BITE as u64);
        let into = Span { offset: op.into.offset + op.done, len: bite, ..op.into };
        let own = self.memory.address(op.own)?.wrapping_add(op.done as usize);
        let sources = Sources { world, rank: self.rank, channel, incoming: &self.incoming };
        let found = sources.find(op, own, &mut self.pointers.0);
        let combined = found.and_then(|reading| {
            // SAFETY: `find` answered pointers that are valid for the bite while it is being read.
            unsafe { run_kernel(&self.memory, op.fold, &self.pointers.0, into) }?;
            Ok(reading)
        });
        self.pointers.0.clear();
        // Kept to the end: a sender that withdraws must not begin anew before its old sends are counted down.
        let _reading = combined?;
        op.done += bite;
        if op.done < op.label.len() {
            return Ok(Step::Moved);
        }
        for peer in op.sources.iter().map(|peer| peer as usize).filter(|&peer| peer != self.rank) {
            let incoming = &mut self.incoming[peer * world.channels() + channel];
            if incoming.finish(world, (peer, self.rank, channel)) {
                self.bells.mark(peer);
            }
            self.counters.messages_received += 1;
            self.counters.bytes_received += op.label.len();
        }
        Ok(Step::Finished)
    }

    /// Whether a receive that waits could move: one that needs nobody else always can, another if the source it waits
    /// for is there.
    pub(crate) fn can_receive(&self) -> bool {
        (0..self.receives.len()).any(|channel| {
            let mut from = 0;
            while let Some(number) = self.receives[channel].next(from) {
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
        let index = peer * self.world.channels() + channel;
        peer == self.rank
            || self.incoming[index].queue.front() == Some(number) && self.arrived(index).is_some()
    }
}

impl Incoming {
    /// Is done with the message at the head; whether its sender has to be told that all have read it.
    fn finish(&mut self, world: &World, (peer, rank, channel): (usize, usize, usize)) -> bool {
        let ring = world.ring(peer, rank, channel);
        let content = ring.entry(self.consumer.next()).expect("it was found there").content();
        self.queue.pop();
        // Before the send is counted down: then its sender may post again, and finds the entry free.
        self.consumer.take(&*ring.consumed, true);
        match content {
            Content::Inline(_) => false,
            Content::Announced(announcement) => world.seat(peer).read(channel, announcement.send),
        }
    }
}

/// Where the sources of one receive are.
struct Sources<'w, 'i> {
    world: &'w World,
    rank: usize,
    channel: usize,
    incoming: &'i [Incoming],
}

impl<'w> Sources<'w, '_> {
    /// Finds the next bite of every source, in order. If any is in another rank's memory, the answer is the lock under
    /// which it may be read: until it is dropped, that rank withdraws nothing.
    fn find(
        &self,
        op: &ReceiveOp,
        own: *const u8,
        pointers: &mut Vec<*const u8>,
    ) -> Result<Option<MutexGuard<'w, ()>>, Fault> {
        let mut reading = None;
        for peer in op.sources.iter().map(|peer| peer as usize) {
            if peer == self.rank {
                pointers.push(own);
                continue;
            }
            pointers.push(match self.content(peer) {
                Content::Inline(payload) => {
                    debug_assert!(op.done == 0 && op.label.len() <= INLINE_BYTES);
                    payload
                }
                Content::Announced(announcement) => {
                    reading.get_or_insert_with(|| self.world.seat(self.rank).begin_reading());
                    if !self.world.seat(peer).may_be_read(announcement.epoch) {
                        return Err(withdrawn(peer, op.label.len()));
                    }
                    let message: *const u8 = std::ptr::with_exposed_provenance(announcement.address.0);
                    message.wrapping_add(op.done as usize)
                }
            });
        }
        Ok(reading)
    }

    fn content(&self, peer: usize) -> Content {
        let consumer = &self.incoming[peer * self.world.channels() + self.channel].consumer;
        let entry = self.world.ring(peer, self.rank, self.channel).entry(consumer.next());
        entry.expect("`gather` found it").content()
    }
}

#[cold]
fn withdrawn(peer: usize, len: u64) -> Fault {
    let message =
        format!("it withdrew a message of {len} bytes before it was read: it has given up or is gone");
    Fault::Lost { peer: peer as Rank, message }
}

/// # Safety
/// Every source is valid for `into.len` bytes, and is `into` itself or apart from it.
#[inline]
unsafe fn run_kernel(
    memory: &HostMemory,
    fold: Option<(DataType, ReduceOp)>,
    sources: &[*const u8],
    into: Span,
) -> Result<(), Error> {
    match fold {
        // SAFETY: as the caller vouches.
        Some(fold) => unsafe { memory.reduce(fold, sources, into) },
        None => {
            let destination = memory.address(into)?;
            // SAFETY: as the caller vouches; `address` checked the destination.
            unsafe { kernels::copy_fresh(sources[0], destination, into.len as usize) };
            Ok(())
        }
    }
}
