//! Runs all ranks to the end, or to the point where nothing can move.
//!
//! Timing is left out: a step is posted as soon as its edges and its lane's window allow it, and completes as soon as
//! its [`Mode`] allows it. Nothing that is allowed ever becomes forbidden by something else happening first, so all
//! orders end alike, and one run per mode stands for all. [`Mode::Rendezvous`] is the least that an endpoint does: a
//! message longer than what is buffered is under way until the step that takes it has taken all of it, which a reduction
//! does piece by piece with all its other sources, and the channel's later messages wait behind it. Whatever an endpoint
//! buffers beyond that lets steps complete earlier only.

use super::flat::{Flat, LAST, OWN};
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
    /// Per step: how many events it waits for: its own post, posts of partners, completions of partners and of steps
    /// whose turn on a channel is before its own.
    missing: Vec<u32>,
    /// Per lane: the next step to post, and how many are under way.
    lanes: Vec<(u32, u32)>,
    /// Per step: its rank. (Looked up often.)
    lane_of: Vec<u32>,
    /// Ranks in which something completed, and whether a rank is among them.
    awake: Vec<Rank>,
    is_awake: Vec<bool>,
    /// Steps that wait for nothing any more and have not been completed.
    ready: Vec<(Rank, u32)>,
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
            ready: Vec::new(),
        };
        run.missing = (0..flat.total() as u32).map(|step| run.events_needed(step)).collect();
        if mode == Mode::Rendezvous {
            let next = flat.entries.iter().map(|entry| entry.next);
            next.filter(|&next| next != LAST).for_each(|next| run.missing[next as usize] += 1);
        }
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

    /// Without turns.
    fn events_needed(&self, step: u32) -> u32 {
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
        if flat.steps[step as usize].sends {
            for entry in &flat.entries[flat.entries_of(step)] {
                self.one_event_less(entry.peer, entry.partner);
            }
        }
        self.one_event_less(rank, step);
        while let Some((rank, step)) = self.ready.pop() {
            self.complete(rank, step, observer);
        }
    }

    #[inline]
    fn one_event_less(&mut self, rank: Rank, step: u32) {
        let missing = &mut self.missing[step as usize];
        *missing -= 1;
        if *missing == 0 {
            self.ready.push((rank, step));
        }
    }

    #[inline]
    fn complete(&mut self, rank: Rank, step: u32, observer: &mut impl Observer) {
        let flat = self.flat;
        self.lanes[self.lane_of[step as usize] as usize].1 -= 1;
        observer.completed(flat, rank, step);
        if !std::mem::replace(&mut self.is_awake[rank as usize], true) {
            self.awake.push(rank);
        }
        if self.mode == Mode::Buffered || flat.steps[step as usize].sends {
            return;
        }
        for entry in &flat.entries[flat.entries_of(step)] {
            if entry.partner != OWN {
                self.one_event_less(entry.peer, entry.partner);
            }
            if entry.next != LAST {
                self.one_event_less(rank, entry.next);
            }
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
            Some(oldest) => (oldest, self.waits(oldest)),
            None => unreachable!("a lane with room, no edge and nothing under way posts"),
        };
        Err(Violation::Deadlock { mode: self.mode, step: flat.describe(step), waits })
    }

    /// What a lane's oldest incomplete step waits for. It is not its turn: the steps before it on its channels are the
    /// lane's too.
    fn waits(&self, step: u32) -> Waits {
        let flat = self.flat;
        let entries = &flat.entries[flat.entries_of(step)];
        let partners = || entries.iter().map(|entry| entry.partner).filter(|&partner| partner != OWN);
        let is_posted = |partner: u32| partner < self.lanes[self.lane_of[partner as usize] as usize].0;
        if let Some(partner) = partners().find(|&partner| !is_posted(partner)) {
            return Waits::ForPeer(flat.describe(partner));
        }
        let receiver = partners().find(|&partner| self.missing[partner as usize] > 0);
        Waits::ForReceiver(
            flat.describe(receiver.expect("with all its partners posted, a send waits for a receiver")),
        )
    }
}
