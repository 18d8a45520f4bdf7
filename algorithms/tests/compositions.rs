//! Proves compositions: levels that are even and levels that are not, every family at every level.

use std::sync::Arc;
use ubccl_algorithms::composition::Composition;
use ubccl_core::verify::verify;
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
    let call = match kind {
        Kind::AllReduce => Collective::all_reduce(count, DataType::F32, ReduceOp::Sum),
        Kind::ReduceScatter => Collective::reduce_scatter(count, DataType::F32, ReduceOp::Sum),
        // Any root, but always the same for the same case.
        Kind::Broadcast => Collective::broadcast(count, DataType::F32, (count as u32 + 1) * 5 % ranks),
        Kind::Reduce => {
            Collective::reduce(count, DataType::F32, ReduceOp::Sum, (count as u32 + 2) * 5 % ranks)
        }
        _ => Collective::all_gather(count, DataType::F32),
    };
    let choice = Choice { lanes, chunk_bytes: (count * 4 / 3).max(4) as u32 };
    let plan = |rank| composition.plan(&Spec::new(&call, ranks, rank, in_place, choice));
    let report = verify(&plan, ranks, count).unwrap_or_else(|violation| {
        panic!("{text} {} of {ranks} ({layout}), {count}: {violation}", kind.name())
    });
    (report.depth, report.elements)
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
fn two_levels_send_exactly_what_one_does() {
    for (ranks, layout) in [(384, "node=8"), (48, "node=8"), (64, "node=4"), (6, "node=2")] {
        let count = u64::from(ranks) * 4;
        let (depth, elements) = prove("node:mesh;all:nhr", layout, ranks, Kind::AllReduce, (count, false, 1));
        assert_eq!(elements, 2 * (u64::from(ranks) - 1) * count, "{ranks}");
        let nodes = Layout::parse(layout, ranks).unwrap().levels()[0].groups();
        assert_eq!(depth, 2 + 2 * (nodes as u32).ilog2(), "{ranks}");
    }
}
