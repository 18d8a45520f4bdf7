//! NHR, nonuniform hierarchical ring: as many trees as ranks, each shifted by one; most bytes go to the nearest rank.
//!
//! ```text
//! all-gather, rank r of p, S = ⌈log2 p⌉:
//!   for d = 2^(S-1), …, 4, 2, 1:  c = ⌊(p - 1 + d) / 2d⌋
//!     send blocks r, r-2d, r-4d, … (c of them) to r+d;  receive r-d, r-3d, … (c of them) from r-d
//! reduce-scatter: the same backwards: for d = 1, 2, 4, …:  send the partial sums r-d, r-3d, … to r-d;  add those of
//!   r, r-2d, … that r+d sends
//! all-reduce: reduce-scatter, then all-gather
//!
//! 4 ranks, all-gather, what each holds:   rank 0     rank 1     rank 2     rank 3
//!   at first                              0          1          2          3
//!   d = 2                                 0 2        1 3        2 0        3 1
//!   d = 1                                 0 2 3 1    1 3 0 2    2 0 1 3    3 1 2 0
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | all-gather, reduce-scatter | ⌈log2 2p/3⌉ | (p−1)/p·n | none, (p−1)/p·n |
//! | all-reduce | 2⌈log2 2p/3⌉, one less where p is above 3/2 and at most 7/4 of a power of two | 2(p−1)/p·n | (p−1)/p·n |
//!
//! A rank sends ⌈log2 p⌉ times each half. Where p is at most 3/2 of a power of two, one of these sendings needs nothing
//! that the one before brought: steps, messages that hang on each other, are one less.
//!
//! Blocks of a step are a message each unless they are neighbours in memory. An all-reduce may number them as it likes:
//! for p = q·2^t, rank a + 2^t·b takes block reverse(a)·q + b, bits of a reversed. Then the blocks of a step whose 2d
//! divides p are one message: at 384 = 3·2^7 ranks, all steps.
//!
//! Source: HCCL's NHR (nonuniform hierarchical ring). We differ in the numbering, and in sending all blocks whatever their
//! size: small calls are no worse for it, since steps are the same.

use crate::schedule::Schedule;
use crate::team::{Family, Team};
use std::ops::Range;

/// See the module.
pub(crate) struct Nhr;

/// Ranks above which a plan of a message for each would be no small plan.
const MOST_BLOCKS: u32 = 1024;

/// Distance and number of blocks of each step, of an all-gather.
fn steps(members: usize) -> Vec<(isize, isize)> {
    let members = members as isize;
    let distances = std::iter::successors(Some(1), |distance| Some(2 * distance));
    let mut steps: Vec<_> = distances
        .take_while(|&distance| distance < members)
        .map(|distance| (distance, (members - 1 + distance) / (2 * distance)))
        .collect();
    steps.reverse();
    steps
}

/// Distances of the blocks that a step sends, counted from the rank that sends them in an all-gather.
fn sent((distance, count): (isize, isize)) -> impl Iterator<Item = isize> {
    (0..count).map(move |k| -2 * distance * k)
}

impl Family for Nhr {
    fn name(&self) -> &'static str {
        "nhr"
    }

    fn shares(&self, members: u32) -> (u32, Vec<Range<u32>>) {
        let twos = members.trailing_zeros();
        let odd = members >> twos;
        let block = |member: u32| {
            let low = member & ((1 << twos) - 1);
            let reversed = if twos == 0 { 0 } else { low.reverse_bits() >> (u32::BITS - twos) };
            reversed * odd + (member >> twos)
        };
        (members, (0..members).map(block).map(|block| block..block + 1).collect())
    }

    /// One where blocks are neighbours, one for each block elsewhere: most of them, if members are odd.
    fn messages(&self, members: u32) -> u32 {
        let of = |(distance, count): (isize, isize)| {
            let is_run = members.is_multiple_of(2 * distance as u32);
            if is_run { 1 } else { count as u32 }
        };
        steps(members as usize).into_iter().map(of).sum()
    }

    fn refuses_blocks(&self, ranks: u32) -> Option<&'static str> {
        (ranks > MOST_BLOCKS).then_some("each rank's block would be a message of its own; use nb")
    }

    fn arrivals(&self, _me: usize, had: Vec<Vec<Range<u32>>>) -> Vec<Range<u32>> {
        let come = steps(had.len()).into_iter().flat_map(|step| sent(step).map(move |by| step.0 - by));
        std::iter::once(0).chain(come).flat_map(|back| had[back as usize].iter().cloned()).collect()
    }

    fn reduce_scatter(&self, schedule: &mut Schedule<'_>, team: &Team) {
        for step in steps(team.len()).into_iter().rev() {
            schedule.exchange_reduce(
                (&team.blocks(sent(step).map(|by| by - step.0)), team.rank(-step.0)),
                (&team.blocks(sent(step)), team.rank(step.0)),
            );
        }
    }

    fn all_gather(&self, schedule: &mut Schedule<'_>, team: &Team) {
        for step in steps(team.len()) {
            schedule.exchange(
                (&team.blocks(sent(step)), team.rank(step.0)),
                (&team.blocks(sent(step).map(|by| by - step.0)), team.rank(-step.0)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_any_count_send_all_blocks_but_one() {
        for members in 1..=1000_usize {
            let steps = steps(members);
            assert_eq!(steps.len() as u32, members.next_power_of_two().trailing_zeros());
            assert_eq!(steps.iter().map(|step| step.1).sum::<isize>(), members as isize - 1);
        }
    }

    #[test]
    fn every_block_has_an_owner() {
        for members in 1..=100 {
            let (parts, mut shares) = Nhr.shares(members);
            shares.sort_by_key(|share| share.start);
            assert_eq!(shares, (0..parts).map(|k| k..k + 1).collect::<Vec<_>>());
        }
    }
}
