//! Communicators that programs split.

use crate::{results, run};
use ubccl::{ErrorKind, ReduceOp};

#[test]
fn splits_give_the_groups_of_the_colours_by_key() {
    for ranks in [1, 4, 7] {
        let given = results(ranks, async |comm| {
            let me = comm.rank();
            let colour = (me % 3 != 2).then_some(me % 3);
            let part = comm.split(colour, -i64::from(me)).await?;
            let Some(part) = part else { return Ok((None, Vec::new())) };
            assert_eq!(part.world_rank(), me);
            Ok((Some((part.rank(), part.ranks())), part.all_gather(vec![me]).await?))
        });
        for (rank, (place, members)) in (0..ranks).zip(given) {
            let expected: Vec<u32> = (0..ranks).rev().filter(|other| other % 3 == rank % 3).collect();
            if rank % 3 == 2 {
                assert_eq!(place, None);
                continue;
            }
            assert_eq!(members, expected, "rank {rank} of {ranks}");
            let at = expected.iter().position(|&other| other == rank).expect("it is in its group") as u32;
            assert_eq!(place, Some((at, expected.len() as u32)));
        }
    }
}

#[test]
fn communicators_of_communicators_work_at_the_same_time() {
    let given = results(8, async |comm| {
        let me = comm.rank();
        let half = comm.split(Some(me / 4), 0).await?.expect("a colour");
        let pair = half.split_ranks(&[3, 0]).await?;
        let copy = half.duplicate().await?;
        let works = [&comm, &half, &copy].map(|on| on.all_reduce(vec![me], ReduceOp::Sum));
        let of_pair = match &pair {
            Some(pair) => pair.all_gather(vec![me]).await?,
            None => Vec::new(),
        };
        let mut sums = Vec::new();
        for work in works {
            sums.extend(work.await?);
        }
        Ok((sums, of_pair))
    });
    for (rank, (sums, of_pair)) in given.into_iter().enumerate() {
        let half = if rank < 4 { 6 } else { 22 };
        assert_eq!(sums, [28, half, half]);
        let base = rank as u32 / 4 * 4;
        let expected = if rank % 4 == 0 || rank % 4 == 3 { vec![base + 3, base] } else { vec![] };
        assert_eq!(of_pair, expected, "rank {rank}");
    }
}

#[test]
fn ranks_that_split_differently_are_told_and_may_go_on() {
    let given = results(3, async |comm| {
        let me = comm.rank();
        let error = match me {
            2 => comm.duplicate().await.map(|_| ()),
            _ => comm.split(Some(0), 0).await.map(|_| ()),
        };
        let lists = comm.split_ranks(if me == 0 { &[0, 1] } else { &[1, 0] }).await.map(|_| ());
        comm.barrier().await?;
        Ok([error, lists].map(|result| result.expect_err("they differ")))
    });
    for [kinds, lists] in given {
        assert_eq!(kinds.kind(), ErrorKind::InvalidArgument);
        assert!(kinds.message().contains("rank 0 called split, rank 2 called duplicate"), "{kinds}");
        assert!(lists.message().contains("rank 0 and rank 1 have different lists"), "{lists}");
    }
}

/// One that is poisoned leaves the others alone.
#[test]
fn an_abort_ends_one_communicator() {
    let report = run(4, async |comm| {
        let copy = comm.duplicate().await?;
        let work = copy.all_reduce(vec![0_u8; 100_000], ReduceOp::Sum);
        if comm.rank() == 2 {
            comm.compute_ps(10_000).await;
            copy.abort("for a test");
        }
        let error = work.await.expect_err("it was aborted");
        assert_eq!(copy.async_error().expect("it stays so").cause(), error.cause());
        assert!(comm.async_error().is_none());
        comm.barrier().await?;
        Ok(error)
    });
    assert!(report.closed.is_err(), "one communicator was poisoned");
    for ended in report.ended {
        let ubccl::sim::End::Returned(error) = ended.end else { panic!("{:?}", ended.failure()) };
        let cause = error.cause().expect("it poisons");
        assert_eq!((cause.kind, cause.culprit.rank), (ErrorKind::Aborted, 2), "{error}");
        assert!(error.message().contains("for a test"), "{error}");
    }
}
