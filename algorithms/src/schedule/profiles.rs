//! What a plan costs whose ranks do not all do alike, as the schedules of a few of them say.

use super::counted::{merged, total};
use super::{Orders, Schedule};
use crate::rounds::loneliest;
use std::collections::BTreeSet;
use std::ops::Range;
use ubccl_core::profile::{Round, Share, Traffic};
use ubccl_core::{Layout, Profile, Spec};

/// What of schedules makes the profile: of kinds with a root its own and that of a rank alone in its groups, who takes what
/// others share; of the others those of a few ranks that differ.
pub(crate) fn profile<'a>(spec: &Spec, layout: &Layout, schedule: impl Fn(&Spec) -> Schedule<'a>) -> Profile {
    let of = |rank| schedule(&Spec { rank, ..*spec }).into_counts();
    let ranks = match spec.root {
        Some(root) => vec![root, (root + spec.ranks / 2) % spec.ranks, loneliest(layout)],
        // Those alone in their groups, and those at either end of a group's links.
        None => vec![0, 1, loneliest(layout), spec.ranks / 2, spec.ranks / 2 + 1, spec.ranks - 1],
    };
    let ranks: BTreeSet<u32> = ranks.into_iter().filter(|&rank| rank < spec.ranks).collect();
    let mut all = Vec::new();
    let (mut orders, mut phases) = (Vec::new(), Vec::new());
    for counts in ranks.into_iter().map(of) {
        all.push(counts.profile);
        orders.push(counts.orders);
        phases.push(counts.phases);
    }
    if spec.root.is_none() {
        Orders::compare(&orders, &mut all);
        all.extend(slowest_of_each(&all, &phases));
    }
    let mut profiles: Vec<Profile> = Vec::new();
    for profile in all {
        if !profiles.contains(&profile) {
            profiles.push(profile);
        }
    }
    let also = profiles.split_off(1);
    profiles.pop().unwrap_or_default().also(also)
}

/// What one rank's schedule counts.
struct Counts {
    profile: Profile,
    /// What its messages hang on, to be compared with other ranks'.
    orders: Orders,
    phases: Vec<Phase>,
}

/// The rounds of a phase, and how much goes and comes.
struct Phase {
    rounds: Range<usize>,
    given: u64,
    taken: u64,
}

/// Ranks wait for each other from phase to phase: without chunks, it takes in all what each phase takes of whoever has most to do
/// in it. (All-reduce of 7 dies in 4 NPUs by a mesh of NPUs: the lone die has nothing to do within its NPU and twice as much
/// beyond, but not before others have done the former: .68 of the time simulated by the longest rank, .92 so.) But who gives more
/// than it takes, in a later phase, need not wait.
fn slowest_of_each(all: &[Profile], phases: &[Vec<Phase>]) -> Option<Profile> {
    let first = all.first().filter(|first| first.chunked.is_none())?;
    let count = phases.first()?.len();
    let are_alike = phases.iter().all(|phases| phases.len() == count);
    if count < 2 || !are_alike {
        return None;
    }
    let slowest = |phase: usize| {
        let of = |rank: usize| &phases[rank][phase];
        let busy = |&rank: &usize| (of(rank).given.max(of(rank).taken), of(rank).rounds.len());
        let rank = (0..all.len()).max_by_key(busy)?;
        let waits = phase == 0 || of(rank).given <= of(rank).taken;
        waits.then(|| all[rank].rounds[of(rank).rounds.clone()].to_vec())
    };
    let rounds: Vec<Vec<Round>> = (0..count).map(slowest).collect::<Option<_>>()?;
    // No rank does all of that.
    let busiest = all.iter().max_by(|a, b| a.bytes(1.0).total_cmp(&b.bytes(1.0)))?;
    Some(Profile { rounds: rounds.concat(), busiest: in_all(busiest), ..first.clone() })
}

/// What a rank's port does in all.
fn in_all(profile: &Profile) -> Vec<Traffic> {
    if !profile.busiest.is_empty() {
        return profile.busiest.clone();
    }
    let mut all: Vec<Traffic> = Vec::new();
    for (part, times) in
        profile.rounds.iter().flat_map(|round| round.traffic.iter().map(|part| (part, round.times)))
    {
        let (messages, parts) = (part.messages * times, part.share.parts * u64::from(times));
        match all.iter_mut().find(|sum| sum.level == part.level) {
            Some(sum) => {
                sum.messages += messages;
                sum.share.parts += parts;
                sum.peers = sum.peers.max(part.peers);
            }
            None => all.push(Traffic { messages, share: Share { parts, ..part.share }, ..*part }),
        }
    }
    all
}

impl Schedule<'_> {
    /// What it cost, for [`ubccl_core::Algorithm::profile`].
    fn into_counts(mut self) -> Counts {
        let parts = |traffic: &[Traffic]| traffic.iter().map(|part| part.share.parts).sum::<u64>();
        let [given, taken] = [(true, &self.rounds), (false, &self.taken)]
            .map(|(gives, rounds)| total((gives, rounds), (self.layout, self.spec.rank), &self.met));
        let of_phases = |rounds: &[Round], phase: &Range<usize>| {
            rounds[phase.clone()].iter().map(|round| parts(&round.traffic)).sum::<u64>()
        };
        self.phases.push(self.rounds.len());
        let phase = |ends: &[usize]| {
            let rounds = ends[0]..ends[1];
            let (given, taken) = (of_phases(&self.rounds, &rounds), of_phases(&self.taken, &rounds));
            Phase { rounds, given, taken }
        };
        let phases = self.phases.windows(2).map(phase).collect();
        let busiest = if parts(&taken) > parts(&given) { taken } else { given };
        let rounds = merged(self.rounds, self.taken, self.spec.root.is_some());
        let all = rounds.iter().flat_map(|round| &round.traffic).map(|part| part.share.parts);
        let is_sum = all.sum::<u64>() == parts(&busiest);
        let profile = Profile::of(rounds).busiest(if is_sum { Vec::new() } else { busiest });
        let profile = profile.going(self.distances.sum()).handing(self.handed);
        let profile = if self.chunked { profile.chunked(1, 1).staged(self.stages) } else { profile };
        Counts { profile, orders: self.orders, phases }
    }
}
