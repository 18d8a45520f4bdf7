//! Every collective on every transport against a plain oracle.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use support::oracle::{Call, exact_data, has, outputs_over, rough_data, sizes};
use support::ranks::{Case, Setup, on_threads, run};
use support::{Random, seed};
use ubccl::{Choice, Collective, DataType, ErrorKind, F8E4M3, ReduceOp};

fn calls(ranks: usize, random: &mut Random) -> Vec<Call> {
    let mut calls = vec![Call::AllGather, Call::Barrier, Call::AllToAll];
    for &(op, _) in ReduceOp::TABLE {
        let (root, seed) = (random.below(ranks as u64) as usize, random.next());
        calls.extend([Call::AllReduce(op), Call::ReduceScatter(op)]);
        calls.extend([Call::Reduce { op, root }, Call::ReduceScatterV { op, seed }]);
    }
    for root in 0..ranks {
        let seed = random.next();
        calls.extend([Call::Broadcast { root }, Call::Gather { root }, Call::Scatter { root }]);
        calls.extend([Call::GatherV { root, seed }, Call::ScatterV { root, seed }]);
    }
    for parity in 0..2 {
        let seed = random.next() & !1 | parity;
        calls.extend([Call::AllGatherV { seed }, Call::AllToAllV { seed }]);
    }
    calls.extend([Call::Shift(0), Call::Shift(1), Call::Shift(ranks / 2)]);
    calls
}

fn case(
    call: Call,
    dtype: DataType,
    count: usize,
    ranks: usize,
    in_place: bool,
    random: &mut Random,
) -> Case {
    let inputs =
        (0..ranks).map(|rank| exact_data(call, dtype, sizes(call, ranks, rank, count).0, random)).collect();
    Case { call, dtype, count, in_place, inputs, skew: random.below(5) as usize * dtype.size() }
}

/// Algorithms that do a call, and the chooser.
fn algorithms() -> Vec<Option<&'static str>> {
    std::iter::once(None).chain(ubccl::algorithms().map(|algorithm| Some(algorithm.name))).collect()
}

fn does(algorithm: Option<&'static str>, call: Call, ranks: usize) -> bool {
    let Some(name) = algorithm else { return true };
    let call = support::ranks::collective(call, DataType::U8, 0, ranks as u32, 0);
    match ubccl::algorithm(name).expect("a name of the index").supports_call(&call, ranks as u32) {
        Ok(()) => {
            assert!(name != "ring" || call.op() != Some(ReduceOp::Avg), "an average is no chain of averages");
            true
        }
        Err(error) => {
            assert!(!error.message().is_empty());
            false
        }
    }
}

/// A number for each type with each operation.
fn pair(call: Call, dtype: DataType) -> usize {
    call.op().map_or(0, |op| usize::from(op.code())) + usize::from(dtype.code())
}

fn has_type(call: Call, dtype: DataType) -> bool {
    call.op().is_none_or(|op| has(op, dtype))
}

/// Counts around nothing, one, odd ones, the fragments of the transports and the chooser's switch.
const COUNTS: &[usize] = &[0, 1, 2, 3, 7, 16, 1023, 5000, 40_961];

fn check(setup: &Setup, cases: &[Case]) {
    let results = run(setup, cases);
    for (index, case) in cases.iter().enumerate() {
        let expected = outputs_over(case.call, case.dtype, &case.inputs, case.count, case.in_place);
        for (rank, outputs) in results.iter().enumerate() {
            assert!(
                outputs[index] == expected[rank],
                "{setup:?}: rank {rank} has wrong bytes for {:?} {:?} count {} in_place {}",
                case.call,
                case.dtype,
                case.count,
                case.in_place
            );
        }
    }
}

fn every_call(transport: &'static str) {
    let mut random = Random(seed(transport));
    let ranks = [1_usize, 2, 3, 5, 8].into_iter().enumerate();
    let setups = ranks.flat_map(|ranks| algorithms().into_iter().enumerate().map(move |a| (ranks, a)));
    for ((turn, ranks), (number, algorithm)) in setups {
        let mut cases = Vec::new();
        let calls = calls(ranks, &mut random).into_iter();
        for call in calls.filter(|&call| does(algorithm, call, ranks)) {
            let types = DataType::TABLE.iter().filter(|row| has_type(call, row.dtype));
            // A third of the pairs at a time: over five rank counts every algorithm meets every pair.
            for row in types.filter(|row| (pair(call, row.dtype) + number + turn).is_multiple_of(3)) {
                let count = COUNTS[random.below(COUNTS.len() as u64) as usize];
                let in_place = random.below(2) == 0 && call.may_be_in_place();
                cases.push(case(call, row.dtype, count, ranks, in_place, &mut random));
            }
        }
        let lanes = 1 + random.below(3) as u8;
        let choice = Choice {
            lanes,
            chunk_bytes: [64, 4096, 256 << 10][random.below(3) as usize],
            ..Choice::default()
        };
        check(&Setup { transport, ranks: ranks as u32, algorithm, choice }, &cases);
    }
}

#[test]
fn every_collective_gives_the_oracles_bytes_on_every_transport() {
    for transport in ubccl::transports() {
        every_call(transport.name);
    }
}

/// For floats whose order of addition shows: all ranks, transports and repetitions have the same bits, whatever the one
/// algorithm is. (What the tuner picks differs by transport: `reproducible.rs` is about that.)
#[test]
fn random_floats_give_the_same_bits_on_every_transport_and_rank() {
    let mut random = Random(seed("floats"));
    for algorithm in algorithms().into_iter().flatten().map(Some) {
        for ranks in [2_usize, 3, 5, 8] {
            let mut cases = Vec::new();
            let sums = [ReduceOp::Sum, ReduceOp::Avg].map(Call::AllReduce);
            let calls: Vec<Call> = sums.into_iter().filter(|&call| does(algorithm, call, ranks)).collect();
            for row in DataType::TABLE.iter().filter(|row| row.is_float) {
                let dtype = row.dtype;
                for (count, &call) in
                    [1_usize, 37, 5003].into_iter().flat_map(|n| calls.iter().map(move |c| (n, c)))
                {
                    let inputs = (0..ranks).map(|_| rough_data(dtype, count, &mut random)).collect();
                    cases.push(Case { call, dtype, count, in_place: false, inputs, skew: 0 });
                }
            }
            cases.extend(cases.clone().into_iter().map(|case| Case { in_place: true, ..case }));
            let mut seen: Option<Vec<Vec<u8>>> = None;
            for transport in ubccl::transports() {
                let choice = Choice { lanes: 2, chunk_bytes: 1024, ..Choice::default() };
                let setup = Setup { transport: transport.name, ranks: ranks as u32, algorithm, choice };
                for (rank, outputs) in run(&setup, &cases).into_iter().enumerate() {
                    let (apart, joint) = outputs.split_at(outputs.len() / 2);
                    assert!(apart == joint, "{setup:?}: in place differs on rank {rank}");
                    let first = seen.get_or_insert_with(|| outputs.clone());
                    assert!(
                        *first == outputs,
                        "{setup:?}: rank {rank} has other bits than rank 0 of the first"
                    );
                }
            }
        }
    }
}

fn two_ranks(algorithm: Option<&'static str>) -> Setup {
    Setup { transport: "shm", ranks: 2, algorithm, choice: Choice::default() }
}

#[test]
fn an_operation_that_a_type_or_an_algorithm_has_not_is_refused_and_harms_nothing() {
    let results = on_threads(&two_ranks(Some("ring")), |comm| {
        let mut buffer = [1.0_f32 + comm.rank() as f32; 3];
        let bits = comm.all_reduce_in_place(&mut buffer, ReduceOp::Xor).unwrap_err();
        assert_eq!(bits.kind(), ErrorKind::InvalidArgument);
        assert!(bits.message().contains("xor is not defined for f32"), "{bits}");
        let average = comm.all_reduce_in_place(&mut buffer, ReduceOp::Avg).unwrap_err();
        assert_eq!(average.kind(), ErrorKind::Unsupported);
        assert!(average.message().contains("ring does not do avg"), "{average}");
        comm.all_reduce_in_place(&mut buffer, ReduceOp::Prod).expect("nothing was sent before");
        buffer
    });
    assert_eq!(results, [[2.0; 3]; 2]);
}

/// A call that was made before is not checked again in full; its buffers are.
#[test]
fn a_repeated_call_with_buffers_of_other_lengths_is_refused_and_harms_nothing() {
    on_threads(&two_ranks(None), |comm| {
        let sum = Collective::all_reduce(4, DataType::U8, ReduceOp::Sum);
        let gather = Collective::all_gather(4, DataType::U8);
        for _ in 0..20 {
            let (mut whole, mut all) = ([1; 4], [0; 8]);
            comm.run(&sum, &[1; 4], &mut whole).expect("it works");
            comm.run_in_place(&sum, &mut whole).expect("it works");
            assert_eq!(whole, [4; 4]);
            comm.run(&gather, &whole, &mut all).expect("it works");
            assert_eq!(all, [4; 8]);
            for len in [0, 3, 5, 8] {
                let (input, mut output) = (vec![1; len], vec![1; len]);
                let errors = [
                    comm.run(&sum, &input, &mut whole),
                    comm.run(&sum, &[1; 4], &mut output),
                    comm.run_in_place(&sum, &mut output),
                    comm.run(&gather, &input, &mut all),
                ];
                for error in errors {
                    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidArgument, "{len}");
                }
            }
        }
    });
}

/// Shared memory does the first of these by publications, everything else goes by messages.
#[test]
fn nobody_leaves_a_barrier_before_all_have_come() {
    const RANKS: u32 = 3;
    for transport in ["threads", "shm", "tcp"] {
        for algorithm in [Some("mesh-one-shot"), Some("binomial"), None] {
            let setup = Setup { transport, ranks: RANKS, algorithm, choice: Choice::default() };
            let came = Arc::new(AtomicU32::new(0));
            on_threads(&setup, move |comm| {
                for round in 1..=200 {
                    if round % RANKS == comm.rank() {
                        std::thread::yield_now(); // another one is late each time
                    }
                    came.fetch_add(1, Ordering::SeqCst);
                    comm.barrier().expect("all ranks call it");
                    let seen = came.load(Ordering::SeqCst);
                    assert!(seen >= round * RANKS, "{transport}, {algorithm:?}: {seen} in round {round}");
                }
            });
        }
    }
}

#[test]
fn eight_bit_floats_are_elements_of_the_typed_calls() {
    let results = on_threads(&two_ranks(None), |comm| {
        let mut average = [F8E4M3::from_f32(3.0 * (comm.rank() + 1) as f32), F8E4M3::from_f32(448.0)];
        comm.all_reduce_in_place(&mut average, ReduceOp::Avg).expect("averages are chosen for");
        average.map(F8E4M3::to_f32)
    });
    assert_eq!(results, [[4.5, 448.0]; 2]);
}
