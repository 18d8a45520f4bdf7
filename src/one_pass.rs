//! An all-reduce over registered memory under way: what an endpoint needs to go on with it.
#![allow(unsafe_code)] // hands callers' memory to the endpoint

use crate::planned::Planned;
use crate::round::Places;
use ubccl_core::Rank;
use ubccl_core::endpoint::{Endpoint, Fault, Key, OnePass, OnePassCall, OnePassProgress};

/// How far it has come. It ends with an answer of [`Pass::go_on`] that is not pending, or with the endpoint's `cancel`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    call: OnePassCall,
    progress: OnePassProgress,
}

impl Pass {
    /// One of `count` elements, of a plan that may be done so.
    ///
    /// # Safety
    /// Until it ends, the input stays valid and unwritten, and the output is writable and touched by nobody else.
    pub(crate) unsafe fn new(plan: &Planned, count: u64, Places { input, output }: Places) -> Self {
        let spec = plan.spec();
        let op = spec.op.expect("all-reduces have an operation");
        let call = OnePassCall { dtype: spec.dtype, op, count, input, output };
        Pass { call, progress: OnePassProgress::default() }
    }

    /// Goes on as far as it can at once.
    pub(crate) fn go_on(&mut self, endpoint: &mut dyn Endpoint, key: &Key) -> Result<OnePass, Fault> {
        // SAFETY: whoever made it vouched for its memory until it ends.
        unsafe { endpoint.one_pass(key, &self.call, &mut self.progress) }
    }

    /// The peers that it waits for.
    pub(crate) fn waits_for(&self, plan: &Planned, peer: impl FnMut(Rank)) {
        let rank = plan.spec().rank;
        let others = (0..plan.spec().ranks).filter(move |&other| other != rank);
        let OnePassProgress { asked, agreed, ended, .. } = self.progress;
        match agreed {
            // Those whose answers have come are the first of the others.
            false => others.skip(asked.ready as usize).for_each(peer),
            true => others.skip_while(|&other| other < ended).for_each(peer),
        }
    }

    pub(crate) fn progress(&self) -> OnePassProgress {
        self.progress
    }
}
