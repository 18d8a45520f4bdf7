//! What a profile says is what the plans do: the steps that the verifier counts, and the bytes of the busiest rank.

use std::sync::Arc;
use ubccl_core::verify::verify;
use ubccl_core::{Algorithm, Choice, Collective, DataType, Kind, Layout, ReduceOp, Spec};

fn call(kind: Kind, ranks: u32, count: u64) -> Collective<'static> {
    let (dtype, op, root) = (DataType::F32, ReduceOp::Sum, ranks / 3);
    match kind {
        Kind::AllReduce => Collective::all_reduce(count, dtype, op),
        Kind::ReduceScatter => Collective::reduce_scatter(count, dtype, op),
        Kind::AllGather => Collective::all_gather(count, dtype),
        Kind::AllToAll => Collective::all_to_all(count, dtype),
        Kind::Broadcast => Collective::broadcast(count, dtype, root),
        Kind::Reduce => Collective::reduce(count, dtype, op, root),
        other => panic!("no profile of {} is tested here", other.name()),
    }
}

/// Asserts that depth and bytes are those of the profile.
fn check(algorithm: &dyn Algorithm, kind: Kind, layout: &Layout) {
    let (ranks, name) = (layout.ranks(), algorithm.descriptor().name);
    // Even blocks, so that shares are exact; long enough that rounding would show.
    let vector = u64::from(ranks) * 64 * 9 * 5 * 7;
    let count = match kind {
        Kind::AllReduce | Kind::Broadcast | Kind::Reduce => vector,
        _ => 64,
    };
    let call = call(kind, ranks, count);
    // The two trees over three ranks wait for each other where they share a lane.
    let lanes = if (name, ranks) == ("double-tree", 3) { 2 } else { 1 };
    let choice = Choice { lanes, chunk_bytes: 1 << 30, ..Choice::default() };
    let spec = |rank| Spec::new(&call, ranks, rank, false, choice);
    let plan = |rank| algorithm.plan(&spec(rank));
    let report = verify(&plan, ranks, count).unwrap_or_else(|v| panic!("{name} {call} of {ranks}: {v}"));
    let profile = algorithm.profile(&spec(0), layout);
    // A root waits for nobody, so a tree's first steps may overlap what follows them. Its port is busy all the same.
    let early = if kind.row().rooted { 2 } else { 0 };
    let (told, depth) = (profile.steps(), report.depth);
    assert!(
        (depth..=depth + early).contains(&told),
        "{name} {call} of {ranks} ({layout}): {told}, not {depth}"
    );
    let busiest = (4 * report.busiest) as f64;
    let longest = call.longest_bytes(ranks) as f64;
    let told = profile.bytes(longest);
    assert!((told - busiest).abs() <= busiest * 1e-3, "{name} {call} of {ranks}: {told} B, not {busiest} B");
}

#[test]
fn profiles_are_what_plans_do() {
    let (rooted, all) =
        ([Kind::Broadcast, Kind::Reduce], [Kind::AllReduce, Kind::AllGather, Kind::ReduceScatter]);
    for (name, kinds) in [
        ("bruck", &[Kind::AllToAll][..]),
        ("scatter-ring", &[Kind::Broadcast]),
        ("double-tree", &[Kind::AllReduce, Kind::Broadcast, Kind::Reduce]),
        ("ring-both", &all),
        ("mesh-windowed", &all),
        ("nhr", &rooted),
        ("nb", &rooted),
        ("nhr", &all),
        ("nb", &all),
    ] {
        for ranks in [2, 3, 5, 8, 12, 17, 33] {
            let layout = Layout::parse("node=4", ranks).unwrap();
            for &kind in kinds {
                check(ubccl_algorithms::find(name).unwrap(), kind, &layout);
            }
        }
    }
}

#[test]
fn profiles_of_compositions_are_what_plans_do() {
    let kinds = [Kind::AllReduce, Kind::AllGather, Kind::ReduceScatter, Kind::Broadcast, Kind::Reduce];
    for (text, levels, ranks) in [
        ("node:mesh;all:nhr", "node=4", 16),
        ("node:ring;all:nb", "node=4", 32),
        ("npu:mesh;node:mesh;all:ring", "npu=2;node=8", 24),
    ] {
        let layout = Arc::new(Layout::parse(levels, ranks).unwrap());
        let composition = ubccl_algorithms::select(text, &layout).unwrap();
        kinds.iter().for_each(|&kind| check(&*composition, kind, &layout));
        let exchange = text.replace("nhr", "mesh").replace("nb", "mesh").replace("ring", "mesh");
        let composition = ubccl_algorithms::select(&exchange, &layout).unwrap();
        check(&*composition, Kind::AllToAll, &layout);
    }
    let uneven = Arc::new(Layout::parse("node=5+8+3", 16).unwrap());
    let composition = ubccl_algorithms::select("node:mesh;all:mesh", &uneven).unwrap();
    check(&*composition, Kind::AllToAll, &uneven);
}

#[test]
fn distances_are_those_on_the_circle_the_shorter_way_round() {
    let of = |name: &str, kind, ranks: u32, layout: &str| {
        let spec = Spec::new(&call(kind, ranks, 64), ranks, 1, false, Choice::default());
        let layout = Layout::parse(layout, ranks).unwrap();
        let told = ubccl_algorithms::find(name).unwrap().profile(&spec, &layout).distances;
        [told.rounds, told.farthest, told.parts, told.passed]
    };
    // 1, 2 and 4 blocks: at distances 4 (of which half of the ranks send either way), 2 and 1, or 1, 2 and 4.
    assert_eq!(of("nhr", Kind::AllGather, 8, ""), [3, 7, 7, 10]);
    assert_eq!(of("halving-doubling", Kind::AllGather, 8, ""), [3, 7, 7, 13]);
    // 1 and 1 blocks at distances 4, which is 1 the other way round, and 2, at once; then 2 at distance 1.
    assert_eq!(of("nhr", Kind::AllGather, 5, ""), [2, 3, 4, 4]);
    // From rank 1, trees 1 2 4 (3 0) and 1 0 3 (4 2): the link from 3 to 4 is passed from 2 to 4 and from 3 to 4.
    assert_eq!(of("double-tree", Kind::Broadcast, 5, ""), [3, 4, 2, 2]);
    // What leaves the group goes another way; and who has a root does not do as all others do.
    assert_eq!(of("nhr", Kind::AllGather, 8, "node=2"), [1, 1, 4, 4]);
    assert_eq!(of("nhr", Kind::Broadcast, 8, ""), [0; 4]);
}
