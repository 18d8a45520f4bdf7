//! Rings: messages pass the ranks between, and share their links.

use crate::harness::{Harness, INPUT, OUTPUT, receive, send, span};
use ubccl_core::endpoint::Fidelity;

const LATENCY_PS: u64 = 1_000_000;

/// A GB/s, so that a byte takes a nanosecond.
fn ring(holds: u32, hop_ps: u64) -> String {
    format!(
        "name = 'test'\n[topology]\nunit = 'NPU'\n[[topology.level]]\nname = 'ring'\nholds = {holds}\nring = {{ hop_ps = \
         {hop_ps} }}\nlink = {{ latency_ps = {LATENCY_PS}, rate_bytes_per_s = 1_000_000_000 }}\n"
    )
}

/// Sends these messages (from, to, bytes) at once; when each was received.
fn run(fabric: &str, ranks: u32, fidelity: Fidelity, messages: &[(u32, u32, u64)]) -> Vec<u64> {
    let mut harness = Harness::with_fidelity(fabric, ranks, fidelity).unwrap().with_phantom(10_000, 1);
    for (token, &(from, to, bytes)) in (0..).zip(messages) {
        harness.post(to, 100 + token, &receive(span(OUTPUT, 0, bytes), from));
        harness.post(from, token, &send(span(INPUT, 0, bytes), to));
    }
    harness.run();
    (0..).zip(messages).map(|(token, &(_, to, _))| harness.time(to, 100 + token).unwrap()).collect()
}

fn near(time_ps: u64, exact_ps: u64) -> bool {
    // Shares are rounded down.
    (exact_ps..=exact_ps + 64 + exact_ps / 1_000_000_000).contains(&time_ps)
}

#[test]
fn a_lone_message_takes_a_hop_more_for_each_rank_it_passes() {
    for fidelity in Fidelity::ALL {
        for (to, passed) in [(1, 0), (2, 1), (4, 3), (5, 2), (7, 0)] {
            let times = run(&ring(8, 7_000), 8, fidelity, &[(0, to, 500)]);
            assert!(near(times[0], LATENCY_PS + passed * 7_000 + 500_000), "{fidelity}, to {to}: {times:?}");
        }
        // Six of eight are a ring of six.
        let times = run(&ring(8, 7_000), 6, fidelity, &[(0, 4, 500)]);
        assert!(near(times[0], LATENCY_PS + 7_000 + 500_000), "{fidelity}: {times:?}");
    }
}

/// Each rank to the one so far ahead: every link has as many messages as each has hops.
#[test]
fn a_shift_takes_its_closed_form() {
    for (ranks, distance, hop_ps) in
        [(8, 1, 7_000), (8, 3, 7_000), (8, 3, 900_000), (9, 4, 1), (64, 31, 209_794)]
    {
        let messages: Vec<_> = (0..ranks).map(|rank| (rank, (rank + distance) % ranks, 500)).collect();
        let (hops, bytes_ps) = (u64::from(distance), 500_000);
        let shared_ps = LATENCY_PS + (hops - 1) * hop_ps + hops * bytes_ps;
        let times = run(&ring(64, hop_ps), ranks, Fidelity::Fluid, &messages);
        assert!(times.iter().all(|&time| near(time, shared_ps)), "{ranks} ranks by {distance}: {times:?}");
        // One after the other, a link has the message of the rank before as soon as it has passed its own.
        let queued_ps = LATENCY_PS + (hops - 1) * bytes_ps.max(hop_ps) + bytes_ps;
        let times = run(&ring(64, hop_ps), ranks, Fidelity::LogGp, &messages);
        assert!(times.iter().all(|&time| time == queued_ps), "{ranks} ranks by {distance}: {times:?}");
    }
}

#[test]
fn both_ways_round_are_apart_and_those_of_one_way_share() {
    let fabric = ring(8, 0);
    for fidelity in Fidelity::ALL {
        let apart = run(&fabric, 8, fidelity, &[(0, 2, 500), (2, 0, 500), (0, 6, 500)]);
        assert!(apart.iter().all(|&time| near(time, LATENCY_PS + 500_000)), "{fidelity}: {apart:?}");
        // Both cross the link from 1 to 2.
        let shared = run(&fabric, 8, fidelity, &[(1, 2, 500), (0, 2, 500)]);
        assert!(near(shared[1], LATENCY_PS + 1_000_000), "{fidelity}: {shared:?}");
    }
}

#[test]
fn what_leaves_a_ring_passes_none_of_its_links() {
    let outer = "[[topology.level]]\nname = 'pod'\nholds = 2\nlink = { latency_ps = 2_000_000, rate_bytes_per_s = \
                 1_000_000_000, port = 1 }\n";
    let fabric = ring(4, 9_000) + outer;
    for fidelity in Fidelity::ALL {
        let times = run(&fabric, 8, fidelity, &[(0, 6, 500), (0, 1, 500), (5, 7, 500)]);
        let exact = [2_000_000 + 500_000, LATENCY_PS + 500_000, LATENCY_PS + 9_000 + 500_000];
        assert!(times.iter().zip(exact).all(|(&time, exact)| near(time, exact)), "{fidelity}: {times:?}");
    }
}
