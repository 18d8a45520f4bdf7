//! Fluid: every message is a flow that shares what it crosses with all others under way, max-min fairly.
//!
//! A rank's engine issues one message per max(gap, overhead) and port, and has no more under way than the fabric
//! says; messages of a pair of ranks follow each other, each max(gap, overhead + its flow's time) after the one before. A flow holds the sender's and the receiver's port and
//! the ways out of the groups between them all the time until its last byte has left; that byte is there a latency later.

mod outages;

use super::super::events::{FixedMap, Kind};
use super::super::faults::LinkFaults;
use super::super::recorder::{Injection, Reception, Recorder};
use super::super::slab::{NONE, Slab};
use super::routes::Routes;
use super::sharing::{FlowId, Sharing};
use super::{Agenda, Direction, Timing, Way, Wiring, recorded, tell_ports};
use outages::Outages;
use ubccl_core::Rank;
use ubccl_core::endpoint::Fidelity;
use ubccl_core::topology::{Link, time_at_rate_ps};

/// The state of engines, pairs of ranks and flows.
#[derive(Debug)]
pub(super) struct Fluid {
    links: Vec<Link>,
    routes: Routes,
    sharing: Sharing,
    /// The ports of rank 0, of rank 1, …
    engines: Vec<Engine>,
    /// How many messages an engine has under way at most.
    streams: u32,
    ports_per_rank: usize,
    levels: u8,
    pairs: Vec<Pair>,
    pair_of_ranks: FixedMap<u32>,
    pair_of_line: Vec<u32>,
    queued: Slab<Queued>,
    /// What each flow carries, by message.
    flows: Vec<Way>,
    /// By line, where switches fold: the message that passes its ports, and its flow.
    passing: Vec<(u32, FlowId)>,
    /// Messages of no bytes that begin now.
    empty: Vec<u32>,
    /// The message posted last that is no copy, and when it begins, if its engine took it at once.
    posted: (u32, Option<u64>),
    /// What switches copy, by a message that has to wait.
    copies: FixedMap<Line>,
    /// From when on a copy may begin, by its turn or by its original, if it may not yet by the other.
    half_ready: FixedMap<u64>,
    ended: Vec<u32>,
    faults: Option<Outages>,
}

/// What issues the messages of a rank on one port.
#[derive(Clone, Copy, Debug)]
struct Engine {
    /// When it may issue again.
    free_ps: u64,
    under_way: u32,
    waiting: Line,
}

/// Messages that wait, first come first served.
#[derive(Clone, Copy, Debug)]
struct Line {
    first: u32,
    last: u32,
}

/// The messages from one rank to another.
#[derive(Clone, Copy, Debug)]
struct Pair {
    is_busy: bool,
    /// When the gap after the last message's issue is over.
    free_ps: u64,
    waiting: Line,
}

/// A message behind others.
#[derive(Clone, Copy, Debug)]
struct Queued {
    message: u32,
    way: Way,
    next: u32,
}

impl Fluid {
    pub(super) fn new(wiring: &Wiring<'_>, faults: Option<Box<LinkFaults>>) -> Self {
        let mut sharing = Sharing::default();
        let routes = Routes::new(wiring, &mut sharing);
        let ports_per_rank = wiring.ports_per_rank();
        let engine = Engine { free_ps: 0, under_way: 0, waiting: Line::EMPTY };
        let mut fluid = Fluid {
            links: wiring
                .links
                .iter()
                .map(|link| Link { rate_bytes_per_s: wiring.stream_rate(link), ..*link })
                .collect(),
            routes,
            sharing,
            engines: vec![engine; ports_per_rank * wiring.ranks as usize],
            streams: wiring.streams.unwrap_or(u32::MAX),
            ports_per_rank,
            levels: wiring.topology.levels().len() as u8,
            pairs: Vec::new(),
            pair_of_ranks: FixedMap::default(),
            pair_of_line: Vec::new(),
            queued: Slab::new(),
            flows: Vec::new(),
            passing: Vec::new(),
            empty: Vec::new(),
            posted: (NONE, None),
            copies: FixedMap::default(),
            half_ready: FixedMap::default(),
            ended: Vec::new(),
            faults: faults.map(Outages::new),
        };
        fluid.change_from_start(wiring.ranks);
        fluid
    }

    #[inline]
    fn pair(&mut self, way: &Way) -> u32 {
        let line = way.line as usize;
        if self.pair_of_line.len() <= line {
            self.pair_of_line.resize(line + 1, NONE);
        }
        if self.pair_of_line[line] == NONE {
            let ranks = u64::from(way.from) << 32 | u64::from(way.to);
            let next = self.pairs.len() as u32;
            self.pair_of_line[line] = *self.pair_of_ranks.entry(ranks).or_insert(next);
            if self.pair_of_line[line] == next {
                self.pairs.push(Pair { is_busy: false, free_ps: 0, waiting: Line::EMPTY });
            }
        }
        self.pair_of_line[line]
    }

    #[inline]
    fn engine(&self, way: &Way) -> usize {
        way.from as usize * self.ports_per_rank + usize::from(self.port(way))
    }

    #[inline]
    fn port(&self, way: &Way) -> u8 {
        let own = self.links[usize::from(way.class)].port;
        self.routes.round(way).map_or(own, |(rings, round)| rings.port(&round))
    }

    #[inline]
    fn latency_ps(&self, way: &Way) -> u64 {
        let own_ps = self.links[usize::from(way.class)].latency_ps;
        match self.routes.round(way) {
            None => own_ps,
            Some((rings, round)) => own_ps.saturating_add(rings.passing_ps(&round)),
        }
    }

    /// A message is the first of its pair: its engine takes it, or lets it wait.
    fn come(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>) {
        let (pair, engine) = (self.pair(way) as usize, self.engine(way));
        self.pairs[pair].is_busy = true;
        if way.is_copy {
            return self.may_begin(message, agenda.now_ps, agenda);
        }
        if self.engines[engine].under_way < self.streams {
            self.issue(message, way, agenda);
        } else {
            self.engines[engine].waiting.push(&mut self.queued, message, way);
        }
    }

    fn issue(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>) {
        let (pair, engine) = (self.pair(way) as usize, self.engine(way));
        let Link { send_overhead_ps, gap_ps, .. } = self.links[usize::from(way.class)];
        let engine = &mut self.engines[engine];
        let start_ps = agenda.now_ps.max(way.ready_ps).max(engine.free_ps).max(self.pairs[pair].free_ps);
        engine.free_ps = start_ps.saturating_add(gap_ps.max(send_overhead_ps));
        engine.under_way += 1;
        self.pairs[pair].free_ps = start_ps.saturating_add(gap_ps);
        let begin_ps = start_ps.saturating_add(send_overhead_ps);
        agenda.queue.push(begin_ps, Kind::Begun, message);
        if self.posted.0 == message {
            self.posted.1 = Some(begin_ps);
        }
        if let Some(mut copies) = self.copies.remove(&u64::from(message)) {
            while let Some((copy, _)) = copies.pop(&mut self.queued) {
                self.may_begin(copy, begin_ps, agenda);
            }
        }
    }

    /// It is a copy's turn, or its original begins: with the second of both it does.
    fn may_begin(&mut self, copy: u32, from_ps: u64, agenda: &mut Agenda<'_>) {
        match self.half_ready.remove(&u64::from(copy)) {
            Some(other_ps) => agenda.queue.push(from_ps.max(other_ps), Kind::Begun, copy),
            None => drop(self.half_ready.insert(u64::from(copy), from_ps)),
        }
    }

    /// A message is over: the next one of its pair may come, and the engine may issue one.
    fn release(&mut self, way: &Way, agenda: &mut Agenda<'_>) {
        let (pair, engine) = (self.pair(way) as usize, self.engine(way));
        self.pairs[pair].is_busy = false;
        if !way.is_copy {
            self.engines[engine].under_way -= 1;
        }
        if self.engines[engine].under_way < self.streams
            && let Some((message, way)) = self.engines[engine].waiting.pop(&mut self.queued)
        {
            self.issue(message, &way, agenda);
        }
        if let Some((message, way)) = self.pairs[pair].waiting.pop(&mut self.queued) {
            self.come(message, &way, agenda);
        }
    }

    /// The last byte of a message has left.
    fn leave(&mut self, message: u32, agenda: &mut Agenda<'_>, left: &mut Vec<u32>) {
        let way = self.flows[message as usize];
        let receive_overhead_ps = self.links[usize::from(way.class)].receive_overhead_ps;
        let arrival_ps =
            agenda.now_ps.saturating_add(self.latency_ps(&way)).saturating_add(receive_overhead_ps);
        self.tell(message, &way, agenda, arrival_ps);
        agenda.queue.push(arrival_ps, Kind::Arrived, message);
        left.push(message);
        if let Some(passing) = self.passing.get_mut(way.line as usize).filter(|passing| passing.0 == message)
        {
            passing.0 = NONE;
        }
        self.release(&way, agenda);
    }
}

impl Fluid {
    /// Tells the recorder of a flow that is over: the port's share of it is where the flow begins, however it was spread.
    fn tell(&self, message: u32, way: &Way, agenda: &mut Agenda<'_>, arrival_ps: u64) {
        let Some(recorder) = &mut agenda.recorder else { return };
        let (link, latency_ps, own) =
            (self.links[usize::from(way.class)], self.latency_ps(way), self.port(way));
        let port = |rank, direction| recorded(rank, own, self.ports_per_rank, direction);
        let first_ps = way.ready_ps; // when it began, see `moved`
        let start_ps = first_ps - link.send_overhead_ps.min(first_ps);
        let message_ps = agenda.now_ps - first_ps;
        let port_ps = time_at_rate_ps(way.bytes, link.port_rate_bytes_per_s()).min(message_ps);
        recorder.injected(&Injection {
            message,
            from: way.from,
            to: way.to,
            level: way.class % self.levels,
            port: port(way.from, Direction::Out),
            now_ps: start_ps,
            taken_ps: start_ps,
            start_ps,
            overhead_ps: link.send_overhead_ps,
            held_ps: 0,
            recovery_ps: 0,
            latency_ps,
            port_ps,
            message_ps,
            free_ps: first_ps + port_ps,
            pair_ps: None,
        });
        let head_ps = first_ps.saturating_add(latency_ps);
        recorder.reaches(&Reception {
            message,
            from: way.from,
            to: way.to,
            port: port(way.to, Direction::In),
            now_ps: head_ps,
            begin_ps: head_ps,
            recovery_ps: 0,
            overhead_ps: link.receive_overhead_ps,
            port_ps,
            message_ps,
            arrival_ps,
        });
    }
}

impl Timing for Fluid {
    fn fidelity(&self) -> Fidelity {
        Fidelity::Fluid
    }

    fn post(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>) -> Option<u64> {
        if !way.is_copy {
            self.posted = (message, None);
        }
        let pair = self.pair(way) as usize;
        if self.pairs[pair].is_busy {
            self.pairs[pair].waiting.push(&mut self.queued, message, way);
        } else {
            self.come(message, way, agenda);
        }
        None
    }

    /// A copy begins with its original. Behind others of its pair it waits in the switches.
    fn post_copy(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>) -> Option<u64> {
        match self.posted {
            (_, Some(begin_ps)) => self.may_begin(message, begin_ps, agenda),
            (original, None) => {
                let copies = self.copies.entry(u64::from(original)).or_insert(Line::EMPTY);
                copies.push(&mut self.queued, message, way);
            }
        }
        self.post(message, way, agenda)
    }

    fn moved(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>) {
        if self.flows.len() <= message as usize {
            self.flows.resize(message as usize + 1, *way);
        }
        self.flows[message as usize] = *way;
        if way.bytes == 0 {
            let up_ps = self.faults.as_ref().map(|own| own.faults.up_ps(way.from, way.to, agenda.now_ps));
            return match up_ps.filter(|&up_ps| up_ps > agenda.now_ps) {
                Some(up_ps) => agenda.queue.push(up_ps, Kind::Begun, message),
                None => self.empty.push(message),
            };
        }
        let rate = self.links[usize::from(way.class)].rate_bytes_per_s;
        let bytes =
            if self.faults.is_some() { self.bytes_with_errors(message, way, agenda) } else { way.bytes };
        let hops = self.routes.of(way, &self.sharing);
        let flow = self.sharing.begin(message, bytes, rate, hops, agenda.now_ps);
        if self.links[usize::from(way.class)].reduces && way.fold.is_none() {
            let lines = self.passing.len().max(way.line as usize + 1);
            self.passing.resize(lines, (NONE, flow));
            self.passing[way.line as usize] = (message, flow);
        }
    }

    fn passing(&self, line: u32) -> Option<u32> {
        self.passing.get(line as usize).map(|passing| passing.0).filter(|&message| message != NONE)
    }

    fn fold_rest(&mut self, line: u32, messages: u32, now_ps: u64) {
        let (message, flow) = self.passing[line as usize];
        self.passing[line as usize].0 = NONE;
        let way = self.flows[message as usize];
        self.sharing.lighten(flow, self.routes.folded_weight(&way, messages), now_ps);
    }

    fn lost(&mut self, _message: u32, way: &Way, agenda: &mut Agenda<'_>) {
        self.release(way, agenda);
    }

    #[inline]
    fn next_ps(&self) -> Option<u64> {
        let next_ps = self.sharing.next_ps();
        match &self.faults {
            None => next_ps,
            Some(_) => self.next_with_faults_ps(next_ps),
        }
    }

    fn settle(&mut self, agenda: &mut Agenda<'_>, left: &mut Vec<u32>) {
        let mut ended = std::mem::take(&mut self.ended);
        ended.append(&mut self.empty);
        self.sharing.end(agenda.now_ps, &mut ended);
        for message in ended.drain(..) {
            self.leave(message, agenda, left);
        }
        self.ended = ended;
        if self.faults.is_some() {
            self.make_changes(agenda.now_ps);
        }
        self.sharing.share(agenda.now_ps);
    }

    fn tell_links(&self, levels: &[String], recorder: &mut Recorder) {
        let ranks = (self.engines.len() / self.ports_per_rank) as Rank;
        tell_ports(&self.links, self.routes.rings(), (ranks, self.ports_per_rank), levels, recorder);
    }

    fn memory_bytes(&self) -> usize {
        let lines = self.pair_of_line.capacity() * size_of::<u32>();
        let engines = self.engines.capacity() * size_of::<Engine>();
        let pairs = self.pairs.capacity() * size_of::<Pair>();
        let map = self.pair_of_ranks.capacity() * (size_of::<(u64, u32)>() + 1)
            + self.copies.capacity() * (size_of::<(u64, Line)>() + 1)
            + self.half_ready.capacity() * (size_of::<(u64, u64)>() + 1);
        let flows =
            self.flows.capacity() * size_of::<Way>() + self.passing.capacity() * size_of::<(u32, FlowId)>();
        let faults = self.faults.as_ref().map_or(0, Outages::memory_bytes);
        lines + engines + pairs + map + flows + faults + self.queued.bytes() + self.sharing.memory_bytes()
    }

    fn retries(&self) -> u64 {
        self.faults.as_ref().map_or(0, |own| own.faults.retries())
    }
}

impl Line {
    const EMPTY: Line = Line { first: NONE, last: NONE };

    fn push(&mut self, queued: &mut Slab<Queued>, message: u32, way: &Way) {
        let id = queued.insert(Queued { message, way: *way, next: NONE });
        match self.first {
            NONE => self.first = id,
            _ => queued[self.last].next = id,
        }
        self.last = id;
    }

    fn pop(&mut self, queued: &mut Slab<Queued>) -> Option<(u32, Way)> {
        let id = self.first;
        if id == NONE {
            return None;
        }
        let Queued { message, way, next } = queued[id];
        queued.remove(id);
        self.first = next;
        Some((message, way))
    }
}
