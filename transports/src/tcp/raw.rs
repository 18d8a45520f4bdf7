//! System calls over, and copies into, memory that is known by address only.
//!
//! **Invariant.** A [`Place`] comes from a span of registered memory and lives no longer than the post that names the
//! span: queues hold places of posts under way, and `cancel` empties them. While a post is under way its memory is
//! valid and touched by nobody else, which whoever registered it vouches for (`Endpoint::register`).
#![allow(unsafe_code)] // addresses become reads and writes here

use crate::host::HostMemory;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use ubccl_core::endpoint::{HostPointer, Span};
use ubccl_core::{DataType, ReduceOp, Result};

/// Pieces of memory in one call: two for each frame.
pub(super) const MAX_PIECES: usize = 32;

/// Bytes of registered memory that a post under way names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    address: HostPointer,
    len: usize,
}

impl Place {
    /// The bytes of a span, which is checked against its region.
    pub(super) fn of(memory: &HostMemory, span: Span) -> Result<Self> {
        let address = HostPointer(memory.address(span)?.expose_provenance());
        Ok(Place { address, len: span.len as usize })
    }

    /// A range of it.
    #[inline]
    pub(super) fn part(self, offset: u64, len: u64) -> Self {
        let (offset, len) = (offset as usize, len as usize);
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "{offset}+{len} of {self:?}");
        Place { address: HostPointer(self.address.0 + offset), len }
    }

    /// From `offset` to its end.
    #[inline]
    pub(super) fn from(self, offset: u64) -> Self {
        self.part(offset, self.len as u64 - offset)
    }

    /// Writes to its front.
    #[inline]
    pub(super) fn write(self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len, "{} bytes into {self:?}", bytes.len());
        // SAFETY: a place is valid and nobody else's while its post is under way (see above), so `bytes`, a reference to
        // buffers of this endpoint, is apart from it; the length was checked.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.pointer(), bytes.len()) };
    }

    #[inline]
    pub(super) fn len(self) -> usize {
        self.len
    }

    #[inline]
    fn pointer(self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.address.0)
    }
}

/// Pieces of memory to be written by one call.
pub(super) struct Gather<'a>(Pieces, PhantomData<&'a [u8]>);

/// Pieces of memory to be read into by one call.
pub(super) struct Scatter<'a>(Pieces, PhantomData<&'a mut [u8]>);

struct Pieces {
    pieces: [libc::iovec; MAX_PIECES],
    len: usize,
}

impl Pieces {
    fn new() -> Self {
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Pieces { pieces: [none; MAX_PIECES], len: 0 }
    }

    #[inline]
    fn push(&mut self, at: *mut u8, len: usize) {
        if len > 0 {
            self.pieces[self.len] = libc::iovec { iov_base: at.cast(), iov_len: len };
            self.len += 1;
        }
    }

    fn message(&mut self) -> libc::msghdr {
        // SAFETY: `msghdr` is plain data for which all zeros means "no address, no pieces, no control data".
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.pieces.as_mut_ptr();
        message.msg_iovlen = self.len as _;
        message
    }
}

impl<'a> Gather<'a> {
    pub(super) fn new() -> Self {
        Gather(Pieces::new(), PhantomData)
    }

    pub(super) fn push(&mut self, bytes: &'a [u8]) {
        self.0.push(bytes.as_ptr().cast_mut(), bytes.len());
    }

    pub(super) fn push_place(&mut self, place: Place) {
        self.0.push(place.pointer(), place.len);
    }

    /// Writes the pieces, without waiting and without a signal if the peer is gone.
    pub(super) fn send(mut self, socket: BorrowedFd<'_>) -> std::io::Result<usize> {
        let message = self.0.message();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `message` names pieces that are valid for reads: borrowed for `'a`, or places. They are only read.
        let written = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, flags) };
        usize::try_from(written).map_err(|_| std::io::Error::last_os_error())
    }
}

impl<'a> Scatter<'a> {
    pub(super) fn new() -> Self {
        Scatter(Pieces::new(), PhantomData)
    }

    pub(super) fn push(&mut self, bytes: &'a mut [u8]) {
        self.0.push(bytes.as_mut_ptr(), bytes.len());
    }

    pub(super) fn push_place(&mut self, place: Place) {
        self.0.push(place.pointer(), place.len);
    }

    /// Reads into the pieces, without waiting.
    pub(super) fn receive(mut self, socket: BorrowedFd<'_>) -> std::io::Result<usize> {
        let mut message = self.0.message();
        // SAFETY: `message` names pieces that are valid for writes: borrowed for `'a`, or places.
        let read = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
        usize::try_from(read).map_err(|_| std::io::Error::last_os_error())
    }
}

/// Bytes accepted from us that the peer's kernel has not acknowledged; `None` if the socket cannot tell.
pub(super) fn unacknowledged(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one `c_int`, and `bytes` is one.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
    (result == 0).then(|| bytes.max(0) as u32)
}

/// The sources of one reduction, kept between reductions for its memory only.
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<*const u8>);

// SAFETY: the pointers are used only between `clear` and `reduce`, within one call on one thread.
unsafe impl Send for Sources {}

impl Sources {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a source of at least as many bytes as will be reduced. It must not change until then.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.push(bytes.as_ptr());
    }

    /// Adds this rank's own contribution.
    pub(super) fn push_place(&mut self, place: Place) {
        self.0.push(place.pointer());
    }

    /// Folds them in order into `into`.
    ///
    /// # Safety
    /// Every source was pushed since the last `clear`, is at least as long as `into`, and is still there.
    pub(super) unsafe fn reduce(
        &mut self,
        memory: &HostMemory,
        how: (DataType, ReduceOp),
        into: Span,
    ) -> Result<()> {
        // SAFETY: the caller vouches for the sources' lengths and lives. Buffers of this endpoint are apart from `into`;
        // this rank's own contribution is `into` or apart from it, as a plan's slices are.
        let result = unsafe { memory.reduce(how, &self.0, into) };
        self.0.clear();
        result
    }
}
