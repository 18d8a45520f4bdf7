//! Operations on several communicators at once.

use crate::support::processes::told;
use crate::support::ranks::{on_threads, start_threads};
use crate::{check_members, real_transports, setup};
use ubccl::{Communicator, Config, ErrorKind, ReduceOp};

const EVERYBODY: [u64; 3] = [0, 1, 2];

#[test]
fn asynchronous_calls_on_parent_and_parts_are_under_way_together() {
    for transport in real_transports() {
        on_threads(&setup(transport, 4), |comm| {
            let me = comm.rank();
            let half = comm.split(Some(me / 2), 0).expect("a split").expect("a colour");
            let copy = comm.duplicate().expect("a duplicate");
            for round in 0..10 {
                let count = [3, 70_000][round % 2];
                let issue = |comm: &Communicator, factor: i32| {
                    comm.all_reduce_in_place_async(vec![factor * me as i32; count], ReduceOp::Sum)
                        .expect("it is issued")
                };
                // Ranks issue and wait in different orders: nothing blocks, so there is no circle.
                let mut comms = [(comm, 1, 6), (&half, 10, [10, 50][me as usize / 2]), (&copy, 100, 600)];
                comms.rotate_left((me as usize + round) % 3);
                let works = comms.map(|(comm, factor, sum)| (issue(comm, factor), sum));
                let mut works = works.into_iter().collect::<Vec<_>>();
                works.rotate_left(me as usize % 2);
                for (work, sum) in works {
                    assert_eq!(work.wait().expect("it completes"), vec![sum; count]);
                }
            }
            half.close().expect("nothing is left over");
            copy.close().expect("nothing is left over");
        });
    }
}

#[test]
fn threads_of_one_rank_use_a_communicator_each() {
    for transport in real_transports() {
        on_threads(&setup(transport, 3), |comm| {
            let copy = comm.duplicate().expect("a duplicate");
            let me = u64::from(comm.rank());
            std::thread::scope(|scope| {
                let (copy, comm) = (&copy, comm);
                let other = move || (0..20).for_each(|round| check_members(copy, me, &EVERYBODY, round == 7));
                let other = scope.spawn(other);
                (0..20).for_each(|round| check_members(comm, me, &EVERYBODY, round == 3));
                other.join().expect("no check failed");
            });
            copy.close().expect("nothing is left over");
        });
    }
}

#[test]
fn a_forced_algorithm_that_cannot_gather_does_not_keep_ranks_from_splitting() {
    for transport in real_transports() {
        let mut setup = setup(transport, 3);
        setup.algorithm = Some("mesh-two-shot");
        on_threads(&setup, |comm| {
            let part = comm.split_ranks(&[1, 2]).expect("the library's own gathering is not forced");
            if let Some(part) = part {
                let call = ubccl::Collective::all_gather(1, ubccl::DataType::U8);
                assert!(part.algorithm_for(&call).is_err(), "a part has its parent's algorithm");
                part.close().expect("nothing is left over");
            }
        });
    }
}

/// The settings come from the parent: a part's operation ends at the parent's timeout.
#[test]
fn a_part_has_its_parents_timeout() {
    for transport in real_transports() {
        on_threads(&setup(transport, 2), |comm| {
            comm.set_operation_timeout(std::time::Duration::from_millis(50));
            let part = comm.duplicate().expect("a duplicate");
            comm.set_operation_timeout(std::time::Duration::from_secs(60));
            if comm.rank() == 0 {
                let error = part.barrier().expect_err("rank 1 does not come");
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            }
            comm.barrier().expect("the parent is well");
            assert_eq!(part.close().expect_err("it was poisoned").kind(), ErrorKind::Timeout);
        });
    }
}

#[test]
fn one_that_is_aborted_leaves_the_others_alone() {
    for transport in real_transports() {
        for aborts_the_parent in [false, true] {
            let ended = start_threads(
                &setup(transport, 3),
                |config: Config| config,
                move |rank, comm| {
                    let comm = comm.expect("all ranks come");
                    let copy = comm.duplicate().expect("a duplicate");
                    let (bad, good) = if aborts_the_parent { (comm, copy) } else { (copy, comm) };
                    good.barrier().expect("all ranks have both"); // an end while ranks still start ends the start
                    if rank == 1 {
                        bad.abort("a test").expect("it is told");
                    }
                    check_members(&good, u64::from(rank), &EVERYBODY, true);
                    let error = (0..).find_map(|_| bad.barrier().err()).expect("it goes on until an error");
                    let part = good.split(Some(rank % 2), 0).expect("a split").expect("a colour");
                    part.close().expect("nothing is left over");
                    assert!(bad.split(Some(0), 0).is_err(), "what is poisoned does not split");
                    good.close().expect("the other is well");
                    told(&error)
                },
            );
            for error in &ended {
                assert_eq!(error["cause"]["kind"], ErrorKind::Aborted.name());
                assert_eq!(error, &ended[0]);
            }
        }
    }
}

#[test]
fn one_that_is_closed_leaves_the_others_alone() {
    for transport in real_transports() {
        for closes_the_parent in [false, true] {
            start_threads(
                &setup(transport, 3),
                |config: Config| config,
                move |rank, comm| {
                    let comm = comm.expect("all ranks come");
                    let copy = comm.duplicate().expect("a duplicate");
                    let (first, second) = if closes_the_parent { (comm, copy) } else { (copy, comm) };
                    check_members(&first, u64::from(rank), &EVERYBODY, false);
                    first.close().expect("nothing is left over");
                    check_members(&second, u64::from(rank), &EVERYBODY, true);
                    second.close().expect("nothing is left over");
                },
            );
        }
    }
}
