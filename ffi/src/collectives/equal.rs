//! Collectives of equal lengths in which all ranks take the same part.
#![allow(unsafe_code)] // takes C's word for its buffers; each function says which

use super::{Call, issue, reducing, run};
use crate::boundary::guard;
use crate::codes::{read_dtype, ubccl_result};
use crate::comm::{get, ubccl_comm};
use crate::work::ubccl_work;
use std::ffi::c_void;
use ubccl_rs::{Collective, Result};

/// All-reduces `send` into `recv` on every rank.
///
/// Shapes: send [count], recv [count]; the same dtype (`UBCCL_F32` …) and op (`UBCCL_SUM` …) everywhere. In place if send
///         is recv.
/// Order:  every rank calls in the same order; blocks until recv may be read and send reused.
/// Errors: InvalidArgument, Unsupported, Closed (nothing was sent); Mismatch, Timeout, RemoteError, Aborted: these poison
///         the communicator.
/// Source: ncclAllReduce, MPI_Allreduce, HcclAllReduce.
///
/// # Safety
/// `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
/// until it returns; they overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_reduce(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    op: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers.
    unsafe { run(comm, send, recv, |_| all_reduce(count, dtype, op)) }
}

/// `ubccl_comm_all_reduce` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_all_reduce`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_reduce_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    op: i32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: as above, until the work is over.
    unsafe { issue(comm, send, recv, out, |_| all_reduce(count, dtype, op)) }
}

/// Gathers everybody's `send` into `recv` on every rank, in rank order.
///
/// Shapes: send [count], recv [ranks * count]. In place if send is recv + rank * count.
/// Order, errors: as `ubccl_comm_all_reduce`.
/// Source: ncclAllGather, MPI_Allgather, HcclAllGather.
///
/// # Safety
/// `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
/// until it returns; they overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_gather(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers.
    unsafe { run(comm, send, recv, |_| all_gather(count, dtype)) }
}

/// `ubccl_comm_all_gather` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_all_gather`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_gather_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: as above, until the work is over.
    unsafe { issue(comm, send, recv, out, |_| all_gather(count, dtype)) }
}

/// Reduces everybody's `send` and leaves block `rank` of the result in `recv`.
///
/// Shapes: send [ranks * count], recv [count]. In place if recv is send + rank * count; the rest of send is left as it was.
/// Order, errors: as `ubccl_comm_all_reduce`.
/// Source: ncclReduceScatter, MPI_Reduce_scatter_block, HcclReduceScatter.
///
/// # Safety
/// `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
/// until it returns; they overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_reduce_scatter(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    op: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers.
    unsafe { run(comm, send, recv, |_| reduce_scatter(count, dtype, op)) }
}

/// `ubccl_comm_reduce_scatter` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_reduce_scatter`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_reduce_scatter_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    op: i32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: as above, until the work is over.
    unsafe { issue(comm, send, recv, out, |_| reduce_scatter(count, dtype, op)) }
}

/// Gives rank r block r of everybody's `send`, in rank order in `recv`.
///
/// Shapes: send and recv [ranks * count]. In place if send is recv: what comes from a rank takes the place of what goes to
///         it.
/// Order, errors: as `ubccl_comm_all_reduce`.
/// Source: ncclAlltoAll, MPI_Alltoall, HcclAlltoAll.
///
/// # Safety
/// `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
/// until it returns; they overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_to_all(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers.
    unsafe { run(comm, send, recv, |_| all_to_all(count, dtype)) }
}

/// `ubccl_comm_all_to_all` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_all_to_all`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_to_all_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: as above, until the work is over.
    unsafe { issue(comm, send, recv, out, |_| all_to_all(count, dtype)) }
}

/// Returns when every rank has called it.
///
/// Order, errors: as `ubccl_comm_all_reduce`.
/// Source: MPI_Barrier, HcclBarrier.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_comm_barrier(comm: *const ubccl_comm) -> ubccl_result {
    guard(|| get(comm)?.open()?.barrier())
}

/// `ubccl_comm_barrier` without waiting: see `ubccl_work`.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_barrier_async(
    comm: *const ubccl_comm,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: a barrier has no buffers; the caller vouches for `out`.
    unsafe { issue(comm, std::ptr::null(), std::ptr::null_mut(), out, |_| Ok(Collective::barrier().into())) }
}

pub(super) fn all_reduce(count: usize, dtype: i32, op: i32) -> Result<Call<'static>> {
    let dtype = read_dtype(dtype)?;
    reducing(op, |op| Collective::all_reduce(count as u64, dtype, op))
}

pub(super) fn all_gather(count: usize, dtype: i32) -> Result<Call<'static>> {
    Ok(Collective::all_gather(count as u64, read_dtype(dtype)?).into())
}

pub(super) fn reduce_scatter(count: usize, dtype: i32, op: i32) -> Result<Call<'static>> {
    let dtype = read_dtype(dtype)?;
    reducing(op, |op| Collective::reduce_scatter(count as u64, dtype, op))
}

pub(super) fn all_to_all(count: usize, dtype: i32) -> Result<Call<'static>> {
    Ok(Collective::all_to_all(count as u64, read_dtype(dtype)?).into())
}
