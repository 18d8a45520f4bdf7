//! The bootstrap exchange: every rank has one connection to rank 0, which collects and hands out.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use ubccl_core::exchange::{BLOB_BYTES_MAX, Deadline};
use ubccl_core::{Culprit, Error, ErrorKind, Exchange, Result};

use super::conn::{Conn, ConnError, last_word, wait_any};
use super::identity::who;
use super::wire::Message;

/// How much longer a rank waits for rank 0's explanation: rank 0 knows who is missing.
pub(super) const EXPLANATION: Duration = Duration::from_secs(2);

/// This rank's side of the connections.
enum Links {
    /// One rank, or the exchange has failed.
    None,
    /// Rank 0: the connections of ranks 1, 2, ….
    Hub(Vec<Conn>),
    /// Any other rank: its connection to rank 0.
    Spoke(Conn),
}

/// The star of connections around rank 0.
pub(super) struct Star {
    rank: u32,
    members: Vec<Culprit>,
    deadline: Deadline,
    round: u32,
    links: Links,
    failed: Option<Error>,
}

impl Star {
    /// The exchange of a single rank.
    pub(super) fn alone(members: Vec<Culprit>, deadline: Deadline) -> Self {
        Star { rank: 0, members, deadline, round: 0, links: Links::None, failed: None }
    }

    /// Rank 0's side: `conns[i]` is the connection of rank i + 1.
    pub(super) fn hub(members: Vec<Culprit>, conns: Vec<Conn>, deadline: Deadline) -> Self {
        Star { links: Links::Hub(conns), ..Star::alone(members, deadline) }
    }

    /// Another rank's side.
    pub(super) fn spoke(rank: u32, members: Vec<Culprit>, conn: Conn, deadline: Deadline) -> Self {
        Star { rank, links: Links::Spoke(conn), ..Star::alone(members, deadline) }
    }

    /// What becomes readable when something unexpected happens.
    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match &self.links {
            Links::None => Vec::new(),
            Links::Hub(conns) => conns.iter().map(Conn::as_fd).collect(),
            Links::Spoke(conn) => vec![conn.as_fd()],
        }
    }

    /// Fails if a peer has failed or died while this rank expects nothing over the star.
    pub(super) fn check_quiet(&mut self) -> Result<()> {
        match &mut self.links {
            Links::None => Ok(()),
            Links::Hub(conns) => {
                for (culprit, conn) in self.members[1..].iter().zip(conns) {
                    if let Some(message) = conn.try_receive().map_err(|e| broken(culprit, &e))? {
                        return Err(unexpected(culprit, message));
                    }
                }
                Ok(())
            }
            Links::Spoke(conn) => match conn.try_receive().map_err(|e| broken(&self.members[0], &e))? {
                None => Ok(()),
                Some(message) => Err(unexpected(&self.members[0], message)),
            },
        }
    }

    /// Ends the exchange with an error, which the other ranks get too.
    pub(super) fn fail(&mut self, error: &Error) {
        match std::mem::replace(&mut self.links, Links::None) {
            Links::None => {}
            Links::Hub(conns) => last_word(conns, &Message::Refusal { reason: reason_of(error) }),
            Links::Spoke(conn) => {
                last_word(vec![conn], &Message::Failure { reason: reason_of(error) });
            }
        }
        self.failed = Some(error.clone());
    }

    fn round(&mut self, blob: &[u8]) -> Result<Vec<Vec<u8>>> {
        match &mut self.links {
            Links::None => Ok(vec![blob.to_vec()]),
            Links::Hub(conns) => {
                let blobs = collect(conns, &self.members, self.round, blob, &self.deadline)?;
                hand_out(conns, &self.members, self.round, &blobs, &self.deadline)?;
                Ok(blobs)
            }
            Links::Spoke(conn) => {
                let own = Message::Blob { round: self.round, rank: self.rank, bytes: blob.to_vec() };
                // If it cannot be sent, rank 0 has gone, but its reason may still be there to be read; and if not,
                // reading fails in the same way.
                let _ = conn.send(&own, &self.deadline);
                take_all(conn, &self.members, self.round, &self.deadline.later(EXPLANATION))
            }
        }
    }
}

impl Exchange for Star {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn ranks(&self) -> u32 {
        self.members.len() as u32 // at most RANKS_MAX
    }

    fn all_gather(&mut self, blob: &[u8]) -> Result<Vec<Vec<u8>>> {
        if blob.len() > BLOB_BYTES_MAX {
            let message =
                format!("a bootstrap blob has {} bytes; at most {BLOB_BYTES_MAX} are allowed", blob.len());
            return Err(Error::invalid(message));
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.round += 1;
        let result = self.round(blob);
        if let Err(error) = &result {
            self.fail(error);
        }
        result
    }

    fn deadline(&self) -> Deadline {
        self.deadline.clone()
    }
}

/// Rank 0: one blob of every rank.
fn collect(
    conns: &mut [Conn],
    members: &[Culprit],
    round: u32,
    own: &[u8],
    deadline: &Deadline,
) -> Result<Vec<Vec<u8>>> {
    let mut blobs: Vec<Option<Vec<u8>>> = vec![None; members.len()];
    blobs[0] = Some(own.to_vec());
    loop {
        for (culprit, conn) in members[1..].iter().zip(conns.iter_mut()) {
            let place = &mut blobs[culprit.rank as usize];
            match conn.try_receive().map_err(|e| broken(culprit, &e))? {
                None => {}
                Some(Message::Blob { round: theirs, rank, bytes })
                    if place.is_none() && (theirs, rank) == (round, culprit.rank) =>
                {
                    *place = Some(bytes);
                }
                Some(message) => return Err(unexpected(culprit, message)),
            }
        }
        if blobs.iter().all(Option::is_some) {
            return Ok(blobs.into_iter().flatten().collect());
        }
        if deadline.is_over() {
            let missing = members.iter().filter(|member| blobs[member.rank as usize].is_none());
            return Err(late(round, missing));
        }
        let fds: Vec<BorrowedFd<'_>> = conns.iter().map(Conn::as_fd).collect();
        wait_any(&fds, deadline).map_err(|e| Error::system("cannot wait for the other ranks", e))?;
    }
}

/// Rank 0: all blobs to every rank.
fn hand_out(
    conns: &mut [Conn],
    members: &[Culprit],
    round: u32,
    blobs: &[Vec<u8>],
    deadline: &Deadline,
) -> Result<()> {
    let frames: Vec<Vec<u8>> = (0u32..)
        .zip(blobs)
        .map(|(rank, bytes)| Message::Blob { round, rank, bytes: bytes.clone() }.encode())
        .collect();
    let explained = deadline.later(EXPLANATION);
    for (culprit, conn) in members[1..].iter().zip(conns) {
        for frame in &frames {
            conn.send_bytes(frame, &explained).map_err(|e| broken(culprit, &e))?;
        }
    }
    Ok(())
}

/// Another rank: all blobs from rank 0.
fn take_all(conn: &mut Conn, members: &[Culprit], round: u32, deadline: &Deadline) -> Result<Vec<Vec<u8>>> {
    members
        .iter()
        .map(|member| match conn.receive(deadline).map_err(|e| broken(&members[0], &e))? {
            Message::Blob { round: theirs, rank, bytes } if (theirs, rank) == (round, member.rank) => {
                Ok(bytes)
            }
            message => Err(unexpected(&members[0], message)),
        })
        .collect()
}

/// An error's text for other ranks, which put their own kind before it.
pub(super) fn reason_of(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{}: {source}", error.message()),
        None => error.message().to_owned(),
    }
}

/// A start error without more to tell.
pub(super) fn start_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Start, message)
}

fn name(culprit: &Culprit) -> String {
    who(culprit.rank, &culprit.host, culprit.pid)
}

/// A peer's connection gave no message.
pub(super) fn broken(culprit: &Culprit, error: &ConnError) -> Error {
    start_error(format!("{} {error}", name(culprit)))
}

/// A message that ends the start: somebody's failure, or one that has no place here.
pub(super) fn unexpected(culprit: &Culprit, message: Message) -> Error {
    match message {
        Message::Refusal { reason } => start_error(reason),
        Message::Failure { reason } => start_error(format!("{} cannot start: {reason}", name(culprit))),
        Message::Blob { round, .. } => start_error(format!(
            "{} is in bootstrap round {round}, this rank is not; do all ranks run the same program and version?",
            name(culprit)
        )),
        _ => start_error(format!("{} sent a message that has no place here", name(culprit))),
    }
}

fn late<'a>(round: u32, missing: impl Iterator<Item = &'a Culprit>) -> Error {
    let names: Vec<String> = missing.map(name).collect();
    start_error(format!(
        "the start's deadline passed in bootstrap round {round}; still missing: {}",
        names.join(", ")
    ))
}
