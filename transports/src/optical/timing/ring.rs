//! Rings of ranks: which way round a message goes, and by which port.

use ubccl_core::topology::Ring;
use ubccl_core::{Rank, Topology};

/// The rings of a fabric. Each rank has a port to the next rank, that of the level, and one to the rank before.
#[derive(Clone, Copy, Debug)]
pub(in crate::optical) struct Rings {
    /// Ranks of a ring, and of the world: the last ring is closed over those there are.
    holds: u32,
    ranks: u32,
    levels: u8,
    /// The ports to the next rank and to the one before.
    ports: [u8; 2],
    hop_ps: u64,
}

/// How a message goes round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// To lower ranks.
    is_back: bool,
    /// The ring's first rank, and how many it has.
    first: Rank,
    size: u32,
    /// Links on the way, at least one.
    pub(super) hops: u32,
}

impl Rings {
    /// Those of a topology whose levels use so many ports.
    pub(in crate::optical) fn of(topology: &Topology, ranks: u32, ports: u8) -> Option<Self> {
        let level = &topology.levels()[0];
        let Ring { hop_ps } = level.ring?;
        let levels = topology.levels().len() as u8;
        Some(Rings { holds: level.holds, ranks, levels, ports: [level.link.port, ports], hop_ps })
    }

    /// The way round of a message of this class, if it goes round one.
    #[inline]
    pub(super) fn round(&self, class: u8, from: Rank, to: Rank) -> Option<Round> {
        if !class.is_multiple_of(self.levels) {
            return None;
        }
        let first = from - from % self.holds;
        let size = self.holds.min(self.ranks - first);
        let clockwise = (to + size - from) % size;
        // Half way round every other rank goes either way, so that both are used alike.
        let is_back = 2 * clockwise > size || 2 * clockwise == size && !from.is_multiple_of(2);
        let hops = if is_back { size - clockwise } else { clockwise };
        Some(Round { is_back, first, size, hops })
    }

    /// By which port a message leaves a rank, and the one of the same direction by which it comes.
    #[inline]
    pub(super) fn port(&self, round: &Round) -> u8 {
        self.ports[usize::from(round.is_back)]
    }

    /// What the first byte takes longer than between neighbours.
    #[inline]
    pub(super) fn passing_ps(&self, round: &Round) -> u64 {
        self.hop_ps.saturating_mul(u64::from(round.hops - 1))
    }

    /// What it takes to a rank on the way.
    #[inline]
    pub(super) fn hop_ps(&self) -> u64 {
        self.hop_ps
    }

    /// The port to the next rank and its level's way back, for who counts or names ports.
    pub(super) fn ports(&self) -> [u8; 2] {
        self.ports
    }
}

impl Round {
    /// The rank after this one.
    #[inline]
    pub(super) fn next(&self, rank: Rank) -> Rank {
        let by = if self.is_back { self.size - 1 } else { 1 };
        self.first + (rank - self.first + by) % self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings(holds: u32, ranks: u32) -> Rings {
        let text = format!(
            "unit = 'NPU'\nlevel = [{{ name = 'ring', holds = {holds}, ring = {{ hop_ps = 5 }}, link = {{ latency_ps = 9, \
             rate_bytes_per_s = 1 }} }}, {{ name = 'pod', holds = 3, link = {{ latency_ps = 9, rate_bytes_per_s = 1, \
             port = 1 }} }}]"
        );
        Rings::of(&Topology::from_toml(&text).unwrap(), ranks, 2).unwrap()
    }

    #[test]
    fn every_way_ends_where_it_should_after_its_hops() {
        for (holds, ranks) in [(2, 2), (3, 3), (8, 8), (8, 20), (9, 13), (64, 6)] {
            let rings = rings(holds, ranks);
            for from in 0..ranks {
                for to in (0..ranks).filter(|to| *to != from && to / holds == from / holds) {
                    let round = rings.round(0, from, to).unwrap();
                    let end = (0..round.hops).fold(from, |at, _| round.next(at));
                    assert_eq!((end, round.hops <= round.size / 2), (to, true), "{from} to {to} of {ranks}");
                }
            }
        }
    }

    #[test]
    fn all_to_all_loads_all_links_alike() {
        for (size, most) in [(4_u32, 2_u32), (7, 6), (8, 8), (16, 32)] {
            let rings = rings(size, size);
            let mut loads = vec![[0; 2]; size as usize];
            for (from, to) in (0..size).flat_map(|from| (0..size).map(move |to| (from, to))) {
                let Some(round) = rings.round(0, from, to).filter(|_| from != to) else { continue };
                let mut at = from;
                for _ in 0..round.hops {
                    loads[at as usize][usize::from(rings.port(&round) == 2)] += 1;
                    at = round.next(at);
                }
            }
            assert!(loads.iter().flatten().all(|&load| load == most), "{size}: {loads:?}");
        }
    }

    #[test]
    fn what_leaves_a_ring_does_not_go_round() {
        assert_eq!(rings(8, 24).round(1, 0, 9), None);
        assert_eq!(rings(8, 24).round(3, 0, 9), None, "of the second engine");
    }
}
