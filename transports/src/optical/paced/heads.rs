//! Heads: when the first byte of a message reaches each rank. Memory of our own that goes beside the payload.

use ubccl_core::Rank;
use ubccl_core::endpoint::{HostPointer, Memory, RegionId, Span};

/// Buffers by number. Kept and used again.
#[derive(Debug)]
pub(super) struct Heads {
    buffers: Vec<Box<[u64]>>,
    free: Vec<u32>,
    ranks: usize,
}

impl Heads {
    pub(super) fn new(ranks: u32) -> Self {
        Heads { buffers: Vec::new(), free: Vec::new(), ranks: ranks as usize }
    }

    /// A buffer, and if it is new the memory to register for it.
    pub(super) fn take(&mut self) -> (u32, Option<Memory>) {
        if let Some(number) = self.free.pop() {
            return (number, None);
        }
        let number = self.buffers.len() as u32;
        let mut buffer = vec![0; self.ranks].into_boxed_slice();
        let address = HostPointer(buffer.as_mut_ptr().expose_provenance());
        self.buffers.push(buffer);
        (number, Some(Memory::Host { address, len: self.bytes_of_one() }))
    }

    fn bytes_of_one(&self) -> u64 {
        self.ranks as u64 * 8
    }

    pub(super) fn give_back(&mut self, number: u32) {
        self.free.push(number);
    }

    /// Where a head lies.
    pub(super) fn span(&self, number: u32) -> Span {
        Span { region: RegionId(number), offset: 0, len: self.bytes_of_one() }
    }

    /// Says when the head of a message reaches a rank.
    pub(super) fn set(&mut self, number: u32, rank: Rank, head_ps: u64) {
        self.buffers[number as usize][rank as usize] = head_ps;
    }

    /// When the head of a message that came reaches a rank.
    pub(super) fn of(&self, number: u32, rank: Rank) -> u64 {
        self.buffers[number as usize][rank as usize]
    }

    /// Every buffer is free: nothing is under way any more.
    pub(super) fn give_all_back(&mut self) {
        self.free = (0..self.buffers.len() as u32).collect();
    }

    /// Bytes that it keeps.
    pub(super) fn bytes(&self) -> u64 {
        self.buffers.len() as u64 * self.bytes_of_one()
    }
}
