//! Where everything is in a segment. Every rank computes it from the same options; nothing of it is read from a peer.
//!
//! ```text
//! page 0            header line, doorbell line, line of the epoch
//! then, per rank    what the owner sends to that rank, and what it has consumed of that rank's
//!   acknowledgements  128 B per channel, so that no two senders' lines are fetched together
//!   entries           64 B each
//!   slots             page-aligned, the lanes' first
//! ```
//! The block of the owner itself is never touched, and untouched pages cost nothing.

use crate::host::HostMemory;
use crate::local::POINT_TO_POINT_CHANNELS;
use std::ops::Range;
use ubccl_core::endpoint::ConnectOptions;
use ubccl_core::plan::MAX_LANES;
use ubccl_core::{Error, Result};

/// Bytes of an entry: one cache line.
pub(crate) const ENTRY_BYTES: usize = 64;
/// Bytes between two acknowledgement counters.
const ACK_BYTES: usize = 128;
const PAGE_BYTES: usize = 4096;
/// With fewer bytes a slot, a ring has 4 of them instead of 8: a copy's start-up weighs more than a longer pipeline.
const GOOD_SLOT_BYTES: usize = 16 << 10;

/// Entries and slots of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingShape {
    /// A power of two.
    pub(crate) entries: u32,
    /// A multiple of 64, so that no element is ever cut.
    pub(crate) slot_bytes: usize,
}

/// The layout of the segments of one communicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    ranks: usize,
    lanes: usize,
    lane: RingShape,
    /// Of both channels of point-to-point messages.
    point_to_point: RingShape,
    pair_bytes: usize,
}

/// Where a channel's parts are in a segment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChannelPlace {
    /// In the sender's segment.
    pub(crate) entries: usize,
    /// In the sender's segment.
    pub(crate) slots: usize,
    /// Its shape.
    pub(crate) shape: RingShape,
}

impl Geometry {
    /// Bytes before the first entry's block: header and doorbell.
    pub(crate) const DOORBELL: usize = 128;
    /// The owner's count of withdrawals, on a line that nobody else's writes make travel.
    pub(crate) const EPOCH: usize = 384;

    /// The layout for so many ranks.
    ///
    /// Errors: InvalidArgument if the lanes are none or too many, or do not fit into `pair_bytes`.
    pub(crate) fn new(ranks: u32, options: &ConnectOptions) -> Result<Self> {
        let (lanes, ranks) = (usize::from(options.lanes), ranks as usize);
        if lanes == 0 || lanes > MAX_LANES {
            return Err(Error::invalid(format!("shm takes 1 to {MAX_LANES} lanes, not {lanes}")));
        }
        let budget = usize::try_from(options.pair_bytes).unwrap_or(usize::MAX) / PAGE_BYTES * PAGE_BYTES;
        let least = smallest(lanes);
        if budget < least {
            let asked = options.pair_bytes;
            return Err(Error::invalid(format!(
                "shm cannot fit {lanes} lanes into {asked} bytes per pair; give at least {least}"
            )));
        }
        let (lane, point_to_point) = shapes(lanes, budget);
        let mut geometry = Geometry { ranks, lanes, lane, point_to_point, pair_bytes: 0 };
        geometry.pair_bytes = geometry.end_of_pair().next_multiple_of(PAGE_BYTES);
        debug_assert!(geometry.pair_bytes <= budget);
        geometry.pair_bytes.checked_mul(ranks + 1).ok_or_else(|| {
            Error::invalid(format!("{ranks} ranks times {} bytes per pair overflow", options.pair_bytes))
        })?;
        Ok(geometry)
    }

    /// How many ranks.
    pub(crate) fn ranks(&self) -> usize {
        self.ranks
    }

    /// Channels from one rank to another: the lanes, then [`POINT_TO_POINT_CHANNELS`].
    pub(crate) fn channels(&self) -> usize {
        self.lanes + POINT_TO_POINT_CHANNELS
    }

    /// Bytes of a segment.
    pub(crate) fn segment_bytes(&self) -> usize {
        PAGE_BYTES + self.ranks * self.pair_bytes
    }

    /// Bytes of a segment that are ever touched: not the block for the owner itself.
    pub(crate) fn usable_bytes(&self) -> usize {
        self.segment_bytes() - self.pair_bytes
    }

    /// Where channel `channel` to `peer` is in the sender's segment.
    pub(crate) fn channel(&self, peer: usize, channel: usize) -> ChannelPlace {
        debug_assert!(channel < self.channels() && peer < self.ranks);
        let pair = self.pair(peer);
        let shape = if channel < self.lanes { self.lane } else { self.point_to_point };
        let entries = pair + self.channels() * ACK_BYTES + channel * self.lane.entries as usize * ENTRY_BYTES;
        let (before, after) = (channel.min(self.lanes), channel.saturating_sub(self.lanes));
        let slots = before * bytes(self.lane) + after * bytes(self.point_to_point);
        let slots = pair + self.control_bytes() + slots;
        ChannelPlace { entries, slots, shape }
    }

    /// Where, in the receiver's segment, it counts what it has consumed of channel `channel` from `peer`.
    pub(crate) fn consumed(&self, peer: usize, channel: usize) -> usize {
        self.pair(peer) + channel * ACK_BYTES
    }

    /// The blocks of all pairs in a segment.
    pub(crate) fn pairs(&self) -> Range<usize> {
        self.pair(0)..self.pair(self.ranks)
    }

    /// The block of what the owner sends to `peer`: whole pages.
    pub(crate) fn pair_range(&self, peer: usize) -> Range<usize> {
        self.pair(peer)..self.pair(peer + 1)
    }

    fn pair(&self, peer: usize) -> usize {
        PAGE_BYTES + peer * self.pair_bytes
    }

    fn control_bytes(&self) -> usize {
        control_bytes(self.lanes, self.lane.entries as usize)
    }

    fn end_of_pair(&self) -> usize {
        let point_to_point = POINT_TO_POINT_CHANNELS * bytes(self.point_to_point);
        self.control_bytes() + self.lanes * bytes(self.lane) + point_to_point
    }
}

/// Bytes of a ring's slots.
fn bytes(shape: RingShape) -> usize {
    shape.entries as usize * shape.slot_bytes
}

/// Bytes of acknowledgements and entries, to the next page.
fn control_bytes(lanes: usize, entries: usize) -> usize {
    ((lanes + POINT_TO_POINT_CHANNELS) * (ACK_BYTES + entries * ENTRY_BYTES)).next_multiple_of(PAGE_BYTES)
}

/// The smallest pair: 4 slots of 64 B for each channel of point-to-point messages, four times that for each lane.
fn smallest(lanes: usize) -> usize {
    (control_bytes(lanes, 4) + (lanes + 1) * 4 * 64 * 4).next_multiple_of(PAGE_BYTES)
}

/// Cuts the budget: the channels of point-to-point messages get half an even share together, the lanes the rest.
fn shapes(lanes: usize, budget: usize) -> (RingShape, RingShape) {
    let cut = |entries: usize| {
        let rest = budget.saturating_sub(control_bytes(lanes, entries));
        let point_to_point = rest / (lanes + 1) / 2;
        let shape =
            |bytes: usize| RingShape { entries: entries as u32, slot_bytes: slot_bytes(bytes / entries) };
        (shape((rest - point_to_point) / lanes), shape(point_to_point / POINT_TO_POINT_CHANNELS))
    };
    let long = cut(8);
    if long.0.slot_bytes >= GOOD_SLOT_BYTES { long } else { cut(4) }
}

fn slot_bytes(share: usize) -> usize {
    let step = if share >= PAGE_BYTES { 1024 } else { 64 };
    (share / step * step).min(HostMemory::BITE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry(ranks: u32, lanes: u8, pair_bytes: u64) -> Result<Geometry> {
        Geometry::new(ranks, &ConnectOptions { lanes, pair_bytes })
    }

    #[test]
    fn too_little_memory_is_refused_with_what_suffices() {
        let error = geometry(2, 8, 4096).unwrap_err().to_string();
        let least = smallest(8);
        assert!(error.contains(&least.to_string()), "{error}");
        assert!(geometry(2, 8, least as u64).is_ok());
        assert!(geometry(2, 0, 1 << 20).is_err());
        assert!(geometry(2, 9, 1 << 20).is_err());
    }

    proptest! {
        #[test]
        fn parts_are_apart_and_inside_the_budget(ranks in 1_u32..6, lanes in 1_u8..=8, kib in 16_u64..4096) {
            let Ok(geometry) = geometry(ranks, lanes, kib << 10) else {
                prop_assert!(kib << 10 < smallest(usize::from(lanes)) as u64);
                return Ok(());
            };
            let mut parts = vec![(0, Geometry::DOORBELL + ENTRY_BYTES)];
            for peer in 0..ranks as usize {
                for channel in 0..geometry.channels() {
                    let place = geometry.channel(peer, channel);
                    let entries = place.shape.entries as usize;
                    prop_assert!(entries.is_power_of_two());
                    prop_assert!(place.shape.slot_bytes >= 64 && place.shape.slot_bytes.is_multiple_of(64));
                    prop_assert!(place.entries.is_multiple_of(64) && place.slots.is_multiple_of(64));
                    parts.push((place.entries, entries * ENTRY_BYTES));
                    parts.push((place.slots, entries * place.shape.slot_bytes));
                    parts.push((geometry.consumed(peer, channel), ACK_BYTES));
                }
            }
            parts.sort_unstable();
            for pair in parts.windows(2) {
                prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
            }
            let (start, len) = *parts.last().expect("there is the header");
            prop_assert!(start + len <= geometry.segment_bytes());
            prop_assert!(geometry.segment_bytes() as u64 <= (64 << 10) + u64::from(ranks) * (kib << 10));
        }
    }

    #[test]
    fn the_default_uses_most_of_its_memory() {
        for lanes in 1..=8 {
            let geometry = Geometry::new(2, &ConnectOptions { lanes, ..ConnectOptions::default() }).unwrap();
            assert!(geometry.pair_bytes > 400 << 10, "{geometry:?}");
        }
    }
}
