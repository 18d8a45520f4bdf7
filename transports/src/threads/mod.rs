//! `threads`: ranks that are threads of one process, through the memory they have in common.
//!
//! Rank 0 makes a `world` and offers it under a random token (`registry`); the others take it. A `channel`, one for each
//! ordered pair of ranks and lane, is a ring of entries (`local::ring`): a small message is copied into its entry, any
//! other is only announced there, with its address. The receiver copies or reduces **straight out of the sender's
//! memory**, in bites, all sources of a reduction in one pass, and then counts the send down: one pass over memory, no
//! slots. Sleepers are woken by a `local::doorbell`. Nothing takes a lock but the reader of announced memory, for one
//! bite, its own lock, which nobody contends for except ranks that withdraw.
//!
//! **Withdrawing.** `cancel` and dropping an endpoint raise the rank's epoch, and then pass through every reader's lock:
//! a bite that began before is over by then, and one that begins later sees the epoch and keeps away
//! (`World::withdraw`).
//!
//! **Death.** A rank here is as dead as its endpoint. One that is dropped while others still expect something of it, or
//! that withdraws what another is about to read, is a [`Fault::Lost`](ubccl_core::endpoint::Fault::Lost): evidence, not
//! a cause. What was sent in full before stays readable. A thread that blocks, or leaks its endpoint, looks like one that
//! is slow: deadlines are the communicator's. When the process dies, no rank of this world is left to tell.

mod card;
mod channel;
mod common;
mod departures;
mod endpoint;
mod receives;
mod registry;
mod sends;
#[cfg(all(test, not(loom)))]
mod tests;
mod world;

use crate::local::{POINT_TO_POINT_CHANNELS, agree};
use card::Card;
use endpoint::ThreadsEndpoint;
use registry::Offer;
use ubccl_core::endpoint::{Clock, ConnectOptions, Endpoint, Reach, Transport, TransportDescriptor};
use ubccl_core::plan::MAX_LANES;
use ubccl_core::{Error, ErrorKind, Exchange, Result};
use world::World;

/// The transport.
pub static THREADS: Threads = Threads;

/// The common memory of the threads of one process.
#[derive(Debug)]
pub struct Threads;

impl Transport for Threads {
    fn descriptor(&self) -> &'static TransportDescriptor {
        &TransportDescriptor {
            name: "threads",
            alias: None,
            summary: "ranks that are threads of one process, reading each other's memory",
            clock: Clock::Real,
            reach: Reach::Process,
        }
    }

    /// Connects this rank with all others.
    ///
    /// Cost:   two rounds of the exchange, one descriptor for each rank; 16 KiB for each pair and lane that is ever used
    ///         (`options.pair_bytes` is not: messages are not buffered).
    /// Errors: Start, naming the ranks that are in another process, with their host, the same on all ranks; System.
    fn connect(&self, exchange: &mut dyn Exchange, options: &ConnectOptions) -> Result<Box<dyn Endpoint>> {
        Ok(Box::new(connect(exchange, options)?))
    }
}

fn connect(exchange: &mut dyn Exchange, options: &ConnectOptions) -> Result<ThreadsEndpoint> {
    let rank = exchange.rank() as usize;
    let own = prepare(rank, exchange.ranks() as usize, options);
    let blobs = exchange.all_gather(&Card::encode(own.as_ref().map(|(card, _)| card)))?;
    // Kept until everybody has the world, or has failed.
    let (_, offer) = own?;
    let cards = blobs.iter().enumerate().map(|(peer, blob)| Card::decode(peer, blob));
    let cards = cards.collect::<Result<Vec<_>>>()?;
    Card::check(&cards)?;

    let world = match &offer {
        Some(offer) => Some(offer.world.clone()),
        None => registry::take(&cards[0].world),
    };
    let gone = || Error::new(ErrorKind::Start, format!("rank {rank}: rank 0 gave up during start-up"));
    let endpoint = world.ok_or_else(gone).map(|world| ThreadsEndpoint::new(rank, world));
    agree(exchange, endpoint)
}

/// This rank's card; with rank 0's an offer of the world.
fn prepare(rank: usize, ranks: usize, options: &ConnectOptions) -> Result<(Card, Option<Offer>)> {
    let lanes = usize::from(options.lanes);
    if lanes > MAX_LANES {
        return Err(Error::invalid(format!("rank {rank}: {lanes} lanes; there are 1 to {MAX_LANES}")));
    }
    let offer =
        (rank == 0).then(|| Offer::new(World::new(ranks, lanes + POINT_TO_POINT_CHANNELS)?)).transpose()?;
    let token = offer.as_ref().map_or_else(Default::default, |offer| offer.token);
    Ok((Card::new(token, options)?, offer))
}
