//! What a program awaits: operations that were issued, and times.

use super::inside::Inside;
use crate::engine::Taken;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use ubccl_core::{Error, Rank, Result};

/// An operation that was issued when it was called, and owns its buffers, which awaiting it gives back. It moves on
/// whether or not it is awaited.
///
/// Errors, of awaiting: what was wrong with the call (nothing was sent), or the cause that poisoned the communicator,
/// when the buffers are dropped.
#[must_use = "an operation's buffers, and its errors, come from awaiting it"]
pub struct Work<'p, B> {
    inside: &'p Inside,
    /// None once it has given what it has.
    issued: Option<Result<u64>>,
    open: fn(Taken) -> B,
}

impl<'p, B> Work<'p, B> {
    pub(super) fn new(inside: &'p Inside, issued: Result<u64>, open: fn(Taken) -> B) -> Self {
        Work { inside, issued: Some(issued), open }
    }

    /// Refused: waiting in real time would stop virtual time. For those who bring code that ends in `wait()`.
    ///
    /// Errors: Unsupported, saying so.
    pub fn wait(self) -> Result<B> {
        super::blocking::refuse_blocking(|| ("Work::wait", "`.await` on the work".into()))?;
        Err(Error::unsupported("the program that this operation was issued by is over"))
    }
}

impl<B> Future for Work<'_, B> {
    type Output = Result<B>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<B>> {
        let number = match &self.issued {
            Some(Ok(number)) => *number,
            Some(Err(error)) => {
                let error = error.clone();
                self.issued = None;
                return Poll::Ready(Err(error));
            }
            None => return Poll::Ready(Err(Error::invalid("an operation is awaited once"))),
        };
        let taken = std::task::ready!(self.inside.poll_operation(number, context.waker()));
        self.issued = None;
        Poll::Ready(taken.map(self.open))
    }
}

impl<B> Unpin for Work<'_, B> {}

impl<B> Drop for Work<'_, B> {
    /// The operation goes on, and its buffers are dropped when it is done.
    fn drop(&mut self) {
        if let Some(Ok(number)) = self.issued {
            self.inside.abandon(number);
        }
    }
}

impl<B> std::fmt::Debug for Work<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("issued", &self.issued).finish_non_exhaustive()
    }
}

/// A stretch of virtual time that began when it was asked for.
#[derive(Debug)]
#[must_use = "virtual time passes by awaiting"]
pub struct Compute<'p> {
    inside: &'p Inside,
    rank: Rank,
    until_ps: u64,
}

impl<'p> Compute<'p> {
    pub(super) fn new(inside: &'p Inside, rank: Rank, duration_ps: u64) -> Self {
        Compute { inside, rank, until_ps: inside.compute(rank, duration_ps) }
    }
}

impl Future for Compute<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.inside.is_past(self.rank, self.until_ps, context.waker()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
