//! Handles: what C holds as an opaque pointer is a number that names a place in a table, never an address.
//!
//! A place is used again, but under another generation, so that a handle that was destroyed is known as such for as
//! long as the process lives; so is one of another kind, one that was never made, and one that a `fork` copied. A call
//! holds its handle's lock for reading, and ending a handle takes it for writing without waiting: what another thread
//! is using is not ended under its feet but refused.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use ubccl_rs::{Error, Result};

/// A handle is, from the highest bits on: kind (8), forks before it was made (8), generation (28), place (20). The kind
/// makes it an address that no process has, so that C code that looks behind it stops there.
const PLACE_BITS: u32 = 20;
const GENERATION_BITS: u32 = 28;
const FORK_SHIFT: u32 = PLACE_BITS + GENERATION_BITS;
const KIND_SHIFT: u32 = FORK_SHIFT + 8;

/// Places of the first block of a table; each further block has twice as many as the one before.
const FIRST_BLOCK: usize = 64;
const BLOCKS: usize = 14;
const _: () = assert!(FIRST_BLOCK * ((1 << BLOCKS) - 1) < 1 << PLACE_BITS);

/// How often this process's ancestors forked since the library made their first handle.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The handles of one kind.
pub(crate) struct Table<T> {
    kind: u8,
    what: &'static str,
    blocks: [OnceLock<Box<[Slot<T>]>>; BLOCKS],
    /// Where to look for a free place first.
    hint: AtomicU32,
}

struct Slot<T> {
    /// Odd while the place is taken.
    generation: AtomicU32,
    value: RwLock<Option<T>>,
}

/// What a handle names, until dropped not ended by anybody.
pub(crate) type Shared<'a, T> = parking_lot::MappedRwLockReadGuard<'a, T>;

impl<T> Table<T> {
    /// A table whose handles are told from others by `kind`, 0x81 to 0xfe, and called `what` in messages.
    pub(crate) const fn new(kind: u8, what: &'static str) -> Self {
        assert!(kind > 0x80 && kind < 0xff);
        Table { kind, what, blocks: [const { OnceLock::new() }; BLOCKS], hint: AtomicU32::new(0) }
    }

    /// Makes a value and its handle. Nothing is made if no place is free.
    pub(crate) fn insert(&self, make: impl FnOnce() -> Result<T>) -> Result<usize> {
        watch_forks()?;
        let claim = self.claim()?;
        let value = make()?;
        Ok(claim.fill(value))
    }

    /// What the handle names, to be used by any number of threads at once.
    ///
    /// Errors: InvalidArgument if it names nothing or is being ended.
    #[inline(always)]
    pub(crate) fn get(&self, handle: usize) -> Result<Shared<'_, T>> {
        let (slot, generation) = self.find(handle)?;
        let guard = slot.value.try_read().ok_or_else(|| self.busy())?;
        // Between `find` and the lock it may have been ended.
        if slot.generation.load(Ordering::Acquire) != generation {
            return Err(self.gone());
        }
        RwLockReadGuard::try_map(guard, Option::as_ref).map_err(|_| self.gone())
    }

    /// What the handle names, used by nobody else.
    ///
    /// Errors: InvalidArgument if it names nothing, or another thread is in a call with it.
    pub(crate) fn own(&self, handle: usize) -> Result<Owned<'_, T>> {
        let (slot, generation) = self.find(handle)?;
        let guard = slot.value.try_write().ok_or_else(|| self.busy())?;
        if slot.generation.load(Ordering::Acquire) != generation || guard.is_none() {
            return Err(self.gone());
        }
        Ok(Owned { table: self, slot, place: place_of(handle), guard })
    }

    /// How many handles there are.
    pub(crate) fn count(&self) -> usize {
        let slots = self.blocks.iter().filter_map(OnceLock::get).flatten();
        slots.filter(|slot| slot.generation.load(Ordering::Relaxed) % 2 == 1).count()
    }

    #[inline(always)]
    fn find(&self, handle: usize) -> Result<(&Slot<T>, u32)> {
        let forks = FORKS.load(Ordering::Relaxed) as u8;
        if handle >> FORK_SHIFT != usize::from(self.kind) << 8 | usize::from(forks) {
            return Err(self.not_from_here(handle));
        }
        let generation = (handle >> PLACE_BITS) as u32 & ((1 << GENERATION_BITS) - 1);
        let slot = self.slot(place_of(handle)).ok_or_else(|| self.gone())?;
        // Pairs with the release in `fill` and `Owned::end`.
        if slot.generation.load(Ordering::Acquire) == generation {
            Ok((slot, generation))
        } else {
            Err(self.gone())
        }
    }

    /// Block k begins at place `FIRST_BLOCK * (2^k - 1)`.
    #[inline]
    fn slot(&self, place: usize) -> Option<&Slot<T>> {
        let block = (place / FIRST_BLOCK + 1).ilog2() as usize;
        let first = FIRST_BLOCK * ((1 << block) - 1);
        self.blocks.get(block)?.get()?.get(place - first)
    }

    /// Takes a free place: the hinted one or the next after it, at last one of a new block. Neither waits for another
    /// thread nor trusts that one goes on: in a forked child it may not exist.
    fn claim(&self) -> Result<Claim<'_, T>> {
        let built = self.blocks.iter().take_while(|block| block.get().is_some()).count();
        let places = FIRST_BLOCK * ((1 << built) - 1);
        let hint = self.hint.load(Ordering::Relaxed) as usize;
        let around = (hint..places).chain(0..hint.min(places));
        if let Some(claim) = around.into_iter().find_map(|place| self.try_claim(place)) {
            return Ok(claim);
        }
        for block in built..BLOCKS {
            let first = FIRST_BLOCK * ((1 << block) - 1);
            self.blocks[block].get_or_init(|| (0..FIRST_BLOCK << block).map(|_| Slot::default()).collect());
            let mut fresh = first..first + (FIRST_BLOCK << block);
            if let Some(claim) = fresh.find_map(|place| self.try_claim(place)) {
                return Ok(claim);
            }
        }
        Err(Error::unsupported(format!("there are too many handles of this kind ({}) at once", self.what)))
    }

    fn try_claim(&self, place: usize) -> Option<Claim<'_, T>> {
        let slot = self.slot(place)?;
        let generation = slot.generation.load(Ordering::Relaxed);
        // A place whose generations are used up is given up: none of them comes again.
        if generation % 2 == 1 || generation + 2 >= 1 << GENERATION_BITS {
            return None;
        }
        let claimed = slot.generation.compare_exchange(
            generation,
            generation + 1,
            Ordering::Acquire, // pairs with the release in `Owned::end`
            Ordering::Relaxed,
        );
        claimed.ok()?;
        self.hint.store(place as u32 + 1, Ordering::Relaxed);
        Some(Claim { table: self, slot, place, is_filled: false })
    }

    fn handle(&self, place: usize, generation: u32) -> usize {
        let forks = FORKS.load(Ordering::Relaxed) as u8;
        (usize::from(self.kind) << KIND_SHIFT)
            | (usize::from(forks) << FORK_SHIFT)
            | ((generation as usize) << PLACE_BITS)
            | place
    }

    /// Why a number is no handle that this table made in this process.
    #[cold]
    fn not_from_here(&self, handle: usize) -> Error {
        let what = self.what;
        if handle == 0 {
            return Error::invalid(format!("{what} is null"));
        }
        if (handle >> KIND_SHIFT) as u8 != self.kind {
            return Error::invalid(format!("{what} is none: {handle:#x} is not a handle of this kind"));
        }
        Error::invalid(format!(
            "{what} was made before a fork and belongs to the parent process; make its own in the child after exec"
        ))
    }

    #[cold]
    fn gone(&self) -> Error {
        Error::invalid(format!("{} was destroyed before", self.what))
    }

    #[cold]
    fn busy(&self) -> Error {
        Error::invalid(format!(
            "{}: another thread is in a call with it; destroy, close and wait from one thread",
            self.what
        ))
    }
}

fn place_of(handle: usize) -> usize {
    handle & ((1 << PLACE_BITS) - 1)
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot { generation: AtomicU32::new(0), value: RwLock::new(None) }
    }
}

/// A place that is taken and still empty; free again if dropped.
struct Claim<'a, T> {
    table: &'a Table<T>,
    slot: &'a Slot<T>,
    place: usize,
    is_filled: bool,
}

impl<T> Claim<'_, T> {
    fn fill(mut self, value: T) -> usize {
        // Waits at most for a call with an old handle to see that it is old.
        *self.slot.value.write() = Some(value);
        self.is_filled = true;
        self.table.handle(self.place, self.slot.generation.load(Ordering::Relaxed))
    }
}

impl<T> Drop for Claim<'_, T> {
    fn drop(&mut self) {
        if !self.is_filled {
            // Nobody has a handle to it. Pairs with the acquire in `try_claim`.
            self.slot.generation.fetch_add(1, Ordering::Release);
        }
    }
}

/// What a handle names, in the hands of one thread.
pub(crate) struct Owned<'a, T> {
    table: &'a Table<T>,
    slot: &'a Slot<T>,
    place: usize,
    guard: RwLockWriteGuard<'a, Option<T>>,
}

impl<T> Owned<'_, T> {
    /// The value.
    pub(crate) fn value(&mut self) -> &mut T {
        self.guard.as_mut().expect("`own` saw it, and the lock is held since")
    }

    /// Ends the handle and gives its value back.
    pub(crate) fn end(mut self) -> T {
        let value = self.guard.take().expect("`own` saw it, and the lock is held since");
        self.slot.generation.fetch_add(1, Ordering::Release); // pairs with `find` and `try_claim`
        self.table.hint.store(self.place as u32, Ordering::Relaxed);
        value
    }
}

/// From the first handle on, forks are counted.
fn watch_forks() -> Result<()> {
    static WATCHED: OnceLock<bool> = OnceLock::new();
    match WATCHED.get_or_init(|| crate::boundary::at_fork_in_child(count_fork)) {
        true => Ok(()),
        false => Err(Error::system(
            "cannot watch for forks (pthread_atfork); free some memory",
            std::io::Error::last_os_error(),
        )),
    }
}

extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_handle_is_known_however_often_its_place_is_used_again() {
        let table = Table::<u64>::new(0x90, "thing");
        let first = table.insert(|| Ok(7)).unwrap();
        assert_eq!(*table.get(first).unwrap(), 7);
        assert_eq!(table.own(first).unwrap().end(), 7);
        for round in 0..1000 {
            let next = table.insert(|| Ok(round)).unwrap();
            assert_eq!(place_of(next), place_of(first), "its place is used again");
            for old in [table.get(first).err(), table.own(first).err()] {
                assert!(old.unwrap().to_string().contains("destroyed before"));
            }
            assert_eq!(table.own(next).unwrap().end(), round);
        }
        assert_eq!(table.count(), 0);
    }

    #[test]
    fn what_is_no_handle_of_the_kind_is_refused() {
        let (table, other) = (Table::<u64>::new(0x90, "thing"), Table::<u64>::new(0x91, "other"));
        let handle = table.insert(|| Ok(7)).unwrap();
        let told = |handle: usize| table.get(handle).map(|_| ()).unwrap_err().to_string();
        assert!(told(0).contains("thing is null"));
        assert!(told(other.insert(|| Ok(1)).unwrap()).contains("not a handle of this kind"));
        assert!(told(&raw const table as usize).contains("not a handle of this kind"));
        assert!(told(handle + 1).contains("destroyed before"), "a place nobody took");
        assert!(told(handle | ((1 << PLACE_BITS) - 1)).contains("destroyed before"), "no such place");
        assert!(told(handle ^ (1 << FORK_SHIFT)).contains("before a fork"));
        assert_eq!(*table.get(handle).unwrap(), 7);
    }

    #[test]
    fn a_handle_in_use_is_not_ended_and_one_that_failed_takes_no_place() {
        let table = Table::<u64>::new(0x90, "thing");
        let handle = table.insert(|| Ok(7)).unwrap();
        let used = table.get(handle).unwrap();
        assert_eq!(*table.get(handle).unwrap(), 7, "others may use it too");
        assert!(table.own(handle).err().unwrap().to_string().contains("another thread"));
        drop(used);
        let mut owned = table.own(handle).unwrap();
        *owned.value() = 8;
        assert!(table.get(handle).err().unwrap().to_string().contains("another thread"));
        drop(owned);
        assert_eq!(*table.get(handle).unwrap(), 8);
        assert!(table.insert(|| Err(Error::invalid("no"))).is_err());
        assert_eq!(table.count(), 1);
    }

    #[test]
    fn threads_that_make_and_end_handles_never_see_each_others() {
        let table = Table::<usize>::new(0x90, "thing");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let table = &table;
                scope.spawn(move || {
                    for round in 0..200 {
                        let mine: Vec<_> = (0..100)
                            .map(|k| table.insert(|| Ok(thread << 32 | round << 8 | k)).unwrap())
                            .collect();
                        for (k, &handle) in mine.iter().enumerate() {
                            assert_eq!(*table.get(handle).unwrap(), thread << 32 | round << 8 | k);
                            table.own(handle).unwrap().end();
                            assert!(table.get(handle).is_err());
                        }
                    }
                });
            }
        });
        assert_eq!(table.count(), 0);
    }
}
