//! Runs one plan over an endpoint. It does not know whether time is real, and never looks into a buffer.
//!
//! The hot path of every operation is [`Execution::advance`] → [`Execution::post_next`] → `Endpoint::post`.

mod lane;

use crate::one_pass::Pass;
use crate::planned::Planned;
use crate::round::Round;
use lane::{AHEAD, Edge, Lane, Resolved};
use std::sync::Arc;
use ubccl_core::endpoint::{
    Endpoint, Fault, Key, OnePass, POINT_TO_POINT_LANE, Post, Posted, RegionId, Span, Stream, TAGGED_LANE,
    Token,
};
use ubccl_core::plan::{
    Action, Binding, Cut, Extent, Index, Instance, MAX_LANES, Plan, Position, Side, Slice,
};
use ubccl_core::prefetch::{prefetch, prefetch_at};
use ubccl_core::{Collective, Kind, Rank, Signature};

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
    lanes: [Lane; MAX_LANES],
    /// Lanes that something has happened to since they could not post: bit by bit. The others still cannot.
    ready: Lanes,
    /// Lanes whose next step waits for another step, and for which.
    waiting: Lanes,
    awaited: [Edge; MAX_LANES],
    /// Steps of all lanes that were not posted yet, and that have not completed.
    unposted: u64,
    incomplete: u64,
    running: Option<Running>,
}

/// From so many pairs of ready steps on the plan is fetched.
const PLAN_LOOKS: usize = 4;

/// A set of lanes, bit by bit.
type Lanes = u8;
const _: () = assert!(MAX_LANES <= Lanes::BITS as usize, "a set has a bit for every lane");

#[derive(Debug)]
struct Running {
    plan: Arc<Planned>,
    stream: Stream,
    signature: Signature,
    /// Which of the transport's engines does it.
    engine: Option<u8>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// Step by step, with these buffers.
    Steps(Bases),
    /// In one round of publications.
    Direct { round: Round, is_done: bool },
    /// In one pass over registered memory.
    OnePass { pass: Pass, stands: OnePass },
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
        let mut steps = 0_u64;
        for (index, lane) in plan.lanes().iter().enumerate() {
            self.lanes[index].restart(self.binding.start(&plan, index), lane.window, plan.most_edges());
            steps = steps.saturating_add(self.binding.total(index));
        }
        self.waiting = 0;
        (self.unposted, self.incomplete) = (steps, steps);
        self.ready = (0..plan.lanes().len()).fold(0, |lanes, lane| lanes | 1 << lane);
        let engine = plan.spec().choice.engine;
        self.running = Some(Running { plan, stream, signature, engine, way: Way::Steps(bases) });
    }

    /// Begins, or goes on with, a plan of one round by publications; it need not be bound.
    pub(crate) fn start_direct(
        &mut self,
        plan: Arc<Planned>,
        (stream, signature): (Stream, Signature),
        round: Round,
    ) {
        let way = Way::Direct { round, is_done: false };
        self.running = Some(Running { plan, stream, signature, engine: None, way });
    }

    /// Begins a plan that may be done in one pass; it need not be bound.
    pub(crate) fn start_one_pass(
        &mut self,
        plan: Arc<Planned>,
        (stream, signature): (Stream, Signature),
        pass: Pass,
    ) {
        let way = Way::OnePass { pass, stands: OnePass::Pending };
        self.running = Some(Running { plan, stream, signature, engine: None, way });
    }

    /// Whether it turned out that it is to be done step by step.
    #[inline]
    pub(crate) fn has_declined(&self) -> bool {
        let way = self.running.as_ref().map(|running| &running.way);
        matches!(way, Some(Way::OnePass { stands: OnePass::Declined, .. }))
    }

    /// Posts every step that may be posted. `true` if there was one.
    #[inline]
    pub(crate) fn advance(&mut self, endpoint: &mut dyn Endpoint, id: u32) -> Result<bool, Fault> {
        if let Some(Running { plan, stream, signature, way, .. }) = &mut self.running {
            let key = Key { stream: *stream, lane: 0, signature: *signature, engine: None };
            match way {
                Way::Steps(_) => {}
                Way::Direct { is_done: true, .. } => return Ok(false),
                Way::Direct { round, is_done } => {
                    let before = round.progress();
                    *is_done = round.go_on(plan, endpoint, &key, 1, &mut || ())?;
                    return Ok(*is_done || round.progress() != before);
                }
                Way::OnePass { pass, stands: stands @ OnePass::Pending } => {
                    let before = pass.progress();
                    *stands = pass.go_on(endpoint, &key)?;
                    return Ok(*stands != OnePass::Pending || pass.progress() != before);
                }
                Way::OnePass { .. } => return Ok(false),
            }
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

    /// Has the lane fetched that a completion is of, and what else it touches of us.
    #[inline]
    pub(crate) fn foresee(&self, token: Token) {
        let (_, lane, _) = split(token);
        prefetch(&self.running);
        prefetch(&self.incomplete);
        prefetch_at(&self.lanes, lane);
    }

    /// Has what a completion and the posts that may follow touch fetched, a while after [`Execution::foresee`].
    #[inline]
    pub(crate) fn foresee_posts(&self, token: Token) {
        let (_, lane, slot) = split(token);
        let (Some(state), Some(Running { plan, .. })) = (self.lanes.get(lane), &self.running) else { return };
        state.foresee(slot);
        // The plan is read again when no step is ready: the looks at it are spread over the last posts before.
        if let Some(look) = PLAN_LOOKS.checked_sub(state.ready() / 2) {
            self.binding.foresee(plan, lane, &state.cursor, look);
        }
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
        self.incomplete -= 1;
        let step = Edge::new(lane, position);
        let mut waiting = self.waiting;
        while waiting != 0 {
            let other = waiting.trailing_zeros();
            self.ready |= Lanes::from(self.awaited[other as usize] == step) << other;
            waiting &= waiting - 1;
        }
    }

    /// Whether every step has completed.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.is_whole_done().unwrap_or(self.incomplete == 0)
    }

    /// Whether every step has been posted.
    #[inline]
    pub(crate) fn has_posted_all(&self) -> bool {
        self.is_whole_done().unwrap_or(self.unposted == 0)
    }

    /// Tells `each` of the completions after which more can be posted, once nothing more can be posted now: at most one for
    /// each lane. `false` if it may be any, or any may be the last.
    #[inline]
    pub(crate) fn awaits(&self, id: u32, mut each: impl FnMut(Token)) -> bool {
        let Some(Running { plan, way: Way::Steps(_), .. }) = &self.running else { return false };
        if self.ready != 0
            || self.unposted == 0
            || (0..plan.lanes().len()).any(|lane| self.lanes[lane].is_full())
        {
            return false;
        }
        let mut waiting = self.waiting;
        while waiting != 0 {
            let edge = self.awaited[waiting.trailing_zeros() as usize];
            // One that was not posted yet completes after a post, which another completion lets happen.
            if let Some(slot) = self.lanes[edge.lane()].slot(edge.position()) {
                each(join(id, edge.lane(), slot));
            }
            waiting &= waiting - 1;
        }
        true
    }

    /// Forgets the operation.
    pub(crate) fn stop(&mut self) {
        (self.unposted, self.incomplete) = (0, 0);
        self.running = None;
    }

    /// What is running, if anything.
    pub(crate) fn running(&self) -> Option<(Stream, Signature)> {
        self.running.as_ref().map(|running| (running.stream, running.signature))
    }

    /// The peers of the steps that are under way: whom this rank waits for.
    pub(crate) fn waits_for(&self, mut peer: impl FnMut(Rank)) {
        let Some(Running { plan, way, .. }) = &self.running else { return };
        match way {
            Way::Steps(_) => {}
            Way::Direct { round, .. } => return round.waits_for(plan, peer),
            Way::OnePass { pass, .. } => return pass.waits_for(plan, peer),
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

    /// Of what is not done step by step: whether it is done.
    #[inline]
    fn is_whole_done(&self) -> Option<bool> {
        match self.running.as_ref()?.way {
            Way::Steps(_) => None,
            Way::Direct { is_done, .. } => Some(is_done),
            Way::OnePass { stands, .. } => Some(stands == OnePass::Done),
        }
    }

    #[inline]
    fn post_next(&mut self, endpoint: &mut dyn Endpoint, id: u32, lane: usize) -> Result<bool, Fault> {
        let state = &self.lanes[lane];
        if state.is_full() || state.next as usize == state.ahead.len() && !self.look_ahead(lane) {
            return Ok(false);
        }
        let edges_end = self.lanes[lane].ahead[self.lanes[lane].next as usize].edges_end;
        while self.lanes[lane].next_edge < edges_end {
            let edge = self.lanes[lane].edges[self.lanes[lane].next_edge as usize];
            if !self.lanes[edge.lane()].has_completed(edge.position()) {
                self.awaited[lane] = edge;
                self.waiting |= 1 << lane;
                return Ok(false);
            }
            self.lanes[lane].next_edge += 1;
        }
        let Some(Running { stream, engine, signature, .. }) = self.running else { return Ok(false) };
        let state = &mut self.lanes[lane];
        let (slot, step) = (state.free_slot(), &state.ahead[state.next as usize]);
        let signature = state.signatures.get(state.next as usize).copied().unwrap_or(signature);
        let key = Key { stream, lane: message_lane(stream, lane), signature, engine };
        let posted = endpoint.post(join(id, lane, slot), &key, &step.post)?;
        if posted == Posted::Pending {
            state.take(slot);
        }
        let position = state.position;
        state.position += 1;
        state.next += 1;
        self.waiting &= !(1 << lane);
        self.unposted -= 1;
        if posted == Posted::Done {
            self.completed(lane, position);
        }
        Ok(true)
    }

    /// Resolves the next steps of a lane, as many as it has posted before, so that the first is not kept waiting. `false`
    /// if there is none.
    fn look_ahead(&mut self, lane: usize) -> bool {
        let Some(Running { plan, signature, way: Way::Steps(bases), .. }) = &self.running else {
            return false;
        };
        let (state, binding) = (&mut self.lanes[lane], &self.binding);
        state.look_further();
        let most = state.position.clamp(1, AHEAD as Position) as usize;
        while state.ahead.len() < most
            && let Some(step) = binding.current(plan, lane, &state.cursor)
        {
            let targets = step.after.iter().filter_map(|after| binding.target(plan, after, step.at));
            state.edges.extend(targets.map(|(lane, position)| Edge::new(lane, position)));
            if plan.spec().kind == Kind::Group {
                let of_message = |(side, number): (Side, &Index)| {
                    binding.sizes().table(side)[number.at(step.at) as usize].signature
                };
                state.signatures.push(message_number(step.action).map_or(*signature, of_message));
            }
            let (post, edges_end) = (resolve(plan, binding, bases, &step), state.edges.len() as u32);
            state.ahead.push(Resolved { post, edges_end });
            binding.advance(plan, lane, &mut state.cursor);
        }
        !state.ahead.is_empty()
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
fn message_number(action: &Action) -> Option<(Side, &Index)> {
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

    #[test]
    fn a_token_carries_every_slot_of_the_widest_lane() {
        for parts in [(0, 0, 0), (u32::MAX, MAX_LANES - 1, MAX_WINDOW as usize - 1), (7, 3, 64)] {
            assert_eq!(split(join(parts.0, parts.1, parts.2)), parts);
        }
    }
}
