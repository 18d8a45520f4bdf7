//! What the program knows about each collective: its names, sizes and bandwidth. The definitions stand here a second
//! time on purpose: the check shares no code with the library.

use crate::target::{DataType, Kind, ReduceOp};

/// How a size in bytes becomes a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizing {
    /// The size is one buffer of `count` elements.
    Whole,
    /// The size is the larger buffer, `count` elements for every rank.
    PerRank,
    /// There are no data.
    Nothing,
}

/// A row of the table of collectives.
#[derive(Debug)]
pub(crate) struct Operation {
    /// The library's collective.
    pub(crate) kind: Kind,
    /// The name on the command line and in JSON.
    pub(crate) name: &'static str,
    /// Other spellings, without underscores.
    aliases: &'static [&'static str],
    /// How sizes become counts.
    pub(crate) sizing: Sizing,
    /// Whether one rank is the root.
    pub(crate) rooted: bool,
    /// Whether elements are combined.
    pub(crate) reduces: bool,
    /// Bus bandwidth divided by algorithm bandwidth, as nccl-tests defines it.
    pub(crate) bus_factor: fn(f64) -> f64,
}

impl Operation {
    /// Every collective the program can run.
    pub(crate) const TABLE: &'static [Operation] = &[
        Operation {
            kind: Kind::AllReduce,
            name: "all_reduce",
            aliases: &[],
            sizing: Sizing::Whole,
            rooted: false,
            reduces: true,
            bus_factor: |n| 2.0 * (n - 1.0) / n,
        },
        Operation {
            kind: Kind::AllGather,
            name: "all_gather",
            aliases: &[],
            sizing: Sizing::PerRank,
            rooted: false,
            reduces: false,
            bus_factor: |n| (n - 1.0) / n,
        },
        Operation {
            kind: Kind::ReduceScatter,
            name: "reduce_scatter",
            aliases: &[],
            sizing: Sizing::PerRank,
            rooted: false,
            reduces: true,
            bus_factor: |n| (n - 1.0) / n,
        },
        Operation {
            kind: Kind::Broadcast,
            name: "broadcast",
            aliases: &["bcast"],
            sizing: Sizing::Whole,
            rooted: true,
            reduces: false,
            bus_factor: |_| 1.0,
        },
        Operation {
            kind: Kind::Barrier,
            name: "barrier",
            aliases: &[],
            sizing: Sizing::Nothing,
            rooted: false,
            reduces: false,
            bus_factor: |_| 0.0,
        },
        Operation {
            kind: Kind::SendReceive,
            name: "sendrecv",
            aliases: &["sendreceive"],
            sizing: Sizing::Whole,
            rooted: false,
            reduces: false,
            bus_factor: |_| 1.0,
        },
    ];

    /// The row of a kind.
    pub(crate) fn of(kind: Kind) -> Option<&'static Operation> {
        Self::TABLE.iter().find(|row| row.kind == kind)
    }

    /// Parses a name: `all_reduce`, `all-reduce`, `allreduce`, `all_reduce_perf`.
    pub(crate) fn parse(text: &str) -> Result<&'static Operation, String> {
        let plain = text.to_ascii_lowercase().replace(['_', '-'], "");
        let plain = plain.strip_suffix("perf").unwrap_or(&plain);
        let known = |row: &&Operation| row.name.replace('_', "") == plain || row.aliases.contains(&plain);
        Self::TABLE.iter().find(known).ok_or_else(|| {
            let names: Vec<_> = Self::TABLE.iter().map(|row| row.name).collect();
            format!("unknown collective '{text}'; there are: {}", names.join(", "))
        })
    }

    /// The name of nccl-tests' program for it.
    pub(crate) fn test_name(&self) -> String {
        format!("{}_perf", self.name)
    }

    /// The count for a buffer of about `asked_bytes`: rounded down, but one element (per rank) at least, unless zero
    /// bytes were asked for.
    pub(crate) fn count(&self, asked_bytes: u64, dtype: DataType, ranks: u32) -> u64 {
        let unit = match self.sizing {
            Sizing::Nothing => return 0,
            Sizing::Whole => dtype.size() as u64,
            Sizing::PerRank => dtype.size() as u64 * u64::from(ranks),
        };
        if asked_bytes == 0 { 0 } else { (asked_bytes / unit).max(1) }
    }
}

/// One collective with everything but its data, the same on every rank.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// Which collective.
    pub(crate) operation: &'static Operation,
    /// Elements, per rank where [`Sizing::PerRank`].
    pub(crate) count: u64,
    /// Type of the elements.
    pub(crate) dtype: DataType,
    /// How elements are combined; ignored where nothing is.
    pub(crate) op: ReduceOp,
    /// The root; ignored where there is none.
    pub(crate) root: u32,
    /// How many ranks.
    pub(crate) ranks: u32,
}

impl Call {
    /// Bytes of the larger buffer, which is the size that nccl-tests prints.
    pub(crate) fn bytes(&self) -> u64 {
        self.elements() * self.dtype.size() as u64
    }

    /// Elements of the larger buffer.
    pub(crate) fn elements(&self) -> u64 {
        match self.operation.sizing {
            Sizing::Whole | Sizing::Nothing => self.count,
            Sizing::PerRank => self.count * u64::from(self.ranks),
        }
    }

    /// Elements that this rank hands in.
    pub(crate) fn input_elements(&self, rank: u32) -> u64 {
        match self.operation.kind {
            Kind::Broadcast if rank != self.root => 0,
            Kind::ReduceScatter => self.count * u64::from(self.ranks),
            _ => self.count,
        }
    }

    /// Elements that this rank gets.
    pub(crate) fn output_elements(&self) -> u64 {
        match self.operation.kind {
            Kind::AllGather => self.count * u64::from(self.ranks),
            _ => self.count,
        }
    }

    /// The rank that sends to `rank` in a send/receive: the one before, in a ring as in nccl-tests.
    pub(crate) fn sender_to(&self, rank: u32) -> u32 {
        (rank + self.ranks - 1) % self.ranks
    }

    /// The rank that `rank` sends to in a send/receive.
    pub(crate) fn receiver_of(&self, rank: u32) -> u32 {
        (rank + 1) % self.ranks
    }

    /// Whether there is an in-place form: there is unless there are no data.
    pub(crate) fn has_in_place(&self) -> bool {
        self.operation.sizing != Sizing::Nothing
    }

    /// Whether repeating it in place, on its own result, changes the result.
    pub(crate) fn accumulates_in_place(&self) -> bool {
        self.operation.reduces && self.op != ReduceOp::Max
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A call for tests.
    pub(crate) fn call(name: &str, count: u64, ranks: u32) -> Call {
        let operation = Operation::parse(name).unwrap();
        Call { operation, count, dtype: DataType::F32, op: ReduceOp::Sum, root: 0, ranks }
    }

    #[test]
    fn every_spelling_finds_its_collective_and_errors_list_all() {
        for text in ["all_reduce", "all-reduce", "allreduce", "all_reduce_perf", "ALL_REDUCE"] {
            assert_eq!(Operation::parse(text).unwrap().kind, Kind::AllReduce, "{text}");
        }
        assert_eq!(Operation::parse("sendrecv_perf").unwrap().kind, Kind::SendReceive);
        assert_eq!(Operation::parse("send_receive").unwrap().kind, Kind::SendReceive);
        let message = Operation::parse("all_recude").unwrap_err();
        for row in Operation::TABLE {
            assert!(message.contains(row.name), "{message}");
        }
    }

    #[test]
    fn counts_are_one_element_per_rank_at_least_and_not_floored_to_16_bytes() {
        let gather = Operation::parse("all_gather").unwrap();
        assert_eq!(gather.count(8, DataType::F32, 384), 1);
        assert_eq!(gather.count(1 << 20, DataType::F32, 384), 682);
        assert_eq!(gather.count(0, DataType::F32, 384), 0);
        let reduce = Operation::parse("all_reduce").unwrap();
        assert_eq!(reduce.count(3, DataType::F32, 2), 1);
        assert_eq!(reduce.count(5 << 30, DataType::BF16, 2), 5 << 29);
        assert_eq!(Operation::parse("barrier").unwrap().count(64, DataType::F32, 2), 0);
    }

    #[test]
    fn sizes_and_factors_are_those_of_nccl_tests() {
        let gather = call("all_gather", 10, 4);
        assert_eq!((gather.input_elements(1), gather.output_elements(), gather.bytes()), (10, 40, 160));
        let scatter = call("reduce_scatter", 10, 4);
        assert_eq!((scatter.input_elements(1), scatter.output_elements(), scatter.bytes()), (40, 10, 160));
        assert_eq!((call("all_reduce", 1, 4).operation.bus_factor)(4.0), 1.5);
        assert_eq!((gather.operation.bus_factor)(4.0), 0.75);
        assert_eq!((call("broadcast", 1, 4).operation.bus_factor)(4.0), 1.0);
        let ring = call("sendrecv", 1, 1);
        assert_eq!((ring.sender_to(0), ring.receiver_of(0)), (0, 0), "to itself is allowed");
    }
}
