//! Real transfers between real processes at a fabric's pace.
//!
//! ```text
//! send      the payload goes through shared memory at once; before it goes a head, on channels of its own, which says
//!           when the message's first byte reaches each receiver, by the model and this rank's injection port
//! receive   payload and head are taken in as soon as they are there, and combined; it completes when the model says that
//!           it has arrived, by its head and this rank's reception port
//! ```
//!
//! So a message may be taken only at its release time, and what the host itself takes overlaps with what the link would
//! take: the pace is the fabric's as long as the host is faster. Ranks share one clock (the host's monotonic one), read
//! from an epoch that rank 0 sets.
//!
//! A collective's first message waits for its engine's start-up, and a reduction or copy is done when the fabric's rank,
//! which does one at a time, would be done.
//!
//! Not seen: switches that copy and fold; each communicator has ports, and copies and reduces, of its own; heads of several
//! senders are served in the order in which this rank takes their messages in, and reductions and copies in the order in
//! which they are done here; links of a ring that others' messages pass.

mod endpoint;
mod heads;
mod ports;

use super::Fabric;
use endpoint::PacedEndpoint;
use ubccl_core::endpoint::{ConnectOptions, Endpoint, Transport};
use ubccl_core::{Error, Exchange, Result};

/// Shared memory for the heads of each ordered pair of ranks.
const HEADS_PAIR_BYTES: u64 = 512 << 10;
/// Each message has a head of 8 bytes for each rank.
const MOST_RANKS: u32 = 64;

/// Connects over shared memory, at the pace of `fabric`.
///
/// Errors: InvalidArgument, for a fabric that does not exist or more ranks than it or this holds; as shared memory's.
pub(super) fn connect(
    exchange: &mut dyn Exchange,
    options: &ConnectOptions,
    fabric: &str,
) -> Result<Box<dyn Endpoint>> {
    let (rank, ranks) = (exchange.rank(), exchange.ranks());
    let fabric = Fabric::parse(fabric)?;
    fabric.check_ranks(ranks)?;
    if ranks > MOST_RANKS {
        return Err(Error::invalid(format!(
            "paced transfers are for at most {MOST_RANKS} ranks, not {ranks}"
        )));
    }
    let inner = crate::shm::SHM.connect(exchange, options)?;
    let beside = ConnectOptions { pair_bytes: Some(HEADS_PAIR_BYTES), ..options.clone() };
    let side = crate::shm::SHM.connect(exchange, &beside)?;
    let epochs = exchange.all_gather(&now_ns().to_le_bytes())?;
    let epoch = epochs.first().and_then(|blob| blob.as_slice().try_into().ok()).map(u64::from_le_bytes);
    let epoch_ns = epoch.ok_or_else(|| Error::internal("rank 0 set no epoch"))?;
    Ok(Box::new(PacedEndpoint::new((rank, ranks), &fabric, [inner, side], epoch_ns)))
}

/// The host's monotonic clock, which all its processes share.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
