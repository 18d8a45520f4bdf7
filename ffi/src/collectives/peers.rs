//! Point to point: between two ranks, beside the collectives.
#![allow(unsafe_code)] // takes C's word for its buffers; each function says which

use super::{Call, issue, run};
use crate::codes::{read_dtype, ubccl_result};
use crate::comm::ubccl_comm;
use crate::work::ubccl_work;
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use ubccl_rs::{Collective, Result};

/// Sends `send` to `peer`, which calls `ubccl_comm_receive` with the same count and dtype; messages of a pair arrive in
/// order. Returns when `send` may be changed, which may be before the peer has received.
///
/// Shapes: send [count]. `peer` is another rank; to itself a rank sends with `ubccl_comm_send_receive`.
/// Errors: as `ubccl_comm_all_reduce`.
/// Source: ncclSend, MPI_Send, HcclSend.
///
/// # Safety
/// `send` is readable for `count` elements (null is fine for none), and left alone until it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_send(
    comm: *const ubccl_comm,
    send: *const c_void,
    count: usize,
    dtype: i32,
    peer: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers.
    unsafe { run(comm, send, null_mut(), |_| exchange(count, dtype, Some(peer), None)) }
}

/// `ubccl_comm_send` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_send`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_send_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    count: usize,
    dtype: i32,
    peer: u32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: as above, until the work is over.
    unsafe { issue(comm, send, null_mut(), out, |_| exchange(count, dtype, Some(peer), None)) }
}

/// Receives into `recv` what `peer` sends. See `ubccl_comm_send`.
///
/// Shapes: recv [count].
/// Errors: as `ubccl_comm_all_reduce`.
/// Source: ncclRecv, MPI_Recv, HcclRecv.
///
/// # Safety
/// `recv` is writable for `count` elements (null is fine for none), and left alone until it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_receive(
    comm: *const ubccl_comm,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    peer: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers.
    unsafe { run(comm, null(), recv, |_| exchange(count, dtype, None, Some(peer))) }
}

/// `ubccl_comm_receive` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_receive`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_receive_async(
    comm: *const ubccl_comm,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    peer: u32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: as above, until the work is over.
    unsafe { issue(comm, null(), recv, out, |_| exchange(count, dtype, None, Some(peer))) }
}

/// Sends `send` to rank `to` and receives `recv` from rank `from`, both at once.
///
/// Shapes: send and recv [count]. `to` and `from` may both be this rank. In place if send is recv.
/// Errors: as `ubccl_comm_all_reduce`.
/// Source: MPI_Sendrecv; ncclSend and ncclRecv in one group.
///
/// # Safety
/// `send` is readable and `recv` writable for `count` elements (null is fine for none), and both are left alone until it
/// returns; they overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_send_receive(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    to: u32,
    from: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers.
    unsafe { run(comm, send, recv, |_| exchange(count, dtype, Some(to), Some(from))) }
}

/// `ubccl_comm_send_receive` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_send_receive`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_send_receive_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    to: u32,
    from: u32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: as above, until the work is over.
    unsafe { issue(comm, send, recv, out, |_| exchange(count, dtype, Some(to), Some(from))) }
}

pub(super) fn exchange(
    count: usize,
    dtype: i32,
    to: Option<u32>,
    from: Option<u32>,
) -> Result<Call<'static>> {
    Ok(Collective::send_receive(count as u64, read_dtype(dtype)?, to, from).into())
}
