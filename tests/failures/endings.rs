//! Abort, close, panics, and things that are dropped early.

use crate::support::ranks::start_threads;
use crate::{real_transports, setup};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier};
use std::time::Duration;
use ubccl::{Cause, Collective, Communicator, DataType, Error, ErrorKind, ReduceOp, Work};

/// Repeats calls until one fails.
fn until_an_error(comm: &Communicator, count: usize) -> Error {
    let mut data = vec![1.0_f32; count];
    (0..)
        .find_map(|_| comm.all_reduce_in_place(&mut data, ReduceOp::Max).err())
        .expect("it goes on until then")
}

fn cause(error: &Error) -> Cause {
    error.cause().unwrap_or_else(|| panic!("no cause: {error}")).clone()
}

#[test]
fn abort_ends_every_rank_with_who_called_it_and_why() {
    for transport in real_transports() {
        for (count, aborter) in [(1, 0), (1, 2), (5_000_000, 1)] {
            let errors = start_threads(
                &setup(transport, 3),
                |config| config,
                move |rank, comm| {
                    let comm = comm.expect("all ranks come");
                    let _met = comm.barrier(); // who is slow in it may be told the end here
                    if rank == aborter {
                        comm.abort("enough is enough").expect("abort waits for nobody");
                        comm.abort("once more").expect("it is aborted already");
                    }
                    let error = until_an_error(&comm, count);
                    assert_eq!(cause(&comm.barrier().expect_err("it stays so")), cause(&error));
                    assert_eq!(cause(&comm.send(&[1_u8], 0).expect_err("it stays so")), cause(&error));
                    assert_eq!(cause(&comm.close().expect_err("it stays so")), cause(&error));
                    cause(&error)
                },
            );
            for error in &errors {
                assert_eq!(
                    (error.kind, error.culprit.rank),
                    (ErrorKind::Aborted, aborter),
                    "{transport}: {error}"
                );
                assert!(error.message.contains("enough is enough"), "{error}");
                assert_eq!(error, &errors[0]);
            }
        }
    }
}

/// The call that is waiting does not keep abort waiting, nor go on.
#[test]
fn abort_from_another_thread_ends_a_call_that_waits() {
    for transport in real_transports() {
        for is_asleep in [false, true] {
            let spin = if is_asleep { Duration::ZERO } else { Duration::from_secs(1000) };
            let configure = move |config| ubccl::Config { spin, ..config };
            let errors = start_threads(&setup(transport, 2), configure, move |rank, comm| {
                let comm = comm.expect("all ranks come");
                // An abort before the last has come would be a start that failed.
                let met = comm.barrier();
                if rank == 1 {
                    // It never calls again; if it is slow here it is told here.
                    return cause(&met.err().unwrap_or_else(|| until_poisoned(&comm)));
                }
                met.expect("nobody aborts before");
                std::thread::scope(|scope| {
                    let waiting = scope.spawn(|| comm.receive(&mut vec![0_u8; 3 << 20], 1));
                    let issued =
                        comm.all_reduce_in_place_async(vec![0_u8; 100], ReduceOp::Max).expect("issued");
                    comm.abort("the caller gave up").expect("abort waits for nobody");
                    let error = waiting.join().expect("it does not panic").expect_err("it was aborted");
                    assert_eq!(cause(&issued.wait().expect_err("it was aborted")), cause(&error));
                    cause(&error)
                })
            });
            assert_eq!(errors[0], errors[1]);
            assert_eq!((errors[0].kind, errors[0].culprit.rank), (ErrorKind::Aborted, 0));
        }
    }
}

fn until_poisoned(comm: &Communicator) -> Error {
    loop {
        if let Some(error) = comm.async_error() {
            return error;
        }
        std::thread::yield_now();
    }
}

#[test]
fn closing_over_an_unread_message_is_an_error_that_names_its_sender() {
    for transport in real_transports() {
        let results = start_threads(
            &setup(transport, 3),
            |config| config,
            |rank, comm| {
                let comm = comm.expect("all ranks come");
                if rank == 1 {
                    comm.send(&[1_f32; 7], 2).expect("it fits what a pair may keep");
                }
                // So that the message is there.
                let _met = comm.barrier(); // who is slow in it may be told the end here
                if rank != 2 {
                    until_poisoned(&comm);
                }
                comm.close().expect_err("the message is unread")
            },
        );
        for error in &results {
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Mismatch, "{text}");
            assert!(text.contains("rank 1 called sendrecv count=7 f32, rank 2 called close"), "{text}");
            assert_eq!(error.cause(), results[0].cause());
        }
    }
}

#[test]
fn closing_while_an_operation_is_under_way_is_refused_and_the_operation_goes_on() {
    for transport in real_transports() {
        let tried = Arc::new(Barrier::new(2));
        start_threads(
            &setup(transport, 2),
            |config| config,
            move |rank, comm| {
                let comm = comm.expect("all ranks come");
                if rank == 1 {
                    tried.wait();
                    comm.all_reduce_in_place(&mut [1_u8], ReduceOp::Sum).expect("rank 0's operation goes on");
                    return;
                }
                let work = comm.all_reduce_in_place_async(vec![1_u8], ReduceOp::Sum).expect("issued");
                let error = comm.close().expect_err("an operation is under way");
                assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                assert!(error.message().contains("wait for every Work"), "{error}");
                tried.wait();
                assert_eq!(work.wait().expect("rank 1 calls"), [2]);
            },
        );
    }
}

#[test]
fn a_panic_between_calls_is_an_error_of_the_others() {
    for transport in real_transports() {
        let results = start_threads(
            &setup(transport, 3),
            |config| config,
            |rank, comm| {
                let comm = comm.expect("all ranks come");
                let _met = comm.barrier(); // who is slow in it may be told the end here
                if rank == 1 {
                    let caught = catch_unwind(AssertUnwindSafe(move || {
                        let _held = comm;
                        std::panic::resume_unwind(Box::new("no noise")); // as a panic, without its message
                    }));
                    assert!(caught.is_err());
                    return None;
                }
                Some(cause(&until_an_error(&comm, 1000)))
            },
        );
        for error in results.iter().flatten() {
            assert_eq!((error.kind, error.culprit.rank), (ErrorKind::Remote, 1), "{error}");
            assert!(error.message.contains("panicked"), "{error}");
        }
    }
}

/// What was issued goes on, whoever looks at it.
#[test]
fn work_that_is_dropped_is_still_done() {
    for transport in real_transports() {
        let dropped = Arc::new(Barrier::new(3));
        start_threads(
            &setup(transport, 3),
            |config| config,
            move |rank, comm| {
                let comm = comm.expect("all ranks come");
                for count in [1, 100_000] {
                    if rank == 0 {
                        drop(
                            comm.all_reduce_in_place_async(vec![1_i32; count], ReduceOp::Sum)
                                .expect("issued"),
                        );
                        drop(
                            comm.all_reduce_in_place_async(vec![1_i32; count], ReduceOp::Sum)
                                .expect("issued"),
                        );
                    }
                    dropped.wait();
                    if rank != 0 {
                        for _ in 0..2 {
                            let mut data = vec![1_i32; count];
                            comm.all_reduce_in_place(&mut data, ReduceOp::Sum).expect("rank 0's goes on");
                            assert!(data.iter().all(|&x| x == 3));
                        }
                    }
                    comm.barrier().expect("nothing is wrong");
                }
                comm.close().expect("nothing is wrong");
            },
        );
    }
}

#[test]
fn work_outlives_its_communicator() {
    for transport in real_transports() {
        let (dropped, others) = (Arc::new(Barrier::new(3)), Arc::new(Barrier::new(2)));
        let results = start_threads(
            &setup(transport, 3),
            |config| config,
            move |rank, comm| {
                let comm = comm.expect("all ranks come");
                let mut data = vec![1_i32; 50_000];
                if rank != 0 {
                    dropped.wait();
                    comm.all_reduce_in_place(&mut data, ReduceOp::Sum).expect("rank 0's goes on");
                    others.wait();
                    // That rank 0 is not there any more shows at the next call.
                    return Some(cause(&comm.barrier().expect_err("rank 0 has left")));
                }
                let work = comm.all_reduce_in_place_async(data, ReduceOp::Sum).expect("issued");
                drop(comm);
                dropped.wait();
                assert!(work.wait().expect("the others call").iter().all(|&x| x == 3));
                None
            },
        );
        for error in results.iter().flatten() {
            assert_eq!(
                (error.kind, error.culprit.rank, error.sequence),
                (ErrorKind::Remote, 0, 1),
                "{error}"
            );
        }
    }
}

#[test]
fn dropping_the_communicator_and_the_work_under_way_is_an_error_of_the_others() {
    for transport in real_transports() {
        for work_first in [true, false] {
            let results = start_threads(
                &setup(transport, 3),
                |config| config,
                move |rank, comm| {
                    let comm = comm.expect("all ranks come");
                    if rank != 2 {
                        return Some(cause(&until_an_error(&comm, 1000)));
                    }
                    let work = futile_receive(&comm);
                    if work_first {
                        drop(work);
                        drop(comm);
                    } else {
                        drop(comm);
                        drop(work);
                    }
                    None
                },
            );
            for error in results.iter().flatten() {
                assert_eq!((error.kind, error.culprit.rank), (ErrorKind::Remote, 2), "{error}");
            }
        }
    }
}

/// A receive that nobody sends for.
fn futile_receive(comm: &Communicator) -> Work<Vec<u8>> {
    let call = Collective::send_receive(4, DataType::U8, None, Some(1));
    comm.run_in_place_async(&call, vec![0; 4]).expect("issued")
}
