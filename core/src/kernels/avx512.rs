//! The AVX-512 level (F, BW, DQ): 64-byte registers, and masks for what is left at the end.
//!
//! The bf16 conversions of AVX512_BF16 are not used: they take subnormals for zero, and we keep them.
#![allow(unsafe_code)] // kernels work on raw pointers, because their memory may belong to other processes

use std::arch::x86_64::*;

use super::float8::{E4M3, E5M2, Float8};
use super::lanes::{self, Combine, Format, Machine, averages, combinations, formats, kernel_table};
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
    // SAFETY: the same promises.
    let scalar = || unsafe { super::scalar::reduce(dtype, op, sources, dst, count) };
    if lanes::are_many(sources) {
        kernel_table!(dtype, op, many(sources, dst, bytes), else scalar())
    } else {
        kernel_table!(dtype, op, few(sources, dst, bytes), else scalar())
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
    Integers: __m512i, widen(stored) => stored, narrow(wide) => wide;
    F16: [__m512; 2], widen(stored) => widen_f16(stored), narrow(wide) => narrow_f16(wide);
    Bf16: [__m512; 2], widen(stored) => widen_bf16(stored), narrow(wide) => narrow_bf16(wide);
    F32: __m512, widen(stored) => _mm512_castsi512_ps(stored), narrow(wide) => canonical(wide);
    F64: __m512d, widen(stored) => _mm512_castsi512_pd(stored), narrow(wide) => canonical_f64(wide);
    F8E4M3: Quarters, widen(stored) => widen_f8(stored, &E4M3), narrow(wide) => narrow_f8(wide, &E4M3);
    F8E5M2: Quarters, widen(stored) => widen_f8(stored, &E5M2), narrow(wide) => narrow_f8(wide, &E5M2);
}

combinations! { "avx512f,avx512bw,avx512dq";
    Add8(a, b: __m512i) => _mm512_add_epi8(a, b);
    Add16(a, b: __m512i) => _mm512_add_epi16(a, b);
    Add32(a, b: __m512i) => _mm512_add_epi32(a, b);
    Add64(a, b: __m512i) => _mm512_add_epi64(a, b);
    Mul8(a, b: __m512i) => multiply_bytes(a, b);
    Mul16(a, b: __m512i) => _mm512_mullo_epi16(a, b);
    Mul32(a, b: __m512i) => _mm512_mullo_epi32(a, b);
    Mul64(a, b: __m512i) => _mm512_mullo_epi64(a, b);
    MaxI8(a, b: __m512i) => _mm512_max_epi8(a, b);
    MaxU8(a, b: __m512i) => _mm512_max_epu8(a, b);
    MaxI16(a, b: __m512i) => _mm512_max_epi16(a, b);
    MaxU16(a, b: __m512i) => _mm512_max_epu16(a, b);
    MaxI32(a, b: __m512i) => _mm512_max_epi32(a, b);
    MaxU32(a, b: __m512i) => _mm512_max_epu32(a, b);
    MaxI64(a, b: __m512i) => _mm512_max_epi64(a, b);
    MaxU64(a, b: __m512i) => _mm512_max_epu64(a, b);
    MinI8(a, b: __m512i) => _mm512_min_epi8(a, b);
    MinU8(a, b: __m512i) => _mm512_min_epu8(a, b);
    MinI16(a, b: __m512i) => _mm512_min_epi16(a, b);
    MinU16(a, b: __m512i) => _mm512_min_epu16(a, b);
    MinI32(a, b: __m512i) => _mm512_min_epi32(a, b);
    MinU32(a, b: __m512i) => _mm512_min_epu32(a, b);
    MinI64(a, b: __m512i) => _mm512_min_epi64(a, b);
    MinU64(a, b: __m512i) => _mm512_min_epu64(a, b);
    And(a, b: __m512i) => _mm512_and_si512(a, b);
    Or(a, b: __m512i) => _mm512_or_si512(a, b);
    Xor(a, b: __m512i) => _mm512_xor_si512(a, b);
    SumF32(a, b: __m512) => _mm512_add_ps(a, b);
    ProdF32(a, b: __m512) => _mm512_mul_ps(a, b);
    MaxF32(a, b: __m512) => range_f32::<MAXIMUM>(a, b);
    MinF32(a, b: __m512) => range_f32::<MINIMUM>(a, b);
    SumF64(a, b: __m512d) => _mm512_add_pd(a, b);
    ProdF64(a, b: __m512d) => _mm512_mul_pd(a, b);
    MaxF64(a, b: __m512d) => range_f64::<MAXIMUM>(a, b);
    MinF64(a, b: __m512d) => range_f64::<MINIMUM>(a, b);
}

averages! { "avx512f,avx512bw,avx512dq";
    AvgF32(sum, n: __m512), as SumF32 => _mm512_div_ps(sum, _mm512_set1_ps(n as f32));
    AvgF64(sum, n: __m512d), as SumF64 => _mm512_div_pd(sum, _mm512_set1_pd(n as f64));
}

/// There is no product of bytes: products of words, whose lower bytes are those of the even and of the odd bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn multiply_bytes(a: __m512i, b: __m512i) -> __m512i {
    const ODD: __mmask64 = 0xAAAA_AAAA_AAAA_AAAA;
    let even = _mm512_mullo_epi16(a, b);
    let odd = _mm512_mullo_epi16(_mm512_srli_epi16::<8>(a), _mm512_srli_epi16::<8>(b));
    _mm512_mask_mov_epi8(even, ODD, _mm512_slli_epi16::<8>(odd))
}

const MAXIMUM: i32 = 0b01_01; // with its own sign
const MINIMUM: i32 = 0b01_00;

/// `vrangeps` knows that +0 is greater than −0, but prefers a number to a NaN.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn range_f32<const WHICH: i32>(a: __m512, b: __m512) -> __m512 {
    let chosen = _mm512_range_ps::<WHICH>(a, b);
    _mm512_mask_mov_ps(chosen, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b), nan())
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn range_f64<const WHICH: i32>(a: __m512d, b: __m512d) -> __m512d {
    let chosen = _mm512_range_pd::<WHICH>(a, b);
    _mm512_mask_mov_pd(chosen, _mm512_cmp_pd_mask::<_CMP_UNORD_Q>(a, b), _mm512_set1_pd(f64::NAN))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn nan() -> __m512 {
    _mm512_castsi512_ps(_mm512_set1_epi32(super::NAN_F32 as i32))
}

/// The bits, with every NaN replaced by the canonical one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn canonical(wide: __m512) -> __m512i {
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(wide, wide);
    _mm512_castps_si512(_mm512_mask_mov_ps(wide, is_nan, nan()))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn canonical_f64(wide: __m512d) -> __m512i {
    let is_nan = _mm512_cmp_pd_mask::<_CMP_UNORD_Q>(wide, wide);
    let nan = _mm512_set1_epi64(super::NAN_F64 as i64);
    _mm512_mask_mov_epi64(_mm512_castpd_si512(wide), is_nan, nan)
}

/// The lower half, then the upper one. The conversion keeps subnormals.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn widen_f16(stored: __m512i) -> [__m512; 2] {
    let upper = _mm512_extracti64x4_epi64::<1>(stored);
    [_mm512_cvtph_ps(_mm512_castsi512_si256(stored)), _mm512_cvtph_ps(upper)]
}

/// The canonical NaN of f32 becomes the one of f16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn narrow_f16(halves: [__m512; 2]) -> __m512i {
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    let [lower, upper] = halves.map(|half| _mm512_cvtps_ph::<NEAREST>(_mm512_castsi512_ps(canonical(half))));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(lower), upper)
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

/// Every fourth element from the first, the second, the third and the fourth on, for the reason of bf16.
type Quarters = [[__m512; 2]; 2];

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn widen_f8(stored: __m512i, format: &Float8) -> Quarters {
    let [a, b] = [stored, _mm512_srli_epi32::<8>(stored)].map(|stored| widen_low_f8(stored, format));
    let [c, d] = [_mm512_srli_epi32::<16>(stored), _mm512_srli_epi32::<24>(stored)]
        .map(|stored| widen_low_f8(stored, format));
    [[a, b], [c, d]]
}

/// Widens the lowest byte of each word.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn widen_low_f8(stored: __m512i, format: &Float8) -> __m512 {
    let magnitude = _mm512_and_si512(stored, _mm512_set1_epi32(0x7F));
    let sign = _mm512_slli_epi32::<24>(_mm512_and_si512(stored, _mm512_set1_epi32(0x80)));
    let shifted = _mm512_sllv_epi32(magnitude, _mm512_set1_epi32(format.shift));
    let value = _mm512_mul_ps(_mm512_castsi512_ps(shifted), _mm512_set1_ps(format.scale));
    let value = _mm512_or_si512(_mm512_castps_si512(value), sign);
    let not_finite = _mm512_cmpge_epi32_mask(magnitude, _mm512_set1_epi32(format.beyond));
    let exponent = _mm512_set1_epi32(0x7F80_0000);
    _mm512_castsi512_ps(_mm512_mask_or_epi32(value, not_finite, value, exponent))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn narrow_f8([[a, b], [c, d]]: Quarters, format: &Float8) -> __m512i {
    let [a, b] = [a, b].map(|wide| narrow_low_f8(wide, format));
    let [c, d] = [c, d].map(|wide| narrow_low_f8(wide, format));
    let lower = _mm512_or_si512(a, _mm512_slli_epi32::<8>(b));
    let upper = _mm512_or_si512(c, _mm512_slli_epi32::<8>(d));
    _mm512_or_si512(lower, _mm512_slli_epi32::<16>(upper))
}

/// Narrows into the lowest byte of each word, the others 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn narrow_low_f8(wide: __m512, format: &Float8) -> __m512i {
    let bits = _mm512_castps_si512(wide);
    let magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7FFF_FFFF));
    let sign = _mm512_and_si512(_mm512_srli_epi32::<24>(bits), _mm512_set1_epi32(0x80));
    let is_subnormal = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32(format.least_normal));
    let subnormal = _mm512_add_ps(_mm512_castsi512_ps(magnitude), _mm512_set1_ps(format.magic));
    let subnormal =
        _mm512_sub_epi32(_mm512_castps_si512(subnormal), _mm512_set1_epi32(format.magic.to_bits() as i32));
    let shift = _mm512_set1_epi32(format.shift);
    let rebased = _mm512_sub_epi32(magnitude, _mm512_set1_epi32(format.rebase));
    let is_odd = _mm512_and_si512(_mm512_srlv_epi32(rebased, shift), _mm512_set1_epi32(1));
    let carry = _mm512_add_epi32(is_odd, _mm512_set1_epi32(format.under_half()));
    let normal = _mm512_srlv_epi32(_mm512_add_epi32(rebased, carry), shift);
    let rounded = _mm512_mask_mov_epi32(normal, is_subnormal, subnormal);
    let rounded = _mm512_min_epu32(rounded, _mm512_set1_epi32(format.beyond));
    let is_nan = _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x7F80_0000))
        | _mm512_cmpeq_epi32_mask(rounded, _mm512_set1_epi32(format.nan));
    _mm512_mask_mov_epi32(_mm512_or_si512(rounded, sign), is_nan, _mm512_set1_epi32(format.nan))
}
