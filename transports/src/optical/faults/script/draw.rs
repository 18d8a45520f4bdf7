//! Faults drawn from a seed.

use super::{Fault, FaultKind, LEAST_BYTES, RETRAIN_PS, mixed, share};
use ubccl_core::Rank;

/// One to six faults of any kind, which begin before `within_ps`; about one seed in five has a death.
pub(super) fn faults(seed: u64, ranks: u32, within_ps: u64) -> Vec<Fault> {
    let mut state = seed ^ 0xfa17;
    let mut below = |limit: u64| {
        state = mixed(state);
        state % limit.max(1)
    };
    let count = 1 + below(6);
    (0..count)
        .map(|_| {
            let rank = Some(below(u64::from(ranks)) as Rank);
            let (from_ps, lasts_ps) = (below(within_ps), 1 + below(within_ps / 4));
            let retrain_ps = 1 + below(RETRAIN_PS);
            let slow = |part, of, what| FaultKind::Slow { share: share(part, of), what };
            let errors =
                |one_in_bytes| FaultKind::BitErrors { one_in_bytes: LEAST_BYTES + one_in_bytes, retrain_ps };
            let (kind, rank, from_ps, lasts_ps) = match below(15) {
                0..3 => (FaultKind::Flap { retrain_ps }, rank, from_ps, 1 + lasts_ps / 8),
                3..6 => (errors(below(200_000)), rank, from_ps, lasts_ps),
                6..8 => (FaultKind::Pause, rank, from_ps, lasts_ps),
                8 => (slow(1 + below(99), 100, "slow-port"), rank, from_ps, lasts_ps),
                9..11 => (slow(1 + below(3), 4, "lane-loss"), rank, from_ps, lasts_ps),
                11..13 => (slow(6, 7, "plane-loss"), None, from_ps, lasts_ps),
                13 => (FaultKind::Pause, rank, 0, lasts_ps),
                _ => (FaultKind::Death, rank, from_ps, u64::MAX),
            };
            Fault { kind, rank, from_ps, until_ps: from_ps.saturating_add(lasts_ps) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_each_time_and_seeds_draw_every_kind() {
        assert_eq!(faults(7, 8, 1000), faults(7, 8, 1000));
        assert_ne!(faults(7, 8, 1000), faults(8, 8, 1000));
        let all: Vec<Fault> = (0..200).flat_map(|seed| faults(seed, 8, 1000)).collect();
        for word in ["link-flap", "bit-errors", "pause", "slow-port", "lane-loss", "plane-loss", "death"] {
            assert!(all.iter().any(|fault| fault.text().starts_with(word)), "{word}");
        }
        let fits = |fault: &Fault| fault.from_ps < 1000 && fault.rank.is_none_or(|rank| rank < 8);
        assert!(all.iter().all(fits));
    }
}
