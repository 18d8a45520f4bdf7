//! Shared words in which every rank of a host says what it is doing, that it left, and what the first cause is.
//!
//! One memfd, mapped by all ranks, never cleared, gone with the last of them. It is only ever accessed as `AtomicU64`:
//!
//! ```text
//! header   16 words   0 magic and version | 1 ranks | 2 decision: 0, or 1 + the rank whose cause won
//! lines    16 words for each rank, written by that rank only
//!            0 state: sequence << 16 | turn << 1 | running; the turn counts starts, its low bit is the slot
//!            1, 2  signature in slot 0 (low, high)    3, 4  signature in slot 1
//!            5 left: 0, or last sequence << 1 | 1
//! causes  128 words for each rank, written by that rank at most once: 0 length in bytes, then the encoded cause
//! calls   128 words for each rank, written by that rank only: its last 32 collectives, see `calls`
//! ```
//!
//! **What a dead rank was doing.** `start` writes the signature into the slot that the state does *not* name and then
//! stores the new state with Release. Wherever the writer dies, the state names a slot that was complete before it was
//! named and is not being overwritten: a reader of a dead rank's line always gets one whole entry, the same as every
//! other reader. A live writer may come round to the named slot while it is read; then the state has changed, and
//! `read` looks again.
//!
//! **The first cause.** A rank writes its cause into its own place and then swaps the decision from 0 to itself. One
//! swap succeeds, whoever dies when: a proposer that dies before has decided nothing, one that dies after has left a
//! whole cause. So all ranks that look find the same cause, with no rank that decides for the others.
//!
//! Peers are trusted not to be hostile here (they have the secret and the same user), yet no value found on the board
//! can make a reader panic or read outside.
#![allow(unsafe_code)] // the one view of the mapping as atomics, in `Board::words`

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::MmapRaw;
use rustix::fs::{MemfdFlags, SealFlags};
use ubccl_core::{Cause, Error, Result};

use super::calls::CALLS_WORDS;
use super::wire;

const MAGIC: u64 = u64::from_le_bytes(*b"ubcclB02");
const HEADER_WORDS: usize = 16;
const LINE_WORDS: usize = 16; // two cache lines of 64 bytes: adjacent-line prefetch does not couple neighbours
const CAUSE_WORDS: usize = 128;
const DECISION: usize = 2;
const LEFT: usize = 5;
/// A live rank changes its state every 50 ns at most; a reader that loses this often is told "unknown".
const READ_ATTEMPTS: u32 = 10_000;

const WORDS_PER_RANK: usize = LINE_WORDS + CAUSE_WORDS + CALLS_WORDS;

const _: () = assert!(wire::CAUSE_BYTES_MAX <= 8 * (CAUSE_WORDS - 1));

/// What a rank is or was doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    /// The collective sequence number of the last operation it started, 0 before the first.
    pub(crate) sequence: u64,
    /// That operation's signature.
    pub(crate) signature: u128,
    /// Whether the operation has not finished.
    pub(crate) running: bool,
}

/// The first word of a line.
#[derive(Clone, Copy)]
struct State(u64);

impl State {
    const TURNS: u64 = 1 << 15;

    /// The running state of the start after this one, in the other slot.
    fn next(self, sequence: u64) -> State {
        let turn = ((self.0 >> 1) + 1) % Self::TURNS;
        State(sequence << 16 | turn << 1 | 1)
    }

    fn sequence(self) -> u64 {
        self.0 >> 16
    }

    fn is_running(self) -> bool {
        self.0 & 1 == 1
    }

    /// Where in the line the signature stands.
    fn entry(self) -> usize {
        if self.0 & 2 == 0 { 1 } else { 3 }
    }

    /// Whether both are of one start, running or finished. A reader that is stopped for exactly a multiple of
    /// [`State::TURNS`] starts with one sequence would be fooled: those are point-to-point operations between two
    /// collectives, and what it would misread is the text of a warning.
    fn is_same_start(self, other: State) -> bool {
        self.0 >> 1 == other.0 >> 1
    }
}

/// One rank's view of the board.
pub(crate) struct Board {
    map: MmapRaw,
    /// In words.
    length: usize,
    ranks: usize,
    rank: usize,
    /// The first words of this rank's line and of its calls.
    own_line: usize,
    own_calls: usize,
}

impl Board {
    /// Makes the board of `ranks` ranks; for rank 0. The descriptor is what the others open.
    pub(crate) fn create(ranks: u32) -> Result<(Board, OwnedFd)> {
        let fd = sealed_memfd(Self::bytes_for(ranks))?;
        let board = Self::map(&fd, ranks, 0)?;
        board.word(1).store(u64::from(ranks), Ordering::Relaxed);
        board.word(0).store(MAGIC, Ordering::Release); // others get the descriptor after this
        Ok((board, fd))
    }

    /// Opens the board another rank made, checking that it cannot shrink and is for so many ranks.
    pub(crate) fn open(fd: impl AsFd, ranks: u32, rank: u32) -> Result<Board> {
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|e| cannot("read the seals of", e))?;
        let size = rustix::fs::fstat(&fd).map_err(|e| cannot("read the size of", e))?.st_size;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) || size != Self::bytes_for(ranks) as i64 {
            return Err(Error::internal(format!("the shared board is unsealed or has {size} bytes")));
        }
        let board = Self::map(&fd, ranks, rank)?;
        let found = (board.word(0).load(Ordering::Acquire), board.word(1).load(Ordering::Relaxed));
        if found != (MAGIC, u64::from(ranks)) {
            return Err(Error::internal("the shared board is of another version or for another rank count"));
        }
        Ok(board)
    }

    /// Bytes of memory that it takes: whole pages.
    pub(crate) fn bytes(&self) -> u64 {
        (8 * self.length as u64).next_multiple_of(rustix::param::page_size() as u64)
    }

    fn bytes_for(ranks: u32) -> u64 {
        8 * (HEADER_WORDS as u64 + u64::from(ranks) * WORDS_PER_RANK as u64)
    }

    fn map(fd: impl AsFd, ranks: u32, rank: u32) -> Result<Board> {
        let bytes = Self::bytes_for(ranks) as usize;
        let map = memmap2::MmapOptions::new()
            .len(bytes)
            .map_raw(fd.as_fd().as_raw_fd())
            .map_err(|e| Error::system("cannot map the shared board; is the address space limited?", e))?;
        let (own_line, own_calls) = (line_of(rank as usize), calls_of(ranks as usize, rank as usize));
        let (ranks, rank) = (ranks as usize, rank as usize);
        Ok(Board { map, length: bytes / 8, ranks, rank, own_line, own_calls })
    }

    /// Says that this rank starts operation `sequence` with this signature. One thread at a time; a point-to-point
    /// operation may repeat the sequence of the last collective.
    #[inline]
    pub(crate) fn start(&self, sequence: u64, signature: u128) {
        let line: &[AtomicU64; LINE_WORDS] = self.words(self.own_line);
        let last = State(line[0].load(Ordering::Relaxed)); // own line: last written by this rank
        let next = last.next(sequence);
        let entry = next.entry();
        // Pairs with the fence in `read_once`: who sees a new half below also sees the state that left this slot.
        fence(Ordering::Release);
        line[entry].store(signature as u64, Ordering::Relaxed);
        line[entry + 1].store((signature >> 64) as u64, Ordering::Relaxed);
        line[0].store(next.0, Ordering::Release); // pairs with `read_once`
    }

    /// Says that operation `sequence` is over; nothing if a later one has started since.
    #[inline]
    pub(crate) fn finish(&self, sequence: u64) {
        let word = self.word(self.own_line);
        let now = State(word.load(Ordering::Relaxed));
        if now.sequence() == sequence {
            word.store(now.0 & !1, Ordering::Release);
        }
    }

    /// What a rank is doing, or was doing when it died: then every reader gets the same.
    pub(crate) fn read(&self, rank: u32) -> Activity {
        let line = self.line(rank as usize);
        for _ in 0..READ_ATTEMPTS {
            if let Some(activity) = self.read_once(line) {
                return activity;
            }
        }
        let state = State(self.word(line).load(Ordering::Relaxed));
        Activity { sequence: state.sequence(), signature: 0, running: state.is_running() }
    }

    fn read_once(&self, line: usize) -> Option<Activity> {
        let state = State(self.word(line).load(Ordering::Acquire)); // pairs with the Release in `start`
        let entry = line + state.entry();
        let low = self.word(entry).load(Ordering::Relaxed);
        let high = self.word(entry + 1).load(Ordering::Relaxed);
        fence(Ordering::Acquire); // pairs with the fence in `start`
        let again = State(self.word(line).load(Ordering::Relaxed));
        state.is_same_start(again).then_some(Activity {
            sequence: state.sequence(),
            signature: u128::from(high) << 64 | u128::from(low),
            running: again.is_running(),
        })
    }

    /// Says that this rank leaves and takes part in nothing after `last_sequence`. The first call counts.
    pub(crate) fn leave(&self, last_sequence: u64) {
        let left = self.word(self.own_line + LEFT);
        // Release, pairing with `left`: who sees it also sees everything before. Failure: already left, keep it.
        let _ = left.compare_exchange(0, last_sequence << 1 | 1, Ordering::Release, Ordering::Relaxed);
        // Pairs with itself: of two ranks that leave and then read each other's calls and departures, the later one
        // sees what the earlier one wrote.
        fence(Ordering::SeqCst);
    }

    /// The last sequence of a rank that left.
    pub(crate) fn left(&self, rank: u32) -> Option<u64> {
        let word = self.word(self.line(rank as usize) + LEFT).load(Ordering::Acquire); // pairs with `leave`
        (word & 1 == 1).then_some(word >> 1)
    }

    /// Proposes a first cause and returns the one that won. The caller serialises calls of one rank.
    pub(crate) fn decide(&self, cause: &Cause) -> Cause {
        if let Some(earlier) = self.decision() {
            return earlier;
        }
        self.write_cause(&wire::encode_cause(cause));
        // Success: Release, pairing with `decision`, publishes the cause. Failure: another rank was first.
        let mine = self.rank as u64 + 1;
        let _ = self.word(DECISION).compare_exchange(0, mine, Ordering::AcqRel, Ordering::Acquire);
        self.decision().unwrap_or_else(|| cause.clone())
    }

    /// The first cause, if one was decided.
    pub(crate) fn decision(&self) -> Option<Cause> {
        let winner = self.word(DECISION).load(Ordering::Acquire); // pairs with `decide`
        let winner = winner.checked_sub(1)?;
        let read =
            usize::try_from(winner).ok().filter(|&rank| rank < self.ranks).map(|rank| self.read_cause(rank));
        Some(read.and_then(|bytes| wire::decode_cause(&bytes).ok()).unwrap_or_else(damaged))
    }

    fn write_cause(&self, bytes: &[u8]) {
        let place = self.cause_place(self.rank);
        self.word(place).store(bytes.len() as u64, Ordering::Relaxed);
        for (index, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(place + 1 + index).store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    fn read_cause(&self, rank: usize) -> Vec<u8> {
        let place = self.cause_place(rank);
        let length = self.word(place).load(Ordering::Relaxed).min(wire::CAUSE_BYTES_MAX as u64) as usize;
        let words = (0..length.div_ceil(8)).map(|index| self.word(place + 1 + index).load(Ordering::Relaxed));
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        bytes.truncate(length);
        bytes
    }

    fn line(&self, rank: usize) -> usize {
        assert!(rank < self.ranks, "rank {rank} of {}", self.ranks);
        line_of(rank)
    }

    fn cause_place(&self, rank: usize) -> usize {
        HEADER_WORDS + self.ranks * LINE_WORDS + rank * CAUSE_WORDS
    }

    /// Where the calls of a rank stand.
    pub(super) fn calls_place(&self, rank: u32) -> usize {
        assert!((rank as usize) < self.ranks, "rank {rank} of {}", self.ranks);
        calls_of(self.ranks, rank as usize)
    }

    /// Where the calls of the rank stand whose view this is.
    #[inline]
    pub(super) fn own_calls(&self) -> usize {
        self.own_calls
    }

    #[inline]
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        let [word] = self.words(index);
        word
    }

    /// `N` words from the one at `first` on.
    #[inline]
    pub(super) fn words<const N: usize>(&self, first: usize) -> &[AtomicU64; N] {
        assert!(first < self.length && N <= self.length - first);
        // SAFETY: the mapping holds `length` words and these are among them, so the result is inside the mapping.
        let first = unsafe { self.map.as_mut_ptr().cast::<AtomicU64>().add(first) };
        // SAFETY: the pointer is valid for reads and writes as long as `self` (the memfd is sealed: it cannot shrink
        // under the mapping), page alignment makes every word 8-aligned, and all processes access these bytes only as
        // AtomicU64.
        unsafe { &*first.cast() }
    }
}

fn line_of(rank: usize) -> usize {
    HEADER_WORDS + rank * LINE_WORDS
}

fn calls_of(ranks: usize, rank: usize) -> usize {
    HEADER_WORDS + ranks * (LINE_WORDS + CAUSE_WORDS) + rank * CALLS_WORDS
}

fn sealed_memfd(bytes: u64) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("ubccl-board", flags).map_err(|e| cannot("create", e))?;
    rustix::fs::ftruncate(&fd, bytes).map_err(|e| cannot("size", e))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals).map_err(|e| cannot("seal", e))?;
    Ok(fd)
}

fn cannot(what: &str, source: rustix::io::Errno) -> Error {
    let message =
        format!("cannot {what} the shared board (a memfd); is memory or the number of descriptors limited?");
    Error::system(message, std::io::Error::from(source))
}

fn damaged() -> Cause {
    Cause {
        kind: ubccl_core::ErrorKind::Internal,
        culprit: ubccl_core::Culprit::default(),
        operation: String::new(),
        sequence: 0,
        message: "the shared board is damaged, the first cause is lost".into(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::AtomicBool;

    use ubccl_core::{Culprit, ErrorKind};

    use super::*;

    pub(in super::super) fn boards(ranks: u32) -> Vec<Board> {
        let (first, fd) = Board::create(ranks).unwrap();
        let others = (1..ranks).map(|rank| Board::open(&fd, ranks, rank).unwrap());
        std::iter::once(first).chain(others).collect()
    }

    fn cause(rank: u32) -> Cause {
        let culprit = Culprit { rank, host: "host".into(), pid: rank + 100 };
        let message = format!("proposed by {rank}");
        Cause { kind: ErrorKind::Mismatch, culprit, operation: "op".into(), sequence: 3, message }
    }

    #[test]
    fn every_rank_reads_what_every_rank_does() {
        let boards = boards(3);
        assert_eq!(boards[1].read(2), Activity::default());
        for (rank, board) in (0u32..).zip(&boards) {
            board.start(u64::from(rank) + 1, u128::MAX - u128::from(rank));
            board.start(u64::from(rank) + 2, u128::from(rank) << 70 | 5);
        }
        boards[1].finish(2); // an older one: nothing
        boards[2].finish(4);
        let read = boards[0].read(1);
        assert_eq!(read, Activity { sequence: 3, signature: 1 << 70 | 5, running: true });
        let read = boards[1].read(2);
        assert_eq!(read, Activity { sequence: 4, signature: 2 << 70 | 5, running: false });
    }

    /// Stops the writer after every single store and checks that a reader sees the entry before or after, never a mix.
    #[test]
    fn a_writer_that_dies_between_any_two_stores_leaves_a_whole_entry() {
        let boards = boards(2);
        let (writer, reader) = (&boards[1], &boards[0]);
        let line = writer.line(1);
        writer.start(1, 10 << 64 | 10);
        writer.start(2, 20 << 64 | 20);
        let whole = Activity { sequence: 2, signature: 20 << 64 | 20, running: true };
        let slot = usize::from(State(writer.word(line).load(Ordering::Relaxed)).entry() == 1);
        for word in 0..2 {
            writer.word(line + 1 + 2 * slot + word).store(30, Ordering::Relaxed);
            assert_eq!(reader.read(1), whole);
        }
    }

    #[test]
    fn a_reader_beside_a_running_writer_never_sees_a_mix() {
        let boards = boards(2);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut sequence = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    sequence += 1;
                    boards[1].start(sequence, u128::from(sequence) << 64 | u128::from(sequence));
                    boards[1].finish(sequence);
                }
            });
            let mut last = 0;
            for _ in 0..200_000 {
                let read = boards[0].read(1);
                assert!(read.sequence >= last);
                last = read.sequence;
                let whole = u128::from(read.sequence) << 64 | u128::from(read.sequence);
                assert!(read.signature == whole || read.signature == 0, "{read:?}");
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn leaving_is_seen_by_all_and_only_the_first_counts() {
        let boards = boards(2);
        assert_eq!(boards[0].left(1), None);
        boards[1].leave(0);
        boards[1].leave(7);
        assert_eq!((boards[0].left(1), boards[0].left(0)), (Some(0), None));
    }

    #[test]
    fn of_many_causes_at_once_one_wins_everywhere() {
        for _ in 0..50 {
            let boards = boards(8);
            let barrier = std::sync::Barrier::new(8);
            let won: Vec<Cause> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0u32..)
                    .zip(&boards)
                    .map(|(rank, board)| {
                        let barrier = &barrier;
                        scope.spawn(move || {
                            barrier.wait();
                            board.decide(&cause(rank))
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let winner = won[0].culprit.rank;
            assert_eq!(won, vec![cause(winner); 8]);
            assert_eq!(boards[3].decision(), Some(cause(winner)));
        }
    }

    #[test]
    fn a_damaged_board_is_an_error_and_no_panic() {
        let boards = boards(2);
        boards[0].word(DECISION).store(99, Ordering::Relaxed);
        assert_eq!(boards[1].decision().unwrap().kind, ErrorKind::Internal);
        boards[0].word(DECISION).store(1, Ordering::Relaxed);
        boards[0].word(boards[0].cause_place(0)).store(u64::MAX, Ordering::Relaxed);
        assert_eq!(boards[1].decision().unwrap().kind, ErrorKind::Internal);
    }

    #[test]
    fn a_descriptor_that_is_no_board_is_refused() {
        let (_board, fd) = Board::create(2).unwrap();
        assert!(Board::open(&fd, 3, 1).is_err());
        let plain = rustix::fs::memfd_create("plain", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&plain, Board::bytes_for(2)).unwrap();
        assert!(Board::open(&plain, 2, 1).is_err());
    }
}
