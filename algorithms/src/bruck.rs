//! Bruck's all-to-all: blocks travel by the bits of their distance, so that few messages carry many small blocks.
//!
//! ```text
//! rank r of p, H = the largest power of two below p:
//!   for i in 0..p:  held i = block r+i of the input                          (what has to go i further)
//!   for d = 1, 2, 4, … below p, c = the number of i below p that have bit d:
//!     pack held i with bit d, c of them;  send them to r+d;  unpack what r-d sends, as many
//!   for i in 0..p:  block r-i of the output = held i                         (what has come i further)
//!
//! 4 ranks, what rank 0 holds (from→to):     i = 0   i = 1   i = 2   i = 3
//!   rotated                                 0→0     0→1     0→2     0→3
//!   d = 1: i = 1 and 3 go to rank 1         0→0     3→0     0→2     3→2
//!   d = 2: i = 2 and 3 go to rank 2         0→0     3→0     2→0     1→0
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the input, p ranks) | bytes copied | elements reduced |
//! |---|---|---|---|---|
//! | all-to-all | ⌈log2 p⌉ | c/p·n in each: p/2·⌈log2 p⌉/p·n where p is a power of two | at most (2 + ⌈log2 p⌉)·n | none |
//!
//! Pairwise sends less, (p−1)/p·n, in p−1 messages: this one is for blocks whose bytes cost less than a message does.
//! Blocks with bit d lie in runs of d, which are copied at once; the last step's are one run, and travel unpacked.
//!
//! Scratch is two inputs long; between rotation and end, the output holds what comes. Keeps to one lane.
//!
//! Source: J. Bruck, C. Ho, S. Kipnis, E. Upfal and D. Weathersby, IEEE TPDS 8 (1997).

use crate::rounds::farthest;
use crate::share::{each_lane, fence, keep_own, refuse, signed};
use ubccl_core::plan::{
    Association, Buffer, Cut, Index, Peers, Plan, PlanBuilder, Shape, Slice, StepId, Trips,
};
use ubccl_core::profile::{Round, Share, Traffic};
use ubccl_core::{Algorithm, AlgorithmDescriptor, Kind, Layout, Profile, Result, Spec};

/// Bruck's all-to-all.
pub static BRUCK: Bruck = Bruck;

/// See the module.
#[derive(Debug)]
pub struct Bruck;

static DESCRIPTOR: AlgorithmDescriptor = AlgorithmDescriptor {
    name: "bruck",
    summary: "blocks travel by the bits of their distance; log2 steps, more bytes: for small blocks",
    source: "Bruck et al., IEEE TPDS 8 (1997)",
};

const WINDOW: u32 = 64;
/// The scratch slot of what a rank holds, and that of what it packs or, in the last step, takes.
const HELD: i32 = 0;
const PACKED: i32 = 1;

impl Algorithm for Bruck {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        &DESCRIPTOR
    }

    fn supports(&self, kind: Kind, _ranks: u32) -> Result<()> {
        match kind {
            Kind::AllToAll => Ok(()),
            Kind::AllToAllV => {
                refuse(DESCRIPTOR.name, kind, "ranks between do not know how long blocks are; use pairwise")
            }
            _ => refuse(DESCRIPTOR.name, kind, "it is for all-to-all; of the others, use nb"),
        }
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        let of = u64::from(spec.ranks);
        let copies = |parts: u64| Round { times: 1, copied: Share::new(parts, of), ..Round::default() };
        if spec.ranks == 1 {
            return Profile::of(if spec.in_place { Vec::new() } else { vec![copies(1)] });
        }
        let step = |step: &Step| {
            let share = Share::new(u64::from(step.blocks), of);
            let traffic =
                vec![Traffic { level: farthest(layout, step.distance), messages: 1, peers: 1, share }];
            let copied = if step.is_last { 0 } else { 2 * u64::from(step.blocks) };
            Round { traffic, ..copies(copied) }
        };
        let rounds = steps(spec.ranks);
        Profile::of(std::iter::once(copies(of)).chain(rounds.iter().map(step)).chain([copies(of)]).collect())
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let mut plan = PlanBuilder::new(spec, DESCRIPTOR.name, Association::None);
        if spec.ranks == 1 {
            each_lane(&mut plan, WINDOW, |plan, lane| keep_own(plan, lane, Shape::whole(Buffer::Output)));
            return plan.finish();
        }
        plan.lane(WINDOW);
        plan.scratch(2, Shape::whole(Buffer::Input));
        let blocks = Blocks { spec: *spec };
        blocks.rotate(&mut plan);
        let mut before = None;
        for step in steps(spec.ranks) {
            before = Some(blocks.step(&mut plan, &step, before));
        }
        blocks.bring(&mut plan);
        plan.finish()
    }
}

/// A step: who is how far, and which blocks go.
struct Step {
    distance: u32,
    /// How many have the distance's bit.
    blocks: u32,
    is_last: bool,
}

fn steps(ranks: u32) -> Vec<Step> {
    let distances = std::iter::successors(Some(1), |distance| Some(2 * distance));
    let step = |distance: u32| {
        let (full, rest) = runs(ranks, distance);
        Step { distance, blocks: full * distance + rest, is_last: 2 * distance >= ranks }
    };
    distances.take_while(|&distance| distance < ranks).map(step).collect()
}

/// The blocks below `ranks` with the bit `distance` come in runs: how many of them are `distance` long, and how long the
/// last one is beside them.
fn runs(ranks: u32, distance: u32) -> (u32, u32) {
    (ranks / (2 * distance), (ranks % (2 * distance)).saturating_sub(distance))
}

/// Blocks and where they lie.
struct Blocks {
    spec: Spec,
}

impl Blocks {
    fn span(&self, first: Index, blocks: u32) -> Cut {
        Cut::Span { parts: self.spec.ranks, first, blocks }
    }

    /// Blocks of one of the two scratch slots.
    fn scratch(&self, slot: i32, first: Index, blocks: u32) -> Slice {
        let part = vec![self.span(first, blocks)];
        Slice::Scratch { slot: Index::fixed(slot), shape: Shape::whole(Buffer::Input), part }
    }

    fn of(&self, buffer: Buffer, first: Index, blocks: u32) -> Slice {
        Shape { buffer, cuts: vec![self.span(first, blocks)] }.into()
    }

    fn rank(&self, by: i32) -> Index {
        Index::on_circle(signed(self.spec.rank) + by, self.spec.ranks)
    }

    /// Holds the input, the rank's own block first.
    fn rotate(&self, plan: &mut PlanBuilder) {
        let Spec { rank, ranks, .. } = self.spec;
        plan.straight();
        let behind = ranks - rank;
        let mut copies = vec![plan.copy(
            self.of(Buffer::Input, Index::fixed(signed(rank)), behind),
            self.scratch(HELD, Index::fixed(0), behind),
        )];
        if rank > 0 {
            copies.push(plan.copy(
                self.of(Buffer::Input, Index::fixed(0), rank),
                self.scratch(HELD, Index::fixed(signed(behind)), rank),
            ));
        }
        fence(plan, &copies, Trips::ONCE, Trips::ONCE);
    }

    /// Packs, exchanges, unpacks; answers the send. `before` is that of the step before.
    fn step(&self, plan: &mut PlanBuilder, step: &Step, before: Option<StepId>) -> StepId {
        let distance = signed(step.distance);
        let (all, none) = (step.blocks, Index::fixed(0));
        let to = Peers::one(self.rank(distance));
        if step.is_last {
            plan.straight();
            let give = plan.send(self.scratch(HELD, Index::fixed(distance), all), to);
            let take = plan.receive(self.scratch(PACKED, none, all), self.rank(-distance));
            before.into_iter().for_each(|before| plan.after(take, before));
            fence(plan, &[take], Trips::ONCE, Trips::ONCE);
            return give;
        }
        // What the step before sends lies where this one packs.
        self.each_run(plan, step, before, |plan, held, packed, blocks| {
            plan.copy(self.scratch(HELD, held, blocks), self.scratch(PACKED, packed, blocks))
        });
        plan.straight();
        let give = plan.send(self.scratch(PACKED, none, all), to);
        let take = plan.receive(self.of(Buffer::Output, none, all), self.rank(-distance));
        self.each_run(plan, step, Some(take), |plan, held, packed, blocks| {
            plan.copy(self.of(Buffer::Output, packed, blocks), self.scratch(HELD, held, blocks))
        });
        give
    }

    /// Copies each run of blocks of a step, not before `ready`: `copy` is told where it begins among those held and those
    /// packed, and how many it is. What follows waits for all of it.
    fn each_run(
        &self,
        plan: &mut PlanBuilder,
        step: &Step,
        ready: Option<StepId>,
        copy: impl Fn(&mut PlanBuilder, Index, Index, u32) -> StepId,
    ) {
        let distance = signed(step.distance);
        let (full, rest) = runs(self.spec.ranks, step.distance);
        let mut last = None;
        if rest > 0 {
            plan.straight();
            let (held, packed) = (signed(2 * full + 1) * distance, signed(full) * distance);
            last = Some(copy(plan, Index::fixed(held), Index::fixed(packed), rest));
        }
        plan.repeat(Trips::Fixed(full), Trips::ONCE);
        let (held, packed) =
            (Index::fixed(distance).per_outer(2 * distance), Index::fixed(0).per_outer(distance));
        let each = copy(plan, held, packed, step.distance);
        let first = Index::fixed(0);
        for copy in last.into_iter().chain([each]) {
            ready.into_iter().for_each(|ready| plan.after_turn(copy, ready, first, first));
        }
        let all = fence(plan, &[each], Trips::Fixed(full), Trips::ONCE);
        last.into_iter().for_each(|last| plan.after_turn(all, last, first, first));
    }

    /// Brings each block to its place: in the last step, those beyond the largest power of two came packed.
    fn bring(&self, plan: &mut PlanBuilder) {
        let ranks = self.spec.ranks;
        let low = ranks.next_power_of_two() / 2;
        for (slot, first, blocks) in [(HELD, 0, low), (PACKED, low, ranks - low)] {
            plan.repeat(Trips::Fixed(blocks), Trips::ONCE);
            let place = self.rank(-signed(first)).per_outer(-1);
            plan.copy(self.scratch(slot, Index::OUTER, 1), self.of(Buffer::Output, place, 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_hold_every_block_with_the_bit() {
        for ranks in 2..=200 {
            for step in steps(ranks) {
                let with_bit = (0..ranks).filter(|block| block & step.distance != 0).count();
                assert_eq!(step.blocks as usize, with_bit, "{} of {ranks}", step.distance);
            }
            assert_eq!(steps(ranks).len() as u32, ranks.next_power_of_two().trailing_zeros());
        }
    }
}
