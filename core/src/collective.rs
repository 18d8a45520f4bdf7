//! What can be asked: the collectives, and who holds what before and after each.

use crate::blocks::{Blocks, Message, Table, TableStore};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::op::ReduceOp;
use crate::signature::Signature;
use std::fmt;

/// 0-based index of a participant in one communicator.
pub type Rank = u32;

/// What was asked, as one rank states it. Made by the constructors only, so that it is always complete. The lifetime is
/// that of the tables of lengths that some kinds take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Collective<'a> {
    kind: Kind,
    count: u64,
    dtype: DataType,
    op: Option<ReduceOp>,
    root: Option<Rank>,
    to: Option<Rank>,
    from: Option<Rank>,
    send: Table<'a>,
    receive: Table<'a>,
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

impl<'a> Collective<'a> {
    /// The most elements one call may name: the count travels in 48 bits of the [`Signature`].
    pub const MAX_COUNT: u64 = (1 << 48) - 1;

    #[inline]
    const fn new(kind: Kind, count: u64, dtype: DataType) -> Self {
        let (send, receive) = (Table::None, Table::None);
        Collective { kind, count, dtype, op: None, root: None, to: None, from: None, send, receive }
    }

    /// An all-reduce of `count` elements.
    #[inline]
    pub const fn all_reduce(count: u64, dtype: DataType, op: ReduceOp) -> Self {
        Collective { op: Some(op), ..Self::new(Kind::AllReduce, count, dtype) }
    }

    /// An all-gather of `count` elements from each rank.
    #[inline]
    pub const fn all_gather(count: u64, dtype: DataType) -> Self {
        Self::new(Kind::AllGather, count, dtype)
    }

    /// A reduce-scatter that leaves `count` elements on each rank.
    #[inline]
    pub const fn reduce_scatter(count: u64, dtype: DataType, op: ReduceOp) -> Self {
        Collective { op: Some(op), ..Self::new(Kind::ReduceScatter, count, dtype) }
    }

    /// A broadcast of `count` elements from `root`.
    #[inline]
    pub const fn broadcast(count: u64, dtype: DataType, root: Rank) -> Self {
        Collective { root: Some(root), ..Self::new(Kind::Broadcast, count, dtype) }
    }

    /// A barrier.
    #[inline]
    pub const fn barrier() -> Self {
        Self::new(Kind::Barrier, 0, DataType::U8)
    }

    /// Sends `count` elements to `to` and receives `count` from `from`, concurrently; either may be missing.
    #[inline]
    pub const fn send_receive(count: u64, dtype: DataType, to: Option<Rank>, from: Option<Rank>) -> Self {
        Collective { to, from, ..Self::new(Kind::SendReceive, count, dtype) }
    }

    /// A reduction of `count` elements to `root`.
    #[inline]
    pub const fn reduce(count: u64, dtype: DataType, op: ReduceOp, root: Rank) -> Self {
        Collective { op: Some(op), root: Some(root), ..Self::new(Kind::Reduce, count, dtype) }
    }

    /// A gather of `count` elements from each rank to `root`.
    #[inline]
    pub const fn gather(count: u64, dtype: DataType, root: Rank) -> Self {
        Collective { root: Some(root), ..Self::new(Kind::Gather, count, dtype) }
    }

    /// A scatter of `count` elements to each rank from `root`.
    #[inline]
    pub const fn scatter(count: u64, dtype: DataType, root: Rank) -> Self {
        Collective { root: Some(root), ..Self::new(Kind::Scatter, count, dtype) }
    }

    /// An all-to-all of blocks of `count` elements.
    #[inline]
    pub const fn all_to_all(count: u64, dtype: DataType) -> Self {
        Self::new(Kind::AllToAll, count, dtype)
    }

    /// A gather of this rank's `count` elements; the root says how much comes from whom and where it goes.
    pub const fn gather_v(count: u64, dtype: DataType, root: Rank, receive: Option<Blocks<'a>>) -> Self {
        let receive = table(receive);
        Collective { root: Some(root), receive, ..Self::new(Kind::GatherV, count, dtype) }
    }

    /// A scatter that brings this rank `count` elements; the root says how much goes to whom and where it lies.
    pub const fn scatter_v(count: u64, dtype: DataType, root: Rank, send: Option<Blocks<'a>>) -> Self {
        let send = table(send);
        Collective { root: Some(root), send, ..Self::new(Kind::ScatterV, count, dtype) }
    }

    /// An all-gather of as much from each rank as `receive` says. All ranks name the same counts; where the blocks go
    /// is each rank's own affair.
    pub const fn all_gather_v(dtype: DataType, receive: Blocks<'a>) -> Self {
        Collective { receive: Table::Blocks(receive), ..Self::new(Kind::AllGatherV, 0, dtype) }
    }

    /// A reduce-scatter that leaves `counts[r]` elements on rank r. All ranks name the same counts.
    pub const fn reduce_scatter_v(dtype: DataType, op: ReduceOp, counts: &'a [u64]) -> Self {
        let send = Table::Blocks(Blocks::packed(counts));
        Collective { op: Some(op), send, ..Self::new(Kind::ReduceScatterV, 0, dtype) }
    }

    /// An all-to-all of blocks of any length: what a rank sends to another is as long as the other expects. In place,
    /// both tables are the same: what comes from a rank takes the place of what goes to it.
    pub const fn all_to_all_v(dtype: DataType, send: Blocks<'a>, receive: Blocks<'a>) -> Self {
        let (send, receive) = (Table::Blocks(send), Table::Blocks(receive));
        Collective { send, receive, ..Self::new(Kind::AllToAllV, 0, dtype) }
    }

    /// Point-to-point messages, all at once. Those of a pair are matched in the order listed, on both sides.
    pub const fn group(send: &'a [Message], receive: &'a [Message]) -> Self {
        let (send, receive) = (Table::Messages(send), Table::Messages(receive));
        Collective { send, receive, ..Self::new(Kind::Group, 0, DataType::U8) }
    }

    /// The kind.
    #[inline]
    pub const fn kind(&self) -> Kind {
        self.kind
    }
    /// Elements, as the kind counts them.
    #[inline]
    pub const fn count(&self) -> u64 {
        self.count
    }
    /// The element type.
    #[inline]
    pub const fn dtype(&self) -> DataType {
        self.dtype
    }
    /// The operation, if the kind reduces.
    #[inline]
    pub const fn op(&self) -> Option<ReduceOp> {
        self.op
    }
    /// The root, if the kind has one.
    #[inline]
    pub const fn root(&self) -> Option<Rank> {
        self.root
    }
    /// Whom this rank sends to (send/receive only).
    #[inline]
    pub const fn to(&self) -> Option<Rank> {
        self.to
    }
    /// Whom this rank receives from (send/receive only).
    #[inline]
    pub const fn from(&self) -> Option<Rank> {
        self.from
    }
    /// The table of what this rank sends.
    #[inline]
    pub const fn send(&self) -> &Table<'a> {
        &self.send
    }
    /// The table of what this rank receives.
    #[inline]
    pub const fn receive(&self) -> &Table<'a> {
        &self.receive
    }

    /// The same call with another count.
    pub const fn with_count(self, count: u64) -> Self {
        Collective { count, ..self }
    }

    /// Checks what a constructor cannot: ranks in range, sizes that fit, tables that are complete, an operation that
    /// the type has.
    ///
    /// Errors: InvalidArgument, naming the argument and its limit.
    #[inline]
    pub fn check(&self, ranks: u32, rank: Rank) -> Result<()> {
        let name = self.kind.name();
        for (what, rank) in [("root", self.root), ("destination", self.to), ("source", self.from)] {
            if let Some(rank) = rank.filter(|&rank| rank >= ranks) {
                let last = ranks.saturating_sub(1);
                return Err(Error::invalid(format!(
                    "{name}: {what} {rank} is not a rank; ranks are 0 to {last}"
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
                "{name}: count {} is too large for {ranks} ranks of {}",
                self.count,
                self.dtype.name()
            )));
        }
        if self.kind.is_tabled() { self.check_tables(ranks, rank) } else { Ok(()) }
    }

    fn check_tables(&self, ranks: u32, rank: Rank) -> Result<()> {
        let (name, size) = (self.kind.name(), self.dtype.size() as u64);
        self.send.check(name, "send", ranks, rank, size)?;
        self.receive.check(name, "receive", ranks, rank, size)?;
        let table = match self.kind {
            Kind::GatherV => self.receive,
            Kind::ScatterV => self.send,
            _ => return Ok(()),
        };
        if self.root != Some(rank) {
            return Ok(());
        }
        match table.blocks().map(|blocks| blocks.count(rank)) {
            None => Err(Error::invalid(format!("{name}: the root must say how long every rank's block is"))),
            Some(count) if count != self.count => Err(Error::invalid(format!(
                "{name}: the root's own block has {} elements, its table says {count}",
                self.count
            ))),
            Some(_) => Ok(()),
        }
    }

    /// Elements that `rank`, whose call this is, brings: as long must its input be.
    #[inline]
    pub fn input_elements(&self, ranks: u32, rank: Rank) -> u64 {
        let is_root = self.root == Some(rank);
        match self.kind {
            Kind::AllReduce | Kind::AllGather | Kind::Reduce | Kind::Gather | Kind::GatherV => self.count,
            Kind::ReduceScatter | Kind::AllToAll => self.count * u64::from(ranks),
            Kind::Broadcast if is_root => self.count,
            Kind::Scatter if is_root => self.count * u64::from(ranks),
            Kind::SendReceive if self.to.is_some() => self.count,
            Kind::AllGatherV => self.receive.blocks().map_or(0, |blocks| blocks.count(rank)),
            Kind::ScatterV if is_root => self.send.extent(),
            Kind::ReduceScatterV | Kind::AllToAllV | Kind::Group => self.send.extent(),
            Kind::Broadcast | Kind::Scatter | Kind::ScatterV | Kind::Barrier | Kind::SendReceive => 0,
        }
    }

    /// Elements that `rank`, whose call this is, gets: as long must its output be.
    #[inline]
    pub fn output_elements(&self, ranks: u32, rank: Rank) -> u64 {
        let is_root = self.root == Some(rank);
        match self.kind {
            Kind::AllReduce | Kind::ReduceScatter | Kind::Broadcast | Kind::Scatter | Kind::ScatterV => {
                self.count
            }
            Kind::AllGather | Kind::AllToAll => self.count * u64::from(ranks),
            Kind::Reduce if is_root => self.count,
            Kind::Gather if is_root => self.count * u64::from(ranks),
            Kind::SendReceive if self.from.is_some() => self.count,
            Kind::ReduceScatterV => self.send.blocks().map_or(0, |blocks| blocks.count(rank)),
            Kind::GatherV if is_root => self.receive.extent(),
            Kind::AllGatherV | Kind::AllToAllV | Kind::Group => self.receive.extent(),
            Kind::Reduce | Kind::Gather | Kind::GatherV | Kind::Barrier | Kind::SendReceive => 0,
        }
    }

    /// Where input and output begin in the one buffer of an in-place call (elements; one of them is 0). NCCL's rules
    /// where it has any: all-gather's input is the rank's own block of the output, reduce-scatter's output the rank's
    /// own block of the input. Gather and scatter do likewise on the root; in all-to-all, what comes from a rank takes
    /// the place of what went to it.
    #[inline]
    pub fn in_place_offsets(&self, rank: Rank) -> (u64, u64) {
        let own = self.count * u64::from(rank);
        let start = |table: &Table<'_>| table.blocks().map_or(0, |blocks| blocks.start(rank));
        let is_root = self.root == Some(rank);
        match self.kind {
            Kind::AllGather => (own, 0),
            Kind::ReduceScatter => (0, own),
            Kind::Gather if is_root => (own, 0),
            Kind::Scatter if is_root => (0, own),
            Kind::AllGatherV => (start(&self.receive), 0),
            Kind::GatherV if is_root => (start(&self.receive), 0),
            Kind::ScatterV if is_root => (0, start(&self.send)),
            Kind::ReduceScatterV => (0, start(&self.send)),
            _ => (0, 0),
        }
    }

    /// Bytes of the longest buffer of the call, by what every rank knows alike, since all choose by it: the own tables of
    /// each rank count as nothing.
    pub fn longest_bytes(&self, ranks: u32) -> u64 {
        let elements = if self.kind.is_tabled() {
            let totals = [self.send(), self.receive()].map(|table| table.blocks().map_or(0, |b| b.total()));
            let is_common = matches!(self.kind(), Kind::AllGatherV | Kind::ReduceScatterV);
            if is_common { totals[0].max(totals[1]) } else { 0 }
        } else {
            let root = self.root().unwrap_or(0);
            self.input_elements(ranks, root).max(self.output_elements(ranks, root))
        };
        elements.saturating_mul(self.dtype().size() as u64)
    }

    /// Elements of the one buffer of an in-place call.
    #[inline]
    pub fn in_place_elements(&self, ranks: u32, rank: Rank) -> u64 {
        self.input_elements(ranks, rank).max(self.output_elements(ranks, rank))
    }

    /// What `rank` must hold in its output afterwards, given what each rank called; what is not named is left as it was.
    pub fn holdings(calls: &dyn Fn(Rank) -> Collective<'a>, ranks: u32, rank: Rank) -> Vec<Holding> {
        let call = calls(rank);
        let whole = |content| vec![Holding { start: 0, len: call.count, content }];
        let root = || call.root.expect("a kind with a root is made with one");
        let equal = |at: u64| {
            let block = move |r: Rank| Holding {
                start: call.count * u64::from(r),
                len: call.count,
                content: Content::Of { rank: r, at },
            };
            (0..ranks).map(block).collect::<Vec<_>>()
        };
        let placed = |at: &dyn Fn(Rank) -> u64| {
            let blocks = call.receive.blocks().expect("the kind has a table of what comes");
            let content = |r: usize| Content::Of { rank: r as Rank, at: at(r as Rank) };
            let blocks = blocks.iter().enumerate();
            blocks.map(|(r, (start, len))| Holding { start, len, content: content(r) }).collect::<Vec<_>>()
        };
        match call.kind {
            Kind::AllReduce => whole(Content::Reduction { at: 0 }),
            Kind::ReduceScatter => whole(Content::Reduction { at: call.count * u64::from(rank) }),
            Kind::Reduce if rank == root() => whole(Content::Reduction { at: 0 }),
            Kind::Broadcast => whole(Content::Of { rank: root(), at: 0 }),
            Kind::Scatter => whole(Content::Of { rank: root(), at: call.count * u64::from(rank) }),
            Kind::ScatterV => {
                let at = calls(root()).send.blocks().map_or(0, |blocks| blocks.start(rank));
                whole(Content::Of { rank: root(), at })
            }
            Kind::AllGather => equal(0),
            Kind::Gather if rank == root() => equal(0),
            Kind::AllToAll => equal(call.count * u64::from(rank)),
            Kind::AllGatherV => placed(&|_| 0),
            Kind::GatherV if rank == root() => placed(&|_| 0),
            Kind::AllToAllV => placed(&|r| calls(r).send.blocks().map_or(0, |blocks| blocks.start(rank))),
            Kind::ReduceScatterV => {
                let blocks = call.send.blocks().expect("the kind has a table of what it leaves");
                let content = Content::Reduction { at: blocks.start(rank) };
                vec![Holding { start: 0, len: blocks.count(rank), content }]
            }
            Kind::SendReceive => match call.from {
                Some(from) => whole(Content::Of { rank: from, at: 0 }),
                None => Vec::new(),
            },
            Kind::Group => messages_held(calls, rank),
            Kind::Barrier | Kind::Reduce | Kind::Gather | Kind::GatherV => Vec::new(),
        }
    }

    /// Elements that all ranks of a call name alike; 0 where they name different ones.
    #[inline]
    pub(crate) fn common_count(&self) -> u64 {
        match self.kind {
            Kind::AllGatherV => self.receive.blocks().map_or(0, |blocks| blocks.total()),
            Kind::ReduceScatterV => self.send.blocks().map_or(0, |blocks| blocks.total()),
            Kind::GatherV | Kind::ScatterV | Kind::AllToAllV | Kind::Group => 0,
            _ => self.count,
        }
    }

    /// The fingerprint that travels with every message of this call; `plan` tells plans apart. Point-to-point calls
    /// have one way to be done, whatever their plan.
    #[inline]
    pub fn signature(&self, plan: u32) -> Signature {
        Signature::new(self, if self.kind.is_point_to_point() { 0 } else { plan })
    }
}

const fn table(blocks: Option<Blocks<'_>>) -> Table<'_> {
    match blocks {
        Some(blocks) => Table::Blocks(blocks),
        None => Table::None,
    }
}

/// The k-th message that `rank` receives from a peer is the k-th that the peer sends to it.
fn messages_held<'a>(calls: &dyn Fn(Rank) -> Collective<'a>, rank: Rank) -> Vec<Holding> {
    let mut seen = std::collections::HashMap::<Rank, usize>::new();
    let held = calls(rank).receive.messages().iter().map(|message| {
        let ordinal = seen.entry(message.peer).or_default();
        let theirs = calls(message.peer);
        let sent = theirs.send.messages().iter().filter(|sent| sent.peer == rank).nth(*ordinal);
        *ordinal += 1;
        // Without a partner there is no such content, and nothing can hold it.
        let at = sent.map_or(u64::MAX >> 1, |sent| sent.start);
        Holding { start: message.start, len: message.len, content: Content::Of { rank: message.peer, at } }
    });
    held.collect()
}

impl fmt::Display for Collective<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if !matches!(self.kind, Kind::Barrier | Kind::Group) {
            write!(f, " count={} {}", self.common_count(), self.dtype.name())?;
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

/// A call with its tables in memory of its own, which is kept and filled again.
#[derive(Clone, Debug)]
pub struct CallStore {
    call: Collective<'static>,
    send: TableStore,
    receive: TableStore,
}

impl Default for CallStore {
    fn default() -> Self {
        let (send, receive) = Default::default();
        CallStore { call: Collective::barrier(), send, receive }
    }
}

impl CallStore {
    /// Takes over a call. Allocates only for tables longer than any before.
    #[inline]
    pub fn set(&mut self, call: &Collective<'_>) {
        let Collective { kind, count, dtype, op, root, to, from, send: _, receive: _ } = *call;
        self.call = Collective { op, root, to, from, ..Collective::new(kind, count, dtype) };
        self.send.set(&call.send);
        self.receive.set(&call.receive);
    }

    /// The call.
    #[inline]
    pub fn get(&self) -> Collective<'_> {
        Collective { send: self.send.get(), receive: self.receive.get(), ..self.call }
    }
}
