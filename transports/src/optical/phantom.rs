//! Phantom regions: who contributed to which element.
//!
//! [`SymbolicMemory`](ubccl_core::symbolic::SymbolicMemory) keeps its segments in a list, which suits a verifier that
//! cuts it before it starts. Here nobody knows the cuts: a ring of 384 ranks makes 384 of them one by one, and shifting
//! the list's tail would cost more than all else a message costs. So segments are linked (see `segments`), and those that
//! continue each other are one, so that a block that came in chunks costs no more than a whole one.

use super::runs::{Content, Run, share};
use super::segments::Segments;
use super::slab::NONE;
use ubccl_core::endpoint::Span;
use ubccl_core::symbolic::Piece;
use ubccl_core::{Error, Result};

/// A region without bytes.
#[derive(Debug)]
pub(super) struct Phantom {
    unit: u32,
    segments: Segments,
}

impl Phantom {
    /// `content`, of which one element stands for `unit` bytes (at least one).
    pub(super) fn new(unit: u32, content: &[Piece]) -> Self {
        let mut segments = Segments::new(content.iter().map(|piece| piece.len).sum());
        let (mut last, mut at) = (NONE, 0);
        for piece in content.iter().filter(|piece| piece.len > 0) {
            last = segments.insert(last, at, Content::Value(piece.value));
            at += piece.len;
        }
        Phantom { unit, segments }
    }

    /// How many bytes an element stands for.
    #[inline]
    pub(super) fn unit(&self) -> u32 {
        self.unit
    }

    /// Has the page fetched that a span begins in.
    pub(super) fn foresee_page(&self, span: Span) {
        self.segments.foresee_page(self.element(span.offset));
    }

    /// Has the segment fetched that a span begins in, a while later.
    pub(super) fn foresee_segment(&self, span: Span) {
        self.segments.foresee(self.element(span.offset));
    }

    /// Has the segments beside that one fetched, a while later still.
    pub(super) fn foresee_beside(&self, span: Span) {
        self.segments.foresee_beside(self.element(span.offset));
    }

    /// Everything it holds.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(self.segments.count());
        let mut at = 0;
        while at < self.segments.len() {
            let segment = self.segments.find(at);
            let end = self.segments.end(segment);
            self.segments.content(segment).flatten(end - at, &mut pieces);
            at = end;
        }
        pieces
    }

    /// Appends what a span holds.
    pub(super) fn read(&self, span: Span, out: &mut Vec<Run>) -> Result<()> {
        let (start, end) = self.elements(span)?;
        self.read_elements(start, end, out);
        Ok(())
    }

    /// What a span holds, if that is one run.
    #[inline]
    pub(super) fn read_one(&self, span: Span) -> Result<Option<Run>> {
        let (start, end) = self.elements(span)?;
        Ok((start < end).then(|| self.run(start, end)).filter(|run| run.len == end - start))
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

    fn read_elements(&self, start: u64, end: u64, out: &mut Vec<Run>) {
        let mut from = start;
        while from < end {
            let run = self.run(from, end);
            from += run.len;
            out.push(run);
        }
    }

    /// What begins at `start`, up to `end` at most.
    #[inline]
    fn run(&self, start: u64, end: u64) -> Run {
        let segment = self.segments.find(start);
        let len = self.segments.end(segment).min(end) - start;
        let content = self.segments.content(segment).further(start - self.segments.start(segment));
        Run { len, content: content.resolved(len) }
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

    /// Writes one value or part of a list, of at least one element.
    fn write_run(&mut self, start: u64, end: u64, content: Content) {
        let segments = &mut self.segments;
        let first = segments.find(start);
        let mut last = first;
        while segments.end(last) < end {
            last = segments.next(last);
        }
        let (last_end, next) = (segments.end(last), segments.next(last));
        let tail = (end < last_end).then(|| segments.content(last).further(end - segments.start(last)));
        let follower = tail.as_ref().or((next != NONE).then(|| segments.content(next)));
        // What follows goes on from here as one segment, as this may from what is before.
        let joins = follower.is_some_and(|follower| follower.is_further(end - start, &content));
        let begins_here = segments.start(first) == start;
        let before = if begins_here { segments.before(first) } else { first };
        let goes_on =
            before != NONE && content.is_further(start - segments.start(before), segments.content(before));
        let own = if goes_on {
            before
        } else if begins_here {
            segments.set_content(first, content);
            first
        } else {
            segments.insert(first, start, content)
        };
        let until = if joins && tail.is_none() { end + 1 } else { end };
        while let next = segments.next(own)
            && next != NONE
            && segments.start(next) < until
        {
            segments.remove(next);
        }
        if let Some(tail) = tail.filter(|_| !joins) {
            segments.insert(own, end, tail);
        }
    }

    /// First element and the one after the last.
    #[inline]
    fn elements(&self, span: Span) -> Result<(u64, u64)> {
        let unit = u64::from(self.unit);
        let bytes = |element: u64| element.checked_mul(unit);
        let (start, end) = (self.element(span.offset), self.element(span.offset.saturating_add(span.len)));
        let is_whole = bytes(start) == Some(span.offset) && bytes(end - start) == Some(span.len);
        if !is_whole || end > self.segments.len() {
            let len = self.segments.len();
            return Err(Error::internal(format!("{span:?} is no part of {len} elements of {unit} bytes")));
        }
        Ok((start, end))
    }

    /// The element that a byte belongs to. Dividing is slow, and most units are powers of two.
    #[inline]
    fn element(&self, byte: u64) -> u64 {
        if self.unit.is_power_of_two() {
            return byte >> self.unit.trailing_zeros();
        }
        byte / u64::from(self.unit)
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
