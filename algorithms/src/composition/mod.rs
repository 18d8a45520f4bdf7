//! Composition: one family at each level of the machine.
//!
//! ```text
//! all-reduce over levels, from the innermost:
//!   reduce-scatter inside each group;  of the ranks that hold the same block, one in each group of the level,
//!     reduce-scatter again, up to the outermost level
//!   all-gather back down
//! broadcast: scatter inside the root's groups, from the innermost level to the outermost;  all-gather back down
//! all-to-all(v): exchanges inside the groups of each level, from the innermost (see `exchange.rs`)
//! reduce: reduce-scatter as all-reduce does;  gather inside the root's groups, from the outermost level down
//!
//! 4 ranks, two nodes of two, the vector in blocks a0 a1 b0 b1:   rank 0   rank 1   rank 2   rank 3
//!   inside the nodes                                             a0 a1    b0 b1    a0 a1    b0 b1
//!   between them: ranks 0 and 2, ranks 1 and 3                   a0       b0       a1       b1
//!   and back                                                     a0 a1    b0 b1    a0 a1    b0 b1, then everything
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | all-reduce | the sum over levels | levels of k1, k2, … groups: 2((k1−1)/k1 + (k2−1)/(k1·k2) + …)·n = 2(p−1)/p·n | (p−1)/p·n |
//! | broadcast | scatters of at most ⌈log2 k1⌉, ⌈log2 k2⌉, …, and the all-gathers | at most 2(p−1)/p·n from the root | none |
//! | reduce | the reduce-scatters, and as many | (p−1)/p·n, and as much into the root | (p−1)/p·n |
//! | all-to-all, groups alike | one for each level | ((k1−1)/k1 + (k2−1)/k2 + …)·n, in k1 + k2 + … messages | none |
//! | all-to-all, groups not alike; all-to-all-v | 1, the nearest ranks first | (p−1)/p·n | none |
//! | reduce-scatter, all-gather | the sum over levels | (p−1)/p·n | (p−1)/p·n, none |
//!
//! These are the bytes where every family sends the least and groups are equal. Where groups are not, a vector is cut for
//! the largest, and ranks of smaller groups take several blocks. A choice of several lanes and chunks overlaps the levels:
//! each has a lane of its own.
//!
//! Of an all-gather each tier hands blocks on in the order in which the tier before brings them, so that it need not wait for
//! the last of them; of a reduce-scatter, in the order in which the next tier wants their sums.
//!
//! Source: HCCL's hierarchical algorithms and its AHC for groups that differ; as in MPI libraries since R. Thakur and
//! W. Gropp, 2003.

mod exchange;
mod nest;
mod rails;

use crate::halving_doubling::HalvingDoubling;
use crate::knomial::TeamTree;
use crate::mesh_two_shot::TeamMesh;
use crate::nb::Nb;
use crate::nhr::Nhr;
use crate::ring::TeamRing;
use crate::schedule::{self, Grid, Schedule};
use crate::share::refuse;
use crate::team::Family;
use nest::Nest;
use rails::Rails;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use ubccl_core::plan::{Association, Plan};
use ubccl_core::{Algorithm, AlgorithmDescriptor, Error, Kind, Layout, Profile, Rank, Result, Spec};

/// The families that a composition may name.
pub(crate) static FAMILIES: &[&dyn Family] = &[&TeamRing, &TeamMesh, &Nhr, &Nb, &HalvingDoubling, &TeamTree];

/// The families' names.
pub fn families() -> impl Iterator<Item = &'static str> + Clone {
    FAMILIES.iter().map(|family| family.name())
}

/// A family at each of some levels of a layout.
pub struct Composition {
    descriptor: &'static AlgorithmDescriptor,
    layout: Arc<Layout>,
    tiers: Vec<Tier>,
    /// Per tier: how many its largest team has.
    teams: Vec<u32>,
}

/// One level of a composition.
#[derive(Clone, Copy)]
pub(crate) struct Tier {
    /// Which level of the layout.
    pub(crate) level: usize,
    pub(crate) family: &'static dyn Family,
}

impl Composition {
    /// `LEVEL:FAMILY;LEVEL:FAMILY`, levels of `layout` from the innermost to the outermost.
    ///
    /// Errors: InvalidArgument, listing the levels or the families there are.
    pub fn parse(text: &str, layout: &Arc<Layout>) -> Result<Self> {
        let items = text.split(';').map(str::trim).filter(|item| !item.is_empty());
        let tiers = items.map(|item| parse_tier(item, text, layout)).collect::<Result<Vec<_>>>()?;
        let levels: Vec<&str> = layout.levels().iter().map(|level| level.name()).collect();
        let is_ascending = tiers.windows(2).all(|pair| pair[0].level < pair[1].level);
        if !is_ascending || tiers.last().is_none_or(|tier| tier.level + 1 < levels.len()) {
            return Err(Error::invalid(format!(
                "the composition '{text}' must go from the innermost level to the outermost, '{}'; the levels here are: \
                 {}",
                levels[levels.len() - 1],
                levels.join(", ")
            )));
        }
        Ok(Self::new(tiers, layout))
    }

    /// These tiers, innermost first; the last is the layout's outermost level.
    pub(crate) fn new(tiers: Vec<Tier>, layout: &Arc<Layout>) -> Self {
        let name = |tier: &Tier| format!("{}:{}", layout.levels()[tier.level].name(), tier.family.name());
        let descriptor = descriptor(tiers.iter().map(name).collect::<Vec<_>>().join(";"));
        let teams = (0..tiers.len()).map(|tier| largest_team(layout, &tiers, tier)).collect();
        Composition { descriptor, layout: layout.clone(), tiers, teams }
    }
}

fn parse_tier(item: &str, text: &str, layout: &Layout) -> Result<Tier> {
    let unknown = |what: &str, name: &str, known: Vec<&str>| {
        Error::invalid(format!("unknown {what} '{name}' in '{text}'; there are: {}", known.join(", ")))
    };
    let (level, family) = item.split_once(':').ok_or_else(|| {
        Error::invalid(format!(
            "'{item}' in '{text}' is no LEVEL:FAMILY; write for example node:mesh;supernode:nhr"
        ))
    })?;
    let (level, family) = (level.trim(), family.trim().replace('_', "-"));
    let levels = || layout.levels().iter().map(|level| level.name());
    Ok(Tier {
        level: levels()
            .position(|name| name == level)
            .ok_or_else(|| unknown("level", level, levels().collect()))?,
        family: FAMILIES
            .iter()
            .copied()
            .find(|known| known.name() == family)
            .ok_or_else(|| unknown("family", &family, families().collect()))?,
    })
}

/// The descriptor of a composition of this name. Names are kept for good: there are as many as levels have names, to the
/// power of families, and programs use a handful.
fn descriptor(name: String) -> &'static AlgorithmDescriptor {
    static KNOWN: Mutex<Vec<&'static AlgorithmDescriptor>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(descriptor) = known.iter().find(|descriptor| descriptor.name == name) {
        return descriptor;
    }
    let descriptor: &'static AlgorithmDescriptor = Box::leak(Box::new(AlgorithmDescriptor {
        name: name.leak(),
        summary: "a family at each level",
        source: "composition over levels, as in HCCL",
    }));
    known.push(descriptor);
    descriptor
}

impl Algorithm for Composition {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        self.descriptor
    }

    fn supports(&self, kind: Kind, ranks: u32) -> Result<()> {
        if ranks != self.layout.ranks() {
            let (name, made) = (self.descriptor.name, self.layout.ranks());
            return Err(Error::unsupported(format!("{name} was composed for {made} ranks, not for {ranks}")));
        }
        supports(self.descriptor.name, (&self.tiers, &self.teams), kind, ranks)
    }

    fn plan(&self, spec: &Spec) -> Plan {
        match spec.kind {
            Kind::AllToAll | Kind::AllToAllV => {
                exchange::plan(spec, self.descriptor.name, &self.tiers, &self.layout)
            }
            _ => schedule(spec, self.descriptor.name, &self.tiers, &self.layout, &self.layout).finish(),
        }
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        match spec.kind {
            Kind::AllToAll | Kind::AllToAllV => exchange::profile(spec, &self.tiers, &self.layout, layout),
            _ => profile(spec, self.descriptor.name, &self.tiers, &self.layout, layout),
        }
    }
}

/// Messages of a tier above which a plan would be no small plan.
const MOST_MESSAGES: u32 = 4096;
/// Ranks above which it would be none if it named the blocks of all.
const MOST_BLOCKS: u32 = 8192;

/// Whether such tiers, with teams of at most so many, do a kind.
pub(crate) fn supports(name: &str, (tiers, teams): (&[Tier], &[u32]), kind: Kind, ranks: u32) -> Result<()> {
    let refused = |why: Option<&str>| why.map_or(Ok(()), |why| refuse(name, kind, why));
    match kind {
        Kind::AllReduce | Kind::Broadcast | Kind::Reduce => {
            let is_large = |(tier, &team): (&Tier, &u32)| tier.family.messages(team) > MOST_MESSAGES;
            let are_many = tiers.iter().zip(teams).any(is_large);
            refused(are_many.then_some("a rank would send thousands of messages; use nb or halving-doubling"))
        }
        Kind::ReduceScatter | Kind::AllGather => {
            let are_many = (tiers.len() > 1 && ranks > MOST_BLOCKS)
                .then_some("each rank's block would be a message of its own; name one level");
            refused(tiers.iter().find_map(|tier| tier.family.refuses_blocks(ranks)).or(are_many))
        }
        Kind::AllToAll | Kind::AllToAllV => {
            let mut refusals = tiers.iter().filter_map(|tier| tier.family.refuses_exchange());
            refusals.next().map_or(Ok(()), |why| refuse(name, kind, why))
        }
        _ => refuse(
            name,
            kind,
            "it composes neither gathers and scatters nor other tables than all-to-all-v's",
        ),
    }
}

/// A rank's schedule; `layout` is the one that is composed over, `machine` the one whose links are counted.
pub(crate) fn schedule<'a>(
    spec: &Spec,
    name: &'static str,
    tiers: &[Tier],
    layout: &Layout,
    machine: &'a Layout,
) -> Schedule<'a> {
    let association = if spec.op.is_some() { Association::Own } else { Association::None };
    if !matches!(spec.kind, Kind::ReduceScatter | Kind::AllGather) {
        let nest = Nest::new(layout, tiers);
        let mut schedule = Schedule::new(spec, name, association, machine, Grid::new(&nest.radices));
        match spec.kind {
            Kind::AllReduce => nest.all_reduce(&mut schedule),
            Kind::Broadcast => nest.broadcast(&mut schedule),
            _ => nest.reduce(&mut schedule),
        }
        return schedule;
    }
    let mut schedule = Schedule::new(spec, name, association, machine, Grid::new(&[spec.ranks]));
    let rails = Rails { layout, tiers };
    match spec.kind {
        Kind::ReduceScatter => rails.reduce_scatter(&mut schedule),
        _ => rails.all_gather(&mut schedule),
    }
    schedule
}

/// What it costs, as a few ranks' schedules say.
pub(crate) fn profile(
    spec: &Spec,
    name: &'static str,
    tiers: &[Tier],
    layout: &Layout,
    machine: &Layout,
) -> Profile {
    schedule::profile(spec, layout, |spec| schedule(spec, name, tiers, layout, machine))
}

/// The groups of a tier, and what they are made of: groups of the tier below, or ranks.
fn members(layout: &Layout, tiers: &[Tier], tier: usize, rank: Rank) -> Vec<Range<Rank>> {
    let level = &layout.levels()[tiers[tier].level];
    let group = level.group(level.group_of(rank));
    let Some(below) = tier.checked_sub(1) else { return group.map(|rank| rank..rank + 1).collect() };
    let below = &layout.levels()[tiers[below].level];
    (below.group_of(group.start)..=below.group_of(group.end - 1)).map(|member| below.group(member)).collect()
}

/// How many members the largest group of a tier has.
fn largest_team(layout: &Layout, tiers: &[Tier], tier: usize) -> u32 {
    let level = &layout.levels()[tiers[tier].level];
    let size = |group| members(layout, tiers, tier, level.group(group).start).len() as u32;
    (0..level.groups()).map(size).max().unwrap_or(0)
}

/// A list of one run of cells.
fn one(cells: Range<u32>) -> Vec<Range<u32>> {
    std::iter::once(cells).collect()
}

/// The member that a rank is in.
fn member_of(members: &[Range<Rank>], rank: Rank) -> usize {
    members.partition_point(|member| member.end <= rank)
}
