//! Runs all ranks to the end, or to the point where nothing can move.
//!
//! Timing is left out: a step is posted as soon as its edges and its lane's window allow it, and completes as soon as
//! what it waits for at its peers was posted. Nothing that is allowed ever becomes forbidden by something else
//! happening first, so all orders end alike, and one run per [`Mode`] stands for all.

use super::flat::{Flat, OWN};
use super::violation::{Mode, Violation, Waits};
use crate::collective::Rank;

/// Told what happens during a run.
pub(super) trait Observer {
    /// `step` of this lane was posted.
    fn posted(&mut self, flat: &Flat, rank: Rank, lane: usize, step: u32);
    /// `step` has completed; its partners were posted before.
    fn completed(&mut self, flat: &Flat, rank: Rank, step: u32);
}

/// A run.
pub(super) struct Run<'a> {
    flat: &'a Flat<'a>,
    mode: Mode,
    /// Per step: how many posts it waits for, its own included.
    missing: Vec<u32>,
    /// Per lane: the next step to post, and how many are under way.
    lanes: Vec<(u32, u32)>,
    /// Per step: its rank. (Looked up often.)
    lane_of: Vec<u32>,
    /// Ranks in which something completed, and whether a rank is among them.
    awake: Vec<Rank>,
    is_awake: Vec<bool>,
}

impl<'a> Run<'a> {
    pub(super) fn new(flat: &'a Flat<'a>, mode: Mode) -> Self {
        let mut lane_of = Vec::with_capacity(flat.total());
        for (lane, steps) in flat.lanes.iter().enumerate() {
            lane_of.resize(steps.steps.end as usize, lane as u32);
        }
        let mut run = Run {
            flat,
            mode,
            missing: Vec::new(),
            lanes: flat.lanes.iter().map(|lane| (lane.steps.start, 0)).collect(),
            lane_of,
            awake: (0..flat.ranks).rev().collect(),
            is_awake: vec![true; flat.ranks as usize],
        };
        run.missing = (0..flat.total() as u32).map(|step| run.posts_needed(step)).collect();
        run
    }

    /// Runs; an error if not every step completes.
    pub(super) fn finish(mut self, observer: &mut impl Observer) -> Result<(), Violation> {
        while let Some(rank) = self.awake.pop() {
            self.is_awake[rank as usize] = false;
            for lane in self.flat.lanes_of(rank) {
                while self.may_post(lane) {
                    self.post(rank, lane, observer);
                }
            }
        }
        self.check_ended()
    }

    fn posts_needed(&self, step: u32) -> u32 {
        if self.mode == Mode::Buffered && self.flat.steps[step as usize].sends {
            return 1;
        }
        let entries = &self.flat.entries[self.flat.entries_of(step)];
        1 + entries.iter().filter(|entry| entry.partner != OWN).count() as u32
    }

    #[inline]
    fn may_post(&self, lane: usize) -> bool {
        let (next, under_way) = self.lanes[lane];
        let lane = &self.flat.lanes[lane];
        next < lane.steps.end && under_way < lane.window && self.held_back(next).is_none()
    }

    /// An edge's target that has not completed.
    #[inline]
    fn held_back(&self, step: u32) -> Option<u32> {
        let arrows = &self.flat.arrows[self.flat.arrows_of(step)];
        arrows.iter().map(|arrow| arrow.target).find(|&target| self.missing[target as usize] > 0)
    }

    fn post(&mut self, rank: Rank, lane: usize, observer: &mut impl Observer) {
        let flat = self.flat;
        let step = self.lanes[lane].0;
        self.lanes[lane].0 += 1;
        self.lanes[lane].1 += 1;
        observer.posted(flat, rank, lane, step);
        let told = flat.steps[step as usize].sends || self.mode == Mode::Rendezvous;
        if told {
            for entry in &flat.entries[flat.entries_of(step)] {
                if entry.partner != OWN {
                    self.one_post_less(entry.peer, entry.partner, observer);
                }
            }
        }
        self.one_post_less(rank, step, observer);
    }

    #[inline]
    fn one_post_less(&mut self, rank: Rank, step: u32, observer: &mut impl Observer) {
        let missing = &mut self.missing[step as usize];
        *missing -= 1;
        if *missing > 0 {
            return;
        }
        self.lanes[self.lane_of[step as usize] as usize].1 -= 1;
        observer.completed(self.flat, rank, step);
        if !std::mem::replace(&mut self.is_awake[rank as usize], true) {
            self.awake.push(rank);
        }
    }

    fn check_ended(&self) -> Result<(), Violation> {
        let stuck =
            |lane: &usize| self.lanes[*lane].0 < self.flat.lanes[*lane].steps.end || self.lanes[*lane].1 > 0;
        let Some(lane) = (0..self.lanes.len()).find(stuck) else { return Ok(()) };
        let flat = self.flat;
        let next = self.lanes[lane].0;
        let incomplete = (flat.lanes[lane].steps.start..next).find(|&step| self.missing[step as usize] > 0);
        let (step, waits) = match incomplete {
            _ if next < flat.lanes[lane].steps.end && self.held_back(next).is_some() => {
                let target = self.held_back(next).expect("it was there a line ago");
                (next, Waits::ForEdge(flat.describe(target)))
            }
            Some(oldest) if next < flat.lanes[lane].steps.end => {
                (next, Waits::ForWindow(flat.describe(oldest)))
            }
            Some(oldest) => (oldest, Waits::ForPeer(flat.describe(self.unposted_partner(oldest)))),
            None => unreachable!("a lane with room, no edge and nothing under way posts"),
        };
        Err(Violation::Deadlock { mode: self.mode, step: flat.describe(step), waits })
    }

    fn unposted_partner(&self, step: u32) -> u32 {
        let entries = &self.flat.entries[self.flat.entries_of(step)];
        let unposted = |&partner: &u32| {
            partner != OWN && partner >= self.lanes[self.lane_of[partner as usize] as usize].0
        };
        entries
            .iter()
            .map(|entry| entry.partner)
            .find(unposted)
            .expect("a posted step waits for a partner's post")
    }
}
