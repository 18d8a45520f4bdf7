//! Multiplying by a scalar, against f64 and i128.

use super::{Random, VALUES, layout, pool, seeds};
use crate::kernels::{scale, scale_in_place};
use crate::{DataType, ErrorKind};

/// One product by definition.
fn product(dtype: DataType, scalar: f64, element: &[u8]) -> Vec<u8> {
    let mut whole = [0; 8];
    whole[..element.len()].copy_from_slice(element);
    let bits = u64::from_le_bytes(whole);
    let result = match layout::of(dtype.name()) {
        Some(layout) if dtype == DataType::F64 => layout.nearest(layout.value(bits) * scalar),
        // 24 bits times 24 bits are exact in f64, so this is the product in f32.
        Some(layout) => layout.nearest(f64::from((layout.value(bits) * f64::from(scalar as f32)) as f32)),
        None => (i128::from(bits) * scalar as i128) as u64,
    };
    result.to_le_bytes()[..dtype.size()].to_vec()
}

#[test]
fn every_type_is_multiplied_as_documented_in_place_and_out_of_place() {
    const FLOATS: [f64; 11] =
        [1.0, -1.0, 0.0, -0.0, 0.5, 3.0, 1.0 / 3.0, 1e30, 1e-40, f64::INFINITY, f64::NAN];
    const INTEGERS: [f64; 4] = [0.0, 1.0, 3.0, 100.0];
    for seed in seeds() {
        let mut random = Random::new(seed);
        for (row, values) in DataType::TABLE.iter().flat_map(|row| VALUES.map(|values| (row, values))) {
            let scalars = if row.is_float { &FLOATS[..] } else { &INTEGERS };
            for (&scalar, count) in scalars.iter().flat_map(|s| [0, 1, 7, 1000, 8193].map(|count| (s, count)))
            {
                let input = pool(row.dtype, values, count, &mut random);
                let expected: Vec<u8> =
                    input.chunks(row.size).flat_map(|element| product(row.dtype, scalar, element)).collect();
                // Off alignment, between guards.
                let mut output = vec![0xA5; input.len() + 2];
                scale(row.dtype, scalar, &input, &mut output[1..=input.len()]).unwrap();
                assert_eq!((output[0], output[input.len() + 1]), (0xA5, 0xA5));
                assert!(output[1..=input.len()] == expected, "{row:?} {scalar} seed {seed:#x}");
                let mut data = [&[0], &input[..]].concat();
                scale_in_place(row.dtype, scalar, &mut data[1..]).unwrap();
                assert!(data[1..] == expected, "{row:?} {scalar} in place, seed {seed:#x}");
            }
        }
    }
}

#[test]
fn integers_take_whole_numbers_of_their_range_and_wrap() {
    let scaled = |dtype, scalar, input: &[u8]| {
        let mut data = input.to_vec();
        scale_in_place(dtype, scalar, &mut data).map(|()| data)
    };
    assert_eq!(scaled(DataType::I8, -128.0, &[3]).unwrap(), [128]);
    assert_eq!(scaled(DataType::U8, 255.0, &[3]).unwrap(), [253]);
    assert_eq!(scaled(DataType::I64, -2.0, &5_i64.to_le_bytes()).unwrap(), (-10_i64).to_le_bytes());
    let huge = 2.0_f64.powi(63);
    assert_eq!(scaled(DataType::U64, huge, &3_u64.to_le_bytes()).unwrap(), (1_u64 << 63).to_le_bytes());
    for (dtype, scalar) in [
        (DataType::I8, 128.0),
        (DataType::U8, -1.0),
        (DataType::U8, 0.5),
        (DataType::I64, huge),
        (DataType::U32, f64::NAN),
        (DataType::I32, f64::INFINITY),
    ] {
        let error = scaled(dtype, scalar, &[0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("whole numbers of its range"), "{error}");
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let mut output = [7; 8];
    assert!(scale(DataType::F32, 2.0, &[0; 4], &mut output).is_err());
    assert!(scale(DataType::F64, 2.0, &[0; 7], &mut output[..7]).is_err());
    assert!(scale(DataType::I16, 0.5, &[0; 8], &mut output).is_err());
    assert_eq!(output, [7; 8]);
}
