//! Hazards inside one rank: every two accesses to the same memory, one of them a write, must be ordered by edges.
//!
//! A step t comes after a step s only if s is *known* to have completed when t is posted: s is the target of an edge of
//! t, or of a step that the same lane posted before t, or it was known to such a target when that was posted. (In a
//! lane of window 1 the step before is known too.) A wider window orders nothing, nor does posting order. An
//! elementwise edge orders just the two steps, and only where they touch the same range; once the later one has
//! completed and is as long, so has the earlier one.
//!
//! Each lane keeps a log of what it came to know. Knowledge only grows along a lane, so taking over what another step
//! knew is taking over that lane's log up to where it stood when the step was posted: each entry moves once per pair
//! of lanes. Steps are taken in an order in which they could run, so "known at t" is "in the log when t is taken".

use super::access::Accesses;
use super::flat::Flat;
use super::part::Followed;
use super::violation::{Mode, Violation, Waits};
use crate::collective::Rank;
use crate::symbolic::SymbolicMemory;

/// Checks one rank after the other; kept, so that its buffers are made once.
#[derive(Default)]
pub(super) struct Local {
    knowledge: Knowledge,
    accesses: Accesses,
    /// Per lane: the next step.
    next: Vec<u32>,
}

impl Local {
    /// Checks the steps of `rank`; answers its memory as it is before the first step, cut where the plan cuts it.
    pub(super) fn check(
        &mut self,
        flat: &Flat,
        followed: &Followed,
        rank: Rank,
    ) -> Result<SymbolicMemory, Violation> {
        let lanes = &flat.lanes[flat.lanes_of(rank)];
        self.knowledge.reset(flat, rank);
        self.accesses.reset(flat, rank);
        self.next.clear();
        self.next.extend(lanes.iter().map(|lane| lane.steps.start));
        let mut moved = true;
        while moved {
            moved = false;
            for (index, lane) in lanes.iter().enumerate() {
                while self.next[index] < lane.steps.end && self.blocker(flat, self.next[index]).is_none() {
                    self.take(flat, index, self.next[index])?;
                    self.next[index] += 1;
                    moved = true;
                }
            }
        }
        let mut stuck = lanes.iter().zip(&self.next).filter(|(lane, next)| **next < lane.steps.end);
        if let Some((_, &step)) = stuck.next() {
            let target = self.blocker(flat, step).expect("a lane stops at a step that is held back");
            let waits = Waits::ForEdge(flat.describe(target));
            return Err(Violation::Deadlock { mode: Mode::Buffered, step: flat.describe(step), waits });
        }
        Ok(self.accesses.initial_memory(flat, followed))
    }

    /// An edge's target that was not taken yet.
    fn blocker(&self, flat: &Flat, step: u32) -> Option<u32> {
        let waits = |target: &u32| *target >= self.next[self.knowledge.lane_of(*target)];
        flat.arrows[flat.arrows_of(step)].iter().map(|arrow| arrow.target).find(waits)
    }

    fn take(&mut self, flat: &Flat, lane: usize, step: u32) -> Result<(), Violation> {
        self.knowledge.take(flat, lane, step);
        let Some(conflict) = self.accesses.take(flat, &self.knowledge.known[lane], step) else {
            return Ok(());
        };
        Err(conflict.into_violation(flat, step))
    }
}

/// What each lane knows to have completed.
#[derive(Default)]
struct Knowledge {
    /// First step of the rank.
    base: u32,
    /// Per lane: where its steps end.
    ends: Vec<u32>,
    /// Per lane: whether its window is 1.
    strict: Vec<bool>,
    /// Per lane, per step of the rank: whether it is known.
    known: Vec<Vec<bool>>,
    /// Per lane: the known steps in the order in which they became known.
    logs: Vec<Vec<u32>>,
    /// Per step: how long its lane's log was when it was posted.
    snapshots: Vec<u32>,
    /// Per pair of lanes: how much of the second's log the first has taken over.
    merged: Vec<u32>,
    stack: Vec<u32>,
}

impl Knowledge {
    fn reset(&mut self, flat: &Flat, rank: Rank) {
        let lanes = &flat.lanes[flat.lanes_of(rank)];
        let steps = flat.steps_of(rank);
        self.base = steps.start as u32;
        self.ends.clear();
        self.ends.extend(lanes.iter().map(|lane| lane.steps.end));
        self.strict.clear();
        self.strict.extend(lanes.iter().map(|lane| lane.window == 1));
        self.known.resize_with(lanes.len(), Vec::new);
        self.logs.resize_with(lanes.len(), Vec::new);
        for (known, log) in self.known.iter_mut().zip(&mut self.logs) {
            known.clear();
            known.resize(steps.len(), false);
            log.clear();
        }
        self.snapshots.clear();
        self.snapshots.resize(steps.len(), 0);
        self.merged.clear();
        self.merged.resize(lanes.len() * lanes.len(), 0);
    }

    #[inline]
    fn lane_of(&self, step: u32) -> usize {
        self.ends.iter().take_while(|&&end| end <= step).count()
    }

    fn take(&mut self, flat: &Flat, lane: usize, step: u32) {
        let first = if lane == 0 { self.base } else { self.ends[lane - 1] };
        if self.strict[lane] && step > first {
            self.learn(flat, lane, step - 1);
        }
        for arrow in &flat.arrows[flat.arrows_of(step)] {
            if arrow.whole {
                self.learn(flat, lane, arrow.target);
            }
            self.merge(lane, arrow.target);
        }
        self.snapshots[(step - self.base) as usize] = self.logs[lane].len() as u32;
    }

    /// `step` has completed, and with it those of equal length that it follows element by element.
    fn learn(&mut self, flat: &Flat, lane: usize, step: u32) {
        self.stack.push(step);
        while let Some(step) = self.stack.pop() {
            if std::mem::replace(&mut self.known[lane][(step - self.base) as usize], true) {
                continue;
            }
            self.logs[lane].push(step);
            let len = flat.steps[step as usize].len;
            let follows = flat.arrows[flat.arrows_of(step)].iter().filter(|arrow| !arrow.whole);
            let equal = follows.filter(|arrow| flat.steps[arrow.target as usize].len == len);
            self.stack.extend(equal.map(|arrow| arrow.target));
        }
    }

    /// Takes over what `step` knew when it was posted.
    fn merge(&mut self, lane: usize, step: u32) {
        let other = self.lane_of(step);
        if other == lane {
            return;
        }
        let end = self.snapshots[(step - self.base) as usize] as usize;
        let lanes = self.ends.len();
        let merged = &mut self.merged[lane * lanes + other];
        let start = (*merged as usize).min(end);
        *merged = (*merged).max(end as u32);
        for at in start..end {
            let step = self.logs[other][at];
            if !std::mem::replace(&mut self.known[lane][(step - self.base) as usize], true) {
                self.logs[lane].push(step);
            }
        }
    }
}
