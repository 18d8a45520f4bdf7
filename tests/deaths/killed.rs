//! Ranks killed at random times, with SIGKILL.
#![allow(clippy::print_stdout)] // what was found is what the test is for

use crate::support::oracle::{Call, sizes};
use crate::support::processes::{Child, Job, now_ns, told};
use crate::support::ranks::collective;
use crate::support::{Random, seed};
use crate::{real_transports, traces};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use ubccl::{Collective, Communicator, Config, DataType, ReduceOp, Result};

/// Kills, over all transports.
const TRIALS: usize = 200;
/// Kills of ranks that are only starting.
const STARTING_TRIALS: usize = 20;
/// When a rank that does not come is given up.
const LATE: Duration = Duration::from_secs(2);
/// "Large" is at least this.
const LARGE_BYTES: u64 = 16 << 20;
/// Operations before the parent is told how long one takes.
const WARM: u64 = 3;

/// What a rank is doing: the number of its last operation from bit 2 on, and one of these.
const STARTING: u64 = 0;
const IDLE: u64 = 1;
const INSIDE: u64 = 2;

/// One trial.
#[derive(Clone, Debug)]
struct Trial {
    transport: &'static str,
    ranks: u32,
    victim: u32,
    call: Call,
    count: u64,
    in_place: bool,
    is_large: bool,
}

const DTYPE: DataType = DataType::F32;

impl Trial {
    fn random(number: usize, random: &mut Random) -> Trial {
        let transports = real_transports();
        let ranks = 2 + random.below(4) as u32;
        let is_large = number.is_multiple_of(3);
        let root = random.below(u64::from(ranks)) as usize;
        let mut calls = vec![
            Call::AllReduce(ReduceOp::Sum),
            Call::AllGather,
            Call::ReduceScatter(ReduceOp::Max),
            Call::Broadcast { root },
            Call::Shift(1 + random.below(u64::from(ranks) - 1) as usize),
            Call::Reduce { op: ReduceOp::Sum, root },
            Call::Gather { root },
            Call::Scatter { root },
            Call::AllToAll,
        ];
        if !is_large {
            // A barrier has no bytes to be large with, and tables have many lengths.
            let seed = random.next() >> 12; // a whole number in JSON
            calls.extend([Call::Barrier, Call::GatherV { root, seed }, Call::ScatterV { root, seed }]);
            calls.extend([Call::AllGatherV { seed }, Call::AllToAllV { seed: seed & !1 }]);
            calls.push(Call::ReduceScatterV { op: ReduceOp::Max, seed });
        }
        let call = calls[random.below(calls.len() as u64) as usize];
        let is_cut = matches!(
            call,
            Call::AllGather
                | Call::ReduceScatter(_)
                | Call::Gather { .. }
                | Call::Scatter { .. }
                | Call::AllToAll
        );
        let parts = if is_cut { u64::from(ranks) } else { 1 };
        let small = [1, 2, 700, 5_000, 60_000, 300_000][random.below(6) as usize];
        let elements = if is_large { LARGE_BYTES / 4 + random.below(1 << 18) } else { small };
        Trial {
            // Not `number`, which decides what is large.
            transport: transports[random.below(transports.len() as u64) as usize],
            ranks,
            victim: random.below(u64::from(ranks)) as u32,
            call,
            count: elements.div_ceil(parts),
            in_place: random.below(2) == 0,
            is_large,
        }
    }

    fn settings(&self) -> Value {
        let (name, parameter, seed) = match self.call {
            Call::AllReduce(_) => ("all_reduce", 0, 0),
            Call::AllGather => ("all_gather", 0, 0),
            Call::ReduceScatter(_) => ("reduce_scatter", 0, 0),
            Call::Broadcast { root } => ("broadcast", root, 0),
            Call::Barrier => ("barrier", 0, 0),
            Call::Shift(shift) => ("shift", shift, 0),
            Call::Reduce { root, .. } => ("reduce", root, 0),
            Call::Gather { root } => ("gather", root, 0),
            Call::Scatter { root } => ("scatter", root, 0),
            Call::AllToAll => ("all_to_all", 0, 0),
            Call::GatherV { root, seed } => ("gather_v", root, seed),
            Call::ScatterV { root, seed } => ("scatter_v", root, seed),
            Call::AllGatherV { seed } => ("all_gather_v", 0, seed),
            Call::ReduceScatterV { seed, .. } => ("reduce_scatter_v", 0, seed),
            Call::AllToAllV { seed } => ("all_to_all_v", 0, seed),
        };
        json!({
            "transport": self.transport, "call": name, "parameter": parameter, "seed": seed,
            "count": self.count, "in_place": self.in_place,
        })
    }

    /// The victim's call.
    fn collective(&self) -> Collective<'static> {
        collective(self.call, DTYPE, self.count as usize, self.ranks, self.victim)
    }

    /// What a cause may say of the victim's operation and its sequence number, if `word` is what it published last.
    fn plausible(&self, word: u64) -> Vec<(String, u64)> {
        let is_numbered = !matches!(self.call, Call::Shift(_)); // point to point stands outside the sequence
        let number = |of: u64| if is_numbered { of } else { 0 };
        let last = word >> 2;
        let text = self.collective().signature(0).describe();
        match word & 3 {
            IDLE => vec![(String::new(), number(last))],
            // It said so before it called: it may not have begun, be in it, or just be done.
            INSIDE => {
                vec![(String::new(), number(last - 1)), (text, number(last)), (String::new(), number(last))]
            }
            _ => panic!("the victim was killed after it had started"),
        }
    }
}

/// The call that a rank was told to repeat.
fn call_of(child: &Child) -> Call {
    let parameter = child.number("parameter") as usize;
    let seed = child.number("seed");
    match child.text("call") {
        "reduce" => Call::Reduce { op: ReduceOp::Sum, root: parameter },
        "gather" => Call::Gather { root: parameter },
        "scatter" => Call::Scatter { root: parameter },
        "all_to_all" => Call::AllToAll,
        "gather_v" => Call::GatherV { root: parameter, seed },
        "scatter_v" => Call::ScatterV { root: parameter, seed },
        "all_gather_v" => Call::AllGatherV { seed },
        "reduce_scatter_v" => Call::ReduceScatterV { op: ReduceOp::Max, seed },
        "all_to_all_v" => Call::AllToAllV { seed },
        "all_reduce" => Call::AllReduce(ReduceOp::Sum),
        "all_gather" => Call::AllGather,
        "reduce_scatter" => Call::ReduceScatter(ReduceOp::Max),
        "broadcast" => Call::Broadcast { root: parameter },
        "barrier" => Call::Barrier,
        "shift" => Call::Shift(parameter),
        other => panic!("no such call: {other}"),
    }
}

/// A rank's call and its memory.
struct Work {
    call: Collective<'static>,
    input: Vec<u8>,
    output: Vec<u8>,
    in_place: bool,
}

impl Work {
    fn of(child: &Child) -> Work {
        let (ranks, count) = (child.ranks, child.number("count") as usize);
        let call = collective(call_of(child), DTYPE, count, ranks, child.rank);
        let (input, output) = sizes(call_of(child), ranks as usize, child.rank as usize, count);
        let size = DTYPE.size();
        let in_place = child.settings["in_place"] == true;
        let joint = call.in_place_elements(ranks, child.rank) as usize;
        let (input, output) = if in_place { (0, joint) } else { (input, output) };
        Work { call, input: vec![1; input * size], output: vec![0; output * size], in_place }
    }

    fn run(&mut self, comm: &Communicator) -> Result<()> {
        match self.in_place {
            true => comm.run_in_place(&self.call, &mut self.output),
            false => comm.run(&self.call, &self.input, &mut self.output),
        }
    }
}

/// A rank that repeats a call, with short rests, until it fails; tells the error, and that it stays the same.
pub(crate) fn busy(child: &Child) {
    let mut work = Work::of(child);
    let comm = child.join().expect("all ranks come");
    let mut random = Random(u64::from(child.rank) + 1);
    let mut began = Instant::now();
    child.publish(IDLE);
    child.say(&traces::held());
    for number in 1.. {
        child.publish(number << 2 | INSIDE);
        let result = work.run(&comm);
        if let Err(error) = result {
            let at = now_ns();
            return tell_the_end(child, comm, work, (at, &error));
        }
        child.publish(number << 2 | IDLE);
        if number == 1 {
            began = Instant::now(); // the first one warms up
        }
        let length = began.elapsed() / number.max(2) as u32;
        if number == WARM {
            child.say(&json!({ "length_ns": length.as_nanos() as u64 }));
        }
        spin(length.mul_f64(random.below(100) as f64 / 400.0));
    }
}

fn tell_the_end(child: &Child, comm: Communicator, mut work: Work, (at, error): (u64, &ubccl::Error)) {
    let again = work.run(&comm).expect_err("a poisoned communicator stays so");
    let known = comm.async_error().expect("a poisoned communicator says why");
    let closed = comm.close().expect_err("a poisoned communicator has no good end");
    for other in [&again, &known, &closed] {
        assert_eq!(other.cause(), error.cause(), "every later call tells the first cause");
    }
    child.say(&json!({ "at": at, "error": told(error) }));
}

fn spin(length: Duration) {
    let until = Instant::now() + length;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// What all trials found.
#[derive(Default)]
struct Findings {
    victims: BTreeMap<&'static str, usize>,
    kinds: BTreeMap<String, usize>,
    detection_ns: Vec<u64>,
}

impl Findings {
    fn print(&mut self, test: &str) {
        self.detection_ns.sort_unstable();
        let at = |part: f64| {
            self.detection_ns[((self.detection_ns.len() - 1) as f64 * part) as usize] as f64 / 1e6
        };
        println!("{test}: the victim was {:?}", self.victims);
        if !self.kinds.is_empty() {
            println!("{test}: kinds and transports {:?}", self.kinds);
        }
        println!(
            "{test}: detection by {} survivors: p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
            self.detection_ns.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

#[test]
fn a_killed_rank_is_the_same_cause_on_every_other_and_leaves_nothing() {
    let mut random = Random(seed("killed"));
    let mut findings = Findings::default();
    let before = traces::descriptors();
    for number in 0..TRIALS {
        let trial = Trial::random(number, &mut random);
        kill_one(&trial, &mut random, &mut findings);
    }
    assert_eq!(traces::descriptors(), before, "the parent has more descriptors than before");
    findings.print("killed");
    assert!(findings.victims["in a large transfer"] * 4 >= TRIALS, "a third of the trials is large");
}

fn kill_one(trial: &Trial, random: &mut Random, findings: &mut Findings) {
    let mut job = Job::start("busy", trial.ranks, &trial.settings());
    let held: Vec<Value> = (0..trial.ranks).map(|rank| job.hear(rank)).collect();
    let length_ns = job.hear(trial.victim)["length_ns"].as_u64().expect("a number");
    // Uniform over an operation and the rest after it, from the moment one begins.
    let begun = job.word(trial.victim) >> 2;
    job.watch(trial.victim, |word| word >> 2 > begun);
    spin(Duration::from_nanos(random.below(length_ns + length_ns / 4 + 1)));
    let killed_ns = job.kill(trial.victim);
    let word = job.word(trial.victim);

    let errors: Vec<Value> = survivors(trial).map(|rank| last_words(&mut job, rank)).collect();
    check_cause(trial, &job, word, &errors[0]["error"]["cause"]);
    for error in &errors {
        assert_eq!(error["error"], errors[0]["error"], "{trial:?}: survivors disagree");
        let at = error["at"].as_u64().expect("a number");
        findings.detection_ns.push(at.saturating_sub(killed_ns));
    }
    for (rank, status) in job.finish().iter().enumerate() {
        assert_eq!(
            status.success(),
            rank as u32 != trial.victim,
            "{trial:?}: rank {rank} ended with {status}"
        );
    }
    held.iter().for_each(traces::check_gone);
    let state = match word & 3 {
        IDLE => "between two operations",
        _ if trial.is_large => "in a large transfer",
        _ => "in a small operation",
    };
    *findings.victims.entry(state).or_default() += 1;
    *findings
        .kinds
        .entry(format!("{} {}", trial.transport, trial.collective().kind().name()))
        .or_default() += 1;
}

fn survivors(trial: &Trial) -> impl Iterator<Item = u32> + use<> {
    let victim = trial.victim;
    (0..trial.ranks).filter(move |&rank| rank != victim)
}

/// What a rank says of its error.
fn last_words(job: &mut Job, rank: u32) -> Value {
    loop {
        let said = job.hear(rank);
        if said.get("error").is_some() {
            return said;
        }
    }
}

/// Compares a cause with what the killer knows.
fn check_cause(trial: &Trial, job: &Job, word: u64, cause: &Value) {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let who = json!([cause["kind"], cause["rank"], cause["host"], cause["pid"]]);
    let expected = json!(["remote rank failed", trial.victim, host, job.pid(trial.victim)]);
    assert_eq!(who, expected, "{trial:?}: {cause}");
    let operation = cause["operation"].as_str().expect("a text").to_owned();
    let found = (operation, cause["sequence"].as_u64().expect("a number"));
    let plausible = trial.plausible(word);
    assert!(plausible.contains(&found), "{trial:?}: {found:?} is none of {plausible:?}");
}

/// A rank that only starts and then meets the others until it fails.
pub(crate) fn start(child: &Child) {
    child.publish(IDLE);
    let config = Config { start_timeout: LATE, ..child.config() };
    let error = match Communicator::init(config) {
        Err(error) => error,
        Ok(comm) => {
            child.publish(INSIDE);
            (0..).find_map(|_| comm.barrier().err()).expect("it goes on until an error")
        }
    };
    child.say(&json!({ "at": now_ns(), "error": told(&error) }));
}

#[test]
fn a_rank_killed_while_starting_fails_the_start_of_every_other_by_name() {
    let mut random = Random(seed("killed while starting"));
    let mut findings = Findings::default();
    let transports = real_transports();
    for number in 0..STARTING_TRIALS {
        let transport = transports[number % transports.len()];
        let ranks = 2 + random.below(3) as u32;
        let victim = random.below(u64::from(ranks)) as u32;
        let mut job = Job::start("start", ranks, &json!({ "transport": transport }));
        job.watch(victim, |word| word != STARTING);
        spin(Duration::from_micros(random.below(12_000)));
        let killed_ns = job.kill(victim);
        let state = if job.word(victim) == INSIDE { "started" } else { "starting" };
        *findings.victims.entry(state).or_default() += 1;
        for rank in (0..ranks).filter(|&rank| rank != victim) {
            let said = last_words(&mut job, rank);
            check_start(&said, victim, job.pid(victim));
            findings.detection_ns.push(said["at"].as_u64().expect("a number").saturating_sub(killed_ns));
        }
        job.finish();
    }
    findings.print("killed while starting");
}

fn check_start(said: &Value, victim: u32, pid: u32) {
    let (text, cause) = (said["error"]["text"].as_str().expect("a text"), &said["error"]["cause"]);
    let is_missed = text.contains("did not come") && text.contains(&victim.to_string());
    assert!(is_missed || text.contains(&format!("rank {victim} ")), "rank {victim} was killed: {said}");
    assert!(cause.is_null() || cause["pid"] == pid, "rank {victim} was killed, its pid was {pid}: {said}");
}
