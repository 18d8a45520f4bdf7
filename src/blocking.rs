//! Calls that block: at once if they are small, else issued and waited for.
#![allow(unsafe_code)] // hands callers' buffers to the engine

use crate::communicator::{Communicator, Shared, check_size, host, host_mut};
use crate::engine::{Buffers, Eligible, Engine, Express, Lengths};
use crate::round::Places;
use crate::sim::{is_in_program, refuse_blocking};
use parking_lot::MutexGuard;
use ubccl_core::{Collective, Kind, Result, Signature};

/// Looks at a small call before it is waited for like any other: some microseconds.
const LOOKS: u32 = 256;
/// The same with more ranks than cores, where looking keeps the others from coming.
const LOOKS_IF_CROWDED: u32 = 4;

impl Communicator {
    /// Any collective, on bytes: what the named calls do. Blocks.
    ///
    /// Errors: InvalidArgument if a buffer's size is not what the call needs (nothing was sent); otherwise as
    /// [`Communicator::all_reduce`].
    pub fn run(&self, call: &Collective<'_>, input: &[u8], output: &mut [u8]) -> Result<()> {
        let (places, lengths) =
            ((input.as_ptr(), output.as_mut_ptr()), Lengths::Apart(input.len(), output.len()));
        // SAFETY: both slices are borrowed until this returns, and are as long as is told.
        if let Some(result) = unsafe { self.shared.repeat(call, places, lengths) } {
            return result;
        }
        let stopwatch = self.shared.stopwatch();
        self.shared.check_call(call)?;
        let (ranks, rank) = (self.ranks(), self.rank());
        check_size(call, "input", input.len(), call.input_elements(ranks, rank))?;
        check_size(call, "output", output.len(), call.output_elements(ranks, rank))?;
        self.shared.checked(stopwatch);
        let buffers = Buffers::Apart { input: host(input.as_ptr(), input.len()), output: host_mut(output) };
        // SAFETY: both slices are borrowed until `run_blocking` returns, by which time nothing is under way.
        unsafe { self.shared.run_blocking(call, buffers) }
    }

    /// Any collective in place, by [`Collective::in_place_offsets`]. Blocks. See [`Communicator::run`].
    pub fn run_in_place(&self, call: &Collective<'_>, buffer: &mut [u8]) -> Result<()> {
        if matches!(call.kind(), Kind::AllReduce | Kind::Broadcast | Kind::Reduce) {
            let first = buffer.as_mut_ptr();
            let (places, lengths) = ((first.cast_const(), first), Lengths::Joint(buffer.len()));
            // SAFETY: the slice is borrowed until this returns, and as long as is told.
            if let Some(result) = unsafe { self.shared.repeat(call, places, lengths) } {
                return result;
            }
        }
        let stopwatch = self.shared.stopwatch();
        self.check_joint(call, buffer.len())?;
        self.shared.checked(stopwatch);
        // SAFETY: the slice is borrowed until `run_blocking` returns, by which time nothing is under way.
        unsafe { self.shared.run_blocking(call, Buffers::InPlace(host_mut(buffer))) }
    }
}

impl Shared {
    /// Puts a call that is done at once on the board.
    #[inline]
    fn tell_sequence(&self, sequence: u64, signature: Signature, call: &Collective<'_>) {
        tracing::trace!(target: "ubccl::coll", rank = self.rank, sequence, "{call}");
        self.control.board().called(sequence, signature.0);
        self.control.board().start(sequence, signature.0);
    }

    /// Does a small call that was made before, with nothing checked but what may have changed since, or a message that can
    /// go at once. None if it is to be checked and run like any other.
    ///
    /// # Safety
    /// As `Communicator::run_raw`, but that buffers whose lengths are told need not be long enough.
    #[inline]
    pub(crate) unsafe fn repeat(
        &self,
        call: &Collective<'_>,
        (input, output): (*const u8, *mut u8),
        lengths: Lengths,
    ) -> Option<Result<()>> {
        let mut engine = self.engine.try_lock()?;
        if is_in_program() || self.control.poison().is_set() {
            return None;
        }
        if call.kind() == Kind::SendReceive {
            if !matches!(lengths, Lengths::Vouched)
                || call.to().is_some_and(|to| to >= self.ranks || self.control.left(to).is_some())
            {
                return None;
            }
            let places = Places::at(input, output);
            // SAFETY: the caller vouches.
            return match unsafe { engine.express_message(call, places, self.looks()) } {
                Ok(is_done) => is_done.then_some(Ok(())),
                Err(fault) => Some(Err(self.fail(&mut engine, fault))),
            };
        }
        let eligible = engine.repeats(call, (input, output), lengths)?;
        let is_fine = self.control.check_left(engine.sequence() + 1).is_none();
        // SAFETY: the caller vouches.
        is_fine.then(|| unsafe { self.run_express(engine, call, eligible) })
    }

    /// Does a call at once, or begins it and waits.
    ///
    /// # Safety
    /// As for `Engine::express`, until this returns.
    #[inline]
    unsafe fn run_express(
        &self,
        mut engine: MutexGuard<'_, Engine>,
        call: &Collective<'_>,
        eligible: Eligible,
    ) -> Result<()> {
        let tell = |sequence, signature| self.tell_sequence(sequence, signature, call);
        // SAFETY: the caller vouches; what is left is waited for, and `Unwind` cancels it if a panic comes.
        match unsafe { engine.express(call, eligible, self.looks(), tell) } {
            Ok(Express::Done) => {
                self.control.board().finish(engine.sequence());
                Ok(())
            }
            Ok(Express::Pending(op)) => {
                self.show(&mut engine);
                self.finish_blocking(engine, op)
            }
            Err(fault) => Err(self.fail(&mut engine, fault)),
        }
    }

    fn looks(&self) -> u32 {
        if self.limits.crowded { LOOKS_IF_CROWDED } else { LOOKS }
    }

    /// Issues and waits.
    ///
    /// # Safety
    /// As for `Engine::issue`, until this returns.
    pub(crate) unsafe fn run_blocking(&self, call: &Collective<'_>, buffers: Buffers) -> Result<()> {
        refuse_blocking(|| {
            let name = call.kind().name();
            (name, format!("{name} of a sim::Communicator, and await it"))
        })?;
        let mut engine = self.lock();
        self.check_present(&mut engine, call)?;
        if call.kind() == Kind::SendReceive {
            if let Some(places) = buffers.places(call, self.rank) {
                // SAFETY: the caller vouches; nothing of it is under way when this returns.
                match unsafe { engine.express_message(call, places, self.looks()) } {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(fault) => return Err(self.fail(&mut engine, fault)),
                }
            }
        } else if let Some(eligible) = engine.eligible(call, &buffers)? {
            // SAFETY: the caller vouches.
            return unsafe { self.run_express(engine, call, eligible) };
        }
        // SAFETY: the caller vouches; `Unwind` cancels if a panic leaves `finish_blocking` early.
        let op = unsafe { engine.issue(call, buffers, None) }?;
        self.tell(&mut engine, call);
        self.finish_blocking(engine, op)
    }
}
