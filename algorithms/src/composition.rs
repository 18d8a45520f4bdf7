//! Composition: one family at each level of the machine.
//!
//! ```text
//! all-reduce over levels, from the innermost:
//!   reduce-scatter inside each group;  of the ranks that hold the same block, one in each group of the level,
//!     reduce-scatter again, up to the outermost level
//!   all-gather back down
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
//! | reduce-scatter, all-gather | the sum over levels | (p−1)/p·n | (p−1)/p·n, none |
//!
//! These are the bytes where every family sends the least and groups are equal. Where groups are not, a vector is cut for
//! the largest, and ranks of smaller groups take several blocks. A choice of several lanes and chunks overlaps the levels:
//! each has a lane of its own.
//!
//! Source: HCCL's hierarchical algorithms and its AHC for groups that differ; as in MPI libraries since R. Thakur and
//! W. Gropp, 2003.

use crate::halving_doubling::HalvingDoubling;
use crate::knomial::TeamTree;
use crate::mesh_two_shot::TeamMesh;
use crate::nb::Nb;
use crate::nhr::Nhr;
use crate::ring::TeamRing;
use crate::schedule::{Grid, Schedule};
use crate::share::refuse;
use crate::team::{Family, Team};
use std::collections::BTreeSet;
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
        Composition { descriptor, layout: layout.clone(), tiers }
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
        supports(self.descriptor.name, &self.tiers, kind, ranks)
    }

    fn plan(&self, spec: &Spec) -> Plan {
        schedule(spec, self.descriptor.name, &self.tiers, &self.layout, &self.layout).finish()
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        schedule(spec, self.descriptor.name, &self.tiers, &self.layout, layout).into_profile()
    }
}

/// Whether such tiers do a kind.
pub(crate) fn supports(name: &str, tiers: &[Tier], kind: Kind, ranks: u32) -> Result<()> {
    match kind {
        Kind::AllReduce => Ok(()),
        Kind::ReduceScatter | Kind::AllGather => {
            let mut refusals = tiers.iter().filter_map(|tier| tier.family.refuses_blocks(ranks));
            refusals.next().map_or(Ok(()), |why| refuse(name, kind, why))
        }
        _ => refuse(name, kind, "it composes all-reduce, reduce-scatter and all-gather"),
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
    match spec.kind {
        Kind::AllReduce => {
            let nest = Nest::new(layout, tiers);
            let mut schedule = Schedule::new(spec, name, Association::Own, machine, Grid::new(&nest.radices));
            nest.all_reduce(&mut schedule);
            schedule
        }
        _ => {
            let association = if spec.op.is_some() { Association::Own } else { Association::None };
            let mut schedule = Schedule::new(spec, name, association, machine, Grid::new(&[spec.ranks]));
            let rails = Rails { layout, tiers };
            match spec.kind {
                Kind::ReduceScatter => rails.reduce_scatter(&mut schedule),
                _ => rails.all_gather(&mut schedule),
            }
            schedule
        }
    }
}

/// The groups of a tier, and what they are made of: groups of the tier below, or ranks.
fn members(layout: &Layout, tiers: &[Tier], tier: usize, rank: Rank) -> Vec<Range<Rank>> {
    let level = &layout.levels()[tiers[tier].level];
    let group = level.group(level.group_of(rank));
    let Some(below) = tier.checked_sub(1) else { return group.map(|rank| rank..rank + 1).collect() };
    let below = &layout.levels()[tiers[below].level];
    (below.group_of(group.start)..=below.group_of(group.end - 1)).map(|member| below.group(member)).collect()
}

/// A list of one run of cells.
fn one(cells: Range<u32>) -> Vec<Range<u32>> {
    std::iter::once(cells).collect()
}

/// The member that a rank is in.
fn member_of(members: &[Range<Rank>], rank: Rank) -> usize {
    members.partition_point(|member| member.end <= rank)
}

/// An all-reduce's blocks: each tier cuts those of the tier below.
struct Nest<'a> {
    layout: &'a Layout,
    tiers: &'a [Tier],
    /// Into how many blocks each tier cuts.
    radices: Vec<u32>,
}

impl<'a> Nest<'a> {
    fn new(layout: &'a Layout, tiers: &'a [Tier]) -> Self {
        let radix = |tier: usize| {
            let level = &layout.levels()[tiers[tier].level];
            let counts: BTreeSet<u32> = (0..level.groups())
                .map(|group| members(layout, tiers, tier, level.group(group).start).len() as u32)
                .collect();
            counts.into_iter().map(|count| tiers[tier].family.shares(count).0).max().unwrap_or(1)
        };
        let radices = (0..tiers.len()).map(radix).collect();
        Nest { layout, tiers, radices }
    }

    /// The blocks of the tier's cut that each member ends with.
    fn shares(&self, tier: usize, members: usize) -> Vec<Range<u32>> {
        let (parts, mut shares) = self.tiers[tier].family.shares(members as u32);
        let radix = self.radices[tier];
        if parts != radix {
            // A smaller group than others: its members take more blocks each.
            let scale = |block: u32| (u64::from(block) * u64::from(radix) / u64::from(parts)) as u32;
            shares.iter_mut().for_each(|share| *share = scale(share.start)..scale(share.end));
        }
        shares
    }

    /// The cells of a block, named by its number in each tier's cut.
    fn cells(&self, path: &[u32]) -> Range<u32> {
        let width = |depth: usize| self.radices[depth + 1..].iter().product::<u32>();
        let start = path.iter().enumerate().map(|(depth, block)| block * width(depth)).sum();
        let len: u32 = self.radices[path.len()..].iter().product();
        start..start + len
    }

    /// The rank that holds a block when all tiers below `tier` have scattered, in one of its members.
    fn owner(&self, tier: usize, member: &Range<Rank>, path: &[u32]) -> Rank {
        let Some(below) = tier.checked_sub(1) else { return member.start };
        let inner = members(self.layout, self.tiers, below, member.start);
        let shares = self.shares(below, inner.len());
        let holder =
            shares.iter().position(|share| share.contains(&path[below])).expect("every block has an owner");
        self.owner(below, &inner[holder], &path[..below])
    }

    /// The teams of a tier that `rank` is in, one for each block that it holds then; and the blocks it has afterwards.
    fn teams(&self, tier: usize, rank: Rank, paths: &[Vec<u32>]) -> (Vec<Team>, Vec<Vec<u32>>) {
        let members = members(self.layout, self.tiers, tier, rank);
        let me = member_of(&members, rank);
        let shares = self.shares(tier, members.len());
        let team = |path: &Vec<u32>| {
            let cells = self.cells(path);
            let width = cells.len() as u32 / self.radices[tier];
            let block =
                |share: &Range<u32>| one(cells.start + share.start * width..cells.start + share.end * width);
            let ranks = members.iter().map(|member| self.owner(tier, member, path)).collect();
            Team { ranks, me, blocks: shares.iter().map(block).collect() }
        };
        let with = |path: &Vec<u32>, block: u32| path.iter().copied().chain([block]).collect();
        let next = paths.iter().flat_map(|path| shares[me].clone().map(move |block| with(path, block)));
        (paths.iter().map(team).collect(), next.collect())
    }

    fn all_reduce(&self, schedule: &mut Schedule<'_>) {
        let (mut paths, mut tiers) = (vec![Vec::new()], Vec::new());
        for tier in 0..self.tiers.len() {
            let (teams, next) = self.teams(tier, schedule.spec().rank, &paths);
            tiers.push(teams);
            paths = next;
        }
        let window = |tier: usize| {
            let members = tiers[tier].iter().map(Team::len).max().unwrap_or(0);
            self.tiers[tier].family.window(members)
        };
        let windows: Vec<u32> = (0..tiers.len()).map(window).collect();
        if tiers.len() > 1 && schedule.spec().choice.lanes > 1 && windows.iter().all(|&window| window <= 64) {
            schedule.in_chunks();
        }
        let outermost = tiers.len() - 1;
        for (tier, teams) in tiers.iter().enumerate() {
            schedule.phase(windows[tier]);
            teams.iter().for_each(|team| self.tiers[tier].family.reduce_scatter(schedule, team));
        }
        for (tier, teams) in tiers.iter().enumerate().rev() {
            if tier < outermost {
                schedule.phase(windows[tier]);
            }
            teams.iter().for_each(|team| self.tiers[tier].family.all_gather(schedule, team));
        }
    }
}

/// The blocks of collectives in which every rank has one. Between the members of a group, ranks at the same place meet:
/// place l of a member with fewer ranks is taken by the rank at l modulo its size.
struct Rails<'a> {
    layout: &'a Layout,
    tiers: &'a [Tier],
}

impl Rails<'_> {
    fn all_gather(&self, schedule: &mut Schedule<'_>) {
        for tier in (0..self.tiers.len()).rev() {
            self.each_team(schedule, tier, |family, schedule, team| family.all_gather(schedule, team));
        }
    }

    fn reduce_scatter(&self, schedule: &mut Schedule<'_>) {
        for tier in 0..self.tiers.len() {
            self.each_team(schedule, tier, |family, schedule, team| family.reduce_scatter(schedule, team));
        }
    }

    fn each_team(
        &self,
        schedule: &mut Schedule<'_>,
        tier: usize,
        act: impl Fn(&dyn Family, &mut Schedule<'_>, &Team),
    ) {
        let family = self.tiers[tier].family;
        let teams = self.teams(tier, schedule.spec().rank);
        schedule.phase(family.window(teams.iter().map(Team::len).max().unwrap_or(0)));
        teams.iter().for_each(|team| act(family, schedule, team));
    }

    /// The teams of a tier that `rank` is in.
    fn teams(&self, tier: usize, rank: Rank) -> Vec<Team> {
        let members = members(self.layout, self.tiers, tier, rank);
        let me = member_of(&members, rank);
        let team = |place: u32| {
            let at = |member: &Range<Rank>| member.start + place % member.len() as u32;
            let block = |member: &Range<Rank>| match place < member.len() as u32 {
                true => self.held(tier, at(member)),
                false => Vec::new(),
            };
            Team { ranks: members.iter().map(at).collect(), me, blocks: members.iter().map(block).collect() }
        };
        places(&members, me, rank).map(team).collect()
    }

    /// The blocks that a rank has when an all-gather comes to this tier, from the outermost on.
    fn held(&self, tier: usize, rank: Rank) -> Vec<Range<u32>> {
        if tier + 1 == self.tiers.len() {
            return one(rank..rank + 1);
        }
        let members = members(self.layout, self.tiers, tier + 1, rank);
        let me = member_of(&members, rank);
        let of = |place: u32| {
            let with = members.iter().filter(move |member| place < member.len() as u32);
            with.flat_map(move |member| self.held(tier + 1, member.start + place))
        };
        places(&members, me, rank).flat_map(of).collect()
    }
}

/// The places that `rank` takes in its member: its own, and those that the member lacks.
fn places(members: &[Range<Rank>], me: usize, rank: Rank) -> impl Iterator<Item = u32> {
    let most = members.iter().map(|member| member.len() as u32).max().unwrap_or(0);
    (rank - members[me].start..most).step_by(members[me].len())
}
