//! The C interface: `ubccl_<noun>_<verb>`, opaque pointers, a result code from every call that can fail,
//! out-parameters last and written only on success, panics caught. The header `include/ubccl.h` is generated from here.
#![allow(unsafe_code)] // every function takes C's word for its pointers; each says which

mod handles;

use handles::{guard, read_text, set_last_error, write_text};
use std::ffi::{CStr, c_char, c_void};
use std::time::Duration;
use ubccl_rs::{Collective, Communicator, Config, DataType, Error, ErrorKind, ReduceOp, Rendezvous};

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

/// Bytes that a rendezvous text and its end need at most.
pub const UBCCL_RENDEZVOUS_TEXT_MAX: usize = 128;

/// Where ranks meet: rank 0's listener and the text that the others need.
#[allow(non_camel_case_types)]
pub struct ubccl_rendezvous(Rendezvous);

/// A communicator. One thread at a time.
#[allow(non_camel_case_types)]
pub struct ubccl_comm(Communicator);

/// How a communicator is made. Fill it with `ubccl_config_init`, then change what you need.
#[repr(C)]
#[allow(non_camel_case_types)]
pub struct ubccl_config {
    /// Bytes of this structure as the caller knows it; set by `ubccl_config_init`.
    pub size: usize,
    /// Where the ranks meet, as text; null: from `UBCCL_RENDEZVOUS`, or `listener`.
    pub rendezvous: *const c_char,
    /// Rank 0 only: the rendezvous that it made. It is used up by a successful `ubccl_comm_init`, and by a failed one
    /// unless `size` is wrong.
    pub listener: *mut ubccl_rendezvous,
    /// This rank.
    pub rank: u32,
    /// How many ranks.
    pub ranks: u32,
    /// The transport's name; null: `UBCCL_TRANSPORT` or the default.
    pub transport: *const c_char,
    /// An algorithm for every call; null: `UBCCL_ALGO` or chosen by size.
    pub algorithm: *const c_char,
    /// Seconds that one operation may take; 0: `UBCCL_TIMEOUT` or the default.
    pub operation_timeout_s: u32,
}

/// The version as 10,000 × major + 100 × minor + patch.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_version() -> u32 {
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

/// The whole message of the last call of this thread that failed. Never null; valid until this thread's next call.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_last_error() -> *const c_char {
    handles::last_error()
}

/// Makes a rendezvous: rank 0 does, gives its text to the other ranks, and itself to `ubccl_comm_init`.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_rendezvous_create(out: *mut *mut ubccl_rendezvous) -> ubccl_result {
    // SAFETY: the caller vouches for `out`.
    guard(|| unsafe { handles::put(out, || Ok(ubccl_rendezvous(Rendezvous::create()?))) })
}

/// Writes the rendezvous' text, zero-terminated, into `text` (`len` bytes, `UBCCL_RENDEZVOUS_TEXT_MAX` suffices).
///
/// # Safety
/// `rendezvous` is null or alive; `text` is null or has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_rendezvous_text(
    rendezvous: *const ubccl_rendezvous,
    text: *mut c_char,
    len: usize,
) -> ubccl_result {
    guard(|| {
        // SAFETY: the caller vouches for `rendezvous`.
        let rendezvous = unsafe { handles::get(rendezvous, "rendezvous") }?;
        // SAFETY: the caller vouches for `text` and `len`.
        unsafe { write_text(&rendezvous.0.text(), text, len) }
    })
}

/// Frees a rendezvous that no `ubccl_comm_init` used up. Null is fine.
///
/// # Safety
/// `rendezvous` is null or alive, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_rendezvous_destroy(rendezvous: *mut ubccl_rendezvous) {
    guard(|| {
        // SAFETY: the caller vouches for `rendezvous`.
        unsafe { handles::free(rendezvous) };
        Ok(())
    });
}

/// Fills a configuration with the defaults.
///
/// # Safety
/// `config` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_config_init(config: *mut ubccl_config) -> ubccl_result {
    guard(|| {
        if config.is_null() {
            return Err(Error::invalid("config is null"));
        }
        let defaults = ubccl_config {
            size: size_of::<ubccl_config>(),
            rendezvous: std::ptr::null(),
            listener: std::ptr::null_mut(),
            rank: 0,
            ranks: 1,
            transport: std::ptr::null(),
            algorithm: std::ptr::null(),
            operation_timeout_s: 0,
        };
        // SAFETY: it is not null, and the caller vouches that it may be written.
        unsafe { config.write(defaults) };
        Ok(())
    })
}

/// Joins a communicator; returns when all ranks have.
///
/// # Safety
/// `config` is null or valid, its texts are null or zero-terminated, its listener null or alive and then not used
/// again; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_init(
    config: *const ubccl_config,
    out: *mut *mut ubccl_comm,
) -> ubccl_result {
    guard(|| {
        // Before `out` is looked at: whatever fails, the listener is used up.
        // SAFETY: the caller vouches for `config`, its texts and its listener.
        let config = unsafe { read_config(config) };
        if let Ok(config) = &config {
            // A C program has no subscriber of its own; another Rust library in it might.
            ubccl_rs::logging::install(config)?;
        }
        // SAFETY: the caller vouches for `out`.
        unsafe { handles::put(out, || Ok(ubccl_comm(Communicator::init(config?)?))) }
    })
}

/// This rank and the number of ranks; either may be null.
///
/// # Safety
/// `comm` is null or alive; `rank` and `ranks` are null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_rank(
    comm: *const ubccl_comm,
    rank: *mut u32,
    ranks: *mut u32,
) -> ubccl_result {
    guard(|| {
        // SAFETY: the caller vouches for `comm`.
        let comm = unsafe { handles::get(comm, "comm") }?;
        for (place, value) in [(rank, comm.0.rank()), (ranks, comm.0.ranks())] {
            if !place.is_null() {
                // SAFETY: it is not null, and the caller vouches that it may be written.
                unsafe { place.write(value) };
            }
        }
        Ok(())
    })
}

/// All-reduces `count` elements of `send` into `recv` on every rank; in place if both are the same. Blocks.
/// `dtype` and `op` are `UBCCL_F32` … and `UBCCL_SUM` ….
///
/// # Safety
/// `comm` is null or alive; `send` may be read and `recv` written for `count` elements, and both are left alone
/// until it returns; they are equal or apart.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_all_reduce(
    comm: *const ubccl_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    dtype: i32,
    op: i32,
) -> ubccl_result {
    guard(|| {
        // SAFETY: the caller vouches for `comm`.
        let comm = unsafe { handles::get(comm, "comm") }?;
        let call = Collective::all_reduce(count as u64, read_dtype(dtype)?, read_op(op)?);
        // SAFETY: the caller vouches for both buffers.
        unsafe { comm.0.run_raw(&call, send.cast(), recv.cast()) }
    })
}

/// Ends the communicator on every rank: whatever is under way or called later fails.
///
/// # Safety
/// `comm` is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_abort(comm: *const ubccl_comm) -> ubccl_result {
    guard(|| {
        // SAFETY: the caller vouches for `comm`.
        let comm = unsafe { handles::get(comm, "comm") }?;
        comm.0.abort("ubccl_comm_abort")
    })
}

/// Leaves in good order and frees the communicator, whatever the result says. Null is refused.
///
/// # Safety
/// `comm` is null or alive, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_destroy(comm: *mut ubccl_comm) -> ubccl_result {
    guard(|| {
        // SAFETY: the caller vouches for `comm`.
        let comm = unsafe { handles::take(comm, "comm") }?;
        comm.0.close()
    })
}

/// # Safety
/// As for `ubccl_comm_init`.
unsafe fn read_config(config: *const ubccl_config) -> Result<Config, Error> {
    // SAFETY: the caller vouches for `config`.
    let given = unsafe { handles::get(config, "config") }?;
    if given.size != size_of::<ubccl_config>() {
        return Err(Error::invalid(format!(
            "config.size is {}, this version's is {}: fill it with ubccl_config_init",
            given.size,
            size_of::<ubccl_config>()
        )));
    }
    let listener = match given.listener.is_null() {
        true => None,
        // SAFETY: the caller vouches that it is alive and not used again.
        false => Some(unsafe { handles::take(given.listener, "listener") }?),
    };
    let mut config = Config::from_env_with(given.rank, given.ranks)?;
    // SAFETY: the caller vouches for the texts.
    let text = |pointer, what| unsafe { read_text(pointer, what) };
    if let Some(text) = text(given.rendezvous, "rendezvous")? {
        config.rendezvous = Some(text.parse()?);
    }
    if let Some(listener) = listener {
        config.rendezvous = Some(listener.0);
    }
    if let Some(transport) = text(given.transport, "transport")? {
        config.transport = transport;
    }
    config.algorithm = text(given.algorithm, "algorithm")?.or(config.algorithm);
    if given.operation_timeout_s > 0 {
        config.operation_timeout = Duration::from_secs(given.operation_timeout_s.into());
    }
    Ok(config)
}

fn read_dtype(code: i32) -> Result<DataType, Error> {
    let dtype = u8::try_from(code).ok().and_then(DataType::from_code);
    dtype.ok_or_else(|| Error::invalid(format!("{code} is no data type")))
}

fn read_op(code: i32) -> Result<ReduceOp, Error> {
    let op = u8::try_from(code).ok().and_then(ReduceOp::from_code);
    // Without its scalar it would be a sum under another name.
    let op = op.filter(|&op| op != ReduceOp::PreMulSum);
    op.ok_or_else(|| Error::invalid(format!("{code} is no reduction operation")))
}

/// The result code of an error, whose text becomes this thread's last.
fn code_of(error: &Error) -> ubccl_result {
    set_last_error(&error.to_string());
    error.kind().code() as ubccl_result
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
