//! Worlds of virtual time: all ranks' endpoints, and the time between them.

use super::{Endpoint, Token};
use crate::collective::Rank;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::topology::{Link, Topology};
use std::num::NonZeroU64;

/// What a virtual transport may be told.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// How many ranks.
    pub ranks: u32,
    /// The fabric's description: a preset's name, or TOML text.
    pub fabric: String,
    /// Seed of everything random.
    pub seed: u64,
    /// How exactly messages are timed.
    pub fidelity: Fidelity,
    /// What goes wrong and when: TOML text, or nothing.
    pub faults: String,
}

/// How exactly a simulated world times messages: each sees more than the one before, and takes longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fidelity {
    /// A closed form for each message: ports serve one message after the other, in the order they come.
    #[default]
    LogGp,
    /// Messages under way share every port and link they cross, max-min fairly.
    Fluid,
}

impl Fidelity {
    /// All there are.
    pub const ALL: [Fidelity; 2] = [Fidelity::LogGp, Fidelity::Fluid];

    /// Its name, as in `--fidelity`.
    pub fn name(self) -> &'static str {
        match self {
            Fidelity::LogGp => "loggp",
            Fidelity::Fluid => "fluid",
        }
    }

    /// What it is.
    pub fn summary(self) -> &'static str {
        match self {
            Fidelity::LogGp => "a closed form for each message; ports serve one after the other",
            Fidelity::Fluid => "messages share ports and links max-min fairly",
        }
    }

    /// What results of it cannot show, whatever the fabric.
    pub fn unseen(self) -> &'static str {
        match self {
            Fidelity::LogGp => {
                "messages that share a port (they queue), links between switches, planes of unlike load, a crowd at a \
                 receiver that slows its senders"
            }
            Fidelity::Fluid => {
                "single packets, buffers and credits (a full receiver slows its senders at once, and nobody else), \
                 transients of congestion control"
            }
        }
    }
}

impl std::str::FromStr for Fidelity {
    type Err = Error;

    /// Errors: InvalidArgument, listing the names.
    fn from_str(text: &str) -> Result<Self> {
        let named = Fidelity::ALL.into_iter().find(|fidelity| fidelity.name() == text);
        named.ok_or_else(|| {
            let names = Fidelity::ALL.map(Fidelity::name).join(", ");
            Error::invalid(format!("unknown fidelity '{text}'; there are: {names}"))
        })
    }
}

impl std::fmt::Display for Fidelity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Names a communicator of a simulated world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommunicatorId(pub u32);

impl CommunicatorId {
    /// The one of all ranks; others count from 1 in the order made.
    pub const WORLD: CommunicatorId = CommunicatorId(0);
}

/// One rank of one communicator: where an endpoint of a simulated world sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Which communicator.
    pub communicator: CommunicatorId,
    /// Which rank of it.
    pub rank: Rank,
}

/// A simulated world: the endpoints of all ranks and the time between them.
///
/// Contract:
/// 1. Time is integer picoseconds and never goes back; events of one time have one total order.
/// 2. The same options and posts give the same events and the same [`WorldStats::hash`], always.
/// 3. `step` handles every event of the next time at which something happens, and names the endpoints that have
///    completions to poll or a tagged message without a post to [`Endpoint::probe`], each once, in order of communicator
///    and rank. It may leave out those that have only completions which they do not [`Endpoint::heed`].
///    Nothing completes between steps but what a post answers.
/// 4. All communicators share time, links and the lives of their ranks; a message of one never meets a receive of
///    another, whatever their sequence numbers.
/// 5. An alarm is an event: `step` names its rank at its time, and `next_ps` tells when something happens next.
pub trait World: Send {
    /// The endpoint of one rank in the communicator of all; each may be taken once.
    fn endpoint(&mut self, rank: Rank) -> Result<Box<dyn Endpoint>>;

    /// Makes a further communicator, whose rank i is rank `ranks[i]` of the world, and gives its endpoints in order.
    ///
    /// Errors: InvalidArgument for no rank, one that does not exist or comes twice; Unsupported, if a world has one
    /// communicator only.
    fn communicator(&mut self, _ranks: &[Rank]) -> Result<(CommunicatorId, Vec<Box<dyn Endpoint>>)> {
        Err(Error::unsupported("this world has one communicator only"))
    }

    /// Now, in picoseconds.
    fn now_ps(&self) -> u64;

    /// Goes to the next time at which something happens; `false` if nothing ever will.
    fn step(&mut self, woken: &mut Vec<Place>) -> Result<bool>;

    /// Appends what steps to come will likely complete, in about their order, and each only once: a driver may have what
    /// it needs then fetched into caches meanwhile. For hints only; a world may tell nothing.
    fn foresee(&mut self, _coming: &mut Vec<(Place, Token)>) {}

    /// When something happens next, if anything ever will.
    fn next_ps(&self) -> Option<u64>;

    /// Makes something happen at a time from now: `step` names the rank's place in the communicator of all, unless it is
    /// dead by then.
    fn alarm(&mut self, rank: Rank, after_ps: u64);

    /// The same for what a rank itself does for so long: when that is over. Time in which the rank stands still does not
    /// count.
    fn compute(&mut self, rank: Rank, duration_ps: u64) -> u64 {
        if duration_ps > 0 {
            self.alarm(rank, duration_ps);
        }
        self.now_ps().saturating_add(duration_ps)
    }

    /// A rank of a world with faults may stand still: until then its software does nothing. `step` names all its places
    /// when it goes on.
    fn stands_until_ps(&self, _rank: Rank) -> u64 {
        self.now_ps()
    }

    /// Kills a rank at a time from now: from then on it sends and receives nothing in any communicator; messages of it
    /// that are under way are lost. `step` names all endpoints of the living when they may know, after the fabric's
    /// detection delay.
    fn kill(&mut self, rank: Rank, after_ps: u64);

    /// The ranks of the world that died and may be known to be dead.
    fn dead(&self) -> Vec<Rank>;

    /// What happened so far.
    fn stats(&self) -> WorldStats;

    /// What the fabric is: name, unit of a rank (NPU, die), where its numbers come from.
    fn describe(&self) -> String;

    /// How exactly it times messages.
    fn fidelity(&self) -> Fidelity;

    /// What the fabric's cost is made of.
    fn machine(&self) -> Machine;

    /// Begins to write down what happens from now on, for [`World::stop_recording`]. Changes no time and no hash. What was
    /// posted before is not in the record, nor are the messages of it.
    fn start_recording(&mut self) {}

    /// What was recorded; recording ends. Nothing, if this world records nothing.
    fn stop_recording(&mut self) -> Record {
        Record::default()
    }
}

/// What a simulated machine costs, for a tuner to reckon with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Where ranks stand, and the links between them as the first engine drives them.
    pub topology: Topology,
    /// What may move a call's bytes: one, or several of which each call takes one.
    pub engines: Vec<EngineCosts>,
}

/// A software path: what it does, and what that costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineCosts {
    /// What it is called, if the machine names its engines.
    pub name: Option<String>,
    /// By level of the topology.
    pub links: Vec<Link>,
    /// It does calls of so many bytes, as the kind counts them (a block's); none: any.
    pub most_bytes: Option<u64>,
    /// It does calls of so many ranks; none: any.
    pub most_ranks: Option<u32>,
    /// Bytes that a rank folds in per second: a reduction of k terms of n bytes folds (k − 1)·n. None takes no time.
    pub reduce_bytes_per_s: Option<NonZeroU64>,
    /// Bytes that a rank copies per second. None takes no time.
    pub copy_bytes_per_s: Option<NonZeroU64>,
    /// What a collective costs each rank before its first message.
    pub start_ps: u64,
    /// What a rank spends on each term it folds, beside its bytes.
    pub fold_overhead_ps: u64,
    /// How many messages to different ranks a port passes at once, each at its share of the rate. None: one after the
    /// other.
    pub at_once: Option<u32>,
}

/// What happened in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorldStats {
    /// Messages, once for each receiver.
    pub messages: u64,
    /// Payload bytes of them.
    pub bytes: u64,
    /// Events handled.
    pub events: u64,
    /// How often bytes were sent again, after errors or because a link went down; where messages are timed when they are
    /// sent, those to come too.
    pub retries: u64,
    /// Messages that were lost with their senders or receivers.
    pub lost: u64,
    /// Covers time, rank, link, bytes and kind of every event, in order.
    pub hash: u64,
}
