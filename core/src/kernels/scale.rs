//! Multiplying by a scalar: what a pre-multiplied sum does to its inputs before anything is sent.
//!
//! Plain loops that the compiler vectorises. A pass over memory that the caller alone owns, so these are slices.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::scalar::{narrow_to_bf16, narrow_to_f32, narrow_to_f64, widen_bf16};
use crate::{DataType, Error, F8E4M3, F8E5M2, Result};

/// Bytes that are copied and then multiplied while they are in the nearest cache.
const BITE_BYTES: usize = 8 << 10;
/// Numbers that are f32 on the stack at a time.
const BITE_F16: usize = 512;

/// Writes `scalar · input` to `output`, element by element.
///
/// Shapes: both of the same length, whole elements of dtype, any alignment.
/// Floats: f64 multiplies in f64. Smaller types multiply in f32, by the scalar rounded to f32, and what comes out is
///         rounded once more, to nearest even, into the type; f32 is so as it is. NaN, overflow and zeros are those of
///         a product, see [`crate::op`].
/// Integers: the scalar must be a number of the type, a whole one within its range; products wrap. (Of i64 and u64, an
///         f64 can name those with 53 bits.)
/// Errors: InvalidArgument, for other lengths or another scalar; nothing is written.
/// Cost:   one pass; allocates nothing.
/// Source: ncclRedOpCreatePreMulSum, whose scalar is of the type instead.
pub fn scale(dtype: DataType, scalar: f64, input: &[u8], output: &mut [u8]) -> Result<()> {
    if input.len() != output.len() {
        let (from, to) = (input.len(), output.len());
        return Err(Error::invalid(format!("scale: {from} bytes of input for {to} bytes of output")));
    }
    scale_in_place(dtype, scalar, &mut output[..0])?; // what is wrong with the scalar shows before anything is written
    check_length(dtype, input.len())?;
    for (from, to) in input.chunks(BITE_BYTES).zip(output.chunks_mut(BITE_BYTES)) {
        to.copy_from_slice(from);
        scale_in_place(dtype, scalar, to)?;
    }
    Ok(())
}

/// Multiplies `data` by `scalar`: [`scale`], in place.
///
/// Errors: as for [`scale`].
pub fn scale_in_place(dtype: DataType, scalar: f64, data: &mut [u8]) -> Result<()> {
    check_length(dtype, data.len())?;
    let narrow = scalar as f32;
    match dtype {
        DataType::F64 => {
            each(data, |x| narrow_to_f64(f64::from_bits(u64::from_ne_bytes(x)) * scalar).to_ne_bytes());
        }
        DataType::F32 => {
            each(data, |x| narrow_to_f32(f32::from_bits(u32::from_ne_bytes(x)) * narrow).to_ne_bytes());
        }
        DataType::BF16 => {
            each(data, |x| narrow_to_bf16(widen_bf16(u16::from_ne_bytes(x)) * narrow).to_ne_bytes());
        }
        DataType::F16 => scale_f16(data, narrow),
        DataType::F8E4M3 => each(data, |[x]| [F8E4M3::from_f32(F8E4M3(x).to_f32() * narrow).0]),
        DataType::F8E5M2 => each(data, |[x]| [F8E5M2::from_f32(F8E5M2(x).to_f32() * narrow).0]),
        _ => scale_integers(dtype, whole(dtype, scalar)?, data),
    }
    Ok(())
}

fn check_length(dtype: DataType, bytes: usize) -> Result<()> {
    if bytes.is_multiple_of(dtype.size()) {
        return Ok(());
    }
    Err(Error::invalid(format!("scale: {bytes} bytes are no whole number of {}", dtype.name())))
}

/// The scalar as a number of an integer type, in two's complement.
fn whole(dtype: DataType, scalar: f64) -> Result<u64> {
    let bits = 8 * dtype.size() as i32;
    let is_signed = matches!(dtype, DataType::I8 | DataType::I16 | DataType::I32 | DataType::I64);
    let (least, beyond) = if is_signed {
        (-(2.0_f64.powi(bits - 1)), 2.0_f64.powi(bits - 1))
    } else {
        (0.0, 2.0_f64.powi(bits))
    };
    if scalar.trunc() == scalar && (least..beyond).contains(&scalar) {
        return Ok(if scalar < 0.0 { scalar as i64 as u64 } else { scalar as u64 });
    }
    let name = dtype.name();
    Err(Error::invalid(format!(
        "scale: {scalar} is no {name}; {name} is multiplied by whole numbers of its range"
    )))
}

/// Products wrap, so signs make no difference.
fn scale_integers(dtype: DataType, factor: u64, data: &mut [u8]) {
    match dtype.size() {
        1 => each(data, |[x]| [x.wrapping_mul(factor as u8)]),
        2 => each(data, |x| u16::from_ne_bytes(x).wrapping_mul(factor as u16).to_ne_bytes()),
        4 => each(data, |x| u32::from_ne_bytes(x).wrapping_mul(factor as u32).to_ne_bytes()),
        _ => each(data, |x| u64::from_ne_bytes(x).wrapping_mul(factor).to_ne_bytes()),
    }
}

/// By way of buffers, because whole slices of f16 are converted by instructions and single ones by a call each.
fn scale_f16(data: &mut [u8], scalar: f32) {
    let (mut stored, mut wide) = ([f16::ZERO; BITE_F16], [0.0_f32; BITE_F16]);
    for bite in data.chunks_mut(2 * BITE_F16) {
        let (stored, wide) = (&mut stored[..bite.len() / 2], &mut wide[..bite.len() / 2]);
        bytemuck::cast_slice_mut(stored).copy_from_slice(bite);
        stored.convert_to_f32_slice(wide);
        for x in wide.iter_mut() {
            // A canonical NaN of f32 becomes the canonical one of f16.
            *x = f32::from_bits(narrow_to_f32(*x * scalar));
        }
        stored.convert_from_f32_slice(wide);
        bite.copy_from_slice(bytemuck::cast_slice(stored));
    }
}

#[inline]
fn each<const N: usize>(data: &mut [u8], product: impl Fn([u8; N]) -> [u8; N]) {
    for element in data.as_chunks_mut::<N>().0 {
        *element = product(*element);
    }
}
