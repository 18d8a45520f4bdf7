//! How ranks find each other: rank 0 takes the roll, the others knock until it answers.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ubccl_core::{Culprit, Deadline, Error, Result};

use super::conn::{Conn, ConnError, last_word, wait_any};
use super::door::{Door, SILENCE_MAX};
use super::identity::who;
use super::rendezvous::{Rendezvous, Secret};
use super::star::{EXPLANATION, Star, broken, reason_of, start_error, unexpected};
use super::wire::{Hello, Member, Message, Token, WIRE_VERSION};

/// Between two knocks at first and at most.
const KNOCK_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// So often rank 0 may drop a rank's connection unheard before the rank believes that its secret is wrong.
const DROPS_MAX: u32 = 4;
/// How long rank 0 keeps the door open after a conflict.
const LINGER: Duration = Duration::from_secs(2);
/// Most ranks listed in a message.
const LISTED_MAX: usize = 16;

/// The outcome of the roll call.
pub(super) struct Company {
    /// The exchange.
    pub(super) star: Star,
    /// All ranks.
    pub(super) members: Vec<Member>,
    /// Where rank 0 hands out descriptors.
    pub(super) passage: Token,
}

/// The members as culprits.
pub(super) fn culprits(members: &[Member]) -> Vec<Culprit> {
    (0u32..)
        .zip(members)
        .map(|(rank, member)| Culprit { rank, host: member.host.clone(), pid: member.pid })
        .collect()
}

/// Rank 0: waits until every rank is here, or tells all who came why it failed.
pub(super) fn take_roll(
    rendezvous: &mut Rendezvous,
    mine: Hello,
    passage: Token,
    deadline: &Deadline,
) -> Result<Company> {
    let listener = rendezvous.listen()?;
    let address = rendezvous.address();
    let mut door = Door::new(listener, rendezvous.secret())?;
    let mut roll = Roll::new(mine);
    if let Err(error) = roll.call(&mut door, address, deadline) {
        roll.wait_for_more(&mut door, deadline);
        last_word(roll.everyone(), &Message::Refusal { reason: reason_of(&error) });
        return Err(error);
    }
    let (mut conns, mut members) = (Vec::new(), vec![roll.mine.member]);
    for (conn, hello) in roll.present.into_iter().flatten() {
        conns.push(conn);
        members.push(hello.member);
    }
    let names = culprits(&members);
    let welcome = Message::Welcome { passage, members: members.clone() };
    let explained = deadline.later(EXPLANATION);
    let sent = names[1..]
        .iter()
        .zip(&mut conns)
        .try_for_each(|(culprit, conn)| conn.send(&welcome, &explained).map_err(|e| broken(culprit, &e)));
    let mut star = Star::hub(names, conns, deadline.clone());
    if let Err(error) = sent {
        star.fail(&error);
        return Err(error);
    }
    Ok(Company { star, members, passage })
}

/// Who has come so far.
struct Roll {
    mine: Hello,
    /// Ranks 1, 2, ….
    present: Vec<Option<(Conn, Hello)>>,
    /// They have the secret and have not said who they are.
    newcomers: Vec<Conn>,
}

impl Roll {
    fn new(mine: Hello) -> Self {
        let present = (1..mine.size).map(|_| None).collect();
        Roll { mine, present, newcomers: Vec::new() }
    }

    fn call(&mut self, door: &mut Door<'_>, address: SocketAddr, deadline: &Deadline) -> Result<()> {
        loop {
            let now = Instant::now();
            self.newcomers.extend(door.admit(now)?);
            self.hear_newcomers()?;
            self.check_present()?;
            if self.present.iter().all(Option::is_some) {
                return Ok(());
            }
            if deadline.is_over() {
                return Err(self.missing(address));
            }
            let expiry = door.next_expiry();
            let until = expiry.map_or_else(|| deadline.clone(), |expiry| deadline.no_later_than(expiry));
            let present = self.present.iter().flatten().map(|(conn, _)| conn.as_fd());
            let fds: Vec<BorrowedFd<'_>> =
                door.fds().chain(self.newcomers.iter().map(Conn::as_fd)).chain(present).collect();
            wait_any(&fds, &until).map_err(|e| Error::system("rank 0 cannot wait for the other ranks", e))?;
        }
    }

    /// Hears all who are in, also after a conflict showed: nobody who is to be told may be dropped.
    fn hear_newcomers(&mut self) -> Result<()> {
        let mut conflict = None;
        for mut conn in std::mem::take(&mut self.newcomers) {
            match conn.try_receive() {
                Ok(None) => self.newcomers.push(conn),
                Ok(Some(Message::Hello(hello))) => match self.conflict(&hello) {
                    None => {
                        let place = hello.rank as usize - 1; // there is no second rank 0
                        self.present[place] = Some((conn, hello));
                    }
                    Some(message) => {
                        self.newcomers.push(conn);
                        conflict.get_or_insert(message);
                    }
                },
                // Gone or talking nonsense before it said who it is: nobody that is known is missing.
                Ok(Some(_)) | Err(_) => {
                    tracing::debug!(target: "ubccl::control", "a rank went away before it said who it is")
                }
            }
        }
        conflict.map_or(Ok(()), |message| Err(start_error(message)))
    }

    /// Why a rank cannot be let in.
    fn conflict(&self, hello: &Hello) -> Option<String> {
        let (mine, name) = (&self.mine, hello_name(hello));
        if hello.version != mine.version {
            return Some(format!(
                "{name} speaks version {} of the start-up protocol, {} speaks version {}; \
                 use the same ubccl on all ranks",
                hello.version,
                hello_name(mine),
                mine.version
            ));
        }
        if hello.size != mine.size {
            return Some(format!(
                "{name} was started for {} ranks, {} for {}; give all ranks the same size",
                hello.size,
                hello_name(mine),
                mine.size
            ));
        }
        if hello.rank >= mine.size {
            return Some(format!("{name} does not exist among {} ranks, which count from 0", mine.size));
        }
        let other = match hello.rank {
            0 => Some(mine),
            rank => self.present[rank as usize - 1].as_ref().map(|(_, hello)| hello),
        }?;
        Some(format!(
            "two processes say they are the same rank: {} and {name}; give each its own",
            hello_name(other)
        ))
    }

    /// Fails if a rank that was here has gone.
    fn check_present(&mut self) -> Result<()> {
        for (conn, hello) in self.present.iter_mut().flatten() {
            let culprit =
                Culprit { rank: hello.rank, host: hello.member.host.clone(), pid: hello.member.pid };
            match conn.try_receive() {
                Ok(None) => {}
                Ok(Some(message)) => return Err(unexpected(&culprit, message)),
                Err(error) => return Err(broken(&culprit, &error)),
            }
        }
        Ok(())
    }

    fn missing(&self, address: SocketAddr) -> Error {
        let absent = (1u32..).zip(&self.present).filter(|(_, present)| present.is_none());
        let ranks: Vec<String> = absent.map(|(rank, _)| rank.to_string()).collect();
        start_error(format!(
            "{} of {} ranks did not come to {address} before the deadline: {}; \
             were they started, with this rendezvous text and their own rank?",
            ranks.len(),
            self.mine.size,
            list(&ranks)
        ))
    }

    /// After a failure: ranks that start at about the same time shall be told too, not find nobody there.
    fn wait_for_more(&mut self, door: &mut Door<'_>, deadline: &Deadline) {
        let until = deadline.no_later_than(Instant::now() + LINGER);
        while self.present.iter().flatten().count() + self.newcomers.len() + 1 < self.mine.size as usize {
            let Ok(more) = door.admit(Instant::now()) else { return };
            self.newcomers.extend(more);
            let fds: Vec<BorrowedFd<'_>> = door.fds().collect();
            if until.is_over() || wait_any(&fds, &until).is_err() {
                return;
            }
        }
    }

    /// Every connection, to be told the last word.
    fn everyone(self) -> Vec<Conn> {
        let present = self.present.into_iter().flatten().map(|(conn, _)| conn);
        self.newcomers.into_iter().chain(present).collect()
    }
}

/// The first of many ranks, for a message.
pub(super) fn list(ranks: &[String]) -> String {
    let more = ranks.len().saturating_sub(LISTED_MAX);
    let listed = ranks[..ranks.len() - more].join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}

fn hello_name(hello: &Hello) -> String {
    who(hello.rank, &hello.member.host, hello.member.pid)
}

/// Any other rank: knocks until rank 0 lets it in, and waits until everyone is there.
pub(super) fn report_in(rendezvous: &Rendezvous, mine: &Hello, deadline: &Deadline) -> Result<Company> {
    let mut conn = knock(rendezvous, mine, deadline)?;
    let hub = Culprit { rank: 0, host: rendezvous.address().ip().to_string(), pid: 0 };
    let (passage, members) = match conn.receive(&deadline.later(EXPLANATION)) {
        Ok(Message::Welcome { passage, members }) => (passage, members),
        Ok(message) => return Err(unexpected(&hub, message)),
        Err(ConnError::TimedOut) => {
            let message = "rank 0 answered, but not all ranks came before this rank's deadline";
            return Err(start_error(message));
        }
        Err(error) => return Err(broken_before_roll(rendezvous.address(), &error)),
    };
    if members.len() != mine.size as usize {
        let message = format!("rank 0 sent {} members for {} ranks", members.len(), mine.size);
        return Err(start_error(message));
    }
    let star = Star::spoke(mine.rank, culprits(&members), conn, deadline.clone());
    Ok(Company { star, members, passage })
}

fn broken_before_roll(address: SocketAddr, error: &ConnError) -> Error {
    start_error(format!("rank 0 at {address} {error} before all ranks had come"))
}

/// Connects, shows the secret, and waits for the greeting.
fn knock(rendezvous: &Rendezvous, mine: &Hello, deadline: &Deadline) -> Result<Conn> {
    let address = rendezvous.address();
    let (mut pause, longest) = KNOCK_PAUSES;
    let mut drops = 0;
    let mut first_drop = None;
    loop {
        let error = match knock_once(address, rendezvous.secret(), mine, deadline) {
            Ok(conn) => return Ok(conn),
            Err(error) => error,
        };
        if matches!(error, ConnError::Closed) {
            drops += 1;
            let since = *first_drop.get_or_insert_with(Instant::now);
            if drops >= DROPS_MAX && since.elapsed() >= SILENCE_MAX {
                return Err(wrong_secret(address));
            }
        }
        if deadline.is_over() {
            return Err(nobody_there(address, &error));
        }
        std::thread::sleep(pause.min(deadline.pause()));
        pause = (2 * pause).min(longest);
    }
}

fn knock_once(
    address: SocketAddr,
    secret: &Secret,
    mine: &Hello,
    deadline: &Deadline,
) -> Result<Conn, ConnError> {
    // On one host connecting waits for nobody.
    let patience = deadline.pause().max(Duration::from_millis(1));
    let stream = TcpStream::connect_timeout(&address, patience)?;
    // Without a listener, a connection from a port to itself can succeed: it is nobody, and it holds rank 0's port.
    if stream.local_addr()? == address {
        return Err(ConnError::TimedOut);
    }
    let mut conn = Conn::new(stream)?;
    let mut first = secret.bytes().to_vec();
    first.extend_from_slice(&Message::Hello(mine.clone()).encode());
    conn.send_bytes(&first, deadline)?;
    match conn.receive(deadline)? {
        Message::Greeting => Ok(conn),
        _ => Err(ConnError::Closed),
    }
}

fn wrong_secret(address: SocketAddr) -> Error {
    start_error(format!(
        "the listener at {address} dropped this rank's connection {DROPS_MAX} times without a word: \
         the rendezvous text's secret is not the one rank 0 has, or another program listens there"
    ))
}

fn nobody_there(address: SocketAddr, error: &ConnError) -> Error {
    start_error(format!(
        "rank 0 was not there at {address} before the deadline (its address {error}); \
         is rank 0 started, with the same rendezvous text?"
    ))
}

/// This rank's first message.
pub(super) fn hello(rank: u32, size: u32, member: Member) -> Hello {
    Hello { version: WIRE_VERSION, rank, size, member }
}
