//! A rank's publications: a few entries that it writes and all its peers read.
//!
//! A publication has the sequence number of its operation, counts up, and stands where `Scattered` puts it. It is
//! there once the entry's stamp is its number; stamps only grow, so nothing is ever cleared. Each rank has one more word
//! that it alone writes, `finished`: the last operation whose publications it has read. An entry may be written again once
//! every reader of what stood there (not of what is to stand there: they differ where roots do) has finished that operation,
//! which is known
//! - from its `finished`, or
//! - from a publication of its own with a higher number: it began that only when it was through with this one.
//!
//! The second is why ranks that all publish, as in an all-reduce, never look at each other's `finished`.
//! A payload that is too long for its entry stands in a place of its own. There are fewer of these, they are given out in
//! turn, whatever number the operation has (so that operations without one leave none out), and the entry says which turn it
//! is. They wait for the readers of what stands there as entries do.
//! All ends keep their own counts in memory of their own and trust nothing that another side may write.

use super::atomics::Word;
use super::scattered::Scattered;
use std::ops::Range;
use std::sync::atomic::Ordering;
use ubccl_core::Rank;

/// How many entries each rank has: it may be so many operations ahead of its readers, less one. Or how many places for
/// payloads: so many operations with one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depth(Scattered);

impl Depth {
    /// So many, which is a power of two and at least 2.
    pub(crate) fn new(entries: usize) -> Self {
        assert!(entries >= 2);
        Depth(Scattered::new(entries))
    }

    /// The entry that operation `number` uses, or the place of payload `number`.
    #[inline]
    pub(crate) fn entry(self, number: u64) -> usize {
        self.0.position(number)
    }

    /// Where in its place payload `number` begins: see [`Scattered::offset`].
    #[inline]
    pub(crate) fn offset(self, number: u64, stride: usize, len: usize) -> usize {
        self.0.offset(number, stride, len)
    }

    fn entries(self) -> usize {
        self.0.positions()
    }
}

/// An operation, and the entry of each rank in which its publication stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) number: u64,
    pub(crate) entry: usize,
}

/// What stands in an entry, or in a place for payloads. Small: there are many, and each call looks at another.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// The operation; 0 is none.
    number: u64,
    /// Who reads it: a number of `Readers`.
    readers: u32,
}

/// The lists of readers that there ever were: of all others, of one, of none, and few besides.
#[derive(Debug)]
struct Readers {
    members: Vec<Rank>,
    lists: Vec<List>,
    /// The one that was asked for last.
    last: u32,
}

#[derive(Debug)]
struct List {
    members: Range<usize>,
    /// All of them have finished all operations up to this one: for most of what is held, one look tells.
    finished: u64,
}

impl Readers {
    fn new(ranks: usize) -> Self {
        // Room for the usual ones, because warm operations allocate nothing.
        let mut lists = Vec::with_capacity(ranks + 4);
        lists.push(List { members: 0..0, finished: u64::MAX });
        Readers { members: Vec::with_capacity(4 * ranks), lists, last: 0 }
    }

    #[inline]
    fn list(&self, number: u32) -> &[Rank] {
        &self.members[self.lists[number as usize].members.clone()]
    }

    /// The number of a list.
    #[inline(always)]
    fn number(&mut self, readers: &[Rank]) -> u32 {
        // Of one each, which is usual, without a call.
        let is_last = match (self.list(self.last), readers) {
            ([known], [reader]) => known == reader,
            (known, readers) => known == readers,
        };
        if !is_last {
            self.last = self.find(readers);
        }
        self.last
    }

    #[cold]
    fn find(&mut self, readers: &[Rank]) -> u32 {
        let known = (0..self.lists.len() as u32).find(|&number| self.list(number) == readers);
        known.unwrap_or_else(|| {
            let first = self.members.len();
            self.members.extend_from_slice(readers);
            self.lists.push(List { members: first..self.members.len(), finished: 0 });
            self.lists.len() as u32 - 1
        })
    }
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Author {
    entries: Depth,
    held: Vec<Held>,
    places: Depth,
    held_in_places: Vec<Held>,
    readers: Readers,
    /// Payloads so far.
    payloads: u64,
    /// By rank: all operations up to this one are finished, as far as is known.
    known: Vec<u64>,
}

impl Author {
    pub(crate) fn new(ranks: usize, entries: Depth, places: Depth) -> Self {
        Author {
            entries,
            held: vec![Held::default(); entries.entries()],
            places,
            held_in_places: vec![Held::default(); places.entries()],
            readers: Readers::new(ranks),
            payloads: 0,
            known: vec![0; ranks],
        }
    }

    /// Where the publications of an operation stand.
    #[inline]
    pub(crate) fn spot(&self, number: u64) -> Spot {
        Spot { number, entry: self.entries.entry(number) }
    }

    /// Who is not through with what stands where an operation is to be published, and which operation that is; the
    /// first such reader. `finished` is each rank's word.
    #[inline(always)]
    pub(crate) fn waits_for<'a, W: Word<u64> + 'a>(
        &mut self,
        spot: Spot,
        has_payload: bool,
        finished: impl Fn(usize) -> &'a W,
    ) -> Option<(usize, u64)> {
        let entry = self.held[spot.entry];
        let place = has_payload.then(|| self.held_in_places[self.places.entry(self.payloads)]);
        let mut late = |held: Held| {
            let is_known = held.number <= self.readers.lists[held.readers as usize].finished;
            if is_known { None } else { self.late(held, &finished) }
        };
        late(entry).or_else(|| late(place?))
    }

    /// The first reader that is not through with something.
    #[cold]
    fn late<'a, W: Word<u64> + 'a>(
        &mut self,
        held: Held,
        finished: impl Fn(usize) -> &'a W,
    ) -> Option<(usize, u64)> {
        let Author { readers, known, .. } = self;
        let list = || readers.list(held.readers).iter().map(|&reader| reader as usize);
        let late = list().find(|&reader| !has_finished(&mut known[reader], held.number, finished(reader)));
        let all = list().map(|reader| known[reader]).min().unwrap_or(u64::MAX);
        readers.lists[held.readers as usize].finished = all;
        late.map(|reader| (reader, held.number))
    }

    /// Whether `reader` has finished an operation, as far as is known or its word says.
    #[inline]
    pub(crate) fn has_finished(&mut self, reader: usize, number: u64, finished: &impl Word<u64>) -> bool {
        has_finished(&mut self.known[reader], number, finished)
    }

    /// Takes the entry of an operation, which nobody is waited for, to be written and shown; these are going to read it.
    #[inline(always)]
    pub(crate) fn take(&mut self, Spot { number, entry }: Spot, readers: &[Rank]) {
        let readers = self.readers.number(readers);
        self.held[entry] = Held { number, readers };
    }

    /// Takes a place for its payload too; which payload it is.
    #[inline]
    pub(crate) fn take_place(&mut self, number: u64, readers: &[Rank]) -> u64 {
        let payload = self.payloads;
        self.payloads += 1;
        let readers = self.readers.number(readers);
        self.held_in_places[self.places.entry(payload)] = Held { number, readers };
        payload
    }

    /// A publication of `peer` for operation `number` was seen, by an acquire: it has finished all before.
    #[inline]
    pub(crate) fn saw(&mut self, peer: usize, number: u64) {
        self.known[peer] = self.known[peer].max(number - 1);
    }
}

/// Looks at a rank's word only if what is known does not suffice.
#[inline]
fn has_finished(known: &mut u64, number: u64, finished: &impl Word<u64>) -> bool {
    if *known < number {
        // Acquire: partner of the release in `finish`; the reader's reads of the entry come first.
        *known = (*known).max(finished.load(Ordering::Acquire));
    }
    *known >= number
}

/// Shows the entry of an operation, taken and written, to all.
#[inline]
pub(crate) fn show(number: u64, stamp: &impl Word<u64>) {
    // Release: partner of the acquire in `stamp_of`; the entry's bytes come first.
    stamp.store(number, Ordering::Release);
}

/// What stands in an entry, for a reader.
#[inline]
pub(crate) fn stamp_of(stamp: &impl Word<u64>) -> u64 {
    // Acquire: partner of the release in `show`.
    stamp.load(Ordering::Acquire)
}

/// Says that this rank has read all that it needs of operation `number`.
#[inline]
pub(crate) fn finish(number: u64, finished: &impl Word<u64>) {
    // Release: partner of the acquire in `has_finished`.
    finished.store(number, Ordering::Release);
}

#[cfg(all(test, loom))]
#[allow(unsafe_code)] // loom's cells give pointers
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    const DEPTH: u64 = 4;
    /// Of payloads.
    const PLACES: usize = 2;

    fn entry(number: u64) -> usize {
        Depth::new(DEPTH as usize).entry(number)
    }

    fn place(payload: u64) -> usize {
        Depth::new(PLACES).entry(payload)
    }

    fn author(ranks: usize) -> Author {
        Author::new(ranks, Depth::new(DEPTH as usize), Depth::new(PLACES))
    }

    /// One rank's words, and payloads that loom guards: a read beside a write fails the model.
    struct Side {
        stamps: [AtomicU64; DEPTH as usize],
        turns: [AtomicU64; DEPTH as usize],
        payloads: [UnsafeCell<u64>; PLACES],
        finished: AtomicU64,
    }

    impl Side {
        fn new() -> Self {
            Side {
                stamps: std::array::from_fn(|_| AtomicU64::new(0)),
                turns: std::array::from_fn(|_| AtomicU64::new(0)),
                payloads: std::array::from_fn(|_| UnsafeCell::new(0)),
                finished: AtomicU64::new(0),
            }
        }

        fn publish(&self, author: &mut Author, number: u64, reader: usize, theirs: &Side) {
            while author.waits_for(author.spot(number), true, |_| &theirs.finished).is_some() {
                thread::yield_now();
            }
            self.write(author, number, reader);
        }

        fn write(&self, author: &mut Author, number: u64, reader: usize) {
            author.take(author.spot(number), &[reader as Rank]);
            let turn = author.take_place(number, &[reader as Rank]);
            self.turns[entry(number)].store(turn, Ordering::Relaxed);
            self.payloads[place(turn)].with_mut(|payload| {
                // SAFETY: loom checks that nobody else touches it.
                unsafe { *payload = number * 10 }
            });
            show(number, &self.stamps[entry(number)]);
        }

        fn read(&self, number: u64) {
            while stamp_of(&self.stamps[entry(number)]) != number {
                thread::yield_now();
            }
            let turn = self.turns[entry(number)].load(Ordering::Relaxed);
            self.payloads[place(turn)].with(|payload| {
                // SAFETY: loom checks that nobody writes it meanwhile.
                assert_eq!(unsafe { *payload }, number * 10);
            });
        }
    }

    /// One writes, one reads: the writer runs ahead as far as there are entries, and overwrites nothing that is unread.
    #[test]
    fn loom_a_publication_stays_until_its_reader_has_finished() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let sides = Arc::new([Side::new(), Side::new()]);
            let shared = sides.clone();
            // The first two numbers that share an entry, and the one after.
            let numbers = [1, 1 + DEPTH, 2 + DEPTH];
            let writer = thread::spawn(move || {
                let mut author = author(2);
                for number in numbers {
                    shared[0].publish(&mut author, number, 1, &shared[1]);
                }
            });
            for number in numbers {
                sides[0].read(number);
                finish(number, &sides[1].finished);
            }
            writer.join().expect("the writer ends");
        });
    }

    /// The next operation in an entry has another reader, who is far ahead: the first one is waited for.
    #[test]
    fn loom_an_entry_waits_for_who_reads_what_stands_there() {
        loom::model(|| {
            let sides = Arc::new([Side::new(), Side::new()]);
            let shared = sides.clone();
            let writer = thread::spawn(move || {
                let mut author = author(3);
                let ahead = AtomicU64::new(2 * DEPTH);
                for (number, reader) in [(1, 1), (1 + DEPTH, 2)] {
                    let finished = |rank| if rank == 1 { &shared[1].finished } else { &ahead };
                    while author.waits_for(author.spot(number), true, finished).is_some() {
                        thread::yield_now();
                    }
                    shared[0].write(&mut author, number, reader);
                }
            });
            sides[0].read(1);
            finish(1, &sides[1].finished);
            writer.join().expect("the writer ends");
        });
    }

    /// Both publish and read each other: nobody looks at `finished`, and still nothing unread is overwritten.
    #[test]
    fn loom_who_publishes_the_next_has_finished_the_last() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let sides = Arc::new([Side::new(), Side::new()]);
            let run = |sides: Arc<[Side; 2]>, me: usize| {
                let mut author = author(2);
                let never = AtomicU64::new(0);
                for number in [1, 2, 1 + DEPTH] {
                    // By the rule of all ranks publishing, `finished` is never needed.
                    assert_eq!(author.waits_for(author.spot(number), true, |_| &never), None);
                    sides[me].publish(&mut author, number, 1 - me, &sides[1 - me]);
                    sides[1 - me].read(number);
                    author.saw(1 - me, number);
                }
            };
            let shared = sides.clone();
            let other = thread::spawn(move || run(shared, 1));
            run(sides, 0);
            other.join().expect("the other rank ends");
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn an_entry_is_free_when_all_readers_have_finished_what_stands_there() {
        let (stamp, nothing) = (AtomicU64::new(0), AtomicU64::new(0));
        let finished = [(); 2].map(|()| AtomicU64::new(0));
        let mut author = Author::new(2, Depth::new(4), Depth::new(2));
        let (next, later) = (3 + 4, 3 + 8);
        assert_eq!(
            author.waits_for(author.spot(3), false, |rank| &finished[rank]),
            None,
            "nothing stands there"
        );
        author.take(author.spot(3), &[1]);
        show(3, &stamp);
        assert_eq!(stamp_of(&stamp), 3);
        assert_eq!(author.waits_for(author.spot(next), false, |rank| &finished[rank]), Some((1, 3)));
        author.saw(1, 3);
        assert_eq!(
            author.waits_for(author.spot(next), false, |rank| &finished[rank]),
            Some((1, 3)),
            "it has begun it, not ended it"
        );
        finish(3, &finished[1]);
        assert_eq!(author.waits_for(author.spot(next), false, |rank| &finished[rank]), None);
        author.take(author.spot(next), &[1]);
        author.saw(1, next + 1);
        assert_eq!(
            author.waits_for(author.spot(later), false, |_| &nothing),
            None,
            "a later publication says the same"
        );
        finished[1].store(0, Ordering::Relaxed);
        assert!(author.has_finished(1, next, &finished[1]), "what is known stays known");
    }

    #[test]
    fn who_has_to_be_through_is_who_reads_what_stands_there() {
        let finished = [(); 3].map(|()| AtomicU64::new(0));
        let mut author = Author::new(3, Depth::new(4), Depth::new(2));
        author.take(author.spot(1), &[1]);
        finish(4, &finished[2]);
        assert_eq!(
            author.waits_for(author.spot(5), false, |rank| &finished[rank]),
            Some((1, 1)),
            "rank 2 does not read operation 1"
        );
        finish(1, &finished[1]);
        finished[2].store(0, Ordering::Relaxed);
        assert_eq!(author.waits_for(author.spot(5), false, |rank| &finished[rank]), None);
        author.take(author.spot(5), &[2]);
        assert_eq!(author.waits_for(author.spot(9), false, |rank| &finished[rank]), Some((2, 5)));
    }

    #[test]
    fn what_all_are_known_to_have_finished_is_not_looked_at_again_and_nothing_else_is_left_out() {
        let finished = [(); 3].map(|()| AtomicU64::new(0));
        let mut author = Author::new(3, Depth::new(4), Depth::new(2));
        for number in 1..=4 {
            author.take(author.spot(number), if number == 3 { &[2] } else { &[0, 2] });
        }
        [0, 2].iter().for_each(|&rank| finish(3, &finished[rank]));
        assert_eq!(author.waits_for(author.spot(5), false, |rank| &finished[rank]), None);
        let never = AtomicU64::new(0);
        for number in [6, 7] {
            assert_eq!(author.waits_for(author.spot(number), false, |_| &never), None, "{number}");
        }
        assert_eq!(author.waits_for(author.spot(8), false, |_| &never), Some((0, 4)));
        finish(4, &finished[0]);
        assert_eq!(author.waits_for(author.spot(8), false, |rank| &finished[rank]), Some((2, 4)));
    }

    #[test]
    fn a_place_is_given_out_in_turn_and_waits_for_its_own_readers() {
        let finished = [(); 3].map(|()| AtomicU64::new(0));
        let mut author = Author::new(3, Depth::new(8), Depth::new(2));
        for (number, reader, payload) in [(1, 1, 0), (5, 2, 1)] {
            assert_eq!(author.waits_for(author.spot(number), true, |rank| &finished[rank]), None);
            author.take(author.spot(number), &[reader]);
            assert_eq!(author.take_place(number, &[reader]), payload, "operations without one take no turn");
        }
        assert_eq!(
            author.waits_for(author.spot(6), false, |rank| &finished[rank]),
            None,
            "its entry is free"
        );
        assert_eq!(author.waits_for(author.spot(6), true, |rank| &finished[rank]), Some((1, 1)));
        finish(5, &finished[2]);
        assert_eq!(
            author.waits_for(author.spot(6), true, |rank| &finished[rank]),
            Some((1, 1)),
            "rank 2 reads another"
        );
        finish(1, &finished[1]);
        assert_eq!(author.waits_for(author.spot(6), true, |rank| &finished[rank]), None);
    }
}
