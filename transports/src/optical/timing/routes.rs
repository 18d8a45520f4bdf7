//! Which resources a message crosses: ports, their planes, the links out of groups.

use super::super::fabric::{Striping, Uplink};
use super::ring::{Rings, Round};
use super::sharing::{Hop, Sharing, WHOLE};
use super::{Way, Wiring};
use ubccl_core::Topology;
use ubccl_core::topology::Link;

/// The resources of a fabric.
#[derive(Debug)]
pub(super) struct Routes {
    topology: Topology,
    seed: u64,
    ports: Vec<PortRoutes>,
    /// By level: the links out of each of its groups, if they can bind anybody.
    uplinks: Vec<Option<UplinkRoutes>>,
    rings: Option<Rings>,
    levels: usize,
    ranks: u32,
    /// What a flow of each class takes of its port, in parts of [`WHOLE`].
    weights: Vec<u32>,
    way: Vec<Hop>,
}

/// One port of all ranks.
#[derive(Debug)]
struct PortRoutes {
    striping: Striping,
    /// Resources that each rank has for a direction: its planes, or one for all.
    parts: u32,
    /// Injection of rank 0, part by part, reception of rank 0, injection of rank 1, …
    first: u32,
}

/// The links out of the groups of one level, and into them.
#[derive(Debug)]
struct UplinkRoutes {
    /// Of each group: all planes' links one by one, or one resource for all.
    planes: u32,
    links: u32,
    first: u32,
    /// How many resources they are in all.
    count: u32,
    port: u8,
}

impl Routes {
    pub(super) fn new(wiring: &Wiring<'_>, sharing: &mut Sharing) -> Self {
        let ports = (0..wiring.ports_per_rank()).map(|port| add_port(wiring, port, sharing));
        let ports: Vec<PortRoutes> = ports.collect();
        let levels = wiring.topology.levels().len();
        let uplinks = (0..levels).map(|level| {
            let uplink = wiring.uplinks.get(level).copied().flatten()?;
            add_uplinks(wiring, (level, uplink), &ports, sharing)
        });
        Routes {
            uplinks: uplinks.collect(),
            ports,
            weights: wiring.links.iter().map(|link| weight(wiring, link)).collect(),
            rings: wiring.rings,
            levels,
            ranks: wiring.ranks,
            topology: wiring.topology.clone(),
            seed: wiring.seed,
            way: Vec::new(),
        }
    }

    /// What a message crosses from now on.
    pub(super) fn of(&mut self, way: &Way, sharing: &Sharing) -> &[Hop] {
        self.way.clear();
        if let Some((rings, round)) = self.round(way) {
            return self.around(way, &rings, &round);
        }
        let level = usize::from(way.class) % self.levels;
        let weight = self.weights[usize::from(way.class)];
        let port = usize::from(self.port_of(level));
        let PortRoutes { striping, parts, first } = self.ports[port];
        let hash = mix(self.seed ^ u64::from(way.from) << 32 ^ u64::from(way.to));
        let injection = |rank: u32, part: u32| first + rank * 2 * parts + part;
        let part = match striping {
            Striping::Spray => 0,
            Striping::Hash => (hash % u64::from(parts)) as u32,
            Striping::Pinned => way.from % parts,
            Striping::Adaptive => (0..parts)
                .min_by_key(|&part| sharing.load(injection(way.from, part)))
                .expect("a port has at least one plane"),
        };
        if !way.is_copy {
            self.way.push(Hop { resource: injection(way.from, part), weight });
        }
        for below in 0..level {
            let Some(uplink) = &self.uplinks[below] else { continue };
            if usize::from(uplink.port) != port {
                continue;
            }
            let link = match uplink.links {
                1 => 0,
                links => (mix(hash) % u64::from(links)) as u32,
            };
            let at = part.min(uplink.planes - 1) * uplink.links + link;
            let parts = uplink.planes * uplink.links;
            let group = |rank| self.topology.group(below, rank);
            let out = uplink.first + group(way.from) * 2 * parts + at;
            let into = uplink.first + (group(way.to) * 2 + 1) * parts + at;
            self.way.push(Hop { resource: out, weight: WHOLE });
            self.way.push(Hop { resource: into, weight: WHOLE });
        }
        // Of what switches fold, the receiver's port passes one result.
        let weight = way.fold.map_or(weight, |(_, messages)| self.folded_weight(way, messages));
        self.way.push(Hop { resource: first + (way.to * 2 + 1) * parts + part, weight });
        &self.way
    }

    /// What one of so many messages that switches fold takes of its receiver's port.
    pub(super) fn folded_weight(&self, way: &Way, messages: u32) -> u32 {
        (self.weights[usize::from(way.class)] / messages).max(1)
    }

    pub(super) fn rings(&self) -> Option<&Rings> {
        self.rings.as_ref()
    }

    /// The way round of a message, if it goes round a ring.
    #[inline]
    pub(super) fn round(&self, way: &Way) -> Option<(Rings, Round)> {
        let rings = self.rings?;
        rings.round(way.class, way.from, way.to).map(|round| (rings, round))
    }

    /// Of each link of a ring the ports at both ends, since one that is slow slows the link.
    fn around(&mut self, way: &Way, rings: &Rings, round: &Round) -> &[Hop] {
        let weight = self.weights[usize::from(way.class)];
        let PortRoutes { first, .. } = self.ports[usize::from(rings.port(round))];
        let mut at = way.from;
        for _ in 0..round.hops {
            let next = round.next(at);
            self.way.push(Hop { resource: first + 2 * at, weight });
            self.way.push(Hop { resource: first + 2 * next + 1, weight });
            at = next;
        }
        &self.way
    }

    /// Those of a rank's ports, or, for the number of ranks, those of the links out of and into groups.
    pub(super) fn resources(&self, line: u32) -> Vec<u32> {
        if line < self.ranks {
            let of_port = |port: &PortRoutes| {
                let first = port.first + line * 2 * port.parts;
                first..first + 2 * port.parts
            };
            return self.ports.iter().flat_map(of_port).collect();
        }
        let of_level = |uplink: &UplinkRoutes| uplink.first..uplink.first + uplink.count;
        self.uplinks.iter().flatten().flat_map(of_level).collect()
    }

    fn port_of(&self, level: usize) -> u8 {
        self.topology.levels()[level].link.port
    }
}

/// What a flow takes of its port: where levels or engines drive one port at other rates, the port's time is what they
/// share.
fn weight(wiring: &Wiring<'_>, link: &Link) -> u32 {
    let most = wiring.port_rate(usize::from(link.port));
    let own = u128::from(link.port_rate_bytes_per_s());
    u32::try_from((u128::from(most) * u128::from(WHOLE)).div_ceil(own)).unwrap_or(u32::MAX)
}

fn add_port(wiring: &Wiring<'_>, port: usize, sharing: &mut Sharing) -> PortRoutes {
    let striping = wiring.planes.get(port).map_or(Striping::Spray, |planes| planes.1);
    let (rate, parts) = (wiring.port_rate(port), wiring.parts(port));
    let resources = (0..2 * parts * wiring.ranks).map(|_| sharing.add_resource(rate / u64::from(parts)));
    PortRoutes { striping, parts, first: resources.min().unwrap_or(0) }
}

/// Links that together pass what all ranks of a group can send bind nobody, unless each message takes one of them.
fn add_uplinks(
    wiring: &Wiring<'_>,
    (level, uplink): (usize, Uplink),
    ports: &[PortRoutes],
    sharing: &mut Sharing,
) -> Option<UplinkRoutes> {
    let Uplink { bytes_per_s, links: count } = uplink;
    let port = wiring.topology.levels().get(level + 1)?.link.port;
    let PortRoutes { striping, parts, .. } = ports[usize::from(port)];
    let planes = wiring.planes.get(usize::from(port)).map_or(1, |planes| planes.0);
    let together = bytes_per_s.saturating_mul(u64::from(planes)).saturating_mul(u64::from(count));
    let ranks = wiring.topology.group_ranks(level);
    let wanted = wiring.port_rate(usize::from(port)).saturating_mul(u64::from(ranks));
    let is_sprayed = striping == Striping::Spray;
    if is_sprayed && together >= wanted {
        return None;
    }
    let groups = wiring.ranks.div_ceil(ranks);
    let (planes, count, rate) = if is_sprayed { (1, 1, together) } else { (parts, count, bytes_per_s) };
    let all = 2 * groups * planes * count;
    let resources = (0..all).map(|_| sharing.add_resource(rate));
    Some(UplinkRoutes { planes, links: count, first: resources.min()?, count: all, port })
}

/// A well-mixed number (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
