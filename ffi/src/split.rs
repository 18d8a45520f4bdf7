//! Communicators made of the ranks of another.
#![allow(unsafe_code)] // takes C's word for its pointers; each function says which

use crate::boundary::{check_out, guard, write};
use crate::codes::ubccl_result;
use crate::comm::{COMMS, Comm, get, ubccl_comm};
use std::ffi::c_void;
use ubccl_rs::{Communicator, Error, Result};

/// The colour of a rank that takes part in `ubccl_comm_split` and gets no communicator.
pub const UBCCL_NO_COLOUR: i32 = -1;

/// Makes a communicator of the ranks that give the same colour, 0 or more; this rank's number in it is its place by
/// `key`, then by rank here. A rank with `UBCCL_NO_COLOUR` takes part in the call and gets null.
///
/// The new communicator has this one's settings and is independent of it: it is closed and destroyed on its own, and
/// an abort or error of one leaves the other alone. Only what ends a rank, such as its death, ends all it is in.
///
/// Order:  every rank calls it, as a collective. Ranks that are in two communicators call on them in the same order.
/// Errors: as `ubccl_comm_all_reduce`; InvalidArgument, on every rank, if ranks ask for different kinds of split;
///         StartFailed or SystemError if the group cannot start, after which this one can still be used.
/// Source: ncclCommSplit, MPI_Comm_split.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_split(
    comm: *const ubccl_comm,
    colour: i32,
    key: i64,
    out: *mut *mut ubccl_comm,
) -> ubccl_result {
    guard(|| {
        let colour = match (colour, u32::try_from(colour)) {
            (UBCCL_NO_COLOUR, _) => None,
            (_, Ok(colour)) => Some(colour),
            (_, Err(_)) => return Err(Error::invalid(format!("{colour} is no colour: they are 0 or more"))),
        };
        // SAFETY: the caller vouches for `out`.
        unsafe { make(comm, out, |comm| comm.split(colour, key)) }
    })
}

/// Makes a communicator of `count` ranks, in this order: the first is its rank 0. All ranks of this one call it with the
/// same list; those that are not in it get null.
///
/// Order:  as `ubccl_comm_split`.
/// Errors: as `ubccl_comm_split`; InvalidArgument, on every rank, if the list is empty, names a rank twice or one that
///         does not exist, or is not the same everywhere.
/// Source: MPI_Comm_create, torch.distributed.new_group.
///
/// # Safety
/// `ranks` is null, misaligned, or has `count` entries; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_split_ranks(
    comm: *const ubccl_comm,
    ranks: *const u32,
    count: usize,
    out: *mut *mut ubccl_comm,
) -> ubccl_result {
    guard(|| {
        if (ranks.is_null() && count > 0)
            || !ranks.is_aligned()
            || count > isize::MAX as usize / size_of::<u32>()
        {
            return Err(Error::invalid(format!("{ranks:p} is no list of {count} ranks")));
        }
        let ranks = match count {
            0 => &[],
            // SAFETY: it is neither null nor misaligned nor too long, so the caller vouches for its entries.
            _ => unsafe { std::slice::from_raw_parts(ranks, count) },
        };
        // SAFETY: the caller vouches for `out`.
        unsafe { make(comm, out, |comm| comm.split_ranks(ranks)) }
    })
}

/// Makes another communicator of all ranks, with the same numbers.
///
/// Order, errors: as `ubccl_comm_split`.
/// Source: MPI_Comm_dup.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_duplicate(
    comm: *const ubccl_comm,
    out: *mut *mut ubccl_comm,
) -> ubccl_result {
    // SAFETY: the caller vouches for `out`.
    guard(|| unsafe { make(comm, out, |comm| comm.duplicate().map(Some)) })
}

/// Makes a communicator of another's ranks and writes its handle, or null.
///
/// # Safety
/// `out` is null or may be written.
unsafe fn make(
    comm: *const ubccl_comm,
    out: *mut *mut ubccl_comm,
    split: impl FnOnce(&Communicator) -> Result<Option<Communicator>>,
) -> Result<()> {
    check_out(out)?;
    let parent = get(comm)?;
    let handle = match split(parent.open()?)? {
        None => std::ptr::null_mut::<c_void>(),
        Some(child) => {
            let child = Comm::new(child, parent.transport.clone());
            std::ptr::without_provenance_mut(COMMS.insert(|| Ok(child))?)
        }
    };
    // SAFETY: the caller vouches for `out`.
    unsafe { write(out, handle.cast()) }
}
