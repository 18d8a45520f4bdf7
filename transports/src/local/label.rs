//! What an entry of a ring says of its message, as words.

use ubccl_core::Signature;
use ubccl_core::endpoint::{Header, Key, Stream};

/// The lowest two bits of a label's stream tell what it is; 0 is a collective.
const DIRECT: u64 = 1;
const TAGGED: u64 = 2;

/// Set in the length of a message that is announced: its bytes are not in the ring. No message is that long.
const ANNOUNCED: u64 = 1 << 63;

/// Stream, signature (two words), length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) [u64; 4]);

impl Label {
    #[inline]
    pub(crate) fn new(key: &Key, len: u64) -> Self {
        let stream = match key.stream {
            Stream::Collective(sequence) => sequence << 2,
            Stream::Direct => DIRECT,
            Stream::Tagged(tag) => u64::from(tag) << 2 | TAGGED,
        };
        let signature = key.signature.0;
        Label([stream, signature as u64, (signature >> 64) as u64, len])
    }

    /// Bytes of the message.
    #[inline]
    pub(crate) fn len(&self) -> u64 {
        self.0[3]
    }

    /// The same label on an entry that tells where the message is.
    #[inline]
    pub(crate) fn announced(&self) -> Label {
        let [stream, low, high, len] = self.0;
        Label([stream, low, high, len | ANNOUNCED])
    }

    /// Whether the length on an entry says that the message is elsewhere.
    #[inline]
    pub(crate) fn is_announced(len: u64) -> bool {
        len & ANNOUNCED != 0
    }

    /// Whether this is what an entry says, wherever its message is.
    #[inline]
    pub(crate) fn is_of(&self, entry: Label) -> bool {
        *self == entry || self.announced() == entry
    }

    /// The same for people, announced or not.
    pub(crate) fn header(&self) -> Header {
        let [stream, low, high, len] = self.0;
        let len = len & !ANNOUNCED;
        let stream = match stream & 3 {
            TAGGED => Stream::Tagged((stream >> 2) as u32),
            DIRECT => Stream::Direct,
            _ => Stream::Collective(stream >> 2),
        };
        Header { stream, signature: Signature(u128::from(high) << 64 | u128::from(low)), len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_keeps_the_whole_header() {
        for stream in [
            Stream::Collective(1),
            Stream::Collective(u64::MAX >> 2),
            Stream::Direct,
            Stream::Tagged(0),
            Stream::Tagged(u32::MAX),
        ] {
            let key = Key { stream, lane: 3, signature: Signature(u128::MAX - 5), engine: None };
            let header = Label::new(&key, 77).header();
            assert_eq!(header, Header { stream, signature: key.signature, len: 77 });
            let label = Label::new(&key, 77);
            assert_ne!(label.announced(), label);
            assert_eq!(label.announced().header(), header);
        }
    }
}
