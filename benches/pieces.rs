//! The pieces of an operation, each beside the least that it can cost on this machine.
//!
//! ```text
//! cargo bench -p ubccl --bench pieces                 # line, tiny, hop, look-up, executor
//! cargo bench -p ubccl-core --bench kernels           # sums and copies by type, against a plain copy
//! ```
//! | piece | its floor |
//! |---|---|
//! | `tiny`: an 8-byte all-reduce, a barrier, an 8-byte message one way | `line`: a cache line from one CPU to the other |
//! | `hop`: a message of a slot or so one way | `line` and two `copy`s |
//! | `alone/prepared`: start to end of a bound plan with one step on one rank: the executor | `copy` of 8 bytes |
//! | `alone/all_reduce`: the same by a call, which is checked and looked up first | `alone/prepared` |
//! | `parts/…`: look-up and post of an 8-byte all-reduce of two ranks, by the library's own stopwatch | `clock` |
//! | `plan/cold`: making a plan that is in no cache | – |
//!
//! The two ranks are threads on a CPU each. Both CPUs may be near or far (README, Numbers): compare with `line` of the
//! same run.
#![allow(missing_docs)] // criterion's macro makes an undocumented function

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use ubccl::{Collective, Communicator, Config, DataType, Planner, ReduceOp, Rendezvous};

/// Binds the calling thread, if there are so many CPUs.
fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    let _ = sched_setaffinity(None, &set);
}

#[repr(align(128))]
struct Line(AtomicU64);

/// Sends a word to and fro; the time of one way.
fn line(rounds: u64) -> Duration {
    let lines = [Line(AtomicU64::new(0)), Line(AtomicU64::new(0))];
    let wait = |line: &Line, value: u64| {
        while line.0.load(Ordering::Acquire) < value {
            spin_loop();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            for round in 1..=rounds + 1 {
                wait(&lines[0], round);
                lines[1].0.store(round, Ordering::Release);
            }
        });
        let mut begin = Instant::now();
        for round in 1..=rounds + 1 {
            lines[0].0.store(round, Ordering::Release);
            wait(&lines[1], round);
            if round == 1 {
                begin = Instant::now(); // the thread is there
            }
        }
        begin.elapsed() / 2
    })
}

/// What two ranks do together.
#[derive(Clone, Copy, Debug)]
enum Task {
    AllReduce { floats: usize },
    Barrier,
    PingPong { floats: usize },
}

/// A rank's share of a task; the time of all rounds.
fn perform(comm: &Communicator, task: Task, rounds: u64) -> Duration {
    let floats = match task {
        Task::AllReduce { floats } | Task::PingPong { floats } => floats,
        Task::Barrier => 0,
    };
    let (send, mut recv) = (vec![1.0_f32; floats], vec![0.0_f32; floats]);
    comm.barrier().expect("both are there");
    let begin = Instant::now();
    for _ in 0..rounds {
        match task {
            Task::AllReduce { .. } => comm.all_reduce(&send, &mut recv, ReduceOp::Sum),
            Task::Barrier => comm.barrier(),
            Task::PingPong { .. } if comm.rank() == 0 => {
                comm.send(&send, 1).and_then(|()| comm.receive(&mut recv, 1))
            }
            Task::PingPong { .. } => comm.receive(&mut recv, 0).and_then(|()| comm.send(&send, 0)),
        }
        .expect("both are there");
    }
    let took = begin.elapsed();
    let expected = if matches!(task, Task::AllReduce { .. }) { 2.0 } else { 1.0 };
    assert!(recv.iter().all(|&value| value == expected), "{task:?} gave something else");
    took
}

/// Rank 0 here, and rank 1 on a thread of its own that does what it is told.
struct Pair {
    comm: Communicator,
    orders: Option<Sender<(Task, u64)>>,
    other: Option<JoinHandle<()>>,
}

impl Pair {
    fn start(transport: &'static str) -> Self {
        let rendezvous = Rendezvous::create().expect("a rendezvous on loopback");
        let text = rendezvous.text();
        let config = move |rank, rendezvous| Config {
            rendezvous: Some(rendezvous),
            rank,
            ranks: 2,
            transport: transport.into(),
            ..Config::default()
        };
        let (orders, told) = channel::<(Task, u64)>();
        let other = std::thread::spawn(move || {
            pin(1);
            let theirs = text.parse().expect("its own text parses");
            let comm = Communicator::init(config(1, theirs)).expect("both come");
            for (task, rounds) in told {
                perform(&comm, task, rounds);
            }
        });
        let comm = Communicator::init(config(0, rendezvous)).expect("both come");
        Pair { comm, orders: Some(orders), other: Some(other) }
    }

    fn run(&self, task: Task, rounds: u64) -> Duration {
        let orders = self.orders.as_ref().expect("it is not dropped");
        orders.send((task, rounds)).expect("the other is there");
        perform(&self.comm, task, rounds)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.orders = None; // the other's loop ends
        if let Some(other) = self.other.take() {
            other.join().expect("the other did not fail");
        }
    }
}

fn floors(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("floor");
    group.bench_function("line", |bencher| bencher.iter_custom(line));
    group.bench_function("clock", |bencher| bencher.iter(Instant::now));
    for floats in [2_usize, 4 << 10, 64 << 10] {
        let (from, mut to) = (vec![1.0_f32; floats], vec![0.0_f32; floats]);
        group.bench_function(BenchmarkId::new("copy", 4 * floats), |bencher| {
            bencher.iter(|| black_box(&mut to[..]).copy_from_slice(black_box(&from)));
        });
    }
    group.finish();
}

fn messages(criterion: &mut Criterion) {
    for transport in ["shm", "threads"] {
        let pair = Pair::start(transport);
        let mut group = criterion.benchmark_group(format!("tiny/{transport}"));
        let cases = [
            ("all_reduce", Task::AllReduce { floats: 2 }, 1),
            ("barrier", Task::Barrier, 1),
            ("message", Task::PingPong { floats: 2 }, 2),
        ];
        for (name, task, ways) in cases {
            group.bench_function(name, |bencher| bencher.iter_custom(|rounds| pair.run(task, rounds) / ways));
        }
        group.finish();
        let mut group = criterion.benchmark_group(format!("hop/{transport}"));
        for floats in [4 << 10, 64 << 10] {
            let task = Task::PingPong { floats };
            group.bench_function(BenchmarkId::from_parameter(4 * floats), |bencher| {
                bencher.iter_custom(|rounds| pair.run(task, rounds) / 2);
            });
        }
        group.finish();
    }
}

/// Look-up and post of a warm 8-byte all-reduce, as the library's stopwatch sees them: each has a clock read in it.
fn parts(criterion: &mut Criterion) {
    let pair = Pair::start("shm");
    let mut group = criterion.benchmark_group("parts");
    let of = |rounds: u64, part: fn(&ubccl::Breakdown) -> Duration| {
        pair.comm.start_breakdown();
        pair.run(Task::AllReduce { floats: 2 }, rounds);
        let measured = pair.comm.stop_breakdown().expect("it was started");
        // The barrier before is one call more.
        part(&measured).mul_f64(rounds as f64 / measured.calls.max(1) as f64)
    };
    group
        .bench_function("look_up", |bencher| bencher.iter_custom(|rounds| of(rounds, |parts| parts.look_up)));
    group.bench_function("post", |bencher| bencher.iter_custom(|rounds| of(rounds, |parts| parts.post)));
    group.finish();
}

/// One rank: no messages, so that what is left is the library's own.
fn alone(criterion: &mut Criterion) {
    let comm = Communicator::init(Config::default()).expect("one rank needs nobody");
    let mut group = criterion.benchmark_group("alone");
    let call = Collective::all_reduce(2, DataType::F32, ReduceOp::Sum);
    let mut prepared = comm.prepare(&call, vec![1.0_f32; 2], vec![0.0_f32; 2]).expect("it fits");
    group.bench_function("prepared", |bencher| {
        bencher.iter(|| prepared.start().and_then(|()| prepared.wait()).expect("it works"));
    });
    let (send, mut recv) = ([1.0_f32; 2], [0.0_f32; 2]);
    group.bench_function("all_reduce", |bencher| {
        bencher.iter(|| comm.all_reduce(black_box(&send), &mut recv, ReduceOp::Sum).expect("it works"));
    });
    group.finish();
}

fn plans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    let call = Collective::all_reduce(1 << 20, DataType::F32, ReduceOp::Sum);
    for ranks in [2, 8, 64] {
        let planner = Planner::new(&Config { ranks, ..Config::default() }).expect("the default is known");
        group.bench_function(BenchmarkId::new("cold", ranks), |bencher| {
            bencher.iter(|| planner.plan(&call, 0, false).expect("there is one"));
        });
    }
    group.finish();
}

fn all(criterion: &mut Criterion) {
    pin(0);
    floors(criterion);
    messages(criterion);
    parts(criterion);
    alone(criterion);
    plans(criterion);
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = all
}
criterion_main!(benches);
