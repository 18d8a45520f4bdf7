//! The collectives: each has a function that blocks and one that gives a work instead, named `_async`.
//!
//! Arguments come in NCCL's order (send, recv, count, dtype, op, root) after the communicator. A call is in place if
//! `send` and `recv` stand to each other as NCCL's rule says; where NCCL has none, each function says how.
#![allow(unsafe_code)] // passes C's buffers on

pub mod equal;
pub mod peers;
pub mod rooted;
pub mod tables;

use crate::boundary::{guard, put};
use crate::codes::ubccl_result;
use crate::comm::{get, ubccl_comm};
use crate::work::{Issued, WORKS, ubccl_work};
use std::ffi::c_void;
use ubccl_rs::{Collective, Communicator, Result};

/// Makes a call and waits for it.
///
/// # Safety
/// `send` is readable and `recv` writable for what the call needs on this rank, and both are left alone until this
/// returns; they overlap only if in place. What `call` borrows stays as it is until this returns.
unsafe fn run<'a>(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    call: impl FnOnce(&Communicator) -> Result<Collective<'a>>,
) -> ubccl_result {
    guard(|| {
        let comm = get(comm)?;
        let communicator = comm.open()?;
        let call = call(communicator)?;
        // SAFETY: the caller vouches for both buffers.
        unsafe { communicator.run_raw(&call, send.cast(), recv.cast()) }
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
    call: impl FnOnce(&Communicator) -> Result<Collective<'a>>,
) -> ubccl_result {
    guard(|| {
        let comm = get(comm)?;
        let communicator = comm.open()?;
        let call = call(communicator)?;
        // SAFETY: the caller vouches for both buffers until the work is over; `Issued` is over only when `Work::wait`
        // has returned.
        let make =
            || Ok(Issued::UnderWay(unsafe { communicator.issue_raw(&call, send.cast(), recv.cast()) }?));
        // SAFETY: the caller vouches for `out`.
        unsafe { put(&WORKS, out, make) }
    })
}
