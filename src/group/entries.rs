//! What a group collects, and how it becomes operations.
#![allow(unsafe_code)] // hands callers' buffers to the engine, and copies messages of a rank to itself

use crate::communicator::Shared;
use crate::engine::{Buffers, Engine, OpId};
use std::any::Any;
use ubccl_core::blocks::Message;
use ubccl_core::collective::CallStore;
use ubccl_core::endpoint::{HostPointer, Memory};
use ubccl_core::group::GroupSide;
use ubccl_core::plan::Side;
use ubccl_core::{Collective, DataType, Error, Rank, Result, Signature};

/// What one group collects. Kept and filled again, so that warm groups allocate nothing.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    sends: Vec<Entry>,
    receives: Vec<Entry>,
    /// The first `calls_used` are of this group.
    calls: Vec<Collected>,
    calls_used: usize,
    tables: [GroupSide; 2],
    /// What was issued.
    pub(super) ops: Vec<OpId>,
}

/// One message.
#[derive(Clone, Copy, Debug)]
struct Entry {
    peer: Rank,
    address: HostPointer,
    bytes: u64,
    signature: Signature,
}

/// A collective in a group.
#[derive(Debug, Default)]
struct Collected {
    call: CallStore,
    buffers: Option<Buffers>,
}

/// A buffer by address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) address: HostPointer,
    pub(super) count: u64,
    pub(super) dtype: DataType,
}

impl Entries {
    /// Forgets everything collected; memory is kept.
    pub(super) fn clear(&mut self) {
        self.sends.clear();
        self.receives.clear();
        self.calls_used = 0;
        self.ops.clear();
    }

    /// Adds a message.
    ///
    /// Errors: InvalidArgument.
    pub(super) fn add(&mut self, shared: &Shared, side: Side, peer: Rank, place: Place) -> Result<()> {
        let Place { address, count, dtype } = place;
        let call = match side {
            Side::Send => Collective::send_receive(count, dtype, Some(peer), None),
            Side::Receive => Collective::send_receive(count, dtype, None, Some(peer)),
        };
        call.check(shared.ranks, shared.rank)?;
        if address.0 == 0 && count > 0 {
            return Err(Error::invalid(format!("{call}: the buffer is null")));
        }
        let bytes = count * dtype.size() as u64;
        let entry = Entry { peer, address, bytes, signature: call.signature(0) };
        match side {
            Side::Send => self.sends.push(entry),
            Side::Receive => self.receives.push(entry),
        }
        Ok(())
    }

    /// Adds a collective that was checked.
    pub(super) fn add_call(&mut self, call: &Collective<'_>, buffers: Buffers) {
        if self.calls_used == self.calls.len() {
            self.calls.push(Collected::default());
        }
        let collected = &mut self.calls[self.calls_used];
        collected.call.set(call);
        collected.buffers = Some(buffers);
        self.calls_used += 1;
    }

    /// Issues everything: the collectives in their order, and all messages as one operation. Nothing is sent if this
    /// fails.
    ///
    /// # Safety
    /// As for `Engine::issue`, for all memory that was added, until every one of `ops` is over.
    pub(super) unsafe fn issue(
        &mut self,
        shared: &Shared,
        engine: &mut Engine,
        owned: &dyn Fn() -> Option<Box<dyn Any + Send>>,
    ) -> Result<()> {
        // SAFETY: the caller vouches.
        let issued = unsafe { self.issue_all(shared, engine, owned) };
        if issued.is_err() && !self.ops.is_empty() {
            // Only a defect could bring this about, but the buffers go back to their owner.
            engine.cancel();
        }
        issued
    }

    /// # Safety
    /// As [`Entries::issue`].
    unsafe fn issue_all(
        &mut self,
        shared: &Shared,
        engine: &mut Engine,
        owned: &dyn Fn() -> Option<Box<dyn Any + Send>>,
    ) -> Result<()> {
        shared.control.poison().check()?;
        let me = shared.rank;
        self.check_own(me)?;
        let bases = [(Side::Send, &self.sends), (Side::Receive, &self.receives)]
            .map(|(side, entries)| fill(&mut self.tables[side as usize], entries, (side, me, shared.ranks)));
        let [send, receive] = &self.tables;
        let group = Collective::group(send.sorted(), receive.sorted());
        group.check(shared.ranks, me)?;
        let calls = &mut self.calls[..self.calls_used];
        // Whatever can fail does so before anything is begun: plans are found, and nobody is missed.
        for Collected { call, buffers } in &*calls {
            engine.plan(&call.get(), matches!(buffers, Some(Buffers::InPlace(_))))?;
            shared.check_present(engine, &call.get())?;
        }
        engine.plan(&group, false)?;
        shared.check_present(engine, &group)?;
        // SAFETY: the caller vouches for the memory.
        unsafe { copy_own(&self.sends, &self.receives, me) };
        for Collected { call, buffers } in calls {
            let buffers = buffers.take().expect("a collected call has its buffers until it is issued");
            // SAFETY: the caller vouches.
            self.ops.push(unsafe { engine.issue(&call.get(), buffers, owned()) }?);
            shared.tell(engine, &call.get());
        }
        if send.sorted().is_empty() && receive.sorted().is_empty() {
            return Ok(());
        }
        let [input, output] = bases;
        // SAFETY: the caller vouches for the buffers, and nothing between them is touched.
        self.ops.push(unsafe { engine.issue(&group, Buffers::Apart { input, output }, owned()) }?);
        shared.tell(engine, &group);
        Ok(())
    }

    /// Whether the messages of this rank to itself have partners alike.
    fn check_own(&self, me: Rank) -> Result<()> {
        let (mut sends, mut receives) = (own(&self.sends, me), own(&self.receives, me));
        loop {
            let what = match (sends.next(), receives.next()) {
                (None, None) => return Ok(()),
                (Some(send), Some(receive)) if send.signature == receive.signature => continue,
                (Some(send), Some(receive)) => {
                    format!("sends itself {} and receives from itself {}", send.signature, receive.signature)
                }
                (Some(send), None) => format!("sends itself {} and does not receive it", send.signature),
                (None, Some(receive)) => {
                    format!("receives {} from itself and does not send it", receive.signature)
                }
            };
            return Err(Error::invalid(format!("group: rank {me} {what}, in one group")));
        }
    }
}

fn own(entries: &[Entry], me: Rank) -> impl Iterator<Item = &Entry> {
    entries.iter().filter(move |entry| entry.peer == me)
}

/// Copies the messages of a rank to itself.
///
/// # Safety
/// All memory is valid, and lengths were checked by `check_own`.
unsafe fn copy_own(sends: &[Entry], receives: &[Entry], me: Rank) {
    for (send, receive) in own(sends, me).zip(own(receives, me)) {
        let from = std::ptr::with_exposed_provenance::<u8>(send.address.0);
        let into = std::ptr::with_exposed_provenance_mut::<u8>(receive.address.0);
        if send.bytes > 0 {
            // SAFETY: the caller vouches for both; they may overlap, for `copy` that is no matter.
            unsafe { std::ptr::copy(from, into, send.bytes as usize) };
        }
    }
}

/// Makes a table of the messages to and from others, and answers the memory from the lowest to the highest of their
/// buffers. What lies between them is not touched.
fn fill(table: &mut GroupSide, entries: &[Entry], (side, me, ranks): (Side, Rank, u32)) -> Memory {
    let others = || entries.iter().filter(|entry| entry.peer != me);
    let filled = || others().filter(|entry| entry.bytes > 0);
    let first = filled().map(|entry| entry.address.0 as u64).min().unwrap_or(0);
    let end = filled().map(|entry| entry.address.0 as u64 + entry.bytes).max().unwrap_or(0);
    table.clear();
    for &Entry { peer, address, bytes, signature } in others() {
        // The address of an empty buffer says nothing.
        let start = if bytes == 0 { 0 } else { address.0 as u64 - first };
        table.push(Message { peer, start, len: bytes, signature });
    }
    table.sort(side, me, ranks);
    Memory::Host { address: HostPointer(first as usize), len: end - first }
}
