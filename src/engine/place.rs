//! Where the buffers of a call are known to the endpoint: regions, a few for each slot.
#![allow(unsafe_code)] // registers the caller's buffers

use super::slots::Buffers;
use crate::executor::Base;
use crate::planned::Planned;
use ubccl_core::endpoint::{Endpoint, RegionId};
use ubccl_core::{Collective, Result};

/// Input, output, scratch.
const REGIONS_PER_SLOT: u32 = 3;

/// The first region of a slot.
#[inline]
pub(super) fn region(slot: usize) -> RegionId {
    RegionId(slot as u32 * REGIONS_PER_SLOT)
}

/// Makes a call's buffers known as the two regions from `first` on; answers where input and output begin.
///
/// # Safety
/// Host memory in `buffers` stays valid, and is left alone by everybody else, until what the endpoint is told to do with
/// these regions is done or cancelled.
#[inline]
pub(super) unsafe fn place(
    endpoint: &mut dyn Endpoint,
    first: RegionId,
    call: &Collective<'_>,
    plan: &Planned,
    buffers: Buffers,
) -> Result<(Base, Base)> {
    let second = RegionId(first.0 + 1);
    match buffers {
        Buffers::Apart { input, output } => {
            // SAFETY: the caller vouches.
            unsafe { endpoint.register(first, input) }?;
            // SAFETY: as above.
            unsafe { endpoint.register(second, output) }?;
            Ok((Base { region: first, offset: 0 }, Base { region: second, offset: 0 }))
        }
        Buffers::InPlace(memory) => {
            let size = plan.spec().dtype.size() as u64;
            let (input, output) = call.in_place_offsets(plan.spec().rank);
            // SAFETY: the caller vouches.
            unsafe { endpoint.register(second, memory) }?;
            let joint = |offset: u64| Base { region: second, offset: offset * size };
            Ok((joint(input), joint(output)))
        }
    }
}
