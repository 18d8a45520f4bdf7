//! The state of a simulated world: messages under way, and what happens when. How long they take, `timing` says.

use super::events::{Event, EventHash, EventQueue, Kind, NO_LINK};
use super::fabric::Fabric;
use super::faults::{Faults, Pauses};
use super::foresight::Foresight;
use super::matching::Matching;
use super::payload::{Payload, Workshop, of_rank};
use super::posting::Receive;
use super::recorder::Recorder;
use super::seats::{SeatId, Seats};
use super::slab::Slab;
use super::timing::{self, Agenda, Timing, Way};
use std::num::NonZeroU64;
use ubccl_core::endpoint::{
    Fault, Fidelity, Header, Memory, Place, RegionId, Stream, TAGGED_LANE, Token, WorldOptions, WorldStats,
};
use ubccl_core::record::Record;
use ubccl_core::symbolic::Piece;
use ubccl_core::topology::time_at_rate_ps;
use ubccl_core::{Rank, Result, Signature};

/// All of a world that endpoints share.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) fabric: Fabric,
    pub(super) now_ps: u64,
    pub(super) ranks: Vec<RankState>,
    pub(super) seats: Seats,
    pub(super) matching: Matching,
    pub(super) sends: Slab<Send>,
    pub(super) messages: Slab<Message>,
    pub(super) receives: Slab<Receive>,
    pub(super) queue: EventQueue,
    pub(super) shop: Workshop,
    /// Lists of receives that are over, to be used again.
    pub(super) spare_lists: Vec<Vec<u32>>,
    /// How many folds on the way there were.
    pub(super) folds: u64,
    pub(super) foresight: Foresight,
    pub(super) timing: Box<dyn Timing>,
    faults: Option<Faults>,
    pauses: Option<Pauses>,
    pub(super) recorder: Option<Box<Recorder>>,
    levels: u8,
    /// The events of now, while they are handled.
    bucket: Vec<Event>,
    /// Messages whose last byte left just now.
    left: Vec<u32>,
    woken: Vec<SeatId>,
    /// The ranks that are known to be dead, in the order that they became so.
    pub(super) detected: Vec<Rank>,
    stats: WorldStats,
    hash: EventHash,
}

/// One rank of the world: what it has once, however many communicators it is in.
#[derive(Debug, Default)]
pub(super) struct RankState {
    /// When its copying and reducing are free again.
    compute_free_ps: u64,
    pub(super) is_dead: bool,
}

/// One post of a send: what its messages share.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) seat: SeatId,
    /// Whose seat it is.
    pub(super) rank: Rank,
    /// None once forgotten.
    pub(super) token: Option<Token>,
    pub(super) header: Header,
    pub(super) payload: Payload,
    /// Messages that still need it, and its own event.
    pub(super) holders: u32,
    /// Messages whose last byte has not left, those of known times counted together.
    pub(super) unsent: u32,
    /// The link of its last message.
    pub(super) link: u8,
    /// To how many ranks it goes.
    pub(super) peers: u32,
    /// Which engine moves it, and from when on.
    pub(super) engine: u8,
    pub(super) ready_ps: u64,
}

/// One message: a send to one peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) send: u32,
    /// Ranks of the world.
    from: Rank,
    to: Rank,
    pub(super) line: u32,
    pub(super) link: u8,
    /// The link of which engine.
    class: u8,
    is_copy: bool,
}

impl Network {
    /// Errors: Unsupported, for a fidelity that is not here; InvalidArgument, for faults that cannot be.
    pub(super) fn new(fabric: Fabric, options: &WorldOptions) -> Result<Self> {
        let WorldOptions { ranks, fidelity, seed, .. } = *options;
        let faults = Faults::parse(&options.faults, ranks, fabric.planes(), seed)?;
        let links = faults.as_ref().and_then(Faults::links);
        let timing = timing::of(fidelity, &fabric.wiring(ranks, seed), links)?;
        let mut network = Network {
            now_ps: 0,
            ranks: (0..ranks).map(|_| RankState::default()).collect(),
            seats: Seats::new(ranks, fabric.topology().levels().len()),
            matching: Matching::new(),
            sends: Slab::new(),
            messages: Slab::new(),
            receives: Slab::new(),
            queue: EventQueue::default(),
            shop: Workshop::default(),
            spare_lists: Vec::new(),
            folds: 0,
            foresight: Foresight::default(),
            timing,
            pauses: faults.as_ref().and_then(Faults::pauses),
            faults,
            levels: fabric.topology().levels().len() as u8,
            recorder: None,
            bucket: Vec::new(),
            left: Vec::new(),
            woken: Vec::new(),
            detected: Vec::new(),
            stats: WorldStats::default(),
            hash: EventHash::new(),
            fabric,
        };
        network.schedule();
        Ok(network)
    }

    /// What faults do at their own times.
    fn schedule(&mut self) {
        for (rank, at_ps) in self.faults.iter().flat_map(Faults::deaths) {
            self.queue.push(at_ps, Kind::Died, rank);
        }
        for (rank, at_ps) in self.pauses.iter().flat_map(Pauses::ends) {
            self.queue.push(at_ps, Kind::Resumed, rank);
        }
    }

    /// Handles every event of the next time, and appends the places that have something to poll.
    pub(super) fn step(&mut self, woken: &mut Vec<Place>) -> bool {
        let Some(time_ps) = self.next_ps() else { return false };
        debug_assert!(time_ps >= self.now_ps, "time went back");
        self.now_ps = time_ps;
        // Events may make others of this very time (messages of no bytes): they come after, in a bucket of their own.
        while self.next_ps() == Some(time_ps) {
            self.handle_bucket();
            self.settle();
        }
        self.woken.sort_unstable();
        for seat in self.woken.drain(..) {
            self.seats[seat].is_woken = false;
            woken.push(self.seats[seat].place);
        }
        true
    }

    /// The next time at which something happens.
    #[inline]
    pub(super) fn next_ps(&self) -> Option<u64> {
        match (self.queue.next_time_ps(), self.timing.next_ps()) {
            (Some(event_ps), Some(flow_ps)) => Some(event_ps.min(flow_ps)),
            (event_ps, flow_ps) => event_ps.or(flow_ps),
        }
    }

    /// Handles the events of now that are in the queue now.
    fn handle_bucket(&mut self) {
        if self.queue.next_time_ps() != Some(self.now_ps) {
            return;
        }
        let mut bucket = std::mem::take(&mut self.bucket);
        self.queue.take_next(&mut bucket);
        for (k, &event) in bucket.iter().enumerate() {
            self.foresee(&bucket[k..]);
            self.handle(event);
        }
        self.stats.events += bucket.len() as u64;
        bucket.clear();
        self.bucket = bucket;
    }

    /// Lets flows that end now end, and shares anew what they leave.
    fn settle(&mut self) {
        let mut left = std::mem::take(&mut self.left);
        let recorder = self.recorder.as_deref_mut();
        let agenda = &mut Agenda { now_ps: self.now_ps, queue: &mut self.queue, recorder };
        self.timing.settle(agenda, &mut left);
        self.stats.events += left.len() as u64;
        for message in left.drain(..) {
            let message = self.messages[message];
            self.record(Kind::Left, &message);
            self.part_sent(message.send);
        }
        self.left = left;
    }

    fn handle(&mut self, event: Event) {
        match event.kind {
            Kind::Injected => self.injected(event.target),
            Kind::Head | Kind::Begun => self.moved(event.kind, event.target),
            Kind::Left => unreachable!("the queue holds no flow's end"),
            Kind::Arrived => self.arrived(event.target),
            Kind::Computed => self.computed(event.target),
            Kind::Died => self.died(event.target),
            Kind::Detected => self.detected(event.target),
            Kind::Alarm => self.alarmed(event.target),
            Kind::Resumed => self.resumed(event.target),
        }
    }

    /// Puts one message of a send on its way; when its last byte has left the rank, if that is known.
    ///
    /// `copied` is the link of the send's message before this one, if switches copy there.
    pub(super) fn inject(&mut self, send: u32, to: SeatId, lane: u8, copied: &mut Option<u8>) -> Option<u64> {
        let record = &mut self.sends[send];
        let (seat, from, len) = (record.seat, record.rank, record.header.len);
        record.holders += 1;
        // A rank shares the innermost level with itself.
        let level = self.fabric.topology().shared_level(from, self.seats.rank(to));
        self.seats[seat].counters[level].sent(len);
        let line = self.matching.line(seat, to, lane);
        let to = self.seats.rank(to);
        if from == to {
            let message = Message { send, from, to, line, link: NO_LINK, class: 0, is_copy: false };
            return Some(self.inject_to_itself(message, len));
        }
        let link = level as u8;
        self.sends[send].link = link;
        let Send { engine, ready_ps, .. } = self.sends[send];
        let class = engine * self.levels + link;
        let is_copy = *copied == Some(link);
        let copies = self.fabric.topology().levels()[level].link.multicast;
        let message = self.messages.insert(Message { send, from, to, line, link, class, is_copy });
        let way = Way { from, to, class, ready_ps, bytes: len, line, is_copy, fold: None };
        if let Some(recorder) = &mut self.recorder {
            recorder.sends(message, send, (from, to), len, self.now_ps);
        }
        let recorder = self.recorder.as_deref_mut();
        let agenda = &mut Agenda { now_ps: self.now_ps, queue: &mut self.queue, recorder };
        if is_copy {
            return self.timing.post_copy(message, &way, agenda);
        }
        *copied = copies.then_some(link);
        self.timing.post(message, &way, agenda)
    }

    /// Within a rank a message passes no port; it is a copy.
    fn inject_to_itself(&mut self, message: Message, len: u64) -> u64 {
        let (rank, send) = (message.from, message.send);
        let copy_bytes_per_s = self.fabric.costs(self.sends[send].engine).copy_bytes_per_s;
        let (from_ps, until_ps) = self.compute_ps(rank, len, copy_bytes_per_s, 0);
        let message = self.messages.insert(message);
        if let Some(recorder) = &mut self.recorder {
            recorder.sends(message, send, (rank, rank), len, self.now_ps);
            recorder.carries(message, rank, (from_ps, until_ps), self.now_ps);
        }
        self.queue.push(until_ps, Kind::Arrived, message);
        until_ps
    }

    /// The last byte of all messages whose times are known has left.
    fn injected(&mut self, send: u32) {
        let Send { rank, header, link, .. } = self.sends[send];
        self.hash.event(self.now_ps, Kind::Injected, rank, link, header.len);
        self.part_sent(send);
    }

    /// One of the parts that a send waits for has left; the last one completes it.
    fn part_sent(&mut self, send: u32) {
        let record = &mut self.sends[send];
        record.unsent -= 1;
        if record.unsent > 0 {
            return;
        }
        let Send { seat, rank, token, .. } = *record;
        if let Some(recorder) = &mut self.recorder {
            recorder.sent(send, self.now_ps);
        }
        self.release(send);
        if let Some(token) = token
            && !self.ranks[rank as usize].is_dead
        {
            self.complete(seat, token);
        }
    }

    /// A message begins, or its head reaches the receiver's port.
    fn moved(&mut self, kind: Kind, id: u32) {
        let message = self.messages[id];
        let Message { from, to, class, line, is_copy, .. } = message;
        let bytes = self.record(kind, &message);
        let is_lost = self.is_lost(&message);
        let fold = if is_lost { None } else { self.fold_on_the_way(&message) };
        let way = Way { from, to, class, ready_ps: self.now_ps, bytes, line, is_copy, fold };
        let recorder = self.recorder.as_deref_mut();
        let agenda = &mut Agenda { now_ps: self.now_ps, queue: &mut self.queue, recorder };
        if !is_lost {
            return self.timing.moved(id, &way, agenda);
        }
        self.stats.lost += 1;
        self.timing.lost(id, &way, agenda);
        if kind == Kind::Begun {
            self.part_sent(message.send); // no flow, so nothing else tells
        }
        self.drop_message(id);
    }

    fn arrived(&mut self, id: u32) {
        let message = self.messages[id];
        if message.link != NO_LINK && self.fabric.topology().levels()[usize::from(message.link)].link.reduces
        {
            self.matching.end_moving(message.line);
        }
        let bytes = self.record(Kind::Arrived, &message);
        if self.is_lost(&message) {
            self.stats.lost += 1;
            return self.drop_message(id);
        }
        self.stats.messages += 1;
        self.stats.bytes += bytes;
        if let Some(recorder) = &mut self.recorder {
            recorder.arrived(id, self.now_ps);
        }
        match self.matching.arrive(message.line, id) {
            Some((receive, source)) => self.accept_later(receive, source, id),
            // Its receiver may wait for it without a post.
            None => {
                if let Some(seat) = self.matching.tagged_receiver(message.line) {
                    self.wake(seat);
                }
            }
        }
    }

    /// Adds an event of a message to the hash; the message's bytes.
    #[inline]
    fn record(&mut self, kind: Kind, message: &Message) -> u64 {
        let bytes = self.sends[message.send].header.len;
        self.hash.event(self.now_ps, kind, message.to, message.link, bytes);
        bytes
    }

    #[inline]
    fn is_lost(&self, message: &Message) -> bool {
        self.ranks[message.from as usize].is_dead || self.ranks[message.to as usize].is_dead
    }

    fn drop_message(&mut self, id: u32) {
        let send = self.messages[id].send;
        self.messages.remove(id);
        self.release(send);
    }

    /// One holder fewer; the last one frees the send.
    pub(super) fn release(&mut self, send: u32) {
        let record = &mut self.sends[send];
        record.holders -= 1;
        if record.holders == 0 {
            record.token = None;
            self.shop.recycle(std::mem::take(&mut record.payload));
            self.sends.remove(send);
        }
    }

    /// When a rank begins and ends to copy or reduce so many bytes, which take so much more: now and now, if that takes no
    /// time. A rank does one at a time.
    pub(super) fn compute_ps(
        &mut self,
        rank: Rank,
        bytes: u64,
        rate: Option<NonZeroU64>,
        overhead_ps: u64,
    ) -> (u64, u64) {
        let bytes_ps = rate.map_or(0, |rate| time_at_rate_ps(bytes, rate.get()));
        let duration_ps = bytes_ps.saturating_add(overhead_ps);
        let free_ps = &mut self.ranks[rank as usize].compute_free_ps;
        if duration_ps == 0 {
            return (self.now_ps, self.now_ps);
        }
        let begin_ps = self.now_ps.max(*free_ps);
        *free_ps = match &self.pauses {
            None => begin_ps.saturating_add(duration_ps),
            Some(pauses) => pauses.done_ps(rank, begin_ps, duration_ps),
        };
        (begin_ps, *free_ps)
    }

    pub(super) fn record_compute(&mut self, rank: Rank, bytes: u64) {
        self.hash.event(self.now_ps, Kind::Computed, rank, NO_LINK, bytes);
    }

    pub(super) fn complete(&mut self, seat: SeatId, token: Token) {
        let state = &mut self.seats[seat];
        state.done.push(token);
        if state.heeds(token) {
            self.wake(seat);
        }
    }

    pub(super) fn fail(&mut self, seat: SeatId, fault: Fault) {
        self.seats[seat].faults.push_back(fault);
        self.wake(seat);
    }

    fn wake(&mut self, seat: SeatId) {
        let state = &mut self.seats[seat];
        if !state.is_woken {
            state.is_woken = true;
            self.woken.push(seat);
        }
    }

    /// Whether the rank that has this seat is dead.
    pub(super) fn is_dead(&self, seat: SeatId) -> bool {
        self.ranks[self.seats[seat].rank as usize].is_dead
    }

    /// See `World::kill`.
    pub(super) fn kill(&mut self, rank: Rank, after_ps: u64) {
        if (rank as usize) < self.ranks.len() {
            self.queue.push(self.now_ps.saturating_add(after_ps), Kind::Died, rank);
        }
    }

    /// See `World::alarm`.
    pub(super) fn alarm(&mut self, rank: Rank, after_ps: u64) {
        if (rank as usize) < self.ranks.len() {
            self.queue.push(self.now_ps.saturating_add(after_ps), Kind::Alarm, rank);
        }
    }

    /// See `World::compute`.
    pub(super) fn compute(&mut self, rank: Rank, duration_ps: u64) -> u64 {
        let done_ps = self.pauses.as_ref().map(|pauses| pauses.done_ps(rank, self.now_ps, duration_ps));
        let done_ps = done_ps.unwrap_or(self.now_ps.saturating_add(duration_ps));
        if done_ps > self.now_ps {
            self.alarm(rank, done_ps - self.now_ps);
        }
        done_ps
    }

    /// See `World::stands_until_ps`.
    pub(super) fn stands_until_ps(&self, rank: Rank) -> u64 {
        self.pauses.as_ref().map_or(self.now_ps, |pauses| pauses.stands_until_ps(rank, self.now_ps))
    }

    fn resumed(&mut self, rank: Rank) {
        self.hash.event(self.now_ps, Kind::Resumed, rank, NO_LINK, 0);
        if self.ranks[rank as usize].is_dead {
            return;
        }
        let own = (0..self.seats.len()).filter(|&seat| self.seats[seat].rank == rank);
        own.collect::<Vec<_>>().into_iter().for_each(|seat| self.wake(seat));
    }

    fn alarmed(&mut self, rank: Rank) {
        self.hash.event(self.now_ps, Kind::Alarm, rank, NO_LINK, 0);
        if !self.ranks[rank as usize].is_dead {
            self.wake(rank); // the first seats are those of the communicator of all
        }
    }

    fn died(&mut self, rank: Rank) {
        self.hash.event(self.now_ps, Kind::Died, rank, NO_LINK, 0);
        let state = &mut self.ranks[rank as usize];
        if !state.is_dead {
            state.is_dead = true;
            let delay_ps = self.fabric.detection_ps();
            self.queue.push(self.now_ps.saturating_add(delay_ps), Kind::Detected, rank);
        }
    }

    fn detected(&mut self, rank: Rank) {
        self.hash.event(self.now_ps, Kind::Detected, rank, NO_LINK, 0);
        self.detected.push(rank);
        for seat in 0..self.seats.len() {
            if !self.is_dead(seat) {
                self.wake(seat);
            }
        }
    }

    /// See `World::fidelity`.
    pub(super) fn fidelity(&self) -> Fidelity {
        self.timing.fidelity()
    }

    /// What goes wrong, a line for each.
    pub(super) fn describe_faults(&self) -> String {
        self.faults.as_ref().map_or_else(String::new, Faults::describe)
    }

    /// See `World::stats`.
    pub(super) fn stats(&self) -> WorldStats {
        WorldStats { hash: self.hash.value(), retries: self.timing.retries(), ..self.stats }
    }

    /// See `World::start_recording`.
    pub(super) fn start_recording(&mut self) {
        let levels: Vec<String> =
            self.fabric.topology().levels().iter().map(|level| level.name.clone()).collect();
        let mut recorder = Recorder::new(self.now_ps, self.ranks.len() as u32, levels.clone());
        self.timing.tell_links(&levels, &mut recorder);
        self.recorder = Some(Box::new(recorder));
    }

    /// See `World::stop_recording`.
    pub(super) fn stop_recording(&mut self) -> Record {
        let mut record = self.recorder.take().map_or_else(Record::default, |recorder| recorder.finish());
        if let Some(faults) = &self.faults {
            record.incidents = faults.incidents(record.start_ps, self.now_ps, record.levels.len());
        }
        record
    }

    /// Bytes of the world's tables.
    pub(super) fn bytes(&self) -> usize {
        self.sends.bytes()
            + self.messages.bytes()
            + self.receives.bytes()
            + self.matching.bytes()
            + self.queue.bytes()
            + self.timing.memory_bytes()
    }

    /// See `Endpoint::register`.
    pub(super) fn register(&mut self, seat: SeatId, region: RegionId, memory: Memory) -> Result<()> {
        let seat = &mut self.seats[seat];
        seat.memory.register(region, memory).map_err(|error| of_rank(seat.place.rank, &error))
    }

    /// See `Endpoint::phantom`.
    pub(super) fn phantom(&self, seat: SeatId, region: RegionId) -> Option<Vec<Piece>> {
        self.seats[seat].memory.phantom(region)
    }

    /// See `Endpoint::inspect`.
    pub(super) fn inspect(&self, seat: SeatId, sequence: u64, signature: Signature) -> Result<(), Fault> {
        for (sender, message) in self.matching.messages_for(seat) {
            let theirs = self.sends[self.messages[message].send].header;
            if theirs.is_stale(sequence, signature) {
                let peer = self.seats[sender].place.rank;
                let ours = Header { stream: Stream::Collective(sequence), signature, len: theirs.len };
                return Err(Fault::Mismatch { peer, theirs, ours });
            }
        }
        Ok(())
    }

    /// See `Endpoint::probe`.
    pub(super) fn probe(&self, seat: SeatId, peer: Rank) -> Option<Header> {
        let peer = self.seats.peer(seat, peer).ok()?;
        let message = self.matching.next_message(peer, seat, TAGGED_LANE)?;
        Some(self.sends[self.messages[message].send].header)
    }
}
