//! Sums of inputs that each rank multiplies first.

mod support;

use support::ranks::{Setup, on_threads};
use ubccl::{Choice, ErrorKind, ReduceOp, Reduction};

const RANKS: u32 = 3;

fn setup(transport: &'static str) -> Setup {
    Setup { transport, ranks: RANKS, algorithm: None, choice: Choice::default() }
}

/// Rank r brings r + 1 + k at element k, and multiplies by 2 to the r.
fn input(rank: u32, elements: usize) -> Vec<f32> {
    (0..elements).map(|k| (rank + 1) as f32 + k as f32).collect()
}

fn scalar(rank: u32) -> Reduction {
    Reduction::PreMulSum(f64::from(1 << rank))
}

fn expected(elements: usize) -> Vec<f32> {
    let term = |rank: u32, k: usize| input(rank, elements)[k] * (1 << rank) as f32;
    (0..elements).map(|k| (0..RANKS).map(|rank| term(rank, k)).sum()).collect()
}

#[test]
fn every_rank_multiplies_by_its_own_scalar_before_the_sum() {
    for transport in ["shm", "threads"] {
        let results = on_threads(&setup(transport), |comm| {
            let rank = comm.rank();
            let (send, mut recv) = (input(rank, 7), vec![0.0; 7]);
            comm.all_reduce(&send, &mut recv, scalar(rank)).unwrap();
            let mut joint = send.clone();
            comm.all_reduce_in_place(&mut joint, scalar(rank)).unwrap();
            assert_eq!((joint, &send), (recv.clone(), &input(rank, 7)));

            let mut part = [0.0; 2];
            comm.reduce_scatter(&input(rank, 6), &mut part, scalar(rank)).unwrap();
            let mut whole = input(rank, 6);
            comm.reduce_scatter_in_place(&mut whole, scalar(rank)).unwrap();
            assert_eq!(whole[2 * rank as usize..][..2], part);
            assert_eq!(part, expected(6)[2 * rank as usize..][..2]);
            recv
        });
        assert_eq!(results, vec![expected(7); RANKS as usize], "{transport}");
    }
}

#[test]
fn a_scalar_that_a_type_has_not_is_refused_and_changes_nothing() {
    on_threads(&setup("shm"), |comm| {
        let mut numbers = [1_i32, 2, 3];
        let error = comm.all_reduce_in_place(&mut numbers, Reduction::PreMulSum(0.5)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(numbers, [1, 2, 3]);
        comm.all_reduce_in_place(&mut numbers, Reduction::PreMulSum(-2.0)).unwrap();
        assert_eq!(numbers, [-6, -12, -18]);
        comm.all_reduce_in_place(&mut numbers, ReduceOp::Max).unwrap();
    });
}
