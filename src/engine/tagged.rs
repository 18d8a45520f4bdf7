//! Tagged messages: which one meets which receive.
//!
//! An endpoint knows order only, so a receive is bound to a peer before it is posted: the header of each peer's next
//! message is looked at (`Endpoint::probe`), and the first waiting receive that it fits is posted for it. A message that no
//! waiting receive fits, of a peer from which one waits for another, would stand in the way: its payload is brought into
//! memory of our own, and the message waits there for its receive. As long as nobody waits for a peer, its messages stay
//! with it. Messages to oneself go through the same memory.
//!
//! Of one peer and tag, messages are received in the order sent, by receives in the order issued (MPI's rule). A receive
//! from any rank takes peers in turn, so that none starves.
#![allow(unsafe_code)] // receives into memory of its own

use super::slots::{Buffers, OpId, Ready, Role, Slots};
use super::{Engine, EngineOptions};
use std::any::Any;
use std::collections::VecDeque;
use ubccl_core::endpoint::{CLOSING, Fault, Header, HostPointer, Memory, Stream};
use ubccl_core::{Collective, DataType, Error, Rank, Result, Signature};

/// Bytes of messages that wait for their receives, in all.
const UNEXPECTED_BYTES: u64 = 64 << 20;
/// Messages that wait for their receives.
const UNEXPECTED_MESSAGES: usize = 4096;

/// A tagged operation as it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct TaggedCall {
    pub(crate) what: TaggedKind,
    pub(crate) tag: u32,
    /// Elements.
    pub(crate) count: u64,
    pub(crate) dtype: DataType,
    pub(crate) memory: Memory,
}

/// Which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaggedKind {
    /// To this rank.
    Send(Rank),
    /// From this rank, or any.
    Receive(Option<Rank>),
}

impl TaggedCall {
    pub(super) fn signature(&self) -> Signature {
        Collective::send_receive(self.count, self.dtype, None, None).signature(0)
    }

    fn bytes(&self) -> u64 {
        self.count * self.dtype.size() as u64
    }

    fn header(&self) -> Header {
        Header { stream: Stream::Tagged(self.tag), signature: self.signature(), len: self.bytes() }
    }

    /// From whom, if it is a receive that says so.
    pub(super) fn source(&self) -> Option<Rank> {
        match self.what {
            TaggedKind::Receive(source) => source,
            TaggedKind::Send(_) => None,
        }
    }

    fn takes(&self, peer: Rank, tag: u32) -> bool {
        self.tag == tag && self.source().is_none_or(|source| source == peer)
    }
}

/// A message in memory of our own.
#[derive(Debug)]
pub(super) struct Unexpected {
    peer: Rank,
    tag: u32,
    header: Header,
    words: Vec<u64>,
    arriving: Option<usize>,
}

impl Unexpected {
    /// The operation that still brings its bytes.
    pub(super) fn arriving(&self) -> Option<usize> {
        self.arriving
    }

    fn memory(&mut self) -> Memory {
        let address = HostPointer(self.words.as_mut_ptr().expose_provenance());
        Memory::Host { address, len: self.header.len }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tagged {
    /// Receives without a message, in the order issued.
    waiting: Vec<usize>,
    /// The first so many of them were compared with `unexpected`.
    compared: usize,
    /// How many of them name a peer, and how many any.
    named: Vec<u32>,
    any: u32,
    /// Messages without a receive, in order of arrival.
    unexpected: VecDeque<Unexpected>,
    bytes: u64,
    /// Who is looked at first.
    next_peer: Rank,
    pub(super) most_bytes: u64,
    pub(super) most_messages: usize,
}

impl Default for Tagged {
    fn default() -> Self {
        Tagged {
            waiting: Vec::new(),
            compared: 0,
            named: Vec::new(),
            any: 0,
            unexpected: VecDeque::new(),
            bytes: 0,
            next_peer: 0,
            most_bytes: UNEXPECTED_BYTES,
            most_messages: UNEXPECTED_MESSAGES,
        }
    }
}

impl Tagged {
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Bytes of messages that wait for their receives.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn wants(&self, peer: Rank) -> bool {
        self.any > 0 || self.named.get(peer as usize).is_some_and(|&named| named > 0)
    }

    fn wait(&mut self, index: usize, source: Option<Rank>) {
        self.waiting.push(index);
        *self.count(source) += 1;
    }

    /// The receive at this place has its message.
    fn take(&mut self, place: usize, slots: &Slots) -> usize {
        let index = self.waiting.remove(place);
        self.compared -= usize::from(place < self.compared);
        *self.count(wish(slots, index).source()) -= 1;
        index
    }

    fn count(&mut self, source: Option<Rank>) -> &mut u32 {
        let Some(source) = source else { return &mut self.any };
        if self.named.len() <= source as usize {
            self.named.resize(source as usize + 1, 0);
        }
        &mut self.named[source as usize]
    }

    /// Where the first waiting receive stands that takes a message of this peer and tag.
    fn find(&self, slots: &Slots, peer: Rank, tag: u32) -> Option<usize> {
        self.waiting.iter().position(|&index| wish(slots, index).takes(peer, tag))
    }

    fn keep(&mut self, message: Unexpected) {
        self.bytes += message.header.len;
        self.unexpected.push_back(message);
    }

    fn remove(&mut self, place: usize) -> Unexpected {
        let message = self.unexpected.remove(place).expect("the place was just found");
        self.bytes -= message.header.len;
        message
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.unexpected.len() < self.most_messages
            && self.bytes.checked_add(bytes).is_some_and(|bytes| bytes <= self.most_bytes)
    }

    /// Forgets all; answers the operations that were bringing messages.
    pub(super) fn clear(&mut self) -> Vec<usize> {
        let Tagged { most_bytes, most_messages, .. } = *self;
        let old = std::mem::replace(self, Tagged { most_bytes, most_messages, ..Tagged::default() });
        old.unexpected.iter().filter_map(|message| message.arriving).collect()
    }
}

fn wish(slots: &Slots, index: usize) -> &TaggedCall {
    slots[index].wish.as_ref().expect("a waiting receive says what it waits for")
}

impl Engine {
    /// Issues a tagged operation. Nothing is sent if this fails.
    ///
    /// # Safety
    /// As for [`Engine::issue`].
    pub(crate) unsafe fn issue_tagged(
        &mut self,
        call: TaggedCall,
        owned: Option<Box<dyn Any + Send>>,
    ) -> Result<OpId> {
        let index = match call.what {
            TaggedKind::Send(to) if to == self.options.rank => self.send_to_itself(call, owned)?,
            TaggedKind::Send(to) => {
                let to = Collective::send_receive(call.count, call.dtype, Some(to), None);
                let stream = Stream::Tagged(call.tag);
                let buffers = Buffers::Apart { input: call.memory.clone(), output: nothing() };
                let ready =
                    Ready { plan: self.plan(&to, false)?, buffers, stream, signature: call.signature() };
                let index = self.slots.take(&to, Some(ready), Role::Loose, owned);
                self.loose.list(&mut self.slots, index);
                self.loose.queue(&mut self.slots, index, true);
                index
            }
            TaggedKind::Receive(source) => {
                let from = Collective::send_receive(call.count, call.dtype, None, source);
                let index = self.slots.take(&from, None, Role::Loose, owned);
                self.slots[index].wish = Some(call);
                self.loose.list(&mut self.slots, index);
                self.tagged.wait(index, source);
                index
            }
        };
        Ok(self.slots.id(index))
    }

    /// A message to oneself is copied and waits for its receive.
    fn send_to_itself(&mut self, call: TaggedCall, owned: Option<Box<dyn Any + Send>>) -> Result<usize> {
        let (rank, header) = (self.options.rank, call.header());
        if !self.tagged.has_room(header.len) {
            return Err(Error::invalid(format!(
                "rank {rank} sends itself {} bytes with tag {} and has {} of {} bytes for messages that nobody has \
                 received yet; receive some before",
                header.len, call.tag, self.tagged.bytes, self.tagged.most_bytes
            )));
        }
        let words = words(header.len)?;
        let mut message = Unexpected { peer: rank, tag: call.tag, header, words, arriving: None };
        let copy = Collective::send_receive(call.count, call.dtype, Some(rank), Some(rank));
        let buffers = Buffers::Apart { input: call.memory, output: message.memory() };
        let plan = self.plan(&copy, false)?;
        let ready = Ready { plan, buffers, stream: header.stream, signature: header.signature };
        let index = self.slots.take(&copy, Some(ready), Role::ToItself, owned);
        message.arriving = Some(index);
        self.loose.list(&mut self.slots, index);
        self.loose.queue(&mut self.slots, index, true);
        self.tagged.keep(message);
        // Receives that wait already are to look at it.
        self.tagged.compared = 0;
        Ok(index)
    }

    /// Brings together what can be brought together now.
    pub(super) fn match_tagged(&mut self) -> Result<bool, Fault> {
        let mut moved = self.match_unexpected()?;
        let EngineOptions { rank, ranks, .. } = self.options;
        for k in 0..ranks {
            if !self.tagged.is_waiting() {
                break;
            }
            let peer = (self.tagged.next_peer + k) % ranks;
            if peer != rank && self.tagged.wants(peer) {
                moved |= self.match_peer(peer)?;
            }
        }
        Ok(moved)
    }

    /// Receives that have not been compared with the messages that wait, are.
    fn match_unexpected(&mut self) -> Result<bool, Fault> {
        let mut moved = false;
        while let Some(&index) = self.tagged.waiting.get(self.tagged.compared) {
            let call = wish(&self.slots, index);
            let fits = |message: &Unexpected| call.takes(message.peer, message.tag);
            let Some(place) = self.tagged.unexpected.iter().position(fits) else {
                self.tagged.compared += 1;
                continue;
            };
            self.tagged.take(self.tagged.compared, &self.slots);
            let message = self.tagged.remove(place);
            self.give(index, message)?;
            moved = true;
        }
        Ok(moved)
    }

    /// Takes in the next messages of one peer, until one meets a receive.
    fn match_peer(&mut self, peer: Rank) -> Result<bool, Fault> {
        let mut moved = false;
        while self.tagged.wants(peer) && self.loose.has_room(peer) {
            let Some(header) = self.endpoint.probe(peer)? else { break };
            let Stream::Tagged(tag) = header.stream else {
                let message = format!("rank {peer} sent a message without a tag on the lane of tagged ones");
                return Err(Fault::Lost { peer, message });
            };
            moved = true;
            match self.tagged.find(&self.slots, peer, tag) {
                Some(place) => {
                    let index = self.tagged.take(place, &self.slots);
                    self.tagged.next_peer = (peer + 1) % self.options.ranks;
                    self.bind(index, peer)?;
                    break;
                }
                None => self.absorb(peer, tag, header)?,
            }
        }
        Ok(moved)
    }

    /// Posts a receive for the next message of a peer.
    fn bind(&mut self, index: usize, peer: Rank) -> Result<(), Fault> {
        let call = self.slots[index].wish.take().expect("a waiting receive says what it waits for");
        let from = Collective::send_receive(call.count, call.dtype, None, Some(peer));
        let Header { stream, signature, .. } = call.header();
        let buffers = Buffers::Apart { input: nothing(), output: call.memory };
        let plan = self.plan(&from, false)?;
        let slot = &mut self.slots[index];
        slot.called.set(&from);
        slot.call = Some(Ready { plan, buffers, stream, signature });
        slot.source = Some(peer);
        self.loose.begin_tagged(&mut self.slots, index, peer);
        self.start(index)
    }

    /// Brings a message into memory of our own.
    fn absorb(&mut self, peer: Rank, tag: u32, header: Header) -> Result<(), Fault> {
        if !self.tagged.has_room(header.len) {
            return Err(self.too_much(peer, tag, header).into());
        }
        let mut message = Unexpected { peer, tag, header, words: words(header.len)?, arriving: None };
        let from = Collective::send_receive(header.len, DataType::U8, None, Some(peer));
        let buffers = Buffers::Apart { input: nothing(), output: message.memory() };
        let Header { stream, signature, .. } = header;
        let ready = Ready { plan: self.plan(&from, false)?, buffers, stream, signature };
        let index = self.slots.take(&from, Some(ready), Role::Absorbing, None);
        message.arriving = Some(index);
        self.tagged.keep(message);
        self.loose.begin_tagged(&mut self.slots, index, peer);
        self.start(index)
    }

    #[cold]
    fn too_much(&self, peer: Rank, tag: u32, header: Header) -> Error {
        let Tagged { waiting, unexpected, bytes, most_bytes, most_messages, .. } = &self.tagged;
        let mut waits = waiting
            .iter()
            .map(|&index| wish(&self.slots, index))
            .filter(|wish| wish.source().is_none_or(|source| source == peer));
        let waited_for = waits.next().map_or_else(String::new, describe);
        Error::new(
            ubccl_core::ErrorKind::Mismatch,
            format!(
                "rank {} cannot keep a message of rank {peer} with tag {tag} ({} bytes) while it waits for {waited_for}: \
                 {} messages of {bytes} bytes wait for their receives already, and there is room for {most_messages} of \
                 {most_bytes} bytes; receive in about the order in which is sent",
                self.options.rank,
                header.len,
                unexpected.len(),
            ),
        )
    }

    /// A message that waited meets its receive.
    fn give(&mut self, index: usize, message: Unexpected) -> Result<(), Fault> {
        let ours = wish(&self.slots, index).header();
        if ours != message.header {
            return Err(Fault::Mismatch { peer: message.peer, theirs: message.header, ours });
        }
        let arriving = message.arriving;
        let slot = &mut self.slots[index];
        slot.source = Some(message.peer);
        slot.message = Some(message);
        match arriving {
            Some(arriving) => {
                self.slots[arriving].feeds = Some(index);
                Ok(())
            }
            None => self.copy_out(index),
        }
    }

    /// All bytes of a message are there.
    pub(super) fn has_arrived(&mut self, arriving: usize, feeds: Option<usize>) -> Result<(), Fault> {
        if let Some(index) = feeds {
            let message = self.slots[index].message.as_mut().expect("it was given one");
            message.arriving = None;
            return self.copy_out(index);
        }
        for message in &mut self.tagged.unexpected {
            if message.arriving == Some(arriving) {
                message.arriving = None;
            }
        }
        Ok(())
    }

    /// Copies a receive's message to where it belongs.
    fn copy_out(&mut self, index: usize) -> Result<(), Fault> {
        let call = self.slots[index].wish.take().expect("a receive says what it waits for until it gets it");
        let rank = self.options.rank;
        let copy = Collective::send_receive(call.count, call.dtype, Some(rank), Some(rank));
        let plan = self.plan(&copy, false)?;
        let Header { stream, signature, .. } = call.header();
        let slot = &mut self.slots[index];
        let message = slot.message.as_mut().expect("it was given one");
        let buffers = Buffers::Apart { input: message.memory(), output: call.memory };
        slot.called.set(&copy);
        slot.call = Some(Ready { plan, buffers, stream, signature });
        self.loose.begin_alone(&mut self.slots, index);
        self.start(index)
    }

    /// A message that waits for a receive which will never come, as what this rank closes.
    pub(super) fn unread(&self) -> Result<(), Fault> {
        let Some(message) = self.tagged.unexpected.front() else { return Ok(()) };
        let theirs = message.header;
        let ours = Header { stream: Stream::Collective(CLOSING), signature: Signature(0), len: theirs.len };
        Err(Fault::Mismatch { peer: message.peer, theirs, ours })
    }
}

/// What a receive waits for, in words.
pub(super) fn describe(call: &TaggedCall) -> String {
    let from = match call.source() {
        Some(source) => format!("rank {source}"),
        None => "any rank".to_owned(),
    };
    format!("a message with tag {} from {from}", call.tag)
}

fn nothing() -> Memory {
    Memory::Host { address: HostPointer(0), len: 0 }
}

/// Memory for a message.
fn words(bytes: u64) -> Result<Vec<u64>> {
    let words = bytes.div_ceil(8) as usize;
    let mut memory = Vec::new();
    memory.try_reserve_exact(words).map_err(|error| {
        Error::system(format!("no memory for {bytes} bytes of a message that nobody waits for"), error)
    })?;
    memory.resize(words, 0);
    Ok(memory)
}
