//! Proves plans at the sizes of machines: compositions of 384 and 768 ranks in nodes of 8, of three levels and of uneven
//! ones, and at 8192 ranks everything that takes a logarithmic number of messages.
//!
//! At 8192 ranks form, hazards, matching and progress are proved in full. The contents of all ranks are 2^26 values, so
//! one part of them is followed to the end (`verify_part`), another one in each case.

#![allow(clippy::print_stdout, reason = "a proof says what it proved")]

mod cases;
mod queue;

use cases::{Case, Lengths, OPS, Pattern, Placement, variants};
use std::sync::Arc;
use std::time::Instant;
use ubccl_algorithms::composition::{Composition, families};
use ubccl_core::plan::Binding;
use ubccl_core::verify::{Part, Report, verify_part};
use ubccl_core::{Algorithm, Choice, DataType, Kind, Layout, Spec};

const LARGE: u32 = 8192;
/// Parts of the contents of 8192 ranks, of which a case follows one.
const PARTS: u64 = 64;

/// A case, and the part of its contents that is followed.
struct Job {
    case: Case,
    part: Part,
}

fn composed(text: &str, layout: &str, ranks: u32) -> &'static dyn Algorithm {
    let layout = Arc::new(Layout::parse(layout, ranks).unwrap());
    Box::leak(Box::new(Composition::parse(text, &layout).unwrap()))
}

/// A case for each kind that `algorithm` does, of one root, in place or not in turn.
fn cases_of(algorithm: &'static dyn Algorithm, ranks: u32, turn: usize) -> Vec<Case> {
    let kinds =
        Kind::TABLE.iter().map(|row| row.kind).filter(|&kind| algorithm.supports(kind, ranks).is_ok());
    let case = |(number, kind): (usize, Kind)| {
        let roots = variants(kind, ranks);
        Case {
            algorithm,
            kind,
            ranks,
            variant: roots[turn % roots.len()],
            operation: turn as u32 % OPS,
            count: if kind == Kind::Barrier { 0 } else { 4 * u64::from(ranks) + 3 },
            lengths: Lengths {
                // All but the last, whose lengths would be too many chunks.
                pattern: Pattern::ALL[turn % (Pattern::ALL.len() - 1)],
                placement: Placement::ALL[turn % Placement::ALL.len()],
                scale: 7,
                seed: turn as u64,
            },
            in_place: (turn + number).is_multiple_of(2),
            dtype: if kind == Kind::Group { DataType::U8 } else { DataType::F32 },
            // Families take turns by six.
            choice: Choice {
                lanes: 1 + ((turn + turn / 6) % 3) as u8,
                chunk_bytes: 1 << 17,
                ..Choice::default()
            },
        }
    };
    kinds.enumerate().map(case).collect()
}

fn prove_all(mut jobs: Vec<Job>) {
    let only = std::env::var("UBCCL_TEST_ALGO").unwrap_or_default();
    let name = |case: &Case| format!("{} {}", case.algorithm.descriptor().name, case.kind.name());
    jobs.retain(|job| name(&job.case).contains(&only));
    let results = queue::do_all(&jobs, |Job { case, part }| {
        let (start, calls) = (Instant::now(), case.calls());
        let proved = verify_part(&|rank| case.plan(rank), &|rank| calls.get(rank), case.ranks, *part);
        let (text, took) = (format!("{} of {}", name(case), case.ranks), start.elapsed().as_secs_f64());
        match proved {
            Ok(Report { depth, messages, .. }) => {
                println!("{text:<60} depth {depth:>5}, {messages:>9} messages, {took:>6.2} s");
                None
            }
            Err(violation) => Some(format!("{}: {violation}", case.text())),
        }
    });
    let failures: Vec<String> = results.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), jobs.len(), failures.join("\n"));
    assert!(!jobs.is_empty() || !only.is_empty(), "there is something to prove");
}

#[test]
fn every_pair_of_families_composes_on_real_machines() {
    let mut jobs = Vec::new();
    let pairs = || families().flat_map(|inner| families().map(move |outer| (inner, outer)));
    for (ranks, layout) in [(768, "node=8"), (384, "node=8"), (72, "node=8"), (16, "node=5+8+3")] {
        for (turn, (inner, outer)) in pairs().enumerate() {
            let algorithm = composed(&format!("node:{inner};all:{outer}"), layout, ranks);
            jobs.extend(cases_of(algorithm, ranks, turn + ranks as usize / 384));
        }
    }
    prove_all(jobs.into_iter().map(|case| Job { case, part: Part::ALL }).collect());
}

#[test]
fn every_family_stands_at_each_of_three_levels() {
    let names: Vec<_> = families().collect();
    let mut jobs = Vec::new();
    let machines =
        [(384, "die=2;node=16"), (72, "die=2;node=8"), (48, "die=2;node=16"), (16, "node=2+3+8+3;pod=5+11")];
    for (ranks, layout) in machines {
        let levels = Layout::parse(layout, ranks).unwrap();
        for turn in 0..names.len() * 2 {
            // Others above others: each family meets two of the rest at each level.
            let at = |level: usize| names[(turn + level * (1 + turn / names.len())) % names.len()];
            let tier = |(level, known): (usize, &ubccl_core::layout::LayoutLevel)| {
                format!("{}:{}", known.name(), at(level))
            };
            let text: Vec<_> = levels.levels().iter().enumerate().map(tier).collect();
            jobs.extend(cases_of(composed(&text.join(";"), layout, ranks), ranks, turn));
        }
    }
    prove_all(jobs.into_iter().map(|case| Job { case, part: Part::ALL }).collect());
}

/// Whether a rank's plan is logarithmic in the number of ranks: in messages, as its profile has them, and in steps.
fn is_logarithmic(case: &Case) -> bool {
    let Case { algorithm, kind, ranks, choice, in_place, .. } = *case;
    if kind.row().tabled {
        return false; // tables of all ranks are as many numbers as pairs
    }
    let calls = case.calls();
    let spec = Spec::new(&calls.get(0), ranks, 0, in_place, choice);
    let most = u64::from(16 * ranks.ilog2());
    let profile = algorithm.profile(&spec, &Layout::flat(ranks));
    let messages =
        profile.rounds.iter().flat_map(|round| round.traffic.iter().map(|part| round.times * part.messages));
    if messages.map(u64::from).sum::<u64>() > most {
        return false;
    }
    let (plan, mut binding) = (case.plan(0), Binding::default());
    binding.bind(&plan, &calls.get(0));
    (0..plan.lanes().len()).map(|lane| binding.total(lane)).sum::<u64>() <= most
}

#[test]
fn what_takes_logarithmically_many_messages_is_proved_of_8192_ranks() {
    let mut algorithms: Vec<_> = ubccl_algorithms::index().to_vec();
    let logarithmic = |family: &&str| {
        let whole = composed(&format!("all:{family}"), "", LARGE);
        cases_of(whole, LARGE, 0).iter().any(is_logarithmic)
    };
    // In nodes of 8 any family may be the inner one.
    for (inner, outer) in families().zip(families().filter(logarithmic).cycle()) {
        algorithms.push(composed(&format!("node:{inner};all:{outer}"), "node=8", LARGE));
    }
    let mut jobs = Vec::new();
    for (turn, &algorithm) in algorithms.iter().enumerate() {
        // Pairs of families take turns with the kinds.
        let is_turn = |number: usize| turn < ubccl_algorithms::index().len() || number % 3 == turn % 3;
        let cases = cases_of(algorithm, LARGE, turn).into_iter().enumerate();
        for (_, case) in cases.filter(|(number, case)| is_turn(*number) && is_logarithmic(case)) {
            let number = jobs.len() as u64 * 37 % PARTS;
            jobs.push(Job { case, part: Part { number, of: PARTS } });
        }
    }
    let names: std::collections::BTreeSet<_> =
        jobs.iter().map(|job| job.case.algorithm.descriptor().name).collect();
    for name in ["nhr", "nb", "halving-doubling", "binomial", "knomial-4"] {
        assert!(names.contains(name), "{name} is logarithmic: {names:?}");
    }
    prove_all(jobs);
}
