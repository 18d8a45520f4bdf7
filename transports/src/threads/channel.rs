//! A channel: the ring of entries from one rank to another on one lane.
#![allow(unsafe_code)] // copies small messages between entries and the caller's memory

use crate::local::label::Label;
use crossbeam_utils::CachePadded;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use ubccl_core::endpoint::HostPointer;
use ubccl_core::kernels;
use ubccl_core::plan::MAX_WINDOW_PER_PEER;

/// Bytes that fit into an entry itself.
pub(crate) const INLINE_BYTES: u64 = 80;
/// While fewer entries than this are unread, small messages are copied into theirs.
pub(crate) const INLINE_ENTRIES: u64 = MAX_WINDOW_PER_PEER as u64;
/// Entries of a ring: those, and one for each post that may be under way with the peer. So there is always room.
pub(crate) const ENTRIES: u32 = 2 * MAX_WINDOW_PER_PEER;

const _: () = assert!(ENTRIES.is_power_of_two());
const ENTRY_WORDS: usize = 16;
/// Words of an entry: stamp, label (4 words), kind, then the payload or where it is.
const KIND: usize = 5;
const PAYLOAD: usize = 6;
/// The kind of a message that is in its entry; that of any other is its send's number + 1.
const INLINE: u64 = 0;
const _: () = assert!(INLINE_BYTES as usize == (ENTRY_WORDS - PAYLOAD) * size_of::<u64>());

/// The ring of one channel. Which end may touch which entry, and when, is `local::ring`'s business.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    /// Made by the first message, since many pairs of ranks never talk.
    entries: OnceLock<Box<[Entry]>>,
    /// How many entries the receiver has finished.
    pub(crate) consumed: CachePadded<AtomicU64>,
}

impl Channel {
    /// Bytes of memory that it has taken.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.entries.get().map_or(0, |entries| size_of_val(&**entries))
    }

    /// Entry `number`, if this channel was ever used.
    #[inline]
    pub(crate) fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get().map(|entries| &entries[place(number)])
    }

    /// Entry `number`, to be written.
    #[inline]
    pub(crate) fn blank(&self, number: u64) -> &Entry {
        let entries = self.entries.get_or_init(|| (0..ENTRIES).map(|_| Entry::default()).collect());
        &entries[place(number)]
    }
}

#[inline]
fn place(number: u64) -> usize {
    (number % u64::from(ENTRIES)) as usize
}

/// One message: its label, and its bytes or where they are. Two cache lines, of which a message of up to 16 bytes
/// touches one.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Entry([AtomicU64; ENTRY_WORDS]);

/// Where the bytes of a message are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// In the entry.
    Inline(*const u8),
    /// In the sender's memory.
    Announced(Announcement),
}

/// A message that waits in the sender's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announcement {
    /// Its first byte.
    pub(crate) address: HostPointer,
    /// The sender's epoch; in a later one nobody may look there.
    pub(crate) epoch: u64,
    /// The sender's number for the post.
    pub(crate) send: u16,
}

impl Entry {
    /// The word that says that the entry is there.
    #[inline]
    pub(crate) fn stamp(&self) -> &AtomicU64 {
        &self.0[0]
    }

    /// What it says of its message. Only a stamped entry says anything.
    #[inline]
    pub(crate) fn label(&self) -> Label {
        Label([1, 2, 3, 4].map(|word| self.load(word)))
    }

    /// Where the message is.
    #[inline]
    pub(crate) fn content(&self) -> Content {
        match self.load(KIND) {
            INLINE => Content::Inline(self.payload().cast_const()),
            kind => Content::Announced(Announcement {
                address: HostPointer(self.load(PAYLOAD) as usize),
                epoch: self.load(PAYLOAD + 1),
                send: (kind - 1) as u16,
            }),
        }
    }

    /// Writes all but the stamp, with the message itself.
    ///
    /// # Safety
    /// The entry is the caller's to write; `message` is valid for reads of `label.len()` bytes, at most
    /// [`INLINE_BYTES`].
    #[inline]
    pub(crate) unsafe fn write_inline(&self, label: &Label, message: *const u8) {
        debug_assert!(label.len() <= INLINE_BYTES);
        self.write_label(label);
        self.store(KIND, INLINE);
        // SAFETY: the caller vouches for the message; the payload has room for it, and nobody else touches it while the
        // entry is the caller's.
        unsafe { kernels::copy(message, self.payload(), label.len() as usize) };
    }

    /// Writes all but the stamp, with where the message is.
    #[inline]
    pub(crate) fn announce(&self, label: &Label, announcement: &Announcement) {
        self.write_label(label);
        self.store(KIND, u64::from(announcement.send) + 1);
        self.store(PAYLOAD, announcement.address.0 as u64);
        self.store(PAYLOAD + 1, announcement.epoch);
    }

    #[inline]
    fn write_label(&self, label: &Label) {
        for (word, value) in (1..).zip(label.0) {
            self.store(word, value);
        }
    }

    #[inline]
    fn payload(&self) -> *mut u8 {
        self.0[PAYLOAD..].as_ptr().cast::<u8>().cast_mut()
    }

    // Relaxed, both: ordered by the stamp and by the counter of consumed entries.
    #[inline]
    fn load(&self, word: usize) -> u64 {
        self.0[word].load(Ordering::Relaxed)
    }

    #[inline]
    fn store(&self, word: usize, value: u64) {
        self.0[word].store(value, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubccl_core::Signature;
    use ubccl_core::endpoint::{Key, Stream};

    fn label(len: u64) -> Label {
        let (stream, signature) = (Stream::Collective(7), Signature(3 << 70 | 9));
        Label::new(&Key { stream, lane: 0, signature, engine: None }, len)
    }

    #[test]
    fn an_entry_holds_a_small_message() {
        let (channel, message) = (Channel::default(), [7_u8; INLINE_BYTES as usize]);
        assert!(channel.entry(5).is_none(), "nobody has used it");
        let entry = channel.blank(5);
        // SAFETY: nobody else knows the entry; the message is as long as the label says.
        unsafe { entry.write_inline(&label(INLINE_BYTES), message.as_ptr()) };
        let entry = channel.entry(5).unwrap();
        assert_eq!(entry.label(), label(INLINE_BYTES));
        let Content::Inline(payload) = entry.content() else { panic!("it is inline") };
        // SAFETY: the payload of an entry has that many bytes, and nobody writes them.
        let found = unsafe { std::slice::from_raw_parts(payload, message.len()) };
        assert_eq!(found, message);
    }

    #[test]
    fn an_entry_tells_where_a_large_message_is() {
        let entry = Entry::default();
        for send in [0, 17, u16::MAX] {
            let announcement = Announcement { address: HostPointer(usize::MAX - 9), epoch: 3, send };
            entry.announce(&label(1 << 40), &announcement);
            assert_eq!(entry.content(), Content::Announced(announcement));
            assert_eq!(entry.label(), label(1 << 40));
        }
    }
}
