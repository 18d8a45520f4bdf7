//! What can be asked: the collectives, and who holds what before and after each.

use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::op::ReduceOp;
use crate::signature::Signature;
use std::fmt;

/// 0-based index of a participant in one communicator.
pub type Rank = u32;

/// The kinds of collective. A new kind is a variant, a row in [`Kind::TABLE`] and its lines in this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// Every rank gets the reduction of all inputs. `count` is the whole vector.
    AllReduce = 1,
    /// Every rank gets all inputs in rank order. `count` is one rank's input.
    AllGather = 2,
    /// Rank r gets block r of the reduction of all inputs. `count` is one rank's output.
    ReduceScatter = 3,
    /// Every rank gets the root's input. `count` is the whole vector.
    Broadcast = 4,
    /// Nobody leaves before everybody has come. Moves no data.
    Barrier = 5,
    /// Point to point: this rank sends to one peer, receives from one peer, or both at once. `count` each way.
    SendReceive = 6,
}

/// A row of the table of kinds.
#[derive(Debug)]
pub struct KindRow {
    /// The kind.
    pub kind: Kind,
    /// Our name.
    pub name: &'static str,
    /// Other names that are understood: NCCL's, MPI's and torch's.
    pub aliases: &'static [&'static str],
    /// Whether it combines elements.
    pub reduces: bool,
    /// Whether it has a root.
    pub rooted: bool,
}

impl Kind {
    /// Every kind.
    pub const TABLE: &'static [KindRow] = &[
        row(Kind::AllReduce, "all_reduce", &["allreduce"], true, false),
        row(Kind::AllGather, "all_gather", &["allgather"], false, false),
        row(Kind::ReduceScatter, "reduce_scatter", &["reducescatter"], true, false),
        row(Kind::Broadcast, "broadcast", &["bcast"], false, true),
        row(Kind::Barrier, "barrier", &[], false, false),
        row(Kind::SendReceive, "sendrecv", &["send_receive", "send_recv"], false, false),
    ];

    /// This kind's row.
    pub fn row(self) -> &'static KindRow {
        Self::TABLE.iter().find(|row| row.kind == self).expect("every kind has a row in TABLE")
    }

    /// Our name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The stable number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::TABLE.iter().map(|row| row.kind).find(|kind| kind.code() == code)
    }

    /// Parses a name; `-` and `_` are the same, and nccl-tests' `_perf` may follow.
    ///
    /// Errors: InvalidArgument, listing what exists.
    pub fn parse(text: &str) -> Result<Self> {
        let wanted = text.replace('-', "_");
        let wanted = wanted.strip_suffix("_perf").unwrap_or(&wanted);
        let known = |row: &&KindRow| row.name == wanted || row.aliases.contains(&wanted);
        Self::TABLE.iter().find(known).map(|row| row.kind).ok_or_else(|| {
            let names: Vec<_> = Self::TABLE.iter().map(|row| row.name).collect();
            Error::invalid(format!("unknown collective '{text}'; there are: {}", names.join(", ")))
        })
    }

    /// Bus bandwidth = algorithm bandwidth × this, as nccl-tests defines it.
    pub fn bus_factor(self, ranks: u32) -> f64 {
        let n = f64::from(ranks.max(1));
        match self {
            Kind::AllReduce => 2.0 * (n - 1.0) / n,
            Kind::AllGather | Kind::ReduceScatter => (n - 1.0) / n,
            Kind::Broadcast | Kind::Barrier | Kind::SendReceive => 1.0,
        }
    }
}

const fn row(
    kind: Kind,
    name: &'static str,
    aliases: &'static [&'static str],
    reduces: bool,
    rooted: bool,
) -> KindRow {
    KindRow { kind, name, aliases, reduces, rooted }
}

/// What was asked, as one rank states it. Made by the constructors only, so that it is always complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Collective {
    kind: Kind,
    count: u64,
    dtype: DataType,
    op: Option<ReduceOp>,
    root: Option<Rank>,
    to: Option<Rank>,
    from: Option<Rank>,
}

/// What one range of an output must hold afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// First element of the range in the output.
    pub start: u64,
    /// Elements in the range.
    pub len: u64,
    /// Where its content comes from.
    pub content: Content,
}

/// Where the content of a range comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Elements of one rank's input, beginning at `at`.
    Of {
        /// The rank.
        rank: Rank,
        /// First element in its input.
        at: u64,
    },
    /// The reduction over all ranks of their inputs, beginning at `at`.
    Reduction {
        /// First element in every input.
        at: u64,
    },
}

impl Collective {
    /// The most elements one call may name: the count travels in 48 bits of the [`Signature`].
    pub const MAX_COUNT: u64 = (1 << 48) - 1;

    const fn new(kind: Kind, count: u64, dtype: DataType) -> Self {
        Collective { kind, count, dtype, op: None, root: None, to: None, from: None }
    }

    /// An all-reduce of `count` elements.
    pub const fn all_reduce(count: u64, dtype: DataType, op: ReduceOp) -> Self {
        Collective { op: Some(op), ..Self::new(Kind::AllReduce, count, dtype) }
    }

    /// An all-gather of `count` elements from each rank.
    pub const fn all_gather(count: u64, dtype: DataType) -> Self {
        Self::new(Kind::AllGather, count, dtype)
    }

    /// A reduce-scatter that leaves `count` elements on each rank.
    pub const fn reduce_scatter(count: u64, dtype: DataType, op: ReduceOp) -> Self {
        Collective { op: Some(op), ..Self::new(Kind::ReduceScatter, count, dtype) }
    }

    /// A broadcast of `count` elements from `root`.
    pub const fn broadcast(count: u64, dtype: DataType, root: Rank) -> Self {
        Collective { root: Some(root), ..Self::new(Kind::Broadcast, count, dtype) }
    }

    /// A barrier.
    pub const fn barrier() -> Self {
        Self::new(Kind::Barrier, 0, DataType::U8)
    }

    /// Sends `count` elements to `to` and receives `count` from `from`, concurrently; either may be missing.
    pub const fn send_receive(count: u64, dtype: DataType, to: Option<Rank>, from: Option<Rank>) -> Self {
        Collective { to, from, ..Self::new(Kind::SendReceive, count, dtype) }
    }

    /// The kind.
    pub const fn kind(&self) -> Kind {
        self.kind
    }
    /// Elements, as the kind counts them.
    pub const fn count(&self) -> u64 {
        self.count
    }
    /// The element type.
    pub const fn dtype(&self) -> DataType {
        self.dtype
    }
    /// The operation, if the kind reduces.
    pub const fn op(&self) -> Option<ReduceOp> {
        self.op
    }
    /// The root, if the kind has one.
    pub const fn root(&self) -> Option<Rank> {
        self.root
    }
    /// Whom this rank sends to (send/receive only).
    pub const fn to(&self) -> Option<Rank> {
        self.to
    }
    /// Whom this rank receives from (send/receive only).
    pub const fn from(&self) -> Option<Rank> {
        self.from
    }

    /// The same call with another count.
    pub const fn with_count(self, count: u64) -> Self {
        Collective { count, ..self }
    }

    /// Checks what a constructor cannot: ranks in range, sizes that fit, an operation that the type has.
    ///
    /// Errors: InvalidArgument, naming the argument and its limit.
    pub fn check(&self, ranks: u32) -> Result<()> {
        for (what, rank) in [("root", self.root), ("destination", self.to), ("source", self.from)] {
            if let Some(rank) = rank.filter(|&rank| rank >= ranks) {
                let last = ranks.saturating_sub(1);
                return Err(Error::invalid(format!(
                    "{}: {what} {rank} is not a rank; ranks are 0 to {last}",
                    self.kind.name()
                )));
            }
        }
        if let Some(op) = self.op {
            op.supports(self.dtype)?;
        }
        let elements = self.count.checked_mul(u64::from(ranks));
        let bytes = elements.and_then(|elements| elements.checked_mul(self.dtype.size() as u64));
        if self.count > Self::MAX_COUNT || bytes.is_none_or(|bytes| bytes > isize::MAX as u64) {
            return Err(Error::invalid(format!(
                "{}: count {} is too large for {ranks} ranks of {}",
                self.kind.name(),
                self.count,
                self.dtype.name()
            )));
        }
        Ok(())
    }

    /// Elements that `rank` brings.
    pub fn input_elements(&self, ranks: u32, rank: Rank) -> u64 {
        match self.kind {
            Kind::AllReduce | Kind::AllGather => self.count,
            Kind::ReduceScatter => self.count * u64::from(ranks),
            Kind::Broadcast if self.root == Some(rank) => self.count,
            Kind::SendReceive if self.to.is_some() => self.count,
            Kind::Broadcast | Kind::Barrier | Kind::SendReceive => 0,
        }
    }

    /// Elements that `rank` gets.
    pub fn output_elements(&self, ranks: u32, _rank: Rank) -> u64 {
        match self.kind {
            Kind::AllReduce | Kind::ReduceScatter | Kind::Broadcast => self.count,
            Kind::AllGather => self.count * u64::from(ranks),
            Kind::SendReceive if self.from.is_some() => self.count,
            Kind::Barrier | Kind::SendReceive => 0,
        }
    }

    /// Where input and output begin in the one buffer of an in-place call (elements; one of them is 0), by NCCL's
    /// rules: all-gather's input is the rank's own block of the output, reduce-scatter's output the rank's own block
    /// of the input.
    pub fn in_place_offsets(&self, rank: Rank) -> (u64, u64) {
        let own = self.count * u64::from(rank);
        match self.kind {
            Kind::AllGather => (own, 0),
            Kind::ReduceScatter => (0, own),
            _ => (0, 0),
        }
    }

    /// Elements of the one buffer of an in-place call.
    pub fn in_place_elements(&self, ranks: u32, rank: Rank) -> u64 {
        self.input_elements(ranks, rank).max(self.output_elements(ranks, rank))
    }

    /// What `rank` must hold in its output afterwards, in order and without gaps.
    pub fn holdings(&self, ranks: u32, rank: Rank) -> Vec<Holding> {
        let whole = |content| vec![Holding { start: 0, len: self.count, content }];
        match self.kind {
            Kind::AllReduce => whole(Content::Reduction { at: 0 }),
            Kind::ReduceScatter => whole(Content::Reduction { at: self.count * u64::from(rank) }),
            Kind::Broadcast => {
                whole(Content::Of { rank: self.root.expect("a broadcast is made with a root"), at: 0 })
            }
            Kind::AllGather => (0..ranks)
                .map(|r| Holding {
                    start: self.count * u64::from(r),
                    len: self.count,
                    content: Content::Of { rank: r, at: 0 },
                })
                .collect(),
            Kind::SendReceive => match self.from {
                Some(from) => whole(Content::Of { rank: from, at: 0 }),
                None => Vec::new(),
            },
            Kind::Barrier => Vec::new(),
        }
    }

    /// The fingerprint that travels with every message of this call; `plan` tells plans apart.
    pub fn signature(&self, plan: u32) -> Signature {
        Signature::new(self, plan)
    }
}

impl fmt::Display for Collective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if self.kind != Kind::Barrier {
            write!(f, " count={} {}", self.count, self.dtype.name())?;
        }
        if let Some(op) = self.op {
            write!(f, " {}", op.name())?;
        }
        for (what, rank) in [("root", self.root), ("to", self.to), ("from", self.from)] {
            if let Some(rank) = rank {
                write!(f, " {what}={rank}")?;
            }
        }
        Ok(())
    }
}
