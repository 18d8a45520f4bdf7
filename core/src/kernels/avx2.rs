//! The AVX2 level (with F16C): 32-byte registers.
#![allow(unsafe_code)] // kernels work on raw pointers, because their memory may belong to other processes

use std::arch::x86_64::*;

use super::float8::{E4M3, E5M2, Float8};
use super::lanes::{self, Combine, Format, Machine, averages, combinations, formats, kernel_table};
use crate::{DataType, ReduceOp};

/// Reduces with AVX2.
///
/// # Safety
/// As for [`super::reduce`], and the processor has AVX2 and F16C.
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
#[target_feature(enable = "avx2,f16c")]
unsafe fn few<F: Format<Avx2>, C: Combine<F::Wide>>(sources: &[*const u8], dst: *mut u8, bytes: usize) {
    // SAFETY: the caller's promises are the ones asked for.
    unsafe { lanes::reduce_few::<Avx2, F, C>(sources, dst, bytes) }
}

/// The same for many sources.
///
/// # Safety
/// As for [`reduce`].
#[target_feature(enable = "avx2,f16c")]
unsafe fn many<F: Format<Avx2>, C: Combine<F::Wide>>(sources: &[*const u8], dst: *mut u8, bytes: usize) {
    // SAFETY: the caller's promises are the ones asked for.
    unsafe { lanes::reduce_many::<Avx2, F, C>(sources, dst, bytes) }
}

enum Avx2 {}

impl Machine for Avx2 {
    type Register = __m256i;
    const BYTES: usize = size_of::<__m256i>();

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: 32 bytes are readable; this load takes any address.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store(to: *mut u8, register: __m256i) {
        // SAFETY: 32 bytes are writable; this store takes any address.
        unsafe { _mm256_storeu_si256(to.cast(), register) }
    }

    // AVX2 masks only words of four and eight bytes, so parts go through the stack.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load_part(from: *const u8, bytes: usize) -> __m256i {
        let mut whole = [0_u8; Self::BYTES];
        // SAFETY: `bytes` are readable, fewer than `whole` has, and `whole` is ours alone.
        unsafe { from.copy_to_nonoverlapping(whole.as_mut_ptr(), bytes) };
        // SAFETY: `whole` is a register long.
        unsafe { Self::load(whole.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store_part(to: *mut u8, bytes: usize, register: __m256i) {
        let mut whole = [0_u8; Self::BYTES];
        // SAFETY: `whole` is a register long.
        unsafe { Self::store(whole.as_mut_ptr(), register) };
        // SAFETY: `bytes` are writable, fewer than `whole` has, and `whole` is ours alone.
        unsafe { to.copy_from_nonoverlapping(whole.as_ptr(), bytes) };
    }
}

formats! { "avx2,f16c" Avx2;
    Integers: __m256i, widen(stored) => stored, narrow(wide) => wide;
    F16: [__m256; 2], widen(stored) => widen_f16(stored), narrow(wide) => narrow_f16(wide);
    Bf16: [__m256; 2], widen(stored) => widen_bf16(stored), narrow(wide) => narrow_bf16(wide);
    F32: __m256, widen(stored) => _mm256_castsi256_ps(stored), narrow(wide) => canonical(wide);
    F64: __m256d, widen(stored) => _mm256_castsi256_pd(stored), narrow(wide) => canonical_f64(wide);
    F8E4M3: Quarters, widen(stored) => widen_f8(stored, &E4M3), narrow(wide) => narrow_f8(wide, &E4M3);
    F8E5M2: Quarters, widen(stored) => widen_f8(stored, &E5M2), narrow(wide) => narrow_f8(wide, &E5M2);
}

combinations! { "avx2,f16c";
    Add8(a, b: __m256i) => _mm256_add_epi8(a, b);
    Add16(a, b: __m256i) => _mm256_add_epi16(a, b);
    Add32(a, b: __m256i) => _mm256_add_epi32(a, b);
    Add64(a, b: __m256i) => _mm256_add_epi64(a, b);
    Mul8(a, b: __m256i) => multiply_bytes(a, b);
    Mul16(a, b: __m256i) => _mm256_mullo_epi16(a, b);
    Mul32(a, b: __m256i) => _mm256_mullo_epi32(a, b);
    Mul64(a, b: __m256i) => multiply_quads(a, b);
    MaxI8(a, b: __m256i) => _mm256_max_epi8(a, b);
    MaxU8(a, b: __m256i) => _mm256_max_epu8(a, b);
    MaxI16(a, b: __m256i) => _mm256_max_epi16(a, b);
    MaxU16(a, b: __m256i) => _mm256_max_epu16(a, b);
    MaxI32(a, b: __m256i) => _mm256_max_epi32(a, b);
    MaxU32(a, b: __m256i) => _mm256_max_epu32(a, b);
    MinI8(a, b: __m256i) => _mm256_min_epi8(a, b);
    MinU8(a, b: __m256i) => _mm256_min_epu8(a, b);
    MinI16(a, b: __m256i) => _mm256_min_epi16(a, b);
    MinU16(a, b: __m256i) => _mm256_min_epu16(a, b);
    MinI32(a, b: __m256i) => _mm256_min_epi32(a, b);
    MinU32(a, b: __m256i) => _mm256_min_epu32(a, b);
    MaxI64(a, b: __m256i) => larger_quads(a, b, a, b);
    MaxU64(a, b: __m256i) => larger_quads(a, b, flip_signs(a), flip_signs(b));
    MinI64(a, b: __m256i) => larger_quads(a, b, b, a);
    MinU64(a, b: __m256i) => larger_quads(a, b, flip_signs(b), flip_signs(a));
    And(a, b: __m256i) => _mm256_and_si256(a, b);
    Or(a, b: __m256i) => _mm256_or_si256(a, b);
    Xor(a, b: __m256i) => _mm256_xor_si256(a, b);
    SumF32(a, b: __m256) => _mm256_add_ps(a, b);
    ProdF32(a, b: __m256) => _mm256_mul_ps(a, b);
    MaxF32(a, b: __m256) => max_f32(a, b);
    MinF32(a, b: __m256) => min_f32(a, b);
    SumF64(a, b: __m256d) => _mm256_add_pd(a, b);
    ProdF64(a, b: __m256d) => _mm256_mul_pd(a, b);
    MaxF64(a, b: __m256d) => max_f64(a, b);
    MinF64(a, b: __m256d) => min_f64(a, b);
}

averages! { "avx2,f16c";
    AvgF32(sum, n: __m256), as SumF32 => _mm256_div_ps(sum, _mm256_set1_ps(n as f32));
    AvgF64(sum, n: __m256d), as SumF64 => _mm256_div_pd(sum, _mm256_set1_pd(n as f64));
}

/// There is no product of bytes: products of words, whose lower bytes are those of the even and of the odd bytes.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn multiply_bytes(a: __m256i, b: __m256i) -> __m256i {
    let even = _mm256_and_si256(_mm256_mullo_epi16(a, b), _mm256_set1_epi16(0xFF));
    let odd = _mm256_mullo_epi16(_mm256_srli_epi16::<8>(a), _mm256_srli_epi16::<8>(b));
    _mm256_or_si256(even, _mm256_slli_epi16::<8>(odd))
}

/// There is no product of 64 bits: the lower halves' product and, in the upper half, the two mixed ones.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn multiply_quads(a: __m256i, b: __m256i) -> __m256i {
    let mixed = _mm256_mullo_epi32(a, _mm256_shuffle_epi32::<0b10_11_00_01>(b));
    let mixed = _mm256_add_epi32(_mm256_slli_epi64::<32>(mixed), mixed);
    let upper = _mm256_and_si256(mixed, _mm256_set1_epi64x(0xFFFF_FFFF_0000_0000_u64 as i64));
    _mm256_add_epi64(_mm256_mul_epu32(a, b), upper)
}

/// There is no maximum of 64 bits: `a` where `x` is greater than `y`, else `b`.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn larger_quads(a: __m256i, b: __m256i, x: __m256i, y: __m256i) -> __m256i {
    _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi64(x, y))
}

/// Signed numbers that compare as the unsigned ones do.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn flip_signs(a: __m256i) -> __m256i {
    _mm256_xor_si256(a, _mm256_set1_epi64x(i64::MIN))
}

/// `maxps` returns its second operand for a NaN and for two zeros. So both orders are taken: they differ only in
/// those cases, where `and` makes +0 of unlike zeros; a NaN becomes all ones, another NaN.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn max_f32(a: __m256, b: __m256) -> __m256 {
    let larger = _mm256_and_ps(_mm256_max_ps(a, b), _mm256_max_ps(b, a));
    _mm256_or_ps(larger, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b))
}

/// The same, but `or` makes −0 of unlike zeros.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn min_f32(a: __m256, b: __m256) -> __m256 {
    let smaller = _mm256_or_ps(_mm256_min_ps(a, b), _mm256_min_ps(b, a));
    _mm256_or_ps(smaller, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn max_f64(a: __m256d, b: __m256d) -> __m256d {
    let larger = _mm256_and_pd(_mm256_max_pd(a, b), _mm256_max_pd(b, a));
    _mm256_or_pd(larger, _mm256_cmp_pd::<_CMP_UNORD_Q>(a, b))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn min_f64(a: __m256d, b: __m256d) -> __m256d {
    let smaller = _mm256_or_pd(_mm256_min_pd(a, b), _mm256_min_pd(b, a));
    _mm256_or_pd(smaller, _mm256_cmp_pd::<_CMP_UNORD_Q>(a, b))
}

/// The bits, with every NaN replaced by the canonical one.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn canonical(wide: __m256) -> __m256i {
    let is_nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(wide, wide);
    let nan = _mm256_castsi256_ps(_mm256_set1_epi32(super::NAN_F32 as i32));
    _mm256_castps_si256(_mm256_blendv_ps(wide, nan, is_nan))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn canonical_f64(wide: __m256d) -> __m256i {
    let is_nan = _mm256_cmp_pd::<_CMP_UNORD_Q>(wide, wide);
    let nan = _mm256_castsi256_pd(_mm256_set1_epi64x(super::NAN_F64 as i64));
    _mm256_castpd_si256(_mm256_blendv_pd(wide, nan, is_nan))
}

/// The lower half, then the upper one. The conversion keeps subnormals.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_f16(stored: __m256i) -> [__m256; 2] {
    let upper = _mm256_extracti128_si256::<1>(stored);
    [_mm256_cvtph_ps(_mm256_castsi256_si128(stored)), _mm256_cvtph_ps(upper)]
}

/// The canonical NaN of f32 becomes the one of f16.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn narrow_f16(halves: [__m256; 2]) -> __m256i {
    let [lower, upper] =
        halves.map(|half| _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_castsi256_ps(canonical(half))));
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lower), upper)
}

/// Even elements, then odd ones: a shift or a mask each, where going in order would have to cross lanes.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_bf16(stored: __m256i) -> [__m256; 2] {
    let even = _mm256_slli_epi32::<16>(stored);
    let odd = _mm256_and_si256(stored, _mm256_set1_epi32(0xFFFF_0000_u32 as i32));
    [_mm256_castsi256_ps(even), _mm256_castsi256_ps(odd)]
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn narrow_bf16([even, odd]: [__m256; 2]) -> __m256i {
    let even = _mm256_srli_epi32::<16>(round_to_upper_half(even));
    _mm256_blend_epi16::<0b1010_1010>(even, round_to_upper_half(odd))
}

/// Rounds to nearest even so that the upper 16 bits are the bf16; the lower ones are left over. Adding just under
/// half, or half if the last kept bit is 1, carries exactly when rounding up is right.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn round_to_upper_half(wide: __m256) -> __m256i {
    let bits = _mm256_castps_si256(wide);
    let last_kept = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(last_kept, _mm256_set1_epi32(0x7FFF)));
    let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(wide, wide));
    _mm256_blendv_epi8(rounded, _mm256_set1_epi32(super::NAN_F32 as i32), is_nan)
}

/// Every fourth element from the first, the second, the third and the fourth on, for the reason of bf16.
type Quarters = [[__m256; 2]; 2];

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_f8(stored: __m256i, format: &Float8) -> Quarters {
    let [a, b] = [stored, _mm256_srli_epi32::<8>(stored)].map(|stored| widen_low_f8(stored, format));
    let [c, d] = [_mm256_srli_epi32::<16>(stored), _mm256_srli_epi32::<24>(stored)]
        .map(|stored| widen_low_f8(stored, format));
    [[a, b], [c, d]]
}

/// Widens the lowest byte of each word.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_low_f8(stored: __m256i, format: &Float8) -> __m256 {
    let magnitude = _mm256_and_si256(stored, _mm256_set1_epi32(0x7F));
    let sign = _mm256_slli_epi32::<24>(_mm256_and_si256(stored, _mm256_set1_epi32(0x80)));
    let shifted = _mm256_sllv_epi32(magnitude, _mm256_set1_epi32(format.shift));
    let value = _mm256_mul_ps(_mm256_castsi256_ps(shifted), _mm256_set1_ps(format.scale));
    let not_finite = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(format.beyond - 1));
    let exponent = _mm256_and_si256(not_finite, _mm256_set1_epi32(0x7F80_0000));
    let value = _mm256_or_si256(_mm256_castps_si256(value), exponent);
    _mm256_castsi256_ps(_mm256_or_si256(value, sign))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn narrow_f8([[a, b], [c, d]]: Quarters, format: &Float8) -> __m256i {
    let [a, b] = [a, b].map(|wide| narrow_low_f8(wide, format));
    let [c, d] = [c, d].map(|wide| narrow_low_f8(wide, format));
    let lower = _mm256_or_si256(a, _mm256_slli_epi32::<8>(b));
    let upper = _mm256_or_si256(c, _mm256_slli_epi32::<8>(d));
    _mm256_or_si256(lower, _mm256_slli_epi32::<16>(upper))
}

/// Narrows into the lowest byte of each word, the others 0.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn narrow_low_f8(wide: __m256, format: &Float8) -> __m256i {
    let bits = _mm256_castps_si256(wide);
    let magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFF_FFFF));
    let sign = _mm256_and_si256(_mm256_srli_epi32::<24>(bits), _mm256_set1_epi32(0x80));
    let is_subnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(format.least_normal), magnitude);
    let subnormal = _mm256_add_ps(_mm256_castsi256_ps(magnitude), _mm256_set1_ps(format.magic));
    let subnormal =
        _mm256_sub_epi32(_mm256_castps_si256(subnormal), _mm256_set1_epi32(format.magic.to_bits() as i32));
    let shift = _mm256_set1_epi32(format.shift);
    let rebased = _mm256_sub_epi32(magnitude, _mm256_set1_epi32(format.rebase));
    let is_odd = _mm256_and_si256(_mm256_srlv_epi32(rebased, shift), _mm256_set1_epi32(1));
    let carry = _mm256_add_epi32(is_odd, _mm256_set1_epi32(format.under_half()));
    let normal = _mm256_srlv_epi32(_mm256_add_epi32(rebased, carry), shift);
    let rounded = _mm256_blendv_epi8(normal, subnormal, is_subnormal);
    let rounded = _mm256_min_epu32(rounded, _mm256_set1_epi32(format.beyond));
    let is_nan = _mm256_or_si256(
        _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7F80_0000)),
        _mm256_cmpeq_epi32(rounded, _mm256_set1_epi32(format.nan)),
    );
    _mm256_blendv_epi8(_mm256_or_si256(rounded, sign), _mm256_set1_epi32(format.nan), is_nan)
}
