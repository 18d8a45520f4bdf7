//! Records found by number, whose places are used again.

use std::ops::{Index, IndexMut};
use ubccl_core::prefetch::prefetch_at;

/// No record.
pub(super) const NONE: u32 = u32::MAX;

/// Records of one kind. A removed record stays where it is until its place is needed.
#[derive(Debug)]
pub(super) struct Slab<T> {
    records: Vec<T>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Slab { records: Vec::new(), free: Vec::new() }
    }

    #[inline]
    pub(super) fn insert(&mut self, record: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self.records[id as usize] = record;
            return id;
        }
        let id = self.records.len();
        assert!(id < NONE as usize, "more than 2^32 - 2 records in a simulated world");
        self.records.push(record);
        id as u32
    }

    /// Has a record fetched that will be wanted soon.
    #[inline]
    pub(super) fn foresee(&self, id: u32) {
        prefetch_at(&self.records, id as usize);
    }

    #[inline]
    pub(super) fn remove(&mut self, id: u32) {
        self.free.push(id);
    }

    /// Every number that was ever used, removed or not.
    pub(super) fn ids(&self) -> std::ops::Range<u32> {
        0..self.records.len() as u32
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.len() == self.free.len()
    }

    /// Bytes of memory it has taken.
    pub(super) fn bytes(&self) -> usize {
        self.records.capacity() * size_of::<T>() + self.free.capacity() * size_of::<u32>()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.records.len() - self.free.len()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, id: u32) -> &T {
        &self.records[id as usize]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.records[id as usize]
    }
}
