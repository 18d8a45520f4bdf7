//! On a flat link the simulated times equal the textbook formulas: product plans, product executor. `loggp` to the
//! picosecond, `fluid` within a picosecond for each step and a part in 10⁹, since it rounds rates down.

mod recurrences;
mod rings;

use recurrences::{Walk, queued_ps, shared_ps};
use ubccl::sim::{Fidelity, Outcome, World, WorldConfig};
use ubccl::{Blocks, Collective, DataType, ReduceOp};

const LATENCY_PS: u64 = 2_100_000;
const BYTES_PER_S: u64 = 392_000_000_000;

fn serialisation_ps(bytes: u64) -> u64 {
    serialised_ps(bytes, BYTES_PER_S)
}

/// ⌈bytes · 10¹² / rate⌉.
fn serialised_ps(bytes: u64, bytes_per_s: u64) -> u64 {
    (u128::from(bytes) * 1_000_000_000_000).div_ceil(u128::from(bytes_per_s)) as u64
}

fn world(ranks: u32, algorithm: &str, latency_ps: u64, fidelity: Fidelity) -> World {
    let fabric = format!("custom:latency_ps={latency_ps},bytes_per_s={BYTES_PER_S}");
    world_on(fabric, ranks, algorithm, fidelity)
}

fn world_on(fabric: String, ranks: u32, algorithm: &str, fidelity: Fidelity) -> World {
    World::new(WorldConfig {
        fabric,
        ranks,
        algorithm: Some(algorithm.into()),
        lanes: 1,
        chunk_bytes: Some(u32::MAX),
        fidelity,
        ..WorldConfig::default()
    })
    .expect("a world")
}

fn run(ranks: u32, algorithm: &str, call: Collective, latency_ps: u64) -> Outcome {
    let mut world = world(ranks, algorithm, latency_ps, Fidelity::LogGp);
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

/// ⌈log2 p⌉.
fn log(p: u64) -> u64 {
    u64::from(p.next_power_of_two().ilog2())
}

/// ⌈log2 (2p/3)⌉: of ⌈log2 p⌉ messages in a row the last may need nothing that the one before brought.
fn chain(p: u64) -> u64 {
    (0..).find(|&steps| 3 << steps >= 2 * p).expect("some power of two is enough")
}

/// Of a collective over `p` ranks in blocks: steps one after the other, and blocks through the busiest port.
fn form(algorithm: &str, is_all_reduce: bool, p: u64) -> (u64, u64) {
    let twice = if is_all_reduce { 2 } else { 1 };
    // Of NHR's all-reduce, if blocks of the first half's end are there before the second begins.
    let saved = u64::from(
        algorithm == "nhr" && is_all_reduce && {
            let power = 1 << p.ilog2();
            2 * p > 3 * power && 4 * p <= 7 * power
        },
    );
    match algorithm {
        "ring" => (twice * (p - 1), twice * (p - 1)),
        "mesh-two-shot" | "mesh-one-shot" => (twice, twice * (p - 1)),
        "halving-doubling" => (twice * log(p), twice * (p - 1)),
        _ => (twice * chain(p) - saved, twice * (p - 1)),
    }
}

/// A block of so many f32 takes whole picoseconds at 392 GB/s, so that it does not matter how a step cuts its blocks.
const WHOLE_BLOCK: u64 = 49;

#[test]
fn families_take_their_closed_forms_in_both_fidelities() {
    let block_ps = serialisation_ps(WHOLE_BLOCK * 4);
    assert_eq!(block_ps * BYTES_PER_S, WHOLE_BLOCK * 4 * 1_000_000_000_000);
    for ranks in (2..=64).chain([127, 384, 768]) {
        let p = u64::from(ranks);
        let all_reduce = Collective::all_reduce(WHOLE_BLOCK * p, DataType::F32, ReduceOp::Sum);
        let all_gather = Collective::all_gather(WHOLE_BLOCK, DataType::F32);
        for (algorithm, call) in [
            ("ring", all_reduce),
            ("mesh-two-shot", all_reduce),
            ("mesh-one-shot", all_gather),
            ("halving-doubling", all_reduce),
            ("halving-doubling", all_gather),
            ("nhr", all_reduce),
            ("nhr", all_gather),
            ("nb", all_reduce),
            ("nb", all_gather),
        ] {
            let has_fold = algorithm == "halving-doubling" && !p.is_power_of_two();
            // Whose form for more ranks is no sum: what a rank waits for depends on how its messages queue, see below.
            let is_open = matches!(algorithm, "nhr" | "nb") && p > 64;
            if has_fold || is_open {
                continue; // folding is another form, below
            }
            let (steps, blocks) = form(algorithm, call == all_reduce, p);
            let expected_ps = steps * LATENCY_PS + blocks * block_ps;
            // In NHR and NB blocks of two steps may be under way at once, unless each step is one message, so that their
            // times are no sums: each step takes its latency and a block at least, and all together at most a block more
            // for each step. Queues serve the first step's first, shares both (both below, exactly).
            let is_whole = algorithm == "nhr" && call == all_reduce && p.is_power_of_two();
            let overlaps = matches!(algorithm, "nhr" | "nb") && !is_whole;
            for fidelity in Fidelity::ALL {
                let mut world = world(ranks, algorithm, LATENCY_PS, fidelity);
                let outcome = world.run_phantom(&|_| call, false).expect("it runs");
                assert_eq!(outcome.wrong, 0);
                let queued_ps = if overlaps { steps * block_ps } else { 0 };
                let hidden_ps = if overlaps { (blocks - steps) * block_ps } else { 0 };
                let shared_ps = if overlaps { blocks * block_ps } else { 0 };
                let (below_ps, above_ps) = match fidelity {
                    Fidelity::LogGp => (hidden_ps, queued_ps),
                    _ => {
                        let rounding_ps = steps + expected_ps / 1_000_000_000;
                        (rounding_ps + hidden_ps, rounding_ps + queued_ps + shared_ps)
                    }
                };
                assert!(
                    outcome.elapsed_ps + below_ps >= expected_ps
                        && outcome.elapsed_ps <= expected_ps + above_ps,
                    "{algorithm}, {call}, {ranks} ranks, {fidelity}: {} ps, not {expected_ps}",
                    outcome.elapsed_ps
                );
            }
        }
    }
}

#[test]
fn halving_with_a_fold_equals_its_closed_form() {
    for ranks in (2_u32..=64).chain([127, 384, 768]).filter(|ranks| !ranks.is_power_of_two()) {
        let power = 1_u64 << ranks.ilog2();
        let call = Collective::all_reduce(WHOLE_BLOCK * power, DataType::F32, ReduceOp::Sum);
        let steps = 2 * log(power) + 2;
        let blocks = 2 * (power - 1) + 2 * power;
        let expected_ps = steps * LATENCY_PS + blocks * serialisation_ps(WHOLE_BLOCK * 4);
        let mut world = world(ranks, "halving-doubling", LATENCY_PS, Fidelity::LogGp);
        let elapsed_ps = world.run_phantom(&|_| call, false).expect("it runs").elapsed_ps;
        assert_eq!(elapsed_ps, expected_ps, "{ranks} ranks");
    }
}

/// Holds NHR, NB, and halving with its fold to a recurrence, with so many ps to spare for each step, and such a share.
fn check_recurrence(fidelity: Fidelity, recurrence_ps: fn(&Walk) -> f64, (step_ps, share): (f64, f64)) {
    let mut off = Vec::new();
    for ranks in (2_u32..=64).chain([127, 384, 768]) {
        let all_reduce =
            |blocks: u64| Collective::all_reduce(WHOLE_BLOCK * blocks, DataType::F32, ReduceOp::Sum);
        let all_gather = Collective::all_gather(WHOLE_BLOCK, DataType::F32);
        for (algorithm, call) in [
            ("nhr", all_reduce(u64::from(ranks))),
            ("nhr", all_gather),
            ("nb", all_reduce(u64::from(ranks))),
            ("nb", all_gather),
            ("halving-doubling", all_reduce(1 << ranks.ilog2())),
        ] {
            let mut world = world(ranks, algorithm, LATENCY_PS, fidelity);
            // How many steps a plan has under way is the plan's own affair.
            let window = world.plan(0, &call, false).expect("a plan").lanes()[0].window;
            let block_ps = serialisation_ps(WHOLE_BLOCK * 4);
            let is_all_reduce = call != all_gather;
            let walk = Walk { algorithm, is_all_reduce, ranks: ranks as usize, block_ps, window };
            let expected_ps = recurrence_ps(&walk);
            let elapsed_ps = world.run_phantom(&|_| call, false).expect("it runs").elapsed_ps;
            let spare_ps = step_ps * walk.steps() as f64 + share * expected_ps;
            if (elapsed_ps as f64 - expected_ps).abs() > spare_ps {
                off.push(format!("{algorithm}, {call}, {ranks} ranks: {elapsed_ps} ps, not {expected_ps}"));
            }
        }
    }
    assert!(off.is_empty(), "{}", off.join("\n"));
}

#[test]
fn steps_that_overlap_equal_an_independent_max_plus_recurrence() {
    check_recurrence(Fidelity::LogGp, |walk| queued_ps(walk) as f64, (0.0, 0.0));
}

#[test]
fn steps_that_overlap_as_fluids_equal_an_independent_max_min_fair_recurrence() {
    check_recurrence(Fidelity::Fluid, shared_ps, (1.0, 1e-9));
}

/// Elements from each rank to each, drawn from a seed; a few pairs have many, most few.
fn skewed(ranks: usize, seed: u64) -> Vec<Vec<u64>> {
    let mut random = seed;
    let mut draw = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        100_000 / (1 + (random >> 33) % 1000)
    };
    (0..ranks).map(|_| (0..ranks).map(|_| draw()).collect()).collect()
}

/// In which order a rank sends to all others: of an even count, even ranks upwards, first to all even ones, then to all odd
/// ones; odd ranks likewise downwards.
fn order(rank: usize, ranks: usize) -> Vec<usize> {
    let on_circle = |steps: usize| match rank % 2 {
        0 => (rank + steps) % ranks,
        _ => (rank + ranks - steps) % ranks,
    };
    match ranks % 2 {
        0 => (2..ranks).step_by(2).chain((1..ranks).step_by(2)).map(on_circle).collect(),
        _ => (1..ranks).map(|steps| (rank + steps) % ranks).collect(),
    }
}

/// The times of ports that serve messages one by one: those of a rank leave in its order, reach their receiver a latency
/// after they begin, and are taken there in the order they reach it.
fn max_plus_ps(lengths: &[Vec<u64>]) -> u64 {
    let ranks = lengths.len();
    let mut heads: Vec<Vec<(u64, usize, u64)>> = vec![Vec::new(); ranks];
    for (from, row) in lengths.iter().enumerate() {
        let mut free_ps = 0;
        for to in order(from, ranks) {
            let takes_ps = serialisation_ps(row[to] * 4);
            heads[to].push((free_ps + LATENCY_PS, from, takes_ps));
            free_ps += takes_ps;
        }
    }
    let end_ps = |heads: &mut Vec<(u64, usize, u64)>| {
        heads.sort_unstable();
        heads.iter().fold(0, |free_ps, &(head_ps, _, takes_ps)| head_ps.max(free_ps) + takes_ps)
    };
    heads.iter_mut().map(end_ps).max().unwrap_or(0)
}

#[test]
fn skewed_pairwise_equals_an_independent_max_plus_recurrence() {
    for (ranks, seed) in [(2_u32, 1), (3, 2), (7, 3), (16, 4), (31, 5), (32, 6)] {
        let lengths = skewed(ranks as usize, seed);
        let columns: Vec<Vec<u64>> =
            (0..ranks as usize).map(|to| lengths.iter().map(|row| row[to]).collect()).collect();
        let run = |fidelity| {
            let mut world = world(ranks, "pairwise", LATENCY_PS, fidelity);
            let calls = |rank: u32| {
                let rank = rank as usize;
                Collective::all_to_all_v(
                    DataType::F32,
                    Blocks::packed(&lengths[rank]),
                    Blocks::packed(&columns[rank]),
                )
            };
            let outcome = world.run_phantom(&calls, false).expect("it runs");
            assert_eq!(outcome.wrong, 0, "{ranks} ranks, seed {seed}");
            outcome.elapsed_ps
        };
        let expected_ps = max_plus_ps(&lengths);
        assert_eq!(run(Fidelity::LogGp), expected_ps, "{ranks} ranks, seed {seed}");
        // Shared fairly, no port idles that could work, but nobody is ahead of the busiest port either.
        let sum = |list: &[u64]| list.iter().sum::<u64>();
        let without_own = |rank: usize, list: &[u64]| (sum(list) - list[rank]) * 4;
        let busiest = (0..ranks as usize)
            .map(|rank| without_own(rank, &lengths[rank]).max(without_own(rank, &columns[rank])))
            .max();
        let bound_ps = LATENCY_PS + serialisation_ps(busiest.unwrap_or(0));
        let fluid_ps = run(Fidelity::Fluid);
        println!(
            "{ranks} ranks, seed {seed}: queues {expected_ps} ps, shares {fluid_ps} ps, bound {bound_ps} ps"
        );
        assert!(fluid_ps >= bound_ps && fluid_ps <= 2 * bound_ps, "{fluid_ps} ps, at least {bound_ps}");
    }
}
