//! All-to-all over levels: packed where all groups of a level are alike, direct and the nearest first where not.
//!
//! ```text
//! packed, rank = digits … d1 d0, tier t's digit one of L(t):
//!   for t = 0, 1, …:  bring the blocks for each value of digit t together;  exchange them with the ranks that differ in
//!                     digit t alone
//! direct:  for t = 0, 1, …:  for each turn of a mesh (`turns`) of the group of tier t:
//!            send its block to the one rank and receive that of the other, of those that are not in the group of tier t-1
//!
//! 4 ranks, two nodes of two, packed, what rank 0 holds (from→to):   at first             0→0 0→1 0→2 0→3
//!   tier 0: for 0 and 2, with rank 1                                 0→0 0→2 1→0 1→2
//!   tier 1: for 0, with rank 2                                       0→0 1→0 2→0 3→0
//! ```

use super::{Tier, members};
use crate::pairwise;
use crate::rounds::loneliest;
use crate::share::{block, each_lane, fence, keep_block, signed};
use crate::turns::{Turns, turns};
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

    /// The rank with a value on the circle of all.
    fn peer(&self, value: Index) -> Index {
        let stride = signed(self.stride);
        Index::on_circle(value.base * stride, self.size * self.stride)
            .per_outer(value.per_outer * stride)
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
    let value = Index::fixed(signed(digit.value));
    let own = plan.copy(packed(value), place(value));
    let mut loops = vec![(vec![own], Trips::ONCE)];
    for Turns { count, to, from, .. } in turns(digit.value, digit.size) {
        plan.repeat(Trips::Fixed(count), Trips::ONCE);
        let give = plan.send(packed(to), Peers::one(digit.peer(to)));
        let take = plan.receive(place(from), digit.peer(from));
        loops.push((vec![give, take], Trips::Fixed(count)));
    }
    for (steps, count) in loops {
        fence(plan, &steps, count, Trips::ONCE);
    }
}

/// The groups that a rank is in, from itself alone to the outermost tier's.
fn stages(rank: Rank, tiers: &[Tier], layout: &Layout) -> Vec<Range<Rank>> {
    let group = |tier| {
        let members = members(layout, tiers, tier, rank);
        members[0].start..members[members.len() - 1].end
    };
    std::iter::once(rank..rank + 1).chain((0..tiers.len()).map(group)).collect()
}

/// Every message for itself. It ends as `pairwise` does: all take their messages by stage, then by turn of the stage's group.
fn direct(plan: &mut PlanBuilder, lane: u8, stages: &[Range<Rank>]) {
    let spec = *plan.spec();
    for pair in stages.windows(2) {
        let (inner, group) = (&pair[0], &pair[1]);
        let is_new = |member: Rank| !inner.contains(&(group.start + member));
        for mut turns in turns(spec.rank - group.start, group.len() as u32) {
            let news: Vec<_> = turns.peers().map(|(to, from)| [is_new(to), is_new(from)]).collect();
            // Turns in which as much is new are a loop.
            for alike in news.chunk_by(|one, next| one == next) {
                let count = alike.len() as u32;
                exchange_some(plan, lane, group.start, Turns { count, ..turns }, alike[0]);
                turns = turns.skip(count);
            }
        }
    }
    let own = |buffer| block(&spec, buffer, Index::fixed(signed(spec.rank)));
    keep_block(plan, lane, own(Buffer::Input), own(Buffer::Output));
}

/// In these turns of a group that begins at `first`, sends or receives or does both.
fn exchange_some(plan: &mut PlanBuilder, lane: u8, first: Rank, turns: Turns, [sends, receives]: [bool; 2]) {
    let spec = *plan.spec();
    let part = |shape: Shape| crate::share::share(shape, &spec, lane);
    let [to, from] = [turns.to, turns.from].map(|member| member.from(signed(first), 0));
    if sends || receives {
        plan.repeat(Trips::Fixed(turns.count), Trips::ONCE);
    }
    if sends {
        plan.send(part(block(&spec, Buffer::Input, to)), Peers::one(to));
    }
    if receives {
        plan.receive(part(block(&spec, Buffer::Output, from)), from);
    }
}
