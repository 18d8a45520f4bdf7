//! Works: operations that were issued and not waited for.
#![allow(unsafe_code)] // takes C's word for its pointers; each function says which

use crate::boundary::{check_out, guard, write};
use crate::codes::ubccl_result;
use crate::comm::COMMS;
use crate::group::GROUPS;
use crate::handles::Table;
use crate::prepared::PREPARED;
use crate::start::RENDEZVOUS;
use std::time::Duration;
use ubccl_rs::{Error, GroupWork, Rank, Result, Work};

/// An operation that was issued by a function whose name ends in `_async`.
///
/// Buffers: what is sent is left alone, and what is received neither read nor written, until `ubccl_work_test` or
/// `ubccl_work_wait_timeout` has said that it is done, `ubccl_work_wait` or `ubccl_work_free` has returned (whatever
/// they return), or one of them has returned the error that ended the operation. Tables of counts and displacements
/// are copied when it is issued.
///
/// Order: operations of one communicator start in the order issued, blocking ones included, the same on every rank;
/// point-to-point ones run beside them. They go on by themselves; waiting for them is faster.
///
/// Threads: one thread at a time with one work; a second one is refused with `UBCCL_INVALID_ARGUMENT`. The work is
/// freed with `ubccl_work_free`, before or after its communicator.
#[allow(non_camel_case_types)]
pub struct ubccl_work(());

pub(crate) static WORKS: Table<Issued> = Table::new(0xc3, "work");

/// What was issued.
pub(crate) enum Operation {
    Call(Work<()>),
    /// A receive with a tag, which learns whose message it got.
    Receive(Work<Rank>),
    Group(GroupWork),
}

impl Operation {
    fn test(&self) -> Result<bool> {
        match self {
            Operation::Call(work) => work.test(),
            Operation::Receive(work) => work.test(),
            Operation::Group(work) => work.test(),
        }
    }

    fn wait_timeout(&mut self, timeout: Duration) -> Result<bool> {
        let timeout = timeout.min(LONGEST_WAIT);
        match self {
            Operation::Call(work) => work.wait_timeout(timeout),
            Operation::Receive(work) => work.wait_timeout(timeout),
            Operation::Group(work) => work.wait_timeout(timeout),
        }
    }

    /// Whose message it was, if it was a receive with a tag.
    fn wait(self) -> Result<Option<Rank>> {
        match self {
            Operation::Call(work) => work.wait().map(|()| None),
            Operation::Receive(work) => work.wait().map(Some),
            Operation::Group(work) => work.wait().map(|_no_buffers| None),
        }
    }
}

/// How an issued operation stands, as far as was asked.
pub(crate) enum Issued {
    UnderWay(Operation),
    Over(Result<Option<Rank>>),
    /// A defect interrupted the wait.
    Lost,
}

/// Longer than any process runs, and no overflow when it is added to a point in time.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl From<Work<()>> for Issued {
    fn from(work: Work<()>) -> Self {
        Issued::UnderWay(Operation::Call(work))
    }
}

impl Issued {
    /// Moves it on; whether it is over.
    fn poll(&mut self, wait: Option<Duration>) -> Result<bool> {
        let Issued::UnderWay(operation) = self else { return self.finish().map(|_| true) };
        let polled = match wait {
            None => operation.test(),
            Some(wait) => operation.wait_timeout(wait),
        };
        match polled {
            Ok(false) => Ok(false),
            // An error too ends the operation, and waiting sees to it that no buffer is touched any more.
            Ok(true) | Err(_) => self.finish().map(|_| true),
        }
    }

    /// Waits until it is over; whose message it was.
    fn finish(&mut self) -> Result<Option<Rank>> {
        *self = match std::mem::replace(self, Issued::Lost) {
            Issued::UnderWay(operation) => Issued::Over(operation.wait()),
            over => over,
        };
        match self {
            Issued::Over(result) => result.clone(),
            Issued::UnderWay(_) | Issued::Lost => {
                Err(Error::internal("waiting for this work was interrupted by a defect before"))
            }
        }
    }
}

/// Whether the operation is done; moves on what can move, and does not wait.
///
/// Errors: InvalidArgument; Mismatch, Timeout, RemoteError, Aborted if the operation failed: it is over.
/// Source: MPI_Test.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_work_test(work: *mut ubccl_work, out: *mut bool) -> ubccl_result {
    guard(|| {
        check_out(out)?;
        let is_done = WORKS.own(work.addr())?.value().poll(None)?;
        // SAFETY: the caller vouches for `out`.
        unsafe { write(out, is_done) }
    })
}

/// Waits until the operation is done. Asking again gives the same answer.
///
/// Errors: as `ubccl_work_test`.
/// Source: MPI_Wait.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_work_wait(work: *mut ubccl_work) -> ubccl_result {
    guard(|| WORKS.own(work.addr())?.value().finish().map(drop))
}

/// Waits for at most `timeout_ms`. If the operation is not done by then, `out` says so, and nothing is harmed: only the
/// operation's own deadline (`ubccl_comm_set_operation_timeout`) fails it.
///
/// Errors: as `ubccl_work_test`.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_work_wait_timeout(
    work: *mut ubccl_work,
    timeout_ms: u64,
    out: *mut bool,
) -> ubccl_result {
    guard(|| {
        check_out(out)?;
        let is_done = WORKS.own(work.addr())?.value().poll(Some(Duration::from_millis(timeout_ms)))?;
        // SAFETY: the caller vouches for `out`.
        unsafe { write(out, is_done) }
    })
}

/// Frees a work. If its operation is not over it is waited for, so that afterwards its buffers belong to the caller
/// whatever the result says; `ubccl_comm_abort` cuts that short.
///
/// Errors: InvalidArgument if it is null, was freed before, or another thread is in a call with it; otherwise the
///         operation's result, and the work is freed.
/// Source: MPI_Wait; MPI_Request_free, which does not wait.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_work_free(work: *mut ubccl_work) -> ubccl_result {
    guard(|| {
        let mut owned = WORKS.own(work.addr())?;
        let result = owned.value().finish();
        drop(owned.end());
        result.map(drop)
    })
}

/// Waits until a receive with a tag is done, and tells whose message it got.
///
/// Errors: InvalidArgument if it is no receive with a tag; otherwise as `ubccl_work_wait`.
/// Source: MPI_Status's MPI_SOURCE.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_work_source(work: *mut ubccl_work, out: *mut u32) -> ubccl_result {
    guard(|| {
        check_out(out)?;
        let source = WORKS.own(work.addr())?.value().finish()?;
        let source =
            source.ok_or_else(|| Error::invalid("only a receive with a tag has a source to tell"))?;
        // SAFETY: the caller vouches for `out`.
        unsafe { write(out, source) }
    })
}

/// How many handles (communicators, works, groups, prepared operations, rendezvous) were made and not destroyed in this process: 0 at the end of a program
/// that frees what it makes.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_handle_count() -> usize {
    COMMS.count() + WORKS.count() + RENDEZVOUS.count() + GROUPS.count() + PREPARED.count()
}
