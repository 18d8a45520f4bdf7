//! What kernels must give: f64 and i128, one element at a time, float types decoded and rounded by their definitions.

use half::bf16;

use super::layout;
use crate::{DataType, ReduceOp};

/// The oracle: f64 and i128, one element, no code of the kernels. An f32 sum, product or quotient rounded from the f64
/// one is the f32 one (53 ≥ 2·24 + 2 bits: the double rounding is harmless); smaller types are folded as f32.
pub(super) fn oracle((dtype, op): (DataType, ReduceOp), column: &[&[u8]]) -> Vec<u8> {
    let bits = |bytes: &&[u8]| {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(whole)
    };
    let bits = column.iter().map(bits);
    let result = match layout::of(dtype.name()) {
        Some(layout) => {
            let round = |wide: f64| if dtype == DataType::F64 { wide } else { f64::from(wide as f32) };
            layout.nearest(float_oracle(op, bits.map(|bits| layout.value(bits)), round))
        }
        None => {
            let unused = 128 - 8 * dtype.size() as u32;
            let is_signed = dtype.name().starts_with('i');
            let widen = |bits: u64| match is_signed {
                true => i128::from(bits) << unused >> unused,
                false => i128::from(bits),
            };
            integer_oracle(op, bits.map(widen)) as u64
        }
    };
    result.to_le_bytes()[..dtype.size()].to_vec()
}

fn float_oracle(op: ReduceOp, values: impl ExactSizeIterator<Item = f64>, round: impl Fn(f64) -> f64) -> f64 {
    let n = values.len() as f64;
    let combine = |a: f64, b: f64| match op {
        ReduceOp::Sum | ReduceOp::PreMulSum | ReduceOp::Avg => round(a + b),
        ReduceOp::Prod => round(a * b),
        _ if a.is_nan() || b.is_nan() => f64::NAN,
        ReduceOp::Max => std::cmp::max_by(a, b, f64::total_cmp),
        ReduceOp::Min => std::cmp::min_by(a, b, f64::total_cmp),
        other => panic!("{other:?} is not for floats"),
    };
    let fold = values.reduce(combine).unwrap();
    if op == ReduceOp::Avg { round(fold / n) } else { fold }
}

fn integer_oracle(op: ReduceOp, values: impl ExactSizeIterator<Item = i128>) -> i128 {
    let n = values.len() as i128;
    match op {
        ReduceOp::Sum | ReduceOp::PreMulSum => values.sum(),
        ReduceOp::Prod => values.fold(1, i128::wrapping_mul),
        ReduceOp::Max => values.max().unwrap(),
        ReduceOp::Min => values.min().unwrap(),
        ReduceOp::Avg => values.sum::<i128>() / n,
        ReduceOp::And => values.fold(-1, |a, b| a & b),
        ReduceOp::Or => values.fold(0, |a, b| a | b),
        ReduceOp::Xor => values.fold(0, |a, b| a ^ b),
        ReduceOp::User(_) => panic!("not ours"),
    }
}

#[test]
fn the_oracles_layouts_are_those_of_the_types() {
    for (dtype, value, bits) in [
        (DataType::F64, 1.5, 1.5_f64.to_bits()),
        (DataType::F32, -1.5, (-1.5_f32).to_bits().into()),
        (DataType::BF16, 3.0, bf16::from_f32(3.0).to_bits().into()),
        (DataType::F16, 2.0_f64.powi(-24), 1),
        (DataType::F8E4M3, 448.0, 0x7E),
        (DataType::F8E5M2, -57344.0, 0xFB),
    ] {
        let layout = layout::of(dtype.name()).unwrap();
        assert_eq!((layout.value(bits), layout.nearest(value)), (value, bits), "{dtype:?}");
    }
}
