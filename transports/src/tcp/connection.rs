//! The connection to one peer: a socket, what is being written to it, and the channels behind it.

use super::inbound::{Inbound, Outcome, Refusal, Target};
use super::outbound::{Outbound, Outgoing, Sent};
use super::parser::{Parser, Token};
use super::raw::{Gather, MAX_PIECES, Place, Scatter};
use super::wire::{FRAGMENT_BYTES, Frame, HEADER_BYTES, LANES, ring_of_lane};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Frames that one call writes.
const MAX_STAGED: usize = MAX_PIECES / 2;
/// Calls before other connections get their turn.
const WRITES_PER_TURN: usize = 4;

/// The connection to one peer.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    parser: Parser,
    inbound: Vec<Inbound>,
    outbound: Vec<Outbound>,
    /// Frames that are being written. Once here they are within the receiver's limits: nothing holds them up for good.
    staged: VecDeque<Staged>,
    staged_bytes: u64,
    /// Limits that the peer has to be told.
    grants: [Option<u64>; LANES],
    /// The lane that comes next when fragments are staged.
    turn: usize,
    /// The socket took no more; it says when it does again.
    is_blocked: bool,
    /// Why nothing more can be written.
    write_end: Option<String>,
    /// Why nothing more can be read.
    read_end: Option<String>,
}

#[derive(Debug)]
struct Staged {
    header: [u8; HEADER_BYTES],
    payload: Option<Place>,
    /// Bytes of header and payload that the kernel has.
    written: usize,
    /// The message that it completes.
    completes: Option<Sent>,
}

impl Staged {
    fn len(&self) -> usize {
        HEADER_BYTES + self.payload.map_or(0, Place::len)
    }
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) bytes: usize,
    /// Whether there may be more.
    pub(super) has_more: bool,
}

/// What a turn of writing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) bytes: usize,
    /// Whether there may be more, and the socket may take more.
    pub(super) has_more: bool,
}

impl Connection {
    /// Takes over an authenticated socket. At first, this side grants each lane its part of `ring_bytes`, the peer of
    /// `limit` ([`ring_of_lane`]).
    pub(super) fn new(socket: OwnedFd, ring_bytes: u64, limit: u64) -> Self {
        Connection {
            socket,
            parser: Parser::new(),
            inbound: (0..LANES).map(|lane| Inbound::new(ring_of_lane(ring_bytes, lane))).collect(),
            outbound: (0..LANES).map(|lane| Outbound::new(ring_of_lane(limit, lane))).collect(),
            staged: VecDeque::with_capacity(MAX_STAGED),
            staged_bytes: 0,
            grants: [None; LANES],
            turn: 0,
            is_blocked: false,
            write_end: None,
            read_end: None,
        }
    }

    /// The receiving side of a lane. [`Connection::schedule_grant`] has to follow a change.
    pub(super) fn inbound(&mut self, lane: usize) -> &mut Inbound {
        &mut self.inbound[lane]
    }

    /// Bytes of rings, and of queues and itself.
    pub(super) fn memory(&self) -> (usize, usize) {
        let rings = self.inbound.iter().map(Inbound::ring_bytes).sum();
        let inbound: usize = self.inbound.iter().map(Inbound::queue_bytes).sum();
        let outbound: usize = self.outbound.iter().map(Outbound::queue_bytes).sum();
        let staged = self.staged.capacity() * size_of::<Staged>();
        let lanes = size_of_val(&*self.inbound) + size_of_val(&*self.outbound);
        (rings, size_of::<Self>() + lanes + inbound + outbound + staged)
    }

    /// Queues a message.
    pub(super) fn send(&mut self, lane: usize, message: Outgoing) {
        self.outbound[lane].push(message);
    }

    /// Looks whether the peer has to be told a new limit.
    pub(super) fn schedule_grant(&mut self, lane: usize) {
        if let Some(limit) = self.inbound[lane].grant_due() {
            self.grants[lane] = Some(limit);
        }
    }

    /// Whether there is something to write that the socket may take.
    pub(super) fn wants_to_write(&self) -> bool {
        let has_frames = || {
            !self.staged.is_empty()
                || self.grants.iter().any(Option::is_some)
                || self.outbound.iter().any(Outbound::is_ready)
        };
        self.write_end.is_none() && !self.is_blocked && has_frames()
    }

    /// Whether the socket took no more when last tried.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// The socket may take more.
    pub(super) fn unblock(&mut self) {
        self.is_blocked = false;
    }

    /// Writes what it can and appends the messages that went out wholly.
    pub(super) fn write(&mut self, sent: &mut Vec<Sent>) -> Written {
        let mut bytes = 0;
        for _ in 0..WRITES_PER_TURN {
            self.stage();
            if self.staged.is_empty() || self.write_end.is_some() {
                return Written { bytes, has_more: false };
            }
            match self.gather().send(self.socket.as_fd()) {
                Ok(written) => {
                    bytes += written;
                    // Less than all: the socket is full.
                    self.is_blocked = !self.accept(written, sent);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_blocked = true,
                Err(error) => self.write_end = Some(format!("its connection failed: {error}")),
            }
            if self.is_blocked {
                return Written { bytes, has_more: false };
            }
        }
        Written { bytes, has_more: true }
    }

    /// Fills the queue of frames: grants first, then a fragment of each lane in turn.
    fn stage(&mut self) {
        for lane in 0..LANES {
            if self.staged.len() < MAX_STAGED
                && let Some(limit) = self.grants[lane].take()
            {
                self.push(Frame::Grant { lane, limit }, None, None);
            }
        }
        let mut idle = 0;
        while idle < LANES && self.staged.len() < MAX_STAGED && self.staged_bytes < FRAGMENT_BYTES {
            let lane = self.turn;
            self.turn = (self.turn + 1) % LANES;
            idle += 1;
            if let Some(fragment) = self.outbound[lane].next(lane) {
                idle = 0;
                self.push(fragment.frame, Some(fragment.payload), fragment.completes);
            }
        }
    }

    fn push(&mut self, frame: Frame, payload: Option<Place>, completes: Option<Sent>) {
        let staged = Staged { header: frame.encode(), payload, written: 0, completes };
        self.staged_bytes += staged.len() as u64;
        self.staged.push_back(staged);
    }

    fn gather(&self) -> Gather<'_> {
        let mut pieces = Gather::new();
        for Staged { header, payload, written, .. } in &self.staged {
            pieces.push(&header[(*written).min(HEADER_BYTES)..]);
            if let Some(payload) = payload {
                pieces.push_place(payload.from(written.saturating_sub(HEADER_BYTES) as u64));
            }
        }
        pieces
    }

    /// The kernel took that many bytes. Says whether that was all.
    fn accept(&mut self, mut bytes: usize, sent: &mut Vec<Sent>) -> bool {
        while let Some(front) = self.staged.front_mut() {
            let rest = front.len() - front.written;
            if bytes < rest {
                front.written += bytes;
                return false;
            }
            bytes -= rest;
            self.staged_bytes -= front.len() as u64;
            sent.extend(front.completes);
            self.staged.pop_front();
        }
        true
    }

    /// Reads once and appends what came of it. `staging` is for bytes whose place is not known yet; it is free again
    /// afterwards.
    ///
    /// Errors: a message that is not the one posted.
    pub(super) fn read(&mut self, staging: &mut [u8], outcomes: &mut Vec<Outcome>) -> Result<Read, Refusal> {
        let (bytes, straight, is_full) = match self.receive(staging) {
            Ok((0, ..)) => return Ok(self.end(self.closed())),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                return Ok(Read { bytes: 0, has_more: true });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(Read { bytes: 0, has_more: false });
            }
            Err(error) => return Ok(self.end(format!("its connection failed: {error}"))),
        };
        if let Some((lane, _)) = self.parser.payload().filter(|_| straight > 0) {
            self.parser.skip(straight as u64);
            outcomes.push(self.inbound[lane].fill(straight as u64));
            self.schedule_grant(lane);
        }
        match self.parse(&staging[..bytes - straight], outcomes) {
            Ok(()) => Ok(Read { bytes, has_more: is_full }),
            Err(Refusal::Protocol(what)) => {
                Ok(self.end(format!("its connection is out of order: it {what}")))
            }
            Err(mismatch) => Err(mismatch),
        }
    }

    fn closed(&self) -> String {
        match self.parser.is_between_frames() {
            true => "it closed its connection".to_owned(),
            false => "its connection ended in the middle of a message".to_owned(),
        }
    }

    fn end(&mut self, why: String) -> Read {
        self.read_end = Some(why);
        Read { bytes: 0, has_more: false }
    }

    /// One read: bytes, how many of them went straight to their place, and whether all the space was filled.
    fn receive(&mut self, staging: &mut [u8]) -> std::io::Result<(usize, usize, bool)> {
        let (mut pieces, mut straight, mut rest) = (Scatter::new(), 0, 0);
        if let Some((lane, payload)) = self.parser.payload() {
            match self.inbound[lane].target() {
                Target::Memory(place) => {
                    straight = place.len().min(payload as usize);
                    pieces.push_place(place.part(0, straight as u64));
                }
                Target::Ring(space) => {
                    straight = space.len().min(payload as usize);
                    pieces.push(&mut space[..straight]);
                }
            }
            rest = payload - straight as u64;
        }
        // Payload that continues elsewhere (where the ring ends) is left for the next read, which has a place for it.
        let staged = if rest == 0 { staging.len() } else { 0 };
        pieces.push(&mut staging[..staged]);
        let read = pieces.receive(self.socket.as_fd())?;
        Ok((read, read.min(straight), read == straight + staged))
    }

    fn parse(&mut self, mut bytes: &[u8], outcomes: &mut Vec<Outcome>) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            let (len, token) = self.parser.next(bytes).map_err(Refusal::Protocol)?;
            match token {
                Token::Partial => (),
                Token::Frame(Frame::Grant { lane, limit }) => {
                    self.outbound[lane].grant(limit).map_err(Refusal::Protocol)?;
                }
                Token::Frame(Frame::Data { lane, header, offset, fragment }) => {
                    outcomes.push(self.inbound[lane].begin(header, offset, fragment)?);
                    self.schedule_grant(lane);
                }
                Token::Payload { lane, len } => {
                    self.inbound[lane].write(&bytes[..len], |outcome| outcomes.push(outcome));
                    self.schedule_grant(lane);
                }
            }
            bytes = &bytes[len..];
        }
        Ok(())
    }

    /// Whether it can still be read.
    pub(super) fn is_open(&self) -> bool {
        self.read_end.is_none()
    }

    /// Why the peer is lost, if it is and something under way needs it.
    pub(super) fn missed(&self) -> Option<&str> {
        let is_sending = || {
            self.staged.iter().any(|frame| frame.payload.is_some())
                || self.outbound.iter().any(|lane| !lane.is_empty())
        };
        let is_receiving = || self.inbound.iter().any(Inbound::is_waiting);
        // What was sent before the end is read first: a failed write alone takes nothing from a receive.
        let end = match (&self.read_end, &self.write_end) {
            (Some(end), _) if is_sending() || is_receiving() => Some(end),
            (None, Some(end)) if is_sending() => Some(end),
            _ => None,
        };
        end.map(String::as_str)
    }

    /// Why the peer is gone, if it is; [`Connection::missed`] says whether that matters.
    pub(super) fn gone(&self) -> Option<&str> {
        self.read_end.as_deref().or(self.write_end.as_deref())
    }

    /// The channels that messages may wait on.
    pub(super) fn lanes(&self) -> &[Inbound] {
        &self.inbound
    }

    /// Forgets everything that names memory.
    pub(super) fn cancel(&mut self) {
        self.inbound.iter_mut().for_each(Inbound::clear);
        self.outbound.iter_mut().for_each(Outbound::clear);
        self.staged.clear();
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
