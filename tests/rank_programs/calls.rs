//! Every call gives what the collective promises, on real and on phantom data.

use crate::results;
use ubccl::sim::{Buffer, Communicator, Phantom};
use ubccl::{Blocks, Collective, DataType, ErrorKind, ReduceOp, Result};

const RANKS: [u32; 4] = [1, 2, 5, 8];

/// Element k of a rank's contribution.
fn element(rank: u32, k: usize) -> i64 {
    i64::from(rank) * 1000 + k as i64
}

fn contribution(rank: u32, len: usize) -> Vec<i64> {
    (0..len).map(|k| element(rank, k)).collect()
}

fn sum(ranks: u32, k: usize) -> i64 {
    (0..ranks).map(|rank| element(rank, k)).sum()
}

#[test]
fn reductions_give_the_sum_of_all() {
    for ranks in RANKS {
        let (count, root) = (7, ranks - 1);
        let totals: Vec<i64> = (0..count * ranks as usize).map(|k| sum(ranks, k)).collect();
        let given = results(ranks, async |comm| {
            let mine = contribution(comm.rank(), count);
            let all = contribution(comm.rank(), count * ranks as usize);
            let counts: Vec<u64> = (0..u64::from(ranks)).collect();
            let uneven = contribution(comm.rank(), counts.iter().sum::<u64>() as usize);
            Ok((
                comm.all_reduce(mine.clone(), ReduceOp::Sum).await?,
                comm.all_reduce_in_place(mine.clone(), ReduceOp::Sum).await?,
                comm.reduce_scatter(all.clone(), ReduceOp::Sum).await?,
                comm.reduce_scatter_in_place(all, ReduceOp::Sum).await?,
                comm.reduce(mine.clone(), ReduceOp::Sum, root).await?,
                comm.reduce_in_place(mine, ReduceOp::Sum, root).await?,
                comm.reduce_scatter_v(uneven, &counts, ReduceOp::Sum).await?,
            ))
        });
        for (rank, given) in (0..).zip(given) {
            let (apart, joint, scattered, scattered_in_place, reduced, reduced_in_place, uneven) = given;
            assert_eq!((&apart[..], &joint[..]), (&totals[..count], &totals[..count]), "{rank} of {ranks}");
            let own = rank as usize * count..(rank as usize + 1) * count;
            assert_eq!(scattered, totals[own.clone()], "{rank} of {ranks}");
            assert_eq!(scattered_in_place[own.clone()], totals[own]);
            if rank == root {
                assert_eq!((&reduced[..], &reduced_in_place[..]), (&totals[..count], &totals[..count]));
            } else {
                assert_eq!((reduced.len(), reduced_in_place), (0, contribution(rank, count)));
            }
            let start = (0..rank as usize).sum::<usize>();
            assert_eq!(uneven, totals[start..start + rank as usize], "{rank} of {ranks}");
        }
    }
}

#[test]
fn gathers_scatters_and_broadcasts_move_blocks() {
    for ranks in RANKS {
        let (count, root) = (3, ranks / 2);
        let blocks: Vec<i64> = (0..ranks).flat_map(|rank| contribution(rank, count)).collect();
        let given = results(ranks, async |comm| {
            let (me, mine) = (comm.rank(), contribution(comm.rank(), count));
            let mut place = vec![0; count * ranks as usize];
            place[me as usize * count..][..count].copy_from_slice(&mine);
            let of_root = if me == root { contribution(root, count * ranks as usize) } else { Vec::new() };
            let counts: Vec<u64> = (1..=u64::from(ranks)).collect();
            let table = Some(Blocks::packed(&counts));
            let uneven = contribution(me, me as usize + 1);
            let to_all =
                if me == root { contribution(root, counts.iter().sum::<u64>() as usize) } else { vec![] };
            Ok((
                [comm.all_gather(mine.clone()).await?, comm.all_gather_in_place(place).await?],
                comm.gather(mine.clone(), root).await?,
                comm.scatter(of_root, count, root).await?,
                comm.broadcast(mine, root).await?,
                comm.all_gather_v(uneven.clone(), Blocks::packed(&counts)).await?,
                comm.gather_v(uneven, table, root).await?,
                comm.scatter_v(to_all, table, me as usize + 1, root).await?,
            ))
        });
        let uneven: Vec<i64> = (0..ranks).flat_map(|rank| contribution(rank, rank as usize + 1)).collect();
        for (rank, given) in (0..ranks as usize).zip(given) {
            let (gathered, at_root, scattered, broadcast, gathered_v, at_root_v, scattered_v) = given;
            assert_eq!(gathered, [blocks.clone(), blocks.clone()], "{rank} of {ranks}");
            let is_root = rank == root as usize;
            assert_eq!(at_root, if is_root { blocks.clone() } else { vec![] });
            let of_root = contribution(root, 64);
            assert_eq!(scattered, of_root[rank * count..][..count]);
            assert_eq!(broadcast, of_root[..count]);
            assert_eq!(gathered_v, uneven, "{rank} of {ranks}");
            assert_eq!(at_root_v, if is_root { uneven.clone() } else { vec![] });
            let start = (1..=rank).sum::<usize>();
            assert_eq!(scattered_v, of_root[start..=start + rank], "{rank} of {ranks}");
        }
    }
}

#[test]
fn exchanges_transpose_and_messages_arrive() {
    for ranks in RANKS {
        let given = results(ranks, async |comm| {
            let (me, n) = (comm.rank(), ranks as usize);
            let (next, before) = ((me + 1) % ranks, (me + ranks - 1) % ranks);
            let all = contribution(me, 2 * n);
            // Rank r sends r + q elements to rank q.
            let counts: Vec<u64> = (0..ranks).map(|peer| u64::from(me + peer)).collect();
            let uneven = contribution(me, counts.iter().sum::<u64>() as usize);
            let table = Blocks::packed(&counts);
            let ring = comm.send_receive(contribution(me, 4), next, before).await?;
            let (mut tagged, mut apart) = (Vec::new(), Vec::new());
            if ranks > 1 {
                let sent = comm.send(contribution(me, 5), next);
                apart = comm.receive::<Vec<i64>>(5, before).await?;
                assert_eq!(sent.await?, contribution(me, 5), "the buffer comes back");
                let sends =
                    [7, 8].map(|tag| comm.send_tagged(vec![i64::from(me), i64::from(tag)], next, tag));
                for tag in [8, 7] {
                    let (got, source) = comm.receive_tagged::<i64>(2, None, tag).await?;
                    assert_eq!((got, source), (vec![i64::from(before), i64::from(tag)], before));
                    tagged.push(tag);
                }
                for send in sends {
                    send.await?;
                }
            }
            comm.barrier().await?;
            let call = Collective::all_to_all(2, DataType::I64);
            let (input, output) = comm.run(&call, all.clone(), vec![0; 2 * n]).await?;
            assert_eq!(input, all, "the input comes back as it was");
            let exchanged =
                [comm.all_to_all(all.clone()).await?, comm.all_to_all_in_place(all).await?, output];
            Ok((exchanged, comm.all_to_all_v(uneven, table, table).await?, ring, apart, tagged))
        });
        for (rank, (exchanged, uneven, ring, apart, tagged)) in (0..ranks).zip(given) {
            let block = |peer: u32| contribution(peer, 2 * ranks as usize)[2 * rank as usize..][..2].to_vec();
            let expected: Vec<i64> = (0..ranks).flat_map(block).collect();
            assert_eq!(exchanged, [expected.clone(), expected.clone(), expected], "{rank} of {ranks}");
            let of = |peer: u32| {
                let start = (0..rank).map(|to| (peer + to) as usize).sum::<usize>();
                contribution(peer, 200)[start..start + (peer + rank) as usize].to_vec()
            };
            assert_eq!(uneven, (0..ranks).flat_map(of).collect::<Vec<_>>(), "{rank} of {ranks}");
            let before = (rank + ranks - 1) % ranks;
            assert_eq!(ring, contribution(before, 4));
            if ranks > 1 {
                assert_eq!((apart, tagged), (contribution(before, 5), vec![8, 7]));
            }
        }
    }
}

/// A program of every call, on whatever data.
async fn every_call<B: Buffer>(comm: Communicator<'_>) -> Result<usize> {
    let (me, ranks) = (comm.rank(), comm.ranks());
    let (next, before) = ((me + 1) % ranks, (me + ranks - 1) % ranks);
    let blank = |each: usize| B::blank(each * ranks as usize);
    let counts: Vec<u64> = (0..ranks).map(|peer| u64::from(me * peer)).collect();
    let uneven: Vec<u64> = (0..u64::from(ranks)).collect();
    let (table, same) = (Blocks::packed(&counts), Blocks::packed(&uneven));
    let root = ranks - 1;
    let given = [
        comm.all_reduce(B::blank(1000), ReduceOp::Sum).await?,
        comm.all_reduce_in_place(B::blank(999), ReduceOp::Max).await?,
        comm.reduce_scatter(blank(5), ReduceOp::Sum).await?,
        comm.reduce_scatter_in_place(blank(5), ReduceOp::Sum).await?,
        comm.reduce(B::blank(9), ReduceOp::Sum, root).await?,
        comm.all_gather(B::blank(4)).await?,
        comm.all_gather_in_place(blank(4)).await?,
        comm.gather(B::blank(4), root).await?,
        comm.scatter(if me == root { blank(4) } else { B::blank(0) }, 4, root).await?,
        comm.broadcast(B::blank(77), root).await?,
        comm.all_to_all(blank(3)).await?,
        comm.all_to_all_in_place(blank(3)).await?,
        comm.all_to_all_v(B::blank(table.total() as usize), table, table).await?,
        comm.all_gather_v(B::blank(me as usize), same).await?,
        comm.reduce_scatter_v(B::blank(same.total() as usize), &uneven, ReduceOp::Sum).await?,
        comm.gather_v(B::blank(me as usize), Some(same), root).await?,
        comm.send_receive(B::blank(6), next, before).await?,
    ];
    comm.barrier().await?;
    Ok(given.iter().map(Buffer::elements).sum())
}

/// What is wrong in phantom data ends the communicator, so a program that ends has been checked; and the shapes are those
/// of real data.
#[test]
fn phantom_data_are_checked_and_have_the_shapes_of_real_ones() {
    for ranks in [1, 2, 5, 12] {
        assert_eq!(results(ranks, every_call::<Phantom<f32>>), results(ranks, every_call::<Vec<f32>>));
    }
}

/// Real and phantom operations of one communicator, in one queue.
#[test]
fn real_and_phantom_data_may_be_mixed() {
    let given = results(6, async |comm| {
        let large = comm.all_reduce_in_place(Phantom::<f32>::new(1 << 30), ReduceOp::Sum);
        let small = comm.all_reduce(vec![comm.rank()], ReduceOp::Sum);
        let blocks = comm.all_to_all(Phantom::<u8>::new(6 << 20));
        Ok((small.await?, large.await?.elements(), blocks.await?.elements()))
    });
    assert_eq!(given, vec![(vec![15], 1 << 30, 6 << 20); 6]);
}

#[test]
fn wrong_arguments_are_refused_and_harm_nothing() {
    let told = results(3, async |comm| {
        let refused = [
            comm.broadcast(vec![1_u8], 3).await.expect_err("no such root"),
            comm.all_to_all(vec![1_u8; 4]).await.expect_err("4 do not divide among 3"),
            comm.run(&Collective::all_gather(2, DataType::U8), vec![1_u8; 3], vec![0; 6])
                .await
                .expect_err("3 are not 2"),
            comm.run_in_place(&Collective::all_gather(2, DataType::F32), vec![1_u8; 6])
                .await
                .expect_err("bytes are no floats"),
            comm.send(vec![1_u8], comm.rank()).await.expect_err("nobody receives that"),
        ];
        assert_eq!(comm.all_reduce(vec![1_u8], ReduceOp::Sum).await?, [3]);
        Ok(refused.map(|error| (error.kind(), error.message().to_owned())))
    });
    let parts = [
        "root 3 is not a rank",
        "4 elements does not divide among 3",
        "the input has 3 elements, it needs 2",
        "the buffers hold u8",
        "sends to or receives from itself",
    ];
    for refused in told {
        for ((kind, message), part) in refused.iter().zip(parts) {
            assert_eq!(*kind, ErrorKind::InvalidArgument);
            assert!(message.contains(part), "{message}, expected {part}");
        }
    }
}
