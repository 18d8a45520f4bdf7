//! Plans of one round: every message is a part of what its sender brings, and every element is combined once, from all
//! ranks in order. Where an endpoint can show one small input to all its peers ([`Endpoint::direct_limits`]), such a plan
//! need not be walked step by step: everybody publishes once what others need of its input, and everybody takes from the
//! publications what the collective's definition says (or one rank does, and shows the others what it has made). The result
//! is the plan's, bit for bit, because the verifier holds the plan to that same definition.
//!
//! [`Endpoint::direct_limits`]: crate::endpoint::Endpoint::direct_limits

use crate::algorithm::Spec;
use crate::collective::{Collective, Content, Rank};
use crate::dtype::DataType;
use crate::endpoint::HostPointer;
use crate::kind::Kind;
use crate::op::ReduceOp;
use crate::plan::{Action, Association, Buffer, Plan, Slice};

/// Where more than two ranks meet: the rank that all others show what they bring, and that then shows them what it makes of
/// it. A barrier meets, which is fewer ways of a line than if all show all; and an all-reduce where ranks share cores, which
/// is fewer sleepers to be woken. Two ranks show each other. (Barrier of two, near: .20 us if they meet, .18 if both show;
/// far .55 and .42. All-reduce of 8 bytes on two cores, all show all -> they meet: 8 ranks 13 -> 11.6 us, 64 ranks 530 to
/// 1,200 -> 220 to 250.)
const MEETING: Rank = 0;

/// How long publications an endpoint takes, in bytes. The same on all ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectLimits {
    /// The longest of all: above it, messages whose first part is read while the next is written are faster. 0 if it takes
    /// none.
    pub any: u64,
    /// The longest of an exchange ([`Direct::is_exchange`]), not less: there all write and then all read, so that parts gain
    /// nothing.
    pub exchange: u64,
}

/// One rank's part in a round of publications, for any count. Places are counted in blocks of the call's count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// Blocks of this rank's input.
    pub input: u64,
    /// Whether the block of an input that has its rank's number is for that rank alone, and is not published.
    pub keeps_own: bool,
    /// Blocks of the longest publication of any rank.
    pub longest: u64,
    /// Whether every rank publishes as much, and waits for all others.
    pub is_exchange: bool,
    /// Whether a message of the plan carries a block, or nothing (a barrier).
    pub carries: bool,
    /// Who reads this rank's publication, in order; if nobody, there is none.
    pub readers: Vec<Rank>,
    /// Whose publications this rank reads, in order.
    pub writers: Vec<Rank>,
    /// Whether this rank shows its publication only once it has read all others, and then shows its output instead of its
    /// input: the rank that all meet at.
    pub reads_first: bool,
    /// What it makes of them.
    pub parts: Vec<Part>,
    /// The element type.
    pub dtype: DataType,
    /// The operation, if the kind reduces.
    pub op: Option<ReduceOp>,
}

/// One block of a rank's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Is block `at` of a rank's input.
    Copy {
        /// Whose; may be this rank itself.
        from: Rank,
        /// Which block of that input.
        at: u64,
        /// Which block of the output.
        into: u64,
    },
    /// Is the reduction of block `at` of every rank's input, in the order of ranks, rounded once.
    Fold {
        /// Which block of every input.
        at: u64,
        /// Which block of the output.
        into: u64,
    },
}

/// A call that is done in one round of publications, with its sizes and buffers. These are no regions: to give memory a
/// name would take as long as a small call.
#[derive(Clone, Copy, Debug)]
pub struct DirectCall<'a> {
    /// Who publishes, reads and makes what.
    pub direct: &'a Direct,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Where the rank's input is: `direct.input` blocks.
    pub input: HostPointer,
    /// Where its output is, as many blocks as the parts make; in place they overlap as the kind says.
    pub output: HostPointer,
    /// How often to look for what has not come, at least once, before answering that it has not.
    pub looks: u32,
}

/// How far a round of publications has come. All zeros before it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectProgress {
    /// Whether this rank has written its publication, if it has one.
    pub written: bool,
    /// How many of the writers, in order, are known to have published.
    pub ready: u32,
}

impl Direct {
    /// Bytes of its longest publication, by these limits.
    pub fn limit(&self, limits: DirectLimits) -> u64 {
        if self.is_exchange { limits.exchange } else { limits.any }
    }

    /// Where in what rank `of` publishes block `at` of its input is, in blocks.
    #[inline]
    pub fn place(&self, of: Rank, at: u64) -> u64 {
        at - u64::from(self.keeps_own && at > u64::from(of))
    }

    /// What this rank, number `rank`, publishes of its input: so many blocks, and then, a block left out, so many more.
    #[inline]
    pub fn published(&self, rank: Rank) -> (u64, u64) {
        let own = u64::from(rank);
        match self.keeps_own && own < self.input {
            true => (own, self.input - 1 - own),
            false => (self.input, 0),
        }
    }

    /// What the plans of a call come to if all have but one round, and sizes do not come from tables.
    ///
    /// All ranks have to answer alike. A rank may have no more to do than in a plan of one round where others have, and
    /// ranks need not agree on whether they call in place (whose plans copy some things aside first, for nothing here). So
    /// what counts is the plans of all ranks, out of place, which `plan_of` makes. `is_crowded` says whether ranks share cores,
    /// on all of them alike.
    pub fn of(spec: &Spec, plan_of: impl Fn(&Spec) -> Plan, is_crowded: bool) -> Option<Direct> {
        if spec.kind.is_tabled() || spec.kind.is_point_to_point() || spec.ranks == 1 {
            return None;
        }
        let plan = |rank| plan_of(&Spec { rank, in_place: false, ..*spec });
        if !(0..spec.ranks).all(|rank| is_one_round(&plan(rank))) {
            return None;
        }
        let call = spec.collective(1);
        let (ranks, rank) = (spec.ranks, spec.rank);
        let others = || (0..ranks).filter(move |&other| other != rank);
        let meets = ranks > 2
            && match spec.kind {
                Kind::Barrier => true,
                Kind::AllReduce => is_crowded,
                _ => false,
            };
        let is_read = |reader, writer| match meets {
            true => reader == MEETING || writer == MEETING,
            false => uses(&call, ranks, reader, writer),
        };
        let readers = others().filter(|&reader| is_read(reader, rank)).collect();
        let writers = others().filter(|&writer| is_read(rank, writer)).collect();
        let holdings = Collective::holdings(&|_| call, ranks, rank);
        let keeps_own = matches!(spec.kind, Kind::ReduceScatter | Kind::AllToAll | Kind::Scatter);
        let part = |holding: &crate::collective::Holding| match holding.content {
            _ if meets && rank != MEETING => {
                Part::Copy { from: MEETING, at: holding.start, into: holding.start }
            }
            Content::Of { rank, at } => Part::Copy { from: rank, at, into: holding.start },
            Content::Reduction { at } => Part::Fold { at, into: holding.start },
        };
        Some(Direct {
            input: call.input_elements(ranks, rank),
            longest: (0..ranks).map(|rank| call.input_elements(ranks, rank)).max().unwrap_or(0)
                - u64::from(keeps_own),
            keeps_own,
            is_exchange: !meets
                && matches!(
                    spec.kind,
                    Kind::AllReduce | Kind::AllGather | Kind::ReduceScatter | Kind::AllToAll
                ),
            carries: spec.kind != Kind::Barrier,
            reads_first: meets && rank == MEETING,
            readers,
            writers,
            parts: holdings.iter().map(part).collect(),
            dtype: spec.dtype,
            op: spec.op,
        })
    }
}

/// Whether `reader` needs anything of what `writer` brings.
fn uses(call: &Collective<'static>, ranks: u32, reader: Rank, writer: Rank) -> bool {
    let is_root = |rank| call.root() == Some(rank);
    match call.kind() {
        // What these hold takes a list as long as the communicator to say.
        Kind::AllReduce | Kind::AllGather | Kind::ReduceScatter | Kind::AllToAll | Kind::Barrier => true,
        Kind::Broadcast | Kind::Scatter => is_root(writer),
        Kind::Reduce | Kind::Gather => is_root(reader),
        _ => Collective::holdings(&|_| *call, ranks, reader).iter().any(|holding| match holding.content {
            Content::Of { rank, .. } => rank == writer,
            Content::Reduction { .. } => true,
        }),
    }
}

/// Whether what is sent is always the sender's own input, and what is combined is combined once.
fn is_one_round(plan: &Plan) -> bool {
    let folds_once = matches!(plan.association(), Association::None | Association::Flat);
    let steps = || plan.lanes().iter().flat_map(|lane| &lane.loops).flat_map(|turn| &turn.steps);
    // Scratch that anything but the input may stand in is no source.
    let is_scratch_input = steps().all(|step| match &step.action {
        Action::Receive { into, .. } | Action::ReceiveReduce { into, .. } => !is_scratch(into),
        Action::Copy { from, into } => !is_scratch(into) || is_input(from, false),
        Action::Send { .. } => true,
    });
    folds_once
        && steps().all(|step| match &step.action {
            Action::Send { from, .. } => is_input(from, is_scratch_input),
            _ => true,
        })
}

fn is_scratch(slice: &Slice) -> bool {
    matches!(slice, Slice::Scratch { .. })
}

fn is_input(slice: &Slice, is_scratch_input: bool) -> bool {
    match slice {
        Slice::Empty => true,
        Slice::Of(shape) => shape.buffer == Buffer::Input,
        Slice::Scratch { .. } => is_scratch_input,
    }
}
