//! Recursive halving and doubling: partners at distances that are powers of two, half as much with each step.
//!
//! ```text
//! all-reduce, p ranks, h = the largest power of two ≤ p, x = p - h:
//!   fold:    rank 2i+1 sends its vector to 2i, for i < x, and rests;  the h others are numbered anew
//!   halve:   for d = h/2, …, 2, 1:  with rank r^d, exchange halves of what is left: keep the half of the own bit, reduced
//!   double:  for d = 1, 2, …, h/2:  with rank r^d, exchange what each has
//!   unfold:  rank 2i sends the result to 2i+1
//!
//! 4 ranks, the vector in blocks 0 to 3:   rank 0    rank 1    rank 2    rank 3
//!   halve, d = 2                          0 1       0 1       2 3       2 3        two contributions
//!   halve, d = 1                          0         1         2         3          all four
//!   double, d = 1                         0 1       0 1       2 3       2 3
//!   double, d = 2                         0 1 2 3   everywhere
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | all-reduce, p = h | 2 log2 p | 2(p−1)/p·n | (p−1)/p·n |
//! | all-reduce, p > h | 2 log2 h + 2 | (2(h−1)/h + 1)·n | ((h−1)/h + 1)·n |
//! | reduce-scatter, all-gather, p = h | log2 p | (p−1)/p·n | (p−1)/p·n, none |
//! | reduce-scatter, p > h | log2 h + 2 | into the busiest port n + s/p·n, s = the sum of d + min(d, p−h) over d = 1, 2, …, h/2 | the same |
//! | all-gather, p > h | log2 h + 2 | from the busiest port (p−1)/p·n + s/p·n | none |
//!
//! Of reduce-scatter and all-gather, those that rest have blocks of their own: these are with their partners meanwhile.
//! If no more rest than half of h, one halving does not wait for the fold: there is a step less.
//!
//! Source: R. Rabenseifner, ICCS 2004; R. Thakur, R. Rabenseifner and W. Gropp, IJHPCA 19 (2005).

use crate::schedule::Schedule;
use crate::team::{Family, Team};
use std::ops::Range;
use ubccl_core::Rank;

/// See the module.
pub(crate) struct HalvingDoubling;

/// The members that do not rest, seen by one of them.
struct Core<'a> {
    team: &'a Team,
    /// How many rest: members 1, 3, … below twice as many.
    resting: usize,
    /// How many don't: a power of two.
    size: usize,
}

impl<'a> Core<'a> {
    fn new(team: &'a Team) -> Self {
        let size = 1 << team.len().ilog2();
        Core { team, size, resting: team.len() - size }
    }

    /// The member whose number in the core this is.
    fn member(&self, number: usize) -> usize {
        if number < self.resting { 2 * number } else { number + self.resting }
    }

    /// This rank's number in the core, and the member that rests beside it.
    fn me(&self) -> (usize, Option<usize>) {
        let me = self.team.me;
        if me < 2 * self.resting { (me / 2, Some(me | 1)) } else { (me - self.resting, None) }
    }

    fn rests(&self) -> bool {
        self.team.me < 2 * self.resting && !self.team.me.is_multiple_of(2)
    }

    /// Blocks of these numbers, and of those that rest beside them.
    fn blocks(&self, numbers: Range<usize>) -> Vec<Range<u32>> {
        let resting = |number: usize| (number < self.resting).then_some(2 * number + 1);
        let members = numbers.flat_map(|number| [Some(self.member(number)), resting(number)]).flatten();
        members.flat_map(|member| self.team.blocks[member].iter().cloned()).collect()
    }

    fn rank(&self, number: usize) -> Rank {
        self.team.ranks[self.member(number)]
    }

    /// Partner's number, what this rank keeps and what it gives of each step, from the halves on.
    fn halves(&self) -> Vec<(usize, Range<usize>, Range<usize>)> {
        let (me, _) = self.me();
        let distances = (0..self.size.ilog2()).rev().map(|bit| 1 << bit);
        let half = |number: usize, distance: usize| {
            let first = number / distance * distance;
            first..first + distance
        };
        distances.map(|distance| (me ^ distance, half(me, distance), half(me ^ distance, distance))).collect()
    }
}

impl Family for HalvingDoubling {
    fn name(&self) -> &'static str {
        "halving-doubling"
    }

    fn shares(&self, members: u32) -> (u32, Vec<Range<u32>>) {
        let size = 1 << members.ilog2();
        let resting = members - size;
        let share = |member: u32| match member {
            _ if member >= 2 * resting => member - resting..member - resting + 1,
            _ if member.is_multiple_of(2) => member / 2..member / 2 + 1,
            _ => 0..0,
        };
        (size, (0..members).map(share).collect())
    }

    fn reduce_scatter(&self, schedule: &mut Schedule<'_>, team: &Team) {
        let core = Core::new(team);
        let all = core.blocks(0..core.size);
        if core.rests() {
            let beside = team.ranks[team.me - 1];
            schedule.round();
            schedule.send(&all, &[beside]);
            schedule.round();
            return schedule.receive(&team.blocks[team.me], beside);
        }
        let (_, resting) = core.me();
        if let Some(resting) = resting {
            schedule.round();
            schedule.reduce(&all, &[team.ranks[resting]]);
        }
        for (partner, keep, give) in core.halves() {
            schedule.exchange_reduce(
                (&core.blocks(give), core.rank(partner)),
                (&core.blocks(keep), core.rank(partner)),
            );
        }
        if let Some(resting) = resting {
            schedule.round();
            schedule.send(&team.blocks[resting], &[team.ranks[resting]]);
        }
    }

    fn all_gather(&self, schedule: &mut Schedule<'_>, team: &Team) {
        let core = Core::new(team);
        let rest = |me: usize| (0..team.len()).filter(move |&member| member != me);
        let all_but =
            |me: usize| rest(me).flat_map(|member| team.blocks[member].iter().cloned()).collect::<Vec<_>>();
        if core.rests() {
            let beside = team.ranks[team.me - 1];
            schedule.round();
            schedule.send(&team.blocks[team.me], &[beside]);
            schedule.round();
            return schedule.receive(&all_but(team.me), beside);
        }
        let (_, resting) = core.me();
        if let Some(resting) = resting {
            schedule.round();
            schedule.receive(&team.blocks[resting], team.ranks[resting]);
        }
        for (partner, have, get) in core.halves().into_iter().rev() {
            schedule.round();
            schedule
                .exchange((&core.blocks(have), core.rank(partner)), (&core.blocks(get), core.rank(partner)));
        }
        if let Some(resting) = resting {
            schedule.round();
            schedule.send(&all_but(resting), &[team.ranks[resting]]);
        }
    }
}
