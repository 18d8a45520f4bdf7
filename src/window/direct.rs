//! Windows over memory that all ranks address: every access is loads and stores.
//!
//! All ranks touch elements as `words` does, atomically and in words of one size, so accesses that race are defined.
#![allow(unsafe_code)] // memory that other ranks write at any time

use super::Card;
use super::words::{self, WORD};
use crate::communicator::Shared;
use std::mem::ManuallyDrop;
use std::sync::atomic::AtomicU64;
use ubccl_core::endpoint::Allocation;
use ubccl_core::{Element, Error, Rank, Result};
use ubccl_transports::signals;

/// Bytes between two ranks' counts of signals: a cache line each.
const LINE: usize = 64;

/// This rank's part: a line for each rank's signals, then the elements.
#[derive(Debug)]
pub(super) struct Own {
    memory: Box<dyn Allocation>,
}

impl Own {
    /// Memory for a part, if the transport has memory that peers can address.
    ///
    /// Errors: InvalidArgument for more elements than there are addresses; System if there is no memory.
    pub(super) fn allocate<T: Element>(shared: &Shared, count: usize) -> Result<Option<Own>> {
        let bytes = part_bytes::<T>(shared.ranks, count as u64).ok_or_else(|| {
            Error::invalid(format!("a window of {count} elements is more than there are addresses"))
        })?;
        let memory = shared.lock().endpoint().allocate(bytes)?;
        Ok(memory.map(|memory| Own { memory }))
    }

    /// Where peers find it.
    pub(super) fn place(&self) -> u64 {
        self.memory.place()
    }
}

/// Bytes before the elements.
fn signal_bytes(ranks: u32) -> usize {
    ranks as usize * LINE
}

/// Bytes of a rank's part, if there are as many addresses.
fn part_bytes<T: Element>(ranks: u32, count: u64) -> Option<u64> {
    let elements = count.checked_mul(size_of::<T>() as u64)?.checked_next_multiple_of(WORD as u64)?;
    let bytes = elements.checked_add(signal_bytes(ranks) as u64)?;
    (bytes <= isize::MAX as u64).then_some(bytes)
}

/// The parts of all ranks.
#[derive(Debug)]
pub(super) struct Direct {
    rank: Rank,
    /// The beginning of each rank's part, as this rank sees it.
    parts: Vec<*mut u8>,
    /// What keeps the peers' parts mapped.
    _theirs: Vec<Box<dyn Allocation>>,
    /// Not given back when dropped: peers may still write there.
    own: ManuallyDrop<Own>,
}

// SAFETY: the pointers lead to memory that the allocations keep, on every thread.
unsafe impl Send for Direct {}
// SAFETY: as above; it is touched by atomic operations only.
unsafe impl Sync for Direct {}

impl Direct {
    /// Finds the parts of all ranks.
    pub(super) fn new<T: Element>(shared: &Shared, own: Own, cards: &[Card]) -> Result<Direct> {
        let own = ManuallyDrop::new(own);
        let (mut parts, mut theirs) = (Vec::new(), Vec::new());
        for (peer, card) in (0..).zip(cards) {
            if peer == shared.rank {
                parts.push(std::ptr::with_exposed_provenance_mut(own.memory.address().0));
                continue;
            }
            let lost = || Error::internal(format!("rank {peer} has a part of a window that is not found"));
            let bytes = part_bytes::<T>(shared.ranks, card.count).ok_or_else(lost)?;
            let place = card.place.ok_or_else(lost)?;
            let found = shared.lock().endpoint().find_allocation(peer, place, bytes)?.ok_or_else(lost)?;
            parts.push(std::ptr::with_exposed_provenance_mut(found.address().0));
            theirs.push(found);
        }
        Ok(Direct { rank: shared.rank, parts, _theirs: theirs, own })
    }

    /// Writes elements of a peer, which the caller has checked to be there.
    pub(super) fn put<T: Element>(&self, peer: Rank, offset: usize, data: &[T]) {
        words::store(|at| self.word(peer, at), offset * size_of::<T>(), bytemuck::cast_slice(data));
    }

    /// Reads elements of a peer, which the caller has checked to be there.
    pub(super) fn get<T: Element>(&self, peer: Rank, offset: usize, data: &mut [T]) {
        words::load(|at| self.word(peer, at), offset * size_of::<T>(), bytemuck::cast_slice_mut(data));
    }

    /// Counts on what a peer has been signalled by this rank, and wakes it.
    pub(super) fn signal(&self, shared: &Shared, peer: Rank, by: u64) {
        signals::add(self.count(peer, self.rank), by);
        if peer != self.rank {
            shared.lock().endpoint().notify(peer);
        }
    }

    /// What this rank has been signalled by another.
    #[inline]
    pub(super) fn signalled(&self, from: Rank) -> u64 {
        signals::total(self.count(self.rank, from))
    }

    /// Gives the memory back: no peer touches it any more.
    pub(super) fn free(self) {
        drop(ManuallyDrop::into_inner(self.own));
    }

    #[inline]
    fn count(&self, of: Rank, from: Rank) -> &AtomicU64 {
        let address = self.parts[of as usize].wrapping_add(from as usize * LINE).cast::<u64>();
        // SAFETY: a part begins at a page with a line for each rank, and lives as long as `self`; every rank touches the
        // word by atomic operations only.
        unsafe { AtomicU64::from_ptr(address) }
    }

    /// A word of the elements of a peer's part, which the caller has checked to be there.
    #[inline]
    fn word(&self, peer: Rank, at: usize) -> &AtomicU64 {
        let first = self.parts[peer as usize].wrapping_add(signal_bytes(self.parts.len() as u32));
        // SAFETY: a part begins at a page and has whole words of elements behind whole lines, and lives as long as `self`;
        // every rank touches the word by atomic operations only.
        unsafe { AtomicU64::from_ptr(first.cast::<u64>().wrapping_add(at)) }
    }
}
