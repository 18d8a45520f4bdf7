//! `optical`: a whole machine simulated in virtual time, one message at a time.
//!
//! # Model (`loggp`)
//! Time is integer picoseconds. Every rank has one injection and one reception port. A message of b bytes over a link
//! of latency L, rate r, overheads o (send) and o′ (receive) and gap g, posted at t, is timed so:
//!
//! ```text
//! S         = ⌈b · 10¹² / r⌉                          serialisation, once per message
//! start     = max(t + o, injection port free)         injection port free  := start + max(g, S)
//! sent      = start + S                               the send completes when the last of its messages is sent
//! head      = start + L
//! delivered = max(head, reception port free) + S      reception port free  := delivered
//! arrived   = delivered + o′                          a receive completes at max(arrived, posted)
//! ```
//!
//! Alone on its way a message takes o + L + S + o′ (cut-through). Heads are events in time order, so a reception port
//! serves messages in the order they reach it. A receive-reduce takes (terms − 1) · bytes / reduce rate more, a copy
//! bytes / copy rate, where the fabric has such rates; a rank does one of them at a time. A message to the rank itself
//! is a copy and passes no port.
//!
//! Events of one time happen in the order they were made. Nothing is random and no floating-point number is near the
//! clock, so the same options and posts give the same events and the same hash, in every build.
//!
//! # Deaths
//! From its death on a rank sends and receives nothing; a message of it or for it that has not arrived is lost (its
//! sender's post completes all the same). After the fabric's detection delay every other rank is woken,
//! in all its communicators.
//!
//! # Where to start
//! [`fabric`](Fabric) is the description, `network` the state and the events, `seats` who posts, `posting` what
//! they start, `matching` who meets whom, `payload` the bytes and `phantom` the fingerprints.

mod endpoint;
mod events;
mod fabric;
mod matching;
mod network;
mod payload;
mod phantom;
mod posting;
mod seats;
mod slab;
mod world;

pub use fabric::Fabric;

use ubccl_core::Result;
use ubccl_core::endpoint::{Clock, Reach, Transport, TransportDescriptor, World, WorldOptions};

/// The simulated fabric.
#[derive(Debug)]
pub struct Optical;

/// Its line in the index.
pub const OPTICAL: Optical = Optical;

static DESCRIPTOR: TransportDescriptor = TransportDescriptor {
    name: "optical",
    alias: Some("sim"),
    summary: "a simulated machine in virtual time (LogGP for each message)",
    clock: Clock::Virtual,
    reach: Reach::Process,
};

impl Transport for Optical {
    fn descriptor(&self) -> &'static TransportDescriptor {
        &DESCRIPTOR
    }

    /// Fewer ranks than the fabric holds fill it in order. The seed is not used: nothing here is random yet.
    fn world(&self, options: &WorldOptions) -> Result<Box<dyn World>> {
        let fabric = Fabric::parse(&options.fabric)?;
        fabric.check_ranks(options.ranks)?;
        Ok(Box::new(world::OpticalWorld::new(fabric, options.ranks)))
    }
}
