//! Element types, in one table.

use crate::error::{Error, Result};

/// The type of one element. A new type is a variant, a row in [`DataType::TABLE`] and its kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum DataType {
    /// Unsigned byte.
    U8 = 1, // numbers are NCCL's
    /// 32-bit signed integer; sums wrap.
    I32 = 2,
    /// 16-bit brain float; sums accumulate in f32 and round once.
    BF16 = 9,
    /// 32-bit float.
    F32 = 7,
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
        DataTypeRow { dtype: DataType::F32, name: "f32", nccl_name: "float", size: 4, is_float: true },
        DataTypeRow { dtype: DataType::BF16, name: "bf16", nccl_name: "bfloat16", size: 2, is_float: true },
        DataTypeRow { dtype: DataType::I32, name: "i32", nccl_name: "int32", size: 4, is_float: false },
        DataTypeRow { dtype: DataType::U8, name: "u8", nccl_name: "uint8", size: 1, is_float: false },
    ];

    /// This type's row.
    pub fn row(self) -> &'static DataTypeRow {
        Self::TABLE.iter().find(|row| row.dtype == self).expect("every type has a row in TABLE")
    }

    /// Bytes of one element.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            DataType::F32 | DataType::I32 => 4,
            DataType::BF16 => 2,
            DataType::U8 => 1,
        }
    }

    /// Our name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The stable number, used on the wire and in the C interface (NCCL's numbers where NCCL has the type, plus none
    /// of its own yet).
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
elements!(f32 => F32, half::bf16 => BF16, i32 => I32, u8 => U8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_and_size_agree_and_names_parse_back() {
        for row in DataType::TABLE {
            assert_eq!(row.size, row.dtype.size());
            assert_eq!(DataType::parse(row.name).unwrap(), row.dtype);
            assert_eq!(DataType::parse(row.nccl_name).unwrap(), row.dtype);
            assert_eq!(DataType::from_code(row.dtype.code()), Some(row.dtype));
        }
        let message = DataType::parse("f33").unwrap_err().to_string();
        assert!(message.contains("f33") && message.contains("bf16 (bfloat16)"), "{message}");
    }
}
