//! Passing descriptors over sockets that have a random abstract name: nothing in the file system, nothing left behind.
//!
//! Lower ranks accept, higher ranks connect. Whoever connects presents the acceptor's token, its rank and its
//! descriptors in one packet; the acceptor answers with the other's token and its own. A stranger, that is another
//! user or a wrong token, is dropped, and a silent one keeps nobody waiting.

use super::card::{Card, Secret};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recvmsg, sendmsg, socket_with, sockopt,
};
use rustix::process::Pid;
use rustix::thread::Timespec;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use ubccl_core::{Deadline, Error, ErrorKind, Result};

/// Connections that may wait for their first packet beyond those of the ranks.
const MAX_STRANGERS: usize = 64;
/// How long to wait before a full queue of connections is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// What a rank hands to a peer.
#[derive(Debug)]
pub(crate) struct Gift {
    /// Its segment.
    pub(crate) segment: OwnedFd,
    /// The descriptor by which it is woken.
    pub(crate) descriptor: OwnedFd,
}

/// What a rank got from a peer.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) gift: Gift,
    /// The peer's process, if this one has a number for it.
    pub(crate) process: Option<Pid>,
}

/// The first packet in each direction.
#[derive(Debug)]
struct Packet {
    token: Secret,
    rank: u32,
    gift: Gift,
}

/// This rank's listening socket.
pub(crate) fn listener(rank: usize, card: &Card, ranks: usize) -> Result<OwnedFd> {
    let refused = |what: &str, errno: Errno| {
        Error::system(format!("rank {rank}: {what} for the local socket refused"), errno)
    };
    let socket = local_socket().map_err(|errno| refused("socket", errno))?;
    let address = SocketAddrUnix::new_abstract_name(&card.socket).map_err(|errno| refused("name", errno))?;
    bind(&socket, &address).map_err(|errno| refused("bind", errno))?;
    listen(&socket, (ranks + MAX_STRANGERS) as i32).map_err(|errno| refused("listen", errno))?;
    Ok(socket)
}

/// A meeting of all ranks, seen from one.
pub(crate) struct Meeting<'a> {
    pub(crate) rank: usize,
    pub(crate) cards: &'a [Card],
    pub(crate) listener: &'a OwnedFd,
    /// What the others get.
    pub(crate) gift: &'a Gift,
    pub(crate) deadline: &'a Deadline,
}

impl Meeting<'_> {
    /// Meets every other rank. The answer is by rank and has nothing for this one.
    pub(crate) fn hold(&self) -> Result<Vec<Option<Met>>> {
        // Nobody waits for anybody here, so there is no order to get wrong: queues are long enough for all ranks.
        let lower = (0..self.rank).map(|peer| self.call(peer)).collect::<Result<Vec<_>>>()?;
        let mut gifts = self.receive_calls()?;
        for (peer, connection) in lower.into_iter().enumerate() {
            gifts[peer] = Some(self.answer_of(peer, connection)?);
        }
        Ok(gifts)
    }

    /// Connects to a lower rank and presents itself.
    fn call(&self, peer: usize) -> Result<OwnedFd> {
        let connection = self.connect(peer)?;
        let failed = |errno| self.failed(peer, "could not be told of this rank", errno);
        if !is_same_user(connection.as_fd()).map_err(failed)? {
            return Err(self.error(peer, "runs as another user; run all ranks as one"));
        }
        self.send(connection.as_fd(), &self.cards[peer].token).map_err(failed)?;
        Ok(connection)
    }

    fn connect(&self, peer: usize) -> Result<OwnedFd> {
        let failed = |errno| self.failed(peer, "is not there (it failed or died during start-up)", errno);
        let connection = local_socket().map_err(failed)?;
        let address = SocketAddrUnix::new_abstract_name(&self.cards[peer].socket).map_err(failed)?;
        loop {
            match connect(&connection, &address) {
                Ok(()) => return Ok(connection),
                // Its queue is full: it is about to accept.
                Err(Errno::AGAIN | Errno::INTR) if !self.deadline.is_over() => std::thread::sleep(RETRY),
                Err(errno) => return Err(failed(errno)),
            }
        }
    }

    /// Accepts until every higher rank has presented itself, and answers each.
    fn receive_calls(&self) -> Result<Vec<Option<Met>>> {
        let mut gifts: Vec<Option<Met>> = self.cards.iter().map(|_| None).collect();
        let mut callers: Vec<OwnedFd> = Vec::new();
        while gifts[self.rank + 1..].iter().any(Option::is_none) {
            let ready = wait(std::iter::once(self.listener).chain(&callers), self.deadline)?;
            if ready.is_empty() {
                return Err(self.missing(&gifts));
            }
            // Backwards, so that removing one does not move those still to come.
            for caller in ready.into_iter().rev() {
                match caller.checked_sub(1) {
                    None => self.accept(&mut callers),
                    Some(caller) => self.serve(&callers.remove(caller), &mut gifts)?,
                }
            }
        }
        Ok(gifts)
    }

    fn accept(&self, callers: &mut Vec<OwnedFd>) {
        // A connection that is gone already is nobody's.
        let Ok(caller) = accept_with(self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else {
            return;
        };
        if !is_same_user(caller.as_fd()).unwrap_or(false) {
            tracing::warn!(target: "ubccl::shm", rank = self.rank, "shm: dropped a connection of another user");
            return;
        }
        if callers.len() == self.cards.len() + MAX_STRANGERS {
            callers.remove(0);
        }
        callers.push(caller);
    }

    /// Reads a caller's packet, answers it and keeps its gift; a stranger is dropped.
    fn serve(&self, caller: &OwnedFd, gifts: &mut [Option<Met>]) -> Result<()> {
        let packet = receive(caller.as_fd()).ok().flatten();
        let own = &self.cards[self.rank].token;
        let Some(packet) = packet.filter(|packet| packet.token == *own) else {
            tracing::warn!(target: "ubccl::shm", rank = self.rank, "shm: dropped a connection without the token");
            return Ok(());
        };
        let peer = packet.rank as usize;
        if peer <= self.rank || gifts.get(peer).is_none_or(Option::is_some) {
            tracing::warn!(
                target: "ubccl::shm", rank = self.rank,
                peer,
                "shm: dropped a connection of a rank that is not expected"
            );
            return Ok(());
        }
        self.send(caller.as_fd(), &self.cards[peer].token)
            .map_err(|errno| self.failed(peer, "left during start-up", errno))?;
        gifts[peer] = Some(Met { gift: packet.gift, process: process_of(caller.as_fd()) });
        Ok(())
    }

    /// The answer of a lower rank.
    fn answer_of(&self, peer: usize, connection: OwnedFd) -> Result<Met> {
        if wait(std::iter::once(&connection), self.deadline)?.is_empty() {
            return Err(
                self.error(peer, "did not answer in time; see why it hangs or raise the start deadline")
            );
        }
        let packet =
            receive(connection.as_fd()).map_err(|errno| self.failed(peer, "left during start-up", errno))?;
        let packet = packet
            .filter(|packet| packet.token == self.cards[self.rank].token && packet.rank as usize == peer);
        match packet {
            Some(packet) => Ok(Met { gift: packet.gift, process: process_of(connection.as_fd()) }),
            None => Err(self.error(peer, "hung up during start-up: see its own error")),
        }
    }

    /// One packet: a token, this rank, its gift.
    fn send(&self, connection: BorrowedFd<'_>, token: &Secret) -> rustix::io::Result<()> {
        let rank = (self.rank as u32).to_le_bytes();
        let descriptors = [self.gift.segment.as_fd(), self.gift.descriptor.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let has_room = control.push(SendAncillaryMessage::ScmRights(&descriptors));
        assert!(has_room, "the space is for two descriptors");
        let parts = [IoSlice::new(token), IoSlice::new(&rank)];
        sendmsg(connection, &parts, &mut control, SendFlags::NOSIGNAL).map(drop)
    }

    fn missing(&self, gifts: &[Option<Met>]) -> Error {
        let missing = (self.rank + 1..gifts.len()).filter(|&peer| gifts[peer].is_none());
        let missing: Vec<_> = missing.map(|peer| peer.to_string()).collect();
        let (rank, missing) = (self.rank, missing.join(", "));
        let message =
            format!("rank {rank}: no connection from rank {missing} before the start deadline; is it alive?");
        Error::new(ErrorKind::Start, message)
    }

    fn failed(&self, peer: usize, what: &str, errno: Errno) -> Error {
        self.error(peer, what).with_source(errno)
    }

    fn error(&self, peer: usize, what: &str) -> Error {
        Error::new(ErrorKind::Start, format!("rank {}: rank {peer} {what}", self.rank))
    }
}

fn local_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

fn is_same_user(connection: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    Ok(sockopt::socket_peercred(connection)?.uid == rustix::process::geteuid())
}

/// The process at the other end, by its number here. Whether that is one that can be read is for `Foreign::meet` to try.
fn process_of(connection: BorrowedFd<'_>) -> Option<Pid> {
    sockopt::socket_peercred(connection).ok().map(|peer| peer.pid)
}

/// Which of the sockets have something to read; none when the deadline has passed.
fn wait<'a>(sockets: impl Iterator<Item = &'a OwnedFd>, deadline: &Deadline) -> Result<Vec<usize>> {
    let mut polled: Vec<_> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    loop {
        let pause = deadline.pause();
        let timeout = Timespec::try_from(pause).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) if pause.is_zero() => return Ok(Vec::new()),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => break,
            Err(errno) => return Err(Error::system("poll on local sockets refused", errno)),
        }
    }
    Ok((0..polled.len()).filter(|&at| !polled[at].revents().is_empty()).collect())
}

/// One packet, if that is what came.
fn receive(connection: BorrowedFd<'_>) -> rustix::io::Result<Option<Packet>> {
    let (mut token, mut rank, mut beyond) = (Secret::default(), [0; 4], [0; 1]);
    let len = token.len() + rank.len();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut token), IoSliceMut::new(&mut rank), IoSliceMut::new(&mut beyond)];
    let received = recvmsg(connection, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let mut descriptors = descriptors.flatten();
    let gift = descriptors.next().zip(descriptors.next());
    let gift = gift.map(|(segment, descriptor)| Gift { segment, descriptor });
    let rank = u32::from_le_bytes(rank);
    Ok(gift.filter(|_| received.bytes == len).map(|gift| Packet { token, rank, gift }))
}
