//! One rank of a double.
#![allow(unsafe_code)] // moves bytes between regions whose owner vouches for them

use super::Defect;
use super::net::{Net, Payload, Route};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ubccl_core::endpoint::{
    Counters, Endpoint, Fault, Header, Key, Memory, POINT_TO_POINT_LANE, Post, Posted, RegionId, Span,
    Stream, TAGGED_LANE, Token, Wake,
};
use ubccl_core::symbolic::{Piece, SymbolicMemory, reduce_pieces};
use ubccl_core::usage::Over;
use ubccl_core::{DataType, Error, Rank, ReduceOp, Result, Signature, kernels};

enum Region {
    Host { address: usize, len: u64 },
    Phantom { unit: u64, content: SymbolicMemory },
}

struct Send {
    token: Token,
    header: Header,
    from: Span,
}

/// Where an arriving message belongs: entry `part` of a posted receive.
struct Want {
    token: Token,
    part: usize,
}

struct Receive {
    header: Header,
    post: Post,
    parts: Vec<Option<Payload>>,
}

pub(super) struct DoubleEndpoint {
    net: Arc<Net>,
    me: Rank,
    regions: HashMap<RegionId, Region>,
    outgoing: BTreeMap<(Rank, u8), VecDeque<Send>>,
    /// Peers a send has yet to reach.
    sends: BTreeMap<u64, usize>,
    incoming: BTreeMap<(Rank, u8), VecDeque<Want>>,
    receives: BTreeMap<u64, Receive>,
    finished: Vec<Token>,
    counters: Counters,
}

impl DoubleEndpoint {
    pub(super) fn new(net: Arc<Net>, me: Rank) -> Self {
        DoubleEndpoint {
            net,
            me,
            regions: HashMap::new(),
            outgoing: BTreeMap::new(),
            sends: BTreeMap::new(),
            incoming: BTreeMap::new(),
            receives: BTreeMap::new(),
            finished: Vec::new(),
            counters: Counters::default(),
        }
    }

    fn load(&self, span: Span) -> Payload {
        match &self.regions[&span.region] {
            Region::Host { address, len } => {
                assert!(span.offset + span.len <= *len);
                let from = std::ptr::with_exposed_provenance::<u8>(address + span.offset as usize);
                let mut bytes = vec![0; span.len as usize];
                // SAFETY: inside the region, whose owner vouches for it; `bytes` is another allocation.
                unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
                Payload::Bytes(bytes)
            }
            Region::Phantom { unit, content } => {
                let mut pieces = Vec::new();
                content.read(span.offset / unit, span.len / unit, &mut pieces);
                Payload::Pieces(pieces)
            }
        }
    }

    fn store(&mut self, span: Span, payload: &Payload) {
        match (self.regions.get_mut(&span.region).expect("registered"), payload) {
            (Region::Host { address, len }, Payload::Bytes(bytes)) => {
                assert!(span.offset + span.len <= *len && bytes.len() as u64 <= *len - span.offset);
                let into = std::ptr::with_exposed_provenance_mut::<u8>(*address + span.offset as usize);
                // SAFETY: inside the region, whose owner vouches for it; `bytes` is another allocation.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), into, bytes.len()) };
            }
            (Region::Phantom { unit, content }, Payload::Pieces(pieces)) => {
                content.write(span.offset / *unit, pieces)
            }
            _ => panic!("bytes and phantoms do not mix"),
        }
    }

    fn post_send(&mut self, token: Token, header: Header, lane: u8, from: Span, peers: &[Rank]) {
        let first_only = self.net.has(Defect::MulticastsToTheFirst);
        let peers = if first_only { &peers[..1] } else { peers };
        for &peer in peers {
            self.outgoing.entry((peer, lane)).or_default().push_back(Send { token, header, from });
        }
        self.sends.insert(token.0, peers.len());
    }

    fn post_receive(
        &mut self,
        token: Token,
        header: Header,
        lane: u8,
        post: &Post,
        sources: &[Rank],
    ) -> Result<(), Fault> {
        for (part, &source) in sources.iter().enumerate().filter(|&(_, &source)| source != self.me) {
            self.incoming.entry((source, lane)).or_default().push_back(Want { token, part });
        }
        let parts = sources.iter().map(|_| None).collect();
        self.receives.insert(token.0, Receive { header, post: *post, parts });
        self.finish_if_whole(token)
    }

    fn progress(&mut self) -> Result<bool, Fault> {
        let sent = self.progress_sends();
        Ok(self.progress_receives()? || sent)
    }

    fn progress_sends(&mut self) -> bool {
        let mut moved = false;
        let mut outgoing = std::mem::take(&mut self.outgoing);
        for (&(peer, lane), queue) in &mut outgoing {
            while let Some(send) = queue.front() {
                if !self.net.push((self.me, peer, lane), send.header, || self.load(send.from)) {
                    break;
                }
                moved = true;
                self.counters.messages_sent += 1;
                let uncounted = self.net.has(Defect::MiscountsBytes) && send.header.len > 3;
                self.counters.bytes_sent += send.header.len - u64::from(uncounted);
                let left = self.sends.get_mut(&send.token.0).expect("posted");
                *left -= 1;
                if *left == 0 && !self.net.has(Defect::CompletesSendsEarly) {
                    self.finished.push(send.token);
                }
                queue.pop_front();
            }
        }
        self.outgoing = outgoing;
        moved
    }

    fn progress_receives(&mut self) -> Result<bool, Fault> {
        let mut moved = false;
        let routes: Vec<_> = self.incoming.keys().copied().collect();
        for (peer, lane) in routes {
            while let Some(Want { token, part }) =
                self.incoming.get_mut(&(peer, lane)).and_then(|q| q.front())
            {
                let (token, part) = (*token, *part);
                let route: Route = (peer, self.me, lane);
                let Some(theirs) = self.net.peek(route) else { break };
                self.compare(token, peer, theirs)?;
                let payload = self.net.pop(route);
                self.counters.messages_received += 1;
                self.counters.bytes_received += theirs.len;
                self.incoming.get_mut(&(peer, lane)).expect("just seen").pop_front();
                self.receives.get_mut(&token.0).expect("posted").parts[part] = Some(payload);
                self.finish_if_whole(token)?;
                moved = true;
            }
        }
        Ok(moved)
    }

    fn compare(&mut self, token: Token, peer: Rank, theirs: Header) -> Result<(), Fault> {
        let Receive { header: ours, post, .. } = &self.receives[&token.0];
        let ours = *ours;
        let alike = (theirs.stream == ours.stream || self.net.has(Defect::IgnoresStreams))
            && (theirs.signature == ours.signature || self.net.has(Defect::IgnoresSignatures))
            && (theirs.len == ours.len || self.net.has(Defect::IgnoresLengths));
        if alike {
            return Ok(());
        }
        if let (Post::Receive { into, .. }, true) = (*post, self.net.has(Defect::WritesBeforeComparing)) {
            let len = into.len.min(1);
            self.store(Span { len, ..into }, &Payload::Bytes(vec![0x77; len as usize]));
        }
        Err(Fault::Mismatch { peer, theirs, ours })
    }

    fn finish_if_whole(&mut self, token: Token) -> Result<(), Fault> {
        let Receive { post, parts, .. } = &self.receives[&token.0];
        let own_part = match post {
            Post::ReceiveReduce { sources, .. } => sources.iter().position(|source| source == self.me),
            _ => None,
        };
        if (0..parts.len()).any(|part| parts[part].is_none() && Some(part) != own_part) {
            return Ok(());
        }
        let Receive { post, parts, .. } = self.receives.remove(&token.0).expect("just seen");
        match post {
            Post::Receive { into, .. } => {
                let mut payload = parts.into_iter().flatten().next().expect("a receive has one part");
                if let (Payload::Bytes(bytes), true) = (&mut payload, self.net.has(Defect::WritesOneByteMore))
                {
                    bytes.push(0x77);
                }
                self.store(into, &payload);
            }
            Post::ReceiveReduce { own, into, dtype, op, .. } => {
                let mut sources: Vec<_> =
                    parts.into_iter().map(|p| p.unwrap_or_else(|| self.load(own))).collect();
                if self.net.has(Defect::ReducesInReverse) {
                    sources.reverse();
                }
                if let (Some(own_part), true) = (own_part, self.net.has(Defect::PutsOwnFirst)) {
                    let own = sources.remove(own_part);
                    sources.insert(0, own);
                }
                let result = self.fold(dtype, op, &sources)?;
                self.store(into, &result);
            }
            Post::Send { .. } | Post::Copy { .. } => unreachable!("only receives are kept here"),
        }
        self.finished.push(token);
        Ok(())
    }

    fn fold(&self, dtype: DataType, op: ReduceOp, sources: &[Payload]) -> Result<Payload, Fault> {
        if self.net.has(Defect::RoundsEveryStep) && sources.len() > 2 {
            let (last, earlier) = sources.split_last().expect("more than two");
            return fold(self.net.ranks, dtype, op, &[self.fold(dtype, op, earlier)?, last.clone()]);
        }
        fold(self.net.ranks, dtype, op, sources)
    }
}

fn fold(ranks: u32, dtype: DataType, op: ReduceOp, sources: &[Payload]) -> Result<Payload, Fault> {
    if let Payload::Pieces(_) = &sources[0] {
        let mut out = Vec::new();
        reduce_pieces(&sources.iter().map(pieces).collect::<Vec<_>>(), ranks, &mut out);
        return Ok(Payload::Pieces(out));
    }
    let sources: Vec<_> = sources.iter().map(bytes).collect();
    let mut out = vec![0; sources[0].len()];
    assert!(sources.iter().all(|source| source.len() == out.len()));
    let pointers: Vec<_> = sources.iter().map(|source| source.as_ptr()).collect();
    // SAFETY: all are vectors of the length of `out`, apart from each other.
    unsafe { kernels::reduce(dtype, op, &pointers, out.as_mut_ptr(), out.len() / dtype.size()) }?;
    Ok(Payload::Bytes(out))
}

fn bytes(payload: &Payload) -> &[u8] {
    let Payload::Bytes(bytes) = payload else { panic!("a phantom among bytes") };
    bytes
}

fn pieces(payload: &Payload) -> &[Piece] {
    let Payload::Pieces(pieces) = payload else { panic!("bytes among phantoms") };
    pieces
}

impl Endpoint for DoubleEndpoint {
    unsafe fn register(&mut self, region: RegionId, memory: Memory) -> Result<()> {
        let memory = match memory {
            Memory::Host { address, len } => Region::Host { address: address.0, len },
            Memory::Phantom { unit, content } => {
                let mut filled = SymbolicMemory::unwritten(content.iter().map(|piece| piece.len).sum());
                filled.write(0, &content);
                Region::Phantom { unit: unit.into(), content: filled }
            }
        };
        self.regions.insert(region, memory);
        Ok(())
    }

    fn post(&mut self, token: Token, key: &Key, post: &Post) -> Result<Posted, Fault> {
        let under_way = self.sends.values().filter(|&&left| left > 0).count() + self.receives.len();
        if self.net.has(Defect::RefusesPosts) && under_way > 16 {
            return Err(Error::internal("no room for another post").into());
        }
        let header = |len| Header { stream: key.stream, signature: key.signature, len };
        match *post {
            Post::Send { from, to } => {
                self.post_send(token, header(from.len), key.lane, from, &to.iter().collect::<Vec<_>>());
                if self.net.has(Defect::CompletesSendsEarly) {
                    return Ok(Posted::Done);
                }
            }
            Post::Receive { into, from } => {
                self.post_receive(token, header(into.len), key.lane, post, &[from])?;
            }
            Post::ReceiveReduce { sources, into, .. } => {
                let sources: Vec<_> = sources.iter().collect();
                self.post_receive(token, header(into.len), key.lane, post, &sources)?;
            }
            Post::Copy { from, into } => {
                let payload = self.load(from);
                self.store(into, &payload);
                return Ok(Posted::Done);
            }
        }
        self.progress()?;
        let began = Instant::now();
        let blocks = self.net.has(Defect::BlocksInPost) && matches!(post, Post::Send { .. });
        while blocks && !self.finished.contains(&token) && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
            self.progress()?;
        }
        let finished = self.finished.iter().position(|&finished| finished == token);
        Ok(finished.map_or(Posted::Pending, |at| {
            self.finished.remove(at);
            Posted::Done
        }))
    }

    fn poll(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault> {
        // Whoever polls has seen the bell; an empty counter just says so.
        let _ = rustix::io::read(&self.net.descriptors[self.me as usize], &mut [0; 8]);
        let moved = self.progress()?;
        done.append(&mut self.finished);
        Ok(moved)
    }

    fn inspect(&mut self, sequence: u64, signature: Signature) -> Result<(), Fault> {
        if self.net.has(Defect::InspectsNothing) {
            return Ok(());
        }
        let too_much = self.net.has(Defect::InspectsTooMuch);
        for (peer, theirs) in self.net.waiting(self.me) {
            let is_later = matches!(theirs.stream, Stream::Collective(their) if their > sequence);
            if theirs.is_stale(sequence, signature) || too_much && is_later {
                let ours = Header { stream: Stream::Collective(sequence), signature, len: 0 };
                return Err(Fault::Mismatch { peer, theirs, ours });
            }
        }
        Ok(())
    }

    fn probe(&mut self, peer: Rank) -> Result<Option<Header>, Fault> {
        let lane = if self.net.has(Defect::ProbesADirectLane) { POINT_TO_POINT_LANE } else { TAGGED_LANE };
        let is_taken = self.incoming.get(&(peer, lane)).is_some_and(|queue| !queue.is_empty());
        if is_taken || self.net.has(Defect::ProbesNothing) {
            return Ok(None);
        }
        let route = (peer, self.me, lane);
        let found = self.net.peek(route);
        if found.is_some() && self.net.has(Defect::TakesWhatItProbes) {
            self.net.pop(route);
        }
        Ok(found)
    }

    fn cancel(&mut self) {
        if self.net.has(Defect::KeepsPostsAfterCancel) {
            return;
        }
        self.outgoing.clear();
        self.sends.clear();
        self.incoming.clear();
        self.receives.clear();
        self.finished.clear();
        self.regions.clear();
    }

    fn sleep(&mut self, timeout: Duration) -> Result<()> {
        let mut state = self.net.state.lock().unwrap();
        if !state.rung[self.me as usize] && !self.net.has(Defect::NeverSleeps) {
            let quiet = |state: &mut super::net::NetState| !state.rung[self.me as usize];
            state = self.net.bell.wait_timeout_while(state, timeout, quiet).unwrap().0;
        }
        state.rung[self.me as usize] = false;
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(Waker { net: self.net.clone(), rank: self.me })
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.net.descriptors[self.me as usize].as_fd())
    }

    fn watch(&mut self, on: bool) {
        self.net.state.lock().unwrap().watched[self.me as usize] = on;
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn count_links(&self, each: &mut dyn FnMut(Over<'_>, Counters)) {
        each(Over::Level("the only one"), self.counters);
    }

    fn phantom(&self, region: RegionId) -> Option<Vec<Piece>> {
        let Region::Phantom { content, .. } = self.regions.get(&region)? else { return None };
        let mut pieces = Vec::new();
        content.read(0, content.len(), &mut pieces);
        Some(pieces)
    }
}

struct Waker {
    net: Arc<Net>,
    rank: Rank,
}

impl Wake for Waker {
    fn wake(&self) {
        if !self.net.has(Defect::LosesWakes) {
            self.net.state.lock().unwrap().rung[self.rank as usize] = true;
            self.net.bell.notify_all();
        }
    }
}
