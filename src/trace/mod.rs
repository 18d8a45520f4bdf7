//! What a recording of a simulated world says: the critical path of an operation, how much links are used, and traces
//! for the Perfetto viewer.
//!
//! ```
//! use ubccl::sim::{World, WorldConfig};
//! use ubccl::{Collective, DataType, ReduceOp};
//!
//! let mut world = World::new(WorldConfig { ranks: 4, ..WorldConfig::default() })?;
//! world.start_recording();
//! let call = Collective::all_reduce(1 << 20, DataType::F32, ReduceOp::Sum);
//! let outcome = world.run_phantom(&|_| call, false)?;
//! let recording = world.stop_recording();
//! let path = recording.critical_path(0)?;
//! assert_eq!(path.total_ps(), outcome.elapsed_ps);
//! println!("{}", path.describe(&recording.record));
//! # Ok::<(), ubccl::Error>(())
//! ```

mod critical;
mod describe;
#[cfg(feature = "perfetto")]
pub mod perfetto;
mod reasons;
mod utilisation;

use crate::planned::Planned;
pub use critical::{CriticalPath, Leg, Part};
use std::fmt;
use std::sync::Arc;
pub use ubccl_core::record::{
    At, Incident, Link, LinkId, Load, Message, Occupation, Post, PostId, PostKind, Reason, Record, Stretch,
    What,
};
pub use utilisation::{ClassUse, LinkUse};

use reasons::Reasons;
use ubccl_core::endpoint::CommunicatorId;
use ubccl_core::plan::Binding;
use ubccl_core::{Error, Rank, Result};

/// What happened between two moments of a world.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// What the fabric saw.
    pub record: Record,
    /// What was called, by communicator and sequence.
    pub operations: Vec<Operation>,
}

/// One operation of one communicator.
#[derive(Clone)]
pub struct Operation {
    /// On which communicator.
    pub communicator: CommunicatorId,
    /// The how many-th collective there, counted from 1.
    pub sequence: u64,
    /// The call.
    pub text: String,
    /// How it was done.
    pub algorithm: &'static str,
    /// What each rank of the communicator did, in its order.
    pub ranks: Vec<Share>,
}

/// One rank's part of an operation.
#[derive(Clone)]
pub struct Share {
    /// The rank of the world.
    pub rank: Rank,
    /// From its first post to the completion of its last, if it posted anything.
    pub span: Option<Span>,
    /// What it ran: the order of its steps is what explains when they were posted.
    pub(crate) plan: Option<(Arc<Planned>, Binding)>,
}

/// When a rank took part in an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first post.
    pub begin_ps: u64,
    /// When all of its posts had completed; `None` if one never did.
    pub end_ps: Option<u64>,
}

impl Operation {
    /// When its first rank began; 0, if none had anything to do.
    pub fn start_ps(&self) -> u64 {
        self.spans().map(|span| span.begin_ps).min().unwrap_or(0)
    }

    /// When its last rank was done; `None` if one never was.
    pub fn end_ps(&self) -> Option<u64> {
        let ends: Option<Vec<u64>> = self.spans().map(|span| span.end_ps).collect();
        ends.map(|ends| ends.into_iter().max().unwrap_or(0))
    }

    fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.ranks.iter().filter_map(|share| share.span)
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { communicator, sequence, text, .. } = self;
        let start_ps = self.start_ps();
        write!(f, "{text} (the {sequence}. of communicator {}, begun at {start_ps} ps)", communicator.0)
    }
}

impl Recording {
    /// What an operation's time was made of: from the first rank's beginning to the last rank's end.
    ///
    /// Errors: InvalidArgument for an operation that was not recorded or did not end; Internal, if the record has a
    /// gap.
    pub fn critical_path(&self, operation: usize) -> Result<CriticalPath> {
        let operation = self.operations.get(operation).ok_or_else(|| {
            let recorded = self.operations.len();
            Error::invalid(format!("there is no operation {operation}; {recorded} were recorded, from 0"))
        })?;
        critical::of(operation, &Reasons::new(self))
    }

    /// How much each class of links was used between two times.
    pub fn utilisation(&self, from_ps: u64, until_ps: u64) -> Vec<ClassUse> {
        utilisation::by_class(&self.record, from_ps, until_ps)
    }

    /// How much each link was used in so many equal parts of the time between two moments: for each link, in the
    /// record's order, a share of its rate for each part.
    pub fn utilisation_over_time(&self, from_ps: u64, until_ps: u64, parts: usize) -> Vec<LinkUse> {
        utilisation::over_time(&self.record, from_ps, until_ps, parts)
    }
}
