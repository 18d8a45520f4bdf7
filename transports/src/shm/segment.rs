//! A rank's outbox: sealed anonymous memory that it writes and its peers map.
#![allow(unsafe_code)] // shared memory becomes words and pointers here

use super::geometry::Geometry;
use crate::local::bell::Words;
use crate::local::doorbell::Doorbell;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use ubccl_core::{Error, ErrorKind, Result};

/// "ubcclshm" and the version of the layout and the protocols in a segment.
const MAGIC: u64 = u64::from_le_bytes(*b"ubcclshm");
/// The version; a change of anything that two processes must agree on changes it.
pub(crate) const VERSION: u32 = 2;

/// Nobody can cut the memory away under a reader, and nobody can take the seals off.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// A mapped segment.
#[derive(Debug)]
pub(crate) struct Segment {
    map: MmapRaw,
}

impl Segment {
    /// Makes this rank's own.
    pub(crate) fn create(rank: u32, geometry: &Geometry) -> Result<(Segment, OwnedFd)> {
        let refused = |what: &str, advice: &str, errno: std::io::Error| {
            Error::system(format!("rank {rank}: {what} refused ({advice})"), errno)
        };
        let bytes = geometry.segment_bytes();
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
        let segment =
            Self::map(file.as_fd(), bytes).map_err(|error| refused("mapping the segment", advice, error))?;
        segment.write_header(rank, bytes);
        Ok((segment, file))
    }

    /// Maps a peer's, once everything that later code relies on has been checked.
    pub(crate) fn open(peer: u32, file: BorrowedFd<'_>, geometry: &Geometry) -> Result<Segment> {
        let bytes = geometry.segment_bytes();
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
        if u64::try_from(found) != Ok(bytes as u64) {
            return Err(wrong(format!("it has {found} bytes, expected {bytes}")));
        }
        let segment = Self::map(file, bytes).map_err(|error| {
            let advice = "raise the limit of address space or give fewer bytes per pair";
            Error::system(format!("mapping the segment of rank {peer} refused ({advice})"), error)
        })?;
        let header = segment.header();
        let expected = expected_header(peer, bytes);
        if header != expected {
            return Err(wrong(format!("its header is {header:x?}, expected {expected:x?}")));
        }
        Ok(segment)
    }

    fn map(file: BorrowedFd<'_>, bytes: usize) -> std::io::Result<Segment> {
        let map = MmapOptions::new().len(bytes).map_raw(&file)?;
        Ok(Segment { map })
    }

    fn write_header(&self, rank: u32, bytes: usize) {
        for (at, value) in expected_header(rank, bytes).into_iter().enumerate() {
            // Relaxed: the socket that carries the descriptor orders it.
            self.word(at * 8).store(value, Ordering::Relaxed);
        }
    }

    fn header(&self) -> [u64; 3] {
        [0, 8, 16].map(|at| self.word(at).load(Ordering::Relaxed))
    }

    /// The word at this offset.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        let word = self.range(offset, 8).cast::<u64>();
        assert!(word.is_aligned());
        // SAFETY: `range` keeps it inside the mapping, which lives as long as `self`; aligned as just checked; every
        // process touches the word by atomic operations only, and zeroed or garbage bits are a valid u64.
        unsafe { AtomicU64::from_ptr(word) }
    }

    #[inline]
    fn half_word(&self, offset: usize) -> &AtomicU32 {
        let word = self.range(offset, 4).cast::<u32>();
        assert!(word.is_aligned());
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(word) }
    }

    /// The address of a range that lies inside; only a bug can ask for another.
    #[inline]
    pub(crate) fn range(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.map.len()),
            "{offset} + {len} is outside"
        );
        self.map.as_mut_ptr().wrapping_add(offset)
    }

    /// Bytes.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}

impl Words for Segment {
    #[inline]
    fn doorbell(&self) -> Doorbell<'_, AtomicU32> {
        Doorbell { rings: self.half_word(Geometry::DOORBELL), flags: self.half_word(Geometry::DOORBELL + 4) }
    }
}

fn expected_header(rank: u32, bytes: usize) -> [u64; 3] {
    [MAGIC, u64::from(VERSION) << 32 | u64::from(rank), bytes as u64]
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
        assert!(error.contains("bytes, expected"), "{error}");
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
