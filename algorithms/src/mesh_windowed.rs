//! Windowed mesh: everybody to everybody, with a bounded number of peers at once.
//!
//! ```text
//! reduce-scatter(v), rank r of p, g = 6:
//!   y = block r of x;  for t = 0, 1, 2, …, and d from t·g+1 to t·g+g, as far as they are below p:
//!     send block r+d of x to r+d, for each d;  y = y + what r-d sends, for all these d at once, rounded once
//! all-gather(v):
//!   for d in 1..p:  send x to r+d;  block r-d = what r-d sends
//! all-reduce: the vector cut into p blocks;  reduce-scatter, then all-gather with the ranks r-d and r+d exchanged
//!
//! 4 ranks, if g were 2, who sends to whom:   t   rank 0    rank 1    rank 2    rank 3
//!                                            0   1 2       2 3       3 0       0 1
//!                                            1   3         0         1         2
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | reduce-scatter(v) | ⌈(p−1)/12⌉ | (p−1)/p·n | (p−1)/p·n |
//! | all-gather(v) | 1, of 16 peers at once | (p−1)/p·n | none |
//! | all-reduce | both | 2(p−1)/p·n | (p−1)/p·n |
//!
//! A lane has up to 32 steps under way, so at most 28 messages out; a sum takes in 6 at once, and those for the next come
//! meanwhile. `mesh-two-shot` has all p−1 at once: two steps, and as many messages to hold at every rank. All-to-all(v) in
//! a window is `pairwise`.
//!
//! **Why it ends.** Everybody takes the distances d in the same order. Of the turns that are not done anywhere, the first
//! has all its sends posted, or room for them, so its sums complete.
//!
//! Source: the direct exchange of HCCL's mesh; the window as in the pairwise exchange of R. Thakur, R. Rabenseifner and
//! W. Gropp, IJHPCA 19 (2005).

use crate::rounds::{loneliest, own_copy, with_everybody};
use crate::share::{block, each_lane, fence, keep_own, refuse, share, signed};
use ubccl_core::plan::{Association, Buffer, Index, Peers, Plan, PlanBuilder, Shape, StepId, Trips};
use ubccl_core::profile::Round;
use ubccl_core::{Algorithm, AlgorithmDescriptor, Kind, Layout, Profile, Result, Spec};

/// The windowed mesh.
pub static MESH_WINDOWED: MeshWindowed = MeshWindowed;

/// See the module.
#[derive(Debug)]
pub struct MeshWindowed;

static DESCRIPTOR: AlgorithmDescriptor = AlgorithmDescriptor {
    name: "mesh-windowed",
    summary: "everybody to everybody, a few peers at a time; least bytes, for many ranks",
    source: "direct exchange in a window; Thakur, Rabenseifner and Gropp, IJHPCA 19 (2005)",
};

const WINDOW: u32 = 32;
/// Messages that a sum takes in at once: with the rank's own block no more than a list holds.
const GROUP: u32 = 6;

impl Algorithm for MeshWindowed {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        &DESCRIPTOR
    }

    fn supports(&self, kind: Kind, _ranks: u32) -> Result<()> {
        match kind {
            Kind::AllReduce | Kind::ReduceScatter | Kind::ReduceScatterV => Ok(()),
            Kind::AllGather | Kind::AllGatherV => Ok(()),
            Kind::AllToAll | Kind::AllToAllV => refuse(DESCRIPTOR.name, kind, "in a window that is pairwise"),
            _ => refuse(DESCRIPTOR.name, kind, "a few peers at a time are no help to it; use a tree"),
        }
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        let of = u64::from(spec.ranks);
        let lonely = loneliest(layout);
        let mut rounds = Vec::new();
        if spec.op.is_some() {
            // The sends of a turn are under way while the turn before is summed.
            let two = 2 * GROUP;
            rounds.extend((1..spec.ranks).step_by(two as usize).map(|first| {
                let distances = first..(first + two).min(spec.ranks);
                let messages = u64::from(distances.end - distances.start);
                let peers = distances.map(|distance| ((lonely + distance) % spec.ranks, 1));
                Round::with_peers(layout, lonely, peers, of).reducing(messages, of)
            }));
        }
        if spec.ranks > 1 && !matches!(spec.kind, Kind::ReduceScatter | Kind::ReduceScatterV) {
            rounds.push(with_everybody(layout, lonely, (1, of)).windowed(WINDOW / 2));
        }
        rounds.extend(own_copy(spec, 1, of));
        Profile::of(rounds).split()
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let association = if spec.op.is_some() { Association::Own } else { Association::None };
        let mut plan = PlanBuilder::new(spec, DESCRIPTOR.name, association);
        each_lane(&mut plan, WINDOW, |plan, lane| {
            let mesh = Mesh { spec: *spec, lane };
            match spec.kind {
                Kind::AllGather | Kind::AllGatherV => mesh.all_gather(plan),
                _ if spec.ranks == 1 => keep_own(plan, lane, Shape::whole(Buffer::Output)),
                Kind::AllReduce => mesh.all_reduce(plan),
                _ => drop(mesh.reduce_scatter(plan, &share(Shape::whole(Buffer::Output), spec, lane))),
            }
        });
        plan.finish()
    }
}

/// One lane of the mesh as one rank sees it.
struct Mesh {
    spec: Spec,
    lane: u8,
}

/// The steps of a reduce-scatter's turns.
struct Turns {
    /// Those of the loop, and how often it turns.
    sends: Vec<StepId>,
    full: u32,
    /// Those of the turn that is left, which has fewer.
    rest: Vec<StepId>,
    /// The last sum.
    sum: StepId,
    /// The turn at which it is the last.
    last: Index,
}

impl Mesh {
    fn at(&self, by: i32) -> Index {
        Index::on_circle(signed(self.spec.rank) + by, self.spec.ranks)
    }

    /// The lane's share of a rank's block.
    fn block(&self, buffer: Buffer, index: Index) -> Shape {
        let block = match self.spec.kind {
            Kind::AllReduce => Shape::whole(buffer).even(self.spec.ranks, index),
            _ => block(&self.spec, buffer, index),
        };
        share(block, &self.spec, self.lane)
    }

    /// Sums this rank's block into `into`, turn by turn; at least two ranks.
    fn reduce_scatter(&self, plan: &mut PlanBuilder, into: &Shape) -> Turns {
        let (full, rest) = ((self.spec.ranks - 1) / GROUP, (self.spec.ranks - 1) % GROUP);
        let kept = (!self.spec.in_place).then(|| {
            plan.straight();
            plan.copy(self.block(Buffer::Input, self.at(0)), into.clone())
        });
        let (zero, outer) = (Index::fixed(0), Index::OUTER);
        plan.repeat(Trips::Fixed(full), Trips::ONCE);
        let (sends, sum) = self.turn(plan, into, 1, GROUP);
        plan.after_turn(sum, sum, outer.plus(-1), zero);
        kept.into_iter().for_each(|kept| plan.after_turn(sum, kept, zero, zero));
        let last = Index::fixed(signed(full) - 1);
        if rest == 0 {
            return Turns { sends, full, rest: Vec::new(), sum, last };
        }
        plan.straight();
        let (left, last_sum) = self.turn(plan, into, signed(full * GROUP) + 1, rest);
        plan.after_turn(last_sum, sum, last, zero);
        kept.into_iter().for_each(|kept| plan.after(last_sum, kept));
        Turns { sends, full, rest: left, sum: last_sum, last: zero }
    }

    /// Exchanges with the ranks at distances from `first` on, `GROUP` further with each turn; answers the sends and the sum.
    fn turn(&self, plan: &mut PlanBuilder, into: &Shape, first: i32, messages: u32) -> (Vec<StepId>, StepId) {
        let distances = first..first + signed(messages);
        let turn = signed(GROUP);
        let send = |distance: i32| {
            let to = self.at(distance).per_outer(turn);
            plan.send(self.block(Buffer::Input, to), Peers::one(to))
        };
        let sends = distances.clone().map(send).collect();
        let from = distances.map(|distance| self.at(-distance).per_outer(-turn));
        let sources = std::iter::once(self.at(0)).chain(from).collect();
        (sends, plan.receive_reduce(Peers::List(sources), into.clone(), into.clone()))
    }

    fn all_gather(&self, plan: &mut PlanBuilder) {
        keep_own(plan, self.lane, block(&self.spec, Buffer::Output, self.at(0)));
        plan.repeat(Trips::Fixed(self.spec.ranks - 1), Trips::ONCE);
        let input = share(Shape::whole(Buffer::Input), &self.spec, self.lane);
        plan.send(input, Peers::one(self.at(1).per_outer(1)));
        let from = self.at(-1).per_outer(-1);
        plan.receive(self.block(Buffer::Output, from), from);
    }

    fn all_reduce(&self, plan: &mut PlanBuilder) {
        let own = self.block(Buffer::Output, self.at(0));
        let turns = self.reduce_scatter(plan, &own);
        if self.spec.in_place {
            // What comes takes the place of what went.
            let all = fence(plan, &turns.sends, Trips::Fixed(turns.full.max(1)), Trips::ONCE);
            let zero = Index::fixed(0);
            turns.rest.iter().for_each(|&send| plan.after_turn(all, send, zero, zero));
        }
        plan.repeat(Trips::Fixed(self.spec.ranks - 1), Trips::ONCE);
        let give = plan.send(own, Peers::one(self.at(-1).per_outer(-1)));
        plan.after_turn(give, turns.sum, turns.last, Index::fixed(0));
        let from = self.at(1).per_outer(1);
        plan.receive(self.block(Buffer::Output, from), from);
    }
}
