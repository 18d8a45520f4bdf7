//! What can be asked of a communicator, also of one that is closed.
#![allow(unsafe_code)] // takes C's word for its pointers; each function says which

use crate::boundary::{check_out, fill, guard, read_text, write, write_text};
use crate::codes::{UBCCL_SUCCESS, read_dtype, read_op, ubccl_result};
use crate::comm::{get, ubccl_comm};
use crate::error::remember;
use std::ffi::c_char;
use ubccl_rs::{Blocks, Collective, Counters, Error, Kind, LinkClass, Result};

/// Messages and bytes.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct ubccl_traffic {
    /// Messages sent, once for each peer.
    pub messages_sent: u64,
    /// Payload bytes sent, once for each peer.
    pub bytes_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
}

impl From<Counters> for ubccl_traffic {
    fn from(counters: Counters) -> Self {
        let Counters { messages_sent, bytes_sent, messages_received, bytes_received } = counters;
        ubccl_traffic { messages_sent, bytes_sent, messages_received, bytes_received }
    }
}

/// What one rank has moved so far. Set `size` to `sizeof(struct ubccl_counters)` before asking; a later version may
/// count more, and writes no more than `size` bytes.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct ubccl_counters {
    /// Bytes of this structure as the caller knows it.
    pub size: usize,
    /// Over all links.
    pub total: ubccl_traffic,
    /// To and from ranks that are threads of the same process.
    pub same_process: ubccl_traffic,
    /// To and from other processes of the same host.
    pub same_host: ubccl_traffic,
    /// To and from other hosts.
    pub network: ubccl_traffic,
}

/// This rank and the number of ranks; either may be null.
///
/// Source: ncclCommUserRank, ncclCommCount.
///
/// # Safety
/// `rank` and `ranks` are null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_rank(
    comm: *const ubccl_comm,
    rank: *mut u32,
    ranks: *mut u32,
) -> ubccl_result {
    guard(|| {
        let comm = get(comm)?;
        for (place, value) in [(rank, comm.rank), (ranks, comm.ranks)] {
            if !place.is_null() {
                // SAFETY: it is not null, and the caller vouches that it may be written.
                unsafe { place.write(value) };
            }
        }
        Ok(())
    })
}

/// Writes the transport's name, zero-terminated, into `text` (`len` bytes; 32 suffice).
///
/// Errors: InvalidArgument, also if `len` is too small.
///
/// # Safety
/// `text` is null or has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_transport(
    comm: *const ubccl_comm,
    text: *mut c_char,
    len: usize,
) -> ubccl_result {
    // SAFETY: the caller vouches for `text`.
    guard(|| unsafe { write_text(&get(comm)?.transport, text, len) })
}

/// Writes the name of the algorithm that a call gets here, zero-terminated, into `text` (`len` bytes; 64 suffice).
/// `collective` is its name as in the functions' names: `all_reduce`, `gather_v`. `op` and `root` are looked at only
/// if it has one; `count` is as in its function, and every block's length if there are tables.
///
/// Errors: InvalidArgument; Unsupported if no algorithm does it.
///
/// # Safety
/// `collective` is null or zero-terminated; `text` is null or has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_algorithm(
    comm: *const ubccl_comm,
    collective: *const c_char,
    count: usize,
    dtype: i32,
    op: i32,
    root: u32,
    text: *mut c_char,
    len: usize,
) -> ubccl_result {
    guard(|| {
        let comm = get(comm)?;
        // SAFETY: the caller vouches for `collective`.
        let name = unsafe { read_text(collective, "collective") }?;
        let kind = Kind::parse(&name.ok_or_else(|| Error::invalid("collective is null"))?)?;
        let lengths = vec![count as u64; comm.ranks as usize];
        let asked = Asked { kind, count: count as u64, dtype, op, root, rank: comm.rank };
        let call = asked.call(&lengths)?;
        call.check(comm.ranks, comm.rank)?;
        // SAFETY: the caller vouches for `text`.
        unsafe { write_text(comm.open()?.algorithm_for(&call)?, text, len) }
    })
}

/// What `ubccl_comm_algorithm` was asked about.
struct Asked {
    kind: Kind,
    count: u64,
    dtype: i32,
    op: i32,
    root: u32,
    rank: u32,
}

impl Asked {
    fn call<'a>(&self, lengths: &'a [u64]) -> Result<Collective<'a>> {
        let Asked { count, root, .. } = *self;
        let (dtype, blocks) = (read_dtype(self.dtype)?, Blocks::packed(lengths));
        let op = || Ok::<_, Error>(read_op(self.op)?.op());
        Ok(match self.kind {
            Kind::AllReduce => Collective::all_reduce(count, dtype, op()?),
            Kind::AllGather => Collective::all_gather(count, dtype),
            Kind::ReduceScatter => Collective::reduce_scatter(count, dtype, op()?),
            Kind::Broadcast => Collective::broadcast(count, dtype, root),
            Kind::Barrier => Collective::barrier(),
            Kind::Reduce => Collective::reduce(count, dtype, op()?, root),
            Kind::Gather => Collective::gather(count, dtype, root),
            Kind::Scatter => Collective::scatter(count, dtype, root),
            Kind::AllToAll => Collective::all_to_all(count, dtype),
            Kind::GatherV => Collective::gather_v(count, dtype, root, Some(blocks)),
            Kind::ScatterV => Collective::scatter_v(count, dtype, root, Some(blocks)),
            Kind::AllGatherV => Collective::all_gather_v(dtype, blocks),
            Kind::ReduceScatterV => Collective::reduce_scatter_v(dtype, op()?, lengths),
            Kind::AllToAllV => Collective::all_to_all_v(dtype, blocks, blocks),
            Kind::SendReceive => Collective::send_receive(count, dtype, Some(self.rank), Some(self.rank)),
            kind => return Err(Error::unsupported(format!("{} has no algorithm to choose", kind.name()))),
        })
    }
}

/// Whether the communicator is poisoned: `UBCCL_SUCCESS`, or the kind of the first cause, which becomes this thread's
/// last error (`ubccl_last_error`, `ubccl_last_error_info`). Never blocks on other ranks.
///
/// Source: ncclCommGetAsyncError.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_async_error(
    comm: *const ubccl_comm,
    out: *mut ubccl_result,
) -> ubccl_result {
    guard(|| {
        check_out(out)?;
        let error = get(comm)?.async_error();
        // SAFETY: the caller vouches for `out`.
        unsafe { write(out, error.as_ref().map_or(UBCCL_SUCCESS, remember)) }
    })
}

/// What this rank has sent and received so far.
///
/// # Safety
/// `out` is null, or its `size` is readable and says how many of its bytes may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_counters(
    comm: *const ubccl_comm,
    out: *mut ubccl_counters,
) -> ubccl_result {
    guard(|| {
        let traffic = get(comm)?.counters();
        let over = |class| traffic.over(&class).into();
        let size = size_of::<ubccl_counters>();
        let counters = ubccl_counters {
            size,
            total: traffic.total.into(),
            same_process: over(LinkClass::SameProcess),
            same_host: over(LinkClass::SameHost),
            network: over(LinkClass::Network),
        };
        // SAFETY: the structure is `repr(C)` and begins with its size; the caller vouches for `out`.
        unsafe { fill(out, counters, size) }
    })
}

/// Bytes of memory that the communicator takes on this rank, the caller's buffers and the kernel's apart; 0 when it is
/// closed.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_memory(comm: *const ubccl_comm, out: *mut u64) -> ubccl_result {
    // SAFETY: the caller vouches for `out`.
    guard(|| unsafe { write(out, get(comm)?.memory().total()) })
}
