//! The endpoint: takes posts, moves bytes when polled, tells what completed.

use super::connection::Connection;
use super::farewell;
use super::inbound::{Destination, Outcome, Posting, Refusal, Source};
use super::links::{Links, lost};
use super::outbound::{Outgoing, Sent};
use super::posts::{Fold, Posts, ROOM};
use super::raw::{Place, Sources};
use super::wire::LANES;
use crate::host::HostMemory;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;
use ubccl_core::collective::Rank;
use ubccl_core::endpoint::{
    Counters, Endpoint, Fault, Header, Key, Memory, Post, Posted, RegionId, Span, Stream, TAGGED_LANE, Token,
    Wake,
};
use ubccl_core::plan::PeerRun;
use ubccl_core::signature::Signature;
use ubccl_core::usage::{MemoryKind, Over};
use ubccl_core::{DataType, Error, ErrorKind, ReduceOp, Result};

/// Bytes read without knowing their place: small, because payload among them is copied once more.
const STAGING_BYTES: usize = 16 << 10;
/// Reads from one peer before the others get their turn.
const READS_PER_TURN: usize = 4;
/// Outcomes of one read: at most one for each header and each piece of payload.
const MAX_OUTCOMES: usize = STAGING_BYTES / 16;

/// This rank's side of its TCP connections. See [`super`] for how it works.
#[derive(Debug)]
pub(super) struct TcpEndpoint {
    pub(super) rank: Rank,
    pub(super) memory: HostMemory,
    pub(super) links: Links,
    pub(super) posts: Posts,
    pub(super) sources: Sources,
    /// By peer.
    pub(super) counters: Box<[Counters]>,
    /// Reductions and copies that need nobody else and are not finished.
    local: VecDeque<u32>,
    staging: Box<[u8]>,
    outcomes: Vec<Outcome>,
    sent: Vec<Sent>,
    /// What went wrong for good.
    fault: Option<Fault>,
    is_cancelled: bool,
}

impl TcpEndpoint {
    /// One over connections to every other rank.
    pub(super) fn new(rank: Rank, connections: Vec<Option<Connection>>) -> Result<Self> {
        let counters = vec![Counters::default(); connections.len()].into_boxed_slice();
        Ok(TcpEndpoint {
            rank,
            memory: HostMemory::default(),
            links: Links::new(connections)?,
            posts: Posts::new(),
            sources: Sources::default(),
            counters,
            local: VecDeque::with_capacity(ROOM),
            staging: vec![0; STAGING_BYTES].into_boxed_slice(),
            outcomes: Vec::with_capacity(MAX_OUTCOMES),
            sent: Vec::with_capacity(MAX_OUTCOMES),
            fault: None,
            is_cancelled: false,
        })
    }

    fn check(&self) -> Result<(), Fault> {
        if self.is_cancelled {
            let message = format!("the tcp endpoint of rank {} was cancelled; make a new one", self.rank);
            return Err(Error::new(ErrorKind::Closed, message).into());
        }
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// Keeps a fault: a stream of bytes that went wrong stays wrong. A lost peer is looked for anew each time, so that
    /// the others' messages go on.
    fn keep<T>(&mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        if let Err(fault @ (Fault::Mismatch { .. } | Fault::Other(_))) = &result {
            self.fault = Some(fault.clone());
        }
        result
    }

    fn start(&mut self, token: Token, key: &Key, post: &Post) -> Result<(), Fault> {
        match *post {
            Post::Send { from, to } => self.send(token, key, from, to),
            Post::Receive { into, from } => self.receive(token, key, into, from),
            Post::ReceiveReduce { sources, own, into, dtype, op } => {
                self.receive_reduce(token, key, (sources, own, into), (dtype, op))
            }
            Post::Copy { from, into } => {
                if from.len != into.len {
                    return Err(Error::internal(format!("a copy from {from:?} to {into:?}")).into());
                }
                // One source folded into another place is a copy, and goes in bites.
                let spans = (PeerRun::one(self.rank), from, into);
                self.receive_reduce(token, key, spans, (DataType::U8, ReduceOp::Sum))
            }
        }
    }

    fn send(&mut self, token: Token, key: &Key, from: Span, to: PeerRun) -> Result<(), Fault> {
        let place = Place::of(&self.memory, from)?;
        let header = Header { stream: key.stream, signature: key.signature, len: from.len };
        let post = self.posts.begin(token, to.len() as u32, None);
        for peer in to.iter() {
            let message = Outgoing { header, from: place, post, sent: 0 };
            let connection = self.links.connection(peer)?;
            connection.send(usize::from(key.lane), message);
            if let Some(why) = connection.gone() {
                // The kernel might still take it, for nobody.
                return Err(lost(peer, why));
            }
            self.write_to(peer)?;
        }
        Ok(())
    }

    fn receive(&mut self, token: Token, key: &Key, into: Span, from: Rank) -> Result<(), Fault> {
        let place = Place::of(&self.memory, into)?;
        let header = Header { stream: key.stream, signature: key.signature, len: into.len };
        let post = self.posts.begin(token, 1, None);
        let source = Source { post, number: 0 };
        self.expect(key, from, Posting { header, source, destination: Destination::Memory(place) })
    }

    fn receive_reduce(
        &mut self,
        token: Token,
        key: &Key,
        (sources, own, into): (PeerRun, Span, Span),
        how: (DataType, ReduceOp),
    ) -> Result<(), Fault> {
        let is_own_listed = sources.iter().any(|peer| peer == self.rank);
        let unit = how.0.size() as u32;
        if sources.is_empty() || into.len % u64::from(unit) != 0 || (is_own_listed && own.len != into.len) {
            let message = format!("{own:?} and {} sources of {} into {into:?}", sources.len(), how.0.name());
            return Err(Error::internal(message).into());
        }
        // Checked even if not listed: a span is a promise.
        let own = Place::of(&self.memory, own)?;
        let rank = self.rank;
        let others = sources.iter().filter(|&peer| peer != rank).count() as u32;
        let lane = usize::from(key.lane);
        let fold = Fold { sources, lane, own, into, how, folded: 0, lacking: others };
        let post = self.posts.begin(token, 1, Some(fold));
        let header = Header { stream: key.stream, signature: key.signature, len: into.len };
        for (number, peer) in (0..).zip(sources.iter()).filter(|&(_, peer)| peer != rank) {
            let source = Source { post, number };
            self.expect(key, peer, Posting { header, source, destination: Destination::Fold { unit } })?;
        }
        if others == 0 && self.fold(post)? {
            self.local.push_back(post);
        }
        Ok(())
    }

    /// Posts the receiving of one message.
    fn expect(&mut self, key: &Key, from: Rank, posting: Posting) -> Result<(), Fault> {
        let lane = usize::from(key.lane);
        let connection = self.links.connection(from)?;
        let outcome = connection.inbound(lane).post(posting).map_err(|refusal| fault(from, refusal))?;
        connection.schedule_grant(lane);
        self.act(from, outcome)?;
        self.write_to(from)?;
        Ok(())
    }

    fn act(&mut self, from: Rank, outcome: Outcome) -> Result<(), Fault> {
        match outcome {
            Outcome::None => (),
            Outcome::Arrived { post, bytes } => {
                self.counters[from as usize].received(bytes);
                self.posts.complete(post);
            }
            Outcome::Foldable { post } => {
                let fold = self.posts.fold(post);
                fold.lacking -= 1;
                if fold.lacking == 0 {
                    self.fold(post)?;
                }
            }
        }
        Ok(())
    }

    /// Moves everything on once. Says whether anything moved.
    fn turn(&mut self) -> Result<bool, Fault> {
        self.links.look()?;
        let mut has_moved = self.read_all()?;
        has_moved |= self.fold_local()?;
        has_moved |= self.write_all()?;
        Ok(has_moved)
    }

    fn read_all(&mut self) -> Result<bool, Fault> {
        let mut readers = self.links.take_readers();
        let (mut has_moved, mut result) = (false, Ok(()));
        readers.retain(|&peer| {
            if result.is_err() {
                return true;
            }
            match self.read_from(peer) {
                Ok((bytes, has_more)) => {
                    has_moved |= bytes > 0;
                    has_more
                }
                Err(fault) => {
                    result = Err(fault);
                    false
                }
            }
        });
        self.links.put_readers(readers);
        result.map(|()| has_moved)
    }

    /// Reads from one peer: bytes, and whether there may be more.
    fn read_from(&mut self, peer: Rank) -> Result<(usize, bool), Fault> {
        let (mut bytes, mut has_more) = (0, true);
        for _ in 0..READS_PER_TURN {
            let read = self.links.connection(peer)?.read(&mut self.staging, &mut self.outcomes);
            let mut outcomes = std::mem::take(&mut self.outcomes);
            let acted = outcomes.drain(..).try_for_each(|outcome| self.act(peer, outcome));
            self.outcomes = outcomes;
            acted?;
            let read = read.map_err(|refusal| fault(peer, refusal))?;
            bytes += read.bytes;
            has_more = read.has_more;
            if !has_more {
                break;
            }
        }
        if !has_more {
            self.links.read_done(peer);
        }
        self.links.note_end(peer);
        if self.links.connection(peer)?.wants_to_write() {
            self.links.queue_writer(peer);
        }
        Ok((bytes, has_more))
    }

    /// Moves one bite of the work that needs nobody else.
    fn fold_local(&mut self) -> Result<bool, Fault> {
        let Some(post) = self.local.pop_front() else { return Ok(false) };
        if self.fold(post)? {
            self.local.push_back(post);
        }
        Ok(true)
    }

    fn write_all(&mut self) -> Result<bool, Fault> {
        let mut has_moved = false;
        // Who has more after its turn comes again with the next poll.
        for _ in 0..self.links.writers() {
            if let Some(peer) = self.links.next_writer() {
                has_moved |= self.write_to(peer)?;
            }
        }
        Ok(has_moved)
    }

    /// Writes to one peer what there is and the socket takes. Says whether that was anything.
    fn write_to(&mut self, peer: Rank) -> Result<bool, Fault> {
        let connection = self.links.connection(peer)?;
        if !connection.wants_to_write() {
            return Ok(false);
        }
        let written = connection.write(&mut self.sent);
        for sent in self.sent.drain(..) {
            self.counters[peer as usize].sent(sent.bytes);
            self.posts.complete(sent.post);
        }
        if written.has_more {
            self.links.queue_writer(peer);
        }
        self.links.note_end(peer);
        Ok(written.bytes > 0)
    }
}

impl Endpoint for TcpEndpoint {
    #[expect(unsafe_code, reason = "the caller vouches for the memory, see the trait")]
    unsafe fn register(&mut self, region: RegionId, memory: Memory) -> Result<()> {
        self.memory.register(region, memory)
    }

    fn post(&mut self, token: Token, key: &Key, post: &Post) -> Result<Posted, Fault> {
        self.check()?;
        if usize::from(key.lane) >= LANES {
            return Err(Error::internal(format!("lane {} of {LANES}", key.lane)).into());
        }
        if matches!(post, Post::Send { to, .. } if to.is_empty()) {
            return Ok(Posted::Done);
        }
        let result = self.start(token, key, post);
        let is_done = self.posts.end();
        self.keep(result)?;
        if is_done {
            return Ok(Posted::Done);
        }
        self.links.missed()?;
        Ok(Posted::Pending)
    }

    fn poll(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault> {
        self.check()?;
        let result = self.turn();
        let has_finished = self.posts.hand_out(done);
        let has_moved = self.keep(result)?;
        self.links.missed()?;
        Ok(has_moved || has_finished)
    }

    fn inspect(&mut self, sequence: u64, signature: Signature) -> Result<(), Fault> {
        self.check()?;
        for (peer, connection) in self.links.connections() {
            for theirs in connection.lanes().iter().flat_map(|lane| lane.unclaimed()) {
                if theirs.is_stale(sequence, signature) {
                    // No post says how long it should be, so the length is no difference.
                    let ours = Header { stream: Stream::Collective(sequence), signature, len: theirs.len };
                    return Err(Fault::Mismatch { peer, theirs, ours });
                }
            }
        }
        Ok(())
    }

    fn probe(&mut self, peer: Rank) -> Result<Option<Header>, Fault> {
        self.check()?;
        let connection = self.links.connection(peer).ok();
        Ok(connection.and_then(|connection| connection.inbound(usize::from(TAGGED_LANE)).next_unclaimed()))
    }

    fn cancel(&mut self) {
        self.links.connections().for_each(|(_, connection)| connection.cancel());
        self.posts.clear();
        self.local.clear();
        self.memory.clear();
        self.is_cancelled = true;
    }

    fn sleep(&mut self, timeout: Duration) -> Result<()> {
        self.links.fetch()?;
        if self.links.has_work() || self.posts.has_finished() || !self.local.is_empty() {
            return Ok(());
        }
        self.links.events.sleep(timeout)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.links.events.waker()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.links.events.descriptor())
    }

    fn watch(&mut self, on: bool) {
        if let Err(error) = self.links.watch(on) {
            tracing::warn!(target: "ubccl::net", %error, rank = self.rank, on, "cannot watch the tcp connections");
        }
    }

    fn counters(&self) -> Counters {
        self.counters.iter().copied().sum()
    }

    fn count_links(&self, each: &mut dyn FnMut(Over<'_>, Counters)) {
        (0..).zip(&self.counters).for_each(|(peer, counters)| each(Over::Peer(peer), *counters));
    }

    fn count_memory(&self, each: &mut dyn FnMut(MemoryKind, u64)) {
        let links = self.links.all();
        let (rings, queues) =
            links.map(Connection::memory).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        each(MemoryKind::Buffers, (rings + self.staging.len()) as u64);
        let lists = size_of_val(&*self.counters) + self.posts.bytes();
        each(MemoryKind::Queues, (queues + lists) as u64);
    }
}

impl Drop for TcpEndpoint {
    /// Waits until the peers' kernels have what this one accepted, within [`farewell::PATIENCE`]; not after `cancel`.
    fn drop(&mut self) {
        if !self.is_cancelled && self.fault.is_none() {
            farewell::part(self.links.connections().map(|(_, connection)| &*connection));
        }
    }
}

fn fault(peer: Rank, refusal: Refusal) -> Fault {
    match refusal {
        Refusal::Mismatch { theirs, ours } => Fault::Mismatch { peer, theirs, ours },
        Refusal::Protocol(what) => Fault::Lost { peer, message: format!("rank {peer} {what}") },
    }
}
