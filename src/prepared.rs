//! Persistent operations: checked, planned and bound to their buffers once, started many times.
#![allow(unsafe_code)] // hands buffers that the operation owns to the engine

use crate::communicator::{Communicator, Shared, check_size, host, host_mut};
use crate::engine::{Buffers, OpId, Status};
use crate::planned::Planned;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ubccl_core::collective::CallStore;
use ubccl_core::{Collective, Element, Error, Result, Signature};

/// A collective (or point-to-point call) with its buffers, to be started again and again.
///
/// Starting looks nothing up and checks nothing but that the communicator lives. Every start is a call like any other:
/// all ranks make the same calls in the same order, and it does not matter which of them are prepared. Dropping it
/// while it is under way neither cancels nor waits; its buffers live until it is done.
///
/// Source: MPI_Allreduce_init, MPI_Start.
#[derive(Debug)]
#[must_use = "a prepared operation does nothing until it is started"]
pub struct Prepared<T: Element> {
    bound: Bound,
    /// None in place.
    input: Option<Vec<T>>,
    output: Vec<T>,
}

/// The same on raw memory, which whoever made it vouched for. Dropping it while it is under way neither cancels nor
/// waits.
#[derive(Debug)]
#[must_use = "a prepared operation does nothing until it is started"]
pub struct PreparedRaw {
    bound: Bound,
    buffers: Buffers,
}

/// What is kept of a call between its starts.
#[derive(Debug)]
struct Bound {
    shared: Arc<Shared>,
    call: CallStore,
    plan: Arc<Planned>,
    signature: Signature,
    running: Option<OpId>,
}

impl Communicator {
    /// Prepares a call on these buffers.
    ///
    /// Shapes: as the call's kind says. Tables of lengths are copied.
    /// Order:  preparing is this rank's own affair; starting counts as the call.
    /// Errors: InvalidArgument, Unsupported; the cause, if the communicator is poisoned.
    pub fn prepare<T: Element>(
        &self,
        call: &Collective<'_>,
        input: Vec<T>,
        output: Vec<T>,
    ) -> Result<Prepared<T>> {
        self.shared.check_call(call)?;
        let (ranks, rank) = (self.ranks(), self.rank());
        check_size(call, "input", size_of_val(&*input), call.input_elements(ranks, rank))?;
        check_size(call, "output", size_of_val(&*output), call.output_elements(ranks, rank))?;
        Ok(Prepared { bound: self.bind(call, false)?, input: Some(input), output })
    }

    /// Prepares a call in place. See [`Communicator::prepare`].
    pub fn prepare_in_place<T: Element>(&self, call: &Collective<'_>, buffer: Vec<T>) -> Result<Prepared<T>> {
        self.check_joint(call, size_of_val(&*buffer))?;
        Ok(Prepared { bound: self.bind(call, true)?, input: None, output: buffer })
    }

    /// Prepares a call on raw memory; in place as [`Communicator::run_raw`] says.
    ///
    /// Errors: as [`Communicator::prepare`].
    ///
    /// # Safety
    /// As [`Communicator::run_raw`], from every start of it until one of its waits has returned (an error too), its
    /// `test` has answered `true`, or it is never started again and [`Communicator::abort`] has returned. Dropping it
    /// while it is under way does not end that.
    pub unsafe fn prepare_raw(
        &self,
        call: &Collective<'_>,
        input: *const u8,
        output: *mut u8,
    ) -> Result<PreparedRaw> {
        let buffers = self.shared.raw_buffers(call, input, output)?;
        let bound = self.bind(call, matches!(buffers, Buffers::InPlace(_)))?;
        Ok(PreparedRaw { bound, buffers })
    }

    fn bind(&self, call: &Collective<'_>, in_place: bool) -> Result<Bound> {
        let plan = self.shared.lock().plan(call, in_place)?;
        let signature = call.signature(plan.number());
        let mut stored = CallStore::default();
        stored.set(call);
        Ok(Bound { shared: self.shared.clone(), call: stored, plan, signature, running: None })
    }
}

impl<T: Element> Prepared<T> {
    /// Starts it.
    ///
    /// Errors: InvalidArgument, if it is under way; otherwise as [`Communicator::run_async`].
    pub fn start(&mut self) -> Result<()> {
        self.bound.check_idle()?;
        let output = host_mut(bytemuck::cast_slice_mut(&mut self.output));
        let buffers = match &self.input {
            Some(input) => {
                let bytes: &[u8] = bytemuck::cast_slice(input);
                Buffers::Apart { input: host(bytes.as_ptr(), bytes.len()), output }
            }
            None => Buffers::InPlace(output),
        };
        // SAFETY: nobody gets at the vectors while it is under way, their memory stays where it is, and `drop` gives
        // them to the engine if it still is; the plan was made in place or not as the buffers are.
        unsafe { self.bound.start(buffers) }
    }

    /// Whether it is not under way (any more); moves on what can move.
    ///
    /// Errors: the cause that poisoned the communicator.
    pub fn test(&mut self) -> Result<bool> {
        self.bound.test()
    }

    /// Waits until it is done, if it is under way.
    ///
    /// Errors: as [`Work::wait`](crate::Work::wait).
    pub fn wait(&mut self) -> Result<()> {
        self.bound.wait_until(None).map(drop)
    }

    /// Waits for at most `timeout`; `false` if it is not done by then, which harms nothing.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<bool> {
        self.bound.wait_until(Some(Instant::now() + timeout))
    }

    /// What the rank brings; in place, the one buffer.
    ///
    /// Errors: InvalidArgument, while it is under way.
    pub fn input(&mut self) -> Result<&mut [T]> {
        self.bound.check_idle()?;
        Ok(self.input.as_mut().unwrap_or(&mut self.output))
    }

    /// What the rank gets; in place, the one buffer.
    ///
    /// Errors: InvalidArgument, while it is under way.
    pub fn output(&mut self) -> Result<&mut [T]> {
        self.bound.check_idle()?;
        Ok(&mut self.output)
    }
}

impl PreparedRaw {
    /// Starts it. See [`Prepared::start`].
    pub fn start(&mut self) -> Result<()> {
        self.bound.check_idle()?;
        // SAFETY: whoever made it vouched for the memory from here on; the plan was made in place or not as the buffers
        // are.
        unsafe { self.bound.start(self.buffers.clone()) }
    }

    /// Whether it is not under way (any more); moves on what can move. See [`Prepared::test`].
    pub fn test(&mut self) -> Result<bool> {
        self.bound.test()
    }

    /// Waits until it is done, if it is under way. See [`Prepared::wait`].
    pub fn wait(&mut self) -> Result<()> {
        let running = self.bound.running;
        let done = self.bound.wait_until(None);
        if let (Err(_), Some(op)) = (&done, running.filter(|_| self.bound.running.is_some())) {
            // The waiting itself failed, but the memory goes back to its owner.
            self.bound.shared.end_failed(op);
            self.bound.settle(op);
        }
        done.map(drop)
    }

    /// Waits for at most `timeout`. See [`Prepared::wait_timeout`].
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<bool> {
        self.bound.wait_until(Some(Instant::now() + timeout))
    }
}

impl Drop for PreparedRaw {
    fn drop(&mut self) {
        if let Some(op) = self.bound.running.take() {
            self.bound.shared.lock().detach(op);
        }
    }
}

impl<T: Element> Drop for Prepared<T> {
    fn drop(&mut self) {
        let Some(op) = self.bound.running.take() else { return };
        let mut engine = self.bound.shared.lock();
        engine.entrust(op, Box::new((self.input.take(), std::mem::take(&mut self.output))));
        engine.detach(op);
    }
}

impl Bound {
    fn check_idle(&self) -> Result<()> {
        match self.running {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!("{} is under way; wait for it first", self.call.get()))),
        }
    }

    /// # Safety
    /// As for `Engine::issue`; the buffers are in place or not as the plan says.
    unsafe fn start(&mut self, buffers: Buffers) -> Result<()> {
        let planned = (self.plan.clone(), self.signature);
        // SAFETY: the caller vouches; the plan was made for this call.
        self.running = Some(unsafe { self.shared.issue_planned(&self.call.get(), planned, buffers) }?);
        Ok(())
    }

    fn test(&mut self) -> Result<bool> {
        let Some(op) = self.running else { return Ok(true) };
        let status = self.shared.test(op);
        self.settle(op);
        Ok(status? == Status::Done)
    }

    fn wait_until(&mut self, until: Option<Instant>) -> Result<bool> {
        let Some(op) = self.running else { return Ok(true) };
        let done = self.shared.wait(op, until);
        self.settle(op);
        done
    }

    /// Takes note if the operation is over, well or not.
    fn settle(&mut self, op: OpId) {
        let mut engine = self.shared.lock();
        if engine.status(op) == Status::Done {
            engine.take(op);
            self.running = None;
        }
    }
}
