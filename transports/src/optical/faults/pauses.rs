//! When ranks stand still.

use super::script::Fault;
use ubccl_core::Rank;

/// By rank: from and until, in order, apart from one another.
#[derive(Debug)]
pub(in crate::optical) struct Pauses(Vec<Vec<(u64, u64)>>);

impl Pauses {
    pub(super) fn new<'a>(pauses: impl Iterator<Item = &'a Fault>, ranks: u32) -> Self {
        let mut by_rank = vec![Vec::new(); ranks as usize];
        for fault in pauses {
            let of = fault.rank.map_or(0..ranks, |rank| rank..rank + 1);
            of.for_each(|rank| by_rank[rank as usize].push((fault.from_ps, fault.until_ps)));
        }
        for spans in &mut by_rank {
            spans.sort_unstable();
            // A later one that begins before the end of the one before goes on with it.
            spans.dedup_by(|later, earlier| {
                let is_one = later.0 <= earlier.1;
                if is_one {
                    earlier.1 = earlier.1.max(later.1);
                }
                is_one
            });
        }
        Pauses(by_rank)
    }

    /// Who goes on when.
    pub(in crate::optical) fn ends(&self) -> impl Iterator<Item = (Rank, u64)> + '_ {
        (0..).zip(&self.0).flat_map(|(rank, spans)| spans.iter().map(move |span| (rank, span.1)))
    }

    /// When a rank does something: at that time, or once it goes on.
    pub(in crate::optical) fn stands_until_ps(&self, rank: Rank, now_ps: u64) -> u64 {
        let standing = self.0[rank as usize].iter().find(|span| span.0 <= now_ps && now_ps < span.1);
        standing.map_or(now_ps, |span| span.1)
    }

    /// When a rank has done what takes so long from a time on.
    pub(in crate::optical) fn done_ps(&self, rank: Rank, from_ps: u64, duration_ps: u64) -> u64 {
        let mut end_ps = from_ps.saturating_add(duration_ps);
        for &(begin_ps, until_ps) in &self.0[rank as usize] {
            if until_ps > from_ps && begin_ps < end_ps {
                end_ps = end_ps.saturating_add(until_ps - begin_ps.max(from_ps));
            }
        }
        end_ps
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::FaultKind;
    use super::*;

    #[test]
    fn time_in_which_a_rank_stands_does_not_count() {
        let pause = |rank, from_ps, until_ps| Fault { kind: FaultKind::Pause, rank, from_ps, until_ps };
        let faults = [pause(Some(1), 50, 70), pause(None, 10, 20), pause(Some(1), 60, 90)];
        let pauses = Pauses::new(faults.iter(), 2);
        assert_eq!(pauses.0, [vec![(10, 20)], vec![(10, 20), (50, 90)]]);
        assert_eq!([0, 10, 19, 20, 55].map(|now_ps| pauses.stands_until_ps(1, now_ps)), [0, 20, 20, 20, 90]);
        assert_eq!(
            (pauses.done_ps(1, 0, 10), pauses.done_ps(1, 0, 11), pauses.done_ps(1, 15, 5)),
            (10, 21, 25)
        );
        assert_eq!(
            (pauses.done_ps(1, 0, 50), pauses.done_ps(0, 0, 50), pauses.done_ps(1, 90, 5)),
            (100, 60, 95)
        );
        assert_eq!(pauses.ends().collect::<Vec<_>>(), [(0, 20), (1, 20), (1, 90)]);
    }
}
