//! Point to point by name: messages in order, and messages with tags.
#![allow(unsafe_code)] // hands callers' buffers to the engine

use crate::communicator::{Communicator, Shared, host, host_mut};
use crate::engine::{OpId, TaggedCall, TaggedKind, Taken};
use crate::sim::refuse_blocking;
use crate::work::Work;
use std::any::Any;
use std::sync::Arc;
use ubccl_core::endpoint::{HostPointer, Memory};
use ubccl_core::{Collective, DataType, Element, Error, ErrorKind, Rank, Result};

impl Communicator {
    /// Sends `buffer` to `peer`, which calls [`Communicator::receive`] with the same length; messages of a pair arrive
    /// in order. Returns when `buffer` may be changed, which may be before the peer has received.
    ///
    /// It never meets a receive with a tag: those of [`Communicator::send_tagged`] are messages apart.
    /// Errors: as [`Communicator::all_reduce`].
    /// Source: ncclSend, MPI_Send.
    pub fn send<T: Element>(&self, buffer: &[T], peer: Rank) -> Result<()> {
        let call = Collective::send_receive(buffer.len() as u64, T::DTYPE, Some(peer), None);
        self.run(&call, bytemuck::cast_slice(buffer), &mut [])
    }

    /// Receives into `buffer` what `peer` sends. See [`Communicator::send`].
    pub fn receive<T: Element>(&self, buffer: &mut [T], peer: Rank) -> Result<()> {
        let call = Collective::send_receive(buffer.len() as u64, T::DTYPE, None, Some(peer));
        self.run(&call, &[], bytemuck::cast_slice_mut(buffer))
    }

    /// Sends `send` to `to` and receives `recv` from `from`, both at once; the lengths are equal. `to` and `from` may
    /// both be this rank. What else is to go at once goes in a [`Communicator::group`].
    ///
    /// Errors: as [`Communicator::all_reduce`].
    /// Source: MPI_Sendrecv; ncclSend and ncclRecv in one group.
    pub fn send_receive<T: Element>(&self, send: &[T], to: Rank, recv: &mut [T], from: Rank) -> Result<()> {
        let call = Collective::send_receive(send.len() as u64, T::DTYPE, Some(to), Some(from));
        self.run(&call, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(recv))
    }

    /// Sends `buffer` with a tag to `peer`, which receives it by [`Communicator::receive_tagged`] with the same tag,
    /// length and type. Returns when `buffer` may be changed, which may be before the peer has received.
    ///
    /// Order:  messages of a pair with equal tags arrive in order; others in the order in which they are received.
    ///         A message that is not received yet may hold up the tagged messages behind it, never others.
    /// Errors: as [`Communicator::all_reduce`]; InvalidArgument if it goes to this rank itself and neither a receive
    ///         waits nor 64 MiB of other messages leave room.
    /// Source: MPI_Send.
    pub fn send_tagged<T: Element>(&self, buffer: &[T], peer: Rank, tag: u32) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(buffer);
        let memory = host(bytes.as_ptr(), bytes.len());
        let call = tagged::<T>(TaggedKind::Send(peer), tag, buffer.len(), memory);
        // SAFETY: the slice is borrowed until `run_tagged` returns, by which time nothing is under way.
        unsafe { self.shared.run_tagged(call) }.map(drop)
    }

    /// Receives a message with a tag into `buffer`, from `source` or from any rank, and answers from whom it is.
    ///
    /// Order:  of one sender and tag in the order sent, by receives in the order called. Messages that come before
    ///         the one waited for are kept: up to 4,096 and 64 MiB of them; a sender nobody waits for keeps its own.
    /// Errors: as [`Communicator::all_reduce`]; Mismatch, naming peer and tag, if the message has another length or
    ///         type, or messages that nobody receives take more room than there is.
    /// Source: MPI_Recv with MPI_ANY_SOURCE.
    pub fn receive_tagged<T: Element>(
        &self,
        buffer: &mut [T],
        source: Option<Rank>,
        tag: u32,
    ) -> Result<Rank> {
        let count = buffer.len();
        let memory = host_mut(bytemuck::cast_slice_mut(buffer));
        let call = tagged::<T>(TaggedKind::Receive(source), tag, count, memory);
        // SAFETY: as in `send_tagged`.
        let source = unsafe { self.shared.run_tagged(call) }?;
        Ok(source.expect("a tagged receive that is done has a source"))
    }

    /// Sends with a tag without waiting: the buffer comes back from [`Work::wait`]. See [`Communicator::send_tagged`].
    pub fn send_tagged_async<T: Element>(
        &self,
        buffer: Vec<T>,
        peer: Rank,
        tag: u32,
    ) -> Result<Work<Vec<T>>> {
        self.shared.send_tagged_async(buffer, peer, tag)
    }

    /// Receives with a tag without waiting: [`Work::wait`] gives the buffer and whose message is in it. See
    /// [`Communicator::receive_tagged`].
    ///
    /// When all other ranks have left, one from any rank goes on until somebody waits for it: this rank may send to
    /// itself.
    pub fn receive_tagged_async<T: Element>(
        &self,
        buffer: Vec<T>,
        source: Option<Rank>,
        tag: u32,
    ) -> Result<Work<(Vec<T>, Rank)>> {
        self.shared.receive_tagged_async(buffer, source, tag)
    }

    /// Sends `count` elements on raw memory with a tag. Blocks. See [`Communicator::send_tagged`].
    ///
    /// # Safety
    /// `buffer` is readable for `count` elements (null is fine for none) and not written until this returns.
    pub unsafe fn send_tagged_raw(
        &self,
        (buffer, count, dtype): (*const u8, u64, DataType),
        peer: Rank,
        tag: u32,
    ) -> Result<()> {
        let memory = raw(buffer, count, dtype)?;
        let call = TaggedCall { what: TaggedKind::Send(peer), tag, count, dtype, memory };
        // SAFETY: the caller vouches until this returns, by which time nothing is under way.
        unsafe { self.shared.run_tagged(call) }.map(drop)
    }

    /// Receives `count` elements into raw memory with a tag. Blocks. See [`Communicator::receive_tagged`].
    ///
    /// # Safety
    /// `buffer` is writable for `count` elements (null is fine for none) and left alone until this returns.
    pub unsafe fn receive_tagged_raw(
        &self,
        (buffer, count, dtype): (*mut u8, u64, DataType),
        source: Option<Rank>,
        tag: u32,
    ) -> Result<Rank> {
        let memory = raw(buffer.cast_const(), count, dtype)?;
        let call = TaggedCall { what: TaggedKind::Receive(source), tag, count, dtype, memory };
        // SAFETY: as in `send_tagged_raw`.
        let source = unsafe { self.shared.run_tagged(call) }?;
        Ok(source.expect("a tagged receive that is done has a source"))
    }

    /// Sends on raw memory with a tag without waiting. See [`Communicator::send_tagged_async`].
    ///
    /// # Safety
    /// As [`Communicator::send_tagged_raw`], until the work's wait has returned or the communicator is poisoned and
    /// [`Communicator::abort`] has returned.
    pub unsafe fn send_tagged_raw_async(
        &self,
        (buffer, count, dtype): (*const u8, u64, DataType),
        peer: Rank,
        tag: u32,
    ) -> Result<Work<()>> {
        let memory = raw(buffer, count, dtype)?;
        let call = TaggedCall { what: TaggedKind::Send(peer), tag, count, dtype, memory };
        // SAFETY: the caller vouches until the operation is over.
        let op = unsafe { self.shared.issue_tagged(call, Some(Box::new(()))) }?;
        Ok(Work::new(self.shared.clone(), op))
    }

    /// Receives into raw memory with a tag without waiting; the work gives whose message it is.
    ///
    /// # Safety
    /// As [`Communicator::receive_tagged_raw`], for as long as [`Communicator::send_tagged_raw_async`] says.
    pub unsafe fn receive_tagged_raw_async(
        &self,
        (buffer, count, dtype): (*mut u8, u64, DataType),
        source: Option<Rank>,
        tag: u32,
    ) -> Result<Work<Rank>> {
        let memory = raw(buffer.cast_const(), count, dtype)?;
        let call = TaggedCall { what: TaggedKind::Receive(source), tag, count, dtype, memory };
        // SAFETY: as in `send_tagged_raw_async`.
        let op = unsafe { self.shared.issue_tagged(call, Some(Box::new(()))) }?;
        Ok(Work::with(self.shared.clone(), op, source_of))
    }
}

fn source_of(taken: Taken) -> Rank {
    taken.source.expect("a tagged receive that is done has a source")
}

fn received<T: Element>(taken: Taken) -> (Vec<T>, Rank) {
    let source = taken.source.expect("a tagged receive that is done has a source");
    let buffer = taken.owned.expect("an asynchronous operation owns its buffer").downcast();
    (*buffer.expect("the buffer has the type it was issued with"), source)
}

fn tagged<T: Element>(what: TaggedKind, tag: u32, count: usize, memory: Memory) -> TaggedCall {
    TaggedCall { what, tag, count: count as u64, dtype: T::DTYPE, memory }
}

/// Memory that the caller vouches for.
pub(crate) fn raw(buffer: *const u8, count: u64, dtype: DataType) -> Result<Memory> {
    if buffer.is_null() && count > 0 {
        return Err(Error::invalid(format!("a buffer of {count} elements is null")));
    }
    let len = count.saturating_mul(dtype.size() as u64);
    Ok(Memory::Host { address: HostPointer(buffer.expose_provenance()), len })
}

impl Shared {
    /// See [`Communicator::send_tagged_async`].
    pub(crate) fn send_tagged_async<T: Element>(
        self: &Arc<Self>,
        buffer: Vec<T>,
        peer: Rank,
        tag: u32,
    ) -> Result<Work<Vec<T>>> {
        let bytes: &[u8] = bytemuck::cast_slice(&buffer);
        let memory = host(bytes.as_ptr(), bytes.len());
        let call = tagged::<T>(TaggedKind::Send(peer), tag, buffer.len(), memory);
        // SAFETY: the vector's memory stays where it is when it moves into the box, and the engine keeps the box until
        // the operation is over.
        let op = unsafe { self.issue_tagged(call, Some(Box::new(buffer))) }?;
        Ok(Work::new(self.clone(), op))
    }

    /// See [`Communicator::receive_tagged_async`].
    pub(crate) fn receive_tagged_async<T: Element>(
        self: &Arc<Self>,
        mut buffer: Vec<T>,
        source: Option<Rank>,
        tag: u32,
    ) -> Result<Work<(Vec<T>, Rank)>> {
        let count = buffer.len();
        let memory = host_mut(bytemuck::cast_slice_mut(&mut buffer));
        let call = tagged::<T>(TaggedKind::Receive(source), tag, count, memory);
        // SAFETY: as in `send_tagged_async`.
        let op = unsafe { self.issue_tagged(call, Some(Box::new(buffer))) }?;
        Ok(Work::with(self.clone(), op, received))
    }

    fn check_tagged(&self, call: &TaggedCall) -> Result<()> {
        let (to, from) = match call.what {
            TaggedKind::Send(to) => (Some(to), None),
            TaggedKind::Receive(source) => (None, source),
        };
        self.control.poison().check()?;
        Collective::send_receive(call.count, call.dtype, to, from).check(self.ranks, self.rank)
    }

    /// A message to a rank that has left would never be taken. One from it may be there already.
    fn check_receiver(&self, engine: &mut crate::engine::Engine, call: &TaggedCall) -> Result<()> {
        match call.what {
            TaggedKind::Send(to) if self.control.left(to).is_some() => {
                let cause = self.control.cause(ErrorKind::Remote, to, crate::control::LEFT_TOO_EARLY);
                self.fail_with(engine, cause)
            }
            _ => Ok(()),
        }
    }

    /// Issues and waits; answers whose message was received.
    ///
    /// # Safety
    /// As for `Engine::issue`, until this returns.
    unsafe fn run_tagged(&self, call: TaggedCall) -> Result<Option<Rank>> {
        refuse_blocking(|| {
            ("a tagged message", "send_tagged or receive_tagged of a sim::Communicator, and await it".into())
        })?;
        self.check_tagged(&call)?;
        let mut engine = self.lock();
        self.check_receiver(&mut engine, &call)?;
        // SAFETY: the caller vouches; `wait_borrowed` returns when nothing is under way, even by a panic.
        let op = unsafe { engine.issue_tagged(call, None) }?;
        self.show(&mut engine);
        self.wait_borrowed(engine, &[op])
    }

    /// Issues, and leaves the rest to the works and the service thread.
    ///
    /// # Safety
    /// As for `Engine::issue`.
    unsafe fn issue_tagged(&self, call: TaggedCall, owned: Option<Box<dyn Any + Send>>) -> Result<OpId> {
        self.check_tagged(&call)?;
        let mut engine = self.lock();
        self.check_receiver(&mut engine, &call)?;
        // SAFETY: the caller vouches.
        let op = unsafe { engine.issue_tagged(call, owned) }?;
        self.carry_on(engine, &[op]);
        Ok(op)
    }
}
