//! Groups that own their buffers, and the work that waits for all of one.
#![allow(unsafe_code)] // hands buffers that the operations own to the engine

use super::{Collection, place, place_mut};
use crate::communicator::Shared;
use crate::engine::{OpId, Status};
use parking_lot::Mutex;
use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use ubccl_core::plan::Side;
use ubccl_core::{Collective, Element, Error, Rank, Result};

/// What the operations of a group own together.
type Owned = Arc<Mutex<Vec<Box<dyn Any + Send>>>>;

pub(super) fn share(buffers: Vec<Box<dyn Any + Send>>) -> Owned {
    Arc::new(Mutex::new(buffers))
}

/// A [`super::Group`] that owns its buffers: it is issued, and they come back when all of it is done.
#[derive(Debug)]
#[must_use = "a group does nothing until issue()"]
pub struct OwnedGroup<'c> {
    collection: Collection,
    owned: Vec<Box<dyn Any + Send>>,
    communicator: PhantomData<&'c ()>,
}

/// Names a buffer of an [`OwnedGroup`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the buffer comes back for it"]
pub struct Held<T> {
    number: usize,
    element: PhantomData<fn() -> T>,
}

impl<'c> OwnedGroup<'c> {
    pub(super) fn new(collection: Collection) -> Self {
        OwnedGroup { collection, owned: Vec::new(), communicator: PhantomData }
    }

    /// Sends `buffer` to `peer`.
    ///
    /// Errors: InvalidArgument, here and for every other call: it is not in the group then, and its buffers are dropped.
    pub fn send<T: Element>(&mut self, buffer: Vec<T>, peer: Rank) -> Result<Held<T>> {
        self.collection.add(Side::Send, peer, place(&buffer))?;
        Ok(self.hold(buffer))
    }

    /// Receives into `buffer` what `peer` sends.
    pub fn receive<T: Element>(&mut self, mut buffer: Vec<T>, peer: Rank) -> Result<Held<T>> {
        self.collection.add(Side::Receive, peer, place_mut(&mut buffer))?;
        Ok(self.hold(buffer))
    }

    /// Any collective. See [`crate::Communicator::run_async`].
    pub fn call<T: Element>(
        &mut self,
        call: &Collective<'_>,
        input: Vec<T>,
        mut output: Vec<T>,
    ) -> Result<(Held<T>, Held<T>)> {
        self.collection.call(call, bytemuck::cast_slice(&input), bytemuck::cast_slice_mut(&mut output))?;
        Ok((self.hold(input), self.hold(output)))
    }

    /// Any collective in place. See [`crate::Communicator::run_in_place_async`].
    pub fn call_in_place<T: Element>(
        &mut self,
        call: &Collective<'_>,
        mut buffer: Vec<T>,
    ) -> Result<Held<T>> {
        self.collection.call_in_place(call, bytemuck::cast_slice_mut(&mut buffer))?;
        Ok(self.hold(buffer))
    }

    /// Issues the group without waiting.
    ///
    /// Errors: InvalidArgument or Unsupported: nothing was sent. What fails later comes from the work.
    pub fn issue(self) -> Result<GroupWork> {
        // SAFETY: the vectors' memory stays where it is while their boxes do, which the operations keep.
        unsafe { self.collection.issue(self.owned) }
    }

    fn hold<T: Element>(&mut self, buffer: Vec<T>) -> Held<T> {
        self.owned.push(Box::new(buffer));
        Held { number: self.owned.len() - 1, element: PhantomData }
    }
}

/// A group that was issued. Dropping it neither cancels nor waits. It is a `Future` too.
#[must_use = "the group's buffers come back from wait()"]
pub struct GroupWork {
    shared: Arc<Shared>,
    /// Empty once they were taken.
    ops: Vec<OpId>,
    owned: Option<Owned>,
}

/// The buffers of a group that is done.
#[derive(Debug)]
pub struct GroupBuffers(Vec<Option<Box<dyn Any + Send>>>);

impl GroupWork {
    pub(super) fn new(shared: Arc<Shared>, ops: Vec<OpId>, owned: Owned) -> Self {
        GroupWork { shared, ops, owned: Some(owned) }
    }

    /// Whether all of it is done; moves on what can move.
    ///
    /// Errors: the cause that poisoned the communicator.
    pub fn test(&self) -> Result<bool> {
        for &op in &self.ops {
            if self.shared.test(op)? == Status::Pending {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until all of it is done and gives its buffers back.
    ///
    /// Errors: Mismatch, Timeout, Remote, Aborted: the communicator is poisoned and the buffers are dropped.
    pub fn wait(mut self) -> Result<GroupBuffers> {
        if let Err(error) = self.ops.iter().try_for_each(|&op| self.shared.wait(op, None).map(drop)) {
            self.ops.iter().for_each(|&op| self.shared.end_failed(op));
            return Err(error);
        }
        Ok(self.take())
    }

    /// Waits for at most `timeout`; `false` if it is not done by then, which harms nothing.
    ///
    /// Errors: as [`GroupWork::wait`].
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<bool> {
        let until = Instant::now() + timeout;
        for &op in &self.ops {
            if !self.shared.wait(op, Some(until))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take(&mut self) -> GroupBuffers {
        let mut engine = self.shared.lock();
        self.ops.drain(..).for_each(|op| drop(engine.take(op)));
        drop(engine);
        let owned = self.owned.take().expect("taken once, by wait() or poll()");
        let buffers = std::mem::take(&mut *owned.lock());
        GroupBuffers(buffers.into_iter().map(Some).collect())
    }
}

impl GroupBuffers {
    /// One of the buffers.
    ///
    /// Errors: InvalidArgument, if the name is another group's.
    pub fn take<T: Element>(&mut self, held: Held<T>) -> Result<Vec<T>> {
        let buffer = self.0.get_mut(held.number).and_then(Option::take);
        let buffer = buffer.and_then(|buffer| buffer.downcast::<Vec<T>>().ok());
        buffer.map(|buffer| *buffer).ok_or_else(|| Error::invalid("this buffer was held by another group"))
    }
}

impl Future for GroupWork {
    type Output = Result<GroupBuffers>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        for k in 0..self.ops.len() {
            match self.shared.test_or_wake(self.ops[k], context.waker()) {
                Ok(Status::Pending) => return Poll::Pending,
                Ok(Status::Done) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(self.take()))
    }
}

impl Drop for GroupWork {
    fn drop(&mut self) {
        if !self.ops.is_empty() {
            let mut engine = self.shared.lock();
            self.ops.drain(..).for_each(|op| engine.detach(op));
        }
    }
}

impl std::fmt::Debug for GroupWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupWork").field("operations", &self.ops.len()).finish_non_exhaustive()
    }
}
