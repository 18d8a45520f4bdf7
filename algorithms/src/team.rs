//! What a family does among the members of one team, so that it can stand at any level of a composition.

use crate::schedule::Schedule;
use crate::turns::peers;
use std::ops::Range;
use ubccl_core::Rank;

/// Ranks that reduce or gather together, as one of them sees it.
#[derive(Clone, Debug)]
pub(crate) struct Team {
    /// The members, in order.
    pub(crate) ranks: Vec<Rank>,
    /// Which of them this rank is.
    pub(crate) me: usize,
    /// What each member ends with, of a reduce-scatter, or begins with, of an all-gather.
    pub(crate) blocks: Vec<Vec<Range<u32>>>,
}

impl Team {
    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.ranks.len()
    }

    /// The member `by` further on the circle.
    pub(crate) fn member(&self, by: isize) -> usize {
        (self.me as isize + by).rem_euclid(self.len() as isize) as usize
    }

    /// The rank `by` further on the circle.
    pub(crate) fn rank(&self, by: isize) -> Rank {
        self.ranks[self.member(by)]
    }

    /// The blocks of the members at these distances on the circle.
    pub(crate) fn blocks(&self, distances: impl IntoIterator<Item = isize>) -> Vec<Range<u32>> {
        distances.into_iter().flat_map(|by| self.blocks[self.member(by)].iter().cloned()).collect()
    }

    /// At each turn of a mesh, to which member this one sends, and from which it receives.
    pub(crate) fn turns(&self) -> Vec<(usize, usize)> {
        let turns = peers(self.me as u32, self.len() as u32);
        turns.map(|(to, from)| (to as usize, from as usize)).collect()
    }

    /// Everybody else's ranks, in the order of turns.
    pub(crate) fn others(&self) -> Vec<Rank> {
        self.turns().into_iter().map(|(to, _)| self.ranks[to]).collect()
    }
}

/// A family as part of a composition.
pub(crate) trait Family: Sync {
    /// Its name in a composition, and alone.
    fn name(&self) -> &'static str;

    /// Into how many blocks a team of so many cuts its vector, and which of them each member ends with. A member may end
    /// with none.
    fn shares(&self, members: u32) -> (u32, Vec<Range<u32>>) {
        (members, (0..members).map(|member| member..member + 1).collect())
    }

    /// How many messages a member of a team of so many sends in a reduce-scatter, and in an all-gather, of a vector that is
    /// cut as the family likes. A plan names each of them.
    fn messages(&self, members: u32) -> u32 {
        2 * (members.next_power_of_two().trailing_zeros() + 1)
    }

    /// Why it does no reduce-scatter and all-gather of so many ranks, in which every one has a block of its own.
    fn refuses_blocks(&self, _ranks: u32) -> Option<&'static str> {
        None
    }

    /// Why it does no all-to-all, in which every two ranks have something for each other alone.
    fn refuses_exchange(&self) -> Option<&'static str> {
        Some("blocks would take detours; of the families of a composition, only mesh exchanges")
    }

    /// In which order an all-gather brings member `me` what each has, the own first and then that of the member before, of
    /// the one before that, and so on round the circle. A tier that hands it on does so in this order, and a
    /// reduce-scatter takes it the other way round: then messages need not wait for each other.
    fn arrivals(&self, _me: usize, had: Vec<Vec<Range<u32>>>) -> Vec<Range<u32>> {
        had.concat()
    }

    /// How many steps of one member may have to be under way at once.
    fn window(&self, _members: usize) -> u32 {
        64
    }

    /// Has each member end with its blocks, reduced over all.
    fn reduce_scatter(&self, schedule: &mut Schedule<'_>, team: &Team);

    /// Has each member end with all blocks.
    fn all_gather(&self, schedule: &mut Schedule<'_>, team: &Team);
}
