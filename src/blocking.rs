//! Calls that block: at once if they are small, else issued and waited for.
#![allow(unsafe_code)] // hands callers' buffers to the engine

use crate::communicator::Shared;
use crate::engine::{Buffers, Express};
use crate::sim::refuse_blocking;
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
        let looks = if self.limits.crowded { LOOKS_IF_CROWDED } else { LOOKS };
        if call.kind() == Kind::SendReceive {
            // SAFETY: the caller vouches; nothing of it is under way when this returns.
            match unsafe { engine.express_message(call, &buffers, looks) } {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(fault) => return Err(self.fail(&mut engine, fault)),
            }
        } else if let Some(eligible) = engine.eligible(call, &buffers)? {
            let tell = |sequence, signature| self.tell_sequence(sequence, signature, call);
            // SAFETY: the caller vouches; what is left is waited for, and `Unwind` cancels it if a panic comes.
            return match unsafe { engine.express(call, eligible, &buffers, looks, tell) } {
                Ok(Express::Done) => {
                    self.control.board().finish(engine.sequence());
                    Ok(())
                }
                Ok(Express::Pending(op)) => {
                    self.show(&mut engine);
                    self.finish_blocking(engine, op)
                }
                Err(fault) => Err(self.fail(&mut engine, fault)),
            };
        }
        // SAFETY: the caller vouches; `Unwind` cancels if a panic leaves `finish_blocking` early.
        let op = unsafe { engine.issue(call, buffers, None) }?;
        self.tell(&mut engine, call);
        self.finish_blocking(engine, op)
    }
}
