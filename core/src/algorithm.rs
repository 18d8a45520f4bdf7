//! The contract of an algorithm: a pure generator of plans.

use crate::blocks::Blocks;
use crate::collective::{Collective, Rank};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::layout::Layout;
use crate::op::ReduceOp;
use crate::plan::Plan;
use crate::profile::Profile;

/// Everything a plan may depend on. It is also the key under which a plan is cached, so the count is not in it: sizes
/// in a plan are expressions over the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// The kind of collective.
    pub kind: Kind,
    /// The element type.
    pub dtype: DataType,
    /// The operation, if the kind reduces.
    pub op: Option<ReduceOp>,
    /// The root, if the kind has one.
    pub root: Option<Rank>,
    /// Whom this rank sends to (send/receive).
    pub to: Option<Rank>,
    /// Whom this rank receives from (send/receive).
    pub from: Option<Rank>,
    /// Whether input and output are one buffer, by [`Collective::in_place_offsets`].
    pub in_place: bool,
    /// How many ranks.
    pub ranks: u32,
    /// The rank whose plan this is.
    pub rank: Rank,
    /// How the tuner wants it done.
    pub choice: Choice,
}

/// The tuner's free numbers; the same on all ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Lanes (channels) that run concurrently, each on its share of the data.
    pub lanes: u8,
    /// Data is moved in chunks of this many bytes where an algorithm pipelines.
    pub chunk_bytes: u32,
    /// Which of the machine's engines moves it, where there are several; no plan depends on it.
    pub engine: Option<u8>,
}

impl Default for Choice {
    fn default() -> Self {
        Choice { lanes: 1, chunk_bytes: 256 << 10, engine: None }
    }
}

impl Spec {
    /// The spec of one rank's part in a call.
    pub fn new(call: &Collective<'_>, ranks: u32, rank: Rank, in_place: bool, choice: Choice) -> Self {
        Spec {
            kind: call.kind(),
            dtype: call.dtype(),
            op: call.op(),
            root: call.root(),
            to: call.to(),
            from: call.from(),
            in_place,
            ranks,
            rank,
            // One message each way: those of a pair keep their order on the one lane of tagged messages.
            choice: Choice {
                lanes: if call.kind().is_point_to_point() { 1 } else { choice.lanes },
                ..choice
            },
        }
    }

    /// Elements in a chunk; at least one.
    pub fn chunk_elements(&self) -> u64 {
        (u64::from(self.choice.chunk_bytes) / self.dtype.size() as u64).max(1)
    }

    /// The call with this count, for kinds that take one; those with tables become calls of empty tables.
    pub fn collective(&self, count: u64) -> Collective<'static> {
        let (dtype, none) = (self.dtype, Blocks::packed(&[]));
        let root = || self.root.expect("a kind with a root is made with one");
        match self.kind {
            Kind::AllReduce => Collective::all_reduce(count, dtype, self.needed_op()),
            Kind::AllGather => Collective::all_gather(count, dtype),
            Kind::ReduceScatter => Collective::reduce_scatter(count, dtype, self.needed_op()),
            Kind::Broadcast => Collective::broadcast(count, dtype, root()),
            Kind::Barrier => Collective::barrier(),
            Kind::SendReceive => Collective::send_receive(count, dtype, self.to, self.from),
            Kind::Reduce => Collective::reduce(count, dtype, self.needed_op(), root()),
            Kind::Gather => Collective::gather(count, dtype, root()),
            Kind::Scatter => Collective::scatter(count, dtype, root()),
            Kind::AllToAll => Collective::all_to_all(count, dtype),
            Kind::GatherV => Collective::gather_v(count, dtype, root(), None),
            Kind::ScatterV => Collective::scatter_v(count, dtype, root(), None),
            Kind::AllGatherV => Collective::all_gather_v(dtype, none),
            Kind::ReduceScatterV => Collective::reduce_scatter_v(dtype, self.needed_op(), &[]),
            Kind::AllToAllV => Collective::all_to_all_v(dtype, none, none),
            Kind::Group => Collective::group(&[], &[]),
        }
    }

    fn needed_op(&self) -> ReduceOp {
        self.op.expect("a kind that reduces is made with an operation")
    }
}

/// What everybody needs to know about an algorithm: names on the command line, `explain`, docs and tests are derived
/// from it.
#[derive(Debug)]
pub struct AlgorithmDescriptor {
    /// The name, as in `--algo`.
    pub name: &'static str,
    /// One line for help and tables.
    pub summary: &'static str,
    /// Where it is described.
    pub source: &'static str,
}

/// What switches do on the way, beside passing messages on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Switching {
    /// They copy what one sends to many: its port passes it once.
    pub multicast: bool,
    /// They fold what many send to one: its port passes the result once.
    pub reduces: bool,
}

/// A pure, deterministic generator of plans.
///
/// Contract:
/// 1. The same spec gives the same plan on every machine, always.
/// 2. Any rank count from 1, any root, any count, unless [`Algorithm::supports`] says why not.
/// 3. The plans of all ranks of one spec pass the verifier, in place and out of place.
/// 4. A plan depends on nothing but its spec; it names no transport and no clock.
/// 5. The profile is the plans': as many steps one after the other as the verifier counts, and the bytes of the busiest
///    rank.
/// 6. An operation that does not nest ([`ReduceOp::nests`]) gets one reduction over all ranks for each element, one that
///    does not commute ([`ReduceOp::commutes`]) a plan of [`Association::Flat`](crate::plan::Association::Flat); or
///    [`Algorithm::supports_op`] refuses it.
pub trait Algorithm: Send + Sync {
    /// Its descriptor.
    fn descriptor(&self) -> &'static AlgorithmDescriptor;

    /// Whether it can do this; the error says why not.
    fn supports(&self, kind: Kind, ranks: u32) -> Result<()>;

    /// Whether it can reduce with this operation; the error says why not. Unless an algorithm says otherwise, it combines
    /// step by step in an order of its own, which neither an average nor a user's operation that does not commute allows.
    fn supports_op(&self, op: ReduceOp) -> Result<()> {
        let needs = match op {
            _ if !op.nests() => "all of them at once",
            _ if !op.commutes() => "them in rank order",
            _ => return Ok(()),
        };
        let (name, op) = (self.descriptor().name, op.name());
        Err(Error::unsupported(format!(
            "{name} does not do {op}: it combines ranks step by step, and {op} needs {needs}; name no \
             algorithm, or one that combines in one step"
        )))
    }

    /// What the switches between all ranks must do for this kind, if it is to be worth a thought. Its plans run without
    /// that too, but nobody would want them: a tuner leaves it out there.
    fn wants(&self, _kind: Kind) -> Switching {
        Switching::default()
    }

    /// Whether it can do this call.
    ///
    /// Errors: Unsupported, with what [`Algorithm::supports`] or [`Algorithm::supports_op`] says.
    fn supports_call(&self, call: &Collective, ranks: u32) -> Result<()> {
        self.supports(call.kind(), ranks)?;
        call.op().map_or(Ok(()), |op| self.supports_op(op))
    }

    /// The plan of one rank. Only called if [`Algorithm::supports_call`] agrees.
    fn plan(&self, spec: &Spec) -> Plan;

    /// What its plans cost where ranks stand so, as the file's table of steps and bytes has it. Of the spec, the rank
    /// does not matter. Only called if [`Algorithm::supports_call`] agrees.
    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile;
}
