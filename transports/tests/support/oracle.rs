//! Reductions as they should be, in plain scalar code that shares nothing with the kernels.

use ubccl_core::{DataType, ReduceOp};

#[path = "../../../core/src/kernels/tests/layout.rs"]
mod layout;

/// Folds `sources` in order, element by element, rounding once.
pub fn reduce(dtype: DataType, op: ReduceOp, sources: &[Vec<u8>]) -> Vec<u8> {
    let width = dtype.row().size;
    let elements = sources[0].len() / width;
    let column = |at: usize| sources.iter().map(move |source| &source[at * width..(at + 1) * width]);
    (0..elements).flat_map(|at| element(dtype, op, column(at))).collect()
}

fn element<'a>(dtype: DataType, op: ReduceOp, column: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let bits = column.map(|bytes| {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(whole)
    });
    let width = dtype.row().size;
    let result = match layout::of(dtype.name()) {
        Some(layout) => {
            // Types up to f32 are folded in f32; f64 holds its sums, products and quotients well enough to round them.
            let round = |wide: f64| if dtype == DataType::F64 { wide } else { f64::from(wide as f32) };
            layout.nearest(fold_floats(op, bits.map(|bits| layout.value(bits)), round))
        }
        None => {
            let unused = 128 - 8 * width as u32;
            let is_signed = dtype.name().starts_with('i');
            let widen = |bits: u64| match is_signed {
                true => i128::from(bits) << unused >> unused,
                false => i128::from(bits),
            };
            fold_integers(op, bits.map(widen)) as u64
        }
    };
    result.to_le_bytes()[..width].to_vec()
}

fn fold_floats(op: ReduceOp, values: impl Iterator<Item = f64>, round: impl Fn(f64) -> f64) -> f64 {
    let values: Vec<f64> = values.collect();
    let fold = |a: f64, b: f64| match op {
        ReduceOp::Sum | ReduceOp::PreMulSum | ReduceOp::Avg => round(a + b),
        ReduceOp::Prod => round(a * b),
        ReduceOp::Max => a.max(b),
        ReduceOp::Min => a.min(b),
        other => panic!("the oracle does not know {} of floats", other.name()),
    };
    let folded = values.iter().copied().reduce(fold).unwrap();
    if op == ReduceOp::Avg { round(folded / values.len() as f64) } else { folded }
}

fn fold_integers(op: ReduceOp, values: impl Iterator<Item = i128>) -> i128 {
    let values: Vec<i128> = values.collect();
    let fold = |a: i128, b: i128| match op {
        ReduceOp::Sum | ReduceOp::PreMulSum | ReduceOp::Avg => a + b,
        ReduceOp::Prod => a.wrapping_mul(b),
        ReduceOp::Max => a.max(b),
        ReduceOp::Min => a.min(b),
        ReduceOp::And => a & b,
        ReduceOp::Or => a | b,
        ReduceOp::Xor => a ^ b,
        other => panic!("the oracle does not know {}", other.name()),
    };
    let folded = values.iter().copied().reduce(fold).unwrap();
    if op == ReduceOp::Avg { folded / values.len() as i128 } else { folded }
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
    match layout::of(dtype.name()) {
        Some(layout) => {
            let mut element =
                || layout.nearest(f64::from(float())).to_le_bytes().into_iter().take(dtype.size());
            (0..count).flat_map(|_| element()).collect()
        }
        None => super::memory::pattern(random.word(), count * dtype.row().size),
    }
}
