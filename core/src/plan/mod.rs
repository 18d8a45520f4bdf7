//! A plan: one rank's steps for one collective, for any count.
//!
//! A plan has lanes (channels) that run concurrently. A lane is a sequence of counted [`Loop`]s of [`Step`]s; straight
//! steps are a loop of one turn. Peers, offsets and edges are expressions of the loop indices, sizes are expressions
//! over the count, so one small plan serves every count, and nothing of the size of the data is ever stored.
//!
//! **Posting and completing.** A lane posts its steps in order. A step is posted when every step it names in
//! [`Step::after`] has completed and fewer than [`Lane::window`] steps of its lane are under way (posted, not
//! completed); completions may come in any order. Steps of a lane without an edge between them may be under way
//! together, in any order. The memory a step touches is busy from post to completion.
//!
//! A receiving step completes when all its messages have come. A send completes when its slice may be overwritten:
//! perhaps at once, perhaps only when every receiving step that takes it has completed. Messages of one sender, receiver
//! and lane wait behind each other: the next may have to wait until the step that takes the one before has completed,
//! with the messages of all its other sources. A plan has to get to its end under the strictest reading, since a message
//! longer than what an endpoint buffers is under way for that long.
//!
//! **Matching.** The k-th send of rank a to rank b on lane l meets the k-th receive of rank b from rank a on lane l;
//! a step with a peer list counts once for each peer.

mod bind;
mod builder;
mod dump;
mod expression;
mod sizes;

pub use bind::{Binding, Cursor, Extent, Instance, Position};
pub use builder::PlanBuilder;
pub use expression::{At, Buffer, Cut, Index, PeerRun, Peers, Shape, Slice, Trips};
pub use sizes::{Side, Sizes, TableEntry};

use crate::algorithm::Spec;
use crate::op::ReduceOp;

/// The most lanes a plan may have.
pub const MAX_LANES: usize = 8;
/// The widest window a lane may have: as many ranks can be talked to at once.
pub const MAX_WINDOW: u32 = 4096;
/// The most steps of a lane that may be under way with one peer. A lane of a wider window names each peer in at most so
/// many of its steps, and loops a fixed number of times, so that this holds whatever the count.
pub const MAX_WINDOW_PER_PEER: u32 = 64;
/// The most peers of a [`Peers::List`]; a longer list is a run.
pub const MAX_LISTED_PEERS: usize = 8;

/// One rank's plan. Immutable; made by a [`PlanBuilder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub(crate) spec: Spec,
    pub(crate) algorithm: &'static str,
    pub(crate) association: Association,
    pub(crate) scratch: Option<Scratch>,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) places: Vec<Place>,
}

/// A lane: steps that are posted in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// How many steps may be under way at once: 1 to [`MAX_WINDOW`], at most [`MAX_WINDOW_PER_PEER`] with one peer.
    pub window: u32,
    /// What it does, one loop after the other.
    pub loops: Vec<Loop>,
}

/// `outer × inner` turns of the same steps; the inner index runs fastest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// Turns of the outer index.
    pub outer: Trips,
    /// Turns of the inner index.
    pub inner: Trips,
    /// The steps of one turn.
    pub steps: Vec<Step>,
}

/// One step of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub action: Action,
    /// What must have completed before it is posted.
    pub after: Vec<After>,
}

/// What a step does. `ReceiveReduce` and `Copy` happen in the rank's own memory domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publishes a slice to every listed peer. Completes when the slice may be overwritten: at the latest when every
    /// step that receives it has completed.
    Send {
        /// What.
        from: Slice,
        /// To whom: never this rank itself.
        to: Peers,
    },
    /// Receives one message. Completes when the slice may be read.
    Receive {
        /// Where to.
        into: Slice,
        /// From whom.
        from: Index,
    },
    /// Receives one message from each listed source and writes their reduction. **The list's order is the association
    /// order**: a left fold, accumulated wide, rounded once when written. The entry that is this rank itself stands for
    /// `own`, which may be `into`.
    ReceiveReduce {
        /// The sources in order; this rank itself at most once.
        sources: Peers,
        /// This rank's own contribution.
        own: Slice,
        /// Where the result goes.
        into: Slice,
    },
    /// Copies between two slices of this rank.
    Copy {
        /// What.
        from: Slice,
        /// Where to.
        into: Slice,
    },
}

/// Names a step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub u16);

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of its lane.
    pub lane: u8,
    /// Index of its loop in the lane.
    pub turn: u16,
    /// Index in the loop's body.
    pub body: u16,
}

/// "Not before that one": an edge to one turn of a step, of this lane or another. A turn that does not exist (an index
/// below zero or beyond the last) asks for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    /// The step.
    pub step: StepId,
    /// Which turn of its outer loop, as an expression of our indices.
    pub outer: Index,
    /// Which turn of its inner loop.
    pub inner: Index,
    /// How much of it.
    pub edge: Edge,
}

/// How much of the earlier step an edge waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// All of it.
    Whole,
    /// Byte i needs only byte i, so that who reads a slice may also write it in place. An endpoint may start such a
    /// step early; the executor itself treats the edge as whole.
    Elementwise,
}

/// The order in which contributions are combined, as the plan promises it. The verifier holds every element of every
/// rank to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Association {
    /// Nothing is combined.
    None,
    /// One reduction over the ranks in order, 0 to n−1, rounded once.
    Flat,
    /// Block b of n (by [`Cut::Even`] over the reduced vector) is `((x[b+1] + x[b+2]) + …) + x[b]`, ranks modulo n,
    /// rounded at every `+`.
    Ring,
    /// One tree over the ranks in order, counted from the root on (from 0 if there is none): `radix` neighbours are
    /// reduced to one, then `radix` of these neighbours, and so on; rounded at every reduction. The last group of a
    /// level may be smaller, and one alone is itself.
    Tree {
        /// How many are reduced to one.
        radix: u8,
    },
    /// An order of the algorithm's own: every element once from every rank, and on all ranks that get it the same
    /// expression.
    Own,
}

/// Memory a plan needs beside the caller's: `slots` pieces, each as long as the shape's longest slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// How many pieces.
    pub slots: u32,
    /// The shape of one.
    pub shape: Shape,
}

impl Plan {
    /// What it was made for.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The algorithm's name.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// The order of combination that it promises.
    pub fn association(&self) -> Association {
        self.association
    }

    /// Its lanes.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The memory it needs beside the caller's.
    pub fn scratch(&self) -> Option<&Scratch> {
        self.scratch.as_ref()
    }

    /// The same with lanes of this window: to see what a plan needs of its own.
    #[doc(hidden)]
    pub fn with_windows(mut self, window: u32) -> Self {
        self.lanes.iter_mut().for_each(|lane| lane.window = window);
        self
    }

    /// Where a step stands.
    pub fn place(&self, step: StepId) -> Place {
        self.places[usize::from(step.0)]
    }

    /// A number that tells plans of one call apart: same algorithm, same choice, same rank count, and if the operation is
    /// a user's, same name. All ranks of a call must have the same; it travels in the signature.
    pub fn number(&self) -> u32 {
        let choice = self.spec.choice;
        let fields = [u32::from(choice.lanes), choice.chunk_bytes, self.spec.ranks];
        let user_op = match self.spec.op {
            Some(ReduceOp::User(op)) => op.name(),
            _ => "",
        };
        let fields = fields.into_iter().flat_map(u32::to_le_bytes);
        let bytes = self.algorithm.bytes().chain(fields).chain(user_op.bytes()).chain(choice.engine);
        // FNV-1a: short, stable everywhere, and nobody gains by a collision.
        bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }
}
