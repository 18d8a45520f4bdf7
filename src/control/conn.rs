//! One non-blocking TCP connection that carries messages, and waiting with a deadline.

use std::fmt;
use std::io::{self, ErrorKind::WouldBlock, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ubccl_core::exchange::Deadline;

use super::wire::{FrameReader, Malformed, Message};

/// Why a connection gave no message.
#[derive(Debug)]
pub(super) enum ConnError {
    /// The peer closed it or is gone.
    Closed,
    /// The deadline passed.
    TimedOut,
    /// The peer broke the protocol.
    Malformed(Malformed),
    /// The operating system failed.
    Io(io::Error),
}

impl fmt::Display for ConnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnError::Closed => f.write_str("closed its connection (it died, or its start failed)"),
            ConnError::TimedOut => f.write_str("sent nothing in time"),
            ConnError::Malformed(malformed) => write!(f, "sent a {malformed}"),
            ConnError::Io(error) => write!(f, "cannot be reached: {error}"),
        }
    }
}

impl From<io::Error> for ConnError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                ConnError::Closed
            }
            io::ErrorKind::TimedOut => ConnError::TimedOut,
            _ => ConnError::Io(error),
        }
    }
}

/// A connection between rank 0 and another rank.
pub(super) struct Conn {
    stream: TcpStream,
    frames: FrameReader,
}

impl Conn {
    /// Takes over a stream; makes it non-blocking and immediate.
    pub(super) fn new(stream: TcpStream) -> io::Result<Conn> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Conn { stream, frames: FrameReader::default() })
    }

    /// Sends a message, waiting for room until `deadline`.
    pub(super) fn send(&mut self, message: &Message, deadline: &Deadline) -> Result<(), ConnError> {
        self.send_bytes(&message.encode(), deadline)
    }

    /// Sends bytes, waiting for room until `deadline`.
    pub(super) fn send_bytes(&mut self, mut bytes: &[u8], deadline: &Deadline) -> Result<(), ConnError> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Err(ConnError::Closed),
                Ok(count) => bytes = &bytes[count..],
                Err(e) if e.kind() == WouldBlock => {
                    if !wait_one(&self.stream, PollFlags::OUT, deadline)? {
                        return Err(ConnError::TimedOut);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// The next message that has arrived, without waiting.
    pub(super) fn try_receive(&mut self) -> Result<Option<Message>, ConnError> {
        let mut piece = [0; 16 << 10];
        loop {
            if let Some(message) = self.frames.next().map_err(ConnError::Malformed)? {
                return Ok(Some(message));
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(ConnError::Closed),
                Ok(count) => self.frames.push(&piece[..count]),
                Err(e) if e.kind() == WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The next message, waiting until `deadline`.
    pub(super) fn receive(&mut self, deadline: &Deadline) -> Result<Message, ConnError> {
        loop {
            if let Some(message) = self.try_receive()? {
                return Ok(message);
            }
            if !wait_one(&self.stream, PollFlags::IN, deadline)? {
                return Err(ConnError::TimedOut);
            }
        }
    }

    /// Says that nothing more will be sent. With the draining in [`last_word`] before the drop, what was sent arrives: closing a
    /// socket with unread bytes resets it, and a reset destroys what the peer has not read yet.
    fn finish(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write); // fails only if the peer is gone already
    }

    /// Discards what arrives; true once the peer has closed.
    fn discard(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return e.kind() != WouldBlock,
            }
        }
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Sends `message` to all as the last word and waits a bounded time until each has read it and closed.
pub(super) fn last_word(mut conns: Vec<Conn>, message: &Message) {
    let deadline = Deadline::at(Instant::now() + Duration::from_secs(1));
    conns.retain_mut(|conn| conn.send(message, &deadline).is_ok());
    conns.iter().for_each(Conn::finish);
    while !conns.is_empty() && !deadline.is_over() {
        let fds: Vec<BorrowedFd<'_>> = conns.iter().map(Conn::as_fd).collect();
        if wait_any(&fds, &deadline).is_err() {
            return;
        }
        conns.retain_mut(|conn| !conn.discard());
    }
}

/// Waits until one of `fds` is readable or closed, or until `deadline`. May return early.
pub(super) fn wait_any(fds: &[BorrowedFd<'_>], deadline: &Deadline) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match poll(&mut fds, Some(&timespec(deadline.pause()))) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Waits until `fd` is readable, with or without a deadline, in nanoseconds. May return early.
pub(super) fn wait_readable(fd: BorrowedFd<'_>, deadline: Option<Instant>) {
    let timeout = deadline.map(until);
    // An error (interrupted, out of memory) only makes the caller look early.
    let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], timeout.as_ref());
}

/// Waits for one descriptor; false when the deadline has passed.
fn wait_one(fd: impl AsFd, flags: PollFlags, deadline: &Deadline) -> io::Result<bool> {
    if deadline.is_over() {
        return Ok(false);
    }
    match poll(&mut [PollFd::from_borrowed_fd(fd.as_fd(), flags)], Some(&timespec(deadline.pause()))) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// A poll timeout that ends at `deadline`.
pub(super) fn until(deadline: Instant) -> Timespec {
    timespec(deadline.saturating_duration_since(Instant::now()))
}

fn timespec(left: Duration) -> Timespec {
    Timespec { tv_sec: left.as_secs().min(i32::MAX as u64) as i64, tv_nsec: i64::from(left.subsec_nanos()) }
}
