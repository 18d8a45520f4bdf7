//! Operations beyond those with a number of their own: a user's function, and a sum of inputs that each rank multiplies
//! first. They are numbers too, so that one argument takes every operation.
#![allow(unsafe_code)] // calls C's functions; takes C's word for its pointers

use crate::boundary::{check_out, guard, read_text, write};
use crate::codes::ubccl_result;
use parking_lot::{Mutex, RwLock};
use std::ffi::{c_char, c_void};
use ubccl_rs::{DataType, Error, ReduceOp, Reduction, Result, UserOp};

/// Combines elements: for every k < `count`, `inout[k]` becomes `inout[k] op in[k]` (MPI's functions have the two the
/// other way round, which matters only to operations that don't commute). Both hold `count` ≥ 1 whole elements of
/// `dtype`, aligned for it, and do not overlap; it is seldom all of a message.
///
/// It may be called on any thread, also on one of the library's own, and on several at once. It must not call into a
/// communicator, throw, or leave by longjmp.
#[allow(non_camel_case_types)]
pub type ubccl_user_function = Option<
    unsafe extern "C" fn(
        r#in: *const c_void,
        inout: *mut c_void,
        count: usize,
        dtype: i32,
        context: *mut c_void,
    ),
>;

/// Numbers of made operations have this bit, then a generation (14 bits) and a place (16).
const MADE: i32 = 1 << 30;
const PLACES: usize = 1 << 16;
const GENERATIONS: i32 = 1 << 14;

static OPS: RwLock<Vec<Made>> = RwLock::new(Vec::new());

#[derive(Clone, Copy)]
struct Made {
    generation: i32,
    reduction: Option<Reduction>,
}

/// What a user's operation is made of. A plan may hold it for as long as the process lives, so each is kept, once.
#[derive(Clone, Copy)]
struct Function {
    call: unsafe extern "C" fn(*const c_void, *mut c_void, usize, i32, *mut c_void),
    context: usize,
}

impl Function {
    fn is(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.call, other.call) && self.context == other.context
    }
}

struct Kept {
    function: &'static Function,
    op: &'static UserOp,
}

static USER_OPS: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// Makes an operation of a function. It is commutative, or only plans that combine ranks in their order run it:
/// `((x0 op x1) op x2) …`. It must be associative, and may be used with every element type.
///
/// Ranks: all must use operations of one `name` in one call; that the functions behind it are the same is the caller's
///        promise.
/// Errors: InvalidArgument if `name` is null, empty or no UTF-8, or `function` is null.
/// Source: MPI_Op_create.
///
/// # Safety
/// `name` is null or zero-terminated. `function` may be called as its type says, with `context`, until the process
/// ends: an operation that is destroyed may still be part of one under way. `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_op_create_user(
    name: *const c_char,
    is_commutative: bool,
    function: ubccl_user_function,
    context: *mut c_void,
    out: *mut i32,
) -> ubccl_result {
    guard(|| {
        check_out(out)?;
        // SAFETY: the caller vouches for `name`.
        let name = unsafe { read_text(name, "name") }?.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Error::invalid("an operation needs a name, the same on every rank"))?;
        let call = function.ok_or_else(|| Error::invalid("function is null"))?;
        let function = Function { call, context: context.expose_provenance() };
        let op = keep(name, is_commutative, function);
        // SAFETY: the caller vouches for `out`.
        unsafe { write(out, make(Reduction::from(op))?) }
    })
}

/// Makes a sum of every rank's input times that rank's `scalar`, which may differ between ranks. Each product is rounded
/// to the element type before it is summed; for integers the scalar must be whole. Out of place the products need a copy
/// of the input, in place the input is multiplied where it stands.
///
/// Source: ncclRedOpCreatePreMulSum.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_op_create_premul_sum(scalar: f64, out: *mut i32) -> ubccl_result {
    guard(|| {
        check_out(out)?;
        // SAFETY: the caller vouches for `out`.
        unsafe { write(out, make(Reduction::PreMulSum(scalar))?) }
    })
}

/// Frees an operation's number; what was issued with it goes on.
///
/// Errors: InvalidArgument if it is none that was made, or was destroyed before.
/// Source: ncclRedOpDestroy, MPI_Op_free.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_op_destroy(op: i32) -> ubccl_result {
    guard(|| {
        let mut ops = OPS.write();
        let made = ops.get_mut(place_of(op)).filter(|made| op & MADE != 0 && made.is(op));
        let made = made.ok_or_else(|| unknown(op))?;
        made.reduction = None;
        made.generation += 1;
        Ok(())
    })
}

/// What a number stands for that is none of the library's own.
pub(crate) fn find(op: i32) -> Result<Reduction> {
    let made = if op > 0 && op & MADE != 0 { OPS.read().get(place_of(op)).copied() } else { None };
    made.filter(|made| made.is(op)).and_then(|made| made.reduction).ok_or_else(|| unknown(op))
}

impl Made {
    fn is(&self, op: i32) -> bool {
        op > 0 && self.reduction.is_some() && (op & !MADE) >> 16 == self.generation
    }
}

fn place_of(op: i32) -> usize {
    op as usize & (PLACES - 1)
}

fn unknown(op: i32) -> Error {
    Error::invalid(format!("{op} is no reduction operation, or one that was destroyed"))
}

/// A number for a reduction. A place whose generations are used up is given up.
fn make(reduction: Reduction) -> Result<i32> {
    let mut ops = OPS.write();
    let free = ops.iter().position(|made| made.reduction.is_none() && made.generation < GENERATIONS);
    let place = free.unwrap_or(ops.len());
    if place >= PLACES {
        return Err(Error::unsupported("there are too many operations; destroy those that are not needed"));
    }
    if free.is_none() {
        ops.push(Made { generation: 0, reduction: None });
    }
    ops[place].reduction = Some(reduction);
    Ok(MADE | ops[place].generation << 16 | place as i32)
}

/// The operation of a name and a function: one that was made before, or a new one that lives for ever.
fn keep(name: String, is_commutative: bool, function: Function) -> &'static UserOp {
    let mut kept = USER_OPS.lock();
    let same = kept.iter().find(|kept| {
        (kept.op.name(), kept.op.is_commutative()) == (&*name, is_commutative) && kept.function.is(&function)
    });
    if let Some(same) = same {
        return same.op;
    }
    let function: &'static Function = Box::leak(Box::new(function));
    let context = std::ptr::from_ref(function).expose_provenance();
    let op = Box::leak(Box::new(UserOp::new(name.leak(), is_commutative, combine, context)));
    kept.push(Kept { function, op });
    op
}

/// Calls C's function; `context` is the address of a [`Function`] that lives for ever.
fn combine(context: usize, accumulator: &mut [u8], next: &[u8], dtype: DataType) {
    // SAFETY: `keep` made the address of a leaked `Function`, which nobody writes.
    let function = unsafe { &*std::ptr::with_exposed_provenance::<Function>(context) };
    let count = accumulator.len() / dtype.size();
    let (next, accumulator) = (next.as_ptr().cast(), accumulator.as_mut_ptr().cast());
    let context = std::ptr::with_exposed_provenance_mut(function.context);
    // SAFETY: both slices hold `count` aligned elements and lie apart, as the function's type says; whoever made the
    // operation vouches for the function and its context.
    unsafe { (function.call)(next, accumulator, count, i32::from(dtype.code()), context) }
}

/// Whether a number is one of the library's operations, see [`crate::codes`].
pub(crate) fn built_in(op: i32) -> Option<ReduceOp> {
    let op = u8::try_from(op).ok().and_then(ReduceOp::from_code);
    // Without its scalar it would be a sum under another name.
    op.filter(|&op| op != ReduceOp::PreMulSum)
}
