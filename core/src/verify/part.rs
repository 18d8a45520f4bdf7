//! Following a part of what is moved: contents of all elements of many ranks do not fit into memory.

use super::flat::Flat;
use crate::collective::Rank;
use crate::symbolic::{Piece, Value};
use std::ops::Range;

/// Part `number` of `of`, in elements: of the vector, if the collective reduces, and of all ranks' inputs, one after the
/// other, if it does not. All parts together are everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which, from 0 on.
    pub number: u64,
    /// Of how many.
    pub of: u64,
}

impl Part {
    /// Everything.
    pub const ALL: Part = Part { number: 0, of: 1 };
}

/// The elements of one call that are followed.
#[derive(Debug)]
pub(super) struct Followed {
    range: Range<u64>,
    is_everything: bool,
    /// Per rank: where its input begins among all; empty if the inputs lie upon each other, being reduced.
    starts: Vec<u64>,
}

impl Followed {
    pub(super) fn new(flat: &Flat, part: Part) -> Self {
        let mut starts = Vec::new();
        let mut total = 0;
        for layout in &flat.layouts {
            let len = layout.input.end - layout.input.start;
            if flat.specs[0].kind.row().reduces {
                total = total.max(len);
            } else {
                starts.push(total);
                total += len;
            }
        }
        let (number, of) = (u128::from(part.number.min(part.of)), u128::from(part.of.max(1)));
        let end = |parts: u128| u64::try_from(u128::from(total) * parts / of).unwrap_or(u64::MAX);
        Followed { range: end(number)..end(number + 1), is_everything: part.of <= 1, starts }
    }

    /// Whether nothing is left out.
    pub(super) fn is_everything(&self) -> bool {
        self.is_everything
    }

    /// Where of elements `at..at + len` of a rank's input those are that are followed, counted from `at`.
    pub(super) fn within(&self, rank: Rank, at: u64, len: u64) -> Range<u64> {
        let first = self.starts.get(rank as usize).map_or(at, |start| start + at);
        let inside = |end: u64| end.clamp(first, first + len) - first;
        inside(self.range.start)..inside(self.range.end)
    }

    /// What elements `at..at + len` of a rank's input are, for who follows these.
    pub(super) fn contribution(
        &self,
        (rank, ranks): (Rank, u32),
        at: u64,
        len: u64,
    ) -> impl Iterator<Item = Piece> + use<> {
        let followed = self.within(rank, at, len);
        let value = Value::contribution(rank, ranks, at + followed.start);
        let pieces = [
            Piece { len: followed.start, value: Value::ELSEWHERE },
            Piece { len: followed.end - followed.start, value },
            Piece { len: len - followed.end, value: Value::ELSEWHERE },
        ];
        pieces.into_iter().filter(|piece| piece.len > 0)
    }
}
