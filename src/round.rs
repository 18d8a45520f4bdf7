//! A round of publications under way: what an endpoint needs to go on with it.
#![allow(unsafe_code)] // hands callers' memory to the endpoint

use crate::planned::Planned;
use ubccl_core::Rank;
use ubccl_core::direct::Direct;
use ubccl_core::endpoint::{DirectCall, DirectProgress, Endpoint, Fault, HostPointer, Key};

/// Where a round's input and output are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(crate) input: HostPointer,
    pub(crate) output: HostPointer,
}

impl Places {
    /// Where two buffers of a caller are, who vouches for them.
    #[inline]
    pub(crate) fn at(input: *const u8, output: *mut u8) -> Self {
        Places {
            input: HostPointer(input.expose_provenance()),
            output: HostPointer(output.expose_provenance()),
        }
    }
}

/// How far it has come. It ends with an answer of `true` or an error of [`Round::go_on`], or with the endpoint's `cancel`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    block_bytes: u64,
    places: Places,
    progress: DirectProgress,
}

impl Round {
    /// One of blocks of so many bytes.
    ///
    /// # Safety
    /// Until it ends, the input stays valid and unwritten for the blocks that the plan's round publishes, and the output is
    /// writable for those that it makes and touched by nobody else.
    #[inline]
    pub(crate) unsafe fn new(block_bytes: u64, places: Places) -> Self {
        Round { block_bytes, places, progress: DirectProgress::default() }
    }

    /// Publishes, if that is still to be done, looks up to `looks` times for what others publish, and makes the output once
    /// all is there: then answers `true`. `meanwhile` is called before it looks, if it comes to that.
    #[inline]
    pub(crate) fn go_on(
        &mut self,
        plan: &Planned,
        endpoint: &mut dyn Endpoint,
        key: &Key,
        looks: u32,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<bool, Fault> {
        let Round { block_bytes, places: Places { input, output }, progress } = self;
        let call = DirectCall {
            direct: direct(plan),
            block_bytes: *block_bytes,
            input: *input,
            output: *output,
            looks,
        };
        // SAFETY: whoever made the round vouched for its memory until it ends.
        unsafe { endpoint.direct(key, &call, progress, meanwhile) }
    }

    /// The peers that it waits for.
    pub(crate) fn waits_for(&self, plan: &Planned, peer: impl FnMut(Rank)) {
        let (direct, DirectProgress { written, ready }) = (direct(plan), self.progress);
        // Before it may write, it is its readers that it waits for.
        let is_reading = written || direct.reads_first;
        let awaited = if is_reading { &direct.writers[ready as usize..] } else { &direct.readers };
        awaited.iter().copied().for_each(peer);
    }

    pub(crate) fn progress(&self) -> DirectProgress {
        self.progress
    }
}

#[inline]
fn direct(plan: &Planned) -> &Direct {
    plan.direct().expect("a round is begun of a plan that is one")
}
