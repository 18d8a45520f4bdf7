//! How exactly messages are timed: one trait, a fidelity for each implementation.
//!
//! The network decides what is sent, who meets whom and what completes; a fidelity only says when a message's last
//! byte leaves and when its first byte reaches the receiver's port or its last byte is there. Further fidelities
//! (cells with credits) are further implementations.

mod filling;
mod fluid;
mod loggp;
mod ring;
mod routes;
mod sharing;

use super::events::EventQueue;
use super::fabric::{Striping, Uplink};
use super::faults::LinkFaults;
use super::recorder::Recorder;
use fluid::Fluid;
use loggp::LogGp;
pub(super) use ring::Rings;
use std::fmt;
use ubccl_core::endpoint::Fidelity;
use ubccl_core::record::{self, LinkId};
use ubccl_core::topology::Link;
use ubccl_core::{Error, Rank, Result, Topology};

/// A message, as far as its time goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Ranks of the world, not the same one.
    pub(super) from: Rank,
    pub(super) to: Rank,
    /// The link of which engine and level: engine · levels + level.
    pub(super) class: u8,
    /// Before then its engine is not ready.
    pub(super) ready_ps: u64,
    pub(super) bytes: u64,
    /// Whether it is a copy that switches make of the message before: its sender's port is not used.
    pub(super) is_copy: bool,
    /// If switches fold it with others on their way to one receiver: which fold, and of how many.
    pub(super) fold: Option<(u64, u32)>,
    /// Which line of the matching: lines have one sender, one receiver, and keep order.
    pub(super) line: u32,
}

/// Now, and what is to come.
#[derive(Debug)]
pub(super) struct Agenda<'a> {
    pub(super) now_ps: u64,
    pub(super) queue: &'a mut EventQueue,
    /// Who writes down what happens, if anybody does.
    pub(super) recorder: Option<&'a mut Recorder>,
}

/// One fidelity: ports and links and what is on them.
///
/// Contract:
/// 1. Every message that was posted gets one event of its own, and unless it is lost then, one `Arrived` event.
/// 2. Messages of one line arrive in the order posted.
/// 3. Nothing depends on anything but the posts, their times and order, the seed and the faults.
pub(super) trait Timing: fmt::Debug + Send {
    /// Which it is.
    fn fidelity(&self) -> Fidelity;

    /// A message is posted now. Answers when its last byte leaves its rank, if that is known now; otherwise
    /// [`Timing::settle`] tells it once it is.
    fn post(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>) -> Option<u64>;

    /// The message just posted is also to go to another rank of its sender's link, and switches copy it on the way. The
    /// answer is as for [`Timing::post`].
    fn post_copy(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>) -> Option<u64>;

    /// The message's own event (`Begun` or `Head`) has come.
    fn moved(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>);

    /// A fold on the way has so many messages only: another of them was copied, and comes by itself.
    fn fold_fewer(&mut self, _fold: u64, _messages: u32, _agenda: &mut Agenda<'_>) {}

    /// The message of a line that passes its ports now: switches can still fold the rest of it.
    fn passing(&self, _line: u32) -> Option<u32> {
        None
    }

    /// Switches fold the rest of what passes on a line, with so many messages in all.
    fn fold_rest(&mut self, _line: u32, _messages: u32, _now_ps: u64) {}

    /// Its own event has come, but its sender or receiver is dead: it goes no further, and gets no `Arrived`.
    fn lost(&mut self, _message: u32, _way: &Way, _agenda: &mut Agenda<'_>) {}

    /// The next time at which something happens that is no event of the queue.
    fn next_ps(&self) -> Option<u64> {
        None
    }

    /// Every event of this time was handled. Appends the messages whose last bytes leave their ranks now, in order;
    /// they arrive later, by events of the queue.
    fn settle(&mut self, _agenda: &mut Agenda<'_>, _left: &mut Vec<u32>) {}

    /// Tells a new recorder its links, in an order of its own.
    fn tell_links(&self, levels: &[String], recorder: &mut Recorder);

    /// Bytes of memory it has taken.
    fn memory_bytes(&self) -> usize;

    /// How often bytes were sent again.
    fn retries(&self) -> u64 {
        0
    }
}

/// What a fidelity needs to know of a fabric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wiring<'a> {
    pub(super) topology: &'a Topology,
    /// The links of the first engine's levels, of the second's, …
    pub(super) links: &'a [Link],
    /// Planes of each port, and how messages take them; what is missing has one.
    pub(super) planes: &'a [(u32, Striping)],
    /// The links out of the groups of each level; what is missing binds nobody.
    pub(super) uplinks: &'a [Option<Uplink>],
    /// How many messages a rank's engine has under way on a port at most; none: any number.
    pub(super) streams: Option<u32>,
    /// Rings of ranks, if there are any: they use one port more.
    pub(super) rings: Option<Rings>,
    pub(super) ranks: u32,
    pub(super) seed: u64,
}

impl Wiring<'_> {
    fn ports_per_rank(&self) -> usize {
        let of_links = self.links.iter().map(|link| usize::from(link.port) + 1).max().unwrap_or(1);
        of_links + usize::from(self.rings.is_some())
    }

    /// What a port passes at most, whatever engine. Both of a ring are alike.
    fn port_rate(&self, port: usize) -> u64 {
        let ring = self.rings.as_ref().map(Rings::ports).filter(|ports| usize::from(ports[1]) == port);
        let port = ring.map_or(port, |ports| usize::from(ports[0]));
        let of_port = self.links.iter().filter(|link| usize::from(link.port) == port);
        of_port.map(Link::port_rate_bytes_per_s).max().unwrap_or(1)
    }

    /// Planes of a port that messages take one of, or 1.
    fn parts(&self, port: usize) -> u32 {
        let (planes, striping) = self.planes.get(port).copied().unwrap_or((1, Striping::Spray));
        if striping == Striping::Spray { 1 } else { planes }
    }

    /// How fast one message of this class can be.
    fn stream_rate(&self, link: &Link) -> u64 {
        let port = usize::from(link.port);
        link.rate_bytes_per_s.min((self.port_rate(port) / u64::from(self.parts(port))).max(1))
    }
}

/// The fidelity of that name, under faults of links if there are any.
///
/// Errors: Unsupported, for one that is not here.
pub(super) fn of(
    fidelity: Fidelity,
    wiring: &Wiring<'_>,
    faults: Option<LinkFaults>,
) -> Result<Box<dyn Timing>> {
    let faults = faults.map(Box::new);
    match fidelity {
        Fidelity::LogGp => Ok(Box::new(LogGp::new(wiring, faults))),
        Fidelity::Fluid => Ok(Box::new(Fluid::new(wiring, faults))),
        other => Err(Error::unsupported(format!("optical cannot time messages by '{other}'"))),
    }
}

/// Of a port, as links of a record are numbered.
#[derive(Clone, Copy, Debug)]
enum Direction {
    Out = 0,
    In = 1,
}

/// A port's number in a record: each has two directions.
fn recorded(rank: Rank, port: u8, ports_per_rank: usize, direction: Direction) -> LinkId {
    let port = rank as usize * ports_per_rank + usize::from(port);
    LinkId(2 * port as u32 + direction as u32)
}

/// Tells a recorder the ports of each rank, out and in.
fn tell_ports(
    links: &[Link],
    rings: Option<&Rings>,
    (ranks, ports_per_rank): (Rank, usize),
    levels: &[String],
    recorder: &mut Recorder,
) {
    let around = rings.map(|rings| rings.ports().map(usize::from));
    let like = |port: usize| around.filter(|around| around[1] == port).map_or(port, |around| around[0]);
    let of_port = |port: usize| links.iter().filter(move |link| usize::from(link.port) == like(port));
    let levels_of = |port: usize| {
        if let Some(side) = around.and_then(|around| around.iter().position(|&own| own == port)) {
            return format!("{} {}", levels[0], ["clockwise", "counter-clockwise"][side]);
        }
        let named = links.iter().zip(levels).filter(|(link, _)| usize::from(link.port) == port);
        named.map(|(_, level)| level.as_str()).collect::<Vec<_>>().join("/")
    };
    let names: Vec<[String; 2]> = (0..ports_per_rank)
        .map(|port| match ports_per_rank {
            1 => ["out".to_owned(), "in".to_owned()],
            _ => ["out", "in"].map(|way| format!("{} {way}", levels_of(port))),
        })
        .collect();
    let classes: Vec<[u16; 2]> = names
        .iter()
        .map(|names| names.each_ref().map(|name| recorder.add_class(format!("ranks' ports {name}"))))
        .collect();
    for rank in 0..ranks {
        for (port, (names, classes)) in names.iter().zip(&classes).enumerate() {
            let rate_bytes_per_s = of_port(port).map(Link::port_rate_bytes_per_s).max().unwrap_or(1);
            for (name, &class) in names.iter().zip(classes) {
                let (name, rank) = (format!("rank {rank} {name}"), Some(rank));
                recorder.add_link(record::Link { name, class, rank, rate_bytes_per_s });
            }
        }
    }
}
