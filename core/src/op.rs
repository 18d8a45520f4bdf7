//! Reduction operations, in one table.
//!
//! What they mean is defined here once, and is the same on every path, transport and processor:
//!
//! * **Order**: an element is folded in the order of the plan's expression. Floats smaller than f32 are folded in f32
//!   and rounded once, to nearest even, when the fold is written; f32 and f64 are folded as they are. A plan that
//!   combines step by step rounds once a step.
//! * **NaN**: a NaN in any input of a float operation, or made by it (∞ − ∞, 0 · ∞), gives NaN, the canonical quiet
//!   one. Max and min too: they never prefer the number. A reduction over one rank is a copy, bit by bit.
//! * **Zeros**: +0 is greater than −0; sums and products have the signs of IEEE 754. Subnormals are kept.
//! * **Overflow**: integers wrap. Floats become infinite; f8e4m3, which has no infinity, becomes NaN and does not
//!   saturate (see [`crate::float8`]). Only what is written can overflow in types below f32: 448 + 448 − 448 is 448.
//! * **Average**: the sum divided once, by the number of ranks. Integers are summed without wrapping (64 bits for
//!   types up to 32, 128 bits for 64), and the quotient is truncated towards zero, as in Rust and C. Floats are summed
//!   wide as above, divided wide, and rounded as above. NCCL differs: it wraps integer sums before it divides, and
//!   multiplies floats by 1/n before it sums.
//! * **Pre-multiplied sum**: a sum of inputs that were multiplied and rounded before: [`crate::kernels::scale`].
//! * **A user's**: what its function makes of it, on elements as they are stored: [`UserOp`].

use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::user_op::UserOp;

/// How elements are combined; the module defines the details. A new operation is a variant, its number in
/// [`ReduceOp::code`], a row in [`ReduceOp::TABLE`] and its kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReduceOp {
    /// Sum.
    Sum,
    /// Product.
    Prod,
    /// Maximum.
    Max,
    /// Minimum.
    Min,
    /// Average: the wide sum, divided once. A sum of averages is no average, so only algorithms that combine all ranks
    /// in one step do it: see [`ReduceOp::nests`].
    Avg,
    /// Bitwise and; integers only.
    And,
    /// Bitwise or; integers only.
    Or,
    /// Bitwise exclusive or; integers only.
    Xor,
    /// Sum of inputs that the caller has scaled already, by [`crate::kernels::scale`]: plans and kernels treat it as
    /// [`ReduceOp::Sum`], but ranks that disagree whether to scale are told apart.
    PreMulSum,
    /// The user's own, on every type. Has no row in the table, since there are as many as users want.
    User(&'static UserOp),
}

impl ReduceOp {
    /// Every operation of ours with its name (ours and nccl-tests').
    pub const TABLE: &'static [(ReduceOp, &'static str)] = &[
        (ReduceOp::Sum, "sum"),
        (ReduceOp::Prod, "prod"),
        (ReduceOp::Max, "max"),
        (ReduceOp::Min, "min"),
        (ReduceOp::Avg, "avg"),
        (ReduceOp::And, "and"),
        (ReduceOp::Or, "or"),
        (ReduceOp::Xor, "xor"),
        (ReduceOp::PreMulSum, "mulsum"),
    ];

    /// What [`ReduceOp::code`] says of every user-defined operation.
    pub const USER_CODE: u8 = 68;

    /// The name.
    pub fn name(self) -> &'static str {
        if let ReduceOp::User(op) = self {
            return op.name();
        }
        Self::TABLE.iter().find(|row| row.0 == self).expect("every operation has a row in TABLE").1
    }

    /// The stable number: NCCL's where NCCL has the operation, else 64 or more.
    #[inline]
    pub const fn code(self) -> u8 {
        match self {
            ReduceOp::Sum => 0,
            ReduceOp::Prod => 1,
            ReduceOp::Max => 2,
            ReduceOp::Min => 3,
            ReduceOp::Avg => 4,
            ReduceOp::And => 64,
            ReduceOp::Or => 65,
            ReduceOp::Xor => 66,
            ReduceOp::PreMulSum => 67,
            ReduceOp::User(_) => Self::USER_CODE,
        }
    }

    /// The operation with this number, unless it is a user's.
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

    /// Whether a op b is b op a. If not, ranks are combined in their order, 0 to n−1, and in no other.
    pub const fn commutes(self) -> bool {
        match self {
            ReduceOp::User(op) => op.is_commutative(),
            _ => true,
        }
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
        assert_eq!(["and", "or", "xor", "mulsum"].map(code), [64, 65, 66, 67]);
        assert!(ReduceOp::parse("mean").unwrap_err().message().contains("avg"));
    }

    #[test]
    fn a_users_operation_has_a_name_a_number_and_every_type() {
        fn first(_: usize, _: &mut [u8], _: &[u8], _: DataType) {}
        static FIRST: UserOp = UserOp::new("first", false, first, 0);
        let op = ReduceOp::User(&FIRST);
        assert_eq!((op.name(), op.code(), ReduceOp::from_code(op.code())), ("first", 68, None));
        assert!(DataType::TABLE.iter().all(|row| op.supports(row.dtype).is_ok()));
        assert!(!op.commutes() && op.nests());
        assert!(ReduceOp::TABLE.iter().all(|row| row.0.commutes()));
        assert!(ReduceOp::parse("first").is_err(), "what travels is a number, and it names nobody");
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
                let is_bitwise = (64..=66).contains(&op.code());
                assert_eq!(op.supports(row.dtype).is_ok(), !(is_bitwise && row.is_float), "{op:?} {row:?}");
            }
        }
    }
}
