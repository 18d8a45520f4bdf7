//! The kinds of collective, in one table.

use crate::error::{Error, Result};

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
    /// The root gets the reduction of all inputs. `count` is the whole vector.
    Reduce = 7,
    /// The root gets all inputs in rank order. `count` is one rank's input.
    Gather = 8,
    /// Rank r gets block r of the root's input. `count` is one rank's output.
    Scatter = 9,
    /// Rank r gets block r of every input, in rank order. `count` is one block.
    AllToAll = 10,
    /// Gather of blocks of different lengths; the root says where each goes.
    GatherV = 11,
    /// Scatter of blocks of different lengths; the root says where each lies.
    ScatterV = 12,
    /// All-gather of blocks of different lengths; every rank knows all lengths.
    AllGatherV = 13,
    /// Reduce-scatter into blocks of different lengths; every rank knows all lengths.
    ReduceScatterV = 14,
    /// All-to-all of blocks of different lengths; each rank knows its own.
    AllToAllV = 15,
    /// Any number of point-to-point messages at once.
    Group = 16,
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
    /// Whether lengths come from tables ([`crate::blocks`]) and not from one count.
    pub tabled: bool,
}

impl Kind {
    /// Every kind.
    pub const TABLE: &'static [KindRow] = &[
        row(Kind::AllReduce, "all_reduce", &["allreduce"]).reduces(),
        row(Kind::AllGather, "all_gather", &["allgather"]),
        row(Kind::ReduceScatter, "reduce_scatter", &["reducescatter"]).reduces(),
        row(Kind::Broadcast, "broadcast", &["bcast"]).rooted(),
        row(Kind::Barrier, "barrier", &[]),
        row(Kind::SendReceive, "sendrecv", &["send_receive", "send_recv"]),
        row(Kind::Reduce, "reduce", &[]).reduces().rooted(),
        row(Kind::Gather, "gather", &[]).rooted(),
        row(Kind::Scatter, "scatter", &[]).rooted(),
        row(Kind::AllToAll, "all_to_all", &["alltoall"]),
        row(Kind::GatherV, "gather_v", &["gatherv"]).rooted(),
        row(Kind::ScatterV, "scatter_v", &["scatterv"]).rooted(),
        row(Kind::AllGatherV, "all_gather_v", &["allgatherv", "allgather_v"]),
        row(Kind::ReduceScatterV, "reduce_scatter_v", &["reducescatterv", "reduce_scatterv"]).reduces(),
        row(Kind::AllToAllV, "all_to_all_v", &["alltoallv", "alltoall_v"]),
        row(Kind::Group, "group", &[]),
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
    #[inline]
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
            Kind::AllGather | Kind::ReduceScatter | Kind::AllGatherV | Kind::ReduceScatterV => (n - 1.0) / n,
            Kind::Gather | Kind::Scatter | Kind::AllToAll => (n - 1.0) / n,
            Kind::GatherV | Kind::ScatterV | Kind::AllToAllV => (n - 1.0) / n,
            Kind::Broadcast | Kind::Reduce | Kind::Barrier | Kind::SendReceive | Kind::Group => 1.0,
        }
    }

    /// Whether lengths come from tables: every call asks, so without looking for the row.
    #[inline]
    pub const fn is_tabled(self) -> bool {
        matches!(
            self,
            Kind::GatherV
                | Kind::ScatterV
                | Kind::AllGatherV
                | Kind::ReduceScatterV
                | Kind::AllToAllV
                | Kind::Group
        )
    }

    /// Whether it is point to point: between the ranks it names, outside the order of collectives.
    #[inline]
    pub const fn is_point_to_point(self) -> bool {
        matches!(self, Kind::SendReceive | Kind::Group)
    }
}

const fn row(kind: Kind, name: &'static str, aliases: &'static [&'static str]) -> KindRow {
    KindRow { kind, name, aliases, reduces: false, rooted: false, tabled: kind.is_tabled() }
}

impl KindRow {
    const fn reduces(self) -> Self {
        KindRow { reduces: true, ..self }
    }

    const fn rooted(self) -> Self {
        KindRow { rooted: true, ..self }
    }
}
