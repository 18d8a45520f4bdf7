//! How descriptors get from rank to rank: the board, and a handle of each process's life.
//!
//! Rank 0 listens on an abstract Unix socket with a random name, which it told the ranks over their authenticated
//! connections. A rank connects, shows secret and rank, and brings a pidfd of its own process; rank 0 checks the user,
//! collects all, and gives every rank the board and the pidfds of all processes but its own. A pidfd that its own process
//! made cannot mean another process, whatever happens to pids, and works across pid namespaces. That descriptors arrive
//! at all proves that the ranks are on one host.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recvmsg, sendmsg, socket_with, socketpair, sockopt,
};
use ubccl_core::{Deadline, Error, Exchange, Result};

use super::conn::wait_any;
use super::door::SILENCE_MAX;
use super::join::list;
use super::rendezvous::{SECRET_BYTES, Secret};
use super::star::{EXPLANATION, Star, start_error};
use super::wire::{Member, Token};

/// Descriptors in one packet; the kernel allows 253.
const BATCH: usize = 64;
/// Callers that have not shown the secret.
const CALLERS_MAX: usize = 64;
/// The packet a caller sends: secret and rank.
const CALL_BYTES: usize = SECRET_BYTES + 4;

/// Other processes of the communicator: one entry for each, with its ranks in order.
pub(super) fn other_processes(members: &[Member], rank: u32) -> Vec<Vec<u32>> {
    let own = members[rank as usize].process;
    let mut found: Vec<(Token, Vec<u32>)> = Vec::new();
    for (rank, member) in (0u32..).zip(members).filter(|(_, member)| member.process != own) {
        match found.iter_mut().find(|(process, _)| *process == member.process) {
            Some((_, ranks)) => ranks.push(rank),
            None => found.push((member.process, vec![rank])),
        }
    }
    found.into_iter().map(|(_, ranks)| ranks).collect()
}

/// A descriptor that becomes readable when this process has died: a pidfd, or without that system call (Linux before
/// 5.3, some container profiles, valgrind) one end of a socket whose other end this process keeps until it dies.
pub(super) fn own_life() -> Result<OwnedFd> {
    match rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty()) {
        Err(Errno::NOSYS | Errno::PERM) => own_socket(),
        opened => opened.map_err(|e| {
            let message =
                "cannot open a pidfd of this process, by which others notice its death; raise `ulimit -n`";
            Error::system(message, std::io::Error::from(e))
        }),
    }
}

/// The life of this process as a socket. A child that it forks, and that does not call exec, keeps the other end too:
/// then the death is seen when both are gone, which a pidfd does not suffer from.
fn own_socket() -> Result<OwnedFd> {
    static LIVES: Mutex<Vec<(u32, LifeSocket)>> = Mutex::new(Vec::new());
    let mut lives = LIVES.lock();
    let pid = std::process::id();
    if !lives.iter().any(|(owner, _)| *owner == pid) {
        lives.push((pid, LifeSocket::open().map_err(|e| refused("open", e))?));
    }
    let shown = lives.iter().find(|(owner, _)| *owner == pid).map(|(_, life)| life.shown.try_clone());
    let shown = shown.expect("it was just put there");
    shown
        .map_err(|e| Error::system("cannot copy the descriptor of this process's life; raise `ulimit -n`", e))
}

struct LifeSocket {
    /// What others watch; it becomes readable when `_kept` is closed.
    shown: OwnedFd,
    _kept: OwnedFd,
}

impl LifeSocket {
    fn open() -> std::result::Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (shown, kept) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok(LifeSocket { shown, _kept: kept })
    }
}

/// A fresh abstract Unix socket of this type and its address.
pub(super) fn abstract_socket(kind: SocketType, name: &Token) -> Result<OwnedFd> {
    let socket = unix_socket(kind)?;
    bind(&socket, &address(name)?).map_err(|e| refused("bind", e))?;
    Ok(socket)
}

/// The abstract address with this name.
pub(super) fn address(name: &Token) -> Result<SocketAddrUnix> {
    let text: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    SocketAddrUnix::new_abstract_name(format!("ubccl-{text}").as_bytes()).map_err(|e| refused("name", e))
}

fn unix_socket(kind: SocketType) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, kind, flags, None).map_err(|e| refused("open", e))
}

fn refused(what: &str, source: Errno) -> Error {
    let message = format!("cannot {what} a Unix socket; is the number of descriptors limited (`ulimit -n`)?");
    Error::system(message, std::io::Error::from(source))
}

/// Rank 0's side.
pub(super) struct Passage {
    socket: OwnedFd,
    callers: Vec<Caller>,
    guests: Vec<Option<Guest>>,
}

struct Caller {
    socket: OwnedFd,
    since: Instant,
}

/// A rank that has shown the secret.
struct Guest {
    socket: OwnedFd,
    life: OwnedFd,
}

impl Passage {
    pub(super) fn open(name: &Token, size: u32) -> Result<Self> {
        let socket = abstract_socket(SocketType::SEQPACKET, name)?;
        listen(&socket, size.max(128) as i32).map_err(|e| refused("listen on", e))?;
        let guests = (1..size).map(|_| None).collect();
        Ok(Passage { socket, callers: Vec::new(), guests })
    }

    /// Waits for all ranks, gives each the board and the other processes' lives, and returns those rank 0 needs.
    pub(super) fn hand_out(
        mut self,
        star: &mut Star,
        secret: &Secret,
        members: &[Member],
        board: &OwnedFd,
    ) -> Result<Vec<OwnedFd>> {
        let own = own_life()?;
        self.gather(star, secret)?;
        let guests: Vec<Guest> = self.guests.into_iter().flatten().collect();
        let life_of = |rank: u32| match rank {
            0 => own.as_fd(),
            _ => guests[rank as usize - 1].life.as_fd(),
        };
        for (rank, guest) in (1u32..).zip(&guests) {
            let lives = other_processes(members, rank);
            let fds: Vec<BorrowedFd<'_>> =
                std::iter::once(board.as_fd()).chain(lives.iter().map(|ranks| life_of(ranks[0]))).collect();
            for batch in fds.chunks(BATCH) {
                send_fds(&guest.socket, b"ubccl", batch, &star.deadline())
                    .map_err(|e| cannot_pass(star, &format!("to rank {rank}"), e))?;
            }
        }
        let mut lives: Vec<Option<OwnedFd>> = guests.into_iter().map(|guest| Some(guest.life)).collect();
        let needed = other_processes(members, 0);
        Ok(needed.iter().filter_map(|ranks| lives[ranks[0] as usize - 1].take()).collect())
    }

    fn gather(&mut self, star: &mut Star, secret: &Secret) -> Result<()> {
        let deadline = star.deadline();
        loop {
            star.check_quiet()?;
            self.accept()?;
            self.hear_callers(secret);
            if self.guests.iter().all(Option::is_some) {
                return Ok(());
            }
            if deadline.is_over() {
                return Err(self.missing());
            }
            let mut fds = star.fds();
            fds.push(self.socket.as_fd());
            fds.extend(self.callers.iter().map(|caller| caller.socket.as_fd()));
            let until = self.callers.iter().map(|caller| caller.since + SILENCE_MAX).min();
            let until = until.map_or_else(|| deadline.clone(), |until| deadline.no_later_than(until));
            wait_any(&fds, &until).map_err(|e| Error::system("rank 0 cannot wait for the other ranks", e))?;
        }
    }

    fn accept(&mut self) -> Result<()> {
        let own_user = rustix::process::geteuid();
        if self.callers.len() >= CALLERS_MAX {
            self.callers.drain(..CALLERS_MAX / 2); // the oldest make room; see the door
        }
        while self.callers.len() < CALLERS_MAX {
            match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => match sockopt::socket_peercred(&socket) {
                    Ok(peer) if peer.uid == own_user => {
                        self.callers.push(Caller { socket, since: Instant::now() });
                    }
                    _ => tracing::debug!(target: "ubccl::control", "dropped a connection of another user"),
                },
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(e) => return Err(refused("accept from", e)),
            }
        }
        Ok(())
    }

    fn hear_callers(&mut self, secret: &Secret) {
        let now = Instant::now();
        for caller in std::mem::take(&mut self.callers) {
            let mut call = [0; CALL_BYTES];
            match receive_fds(&caller.socket, &mut call, 1) {
                Err(Errno::AGAIN) if now < caller.since + SILENCE_MAX => self.callers.push(caller),
                Ok((CALL_BYTES, fds)) if secret.matches(&call[..SECRET_BYTES]) => {
                    self.seat(caller, &call, fds)
                }
                _ => tracing::debug!(target: "ubccl::control", "dropped a caller without the job's secret"),
            }
        }
    }

    fn seat(&mut self, caller: Caller, call: &[u8; CALL_BYTES], mut fds: Vec<OwnedFd>) {
        let rank = call.last_chunk().map(|bytes| u32::from_le_bytes(*bytes)).unwrap_or(0);
        let place = self.guests.get_mut((rank as usize).wrapping_sub(1));
        if let (Some(place @ None), Some(life)) = (place, fds.pop()) {
            *place = Some(Guest { socket: caller.socket, life });
        }
    }

    fn missing(&self) -> Error {
        let absent = (1u32..).zip(&self.guests).filter(|(_, guest)| guest.is_none());
        let ranks: Vec<String> = absent.map(|(rank, _)| rank.to_string()).collect();
        start_error(format!("ranks that did not come for the shared board in time: {}", list(&ranks)))
    }
}

/// Another rank's side: the board and the other processes' lives.
pub(super) fn fetch(
    star: &mut Star,
    name: &Token,
    secret: &Secret,
    members: &[Member],
) -> Result<(OwnedFd, Vec<OwnedFd>)> {
    let rank = star.rank();
    let socket = unix_socket(SocketType::SEQPACKET)?;
    connect(&socket, &address(name)?)
        .map_err(|e| cannot_pass(star, "from rank 0 (is it on another host?)", e))?;
    let peer = sockopt::socket_peercred(&socket).map_err(|e| refused("ask who serves", e))?;
    if peer.uid != rustix::process::geteuid() {
        let message =
            format!("rank 0 runs as user {}, not as this rank's user; use one user", peer.uid.as_raw());
        return Err(start_error(message));
    }
    let life = own_life()?;
    let mut call = secret.bytes().to_vec();
    call.extend_from_slice(&rank.to_le_bytes());
    send_fds(&socket, &call, &[life.as_fd()], &star.deadline())
        .map_err(|e| cannot_pass(star, "to rank 0", e))?;
    let wanted = 1 + other_processes(members, rank).len();
    let mut fds = Vec::with_capacity(wanted);
    while fds.len() < wanted {
        fds.extend(next_batch(star, &socket)?);
    }
    Ok((fds.remove(0), fds))
}

/// The next descriptors from rank 0, or what went wrong there.
fn next_batch(star: &mut Star, socket: &OwnedFd) -> Result<Vec<OwnedFd>> {
    let deadline = star.deadline().later(EXPLANATION);
    let mut closed = false;
    loop {
        if !closed {
            match receive_fds(socket, &mut [0; 8], BATCH) {
                Ok((_, fds)) if !fds.is_empty() => return Ok(fds),
                Ok(_) => closed = true, // rank 0 has failed and says why over the star
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(e) => return Err(cannot_pass(star, "from rank 0", e)),
            }
        }
        star.check_quiet()?;
        if deadline.is_over() {
            return Err(start_error("rank 0 did not hand out the shared board in time"));
        }
        let mut fds = star.fds();
        fds.extend((!closed).then(|| socket.as_fd()));
        wait_any(&fds, &deadline).map_err(|e| Error::system("cannot wait for rank 0", e))?;
    }
}

/// Sends a packet with descriptors. The kernel bounds how many of a user's descriptors are on their way: then the
/// receiver is waited for.
fn send_fds(
    socket: &OwnedFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    deadline: &Deadline,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    loop {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::INVAL); // more than BATCH
        }
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::AGAIN | Errno::TOOMANYREFS | Errno::INTR) if !deadline.is_over() => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => return Err(e),
        }
    }
}

/// Receives a packet with at most `count` descriptors; no bytes and no descriptors mean that the peer has closed.
fn receive_fds(socket: &OwnedFd, bytes: &mut [u8], count: usize) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(arrived) = message {
            fds.extend(arrived); // what is too much is closed below
        }
    }
    fds.truncate(count);
    Ok((received.bytes, fds))
}

/// Why descriptors do not pass. If the other side is gone, the star knows more: whoever failed says so there, and the
/// connection of a dead rank is closed.
fn cannot_pass(star: &mut Star, whom: &str, source: Errno) -> Error {
    let is_gone = matches!(source, Errno::CONNREFUSED | Errno::CONNRESET | Errno::PIPE);
    if let Some(explained) = is_gone.then(|| explanation(star)).flatten() {
        return explained;
    }
    let message = format!("cannot pass descriptors {whom}; is their number limited (`ulimit -n`)?");
    Error::system(message, std::io::Error::from(source))
}

/// What the star has to say, within a bounded time.
fn explanation(star: &mut Star) -> Option<Error> {
    let until = Deadline::at(Instant::now() + EXPLANATION);
    while !until.is_over() {
        if let Err(error) = star.check_quiet() {
            return Some(error);
        }
        wait_any(&star.fds(), &until).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    fn is_readable(fd: &OwnedFd) -> bool {
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).unwrap() > 0 && fds[0].revents().contains(PollFlags::IN)
    }

    #[test]
    fn a_life_without_pidfds_is_readable_once_the_process_has_lost_its_end() {
        let life = LifeSocket::open().unwrap();
        let watched = life.shown.try_clone().unwrap();
        assert!(!is_readable(&watched));
        drop(life);
        assert!(is_readable(&watched));
        let mine = [own_socket().unwrap(), own_socket().unwrap()];
        assert!(mine.iter().all(|life| !is_readable(life)), "this process lives");
    }
}
