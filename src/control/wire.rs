//! What ranks tell each other: frames of bounded length, the start-up messages in them, and the record of a cause.
//!
//! A frame is `length: u32` (of what follows), `kind: u8`, body. Integers are little-endian, texts and byte strings are
//! `length: u32` and bytes. Everything a reader takes is bounded before it is stored, and nothing it is fed makes it
//! panic: these bytes come from another process.

use std::fmt;

use ubccl_core::exchange::BLOB_BYTES_MAX;
use ubccl_core::{Cause, Culprit, ErrorKind};

/// Version of frames and messages. `Hello`'s first five fields keep their places in every version.
pub(crate) const WIRE_VERSION: u32 = 1;
/// The longest frame after the length field: a blob and its head.
pub(crate) const FRAME_BYTES_MAX: usize = BLOB_BYTES_MAX + 64;
/// Longest host name; Linux allows 64.
pub(crate) const HOST_BYTES_MAX: usize = 64;
/// Longest text of an operation in a cause.
const OPERATION_BYTES_MAX: usize = 256;
/// Longest message of a cause.
const MESSAGE_BYTES_MAX: usize = 512;
/// Longest encoded cause: three texts with their lengths, kind, rank, pid, sequence.
pub(crate) const CAUSE_BYTES_MAX: usize =
    HOST_BYTES_MAX + OPERATION_BYTES_MAX + MESSAGE_BYTES_MAX + 3 * 4 + 20;
/// Longest reason in a refusal; it may list ranks.
const REASON_BYTES_MAX: usize = 4096;
/// Most ranks of a communicator, so that the members table fits a frame.
pub(crate) const RANKS_MAX: u32 = 4096;

/// Bytes that break the protocol, and the rule they break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed message: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// A 16-byte random name or identity.
pub(crate) type Token = [u8; 16];

/// What a rank says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Process id in its own namespace, for people.
    pub(crate) pid: u32,
    /// Host name, for people.
    pub(crate) host: String,
    /// Random identity of the process: ranks that are threads of one process share it.
    pub(crate) process: Token,
    /// Name of the abstract socket on which the rank can be rung.
    pub(crate) ring: Token,
}

/// The first message of a rank to rank 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    pub(crate) rank: u32,
    pub(crate) size: u32,
    pub(crate) member: Member,
}

/// A message of the start-up protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Rank 0 → rank: the secret was right.
    Greeting,
    /// Rank → rank 0: who I am.
    Hello(Hello),
    /// Rank 0 → rank: everyone is here, this is who, and descriptors are handed out at `passage`.
    Welcome { passage: Token, members: Vec<Member> },
    /// Rank 0 → rank: the start failed on all ranks.
    Refusal { reason: String },
    /// Rank → rank 0: I cannot go on.
    Failure { reason: String },
    /// A blob of a bootstrap round, to and from rank 0.
    Blob { round: u32, rank: u32, bytes: Vec<u8> },
}

impl Message {
    /// The message as a frame.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut frame = vec![0; 4];
        match self {
            Message::Greeting => frame.push(1),
            Message::Hello(hello) => {
                frame.push(2);
                put_hello(&mut frame, hello);
            }
            Message::Welcome { passage, members } => {
                frame.push(3);
                frame.extend_from_slice(passage);
                put_u32(&mut frame, members.len() as u32); // at most RANKS_MAX
                members.iter().for_each(|member| put_member(&mut frame, member));
            }
            Message::Refusal { reason } => {
                frame.push(4);
                put_text(&mut frame, reason, REASON_BYTES_MAX);
            }
            Message::Failure { reason } => {
                frame.push(5);
                put_text(&mut frame, reason, REASON_BYTES_MAX);
            }
            Message::Blob { round, rank, bytes } => {
                frame.push(6);
                put_u32(&mut frame, *round);
                put_u32(&mut frame, *rank);
                put_bytes(&mut frame, bytes);
            }
        }
        let length = (frame.len() - 4) as u32; // bodies are bounded by FRAME_BYTES_MAX
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame
    }

    /// The message in the frame `kind`, `body`.
    fn decode(kind: u8, body: &[u8]) -> Result<Message, Malformed> {
        let mut fields = Fields(body);
        let message = match kind {
            1 => Message::Greeting,
            2 => return take_hello(fields).map(Message::Hello),
            3 => take_welcome(&mut fields)?,
            4 => Message::Refusal { reason: fields.text(REASON_BYTES_MAX)? },
            5 => Message::Failure { reason: fields.text(REASON_BYTES_MAX)? },
            6 => Message::Blob {
                round: fields.u32()?,
                rank: fields.u32()?,
                bytes: fields.bytes(BLOB_BYTES_MAX)?.to_vec(),
            },
            _ => return Err(Malformed("unknown kind")),
        };
        fields.end()?;
        Ok(message)
    }
}

/// Cuts a byte stream into messages.
///
/// It holds at most one read more than the longest frame: [`next`](FrameReader::next) must be called until it returns
/// `None` after each [`push`](FrameReader::push).
#[derive(Default)]
pub(crate) struct FrameReader {
    buffer: Vec<u8>,
}

impl FrameReader {
    /// Adds bytes as they arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Malformed> {
        let Some(head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length == 0 || length > FRAME_BYTES_MAX {
            return Err(Malformed("frame length"));
        }
        let Some(frame) = self.buffer.get(4..4 + length) else { return Ok(None) };
        let message = Message::decode(frame[0], &frame[1..])?;
        self.buffer.drain(..4 + length);
        Ok(Some(message))
    }
}

/// A cause as bytes, at most [`CAUSE_BYTES_MAX`]; longer texts are cut.
pub(crate) fn encode_cause(cause: &Cause) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CAUSE_BYTES_MAX);
    put_u32(&mut bytes, cause.kind.code());
    put_u32(&mut bytes, cause.culprit.rank);
    put_u32(&mut bytes, cause.culprit.pid);
    bytes.extend_from_slice(&cause.sequence.to_le_bytes());
    put_text(&mut bytes, &cause.culprit.host, HOST_BYTES_MAX);
    put_text(&mut bytes, &cause.operation, OPERATION_BYTES_MAX);
    put_text(&mut bytes, &cause.message, MESSAGE_BYTES_MAX);
    bytes
}

/// The cause in bytes made by [`encode_cause`].
pub(crate) fn decode_cause(bytes: &[u8]) -> Result<Cause, Malformed> {
    let mut fields = Fields(bytes);
    let kind = ErrorKind::from_code(fields.u32()?).ok_or(Malformed("unknown error kind"))?;
    let (rank, pid, sequence) = (fields.u32()?, fields.u32()?, fields.u64()?);
    let host = fields.text(HOST_BYTES_MAX)?;
    let operation = fields.text(OPERATION_BYTES_MAX)?;
    let message = fields.text(MESSAGE_BYTES_MAX)?;
    fields.end()?;
    Ok(Cause { kind, culprit: Culprit { rank, host, pid }, operation, sequence, message })
}

fn put_hello(out: &mut Vec<u8>, hello: &Hello) {
    put_u32(out, hello.version);
    put_u32(out, hello.rank);
    put_u32(out, hello.size);
    put_member(out, &hello.member);
}

fn take_hello(mut fields: Fields<'_>) -> Result<Hello, Malformed> {
    let (version, rank, size) = (fields.u32()?, fields.u32()?, fields.u32()?);
    if version != WIRE_VERSION {
        // Later fields may mean anything; pid and host have their places in all versions.
        let (pid, host) = (fields.u32()?, fields.text(HOST_BYTES_MAX)?);
        return Ok(Hello {
            version,
            rank,
            size,
            member: Member { pid, host, process: [0; 16], ring: [0; 16] },
        });
    }
    let member = take_member(&mut fields)?;
    fields.end()?;
    Ok(Hello { version, rank, size, member })
}

fn put_member(out: &mut Vec<u8>, member: &Member) {
    put_u32(out, member.pid);
    put_text(out, &member.host, HOST_BYTES_MAX);
    out.extend_from_slice(&member.process);
    out.extend_from_slice(&member.ring);
}

fn take_member(fields: &mut Fields<'_>) -> Result<Member, Malformed> {
    Ok(Member {
        pid: fields.u32()?,
        host: fields.text(HOST_BYTES_MAX)?,
        process: fields.array()?,
        ring: fields.array()?,
    })
}

fn take_welcome(fields: &mut Fields<'_>) -> Result<Message, Malformed> {
    let passage = fields.array()?;
    let count = fields.u32()?;
    if count > RANKS_MAX {
        return Err(Malformed("too many members"));
    }
    let members = (0..count).map(|_| take_member(fields)).collect::<Result<_, _>>()?;
    Ok(Message::Welcome { passage, members })
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len() as u32); // callers bound it
    out.extend_from_slice(bytes);
}

/// Puts `text`, cut at a character so that it has at most `max` bytes.
fn put_text(out: &mut Vec<u8>, text: &str, max: usize) {
    put_bytes(out, &text.as_bytes()[..text.floor_char_boundary(max)]);
}

/// Takes fields off the front of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(Malformed("too short"))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk().ok_or(Malformed("too short"))?;
        self.0 = tail;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let length = self.u32()? as usize;
        if length > max {
            return Err(Malformed("a field is too long"));
        }
        self.take(length)
    }

    fn text(&mut self, max: usize) -> Result<String, Malformed> {
        let bytes = self.bytes(max)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed("a text is not UTF-8"))
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes after the last field")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member() -> impl Strategy<Value = Member> {
        (any::<u32>(), "[a-z0-9.é-]{0,30}", any::<Token>(), any::<Token>())
            .prop_map(|(pid, host, process, ring)| Member { pid, host, process, ring })
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            Just(Message::Greeting),
            (any::<u32>(), any::<u32>(), member()).prop_map(|(rank, size, member)| {
                Message::Hello(Hello { version: WIRE_VERSION, rank, size, member })
            }),
            (any::<Token>(), prop::collection::vec(member(), 0..5))
                .prop_map(|(passage, members)| Message::Welcome { passage, members }),
            ".{0,60}".prop_map(|reason| Message::Refusal { reason }),
            ".{0,60}".prop_map(|reason| Message::Failure { reason }),
            (any::<u32>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(round, rank, bytes)| Message::Blob { round, rank, bytes }),
        ]
    }

    fn read_all(bytes: &[u8], cut: usize) -> Result<Vec<Message>, Malformed> {
        let mut reader = FrameReader::default();
        let mut messages = Vec::new();
        for piece in bytes.chunks(cut) {
            reader.push(piece);
            while let Some(message) = reader.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    proptest! {
        #[test]
        fn messages_come_back_whatever_the_pieces(sent in prop::collection::vec(message(), 0..5), cut in 1usize..50) {
            let bytes: Vec<u8> = sent.iter().flat_map(Message::encode).collect();
            prop_assert_eq!(read_all(&bytes, cut).unwrap(), sent);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1usize..50) {
            let _ = read_all(&bytes, cut);
            let _ = decode_cause(&bytes);
        }

        #[test]
        fn random_bodies_never_panic(kind in 0u8..8, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(kind, &body);
        }

        #[test]
        fn a_damaged_byte_never_panics(sent in message(), place in any::<prop::sample::Index>(), value in any::<u8>()) {
            let mut bytes = sent.encode();
            let place = place.index(bytes.len());
            bytes[place] = value;
            let _ = read_all(&bytes, 64);
        }

        #[test]
        fn a_cause_comes_back_with_its_texts_cut(
            host in ".{0,100}", operation in ".{0,300}", message in ".{0,600}", rank in any::<u32>(), sequence in any::<u64>()
        ) {
            let culprit = Culprit { rank, host, pid: 7 };
            let cause = Cause { kind: ErrorKind::Remote, culprit, operation, sequence, message };
            let bytes = encode_cause(&cause);
            prop_assert!(bytes.len() <= CAUSE_BYTES_MAX);
            let read = decode_cause(&bytes).unwrap();
            prop_assert!(cause.message.starts_with(&read.message) && cause.operation.starts_with(&read.operation));
            prop_assert_eq!(encode_cause(&read), bytes);
            prop_assert_eq!((read.culprit.rank, read.sequence), (rank, sequence));
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_any_body() {
        let mut reader = FrameReader::default();
        reader.push(&u32::MAX.to_le_bytes());
        assert_eq!(reader.next(), Err(Malformed("frame length")));
    }

    #[test]
    fn a_hello_of_another_version_still_tells_who_sent_it() {
        let member = Member { pid: 9, host: "node".into(), process: [1; 16], ring: [2; 16] };
        let mut bytes = Message::Hello(Hello { version: 99, rank: 3, size: 4, member }).encode();
        bytes.extend_from_slice(b"new fields");
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        let read = read_all(&bytes, 1000).unwrap();
        let Message::Hello(hello) = &read[0] else { panic!("{read:?}") };
        assert_eq!(
            (hello.version, hello.rank, hello.member.pid, hello.member.host.as_str()),
            (99, 3, 9, "node")
        );
    }

    #[test]
    fn the_largest_blob_and_the_largest_table_fit_a_frame() {
        let blob = Message::Blob { round: 1, rank: 2, bytes: vec![7; BLOB_BYTES_MAX] };
        assert_eq!(read_all(&blob.encode(), 1 << 16).unwrap(), [blob]);
        let member = Member { pid: 1, host: "h".repeat(HOST_BYTES_MAX), process: [0; 16], ring: [0; 16] };
        let table = Message::Welcome { passage: [0; 16], members: vec![member; RANKS_MAX as usize] };
        assert_eq!(read_all(&table.encode(), 1 << 16).unwrap(), [table]);
    }
}
