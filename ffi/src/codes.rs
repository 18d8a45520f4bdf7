//! Numbers of C: results, element types and operations, with their names and sizes.
#![allow(unsafe_code)] // exported functions

use crate::boundary::{guard, write};
use crate::ops;
use std::ffi::{CStr, c_char};
use ubccl_rs::{DataType, Error, ErrorKind, ReduceOp, Reduction, Result};

/// Result of a call: `UBCCL_SUCCESS` or the kind of error. Numbers are never used again.
#[allow(non_camel_case_types)]
pub type ubccl_result = i32;

/// It worked.
pub const UBCCL_SUCCESS: ubccl_result = 0;
/// The arguments are wrong. Nothing was sent.
pub const UBCCL_INVALID_ARGUMENT: ubccl_result = 1;
/// Valid, but not available here. Nothing was sent.
pub const UBCCL_UNSUPPORTED: ubccl_result = 2;
/// Starting failed.
pub const UBCCL_START_FAILED: ubccl_result = 3;
/// The operating system refused something.
pub const UBCCL_SYSTEM_ERROR: ubccl_result = 4;
/// Ranks disagree about an operation; the communicator is poisoned.
pub const UBCCL_MISMATCH: ubccl_result = 5;
/// A deadline passed.
pub const UBCCL_TIMEOUT: ubccl_result = 6;
/// Another rank died, left or failed; the communicator is poisoned.
pub const UBCCL_REMOTE_ERROR: ubccl_result = 7;
/// Abort was called here or on another rank; the communicator is poisoned.
pub const UBCCL_ABORTED: ubccl_result = 8;
/// The communicator was closed.
pub const UBCCL_CLOSED: ubccl_result = 9;
/// A defect in ubccl.
pub const UBCCL_INTERNAL_ERROR: ubccl_result = 10;

/// 8-bit signed integer.
pub const UBCCL_I8: i32 = 0;
/// Unsigned byte.
pub const UBCCL_U8: i32 = 1;
/// 32-bit signed integer.
pub const UBCCL_I32: i32 = 2;
/// 32-bit unsigned integer.
pub const UBCCL_U32: i32 = 3;
/// 64-bit signed integer.
pub const UBCCL_I64: i32 = 4;
/// 64-bit unsigned integer.
pub const UBCCL_U64: i32 = 5;
/// IEEE 16-bit float.
pub const UBCCL_F16: i32 = 6;
/// 32-bit float.
pub const UBCCL_F32: i32 = 7;
/// 64-bit float.
pub const UBCCL_F64: i32 = 8;
/// 16-bit brain float.
pub const UBCCL_BF16: i32 = 9;
/// 8-bit float with 4 bits of exponent and no infinity: what is too large becomes NaN.
pub const UBCCL_F8E4M3: i32 = 10;
/// 8-bit float with 5 bits of exponent.
pub const UBCCL_F8E5M2: i32 = 11;
/// 16-bit signed integer.
pub const UBCCL_I16: i32 = 64;
/// 16-bit unsigned integer.
pub const UBCCL_U16: i32 = 65;

/// Sum. Integers wrap; floats smaller than 32 bits are summed in 32 and rounded once.
pub const UBCCL_SUM: i32 = 0;
/// Product, under the same rules.
pub const UBCCL_PROD: i32 = 1;
/// Maximum. A NaN in any input gives NaN; +0 is greater than -0.
pub const UBCCL_MAX: i32 = 2;
/// Minimum, under the same rules.
pub const UBCCL_MIN: i32 = 3;
/// Average: the wide sum divided once; for integers without wrapping, and truncated towards zero.
pub const UBCCL_AVG: i32 = 4;
/// Bitwise and; integers only.
pub const UBCCL_AND: i32 = 64;
/// Bitwise or; integers only.
pub const UBCCL_OR: i32 = 65;
/// Bitwise exclusive or; integers only.
pub const UBCCL_XOR: i32 = 66;

/// The version of the library as 10,000 × major + 100 × minor + patch.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_version() -> u32 {
    library_version()
}

pub(crate) fn library_version() -> u32 {
    let part = |text: &str| text.parse::<u32>().unwrap_or(0);
    part(env!("CARGO_PKG_VERSION_MAJOR")) * 10_000
        + part(env!("CARGO_PKG_VERSION_MINOR")) * 100
        + part(env!("CARGO_PKG_VERSION_PATCH"))
}

/// What a result code means, in a few words. Never null; the text lives for ever.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_result_string(result: ubccl_result) -> *const c_char {
    let text: &CStr = match result {
        UBCCL_SUCCESS => c"success",
        UBCCL_INVALID_ARGUMENT => c"invalid argument",
        UBCCL_UNSUPPORTED => c"not supported",
        UBCCL_START_FAILED => c"start-up failed",
        UBCCL_SYSTEM_ERROR => c"system error",
        UBCCL_MISMATCH => c"ranks disagree",
        UBCCL_TIMEOUT => c"timed out",
        UBCCL_REMOTE_ERROR => c"remote rank failed",
        UBCCL_ABORTED => c"aborted",
        UBCCL_CLOSED => c"communicator closed",
        UBCCL_INTERNAL_ERROR => c"internal error",
        _ => c"unknown result code",
    };
    text.as_ptr()
}

/// The name of an element type, as `bf16`; "unknown type" for a number that is none. Never null; lives for ever.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_dtype_name(dtype: i32) -> *const c_char {
    let name: &CStr = match dtype {
        UBCCL_I8 => c"i8",
        UBCCL_U8 => c"u8",
        UBCCL_I16 => c"i16",
        UBCCL_U16 => c"u16",
        UBCCL_I32 => c"i32",
        UBCCL_U32 => c"u32",
        UBCCL_I64 => c"i64",
        UBCCL_U64 => c"u64",
        UBCCL_F16 => c"f16",
        UBCCL_BF16 => c"bf16",
        UBCCL_F32 => c"f32",
        UBCCL_F64 => c"f64",
        UBCCL_F8E4M3 => c"f8e4m3",
        UBCCL_F8E5M2 => c"f8e5m2",
        _ => c"unknown type",
    };
    name.as_ptr()
}

/// Bytes of one element of a type.
///
/// Errors: InvalidArgument for a number that is no type.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_dtype_size(dtype: i32, out: *mut usize) -> ubccl_result {
    // SAFETY: the caller vouches for `out`.
    guard(|| unsafe { write(out, read_dtype(dtype)?.size()) })
}

/// The name of an operation, as `sum`; "unknown operation" for a number that is none, or that
/// `ubccl_op_create_user` or `ubccl_op_create_premul_sum` made. Never null; lives for ever.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_op_name(op: i32) -> *const c_char {
    let name: &CStr = match op {
        UBCCL_SUM => c"sum",
        UBCCL_PROD => c"prod",
        UBCCL_MAX => c"max",
        UBCCL_MIN => c"min",
        UBCCL_AVG => c"avg",
        UBCCL_AND => c"and",
        UBCCL_OR => c"or",
        UBCCL_XOR => c"xor",
        _ => c"unknown operation",
    };
    name.as_ptr()
}

/// Whether an operation is defined for elements of a type: all are for integers, and, or and xor for nothing else.
///
/// Errors: InvalidArgument if it is not, or if one of the numbers is none.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_op_supports(op: i32, dtype: i32) -> ubccl_result {
    guard(|| read_op(op)?.op().supports(read_dtype(dtype)?))
}

pub(crate) fn read_dtype(code: i32) -> Result<DataType> {
    let dtype = u8::try_from(code).ok().and_then(DataType::from_code);
    dtype.ok_or_else(|| Error::invalid(format!("{code} is no data type")))
}

pub(crate) fn read_op(code: i32) -> Result<Reduction> {
    ops::built_in(code).map_or_else(|| ops::find(code), |op| Ok(op.into()))
}

// The numbers above are the library's.
const _: () = {
    assert!(ErrorKind::TABLE.len() == UBCCL_INTERNAL_ERROR as usize);
    let dtypes = [
        (DataType::I8, UBCCL_I8),
        (DataType::U8, UBCCL_U8),
        (DataType::I16, UBCCL_I16),
        (DataType::U16, UBCCL_U16),
        (DataType::I32, UBCCL_I32),
        (DataType::U32, UBCCL_U32),
        (DataType::I64, UBCCL_I64),
        (DataType::U64, UBCCL_U64),
        (DataType::F16, UBCCL_F16),
        (DataType::BF16, UBCCL_BF16),
        (DataType::F32, UBCCL_F32),
        (DataType::F64, UBCCL_F64),
        (DataType::F8E4M3, UBCCL_F8E4M3),
        (DataType::F8E5M2, UBCCL_F8E5M2),
    ];
    let ops = [
        (ReduceOp::Sum, UBCCL_SUM),
        (ReduceOp::Prod, UBCCL_PROD),
        (ReduceOp::Max, UBCCL_MAX),
        (ReduceOp::Min, UBCCL_MIN),
        (ReduceOp::Avg, UBCCL_AVG),
        (ReduceOp::And, UBCCL_AND),
        (ReduceOp::Or, UBCCL_OR),
        (ReduceOp::Xor, UBCCL_XOR),
    ];
    // A pre-multiplied sum is no plain number: it comes with its scalar.
    assert!(DataType::TABLE.len() == dtypes.len() && ReduceOp::TABLE.len() == ops.len() + 1);
    let mut at = 0;
    while at < dtypes.len() {
        assert!(dtypes[at].0 as i32 == dtypes[at].1);
        at += 1;
    }
    let mut at = 0;
    while at < ops.len() {
        assert!(ops[at].0.code() as i32 == ops[at].1);
        at += 1;
    }
};
