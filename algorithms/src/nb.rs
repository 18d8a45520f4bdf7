//! NB, nonuniform Bruck: what a rank knows doubles with every step, for any number of ranks.
//!
//! ```text
//! all-gather, rank r of p, blocks numbered on a circle:
//!   for d = 1, 2, 4, … below p:  c = min(d, p - d);  send blocks r .. r+c to r-d;  receive r+d .. r+d+c from r+d
//! reduce-scatter: the same backwards: for d = …, 4, 2, 1:  send the partial sums r+d .. r+d+c to r+d;  add those of
//!   r .. r+c that r-d sends
//! all-reduce: reduce-scatter, then all-gather
//!
//! 4 ranks, all-gather, what each holds:   rank 0     rank 1     rank 2     rank 3
//!   at first                              0          1          2          3
//!   d = 1                                 0 1        1 2        2 3        3 0
//!   d = 2                                 0 1 2 3    1 2 3 0    2 3 0 1    3 0 1 2
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | all-gather, reduce-scatter | ⌈log2 2p/3⌉ | (p−1)/p·n | none, (p−1)/p·n |
//! | all-reduce | 2⌈log2 2p/3⌉ | 2(p−1)/p·n | (p−1)/p·n |
//!
//! A rank sends ⌈log2 p⌉ times. Where p is at most 3/2 of a power of two, the last sending needs nothing that the one
//! before brought: steps, messages that hang on each other, are one less.
//!
//! Source: J. Bruck, C. Ho, S. Kipnis, E. Upfal and D. Weathersby, IEEE TPDS 8 (1997); HCCL's NB. We differ from HCCL in
//! which blocks go where: its steps send every second block to a near rank, ours send neighbouring blocks to a far one,
//! which are one message, or two where the circle closes. Steps and bytes are the same.

use crate::schedule::Schedule;
use crate::team::{Family, Team};
use std::ops::Range;

/// See the module.
pub(crate) struct Nb;

/// Distance and number of blocks of each step, of an all-gather.
fn steps(members: usize) -> Vec<(isize, isize)> {
    let members = members as isize;
    let distances = std::iter::successors(Some(1), |distance| Some(2 * distance));
    distances.take_while(|&distance| distance < members).map(|d| (d, d.min(members - d))).collect()
}

impl Family for Nb {
    fn name(&self) -> &'static str {
        "nb"
    }

    /// The own, then that of the next member, and so on.
    fn arrivals(&self, _me: usize, mut had: Vec<Vec<Range<u32>>>) -> Vec<Range<u32>> {
        had.get_mut(1..).into_iter().for_each(<[_]>::reverse);
        had.concat()
    }

    fn reduce_scatter(&self, schedule: &mut Schedule<'_>, team: &Team) {
        for (distance, count) in steps(team.len()).into_iter().rev() {
            schedule.exchange_reduce(
                (&team.blocks(distance..distance + count), team.rank(distance)),
                (&team.blocks(0..count), team.rank(-distance)),
            );
        }
    }

    fn all_gather(&self, schedule: &mut Schedule<'_>, team: &Team) {
        for (distance, count) in steps(team.len()) {
            schedule.exchange(
                (&team.blocks(0..count), team.rank(-distance)),
                (&team.blocks(distance..distance + count), team.rank(distance)),
            );
        }
    }
}
