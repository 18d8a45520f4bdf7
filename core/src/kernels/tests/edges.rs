//! Buffers that end where unmapped memory begins, and begin where it ends: a kernel that touches a byte too many dies.

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::*;

const PAGE: usize = 64 << 10; // a multiple of every page size of Linux

/// One page between two that cannot be touched.
struct Page(*mut u8);

impl Page {
    fn new() -> Self {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel picks the address.
        let map = unsafe { mmap_anonymous(std::ptr::null_mut(), 3 * PAGE, access, MapFlags::PRIVATE) };
        let base = map.expect("three pages can be mapped").cast::<u8>();
        for edge in [0, 2] {
            let page = base.wrapping_add(edge * PAGE).cast();
            // SAFETY: the page is ours and nothing lives in it.
            unsafe { mprotect(page, PAGE, MprotectFlags::empty()) }.expect("our page can be protected");
        }
        Self(base.wrapping_add(PAGE))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the three pages of `new`; no pointer into them is used again.
        let _ = unsafe { munmap(self.0.wrapping_sub(PAGE).cast(), 3 * PAGE) };
    }
}

#[test]
fn no_byte_outside_the_buffers_is_touched() {
    let pages = [Page::new(), Page::new(), Page::new(), Page::new()];
    for (level, (dtype, op)) in Level::available().flat_map(|l| kernels().map(move |k| (l, k))) {
        for count in (0..200).chain([1000, 4099]) {
            for start in [0, PAGE - count * dtype.size()] {
                let [a, b, c, d] = [0, 1, 2, 3].map(|i| pages[i].0.wrapping_add(start));
                for sources in [&[a][..], &[a, b], &[a, b, c], &[d, a, b]] {
                    let sources: Vec<_> = sources.iter().map(|source| source.cast_const()).collect();
                    // SAFETY: all lie inside their pages.
                    unsafe { level.reduce(dtype, op, &sources, d, count) }.unwrap();
                }
            }
        }
    }
}
