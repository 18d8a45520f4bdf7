//! Memory of simulated ranks: real bytes or fingerprints, and the copies that travel in messages.
#![allow(unsafe_code)] // copies between registered memory and the buffers of messages

use super::phantom::Phantom;
use super::runs::{Content, Run};
use crate::host::HostMemory;
use ubccl_core::endpoint::{HostPointer, Memory, RegionId, Span};
use ubccl_core::prefetch::prefetch_at;
use ubccl_core::symbolic::{Piece, Value, reduce_pieces};
use ubccl_core::{DataType, Error, Rank, ReduceOp, Result, kernels};

/// What a message carries.
#[derive(Debug, Default)]
pub(super) enum Payload {
    /// Zero bytes.
    #[default]
    Nothing,
    /// Bytes, in a buffer that may be longer.
    Bytes(Buffer),
    /// Fingerprints, each element of which stands for `unit` bytes.
    Run { unit: u32, run: Run },
    /// More than one run of them.
    Runs { unit: u32, runs: Vec<Run> },
}

/// Lists that are no longer allocate nothing.
const FEW: usize = 8;

/// Bytes, aligned for every element type.
pub(super) type Buffer = Vec<u128>;

/// The memory of one rank.
#[derive(Debug, Default)]
pub(super) struct RankMemory {
    host: HostMemory,
    phantoms: Vec<Option<Phantom>>,
}

/// What copies and reductions of all ranks need for a moment.
#[derive(Debug, Default)]
pub(super) struct Workshop {
    /// Buffers for messages by size class: class k holds 2^k units of 16 bytes.
    spare_bytes: Vec<Vec<Buffer>>,
    spare_runs: Vec<Vec<Run>>,
    own: Vec<Run>,
    /// The terms of a reduction, one after the other, and where each ends.
    terms: Vec<Piece>,
    ends: Vec<usize>,
    result: Vec<Piece>,
}

/// A reduction: one term for each message and, where the message is None, the rank's own contribution.
#[derive(Debug)]
pub(super) struct Reduction<'a, F: Fn(usize) -> Option<&'a Payload>> {
    pub(super) terms: usize,
    pub(super) term: F,
    pub(super) own: Span,
    pub(super) into: Span,
    pub(super) dtype: DataType,
    pub(super) op: ReduceOp,
    pub(super) ranks: u32,
}

impl Workshop {
    fn take_bytes(&mut self, bytes: u64) -> Buffer {
        let class = size_class(bytes);
        if self.spare_bytes.len() <= class {
            self.spare_bytes.resize_with(class + 1, Vec::new);
        }
        self.spare_bytes[class].pop().unwrap_or_else(|| vec![0; 1 << class])
    }

    /// Keeps the storage of a message that is over.
    pub(super) fn recycle(&mut self, payload: Payload) {
        match payload {
            Payload::Nothing | Payload::Run { .. } => {}
            Payload::Bytes(buffer) => {
                let class = buffer.len().trailing_zeros() as usize;
                self.spare_bytes[class].push(buffer);
            }
            Payload::Runs { mut runs, .. } => {
                runs.clear();
                self.spare_runs.push(runs);
            }
        }
    }
}

fn size_class(bytes: u64) -> usize {
    bytes.div_ceil(size_of::<u128>() as u64).next_power_of_two().trailing_zeros() as usize
}

impl RankMemory {
    /// Gives memory a name. Whoever registers vouches for it, see `Endpoint::register`.
    pub(super) fn register(&mut self, region: RegionId, memory: Memory) -> Result<()> {
        let index = region.0 as usize;
        if self.phantoms.len() <= index {
            self.phantoms.resize_with(index + 1, || None);
        }
        match memory {
            Memory::Host { .. } => {
                self.phantoms[index] = None;
                self.host.register(region, memory)
            }
            Memory::Phantom { unit, content } => {
                if unit == 0 {
                    return Err(Error::invalid(format!("region {} has a phantom unit of 0 bytes", region.0)));
                }
                self.phantoms[index] = Some(Phantom::new(unit, &content));
                self.host.register(region, Memory::Host { address: HostPointer(0), len: 0 })
            }
        }
    }

    /// Forgets all regions.
    pub(super) fn clear(&mut self) {
        self.host.clear();
        self.phantoms.clear();
    }

    /// What a phantom region holds.
    pub(super) fn phantom(&self, region: RegionId) -> Option<Vec<Piece>> {
        let phantom = self.phantoms.get(region.0 as usize)?.as_ref()?;
        Some(phantom.pieces())
    }

    /// Has fetched what tells where the segments of a phantom region are.
    pub(super) fn foresee(&self, span: Span) {
        prefetch_at(&self.phantoms, span.region.0 as usize);
    }

    /// A while later: the page that a span begins in.
    pub(super) fn foresee_page(&self, span: Span) {
        if let Some(phantom) = self.phantom_of(span) {
            phantom.foresee_page(span);
        }
    }

    /// A while later: the segment.
    pub(super) fn foresee_segment(&self, span: Span) {
        if let Some(phantom) = self.phantom_of(span) {
            phantom.foresee_segment(span);
        }
    }

    /// A while later: the segments beside it.
    pub(super) fn foresee_beside(&self, span: Span) {
        if let Some(phantom) = self.phantom_of(span) {
            phantom.foresee_beside(span);
        }
    }

    /// Copies a span into a message.
    pub(super) fn snapshot(&mut self, from: Span, shop: &mut Workshop) -> Result<Payload> {
        if from.len == 0 {
            return Ok(Payload::Nothing);
        }
        if let Some(phantom) = self.phantom_of_mut(from) {
            let unit = phantom.unit();
            if let Some(run) = phantom.read_one(from)? {
                return Ok(Payload::Run { unit, run });
            }
            let mut runs = shop.spare_runs.pop().unwrap_or_default();
            phantom.read_shared(from, &mut runs)?;
            return Ok(Payload::Runs { unit, runs });
        }
        let source = self.host.address(from)?;
        let mut buffer = shop.take_bytes(from.len);
        let destination = buffer.as_mut_ptr().cast::<u8>();
        // SAFETY: `address` checked the source against a region whose owner vouches for it; the buffer was taken for
        // at least `from.len` bytes and belongs to this message alone.
        unsafe { kernels::copy(source, destination, from.len as usize) };
        Ok(Payload::Bytes(buffer))
    }

    /// Copies a message, which is as long, into a span.
    pub(super) fn deliver(&mut self, payload: &Payload, into: Span) -> Result<()> {
        match payload {
            Payload::Nothing if into.len == 0 => Ok(()),
            Payload::Run { unit, run } => {
                let phantom = self.phantom_of_mut(into).filter(|phantom| phantom.unit() == *unit);
                phantom.ok_or_else(|| mixed(into))?.write(into, std::iter::once(run.clone()))
            }
            Payload::Runs { unit, runs } => {
                let phantom = self.phantom_of_mut(into).filter(|phantom| phantom.unit() == *unit);
                phantom.ok_or_else(|| mixed(into))?.write(into, runs.iter().cloned())
            }
            Payload::Bytes(buffer) if self.phantom_of(into).is_none() => {
                let source = first_byte(buffer, into.len)?;
                let destination = self.host.address(into)?;
                // SAFETY: `address` checked the destination against a region whose owner vouches for it,
                // `first_byte` the buffer for `into.len` bytes; a message's buffer is nobody's region.
                unsafe { kernels::copy(source, destination, into.len as usize) };
                Ok(())
            }
            _ => Err(mixed(into)),
        }
    }

    /// Copies between two spans of this rank.
    pub(super) fn copy(&mut self, from: Span, into: Span, shop: &mut Workshop) -> Result<()> {
        if from.len != into.len {
            return Err(Error::internal(format!("a copy from {from:?} into {into:?} has two lengths")));
        }
        if into.len == 0 {
            return Ok(());
        }
        let Some(source) = self.phantom_of(from) else {
            return if self.phantom_of(into).is_none() {
                self.host.copy(from, into)
            } else {
                Err(mixed(into))
            };
        };
        let unit = source.unit();
        shop.own.clear();
        source.read(from, &mut shop.own)?;
        let phantom = self.phantom_of_mut(into).filter(|phantom| phantom.unit() == unit);
        phantom.ok_or_else(|| mixed(into))?.write(into, shop.own.iter().cloned())
    }

    /// Folds messages and the own contribution in order.
    pub(super) fn reduce<'a, F>(&mut self, what: &Reduction<'a, F>, shop: &mut Workshop) -> Result<()>
    where
        F: Fn(usize) -> Option<&'a Payload>,
    {
        if what.into.len == 0 {
            return Ok(());
        }
        match self.phantom_of(what.into).map(Phantom::unit) {
            Some(unit) => match self.reduce_values(what, unit)? {
                Some(run) => {
                    let phantom = self.phantom_of_mut(what.into).ok_or_else(|| mixed(what.into))?;
                    phantom.write(what.into, std::iter::once(run))
                }
                None => self.reduce_phantom(what, unit, shop),
            },
            None => self.reduce_host(what),
        }
    }

    /// The reduction, if each of few terms is one value, as most are.
    fn reduce_values<'a, F>(&self, what: &Reduction<'a, F>, unit: u32) -> Result<Option<Run>>
    where
        F: Fn(usize) -> Option<&'a Payload>,
    {
        let mut values = [Value::UNWRITTEN; FEW];
        let Some(values) = values.get_mut(..what.terms) else { return Ok(None) };
        let len = what.into.len / u64::from(unit);
        for (k, value) in values.iter_mut().enumerate() {
            let own;
            let run = match (what.term)(k) {
                None => {
                    let phantom = self.phantom_of(what.own).filter(|phantom| phantom.unit() == unit);
                    own = phantom.ok_or_else(|| mixed(what.own))?.read_one(what.own)?;
                    own.as_ref()
                }
                Some(Payload::Run { unit: theirs, run }) if *theirs == unit => Some(run),
                Some(_) => None,
            };
            match run {
                Some(Run { len: theirs, content: Content::Value(held) }) if *theirs == len => *value = *held,
                _ => return Ok(None),
            }
        }
        let value = Value::reduction(values.iter().copied(), what.ranks);
        Ok(Some(Run::from(Piece { len, value })))
    }

    fn reduce_phantom<'a, F>(&mut self, what: &Reduction<'a, F>, unit: u32, shop: &mut Workshop) -> Result<()>
    where
        F: Fn(usize) -> Option<&'a Payload>,
    {
        let Workshop { own, terms, ends, result, .. } = shop;
        terms.clear();
        ends.clear();
        result.clear();
        for k in 0..what.terms {
            match (what.term)(k) {
                None => {
                    let phantom = self.phantom_of(what.own).filter(|phantom| phantom.unit() == unit);
                    own.clear();
                    phantom.ok_or_else(|| mixed(what.own))?.read(what.own, own)?;
                    own.iter().for_each(|run| run.content.flatten(run.len, terms));
                }
                Some(Payload::Run { unit: theirs, run }) if *theirs == unit => {
                    run.content.flatten(run.len, terms);
                }
                Some(Payload::Runs { unit: theirs, runs }) if *theirs == unit => {
                    runs.iter().for_each(|run| run.content.flatten(run.len, terms));
                }
                Some(_) => return Err(mixed(what.into)),
            }
            ends.push(terms.len());
        }
        let source = |k: usize| Ok(&terms[k.checked_sub(1).map_or(0, |before| ends[before])..ends[k]]);
        with_list(what.terms, &[][..], source, |sources| reduce_pieces(sources, what.ranks, result))?;
        let phantom = self.phantom_of_mut(what.into).ok_or_else(|| mixed(what.into))?;
        phantom.write(what.into, result.iter().copied().map(Run::from))
    }

    fn reduce_host<'a, F>(&self, what: &Reduction<'a, F>) -> Result<()>
    where
        F: Fn(usize) -> Option<&'a Payload>,
    {
        let source = |k| match (what.term)(k) {
            None if self.phantom_of(what.own).is_none() => {
                self.host.address(what.own).map(<*mut u8>::cast_const)
            }
            Some(Payload::Bytes(buffer)) => first_byte(buffer, what.into.len),
            _ => Err(mixed(what.into)),
        };
        with_list(what.terms, std::ptr::null(), source, |sources| {
            // SAFETY: every source was checked for `into.len` bytes: messages by `first_byte`, the own span
            // (which is as long as `into`, see `Network::post`) by `HostMemory::address`. Messages' buffers
            // are nobody's region, and the poster promises that `own` is `into` or apart from it.
            unsafe { self.host.reduce((what.dtype, what.op), sources, what.into) }
        })?
    }

    #[inline]
    fn phantom_of(&self, span: Span) -> Option<&Phantom> {
        self.phantoms.get(span.region.0 as usize)?.as_ref()
    }

    #[inline]
    fn phantom_of_mut(&mut self, span: Span) -> Option<&mut Phantom> {
        self.phantoms.get_mut(span.region.0 as usize)?.as_mut()
    }
}

/// The first of at least `len` bytes of a message.
fn first_byte(buffer: &Buffer, len: u64) -> Result<*const u8> {
    if size_of_val(&buffer[..]) < len as usize {
        return Err(Error::internal(format!("a message holds fewer than {len} bytes")));
    }
    Ok(buffer.as_ptr().cast())
}

fn mixed(span: Span) -> Error {
    Error::internal(format!("{span:?} mixes real and phantom memory, or phantom memory of two units"))
}

/// Calls `body` with a list made entry by entry; short lists allocate nothing.
fn with_list<T: Copy, R>(
    len: usize,
    filler: T,
    entry: impl Fn(usize) -> Result<T>,
    body: impl FnOnce(&[T]) -> R,
) -> Result<R> {
    let mut few = [filler; FEW];
    let Some(list) = few.get_mut(..len) else {
        let many = (0..len).map(entry).collect::<Result<Vec<T>>>()?;
        return Ok(body(&many));
    };
    for (k, slot) in list.iter_mut().enumerate() {
        *slot = entry(k)?;
    }
    Ok(body(list))
}

/// A rank and its memory, for messages of errors.
pub(super) fn of_rank(rank: Rank, error: &Error) -> Error {
    Error::new(error.kind(), format!("rank {rank}: {}", error.message()))
}
