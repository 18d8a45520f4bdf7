//! Engines over a simulated world: what is posted when, for point to point.
#![allow(unsafe_code)] // issues operations on buffers that outlive the world

use super::*;
use crate::choose::Wishes;
use crate::costs::Costs;
use ubccl_core::blocks::Message;
use ubccl_core::endpoint::{Fidelity, HostPointer, Memory, World, WorldOptions};
use ubccl_core::{DataType, ErrorKind, Layout};

/// Engines of a few ranks, and their buffers.
struct Rig {
    engines: Vec<Engine>,
    world: Box<dyn World>,
    buffers: Vec<Box<[u8]>>,
}

impl Rig {
    fn new(ranks: u32) -> Self {
        let fabric = "custom:latency_ps=1000,bytes_per_s=1000000000".to_owned();
        let transport = ubccl_transports::find("optical").unwrap();
        let mut world = transport
            .world(&WorldOptions {
                ranks,
                fabric,
                seed: 1,
                fidelity: Fidelity::default(),
                faults: String::new(),
            })
            .unwrap();
        let costs = Costs::of_machine(&world.machine());
        let layout = Arc::new(Layout::flat(ranks));
        let wishes = Wishes { lanes: 1, ..Wishes::default() };
        let chooser = Chooser::new(costs.engines(&layout), &layout, &wishes).unwrap();
        let engine = |rank| {
            let options = EngineOptions { rank, ranks, is_crowded: false, chooser: chooser.clone() };
            Engine::new(world.endpoint(rank).unwrap(), options)
        };
        Rig { engines: (0..ranks).map(engine).collect(), world, buffers: Vec::new() }
    }

    /// Memory full of `byte`; its number.
    fn memory(&mut self, byte: u8, len: usize) -> Memory {
        self.buffers.push(vec![byte; len].into_boxed_slice());
        let buffer = self.buffers.last_mut().unwrap();
        Memory::Host { address: HostPointer(buffer.as_mut_ptr().expose_provenance()), len: len as u64 }
    }

    fn tagged(&mut self, rank: usize, what: TaggedKind, tag: u32, (byte, len): (u8, usize)) -> OpId {
        let memory = self.memory(byte, len);
        let call = TaggedCall { what, tag, count: len as u64, dtype: DataType::U8, memory };
        // SAFETY: buffers go after the engines.
        unsafe { self.engines[rank].issue_tagged(call, None) }.unwrap()
    }

    fn direct(&mut self, rank: usize, call: &Collective<'_>) -> OpId {
        let (input, output) = (self.memory(1, 4096), self.memory(2, 4096));
        // SAFETY: as in `tagged`.
        unsafe { self.engines[rank].issue(call, Buffers::Apart { input, output }, None) }.unwrap()
    }

    /// Lets everything happen that can.
    fn run(&mut self) -> Result<(), Fault> {
        loop {
            self.engines.iter_mut().try_for_each(|engine| engine.progress().map(drop))?;
            if !self.world.step(&mut Vec::new()).unwrap() {
                return Ok(());
            }
        }
    }

    fn done(&self, rank: usize, ops: &[OpId]) -> usize {
        ops.iter().filter(|&&op| self.engines[rank].status(op) == Status::Done).count()
    }
}

fn to(peer: Rank) -> Collective<'static> {
    Collective::send_receive(16, DataType::U8, Some(peer), None)
}

fn from(peer: Rank) -> Collective<'static> {
    Collective::send_receive(16, DataType::U8, None, Some(peer))
}

/// Posts under way, by way.
fn weights(engine: &Engine, peer: Rank) -> u32 {
    engine.loose.weight(peer)
}

#[test]
fn an_endpoint_gets_no_more_receives_of_a_peer_than_it_takes_and_in_order() {
    let mut rig = Rig::new(3);
    let waiting: Vec<_> = (0..300).map(|_| rig.direct(1, &from(0))).collect();
    let other = rig.direct(1, &from(2));
    rig.run().unwrap();
    assert_eq!((weights(&rig.engines[1], 0), weights(&rig.engines[1], 2)), (64, 1));
    rig.direct(2, &to(1));
    rig.run().unwrap();
    assert_eq!((rig.done(1, &[other]), rig.done(1, &waiting)), (1, 0), "one peer does not hold up another");
    for k in 1..=300 {
        rig.direct(0, &to(1));
        if k % 50 == 0 {
            rig.run().unwrap();
            assert_eq!(rig.done(1, &waiting[..k]), k, "the first ones");
            assert_eq!(weights(&rig.engines[1], 0), (300 - k as u32).min(64));
        }
    }
    assert!(rig.engines.iter().all(Engine::is_idle));
}

#[test]
fn what_follows_a_group_waits_until_the_group_has_posted_all_and_no_longer() {
    let mut rig = Rig::new(3);
    let message = |peer| Message { peer, start: 0, len: 16, signature: to(peer).signature(0) };
    let table: Vec<_> = (0..100).map(|_| message(0)).collect();
    let group = rig.direct(1, &Collective::group(&[], &table));
    let same_peer = rig.direct(1, &from(0));
    let other_peer = rig.direct(1, &from(2));
    rig.direct(2, &to(1));
    rig.run().unwrap();
    assert_eq!(rig.done(1, &[group, same_peer, other_peer]), 1);
    assert_eq!(weights(&rig.engines[1], 0), 64);
    for _ in 0..100 {
        rig.direct(0, &to(1));
    }
    rig.run().unwrap();
    assert_eq!((rig.done(1, &[group]), rig.done(1, &[same_peer])), (1, 0));
    rig.direct(0, &to(1));
    rig.run().unwrap();
    assert_eq!(rig.done(1, &[same_peer]), 1);
}

#[test]
fn messages_of_a_peer_that_nobody_waits_for_stay_with_it() {
    let mut rig = Rig::new(3);
    rig.tagged(0, TaggedKind::Send(1), 1, (5, 100));
    let receive = rig.tagged(1, TaggedKind::Receive(Some(2)), 1, (0, 10));
    rig.run().unwrap();
    assert!(rig.engines[1].endpoint().probe(0).unwrap().is_some(), "it was not taken");
    assert_eq!(rig.engines[1].awaited(), [2]);
    assert_eq!(rig.engines[1].wish().unwrap(), "a message with tag 1 from rank 2");
    rig.tagged(2, TaggedKind::Send(1), 1, (6, 10));
    rig.run().unwrap();
    assert_eq!((rig.done(1, &[receive]), &*rig.buffers[1]), (1, &[6; 10][..]));
    assert_eq!(rig.engines[1].take(receive).source, Some(2));
}

#[test]
fn a_message_in_the_way_is_kept_and_the_first_fitting_receive_gets_it() {
    let mut rig = Rig::new(2);
    for (tag, byte) in [(1, 11), (2, 21), (1, 12), (3, 31)] {
        rig.tagged(0, TaggedKind::Send(1), tag, (byte, 10));
    }
    let third = rig.tagged(1, TaggedKind::Receive(None), 3, (0, 10));
    rig.run().unwrap();
    assert_eq!(rig.done(1, &[third]), 1);
    assert!(rig.engines[1].inspect_closing().is_err(), "three messages are unread");
    let firsts = [0, 0].map(|_| rig.tagged(1, TaggedKind::Receive(Some(0)), 1, (0, 10)));
    let second = rig.tagged(1, TaggedKind::Receive(None), 2, (0, 10));
    rig.run().unwrap();
    assert_eq!((rig.done(1, &firsts), rig.done(1, &[second])), (2, 1));
    let got: Vec<u8> = rig.buffers[4..].iter().map(|buffer| buffer[0]).collect();
    assert_eq!(got, [31, 11, 12, 21]);
    assert!(rig.engines[1].inspect_closing().is_ok());
}

#[test]
fn messages_that_are_kept_have_bounds() {
    for (most_messages, most_bytes) in [(2, 1000), (100, 25)] {
        let mut rig = Rig::new(2);
        rig.engines[1].tagged.most_messages = most_messages;
        rig.engines[1].tagged.most_bytes = most_bytes;
        for _ in 0..3 {
            rig.tagged(0, TaggedKind::Send(1), 1, (1, 10));
        }
        rig.tagged(1, TaggedKind::Receive(None), 2, (0, 10));
        let fault = rig.run().unwrap_err();
        let Fault::Other(error) = fault else { panic!("{fault:?}") };
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        for part in ["rank 0", "tag 1", "a message with tag 2 from any rank", "2 messages of 20 bytes"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}

#[test]
fn who_left_is_found_among_those_that_are_waited_for() {
    let mut rig = Rig::new(3);
    rig.tagged(1, TaggedKind::Receive(None), 1, (0, 10));
    assert_eq!(rig.engines[1].find_loose_peer(false, |peer| peer == 0), None, "rank 2 may send");
    assert_eq!(rig.engines[1].find_loose_peer(false, |peer| peer != 1), Some(0));
    assert_eq!(rig.engines[1].find_loose_peer(true, |peer| peer != 1), None, "rank 1 may send to itself");
    rig.tagged(1, TaggedKind::Receive(Some(2)), 1, (0, 10));
    assert_eq!(rig.engines[1].find_loose_peer(false, |peer| peer == 2), Some(2));
}

#[test]
fn cancel_ends_everything_at_every_stage() {
    let mut rig = Rig::new(2);
    // The first message is large: it is still on its way into memory of our own.
    rig.tagged(0, TaggedKind::Send(1), 1, (1, 100_000));
    rig.tagged(0, TaggedKind::Send(1), 2, (1, 10));
    let receives = [2, 9, 1].map(|tag| rig.tagged(1, TaggedKind::Receive(None), tag, (0, 100_000)));
    let own = rig.tagged(1, TaggedKind::Send(1), 4, (0, 10));
    let waits: Vec<_> = (0..70).map(|_| rig.direct(1, &from(0))).collect();
    rig.engines[1].turn().unwrap();
    rig.engines[1].cancel();
    assert!(rig.engines[1].is_idle() && rig.engines[1].awaited().is_empty());
    assert_eq!((rig.done(1, &receives), rig.done(1, &[own]), rig.done(1, &waits)), (3, 1, 70));
    for op in receives.into_iter().chain([own]).chain(waits) {
        rig.engines[1].take(op);
    }
    while rig.world.step(&mut Vec::new()).unwrap() {}
    assert!(
        rig.buffers[2..].iter().all(|buffer| buffer.iter().all(|&byte| byte != 1 || buffer.len() == 4096))
    );
}
