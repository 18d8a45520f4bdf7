//! Tagged messages of a simulated world.
#![allow(unsafe_code)] // hands buffers that are borrowed to the engines

use super::World;
use crate::engine::{Engine, OpId, Status, TaggedCall, TaggedKind};
use ubccl_core::endpoint::{HostPointer, Memory};
use ubccl_core::{Collective, DataType, Rank, Result};

/// One rank's part in a tagged message, on bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedStep {
    /// The rank.
    pub rank: Rank,
    /// Which way.
    pub way: TaggedWay,
    /// The tag.
    pub tag: u32,
    /// What is sent, or where what comes goes to.
    pub bytes: Vec<u8>,
}

/// Which way a tagged message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaggedWay {
    /// To this rank.
    To(Rank),
    /// From this rank, or any; whose it was is found there afterwards.
    From(Option<Rank>),
}

impl World {
    /// Runs tagged messages at once: every rank issues its steps in the order listed.
    ///
    /// Errors: InvalidArgument (nothing ran), or the cause that poisoned the world.
    pub fn run_tagged(&mut self, steps: &mut [TaggedStep]) -> Result<()> {
        if let Some(error) = &self.poisoned {
            return Err(error.clone());
        }
        steps.iter().try_for_each(|step| step.check(self.config.ranks))?;
        let mut ids = Vec::with_capacity(steps.len());
        for step in steps.iter_mut() {
            let engine = &mut self.engines[step.rank as usize];
            engine.set_phantom(false);
            // SAFETY: the bytes are borrowed until this call returns, by which time all is done, or the engines are
            // cancelled.
            match unsafe { engine.issue_tagged(step.call(), None) } {
                Ok(id) => ids.push(id),
                Err(error) => {
                    self.engines.iter_mut().for_each(Engine::cancel);
                    self.poisoned = Some(error.clone());
                    return Err(error);
                }
            }
        }
        let mut of_rank = vec![Vec::new(); self.config.ranks as usize];
        steps.iter().zip(&ids).for_each(|(step, &id)| of_rank[step.rank as usize].push(id));
        let ended = |engines: &[Engine], rank: Rank, _now_ps: u64| {
            let waiting: &mut Vec<OpId> = &mut of_rank[rank as usize];
            let before = waiting.len();
            waiting.retain(|&id| engines[rank as usize].status(id) == Status::Pending);
            before - waiting.len()
        };
        self.drive(ids.len(), ended).inspect_err(|error| self.poisoned = Some(error.clone()))?;
        for (step, id) in steps.iter_mut().zip(ids) {
            let taken = self.engines[step.rank as usize].take(id);
            if let TaggedWay::From(source) = &mut step.way {
                *source = taken.source;
            }
        }
        Ok(())
    }
}

impl TaggedStep {
    fn check(&self, ranks: u32) -> Result<()> {
        let (to, from) = match self.way {
            TaggedWay::To(to) => (Some(to), None),
            TaggedWay::From(source) => (None, source),
        };
        let call = Collective::send_receive(self.bytes.len() as u64, DataType::U8, to, from);
        call.check(ranks, self.rank)?;
        // The rank itself is checked as if it sent to itself.
        Collective::send_receive(0, DataType::U8, Some(self.rank), None).check(ranks, self.rank)
    }

    fn call(&mut self) -> TaggedCall {
        let what = match self.way {
            TaggedWay::To(to) => TaggedKind::Send(to),
            TaggedWay::From(source) => TaggedKind::Receive(source),
        };
        let address = HostPointer(self.bytes.as_mut_ptr().expose_provenance());
        let count = self.bytes.len() as u64;
        TaggedCall {
            what,
            tag: self.tag,
            count,
            dtype: DataType::U8,
            memory: Memory::Host { address, len: count },
        }
    }
}
