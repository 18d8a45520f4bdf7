//! What the verifier can find wrong, told so that the author of a plan understands it.

use crate::collective::Rank;
use crate::plan::{At, StepId};
use crate::symbolic::Value;
use std::fmt;

/// One step instance of one rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepAt {
    /// The rank.
    pub rank: Rank,
    /// The lane.
    pub lane: u8,
    /// The step.
    pub step: StepId,
    /// The turn of its loop.
    pub at: At,
    /// The step as text, as in the plan's dump.
    pub text: Box<str>,
}

/// A range of one rank's memory: which buffer, first element, elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// "input", "output" or "scratch"; in place, "buffer" is the one buffer of both.
    pub buffer: &'static str,
    /// First element in it.
    pub start: u64,
    /// Elements.
    pub len: u64,
}

/// How sends are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A send completes when every step that receives it has completed, and a receiving step when all its messages were
    /// posted and the steps that take the messages before them, on the same channels, have completed.
    Rendezvous,
    /// A send completes when it is posted.
    Buffered,
}

/// What a step that never happens waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It was posted, and its peer's step was not.
    ForPeer(StepAt),
    /// It was posted, and so was its peer's step, which has not completed.
    ForReceiver(StepAt),
    /// An edge's target has not completed.
    ForEdge(StepAt),
    /// The lane's window is full; this is its oldest incomplete step.
    ForWindow(StepAt),
}

/// Why a set of plans is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Two ranks' plans are not of the same call.
    Disagreement {
        /// The rank whose plan differs from rank 0's.
        rank: Rank,
        /// What differs.
        what: &'static str,
    },
    /// A plan, or one step of it, means nothing, whatever the others do.
    Malformed {
        /// The rank.
        rank: Rank,
        /// The step, unless it is the plan as a whole.
        step: Option<Box<StepAt>>,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A step writes where a plan may not write: an input, or in place anything but the output.
    ForbiddenWrite {
        /// The step.
        step: StepAt,
        /// What it writes.
        place: Place,
    },
    /// A step reads what nobody has written.
    UnwrittenRead {
        /// The step.
        step: StepAt,
        /// What it reads.
        place: Place,
    },
    /// Two steps touch the same memory, one of them writes, and nothing orders them.
    Unordered {
        /// One step.
        first: StepAt,
        /// The other, which no edge holds back until the first has completed.
        second: StepAt,
        /// What the second touches.
        place: Place,
    },
    /// A send without its receive, or a receive without its send.
    Unmatched {
        /// The step.
        step: StepAt,
        /// The peer that has no such step.
        peer: Rank,
        /// Whether the step is the send.
        sends: bool,
        /// Its number among the messages from sender to receiver on the lane.
        ordinal: u32,
    },
    /// A send and its receive are of different lengths.
    Lengths {
        /// The send.
        send: StepAt,
        /// The receive.
        receive: StepAt,
        /// Elements sent.
        sent: u64,
        /// Elements expected.
        expected: u64,
    },
    /// The plans stop before their ends.
    Deadlock {
        /// How sends were run.
        mode: Mode,
        /// A step that never completes or is never posted.
        step: StepAt,
        /// What it waits for.
        waits: Waits,
    },
    /// A step reduces what is a reduction already, with an operation that does not nest.
    Nested {
        /// The step.
        step: StepAt,
        /// The operation.
        op: &'static str,
    },
    /// An output element is not what the collective asks for.
    Outcome {
        /// The rank.
        rank: Rank,
        /// The element of its output.
        element: u64,
        /// What is wrong.
        wrong: Wrong,
    },
    /// A rank may leave a barrier before another has come.
    Leak {
        /// Who may leave.
        rank: Rank,
        /// Who need not have come.
        missing: Rank,
    },
}

/// How an output element is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Nobody wrote it.
    Unwritten,
    /// It lies between the blocks that the call names, and was overwritten.
    Gap,
    /// A contribution is in it twice, or elements of different places were mixed.
    Doubled,
    /// A rank's contribution is missing.
    Missing(Rank),
    /// A rank's contribution is in it and should not be.
    Stranger(Rank),
    /// The set of contributors is wrong; above [`Value::EXACT_RANKS`] ranks it isn't known which.
    Contributors,
    /// It belongs to another element of the inputs.
    Displaced {
        /// The element it should be.
        wanted: i64,
        /// The element it is.
        found: i64,
    },
    /// The right contributions, combined in another order or nesting than the plan's declared association.
    Association,
}

impl Wrong {
    /// Compares what an element should be with what it is.
    pub(super) fn of(wanted: Value, found: Value, ranks: u32) -> Option<Wrong> {
        if wanted == found {
            return None;
        }
        if found.contributors == 0 {
            return Some(Wrong::Unwritten);
        }
        if found.doubled {
            return Some(Wrong::Doubled);
        }
        if found.contributors != wanted.contributors {
            if ranks > Value::EXACT_RANKS {
                return Some(Wrong::Contributors);
            }
            let missing = wanted.contributors & !found.contributors;
            let strange = found.contributors & !wanted.contributors;
            return Some(if missing == 0 {
                Wrong::Stranger(strange.trailing_zeros())
            } else {
                Wrong::Missing(missing.trailing_zeros())
            });
        }
        if found.origin != wanted.origin {
            return Some(Wrong::Displaced { wanted: wanted.origin, found: found.origin });
        }
        Some(Wrong::Association)
    }
}

impl std::error::Error for Violation {}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Disagreement { rank, what } => {
                write!(f, "the plans of ranks 0 and {rank} are not of one call: different {what}")
            }
            Violation::Malformed { step: Some(step), what, .. } => write!(f, "{step}: {what}"),
            Violation::Malformed { rank, step: None, what } => write!(f, "the plan of rank {rank}: {what}"),
            Violation::ForbiddenWrite { step, place } => {
                write!(f, "{step}: writes {place}, which a plan may not write")
            }
            Violation::UnwrittenRead { step, place } => {
                write!(f, "{step}: reads {place}, part of which no step before it is sure to have written")
            }
            Violation::Unordered { first, second, place } => write!(
                f,
                "{second}: touches {place} while {first} may still be under way; an edge after it is missing"
            ),
            Violation::Unmatched { step, peer, sends, ordinal } => {
                let (does, lacks) = if *sends { ("sends", "receives") } else { ("expects", "sends") };
                let (from, to) = if *sends { (step.rank, *peer) } else { (*peer, step.rank) };
                write!(f, "{step}: {does} message {ordinal} from rank {from} to rank {to} of its lane, ")?;
                write!(f, "which rank {peer} never {lacks}")
            }
            Violation::Lengths { send, receive, sent, expected } => {
                write!(f, "{send}: sends {sent} elements to {receive}, which expects {expected}")
            }
            Violation::Deadlock { mode, step, waits } => {
                let mode = match mode {
                    Mode::Rendezvous => "with every send a rendezvous",
                    Mode::Buffered => "with unlimited buffering",
                };
                write!(f, "deadlock {mode}: {step} waits {waits}")
            }
            Violation::Nested { step, op } => write!(
                f,
                "{step}: combines what was combined before; {op} needs all contributions in one reduction"
            ),
            Violation::Outcome { rank, element, wrong } => {
                write!(f, "rank {rank} ends with a wrong output: element {element} {wrong}")
            }
            Violation::Leak { rank, missing } => {
                write!(f, "rank {rank} may leave the barrier before rank {missing} has come")
            }
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Unwritten => f.write_str("was never written"),
            Wrong::Gap => f.write_str("lies between blocks and was overwritten"),
            Wrong::Doubled => f.write_str("has a contribution twice or mixes different elements"),
            Wrong::Missing(rank) => write!(f, "lacks the contribution of rank {rank}"),
            Wrong::Stranger(rank) => {
                write!(f, "has a contribution of rank {rank}, which does not belong there")
            }
            Wrong::Contributors => f.write_str("does not have each contribution exactly once"),
            Wrong::Displaced { wanted, found } => {
                write!(f, "should be element {wanted} of the inputs and is element {found}")
            }
            Wrong::Association => {
                f.write_str("has every contribution, combined in another order than the plan declares")
            }
        }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waits::ForPeer(step) => write!(f, "for its peer to post {step}"),
            Waits::ForReceiver(step) => write!(f, "for its peer to complete {step}"),
            Waits::ForEdge(step) => write!(f, "by an edge for {step}"),
            Waits::ForWindow(step) => write!(f, "for room in its lane's window, which is held by {step}"),
        }
    }
}

impl fmt::Display for StepAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} lane {} step {}", self.rank, self.lane, self.step.0)?;
        write!(f, " turn ({}, {}) [{}]", self.at.outer, self.at.inner, self.text)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} elements {}..{}", self.buffer, self.start, self.start + self.len)
    }
}
