//! Memory of our own that messages pass through: a head with times, then the payload.

use ubccl_core::Rank;
use ubccl_core::endpoint::{HostPointer, Memory, RegionId, Span};

/// Buffers by number, which is their region of the inner endpoint too. Kept and used again.
#[derive(Debug)]
pub(super) struct Staging {
    buffers: Vec<Vec<u128>>,
    free: Vec<u32>,
    /// Bytes of a head.
    head: u64,
}

/// A buffer that was taken, and whether it must be registered before it is used.
pub(super) struct Taken {
    pub(super) number: u32,
    pub(super) register: Option<Memory>,
}

impl Staging {
    pub(super) fn new(ranks: u32) -> Self {
        let head = (u64::from(ranks) * 8).next_multiple_of(size_of::<u128>() as u64);
        Staging { buffers: Vec::new(), free: Vec::new(), head }
    }

    /// Bytes of a head.
    pub(super) fn head_bytes(&self) -> u64 {
        self.head
    }

    /// A buffer for a message of so many bytes: the smallest free one that is long enough, else the longest, grown.
    pub(super) fn take(&mut self, bytes: u64) -> Taken {
        let units = (self.head + bytes).div_ceil(size_of::<u128>() as u64) as usize;
        let fits = |&&number: &&u32| self.buffers[number as usize].len() >= units;
        let smallest =
            self.free.iter().filter(fits).min_by_key(|&&number| self.buffers[number as usize].len());
        let longest = || self.free.iter().max_by_key(|&&number| self.buffers[number as usize].len());
        let number = match smallest.or_else(longest).copied() {
            Some(number) => {
                self.free.retain(|&other| other != number);
                number
            }
            None => {
                self.buffers.push(Vec::new());
                self.buffers.len() as u32 - 1
            }
        };
        let buffer = &mut self.buffers[number as usize];
        if buffer.len() >= units && !buffer.is_empty() {
            return Taken { number, register: None };
        }
        buffer.resize(units, 0);
        let address = HostPointer(buffer.as_mut_ptr().expose_provenance());
        let len = size_of_val(&buffer[..]) as u64;
        Taken { number, register: Some(Memory::Host { address, len }) }
    }

    pub(super) fn give_back(&mut self, number: u32) {
        self.free.push(number);
    }

    /// Where a message of so many bytes lies, head and all.
    pub(super) fn span(&self, number: u32, bytes: u64) -> Span {
        Span { region: RegionId(number), offset: 0, len: self.head + bytes }
    }

    /// Says when the head of a message reaches a rank.
    pub(super) fn set_head(&mut self, number: u32, rank: Rank, head_ps: u64) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.buffers[number as usize]);
        bytes[rank as usize * 8..][..8].copy_from_slice(&head_ps.to_le_bytes());
    }

    /// When the head of a message that came reaches this rank.
    pub(super) fn head(&self, number: u32, rank: Rank) -> u64 {
        let bytes: &[u8] = bytemuck::cast_slice(&self.buffers[number as usize]);
        u64::from_le_bytes(bytes[rank as usize * 8..][..8].try_into().expect("eight bytes"))
    }

    /// The payload's bytes.
    pub(super) fn payload(&mut self, number: u32, bytes: u64) -> &mut [u8] {
        let all: &mut [u8] = bytemuck::cast_slice_mut(&mut self.buffers[number as usize]);
        &mut all[self.head as usize..][..bytes as usize]
    }

    /// Every buffer is free: nothing is under way any more.
    pub(super) fn give_all_back(&mut self) {
        self.free = (0..self.buffers.len() as u32).collect();
    }

    /// Bytes that it keeps.
    pub(super) fn bytes(&self) -> u64 {
        self.buffers.iter().map(|buffer| size_of_val(&buffer[..]) as u64).sum()
    }
}
