//! What each collective must give, by plain loops in f64 and i128: shares no code with kernels, plans or Collective.

use ubccl::{DataType, ReduceOp};

#[path = "../../core/src/kernels/tests/layout.rs"]
mod layout;

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
    let reduced = |op: ReduceOp, elements: usize| -> Vec<u8> {
        (0..elements)
            .flat_map(|i| combine(op, dtype, inputs.iter().map(|x| &x[i * size..][..size])))
            .collect()
    };
    match call {
        Call::AllReduce(op) => vec![reduced(op, count); n],
        Call::ReduceScatter(op) => {
            let all = reduced(op, count * n);
            (0..n).map(|rank| all[rank * count * size..][..count * size].to_vec()).collect()
        }
        Call::AllGather => vec![inputs.concat(); n],
        Call::Broadcast { root } => vec![inputs[root].clone(); n],
        Call::Barrier => vec![Vec::new(); n],
        Call::Shift(shift) => (0..n).map(|rank| inputs[(rank + n - shift % n) % n].clone()).collect(),
    }
}

fn element_size(dtype: DataType) -> usize {
    match dtype {
        DataType::I64 | DataType::U64 | DataType::F64 => 8,
        DataType::I32 | DataType::U32 | DataType::F32 => 4,
        DataType::I16 | DataType::U16 | DataType::F16 | DataType::BF16 => 2,
        DataType::I8 | DataType::U8 | DataType::F8E4M3 | DataType::F8E5M2 => 1,
        other => panic!("the oracle does not know {other:?}"),
    }
}

fn is_signed(dtype: DataType) -> bool {
    matches!(dtype, DataType::I8 | DataType::I16 | DataType::I32 | DataType::I64)
}

/// Which pairs exist: the bits of floats are nobody's business.
pub fn has(op: ReduceOp, dtype: DataType) -> bool {
    let bitwise = matches!(op, ReduceOp::And | ReduceOp::Or | ReduceOp::Xor);
    !(bitwise && layout::of(dtype.name()).is_some())
}

/// One element's result. Float data of these tests is exact in any order, so f64 folds need no care.
fn combine<'a>(op: ReduceOp, dtype: DataType, values: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let bits = values.map(|bytes| {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(whole)
    });
    let result = match layout::of(dtype.name()) {
        Some(layout) => {
            let (result, n) = fold_float(op, bits.map(|bits| layout.value(bits)));
            if op == ReduceOp::Avg {
                // The one operation whose result is rounded: in f32, if that is wider, and once more when stored.
                let wide = result / n as f64;
                layout.nearest(if dtype == DataType::F64 { wide } else { f64::from(wide as f32) })
            } else {
                let stored = layout.nearest(result);
                assert_eq!(layout.value(stored), result, "the test's data is exact in {dtype:?}");
                stored
            }
        }
        None => {
            let unused = 128 - 8 * element_size(dtype) as u32;
            let widen = |bits: u64| match is_signed(dtype) {
                true => i128::from(bits) << unused >> unused,
                false => i128::from(bits),
            };
            fold_int(op, bits.map(widen)) as u64
        }
    };
    result.to_le_bytes()[..element_size(dtype)].to_vec()
}

/// The fold, for an average the sum, and of how many values.
fn fold_float(op: ReduceOp, values: impl Iterator<Item = f64>) -> (f64, usize) {
    let values: Vec<f64> = values.collect();
    let each = values.iter().copied();
    let fold = match op {
        ReduceOp::Sum | ReduceOp::Avg => each.sum(),
        ReduceOp::Prod => each.product(),
        ReduceOp::Max => each.fold(f64::NEG_INFINITY, f64::max),
        ReduceOp::Min => each.fold(f64::INFINITY, f64::min),
        other => panic!("the oracle does not know {other:?} of floats"),
    };
    (fold, values.len())
}

fn fold_int(op: ReduceOp, values: impl Iterator<Item = i128>) -> i128 {
    let values: Vec<i128> = values.collect();
    let each = values.iter().copied();
    match op {
        ReduceOp::Sum => each.sum(),
        ReduceOp::Prod => each.fold(1, i128::wrapping_mul),
        ReduceOp::Max => each.max().unwrap(),
        ReduceOp::Min => each.min().unwrap(),
        ReduceOp::Avg => each.sum::<i128>() / values.len() as i128,
        ReduceOp::And => each.reduce(|a, b| a & b).unwrap(),
        ReduceOp::Or => each.reduce(|a, b| a | b).unwrap(),
        ReduceOp::Xor => each.reduce(|a, b| a ^ b).unwrap(),
        other => panic!("the oracle does not know {other:?}"),
    }
}

/// Data that are exact in any order of reduction in every type, for up to eight ranks. Floats get small whole numbers
/// of both signs, so small that no partial sum needs more bits than the type has; for products powers of two that
/// neither over- nor underflow. Integers, which wrap, get any bits.
pub fn exact_data(call: Call, dtype: DataType, elements: usize, random: &mut super::Random) -> Vec<u8> {
    let is_product = matches!(call, Call::AllReduce(ReduceOp::Prod) | Call::ReduceScatter(ReduceOp::Prod));
    let Some(layout) = layout::of(dtype.name()) else {
        let bytes = elements * element_size(dtype);
        return (0..bytes).map(|_| random.next() as u8).collect();
    };
    let mut float = || match dtype {
        _ if is_product => [0.5, -1.0, 1.0, 1.0, 2.0][random.below(5) as usize],
        DataType::F32 | DataType::F64 => (random.below(15) as f64 - 7.0) * 1000.0,
        DataType::F8E4M3 => random.below(5) as f64 - 2.0,
        DataType::F8E5M2 => random.below(3) as f64 - 1.0,
        _ => random.below(15) as f64 - 7.0,
    };
    let mut element = || layout.nearest(float()).to_le_bytes().into_iter().take(element_size(dtype));
    (0..elements).flat_map(|_| element()).collect()
}

/// Random floats of both signs and many magnitudes, for which order and rounding show; whole numbers otherwise.
pub fn rough_data(dtype: DataType, elements: usize, random: &mut super::Random) -> Vec<u8> {
    let Some(layout) = layout::of(dtype.name()) else {
        return exact_data(Call::AllGather, dtype, elements, random);
    };
    let mut float = || {
        let sign = if random.below(2) == 0 { 1.0 } else { -1.0 };
        let most = if element_size(dtype) == 1 { 6 } else { 12 }; // e4m3 ends at 448
        let fraction = random.below(1 << 52) as f64 / 2.0_f64.powi(52);
        sign * (1.0 + fraction) * 2.0_f64.powi(random.below(most) as i32)
    };
    let mut element = || layout.nearest(float()).to_le_bytes().into_iter().take(element_size(dtype));
    (0..elements).flat_map(|_| element()).collect()
}
