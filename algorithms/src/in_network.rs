//! In-network: switches fold what all ranks send to one, and copy what one rank sends to all (NVLink SHARP).
//!
//! ```text
//! all-reduce, the vector cut into p blocks, each into 4 parts; rank r, for part 0 of every block, then part 1, …:
//!   reduce,    for b in 0..p:  b = r: y = x[0] + x[1] + … + x[p-1], rounded once;   otherwise: send block b to b
//!   multicast, for b in 0..p:  b = r: send y to everybody, as soon as it is there;  otherwise: block b = what b sends
//! reduce-scatter(v): the first half            all-gather(v): the second half
//! reduce: one block, at the root               broadcast: one block, from the root
//!
//! 4 ranks, what passes the port of rank 1 (Σb: the sum of block b, which the switches fold for rank b and copy for all):
//!   out   block 0    block 2    block 3, Σ1   block 0    …
//!   in               Σ0         Σ1            Σ2         Σ3    …
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | where switches fold and copy | elements reduced |
//! |---|---|---|---|---|
//! | all-reduce | 2 | 2(p−1)/p·n | n out, n in, at the same time | (p−1)/p·n, in the switches |
//! | reduce-scatter(v) | 1 | (p−1)/p·n | (p−1)/p·n out, n/p in | (p−1)/p·n, in the switches |
//! | all-gather(v) | 1 | (p−1)/p·n | n/p out, (p−1)/p·n in | none |
//! | reduce | 1 | (p−1)·n to the root | n | (p−1)·n, in the switches |
//! | broadcast | 1 | (p−1)·n from the root | n | none |
//!
//! **What is in the plan, and what is not.** A plan has had the words since the beginning: a send names all its receivers,
//! a receive-reduce all its sources. Whether that is one multicast or p−1 messages, one folded read or p−1 receives, is how
//! bytes move, which a plan does not say. So there is no new step here, and the verifier has nothing new to learn: the
//! same plan runs on every transport, where switches are plain with p−1 messages, and to the same bits. The mesh does its
//! one or two shots with such steps as well, and gains by such switches what one shot can. What is made for them here is
//! the order: all turn to the same block, which is folded while the next is sent and the one before comes back copied, so
//! that both directions of a port are busy at once. Where switches are plain, all flood one rank after the other, which is
//! the worst there is; therefore [`Algorithm::wants`] tells what the links must do, and the tuner leaves the algorithm out
//! where they do not. Forced, it runs everywhere.
//!
//! An all-reduce needs two lanes, one for either half, to have them side by side; with one lane the second half waits for the
//! first. The other kinds take one lane. The window of what is summed is narrow: a result waits behind what its rank has posted
//! before. But the own sum is under way for a latency longer than a block takes, and its rank has to get on meanwhile, or all
//! wait for it. The window of what is handed on has room for all: a rank's result goes as soon as it is there, however many
//! blocks before it are still on their way.
//!
//! **Why it ends.** All take parts and blocks in the same order; of those that are not done anywhere, the first has room in the
//! window of every rank.
//!
//! Every element is combined in one reduction over ranks 0 to p−1, in that order: a transport that has switches fold owes
//! the list's order, as any other does.
//!
//! Source: B. Klenk, N. Jiang, G. Thorson and L. Dennison, ISCA 2020; NCCL's NVLS. There each rank reads its blocks folded
//! and writes them to all; here the others send. The bytes on each link are the same, but for a rank's own share, which is
//! not sent to the switch.

use crate::mesh_one_shot::everybody;
use crate::rounds::{copy_only, loneliest, own_copy, with_everybody};
use crate::share::{block, check_window, refuse, root_of, signed};
use crate::turns::everybody_else;
use ubccl_core::algorithm::Switching;
use ubccl_core::plan::{
    Association, Buffer, Index, MAX_WINDOW_PER_PEER, Peers, Plan, PlanBuilder, Shape, StepId, Trips,
};
use ubccl_core::profile::Round;
use ubccl_core::{Algorithm, AlgorithmDescriptor, Kind, Layout, Profile, ReduceOp, Result, Spec};

/// The family that has switches fold and copy.
pub static IN_NETWORK: InNetwork = InNetwork;

/// See the module.
#[derive(Debug)]
pub struct InNetwork;

static DESCRIPTOR: AlgorithmDescriptor = AlgorithmDescriptor {
    name: "in-network",
    summary: "switches fold and copy on the way, where they can: then half the bytes of an all-reduce",
    source: "Klenk, Jiang, Thorson and Dennison, ISCA 2020; NVLink SHARP (NCCL's NVLS)",
};

/// Parts of each block: so few ranks have blocks enough to overlap.
const PARTS: u32 = 4;

impl Algorithm for InNetwork {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        &DESCRIPTOR
    }

    fn supports(&self, kind: Kind, ranks: u32) -> Result<()> {
        match kind {
            Kind::AllReduce | Kind::ReduceScatter | Kind::ReduceScatterV => {
                check_window(DESCRIPTOR.name, ranks)
            }
            Kind::Reduce | Kind::AllGather | Kind::AllGatherV | Kind::Broadcast => Ok(()),
            Kind::Barrier => refuse(DESCRIPTOR.name, kind, "there is nothing to fold; use mesh-one-shot"),
            _ => refuse(DESCRIPTOR.name, kind, "every message is another; use linear or pairwise"),
        }
    }

    /// Any: an element is combined once, from all ranks in their order.
    fn supports_op(&self, _op: ReduceOp) -> Result<()> {
        Ok(())
    }

    fn wants(&self, kind: Kind) -> Switching {
        let reduces = kind.row().reduces;
        Switching { reduces, multicast: !reduces || kind == Kind::AllReduce }
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        let p = u64::from(spec.ranks);
        if p == 1 {
            return copy_only(spec, 1, 1);
        }
        let blocks = || with_everybody(layout, loneliest(layout), (1, p));
        let around_root = || with_everybody(layout, root_of(spec), (1, 1)).by(1);
        // What is not folded by switches is told by nobody: there it is no candidate.
        let fold = || blocks().reducing(1, p);
        // A message of a round with each part of a block.
        let in_blocks = |rounds| Profile::of(rounds).parts(PARTS * spec.ranks, spec.ranks);
        match spec.kind {
            // A result passes the port once, beside what comes; and waits for what is posted.
            Kind::AllReduce if side_by_side(spec) => {
                let queued = fold().queued(window(spec) * (spec.ranks - 1));
                in_blocks(vec![queued, blocks().to_all_alike()])
            }
            Kind::AllReduce => in_blocks(vec![fold(), blocks()]).windowed(window(spec)).fenced(1),
            Kind::ReduceScatter | Kind::ReduceScatterV => in_blocks(vec![fold()]).windowed(window(spec)),
            Kind::Reduce => Profile::of(vec![around_root().reducing(p - 1, 1).folding()]).parts(PARTS, 1),
            Kind::Broadcast => Profile::of(with_copy(around_root().to_all_alike(), spec, 1)).parts(PARTS, 1),
            _ => in_blocks(with_copy(blocks(), spec, p)),
        }
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let association = if spec.op.is_some() { Association::Flat } else { Association::None };
        let mut plan = PlanBuilder::new(spec, DESCRIPTOR.name, association);
        plan.lane(if spec.op.is_some() { window(spec) } else { results_window(spec) });
        let half = Half { spec: *spec };
        match spec.kind {
            Kind::AllGather | Kind::AllGatherV => half.all_gather(&mut plan),
            Kind::Broadcast if spec.ranks > 1 => half.broadcast(&mut plan),
            _ if spec.ranks == 1 => half.keep(&mut plan, Shape::whole(Buffer::Output)),
            Kind::AllReduce => half.all_reduce(&mut plan),
            Kind::ReduceScatter | Kind::ReduceScatterV => drop(half.reduce_parts(&mut plan)),
            _ => half.reduce(&mut plan),
        }
        plan.finish()
    }
}

/// Whether an all-reduce has a lane for either half.
fn side_by_side(spec: &Spec) -> bool {
    spec.choice.lanes > 1
}

/// The window of what hands results on: room for all of them, since a rank that waits for others' blocks keeps its own.
fn results_window(spec: &Spec) -> u32 {
    (PARTS * spec.ranks).max(window(spec))
}

/// The window of what is summed: the own sums of all parts may be under way while the rank gets on.
fn window(spec: &Spec) -> u32 {
    (2 + PARTS).max(3 + spec.ranks / 16).min(MAX_WINDOW_PER_PEER)
}

/// A round, and the copy of the own contribution.
fn with_copy(round: Round, spec: &Spec, of: u64) -> Vec<Round> {
    std::iter::once(round).chain(own_copy(spec, 1, of)).collect()
}

/// Both halves, as one rank sees them.
struct Half {
    spec: Spec,
}

impl Half {
    fn own(&self) -> Index {
        Index::fixed(signed(self.spec.rank))
    }

    fn whole(&self, buffer: Buffer, part: Index) -> Shape {
        Shape::whole(buffer).even(PARTS, part)
    }

    fn block(&self, buffer: Buffer, index: Index) -> Shape {
        match self.spec.kind {
            Kind::AllReduce => Shape::whole(buffer).even(self.spec.ranks, index),
            _ => block(&self.spec, buffer, index),
        }
    }

    fn part_of_block(&self, buffer: Buffer, index: Index, part: u32) -> Shape {
        self.block(buffer, index).even(PARTS, Index::fixed(signed(part)))
    }

    /// Brings the input to its place in the output, unless the call is in place.
    fn keep(&self, plan: &mut PlanBuilder, into: Shape) {
        if !self.spec.in_place {
            plan.straight();
            plan.copy(Shape::whole(Buffer::Input), into);
        }
    }

    /// In the order of blocks: a step for each block before the own one, one for that, and one for each behind it.
    fn each_block(
        &self,
        plan: &mut PlanBuilder,
        others: impl Fn(&mut PlanBuilder, Index) -> StepId,
        own: impl Fn(&mut PlanBuilder) -> StepId,
    ) -> [StepId; 3] {
        let Spec { rank, ranks, .. } = self.spec;
        plan.repeat(Trips::Fixed(rank), Trips::ONCE);
        let before = others(plan, Index::OUTER);
        plan.straight();
        let at_own = own(plan);
        plan.repeat(Trips::Fixed(ranks - 1 - rank), Trips::ONCE);
        [before, at_own, others(plan, Index::OUTER.plus(signed(rank) + 1))]
    }

    fn all_reduce(&self, plan: &mut PlanBuilder) {
        let reduced = self.reduce_parts(plan);
        if side_by_side(&self.spec) {
            plan.lane(results_window(&self.spec));
        }
        let given = self.multicast_parts(plan);
        for ([before, sum, behind], [take_before, give, take_behind]) in reduced.into_iter().zip(given) {
            plan.after(give, sum);
            if self.spec.in_place {
                // What comes takes the place of what went.
                plan.after(take_before, before);
                plan.after(take_behind, behind);
            }
        }
    }

    /// Everybody sends block b to b, which sums it.
    fn reduce_parts(&self, plan: &mut PlanBuilder) -> Vec<[StepId; 3]> {
        let part = |part: u32| {
            let own = self.part_of_block(Buffer::Input, self.own(), part);
            let into = match self.spec.kind {
                Kind::AllReduce => self.part_of_block(Buffer::Output, self.own(), part),
                _ => self.whole(Buffer::Output, Index::fixed(signed(part))),
            };
            self.each_block(
                plan,
                |plan, to| plan.send(self.part_of_block(Buffer::Input, to, part), Peers::one(to)),
                |plan| plan.receive_reduce(everybody(&self.spec), own.clone(), into.clone()),
            )
        };
        (0..PARTS).map(part).collect()
    }

    /// Everybody sends its block to all others.
    fn multicast_parts(&self, plan: &mut PlanBuilder) -> Vec<[StepId; 3]> {
        let part = |part: u32| {
            let own = match self.spec.kind {
                Kind::AllReduce => self.part_of_block(Buffer::Output, self.own(), part),
                _ => self.whole(Buffer::Input, Index::fixed(signed(part))),
            };
            self.each_block(
                plan,
                |plan, from| plan.receive(self.part_of_block(Buffer::Output, from, part), from),
                |plan| plan.send(own.clone(), everybody_else(&self.spec)),
            )
        };
        (0..PARTS).map(part).collect()
    }

    fn all_gather(&self, plan: &mut PlanBuilder) {
        if self.spec.ranks > 1 {
            self.multicast_parts(plan);
        }
        self.keep(plan, self.block(Buffer::Output, self.own()));
    }

    fn reduce(&self, plan: &mut PlanBuilder) {
        let (root, input) = (root_of(&self.spec), self.whole(Buffer::Input, Index::OUTER));
        plan.repeat(Trips::Fixed(PARTS), Trips::ONCE);
        if self.spec.rank == root {
            plan.receive_reduce(everybody(&self.spec), input, self.whole(Buffer::Output, Index::OUTER));
        } else {
            plan.send(input, Peers::one(Index::fixed(signed(root))));
        }
    }

    fn broadcast(&self, plan: &mut PlanBuilder) {
        let root = root_of(&self.spec);
        plan.repeat(Trips::Fixed(PARTS), Trips::ONCE);
        if self.spec.rank == root {
            plan.send(self.whole(Buffer::Input, Index::OUTER), everybody_else(&self.spec));
            self.keep(plan, Shape::whole(Buffer::Output));
        } else {
            plan.receive(self.whole(Buffer::Output, Index::OUTER), Index::fixed(signed(root)));
        }
    }
}
