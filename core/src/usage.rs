//! What an endpoint has moved and what it keeps in memory: the units in which it is counted.

use crate::collective::Rank;
use std::iter::Sum;
use std::ops::AddAssign;

/// Bytes and messages that an endpoint has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages sent, once for each peer.
    pub messages_sent: u64,
    /// Payload bytes sent, once for each peer.
    pub bytes_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
}

impl Counters {
    /// One message more that was sent.
    #[inline]
    pub fn sent(&mut self, bytes: u64) {
        self.messages_sent += 1;
        self.bytes_sent += bytes;
    }

    /// One message more that was received.
    #[inline]
    pub fn received(&mut self, bytes: u64) {
        self.messages_received += 1;
        self.bytes_received += bytes;
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, more: Self) {
        self.messages_sent += more.messages_sent;
        self.bytes_sent += more.bytes_sent;
        self.messages_received += more.messages_received;
        self.bytes_received += more.bytes_received;
    }
}

impl Sum for Counters {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Counters::default(), |mut sum, more| {
            sum += more;
            sum
        })
    }
}

/// Over what messages went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over<'a> {
    /// To and from this peer.
    Peer(Rank),
    /// To and from ranks of this process.
    Process,
    /// Between ranks that share this level of a topology and no smaller one.
    Level(&'a str),
}

/// What memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemoryKind {
    /// Shared with other ranks, made by this one: as much as can ever be used of it. Pages nobody touched cost nothing.
    Shared,
    /// Shared by other ranks, which count it; to this one it costs address space.
    Mapped,
    /// Bytes under way: staging and rings.
    Buffers,
    /// What is posted, and what waits; tables of links.
    Queues,
    /// Plans that were made.
    Plans,
    /// Scratch of operations, kept for the next.
    Scratch,
    /// Regions that the program allocated and has not dropped, in memory that peers map.
    Regions,
}

impl MemoryKind {
    /// Every kind.
    pub const ALL: [MemoryKind; 7] = [
        MemoryKind::Shared,
        MemoryKind::Mapped,
        MemoryKind::Buffers,
        MemoryKind::Queues,
        MemoryKind::Plans,
        MemoryKind::Scratch,
        MemoryKind::Regions,
    ];

    /// The name for tables.
    pub fn name(self) -> &'static str {
        match self {
            MemoryKind::Shared => "shared",
            MemoryKind::Mapped => "mapped",
            MemoryKind::Buffers => "buffers",
            MemoryKind::Queues => "queues",
            MemoryKind::Plans => "plans",
            MemoryKind::Scratch => "scratch",
            MemoryKind::Regions => "regions",
        }
    }
}
