//! `optical`: a whole machine simulated in virtual time.
//!
//! Time is integer picoseconds. Two fidelities time messages, behind one trait (`timing`); everything else, who meets
//! whom and what is moved and folded, is the same.
//!
//! # `loggp`
//! Every rank has injection and reception ports. A message of b bytes over a link of latency L, rate r of one message
//! and R of the port (R = r unless the fabric says more), overheads o (send) and o′ (receive) and gap g, posted at t, is
//! timed so:
//!
//! ```text
//! S = ⌈b · 10¹² / r⌉, P = ⌈b · 10¹² / R⌉              serialisation of the message, and what it takes of a port
//! start     = max(t, injection port free)             injection port free  := start + max(g, o + P)
//! sent      = start + o + S                           the send completes when the last of its messages is sent
//! head      = start + o + L
//! begin     = max(head, reception port free)          reception port free  := begin + P
//! arrived   = begin + S + o′                          a receive completes at max(arrived, posted)
//! ```
//!
//! Where R > r the messages of one pair of ranks follow each other besides: the next starts when one is sent. Alone on
//! its way a message takes o + L + S + o′ (cut-through). Heads are events in time order, so a reception port serves
//! messages in the order they reach it.
//!
//! # `fluid`
//! A message is a flow. Its engine issues one message per max(g, o); o later it holds the sender's port, the links out of
//! the groups that sender and receiver do not share, and the receiver's port, all at once, until its last byte has left; it
//! has arrived L + o′ after that. Rates are max-min fair, a flow no faster than r, and change when flows begin and end.
//! Messages of one pair follow each other, max(g, o + time of the flow) apart. Where planes are not sprayed, a flow takes one
//! plane of the ports, and one of the links out of a group.
//!
//! # Rings
//! Where ranks stand in a ring, each has a port to the next rank and one to the rank before. A message goes the shorter way
//! round (half way round every other rank goes either way) and passes a port of each rank on its way, h (`hop_ps`) later each. In `loggp` it
//! waits at each for what came or was posted there before; in `fluid` it holds all of them at once. Ranks pass messages on
//! whatever their software does, even if it is dead.
//!
//! # Both
//! Levels may share a port of the rank or have their own. An engine (a software path) may have a start-up, paid once by
//! each rank and collective, and links of its own. Where switches copy, a send to many passes the sender's port once; where
//! they fold, what a receive-reduce takes of others passes the receiver's port once and counts as one term, unless it was
//! copied: switches do one of both. What has reached the receiver's port before the receive was posted comes by itself; in
//! `fluid`, where a message is at both ports at once, what is to come of it is folded all the same. Copies begin with their
//! original; behind others of their pair, in `fluid`, they wait in the switches. The plan is the same.
//!
//! A receive-reduce takes (terms − 1) · bytes / reduce rate more, a copy
//! bytes / copy rate, where the fabric has such rates; a rank does one of them at a time. A message to the rank itself
//! is a copy and passes no port.
//!
//! Events of one time happen in the order they were made. Nothing is random but faults, and no floating-point number is near the
//! clock, so the same options and posts give the same events and the same hash, in every build.
//!
//! # Deaths
//! From its death on a rank sends and receives nothing; a message of it or for it that has not arrived is lost (its
//! sender's post completes all the same). After the fabric's detection delay every other rank is woken,
//! in all its communicators.
//!
//! # Faults
//! Slower ports, links that go down, bit errors, ranks that stand still or die are known from the beginning (`faults`). In
//! `loggp` bytes pass a port as its timeline says; in `fluid` capacities change. Bytes that are in flight when a link goes
//! down are sent again once it has trained; a bit error costs a round trip (go-back-N).
//!
//! # Where to start
//! [`fabric`](Fabric) is the description, `network` the state and the events, `seats` who posts, `posting` what
//! they start, `matching` who meets whom, `payload` the bytes, `phantom` and `runs` the fingerprints, `recorder` what is
//! written down for traces.

mod derived;
mod endpoint;
mod events;
mod fabric;
mod faults;
mod folding;
mod foresight;
mod matching;
mod network;
mod paced;
mod payload;
mod phantom;
mod posting;
mod recorder;
mod runs;
mod seats;
mod segments;
mod slab;
mod timing;
mod world;

pub use derived::FabricLevel;
pub use fabric::Fabric;

use ubccl_core::endpoint::{
    Clock, ConnectOptions, Endpoint, Reach, Transport, TransportDescriptor, World, WorldOptions,
};
use ubccl_core::{Error, Exchange, Result};

/// The simulated fabric.
#[derive(Debug)]
pub struct Optical;

/// Its line in the index.
pub const OPTICAL: Optical = Optical;

static DESCRIPTOR: TransportDescriptor = TransportDescriptor {
    name: "optical",
    alias: Some("sim"),
    summary: "a simulated machine in virtual time",
    clock: Clock::Virtual,
    reach: Reach::Process,
};

impl Transport for Optical {
    fn descriptor(&self) -> &'static TransportDescriptor {
        &DESCRIPTOR
    }

    /// Real transfers at the pace of a fabric, if one is named.
    fn connect(&self, exchange: &mut dyn Exchange, options: &ConnectOptions) -> Result<Box<dyn Endpoint>> {
        match &options.paced {
            Some(fabric) => paced::connect(exchange, options, fabric),
            None => Err(Error::unsupported(
                "optical runs in virtual time; use World, or name a fabric in `paced` for real transfers at its pace",
            )),
        }
    }

    /// Fewer ranks than the fabric holds fill it in order. The seed is for faults and for what hashes spread.
    fn world(&self, options: &WorldOptions) -> Result<Box<dyn World>> {
        let fabric = Fabric::parse(&options.fabric)?;
        fabric.check_ranks(options.ranks)?;
        Ok(Box::new(world::OpticalWorld::new(fabric, options)?))
    }
}
