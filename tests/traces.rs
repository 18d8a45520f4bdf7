//! What recordings of simulated worlds say is exact: critical paths sum up to the time taken, whatever ran.

use ubccl::sim::{CommunicatorId, Data, Fidelity, Job, World, WorldConfig};
use ubccl::trace::{At, CriticalPath, Recording, What};
use ubccl::{Collective, DataType, Kind, ReduceOp};

/// Four nodes of four, with every cost there is.
const COSTLY: &str = "name = 'costly'
rank = { reduce_bytes_per_s = 3_000_000_000, copy_bytes_per_s = 7_000_000_000 }
[topology]
unit = 'NPU'
[[topology.level]]
name = 'node'
holds = 4
link = { latency_ps = 1_111, rate_bytes_per_s = 5_000_000_000, send_overhead_ps = 333, receive_overhead_ps = 77, gap_ps = 2_500 }
[[topology.level]]
name = 'supernode'
holds = 4
link = { latency_ps = 9_999, rate_bytes_per_s = 2_000_000_000, port_bytes_per_s = 5_000_000_000, send_overhead_ps = 500, receive_overhead_ps = 11, gap_ps = 900 }
";
const PLAIN: &str = "custom:latency_ps=1000,bytes_per_s=1000000000";

fn config(fabric: &str, ranks: u32) -> WorldConfig {
    WorldConfig { fabric: fabric.to_owned(), ranks, ..WorldConfig::default() }
}

/// Legs follow one another without a gap and none is empty.
fn check_chain(path: &CriticalPath, what: &str) {
    for pair in path.legs.windows(2) {
        assert_eq!(pair[0].until_ps, pair[1].from_ps, "{what}: {pair:?}");
    }
    assert!(path.legs.iter().all(|leg| leg.from_ps < leg.until_ps), "{what}: {path:?}");
    assert_eq!(path.parts().iter().map(|part| part.ps).sum::<u64>(), path.total_ps(), "{what}");
}

fn calls(count: u64) -> Vec<Collective<'static>> {
    let (dtype, op, root) = (DataType::F32, ReduceOp::Sum, 0);
    vec![
        Collective::all_reduce(count, dtype, op),
        Collective::reduce(count, dtype, op, root),
        Collective::reduce_scatter(count, dtype, op),
        Collective::all_gather(count, dtype),
        Collective::broadcast(count, dtype, root),
        Collective::gather(count, dtype, root),
        Collective::scatter(count, dtype, root),
        Collective::all_to_all(count, dtype),
        Collective::barrier(),
    ]
}

#[test]
fn the_parts_of_every_critical_path_sum_up_to_the_time_taken() {
    let mut paths = 0;
    for fabric in [COSTLY, PLAIN, "cloudmatrix384", "ring"] {
        for ranks in [1, 2, 3, 5, 8, 16] {
            for algorithm in ubccl::algorithms() {
                let configured =
                    WorldConfig { algorithm: Some(algorithm.name.into()), ..config(fabric, ranks) };
                for call in [1, 1_000, 100_003].into_iter().flat_map(calls) {
                    // Another world each time: ports may still be busy with what came before.
                    let mut world = World::new(configured.clone()).unwrap();
                    if world.candidates(&call).is_ok_and(|all| all.iter().all(|one| one.cost.is_err())) {
                        continue;
                    }
                    world.start_recording();
                    let Ok(outcome) = world.run_phantom(&|_| call, false) else { continue };
                    let recording = world.stop_recording();
                    let what = format!("{call} by {} on {ranks} of {fabric}", algorithm.name);
                    let path = recording.critical_path(0).unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(path.total_ps(), outcome.elapsed_ps, "{what}: {path:?}");
                    check_chain(&path, &what);
                    // All ranks begin at once, so nobody is waited for.
                    assert!(path.legs.iter().all(|leg| leg.what != What::Waiting), "{what}: {path:?}");
                    paths += 1;
                }
            }
        }
    }
    println!("{paths} critical paths");
    assert!(paths > 1_000, "only {paths} paths");
}

#[test]
fn recording_changes_neither_time_nor_hash() {
    let call = Collective::all_reduce(50_000, DataType::F32, ReduceOp::Sum);
    let run = |records: bool| {
        let mut world = World::new(config(COSTLY, 13)).unwrap();
        if records {
            world.start_recording();
        }
        let outcome = world.run_phantom(&|_| call, true).unwrap();
        (outcome, world.stop_recording().record.messages.len())
    };
    let ((plain, none), (recorded, messages)) = (run(false), run(true));
    assert_eq!(plain, recorded);
    assert_eq!((none, messages as u64), (0, plain.stats.messages));
}

fn record(config: WorldConfig, call: Collective<'_>) -> (Recording, u64) {
    let mut world = World::new(config).unwrap();
    world.start_recording();
    let outcome = world.run_phantom(&|_| call, false).unwrap();
    (world.stop_recording(), outcome.elapsed_ps)
}

/// The sum of a kind of part.
fn total(path: &CriticalPath, what: What) -> u64 {
    path.parts().iter().filter(|part| part.what == what).map(|part| part.ps).sum()
}

#[test]
fn a_rings_path_is_a_latency_and_a_block_for_each_of_its_steps() {
    let ranks = 4;
    let ring = WorldConfig { algorithm: Some("ring".into()), lanes: 1, ..config(PLAIN, ranks) };
    // Blocks of 1000 bytes, of which each takes 1 us, and each hop 1 ns more.
    let (recording, elapsed_ps) = record(ring, Collective::all_reduce(1_000, DataType::F32, ReduceOp::Sum));
    let path = recording.critical_path(0).unwrap();
    let steps = 2 * (u64::from(ranks) - 1);
    assert_eq!(elapsed_ps, steps * 1_001_000);
    assert_eq!(total(&path, What::Serialisation), steps * 1_000_000);
    assert_eq!(total(&path, What::Latency), steps * 1_000);
    let told = path.describe(&recording.record);
    assert_eq!(told, "99.9 % serialisation on 4 links of ranks' ports in, 0.1 % latency within a flat");
}

#[test]
fn a_full_port_is_named_with_what_it_passes() {
    // The root of a gather takes one block after the other.
    let gather = WorldConfig { algorithm: Some("linear".into()), ..config(PLAIN, 5) };
    let (recording, elapsed_ps) = record(gather, Collective::gather(10_000, DataType::U8, 2));
    let path = recording.critical_path(0).unwrap();
    assert_eq!(elapsed_ps, 4 * 10_000_000 + 1_000);
    let first = path.parts()[0];
    let At::Link(link) = first.at else { panic!("{first:?}") };
    assert_eq!((first.what, first.ps), (What::Serialisation, 40_000_000));
    assert_eq!(recording.record.link(link), "rank 2 in");
    assert!(path.describe(&recording.record).starts_with("100 % serialisation on rank 2 in, "));
    let used = recording.utilisation(0, elapsed_ps);
    let within = used.iter().find(|class| class.class == "ranks' ports in").unwrap();
    assert_eq!((within.links, within.used, within.busiest.unwrap().0), (5, 1, link));
    assert!((within.mean - within.busiest.unwrap().1 / 5.0).abs() < 1e-12);
}

#[test]
fn every_byte_is_seen_on_both_ports_that_it_passes() {
    for (fabric, fidelity) in [PLAIN, COSTLY].into_iter().flat_map(|own| Fidelity::ALL.map(|how| (own, how)))
    {
        let call = Collective::all_to_all(7_777, DataType::U8);
        let (recording, elapsed_ps) = record(WorldConfig { fidelity, ..config(fabric, 16) }, call);
        let record = &recording.record;
        let bytes: u64 = record.messages.iter().map(|message| message.bytes).sum();
        for class in recording.utilisation(0, elapsed_ps) {
            let rate = record.links[0].rate_bytes_per_s as f64;
            let seen = class.mean * class.links as f64 * rate * elapsed_ps as f64 / 1e12;
            // Times are rounded up to picoseconds, message by message.
            assert!((seen / bytes as f64 - 1.0).abs() < 1e-3, "{class:?}: {seen} of {bytes}");
        }
    }
}

#[test]
fn of_several_operations_each_has_its_own_path() {
    let mut world = World::new(config(COSTLY, 16)).unwrap();
    let halves = world.split(CommunicatorId::WORLD, &|rank| Some(rank % 2), &|_| 0).unwrap();
    let (sum, gather) = (
        Collective::all_reduce(30_000, DataType::F32, ReduceOp::Sum),
        Collective::all_gather(5_000, DataType::F32),
    );
    world.start_recording();
    let (calls, others) = (|_| sum, |_| gather);
    let mut jobs = [
        Job { communicator: halves[0], calls: &calls, data: Data::Phantom { in_place: false } },
        Job { communicator: halves[1], calls: &others, data: Data::Phantom { in_place: true } },
    ];
    let outcomes = world.run_together(&mut jobs);
    let recording = world.stop_recording();
    assert_eq!(recording.operations.len(), 2);
    for (index, outcome) in outcomes.into_iter().enumerate() {
        let path = recording.critical_path(index).unwrap();
        assert_eq!(path.total_ps(), outcome.unwrap().elapsed_ps);
        check_chain(&path, &recording.operations[index].text);
    }
    assert_eq!(recording.operations[1].text, gather.to_string());
    assert!(recording.critical_path(2).unwrap_err().message().contains("no operation 2"));
}

#[test]
fn one_after_the_other_an_operation_begins_where_it_was_begun() {
    let mut world = World::new(config(PLAIN, 4)).unwrap();
    world.start_recording();
    let call = Collective::broadcast(1_000, DataType::F32, 3);
    let first = world.run_phantom(&|_| call, false).unwrap();
    let second = world.run_phantom(&|_| call, false).unwrap();
    let recording = world.stop_recording();
    for (index, outcome) in [first, second].iter().enumerate() {
        assert_eq!(recording.critical_path(index).unwrap().total_ps(), outcome.elapsed_ps);
    }
    assert_eq!(recording.operations[1].start_ps(), recording.operations[0].end_ps().unwrap());
    assert_eq!(Kind::Broadcast.name(), recording.operations[1].text.split(' ').next().unwrap());
}
