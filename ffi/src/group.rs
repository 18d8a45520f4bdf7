//! Groups: calls that are collected and run at once.
#![allow(unsafe_code)] // takes C's word for its pointers; each function says which

use crate::boundary::{guard, put};
use crate::codes::ubccl_result;
use crate::collectives::Seat;
use crate::comm::{get, ubccl_comm};
use crate::handles::{Owned, Table};
use crate::work::{Issued, Operation, WORKS, ubccl_work};
use std::ptr::without_provenance;
use ubccl_rs::{Group, Result};

/// Calls of one communicator that are collected, by the functions that begin with `ubccl_group_`, and run at once by
/// `ubccl_group_run` or `ubccl_group_issue`, which use it up.
///
/// All messages of a group are concurrent: none waits for another, so that ranks may exchange in any pattern without
/// thinking of an order. Those of a pair keep their order, within a group, between groups and with `ubccl_comm_send` and
/// `ubccl_comm_receive`. A message of a rank to itself is copied: the k-th to the k-th, both in the same group.
/// Collectives of a group keep their order, the same on every rank. Buffers that are received into lie apart.
///
/// Buffers belong to the group from the call that adds them until it has run, its work is over, or it is destroyed;
/// tables of counts and displacements are copied. A call that is refused is not in the group.
///
/// Threads: one thread at a time with one group; a second one is refused with `UBCCL_INVALID_ARGUMENT`.
///
/// Source: ncclGroupStart and ncclGroupEnd, but explicit: calls outside the group are not in it.
#[allow(non_camel_case_types)]
pub struct ubccl_group(());

pub(crate) static GROUPS: Table<Collecting> = Table::new(0xc4, "group");

/// A group and the handle of its communicator.
pub(crate) struct Collecting {
    comm: usize,
    pub(crate) seat: Seat,
    pub(crate) group: Group<'static>,
}

pub(crate) fn own(group: *mut ubccl_group) -> Result<Owned<'static, Collecting>> {
    GROUPS.own(group.addr())
}

/// Begins a group.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_begin(
    comm: *const ubccl_comm,
    out: *mut *mut ubccl_group,
) -> ubccl_result {
    guard(|| {
        let communicator = get(comm)?;
        let communicator = communicator.open()?;
        let make = || {
            Ok(Collecting {
                comm: comm.addr(),
                seat: Seat::of(communicator),
                group: communicator.group_raw(),
            })
        };
        // SAFETY: the caller vouches for `out`.
        unsafe { put(&GROUPS, out, make) }
    })
}

/// Runs a group, blocks until all of it is done, and frees it whatever the result says.
///
/// Errors: InvalidArgument if it is null, was run, issued or destroyed before, its communicator was, or nothing in it
///         fits together; Unsupported, Closed: nothing was sent. Otherwise as `ubccl_comm_all_reduce`.
/// Source: ncclGroupEnd.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_group_run(group: *mut ubccl_group) -> ubccl_result {
    guard(|| {
        let Collecting { comm, group, .. } = own(group)?.end();
        let comm = get(without_provenance(comm))?;
        comm.open()?;
        group.run()
    })
}

/// Runs a group without waiting: see `ubccl_work`. Frees the group whatever the result says, unless `out` is null.
///
/// Errors: as `ubccl_group_run`; what fails later comes from the work.
///
/// # Safety
/// All buffers in the group are as their calls need them until the work is over; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_group_issue(
    group: *mut ubccl_group,
    out: *mut *mut ubccl_work,
) -> ubccl_result {
    let make = || {
        let Collecting { comm, group, .. } = own(group)?.end();
        let comm = get(without_provenance(comm))?;
        comm.open()?;
        // SAFETY: everything was added raw, and the caller vouches for it until the work is over.
        let work = unsafe { group.issue_raw() }?;
        Ok(Issued::UnderWay(Operation::Group(work)))
    };
    // SAFETY: the caller vouches for `out`.
    guard(|| unsafe { put(&WORKS, out, make) })
}

/// Frees a group that is not to run. Nothing was sent.
///
/// Errors: InvalidArgument if it is null, or was run, issued or destroyed before.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_group_destroy(group: *mut ubccl_group) -> ubccl_result {
    guard(|| {
        drop(own(group)?.end());
        Ok(())
    })
}
