//! Phantom regions: who contributed to which element.
//!
//! [`SymbolicMemory`](ubccl_core::symbolic::SymbolicMemory) keeps its segments in a list, which suits a verifier that
//! cuts it before it starts. Here nobody knows the cuts: a ring of 384 ranks makes 384 of them one by one, and shifting
//! the list's tail would cost more than all else a message costs. So segments are in a tree, and those that continue
//! each other are one, so that a block that came in chunks costs no more than a whole one.

use super::runs::{Content, Run, share};
use std::collections::BTreeMap;
use ubccl_core::endpoint::Span;
use ubccl_core::symbolic::Piece;
use ubccl_core::{Error, Result};

/// A region without bytes.
#[derive(Debug)]
pub(super) struct Phantom {
    unit: u32,
    len: u64,
    /// What each segment is, by the segment's first element. The first segment begins at 0.
    segments: BTreeMap<u64, Content>,
}

impl Phantom {
    /// `content`, of which one element stands for `unit` bytes (at least one).
    pub(super) fn new(unit: u32, content: &[Piece]) -> Self {
        let mut phantom = Phantom { unit, len: 0, segments: BTreeMap::new() };
        for piece in content.iter().filter(|piece| piece.len > 0) {
            phantom.segments.insert(phantom.len, Content::Value(piece.value));
            phantom.len += piece.len;
        }
        phantom
    }

    /// How many bytes an element stands for.
    #[inline]
    pub(super) fn unit(&self) -> u32 {
        self.unit
    }

    /// Everything it holds.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(self.segments.len());
        let mut segments = self.segments.iter().peekable();
        while let Some((&at, content)) = segments.next() {
            let end = segments.peek().map_or(self.len, |next| *next.0);
            content.flatten(end - at, &mut pieces);
        }
        pieces
    }

    /// Appends what a span holds.
    pub(super) fn read(&self, span: Span, out: &mut Vec<Run>) -> Result<()> {
        let (start, end) = self.elements(span)?;
        self.read_elements(start, end, out);
        Ok(())
    }

    /// Appends what a span holds, to be sent: if that is much, it is held together with whoever gets it.
    pub(super) fn read_shared(&mut self, span: Span, out: &mut Vec<Run>) -> Result<()> {
        let (start, end) = self.elements(span)?;
        self.read_elements(start, end, out);
        let runs = out.len();
        share(out);
        if let [Run { content, .. }] = &out[..]
            && runs > 1
        {
            self.write_run(start, end, content.clone());
        }
        Ok(())
    }

    fn read_elements(&self, start: u64, mut end: u64, out: &mut Vec<Run>) {
        let first = out.len();
        // Backwards: the segment that `start` lies in begins before it.
        for (&at, content) in self.segments.range(..end).rev() {
            let from = at.max(start);
            let len = end - from;
            out.push(Run { len, content: content.further(from - at).resolved(len) });
            end = from;
            if end == start {
                break;
            }
        }
        out[first..].reverse();
    }

    /// Writes runs, which together are as long, into a span.
    pub(super) fn write(&mut self, span: Span, runs: impl Iterator<Item = Run> + Clone) -> Result<()> {
        let (mut at, end) = self.elements(span)?;
        if runs.clone().map(|run| run.len).sum::<u64>() != end - at {
            return Err(Error::internal(format!("runs of another length were written to {span:?}")));
        }
        for run in runs.filter(|run| run.len > 0) {
            self.write_run(at, at + run.len, run.content);
            at += run.len;
        }
        Ok(())
    }

    fn write_run(&mut self, start: u64, end: u64, content: Content) {
        let mut from_end = self.segments.range_mut(..=end).rev();
        let Some((&last, last_content)) = from_end.next() else { return };
        let is_cut = last == end;
        let tail = (end < self.len).then(|| last_content.further(end - last));
        // What follows goes on from here as one segment.
        let joins = tail.as_ref().is_some_and(|tail| tail.is_further(end - start, &content));
        // The segment that element `end` − 1 lies in.
        let before_end = if is_cut { from_end.next() } else { Some((&last, last_content)) };
        let Some((&at, held)) = before_end else { return };
        let continues = |at: u64, before: &Content| content.is_further(start - at, before);
        if at == start {
            if from_end.next().is_some_and(|(&at, before)| continues(at, before)) {
                self.segments.remove(&start);
            } else {
                *held = content;
            }
        } else {
            let goes_on = if at < start { continues(at, held) } else { self.remove(start, end, &content) };
            if !goes_on {
                self.segments.insert(start, content);
            }
        }
        let Some(tail) = tail else { return };
        match (joins, is_cut) {
            (true, true) => drop(self.segments.remove(&end)),
            (false, false) => drop(self.segments.insert(end, tail)),
            (true, false) | (false, true) => {}
        }
    }

    /// Removes the segments that begin in a range; whether the one before it goes on with this content.
    fn remove(&mut self, start: u64, end: u64, content: &Content) -> bool {
        while let Some((&at, before)) = self.segments.range(..end).next_back() {
            if at < start {
                return content.is_further(start - at, before);
            }
            self.segments.remove(&at);
        }
        false
    }

    /// First element and the one after the last.
    fn elements(&self, span: Span) -> Result<(u64, u64)> {
        let unit = u64::from(self.unit);
        let end = span.offset.checked_add(span.len).filter(|end| end / unit <= self.len);
        match end {
            Some(end) if span.offset.is_multiple_of(unit) && end.is_multiple_of(unit) => {
                Ok((span.offset / unit, end / unit))
            }
            _ => {
                let len = self.len;
                Err(Error::internal(format!("{span:?} is no part of {len} elements of {unit} bytes")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubccl_core::endpoint::RegionId;
    use ubccl_core::symbolic::Value;

    const LEN: u64 = 20;

    fn span(offset: u64, len: u64) -> Span {
        Span { region: RegionId(0), offset, len }
    }

    fn one(len: u64, value: Value) -> impl Iterator<Item = Run> + Clone {
        std::iter::once(Run::from(Piece { len, value }))
    }

    fn leaf(rank: u32) -> Value {
        Value::contribution(rank, 4, 0)
    }

    #[test]
    fn a_phantom_behaves_like_an_array_of_elements_and_stays_merged() {
        let mut array: Vec<Value> = (0..LEN).map(|k| leaf(0).further(k)).collect();
        let mut phantom = Phantom::new(1, &[Piece { len: LEN, value: leaf(0) }]);
        let mut random = 7_u64;
        for round in 0..5000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = (random >> 33) % LEN;
            let len = (random >> 50) % (LEN - start + 1);
            let value = leaf(round % 3).further(start);
            phantom.write(span(start, len), one(len, value)).unwrap();
            array[start as usize..(start + len) as usize]
                .iter_mut()
                .zip(0..)
                .for_each(|(element, k)| *element = value.further(k));
            let pieces = phantom.pieces();
            let read = pieces.iter().flat_map(|piece| (0..piece.len).map(|k| piece.value.further(k)));
            assert_eq!(read.collect::<Vec<_>>(), array);
            let continues = |pair: &[Piece]| pair[0].value.further(pair[0].len) == pair[1].value;
            assert!(!pieces.windows(2).any(continues), "{pieces:?}");
            let mut part = Vec::new();
            phantom.read(span(start, len), &mut part).unwrap();
            assert!(part.iter().map(|run| run.len).sum::<u64>() == len && part.len() <= 1, "{part:?}");
        }
    }

    #[test]
    fn chunks_of_a_block_become_one_segment() {
        let mut phantom = Phantom::new(4, &[Piece { len: 100, value: Value::UNWRITTEN }]);
        for chunk in (0..10).rev() {
            let value = leaf(1).further(10 * chunk);
            phantom.write(span(40 * chunk, 40), one(10, value)).unwrap();
        }
        assert_eq!(phantom.pieces(), [Piece { len: 100, value: leaf(1) }]);
    }

    #[test]
    fn empty_regions_and_spans_are_fine_and_wrong_ones_told() {
        let mut empty = Phantom::new(4, &[]);
        assert_eq!(empty.pieces(), []);
        empty.write(span(0, 0), [].into_iter()).unwrap();
        let mut phantom = Phantom::new(4, &[Piece { len: 2, value: leaf(0) }]);
        for (offset, len) in [(2, 4), (0, 6), (4, 8), (u64::MAX, 4)] {
            assert!(phantom.read(span(offset, len), &mut Vec::new()).is_err());
        }
        assert!(phantom.write(span(0, 8), one(1, leaf(0))).is_err());
    }
}
