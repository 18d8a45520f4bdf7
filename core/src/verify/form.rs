//! The form of plans: what can be checked without turning a loop.

use super::violation::Violation;
use crate::algorithm::Spec;
use crate::collective::{Collective, Rank};
use crate::op::ReduceOp;
use crate::plan::{
    Action, Association, Lane, MAX_LANES, MAX_LISTED_PEERS, MAX_WINDOW, MAX_WINDOW_PER_PEER, Peers, Plan,
    Trips,
};

/// A fault of a plan as a whole.
pub(super) fn malformed(rank: Rank, what: &'static str) -> Violation {
    Violation::Malformed { rank, step: None, what }
}

/// Checks that a plan is of the same call as rank 0's.
pub(super) fn check_agreement(first: &Plan, plan: &Plan, rank: Rank) -> Result<(), Violation> {
    let (a, b) = (&first.spec, &plan.spec);
    let differences = [
        ("rank", b.rank != rank),
        ("number of ranks", a.ranks != b.ranks),
        ("collective", a.kind != b.kind),
        ("data type", a.dtype != b.dtype),
        ("operation", a.op != b.op),
        ("root", a.root != b.root),
        ("lanes or chunk size", a.choice != b.choice),
        ("algorithm", first.algorithm != plan.algorithm),
        ("association", first.association != plan.association),
    ];
    match differences.iter().find(|(_, differs)| *differs) {
        Some((what, _)) => Err(Violation::Disagreement { rank, what }),
        None => Ok(()),
    }
}

/// Checks what can be checked of a plan without turning its loops.
pub(super) fn check_plan(plan: &Plan, ranks: u32, call: &Collective<'_>) -> Result<(), Violation> {
    let steps = || plan.lanes.iter().flat_map(|lane| &lane.loops).flat_map(|turn| &turn.steps);
    let trips = || plan.lanes.iter().flat_map(|lane| &lane.loops).flat_map(|turn| [&turn.outer, &turn.inner]);
    let faults = [
        ("made for another number of ranks", plan.spec.ranks != ranks),
        ("is of another call", !is_of(&plan.spec, call)),
        ("count, root or table is out of range", call.check(ranks, plan.spec.rank).is_err()),
        (
            "combines in an order of its own, and its operation does not commute",
            ranks > 1
                && plan.association != Association::Flat
                && !plan.spec.op.is_none_or(ReduceOp::commutes),
        ),
        ("has more lanes than there may be", plan.lanes.len() > MAX_LANES),
        (
            "has a lane whose window is not 1 to 4096",
            plan.lanes.iter().any(|lane| !(1..=MAX_WINDOW).contains(&lane.window)),
        ),
        (
            "has a lane with a window above 64 whose turns depend on the call",
            plan.lanes.iter().any(|lane| lane.window > MAX_WINDOW_PER_PEER && turns_with_count(lane)),
        ),
        (
            "has an edge to a step that does not exist",
            steps().any(|s| s.after.iter().any(|a| usize::from(a.step.0) >= plan.places.len())),
        ),
        ("counts chunks of no elements", trips().any(|t| matches!(t, Trips::Chunks { elements: 0, .. }))),
        (
            "lists more peers than a list may hold",
            steps().any(|s| match &s.action {
                Action::Send { to: Peers::List(list), .. }
                | Action::ReceiveReduce { sources: Peers::List(list), .. } => list.len() > MAX_LISTED_PEERS,
                _ => false,
            }),
        ),
    ];
    match faults.iter().find(|(_, found)| *found) {
        Some((what, _)) => Err(malformed(plan.spec.rank, what)),
        None => Ok(()),
    }
}

fn turns_with_count(lane: &Lane) -> bool {
    let mut trips = lane.loops.iter().flat_map(|turn| [&turn.outer, &turn.inner]);
    trips.any(|trips| !matches!(trips, Trips::Fixed(_)))
}

fn is_of(spec: &Spec, call: &Collective<'_>) -> bool {
    let same = (spec.kind, spec.dtype, spec.op) == (call.kind(), call.dtype(), call.op());
    same && (spec.root, spec.to, spec.from) == (call.root(), call.to(), call.from())
}
