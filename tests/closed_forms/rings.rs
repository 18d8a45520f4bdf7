//! On the preset `ring` messages pass the ranks between, and collectives that know no ring share its links.

use super::{serialised_ps, world_on};
use ubccl::sim::Fidelity;
use ubccl::{Collective, DataType, ReduceOp};

/// As the preset's TOML says.
const LATENCY_PS: u64 = 1_009_794;
const HOP_PS: u64 = 209_794;
const BYTES_PER_S: u64 = 50_000_000_000;

fn block_ps(elements: u64) -> u64 {
    serialised_ps(elements * 4, BYTES_PER_S)
}

fn time_ps(ranks: u32, algorithm: &str, call: Collective, fidelity: Fidelity) -> u64 {
    let mut world = world_on("ring".to_owned(), ranks, algorithm, fidelity);
    let outcome = world.run_phantom(&|_| call, false).expect("it runs");
    assert_eq!(outcome.wrong, 0);
    outcome.elapsed_ps
}

#[test]
fn ring_algorithms_use_neighbours_only() {
    for (ranks, fidelity) in [2_u32, 3, 8, 17, 64].into_iter().flat_map(|n| Fidelity::ALL.map(|own| (n, own)))
    {
        let n = u64::from(ranks);
        let check = |call: Collective, expected_ps: u64| {
            let elapsed_ps = time_ps(ranks, "ring", call, fidelity);
            let spare_ps = if fidelity == Fidelity::LogGp { 0 } else { 2 * n + expected_ps / 1_000_000_000 };
            assert!(
                (expected_ps..=expected_ps + spare_ps).contains(&elapsed_ps),
                "{call}, {ranks} ranks, {fidelity}: {elapsed_ps} ps, not {expected_ps}"
            );
        };
        for elements in [1, 1000, 123_457] {
            let step_ps = LATENCY_PS + block_ps(elements);
            let all_reduce = Collective::all_reduce(elements * n, DataType::F32, ReduceOp::Sum);
            check(all_reduce, 2 * (n - 1) * step_ps);
            check(Collective::all_gather(elements, DataType::F32), (n - 1) * step_ps);
        }
    }
}

/// n²/8 blocks pass every link, each way; (n² − 1)/8, if n is odd. Half way round, ranks take turns.
#[test]
fn all_to_all_is_bound_by_the_links_between_the_halves() {
    for ranks in [3_u32, 4, 5, 8, 9, 16, 33, 64] {
        let (n, elements) = (u64::from(ranks), 1_000_000);
        let call = Collective::all_to_all(elements, DataType::F32);
        let blocks = if n.is_multiple_of(2) { n * n / 8 } else { (n * n - 1) / 8 };
        let bytes_ps = serialised_ps(blocks * elements * 4, BYTES_PER_S);
        let shared_ps = time_ps(ranks, "pairwise", call, Fidelity::Fluid);
        let queued_ps = time_ps(ranks, "pairwise", call, Fidelity::LogGp);
        let travel_ps = LATENCY_PS + (n / 2 - 1) * HOP_PS;
        println!("{ranks} ranks: bound {bytes_ps} ps, shares {shared_ps} ps, queues {queued_ps} ps");
        for elapsed_ps in [shared_ps, queued_ps] {
            assert!(elapsed_ps >= LATENCY_PS + bytes_ps, "{ranks} ranks: {elapsed_ps} ps");
            assert!(elapsed_ps <= 2 * bytes_ps + n * travel_ps, "{ranks} ranks: {elapsed_ps} ps");
        }
    }
}
