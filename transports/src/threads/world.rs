//! What the ranks of one communicator share: their channels, their seats, and the rule of reading each other's memory.

use super::channel::Channel;
use super::common::Common;
use crate::local::atomics::Word;
use crate::local::bell::{Bell, Words, descriptor};
use crate::local::doorbell::Doorbell;
use crate::local::queue::MAX_PENDING;
use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use ubccl_core::Result;

/// The shared part of all ranks' endpoints.
#[derive(Debug)]
pub(crate) struct World {
    ranks: usize,
    /// For each ordered pair: the lanes, then the channels of direct and of tagged messages.
    channels: usize,
    seats: Vec<CachePadded<Seat>>,
    /// By sender, receiver, channel.
    rings: Vec<Channel>,
    /// Memory that ranks allocated.
    common: Common,
    /// How many endpoints are gone.
    departures: CachePadded<AtomicU32>,
}

impl World {
    pub(crate) fn new(ranks: usize, channels: usize) -> Result<Self> {
        let seats = (0..ranks).map(|rank| Seat::new(rank, channels).map(CachePadded::new));
        Ok(World {
            ranks,
            channels,
            seats: seats.collect::<Result<_>>()?,
            rings: (0..ranks * ranks * channels).map(|_| Channel::default()).collect(),
            common: Common::default(),
            departures: CachePadded::default(),
        })
    }

    pub(crate) fn ranks(&self) -> usize {
        self.ranks
    }

    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// Memory that ranks allocated.
    pub(crate) fn common(&self) -> &Common {
        &self.common
    }

    /// The seat of a rank.
    #[inline]
    pub(crate) fn seat(&self, rank: usize) -> &Seat {
        &self.seats[rank]
    }

    /// A ring.
    #[inline]
    pub(crate) fn ring(&self, from: usize, to: usize, channel: usize) -> &Channel {
        &self.rings[(from * self.ranks + to) * self.channels + channel]
    }

    /// Bytes of the rings that `rank` sends through, and of its seat.
    pub(crate) fn bytes(&self, rank: usize) -> (usize, usize) {
        let first = rank * self.ranks * self.channels;
        let rings = &self.rings[first..first + self.ranks * self.channels];
        let seat = size_of::<CachePadded<Seat>>() + size_of_val(&*self.seat(rank).unread);
        (rings.iter().map(Channel::bytes).sum(), seat)
    }

    /// The bells of all ranks.
    pub(crate) fn bells(&self) -> Vec<Arc<Bell<OwnWords>>> {
        self.seats.iter().map(|seat| seat.bell.clone()).collect()
    }

    /// Takes back everything that `rank` announced. When this returns nobody reads its memory, or ever will on the
    /// strength of what was announced before. Waits for readers in the middle of a bite.
    pub(crate) fn withdraw(&self, rank: usize) {
        end_epoch(&self.seat(rank).epoch, || {
            self.seats.iter().for_each(|reader| drop(reader.reading.lock()))
        });
    }

    /// `rank` is gone for good; what it announced has been withdrawn.
    pub(crate) fn depart(&self, rank: usize) {
        // Release, both: partners of the acquires in `is_gone` and `departures`; all it ever wrote comes first.
        self.seat(rank).gone.store(true, Ordering::Release);
        self.departures.fetch_add(1, Ordering::Release);
    }

    /// How many are gone.
    #[inline]
    pub(crate) fn departures(&self) -> u32 {
        self.departures.load(Ordering::Acquire)
    }
}

/// Ends an epoch. `pass_every_reader` enters and leaves the lock of every rank that may read this one's memory.
#[inline]
fn end_epoch(epoch: &impl Word<u64>, pass_every_reader: impl FnOnce()) {
    // Relaxed: the locks order it. A reader's bite is one critical section of its own lock, in which it looks at the
    // epoch. Of the two sections of that lock, the bite and the one that is passed through here, either the bite was
    // first, and is over; or the other was, and the bite sees the new epoch.
    epoch.fetch_add(1, Ordering::Relaxed);
    pass_every_reader();
}

/// Whether memory that was announced in epoch `then` may be read now, by a rank that holds its own lock.
#[inline]
fn may_read(epoch: &impl Word<u64>, then: u64) -> bool {
    // Relaxed: as in `end_epoch`.
    epoch.load(Ordering::Relaxed) == then
}

/// One rank's place in the world.
#[derive(Debug)]
pub(crate) struct Seat {
    bell: Arc<Bell<OwnWords>>,
    /// How often this rank has withdrawn what it announced.
    epoch: AtomicU64,
    /// Held while this rank reads memory of others.
    reading: CachePadded<Mutex<()>>,
    /// For each send of this rank that is under way, by channel and number: how many peers have not read it yet.
    unread: Box<[AtomicU32]>,
    gone: AtomicBool,
}

impl Seat {
    fn new(rank: usize, channels: usize) -> Result<Self> {
        let words = Arc::new(OwnWords::default());
        Ok(Seat {
            bell: Arc::new(Bell::new(words, descriptor(rank as u32)?)),
            epoch: AtomicU64::new(0),
            reading: CachePadded::default(),
            unread: (0..channels * MAX_PENDING).map(|_| AtomicU32::new(0)).collect(),
            gone: AtomicBool::new(false),
        })
    }

    /// Begins to read others' memory. Only this rank's own thread and, for a moment, ranks that withdraw take the lock.
    #[inline]
    pub(crate) fn begin_reading(&self) -> MutexGuard<'_, ()> {
        self.reading.lock()
    }

    /// The epoch, as this rank itself sees it.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether another rank, which is reading, may read what this one announced in epoch `then`.
    #[inline]
    pub(crate) fn may_be_read(&self, then: u64) -> bool {
        may_read(&self.epoch, then)
    }

    /// How many peers have not read a send.
    #[inline]
    pub(crate) fn unread(&self, channel: usize, send: u16) -> u32 {
        // Acquire: partner of the release in `read`; the readers are through with the memory.
        self.count(channel, send).load(Ordering::Acquire)
    }

    /// How many peers are to read a send that begins.
    #[inline]
    pub(crate) fn set_unread(&self, channel: usize, send: u16, peers: u32) {
        // Relaxed: nobody knows the send before the stamp of its first entry is published.
        self.count(channel, send).store(peers, Ordering::Relaxed);
    }

    /// One peer more has read a send; `true` if it was the last.
    #[inline]
    pub(crate) fn read(&self, channel: usize, send: u16) -> bool {
        // Release: partner of the acquire in `unread`.
        self.count(channel, send).fetch_sub(1, Ordering::Release) == 1
    }

    /// Whether this rank is gone; if so, all that it has ever sent and taken is to be seen.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    #[inline]
    fn count(&self, channel: usize, send: u16) -> &AtomicU32 {
        &self.unread[channel * MAX_PENDING + usize::from(send)]
    }
}

/// The words of a doorbell in this process's memory.
#[derive(Debug, Default)]
pub(crate) struct OwnWords(CachePadded<[AtomicU32; 2]>);

impl Words for OwnWords {
    #[inline]
    fn doorbell(&self) -> Doorbell<'_, AtomicU32> {
        Doorbell { rings: &self.0[0], flags: &self.0[1] }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::AtomicU64;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    struct Shared {
        epoch: AtomicU64,
        readers: [Mutex<()>; 2],
        memory: UnsafeCell<u64>,
    }

    /// Ranks read announced memory, bite by bite, while its owner withdraws it and at once writes there. Loom itself
    /// finds a read that is not over by then or begins later.
    #[test]
    fn loom_nobody_reads_what_was_withdrawn() {
        loom::model(|| {
            let shared = Arc::new(Shared {
                epoch: AtomicU64::new(0),
                readers: [Mutex::new(()), Mutex::new(())],
                memory: UnsafeCell::new(1),
            });
            let readers: Vec<_> = (0..2)
                .map(|reader| {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        for _bite in 0..2 {
                            let _reading = shared.readers[reader].lock().expect("no poison");
                            if may_read(&shared.epoch, 0) {
                                #[expect(unsafe_code, reason = "loom's cells hand out pointers")]
                                // SAFETY: loom checks that nobody writes the cell now.
                                shared.memory.with(|memory| assert_eq!(unsafe { *memory }, 1));
                            }
                        }
                    })
                })
                .collect();
            end_epoch(&shared.epoch, || {
                shared.readers.iter().for_each(|reader| drop(reader.lock().expect("no poison")));
            });
            #[expect(unsafe_code, reason = "loom's cells hand out pointers")]
            // SAFETY: loom checks that nobody else has the cell now.
            shared.memory.with_mut(|memory| unsafe { *memory = 2 });
            readers.into_iter().for_each(|reader| reader.join().expect("a reader ends"));
        });
    }
}
