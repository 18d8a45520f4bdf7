//! The communicator: what can be asked of it, and its three endings (close, abort, destroy).
#![allow(unsafe_code)] // takes C's word for its pointers; each function says which

use crate::boundary::{check_out, fill, guard, read_text, write, write_text};
use crate::codes::{UBCCL_SUCCESS, read_dtype, read_op, ubccl_result};
use crate::error::remember;
use crate::handles::{Shared, Table};
use std::ffi::c_char;
use std::time::Duration;
use ubccl_rs::{Blocks, Collective, Communicator, Counters, Error, ErrorKind, Kind, Result};

/// A communicator: this rank's membership in a group of ranks that make the same calls in the same order.
///
/// Threads: any thread may call. Calls of several threads take turns, and then their order is the program's to keep
/// equal on all ranks. While a call is under way `ubccl_comm_abort` and the queries may be called from other threads;
/// `ubccl_comm_close` and `ubccl_comm_destroy` are refused with `UBCCL_INVALID_ARGUMENT` and change nothing.
///
/// Handles: a handle that was destroyed, is null, or never was one gives `UBCCL_INVALID_ARGUMENT`, for ever. After
/// `fork` it belongs to the parent; the child gets `UBCCL_INVALID_ARGUMENT`.
///
/// Errors: `UBCCL_INVALID_ARGUMENT` and `UBCCL_UNSUPPORTED` sent nothing and change nothing. `UBCCL_MISMATCH`,
/// `UBCCL_TIMEOUT`, `UBCCL_REMOTE_ERROR` and `UBCCL_ABORTED` poison the communicator: every rank gets the same cause
/// from whatever is under way or called later. No buffer is touched after a blocking call has returned, whatever it
/// returned.
#[allow(non_camel_case_types)]
pub struct ubccl_comm(());

/// What one rank has moved so far. Set `size` to `sizeof(struct ubccl_counters)` before asking; a later version may
/// count more, and writes no more than `size` bytes.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct ubccl_counters {
    /// Bytes of this structure as the caller knows it.
    pub size: usize,
    /// Messages sent, once for each peer.
    pub messages_sent: u64,
    /// Payload bytes sent, once for each peer.
    pub bytes_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
}

pub(crate) static COMMS: Table<Comm> = Table::new(0xc1, "comm");

/// A communicator, and what can still be asked when it is closed.
pub(crate) struct Comm {
    rank: u32,
    ranks: u32,
    transport: String,
    state: State,
}

enum State {
    Open(Communicator),
    Closed { counters: Counters, error: Option<Error> },
}

impl Comm {
    pub(crate) fn new(communicator: Communicator, transport: String) -> Self {
        let (rank, ranks) = (communicator.rank(), communicator.ranks());
        Comm { rank, ranks, transport, state: State::Open(communicator) }
    }

    /// The communicator, to call something.
    ///
    /// Errors: Closed.
    pub(crate) fn open(&self) -> Result<&Communicator> {
        match &self.state {
            State::Open(communicator) => Ok(communicator),
            State::Closed { .. } => Err(Error::new(ErrorKind::Closed, "ubccl_comm_close was called before")),
        }
    }

    fn counters(&self) -> Counters {
        match &self.state {
            State::Open(communicator) => communicator.counters().total,
            State::Closed { counters, .. } => *counters,
        }
    }

    fn async_error(&self) -> Option<Error> {
        match &self.state {
            State::Open(communicator) => communicator.async_error(),
            State::Closed { error, .. } => error.clone(),
        }
    }

    /// Leaves in good order, if it has not. Changes nothing if operations are under way.
    fn close(&mut self) -> Result<()> {
        let counters = self.counters();
        let is_healthy = self.async_error().is_none();
        if is_healthy && !self.open()?.is_idle() {
            return Err(Error::invalid("operations are still under way; wait for every work before closing"));
        }
        self.open()?;
        let closed = State::Closed { counters, error: None };
        let State::Open(communicator) = std::mem::replace(&mut self.state, closed) else { return Ok(()) };
        let result = communicator.close();
        if let (State::Closed { error, .. }, Err(cause)) = (&mut self.state, &result) {
            *error = Some(cause.clone());
        }
        result
    }
}

pub(crate) fn get(comm: *const ubccl_comm) -> Result<Shared<'static, Comm>> {
    COMMS.get(comm.addr())
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
        let Counters { messages_sent, bytes_sent, messages_received, bytes_received } = get(comm)?.counters();
        let size = size_of::<ubccl_counters>();
        let counters = ubccl_counters { size, messages_sent, bytes_sent, messages_received, bytes_received };
        // SAFETY: the structure is `repr(C)` and begins with its size; the caller vouches for `out`.
        unsafe { fill(out, counters, size) }
    })
}

/// Sets how long an operation may take that is issued or waited for from now on. An operation that takes longer fails
/// with `UBCCL_TIMEOUT` and poisons the communicator.
///
/// Errors: InvalidArgument if `timeout_ms` is 0.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_comm_set_operation_timeout(comm: *const ubccl_comm, timeout_ms: u64) -> ubccl_result {
    guard(|| {
        let comm = get(comm)?;
        if timeout_ms == 0 {
            return Err(Error::invalid("timeout_ms is 0; an operation needs some time"));
        }
        comm.open()?.set_operation_timeout(Duration::from_millis(timeout_ms));
        Ok(())
    })
}

/// Ends the communicator on every rank: whatever is under way or called later fails with `UBCCL_ABORTED`. Returns when
/// no buffer of this rank is touched any more; waits for nobody. The handle is still to be destroyed.
///
/// Errors: Closed.
/// Source: ncclCommAbort, which frees the communicator too.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_comm_abort(comm: *const ubccl_comm) -> ubccl_result {
    guard(|| get(comm)?.open()?.abort("ubccl_comm_abort"))
}

/// Leaves in good order: the others may close later, and operations of theirs that need this rank fail. Afterwards the
/// queries still answer, calls give `UBCCL_CLOSED`, and the handle is still to be destroyed.
///
/// Errors: InvalidArgument, and nothing is changed, if operations are under way (wait for their works) or another
///         thread is in a call; Closed if it was closed before; Mismatch if another rank has called something else or a
///         message came that no call took; RemoteError if another has called less and left; the first cause if the
///         communicator is poisoned. After these it is closed.
/// Source: ncclCommFinalize.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_comm_close(comm: *mut ubccl_comm) -> ubccl_result {
    guard(|| COMMS.own(comm.addr())?.value().close())
}

/// Closes the communicator if it was not, and frees it.
///
/// Errors: InvalidArgument, and nothing is changed or freed, if it is null or was destroyed before, operations are
///         under way (wait for their works, or abort), or another thread is in a call. Otherwise as
///         `ubccl_comm_close`, and it is freed whatever the result says.
/// Source: ncclCommDestroy.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_comm_destroy(comm: *mut ubccl_comm) -> ubccl_result {
    guard(|| {
        let mut owned = COMMS.own(comm.addr())?;
        let is_open = owned.value().open().is_ok();
        let result = if is_open { owned.value().close() } else { Ok(()) };
        // A refusal left it open.
        if owned.value().open().is_err() {
            drop(owned.end());
        }
        result
    })
}
