//! Messages between the program and the ranks it started: a length in four bytes, then JSON.

use crate::orders::Answer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{Error, ErrorKind, Read, Result, Write};

/// No message is longer: a million samples have a dozen digits each.
const MOST_BYTES: usize = 64 << 20;

/// What a rank says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// Rank 0, before it starts: where the others find it.
    Rendezvous(String),
    /// Its communicator is up.
    Ready {
        /// The processor it is bound to.
        cpu: Option<usize>,
        /// Bytes of memory that its communicator takes.
        memory_bytes: u64,
    },
    /// It did as ordered.
    Answer(Answer),
    /// It cannot go on, and why.
    Failed(String),
}

/// Sends one message.
pub(crate) fn send(to: &mut impl Write, message: &impl Serialize) -> Result<()> {
    let body = serde_json::to_vec(message)?;
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend(body);
    to.write_all(&frame)
}

/// Waits for one message; nothing when the other side closed.
pub(crate) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>> {
    let mut inbox = Inbox::default();
    loop {
        if let Some(message) = inbox.take()? {
            return Ok(Some(message));
        }
        // One message at a time, so nothing of the next is taken along.
        if !inbox.read_missing(from)? {
            return Ok(None);
        }
    }
}

/// The bytes of a message as they come in.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    /// Reads what is there, up to the end of the current message; false when the other side closed.
    pub(crate) fn read_missing(&mut self, from: &mut impl Read) -> Result<bool> {
        let missing = self.frame_len()?.unwrap_or(4) - self.bytes.len();
        let start = self.bytes.len();
        self.bytes.resize(start + missing.min(1 << 20), 0);
        let read = from.read(&mut self.bytes[start..]);
        self.bytes.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(bytes) => Ok(bytes > 0),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the message out, once it is whole.
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        match self.frame_len()? {
            Some(len) if len == self.bytes.len() => {
                let message = serde_json::from_slice(&self.bytes[4..])?;
                self.bytes.clear();
                Ok(Some(message))
            }
            _ => Ok(None),
        }
    }

    /// Bytes of the current message with its length field, once that is known.
    fn frame_len(&self) -> Result<Option<usize>> {
        let Some(header) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*header) as usize;
        if len > MOST_BYTES {
            return Err(Error::new(ErrorKind::InvalidData, format!("a message of {len} bytes")));
        }
        Ok(Some(4 + len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out its bytes in small pieces, as a socket may.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
            let len = buffer.len().min(3);
            self.0.read(&mut buffer[..len])
        }
    }

    #[test]
    fn messages_come_through_in_pieces_and_in_order() {
        let mut bytes = Vec::new();
        send(&mut bytes, &"first").unwrap();
        send(&mut bytes, &vec![1_u64; 1000]).unwrap();
        let mut from = Trickle(&bytes);
        assert_eq!(receive::<String>(&mut from).unwrap().as_deref(), Some("first"));
        assert_eq!(receive::<Vec<u64>>(&mut from).unwrap(), Some(vec![1; 1000]));
        assert_eq!(receive::<String>(&mut from).unwrap(), None);
    }

    #[test]
    fn an_absurd_length_is_an_error_and_not_an_allocation() {
        assert!(receive::<String>(&mut &[0xff_u8; 8][..]).is_err());
    }
}
