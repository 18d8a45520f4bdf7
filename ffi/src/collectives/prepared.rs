//! Calls that are prepared once, to be started many times.
#![allow(unsafe_code)] // takes C's word for its buffers; each function says which
#![allow(clippy::too_many_arguments, reason = "they are those of the functions that run at once")]

use super::{Call, Seat, equal, peers, rooted, tables};
use crate::boundary::{guard, put};
use crate::codes::ubccl_result;
use crate::comm::{get, ubccl_comm};
use crate::prepared::{PREPARED, Prepared, ubccl_prepared};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use ubccl_rs::{Collective, Error, Reduction, Result};

/// Prepares a call and writes its handle to `out`.
///
/// # Safety
/// `send` and `recv` are as the call needs them whenever it is under way; what `call` borrows stays until this returns;
/// `out` is null or may be written.
unsafe fn prepare<'a>(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    out: *mut *mut ubccl_prepared,
    call: impl FnOnce(Seat) -> Result<Call<'a>>,
) -> ubccl_result {
    guard(|| {
        let (handle, comm) = (comm.addr(), get(comm)?);
        let communicator = comm.open()?;
        let Call { collective, reduction } = call(Seat::of(communicator))?;
        if matches!(reduction, Some(Reduction::PreMulSum(_))) {
            return Err(Error::unsupported(
                "a pre-multiplied sum is not prepared; multiply the input, and prepare a sum",
            ));
        }
        let make = || {
            // SAFETY: the caller vouches for both buffers whenever it is under way.
            let operation = unsafe { communicator.prepare_raw(&collective, send.cast(), recv.cast()) }?;
            Ok(Prepared { comm: handle, operation })
        };
        // SAFETY: the caller vouches for `out`.
        unsafe { put(&PREPARED, out, make) }
    })
}

/// Prepares `ubccl_comm_all_reduce`: see `ubccl_prepared`. `UBCCL_UNSUPPORTED` for a pre-multiplied sum.
///
/// # Safety
/// As for `ubccl_comm_all_reduce`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_reduce_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    op: i32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, |_| equal::all_reduce(count, dtype, op)) }
}

/// Prepares `ubccl_comm_all_gather`: see `ubccl_prepared`.
///
/// # Safety
/// As for `ubccl_comm_all_gather`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_gather_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, |_| equal::all_gather(count, dtype)) }
}

/// Prepares `ubccl_comm_reduce_scatter`: see `ubccl_prepared`. `UBCCL_UNSUPPORTED` for a pre-multiplied sum.
///
/// # Safety
/// As for `ubccl_comm_reduce_scatter`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_reduce_scatter_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    op: i32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, |_| equal::reduce_scatter(count, dtype, op)) }
}

/// Prepares `ubccl_comm_all_to_all`: see `ubccl_prepared`.
///
/// # Safety
/// As for `ubccl_comm_all_to_all`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_to_all_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, |_| equal::all_to_all(count, dtype)) }
}

/// Prepares `ubccl_comm_barrier`: see `ubccl_prepared`.
///
/// # Safety
/// As for `ubccl_comm_barrier`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_barrier_prepare(
    comm: *const ubccl_comm,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, null(), null_mut(), out, |_| Ok(Collective::barrier().into())) }
}

/// Prepares `ubccl_comm_broadcast`: see `ubccl_prepared`.
///
/// # Safety
/// As for `ubccl_comm_broadcast`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_broadcast_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, |_| rooted::broadcast(count, dtype, root)) }
}

/// Prepares `ubccl_comm_reduce`: see `ubccl_prepared`. `UBCCL_UNSUPPORTED` for a pre-multiplied sum.
///
/// # Safety
/// As for `ubccl_comm_reduce`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_reduce_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    op: i32,
    root: u32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, |_| rooted::reduce(count, dtype, op, root)) }
}

/// Prepares `ubccl_comm_gather`: see `ubccl_prepared`.
///
/// # Safety
/// As for `ubccl_comm_gather`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_gather_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, |_| rooted::gather(count, dtype, root)) }
}

/// Prepares `ubccl_comm_scatter`: see `ubccl_prepared`.
///
/// # Safety
/// As for `ubccl_comm_scatter`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_scatter_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, |_| rooted::scatter(count, dtype, root)) }
}

/// Prepares `ubccl_comm_send`: see `ubccl_prepared`.
///
/// # Safety
/// As for `ubccl_comm_send`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_send_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    count: usize,
    dtype: i32,
    peer: u32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, null_mut(), out, |_| peers::exchange(count, dtype, Some(peer), None)) }
}

/// Prepares `ubccl_comm_receive`: see `ubccl_prepared`.
///
/// # Safety
/// As for `ubccl_comm_receive`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_receive_prepare(
    comm: *const ubccl_comm,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    peer: u32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, null(), recv, out, |_| peers::exchange(count, dtype, None, Some(peer))) }
}

/// Prepares `ubccl_comm_send_receive`: see `ubccl_prepared`.
///
/// # Safety
/// As for `ubccl_comm_send_receive`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_send_receive_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    to: u32,
    from: u32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, |_| peers::exchange(count, dtype, Some(to), Some(from))) }
}

/// Prepares `ubccl_comm_all_gather_v`: see `ubccl_prepared`.
///
/// # Safety
/// As for `ubccl_comm_all_gather_v`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_gather_v_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    counts: *const usize,
    displacements: *const usize,
    dtype: i32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe { tables::all_gather_v(seat, counts, displacements, dtype) };
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, call) }
}

/// Prepares `ubccl_comm_reduce_scatter_v`: see `ubccl_prepared`. `UBCCL_UNSUPPORTED` for a pre-multiplied sum.
///
/// # Safety
/// As for `ubccl_comm_reduce_scatter_v`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_reduce_scatter_v_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    counts: *const usize,
    dtype: i32,
    op: i32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe { tables::reduce_scatter_v(seat, counts, dtype, op) };
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, call) }
}

/// Prepares `ubccl_comm_gather_v`: see `ubccl_prepared`.
///
/// # Safety
/// As for `ubccl_comm_gather_v`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_gather_v_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    count: usize,
    recv: *mut c_void,
    counts: *const usize,
    displacements: *const usize,
    dtype: i32,
    root: u32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe { tables::gather_v(seat, count, [counts, displacements], dtype, root) };
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, call) }
}

/// Prepares `ubccl_comm_scatter_v`: see `ubccl_prepared`.
///
/// # Safety
/// As for `ubccl_comm_scatter_v`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_scatter_v_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    counts: *const usize,
    displacements: *const usize,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
    out: *mut *mut ubccl_prepared,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe { tables::scatter_v(seat, count, [counts, displacements], dtype, root) };
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, call) }
}

/// Prepares `ubccl_comm_all_to_all_v`: see `ubccl_prepared`.
///
/// # Safety
/// As for `ubccl_comm_all_to_all_v`, for the buffers whenever it is under way; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_to_all_v_prepare(
    comm: *const ubccl_comm,
    send: *const c_void,
    send_counts: *const usize,
    send_displacements: *const usize,
    recv: *mut c_void,
    recv_counts: *const usize,
    recv_displacements: *const usize,
    dtype: i32,
    out: *mut *mut ubccl_prepared,
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
    // SAFETY: the caller vouches for the buffers whenever it is under way, and for `out`.
    unsafe { prepare(comm, send, recv, out, call) }
}
