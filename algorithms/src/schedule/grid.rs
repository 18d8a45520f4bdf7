//! The vector of a schedule, cut evenly again and again.

use std::ops::Range;
use ubccl_core::plan::{Cut, Index};

/// A vector cut into `radices[0]` even blocks, each of these into `radices[1]`, and so on. The blocks of the last cut are
/// its cells, numbered in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    radices: Vec<u32>,
}

impl Grid {
    /// Cuts of one block are left out.
    pub(crate) fn new(radices: &[u32]) -> Self {
        let mut radices: Vec<u32> = radices.iter().copied().filter(|&radix| radix > 1).collect();
        if radices.is_empty() {
            radices.push(1);
        }
        Grid { radices }
    }

    /// How many cells.
    pub(crate) fn cells(&self) -> u32 {
        self.radices.iter().product()
    }

    /// Cuts a range of cells into pieces that slices can name, in order. Whoever cuts the same range gets the same.
    pub(crate) fn pieces(&self, cells: Range<u32>) -> Vec<Range<u32>> {
        let mut pieces = Vec::new();
        self.add_pieces(0, 0, cells, &mut pieces);
        pieces
    }

    /// `cells` lie in the block of the cuts before `depth` that begins at `start`.
    fn add_pieces(&self, depth: usize, start: u32, cells: Range<u32>, pieces: &mut Vec<Range<u32>>) {
        if cells.is_empty() {
            return;
        }
        let block = self.block_cells(depth);
        let first = (cells.start - start).next_multiple_of(block) + start;
        let last = (cells.end - start) / block * block + start;
        if first > last {
            // All in one block, which is cut further.
            return self.add_pieces(depth + 1, last, cells, pieces);
        }
        if cells.start < first {
            self.add_pieces(depth + 1, first - block, cells.start..first, pieces);
        }
        if first < last {
            pieces.push(first..last);
        }
        if last < cells.end {
            self.add_pieces(depth + 1, last, last..cells.end, pieces);
        }
    }

    /// Cells in a block of cut `depth`.
    fn block_cells(&self, depth: usize) -> u32 {
        self.radices[depth + 1..].iter().product()
    }

    /// The cuts that name a piece.
    pub(crate) fn cuts(&self, piece: &Range<u32>) -> Vec<Cut> {
        let (mut cuts, mut start) = (Vec::new(), 0);
        for (depth, &parts) in self.radices.iter().enumerate() {
            if start == piece.start && self.block_cells(depth) * parts == piece.end - start {
                break; // all of the block
            }
            let block = self.block_cells(depth);
            let index = (piece.start - start) / block;
            start += index * block;
            let first = Index::fixed(index as i32);
            let blocks = piece.len() as u32 / block;
            if blocks > 1 {
                cuts.push(Cut::Span { parts, first, blocks });
                break;
            }
            cuts.push(Cut::Even { parts, index: first });
        }
        cuts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubccl_core::plan::{At, Buffer, Shape, Sizes};

    #[test]
    fn pieces_cover_a_range_and_their_cuts_are_its_elements() {
        let mut sizes = Sizes::default();
        for radices in [&[1][..], &[5], &[3, 4], &[2, 1, 3, 2]] {
            let grid = Grid::new(radices);
            // As many elements as cells: a cell is an element.
            sizes.input = u64::from(grid.cells());
            for start in 0..=grid.cells() {
                for end in start..=grid.cells() {
                    let mut next = start;
                    for piece in grid.pieces(start..end) {
                        let shape = Shape { buffer: Buffer::Input, cuts: grid.cuts(&piece) };
                        let range = shape.range(&sizes, At::default());
                        assert_eq!(
                            range,
                            (u64::from(piece.start), piece.len() as u64),
                            "{radices:?} {piece:?}"
                        );
                        assert_eq!(piece.start, next);
                        next = piece.end;
                    }
                    assert_eq!(next, end);
                }
            }
        }
        assert_eq!(Grid::new(&[3, 4]).pieces(2..9), [2..4, 4..8, 8..9]);
    }
}
