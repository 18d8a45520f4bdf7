//! The AVX2 level: 32-byte registers.
#![allow(unsafe_code)] // kernels work on raw pointers, because their memory may belong to other processes

use std::arch::x86_64::*;

use super::lanes::{self, Combine, Format, Machine, combinations, formats, kernel_table};
use crate::{DataType, ReduceOp};

/// Reduces with AVX2.
///
/// # Safety
/// As for [`super::reduce`], and the processor has AVX2.
pub(super) unsafe fn reduce(
    dtype: DataType,
    op: ReduceOp,
    sources: &[*const u8],
    dst: *mut u8,
    count: usize,
) {
    let bytes = count * dtype.size();
    if lanes::are_many(sources) {
        kernel_table!(dtype, op, many(sources, dst, bytes))
    } else {
        kernel_table!(dtype, op, few(sources, dst, bytes))
    }
}

/// One kernel as a function of its own, into which its parts are inlined.
///
/// # Safety
/// As for [`reduce`].
#[target_feature(enable = "avx2")]
unsafe fn few<F: Format<Avx2>, C: Combine<F::Wide>>(sources: &[*const u8], dst: *mut u8, bytes: usize) {
    // SAFETY: the caller's promises are the ones asked for.
    unsafe { lanes::reduce_few::<Avx2, F, C>(sources, dst, bytes) }
}

/// The same for many sources.
///
/// # Safety
/// As for [`reduce`].
#[target_feature(enable = "avx2")]
unsafe fn many<F: Format<Avx2>, C: Combine<F::Wide>>(sources: &[*const u8], dst: *mut u8, bytes: usize) {
    // SAFETY: the caller's promises are the ones asked for.
    unsafe { lanes::reduce_many::<Avx2, F, C>(sources, dst, bytes) }
}

enum Avx2 {}

impl Machine for Avx2 {
    type Register = __m256i;
    const BYTES: usize = size_of::<__m256i>();

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: 32 bytes are readable; this load takes any address.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store(to: *mut u8, register: __m256i) {
        // SAFETY: 32 bytes are writable; this store takes any address.
        unsafe { _mm256_storeu_si256(to.cast(), register) }
    }

    // AVX2 masks only words of four and eight bytes, so parts go through the stack.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load_part(from: *const u8, bytes: usize) -> __m256i {
        let mut whole = [0_u8; Self::BYTES];
        // SAFETY: `bytes` are readable, fewer than `whole` has, and `whole` is ours alone.
        unsafe { from.copy_to_nonoverlapping(whole.as_mut_ptr(), bytes) };
        // SAFETY: `whole` is a register long.
        unsafe { Self::load(whole.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store_part(to: *mut u8, bytes: usize, register: __m256i) {
        let mut whole = [0_u8; Self::BYTES];
        // SAFETY: `whole` is a register long.
        unsafe { Self::store(whole.as_mut_ptr(), register) };
        // SAFETY: `bytes` are writable, fewer than `whole` has, and `whole` is ours alone.
        unsafe { to.copy_from_nonoverlapping(whole.as_ptr(), bytes) };
    }
}

formats! { "avx2" Avx2;
    F32: __m256, widen(stored) => _mm256_castsi256_ps(stored), narrow(wide) => canonical(wide);
    Bf16: [__m256; 2], widen(stored) => widen_bf16(stored), narrow(wide) => narrow_bf16(wide);
    I32: __m256i, widen(stored) => stored, narrow(wide) => wide;
    U8: __m256i, widen(stored) => stored, narrow(wide) => wide;
}

combinations! { "avx2";
    SumF32(a, b: __m256) => _mm256_add_ps(a, b);
    MaxF32(a, b: __m256) => max_f32(a, b);
    SumI32(a, b: __m256i) => _mm256_add_epi32(a, b);
    MaxI32(a, b: __m256i) => _mm256_max_epi32(a, b);
    SumU8(a, b: __m256i) => _mm256_add_epi8(a, b);
    MaxU8(a, b: __m256i) => _mm256_max_epu8(a, b);
}

/// `maxps` returns its second operand for a NaN and for two zeros. So both orders are taken: they differ only in
/// those cases, where `and` makes +0 of unlike zeros; a NaN becomes all ones, another NaN.
#[inline]
#[target_feature(enable = "avx2")]
fn max_f32(a: __m256, b: __m256) -> __m256 {
    let larger = _mm256_and_ps(_mm256_max_ps(a, b), _mm256_max_ps(b, a));
    _mm256_or_ps(larger, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b))
}

/// The bits, with every NaN replaced by the canonical one.
#[inline]
#[target_feature(enable = "avx2")]
fn canonical(wide: __m256) -> __m256i {
    let is_nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(wide, wide);
    let nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FC0_0000));
    _mm256_castps_si256(_mm256_blendv_ps(wide, nan, is_nan))
}

/// Even elements, then odd ones: a shift or a mask each, where going in order would have to cross lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn widen_bf16(stored: __m256i) -> [__m256; 2] {
    let even = _mm256_slli_epi32::<16>(stored);
    let odd = _mm256_and_si256(stored, _mm256_set1_epi32(0xFFFF_0000_u32 as i32));
    [_mm256_castsi256_ps(even), _mm256_castsi256_ps(odd)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn narrow_bf16([even, odd]: [__m256; 2]) -> __m256i {
    let even = _mm256_srli_epi32::<16>(round_to_upper_half(even));
    _mm256_blend_epi16::<0b1010_1010>(even, round_to_upper_half(odd))
}

/// Rounds to nearest even so that the upper 16 bits are the bf16; the lower ones are left over. Adding just under
/// half, or half if the last kept bit is 1, carries exactly when rounding up is right.
#[inline]
#[target_feature(enable = "avx2")]
fn round_to_upper_half(wide: __m256) -> __m256i {
    let bits = _mm256_castps_si256(wide);
    let last_kept = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(last_kept, _mm256_set1_epi32(0x7FFF)));
    let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(wide, wide));
    _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7FC0_0000), is_nan)
}
