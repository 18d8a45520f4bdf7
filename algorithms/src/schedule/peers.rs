//! Ranks as plans name them.

use ubccl_core::Rank;
use ubccl_core::plan::{Index, Peers};

/// One rank.
pub(super) fn fixed(rank: Rank) -> Index {
    Index::fixed(crate::share::signed(rank))
}

/// Ranks as a run if they are evenly apart, and as lists of at most `most` if not.
pub(super) fn lists(ranks: &[Rank], most: usize) -> Vec<Peers> {
    match progression(ranks) {
        Some(stride) if ranks.len() > 1 => {
            vec![Peers::Run { first: fixed(ranks[0]), stride, count: ranks.len() as u32 }]
        }
        _ => ranks.chunks(most).map(|some| Peers::List(some.iter().copied().map(fixed).collect())).collect(),
    }
}

/// The distance between neighbours of a list, if it is the same everywhere.
pub(super) fn progression(ranks: &[Rank]) -> Option<i32> {
    let apart = |pair: &[Rank]| crate::share::signed(pair[1]) - crate::share::signed(pair[0]);
    let stride = ranks.get(..2).map_or(1, apart);
    ranks.windows(2).all(|pair| apart(pair) == stride).then_some(stride)
}
