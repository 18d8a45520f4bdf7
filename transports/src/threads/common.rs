//! Memory that any rank of a world finds by its number.

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use ubccl_core::endpoint::{Allocation, HostPointer};
use ubccl_core::{Error, Result};

/// What was allocated and is not dropped by everybody who knows it.
#[derive(Debug, Default)]
pub(crate) struct Common {
    next: AtomicU64,
    pieces: Mutex<BTreeMap<u64, Weak<MmapRaw>>>,
}

impl Common {
    /// Memory of so many bytes, zeroed.
    ///
    /// Errors: System, if there is none.
    pub(crate) fn allocate(&self, bytes: u64) -> Result<Piece> {
        let refused = |error| Error::system(format!("{bytes} bytes of memory refused (free memory)"), error);
        let len =
            usize::try_from(bytes.max(1)).map_err(|_| refused(std::io::ErrorKind::OutOfMemory.into()))?;
        let map: MmapRaw = MmapOptions::new().len(len).map_anon().map_err(refused)?.into();
        let (map, place) = (Arc::new(map), self.next.fetch_add(1, Ordering::Relaxed));
        let mut pieces = self.pieces.lock();
        pieces.retain(|_, piece| piece.strong_count() > 0);
        pieces.insert(place, Arc::downgrade(&map));
        Ok(Piece { map, place })
    }

    /// A piece that is at least so long.
    pub(crate) fn find(&self, place: u64, bytes: u64) -> Option<Piece> {
        let map = self.pieces.lock().get(&place)?.upgrade()?;
        (bytes <= map.len() as u64).then_some(Piece { map, place })
    }
}

/// A piece; it goes with the last who knows it.
#[derive(Debug)]
pub(crate) struct Piece {
    map: Arc<MmapRaw>,
    place: u64,
}

impl Allocation for Piece {
    fn address(&self) -> HostPointer {
        HostPointer(self.map.as_mut_ptr().expose_provenance())
    }

    fn place(&self) -> u64 {
        self.place
    }
}
