//! Tables of lengths, from ordinary to extreme: who has how much for whom, and where it lies.

use ubccl_core::blocks::{Blocks, Message};
use ubccl_core::verify::mutate::Random;
use ubccl_core::{Rank, Signature};

/// How the lengths are spread over pairs of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// All of one length.
    Equal,
    /// Nobody has anything for anybody.
    Nothing,
    /// One rank has something for one other.
    HotPair,
    /// All have something for one rank.
    OneGetsAll,
    /// One rank has something for all.
    OneSendsAll,
    /// Everybody keeps its own.
    Diagonal,
    /// A few long ones and many short ones.
    Zipf,
    /// Anything, a third of it empty.
    Random,
    /// Lengths up to 2^47 bytes in all.
    Huge,
}

impl Pattern {
    pub(crate) const ALL: [Pattern; 9] = [
        Pattern::Random,
        Pattern::Zipf,
        Pattern::Equal,
        Pattern::Nothing,
        Pattern::HotPair,
        Pattern::OneGetsAll,
        Pattern::OneSendsAll,
        Pattern::Diagonal,
        Pattern::Huge,
    ];
}

/// Where blocks lie in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// One after the other, without displacements.
    Packed,
    /// In random order, with gaps.
    Scattered,
    /// What is sent all begins at the same element; what is received is scattered.
    Overlapping,
}

impl Placement {
    pub(crate) const ALL: [Placement; 3] = [Placement::Scattered, Placement::Packed, Placement::Overlapping];
}

/// What tables are made by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    pub(crate) pattern: Pattern,
    pub(crate) placement: Placement,
    /// About how long an ordinary block is.
    pub(crate) scale: u64,
    pub(crate) seed: u64,
}

impl Lengths {
    pub(crate) fn random(self) -> Random {
        Random(self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(u64::from(self.scale as u32)))
    }

    /// How much `from` has for `to`, when `hot` is the rank that the extreme patterns are about.
    pub(crate) fn length(&self, from: Rank, to: Rank, hot: Rank, ranks: u32, random: &mut Random) -> u64 {
        let (scale, any) = (self.scale, random.bits());
        let only = |holds: bool| if holds { 3 * scale + 1 } else { 0 };
        match self.pattern {
            Pattern::Equal => scale,
            Pattern::Nothing => 0,
            Pattern::HotPair => only(to == hot && from == (hot + 1) % ranks),
            Pattern::OneGetsAll => only(to == hot),
            Pattern::OneSendsAll => only(from == hot),
            Pattern::Diagonal => only(from == to),
            Pattern::Zipf => 4 * scale / (1 + any % u64::from(4 * ranks)),
            Pattern::Random if any.is_multiple_of(3) => 0,
            Pattern::Random => (any >> 8) % (2 * scale + 2),
            Pattern::Huge => (any >> 20) % ((1 << 47) / 8 / u64::from(ranks)),
        }
    }

    pub(crate) fn place(&self, counts: Vec<u64>, sends: bool, random: &mut Random) -> Placed {
        let starts = match self.placement {
            Placement::Packed => None,
            Placement::Overlapping if sends => Some(vec![1; counts.len()]),
            Placement::Scattered | Placement::Overlapping => Some(scatter(&counts, random)),
        };
        Placed { counts, starts }
    }
}

fn scatter(counts: &[u64], random: &mut Random) -> Vec<u64> {
    let mut order: Vec<usize> = (0..counts.len()).collect();
    (1..order.len()).rev().for_each(|k| order.swap(k, random.below(k + 1)));
    let (mut starts, mut next) = (vec![0; counts.len()], 0);
    for rank in order {
        next += random.below(3) as u64;
        starts[rank] = next;
        next += counts[rank];
    }
    starts
}

/// Blocks with memory of their own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placed {
    pub(crate) counts: Vec<u64>,
    starts: Option<Vec<u64>>,
}

impl Placed {
    pub(crate) fn blocks(&self) -> Blocks<'_> {
        match &self.starts {
            Some(starts) => Blocks::at(&self.counts, starts),
            None => Blocks::packed(&self.counts),
        }
    }
}

/// What one rank sends and receives in a group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Messages {
    pub(crate) send: Vec<Message>,
    pub(crate) receive: Vec<Message>,
}

/// A message of a group: number among those of its pair, from whom, to whom, how long.
type Draft = (u32, Rank, Rank, u64);

/// All ranks' messages of a group, in the order that the engine brings them to: by number among those of the pair, then
/// by distance from sender to receiver.
pub(crate) fn group(lengths: &Lengths, ranks: u32, hot: Rank, in_place: bool) -> Vec<Messages> {
    let mut random = lengths.random();
    let mut drafts = drafts(lengths, ranks, hot, &mut random);
    drafts.sort_by_key(|&(ordinal, from, to, _)| (ordinal, (to + ranks - from) % ranks));
    let mut tables = vec![Messages::default(); ranks as usize];
    let mut add = |sends: bool| {
        for &(_, from, to, len) in &drafts {
            let (rank, peer) = if sends { (from, to) } else { (to, from) };
            let table = &mut tables[rank as usize];
            let gap = if lengths.placement == Placement::Packed { 0 } else { random.below(3) as u64 };
            let sent = table.send.iter().map(|message| message.start + message.len).max().unwrap_or(0);
            let list = if sends { &mut table.send } else { &mut table.receive };
            // In place, what is received lies behind what is sent.
            let first = if in_place { sent } else { 0 };
            let next = list.last().map_or(first, |last| last.start + last.len) + gap;
            let start = if sends && lengths.placement == Placement::Overlapping { 0 } else { next };
            list.push(Message { peer, start, len, signature: Signature::default() });
        }
    };
    add(true);
    add(false);
    tables
}

fn drafts(lengths: &Lengths, ranks: u32, hot: Rank, random: &mut Random) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for from in 0..ranks {
        for to in (0..ranks).filter(|&to| to != from) {
            let length = lengths.length(from, to, hot, ranks, random);
            // Of many ranks, only some pairs talk; a hot spot gets several from each.
            let messages = match lengths.pattern {
                Pattern::HotPair if length > 0 => 150,
                Pattern::OneGetsAll | Pattern::OneSendsAll if length > 0 => 5,
                Pattern::Zipf | Pattern::Random if random.below(ranks as usize) < 12 => random.below(5),
                Pattern::Equal | Pattern::Nothing | Pattern::Huge => random.below(2),
                _ => 0,
            };
            drafts.extend((0..messages as u32).map(|ordinal| (ordinal, from, to, length.max(1) - 1)));
        }
    }
    drafts
}
