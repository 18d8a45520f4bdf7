//! Who is alive, who left, and the first cause: one rank's part in what all ranks agree on.
//!
//! Every rank watches the life of every other process itself, and the board decides between causes that are proposed
//! at the same time, so there is no rank whose own death, departure or slowness could keep the others from agreeing.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendFlags, SocketAddrUnix, recv, sendto};
use ubccl_core::{Cause, Culprit, ErrorKind, Result};

use super::board::Board;
use super::conn::until;
use super::identity::check_not_forked;
use super::poison::Poison;

/// Becomes readable when a process has died; the ranks in that process.
pub(super) type Life = (Arc<OwnedFd>, Vec<u32>);

/// The own ring and the addresses of the other ranks'.
pub(super) type Rings = (Arc<OwnedFd>, Vec<SocketAddrUnix>);

/// How often a [verdict](Membership::verdict) looks at the board, in case nobody rings: a thousandth of the default grace is late by nothing.
const VERDICT_LOOKS: Duration = Duration::from_millis(1);

/// Why a rank that left is a cause.
pub(crate) const LEFT_TOO_EARLY: &str = "it closed the communicator while another rank still waits for it";

/// What a [`Membership`] is made of.
pub(super) struct Parts {
    pub(super) rank: u32,
    pub(super) members: Vec<Culprit>,
    pub(super) board: Board,
    /// `None` for a single rank.
    pub(super) rings: Option<Rings>,
    /// The lives of the other processes and their ranks.
    pub(super) lives: Vec<Life>,
    pub(super) describe: fn(u128) -> String,
    pub(super) grace: Duration,
    pub(super) owner: u32,
}

/// One rank's part in the agreement.
pub(super) struct Membership {
    parts: Parts,
    poison: Arc<Poison>,
    /// The smallest last sequence of all ranks known to have left, `u64::MAX` while nobody has.
    first_left: AtomicU64,
    /// How many ranks are known to have left.
    left_count: Mutex<usize>,
    /// Held while proposing: a rank has one place for its cause.
    proposing: Mutex<()>,
}

impl Membership {
    pub(super) fn new(parts: Parts) -> Self {
        let poison = Arc::new(Poison::default());
        let first_left = AtomicU64::new(u64::MAX);
        Membership { parts, poison, first_left, left_count: Mutex::new(0), proposing: Mutex::new(()) }
    }

    pub(super) fn rank(&self) -> u32 {
        self.parts.rank
    }

    pub(super) fn members(&self) -> &[Culprit] {
        &self.parts.members
    }

    pub(super) fn board(&self) -> &Board {
        &self.parts.board
    }

    pub(super) fn poison(&self) -> &Arc<Poison> {
        &self.poison
    }

    pub(super) fn lives(&self) -> &[Life] {
        &self.parts.lives
    }

    /// The socket on which others ring this rank.
    pub(super) fn ring(&self) -> Option<Arc<OwnedFd>> {
        self.parts.rings.as_ref().map(|(socket, _)| socket.clone())
    }

    pub(super) fn check_process(&self) -> Result<()> {
        check_not_forked(self.parts.owner)
    }

    /// Takes over what other ranks have decided: the first cause and who left.
    pub(super) fn look(&self) {
        if let Some(cause) = self.board().decision() {
            self.end(cause);
        }
        if self.note_leavers() {
            self.poison.wake();
        }
    }

    /// True if a rank left since the last look.
    fn note_leavers(&self) -> bool {
        let mut known = self.left_count.lock();
        let left: Vec<u64> = self.others().filter_map(|rank| self.board().left(rank)).collect();
        let first = left.iter().copied().min().unwrap_or(u64::MAX);
        self.first_left.fetch_min(first, Ordering::Release); // pairs with `check_left`
        left.len() > std::mem::replace(&mut *known, left.len())
    }

    fn others(&self) -> impl Iterator<Item = u32> {
        (0..self.members().len() as u32).filter(|&rank| rank != self.rank())
    }

    /// A process of these ranks has died.
    pub(super) fn died(&self, ranks: &[u32]) {
        self.look();
        let mut lost = ranks.iter().copied().filter(|&rank| self.board().left(rank).is_none());
        let Some(rank) = lost.next() else { return };
        let others: Vec<String> = lost.map(|rank| rank.to_string()).collect();
        let message = match others.len() {
            0 => "its process died".to_owned(),
            1 => format!("its process died, and with it rank {}", others[0]),
            _ => format!("its process died, and with it ranks {}", others.join(", ")),
        };
        self.report(self.cause(ErrorKind::Remote, rank, message));
    }

    /// A cause about `rank`, with what the rank is doing or did last.
    pub(super) fn cause(&self, kind: ErrorKind, rank: u32, message: impl Into<String>) -> Cause {
        let activity = self.board().read(rank);
        let known = activity.running && activity.signature != 0;
        Cause {
            kind,
            culprit: self.members()[rank as usize].clone(),
            operation: if known { (self.parts.describe)(activity.signature) } else { String::new() },
            sequence: activity.sequence,
            message: message.into(),
        }
    }

    /// Proposes a cause; returns the first one, which poisons all ranks.
    pub(super) fn report(&self, cause: Cause) -> Cause {
        let first = {
            let _one_at_a_time = self.proposing.lock();
            self.board().decide(&cause)
        };
        // Others first: this rank's sleepers may end the process as soon as they wake.
        self.ring_others();
        self.end(first.clone());
        first
    }

    /// The communicator has failed, here too: told once.
    fn end(&self, cause: Cause) {
        self.poison.set(cause, |error| {
            tracing::error!(target: "ubccl::control", rank = self.rank(), "the communicator failed: {error}");
        });
    }

    /// The first cause, waited for on the calling thread, which may be the service thread: this looks at board and
    /// lives itself. After the grace `rank` is the cause, with `message`, and at once if it turns out to have left.
    pub(super) fn verdict(&self, rank: u32, message: String) -> Cause {
        let patience = Instant::now() + self.parts.grace;
        loop {
            self.look();
            if let Some(cause) = self.poison.cause() {
                return cause.clone();
            }
            if self.board().left(rank).is_some() {
                return self.report(self.cause(ErrorKind::Remote, rank, LEFT_TOO_EARLY));
            }
            if Instant::now() >= patience {
                return self.report(self.cause(ErrorKind::Remote, rank, message));
            }
            self.watch_lives(patience.min(Instant::now() + VERDICT_LOOKS));
        }
    }

    /// Waits for a death until `deadline`, and says so if there was one.
    fn watch_lives(&self, deadline: Instant) {
        let here = |(_, ranks): &&Life| ranks.iter().any(|&rank| self.board().left(rank).is_none());
        let lives: Vec<&Life> = self.parts.lives.iter().filter(here).collect();
        let mut fds: Vec<PollFd<'_>> =
            lives.iter().map(|(life, _)| PollFd::new(&**life, PollFlags::IN)).collect();
        if poll(&mut fds, Some(&until(deadline))).is_ok() {
            let dead = fds.iter().zip(&lives).filter(|(fd, _)| !fd.revents().is_empty());
            dead.for_each(|(_, (_, ranks))| self.died(ranks));
        }
    }

    /// Says goodbye: this rank takes part in nothing after `last_sequence`.
    pub(super) fn leave(&self, last_sequence: u64) {
        self.board().leave(last_sequence);
        self.ring_others();
        self.note_leavers();
    }

    /// Why an operation that needs every rank cannot complete, if a rank left before it.
    #[inline]
    pub(super) fn check_left(&self, sequence: u64) -> Option<Cause> {
        let first = self.first_left.load(Ordering::Acquire); // pairs with `note_leavers`
        if sequence <= first { None } else { self.left_cause() }
    }

    #[cold]
    fn left_cause(&self) -> Option<Cause> {
        let left = self.others().filter_map(|rank| self.board().left(rank).map(|last| (last, rank)));
        let (last, rank) = left.min()?;
        Some(Cause {
            kind: ErrorKind::Remote,
            culprit: self.members()[rank as usize].clone(),
            operation: String::new(),
            sequence: last,
            message: format!("it closed the communicator after sequence {last}"),
        })
    }

    /// Makes every other rank's service thread look at the board.
    fn ring_others(&self) {
        let Some((socket, addresses)) = &self.parts.rings else { return };
        for address in addresses {
            // A full queue holds rings that were not looked at yet; a refusal means that the rank has closed or died.
            if let Err(error) = sendto(socket, b"!", SendFlags::DONTWAIT | SendFlags::NOSIGNAL, address) {
                tracing::trace!(target: "ubccl::control", %error, "a rank was not rung");
            }
        }
    }

    /// This rank was rung.
    pub(super) fn answer(&self) {
        let Some((socket, _)) = &self.parts.rings else { return };
        // Bounded, though anyone who knows the name may ring: the rest brings the service thread back here.
        for _ in 0..64 {
            let mut ring = [0u8; 1];
            if recv(socket, &mut ring, RecvFlags::DONTWAIT).is_err() {
                break;
            }
        }
        self.look();
    }
}
