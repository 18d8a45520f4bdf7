//! Tables of lengths: what the collectives whose names end in `v`, and groups, take in place of one count.

use crate::collective::{Collective, Rank};
use crate::error::{Error, Result};
use crate::signature::Signature;

/// Blocks of a buffer in elements, one for each rank of the communicator.
///
/// Source: the counts and displacements of MPI_Alltoallv.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocks<'a> {
    /// How long each rank's block is.
    pub counts: &'a [u64],
    /// Where each begins (MPI's displacements); `None` if they follow one another in rank order.
    pub starts: Option<&'a [u64]>,
}

impl<'a> Blocks<'a> {
    /// Blocks that follow one another in rank order.
    pub const fn packed(counts: &'a [u64]) -> Self {
        Blocks { counts, starts: None }
    }

    /// Blocks that begin where `starts` says.
    pub const fn at(counts: &'a [u64], starts: &'a [u64]) -> Self {
        Blocks { counts, starts: Some(starts) }
    }

    /// First element and length of every block, in rank order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let (counts, starts) = (self.counts, self.starts);
        let mut next = 0_u64;
        counts.iter().enumerate().map(move |(rank, &count)| {
            let start = starts.map_or(next, |starts| starts[rank]);
            next = next.saturating_add(count);
            (start, count)
        })
    }

    /// The length of one rank's block.
    pub fn count(&self, rank: Rank) -> u64 {
        self.counts[rank as usize]
    }

    /// Where one rank's block begins.
    pub fn start(&self, rank: Rank) -> u64 {
        match self.starts {
            Some(starts) => starts[rank as usize],
            None => self.counts[..rank as usize].iter().sum(),
        }
    }

    /// Elements in all blocks together.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Where the last block ends: as long must the buffer be.
    pub fn extent(&self) -> u64 {
        self.iter().map(|(start, count)| start + count).max().unwrap_or(0)
    }

    /// Whether the lengths are there for every rank and fit.
    fn check(&self, call: &str, what: &str, ranks: u32, size: u64) -> Result<()> {
        let lengths = [Some(self.counts.len()), self.starts.map(<[u64]>::len)];
        for (name, len) in ["counts", "displacements"].into_iter().zip(lengths) {
            if let Some(len) = len.filter(|&len| len != ranks as usize) {
                let text =
                    format!("{call}: there are {len} {what} {name}, it needs one for each of {ranks} ranks");
                return Err(Error::invalid(text));
            }
        }
        let mut total = 0_u64;
        for (rank, &count) in self.counts.iter().enumerate() {
            let start = self.starts.map_or(total, |starts| starts[rank]);
            total = total.saturating_add(count);
            let end = start.checked_add(count).and_then(|end| end.checked_mul(size));
            let fits = end.is_some_and(|end| end <= isize::MAX as u64);
            if !fits || total > Collective::MAX_COUNT {
                return Err(Error::invalid(format!(
                    "{call}: the {what} block of rank {rank} ({count} elements from {start} on) is too large"
                )));
            }
        }
        Ok(())
    }

    /// Whether blocks that are written lie apart.
    fn check_apart(&self, call: &str) -> Result<()> {
        let mut end = 0;
        let ascends = self.iter().filter(|block| block.1 > 0).all(|(start, count)| {
            let follows = start >= end;
            end = start + count;
            follows
        });
        if ascends {
            return Ok(());
        }
        let blocks = self.iter().enumerate().filter(|(_, block)| block.1 > 0);
        let mut blocks: Vec<_> = blocks.map(|(rank, (start, count))| (start, count, rank)).collect();
        blocks.sort_unstable();
        match blocks.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
            None => Ok(()),
            Some(pair) => Err(Error::invalid(format!(
                "{call}: the receive blocks of ranks {} ({} elements from {} on) and {} (from {} on) overlap",
                pair[0].2, pair[0].1, pair[0].0, pair[1].2, pair[1].0
            ))),
        }
    }
}

/// One message of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// To or from whom; never the rank itself.
    pub peer: Rank,
    /// First byte in the buffer.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// What was called, as it travels with the message.
    pub signature: Signature,
}

impl Message {
    fn check(&self, call: &str, ranks: u32, rank: Rank) -> Result<()> {
        let Message { peer, start, len, .. } = *self;
        if peer >= ranks || peer == rank {
            let last = ranks - 1;
            let text = format!("{call}: {peer} is no other rank; ranks are 0 to {last}, this one is {rank}");
            return Err(Error::invalid(text));
        }
        if start.checked_add(len).is_none_or(|end| end > isize::MAX as u64) {
            let text = format!("{call}: a message of rank {peer} ({len} bytes from {start} on) is too large");
            return Err(Error::invalid(text));
        }
        Ok(())
    }
}

/// What is known of one side of a call, beside its count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Table<'a> {
    /// Nothing.
    #[default]
    None,
    /// Entry q is rank q's block.
    Blocks(Blocks<'a>),
    /// The messages of a group, in the order in which each pair's are matched.
    Messages(&'a [Message]),
}

impl<'a> Table<'a> {
    /// The blocks, if it has any.
    pub const fn blocks(&self) -> Option<Blocks<'a>> {
        match self {
            Table::Blocks(blocks) => Some(*blocks),
            _ => None,
        }
    }

    /// The messages, if it has any.
    pub const fn messages(&self) -> &'a [Message] {
        match self {
            Table::Messages(messages) => messages,
            _ => &[],
        }
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        match self {
            Table::None => 0,
            Table::Blocks(blocks) => blocks.counts.len(),
            Table::Messages(messages) => messages.len(),
        }
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where its last entry ends.
    pub fn extent(&self) -> u64 {
        match self {
            Table::None => 0,
            Table::Blocks(blocks) => blocks.extent(),
            Table::Messages(messages) => messages.iter().map(|m| m.start + m.len).max().unwrap_or(0),
        }
    }

    pub(crate) fn check(&self, call: &str, what: &str, ranks: u32, rank: Rank, size: u64) -> Result<()> {
        match self {
            Table::None => Ok(()),
            Table::Blocks(blocks) => {
                blocks.check(call, what, ranks, size)?;
                if what == "receive" { blocks.check_apart(call) } else { Ok(()) }
            }
            Table::Messages(messages) => {
                messages.iter().try_for_each(|message| message.check(call, ranks, rank))
            }
        }
    }
}

/// A table's entries in memory of its own, which is kept and filled again.
#[derive(Clone, Debug, Default)]
pub struct TableStore {
    counts: Vec<u64>,
    starts: Vec<u64>,
    messages: Vec<Message>,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, Default)]
enum Shape {
    #[default]
    None,
    Packed,
    Placed,
    Messages,
}

impl TableStore {
    /// Takes over a table. Allocates only for one longer than any before.
    #[inline]
    pub fn set(&mut self, table: &Table<'_>) {
        self.shape = match table {
            Table::None => Shape::None,
            Table::Blocks(blocks) => {
                refill(&mut self.counts, blocks.counts);
                refill(&mut self.starts, blocks.starts.unwrap_or(&[]));
                if blocks.starts.is_some() { Shape::Placed } else { Shape::Packed }
            }
            Table::Messages(messages) => {
                refill(&mut self.messages, messages);
                Shape::Messages
            }
        };
    }

    /// The table.
    #[inline]
    pub fn get(&self) -> Table<'_> {
        match self.shape {
            Shape::None => Table::None,
            Shape::Packed => Table::Blocks(Blocks::packed(&self.counts)),
            Shape::Placed => Table::Blocks(Blocks::at(&self.counts, &self.starts)),
            Shape::Messages => Table::Messages(&self.messages),
        }
    }
}

fn refill<T: Copy>(kept: &mut Vec<T>, values: &[T]) {
    kept.clear();
    kept.extend_from_slice(values);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_blocks_follow_one_another() {
        let blocks = Blocks::packed(&[3, 0, 5]);
        assert_eq!(blocks.iter().collect::<Vec<_>>(), [(0, 3), (3, 0), (3, 5)]);
        assert_eq!((blocks.start(2), blocks.count(2), blocks.total(), blocks.extent()), (3, 5, 8, 8));
        let placed = Blocks::at(&[3, 0, 5], &[10, 99, 0]);
        assert_eq!(placed.iter().collect::<Vec<_>>(), [(10, 3), (99, 0), (0, 5)]);
        assert_eq!((placed.start(1), placed.total(), placed.extent()), (99, 8, 99));
    }

    #[test]
    fn blocks_that_overlap_or_are_missing_are_refused_with_their_ranks() {
        let told = |blocks: Blocks<'_>| {
            let result = Table::Blocks(blocks).check("all_to_all_v", "receive", 3, 0, 4);
            result.expect_err("it is wrong").to_string()
        };
        assert!(told(Blocks::packed(&[1, 2])).contains("2 receive counts"));
        assert!(told(Blocks::at(&[1, 2, 3], &[0])).contains("1 receive displacements"));
        let overlap = told(Blocks::at(&[4, 2, 3], &[8, 10, 0]));
        assert!(overlap.contains("ranks 0 (4 elements from 8 on) and 1 (from 10 on)"), "{overlap}");
        assert!(told(Blocks::packed(&[1, u64::MAX, 1])).contains("rank 1"));
        assert!(told(Blocks::at(&[1, 1, 1], &[0, 1, u64::MAX])).contains("rank 2"));
        let apart = Blocks::at(&[4, 0, 3], &[3, 5, 0]);
        assert!(
            Table::Blocks(apart).check("", "receive", 3, 0, 4).is_ok(),
            "an empty block overlaps nothing"
        );
        assert!(Table::Blocks(Blocks::at(&[4, 4, 4], &[0, 0, 0])).check("", "send", 3, 0, 4).is_ok());
    }

    #[test]
    fn a_store_gives_back_what_it_took() {
        let mut store = TableStore::default();
        let message = Message { peer: 1, start: 2, len: 3, signature: Signature(4) };
        for table in [
            Table::Blocks(Blocks::at(&[1, 2], &[7, 0])),
            Table::Messages(&[message]),
            Table::Blocks(Blocks::packed(&[5])),
            Table::None,
        ] {
            store.set(&table);
            assert_eq!(store.get(), table);
            assert_eq!(store.get().extent(), table.extent());
        }
    }
}
