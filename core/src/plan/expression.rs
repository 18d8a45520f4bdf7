//! Expressions of a plan: of the loop indices (peers, blocks, edges) and over the count (sizes).

use super::{MAX_LISTED_PEERS, Side, Sizes};
use crate::collective::Rank;

/// The loop indices of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct At {
    /// Of the outer loop.
    pub outer: u64,
    /// Of the inner loop.
    pub inner: u64,
}

/// An integer that depends on the loop indices:
/// `(offset + (base + per_outer·outer + per_inner·inner) mod modulo) mod wrap`, with no `mod` where the modulo is 0. As a
/// peer it may name an entry of a table, whose peer it then is ([`Index::peer_of`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Index {
    /// Added after the modulo.
    pub offset: i32,
    /// The value at turn 0.
    pub base: i32,
    /// Added per turn of the outer loop.
    pub per_outer: i32,
    /// Added per turn of the inner loop.
    pub per_inner: i32,
    /// The circle's size, or 0.
    pub modulo: u32,
    /// The outer circle's size, or 0: ranks counted from a root run on one.
    pub wrap: u32,
    /// The table of which this is the number of an entry, where a peer is asked for.
    pub table: Option<Side>,
}

impl Index {
    /// The outer loop's index.
    pub const OUTER: Index = Index { per_outer: 1, ..Index::fixed(0) };
    /// The inner loop's index.
    pub const INNER: Index = Index { per_inner: 1, ..Index::fixed(0) };

    /// Always `value`.
    pub const fn fixed(value: i32) -> Self {
        Index { offset: 0, base: value, per_outer: 0, per_inner: 0, modulo: 0, wrap: 0, table: None }
    }

    /// `base` on a circle of `modulo`.
    pub const fn on_circle(base: i32, modulo: u32) -> Self {
        Index { modulo, ..Index::fixed(base) }
    }

    /// The same plus `step` per turn of the outer loop.
    pub const fn per_outer(self, step: i32) -> Self {
        Index { per_outer: step, ..self }
    }

    /// The same plus `step` per turn of the inner loop.
    pub const fn per_inner(self, step: i32) -> Self {
        Index { per_inner: step, ..self }
    }

    /// The same, `by` further (before the modulo).
    pub const fn plus(self, by: i32) -> Self {
        Index { base: self.base + by, ..self }
    }

    /// The same on its circle, moved by `offset` on an outer circle of `wrap`.
    pub const fn from(self, offset: i32, wrap: u32) -> Self {
        Index { offset, wrap, ..self }
    }

    /// The peer of the entry of that table whose number this is.
    pub const fn peer_of(self, side: Side) -> Self {
        Index { table: Some(side), ..self }
    }

    /// The rank that this names at one turn; `Rank::MAX` if that is none.
    #[inline]
    pub fn rank(&self, sizes: &Sizes, at: At) -> Rank {
        let value = self.at(at);
        match self.table {
            None => Rank::try_from(value).unwrap_or(Rank::MAX),
            Some(side) => {
                let entry = usize::try_from(value).ok().and_then(|entry| sizes.table(side).get(entry));
                entry.map_or(Rank::MAX, |entry| entry.peer)
            }
        }
    }

    /// The value at one turn.
    #[inline]
    pub fn at(&self, at: At) -> i64 {
        let value = i64::from(self.offset) + on_circle(self.before_modulo(at), self.modulo);
        on_circle(value, self.wrap)
    }

    #[inline]
    fn before_modulo(&self, at: At) -> i64 {
        i64::from(self.base)
            + i64::from(self.per_outer) * at.outer as i64
            + i64::from(self.per_inner) * at.inner as i64
    }
}

/// A number on a circle of that size, if that is not 0. Few are further than once round, and dividing is slow.
#[inline]
fn on_circle(value: i64, size: u32) -> i64 {
    let circle = i64::from(size);
    match value {
        _ if size == 0 || (0..circle).contains(&value) => value,
        _ if (circle..2 * circle).contains(&value) => value - circle,
        _ if (-circle..0).contains(&value) => value + circle,
        _ => value.rem_euclid(circle),
    }
}

/// A caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Buffer {
    /// What the rank brings.
    Input,
    /// What the rank gets.
    Output,
}

/// One refinement of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Block `index` of `parts` blocks whose lengths differ by at most one element, the longer ones first.
    Even {
        /// How many blocks.
        parts: u32,
        /// Which.
        index: Index,
    },
    /// Chunk `index` of chunks of `elements` each, the last one shorter; beyond the end it is empty.
    Chunk {
        /// Elements in a full chunk.
        elements: u64,
        /// Which.
        index: Index,
    },
    /// Blocks `first` to `first + blocks`, together, of `parts` even blocks.
    Span {
        /// How many blocks there are.
        parts: u32,
        /// The first of these.
        first: Index,
        /// How many these are.
        blocks: u32,
    },
    /// As long as so many of it: for what scratch stands in for, which nothing else holds.
    Times(u32),
    /// The block of a table's entry `index`. It comes first among cuts: tables count from a buffer's beginning.
    Block {
        /// Which table.
        side: Side,
        /// Which entry.
        index: Index,
    },
}

impl Cut {
    #[inline]
    pub(super) fn refine(&self, sizes: &Sizes, (start, len): (u64, u64), at: At) -> (u64, u64) {
        match *self {
            Cut::Even { parts, index } => {
                let (block, parts) = (index.at(at) as u64, u64::from(parts));
                debug_assert!(block < parts, "block {block} of {parts}");
                let (short, longer) = (len / parts, len % parts);
                (start + block * short + block.min(longer), short + u64::from(block < longer))
            }
            Cut::Span { parts, first, blocks } => {
                let (first, parts, blocks) = (first.at(at) as u64, u64::from(parts), u64::from(blocks));
                debug_assert!(first + blocks <= parts, "{blocks} blocks from {first} on of {parts}");
                let offset = |block: u64| block * (len / parts) + block.min(len % parts);
                (start + offset(first), offset(first + blocks) - offset(first))
            }
            Cut::Times(times) => (start, len.saturating_mul(u64::from(times))),
            Cut::Chunk { elements, index } => {
                let skip = (index.at(at) as u64).saturating_mul(elements).min(len);
                (start + skip, elements.min(len - skip))
            }
            Cut::Block { side, index } => {
                let entry = &sizes.table(side)[index.at(at) as usize];
                (start + entry.start, entry.len)
            }
        }
    }

    /// Whether the index names a block or chunk that exists: for checkers, which meet plans that are wrong.
    #[inline]
    pub(crate) fn exists(&self, sizes: &Sizes, at: At) -> bool {
        match *self {
            Cut::Even { parts, index } => (0..i64::from(parts)).contains(&index.at(at)),
            Cut::Span { parts, first, blocks } => {
                (0..=i64::from(parts) - i64::from(blocks)).contains(&first.at(at))
            }
            Cut::Chunk { index, .. } => index.at(at) >= 0,
            Cut::Times(_) => true,
            Cut::Block { side, index } => (0..sizes.table(side).len() as i64).contains(&index.at(at)),
        }
    }

    /// Whether it cuts into nothing, which no plan may.
    pub(super) fn is_void(&self) -> bool {
        match *self {
            Cut::Even { parts, .. } | Cut::Span { parts, .. } => parts == 0,
            Cut::Chunk { elements, .. } => elements == 0,
            Cut::Times(_) | Cut::Block { .. } => false,
        }
    }

    fn longest(&self, sizes: &Sizes, len: u64) -> u64 {
        match *self {
            Cut::Block { side, .. } => sizes.longest(side),
            Cut::Even { parts, .. } => len.div_ceil(u64::from(parts)),
            Cut::Span { parts, blocks, .. } => {
                len.div_ceil(u64::from(parts)).saturating_mul(u64::from(blocks)).min(len)
            }
            Cut::Times(times) => len.saturating_mul(u64::from(times)),
            Cut::Chunk { elements, .. } => len.min(elements),
        }
    }
}

/// A range of a buffer: all of it, refined by cuts from left to right.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The buffer that is cut.
    pub buffer: Buffer,
    /// The cuts.
    pub cuts: Vec<Cut>,
}

impl Shape {
    /// All of a buffer.
    pub fn whole(buffer: Buffer) -> Self {
        Shape { buffer, cuts: Vec::new() }
    }

    /// The same, cut into even blocks.
    pub fn even(mut self, parts: u32, index: Index) -> Self {
        self.cuts.push(Cut::Even { parts, index });
        self
    }

    /// Several blocks together of the same, cut into even blocks.
    pub fn span(mut self, parts: u32, first: Index, blocks: u32) -> Self {
        self.cuts.push(Cut::Span { parts, first, blocks });
        self
    }

    /// So many of the same, for scratch.
    pub fn times(mut self, times: u32) -> Self {
        self.cuts.push(Cut::Times(times));
        self
    }

    /// The same, cut into chunks.
    pub fn chunk(mut self, elements: u64, index: Index) -> Self {
        self.cuts.push(Cut::Chunk { elements, index });
        self
    }

    /// One block of a table.
    pub fn block(mut self, side: Side, index: Index) -> Self {
        self.cuts.push(Cut::Block { side, index });
        self
    }

    /// First element and length at one turn.
    #[inline]
    pub fn range(&self, sizes: &Sizes, at: At) -> (u64, u64) {
        self.cuts.iter().fold((0, sizes.of(self.buffer)), |range, cut| cut.refine(sizes, range, at))
    }

    /// The longest length over all indices.
    pub fn longest(&self, sizes: &Sizes) -> u64 {
        self.cuts.iter().fold(sizes.of(self.buffer), |len, cut| cut.longest(sizes, len))
    }
}

/// Memory that a step names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Slice {
    /// No bytes: the message is a header alone.
    Empty,
    /// A range of a caller's buffer.
    Of(Shape),
    /// A part of a scratch slot that holds as much as the shape.
    Scratch {
        /// Which slot.
        slot: Index,
        /// What the slot stands in for: its length counts.
        shape: Shape,
        /// Cuts of that length, from the slot's beginning.
        part: Vec<Cut>,
    },
}

impl From<Shape> for Slice {
    fn from(shape: Shape) -> Self {
        Slice::Of(shape)
    }
}

/// How often a loop turns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trips {
    /// Always as often.
    Fixed(u32),
    /// Once for every chunk of the shape's longest range, and once for an empty one: ranks of a call with nothing to
    /// move still meet, so that disagreement shows.
    Chunks {
        /// What is cut into chunks.
        shape: Shape,
        /// Elements in a chunk.
        elements: u64,
    },
    /// Once for every entry of a table.
    Entries(Side),
}

impl Trips {
    /// Once.
    pub const ONCE: Trips = Trips::Fixed(1);

    /// Turns for these lengths.
    pub fn count(&self, sizes: &Sizes) -> u64 {
        match self {
            Trips::Fixed(trips) => u64::from(*trips),
            Trips::Chunks { shape, elements } => shape.longest(sizes).div_ceil(*elements).max(1),
            Trips::Entries(side) => sizes.table(*side).len() as u64,
        }
    }
}

/// An ordered list of ranks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peers {
    /// `first`, `first + stride`, … (`count` of them); the stride is added inside the index's modulo.
    Run {
        /// The first.
        first: Index,
        /// From one to the next.
        stride: i32,
        /// How many.
        count: u32,
    },
    /// At most [`MAX_LISTED_PEERS`], each for itself.
    List(Vec<Index>),
}

impl Peers {
    /// Just one.
    pub fn one(index: Index) -> Self {
        Peers::List(vec![index])
    }

    /// How many.
    pub fn count(&self) -> usize {
        match self {
            Peers::Run { count, .. } => *count as usize,
            Peers::List(list) => list.len(),
        }
    }

    /// The ranks at one turn. Copies a few words, allocates nothing.
    #[inline]
    pub fn at(&self, sizes: &Sizes, at: At) -> PeerRun {
        match self {
            Peers::Run { first, stride, count } => PeerRun(Run::circle(first, at, *stride, *count)),
            Peers::List(list) => {
                let mut ranks = [0; MAX_LISTED_PEERS];
                for (rank, index) in ranks.iter_mut().zip(list) {
                    *rank = index.rank(sizes, at);
                }
                PeerRun(Run::Listed { ranks, count: list.len() as u8 })
            }
        }
    }
}

/// An ordered list of ranks with the loop indices filled in; plain data that an endpoint may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerRun(Run);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// `(offset + (start + stride·k) mod modulo) mod wrap`, as an [`Index`] counts.
    Circle {
        start: i64,
        stride: i32,
        modulo: u32,
        offset: i32,
        wrap: u32,
        count: u32,
    },
    Listed {
        ranks: [Rank; MAX_LISTED_PEERS],
        count: u8,
    },
}

impl Run {
    #[inline]
    fn circle(first: &Index, at: At, stride: i32, count: u32) -> Self {
        let Index { offset, modulo, wrap, .. } = *first;
        Run::Circle { start: first.before_modulo(at), stride, modulo, offset, wrap, count }
    }
}

impl PeerRun {
    /// Just one.
    pub fn one(rank: Rank) -> Self {
        let mut ranks = [0; MAX_LISTED_PEERS];
        ranks[0] = rank;
        PeerRun(Run::Listed { ranks, count: 1 })
    }

    /// The ranks `first`, `first + 1`, … modulo `ranks`, `count` of them.
    pub fn circle(first: Rank, count: u32, ranks: u32) -> Self {
        let first = Index::on_circle(first as i32, ranks);
        PeerRun(Run::circle(&first, At::default(), 1, count))
    }

    /// How many.
    #[inline]
    pub fn len(&self) -> usize {
        match self.0 {
            Run::Circle { count, .. } => count as usize,
            Run::Listed { count, .. } => usize::from(count),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The k-th.
    #[inline]
    pub fn get(&self, k: usize) -> Rank {
        match self.0 {
            Run::Circle { start, stride, modulo, offset, wrap, .. } => {
                let value = start + i64::from(stride) * k as i64;
                on_circle(i64::from(offset) + on_circle(value, modulo), wrap) as Rank
            }
            Run::Listed { ranks, .. } => ranks[k],
        }
    }

    /// All, in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Rank> + '_ {
        (0..self.len()).map(|k| self.get(k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(input: u64) -> Sizes {
        let mut sizes = Sizes::default();
        sizes.input = input;
        sizes
    }

    #[test]
    fn even_blocks_cover_the_range_in_order() {
        for (len, parts) in [(10, 3), (0, 4), (3, 7), (21, 7)] {
            let lengths = sizes(len);
            let shape = Shape::whole(Buffer::Input).even(parts, Index::INNER);
            let mut next = 0;
            for inner in 0..u64::from(parts) {
                let (start, length) = shape.range(&lengths, At { outer: 0, inner });
                assert_eq!(start, next);
                assert!(length <= shape.longest(&lengths));
                next = start + length;
            }
            assert_eq!(next, len);
        }
    }

    #[test]
    fn spans_are_their_blocks_together() {
        for (len, parts) in [(10, 3), (0, 4), (3, 7), (21, 7)] {
            let (lengths, whole) = (sizes(len), Shape::whole(Buffer::Input));
            let block =
                |k: u32| whole.clone().even(parts, Index::fixed(k as i32)).range(&lengths, At::default());
            for first in 0..parts {
                for blocks in 1..=parts - first {
                    let span = whole.clone().span(parts, Index::fixed(first as i32), blocks);
                    let length = (first..first + blocks).map(|k| block(k).1).sum();
                    assert_eq!(span.range(&lengths, At::default()), (block(first).0, length));
                    assert!(length <= span.longest(&lengths) && span.longest(&lengths) <= len);
                }
            }
        }
        let cut = |first| Cut::Span { parts: 4, first: Index::fixed(first), blocks: 3 };
        let exists = |first| cut(first).exists(&sizes(8), At::default());
        assert_eq!([-1, 0, 1, 2].map(exists), [false, true, true, false]);
        let times = Shape::whole(Buffer::Input).times(3);
        assert_eq!((times.range(&sizes(5), At::default()), times.longest(&sizes(5))), ((0, 15), 15));
    }

    #[test]
    fn chunks_end_with_the_range() {
        let shape = Shape::whole(Buffer::Input).chunk(4, Index::OUTER);
        let ranges: Vec<_> = (0..4).map(|outer| shape.range(&sizes(10), At { outer, inner: 0 })).collect();
        assert_eq!(ranges, [(0, 4), (4, 4), (8, 2), (10, 0)]);
        let trips = Trips::Chunks { shape: Shape::whole(Buffer::Input), elements: 4 };
        assert_eq!(trips.count(&sizes(10)), 3);
    }

    #[test]
    fn peers_run_round_the_circle() {
        let peers = Peers::Run { first: Index::on_circle(3, 4).per_inner(1), stride: 1, count: 3 };
        let run = peers.at(&sizes(0), At { outer: 0, inner: 1 });
        assert_eq!(run.iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(PeerRun::circle(2, 3, 4).iter().collect::<Vec<_>>(), [2, 3, 0]);
        assert_eq!(PeerRun::one(9).iter().collect::<Vec<_>>(), [9]);
    }
}
