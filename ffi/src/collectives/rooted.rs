//! Collectives of equal lengths with a root.
#![allow(unsafe_code)] // takes C's word for its buffers; each function says which

use super::{Call, issue, reducing, run};
use crate::codes::{read_dtype, ubccl_result};
use crate::comm::ubccl_comm;
use crate::work::ubccl_work;
use std::ffi::c_void;
use ubccl_rs::{Collective, Result};

/// Gives every rank the root's `send` in `recv`.
///
/// Shapes: send [count], read on the root only (null is fine elsewhere); recv [count]. In place if send is recv.
/// Order, errors: as `ubccl_comm_all_reduce`.
/// Source: ncclBroadcast, MPI_Bcast, HcclBroadcast.
///
/// # Safety
/// `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
/// until it returns; they overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_broadcast(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers.
    unsafe { run(comm, send, recv, |_| broadcast(count, dtype, root)) }
}

/// `ubccl_comm_broadcast` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_broadcast`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_broadcast_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: as above, until the work is over.
    unsafe { issue(comm, send, recv, out, |_| broadcast(count, dtype, root)) }
}

/// Reduces everybody's `send` into `recv` on the root.
///
/// Shapes: send [count]; recv [count] on the root, not looked at elsewhere (null is fine). In place if send is recv.
/// Order, errors: as `ubccl_comm_all_reduce`.
/// Source: ncclReduce, MPI_Reduce, HcclReduce.
///
/// # Safety
/// `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
/// until it returns; they overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_reduce(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    op: i32,
    root: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers.
    unsafe { run(comm, send, recv, |_| reduce(count, dtype, op, root)) }
}

/// `ubccl_comm_reduce` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_reduce`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_reduce_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    op: i32,
    root: u32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: as above, until the work is over.
    unsafe { issue(comm, send, recv, out, |_| reduce(count, dtype, op, root)) }
}

/// Gathers everybody's `send` into `recv` on the root, in rank order.
///
/// Shapes: send [count]; recv [ranks * count] on the root, not looked at elsewhere (null is fine). In place if, on the root,
///         send is recv + root * count.
/// Order, errors: as `ubccl_comm_all_reduce`.
/// Source: ncclGather, MPI_Gather.
///
/// # Safety
/// `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
/// until it returns; they overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_gather(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers.
    unsafe { run(comm, send, recv, |_| gather(count, dtype, root)) }
}

/// `ubccl_comm_gather` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_gather`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_gather_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: as above, until the work is over.
    unsafe { issue(comm, send, recv, out, |_| gather(count, dtype, root)) }
}

/// Gives rank r block r of the root's `send` in `recv`.
///
/// Shapes: send [ranks * count] on the root, not looked at elsewhere (null is fine); recv [count]. In place if, on the root,
///         recv is send + root * count.
/// Order, errors: as `ubccl_comm_all_reduce`.
/// Source: ncclScatter, MPI_Scatter, HcclScatter.
///
/// # Safety
/// `send` is readable and `recv` writable for these shapes (null is fine for no elements), and both are left alone
/// until it returns; they overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_scatter(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers.
    unsafe { run(comm, send, recv, |_| scatter(count, dtype, root)) }
}

/// `ubccl_comm_scatter` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_scatter`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_scatter_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: as above, until the work is over.
    unsafe { issue(comm, send, recv, out, |_| scatter(count, dtype, root)) }
}

pub(super) fn broadcast(count: usize, dtype: i32, root: u32) -> Result<Call<'static>> {
    Ok(Collective::broadcast(count as u64, read_dtype(dtype)?, root).into())
}

pub(super) fn reduce(count: usize, dtype: i32, op: i32, root: u32) -> Result<Call<'static>> {
    let dtype = read_dtype(dtype)?;
    reducing(op, |op| Collective::reduce(count as u64, dtype, op, root))
}

pub(super) fn gather(count: usize, dtype: i32, root: u32) -> Result<Call<'static>> {
    Ok(Collective::gather(count as u64, read_dtype(dtype)?, root).into())
}

pub(super) fn scatter(count: usize, dtype: i32, root: u32) -> Result<Call<'static>> {
    Ok(Collective::scatter(count as u64, read_dtype(dtype)?, root).into())
}
