//! One-shot mesh: every rank sends each other rank all that it needs, at once.
//!
//! ```text
//! all-reduce:      send all of x to everybody;  y = x[0] + x[1] + … + x[n-1], rounded once
//! all-gather(v):   send x to everybody;         block q = what q sends, for every q
//! reduce-scatter(v):  send block q to q, for every q;  y = sum of what comes, rounded once
//! broadcast:       the root sends x to everybody
//! barrier:         send nothing (a header) to everybody; wait for everybody's
//! sendrecv:        send to one, receive from one
//!
//! 4 ranks, who sends to whom in which order (`turns`: nobody is flooded, and twins meet at one turn):
//!   rank 0: 2 1 3     rank 1: 3 0 2     rank 2: 0 3 1     rank 3: 1 2 0
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | all-reduce | 1 | (p−1)·n | (p−1)·n |
//! | all-gather(v) | 1 | (p−1)/p·n | none |
//! | reduce-scatter(v) | 1 | (p−1)/p·n | (p−1)/p·n |
//! | broadcast | 1 | (p−1)·n from the root | none |
//! | barrier | 1 | none | none |
//! | sendrecv | 1 | n | none |
//!
//! Every element is combined in one reduction over ranks 0 to n−1, in that order, on every rank alike.
//!
//! Gather, scatter and reduce in one shot are what `linear` does.
//!
//! Source: direct exchange, as in HCCL's mesh ("one shot" in its terms). In place the input is copied aside first: a
//! send need not complete before its receivers have taken all of it.

use crate::rounds::{copy_only, loneliest, with_everybody};
use crate::share::{
    block, check_window, each_lane, keep_own, mesh_window, refuse, root_of, share, signed, stable_input,
    stable_input_scratch,
};
use crate::turns::{Turns, everybody_else, receiver, turns};
use ubccl_core::plan::{Association, Buffer, Index, Peers, Plan, PlanBuilder, Shape, Slice, Trips};
use ubccl_core::profile::{Round, Share};
use ubccl_core::{Algorithm, AlgorithmDescriptor, Kind, Layout, Profile, ReduceOp, Result, Spec};

/// The one-shot mesh.
pub static MESH_ONE_SHOT: MeshOneShot = MeshOneShot;

/// See the module.
#[derive(Debug)]
pub struct MeshOneShot;

static DESCRIPTOR: AlgorithmDescriptor = AlgorithmDescriptor {
    name: "mesh-one-shot",
    summary: "everybody to everybody at once; one step, most bytes",
    source: "direct exchange (HCCL mesh, one shot)",
};

impl Algorithm for MeshOneShot {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        &DESCRIPTOR
    }

    fn supports(&self, kind: Kind, ranks: u32) -> Result<()> {
        match kind {
            Kind::ReduceScatter | Kind::ReduceScatterV => check_window(DESCRIPTOR.name, ranks),
            Kind::AllReduce | Kind::AllGather | Kind::AllGatherV | Kind::Broadcast => Ok(()),
            Kind::Barrier | Kind::SendReceive => Ok(()),
            _ if kind.row().rooted => refuse(DESCRIPTOR.name, kind, "only the root takes part; use linear"),
            _ => refuse(DESCRIPTOR.name, kind, "every pair has a message of its own; use pairwise"),
        }
    }

    /// Any: an element is combined once, from all ranks in their order.
    fn supports_op(&self, _op: ReduceOp) -> Result<()> {
        Ok(())
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        let p = u64::from(spec.ranks);
        let everybody = |share| with_everybody(layout, loneliest(layout), share);
        match spec.kind {
            Kind::Barrier => profile(everybody((0, p))),
            Kind::SendReceive => send_receive_profile(spec, layout),
            Kind::Broadcast => broadcast_profile(spec, layout),
            _ if p == 1 => copy_only(spec, 1, 1),
            Kind::AllReduce => {
                let copied = u64::from(spec.in_place);
                profile(everybody((1, 1)).reducing(p - 1, 1).copying(copied, 1)).split()
            }
            Kind::AllGather | Kind::AllGatherV => {
                profile(everybody((1, p)).copying(u64::from(!spec.in_place), p)).split()
            }
            _ => profile(everybody((1, p)).reducing(p - 1, p)).split(),
        }
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let association = if spec.op.is_some() { Association::Flat } else { Association::None };
        let mut plan = PlanBuilder::new(spec, DESCRIPTOR.name, association);
        let window = mesh_window(spec);
        match spec.kind {
            Kind::AllReduce => {
                stable_input_scratch(&mut plan);
                each_lane(&mut plan, window, all_reduce);
            }
            Kind::AllGather | Kind::AllGatherV => each_lane(&mut plan, window, all_gather),
            Kind::ReduceScatter | Kind::ReduceScatterV => each_lane(&mut plan, window, reduce_scatter),
            Kind::Broadcast => each_lane(&mut plan, window, broadcast),
            Kind::Barrier => barrier(&mut plan),
            Kind::SendReceive => {
                if spec.to.is_some() && spec.from.is_some() {
                    stable_input_scratch(&mut plan);
                }
                each_lane(&mut plan, window, send_receive);
            }
            _ => unreachable!("supports() refused it"),
        }
        plan.finish()
    }
}

/// Of one round.
fn profile(round: Round) -> Profile {
    let does_something = !round.traffic.is_empty() || round.copied.parts > 0;
    Profile::of(does_something.then_some(round).into_iter().collect())
}

fn send_receive_profile(spec: &Spec, layout: &Layout) -> Profile {
    let peer = spec.to.or(spec.from).filter(|&peer| peer != spec.rank);
    let both = spec.to.is_some() && spec.from.is_some();
    match peer {
        Some(peer) => {
            let copied = u64::from(spec.in_place && both);
            profile(Round::message(layout, (spec.rank, peer), Share::ALL).copying(copied, 1))
        }
        None if both => copy_only(spec, 1, 1),
        None => Profile::default(),
    }
}

/// The root sends everything to everybody.
pub(crate) fn broadcast_profile(spec: &Spec, layout: &Layout) -> Profile {
    let copied = u64::from(!spec.in_place);
    profile(with_everybody(layout, root_of(spec), (1, 1)).copying(copied, 1).by(1).to_all_alike()).split()
}

/// All ranks, from 0.
pub(crate) fn everybody(spec: &Spec) -> Peers {
    Peers::Run { first: Index::fixed(0), stride: 1, count: spec.ranks }
}

fn all_reduce(plan: &mut PlanBuilder, lane: u8) {
    let spec = *plan.spec();
    if spec.ranks == 1 {
        return keep_own(plan, lane, Shape::whole(Buffer::Output));
    }
    plan.straight();
    let (stable, copied) = stable_input(plan, lane);
    let send = plan.send(stable, everybody_else(&spec));
    if let Some(copied) = copied {
        plan.after(send, copied);
    }
    let sum = plan.receive_reduce(
        everybody(&spec),
        share(Shape::whole(Buffer::Input), &spec, lane),
        share(Shape::whole(Buffer::Output), &spec, lane),
    );
    if let Some(copied) = copied {
        plan.after(sum, copied);
    }
}

fn all_gather(plan: &mut PlanBuilder, lane: u8) {
    let spec = *plan.spec();
    if spec.ranks > 1 {
        plan.straight();
        plan.send(share(Shape::whole(Buffer::Input), &spec, lane), everybody_else(&spec));
    }
    // Whoever reaches this rank first is received first.
    for Turns { count, from, .. } in turns(spec.rank, spec.ranks) {
        plan.repeat(Trips::Fixed(count), Trips::ONCE);
        plan.receive(share(block(&spec, Buffer::Output, from), &spec, lane), from);
    }
    keep_own(plan, lane, block(&spec, Buffer::Output, Index::fixed(signed(spec.rank))));
}

fn reduce_scatter(plan: &mut PlanBuilder, lane: u8) {
    let spec = *plan.spec();
    if spec.ranks == 1 {
        return keep_own(plan, lane, Shape::whole(Buffer::Output));
    }
    let block = |index: Index| share(block(&spec, Buffer::Input, index), &spec, lane);
    // The sum is posted first, and the window has room for it and every send: it takes nothing, beyond what endpoints
    // buffer, until the messages of all ranks are under way.
    plan.straight();
    plan.receive_reduce(
        everybody(&spec),
        block(Index::fixed(signed(spec.rank))),
        share(Shape::whole(Buffer::Output), &spec, lane),
    );
    send_blocks(plan, block);
}

/// Sends block q to q, for every other q.
pub(crate) fn send_blocks(
    plan: &mut PlanBuilder,
    block: impl Fn(Index) -> Shape,
) -> ubccl_core::plan::StepId {
    let spec = *plan.spec();
    plan.repeat(Trips::Fixed(spec.ranks - 1), Trips::ONCE);
    let to = receiver(spec.rank, spec.ranks);
    plan.send(block(to), Peers::one(to))
}

pub(crate) fn broadcast(plan: &mut PlanBuilder, lane: u8) {
    let spec = *plan.spec();
    let root = root_of(&spec);
    let output = share(Shape::whole(Buffer::Output), &spec, lane);
    if spec.rank != root {
        plan.straight();
        plan.receive(output, Index::fixed(signed(root)));
        return;
    }
    if spec.ranks > 1 {
        plan.straight();
        plan.send(share(Shape::whole(Buffer::Input), &spec, lane), everybody_else(&spec));
    }
    keep_own(plan, lane, Shape::whole(Buffer::Output));
}

fn barrier(plan: &mut PlanBuilder) {
    let spec = *plan.spec();
    plan.lane(mesh_window(&spec));
    if spec.ranks > 1 {
        plan.straight();
        plan.send(Slice::Empty, everybody_else(&spec));
    }
    for Turns { count, from, .. } in turns(spec.rank, spec.ranks) {
        plan.repeat(Trips::Fixed(count), Trips::ONCE);
        plan.receive(Slice::Empty, from);
    }
}

fn send_receive(plan: &mut PlanBuilder, lane: u8) {
    let spec = *plan.spec();
    if spec.to == Some(spec.rank) && spec.from == Some(spec.rank) {
        return keep_own(plan, lane, Shape::whole(Buffer::Output));
    }
    plan.straight();
    let both = spec.to.is_some() && spec.from.is_some();
    let (input, copied) = if both {
        stable_input(plan, lane)
    } else {
        (share(Shape::whole(Buffer::Input), &spec, lane).into(), None)
    };
    if let Some(to) = spec.to {
        let send = plan.send(input, Peers::one(Index::fixed(signed(to))));
        copied.into_iter().for_each(|copied| plan.after(send, copied));
    }
    if let Some(from) = spec.from {
        let output = share(Shape::whole(Buffer::Output), &spec, lane);
        let take = plan.receive(output, Index::fixed(signed(from)));
        copied.into_iter().for_each(|copied| plan.after(take, copied));
    }
}
