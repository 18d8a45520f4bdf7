//! Memory that holds no bytes but says what they would be: who contributed, combined in which order.
//!
//! The verifier proves plans over it, and the simulator moves it where real data would not fit.

use std::fmt;
use std::ops::Range;

/// What a run of elements is: an expression over ranks' contributions. Element k of the run is the expression taken at
/// element `origin + k` of every contribution in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Value {
    /// The expression as a fingerprint: leaves are ranks, nodes are ordered reductions.
    pub expression: u128,
    /// Who is in it, how often: exact up to [`Value::EXACT_RANKS`] ranks as a set, with [`Value::doubled`] telling
    /// overlap; above as a sum of random 128-bit names, where a double or a missing one gives another sum.
    pub contributors: u128,
    /// Element of the contributions that the run's first element belongs to.
    pub origin: i64,
    /// Whether some contribution was seen to be in it twice, or elements of different origin were mixed.
    pub doubled: bool,
}

/// `len` elements of the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Elements.
    pub len: u64,
    /// What they are.
    pub value: Value,
}

impl Value {
    /// Up to this many ranks, contributors are an exact set.
    pub const EXACT_RANKS: u32 = 128;

    /// Memory nobody has written.
    pub const UNWRITTEN: Value = Value { expression: 0, contributors: 0, origin: 0, doubled: true };

    /// Whatever comes of elements that are not followed. It has no origin, and runs of it are one.
    pub const ELSEWHERE: Value = Value { expression: 1, contributors: 0, origin: 0, doubled: false };

    /// Rank `rank`'s contribution from its element `origin` on, among `ranks` ranks.
    pub fn contribution(rank: u32, ranks: u32, origin: u64) -> Self {
        let name = name_of(rank);
        let contributors = if ranks <= Self::EXACT_RANKS { 1 << rank } else { name };
        Value { expression: name, contributors, origin: origin as i64, doubled: false }
    }

    /// The ordered reduction of `parts`; one part is itself.
    pub fn reduction(parts: impl IntoIterator<Item = Value>, ranks: u32) -> Self {
        let mut parts = parts.into_iter();
        let Some(mut sum) = parts.next() else { return Value::UNWRITTEN };
        if sum == Value::ELSEWHERE {
            // With something else it is a mixture: nobody may take that for either.
            let others = parts.find(|part| *part != Value::ELSEWHERE);
            return others.map_or(Value::ELSEWHERE, |_| Value { doubled: true, ..sum });
        }
        let mut terms = 1_u128;
        for part in parts {
            terms += 1;
            sum.expression = mix(sum.expression.rotate_left(37) ^ part.expression);
            sum.doubled |= part.doubled || part.origin != sum.origin;
            if ranks <= Self::EXACT_RANKS {
                sum.doubled |= sum.contributors & part.contributors != 0;
                sum.contributors |= part.contributors;
            } else {
                sum.contributors = sum.contributors.wrapping_add(part.contributors);
            }
        }
        if terms > 1 {
            // Closing the node tells ((a b) c), one rounding, from (((a b)) c), two.
            sum.expression = mix(sum.expression ^ terms << 64);
        }
        sum
    }

    /// Whether it is a reduction, and no rank's plain contribution.
    pub fn is_reduction(self, ranks: u32) -> bool {
        match self.contributors {
            0 => false, // nobody wrote it
            set if ranks <= Self::EXACT_RANKS => self.expression != name_of(set.trailing_zeros()),
            name => self.expression != name,
        }
    }

    /// The same, `by` elements further.
    pub fn further(self, by: u64) -> Self {
        if self == Value::ELSEWHERE {
            return self;
        }
        Value { origin: self.origin + by as i64, ..self }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Value::UNWRITTEN {
            return f.write_str("unwritten");
        }
        write!(f, "expression {:016x} of {:x}", self.expression >> 64, self.contributors)?;
        write!(f, " at {}{}", self.origin, if self.doubled { ", doubled or mixed" } else { "" })
    }
}

/// A rank's contribution as an expression.
fn name_of(rank: u32) -> u128 {
    mix(0x243f_6a88_85a3_08d3_1319_8a2e_0370_7344 ^ u128::from(rank + 1))
}

/// A bijective scrambler of 128 bits (two rounds of multiply and shift).
fn mix(x: u128) -> u128 {
    let x = (x ^ (x >> 67)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let x = (x ^ (x >> 59)).wrapping_mul(0xc2b2_ae3d_27d4_eb4f_1656_67b1_9e37_79f9);
    x ^ (x >> 64)
}

/// A buffer of symbolic elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolicMemory {
    segments: Vec<Segment>,
    len: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    start: u64,
    value: Value,
}

impl SymbolicMemory {
    /// `len` elements that nobody has written.
    pub fn unwritten(len: u64) -> Self {
        Self::filled(len, Value::UNWRITTEN)
    }

    /// `len` elements of one value.
    pub fn filled(len: u64, value: Value) -> Self {
        SymbolicMemory { segments: vec![Segment { start: 0, value }], len }
    }

    /// These pieces, one after the other.
    pub fn of(pieces: impl IntoIterator<Item = Piece>) -> Self {
        let mut memory = SymbolicMemory { segments: Vec::new(), len: 0 };
        for piece in pieces.into_iter().filter(|piece| piece.len > 0) {
            if !is_run(memory.segments.last().map(|last| last.value), piece.value) {
                memory.segments.push(Segment { start: memory.len, value: piece.value });
            }
            memory.len += piece.len;
        }
        memory
    }

    /// How many elements.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends what `[start, start + len)` holds to `out`.
    pub fn read(&self, start: u64, len: u64, out: &mut Vec<Piece>) {
        debug_assert!(start + len <= self.len, "read of {start}+{len} in {}", self.len);
        let (mut at, end) = (start, start + len);
        let mut index = self.segments.partition_point(|segment| segment.start <= start).saturating_sub(1);
        while at < end {
            let segment = &self.segments[index];
            let next = self.segments.get(index + 1).map_or(self.len, |next| next.start).min(end);
            out.push(Piece { len: next - at, value: segment.value.further(at - segment.start) });
            at = next;
            index += 1;
        }
    }

    /// Writes `pieces` from `start` on.
    pub fn write(&mut self, start: u64, pieces: &[Piece]) {
        let end = start + pieces.iter().map(|piece| piece.len).sum::<u64>();
        debug_assert!(end <= self.len, "write from {start} to {end} in {}", self.len);
        if start == end {
            return;
        }
        let first = self.segments.partition_point(|segment| segment.start < start);
        let last = first + self.segments[first..].partition_point(|segment| segment.start < end);
        let ends_on_boundary = end == self.len || self.segments.get(last).is_some_and(|s| s.start == end);
        let is_plain = |piece: &Piece| piece.len > 0 && piece.value != Value::ELSEWHERE;
        if ends_on_boundary && last - first == pieces.len() && pieces.iter().all(is_plain) {
            let mut at = start;
            for (segment, piece) in self.segments[first..last].iter_mut().zip(pieces) {
                *segment = Segment { start: at, value: piece.value };
                at += piece.len;
            }
            return;
        }
        let tail = (!ends_on_boundary).then(|| {
            let cut = &self.segments[last - 1];
            Segment { start: end, value: cut.value.further(end - cut.start) }
        });
        self.replace(first..last, start, pieces, tail);
    }

    /// Puts segments of `pieces` from `start` on, and `tail`, in the place of these.
    fn replace(&mut self, mut old: Range<usize>, start: u64, pieces: &[Piece], tail: Option<Segment>) {
        let before = old.start.checked_sub(1).map(|index| self.segments[index].value);
        let (mut at, mut previous) = (start, before);
        let mut new = Vec::with_capacity(pieces.len() + 1);
        let new_segments = pieces.iter().filter(|piece| piece.len > 0).map(|piece| {
            at += piece.len;
            Segment { start: at - piece.len, value: piece.value }
        });
        for segment in new_segments.chain(tail) {
            if !is_run(previous, segment.value) {
                new.push(segment);
            }
            previous = Some(segment.value);
        }
        if self.segments.get(old.end).is_some_and(|next| is_run(previous, next.value)) {
            old.end += 1;
        }
        self.segments.splice(old, new);
    }
}

/// Runs of what is not followed are one segment.
fn is_run(previous: Option<Value>, value: Value) -> bool {
    value == Value::ELSEWHERE && previous == Some(value)
}

/// Reduces runs of pieces that are equally long, in list order, into `out`.
pub fn reduce_pieces<S: AsRef<[Piece]>>(sources: &[S], ranks: u32, out: &mut Vec<Piece>) {
    if let [first, rest @ ..] = sources
        && let [one] = first.as_ref()
        && rest.iter().all(|source| matches!(source.as_ref(), [piece] if piece.len == one.len))
    {
        let value = Value::reduction(sources.iter().map(|source| source.as_ref()[0].value), ranks);
        out.push(Piece { len: one.len, value });
        return;
    }
    reduce_ragged(sources, ranks, out);
}

fn reduce_ragged<S: AsRef<[Piece]>>(sources: &[S], ranks: u32, out: &mut Vec<Piece>) {
    // Per source: which piece, and how far into it.
    let mut heads = vec![(0_usize, 0_u64); sources.len()];
    loop {
        for (source, head) in sources.iter().zip(&mut heads) {
            while source.as_ref().get(head.0).is_some_and(|piece| piece.len == head.1) {
                *head = (head.0 + 1, 0);
            }
        }
        let rest =
            |(source, head): (&S, &(usize, u64))| source.as_ref().get(head.0).map(|piece| piece.len - head.1);
        let Some(len) = sources.iter().zip(&heads).map(rest).min().flatten() else { return };
        let values =
            sources.iter().zip(&heads).map(|(source, head)| source.as_ref()[head.0].value.further(head.1));
        out.push(Piece { len, value: Value::reduction(values, ranks) });
        for head in &mut heads {
            head.1 += len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(rank: u32) -> Value {
        Value::contribution(rank, 4, 0)
    }

    #[test]
    fn order_nesting_and_doubles_are_told_apart() {
        let [a, b, c] = [leaf(0), leaf(1), leaf(2)];
        let flat = Value::reduction([a, b, c], 4);
        let nested = Value::reduction([Value::reduction([a, b], 4), c], 4);
        assert_eq!(flat.contributors, 0b111);
        assert_eq!(nested.contributors, 0b111);
        assert_ne!(flat.expression, nested.expression);
        assert_ne!(flat.expression, Value::reduction([b, a, c], 4).expression);
        assert!(Value::reduction([a, a], 4).doubled);
        assert!(!flat.doubled);
        assert!(
            flat.is_reduction(4) && nested.is_reduction(4) && Value::reduction([a, a], 4).is_reduction(4)
        );
        assert!(
            ![a, b.further(3), Value::reduction([a], 4), Value::UNWRITTEN].iter().any(|v| v.is_reduction(4))
        );
        let [many, more] = [3, 500].map(|rank| Value::contribution(rank, 768, 0));
        assert!(!many.is_reduction(768) && Value::reduction([many, more], 768).is_reduction(768));
        assert!(Value::reduction([a, b.further(1)], 4).doubled, "different elements are mixed");
    }

    #[test]
    fn memory_behaves_like_an_array_of_elements() {
        let mut array: Vec<Value> = (0..20).map(|k| leaf(0).further(k)).collect();
        let mut memory = SymbolicMemory::filled(20, leaf(0));
        let mut random = 7_u64;
        for round in 0..500 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = (random >> 33) % 20;
            let len = (random >> 50) % (20 - start + 1);
            let value = leaf(round % 4).further(start);
            memory.write(start, &[Piece { len, value }]);
            for k in 0..len {
                array[(start + k) as usize] = value.further(k);
            }
            let mut pieces = Vec::new();
            memory.read(0, 20, &mut pieces);
            let read: Vec<Value> =
                pieces.iter().flat_map(|p| (0..p.len).map(|k| p.value.further(k))).collect();
            assert_eq!(read, array);
        }
    }

    #[test]
    fn memory_is_made_of_pieces() {
        let pieces = [Piece { len: 3, value: leaf(1) }, Piece { len: 2, value: leaf(2).further(7) }];
        let none = Piece { len: 0, value: leaf(3) };
        let memory = SymbolicMemory::of([pieces[0], none, pieces[1]]);
        let mut read = Vec::new();
        memory.read(0, memory.len(), &mut read);
        assert_eq!(read, pieces);
        assert!(SymbolicMemory::of([none]).is_empty());
    }

    #[test]
    fn ragged_runs_reduce_element_by_element() {
        let a = [Piece { len: 3, value: leaf(0) }, Piece { len: 2, value: leaf(2).further(3) }];
        let b = [Piece { len: 5, value: leaf(1) }];
        let mut out = Vec::new();
        reduce_pieces(&[&a[..], &b[..]], 4, &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!((out[0].len, out[1].len), (3, 2));
        assert_eq!(out[1].value, Value::reduction([leaf(2).further(3), leaf(1).further(3)], 4));
    }
}
