//! The verifier: proves that the plans of all ranks of one call do what was asked, for one count.
//!
//! It runs every step of every rank over symbolic memory ([`crate::symbolic`]) and checks, in this order:
//!
//! 1. **Form**: the plans are of one call; every slice, block, peer and edge exists.
//! 2. **Hazards** (`local`): two accesses to the same memory, one of them a write, are ordered by edges; nothing is read
//!    before it is written; inputs stay as they are, and in place only the output is written.
//! 3. **Matching** (`matching`): every send meets a receive of its length, and the other way round.
//! 4. **Progress** (`run`): nothing gets stuck, with every send a rendezvous and with unlimited buffering. A rendezvous
//!    ends when the receiving step completes, and a channel's messages are taken one after the other: what endpoints with
//!    small buffers and long messages come to.
//! 5. **Operation**: one that does not nest (an average) is applied to plain contributions only (`data`), one that does
//!    not commute only in rank order, which is a matter of form.
//! 6. **Outcome** (`outcome`): every output element is the collective's definition, each contribution exactly once, on
//!    every rank the same expression, which is the one the plan declares; what lies between a table's blocks is left as
//!    it was. After a barrier every rank depends on every
//!    rank's start (`track`).
//!
//! A plan that passes gives the same result under every timing: accesses are ordered, messages pair up by number and not
//! by arrival, and what may be posted stays so. Contributors are exact sets up to 128 ranks, above 128-bit fingerprints.

mod access;
mod data;
mod flat;
mod form;
mod local;
mod matching;
#[doc(hidden)]
pub mod mutate;
mod outcome;
mod part;
mod resolve;
mod run;
#[doc(hidden)]
pub mod schedule;
mod track;
mod violation;

#[cfg(test)]
mod tests;

pub use part::Part;
pub use violation::{Mode, Place, StepAt, Violation, Waits, Wrong};

use crate::collective::{Collective, Rank};
use crate::kind::Kind;
use crate::plan::Plan;
use data::Data;
use flat::Flat;
use outcome::Expected;
use part::Followed;
use run::Run;
use track::{Depth, Starts, Track};

/// What was proved, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Step instances of all ranks.
    pub steps: u64,
    /// Messages between ranks.
    pub messages: u64,
    /// Elements in them.
    pub elements: u64,
    /// Elements that the busiest rank sends to others, or takes in from them.
    pub busiest: u64,
    /// The most messages that hang on each other one after the other, through edges and lane order: the textbook's
    /// number of steps.
    pub depth: u32,
}

/// Proves the plans of ranks 0 to `ranks` − 1 for one count. `plans` gives each rank's plan, always the same for the
/// same rank.
///
/// Errors: the first violation found, naming rank, step and turn.
///
/// ```
/// # use ubccl_core::{algorithm::{Choice, Spec}, collective::Collective, plan::*, verify::verify, DataType};
/// let plan = |rank| {
///     let to = (rank == 0).then_some(1);
///     let from = (rank == 1).then_some(0);
///     let spec = Spec::new(&Collective::send_receive(8, DataType::F32, to, from), 2, rank, false, Choice::default());
///     let mut plan = PlanBuilder::new(&spec, "direct", Association::None);
///     plan.lane(1);
///     plan.straight();
///     if rank == 0 {
///         plan.send(Shape::whole(Buffer::Input), Peers::one(Index::fixed(1)));
///     } else {
///         plan.receive(Shape::whole(Buffer::Output), Index::fixed(0));
///     }
///     plan.finish()
/// };
/// let report = verify(&plan, 2, 8).unwrap();
/// assert_eq!((report.steps, report.messages, report.elements, report.depth), (2, 1, 8, 1));
/// assert_eq!(report.busiest, 8);
/// ```
pub fn verify(plans: &dyn Fn(Rank) -> Plan, ranks: u32, count: u64) -> Result<Report, Violation> {
    verify_calls(plans, &|rank| plans(rank).spec.collective(count), ranks)
}

/// Proves the plans of ranks 0 to `ranks` − 1 for one call, as each rank makes it: tables may differ. `plans` and `calls`
/// give the same for the same rank, always.
///
/// Errors: as [`verify`].
pub fn verify_calls<'a>(
    plans: &dyn Fn(Rank) -> Plan,
    calls: &dyn Fn(Rank) -> Collective<'a>,
    ranks: u32,
) -> Result<Report, Violation> {
    verify_part(plans, calls, ranks, Part::ALL)
}

/// The same, but the operation and the outcome (5 and 6) of one part only: for so many ranks that the contents of all
/// would not fit. With all parts, it proves what [`verify_calls`] does.
///
/// Errors: as [`verify`].
pub fn verify_part<'a>(
    plans: &dyn Fn(Rank) -> Plan,
    calls: &dyn Fn(Rank) -> Collective<'a>,
    ranks: u32,
    part: Part,
) -> Result<Report, Violation> {
    // The tables may live longer than the plans are needed.
    let calls = &|rank| calls(rank);
    if ranks == 0 {
        return Err(Violation::Malformed {
            rank: 0,
            step: None,
            what: "a communicator has at least one rank",
        });
    }
    let mut flat = Flat::new(plans, calls, ranks)?;
    let mut local = local::Local::default();
    let followed = Followed::new(&flat, part);
    let memories = (0..ranks).map(|rank| local.check(&flat, &followed, rank));
    let memories = memories.collect::<Result<Vec<_>, _>>()?;
    let (messages, elements) = matching::match_messages(&mut flat)?;
    let flat = &flat;
    let mut data = Data::new(flat, memories);
    Run::new(flat, Mode::Rendezvous).finish(&mut data)?;
    data.check_nesting(flat)?;
    check_outcome(flat, followed, &mut data)?;
    drop(data);
    let mut depth = Track::new(flat, Depth);
    Run::new(flat, Mode::Buffered).finish(&mut depth)?;
    if flat.specs[0].kind == Kind::Barrier {
        check_barrier(flat)?;
    }
    let depth = depth.ends.iter().copied().max().unwrap_or(0);
    Ok(Report { steps: flat.total() as u64, messages, elements, busiest: busiest(flat), depth })
}

/// Elements of the busiest rank's messages, one way.
fn busiest(flat: &Flat) -> u64 {
    let of = |rank: Rank| {
        let mut ways = [0, 0];
        for step in flat.steps_of(rank) {
            let others = flat.entries[flat.entries_of(step as u32)].iter().filter(|entry| entry.peer != rank);
            let step = &flat.steps[step];
            ways[usize::from(step.sends)] += step.len * others.count() as u64;
        }
        ways[0].max(ways[1])
    };
    (0..flat.ranks).map(of).max().unwrap_or(0)
}

fn check_outcome(flat: &Flat, followed: Followed, data: &mut Data) -> Result<(), Violation> {
    let mut expected = Expected::new(flat, followed, flat.association)?;
    (0..flat.ranks)
        .try_for_each(|rank| expected.check(flat, rank, &mut |range, pieces| data.read(rank, range, pieces)))
}

fn check_barrier(flat: &Flat) -> Result<(), Violation> {
    let mut starts = Track::new(flat, Starts::new(flat.ranks));
    Run::new(flat, Mode::Buffered).finish(&mut starts)?;
    starts.stamps.check_barrier(&starts.ends)
}
