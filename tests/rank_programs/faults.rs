//! Faults: a thousand seeds, and what single faults cost.
#![allow(clippy::print_stdout)] // coverage and ratios, for --nocapture

use crate::PLAIN;
use std::collections::BTreeMap;
use std::time::Duration;
use ubccl::sim::{Communicator, End, Ended, Fidelity, Outcome, Report, World, WorldConfig};
use ubccl::trace::Recording;
use ubccl::{Collective, DataType, ReduceOp, Result};

/// Faults fall into the first so much of virtual time; the programs' operations take about as long.
const WITHIN_PS: u64 = 600_000_000;
/// When all have to have ended.
const DEADLINE_PS: u64 = 20_000_000_000;
/// When every rank looks whether all went well: long after the last fault and what it delays. A rank that is through with its
/// operations and is paused afterwards looks as much later.
const LOOK_PS: u64 = DEADLINE_PS / 4 * 3;
const RANKS: u32 = 6;

fn world(faults: String, ranks: u32, fidelity: Fidelity) -> World {
    let timeout = Duration::from_nanos(DEADLINE_PS / 1000 / 2);
    let config = WorldConfig {
        fabric: PLAIN.into(),
        ranks,
        faults,
        fidelity,
        operation_timeout: timeout,
        ..WorldConfig::default()
    };
    World::new(config).expect("a world")
}

/// Twenty-four operations on two communicators, each compared with what it should give.
async fn busy(comm: Communicator<'_>) -> Result<u32> {
    let (me, ranks) = (comm.rank(), comm.ranks());
    let half = comm.split(Some(me % 2), 0).await?.expect("a colour");
    let mut operations = 1;
    for round in 0..4_u32 {
        let big = comm.all_reduce(vec![me + round; 12_000], ReduceOp::Sum);
        let small = half.all_gather(vec![me; 100]);
        comm.compute_ps(u64::from(me) * 3_000_000).await;
        let sum = (0..ranks).map(|rank| rank + round).sum::<u32>();
        assert_eq!(big.await?, vec![sum; 12_000], "rank {me}, round {round}");
        let members: Vec<u32> = (0..ranks).filter(|rank| rank % 2 == me % 2).collect();
        assert_eq!(small.await?, members.iter().flat_map(|&rank| [rank; 100]).collect::<Vec<_>>());
        let blocks =
            comm.all_to_all((0..ranks).flat_map(|to| [me * 100 + to; 2000]).collect::<Vec<_>>()).await?;
        assert_eq!(blocks, (0..ranks).flat_map(|from| [from * 100 + me; 2000]).collect::<Vec<_>>());
        let sent = comm.send_tagged(vec![me; 500], (me + 1) % ranks, round);
        let (got, from) = comm.receive_tagged::<u32>(500, None, round).await?;
        assert_eq!((got, from), (vec![(me + ranks - 1) % ranks; 500], (me + ranks - 1) % ranks));
        sent.await?;
        let root = round % half.ranks();
        let told = half.broadcast(vec![if half.rank() == root { round } else { 99 }; 3000], root).await?;
        assert_eq!(told, vec![round; 3000]);
        operations += 6;
    }
    // All look long after all is over, so that all see the same.
    comm.compute_ps(LOOK_PS - comm.now_ps()).await;
    match comm.async_error().or(half.async_error()) {
        Some(error) => Err(error),
        None => Ok(operations),
    }
}

/// What became of a run, to be compared with another.
fn told(report: &Report<u32>) -> Vec<String> {
    let end = |ended: &Ended<u32>| match &ended.end {
        End::Returned(operations) => format!("{operations} operations at {}", ended.at_ps),
        _ => ended.failure().expect("it did not return"),
    };
    report.ended.iter().map(end).collect()
}

/// What all seeds together came to.
#[derive(Debug, Default)]
struct Coverage {
    /// Seeds that hit bytes in flight, that ended right, and in error.
    hit: u32,
    right: u32,
    failed: u32,
    retries: u64,
    lost: u64,
    /// Ends of ranks.
    ends: BTreeMap<&'static str, u32>,
}

impl Coverage {
    fn add(&mut self, seed: u64, report: &Report<u32>) {
        let returned = report.ended.iter().filter(|ended| matches!(ended.end, End::Returned(_))).count();
        let told = || format!("seed {seed}: {:#?}", told(report));
        assert!(returned == 0 || returned == RANKS as usize, "{}", told());
        for ended in &report.ended {
            assert!(ended.at_ps <= DEADLINE_PS, "{}", told());
            let kind = match &ended.end {
                End::Returned(operations) => {
                    assert!(*operations >= 20, "{}", told());
                    "returned"
                }
                End::Failed(error) => {
                    assert!(error.cause().is_some(), "{}", told());
                    "failed with the cause"
                }
                End::Died => "died",
                End::Panicked(_) => panic!("wrong data? {}", told()),
            };
            *self.ends.entry(kind).or_default() += 1;
        }
        if returned > 0 {
            report.closed.as_ref().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        self.hit += u32::from(report.stats.retries + report.stats.lost > 0);
        self.retries += report.stats.retries;
        self.lost += report.stats.lost;
        self.right += u32::from(returned > 0);
        self.failed += u32::from(returned == 0);
    }
}

/// Issue: 1,000 seeds, at least a third hit bytes in flight, run twice: same hashes; every run ends all correct or all in
/// error inside the virtual deadline.
fn a_thousand_seeds(fidelity: Fidelity) {
    let mut coverage = Coverage::default();
    for seed in 0..1000 {
        let faults = || format!("seed = {seed}\nwithin_ps = {WITHIN_PS}");
        let run = || world(faults(), RANKS, fidelity).run_program(busy);
        let (first, second) = (run(), run());
        assert_eq!((first.stats, told(&first)), (second.stats, told(&second)), "seed {seed}");
        coverage.add(seed, &first);
    }
    println!("1000 seeds, {fidelity}: {coverage:?}");
    let Coverage { hit, right, failed, .. } = coverage;
    assert!(hit >= 334, "only {hit} of 1000 hit bytes in flight");
    assert!(right >= 100 && failed >= 50, "{right} right, {failed} in error");
}

#[test]
fn a_thousand_seeds_end_all_right_or_all_in_error_and_the_same_each_time() {
    a_thousand_seeds(Fidelity::LogGp);
}

#[test]
fn so_they_do_where_messages_are_flows() {
    a_thousand_seeds(Fidelity::Fluid);
}

/// One call of two ranks or more by ring, in one lane.
fn recorded(faults: &str, ranks: u32, fabric: &str, fidelity: Fidelity, bytes: u64) -> (Outcome, Recording) {
    let config = WorldConfig {
        fabric: fabric.into(),
        ranks,
        fidelity,
        faults: faults.into(),
        algorithm: Some("ring".into()),
        lanes: 1,
        ..WorldConfig::default()
    };
    let call = Collective::all_reduce(bytes, DataType::U8, ReduceOp::Sum);
    let mut world = World::new(config).expect("a world");
    world.start_recording();
    let outcome = world.run_phantom(&|_| call, false).expect("it runs");
    assert_eq!(outcome.wrong, 0);
    (outcome, world.stop_recording())
}

fn elapsed_ps(faults: &str, ranks: u32, fabric: &str, fidelity: Fidelity, bytes: u64) -> u64 {
    recorded(faults, ranks, fabric, fidelity, bytes).0.elapsed_ps
}

/// Of cloudmatrix384's seven planes one: the bandwidth term is what more bytes take more, the latencies being the same.
#[test]
fn one_plane_of_seven_down_makes_the_bandwidth_term_seven_sixths() {
    let down = "[[fault]]\nkind = 'plane-loss'\nlost = 1\nof = 7";
    for (fabric, ranks) in [(PLAIN, 4), ("cloudmatrix384", 16), ("cloudmatrix384", 48)] {
        for fidelity in Fidelity::ALL {
            let bytes = u64::from(ranks) * 10_000_000;
            let term = |faults| {
                let time = |bytes| elapsed_ps(faults, ranks, fabric, fidelity, bytes);
                (time(2 * bytes) - time(bytes)) as f64
            };
            let ratio = term(down) / term("");
            println!("{fabric}, {ranks} ranks, {fidelity}: one plane of seven down: x {ratio:.9}");
            assert!((ratio / (7.0 / 6.0) - 1.0).abs() < 1e-6, "{ratio} on {ranks} ranks of {fabric}");
        }
    }
}

#[test]
fn each_fault_costs_what_it_should() {
    for fidelity in Fidelity::ALL {
        let run = |faults: &str| recorded(faults, 2, PLAIN, fidelity, 1 << 20);
        let (clean, _) = run("");
        let with = |fault: &str| {
            let (outcome, recording) = run(&format!("[[fault]]\n{fault}"));
            let path = recording.critical_path(0).expect("it is recorded without a gap");
            assert_eq!(path.total_ps(), outcome.elapsed_ps, "{fault}");
            assert_eq!(recording.record.incidents.len(), usize::from(!fault.contains("1_000_000_000_000")));
            (outcome.elapsed_ps, outcome.stats.retries)
        };
        let (clean_ps, none) = (clean.elapsed_ps, 0);
        let late = with("kind = 'pause'\nrank = 0\nat_ps = 1_000_000_000_000\nfor_ps = 5");
        assert_eq!(late, (clean_ps, none), "after the end");
        // Two rounds of half the bytes and a microsecond.
        let half = with("kind = 'slow-port'\npercent = 50");
        assert_eq!(half, (2 * clean_ps - 2_000_000, none), "{fidelity}");
        let skew = with("kind = 'skew'\nrank = 1\nfor_ps = 7_000_000");
        assert_eq!(skew, (clean_ps + 7_000_000, none), "{fidelity}");
        // It strikes while bytes move, and those of a microsecond are sent again.
        let flap = with(
            "kind = 'link-flap'\nrank = 0\nat_ps = 300_000_000\nfor_ps = 40_000_000\nretrain_ps = 10_000_000",
        );
        assert_eq!(flap, (clean_ps + 51_000_000, 2), "{fidelity}");
        let errors = with("kind = 'bit-errors'\none_in_bytes = 300_000");
        assert!(errors.0 > clean_ps && errors.1 > 0, "{errors:?} {clean_ps}");
        // Each cost a round trip of two microseconds, some of them at the same time.
        assert!(errors.0 <= clean_ps + errors.1 * 2_000_000, "{errors:?} {clean_ps}");
    }
}

#[test]
fn computing_takes_longer_for_a_rank_that_stands_still() {
    let faults = "[[fault]]\nkind = 'pause'\nrank = 1\nat_ps = 5_000_000\nfor_ps = 2_000_000";
    let report = world(faults.into(), 2, Fidelity::LogGp).run_program(async |comm: Communicator<'_>| {
        comm.compute_ps(6_000_000).await;
        Ok(comm.now_ps())
    });
    assert_eq!(report.into_results().expect("they compute"), [6_000_000, 8_000_000]);
}

/// Faults of ranks that take no part, or later, change no time.
#[test]
fn what_faults_do_not_concern_is_as_it_was() {
    for fabric in [PLAIN, "cloudmatrix384-die"] {
        for fidelity in Fidelity::ALL {
            let time = |faults| elapsed_ps(faults, 8, fabric, fidelity, 1 << 20);
            let later = "[[fault]]\nkind = 'link-flap'\nat_ps = 900_000_000_000_000\nfor_ps = 5\n[[fault]]\n
                kind = 'bit-errors'\none_in_bytes = 1000\nat_ps = 900_000_000_000_000";
            assert_eq!(time(later), time(""), "{fabric} {fidelity}");
        }
    }
}

#[test]
fn wrong_faults_are_refused() {
    let faults = "[[fault]]\nkind = 'flood'".to_owned();
    let config = WorldConfig { ranks: 2, fabric: PLAIN.into(), faults, ..Default::default() };
    assert!(World::new(config).expect_err("there is no such kind").message().contains("lane-loss"));
}
