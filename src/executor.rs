//! Runs one plan over an endpoint. It does not know whether time is real, and never looks into a buffer.
//!
//! The hot path of every operation is [`Execution::advance`] → [`Execution::post_next`] → `Endpoint::post`.

use crate::planned::Planned;
use crate::round::Round;
use std::sync::Arc;
use ubccl_core::endpoint::{
    Endpoint, Fault, Key, POINT_TO_POINT_LANE, Post, Posted, RegionId, Span, Stream, TAGGED_LANE, Token,
};
use ubccl_core::plan::{
    Action, Binding, Cursor, Cut, Extent, Index, Instance, MAX_LANES, Plan, Position, Side, Slice,
};
use ubccl_core::{Collective, Kind, Rank, Signature};

/// Slots of a word of [`LaneState::busy`].
const WORD: usize = u64::BITS as usize;

/// Where a buffer of the plan lies: a region and the byte in it at which the buffer begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base {
    pub(crate) region: RegionId,
    pub(crate) offset: u64,
}

/// The three buffers of an execution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bases {
    pub(crate) input: Base,
    pub(crate) output: Base,
    pub(crate) scratch: Base,
}

/// One operation under way on one rank. Kept and used again, so that a warm one allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Execution {
    binding: Binding,
    lanes: [LaneState; MAX_LANES],
    /// Lanes that something has happened to since they could not post: bit by bit. The others still cannot.
    ready: Lanes,
    running: Option<Running>,
}

/// A set of lanes, bit by bit.
type Lanes = u8;
const _: () = assert!(MAX_LANES <= Lanes::BITS as usize, "a set has a bit for every lane");

#[derive(Debug)]
struct Running {
    plan: Arc<Planned>,
    stream: Stream,
    signature: Signature,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// Step by step, with these buffers.
    Steps(Bases),
    /// In one round of publications.
    Direct { round: Round, is_done: bool },
}

/// A lane's place in its steps, and which of its steps are under way.
#[derive(Debug, Default)]
struct LaneState {
    cursor: Cursor,
    /// How many steps may be under way.
    window: u32,
    /// How many are.
    count: u32,
    /// Bit k of all words: `under_way[k]` is a step that was posted and has not completed. One word for most lanes.
    busy: Vec<u64>,
    under_way: Vec<Position>,
    /// Where the step at a position went, by the position's last bits; and whether one under way was ever forgotten
    /// there, because a lane ran so far ahead of it.
    slot_of: Vec<u16>,
    has_forgotten: bool,
    /// How many edges of the next step are known to be satisfied, and which step, of which lane, the one after these waits
    /// for, if that was looked at.
    satisfied: usize,
    awaited: Option<(usize, Position)>,
}

impl LaneState {
    /// Begins anew. Allocates only if the window is wider than any before.
    fn restart(&mut self, cursor: Cursor, window: u32) {
        let words = (window as usize).div_ceil(WORD);
        (self.cursor, self.window, self.count) = (cursor, window, 0);
        self.busy.clear();
        self.busy.resize(words, 0);
        if self.under_way.len() < words * WORD {
            self.under_way.resize(words * WORD, 0);
            self.slot_of.resize((4 * words * WORD).next_power_of_two(), 0);
        }
        self.has_forgotten = false;
        (self.satisfied, self.awaited) = (0, None);
    }

    /// Which slot a step was given, if it was the last one with these bits.
    #[inline]
    fn last_slot(&self, position: Position) -> usize {
        usize::from(self.slot_of[position as usize & (self.slot_of.len() - 1)])
    }

    #[inline]
    fn is_busy(&self, slot: usize) -> bool {
        self.busy.get(slot / WORD).is_some_and(|word| word >> (slot % WORD) & 1 == 1)
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.count >= self.window
    }

    /// A slot that is not taken; the window is not full.
    #[inline]
    fn free_slot(&self) -> usize {
        let word = self.busy.iter().position(|&word| word != u64::MAX);
        let word = word.expect("a lane has as many slots as its window, and the window is not full");
        word * WORD + self.busy[word].trailing_ones() as usize
    }

    #[inline]
    fn take(&mut self, slot: usize) {
        let position = self.cursor.position;
        let before = self.last_slot(position);
        let is_other =
            |held: Position| held != position && (held ^ position) as usize & (self.slot_of.len() - 1) == 0;
        self.has_forgotten |= before != slot && self.is_busy(before) && is_other(self.under_way[before]);
        let place = position as usize & (self.slot_of.len() - 1);
        self.slot_of[place] = slot as u16;
        self.under_way[slot] = position;
        self.busy[slot / WORD] |= 1 << (slot % WORD);
        self.count += 1;
    }

    /// A step has completed: its position.
    #[inline]
    fn give_back(&mut self, slot: usize) -> Position {
        let (word, bit) = (&mut self.busy[slot / WORD], 1 << (slot % WORD));
        debug_assert!(*word & bit != 0, "slot {slot} completed twice");
        *word &= !bit;
        self.count -= 1;
        self.under_way[slot]
    }

    /// The positions under way.
    fn positions(&self) -> impl Iterator<Item = Position> + '_ {
        let is_busy = |slot: &usize| self.busy[slot / WORD] >> (slot % WORD) & 1 == 1;
        (0..self.busy.len() * WORD).filter(is_busy).map(|slot| self.under_way[slot])
    }

    #[inline]
    fn has_completed(&self, position: Position) -> bool {
        if position >= self.cursor.position {
            return false;
        }
        if !self.has_forgotten {
            let slot = self.last_slot(position);
            return !(self.is_busy(slot) && self.under_way[slot] == position);
        }
        for (under_way, &word) in self.under_way.chunks_exact(WORD).zip(&self.busy) {
            let mut rest = word;
            while rest != 0 {
                if under_way[rest.trailing_zeros() as usize] == position {
                    return false;
                }
                rest &= rest - 1;
            }
        }
        true
    }
}

impl Execution {
    /// Lays out `plan` for `call`; answers the bytes of scratch that it needs.
    pub(crate) fn bind(&mut self, plan: &Plan, call: &Collective<'_>) -> u64 {
        self.binding.bind(plan, call);
        self.binding.scratch_bytes(plan)
    }

    /// How the plan that was bound last is laid out.
    pub(crate) fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Begins the plan that was bound last.
    pub(crate) fn start(
        &mut self,
        plan: Arc<Planned>,
        bases: Bases,
        (stream, signature): (Stream, Signature),
    ) {
        for (index, lane) in plan.lanes().iter().enumerate() {
            self.lanes[index].restart(self.binding.start(&plan, index), lane.window);
        }
        self.ready = (0..plan.lanes().len()).fold(0, |lanes, lane| lanes | 1 << lane);
        self.running = Some(Running { plan, stream, signature, way: Way::Steps(bases) });
    }

    /// Begins, or goes on with, a plan of one round by publications; it need not be bound.
    pub(crate) fn start_direct(
        &mut self,
        plan: Arc<Planned>,
        (stream, signature): (Stream, Signature),
        round: Round,
    ) {
        let way = Way::Direct { round, is_done: false };
        self.running = Some(Running { plan, stream, signature, way });
    }

    /// Posts every step that may be posted. `true` if there was one.
    #[inline]
    pub(crate) fn advance(&mut self, endpoint: &mut dyn Endpoint, id: u32) -> Result<bool, Fault> {
        if let Some(Running { plan, stream, signature, way: Way::Direct { round, is_done } }) =
            &mut self.running
        {
            if *is_done {
                return Ok(false);
            }
            let key = Key { stream: *stream, lane: 0, signature: *signature, engine: None };
            let before = round.progress();
            *is_done = round.go_on(plan, endpoint, &key, 1)?;
            return Ok(*is_done || round.progress() != before);
        }
        let mut moved = false;
        // Round by round, from the first lane on: what one completes at once may be what another waits for.
        let mut lane = 0;
        while self.ready != 0 {
            let ahead = self.ready.checked_shr(lane as u32).unwrap_or(0);
            if ahead == 0 {
                lane = 0;
                continue;
            }
            lane += ahead.trailing_zeros() as usize;
            self.ready &= !(1 << lane);
            while self.post_next(endpoint, id, lane)? {
                moved = true;
            }
            lane += 1;
        }
        Ok(moved)
    }

    /// Takes note of a completion. `token` is one of ours.
    #[inline]
    pub(crate) fn complete(&mut self, token: Token) {
        let (_, lane, slot) = split(token);
        let was_full = self.lanes[lane].is_full();
        let position = self.lanes[lane].give_back(slot);
        self.ready |= Lanes::from(was_full) << lane;
        self.completed(lane, position);
    }

    /// A step has completed: who waits for it may be able to post.
    #[inline]
    fn completed(&mut self, lane: usize, position: Position) {
        for other in 0..self.lane_count() {
            if self.lanes[other].awaited == Some((lane, position)) {
                self.ready |= 1 << other;
            }
        }
    }

    /// Whether every step has completed.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        if let Some((_, is_done)) = self.direct() {
            return is_done;
        }
        (0..self.lane_count()).all(|lane| {
            let state = &self.lanes[lane];
            state.count == 0 && state.cursor.position >= self.binding.total(lane)
        })
    }

    /// Whether every step has been posted.
    #[inline]
    pub(crate) fn has_posted_all(&self) -> bool {
        if let Some((_, is_done)) = self.direct() {
            return is_done;
        }
        (0..self.lane_count()).all(|lane| self.lanes[lane].cursor.position >= self.binding.total(lane))
    }

    /// Forgets the operation.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    /// What is running, if anything.
    pub(crate) fn running(&self) -> Option<(Stream, Signature)> {
        self.running.as_ref().map(|running| (running.stream, running.signature))
    }

    /// The peers of the steps that are under way: whom this rank waits for.
    pub(crate) fn waits_for(&self, mut peer: impl FnMut(Rank)) {
        let Some(Running { plan, .. }) = &self.running else { return };
        if let Some((round, _)) = self.direct() {
            return round.waits_for(plan, peer);
        }
        let sizes = self.binding.sizes();
        for lane in 0..plan.lanes().len() {
            for position in self.lanes[lane].positions() {
                let Some(step) = self.binding.instance(plan, lane, position) else { continue };
                match step.action {
                    Action::Send { to, .. } => to.at(sizes, step.at).iter().for_each(&mut peer),
                    Action::Receive { from, .. } => peer(from.rank(sizes, step.at)),
                    Action::ReceiveReduce { sources, .. } => {
                        sources.at(sizes, step.at).iter().for_each(&mut peer);
                    }
                    Action::Copy { .. } => {}
                }
            }
        }
    }

    #[inline]
    fn direct(&self) -> Option<(&Round, bool)> {
        match &self.running {
            Some(Running { way: Way::Direct { round, is_done }, .. }) => Some((round, *is_done)),
            _ => None,
        }
    }

    fn lane_count(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.plan.lanes().len())
    }

    #[inline]
    fn post_next(&mut self, endpoint: &mut dyn Endpoint, id: u32, lane: usize) -> Result<bool, Fault> {
        let Some(Running { plan, stream, signature, way: Way::Steps(bases) }) = &self.running else {
            return Ok(false);
        };
        let state = &self.lanes[lane];
        if state.is_full() {
            return Ok(false);
        }
        let Some(step) = self.binding.current(plan, lane, &state.cursor) else { return Ok(false) };
        let (satisfied, awaited) = self.edges(plan, &step, state.satisfied);
        if awaited.is_some() {
            let state = &mut self.lanes[lane];
            (state.satisfied, state.awaited) = (satisfied, awaited);
            return Ok(false);
        }
        let slot = state.free_slot();
        let signature = match message_number(plan, step.action) {
            None => *signature,
            Some((side, number)) => self.binding.sizes().table(side)[number.at(step.at) as usize].signature,
        };
        let engine = plan.spec().choice.engine;
        let key = Key { stream: *stream, lane: message_lane(*stream, lane), signature, engine };
        let post = resolve(plan, &self.binding, bases, &step);
        let posted = endpoint.post(join(id, lane, slot), &key, &post)?;
        let state = &mut self.lanes[lane];
        let position = state.cursor.position;
        if posted == Posted::Pending {
            state.take(slot);
        }
        self.binding.advance(plan, lane, &mut state.cursor);
        (state.satisfied, state.awaited) = (0, None);
        if posted == Posted::Done {
            self.completed(lane, position);
        }
        Ok(true)
    }

    /// How many edges of a step are satisfied, those known to be before, and what the next one waits for; `None` if there
    /// is no next one.
    #[inline]
    fn edges(
        &self,
        plan: &Plan,
        step: &Instance<'_>,
        satisfied: usize,
    ) -> (usize, Option<(usize, Position)>) {
        for (index, after) in step.after.iter().enumerate().skip(satisfied) {
            let target = self.binding.target(plan, after, step.at);
            if let Some((lane, position)) = target.filter(|&(lane, at)| !self.lanes[lane].has_completed(at)) {
                return (index, Some((lane, position)));
            }
        }
        (step.after.len(), None)
    }
}

/// Point-to-point messages have lanes of their own, so that they never stand in a collective's way.
fn message_lane(stream: Stream, lane: usize) -> u8 {
    match stream {
        Stream::Collective(_) => lane as u8,
        Stream::Direct => POINT_TO_POINT_LANE,
        Stream::Tagged(_) => TAGGED_LANE,
    }
}

/// Which entry of which table a step of a group moves: each of its messages is a call of its own.
#[inline]
fn message_number<'a>(plan: &Plan, action: &'a Action) -> Option<(Side, &'a Index)> {
    if plan.spec().kind != Kind::Group {
        return None;
    }
    let (Action::Send { from: Slice::Of(shape), .. } | Action::Receive { into: Slice::Of(shape), .. }) =
        action
    else {
        return None;
    };
    match shape.cuts.first() {
        Some(Cut::Block { side, index }) => Some((*side, index)),
        _ => None,
    }
}

#[inline]
fn resolve(plan: &Plan, binding: &Binding, bases: &Bases, step: &Instance<'_>) -> Post {
    let spec = plan.spec();
    let size = spec.dtype.size() as u64;
    let span = |slice| {
        let (base, start, len) = match binding.extent(slice, step.at) {
            Extent::Input(start, len) => (bases.input, start, len),
            Extent::Output(start, len) => (bases.output, start, len),
            Extent::Scratch(start, len) => (bases.scratch, start, len),
        };
        Span { region: base.region, offset: base.offset + start * size, len: len * size }
    };
    match step.action {
        Action::Send { from, to } => Post::Send { from: span(from), to: to.at(binding.sizes(), step.at) },
        Action::Receive { into, from } => {
            Post::Receive { into: span(into), from: from.rank(binding.sizes(), step.at) }
        }
        Action::ReceiveReduce { sources, own, into } => Post::ReceiveReduce {
            sources: sources.at(binding.sizes(), step.at),
            own: span(own),
            into: span(into),
            dtype: spec.dtype,
            op: spec.op.expect("only kinds with an operation are planned with reductions"),
        },
        Action::Copy { from, into } => Post::Copy { from: span(from), into: span(into) },
    }
}

/// Token layout: execution 32 bits, lane 8, slot 16.
fn join(id: u32, lane: usize, slot: usize) -> Token {
    Token(u64::from(id) << 24 | (lane as u64) << 16 | slot as u64)
}

fn split(token: Token) -> (u32, usize, usize) {
    ((token.0 >> 24) as u32, (token.0 >> 16 & 0xff) as usize, (token.0 & 0xffff) as usize)
}

/// Which execution a token belongs to.
pub(crate) fn execution_of(token: Token) -> usize {
    split(token).0 as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubccl_core::plan::MAX_WINDOW;

    /// Posts a step that does not complete at once; answers its slot.
    fn post(lane: &mut LaneState) -> usize {
        let slot = lane.free_slot();
        lane.take(slot);
        lane.cursor.position += 1;
        slot
    }

    #[test]
    fn a_lane_keeps_a_whole_window_of_any_width() {
        let mut lane = LaneState::default();
        for window in [1, 63, 64, 65, 100, MAX_WINDOW] {
            lane.restart(Cursor::default(), window);
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
    fn a_token_carries_every_slot_of_the_widest_lane() {
        for parts in [(0, 0, 0), (u32::MAX, MAX_LANES - 1, MAX_WINDOW as usize - 1), (7, 3, 64)] {
            assert_eq!(split(join(parts.0, parts.1, parts.2)), parts);
        }
    }
}
