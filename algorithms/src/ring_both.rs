//! Two-directional ring: half of every block goes round one way, the other half the other way.
//!
//! ```text
//! two strands, direction s = +1 and -1; the vector cut into p blocks, a strand has half of each. In each, rank r of p:
//!   all-reduce:      for i in 0..p-1:  send block r-s·(1+i) to r+s;  block r-s·(2+i) += what r-s sends
//!                    for j in 0..p-1:  send block r-s·j to r+s;      block r-s·(1+j)  = what r-s sends
//!   reduce-scatter:  the first loop;  all-gather:  the second
//!
//! 4 ranks, who holds the partial sum of which block before step i, + and -:
//!   i    rank 0    rank 1    rank 2    rank 3
//!   0    3+ 1-     0+ 2-     1+ 3-     2+ 0-       each its own contribution
//!   1    2+ 2-     3+ 3-     0+ 0-     1+ 1-       two ranks summed
//!   2    1+ 3-     2+ 0-     3+ 1-     0+ 2-       three
//!   end  0         1         2         3           all four: block r ends on rank r
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | all-reduce | 2(p−1) | 2(p−1)/p·n, half of it to each neighbour | (p−1)/p·n |
//! | reduce-scatter, all-gather | p−1 | (p−1)/p·n, half of it to each neighbour | (p−1)/p·n, none |
//!
//! Where links between neighbours are two, one each way round, each is used in both directions: half the time of `ring`.
//! On one lane the strands take turns, from two on each has half of the lanes (of an odd number, one is left out).
//!
//! Source: the bidirectional ring of tori, E. Chan, M. Heimlich, A. Purkayastha and R. van de Geijn, CCPE 19 (2007).

use crate::rounds::{copy_only, own_copy};
use crate::share::{each_lane, keep_own, refuse, signed};
use ubccl_core::plan::{
    Association, Buffer, Cut, Index, Peers, Plan, PlanBuilder, Shape, Slice, StepId, Trips,
};
use ubccl_core::profile::Round;
use ubccl_core::{Algorithm, AlgorithmDescriptor, Kind, Layout, Profile, Result, Spec};

/// The ring both ways round.
pub static RING_BOTH: RingBoth = RingBoth;

/// See the module.
#[derive(Debug)]
pub struct RingBoth;

static DESCRIPTOR: AlgorithmDescriptor = AlgorithmDescriptor {
    name: "ring-both",
    summary: "neighbours only, half of the data each way round; least bytes, most steps",
    source: "Chan, Heimlich, Purkayastha and van de Geijn, CCPE 19 (2007)",
};

const WINDOW: u32 = 64;

impl Algorithm for RingBoth {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        &DESCRIPTOR
    }

    fn supports(&self, kind: Kind, _ranks: u32) -> Result<()> {
        match kind {
            Kind::AllReduce | Kind::ReduceScatter | Kind::AllGather => Ok(()),
            _ => refuse(DESCRIPTOR.name, kind, "it goes round for all-reduce, reduce-scatter and all-gather"),
        }
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        let (ranks, of) = (spec.ranks, u64::from(spec.ranks));
        let others = |rank: u32| [((rank + 1) % ranks, 1), ((rank + ranks - 1) % ranks, 1)];
        let levels = |rank: &u32| {
            let [a, b] = others(*rank).map(|(peer, _)| layout.shared_level(*rank, peer));
            (a.max(b), a.min(b))
        };
        if ranks == 1 {
            return copy_only(spec, 1, 1);
        }
        // Both strands wait for each other at every rank, so each hop takes as long as the longest of the circle; the other
        // strand's message may be on the same port.
        let busiest = (0..ranks).max_by_key(levels).unwrap_or(0);
        let port = Round::with_peers(layout, busiest, others(busiest), 2 * of).alone();
        let around = || port.clone().times(ranks - 1);
        let mut rounds: Vec<Round> = Vec::new();
        if spec.op.is_some() {
            rounds.push(around().reducing(1, of));
        }
        if spec.kind != Kind::ReduceScatter {
            rounds.push(around());
        }
        let times = rounds.iter().map(|round| round.times).sum::<u32>();
        let mut port = port.traffic;
        for part in &mut port {
            part.messages *= times;
            part.share.parts *= u64::from(times);
        }
        if spec.kind == Kind::AllGather {
            rounds.extend(own_copy(spec, 1, of));
        }
        Profile::of(rounds).busiest(port).chunked(1, 2 * of).split().among_neighbours()
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let association = if spec.op.is_some() { Association::Own } else { Association::None };
        let mut plan = PlanBuilder::new(spec, DESCRIPTOR.name, association);
        if spec.ranks == 1 {
            each_lane(&mut plan, WINDOW, |plan, lane| {
                keep_own(plan, lane, Shape::whole(Buffer::Output));
            });
            return plan.finish();
        }
        let strands = strands(spec);
        if spec.kind == Kind::ReduceScatter && spec.ranks > 2 {
            plan.scratch(2 * strands.len() as u32, strands[0].part(Buffer::Input, Index::fixed(0)));
        }
        let fill = match spec.kind {
            Kind::AllReduce => all_reduce,
            Kind::ReduceScatter => reduce_scatter,
            _ => all_gather,
        };
        let on_lane = if spec.choice.lanes > 1 { 1 } else { 2 };
        for strands in strands.chunks(on_lane) {
            plan.lane(WINDOW);
            fill(&mut plan, strands);
        }
        plan.finish()
    }
}

/// A share of each block that goes one way round.
struct Strand {
    spec: Spec,
    number: u32,
    strands: u32,
}

fn strands(spec: &Spec) -> Vec<Strand> {
    let strands = (u32::from(spec.choice.lanes) / 2 * 2).max(2);
    (0..strands).map(|number| Strand { spec: *spec, number, strands }).collect()
}

impl Strand {
    /// +1 or −1.
    fn direction(&self) -> i32 {
        1 - 2 * signed(self.number % 2)
    }

    /// The rank, or the block, that is `by` further this way.
    fn at(&self, by: i32) -> Index {
        Index::on_circle(signed(self.spec.rank) + self.direction() * by, self.spec.ranks)
    }

    /// The same, one less with each turn of the outer loop.
    fn turning(&self, by: i32) -> Index {
        self.at(by).per_outer(-self.direction())
    }

    fn next(&self) -> Peers {
        Peers::one(self.at(1))
    }

    /// This strand's share of a range.
    fn of(&self, shape: Shape) -> Shape {
        shape.even(self.strands, Index::fixed(signed(self.number)))
    }

    fn part(&self, buffer: Buffer, block: Index) -> Shape {
        self.of(Shape::whole(buffer).even(self.spec.ranks, block))
    }

    fn chunked(&self, shape: Shape) -> Shape {
        shape.chunk(self.spec.chunk_elements(), Index::INNER)
    }

    fn chunk(&self, buffer: Buffer, block: Index) -> Shape {
        self.chunked(self.part(buffer, block))
    }

    fn reduce(&self, plan: &mut PlanBuilder, block: Index, into: impl Into<Slice>) -> StepId {
        let sources = Peers::List(vec![self.at(-1), self.at(0)]);
        plan.receive_reduce(sources, self.chunk(Buffer::Input, block), into)
    }

    /// A block's partial sum, in one of the strand's two slots.
    fn partial(&self, slot: Index, block: Index) -> Slice {
        let part = vec![Cut::Chunk { elements: self.spec.chunk_elements(), index: Index::INNER }];
        let slot = slot.from(2 * signed(self.number), 0);
        Slice::Scratch { slot, shape: self.part(Buffer::Input, block), part }
    }
}

/// A loop of so many turns by one for each chunk of the longest block; all strands have as many.
fn turns(plan: &mut PlanBuilder, strands: &[Strand], outer: u32) {
    let [first, ..] = strands else { return };
    let buffer = if first.spec.kind == Kind::ReduceScatter { Buffer::Input } else { Buffer::Output };
    let longest = Shape::whole(buffer).even(first.spec.ranks, Index::fixed(0));
    let shape = longest.even(first.strands, Index::fixed(0));
    plan.repeat(Trips::Fixed(outer), Trips::Chunks { shape, elements: first.spec.chunk_elements() });
}

/// "After turn `outer` of that step, same chunk."
fn after(plan: &mut PlanBuilder, step: StepId, other: StepId, outer: Index) {
    plan.after_turn(step, other, outer, Index::INNER);
}

fn all_reduce(plan: &mut PlanBuilder, strands: &[Strand]) {
    let ranks = strands[0].spec.ranks;
    // What this rank brought.
    turns(plan, strands, 1);
    let first = strands.iter().map(|strand| {
        let send = plan.send(strand.chunk(Buffer::Input, strand.at(-1)), strand.next());
        [send, strand.reduce(plan, strand.at(-2), strand.chunk(Buffer::Output, strand.at(-2)))]
    });
    let first: Vec<_> = first.collect();
    // What was summed the turn before.
    turns(plan, strands, ranks - 2);
    let mut passed = Vec::new();
    for (strand, [_, first_sum]) in strands.iter().zip(&first) {
        let summed = strand.turning(-3);
        let send = plan.send(strand.chunk(Buffer::Output, strand.turning(-2)), strand.next());
        let sum = strand.reduce(plan, summed, strand.chunk(Buffer::Output, summed));
        after(plan, send, *first_sum, Index::OUTER);
        after(plan, send, sum, Index::OUTER.plus(-1));
        passed.push([send, sum]);
    }
    turns(plan, strands, ranks - 1);
    for (strand, ([first_send, first_sum], [send, sum])) in strands.iter().zip(first.into_iter().zip(passed))
    {
        let give = plan.send(strand.chunk(Buffer::Output, strand.turning(0)), strand.next());
        let take = plan.receive(strand.chunk(Buffer::Output, strand.turning(-1)), strand.at(-1));
        after(plan, give, take, Index::OUTER.plus(-1));
        // Turn 0 gives the block that the last sum finished: turns other than 0 point beyond the end.
        let last_sum = if ranks == 2 { first_sum } else { sum };
        after(plan, give, last_sum, Index::fixed((signed(ranks) - 3).max(0)).per_outer(signed(ranks)));
        // A block is overwritten once its partial sum has been sent.
        after(plan, take, send, Index::OUTER.plus(-1));
        if strand.spec.in_place {
            after(plan, take, first_send, Index::OUTER);
        }
    }
}

fn all_gather(plan: &mut PlanBuilder, strands: &[Strand]) {
    let spec = strands[0].spec;
    if !spec.in_place {
        plan.straight();
        for strand in strands {
            plan.copy(strand.of(Shape::whole(Buffer::Input)), strand.part(Buffer::Output, strand.at(0)));
        }
    }
    turns(plan, strands, 1);
    let first = strands.iter().map(|strand| {
        plan.send(strand.chunked(strand.of(Shape::whole(Buffer::Input))), strand.next());
        plan.receive(strand.chunk(Buffer::Output, strand.at(-1)), strand.at(-1))
    });
    let first: Vec<_> = first.collect();
    turns(plan, strands, spec.ranks - 2);
    for (strand, first) in strands.iter().zip(first) {
        let give = plan.send(strand.chunk(Buffer::Output, strand.turning(-1)), strand.next());
        let take = plan.receive(strand.chunk(Buffer::Output, strand.turning(-2)), strand.at(-1));
        after(plan, give, first, Index::OUTER);
        after(plan, give, take, Index::OUTER.plus(-1));
    }
}

fn reduce_scatter(plan: &mut PlanBuilder, strands: &[Strand]) {
    let ranks = strands[0].spec.ranks;
    let output = |strand: &Strand| strand.chunked(strand.of(Shape::whole(Buffer::Output)));
    turns(plan, strands, 1);
    let mut before = Vec::new();
    for strand in strands {
        plan.send(strand.chunk(Buffer::Input, strand.at(-1)), strand.next());
        let block = strand.at(-2);
        let into = if ranks == 2 { output(strand).into() } else { strand.partial(Index::fixed(0), block) };
        before.push(strand.reduce(plan, block, into));
    }
    if ranks == 2 {
        return;
    }
    // Turn o sends what lies in slot o mod 2 and sums into the other one.
    turns(plan, strands, ranks - 3);
    for (strand, first_sum) in strands.iter().zip(&mut before) {
        let (held, summed) = (strand.turning(-2), strand.turning(-3));
        let pass = plan.send(strand.partial(Index::on_circle(0, 2).per_outer(1), held), strand.next());
        let into = strand.partial(Index::on_circle(1, 2).per_outer(1), summed);
        let sum = strand.reduce(plan, summed, into);
        after(plan, pass, *first_sum, Index::OUTER);
        after(plan, pass, sum, Index::OUTER.plus(-1));
        after(plan, sum, pass, Index::OUTER.plus(-1));
        if ranks > 3 {
            *first_sum = sum;
        }
    }
    // The last turn sums into the output.
    turns(plan, strands, 1);
    for (strand, summed) in strands.iter().zip(before) {
        let held = strand.partial(Index::on_circle(signed(ranks) - 3, 2), strand.at(1));
        let last = plan.send(held, strand.next());
        after(plan, last, summed, Index::fixed((signed(ranks) - 4).max(0)));
        strand.reduce(plan, strand.at(0), output(strand));
    }
}
