//! Two-shot mesh: each rank first gathers its share of the work from everybody, then gives the result to everybody.
//!
//! ```text
//! all-reduce, the vector cut into n blocks:
//!   send block q to q, for every q;  block r = x[0] + x[1] + … + x[n-1], rounded once
//!   send block r to everybody;       block q = what q sends, for every q
//! reduce: likewise, but the second shot goes to the root alone
//! broadcast, the vector cut into n-1 blocks, v = the rank's distance from the root:
//!   the root sends block v-1 to the rank at distance v, for every v
//!   everybody but the root sends its block to everybody but the root
//!
//! 4 ranks, all-reduce:      shot 1: rank 0 gets block 0 of 1, 2, 3 and sums it; likewise the others
//!                           shot 2: rank 0 gets block 2 of 2, block 1 of 1, block 3 of 3 (the order of `turns`)
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | all-reduce | 2 | 2(p−1)/p·n | (p−1)/p·n |
//! | reduce | 2 | (p−1)/p·n, and n/p more to the root | (p−1)/p·n |
//! | broadcast | 2 | n from the root, (p−2)/(p−1)·n from the others | none |
//!
//! Every element is combined in one reduction over ranks 0 to n−1, in that order, on one rank.
//!
//! Source: reduce-scatter and all-gather by direct exchange, as in HCCL's mesh ("two shot"); broadcast as scatter and
//! all-gather after R. Thakur, R. Rabenseifner and W. Gropp, IJHPCA 19 (2005).

use crate::mesh_one_shot::{everybody, send_blocks};
use crate::rounds::{copy_only, loneliest, with_everybody};
use crate::schedule::Schedule;
use crate::share::{check_window, each_lane, keep_own, mesh_window, refuse, root_of, share, signed};
use crate::team::{Family, Team};
use crate::turns::{Turns, everybody_else, peers, turns};
use std::ops::Range;
use std::slice;
use ubccl_core::plan::{Association, Buffer, Index, Peers, Plan, PlanBuilder, Shape, Slice, StepId, Trips};
use ubccl_core::profile::Round;
use ubccl_core::{Algorithm, AlgorithmDescriptor, Kind, Layout, Profile, ReduceOp, Result, Spec};

/// The two-shot mesh.
pub static MESH_TWO_SHOT: MeshTwoShot = MeshTwoShot;

/// See the module.
#[derive(Debug)]
pub struct MeshTwoShot;

static DESCRIPTOR: AlgorithmDescriptor = AlgorithmDescriptor {
    name: "mesh-two-shot",
    summary: "share the work, then the results, everybody to everybody; two steps, least bytes",
    source: "direct reduce-scatter and all-gather (HCCL mesh, two shot)",
};

impl Algorithm for MeshTwoShot {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        &DESCRIPTOR
    }

    fn supports(&self, kind: Kind, ranks: u32) -> Result<()> {
        match kind {
            Kind::AllReduce | Kind::Reduce => check_window(DESCRIPTOR.name, ranks),
            Kind::Broadcast => Ok(()),
            _ => refuse(DESCRIPTOR.name, kind, "it takes one shot; use mesh-one-shot, linear or pairwise"),
        }
    }

    /// Any: an element is combined once, from all ranks in their order.
    fn supports_op(&self, _op: ReduceOp) -> Result<()> {
        Ok(())
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        let p = u64::from(spec.ranks);
        if p == 1 {
            return copy_only(spec, 1, 1);
        }
        let everybody = |share| with_everybody(layout, loneliest(layout), share);
        match spec.kind {
            Kind::AllReduce => {
                Profile::of(vec![everybody((1, p)).reducing(p - 1, p), everybody((1, p))]).split()
            }
            Kind::Reduce => {
                let to_root = with_everybody(layout, root_of(spec), (1, p)).by(1);
                Profile::of(vec![everybody((1, p)).reducing(p - 1, p), to_root]).split()
            }
            _ => broadcast_profile(spec, layout),
        }
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let association = if spec.op.is_some() { Association::Flat } else { Association::None };
        let mut plan = PlanBuilder::new(spec, DESCRIPTOR.name, association);
        let fill = match spec.kind {
            Kind::AllReduce => all_reduce,
            Kind::Reduce => {
                reduce_scratch(&mut plan);
                reduce
            }
            _ => broadcast,
        };
        each_lane(&mut plan, mesh_window(spec), fill);
        plan.finish()
    }
}

/// The rank that the root serves last serves the others after that.
fn broadcast_profile(spec: &Spec, layout: &Layout) -> Profile {
    let (root, others) = (root_of(spec), u64::from(spec.ranks) - 1);
    let copied = u64::from(!spec.in_place);
    let scatter = with_everybody(layout, root, (1, others)).copying(copied, 1).by(1);
    if others == 1 {
        return Profile::of(vec![scatter]).split();
    }
    let last = (root + spec.ranks - 1) % spec.ranks;
    let served = (0..spec.ranks).filter(|&rank| rank != root && rank != last).map(|rank| (rank, 1));
    let all_gather = Round::with_peers(layout, last, served, others).to_all_alike();
    // Whose turn comes later sends later, and sooner to whom it serves first: all reach a rank together.
    let scatter = Round { meets: true, ..scatter };
    // Each takes all, and the root gives as much.
    let busiest = with_everybody(layout, loneliest(layout), (1, others)).traffic;
    Profile::of(vec![scatter, all_gather]).busiest(busiest).split()
}

/// Both shots of a team, piece by piece: a member's blocks may be many, and with one of each member under way nobody's
/// window is full while somebody waits.
pub(crate) struct TeamMesh;

/// Peers that a member of a team sends to and reduces from at once: with the reduction, a window of steps.
const PEERS_AT_ONCE: usize = 63;

impl Family for TeamMesh {
    fn name(&self) -> &'static str {
        "mesh"
    }

    fn refuses_exchange(&self) -> Option<&'static str> {
        None
    }

    fn messages(&self, members: u32) -> u32 {
        members - 1
    }

    /// The first piece of each, then the second of each.
    fn arrivals(&self, me: usize, had: Vec<Vec<Range<u32>>>) -> Vec<Range<u32>> {
        let most = had.iter().map(Vec::len).max().unwrap_or(0);
        let turns = peers(me as u32, had.len() as u32);
        let back = turns.map(|(_, from)| (me + had.len() - from as usize) % had.len());
        let order: Vec<_> = std::iter::once(0).chain(back).map(|by| &had[by]).collect();
        (0..most).flat_map(|turn| order.iter().filter_map(move |pieces| pieces.get(turn).cloned())).collect()
    }

    fn reduce_scatter(&self, schedule: &mut Schedule<'_>, team: &Team) {
        let pieces: Vec<_> = team.blocks.iter().map(|blocks| schedule.pieces(blocks)).collect();
        let most = pieces.iter().map(Vec::len).max().unwrap_or(0);
        // An all-gather backwards: what the tier before has summed first goes first.
        let turns: Vec<_> = team.turns().into_iter().rev().map(|(to, from)| (from, to)).collect();
        for some in turns.chunks(PEERS_AT_ONCE) {
            schedule.round();
            let from: Vec<_> = some.iter().map(|&(_, from)| team.ranks[from]).collect();
            for turn in 0..most {
                // Sends first: a reduction of more ranks than a list holds is several steps, which wait for each other.
                for &(to, _) in some {
                    let theirs = pieces[to].get(turn).into_iter();
                    theirs.for_each(|piece| schedule.send(slice::from_ref(piece), &[team.ranks[to]]));
                }
                pieces[team.me]
                    .get(turn)
                    .into_iter()
                    .for_each(|own| schedule.reduce(slice::from_ref(own), &from));
            }
        }
    }

    fn all_gather(&self, schedule: &mut Schedule<'_>, team: &Team) {
        schedule.round();
        let pieces: Vec<_> = team.blocks.iter().map(|blocks| schedule.pieces(blocks)).collect();
        let most = pieces.iter().map(Vec::len).max().unwrap_or(0);
        for turn in 0..most {
            let own = pieces[team.me].get(turn).into_iter();
            own.for_each(|own| schedule.send(slice::from_ref(own), &team.others()));
            for (_, from) in team.turns() {
                let theirs = pieces[from].get(turn).into_iter();
                theirs.for_each(|piece| schedule.receive(slice::from_ref(piece), team.ranks[from]));
            }
        }
    }
}

fn all_reduce(plan: &mut PlanBuilder, lane: u8) {
    let spec = *plan.spec();
    if spec.ranks == 1 {
        return keep_own(plan, lane, Shape::whole(Buffer::Output));
    }
    let own = block_of(&spec, lane, Buffer::Output, own(&spec));
    let [sum, scatter] = first_shot(plan, lane, own.clone().into());
    plan.straight();
    let give = plan.send(own, everybody_else(&spec));
    plan.after(give, sum);
    take_blocks(plan, lane, scatter);
}

fn reduce(plan: &mut PlanBuilder, lane: u8) {
    let spec = *plan.spec();
    if spec.ranks == 1 {
        return keep_own(plan, lane, Shape::whole(Buffer::Output));
    }
    let root = root_of(&spec);
    if spec.rank == root {
        let own = block_of(&spec, lane, Buffer::Output, own(&spec));
        let [_, scatter] = first_shot(plan, lane, own.into());
        return take_blocks(plan, lane, scatter);
    }
    let slot = Index::fixed(i32::from(lane));
    let shape = block_of(&spec, lane, Buffer::Input, own(&spec));
    let summed = Slice::Scratch { slot, shape, part: Vec::new() };
    let [sum, _] = first_shot(plan, lane, summed.clone());
    plan.straight();
    let give = plan.send(summed, Peers::one(Index::fixed(signed(root))));
    plan.after(give, sum);
}

/// Ranks that are not the root have nowhere else for the block that they sum.
fn reduce_scratch(plan: &mut PlanBuilder) {
    let spec = *plan.spec();
    if spec.rank != root_of(&spec) {
        let shape = block_of(&spec, 0, Buffer::Input, own(&spec));
        plan.scratch(u32::from(spec.choice.lanes.max(1)), shape);
    }
}

fn own(spec: &Spec) -> Index {
    Index::fixed(signed(spec.rank))
}

/// The lane's share of a block of the vector.
fn block_of(spec: &Spec, lane: u8, buffer: Buffer, index: Index) -> Shape {
    share(Shape::whole(buffer).even(spec.ranks, index), spec, lane)
}

/// Sums the rank's own block and sends the others; answers these two steps.
fn first_shot(plan: &mut PlanBuilder, lane: u8, into: Slice) -> [StepId; 2] {
    let spec = *plan.spec();
    // The sum is posted first, and the window has room for it and every send: it takes nothing, beyond what endpoints
    // buffer, until the messages of all ranks are under way.
    plan.straight();
    let sum = plan.receive_reduce(everybody(&spec), block_of(&spec, lane, Buffer::Input, own(&spec)), into);
    [sum, send_blocks(plan, |index| block_of(&spec, lane, Buffer::Input, index))]
}

/// Receives every other rank's block; `scatter` is the step that sent what lay there.
fn take_blocks(plan: &mut PlanBuilder, lane: u8, scatter: StepId) {
    let spec = *plan.spec();
    for Turns { count, from, back, .. } in turns(spec.rank, spec.ranks) {
        plan.repeat(Trips::Fixed(count), Trips::ONCE);
        let take = plan.receive(block_of(&spec, lane, Buffer::Output, from), from);
        if spec.in_place {
            // The block that is overwritten must have left: it went to the same rank.
            plan.after_turn(take, scatter, back, Index::INNER);
        }
    }
}

fn broadcast(plan: &mut PlanBuilder, lane: u8) {
    let spec = *plan.spec();
    let root = root_of(&spec);
    let others = spec.ranks - 1;
    let block = |buffer: Buffer, index: Index| share(Shape::whole(buffer).even(others, index), &spec, lane);
    if spec.rank == root {
        keep_own(plan, lane, Shape::whole(Buffer::Output));
        if others > 0 {
            plan.repeat(Trips::Fixed(others), Trips::ONCE);
            let to = Index::on_circle(signed(root) + 1, spec.ranks).per_outer(1);
            plan.send(block(Buffer::Input, Index::OUTER), Peers::one(to));
        }
        return;
    }
    // The others stand on a circle of their own, counted from the rank after the root.
    let place = signed((spec.rank + spec.ranks - root - 1) % spec.ranks);
    let rank_at = |index: Index| index.from(signed(root) + 1, spec.ranks);
    plan.straight();
    let share_of_root = plan.receive(block(Buffer::Output, Index::fixed(place)), Index::fixed(signed(root)));
    if others < 2 {
        return;
    }
    let first = rank_at(Index::on_circle(place + 1, others));
    let give = plan
        .send(block(Buffer::Output, Index::fixed(place)), Peers::Run { first, stride: 1, count: others - 1 });
    plan.after(give, share_of_root);
    plan.repeat(Trips::Fixed(others - 1), Trips::ONCE);
    let from = Index::on_circle(place - 1, others).per_outer(-1);
    plan.receive(block(Buffer::Output, from), rank_at(from));
}
