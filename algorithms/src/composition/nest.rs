//! Collectives whose vector may be cut as the tiers like: all-reduce, broadcast, reduce.

use super::{Tier, member_of, members, one};
use crate::scatter_all_gather::{gather, scatter, steps};
use crate::schedule::Schedule;
use crate::share::root_of;
use crate::team::Team;
use std::collections::BTreeSet;
use std::ops::Range;
use ubccl_core::{Layout, Rank};

/// An all-reduce's blocks: each tier cuts those of the tier below.
pub(super) struct Nest<'a> {
    layout: &'a Layout,
    tiers: &'a [Tier],
    /// Into how many blocks each tier cuts.
    pub(super) radices: Vec<u32>,
}

impl<'a> Nest<'a> {
    pub(super) fn new(layout: &'a Layout, tiers: &'a [Tier]) -> Self {
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

    /// The teams that a rank is in, of each tier.
    fn all_teams(&self, rank: Rank) -> Vec<Vec<Team>> {
        let mut paths = vec![Vec::new()];
        let each = (0..self.tiers.len()).map(|tier| {
            let (teams, next) = self.teams(tier, rank, &paths);
            paths = next;
            teams
        });
        each.collect()
    }

    pub(super) fn all_reduce(&self, schedule: &mut Schedule<'_>) {
        let tiers = self.begin(schedule);
        self.reduce_scatters(schedule, &tiers);
        // The outermost tier goes on in the same lane.
        self.all_gathers(schedule, &tiers, tiers.len() - 1);
    }

    pub(super) fn broadcast(&self, schedule: &mut Schedule<'_>) {
        let tiers = self.begin(schedule);
        schedule.phase(64);
        let mut round = 0;
        for (tier, teams) in tiers.iter().enumerate() {
            let (around, from, steps) = self.around_root(schedule, tier);
            if around.contains(&schedule.spec().rank) {
                teams.iter().for_each(|team| scatter(schedule, team, from, round));
            }
            round += steps;
            schedule.settle(round);
        }
        schedule.hold_back();
        self.all_gathers(schedule, &tiers, tiers.len());
    }

    pub(super) fn reduce(&self, schedule: &mut Schedule<'_>) {
        let tiers = self.begin(schedule);
        self.reduce_scatters(schedule, &tiers);
        schedule.phase(64);
        let mut round = schedule.rounds();
        for (tier, teams) in tiers.iter().enumerate().rev() {
            let (around, to, steps) = self.around_root(schedule, tier);
            if around.contains(&schedule.spec().rank) {
                teams.iter().for_each(|team| gather(schedule, team, to, round));
            }
            round += steps;
            schedule.settle(round);
        }
    }

    /// Of a tier: the ranks that are in one group with the root, which member of it the root is in, and how many steps it
    /// takes to bring something from there to all members that have blocks.
    fn around_root(&self, schedule: &Schedule<'_>, tier: usize) -> (Range<Rank>, usize, usize) {
        let root = root_of(schedule.spec());
        let members = members(self.layout, self.tiers, tier, root);
        let from = member_of(&members, root);
        let shares = self.shares(tier, members.len());
        let others = shares.iter().enumerate().filter(|(member, share)| *member != from && !share.is_empty());
        (members[0].start..members[members.len() - 1].end, from, steps(1 + others.count()))
    }

    /// The teams of each tier; says whether there are chunks.
    fn begin(&self, schedule: &mut Schedule<'_>) -> Vec<Vec<Team>> {
        let tiers = self.all_teams(schedule.spec().rank);
        let are_narrow = tiers.iter().enumerate().all(|(tier, teams)| self.window(tier, teams) <= 64);
        if tiers.len() > 1 && schedule.spec().choice.lanes > 1 && are_narrow {
            schedule.in_chunks();
        }
        tiers
    }

    fn window(&self, tier: usize, teams: &[Team]) -> u32 {
        self.tiers[tier].family.window(teams.iter().map(Team::len).max().unwrap_or(0))
    }

    fn reduce_scatters(&self, schedule: &mut Schedule<'_>, tiers: &[Vec<Team>]) {
        for (tier, teams) in tiers.iter().enumerate() {
            schedule.phase(self.window(tier, teams));
            let family = self.tiers[tier].family;
            schedule.for_each_beside(teams, |schedule, team| family.reduce_scatter(schedule, team));
        }
    }

    /// From the outermost tier down; those below `phases` have lanes of their own.
    fn all_gathers(&self, schedule: &mut Schedule<'_>, tiers: &[Vec<Team>], phases: usize) {
        for (tier, teams) in tiers.iter().enumerate().rev() {
            if tier < phases {
                schedule.phase(self.window(tier, teams));
            }
            let family = self.tiers[tier].family;
            schedule.for_each_beside(teams, |schedule, team| family.all_gather(schedule, team));
        }
    }
}
