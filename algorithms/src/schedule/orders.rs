//! In which order messages hang on those that came.

use std::collections::BTreeMap;
use std::ops::Range;
use ubccl_core::Rank;
use ubccl_core::profile::Profile;

/// What one rank's messages hang on. Ranks that differ in this are not through with a round at the same time.
#[derive(Debug)]
pub(super) struct Orders {
    /// Per cell: how many messages of the same round and rank were before the one that brought it.
    behind: Vec<u32>,
    /// How many messages each rank sent in each round so far.
    came: BTreeMap<(usize, Rank), u32>,
    /// Per round, of each turn that sends: behind how many others what it hangs on came, if it came in the round before.
    turns: Vec<Vec<Option<u32>>>,
}

impl Orders {
    /// Of so many cells, none of which came.
    pub(super) fn new(cells: usize) -> Self {
        Orders { behind: vec![0; cells], came: BTreeMap::new(), turns: Vec::new() }
    }

    /// A message brings these cells.
    pub(super) fn comes(&mut self, round: usize, from: Rank, cells: &Range<u32>) {
        let came = self.came.entry((round, from)).or_insert(0);
        self.behind[cells.start as usize..cells.end as usize].fill(*came);
        *came += 1;
    }

    /// A message takes these cells, which so many rounds brought, along.
    pub(super) fn goes(&mut self, round: usize, (rounds, cells): (&[usize], &Range<u32>)) {
        let cells = cells.start as usize..cells.end as usize;
        let hangs_on = cells.filter(|&cell| round > 0 && rounds[cell] == round).map(|cell| self.behind[cell]);
        let last = hangs_on.max();
        let turns = self.turns.len().max(round + 1);
        self.turns.resize(turns, Vec::new());
        self.turns[round].push(last);
    }

    /// Says of the rounds of these ranks' profiles which overtake those before them: where any two ranks cut their messages
    /// into other turns, or have them hang in another order on turns of the round before, some two do so in all rounds
    /// over the same links.
    pub(super) fn compare(all: &[Orders], profiles: &mut [Profile]) {
        // Whether any of them sends or gets more than one message of a rank.
        let is_in_turns = |round: usize| {
            let sends = all.iter().any(|one| one.turns.get(round).is_some_and(|turns| turns.len() > 1));
            let came = all.iter().flat_map(|one| &one.came);
            sends || came.filter(|((at, _), _)| *at == round).any(|(_, &came)| came > 1)
        };
        let differ = |round: usize| {
            let turns = |one: &Orders| one.turns.get(round).cloned().unwrap_or_default();
            let came = |one: &Orders| {
                one.came.iter().filter(|((at, _), _)| at + 1 == round).map(|(_, &came)| came).sum::<u32>()
            };
            let cut = |one: &Orders| (turns(one).len(), came(one));
            let mut twos = all.iter().zip(all.iter().skip(1));
            // Of a round that is there at once, nobody has anything sooner than others.
            is_in_turns(round - 1)
                && twos.any(|(one, other)| cut(one) != cut(other) || turns(one) != turns(other))
        };
        let rounds = all.iter().map(|one| one.turns.len()).max().unwrap_or(0);
        let uneven: Vec<usize> = (1..rounds).filter(|&round| differ(round)).collect();
        for profile in profiles {
            let levels = |round: usize| -> Vec<usize> {
                let traffic = profile.rounds.get(round).map(|round| &round.traffic);
                traffic.into_iter().flatten().map(|traffic| traffic.level).collect()
            };
            let alike = |round: usize| uneven.iter().any(|&other| levels(other) == levels(round));
            let overtakes: Vec<bool> = (0..profile.rounds.len()).map(alike).collect();
            for (round, overtakes) in profile.rounds.iter_mut().zip(overtakes) {
                round.overtakes = overtakes && round.turns > 0;
            }
        }
    }
}
