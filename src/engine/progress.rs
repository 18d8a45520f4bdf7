//! Moving an engine on: in real time round by round, in virtual time after each step of the world.

use super::Engine;
use ubccl_core::endpoint::{Fault, Token};
use ubccl_core::plan::MAX_LANES;

impl Engine {
    /// Moves on everything that can move. `true` if anything did.
    pub(crate) fn progress(&mut self) -> Result<bool, Fault> {
        let mut moved = !self.is_idle() && self.collect()?;
        while !self.is_idle() {
            // What has posted all it could needs a completion to post more.
            if !self.post()? {
                return Ok(moved);
            }
            moved = true;
            if !self.is_idle() && !self.collect()? && self.loose.is_empty() && !self.is_front_new() {
                return Ok(true);
            }
        }
        Ok(moved)
    }

    /// One round: begin, post, poll, complete.
    #[inline]
    pub(crate) fn turn(&mut self) -> Result<bool, Fault> {
        if self.is_idle() {
            return Ok(false);
        }
        let posted = self.post()?;
        if self.is_idle() {
            return Ok(true);
        }
        Ok(posted | self.collect()?)
    }

    /// Moves on everything that can move after a step of a world, where nothing completes between steps.
    pub(crate) fn step(&mut self) -> Result<(), Fault> {
        if !self.is_idle() {
            self.collect()?;
        }
        while !self.is_idle() && self.post()? && (!self.loose.is_empty() || self.is_front_new()) {
            self.collect()?;
        }
        self.heed();
        Ok(())
    }

    /// Tells the endpoint which completions let more be posted, now that all was posted that could be: the world names
    /// this rank for no others.
    #[inline]
    fn heed(&mut self) {
        let (mut wanted, mut count) = ([Token(0); MAX_LANES], 0);
        let each = |token| {
            wanted[count] = token; // at most one for each lane
            count += 1;
        };
        let is_known = self.loose.is_empty()
            && !self.tagged.is_waiting()
            && self.queue.front().is_some_and(|&front| {
                let slot = &self.slots[front];
                slot.call.is_none() && slot.execution.awaits(front as u32, each)
            });
        self.endpoint.heed(is_known.then_some(&wanted[..count]));
    }
}
