//! Reproducible results: the same bits on every rank, from every algorithm that promises it, on every transport, wherever
//! ranks stand. The oracle is the promise: a left fold in rank order, accumulated wide, rounded once.

mod support;

use std::sync::{Arc, Barrier};
use support::oracle::{Call, decode, encode, outputs_over, sizes};
use support::ranks::{ANYWHERE, Case, Setup, Standing, collective, run_at, start_threads};
use support::{Random, seed};
use ubccl::{Choice, Config, DataType, ErrorKind, ReduceOp};
use ubccl_algorithms::reproducible::is_reproducible;
use ubccl_core::Spec;

const RANKS: usize = 8;
const TYPES: [DataType; 2] = [DataType::F32, DataType::BF16];

const TWO_BY_FOUR: &str = "
name = 'two nodes of four'
sources = ['a test']
[topology]
unit = 'NPU'
level = [
    { name = 'node', holds = 4, link = { latency_ps = 1_000_000, rate_bytes_per_s = 200_000_000_000 } },
    { name = 'machine', holds = 2, link = { latency_ps = 3_000_000, rate_bytes_per_s = 50_000_000_000 } },
]";

const FIVE_AND_THREE: &str = "
name = 'a node of five, and three of another'
sources = ['a test']
[topology]
unit = 'NPU'
level = [
    { name = 'node', holds = 5, link = { latency_ps = 500_000, rate_bytes_per_s = 100_000_000_000 } },
    { name = 'machine', holds = 2, link = { latency_ps = 9_000_000, rate_bytes_per_s = 10_000_000_000 } },
]";

/// Three ways to stand: all alike, two nodes of four, one of five and one of three.
const STANDINGS: [Standing; 3] = [
    ANYWHERE,
    Standing { layout: Some("node=4"), fabric: TWO_BY_FOUR, reproducible: false },
    Standing { layout: Some("node=5+3"), fabric: FIVE_AND_THREE, reproducible: false },
];

fn calls(random: &mut Random) -> [Call; 4] {
    let (op, root, seed) = (ReduceOp::Sum, random.below(RANKS as u64) as usize, random.next());
    [
        Call::AllReduce(op),
        Call::ReduceScatter(op),
        Call::Reduce { op, root },
        Call::ReduceScatterV { op, seed },
    ]
}

/// Floats of 80 powers of two: sums in another order, or rounded once more, have other bits.
fn wild(dtype: DataType, elements: usize, random: &mut Random) -> Vec<u8> {
    let mut float = || {
        let sign = if random.below(2) == 0 { 1.0 } else { -1.0 };
        let fraction = random.below(1 << 52) as f64 / 2.0_f64.powi(52);
        // Half of them near each other, so that sums are not just their largest term.
        let power = if random.below(2) == 0 { random.below(4) as i32 } else { random.below(80) as i32 - 40 };
        sign * (1.0 + fraction) * 2.0_f64.powi(power)
    };
    (0..elements).flat_map(|_| encode(dtype, float())).collect()
}

/// The sum of one element, in rank order.
fn fold(dtype: DataType, values: impl Iterator<Item = f64>) -> Vec<u8> {
    let sum = values.reduce(|a, b| f64::from(a as f32 + b as f32)).expect("there are ranks");
    encode(dtype, sum)
}

/// What every rank must get.
fn promised(case: &Case) -> Vec<Vec<u8>> {
    let size = case.dtype.size();
    let element = |k: usize| {
        fold(case.dtype, case.inputs.iter().map(|input| decode(case.dtype, &input[k * size..][..size])))
    };
    let reduced: Vec<u8> = (0..case.inputs[0].len() / size).flat_map(element).collect();
    // Everybody contributes the result to a maximum: what is left is where it goes.
    let op = ReduceOp::Max;
    let call = match case.call {
        Call::AllReduce(_) => Call::AllReduce(op),
        Call::ReduceScatter(_) => Call::ReduceScatter(op),
        Call::Reduce { root, .. } => Call::Reduce { op, root },
        Call::ReduceScatterV { seed, .. } => Call::ReduceScatterV { op, seed },
        other => panic!("{other:?} does not reduce"),
    };
    outputs_over(call, case.dtype, &vec![reduced; RANKS], case.count, case.in_place)
}

fn cases(counts: &[usize], random: &mut Random, is_wanted: impl Fn(Call) -> bool) -> Vec<Case> {
    let calls: Vec<Call> = calls(random).into_iter().filter(|&call| is_wanted(call)).collect();
    let mut cases = Vec::new();
    for (number, &count) in counts.iter().enumerate() {
        for (dtype, &call) in TYPES.into_iter().flat_map(|dtype| calls.iter().map(move |call| (dtype, call)))
        {
            let inputs =
                (0..RANKS).map(|rank| wild(dtype, sizes(call, RANKS, rank, count).0, random)).collect();
            cases.push(Case { call, dtype, count, in_place: number % 2 == 1, inputs, skew: 0 });
        }
    }
    cases
}

/// Whether an algorithm does a call, and promises its bits.
fn promises(name: &str, call: Call) -> bool {
    let algorithm = ubccl::algorithm(name).expect("a name of the index");
    let call = collective(call, DataType::F32, 1, RANKS as u32, 0);
    let spec = Spec::new(&call, RANKS as u32, 0, false, Choice::default());
    algorithm.supports_call(&call, RANKS as u32).is_ok() && is_reproducible(algorithm, &spec)
}

/// `promised` is by case and rank.
fn check(standing: &Standing, setup: &Setup, cases: &[Case], promised: &[Vec<Vec<u8>>]) {
    for (rank, outputs) in run_at(standing, setup, cases).into_iter().enumerate() {
        for ((found, case), promised) in outputs.iter().zip(cases).zip(promised) {
            let (call, dtype) = (case.call, case.dtype);
            assert!(
                *found == promised[rank],
                "{setup:?} {:?}: rank {rank} has other bits: {call:?} {dtype:?} of {}",
                standing.layout,
                case.count
            );
        }
    }
}

#[test]
fn all_that_promise_it_give_the_same_bits_on_all_transports_wherever_ranks_stand() {
    let mut random = Random(seed("reproducible"));
    let names = ubccl::algorithms().map(|algorithm| algorithm.name);
    let promising: Vec<_> = names.filter(|name| promises(name, Call::AllReduce(ReduceOp::Sum))).collect();
    assert!(promising.len() >= 4, "four ways to the same bits at least: {promising:?}");
    for name in ubccl::algorithms().map(|algorithm| algorithm.name) {
        let cases = cases(&[1, 37, 5003], &mut random, |call| promises(name, call));
        if cases.is_empty() {
            continue;
        }
        let expected: Vec<_> = cases.iter().map(promised).collect();
        for (turn, transport) in ubccl::transports().enumerate() {
            for (number, standing) in STANDINGS.iter().enumerate() {
                let lanes = 1 + ((turn + number) % 3) as u8;
                let choice = Choice { lanes, chunk_bytes: 1024, ..Choice::default() };
                let setup =
                    Setup { transport: transport.name, ranks: RANKS as u32, algorithm: Some(name), choice };
                check(standing, &setup, &cases, &expected);
            }
        }
    }
}

#[test]
fn whatever_is_chosen_for_a_size_or_a_layout_gives_the_same_bits() {
    let mut random = Random(seed("reproducible choices"));
    let cases = cases(&[1, 700, 60_001], &mut random, |_| true);
    let expected: Vec<_> = cases.iter().map(promised).collect();
    for transport in ubccl::transports() {
        for standing in STANDINGS.map(|standing| Standing { reproducible: true, ..standing }) {
            let choice = Choice { lanes: 4, ..Choice::default() };
            let setup = Setup { transport: transport.name, ranks: RANKS as u32, algorithm: None, choice };
            check(&standing, &setup, &cases, &expected);
        }
    }
}

#[test]
fn other_orders_have_other_bits_and_are_refused_where_bits_are_promised() {
    let mut random = Random(seed("other orders"));
    let cases = cases(&[5003], &mut random, |call| matches!(call, Call::AllReduce(_)));
    for name in ["ring", "nhr"] {
        let setup = Setup {
            transport: "threads",
            ranks: RANKS as u32,
            algorithm: Some(name),
            choice: Choice::default(),
        };
        let found = run_at(&ANYWHERE, &setup, &cases);
        for (number, case) in cases.iter().enumerate() {
            assert!(found[0][number] != promised(case)[0], "{name}: the data show no order");
            assert!(found.iter().all(|outputs| outputs[number] == found[0][number]), "{name}: ranks differ");
        }
        let configure = |config| Config { reproducible: true, ..config };
        // Nobody leaves before all have asked.
        let together = Arc::new(Barrier::new(RANKS));
        let refusals = start_threads(&setup, configure, move |_, comm| {
            let (comm, mut buffer) = (comm.expect("all ranks come"), [1.0_f32; 3]);
            let refusal = comm.all_reduce_in_place(&mut buffer, ReduceOp::Sum).unwrap_err();
            together.wait();
            refusal
        });
        for refusal in refusals {
            assert_eq!(refusal.kind(), ErrorKind::Unsupported);
            assert!(refusal.message().contains("reproducible"), "{refusal}");
        }
    }
}
