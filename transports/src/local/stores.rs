//! With which stores a rank fills memory that another reads: ordinary ones, or streaming ones that go past the caches.
//!
//! An ordinary store takes its line from wherever it is, few lines at a time. Between processors that share a cache that is
//! cheap, and the reader finds the line near; between far ones (another socket, or another die of the same) it costs
//! several times what the copy does, and streaming stores win although the reader then reads from memory. Where
//! the scheduler or the hypervisor has put the two is not known and changes, so it is measured: every so often one piece
//! is timed.

use std::time::{Duration, Instant};
use ubccl_core::kernels;

/// Pieces shorter than this are written by ordinary stores: their few lines travel at once.
const SHORTEST: usize = 2048;
/// How often a piece is timed while ordinary stores are in use: reading the clock twice costs some 50 ns.
const TIMED_ONE_IN: u32 = 16;
/// How often ordinary stores are tried again while streaming ones are in use.
const TRIED_ONE_IN: u32 = 128;
/// Ordinary stores are slow above so many picoseconds a line, and quick again below the second. Measured on Zen 4: 2 to 7 ns a
/// line where the reader's cache is near and 30 where it is far, while streaming stores and the reads after them take 10.
const SLOW_PS: u64 = 14_000;
const QUICK_PS: u64 = 9_000;
/// So many timings in a row have to agree: one may have been interrupted.
const AGREEING: u32 = 3;

const LINE_BYTES: usize = 64;

/// Which stores, for one reader or one set of readers.
#[derive(Debug, Default)]
pub(crate) struct Stores {
    is_far: bool,
    /// Pieces since one was timed.
    pieces: u32,
    /// Timings in a row that speak for the other kind.
    votes: u32,
}

impl Stores {
    /// Copies a piece.
    ///
    /// # Safety
    /// As for `kernels::copy`; source and destination do not overlap.
    #[inline]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn copy(&mut self, from: *const u8, into: *mut u8, bytes: usize) {
        if bytes < SHORTEST {
            // SAFETY: as the caller vouches.
            return unsafe { kernels::copy(from, into, bytes) };
        }
        self.pieces += 1;
        if self.pieces >= if self.is_far { TRIED_ONE_IN } else { TIMED_ONE_IN } {
            let start = Instant::now();
            // SAFETY: as the caller vouches.
            unsafe { kernels::copy(from, into, bytes) };
            return self.note(start.elapsed(), bytes);
        }
        match self.is_far {
            // SAFETY: as the caller vouches.
            false => unsafe { kernels::copy(from, into, bytes) },
            // SAFETY: as the caller vouches.
            true => unsafe { kernels::copy_streaming(from, into, bytes) },
        }
    }

    /// Takes a timing of ordinary stores into account.
    #[cold]
    fn note(&mut self, took: Duration, bytes: usize) {
        let line = (took.as_nanos() as u64).saturating_mul(1000 * LINE_BYTES as u64) / bytes as u64;
        let disagrees = if self.is_far { line < QUICK_PS } else { line > SLOW_PS };
        self.votes = if disagrees { self.votes + 1 } else { 0 };
        if self.votes == AGREEING {
            *self = Stores { is_far: !self.is_far, ..Stores::default() };
        } else if self.votes > 0 {
            // Asks again soon, but not at once: several pieces of one message may have met the same interruption.
            self.pieces = (if self.is_far { TRIED_ONE_IN } else { TIMED_ONE_IN }) - 2;
        } else {
            self.pieces = 0;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn after(stores: &mut Stores, nanos: &[u64]) -> bool {
        nanos.iter().for_each(|&nanos| stores.note(Duration::from_nanos(nanos), 8192));
        stores.is_far
    }

    #[test]
    fn it_takes_agreeing_timings_to_change_the_stores() {
        let mut stores = Stores::default();
        let (near, between, far) = (128 * 5, 128 * 11, 128 * 30);
        assert!(!after(&mut stores, &[near, far, far, near, far, far, between]), "never three in a row");
        assert!(after(&mut stores, &[far, far, far]));
        assert!(
            after(&mut stores, &[far, near, near, between, far, near, near]),
            "what is between changes nothing"
        );
        assert!(!after(&mut stores, &[near]));
        assert!(!after(&mut stores, &[u64::MAX / 2]));
    }

    #[test]
    #[allow(unsafe_code)]
    fn both_stores_copy() {
        for is_far in [false, true] {
            let mut stores = Stores { is_far, ..Stores::default() };
            let from: Vec<u8> = (0..9000_u32).map(|byte| byte as u8).collect();
            for bytes in [0, 1, SHORTEST - 1, SHORTEST, 9000].repeat(100) {
                let mut into = vec![0xA5; bytes];
                // SAFETY: both have as many bytes.
                unsafe { stores.copy(from.as_ptr(), into.as_mut_ptr(), bytes) };
                assert_eq!(into, from[..bytes]);
            }
        }
    }
}
