//! Memory that this rank's peers read and write in place: ranges of the heap behind its segment.
//!
//! Peers have mapped the heap since they met, so an allocation tells nobody, and an address in it is announced as its
//! offset. Pages come at allocation, near the rank that allocates, and go when the memory is freed.
#![allow(unsafe_code)] // gives pages of shared memory back

use super::segment::{HEAP_STEP, Segment};
use memmap2::Advice;
use parking_lot::Mutex;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::Arc;
use ubccl_core::endpoint::{Allocation, HostPointer};
use ubccl_core::{Error, Result};

/// What allocations consist of, so that no two share a page.
const PAGE: usize = 4096;

/// The heap of one rank, as itself sees it. Cheap to share.
#[derive(Clone, Debug)]
pub(crate) struct Heap(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    segment: Arc<Segment>,
    free: Mutex<Free>,
}

/// The ranges that nobody has, none next to another.
#[derive(Debug)]
struct Free {
    /// Length by offset.
    ranges: BTreeMap<usize, usize>,
    /// Bytes that somebody has.
    taken: usize,
}

impl Heap {
    /// The heap of this rank's own segment, all free.
    pub(crate) fn new(segment: Arc<Segment>) -> Self {
        let whole = (0, segment.heap_len());
        let ranges = [whole].into_iter().filter(|range| range.1 > 0).collect();
        Heap(Arc::new(Shared { segment, free: Mutex::new(Free { ranges, taken: 0 }) }))
    }

    /// Bytes that are allocated.
    pub(crate) fn taken(&self) -> u64 {
        self.0.free.lock().taken as u64
    }

    /// Memory of so many bytes, zeroed; none if the heap has no range that long.
    ///
    /// Errors: System, if there are no pages for it.
    pub(crate) fn allocate(&self, bytes: u64) -> Result<Option<Block>> {
        let Ok(bytes) = usize::try_from(bytes) else { return Ok(None) };
        let Some((offset, len)) = self.0.free.lock().take(bytes) else { return Ok(None) };
        let block = Block { heap: self.clone(), offset, len };
        block.populate()?;
        Ok(Some(block))
    }
}

impl Free {
    /// The first range that is long enough; long ones begin where a huge page may.
    fn take(&mut self, bytes: usize) -> Option<(usize, usize)> {
        let step = if bytes >= HEAP_STEP { HEAP_STEP } else { PAGE };
        let len = bytes.max(1).checked_next_multiple_of(step)?;
        let fits = |(&start, &room): (&usize, &usize)| {
            let offset = start.next_multiple_of(step);
            (offset + len <= start + room).then_some((start, offset))
        };
        let (start, offset) = self.ranges.iter().find_map(fits)?;
        let room = self.ranges.remove(&start).expect("it was just found");
        let pieces = [(start, offset - start), (offset + len, start + room - offset - len)];
        self.ranges.extend(pieces.into_iter().filter(|piece| piece.1 > 0));
        self.taken += len;
        Some((offset, len))
    }

    fn give_back(&mut self, offset: usize, len: usize) {
        self.taken -= len;
        let (mut start, mut room) = (offset, len);
        if let Some((&before, &length)) = self.ranges.range(..offset).next_back()
            && before + length == offset
        {
            self.ranges.remove(&before);
            (start, room) = (before, length + len);
        }
        if let Some(length) = self.ranges.remove(&(offset + len)) {
            room += length;
        }
        self.ranges.insert(start, room);
    }
}

/// A range of a heap that is somebody's; given back when dropped.
#[derive(Debug)]
pub(crate) struct Block {
    heap: Heap,
    offset: usize,
    len: usize,
}

impl Block {
    /// Brings the pages in, so that memory that is missing is an error now and not a signal later.
    fn populate(&self) -> Result<()> {
        let segment = &self.heap.0.segment;
        // Best effort: where the system gives huge pages to shared memory that asks for them.
        let _ = segment.advise_heap(Advice::HugePage, self.offset, self.len);
        match segment.advise_heap(Advice::PopulateWrite, self.offset, self.len) {
            Ok(()) => Ok(()),
            // Before Linux 5.14 pages come when they are touched.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
            Err(error) => {
                let advice = "free memory, or raise the limit of the container";
                Err(Error::system(format!("{} bytes of shared memory refused ({advice})", self.len), error))
            }
        }
    }
}

impl Allocation for Block {
    fn address(&self) -> HostPointer {
        let range = self.heap.0.segment.heap_range(self.offset as u64, self.len as u64);
        HostPointer(range.expect("the heap gave it out").expose_provenance())
    }

    fn place(&self) -> u64 {
        self.offset as u64
    }
}

/// A range of a peer's heap, as this rank sees it. It is the peer's to give back.
#[derive(Debug)]
pub(crate) struct Theirs {
    first: HostPointer,
    place: u64,
    /// Keeps the mapping.
    _segment: Arc<Segment>,
}

impl Theirs {
    /// The range, if it lies in the heap.
    pub(crate) fn find(segment: &Arc<Segment>, place: u64, bytes: u64) -> Option<Theirs> {
        let first = HostPointer(segment.heap_range(place, bytes)?.expose_provenance());
        place.is_multiple_of(PAGE as u64).then(|| Theirs { first, place, _segment: segment.clone() })
    }
}

impl Allocation for Theirs {
    fn address(&self) -> HostPointer {
        self.first
    }

    fn place(&self) -> u64 {
        self.place
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the range is this block's alone and nobody reads it any more, so it may become zeros, for the next one
        // to find. A peer that should not read it still may: it gets zeros.
        let gone = unsafe { self.heap.0.segment.remove_heap(self.offset, self.len) };
        match gone {
            Ok(()) => self.heap.0.free.lock().give_back(self.offset, self.len),
            // What the kernel keeps nobody gets again: it would not be zeroed.
            Err(error) => tracing::debug!(target: "ubccl::shm", %error, "shared memory was not given back"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn free(bytes: usize) -> Free {
        Free { ranges: [(0, bytes)].into(), taken: 0 }
    }

    proptest! {
        #[test]
        fn ranges_are_apart_aligned_and_come_back(asks in prop::collection::vec((1_usize..3 * HEAP_STEP, any::<bool>()), 1..60)) {
            let whole = 16 * HEAP_STEP;
            let mut free = free(whole);
            let mut taken: Vec<(usize, usize)> = Vec::new();
            for (bytes, drop_one) in asks {
                if drop_one && !taken.is_empty() {
                    let (offset, len) = taken.swap_remove(bytes % taken.len());
                    free.give_back(offset, len);
                } else if let Some((offset, len)) = free.take(bytes) {
                    prop_assert!(len >= bytes && offset + len <= whole);
                    let step = if bytes >= HEAP_STEP { HEAP_STEP } else { PAGE };
                    prop_assert!(offset.is_multiple_of(step));
                    prop_assert!(taken.iter().all(|&(at, n)| at + n <= offset || offset + len <= at));
                    taken.push((offset, len));
                }
                prop_assert_eq!(free.taken, taken.iter().map(|range| range.1).sum::<usize>());
            }
            taken.into_iter().for_each(|(offset, len)| free.give_back(offset, len));
            prop_assert_eq!(free.ranges, BTreeMap::from([(0, whole)]));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut free = free(HEAP_STEP);
        assert_eq!(free.take(usize::MAX), None);
        assert_eq!(free.take(HEAP_STEP + 1), None);
        assert_eq!(free.take(HEAP_STEP), Some((0, HEAP_STEP)));
        assert_eq!(free.take(1), None);
        free.give_back(0, HEAP_STEP);
        assert_eq!(free.take(0), Some((0, PAGE)));
    }
}
