//! Every collective on every transport against a plain oracle.

mod support;

use support::oracle::{Call, exact_data, outputs, rough_data, sizes};
use support::ranks::{Case, Setup, run};
use support::{Random, seed};
use ubccl::{Choice, DataType, ReduceOp};

fn calls(ranks: usize) -> Vec<Call> {
    let mut calls = vec![Call::AllGather, Call::Barrier];
    for &(op, _) in ReduceOp::TABLE {
        calls.extend([Call::AllReduce(op), Call::ReduceScatter(op)]);
    }
    calls.extend((0..ranks).map(|root| Call::Broadcast { root }));
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
        (0..ranks).map(|rank| exact_data(dtype, sizes(call, ranks, rank, count).0, random)).collect();
    Case { call, dtype, count, in_place, inputs, skew: random.below(5) as usize * dtype.size() }
}

/// Algorithms that do a call, and the chooser.
fn algorithms() -> Vec<Option<&'static str>> {
    std::iter::once(None).chain(ubccl::algorithms().map(|algorithm| Some(algorithm.name))).collect()
}

fn does(algorithm: Option<&'static str>, call: Call) -> bool {
    let needs_one_shot = matches!(call, Call::Shift(_));
    let Some(name) = algorithm else { return true };
    let kind = support::ranks::collective(call, DataType::U8, 0, 1, 0).kind();
    match ubccl::algorithm(name).expect("a name of the index").supports(kind, 2) {
        Ok(()) => true,
        Err(error) => {
            assert!(!error.message().is_empty() && (needs_one_shot || name != "mesh-one-shot"));
            false
        }
    }
}

/// Counts around nothing, one, odd ones, the fragments of the transports and the chooser's switch.
const COUNTS: &[usize] = &[0, 1, 2, 3, 7, 16, 1023, 5000, 40_961];

fn check(setup: &Setup, cases: &[Case]) {
    let results = run(setup, cases);
    for (index, case) in cases.iter().enumerate() {
        let expected = outputs(case.call, case.dtype, &case.inputs, case.count);
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
    for ranks in [1_usize, 2, 3, 5, 8] {
        for algorithm in algorithms() {
            let mut cases = Vec::new();
            for call in calls(ranks).into_iter().filter(|&call| does(algorithm, call)) {
                for row in DataType::TABLE {
                    for in_place in [false, true] {
                        for _ in 0..2 {
                            let count = COUNTS[random.below(COUNTS.len() as u64) as usize];
                            cases.push(case(call, row.dtype, count, ranks, in_place, &mut random));
                        }
                    }
                }
            }
            let lanes = 1 + random.below(3) as u8;
            let choice = Choice { lanes, chunk_bytes: [64, 4096, 256 << 10][random.below(3) as usize] };
            check(&Setup { transport, ranks: ranks as u32, algorithm, choice }, &cases);
        }
    }
}

#[test]
fn every_collective_gives_the_oracles_bytes_on_every_transport() {
    for transport in ubccl::transports() {
        every_call(transport.name);
    }
}

/// For floats whose order of addition shows: all ranks, transports and repetitions have the same bits.
#[test]
fn random_floats_give_the_same_bits_on_every_transport_and_rank() {
    let mut random = Random(seed("floats"));
    for algorithm in algorithms() {
        for ranks in [2_usize, 3, 5, 8] {
            let mut cases = Vec::new();
            for dtype in [DataType::F32, DataType::BF16] {
                for count in [1_usize, 37, 5003] {
                    let inputs = (0..ranks).map(|_| rough_data(dtype, count, &mut random)).collect();
                    let call = Call::AllReduce(ReduceOp::Sum);
                    cases.push(Case { call, dtype, count, in_place: false, inputs, skew: 0 });
                }
            }
            cases.extend(cases.clone().into_iter().map(|case| Case { in_place: true, ..case }));
            let mut seen: Option<Vec<Vec<u8>>> = None;
            for transport in ubccl::transports() {
                let choice = Choice { lanes: 2, chunk_bytes: 1024 };
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
