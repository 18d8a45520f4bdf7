//! What every family needs: a lane's share of a range, and the copies of calls that are not in place.

use ubccl_core::Spec;
use ubccl_core::plan::{Buffer, Cut, Index, PlanBuilder, Shape, Slice};

/// Lane `lane`'s share of a range.
pub(crate) fn share(shape: Shape, spec: &Spec, lane: u8) -> Shape {
    match spec.choice.lanes {
        0 | 1 => shape,
        lanes => shape.even(u32::from(lanes), Index::fixed(i32::from(lane))),
    }
}

/// The cuts that [`share`] makes, for a range inside scratch.
pub(crate) fn share_cuts(spec: &Spec, lane: u8) -> Vec<Cut> {
    share(Shape::whole(Buffer::Input), spec, lane).cuts
}

/// Begins each lane in turn and fills it.
pub(crate) fn each_lane(plan: &mut PlanBuilder, window: u32, mut fill: impl FnMut(&mut PlanBuilder, u8)) {
    for lane in 0..plan.spec().choice.lanes.max(1) {
        plan.lane(window);
        fill(plan, lane);
    }
}

/// A rank as the base of an [`Index`].
pub(crate) fn signed(rank: u32) -> i32 {
    i32::try_from(rank).expect("a communicator has fewer than 2^20 ranks")
}

/// Brings the input to its place in the output, unless the call is in place.
pub(crate) fn keep_own(plan: &mut PlanBuilder, lane: u8, into: Shape) {
    let spec = *plan.spec();
    if !spec.in_place {
        plan.straight();
        plan.copy(share(Shape::whole(Buffer::Input), &spec, lane), share(into, &spec, lane));
    }
}

/// The input in a form that may be sent while the output is written: itself, or in place a copy in scratch slot
/// `lane`. Answers the slice and the step that made it.
///
/// The copy is there because a send need not complete before its receivers have posted: if every rank's receive
/// waited for its own send, nobody would ever receive.
pub(crate) fn stable_input(plan: &mut PlanBuilder, lane: u8) -> (Slice, Option<ubccl_core::plan::StepId>) {
    let spec = *plan.spec();
    let input = share(Shape::whole(Buffer::Input), &spec, lane);
    if !spec.in_place {
        return (input.into(), None);
    }
    let slot = Index::fixed(i32::from(lane));
    let copy = Slice::Scratch { slot, shape: input.clone(), part: Vec::new() };
    let step = plan.copy(input, copy.clone());
    (copy, Some(step))
}

/// The scratch that [`stable_input`] needs.
pub(crate) fn stable_input_scratch(plan: &mut PlanBuilder) {
    let spec = *plan.spec();
    if spec.in_place {
        plan.scratch(u32::from(spec.choice.lanes.max(1)), share(Shape::whole(Buffer::Input), &spec, 0));
    }
}
