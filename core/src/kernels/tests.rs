//! The scalar level against an oracle of its own, then every other level against the scalar one, bit by bit.
#![allow(unsafe_code)] // the kernels take pointers

mod definitions;
#[cfg(target_os = "linux")]
mod edges;
mod layout;
mod oracle;
mod scale;
mod user;

use std::hash::{BuildHasher, RandomState};

use oracle::oracle;

use super::{Level, copy, reduce};
use crate::{DataType, ReduceOp};

/// Always run, beside a fresh seed that is printed. A seed that finds a bug is added.
const SEEDS: [u64; 2] = [1, 0x5EED];
const SOURCES: [usize; 8] = [1, 2, 3, 5, 8, 9, 17, 384]; // 9 is the first that goes in bites
const COUNTS: [usize; 11] = [0, 1, 3, 15, 16, 17, 63, 64, 65, 1000, 4099];
const GUARD_BYTES: usize = 128;
const GUARD: u8 = 0xA5;

fn seeds() -> impl Iterator<Item = u64> {
    let fresh = RandomState::new().hash_one("kernels");
    println!("fresh seed {fresh:#x}");
    SEEDS.into_iter().chain([fresh])
}

/// Calls `copy` with many lengths and alignments; it has to copy all and nothing else.
pub(super) fn copies_every_length_and_alignment(copy: impl Fn(*const u8, *mut u8, usize)) {
    let source: Vec<u8> = (0..1000_u32).map(|byte| (byte * 7 + byte / 256) as u8).collect();
    for len in (0..200).chain([255, 256, 257, 300, 319, 320, 321, 511, 512, 513, 800]) {
        for (from, into) in [(0, 0), (1, 0), (0, 1), (13, 50), (63, 64), (64, 63)] {
            let mut output = vec![GUARD; 1000];
            // Both vectors have 1000 bytes; the offsets are below 65 and the lengths below 801.
            copy(source.as_ptr().wrapping_add(from), output.as_mut_ptr().wrapping_add(into), len);
            assert_eq!(output[into..into + len], source[from..from + len], "{len} from {from} into {into}");
            let guards = output[..into].iter().chain(&output[into + len..]);
            assert!(guards.copied().all(|byte| byte == GUARD), "{len} from {from} into {into}");
        }
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// What kind of values a pool holds. Random bits alone would make every long float sum a NaN.
#[derive(Clone, Copy, Debug)]
enum Values {
    AnyBits,
    Finite,
    Special,
}
const VALUES: [Values; 3] = [Values::AnyBits, Values::Finite, Values::Special];

/// The bits of one element.
fn element(dtype: DataType, values: Values, random: &mut Random) -> u64 {
    let any = random.next();
    let Some(layout) = layout::of(dtype.name()) else {
        let extremes = [0, 1, u64::MAX, 1 << (8 * dtype.size() - 1), (1 << (8 * dtype.size() - 1)) - 1];
        return if matches!(values, Values::Special) { extremes[random.below(5)] } else { any };
    };
    let (sign, highest, middle) = (random.next(), layout.highest_exponent(), layout.bias() as u64);
    match values {
        Values::AnyBits => any,
        // Zeros, infinities, NaNs of both kinds and signs, the ends of subnormals and of numbers, and around 1.
        Values::Special => {
            let half = 1 << (layout.mantissa_bits - 1);
            let exponent = [0, 1, middle - 1, middle, highest - 1, highest][random.below(6)];
            let mantissa = [0, 1, half, half + 1, u64::MAX][random.below(5)];
            layout.join(sign, exponent, mantissa)
        }
        // A third subnormal or zero, the rest around 1, so that sums round and cancel.
        Values::Finite => {
            let near = middle - 6 + random.below(13) as u64;
            layout.join(sign, if random.below(3) == 0 { 0 } else { near }, any)
        }
    }
}

fn pool(dtype: DataType, values: Values, elements: usize, random: &mut Random) -> Vec<u8> {
    let size = dtype.size();
    (0..elements).flat_map(|_| element(dtype, values, random).to_le_bytes().into_iter().take(size)).collect()
}

/// Every type with every operation it has.
fn kernels() -> impl Iterator<Item = (DataType, ReduceOp)> {
    let types = DataType::TABLE.iter().map(|row| row.dtype);
    let pairs = types.flat_map(|dtype| ReduceOp::TABLE.iter().map(move |row| (dtype, row.0)));
    pairs.filter(|(dtype, op)| op.supports(*dtype).is_ok())
}

/// Reduces into the middle of guard bytes, `shift` bytes off alignment; with `in_place`, dst is that source.
/// Checks the guards and gives the result.
fn run(
    level: Level,
    (dtype, op): (DataType, ReduceOp),
    sources: &[&[u8]],
    shift: usize,
    in_place: Option<usize>,
) -> Vec<u8> {
    let bytes = sources[0].len();
    let mut buffer = vec![GUARD; GUARD_BYTES + shift + bytes + GUARD_BYTES];
    let (start, end) = (GUARD_BYTES + shift, GUARD_BYTES + shift + bytes);
    if let Some(k) = in_place {
        buffer[start..end].copy_from_slice(sources[k]);
    }
    let dst = buffer[start..].as_mut_ptr();
    let mut pointers: Vec<_> = sources.iter().map(|source| source.as_ptr()).collect();
    if let Some(k) = in_place {
        pointers[k] = dst;
    }
    // SAFETY: every source and dst is `bytes` long; dst is source k or memory of its own.
    unsafe { level.reduce(dtype, op, &pointers, dst, bytes / dtype.size()) }.unwrap();
    assert!(buffer[..start].iter().all(|&byte| byte == GUARD), "wrote before dst");
    assert!(buffer[end..].iter().all(|&byte| byte == GUARD), "wrote behind dst");
    buffer[start..end].to_vec()
}

fn vector_levels() -> Vec<Level> {
    let levels: Vec<_> = Level::available().filter(|level| level.name() != "scalar").collect();
    println!("levels under test: {:?}", levels.iter().map(|level| level.name()).collect::<Vec<_>>());
    levels
}

#[test]
fn every_level_gives_the_bits_of_the_scalar_one() {
    let levels = vector_levels();
    let scalar = Level::available().next().expect("the scalar level is everywhere");
    for seed in seeds() {
        let mut random = Random::new(seed);
        for (kernel, values) in kernels().flat_map(|kernel| VALUES.map(|values| (kernel, values))) {
            let longest = COUNTS[COUNTS.len() - 1];
            let pool = pool(kernel.0, values, 4 * longest, &mut random);
            for (n, count) in SOURCES.into_iter().flat_map(|n| COUNTS.map(|count| (n, count))) {
                if n * count > 500_000 {
                    continue; // the longest of the most sources would take most of the time
                }
                let bytes = count * kernel.0.size();
                // Sources start at any byte: misaligned, and torn across elements, which only adds bit patterns.
                let sources: Vec<_> = (0..n)
                    .map(|_| random.below(pool.len() - bytes))
                    .map(|start| {
                        if matches!(values, Values::AnyBits) {
                            start
                        } else {
                            start - start % kernel.0.size()
                        }
                    })
                    .map(|start| &pool[start..start + bytes])
                    .collect();
                let expected = run(scalar, kernel, &sources, 0, None);
                let place = random.below(n);
                for (&level, in_place) in levels.iter().flat_map(|l| [None, Some(place)].map(|p| (l, p))) {
                    let shift = random.below(64);
                    let result = run(level, kernel, &sources, shift, in_place);
                    let name = level.name();
                    assert!(
                        result == expected,
                        "{name} {kernel:?} {values:?} seed {seed:#x} n {n} count {count} in place {in_place:?} at {:?}",
                        (0..bytes).find(|&i| result[i] != expected[i])
                    );
                }
            }
        }
    }
}

#[test]
fn a_reduction_of_many_sources_fits_any_offset_of_dst_and_sources() {
    for level in vector_levels() {
        let mut random = Random::new(7);
        for kernel in kernels() {
            let pool = pool(kernel.0, Values::Finite, 2048, &mut random);
            let bytes = 333 * kernel.0.size();
            for offset in 0..64 {
                let shifted = [vec![0; offset], pool[..bytes].to_vec()].concat();
                let sources = [&shifted[offset..], &pool[bytes..2 * bytes], &pool[offset..][..bytes]];
                let expected = run(Level::available().next().unwrap(), kernel, &sources, 0, None);
                assert_eq!(run(level, kernel, &sources, offset, None), expected, "offset {offset}");
            }
        }
    }
}

#[test]
fn the_scalar_level_agrees_with_an_oracle_in_f64_and_i128() {
    let scalar = Level::available().next().unwrap();
    for seed in seeds() {
        let mut random = Random::new(seed);
        for (kernel, values) in kernels().flat_map(|kernel| VALUES.map(|values| (kernel, values))) {
            let (size, count) = (kernel.0.size(), 500);
            for n in [2, 3, 5, 17, 100] {
                let pools: Vec<_> = (0..n).map(|_| pool(kernel.0, values, count, &mut random)).collect();
                let sources: Vec<&[u8]> = pools.iter().map(Vec::as_slice).collect();
                let result = run(scalar, kernel, &sources, 1, None);
                for (i, element) in result.chunks(size).enumerate() {
                    let column: Vec<_> = sources.iter().map(|s| &s[i * size..][..size]).collect();
                    assert_eq!(element, oracle(kernel, &column), "{kernel:?} {column:x?} seed {seed:#x}");
                }
            }
        }
    }
}

/// Every pair of 8-bit floats, at every level: the vector levels convert by arithmetic, the scalar one by a table.
#[test]
fn all_pairs_of_8_bit_floats_agree_with_the_oracle_at_every_level() {
    let a: Vec<u8> = (0..1 << 16).map(|pair| pair as u8).collect();
    let b: Vec<u8> = (0..1 << 16).map(|pair| (pair >> 8) as u8).collect();
    for kernel in kernels().filter(|(dtype, _)| matches!(dtype, DataType::F8E4M3 | DataType::F8E5M2)) {
        let expected: Vec<u8> = a.iter().zip(&b).map(|(x, y)| oracle(kernel, &[&[*x], &[*y]])[0]).collect();
        for level in Level::available() {
            let found = run(level, kernel, &[&a, &b], 0, None);
            let wrong = (0..found.len()).find(|&i| found[i] != expected[i]);
            assert_eq!(
                wrong.map(|i| (a[i], b[i], found[i], expected[i])),
                None,
                "{kernel:?} {}",
                level.name()
            );
        }
    }
}

#[test]
#[should_panic(expected = "refused by our caller")]
fn bits_of_floats_are_a_bug_and_panic() {
    let mut x = [0.0_f32; 1];
    let (source, dst) = (x.as_ptr().cast(), x.as_mut_ptr().cast());
    // SAFETY: one element, in place.
    unsafe { reduce(DataType::F32, ReduceOp::Xor, &[source, source], dst, 1) }.unwrap();
}

#[test]
fn dst_may_be_all_of_the_sources() {
    for level in Level::available() {
        let mut data: Vec<i32> = (0..1000).collect();
        let dst = data.as_mut_ptr().cast::<u8>();
        let same = dst.cast_const();
        // SAFETY: all four are the same 1000 elements.
        unsafe { level.reduce(DataType::I32, ReduceOp::Sum, &[same, same, same], dst, data.len()) }.unwrap();
        assert!(data.iter().zip(0..).all(|(x, i)| *x == 3 * i), "{}", level.name());
    }
}

#[test]
fn the_best_level_is_the_last_available_and_reduce_uses_the_same_semantics() {
    assert_eq!(Level::available().last(), Some(Level::best()));
    let (a, b, mut sum) = ([1_i32, 2, 3], [10, 20, 30], [0_i32; 3]);
    let sources = [a.as_ptr().cast(), b.as_ptr().cast()];
    // SAFETY: three arrays of three elements.
    unsafe { reduce(DataType::I32, ReduceOp::Sum, &sources, sum.as_mut_ptr().cast(), 3) }.unwrap();
    assert_eq!(sum, [11, 22, 33]);
}

#[test]
#[should_panic(expected = "at least one source")]
fn no_source_is_a_bug_and_panics() {
    // SAFETY: nothing is read or written for zero elements.
    unsafe { reduce(DataType::U8, ReduceOp::Sum, &[], std::ptr::null_mut(), 0) }.unwrap();
}

#[test]
fn copy_copies_nothing_more_and_takes_equal_and_empty_buffers() {
    let src: Vec<u8> = (0..100).collect();
    let mut dst = vec![GUARD; 102];
    // SAFETY: 100 bytes of each; then a buffer with itself; then nothing.
    unsafe { copy(src.as_ptr(), dst[1..].as_mut_ptr(), 100) };
    assert!(dst[1..101] == src && dst[0] == GUARD && dst[101] == GUARD);
    let itself = dst.as_mut_ptr();
    // SAFETY: the same valid buffer.
    unsafe { copy(itself, itself, 102) };
    // SAFETY: no byte is touched.
    unsafe { copy(std::ptr::null(), std::ptr::null_mut(), 0) };
    assert_eq!(dst[1..101], src);
}
