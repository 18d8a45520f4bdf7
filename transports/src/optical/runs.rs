//! What runs of simulated elements are: one value, or a part of a list that several ranks hold.
//!
//! What a rank passes on after a gather is as many values as ranks were gathered from. Lists are kept once, by whoever
//! sent and whoever got them, and lists of lists are lists, so that 8,192 ranks that all end with 8,192 values need not
//! hold 67 million.

use std::sync::Arc;
use ubccl_core::symbolic::{Piece, Value};

/// Fewer runs than this are copied.
const SHARED_FROM: usize = 16;
/// Lists of lists are at most so deep: deeper ones are made flat.
const MOST_DEPTH: u8 = 24;

/// What the elements of a run are.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// One value.
    Value(Value),
    /// Those of a list from this one on.
    Part(Arc<List>, u64),
}

/// Elements that follow each other.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) len: u64,
    pub(super) content: Content,
}

/// Runs, one after the other.
#[derive(Debug)]
pub(super) struct List {
    starts: Vec<u64>,
    contents: Vec<Content>,
    len: u64,
    depth: u8,
}

impl Content {
    /// The same, `by` elements further.
    #[inline]
    pub(super) fn further(&self, by: u64) -> Self {
        match self {
            Content::Value(value) => Content::Value(value.further(by)),
            Content::Part(list, from) => Content::Part(Arc::clone(list), from + by),
        }
    }

    /// Whether it is this, `by` elements further.
    #[inline]
    pub(super) fn is_further(&self, by: u64, of: &Content) -> bool {
        match (self, of) {
            (Content::Value(value), Content::Value(before)) => before.further(by) == *value,
            (Content::Part(list, from), Content::Part(before, start)) => {
                Arc::ptr_eq(list, before) && start + by == *from
            }
            _ => false,
        }
    }

    /// The innermost content that the first `len` elements are part of.
    #[inline]
    pub(super) fn resolved(self, len: u64) -> Self {
        match self {
            Content::Value(_) => self,
            Content::Part(list, from) => {
                let (mut list, mut from) = (list, from);
                loop {
                    let index = list.index(from);
                    if from + len > list.end(index) {
                        return Content::Part(list, from);
                    }
                    let by = from - list.starts[index];
                    match &list.contents[index] {
                        Content::Value(value) => return Content::Value(value.further(by)),
                        Content::Part(inner, start) => {
                            from = start + by;
                            list = Arc::clone(inner);
                        }
                    }
                }
            }
        }
    }

    /// Appends the values of the first `len` elements.
    pub(super) fn flatten(&self, len: u64, out: &mut Vec<Piece>) {
        match self {
            Content::Value(value) => out.push(Piece { len, value: *value }),
            Content::Part(list, from) => list.flatten(*from, from + len, out),
        }
    }

    fn depth(&self) -> u8 {
        match self {
            Content::Value(_) => 0,
            Content::Part(list, _) => list.depth,
        }
    }
}

impl List {
    /// The index of the run that an element lies in.
    fn index(&self, element: u64) -> usize {
        self.starts.partition_point(|&start| start <= element).saturating_sub(1)
    }

    fn end(&self, index: usize) -> u64 {
        self.starts.get(index + 1).copied().unwrap_or(self.len)
    }

    fn flatten(&self, from: u64, until: u64, out: &mut Vec<Piece>) {
        let mut at = from;
        let mut index = self.index(from);
        while at < until {
            let end = self.end(index).min(until);
            match &self.contents[index] {
                Content::Value(value) => {
                    out.push(Piece { len: end - at, value: value.further(at - self.starts[index]) });
                }
                Content::Part(list, start) => {
                    let start = start + at - self.starts[index];
                    list.flatten(start, start + end - at, out);
                }
            }
            (at, index) = (end, index + 1);
        }
    }

    fn of(contents: impl Iterator<Item = Run>) -> Self {
        let mut list = List { starts: Vec::new(), contents: Vec::new(), len: 0, depth: 1 };
        for Run { len, content } in contents {
            list.depth = list.depth.max(content.depth() + 1);
            list.starts.push(list.len);
            list.contents.push(content);
            list.len += len;
        }
        list
    }
}

/// Makes many runs one, of a list.
pub(super) fn share(runs: &mut Vec<Run>) {
    if runs.len() < SHARED_FROM {
        return;
    }
    let mut list = List::of(runs.drain(..));
    if list.depth > MOST_DEPTH {
        let mut pieces = Vec::new();
        list.flatten(0, list.len, &mut pieces);
        list = List::of(pieces.into_iter().map(Run::from));
    }
    runs.push(Run { len: list.len, content: Content::Part(Arc::new(list), 0) });
}

impl From<Piece> for Run {
    fn from(piece: Piece) -> Self {
        Run { len: piece.len, content: Content::Value(piece.value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(runs: &[Run]) -> Vec<Value> {
        let mut pieces = Vec::new();
        runs.iter().for_each(|run| run.content.flatten(run.len, &mut pieces));
        pieces.iter().flat_map(|piece| (0..piece.len).map(|k| piece.value.further(k))).collect()
    }

    #[test]
    fn lists_of_lists_hold_what_their_runs_held_however_deep() {
        let run = |k: u32| Run::from(Piece { len: 3, value: Value::contribution(k % 7, 8, u64::from(k)) });
        let mut runs: Vec<Run> = (0..20).map(run).collect();
        for round in 0..3 * u32::from(MOST_DEPTH) {
            let before = values(&runs);
            share(&mut runs);
            assert_eq!((runs.len(), values(&runs)), (1, before.clone()));
            let part = runs[0].content.further(4).resolved(5);
            assert_eq!(values(&[Run { len: 5, content: part }]), before[4..9]);
            let one = runs[0].content.further(4).resolved(2);
            assert!(matches!(one, Content::Value(value) if value == before[4]));
            assert!(runs[0].content.depth() <= MOST_DEPTH);
            runs.extend((round..round + 20).map(run));
        }
    }

    #[test]
    fn few_runs_stay_as_they_are() {
        let mut runs = vec![Run::from(Piece { len: 1, value: Value::UNWRITTEN }); SHARED_FROM - 1];
        share(&mut runs);
        assert_eq!(runs.len(), SHARED_FROM - 1);
    }
}
