//! The words that the protocols here are written over, so that loom can check the very same code that
//! runs between threads and processes.

use std::sync::atomic::{self, Ordering};

/// A word that several threads or processes read and write.
pub(crate) trait Word<T> {
    /// Reads it.
    fn load(&self, order: Ordering) -> T;
    /// Writes it.
    fn store(&self, value: T, order: Ordering);
    /// Adds and returns what it was.
    fn fetch_add(&self, by: T, order: Ordering) -> T;
    /// Keeps only the bits of `mask` and returns what it was.
    fn fetch_and(&self, mask: T, order: Ordering) -> T;
    /// Sets the bits of `mask` and returns what it was.
    fn fetch_or(&self, mask: T, order: Ordering) -> T;
    /// A fence of the memory this kind of word lives in.
    fn fence(order: Ordering);
}

macro_rules! word {
    ($atomic:ty, $value:ty, $fence:path) => {
        impl Word<$value> for $atomic {
            #[inline]
            fn load(&self, order: Ordering) -> $value {
                self.load(order)
            }
            #[inline]
            fn store(&self, value: $value, order: Ordering) {
                self.store(value, order);
            }
            #[inline]
            fn fetch_add(&self, by: $value, order: Ordering) -> $value {
                self.fetch_add(by, order)
            }
            #[inline]
            fn fetch_and(&self, mask: $value, order: Ordering) -> $value {
                self.fetch_and(mask, order)
            }
            #[inline]
            fn fetch_or(&self, mask: $value, order: Ordering) -> $value {
                self.fetch_or(mask, order)
            }
            #[inline]
            fn fence(order: Ordering) {
                $fence(order);
            }
        }
    };
}

word!(atomic::AtomicU32, u32, atomic::fence);
word!(atomic::AtomicU64, u64, atomic::fence);
#[cfg(all(test, loom))]
word!(loom::sync::atomic::AtomicU32, u32, loom::sync::atomic::fence);
#[cfg(all(test, loom))]
word!(loom::sync::atomic::AtomicU64, u64, loom::sync::atomic::fence);
