//! The verifier against faults: random mutants of real plans, and a program that runs them to tell which of them matter.

#![allow(clippy::print_stdout, reason = "the table is what the test is about")]

mod cases;

use cases::{Case, FIRST, Lengths, OPS, Pattern, Placement, variants};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use ubccl_core::plan::Plan;
use ubccl_core::verify::mutate::{Mutation, Random, mutate};
use ubccl_core::verify::schedule::{equivalent, stable};
use ubccl_core::verify::{Violation, verify, verify_calls};
use ubccl_core::{Algorithm, Choice, Collective, DataType, Kind, Rank, ReduceOp, Spec};

/// Mutants that matter, for each algorithm, collective and mutation, unless there are too few to find.
const WANTED: usize = 40;
/// Mutants that are tried at most for them.
const TRIES: usize = 200;
/// Of the mutants that matter, so many are to be refused.
const PERCENT: usize = 95;

/// Mutants of one kind, from one family.
#[derive(Clone, Copy, Default)]
struct Tally {
    /// Their behaviour differs from the original's.
    different: usize,
    /// Of these, refused by the verifier.
    refused: usize,
    /// Behaviour is the same in every schedule tried.
    same: usize,
    /// Of these, refused nevertheless: the verifier asks for more than the schedules could show.
    same_refused: usize,
}

fn random_case(algorithm: &'static dyn Algorithm, kind: Kind, random: &mut Random) -> Case {
    // Enough that a swap waits for a slot (8 exchanges), or a tree of radix 4 has leaves below leaves.
    let most = if matches!(algorithm.descriptor().name, "pairwise" | "knomial-4") { 11 } else { 6 };
    let ranks = 2 + random.below(most - 1) as u32;
    let most = match kind {
        Kind::AllReduce => 3 * ranks as usize,
        _ => 7,
    };
    let elements = [1, 2, 1 << 16][random.below(3)];
    Case {
        algorithm,
        kind,
        ranks,
        variant: *random.pick(&variants(kind, ranks)).expect("every kind has one"),
        operation: random.below(OPS as usize) as u32,
        // Nothing to move rarely shows a fault.
        count: if kind == Kind::Barrier || random.below(16) == 0 { 0 } else { 1 + random.below(most) as u64 },
        lengths: Lengths {
            pattern: match random.below(2) {
                0 => Pattern::Random,
                // All but the last, whose lengths no run goes through element by element.
                _ => Pattern::ALL[random.below(Pattern::ALL.len() - 1)],
            },
            placement: *random.pick(&Placement::ALL).expect("there are some"),
            scale: 3,
            seed: random.bits(),
        },
        in_place: random.below(2) == 0,
        dtype: DataType::U8,
        choice: Choice { lanes: 1 + random.below(2) as u8, chunk_bytes: elements, ..Choice::default() },
    }
}

fn tally(
    algorithm: &'static dyn Algorithm,
    kind: Kind,
    mutation: Mutation,
    seed: u64,
) -> (Tally, Vec<String>) {
    let (mut tally, mut missed, mut random) = (Tally::default(), Vec::new(), Random(seed));
    for _ in 0..TRIES {
        if tally.different == WANTED {
            break;
        }
        let case = random_case(algorithm, kind, &mut random);
        let calls = case.calls();
        let calls = |rank| calls.get(rank);
        let original: Vec<Plan> = (0..case.ranks).map(|rank| case.plan(rank)).collect();
        let rank = random.below(original.len()) as Rank;
        let Some(changed) = mutate(&original[rank as usize], mutation, &mut random) else { continue };
        let mut mutant = original.clone();
        mutant[rank as usize] = changed;
        let refused = verify_calls(&|rank| mutant[rank as usize].clone(), &calls, case.ranks).is_err();
        if equivalent(&original, &mutant, &calls, rank, &mut random) {
            tally.same += 1;
            tally.same_refused += usize::from(refused);
            continue;
        }
        tally.different += 1;
        tally.refused += usize::from(refused);
        if !refused {
            missed.push(format!("{} {mutation:?}:\n{}", case.text(), mutant[rank as usize]));
        }
    }
    (tally, missed)
}

#[test]
fn faults_that_matter_are_refused() {
    let seed: u64 = std::env::var("UBCCL_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("seed {seed} (UBCCL_TEST_SEED changes it)");
    let families = ubccl_algorithms::index().iter().flat_map(|&algorithm| {
        let kinds =
            Kind::TABLE.iter().map(|row| row.kind).filter(|&kind| algorithm.supports(kind, 4).is_ok());
        kinds.flat_map(move |kind| Mutation::ALL.map(|mutation| (algorithm, kind, mutation)))
    });
    let jobs: Vec<_> = families.collect();
    let (next, results) = (AtomicUsize::new(0), Mutex::new(vec![None; jobs.len()]));
    let work = || {
        loop {
            let job = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(algorithm, kind, mutation)) = jobs.get(job) else { break };
            let result =
                tally(algorithm, kind, mutation, seed.wrapping_mul(1 << 20).wrapping_add(job as u64));
            results.lock().unwrap()[job] = Some(result);
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    println!(
        "{:<14} {:<15} {:<17} {:>8} {:>8} {:>5} {:>13}",
        "algorithm", "collective", "mutation", "differ", "refused", "same", "same, refused"
    );
    let (mut faults, mut totals) = (Vec::new(), [0; Mutation::ALL.len()]);
    for (&(algorithm, kind, mutation), result) in jobs.iter().zip(results.into_inner().unwrap()) {
        let (Tally { different, refused, same, same_refused }, missed) = result.expect("every job was done");
        let (name, mutation_name) = (algorithm.descriptor().name, format!("{mutation:?}"));
        println!(
            "{name:<14} {:<15} {mutation_name:<17} {different:>8} {refused:>8} {same:>5} {same_refused:>13}",
            kind.name()
        );
        totals[mutation as usize] += different;
        if refused * 100 < different * PERCENT {
            faults.extend(missed);
        }
    }
    assert!(faults.is_empty(), "{} mutants that matter pass, the first:\n{}", faults.len(), faults[0]);
    assert!(totals.iter().all(|&total| total >= 2 * WANTED), "too few mutants that matter: {totals:?}");
}

#[test]
fn real_plans_behave_the_same_under_every_schedule() {
    let mut random = Random(2);
    for &algorithm in ubccl_algorithms::index() {
        for kind in Kind::TABLE.iter().map(|row| row.kind).filter(|&kind| algorithm.supports(kind, 4).is_ok())
        {
            for _ in 0..6 {
                let case = random_case(algorithm, kind, &mut random);
                let plans: Vec<Plan> = (0..case.ranks).map(|rank| case.plan(rank)).collect();
                let calls = case.calls();
                assert!(stable(&plans, &|rank| calls.get(rank), &mut random), "{}", case.text());
            }
        }
    }
}

/// `supports_op` is not taken at its word: made all the same, the plans of a refused operation are refused too.
#[test]
fn plans_that_an_operation_does_not_allow_are_refused() {
    let mut refusals = 0;
    for &algorithm in ubccl_algorithms::index() {
        for op in [ReduceOp::Avg, ReduceOp::User(&FIRST)] {
            if algorithm.supports_op(op).is_ok() {
                continue;
            }
            let calls = [
                Collective::all_reduce(9, DataType::F32, op),
                Collective::reduce_scatter(9, DataType::F32, op),
                Collective::reduce(9, DataType::F32, op, 1),
            ];
            for call in calls {
                // More ranks than any algorithm reduces at once, if it goes step by step.
                let ranks = 8;
                if algorithm.supports(call.kind(), ranks).is_err() {
                    continue;
                }
                let plan = |rank| algorithm.plan(&Spec::new(&call, ranks, rank, false, Choice::default()));
                let violation = verify(&plan, ranks, 9).expect_err("it was not supported");
                let is_right = match violation {
                    Violation::Nested { .. } => !op.nests(),
                    Violation::Malformed { .. } => !op.commutes(),
                    _ => false,
                };
                assert!(is_right, "{} {call}: {violation}", algorithm.descriptor().name);
                refusals += 1;
            }
        }
    }
    assert!(refusals >= 12, "the ring and two trees refuse two operations of two collectives each");
}
