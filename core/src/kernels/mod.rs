//! Reduction kernels (scalar stand-in until the vector ones land).
#![allow(unsafe_code)]
use crate::{DataType, ReduceOp};

/// Folds sources in order.
/// # Safety
/// Every pointer is valid for `count` elements.
pub unsafe fn reduce(dtype: DataType, op: ReduceOp, sources: &[*const u8], dst: *mut u8, count: usize) {
    for i in 0..count {
        macro_rules! fold {
            ($t:ty, $w:ty, $to:expr, $from:expr, $sum:expr) => {{
                // SAFETY: valid for count elements.
                let get = |p: *const u8| -> $w { $to(unsafe { p.cast::<$t>().add(i).read_unaligned() }) };
                let mut acc = get(sources[0]);
                for s in &sources[1..] {
                    let v = get(*s);
                    acc = if op == ReduceOp::Sum {
                        $sum(acc, v)
                    } else if v > acc {
                        v
                    } else {
                        acc
                    };
                }
                // SAFETY: valid for count elements.
                unsafe { dst.cast::<$t>().add(i).write_unaligned($from(acc)) };
            }};
        }
        match dtype {
            DataType::F32 => fold!(f32, f32, |x| x, |x| x, |a: f32, b: f32| a + b),
            DataType::BF16 => {
                fold!(half::bf16, f32, |x: half::bf16| x.to_f32(), half::bf16::from_f32, |a: f32, b: f32| a
                    + b)
            }
            DataType::I32 => fold!(i32, i32, |x| x, |x| x, |a: i32, b: i32| a.wrapping_add(b)),
            DataType::U8 => fold!(u8, u8, |x| x, |x| x, |a: u8, b: u8| a.wrapping_add(b)),
        }
    }
}

/// Copies.
/// # Safety
/// Both are valid for `bytes`, equal or apart.
pub unsafe fn copy(src: *const u8, dst: *mut u8, bytes: usize) {
    // SAFETY: the caller vouches.
    unsafe { std::ptr::copy(src, dst, bytes) };
}
