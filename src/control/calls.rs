//! The calls that every rank made last, on the [board](super::board): with them two ranks that wait for each other find
//! out that they called different things, and an error can say what both called as the same operation.
//!
//! ```text
//! calls of a rank   32 entries of 4 words; the call with sequence number s stands in entry s mod 32
//!                     0 sequence, 0 while the entry is being written    1, 2 signature (low, high)    3 unused
//! ```

use std::sync::atomic::{Ordering, fence};

use super::board::Board;

/// Calls that are kept: more than one rank is ahead of another before it has to wait, in any but contrived programs.
const KEPT: u64 = 32;
const ENTRY_WORDS: usize = 4;
pub(super) const CALLS_WORDS: usize = KEPT as usize * ENTRY_WORDS;

impl Board {
    /// Says that this rank has called collective `sequence` with this signature. One thread at a time.
    #[inline]
    pub(crate) fn called(&self, sequence: u64, signature: u128) {
        let [written, low, high] = self.words(entry_of(self.own_calls(), sequence));
        written.store(0, Ordering::Relaxed);
        // Pairs with the fence in `call_of`: who sees a new half below also sees that the entry is being written.
        fence(Ordering::Release);
        low.store(signature as u64, Ordering::Relaxed);
        high.store((signature >> 64) as u64, Ordering::Relaxed);
        written.store(sequence, Ordering::Release); // pairs with `call_of`
    }

    /// What a rank called as collective `sequence`, unless it has not come to it or is far past it.
    #[inline]
    pub(crate) fn call_of(&self, rank: u32, sequence: u64) -> Option<u128> {
        let entry = entry_of(self.calls_place(rank), sequence);
        if sequence == 0 || self.word(entry).load(Ordering::Acquire) != sequence {
            return None; // the load pairs with the Release in `called`
        }
        let low = self.word(entry + 1).load(Ordering::Relaxed);
        let high = self.word(entry + 2).load(Ordering::Relaxed);
        fence(Ordering::Acquire); // pairs with the fence in `called`
        let is_whole = self.word(entry).load(Ordering::Relaxed) == sequence;
        is_whole.then_some(u128::from(high) << 64 | u128::from(low))
    }
}

/// Where a call stands among a rank's, the first of which is at `first`.
#[inline]
fn entry_of(first: usize, sequence: u64) -> usize {
    first + (sequence % KEPT) as usize * ENTRY_WORDS
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::board::tests::boards;
    use super::*;

    #[test]
    fn every_rank_reads_the_last_calls_of_every_rank() {
        let boards = boards(3);
        assert_eq!(boards[0].call_of(1, 0), None);
        for sequence in 1..=40 {
            assert_eq!(boards[0].call_of(1, sequence), None);
            boards[1].called(sequence, u128::from(sequence) << 64 | 7);
        }
        for sequence in 1..=41 {
            let expected = (9..=40).contains(&sequence).then_some(u128::from(sequence) << 64 | 7);
            assert_eq!(boards[2].call_of(1, sequence), expected, "{sequence}");
            assert_eq!(boards[1].call_of(2, sequence), None);
        }
        assert!(boards[2].call_of(0, u64::MAX).is_none());
    }

    #[test]
    fn a_call_that_is_being_overwritten_is_read_whole_or_not_at_all() {
        let boards = boards(2);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for sequence in 1..200_000 {
                    boards[1].called(sequence, u128::from(sequence) << 64 | u128::from(sequence));
                }
                done.store(true, Ordering::Release);
            });
            let mut read = 0_u64;
            while !done.load(Ordering::Acquire) {
                for sequence in read.saturating_sub(KEPT) + 1..read + KEPT {
                    let Some(signature) = boards[0].call_of(1, sequence) else { continue };
                    assert_eq!(signature, u128::from(sequence) << 64 | u128::from(sequence));
                    read = read.max(sequence);
                }
                read += KEPT / 2;
                read = if boards[0].call_of(1, read).is_some() { read } else { read.saturating_sub(KEPT) };
            }
        });
    }
}
