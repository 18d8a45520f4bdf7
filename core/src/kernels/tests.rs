//! The scalar level against an oracle of its own, then every other level against the scalar one, bit by bit.
#![allow(unsafe_code)] // the kernels take pointers

use std::hash::{BuildHasher, RandomState};

use half::bf16;

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

/// NaNs of both kinds and signs with payloads, infinities, zeros, the smallest and largest subnormals and numbers.
const SPECIAL_F32: [u32; 18] = [
    0,
    0x8000_0000,
    1,
    0x8000_0001,
    0x007F_FFFF,
    0x807F_FFFF,
    0x0080_0000,
    0x7F7F_FFFF,
    0xFF7F_FFFF,
    0x7F80_0000,
    0xFF80_0000,
    0x7FC0_0000,
    0xFFC0_1234,
    0x7F80_0001,
    0xFFBF_FFFF,
    0x3F80_0000,
    0x3F80_8000, // halfway between two bf16
    0x3F81_8000, // halfway, with an odd bf16 below
];

/// The bits of one element.
fn element(dtype: DataType, values: Values, random: &mut Random) -> u64 {
    let any = random.next() >> 16;
    match (values, dtype) {
        (Values::AnyBits, _) | (_, DataType::I32 | DataType::U8) => any,
        (Values::Special, DataType::F32) => SPECIAL_F32[random.below(SPECIAL_F32.len())].into(),
        (Values::Special, DataType::BF16) => u64::from(SPECIAL_F32[random.below(SPECIAL_F32.len())] >> 16),
        // A third subnormal or zero, the rest around 1, so that sums round and cancel.
        (Values::Finite, _) => {
            let exponent = if random.below(3) == 0 { 0 } else { 120 + random.below(14) as u64 };
            let bits = (any & 0x807F_FFFF) | (exponent << 23);
            if dtype == DataType::BF16 { bits >> 16 } else { bits }
        }
    }
}

fn pool(dtype: DataType, values: Values, elements: usize, random: &mut Random) -> Vec<u8> {
    let size = dtype.size();
    (0..elements).flat_map(|_| element(dtype, values, random).to_le_bytes().into_iter().take(size)).collect()
}

/// Every type and operation there is.
fn kernels() -> impl Iterator<Item = (DataType, ReduceOp)> {
    let types = DataType::TABLE.iter().map(|row| row.dtype);
    types.flat_map(|dtype| ReduceOp::TABLE.iter().map(move |row| (dtype, row.0)))
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
    unsafe { level.reduce(dtype, op, &pointers, dst, bytes / dtype.size()) };
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
                let bytes = count * kernel.0.size();
                // Sources start at any byte: misaligned, and torn across elements, which only adds bit patterns.
                let sources: Vec<_> = (0..n)
                    .map(|_| random.below(pool.len() - bytes))
                    .map(|start| if matches!(values, Values::AnyBits) { start } else { start & !3 })
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

/// The oracle: f64 and i128, one element, no code of the kernels. An f32 sum rounded from the f64 one is the f32
/// sum (53 ≥ 2·24 + 2 bits: the double rounding is harmless).
fn oracle((dtype, op): (DataType, ReduceOp), column: &[&[u8]]) -> Vec<u8> {
    let float = |bytes: &[u8]| match dtype {
        DataType::F32 => f64::from(f32::from_le_bytes(bytes.try_into().unwrap())),
        _ => f64::from(bf16::from_le_bytes(bytes.try_into().unwrap())),
    };
    let integer = |bytes: &[u8]| match dtype {
        DataType::I32 => i128::from(i32::from_le_bytes(bytes.try_into().unwrap())),
        _ => i128::from(bytes[0]),
    };
    if dtype.row().is_float {
        let combine = |a: f64, b: f64| match op {
            ReduceOp::Sum => f64::from((a + b) as f32),
            ReduceOp::Max if a.is_nan() || b.is_nan() => f64::NAN,
            ReduceOp::Max => std::cmp::max_by(a, b, f64::total_cmp),
        };
        let wide = column.iter().map(|bytes| float(bytes)).reduce(combine).unwrap();
        match (dtype, wide.is_nan()) {
            (DataType::F32, true) => 0x7FC0_0000_u32.to_le_bytes().to_vec(),
            (_, true) => 0x7FC0_u16.to_le_bytes().to_vec(),
            (DataType::F32, _) => (wide as f32).to_le_bytes().to_vec(),
            _ => bf16::from_f32(wide as f32).to_le_bytes().to_vec(),
        }
    } else {
        let numbers = column.iter().map(|bytes| integer(bytes));
        let wide = if op == ReduceOp::Sum { numbers.sum() } else { numbers.max().unwrap() };
        wide.to_le_bytes()[..dtype.size()].to_vec()
    }
}

#[test]
fn the_scalar_level_agrees_with_an_oracle_in_f64_and_i128() {
    let scalar = Level::available().next().unwrap();
    for seed in seeds() {
        let mut random = Random::new(seed);
        for (kernel, values) in kernels().flat_map(|kernel| VALUES.map(|values| (kernel, values))) {
            let (size, count) = (kernel.0.size(), 2000);
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

/// Reduces one element of each source, at every level.
fn one<T: crate::Element>(op: ReduceOp, column: &[T]) -> Vec<T> {
    let sources: Vec<_> = column.iter().map(|x| bytemuck::bytes_of(x)).collect();
    let results = Level::available().map(|level| run(level, (T::DTYPE, op), &sources, 0, None));
    results.map(|bytes| bytemuck::pod_read_unaligned(&bytes)).collect()
}

/// The bits every level must give for one column of f32.
fn f32_bits(op: ReduceOp, column: &[f32]) -> u32 {
    let all: Vec<_> = one(op, column).into_iter().map(f32::to_bits).collect();
    assert!(all.iter().all(|bits| *bits == all[0]), "levels disagree on {column:?}: {all:x?}");
    all[0]
}

/// The bits every level must give for one column of bf16.
fn bf16_bits(op: ReduceOp, column: &[f32]) -> u16 {
    let stored: Vec<_> = column.iter().copied().map(bf16::from_f32).collect();
    let all: Vec<_> = one(op, &stored).into_iter().map(bf16::to_bits).collect();
    assert!(all.iter().all(|bits| *bits == all[0]), "levels disagree on {column:?}: {all:x?}");
    all[0]
}

#[test]
fn sums_associate_in_list_order() {
    assert_eq!(f32_bits(ReduceOp::Sum, &[1e8, 1.0, -1e8]), 0.0_f32.to_bits());
    assert_eq!(f32_bits(ReduceOp::Sum, &[1e8, -1e8, 1.0]), 1.0_f32.to_bits());
}

#[test]
fn bf16_rounds_once_to_nearest_even() {
    let half_step = 2.0_f32.powi(-8); // of bf16 at 1
    // Rounding after each add would stay at 1.
    assert_eq!(bf16_bits(ReduceOp::Sum, &[1.0, half_step, half_step]), 0x3F81);
    assert_eq!(bf16_bits(ReduceOp::Sum, &[1.0, half_step]), 0x3F80, "a tie goes down to even");
    assert_eq!(
        bf16_bits(ReduceOp::Sum, &[1.0 + 2.0 * half_step, half_step]),
        0x3F82,
        "a tie goes up to even"
    );
    assert_eq!(bf16_bits(ReduceOp::Sum, &[1.0, half_step, 1e-6]), 0x3F81, "more than a tie");
    assert_eq!(bf16_bits(ReduceOp::Sum, &[3.38e38, 3e36]), 0x7F80, "beyond the largest is infinite");
}

#[test]
fn nan_zeros_infinities_and_subnormals_are_as_documented() {
    let strange = f32::from_bits(0xFFBF_1234);
    for op in [ReduceOp::Sum, ReduceOp::Max] {
        for column in [[strange, 1.0], [1.0, strange], [strange, f32::INFINITY], [f32::NEG_INFINITY, strange]]
        {
            assert_eq!(f32_bits(op, &column), 0x7FC0_0000, "{op:?}");
            assert_eq!(bf16_bits(op, &column), 0x7FC0, "{op:?}");
        }
    }
    assert_eq!(f32_bits(ReduceOp::Sum, &[f32::INFINITY, f32::NEG_INFINITY]), 0x7FC0_0000);
    assert_eq!(f32_bits(ReduceOp::Max, &[-0.0, 0.0]), 0);
    assert_eq!(f32_bits(ReduceOp::Max, &[0.0, -0.0]), 0);
    assert_eq!(f32_bits(ReduceOp::Max, &[-0.0, -0.0]), 0x8000_0000);
    assert_eq!(f32_bits(ReduceOp::Sum, &[-0.0, -0.0]), 0x8000_0000);
    let (tiny, tiny_bf16) = (f32::from_bits(1), f32::from_bits(1 << 16));
    assert_eq!(f32_bits(ReduceOp::Sum, &[tiny, tiny]), 2);
    assert_eq!(f32_bits(ReduceOp::Max, &[tiny, -1.0]), 1);
    assert_eq!(bf16_bits(ReduceOp::Sum, &[tiny_bf16, tiny_bf16]), 2);
}

#[test]
fn integer_sums_wrap_and_signs_count_in_max() {
    assert!(one(ReduceOp::Sum, &[i32::MAX, 1]).iter().all(|x| *x == i32::MIN));
    assert!(one(ReduceOp::Sum, &[200_u8, 100]).iter().all(|x| *x == 44));
    assert!(one(ReduceOp::Max, &[-1, 1]).iter().all(|x| *x == 1));
    assert!(one(ReduceOp::Max, &[255_u8, 1]).iter().all(|x| *x == 255));
}

#[test]
fn one_source_is_copied_bit_by_bit() {
    assert_eq!(f32_bits(ReduceOp::Max, &[f32::from_bits(0x7F80_0001)]), 0x7F80_0001);
}

#[test]
fn dst_may_be_all_of_the_sources() {
    for level in Level::available() {
        let mut data: Vec<i32> = (0..1000).collect();
        let dst = data.as_mut_ptr().cast::<u8>();
        let same = dst.cast_const();
        // SAFETY: all four are the same 1000 elements.
        unsafe { level.reduce(DataType::I32, ReduceOp::Sum, &[same, same, same], dst, data.len()) };
        assert!(data.iter().zip(0..).all(|(x, i)| *x == 3 * i), "{}", level.name());
    }
}

#[test]
fn the_best_level_is_the_last_available_and_reduce_uses_the_same_semantics() {
    assert_eq!(Level::available().last(), Some(Level::best()));
    let (a, b, mut sum) = ([1_i32, 2, 3], [10, 20, 30], [0_i32; 3]);
    let sources = [a.as_ptr().cast(), b.as_ptr().cast()];
    // SAFETY: three arrays of three elements.
    unsafe { reduce(DataType::I32, ReduceOp::Sum, &sources, sum.as_mut_ptr().cast(), 3) };
    assert_eq!(sum, [11, 22, 33]);
}

#[test]
#[should_panic(expected = "at least one source")]
fn no_source_is_a_bug_and_panics() {
    // SAFETY: nothing is read or written for zero elements.
    unsafe { reduce(DataType::U8, ReduceOp::Sum, &[], std::ptr::null_mut(), 0) };
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

/// Buffers that end where unmapped memory begins, and begin where it ends: a kernel that touches a byte too many
/// dies.
#[cfg(target_os = "linux")]
mod edges {
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

    use super::*;

    const PAGE: usize = 64 << 10; // a multiple of every page size of Linux

    /// One page between two that cannot be touched.
    struct Page(*mut u8);

    impl Page {
        fn new() -> Self {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: the kernel picks the address.
            let map = unsafe { mmap_anonymous(std::ptr::null_mut(), 3 * PAGE, access, MapFlags::PRIVATE) };
            let base = map.expect("three pages can be mapped").cast::<u8>();
            for edge in [0, 2] {
                let page = base.wrapping_add(edge * PAGE).cast();
                // SAFETY: the page is ours and nothing lives in it.
                unsafe { mprotect(page, PAGE, MprotectFlags::empty()) }.expect("our page can be protected");
            }
            Self(base.wrapping_add(PAGE))
        }
    }

    impl Drop for Page {
        fn drop(&mut self) {
            // SAFETY: the three pages of `new`; no pointer into them is used again.
            let _ = unsafe { munmap(self.0.wrapping_sub(PAGE).cast(), 3 * PAGE) };
        }
    }

    #[test]
    fn no_byte_outside_the_buffers_is_touched() {
        let pages = [Page::new(), Page::new(), Page::new(), Page::new()];
        for (level, (dtype, op)) in Level::available().flat_map(|l| kernels().map(move |k| (l, k))) {
            for count in (0..200).chain([1000, 4099]) {
                for start in [0, PAGE - count * dtype.size()] {
                    let [a, b, c, d] = [0, 1, 2, 3].map(|i| pages[i].0.wrapping_add(start));
                    for sources in [&[a][..], &[a, b], &[a, b, c], &[d, a, b]] {
                        let sources: Vec<_> = sources.iter().map(|source| source.cast_const()).collect();
                        // SAFETY: all lie inside their pages.
                        unsafe { level.reduce(dtype, op, &sources, d, count) };
                    }
                }
            }
        }
    }
}
