//! One rank's side of the world.

use super::receives::ReceiveOp;
use super::sends::SendOp;
use super::world::{OwnWords, World};
use crate::host::{HostMemory, Pointers};
use crate::local::POINT_TO_POINT_CHANNELS;
use crate::local::bell::{Bell, Bells};
use crate::local::doorbell::{ASLEEP, WATCHED};
use crate::local::fences::Fences;
use crate::local::label::Label;
use crate::local::queue::{Fifo, MAX_PENDING, MAX_PENDING_PER_PEER, Table};
use crate::local::ring::{Consumer, Producer};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;
use ubccl_core::endpoint::{
    Allocation, Counters, Endpoint, Fault, Header, Key, Memory, POINT_TO_POINT_LANE, Post, Posted, RegionId,
    Stream, TAGGED_LANE, Token, Wake,
};
use ubccl_core::usage::{MemoryKind, Over};
use ubccl_core::{Error, Rank, Result, Signature};

/// The receiving end of a channel.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) consumer: Consumer,
    /// Receives that wait, in order.
    pub(crate) queue: Fifo,
    /// The last entry that ended a sleep merely by being there.
    noticed: u64,
}

/// The endpoint of the `threads` transport. Only what waits is kept, in arrays made at start.
#[derive(Debug)]
pub(crate) struct ThreadsEndpoint {
    pub(crate) rank: usize,
    pub(crate) world: Arc<World>,
    pub(crate) memory: HostMemory,
    /// The sending ends, by peer, then channel.
    pub(crate) outgoing: Vec<Producer>,
    /// By peer, then channel.
    pub(crate) incoming: Vec<Incoming>,
    /// Sends under way, by channel.
    pub(crate) sends: Vec<Table<SendOp>>,
    /// Receives under way, by channel.
    pub(crate) receives: Vec<Table<ReceiveOp>>,
    pub(crate) pointers: Pointers,
    pub(crate) bells: Bells<OwnWords>,
    pub(crate) counters: Counters,
    bell: Arc<Bell<OwnWords>>,
    heard: u32,
    /// The most posts that can complete in one poll, but for copies.
    most_completions: usize,
    /// The departures that ended a sleep already.
    mourned: u32,
}

impl ThreadsEndpoint {
    pub(crate) fn new(rank: usize, world: Arc<World>) -> Self {
        let (ranks, channels) = (world.ranks(), world.channels());
        let producer = || Producer::new(super::channel::ENTRIES);
        let consumer = || Consumer::new(super::channel::ENTRIES);
        let incoming = || Incoming { consumer: consumer(), queue: Fifo::new(), noticed: 0 };
        let bells = world.bells();
        ThreadsEndpoint {
            rank,
            world,
            memory: HostMemory::default(),
            outgoing: (0..ranks * channels).map(|_| producer()).collect(),
            incoming: (0..ranks * channels).map(|_| incoming()).collect(),
            sends: (0..channels).map(|_| Table::new()).collect(),
            receives: (0..channels).map(|_| Table::new()).collect(),
            pointers: Pointers::new(ranks),
            counters: Counters::default(),
            bell: bells[rank].clone(),
            bells: Bells::new(bells, Fences::Symmetric),
            heard: 0,
            most_completions: channels * (2 * MAX_PENDING_PER_PEER * (ranks - 1)).min(2 * MAX_PENDING),
            mourned: 0,
        }
    }

    /// The number of a lane's channel.
    #[inline]
    fn lane(&self, key: &Key) -> Result<usize> {
        let lanes = self.world.channels() - POINT_TO_POINT_CHANNELS;
        match key.lane {
            lane if usize::from(lane) < lanes => Ok(usize::from(lane)),
            POINT_TO_POINT_LANE => Ok(lanes),
            TAGGED_LANE => Ok(lanes + 1),
            lane => Err(Error::internal(format!("lane {lane} of {lanes} that threads was connected with"))),
        }
    }

    /// The index of a channel.
    #[inline]
    pub(crate) fn index(&self, peer: Rank, channel: usize) -> Result<usize> {
        let (rank, ranks, peer) = (self.rank, self.world.ranks(), peer as usize);
        if peer >= ranks || peer == rank {
            return Err(Error::internal(format!("rank {rank} has no channel to rank {peer} of {ranks}")));
        }
        Ok(peer * self.world.channels() + channel)
    }

    /// What the next entry of an incoming channel says of its message, if it is there.
    #[inline]
    pub(crate) fn arrived(&self, index: usize) -> Option<Label> {
        let (peer, channel) = (index / self.world.channels(), index % self.world.channels());
        let consumer = &self.incoming[index].consumer;
        let entry = self.world.ring(peer, self.rank, channel).entry(consumer.next())?;
        consumer.has_entry(entry.stamp()).then(|| entry.label())
    }

    fn move_all(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault> {
        let sent = self.poll_sends(done);
        let received = self.poll_receives(done)?;
        if !(sent | received) && self.world.departures() > 0 {
            self.look_for_the_lost()?;
        }
        Ok(sent | received)
    }

    /// Whether a poll could move anything, or an entry is there that no sleep has ended for yet (it may be one that
    /// nobody posted for, which [`Endpoint::inspect`] has to see), or a rank is gone since the last sleep.
    fn has_news(&mut self) -> bool {
        let mut unseen = self.mourned != self.world.departures();
        self.mourned = self.world.departures();
        for index in 0..self.incoming.len() {
            let number = self.incoming[index].consumer.next() + 1;
            if self.incoming[index].noticed != number && self.arrived(index).is_some() {
                self.incoming[index].noticed = number;
                unseen = true;
            }
        }
        unseen || self.has_read_sends() || self.can_receive()
    }

    /// The entry at the head of a channel, if it cannot be what this rank is about to take there.
    fn misfit(&self, index: usize, (sequence, signature): (u64, Signature)) -> Option<Fault> {
        let theirs = self.arrived(index)?;
        let channels = self.world.channels();
        let expected = match self.incoming[index].queue.front() {
            None => theirs.header().is_stale(sequence, signature).then_some(Header {
                stream: Stream::Collective(sequence),
                signature,
                len: theirs.len(), // no post says how long it should be
            }),
            Some(number) => {
                let op = self.receives[index % channels].get(number);
                (op.is_untouched() && op.label != theirs).then(|| op.label.header())
            }
        };
        let peer = (index / channels) as Rank;
        expected.map(|ours| Fault::Mismatch { peer, theirs: theirs.header(), ours })
    }
}

impl Endpoint for ThreadsEndpoint {
    #[expect(unsafe_code, reason = "the contract's caller vouches for memory")]
    unsafe fn register(&mut self, region: RegionId, memory: Memory) -> Result<()> {
        self.memory.register(region, memory)
    }

    fn allocate(&mut self, bytes: u64) -> Result<Option<Box<dyn Allocation>>> {
        self.world
            .common()
            .allocate(bytes)
            .map(|memory| -> Option<Box<dyn Allocation>> { Some(Box::new(memory)) })
    }

    fn find_allocation(
        &mut self,
        _peer: Rank,
        place: u64,
        bytes: u64,
    ) -> Result<Option<Box<dyn Allocation>>> {
        let found = self.world.common().find(place, bytes);
        Ok(found.map(|memory| -> Box<dyn Allocation> { Box::new(memory) }))
    }

    fn notify(&mut self, peer: Rank) {
        self.bells.mark(peer as usize);
        self.bells.ring();
    }

    #[inline]
    fn post(&mut self, token: Token, key: &Key, post: &Post) -> Result<Posted, Fault> {
        let lane = self.lane(key)?;
        let posted = match post {
            Post::Send { from, to } => self.post_send(token, (lane, key), *from, to),
            _ => self.post_receive(token, (lane, key), post),
        };
        self.bells.ring();
        posted
    }

    #[inline]
    fn poll(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault> {
        // Once and for all: how many complete in one poll is a matter of luck, which warming up need not have met.
        done.reserve(self.most_completions);
        let moved = self.move_all(done);
        self.bells.ring();
        moved
    }

    /// Behind a receive that waits for more of its message, the next one cannot be seen.
    #[inline]
    fn probe(&mut self, peer: Rank) -> Result<Option<Header>, Fault> {
        let channels = self.world.channels();
        let at = peer as usize * channels + channels - 1;
        let is_next = peer as usize != self.rank && self.incoming.get(at).is_some_and(|i| i.queue.is_empty());
        Ok(if is_next { self.arrived(at).map(|label| label.header()) } else { None })
    }

    fn inspect(&mut self, sequence: u64, signature: Signature) -> Result<(), Fault> {
        match (0..self.incoming.len()).find_map(|index| self.misfit(index, (sequence, signature))) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    fn cancel(&mut self) {
        self.world.withdraw(self.rank);
        self.memory.clear();
        self.sends.iter_mut().for_each(Table::clear);
        self.receives.iter_mut().for_each(Table::clear);
        self.incoming.iter_mut().for_each(|incoming| incoming.queue.clear());
    }

    fn sleep(&mut self, timeout: Duration) -> Result<()> {
        self.sleep_unless(timeout, &|| false)
    }

    fn sleep_unless(&mut self, timeout: Duration, is_there: &dyn Fn() -> bool) -> Result<()> {
        self.bell.doorbell().raise(ASLEEP, self.bells.fences())?;
        let slept = if self.has_news() || is_there() { Ok(()) } else { self.bell.wait(self.heard, timeout) };
        self.bell.doorbell().lower(ASLEEP);
        self.heard = self.bell.doorbell().heard();
        slept
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.bell.clone()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }

    /// Also takes back an earlier ring. Turned on while there is something to poll, the descriptor rings at once.
    fn watch(&mut self, on: bool) {
        self.bell.silence();
        if !on {
            self.bell.doorbell().lower(WATCHED);
            return;
        }
        let raised = self.bell.doorbell().raise(WATCHED, self.bells.fences());
        let heard = self.bell.doorbell().heard();
        // Without the fence something may be missed: then better one look too many.
        if self.has_news() | (heard != self.heard) | raised.is_err() {
            self.heard = heard;
            self.bell.signal();
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn count_links(&self, each: &mut dyn FnMut(Over<'_>, Counters)) {
        if self.world.ranks() > 1 {
            each(Over::Process, self.counters);
        }
    }

    /// Of the world, this rank's seat and what it sends through.
    fn count_memory(&self, each: &mut dyn FnMut(MemoryKind, u64)) {
        let (rings, seat) = self.world.bytes(self.rank);
        let channels = size_of_val(&*self.outgoing) + size_of_val(&*self.incoming);
        let sends: usize = self.sends.iter().map(Table::bytes).sum();
        let receives: usize = self.receives.iter().map(Table::bytes).sum();
        each(MemoryKind::Buffers, rings as u64);
        each(MemoryKind::Queues, (seat + channels + sends + receives) as u64);
    }
}

impl Drop for ThreadsEndpoint {
    fn drop(&mut self) {
        self.cancel();
        self.world.depart(self.rank);
        let others = (0..self.world.ranks()).filter(|&peer| peer != self.rank);
        others.for_each(|peer| self.bells.wake(peer));
    }
}
