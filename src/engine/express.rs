//! Small blocking calls, done at once: past queue and slots, with nothing allocated, counted or locked, if the call is one
//! round of publications and nothing else is under way. What does not end in a few looks goes on as an operation like any.
#![allow(unsafe_code)] // registers the caller's memory with the endpoint

use super::place::{place, region};
use super::slots::{Buffers, OpId, Role};
use super::{CALLS_KEPT, Engine};
use crate::executor::{Bases, direct_call};
use ubccl_core::endpoint::{
    DirectProgress, Fault, Key, Now, POINT_TO_POINT_LANE, Post, RegionId, Span, Stream,
};
use ubccl_core::plan::PeerRun;
use ubccl_core::{Collective, Result, Signature};

/// How a call stands that was done at once.
pub(crate) enum Express {
    /// It is done.
    Done,
    /// It goes on.
    Pending(OpId),
}

/// A call that can be done at once.
#[derive(Clone, Copy)]
pub(crate) struct Eligible {
    recent: usize,
    block_bytes: u64,
}

/// The regions of a call that has no slot.
const NO_SLOT: RegionId = RegionId(0);

impl Engine {
    /// Whether a call can be done at once now; looks its plan up.
    #[inline]
    pub(crate) fn eligible(&mut self, call: &Collective<'_>, buffers: &Buffers) -> Result<Option<Eligible>> {
        if !self.is_idle() || self.breakdown.is_some() {
            return Ok(None);
        }
        let recent = self.look_up(call, matches!(buffers, Buffers::InPlace(_)))?;
        Ok(self.recent[recent].direct_block.map(|block_bytes| Eligible { recent, block_bytes }))
    }

    /// Issues it and looks up to `looks` times whether it is done. `tell` is told its sequence number first.
    ///
    /// # Safety
    /// As for [`Engine::issue`].
    #[inline]
    pub(crate) unsafe fn express(
        &mut self,
        call: &Collective<'_>,
        Eligible { recent, block_bytes }: Eligible,
        buffers: &Buffers,
        looks: u32,
        tell: impl FnOnce(u64, Signature),
    ) -> Result<Express, Fault> {
        let known = &self.recent[recent];
        // SAFETY: the caller vouches.
        let (input, output) =
            unsafe { place(&mut *self.endpoint, NO_SLOT, call, &known.plan, buffers.again()) }?;
        let bases = Bases { input, output, scratch: output };
        self.sequence += 1;
        let (stream, signature) = (Stream::Collective(self.sequence), known.signature);
        self.calls[(self.sequence % CALLS_KEPT) as usize] = signature;
        tell(self.sequence, signature);
        let key = Key { stream, lane: 0, signature };
        let direct = known.plan.direct().expect("a call with blocks of publications has them");
        let round = direct_call(direct, &bases, block_bytes);
        let mut progress = DirectProgress::default();
        for _ in 0..looks {
            if self.endpoint.direct(&key, &round, &mut progress)? {
                self.last_signature = signature;
                self.shown = (self.sequence, None);
                return Ok(Express::Done);
            }
            std::hint::spin_loop();
        }
        // SAFETY: the caller vouches.
        Ok(Express::Pending(unsafe { self.take_over(call, recent, buffers, (block_bytes, progress)) }?))
    }

    /// Does a send or a receive if it can be done at once, looking up to `looks` times for each next piece; `false` if it is
    /// to be issued.
    ///
    /// # Safety
    /// As for [`Engine::issue`].
    #[inline]
    pub(crate) unsafe fn express_message(
        &mut self,
        call: &Collective<'_>,
        buffers: &Buffers,
        looks: u32,
    ) -> Result<bool, Fault> {
        let Buffers::Apart { input, output } = buffers else { return Ok(false) };
        let len = call.count() * call.dtype().size() as u64;
        let whole = Span { region: NO_SLOT, offset: 0, len };
        let (memory, post, looks) = match (call.to(), call.from()) {
            (Some(to), None) if to != self.options.rank => {
                // Room does not come while one looks.
                (input, Post::Send { from: whole, to: PeerRun::one(to) }, 1)
            }
            (None, Some(from)) if from != self.options.rank => {
                (output, Post::Receive { into: whole, from }, looks)
            }
            _ => return Ok(false),
        };
        if !self.is_idle() || self.breakdown.is_some() {
            return Ok(false);
        }
        // SAFETY: the caller vouches.
        unsafe { self.endpoint.register(NO_SLOT, memory.clone()) }?;
        let key = Key { stream: Stream::Direct, lane: POINT_TO_POINT_LANE, signature: call.signature(0) };
        let mut left = looks;
        while left > 0 {
            match self.endpoint.post_now(&key, &post)? {
                Now::Done => return Ok(true),
                Now::NotYet => left -= 1,
                Now::Begun => left = looks,
                Now::Never => return Ok(false),
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }

    /// Makes an operation of a call that has begun.
    ///
    /// # Safety
    /// As for [`Engine::issue`].
    unsafe fn take_over(
        &mut self,
        call: &Collective<'_>,
        recent: usize,
        buffers: &Buffers,
        so_far: (u64, DirectProgress),
    ) -> Result<OpId> {
        let known = &self.recent[recent];
        let (plan, signature, stream) =
            (known.plan.clone(), known.signature, Stream::Collective(self.sequence));
        let index = self.slots.take(call, None, Role::Collective, None);
        self.queue.push_back(index);
        // SAFETY: the caller vouches.
        let (input, output) =
            unsafe { place(&mut *self.endpoint, region(index), call, &plan, buffers.again()) }?;
        let bases = Bases { input, output, scratch: output };
        self.slots[index].execution.start_direct(plan, bases, (stream, signature), so_far);
        Ok(self.slots.id(index))
    }
}
