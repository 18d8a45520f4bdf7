//! What goes into groups: the same calls, with a group in place of the communicator.
#![allow(unsafe_code)] // takes C's word for its buffers; each function says which
#![allow(clippy::too_many_arguments, reason = "they are those of the functions that run at once")]

use super::{Call, Seat, equal, rooted, tables};
use crate::boundary::guard;
use crate::codes::{read_dtype, ubccl_result};
use crate::group::{own, ubccl_group};
use std::ffi::c_void;
use ubccl_rs::Result;

/// Adds a call to a group.
///
/// # Safety
/// `send` and `recv` are as the call needs them until the group is over; what `call` borrows stays until this returns.
unsafe fn add<'a>(
    group: *mut ubccl_group,
    send: *const c_void,
    recv: *mut c_void,
    call: impl FnOnce(Seat) -> Result<Call<'a>>,
) -> ubccl_result {
    guard(|| {
        let mut group = own(group)?;
        let group = group.value();
        let Call { collective, reduction } = call(group.seat)?;
        let (send, recv) = (send.cast(), recv.cast());
        match reduction {
            // SAFETY: the caller vouches for both buffers until the group is over.
            None => unsafe { group.group.call_raw(&collective, send, recv) },
            // SAFETY: the caller vouches for both buffers until the group is over.
            Some(reduction) => unsafe { group.group.call_raw_reducing(&collective, reduction, send, recv) },
        }
    })
}

/// Adds `ubccl_comm_all_reduce` to a group: see `ubccl_group`. Refused if the arguments are wrong, with the same codes.
///
/// # Safety
/// As for `ubccl_comm_all_reduce`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_all_reduce(
    group: *mut ubccl_group,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    op: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers until the group is over.
    unsafe { add(group, send, recv, |_| equal::all_reduce(count, dtype, op)) }
}

/// Adds `ubccl_comm_all_gather` to a group: see `ubccl_group`.
///
/// # Safety
/// As for `ubccl_comm_all_gather`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_all_gather(
    group: *mut ubccl_group,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers until the group is over.
    unsafe { add(group, send, recv, |_| equal::all_gather(count, dtype)) }
}

/// Adds `ubccl_comm_reduce_scatter` to a group: see `ubccl_group`.
///
/// # Safety
/// As for `ubccl_comm_reduce_scatter`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_reduce_scatter(
    group: *mut ubccl_group,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    op: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers until the group is over.
    unsafe { add(group, send, recv, |_| equal::reduce_scatter(count, dtype, op)) }
}

/// Adds `ubccl_comm_all_to_all` to a group: see `ubccl_group`.
///
/// # Safety
/// As for `ubccl_comm_all_to_all`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_all_to_all(
    group: *mut ubccl_group,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers until the group is over.
    unsafe { add(group, send, recv, |_| equal::all_to_all(count, dtype)) }
}

/// Adds `ubccl_comm_broadcast` to a group: see `ubccl_group`.
///
/// # Safety
/// As for `ubccl_comm_broadcast`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_broadcast(
    group: *mut ubccl_group,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers until the group is over.
    unsafe { add(group, send, recv, |_| rooted::broadcast(count, dtype, root)) }
}

/// Adds `ubccl_comm_reduce` to a group: see `ubccl_group`.
///
/// # Safety
/// As for `ubccl_comm_reduce`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_reduce(
    group: *mut ubccl_group,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    op: i32,
    root: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers until the group is over.
    unsafe { add(group, send, recv, |_| rooted::reduce(count, dtype, op, root)) }
}

/// Adds `ubccl_comm_gather` to a group: see `ubccl_group`.
///
/// # Safety
/// As for `ubccl_comm_gather`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_gather(
    group: *mut ubccl_group,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers until the group is over.
    unsafe { add(group, send, recv, |_| rooted::gather(count, dtype, root)) }
}

/// Adds `ubccl_comm_scatter` to a group: see `ubccl_group`.
///
/// # Safety
/// As for `ubccl_comm_scatter`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_scatter(
    group: *mut ubccl_group,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers until the group is over.
    unsafe { add(group, send, recv, |_| rooted::scatter(count, dtype, root)) }
}

/// Adds `ubccl_comm_send` to a group: see `ubccl_group`. A rank may send to itself, and receives it in the same group.
///
/// # Safety
/// As for `ubccl_comm_send`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_send(
    group: *mut ubccl_group,
    send: *const c_void,
    count: usize,
    dtype: i32,
    peer: u32,
) -> ubccl_result {
    guard(|| {
        let message = (send.cast(), count as u64, read_dtype(dtype)?);
        // SAFETY: the caller vouches for the buffer until the group is over.
        unsafe { own(group)?.value().group.send_raw(message, peer) }
    })
}

/// Adds `ubccl_comm_receive` to a group: see `ubccl_group`.
///
/// # Safety
/// As for `ubccl_comm_receive`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_receive(
    group: *mut ubccl_group,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    peer: u32,
) -> ubccl_result {
    guard(|| {
        let message = (recv.cast(), count as u64, read_dtype(dtype)?);
        // SAFETY: the caller vouches for the buffer until the group is over.
        unsafe { own(group)?.value().group.receive_raw(message, peer) }
    })
}

/// Adds `ubccl_comm_all_gather_v` to a group: see `ubccl_group`.
///
/// # Safety
/// As for `ubccl_comm_all_gather_v`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_all_gather_v(
    group: *mut ubccl_group,
    send: *const c_void,
    recv: *mut c_void,
    counts: *const usize,
    displacements: *const usize,
    dtype: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe { tables::all_gather_v(seat, counts, displacements, dtype) };
    // SAFETY: the caller vouches for the buffers until the group is over.
    unsafe { add(group, send, recv, call) }
}

/// Adds `ubccl_comm_reduce_scatter_v` to a group: see `ubccl_group`.
///
/// # Safety
/// As for `ubccl_comm_reduce_scatter_v`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_reduce_scatter_v(
    group: *mut ubccl_group,
    send: *const c_void,
    recv: *mut c_void,
    counts: *const usize,
    dtype: i32,
    op: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe { tables::reduce_scatter_v(seat, counts, dtype, op) };
    // SAFETY: the caller vouches for the buffers until the group is over.
    unsafe { add(group, send, recv, call) }
}

/// Adds `ubccl_comm_gather_v` to a group: see `ubccl_group`.
///
/// # Safety
/// As for `ubccl_comm_gather_v`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_gather_v(
    group: *mut ubccl_group,
    send: *const c_void,
    count: usize,
    recv: *mut c_void,
    counts: *const usize,
    displacements: *const usize,
    dtype: i32,
    root: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe { tables::gather_v(seat, count, [counts, displacements], dtype, root) };
    // SAFETY: the caller vouches for the buffers until the group is over.
    unsafe { add(group, send, recv, call) }
}

/// Adds `ubccl_comm_scatter_v` to a group: see `ubccl_group`.
///
/// # Safety
/// As for `ubccl_comm_scatter_v`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_scatter_v(
    group: *mut ubccl_group,
    send: *const c_void,
    counts: *const usize,
    displacements: *const usize,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe { tables::scatter_v(seat, count, [counts, displacements], dtype, root) };
    // SAFETY: the caller vouches for the buffers until the group is over.
    unsafe { add(group, send, recv, call) }
}

/// Adds `ubccl_comm_all_to_all_v` to a group: see `ubccl_group`.
///
/// # Safety
/// As for `ubccl_comm_all_to_all_v`, for the buffers until the group is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_all_to_all_v(
    group: *mut ubccl_group,
    send: *const c_void,
    send_counts: *const usize,
    send_displacements: *const usize,
    recv: *mut c_void,
    recv_counts: *const usize,
    recv_displacements: *const usize,
    dtype: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe {
        tables::all_to_all_v(
            seat,
            [send_counts, send_displacements],
            [recv_counts, recv_displacements],
            dtype,
        )
    };
    // SAFETY: the caller vouches for the buffers until the group is over.
    unsafe { add(group, send, recv, call) }
}
