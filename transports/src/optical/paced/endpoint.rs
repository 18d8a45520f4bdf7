//! An endpoint over another one that completes posts when the model says so.
#![allow(unsafe_code)] // implements `register`; moves bytes between the caller's memory and its own

use super::now_ns;
use super::ports::Ports;
use super::staging::{Staging, Taken};
use crate::host::{HostMemory, Pointers};
use crate::optical::Fabric;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;
use ubccl_core::endpoint::{
    Counters, Endpoint, Fault, Header, Key, Memory, Post, Posted, RegionId, Span, Token, Wake,
};
use ubccl_core::plan::PeerRun;
use ubccl_core::usage::{MemoryKind, Over};
use ubccl_core::{DataType, Error, Rank, ReduceOp, Result, Signature, kernels};

/// What is due sooner is not slept for: a sleeper wakes up to 50 us late.
const WAKE_EARLY: Duration = Duration::from_micros(150);

/// See the module.
pub(super) struct PacedEndpoint {
    rank: Rank,
    // Before the staging, which it knows the addresses of.
    inner: Box<dyn Endpoint>,
    staging: Staging,
    memory: HostMemory,
    ports: Ports,
    epoch_ns: u64,
    operations: Vec<Operation>,
    free: Vec<u32>,
    /// Posts that are done but for their time.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    inner_done: Vec<Token>,
    /// By peer.
    counters: Vec<Counters>,
    pointers: Pointers,
}

/// One post under way. Kept and used again.
#[derive(Debug)]
struct Operation {
    token: Token,
    work: Work,
    len: u64,
    /// Peer and buffer of each message, in the order of the post; no buffer stands for this rank's own.
    parts: Vec<(Rank, Option<u32>)>,
    /// Posts of the inner endpoint that are under way.
    missing: u32,
    due_ps: u64,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Send,
    Receive { into: Span },
    Reduce { own: Span, into: Span, dtype: DataType, op: ReduceOp },
}

impl PacedEndpoint {
    pub(super) fn new(
        (rank, ranks): (Rank, u32),
        fabric: &Fabric,
        inner: Box<dyn Endpoint>,
        epoch_ns: u64,
    ) -> Self {
        PacedEndpoint {
            rank,
            inner,
            staging: Staging::new(ranks),
            memory: HostMemory::default(),
            ports: Ports::new(fabric, rank, ranks),
            epoch_ns,
            operations: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            inner_done: Vec::new(),
            counters: vec![Counters::default(); ranks as usize],
            pointers: Pointers::new(ranks as usize),
        }
    }

    /// Picoseconds since the epoch that all ranks share.
    fn now_ps(&self) -> u64 {
        now_ns().saturating_sub(self.epoch_ns).saturating_mul(1000)
    }

    /// Takes a buffer for a message.
    fn take(&mut self, bytes: u64) -> Result<u32> {
        let Taken { number, register } = self.staging.take(bytes);
        if let Some(memory) = register {
            // SAFETY: the buffer keeps its memory until it is taken for a longer message, and the inner endpoint is
            // dropped before it; nobody else touches it while a post names it.
            unsafe { self.inner.register(RegionId(number), memory) }?;
        }
        Ok(number)
    }

    fn operation(&mut self, token: Token, work: Work, len: u64) -> u32 {
        if let Some(id) = self.free.pop() {
            let operation = &mut self.operations[id as usize];
            (operation.token, operation.work, operation.len) = (token, work, len);
            (operation.missing, operation.due_ps) = (0, 0);
            return id;
        }
        let parts = Vec::new();
        self.operations.push(Operation { token, work, len, parts, missing: 0, due_ps: 0 });
        self.operations.len() as u32 - 1
    }

    fn send(&mut self, token: Token, key: &Key, from: Span, to: PeerRun) -> Result<Posted, Fault> {
        if to.is_empty() {
            return Ok(Posted::Done);
        }
        let source = self.memory.address(from)?;
        let now_ps = self.now_ps();
        let buffer = self.take(from.len)?;
        let mut sent_ps = 0;
        for peer in to.iter() {
            if peer as usize >= self.counters.len() {
                return Err(Error::internal(format!("rank {} sends to rank {peer}", self.rank)).into());
            }
            let injection = self.ports.inject(now_ps, peer, from.len);
            self.staging.set_head(buffer, peer, injection.head_ps);
            self.counters[peer as usize].sent(from.len);
            sent_ps = sent_ps.max(injection.sent_ps);
        }
        let payload = self.staging.payload(buffer, from.len).as_mut_ptr();
        // SAFETY: `address` checked the source against a region whose owner vouches for it; the payload is as long and
        // our own.
        unsafe { kernels::copy(source, payload, from.len as usize) };
        let id = self.operation(token, Work::Send, from.len);
        let operation = &mut self.operations[id as usize];
        operation.due_ps = sent_ps;
        operation.parts.push((self.rank, Some(buffer)));
        let post = Post::Send { from: self.staging.span(buffer, from.len), to };
        self.post_part(id, 0, key, &post)?;
        Ok(Posted::Pending)
    }

    /// Posts receives for all sources but this rank's own.
    fn receive(
        &mut self,
        token: Token,
        key: &Key,
        sources: PeerRun,
        (work, len): (Work, u64),
    ) -> Result<Posted, Fault> {
        let id = self.operation(token, work, len);
        let own = matches!(work, Work::Reduce { .. }).then_some(self.rank);
        for source in sources.iter() {
            let buffer = if Some(source) == own { None } else { Some(self.take(len)?) };
            self.operations[id as usize].parts.push((source, buffer));
        }
        // All are counted first: one that is there already does not complete the others.
        let parts = self.operations[id as usize].parts.len();
        let mut verdict = Ok(());
        self.operations[id as usize].missing = 1;
        for k in 0..parts {
            let (source, buffer) = self.operations[id as usize].parts[k];
            if let Some(buffer) = buffer {
                let post = Post::Receive { into: self.staging.span(buffer, len), from: source };
                verdict = verdict.and(self.post_part(id, k as u32, key, &post));
            }
        }
        verdict?;
        self.operations[id as usize].missing -= 1;
        self.finish_if_whole(id)?;
        Ok(Posted::Pending)
    }

    /// Posts one message of an operation to the inner endpoint.
    fn post_part(&mut self, id: u32, part: u32, key: &Key, post: &Post) -> Result<(), Fault> {
        self.operations[id as usize].missing += 1;
        let token = Token(u64::from(id) << 32 | u64::from(part));
        match self.inner.post(token, key, post).map_err(|fault| self.without_head(fault))? {
            Posted::Done => self.part_done(token),
            Posted::Pending => Ok(()),
        }
    }

    /// The inner endpoint has moved a message.
    fn part_done(&mut self, token: Token) -> Result<(), Fault> {
        let (id, part) = ((token.0 >> 32) as u32, (token.0 & 0xffff_ffff) as usize);
        let operation = &mut self.operations[id as usize];
        operation.missing -= 1;
        if let (Work::Receive { .. } | Work::Reduce { .. }, (peer, Some(buffer))) =
            (operation.work, operation.parts[part])
        {
            let head_ps = self.staging.head(buffer, self.rank);
            let arrived_ps = self.ports.receive(head_ps, peer, operation.len);
            operation.due_ps = operation.due_ps.max(arrived_ps);
            self.counters[peer as usize].received(operation.len);
        }
        self.finish_if_whole(id)
    }

    /// Does what is left to do once all messages are there; then only time is missing.
    fn finish_if_whole(&mut self, id: u32) -> Result<(), Fault> {
        let operation = &self.operations[id as usize];
        if operation.missing > 0 {
            return Ok(());
        }
        let due_ps = operation.due_ps;
        match operation.work {
            Work::Send => {}
            Work::Receive { into } => self.deliver(id, into)?,
            Work::Reduce { own, into, dtype, op } => self.reduce(id, (own, into), (dtype, op))?,
        }
        for k in 0..self.operations[id as usize].parts.len() {
            if let Some(buffer) = self.operations[id as usize].parts[k].1 {
                self.staging.give_back(buffer);
            }
        }
        self.operations[id as usize].parts.clear();
        self.due.push(Reverse((due_ps, id)));
        Ok(())
    }

    fn deliver(&mut self, id: u32, into: Span) -> Result<()> {
        let (_, Some(buffer)) = self.operations[id as usize].parts[0] else {
            return Err(Error::internal(format!("rank {} receives from itself", self.rank)));
        };
        let destination = self.memory.address(into)?;
        let payload = self.staging.payload(buffer, into.len).as_ptr();
        // SAFETY: `address` checked the destination against a region whose owner vouches for it; the payload is as long
        // and our own.
        unsafe { kernels::copy(payload, destination, into.len as usize) };
        Ok(())
    }

    fn reduce(&mut self, id: u32, (own, into): (Span, Span), kernel: (DataType, ReduceOp)) -> Result<()> {
        if into.len == 0 {
            return Ok(());
        }
        let mut pointers = std::mem::take(&mut self.pointers.0);
        for &(_, buffer) in &self.operations[id as usize].parts {
            let source = match buffer {
                Some(buffer) => self.staging.payload(buffer, into.len).as_ptr(),
                None => self.memory.address(own)?.cast_const(),
            };
            pointers.push(source);
        }
        // SAFETY: payloads are ours and as long as `into`; the own span is as long (checked when posted), was checked by
        // `address`, and is `into` or apart from it, as the poster promises.
        let reduced = unsafe { self.memory.reduce(kernel, &pointers, into) };
        pointers.clear();
        self.pointers.0 = pointers;
        reduced
    }

    /// A fault of the inner endpoint, whose messages are longer by a head.
    fn without_head(&self, fault: Fault) -> Fault {
        let shorter = |header: Header| self.header_without(header);
        match fault {
            Fault::Mismatch { peer, theirs, ours } => {
                Fault::Mismatch { peer, theirs: shorter(theirs), ours: shorter(ours) }
            }
            other => other,
        }
    }

    fn header_without(&self, header: Header) -> Header {
        Header { len: header.len.saturating_sub(self.staging.head_bytes()), ..header }
    }
}

impl Endpoint for PacedEndpoint {
    unsafe fn register(&mut self, region: RegionId, memory: Memory) -> Result<()> {
        self.memory.register(region, memory)
    }

    fn post(&mut self, token: Token, key: &Key, post: &Post) -> Result<Posted, Fault> {
        match *post {
            Post::Send { from, to } => self.send(token, key, from, to),
            Post::Receive { into, from } => {
                self.memory.address(into)?;
                self.receive(token, key, PeerRun::one(from), (Work::Receive { into }, into.len))
            }
            Post::ReceiveReduce { sources, own, into, dtype, op } => {
                let reads_own = sources.iter().any(|source| source == self.rank);
                if reads_own && own.len != into.len || !into.len.is_multiple_of(dtype.size() as u64) {
                    let message = format!("rank {} reduces {own:?} into {into:?}", self.rank);
                    return Err(Error::internal(message).into());
                }
                self.memory.address(into)?;
                self.receive(token, key, sources, (Work::Reduce { own, into, dtype, op }, into.len))
            }
            Post::Copy { from, into } => {
                self.memory.copy(from, into)?;
                Ok(Posted::Done)
            }
        }
    }

    fn poll(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault> {
        let mut inner_done = std::mem::take(&mut self.inner_done);
        let polled = self.inner.poll(&mut inner_done);
        let mut verdict = Ok(());
        for token in inner_done.drain(..) {
            verdict = verdict.and(self.part_done(token));
        }
        self.inner_done = inner_done;
        let mut moved = polled.map_err(|fault| self.without_head(fault))?;
        verdict?;
        if self.due.is_empty() {
            return Ok(moved);
        }
        let now_ps = self.now_ps();
        while let Some(&Reverse((due_ps, id))) = self.due.peek()
            && due_ps <= now_ps
        {
            self.due.pop();
            done.push(self.operations[id as usize].token);
            self.free.push(id);
            moved = true;
        }
        Ok(moved)
    }

    fn inspect(&mut self, sequence: u64, signature: Signature) -> Result<(), Fault> {
        self.inner.inspect(sequence, signature).map_err(|fault| self.without_head(fault))
    }

    fn probe(&mut self, peer: Rank) -> Result<Option<Header>, Fault> {
        let found = self.inner.probe(peer).map_err(|fault| self.without_head(fault))?;
        Ok(found.map(|header| self.header_without(header)))
    }

    fn cancel(&mut self) {
        self.inner.cancel();
        self.memory.clear();
        self.operations.clear();
        self.free.clear();
        self.due.clear();
        self.staging.give_all_back();
    }

    fn sleep(&mut self, timeout: Duration) -> Result<()> {
        let Some(&Reverse((due_ps, _))) = self.due.peek() else { return self.inner.sleep(timeout) };
        let left = Duration::from_nanos(due_ps.saturating_sub(self.now_ps()) / 1000);
        match left.checked_sub(WAKE_EARLY) {
            Some(left) => self.inner.sleep(timeout.min(left)),
            None => Ok(()),
        }
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
        each(MemoryKind::Buffers, self.staging.bytes());
    }
}
