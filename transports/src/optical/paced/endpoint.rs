//! An endpoint over another one that completes posts when the model says so.
#![allow(unsafe_code)] // implements `register`; registers heads of its own

use super::heads::Heads;
use super::now_ns;
use super::ports::Ports;
use crate::optical::Fabric;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;
use ubccl_core::endpoint::{
    Counters, Endpoint, Fault, Header, Key, Memory, Post, Posted, RegionId, Span, Stream, Token, Wake,
};
use ubccl_core::plan::PeerRun;
use ubccl_core::usage::{MemoryKind, Over};
use ubccl_core::{Error, Rank, Result, Signature};

/// What is due sooner is not slept for: a sleeper wakes up to 50 us late.
const WAKE_EARLY: Duration = Duration::from_micros(150);
/// What the host is late by, up to this, does not delay what the same collective sends next: some time slices of other ranks.
const MOST_LATE_PS: u64 = 5_000_000_000;
/// The part of an operation that is its payload; heads count from 0.
const PAYLOAD: u32 = u32::MAX;

/// See the module.
pub(super) struct PacedEndpoint {
    rank: Rank,
    inner: Box<dyn Endpoint>,
    // Before the heads, which it knows the addresses of.
    side: Box<dyn Endpoint>,
    heads: Heads,
    ports: Ports,
    epoch_ns: u64,
    operations: Vec<Operation>,
    free: Vec<u32>,
    /// Posts that are done but for their time.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    inner_done: Vec<Token>,
    /// Operations whose payload is done, but not all heads: they come at once, and wake nobody.
    headless: u32,
    /// How late the last poll was for what it completed of a collective, and of which: the host's doing, not the link's.
    late: Option<(Stream, u64)>,
    /// By peer.
    counters: Vec<Counters>,
}

/// One post under way. Kept and used again.
#[derive(Debug)]
struct Operation {
    token: Token,
    stream: Stream,
    engine: u8,
    /// When, as far as the pace is concerned.
    posted_ps: u64,
    /// Before then its engine sends nothing.
    ready_ps: u64,
    /// Of a message.
    len: u64,
    is_receive: bool,
    /// Peer and buffer of each head.
    parts: Vec<(Rank, u32)>,
    /// Posts of the two endpoints that are under way.
    missing: u32,
    is_headless: bool,
    due_ps: u64,
    /// What the fabric's ranks take to copy or reduce once everything is there.
    work_ps: u64,
}

impl PacedEndpoint {
    pub(super) fn new(
        (rank, ranks): (Rank, u32),
        fabric: &Fabric,
        [inner, side]: [Box<dyn Endpoint>; 2],
        epoch_ns: u64,
    ) -> Self {
        PacedEndpoint {
            rank,
            inner,
            side,
            heads: Heads::new(ranks),
            ports: Ports::new(fabric, rank, ranks),
            epoch_ns,
            operations: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            inner_done: Vec::new(),
            headless: 0,
            late: None,
            counters: vec![Counters::default(); ranks as usize],
        }
    }

    /// Picoseconds since the epoch that all ranks share.
    fn now_ps(&self) -> u64 {
        now_ns().saturating_sub(self.epoch_ns).saturating_mul(1000)
    }

    /// When a post of now counts: as if the poll before had been in time, if the same collective goes on. What users do
    /// takes its time.
    fn post_ps(&self, stream: Stream) -> u64 {
        let late_ps = self.late.filter(|&(of, _)| of == stream).map_or(0, |(_, late_ps)| late_ps);
        self.now_ps().saturating_sub(late_ps)
    }

    /// Takes a buffer for a head.
    fn take(&mut self) -> Result<u32> {
        let (number, register) = self.heads.take();
        if let Some(memory) = register {
            let region = self.heads.span(number).region;
            // SAFETY: the buffer keeps its memory, and the side endpoint is dropped before it; nobody else touches it
            // while a post names it.
            unsafe { self.side.register(region, memory) }?;
        }
        Ok(number)
    }

    /// Errors: Internal, for an engine that there is not.
    fn operation(&mut self, token: Token, key: &Key, len: u64, is_receive: bool) -> Result<u32> {
        let (stream, engine) = (key.stream, self.ports.engine(key.engine)?);
        let posted_ps = self.post_ps(stream);
        let ready_ps = self.ports.operate(posted_ps, engine, stream);
        let new = Operation {
            token,
            stream,
            engine,
            posted_ps,
            ready_ps,
            len,
            is_receive,
            parts: Vec::new(),
            missing: 0,
            is_headless: false,
            due_ps: 0,
            work_ps: 0,
        };
        let Some(id) = self.free.pop() else {
            self.operations.push(new);
            return Ok(self.operations.len() as u32 - 1);
        };
        let old = &mut self.operations[id as usize];
        let parts = std::mem::take(&mut old.parts);
        *old = Operation { parts, ..new };
        Ok(id)
    }

    fn send(&mut self, token: Token, key: &Key, from: Span, to: PeerRun) -> Result<Posted, Fault> {
        if to.is_empty() {
            return Ok(Posted::Done);
        }
        let id = self.operation(token, key, from.len, false)?;
        let Operation { engine, ready_ps, .. } = self.operations[id as usize];
        let buffer = self.take()?;
        let mut sent_ps = 0;
        for peer in to.iter() {
            if peer as usize >= self.counters.len() {
                return Err(Error::internal(format!("rank {} sends to rank {peer}", self.rank)).into());
            }
            let injection = self.ports.inject(ready_ps, (engine, peer), from.len);
            self.heads.set(buffer, peer, injection.head_ps);
            self.counters[peer as usize].sent(from.len);
            sent_ps = sent_ps.max(injection.sent_ps);
        }
        let operation = &mut self.operations[id as usize];
        (operation.due_ps, operation.missing) = (sent_ps, 2);
        operation.parts.push((self.rank, buffer));
        // The head first: it is there when the payload is.
        self.post_part(id, 0, key, &Post::Send { from: self.heads.span(buffer), to })?;
        self.post_part(id, PAYLOAD, key, &Post::Send { from, to })?;
        Ok(Posted::Pending)
    }

    /// Posts the payload's receive, and one for the head of each source but this rank itself.
    fn receive(
        &mut self,
        token: Token,
        key: &Key,
        sources: PeerRun,
        (post, len): (&Post, u64),
    ) -> Result<Posted, Fault> {
        let own = matches!(post, Post::ReceiveReduce { .. }).then_some(self.rank);
        let id = self.operation(token, key, len, true)?;
        if own.is_some() {
            let operation = &mut self.operations[id as usize];
            operation.work_ps = self.ports.reduction_ps(operation.engine, sources.len(), len);
        }
        for source in sources.iter().filter(|&source| Some(source) != own) {
            let buffer = self.take()?;
            self.operations[id as usize].parts.push((source, buffer));
        }
        // All are counted first: one that is there already does not complete the others.
        let heads = self.operations[id as usize].parts.len() as u32;
        self.operations[id as usize].missing = 1 + heads;
        self.post_part(id, PAYLOAD, key, post)?;
        for part in 0..heads {
            let (from, buffer) = self.operations[id as usize].parts[part as usize];
            let post = Post::Receive { into: self.heads.span(buffer), from };
            self.post_part(id, part, key, &post)?;
        }
        Ok(Posted::Pending)
    }

    /// Posts one part of an operation.
    fn post_part(&mut self, id: u32, part: u32, key: &Key, post: &Post) -> Result<(), Fault> {
        let token = Token(u64::from(id) << 32 | u64::from(part));
        let endpoint = if part == PAYLOAD { &mut self.inner } else { &mut self.side };
        let posted = endpoint.post(token, key, post);
        let posted = if part == PAYLOAD { Some(posted?) } else { unless_mismatch(posted)? };
        if posted == Some(Posted::Done) {
            self.part_done(token);
        }
        Ok(())
    }

    /// A part is done; after the last one only time is missing.
    fn part_done(&mut self, token: Token) {
        let (id, part) = ((token.0 >> 32) as u32, (token.0 & 0xffff_ffff) as u32);
        let operation = &mut self.operations[id as usize];
        operation.missing -= 1;
        if part != PAYLOAD {
            let (peer, buffer) = operation.parts[part as usize];
            if operation.is_receive {
                let from = (operation.engine, peer);
                let arrived_ps = self.ports.receive(self.heads.of(buffer, self.rank), from, operation.len);
                operation.due_ps = operation.due_ps.max(arrived_ps);
                self.counters[peer as usize].received(operation.len);
            }
            self.heads.give_back(buffer);
        }
        if part == PAYLOAD && operation.missing > 0 {
            operation.is_headless = true;
            self.headless += 1;
        }
        if operation.missing == 0 {
            self.headless -= u32::from(operation.is_headless);
            operation.parts.clear();
            if operation.work_ps > 0 {
                let from_ps = operation.due_ps.max(operation.posted_ps);
                operation.due_ps = self.ports.compute(from_ps, operation.work_ps);
            }
            self.due.push(Reverse((operation.due_ps, id)));
        }
    }
}

/// What the side endpoint says. Where heads do not match payloads do not either, and tell it with their own lengths.
fn unless_mismatch<T>(said: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match said {
        Err(Fault::Mismatch { .. }) => Ok(None),
        said => said.map(Some),
    }
}

impl Endpoint for PacedEndpoint {
    unsafe fn register(&mut self, region: RegionId, memory: Memory) -> Result<()> {
        // SAFETY: the caller vouches for what the inner endpoint asks.
        unsafe { self.inner.register(region, memory) }
    }

    fn post(&mut self, token: Token, key: &Key, post: &Post) -> Result<Posted, Fault> {
        match *post {
            Post::Send { from, to } => self.send(token, key, from, to),
            Post::Receive { into, from } => self.receive(token, key, PeerRun::one(from), (post, into.len)),
            Post::ReceiveReduce { sources, into, .. } => self.receive(token, key, sources, (post, into.len)),
            Post::Copy { into, .. } => {
                let id = self.operation(token, key, into.len, false)?;
                let operation = &mut self.operations[id as usize];
                operation.work_ps = self.ports.copy_ps(operation.engine, into.len);
                operation.missing = 1;
                self.post_part(id, PAYLOAD, key, post)?;
                Ok(Posted::Pending)
            }
        }
    }

    fn poll(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault> {
        let mut inner_done = std::mem::take(&mut self.inner_done);
        let polled = self.inner.poll(&mut inner_done);
        let heads = self.side.poll(&mut inner_done);
        inner_done.drain(..).for_each(|token| self.part_done(token));
        self.inner_done = inner_done;
        let mut moved = polled? | unless_mismatch(heads)?.unwrap_or(false);
        self.late = None;
        if self.due.is_empty() {
            return Ok(moved);
        }
        let now_ps = self.now_ps();
        while let Some(&Reverse((due_ps, id))) = self.due.peek()
            && due_ps <= now_ps
        {
            self.due.pop();
            let Operation { token, stream, posted_ps, .. } = self.operations[id as usize];
            // A copy that takes a fabric's ranks no time is due when it is done.
            if due_ps > 0 && matches!(stream, Stream::Collective(_)) {
                let late_ps = now_ps.saturating_sub(due_ps.max(posted_ps));
                self.late = Some((stream, late_ps.min(MOST_LATE_PS)));
            }
            done.push(token);
            self.free.push(id);
            moved = true;
        }
        Ok(moved)
    }

    fn inspect(&mut self, sequence: u64, signature: Signature) -> Result<(), Fault> {
        self.inner.inspect(sequence, signature)
    }

    fn probe(&mut self, peer: Rank) -> Result<Option<Header>, Fault> {
        self.inner.probe(peer)
    }

    fn cancel(&mut self) {
        self.inner.cancel();
        self.side.cancel();
        self.headless = 0;
        self.operations.clear();
        self.free.clear();
        self.due.clear();
        self.heads.give_all_back();
    }

    fn sleep(&mut self, timeout: Duration) -> Result<()> {
        if self.headless > 0 {
            return Ok(());
        }
        let Some(&Reverse((due_ps, _))) = self.due.peek() else { return self.inner.sleep(timeout) };
        let left = Duration::from_nanos(due_ps.saturating_sub(self.now_ps()) / 1000);
        if let Some(left) = left.checked_sub(WAKE_EARLY) {
            self.inner.sleep(timeout.min(left))?;
        }
        // Not by looks and yields: with more ranks than cores another would take the core for a time slice.
        let early_ps = WAKE_EARLY.as_nanos() as u64 * 1000;
        let mut now_ps = self.now_ps();
        while now_ps < due_ps && due_ps - now_ps <= early_ps {
            std::hint::spin_loop();
            now_ps = self.now_ps();
        }
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.waker()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inner.descriptor()
    }

    fn watch(&mut self, on: bool) {
        self.inner.watch(on);
    }

    fn counters(&self) -> Counters {
        self.counters.iter().copied().sum()
    }

    fn count_links(&self, each: &mut dyn FnMut(Over<'_>, Counters)) {
        for (peer, &counters) in (0..).zip(&self.counters) {
            each(Over::Peer(peer), counters);
        }
    }

    fn count_memory(&self, each: &mut dyn FnMut(MemoryKind, u64)) {
        self.inner.count_memory(each);
        self.side.count_memory(each);
        each(MemoryKind::Buffers, self.heads.bytes());
    }
}
