//! The same in virtual time.

use crate::content;
use crate::support::{Random, seed};
use ubccl::blocks::Message;
use ubccl::plan::Side;
use ubccl::sim::{RankMemory, TaggedStep, TaggedWay, World, WorldConfig};
use ubccl::{Collective, DataType, ErrorKind, GroupSide, Rank};

fn world(ranks: u32) -> World {
    let fabric = "custom:latency_ps=1000000,bytes_per_s=1000000000".into();
    World::new(WorldConfig { fabric, ranks, ..WorldConfig::default() }).expect("a world")
}

/// What each rank sends and receives: packed in order of the pairs.
struct Tables {
    sends: Vec<GroupSide>,
    receives: Vec<GroupSide>,
    memory: Vec<RankMemory>,
    expected: Vec<Vec<u8>>,
}

fn tables(ranks: u32, random: &mut Random) -> Tables {
    let side = || (0..ranks).map(|_| GroupSide::default()).collect::<Vec<_>>();
    let (mut sends, mut receives) = (side(), side());
    let mut input = vec![Vec::new(); ranks as usize];
    let mut expected = input.clone();
    for from in 0..ranks {
        for to in (0..ranks).filter(|&to| to != from) {
            for number in 0..random.below(4) as usize {
                let len = random.below(3000) as usize;
                let bytes = content(from, to, number, len);
                let signature = Collective::send_receive(len as u64, DataType::U8, None, None).signature(0);
                let message = |peer: Rank, start: usize| Message {
                    peer,
                    start: start as u64,
                    len: len as u64,
                    signature,
                };
                sends[from as usize].push(message(to, input[from as usize].len()));
                receives[to as usize].push(message(from, expected[to as usize].len()));
                input[from as usize].extend(&bytes);
                expected[to as usize].extend(&bytes);
            }
        }
    }
    for rank in 0..ranks {
        sends[rank as usize].sort(Side::Send, rank, ranks);
        receives[rank as usize].sort(Side::Receive, rank, ranks);
    }
    let apart = |(input, expected): (Vec<u8>, &Vec<u8>)| RankMemory::Apart {
        input,
        output: vec![0xee; expected.len()],
    };
    let memory = input.into_iter().zip(&expected).map(apart).collect();
    Tables { sends, receives, memory, expected }
}

#[test]
fn groups_run_in_virtual_time_on_real_and_phantom_data() {
    let mut random = Random(seed("virtual groups"));
    for ranks in [2, 3, 5, 8] {
        let mut world = world(ranks);
        for _ in 0..5 {
            let Tables { sends, receives, mut memory, expected } = tables(ranks, &mut random);
            let calls = |rank: Rank| {
                Collective::group(sends[rank as usize].sorted(), receives[rank as usize].sorted())
            };
            let outcome = world.run_real(&calls, &mut memory).expect("it works");
            let count: usize = sends.iter().map(GroupSide::len).sum();
            assert_eq!(outcome.stats.messages, count as u64);
            for (memory, expected) in memory.iter().zip(&expected) {
                let RankMemory::Apart { output, .. } = memory else { panic!("it was apart") };
                assert!(output == expected);
            }
            assert_eq!(world.run_phantom(&calls, false).expect("it works").wrong, 0);
        }
        world.close().expect("nothing is left");
    }
}

fn step(rank: Rank, way: TaggedWay, tag: u32, bytes: &[u8]) -> TaggedStep {
    TaggedStep { rank, way, tag, bytes: bytes.to_vec() }
}

#[test]
fn tagged_messages_meet_their_receives_in_virtual_time() {
    use TaggedWay::{From, To};
    let mut world = world(3);
    for _ in 0..2 {
        let mut steps = [
            step(0, From(Some(1)), 2, &[0; 500]),
            step(0, From(None), 1, &[0; 7]),
            step(0, From(None), 9, &[0; 3]),
            step(1, To(0), 1, &[11; 7]),
            step(1, To(0), 2, &[12; 500]),
            step(2, To(2), 5, &[55; 40]),
            step(0, To(0), 9, &[99; 3]),
            step(2, From(None), 5, &[0; 40]),
        ];
        world.run_tagged(&mut steps).expect("it works");
        let received = |k: usize| (steps[k].way, steps[k].bytes.clone());
        assert_eq!(received(0), (From(Some(1)), vec![12; 500]));
        assert_eq!(received(1), (From(Some(1)), vec![11; 7]));
        assert_eq!(received(2), (From(Some(0)), vec![99; 3]));
        assert_eq!(received(7), (From(Some(2)), vec![55; 40]));
    }
    world.close().expect("nothing is left");
}

#[test]
fn a_receive_that_nobody_sends_for_ends_when_nothing_more_happens() {
    let mut world = world(2);
    let mut steps = [step(0, TaggedWay::From(Some(1)), 2, &[0; 5])];
    let error = world.run_tagged(&mut steps).expect_err("nobody sends");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("rank 0 waits for it"), "{error}");
}

#[test]
fn the_same_messages_give_the_same_events() {
    let hash = |seed: u64| {
        let mut world = world(4);
        let mut random = Random(seed);
        let mut steps = Vec::new();
        for _ in 0..50 {
            let (from, to) = (random.below(4) as u32, random.below(4) as u32);
            let (tag, len) = (random.below(3) as u32, 100 * random.below(3) as usize);
            let tag = tag * 1000 + len as u32;
            steps.push(step(from, TaggedWay::To(to), tag, &content(from, to, 0, len)));
            steps.push(step(to, TaggedWay::From(None), tag, &vec![0; len]));
        }
        world.run_tagged(&mut steps).expect("it works");
        world.stats().hash
    };
    assert_eq!(hash(5), hash(5));
    assert_ne!(hash(5), hash(6));
}
