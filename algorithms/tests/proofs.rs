//! Proves every plan of every algorithm: the verifier accepts each for all rank counts, roots, counts, in place and out
//! of place, with chunk loops that turn once, a few times, as often as the window is wide, and once more.

#![allow(clippy::print_stdout, reason = "a proof says what it proved")]

mod cases;
mod queue;

use cases::{Case, Lengths, OPS, Pattern, Placement, variants};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use ubccl_core::verify::{Report, Violation, verify_calls};
use ubccl_core::{Algorithm, Choice, DataType, Kind};

/// The window of every lane that loops over chunks: such loops are also tried with this many turns and one more.
const WINDOW: u64 = 64;

/// How a call is chunked.
#[derive(Clone, Copy)]
enum Chunk {
    /// Everything at once.
    Whole,
    /// What a chunk loop covers in two turns (three if it is odd).
    Half,
    /// So many elements at once.
    Elements(u64),
}

/// Lanes and chunks to try; all of them up to 9 ranks and about two powers of two. (Chunks of an element would be 10^8
/// steps at 384 ranks.)
fn choices(ranks: u32) -> &'static [(u8, Chunk)] {
    use Chunk::{Elements, Half, Whole};
    const ALL: &[(u8, Chunk)] =
        &[(1, Whole), (2, Whole), (2, Half), (1, Elements(1)), (2, Elements(1)), (2, Elements(2))];
    match ranks {
        0..=9 | 16 | 17 | 33 => ALL,
        10..=127 => &ALL[..3],
        _ => &ALL[..1],
    }
}

/// Cases of every algorithm; `UBCCL_TEST_ALGO` keeps those whose algorithm's or collective's name holds it.
fn all_cases() -> Vec<Case> {
    let only = std::env::var("UBCCL_TEST_ALGO").unwrap_or_default();
    let mut cases = Vec::new();
    for &algorithm in ubccl_algorithms::index() {
        for row in Kind::TABLE {
            for ranks in (1..=33).chain([48, 64, 72, 127, 384, 768]) {
                let names = format!("{} {}", algorithm.descriptor().name, row.name);
                if algorithm.supports(row.kind, ranks).is_err() || !names.contains(&only) {
                    continue;
                }
                match row.tabled {
                    true => add_tabled_cases(&mut cases, algorithm, row.kind, ranks),
                    false => add_cases(&mut cases, algorithm, row.kind, ranks),
                }
            }
        }
    }
    cases
}

fn add_cases(cases: &mut Vec<Case>, algorithm: &'static dyn Algorithm, kind: Kind, ranks: u32) {
    let n = u64::from(ranks);
    let dtypes = [DataType::F32, DataType::BF16, DataType::I32, DataType::U8];
    let per_turn = match algorithm.descriptor().name {
        "ring" if kind == Kind::AllReduce => n,
        "ring-both" if kind == Kind::AllReduce => 2 * n,
        "ring-both" | "double-tree" => 2,
        "scatter-ring" => n,
        _ => 1,
    };
    let mut add = |variant, count: u64, (lanes, chunk): (u8, Chunk)| {
        let elements = match chunk {
            Chunk::Whole => 1 << 20,
            Chunk::Half => (count / per_turn / 2 / u64::from(lanes)).max(1),
            Chunk::Elements(elements) => elements,
        };
        for in_place in [false, true] {
            // Operations take turns: each is proved of many plans, none of all.
            let operation = cases.len() as u32 / 2 % OPS;
            let dtype = dtypes[cases.len() % dtypes.len()];
            let choice =
                Choice { lanes, chunk_bytes: elements as u32 * dtype.size() as u32, ..Choice::default() };
            let lengths = NO_TABLES;
            cases.push(Case {
                algorithm,
                kind,
                ranks,
                variant,
                operation,
                count,
                lengths,
                in_place,
                dtype,
                choice,
            });
        }
    };
    let counts = match ranks {
        _ if kind == Kind::Barrier => vec![0],
        0..=384 => vec![0, n - 1, 4 * n + 3],
        _ => vec![4 * n + 3],
    };
    // At the largest size, one root in the middle.
    let is_wanted = |root: &u32| ranks <= 384 || !kind.row().rooted || *root == ranks / 2;
    for variant in variants(kind, ranks).into_iter().filter(is_wanted) {
        for &count in &counts {
            choices(ranks).iter().for_each(|&choice| add(variant, count, choice));
        }
    }
    if ranks <= 9 {
        // Chunk loops of exactly the window's width, and one turn more, in every lane.
        for (turns, lanes) in [(WINDOW, 1), (WINDOW + 1, 1), (WINDOW, 2), (WINDOW + 1, 2)] {
            let root = variants(kind, ranks).pop().expect("there is one");
            add(root, turns * per_turn * u64::from(lanes), (lanes, Chunk::Elements(1)));
        }
    }
    if ranks == 384 {
        // More lanes at size; the other large counts keep to one.
        add(variants(kind, ranks)[0], 4 * n + 3, (2, Chunk::Half));
    }
}

/// Tables with every pattern and placement up to 17 ranks, above in turn. Lanes and chunks take turns: what is particular
/// about them does not depend on how long a block is.
fn add_tabled_cases(cases: &mut Vec<Case>, algorithm: &'static dyn Algorithm, kind: Kind, ranks: u32) {
    let mut add = |number: usize, variant, pattern, placement| {
        // A pipeline of chunks of 2^47 elements would have too many.
        let is_chunked = algorithm.descriptor().name == "ring";
        if pattern == Pattern::Huge && is_chunked {
            return;
        }
        let scale = [7, 40, u64::from(ranks)][number % 3];
        let (lanes, elements) = [(1, 1 << 20), (2, 5), (2, 1 << 20), (1, 1)][number % 4];
        for in_place in [false, true] {
            let dtype = [DataType::U8, DataType::F32, DataType::BF16][cases.len() % 3];
            // Messages of groups are counted in bytes.
            let dtype = if kind == Kind::Group { DataType::U8 } else { dtype };
            let choice = Choice { lanes, chunk_bytes: elements * dtype.size() as u32, ..Choice::default() };
            let lengths = Lengths { pattern, placement, scale, seed: cases.len() as u64 };
            let operation = cases.len() as u32 / 2 % OPS;
            cases.push(Case {
                algorithm,
                kind,
                ranks,
                variant,
                operation,
                count: 0,
                lengths,
                in_place,
                dtype,
                choice,
            });
        }
    };
    let patterns = match ranks {
        0..=33 => &Pattern::ALL[..],
        34..=127 if kind == Kind::Group => &Pattern::ALL[..],
        34..=127 => &Pattern::ALL[..2],
        _ => &Pattern::ALL[..1],
    };
    for (which, variant) in variants(kind, ranks).into_iter().enumerate() {
        for (row, &pattern) in patterns.iter().enumerate() {
            for (column, &placement) in Placement::ALL.iter().enumerate() {
                let number = ranks as usize + which + row + column;
                if ranks <= 17 || number.is_multiple_of(Placement::ALL.len()) {
                    add(number, variant, pattern, placement);
                }
            }
        }
    }
}

/// For kinds without tables.
const NO_TABLES: Lengths =
    Lengths { pattern: Pattern::Nothing, placement: Placement::Packed, scale: 0, seed: 0 };

/// Roughly how long a case takes, for the order of work.
fn weight(case: &Case) -> u64 {
    u64::from(case.ranks).pow(2) * (1 + u64::from(case.count > 0))
}

fn prove(case: &Case) -> Result<Report, Violation> {
    let calls = case.calls();
    verify_calls(&|rank| case.plan(rank), &|rank| calls.get(rank), case.ranks)
}

/// What was proved of one algorithm and kind.
#[derive(Default)]
struct Row {
    cases: u64,
    steps: u64,
    messages: u64,
    took: Duration,
}

#[test]
fn the_verifier_accepts_every_plan() {
    let mut cases = all_cases();
    cases.sort_by_key(|case| std::cmp::Reverse(weight(case)));
    let results = queue::do_all(&cases, |case| {
        let start = Instant::now();
        (prove(case), start.elapsed())
    });
    let (mut rows, mut failures) = (BTreeMap::new(), Vec::new());
    for (case, (proved, took)) in cases.iter().zip(results) {
        match proved {
            Ok(report) => {
                let row: &mut Row =
                    rows.entry((case.algorithm.descriptor().name, case.kind.name())).or_default();
                row.cases += 1;
                row.steps += report.steps;
                row.messages += report.messages;
                row.took += took;
            }
            Err(violation) => failures.push(format!("{}: {violation}", case.text())),
        }
    }
    println!(
        "{:<14} {:<15} {:>6} {:>12} {:>12} {:>9}",
        "algorithm", "collective", "plans", "steps", "messages", "s"
    );
    for ((algorithm, kind), row) in rows {
        let Row { cases, steps, messages, took } = row;
        println!(
            "{algorithm:<14} {kind:<15} {cases:>6} {steps:>12} {messages:>12} {:>9.1}",
            took.as_secs_f64()
        );
    }
    let first: Vec<_> = failures.iter().take(20).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} of {} are refused:\n{}", failures.len(), cases.len(), first.join("\n"));
}

/// Digits of `number` to this base that are not 0: how far it is from a tree's root.
fn digits(mut number: u32, base: u32) -> u32 {
    let mut digits = 0;
    while number > 0 {
        digits += u32::from(!number.is_multiple_of(base));
        number /= base;
    }
    digits
}

#[test]
fn depth_and_messages_are_the_textbooks() {
    let report = |name: &str, kind, ranks: u32| {
        let count = u64::from(ranks);
        let case = Case {
            algorithm: ubccl_algorithms::find(name).unwrap(),
            kind,
            ranks,
            variant: 0,
            operation: 0,
            count,
            lengths: Lengths { pattern: Pattern::Equal, placement: Placement::Packed, scale: count, seed: 0 },
            in_place: false,
            dtype: DataType::F32,
            choice: Choice::default(),
        };
        let Report { messages, elements, depth, .. } = prove(&case).unwrap();
        (depth, messages, elements)
    };
    for n in [2_u32, 5, 8, 17] {
        let all = u64::from(n);
        let (others, pairs) = (all - 1, all * (all - 1));
        assert_eq!(report("ring", Kind::AllReduce, n), (2 * (n - 1), 2 * pairs, 2 * pairs));
        assert_eq!(report("ring", Kind::ReduceScatter, n), (n - 1, pairs, pairs * all));
        assert_eq!(report("ring", Kind::ReduceScatterV, n), (n - 1, pairs, pairs * all));
        assert_eq!(report("ring", Kind::AllGatherV, n), (n - 1, pairs, pairs * all));
        assert_eq!(report("ring", Kind::Broadcast, n), (n - 1, others, others * all));
        assert_eq!(report("mesh-one-shot", Kind::AllReduce, n), (1, pairs, pairs * all));
        assert_eq!(report("mesh-one-shot", Kind::AllGatherV, n), (1, pairs, pairs * all));
        assert_eq!(report("mesh-one-shot", Kind::Barrier, n), (1, pairs, 0));
        assert_eq!(report("mesh-two-shot", Kind::AllReduce, n), (2, 2 * pairs, 2 * pairs));
        assert_eq!(report("mesh-two-shot", Kind::Reduce, n), (2, pairs + others, pairs + others));
        for kind in [Kind::Gather, Kind::GatherV, Kind::Scatter, Kind::ScatterV, Kind::Reduce] {
            assert_eq!(report("linear", kind, n), (1, others, others * all));
        }
        for kind in [Kind::AllToAll, Kind::AllToAllV] {
            assert_eq!(report("pairwise", kind, n), (1, pairs, pairs * all));
        }
        for (name, radix) in [("binomial", 2), ("knomial-4", 4)] {
            // Nobody is farther from the root than the tree is deep; every block travels as far as its rank is.
            let depth = (0..n).map(|place| digits(place, radix)).max().unwrap();
            let travelled: u32 = (0..n).map(|place| digits(place, radix)).sum();
            assert_eq!(report(name, Kind::Broadcast, n), (depth, others, others * all));
            assert_eq!(report(name, Kind::Reduce, n), (depth, others, others * all));
            assert_eq!(report(name, Kind::AllReduce, n), (2 * depth, 2 * others, 2 * others * all));
            for kind in [Kind::Gather, Kind::Scatter] {
                assert_eq!(report(name, kind, n), (depth, others, u64::from(travelled) * all));
            }
            let rounds = (0..n).find(|&rounds| radix.pow(rounds) >= n).unwrap();
            let (reached, messages, none) = report(name, Kind::Barrier, n);
            assert_eq!((reached, none), (rounds, 0));
            assert!(messages <= all * u64::from(rounds * (radix - 1)));
        }
    }
}

#[test]
fn groups_end_in_any_window() {
    // Whatever its windows: every message of a group waits only for such as come before it in one order of all.
    for (pattern, ranks, seed) in (0..60).map(|k| (Pattern::ALL[k % 8], [3, 8, 17][k % 3], k as u64)) {
        let lengths = Lengths { pattern, placement: Placement::Scattered, scale: 9, seed };
        let case = Case {
            algorithm: ubccl_algorithms::find("pairwise").unwrap(),
            kind: Kind::Group,
            ranks,
            variant: 0,
            operation: 0,
            count: 0,
            lengths,
            in_place: false,
            dtype: DataType::U8,
            choice: Choice::default(),
        };
        let calls = case.calls();
        for window in [1, 2, 7] {
            let narrow = |rank| case.plan(rank).with_windows(window);
            let proved = verify_calls(&narrow, &|rank| calls.get(rank), ranks);
            assert!(proved.is_ok(), "{} with windows of {window}: {}", case.text(), proved.err().unwrap());
        }
    }
}

#[test]
fn plans_stay_small_whatever_the_number_of_ranks() {
    let kinds = || Kind::TABLE.iter().map(|row| row.kind);
    let families =
        || ubccl_algorithms::index().iter().flat_map(|&algorithm| kinds().map(move |k| (algorithm, k)));
    for ranks in [1, 2, 4096, 8191, 8192] {
        for (algorithm, kind) in families().filter(|(algorithm, k)| algorithm.supports(*k, ranks).is_ok()) {
            for (in_place, rank) in [(false, 0), (true, ranks / 2), (false, ranks - 1)] {
                let case = Case {
                    algorithm,
                    kind,
                    ranks,
                    variant: ranks / 3,
                    operation: 0,
                    count: 3,
                    lengths: NO_TABLES,
                    in_place,
                    dtype: DataType::F32,
                    choice: Choice { lanes: 8, chunk_bytes: 64, ..Choice::default() },
                };
                let plan = case.plan(rank);
                let loops = plan.lanes().iter().flat_map(|lane| &lane.loops);
                let steps: usize = loops.map(|turn| turn.steps.len()).sum();
                // In each lane, a tree names its 13 levels, and a windowed mesh four sums of up to six messages.
                assert!(steps <= 8 * 32, "{steps} steps for rank {rank}: {}", case.text());
                assert_eq!(plan, case.plan(rank), "the same spec, the same plan");
            }
        }
    }
}
