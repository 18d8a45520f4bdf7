//! How waits in windows end when what they wait for cannot come: deadlines, aborts, leaving, death.

use super::support::processes::{Child, Job};
use super::support::ranks::start_threads;
use super::{setups, window};
use serde_json::json;
use std::sync::{Arc, Barrier};
use std::time::Duration;
use ubccl::{Clock, Config, ErrorKind, Reach, ReduceOp};

#[test]
fn a_signal_that_does_not_come_ends_with_the_deadline() {
    let timeout = Duration::from_millis(300);
    for setup in setups(2) {
        let barrier = Arc::new(Barrier::new(2));
        start_threads(
            &setup,
            |config| Config { operation_timeout: timeout, ..config },
            move |rank, comm| {
                let comm = comm.expect("all ranks come");
                let window = window::<u8>(&comm, 16);
                if rank == 0 {
                    let error = window.wait_signal(1, 1).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                    assert!(error.to_string().contains("a signal of rank 1"), "{error}");
                    assert!(window.put(1, 0, &[1]).is_err(), "the cause is told again");
                }
                barrier.wait();
            },
        );
    }
}

#[test]
fn a_peer_that_leaves_ends_a_wait_for_it() {
    for setup in setups(2) {
        start_threads(
            &setup,
            |config| config,
            |rank, comm| {
                let comm = comm.expect("all ranks come");
                let window = window::<u8>(&comm, 16);
                if rank == 1 {
                    drop(window);
                    return drop(comm);
                }
                let error = window.wait_signal(1, 1).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Remote, "{error}");
                assert!(error.to_string().contains("rank 1"), "{error}");
            },
        );
    }
}

#[test]
fn an_abort_ends_the_waits_of_all_ranks() {
    for setup in setups(3) {
        let barrier = Arc::new(Barrier::new(3));
        start_threads(
            &setup,
            |config| config,
            move |rank, comm| {
                let comm = comm.expect("all ranks come");
                let window = window::<u32>(&comm, 16);
                barrier.wait();
                if rank == 2 {
                    comm.abort("enough").expect("it is told");
                } else {
                    let error = window.wait_signal(1 - rank, 1).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Aborted, "{error}");
                    assert!(error.to_string().contains("enough"), "{error}");
                }
                let refused = [
                    window.put(0, 0, &[1]),
                    window.get(1, 0, &mut [0]),
                    window.signal(2, 1),
                    window.flush(1),
                    window.fence(),
                ];
                for result in refused {
                    assert_eq!(result.unwrap_err().kind(), ErrorKind::Aborted);
                }
                assert_eq!(window.close().unwrap_err().kind(), ErrorKind::Aborted);
                barrier.wait();
            },
        );
    }
}

#[test]
fn a_window_of_a_closed_communicator_is_refused() {
    for setup in setups(2) {
        let barrier = Arc::new(Barrier::new(2));
        start_threads(
            &setup,
            |config| config,
            move |rank, comm| {
                let comm = comm.expect("all ranks come");
                let window = window::<u32>(&comm, 16);
                comm.barrier().expect("all come");
                comm.close().expect("nothing is under way");
                let refused = [
                    window.put(1 - rank, 0, &[1]),
                    window.get(1 - rank, 0, &mut [0]),
                    window.signal(1 - rank, 1),
                    window.wait_signal(1 - rank, 1),
                    window.close(),
                ];
                for result in refused {
                    let error = result.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
                    assert!(error.to_string().contains("closed"), "{error}");
                }
                barrier.wait();
            },
        );
    }
}

/// Rank 0 waits for rank 1, which dies; rank 2 waits in a collective.
pub(crate) fn bereaved(child: &Child) {
    let comm = child.join().expect("all ranks come");
    let window = window::<u64>(&comm, 1000);
    window.put((child.rank + 1) % 3, 0, &[1; 1000]).expect("it works");
    window.fence().expect("all come");
    child.say(&json!("ready"));
    let error = match child.rank {
        0 => window.wait_signal(1, 1).unwrap_err(),
        1 => loop {
            std::thread::park();
        },
        _ => comm.all_reduce_in_place(&mut [1.0_f32; 10], ReduceOp::Sum).unwrap_err(),
    };
    assert_eq!(error.kind(), ErrorKind::Remote, "{error}");
    assert!(error.to_string().contains("rank 1"), "{error}");
    assert!(window.put(0, 0, &[1]).is_err(), "the cause is told again");
    assert!(window.signal(2, 1).is_err(), "the cause is told again");
}

#[test]
fn the_death_of_a_rank_ends_the_wait_for_its_signal() {
    let is_of_processes =
        |t: &&ubccl::TransportDescriptor| t.clock == Clock::Real && t.reach > Reach::Process;
    for transport in ubccl::transports().filter(is_of_processes) {
        let mut job = Job::start("bereaved", 3, &json!({ "transport": transport.name }));
        for rank in 0..3 {
            job.hear(rank);
        }
        job.kill(1);
        assert!(job.wait(0).success() && job.wait(2).success(), "{}", transport.name);
    }
}
