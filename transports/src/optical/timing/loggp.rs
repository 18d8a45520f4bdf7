//! LogGP: a closed form for each message, ports that serve one message after the other. [`super::super`] has the formulas.

use super::super::events::{FixedMap, Kind};
use super::super::faults::{LinkFaults, Side};
use super::super::recorder::{Injection, Passing, Reception, Recorder};
use super::super::slab::NONE;
use super::ring::{Rings, Round};
use super::{Agenda, Direction, Timing, Way, Wiring, recorded, tell_ports};
use std::collections::VecDeque;
use ubccl_core::Rank;
use ubccl_core::endpoint::Fidelity;
use ubccl_core::topology::{Link, time_at_rate_ps};

/// The state of all ports.
#[derive(Debug)]
pub(super) struct LogGp {
    links: Vec<LinkState>,
    /// When each port of each rank is free again: those of rank 0, of rank 1, …
    ports: Vec<Port>,
    ports_per_rank: usize,
    levels: u8,
    /// Where ranks stand in rings: by message, where its head is or will be next.
    rings: Option<Rings>,
    heads: Vec<Rank>,
    /// Where one message is slower than its port: those of a pair of ranks follow each other.
    pairs: Pairs,
    /// When the last message that was posted begins, and is sent.
    posted: (u64, u64),
    /// Where switches fold: messages that wait for the others of their fold.
    folds: FixedMap<Fold>,
    /// By line, what is in switches. Only the first may wait for its fold: those behind it do not pass it.
    held: FixedMap<VecDeque<(u32, Way)>>,
    faults: Option<Box<LinkFaults>>,
}

/// How a message passes a port.
#[derive(Clone, Copy, Debug)]
struct Body {
    first_ps: u64,
    last_ps: u64,
    /// When it is through as far as the port is concerned.
    port_ps: u64,
    /// What of the time from first to last went into faults.
    recovery_ps: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Port {
    injection_free_ps: u64,
    reception_free_ps: u64,
}

#[derive(Debug)]
struct LinkState {
    link: Link,
    /// Of the last message, since the next likely has as many bytes, and dividing is slow.
    recent: Serialisation,
}

/// What so many bytes take.
#[derive(Clone, Copy, Debug, Default)]
struct Serialisation {
    bytes: u64,
    /// One message alone.
    message_ps: u64,
    /// Of the port's time.
    port_ps: u64,
}

/// What switches fold into one message.
#[derive(Debug, Default)]
struct Fold {
    /// Messages that are there.
    held: Vec<(u32, Way)>,
    /// How many there will be.
    messages: usize,
}

/// The last message of a pair of ranks.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    /// From when on the next one may start.
    free_ps: u64,
    arrival_ps: u64,
}

/// The last message of each pair of ranks.
#[derive(Debug, Default)]
struct Pairs {
    last: Vec<Last>,
    of_ranks: FixedMap<u32>,
    of_line: Vec<u32>,
}

impl LogGp {
    pub(super) fn new(wiring: &Wiring<'_>, faults: Option<Box<LinkFaults>>) -> Self {
        let ports_per_rank = wiring.ports_per_rank();
        LogGp {
            links: wiring
                .links
                .iter()
                .map(|&link| LinkState {
                    link: Link { rate_bytes_per_s: wiring.stream_rate(&link), ..link },
                    recent: Serialisation::default(),
                })
                .collect(),
            ports: vec![Port::default(); ports_per_rank * wiring.ranks as usize],
            ports_per_rank,
            levels: wiring.topology.levels().len() as u8,
            rings: wiring.rings,
            heads: Vec::new(),
            pairs: Pairs::default(),
            posted: (0, 0),
            folds: FixedMap::default(),
            held: FixedMap::default(),
            faults,
        }
    }

    #[inline]
    fn port(&mut self, rank: u32, port: u8) -> &mut Port {
        &mut self.ports[rank as usize * self.ports_per_rank + usize::from(port)]
    }

    /// The way round of a message, if it goes round a ring.
    #[inline]
    fn round(&self, way: &Way) -> Option<(Rings, Round)> {
        let rings = self.rings?;
        rings.round(way.class, way.from, way.to).map(|round| (rings, round))
    }

    /// By which port of its sender a message leaves, and by which of its receiver it comes.
    #[inline]
    fn port_of(&self, way: &Way, link: &Link) -> u8 {
        self.round(way).map_or(link.port, |(rings, round)| rings.port(&round))
    }

    /// A message is to leave a rank of a ring: it will be at the next one. How long its head takes there.
    fn advance(&mut self, message: u32, way: &Way, at: Rank, latency_ps: u64) -> u64 {
        let Some((rings, round)) = self.round(way) else { return latency_ps };
        let next = round.next(at);
        if self.heads.len() <= message as usize {
            self.heads.resize(message as usize + 1, next);
        }
        self.heads[message as usize] = next;
        if next == way.to { latency_ps } else { rings.hop_ps() }
    }

    /// The rank where a message's head is, if that is to pass it on.
    #[inline]
    fn passed_on_by(&self, message: u32, way: &Way) -> Option<Rank> {
        self.round(way).map(|_| self.heads[message as usize]).filter(|&at| at != way.to)
    }

    /// A message's head is at a rank on its way: the next link takes it, after what came or was posted there before.
    fn pass_on(&mut self, message: u32, way: &Way, at: Rank, agenda: &mut Agenda<'_>) {
        let state = &mut self.links[usize::from(way.class)];
        let (link, Serialisation { message_ps, port_ps, .. }) = (state.link, state.serialisation(way.bytes));
        let port = self.port_of(way, &link);
        let taken_ps = agenda.now_ps.max(self.port(at, port).injection_free_ps);
        let mut body = Body::clean(taken_ps, taken_ps, message_ps, port_ps);
        if let Some(faults) = &mut self.faults {
            let (passage, port_ps) = faults.pass((at, Side::Out), (taken_ps, taken_ps), way.bytes, &link);
            let (sent_ps, sender_ps) = faults.sent(message);
            let last_ps = passage.end_ps.max(sent_ps);
            faults
                .leaves(message, (last_ps, sender_ps + passage.recovery_ps + (passage.begin_ps - taken_ps)));
            body = Body { first_ps: passage.begin_ps, last_ps, port_ps, recovery_ps: passage.recovery_ps };
        }
        self.port(at, port).injection_free_ps = body.port_ps;
        let latency_ps = self.advance(message, way, at, link.latency_ps);
        agenda.queue.push(body.first_ps.saturating_add(latency_ps), Kind::Head, message);
        if let Some(recorder) = &mut agenda.recorder {
            recorder.passes(&Passing {
                message,
                level: way.class % self.levels,
                port: recorded(at, port, self.ports_per_rank, Direction::Out),
                now_ps: agenda.now_ps,
                taken_ps,
                first_ps: body.first_ps,
                port_ps: body.port_ps,
                latency_ps,
            });
        }
    }
}

impl LogGp {
    /// Lets the messages of a line through switches that fold, up to one that has to wait for others.
    fn pass(&mut self, line: u32, agenda: &mut Agenda<'_>) {
        while let Some(&(message, way)) = self.held.get(&u64::from(line)).and_then(VecDeque::front) {
            if let Some((fold, _)) = way.fold {
                self.folds.entry(fold).or_default().held.push((message, way));
                return self.end_fold(fold, agenda);
            }
            self.held.entry(u64::from(line)).or_default().pop_front();
            let arrival_ps = self.receive(message, &way, agenda);
            agenda.queue.push(arrival_ps, Kind::Arrived, message);
        }
    }

    /// What switches fold reaches the receiver once, with the last of it.
    fn end_fold(&mut self, fold: u64, agenda: &mut Agenda<'_>) {
        let is_there = |fold: &Fold| !fold.held.is_empty() && fold.held.len() >= fold.messages;
        if !self.folds.get(&fold).is_some_and(is_there) {
            return;
        }
        let held = self.folds.remove(&fold).unwrap_or_default().held;
        let Some(&(last, way)) = held.last() else { return };
        let arrival_ps = self.receive(last, &way, agenda);
        for &(message, Way { line, .. }) in &held {
            agenda.queue.push(arrival_ps, Kind::Arrived, message);
            self.held.entry(u64::from(line)).or_default().pop_front();
        }
        held.iter().for_each(|(_, way)| self.pass(way.line, agenda));
    }

    /// When a message whose head is there now has arrived.
    #[inline]
    fn receive(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>) -> u64 {
        let state = &mut self.links[usize::from(way.class)];
        let (link, Serialisation { message_ps, port_ps, .. }) = (state.link, state.serialisation(way.bytes));
        let port = self.port_of(way, &link);
        let begin_ps = agenda.now_ps.max(self.port(way.to, port).reception_free_ps);
        let mut body = Body::clean(begin_ps, begin_ps, message_ps, port_ps);
        if let Some(faults) = &mut self.faults {
            let (passage, port_ps) = faults.pass((way.to, Side::In), (begin_ps, begin_ps), way.bytes, &link);
            // Nothing is there before it has left.
            let (sent_ps, sender_ps) = faults.sent(message);
            let last_ps = passage.end_ps.max(sent_ps.saturating_add(link.latency_ps));
            let own_ps = passage.recovery_ps + (passage.begin_ps - begin_ps);
            let recovery_ps = own_ps + sender_ps.min(last_ps - passage.end_ps);
            body = Body { first_ps: begin_ps, last_ps, port_ps, recovery_ps };
        }
        self.port(way.to, port).reception_free_ps = body.port_ps;
        let (message_ps, port_ps) = (body.last_ps - begin_ps, body.port_ps - begin_ps);
        let mut arrival_ps = body.last_ps.saturating_add(link.receive_overhead_ps);
        if port_ps < message_ps || self.faults.is_some() {
            // A short one behind a long one that had to wait.
            let last = self.pairs.last(way);
            last.arrival_ps = last.arrival_ps.max(arrival_ps);
            arrival_ps = last.arrival_ps;
        }
        if let Some(recorder) = &mut agenda.recorder {
            recorder.reaches(&Reception {
                message,
                from: way.from,
                to: way.to,
                port: recorded(way.to, port, self.ports_per_rank, Direction::In),
                now_ps: agenda.now_ps,
                begin_ps,
                recovery_ps: body.recovery_ps,
                overhead_ps: link.receive_overhead_ps,
                port_ps,
                message_ps,
                arrival_ps,
            });
        }
        arrival_ps
    }
}

impl Body {
    /// Without faults.
    #[inline]
    fn clean(first_ps: u64, port_first_ps: u64, message_ps: u64, port_ps: u64) -> Self {
        let (last_ps, port_ps) = (first_ps.saturating_add(message_ps), port_first_ps.saturating_add(port_ps));
        Body { first_ps, last_ps, port_ps, recovery_ps: 0 }
    }
}

impl LinkState {
    #[inline]
    fn serialisation(&mut self, bytes: u64) -> Serialisation {
        if self.recent.bytes != bytes {
            let message_ps = self.link.serialisation_ps(bytes);
            let port_ps = match self.link.port_bytes_per_s {
                None => message_ps,
                Some(rate) => time_at_rate_ps(bytes, rate.get()),
            };
            self.recent = Serialisation { bytes, message_ps, port_ps };
        }
        self.recent
    }
}

impl Timing for LogGp {
    fn fidelity(&self) -> Fidelity {
        Fidelity::LogGp
    }

    #[inline]
    fn post(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>) -> Option<u64> {
        let state = &mut self.links[usize::from(way.class)];
        let (link, Serialisation { message_ps, port_ps, .. }) = (state.link, state.serialisation(way.bytes));
        let port = self.port_of(way, &link);
        let free_ps = self.port(way.from, port).injection_free_ps;
        let taken_ps = agenda.now_ps.max(way.ready_ps).max(free_ps);
        let mut start_ps = taken_ps;
        let follows = port_ps < message_ps;
        if follows {
            start_ps = start_ps.max(self.pairs.last(way).free_ps);
        }
        let ready_ps = start_ps.saturating_add(link.send_overhead_ps);
        let port_first_ps = taken_ps.saturating_add(link.send_overhead_ps);
        let mut body = Body::clean(ready_ps, port_first_ps, message_ps, port_ps);
        if let Some(faults) = &mut self.faults {
            let (passage, port_ps) =
                faults.pass((way.from, Side::Out), (ready_ps, port_first_ps), way.bytes, &link);
            let recovery_ps = passage.recovery_ps;
            faults.leaves(message, (passage.end_ps, recovery_ps + (passage.begin_ps - ready_ps)));
            body = Body { first_ps: passage.begin_ps, last_ps: passage.end_ps, port_ps, recovery_ps };
        }
        let (first_ps, sent_ps) = (body.first_ps, body.last_ps);
        let free_ps = taken_ps.saturating_add(link.gap_ps).max(body.port_ps);
        self.port(way.from, port).injection_free_ps = free_ps;
        if follows {
            self.pairs.last(way).free_ps = sent_ps.max(start_ps.saturating_add(link.gap_ps));
        }
        let latency_ps = match self.rings {
            None => link.latency_ps,
            Some(_) => self.advance(message, way, way.from, link.latency_ps),
        };
        agenda.queue.push(first_ps.saturating_add(latency_ps), Kind::Head, message);
        self.posted = (first_ps, sent_ps);
        if let Some(recorder) = &mut agenda.recorder {
            let pair_ps = follows.then(|| self.pairs.last(way).free_ps);
            recorder.injected(&Injection {
                message,
                from: way.from,
                to: way.to,
                level: way.class % self.levels,
                port: recorded(way.from, port, self.ports_per_rank, Direction::Out),
                now_ps: agenda.now_ps,
                taken_ps,
                start_ps,
                overhead_ps: link.send_overhead_ps,
                held_ps: first_ps - ready_ps,
                recovery_ps: body.recovery_ps,
                latency_ps,
                port_ps: body.port_ps - port_first_ps,
                message_ps: sent_ps - first_ps,
                free_ps,
                pair_ps,
            });
        }
        Some(sent_ps)
    }

    fn post_copy(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>) -> Option<u64> {
        let (first_ps, sent_ps) = self.posted;
        if let Some(faults) = &mut self.faults {
            faults.leaves(message, (sent_ps, 0));
        }
        let latency_ps = self.links[usize::from(way.class)].link.latency_ps;
        agenda.queue.push(first_ps.saturating_add(latency_ps), Kind::Head, message);
        Some(sent_ps)
    }

    /// Heads come in order of time, so the reception port serves messages in the order they reach it.
    #[inline]
    fn moved(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>) {
        if let Some(at) = self.passed_on_by(message, way) {
            return self.pass_on(message, way, at, agenda);
        }
        if !self.links[usize::from(way.class)].link.reduces {
            let arrival_ps = self.receive(message, way, agenda);
            return agenda.queue.push(arrival_ps, Kind::Arrived, message);
        }
        if let Some((fold, messages)) = way.fold {
            self.folds.entry(fold).or_default().messages = messages as usize;
        }
        let line = self.held.entry(u64::from(way.line)).or_default();
        line.push_back((message, *way));
        if line.len() == 1 {
            self.pass(way.line, agenda);
        }
    }

    fn fold_fewer(&mut self, fold: u64, messages: u32, agenda: &mut Agenda<'_>) {
        if let Some(known) = self.folds.get_mut(&fold) {
            known.messages = messages as usize;
            self.end_fold(fold, agenda);
        }
    }

    fn tell_links(&self, levels: &[String], recorder: &mut Recorder) {
        let links: Vec<Link> = self.links.iter().map(|state| state.link).collect();
        let ranks = (self.ports.len() / self.ports_per_rank) as Rank;
        tell_ports(&links, self.rings.as_ref(), (ranks, self.ports_per_rank), levels, recorder);
    }

    fn memory_bytes(&self) -> usize {
        let faults = self.faults.as_ref().map_or(0, |faults| faults.memory_bytes());
        let heads = self.heads.capacity() * size_of::<Rank>();
        self.ports.capacity() * size_of::<Port>() + self.pairs.memory_bytes() + heads + faults
    }

    fn retries(&self) -> u64 {
        self.faults.as_ref().map_or(0, |faults| faults.retries())
    }
}

impl Pairs {
    #[inline]
    fn last(&mut self, way: &Way) -> &mut Last {
        let line = way.line as usize;
        if self.of_line.len() <= line {
            self.of_line.resize(line + 1, NONE);
        }
        if self.of_line[line] == NONE {
            let ranks = u64::from(way.from) << 32 | u64::from(way.to);
            let next = self.last.len() as u32;
            self.of_line[line] = *self.of_ranks.entry(ranks).or_insert(next);
            if self.of_line[line] == next {
                self.last.push(Last::default());
            }
        }
        &mut self.last[self.of_line[line] as usize]
    }

    fn memory_bytes(&self) -> usize {
        let map = self.of_ranks.capacity() * (size_of::<(u64, u32)>() + 1);
        self.last.capacity() * size_of::<Last>() + self.of_line.capacity() * size_of::<u32>() + map
    }
}
