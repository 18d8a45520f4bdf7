//! What must have happened before what: passed along lanes, edges and messages while a run goes on.
//!
//! Only what a plan guarantees counts: a post comes after its lane's posts before it and after its edges' targets, a
//! receive completes after its senders' posts. That something happened to have completed proves nothing.

use super::flat::{Flat, OWN};
use super::run::Observer;
use super::violation::Violation;
use crate::collective::Rank;

/// Something that grows along dependencies.
pub(super) trait Stamps {
    /// What a rank has before its first step.
    fn start(&mut self, rank: Rank) -> u32;
    /// The least that has both.
    fn join(&mut self, a: u32, b: u32) -> u32;
    /// After a message more.
    fn hop(&self, stamp: u32) -> u32;
}

/// Follows stamps through a run.
pub(super) struct Track<S> {
    pub(super) stamps: S,
    posted: Vec<u32>,
    completed: Vec<u32>,
    lanes: Vec<u32>,
    /// Per rank: all it has when its last step has completed.
    pub(super) ends: Vec<u32>,
}

impl<S: Stamps> Track<S> {
    pub(super) fn new(flat: &Flat, mut stamps: S) -> Self {
        let ends: Vec<u32> = (0..flat.ranks).map(|rank| stamps.start(rank)).collect();
        let mut lanes = Vec::with_capacity(flat.lanes.len());
        for rank in 0..flat.ranks {
            lanes.resize(flat.lanes_of(rank).end, ends[rank as usize]);
        }
        Track { stamps, posted: vec![0; flat.total()], completed: vec![0; flat.total()], lanes, ends }
    }
}

impl<S: Stamps> Observer for Track<S> {
    fn posted(&mut self, flat: &Flat, _: Rank, lane: usize, step: u32) {
        let mut stamp = self.lanes[lane];
        for arrow in &flat.arrows[flat.arrows_of(step)] {
            stamp = self.stamps.join(stamp, self.completed[arrow.target as usize]);
        }
        let flat_lane = &flat.lanes[lane];
        if flat_lane.window == 1 && step > flat_lane.steps.start {
            stamp = self.stamps.join(stamp, self.completed[step as usize - 1]);
        }
        self.lanes[lane] = stamp;
        self.posted[step as usize] = stamp;
    }

    fn completed(&mut self, flat: &Flat, rank: Rank, step: u32) {
        let mut stamp = self.posted[step as usize];
        if !flat.steps[step as usize].sends {
            for entry in &flat.entries[flat.entries_of(step)] {
                if entry.partner != OWN {
                    let arrived = self.stamps.hop(self.posted[entry.partner as usize]);
                    stamp = self.stamps.join(stamp, arrived);
                }
            }
        }
        self.completed[step as usize] = stamp;
        self.ends[rank as usize] = self.stamps.join(self.ends[rank as usize], stamp);
    }
}

/// How many messages hang on each other, one after the other.
pub(super) struct Depth;

impl Stamps for Depth {
    fn start(&mut self, _: Rank) -> u32 {
        0
    }

    fn join(&mut self, a: u32, b: u32) -> u32 {
        a.max(b)
    }

    fn hop(&self, stamp: u32) -> u32 {
        stamp + 1
    }
}

/// Which ranks have started: stamps are numbers of bit sets, which are kept once made.
pub(super) struct Starts {
    words: usize,
    bits: Vec<u64>,
}

impl Starts {
    pub(super) fn new(ranks: u32) -> Self {
        Starts { words: (ranks as usize).div_ceil(64), bits: Vec::new() }
    }

    fn set(&self, stamp: u32) -> &[u64] {
        &self.bits[stamp as usize * self.words..][..self.words]
    }

    fn holds(&self, a: u32, b: u32) -> bool {
        self.set(a).iter().zip(self.set(b)).all(|(a, b)| b & !a == 0)
    }

    /// Checks that each rank's end comes after every rank's start.
    pub(super) fn check_barrier(&self, ends: &[u32]) -> Result<(), Violation> {
        for (rank, &end) in ends.iter().enumerate() {
            let has = |missing: &Rank| self.set(end)[*missing as usize / 64] >> (missing % 64) & 1 == 1;
            if let Some(missing) = (0..ends.len() as Rank).find(|missing| !has(missing)) {
                return Err(Violation::Leak { rank: rank as Rank, missing });
            }
        }
        Ok(())
    }
}

impl Stamps for Starts {
    fn start(&mut self, rank: Rank) -> u32 {
        let stamp = self.bits.len() / self.words;
        self.bits.resize(self.bits.len() + self.words, 0);
        self.bits[stamp * self.words + rank as usize / 64] = 1 << (rank % 64);
        stamp as u32
    }

    fn join(&mut self, a: u32, b: u32) -> u32 {
        if a == b || self.holds(a, b) {
            return a;
        }
        if self.holds(b, a) {
            return b;
        }
        let stamp = self.bits.len() / self.words;
        for word in 0..self.words {
            let both = self.bits[a as usize * self.words + word] | self.bits[b as usize * self.words + word];
            self.bits.push(both);
        }
        stamp as u32
    }

    fn hop(&self, stamp: u32) -> u32 {
        stamp
    }
}
