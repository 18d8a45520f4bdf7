//! What each collective must give, by plain loops in f64 and i128: shares no code with kernels, plans or Collective.

use ubccl::{DataType, ReduceOp};

/// A call as the oracle understands it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call {
    AllReduce(ReduceOp),
    AllGather,
    ReduceScatter(ReduceOp),
    Broadcast {
        root: usize,
    },
    Barrier,
    /// Every rank sends to `rank + shift` and receives from `rank - shift`.
    Shift(usize),
}

/// Elements that one rank brings and gets.
pub fn sizes(call: Call, ranks: usize, rank: usize, count: usize) -> (usize, usize) {
    match call {
        Call::AllReduce(_) | Call::Shift(_) => (count, count),
        Call::AllGather => (count, count * ranks),
        Call::ReduceScatter(_) => (count * ranks, count),
        Call::Broadcast { root } => (if rank == root { count } else { 0 }, count),
        Call::Barrier => (0, 0),
    }
}

/// Everybody's output for everybody's input.
pub fn outputs(call: Call, dtype: DataType, inputs: &[Vec<u8>], count: usize) -> Vec<Vec<u8>> {
    let n = inputs.len();
    let size = element_size(dtype);
    let reduced = |op: ReduceOp, elements: usize| {
        (0..elements)
            .flat_map(|i| combine(op, dtype, inputs.iter().map(|x| &x[i * size..][..size])))
            .collect::<Vec<u8>>()
    };
    (0..n)
        .map(|rank| match call {
            Call::AllReduce(op) => reduced(op, count),
            Call::AllGather => inputs.concat(),
            Call::ReduceScatter(op) => {
                let all = reduced(op, count * n);
                all[rank * count * size..][..count * size].to_vec()
            }
            Call::Broadcast { root } => inputs[root].clone(),
            Call::Barrier => Vec::new(),
            Call::Shift(shift) => inputs[(rank + n - shift % n) % n].clone(),
        })
        .collect()
}

fn element_size(dtype: DataType) -> usize {
    match dtype {
        DataType::F32 | DataType::I32 => 4,
        DataType::BF16 => 2,
        DataType::U8 => 1,
        other => panic!("the oracle does not know {other:?}"),
    }
}

/// One element's result. Float data of these tests is exact in any order, so f64 sums need no care.
fn combine<'a>(op: ReduceOp, dtype: DataType, values: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    match dtype {
        DataType::F32 => {
            let values = values.map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())));
            (fold_float(op, values) as f32).to_le_bytes().to_vec()
        }
        DataType::BF16 => {
            // A bf16 is the upper half of an f32; the tests' results are bf16 exactly.
            let wide = |b: &[u8]| {
                f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b.try_into().unwrap())) << 16))
            };
            let result = fold_float(op, values.map(wide)) as f32;
            assert_eq!(result.to_bits() & 0xffff, 0, "the test's data is exact in bf16");
            ((result.to_bits() >> 16) as u16).to_le_bytes().to_vec()
        }
        DataType::I32 => {
            let values = values.map(|b| i128::from(i32::from_le_bytes(b.try_into().unwrap())));
            (fold_int(op, values) as i32).to_le_bytes().to_vec()
        }
        DataType::U8 => vec![fold_int(op, values.map(|b| i128::from(b[0]))) as u8],
        other => panic!("the oracle does not know {other:?}"),
    }
}

fn fold_float(op: ReduceOp, values: impl Iterator<Item = f64>) -> f64 {
    match op {
        ReduceOp::Sum => values.sum(),
        ReduceOp::Max => values.fold(f64::NEG_INFINITY, f64::max),
        other => panic!("the oracle does not know {other:?}"),
    }
}

fn fold_int(op: ReduceOp, values: impl Iterator<Item = i128>) -> i128 {
    match op {
        ReduceOp::Sum => values.sum(),
        ReduceOp::Max => values.max().unwrap(),
        other => panic!("the oracle does not know {other:?}"),
    }
}

/// Data whose sums are exact in any order in every type: small whole numbers of both signs where the type has them.
pub fn exact_data(dtype: DataType, elements: usize, random: &mut super::Random) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(elements * element_size(dtype));
    for _ in 0..elements {
        let small = random.below(15) as i32 - 7;
        match dtype {
            DataType::F32 => bytes.extend((small as f32 * 1000.0).to_le_bytes()),
            DataType::BF16 => bytes.extend((((small as f32).to_bits() >> 16) as u16).to_le_bytes()),
            DataType::I32 => bytes.extend((random.next() as i32).to_le_bytes()),
            DataType::U8 => bytes.push(random.next() as u8),
            other => panic!("the oracle does not know {other:?}"),
        }
    }
    bytes
}

/// Random floats of both signs and many magnitudes, for which order and rounding show; whole numbers otherwise.
pub fn rough_data(dtype: DataType, elements: usize, random: &mut super::Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..elements {
        let sign = if random.below(2) == 0 { 1.0 } else { -1.0 };
        let value = sign
            * (1.0 + random.below(1 << 20) as f32 / (1 << 20) as f32)
            * 2_f32.powi(random.below(12) as i32);
        match dtype {
            DataType::F32 => bytes.extend(value.to_le_bytes()),
            DataType::BF16 => bytes.extend(((value.to_bits() >> 16) as u16).to_le_bytes()),
            _ => return exact_data(dtype, elements, random),
        }
    }
    bytes
}
