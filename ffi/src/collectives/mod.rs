//! The collectives: each has a function that blocks and one that gives a work instead, named `_async`.
//!
//! Arguments come in NCCL's order (send, recv, count, dtype, op, root) after the communicator. A call is in place if
//! `send` and `recv` stand to each other as NCCL's rule says; where NCCL has none, each function says how.
#![allow(unsafe_code)] // passes C's buffers on

pub mod equal;
pub mod grouped;
pub mod peers;
pub mod prepared;
pub mod rooted;
pub mod tables;
pub mod tagged;

use crate::boundary::{guard, put};
use crate::codes::{read_op, ubccl_result};
use crate::comm::{get, ubccl_comm};
use crate::work::{Issued, WORKS, ubccl_work};
use std::ffi::c_void;
use ubccl_rs::{Collective, Communicator, ReduceOp, Reduction, Result};

/// Which rank of how many calls.
#[derive(Clone, Copy)]
pub(crate) struct Seat {
    rank: u32,
    ranks: u32,
}

impl Seat {
    pub(crate) fn of(comm: &Communicator) -> Self {
        Seat { rank: comm.rank(), ranks: comm.ranks() }
    }
}

/// A call, and how it combines if it does.
struct Call<'a> {
    collective: Collective<'a>,
    reduction: Option<Reduction>,
}

impl<'a> From<Collective<'a>> for Call<'a> {
    fn from(collective: Collective<'a>) -> Self {
        Call { collective, reduction: None }
    }
}

/// A call that combines with the operation of this number.
fn reducing<'a>(op: i32, call: impl FnOnce(ReduceOp) -> Collective<'a>) -> Result<Call<'a>> {
    let reduction = read_op(op)?;
    Ok(Call { collective: call(reduction.op()), reduction: Some(reduction) })
}

/// Makes a call and waits for it.
///
/// # Safety
/// `send` is readable and `recv` writable for what the call needs on this rank, and both are left alone until this
/// returns; they overlap only if in place. What `call` borrows stays as it is until this returns.
unsafe fn run<'a>(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    call: impl FnOnce(Seat) -> Result<Call<'a>>,
) -> ubccl_result {
    guard(|| {
        let comm = get(comm)?;
        let communicator = comm.open()?;
        let Call { collective, reduction } = call(Seat::of(communicator))?;
        let (send, recv) = (send.cast(), recv.cast());
        match reduction {
            // SAFETY: the caller vouches for both buffers.
            None => unsafe { communicator.run_raw(&collective, send, recv) },
            // SAFETY: the caller vouches for both buffers.
            Some(reduction) => unsafe { communicator.run_raw_reducing(&collective, reduction, send, recv) },
        }
    })
}

/// Issues a call and writes its work to `out`. If that fails, nothing was sent.
///
/// # Safety
/// As for [`run`], for the buffers until the work says that it is over; `out` is null or may be written.
unsafe fn issue<'a>(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    out: *mut *mut ubccl_work,
    call: impl FnOnce(Seat) -> Result<Call<'a>>,
) -> ubccl_result {
    guard(|| {
        let comm = get(comm)?;
        let communicator = comm.open()?;
        let Call { collective, reduction } = call(Seat::of(communicator))?;
        let (send, recv) = (send.cast(), recv.cast());
        let make = || {
            // `Issued` is over only when `Work::wait` has returned.
            let work = match reduction {
                // SAFETY: the caller vouches for both buffers until the work is over.
                None => unsafe { communicator.issue_raw(&collective, send, recv) },
                // SAFETY: the caller vouches for both buffers until the work is over.
                Some(reduction) => unsafe {
                    communicator.issue_raw_reducing(&collective, reduction, send, recv)
                },
            };
            work.map(Issued::from)
        };
        // SAFETY: the caller vouches for `out`.
        unsafe { put(&WORKS, out, make) }
    })
}
