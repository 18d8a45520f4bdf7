//! Steps and bytes, counted from plans by the verifier, are the closed forms of each algorithm's file. The forms are
//! written out here once more, so that neither plans nor profiles are asked what they should be.

mod cases;
mod queue;

use cases::{Case, Lengths, Pattern, Placement, variants};
use std::sync::Arc;
use ubccl_algorithms::composition::Composition;
use ubccl_core::verify::verify_calls;
use ubccl_core::{Algorithm, Choice, DataType, Kind, Layout};

/// From as many to as many.
type Steps = std::ops::RangeInclusive<u32>;

/// Steps one after the other, and elements of the busiest rank's port, the busier way, for a vector or blocks of `n`
/// elements in all.
type Form = (u32, u64);

/// ⌈log_k p⌉.
fn log(radix: u64, p: u64) -> u32 {
    (0..).find(|&steps| radix.pow(steps) >= p).unwrap()
}

/// ⌈log2 (2p/3)⌉: messages of ⌈log2 p⌉ that hang on each other where the last carries so few blocks that they were there
/// before the one before.
fn chain(p: u64) -> u32 {
    (0..).find(|&steps| 3 << steps >= 2 * p).unwrap()
}

/// Neighbours of a k-nomial tree's root.
fn root_children(radix: u64, p: u64) -> u64 {
    (0..log(radix, p))
        .map(|level| (1..radix).filter(|digit| digit * radix.pow(level) < p).count() as u64)
        .sum()
}

/// How many hops the farthest of p places is from the root: digits that are not 0.
fn farthest(radix: u64, p: u64) -> u32 {
    let digits = |place: u64| {
        (0..64)
            .map_while(|level| radix.checked_pow(level))
            .filter(move |unit| !(place / unit).is_multiple_of(radix))
    };
    (0..p).map(|place| digits(place).count() as u32).max().unwrap()
}

/// The parent in the first of two trees over m places.
fn parent(place: u64, m: u64) -> Option<u64> {
    let low = place & place.wrapping_neg();
    let up = place - low + 2 * low;
    (place > 0).then(|| if (place - low) & (2 * low) == 0 && up < m { up } else { place - low })
}

/// Parents in both trees.
fn parents(m: u64) -> [Vec<Option<u64>>; 2] {
    let first: Vec<_> = (0..m).map(|place| parent(place, m)).collect();
    let second = |place: u64| match m % 2 {
        0 => parent(m - 1 - place, m).map(|above| m - 1 - above),
        _ => parent((place + m - 1) % m, m).map(|above| (above + 1) % m),
    };
    [first, (0..m).map(second).collect()]
}

fn height(m: u64) -> u32 {
    let of = |place: u64| std::iter::successors(Some(place), |&below| parent(below, m)).count() as u32 - 1;
    (0..m).map(of).max().unwrap_or(0)
}

/// Halves of the vector that the busiest place of two trees sends up and down, or up alone.
fn tree_halves(m: u64, is_both_ways: bool) -> u64 {
    let trees = parents(m);
    let children =
        |tree: &[Option<u64>], place| tree.iter().filter(|above| **above == Some(place)).count() as u64;
    let of = |place: u64| {
        let up: u64 = trees.iter().map(|tree| u64::from(tree[place as usize].is_some())).sum();
        let down: u64 = trees.iter().map(|tree| children(tree, place)).sum();
        if is_both_ways { up + down } else { down.max(up) }
    };
    (0..m).map(of).max().unwrap_or(0)
}

fn double_tree(kind: Kind, p: u64, n: u64) -> Form {
    match (kind, p) {
        (_, 1) => (0, 0),
        (Kind::AllReduce, _) => (2 * height(p), tree_halves(p, true) * n / 2),
        // The root is above both trees of the others, who send up or down, each of them both halves at least.
        _ => (1 + height(p - 1), n.max((tree_halves(p - 1, false)) * n / 2)),
    }
}

fn halving_doubling(kind: Kind, p: u64, n: u64) -> Option<Form> {
    let h = 1 << p.ilog2();
    let (resting, steps) = (p - h, h.ilog2());
    let fold = if resting > 0 { 2 } else { 0 };
    // The last halving may not wait for the fold: it is of blocks of ranks that have none beside them.
    let saved = u32::from(resting > 0 && 2 * resting <= h);
    // Blocks that number 0 keeps of each halving, where those that rest have blocks too.
    let kept: u64 = (0..steps).map(|bit| (1 << bit) + resting.min(1 << bit)).sum();
    let block = n / p;
    Some(match kind {
        Kind::AllReduce if resting == 0 => (2 * steps, 2 * (p - 1) * block),
        Kind::AllReduce => (2 * steps + fold, 2 * (h - 1) * (n / h) + n),
        Kind::ReduceScatter | Kind::AllGather if resting == 0 => (steps, (p - 1) * block),
        Kind::ReduceScatter => (steps + fold - saved, (p + kept) * block),
        Kind::AllGather => (steps + fold - saved, (p - 1 + kept) * block),
        _ => return None,
    })
}

/// The closed form of an algorithm and kind; `None` where the file gives none.
fn form(name: &str, kind: Kind, p: u64, n: u64) -> Option<Form> {
    let (others, block, steps) = ((p - 1) as u32, n / p, log(2, p));
    let (once, all_but_one) = (u32::from(p > 1), (p - 1) * block);
    let tree = |radix| match kind {
        Kind::AllReduce => (2 * farthest(radix, p), root_children(radix, p) * n),
        Kind::Broadcast | Kind::Reduce => (farthest(radix, p), root_children(radix, p) * n),
        Kind::Barrier => (log(radix, p), 0),
        _ => (farthest(radix, p), all_but_one),
    };
    Some(match (name, kind) {
        ("ring" | "mesh-one-shot", Kind::Barrier) => (if name == "ring" { others } else { once }, 0),
        ("ring", Kind::Broadcast) => (others, if p > 1 { n } else { 0 }),
        ("ring" | "ring-both", Kind::AllReduce) => (2 * others, 2 * all_but_one),
        ("ring" | "ring-both", _) => (others, all_but_one),
        ("mesh-one-shot", Kind::AllReduce | Kind::Broadcast) => (once, (p - 1) * n),
        ("mesh-one-shot", _) => (once, all_but_one),
        ("mesh-two-shot", Kind::AllReduce) => (2 * once, 2 * all_but_one),
        // The root takes its block of everybody, then everybody's.
        ("mesh-two-shot", Kind::Reduce) => (2 * once, 2 * all_but_one),
        ("mesh-two-shot", _) => (if p > 2 { 2 } else { once }, if p > 1 { n } else { 0 }),
        ("mesh-windowed", Kind::AllReduce) => (others.div_ceil(12) + once, 2 * all_but_one),
        ("mesh-windowed", Kind::ReduceScatter | Kind::ReduceScatterV) => (others.div_ceil(12), all_but_one),
        ("mesh-windowed", _) => (once, all_but_one),
        ("linear" | "in-network", Kind::Reduce | Kind::Broadcast) => (once, (p - 1) * n),
        ("in-network", Kind::AllReduce) => (2 * once, 2 * all_but_one),
        ("in-network", _) => (once, all_but_one),
        ("linear" | "pairwise", _) => (once, all_but_one),
        ("binomial", _) => tree(2),
        ("knomial-4", _) => tree(4),
        ("bruck", _) => {
            let with_bit = |bit: u32| (0..p).filter(|distance| distance >> bit & 1 == 1).count() as u64;
            (steps, (0..steps).map(with_bit).sum::<u64>() * block)
        }
        ("scatter-ring", _) => (others, 2 * all_but_one),
        ("double-tree", _) => double_tree(kind, p, n),
        ("ordered-ring", _) => (once + others, 2 * all_but_one),
        ("ordered-nb" | "ordered-nhr", _) => (once + chain(p), 2 * all_but_one),
        ("nb", Kind::AllReduce) => (2 * chain(p), 2 * all_but_one),
        ("nhr", Kind::AllReduce) => {
            // The halves meet: what the sum brings last, the all-gather needs last, up to 7/8 of a power of two.
            let saved = u32::from(chain(p) == steps && 8 * p <= 7 << steps);
            (2 * chain(p) - saved, 2 * all_but_one)
        }
        ("nhr" | "nb", Kind::AllGather | Kind::ReduceScatter) => (chain(p), all_but_one),
        ("halving-doubling", _) => return halving_doubling(kind, p, n),
        _ => return None,
    })
}

/// Whether elements of the vector, and not those of a block for each rank, are what a call counts.
fn is_vector(kind: Kind) -> bool {
    matches!(kind, Kind::AllReduce | Kind::Broadcast | Kind::Reduce)
}

fn case(algorithm: &'static dyn Algorithm, kind: Kind, ranks: u32) -> Case {
    let p = u64::from(ranks);
    // Every number of blocks that anybody cuts into divides it.
    let vector = 2 * p * (1 << p.ilog2()) * p.saturating_sub(1).max(1);
    let count = if is_vector(kind) { vector } else { 6 };
    Case {
        algorithm,
        kind,
        ranks,
        variant: variants(kind, ranks)[0],
        operation: 0,
        count,
        lengths: Lengths { pattern: Pattern::Equal, placement: Placement::Packed, scale: count, seed: 0 },
        in_place: false,
        dtype: DataType::U8,
        // Two lanes for the algorithms whose halves run side by side.
        choice: Choice {
            lanes: if algorithm.descriptor().name == "double-tree" { 4 } else { 1 },
            chunk_bytes: 1 << 31,
            ..Choice::default()
        },
    }
}

/// What the verifier counts, and of how many elements in all.
fn counted(case: &Case) -> (Form, u64) {
    let calls = case.calls();
    let report = verify_calls(&|rank| case.plan(rank), &|rank| calls.get(rank), case.ranks);
    let report = report.unwrap_or_else(|violation| panic!("{}: {violation}", case.text()));
    let n = if is_vector(case.kind) { case.count } else { case.count * u64::from(case.ranks) };
    ((report.depth, report.busiest), n)
}

#[test]
fn steps_and_bytes_are_the_closed_forms() {
    let only = std::env::var("UBCCL_TEST_ALGO").unwrap_or_default();
    let mut cases = Vec::new();
    for ranks in [384, 127, 72, 64, 48].into_iter().chain(1..=33) {
        for &algorithm in ubccl_algorithms::index() {
            let kinds = Kind::TABLE
                .iter()
                .map(|row| row.kind)
                .filter(|kind| !matches!(kind, Kind::SendReceive | Kind::Group));
            let supported = kinds.filter(|&kind| algorithm.supports(kind, ranks).is_ok());
            cases.extend(supported.map(|kind| case(algorithm, kind, ranks)));
        }
    }
    cases.retain(|case| case.algorithm.descriptor().name.contains(&only));
    let differences = queue::do_all(&cases, |case| {
        let (name, p) = (case.algorithm.descriptor().name, u64::from(case.ranks));
        let (counted, n) = counted(case);
        let Some(wanted) = form(name, case.kind, p, n) else { return Some(unformed(case, counted, n)) };
        (counted != wanted)
            .then(|| vec![format!("{name} {} of {p}: {counted:?} of {n}, not {wanted:?}", case.kind.name())])
    });
    let differences: Vec<String> = differences.into_iter().flatten().flatten().collect();
    assert!(differences.is_empty(), "{}:\n{}", differences.len(), differences.join("\n"));
}

/// Where a file gives bounds: a rooted call over a log-step family is a scatter or gather, and the family's half.
fn unformed(case: &Case, (steps, elements): Form, n: u64) -> Vec<String> {
    let (name, p) = (case.algorithm.descriptor().name, u64::from(case.ranks));
    assert!(
        matches!(name, "nhr" | "nb" | "halving-doubling")
            && matches!(case.kind, Kind::Broadcast | Kind::Reduce),
        "{name} {} has no closed form: write it down",
        case.kind.name()
    );
    let most = 2 * log(2, p) + if p.is_power_of_two() { 0 } else { 2 };
    let is_within = steps <= most && (p == 1 || elements >= n && elements <= 2 * n + n);
    (!is_within)
        .then(|| format!("{name} {} of {p}: {steps} steps, {elements} of {n}", case.kind.name()))
        .into_iter()
        .collect()
}

#[test]
fn levels_of_equal_bandwidth_move_exactly_the_flat_bounds_bytes() {
    let least = ["ring", "mesh", "nhr", "nb", "halving-doubling"];
    let steps = |kind: Kind, family: &str, members: u32| match (family, kind) {
        ("ring", _) => members - 1..=members - 1,
        // Of 63 peers at once.
        ("mesh", Kind::ReduceScatter) => (members - 1).div_ceil(63)..=(members - 1).div_ceil(63),
        ("mesh", _) => 1..=1,
        // What is summed in scratch may wait for what lay there.
        (_, Kind::ReduceScatter) => chain(members.into())..=log(2, members.into()),
        _ => chain(members.into())..=chain(members.into()),
    };
    let mut jobs = Vec::new();
    for (ranks, node) in [(768, 8), (384, 8), (72, 8), (64, 4), (48, 8), (15, 3), (6, 2)] {
        for pair in least.iter().flat_map(|inner| least.iter().map(move |outer| [*inner, *outer])) {
            let sizes = [node, ranks / node];
            // Of other counts, halving and doubling folds first, which costs bytes.
            let is_least =
                |(family, size): (&&str, &u32)| *family != "halving-doubling" || size.is_power_of_two();
            if pair.iter().zip(&sizes).all(is_least) {
                let layout = Arc::new(Layout::parse(&format!("node={node}"), ranks).unwrap());
                let text = format!("node:{};all:{}", pair[0], pair[1]);
                let composition: &'static Composition =
                    Box::leak(Box::new(Composition::parse(&text, &layout).unwrap()));
                let both = |kind| [0, 1].map(|level| steps(kind, pair[level], sizes[level]));
                let sum = |[a, b]: [Steps; 2]| a.start() + b.start()..=a.end() + b.end();
                let (apart, together) = (sum(both(Kind::ReduceScatter)), sum(both(Kind::AllGather)));
                let forms = [
                    (Kind::AllReduce, sum([apart.clone(), together.clone()])),
                    (Kind::AllGather, together),
                    (Kind::ReduceScatter, apart),
                ];
                jobs.extend(forms.map(|(kind, steps)| (case(composition, kind, ranks), steps)));
            }
        }
    }
    let differences = queue::do_all(&jobs, |(case, steps)| {
        let (counted, n) = counted(case);
        let halves = if case.kind == Kind::AllReduce { 2 } else { 1 };
        let p = u64::from(case.ranks);
        let bytes = halves * (p - 1) * (n / p);
        let is_right = steps.contains(&counted.0) && counted.1 == bytes;
        (!is_right).then(|| format!("{}: {counted:?} of {n}, not {steps:?} and {bytes}", case.text()))
    });
    let differences: Vec<String> = differences.into_iter().flatten().collect();
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), jobs.len(), differences.join("\n"));
}
