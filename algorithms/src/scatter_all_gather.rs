//! Scatter and all-gather: a broadcast of long vectors in which nobody sends the whole vector twice.
//!
//! ```text
//! broadcast, v = the rank's distance from the root, the vector cut into p blocks:
//!   scatter:     receive blocks v .. v+w from v-w, w = v's lowest bit;  send blocks v+d .. v+2d to v+d, for d = w/2, …, 2, 1
//!   all-gather:  for i in 0..p-1:  send block v-i to v+1;  block v-i-1 = what v-1 sends   (the root receives nothing)
//!
//! 4 ranks, root 0, what each holds:   rank 0     rank 1     rank 2     rank 3
//!   at first                          0 1 2 3
//!   d = 2                             0 1 2 3               2 3
//!   d = 1                             0 1 2 3    1          2 3        3
//!   i = 0, 1, 2                       0 1 2 3    + 0 3 2    + 1 0      + 2 1 0
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | broadcast | p−1, pipelined by chunks: the ring does not wait for the scatter | 2(p−1)/p·n from the root, at most 3/2·n from others | none |
//!
//! In compositions, and of `nhr`, `nb` and `halving-doubling`, the same scatter stands before an all-gather of another
//! family, which takes ⌈log2 p⌉ steps; and a reduction goes the other way: a reduce-scatter, then a gather to the root
//! (Rabenseifner's reduce). Each takes at most twice ⌈log2 p⌉ steps: the last subtree, which may lack ranks, is ready
//! earlier, and the root waits for nobody.
//!
//! Source: M. Barnett, R. Littlefield, D. Payne and R. van de Geijn, "Global combine on mesh architectures with wormhole
//! routing" (1993), and R. Thakur, R. Rabenseifner and W. Gropp, IJHPCA 19 (2005). We differ in sending the root nothing.

use crate::rounds::{along_circle, copy_only, longest_hop, one_port, own_copy};
use crate::schedule::Schedule;
use crate::share::{each_lane, keep_own, refuse, root_of, share, signed};
use crate::team::Team;
use std::ops::Range;
use ubccl_core::plan::{Association, Buffer, Index, Peers, Plan, PlanBuilder, Shape, StepId, Trips};
use ubccl_core::profile::{Round, Share};
use ubccl_core::{Algorithm, AlgorithmDescriptor, Kind, Layout, Profile, Result, Spec};

/// Binomial scatter, then all-gather round the ring.
pub static SCATTER_RING: ScatterRing = ScatterRing;

/// See the module.
#[derive(Debug)]
pub struct ScatterRing;

static DESCRIPTOR: AlgorithmDescriptor = AlgorithmDescriptor {
    name: "scatter-ring",
    summary: "scatter down a tree, then all-gather round a ring; for long vectors",
    source: "van de Geijn; Thakur, Rabenseifner and Gropp, IJHPCA 19 (2005)",
};

const WINDOW: u32 = 64;

impl Algorithm for ScatterRing {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        &DESCRIPTOR
    }

    fn supports(&self, kind: Kind, _ranks: u32) -> Result<()> {
        match kind {
            Kind::Broadcast => Ok(()),
            _ => refuse(DESCRIPTOR.name, kind, "it is a broadcast; of the others, use ring or nhr"),
        }
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        let of = u64::from(spec.ranks);
        if spec.ranks == 1 {
            return copy_only(spec, 1, 1);
        }
        let root = Way { spec: Spec { rank: root_of(spec), ..*spec }, place: 0 };
        let children = root.children();
        let message = |child: u32, parts: u64| {
            Round::message(layout, (root.at(0), root.at(child)), Share::new(parts, of)).by(1)
        };
        let scattered = |&child: &u32| message(child, root.subtree(child).len() as u64);
        // The first blocks go round while the scatter still lasts.
        let mut rounds: Vec<Round> = children.iter().map(scattered).collect();
        rounds.iter_mut().skip(1).for_each(|round| round.joins = true);
        rounds.extend(along_circle(layout, spec.ranks - 1 - children.len() as u32, Share::new(1, of)));
        let mut port = Round::default();
        for child in &children {
            let level = layout.shared_level(root.at(0), root.at(*child));
            port.add(level, root.subtree(*child).len() as u64, of);
        }
        let level = layout.shared_level(root.at(0), root.at(1));
        (1..spec.ranks).for_each(|_| port.add_another(level, 1, of));
        rounds.extend(own_copy(spec, 1, 1));
        // The rank at the circle's longest hop has only that to do, but all of it to one other.
        let hop = one_port(longest_hop(layout), spec.ranks - 1, (1, of));
        let also = vec![Profile::of(rounds.clone()).busiest(hop)];
        Profile::of(rounds).busiest(port.traffic).chunked(1, of).split().also(also)
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let mut plan = PlanBuilder::new(spec, DESCRIPTOR.name, Association::None);
        each_lane(&mut plan, WINDOW, broadcast);
        plan.finish()
    }
}

/// The way of the blocks as the rank at `place`, counted from the root, sees it.
struct Way {
    spec: Spec,
    place: u32,
}

impl Way {
    fn new(spec: &Spec) -> Self {
        Way { spec: *spec, place: (spec.rank + spec.ranks - root_of(spec)) % spec.ranks }
    }

    /// The lowest bit; the root's is beyond all.
    fn weight(&self, place: u32) -> u32 {
        if place == 0 { self.spec.ranks.next_power_of_two() } else { place & place.wrapping_neg() }
    }

    fn subtree(&self, place: u32) -> Range<u32> {
        place..(place + self.weight(place)).min(self.spec.ranks)
    }

    /// The children's places, the largest subtree's first.
    fn children(&self) -> Vec<u32> {
        let top = self.weight(self.place).ilog2();
        let at = |bit: u32| self.place + (1 << bit);
        (0..top).rev().map(at).filter(|&place| place < self.spec.ranks).collect()
    }

    /// The rank at a place.
    fn at(&self, place: u32) -> u32 {
        (root_of(&self.spec) + place) % self.spec.ranks
    }

    fn rank(&self, place: u32) -> Index {
        Index::fixed(signed(self.at(place)))
    }

    /// The lane's share of the blocks of some places.
    fn blocks(&self, buffer: Buffer, lane: u8, places: Range<u32>) -> Shape {
        let first = Index::fixed(signed(places.start));
        share(Shape::whole(buffer), &self.spec, lane).span(self.spec.ranks, first, places.len() as u32)
    }
}

fn broadcast(plan: &mut PlanBuilder, lane: u8) {
    let way = Way::new(plan.spec());
    if way.place == 0 {
        scatter_blocks(plan, &way, lane, Buffer::Input);
        if way.spec.ranks > 1 {
            around(plan, &way, lane, None);
        }
        return keep_own(plan, lane, Shape::whole(Buffer::Output));
    }
    let here = scatter_blocks(plan, &way, lane, Buffer::Output);
    around(plan, &way, lane, Some(&here));
}

/// Answers the step that brought this rank's blocks, if it is not the root, and those that gave some away.
fn scatter_blocks(plan: &mut PlanBuilder, way: &Way, lane: u8, from: Buffer) -> Vec<StepId> {
    plan.straight();
    let mut steps = Vec::new();
    if way.place > 0 {
        let parent = way.rank(way.place - way.weight(way.place));
        steps.push(plan.receive(way.blocks(from, lane, way.subtree(way.place)), parent));
    }
    for child in way.children() {
        let give = plan.send(way.blocks(from, lane, way.subtree(child)), Peers::one(way.rank(child)));
        if way.place > 0 {
            plan.after(give, steps[0]);
        }
        steps.push(give);
    }
    steps
}

/// The all-gather. `before` are the steps of the scatter of a rank that is not the root: what they brought and gave is
/// written once more.
fn around(plan: &mut PlanBuilder, way: &Way, lane: u8, before: Option<&[StepId]>) {
    let (ranks, elements) = (way.spec.ranks, way.spec.chunk_elements());
    let whole = |buffer| share(Shape::whole(buffer), &way.spec, lane);
    let shape = whole(Buffer::Output).even(ranks, Index::fixed(0));
    plan.repeat(Trips::Fixed(ranks - 1), Trips::Chunks { shape, elements });
    let block = |buffer, by: i32| {
        let index = Index::on_circle(signed(way.place) + by, ranks).per_outer(-1);
        whole(buffer).even(ranks, index).chunk(elements, Index::INNER)
    };
    let next = Peers::one(way.rank(way.place + 1));
    let Some(before) = before else {
        plan.send(block(Buffer::Input, 0), next);
        return;
    };
    let mut first = Vec::new();
    let give = (way.place + 1 < ranks).then(|| plan.send(block(Buffer::Output, 0), next));
    let take = plan.receive(block(Buffer::Output, -1), way.rank(way.place - 1));
    if let Some(give) = give {
        plan.after_turn(give, take, Index::OUTER.plus(-1), Index::INNER);
        first.push(give);
    }
    first.push(take);
    let zero = Index::fixed(0);
    for step in first {
        before.iter().for_each(|&earlier| plan.after_turn(step, earlier, zero, zero));
    }
}

/// Who holds what while a team's blocks are brought from one member to all, or back.
struct Spread<'a> {
    team: &'a Team,
    /// The member where all begins, then the others that have blocks, in the order of these, from there round.
    order: Vec<usize>,
}

impl<'a> Spread<'a> {
    fn new(team: &'a Team, root: usize) -> Self {
        let start = |member: &usize| team.blocks[*member].first().map(|block| block.start);
        let has_some = |member: &usize| team.blocks[*member].iter().any(|block| !block.is_empty());
        let mut order: Vec<usize> = (0..team.len()).filter(has_some).collect();
        order.sort_unstable_by_key(start);
        match order.iter().position(|&member| member == root) {
            Some(first) => order.rotate_left(first),
            None => order.insert(0, root),
        }
        Spread { team, order }
    }

    fn place(&self) -> Option<usize> {
        self.order.iter().position(|&member| member == self.team.me)
    }

    fn weight(&self, place: usize) -> usize {
        if place == 0 { self.order.len().next_power_of_two() } else { place & place.wrapping_neg() }
    }

    /// The children of a place and their rounds of a gather, the last subtree's first.
    fn children(&self, place: usize) -> Vec<(usize, usize)> {
        let top = self.weight(place).ilog2() as usize;
        let places = (0..top).rev().map(|bit| place + (1 << bit)).filter(|&child| child < self.order.len());
        places.map(|child| (child, steps(self.weight(child).min(self.order.len() - child)))).collect()
    }

    fn blocks(&self, place: usize) -> Vec<Range<u32>> {
        let end = (place + self.weight(place)).min(self.order.len());
        self.order[place..end].iter().flat_map(|&member| self.team.blocks[member].iter().cloned()).collect()
    }

    fn rank(&self, place: usize) -> u32 {
        self.team.ranks[self.order[place]]
    }
}

/// How many messages of a scatter to so many hang on one another, or of a gather: what the last subtree lacks, it need not
/// wait for.
pub(crate) fn steps(holders: usize) -> usize {
    let Some(top) = holders.saturating_sub(1).checked_ilog2() else { return 0 };
    (top as usize).max(1 + steps(holders - (1 << top)))
}

/// Brings each member of a team its blocks from the one that has all. The first messages are part of round `first`.
pub(crate) fn scatter(schedule: &mut Schedule<'_>, team: &Team, root: usize, first: usize) {
    let spread = Spread::new(team, root);
    let Some(place) = spread.place() else { return };
    if place > 0 {
        schedule.receive(&spread.blocks(place), spread.rank(place - spread.weight(place)));
    }
    let end = first + steps(spread.order.len());
    for (child, step) in spread.children(place) {
        schedule.begin_round(end - 1 - step);
        schedule.send(&spread.blocks(child), &[spread.rank(child)]);
    }
}

/// Brings one member of a team the blocks of all. The first messages are part of round `first`.
pub(crate) fn gather(schedule: &mut Schedule<'_>, team: &Team, root: usize, first: usize) {
    let spread = Spread::new(team, root);
    let Some(place) = spread.place() else { return };
    for (child, step) in spread.children(place).into_iter().rev() {
        schedule.begin_round(first + step);
        schedule.receive(&spread.blocks(child), spread.rank(child));
    }
    if place > 0 {
        schedule.send(&spread.blocks(place), &[spread.rank(place - spread.weight(place))]);
    }
}
