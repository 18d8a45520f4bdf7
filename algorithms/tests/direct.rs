//! Which plans are one round of publications: all ranks of a call say the same, or they would wait for each other.

use ubccl_algorithms::index;
use ubccl_core::direct::Direct;
use ubccl_core::{Choice, Collective, DataType, Kind, ReduceOp, Spec};

fn calls(ranks: u32) -> Vec<Collective<'static>> {
    let (dtype, op) = (DataType::F32, ReduceOp::Sum);
    let mut calls = vec![
        Collective::all_reduce(5, dtype, op),
        Collective::all_gather(5, dtype),
        Collective::reduce_scatter(5, dtype, op),
        Collective::all_to_all(5, dtype),
        Collective::barrier(),
    ];
    for root in [0, ranks / 2, ranks - 1] {
        calls.push(Collective::broadcast(5, dtype, root));
        calls.push(Collective::reduce(5, dtype, op, root));
        calls.push(Collective::gather(5, dtype, root));
        calls.push(Collective::scatter(5, dtype, root));
    }
    calls
}

#[test]
fn all_ranks_agree_on_what_is_one_round() {
    let mut direct = std::collections::BTreeSet::new();
    let mut compared = 0;
    for algorithm in index() {
        for ranks in 2..10 {
            for call in calls(ranks).iter().filter(|call| algorithm.supports_call(call, ranks).is_ok()) {
                for lanes in [1, 3] {
                    let choice = Choice { lanes, ..Choice::default() };
                    let of = |rank: u32| {
                        let in_place = rank % 2 == 1; // each rank as it likes
                        let spec = Spec::new(call, ranks, rank, in_place, choice);
                        Direct::of(&spec, |spec| algorithm.plan(spec), ranks % 2 == 1).is_some()
                    };
                    let first = of(0);
                    let name = algorithm.descriptor().name;
                    assert!((1..ranks).all(|rank| of(rank) == first), "{name} {call} on {ranks} ranks");
                    compared += 1;
                    if first {
                        direct.insert((name, call.kind().name()));
                    }
                }
            }
        }
    }
    assert!(compared > 1000, "{compared}");
    for (name, kind) in [
        ("mesh-one-shot", Kind::AllReduce),
        ("mesh-one-shot", Kind::Barrier),
        ("mesh-one-shot", Kind::Broadcast),
        ("linear", Kind::Gather),
        ("pairwise", Kind::AllToAll),
    ] {
        assert!(direct.contains(&(name, kind.name())), "{name} {} in {direct:?}", kind.name());
    }
    // The owners of blocks send what they have reduced, even where a root of two ranks sends its input only.
    assert!(!direct.contains(&("mesh-two-shot", Kind::Reduce.name())), "{direct:?}");
}
