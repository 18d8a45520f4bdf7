//! What the ranks must end with: the collective's definition, and the plan's declared order of combination.

use super::flat::Flat;
use super::violation::{Violation, Wrong};
use crate::collective::{Content, Kind, Rank};
use crate::plan::Association;
use crate::symbolic::{Piece, Value};

/// What every output must be.
pub(super) struct Expected {
    ranks: u32,
    count: u64,
    /// The reduction of each block of the reduced vector; one block if the order is the same for all.
    blocks: Vec<Value>,
    /// Elements of the reduced vector.
    reduced: u64,
}

impl Expected {
    pub(super) fn new(flat: &Flat, association: Association, count: u64) -> Result<Self, Violation> {
        let (ranks, kind) = (flat.ranks, flat.specs[0].kind);
        let leaf = |rank: u32| Value::contribution(rank % ranks, ranks, 0);
        let blocks = match association {
            _ if !kind.row().reduces => Vec::new(),
            Association::None if ranks > 1 => {
                let what = "combines contributions and declares no order for it";
                return Err(Violation::Malformed { rank: 0, step: None, what });
            }
            Association::None | Association::Flat => vec![Value::reduction((0..ranks).map(leaf), ranks)],
            Association::Ring => (0..ranks)
                .map(|block| {
                    let rest = (block + 2..=block + ranks).map(leaf);
                    rest.fold(leaf(block + 1), |sum, next| Value::reduction([sum, next], ranks))
                })
                .collect(),
        };
        let reduced = match kind {
            Kind::ReduceScatter => count * u64::from(ranks),
            _ => count,
        };
        Ok(Expected { ranks, count, blocks, reduced })
    }

    /// Compares `found`, all of a rank's output in order.
    pub(super) fn check(&self, flat: &Flat, rank: Rank, found: &[Piece]) -> Result<(), Violation> {
        let mut output = Output { rank, ranks: self.ranks, found, into: 0, element: 0 };
        for holding in flat.specs[rank as usize].collective(self.count).holdings(self.ranks, rank) {
            match holding.content {
                Content::Of { rank, at } => {
                    let value = Value::contribution(rank, self.ranks, at);
                    output.check(Piece { len: holding.len, value })?;
                }
                Content::Reduction { at } => {
                    self.reduction(at, holding.len).try_for_each(|piece| output.check(piece))?;
                }
            }
        }
        Ok(())
    }

    /// Elements `at..at+len` of the reduced vector.
    fn reduction(&self, at: u64, len: u64) -> impl Iterator<Item = Piece> {
        let parts = self.blocks.len() as u64;
        let (short, longer) = (self.reduced / parts, self.reduced % parts);
        let start = move |block: u64| block * short + block.min(longer);
        // No later than the block that `at` lies in.
        let first = (at / (short + 1)).min(parts - 1);
        let blocks = (first..parts).take_while(move |&block| start(block) < at + len);
        blocks.filter_map(move |block| {
            let (from, to) = (start(block).max(at), start(block + 1).min(at + len));
            let value = self.blocks[block as usize].further(from);
            (from < to).then(|| Piece { len: to - from, value })
        })
    }
}

/// One rank's output, compared from the beginning on.
struct Output<'a> {
    rank: Rank,
    ranks: u32,
    found: &'a [Piece],
    /// How far into the first of `found`.
    into: u64,
    element: u64,
}

impl Output<'_> {
    fn check(&mut self, mut wanted: Piece) -> Result<(), Violation> {
        while let ([found, rest @ ..], true) = (self.found, wanted.len > 0) {
            if let Some(wrong) = Wrong::of(wanted.value, found.value.further(self.into), self.ranks) {
                return Err(Violation::Outcome { rank: self.rank, element: self.element, wrong });
            }
            let len = wanted.len.min(found.len - self.into);
            self.element += len;
            wanted = Piece { len: wanted.len - len, value: wanted.value.further(len) };
            (self.found, self.into) =
                if self.into + len == found.len { (rest, 0) } else { (self.found, self.into + len) };
        }
        debug_assert_eq!(wanted.len, 0, "an output is as long as its holdings");
        Ok(())
    }
}
