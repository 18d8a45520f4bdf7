//! What has to be waited for before a memory's cells are touched.

use std::ops::Range;
use ubccl_core::plan::StepId;

/// Who touched each cell of a memory last: neighbours that the same steps touched are one run.
#[derive(Debug)]
pub(crate) struct Touched {
    runs: Vec<Run>,
}

#[derive(Clone, Debug)]
struct Run {
    /// Its first cell; it ends where the next begins.
    start: u32,
    writer: Option<StepId>,
    /// Since the writer.
    readers: Vec<StepId>,
}

impl Touched {
    /// Cells that nobody has touched.
    pub(crate) fn new() -> Self {
        Touched { runs: vec![Run { start: 0, writer: None, readers: Vec::new() }] }
    }

    /// `step` reads these cells; adds to `wanted` what it has to wait for.
    pub(crate) fn read(&mut self, cells: &Range<u32>, step: StepId, wanted: &mut Vec<StepId>) {
        for run in self.exactly(cells) {
            wanted.extend(run.writer);
            run.readers.push(step);
        }
    }

    /// The same of one that writes them.
    pub(crate) fn write(&mut self, cells: &Range<u32>, step: StepId, wanted: &mut Vec<StepId>) {
        for run in self.exactly(cells) {
            wanted.extend(run.writer);
            wanted.append(&mut run.readers);
            run.writer = Some(step);
        }
        let (first, end) = (self.find(cells.start), self.find(cells.end));
        self.runs.drain(first + 1..end);
    }

    /// The runs of these cells, cut where they begin and end.
    fn exactly(&mut self, cells: &Range<u32>) -> &mut [Run] {
        let first = self.cut(cells.start);
        let end = self.cut(cells.end);
        &mut self.runs[first..end]
    }

    /// The run that begins at `cell`, made if there is none.
    fn cut(&mut self, cell: u32) -> usize {
        let index = self.find(cell);
        if self.runs.get(index).is_none_or(|run| run.start != cell) {
            let before = self.runs[index - 1].clone();
            self.runs.insert(index, Run { start: cell, ..before });
        }
        index
    }

    /// The first run that does not begin before `cell`.
    fn find(&self, cell: u32) -> usize {
        self.runs.partition_point(|run| run.start < cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_say_what_cells_one_by_one_would() {
        let mut random = 3_u64;
        let (mut touched, mut cells) = (Touched::new(), vec![(None, Vec::new()); 24]);
        for step in 0..400 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = (random >> 40) as usize % 23;
            let end = start + 1 + (random >> 50) as usize % (24 - start);
            let (range, step) = (start as u32..end as u32, StepId(step));
            let (mut found, mut wanted) = (Vec::new(), Vec::new());
            if random >> 33 & 1 == 0 {
                touched.read(&range, step, &mut found);
                for (writer, readers) in &mut cells[start..end] {
                    wanted.extend(*writer);
                    readers.push(step);
                }
            } else {
                touched.write(&range, step, &mut found);
                for (writer, readers) in &mut cells[start..end] {
                    wanted.extend(*writer);
                    wanted.append(readers);
                    *writer = Some(step);
                }
            }
            for list in [&mut found, &mut wanted] {
                list.sort_unstable();
                list.dedup();
            }
            assert_eq!(found, wanted);
        }
    }
}
