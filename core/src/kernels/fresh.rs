//! Copies of what another processor has just written.
#![allow(unsafe_code)] // raw addresses, vector instructions

use super::copy;

/// Up to here the C library's memcpy uses vectors too, and knows more about short lengths.
#[cfg(target_arch = "x86_64")]
const SHORTEST: usize = 256;

/// Copies `bytes` from `src`, which another processor has just written and will write again, to `dst`: by vector loads in
/// rising order.
///
/// The C library's memcpy may use a string instruction for a few KiB and more. In some runs, and not in others, what that has
/// read is left in a state in which the writer's next stores to it cost several times as much. Measured on Zen 4, glibc 2.36,
/// in slots of 8 KiB that go round through 2 MiB: 64 KiB from one processor to another in 2.7 or 6.9 us by memcpy or by
/// `rep movsb` at the reader, in 2.2 to 2.5 by this, whatever the writer uses; 512 KiB in 18 or 48, and in 15 to 17.
///
/// # Safety
/// As for [`copy`].
#[inline]
pub unsafe fn copy_fresh(src: *const u8, dst: *mut u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    if bytes >= SHORTEST && src != dst.cast_const() {
        match super::Level::best().0 {
            // SAFETY: the caller's promises are the ones asked for, and this level's processors have the instructions; it
            // is long enough.
            super::Isa::Avx512 => return unsafe { x86::copy_avx512(src, dst, bytes) },
            // SAFETY: the same.
            super::Isa::Avx2 => return unsafe { x86::copy_avx2(src, dst, bytes) },
            super::Isa::Scalar => {}
        }
    }
    // SAFETY: as the caller vouches.
    unsafe { copy(src, dst, bytes) }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_loadu_si512, _mm512_storeu_si512,
    };

    /// Defines a copy by one kind of vector: whole ones, and at last one that ends where the bytes end.
    macro_rules! copy_by {
        ($name:ident, $feature:literal, $vector:ty, $load:ident, $store:ident) => {
            /// # Safety
            /// As for `copy`; not the same address, at least a vector long, and the processor has the feature.
            #[target_feature(enable = $feature)]
            pub(super) unsafe fn $name(src: *const u8, dst: *mut u8, bytes: usize) {
                let copy_at = |at: usize| {
                    let (from, into) = (src.wrapping_add(at), dst.wrapping_add(at));
                    // SAFETY: a vector from `at` on is a part of what the caller vouches for; unaligned ones will do.
                    unsafe { $store(into.cast::<$vector>(), $load(from.cast::<$vector>())) };
                };
                let last = bytes - size_of::<$vector>();
                for at in (0..last).step_by(size_of::<$vector>()) {
                    copy_at(at);
                }
                copy_at(last);
            }
        };
    }

    copy_by!(copy_avx2, "avx2", __m256i, _mm256_loadu_si256, _mm256_storeu_si256);
    copy_by!(copy_avx512, "avx512f", __m512i, _mm512_loadu_si512, _mm512_storeu_si512);
}

#[cfg(test)]
mod tests {
    use super::super::tests::copies_every_length_and_alignment;
    use super::*;

    #[test]
    fn every_length_and_alignment_is_copied_and_nothing_else() {
        copies_every_length_and_alignment(|src, dst, bytes| {
            // SAFETY: as `copies_every_length_and_alignment` says.
            unsafe { copy_fresh(src, dst, bytes) }
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_kind_of_vector_does() {
        type Copy = unsafe fn(*const u8, *mut u8, usize);
        for level in super::super::Level::available() {
            let by_vectors: Copy = match level.0 {
                super::super::Isa::Scalar => continue,
                super::super::Isa::Avx2 => x86::copy_avx2,
                super::super::Isa::Avx512 => x86::copy_avx512,
            };
            copies_every_length_and_alignment(|src, dst, bytes| {
                if bytes >= SHORTEST {
                    // SAFETY: as `copies_every_length_and_alignment` says; the processor has this level.
                    unsafe { by_vectors(src, dst, bytes) }
                } else {
                    // SAFETY: the same.
                    unsafe { copy(src, dst, bytes) }
                }
            });
        }
    }
}
