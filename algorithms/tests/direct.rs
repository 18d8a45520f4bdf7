//! Which plans are one round of publications: all ranks of a call say the same, or they would wait for each other.

use ubccl_algorithms::index;
use ubccl_core::direct::{Direct, Part};
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

/// One rank folds for all, in the order of ranks, and shows the others its output.
#[test]
fn a_crowded_all_reduce_meets_at_one_rank() {
    let algorithm = index().iter().find(|algorithm| algorithm.descriptor().name == "mesh-one-shot").unwrap();
    let call = Collective::all_reduce(5, DataType::F32, ReduceOp::Sum);
    let of = |ranks, rank, is_crowded| {
        let spec = Spec::new(&call, ranks, rank, false, Choice::default());
        Direct::of(&spec, |spec| algorithm.plan(spec), is_crowded).unwrap()
    };
    let (fold, copy) = (Part::Fold { at: 0, into: 0 }, Part::Copy { from: 0, at: 0, into: 0 });
    for rank in 0..3 {
        let meeting = of(3, rank, true);
        let is_met = rank == 0;
        assert_eq!((meeting.reads_first, meeting.is_exchange), (is_met, false), "{rank}");
        assert_eq!(meeting.parts, [if is_met { fold } else { copy }], "{rank}");
        let others = if is_met { vec![1, 2] } else { vec![0] };
        assert_eq!((&meeting.readers, &meeting.writers), (&others, &others), "{rank}");
        let flat = of(3, rank, false);
        assert_eq!((flat.reads_first, &flat.parts[..]), (false, &[fold][..]), "{rank}");
    }
    assert_eq!(of(2, 1, true), of(2, 1, false), "two show each other");
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
