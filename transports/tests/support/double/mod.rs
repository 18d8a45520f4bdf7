//! Test doubles: a minimal transport between threads, one in virtual time, and wrong ones.
//!
//! The right ones show that the suite accepts what keeps the contract, the wrong ones that it rejects what does not.

mod endpoint;
mod net;
mod world;

use endpoint::DoubleEndpoint;
use net::Net;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use ubccl_core::endpoint::{
    Clock, ConnectOptions, Endpoint, Reach, Transport, TransportDescriptor, World, WorldOptions,
};
use ubccl_core::{Error, Exchange, Result};

/// What is wrong with a double.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    BlocksInPost,
    RefusesPosts,
    ReordersALane,
    HoldsUpLanes,
    HoldsUpPeers,
    MulticastsToTheFirst,
    CompletesSendsEarly,
    WritesOneByteMore,
    IgnoresStreams,
    IgnoresSignatures,
    IgnoresLengths,
    WritesBeforeComparing,
    DropsEmptyMessages,
    ReducesInReverse,
    RoundsEveryStep,
    PutsOwnFirst,
    KeepsPostsAfterCancel,
    InspectsNothing,
    InspectsTooMuch,
    LosesWakes,
    NeverRings,
    NeverSleeps,
    ProbesNothing,
    ProbesADirectLane,
    TakesWhatItProbes,
    MiscountsBytes,
    HashesTheRun,
    TurnsTimeBack,
    WakesInDisorder,
}

/// A double: right, or with one defect.
pub struct Double {
    descriptor: &'static TransportDescriptor,
    defect: Option<Defect>,
}

static REAL: TransportDescriptor = TransportDescriptor {
    name: "double",
    alias: None,
    summary: "queues between threads, for tests of the tests",
    clock: Clock::Real,
    reach: Reach::Process,
};

static VIRTUAL: TransportDescriptor = TransportDescriptor {
    name: "virtual_double",
    alias: None,
    summary: "queues in virtual time, for tests of the tests",
    clock: Clock::Virtual,
    reach: Reach::Process,
};

impl Double {
    /// A double on this clock.
    pub const fn new(clock: Clock, defect: Option<Defect>) -> Self {
        let descriptor = match clock {
            Clock::Real => &REAL,
            Clock::Virtual => &VIRTUAL,
        };
        Double { descriptor, defect }
    }

    /// A double with a defect, for as long as the tests run.
    pub fn with_defect(clock: Clock, defect: Defect) -> &'static Self {
        Box::leak(Box::new(Double::new(clock, Some(defect))))
    }
}

/// Networks that ranks are still joining.
static NETS: Mutex<BTreeMap<u64, Arc<Net>>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Transport for Double {
    fn descriptor(&self) -> &'static TransportDescriptor {
        self.descriptor
    }

    fn connect(&self, exchange: &mut dyn Exchange, _options: &ConnectOptions) -> Result<Box<dyn Endpoint>> {
        if self.descriptor.clock == Clock::Virtual {
            return Err(Error::unsupported("virtual_double runs in virtual time"));
        }
        let me = exchange.rank();
        let mut name = Vec::new();
        if me == 0 {
            let id = NEXT.fetch_add(1, SeqCst);
            NETS.lock().unwrap().insert(id, Net::new(exchange.ranks(), self.defect, None));
            name = id.to_le_bytes().to_vec();
        }
        let id = u64::from_le_bytes(exchange.all_gather(&name)?[0][..].try_into().unwrap());
        let net = NETS.lock().unwrap()[&id].clone();
        exchange.all_gather(&[])?;
        NETS.lock().unwrap().remove(&id);
        Ok(Box::new(DoubleEndpoint::new(net, me)))
    }

    fn world(&self, options: &WorldOptions) -> Result<Box<dyn World>> {
        if self.descriptor.clock == Clock::Real {
            return Err(Error::unsupported("double runs in real time"));
        }
        let net = Net::new(options.ranks, self.defect, Some(1_000_000));
        Ok(Box::new(world::DoubleWorld::new(net)))
    }
}
