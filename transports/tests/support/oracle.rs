//! Reductions as they should be, in plain scalar code that shares nothing with the kernels.

use ubccl_core::{DataType, ReduceOp};

/// Folds `sources` in order, element by element, rounding once.
pub fn reduce(dtype: DataType, op: ReduceOp, sources: &[Vec<u8>]) -> Vec<u8> {
    let width = dtype.row().size;
    let elements = sources[0].len() / width;
    let column = |at: usize| sources.iter().map(move |source| &source[at * width..(at + 1) * width]);
    (0..elements).flat_map(|at| element(dtype, op, column(at))).collect()
}

fn element<'a>(dtype: DataType, op: ReduceOp, column: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    match dtype {
        DataType::F32 => {
            let values = column.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
            fold_floats(op, values).to_le_bytes().to_vec()
        }
        DataType::BF16 => {
            let values = column.map(|bytes| bf16_value(u16::from_le_bytes(bytes.try_into().unwrap())));
            bf16_bits(fold_floats(op, values)).to_le_bytes().to_vec()
        }
        DataType::I32 => {
            let values = column.map(|bytes| i128::from(i32::from_le_bytes(bytes.try_into().unwrap())));
            (fold_integers(op, values) as i32).to_le_bytes().to_vec()
        }
        DataType::U8 => vec![fold_integers(op, column.map(|bytes| i128::from(bytes[0]))) as u8],
        other => panic!("the oracle does not know {}", other.name()),
    }
}

fn fold_floats(op: ReduceOp, values: impl Iterator<Item = f32>) -> f32 {
    let fold = |a: f32, b: f32| match op {
        ReduceOp::Sum => a + b,
        ReduceOp::Max => a.max(b),
        other => panic!("the oracle does not know {}", other.name()),
    };
    values.reduce(fold).unwrap()
}

fn fold_integers(op: ReduceOp, values: impl Iterator<Item = i128>) -> i128 {
    let fold = |a: i128, b: i128| match op {
        ReduceOp::Sum => a + b,
        ReduceOp::Max => a.max(b),
        other => panic!("the oracle does not know {}", other.name()),
    };
    values.reduce(fold).unwrap()
}

/// The value of bf16 bits.
pub fn bf16_value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bf16, ties to even. Finite values only.
pub fn bf16_bits(value: f32) -> u16 {
    assert!(!value.is_nan(), "test data has no NaN");
    let bits = value.to_bits();
    let (kept, rest) = (bits >> 16, bits & 0xFFFF);
    let up = rest > 0x8000 || (rest == 0x8000 && kept & 1 == 1);
    (kept + u32::from(up)) as u16
}

/// Random elements: finite floats of mixed sign and magnitude, where order and rounding show; any integers.
pub fn elements(dtype: DataType, random: &mut super::memory::Random, count: usize) -> Vec<u8> {
    let mut float = || {
        let word = random.word();
        let magnitude = 1.0 + (word & 0xFFFF) as f32 / 65536.0;
        let scaled = magnitude * [0.25, 1.0, 3.0, 64.0][(word >> 20) as usize % 4];
        if word >> 40 & 1 == 1 { -scaled } else { scaled }
    };
    match dtype {
        DataType::F32 => (0..count).flat_map(|_| float().to_le_bytes()).collect(),
        DataType::BF16 => (0..count).flat_map(|_| bf16_bits(float()).to_le_bytes()).collect(),
        _ => super::memory::pattern(random.word(), count * dtype.row().size),
    }
}
