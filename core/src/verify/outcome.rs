//! What the ranks must end with: the collective's definition, and the plan's declared order of combination.

use super::flat::Flat;
use super::part::Followed;
use super::violation::{Violation, Wrong};
use crate::collective::{Collective, Content, Rank};
use crate::plan::Association;
use crate::symbolic::{Piece, SymbolicMemory, Value};
use std::ops::Range;

/// What every output must be.
pub(super) struct Expected {
    ranks: u32,
    followed: Followed,
    /// The reduction of each block of the reduced vector; one block if the order is the same for all.
    blocks: Vec<Value>,
    /// Where each block begins in the reduced vector, and at last its end.
    starts: Vec<u64>,
    /// What ranks were found to hold of the reduced vector, where the order is the algorithm's own.
    agreed: Option<SymbolicMemory>,
}

impl Expected {
    pub(super) fn new(flat: &Flat, followed: Followed, association: Association) -> Result<Self, Violation> {
        let (ranks, kind, call) = (flat.ranks, flat.specs[0].kind, flat.calls[0]);
        let leaf = |rank: u32| Value::contribution(rank % ranks, ranks, 0);
        let blocks = match association {
            _ if !kind.row().reduces => Vec::new(),
            Association::None if ranks > 1 => {
                let what = "combines contributions and declares no order for it";
                return Err(Violation::Malformed { rank: 0, step: None, what });
            }
            Association::None | Association::Flat | Association::Own => {
                vec![Value::reduction((0..ranks).map(leaf), ranks)]
            }
            Association::Ring => (0..ranks)
                .map(|block| {
                    let rest = (block + 2..=block + ranks).map(leaf);
                    rest.fold(leaf(block + 1), |sum, next| Value::reduction([sum, next], ranks))
                })
                .collect(),
            Association::Tree { radix } => {
                let first = call.root().unwrap_or(0);
                vec![tree((first..first + ranks).map(leaf).collect(), usize::from(radix), ranks)]
            }
        };
        let starts = match (blocks.len() as u64, call.send().blocks()) {
            (0 | 1, _) => vec![0, u64::MAX],
            (_, Some(table)) => table.iter().map(|block| block.0).chain([table.extent()]).collect(),
            (parts, None) => {
                let reduced = call.input_elements(ranks, 0);
                (0..=parts).map(|block| block * (reduced / parts) + block.min(reduced % parts)).collect()
            }
        };
        let is_own = association == Association::Own && kind.row().reduces;
        let agreed = is_own.then(|| SymbolicMemory::unwritten(call.input_elements(ranks, 0)));
        Ok(Expected { ranks, followed, blocks, starts, agreed })
    }

    /// Compares all of a rank's output with what `found` says is in a range of the rank's memory.
    pub(super) fn check(
        &mut self,
        flat: &Flat,
        rank: Rank,
        found: &mut dyn FnMut(Range<u64>, &mut Vec<Piece>),
    ) -> Result<(), Violation> {
        let output = &flat.layouts[rank as usize].output;
        let mut pieces = Vec::new();
        let ranks = self.ranks;
        let mut read = |start: u64, len: u64| {
            pieces.clear();
            found(output.start + start..output.start + start + len, &mut pieces);
            Output { rank, ranks, found: pieces.clone(), next: 0, into: 0, element: start }
        };
        let mut holdings = Collective::holdings(&|r| flat.calls[r as usize], self.ranks, rank);
        for holding in &holdings {
            let mut output = read(holding.start, holding.len);
            match holding.content {
                Content::Of { rank, at } => {
                    let mut pieces = self.followed.contribution((rank, self.ranks), at, holding.len);
                    pieces.try_for_each(|piece| output.check(piece))?;
                }
                Content::Reduction { at } => {
                    let inside = self.followed.within(0, at, holding.len);
                    output.elsewhere(inside.start)?;
                    let (first, len) = (at + inside.start, inside.end - inside.start);
                    match &mut self.agreed {
                        Some(agreed) => output.agree(agreed, self.blocks[0], first, len)?,
                        None => self.reduction(first, len).try_for_each(|piece| output.check(piece))?,
                    }
                    output.elsewhere(holding.len - inside.end)?;
                }
            }
        }
        holdings.sort_unstable_by_key(|holding| holding.start);
        let mut end = 0;
        for (start, len) in holdings.iter().map(|h| (h.start, h.len)).chain([(output.end - output.start, 0)])
        {
            if start > end {
                self.check_gap(flat, read(end, start - end))?;
            }
            end = end.max(start + len);
        }
        Ok(())
    }

    /// What lies between blocks is what it was: the rank's input, in place, or nothing anybody wrote.
    fn check_gap(&self, flat: &Flat, mut output: Output) -> Result<(), Violation> {
        let layout = &flat.layouts[output.rank as usize];
        let (rank, first) = (output.rank, layout.output.start + output.element);
        let last = first + output.found.iter().map(|piece| piece.len).sum::<u64>();
        let own = layout.input.start.clamp(first, last)..layout.input.end.clamp(first, last);
        output.unwritten(own.start - first)?;
        if !own.is_empty() {
            let (at, len) = (own.start - layout.input.start, own.end - own.start);
            let mut pieces = self.followed.contribution((rank, self.ranks), at, len);
            pieces.try_for_each(|piece| output.check(piece))?;
        }
        output.unwritten(last - own.end)
    }

    /// Elements `at..at+len` of the reduced vector.
    fn reduction(&self, at: u64, len: u64) -> impl Iterator<Item = Piece> {
        let ranges = self.starts.windows(2).map(move |ends| (ends[0].max(at), ends[1].min(at + len)));
        self.blocks
            .iter()
            .zip(ranges)
            .filter(|(_, (from, to))| from < to)
            .map(|(value, (from, to))| Piece { len: to - from, value: value.further(from) })
    }
}

/// Level by level from the leaves.
fn tree(mut level: Vec<Value>, radix: usize, ranks: u32) -> Value {
    while level.len() > 1 {
        let groups = level.chunks(radix.max(2));
        level = groups.map(|group| Value::reduction(group.iter().copied(), ranks)).collect();
    }
    level[0]
}

/// A range of one rank's output, compared from the beginning on.
struct Output {
    rank: Rank,
    ranks: u32,
    found: Vec<Piece>,
    /// Which of `found` is next.
    next: usize,
    /// How far into it.
    into: u64,
    element: u64,
}

impl Output {
    fn check(&mut self, wanted: Piece) -> Result<(), Violation> {
        let ranks = self.ranks;
        self.compare(wanted.len, |k, _, found| Wrong::of(wanted.value.further(k), found, ranks))
    }

    /// The next `len` elements are a reduction of everybody, from element `at` of the reduced vector on, in the order that
    /// other ranks have; where there is none yet, this one becomes it.
    fn agree(
        &mut self,
        agreed: &mut SymbolicMemory,
        everybody: Value,
        at: u64,
        len: u64,
    ) -> Result<(), Violation> {
        let ranks = self.ranks;
        let mut known = Vec::new();
        agreed.read(at, len, &mut known);
        let mut done = 0;
        for part in known {
            let first = at + done;
            let is_new = part.value.contributors == 0;
            let mut new = Vec::new();
            self.compare(part.len, |k, len, found| {
                let expression = if is_new { found.expression } else { part.value.expression };
                new.push(Piece { len, value: found });
                Wrong::of(Value { expression, ..everybody.further(first + k) }, found, ranks)
            })?;
            if is_new {
                agreed.write(first, &new);
            }
            done += part.len;
        }
        Ok(())
    }

    /// The next `len` elements are none that are followed.
    fn elsewhere(&mut self, len: u64) -> Result<(), Violation> {
        let ranks = self.ranks;
        self.compare(len, |_, _, found| Wrong::of(Value::ELSEWHERE, found, ranks))
    }

    fn unwritten(&mut self, len: u64) -> Result<(), Violation> {
        let is_written = |value: Value| value.contributors != 0 || value.expression != 0;
        self.compare(len, |_, _, found| is_written(found).then_some(Wrong::Gap))
    }

    /// Compares the next `len` elements, run by run: `wrong` is given how far into them a run begins, and how long it is.
    fn compare(
        &mut self,
        len: u64,
        mut wrong: impl FnMut(u64, u64, Value) -> Option<Wrong>,
    ) -> Result<(), Violation> {
        let mut done = 0;
        while let (Some(found), true) = (self.found.get(self.next), done < len) {
            let run = (len - done).min(found.len - self.into);
            if let Some(wrong) = wrong(done, run, found.value.further(self.into)) {
                return Err(Violation::Outcome { rank: self.rank, element: self.element, wrong });
            }
            (self.element, done) = (self.element + run, done + run);
            let is_over = self.into + run == found.len;
            (self.next, self.into) = if is_over { (self.next + 1, 0) } else { (self.next, self.into + run) };
        }
        debug_assert_eq!(done, len, "an output is as long as its holdings");
        Ok(())
    }
}
