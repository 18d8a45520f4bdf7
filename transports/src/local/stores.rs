//! With which stores a rank fills memory that another reads: ordinary ones, or streaming ones that go past the caches.
//!
//! An ordinary store takes its line from wherever it is, few lines at a time, and the reader takes it from the writer's
//! cache. Between processors that share a cache both are cheap; between far ones (another socket, or another die of the
//! same) either costs several times what the copy does, and streaming stores win although the reader then reads from
//! memory. Where the scheduler or the hypervisor has put the two is not known and changes, so it is measured: every so
//! often one piece is timed, by the writer and, if it can tell, by the reader, and now and then one that is written by
//! ordinary stores.

use super::ways::SlotCost;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use ubccl_core::kernels;

/// Pieces shorter than this are written by ordinary stores: their few lines travel at once.
const SHORTEST: usize = 4096;
/// How often a piece is timed: reading the clock twice costs some 50 ns. Not a divisor of what calls have pieces of, so that
/// it is not the same piece of each call: what a piece costs depends on what was done before.
const TIMED_ONE_IN: u32 = 17;
/// How many of these are tried with ordinary stores while streaming ones are in use.
const TRIED_ONE_IN: u32 = 4;
/// A piece in so many is timed while timings speak for other stores, and until there were so many timings.
const SOON: u32 = 5;
const FIRST_TIMINGS: u32 = 8;
/// Ordinary stores are slow if writing and reading a line takes more than so many picoseconds in the mean, and quick
/// again below the second. Measured on Zen 4: 4 to 11 ns where the caches are near; where they are far, 10 to 25 in the
/// two halves of an all-reduce and 23 to 60 elsewhere, while streaming stores and the reads after them take 7 to 10.
const SLOW_PS: u64 = 15_000;
const QUICK_PS: u64 = 11_000;
/// No timing counts more than this: one may have been interrupted.
const LONGEST_PS: u64 = 2 * SLOW_PS;

const LINE_BYTES: usize = 64;

/// Which stores, for one reader or one set of readers.
#[derive(Debug)]
pub(crate) struct Stores {
    is_far: bool,
    /// Pieces until one is timed.
    pieces: u32,
    /// What ordinary stores have cost lately, in picoseconds a line, writing and reading.
    mean: u64,
    /// The last piece that was timed here; its reader tells later.
    timed: Option<Timed>,
    timings: u32,
    /// Whether what was written by streaming stores may be seen later than what is written next.
    is_loose: bool,
    /// What the kind in use has cost since somebody asked.
    cost: Option<SlotCost>,
}

/// A piece that was timed.
#[derive(Clone, Copy, Debug)]
struct Timed {
    is_streaming: bool,
    /// What writing took, in picoseconds a line.
    writing: u64,
}

impl Stores {
    /// For pieces that go round through so many places: none is timed before each was touched for the first time.
    pub(crate) fn new(places: u32) -> Self {
        Stores {
            is_far: false,
            pieces: places + 1,
            mean: QUICK_PS / 2,
            timed: None,
            timings: 0,
            is_loose: false,
            cost: None,
        }
    }

    /// Those of a far reader, for good.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn far() -> Self {
        Stores { is_far: true, ..Self::near() }
    }

    /// Those of a near reader, for good.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn near() -> Self {
        Self::new(u32::MAX - 1)
    }

    /// Copies a piece, which nobody may be shown before [`Self::settle`]. `true` if it is one that the reader should time
    /// too; `reading` says what the last such one took it, in picoseconds a line.
    ///
    /// # Safety
    /// As for `kernels::copy`; source and destination do not overlap.
    #[inline]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn copy(
        &mut self,
        from: *const u8,
        into: *mut u8,
        bytes: usize,
        reading: impl FnOnce() -> u64,
    ) -> bool {
        if bytes < SHORTEST {
            // SAFETY: as the caller vouches.
            unsafe { kernels::copy(from, into, bytes) };
            return false;
        }
        self.pieces -= 1;
        let is_timed = self.pieces == 0;
        let tries_ordinary = is_timed && self.tries_ordinary(reading);
        let is_streaming = self.is_far && !tries_ordinary;
        let start = is_timed.then(Instant::now);
        // SAFETY: as the caller vouches.
        unsafe { self.copy_with(is_streaming, from, into, bytes) };
        if let Some(start) = start {
            self.settle();
            self.timed = Some(Timed {
                is_streaming,
                writing: per_line(start.elapsed().saturating_sub(clock()), bytes),
            });
        }
        is_timed
    }

    /// Copies a piece like the last one and times nothing; one of the next is the sooner timed.
    ///
    /// # Safety
    /// As for [`Self::copy`].
    #[inline]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn copy_on(&mut self, from: *const u8, into: *mut u8, bytes: usize) {
        self.pieces = (self.pieces - 1).max(1);
        // SAFETY: as the caller vouches.
        unsafe { self.copy_with(self.is_far && bytes >= SHORTEST, from, into, bytes) }
    }

    /// Copies by these stores.
    ///
    /// # Safety
    /// As for `kernels::copy`; source and destination do not overlap.
    #[inline]
    #[allow(unsafe_code)]
    unsafe fn copy_with(&mut self, is_streaming: bool, from: *const u8, into: *mut u8, bytes: usize) {
        match is_streaming {
            // SAFETY: as the caller vouches.
            false => unsafe { kernels::copy_fresh(from, into, bytes) },
            // SAFETY: as the caller vouches.
            true => unsafe { kernels::copy_streaming(from, into, bytes) },
        }
        self.is_loose |= is_streaming;
    }

    /// What was copied is there for everybody who sees what is stored next.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if std::mem::take(&mut self.is_loose) {
            kernels::fence_streaming();
        }
    }

    /// Whether the reader is far, as far as is known.
    #[inline]
    pub(crate) fn is_far(&self) -> bool {
        self.is_far
    }

    /// What writing and reading a line have cost, if any was timed since this was last asked.
    #[inline]
    pub(crate) fn take_cost(&mut self) -> Option<SlotCost> {
        self.cost.take()
    }

    /// A piece is about to be timed: what its reader says now is of the one before. Whether this one is to be written by
    /// ordinary stores whatever is in use.
    #[cold]
    fn tries_ordinary(&mut self, reading: impl FnOnce() -> u64) -> bool {
        self.pieces = if self.timings < FIRST_TIMINGS { SOON } else { TIMED_ONE_IN };
        self.timings = self.timings.wrapping_add(1);
        if let Some(Timed { is_streaming, writing }) = self.timed {
            let cost = SlotCost { writing, reading: reading() };
            if is_streaming == self.is_far {
                self.cost = Some(cost);
            }
            if !is_streaming {
                self.note(cost.of(true));
            }
        }
        self.pieces == SOON || self.timings.is_multiple_of(TRIED_ONE_IN)
    }

    /// Takes a timing of ordinary stores into account.
    #[cold]
    fn note(&mut self, line: u64) {
        self.mean = (3 * self.mean + line.min(LONGEST_PS)) / 4;
        self.is_far = if self.is_far { self.mean > QUICK_PS } else { self.mean > SLOW_PS };
        let disagrees = if self.is_far { line < QUICK_PS } else { line > SLOW_PS };
        if disagrees {
            // Asks again soon, but not at once: several pieces of one message may have met the same interruption.
            self.pieces = SOON;
        }
    }
}

/// The first 8 of `left` bytes as a word; if there are fewer, the rest is 0.
///
/// # Safety
/// They are valid for reads, and there are some.
#[inline]
#[allow(unsafe_code)]
pub(crate) unsafe fn word_at(from: *const u8, left: usize) -> u64 {
    match left {
        8.. => {
            // SAFETY: the caller vouches for 8 bytes; unaligned reads need no more.
            unsafe { from.cast::<u64>().read_unaligned() }
        }
        4 => {
            // SAFETY: the same with 4.
            let [a, b, c, d] = unsafe { from.cast::<[u8; 4]>().read() };
            u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0])
        }
        _ => {
            let mut word = [0; 8];
            // SAFETY: the caller vouches for `left` bytes, fewer than 8.
            unsafe { kernels::copy(from, word.as_mut_ptr(), left) };
            u64::from_ne_bytes(word)
        }
    }
}

/// Picoseconds a line.
pub(crate) fn per_line(took: Duration, bytes: usize) -> u64 {
    (took.as_nanos() as u64).saturating_mul(1000 * LINE_BYTES as u64) / (bytes as u64).max(1)
}

/// What of the time between two readings of the clock is the clock's own: a tenth of what a piece takes.
pub(crate) fn clock() -> Duration {
    static CLOCK: OnceLock<Duration> = OnceLock::new();
    *CLOCK.get_or_init(|| (0..100).map(|_| Instant::now().elapsed()).min().unwrap_or_default())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn after(stores: &mut Stores, lines: &[u64]) -> bool {
        lines.iter().for_each(|&line| stores.note(line));
        stores.is_far
    }

    #[test]
    fn a_time_per_line_is_exact_and_bounded() {
        assert_eq!(per_line(Duration::from_nanos(1280), 8192), 10_000);
        assert_eq!(per_line(Duration::from_secs(1 << 40), 64), u64::MAX / 64);
        assert_eq!(per_line(Duration::ZERO, 0), 0);
    }

    #[test]
    fn it_takes_several_timings_to_change_the_stores() {
        let mut stores = Stores::new(2);
        let (near, between, far) = (8_000, 13_000, 40_000);
        assert!(!after(&mut stores, &[near, u64::MAX, near, near, near, far, near]), "interruptions");
        assert!(after(&mut stores, &[far, far, far]));
        assert!(after(&mut stores, &[near, far, between, between]), "what is between changes nothing");
        assert!(!after(&mut stores, &[near; 8]));
        assert!(!after(&mut stores, &[between; 20]));
    }

    /// What a piece costs depends on where in a call it is: the mean of a quick and a slow half is what counts.
    #[test]
    fn halves_that_differ_count_together() {
        let mut stores = Stores::new(2);
        assert!(after(&mut stores, &[10_000, 25_000].repeat(4)));
        assert!(after(&mut stores, &[10_000, 25_000].repeat(20)));
        assert!(!after(&mut stores, &[5_000, 12_000].repeat(20)));
    }

    #[test]
    fn the_timed_piece_is_not_the_same_of_every_call() {
        for pieces in [1, 2, 4, 8, 12, 32, 48, 64] {
            let places: std::collections::BTreeSet<_> =
                (0..pieces).map(|k| k * TIMED_ONE_IN % pieces).collect();
            assert_eq!(places.len(), pieces as usize);
        }
    }

    #[test]
    #[allow(unsafe_code)]
    fn both_stores_copy() {
        for is_far in [false, true] {
            let mut stores = Stores { is_far, ..Stores::new(2) };
            let from: Vec<u8> = (0..9000_u32).map(|byte| byte as u8).collect();
            for bytes in [0, 1, SHORTEST - 1, SHORTEST, 9000].repeat(100) {
                let mut into = vec![0xA5; bytes];
                // SAFETY: both have as many bytes.
                let timed = unsafe { stores.copy(from.as_ptr(), into.as_mut_ptr(), bytes, || 0) };
                assert!(!timed || bytes >= SHORTEST);
                assert_eq!(into, from[..bytes]);
                let (mut into, pieces) = (vec![0xA5; bytes], stores.pieces);
                // SAFETY: as above.
                unsafe { stores.copy_on(from.as_ptr(), into.as_mut_ptr(), bytes) };
                assert_eq!(into, from[..bytes]);
                assert!(
                    stores.pieces == pieces - 1 || (pieces, stores.pieces) == (1, 1),
                    "the next is due sooner"
                );
            }
        }
    }
}
