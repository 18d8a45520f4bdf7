//! What each part of a rank's buffers holds before a call and must hold after it.

mod segments;

use crate::call::{Call, Part};
use crate::pattern::{Data, Tables, Totals};
use crate::target::Error;
use segments::{Content, Segment, Table, segments};

/// An element that is renewed before each timed iteration and looked at after it.
#[derive(Debug)]
struct Stamp {
    buffer: usize,
    at: usize,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// The data of one rank: the one buffer and nothing in place; input and output otherwise.
pub(crate) type View<'a> = [&'a [u8]; 2];
/// [`View`], to be written.
pub(crate) type ViewMut<'a> = [&'a mut [u8]; 2];

/// The contents of a rank's buffers around one call.
#[derive(Debug)]
pub(crate) struct Layout {
    tables: Tables,
    segments: Vec<Segment>,
    stamps: Vec<Stamp>,
}

/// A wrong element, for the message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// How many there are.
    pub(crate) elements: u64,
    /// The first one, told.
    pub(crate) first: Option<String>,
}

impl Wrong {
    const NONE: Wrong = Wrong { elements: 0, first: None };

    fn add(&mut self, elements: u64, tell: impl FnOnce() -> String) {
        if elements > 0 {
            self.first.get_or_insert_with(tell);
        }
        self.elements += elements;
    }
}

/// About so many stamps in all: few, so that renewing them does not delay a rank …
const STAMPS: u64 = 24;
/// … and so many in each part: the ends and some in between.
const STAMPS_PER_PART: std::ops::RangeInclusive<u64> = 2..=6;

impl Layout {
    /// The contents for one rank's call.
    pub(crate) fn new(call: &Call, rank: u32, in_place: bool, data: Data) -> Result<Self, Error> {
        Self::with_totals(&Totals::new(call, data)?, rank, in_place)
    }

    /// The contents for one rank's call, where the totals are known already.
    pub(crate) fn with_totals(totals: &Totals, rank: u32, in_place: bool) -> Result<Self, Error> {
        let tables = Tables::new(totals, rank)?;
        let (call, data) = totals.call_and_data();
        // A block of sends in place goes so many steps round the ring; everything else stays where one call puts it.
        let steps = if let Data::Repeated { calls } = data { calls } else { 1 };
        Ok(Layout { tables, segments: segments(call, rank, in_place, steps), stamps: Vec::new() })
    }

    /// A layout with stamps of plain data. For data that change when repeated, the rest is zero, which does not.
    pub(crate) fn stamped(call: &Call, rank: u32, in_place: bool, seed: u64) -> Result<Self, Error> {
        let plain = Layout::new(call, rank, in_place, Data::Plain { seed })?;
        let stamps = plain.stamps(&stamped_places(call, rank, in_place), in_place);
        let base = if in_place && call.accumulates_in_place() {
            Layout::new(call, rank, in_place, Data::Zero)?
        } else {
            plain
        };
        Ok(Layout { stamps, ..base })
    }

    /// The bytes of each buffer.
    pub(crate) fn lengths(&self) -> [u64; 2] {
        [0, 1].map(|buffer| {
            let ends = self.segments.iter().filter(|segment| segment.buffer == buffer);
            ends.map(|segment| segment.start + segment.len).max().unwrap_or(0) * self.tables.size as u64
        })
    }

    /// Writes everything as it is before a call.
    pub(crate) fn fill(&self, mut buffers: ViewMut<'_>) {
        for segment in &self.segments {
            let data = &mut buffers[segment.buffer];
            self.runs(segment, segment.before, |at, content| {
                data[at..at + content.len()].copy_from_slice(content)
            });
        }
        self.fill_stamps(buffers);
    }

    /// Compares everything with what it must be after a call, bit by bit.
    pub(crate) fn verify(&self, buffers: View<'_>) -> Wrong {
        let mut wrong = Wrong::NONE;
        for segment in &self.segments {
            let data = buffers[segment.buffer];
            self.runs(segment, segment.after, |at, content| {
                let found = &data[at..at + content.len()];
                if found != content {
                    self.add_wrong(&mut wrong, segment.buffer, at, found, content);
                }
            });
        }
        wrong
    }

    /// Renews the stamps.
    pub(crate) fn fill_stamps(&self, buffers: ViewMut<'_>) {
        for Stamp { buffer, at, before, .. } in &self.stamps {
            buffers[*buffer][*at..*at + before.len()].copy_from_slice(before);
        }
    }

    /// Compares the stamps.
    pub(crate) fn verify_stamps(&self, buffers: View<'_>) -> Wrong {
        let mut wrong = Wrong::NONE;
        for Stamp { buffer, at, after, .. } in &self.stamps {
            let found = &buffers[*buffer][*at..*at + after.len()];
            if found != after {
                self.add_wrong(&mut wrong, *buffer, *at, found, after);
            }
        }
        wrong
    }

    /// Takes the stamps' elements out of the rest: their content is zero before the whole is compared.
    pub(crate) fn clear_stamps_to_rest(&self, buffers: ViewMut<'_>) {
        for Stamp { buffer, at, before, .. } in &self.stamps {
            let rest = self.rest_at(*buffer, *at);
            buffers[*buffer][*at..*at + before.len()].copy_from_slice(&rest);
        }
    }

    fn rest_at(&self, buffer: usize, at: usize) -> Vec<u8> {
        let element = (at / self.tables.size) as u64;
        let segment = self.segments.iter().find(|segment| segment.holds(buffer, element));
        let segment = segment.expect("a stamp lies in a segment");
        self.element(segment, segment.after, element - segment.start).to_vec()
    }

    fn add_wrong(&self, wrong: &mut Wrong, buffer: usize, at: usize, found: &[u8], content: &[u8]) {
        let size = self.tables.size;
        let pairs = || found.chunks(size).zip(content.chunks(size));
        let elements = pairs().filter(|(a, b)| a != b).count() as u64;
        wrong.add(elements, || {
            let (index, (a, b)) = pairs()
                .enumerate()
                .find(|(_, (a, b))| a != b)
                .expect("some element differs, or nothing is added");
            let name = if buffer == 0 { "buffer" } else { "output" };
            format!("{name} element {} is {}, must be {}", at / size + index, hex(a), hex(b))
        });
    }

    /// Calls back with each stretch of a segment that is one stretch of the table too: byte offset, content.
    fn runs(&self, segment: &Segment, content: Content, mut run: impl FnMut(usize, &[u8])) {
        let (size, period) = (self.tables.size, self.tables.period);
        let table = self.table(content.table);
        let mut done = 0;
        while done < segment.len {
            let from = (content.first + done) % period;
            let len = (period - from).min(segment.len - done);
            let part = &table[from as usize * size..(from + len) as usize * size];
            run((segment.start + done) as usize * size, part);
            done += len;
        }
    }

    fn element(&self, segment: &Segment, content: Content, index: u64) -> &[u8] {
        debug_assert!(index < segment.len);
        let at = ((content.first + index) % self.tables.period) as usize * self.tables.size;
        &self.table(content.table)[at..at + self.tables.size]
    }

    fn table(&self, table: Table) -> &[u8] {
        match table {
            Table::Input => &self.tables.input,
            Table::Expected => &self.tables.expected,
            Table::Poison => &self.tables.poison,
        }
    }

    fn stamps(&self, places: &[u64], in_place: bool) -> Vec<Stamp> {
        let mut stamps = Vec::new();
        for segment in &self.segments {
            let inside = segment.start..segment.start + segment.len;
            // Writing to a constant input would only take its cache lines away from the readers.
            if segment.is_constant_input() && !in_place {
                continue;
            }
            for &place in places.iter().filter(|place| inside.contains(place)) {
                let index = place - segment.start;
                stamps.push(Stamp {
                    buffer: segment.buffer,
                    at: place as usize * self.tables.size,
                    before: self.element(segment, segment.before, index).to_vec(),
                    after: self.element(segment, segment.after, index).to_vec(),
                });
            }
        }
        stamps
    }
}

/// Which elements carry stamps. In place, every rank's part has some, at the same places of the part on every rank,
/// because there the contributions meet.
fn stamped_places(call: &Call, rank: u32, in_place: bool) -> Vec<u64> {
    let output = Part { start: 0, len: call.output_elements(rank) };
    let parts = if in_place { call.parts_in_place(rank) } else { vec![output] };
    let per_part = (STAMPS / parts.len() as u64).clamp(*STAMPS_PER_PART.start(), *STAMPS_PER_PART.end());
    let inside = |part: &Part| {
        let Part { start, len } = *part;
        (0..per_part).map(move |k| start + (len - 1) * k / (per_part - 1))
    };
    let mut places: Vec<u64> = parts.iter().filter(|part| part.len > 0).flat_map(inside).collect();
    places.dedup();
    places
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().rev().map(|byte| format!("{byte:02x}")).fold("0x".to_owned(), |text, byte| text + &byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::tests::{KINDS, call};
    use crate::target::Kind;

    fn buffers(layout: &Layout) -> [Vec<u8>; 2] {
        layout.lengths().map(|len| vec![0; len as usize])
    }

    fn fill(layout: &Layout, buffers: &mut [Vec<u8>; 2]) {
        layout.fill(buffers.each_mut().map(Vec::as_mut_slice));
    }

    fn look(buffers: &[Vec<u8>; 2]) -> View<'_> {
        buffers.each_ref().map(Vec::as_slice)
    }

    /// A call that changes something on rank 1.
    fn call_to_rank_1(kind: Kind, count: u64, ranks: u32) -> Call {
        let root = u32::from(matches!(kind, Kind::Reduce | Kind::Gather | Kind::GatherV));
        Call { root, ..call(kind, count, ranks) }
    }

    #[test]
    fn sizes_are_those_of_the_call() {
        let lengths = |kind, in_place| {
            Layout::new(&call(kind, 10, 3), 1, in_place, Data::Plain { seed: 1 }).unwrap().lengths()
        };
        assert_eq!(lengths(Kind::AllReduce, false), [40, 40]);
        assert_eq!(lengths(Kind::AllGather, false), [40, 120]);
        assert_eq!(lengths(Kind::ReduceScatter, false), [120, 40]);
        assert_eq!(lengths(Kind::Broadcast, false), [0, 40], "only the root brings something");
        assert_eq!(lengths(Kind::AllGather, true), [120, 0]);
        assert_eq!(lengths(Kind::ReduceScatter, true), [120, 0]);
        assert_eq!(lengths(Kind::Reduce, false), [40, 0], "only the root gets something");
        assert_eq!(lengths(Kind::Gather, false), [40, 0]);
        assert_eq!(lengths(Kind::Scatter, false), [0, 40]);
        assert_eq!(lengths(Kind::Scatter, true), [40, 0], "the others have no more than their part");
        assert_eq!(lengths(Kind::AllToAll, false), [120, 120]);
        assert_eq!(lengths(Kind::AllGatherV, false), [12, 40], "10 elements are 4, 3 and 3");
        assert_eq!(lengths(Kind::AllToAllV, true), [40, 0]);
    }

    #[test]
    fn a_call_that_does_nothing_is_wrong_in_every_element_it_should_have_changed() {
        for kind in KINDS {
            for in_place in [false, true] {
                let call = call_to_rank_1(kind, 5000, 3);
                let layout = Layout::new(&call, 1, in_place, Data::Plain { seed: 1 }).unwrap();
                let mut buffers = buffers(&layout);
                fill(&layout, &mut buffers);
                let wrong = layout.verify(look(&buffers));
                let (output, own) = (call.output_elements(1), call.part(1, 1).len);
                let must_change = match call.shape() {
                    Kind::AllGather | Kind::Gather | Kind::AllToAll if in_place => output - own,
                    _ => output,
                };
                // Random bits may agree by chance where data change places in one buffer; nothing else may.
                assert!(wrong.elements >= must_change - must_change / 100, "{kind:?} {in_place} {wrong:?}");
                assert!(wrong.first.unwrap().contains("must be"));
            }
        }
    }

    #[test]
    fn stamps_see_a_call_that_does_nothing_and_are_few() {
        for kind in KINDS {
            for in_place in [false, true] {
                let layout = Layout::stamped(&call_to_rank_1(kind, 100_000, 2), 1, in_place, 3).unwrap();
                assert!((6..=24).contains(&layout.stamps.len()), "{}", layout.stamps.len());
                let mut buffers = buffers(&layout);
                fill(&layout, &mut buffers);
                assert!(layout.verify_stamps(look(&buffers)).elements >= 5, "{kind:?} {in_place}");
            }
        }
    }

    #[test]
    fn stamps_stand_in_every_block_and_at_its_ends() {
        assert_eq!(stamped_places(&call(Kind::ReduceScatter, 100, 384), 0, true).len(), 768);
        assert_eq!(stamped_places(&call(Kind::AllReduce, 101, 2), 0, true), [0, 20, 40, 60, 80, 100]);
        assert_eq!(stamped_places(&call(Kind::AllGather, 1, 3), 0, true), [0, 1, 2]);
        assert!(stamped_places(&call(Kind::AllReduce, 0, 2), 0, true).is_empty());
        let scatter = call(Kind::Scatter, 11, 12);
        assert_eq!(
            (stamped_places(&scatter, 0, true).len(), stamped_places(&scatter, 1, true).len()),
            (24, 6)
        );
        assert_eq!(stamped_places(&call(Kind::AllToAllV, 4, 3), 1, true), [0, 1, 2, 3]);
    }

    #[test]
    fn one_changed_bit_is_one_wrong_element_wherever_it_is() {
        let layout = Layout::new(&call(Kind::AllReduce, 9000, 2), 0, false, Data::Plain { seed: 1 }).unwrap();
        let mut buffers = buffers(&layout);
        fill(&layout, &mut buffers);
        // The right result, made by hand from the table.
        let segment = &layout.segments[1];
        let mut right = Vec::new();
        layout.runs(segment, segment.after, |_, content| right.extend_from_slice(content));
        buffers[1].copy_from_slice(&right);
        assert_eq!(layout.verify(look(&buffers)), Wrong::NONE);
        for (buffer, byte) in [(1, 0), (1, 35_999), (1, 4093 * 4), (0, 17)] {
            buffers[buffer][byte] ^= 0x10;
            let wrong = layout.verify(look(&buffers));
            assert_eq!(wrong.elements, 1);
            assert!(wrong.first.unwrap().contains(&format!("element {} ", byte / 4)));
            buffers[buffer][byte] ^= 0x10;
        }
    }
}
