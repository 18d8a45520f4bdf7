//! Random floats, whose sums depend on order and rounding: every element is the expression that its plan declares.

mod support;

use support::oracle::{Call, decode, encode, outputs_over, rough_data, sizes};
use support::ranks::{Case, Setup, collective, run};
use support::tables::tables;
use support::{Random, seed};
use ubccl::plan::{Association, Plan};
use ubccl::{Choice, Config, DataType, Planner, ReduceOp};

const TYPES: [DataType; 5] = [DataType::F64, DataType::F32, DataType::BF16, DataType::F16, DataType::F8E5M2];

fn calls(ranks: usize, random: &mut Random) -> [Call; 4] {
    let op = ReduceOp::Sum;
    let root = random.below(ranks as u64) as usize;
    let seed = random.next();
    [
        Call::AllReduce(op),
        Call::ReduceScatter(op),
        Call::Reduce { op, root },
        Call::ReduceScatterV { op, seed },
    ]
}

/// A sum in list order: wide until the end, then rounded once.
fn fold(dtype: DataType, values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values = values.into_iter();
    let first = values.next().expect("a rank");
    let add = |a: f64, b: f64| match dtype {
        DataType::F64 => a + b,
        _ => f64::from(a as f32 + b as f32),
    };
    decode(dtype, &encode(dtype, values.fold(first, add)))
}

/// What a plan declares for one element of the reduced vector, whose block is `block`; `None` if it declares only that
/// there is one expression.
fn expression(
    association: Association,
    dtype: DataType,
    x: &[f64],
    block: usize,
    root: usize,
) -> Option<f64> {
    let n = x.len();
    Some(match association {
        Association::Own => return None,
        Association::None | Association::Flat => fold(dtype, x.iter().copied()),
        Association::Ring => {
            let rest = (block + 2..=block + n).map(|rank| x[rank % n]);
            rest.fold(x[(block + 1) % n], |sum, next| if n == 1 { next } else { fold(dtype, [sum, next]) })
        }
        Association::Tree { radix } => {
            let mut level: Vec<f64> = (0..n).map(|k| x[(root + k) % n]).collect();
            while level.len() > 1 {
                let groups = level.chunks(usize::from(radix));
                level = groups.map(|group| fold(dtype, group.iter().copied())).collect();
            }
            level[0]
        }
    })
}

/// Which block of the reduced vector an element lies in.
fn block_of(call: Call, ranks: usize, count: usize, element: usize) -> usize {
    let ends: Vec<usize> = match call {
        Call::AllReduce(_) | Call::Reduce { .. } => {
            (1..=ranks).map(|b| b * (count / ranks) + b.min(count % ranks)).collect()
        }
        Call::ReduceScatter(_) => (1..=ranks).map(|b| b * count).collect(),
        Call::ReduceScatterV { seed, .. } => {
            let counts = &tables(seed, ranks, count).columns[0];
            (1..=ranks).map(|b| counts[..b].iter().sum::<u64>() as usize).collect()
        }
        other => panic!("{other:?} does not reduce"),
    };
    ends.iter().position(|&end| element < end).expect("it is in the vector")
}

/// The reduced vector, as if it were one rank's input, if the plan declares what it is.
fn reduced(case: &Case, plan: &Plan) -> Option<Vec<u8>> {
    let (ranks, size) = (case.inputs.len(), case.dtype.size());
    let root = if let Call::Reduce { root, .. } = case.call { root } else { 0 };
    let elements = case.inputs[0].len() / size;
    let element = |k: usize| {
        let x: Vec<f64> =
            case.inputs.iter().map(|input| decode(case.dtype, &input[k * size..][..size])).collect();
        let block = block_of(case.call, ranks, case.count, k);
        expression(plan.association(), case.dtype, &x, block, root).map(|sum| encode(case.dtype, sum))
    };
    (0..elements).map(element).collect::<Option<Vec<_>>>().map(|elements| elements.concat())
}

/// Checks one rank's output. Where the order is the algorithm's own, who was first decides what all others, on all
/// transports, must have: `found_before` is by rank.
fn check(
    case: &Case,
    rank: usize,
    found: &[u8],
    declared: Option<&Vec<Vec<u8>>>,
    found_before: &mut Vec<Vec<u8>>,
) -> bool {
    let wanted = match declared {
        Some(declared) => &declared[rank],
        None => {
            if rank == found_before.len() {
                found_before.push(found.to_vec());
            }
            // What everybody has, everybody has alike.
            &found_before[if matches!(case.call, Call::AllReduce(_)) { 0 } else { rank }]
        }
    };
    found == wanted
}

#[test]
fn every_element_is_the_expression_that_its_plan_declares() {
    let mut random = Random(seed("expressions"));
    let mut orders = std::collections::BTreeSet::new();
    for algorithm in ubccl::algorithms().map(|algorithm| Some(algorithm.name)) {
        for (turn, ranks) in [1_usize, 2, 3, 5, 8].into_iter().enumerate() {
            let choice = Choice { lanes: 2, chunk_bytes: 1024 };
            let planner = Planner::new(&Config {
                ranks: ranks as u32,
                algorithm: algorithm.map(Into::into),
                lanes: choice.lanes,
                chunk_bytes: Some(choice.chunk_bytes),
                ..Config::default()
            })
            .expect("the index knows it");
            let (mut cases, mut expected) = (Vec::new(), Vec::new());
            for (number, call) in calls(ranks, &mut random).into_iter().enumerate() {
                let dtype = TYPES[(turn + number) % TYPES.len()];
                for count in [1, 37, 3000] {
                    let of = |rank: usize| collective(call, dtype, count, ranks as u32, rank as u32);
                    let Ok(plan) = planner.plan(&of(0), 0, false) else { continue };
                    let inputs = (0..ranks)
                        .map(|rank| rough_data(dtype, sizes(call, ranks, rank, count).0, &mut random))
                        .collect();
                    let case = Case { call, dtype, count, in_place: count == 37, inputs, skew: 0 };
                    orders.insert(format!("{:?}", plan.association()));
                    // Everybody contributes the result to a maximum: what is left is where it goes.
                    let all = reduced(&case, &plan).map(|reduced| vec![reduced; ranks]);
                    let copy = match call {
                        Call::AllReduce(_) => Call::AllReduce(ReduceOp::Max),
                        Call::ReduceScatter(_) => Call::ReduceScatter(ReduceOp::Max),
                        Call::Reduce { root, .. } => Call::Reduce { op: ReduceOp::Max, root },
                        Call::ReduceScatterV { seed, .. } => Call::ReduceScatterV { op: ReduceOp::Max, seed },
                        other => other,
                    };
                    let declared = all.map(|all| outputs_over(copy, dtype, &all, count, case.in_place));
                    expected.push((declared, Vec::new()));
                    cases.push(case);
                }
            }
            for transport in ubccl::transports() {
                let setup = Setup { transport: transport.name, ranks: ranks as u32, algorithm, choice };
                for (rank, outputs) in run(&setup, &cases).into_iter().enumerate() {
                    for ((found, (declared, before)), case) in outputs.iter().zip(&mut expected).zip(&cases) {
                        assert!(
                            check(case, rank, found, declared.as_ref(), before),
                            "{setup:?}: rank {rank}: {:?} {:?}",
                            case.call,
                            case.dtype
                        );
                    }
                }
            }
        }
    }
    assert!(orders.len() >= 5, "flat, ring, own and two trees at least: {orders:?}");
}
