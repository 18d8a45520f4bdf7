//! The two sides of a channel against each other, without sockets: random messages, posts and delays.

use super::memory::{Area, Random, pattern};
use super::work::call;
use crate::host::HostMemory;
use crate::tcp::inbound::{Destination, Inbound, Outcome, Posting, Source};
use crate::tcp::outbound::{Outbound, Outgoing};
use crate::tcp::raw::Place;
use crate::tcp::wire::{FRAGMENT_BYTES, Frame, MESSAGE_COST, cost};
use proptest::prelude::*;
use ubccl_core::endpoint::{Header, HostPointer, Memory, RegionId, Span, Stream};

fn header(message: usize, len: u64) -> Header {
    Header { stream: Stream::Collective(message as u64), signature: call(), len }
}

/// A channel under test: what the sender sends, what the receiver made of it.
struct Channel {
    memory: HostMemory,
    out: Vec<Area>,
    into: Vec<Area>,
    is_fold: Vec<bool>,
    outbound: Outbound,
    inbound: Inbound,
    /// A fragment under way: its bytes that have not arrived.
    wire: Vec<u8>,
    sent: Vec<u64>,
    posted: usize,
    folded: Vec<Vec<u8>>,
    finished: Vec<bool>,
}

impl Channel {
    fn new(messages: &[(usize, bool)], ring_bytes: u64) -> Self {
        let mut memory = HostMemory::default();
        let (mut out, mut into) = (Vec::new(), Vec::new());
        for (index, &(len, _)) in messages.iter().enumerate() {
            let [from, to] = [0, 1].map(|k| Area::new(RegionId((2 * index + k) as u32), len));
            from.write(0, &pattern(index as u64, len));
            for area in [&from, &to] {
                memory.register(area.region(), area.memory()).unwrap();
            }
            out.push(from);
            into.push(to);
        }
        let mut outbound = Outbound::new(ring_bytes);
        for (index, area) in out.iter().enumerate() {
            let from = Place::of(&memory, area.all()).unwrap();
            outbound.push(Outgoing {
                header: header(index, area.len() as u64),
                from,
                post: index as u32,
                sent: 0,
            });
        }
        Channel {
            memory,
            is_fold: messages.iter().map(|message| message.1).collect(),
            outbound,
            inbound: Inbound::new(ring_bytes),
            wire: Vec::new(),
            sent: vec![0; out.len()],
            posted: 0,
            folded: vec![Vec::new(); out.len()],
            finished: vec![false; out.len()],
            out,
            into,
        }
    }

    /// Hands one fragment to the receiver's side.
    fn send(&mut self) {
        if !self.wire.is_empty() {
            return;
        }
        let Some(fragment) = self.outbound.next(0) else { return };
        let Frame::Data { header, offset, fragment: len, .. } = fragment.frame else { panic!("not data") };
        let Stream::Collective(message) = header.stream else { panic!("not ours") };
        let message = message as usize;
        assert_eq!((offset, u64::from(len)), (self.sent[message], fragment.payload.len() as u64));
        self.wire = self.out[message].read(offset as usize, len as usize);
        self.sent[message] += u64::from(len);
        assert_eq!(fragment.completes.is_some(), self.sent[message] == header.len);
        let outcome = self.inbound.begin(header, offset, len).expect("within the limit");
        self.act(outcome);
    }

    /// Lets some bytes arrive.
    fn arrive(&mut self, bytes: usize) {
        let bytes: Vec<_> = self.wire.drain(..bytes.min(self.wire.len())).collect();
        let mut outcomes = Vec::new();
        self.inbound.write(&bytes, |outcome| outcomes.push(outcome));
        outcomes.into_iter().for_each(|outcome| self.act(outcome));
    }

    fn post(&mut self) {
        let message = self.posted;
        let Some(area) = self.into.get(message) else { return };
        self.posted += 1;
        let destination = match self.is_fold[message] {
            true => Destination::Fold { unit: 4 },
            false => Destination::Memory(Place::of(&self.memory, area.all()).unwrap()),
        };
        let source = Source { post: message as u32, number: 0 };
        let posting = Posting { header: header(message, area.len() as u64), source, destination };
        let outcome = self.inbound.post(posting).expect("the same header");
        self.act(outcome);
    }

    fn act(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::None => (),
            Outcome::Arrived { post, bytes } => {
                assert_eq!(bytes, self.into[post as usize].len() as u64);
                self.finish(post);
            }
            Outcome::Foldable { post } => loop {
                let source = Source { post, number: 0 };
                let piece = self.inbound.foldable(source).to_vec();
                assert_eq!(piece.len() % 4, 0);
                self.folded[post as usize].extend_from_slice(&piece);
                let has_more = self.inbound.take(source, piece.len() as u64);
                if self.folded[post as usize].len() == self.into[post as usize].len() {
                    return self.finish(post);
                }
                if !has_more {
                    return;
                }
            },
        }
    }

    fn finish(&mut self, post: u32) {
        assert!(!std::mem::replace(&mut self.finished[post as usize], true), "{post} finished twice");
    }

    fn grant(&mut self) {
        if let Some(limit) = self.inbound.grant_due() {
            self.outbound.grant(limit).unwrap();
        }
    }

    fn assert_holds_everything(&self) {
        for (message, area) in self.into.iter().enumerate() {
            assert!(self.finished[message], "message {message} of {} never came", self.into.len());
            let expected = pattern(message as u64, area.len());
            match self.is_fold[message] {
                true => assert!(self.folded[message] == expected, "message {message} was folded wrong"),
                false => area.assert_holds(0, &expected, "a message"),
            }
            area.assert_guards("the receiver");
        }
    }
}

proptest! {
    #[test]
    fn every_message_arrives_whole_whatever_the_order_of_posts_bytes_and_grants(
        messages in proptest::collection::vec((0..6000usize, any::<bool>()), 1..30),
        seed in any::<u64>(),
        rings in 8..20u64,
    ) {
        // What is folded has whole elements.
        let whole = |&(len, is_fold): &(usize, bool)| (if is_fold { len / 4 * 4 } else { len }, is_fold);
        let messages: Vec<_> = messages.iter().map(whole).collect();
        let mut channel = Channel::new(&messages, rings * MESSAGE_COST);
        let mut random = Random(seed);
        for _ in 0..300 {
            match random.below(5) {
                0 => channel.send(),
                1 | 2 => channel.arrive(1 + random.below(3000)),
                3 => channel.grant(),
                _ => channel.post(),
            }
        }
        // Then everything goes on as it can, and has to end.
        for _ in 0..messages.len() * 40 {
            channel.send();
            channel.arrive(usize::MAX);
            channel.grant();
            channel.post();
        }
        channel.assert_holds_everything();
    }
}

#[test]
fn lengths_beyond_32_bits_are_counted_right() {
    let len = (5 << 32) + 3;
    // Memory that is never touched: only its addresses are counted.
    let mut memory = HostMemory::default();
    memory.register(RegionId(0), Memory::Host { address: HostPointer(1 << 46), len }).unwrap();
    let place = Place::of(&memory, Span { region: RegionId(0), offset: 0, len }).unwrap();
    let (mut outbound, mut inbound) = (Outbound::new(8 * MESSAGE_COST), Inbound::new(8 * MESSAGE_COST));
    outbound.push(Outgoing { header: header(0, len), from: place, post: 0, sent: 0 });
    let source = Source { post: 0, number: 0 };
    let posting = Posting { header: header(0, len), source, destination: Destination::Memory(place) };
    assert_eq!(inbound.post(posting), Ok(Outcome::None));
    outbound.grant(inbound.grant_due().expect("a whole message is much")).unwrap();
    let mut sent = 0;
    while let Some(fragment) = outbound.next(0) {
        let Frame::Data { offset, fragment: part, header: its, .. } = fragment.frame else {
            panic!("not data")
        };
        assert_eq!(offset, sent);
        assert!(u64::from(part) <= FRAGMENT_BYTES);
        sent += u64::from(part);
        assert_eq!(inbound.begin(its, offset, part), Ok(Outcome::None));
        let outcome = inbound.fill(part.into());
        assert_eq!(outcome == Outcome::Arrived { post: 0, bytes: len }, sent == len);
    }
    assert_eq!(sent, len);
    assert_eq!(cost(len), MESSAGE_COST + (5 << 32) + 64);
}
