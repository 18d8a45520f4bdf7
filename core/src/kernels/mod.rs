//! Reduction and copy kernels: plain functions over pointers that know nothing of plans, ranks or transports.
//!
//! One reduction reads n sources once and writes the result once. Element i of the result is the left fold of
//! element i of the sources **in list order**, kept wide while it is folded and rounded once, when it is written:
//!
//! | dtype | kept as | sum, product | max, min | and, or, xor | average |
//! |---|---|---|---|---|---|
//! | i8 to i64 | themselves | wrap | signed | bit by bit | sum in i64 (i64: in 128 bits), truncated quotient |
//! | u8 to u64 | themselves | wrap | unsigned | bit by bit | the same (u64: in 128 bits) |
//! | f32, f64 | themselves | no FMA, no re-association | +0 is greater than −0 | none | quotient of the sum |
//! | f16, bf16, f8e4m3, f8e5m2 | f32 | the same, one rounding to nearest even | the same | none | quotient in f32, one rounding |
//!
//! * A NaN that goes into a float reduction, or is made by it (∞ − ∞), comes out as the canonical quiet NaN
//!   (`0x7FF8_0000_0000_0000`, `0x7FC0_0000`, `0x7E00`, `0x7FC0`, e4m3 `0x7F`, e5m2 `0x7E`), because hardware picks
//!   payloads by operand order and levels would disagree. An e4m3 that is too large is that NaN too.
//! * A reduction of **one** source is a copy of its bits: no canonical NaN, nothing to round.
//! * An average divides by the number of **sources**: whoever wants the average of all ranks names all in one list.
//! * Subnormals are kept. Like all Rust code, the kernels rely on the thread's default floating-point mode; a host
//!   program that set flush-to-zero on the calling thread gets flushed results, which may differ between levels.
//!
//! [`crate::op`] says the same of operations in words.
//!
//! Each instruction set is a [`Level`]. All levels give the same bits as the scalar one, which is the oracle in
//! `scalar.rs`: simple loops that share nothing with the others. `lanes.rs` has the walk over memory that the vector
//! levels share and the table of kernels; `avx2.rs` and `avx512.rs` fill it with instructions.
//!
//! A new type or operation is: a line in the table of `lanes.rs`, its arm in `scalar.rs`, and a format (how it is
//! widened and narrowed) or combination in each vector file. The compiler lists the places that are missing. Integer
//! averages are scalar at every level. A user's operation is a function of theirs at every level (`user.rs`).
#![allow(unsafe_code)] // kernels work on raw pointers, because their memory may belong to other processes

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod float8;
mod fresh;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod scalar;
mod scale;
mod streaming;
#[cfg(test)]
mod tests;
mod user;

pub use fresh::copy_fresh;
pub use scale::{scale, scale_in_place};
pub use streaming::{copy_streaming, fence_streaming};

use std::sync::OnceLock;

use crate::{DataType, ReduceOp, Result};

const NAN_F64: u64 = 0x7FF8_0000_0000_0000;
const NAN_F32: u32 = 0x7FC0_0000;
const NAN_F16: u16 = 0x7E00;
const NAN_BF16: u16 = 0x7FC0;

/// Reduces `sources` element by element into `dst`, with the best level of this processor.
///
/// Shapes: each source and dst `[count]` elements of dtype; any alignment; at least one source.
/// Order:  the fold goes in list order; see the module for types, NaN, zeros and the single source.
/// Cost:   one pass: each source is read once, dst written once; allocates nothing, makes no system call.
/// Errors: none but those of a user's function ([`crate::UserOp`]); dst holds anything then.
/// Panics: if `sources` is empty, or the operation is not for the type ([`ReduceOp::supports`]): only a bug in a plan
///         can bring that about.
///
/// # Safety
/// * Every source is readable and dst writable for `count` elements.
/// * dst either *is* (same address) one or more of the sources, or overlaps none of them.
/// * Nobody writes the sources, and nobody else touches dst, until this returns.
#[inline]
pub unsafe fn reduce(
    dtype: DataType,
    op: ReduceOp,
    sources: &[*const u8],
    dst: *mut u8,
    count: usize,
) -> Result<()> {
    // SAFETY: the caller's promises are the ones asked for.
    unsafe { Level::best().reduce(dtype, op, sources, dst, count) }
}

/// Copies `bytes` from `src` to `dst`.
///
/// # Safety
/// * `src` is readable and `dst` writable for `bytes`.
/// * The two are the same address (then nothing happens) or do not overlap.
/// * Nobody writes `src`, and nobody else touches `dst`, until this returns.
#[inline]
pub unsafe fn copy(src: *const u8, dst: *mut u8, bytes: usize) {
    if bytes == 0 || src == dst.cast_const() {
        return;
    }
    // SAFETY: both are valid for `bytes`, and as they are not the same they do not overlap; bytes need no alignment.
    // This is the C library's memcpy, which picks its own instructions at run time.
    unsafe { src.copy_to_nonoverlapping(dst, bytes) }
}

/// An instruction set the kernels exist for **and** this processor has: only this module makes one, so holding a
/// `Level` is the proof that its instructions may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(Isa);

/// In rising order of preference; a processor that has one has those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Isa {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    const ALL: &[Level] = &[
        Level(Isa::Scalar),
        #[cfg(target_arch = "x86_64")]
        Level(Isa::Avx2),
        #[cfg(target_arch = "x86_64")]
        Level(Isa::Avx512),
    ];

    /// The level [`reduce`] uses: the widest this processor has, found once.
    #[inline]
    pub fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| Level(detect()))
    }

    /// Every level this processor has, the scalar one first, the best last.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|level| *level <= Self::best())
    }

    /// The name, as `doctor` and benches print it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
        }
    }

    /// [`reduce`] with this level instead of the best one, for tests and benches.
    ///
    /// Errors: as [`reduce`].
    /// Panics: as [`reduce`].
    ///
    /// # Safety
    /// As for [`reduce`].
    pub unsafe fn reduce(
        self,
        dtype: DataType,
        op: ReduceOp,
        sources: &[*const u8],
        dst: *mut u8,
        count: usize,
    ) -> Result<()> {
        assert!(!sources.is_empty(), "a reduction needs at least one source");
        if let [only] = *sources {
            // SAFETY: `count` elements of both are valid, and dst is this source or apart from it.
            unsafe { copy(only, dst, count * dtype.size()) };
            return Ok(());
        }
        let op = match op {
            // SAFETY: the caller's promises are the ones asked for.
            ReduceOp::User(op) => return unsafe { user::reduce(op, dtype, sources, dst, count) },
            ReduceOp::PreMulSum => ReduceOp::Sum, // they were multiplied before
            op => op,
        };
        match self.0 {
            // SAFETY: the caller's promises are the ones asked for.
            Isa::Scalar => unsafe { scalar::reduce(dtype, op, sources, dst, count) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, and this level exists, so the processor has AVX2 and F16C.
            Isa::Avx2 => unsafe { avx2::reduce(dtype, op, sources, dst, count) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, and this level exists, so the processor has the parts of AVX-512 that `detect` asks for.
            Isa::Avx512 => unsafe { avx512::reduce(dtype, op, sources, dst, count) },
        }
        Ok(())
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq");
    match (avx2, avx512) {
        (true, true) => Isa::Avx512,
        (true, false) => Isa::Avx2,
        (false, _) => Isa::Scalar,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Scalar
}
