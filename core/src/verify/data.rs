//! Moves symbolic contents through a run.

use super::flat::{Flat, NONE, OWN};
use super::run::Observer;
use super::violation::Violation;
use crate::collective::Rank;
use crate::op::ReduceOp;
use crate::symbolic::{Piece, SymbolicMemory, reduce_pieces};

/// No content.
const NOTHING: u32 = u32::MAX;

/// The ranks' memories and the messages under way.
pub(super) struct Data {
    ranks: u32,
    memories: Vec<SymbolicMemory>,
    /// Per step: where what it sends is kept.
    content_of: Vec<u32>,
    contents: Vec<Message>,
    free: Vec<u32>,
    /// Per source of the step at hand: its pieces; kept to be filled again.
    sources: Vec<Vec<Piece>>,
    result: Vec<Piece>,
    /// Whether a reduction may be part of another.
    nests: bool,
    /// The first step that reduced a reduction where that may not be.
    nested: Option<u32>,
}

/// What a send published, until the last of its receivers has read it.
#[derive(Default)]
struct Message {
    pieces: Vec<Piece>,
    readers: u32,
}

impl Data {
    pub(super) fn new(flat: &Flat, memories: Vec<SymbolicMemory>) -> Self {
        Data {
            ranks: flat.ranks,
            memories,
            content_of: vec![NOTHING; flat.total()],
            contents: Vec::new(),
            free: Vec::new(),
            sources: Vec::new(),
            result: Vec::new(),
            nests: flat.specs[0].op.is_none_or(ReduceOp::nests),
            nested: None,
        }
    }

    /// Whether the operation was applied to nothing that it had made.
    pub(super) fn check_nesting(&self, flat: &Flat) -> Result<(), Violation> {
        let op = flat.specs[0].op.map_or("", ReduceOp::name);
        self.nested.map_or(Ok(()), |step| Err(Violation::Nested { step: flat.describe(step), op }))
    }

    /// Puts the contents of an entry's source into `self.sources[at]`.
    fn gather(&mut self, flat: &Flat, rank: Rank, step: u32, partner: u32, at: usize) {
        if self.sources.len() <= at {
            self.sources.push(Vec::new());
        }
        let pieces = &mut self.sources[at];
        pieces.clear();
        if partner == OWN {
            let step = &flat.steps[step as usize];
            self.memories[rank as usize].read(step.read, step.len, pieces);
            return;
        }
        let content = self.content_of[partner as usize];
        let message = &mut self.contents[content as usize];
        message.readers -= 1;
        if message.readers > 0 {
            pieces.extend_from_slice(&message.pieces);
        } else {
            std::mem::swap(pieces, &mut message.pieces);
            self.free.push(content);
        }
    }

    /// Appends what a rank's memory holds in `range` to `pieces`.
    pub(super) fn read(&mut self, rank: Rank, range: std::ops::Range<u64>, pieces: &mut Vec<Piece>) {
        self.memories[rank as usize].read(range.start, range.end - range.start, pieces);
    }
}

impl Observer for Data {
    #[inline]
    fn posted(&mut self, flat: &Flat, rank: Rank, _: usize, step: u32) {
        let now = flat.steps[step as usize];
        if !now.sends || now.len == 0 {
            return;
        }
        let readers = flat.entries_of(step).len() as u32;
        if readers == 0 {
            return;
        }
        let content = self.free.pop().unwrap_or_else(|| {
            self.contents.push(Message::default());
            self.contents.len() as u32 - 1
        });
        let message = &mut self.contents[content as usize];
        message.readers = readers;
        message.pieces.clear();
        self.memories[rank as usize].read(now.read, now.len, &mut message.pieces);
        self.content_of[step as usize] = content;
    }

    #[inline]
    fn completed(&mut self, flat: &Flat, rank: Rank, step: u32) {
        let now = flat.steps[step as usize];
        if now.write == NONE || now.len == 0 {
            return;
        }
        let entries = flat.entries_of(step);
        for (at, entry) in entries.clone().enumerate() {
            self.gather(flat, rank, step, flat.entries[entry].partner, at);
        }
        let memory = &mut self.memories[rank as usize];
        if entries.len() == 1 {
            memory.write(now.write, &self.sources[0]);
            return;
        }
        if !self.nests && self.nested.is_none() {
            let is_reduction = |piece: &Piece| piece.value.is_reduction(self.ranks);
            let any = self.sources[..entries.len()].iter().flatten().any(is_reduction);
            self.nested = any.then_some(step);
        }
        self.result.clear();
        reduce_pieces(&self.sources[..entries.len()], self.ranks, &mut self.result);
        memory.write(now.write, &self.result);
    }
}
