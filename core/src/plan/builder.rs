//! Making plans.

use super::{
    Action, After, Association, Cut, Edge, Index, Lane, Loop, MAX_LANES, MAX_LISTED_PEERS, MAX_WINDOW, Peers,
    Place, Plan, Scratch, Shape, Slice, Step, StepId, Trips,
};
use crate::algorithm::Spec;

/// Writes a plan, lane by lane, loop by loop, step by step.
///
/// ```
/// # use ubccl_core::{algorithm::{Choice, Spec}, collective::Collective, plan::*, DataType};
/// let call = Collective::send_receive(8, DataType::F32, Some(1), None);
/// let spec = Spec::new(&call, 2, 0, false, Choice::default());
/// let mut plan = PlanBuilder::new(&spec, "direct", Association::None);
/// plan.lane(1);
/// plan.straight();
/// plan.send(Shape::whole(Buffer::Input), Peers::one(Index::fixed(1)));
/// assert_eq!(plan.finish().lanes().len(), 1);
/// ```
#[derive(Debug)]
pub struct PlanBuilder {
    plan: Plan,
}

impl PlanBuilder {
    /// An empty plan for `spec`.
    pub fn new(spec: &Spec, algorithm: &'static str, association: Association) -> Self {
        let (lanes, places) = (Vec::new(), Vec::new());
        PlanBuilder { plan: Plan { spec: *spec, algorithm, association, scratch: None, lanes, places } }
    }

    /// Asks for scratch memory: `slots` pieces of the shape's longest length.
    pub fn scratch(&mut self, slots: u32, shape: Shape) {
        check_cuts(&shape.cuts);
        self.plan.scratch = Some(Scratch { slots, shape });
    }

    /// Begins a lane; its window is brought into 1 to [`MAX_WINDOW`].
    pub fn lane(&mut self, window: u32) {
        assert!(self.plan.lanes.len() < MAX_LANES, "a plan has at most {MAX_LANES} lanes");
        self.plan.lanes.push(Lane { window: window.clamp(1, MAX_WINDOW), loops: Vec::new() });
    }

    /// Begins a loop in the last lane.
    pub fn repeat(&mut self, outer: Trips, inner: Trips) {
        for trips in [&outer, &inner] {
            if let Trips::Chunks { shape, elements } = trips {
                check_cuts(&shape.cuts);
                assert!(*elements > 0, "a chunk has elements");
            }
        }
        let lane = self.plan.lanes.last_mut().expect("a lane was begun");
        lane.loops.push(Loop { outer, inner, steps: Vec::new() });
    }

    /// Begins straight steps in the last lane.
    pub fn straight(&mut self) {
        self.repeat(Trips::ONCE, Trips::ONCE);
    }

    /// The spec.
    pub fn spec(&self) -> &Spec {
        &self.plan.spec
    }

    /// Adds a send.
    pub fn send(&mut self, from: impl Into<Slice>, to: Peers) -> StepId {
        check_list(&to);
        self.step(Action::Send { from: from.into(), to })
    }

    /// Adds a receive.
    pub fn receive(&mut self, into: impl Into<Slice>, from: Index) -> StepId {
        self.step(Action::Receive { into: into.into(), from })
    }

    /// Adds a receive-reduce.
    pub fn receive_reduce(
        &mut self,
        sources: Peers,
        own: impl Into<Slice>,
        into: impl Into<Slice>,
    ) -> StepId {
        check_list(&sources);
        self.step(Action::ReceiveReduce { sources, own: own.into(), into: into.into() })
    }

    /// Adds a local copy.
    pub fn copy(&mut self, from: impl Into<Slice>, into: impl Into<Slice>) -> StepId {
        self.step(Action::Copy { from: from.into(), into: into.into() })
    }

    /// "`step` not before `other` of the same turn"; both stand in loops of the same shape.
    pub fn after(&mut self, step: StepId, other: StepId) {
        self.after_turn(step, other, Index::OUTER, Index::INNER);
    }

    /// "`step` not before turn (`outer`, `inner`) of `other`", as expressions of `step`'s indices.
    pub fn after_turn(&mut self, step: StepId, other: StepId, outer: Index, inner: Index) {
        self.edge(step, After { step: other, outer, inner, edge: Edge::Whole });
    }

    /// Adds any edge.
    pub fn edge(&mut self, step: StepId, after: After) {
        let Place { lane, turn, body } = self.plan.places[usize::from(step.0)];
        let turn = &mut self.plan.lanes[usize::from(lane)].loops[usize::from(turn)];
        turn.steps[usize::from(body)].after.push(after);
    }

    /// The plan.
    pub fn finish(self) -> Plan {
        self.plan
    }

    fn step(&mut self, action: Action) -> StepId {
        check_slices(&action);
        let id = StepId(u16::try_from(self.plan.places.len()).expect("a plan has fewer than 65,536 steps"));
        let lane_index = self.plan.lanes.len() - 1;
        let lane = self.plan.lanes.last_mut().expect("a lane was begun");
        let turn_index = lane.loops.len() - 1;
        let turn = lane.loops.last_mut().expect("a loop was begun");
        let place = Place { lane: lane_index as u8, turn: turn_index as u16, body: turn.steps.len() as u16 };
        turn.steps.push(Step { action, after: Vec::new() });
        self.plan.places.push(place);
        id
    }
}

/// A range cut into no blocks, or into chunks of nothing, has no parts: only a bug asks for one.
fn check_cuts(cuts: &[Cut]) {
    assert!(!cuts.iter().any(Cut::is_void), "a range is cut into 0 blocks or chunks of 0 elements: {cuts:?}");
}

/// Nothing is longer than what it is cut from, but what scratch stands in for.
fn check_within(cuts: &[Cut]) {
    assert!(!cuts.iter().any(|cut| matches!(cut, Cut::Times(_))), "only scratch is longer than it: {cuts:?}");
}

fn check_slices(action: &Action) {
    let check = |slice: &Slice| match slice {
        Slice::Empty => (),
        Slice::Of(shape) => {
            check_cuts(&shape.cuts);
            check_within(&shape.cuts);
        }
        Slice::Scratch { shape, part, .. } => {
            [&shape.cuts, part].into_iter().for_each(|cuts| check_cuts(cuts));
            check_within(part);
        }
    };
    match action {
        Action::Send { from: slice, .. } | Action::Receive { into: slice, .. } => check(slice),
        Action::ReceiveReduce { own: from, into, .. } | Action::Copy { from, into } => {
            check(from);
            check(into);
        }
    }
}

fn check_list(peers: &Peers) {
    if let Peers::List(list) = peers {
        assert!(list.len() <= MAX_LISTED_PEERS, "more than {MAX_LISTED_PEERS} peers are a run");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::Choice;
    use crate::collective::Collective;
    use crate::plan::Buffer;

    fn builder() -> PlanBuilder {
        let spec = Spec::new(&Collective::barrier(), 1, 0, false, Choice::default());
        let mut plan = PlanBuilder::new(&spec, "test", Association::None);
        plan.lane(1);
        plan.straight();
        plan
    }

    #[test]
    #[should_panic(expected = "cut into 0 blocks")]
    fn a_slice_of_no_blocks_is_a_bug() {
        builder().copy(Slice::Empty, Shape::whole(Buffer::Input).even(0, Index::fixed(0)));
    }

    #[test]
    #[should_panic(expected = "chunks of 0 elements")]
    fn a_part_of_scratch_in_chunks_of_nothing_is_a_bug() {
        let part = vec![Cut::Chunk { elements: 0, index: Index::INNER }];
        let slice = Slice::Scratch { slot: Index::fixed(0), shape: Shape::whole(Buffer::Input), part };
        builder().send(slice, Peers::one(Index::fixed(0)));
    }

    #[test]
    #[should_panic(expected = "only scratch is longer")]
    fn a_buffer_times_something_is_a_bug() {
        builder().copy(Slice::Empty, Shape::whole(Buffer::Input).times(2));
    }

    #[test]
    #[should_panic(expected = "cut into 0 blocks")]
    fn a_loop_over_no_blocks_is_a_bug() {
        let shape = Shape::whole(Buffer::Input).even(0, Index::fixed(0));
        builder().repeat(Trips::Chunks { shape, elements: 1 }, Trips::ONCE);
    }
}
