//! LogGP: a closed form for each message, ports that serve one message after the other. [`super::super`] has the formulas.

use super::super::events::{FixedMap, Kind};
use super::super::recorder::{Injection, Reception, Recorder};
use super::super::slab::NONE;
use super::{Agenda, Timing, Way};
use ubccl_core::Rank;
use ubccl_core::endpoint::Fidelity;
use ubccl_core::record::{self, LinkId};
use ubccl_core::topology::{Link, time_at_rate_ps};

/// The state of all ports.
#[derive(Debug)]
pub(super) struct LogGp {
    links: Vec<LinkState>,
    /// When each port of each rank is free again: those of rank 0, of rank 1, …
    ports: Vec<Port>,
    ports_per_rank: usize,
    /// Where one message is slower than its port: those of a pair of ranks follow each other.
    pairs: Pairs,
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
    pub(super) fn new(links: &[Link], ranks: u32) -> Self {
        let ports_per_rank = links.iter().map(|link| usize::from(link.port) + 1).max().unwrap_or(1);
        LogGp {
            links: links.iter().map(|&link| LinkState { link, recent: Serialisation::default() }).collect(),
            ports: vec![Port::default(); ports_per_rank * ranks as usize],
            ports_per_rank,
            pairs: Pairs::default(),
        }
    }

    #[inline]
    fn port(&mut self, rank: u32, link: &Link) -> &mut Port {
        &mut self.ports[rank as usize * self.ports_per_rank + usize::from(link.port)]
    }

    /// A port's number in a record: each has two directions.
    fn recorded(&self, rank: Rank, link: &Link, direction: Direction) -> LinkId {
        let port = rank as usize * self.ports_per_rank + usize::from(link.port);
        LinkId(2 * port as u32 + direction as u32)
    }

    /// The levels that share a port.
    fn levels_of(&self, port: usize, levels: &[String]) -> String {
        let of_port = self.links.iter().zip(levels).filter(|(state, _)| usize::from(state.link.port) == port);
        of_port.map(|(_, level)| level.as_str()).collect::<Vec<_>>().join("/")
    }
}

/// Of a port, as links of a record are numbered.
#[derive(Clone, Copy, Debug)]
enum Direction {
    Out = 0,
    In = 1,
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
        let state = &mut self.links[usize::from(way.link)];
        let (link, Serialisation { message_ps, port_ps, .. }) = (state.link, state.serialisation(way.bytes));
        let port = self.port(way.from, &link);
        let taken_ps = agenda.now_ps.max(port.injection_free_ps);
        let free_ps = taken_ps.saturating_add(link.gap_ps.max(link.send_overhead_ps.saturating_add(port_ps)));
        port.injection_free_ps = free_ps;
        let mut start_ps = taken_ps;
        let follows = port_ps < message_ps;
        if follows {
            start_ps = start_ps.max(self.pairs.last(way).free_ps);
        }
        let first_ps = start_ps.saturating_add(link.send_overhead_ps);
        let sent_ps = first_ps.saturating_add(message_ps);
        if follows {
            self.pairs.last(way).free_ps = sent_ps.max(start_ps.saturating_add(link.gap_ps));
        }
        agenda.queue.push(first_ps.saturating_add(link.latency_ps), Kind::Head, message);
        if let Some(recorder) = &mut agenda.recorder {
            let pair_ps = follows.then(|| self.pairs.last(way).free_ps);
            recorder.injected(&Injection {
                message,
                from: way.from,
                to: way.to,
                level: way.link,
                port: self.recorded(way.from, &link, Direction::Out),
                now_ps: agenda.now_ps,
                taken_ps,
                start_ps,
                overhead_ps: link.send_overhead_ps,
                latency_ps: link.latency_ps,
                port_ps,
                message_ps,
                free_ps,
                pair_ps,
            });
        }
        Some(sent_ps)
    }

    /// Heads come in order of time, so the reception port serves messages in the order they reach it.
    #[inline]
    fn moved(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>) {
        let state = &mut self.links[usize::from(way.link)];
        let (link, Serialisation { message_ps, port_ps, .. }) = (state.link, state.serialisation(way.bytes));
        let port = self.port(way.to, &link);
        let begin_ps = agenda.now_ps.max(port.reception_free_ps);
        port.reception_free_ps = begin_ps.saturating_add(port_ps);
        let mut arrival_ps = begin_ps.saturating_add(message_ps).saturating_add(link.receive_overhead_ps);
        if port_ps < message_ps {
            // A short one behind a long one that had to wait.
            let last = self.pairs.last(way);
            last.arrival_ps = last.arrival_ps.max(arrival_ps);
            arrival_ps = last.arrival_ps;
        }
        agenda.queue.push(arrival_ps, Kind::Arrived, message);
        if let Some(recorder) = &mut agenda.recorder {
            recorder.reaches(&Reception {
                message,
                from: way.from,
                to: way.to,
                port: self.recorded(way.to, &link, Direction::In),
                now_ps: agenda.now_ps,
                begin_ps,
                overhead_ps: link.receive_overhead_ps,
                port_ps,
                message_ps,
                arrival_ps,
            });
        }
    }

    /// The ports of each rank, out and in.
    fn tell_links(&self, levels: &[String], recorder: &mut Recorder) {
        let ports = 0..self.ports_per_rank;
        let is_only = self.ports_per_rank == 1;
        let names: Vec<[String; 2]> = ports
            .map(|port| match is_only {
                true => ["out".to_owned(), "in".to_owned()],
                false => ["out", "in"].map(|way| format!("{} {way}", self.levels_of(port, levels))),
            })
            .collect();
        let classes: Vec<[u16; 2]> = names
            .iter()
            .map(|names| names.each_ref().map(|name| recorder.add_class(format!("ranks' ports {name}"))))
            .collect();
        for (index, _) in self.ports.iter().enumerate() {
            let (rank, port) = (index / self.ports_per_rank, index % self.ports_per_rank);
            let of_port = self.links.iter().filter(|state| usize::from(state.link.port) == port);
            let rate_bytes_per_s = of_port.map(|state| state.link.port_rate_bytes_per_s()).max().unwrap_or(1);
            for (name, &class) in names[port].iter().zip(&classes[port]) {
                let (name, rank) = (format!("rank {rank} {name}"), Some(rank as Rank));
                recorder.add_link(record::Link { name, class, rank, rate_bytes_per_s });
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        self.ports.capacity() * size_of::<Port>() + self.pairs.memory_bytes()
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
