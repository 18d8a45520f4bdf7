//! Linear: the root talks to everybody, nobody else to anybody.
//!
//! ```text
//! gather(v):   everybody sends x to the root;          block q = what q sends, for every q
//! scatter(v):  the root sends block q to q, for every q
//! reduce:      everybody sends x to the root;          y = x[0] + x[1] + … + x[n-1], rounded once
//! broadcast:   the root sends x to everybody
//!
//! 4 ranks, root 1, in which order the root takes and gives:    2  3  0
//! ```
//!
//! | collective | steps | bytes through the root (n bytes in its vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | gather(v), scatter(v) | 1, up to 64 messages under way | (p−1)/p·n | none |
//! | reduce | 1 | (p−1)·n | (p−1)·n, on the root |
//! | broadcast | 1 | (p−1)·n | none |
//!
//! For few ranks, and for large blocks, which the root's link takes as long for any other way. It is the only way for
//! the kinds with tables, where nobody but the root knows more than its own length. A reduction is combined at once over
//! ranks 0 to n−1, in that order.
//!
//! Source: the flat tree of every MPI; broadcast is the one-shot mesh's.

use crate::mesh_one_shot::{broadcast, broadcast_profile, everybody};
use crate::rounds::{copy_only, with_everybody};
use crate::share::{block, each_lane, keep_block, keep_own, mesh_window, refuse, root_of, share, signed};
use ubccl_core::plan::{Association, Buffer, Index, Peers, Plan, PlanBuilder, Shape, Trips};
use ubccl_core::{Algorithm, AlgorithmDescriptor, Kind, Layout, Profile, ReduceOp, Result, Spec};

/// The linear family.
pub static LINEAR: Linear = Linear;

/// See the module.
#[derive(Debug)]
pub struct Linear;

static DESCRIPTOR: AlgorithmDescriptor = AlgorithmDescriptor {
    name: "linear",
    summary: "the root talks to everybody; one step, all bytes through the root",
    source: "the flat tree of every MPI",
};

const WINDOW: u32 = 64;

impl Algorithm for Linear {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        &DESCRIPTOR
    }

    fn supports(&self, kind: Kind, _ranks: u32) -> Result<()> {
        if kind.row().rooted { Ok(()) } else { refuse(DESCRIPTOR.name, kind, "it has no root") }
    }

    /// All of them: a reduction is one step over all ranks in order.
    fn supports_op(&self, _op: ReduceOp) -> Result<()> {
        Ok(())
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        let p = u64::from(spec.ranks);
        let around = |share| with_everybody(layout, root_of(spec), share).by(1);
        match spec.kind {
            Kind::Broadcast => broadcast_profile(spec, layout),
            _ if p == 1 => copy_only(spec, 1, 1),
            Kind::Reduce => {
                Profile::of(vec![around((1, 1)).reducing(p - 1, 1).folding().fanning_in()]).split()
            }
            _ => {
                let round = around((1, p)).copying(u64::from(!spec.in_place), p);
                let gathers = matches!(spec.kind, Kind::Gather | Kind::GatherV);
                Profile::of(vec![if gathers { round.fanning_in() } else { round }]).split()
            }
        }
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let association = if spec.op.is_some() { Association::Flat } else { Association::None };
        let mut plan = PlanBuilder::new(spec, DESCRIPTOR.name, association);
        match spec.kind {
            Kind::Gather | Kind::GatherV => each_lane(&mut plan, WINDOW, gather),
            Kind::Scatter | Kind::ScatterV => each_lane(&mut plan, WINDOW, scatter),
            Kind::Reduce => each_lane(&mut plan, WINDOW, reduce),
            Kind::Broadcast => each_lane(&mut plan, mesh_window(spec), broadcast),
            _ => unreachable!("supports() refused it"),
        }
        plan.finish()
    }
}

fn gather(plan: &mut PlanBuilder, lane: u8) {
    let spec = *plan.spec();
    if spec.rank != root_of(&spec) {
        return send_input(plan, lane);
    }
    if spec.ranks > 1 {
        let from = others_in_turn(plan);
        plan.receive(share(block(&spec, Buffer::Output, from), &spec, lane), from);
    }
    keep_own(plan, lane, block(&spec, Buffer::Output, Index::fixed(signed(spec.rank))));
}

fn scatter(plan: &mut PlanBuilder, lane: u8) {
    let spec = *plan.spec();
    let (root, output) = (root_of(&spec), Shape::whole(Buffer::Output));
    if spec.rank != root {
        plan.straight();
        plan.receive(share(output, &spec, lane), Index::fixed(signed(root)));
        return;
    }
    if spec.ranks > 1 {
        let to = others_in_turn(plan);
        plan.send(share(block(&spec, Buffer::Input, to), &spec, lane), Peers::one(to));
    }
    keep_block(plan, lane, block(&spec, Buffer::Input, Index::fixed(signed(root))), output);
}

fn reduce(plan: &mut PlanBuilder, lane: u8) {
    let spec = *plan.spec();
    if spec.rank != root_of(&spec) {
        return send_input(plan, lane);
    }
    let (own, into) = (Shape::whole(Buffer::Input), Shape::whole(Buffer::Output));
    if spec.ranks == 1 {
        return keep_own(plan, lane, into);
    }
    plan.straight();
    plan.receive_reduce(everybody(&spec), share(own, &spec, lane), share(into, &spec, lane));
}

/// Sends all that this rank brings to the root.
fn send_input(plan: &mut PlanBuilder, lane: u8) {
    let spec = *plan.spec();
    plan.straight();
    let to = Peers::one(Index::fixed(signed(root_of(&spec))));
    plan.send(share(Shape::whole(Buffer::Input), &spec, lane), to);
}

/// Begins a loop with a turn for each other rank, beginning with the next; answers which.
fn others_in_turn(plan: &mut PlanBuilder) -> Index {
    let spec = *plan.spec();
    plan.repeat(Trips::Fixed(spec.ranks - 1), Trips::ONCE);
    Index::on_circle(signed(spec.rank) + 1, spec.ranks).per_outer(1)
}
