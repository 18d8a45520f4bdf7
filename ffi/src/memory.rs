//! Registered memory for C: buffers that the ranks of one host read and write in place.
#![allow(unsafe_code)] // exported functions

use crate::boundary::{check_out, guard};
use crate::codes::ubccl_result;
use crate::comm::{get, ubccl_comm};
use std::ffi::c_void;
use ubccl_rs::Error;

/// Allocates `bytes` bytes of registered memory, zeroed, at the beginning of a page, and writes its address to `memory`.
/// Any part of it may be the buffer of any call on any communicator; on `comm` its messages are read and written in place
/// where the transport can (over shared memory), which changes no result. Other ranks need not have any.
///
/// Order:  this rank's own affair; waits for nobody. Allocate once and use often: pages come at once.
/// Errors: InvalidArgument if `memory` is null, or for more bytes than there are addresses; Closed; SystemError if the
///         host has no more memory.
/// Source: ncclMemAlloc with ncclCommRegister.
///
/// # Safety
/// `memory` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_mem_alloc(
    comm: *const ubccl_comm,
    bytes: usize,
    memory: *mut *mut c_void,
) -> ubccl_result {
    guard(|| {
        check_out(memory)?;
        let comm = get(comm)?;
        let mut region = comm.open()?.alloc::<u8>(bytes)?;
        let first = region.as_mut_ptr();
        comm.regions.lock().insert(first.expose_provenance(), region);
        // SAFETY: it is not null, and the caller vouches that it may be written.
        unsafe { memory.write(first.cast()) };
        Ok(())
    })
}

/// Frees memory that `ubccl_mem_alloc` gave for this communicator; null is nothing. No operation that names it is under
/// way. What was not freed goes with `ubccl_comm_destroy`.
///
/// Errors: InvalidArgument, and nothing is freed, if it is not such memory or was freed before.
/// Source: ncclMemFree.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_mem_free(comm: *const ubccl_comm, memory: *mut c_void) -> ubccl_result {
    guard(|| {
        let comm = get(comm)?;
        if memory.is_null() {
            return Ok(());
        }
        let region = comm.regions.lock().remove(&memory.addr());
        region.map(drop).ok_or_else(|| {
            Error::invalid(format!(
                "{memory:p} is not memory that ubccl_mem_alloc gave for this communicator"
            ))
        })
    })
}
