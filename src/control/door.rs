//! Rank 0's door: accepts connections and lets in only those that begin with the job's secret.
//!
//! Nothing a stranger does delays the job: reads never block, a wrong secret is dropped at the sixteenth byte, silence
//! after two seconds, and when too many stand in the door those that have waited longest make room (a rank sends its
//! secret together with its connection request, so it never waits; if it is dropped all the same, it comes again).

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ubccl_core::{Deadline, Error, Result};

use super::conn::Conn;
use super::rendezvous::{SECRET_BYTES, Secret};
use super::wire::Message;

/// How long a stranger may keep the secret to itself.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How many may stand in the door without having shown the secret.
const STRANGERS_MAX: usize = 64;

/// A connection that has not shown the whole secret yet.
struct Stranger {
    stream: TcpStream,
    since: Instant,
    shown: [u8; SECRET_BYTES],
    count: usize,
}

/// What a look at a stranger showed.
enum Sight {
    Waiting,
    Friend,
    Foe,
}

/// The listener and who stands before it.
pub(super) struct Door<'a> {
    listener: TcpListener,
    secret: &'a Secret,
    strangers: Vec<Stranger>,
}

impl<'a> Door<'a> {
    pub(super) fn new(listener: TcpListener, secret: &'a Secret) -> Result<Self> {
        listener
            .set_nonblocking(true)
            .map_err(|e| Error::system("cannot make the rendezvous listener non-blocking", e))?;
        Ok(Door { listener, secret, strangers: Vec::new() })
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.strangers.iter().map(|one| one.stream.as_fd()))
    }

    /// When to look again at the latest.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.strangers.iter().map(|one| one.since + SILENCE_MAX).min()
    }

    /// Accepts who has come and returns who has shown the secret.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Vec<Conn>> {
        self.accept(now)?;
        let mut friends = Vec::new();
        for mut stranger in std::mem::take(&mut self.strangers) {
            match look_at(&mut stranger, self.secret) {
                Sight::Friend => friends.extend(greet(stranger.stream)),
                Sight::Waiting if now < stranger.since + SILENCE_MAX => self.strangers.push(stranger),
                Sight::Waiting | Sight::Foe => {
                    tracing::debug!(target: "ubccl::control", "dropped a connection without the job's secret")
                }
            }
        }
        Ok(friends)
    }

    fn accept(&mut self, now: Instant) -> Result<()> {
        if self.strangers.len() >= STRANGERS_MAX {
            self.strangers.drain(..STRANGERS_MAX / 2); // the oldest make room
        }
        // Bounded per call, so that a flood cannot keep us here, nor push out someone who was not looked at.
        while self.strangers.len() < STRANGERS_MAX {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if stream.set_nonblocking(true).is_err() {
                        continue; // dropped; a rank comes again
                    }
                    self.strangers.push(Stranger { stream, since: now, shown: [0; SECRET_BYTES], count: 0 });
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The connection went away again before it was accepted.
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(e) => {
                    return Err(Error::system("rank 0 cannot accept connections; raise `ulimit -n`?", e));
                }
            }
        }
        Ok(())
    }
}

fn look_at(stranger: &mut Stranger, secret: &Secret) -> Sight {
    while stranger.count < SECRET_BYTES {
        match stranger.stream.read(&mut stranger.shown[stranger.count..]) {
            Ok(0) => return Sight::Foe,
            Ok(count) => stranger.count += count,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Sight::Waiting,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Sight::Foe,
        }
    }
    if secret.matches(&stranger.shown) { Sight::Friend } else { Sight::Foe }
}

/// Tells a friend that it is in; `None` if it has gone.
fn greet(stream: TcpStream) -> Option<Conn> {
    let mut conn = Conn::new(stream).ok()?;
    // A new connection's buffer is empty: this never waits.
    conn.send(&Message::Greeting, &Deadline::at(Instant::now() + SILENCE_MAX)).ok()?;
    Some(conn)
}
