//! Ring: every rank talks to its two neighbours only.
//!
//! ```text
//! all-reduce, rank r of n, the vector cut into n blocks:
//!   for i in 0..n-1:  send block r-1-i to r+1;  block r-2-i += what r-1 sends        (reduce-scatter)
//!   for j in 0..n-1:  send block r-j to r+1;    block r-1-j  = what r-1 sends        (all-gather)
//!
//! 4 ranks, who holds the partial sum of which block before step i of the first half:
//!   i    rank 0   rank 1   rank 2   rank 3
//!   0    block 3  block 0  block 1  block 2        each its own contribution
//!   1    block 2  block 3  block 0  block 1        two ranks summed
//!   2    block 1  block 2  block 3  block 0        three
//!   end  block 0  block 1  block 2  block 3        all four: block r ends on rank r
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | all-reduce | 2(p−1) | 2(p−1)/p·n | (p−1)/p·n |
//! | reduce-scatter(v), all-gather(v) | p−1 | (p−1)/p·n | (p−1)/p·n, none |
//! | broadcast (a chain) | p−1, pipelined by chunks | n, the last rank none | none |
//! | barrier | p−1 | none | none |
//!
//! With tables, blocks are as long as they say, and each step takes as long as the longest block.
//!
//! Block b is summed as `((x[b+1] + x[b+2]) + …) + x[b]`, so it ends on rank b.
//!
//! Source: P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 69
//! (2009). We differ in chunks: each step's block is moved in chunks, and chunk c of a step waits for chunk c of the
//! step before only, so that neighbours overlap.

use crate::rounds::{along_circle, copy_only, longest_hop, one_port, own_copy};
use crate::schedule::Schedule;
use crate::share::{block, each_lane, keep_own, refuse, root_of, share, signed};
use crate::team::{Family, Team};
use ubccl_core::plan::{
    Association, Buffer, Cut, Index, Peers, Plan, PlanBuilder, Shape, Slice, StepId, Trips,
};
use ubccl_core::profile::Share;
use ubccl_core::{Algorithm, AlgorithmDescriptor, Kind, Layout, Profile, Result, Spec};

/// The ring family.
pub static RING: Ring = Ring;

/// See the module.
#[derive(Debug)]
pub struct Ring;

static DESCRIPTOR: AlgorithmDescriptor = AlgorithmDescriptor {
    name: "ring",
    summary: "neighbours only; least bytes, most steps",
    source: "Patarasuk and Yuan, JPDC 69 (2009)",
};

const WINDOW: u32 = 64;

impl Algorithm for Ring {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        &DESCRIPTOR
    }

    fn supports(&self, kind: Kind, _ranks: u32) -> Result<()> {
        match kind {
            Kind::AllReduce | Kind::ReduceScatter | Kind::ReduceScatterV => Ok(()),
            Kind::AllGather | Kind::AllGatherV | Kind::Broadcast | Kind::Barrier => Ok(()),
            Kind::SendReceive => refuse(DESCRIPTOR.name, kind, "two ranks need no circle; use mesh-one-shot"),
            _ if kind.row().rooted => {
                refuse(DESCRIPTOR.name, kind, "most of its steps would wait; use linear")
            }
            _ => refuse(DESCRIPTOR.name, kind, "blocks would take detours; use pairwise"),
        }
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        let p = u64::from(spec.ranks);
        let profile = match spec.kind {
            _ if p == 1 && spec.kind == Kind::Barrier => Profile::default(),
            _ if p == 1 => copy_only(spec, 1, 1),
            Kind::Barrier => Profile::of(along_circle(layout, spec.ranks - 1, Share::NONE)),
            Kind::Broadcast => {
                let chain = along_circle(layout, spec.ranks - 1, Share::ALL);
                let busiest = one_port(longest_hop(layout), 1, (1, 1));
                Profile::of(chain.into_iter().map(|hop| hop.by(1)).collect())
                    .busiest(busiest)
                    .chunked(1, 1)
                    .split()
            }
            Kind::AllGather | Kind::AllGatherV => {
                let mut profile = circle_profile(layout, spec.ranks - 1, 0);
                profile.rounds.extend(own_copy(spec, 1, p));
                profile
            }
            Kind::ReduceScatter | Kind::ReduceScatterV => circle_profile(layout, 0, spec.ranks - 1),
            _ => circle_profile(layout, spec.ranks - 1, spec.ranks - 1),
        };
        profile.among_neighbours()
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let association = if spec.op.is_some() { Association::Ring } else { Association::None };
        let mut plan = PlanBuilder::new(spec, DESCRIPTOR.name, association);
        match spec.kind {
            Kind::Barrier => barrier(&mut plan),
            Kind::Broadcast => each_lane(&mut plan, WINDOW, broadcast),
            Kind::AllGather | Kind::AllGatherV => each_lane(&mut plan, WINDOW, all_gather),
            Kind::ReduceScatter | Kind::ReduceScatterV => {
                reduce_scatter_scratch(&mut plan);
                each_lane(&mut plan, WINDOW, reduce_scatter);
            }
            Kind::AllReduce => each_lane(&mut plan, WINDOW, all_reduce),
            _ => unreachable!("supports() refused it"),
        }
        plan.finish()
    }
}

/// What a block passed on `gathers` times and, before, summed up `sums` times costs: from hop to hop it goes round the
/// circle, and the rank at the circle's longest hop sends one each time.
fn circle_profile(layout: &Layout, gathers: u32, sums: u32) -> Profile {
    let p = u64::from(layout.ranks());
    let block = Share::new(1, p);
    let mut rounds = along_circle(layout, gathers + sums, block);
    // Which hops of the way sum matters to nobody.
    let mut left = sums;
    for k in 0..rounds.len() {
        let summing = rounds[k].times.min(left);
        let copying = rounds[k].times - summing;
        left -= summing;
        if summing > 0 && copying > 0 {
            rounds.push(rounds[k].clone().times(copying));
        }
        if summing > 0 {
            rounds[k] = rounds[k].clone().times(summing).reducing(1, p);
        }
    }
    let busiest = one_port(longest_hop(layout), gathers + sums, (1, p));
    Profile::of(rounds).busiest(busiest).chunked(1, p).split()
}

/// The ring of a team: the same, step by step.
pub(crate) struct TeamRing;

impl Family for TeamRing {
    fn name(&self) -> &'static str {
        DESCRIPTOR.name
    }

    fn messages(&self, members: u32) -> u32 {
        members - 1
    }

    fn reduce_scatter(&self, schedule: &mut Schedule<'_>, team: &Team) {
        for step in 1..team.len() as isize {
            schedule.exchange_reduce(
                (&team.blocks([-step]), team.rank(1)),
                (&team.blocks([-step - 1]), team.rank(-1)),
            );
        }
    }

    fn all_gather(&self, schedule: &mut Schedule<'_>, team: &Team) {
        for step in 0..team.len() as isize - 1 {
            schedule.round();
            schedule
                .exchange((&team.blocks([-step]), team.rank(1)), (&team.blocks([-step - 1]), team.rank(-1)));
        }
    }
}

/// The circle as one rank sees it, for one lane.
struct Circle {
    spec: Spec,
    lane: u8,
}

impl Circle {
    fn new(plan: &PlanBuilder, lane: u8) -> Self {
        Circle { spec: *plan.spec(), lane }
    }

    fn ranks(&self) -> i32 {
        signed(self.spec.ranks)
    }

    /// Block `r + by` on the circle.
    fn block(&self, by: i32) -> Index {
        Index::on_circle(signed(self.spec.rank) + by, self.spec.ranks)
    }

    /// The rank `by` further.
    fn rank(&self, by: i32) -> Index {
        self.block(by)
    }

    fn next(&self) -> Peers {
        Peers::one(self.rank(1))
    }

    fn previous_then_me(&self) -> Peers {
        Peers::List(vec![self.rank(-1), self.rank(0)])
    }

    /// The lane's share of a block of a buffer, all chunks.
    fn share(&self, buffer: Buffer, index: Index) -> Shape {
        share(block(&self.spec, buffer, index), &self.spec, self.lane)
    }

    /// The inner loop's chunk of it.
    fn chunk(&self, buffer: Buffer, block: Index) -> Shape {
        self.share(buffer, block).chunk(self.spec.chunk_elements(), Index::INNER)
    }

    /// One turn for each chunk of the longest block, which all ranks know: of a shorter one, the last are empty.
    fn chunks(&self, buffer: Buffer) -> Trips {
        let shape = self.share(buffer, Index::fixed(0));
        Trips::Chunks { shape, elements: self.spec.chunk_elements() }
    }
}

/// "After turn `outer` of that step, same chunk."
fn after_turn(plan: &mut PlanBuilder, step: StepId, other: StepId, outer: Index) {
    plan.after_turn(step, other, outer, Index::INNER);
}

fn all_reduce(plan: &mut PlanBuilder, lane: u8) {
    let circle = Circle::new(plan, lane);
    let n = circle.ranks();
    if n == 1 {
        return keep_own(plan, lane, Shape::whole(Buffer::Output));
    }
    // First turn of the reduce-scatter: the only one that sends what this rank brought.
    let chunks = circle.chunks(Buffer::Output);
    plan.repeat(Trips::ONCE, chunks.clone());
    let first_send = plan.send(circle.chunk(Buffer::Input, circle.block(-1)), circle.next());
    let first_sum = reduce_block(plan, &circle, circle.block(-2));
    // The others pass on what they summed the turn before.
    plan.repeat(Trips::Fixed(n as u32 - 2), chunks.clone());
    let send = plan.send(circle.chunk(Buffer::Output, circle.block(-2).per_outer(-1)), circle.next());
    let sum = reduce_block(plan, &circle, circle.block(-3).per_outer(-1));
    after_turn(plan, send, first_sum, Index::OUTER);
    after_turn(plan, send, sum, Index::OUTER.plus(-1));
    // All-gather.
    plan.repeat(Trips::Fixed(n as u32 - 1), chunks);
    let give = plan.send(circle.chunk(Buffer::Output, circle.block(0).per_outer(-1)), circle.next());
    let take = plan.receive(circle.chunk(Buffer::Output, circle.block(-1).per_outer(-1)), circle.rank(-1));
    after_turn(plan, give, take, Index::OUTER.plus(-1));
    // Turn 0 gives the block that the last sum finished: turns other than 0 point beyond the end.
    let last_sum = if n == 2 { first_sum } else { sum };
    after_turn(plan, give, last_sum, Index::fixed((n - 3).max(0)).per_outer(n));
    // A block is overwritten once its partial sum has been sent.
    after_turn(plan, take, send, Index::OUTER.plus(-1));
    if circle.spec.in_place {
        after_turn(plan, take, first_send, Index::OUTER);
    }
}

fn reduce_block(plan: &mut PlanBuilder, circle: &Circle, block: Index) -> StepId {
    let (own, into) = (circle.chunk(Buffer::Input, block), circle.chunk(Buffer::Output, block));
    plan.receive_reduce(circle.previous_then_me(), own, into)
}

fn all_gather(plan: &mut PlanBuilder, lane: u8) {
    let circle = Circle::new(plan, lane);
    let n = circle.ranks();
    keep_own(plan, lane, block(&circle.spec, Buffer::Output, circle.block(0)));
    if n == 1 {
        return;
    }
    let chunks = circle.chunks(Buffer::Output);
    plan.repeat(Trips::ONCE, chunks.clone());
    let own = share(Shape::whole(Buffer::Input), &circle.spec, lane);
    plan.send(own.chunk(circle.spec.chunk_elements(), Index::INNER), circle.next());
    let first = plan.receive(circle.chunk(Buffer::Output, circle.block(-1)), circle.rank(-1));
    plan.repeat(Trips::Fixed(n as u32 - 2), chunks);
    let give = plan.send(circle.chunk(Buffer::Output, circle.block(-1).per_outer(-1)), circle.next());
    let take = plan.receive(circle.chunk(Buffer::Output, circle.block(-2).per_outer(-1)), circle.rank(-1));
    after_turn(plan, give, first, Index::OUTER);
    after_turn(plan, give, take, Index::OUTER.plus(-1));
}

/// Partial sums may not touch the input: two blocks of scratch, one being filled while the other is sent. Each lane has
/// its own: its shares of two blocks that differ in length would overlap another's.
fn reduce_scatter_scratch(plan: &mut PlanBuilder) {
    let spec = *plan.spec();
    if spec.ranks > 2 {
        let shape = share(block(&spec, Buffer::Input, Index::fixed(0)), &spec, 0);
        plan.scratch(2 * u32::from(spec.choice.lanes.max(1)), shape);
    }
}

fn reduce_scatter(plan: &mut PlanBuilder, lane: u8) {
    let circle = Circle::new(plan, lane);
    let n = circle.ranks();
    if n == 1 {
        return keep_own(plan, lane, Shape::whole(Buffer::Output));
    }
    let elements = circle.spec.chunk_elements();
    let chunks = circle.chunks(Buffer::Input);
    let output = || share(Shape::whole(Buffer::Output), &circle.spec, lane).chunk(elements, Index::INNER);
    // A block's partial sum, in one of the lane's slots.
    let partial = |slot: Index, index: Index| {
        let (slot, shape) = (slot.from(2 * i32::from(lane), 0), circle.share(Buffer::Input, index));
        Slice::Scratch { slot, shape, part: vec![Cut::Chunk { elements, index: Index::INNER }] }
    };
    let sum = |plan: &mut PlanBuilder, block: Index, into: Slice| {
        plan.receive_reduce(circle.previous_then_me(), circle.chunk(Buffer::Input, block), into)
    };
    plan.repeat(Trips::ONCE, chunks.clone());
    plan.send(circle.chunk(Buffer::Input, circle.block(-1)), circle.next());
    if n == 2 {
        sum(plan, circle.block(0), output().into());
        return;
    }
    let first_sum = sum(plan, circle.block(-2), partial(Index::fixed(0), circle.block(-2)));
    // Turn o sends what lies in slot o mod 2 and sums into the other one.
    plan.repeat(Trips::Fixed(n as u32 - 3), chunks.clone());
    let (held, summed) = (circle.block(-2).per_outer(-1), circle.block(-3).per_outer(-1));
    let pass = plan.send(partial(Index::on_circle(0, 2).per_outer(1), held), circle.next());
    let next_sum = sum(plan, summed, partial(Index::on_circle(1, 2).per_outer(1), summed));
    after_turn(plan, pass, first_sum, Index::OUTER);
    after_turn(plan, pass, next_sum, Index::OUTER.plus(-1));
    after_turn(plan, next_sum, pass, Index::OUTER.plus(-1));
    // The last turn sums into the output.
    plan.repeat(Trips::ONCE, chunks);
    let last = plan.send(partial(Index::on_circle(n - 3, 2), circle.block(1)), circle.next());
    let before = if n == 3 { first_sum } else { next_sum };
    after_turn(plan, last, before, Index::fixed((n - 4).max(0)));
    sum(plan, circle.block(0), output().into());
}

fn broadcast(plan: &mut PlanBuilder, lane: u8) {
    let circle = Circle::new(plan, lane);
    let spec = circle.spec;
    let root = root_of(&spec);
    let chunk =
        |buffer: Buffer| share(Shape::whole(buffer), &spec, lane).chunk(spec.chunk_elements(), Index::OUTER);
    if spec.rank == root {
        keep_own(plan, lane, Shape::whole(Buffer::Output));
    }
    let shape = share(Shape::whole(Buffer::Output), &spec, lane);
    plan.repeat(Trips::Chunks { shape, elements: spec.chunk_elements() }, Trips::ONCE);
    let is_last = (spec.rank + 1) % spec.ranks == root;
    if spec.rank == root {
        if !is_last {
            plan.send(chunk(Buffer::Input), circle.next());
        }
        return;
    }
    let take = plan.receive(chunk(Buffer::Output), circle.rank(-1));
    if !is_last {
        let give = plan.send(chunk(Buffer::Output), circle.next());
        plan.after(give, take);
    }
}

fn barrier(plan: &mut PlanBuilder) {
    plan.lane(WINDOW);
    let circle = Circle::new(plan, 0);
    plan.repeat(Trips::Fixed(circle.spec.ranks - 1), Trips::ONCE);
    let give = plan.send(Slice::Empty, circle.next());
    let take = plan.receive(Slice::Empty, circle.rank(-1));
    after_turn(plan, give, take, Index::OUTER.plus(-1));
}
