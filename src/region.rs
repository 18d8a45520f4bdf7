//! Registered memory: buffers that the ranks of one host read and write in place.
#![allow(unsafe_code)] // memory of a transport becomes slices

use crate::communicator::{Communicator, Shared};
use memmap2::MmapMut;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use ubccl_core::endpoint::Allocation;
use ubccl_core::{Element, Error, Result};

/// A buffer of `count` elements that the communicator's transport can read and write in place: over shared memory its
/// messages are not copied on their way, whoever calls from whatever it contains. It is a slice and may be the buffer, or
/// part of a buffer, of any call, mixed with others as one likes: results are the same, bit for bit.
///
/// Peers touch it only during calls that name it. It outlives its communicator if need be; memory that a call has still
/// under way when everything is dropped is kept until that is over.
pub struct Region<T: Element> {
    memory: Backing,
    len: usize,
    _elements: std::marker::PhantomData<T>,
}

/// Where a region is.
enum Backing {
    /// Memory of the transport.
    Given(Box<dyn Allocation>),
    /// This process's own, which the transport handles like any other.
    Private(MmapMut),
}

impl<T: Element> Region<T> {
    /// Whether peers can read and write it in place; if not, it is ordinary memory.
    pub fn is_registered(&self) -> bool {
        matches!(self.memory, Backing::Given(_))
    }

    fn first(&self) -> *mut T {
        match &self.memory {
            Backing::Given(memory) => std::ptr::with_exposed_provenance_mut(memory.address().0),
            Backing::Private(memory) => memory.as_ptr().cast_mut().cast(),
        }
    }
}

impl<T: Element> Deref for Region<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the memory is as long as `alloc` asked for, at the beginning of a page, and this region's alone; any
        // bytes are elements. Nobody writes it but during calls that borrow or own the region.
        unsafe { std::slice::from_raw_parts(self.first(), self.len) }
    }
}

impl<T: Element> DerefMut for Region<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; nor does anybody read it meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.first(), self.len) }
    }
}

impl<T: Element> fmt::Debug for Region<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("dtype", &T::DTYPE)
            .field("len", &self.len)
            .field("is_registered", &self.is_registered())
            .finish()
    }
}

impl Communicator {
    /// Allocates registered memory for `count` elements, zeroed.
    ///
    /// Order:  this rank's own affair; waits for nobody. Other ranks need not have any.
    /// Cost:   pages come at once, near the calling thread; memory counts as [`MemoryKind::Regions`] until dropped.
    ///         Allocate once and use often. Where the transport has no such memory, or not as much, it is ordinary memory
    ///         ([`Region::is_registered`]), which is said once.
    /// Errors: InvalidArgument for more bytes than there are addresses; System if the host has no more memory.
    /// Source: ncclMemAlloc with ncclCommRegister, MPI_Win_allocate.
    ///
    /// [`MemoryKind::Regions`]: crate::MemoryKind::Regions
    pub fn alloc<T: Element>(&self, count: usize) -> Result<Region<T>> {
        let bytes = count.checked_mul(size_of::<T>()).filter(|&bytes| bytes <= isize::MAX as usize);
        let bytes = bytes.ok_or_else(|| {
            Error::invalid(format!(
                "{count} elements of {} are more than there are addresses",
                T::DTYPE.name()
            ))
        })?;
        let memory = self.shared.allocate(bytes)?;
        Ok(Region { memory, len: count, _elements: std::marker::PhantomData })
    }
}

impl Shared {
    fn allocate(&self, bytes: usize) -> Result<Backing> {
        if let Some(memory) = self.lock().endpoint().allocate(bytes as u64)? {
            return Ok(Backing::Given(memory));
        }
        if !self.told_of_private_memory.swap(true, Ordering::Relaxed) {
            let (rank, transport) = (self.rank, &self.settings.transport);
            tracing::info!(
                target: "ubccl::memory", rank, bytes,
                "regions are ordinary memory: {transport} has no memory, or not as much, that its ranks share"
            );
        }
        let memory = MmapMut::map_anon(bytes.max(1)).map_err(|error| {
            Error::system(format!("{bytes} bytes for a region refused (free memory)"), error)
        })?;
        Ok(Backing::Private(memory))
    }
}

/// A buffer that an asynchronous operation can own: a vector or a [`Region`].
pub trait Buffer: sealed::Sealed + Send + 'static {
    /// What it consists of.
    type Element: Element;

    /// Its elements, which stay where they are when the buffer is moved.
    fn elements(&self) -> &[Self::Element];

    /// The same, to be written.
    fn elements_mut(&mut self) -> &mut [Self::Element];
}

mod sealed {
    pub trait Sealed {}
    impl<T> Sealed for Vec<T> {}
    impl<T: ubccl_core::Element> Sealed for super::Region<T> {}
}

impl<T: Element> Buffer for Vec<T> {
    type Element = T;

    fn elements(&self) -> &[T] {
        self
    }

    fn elements_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<T: Element> Buffer for Region<T> {
    type Element = T;

    fn elements(&self) -> &[T] {
        self
    }

    fn elements_mut(&mut self) -> &mut [T] {
        self
    }
}
