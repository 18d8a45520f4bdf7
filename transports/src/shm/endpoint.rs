//! One rank's side of the channels in shared memory.

use super::announcements::Unread;
use super::channel::ChannelMemory;
use super::foreign::Foreign;
use super::geometry::Geometry;
use super::heap::{Heap, Theirs};
use super::one_pass::{LEAST_SHARE, Offered};
use super::publications::Publications;
use super::receives::ReceiveOp;
use super::segment::Segment;
use super::sends::SendOp;
use crate::caches::Caches;
use crate::host::{HostMemory, Pointers};
use crate::local::POINT_TO_POINT_CHANNELS;
use crate::local::bell::{Bell, Bells};
use crate::local::doorbell::{ASLEEP, WATCHED};
use crate::local::fences::Fences;
use crate::local::label::Label;
use crate::local::queue::{Bits, Fifo, Table};
use crate::local::ring::{Consumer, Producer};
use crate::local::stores::Stores;
use crate::local::ways::Ways;
use rustix::process::Pid;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;
use ubccl_core::endpoint::{
    Allocation, Counters, DirectCall, DirectLimits, DirectProgress, Endpoint, Fault, Header, Key, Memory,
    MessageNow, Now, OnePass, OnePassCall, OnePassProgress, POINT_TO_POINT_LANE, Post, Posted, RegionId,
    Stream, TAGGED_LANE, Token, Wake,
};
use ubccl_core::usage::{MemoryKind, Over};
use ubccl_core::{Error, Rank, Result, Signature};

/// How often one poll looks at every channel while something moves and nothing completes: what drives endpoints need not
/// come round for each.
const ROUNDS_PER_POLL: usize = 4;
/// Bytes that a channel moves, bite by bite, before others are looked at.
pub(crate) const AT_ONCE: u64 = 64 << 10;

/// How far an attempt to move a post got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// No room, or nothing there.
    Stuck,
    /// One bite moved, more to come.
    Moved,
    /// The last bite moved.
    Finished,
}

/// The sending end of a channel.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) peer: usize,
    pub(crate) memory: ChannelMemory,
    pub(crate) producer: Producer,
    /// Sends that wait, in order.
    pub(crate) queue: Fifo,
    /// Bytes of the first one that are in slots already.
    pub(crate) sent: u64,
    /// How slots are written.
    pub(crate) stores: Stores,
    /// Whether long messages in ordinary memory go through slots or are read where they are, by length.
    pub(crate) ways: Ways,
    /// Messages that were to be read in the heap since some went through slots.
    pub(crate) read_in_heap: u32,
    /// Bytes of the last message that went through slots.
    pub(crate) last_len: u64,
    /// Whether this rank has received a long message from the peer since it last sent it one: they exchange.
    pub(crate) is_answered: bool,
    /// Whether that was so when the last long message was sent.
    pub(crate) is_two_way: bool,
    /// The same in a collective.
    pub(crate) is_exchange: bool,
    /// Announced messages, in order.
    pub(crate) unread: VecDeque<Unread>,
    /// What was sent.
    pub(crate) counters: Counters,
}

/// The receiving end of a channel.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) peer: usize,
    /// The sender's.
    pub(crate) segment: Arc<Segment>,
    /// The sender's process, if its memory can be read.
    pub(crate) foreign: Option<Foreign>,
    pub(crate) memory: ChannelMemory,
    pub(crate) consumer: Consumer,
    /// Receives that wait, in order.
    pub(crate) queue: Fifo,
    /// Bytes of the next message that were received before it was posted.
    pub(crate) begun: u64,
    /// The last entry that ended a sleep merely by being there.
    noticed: u64,
    /// What was received.
    pub(crate) counters: Counters,
}

/// A channel that the reduction at hand takes a piece of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) index: usize,
    /// Whether its message stays in the sender's memory, with one entry for all of it.
    pub(crate) is_announced: bool,
    /// Where it has to be read from first, if this rank has not mapped it.
    pub(crate) elsewhere: Option<(Foreign, u64)>,
    /// Its place among the pointers.
    pub(crate) pointer: usize,
}

/// Memory of this rank into which pieces of messages are read that another process has, before they are combined.
#[derive(Debug)]
pub(crate) struct Stage(Box<[u8]>);

impl Stage {
    /// A part of the second cache, which the sources of a reduction share.
    const BYTES: usize = 128 << 10;

    fn new() -> Self {
        Stage(vec![0; Self::BYTES].into_boxed_slice())
    }

    /// The first byte of part `at` of `parts`, and its length, a multiple of 64.
    pub(crate) fn part(&mut self, at: usize, parts: usize) -> (*mut u8, u64) {
        let len = (Self::BYTES / parts.max(1)).max(64) & !63;
        (self.0[at * len..][..len].as_mut_ptr(), len as u64)
    }
}

impl Incoming {
    /// Whether the next entry is there.
    #[inline]
    pub(crate) fn has_entry(&self) -> bool {
        self.consumer.has_entry(self.memory.stamp(self.consumer.next()))
    }

    /// The next entry is there: whether it stands for others, too.
    #[inline]
    pub(crate) fn see(&mut self) {
        let (memory, number) = (&self.memory, self.consumer.next());
        self.consumer.see(|| memory.entries(number));
    }

    /// What the next entry says of its message; meaningful if it is there and has a stamp.
    #[inline]
    pub(crate) fn label(&self) -> Label {
        self.memory.label(self.consumer.next())
    }
}

/// The endpoint of the `shm` transport.
///
/// Messages go through rings in memory that both sides map: up to 24 bytes in the entry itself, more in slots, piece
/// by piece; long ones in memory that the endpoint gave out stay there, and the entry says where. Receives and reductions
/// read straight from the slots, or there. Only what waits is kept, in arrays made at start.
#[derive(Debug)]
pub(crate) struct ShmEndpoint {
    pub(crate) rank: usize,
    pub(crate) ranks: usize,
    /// Per pair: the lanes, then the channel of direct messages and that of tagged ones.
    pub(crate) channels: usize,
    pub(crate) memory: HostMemory,
    /// By peer, then channel.
    pub(crate) outgoing: Vec<Outgoing>,
    /// By peer, then channel.
    pub(crate) incoming: Vec<Incoming>,
    /// Pending sends, by channel number.
    pub(crate) sends: Vec<Table<SendOp>>,
    /// Pending receives, by channel number.
    pub(crate) receives: Vec<Table<ReceiveOp>>,
    /// The outgoing channels on which a send waits.
    pub(crate) sending: Bits,
    /// The outgoing channels with messages that were announced and not read.
    pub(crate) announcing: Bits,
    /// This rank's own segment.
    pub(crate) own: Arc<Segment>,
    heap: Heap,
    /// The incoming channels of the reduction at hand.
    pub(crate) sources: Vec<Source>,
    pub(crate) pointers: Pointers,
    pub(crate) stage: Stage,
    pub(crate) caches: Caches,
    pub(crate) publications: Publications,
    /// The buffers of an all-reduce under way that peers may touch.
    pub(crate) offered: Option<Offered>,
    pub(crate) bells: Bells<Segment>,
    bell: Arc<Bell<Segment>>,
    heard: u32,
    shape: Shape,
}

/// Bytes of shared memory, for those who ask.
#[derive(Clone, Copy, Debug)]
struct Shape {
    segment: u64,
    /// Of this rank's segment, what can ever be touched.
    usable: u64,
}

impl ShmEndpoint {
    /// The endpoint of `rank` over the bells (and in them the segments) of all ranks.
    pub(crate) fn new(
        rank: u32,
        geometry: &Geometry,
        (bells, fences): (Vec<Arc<Bell<Segment>>>, Fences),
    ) -> Self {
        let (rank, ranks, channels) = (rank as usize, geometry.ranks(), geometry.channels());
        let place = |index: usize| (index / channels, index % channels);
        let segment = |of: usize| -> (usize, &Arc<Segment>) { (of, bells[of].place()) };
        let outgoing = (0..ranks * channels).map(place).map(|(peer, channel)| Outgoing {
            peer,
            memory: ChannelMemory::new(geometry, channel, segment(rank), segment(peer)),
            producer: Producer::new(geometry.channel(peer, channel).shape.entries),
            queue: Fifo::new(),
            sent: 0,
            stores: Stores::new(geometry.channel(peer, channel).shape.entries),
            ways: Ways::default(),
            read_in_heap: 0,
            last_len: 0,
            is_answered: false,
            is_two_way: false,
            is_exchange: false,
            unread: VecDeque::with_capacity(geometry.channel(peer, channel).shape.entries as usize),
            counters: Counters::default(),
        });
        let incoming = (0..ranks * channels).map(place).map(|(peer, channel)| Incoming {
            peer,
            segment: bells[peer].place().clone(),
            foreign: None,
            memory: ChannelMemory::new(geometry, channel, segment(peer), segment(rank)),
            consumer: Consumer::new(geometry.channel(peer, channel).shape.entries),
            queue: Fifo::new(),
            begun: 0,
            noticed: 0,
            counters: Counters::default(),
        });
        ShmEndpoint {
            rank,
            ranks,
            channels,
            memory: HostMemory::default(),
            outgoing: outgoing.collect(),
            incoming: incoming.collect(),
            sends: (0..channels).map(|_| Table::new()).collect(),
            receives: (0..channels).map(|_| Table::new()).collect(),
            sending: Bits::new(ranks * channels),
            announcing: Bits::new(ranks * channels),
            own: bells[rank].place().clone(),
            heap: Heap::new(bells[rank].place().clone()),
            sources: Vec::with_capacity(ranks),
            pointers: Pointers::new(ranks),
            stage: Stage::new(),
            caches: Caches::here(),
            publications: Publications::new(rank, geometry, bells.iter().map(|bell| bell.place())),
            offered: None,
            bell: bells[rank].clone(),
            bells: Bells::new(bells, fences),
            heard: 0,
            shape: Shape { segment: geometry.segment_bytes() as u64, usable: geometry.usable_bytes() as u64 },
        }
    }

    /// Tries to read the other ranks' processes, by rank where known, and lets those that can be read know.
    pub(crate) fn meet(&mut self, processes: &[Option<Pid>]) {
        for (channels, process) in self.incoming.chunks_mut(self.channels).zip(processes) {
            let (Some(process), Some(first)) = (process, channels.first()) else {
                continue;
            };
            match Foreign::meet(*process, &first.segment) {
                Ok(foreign) => channels.iter_mut().for_each(|incoming| {
                    incoming.foreign = Some(foreign);
                    incoming.memory.tell_foreign_reading(0);
                }),
                Err(why) => tracing::info!(
                    target: "ubccl::shm", rank = self.rank, peer = first.peer, ?why,
                    "shm: this rank cannot read the peer's memory: long messages from it go through slots"
                ),
            }
        }
    }

    /// The number of a lane's channel.
    #[inline]
    fn lane(&self, key: &Key) -> Result<usize> {
        let lanes = self.channels - POINT_TO_POINT_CHANNELS;
        match key.lane {
            lane if usize::from(lane) < lanes => Ok(usize::from(lane)),
            POINT_TO_POINT_LANE => Ok(lanes),
            TAGGED_LANE => Ok(self.tagged_channel()),
            lane => Err(Error::internal(format!("lane {lane} of {lanes} that shm was connected with"))),
        }
    }

    /// Whether a channel is a lane, and not one of point-to-point messages.
    #[inline]
    pub(crate) fn is_of_collectives(&self, channel: usize) -> bool {
        channel < self.channels - POINT_TO_POINT_CHANNELS
    }

    fn tagged_channel(&self) -> usize {
        self.channels - 1
    }

    /// The index of a channel.
    #[inline]
    pub(crate) fn index(&self, peer: Rank, channel: usize) -> Result<usize> {
        let peer = peer as usize;
        if peer >= self.ranks || peer == self.rank {
            let (rank, ranks) = (self.rank, self.ranks);
            return Err(Error::internal(format!("rank {rank} has no channel to rank {peer} of {ranks}")));
        }
        Ok(peer * self.channels + channel)
    }

    fn move_all(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault> {
        let sent = self.poll_sends(done)? | self.poll_announced(done)?;
        let received = self.poll_receives(done)?;
        Ok(sent | received)
    }

    /// Whether a poll could move anything, or an entry is there that no sleep has ended for yet: it may be one that
    /// nobody posted for, which [`Endpoint::inspect`] has to see.
    fn has_news(&mut self) -> bool {
        let mut unseen = false;
        for incoming in &mut self.incoming {
            let number = incoming.consumer.next() + 1;
            if incoming.has_entry() && incoming.noticed != number {
                incoming.noticed = number;
                unseen = true;
            }
        }
        unseen
            || self.publications.has_news()
            || self.can_send()
            || self.has_been_read()
            || self.can_receive()
    }

    /// The entry at the head of a channel, if it cannot be what this rank is about to take there.
    fn misfit(&self, index: usize, (sequence, signature): (u64, Signature)) -> Option<Fault> {
        let incoming = &self.incoming[index];
        if !incoming.has_entry() {
            return None;
        }
        let theirs = incoming.label().header();
        let expected = match incoming.queue.front() {
            None => theirs.is_stale(sequence, signature).then_some(Header {
                stream: Stream::Collective(sequence),
                signature,
                len: theirs.len, // no post says how long it should be
            }),
            Some(number) => {
                let op = self.receives[index % self.channels].get(number);
                (op.is_untouched() && !op.label.is_of(incoming.label())).then(|| op.label.header())
            }
        };
        expected.map(|ours| Fault::Mismatch { peer: incoming.peer as Rank, theirs, ours })
    }
}

impl Endpoint for ShmEndpoint {
    #[expect(unsafe_code, reason = "the contract's caller vouches for memory")]
    unsafe fn register(&mut self, region: RegionId, memory: Memory) -> Result<()> {
        self.memory.register(region, memory)
    }

    fn allocate(&mut self, bytes: u64) -> Result<Option<Box<dyn Allocation>>> {
        let block = self.heap.allocate(bytes)?;
        Ok(block.map(|block| -> Box<dyn Allocation> { Box::new(block) }))
    }

    fn find_allocation(&mut self, peer: Rank, place: u64, bytes: u64) -> Result<Option<Box<dyn Allocation>>> {
        let segment = &self.incoming[self.index(peer, 0)?].segment;
        let theirs = Theirs::find(segment, place, bytes);
        Ok(theirs.map(|theirs| -> Box<dyn Allocation> { Box::new(theirs) }))
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
    #[expect(unsafe_code, reason = "the contract's caller vouches for memory")]
    unsafe fn message_now(&mut self, key: &Key, message: &MessageNow) -> Result<Now, Fault> {
        let channel = self.lane(key)?;
        let index = self.index(message.peer, channel)?;
        let now = match message.is_send {
            // SAFETY: the caller vouches.
            true => unsafe { self.send_now(index, key, message) }?,
            // SAFETY: as above.
            false => unsafe { self.receive_now(index, key, message) }?,
        };
        self.bells.ring();
        Ok(now)
    }

    #[inline]
    fn poll(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault> {
        let mut moved = false;
        for _ in 0..ROUNDS_PER_POLL {
            let again = self.move_all(done);
            self.bells.ring();
            if !again? {
                break;
            }
            moved = true;
            if !done.is_empty() {
                break; // there may be more to post
            }
        }
        Ok(moved)
    }

    fn inspect(&mut self, sequence: u64, signature: Signature) -> Result<(), Fault> {
        match (0..self.incoming.len()).find_map(|index| self.misfit(index, (sequence, signature))) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    fn direct_limits(&self) -> DirectLimits {
        self.publications.limits()
    }

    #[inline]
    #[expect(unsafe_code, reason = "the contract's caller vouches for memory")]
    unsafe fn direct(
        &mut self,
        key: &Key,
        call: &DirectCall<'_>,
        progress: &mut DirectProgress,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<bool, Fault> {
        // SAFETY: the caller vouches.
        unsafe { self.run_direct(key, call, progress, meanwhile) }
    }

    fn one_pass_from(&self) -> Option<u64> {
        Some(LEAST_SHARE)
    }

    #[expect(unsafe_code, reason = "the contract's caller vouches for memory")]
    unsafe fn one_pass(
        &mut self,
        key: &Key,
        call: &OnePassCall,
        progress: &mut OnePassProgress,
    ) -> Result<OnePass, Fault> {
        // SAFETY: the caller vouches.
        unsafe { self.run_one_pass(key, call, progress) }
    }

    /// Behind a receive that waits for more of its message, the next one cannot be seen.
    #[inline]
    fn probe(&mut self, peer: Rank) -> Result<Option<Header>, Fault> {
        let at = peer as usize * self.channels + self.tagged_channel();
        let Some(incoming) = self.incoming.get(at).filter(|_| peer as usize != self.rank) else {
            return Ok(None);
        };
        let is_next = incoming.queue.is_empty() && incoming.has_entry();
        Ok(is_next.then(|| incoming.label().header()))
    }

    fn cancel(&mut self) {
        self.take_back();
        self.memory.clear();
        self.sending.clear();
        self.sends.iter_mut().for_each(Table::clear);
        self.receives.iter_mut().for_each(Table::clear);
        self.outgoing.iter_mut().for_each(|outgoing| outgoing.queue.clear());
        for incoming in &mut self.incoming {
            incoming.queue.clear();
            incoming.begun = 0;
        }
        self.publications.clear();
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
        let sent = self.outgoing.iter().map(|outgoing| outgoing.counters);
        sent.chain(self.incoming.iter().map(|incoming| incoming.counters)).sum()
    }

    fn count_links(&self, each: &mut dyn FnMut(Over<'_>, Counters)) {
        self.outgoing.iter().for_each(|outgoing| each(Over::Peer(outgoing.peer as Rank), outgoing.counters));
        self.incoming.iter().for_each(|incoming| each(Over::Peer(incoming.peer as Rank), incoming.counters));
    }

    fn count_memory(&self, each: &mut dyn FnMut(MemoryKind, u64)) {
        let channels = size_of_val(&*self.outgoing) + size_of_val(&*self.incoming);
        let sends: usize = self.sends.iter().map(Table::bytes).sum();
        let receives: usize = self.receives.iter().map(Table::bytes).sum();
        each(MemoryKind::Queues, (channels + sends + receives) as u64);
        each(MemoryKind::Shared, self.shape.usable);
        each(MemoryKind::Regions, self.heap.taken());
        each(MemoryKind::Mapped, (self.ranks as u64 - 1) * self.shape.segment);
    }
}

impl Drop for ShmEndpoint {
    /// Whoever drops it may do what it likes with the memory of its sends.
    fn drop(&mut self) {
        self.take_back();
    }
}
