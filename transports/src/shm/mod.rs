//! `shm`: the ranks of one host, through memory that they share.
//!
//! Every rank makes one segment, its outbox, and hands it to the others over a local socket (`handshake`); from then
//! on the kernel is needed for sleeping only. A channel is a ring (`local::ring`) in the sender's segment, laid out by
//! `geometry`; the `endpoint` moves messages through it (`sends`, `receives`) and sleeps by a `local::doorbell`.
//!
//! Nothing has a name in a file system and nothing outlives the processes. A peer can spoil the bytes it sends, but
//! neither crash nor block this rank; that a peer has died is for the communicator to find out.

mod announcements;
mod card;
mod channel;
mod endpoint;
mod foreign;
mod geometry;
mod handshake;
mod heap;
mod one_pass;
mod placement;
mod publications;
mod receives;
mod segment;
mod sends;
mod shelf;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::local::agree;
use crate::local::bell::{Bell, descriptor};
use crate::local::fences::Fences;
use card::Card;
use endpoint::ShmEndpoint;
use geometry::Geometry;
use handshake::{Gift, Meeting, Met, listener};
use segment::Segment;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use ubccl_core::endpoint::{Clock, ConnectOptions, Endpoint, Reach, Transport, TransportDescriptor};
use ubccl_core::{Deadline, Exchange, Result};

/// The transport.
pub static SHM: Shm = Shm;

/// Shared memory between the processes (or threads) of one host.
#[derive(Debug)]
pub struct Shm;

impl Transport for Shm {
    fn descriptor(&self) -> &'static TransportDescriptor {
        &TransportDescriptor {
            name: "shm",
            alias: None,
            summary: "shared memory between the processes of one host",
            clock: Clock::Real,
            reach: Reach::Host,
        }
    }

    fn connect(&self, exchange: &mut dyn Exchange, options: &ConnectOptions) -> Result<Box<dyn Endpoint>> {
        Ok(Box::new(connect(exchange, options)?))
    }
}

/// Connects this rank with the others. Ends in an error on all ranks or on none, unless a rank dies meanwhile.
fn connect(exchange: &mut dyn Exchange, options: &ConnectOptions) -> Result<ShmEndpoint> {
    let (rank, ranks) = (exchange.rank() as usize, exchange.ranks() as usize);
    let geometry = Geometry::new(exchange.ranks(), options);
    let outbox = geometry.and_then(|geometry| Outbox::new(rank, geometry, options));
    let blobs = exchange.all_gather(&Card::encode(outbox.as_ref().map(|outbox| &outbox.card)))?;
    let outbox = outbox?;
    let cards = (0..ranks).map(|peer| Card::decode(peer, &blobs[peer])).collect::<Result<Vec<_>>>()?;
    (0..ranks).try_for_each(|peer| outbox.card.check(rank, peer, &cards[peer]))?;

    let endpoint = outbox.meet(rank, &cards, (&exchange.deadline(), options.peer_reads));
    agree(exchange, endpoint)
}

/// What a rank brings to the meeting.
struct Outbox {
    geometry: Geometry,
    card: Card,
    segment: Segment,
    listener: OwnedFd,
    gift: Gift,
}

impl Outbox {
    fn new(rank: usize, geometry: Geometry, options: &ConnectOptions) -> Result<Self> {
        if options.peer_reads {
            foreign::allow();
        }
        let card = Card::new(options)?;
        let (segment, file) = Segment::create(rank as u32, &geometry)?;
        let gift = Gift { segment: file, descriptor: descriptor(rank as u32)? };
        let listener = listener(rank, &card, geometry.ranks())?;
        Ok(Outbox { geometry, card, segment, listener, gift })
    }

    /// Meets the others and makes the endpoint; sockets and the descriptors of others' segments are closed afterwards.
    fn meet(
        self,
        rank: usize,
        cards: &[Card],
        (deadline, peer_reads): (&Deadline, bool),
    ) -> Result<ShmEndpoint> {
        let Outbox { geometry, card: _, mut segment, listener, gift } = self;
        let nodes: Vec<Option<u32>> = cards.iter().map(|card| card.node).collect();
        placement::place(&segment, &geometry, rank, &nodes, &mut placement::Kernel);
        let met = Meeting { rank, cards, listener: &listener, gift: &gift, deadline }.hold()?;
        let Gift { segment: file, descriptor } = gift;
        if segment.heap_len() > 0 {
            segment.keep(file);
        }
        let mut own = Some((segment, descriptor));
        let processes: Vec<_> = met.iter().map(|met| met.as_ref().and_then(|met| met.process)).collect();
        let bell = |(peer, met): (usize, Option<Met>)| -> Result<Arc<Bell<Segment>>> {
            let (segment, descriptor) = match met {
                Some(Met { gift: theirs, .. }) => {
                    (Segment::open(peer as u32, theirs.segment.as_fd(), &geometry)?, theirs.descriptor)
                }
                None => own.take().expect("only this rank gives itself nothing"),
            };
            Ok(Arc::new(Bell::new(Arc::new(segment), descriptor)))
        };
        let bells = met.into_iter().enumerate().map(bell).collect::<Result<Vec<_>>>()?;
        // The same on all ranks: all have all cards.
        let all = cards.iter().all(|card| card.barriers);
        let fences = if all { Fences::OfSleepers } else { Fences::Symmetric };
        let mut endpoint = ShmEndpoint::new(rank as u32, &geometry, (bells, fences));
        if peer_reads {
            endpoint.meet(&processes);
        }
        Ok(endpoint)
    }
}
