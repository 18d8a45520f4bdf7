//! All-to-all over levels: packed where all groups of a level are alike, direct and the nearest first where not.
//!
//! ```text
//! packed, rank = digits … d1 d0, tier t's digit one of L(t):
//!   for t = 0, 1, …:  bring the blocks for each value of digit t together;  exchange them with the ranks that differ in
//!                     digit t alone
//! direct:  for t = 0, 1, …:  for each distance on the circle of the group of tier t, past the group of tier t-1:
//!            send its block to the rank so far before, receive the one from the rank so far behind
//!
//! 4 ranks, two nodes of two, packed, what rank 0 holds (from→to):   at first             0→0 0→1 0→2 0→3
//!   tier 0: for 0 and 2, with rank 1                                 0→0 0→2 1→0 1→2
//!   tier 1: for 0, with rank 2                                       0→0 1→0 2→0 3→0
//! ```

use super::{Tier, members};
use crate::pairwise;
use crate::rounds::loneliest;
use crate::share::{block, each_lane, fence, keep_block, signed};
use std::ops::Range;
use ubccl_core::plan::{
    Association, Buffer, Cut, Index, Peers, Plan, PlanBuilder, Shape, Slice, StepId, Trips,
};
use ubccl_core::profile::{Round, Share};
use ubccl_core::{Kind, Layout, Profile, Rank, Spec};

const WINDOW: u32 = 64;

/// A rank's plan.
pub(super) fn plan(spec: &Spec, name: &'static str, tiers: &[Tier], layout: &Layout) -> Plan {
    let mut plan = PlanBuilder::new(spec, name, Association::None);
    match digits(spec.kind, tiers, layout) {
        Some(sizes) => packed(&mut plan, &sizes),
        // Pairs that exchange through a slot agree on an order of their own.
        None if spec.in_place && spec.ranks > 1 => pairwise::swap_blocks(&mut plan),
        None => {
            let stages = stages(spec.rank, tiers, layout);
            each_lane(&mut plan, WINDOW, |plan, lane| direct(plan, lane, &stages));
        }
    }
    plan.finish()
}

/// What it costs.
pub(super) fn profile(spec: &Spec, tiers: &[Tier], layout: &Layout, machine: &Layout) -> Profile {
    let (rank, of) = (loneliest(machine), u64::from(spec.ranks));
    let copies = |parts: u64, of: u64| Round { times: 1, copied: Share::new(parts, of), ..Round::default() };
    let Some(sizes) = digits(spec.kind, tiers, layout) else {
        let peers = (0..spec.ranks).filter(|&peer| peer != rank).map(|peer| (peer, 1));
        let copied = if spec.in_place { spec.ranks - 1 } else { 1 };
        let round = Round::with_peers(machine, rank, peers, of).windowed(WINDOW / 2);
        let rounds = [round, copies(u64::from(copied), of)];
        return Profile::of(rounds.into_iter().skip(usize::from(spec.ranks == 1)).collect()).split();
    };
    let mut rounds = Vec::new();
    for digit in Digit::all(rank, &sizes) {
        let peers = (0..digit.size).filter(|&value| value != digit.value).map(|value| (digit.rank(value), 1));
        rounds.push(copies(1, 1));
        let round = Round::with_peers(machine, rank, peers, u64::from(digit.size)).windowed(WINDOW);
        rounds.push(Round { copied: Share::new(1, u64::from(digit.size)), ..round });
    }
    Profile::of(rounds)
}

/// How many values each digit of a rank has, innermost first, if all groups of every tier are alike and blocks too. One
/// digit alone packs nothing.
fn digits(kind: Kind, tiers: &[Tier], layout: &Layout) -> Option<Vec<u32>> {
    let levels = || tiers.iter().map(|tier| &layout.levels()[tier.level]);
    if kind != Kind::AllToAll || !levels().all(|level| level.is_even()) {
        return None;
    }
    let mut inner = 1;
    let size = |group: u32| group / std::mem::replace(&mut inner, group);
    let sizes: Vec<u32> = levels().map(|level| level.largest()).map(size).filter(|&size| size > 1).collect();
    (sizes.len() > 1).then_some(sizes)
}

/// One digit of a rank.
struct Digit {
    rank: Rank,
    size: u32,
    value: u32,
    /// From one value to the next.
    stride: u32,
}

impl Digit {
    fn all(rank: Rank, sizes: &[u32]) -> Vec<Digit> {
        let mut stride = 1;
        let digit = |&size: &u32| {
            let digit = Digit { rank, size, value: rank / stride % size, stride };
            stride *= size;
            digit
        };
        sizes.iter().map(digit).collect()
    }

    /// The rank that differs in this digit alone.
    fn rank(&self, value: u32) -> Rank {
        self.rank - self.value * self.stride + value * self.stride
    }

    /// The value `by` further on the circle, `step` more with each turn.
    fn at(&self, by: i32, step: i32) -> Index {
        Index::on_circle(signed(self.value) + by, self.size).per_outer(step)
    }

    /// The rank with that value.
    fn peer(&self, by: i32, step: i32) -> Index {
        let stride = signed(self.stride);
        Index::on_circle((signed(self.value) + by) * stride, self.size * self.stride)
            .per_outer(step * stride)
            .from(signed(self.rank(0)), 0)
    }
}

fn scratch(part: Cut) -> Slice {
    Slice::Scratch { slot: Index::fixed(0), shape: Shape::whole(Buffer::Input), part: vec![part] }
}

fn packed(plan: &mut PlanBuilder, sizes: &[u32]) {
    plan.scratch(1, Shape::whole(Buffer::Input));
    plan.lane(WINDOW);
    for (tier, digit) in Digit::all(plan.spec().rank, sizes).iter().enumerate() {
        bring_together(plan, sizes, tier);
        exchange(plan, digit);
    }
}

/// One of the three numbers of a run of blocks: how many values it has, and how many blocks apart they lie.
#[derive(Clone, Copy)]
struct Axis {
    values: u32,
    source: u32,
    target: u32,
}

/// Packs the blocks by their value of the digit of `tier`. They lie by who sent them at the tier before, then by where
/// they go from this tier on (outermost digit first), then by who sent them before that; the last are runs.
fn bring_together(plan: &mut PlanBuilder, sizes: &[u32], tier: usize) {
    let parts = plan.spec().ranks;
    let from = if tier == 0 { Buffer::Input } else { Buffer::Output };
    let run: u32 = sizes[..tier.saturating_sub(1)].iter().product();
    let senders = if tier == 0 { 1 } else { sizes[tier - 1] };
    let (size, outer): (u32, u32) = (sizes[tier], sizes[tier + 1..].iter().product());
    let mut axes = [
        Axis { values: senders, source: outer * size * run, target: run },
        Axis { values: outer, source: size * run, target: senders * run },
        Axis { values: size, source: run, target: outer * senders * run },
    ];
    axes.sort_by_key(|axis| axis.values);
    let [few, middle, many] = axes;
    let (middles, manies) = (Trips::Fixed(middle.values), Trips::Fixed(many.values));
    plan.repeat(middles.clone(), manies.clone());
    let copies = (0..few.values).map(|value| {
        let span = |stride: fn(Axis) -> u32| {
            let first = Index::fixed(signed(value * stride(few)))
                .per_outer(signed(stride(middle)))
                .per_inner(signed(stride(many)));
            Cut::Span { parts, first, blocks: run }
        };
        let source = Shape { buffer: from, cuts: vec![span(|axis| axis.source)] };
        plan.copy(source, scratch(span(|axis| axis.target)))
    });
    let copies: Vec<StepId> = copies.collect();
    fence(plan, &copies, middles, manies);
}

/// Exchanges the packed blocks with the ranks that differ in one digit; the next may overwrite both sides.
fn exchange(plan: &mut PlanBuilder, digit: &Digit) {
    let packed = |index: Index| scratch(Cut::Even { parts: digit.size, index });
    let place = |index: Index| Shape::whole(Buffer::Output).even(digit.size, index);
    plan.straight();
    let own = plan.copy(packed(digit.at(0, 0)), place(digit.at(0, 0)));
    let turns = Trips::Fixed(digit.size - 1);
    plan.repeat(turns.clone(), Trips::ONCE);
    let give = plan.send(packed(digit.at(1, 1)), Peers::one(digit.peer(1, 1)));
    let take = plan.receive(place(digit.at(-1, -1)), digit.peer(-1, -1));
    let all = fence(plan, &[give, take], turns, Trips::ONCE);
    plan.after_turn(all, own, Index::fixed(0), Index::fixed(0));
}

/// The groups that a rank is in, from itself alone to the outermost tier's.
fn stages(rank: Rank, tiers: &[Tier], layout: &Layout) -> Vec<Range<Rank>> {
    let group = |tier| {
        let members = members(layout, tiers, tier, rank);
        members[0].start..members[members.len() - 1].end
    };
    std::iter::once(rank..rank + 1).chain((0..tiers.len()).map(group)).collect()
}

/// Every message for itself. It ends as `pairwise` does: all take their messages by stage, then by distance from sender to
/// receiver on the circle of the stage's group.
fn direct(plan: &mut PlanBuilder, lane: u8, stages: &[Range<Rank>]) {
    let spec = *plan.spec();
    let part = |shape: Shape| crate::share::share(shape, &spec, lane);
    for pair in stages.windows(2) {
        let (inner, group) = (&pair[0], &pair[1]);
        let (members, place) = (group.len() as u32, spec.rank - group.start);
        // Distances past the inner group, to those that are sent to and from those that are received from.
        let (ahead, behind) = (inner.end - spec.rank, spec.rank - inner.start + 1);
        let (sent, received) = (ahead..members - behind + 1, behind..members - ahead + 1);
        let mut ends = [sent.start, sent.end, received.start, received.end];
        ends.sort_unstable();
        for range in ends.windows(2).map(|ends| ends[0]..ends[1]).filter(|range| !range.is_empty()) {
            let at = |by: i32| Index::on_circle(signed(place) + by, members).from(signed(group.start), 0);
            let first = signed(range.start);
            plan.repeat(Trips::Fixed(range.len() as u32), Trips::ONCE);
            if sent.contains(&range.start) {
                let to = at(first).per_outer(1);
                plan.send(part(block(&spec, Buffer::Input, to)), Peers::one(to));
            }
            if received.contains(&range.start) {
                let from = at(-first).per_outer(-1);
                plan.receive(part(block(&spec, Buffer::Output, from)), from);
            }
        }
    }
    let own = |buffer| block(&spec, buffer, Index::fixed(signed(spec.rank)));
    keep_block(plan, lane, own(Buffer::Input), own(Buffer::Output));
}
