//! Calls that block: at once if they are small, else issued and waited for.
#![allow(unsafe_code)] // hands callers' buffers to the engine

use crate::communicator::Shared;
use crate::engine::{Buffers, Eligible, Engine, Express};
use crate::round::Places;
use crate::sim::{is_in_program, refuse_blocking};
use parking_lot::MutexGuard;
use ubccl_core::{Collective, Kind, Result, Signature};

/// Looks at a small call before it is waited for like any other: some microseconds.
const LOOKS: u32 = 256;
/// The same with more ranks than cores, where looking keeps the others from coming.
const LOOKS_IF_CROWDED: u32 = 4;

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
    /// As `Communicator::run_raw`.
    #[inline]
    pub(crate) unsafe fn repeat(
        &self,
        call: &Collective<'_>,
        input: *const u8,
        output: *mut u8,
    ) -> Option<Result<()>> {
        let mut engine = self.engine.try_lock()?;
        if is_in_program() || self.control.poison().is_set() {
            return None;
        }
        if call.kind() == Kind::SendReceive {
            if call.to().is_some_and(|to| to >= self.ranks || self.control.left(to).is_some()) {
                return None;
            }
            let places = Places::at(input, output);
            // SAFETY: the caller vouches.
            return match unsafe { engine.express_message(call, places, self.looks()) } {
                Ok(is_done) => is_done.then_some(Ok(())),
                Err(fault) => Some(Err(self.fail(&mut engine, fault))),
            };
        }
        let eligible = engine.repeats(call, input, output)?;
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
