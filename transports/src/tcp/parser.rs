//! Cuts a peer's bytes into frames and payload: a pure state machine that knows nothing of sockets or memory.

use super::wire::{Frame, HEADER_BYTES};

/// Where a peer's stream of bytes stands.
#[derive(Debug)]
pub(super) struct Parser {
    header: [u8; HEADER_BYTES],
    filled: usize,
    lane: usize,
    payload: u64,
}

/// What some bytes were.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The rest of a header, still incomplete.
    Partial,
    /// A frame begins.
    Frame(Frame),
    /// This many bytes of payload of this lane, from the front of what was given.
    Payload { lane: usize, len: usize },
}

impl Parser {
    pub(super) fn new() -> Self {
        Parser { header: [0; HEADER_BYTES], filled: 0, lane: 0, payload: 0 }
    }

    /// Says what the front of `bytes` is, and how many of them that takes. At least one is taken if there is one.
    ///
    /// Errors: says what is wrong; the stream cannot be read any further.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<(usize, Token), &'static str> {
        if self.payload > 0 {
            let len = bytes.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
            self.payload -= len as u64;
            return Ok((len, Token::Payload { lane: self.lane, len }));
        }
        let len = bytes.len().min(HEADER_BYTES - self.filled);
        self.header[self.filled..self.filled + len].copy_from_slice(&bytes[..len]);
        self.filled += len;
        if self.filled < HEADER_BYTES {
            return Ok((len, Token::Partial));
        }
        self.filled = 0;
        let frame = Frame::decode(&self.header)?;
        if let Frame::Data { lane, fragment, .. } = frame {
            (self.lane, self.payload) = (lane, u64::from(fragment));
        }
        Ok((len, Token::Frame(frame)))
    }

    /// The lane and the bytes of payload that come next, if that is what comes next.
    pub(super) fn payload(&self) -> Option<(usize, u64)> {
        (self.payload > 0).then_some((self.lane, self.payload))
    }

    /// That many bytes of [`Parser::payload`] were read past this parser.
    pub(super) fn skip(&mut self, len: u64) {
        debug_assert!(len <= self.payload);
        self.payload -= len;
    }

    /// Whether the stream may end here.
    pub(super) fn is_between_frames(&self) -> bool {
        self.filled == 0 && self.payload == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ubccl_core::endpoint::{Header, Stream};
    use ubccl_core::signature::Signature;

    /// Everything a parser says about a stream, with neighbouring payload joined, and what stopped it.
    fn told(stream: &[u8], splits: &[usize]) -> (Vec<Token>, Option<&'static str>) {
        let mut parser = Parser::new();
        let (mut tokens, mut at) = (Vec::new(), 0);
        let mut splits = splits.iter().cycle();
        while at < stream.len() {
            let end = (at + splits.next().map_or(stream.len(), |&split| split.max(1))).min(stream.len());
            while at < end {
                match parser.next(&stream[at..end]) {
                    Err(error) => return (tokens, Some(error)),
                    Ok((len, token)) => {
                        assert!(len > 0 && len <= end - at);
                        at += len;
                        join(&mut tokens, token);
                    }
                }
            }
        }
        (tokens, None)
    }

    fn join(tokens: &mut Vec<Token>, token: Token) {
        match (tokens.last_mut(), token) {
            (_, Token::Partial) => (),
            (Some(Token::Payload { len, .. }), Token::Payload { len: more, .. }) => *len += more,
            (_, token) => tokens.push(token),
        }
    }

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let data = (0..9usize, any::<u64>(), any::<u128>(), 1..300u32, any::<u32>()).prop_map(
            |(lane, number, signature, fragment, before)| {
                let header = Header {
                    stream: Stream::Collective(number),
                    signature: Signature(signature),
                    len: u64::from(before) + u64::from(fragment),
                };
                Frame::Data { lane, header, offset: u64::from(before), fragment }
            },
        );
        let grant = (0..9usize, any::<u64>()).prop_map(|(lane, limit)| Frame::Grant { lane, limit });
        proptest::collection::vec(prop_oneof![data, grant], 0..20)
    }

    proptest! {
        #[test]
        fn random_bytes_in_random_pieces_are_told_the_same_and_never_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..4000),
            tame in any::<bool>(),
            splits in proptest::collection::vec(1..200usize, 1..20),
        ) {
            if tame {
                // Most random bytes fail at once; small ones get further.
                bytes.iter_mut().for_each(|byte| *byte &= 1);
            }
            prop_assert_eq!(told(&bytes, &splits), told(&bytes, &[]));
        }

        #[test]
        fn frames_and_payload_come_back_whatever_the_pieces(
            frames in frames(),
            splits in proptest::collection::vec(1..200usize, 1..20),
        ) {
            let (mut stream, mut expected) = (Vec::new(), Vec::new());
            for frame in frames {
                stream.extend_from_slice(&frame.encode());
                expected.push(frame);
                if let Frame::Data { fragment, .. } = frame {
                    // Payload that looks like frames must not be taken for any.
                    stream.extend(frame.encode().iter().cycle().take(fragment as usize));
                }
            }
            let (tokens, error) = told(&stream, &splits);
            prop_assert_eq!(error, None);
            let frames = tokens.iter().filter_map(|token| match token {
                Token::Frame(frame) => Some(*frame),
                _ => None,
            });
            prop_assert_eq!(frames.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn payload_may_be_read_past_the_parser() {
        let header = Header { stream: Stream::Tagged(1), signature: Signature(2), len: 10 };
        let mut parser = Parser::new();
        let frame = Frame::Data { lane: 2, header, offset: 0, fragment: 10 };
        assert_eq!(parser.next(&frame.encode()), Ok((HEADER_BYTES, Token::Frame(frame))));
        assert_eq!(parser.payload(), Some((2, 10)));
        parser.skip(7);
        assert_eq!(parser.next(&[1; 20]), Ok((3, Token::Payload { lane: 2, len: 3 })));
        assert!(parser.is_between_frames());
        assert_eq!(parser.payload(), None);
    }
}
