//! Tagged messages of a simulated world.
#![allow(unsafe_code)] // hands buffers that are borrowed to the engines

use super::operations::{Collected, Part};
use super::{RankMemory, World};
use crate::engine::{TaggedCall, TaggedKind};
use ubccl_core::endpoint::{CommunicatorId, HostPointer, Memory};
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
    /// Errors: InvalidArgument (nothing ran), or the cause that poisoned the communicator.
    pub fn run_tagged(&mut self, steps: &mut [TaggedStep]) -> Result<()> {
        self.run_tagged_on(CommunicatorId::WORLD, steps)
    }

    /// The same on any communicator, whose ranks the steps name.
    pub fn run_tagged_on(&mut self, communicator: CommunicatorId, steps: &mut [TaggedStep]) -> Result<()> {
        let company = self.usable(communicator)?;
        steps.iter().try_for_each(|step| step.check(company.size()))?;
        let calls: Vec<TaggedCall> = steps.iter_mut().map(TaggedStep::call).collect();
        // The bytes are the world's until all is done, whatever happens meanwhile.
        let memory =
            steps.iter_mut().map(|step| RankMemory::InPlace(std::mem::take(&mut step.bytes))).collect();
        let issued = self.issue_tagged(communicator, steps, calls);
        // Where each part's step stands: parts go by rank, in the order issued.
        let mut places: Vec<usize> = (0..steps.len()).collect();
        places.sort_by_key(|&place| steps[place].rank);
        let parts = issued.as_ref().map(|parts| places.iter().map(|&place| parts[place]).collect());
        let number = self.enter(communicator, parts.unwrap_or_default(), "tagged", memory);
        self.drive(&[number]);
        let Collected { outcome, memory, sources } = self.collect(number);
        for (step, memory) in steps.iter_mut().zip(memory) {
            step.bytes = memory.into_output();
        }
        for (place, found) in places.into_iter().zip(sources) {
            if let TaggedWay::From(source) = &mut steps[place].way {
                *source = found;
            }
        }
        issued.and(outcome.map(drop))
    }

    /// Issues each step on its rank. If one fails, the communicator is poisoned.
    fn issue_tagged(
        &mut self,
        communicator: CommunicatorId,
        steps: &[TaggedStep],
        calls: Vec<TaggedCall>,
    ) -> Result<Vec<Part>> {
        let company = &mut self.communicators[communicator.0 as usize];
        let mut parts = Vec::with_capacity(steps.len());
        for (step, call) in steps.iter().zip(calls) {
            let engine = &mut company.engines[step.rank as usize];
            engine.set_phantom(false);
            // SAFETY: the world keeps the bytes until the operation is collected, when all is done or cancelled.
            match unsafe { engine.issue_tagged(call, None) } {
                Ok(id) => parts.push(Part::new(step.rank, id)),
                Err(error) => {
                    company.poison(error.clone());
                    return Err(error);
                }
            }
        }
        Ok(parts)
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
