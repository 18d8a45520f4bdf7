//! Sets of cells, found again as runs: faster than sorting thousands of blocks.

use std::ops::Range;

/// Some of a number of cells.
pub(crate) struct Marks {
    /// A bit for each cell; the last word ends with one that is never marked.
    words: Vec<u64>,
}

impl Marks {
    /// None of so many.
    pub(crate) fn new(cells: u32) -> Self {
        Marks { words: vec![0; cells as usize / 64 + 1] }
    }

    /// These as well.
    pub(crate) fn add(&mut self, cells: &Range<u32>) {
        let mut next = cells.start;
        while next < cells.end {
            let (word, bit) = (next as usize / 64, next % 64);
            let len = (64 - bit).min(cells.end - next);
            self.words[word] |= u64::MAX >> (64 - len) << bit;
            next += len;
        }
    }

    /// Their longest runs, in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<u32>> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let start = self.find(next, true)?;
            let end = self.find(start, false).expect("the last bit is not marked");
            next = end;
            Some(start..end)
        })
    }

    /// The same of these cells, which are marked, but none goes on over one of `starts`, which are in order; in the order in
    /// which they are named first.
    pub(crate) fn runs_as_named(&self, cells: &[Range<u32>], starts: &[u32]) -> Vec<Range<u32>> {
        let runs: Vec<Range<u32>> = self.runs().flat_map(|run| split(run, starts)).collect();
        let run_of = |cell: u32| runs.partition_point(|run| run.end <= cell);
        let mut is_new = vec![true; runs.len()];
        let named = cells.iter().filter(|cells| !cells.is_empty());
        let named = named.flat_map(|cells| run_of(cells.start)..=run_of(cells.end - 1));
        let first = named.filter(|&run| std::mem::replace(&mut is_new[run], false));
        first.map(|run| runs[run].clone()).collect()
    }

    /// The first cell from `from` on that is marked, or that is not.
    fn find(&self, from: u32, marked: bool) -> Option<u32> {
        let mut word = from as usize / 64;
        let mut mask = u64::MAX << (from % 64);
        while word < self.words.len() {
            let bits = if marked { self.words[word] } else { !self.words[word] } & mask;
            if bits != 0 {
                return Some(word as u32 * 64 + bits.trailing_zeros());
            }
            (word, mask) = (word + 1, u64::MAX);
        }
        None
    }
}

/// A run, cut where one of these cells, which are in order, is inside it.
fn split(run: Range<u32>, starts: &[u32]) -> impl Iterator<Item = Range<u32>> {
    let first = starts.partition_point(|&start| start <= run.start);
    let inside = &starts[first..starts.partition_point(|&start| start < run.end).max(first)];
    let begins = std::iter::once(run.start).chain(inside.iter().copied());
    begins.zip(inside.iter().copied().chain([run.end])).map(|(start, end)| start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_the_marked_cells() {
        let mut random = 5_u64;
        for cells in [1, 7, 63, 64, 65, 128, 200] {
            for _ in 0..100 {
                let (mut marks, mut wanted) = (Marks::new(cells), vec![false; cells as usize]);
                for _ in 0..4 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let start = (random >> 33) as u32 % cells;
                    let end = start + (random >> 45) as u32 % (cells - start + 1);
                    marks.add(&(start..end));
                    wanted[start as usize..end as usize].fill(true);
                }
                let mut found = vec![false; cells as usize];
                let mut before = None;
                for run in marks.runs() {
                    assert!(!run.is_empty() && before.is_none_or(|end| end < run.start), "runs do not touch");
                    found[run.start as usize..run.end as usize].fill(true);
                    before = Some(run.end);
                }
                assert_eq!(found, wanted);
            }
        }
    }

    #[test]
    fn runs_are_named_once_and_end_where_another_has_to_begin() {
        let mut marks = Marks::new(24);
        let cells = [7..8, 15..16, 8..9, 16..17, 0..0, 20..23, 15..16];
        cells.iter().for_each(|cells| marks.add(cells));
        assert_eq!(marks.runs_as_named(&cells, &[]), [7..9, 15..17, 20..23]);
        assert_eq!(marks.runs_as_named(&cells, &[0, 8, 16]), [7..8, 15..16, 8..9, 16..17, 20..23]);
        assert_eq!(marks.runs_as_named(&cells[..6], &[7, 9, 20, 21]), [7..9, 15..17, 20..21, 21..23]);
    }
}
