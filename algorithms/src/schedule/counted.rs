//! What profiles count of a schedule's messages.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use ubccl_core::profile::{Distances, Flow, Round, Traffic};
use ubccl_core::{Layout, Rank, Spec};

/// How far one rank sends on the circle of its innermost group, round by round.
#[derive(Default)]
pub(super) struct Counted {
    rounds: Vec<Distances>,
    /// Of each round, parts times distance, forwards and backwards.
    passed: Vec<[u64; 2]>,
}

impl Counted {
    /// One more message of so many parts. Those that leave the innermost group go other ways, and of kinds with a root no
    /// rank does as all others do.
    pub(super) fn add(&mut self, round: usize, (layout, spec): (&Layout, &Spec), to: Rank, parts: u64) {
        if spec.root.is_some() || layout.shared_level(spec.rank, to) > 0 {
            return;
        }
        let level = &layout.levels()[0];
        let members = level.group(level.group_of(spec.rank)).len() as u32;
        let ahead = (to + members - spec.rank) % members;
        let distance = u64::from(ahead.min(members - ahead));
        let rounds = self.rounds.len().max(round + 1);
        self.rounds.resize(rounds, Distances::default());
        self.passed.resize(rounds, [0; 2]);
        let (counted, passed) = (&mut self.rounds[round], &mut self.passed[round]);
        match (2 * ahead).cmp(&members) {
            Ordering::Less => passed[0] += parts * distance,
            // Half way round, every other rank sends either way.
            Ordering::Equal => passed.iter_mut().for_each(|way| *way += parts * distance.div_ceil(2)),
            Ordering::Greater => passed[1] += parts * distance,
        }
        *counted = Distances {
            rounds: 1,
            farthest: counted.farthest.max(distance),
            parts: counted.parts + parts,
            passed: passed[0].max(passed[1]),
        };
    }

    /// All of it.
    pub(super) fn sum(&self) -> Distances {
        self.rounds.iter().fold(Distances::default(), |sum, round| Distances {
            rounds: sum.rounds + round.rounds,
            farthest: sum.farthest + round.farthest,
            parts: sum.parts + round.parts,
            passed: sum.passed + round.passed,
        })
    }
}

/// All messages given or taken by a rank, by level; it met these peers.
pub(super) fn total(
    (gives, rounds): (bool, &[Round]),
    (layout, rank): (&Layout, Rank),
    met: &BTreeSet<(bool, usize, Rank)>,
) -> Vec<Traffic> {
    let peers: BTreeSet<Rank> = met.iter().filter(|met| met.0 == gives).map(|met| met.2).collect();
    let mut all: Vec<Traffic> = Vec::new();
    for part in rounds.iter().flat_map(|round| &round.traffic) {
        match all.iter_mut().find(|sum| sum.level == part.level) {
            Some(sum) => {
                sum.messages += part.messages;
                sum.share.parts += part.share.parts;
            }
            None => all.push(*part),
        }
    }
    for part in &mut all {
        let is_here = |&&peer: &&Rank| layout.shared_level(rank, peer) == part.level;
        part.peers = peers.iter().filter(is_here).count() as u32;
    }
    all
}

/// What a rank gives and what it takes, round by round, as one: of its port what there is more of.
pub(super) fn merged(mut rounds: Vec<Round>, taken: Vec<Round>, is_rooted: bool) -> Vec<Round> {
    let size =
        |traffic: &[Traffic]| (traffic.iter().map(|part| part.share.parts).sum::<u64>(), traffic.len());
    for (round, taken) in rounds.iter_mut().zip(taken) {
        round.flow = match (round.traffic.is_empty(), taken.traffic.is_empty()) {
            (false, true) if is_rooted => Flow::Out,
            (true, false) if is_rooted => Flow::In,
            _ => Flow::Both,
        };
        if size(&round.traffic) < size(&taken.traffic) {
            round.traffic = taken.traffic;
        }
    }
    for later in 1..rounds.len() {
        // What hangs on nothing that came is posted at once.
        rounds[later].joins = [later - 1, later].iter().all(|&round| rounds[round].flow == Flow::Out);
        rounds[later].behind &= rounds[later - 1].steps > rounds[later].lane_window;
    }
    rounds
}
