//! Windows: memory of the same size on every rank that all of them read and write without its owner's help.
//!
//! Where ranks can address each other's memory (`direct`) everything is a load or a store; otherwise it is a message
//! (`wire`), which the owner serves, by itself while it is in a call on the window, otherwise by the service thread.

/// The examples of the chapter are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/memory.md")]
mod chapter {}

mod direct;
pub(crate) mod head;
pub(crate) mod part;
mod wait;
mod wire;
mod words;

use crate::communicator::{Communicator, Shared};
use direct::{Direct, Own};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use ubccl_core::{Element, Error, Rank, Result};
use wait::Wait;
use wire::Wire;

/// Memory of `len` elements on every rank of a communicator, for all of them to read and write.
///
/// **Order.** A rank's [`put`](Window::put)s to one peer and the [`signal`](Window::signal) that it sends that peer
/// afterwards arrive in that order: whoever has seen the signal ([`wait_signal`](Window::wait_signal)) reads what was put
/// before. Nothing else is ordered: not puts among each other, not puts of different ranks. A
/// [`get`](Window::get) is complete when it returns and sees this rank's own earlier puts to that peer. After
/// [`flush`](Window::flush) everything this rank has put to the peer stands there; after [`fence`](Window::fence), which
/// all ranks call, everything that any rank has put before stands everywhere.
///
/// Elements that are written while somebody else reads or writes them are then either value, each by itself, and
/// nothing else happens: every access goes element by element, atomically.
///
/// **Progress.** A rank need not do anything for others to get at its part. Over `shm` and `threads` an access is loads and
/// stores; over messages (`tcp`) the owner's service thread serves it, which takes longer than if the owner is itself in a
/// call on the window: up to 200 ms if nothing was asked of it for seconds.
///
/// **Failures** are the communicator's: a rank that dies or leaves ends every wait for it with `Remote`, a wait that takes
/// longer than the operation timeout with `Timeout`; both poison the communicator, and every later call gets the cause. If
/// the communicator is aborted, or fails otherwise, its windows fail with it.
///
/// Several windows of a communicator are apart. Threads may share one.
///
/// ```
/// # fn main() -> ubccl::Result<()> {
/// # let comm = ubccl::Communicator::init(ubccl::Config::default())?;
/// let window = comm.window::<f32>(1024)?;
/// let (me, ranks) = (comm.rank(), comm.ranks());
/// let (next, before) = ((me + 1) % ranks, (me + ranks - 1) % ranks);
/// window.put(next, 16, &[1.5; 8])?;
/// window.signal(next, 1)?;
/// window.wait_signal(before, 1)?;
/// let mut found = [0.0; 8];
/// window.get(me, 16, &mut found)?;
/// assert_eq!(found, [1.5; 8]);
/// window.close()?;
/// # comm.close()
/// # }
/// ```
///
/// Source: MPI-3 passive target (MPI_Put, MPI_Get, MPI_Win_flush, MPI_Win_fence); NVSHMEM's put with signal and
/// signal_wait_until; ncclCommWindowRegister.
pub struct Window<T: Element> {
    shared: Arc<Shared>,
    id: WindowId,
    len: usize,
    way: Way<T>,
}

/// Which window of its communicator, counted from 1; the same on every rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowId(pub(crate) u32);

impl fmt::Display for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "window {}", self.0)
    }
}

/// How a window's ranks reach each other.
enum Way<T: Element> {
    Direct(Direct),
    Wire(Box<Wire<T>>),
}

impl Communicator {
    /// Makes a window of `count` elements on every rank, zeroed.
    ///
    /// Order:  every rank calls it, as a collective, with the same count and type; returns when all have.
    /// Cost:   a collective, not a thing for a hot path. Over messages each window has connections of its own.
    /// Errors: as [`Communicator::all_reduce`]; InvalidArgument on every rank if counts or types differ; System if there
    ///         is no memory for it.
    /// Source: ncclCommWindowRegister, MPI_Win_allocate, nvshmem_malloc.
    pub fn window<T: Element>(&self, count: usize) -> Result<Window<T>> {
        let id = WindowId(self.shared.windows.fetch_add(1, Ordering::Relaxed) + 1);
        let own = Own::allocate::<T>(&self.shared, count);
        let cards = Card::exchange(&self.shared, Card::of::<T>(count, &own))?;
        let own = own?;
        Card::check(&cards)?;
        let is_direct = cards.iter().all(|card| card.place.is_some());
        let way = match own.filter(|_| is_direct) {
            Some(own) => Way::Direct(Direct::new::<T>(&self.shared, own, &cards)?),
            None => Way::Wire(Box::new(Wire::new(self, id, count)?)),
        };
        Ok(Window { shared: self.shared.clone(), id, len: count, way })
    }
}

/// What ranks tell each other of a window they make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Card {
    count: u64,
    dtype: u64,
    /// Where peers find its memory.
    place: Option<u64>,
    failed: bool,
}

const CARD_BYTES: usize = 32;

impl Card {
    fn of<T: Element>(count: usize, own: &Result<Option<Own>>) -> Self {
        let place = own.as_ref().ok().and_then(Option::as_ref).map(Own::place);
        Card { count: count as u64, dtype: T::DTYPE as u64, place, failed: own.is_err() }
    }

    /// The cards of all ranks.
    fn exchange(shared: &Shared, own: Card) -> Result<Vec<Card>> {
        let flags = u64::from(own.failed) << 1 | u64::from(own.place.is_some());
        let words = [own.count, own.dtype, flags, own.place.unwrap_or(0)];
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let mut all = vec![0; CARD_BYTES * shared.ranks as usize];
        shared.gather_bytes(&bytes, &mut all)?;
        let parse = |bytes: &[u8]| {
            let word = |at: usize| {
                u64::from_le_bytes(bytes[at * 8..][..8].try_into().expect("a card has four words"))
            };
            let flags = word(2);
            let place = (flags & 1 == 1).then_some(word(3));
            Card { count: word(0), dtype: word(1), place, failed: flags & 2 != 0 }
        };
        Ok(all.chunks_exact(CARD_BYTES).map(parse).collect())
    }

    /// The same verdict on every rank.
    fn check(cards: &[Card]) -> Result<()> {
        if let Some(rank) = cards.iter().position(|card| card.failed) {
            return Err(Error::invalid(format!("rank {rank} has no memory for its part of the window")));
        }
        let differs = |card: &Card| (card.count, card.dtype) != (cards[0].count, cards[0].dtype);
        match cards.iter().position(differs) {
            None => Ok(()),
            Some(rank) => Err(Error::invalid(format!(
                "a window has the same count and type on every rank: rank 0 asks for {} elements of type number {}, rank \
                 {rank} for {} of {}",
                cards[0].count, cards[0].dtype, cards[rank].count, cards[rank].dtype
            ))),
        }
    }
}

impl<T: Element> Window<T> {
    /// Elements on every rank.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements; signals work all the same.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether accesses are loads and stores.
    pub fn is_direct(&self) -> bool {
        matches!(self.way, Way::Direct(_))
    }

    /// Writes `data` to `peer`'s part from element `offset` on; `peer` may be this rank. Returns when `data` may be
    /// changed; see [`Window`] for when it stands there.
    ///
    /// Errors: InvalidArgument for a rank or elements that do not exist (nothing is written); the cause, if the
    ///         communicator is poisoned.
    /// Source: MPI_Put, nvshmem_put.
    pub fn put(&self, peer: Rank, offset: usize, data: &[T]) -> Result<()> {
        self.check(peer, offset, data.len())?;
        match &self.way {
            Way::Direct(direct) => direct.put(peer, offset, data),
            Way::Wire(wire) => return wire.put(peer, offset, data),
        }
        Ok(())
    }

    /// Reads `peer`'s part from element `offset` on into `data`.
    ///
    /// Errors: as [`Window::put`]; Remote, Timeout: these poison the communicator.
    /// Source: MPI_Get and MPI_Win_flush, nvshmem_get.
    pub fn get(&self, peer: Rank, offset: usize, data: &mut [T]) -> Result<()> {
        self.check(peer, offset, data.len())?;
        match &self.way {
            Way::Direct(direct) => direct.get(peer, offset, data),
            Way::Wire(wire) => return wire.get(peer, offset, data),
        }
        Ok(())
    }

    /// Adds `by` to what this rank has signalled `peer`, after everything it has put there.
    ///
    /// Errors: as [`Window::put`].
    /// Source: nvshmemx_signal_op with NVSHMEM_SIGNAL_ADD.
    pub fn signal(&self, peer: Rank, by: u64) -> Result<()> {
        self.check(peer, 0, 0)?;
        match &self.way {
            Way::Direct(direct) => direct.signal(&self.shared, peer, by),
            Way::Wire(wire) => return wire.signal(peer, by),
        }
        Ok(())
    }

    /// What `from` has signalled this rank so far, since the window was made.
    ///
    /// Errors: as [`Window::put`].
    pub fn signalled(&self, from: Rank) -> Result<u64> {
        self.check(from, 0, 0)?;
        match &self.way {
            Way::Direct(direct) => Ok(direct.signalled(from)),
            Way::Wire(wire) => wire.signalled(from),
        }
    }

    /// Waits until `from` has signalled this rank `total` in all; then what it put before can be read. It takes nothing
    /// away: the count goes on.
    ///
    /// Errors: InvalidArgument for a rank that does not exist; Remote, Timeout, Aborted: these poison the communicator.
    /// Source: nvshmem_signal_wait_until with NVSHMEM_CMP_GE.
    pub fn wait_signal(&self, from: Rank, total: u64) -> Result<()> {
        self.check(from, 0, 0)?;
        match &self.way {
            Way::Direct(direct) => {
                let is_there = || direct.signalled(from) >= total;
                let wait = Wait {
                    shared: &self.shared,
                    parent: &self.shared,
                    window: self.id,
                    peer: from,
                    what: "a signal",
                    longest_sleep: Duration::MAX,
                };
                wait.until(|| Ok(is_there()), &is_there)
            }
            Way::Wire(wire) => wire.wait_signal(from, total),
        }
    }

    /// Waits until everything that this rank has put to `peer` stands there.
    ///
    /// Errors: as [`Window::get`].
    /// Source: MPI_Win_flush, nvshmem_quiet.
    pub fn flush(&self, peer: Rank) -> Result<()> {
        self.check(peer, 0, 0)?;
        match &self.way {
            Way::Direct(_) => Ok(()), // it stands there already
            Way::Wire(wire) => wire.flush(peer),
        }
    }

    /// Waits until all ranks have come here and everything that was put before stands where it belongs.
    ///
    /// Order:  every rank calls it, as a collective of the communicator.
    /// Errors: as [`Communicator::barrier`].
    /// Source: MPI_Win_fence, nvshmem_barrier_all.
    pub fn fence(&self) -> Result<()> {
        self.check(self.shared.rank, 0, 0)?;
        match &self.way {
            Way::Direct(_) => self.shared.barrier(),
            Way::Wire(wire) => wire.fence(),
        }
    }

    /// Ends the window on all ranks; each may have called it when the last put or get of a peer is over.
    ///
    /// Order:  every rank calls it, as a collective. A window that is dropped instead keeps its memory until the
    ///         process ends, since peers may still write there.
    /// Errors: as [`Window::fence`].
    /// Source: ncclCommWindowDeregister, MPI_Win_free.
    pub fn close(self) -> Result<()> {
        self.check(self.shared.rank, 0, 0)?;
        match self.way {
            Way::Direct(direct) => {
                self.shared.barrier()?;
                direct.free();
                Ok(())
            }
            Way::Wire(wire) => wire.close(),
        }
    }

    fn check(&self, peer: Rank, offset: usize, count: usize) -> Result<()> {
        self.shared.control.poison().check()?;
        if let Way::Wire(wire) = &self.way {
            wire.check()?;
        }
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(Error::invalid(format!("{} is of a communicator that was closed", self.id)));
        }
        let access = Access { peer, ranks: self.shared.ranks, offset, count };
        access.check(self.id, self.len)
    }
}

/// Elements of a rank's part.
pub(crate) struct Access {
    pub(crate) peer: Rank,
    pub(crate) ranks: u32,
    pub(crate) offset: usize,
    pub(crate) count: usize,
}

impl Access {
    /// Whether there are such a peer and such elements.
    pub(crate) fn check(&self, window: WindowId, len: usize) -> Result<()> {
        let &Access { peer, ranks, offset, count } = self;
        if peer >= ranks {
            return Err(Error::invalid(format!(
                "there is no rank {peer} in {window}, which has {ranks} ranks"
            )));
        }
        if offset.checked_add(count).is_none_or(|end| end > len) {
            return Err(Error::invalid(format!(
                "{count} elements from element {offset} on are not in rank {peer}'s part of {window}, which has {len} \
                 elements"
            )));
        }
        Ok(())
    }
}

impl<T: Element> fmt::Debug for Window<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("number", &self.id.0)
            .field("dtype", &T::DTYPE)
            .field("len", &self.len)
            .field("is_direct", &self.is_direct())
            .finish()
    }
}
