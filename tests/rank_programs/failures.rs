//! Programs that fail, panic, block, wait for ever or disagree.

use crate::{PLAIN, results, run};
use std::time::Duration;
use ubccl::sim::{End, Phantom, World, WorldConfig};
use ubccl::{Config, Error, ErrorKind, ReduceOp};

fn world(ranks: u32) -> World {
    let config = WorldConfig { fabric: PLAIN.into(), ranks, ..WorldConfig::default() };
    World::new(config).expect("a world")
}

#[test]
fn a_panic_is_told_with_rank_and_time_and_ends_the_others_with_one_cause() {
    let report = run(4, async |comm| {
        comm.barrier().await?;
        comm.compute_ps(2_000_000).await;
        assert!(comm.rank() != 2, "rank two has had enough");
        comm.all_reduce(vec![1.0_f32; 10], ReduceOp::Sum).await
    });
    let End::Panicked(said) = &report.ended[2].end else { panic!("{:?}", report.ended[2]) };
    assert!(said.contains("had enough"), "{said}");
    for rank in [0, 1, 3] {
        let End::Failed(error) = &report.ended[rank].end else { panic!("rank {rank} did not fail") };
        let cause = error.cause().expect("it poisons");
        assert_eq!((cause.kind, cause.culprit.rank), (ErrorKind::Remote, 2));
        assert!(cause.message.contains("its program panicked at"), "{error}");
        // After the fabric's detection delay of 10 us.
        assert_eq!(report.ended[rank].at_ps, report.ended[2].at_ps + 10_000_000);
    }
    let error = report.into_results().expect_err("one panicked");
    assert!(error.message().starts_with("the program of rank 2 panicked at "), "{error}");
}

#[test]
fn an_error_is_told_with_rank_and_time_before_what_it_brought_upon_others() {
    let report = run(3, async |comm| {
        comm.compute_ps(1_500_000 * u64::from(comm.rank())).await;
        if comm.rank() == 1 {
            return Err(Error::invalid("no such file"));
        }
        comm.barrier().await
    });
    let failures: Vec<_> = report.failures().collect();
    assert_eq!(failures.len(), 3, "{failures:?}");
    assert_eq!(failures[1], (1, "failed at 1.500 us: invalid argument: no such file".to_owned()));
    let error = report.into_results().expect_err("one failed");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().starts_with("the program of rank 1 failed at 1.500 us"), "{error}");
}

#[test]
fn ranks_that_wait_for_each_other_are_named_with_whom_they_wait_for() {
    let report = run(3, async |comm| {
        let from = (comm.rank() + 1) % 3;
        comm.receive::<Vec<u8>>(4, from).await
    });
    for ended in &report.ended {
        let End::Failed(error) = &ended.end else { panic!("{ended:?}") };
        assert_eq!(error.kind(), ErrorKind::Timeout);
        for rank in 0..3 {
            let part = format!("rank {rank} waits for rank {} in sendrecv count=4", (rank + 1) % 3);
            assert!(error.message().contains(&part), "{error}, expected {part}");
        }
    }
}

#[test]
fn a_rank_that_has_ended_is_told_of_as_such() {
    let report = run(3, async |comm| match comm.rank() {
        1 => Ok(()),
        _ => comm.barrier().await,
    });
    let error = report.first_failure().expect("two wait in vain");
    for part in ["nothing can happen any more", "rank 1 (which has ended)", "in barrier"] {
        assert!(error.message().contains(part), "{error}, expected {part}");
    }
    let (ok, failed): (Vec<_>, Vec<_>) =
        report.ended.iter().partition(|ended| matches!(ended.end, End::Returned(())));
    assert_eq!((ok.len(), failed.len()), (1, 2));
}

#[test]
fn a_receive_by_tag_is_told_of_by_its_tag() {
    let report = run(2, async |comm| match comm.rank() {
        0 => comm.receive_tagged::<u8>(1, None, 77).await.map(|_| ()),
        _ => comm.receive_tagged::<u8>(1, Some(0), 78).await.map(|_| ()),
    });
    let error = report.first_failure().expect("both wait in vain");
    for part in ["rank 0 waits for a message with tag 77 from any rank", "tag 78 from rank 0"] {
        assert!(error.message().contains(part), "{error}, expected {part}");
    }
}

/// A deadlock ends its communicator alone: programs that handle it go on with others.
#[test]
fn a_program_may_go_on_after_a_deadlock() {
    let given = results_of_poisoned(async |comm| {
        let copy = comm.duplicate().await?;
        if comm.rank() == 0 {
            copy.barrier().await.expect_err("the other does not come");
        }
        comm.all_reduce(vec![1_u8], ReduceOp::Sum).await
    });
    assert_eq!(given, [vec![2], vec![2]]);
}

fn results_of_poisoned<T>(program: impl AsyncFn(ubccl::sim::Communicator<'_>) -> ubccl::Result<T>) -> Vec<T> {
    let report = run(2, program);
    let returned = report.ended.into_iter().map(|ended| match ended.end {
        End::Returned(result) => result,
        _ => panic!("{:?}", ended.failure()),
    });
    returned.collect()
}

#[test]
fn different_calls_are_a_mismatch_that_quotes_both() {
    let report = run(2, async |comm| match comm.rank() {
        0 => comm.all_reduce(vec![0_u8; 4], ReduceOp::Sum).await.map(drop),
        _ => comm.all_reduce(vec![0_u8; 5], ReduceOp::Sum).await.map(drop),
    });
    let error = report.first_failure().expect("they differ");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    for part in ["all_reduce count=4 u8", "all_reduce count=5 u8"] {
        assert!(error.message().contains(part), "{error}");
    }
}

#[test]
fn an_unread_message_is_found_at_the_end() {
    let report = run(2, async |comm| {
        if comm.rank() == 0 {
            comm.send(vec![1_u8; 3], 1).await?;
        }
        Ok(())
    });
    let error = report.closed.as_ref().expect_err("nobody received it");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert_eq!(report.into_results().expect_err("it is told").kind(), ErrorKind::Mismatch);
}

#[test]
fn what_nobody_awaits_still_happens_or_is_found_at_the_end() {
    let given = results(2, async |comm| {
        drop(comm.barrier());
        drop(comm.all_reduce(Phantom::<f32>::new(1000), ReduceOp::Sum));
        comm.all_reduce(vec![1_u8], ReduceOp::Sum).await
    });
    assert_eq!(given, [[2], [2]]);
    let report = run(2, async |comm| {
        if comm.rank() == 0 {
            drop(comm.barrier());
        }
        Ok(())
    });
    assert_eq!(report.closed.expect_err("the other did not come").kind(), ErrorKind::Timeout);
}

#[test]
fn an_await_of_something_else_is_told() {
    let report = run(2, async |comm| {
        if comm.rank() == 1 {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let End::Failed(error) = &report.ended[1].end else { panic!("{:?}", report.ended[1]) };
    assert!(error.message().contains("not of this world"), "{error}");
}

#[test]
fn a_program_that_spins_is_ended() {
    let report = run(1, async |_| {
        std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            std::task::Poll::<()>::Pending
        })
        .await;
        Ok(())
    });
    let error = report.first_failure().expect("it spins");
    assert!(error.message().contains("without virtual time moving on"), "{error}");
}

/// The design's rule: refused, with the name of the asynchronous call.
#[test]
fn calls_that_block_are_refused_with_the_name_of_what_to_use() {
    let real = ubccl::Communicator::init(Config { ranks: 1, ..Config::default() }).expect("one rank");
    let work =
        std::cell::Cell::new(Some(real.all_reduce_in_place_async(vec![1], ReduceOp::Sum).expect("it is")));
    let given = results(1, async |comm| {
        let within = ubccl::Communicator::init(Config { ranks: 1, ..Config::default() });
        Ok([
            within.map(drop).expect_err("it blocks"),
            real.all_reduce_in_place(&mut [1_u8], ReduceOp::Sum).expect_err("it blocks"),
            real.send_tagged(&[1_u8], 0, 3).expect_err("it blocks"),
            work.take().expect("taken once").wait().map(drop).expect_err("it blocks"),
            comm.all_reduce(vec![1_u8], ReduceOp::Sum).wait().map(drop).expect_err("it blocks"),
        ])
    });
    let parts =
        ["sim::Communicator", "all_reduce of a sim::Communicator", "send_tagged", "await", "`.await`"];
    for (error, part) in given[0].iter().zip(parts) {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.message().contains(part), "{error}, expected {part}");
        assert!(error.message().contains("rank 0 of a simulated world"), "{error}");
    }
    real.barrier().expect("outside it works as ever");
    real.close().expect("nothing was sent");
}

#[test]
fn the_program_of_a_rank_that_dies_ends_and_the_others_are_told() {
    let mut world = world(4);
    world.kill(3, 5_000_000);
    let report = world.run_program(async |comm| {
        let pair = comm.split(Some(comm.rank() / 2), 0).await?.expect("a colour");
        let spared = loop {
            if let Err(error) = pair.all_reduce(Phantom::<u8>::new(100_000), ReduceOp::Sum).await {
                break error;
            }
            if comm.now_ps() > 1_000_000_000 {
                return Ok(pair.ranks());
            }
        };
        Err(spared)
    });
    assert!(matches!(report.ended[3].end, End::Died), "{:?}", report.ended[3]);
    let End::Failed(error) = &report.ended[2].end else { panic!("{:?}", report.ended[2]) };
    let cause = error.cause().expect("it poisons");
    assert_eq!((cause.kind, cause.culprit.rank), (ErrorKind::Remote, 1), "its number in the pair");
    assert!(matches!(report.ended[0].end, End::Returned(2)), "the other pair lives");
    assert!(matches!(report.ended[1].end, End::Returned(2)));
}

#[test]
fn an_operation_ends_at_its_deadline_in_virtual_time() {
    let timeout = Duration::from_micros(50);
    let config =
        WorldConfig { fabric: PLAIN.into(), ranks: 2, operation_timeout: timeout, ..WorldConfig::default() };
    let report = World::new(config).expect("a world").run_program(async |comm| {
        if comm.rank() == 1 {
            comm.compute(Duration::from_secs(3600)).await;
        }
        comm.compute_ps(7).await;
        comm.barrier().await
    });
    assert_eq!(report.ended[0].at_ps, 50_000_007);
    let End::Failed(error) = &report.ended[0].end else { panic!("{:?}", report.ended[0]) };
    let cause = error.cause().expect("it poisons");
    assert_eq!((cause.kind, cause.culprit.rank), (ErrorKind::Timeout, 1), "{error}");
    assert!(error.message().contains("within 50"), "{error}");
}
