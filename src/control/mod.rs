//! The control plane: how ranks find each other, exchange what they need to start, and learn of failures.
//!
//! ```text
//! rendezvous   the text and the listener                 join     roll call at rank 0
//! door         secrets before anything else              star     the bootstrap exchange through rank 0
//! passage      descriptors from rank to rank             board    shared words: activity, departures, first cause
//! calls        what every rank called last
//! membership   who lives, who left, why it ended         poison   the first cause as this process's threads see it
//! service      the one thread that watches               wire     what bytes mean
//! ```
//!
//! **Who decides.** Rank 0 is special only during the start. Afterwards each rank watches every other process itself (a
//! pidfd that process made) and proposes a cause on the shared board, where one atomic swap decides; it then rings
//! the others, whose service threads look at the board. So:
//!
//! - any rank may die, at any moment, several at once, rank 0 too, and all survivors end with the same cause;
//! - a rank that failed and exits at once is not taken for the cause: the decision stood on the board before it exited,
//!   and the board is read before any death is believed. Nothing is in flight that a reset could destroy;
//! - any rank may leave at any time, rank 0 too, without waiting and without weakening the others' guarantees;
//! - a forked child that keeps sockets open does not hide its parent's death.
//!
//! **Several hosts, later.** The board and pidfds are one host's. With several, each host keeps this scheme inside, and
//! the lowest living rank of each host carries decisions and departures to the others over the star's connections,
//! which stay open; [`Membership::report`](membership::Membership::report) is the one place where a cause is decided.

mod board;
mod calls;
mod conn;
mod door;
mod identity;
mod join;
mod membership;
mod passage;
mod poison;
mod rendezvous;
mod service;
mod star;
#[cfg(test)]
mod tests;
mod wire;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SocketType;
use ubccl_core::{Cause, Culprit, Deadline, Error, ErrorKind, Exchange, Result};

use crate::usage::LinkClass;

pub(crate) use board::Board;
pub(crate) use identity::Identity;
pub(crate) use membership::LEFT_TOO_EARLY;
use membership::{Life, Membership, Parts, Rings};
pub(crate) use poison::{Poison, WakerGuard};
pub use rendezvous::Rendezvous;
pub(crate) use service::{Interest, Progress, ProgressState, Registration, Service};
use star::Star;
use wire::Member;

/// How long evidence (a broken data connection) waits for the true cause before it becomes one.
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(2);

/// What [`Control::join`] needs to know.
#[derive(Clone)]
pub(crate) struct Join {
    /// This rank.
    pub(crate) rank: u32,
    /// The number of ranks.
    pub(crate) size: u32,
    /// When the start, including the exchange, must be over.
    pub(crate) deadline: Deadline,
    /// Which process this is.
    pub(crate) identity: Identity,
    /// The text of an operation's signature (as given to [`Board::start`]; 0 means no signature).
    pub(crate) describe: fn(u128) -> String,
    /// See [`DEFAULT_GRACE`].
    pub(crate) grace: Duration,
}

/// One rank's membership in a communicator: start-up exchange, board, first cause.
///
/// After the start it is used through `&self`, from any thread. Dropping it without [`leave`](Control::leave) is a
/// goodbye after the last operation started, or, in the middle of an operation or of a panic, a cause for the others.
pub(crate) struct Control {
    /// Watches that end before anything they use; the order of fields is the order of drops.
    watches: Vec<Registration>,
    star: Star,
    membership: Arc<Membership>,
    service: Arc<Service>,
}

impl Control {
    /// Joins a communicator; returns when all ranks have.
    ///
    /// # Errors
    /// `InvalidArgument` for a rank or size that cannot be; otherwise `Start` or `System`, naming who is missing, who
    /// disagrees or who failed, on every rank that came.
    pub(crate) fn join(mut rendezvous: Rendezvous, join: Join) -> Result<Control> {
        check_place(join.rank, join.size)?;
        let service = Service::shared()?;
        let (mut star, parts) =
            if join.size == 1 { start_alone(&join)? } else { start_together(&mut rendezvous, &join)? };
        let membership = Arc::new(Membership::new(parts));
        let watches = match watch(&service, &membership) {
            Ok(watches) => watches,
            Err(error) => {
                star.fail(&error);
                return Err(error);
            }
        };
        let mut control = Control { watches, star, membership, service };
        // Nobody goes on before everybody watches everybody. If this fails here but not there, dropping says goodbye.
        control.star.all_gather(&[])?;
        Ok(control)
    }

    /// All ranks: rank, host, pid.
    pub(crate) fn members(&self) -> &[Culprit] {
        self.membership.members()
    }

    /// How far away a rank is.
    pub(crate) fn link_class(&self, rank: u32) -> LinkClass {
        let is_elsewhere = self.membership.lives().iter().any(|(_, ranks)| ranks.contains(&rank));
        let host = |rank: u32| self.members().get(rank as usize).map(|member| &member.host);
        match is_elsewhere {
            false => LinkClass::SameProcess,
            true if host(rank) == host(self.membership.rank()) => LinkClass::SameHost,
            true => LinkClass::Network,
        }
    }

    /// Where this rank says what it is doing.
    pub(crate) fn board(&self) -> &Board {
        self.membership.board()
    }

    /// The first cause, once there is one.
    pub(crate) fn poison(&self) -> &Arc<Poison> {
        self.membership.poison()
    }

    /// The process's service thread.
    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// A cause about `rank`: its host, pid, and what it is doing or was doing when it died.
    pub(crate) fn cause(&self, kind: ErrorKind, rank: u32, message: impl Into<String>) -> Cause {
        self.membership.cause(kind, rank, message)
    }

    /// Reports what this rank found (a mismatch, a timeout, an abort). Poisons every rank with the first cause, which
    /// is this one unless another was first, and returns it. Does not wait for anybody.
    ///
    /// # Errors
    /// `Unsupported` in a forked child; nothing is reported then.
    pub(crate) fn report(&self, cause: Cause) -> Result<Cause> {
        self.membership.check_process()?;
        Ok(self.membership.report(cause))
    }

    /// Waits for the first cause after evidence against `rank`, for at most the grace; then `rank` is the cause, with
    /// `message`. A rank that turns out to have left is the cause at once. May be called on any thread, the service
    /// thread included.
    ///
    /// # Errors
    /// `Unsupported` in a forked child.
    pub(crate) fn verdict(&self, rank: u32, message: impl Into<String>) -> Result<Cause> {
        self.membership.check_process()?;
        Ok(self.membership.verdict(rank, message.into()))
    }

    /// Says goodbye: this rank takes part in no operation after `last_sequence`. Does not wait for anybody.
    ///
    /// # Errors
    /// `Unsupported` in a forked child; the parent's membership goes on.
    pub(crate) fn leave(&self, last_sequence: u64) -> Result<()> {
        self.membership.check_process()?;
        self.membership.leave(last_sequence);
        Ok(())
    }

    /// The last sequence of a rank that left.
    pub(crate) fn left(&self, rank: u32) -> Option<u64> {
        self.membership.board().left(rank)
    }

    /// Why operation `sequence`, which needs every rank, cannot complete, if a rank left before it: one load while
    /// nobody has left. Whoever waits for such an operation asks again when woken by [`Poison::on_change`].
    #[inline]
    pub(crate) fn check_left(&self, sequence: u64) -> Option<Cause> {
        self.membership.check_left(sequence)
    }
}

impl Exchange for Control {
    fn rank(&self) -> u32 {
        self.membership.rank()
    }

    fn ranks(&self) -> u32 {
        self.star.ranks()
    }

    fn all_gather(&mut self, blob: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.membership.check_process()?;
        self.poison().check()?;
        // A death shows here and on the board at about the same time; the cause, if there is one, says more.
        self.star.all_gather(blob).map_err(|error| match self.poison().check() {
            Ok(()) => error,
            Err(cause) => cause,
        })
    }

    /// Over at the start's deadline, and as soon as the first cause is known.
    fn deadline(&self) -> Deadline {
        let poison = self.poison().clone();
        self.star.deadline().unless(move || poison.is_set())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if self.membership.check_process().is_err() {
            return; // a forked child: nothing here is its own
        }
        self.watches.clear();
        let rank = self.membership.rank();
        if self.left(rank).is_some() || self.poison().is_set() {
            return;
        }
        let activity = self.board().read(rank);
        if activity.running || std::thread::panicking() {
            let message = "it dropped the communicator without closing it";
            self.membership.report(self.cause(ErrorKind::Remote, rank, message));
        } else {
            self.membership.leave(activity.sequence);
        }
    }
}

fn check_place(rank: u32, size: u32) -> Result<()> {
    if size == 0 || size > wire::RANKS_MAX {
        return Err(Error::invalid(format!("a communicator has 1 to {} ranks, not {size}", wire::RANKS_MAX)));
    }
    if rank >= size {
        return Err(Error::invalid(format!(
            "rank {rank} does not exist among {size} ranks, which count from 0"
        )));
    }
    Ok(())
}

fn start_alone(join: &Join) -> Result<(Star, Parts)> {
    let members = join::culprits(&[member(join, [0; 16])]);
    let (board, _) = Board::create(1)?;
    let star = Star::alone(members.clone(), join.deadline.clone());
    Ok((star, parts(join, members, board, None, Vec::new())))
}

fn start_together(rendezvous: &mut Rendezvous, join: &Join) -> Result<(Star, Parts)> {
    let name = rendezvous::random_bytes()?;
    let ring = Arc::new(passage::abstract_socket(SocketType::DGRAM, &name)?);
    let mine = join::hello(join.rank, join.size, member(join, name));
    let (mut company, passage) = if join.rank == 0 {
        let name = rendezvous::random_bytes()?;
        let passage = passage::Passage::open(&name, join.size)?;
        (join::take_roll(rendezvous, mine, name, &join.deadline)?, Some(passage))
    } else {
        rendezvous.close();
        (join::report_in(rendezvous, &mine, &join.deadline)?, None)
    };
    match assemble(&mut company, passage, rendezvous, join, ring) {
        Ok(parts) => Ok((company.star, parts)),
        Err(error) => {
            company.star.fail(&error);
            Err(error)
        }
    }
}

/// Gets the board and the lives, and puts the parts together.
fn assemble(
    company: &mut join::Company,
    passage: Option<passage::Passage>,
    rendezvous: &Rendezvous,
    join: &Join,
    ring: Arc<OwnedFd>,
) -> Result<Parts> {
    let (members, secret) = (&company.members, rendezvous.secret());
    let (board, lives) = match passage {
        Some(passage) => {
            let (board, fd) = Board::create(join.size)?;
            let lives = passage.hand_out(&mut company.star, secret, members, &fd)?;
            (board, lives)
        }
        None => {
            let (fd, lives) = passage::fetch(&mut company.star, &company.passage, secret, members)?;
            (Board::open(fd, join.size, join.rank)?, lives)
        }
    };
    let others = (0..join.size).filter(|&rank| rank != join.rank);
    let addresses =
        others.map(|rank| passage::address(&members[rank as usize].ring)).collect::<Result<_>>()?;
    let processes = passage::other_processes(members, join.rank);
    let lives = lives.into_iter().map(Arc::new).zip(processes).collect();
    Ok(parts(join, join::culprits(members), board, Some((ring, addresses)), lives))
}

fn member(join: &Join, ring: wire::Token) -> Member {
    let Identity { host, pid, process } = join.identity.clone();
    Member { pid, host, process, ring }
}

fn parts(join: &Join, members: Vec<Culprit>, board: Board, rings: Option<Rings>, lives: Vec<Life>) -> Parts {
    let owner = std::process::id();
    Parts { rank: join.rank, members, board, rings, lives, describe: join.describe, grace: join.grace, owner }
}

/// Has the service watch the own ring and every other process's life.
fn watch(service: &Arc<Service>, membership: &Arc<Membership>) -> Result<Vec<Registration>> {
    let mut watches = Vec::new();
    if let Some(ring) = membership.ring() {
        let weak = Arc::downgrade(membership);
        let answer = move || weak.upgrade().iter().for_each(|membership| membership.answer());
        watches.push(service.register(ring, Interest::Readable, answer)?);
    }
    for (life, ranks) in membership.lives() {
        let (weak, ranks) = (Arc::downgrade(membership), ranks.clone());
        let died = move || weak.upgrade().iter().for_each(|membership| membership.died(&ranks));
        watches.push(service.register(life.clone(), Interest::Once, died)?);
    }
    Ok(watches)
}
