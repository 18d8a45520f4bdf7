//! Proves compositions: levels that are even and levels that are not, every family at every level.

mod cases;

use cases::{Case, Lengths, Pattern, Placement, variants};
use std::sync::Arc;
use ubccl_algorithms::composition::Composition;
use ubccl_core::verify::{verify, verify_calls};
use ubccl_core::{Algorithm, Choice, Collective, DataType, Kind, Layout, ReduceOp, Spec};

/// Verifies a composition's plans; how deep they are and how much they send.
fn prove(
    text: &str,
    layout: &str,
    ranks: u32,
    kind: Kind,
    (count, in_place, lanes): (u64, bool, u8),
) -> (u32, u64) {
    let layout = Arc::new(Layout::parse(layout, ranks).unwrap());
    let composition = Composition::parse(text, &layout).unwrap();
    composition.supports(kind, ranks).unwrap();
    let choice = Choice { lanes, chunk_bytes: (count * 4 / 3).max(4) as u32, ..Choice::default() };
    let report = |root: u32| {
        let call = match kind {
            Kind::AllReduce => Collective::all_reduce(count, DataType::F32, ReduceOp::Sum),
            Kind::ReduceScatter => Collective::reduce_scatter(count, DataType::F32, ReduceOp::Sum),
            Kind::Broadcast => Collective::broadcast(count, DataType::F32, root),
            Kind::Reduce => Collective::reduce(count, DataType::F32, ReduceOp::Sum, root),
            Kind::AllToAll => Collective::all_to_all(count, DataType::F32),
            _ => Collective::all_gather(count, DataType::F32),
        };
        let plan = |rank| composition.plan(&Spec::new(&call, ranks, rank, in_place, choice));
        verify(&plan, ranks, count)
            .unwrap_or_else(|violation| panic!("{text} {call} of {ranks} ({layout}): {violation}"))
    };
    let reports: Vec<_> = variants(kind, ranks).into_iter().map(report).collect();
    let last = reports.last().expect("every kind has a variant");
    (last.depth, last.elements)
}

#[test]
fn every_family_stands_at_every_level() {
    let families = ["ring", "mesh", "nhr", "nb", "halving-doubling", "binomial"];
    for (ranks, layout) in [(12, "node=4"), (16, "node=5+8+3"), (20, "node=8"), (7, "node=1+6")] {
        for inner in families {
            for outer in families {
                let text = format!("node:{inner};all:{outer}");
                for shape in [(0, false, 1), (4 * 1024 + 3, true, 1), (5000, false, 3), (77, true, 2)] {
                    for kind in [Kind::AllReduce, Kind::Broadcast, Kind::Reduce] {
                        prove(&text, layout, ranks, kind, shape);
                    }
                }
                if inner != "binomial" && outer != "binomial" {
                    for kind in [Kind::AllGather, Kind::ReduceScatter] {
                        for in_place in [false, true] {
                            prove(&text, layout, ranks, kind, (5, in_place, 1));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn three_and_four_levels_compose() {
    for (text, layout, ranks) in [
        ("npu:mesh;node:ring;all:nhr", "npu=2;node=8", 24),
        ("npu:mesh;node:halving-doubling;all:nb", "npu=2;node=6;pod=12", 30),
        ("npu:mesh;node:mesh;pod:ring;all:nhr", "npu=2;node=4;pod=8", 24),
        ("node:mesh;all:nhr", "npu=2;node=4;pod=8", 24),
    ] {
        for kind in [Kind::AllReduce, Kind::AllGather, Kind::ReduceScatter, Kind::Broadcast, Kind::Reduce] {
            prove(text, layout, ranks, kind, (1000, false, 8));
        }
    }
}

#[test]
fn all_to_all_packs_where_groups_are_alike() {
    for (text, layout, ranks, digits) in [
        ("node:mesh;all:mesh", "node=4", 12, &[4, 3][..]),
        ("node:mesh;all:mesh", "node=8", 48, &[8, 6]),
        ("node:mesh;all:mesh", "node=8", 384, &[8, 48]),
        ("npu:mesh;node:mesh;all:mesh", "npu=2;node=8", 24, &[2, 4, 3]),
        ("npu:mesh;node:mesh;pod:mesh;all:mesh", "npu=2;node=6;pod=12", 36, &[2, 3, 2, 3]),
        // The others send every block for itself.
        ("node:mesh;all:mesh", "node=1", 5, &[]),
        ("node:mesh", "node=6", 6, &[]),
        ("node:mesh;all:mesh", "node=5+8+3", 16, &[]),
        ("npu:mesh;node:mesh;all:mesh", "npu=2;node=8", 19, &[]),
        ("node:mesh;all:mesh", "node=1+6", 7, &[]),
        ("node:mesh;all:mesh", "node=1", 2, &[]),
        ("node:mesh", "node=1", 1, &[]),
    ] {
        for shape in [(0, false, 1), (5, false, 1), (5, true, 1), (7, false, 2), (7, true, 2)] {
            let (depth, elements) = prove(text, layout, ranks, Kind::AllToAll, shape);
            let all = u64::from(ranks) * shape.0;
            let sent: u64 = match digits {
                [] => all / u64::from(ranks) * u64::from(ranks - 1),
                _ => digits.iter().map(|size| all / size * (size - 1)).sum(),
            };
            assert_eq!(elements, u64::from(ranks) * sent, "{text} of {ranks} ({layout})");
            if !digits.is_empty() {
                assert_eq!(depth as usize, digits.len(), "{text} of {ranks} ({layout})");
            }
        }
    }
}

#[test]
fn all_to_all_v_goes_to_the_nearest_first() {
    for (text, layout, ranks) in [
        ("node:mesh;all:mesh", "node=4", 12),
        ("node:mesh;all:mesh", "node=5+8+3", 16),
        ("npu:mesh;node:mesh;all:mesh", "npu=2;node=8", 19),
        ("node:mesh;all:mesh", "node=64", 130),
    ] {
        let layout = Arc::new(Layout::parse(layout, ranks).unwrap());
        let composition: &'static Composition =
            Box::leak(Box::new(Composition::parse(text, &layout).unwrap()));
        for (number, pattern) in Pattern::ALL.into_iter().enumerate() {
            let placement = Placement::ALL[number % Placement::ALL.len()];
            for (in_place, lanes) in [(false, 1), (true, 1), (false, 3)] {
                let case = Case {
                    algorithm: composition,
                    kind: Kind::AllToAllV,
                    ranks,
                    variant: 0,
                    operation: 0,
                    count: 0,
                    lengths: Lengths { pattern, placement, scale: 9, seed: number as u64 },
                    in_place,
                    dtype: DataType::F32,
                    choice: Choice { lanes, ..Choice::default() },
                };
                let calls = case.calls();
                let proved = verify_calls(&|rank| case.plan(rank), &|rank| calls.get(rank), ranks);
                assert!(proved.is_ok(), "{}: {}", case.text(), proved.err().unwrap());
            }
        }
    }
}

#[test]
fn two_levels_send_exactly_what_one_does() {
    for (ranks, layout) in [(384, "node=8"), (48, "node=8"), (64, "node=4"), (6, "node=2")] {
        let count = u64::from(ranks) * 4;
        let (depth, elements) = prove("node:mesh;all:nhr", layout, ranks, Kind::AllReduce, (count, false, 1));
        assert_eq!(elements, 2 * (u64::from(ranks) - 1) * count, "{ranks}");
        let nodes = Layout::parse(layout, ranks).unwrap().levels()[0].groups();
        assert_eq!(depth, 2 + 2 * (nodes as u32).ilog2(), "{ranks}");
    }
}
