//! A rank's outbox: sealed anonymous memory that it writes and its peers map. Behind what `geometry` lays out lies the
//! rank's heap: address space for memory that its peers are to read and write in place (`heap`). It costs nothing before
//! somebody allocates there.
#![allow(unsafe_code)] // shared memory becomes words and pointers here

use super::geometry::Geometry;
use crate::local::bell::Words;
use crate::local::doorbell::Doorbell;
use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::{Resource, getrlimit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use ubccl_core::{Error, ErrorKind, Result};

/// "ubcclshm" and the version of the layout and the protocols in a segment.
const MAGIC: u64 = u64::from_le_bytes(*b"ubcclshm");
/// The version; a change of anything that two processes must agree on changes it.
pub(crate) const VERSION: u32 = 5;

/// Nobody can cut the memory away under a reader, and nobody can take the seals off.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// What heaps begin at and consist of: a page table's worth, so that huge pages fit.
pub(crate) const HEAP_STEP: usize = 2 << 20;

/// A mapped segment.
#[derive(Debug)]
pub(crate) struct Segment {
    map: MmapRaw,
    /// Bytes that the geometry lays out.
    control: usize,
    /// Where the heap begins: behind them.
    heap: usize,
    /// Its owner's: what is mapped.
    file: Option<OwnedFd>,
}

impl Segment {
    /// Makes this rank's own.
    pub(crate) fn create(rank: u32, geometry: &Geometry) -> Result<(Segment, OwnedFd)> {
        let refused = |what: &str, advice: &str, errno: std::io::Error| {
            Error::system(format!("rank {rank}: {what} refused ({advice})"), errno)
        };
        let control = geometry.segment_bytes();
        let bytes = control.next_multiple_of(HEAP_STEP) + heap_bytes(geometry.ranks());
        let file = memfd().map_err(|errno| {
            let advice = "allow it in the sandbox, raise the limit of open files, or use another transport";
            refused("memfd_create", advice, errno.into())
        })?;
        ftruncate(&file, bytes as u64).map_err(|errno| {
            let advice = format!("{bytes} bytes; raise the file size limit or give fewer bytes per pair");
            refused("memory of the segment", &advice, errno.into())
        })?;
        fcntl_add_seals(&file, SEALS)
            .map_err(|errno| refused("sealing the segment", "allow fcntl", errno.into()))?;
        let advice = "raise the limit of address space or give fewer bytes per pair";
        let segment = Self::map(file.as_fd(), control, bytes)
            .map_err(|error| refused("mapping the segment", advice, error))?;
        segment.write_header(rank);
        Ok((segment, file))
    }

    /// Maps a peer's, once everything that later code relies on has been checked.
    pub(crate) fn open(peer: u32, file: BorrowedFd<'_>, geometry: &Geometry) -> Result<Segment> {
        let control = geometry.segment_bytes();
        let wrong = |what: String| {
            let advice = "all ranks need the same build of ubccl";
            Error::new(ErrorKind::Start, format!("the segment of rank {peer} is not one: {what}; {advice}"))
        };
        let seals =
            fcntl_get_seals(file).map_err(|errno| wrong(format!("its seals are unknown ({errno})")))?;
        if !seals.contains(SEALS) {
            return Err(wrong("it is not sealed".into()));
        }
        let found = fstat(file).map_err(|errno| wrong(format!("its size is unknown ({errno})")))?.st_size;
        // How long the heap is, is its owner's to say: beyond the geometry's bytes any size will do.
        let least = control.next_multiple_of(HEAP_STEP);
        let bytes = usize::try_from(found).ok().filter(|&bytes| bytes >= least && bytes % HEAP_STEP == 0);
        let Some(bytes) = bytes else {
            return Err(wrong(format!("it has {found} bytes, expected {least} and a heap")));
        };
        let segment = Self::map(file, control, bytes).map_err(|error| {
            let advice = "raise the limit of address space or give fewer bytes per pair";
            Error::system(format!("mapping the segment of rank {peer} refused ({advice})"), error)
        })?;
        let header = segment.header();
        let expected = expected_header(peer, control, bytes);
        if header != expected {
            return Err(wrong(format!("its header is {header:x?}, expected {expected:x?}")));
        }
        Ok(segment)
    }

    fn map(file: BorrowedFd<'_>, control: usize, bytes: usize) -> std::io::Result<Segment> {
        let map = MmapOptions::new().len(bytes).no_reserve_swap().map_raw(&file)?;
        // Best effort: a core of this process need not look through everybody's memory.
        let _ = map.advise(Advice::DontDump);
        Ok(Segment { map, control, heap: control.next_multiple_of(HEAP_STEP), file: None })
    }

    /// Keeps its file, to take pages of the heap back from peers that do not let go of them ([`Segment::detach_heap`]).
    pub(crate) fn keep(&mut self, file: OwnedFd) {
        self.file = Some(file);
    }

    fn write_header(&self, rank: u32) {
        for (at, value) in expected_header(rank, self.control, self.map.len()).into_iter().enumerate() {
            // Relaxed: the socket that carries the descriptor orders it.
            self.word(at * 8).store(value, Ordering::Relaxed);
        }
        let address = self.map.as_mut_ptr().expose_provenance() as u64;
        self.word(Geometry::ADDRESS).store(address, Ordering::Relaxed);
    }

    /// Where its owner says it has it mapped.
    pub(crate) fn address_of_owner(&self) -> u64 {
        // Relaxed: as the header.
        self.word(Geometry::ADDRESS).load(Ordering::Relaxed)
    }

    pub(crate) fn header(&self) -> [u64; 4] {
        [0, 8, 16, 24].map(|at| self.word(at).load(Ordering::Relaxed))
    }

    /// How often this rank has taken back what it announced (`announcements`).
    #[inline]
    pub(crate) fn epoch(&self) -> &AtomicU64 {
        self.word(Geometry::EPOCH)
    }

    /// Whether this rank is at work in its peers' heaps (`one_pass`).
    #[inline]
    pub(crate) fn visiting(&self) -> &AtomicU64 {
        self.word(Geometry::VISITING)
    }

    /// Where all of it is mapped, the heap included.
    pub(crate) fn addresses(&self) -> std::ops::Range<usize> {
        let first = self.map.as_mut_ptr().addr();
        first..first + self.map.len()
    }

    /// Bytes of the heap.
    pub(crate) fn heap_len(&self) -> usize {
        self.map.len() - self.heap
    }

    /// The address of a range of the heap, if it lies inside: what a peer says is not believed.
    #[inline]
    pub(crate) fn heap_range(&self, offset: u64, len: u64) -> Option<*mut u8> {
        let end = offset.checked_add(len)?;
        (end <= self.heap_len() as u64)
            .then(|| self.map.as_mut_ptr().wrapping_add(self.heap).wrapping_add(offset as usize))
    }

    /// Where in the heap memory of this process lies, if it does.
    #[inline]
    pub(crate) fn heap_offset(&self, address: usize, len: u64) -> Option<u64> {
        let first = self.map.as_mut_ptr().addr() + self.heap;
        let offset = address.checked_sub(first)? as u64;
        (offset.checked_add(len)? <= self.heap_len() as u64).then_some(offset)
    }

    /// Advises the kernel about a range of the heap.
    pub(crate) fn advise_heap(&self, advice: Advice, offset: usize, len: usize) -> std::io::Result<()> {
        self.map.advise_range(advice, self.heap + offset, len)
    }

    /// Has the pages of a range, from `first` on, made now and not by the first messages, each of which would wait for some.
    /// To be written: the owner's; to be read: a peer's, which has made them. Best effort: a kernel that does not know how
    /// (before Linux 5.14) makes them when they are touched. (Measured, all-reduce of 8 KiB in runs of 20 calls: 25 -> 3.8 us.)
    #[cold]
    pub(crate) fn populate(&self, advice: Advice, first: *mut u8, len: usize) {
        let offset = first.addr() - self.map.as_mut_ptr().addr();
        if let Err(error) = self.map.advise_range(advice, offset, len) {
            tracing::debug!(target: "ubccl::shm", "{len} bytes at {offset} are not populated: {error}");
        }
    }

    /// Gives the pages of a range of the heap back; it holds zeros then.
    ///
    /// # Safety
    /// Nobody relies on what the range holds.
    pub(crate) unsafe fn remove_heap(&self, offset: usize, len: usize) -> std::io::Result<()> {
        // SAFETY: the mapping is shared and stays as it is; its contents are nobody's, as the caller vouches.
        unsafe { self.map.unchecked_advise_range(UncheckedAdvice::Remove, self.heap + offset, len) }
    }

    /// Makes the pages of a range of the heap this process's own, with what they hold: who still writes to the range by
    /// another mapping does not write here any more. In the segment's own process only, while it has the file.
    pub(crate) fn detach_heap(&self, offset: usize, len: usize) -> std::io::Result<()> {
        let page = rustix::param::page_size();
        let first = (self.heap + offset) / page * page;
        let len = (self.heap + offset + len).next_multiple_of(page) - first;
        assert!(first >= self.heap && first + len <= self.map.len(), "{offset} + {len} is outside the heap");
        let file = self.file.as_ref().ok_or(Errno::BADF)?;
        let pages = self.map.as_mut_ptr().wrapping_add(first);
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
        // SAFETY: whole pages of this mapping, which stay mapped to the same bytes of the same file: whoever holds a pointer
        // there finds what it found before, and what other threads write meanwhile stays, in the file or here.
        unsafe { mmap(pages.cast(), len, protection, flags, file, first as u64) }?;
        for at in (0..len).step_by(page) {
            // SAFETY: a byte of the range; other processes have no part in it once it is written.
            let byte = unsafe { AtomicU8::from_ptr(pages.wrapping_add(at)) };
            // Writes what is there: from now on the page is a copy. (An addition of nothing may be compiled to a load.)
            let write = |value| byte.compare_exchange(value, value, Ordering::Relaxed, Ordering::Relaxed);
            while write(byte.load(Ordering::Relaxed)).is_err() {}
        }
        Ok(())
    }

    /// The word at this offset.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        let word = self.range(offset, 8).cast::<u64>();
        assert!(word.is_aligned());
        // SAFETY: `range` keeps it inside the mapping, which lives as long as `self`; aligned as just checked; every
        // process touches the word by atomic operations only, and zeroed or garbage bits are a valid u64.
        unsafe { AtomicU64::from_ptr(word) }
    }

    /// The two halves of the word at this offset.
    #[inline]
    fn half_words(&self, offset: usize) -> &[AtomicU32; 2] {
        let words = self.range(offset, 8).cast::<[AtomicU32; 2]>();
        assert!(words.is_aligned());
        // SAFETY: as in `word`, of words of half the size.
        unsafe { &*words }
    }

    /// The address of a range that lies inside; only a bug can ask for another.
    #[inline]
    pub(crate) fn range(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.control),
            "{offset} + {len} is outside"
        );
        self.map.as_mut_ptr().wrapping_add(offset)
    }

    /// Bytes, without the heap.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn len(&self) -> usize {
        self.control
    }
}

impl Words for Segment {
    #[inline]
    fn doorbell(&self) -> Doorbell<'_, AtomicU32> {
        let [rings, flags] = self.half_words(Geometry::DOORBELL);
        Doorbell { rings, flags }
    }
}

fn expected_header(rank: u32, control: usize, bytes: usize) -> [u64; 4] {
    [MAGIC, u64::from(VERSION) << 32 | u64::from(rank), control as u64, bytes as u64]
}

/// Address space for a rank's heap: twice its share of the host's memory, since some allocate more than others, but no
/// more than all of it. None for a rank that is alone, and none where address space or files are limited.
fn heap_bytes(ranks: usize) -> usize {
    let is_limited = |resource| getrlimit(resource).current.is_some();
    if ranks < 2 || is_limited(Resource::As) || is_limited(Resource::Fsize) {
        return 0;
    }
    let system = rustix::system::sysinfo();
    let memory = (system.totalram as usize).saturating_mul(system.mem_unit as usize);
    (memory / ranks * 2).min(memory) / HEAP_STEP * HEAP_STEP
}

/// Anonymous memory that cannot be executed where the kernel knows how to say so (Linux 6.3; elsewhere it may insist).
fn memfd() -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create("ubccl", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("ubccl", flags),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubccl_core::endpoint::ConnectOptions;

    fn geometry(ranks: u32) -> Geometry {
        Geometry::new(ranks, &ConnectOptions::default()).unwrap()
    }

    #[test]
    fn a_segment_opens_for_its_own_rank_and_size_only() {
        let (_segment, file) = Segment::create(1, &geometry(3)).unwrap();
        assert!(Segment::open(1, file.as_fd(), &geometry(3)).is_ok());
        let error = Segment::open(2, file.as_fd(), &geometry(3)).unwrap_err().to_string();
        assert!(error.contains("header") && error.contains("rank 2"), "{error}");
        let error = Segment::open(1, file.as_fd(), &geometry(4)).unwrap_err().to_string();
        assert!(error.contains("header"), "{error}");
        for bytes in [0, HEAP_STEP as u64 - 1, HEAP_STEP as u64 + 4096] {
            let sealed = memfd().unwrap();
            ftruncate(&sealed, bytes).unwrap();
            fcntl_add_seals(&sealed, SEALS).unwrap();
            let error = Segment::open(1, sealed.as_fd(), &geometry(3)).unwrap_err().to_string();
            assert!(error.contains("bytes, expected"), "{error}");
        }
    }

    #[test]
    fn memory_that_could_be_cut_away_is_refused() {
        let file = memfd().unwrap();
        ftruncate(&file, geometry(2).segment_bytes() as u64).unwrap();
        let error = Segment::open(0, file.as_fd(), &geometry(2)).unwrap_err().to_string();
        assert!(error.contains("not sealed"), "{error}");
        let pipe = rustix::pipe::pipe().unwrap().0;
        assert!(Segment::open(0, pipe.as_fd(), &geometry(2)).is_err());
    }

    #[test]
    fn a_sealed_segment_cannot_shrink() {
        let (_segment, file) = Segment::create(0, &geometry(2)).unwrap();
        assert_eq!(ftruncate(&file, 4096), Err(Errno::PERM));
    }
}
