//! Page-aligned buffers with guard bytes on both sides.

use crate::target::{Error, ErrorKind};
use crate::units::show_bytes;

/// As the peers' benchmark and any allocator for large arrays: whole pages.
const ALIGNMENT: usize = 4096;
/// Guard bytes on each side: two cache lines, more than any vector register.
const GUARD: usize = 128;
const GUARD_BYTE: u8 = 0xa5;

/// A buffer that is allocated and touched once, for the largest size; each row uses a part from its start.
#[derive(Debug)]
pub(crate) struct Guarded {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Guarded {
    /// A buffer for up to `capacity` bytes, with all its pages touched.
    ///
    /// Errors: System, when there is not enough memory.
    pub(crate) fn new(capacity: u64) -> Result<Self, Error> {
        let too_large = || {
            let size = show_bytes(capacity);
            Error::new(
                ErrorKind::System,
                format!("no memory for a buffer of {size}; use a smaller --maxbytes"),
            )
        };
        let total = usize::try_from(capacity).ok().and_then(|bytes| bytes.checked_add(2 * GUARD + ALIGNMENT));
        let total = total.ok_or_else(too_large)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(total).map_err(|_| too_large())?;
        bytes.resize(total, GUARD_BYTE);
        let past_guard = bytes.as_ptr().wrapping_add(GUARD);
        let start = GUARD + past_guard.align_offset(ALIGNMENT).min(ALIGNMENT);
        Ok(Guarded { bytes, start, len: 0 })
    }

    /// The most bytes a row can use.
    pub(crate) fn capacity(&self) -> u64 {
        (self.bytes.len() - 2 * GUARD - ALIGNMENT) as u64
    }

    /// Uses the first `len` bytes from now on, and renews the guards around them.
    pub(crate) fn resize(&mut self, len: u64) {
        self.len = usize::try_from(len.min(self.capacity())).expect("a capacity fits the address space");
        let end = self.start + self.len;
        self.bytes[self.start - GUARD..self.start].fill(GUARD_BYTE);
        self.bytes[end..end + GUARD].fill(GUARD_BYTE);
    }

    /// The data.
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// The data, to be written.
    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }

    /// Where the guard bytes are broken: the offset from the start of the data of the first one, and how many.
    pub(crate) fn broken_guards(&self) -> Option<(i64, u64)> {
        let end = self.start + self.len;
        let around = (self.start - GUARD..self.start).chain(end..end + GUARD);
        let mut broken = around.filter(|&at| self.bytes[at] != GUARD_BYTE);
        let first = broken.next()?;
        Some((first as i64 - self.start as i64, 1 + broken.count() as u64))
    }

    /// All bytes, guards included: only so that tests can break them.
    #[cfg(test)]
    pub(crate) fn beyond_end_mut(&mut self) -> &mut u8 {
        &mut self.bytes[self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_are_page_aligned_and_guards_tell_where_they_broke() {
        let mut buffer = Guarded::new(1000).unwrap();
        for len in [1000, 0, 7] {
            buffer.resize(len);
            assert_eq!(buffer.data().len() as u64, len);
            assert_eq!(buffer.data().as_ptr().align_offset(ALIGNMENT), 0);
            buffer.data_mut().fill(1);
            assert_eq!(buffer.broken_guards(), None);
            *buffer.beyond_end_mut() = 0;
            assert_eq!(buffer.broken_guards(), Some((len as i64, 1)));
        }
        buffer.resize(7);
        let before = buffer.start - 1;
        buffer.bytes[before] = 0;
        assert_eq!(buffer.broken_guards(), Some((-1, 1)));
    }

    #[test]
    fn too_much_memory_is_an_error_that_says_what_to_do() {
        let message = Guarded::new(u64::MAX / 2).unwrap_err().to_string();
        assert!(message.contains("--maxbytes"), "{message}");
    }
}
