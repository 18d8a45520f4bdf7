//! A rank dies while ranks split, and while they use what they made.
#![allow(clippy::print_stdout)] // what was found is what the test is for

use crate::process_transports;
use crate::support::processes::{Child, Job, told};
use crate::support::{Random, seed};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use ubccl::{Communicator, Config, Result};

/// Kills, over all transports.
const TRIALS: u64 = 40;
/// Longer than the watchdog: a start that ends at this deadline ends no test.
const NEVER: Duration = Duration::from_secs(3600);

/// What a rank is doing, as far as it goes round.
const JOINING: u64 = 0;
const SPLITTING: u64 = 1;
const USING: u64 = 2;

/// A rank that splits, uses its part and closes it, again and again until that fails; then it looks at what is left.
pub(crate) fn splitter(child: &Child) {
    child.publish(JOINING);
    let comm = Communicator::init(Config { start_timeout: NEVER, ..child.config() }).expect("all ranks come");
    let kept = comm.duplicate().expect("a duplicate");
    // Nobody is killed before all have it. Who is slow here may be told of the kill here.
    let _met = kept.barrier();
    let mut random = Random(child.number("seed")); // alike on all ranks
    let mut colours = || (0..child.ranks).map(|_| random.below(3) as u32).collect::<Vec<_>>();
    let error = loop {
        if let Err(error) = round(child, &comm, &colours()) {
            break error;
        }
    };
    let parent = end_of(&comm);
    let kept = end_of(&kept);
    child.say(&json!({ "error": told(&error), "parent": parent, "kept": kept }));
}

/// The error of a communicator that is or will be poisoned.
fn end_of(comm: &Communicator) -> Value {
    told(&(0..).find_map(|_| comm.barrier().err()).expect("it goes on until an error"))
}

fn round(child: &Child, comm: &Communicator, colours: &[u32]) -> Result<()> {
    child.publish(SPLITTING);
    let part = comm.split(Some(colours[child.rank as usize]), 0)?.expect("it has a colour");
    child.publish(USING);
    let mut sum = vec![0_i32; 5000];
    part.all_reduce(&vec![1_i32; 5000], &mut sum, ubccl::ReduceOp::Sum)?;
    assert_eq!(sum, vec![part.ranks() as i32; 5000]);
    part.close()
}

#[test]
fn a_rank_killed_while_splitting_ends_every_communicator_it_is_in_with_its_name() {
    let mut random = Random(seed("killed while splitting"));
    let mut victims = BTreeMap::new();
    for number in 0..TRIALS {
        let transports = process_transports();
        let transport = transports[number as usize % transports.len()];
        let ranks = 2 + random.below(3) as u32;
        let victim = random.below(u64::from(ranks)) as u32;
        let settings = json!({ "transport": transport, "seed": random.next() >> 1 });
        let mut job = Job::start("splitter", ranks, &settings);
        let at = if random.below(3) == 0 { USING } else { SPLITTING };
        job.watch(victim, |word| word == at);
        spin(Duration::from_micros(random.below(4000)));
        job.kill(victim);
        *victims.entry((transport, job.word(victim))).or_insert(0) += 1;
        for rank in (0..ranks).filter(|&rank| rank != victim) {
            let said = job.hear(rank);
            check_errors(&said, victim, job.pid(victim));
        }
        job.finish();
    }
    println!("killed while splitting: the victim was {victims:?} (1 splits, 2 uses its part)");
}

/// A part may number the victim otherwise, or have lost a rank that gave up because of it; the communicators that the
/// victim was in know better.
fn check_errors(said: &Value, victim: u32, pid: u32) {
    for comm in ["parent", "kept"] {
        let cause = &said[comm]["cause"];
        let found = json!([cause["kind"], cause["rank"], cause["pid"]]);
        assert_eq!(found, json!(["remote rank failed", victim, pid]), "{comm}: {said}");
    }
    assert!(!said["error"]["cause"].is_null(), "an end without a cause: {said}");
}

fn spin(length: Duration) {
    let until = Instant::now() + length;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// Ranks 0 and 1 split; rank 2 comes to it only by its death.
pub(crate) fn starter(child: &Child) {
    let comm = Communicator::init(Config { start_timeout: NEVER, ..child.config() }).expect("all ranks come");
    if child.rank == 2 {
        child.publish(SPLITTING);
        loop {
            std::thread::park();
        }
    }
    child.publish(SPLITTING);
    let error = comm.split(Some(0), 0).expect_err("rank 2 does not come");
    child.say(&told(&error));
}

#[test]
fn a_rank_that_dies_before_it_comes_to_a_split_is_the_cause() {
    for transport in process_transports() {
        let mut job = Job::start("starter", 3, &json!({ "transport": transport }));
        (0..3).for_each(|rank| {
            job.watch(rank, |word| word == SPLITTING);
        });
        job.kill(2);
        for rank in 0..2 {
            let error = job.hear(rank);
            assert_eq!((&error["cause"]["rank"], &error["cause"]["pid"]), (&json!(2), &json!(job.pid(2))));
        }
        job.finish();
    }
}
