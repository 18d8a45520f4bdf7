//! Collectives whose lengths stand in tables, one entry for each rank.
#![allow(unsafe_code)] // takes C's word for its buffers; each function says which
#![allow(clippy::too_many_arguments, reason = "they are those that MPI and HCCL have, in their order")]

use super::{Call, Seat, issue, reducing, run};
use crate::boundary::{read_blocks, read_lengths};
use crate::codes::{read_dtype, ubccl_result};
use crate::comm::ubccl_comm;
use crate::work::ubccl_work;
use std::ffi::c_void;
use ubccl_rs::{Blocks, Collective, Result};

/// Gathers blocks of different lengths on every rank.
///
/// Shapes: counts [ranks], the same on every rank, says how much comes from whom; displacements [ranks] where in this
///         rank's recv it goes (in elements; null: one after the other). send [counts[rank]]; recv reaches at least to the
///         end of the last block, and what lies between blocks is left as it was. In place if send is
///         recv + displacements[rank].
/// Order, errors: as `ubccl_comm_all_reduce`; InvalidArgument if blocks overlap or reach too far.
/// Source: MPI_Allgatherv, HcclAllGatherV.
///
/// # Safety
/// `send` is readable and `recv` writable for these shapes (null is fine for no elements), the tables where they are
/// looked at, and all are left alone until it returns; the buffers overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_gather_v(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    counts: *const usize,
    displacements: *const usize,
    dtype: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables.
    let call = |seat: Seat| unsafe { all_gather_v(seat, counts, displacements, dtype) };
    // SAFETY: the caller vouches for the buffers, and for the tables until this returns.
    unsafe { run(comm, send, recv, call) }
}

/// `ubccl_comm_all_gather_v` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_all_gather_v`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_gather_v_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    counts: *const usize,
    displacements: *const usize,
    dtype: i32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe { all_gather_v(seat, counts, displacements, dtype) };
    // SAFETY: the caller vouches for the buffers until the work is over.
    unsafe { issue(comm, send, recv, out, call) }
}

/// Reduces everybody's `send` and leaves `counts[r]` elements of the result on rank r, in rank order.
///
/// Shapes: counts [ranks], the same on every rank; send as long as all counts together, recv [counts[rank]]. In place if
///         recv is where this rank's block of send is; the rest of send is left as it was.
/// Order, errors: as `ubccl_comm_all_reduce`.
/// Source: MPI_Reduce_scatter, HcclReduceScatterV.
///
/// # Safety
/// `send` is readable and `recv` writable for these shapes (null is fine for no elements), the tables where they are
/// looked at, and all are left alone until it returns; the buffers overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_reduce_scatter_v(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    counts: *const usize,
    dtype: i32,
    op: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables.
    let call = |seat: Seat| unsafe { reduce_scatter_v(seat, counts, dtype, op) };
    // SAFETY: the caller vouches for the buffers, and for the tables until this returns.
    unsafe { run(comm, send, recv, call) }
}

/// `ubccl_comm_reduce_scatter_v` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_reduce_scatter_v`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_reduce_scatter_v_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    counts: *const usize,
    dtype: i32,
    op: i32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe { reduce_scatter_v(seat, counts, dtype, op) };
    // SAFETY: the caller vouches for the buffers until the work is over.
    unsafe { issue(comm, send, recv, out, call) }
}

/// Gathers blocks of different lengths on the root.
///
/// Shapes: send [count], count of this rank's own; on the root counts and displacements [ranks] say how much comes from whom
///         and where in recv it goes (null displacements: one after the other), and recv reaches at least to the end of
///         the last block; elsewhere recv, counts and displacements are not looked at (null is fine). In place if, on the
///         root, send is recv + displacements[root].
/// Order, errors: as `ubccl_comm_all_reduce`; InvalidArgument if blocks overlap, or the root's count is not its entry;
///         Mismatch if another rank's is not.
/// Source: MPI_Gatherv.
///
/// # Safety
/// `send` is readable and `recv` writable for these shapes (null is fine for no elements), the tables where they are
/// looked at, and all are left alone until it returns; the buffers overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_gather_v(
    comm: *const ubccl_comm,
    send: *const c_void,
    count: usize,
    recv: *mut c_void,
    counts: *const usize,
    displacements: *const usize,
    dtype: i32,
    root: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables.
    let call = |seat: Seat| unsafe { gather_v(seat, count, [counts, displacements], dtype, root) };
    // SAFETY: the caller vouches for the buffers, and for the tables until this returns.
    unsafe { run(comm, send, recv, call) }
}

/// `ubccl_comm_gather_v` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_gather_v`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_gather_v_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    count: usize,
    recv: *mut c_void,
    counts: *const usize,
    displacements: *const usize,
    dtype: i32,
    root: u32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe { gather_v(seat, count, [counts, displacements], dtype, root) };
    // SAFETY: the caller vouches for the buffers until the work is over.
    unsafe { issue(comm, send, recv, out, call) }
}

/// Gives every rank its block of the root's `send`, of any length.
///
/// Shapes: recv [count], count of this rank's own; on the root counts and displacements [ranks] say how much goes to whom and
///         where in send it lies (null displacements: one after the other); elsewhere send, counts and displacements are
///         not looked at (null is fine). In place if, on the root, recv is send + displacements[root].
/// Order, errors: as `ubccl_comm_all_reduce`; InvalidArgument if the root's count is not its entry; Mismatch if another
///         rank's is not.
/// Source: MPI_Scatterv.
///
/// # Safety
/// `send` is readable and `recv` writable for these shapes (null is fine for no elements), the tables where they are
/// looked at, and all are left alone until it returns; the buffers overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_scatter_v(
    comm: *const ubccl_comm,
    send: *const c_void,
    counts: *const usize,
    displacements: *const usize,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables.
    let call = |seat: Seat| unsafe { scatter_v(seat, count, [counts, displacements], dtype, root) };
    // SAFETY: the caller vouches for the buffers, and for the tables until this returns.
    unsafe { run(comm, send, recv, call) }
}

/// `ubccl_comm_scatter_v` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_scatter_v`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_scatter_v_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    counts: *const usize,
    displacements: *const usize,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    root: u32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe { scatter_v(seat, count, [counts, displacements], dtype, root) };
    // SAFETY: the caller vouches for the buffers until the work is over.
    unsafe { issue(comm, send, recv, out, call) }
}

/// Exchanges blocks of any length.
///
/// Shapes: send_counts and send_displacements [ranks] say how much of send goes to whom and where it lies, recv_counts and
///         recv_displacements [ranks] how much comes from whom and where in recv it goes (in elements; null displacements:
///         one after the other); what one rank sends another is as long as the other expects. The buffers reach at least to
///         the end of their last blocks; what lies between blocks is left as it was. Blocks that are sent may overlap. In
///         place if send is recv, and then both tables say the same.
/// Order, errors: as `ubccl_comm_all_reduce`; InvalidArgument if blocks that are received overlap; Mismatch, naming both
///         lengths, if they differ.
/// Source: MPI_Alltoallv, HcclAlltoAllV.
///
/// # Safety
/// `send` is readable and `recv` writable for these shapes (null is fine for no elements), the tables where they are
/// looked at, and all are left alone until it returns; the buffers overlap only in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_to_all_v(
    comm: *const ubccl_comm,
    send: *const c_void,
    send_counts: *const usize,
    send_displacements: *const usize,
    recv: *mut c_void,
    recv_counts: *const usize,
    recv_displacements: *const usize,
    dtype: i32,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables.
    let call = |seat: Seat| unsafe {
        all_to_all_v(seat, [send_counts, send_displacements], [recv_counts, recv_displacements], dtype)
    };
    // SAFETY: the caller vouches for the buffers, and for the tables until this returns.
    unsafe { run(comm, send, recv, call) }
}

/// `ubccl_comm_all_to_all_v` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_all_to_all_v`, for the buffers until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_to_all_v_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    send_counts: *const usize,
    send_displacements: *const usize,
    recv: *mut c_void,
    recv_counts: *const usize,
    recv_displacements: *const usize,
    dtype: i32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    // SAFETY: the caller vouches for the tables, which are copied before this returns.
    let call = |seat: Seat| unsafe {
        all_to_all_v(seat, [send_counts, send_displacements], [recv_counts, recv_displacements], dtype)
    };
    // SAFETY: the caller vouches for the buffers until the work is over.
    unsafe { issue(comm, send, recv, out, call) }
}

// Of each of these: a table is null, misaligned, or has an entry for each rank of the communicator, for as long as the call that is
// returned is used.

/// # Safety
/// See above.
pub(super) unsafe fn all_gather_v<'a>(
    seat: Seat,
    counts: *const usize,
    displacements: *const usize,
    dtype: i32,
) -> Result<Call<'a>> {
    // SAFETY: the caller vouches for the tables.
    let blocks = unsafe { read_blocks(counts, displacements, seat.ranks) }?;
    Ok(Collective::all_gather_v(read_dtype(dtype)?, blocks).into())
}

/// # Safety
/// See above.
pub(super) unsafe fn reduce_scatter_v<'a>(
    seat: Seat,
    counts: *const usize,
    dtype: i32,
    op: i32,
) -> Result<Call<'a>> {
    // SAFETY: the caller vouches for the table.
    let counts = unsafe { read_lengths(counts, "counts", seat.ranks) }?;
    let dtype = read_dtype(dtype)?;
    reducing(op, |op| Collective::reduce_scatter_v(dtype, op, counts))
}

/// # Safety
/// See above.
pub(super) unsafe fn gather_v<'a>(
    seat: Seat,
    count: usize,
    tables: [*const usize; 2],
    dtype: i32,
    root: u32,
) -> Result<Call<'a>> {
    // SAFETY: the caller vouches for the tables.
    let blocks = unsafe { blocks_of_root(seat, tables, root) }?;
    Ok(Collective::gather_v(count as u64, read_dtype(dtype)?, root, blocks).into())
}

/// # Safety
/// See above.
pub(super) unsafe fn scatter_v<'a>(
    seat: Seat,
    count: usize,
    tables: [*const usize; 2],
    dtype: i32,
    root: u32,
) -> Result<Call<'a>> {
    // SAFETY: the caller vouches for the tables.
    let blocks = unsafe { blocks_of_root(seat, tables, root) }?;
    Ok(Collective::scatter_v(count as u64, read_dtype(dtype)?, root, blocks).into())
}

/// Counts and displacements, on the root; elsewhere they are not looked at.
///
/// # Safety
/// See above.
unsafe fn blocks_of_root<'a>(
    seat: Seat,
    [counts, displacements]: [*const usize; 2],
    root: u32,
) -> Result<Option<Blocks<'a>>> {
    if seat.rank != root {
        return Ok(None);
    }
    // SAFETY: the caller vouches for the tables.
    unsafe { read_blocks(counts, displacements, seat.ranks) }.map(Some)
}

/// # Safety
/// See above.
pub(super) unsafe fn all_to_all_v<'a>(
    seat: Seat,
    [send_counts, send_displacements]: [*const usize; 2],
    [recv_counts, recv_displacements]: [*const usize; 2],
    dtype: i32,
) -> Result<Call<'a>> {
    // SAFETY: the caller vouches for the tables.
    let send = unsafe { read_blocks(send_counts, send_displacements, seat.ranks) }?;
    // SAFETY: the caller vouches for the tables.
    let receive = unsafe { read_blocks(recv_counts, recv_displacements, seat.ranks) }?;
    Ok(Collective::all_to_all_v(read_dtype(dtype)?, send, receive).into())
}
