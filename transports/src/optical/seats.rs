//! Who posts and polls: each rank of each communicator has a seat, with memory and completions of its own.
//!
//! The seats of one communicator stand together, in rank order, and the world's own come first: there a seat's number
//! is the rank. Ports, clocks and lives belong to the ranks of the world (see `network`), messages meet by seat (see
//! `matching`), so communicators share time and links and never see each other's messages.

use super::payload::RankMemory;
use std::collections::VecDeque;
use std::ops::{Index, IndexMut};
use ubccl_core::endpoint::{CommunicatorId, Counters, Fault, POINT_TO_POINT_LANE, Place, Stream, Token};
use ubccl_core::plan::PeerRun;
use ubccl_core::prefetch::prefetch_at;
use ubccl_core::{Error, Rank, Result};

/// The number of a seat.
pub(super) type SeatId = u32;

/// Lines of messages are named by two seats and a lane in 64 bits.
const MAX_SEATS: usize = 1 << 24;

/// One rank of one communicator.
#[derive(Debug)]
pub(super) struct Seat {
    /// Which of which communicator.
    pub(super) place: Place,
    /// Whose it is: a rank of the world.
    pub(super) rank: Rank,
    pub(super) is_woken: bool,
    /// Of the operation it posted for last.
    pub(super) operation: Operation,
    pub(super) done: Vec<Token>,
    heeded: Heeded,
    pub(super) faults: VecDeque<Fault>,
    /// By level of the topology.
    pub(super) counters: Vec<Counters>,
    pub(super) memory: RankMemory,
}

/// The most completions that a seat picks: one of each lane of a collective.
const MOST_HEEDED: usize = POINT_TO_POINT_LANE as usize;

/// The completions that a seat is woken for: as many of the list.
#[derive(Clone, Copy, Debug)]
struct Heeded {
    count: usize,
    tokens: [Token; MOST_HEEDED],
}

/// Stands for a number of them: any.
const ANY: usize = usize::MAX;

/// An operation of a seat: which engine does it, and when that is ready.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Operation {
    pub(super) stream: Option<Stream>,
    pub(super) engine: u8,
    pub(super) ready_ps: u64,
    /// The last collective that was started.
    pub(super) started: u64,
}

impl Seat {
    /// See `Endpoint::heed`.
    #[inline]
    pub(super) fn heed(&mut self, wanted: Option<&[Token]>) {
        self.heeded.count = ANY;
        if let Some(wanted) = wanted.filter(|wanted| wanted.len() <= MOST_HEEDED) {
            self.heeded.count = wanted.len();
            self.heeded.tokens.iter_mut().zip(wanted).for_each(|(place, &token)| *place = token);
        }
    }

    /// Whether it is to be woken once this has completed.
    #[inline]
    pub(super) fn heeds(&self, token: Token) -> bool {
        let Heeded { count, tokens } = &self.heeded;
        tokens.get(..*count).is_none_or(|tokens| tokens.contains(&token))
    }
}

/// All seats.
#[derive(Debug)]
pub(super) struct Seats {
    seats: Vec<Seat>,
    /// First seat and size of each communicator.
    communicators: Vec<(SeatId, u32)>,
    /// Of the topology.
    levels: usize,
}

impl Seats {
    /// Those of a world's own communicator.
    pub(super) fn new(ranks: u32, levels: usize) -> Self {
        let mut seats = Seats { seats: Vec::new(), communicators: Vec::new(), levels };
        seats.push(0..ranks);
        seats
    }

    /// A further communicator of these ranks of the world, each at most once.
    pub(super) fn add(&mut self, ranks: &[Rank]) -> Result<CommunicatorId> {
        let mut is_in = vec![false; self.communicators[0].1 as usize];
        for &rank in ranks {
            let Some(is_in) = is_in.get_mut(rank as usize) else {
                let ranks = is_in.len();
                return Err(Error::invalid(format!("there is no rank {rank} in a world of {ranks}")));
            };
            if std::mem::replace(is_in, true) {
                return Err(Error::invalid(format!("rank {rank} cannot be in a communicator twice")));
            }
        }
        if ranks.is_empty() || self.seats.len() + ranks.len() > MAX_SEATS {
            return Err(Error::invalid(format!(
                "a communicator needs a rank, and all of a world have at most {MAX_SEATS} together; it has {} and \
                 would get {}",
                self.seats.len(),
                ranks.len()
            )));
        }
        Ok(self.push(ranks.iter().copied()))
    }

    fn push(&mut self, ranks: impl ExactSizeIterator<Item = Rank>) -> CommunicatorId {
        let communicator = CommunicatorId(self.communicators.len() as u32);
        self.communicators.push((self.seats.len() as SeatId, ranks.len() as u32));
        let levels = self.levels;
        self.seats.extend((0..).zip(ranks).map(|(place, rank)| Seat {
            place: Place { communicator, rank: place },
            rank,
            is_woken: false,
            operation: Operation::default(),
            done: Vec::new(),
            heeded: Heeded { count: ANY, tokens: [Token(0); MOST_HEEDED] },
            faults: VecDeque::new(),
            counters: vec![Counters::default(); levels],
            memory: RankMemory::default(),
        }));
        communicator
    }

    /// Has a seat fetched that will be wanted soon.
    #[inline]
    pub(super) fn foresee(&self, seat: SeatId) {
        prefetch_at(&self.seats, seat as usize);
    }

    /// Whose seat it is, of those of the world's own communicator without a look at it.
    #[inline]
    pub(super) fn place(&self, seat: SeatId) -> Place {
        if seat < self.communicators[0].1 {
            return Place { communicator: CommunicatorId::WORLD, rank: seat };
        }
        self[seat].place
    }

    /// Which rank of the world has it; as above.
    #[inline]
    pub(super) fn rank(&self, seat: SeatId) -> Rank {
        if seat < self.communicators[0].1 { seat } else { self[seat].rank }
    }

    /// The seats of a communicator.
    pub(super) fn of(&self, communicator: CommunicatorId) -> std::ops::Range<SeatId> {
        let (first, size) = self.communicators[communicator.0 as usize];
        first..first + size
    }

    /// How many ranks the communicator of a seat has.
    #[inline]
    pub(super) fn size(&self, seat: SeatId) -> u32 {
        self.communicators[self[seat].place.communicator.0 as usize].1
    }

    /// The seat of another rank of the same communicator.
    #[inline]
    pub(super) fn peer(&self, seat: SeatId, peer: Rank) -> Result<SeatId> {
        let Place { communicator, rank } = self[seat].place;
        let (first, size) = self.communicators[communicator.0 as usize];
        if peer < size {
            return Ok(first + peer);
        }
        Err(Error::internal(format!("rank {rank} posted to rank {peer} of a communicator of {size}")))
    }

    /// The seat of rank 0 of the same communicator, from which the seats of these peers are counted; all of them exist.
    #[inline]
    pub(super) fn of_peers(&self, seat: SeatId, peers: &PeerRun) -> Result<SeatId> {
        let (first, size) = self.communicators[self.place(seat).communicator.0 as usize];
        match peers.iter().find(|&peer| peer >= size) {
            None => Ok(first),
            Some(peer) => self.peer(seat, peer),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> SeatId {
        self.seats.len() as SeatId
    }
}

impl Index<SeatId> for Seats {
    type Output = Seat;

    #[inline]
    fn index(&self, id: SeatId) -> &Seat {
        &self.seats[id as usize]
    }
}

impl IndexMut<SeatId> for Seats {
    #[inline]
    fn index_mut(&mut self, id: SeatId) -> &mut Seat {
        &mut self.seats[id as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_stand_by_communicator_and_rank() {
        let mut seats = Seats::new(4, 1);
        let pair = seats.add(&[3, 1]).unwrap();
        assert_eq!((pair, seats.of(pair), seats.of(CommunicatorId::WORLD)), (CommunicatorId(1), 4..6, 0..4));
        assert_eq!((seats[4].rank, seats[5].rank, seats[5].place.rank), (3, 1, 1));
        assert_eq!((seats.peer(5, 0).unwrap(), seats.peer(2, 3).unwrap(), seats.size(5)), (4, 3, 2));
        assert!(seats.peer(5, 2).unwrap_err().to_string().contains("rank 1 posted to rank 2"));
    }

    #[test]
    fn impossible_communicators_are_refused_and_leave_nothing() {
        let mut seats = Seats::new(4, 1);
        for (ranks, problem) in
            [(&[][..], "needs a rank"), (&[0, 4], "no rank 4"), (&[2, 2], "rank 2 cannot")]
        {
            let error = seats.add(ranks).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        assert_eq!(seats.len(), 4);
    }
}
