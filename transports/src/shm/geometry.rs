//! Where everything is in a segment. Every rank computes it from the same options; nothing of it is read from a peer.
//!
//! ```text
//! page 0            header line, doorbell line, the line of `finished`, lines of the epoch and of visits
//! then              the owner's publications, which all peers read
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
/// A slot, if the budget has room for [`FEW_ENTRIES`] of them: long enough that an entry's own cost is lost in its copy, short
/// enough that the receiver's copy begins early.
const GOOD_SLOT_BYTES: usize = 8 << 10;
/// Bytes after each slot that nobody touches. A processor that reads a slot to its end fetches ahead what follows, and would
/// take the lines of the next slot from the sender that is about to write it (measured on Zen 4: 8 KiB in 0.44 us with a gap,
/// 0.86 without; more than 1 KiB is no better). Short slots do without.
const GAP_BYTES: usize = 1024;
/// The entries of a ring: of good slots as many as there is room for, within these.
const FEW_ENTRIES: usize = 4;
const MOST_ENTRIES: usize = 256;

/// Entries and slots of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingShape {
    /// A power of two.
    pub(crate) entries: u32,
    /// A multiple of 64, so that no element is ever cut.
    pub(crate) slot_bytes: usize,
    /// From one slot to the next: the slot and the gap after it.
    pub(crate) slot_stride: usize,
}

/// The layout of the segments of one communicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    ranks: usize,
    lanes: usize,
    /// Of every lane.
    lane: RingShape,
    /// Of the channel of direct messages.
    direct: RingShape,
    /// Of the channel of tagged messages.
    tagged: RingShape,
    pair_bytes: usize,
    /// What each rank may publish.
    publications: PublicationShape,
}

/// A rank's publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublicationShape {
    /// Entries; a power of two.
    pub(crate) entries: usize,
    /// Places for payloads that do not stand in their entries; a power of two.
    pub(crate) places: usize,
    /// The longest payload: one copy that all peers read beats one for each of them.
    pub(crate) longest: usize,
}

impl PublicationShape {
    /// From one payload to the next.
    pub(crate) fn stride(self) -> usize {
        self.longest + 2 * GAP_BYTES
    }

    /// All of it.
    fn bytes(self) -> usize {
        self.heads_bytes() + self.shorts_bytes() + self.payloads_bytes()
    }

    /// Of the entries' heads.
    fn heads_bytes(self) -> usize {
        self.entries * Geometry::PUBLICATION_HEAD
    }

    /// Of the payloads that entries have room for.
    pub(crate) fn shorts_bytes(self) -> usize {
        self.entries * Geometry::SHORT_STRIDE
    }

    /// Of the payloads in places of their own.
    pub(crate) fn payloads_bytes(self) -> usize {
        self.places * self.stride()
    }
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
    /// The owner's doorbell.
    pub(crate) const DOORBELL: usize = 128;
    /// The owner's count of withdrawals, on a line that nobody else's writes make travel.
    pub(crate) const EPOCH: usize = 384;
    /// Whether the owner is at work in its peers' heaps (`local::visit`).
    pub(crate) const VISITING: usize = 512;
    /// Where the owner has its segment, behind the header's words.
    pub(crate) const ADDRESS: usize = 32;
    /// The owner's word of finished publications (`local::publication`).
    pub(crate) const FINISHED: usize = 256;
    /// The owner's publications.
    pub(crate) const PUBLICATIONS: usize = PAGE_BYTES;
    /// What stands together for each entry: the header's line and the one that is fetched with it. They follow one another,
    /// so that small publications touch few pages however many entries there are.
    pub(crate) const PUBLICATION_HEAD: usize = 2 * ENTRY_BYTES;
    /// Payloads up to this length stand beside their entries, closely: their few lines come sooner from a cache nearby.
    pub(crate) const SHORT_PAYLOAD: usize = 1 << 10;
    /// From one of these to the next.
    pub(crate) const SHORT_STRIDE: usize = Self::SHORT_PAYLOAD + GAP_BYTES / 2;
    /// The layout for so many ranks.
    ///
    /// Errors: InvalidArgument if the lanes are none or too many, or do not fit into `pair_bytes`.
    pub(crate) fn new(ranks: u32, options: &ConnectOptions) -> Result<Self> {
        let (lanes, ranks) = (usize::from(options.lanes), ranks as usize);
        if lanes == 0 || lanes > MAX_LANES {
            return Err(Error::invalid(format!("shm takes 1 to {MAX_LANES} lanes, not {lanes}")));
        }
        let Budget { pair_bytes, publications } = Budget::new(ranks, options);
        let budget = pair_bytes / PAGE_BYTES * PAGE_BYTES;
        let least = smallest(lanes);
        if budget < least {
            let asked = pair_bytes;
            return Err(Error::invalid(format!(
                "shm cannot fit {lanes} lanes into {asked} bytes per pair; give at least {least}"
            )));
        }
        let [lane, direct, tagged] = shapes(lanes, budget);
        let mut geometry = Geometry { ranks, lanes, lane, direct, tagged, pair_bytes: 0, publications };
        geometry.pair_bytes = geometry.end_of_pair().next_multiple_of(PAGE_BYTES);
        debug_assert!(geometry.pair_bytes <= budget);
        geometry.pair_bytes.checked_mul(ranks + 1).ok_or_else(|| {
            Error::invalid(format!("{ranks} ranks times {pair_bytes} bytes per pair overflow"))
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
        self.pair(self.ranks)
    }

    /// Bytes of a segment that are ever touched: not the block for the owner itself.
    pub(crate) fn usable_bytes(&self) -> usize {
        self.segment_bytes() - self.pair_bytes
    }

    /// What each rank may publish.
    pub(crate) fn publications(&self) -> PublicationShape {
        self.publications
    }

    /// Where the payloads begin that stand beside their entries.
    pub(crate) fn shorts(&self) -> usize {
        Self::PUBLICATIONS + self.publications.heads_bytes()
    }

    /// Where those begin that stand in places of their own.
    pub(crate) fn payloads(&self) -> usize {
        self.shorts() + self.publications.shorts_bytes()
    }

    /// Bytes of a rank's publications.
    pub(crate) fn publications_bytes(&self) -> usize {
        self.publications.bytes()
    }

    /// Where channel `channel` to `peer` is in the sender's segment.
    pub(crate) fn channel(&self, peer: usize, channel: usize) -> ChannelPlace {
        debug_assert!(channel < self.channels() && peer < self.ranks);
        let pair = self.pair(peer);
        let before =
            |of: fn(RingShape) -> usize| (0..channel).map(|before| of(self.shape(before))).sum::<usize>();
        let entries = pair + self.channels() * ACK_BYTES + before(entry_bytes);
        let slots = pair + control_bytes(&self.shapes()) + before(slots_bytes);
        ChannelPlace { entries, slots, shape: self.shape(channel) }
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
        let publications = Self::PUBLICATIONS + self.publications_bytes();
        publications.next_multiple_of(PAGE_BYTES) + peer * self.pair_bytes
    }

    fn shape(&self, channel: usize) -> RingShape {
        match channel.checked_sub(self.lanes) {
            None => self.lane,
            Some(0) => self.direct,
            Some(_) => self.tagged,
        }
    }

    fn shapes(&self) -> Vec<RingShape> {
        (0..self.channels()).map(|channel| self.shape(channel)).collect()
    }

    fn end_of_pair(&self) -> usize {
        let shapes = self.shapes();
        control_bytes(&shapes) + shapes.iter().copied().map(slots_bytes).sum::<usize>()
    }
}

/// How much memory is used for what.
struct Budget {
    /// For each ordered pair.
    pair_bytes: usize,
    /// Of each rank.
    publications: PublicationShape,
}

impl Budget {
    /// What is promised for each ordered pair: half of 1 MiB for an unordered one.
    const PAIR_BYTES: usize = 512 << 10;
    /// What is promised for each rank beside.
    const RANK_BYTES: usize = 64 << 10;
    /// What all ranks of a node have together at most, however many they are.
    const NODE_BYTES: usize = 256 << 20;
    /// The most that helps a pair. Writing a line that the reader still has in its own cache costs four to five times as
    /// much as one that has been evicted to the cache that both share (measured on Zen 4: 64 KiB in 7.4 against 1.7 us).
    /// So a ring goes round through 2 MiB, twice as much as such a private cache has; that of direct messages too.
    const BEST_PAIR_BYTES: usize = 5248 << 10;
    /// As much for the payloads of what a rank publishes, for the same reason: 2 MiB.
    const BEST: PublicationShape = PublicationShape { entries: 128, places: 64, longest: 32 << 10 };
    /// Two ranks wait for each other in every exchange, and need not run many ahead.
    const BEST_OF_TWO: PublicationShape = PublicationShape { entries: 128, places: 4, longest: 512 << 10 };
    /// With memory that somebody keeps short.
    const LEAST: PublicationShape = PublicationShape { entries: 4, places: 4, longest: 8 << 10 };
    const FEW_RANKS: usize = 4;
    /// As asked, or by the number of ranks. Few ranks get more than they are promised.
    fn new(ranks: usize, options: &ConnectOptions) -> Self {
        if let Some(asked) = options.pair_bytes {
            let pair_bytes = usize::try_from(asked).unwrap_or(usize::MAX);
            return Budget { pair_bytes, publications: Self::LEAST };
        }
        if ranks == 1 {
            // Nobody to send to.
            let publications = PublicationShape { entries: 2, places: 2, ..Self::LEAST };
            return Budget { pair_bytes: Self::PAIR_BYTES, publications };
        }
        let peers = ranks - 1;
        if ranks <= Self::FEW_RANKS {
            let publications = if ranks == 2 { Self::BEST_OF_TWO } else { Self::BEST };
            return Budget { pair_bytes: Self::BEST_PAIR_BYTES / peers.div_ceil(2), publications };
        }
        let promised = peers * Self::PAIR_BYTES + Self::RANK_BYTES;
        let rank_bytes = promised.min(Self::NODE_BYTES / ranks);
        let publications = Self::publications(rank_bytes / 4);
        let rest = rank_bytes.saturating_sub(publications.bytes() + 2 * PAGE_BYTES);
        Budget { pair_bytes: rest / peers, publications }
    }

    /// With so many bytes for them: the long ones if there is room for a few.
    fn publications(bytes: usize) -> PublicationShape {
        let entry = Geometry::PUBLICATION_HEAD + Geometry::SHORT_STRIDE;
        let entries = (bytes / 4 / entry).clamp(Self::LEAST.entries, Self::BEST.entries);
        let entries = 1 << entries.ilog2();
        let places = |longest: usize| {
            let places = bytes / PublicationShape { longest, ..Self::LEAST }.stride();
            1 << places.clamp(Self::LEAST.places, Self::BEST.places).ilog2()
        };
        let longest = [Self::BEST.longest, Self::LEAST.longest];
        let longest = longest.into_iter().find(|&longest| places(longest) > Self::LEAST.places);
        let longest = longest.unwrap_or(Self::LEAST.longest);
        PublicationShape { entries, places: places(longest), longest }
    }
}

/// Bytes of a ring's slots.
fn slots_bytes(shape: RingShape) -> usize {
    shape.entries as usize * shape.slot_stride
}

/// Bytes of a ring's entries.
fn entry_bytes(shape: RingShape) -> usize {
    shape.entries as usize * ENTRY_BYTES
}

/// Bytes of acknowledgements and entries, to the next page.
fn control_bytes(shapes: &[RingShape]) -> usize {
    let entries: usize = shapes.iter().copied().map(entry_bytes).sum();
    (shapes.len() * ACK_BYTES + entries).next_multiple_of(PAGE_BYTES)
}

/// The smallest pair: every channel with 4 slots of 64 B.
fn smallest(lanes: usize) -> usize {
    let least = RingShape { entries: FEW_ENTRIES as u32, slot_bytes: 64, slot_stride: 64 };
    let all = vec![least; lanes + POINT_TO_POINT_CHANNELS];
    // What the tagged channel gets is the smallest part of whatever there is.
    (control_bytes(&all) + parts(lanes) * slots_bytes(least)).next_multiple_of(PAGE_BYTES)
}

/// Parts of the budget: as many for a lane as for direct messages, one for those with tags.
const PARTS_OF_A_LANE: usize = 4;

fn parts(lanes: usize) -> usize {
    PARTS_OF_A_LANE * (lanes + 1) + 1
}

/// Cuts the budget into a lane's ring, that of direct messages, and that of messages with tags.
fn shapes(lanes: usize, budget: usize) -> [RingShape; 3] {
    // Whatever the shapes turn out to be, their entries take no more than this.
    let control = |most: usize| {
        let widest = RingShape { entries: most as u32, slot_bytes: 0, slot_stride: 0 };
        control_bytes(&vec![widest; lanes + POINT_TO_POINT_CHANNELS])
    };
    let cut = |most: usize| {
        let part = budget.saturating_sub(control(most)) / parts(lanes);
        let shape = |bytes: usize| {
            let entries = (bytes / (GOOD_SLOT_BYTES + GAP_BYTES)).clamp(FEW_ENTRIES, most);
            let entries = 1 << entries.ilog2();
            let (slot_bytes, slot_stride) = slot(bytes / entries as usize);
            RingShape { entries, slot_bytes, slot_stride }
        };
        let lane = shape(part * PARTS_OF_A_LANE);
        [lane, lane, shape(part)]
    };
    // With little memory, room for entries that there are no slots for would be a waste.
    let is_small = budget < 2 * control(MOST_ENTRIES);
    cut(if is_small { FEW_ENTRIES } else { MOST_ENTRIES })
}

/// A slot that has so many bytes, and the stride.
fn slot(share: usize) -> (usize, usize) {
    let gap = if share >= PAGE_BYTES { GAP_BYTES } else { 0 };
    let step = if share >= PAGE_BYTES { 1024 } else { 64 };
    let slot_bytes = ((share - gap) / step * step).min(HostMemory::BITE);
    (slot_bytes, slot_bytes + gap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry(ranks: u32, lanes: u8, pair_bytes: u64) -> Result<Geometry> {
        Geometry::new(
            ranks,
            &ConnectOptions { lanes, pair_bytes: Some(pair_bytes), paced: None, peer_reads: false },
        )
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
            let mut parts = vec![
                (0, Geometry::DOORBELL + ENTRY_BYTES),
                (Geometry::FINISHED, ENTRY_BYTES),
                (Geometry::EPOCH, ENTRY_BYTES),
                (Geometry::VISITING, ENTRY_BYTES),
                (Geometry::PUBLICATIONS, geometry.publications_bytes()),
            ];
            for peer in 0..ranks as usize {
                for channel in 0..geometry.channels() {
                    let place = geometry.channel(peer, channel);
                    let entries = place.shape.entries as usize;
                    prop_assert!(entries.is_power_of_two());
                    prop_assert!(place.shape.slot_bytes >= 64 && place.shape.slot_bytes.is_multiple_of(64));
                    prop_assert!(place.entries.is_multiple_of(64) && place.slots.is_multiple_of(64));
                    parts.push((place.entries, entries * ENTRY_BYTES));
                    parts.push((place.slots, entries * place.shape.slot_stride));
                    prop_assert!(place.shape.slot_stride >= place.shape.slot_bytes);
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
    fn two_ranks_have_as_many_good_slots_as_help() {
        let geometry = Geometry::new(2, &ConnectOptions::default()).unwrap();
        let good = RingShape {
            entries: MOST_ENTRIES as u32,
            slot_bytes: GOOD_SLOT_BYTES,
            slot_stride: GOOD_SLOT_BYTES + GAP_BYTES,
        };
        assert_eq!((geometry.lane, geometry.direct), (good, good), "{geometry:?}");
    }

    #[test]
    fn the_default_uses_most_of_its_memory() {
        for lanes in 1..=8 {
            let geometry = Geometry::new(2, &ConnectOptions { lanes, ..ConnectOptions::default() }).unwrap();
            assert!(geometry.pair_bytes > 400 << 10, "{geometry:?}");
        }
    }
}
