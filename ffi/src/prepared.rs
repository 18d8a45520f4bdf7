//! Persistent operations: prepared once, started many times.
#![allow(unsafe_code)] // takes C's word for its pointers; each function says which

use crate::boundary::{check_out, guard, write};
use crate::codes::ubccl_result;
use crate::comm::get;
use crate::handles::Table;
use crate::work::LONGEST_WAIT;
use std::ptr::without_provenance;
use std::time::Duration;
use ubccl_rs::PreparedRaw;

/// A call with its buffers, made by a function whose name ends in `_prepare`, to be started again and again. Starting
/// looks nothing up: that was done when it was prepared. Tables of counts and displacements are copied then.
///
/// Order: preparing is this rank's own affair; every start counts as the call, and other ranks may make it as an
/// ordinary one.
///
/// Buffers: as for a `ubccl_work`, from every start until the operation is over; between starts they are the caller's
/// to read and write. `ubccl_prepared_start` is as safe as the call itself: the buffers must be there.
///
/// Threads: one thread at a time with one of them; a second one is refused with `UBCCL_INVALID_ARGUMENT`. It is freed
/// with `ubccl_prepared_free`, before or after its communicator.
///
/// Source: MPI_Allreduce_init, MPI_Send_init.
#[allow(non_camel_case_types)]
pub struct ubccl_prepared(());

pub(crate) static PREPARED: Table<Prepared> = Table::new(0xc5, "prepared");

/// A persistent operation and the handle of its communicator.
pub(crate) struct Prepared {
    pub(crate) comm: usize,
    pub(crate) operation: PreparedRaw,
}

/// Starts it.
///
/// Errors: InvalidArgument if it is under way or its communicator was destroyed; otherwise as the call without waiting.
/// Source: MPI_Start.
///
/// # Safety
/// Its buffers are as the call needs them until the operation is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_prepared_start(prepared: *mut ubccl_prepared) -> ubccl_result {
    guard(|| {
        let mut owned = PREPARED.own(prepared.addr())?;
        let Prepared { comm, operation } = owned.value();
        let comm = get(without_provenance(*comm))?;
        comm.open()?;
        operation.start()
    })
}

/// Whether it is not under way, or not any more; moves on what can move, and does not wait.
///
/// Errors: InvalidArgument; Mismatch, Timeout, RemoteError, Aborted if the operation failed.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_prepared_test(prepared: *mut ubccl_prepared, out: *mut bool) -> ubccl_result {
    guard(|| {
        check_out(out)?;
        let is_done = PREPARED.own(prepared.addr())?.value().operation.test()?;
        // SAFETY: the caller vouches for `out`.
        unsafe { write(out, is_done) }
    })
}

/// Waits until it is done, if it is under way. After an error too its buffers are not touched any more.
///
/// Errors: as `ubccl_prepared_test`.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_prepared_wait(prepared: *mut ubccl_prepared) -> ubccl_result {
    guard(|| PREPARED.own(prepared.addr())?.value().operation.wait())
}

/// Waits for at most `timeout_ms`; if it is not done by then, `out` says so, and nothing is harmed.
///
/// Errors: as `ubccl_prepared_test`.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_prepared_wait_timeout(
    prepared: *mut ubccl_prepared,
    timeout_ms: u64,
    out: *mut bool,
) -> ubccl_result {
    guard(|| {
        check_out(out)?;
        let timeout = Duration::from_millis(timeout_ms).min(LONGEST_WAIT);
        let is_done = PREPARED.own(prepared.addr())?.value().operation.wait_timeout(timeout)?;
        // SAFETY: the caller vouches for `out`.
        unsafe { write(out, is_done) }
    })
}

/// Frees it. If it is under way it is waited for, so that afterwards its buffers belong to the caller.
///
/// Errors: InvalidArgument if it is null, was freed before, or another thread is in a call with it; otherwise the
///         operation's result, and it is freed.
/// Source: MPI_Request_free, which does not wait.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_prepared_free(prepared: *mut ubccl_prepared) -> ubccl_result {
    guard(|| {
        let mut owned = PREPARED.own(prepared.addr())?;
        let result = owned.value().operation.wait();
        drop(owned.end());
        result
    })
}
