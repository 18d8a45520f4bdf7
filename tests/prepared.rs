//! Persistent operations and coalesced calls.

mod support;

use support::ranks::{Setup, on_threads};
use ubccl::{Blocks, Choice, Collective, DataType, ErrorKind, ReduceOp};

const RANKS: u32 = 3;

fn setup(transport: &'static str) -> Setup {
    Setup { transport, ranks: RANKS, algorithm: None, choice: Choice::default() }
}

#[test]
fn a_prepared_call_is_started_again_and_again_between_others() {
    for transport in ["shm", "tcp", "threads"] {
        on_threads(&setup(transport), |comm| {
            let rank = comm.rank() as i32;
            let sum = Collective::all_reduce(5, DataType::I32, ReduceOp::Sum);
            let mut apart = comm.prepare(&sum, vec![0; 5], vec![0; 5]).unwrap();
            let mut joint = comm.prepare_in_place(&sum, vec![0; 5]).unwrap();
            for turn in 0..20 {
                apart.input().unwrap().fill(rank + turn);
                joint.input().unwrap().fill(rank - turn);
                apart.start().unwrap();
                joint.start().unwrap();
                comm.barrier().unwrap();
                joint.wait().unwrap();
                assert_eq!(joint.output().unwrap(), [3 - 3 * turn; 5]);
                while !apart.test().unwrap() {
                    std::thread::yield_now();
                }
                assert_eq!(apart.output().unwrap(), [3 + 3 * turn; 5]);
                assert_eq!(apart.input().unwrap(), [rank + turn; 5]);
            }
        });
    }
}

#[test]
fn tables_of_a_prepared_call_are_kept() {
    on_threads(&setup("shm"), |comm| {
        let rank = comm.rank();
        let mut prepared = {
            let counts: Vec<u64> = vec![2, 0, 3];
            let call = Collective::all_gather_v(DataType::U8, Blocks::packed(&counts));
            let own = vec![rank as u8; counts[rank as usize] as usize];
            comm.prepare(&call, own, vec![9; 5]).unwrap()
        };
        for _ in 0..3 {
            prepared.start().unwrap();
            prepared.wait().unwrap();
            assert_eq!(prepared.output().unwrap(), [0, 0, 2, 2, 2]);
            prepared.output().unwrap().fill(9);
        }
    });
}

#[test]
fn what_is_under_way_is_not_touched_and_outlives_its_handle() {
    on_threads(&setup("shm"), |comm| {
        let sum = Collective::all_reduce(100_000, DataType::F32, ReduceOp::Sum);
        let mut prepared = comm.prepare_in_place(&sum, vec![1.0_f32; 100_000]).unwrap();
        if comm.rank() == 0 {
            // The others have not called: it is under way.
            prepared.start().unwrap();
            for refused in [prepared.start().unwrap_err(), prepared.input().map(drop).unwrap_err()] {
                assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
                assert!(refused.message().contains("under way"), "{refused}");
            }
            assert!(!prepared.wait_timeout(std::time::Duration::from_millis(1)).unwrap());
            drop(prepared);
            comm.send(&[1_u8], 1).unwrap();
            comm.send(&[1_u8], 2).unwrap();
        } else {
            comm.receive(&mut [0_u8], 0).unwrap();
            prepared.start().unwrap();
            prepared.wait().unwrap();
            assert!(prepared.output().unwrap().iter().all(|&x| x == 3.0));
        }
        comm.barrier().unwrap();
    });
}

#[test]
fn a_call_that_is_wrong_is_refused_when_it_is_prepared() {
    on_threads(&setup("shm"), |comm| {
        let sum = Collective::all_reduce(5, DataType::I32, ReduceOp::Sum);
        let error = comm.prepare(&sum, vec![0_i32; 4], vec![0; 5]).map(drop).unwrap_err();
        assert!(error.message().contains("the input has 4 elements, it needs 5"), "{error}");
    });
}

/// Lengths below and above the one up to which buffers are packed, in mixed order, one of them empty.
const LENGTHS: [usize; 6] = [3, 20_000, 0, 16_384, 16_385, 7];

#[test]
fn coalesced_buffers_are_what_single_calls_would_make_them() {
    for transport in ["shm", "threads"] {
        on_threads(&setup(transport), |comm| {
            let rank = comm.rank();
            let fill =
                |rank: u32| LENGTHS.map(|len| (0..len).map(|k| (k as u32 + rank) as f32).collect::<Vec<_>>());
            let mut sums = fill(rank);
            comm.all_reduce_coalesced(&mut sums.each_mut().map(Vec::as_mut_slice), ReduceOp::Sum).unwrap();
            for sum in &sums {
                assert!(sum.iter().enumerate().all(|(k, &x)| x == (3 * k + 3) as f32));
            }
            let mut copies = fill(rank);
            comm.broadcast_coalesced(&mut copies.each_mut().map(Vec::as_mut_slice), 2).unwrap();
            assert_eq!(copies, fill(2));
            comm.all_reduce_coalesced::<f32>(&mut [], ReduceOp::Max).unwrap();
        });
    }
}

#[test]
fn buffers_that_are_cut_differently_are_a_mismatch() {
    let results = support::ranks::start_threads(
        &setup("shm"),
        |config| config,
        |rank, comm| {
            let comm = comm.expect("all ranks come");
            let (mut long, mut short) = ([1_i32; 4], [1_i32; 2]);
            // Six elements on every rank.
            let result = match rank {
                0 => comm.all_reduce_coalesced(&mut [&mut long, &mut short], ReduceOp::Sum),
                _ => comm.all_reduce_coalesced(&mut [&mut short, &mut long], ReduceOp::Sum),
            };
            result.and_then(|()| comm.barrier()).unwrap_err()
        },
    );
    for error in results {
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert!(error.message().contains("coalesce buffers of the same lengths"), "{error}");
    }
}
