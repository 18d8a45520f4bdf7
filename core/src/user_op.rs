//! Reductions that the library's user defines.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::dtype::DataType;
use crate::error::{Error, ErrorKind, Result};

/// What combines elements: `accumulator[i] = accumulator[i] op next[i]`.
///
/// * Both slices hold the same number of **whole elements** of the type, at least one and seldom all of the message: the
///   function is called for bites of it, and must treat each element alike wherever it stands.
/// * Both begin at an address that suits the type (they may be seen as slices of it), and do not overlap. They are
///   copies: peers can't change them meanwhile.
/// * Elements are folded in the order of the plan, from the left. What is stored between two calls is of the type: a
///   user's operation has nothing wider to accumulate in.
/// * It is called on whatever thread drives the operation, perhaps the library's own, and on several at once if there
///   are several communicators. It may not call into a communicator, which waits for it.
/// * A panic ends the operation with an error that names it: see [`UserOp`].
pub type UserFunction = fn(context: usize, accumulator: &mut [u8], next: &[u8], dtype: DataType);

/// A reduction operation of the user's, for [`crate::ReduceOp::User`]: a `static`, so that it outlives every plan.
///
/// Meaning: associative, as in MPI. If it commutes, any plan may run it. If it does not, only plans that fold every
///         element over the ranks in order, 0 to n−1, in one go; so every result is `((x0 op x1) op x2) …`. A reduction
///         over one rank is a copy, for which the function isn't called.
/// Types:  every element type; the function is told which.
/// Ranks:  all must pass operations of one **name**: it goes into the number of the plan, so a different name is a
///         mismatch. That the functions behind one name are the same is the caller's promise.
/// Equal:  an operation equals itself only, wherever else the same name or function stands.
/// Panics: one in the function is caught where it is called. The operation fails on its rank with kind Remote (a rank
///         failed) and a message with the operation's name and the panic's; that poisons the communicator, so the others
///         learn of it too. Outputs hold anything. (If panics abort, the process ends instead.)
/// Source: MPI_Op_create; NCCL has none.
///
/// ```
/// use ubccl_core::{DataType, ReduceOp, UserOp};
///
/// fn keep_the_longer(_: usize, accumulator: &mut [u8], next: &[u8], dtype: DataType) {
///     for (a, b) in accumulator.chunks_mut(dtype.size()).zip(next.chunks(dtype.size())) {
///         if b.iter().filter(|&&byte| byte != 0).count() > a.iter().filter(|&&byte| byte != 0).count() {
///             a.copy_from_slice(b);
///         }
///     }
/// }
/// static LONGER: UserOp = UserOp::new("longer", false, keep_the_longer, 0);
/// let op = ReduceOp::User(&LONGER);
/// assert!(!op.commutes() && op.supports(DataType::F8E5M2).is_ok());
/// ```
pub struct UserOp {
    name: &'static str,
    commutative: bool,
    function: UserFunction,
    context: usize,
}

impl UserOp {
    /// An operation. `context` is handed to the function; an address, say, or nothing.
    pub const fn new(name: &'static str, commutative: bool, function: UserFunction, context: usize) -> Self {
        UserOp { name, commutative, function, context }
    }

    /// The name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether a op b is b op a.
    pub const fn is_commutative(&self) -> bool {
        self.commutative
    }

    /// Combines `next` into `accumulator`.
    ///
    /// Errors: Remote, if the function panicked; the accumulator holds anything then.
    #[inline]
    pub(crate) fn combine(&self, accumulator: &mut [u8], next: &[u8], dtype: DataType) -> Result<()> {
        // Nobody looks at the accumulator after a panic, and what else the function breaks is its own.
        let call = AssertUnwindSafe(|| (self.function)(self.context, accumulator, next, dtype));
        catch_unwind(call).map_err(|payload| self.panicked(payload))
    }

    #[cold]
    fn panicked(&self, payload: Box<dyn Any + Send>) -> Error {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        let message = format!(
            "the user-defined operation '{}' panicked ({}); it must return for every element",
            self.name,
            text.as_deref().unwrap_or("without a text")
        );
        // Dropping a payload runs foreign code, which might panic again, now with nobody to catch it.
        std::mem::forget(payload);
        Error::new(ErrorKind::Remote, message)
    }
}

impl PartialEq for UserOp {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for UserOp {}

impl Hash for UserOp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::hash(self, state);
    }
}

impl fmt::Debug for UserOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UserOp { name, commutative, .. } = self;
        f.debug_struct("UserOp").field("name", name).field("commutative", commutative).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn xor(context: usize, accumulator: &mut [u8], next: &[u8], _: DataType) {
        for (a, b) in accumulator.iter_mut().zip(next) {
            *a ^= b ^ context as u8;
        }
    }

    fn fail(_: usize, _: &mut [u8], _: &[u8], dtype: DataType) {
        panic!("no {} today", dtype.name());
    }

    fn fail_oddly(_: usize, _: &mut [u8], _: &[u8], _: DataType) {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("a payload that panics when it is dropped");
            }
        }
        std::panic::panic_any(Bomb);
    }

    static XOR: UserOp = UserOp::new("xor-1", true, xor, 1);
    static TWIN: UserOp = UserOp::new("xor-1", true, xor, 1);

    #[test]
    fn an_operation_equals_only_itself_and_gets_its_context() {
        assert!(XOR == XOR && XOR != TWIN);
        assert_eq!(HashSet::from([&XOR, &TWIN, &XOR]).len(), 2);
        let mut accumulator = [1, 2];
        XOR.combine(&mut accumulator, &[4, 4], DataType::U8).unwrap();
        assert_eq!(accumulator, [4, 7]);
    }

    #[test]
    fn a_panic_becomes_an_error_with_the_name_and_the_text() {
        let error = |function| {
            let op = UserOp::new("picky", true, function, 0);
            op.combine(&mut [0; 2], &[0; 2], DataType::F16).unwrap_err()
        };
        let told = error(fail);
        assert_eq!(told.kind(), ErrorKind::Remote);
        assert!(told.message().contains("'picky' panicked (no f16 today)"), "{told}");
        assert!(error(fail_oddly).message().contains("without a text"));
    }
}
