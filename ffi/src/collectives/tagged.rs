//! Messages with tags: received in the order asked for, also from whoever comes first.
#![allow(unsafe_code)] // takes C's word for its buffers; each function says which

use crate::boundary::{guard, put};
use crate::codes::{read_dtype, ubccl_result};
use crate::comm::{get, ubccl_comm};
use crate::work::{Issued, Operation, WORKS, ubccl_work};
use std::ffi::c_void;

/// The source of a receive that takes the first message with its tag, whoever sends it.
pub const UBCCL_ANY_SOURCE: u32 = 0xffff_ffff;

/// Sends `send` with a tag to `peer`, which receives it by `ubccl_comm_receive_tagged` with the same tag, count and
/// dtype. Returns when `send` may be changed, which may be before the peer has received.
///
/// Shapes: send [count].
/// Order:  messages of a pair with equal tags arrive in order; others in the order in which they are received. A
///         message that is not received yet may hold up the tagged messages behind it, never others. Messages without
///         a tag are messages apart.
/// Errors: as `ubccl_comm_all_reduce`; InvalidArgument if it goes to this rank itself and neither a receive waits nor
///         64 MiB of other messages leave room.
/// Source: MPI_Send.
///
/// # Safety
/// `send` is readable for `count` elements (null is fine for none), and left alone until it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_send_tagged(
    comm: *const ubccl_comm,
    send: *const c_void,
    count: usize,
    dtype: i32,
    peer: u32,
    tag: u32,
) -> ubccl_result {
    guard(|| {
        let message = (send.cast(), count as u64, read_dtype(dtype)?);
        // SAFETY: the caller vouches for the buffer.
        unsafe { get(comm)?.open()?.send_tagged_raw(message, peer, tag) }
    })
}

/// `ubccl_comm_send_tagged` without waiting: see `ubccl_work`.
///
/// # Safety
/// As for `ubccl_comm_send_tagged`, for the buffer until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_send_tagged_async(
    comm: *const ubccl_comm,
    send: *const c_void,
    count: usize,
    dtype: i32,
    peer: u32,
    tag: u32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    guard(|| {
        let message = (send.cast(), count as u64, read_dtype(dtype)?);
        let comm = get(comm)?;
        let communicator = comm.open()?;
        // SAFETY: the caller vouches for the buffer until the work is over.
        let make = || unsafe { communicator.send_tagged_raw_async(message, peer, tag) }.map(Issued::from);
        // SAFETY: the caller vouches for `out`.
        unsafe { put(&WORKS, out, make) }
    })
}

/// Receives a message with a tag into `recv`, from rank `source` or, if that is `UBCCL_ANY_SOURCE`, from any, and tells
/// from whom it is.
///
/// Shapes: recv [count]; `from` may be null.
/// Order:  of one sender and tag in the order sent, by receives in the order called. Messages that come before the one
///         waited for are kept: up to 4,096 and 64 MiB of them; a sender nobody waits for keeps its own.
/// Errors: as `ubccl_comm_all_reduce`; Mismatch, naming peer and tag, if the message has another count or dtype, or
///         messages that nobody receives take more room than there is.
/// Source: MPI_Recv with MPI_ANY_SOURCE.
///
/// # Safety
/// `recv` is writable for `count` elements (null is fine for none), and left alone until it returns; `from` is null or
/// may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_receive_tagged(
    comm: *const ubccl_comm,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    source: u32,
    tag: u32,
    from: *mut u32,
) -> ubccl_result {
    guard(|| {
        let message = (recv.cast(), count as u64, read_dtype(dtype)?);
        // SAFETY: the caller vouches for the buffer.
        let sender = unsafe { get(comm)?.open()?.receive_tagged_raw(message, rank(source), tag) }?;
        if !from.is_null() {
            // SAFETY: it is not null, and the caller vouches that it may be written.
            unsafe { from.write(sender) };
        }
        Ok(())
    })
}

/// `ubccl_comm_receive_tagged` without waiting: see `ubccl_work`; `ubccl_work_source` tells from whom the message is.
///
/// # Safety
/// As for `ubccl_comm_receive_tagged`, for the buffer until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_receive_tagged_async(
    comm: *const ubccl_comm,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    source: u32,
    tag: u32,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    guard(|| {
        let message = (recv.cast(), count as u64, read_dtype(dtype)?);
        let comm = get(comm)?;
        let communicator = comm.open()?;
        let make = || {
            // SAFETY: the caller vouches for the buffer until the work is over.
            let work = unsafe { communicator.receive_tagged_raw_async(message, rank(source), tag) };
            work.map(|work| Issued::UnderWay(Operation::Receive(work)))
        };
        // SAFETY: the caller vouches for `out`.
        unsafe { put(&WORKS, out, make) }
    })
}

fn rank(source: u32) -> Option<u32> {
    (source != UBCCL_ANY_SOURCE).then_some(source)
}
