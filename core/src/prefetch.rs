//! Hints to the processor that memory will be wanted soon.
//!
//! A simulated world of many ranks is larger than caches, and each rank's share of an event is little: the time goes into
//! waiting for memory, unless what comes soon is fetched while something else is done.
#![allow(unsafe_code)] // an instruction that takes an address

/// Bytes of a cache line.
const LINE: usize = 64;

/// Has all of `wanted` fetched. It is not looked at.
#[inline]
pub fn prefetch<T: ?Sized>(wanted: &T) {
    let (first, bytes) = (std::ptr::from_ref(wanted).cast::<u8>(), size_of_val(wanted));
    (0..bytes).step_by(LINE).for_each(|offset| prefetch_line(first.wrapping_add(offset)));
    // It may begin in the middle of a line.
    prefetch_line(first.wrapping_add(bytes.saturating_sub(1)));
}

/// Has an entry of a list fetched, if it exists.
#[inline]
pub fn prefetch_at<T>(list: &[T], index: usize) {
    if let Some(wanted) = list.get(index) {
        prefetch(wanted);
    }
}

/// Has the line fetched that an address is in, whatever is there.
#[inline]
pub fn prefetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program could see and never faults; every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
