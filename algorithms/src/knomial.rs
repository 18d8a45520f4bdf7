//! Trees: a rank talks to its parent and its children only, in about log n steps.
//!
//! ```text
//! k-nomial tree, v = the rank's distance from the root, a number of digits to base k:
//!   w(v)     = the weight (1, k, k², …) of v's lowest digit that is not 0; of the root's, the first that is no less than n
//!   parent   = v without that digit
//!   children = v + j·w, for w = 1, k, k², … below w(v) and j in 1..k, as far as they are below n
//!   subtree  = v .. v + w(v): neighbours
//!
//! broadcast:   receive x from the parent;  send it to all children, the largest subtree's first
//! reduce:      y = x;  for w = 1, k, k², …:  y = y + what v+w, v+2w, … send, rounded once;  send y to the parent
//! all-reduce:  reduce to rank 0, then broadcast
//! gather:      receive the children's subtrees beside the own block;  send the whole subtree to the parent
//! scatter:     receive the subtree from the parent;  send its parts to the children, the largest first
//! barrier:     for w = 1, k, k², …:  tell the ranks w, 2w, … further;  wait for those w, 2w, … before  (no tree)
//!
//! 4 ranks, root 0:    k = 2:  0 ── 2 ── 3        k = 4:  0 ── 1
//!                             └─── 1                     ├─── 2
//!                                                        └─── 3
//! ```
//!
//! | collective | steps, at most | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | broadcast | ⌈log_k p⌉, pipelined by chunks | (k−1)⌈log_k p⌉·n from the root, none from leaves | none |
//! | reduce | ⌈log_k p⌉, pipelined by chunks | n, the root none | (k−1)⌈log_k p⌉·n on the root |
//! | all-reduce | 2⌈log_k p⌉ | both | as reduce |
//! | gather, scatter | ⌈log_k p⌉ | p/2·n/p at most to the parent (k = 2); (p−1)/p·n through the root | none |
//! | barrier | ⌈log_k p⌉ | none | none |
//!
//! Sums follow the tree over ranks counted from the root: `radix` neighbours are reduced to one, then `radix` of these,
//! and so on ([`Association::Tree`]). A gather's inner ranks hold their subtree in scratch. Its blocks are neighbours, but
//! where the ranks wrap round: the one subtree that does goes to the root in two messages. Both keep to one lane: they are
//! for small blocks.
//!
//! Source: the binomial trees of R. Thakur, R. Rabenseifner and W. Gropp, IJHPCA 19 (2005); k-nomial as in MPICH and UCC;
//! barrier by dissemination, D. Hensgen, R. Finkel and U. Manber, IJPP 17 (1988).

use crate::rounds::{copy_only, farthest, own_copy};
use crate::schedule::Schedule;
use crate::share::{each_lane, keep_own, refuse, share, signed};
use crate::team::{Family, Team};
use std::ops::Range;
use ubccl_core::plan::{
    Association, Buffer, Cut, Index, MAX_LISTED_PEERS, Peers, Plan, PlanBuilder, Shape, Slice, StepId, Trips,
};
use ubccl_core::profile::{Round, Share};
use ubccl_core::{Algorithm, AlgorithmDescriptor, Kind, Layout, Profile, Result, Spec};

/// The binomial tree: radix 2.
pub static BINOMIAL: KNomial = KNomial {
    radix: 2,
    descriptor: &AlgorithmDescriptor {
        name: "binomial",
        summary: "a tree of neighbours' neighbours; log2 steps",
        source: "Thakur, Rabenseifner and Gropp, IJHPCA 19 (2005)",
    },
};

/// The flatter tree: radix 4.
pub static KNOMIAL_4: KNomial = KNomial {
    radix: 4,
    descriptor: &AlgorithmDescriptor {
        name: "knomial-4",
        summary: "a tree with up to three children at each level; log4 steps",
        source: "k-nomial trees as in MPICH and UCC",
    },
};

/// See the module.
#[derive(Debug)]
pub struct KNomial {
    radix: u8,
    descriptor: &'static AlgorithmDescriptor,
}

const WINDOW: u32 = 64;
/// Chunks of a partial sum that a rank has under way to its parent.
const SLOTS: u32 = 4;

impl Algorithm for KNomial {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        self.descriptor
    }

    fn supports(&self, kind: Kind, _ranks: u32) -> Result<()> {
        let name = self.descriptor.name;
        match kind {
            Kind::Broadcast | Kind::Reduce | Kind::AllReduce | Kind::Gather | Kind::Scatter => Ok(()),
            Kind::Barrier => Ok(()),
            Kind::GatherV | Kind::ScatterV => {
                refuse(name, kind, "ranks between do not know how long blocks are; use linear")
            }
            _ => refuse(name, kind, "its blocks would gather at one rank"),
        }
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        let tree = Tree::new(&Spec { rank: spec.root.unwrap_or(0), ..*spec }, u32::from(self.radix));
        match spec.kind {
            Kind::Barrier => barrier_profile(layout, u32::from(self.radix)),
            _ if spec.ranks == 1 => copy_only(spec, 1, 1),
            Kind::Gather | Kind::Scatter => {
                let mut profile = Profile::of(rounds(&tree, layout, false));
                profile.rounds.extend(own_copy(spec, 1, u64::from(spec.ranks)));
                profile
            }
            Kind::Broadcast => {
                let mut profile = Profile::of(rounds(&tree, layout, true)).chunked(1, 1).split();
                profile.rounds.extend(own_copy(spec, 1, 1));
                profile
            }
            Kind::Reduce => Profile::of(reducing(rounds(&tree, layout, true))).chunked(1, 1).split(),
            _ => {
                let down = rounds(&tree, layout, true);
                let busiest = down.iter().flat_map(|round| round.traffic.clone()).collect();
                let up = reducing(down.clone());
                let fence = up.len();
                let all = Profile::of(up.into_iter().chain(down).collect()).busiest(busiest);
                all.chunked(1, 1).split().fenced(fence)
            }
        }
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let association = match spec.op {
            Some(_) => Association::Tree { radix: self.radix },
            None => Association::None,
        };
        let mut plan = PlanBuilder::new(spec, self.descriptor.name, association);
        let tree = Tree::new(spec, u32::from(self.radix));
        match spec.kind {
            Kind::Broadcast => each_lane(&mut plan, WINDOW, |plan, lane| broadcast(plan, &tree, lane)),
            Kind::Reduce => {
                reduce_scratch(&mut plan, &tree);
                each_lane(&mut plan, WINDOW, |plan, lane| reduce(plan, &tree, lane));
            }
            Kind::AllReduce => each_lane(&mut plan, WINDOW, |plan, lane| all_reduce(plan, &tree, lane)),
            Kind::Gather => gather(&mut plan, &tree),
            Kind::Scatter => scatter(&mut plan, &tree),
            Kind::Barrier => barrier(&mut plan, u32::from(self.radix)),
            _ => unreachable!("supports() refused it"),
        }
        plan.finish()
    }
}

/// The binomial tree of a team: the first member ends with everything, then gives it back.
pub(crate) struct TeamTree;

impl Family for TeamTree {
    fn name(&self) -> &'static str {
        BINOMIAL.descriptor.name
    }

    fn shares(&self, members: u32) -> (u32, Vec<Range<u32>>) {
        (1, (0..members).map(|member| 0..u32::from(member == 0)).collect())
    }

    fn refuses_blocks(&self, _ranks: u32) -> Option<&'static str> {
        Some("a tree brings everything to one rank, and every rank has a block")
    }

    fn reduce_scatter(&self, schedule: &mut Schedule<'_>, team: &Team) {
        for weight in weights(team) {
            schedule.round();
            if team.me & weight != 0 {
                return schedule.send(&team.blocks[0], &[team.ranks[team.me - weight]]);
            }
            if team.me + weight < team.len() {
                schedule.reduce(&team.blocks[0], &[team.ranks[team.me + weight]]);
            }
        }
    }

    fn all_gather(&self, schedule: &mut Schedule<'_>, team: &Team) {
        let own = weights(team).find(|weight| team.me & weight != 0);
        if let Some(weight) = own {
            schedule.round();
            schedule.receive(&team.blocks[0], team.ranks[team.me - weight]);
        }
        let below: Vec<usize> = weights(team).take_while(|&weight| Some(weight) != own).collect();
        for weight in below.into_iter().rev().filter(|weight| team.me + weight < team.len()) {
            schedule.round();
            schedule.send(&team.blocks[0], &[team.ranks[team.me + weight]]);
        }
    }
}

/// 1, 2, 4, … below the number of members.
fn weights(team: &Team) -> impl Iterator<Item = usize> {
    let members = team.len();
    std::iter::successors(Some(1), |weight| Some(2 * weight)).take_while(move |&weight| weight < members)
}

/// The tree as one rank sees it; places are distances from the root.
struct Tree {
    spec: Spec,
    radix: u32,
    place: u32,
    root: u32,
}

impl Tree {
    fn new(spec: &Spec, radix: u32) -> Self {
        let root = spec.root.unwrap_or(0);
        Tree { spec: *spec, radix, place: (spec.rank + spec.ranks - root) % spec.ranks, root }
    }

    fn is_root(&self) -> bool {
        self.place == 0
    }

    fn rank_at(&self, place: u32) -> Index {
        Index::fixed(signed((self.root + place) % self.spec.ranks))
    }

    /// The weight of the lowest digit that is not 0.
    fn weight(&self, place: u32) -> u32 {
        let mut weight = 1;
        while weight < self.spec.ranks && place.is_multiple_of(weight * self.radix) {
            weight *= self.radix;
        }
        weight
    }

    fn parent_place(&self) -> u32 {
        self.place - self.place % (self.weight(self.place) * self.radix)
    }

    fn parent(&self) -> Index {
        self.rank_at(self.parent_place())
    }

    fn subtree(&self, place: u32) -> Range<u32> {
        place..(place + self.weight(place)).min(self.spec.ranks)
    }

    /// The weights at which this rank has children.
    fn levels(&self) -> impl Iterator<Item = u32> + use<> {
        let (top, radix, others) = (self.weight(self.place), self.radix, self.spec.ranks - self.place);
        std::iter::successors(Some(1), move |weight| Some(weight * radix))
            .take_while(move |&weight| weight < top && weight < others)
    }

    /// How many children there are at a weight.
    fn children_at(&self, weight: u32) -> u32 {
        (self.radix - 1).min((self.spec.ranks - self.place - 1) / weight)
    }

    /// The children's places, the nearest and smallest subtree first.
    fn children(&self) -> Vec<u32> {
        let at = |weight| (1..=self.children_at(weight)).map(move |j| self.place + j * weight);
        self.levels().flat_map(at).collect()
    }

    /// All children as lists of peers, the largest subtree's first.
    fn children_as_peers(&self) -> Vec<Peers> {
        let children: Vec<_> = self.children().iter().rev().map(|&place| self.rank_at(place)).collect();
        children.chunks(MAX_LISTED_PEERS).map(|list| Peers::List(list.to_vec())).collect()
    }
}

/// The rounds from the root to the last leaf, whole vectors or subtrees' blocks, as the root sees them: it has a child at
/// each weight, and the subtree of the largest is as deep as there are smaller ones.
fn rounds(tree: &Tree, layout: &Layout, whole: bool) -> Vec<Round> {
    let blocks = Blocks { tree, all: Buffer::Output, own: Buffer::Input };
    let (root, ranks) = (tree.root, tree.spec.ranks);
    let mut rounds: Vec<Round> = Vec::new();
    let weights: Vec<u32> = tree.levels().collect();
    for (k, &weight) in weights.iter().enumerate().rev() {
        // The largest subtree may be a shallow one; then nobody is as far as there are weights.
        let is_shallow = k + 2 == weights.len() && depth(tree) < weights.len();
        let mut round = match is_shallow {
            true => rounds.pop().expect("the largest weight came before"),
            false => Round { times: 1, ..Round::default() },
        };
        // At the weight there are children of `ranks / weight` places, but of those that have a larger weight.
        let children = (ranks - 1) / weight - (ranks - 1) / (weight * tree.radix);
        round = round.by(children.div_ceil(tree.children_at(weight)));
        round.joins = k + 1 < weights.len() && !is_shallow;
        for child in (1..=tree.children_at(weight)).map(|j| j * weight) {
            let level = layout.shared_level(root, (root + child) % ranks);
            match whole {
                true => round.add(level, 1, 1),
                false => {
                    let pieces = blocks.pieces(child, true);
                    for (k, piece) in pieces.iter().enumerate() {
                        let (parts, of) = (piece.len() as u64, u64::from(ranks));
                        if k == 0 { round.add(level, parts, of) } else { round.add_another(level, parts, of) }
                    }
                }
            }
        }
        rounds.push(round);
    }
    rounds
}

/// The most digits that are not 0 in a place: so many steps it is from the root.
fn depth(tree: &Tree) -> usize {
    let digits = |mut place: u32| {
        let mut digits = 0;
        while place > 0 {
            digits += usize::from(!place.is_multiple_of(tree.radix));
            place /= tree.radix;
        }
        digits
    };
    let (mut rest, mut lower) = (tree.spec.ranks - 1, 0);
    let mut most = digits(rest);
    // Of the last place some upper digits, one less by one, and below it no digit that is 0.
    while rest > 0 {
        if !rest.is_multiple_of(tree.radix) {
            most = most.max(digits(rest - 1) + lower);
        }
        rest /= tree.radix;
        lower += 1;
    }
    most
}

/// The same, each message folded in.
fn reducing(mut rounds: Vec<Round>) -> Vec<Round> {
    for round in &mut rounds {
        round.reduced = Share::new(round.traffic.iter().map(|part| u64::from(part.messages)).sum(), 1);
    }
    rounds
}

fn barrier_profile(layout: &Layout, radix: u32) -> Profile {
    let ranks = layout.ranks();
    let weights = std::iter::successors(Some(1), |weight| Some(weight * radix)).take_while(|&w| w < ranks);
    let round = |weight: u32| {
        let mut round = Round { times: 1, ..Round::default() };
        let others = (radix - 1).min((ranks - 1) / weight);
        (1..=others).for_each(|j| round.add(farthest(layout, j * weight), 0, 1));
        round
    };
    Profile::of(weights.map(round).collect())
}

/// One lane's way through the vector, chunk by chunk.
struct Chunks<'a> {
    tree: &'a Tree,
    lane: u8,
}

impl Chunks<'_> {
    fn of(&self, buffer: Buffer) -> Shape {
        let spec = &self.tree.spec;
        share(Shape::whole(buffer), spec, self.lane).chunk(spec.chunk_elements(), Index::INNER)
    }

    /// A slot of scratch for a chunk's partial sum.
    fn slot(&self) -> Slice {
        let first = signed(SLOTS) * i32::from(self.lane);
        let slot = Index::on_circle(0, SLOTS).per_inner(1).from(first, 0);
        Slice::Scratch { slot, shape: self.of(Buffer::Input), part: Vec::new() }
    }

    /// Begins a loop over the chunks of a vector that lies in `buffer`.
    fn begin(&self, plan: &mut PlanBuilder, buffer: Buffer) {
        let spec = &self.tree.spec;
        let shape = share(Shape::whole(buffer), spec, self.lane);
        plan.repeat(Trips::ONCE, Trips::Chunks { shape, elements: spec.chunk_elements() });
    }

    /// Sums this chunk of the subtree into `sum`; answers the first and the last step, if it has children.
    fn sum(&self, plan: &mut PlanBuilder, sum: &Slice) -> Option<(StepId, StepId)> {
        let tree = self.tree;
        let mut steps: Option<(StepId, StepId)> = None;
        for weight in tree.levels() {
            let first = Index::on_circle(signed(tree.spec.rank), tree.spec.ranks);
            let run = Peers::Run { first, stride: signed(weight), count: 1 + tree.children_at(weight) };
            let own = if steps.is_none() { self.of(Buffer::Input).into() } else { sum.clone() };
            let step = plan.receive_reduce(run, own, sum.clone());
            if let Some((_, before)) = steps {
                plan.after(step, before);
            }
            steps = Some((steps.map_or(step, |(first, _)| first), step));
        }
        steps
    }

    /// Sends this chunk to the parent: its sum, or, without children, what this rank brings.
    fn give_up(&self, plan: &mut PlanBuilder, sum: Slice, summed: Option<(StepId, StepId)>) -> StepId {
        let from = if summed.is_some() { sum } else { self.of(Buffer::Input).into() };
        let give = plan.send(from, Peers::one(self.tree.parent()));
        if let Some((_, last)) = summed {
            plan.after(give, last);
        }
        give
    }

    /// Sends this chunk to all children; not before `ready`.
    fn give_down(&self, plan: &mut PlanBuilder, from: Buffer, ready: Option<StepId>) {
        for children in self.tree.children_as_peers() {
            let give = plan.send(self.of(from), children);
            if let Some(ready) = ready {
                plan.after(give, ready);
            }
        }
    }
}

fn broadcast(plan: &mut PlanBuilder, tree: &Tree, lane: u8) {
    let chunks = Chunks { tree, lane };
    chunks.begin(plan, Buffer::Output);
    if tree.is_root() {
        chunks.give_down(plan, Buffer::Input, None);
        return keep_own(plan, lane, Shape::whole(Buffer::Output));
    }
    let take = plan.receive(chunks.of(Buffer::Output), tree.parent());
    chunks.give_down(plan, Buffer::Output, Some(take));
}

/// Ranks between leaves and root have nowhere else for their sums.
fn reduce_scratch(plan: &mut PlanBuilder, tree: &Tree) {
    if !tree.is_root() && !tree.children().is_empty() {
        let lanes = u32::from(tree.spec.choice.lanes.max(1));
        plan.scratch(SLOTS * lanes, Chunks { tree, lane: 0 }.of(Buffer::Input));
    }
}

fn reduce(plan: &mut PlanBuilder, tree: &Tree, lane: u8) {
    if tree.spec.ranks == 1 {
        return keep_own(plan, lane, Shape::whole(Buffer::Output));
    }
    let chunks = Chunks { tree, lane };
    chunks.begin(plan, Buffer::Input);
    if tree.is_root() {
        chunks.sum(plan, &chunks.of(Buffer::Output).into());
        return;
    }
    let summed = chunks.sum(plan, &chunks.slot());
    let give = chunks.give_up(plan, chunks.slot(), summed);
    if let Some((first, _)) = summed {
        plan.after_turn(first, give, Index::OUTER, Index::INNER.plus(-signed(SLOTS)));
    }
}

fn all_reduce(plan: &mut PlanBuilder, tree: &Tree, lane: u8) {
    if tree.spec.ranks == 1 {
        return keep_own(plan, lane, Shape::whole(Buffer::Output));
    }
    let chunks = Chunks { tree, lane };
    let output = || Slice::from(chunks.of(Buffer::Output));
    chunks.begin(plan, Buffer::Output);
    let summed = chunks.sum(plan, &output());
    if tree.is_root() {
        chunks.begin(plan, Buffer::Output);
        return chunks.give_down(plan, Buffer::Output, summed.map(|(_, last)| last));
    }
    let give = chunks.give_up(plan, output(), summed);
    chunks.begin(plan, Buffer::Output);
    let take = plan.receive(output(), tree.parent());
    if summed.is_some() || tree.spec.in_place {
        plan.after(take, give);
    }
    chunks.give_down(plan, Buffer::Output, Some(take));
}

/// The blocks of a subtree's ranks where a rank holds them.
struct Blocks<'a> {
    tree: &'a Tree,
    /// The root's buffer, with a block for each rank.
    all: Buffer,
    /// The others' buffer, with their own block alone.
    own: Buffer,
}

impl Blocks<'_> {
    fn len(&self) -> u32 {
        self.tree.subtree(self.tree.place).len() as u32
    }

    fn shape(&self) -> Shape {
        Shape::whole(self.own).times(self.len())
    }

    /// Asks for the scratch of a rank between root and leaves.
    fn scratch(&self, plan: &mut PlanBuilder) {
        if !self.tree.is_root() && self.len() > 1 {
            plan.scratch(1, self.shape());
        }
    }

    /// The blocks of neighbouring places of this rank's subtree, which do not wrap round on the root.
    fn slice(&self, places: Range<u32>) -> Slice {
        let Tree { spec, root, place, .. } = self.tree;
        let blocks = places.len() as u32;
        if self.tree.is_root() {
            let first = signed((root + places.start) % spec.ranks);
            return Shape::whole(self.all).span(spec.ranks, Index::fixed(first), blocks).into();
        }
        if self.len() == 1 {
            return Shape::whole(self.own).into();
        }
        let first = Index::fixed(signed(places.start - place));
        let part = vec![Cut::Span { parts: self.len(), first, blocks }];
        Slice::Scratch { slot: Index::fixed(0), shape: self.shape(), part }
    }

    /// A subtree in the pieces that it travels in: to and from the root those that do not wrap round.
    fn pieces(&self, place: u32, with_root: bool) -> Vec<Range<u32>> {
        let Tree { spec, root, .. } = self.tree;
        let all = self.tree.subtree(place);
        let wraps_at = spec.ranks - root;
        if with_root && all.contains(&wraps_at) && wraps_at > all.start {
            return vec![all.start..wraps_at, wraps_at..all.end];
        }
        vec![all]
    }

    /// This rank's subtree as it travels to or from its parent.
    fn with_parent(&self) -> Vec<Range<u32>> {
        self.pieces(self.tree.place, self.tree.parent_place() == 0)
    }
}

fn gather(plan: &mut PlanBuilder, tree: &Tree) {
    let blocks = Blocks { tree, all: Buffer::Output, own: Buffer::Input };
    blocks.scratch(plan);
    plan.lane(WINDOW);
    plan.straight();
    let mut here = Vec::new();
    for child in tree.children() {
        for piece in blocks.pieces(child, tree.is_root()) {
            here.push(plan.receive(blocks.slice(piece), tree.rank_at(child)));
        }
    }
    let own = blocks.slice(tree.place..tree.place + 1);
    if tree.is_root() {
        if !tree.spec.in_place {
            plan.copy(Shape::whole(Buffer::Input), own);
        }
        return;
    }
    if !here.is_empty() {
        here.push(plan.copy(Shape::whole(Buffer::Input), own));
    }
    for piece in blocks.with_parent() {
        let give = plan.send(blocks.slice(piece), Peers::one(tree.parent()));
        here.iter().for_each(|&step| plan.after(give, step));
    }
}

fn scatter(plan: &mut PlanBuilder, tree: &Tree) {
    let blocks = Blocks { tree, all: Buffer::Input, own: Buffer::Output };
    blocks.scratch(plan);
    plan.lane(WINDOW);
    plan.straight();
    let mut here = Vec::new();
    if !tree.is_root() {
        for piece in blocks.with_parent() {
            here.push(plan.receive(blocks.slice(piece), tree.parent()));
        }
    }
    for child in tree.children().into_iter().rev() {
        for piece in blocks.pieces(child, tree.is_root()) {
            let give = plan.send(blocks.slice(piece), Peers::one(tree.rank_at(child)));
            here.iter().for_each(|&step| plan.after(give, step));
        }
    }
    let is_elsewhere = if tree.is_root() { !tree.spec.in_place } else { blocks.len() > 1 };
    if is_elsewhere {
        let copy = plan.copy(blocks.slice(tree.place..tree.place + 1), Shape::whole(Buffer::Output));
        here.iter().for_each(|&step| plan.after(copy, step));
    }
}

/// Round by round, each rank hears, directly or not, from `radix` times as many before it.
fn barrier(plan: &mut PlanBuilder, radix: u32) {
    let Spec { rank, ranks, .. } = *plan.spec();
    plan.lane(WINDOW);
    plan.straight();
    let mut heard = Vec::new();
    for weight in std::iter::successors(Some(1), |w| Some(w * radix)).take_while(|&w| w < ranks) {
        let others = (radix - 1).min((ranks - 1) / weight);
        let first = Index::on_circle(signed(rank + weight), ranks);
        let tell = plan.send(Slice::Empty, Peers::Run { first, stride: signed(weight), count: others });
        heard.drain(..).for_each(|step| plan.after(tell, step));
        let from = |j: u32| Index::on_circle(signed(rank) - signed(j * weight), ranks);
        heard.extend((1..=others).map(|j| plan.receive(Slice::Empty, from(j))));
    }
}
