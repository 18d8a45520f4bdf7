//! Virtual time: how it passes, what overlaps, and that it is the same each time.

use crate::{PLAIN, both, results, run};
use std::time::Duration;
use ubccl::sim::{Communicator, Phantom, World, WorldConfig};
use ubccl::{Collective, DataType, ReduceOp, Result};

/// What an all-reduce of 8 MB of phantom floats takes on 4 ranks of the plain fabric.
fn all_reduce_ps() -> u64 {
    let config = WorldConfig { fabric: PLAIN.into(), ranks: 4, ..WorldConfig::default() };
    let call = Collective::all_reduce(2_000_000, DataType::F32, ReduceOp::Sum);
    let outcome = World::new(config).expect("a world").run_phantom(&|_| call, true).expect("it runs");
    outcome.elapsed_ps
}

fn large() -> Phantom<f32> {
    Phantom::new(2_000_000)
}

#[test]
fn a_program_of_one_call_takes_what_the_call_takes() {
    let ends = results(4, async |comm| {
        comm.all_reduce_in_place(large(), ReduceOp::Sum).await?;
        Ok(comm.now_ps())
    });
    assert_eq!(ends.iter().max(), Some(&all_reduce_ps()));
}

#[test]
fn compute_after_an_issue_overlaps_and_compute_after_an_await_adds() {
    let alone_ps = all_reduce_ps();
    for compute_ps in [alone_ps / 3, alone_ps, 2 * alone_ps] {
        let overlapped = run(4, async |comm| {
            let work = comm.all_reduce_in_place(large(), ReduceOp::Sum);
            comm.compute_ps(compute_ps).await;
            work.await
        });
        assert_eq!(overlapped.elapsed_ps, alone_ps.max(compute_ps));
        let in_turn = run(4, async |comm| {
            comm.all_reduce_in_place(large(), ReduceOp::Sum).await?;
            comm.compute_ps(compute_ps).await;
            Ok(())
        });
        assert_eq!(in_turn.elapsed_ps, alone_ps + compute_ps);
    }
}

#[test]
fn time_is_told_and_stretches_of_it_pass_side_by_side() {
    let told = results(1, async |comm| {
        assert_eq!((comm.now_ps(), comm.now()), (0, Duration::ZERO));
        comm.compute(Duration::ZERO).await;
        assert_eq!(comm.now_ps(), 0);
        let (long, short) = (comm.compute(Duration::from_micros(5)), comm.compute_ps(1_500));
        short.await;
        let first = (comm.now_ps(), comm.now());
        both(long, comm.compute_ps(1)).await;
        Ok((first, comm.now_ps()))
    });
    assert_eq!(told, [((1_500, Duration::from_nanos(1)), 5_000_000)]);
}

/// Compute of different lengths, two communicators, messages, and tasks within a rank.
async fn busy(comm: Communicator<'_>) -> Result<u64> {
    let me = comm.rank();
    let halves = comm.split(Some(me % 2), -i64::from(me)).await?.expect("every rank has a colour");
    for round in 0..5_u64 {
        let sum = comm.all_reduce(vec![me; 300], ReduceOp::Sum);
        comm.compute_ps(1 + (u64::from(me) * 7919 + round * 104_729) % 3_000_000).await;
        let in_half = async {
            let blocks = halves.all_to_all(Phantom::<u16>::new(1000 * halves.ranks() as usize)).await?;
            comm.compute_ps(70_000).await;
            Ok::<_, ubccl::Error>(blocks)
        };
        let (sum, in_half) = both(sum, in_half).await;
        assert_eq!(sum?, [comm.ranks() * (comm.ranks() - 1) / 2; 300]);
        in_half?;
        let next = (me + 1) % comm.ranks();
        let sent = comm.send_tagged(vec![round], next, 3);
        let (got, _) = comm.receive_tagged::<u64>(1, None, 3).await?;
        assert_eq!((got, sent.await?), (vec![round], vec![round]));
    }
    Ok(comm.now_ps())
}

#[test]
fn the_same_program_has_the_same_events_each_time() {
    for (fabric, ranks) in [(PLAIN, 10), ("cloudmatrix384", 64)] {
        let run = || World::run(fabric, ranks, busy).expect("a world");
        let (first, second) = (run(), run());
        assert_eq!((first.stats, first.elapsed_ps), (second.stats, second.elapsed_ps));
        let ends = first.into_results().expect("it works");
        assert_eq!(ends, second.into_results().expect("it works"));
        let other = World::run(fabric, ranks, async |comm| {
            comm.compute_ps(1).await;
            busy(comm).await
        });
        assert_ne!(run().stats.hash, other.expect("a world").stats.hash);
    }
}

/// What was issued before another operation of the same communicator runs before it; other communicators do not wait.
#[test]
fn operations_of_one_communicator_take_turns_and_those_of_others_do_not_wait() {
    let ends = results(4, async |comm| {
        let copy = comm.duplicate().await?;
        let began_ps = comm.now_ps();
        let large = comm.all_reduce_in_place(large(), ReduceOp::Sum);
        let (behind, beside) = (comm.barrier(), copy.barrier());
        let at = async |work| -> Result<u64> {
            let _: () = Box::pin(work).await?;
            Ok(comm.now_ps() - began_ps)
        };
        let ((large, behind), beside) =
            both(both(async { large.await.map(|_| comm.now_ps() - began_ps) }, at(behind)), at(beside)).await;
        Ok((large?, behind?, beside?))
    });
    for (large_ps, behind_ps, beside_ps) in ends {
        assert!(behind_ps > large_ps, "{behind_ps} {large_ps}");
        assert!(beside_ps < large_ps, "{beside_ps} {large_ps}");
    }
}
