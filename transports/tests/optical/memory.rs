//! Real bytes and fingerprints.

use crate::harness::{Harness, INPUT, OUTPUT, key, receive, reduce, send, span};
use ubccl_core::Rank;
use ubccl_core::endpoint::{Fault, Memory, Post, Posted, RegionId};
use ubccl_core::plan::PeerRun;
use ubccl_core::symbolic::{Piece, Value};

const PLAIN: &str = "custom:latency_ps=1000000,bytes_per_s=1000000000";

/// Big, small, big: the order of the additions shows.
fn awkward(rank: Rank, k: usize) -> f32 {
    [1e8, 3.25 + k as f32, -1e8, 0.125, 7.0][rank as usize % 5]
}

/// Contract 6: list order, `into` may be `own`; few and many sources.
#[test]
fn reductions_fold_in_list_order() {
    for (ranks, first) in [(2_u32, 1), (5, 0), (5, 3), (12, 7)] {
        let mut harness = Harness::new(PLAIN, ranks).with_floats(awkward, 9);
        let whole = span(INPUT, 0, 36);
        let own = ranks / 2;
        let sources = PeerRun::circle(first, ranks, ranks);
        for rank in (0..ranks).rev().filter(|&rank| rank != own) {
            harness.post(rank, 1, &send(whole, own));
        }
        harness.post(own, 1, &reduce(sources, whole, whole));
        harness.run();
        let expected: Vec<f32> = (0..9)
            .map(|k| sources.iter().map(|rank| awkward(rank, k)).reduce(|sum, x| sum + x).unwrap())
            .collect();
        assert_eq!(harness.floats(own, INPUT), expected, "{ranks} ranks from {first}");
        assert_eq!(harness.world.stats().messages, u64::from(ranks) - 1);

        let mut harness = Harness::new(PLAIN, ranks).with_phantom(9, 4);
        for rank in (0..ranks).rev().filter(|&rank| rank != own) {
            harness.post(rank, 1, &send(whole, own));
        }
        harness.post(own, 1, &reduce(sources, whole, whole));
        harness.run();
        let leaves = sources.iter().map(|rank| Value::contribution(rank, ranks, 0));
        let sum = Value::reduction(leaves, ranks);
        let expected: Vec<Value> = (0..9).map(|k| sum.further(k)).collect();
        assert_eq!(harness.values(own, INPUT), expected);
    }
}

/// A send takes a copy when it is posted: what its rank writes later travels with nobody.
#[test]
fn a_message_holds_what_was_there_at_its_post() {
    let mut harness = Harness::new(PLAIN, 2).with_floats(|rank, k| (10 * rank) as f32 + k as f32, 4);
    harness.post(0, 1, &send(span(INPUT, 0, 8), 1));
    let copy = Post::Copy { from: span(INPUT, 8, 8), into: span(INPUT, 0, 8) };
    assert_eq!(harness.post(0, 2, &copy), Posted::Done);
    harness.post(1, 1, &receive(span(OUTPUT, 4, 8), 0));
    harness.run();
    assert_eq!(harness.floats(0, INPUT), [2.0, 3.0, 2.0, 3.0]);
    assert_eq!(harness.floats(1, OUTPUT), [-1.0, 0.0, 1.0, -1.0]);
}

#[test]
fn fingerprints_travel_like_bytes_at_any_size() {
    // 4 GiB in units of 4 bytes.
    let elements = 1 << 30;
    let mut harness = Harness::new(PLAIN, 2).with_phantom(elements, 4);
    let half = 2 * elements;
    harness.post(0, 1, &send(span(INPUT, half, half), 1));
    harness.post(1, 1, &receive(span(OUTPUT, 0, half), 0));
    harness.post(1, 2, &Post::Copy { from: span(INPUT, 0, half), into: span(OUTPUT, half, half) });
    harness.run();
    let [theirs, ours] = [0, 1].map(|rank| Value::contribution(rank, 2, 0));
    let len = elements / 2;
    let expected = [Piece { len, value: theirs.further(len) }, Piece { len, value: ours }];
    assert_eq!(harness.endpoints[1].phantom(OUTPUT).unwrap(), expected);
    assert_eq!(harness.endpoints[1].phantom(RegionId(7)), None);
    assert_eq!(harness.time(1, 1), Some(1_000_000 + 1000 * half));
}

#[test]
fn real_and_phantom_memory_do_not_mix() {
    let mut harness = Harness::new(PLAIN, 2).with_floats(|_, _| 1.0, 2);
    let content = vec![Piece { len: 2, value: Value::UNWRITTEN }];
    let memory = Memory::Phantom { unit: 4, content };
    #[expect(unsafe_code, reason = "phantom memory has no address")]
    // SAFETY: phantom memory has no address.
    unsafe { harness.endpoints[1].register(OUTPUT, memory) }.unwrap();
    harness.post(0, 1, &send(span(INPUT, 0, 8), 1));
    harness.post(1, 1, &receive(span(OUTPUT, 0, 8), 0));
    harness.run();
    let [(1, Fault::Other(error))] = &harness.faults[..] else { panic!("{:?}", harness.faults) };
    assert!(error.message().contains("rank 1") && error.message().contains("mixes real"), "{error}");
    // A span that is no whole number of units, or outside.
    for (offset, len) in [(2, 4), (0, 6), (4, 8)] {
        let fault = harness.post_with(1, 2, &key(0), &send(span(OUTPUT, offset, len), 0)).unwrap_err();
        assert!(matches!(fault, Fault::Other(error) if error.message().contains("2 elements of 4 bytes")));
    }
}
