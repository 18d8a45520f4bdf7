//! Who touched which elements of one rank's memory last.

use super::flat::{Flat, NONE};
use super::part::Followed;
use super::violation::Violation;
use crate::collective::Rank;
use crate::symbolic::{Piece, SymbolicMemory, Value};

/// Nobody wrote this.
const UNWRITTEN: u32 = u32::MAX;
/// Holds the rank's input from the start.
const INITIAL: u32 = u32::MAX - 1;
/// The end of a list of readers.
const NIL: u32 = u32::MAX;

/// The last writer of every element, and its readers since.
#[derive(Default)]
pub(super) struct Accesses {
    rank: Rank,
    /// First step of the rank.
    base: u32,
    segments: Vec<Segment>,
    end: u64,
    /// Lists of readers, which segments that were cut share: a step and the rest of the list.
    readers: Vec<(u32, u32)>,
    /// Where the last access was; the next is often beside it.
    last: usize,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    start: u64,
    writer: u32,
    readers: u32,
}

/// What a step may not do.
pub(super) enum Conflict {
    /// Read this.
    Unwritten(u64, u64),
    /// Write this.
    Forbidden(u64, u64),
    /// Read and write ranges that overlap and are not the same.
    Itself,
    /// Touch this before that step has completed.
    With(u32, u64, u64),
}

impl Conflict {
    pub(super) fn into_violation(self, flat: &Flat, step: u32) -> Violation {
        let (rank, at) = (flat.owner(step).0, flat.describe(step));
        let place = |start, len| flat.place(rank, start, len);
        match self {
            Conflict::Unwritten(start, len) => {
                Violation::UnwrittenRead { step: at, place: place(start, len) }
            }
            Conflict::Forbidden(start, len) => {
                Violation::ForbiddenWrite { step: at, place: place(start, len) }
            }
            Conflict::Itself => {
                let what = "reads and writes ranges that overlap and are not the same";
                Violation::Malformed { rank, step: Some(Box::new(at)), what }
            }
            Conflict::With(first, start, len) => {
                Violation::Unordered { first: flat.describe(first), second: at, place: place(start, len) }
            }
        }
    }
}

impl Accesses {
    /// Forgets everything but what the rank brings.
    pub(super) fn reset(&mut self, flat: &Flat, rank: Rank) {
        let layout = &flat.layouts[rank as usize];
        self.rank = rank;
        self.base = flat.steps_of(rank).start as u32;
        (self.end, self.last) = (layout.len(), 0);
        self.readers.clear();
        self.segments.clear();
        let (start, end) = (layout.input.start, layout.input.end);
        let runs = [(0, start, UNWRITTEN), (start, end, INITIAL), (end, self.end, UNWRITTEN)];
        for (start, _, writer) in runs.into_iter().filter(|(start, end, _)| start < end) {
            self.segments.push(Segment { start, writer, readers: NIL });
        }
    }

    /// The accesses of `step`, which is posted knowing `known` (per step of the rank) to have completed.
    #[inline]
    pub(super) fn take(&mut self, flat: &Flat, known: &[bool], step: u32) -> Option<Conflict> {
        let now = flat.steps[step as usize];
        if now.len == 0 {
            return None;
        }
        let (reads, writes) = (now.read != NONE, now.write != NONE);
        if reads && writes && now.read != now.write && now.read.abs_diff(now.write) < now.len {
            return Some(Conflict::Itself);
        }
        let layout = &flat.layouts[self.rank as usize];
        if writes && !layout.writable(now.write, now.len) {
            return Some(Conflict::Forbidden(now.write, now.len));
        }
        let ordered = Ordered { flat, base: self.base, known, step };
        let read = (reads && !layout.constant(now.read)).then(|| self.read(&ordered, now.read, now.len));
        read.flatten().or_else(|| writes.then(|| self.write(&ordered, now.write, now.len)).flatten())
    }

    fn read(&mut self, ordered: &Ordered, start: u64, len: u64) -> Option<Conflict> {
        let (first, last) = self.cut(start, len);
        for index in first..last {
            let Segment { writer, readers, .. } = self.segments[index];
            if writer == UNWRITTEN {
                return Some(Conflict::Unwritten(start, len));
            }
            if writer != INITIAL && !ordered.after_write(writer, start) {
                return Some(Conflict::With(writer, start, len));
            }
            self.segments[index].readers = self.readers.len() as u32;
            self.readers.push((ordered.step, readers));
        }
        None
    }

    fn write(&mut self, ordered: &Ordered, start: u64, len: u64) -> Option<Conflict> {
        let (first, last) = self.cut(start, len);
        for index in first..last {
            let Segment { writer, readers, .. } = self.segments[index];
            if writer < INITIAL && !ordered.after_write(writer, start) {
                return Some(Conflict::With(writer, start, len));
            }
            let mut next = readers;
            while next != NIL {
                let (reader, rest) = self.readers[next as usize];
                if reader != ordered.step && !ordered.after_read(reader, start) {
                    return Some(Conflict::With(reader, start, len));
                }
                next = rest;
            }
            self.segments[index].writer = ordered.step;
            self.segments[index].readers = NIL;
        }
        None
    }

    /// The segments that are exactly `start..start+len`.
    #[inline]
    fn cut(&mut self, start: u64, len: u64) -> (usize, usize) {
        let first = self.cut_at(start);
        self.last = first;
        let end = start + len;
        let next = self.segments.get(first + 1).map_or(self.end, |segment| segment.start);
        if next == end {
            return (first, first + 1);
        }
        (first, if end == self.end { self.segments.len() } else { self.cut_at(end) })
    }

    /// The segment that begins at `start`, made if there is none.
    #[inline]
    fn cut_at(&mut self, start: u64) -> usize {
        let near = self.last.saturating_sub(1)..(self.last + 2).min(self.segments.len());
        if let Some(offset) = self.segments[near.clone()].iter().position(|segment| segment.start == start) {
            return near.start + offset;
        }
        let index = self.segments.partition_point(|segment| segment.start < start);
        if self.segments.get(index).is_none_or(|segment| segment.start != start) {
            self.segments.insert(index, Segment { start, ..self.segments[index - 1] });
        }
        index
    }

    /// The rank's memory before the first step, cut where its steps cut it, so that running them need not; uncut, if
    /// little of it is followed.
    pub(super) fn initial_memory(&self, flat: &Flat, followed: &Followed) -> SymbolicMemory {
        let (rank, input) = (self.rank, &flat.layouts[self.rank as usize].input);
        let uncut = [0, input.start, input.end];
        let cuts = self.segments.iter().map(|segment| segment.start);
        let is_cut = |_: &u64| followed.is_everything();
        let starts = cuts.filter(is_cut).chain(uncut.into_iter().filter(|cut| !is_cut(cut)));
        let mut starts: Vec<u64> = starts.chain([self.end]).collect();
        starts.dedup();
        SymbolicMemory::of(starts.windows(2).flat_map(|ends| {
            let (start, len) = (ends[0], ends[1] - ends[0]);
            let is_input = input.contains(&start);
            let brought =
                is_input.then(|| followed.contribution((rank, flat.ranks), start - input.start, len));
            let unwritten = (!is_input).then_some(Piece { len, value: Value::UNWRITTEN });
            brought.into_iter().flatten().chain(unwritten)
        }))
    }
}

/// What a step knows when it is posted.
struct Ordered<'a> {
    flat: &'a Flat<'a>,
    base: u32,
    known: &'a [bool],
    step: u32,
}

impl Ordered<'_> {
    #[inline]
    fn knows(&self, earlier: u32) -> bool {
        self.known[(earlier - self.base) as usize]
    }

    /// Whether an access from `start` on comes after the write of `earlier`.
    #[inline]
    fn after_write(&self, earlier: u32, start: u64) -> bool {
        self.knows(earlier) || self.follows(earlier, self.flat.steps[earlier as usize].write, start)
    }

    /// Whether a write from `start` on comes after the read of `earlier`.
    #[inline]
    fn after_read(&self, earlier: u32, start: u64) -> bool {
        self.knows(earlier) || self.follows(earlier, self.flat.steps[earlier as usize].read, start)
    }

    /// Whether an elementwise edge orders the two, which touch ranges from `earlier_start` and `start` on.
    fn follows(&self, earlier: u32, earlier_start: u64, start: u64) -> bool {
        let (flat, step) = (self.flat, self.step);
        let same =
            earlier_start == start && flat.steps[earlier as usize].len == flat.steps[step as usize].len;
        let mut arrows = flat.arrows[flat.arrows_of(step)].iter();
        same && arrows.any(|arrow| arrow.target == earlier && !arrow.whole)
    }
}
