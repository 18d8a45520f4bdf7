//! Memory with guard bytes, as a test registers it.
#![allow(unsafe_code)] // an endpoint writes this memory by address, so tests may not hold references to it

use std::alloc::{Layout, alloc, dealloc};
use ubccl_core::endpoint::{Allocation, HostPointer, Memory, RegionId, Span};

/// Guard bytes before and after the part that tests use. Odd, so that no span is aligned by luck.
const GUARD: usize = 61;

/// A registered piece of memory: a guard, the bytes in use, a guard. The region covers all three.
pub struct Area {
    base: *mut u8,
    len: usize,
    region: RegionId,
    /// What the memory is part of, if an endpoint gave it out.
    allocation: Option<Box<dyn Allocation>>,
}

impl Area {
    /// `len` bytes in use, filled with the byte 0xEE.
    pub fn new(region: RegionId, len: usize) -> Self {
        // SAFETY: the layout is never empty, because the guards are not.
        let base = unsafe { alloc(Self::layout(len)) };
        assert!(!base.is_null(), "no memory for {len} bytes");
        Self::over(base, (region, len), None)
    }

    /// Bytes that an area of so many takes, with its guards.
    pub fn bytes(len: usize) -> u64 {
        (len + 2 * GUARD) as u64
    }

    /// The same in memory that an endpoint gave out for [`Area::bytes`] of `len`.
    pub fn within(region: RegionId, len: usize, allocation: Box<dyn Allocation>) -> Self {
        let base = std::ptr::with_exposed_provenance_mut(allocation.address().0);
        Self::over(base, (region, len), Some(allocation))
    }

    fn over(
        base: *mut u8,
        (region, len): (RegionId, usize),
        allocation: Option<Box<dyn Allocation>>,
    ) -> Self {
        let area = Area { base, len, region, allocation };
        for at in 0..len + 2 * GUARD {
            area.put(at, if area.is_guard(at) { guard_byte(at) } else { 0xEE });
        }
        area
    }

    /// What to register.
    pub fn memory(&self) -> Memory {
        let address = HostPointer(self.base.expose_provenance());
        Memory::Host { address, len: (self.len + 2 * GUARD) as u64 }
    }

    /// The region's name.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// Bytes in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// A range of the bytes in use.
    pub fn span(&self, offset: usize, len: usize) -> Span {
        assert!(offset + len <= self.len, "a test names a span outside its area");
        Span { region: self.region, offset: (GUARD + offset) as u64, len: len as u64 }
    }

    /// All bytes in use.
    pub fn all(&self) -> Span {
        self.span(0, self.len)
    }

    /// Overwrites a range.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len);
        // SAFETY: the destination lies inside the allocation, as just checked, and `bytes` is another allocation.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(offset), bytes.len()) };
    }

    /// Copies a range out.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len);
        let mut bytes = vec![0; len];
        // SAFETY: the source lies inside the allocation, as just checked, and `bytes` is another allocation.
        unsafe { std::ptr::copy_nonoverlapping(self.at(offset), bytes.as_mut_ptr(), len) };
        bytes
    }

    /// Panics unless the range from `offset` on holds `expected`.
    #[track_caller]
    pub fn assert_holds(&self, offset: usize, expected: &[u8], what: &str) {
        let found = self.read(offset, expected.len());
        if let Some(at) = (0..found.len()).find(|&at| found[at] != expected[at]) {
            let wrong = (at..found.len()).filter(|&at| found[at] != expected[at]).count();
            let (got, want) = (found[at], expected[at]);
            let len = found.len();
            panic!("{what}: wrong bytes: {wrong} of {len}, the first at {at}: {got:#04x}, not {want:#04x}");
        }
    }

    /// Panics if a guard byte has changed.
    pub fn assert_guards(&self, who: &str) {
        for at in (0..self.len + 2 * GUARD).filter(|&at| self.is_guard(at)) {
            let byte = self.get(at);
            let offset = at as i64 - GUARD as i64;
            assert_eq!(
                byte,
                guard_byte(at),
                "{who}: guard byte overwritten at offset {offset} of {}",
                self.len
            );
        }
    }

    fn at(&self, offset: usize) -> *mut u8 {
        self.base.wrapping_add(GUARD + offset)
    }

    fn is_guard(&self, at: usize) -> bool {
        at < GUARD || at >= GUARD + self.len
    }

    fn get(&self, at: usize) -> u8 {
        assert!(at < self.len + 2 * GUARD);
        let byte = self.base.wrapping_add(at);
        // SAFETY: inside the allocation, as just checked, and written by `new`.
        unsafe { byte.read() }
    }

    fn put(&self, at: usize, value: u8) {
        assert!(at < self.len + 2 * GUARD);
        let byte = self.base.wrapping_add(at);
        // SAFETY: inside the allocation, as just checked.
        unsafe { byte.write(value) };
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len + 2 * GUARD, 64).expect("tests use small sizes")
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        if self.allocation.is_some() {
            return;
        }
        // SAFETY: allocated by `new` with this layout; the endpoint that knew the address is gone before.
        unsafe { dealloc(self.base, Self::layout(self.len)) };
    }
}

fn guard_byte(at: usize) -> u8 {
    (at as u8).wrapping_mul(37) ^ 0x5A
}

/// Bytes that differ for every seed and place.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = vec![0; len];
    for chunk in bytes.chunks_mut(8) {
        let word = random.word().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    bytes
}

/// A small seeded generator (splitmix64): the same numbers on every rank and machine.
#[derive(Clone, Copy)]
pub struct Random(pub u64);

impl Random {
    /// The next word.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}
