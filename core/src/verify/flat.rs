//! All ranks' plans as flat arrays: every step instance once, its ranges, peers and edges as numbers.
//!
//! A rank's memory is one flat range of elements: out of place its input, its output, its scratch, one after the
//! other; in place the one buffer, then the scratch.

use super::form::{check_agreement, check_plan, malformed};
use super::resolve::Resolver;
use super::violation::{Place, StepAt, Violation};
use crate::algorithm::Spec;
use crate::collective::{Collective, Rank};
use crate::plan::{Association, Binding, Edge, MAX_LANES, MAX_WINDOW_PER_PEER, Plan, Sizes, StepId};
use std::ops::Range;

/// No range at all.
pub(super) const NONE: u64 = u64::MAX;
/// An entry of a peer list that stands for the rank's own slice.
pub(super) const OWN: u32 = u32::MAX;
/// No message comes after this one on its channel.
pub(super) const LAST: u32 = u32::MAX;
/// More step instances than this are refused: numbers of steps are 32 bits wide.
const MAX_STEPS: u64 = 1 << 31;

/// A step instance. It reads `read..read+len` if that is not [`NONE`], and writes `write..write+len` likewise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) read: u64,
    pub(super) write: u64,
    pub(super) len: u64,
    /// First of its entries; they end where the next step's begin.
    entries: u32,
    /// First of its edges, likewise.
    edges: u32,
    /// Whether it sends; otherwise its entries are sources ([`OWN`] among them; a copy has only that).
    pub(super) sends: bool,
}

/// One message of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// To or from whom.
    pub(super) peer: Rank,
    /// The peer's step, filled in by matching, or [`OWN`].
    pub(super) partner: u32,
    /// Of a receiving step: the one that takes the channel's next message, filled in by matching, or [`LAST`].
    pub(super) next: u32,
}

impl Entry {
    /// Not matched yet.
    pub(super) fn new(peer: Rank) -> Self {
        Entry { peer, partner: OWN, next: LAST }
    }
}

/// One edge of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrow {
    pub(super) target: u32,
    pub(super) whole: bool,
}

/// A lane: a run of steps.
#[derive(Clone, Debug)]
pub(super) struct FlatLane {
    pub(super) steps: Range<u32>,
    pub(super) window: u32,
}

/// Where a rank's buffers lie in its flat memory.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) input: Range<u64>,
    pub(super) output: Range<u64>,
    pub(super) scratch: Range<u64>,
    /// Elements of one slot of scratch.
    pub(super) slot: u64,
    in_place: bool,
}

/// Everything flat. Steps, lanes, entries and edges are numbered over all ranks, rank by rank, lane by lane.
pub(super) struct Flat<'a> {
    pub(super) ranks: u32,
    /// What each rank called.
    pub(super) calls: Vec<Collective<'a>>,
    plans: &'a dyn Fn(Rank) -> Plan,
    pub(super) association: Association,
    /// Per rank.
    pub(super) specs: Vec<Spec>,
    pub(super) steps: Vec<Step>,
    pub(super) entries: Vec<Entry>,
    pub(super) arrows: Vec<Arrow>,
    pub(super) lanes: Vec<FlatLane>,
    /// Per rank: its first lane; one more at the end.
    first_lane: Vec<u32>,
    pub(super) layouts: Vec<Layout>,
}

impl<'a> Flat<'a> {
    pub(super) fn new(
        plans: &'a dyn Fn(Rank) -> Plan,
        calls: &dyn Fn(Rank) -> Collective<'a>,
        ranks: u32,
    ) -> Result<Self, Violation> {
        let first = plans(0);
        let mut flat = Flat {
            ranks,
            association: first.association,
            specs: Vec::new(),
            calls: (0..ranks).map(calls).collect(),
            plans,
            steps: Vec::new(),
            entries: Vec::new(),
            arrows: Vec::new(),
            lanes: Vec::new(),
            first_lane: vec![0],
            layouts: Vec::new(),
        };
        let mut binding = Binding::default();
        for rank in 0..ranks {
            let plan = plans(rank);
            check_agreement(&first, &plan, rank)?;
            check_plan(&plan, ranks, &flat.calls[rank as usize])?;
            flat.add(&plan, &mut binding)?;
        }
        flat.close();
        (0..flat.lanes.len()).try_for_each(|lane| flat.check_peers(lane))?;
        Ok(flat)
    }

    /// Checks that a lane never has more under way with one peer than an endpoint takes. In a wide window, any steps of
    /// the lane may be under way together: the edges are not asked.
    fn check_peers(&self, lane: usize) -> Result<(), Violation> {
        let FlatLane { steps, window } = &self.lanes[lane];
        if *window <= MAX_WINDOW_PER_PEER || steps.is_empty() {
            return Ok(());
        }
        let mut steps_with = vec![0; self.ranks as usize];
        let (rank, _) = self.owner(steps.start);
        for step in steps.clone() {
            for entry in &self.entries[self.entries_of(step)] {
                let with = &mut steps_with[entry.peer as usize];
                *with += u32::from(entry.peer != rank);
                if *with > MAX_WINDOW_PER_PEER {
                    let what = "is one of more than 64 with one peer, in a lane with a window above 64";
                    return Err(Violation::Malformed {
                        rank,
                        step: Some(Box::new(self.describe(step))),
                        what,
                    });
                }
            }
        }
        Ok(())
    }

    /// The steps of all lanes of a rank.
    pub(super) fn steps_of(&self, rank: Rank) -> Range<usize> {
        let lanes = self.lanes_of(rank);
        match self.lanes.get(lanes.clone()) {
            Some([first, .., last]) => first.steps.start as usize..last.steps.end as usize,
            Some([one]) => one.steps.start as usize..one.steps.end as usize,
            _ => 0..0,
        }
    }

    /// The lanes of a rank.
    pub(super) fn lanes_of(&self, rank: Rank) -> Range<usize> {
        self.first_lane[rank as usize] as usize..self.first_lane[rank as usize + 1] as usize
    }

    #[inline]
    pub(super) fn entries_of(&self, step: u32) -> Range<usize> {
        self.steps[step as usize].entries as usize..self.steps[step as usize + 1].entries as usize
    }

    #[inline]
    pub(super) fn arrows_of(&self, step: u32) -> Range<usize> {
        self.steps[step as usize].edges as usize..self.steps[step as usize + 1].edges as usize
    }

    /// Step instances of all ranks.
    pub(super) fn total(&self) -> usize {
        self.steps.len() - 1
    }

    /// Rank and index of the lane that a step belongs to.
    pub(super) fn owner(&self, step: u32) -> (Rank, usize) {
        let lane = self.lanes.partition_point(|lane| lane.steps.end <= step);
        let rank = self.first_lane.partition_point(|&first| first as usize <= lane) - 1;
        (rank as Rank, lane)
    }

    /// A step for a message: its plan is made again, which costs nothing where nothing is wrong.
    pub(super) fn describe(&self, step: u32) -> StepAt {
        let (rank, lane) = self.owner(step);
        let lane_of_rank = lane - self.first_lane[rank as usize] as usize;
        let position = u64::from(step - self.lanes[lane].steps.start);
        describe(&(self.plans)(rank), &self.calls[rank as usize], lane_of_rank, position)
    }

    /// A range of a rank's memory for a message.
    pub(super) fn place(&self, rank: Rank, start: u64, len: u64) -> Place {
        let layout = &self.layouts[rank as usize];
        if start >= layout.scratch.start {
            return Place { buffer: "scratch", start: start - layout.scratch.start, len };
        }
        match (layout.in_place, layout.output.contains(&start)) {
            (true, _) => Place { buffer: "buffer", start, len },
            (false, true) => Place { buffer: "output", start: start - layout.output.start, len },
            (false, false) => Place { buffer: "input", start, len },
        }
    }

    fn add(&mut self, plan: &Plan, binding: &mut Binding) -> Result<(), Violation> {
        let call = self.calls[plan.spec.rank as usize];
        binding.bind(plan, &call);
        let firsts = self.add_lanes(plan, binding)?;
        let layout = Layout::new(plan, binding.sizes(), &call);
        let resolver = Resolver { plan, layout: &layout, binding };
        for lane in 0..plan.lanes.len() {
            let mut cursor = binding.start(plan, lane);
            while let Some(instance) = binding.current(plan, lane, &cursor) {
                let (entries, edges) = (self.entries.len() as u32, self.arrows.len() as u32);
                for after in instance.after {
                    let Some((lane, position)) = binding.target(plan, after, instance.at) else { continue };
                    let target = firsts[lane] + position as u32;
                    self.arrows.push(Arrow { target, whole: after.edge == Edge::Whole });
                }
                let step = resolver.step(instance.action, instance.at, &mut self.entries);
                let (read, write, len, sends) = step.map_err(|what| {
                    let step = describe(plan, &call, lane, cursor.position);
                    Violation::Malformed { rank: plan.spec.rank, step: Some(Box::new(step)), what }
                })?;
                self.steps.push(Step { read, write, len, entries, edges, sends });
                binding.advance(plan, lane, &mut cursor);
            }
        }
        self.specs.push(plan.spec);
        self.layouts.push(layout);
        Ok(())
    }

    /// Numbers the lanes' steps; answers each lane's first.
    fn add_lanes(&mut self, plan: &Plan, binding: &Binding) -> Result<[u32; MAX_LANES], Violation> {
        let mut next = self.steps.len() as u64;
        let mut firsts = [0; MAX_LANES];
        for (index, lane) in plan.lanes.iter().enumerate() {
            let first = next;
            next += binding.total(index);
            if next > MAX_STEPS {
                let what = "more than 2^31 steps: verify with a smaller count";
                return Err(malformed(plan.spec.rank, what));
            }
            firsts[index] = first as u32;
            self.lanes.push(FlatLane { steps: first as u32..next as u32, window: lane.window });
        }
        self.first_lane.push(self.lanes.len() as u32);
        Ok(firsts)
    }

    /// One step more, so that the last one's entries and edges end too.
    fn close(&mut self) {
        let (entries, edges) = (self.entries.len() as u32, self.arrows.len() as u32);
        self.steps.push(Step { read: NONE, write: NONE, len: 0, entries, edges, sends: false });
    }
}

impl Layout {
    fn new(plan: &Plan, sizes: &Sizes, call: &Collective<'_>) -> Self {
        let spec = &plan.spec;
        let (slots, slot) = plan
            .scratch
            .as_ref()
            .map_or((0, 0), |scratch| (u64::from(scratch.slots), scratch.shape.longest(sizes)));
        let (input, output, end) = if spec.in_place {
            let (input, output) = call.in_place_offsets(spec.rank);
            (input, output, call.in_place_elements(spec.ranks, spec.rank))
        } else {
            (0, sizes.input, sizes.input + sizes.output)
        };
        Layout {
            input: input..input + sizes.input,
            output: output..output + sizes.output,
            scratch: end..end + slots * slot,
            slot,
            in_place: spec.in_place,
        }
    }

    /// All of the rank's memory.
    pub(super) fn len(&self) -> u64 {
        self.scratch.end
    }

    /// Whether a plan may write these elements.
    pub(super) fn writable(&self, start: u64, len: u64) -> bool {
        start >= self.output.start && start + len <= self.output.end || start >= self.scratch.start
    }

    /// Whether these elements are an input that stays as it is.
    pub(super) fn constant(&self, start: u64) -> bool {
        !self.in_place && start < self.input.end
    }
}

/// What a step of a plan is, told for a message.
pub(super) fn describe(plan: &Plan, call: &Collective<'_>, lane: usize, position: u64) -> StepAt {
    let mut binding = Binding::default();
    binding.bind(plan, call);
    let mut cursor = binding.start(plan, lane);
    while cursor.position < position {
        binding.advance(plan, lane, &mut cursor);
    }
    let instance = binding.current(plan, lane, &cursor).expect("the position is one of the lane's");
    let same = |place: &&crate::plan::Place| {
        let step = &plan.lanes[usize::from(place.lane)].loops[usize::from(place.turn)].steps
            [usize::from(place.body)];
        std::ptr::eq(&step.action, instance.action)
    };
    let step = plan.places.iter().position(|place| same(&place)).expect("every step has a place");
    let step = StepId(step as u16);
    StepAt {
        rank: plan.spec.rank,
        lane: lane as u8,
        step,
        at: instance.at,
        text: instance.action.to_string().into(),
    }
}
