//! The first cause, as this process's threads see it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use ubccl_core::{Cause, Error, Result};

/// Wakes a sleeper. Runs on any thread, must be quick and must not block.
pub(crate) type Waker = Arc<dyn Fn() + Send + Sync>;

/// Whether a communicator is poisoned, why, and who sleeps and must be told.
#[derive(Default)]
pub(crate) struct Poison {
    set: AtomicBool,
    error: OnceLock<Error>,
    wakers: Mutex<Wakers>,
}

#[derive(Default)]
struct Wakers {
    next: u64,
    list: Vec<(u64, Waker)>,
}

impl Poison {
    /// Whether the communicator is poisoned: one load, for hot loops.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire) // pairs with the Release in `set`: the error is there
    }

    /// `Err` with the first cause if the communicator is poisoned.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_set() { Err(self.error()) } else { Ok(()) }
    }

    /// The first cause. Ask only after [`is_set`](Poison::is_set) said so.
    #[cold]
    pub(crate) fn error(&self) -> Error {
        match self.error.get() {
            Some(error) => error.clone(),
            None => Error::internal("asked for the cause of a communicator that is not poisoned"),
        }
    }

    /// The first cause, if there is one.
    pub(crate) fn cause(&self) -> Option<&Cause> {
        self.error.get().and_then(Error::cause)
    }

    /// Poisons with the agreed cause, has `tell` called with it, and wakes the sleepers. Later calls change nothing.
    pub(crate) fn set(&self, cause: Cause, tell: impl FnOnce(&Error)) {
        let mut first = false;
        let error = self.error.get_or_init(|| {
            first = true;
            Error::from(cause)
        });
        self.set.store(true, Ordering::Release); // pairs with `is_set`
        if first {
            tell(error); // before somebody wakes who may end the process
            self.wake();
        }
    }

    /// Calls every waker: the communicator was poisoned, or a rank left.
    pub(crate) fn wake(&self) {
        let wakers: Vec<Waker> = self.wakers.lock().list.iter().map(|(_, waker)| waker.clone()).collect();
        wakers.iter().for_each(|waker| waker());
    }

    /// Has `waker` called when the communicator is poisoned and each time a rank leaves, until the guard is dropped
    /// (a call that has begun may still be running then). Called at once if it is poisoned already. A sleeper must
    /// look again at what it waits for whenever it is woken: wakes may come for nothing.
    pub(crate) fn on_change(self: &Arc<Self>, waker: impl Fn() + Send + Sync + 'static) -> WakerGuard {
        let waker: Waker = Arc::new(waker);
        let id = {
            let mut wakers = self.wakers.lock();
            wakers.next += 1;
            let id = wakers.next;
            wakers.list.push((id, waker.clone()));
            id
        };
        // Whoever poisons after this check finds the waker in the list.
        if self.is_set() {
            waker();
        }
        WakerGuard { poison: self.clone(), id }
    }
}

/// Keeps a waker registered.
pub(crate) struct WakerGuard {
    poison: Arc<Poison>,
    id: u64,
}

impl Drop for WakerGuard {
    fn drop(&mut self) {
        // The closure is dropped after the lock is released: it may own anything.
        let mut wakers = self.poison.wakers.lock();
        let place = wakers.list.iter().position(|(id, _)| *id == self.id);
        let removed = place.map(|place| wakers.list.swap_remove(place));
        drop(wakers);
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use ubccl_core::{Culprit, ErrorKind};

    use super::*;

    fn cause(rank: u32) -> Cause {
        let culprit = Culprit { rank, host: "h".into(), pid: 1 };
        Cause { kind: ErrorKind::Remote, culprit, operation: String::new(), sequence: 0, message: "m".into() }
    }

    fn counter(poison: &Arc<Poison>) -> (Arc<AtomicUsize>, WakerGuard) {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = count.clone();
        let guard = poison.on_change(move || {
            seen.fetch_add(1, Ordering::SeqCst);
        });
        (count, guard)
    }

    #[test]
    fn the_first_cause_stays_and_wakes_once() {
        let poison = Arc::new(Poison::default());
        assert!(poison.check().is_ok() && poison.cause().is_none());
        let (count, _guard) = counter(&poison);
        let mut told = Vec::new();
        poison.set(cause(1), |error| told.push(error.to_string()));
        poison.set(cause(2), |error| told.push(error.to_string()));
        assert_eq!(told, [Error::from(cause(1)).to_string()]);
        assert_eq!(poison.check().unwrap_err().cause(), Some(&cause(1)));
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_waker_that_comes_late_is_called_and_one_that_left_is_not() {
        let poison = Arc::new(Poison::default());
        let (gone, guard) = counter(&poison);
        drop(guard);
        poison.set(cause(1), |_| ());
        let (late, _guard) = counter(&poison);
        assert_eq!((gone.load(Ordering::SeqCst), late.load(Ordering::SeqCst)), (0, 1));
    }
}
