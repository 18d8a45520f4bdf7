//! In which order everybody talks to everybody.
//!
//! ```text
//! an even count p, rank r, s = 1 if r is even, -1 if it is odd:
//!   for d in 2, 4, …, p-2:  send to r+s·d, receive from r-s·d
//!   for d in 1, 3, …, p-1:  send to r+s·d, receive from r+s·d
//! an odd count:
//!   for d in 1, 2, …, p-1:  send to r+d, receive from r-d
//!
//! 6 ranks, to whom each sends at each turn:    rank 0: 2 4 1 3 5     rank 2: 4 0 3 5 1     rank 4: 0 2 5 1 3
//!                                              rank 1: 5 3 0 4 2     rank 3: 1 5 2 0 4     rank 5: 3 1 4 2 0
//! ```
//!
//! At each turn one rank sends to each, so that nobody is flooded. That holds for r+1, r+2, … as well, but ranks often come
//! in pairs, 2k and 2k+1, whose link is not the one that they have to all others: the two dies of one package. In that order
//! even ranks send to their twin at the first turn and odd ranks at the last, and in between both are a turn apart, so that
//! two meet at one port. Here all twins meet at one turn, the middle one, and what is sent to others stays in step: an
//! all-gather of 8 dies of CloudMatrix takes a turn less.

use crate::share::signed;
use ubccl_core::plan::{At, Index, Peers};
use ubccl_core::{Rank, Spec};

/// A loop of turns: at each, a rank sends to one and receives from one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns {
    /// How many.
    pub(crate) count: u32,
    /// To whom turn `outer` sends.
    pub(crate) to: Index,
    /// From whom it receives.
    pub(crate) from: Index,
    /// Which turn of all, counted over the loops, sends to whom this one receives from.
    pub(crate) back: Index,
}

/// The loops in which `rank` talks to all others of `ranks`.
pub(crate) fn turns(rank: Rank, ranks: u32) -> impl Iterator<Item = Turns> {
    let circle = |stride: i32, first: i32| Index::on_circle(signed(rank) + first, ranks).per_outer(stride);
    let last_first = |count: u32| Index::fixed(signed(count) - 1).per_outer(-1);
    let (alike, sign) = (ranks.div_ceil(2) - 1, sign(rank));
    let loops = if has_twins(ranks) {
        let across = circle(2 * sign, sign);
        [
            Turns {
                count: alike,
                to: circle(2 * sign, 2 * sign),
                from: circle(-2 * sign, -2 * sign),
                back: last_first(alike),
            },
            Turns { count: ranks / 2, to: across, from: across, back: Index::OUTER.plus(signed(alike)) },
        ]
    } else {
        let all =
            Turns { count: ranks - 1, to: circle(1, 1), from: circle(-1, -1), back: last_first(ranks - 1) };
        [all, Turns { count: 0, ..all }]
    };
    loops.into_iter().filter(|turns| turns.count > 0)
}

/// To whom each turn sends, counted over the loops.
pub(crate) fn receiver(rank: Rank, ranks: u32) -> Index {
    let next = signed(rank) + 1;
    match (has_twins(ranks), sign(rank)) {
        (false, _) => Index::on_circle(next, ranks).per_outer(1),
        // Of the circle of all others, every second: it is odd, so the second lap has the rest.
        (true, 1) => Index::on_circle(1, ranks - 1).per_outer(2).from(next, ranks),
        (true, _) => Index::on_circle(-2, ranks - 1).per_outer(-2).from(next, ranks),
    }
}

/// All ranks but this one.
pub(crate) fn everybody_else(spec: &Spec) -> Peers {
    let to = receiver(spec.rank, spec.ranks);
    Peers::Run { first: to.per_outer(0), stride: to.per_outer, count: spec.ranks - 1 }
}

/// At each turn, to whom `rank` of `ranks` sends, and from whom it receives.
pub(crate) fn peers(rank: Rank, ranks: u32) -> impl Iterator<Item = (Rank, Rank)> {
    turns(rank, ranks).flat_map(Turns::peers)
}

impl Turns {
    /// At each turn, to whom it sends, and from whom it receives.
    pub(crate) fn peers(self) -> impl Iterator<Item = (Rank, Rank)> {
        let rank = |index: Index, outer| {
            Rank::try_from(index.at(At { outer, inner: 0 })).expect("circles have no negative places")
        };
        (0..u64::from(self.count)).map(move |turn| (rank(self.to, turn), rank(self.from, turn)))
    }

    /// Without the first turns.
    pub(crate) fn skip(self, first: u32) -> Turns {
        let later = |index: Index| index.plus(signed(first) * index.per_outer);
        let Turns { count, to, from, back } = self;
        Turns { count: count - first, to: later(to), from: later(from), back: later(back) }
    }
}

fn has_twins(ranks: u32) -> bool {
    ranks.is_multiple_of(2)
}

fn sign(rank: Rank) -> i32 {
    if rank.is_multiple_of(2) { 1 } else { -1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_each_turn_one_sends_to_each_and_twins_meet_at_one_turn() {
        for ranks in (1..=17).chain([48, 127, 384]) {
            let all: Vec<Vec<(Rank, Rank)>> = (0..ranks).map(|rank| peers(rank, ranks).collect()).collect();
            for (rank, turns) in (0..ranks).zip(&all) {
                let mut met: Vec<Rank> = turns.iter().map(|&(to, _)| to).chain([rank]).collect();
                met.sort_unstable();
                assert_eq!(met, (0..ranks).collect::<Vec<_>>(), "rank {rank} of {ranks}");
                for (turn, &(to, from)) in turns.iter().enumerate() {
                    assert_eq!((all[to as usize][turn].1, all[from as usize][turn].0), (rank, rank));
                    let is_twin = ranks.is_multiple_of(2) && to == rank ^ 1;
                    assert!(!is_twin || turn as u32 == ranks / 2 - 1, "rank {rank} of {ranks}, turn {turn}");
                }
            }
        }
    }

    #[test]
    fn all_loops_together_send_in_the_order_of_the_list() {
        for ranks in 2..=17 {
            for rank in 0..ranks {
                let at = |outer: usize| At { outer: outer as u64, inner: 0 };
                let list: Vec<(Rank, Rank)> = peers(rank, ranks).collect();
                let sent: Vec<i64> = (0..list.len()).map(|turn| receiver(rank, ranks).at(at(turn))).collect();
                assert_eq!(sent, list.iter().map(|&(to, _)| i64::from(to)).collect::<Vec<_>>());
                let back = turns(rank, ranks).flat_map(|turns| {
                    (0..turns.count as usize).map(move |turn| turns.back.at(at(turn)) as usize)
                });
                for ((_, from), back) in list.iter().zip(back) {
                    assert_eq!(list[back].0, *from, "rank {rank} of {ranks}");
                }
            }
        }
    }
}
