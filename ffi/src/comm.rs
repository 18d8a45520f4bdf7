//! The communicator, and its three endings: close, abort, destroy.
#![allow(unsafe_code)] // exported functions

use crate::boundary::guard;
use crate::codes::ubccl_result;
use crate::handles::{Shared, Table};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;
use ubccl_rs::{Communicator, Error, ErrorKind, MemoryUse, Region, Result, Traffic};

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

pub(crate) static COMMS: Table<Comm> = Table::new(0xc1, "comm");

/// A communicator, and what can still be asked when it is closed.
pub(crate) struct Comm {
    pub(crate) rank: u32,
    pub(crate) ranks: u32,
    pub(crate) transport: String,
    state: State,
    /// What `ubccl_mem_alloc` gave, by address.
    pub(crate) regions: Mutex<BTreeMap<usize, Region<u8>>>,
}

enum State {
    Open(Communicator),
    Closed { counters: Traffic, error: Option<Error> },
}

impl Comm {
    pub(crate) fn new(communicator: Communicator, transport: String) -> Self {
        let (rank, ranks) = (communicator.rank(), communicator.ranks());
        Comm { rank, ranks, transport, state: State::Open(communicator), regions: Mutex::default() }
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

    pub(crate) fn counters(&self) -> Traffic {
        match &self.state {
            State::Open(communicator) => communicator.counters(),
            State::Closed { counters, .. } => counters.clone(),
        }
    }

    /// None when it is closed.
    pub(crate) fn memory(&self) -> MemoryUse {
        match &self.state {
            State::Open(communicator) => communicator.memory(),
            State::Closed { .. } => MemoryUse::default(),
        }
    }

    pub(crate) fn async_error(&self) -> Option<Error> {
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
