//! The bounded place for bytes that arrive before anybody wants them, or that wait to be folded.

use super::wire::ALIGNMENT;

/// A ring buffer over positions that only grow. Bytes enter at its head; who owns them says how far the tail may follow.
/// Its memory is taken when it is first needed.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: Box<[u8]>,
    capacity: u64,
    head: u64,
    tail: u64,
}

impl Ring {
    /// One of this many bytes, a multiple of [`ALIGNMENT`].
    pub(super) fn new(capacity: u64) -> Self {
        debug_assert!(capacity > 0 && capacity.is_multiple_of(ALIGNMENT));
        Ring { bytes: Box::default(), capacity, head: 0, tail: 0 }
    }

    /// Takes its memory.
    pub(super) fn warm(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = vec![0; self.capacity as usize].into_boxed_slice();
        }
    }

    /// Bytes of memory it has taken.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes that still fit.
    pub(super) fn free(&self) -> u64 {
        // Rounding up at a message's end may pass the tail by less than ALIGNMENT when it is full to the brim.
        self.capacity.saturating_sub(self.head - self.tail)
    }

    /// Where the next byte goes.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Moves the head on by bytes that were written, or left out.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.head += bytes;
    }

    /// Moves the head on to where a message may begin.
    pub(super) fn align(&mut self) {
        self.head = self.head.next_multiple_of(ALIGNMENT);
    }

    /// Gives up everything before `position`.
    pub(super) fn release(&mut self, position: u64) {
        debug_assert!(position >= self.tail && position <= self.head);
        self.tail = position;
    }

    /// Where the next bytes go: as much as is free in one piece.
    pub(super) fn space(&mut self) -> &mut [u8] {
        let (at, rest) = self.split(self.head);
        let len = rest.min(self.free()) as usize;
        &mut self.bytes[at..at + len]
    }

    /// At most `len` bytes from `position` on, as far as they lie in one piece.
    pub(super) fn piece(&self, position: u64, len: u64) -> &[u8] {
        let (at, rest) = self.split(position);
        &self.bytes[at..at + rest.min(len) as usize]
    }

    /// Index of a position, and bytes from there to the end of the memory.
    fn split(&self, position: u64) -> (usize, u64) {
        let at = position % self.capacity;
        (at as usize, self.capacity - at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wrap_and_come_back_in_pieces() {
        let mut ring = Ring::new(128);
        ring.warm();
        ring.advance(100);
        ring.release(100);
        assert_eq!(ring.free(), 128);
        assert_eq!(ring.space().len(), 28);
        ring.space().fill(1);
        ring.advance(28);
        assert_eq!(ring.space().len(), 100);
        ring.space()[..10].fill(2);
        ring.advance(10);
        assert_eq!(ring.piece(100, 38), &[1; 28]);
        assert_eq!(ring.piece(128, 10), &[2; 10]);
        assert_eq!(ring.free(), 90);
        ring.align();
        assert_eq!(ring.head() % ALIGNMENT, 0);
    }
}
