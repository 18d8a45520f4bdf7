//! The scalar level: the oracle of the vector levels, and the only level where there is none.
//!
//! Written to be read, one element at a time. It shares nothing with the vector levels.
#![allow(unsafe_code)] // kernels work on raw pointers, because their memory may belong to other processes

use crate::{DataType, ReduceOp};

const NAN_F32: u32 = 0x7FC0_0000;
const NAN_BF16: u16 = 0x7FC0;

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
    use DataType::{BF16, F32, I32, U8};
    use ReduceOp::{Max, Sum};
    let memory = Memory { sources, dst, count };
    // SAFETY (all arms): the stored type has the size of the dtype, so the caller's promise covers it.
    match (dtype, op) {
        // SAFETY: see above.
        (F32, Sum) => unsafe { memory.fold(f32::from_bits, |a, b| a + b, narrow_to_f32) },
        // SAFETY: see above.
        (F32, Max) => unsafe { memory.fold(f32::from_bits, max_f32, narrow_to_f32) },
        // SAFETY: see above.
        (BF16, Sum) => unsafe { memory.fold(widen_bf16, |a, b| a + b, narrow_to_bf16) },
        // SAFETY: see above.
        (BF16, Max) => unsafe { memory.fold(widen_bf16, max_f32, narrow_to_bf16) },
        // SAFETY: see above.
        (I32, Sum) => unsafe { memory.fold(|x: i32| x, i32::wrapping_add, |x| x) },
        // SAFETY: see above.
        (I32, Max) => unsafe { memory.fold(|x: i32| x, i32::max, |x| x) },
        // SAFETY: see above.
        (U8, Sum) => unsafe { memory.fold(|x: u8| x, u8::wrapping_add, |x| x) },
        // SAFETY: see above.
        (U8, Max) => unsafe { memory.fold(|x: u8| x, u8::max, |x| x) },
    }
}

struct Memory<'a> {
    sources: &'a [*const u8],
    dst: *mut u8,
    count: usize,
}

impl Memory<'_> {
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

/// The larger one; NaN if either is NaN; +0 is larger than −0.
fn max_f32(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        f32::from_bits(NAN_F32)
    } else if a == b {
        if a.is_sign_positive() { a } else { b } // the same bits, or zeros of either sign
    } else if a > b {
        a
    } else {
        b
    }
}

fn narrow_to_f32(wide: f32) -> u32 {
    if wide.is_nan() { NAN_F32 } else { wide.to_bits() }
}

/// A bf16 is the upper half of an f32.
fn widen_bf16(stored: u16) -> f32 {
    f32::from_bits(u32::from(stored) << 16)
}

/// Rounds to the nearest bf16, a tie to the even one. The carry may run into the exponent, which is right: the next
/// binade, and infinity after the largest.
fn narrow_to_bf16(wide: f32) -> u16 {
    if wide.is_nan() {
        return NAN_BF16;
    }
    let bits = wide.to_bits();
    let (kept, dropped) = ((bits >> 16) as u16, bits as u16);
    let half = 0x8000;
    let is_odd = kept & 1 == 1;
    if dropped > half || (dropped == half && is_odd) { kept + 1 } else { kept }
}
