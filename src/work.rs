//! The completion token of an issued operation.

use crate::communicator::Shared;
use crate::engine::{OpId, Status, Taken};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use ubccl_core::Result;

/// An operation that was issued and owns its buffers, which [`Work::wait`] gives back.
///
/// Dropping it neither cancels nor waits: the operation goes on and its buffers are dropped when it is done. Waiting
/// that runs out leaves the operation under way; only an operation's own deadline fails it. It is a `Future` too.
#[derive(Debug)]
#[must_use = "an operation's buffers come back from wait()"]
pub struct Work<B> {
    shared: Arc<Shared>,
    op: Option<OpId>,
    /// What becomes of what the operation leaves.
    open: fn(Taken) -> B,
}

impl Work<()> {
    /// An operation whose memory, if it owns any, is of no use to the caller afterwards.
    pub(crate) fn without_buffers(shared: Arc<Shared>, op: OpId) -> Self {
        Work::with(shared, op, drop)
    }
}

impl<B: Send + 'static> Work<B> {
    pub(crate) fn new(shared: Arc<Shared>, op: OpId) -> Self {
        Work::with(shared, op, |taken| {
            let owned = taken.owned.expect("an asynchronous operation owns its buffers");
            *owned.downcast::<B>().expect("the buffers have the type they were issued with")
        })
    }

    pub(crate) fn with(shared: Arc<Shared>, op: OpId, open: fn(Taken) -> B) -> Self {
        Work { shared, op: Some(op), open }
    }

    /// Whether it is done; moves on what can move.
    ///
    /// Errors: the cause that poisoned the communicator.
    pub fn test(&self) -> Result<bool> {
        Ok(self.shared.test(self.id())? == Status::Done)
    }

    /// Waits until it is done and gives its buffers back.
    ///
    /// Errors: Mismatch, Timeout, Remote, Aborted: the communicator is poisoned and the buffers are dropped.
    pub fn wait(mut self) -> Result<B> {
        if let Err(error) = self.shared.wait(self.id(), None) {
            self.shared.end_failed(self.id());
            return Err(error);
        }
        Ok(self.take())
    }

    /// Waits for at most `timeout`; `false` if it is not done by then, which harms nothing.
    ///
    /// Errors: as [`Work::wait`].
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<bool> {
        self.shared.wait(self.id(), Some(Instant::now() + timeout))
    }

    /// Whether it was done when somebody last moved on what can move; moves on nothing.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.lock().status(self.id()) == Status::Done
    }

    fn id(&self) -> OpId {
        self.op.expect("an operation is taken only by wait() and poll(), which end it")
    }

    fn take(&mut self) -> B {
        let op = self.op.take().expect("taken once");
        let taken = self.shared.lock().take(op);
        (self.open)(taken)
    }
}

impl<B: Send + 'static> Future for Work<B> {
    type Output = Result<B>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<B>> {
        let id = self.id();
        match self.shared.test_or_wake(id, context.waker()) {
            Ok(Status::Pending) => Poll::Pending,
            Ok(Status::Done) => Poll::Ready(Ok(self.take())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl<B> Unpin for Work<B> {}

impl<B> Drop for Work<B> {
    fn drop(&mut self) {
        if let Some(op) = self.op.take() {
            self.shared.lock().detach(op);
        }
    }
}
