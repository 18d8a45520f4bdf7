//! Windowed mesh: everybody to everybody, with a bounded number of peers at once.
//!
//! ```text
//! reduce-scatter(v), rank r of p, g = 6:
//!   y = block r of x;  for g turns (t, f) of r at a time (`turns`; fewer where a loop of them ends):
//!     send block t of x to t, for each;  y = y + what f sends, for all these f at once, rounded once
//! all-gather(v):
//!   for each turn (t, f):  send x to t;  block f = what f sends
//! all-reduce: the vector cut into p blocks;  reduce-scatter, then all-gather with the ranks t and f exchanged
//!
//! 6 ranks, if g were 2, who sends to whom:   rank 0    rank 1    rank 2    rank 3    rank 4    rank 5
//!                                            2 4       5 3       4 0       1 5       0 2       3 1
//!                                            1 3       0 4       3 5       2 0       5 1       4 2
//!                                            5         2         1         4         3         0
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | reduce-scatter(v) | about (p−1)/12 | (p−1)/p·n | (p−1)/p·n |
//! | all-gather(v) | 1, of 16 peers at once | (p−1)/p·n | none |
//! | all-reduce | both | 2(p−1)/p·n | (p−1)/p·n |
//!
//! A lane has up to 32 steps under way, so at most 28 messages out; a sum takes in 6 at once, and those for the next come
//! meanwhile. `mesh-two-shot` has all p−1 at once: two steps, and as many messages to hold at every rank. All-to-all(v) in
//! a window is `pairwise`.
//!
//! **Why it ends.** Everybody takes the turns in the same order. Of those that are not done anywhere, the first
//! has all its sends posted, or room for them, so its sums complete.
//!
//! Source: the direct exchange of HCCL's mesh; the window as in the pairwise exchange of R. Thakur, R. Rabenseifner and
//! W. Gropp, IJHPCA 19 (2005).

use crate::rounds::{loneliest, own_copy, with_everybody};
use crate::share::{block, each_lane, fence, keep_own, refuse, share, signed};
use crate::turns::{Turns, peers, turns};
use std::ops::Range;
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
            let all: Vec<_> = peers(lonely, spec.ranks).map(|(to, _)| (to, 1)).collect();
            rounds.extend(all.chunks(2 * GROUP as usize).map(|some| {
                let round = Round::with_peers(layout, lonely, some.iter().copied(), of);
                round.reducing(some.len() as u64, of)
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

/// The steps of a reduce-scatter.
struct Summed {
    /// The sends of each loop, and how often it turns.
    sends: Vec<(Vec<StepId>, u32)>,
    /// The last sum, and the turn at which it is that.
    last: (StepId, Index),
}

impl Mesh {
    fn own(&self) -> Index {
        Index::fixed(signed(self.spec.rank))
    }

    /// The lane's share of a rank's block.
    fn block(&self, buffer: Buffer, index: Index) -> Shape {
        let block = match self.spec.kind {
            Kind::AllReduce => Shape::whole(buffer).even(self.spec.ranks, index),
            _ => block(&self.spec, buffer, index),
        };
        share(block, &self.spec, self.lane)
    }

    /// Sums this rank's block into `into`, some turns at once; at least two ranks.
    fn reduce_scatter(&self, plan: &mut PlanBuilder, into: &Shape) -> Summed {
        let zero = Index::fixed(0);
        let mut last = (!self.spec.in_place).then(|| {
            plan.straight();
            (plan.copy(self.block(Buffer::Input, self.own()), into.clone()), zero)
        });
        let mut sends = Vec::new();
        for turns in turns(self.spec.rank, self.spec.ranks) {
            let (full, rest) = (turns.count / GROUP, turns.count % GROUP);
            for (times, first, messages) in [(full, 0, GROUP), (1, full * GROUP, rest)] {
                if times * messages == 0 {
                    continue;
                }
                plan.repeat(Trips::Fixed(times), Trips::ONCE);
                let (sent, sum) = self.some_turns(plan, into, &turns, first..first + messages);
                plan.after_turn(sum, sum, Index::OUTER.plus(-1), zero);
                last.into_iter().for_each(|(before, turn)| plan.after_turn(sum, before, turn, zero));
                last = Some((sum, Index::fixed(signed(times) - 1)));
                sends.push((sent, times));
            }
        }
        Summed { sends, last: last.expect("two ranks have a turn") }
    }

    /// Exchanges in these turns, `GROUP` further with each turn of the loop; answers the sends and the sum.
    fn some_turns(
        &self,
        plan: &mut PlanBuilder,
        into: &Shape,
        turns: &Turns,
        some: Range<u32>,
    ) -> (Vec<StepId>, StepId) {
        let at = |peer: Index, turn: u32| {
            peer.plus(signed(turn) * peer.per_outer).per_outer(signed(GROUP) * peer.per_outer)
        };
        let send = |turn: u32| {
            let to = at(turns.to, turn);
            plan.send(self.block(Buffer::Input, to), Peers::one(to))
        };
        let sends = some.clone().map(send).collect();
        let from = some.map(|turn| at(turns.from, turn));
        let sources = std::iter::once(self.own()).chain(from).collect();
        (sends, plan.receive_reduce(Peers::List(sources), into.clone(), into.clone()))
    }

    fn all_gather(&self, plan: &mut PlanBuilder) {
        keep_own(plan, self.lane, block(&self.spec, Buffer::Output, self.own()));
        let input = share(Shape::whole(Buffer::Input), &self.spec, self.lane);
        for Turns { count, to, from, .. } in turns(self.spec.rank, self.spec.ranks) {
            plan.repeat(Trips::Fixed(count), Trips::ONCE);
            plan.send(input.clone(), Peers::one(to));
            plan.receive(self.block(Buffer::Output, from), from);
        }
    }

    fn all_reduce(&self, plan: &mut PlanBuilder) {
        let own = self.block(Buffer::Output, self.own());
        let Summed { sends, last: (sum, turn) } = self.reduce_scatter(plan, &own);
        if self.spec.in_place {
            // What comes takes the place of what went.
            for (sends, times) in &sends {
                fence(plan, sends, Trips::Fixed(*times), Trips::ONCE);
            }
        }
        for Turns { count, to, from, .. } in turns(self.spec.rank, self.spec.ranks) {
            plan.repeat(Trips::Fixed(count), Trips::ONCE);
            let give = plan.send(own.clone(), Peers::one(from));
            plan.after_turn(give, sum, turn, Index::fixed(0));
            plan.receive(self.block(Buffer::Output, to), to);
        }
    }
}
