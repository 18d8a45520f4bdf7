//! What operations mean, as the module of operations says: NaN, zeros, overflow, averages, order. Every example is run at
//! every level, alone (less than a register) and as every element of an array (whole registers and the rest).

use half::{bf16, f16};

use super::layout::{self, Layout};
use super::{Level, run};
use crate::{DataType, Element, F8E4M3, F8E5M2, ReduceOp};

/// Elements of an array: some registers of every level, and a rest.
const COUNT: usize = 131;

/// Reduces one element of each source, at every level: alone, and at every place of an array.
fn raw(dtype: DataType, op: ReduceOp, column: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut results = Vec::new();
    for (level, count) in Level::available().flat_map(|level| [1, COUNT].map(|count| (level, count))) {
        let arrays: Vec<Vec<u8>> = column.iter().map(|element| element.repeat(count)).collect();
        let sources: Vec<&[u8]> = arrays.iter().map(Vec::as_slice).collect();
        let result = run(level, (dtype, op), &sources, 0, None);
        results.extend(result.chunks(dtype.size()).map(<[u8]>::to_vec));
    }
    results
}

fn one<T: Element>(op: ReduceOp, column: &[T]) -> Vec<T> {
    let column: Vec<_> = column.iter().map(|x| bytemuck::bytes_of(x)).collect();
    raw(T::DTYPE, op, &column).iter().map(|bytes| bytemuck::pod_read_unaligned(bytes)).collect()
}

/// The bits every level must give for one column of f32.
fn f32_bits(op: ReduceOp, column: &[f32]) -> u32 {
    let all: Vec<_> = one(op, column).into_iter().map(f32::to_bits).collect();
    assert!(all.iter().all(|bits| *bits == all[0]), "levels disagree on {column:?}: {all:x?}");
    all[0]
}

/// The bits every level must give for one column of bf16.
fn bf16_bits(op: ReduceOp, column: &[f32]) -> u16 {
    let stored: Vec<_> = column.iter().copied().map(bf16::from_f32).collect();
    let all: Vec<_> = one(op, &stored).into_iter().map(bf16::to_bits).collect();
    assert!(all.iter().all(|bits| *bits == all[0]), "levels disagree on {column:?}: {all:x?}");
    all[0]
}

#[test]
fn sums_associate_in_list_order() {
    assert_eq!(f32_bits(ReduceOp::Sum, &[1e8, 1.0, -1e8]), 0.0_f32.to_bits());
    assert_eq!(f32_bits(ReduceOp::Sum, &[1e8, -1e8, 1.0]), 1.0_f32.to_bits());
}

#[test]
fn bf16_rounds_once_to_nearest_even() {
    let half_step = 2.0_f32.powi(-8); // of bf16 at 1
    // Rounding after each add would stay at 1.
    assert_eq!(bf16_bits(ReduceOp::Sum, &[1.0, half_step, half_step]), 0x3F81);
    assert_eq!(bf16_bits(ReduceOp::Sum, &[1.0, half_step]), 0x3F80, "a tie goes down to even");
    assert_eq!(
        bf16_bits(ReduceOp::Sum, &[1.0 + 2.0 * half_step, half_step]),
        0x3F82,
        "a tie goes up to even"
    );
    assert_eq!(bf16_bits(ReduceOp::Sum, &[1.0, half_step, 1e-6]), 0x3F81, "more than a tie");
    assert_eq!(bf16_bits(ReduceOp::Sum, &[3.38e38, 3e36]), 0x7F80, "beyond the largest is infinite");
}

#[test]
fn nan_zeros_infinities_and_subnormals_are_as_documented() {
    let strange = f32::from_bits(0xFFBF_1234);
    for op in [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min, ReduceOp::Avg] {
        for column in [[strange, 1.0], [1.0, strange], [strange, f32::INFINITY], [f32::NEG_INFINITY, strange]]
        {
            assert_eq!(f32_bits(op, &column), 0x7FC0_0000, "{op:?}");
            assert_eq!(bf16_bits(op, &column), 0x7FC0, "{op:?}");
        }
    }
    assert_eq!(f32_bits(ReduceOp::Sum, &[f32::INFINITY, f32::NEG_INFINITY]), 0x7FC0_0000);
    assert_eq!(f32_bits(ReduceOp::Max, &[-0.0, 0.0]), 0);
    assert_eq!(f32_bits(ReduceOp::Max, &[0.0, -0.0]), 0);
    assert_eq!(f32_bits(ReduceOp::Max, &[-0.0, -0.0]), 0x8000_0000);
    assert_eq!(f32_bits(ReduceOp::Min, &[-0.0, 0.0]), 0x8000_0000);
    assert_eq!(f32_bits(ReduceOp::Min, &[0.0, -0.0]), 0x8000_0000);
    assert_eq!(f32_bits(ReduceOp::Min, &[0.0, 0.0]), 0);
    assert_eq!(f32_bits(ReduceOp::Sum, &[-0.0, -0.0]), 0x8000_0000);
    let (tiny, tiny_bf16) = (f32::from_bits(1), f32::from_bits(1 << 16));
    assert_eq!(f32_bits(ReduceOp::Sum, &[tiny, tiny]), 2);
    assert_eq!(f32_bits(ReduceOp::Max, &[tiny, -1.0]), 1);
    assert_eq!(bf16_bits(ReduceOp::Sum, &[tiny_bf16, tiny_bf16]), 2);
}

/// What every level must give for one column.
fn agreed<T: Element + PartialEq + std::fmt::Debug>(op: ReduceOp, column: &[T]) -> T {
    let all = one(op, column);
    assert!(all.iter().all(|result| *result == all[0]), "levels disagree on {column:?}: {all:?}");
    all[0]
}

#[test]
fn integer_sums_and_products_wrap_and_signs_count_in_max_and_min() {
    assert_eq!(agreed(ReduceOp::Sum, &[i32::MAX, 1]), i32::MIN);
    assert_eq!(agreed(ReduceOp::Sum, &[200_u8, 100]), 44);
    assert_eq!(agreed(ReduceOp::Prod, &[i64::MAX, 3]), i64::MAX - 2);
    assert_eq!(agreed(ReduceOp::Prod, &[200_u8, 3]), 88);
    assert_eq!((agreed(ReduceOp::Max, &[-1, 1]), agreed(ReduceOp::Min, &[-1, 1])), (1, -1));
    assert_eq!((agreed(ReduceOp::Max, &[255_u8, 1]), agreed(ReduceOp::Min, &[255_u8, 1])), (255, 1));
    assert_eq!((agreed(ReduceOp::Max, &[u64::MAX, 1]), agreed(ReduceOp::Min, &[u64::MAX, 1])), (u64::MAX, 1));
    assert_eq!((agreed(ReduceOp::Max, &[i64::MIN, 1]), agreed(ReduceOp::Min, &[i64::MIN, 1])), (1, i64::MIN));
}

#[test]
fn bits_are_combined_bit_by_bit() {
    let column = [0b1100_u16, 0b1010];
    let results = [ReduceOp::And, ReduceOp::Or, ReduceOp::Xor].map(|op| agreed(op, &column));
    assert_eq!(results, [0b1000, 0b1110, 0b0110]);
}

#[test]
fn integer_averages_do_not_wrap_and_are_truncated_towards_zero() {
    assert_eq!(agreed(ReduceOp::Avg, &[255_u8, 254, 254]), 254);
    assert_eq!(agreed(ReduceOp::Avg, &[-1_i8, -2]), -1);
    assert_eq!(agreed(ReduceOp::Avg, &[i32::MIN, i32::MIN, i32::MIN + 1]), i32::MIN + 1);
    assert_eq!(agreed(ReduceOp::Avg, &[u64::MAX, u64::MAX, u64::MAX]), u64::MAX);
    assert_eq!(agreed(ReduceOp::Avg, &[i64::MIN, i64::MAX]), 0);
}

#[test]
fn float_averages_divide_the_wide_sum_once() {
    // Each third would round; the sum divided does not.
    assert_eq!(f32_bits(ReduceOp::Avg, &[1.0, 1.0, 1.0]), 1.0_f32.to_bits());
    // The sum is too large for an f16, the average is not.
    assert_eq!(agreed(ReduceOp::Avg, &[f16::MAX, f16::MAX]), f16::MAX);
    assert_eq!(agreed(ReduceOp::Avg, &[F8E4M3(0x7E), F8E4M3(0x7E), F8E4M3(0x7E)].map(|x| x.to_f32())), 448.0);
    assert_eq!(agreed(ReduceOp::Avg, &[f64::MAX, f64::MAX]), f64::INFINITY, "f64 is not folded wider");
    assert_eq!(agreed(ReduceOp::Avg, &[1.0_f64, 2.0, 2.0]), 5.0 / 3.0);
}

#[test]
fn small_floats_round_once_and_overflow_as_documented() {
    let e4m3 = |op, column: &[f32]| {
        let stored: Vec<_> = column.iter().map(|&x| F8E4M3::from_f32(x)).collect();
        let all: Vec<_> = one(op, &stored).into_iter().map(|x| x.0).collect();
        assert!(all.iter().all(|bits| *bits == all[0]), "{all:x?}");
        all[0]
    };
    let e5m2 = |op, column: &[f32]| {
        let stored: Vec<_> = column.iter().map(|&x| F8E5M2::from_f32(x)).collect();
        let all: Vec<_> = one(op, &stored).into_iter().map(|x| x.0).collect();
        assert!(all.iter().all(|bits| *bits == all[0]), "{all:x?}");
        all[0]
    };
    // Rounding after each add would stay at 16.
    assert_eq!(e4m3(ReduceOp::Sum, &[16.0, 1.0, 1.0]), F8E4M3::from_f32(18.0).0);
    assert_eq!(e4m3(ReduceOp::Sum, &[448.0, 448.0]), 0x7F);
    assert_eq!(e4m3(ReduceOp::Sum, &[-448.0, -448.0]), 0x7F, "a NaN has no sign");
    assert_eq!(e4m3(ReduceOp::Sum, &[448.0, 448.0, -448.0]), 0x7E, "too large only in between");
    assert_eq!((e5m2(ReduceOp::Sum, &[57344.0, 57344.0]), e5m2(ReduceOp::Prod, &[-1e4, 1e4])), (0x7C, 0xFC));
    assert_eq!((e4m3(ReduceOp::Min, &[0.0, -0.0]), e5m2(ReduceOp::Max, &[-0.0, 0.0])), (0x80, 0));
    assert_eq!((e4m3(ReduceOp::Max, &[f32::NAN, 1.0]), e5m2(ReduceOp::Min, &[1.0, f32::NAN])), (0x7F, 0x7E));
    assert_eq!(agreed(ReduceOp::Sum, &[f16::MAX, f16::MAX]), f16::INFINITY);
    assert_eq!(agreed(ReduceOp::Prod, &[f16::MAX, f16::MAX]), f16::INFINITY);
    let nan = one(ReduceOp::Max, &[f16::from_bits(0xFD01), f16::ONE]);
    assert!(nan.iter().all(|x| x.to_bits() == 0x7E00), "{nan:x?}");
    let nan = one(ReduceOp::Min, &[f64::from_bits(0xFFF0_0000_0000_0001), 1.0]);
    assert!(nan.iter().all(|x| x.to_bits() == 0x7FF8_0000_0000_0000), "{nan:x?}");
}

#[test]
fn one_source_is_copied_bit_by_bit() {
    assert_eq!(f32_bits(ReduceOp::Max, &[f32::from_bits(0x7F80_0001)]), 0x7F80_0001);
}

/// One float type by its layout.
struct Float {
    dtype: DataType,
    layout: Layout,
}

impl Float {
    fn all() -> impl Iterator<Item = Float> {
        let types = DataType::TABLE.iter().map(|row| row.dtype);
        types.filter_map(|dtype| layout::of(dtype.name()).map(|layout| Float { dtype, layout }))
    }

    /// Checks the bits of one reduction, at every level and place.
    #[track_caller]
    fn check(&self, op: ReduceOp, column: &[u64], wanted: u64) {
        let size = self.dtype.size();
        let bytes: Vec<_> = column.iter().map(|bits| bits.to_le_bytes()).collect();
        let sources: Vec<&[u8]> = bytes.iter().map(|bytes| &bytes[..size]).collect();
        let wanted_bytes = &wanted.to_le_bytes()[..size];
        for found in raw(self.dtype, op, &sources) {
            assert_eq!(found, wanted_bytes, "{:?} {op:?} of {column:x?}", self.dtype);
        }
    }
}

const ARITHMETIC: [ReduceOp; 6] =
    [ReduceOp::Sum, ReduceOp::PreMulSum, ReduceOp::Prod, ReduceOp::Avg, ReduceOp::Max, ReduceOp::Min];

#[test]
fn a_nan_of_any_payload_and_sign_in_any_place_gives_the_canonical_one_in_every_type() {
    for float in Float::all() {
        let Float { layout, .. } = float;
        let (canonical, one) = (layout.nearest(f64::NAN), layout.nearest(1.0));
        let highest = layout.highest_exponent();
        let all_ones = layout.join(0, highest, u64::MAX);
        let negative = layout.join(1, highest, u64::MAX);
        for (op, nan) in
            ARITHMETIC.into_iter().flat_map(|op| [canonical, all_ones, negative].map(|n| (op, n)))
        {
            for column in [&[nan, one][..], &[one, nan], &[nan, nan], &[one, one, nan, one]] {
                float.check(op, column, canonical);
            }
            float.check(op, &[nan], nan); // one source is copied
        }
    }
}

#[test]
fn zeros_keep_their_signs_as_ieee_says_and_plus_is_the_greater_one_in_every_type() {
    for float in Float::all() {
        let [plus, minus] = [0, 1].map(|sign| float.layout.join(sign, 0, 0));
        let [one, minus_one] = [1.0, -1.0].map(|value| float.layout.nearest(value));
        for column in [[plus, minus], [minus, plus]] {
            float.check(ReduceOp::Max, &column, plus);
            float.check(ReduceOp::Min, &column, minus);
            float.check(ReduceOp::Sum, &column, plus);
            float.check(ReduceOp::Avg, &column, plus);
            float.check(ReduceOp::Prod, &column, minus);
        }
        for op in [ReduceOp::Sum, ReduceOp::Avg, ReduceOp::Max, ReduceOp::Min] {
            float.check(op, &[minus, minus], minus);
        }
        float.check(ReduceOp::Prod, &[minus, minus], plus);
        float.check(ReduceOp::Sum, &[one, minus_one], plus);
    }
}

#[test]
fn what_is_too_large_is_infinite_or_where_there_is_no_infinity_nan_in_every_type() {
    for float in Float::all() {
        let Float { dtype, layout } = float;
        let highest = layout.highest_exponent();
        let is_fn = dtype == DataType::F8E4M3;
        // e4m3 has numbers where others have infinity, up to the one below NaN.
        let most = |sign| {
            if is_fn { layout.join(sign, highest, 6) } else { layout.join(sign, highest - 1, u64::MAX) }
        };
        let too_large = |sign| if is_fn { layout.nearest(f64::NAN) } else { layout.join(sign, highest, 0) };
        for sign in [0, 1] {
            float.check(ReduceOp::Sum, &[most(sign), most(sign)], too_large(sign));
            float.check(ReduceOp::Prod, &[most(sign), most(0)], too_large(sign));
            float.check(ReduceOp::Max, &[most(sign), most(sign)], most(sign));
            // Types below f32 have room for the sum in between; f32 and f64 have not.
            let is_wide = matches!(dtype, DataType::F32 | DataType::F64);
            // bf16 has the exponents of f32, so its sum is as much too large for it.
            let average = if is_wide || dtype == DataType::BF16 { too_large(sign) } else { most(sign) };
            float.check(ReduceOp::Avg, &[most(sign), most(sign)], average);
        }
        if !is_fn {
            float.check(ReduceOp::Sum, &[too_large(0), too_large(1)], layout.nearest(f64::NAN));
            float.check(ReduceOp::Prod, &[too_large(0), layout.join(1, 0, 0)], layout.nearest(f64::NAN));
            float.check(ReduceOp::Max, &[too_large(1), most(1)], most(1));
        }
    }
}

#[test]
fn subnormals_are_kept_in_every_type() {
    for float in Float::all() {
        let [tiny, two] = [1, 2].map(|bits| float.layout.join(0, 0, bits));
        float.check(ReduceOp::Sum, &[tiny, tiny], two);
        float.check(ReduceOp::Avg, &[tiny, tiny], tiny);
        float.check(ReduceOp::Max, &[tiny, float.layout.join(1, 0, 0)], tiny);
        float.check(ReduceOp::Prod, &[tiny, float.layout.nearest(2.0)], two);
    }
}
