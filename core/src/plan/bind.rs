//! A plan with a call: positions, turns and resolved steps, without allocation once warm.

use super::{Action, After, At, Place, Plan, Sizes, Slice};
use crate::collective::Collective;
use crate::plan::MAX_LANES;
use crate::prefetch::{prefetch, prefetch_at};

/// The number of a step instance in its lane, counted from 0 in posting order.
pub type Position = u64;

/// The layout of a plan for one call. Kept and bound again: binding allocates only when a plan is larger than any
/// bound before.
#[derive(Clone, Debug, Default)]
pub struct Binding {
    sizes: Sizes,
    loops: Vec<BoundLoop>,
    first_loop: [usize; MAX_LANES],
    totals: [Position; MAX_LANES],
    scratch_slot: u64,
}

#[derive(Clone, Copy, Debug)]
struct BoundLoop {
    first: Position,
    outer: u64,
    inner: u64,
    body: u64,
}

impl BoundLoop {
    fn steps(&self) -> u64 {
        self.outer.saturating_mul(self.inner).saturating_mul(self.body)
    }
}

/// Where a lane stands: the next step to post.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Its number in the lane.
    pub position: Position,
    turn: usize,
    at: At,
    body: usize,
}

/// One step at one turn.
#[derive(Clone, Copy, Debug)]
pub struct Instance<'a> {
    /// What it does; expressions are to be read at `at`.
    pub action: &'a Action,
    /// What must have completed.
    pub after: &'a [After],
    /// The loop indices.
    pub at: At,
}

/// A resolved range of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Of the input.
    Input(u64, u64),
    /// Of the output.
    Output(u64, u64),
    /// Of the scratch.
    Scratch(u64, u64),
}

impl Binding {
    /// Lays out `plan` for `call`, which is one of its spec.
    pub fn bind(&mut self, plan: &Plan, call: &Collective<'_>) {
        self.sizes.set(call, plan.spec().ranks, plan.spec().rank);
        self.loops.clear();
        self.scratch_slot = plan.scratch().map_or(0, |scratch| scratch.shape.longest(&self.sizes));
        for (index, lane) in plan.lanes().iter().enumerate() {
            self.first_loop[index] = self.loops.len();
            let mut first = 0;
            for turn in &lane.loops {
                let (outer, inner) = (turn.outer.count(&self.sizes), turn.inner.count(&self.sizes));
                let body = turn.steps.len() as u64;
                let bound = BoundLoop { first, outer, inner, body };
                self.loops.push(bound);
                first = bound.steps().saturating_add(first);
            }
            self.totals[index] = first;
        }
    }

    /// How many step instances a lane has.
    #[inline]
    pub fn total(&self, lane: usize) -> Position {
        self.totals[lane]
    }

    /// The sizes of the call.
    #[inline]
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// Scratch that the plan needs for the call, in bytes.
    pub fn scratch_bytes(&self, plan: &Plan) -> u64 {
        let slots = plan.scratch().map_or(0, |scratch| u64::from(scratch.slots));
        slots * self.scratch_slot * plan.spec().dtype.size() as u64
    }

    /// A cursor at the beginning of a lane.
    pub fn start(&self, plan: &Plan, lane: usize) -> Cursor {
        let mut cursor = Cursor::default();
        self.skip_empty(plan, lane, &mut cursor);
        cursor
    }

    /// The step under the cursor, or `None` at the lane's end.
    #[inline]
    pub fn current<'a>(&self, plan: &'a Plan, lane: usize, cursor: &Cursor) -> Option<Instance<'a>> {
        if cursor.position >= self.totals[lane] {
            return None;
        }
        let step = &plan.lanes[lane].loops[cursor.turn].steps[cursor.body];
        Some(Instance { action: &step.action, after: &step.after, at: cursor.at })
    }

    /// The step at a position of a lane, or `None` beyond the lane's end.
    pub fn instance<'a>(&self, plan: &'a Plan, lane: usize, position: Position) -> Option<Instance<'a>> {
        if position >= self.totals[lane] {
            return None;
        }
        let loops = &self.loops[self.first_loop[lane]..][..plan.lanes[lane].loops.len()];
        let holds = |turn: &BoundLoop| position - turn.first < turn.steps();
        let index = loops.iter().rposition(|turn| turn.first <= position && holds(turn))?;
        let turn = &loops[index];
        let (number, body) = ((position - turn.first) / turn.body, (position - turn.first) % turn.body);
        let at = At { outer: number / turn.inner, inner: number % turn.inner };
        let step = &plan.lanes[lane].loops[index].steps[body as usize];
        Some(Instance { action: &step.action, after: &step.after, at })
    }

    /// Has what the steps from the cursor on are read from fetched, look by look from 0 to 4, each a while after the one
    /// before.
    pub fn foresee(&self, plan: &Plan, lane: usize, cursor: &Cursor, look: usize) {
        let turn = || plan.lanes.get(lane).and_then(|lane| lane.loops.get(cursor.turn));
        let steps = || turn().into_iter().flat_map(|turn| &turn.steps);
        match look {
            0 => prefetch(plan),
            1 => {
                prefetch_at(&plan.lanes, lane);
                prefetch_at(&self.loops, self.first_loop[lane] + cursor.turn);
            }
            2 => turn().into_iter().for_each(prefetch),
            3 => steps().for_each(prefetch),
            _ => steps().for_each(|step| prefetch(&step.after[..])),
        }
    }

    /// Moves to the next step.
    #[inline]
    pub fn advance(&self, plan: &Plan, lane: usize, cursor: &mut Cursor) {
        let turn = &self.loops[self.first_loop[lane] + cursor.turn];
        cursor.position += 1;
        cursor.body += 1;
        if (cursor.body as u64) < turn.body {
            return;
        }
        cursor.body = 0;
        cursor.at.inner += 1;
        if cursor.at.inner < turn.inner {
            return;
        }
        cursor.at.inner = 0;
        cursor.at.outer += 1;
        if cursor.at.outer < turn.outer {
            return;
        }
        cursor.at = At::default();
        cursor.turn += 1;
        self.skip_empty(plan, lane, cursor);
    }

    /// Where the step that an edge names stands: its lane and position, or `None` if that turn does not exist.
    #[inline]
    pub fn target(&self, plan: &Plan, after: &After, at: At) -> Option<(usize, Position)> {
        let Place { lane, turn, body } = plan.place(after.step);
        let turn = &self.loops[self.first_loop[usize::from(lane)] + usize::from(turn)];
        let (outer, inner) = (after.outer.at(at), after.inner.at(at));
        // Below zero is beyond every trip count, read without its sign.
        let (outer, inner) = (outer as u64, inner as u64);
        (outer < turn.outer && inner < turn.inner).then(|| {
            let number = outer * turn.inner + inner;
            (usize::from(lane), turn.first + number * turn.body + u64::from(body))
        })
    }

    /// The elements that a slice names at one turn.
    #[inline]
    pub fn extent(&self, slice: &Slice, at: At) -> Extent {
        match slice {
            Slice::Empty => Extent::Output(0, 0),
            Slice::Of(shape) => {
                let (start, len) = shape.range(&self.sizes, at);
                match shape.buffer {
                    super::Buffer::Input => Extent::Input(start, len),
                    super::Buffer::Output => Extent::Output(start, len),
                }
            }
            Slice::Scratch { slot, shape, part } => {
                let (_, held) = shape.range(&self.sizes, at);
                debug_assert!(
                    held <= self.scratch_slot,
                    "{held} elements in a slot of {}",
                    self.scratch_slot
                );
                let (start, len) =
                    part.iter().fold((0, held), |range, cut| cut.refine(&self.sizes, range, at));
                Extent::Scratch(slot.at(at) as u64 * self.scratch_slot + start, len)
            }
        }
    }

    fn skip_empty(&self, plan: &Plan, lane: usize, cursor: &mut Cursor) {
        let loops = &self.loops[self.first_loop[lane]..][..plan.lanes[lane].loops.len()];
        while loops.get(cursor.turn).is_some_and(|turn| turn.outer == 0 || turn.inner == 0 || turn.body == 0)
        {
            cursor.turn += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::{Choice, Spec};
    use crate::collective::Collective;
    use crate::plan::{Association, Buffer, Index, PlanBuilder, Shape, Trips};
    use crate::{DataType, Rank};

    /// Two loops of copies with an empty one between, 2 × 3 turns of two steps, then one.
    fn plan() -> Plan {
        let call = Collective::send_receive(6, DataType::U8, Some(0 as Rank), Some(0));
        let spec = Spec::new(&call, 1, 0, false, Choice::default());
        let mut plan = PlanBuilder::new(&spec, "test", Association::None);
        let block = |buffer| Shape::whole(buffer).even(6, Index::INNER);
        plan.lane(4);
        plan.repeat(Trips::Fixed(2), Trips::Fixed(3));
        plan.copy(block(Buffer::Input), block(Buffer::Output));
        plan.copy(block(Buffer::Output), block(Buffer::Output));
        plan.repeat(Trips::Fixed(0), Trips::Fixed(5));
        plan.copy(block(Buffer::Input), block(Buffer::Output));
        plan.straight();
        plan.copy(Shape::whole(Buffer::Input), Shape::whole(Buffer::Output));
        plan.finish()
    }

    #[test]
    fn the_cursor_and_the_position_name_the_same_steps() {
        let plan = plan();
        let mut binding = Binding::default();
        binding.bind(&plan, &plan.spec().collective(6));
        assert_eq!(binding.total(0), 13);
        let mut cursor = binding.start(&plan, 0);
        for position in 0..13 {
            assert_eq!(cursor.position, position);
            let walked = binding.current(&plan, 0, &cursor).unwrap();
            let found = binding.instance(&plan, 0, position).unwrap();
            assert!(std::ptr::eq(walked.action, found.action));
            assert_eq!(walked.at, found.at);
            binding.advance(&plan, 0, &mut cursor);
        }
        assert!(binding.current(&plan, 0, &cursor).is_none());
        assert!(binding.instance(&plan, 0, 13).is_none());
    }

    #[test]
    fn more_than_2_to_the_32_chunks_are_all_counted() {
        let count = (1 << 33) + 5;
        let call = Collective::send_receive(count, DataType::U8, Some(0 as Rank), Some(0));
        let spec = Spec::new(&call, 1, 0, false, Choice::default());
        let mut plan = PlanBuilder::new(&spec, "test", Association::None);
        let input = Shape::whole(Buffer::Input);
        plan.lane(1);
        plan.repeat(Trips::ONCE, Trips::Chunks { shape: input.clone(), elements: 1 });
        plan.copy(input.clone().chunk(1, Index::INNER), Shape::whole(Buffer::Output).chunk(1, Index::INNER));
        let plan = plan.finish();
        let mut binding = Binding::default();
        binding.bind(&plan, &call);
        assert_eq!(binding.total(0), count);
        let last = binding.instance(&plan, 0, count - 1).unwrap();
        assert_eq!(last.at, At { outer: 0, inner: count - 1 });
        let slice = Slice::Of(input.chunk(1, Index::INNER));
        assert_eq!(binding.extent(&slice, last.at), Extent::Input(count - 1, 1));
    }

    #[test]
    fn an_edge_to_a_turn_that_does_not_exist_asks_for_nothing() {
        let plan = plan();
        let mut binding = Binding::default();
        binding.bind(&plan, &plan.spec().collective(6));
        let edge = |outer, inner| After {
            step: crate::plan::StepId(1),
            outer: Index::fixed(outer),
            inner: Index::fixed(inner),
            edge: crate::plan::Edge::Whole,
        };
        let target = |outer, inner| binding.target(&plan, &edge(outer, inner), At::default());
        assert_eq!(target(1, 2), Some((0, 11)));
        assert_eq!((target(-1, 0), target(2, 0), target(0, 3)), (None, None, None));
    }
}
