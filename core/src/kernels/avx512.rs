//! The AVX-512 level (F, BW, DQ): 64-byte registers, and masks for what is left at the end.
//!
//! The bf16 conversions of AVX512_BF16 are not used: they take subnormals for zero, and we keep them.
#![allow(unsafe_code)] // kernels work on raw pointers, because their memory may belong to other processes

use std::arch::x86_64::*;

use super::lanes::{self, Combine, Format, Machine, combinations, formats, kernel_table};
use crate::{DataType, ReduceOp};

/// Reduces with AVX-512.
///
/// # Safety
/// As for [`super::reduce`], and the processor has AVX-512 F, BW and DQ.
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
unsafe fn few<F: Format<Avx512>, C: Combine<F::Wide>>(sources: &[*const u8], dst: *mut u8, bytes: usize) {
    // SAFETY: the caller's promises are the ones asked for.
    unsafe { lanes::reduce_few::<Avx512, F, C>(sources, dst, bytes) }
}

/// The same for many sources.
///
/// # Safety
/// As for [`reduce`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
unsafe fn many<F: Format<Avx512>, C: Combine<F::Wide>>(sources: &[*const u8], dst: *mut u8, bytes: usize) {
    // SAFETY: the caller's promises are the ones asked for.
    unsafe { lanes::reduce_many::<Avx512, F, C>(sources, dst, bytes) }
}

enum Avx512 {}

impl Machine for Avx512 {
    type Register = __m512i;
    const BYTES: usize = size_of::<__m512i>();

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: 64 bytes are readable; this load takes any address.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    unsafe fn store(to: *mut u8, register: __m512i) {
        // SAFETY: 64 bytes are writable; this store takes any address.
        unsafe { _mm512_storeu_si512(to.cast(), register) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    unsafe fn load_part(from: *const u8, bytes: usize) -> __m512i {
        // SAFETY: the mask lets only `bytes` be read; the processor does not fault on masked bytes.
        unsafe { _mm512_maskz_loadu_epi8(first(bytes), from.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    unsafe fn store_part(to: *mut u8, bytes: usize, register: __m512i) {
        // SAFETY: the mask lets only `bytes` be written; the processor does not fault on masked bytes.
        unsafe { _mm512_mask_storeu_epi8(to.cast(), first(bytes), register) }
    }
}

/// The mask of the first `bytes`, fewer than 64.
#[inline]
fn first(bytes: usize) -> __mmask64 {
    (1 << bytes) - 1
}

formats! { "avx512f,avx512bw,avx512dq" Avx512;
    F32: __m512, widen(stored) => _mm512_castsi512_ps(stored), narrow(wide) => canonical(wide);
    Bf16: [__m512; 2], widen(stored) => widen_bf16(stored), narrow(wide) => narrow_bf16(wide);
    I32: __m512i, widen(stored) => stored, narrow(wide) => wide;
    U8: __m512i, widen(stored) => stored, narrow(wide) => wide;
}

combinations! { "avx512f,avx512bw,avx512dq";
    SumF32(a, b: __m512) => _mm512_add_ps(a, b);
    MaxF32(a, b: __m512) => max_f32(a, b);
    SumI32(a, b: __m512i) => _mm512_add_epi32(a, b);
    MaxI32(a, b: __m512i) => _mm512_max_epi32(a, b);
    SumU8(a, b: __m512i) => _mm512_add_epi8(a, b);
    MaxU8(a, b: __m512i) => _mm512_max_epu8(a, b);
}

/// `vrangeps` knows that +0 is greater than −0, but prefers a number to a NaN.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn max_f32(a: __m512, b: __m512) -> __m512 {
    const MAXIMUM_WITH_ITS_SIGN: i32 = 0b01_01;
    let larger = _mm512_range_ps::<MAXIMUM_WITH_ITS_SIGN>(a, b);
    _mm512_mask_mov_ps(larger, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b), nan())
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn nan() -> __m512 {
    _mm512_castsi512_ps(_mm512_set1_epi32(0x7FC0_0000))
}

/// The bits, with every NaN replaced by the canonical one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn canonical(wide: __m512) -> __m512i {
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(wide, wide);
    _mm512_castps_si512(_mm512_mask_mov_ps(wide, is_nan, nan()))
}

/// Even elements, then odd ones: a shift or a mask each, where going in order would have to cross lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn widen_bf16(stored: __m512i) -> [__m512; 2] {
    let even = _mm512_slli_epi32::<16>(stored);
    let odd = _mm512_and_si512(stored, _mm512_set1_epi32(0xFFFF_0000_u32 as i32));
    [_mm512_castsi512_ps(even), _mm512_castsi512_ps(odd)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn narrow_bf16([even, odd]: [__m512; 2]) -> __m512i {
    const ODD: __mmask32 = 0xAAAA_AAAA;
    let even = _mm512_srli_epi32::<16>(round_to_upper_half(even));
    _mm512_mask_mov_epi16(even, ODD, round_to_upper_half(odd))
}

/// Rounds to nearest even so that the upper 16 bits are the bf16; the lower ones are left over. Adding just under
/// half, or half if the last kept bit is 1, carries exactly when rounding up is right.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn round_to_upper_half(wide: __m512) -> __m512i {
    let bits = _mm512_castps_si512(wide);
    let last_kept = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(last_kept, _mm512_set1_epi32(0x7FFF)));
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(wide, wide);
    _mm512_mask_mov_epi32(rounded, is_nan, _mm512_castps_si512(nan()))
}
