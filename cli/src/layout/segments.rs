//! Which ranges a rank's buffers have, and which part of the data stands in each before and after a call.

use crate::call::{Call, Part};
use crate::target::Kind;

/// One of the tables of [`crate::pattern::Tables`], read from an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    pub(super) table: Table,
    /// Element of the table (modulo its period) that stands at the segment's start.
    pub(super) first: u64,
}

/// A table of [`crate::pattern::Tables`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Table {
    Input,
    Expected,
    Poison,
}

/// A range of one buffer.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) buffer: usize,
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) before: Content,
    pub(super) after: Content,
}

impl Segment {
    /// A range that holds `before` from `firsts.0` on, and afterwards `after` from `firsts.1` on.
    fn new(buffer: usize, part: Part, before: Table, after: Table, firsts: (u64, u64)) -> Self {
        let Part { start, len } = part;
        let content = |table, first| Content { table, first };
        Segment { buffer, start, len, before: content(before, firsts.0), after: content(after, firsts.1) }
    }

    /// Whether a call leaves it as it is.
    pub(super) fn is_constant_input(&self) -> bool {
        matches!((self.before.table, self.after.table), (Table::Input, Table::Input))
    }

    fn ends(&self) -> u64 {
        self.start + self.len
    }

    /// Whether an element of a buffer lies in it.
    pub(super) fn holds(&self, buffer: usize, element: u64) -> bool {
        self.buffer == buffer && (self.start..self.ends()).contains(&element)
    }
}

/// Where a rank's input and output begin in the table that all ranks share.
fn firsts(call: &Call, rank: u32, steps: u32) -> (u64, u64) {
    let origin = (0..steps % call.ranks).fold(rank, |rank, _| call.sender_to(rank));
    let own = call.part(rank, rank).start;
    match call.shape() {
        Kind::AllGather | Kind::Gather => (own, 0),
        Kind::ReduceScatter | Kind::Scatter => (0, own),
        Kind::SendReceive => (own, call.count * u64::from(origin)),
        Kind::AllToAll => (exchanged(call, rank, 0), 0),
        _ => (0, 0),
    }
}

/// In an all-to-all: where in the shared table stands what `from` has for `to`.
fn exchanged(call: &Call, from: u32, to: u32) -> u64 {
    call.elements() * u64::from(from) + call.part(from, to).start
}

/// The segments of input and output. After `steps` calls: sends in place go round a ring.
pub(super) fn segments(call: &Call, rank: u32, in_place: bool, steps: u32) -> Vec<Segment> {
    let all = if in_place { in_one_buffer(call, rank, steps) } else { apart(call, rank) };
    all.into_iter().filter(|segment| segment.len > 0).collect()
}

fn apart(call: &Call, rank: u32) -> Vec<Segment> {
    let (first, out_first) = firsts(call, rank, 1);
    let whole = |len| Part { start: 0, len };
    let input = Segment::new(0, whole(call.input_elements(rank)), Table::Input, Table::Input, (first, first));
    let output = |part, first| Segment::new(1, part, Table::Poison, Table::Expected, (first, first));
    let outputs = match call.shape() {
        Kind::AllToAll => (0..call.ranks)
            .map(|other| output(call.part(rank, other), exchanged(call, other, rank)))
            .collect(),
        _ => vec![output(whole(call.output_elements(rank)), out_first)],
    };
    std::iter::once(input).chain(outputs).collect()
}

fn in_one_buffer(call: &Call, rank: u32, steps: u32) -> Vec<Segment> {
    let firsts = firsts(call, rank, steps);
    let is_root = rank == call.root;
    let segment = |part, before, after, firsts| Segment::new(0, part, before, after, firsts);
    let own = call.part(rank, rank);
    // The rank's own part, and those before and after it.
    let among_others = |before: Table, after: Table| {
        let end = own.start + own.len;
        let rest = Part { start: end, len: call.elements().saturating_sub(end) };
        let own_part = segment(own, Table::Input, Table::Expected, (own.start, own.start));
        [Part { start: 0, len: own.start }, rest]
            .map(|part| segment(part, before, after, (part.start, part.start)))
            .into_iter()
            .chain([own_part])
            .collect()
    };
    let alone = |len, before, after, firsts| vec![segment(Part { start: 0, len }, before, after, firsts)];
    match call.shape() {
        Kind::AllGather => among_others(Table::Poison, Table::Expected),
        Kind::Gather if is_root => among_others(Table::Poison, Table::Expected),
        Kind::Gather => alone(own.len, Table::Input, Table::Input, (own.start, own.start)),
        Kind::ReduceScatter => among_others(Table::Input, Table::Input),
        Kind::Scatter if is_root => among_others(Table::Input, Table::Input),
        Kind::Scatter => alone(own.len, Table::Poison, Table::Expected, (own.start, own.start)),
        Kind::AllToAll => (0..call.ranks)
            .map(|other| {
                let firsts = (exchanged(call, rank, other), exchanged(call, other, rank));
                segment(call.part(rank, other), Table::Input, Table::Expected, firsts)
            })
            .collect(),
        Kind::Broadcast if !is_root => alone(call.count, Table::Poison, Table::Expected, firsts),
        Kind::Reduce if !is_root => alone(call.count, Table::Input, Table::Input, firsts),
        _ => alone(call.count, Table::Input, Table::Expected, firsts),
    }
}
