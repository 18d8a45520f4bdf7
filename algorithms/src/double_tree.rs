//! Double binary tree: two trees, each with half of the vector; who is a leaf in one is an inner node in the other.
//!
//! ```text
//! one tree over m places: place 0 is the root, its child the largest power of two below m;
//!   place v with lowest bit w: parent = v - w + 2w if v - w has no bit 2w and that is a place, else v - w;
//!   children = v - w/2, and the first of v + w/2, v + w/4, … that is a place
//! the other: the same with place v at m-1-v (m even) or at v+1 on the circle (m odd)
//!
//! all-reduce, in each tree with its half, chunk by chunk:
//!   up:    y = x + what the children send;  send y to the parent
//!   down:  receive the result from the parent;  send it to the children
//! reduce, broadcast: the trees are over the other ranks, counted from the root on; the root is above both of theirs
//!
//! 4 ranks:   first half:  0 ── 2 ── 1        second half:  3 ── 1 ── 2
//!                              └─── 3                           └─── 0
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | all-reduce | 2h, h = the trees' height ≤ ⌈log2 p⌉, pipelined by chunks | at most 2n | at most n |
//! | broadcast | 1 + the height over p−1 ranks, pipelined by chunks | at most n | none |
//! | reduce | the same | n | at most n |
//!
//! With chunks under way, all ports are busy in both directions: the time of a long call tends to that of its bytes, and
//! short ones take a tree's steps. On one lane chunks first all go up, then down; from two lanes on each tree has its
//! own, from four on so has each direction.
//!
//! Source: P. Sanders, J. Speck and J. L. Träff, Parallel Computing 35 (2009); the trees are those of NCCL 2.4, which are
//! there for any number of ranks. Where that is odd, one rank is an inner node in both.

use crate::rounds::{around_circle, busiest_link, copy_only, own_copy};
use crate::share::{each_lane, keep_own, refuse, root_of, share, signed};
use ubccl_core::plan::{Association, Buffer, Index, Peers, Plan, PlanBuilder, Shape, Slice, StepId, Trips};
use ubccl_core::profile::{Distances, Round, Share, Traffic};
use ubccl_core::{Algorithm, AlgorithmDescriptor, Choice, Kind, Layout, Profile, Rank, Result, Spec};

/// The double binary tree.
pub static DOUBLE_TREE: DoubleTree = DoubleTree;

/// See the module.
#[derive(Debug)]
pub struct DoubleTree;

static DESCRIPTOR: AlgorithmDescriptor = AlgorithmDescriptor {
    name: "double-tree",
    summary: "two binary trees with half of the data each, pipelined; log2 steps and near least bytes",
    source: "Sanders, Speck and Träff, Parallel Computing 35 (2009); NCCL 2.4",
};

/// Steps under way in a lane of one tree. With many, who is a leaf of it would put chunk after chunk on its port, and what
/// it passes on in the other tree, which others wait for, would queue behind them.
const WINDOW: u32 = 4;
/// Of a reduce: how many pieces go by until one message more of the other tree stands in a queue. Fitted. (Predicted / simulated
/// by `loggp`, 8 and 48 NPUs, 48 hosts and 48 ranks of a switch, 2.9 to 11 MB in chunks of 16 and 64 KiB: .94 to 1.02; with queues
/// that are full from the beginning up to 1.30.)
const FILLS_IN: u32 = 18;
/// In a lane of both.
const WINDOW_OF_BOTH: u32 = 2 * WINDOW;
/// Chunks of a partial sum that a rank has under way to its parent, in each tree.
const SLOTS: u32 = 4;

impl Algorithm for DoubleTree {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        &DESCRIPTOR
    }

    fn supports(&self, kind: Kind, _ranks: u32) -> Result<()> {
        match kind {
            Kind::AllReduce | Kind::Reduce | Kind::Broadcast => Ok(()),
            _ => refuse(
                DESCRIPTOR.name,
                kind,
                "its trees carry the whole vector: all-reduce, reduce, broadcast",
            ),
        }
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        if spec.ranks == 1 {
            return copy_only(spec, 1, 1);
        }
        let of_rank = |rank| Spec { rank, ..*spec };
        let ways =
            (0..spec.ranks).flat_map(|rank| [false, true].map(|second| way_up(&of_rank(rank), second)));
        // What a rank on the way of the farthest does: it talks to all its children.
        let farthest = ways.max_by_key(Vec::len).unwrap_or_default();
        // What is summed waits for both children; what the other tree has under way at their ports goes before. In an
        // all-reduce ports have as much of the other way, and queues are shorter.
        let queue = match spec.kind {
            Kind::Broadcast => 1,
            Kind::Reduce => 2 * WINDOW,
            _ => 0,
        };
        let fills_in = if spec.kind == Kind::Reduce { FILLS_IN } else { 0 };
        let hop = |near: &(Rank, Vec<Rank>)| {
            let children = near.1.iter().map(|&child| (child, 1));
            Round::with_peers(layout, near.0, children, 2).queued(queue).filling_in(fills_in).alone()
        };
        let up = farthest.iter().map(hop);
        let down = up.clone().rev();
        let up = up.map(|round| Round {
            reduced: Share::new(round.traffic.iter().map(|part| part.share.parts).sum(), 2),
            ..round
        });
        let mut rounds: Vec<Round> = match spec.kind {
            Kind::Reduce => up.collect(),
            Kind::Broadcast => down.collect(),
            _ => up.chain(down).collect(),
        };
        if spec.kind == Kind::Broadcast {
            rounds.extend(own_copy(spec, 1, 1));
        }
        let ports: Vec<_> = (0..spec.ranks).map(|rank| traffic(&of_rank(rank), layout)).collect();
        let parts = |port: &[Traffic]| port.iter().map(|part| part.share.parts).sum();
        let most = ports.iter().map(|port| parts(port)).max().unwrap_or(0);
        let distances = distances(spec, layout, &farthest, most);
        let height = farthest.len();
        let with = |busiest: Vec<Traffic>| {
            let mut rounds = rounds.clone();
            if let (Kind::AllReduce, Some(round)) = (spec.kind, rounds.first_mut()) {
                // While chunks of all ages are under way, a port has those of both ways.
                round.traffic = busiest.clone();
            }
            let profile = Profile::of(rounds).busiest(busiest).chunked(1, 2).going(distances);
            let profile = if spec.kind == Kind::AllReduce { profile } else { profile.relaying() };
            match spec.kind {
                Kind::Broadcast if spec.choice.lanes < 2 => profile.staged(vec![0]),
                Kind::Broadcast => profile,
                // The trees wait for each other with each chunk: who is a leaf of one sums a chunk of the other first.
                Kind::Reduce if spec.choice.lanes < 2 => profile.staged(vec![0]),
                _ if spec.choice.lanes < 2 => profile.staged(vec![0]).fenced(height),
                Kind::AllReduce if spec.choice.lanes < 4 => profile.fenced(height),
                _ => profile,
            }
        };
        let mut profiles = most_loaded(ports).into_iter().map(with);
        profiles.next().unwrap_or_default().also(profiles.collect())
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let association = if spec.op.is_some() { Association::Own } else { Association::None };
        let mut plan = PlanBuilder::new(spec, DESCRIPTOR.name, association);
        let halves = [0, 1].map(|tree| Half::new(spec, tree));
        if spec.kind == Kind::Reduce && halves.iter().any(Half::needs_scratch) {
            plan.scratch(2 * SLOTS, halves[0].of(Buffer::Input));
        }
        fill(&mut plan, &halves);
        plan.finish()
    }
}

/// Places next to one in a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Near<T> {
    parent: Option<T>,
    /// The nearer subtree's first; at most two.
    children: Vec<T>,
}

impl<T> Near<T> {
    fn map<U>(self, name: impl Fn(T) -> U) -> Near<U> {
        Near { parent: self.parent.map(&name), children: self.children.into_iter().map(&name).collect() }
    }
}

/// The first tree over `places`.
fn tree(place: u32, places: u32) -> Near<u32> {
    let top = places.next_power_of_two();
    if place == 0 {
        return Near { parent: None, children: Vec::from_iter((places > 1).then_some(top / 2)) };
    }
    let weight = place & place.wrapping_neg();
    let above = (place ^ weight) | (2 * weight);
    let parent = if above < places { above } else { place ^ weight };
    let halves = std::iter::successors(Some(weight / 2), |half| Some(half / 2)).take_while(|&half| half > 0);
    let low = halves.clone().next().map(|half| place - half);
    let high = halves.map(|half| place + half).find(|&child| child < places);
    Near { parent: Some(parent), children: low.into_iter().chain(high).collect() }
}

/// Either tree over `places`.
fn either(second: bool, place: u32, places: u32) -> Near<u32> {
    match second {
        false => tree(place, places),
        true if places.is_multiple_of(2) => tree(places - 1 - place, places).map(|place| places - 1 - place),
        true => tree((place + places - 1) % places, places).map(|place| (place + 1) % places),
    }
}

/// The place without a parent, of either tree.
fn top(second: bool, places: u32) -> u32 {
    match second {
        false => 0,
        true if places.is_multiple_of(2) => places - 1,
        true => 1 % places,
    }
}

/// Whom a rank talks to in a tree.
fn neighbours(spec: &Spec, second: bool) -> Near<Rank> {
    let Spec { rank, ranks, root, .. } = *spec;
    let Some(root) = root else { return either(second, rank, ranks) };
    let others = ranks - 1;
    let at = |place: u32| (root + 1 + place) % ranks;
    if rank == root {
        let top = (others > 0).then(|| at(top(second, others)));
        return Near { parent: None, children: top.into_iter().collect() };
    }
    let mut near = either(second, (rank + others - root) % ranks, others).map(at);
    near.parent.get_or_insert(root);
    near
}

/// The ranks above this one in a tree, the nearest first, each with all its children.
fn way_up(spec: &Spec, second: bool) -> Vec<(Rank, Vec<Rank>)> {
    let near = |rank| neighbours(&Spec { rank, ..*spec }, second);
    let above = std::iter::successors(near(spec.rank).parent, |&rank| near(rank).parent);
    above.map(|rank| (rank, near(rank).children)).collect()
}

/// How far messages of both trees go; these ranks are on the longest way, and a port has at most so many parts.
fn distances(spec: &Spec, layout: &Layout, farthest: &[(Rank, Vec<Rank>)], parts: u64) -> Distances {
    let near = |rank, second| neighbours(&Spec { rank, ..*spec }, second);
    let families = (0..spec.ranks).flat_map(|rank| [false, true].map(|second| (rank, near(rank, second))));
    let edges = families.flat_map(|(rank, near)| near.children.into_iter().map(move |child| (rank, child)));
    let (rises, sinks) = (spec.kind != Kind::Broadcast, spec.kind != Kind::Reduce);
    let messages = edges.flat_map(|(rank, child)| {
        let (up, down) = (rises.then_some((child, rank)), sinks.then_some((rank, child)));
        up.into_iter().chain(down)
    });
    let passed = busiest_link(layout, messages);
    let links = |rank, child| around_circle(layout, rank, child).map_or(0, |way| u64::from(way.links));
    let longest = |(rank, children): &(Rank, Vec<Rank>)| {
        children.iter().map(|&child| links(*rank, child)).max().unwrap_or(0)
    };
    let rounds = farthest.len() as u64;
    Distances { rounds, farthest: farthest.iter().map(longest).sum(), parts, passed }
}

/// What a rank's port does for both halves.
fn traffic(spec: &Spec, layout: &Layout) -> Vec<Traffic> {
    let mut sent = Round::default();
    let mut received = Round::default();
    for near in [false, true].map(|second| neighbours(spec, second)) {
        let level = |peer: &Rank| layout.shared_level(spec.rank, *peer);
        let (up, down): (Vec<_>, Vec<_>) =
            (near.parent.iter().map(level).collect(), near.children.iter().map(level).collect());
        if spec.kind != Kind::Broadcast {
            up.iter().for_each(|&level| sent.add(level, 1, 2));
            down.iter().for_each(|&level| received.add(level, 1, 2));
        }
        if spec.kind != Kind::Reduce {
            up.iter().for_each(|&level| received.add(level, 1, 2));
            down.iter().for_each(|&level| sent.add(level, 1, 2));
        }
    }
    let parts = |round: &Round| round.traffic.iter().map(|part| part.share.parts).sum::<u64>();
    if parts(&sent) < parts(&received) { received.traffic } else { sent.traffic }
}

/// Those of these ports that no other outdoes at every level, the busiest in all first: levels may have ports of their own, and
/// where ranks are few nobody is busiest at all of them.
fn most_loaded(ports: Vec<Vec<Traffic>>) -> Vec<Vec<Traffic>> {
    let parts = |port: &[Traffic], level: usize| {
        port.iter().filter(|part| part.level == level).map(|part| part.share.parts).sum::<u64>()
    };
    let levels = ports.iter().flatten().map(|part| part.level + 1).max().unwrap_or(0);
    let loads = |port: &[Traffic]| (0..levels).map(|level| parts(port, level)).collect::<Vec<_>>();
    let mut most: Vec<(Vec<u64>, Vec<Traffic>)> = Vec::new();
    for port in ports {
        let load = loads(&port);
        let is_less = |less: &[u64], more: &[u64]| less.iter().zip(more).all(|(less, more)| less <= more);
        if !most.iter().any(|(other, _)| is_less(&load, other)) {
            most.retain(|(other, _)| !is_less(other, &load));
            most.push((load, port));
        }
    }
    most.sort_by_key(|(load, _)| std::cmp::Reverse(load.iter().sum::<u64>()));
    most.into_iter().map(|(_, port)| port).collect()
}

/// One tree with its half of the vector.
struct Half {
    spec: Spec,
    tree: u8,
    near: Near<Rank>,
}

impl Half {
    fn new(spec: &Spec, tree: u8) -> Self {
        Half { spec: *spec, tree, near: neighbours(spec, tree == 1) }
    }

    /// This half's part of a buffer: as a lane of two would have it.
    fn part(&self, buffer: Buffer, tree: u8) -> Shape {
        let two = Spec { choice: Choice { lanes: 2, ..self.spec.choice }, ..self.spec };
        share(Shape::whole(buffer), &two, tree)
    }

    fn of(&self, buffer: Buffer) -> Shape {
        self.part(buffer, self.tree).chunk(self.spec.chunk_elements(), Index::INNER)
    }

    /// One turn for each chunk: as many in both trees, of which the first has the longer half.
    fn begin(&self, plan: &mut PlanBuilder) {
        let buffer = if self.spec.kind == Kind::Reduce { Buffer::Input } else { Buffer::Output };
        let elements = self.spec.chunk_elements();
        plan.repeat(Trips::ONCE, Trips::Chunks { shape: self.part(buffer, 0), elements });
    }

    fn is_leaf(&self) -> bool {
        self.near.children.is_empty()
    }

    fn needs_scratch(&self) -> bool {
        self.near.parent.is_some() && !self.is_leaf()
    }

    /// Where a rank that has children sums a chunk.
    fn sum(&self) -> Slice {
        if self.spec.kind == Kind::AllReduce || self.near.parent.is_none() {
            return self.of(Buffer::Output).into();
        }
        let slot = Index::on_circle(0, SLOTS).per_inner(1).from(signed(SLOTS) * i32::from(self.tree), 0);
        Slice::Scratch { slot, shape: self.of(Buffer::Input), part: Vec::new() }
    }

    fn children(&self) -> Vec<Index> {
        self.near.children.iter().map(|&child| Index::fixed(signed(child))).collect()
    }

    fn parent(&self) -> Option<Index> {
        self.near.parent.map(|parent| Index::fixed(signed(parent)))
    }

    /// A chunk's way up; answers its last step, after which the sum may be overwritten.
    fn up(&self, plan: &mut PlanBuilder) -> Option<StepId> {
        let own = self.of(Buffer::Input);
        let summed = (!self.is_leaf()).then(|| {
            let mut sources = self.children();
            sources.insert(1, Index::fixed(signed(self.spec.rank)));
            plan.receive_reduce(Peers::List(sources), own.clone(), self.sum())
        });
        let Some(parent) = self.parent() else { return summed };
        let from = if summed.is_some() { self.sum() } else { own.into() };
        let give = plan.send(from, Peers::one(parent));
        if let Some(summed) = summed {
            plan.after(give, summed);
            if self.spec.kind == Kind::Reduce {
                plan.after_turn(summed, give, Index::OUTER, Index::INNER.plus(-signed(SLOTS)));
            }
        }
        Some(give)
    }

    /// A chunk's way down; `risen` is the last step of its way up.
    fn down(&self, plan: &mut PlanBuilder, risen: Option<StepId>) {
        let mut ready = risen;
        let mut from = Buffer::Output;
        match self.parent() {
            Some(parent) => {
                let take = plan.receive(self.of(Buffer::Output), parent);
                risen.into_iter().for_each(|risen| plan.after(take, risen));
                ready = Some(take);
            }
            None if risen.is_none() => from = Buffer::Input,
            None => {}
        }
        if !self.is_leaf() {
            let give = plan.send(self.of(from), Peers::List(self.children()));
            ready.into_iter().for_each(|ready| plan.after(give, ready));
        }
    }
}

/// In which order a lane of both trees goes through them: what waits less comes first, in the leaves and, on the way up,
/// where a rank is the top of the first tree. Over one or three places, two ranks are neighbours in both trees, the same
/// way round: their messages have to keep to one order.
fn in_order(halves: &[Half; 2], rises: bool) -> [&Half; 2] {
    let [first, second] = halves;
    let Spec { ranks, root, .. } = first.spec;
    let places = ranks - u32::from(root.is_some());
    let is_top = first.near.parent.is_none_or(|parent| Some(parent) == root);
    match (second.is_leaf() || rises && is_top) && !matches!(places, 1 | 3) {
        true => [second, first],
        false => [first, second],
    }
}

/// Writes the lanes: which of them goes which way in which tree.
fn fill(plan: &mut PlanBuilder, halves: &[Half; 2]) {
    let spec = *plan.spec();
    if spec.ranks == 1 {
        return each_lane(plan, WINDOW_OF_BOTH, |plan, lane| {
            keep_own(plan, lane, Shape::whole(Buffer::Output))
        });
    }
    let lane_of = |rises: bool| match spec.choice.lanes > 1 {
        true => halves.iter().map(|half| vec![half]).collect(),
        false => vec![in_order(halves, rises).to_vec()],
    };
    let (rising, sinking) = (lane_of(true), lane_of(false));
    let has_ups = spec.kind != Kind::Broadcast;
    let has_downs = spec.kind != Kind::Reduce;
    let are_apart = has_ups && has_downs && spec.choice.lanes >= 4;
    let mut risen = [None; 2];
    let ways = |up: bool| rising.iter().zip(&sinking).map(move |lanes| (up, lanes));
    // Both ways of a lane one after the other, or in lanes of their own.
    for (is_first, (up, down)) in ways(true).chain(ways(false).filter(|_| are_apart)) {
        plan.lane(if up.len() > 1 { WINDOW_OF_BOTH } else { WINDOW });
        if has_ups && is_first {
            halves[0].begin(plan);
            up.iter().for_each(|half| risen[usize::from(half.tree)] = half.up(plan));
        }
        if has_downs && (!is_first || !are_apart) {
            halves[0].begin(plan);
            down.iter().for_each(|half| half.down(plan, risen[usize::from(half.tree)]));
        }
    }
    if spec.kind == Kind::Broadcast && spec.rank == root_of(&spec) && !spec.in_place {
        plan.straight();
        plan.copy(Shape::whole(Buffer::Input), Shape::whole(Buffer::Output));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tree_reaches_everybody_and_few_are_inner_nodes_of_both() {
        for places in 1..=200 {
            let mut inner = 0;
            for second in [false, true] {
                for place in 0..places {
                    let near = either(second, place, places);
                    assert!(near.children.len() <= 2);
                    inner += u32::from(!near.children.is_empty());
                    for &child in &near.children {
                        assert_eq!(either(second, child, places).parent, Some(place), "{child} of {places}");
                    }
                    match near.parent {
                        Some(parent) => assert!(either(second, parent, places).children.contains(&place)),
                        None => assert_eq!(place, top(second, places)),
                    }
                }
            }
            assert!(inner <= places + 1, "{inner} inner nodes of {places}");
        }
    }
}
