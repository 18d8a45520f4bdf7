//! What the fluid fidelity adds, and what both make of ports, planes, links between switches, and switches that copy and
//! fold. Rates are 1 byte in a nanosecond, times in nanoseconds.

use crate::harness::{Harness, INPUT, OUTPUT, key, receive, reduce, send, span};
use ubccl_core::endpoint::{Fault, Fidelity, Key, POINT_TO_POINT_LANE, Post, Stream};
use ubccl_core::plan::PeerRun;

const PLAIN: &str = "custom:latency_ps=1000000,bytes_per_s=1000000000";

/// Four ranks in two nodes, with more lines of TOML.
fn toml(more: &str) -> String {
    let level = |name: &str| {
        format!(
            "[[topology.level]]\nname = '{name}'\nholds = 2\nlink = {{ latency_ps = 1_000_000, rate_bytes_per_s = \
             1_000_000_000 }}\n"
        )
    };
    format!("name = 'test'\n[topology]\nunit = 'NPU'\n{}{}{more}", level("node"), level("supernode"))
}

/// Shares are rounded down, so ends are some picoseconds late.
fn nearest_ns(time_ps: u64) -> u64 {
    (time_ps + 500) / 1000
}

/// Four ranks on one switch that copies and folds, or does not.
fn switch(is_clever: bool) -> String {
    format!(
        "name = 'test'\n[topology]\nunit = 'NPU'\nlevel = [{{ name = 'all', holds = 4, link = {{ latency_ps = 1_000_000, \
         rate_bytes_per_s = 1_000_000_000, multicast = {is_clever}, reduces = {is_clever} }} }}]\n"
    )
}

fn port(planes: u32, striping: &str) -> String {
    format!(
        "[[port]]\nname = 'bus'\nlevels = ['node', 'supernode']\nplanes = {planes}\nlane_bytes_per_s = 1_000_000_000\n\
         striping = '{striping}'\n"
    )
}

/// Sends these messages (from, to, bytes) at once; when each was sent and received.
fn run(fabric: &str, ranks: u32, fidelity: Fidelity, messages: &[(u32, u32, u64)]) -> Vec<(u64, u64)> {
    let mut harness = Harness::with_fidelity(fabric, ranks, fidelity).unwrap().with_phantom(1000, 1);
    for (token, &(from, to, bytes)) in (0..).zip(messages) {
        harness.post(to, 100 + token, &receive(span(OUTPUT, 0, bytes), from));
        harness.post(from, token, &send(span(INPUT, 0, bytes), to));
    }
    harness.run();
    let ns = |rank, token| nearest_ns(harness.time(rank, token).unwrap());
    (0..).zip(messages).map(|(token, &(from, to, _))| (ns(from, token), ns(to, 100 + token))).collect()
}

#[test]
fn messages_to_one_receiver_share_its_port_and_keep_their_senders() {
    let messages = [(1, 0, 100), (2, 0, 200), (3, 0, 300)];
    let shared = run(PLAIN, 4, Fidelity::Fluid, &messages);
    // A third each until 300, half each until 500, all of it until 600.
    assert_eq!(shared, [(300, 1300), (500, 1500), (600, 1600)]);
    let queued = run(PLAIN, 4, Fidelity::LogGp, &messages);
    assert_eq!(queued, [(100, 1100), (200, 1300), (300, 1600)]);
}

#[test]
fn what_one_port_leaves_another_gives_away() {
    // Rank 0's port gives each of three a third; rank 2 uses the rest of its own for rank 4.
    let one = "name = 'narrow'\nrank = { streams = 1 }\n[topology]\nunit = 'NPU'\nlevel = [{ name = 'all', holds = 8, \
               link = { latency_ps = 1_000_000, rate_bytes_per_s = 1_000_000_000 } }]";
    let messages = [(1, 0, 60), (2, 0, 60), (3, 0, 60), (2, 4, 60)];
    let sent: Vec<u64> = run(PLAIN, 8, Fidelity::Fluid, &messages).iter().map(|times| times.0).collect();
    assert_eq!(sent, [180, 180, 180, 90]);
    // An engine that has one under way serves one after the other.
    let sent: Vec<u64> = run(one, 8, Fidelity::Fluid, &messages).iter().map(|times| times.0).collect();
    assert_eq!(sent, [180, 180, 180, 240]);
}

#[test]
fn one_message_is_slower_than_a_port_that_passes_two() {
    let fabric = toml(&port(2, "spray"));
    for (fidelity, expected) in [(Fidelity::Fluid, [150, 150, 150]), (Fidelity::LogGp, [100, 150, 200])] {
        let messages = [(0, 1, 100), (0, 2, 100), (0, 3, 100)];
        let sent: Vec<u64> = run(&fabric, 4, fidelity, &messages).iter().map(|times| times.0).collect();
        assert_eq!(sent, expected, "{fidelity}");
        // Those of one pair follow each other.
        let sent = run(&fabric, 4, fidelity, &[(0, 1, 100), (0, 1, 100)]);
        assert_eq!(sent, [(100, 1100), (200, 1200)], "{fidelity}");
    }
}

#[test]
fn messages_share_the_links_out_of_a_node() {
    let uplink = "[[uplink]]\nlevel = 'node'\nlinks = 1\nbytes_per_s = 1_000_000_000\n";
    let messages = [(0, 2, 100), (1, 3, 100)];
    let sent = |more: &str| run(&toml(more), 4, Fidelity::Fluid, &messages).map_sent();
    assert_eq!(sent(""), [100, 100]);
    assert_eq!(sent(uplink), [200, 200]);
    assert_eq!(sent(&uplink.replace("links = 1", "links = 2")), [100, 100], "as much as the node's ports");
    // Inside the node nobody is in the way.
    let within = run(&toml(uplink), 4, Fidelity::Fluid, &[(0, 1, 100), (1, 0, 100)]);
    assert_eq!(within.map_sent(), [100, 100]);
}

#[test]
fn planes_are_taken_as_the_fabric_says() {
    let messages = [(0, 1, 100), (0, 2, 100)];
    let sent = |striping: &str| run(&toml(&port(2, striping)), 4, Fidelity::Fluid, &messages).map_sent();
    assert_eq!(sent("spray"), [100, 100], "each over both planes, and no faster than one message can be");
    assert_eq!(sent("adaptive"), [100, 100], "one on each plane");
    assert_eq!(sent("pinned"), [200, 200], "both on the plane of rank 0");
    let hashed = sent("hash");
    assert!(hashed == [100, 100] || hashed == [200, 200], "{hashed:?}");
}

#[test]
fn each_post_is_done_by_the_engine_that_it_names() {
    for fidelity in Fidelity::ALL {
        let fabric = "cloudmatrix384-die+write+read";
        // What Table 1 says of 512 bytes to another NPU of the node. Posts without a tag are of one stream.
        for (engine, published_ns) in [(None, 1300), (Some(0), 1300), (Some(1), 1200)] {
            let mut harness = Harness::with_fidelity(fabric, 4, fidelity).unwrap().with_phantom(1000, 1);
            let direct = |engine| Key { stream: Stream::Direct, lane: POINT_TO_POINT_LANE, engine, ..key(0) };
            // An empty one before it goes by the other engine.
            let other = Some(1 - engine.unwrap_or(0));
            for (to, engine, bytes) in [(3, other, 0), (2, engine, 512)] {
                harness.post_with(to, 1, &direct(engine), &receive(span(OUTPUT, 0, bytes), 0)).unwrap();
                harness.post_with(0, to.into(), &direct(engine), &send(span(INPUT, 0, bytes), to)).unwrap();
            }
            harness.run();
            assert_eq!(nearest_ns(harness.time(2, 1).unwrap()), published_ns, "{fidelity} {engine:?}");
        }
        let mut harness = Harness::with_fidelity(fabric, 4, fidelity).unwrap().with_phantom(8, 1);
        let unknown = Key { engine: Some(2), ..key(0) };
        let fault = harness.post_with(0, 1, &unknown, &send(span(INPUT, 0, 8), 1)).unwrap_err();
        assert!(matches!(&fault, Fault::Other(error) if error.message().contains("engine 2")), "{fault:?}");
    }
}

#[test]
fn switches_copy_and_fold_where_the_fabric_says() {
    let [plain, clever] = [false, true].map(switch);
    for fidelity in Fidelity::ALL {
        for (fabric, copied, folded) in [(&plain, 300, 300), (&clever, 100, 100)] {
            let mut harness = Harness::with_fidelity(fabric, 4, fidelity).unwrap().with_phantom(100, 1);
            let whole = |region| span(region, 0, 100);
            for to in 1..4 {
                harness.post(to, 1, &receive(whole(OUTPUT), 0));
            }
            let to = PeerRun::circle(1, 3, 4);
            harness.post(0, 1, &Post::Send { from: whole(INPUT), to });
            harness.run();
            let start_ps = harness.world.now_ps();
            assert_eq!(nearest_ns(harness.time(0, 1).unwrap()), copied, "copies, {fidelity}");
            assert!((1..4).all(|to| harness.values(to, OUTPUT) == harness.values(0, INPUT)));

            harness.post(0, 2, &reduce(PeerRun::circle(0, 4, 4), whole(INPUT), whole(OUTPUT)));
            for from in 1..4 {
                harness.post(from, 2, &send(whole(INPUT), 0));
            }
            harness.run();
            let took_ps = harness.time(0, 2).unwrap() - start_ps;
            assert_eq!(nearest_ns(took_ps), 1000 + folded, "folds, {fidelity}");
            assert!(harness.values(0, OUTPUT).iter().all(|value| value.contributors == 0b1111));
        }
    }
}

#[test]
fn what_is_copied_is_not_folded_and_does_not_hold_up_what_is() {
    let clever = switch(true);
    for fidelity in Fidelity::ALL {
        let mut harness = Harness::with_fidelity(&clever, 4, fidelity).unwrap().with_phantom(100, 1);
        let whole = |region| span(region, 0, 100);
        harness.post(0, 1, &reduce(PeerRun::circle(0, 4, 4), whole(INPUT), whole(OUTPUT)));
        harness.post(3, 1, &receive(whole(OUTPUT), 1));
        // Rank 1's goes to 3 and 0; those of 2 and 3 are folded into one.
        harness.post(1, 1, &Post::Send { from: whole(INPUT), to: PeerRun::circle(3, 2, 4) });
        harness.post(2, 2, &send(whole(INPUT), 0));
        harness.post(3, 2, &send(whole(INPUT), 0));
        harness.run();
        assert_eq!(nearest_ns(harness.time(0, 1).unwrap()), 1200, "{fidelity}");
        assert!(harness.values(0, OUTPUT).iter().all(|value| value.contributors == 0b1111));
    }
}

/// Of what has begun before its receive was posted, switches fold what is to come.
#[test]
fn what_is_on_its_way_is_folded_from_when_it_is_asked_for() {
    let clever = switch(true);
    // Of three that share the port for 50 ns, 83.3 bytes each are left, which pass as one. In loggp none is there yet.
    for (fidelity, took_ns) in [(Fidelity::Fluid, 1133), (Fidelity::LogGp, 1100)] {
        let mut harness = Harness::with_fidelity(&clever, 4, fidelity).unwrap().with_phantom(100, 1);
        let whole = |region| span(region, 0, 100);
        for from in 1..4 {
            harness.post(from, 1, &send(whole(INPUT), 0));
        }
        harness.world.alarm(0, 50_000);
        while harness.world.now_ps() < 50_000 {
            harness.step();
        }
        harness.post(0, 1, &reduce(PeerRun::circle(0, 4, 4), whole(INPUT), whole(OUTPUT)));
        harness.run();
        assert_eq!(nearest_ns(harness.time(0, 1).unwrap()), took_ns, "{fidelity}");
        assert!(harness.values(0, OUTPUT).iter().all(|value| value.contributors == 0b1111));
    }
}

/// Copies go with their original, also if that waits. Behind others of their pair they wait in the switch.
#[test]
fn copies_wait_for_their_original_and_never_pass_the_port_of_their_sender() {
    let clever = switch(true);
    for fidelity in Fidelity::ALL {
        for busy in 1..4 {
            let mut harness = Harness::with_fidelity(&clever, 4, fidelity).unwrap().with_phantom(200, 1);
            let [first, second] = [0, 100].map(|offset| move |region| span(region, offset, 100));
            harness.post(busy, 1, &receive(first(OUTPUT), 0));
            for to in 1..4 {
                harness.post(to, 2, &receive(second(OUTPUT), 0));
            }
            harness.post(0, 1, &send(first(INPUT), busy));
            harness.post(0, 2, &Post::Send { from: second(INPUT), to: PeerRun::circle(1, 3, 4) });
            harness.run();
            // The original goes to 1. Beside what goes to 2 or 3 it has half of the port; that one's copy follows.
            let waits = fidelity == Fidelity::Fluid && busy > 1;
            let sent_ns = nearest_ns(harness.time(0, 2).unwrap());
            assert_eq!(sent_ns, if waits { 300 } else { 200 }, "to {busy}, {fidelity}");
            assert!((1..4).all(|to| harness.values(to, OUTPUT)[100..] == harness.values(0, INPUT)[100..]));
        }
    }
}

#[test]
fn the_hash_of_flows_repeats() {
    let hash = |bytes| {
        let mut harness = Harness::with_fidelity(PLAIN, 8, Fidelity::Fluid).unwrap().with_phantom(1000, 1);
        for from in 1..8 {
            harness.post(0, u64::from(from), &receive(span(OUTPUT, 0, bytes + u64::from(from)), from));
            harness.post(from, 0, &send(span(INPUT, 0, bytes + u64::from(from)), 0));
        }
        harness.run();
        assert_eq!(harness.world.fidelity(), Fidelity::Fluid);
        harness.world.stats().hash
    };
    assert_eq!(hash(100), hash(100));
    assert_ne!(hash(100), hash(101));
}

trait Sent {
    fn map_sent(&self) -> Vec<u64>;
}

impl Sent for Vec<(u64, u64)> {
    fn map_sent(&self) -> Vec<u64> {
        self.iter().map(|times| times.0).collect()
    }
}

#[test]
fn what_follows_a_message_that_switches_hold_does_not_pass_it() {
    let clever = switch(true);
    for fidelity in Fidelity::ALL {
        let mut harness = Harness::with_fidelity(&clever, 4, fidelity).unwrap().with_phantom(200, 1);
        let [first, second] = [0, 100].map(|offset| move |region| span(region, offset, 100));
        harness.post(0, 1, &reduce(PeerRun::circle(0, 3, 4), first(INPUT), first(OUTPUT)));
        harness.post(0, 2, &receive(second(OUTPUT), 1));
        harness.post(1, 1, &send(first(INPUT), 0));
        harness.post(1, 2, &send(second(INPUT), 0));
        harness.run();
        // Long after, the message comes that the first waits for.
        harness.post(2, 1, &send(first(INPUT), 0));
        harness.run();
        let values = harness.values(0, OUTPUT);
        let contributors = |range: std::ops::Range<usize>| -> Vec<u128> {
            values[range].iter().map(|value| value.contributors).collect()
        };
        assert_eq!(contributors(0..100), [0b111; 100], "{fidelity}");
        assert_eq!(contributors(100..200), [0b10; 100], "{fidelity}");
    }
}
