//! A lane's place in its steps: what it posts next, and which of its steps are under way.

use ubccl_core::Signature;
use ubccl_core::endpoint::Post;
use ubccl_core::plan::{Cursor, MAX_LANES, MAX_WINDOW, Position};
use ubccl_core::prefetch::prefetch_at;

/// Steps are made ready at most so many at a time: the plan is then read once for all of them.
pub(super) const AHEAD: usize = 16;

/// What there is room for at first, so that a place that any operation was in suits nearly every other: a window, and
/// edges of a step.
const USUAL_WINDOW: usize = 64;
const USUAL_EDGES: usize = 8;

/// Marks a slot that is free; the bits below name the next free one.
const FREE: Position = 1 << 63;
/// No slot.
const NO_SLOT: u16 = u16::MAX;
const _: () = assert!(MAX_WINDOW < NO_SLOT as u32, "a slot has a number of its own");

/// A step to wait for: its lane, and its position above that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Edge(u64);

const LANE_BITS: u32 = MAX_LANES.ilog2();
const _: () = assert!(MAX_LANES.is_power_of_two(), "lanes have numbers of so many bits");

impl Edge {
    #[inline]
    pub(super) fn new(lane: usize, position: Position) -> Self {
        debug_assert!(position >> (u64::BITS - LANE_BITS) == 0, "nobody gets to step {position}");
        Edge(position << LANE_BITS | lane as u64)
    }

    #[inline]
    pub(super) fn lane(self) -> usize {
        self.0 as usize % MAX_LANES
    }

    #[inline]
    pub(super) fn position(self) -> Position {
        self.0 >> LANE_BITS
    }
}

/// A step that is ready to be posted once its edges are satisfied.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) post: Post,
    /// Where its edges end in [`Lane::edges`]; they begin where those of the step before it end.
    pub(super) edges_end: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// The number of the next step to post.
    pub(super) position: Position,
    /// How many steps may be under way.
    window: u32,
    /// How many are.
    count: u32,
    /// The slot that was given back last, if it is free.
    free: u16,
    /// How many slots were ever taken: the others are free too.
    used: u16,
    /// Whether the slot of a step under way was ever forgotten in `slot_of`, because the lane ran so far ahead of it.
    has_forgotten: bool,
    /// By slot: the step that has it, or [`FREE`].
    under_way: Vec<Position>,
    /// Where the step at a position went, by the position's last bits.
    slot_of: Vec<u16>,
    /// Steps that are resolved, the edges of all of them that name a step, and how many of both are done with.
    pub(super) ahead: Vec<Resolved>,
    pub(super) edges: Vec<Edge>,
    pub(super) next: u32,
    pub(super) next_edge: u32,
    /// What was called in each of these steps, where that is not the same for all.
    pub(super) signatures: Vec<Signature>,
    /// The first step that is not resolved.
    pub(super) cursor: Cursor,
}

impl Lane {
    /// Begins anew. Allocates only if the window is wider or the steps have more edges than any before.
    pub(super) fn restart(&mut self, cursor: Cursor, window: u32, most_edges: usize) {
        (self.position, self.window, self.count) = (0, window, 0);
        (self.free, self.used, self.has_forgotten) = (NO_SLOT, 0, false);
        let slots = USUAL_WINDOW.max(window as usize);
        if self.under_way.len() < slots {
            self.under_way.resize(slots, FREE);
            self.slot_of.resize((4 * slots).next_power_of_two(), 0);
        }
        self.look_further();
        self.ahead.reserve(AHEAD);
        self.signatures.reserve(AHEAD);
        self.edges.reserve(AHEAD * most_edges.max(USUAL_EDGES));
        self.cursor = cursor;
    }

    /// Has what the completion of the step in a slot and the next post touch fetched.
    #[inline]
    pub(super) fn foresee(&self, slot: usize) {
        prefetch_at(&self.under_way, slot);
        // A step that another waited for and that one itself are posted together.
        prefetch_at(&self.ahead, self.next as usize);
        prefetch_at(&self.ahead, self.next as usize + 1);
        prefetch_at(&self.edges, self.next_edge as usize);
        prefetch_at(&self.slot_of, self.position as usize & self.slot_of.len().wrapping_sub(1));
    }

    /// How many steps are resolved and not posted.
    #[inline]
    pub(super) fn ready(&self) -> usize {
        self.ahead.len() - self.next as usize
    }

    /// Begins to resolve further steps; none is ready.
    pub(super) fn look_further(&mut self) {
        self.ahead.clear();
        self.edges.clear();
        self.signatures.clear();
        (self.next, self.next_edge) = (0, 0);
    }

    /// Whether as many steps are under way as may be.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.count >= self.window
    }

    /// A slot that is not taken; the window is not full.
    #[inline]
    pub(super) fn free_slot(&self) -> usize {
        usize::from(if self.free == NO_SLOT { self.used } else { self.free })
    }

    /// The next step was posted and is under way, in the slot that [`Lane::free_slot`] named.
    #[inline]
    pub(super) fn take(&mut self, slot: usize) {
        match self.free {
            NO_SLOT => self.used += 1,
            _ => self.free = self.under_way[slot] as u16,
        }
        let place = self.position as usize & (self.slot_of.len() - 1);
        let before = usize::from(std::mem::replace(&mut self.slot_of[place], slot as u16));
        self.under_way[slot] = self.position;
        if before < usize::from(self.used) && before != slot {
            let held = self.under_way[before];
            self.has_forgotten |= held & FREE == 0 && held as usize & (self.slot_of.len() - 1) == place;
        }
        self.count += 1;
    }

    /// A step has completed: its position.
    #[inline]
    pub(super) fn give_back(&mut self, slot: usize) -> Position {
        let position = std::mem::replace(&mut self.under_way[slot], FREE | Position::from(self.free));
        debug_assert!(position & FREE == 0, "slot {slot} completed twice");
        self.free = slot as u16;
        self.count -= 1;
        position
    }

    /// The positions under way.
    pub(super) fn positions(&self) -> impl Iterator<Item = Position> + '_ {
        self.under_way[..usize::from(self.used)].iter().copied().filter(|held| held & FREE == 0)
    }

    /// Whether the step at a position was posted and is not under way.
    #[inline]
    pub(super) fn has_completed(&self, position: Position) -> bool {
        position < self.position && self.slot(position).is_none()
    }

    /// The slot of the step at a position, if it is under way.
    #[inline]
    pub(super) fn slot(&self, position: Position) -> Option<usize> {
        let under_way = &self.under_way[..usize::from(self.used)];
        if self.has_forgotten {
            return under_way.iter().position(|&held| held == position);
        }
        let slot = usize::from(self.slot_of[position as usize & (self.slot_of.len() - 1)]);
        (under_way.get(slot) == Some(&position)).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Posts a step that does not complete at once; answers its slot.
    fn post(lane: &mut Lane) -> usize {
        let slot = lane.free_slot();
        lane.take(slot);
        lane.position += 1;
        slot
    }

    #[test]
    fn a_lane_keeps_a_whole_window_of_any_width() {
        let mut lane = Lane::default();
        for window in [1, 63, 64, 65, 100, MAX_WINDOW] {
            lane.restart(Cursor::default(), window, 0);
            let slots: Vec<_> = (0..window).map(|_| post(&mut lane)).collect();
            assert!(lane.is_full());
            let under_way: Vec<_> = lane.positions().collect();
            assert_eq!(under_way, (0..u64::from(window)).collect::<Vec<_>>());
            // The last completes first; its slot is the next one's.
            let last = u64::from(window) - 1;
            assert!(!lane.has_completed(last));
            lane.give_back(slots[window as usize - 1]);
            assert!(lane.has_completed(last) && !lane.has_completed(last + 1) && !lane.is_full());
            assert_eq!(post(&mut lane), slots[window as usize - 1]);
            assert!(lane.is_full() && !lane.has_completed(last + 1));
            assert!(window == 1 || !lane.has_completed(0));
        }
    }

    #[test]
    fn a_step_that_the_lane_ran_far_ahead_of_is_still_under_way() {
        let mut lane = Lane::default();
        lane.restart(Cursor::default(), 4, 0);
        let mut slots: Vec<(u64, usize)> = Vec::new();
        let mut random = 5_u64;
        for position in 0..1000 {
            slots.push((position, post(&mut lane)));
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // The first stays under way for long; of the others any completes.
            while lane.is_full() || slots.len() > 1 && random >> 63 == 1 {
                let which =
                    if position % 300 == 299 { 0 } else { 1 + (random >> 33) as usize % (slots.len() - 1) };
                let (position, slot) = slots.remove(which);
                assert_eq!(lane.give_back(slot), position);
                random = random.rotate_left(1);
            }
            let is_under_way = |position: u64| slots.iter().any(|&(held, _)| held == position);
            assert!(
                (0..=position + 1).all(|at| lane.has_completed(at) == (at <= position && !is_under_way(at)))
            );
        }
        assert!(lane.has_forgotten);
    }
}
