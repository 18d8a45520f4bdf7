//! Pairwise: every two ranks exchange what they have for each other, a few pairs at a time.
//!
//! ```text
//! all-to-all(v), rank r of n:
//!   for (t, f) in the turns of r (`turns`):  send block t to t;  block f = what f sends
//!   block r of the output = block r of the input
//! in place, where block q is to be replaced by what comes from q:
//!   for k in 0..n:  q = k-r mod n; nothing if q = r
//!                   send block q to q;  slot = what q sends;  then block q = slot
//! group:
//!   send the listed messages in order, and beside that receive the listed ones in order
//!
//! 4 ranks, who exchanges with whom at step k in place:     and who sends to whom at each turn otherwise:
//!   k   rank 0   rank 1   rank 2   rank 3                        rank 0   rank 1   rank 2   rank 3
//!   0   -        3        -        1                             2        3        0        1
//!   1   1        0        3        2                             1        0        3        2
//!   2   2        -        0        -                             3        2        1        0
//!   3   3        2        1        0
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the input, p ranks) | elements reduced |
//! |---|---|---|---|
//! | all-to-all(v) | p−1, up to 32 under way (8 in place) | (p−1)/p·n | none |
//! | group | as many as a rank has messages | what is listed | none |
//!
//! A pair exchanges one message each way (for each lane): a table may name another length for every pair, and no rank
//! knows how long the others' blocks are.
//!
//! **Why it ends.** Steps (and their number, of the turn or k) are the same for both sides of an exchange, and each rank takes
//! them in order. So the first steps that are not done have both sides posted, and nothing before them is in their way.
//! A group ends for the same reason, whatever its windows, if all ranks list their messages by one order of all
//! messages, such as: first by number among those of the pair, then by distance from sender to receiver, modulo n.
//!
//! Source: the pairwise exchange of R. Thakur, R. Rabenseifner and W. Gropp, IJHPCA 19 (2005), which pairs by exclusive
//! or for powers of two; `k − r` pairs for any n. In place as MPICH does it (swap through a buffer), with several
//! swaps under way. A group is NCCL's.

use crate::rounds::{copy_only, loneliest, with_everybody};
use crate::share::{block, each_lane, keep_block, refuse, share, signed};
use crate::turns::{Turns, turns};
use ubccl_core::plan::{
    Association, Buffer, Index, Peers, Plan, PlanBuilder, Shape, Side, Slice, StepId, Trips,
};
use ubccl_core::profile::{Round, Share};
use ubccl_core::{Algorithm, AlgorithmDescriptor, Kind, Layout, Profile, Result, Spec};

/// The pairwise exchange.
pub static PAIRWISE: Pairwise = Pairwise;

/// See the module.
#[derive(Debug)]
pub struct Pairwise;

static DESCRIPTOR: AlgorithmDescriptor = AlgorithmDescriptor {
    name: "pairwise",
    summary: "every pair exchanges its blocks, a few at a time; least bytes",
    source: "Thakur, Rabenseifner and Gropp, IJHPCA 19 (2005)",
};

/// Steps under way: exchanges with 32 peers at once (with 64, if they are short: then sends are soon over), or 64 messages of a group each way.
const WINDOW: u32 = 64;
/// Exchanges under way in place, each with a block of scratch.
const SLOTS: u32 = 8;

impl Algorithm for Pairwise {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        &DESCRIPTOR
    }

    fn supports(&self, kind: Kind, _ranks: u32) -> Result<()> {
        match kind {
            Kind::AllToAll | Kind::AllToAllV | Kind::Group => Ok(()),
            _ => refuse(DESCRIPTOR.name, kind, "ranks have nothing in particular for each other"),
        }
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        let p = u64::from(spec.ranks);
        match spec.kind {
            // What is listed is not known before.
            Kind::Group => Profile::of(vec![Round::message(layout, (0, spec.ranks - 1), Share::NONE)]),
            _ if p == 1 => copy_only(spec, 1, 1),
            _ if spec.in_place => swap_profile(spec, layout),
            _ => Profile::of(vec![
                with_everybody(layout, loneliest(layout), (1, p)).windowed(WINDOW).copying(1, p),
            ])
            .split(),
        }
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let mut plan = PlanBuilder::new(spec, DESCRIPTOR.name, Association::None);
        match spec.kind {
            Kind::Group => group(&mut plan),
            _ if spec.in_place && spec.ranks > 1 => swap_blocks(&mut plan),
            _ => each_lane(&mut plan, WINDOW, exchange),
        }
        plan.finish()
    }
}

/// A slot takes the next block when the one in it has gone to its place. Who has nothing at step k is a step ahead from
/// then on, so that the turns of all slots count all ranks, oneself included.
fn swap_profile(spec: &Spec, layout: &Layout) -> Profile {
    let (p, me) = (spec.ranks, loneliest(layout));
    let circle: Vec<u32> = (0..p).map(|by| (me + by) % p).collect();
    let round = |some: &[u32]| {
        let partners = || some.iter().filter(|&&partner| partner != me).map(|&partner| (partner, 1));
        let (blocks, all) = (partners().count() as u64, u64::from(p));
        Round::with_peers(layout, me, partners(), all).copying(blocks, all)
    };
    let at_once = if slots(spec) + 1 == p { p } else { slots(spec) };
    Profile::of(circle.chunks(at_once as usize).map(round).collect()).split()
}

fn exchange(plan: &mut PlanBuilder, lane: u8) {
    let spec = *plan.spec();
    let rank = signed(spec.rank);
    for Turns { count, to, from, .. } in turns(spec.rank, spec.ranks) {
        plan.repeat(Trips::Fixed(count), Trips::ONCE);
        plan.send(share(block(&spec, Buffer::Input, to), &spec, lane), Peers::one(to));
        plan.receive(share(block(&spec, Buffer::Output, from), &spec, lane), from);
    }
    let own = |buffer| block(&spec, buffer, Index::fixed(rank));
    keep_block(plan, lane, own(Buffer::Input), own(Buffer::Output));
}

/// An all-to-all(v) in place, of at least two ranks.
pub(crate) fn swap_blocks(plan: &mut PlanBuilder) {
    let spec = *plan.spec();
    let slots = slots(&spec) * u32::from(spec.choice.lanes.max(1));
    plan.scratch(slots, swapped(&spec, 0, Index::fixed(0)));
    each_lane(plan, WINDOW, swap);
}

fn slots(spec: &Spec) -> u32 {
    SLOTS.min(spec.ranks - 1)
}

/// The lane's share of the block that this rank and `partner` exchange.
fn swapped(spec: &Spec, lane: u8, partner: Index) -> Shape {
    share(block(spec, Buffer::Output, partner), spec, lane)
}

/// In place. A rank's exchanges are numbered without the one with itself, at step k = 2r mod n: number p is with
/// `r + 1 + (p - (2r mod n) mod n-1)`, on the circle of the others.
struct Swaps {
    spec: Spec,
    lane: u8,
}

impl Swaps {
    /// With whom number `number` is, an expression of the outer index.
    fn partner(&self, number: i32) -> Index {
        let Spec { rank, ranks, .. } = self.spec;
        let own_step = signed(2 * rank % ranks);
        Index::on_circle(number - own_step, ranks - 1).per_outer(1).from(signed(rank) + 1, ranks)
    }

    fn block(&self, number: i32) -> Shape {
        swapped(&self.spec, self.lane, self.partner(number))
    }

    fn slot(&self, number: i32) -> Slice {
        let slots = slots(&self.spec);
        let first = i32::from(self.lane) * signed(slots);
        let slot = Index::on_circle(number, slots).per_outer(1).from(first, 0);
        Slice::Scratch { slot, shape: self.block(number), part: Vec::new() }
    }

    fn exchange(&self, plan: &mut PlanBuilder, number: i32) -> [StepId; 2] {
        let send = plan.send(self.block(number), Peers::one(self.partner(number)));
        [send, plan.receive(self.slot(number), self.partner(number))]
    }

    /// Replaces a block by what came for it.
    fn keep(&self, plan: &mut PlanBuilder, number: i32) -> StepId {
        plan.copy(self.slot(number), self.block(number))
    }
}

fn swap(plan: &mut PlanBuilder, lane: u8) {
    let swaps = Swaps { spec: *plan.spec(), lane };
    let (slots, all) = (slots(&swaps.spec), swaps.spec.ranks - 1);
    let (ahead, rest) = (signed(slots), signed(all - slots));
    plan.repeat(Trips::Fixed(slots), Trips::ONCE);
    let first = swaps.exchange(plan, 0);
    // Turn i empties the slot of exchange i and fills it with exchange i + slots.
    plan.repeat(Trips::Fixed(all - slots), Trips::ONCE);
    let kept = swaps.keep(plan, 0);
    let next = swaps.exchange(plan, ahead);
    plan.after(next[1], kept);
    // What is left in the slots.
    plan.repeat(Trips::Fixed(slots), Trips::ONCE);
    let left = swaps.keep(plan, rest);
    // A block may be replaced when both its messages are through. Exchange p is turn p of the first loop, or turn
    // p - slots of the second; the other of the two does not exist.
    for (copy, number) in [(kept, 0), (left, rest)] {
        for (exchange, turn) in [(first, number), (next, number - ahead)] {
            for step in exchange {
                plan.after_turn(copy, step, Index::OUTER.plus(turn), Index::INNER);
            }
        }
    }
}

fn group(plan: &mut PlanBuilder) {
    for (side, buffer) in [(Side::Send, Buffer::Input), (Side::Receive, Buffer::Output)] {
        let message = Shape::whole(buffer).block(side, Index::INNER);
        let peer = Index::INNER.peer_of(side);
        plan.lane(WINDOW);
        plan.repeat(Trips::ONCE, Trips::Entries(side));
        match side {
            Side::Send => plan.send(message, Peers::one(peer)),
            Side::Receive => plan.receive(message, peer),
        };
    }
}
