//! Copies that do not read the destination's lines before they write them.
#![allow(unsafe_code)] // raw addresses, vector instructions

/// Copies `bytes` from `src` to `dst` by stores that go past the caches, where the processor has them; by ordinary ones
/// elsewhere. Others who see a later store of this thread see what was written only if [`fence_streaming`] came between.
///
/// Worth it if the destination's lines are in another processor's cache and far away: an ordinary store has to fetch each of
/// them first, and few at a time.
///
/// # Safety
/// * `src` is readable and `dst` writable for `bytes`, and they do not overlap.
/// * Nobody writes `src`, and nobody else touches `dst`, until this returns.
#[inline]
pub unsafe fn copy_streaming(src: *const u8, dst: *mut u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promises are the ones asked for.
    unsafe {
        x86::copy(src, dst, bytes);
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: as the caller vouches.
    unsafe {
        src.copy_to_nonoverlapping(dst, bytes);
    }
}

/// Later stores of this thread are not seen before what it wrote by [`copy_streaming`]. It waits until memory has that, so
/// one for all pieces of a message costs less than one for each.
#[inline]
pub fn fence_streaming() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64; a fence touches no memory.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};

    const LINE: usize = 64;
    const PARTS: usize = LINE / size_of::<__m128i>();

    /// # Safety
    /// As for `copy_streaming`.
    pub(super) unsafe fn copy(src: *const u8, dst: *mut u8, bytes: usize) {
        let head = dst.align_offset(LINE).min(bytes);
        let lines = (bytes - head) / LINE;
        let tail = head + lines * LINE;
        // SAFETY: the head is a part of what the caller vouches for.
        unsafe { src.copy_to_nonoverlapping(dst, head) };
        for line in 0..lines {
            let at = head + line * LINE;
            let from = src.wrapping_add(at).cast::<__m128i>();
            let into = dst.wrapping_add(at).cast::<__m128i>();
            // SAFETY: a line's parts are inside it, and it is a part of what the caller vouches for. SSE2 is part of x86-64.
            let load = |part: usize| unsafe { _mm_loadu_si128(from.wrapping_add(part)) };
            let parts: [__m128i; PARTS] = std::array::from_fn(load);
            for (part, value) in parts.into_iter().enumerate() {
                // SAFETY: as above; the destination is aligned, because `head` ends at a multiple of 64.
                unsafe { _mm_stream_si128(into.wrapping_add(part), value) };
            }
        }
        let (src, dst) = (src.wrapping_add(tail), dst.wrapping_add(tail));
        // SAFETY: the tail is a part of what the caller vouches for.
        unsafe { src.copy_to_nonoverlapping(dst, bytes - tail) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::copies_every_length_and_alignment;
    use super::*;

    #[test]
    fn every_length_and_alignment_is_copied_and_nothing_else() {
        copies_every_length_and_alignment(|src, dst, bytes| {
            // SAFETY: as `copies_every_length_and_alignment` says.
            unsafe { copy_streaming(src, dst, bytes) }
        });
    }
}
