//! The picks of one kind of call, by size.

use super::candidates::{Way, Ways};
use super::engines::Reach;
use super::predict::messages;
use super::{Candidate, Correction, Cost, Engines, Limits, Pick};
use crate::Selected;
use std::sync::{Arc, OnceLock};
use ubccl_core::{Choice, Collective, Layout};

/// Picks for every size. Those of an octave are found when one of its sizes is first asked for.
pub(super) struct Table {
    ways: Ways,
    /// Of each way, the first that does the same: in a group of two, families hardly differ.
    same: Vec<usize>,
    /// What is known of each way beside.
    corrections: Vec<Option<Correction>>,
    reach: Reach,
    /// By the number of bits of a size.
    octaves: Vec<OnceLock<Octave>>,
}

/// From which size on which way is picked, if there is one, in order of size.
type Octave = Vec<(u64, Option<Pick>)>;

/// A way that costs this much more than the cheapest is as good, if it sends fewer messages: they cost what no model knows.
const AS_GOOD: f64 = 1.02;
/// The same on simulated machines, of which models know more. (Broadcast of 690 MB by a double tree on 8 NPUs, fluid, chunks of
/// 4 MiB instead of 16 KiB: predicted 1.018 times as dear, simulated 1.036.)
const AS_GOOD_SIMULATED: f64 = 1.01;
/// Ways that cost up to this much more are equal.
const EQUAL: f64 = 1.001;
/// So many times as many messages are as few.
const AS_FEW: f64 = 1.5;

impl Table {
    /// Of all calls like this one, whatever their size.
    pub(super) fn new(
        engines: &Engines,
        call: &Collective<'_>,
        layout: &Arc<Layout>,
        (limits, only): (Limits, Option<&Selected>),
    ) -> Self {
        let octaves = (0..=u64::BITS).map(|_| OnceLock::new()).collect();
        let ways = match only {
            Some(only) => Ways::of(only, call, layout, limits),
            // Of all engines switches do the same.
            None => Ways::find(engines.first(), call, layout, limits),
        };
        let ways = ways.on(&engines.choices(limits.engine));
        let correction = |way: &Way| {
            let model = engines.model(&way.choice);
            model.correction(call.kind(), way.algorithm.descriptor().name, layout.ranks())
        };
        let corrections = ways.ways.iter().map(correction).collect();
        let same = same(&ways.ways);
        Table { ways, same, corrections, reach: Reach::new(engines, call, layout.ranks()), octaves }
    }

    /// How many times as long as the model's numbers say a way takes.
    fn factor(&self, way: usize, bytes: u64) -> f64 {
        self.corrections[way].as_ref().map_or(1.0, |correction| correction.factor(bytes))
    }

    /// How a call of so many bytes is to be done, if there is a way.
    pub(super) fn pick(&self, engines: &Engines, layout: &Layout, bytes: u64) -> Option<Pick> {
        let bits = (u64::BITS - bytes.leading_zeros()) as usize;
        let octave = self.octaves[bits].get_or_init(|| self.octave(engines, layout, bits as u32));
        let next = octave.partition_point(|(start, _)| *start <= bytes);
        octave.get(next.checked_sub(1)?)?.1.clone()
    }

    /// Every way for so many bytes, the cheapest first, then those refused.
    pub(super) fn explain(&self, engines: &Engines, layout: &Layout, bytes: u64) -> Vec<Candidate> {
        let mut totals = self.totals(engines, layout, bytes);
        let picked = self.best(&mut totals);
        let mut costs: Vec<Option<Cost>> = vec![None; self.ways.ways.len()];
        let mut cost = |(index, way): (usize, &Way)| {
            let cost = costs[self.same[index]].get_or_insert_with(|| {
                let model = engines.model(&way.choice);
                model.cost_in_all(totals.of(index), &way.profile, bytes, &way.choice, layout)
            });
            cost.times(self.factor(index, bytes))
        };
        let candidate = |(index, way): (usize, &Way)| Candidate {
            algorithm: way.algorithm.clone(),
            choice: way.choice,
            cost: self.reach.check(&way.choice, bytes).map(|()| cost((index, way))),
            messages: messages(&way.profile, bytes, &way.choice),
            is_chunked: way.profile.chunked.is_some(),
            is_picked: Some(index) == picked,
        };
        let mut all: Vec<Candidate> = self.ways.ways.iter().enumerate().map(candidate).collect();
        let total = |candidate: &Candidate| candidate.cost.as_ref().map_or(f64::MAX, |cost| cost.total_ps());
        all.sort_by(|a, b| total(a).total_cmp(&total(b)));
        all.extend(self.ways.refused.iter().map(|(algorithm, refusal)| Candidate {
            algorithm: algorithm.clone(),
            choice: Choice::default(),
            cost: Err(refusal.clone()),
            messages: 0.0,
            is_chunked: false,
            is_picked: false,
        }));
        all
    }

    /// The picks for sizes of so many bits.
    fn octave(&self, engines: &Engines, layout: &Layout, bits: u32) -> Octave {
        let sizes = self.grid(bits);
        let best = |bytes| self.best(&mut self.totals(engines, layout, bytes));
        let mut now = best(sizes[0]);
        let mut picks = vec![(sizes[0], now)];
        for ends in sizes.windows(2) {
            let (mut low, high) = (ends[0], ends[1]);
            // From border to border, until the pick is that of the end.
            while best(high) != now {
                let border = border(low, high, |bytes| best(bytes) == now);
                now = best(border);
                picks.push((border, now));
                low = border;
            }
        }
        let pick = |way: usize| {
            let Way { algorithm, choice, .. } = &self.ways.ways[way];
            Pick { algorithm: algorithm.clone(), choice: *choice }
        };
        picks.into_iter().map(|(start, way)| (start, way.map(pick))).collect()
    }

    /// Sizes of so many bits at which ways are compared: there engines reach no farther, which is no matter of being near.
    fn grid(&self, bits: u32) -> Vec<u64> {
        let mut sizes = grid(bits);
        let (first, last) = (sizes[0], sizes[sizes.len() - 1]);
        let borders = self.reach.borders().flat_map(|most| [most, most + 1]);
        sizes.extend(borders.filter(|size| (first..=last).contains(size)));
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    fn totals<'a>(&'a self, engines: &'a Engines, layout: &'a Layout, bytes: u64) -> Totals<'a> {
        Totals { table: self, engines, layout, bytes, known: vec![None; self.ways.ways.len()] }
    }

    /// What each way costs for a size, without end if its engine does not do it; of ways that cannot be the pick, at least.
    fn costs(&self, totals: &mut Totals<'_>) -> Vec<f64> {
        let bytes = totals.bytes;
        let mut least: Vec<(f64, bool)> = Vec::new();
        for (index, way) in self.ways.ways.iter().enumerate() {
            least.push(match self.same[index] {
                first if first < index => least[first],
                _ => totals.least(way),
            });
        }
        let reaches = |index: usize| self.reach.check(&self.ways.ways[index].choice, bytes).is_ok();
        let factored = |(index, (ps, is_all)): (usize, (f64, bool))| match reaches(index) {
            true => (ps * self.factor(index, bytes), is_all),
            false => (f64::INFINITY, true),
        };
        let (mut costs, mut are_all): (Vec<f64>, Vec<bool>) =
            least.into_iter().enumerate().map(factored).unzip();
        let open = |costs: &[f64], are_all: &[bool]| {
            let ways = (0..costs.len()).filter(|&way| !are_all[way]);
            ways.min_by(|&a, &b| costs[a].total_cmp(&costs[b]))
        };
        let known = |costs: &[f64], are_all: &[bool]| {
            let ways = (0..costs.len()).filter(|&way| are_all[way]);
            ways.map(|way| costs[way]).fold(f64::INFINITY, f64::min)
        };
        while let Some(index) = open(&costs, &are_all) {
            if costs[index] > known(&costs, &are_all) * AS_GOOD {
                break;
            }
            (costs[index], are_all[index]) = (totals.of(index) * self.factor(index, bytes), true);
        }
        costs
    }

    /// Which way is picked for a size.
    fn best(&self, totals: &mut Totals<'_>) -> Option<usize> {
        let (costs, bytes) = (self.costs(totals), totals.bytes);
        let least = costs.iter().copied().reduce(f64::min).filter(|least| least.is_finite())?;
        let messages =
            |&way: &usize| messages(&self.ways.ways[way].profile, bytes, &self.ways.ways[way].choice);
        let is_simulated = totals.engines.first().cores.is_none();
        let as_good = if is_simulated { AS_GOOD_SIMULATED } else { AS_GOOD };
        let good: Vec<usize> = (0..costs.len()).filter(|&way| costs[way] <= least * as_good).collect();
        let few = good.iter().map(messages).reduce(f64::min)?;
        // Of equals the first: the index has those first that keep ranks in step.
        let cheapest = |ways: &[usize]| ways.iter().map(|&way| costs[way]).reduce(f64::min);
        let good: Vec<usize> = good.into_iter().filter(|way| messages(way) <= few * AS_FEW).collect();
        let least = cheapest(&good)?;
        good.into_iter().find(|&way| costs[way] <= least * EQUAL)
    }
}

/// What ways take for one size, as far as it is known.
struct Totals<'a> {
    table: &'a Table,
    engines: &'a Engines,
    layout: &'a Layout,
    bytes: u64,
    /// Of the first of those that do the same.
    known: Vec<Option<f64>>,
}

impl Totals<'_> {
    fn least(&self, way: &Way) -> (f64, bool) {
        let model = self.engines.model(&way.choice);
        model.least_ps(&way.profile, self.bytes, &way.choice, self.layout)
    }

    fn of(&mut self, way: usize) -> f64 {
        let first = self.table.same[way];
        let Way { profile, choice, .. } = &self.table.ways.ways[first];
        let model = self.engines.model(choice);
        let total = || model.total_ps(profile, self.bytes, choice, self.layout);
        *self.known[first].get_or_insert_with(total)
    }
}

/// Of each way, the first that does the same.
fn same(ways: &[Way]) -> Vec<usize> {
    let mut firsts: Vec<usize> = Vec::new();
    let is_same = |a: &Way, b: &Way| a.choice == b.choice && a.profile == b.profile;
    let first_of = |(index, way): (usize, &Way)| {
        let known = firsts.iter().copied().find(|&first| is_same(&ways[first], way));
        known.unwrap_or_else(|| {
            firsts.push(index);
            index
        })
    };
    ways.iter().enumerate().map(first_of).collect()
}

/// Borders are found to this part of a size: near them, neighbours cost as much.
const NEAR: u64 = 64;

/// Sizes of so many bits, four to the octave, the last included.
fn grid(bits: u32) -> Vec<u64> {
    let Some(below) = bits.checked_sub(1) else { return vec![0] };
    let (first, last) = (1_u64 << below, u64::MAX >> (u64::BITS - bits));
    let quarter = (first / 4).max(1);
    let mut sizes: Vec<u64> = (0..4).map(|k| first + k * quarter).filter(|&size| size < last).collect();
    sizes.push(last);
    sizes
}

/// A size in `low + 1 ..= high` that is not `as_low`, near the first; `low` is, `high` isn't.
fn border(mut low: u64, mut high: u64, as_low: impl Fn(u64) -> bool) -> u64 {
    while high - low > low / NEAR + 1 {
        let middle = low + (high - low) / 2;
        match as_low(middle) {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}
