//! What every family needs: a lane's share of a range, and the copies of calls that are not in place.

use ubccl_core::plan::{
    Buffer, Index, MAX_WINDOW, MAX_WINDOW_PER_PEER, PlanBuilder, Shape, Side, Slice, StepId, Trips,
};
use ubccl_core::{Error, Kind, Result, Spec};

/// The refusal of a kind that an algorithm does not do.
pub(crate) fn refuse(name: &str, kind: Kind, why: &str) -> Result<()> {
    Err(Error::unsupported(format!("{name} does not do {}: {why}", kind.name())))
}

/// The root of a kind that has one.
pub(crate) fn root_of(spec: &Spec) -> u32 {
    spec.root.expect("the kind has a root")
}

/// Block `index` of a buffer that has one for each rank: its table says which, if the kind has tables.
pub(crate) fn block(spec: &Spec, buffer: Buffer, index: Index) -> Shape {
    let whole = Shape::whole(buffer);
    match buffer {
        _ if !spec.kind.row().tabled => whole.even(spec.ranks, index),
        Buffer::Input => whole.block(Side::Send, index),
        Buffer::Output => whole.block(Side::Receive, index),
    }
}

/// Lane `lane`'s share of a range.
pub(crate) fn share(shape: Shape, spec: &Spec, lane: u8) -> Shape {
    match spec.choice.lanes {
        0 | 1 => shape,
        lanes => shape.even(u32::from(lanes), Index::fixed(i32::from(lane))),
    }
}

/// Begins each lane in turn and fills it.
pub(crate) fn each_lane(plan: &mut PlanBuilder, window: u32, mut fill: impl FnMut(&mut PlanBuilder, u8)) {
    for lane in 0..plan.spec().choice.lanes.max(1) {
        plan.lane(window);
        fill(plan, lane);
    }
}

/// The window of a lane that talks to everybody: room for a message to each other rank and a reduction of theirs.
pub(crate) fn mesh_window(spec: &Spec) -> u32 {
    spec.ranks.clamp(MAX_WINDOW_PER_PEER, MAX_WINDOW)
}

/// Refuses rank counts for which [`mesh_window`] has no room, for calls that stop without it.
pub(crate) fn check_window(name: &str, ranks: u32) -> Result<()> {
    if ranks <= MAX_WINDOW {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "{name} reduces over at most {MAX_WINDOW} ranks, not {ranks}: every rank talks to all others at once; use ring"
    )))
}

/// A rank as the base of an [`Index`].
pub(crate) fn signed(rank: u32) -> i32 {
    i32::try_from(rank).expect("a communicator has fewer than 2^20 ranks")
}

/// Brings the input to its place in the output, unless the call is in place.
pub(crate) fn keep_own(plan: &mut PlanBuilder, lane: u8, into: Shape) {
    keep_block(plan, lane, Shape::whole(Buffer::Input), into);
}

/// Brings a part of the input to its place in the output, unless the call is in place.
pub(crate) fn keep_block(plan: &mut PlanBuilder, lane: u8, from: Shape, into: Shape) {
    let spec = *plan.spec();
    if !spec.in_place {
        plan.straight();
        plan.copy(share(from, &spec, lane), share(into, &spec, lane));
    }
}

/// Has whatever follows in the lane wait for all turns of `steps`, which stand in a loop of `outer` by `inner`: a lane
/// posts in order, so each turn of an empty copy that waits for one of theirs holds back the rest. Answers the empty copy.
pub(crate) fn fence(plan: &mut PlanBuilder, steps: &[StepId], outer: Trips, inner: Trips) -> StepId {
    plan.repeat(outer, inner);
    let nothing = plan.copy(Slice::Empty, Slice::Empty);
    steps.iter().for_each(|&step| plan.after(nothing, step));
    nothing
}

/// The input in a form that may be sent while the output is written: itself, or in place a copy in scratch slot
/// `lane`. Answers the slice and the step that made it.
///
/// The copy is there because a send need not complete before its receivers have taken all of it: if every rank's receive
/// waited for its own send, nobody would ever receive.
pub(crate) fn stable_input(plan: &mut PlanBuilder, lane: u8) -> (Slice, Option<StepId>) {
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
