//! Places for operations: taken when one is issued, used again and again, so that warm operations allocate nothing.

use super::loose::Standing;
use super::tagged::{TaggedCall, Unexpected};
use crate::executor::Execution;
use crate::planned::Planned;
use crate::round::Places;
use crate::usage::MemoryUse;
use std::any::Any;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::task::Waker;
use ubccl_core::collective::CallStore;
use ubccl_core::endpoint::{HostPointer, Memory, Stream};
use ubccl_core::usage::MemoryKind;
use ubccl_core::{Collective, Error, Rank, Result, Signature};

/// The memory of a call.
#[derive(Clone, Debug)]
pub(crate) enum Buffers {
    /// Input and output apart.
    Apart {
        /// What the rank brings.
        input: Memory,
        /// Where the result goes.
        output: Memory,
    },
    /// One buffer, laid out by [`Collective::in_place_offsets`].
    InPlace(Memory),
}

impl Buffers {
    /// Whether they hold fingerprints; then so does the scratch.
    pub(crate) fn is_phantom(&self) -> bool {
        let (Buffers::Apart { output: memory, .. } | Buffers::InPlace(memory)) = self;
        matches!(memory, Memory::Phantom { .. })
    }
}

impl Buffers {
    /// Where input and output are in real memory; none if they are not.
    #[inline]
    pub(crate) fn places(&self, call: &Collective<'_>, rank: Rank) -> Option<Places> {
        match self {
            Buffers::Apart {
                input: Memory::Host { address: input, .. },
                output: Memory::Host { address: output, .. },
            } => Some(Places { input: *input, output: *output }),
            Buffers::InPlace(Memory::Host { address: HostPointer(address), .. }) => {
                let place = |offset: u64| HostPointer(address + offset as usize * call.dtype().size());
                let (input, output) = call.in_place_offsets(rank);
                Some(Places { input: place(input), output: place(output) })
            }
            _ => None,
        }
    }
}

/// Names an issued operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpId {
    pub(super) slot: usize,
    generation: u64,
}

/// How an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Under way or waiting for its turn.
    Pending,
    /// Completed; its buffers may be used.
    Done,
}

/// What an operation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// A collective, in the queue.
    #[default]
    Collective,
    /// Point to point.
    Loose,
    /// A tagged message to this rank itself: it brings an unexpected message.
    ToItself,
    /// Nobody's: it brings an unexpected message.
    Absorbing,
}

/// What an operation leaves.
#[derive(Debug)]
pub(crate) struct Taken {
    /// What it owned.
    pub(crate) owned: Option<Box<dyn Any + Send>>,
    /// Whose message it received, if it was a tagged receive.
    pub(crate) source: Option<Rank>,
}

/// A place for one operation.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) execution: Execution,
    /// What is to be begun; none once it has begun.
    pub(super) call: Option<Ready>,
    /// What was begun and may still have to be done step by step.
    pub(super) begun: Option<Ready>,
    /// What was called, with its tables.
    pub(super) called: CallStore,
    generation: u64,
    /// Counts operations over all slots.
    pub(super) number: u64,
    pub(super) scratch: Vec<u64>,
    owned: Option<Box<dyn Any + Send>>,
    pub(super) waker: Option<Waker>,
    pub(super) role: Role,
    pub(super) standing: Standing,
    /// Of a tagged receive: what it waits for, until its message is known to be whole somewhere.
    pub(super) wish: Option<TaggedCall>,
    /// Of a tagged receive: whose message it gets.
    pub(super) source: Option<Rank>,
    /// Of a tagged receive: its message, if that waited.
    pub(super) message: Option<Unexpected>,
    /// The tagged receive that the message which this brings belongs to.
    pub(super) feeds: Option<usize>,
    detached: bool,
    done: bool,
}

/// An operation whose turn has not come.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) plan: Arc<Planned>,
    pub(super) buffers: Buffers,
    pub(super) stream: Stream,
    pub(super) signature: Signature,
}

impl Slot {
    /// Whether it has begun and nothing of it is left to do.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.call.is_none() && self.execution.is_done()
    }

    /// What was called.
    pub(super) fn signature(&self) -> Option<Signature> {
        let waiting = self.call.as_ref().map(|call| call.signature);
        let running = self.execution.running().map(|running| running.1);
        waiting.or(running).or(self.wish.as_ref().map(TaggedCall::signature))
    }
}

/// All places.
#[derive(Debug, Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    /// The lowest is taken first, so that the same calls find the same places, with memory as large as they need.
    free: BinaryHeap<Reverse<usize>>,
    issued: u64,
}

impl Slots {
    /// A place, if there ever was one of this number.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&Slot> {
        self.all.get(index)
    }

    /// Takes a place for a call.
    pub(super) fn take(
        &mut self,
        call: &Collective<'_>,
        ready: Option<Ready>,
        role: Role,
        owned: Option<Box<dyn Any + Send>>,
    ) -> usize {
        let index = match self.free.pop() {
            Some(Reverse(index)) => index,
            None => {
                self.all.push(Slot::default());
                self.all.len() - 1
            }
        };
        self.issued += 1;
        let slot = &mut self.all[index];
        slot.number = self.issued;
        (slot.done, slot.detached, slot.owned) = (false, role == Role::Absorbing, owned);
        (slot.role, slot.source) = (role, None);
        slot.called.set(call);
        slot.call = ready;
        index
    }

    /// The name of the operation that has a place.
    pub(super) fn id(&self, index: usize) -> OpId {
        OpId { slot: index, generation: self.all[index].generation }
    }

    /// How an operation stands.
    pub(super) fn status(&self, id: OpId) -> Status {
        let slot = &self.all[id.slot];
        debug_assert_eq!(slot.generation, id.generation, "an operation is taken once");
        if slot.done { Status::Done } else { Status::Pending }
    }

    /// An operation is over: whoever waits is told, and if nobody does its place is free.
    pub(super) fn finish(&mut self, index: usize) {
        let slot = &mut self.all[index];
        slot.execution.stop();
        (slot.call, slot.begun) = (None, None);
        (slot.wish, slot.message, slot.feeds) = (None, None, None);
        slot.done = true;
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
        if slot.detached {
            self.release(index);
        }
    }

    /// Gives back what an operation leaves, and its place.
    pub(super) fn release(&mut self, index: usize) -> Taken {
        let slot = &mut self.all[index];
        slot.generation += 1;
        slot.waker = None;
        self.free.push(Reverse(index));
        Taken { owned: slot.owned.take(), source: slot.source.take() }
    }

    /// Has an operation own something until it is over.
    pub(super) fn entrust(&mut self, id: OpId, owned: Box<dyn Any + Send>) {
        debug_assert_eq!(self.all[id.slot].generation, id.generation, "an operation is taken once");
        self.all[id.slot].owned = Some(owned);
    }

    /// Nobody will take this operation: it cleans up after itself.
    pub(super) fn detach(&mut self, id: OpId) {
        if self.all[id.slot].done {
            self.release(id.slot);
        } else {
            self.all[id.slot].detached = true;
        }
    }
}

impl Slots {
    /// Adds the bytes of all places and of the scratch that they keep.
    pub(super) fn count_memory(&self, memory: &mut MemoryUse) {
        let scratch: usize = self.all.iter().map(|slot| slot.scratch.capacity() * size_of::<u64>()).sum();
        memory.add(MemoryKind::Scratch, scratch as u64);
        memory.add(MemoryKind::Queues, (self.all.capacity() * size_of::<Slot>()) as u64);
    }
}

impl Index<usize> for Slots {
    type Output = Slot;

    #[inline]
    fn index(&self, index: usize) -> &Slot {
        &self.all[index]
    }
}

impl IndexMut<usize> for Slots {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut Slot {
        &mut self.all[index]
    }
}

/// Scratch memory of at least `bytes`, kept for the next time.
pub(super) fn scratch(kept: &mut Vec<u64>, bytes: u64, phantom: bool, unit: u32) -> Result<Memory> {
    if phantom {
        let value = ubccl_core::symbolic::Value::UNWRITTEN;
        let piece = ubccl_core::symbolic::Piece { len: bytes / u64::from(unit), value };
        return Ok(Memory::Phantom { unit, content: vec![piece] });
    }
    let words = usize::try_from(bytes.div_ceil(8)).map_err(|_| Error::invalid("scratch exceeds memory"))?;
    if kept.len() < words {
        let more = words - kept.len();
        kept.try_reserve_exact(more).map_err(|error| {
            Error::system(format!("no memory for {bytes} bytes of scratch; use a smaller count"), error)
        })?;
        kept.resize(words, 0);
    }
    Ok(Memory::Host { address: HostPointer(kept.as_mut_ptr().expose_provenance()), len: bytes })
}
