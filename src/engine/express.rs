//! Small blocking calls, done at once: past queue and slots, with nothing allocated, counted or locked, if the call is one
//! round of publications and nothing else is under way. What does not end in a few looks goes on as an operation like any.
#![allow(unsafe_code)] // hands the caller's memory to the endpoint

use super::recent::{Known, Lengths};
use super::slots::{Buffers, OpId, Role};
use super::{CALLS_KEPT, Engine, EngineOptions};
use crate::round::{Places, Round};
use ubccl_core::endpoint::{Fault, HostPointer, Key, MessageNow, Now, POINT_TO_POINT_LANE, Stream};
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
    round: usize,
    places: Places,
}

impl Engine {
    /// Whether a call can be done at once now; looks its plan up.
    #[inline]
    pub(crate) fn eligible(&mut self, call: &Collective<'_>, buffers: &Buffers) -> Result<Option<Eligible>> {
        if !self.is_idle() || self.breakdown.is_some() {
            return Ok(None);
        }
        let Some(places) = buffers.places(call, self.options.rank) else { return Ok(None) };
        let round = match self.recent.find_round(call) {
            None => self.new_round(call, matches!(buffers, Buffers::InPlace(_)))?,
            found => found,
        };
        Ok(round.map(|round| Eligible { round, places }))
    }

    /// The same of a call that may not have been checked: if it was done at once before, with buffers that it may have.
    #[inline]
    pub(crate) fn repeats(
        &mut self,
        call: &Collective<'_>,
        (input, output): (*const u8, *mut u8),
        lengths: Lengths,
    ) -> Option<Eligible> {
        if !self.is_idle() || self.breakdown.is_some() {
            return None;
        }
        let round = self.recent.find_round(call)?;
        let known = self.recent.round(round);
        let places = known.places(input, output).filter(|_| known.fits(lengths))?;
        Some(Eligible { round, places })
    }

    #[cold]
    fn new_round(&mut self, call: &Collective<'_>, in_place: bool) -> Result<Option<usize>> {
        let recent = self.look_up(call, in_place)?;
        let plan = &self.recent[recent].plan;
        let Some(block_bytes) = plan.direct_block(call.count()) else {
            return Ok(None);
        };
        let known = Known::new(call, plan, block_bytes);
        Ok(Some(self.recent.keep_round(known)))
    }

    /// Issues it and looks up to `looks` times whether it is done. `tell` is told its sequence number, while others are
    /// waited for: they need not wait for that.
    ///
    /// # Safety
    /// As for [`Engine::issue`], of the buffers that the call was found to be eligible with.
    #[inline]
    pub(crate) unsafe fn express(
        &mut self,
        call: &Collective<'_>,
        Eligible { round, places }: Eligible,
        looks: u32,
        tell: impl FnOnce(u64, Signature),
    ) -> Result<Express, Fault> {
        let known = self.recent.round(round);
        // SAFETY: the caller vouches.
        let mut round = unsafe { Round::new(known.block_bytes, places) };
        self.sequence += 1;
        known.message.stream = Stream::Collective(self.sequence);
        let Key { stream, signature, .. } = known.message;
        let (sequence, calls, mut untold) = (self.sequence, &mut self.calls, Some(tell));
        let mut tell = || {
            if let Some(tell) = untold.take() {
                calls[(sequence % CALLS_KEPT) as usize] = signature;
                tell(sequence, signature);
            }
        };
        let went_on = round.go_on(&known.plan, &mut *self.endpoint, &known.message, looks, &mut tell);
        tell(); // it may have had to wait before it could publish
        if went_on? {
            self.last_signature = signature;
            self.shown = (self.sequence, None);
            return Ok(Express::Done);
        }
        let plan = known.plan.clone();
        let index = self.slots.take(call, None, Role::Collective, None);
        self.queue.push_back(index);
        self.slots[index].execution.start_direct(plan, (stream, signature), round);
        Ok(Express::Pending(self.slots.id(index)))
    }

    /// Does a send or a receive if it can be done at once, looking up to `looks` times for each next piece; `false` if it is
    /// to be issued. It need not have been checked.
    ///
    /// # Safety
    /// The memory is valid for the message, and touched by nobody else if it is received.
    #[inline]
    pub(crate) unsafe fn express_message(
        &mut self,
        call: &Collective<'_>,
        Places { input, output }: Places,
        looks: u32,
    ) -> Result<bool, Fault> {
        let (peer, memory, is_send) = match (call.to(), call.from()) {
            (Some(to), None) => (to, input, true),
            (None, Some(from)) => (from, output, false),
            _ => return Ok(false),
        };
        let EngineOptions { rank, ranks, .. } = self.options;
        let is_fine = peer < ranks && peer != rank && call.count() <= Collective::MAX_COUNT;
        if !is_fine || !self.is_idle() || self.breakdown.is_some() {
            return Ok(false);
        }
        let len = call.count() * call.dtype().size() as u64;
        if memory == HostPointer(0) && len > 0 {
            return Ok(false);
        }
        let (stream, lane) = (Stream::Direct, POINT_TO_POINT_LANE);
        let key = Key { stream, lane, signature: call.signature(0), engine: None };
        let message = MessageNow { peer, is_send, memory, len, looks };
        // SAFETY: the caller vouches.
        Ok(unsafe { self.endpoint.message_now(&key, &message) }? == Now::Done)
    }
}
