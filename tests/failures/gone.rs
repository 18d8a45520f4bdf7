//! What counts as the death of a rank that is a thread: a panic, a drop in the middle of an operation, a leak. What the
//! death of a process means is in `tests/deaths`.
#![allow(clippy::print_stdout)] // how long the others took to learn of it

use crate::support::ranks::{WATCHDOG, start_threads};
use crate::{real_transports, setup};
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ubccl::{Cause, Communicator, Config, Error, ErrorKind, ReduceOp, Work};

const RANKS: u32 = 4;
/// The rank that dies.
const VICTIM: u32 = 2;
/// Elements of an operation: small enough to be copied, a bite, many bites.
const COUNTS: [usize; 3] = [2, 50_000, 3 << 20];

/// An end that a rank comes to with an operation under way that needs the others.
type End = fn(Communicator, Work<Vec<f32>>);

/// All ranks call a few times, one comes to its end; what the others are told, which is the same for all.
fn end_one(transport: &'static str, count: usize, end: End) -> Cause {
    let ended = Arc::new(Mutex::new(None::<Instant>));
    let (when, told) = (ended.clone(), ended.clone());
    let causes = start_threads(
        &setup(transport, RANKS),
        |config| config,
        move |rank, comm| {
            let comm = comm.expect("all ranks come");
            let mut data = vec![1_f32; count];
            if rank != VICTIM {
                let error = until_an_error(&comm, &mut data);
                let late = told.lock().expect("nobody fails before the victim ends").elapsed();
                assert_eq!(comm.barrier().expect_err("it stays so").cause(), error.cause());
                return Some((cause(&error), late));
            }
            for _ in 0..3 {
                comm.all_reduce_in_place(&mut data, ReduceOp::Max).expect("all ranks call");
            }
            let work = comm.all_reduce_in_place_async(data, ReduceOp::Max).expect("issued");
            *when.lock() = Some(Instant::now());
            end(comm, work);
            None
        },
    );
    let causes: Vec<_> = causes.into_iter().flatten().collect();
    assert_eq!(causes.len() as u32, RANKS - 1);
    assert!(causes.iter().all(|(cause, _)| *cause == causes[0].0), "{transport}: {causes:?}");
    let latest = causes.iter().map(|(_, late)| *late).max().unwrap_or_default();
    println!("{transport}, {count} elements: the others knew after {latest:.2?}");
    causes[0].0.clone()
}

fn until_an_error(comm: &Communicator, data: &mut [f32]) -> Error {
    (0..).find_map(|_| comm.all_reduce_in_place(data, ReduceOp::Max).err()).expect("it goes on until then")
}

fn cause(error: &Error) -> Cause {
    error.cause().unwrap_or_else(|| panic!("no cause: {error}")).clone()
}

/// A panic unwinds through the communicator, and through a work before or after it.
#[test]
fn a_panic_that_drops_the_communicator_is_the_cause_on_every_other_rank() {
    fn unwind(body: impl FnOnce()) {
        assert!(catch_unwind(AssertUnwindSafe(body)).is_err());
    }
    let comm_first: End = |comm, work| {
        unwind(move || {
            let _held = (comm, work); // fields drop in order
            std::panic::resume_unwind(Box::new("no noise"));
        });
    };
    let work_first: End = |comm, work| {
        unwind(move || {
            let _held = (work, comm);
            std::panic::resume_unwind(Box::new("no noise"));
        });
    };
    for transport in real_transports() {
        for count in COUNTS {
            for end in [comm_first, work_first] {
                let cause = end_one(transport, count, end);
                assert_eq!((cause.kind, cause.culprit.rank), (ErrorKind::Remote, VICTIM), "{cause}");
                assert_eq!(cause.culprit.pid, std::process::id());
                assert!(cause.message.contains("panicked"), "{transport}: {cause}");
            }
        }
    }
}

/// The victim's operation may have been over by then (the others had come): then it left after its last call, and the
/// others' next call is one too many. Either way it is the culprit.
#[test]
fn a_drop_in_the_middle_of_an_operation_is_the_cause_on_every_other_rank() {
    let end: End = |comm, work| {
        drop(work);
        drop(comm);
    };
    for transport in real_transports() {
        for count in COUNTS {
            let cause = end_one(transport, count, end);
            assert_eq!((cause.kind, cause.culprit.rank), (ErrorKind::Remote, VICTIM), "{cause}");
            let said = ["dropped the communicator", "closed the communicator"];
            assert!(said.iter().any(|said| cause.message.contains(said)), "{transport}: {cause}");
        }
    }
}

/// A leaked communicator looks like a slow one, for as long as the deadline is; what it had under way goes on.
#[test]
fn a_leak_ends_with_the_deadline_of_the_others() {
    for transport in real_transports() {
        let configure = |config: Config| {
            let deadline = if config.rank == VICTIM { WATCHDOG } else { Duration::from_millis(500) };
            Config { operation_timeout: deadline, ..config }
        };
        let causes = start_threads(&setup(transport, RANKS), configure, |rank, comm| {
            let comm = comm.expect("all ranks come");
            let mut data = vec![1_f32; 50_000];
            if rank == VICTIM {
                let work = comm.all_reduce_in_place_async(data, ReduceOp::Sum).expect("issued");
                std::mem::forget((comm, work));
                return None;
            }
            comm.all_reduce_in_place(&mut data, ReduceOp::Sum).expect("what was leaked goes on");
            assert!(data.iter().all(|&sum| sum == RANKS as f32));
            Some(cause(&comm.barrier().expect_err("nobody calls on the leaked one")))
        });
        for cause in causes.iter().flatten() {
            assert_eq!(cause, causes[0].as_ref().expect("rank 0 is no victim"), "{transport}");
            assert_eq!((cause.kind, cause.culprit.rank), (ErrorKind::Timeout, VICTIM), "{cause}");
        }
    }
}
