//! The scalar level: the oracle of the vector levels, and the only level where there is none.
//!
//! Written to be read, one element at a time. It shares nothing with the vector levels.
#![allow(unsafe_code)] // kernels work on raw pointers, because their memory may belong to other processes

use half::f16;

use crate::{DataType, F8E4M3, F8E5M2, ReduceOp};

/// Reduces with the scalar level.
///
/// # Safety
/// As for [`super::reduce`].
pub(super) unsafe fn reduce(
    dtype: DataType,
    op: ReduceOp,
    sources: &[*const u8],
    dst: *mut u8,
    count: usize,
) {
    let memory = Memory { sources, dst, count };
    // SAFETY (all arms): the stored type has the size of the dtype, so the caller's promise covers it.
    match dtype {
        // SAFETY: see above.
        DataType::I8 => unsafe { memory.integers::<i8>(op) },
        // SAFETY: see above.
        DataType::U8 => unsafe { memory.integers::<u8>(op) },
        // SAFETY: see above.
        DataType::I16 => unsafe { memory.integers::<i16>(op) },
        // SAFETY: see above.
        DataType::U16 => unsafe { memory.integers::<u16>(op) },
        // SAFETY: see above.
        DataType::I32 => unsafe { memory.integers::<i32>(op) },
        // SAFETY: see above.
        DataType::U32 => unsafe { memory.integers::<u32>(op) },
        // SAFETY: see above.
        DataType::I64 => unsafe { memory.integers::<i64>(op) },
        // SAFETY: see above.
        DataType::U64 => unsafe { memory.integers::<u64>(op) },
        // SAFETY: see above.
        DataType::F16 => unsafe { memory.floats(op, widen_f16, narrow_to_f16) },
        // SAFETY: see above.
        DataType::BF16 => unsafe { memory.floats(op, widen_bf16, narrow_to_bf16) },
        // SAFETY: see above.
        DataType::F32 => unsafe { memory.floats(op, f32::from_bits, narrow_to_f32) },
        // SAFETY: see above.
        DataType::F64 => unsafe { memory.floats(op, f64::from_bits, narrow_to_f64) },
        // SAFETY: see above.
        DataType::F8E4M3 => unsafe { memory.floats(op, F8E4M3::to_f32, F8E4M3::from_f32) },
        // SAFETY: see above.
        DataType::F8E5M2 => unsafe { memory.floats(op, F8E5M2::to_f32, F8E5M2::from_f32) },
    }
}

struct Memory<'a> {
    sources: &'a [*const u8],
    dst: *mut u8,
    count: usize,
}

impl Memory<'_> {
    /// # Safety
    /// As for [`Memory::fold`].
    unsafe fn integers<T: Integer>(&self, op: ReduceOp) {
        // SAFETY (all arms): the caller's promise.
        match op {
            // SAFETY: see above.
            ReduceOp::Sum => unsafe { self.fold(|x: T| x, T::add, |x| x) },
            // SAFETY: see above.
            ReduceOp::Prod => unsafe { self.fold(|x: T| x, T::multiply, |x| x) },
            // SAFETY: see above.
            ReduceOp::Max => unsafe { self.fold(|x: T| x, T::max, |x| x) },
            // SAFETY: see above.
            ReduceOp::Min => unsafe { self.fold(|x: T| x, T::min, |x| x) },
            // SAFETY: see above.
            ReduceOp::And => unsafe { self.fold(|x: T| x, |a, b| a & b, |x| x) },
            // SAFETY: see above.
            ReduceOp::Or => unsafe { self.fold(|x: T| x, |a, b| a | b, |x| x) },
            // SAFETY: see above.
            ReduceOp::Xor => unsafe { self.fold(|x: T| x, |a, b| a ^ b, |x| x) },
            ReduceOp::Avg => {
                let n = self.sources.len();
                // SAFETY: see above.
                unsafe { self.fold(T::widen, |a, b| a + b, |sum| T::quotient(sum, n)) }
            }
            ReduceOp::PreMulSum | ReduceOp::User(_) => unreachable!("our caller's business"),
        }
    }

    /// # Safety
    /// As for [`Memory::fold`].
    unsafe fn floats<Stored: bytemuck::Pod, Wide: Float>(
        &self,
        op: ReduceOp,
        widen: impl Fn(Stored) -> Wide,
        narrow: impl Fn(Wide) -> Stored,
    ) {
        // SAFETY (all arms): the caller's promise.
        match op {
            // SAFETY: see above.
            ReduceOp::Sum => unsafe { self.fold(widen, |a, b| a + b, narrow) },
            // SAFETY: see above.
            ReduceOp::Prod => unsafe { self.fold(widen, |a, b| a * b, narrow) },
            // SAFETY: see above.
            ReduceOp::Max => unsafe { self.fold(widen, larger, narrow) },
            // SAFETY: see above.
            ReduceOp::Min => unsafe { self.fold(widen, smaller, narrow) },
            ReduceOp::Avg => {
                let n = Wide::from_count(self.sources.len());
                // SAFETY: see above.
                unsafe { self.fold(widen, |a, b| a + b, |sum| narrow(sum / n)) }
            }
            _ => unreachable!("refused by our caller"),
        }
    }

    /// Element by element: widen the first source, combine the others in order, narrow once.
    ///
    /// # Safety
    /// As for [`super::reduce`], with `count` elements of the size of `Stored`, which takes any bit pattern.
    unsafe fn fold<Stored: bytemuck::Pod, Wide>(
        &self,
        widen: impl Fn(Stored) -> Wide,
        combine: impl Fn(Wide, Wide) -> Wide,
        narrow: impl Fn(Wide) -> Stored,
    ) {
        for i in 0..self.count {
            let read = |source: &*const u8| {
                let element = source.cast::<Stored>().wrapping_add(i);
                // SAFETY: i < count, so the element is readable; any bits are a `Stored`.
                widen(unsafe { element.read_unaligned() })
            };
            let mut wide = read(&self.sources[0]);
            for source in &self.sources[1..] {
                wide = combine(wide, read(source));
            }
            let element = self.dst.cast::<Stored>().wrapping_add(i);
            // SAFETY: i < count, so the element is writable; in place, every source's element i has been read.
            unsafe { element.write_unaligned(narrow(wide)) }
        }
    }
}

/// An integer, and a type in which as many of them as there can be ranks have a sum.
trait Integer:
    bytemuck::Pod
    + Ord
    + std::ops::BitAnd<Output = Self>
    + std::ops::BitOr<Output = Self>
    + std::ops::BitXor<Output = Self>
{
    type Wide: std::ops::Add<Output = Self::Wide>;
    fn add(self, other: Self) -> Self;
    fn multiply(self, other: Self) -> Self;
    fn widen(self) -> Self::Wide;
    /// Truncated towards zero. It fits, because it lies between the smallest and the largest of the n.
    fn quotient(sum: Self::Wide, n: usize) -> Self;
}

macro_rules! integers {
    ($($integer:ty, $wide:ty;)*) => {$(
        impl Integer for $integer {
            type Wide = $wide;
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn multiply(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            fn widen(self) -> $wide {
                self.into()
            }
            fn quotient(sum: $wide, n: usize) -> Self {
                (sum / n as $wide) as Self
            }
        }
    )*};
}
integers! {
    i8, i64; u8, i64; i16, i64; u16, i64; i32, i64; u32, i64; i64, i128; u64, i128;
}

/// What floats are folded in.
trait Float:
    Copy + PartialOrd + std::ops::Add<Output = Self> + std::ops::Mul<Output = Self> + std::ops::Div<Output = Self>
{
    const NAN: Self;
    fn is_nan(self) -> bool;
    fn is_negative(self) -> bool;
    fn from_count(count: usize) -> Self;
}

macro_rules! floats {
    ($($float:ty)*) => {$(
        impl Float for $float {
            const NAN: Self = <$float>::NAN;
            fn is_nan(self) -> bool {
                <$float>::is_nan(self)
            }
            fn is_negative(self) -> bool {
                self.is_sign_negative()
            }
            fn from_count(count: usize) -> Self {
                count as $float
            }
        }
    )*};
}
floats!(f32 f64);

/// The larger one; NaN if either is NaN; +0 is larger than −0.
fn larger<F: Float>(a: F, b: F) -> F {
    if a.is_nan() || b.is_nan() {
        F::NAN
    } else if a == b {
        if a.is_negative() { b } else { a } // the same bits, or zeros of either sign
    } else if a > b {
        a
    } else {
        b
    }
}

/// The smaller one; NaN if either is NaN; −0 is smaller than +0.
fn smaller<F: Float>(a: F, b: F) -> F {
    if a.is_nan() || b.is_nan() {
        F::NAN
    } else if a == b {
        if a.is_negative() { a } else { b } // the same bits, or zeros of either sign
    } else if a < b {
        a
    } else {
        b
    }
}

pub(super) fn narrow_to_f64(wide: f64) -> u64 {
    if wide.is_nan() { super::NAN_F64 } else { wide.to_bits() }
}

pub(super) fn narrow_to_f32(wide: f32) -> u32 {
    if wide.is_nan() { super::NAN_F32 } else { wide.to_bits() }
}

fn widen_f16(stored: u16) -> f32 {
    f16::from_bits(stored).to_f32()
}

fn narrow_to_f16(wide: f32) -> u16 {
    if wide.is_nan() { super::NAN_F16 } else { f16::from_f32(wide).to_bits() }
}

/// A bf16 is the upper half of an f32.
pub(super) fn widen_bf16(stored: u16) -> f32 {
    f32::from_bits(u32::from(stored) << 16)
}

/// Rounds to the nearest bf16, a tie to the even one. The carry may run into the exponent, which is right: the next
/// binade, and infinity after the largest.
pub(super) fn narrow_to_bf16(wide: f32) -> u16 {
    if wide.is_nan() {
        return super::NAN_BF16;
    }
    let bits = wide.to_bits();
    let (kept, dropped) = ((bits >> 16) as u16, bits as u16);
    let half = 0x8000;
    let is_odd = kept & 1 == 1;
    if dropped > half || (dropped == half && is_odd) { kept + 1 } else { kept }
}
