//! Reduction operations, in one table.
//!
//! What they mean is defined here once, and is the same on every path, transport and processor:
//!
//! * **Order**: an element is folded in the order of the plan's expression. Floats smaller than f32 are folded in f32
//!   and rounded once, to nearest even, when the fold is written; f32 and f64 are folded as they are.
//! * **NaN**: a NaN in any input of a float operation, or made by it (∞ − ∞, 0 · ∞), gives NaN, the canonical quiet
//!   one. Max and min too: they never prefer the number. A reduction over one rank is a copy.
//! * **Zeros**: +0 is greater than −0.
//! * **Overflow**: integers wrap; floats become infinite, f8e4m3, which has no infinity, NaN (see [`crate::float8`]).
//! * **Average**: the sum divided once, by the number of ranks. Integers are summed without wrapping (64 bits for
//!   types up to 32, 128 bits for 64), and the quotient is truncated towards zero, as in Rust and C. Floats are summed
//!   wide as above, divided wide, and rounded as above. NCCL differs: it wraps integer sums before it divides, and
//!   multiplies floats by 1/n before it sums.

use crate::dtype::DataType;
use crate::error::{Error, Result};

/// How elements are combined; the module defines the details. A new operation is a variant, a row in
/// [`ReduceOp::TABLE`] and its kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum ReduceOp {
    /// Sum.
    Sum = 0, // up to 63, numbers are NCCL's; ours begin at 64
    /// Product.
    Prod = 1,
    /// Maximum.
    Max = 2,
    /// Minimum.
    Min = 3,
    /// Average: the wide sum, divided once. A sum of averages is no average, so only algorithms that combine all ranks
    /// in one step do it: see [`ReduceOp::nests`].
    Avg = 4,
    /// Bitwise and; integers only.
    And = 64,
    /// Bitwise or; integers only.
    Or = 65,
    /// Bitwise exclusive or; integers only.
    Xor = 66,
}

impl ReduceOp {
    /// Every operation with its name (ours and nccl-tests').
    pub const TABLE: &'static [(ReduceOp, &'static str)] = &[
        (ReduceOp::Sum, "sum"),
        (ReduceOp::Prod, "prod"),
        (ReduceOp::Max, "max"),
        (ReduceOp::Min, "min"),
        (ReduceOp::Avg, "avg"),
        (ReduceOp::And, "and"),
        (ReduceOp::Or, "or"),
        (ReduceOp::Xor, "xor"),
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::TABLE.iter().find(|row| row.0 == self).expect("every operation has a row in TABLE").1
    }

    /// The stable number: NCCL's where NCCL has the operation, else 64 or more.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The operation with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::TABLE.iter().map(|row| row.0).find(|op| op.code() == code)
    }

    /// Parses a name.
    ///
    /// Errors: InvalidArgument, listing what exists.
    pub fn parse(text: &str) -> Result<Self> {
        Self::TABLE.iter().find(|row| row.1 == text).map(|row| row.0).ok_or_else(|| {
            let names: Vec<_> = Self::TABLE.iter().map(|row| row.1).collect();
            Error::invalid(format!("unknown operation '{text}'; there are: {}", names.join(", ")))
        })
    }

    /// Whether the operation is defined for elements of this type.
    ///
    /// Errors: InvalidArgument, for and, or and xor of floats.
    #[inline]
    pub fn supports(self, dtype: DataType) -> Result<()> {
        let bits = matches!(self, ReduceOp::And | ReduceOp::Or | ReduceOp::Xor);
        if bits && dtype.row().is_float { Err(self.refusal(dtype)) } else { Ok(()) }
    }

    #[cold]
    fn refusal(self, dtype: DataType) -> Error {
        let integers = DataType::TABLE.iter().filter(|row| !row.is_float).map(|row| row.name);
        Error::invalid(format!(
            "{} is not defined for {}; it is for integers: {}",
            self.name(),
            dtype.name(),
            integers.collect::<Vec<_>>().join(", ")
        ))
    }

    /// Whether the reduction of all ranks may be made of reductions of some, as a ring or a tree does step by step.
    pub const fn nests(self) -> bool {
        !matches!(self, ReduceOp::Avg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_parse_back() {
        for &(op, name) in ReduceOp::TABLE {
            assert_eq!(ReduceOp::parse(name).unwrap(), op);
            assert_eq!(ReduceOp::from_code(op.code()), Some(op));
        }
        let code = |text| ReduceOp::parse(text).unwrap().code();
        assert_eq!(["sum", "prod", "max", "min", "avg"].map(code), [0, 1, 2, 3, 4], "as in nccl.h");
        assert_eq!(["and", "or", "xor"].map(code), [64, 65, 66]);
        assert!(ReduceOp::parse("mean").unwrap_err().message().contains("avg"));
    }

    #[test]
    fn bits_are_combined_in_integers_only() {
        let error = ReduceOp::Xor.supports(DataType::BF16).unwrap_err();
        assert_eq!(
            error.message(),
            "xor is not defined for bf16; it is for integers: i8, u8, i16, u16, i32, u32, i64, u64"
        );
        for row in DataType::TABLE {
            for &(op, _) in ReduceOp::TABLE {
                let is_bitwise = op.code() >= 64;
                assert_eq!(op.supports(row.dtype).is_ok(), !(is_bitwise && row.is_float), "{op:?} {row:?}");
            }
        }
    }
}
