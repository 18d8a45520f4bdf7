//! The memory domain of real ranks: regions of host memory, and the kernels that run over them at once.
#![allow(unsafe_code)] // the one place where a span becomes an address

use ubccl_core::endpoint::{Memory, RegionId, Span};
use ubccl_core::{DataType, Error, ReduceOp, Result, kernels};

/// Addresses for one kernel call; empty between calls.
#[derive(Debug)]
pub(crate) struct Pointers(pub(crate) Vec<*const u8>);

impl Pointers {
    /// A list with room for so many.
    pub(crate) fn new(most: usize) -> Self {
        Pointers(Vec::with_capacity(most))
    }
}

// SAFETY: it is empty whenever the endpoint could move to another thread; the allocation itself is nobody's thread's.
unsafe impl Send for Pointers {}

/// The regions of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct HostMemory {
    regions: Vec<(usize, u64)>,
}

impl HostMemory {
    /// Bytes that a kernel handles before an endpoint looks at its links again.
    pub(crate) const BITE: usize = 256 << 10;

    /// Gives memory a name. Whoever registers vouches for it, see `Endpoint::register`.
    pub(crate) fn register(&mut self, region: RegionId, memory: Memory) -> Result<()> {
        let Memory::Host { address, len } = memory else {
            return Err(Error::unsupported("phantom memory needs a transport in virtual time"));
        };
        let index = region.0 as usize;
        if self.regions.len() <= index {
            self.regions.resize(index + 1, (0, 0));
        }
        self.regions[index] = (address.0, len);
        Ok(())
    }

    /// Forgets all regions.
    pub(crate) fn clear(&mut self) {
        self.regions.clear();
    }

    /// The address of a span's first byte, checked against its region.
    #[inline]
    pub(crate) fn address(&self, span: Span) -> Result<*mut u8> {
        let inside =
            |&(_, len): &(usize, u64)| span.offset.checked_add(span.len).is_some_and(|end| end <= len);
        match self.regions.get(span.region.0 as usize).filter(|region| inside(region)) {
            // On numbers: a region may hold several allocations, and the pointer has to be of the span's own.
            Some(&(address, _)) => Ok(std::ptr::with_exposed_provenance_mut(address + span.offset as usize)),
            None => Err(Error::internal(format!("{span:?} is outside every region"))),
        }
    }

    /// Copies between two spans of this rank, which are equal or apart.
    pub(crate) fn copy(&self, from: Span, into: Span) -> Result<()> {
        debug_assert_eq!(from.len, into.len);
        let (source, destination) = (self.address(from)?, self.address(into)?);
        // SAFETY: `address` checked both spans against regions whose owner vouches for them.
        unsafe { kernels::copy(source, destination, from.len as usize) };
        Ok(())
    }

    /// Folds `sources` in order into `into`. Sources are addresses of `into.len` readable bytes each: spans of this
    /// memory or an endpoint's own slots and buffers.
    ///
    /// Errors: a span outside every region; a user's operation that panicked.
    ///
    /// # Safety
    /// Every source is valid for `into.len` bytes, and is `into` itself or apart from it.
    pub(crate) unsafe fn reduce(
        &self,
        (dtype, op): (DataType, ReduceOp),
        sources: &[*const u8],
        into: Span,
    ) -> Result<()> {
        let destination = self.address(into)?;
        // SAFETY: the caller vouches for the sources, `address` checked the destination.
        unsafe { kernels::reduce(dtype, op, sources, destination, into.len as usize / dtype.size()) }
    }
}
