//! What a communicator costs while nothing is asked of it: processor time of the whole process, service thread included.
//!
//! Processor time is not wall time: a busy machine does not make these tests fail, a thread that wakes does.

#[path = "support/mod.rs"]
mod support;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::time::Duration;
use support::processes::{Child, Job, play};
use ubccl::{Communicator, ReduceOp};

/// How long ranks do nothing.
const IDLE: Duration = Duration::from_secs(3);
/// What that may cost at most. A thread that woke every 10 ms would cost 3 to 10 ms.
const MOST_US: u64 = 1_000;
/// A rank that waits for others spins for a while (`Config::spin`, 1 ms), and looks at its deadlines.
const MOST_WAITING_US: u64 = 6_000;

/// Processor time of this process, in microseconds.
fn cpu_us() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// Every way of being driven once, so that all that could stay awake is there.
fn busy(comm: &Communicator) {
    let mut data = vec![1.0_f32; 100_000];
    comm.all_reduce_in_place(&mut data, ReduceOp::Sum).expect("nobody is lost");
    let work = comm.all_reduce_async(data, vec![0.0; 100_000], ReduceOp::Sum).expect("nobody is lost");
    std::thread::sleep(Duration::from_millis(20)); // the service thread takes it up meanwhile
    work.wait().expect("nobody is lost");
    comm.barrier().expect("nobody is lost");
}

/// Does nothing, and says what that cost.
fn idle(child: &Child) {
    let comm = child.join().expect("all ranks come");
    busy(&comm);
    let before = cpu_us();
    std::thread::sleep(IDLE);
    child.say(&json!({ "us": cpu_us() - before }));
    comm.barrier().expect("nobody is lost");
    comm.close().expect("nobody is lost");
}

/// Rank 0 lets the others wait for it, in a blocking call, which says what that cost.
fn waiting(child: &Child) {
    let comm = child.join().expect("all ranks come");
    busy(&comm);
    if child.rank == 0 {
        std::thread::sleep(IDLE);
    }
    let before = cpu_us();
    comm.barrier().expect("nobody is lost");
    child.say(&json!({ "us": cpu_us() - before }));
    comm.close().expect("nobody is lost");
}

/// Not a test by itself: the ranks of the others' jobs play their scenarios here.
#[test]
fn a_rank() {
    play(&[("idle", idle), ("waiting", waiting)]);
}

fn costs_us(scenario: &str, transport: &str) -> Vec<u64> {
    let mut job = Job::start(scenario, 3, &json!({ "transport": transport }));
    let of = |said: Value| said["us"].as_u64().expect("a rank says what it cost");
    let costs = (0..3).map(|rank| of(job.hear(rank))).collect();
    assert!(job.finish().iter().all(|status| status.success()));
    costs
}

/// The transports whose ranks may be processes.
fn real_transports() -> Vec<&'static str> {
    let fits =
        |t: &&ubccl::TransportDescriptor| t.clock == ubccl::Clock::Real && t.reach > ubccl::Reach::Process;
    ubccl::transports().filter(fits).map(|t| t.name).collect()
}

#[test]
fn an_idle_communicator_costs_next_to_nothing() {
    for transport in real_transports() {
        let costs = costs_us("idle", transport);
        println!("{transport}: {costs:?} us in {IDLE:?}");
        assert!(costs.iter().all(|&us| us <= MOST_US), "{transport}: {costs:?} us in {IDLE:?}");
    }
}

#[test]
fn a_rank_that_waits_in_a_call_sleeps() {
    for transport in real_transports() {
        let costs = costs_us("waiting", transport);
        println!("{transport}: {costs:?} us in {IDLE:?}");
        assert!(costs.iter().all(|&us| us <= MOST_WAITING_US), "{transport}: {costs:?} us in {IDLE:?}");
    }
}
