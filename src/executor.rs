//! Runs one plan over an endpoint. It does not know whether time is real, and never looks into a buffer.
//!
//! The hot path of every operation is [`Execution::advance`] → [`Execution::post_next`] → `Endpoint::post`.

use std::sync::Arc;
use ubccl_core::endpoint::{Endpoint, Fault, Key, Post, Posted, RegionId, Span, Stream, Token};
use ubccl_core::plan::{Action, Binding, Cursor, Extent, Instance, MAX_LANES, MAX_WINDOW, Plan, Position};
use ubccl_core::{Rank, Signature};

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
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    plan: Arc<Plan>,
    bases: Bases,
    stream: Stream,
    signature: Signature,
}

/// A lane's place in its steps, and which of its steps are under way.
#[derive(Debug)]
struct LaneState {
    cursor: Cursor,
    /// Bit k: `under_way[k]` is a step that was posted and has not completed.
    busy: u64,
    under_way: [Position; MAX_WINDOW as usize],
}

impl Default for LaneState {
    fn default() -> Self {
        LaneState { cursor: Cursor::default(), busy: 0, under_way: [0; MAX_WINDOW as usize] }
    }
}

impl LaneState {
    fn restart(&mut self, cursor: Cursor) {
        self.cursor = cursor;
        self.busy = 0;
    }

    #[inline]
    fn has_completed(&self, position: Position) -> bool {
        if position >= self.cursor.position {
            return false;
        }
        let mut rest = self.busy;
        while rest != 0 {
            let slot = rest.trailing_zeros() as usize;
            if self.under_way[slot] == position {
                return false;
            }
            rest &= rest - 1;
        }
        true
    }
}

impl Execution {
    /// Begins `plan` for `count`.
    pub(crate) fn start(
        &mut self,
        plan: Arc<Plan>,
        count: u64,
        bases: Bases,
        (stream, signature): (Stream, Signature),
    ) {
        self.binding.bind(&plan, count);
        for lane in 0..plan.lanes().len() {
            self.lanes[lane].restart(self.binding.start(&plan, lane));
        }
        self.running = Some(Running { plan, bases, stream, signature });
    }

    /// Posts every step that may be posted. `true` if there was one.
    #[inline]
    pub(crate) fn advance(&mut self, endpoint: &mut dyn Endpoint, id: u32) -> Result<bool, Fault> {
        let lanes = self.lane_count();
        let mut moved = false;
        loop {
            let mut posted = false;
            for lane in 0..lanes {
                while self.post_next(endpoint, id, lane)? {
                    posted = true;
                }
            }
            if !posted || lanes == 1 {
                return Ok(moved | posted);
            }
            // What one lane completed at once may be what another waits for.
            moved = true;
        }
    }

    /// Takes note of a completion. `token` is one of ours.
    #[inline]
    pub(crate) fn complete(&mut self, token: Token) {
        let (_, lane, slot) = split(token);
        self.lanes[lane].busy &= !(1 << slot);
    }

    /// Whether every step has completed.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        (0..self.lane_count()).all(|lane| {
            let state = &self.lanes[lane];
            state.busy == 0 && state.cursor.position >= self.binding.total(lane)
        })
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
        for lane in 0..plan.lanes().len() {
            let state = &self.lanes[lane];
            let under_way = (0..MAX_WINDOW as usize).filter(|slot| state.busy >> slot & 1 == 1);
            for position in under_way.map(|slot| state.under_way[slot]) {
                let Some(step) = self.binding.instance(plan, lane, position) else { continue };
                match step.action {
                    Action::Send { to, .. } => to.at(step.at).iter().for_each(&mut peer),
                    Action::Receive { from, .. } => peer(from.at(step.at) as Rank),
                    Action::ReceiveReduce { sources, .. } => sources.at(step.at).iter().for_each(&mut peer),
                    Action::Copy { .. } => {}
                }
            }
        }
    }

    fn lane_count(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.plan.lanes().len())
    }

    #[inline]
    fn post_next(&mut self, endpoint: &mut dyn Endpoint, id: u32, lane: usize) -> Result<bool, Fault> {
        let Some(Running { plan, bases, stream, signature }) = &self.running else { return Ok(false) };
        let state = &self.lanes[lane];
        let Some(step) = self.binding.current(plan, lane, &state.cursor) else { return Ok(false) };
        if state.busy.count_ones() >= plan.lanes()[lane].window || !self.may_post(plan, &step) {
            return Ok(false);
        }
        let slot = (!state.busy).trailing_zeros();
        let key = Key { stream: *stream, lane: message_lane(*stream, lane), signature: *signature };
        let post = resolve(plan, &self.binding, bases, &step);
        let posted = endpoint.post(join(id, lane, slot), &key, &post)?;
        let state = &mut self.lanes[lane];
        if posted == Posted::Pending {
            state.under_way[slot as usize] = state.cursor.position;
            state.busy |= 1 << slot;
        }
        self.binding.advance(plan, lane, &mut state.cursor);
        Ok(true)
    }

    #[inline]
    fn may_post(&self, plan: &Plan, step: &Instance<'_>) -> bool {
        step.after.iter().all(|after| match self.binding.target(plan, after, step.at) {
            Some((lane, position)) => self.lanes[lane].has_completed(position),
            None => true,
        })
    }
}

/// Tagged messages have a lane of their own, so that they never stand in a collective's way.
fn message_lane(stream: Stream, lane: usize) -> u8 {
    match stream {
        Stream::Collective(_) => lane as u8,
        Stream::Tagged(_) => ubccl_core::endpoint::POINT_TO_POINT_LANE,
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
        Action::Send { from, to } => Post::Send { from: span(from), to: to.at(step.at) },
        Action::Receive { into, from } => Post::Receive { into: span(into), from: from.at(step.at) as u32 },
        Action::ReceiveReduce { sources, own, into } => Post::ReceiveReduce {
            sources: sources.at(step.at),
            own: span(own),
            into: span(into),
            dtype: spec.dtype,
            op: spec.op.expect("only kinds with an operation are planned with reductions"),
        },
        Action::Copy { from, into } => Post::Copy { from: span(from), into: span(into) },
    }
}

/// Token layout: execution 32 bits, lane 8, slot 8.
fn join(id: u32, lane: usize, slot: u32) -> Token {
    Token(u64::from(id) << 16 | (lane as u64) << 8 | u64::from(slot))
}

fn split(token: Token) -> (u32, usize, u32) {
    ((token.0 >> 16) as u32, (token.0 >> 8 & 0xff) as usize, (token.0 & 0xff) as u32)
}

/// Which execution a token belongs to.
pub(crate) fn execution_of(token: Token) -> usize {
    split(token).0 as usize
}
