//! Connecting every rank with every other: one connection for each pair, authenticated before anything is parsed.
//!
//! Each rank listens on a port of its own and tells the others, over the exchange, the port and a random secret. Rank i
//! connects to every j < i and says j's secret and its own number; j answers with i's secret, so that both know whom
//! they talk to. Whoever else connects is dropped: a wrong secret at once, silence after [`SILENCE`]. Nobody waits for
//! strangers, as all connections are looked at together.

use super::wire::VERSION;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fmt::Display;
use std::io::{ErrorKind as Io, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use ubccl_core::collective::Rank;
use ubccl_core::{Deadline, Error, ErrorKind, Exchange, Result};

/// How long somebody who connected may say nothing.
const SILENCE: Duration = Duration::from_secs(2);
/// How many may be saying nothing; the oldest goes.
const MAX_STRANGERS: usize = 64;
/// The largest ring a peer may claim to have.
const MAX_RING_BYTES: u64 = 1 << 30;
/// Connecting on one host waits for nobody, but may not be given no time.
const CONNECT_MIN: Duration = Duration::from_millis(10);
const SECRET_BYTES: usize = 16;
const HELLO_BYTES: usize = SECRET_BYTES + 4;
const CARD_BYTES: usize = 4 + 2 + 8 + SECRET_BYTES;

/// An authenticated connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) socket: TcpStream,
    /// What it grants each of our lanes at first.
    pub(super) ring_bytes: u64,
}

/// What a rank tells the others over the exchange.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Card {
    port: u16,
    ring_bytes: u64,
    secret: [u8; SECRET_BYTES],
}

impl Card {
    fn encode(&self) -> [u8; CARD_BYTES] {
        let mut bytes = [0; CARD_BYTES];
        bytes[..4].copy_from_slice(&VERSION.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.port.to_le_bytes());
        bytes[6..14].copy_from_slice(&self.ring_bytes.to_le_bytes());
        bytes[14..].copy_from_slice(&self.secret);
        bytes
    }

    fn decode(rank: Rank, bytes: &[u8]) -> Result<Self> {
        let version = bytes.first_chunk().map_or(0, |version| u32::from_le_bytes(*version));
        if version != VERSION || bytes.len() != CARD_BYTES {
            return Err(Error::new(
                ErrorKind::Start,
                format!(
                    "rank {rank} speaks version {version} of ubccl's tcp transport, this rank version {VERSION}; \
                     use the same build on all ranks"
                ),
            ));
        }
        let (port, ring_bytes) = (field(bytes, 4), field(bytes, 6));
        let card = Card {
            port: u16::from_le_bytes(port),
            ring_bytes: u64::from_le_bytes(ring_bytes),
            secret: field(bytes, 14),
        };
        if !(1..=MAX_RING_BYTES).contains(&card.ring_bytes) {
            let message = format!("rank {rank} grants {} bytes for a lane, which cannot be", card.ring_bytes);
            return Err(Error::new(ErrorKind::Start, message));
        }
        Ok(card)
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a constant range of bytes whose length was checked")
}

/// Connects this rank with all others. The answer is in rank order, without this rank itself.
pub(super) fn connect(exchange: &mut dyn Exchange, ring_bytes: u64) -> Result<Vec<Option<Peer>>> {
    let rank = exchange.rank();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| failed(rank, "cannot listen on 127.0.0.1", error))?;
    let port = listener
        .local_addr()
        .map_err(|error| failed(rank, "cannot learn the port it listens on", error))?
        .port();
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(|error| failed(rank, "the kernel gives no random bytes", error))?;
    let blobs = exchange.all_gather(&Card { port, ring_bytes, secret }.encode())?;
    let cards = (0..).zip(&blobs).map(|(rank, blob)| Card::decode(rank, blob)).collect::<Result<Vec<_>>>()?;
    let deadline = exchange.deadline();
    let sockets = Mesh::new(rank, cards.clone(), listener, deadline)?.run()?;
    let peer = |(socket, card): (Option<TcpStream>, &Card)| {
        socket.map(|socket| Peer { socket, ring_bytes: card.ring_bytes })
    };
    Ok(sockets.into_iter().zip(&cards).map(peer).collect())
}

/// A mesh that is being connected.
struct Mesh {
    rank: Rank,
    cards: Vec<Card>,
    listener: TcpListener,
    deadline: Deadline,
    /// Who connected and has not said who it is, the oldest first.
    strangers: Vec<Pending<HELLO_BYTES>>,
    /// Whom we connected to and who has not answered.
    asked: Vec<(Rank, Pending<SECRET_BYTES>)>,
    sockets: Vec<Option<TcpStream>>,
}

/// A connection of which some bytes are awaited.
struct Pending<const N: usize> {
    socket: TcpStream,
    bytes: [u8; N],
    filled: usize,
    /// When it is dropped, if there is such a time.
    until: Option<Instant>,
}

impl Mesh {
    fn new(rank: Rank, cards: Vec<Card>, listener: TcpListener, deadline: Deadline) -> Result<Self> {
        let sockets = cards.iter().map(|_| None).collect();
        let mut mesh =
            Mesh { rank, cards, listener, deadline, strangers: Vec::new(), asked: Vec::new(), sockets };
        for peer in 0..rank {
            let asked = mesh.ask(peer)?;
            mesh.asked.push((peer, asked));
        }
        Ok(mesh)
    }

    /// Connects to a lower rank and says who we are. On one host this waits for nobody: its kernel answers.
    fn ask(&self, peer: Rank) -> Result<Pending<SECRET_BYTES>> {
        let Card { port, secret, .. } = self.cards[peer as usize];
        if self.deadline.is_over() {
            return Err(self.late());
        }
        let left = self.deadline.pause().max(CONNECT_MIN);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut hello = [0; HELLO_BYTES];
        hello[..SECRET_BYTES].copy_from_slice(&secret);
        hello[SECRET_BYTES..].copy_from_slice(&self.rank.to_le_bytes());
        let open = || {
            let mut socket = TcpStream::connect_timeout(&address, left)?;
            prepare(&socket)?;
            socket.write_all(&hello)?;
            Ok(Pending::new(socket, None))
        };
        open().map_err(|error: std::io::Error| {
            let what = format!("cannot connect to rank {peer} at {address} (has it ended?)");
            failed(self.rank, &what, error)
        })
    }

    /// Goes on until everybody is connected. The listener is closed then.
    fn run(mut self) -> Result<Vec<Option<TcpStream>>> {
        while self.sockets.iter().flatten().count() + 1 < self.cards.len() {
            if self.deadline.is_over() {
                return Err(self.late());
            }
            self.wait()?;
            self.hear_answers()?;
            self.accept()?;
            self.hear_strangers();
        }
        Ok(self.sockets)
    }

    fn late(&self) -> Error {
        let is_missing = |&peer: &Rank| peer != self.rank && self.sockets[peer as usize].is_none();
        let missing: Vec<_> =
            (0..self.cards.len() as Rank).filter(is_missing).map(|peer| peer.to_string()).collect();
        let message = format!(
            "rank {}: no tcp connection with rank {} before the start-up deadline; see whether they still run",
            self.rank,
            missing.join(", ")
        );
        Error::new(ErrorKind::Start, message)
    }

    /// Waits until somebody connects or says something, or somebody's time is over.
    fn wait(&self) -> Result<()> {
        let sockets = self.strangers.iter().map(|stranger| &stranger.socket);
        let sockets = sockets.chain(self.asked.iter().map(|(_, asked)| &asked.socket));
        let mut watched: Vec<_> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        watched.push(PollFd::new(&self.listener, PollFlags::IN));
        let until = self.strangers.iter().filter_map(|stranger| stranger.until).min();
        let left = until.map_or_else(|| self.deadline.clone(), |until| self.deadline.no_later_than(until));
        let left = left.pause();
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut watched, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(failed(self.rank, "cannot wait for connections", error)),
        }
    }

    fn hear_answers(&mut self) -> Result<()> {
        let own_secret = self.cards[self.rank as usize].secret;
        for (peer, mut asked) in std::mem::take(&mut self.asked) {
            match asked.hear() {
                Heard::NotYet => self.asked.push((peer, asked)),
                Heard::All if is_same(&asked.bytes, &own_secret) => {
                    self.sockets[peer as usize] = Some(asked.socket);
                }
                Heard::All | Heard::Ended => {
                    let message = format!(
                        "rank {}: rank {peer} closed the connection or did not know this rank's secret; \
                         see what rank {peer} says",
                        self.rank
                    );
                    return Err(Error::new(ErrorKind::Start, message));
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) if prepare(&socket).is_ok() => {
                    if self.strangers.len() == MAX_STRANGERS {
                        self.strangers.remove(0);
                    }
                    self.strangers.push(Pending::new(socket, Some(Instant::now() + SILENCE)));
                    self.hear_strangers();
                }
                Ok(_) => (),
                Err(error) => match error.kind() {
                    Io::WouldBlock => return Ok(()),
                    Io::Interrupted | Io::ConnectionAborted => (),
                    _ => return Err(failed(self.rank, "cannot accept connections (see ulimit -n)", error)),
                },
            }
        }
    }

    fn hear_strangers(&mut self) {
        let now = Instant::now();
        for mut stranger in std::mem::take(&mut self.strangers) {
            match stranger.hear() {
                Heard::NotYet if stranger.until.is_none_or(|until| now < until) => {
                    self.strangers.push(stranger)
                }
                Heard::All => self.admit(stranger),
                Heard::NotYet | Heard::Ended => {
                    tracing::debug!(target: "ubccl::net", rank = self.rank, "dropped a connection that did not say who it is");
                }
            }
        }
    }

    /// Lets in who knows our secret, once for each higher rank.
    fn admit(&mut self, mut stranger: Pending<HELLO_BYTES>) {
        let (secret, number) = stranger.bytes.split_at(SECRET_BYTES);
        if !is_same(secret, &self.cards[self.rank as usize].secret) {
            tracing::warn!(target: "ubccl::net", rank = self.rank, "dropped a connection with a wrong secret");
            return;
        }
        let peer = Rank::from_le_bytes(field(number, 0));
        let is_expected =
            peer > self.rank && self.sockets.get(peer as usize).is_some_and(|socket| socket.is_none());
        if !is_expected {
            tracing::warn!(
                target: "ubccl::net", rank = self.rank,
                peer,
                "dropped a second connection, or one of a rank that must not connect"
            );
            return;
        }
        let answer = self.cards[peer as usize].secret;
        // A new socket has room for sixteen bytes; if this fails the peer is gone, and will be missing.
        if stranger.socket.write_all(&answer).is_ok() {
            self.sockets[peer as usize] = Some(stranger.socket);
        }
    }
}

enum Heard {
    All,
    NotYet,
    Ended,
}

impl<const N: usize> Pending<N> {
    fn new(socket: TcpStream, until: Option<Instant>) -> Self {
        Pending { socket, bytes: [0; N], filled: 0, until }
    }

    /// Reads what is there, and not one byte more than is awaited.
    fn hear(&mut self) -> Heard {
        while self.filled < N {
            match self.socket.read(&mut self.bytes[self.filled..]) {
                Ok(0) => return Heard::Ended,
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == Io::WouldBlock => return Heard::NotYet,
                Err(error) if error.kind() == Io::Interrupted => (),
                Err(_) => return Heard::Ended,
            }
        }
        Heard::All
    }
}

fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)
}

fn is_same(theirs: &[u8], ours: &[u8]) -> bool {
    theirs.ct_eq(ours).into()
}

fn failed(rank: Rank, what: &str, error: impl Display) -> Error {
    Error::new(ErrorKind::Start, format!("rank {rank} {what}: {error}"))
}
