//! Reduction operations, in one table.

use crate::error::{Error, Result};

/// How elements are combined. A new operation is a variant, a row in [`ReduceOp::TABLE`] and its kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum ReduceOp {
    /// Sum. Integers wrap; 16-bit floats accumulate in f32 and round once per reduction.
    Sum = 0,
    /// Maximum. A NaN in any input gives NaN (the canonical quiet one); +0 is greater than −0.
    Max = 2,
}

impl ReduceOp {
    /// Every operation with its name (ours and nccl-tests').
    pub const TABLE: &'static [(ReduceOp, &'static str)] = &[(ReduceOp::Sum, "sum"), (ReduceOp::Max, "max")];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::TABLE.iter().find(|row| row.0 == self).expect("every operation has a row in TABLE").1
    }

    /// The stable number: NCCL's.
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
}
