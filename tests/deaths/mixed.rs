//! Two processes with two ranks each, a thread for each rank: ranks 0 and 1 in one, 2 and 3 in the other.
#![allow(clippy::print_stdout)] // seeds, and how long it took are what the test is for

use crate::real_transports;
use crate::support::oracle::{Call, exact_data, outputs, sizes};
use crate::support::processes::{Child, Job, now_ns, told};
use crate::support::ranks::collective;
use crate::support::{Random, seed};
use serde_json::{Value, json};
use std::sync::{Arc, Barrier};
use ubccl::{Communicator, Config, DataType, ErrorKind, ReduceOp, Rendezvous};

/// Ranks of each process.
const THREADS: u32 = 2;
const RANKS: u32 = 2 * THREADS;
/// Kills on each transport.
const TRIALS: u64 = 12;

/// The configurations of this process's ranks.
fn configs(child: &Child) -> Vec<Config> {
    let mut first = child.config();
    let text = first.rendezvous.as_ref().expect("it is taken once").text();
    let config = |thread: u32| Config {
        rendezvous: first.rendezvous.take().or_else(|| text.parse::<Rendezvous>().ok()),
        rank: child.rank * THREADS + thread,
        ranks: RANKS,
        ..child.config()
    };
    (0..THREADS).map(config).collect()
}

/// Runs `body` on a thread for each rank of this process and gives the results in rank order.
fn on_ranks<T: Send>(child: &Child, body: impl Fn(Config) -> T + Sync) -> Vec<T> {
    let body = &body;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            configs(child).into_iter().map(|config| scope.spawn(move || body(config))).collect();
        threads.into_iter().map(|thread| thread.join().expect("its message is above")).collect()
    })
}

fn calls() -> Vec<Call> {
    let mut calls = vec![Call::AllGather, Call::Barrier];
    for op in [ReduceOp::Sum, ReduceOp::Max] {
        calls.extend([Call::AllReduce(op), Call::ReduceScatter(op)]);
    }
    calls.extend((0..RANKS as usize).map(|root| Call::Broadcast { root }));
    calls.extend((1..RANKS as usize).map(Call::Shift));
    calls
}

/// Every call at several sizes, checked against the oracle.
pub(crate) fn collectives(child: &Child) {
    let start = child.number("seed");
    on_ranks(child, |config| {
        let comm = Communicator::init(config).expect("all ranks come");
        let (rank, mut random) = (comm.rank() as usize, Random(start)); // the same on every rank
        for call in calls() {
            for dtype in [DataType::F32, DataType::U8] {
                for count in [0, 1, 33, 4000, 70_001] {
                    let input_of =
                        |of| exact_data(call, dtype, sizes(call, RANKS as usize, of, count).0, &mut random);
                    let inputs: Vec<Vec<u8>> = (0..RANKS as usize).map(input_of).collect();
                    let expected = outputs(call, dtype, &inputs, count);
                    let spec = collective(call, dtype, count, RANKS, rank as u32);
                    let mut output = vec![0xEE; expected[rank].len()];
                    comm.run(&spec, &inputs[rank], &mut output).expect("nothing is wrong");
                    assert!(output == expected[rank], "rank {rank}: wrong bytes of {spec}");
                }
            }
        }
        comm.close().expect("nothing is wrong");
    });
    child.say(&json!("right"));
}

#[test]
fn ranks_may_be_threads_of_several_processes() {
    for transport in real_transports() {
        let settings = json!({ "transport": transport, "seed": seed("mixed") });
        let mut job = Job::start("mixed collectives", RANKS / THREADS, &settings);
        assert_eq!((job.hear(0), job.hear(1)), (json!("right"), json!("right")), "{transport}");
        assert!(job.finish().iter().all(|status| status.success()), "{transport}");
    }
}

/// Sums until it fails; each rank says how.
pub(crate) fn until_the_end(child: &Child) {
    let count = child.number("count") as usize;
    let met = Arc::new(Barrier::new(THREADS as usize));
    let errors = on_ranks(child, |config| {
        let comm = Communicator::init(config).expect("all ranks come");
        met.wait();
        let mut data = vec![1_f32; count];
        for round in 1.. {
            if let Err(error) = comm.all_reduce_in_place(&mut data, ReduceOp::Max) {
                let at = now_ns();
                let again = comm.barrier().expect_err("a poisoned communicator stays so");
                assert_eq!(again.cause(), error.cause());
                return json!({ "at": at, "error": told(&error) });
            }
            if comm.rank().is_multiple_of(THREADS) {
                child.publish(round);
            }
        }
        unreachable!("it goes on until an error")
    });
    child.say(&json!(errors));
}

/// Which ranks a process has.
fn ranks_of(process: u32) -> [u32; THREADS as usize] {
    [process * THREADS, process * THREADS + 1]
}

#[test]
fn a_killed_process_takes_its_ranks_and_is_one_cause_to_all_threads_of_the_other() {
    let mut random = Random(seed("mixed kill"));
    for transport in real_transports() {
        let mut detection_ns = Vec::new();
        for number in 0..TRIALS {
            let victim = random.below(2) as u32;
            let count = if number.is_multiple_of(3) { 2 << 20 } else { 1 + random.below(50_000) };
            let settings = json!({ "transport": transport, "count": count });
            let mut job = Job::start("mixed kill", RANKS / THREADS, &settings);
            let rounds = 3 + random.below(20);
            job.watch(victim, |word| word >= rounds);
            let killed_ns = job.kill(victim);
            let said = job.hear(1 - victim);
            let errors = said.as_array().expect("one for each rank");
            assert_eq!(errors.len(), THREADS as usize);
            for error in errors {
                check_cause(error, (victim, job.pid(victim)), &errors[0]);
                let at = error["at"].as_u64().expect("a number");
                detection_ns.push(at.saturating_sub(killed_ns));
            }
            let statuses = job.finish();
            assert!(statuses[1 - victim as usize].success() && !statuses[victim as usize].success());
        }
        detection_ns.sort_unstable();
        let longest = detection_ns.last().copied().unwrap_or_default() as f64 / 1e6;
        let median = detection_ns[detection_ns.len() / 2] as f64 / 1e6;
        println!("mixed kill, {transport}: detection p50 {median:.2} ms, longest {longest:.2} ms");
    }
}

/// The cause names a rank of the dead process and, in words, the others.
fn check_cause(said: &Value, (victim, pid): (u32, u32), first: &Value) {
    let cause = &said["error"]["cause"];
    assert_eq!(cause, &first["error"]["cause"], "threads disagree");
    assert_eq!(cause["kind"], ErrorKind::Remote.name(), "{said}");
    assert_eq!(cause["pid"], pid, "{said}");
    let [named, other] = ranks_of(victim);
    assert_eq!(cause["rank"], named, "{said}");
    let message = cause["message"].as_str().expect("a text");
    assert_eq!(message, format!("its process died, and with it rank {other}"));
}

/// Tries to start, and tells why not.
pub(crate) fn refused(child: &Child) {
    let errors = on_ranks(child, |config| {
        let error = Communicator::init(config).expect_err("the ranks are in two processes");
        told(&error)
    });
    child.say(&json!(errors));
}

#[test]
fn transports_of_one_process_refuse_ranks_of_another_by_name() {
    let is_meant =
        |t: &&ubccl::TransportDescriptor| t.clock == ubccl::Clock::Real && t.reach == ubccl::Reach::Process;
    for transport in ubccl::transports().filter(is_meant) {
        let mut job = Job::start("mixed refusal", 2, &json!({ "transport": transport.name }));
        let said: Vec<Value> =
            (0..2).flat_map(|process| job.hear(process).as_array().cloned()).flatten().collect();
        assert_eq!(said.len(), RANKS as usize);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let stranger = |rank: u32| format!("rank {rank} (pid {} on host {host})", job.pid(1));
        for error in &said {
            let text = error["text"].as_str().expect("a text");
            assert_eq!(error["kind"], ErrorKind::Start.name(), "{error}");
            for part in [&stranger(2), &stranger(3), transport.name, "use shm"] {
                assert!(text.contains(part), "'{part}' is not in: {text}");
            }
        }
        assert!(job.finish().iter().all(|status| status.success()));
    }
}
