//! Times to the picosecond.

use crate::harness::{Harness, INPUT, OUTPUT, receive, reduce, send, span};
use ubccl_core::endpoint::{Post, Posted};
use ubccl_core::plan::PeerRun;

/// 1 byte takes 1 ns; latency 1 µs.
const PLAIN: &str = "custom:latency_ps=1000000,bytes_per_s=1000000000";

/// Two levels: (L 100, 1 B/ns, o 10, o′ 5, g 50) in a node of 2, (L 900, 2 B/ns) outside; times in ns.
const LEVELS: &str = "
name = 'levels'
[topology]
unit = 'NPU'
[[topology.level]]
name = 'node'
holds = 2
[topology.level.link]
latency_ps = 100_000
rate_bytes_per_s = 1_000_000_000
send_overhead_ps = 10_000
receive_overhead_ps = 5_000
gap_ps = 50_000
[[topology.level]]
name = 'supernode'
holds = 2
link = { latency_ps = 900_000, rate_bytes_per_s = 2_000_000_000 }
[rank]
reduce_bytes_per_s = 4_000_000_000
copy_bytes_per_s = 8_000_000_000
";

fn ns(harness: &Harness, rank: u32, token: u64) -> u64 {
    let time_ps = harness.time(rank, token).unwrap();
    assert_eq!(time_ps % 1000, 0);
    time_ps / 1000
}

#[test]
fn a_lone_message_takes_latency_and_serialisation_and_its_sender_less() {
    let mut harness = Harness::new(PLAIN, 2).with_phantom(64, 1);
    harness.post(0, 1, &send(span(INPUT, 0, 64), 1));
    harness.post(1, 2, &receive(span(OUTPUT, 0, 64), 0));
    harness.run();
    assert_eq!(ns(&harness, 0, 1), 64);
    assert_eq!(ns(&harness, 1, 2), 1000 + 64);
}

#[test]
fn overheads_and_gaps_belong_to_the_link_class() {
    let mut harness = Harness::new(LEVELS, 4).with_phantom(100, 1);
    for (token, bytes) in [(1, 20), (2, 80), (3, 20)] {
        harness.post(0, token, &send(span(INPUT, 0, bytes), 1));
        harness.post(1, token, &receive(span(OUTPUT, 0, bytes), 0));
    }
    harness.post(0, 4, &send(span(INPUT, 0, 100), 2));
    harness.post(2, 4, &receive(span(OUTPUT, 0, 100), 0));
    harness.run();
    // Starts: 0; max(50, 10 + 20) = 50; 50 + max(50, 10 + 80) = 140; 140 + max(50, 30) = 190 on the other link.
    assert_eq!([1, 2, 3, 4].map(|token| ns(&harness, 0, token)), [30, 140, 170, 240]);
    // Arrivals: start + 10 + 100 + bytes + 5, the port being free each time.
    assert_eq!([1, 2, 3].map(|token| ns(&harness, 1, token)), [135, 245, 275]);
    assert_eq!(ns(&harness, 2, 4), 190 + 900 + 50);
}

#[test]
fn messages_share_the_reception_port_in_the_order_their_heads_reach_it() {
    let mut harness = Harness::new(PLAIN, 4).with_phantom(100, 1);
    for from in 1..4 {
        harness.post(0, u64::from(from), &receive(span(OUTPUT, 0, 100), from));
    }
    // Rank 3's head starts first: it was posted first, at the same time.
    for from in [3, 1, 2] {
        harness.post(from, 0, &send(span(INPUT, 0, 100), 0));
    }
    harness.run();
    assert_eq!([3, 1, 2].map(|token| ns(&harness, 0, token)), [1100, 1200, 1300]);
}

#[test]
fn a_receive_posted_late_completes_at_once_and_one_posted_early_on_arrival() {
    let mut harness = Harness::new(PLAIN, 2).with_phantom(10, 1);
    harness.post(0, 1, &send(span(INPUT, 0, 10), 1));
    harness.run();
    assert_eq!(harness.world.now_ps(), 1_010_000);
    assert_eq!(harness.post(1, 2, &receive(span(OUTPUT, 0, 10), 0)), Posted::Done);
    assert_eq!(harness.post(1, 3, &receive(span(OUTPUT, 0, 10), 0)), Posted::Pending);
    harness.post(0, 4, &send(span(INPUT, 0, 10), 1));
    harness.run();
    assert_eq!(ns(&harness, 1, 3), 2020);
}

#[test]
fn reductions_and_copies_take_their_rates_one_at_a_time() {
    let mut harness = Harness::new(LEVELS, 4).with_phantom(400, 1);
    for from in [2, 3] {
        harness.post(from, 1, &send(span(INPUT, 0, 80), 0));
    }
    let sources = PeerRun::circle(2, 3, 4); // 2, 3, and rank 0 itself
    harness.post(0, 1, &reduce(sources, span(INPUT, 0, 80), span(OUTPUT, 0, 80)));
    harness.post(0, 2, &Post::Copy { from: span(INPUT, 0, 400), into: span(OUTPUT, 0, 400) });
    harness.post(0, 3, &Post::Copy { from: span(INPUT, 0, 80), into: span(OUTPUT, 0, 80) });
    harness.run();
    assert_eq!([2, 3].map(|token| ns(&harness, 0, token)), [50, 60]);
    // Heads at 900, 40 ns each on the port, then two foldings of 80 bytes at 4 B/ns.
    assert_eq!(ns(&harness, 0, 1), 900 + 2 * 40 + 2 * 20);
}

#[test]
fn a_message_to_oneself_is_a_copy() {
    for (fabric, expected) in [(PLAIN, 0), (LEVELS, 10)] {
        let mut harness = Harness::new(fabric, 2).with_phantom(80, 1);
        harness.post(0, 1, &receive(span(OUTPUT, 0, 80), 0));
        harness.post(0, 2, &send(span(INPUT, 0, 80), 0));
        harness.run();
        assert_eq!([1, 2].map(|token| ns(&harness, 0, token)), [expected, expected]);
        assert_eq!(harness.values(0, OUTPUT), harness.values(0, INPUT));
    }
}

const ALPHA_PS: u64 = 2_100_000;
const RATE: u64 = 392_000_000_000;

fn flat(ranks: u32, bytes: u64) -> Harness {
    Harness::new(&format!("custom:latency_ps={ALPHA_PS},bytes_per_s={RATE}"), ranks).with_phantom(bytes, 1)
}

fn serialisation_ps(bytes: u64) -> u64 {
    (bytes * 1_000_000).div_ceil(RATE / 1_000_000)
}

#[test]
fn a_ring_equals_its_closed_form() {
    for ranks in [2_u32, 3, 8, 384] {
        let block = if ranks < 100 { 1000 } else { 16 };
        let mut harness = flat(ranks, block * u64::from(ranks));
        let steps = 2 * (ranks as usize - 1);
        let time_ps = harness.run_phases(steps, |rank, step| {
            let at = |back: usize| u64::from((rank + 2 * ranks - (back as u32 % ranks)) % ranks) * block;
            let (to, from) = ((rank + 1) % ranks, (rank + ranks - 1) % ranks);
            let (out, own) = (span(OUTPUT, at(step + 1), block), span(INPUT, at(step + 1), block));
            let sent = span(if step == 0 { INPUT } else { OUTPUT }, at(step), block);
            let received = if step < ranks as usize - 1 {
                reduce(PeerRun::circle(from, 2, ranks), own, out)
            } else {
                receive(out, from)
            };
            vec![send(sent, to), received]
        });
        assert_eq!(time_ps, steps as u64 * (ALPHA_PS + serialisation_ps(block)), "{ranks} ranks");
        let result = harness.values(0, OUTPUT);
        let everybody = if ranks <= 128 { u128::MAX >> (128 - ranks) } else { result[0].contributors };
        assert!(result.iter().all(|value| value.contributors == everybody && !value.doubled));
        for rank in 1..ranks {
            assert_eq!(harness.values(rank, OUTPUT), result);
        }
    }
}

#[test]
fn one_shot_mesh_equals_its_closed_form() {
    for ranks in [2_u32, 5, 64] {
        let bytes = 4000;
        let mut harness = flat(ranks, bytes);
        let time_ps = harness.run_phases(1, |rank, _| {
            let whole = |region| span(region, 0, bytes);
            let to = PeerRun::circle((rank + 1) % ranks, ranks - 1, ranks);
            vec![
                Post::Send { from: whole(INPUT), to },
                reduce(PeerRun::circle(0, ranks, ranks), whole(INPUT), whole(OUTPUT)),
            ]
        });
        assert_eq!(time_ps, ALPHA_PS + u64::from(ranks - 1) * serialisation_ps(bytes), "{ranks} ranks");
        assert!((1..ranks).all(|rank| harness.values(rank, OUTPUT) == harness.values(0, OUTPUT)));
    }
}

#[test]
fn two_shot_mesh_equals_its_closed_form() {
    for ranks in [2_u32, 5, 64] {
        let block = 512;
        let mut harness = flat(ranks, block * u64::from(ranks));
        let at = |region, rank: u32| span(region, u64::from(rank) * block, block);
        let time_ps = harness.run_phases(2, |rank, phase| {
            let others = || (1..ranks).map(|distance| (rank + distance) % ranks);
            if phase == 0 {
                let sends = others().map(|to| send(at(INPUT, to), to));
                let everybody = PeerRun::circle(0, ranks, ranks);
                sends.chain([reduce(everybody, at(INPUT, rank), at(OUTPUT, rank))]).collect()
            } else {
                let to = PeerRun::circle((rank + 1) % ranks, ranks - 1, ranks);
                let receives = others().map(|from| receive(at(OUTPUT, from), from));
                receives.chain([Post::Send { from: at(OUTPUT, rank), to }]).collect()
            }
        });
        assert_eq!(time_ps, 2 * (ALPHA_PS + u64::from(ranks - 1) * serialisation_ps(block)), "{ranks} ranks");
        assert!((1..ranks).all(|rank| harness.values(rank, OUTPUT) == harness.values(0, OUTPUT)));
    }
}

#[test]
fn the_same_posts_give_the_same_hash_and_one_picosecond_another() {
    let hash = |latency_ps: u64, bytes: u64, ranks: u32| {
        let fabric = format!("custom:latency_ps={latency_ps},bytes_per_s=1000000000");
        let mut harness = Harness::new(&fabric, ranks).with_phantom(bytes, 1);
        harness.run_phases(5, |rank, _| {
            let whole = |region| span(region, 0, bytes);
            vec![send(whole(INPUT), (rank + 1) % ranks), receive(whole(OUTPUT), (rank + ranks - 1) % ranks)]
        });
        let stats = harness.world.stats();
        assert_eq!((stats.messages, stats.bytes), (u64::from(5 * ranks), u64::from(5 * ranks) * bytes));
        assert_eq!(stats.events, u64::from(5 * ranks) * 3);
        stats.hash
    };
    let first = hash(1000, 64, 8);
    assert_eq!(first, hash(1000, 64, 8));
    for other in [hash(1001, 64, 8), hash(1000, 65, 8), hash(1000, 64, 9)] {
        assert_ne!(first, other);
    }
}

#[test]
fn a_preset_uses_the_link_of_the_level_two_ranks_share() {
    let mut harness = Harness::new("cloudmatrix384-die", 20).with_phantom(512, 1);
    for to in [1, 2, 16] {
        harness.post(to, 1, &receive(span(OUTPUT, 0, 512), 0));
        harness.post(0, u64::from(to), &send(span(INPUT, 0, 512), to));
        let start_ps = harness.world.now_ps();
        harness.run();
        let took_ps = harness.time(to, 1).unwrap() - start_ps;
        let expected_ps = [(1, 1_296_262 + 1897), (2, 1_300_000), (16, 2_100_000)];
        assert!(expected_ps.contains(&(to, took_ps)), "to {to}: {took_ps} ps");
    }
    let error = Harness::try_new("cloudmatrix384-die", 769).err().unwrap();
    assert!(error.to_string().contains("holds 1 to 768 ranks (each a die), not 769"), "{error}");
    assert!(Harness::try_new("cloudmatrix384", 0).is_err());
    let text = harness.world.describe();
    assert!(text.contains("768 ranks, each a die") && text.contains("arXiv"), "{text}");
}
