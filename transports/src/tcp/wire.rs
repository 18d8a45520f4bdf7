//! The frames of a connection: fixed little-endian headers, and what may follow them.
//!
//! | bytes | DATA | GRANT |
//! |---|---|---|
//! | 0 | 1 | 2 |
//! | 1 | lane | lane |
//! | 2 | stream kind: 0 collective, 1 tagged, 2 direct | 0 |
//! | 3 | 0 | 0 |
//! | 4..8 | bytes of payload that follow | 0 |
//! | 8..16 | sequence, tag or 0 | limit |
//! | 16..32 | signature | 0 |
//! | 32..40 | bytes of the message | 0 |
//! | 40..48 | offset of this fragment in it | 0 |
//!
//! **Credit.** A channel (pair of ranks, lane) is one stream of messages. Each takes [`cost`] of it, payload byte `i` at
//! `MESSAGE_COST + i`. A sender sends what lies below the limit it was last told; the receiver raises the limit as it has
//! places for more. So every byte that arrives has a place, and no lane can hold up another.

use ubccl_core::endpoint::{Header, POINT_TO_POINT_LANE, Stream, TAGGED_LANE};
use ubccl_core::signature::Signature;

/// The version of everything in this file; ranks compare it when they connect.
pub(super) const VERSION: u32 = 2;
/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 48;
/// Lanes of a connection, those of point-to-point messages included.
pub(super) const LANES: usize = TAGGED_LANE as usize + 1;
/// The most payload of one frame: other lanes and grants get their turn in between.
pub(super) const FRAGMENT_BYTES: u64 = 512 << 10;
/// What a message takes of its channel's credit beside its bytes. Bounds how many empty ones a receiver has to remember.
pub(super) const MESSAGE_COST: u64 = 1024;
/// Messages begin at multiples of this, so that no element is cut where a ring buffer ends.
pub(super) const ALIGNMENT: u64 = 64;

const DATA: u8 = 1;
const GRANT: u8 = 2;

/// What a message takes of its channel's credit.
pub(super) fn cost(len: u64) -> u64 {
    MESSAGE_COST + len.next_multiple_of(ALIGNMENT)
}

/// The ring of one lane where one of collectives has `ring_bytes`: the two of point-to-point messages share as much.
pub(super) fn ring_of_lane(ring_bytes: u64, lane: usize) -> u64 {
    if lane < usize::from(POINT_TO_POINT_LANE) {
        return ring_bytes;
    }
    (ring_bytes / 2 / MESSAGE_COST).max(1) * MESSAGE_COST
}

/// A frame without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A part of a message; that many bytes follow.
    Data { lane: usize, header: Header, offset: u64, fragment: u32 },
    /// The sender of this lane may send up to here.
    Grant { lane: usize, limit: u64 },
}

impl Frame {
    /// As it travels.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        match *self {
            Frame::Data { lane, header, offset, fragment } => {
                let (kind, number) = match header.stream {
                    Stream::Collective(sequence) => (0, sequence),
                    Stream::Tagged(tag) => (1, u64::from(tag)),
                    Stream::Direct => (2, 0),
                };
                bytes[..3].copy_from_slice(&[DATA, lane as u8, kind]);
                bytes[4..8].copy_from_slice(&fragment.to_le_bytes());
                bytes[8..16].copy_from_slice(&number.to_le_bytes());
                bytes[16..32].copy_from_slice(&header.signature.0.to_le_bytes());
                bytes[32..40].copy_from_slice(&header.len.to_le_bytes());
                bytes[40..48].copy_from_slice(&offset.to_le_bytes());
            }
            Frame::Grant { lane, limit } => {
                bytes[..2].copy_from_slice(&[GRANT, lane as u8]);
                bytes[8..16].copy_from_slice(&limit.to_le_bytes());
            }
        }
        bytes
    }

    /// What a peer sent, or what is wrong with it.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, &'static str> {
        let lane = usize::from(bytes[1]);
        if lane >= LANES {
            return Err("a frame of a lane that does not exist");
        }
        match bytes[0] {
            DATA => decode_data(bytes, lane),
            GRANT => Ok(Frame::Grant { lane, limit: u64::from_le_bytes(field(bytes, 8)) }),
            _ => Err("a frame of unknown kind"),
        }
    }
}

fn decode_data(bytes: &[u8; HEADER_BYTES], lane: usize) -> Result<Frame, &'static str> {
    let number = u64::from_le_bytes(field(bytes, 8));
    let stream = match (bytes[2], u32::try_from(number)) {
        (0, _) => Stream::Collective(number),
        (1, Ok(tag)) => Stream::Tagged(tag),
        (2, Ok(0)) => Stream::Direct,
        _ => return Err("a message of an unknown stream"),
    };
    let signature = Signature(u128::from_le_bytes(field(bytes, 16)));
    let header = Header { stream, signature, len: u64::from_le_bytes(field(bytes, 32)) };
    let offset = u64::from_le_bytes(field(bytes, 40));
    let fragment = u32::from_le_bytes(field(bytes, 4));
    if header.len > isize::MAX as u64 {
        return Err("a message larger than any memory");
    }
    if header.len.checked_sub(offset).is_none_or(|rest| u64::from(fragment) > rest) {
        return Err("a fragment that reaches beyond its message");
    }
    if fragment == 0 && header.len > 0 {
        return Err("an empty fragment of a message that is not empty");
    }
    Ok(Frame::Data { lane, header, offset, fragment })
}

fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a constant range of a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(stream: Stream, len: u64, offset: u64, fragment: u32) -> Frame {
        let header = Header { stream, signature: Signature(u128::MAX / 3), len };
        Frame::Data { lane: LANES - 1, header, offset, fragment }
    }

    #[test]
    fn frames_come_back_from_their_bytes() {
        let frames = [
            data(Stream::Collective(u64::MAX), 5 << 32, 4 << 32, u32::MAX),
            data(Stream::Tagged(u32::MAX), 0, 0, 0),
            data(Stream::Direct, 7, 0, 7),
            Frame::Grant { lane: 3, limit: u64::MAX },
        ];
        for frame in frames {
            assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = data(Stream::Tagged(7), 100, 90, 10);
        let broken = |change: &dyn Fn(&mut [u8; HEADER_BYTES])| {
            let mut bytes = good.encode();
            change(&mut bytes);
            Frame::decode(&bytes)
        };
        assert!(broken(&|_| ()).is_ok());
        assert!(broken(&|bytes| bytes[0] = 3).is_err());
        assert!(broken(&|bytes| bytes[1] = LANES as u8).is_err());
        assert!(broken(&|bytes| bytes[2] = 2).is_err(), "a direct message has no number");
        assert!(broken(&|bytes| bytes[2] = 3).is_err());
        assert!(broken(&|bytes| bytes[12] = 1).is_err(), "a tag beyond 32 bits");
        assert!(broken(&|bytes| bytes[4] = 11).is_err());
        assert!(broken(&|bytes| bytes[4] = 0).is_err());
        assert!(broken(&|bytes| bytes[47] = 0xff).is_err());
        assert!(broken(&|bytes| bytes[39] = 0xff).is_err());
    }

    #[test]
    fn costs_are_aligned_and_count_beyond_32_bits() {
        assert_eq!(cost(0), MESSAGE_COST);
        assert_eq!(cost(1), MESSAGE_COST + ALIGNMENT);
        assert_eq!(cost((5 << 32) + 1) % ALIGNMENT, 0);
        assert!(cost((5 << 32) + 1) > 5 << 32);
    }
}
