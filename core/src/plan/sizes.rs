//! What sizes in a plan are expressions over: the lengths of the caller's buffers, and its tables.

use super::Buffer;
use crate::blocks::{Blocks, Table};
use crate::collective::{Collective, Rank};
use crate::signature::Signature;

/// Which of a call's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Of what the rank sends: blocks of its input.
    Send,
    /// Of what it receives: blocks of its output.
    Receive,
}

impl Side {
    /// Its name in dumps.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Side::Send => "sends",
            Side::Receive => "receives",
        }
    }
}

/// One entry of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// Whose block, or the message's peer.
    pub peer: Rank,
    /// First element in the buffer.
    pub start: u64,
    /// Elements.
    pub len: u64,
    /// Of a group's message: what was called.
    pub signature: Signature,
}

/// The sizes of one call on one rank. Kept and filled again: allocates only for tables longer than any before.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    /// Elements of the input.
    pub input: u64,
    /// Elements of the output.
    pub output: u64,
    tables: [Entries; 2],
}

#[derive(Clone, Debug, Default)]
struct Entries {
    all: Vec<TableEntry>,
    longest: u64,
}

impl Sizes {
    /// Takes the sizes of `call`, which is `rank`'s.
    #[inline]
    pub fn set(&mut self, call: &Collective<'_>, ranks: u32, rank: Rank) {
        self.input = call.input_elements(ranks, rank);
        self.output = call.output_elements(ranks, rank);
        self.tables[0].set(call.send());
        self.tables[1].set(call.receive());
    }

    /// Elements of a buffer; scratch has none of its own.
    #[inline]
    pub fn of(&self, buffer: Buffer) -> u64 {
        match buffer {
            Buffer::Input => self.input,
            Buffer::Output => self.output,
        }
    }

    /// A table's entries.
    #[inline]
    pub fn table(&self, side: Side) -> &[TableEntry] {
        &self.tables[side as usize].all
    }

    /// The longest of a table's entries.
    pub fn longest(&self, side: Side) -> u64 {
        self.tables[side as usize].longest
    }
}

impl Entries {
    #[inline]
    fn set(&mut self, table: &Table<'_>) {
        self.all.clear();
        match table {
            Table::None => return,
            Table::Blocks(blocks) => self.add_blocks(blocks),
            Table::Messages(messages) => self.all.extend(messages.iter().map(|message| TableEntry {
                peer: message.peer,
                start: message.start,
                len: message.len,
                signature: message.signature,
            })),
        }
        self.longest = self.all.iter().map(|entry| entry.len).max().unwrap_or(0);
    }

    fn add_blocks(&mut self, blocks: &Blocks<'_>) {
        let entry = |(peer, (start, len))| TableEntry {
            peer: peer as Rank,
            start,
            len,
            signature: Signature::default(),
        };
        self.all.extend(blocks.iter().enumerate().map(entry));
    }
}
