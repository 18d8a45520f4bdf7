//! On a flat link the simulated times equal the textbook formulas to the picosecond: product plans, product executor.

use ubccl::sim::{Outcome, World, WorldConfig};
use ubccl::{Collective, DataType, ReduceOp};

const LATENCY_PS: u64 = 2_100_000;
const BYTES_PER_S: u64 = 392_000_000_000;

/// ⌈bytes · 10¹² / rate⌉.
fn serialisation_ps(bytes: u64) -> u64 {
    (u128::from(bytes) * 1_000_000_000_000).div_ceil(u128::from(BYTES_PER_S)) as u64
}

fn run(ranks: u32, algorithm: &str, call: Collective, latency_ps: u64) -> Outcome {
    let mut world = World::new(WorldConfig {
        fabric: format!("custom:latency_ps={latency_ps},bytes_per_s={BYTES_PER_S}"),
        ranks,
        algorithm: Some(algorithm.into()),
        lanes: 1,
        chunk_bytes: Some(u32::MAX),
        ..WorldConfig::default()
    })
    .expect("a world");
    let apart = world.run_phantom(&|_| call, false).expect("it runs");
    let joint = world.run_phantom(&|_| call, true).expect("it runs");
    assert_eq!((apart.wrong, joint.wrong), (0, 0));
    assert_eq!(apart.elapsed_ps, joint.elapsed_ps, "local copies are free on a custom link");
    apart
}

fn time_ps(ranks: u32, algorithm: &str, call: Collective) -> u64 {
    run(ranks, algorithm, call, LATENCY_PS).elapsed_ps
}

/// Rank counts, and a count of f32 that divides among them and whose serialisation is no whole number of ps.
fn sizes() -> impl Iterator<Item = (u32, u64)> {
    [2_u32, 3, 5, 7, 8, 12, 16, 48, 127, 384]
        .into_iter()
        .flat_map(|n| [1_u64, 11, 1007].into_iter().map(move |per_rank| (n, per_rank * u64::from(n))))
}

#[test]
fn ring_and_mesh_all_reduce_equal_their_closed_forms() {
    for (ranks, count) in sizes() {
        let call = Collective::all_reduce(count, DataType::F32, ReduceOp::Sum);
        let (n, bytes) = (u64::from(ranks), count * 4);
        let block = serialisation_ps(bytes / n);
        assert_eq!(time_ps(ranks, "ring", call), 2 * (n - 1) * (LATENCY_PS + block), "ring, {n} ranks");
        let one_shot = LATENCY_PS + (n - 1) * serialisation_ps(bytes);
        assert_eq!(time_ps(ranks, "mesh-one-shot", call), one_shot, "one shot, {n} ranks");
        let two_shot = 2 * (LATENCY_PS + (n - 1) * block);
        assert_eq!(time_ps(ranks, "mesh-two-shot", call), two_shot, "two shots, {n} ranks");
    }
}

#[test]
fn gathers_scatters_broadcasts_and_barriers_equal_their_closed_forms() {
    for (ranks, count) in sizes() {
        let (n, bytes) = (u64::from(ranks), count * 4);
        let block = serialisation_ps(bytes / n);
        let gather = Collective::all_gather(count / n, DataType::F32);
        let scatter = Collective::reduce_scatter(count / n, DataType::F32, ReduceOp::Max);
        for call in [gather, scatter] {
            assert_eq!(time_ps(ranks, "ring", call), (n - 1) * (LATENCY_PS + block), "{call}, ring of {n}");
            let mesh = LATENCY_PS + (n - 1) * block;
            assert_eq!(time_ps(ranks, "mesh-one-shot", call), mesh, "{call}, mesh of {n}");
        }
        let broadcast = Collective::broadcast(count, DataType::F32, ranks / 2);
        let chain = (n - 1) * (LATENCY_PS + serialisation_ps(bytes));
        assert_eq!(time_ps(ranks, "ring", broadcast), chain, "{broadcast}, chain of {n}");
        let star = LATENCY_PS + (n - 1) * serialisation_ps(bytes);
        assert_eq!(time_ps(ranks, "mesh-one-shot", broadcast), star, "{broadcast}, star of {n}");
        assert_eq!(time_ps(ranks, "mesh-one-shot", Collective::barrier()), LATENCY_PS);
        assert_eq!(time_ps(ranks, "ring", Collective::barrier()), (n - 1) * LATENCY_PS);
    }
}

#[test]
fn the_event_hash_repeats_and_tells_one_picosecond() {
    let call = Collective::all_reduce(4800, DataType::BF16, ReduceOp::Sum);
    let hash = |latency| run(48, "ring", call, latency).stats.hash;
    assert_eq!(hash(LATENCY_PS), hash(LATENCY_PS));
    assert_ne!(hash(LATENCY_PS), hash(LATENCY_PS + 1));
    assert_ne!(hash(LATENCY_PS), run(48, "mesh-two-shot", call, LATENCY_PS).stats.hash);
}
