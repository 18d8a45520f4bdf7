//! Ranks that do not call: warnings, deadlines, and waiting that runs out.

use crate::support::ranks::start_threads;
use crate::{real_transports, setup};
use parking_lot::Mutex;
use std::io::Write;
use std::sync::mpsc::channel;
use std::sync::{Arc, Once};
use std::time::Duration;
use ubccl::{Collective, Communicator, Config, DataType, Error, ErrorKind, ReduceOp};

const SOON: Duration = Duration::from_millis(200);

fn impatient(config: Config) -> Config {
    Config { operation_timeout: SOON, ..config }
}

/// Waits, without calling, until somebody has poisoned the communicator.
fn wait_for_poison(comm: &Communicator) -> Error {
    loop {
        if let Some(error) = comm.async_error() {
            return error;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_rank_that_never_calls_is_named_when_the_deadline_passes() {
    let calls = [
        Collective::all_reduce(100_000, DataType::F32, ReduceOp::Sum),
        Collective::all_reduce(1, DataType::F32, ReduceOp::Sum),
        Collective::all_gather(10, DataType::F32),
        Collective::reduce_scatter(10, DataType::F32, ReduceOp::Max),
        Collective::barrier(),
    ];
    for transport in real_transports() {
        for (call, absent) in calls.into_iter().zip([0, 1, 2, 0, 1]) {
            let errors = start_threads(&setup(transport, 3), impatient, move |rank, comm| {
                let comm = comm.expect("all ranks come");
                comm.barrier().expect("all ranks call");
                if rank == absent {
                    return wait_for_poison(&comm);
                }
                let bytes = |elements: u64| vec![0; elements as usize * call.dtype().size()];
                let (input, mut output) =
                    (bytes(call.input_elements(3, rank)), bytes(call.output_elements(3, rank)));
                let error = comm.run(&call, &input, &mut output).expect_err("one rank does not call");
                let again = comm.barrier().expect_err("it poisons");
                assert_eq!(again.cause(), error.cause());
                error
            });
            for error in &errors {
                let cause = error.cause().expect("it poisons");
                assert_eq!(Some(cause), errors[0].cause(), "one cause for all");
                assert_eq!((cause.kind, cause.culprit.rank), (ErrorKind::Timeout, absent), "{error}");
                let told = call.signature(0).describe();
                assert!(
                    cause.message.contains(&told) && cause.message.contains("its operation 2"),
                    "{error}"
                );
                assert_eq!(cause.sequence, 1, "the absent rank's last operation: {error}");
            }
        }
    }
}

#[test]
fn waiting_that_runs_out_harms_nothing() {
    for transport in real_transports() {
        let (late, is_late) = channel();
        let is_late = Arc::new(Mutex::new(is_late));
        let sums = start_threads(
            &setup(transport, 3),
            |config| config,
            move |rank, comm| {
                let comm = comm.expect("all ranks come");
                if rank == 2 {
                    for _ in 0..2 {
                        is_late.lock().recv().expect("the others say when they gave up waiting");
                    }
                }
                let mut work = comm
                    .all_reduce_async(vec![rank as i32 + 1; 5000], vec![0; 5000], ReduceOp::Sum)
                    .expect("issued");
                if rank != 2 {
                    assert!(!work.test().expect("nothing is wrong"), "rank 2 has not called");
                    assert!(!work.wait_timeout(Duration::from_millis(20)).expect("nothing is wrong"));
                    assert!(!work.wait_timeout(Duration::ZERO).expect("nothing is wrong"));
                    late.send(()).expect("rank 2 listens");
                }
                let (_, sum) = work.wait().expect("all ranks have called");
                assert!(comm.async_error().is_none());
                comm.close().expect("nothing is wrong");
                sum
            },
        );
        assert!(sums.iter().all(|sum| sum.iter().all(|&x| x == 6)));
    }
}

/// Everything that is traced in this process, as text.
static TRACED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Traced;

impl Write for Traced {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        TRACED.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn trace() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing_subscriber::filter::LevelFilter::WARN);
        subscriber.with_writer(|| Traced).init();
    });
}

/// The warnings in which all of these stand.
fn warnings(parts: &[&str]) -> usize {
    let traced = String::from_utf8(TRACED.lock().clone()).expect("text");
    traced
        .lines()
        .filter(|line| line.contains("WARN") && parts.iter().all(|part| line.contains(part)))
        .count()
}

/// A count for each use, by which its warnings are known.
fn warn_about(transport: &'static str, count: usize, calls: fn(&Communicator, usize) -> Result<(), Error>) {
    trace();
    let configure = |config| Config { warn_after: Duration::from_millis(50), ..config };
    let told = format!("all_reduce count={count} i32");
    let about = told.clone();
    start_threads(&setup(transport, 3), configure, move |rank, comm| {
        let comm = comm.expect("all ranks come");
        if rank == 1 {
            let of = |rank: &str| warnings(&[&about, rank, "rank 1, which has not come to it"]);
            while of("rank=0") + of("rank=2") < 2 {
                std::thread::yield_now();
            }
            // Time for more of them, if there were more.
            std::thread::sleep(Duration::from_millis(100));
        }
        calls(&comm, count).expect("a warning is no error");
        comm.barrier().expect("nothing is wrong");
        comm.close().expect("nothing is wrong");
    });
    for rank in ["rank=0", "rank=2"] {
        assert_eq!(warnings(&[&told, rank]), 1, "{transport}: one warning on {rank} for one operation");
    }
    assert_eq!(warnings(&[&told, "rank=1"]), 0, "nobody kept rank 1 waiting");
}

#[test]
fn a_waiting_rank_says_once_for_whom_it_waits() {
    for (transport, count) in real_transports().into_iter().zip(4001..) {
        warn_about(transport, count, |comm, count| {
            comm.all_reduce_in_place(&mut vec![1_i32; count], ReduceOp::Sum)
        });
    }
}

#[test]
fn an_operation_nobody_waits_for_says_once_for_whom_it_waits() {
    for (transport, count) in real_transports().into_iter().zip(5001..) {
        warn_about(transport, count, |comm, count| {
            let work = comm.all_reduce_in_place_async(vec![1_i32; count], ReduceOp::Sum)?;
            while !has_warned(comm, count) {
                std::thread::yield_now();
            }
            work.wait().map(|_| ())
        });
    }
}

/// Whether the warning about this call has come, on a rank that is to give one.
fn has_warned(comm: &Communicator, count: usize) -> bool {
    comm.rank() == 1 || warnings(&[&format!("count={count} "), &format!("rank={}", comm.rank())]) > 0
}
