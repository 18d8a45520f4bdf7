//! Random faults in real plans, to see whether the verifier notices. For tests.

use crate::plan::{Action, After, Cut, Edge, Index, MAX_LISTED_PEERS, Peers, Plan, Slice, Step, StepId};

/// The kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// A step is left out.
    DroppedStep,
    /// A step talks to another rank.
    WrongPeer,
    /// Two steps' slices are exchanged, or a slice is another block.
    SwappedSlice,
    /// An edge is left out.
    MissingEdge,
    /// A peer is listed twice.
    DoubledSource,
    /// Sources are listed in another order.
    ReorderedSources,
    /// A reduction is made of two: some sources, then their result with the others.
    SplitReduction,
}

impl Mutation {
    /// Every kind.
    pub const ALL: [Mutation; 7] = [
        Mutation::DroppedStep,
        Mutation::WrongPeer,
        Mutation::SwappedSlice,
        Mutation::MissingEdge,
        Mutation::DoubledSource,
        Mutation::ReorderedSources,
        Mutation::SplitReduction,
    ];
}

/// A small random generator (splitmix64): the same numbers for the same seed, everywhere.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// One of them, if there is one.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { Some(&items[self.below(items.len())]) }
    }
}

/// The plan with one random fault of this kind, or `None` if it has no place for one.
pub fn mutate(plan: &Plan, mutation: Mutation, random: &mut Random) -> Option<Plan> {
    let mut mutant = plan.clone();
    let done = match mutation {
        Mutation::DroppedStep => drop_step(&mut mutant, random),
        Mutation::WrongPeer => change_peer(&mut mutant, random),
        Mutation::SwappedSlice => change_slice(&mut mutant, random),
        Mutation::MissingEdge => drop_edge(&mut mutant, random),
        Mutation::DoubledSource => double_source(&mut mutant, random),
        Mutation::ReorderedSources => reorder_sources(&mut mutant, random),
        Mutation::SplitReduction => split_reduction(&mut mutant, random),
    };
    done.filter(|()| mutant != *plan).map(|()| mutant)
}

/// The steps of a plan that `wanted` holds for.
fn find(plan: &Plan, wanted: impl Fn(&Step) -> bool) -> Vec<StepId> {
    let ids = (0..plan.places.len() as u16).map(StepId);
    ids.filter(|&id| wanted(step(plan, id))).collect()
}

fn step(plan: &Plan, id: StepId) -> &Step {
    let place = plan.place(id);
    &plan.lanes[usize::from(place.lane)].loops[usize::from(place.turn)].steps[usize::from(place.body)]
}

fn step_mut(plan: &mut Plan, id: StepId) -> &mut Step {
    let place = plan.place(id);
    &mut plan.lanes[usize::from(place.lane)].loops[usize::from(place.turn)].steps[usize::from(place.body)]
}

fn drop_step(plan: &mut Plan, random: &mut Random) -> Option<()> {
    let id = *random.pick(&find(plan, |_| true))?;
    let gone = plan.places.remove(usize::from(id.0));
    plan.lanes[usize::from(gone.lane)].loops[usize::from(gone.turn)].steps.remove(usize::from(gone.body));
    for place in &mut plan.places {
        let behind = (place.lane, place.turn) == (gone.lane, gone.turn) && place.body > gone.body;
        place.body -= u16::from(behind);
    }
    let renumber = |after: &mut After| {
        after.step.0 -= u16::from(after.step > id);
    };
    for step in plan.lanes.iter_mut().flat_map(|lane| &mut lane.loops).flat_map(|turn| &mut turn.steps) {
        step.after.retain(|after| after.step != id);
        step.after.iter_mut().for_each(renumber);
    }
    Some(())
}

fn change_peer(plan: &mut Plan, random: &mut Random) -> Option<()> {
    let id = *random.pick(&find(plan, |step| !matches!(step.action, Action::Copy { .. })))?;
    let ranks = plan.spec.ranks;
    let (me, by) = (plan.spec.rank, 1 + random.below(ranks.max(2) as usize - 1) as i32);
    match &mut step_mut(plan, id).action {
        Action::Receive { from, .. } => *from = shifted(*from, by, ranks),
        Action::Send { to: peers, .. } | Action::ReceiveReduce { sources: peers, .. } => match peers {
            Peers::Run { first, .. } => *first = shifted(*first, by, ranks),
            Peers::List(list) => {
                let others: Vec<usize> =
                    (0..list.len()).filter(|&k| list[k].at(Default::default()) != i64::from(me)).collect();
                let k = *random.pick(&others)?;
                list[k] = shifted(list[k], by, ranks);
            }
        },
        Action::Copy { .. } => return None,
    }
    Some(())
}

/// `by` further round the ranks.
fn shifted(index: Index, by: i32, ranks: u32) -> Index {
    match (index.wrap, index.modulo) {
        (0, 0) => Index { modulo: ranks, ..index.plus(by) },
        (0, _) => index.plus(by),
        _ => Index { offset: index.offset + by, ..index },
    }
}

fn slices(action: &mut Action) -> Vec<&mut Slice> {
    match action {
        Action::Send { from: slice, .. } | Action::Receive { into: slice, .. } => vec![slice],
        Action::ReceiveReduce { own, into, .. } => vec![own, into],
        Action::Copy { from, into } => vec![from, into],
    }
}

fn change_slice(plan: &mut Plan, random: &mut Random) -> Option<()> {
    let steps = find(plan, |_| true);
    let (one, other) = (*random.pick(&steps)?, *random.pick(&steps)?);
    let pick = |plan: &mut Plan, id, random: &mut Random| {
        let slices = slices(&mut step_mut(plan, id).action);
        let k = random.below(slices.len());
        (slices[k].clone(), k)
    };
    let (first, k) = pick(plan, one, random);
    if one != other && random.below(2) == 0 {
        let (second, l) = pick(plan, other, random);
        *slices(&mut step_mut(plan, one).action)[k] = second;
        *slices(&mut step_mut(plan, other).action)[l] = first;
        return Some(());
    }
    let mut slice = first;
    let cuts = match &mut slice {
        Slice::Empty => return None,
        Slice::Of(shape) => &mut shape.cuts,
        Slice::Scratch { slot, part, .. } if part.is_empty() || random.below(2) == 0 => {
            slot.base += 1;
            *slices(&mut step_mut(plan, one).action)[k] = slice;
            return Some(());
        }
        Slice::Scratch { part, .. } => part,
    };
    if cuts.is_empty() {
        return None;
    }
    let cut = random.below(cuts.len());
    match &mut cuts[cut] {
        Cut::Even { parts, index } if *parts > 1 => {
            *index = shifted(*index, 1 + random.below(*parts as usize - 1) as i32, *parts);
        }
        Cut::Span { parts, first, blocks } if *parts > *blocks => {
            let by = 1 + random.below((*parts - *blocks) as usize) as i32;
            *first = shifted(*first, by, *parts - *blocks + 1);
        }
        Cut::Even { .. } | Cut::Span { .. } | Cut::Times(_) => return None,
        Cut::Chunk { index, .. } | Cut::Block { index, .. } => index.base += 1,
    }
    *slices(&mut step_mut(plan, one).action)[k] = slice;
    Some(())
}

fn drop_edge(plan: &mut Plan, random: &mut Random) -> Option<()> {
    let id = *random.pick(&find(plan, |step| !step.after.is_empty()))?;
    let after = &mut step_mut(plan, id).after;
    after.remove(random.below(after.len()));
    Some(())
}

fn lists(step: &Step) -> Option<&Peers> {
    match &step.action {
        Action::Send { to: peers, .. } | Action::ReceiveReduce { sources: peers, .. } => Some(peers),
        _ => None,
    }
}

fn double_source(plan: &mut Plan, random: &mut Random) -> Option<()> {
    let id = *random.pick(&find(plan, |step| lists(step).is_some()))?;
    let ranks = plan.spec.ranks;
    match &mut step_mut(plan, id).action {
        Action::Send { to: peers, .. } | Action::ReceiveReduce { sources: peers, .. } => match peers {
            Peers::Run { first, count, .. } => {
                if first.modulo == 0 && first.wrap == 0 {
                    first.modulo = ranks;
                }
                *count += 1;
            }
            Peers::List(list) if list.len() < MAX_LISTED_PEERS => {
                let twice = *random.pick(list)?;
                let at = random.below(list.len() + 1);
                list.insert(at, twice);
            }
            Peers::List(_) => return None,
        },
        _ => return None,
    }
    Some(())
}

fn reorder_sources(plan: &mut Plan, random: &mut Random) -> Option<()> {
    let reduces =
        |step: &Step| matches!(&step.action, Action::ReceiveReduce { sources, .. } if sources.count() > 1);
    let id = *random.pick(&find(plan, reduces))?;
    let ranks = plan.spec.ranks;
    let Action::ReceiveReduce { sources, .. } = &mut step_mut(plan, id).action else { return None };
    match sources {
        Peers::Run { first, stride, count } => {
            if random.below(2) == 0 {
                // Backwards.
                *first = shifted(*first, *stride * (*count as i32 - 1), ranks);
                *stride = -*stride;
            } else {
                *first = shifted(*first, 1 + random.below(ranks as usize - 1) as i32, ranks);
            }
            first.modulo = if first.wrap == 0 { ranks } else { first.modulo };
        }
        Peers::List(list) => {
            let (a, b) = (random.below(list.len()), random.below(list.len()));
            list.swap(a, b);
        }
    }
    Some(())
}

fn split_reduction(plan: &mut Plan, random: &mut Random) -> Option<()> {
    let reduces = |step: &Step| matches!(step.action, Action::ReceiveReduce { .. });
    let id = *random.pick(&find(plan, reduces))?;
    let (me, ranks) = (plan.spec.rank, plan.spec.ranks);
    let Action::ReceiveReduce { sources, own, into } = step(plan, id).action.clone() else { return None };
    let sources: Vec<Index> = match sources {
        Peers::List(list) => list,
        Peers::Run { first, stride, count } => {
            (0..count as i32).map(|k| shifted(first, stride * k, ranks)).collect()
        }
    };
    let my_place = sources.iter().position(|source| source.at(Default::default()) == i64::from(me))?;
    if !(3..=MAX_LISTED_PEERS).contains(&sources.len()) {
        return None;
    }
    // Two at least come first, this rank among them, and one at least later; the order stays.
    let cut = 1 + random.below(sources.len() - 1);
    let (before, behind) = sources.split_at(cut);
    let (early, late) = if my_place < cut {
        (before.to_vec(), [&[sources[my_place]], behind].concat())
    } else {
        (behind.to_vec(), [before, &[sources[my_place]]].concat())
    };
    let part =
        |sources, own| Action::ReceiveReduce { sources: Peers::List(sources), own, into: into.clone() };
    let first = Step { action: part(early, own), after: step(plan, id).after.clone() };
    let new = insert_before(plan, id, first);
    let second = step_mut(plan, id);
    second.action = part(late, into.clone());
    second.after.push(After { step: new, outer: Index::OUTER, inner: Index::INNER, edge: Edge::Whole });
    Some(())
}

/// Puts a step before another, of the same loop; answers its number, which is the highest.
fn insert_before(plan: &mut Plan, id: StepId, step: Step) -> StepId {
    let place = plan.place(id);
    for other in &mut plan.places {
        let behind = (other.lane, other.turn) == (place.lane, place.turn) && other.body >= place.body;
        other.body += u16::from(behind);
    }
    plan.places.push(place);
    let steps = &mut plan.lanes[usize::from(place.lane)].loops[usize::from(place.turn)].steps;
    steps.insert(usize::from(place.body), step);
    StepId((plan.places.len() - 1) as u16)
}
