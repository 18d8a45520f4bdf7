//! Tagged messages of a simulated world.
#![allow(unsafe_code)] // hands buffers that are borrowed to the engines

use super::World;
use crate::engine::{Engine, OpId, Status, TaggedCall, TaggedKind};
use ubccl_core::endpoint::{CommunicatorId, HostPointer, Memory, Place};
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

    /// The same on any communicator; the steps' ranks are its.
    pub fn run_tagged_on(&mut self, communicator: CommunicatorId, steps: &mut [TaggedStep]) -> Result<()> {
        let ranks = self.usable(communicator)?.size();
        steps.iter().try_for_each(|step| step.check(ranks))?;
        let mut ids = Vec::with_capacity(steps.len());
        for step in steps.iter_mut() {
            let company = &mut self.communicators[communicator.0 as usize];
            let engine = &mut company.engines[step.rank as usize];
            // SAFETY: the bytes are borrowed until this call returns, by which time all is done, or the engines are
            // cancelled.
            match unsafe { engine.issue_tagged(step.call(), None) } {
                Ok(id) => ids.push((step.rank, id)),
                Err(error) => {
                    company.poison(error.clone());
                    return Err(error);
                }
            }
        }
        let mut waiting = ids.clone();
        let everybody = (0..ranks).map(|rank| Place { communicator, rank });
        let woken = self.places_under_way().into_iter().filter(|place| place.communicator != communicator);
        let woken = woken.chain(everybody).collect();
        self.drive_until(woken, |world| {
            let company = &world.communicators[communicator.0 as usize];
            let is_pending =
                |&(rank, id): &(Rank, OpId)| company.engines[rank as usize].status(id) == Status::Pending;
            waiting.retain(is_pending);
            let &(rank, _) = waiting.first().filter(|_| company.poisoned.is_none())?;
            Some(Place { communicator, rank })
        });
        let company = &mut self.communicators[communicator.0 as usize];
        company.inspect(Engine::inspect);
        company.check()?;
        for (step, (rank, id)) in steps.iter_mut().zip(ids) {
            let taken = company.engines[rank as usize].take(id);
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
