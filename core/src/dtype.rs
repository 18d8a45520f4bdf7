//! Element types, in one table.

use crate::error::{Error, Result};
use crate::float8::{F8E4M3, F8E5M2};

/// The type of one element. A new type is a variant, a row in [`DataType::TABLE`] and its kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum DataType {
    /// 8-bit signed integer. Integers wrap, see [`crate::ReduceOp`].
    I8 = 0, // up to 63, numbers are NCCL's; ours begin at 64
    /// Unsigned byte.
    U8 = 1,
    /// 32-bit signed integer.
    I32 = 2,
    /// 32-bit unsigned integer.
    U32 = 3,
    /// 64-bit signed integer.
    I64 = 4,
    /// 64-bit unsigned integer.
    U64 = 5,
    /// IEEE 16-bit float. Smaller floats than f32 are reduced in f32 and rounded once.
    F16 = 6,
    /// 32-bit float.
    F32 = 7,
    /// 64-bit float.
    F64 = 8,
    /// 16-bit brain float.
    BF16 = 9,
    /// 8-bit float with 4 bits of exponent, without infinities; see [`crate::float8`].
    F8E4M3 = 10,
    /// 8-bit float with 5 bits of exponent; see [`crate::float8`].
    F8E5M2 = 11,
    /// 16-bit signed integer. Not in NCCL.
    I16 = 64,
    /// 16-bit unsigned integer. Not in NCCL.
    U16 = 65,
}

/// A row of the table of element types.
#[derive(Debug)]
pub struct DataTypeRow {
    /// The type.
    pub dtype: DataType,
    /// Our name.
    pub name: &'static str,
    /// The name nccl-tests prints.
    pub nccl_name: &'static str,
    /// Bytes of one element.
    pub size: usize,
    /// Whether it is a floating-point type.
    pub is_float: bool,
}

impl DataType {
    /// Every element type.
    pub const TABLE: &'static [DataTypeRow] = &[
        row(DataType::I8, "i8", "int8", false),
        row(DataType::U8, "u8", "uint8", false),
        row(DataType::I16, "i16", "int16", false),
        row(DataType::U16, "u16", "uint16", false),
        row(DataType::I32, "i32", "int32", false),
        row(DataType::U32, "u32", "uint32", false),
        row(DataType::I64, "i64", "int64", false),
        row(DataType::U64, "u64", "uint64", false),
        row(DataType::F16, "f16", "half", true),
        row(DataType::BF16, "bf16", "bfloat16", true),
        row(DataType::F32, "f32", "float", true),
        row(DataType::F64, "f64", "double", true),
        row(DataType::F8E4M3, "f8e4m3", "f8e4m3", true),
        row(DataType::F8E5M2, "f8e5m2", "f8e5m2", true),
    ];

    /// This type's row.
    pub fn row(self) -> &'static DataTypeRow {
        Self::TABLE.iter().find(|row| row.dtype == self).expect("every type has a row in TABLE")
    }

    /// Bytes of one element.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            DataType::I64 | DataType::U64 | DataType::F64 => 8,
            DataType::I32 | DataType::U32 | DataType::F32 => 4,
            DataType::I16 | DataType::U16 | DataType::F16 | DataType::BF16 => 2,
            DataType::I8 | DataType::U8 | DataType::F8E4M3 | DataType::F8E5M2 => 1,
        }
    }

    /// Our name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The stable number, used on the wire and in the C interface: NCCL's where NCCL has the type, else 64 or more.
    #[inline]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The type with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::TABLE.iter().map(|row| row.dtype).find(|dtype| dtype.code() == code)
    }

    /// Parses our name or nccl-tests' name.
    ///
    /// Errors: InvalidArgument, listing what exists.
    pub fn parse(text: &str) -> Result<Self> {
        let known = |row: &&DataTypeRow| row.name == text || row.nccl_name == text;
        Self::TABLE.iter().find(known).map(|row| row.dtype).ok_or_else(|| {
            let names: Vec<_> =
                Self::TABLE.iter().map(|row| format!("{} ({})", row.name, row.nccl_name)).collect();
            Error::invalid(format!("unknown data type '{text}'; there are: {}", names.join(", ")))
        })
    }
}

const fn row(dtype: DataType, name: &'static str, nccl_name: &'static str, is_float: bool) -> DataTypeRow {
    DataTypeRow { dtype, name, nccl_name, size: dtype.size(), is_float }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that can be an element of a buffer.
pub trait Element: sealed::Sealed + bytemuck::Pod + Send + Sync {
    /// Its element type.
    const DTYPE: DataType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),*) => {$(
        impl sealed::Sealed for $rust {}
        impl Element for $rust { const DTYPE: DataType = DataType::$dtype; }
    )*};
}
elements! {
    i8 => I8, u8 => U8, i16 => I16, u16 => U16, i32 => I32, u32 => U32, i64 => I64, u64 => U64,
    half::f16 => F16, half::bf16 => BF16, f32 => F32, f64 => F64, F8E4M3 => F8E4M3, F8E5M2 => F8E5M2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<T: Element>() -> (DataType, usize) {
        (T::DTYPE, size_of::<T>())
    }

    #[test]
    fn elements_have_the_size_of_their_type() {
        use half::{bf16, f16};
        let integers =
            [size::<i8>(), size::<u8>(), size::<i16>(), size::<u16>(), size::<i32>(), size::<u32>()];
        let more =
            [size::<i64>(), size::<u64>(), size::<f16>(), size::<bf16>(), size::<f32>(), size::<f64>()];
        let all = [&integers[..], &more, &[size::<F8E4M3>(), size::<F8E5M2>()]].concat();
        assert_eq!(all, DataType::TABLE.iter().map(|row| (row.dtype, row.size)).collect::<Vec<_>>());
    }

    #[test]
    fn names_and_numbers_parse_back() {
        for row in DataType::TABLE {
            assert_eq!(DataType::parse(row.name).unwrap(), row.dtype);
            assert_eq!(DataType::parse(row.nccl_name).unwrap(), row.dtype);
            assert_eq!(DataType::from_code(row.dtype.code()), Some(row.dtype));
        }
        let code = |text| DataType::parse(text).unwrap().code();
        let codes =
            ["int8", "uint8", "int32", "uint32", "int64", "uint64", "half", "float", "double", "bfloat16"];
        assert_eq!(codes.map(code), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "as in nccl.h");
        assert_eq!(["f8e4m3", "f8e5m2", "i16", "u16"].map(code), [10, 11, 64, 65]);
        let message = DataType::parse("f33").unwrap_err().to_string();
        assert!(message.contains("f33") && message.contains("bf16 (bfloat16)"), "{message}");
    }
}
