//! The last error of a thread: its text, and what it is about as fields.
#![allow(unsafe_code)] // fills C's structure

use crate::boundary::{fill, guard};
use crate::codes::{UBCCL_SUCCESS, ubccl_result};
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use ubccl_rs::Error;

thread_local! {
    static LAST: RefCell<Last> = RefCell::default();
}

#[derive(Default)]
struct Last {
    result: ubccl_result,
    text: CString,
    cause: Option<Cause>,
}

struct Cause {
    rank: u32,
    pid: u32,
    host: CString,
    operation: CString,
    sequence: u64,
    message: CString,
}

/// What an error is about. Set `size` to `sizeof(struct ubccl_error_info)` before asking; a later version may know more
/// fields, and writes no more than `size` bytes. The texts are never null and live until this thread's next call that
/// fails.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct ubccl_error_info {
    /// Bytes of this structure as the caller knows it.
    pub size: usize,
    /// The result code, `UBCCL_SUCCESS` if no call of this thread has failed.
    pub result: ubccl_result,
    /// Whether it is the cause that ended a communicator; only then the fields after `message` say something.
    pub has_cause: bool,
    /// The whole text, that of `ubccl_last_error`.
    pub text: *const c_char,
    /// What happened, in one sentence without who and where; the whole text if there is no cause.
    pub message: *const c_char,
    /// The rank that is the cause.
    pub rank: u32,
    /// Its process, 0 if unknown.
    pub pid: u32,
    /// Its host, empty if unknown.
    pub host: *const c_char,
    /// What it was doing, as `all_reduce count=4 f32 sum`; empty if it was in no operation.
    pub operation: *const c_char,
    /// The number of its collective, counted from 1; 0 before the first.
    pub sequence: u64,
}

/// The whole message of the last call of this thread that failed, or of the last `ubccl_comm_async_error` that found an
/// error; empty if there is none. Never null; valid until this thread's next call that fails.
///
/// Source: ncclGetLastError.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_last_error() -> *const c_char {
    // A thread that is ending may have lost its last error before it asks.
    LAST.try_with(|last| last.borrow().text.as_ptr()).unwrap_or(c"".as_ptr())
}

/// The last error of this thread as fields: which rank, on which host, in which operation.
///
/// Errors: InvalidArgument if `out` is null or its `size` too small.
///
/// # Safety
/// `out` is null, or its `size` is readable and says how many of its bytes may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_last_error_info(out: *mut ubccl_error_info) -> ubccl_result {
    let info = LAST.try_with(|last| describe(&last.borrow())).unwrap_or_else(|_| describe(&Last::default()));
    // SAFETY: the structure is `repr(C)` and begins with its size; the caller vouches for `out`.
    guard(|| unsafe { fill(out, info, size_of::<ubccl_error_info>()) })
}

fn describe(last: &Last) -> ubccl_error_info {
    let empty = c"".as_ptr();
    let text = if last.result == UBCCL_SUCCESS { empty } else { last.text.as_ptr() };
    let mut info = ubccl_error_info {
        size: size_of::<ubccl_error_info>(),
        result: last.result,
        has_cause: false,
        text,
        message: text,
        rank: 0,
        pid: 0,
        host: empty,
        operation: empty,
        sequence: 0,
    };
    if let Some(cause) = &last.cause {
        (info.has_cause, info.rank, info.pid) = (true, cause.rank, cause.pid);
        (info.host, info.operation) = (cause.host.as_ptr(), cause.operation.as_ptr());
        (info.sequence, info.message) = (cause.sequence, cause.message.as_ptr());
    }
    info
}

/// Makes an error this thread's last; its code.
pub(crate) fn remember(error: &Error) -> ubccl_result {
    let result = error.kind().code() as ubccl_result;
    let cause = error.cause().map(|cause| Cause {
        rank: cause.culprit.rank,
        pid: cause.culprit.pid,
        host: text(&cause.culprit.host),
        operation: text(&cause.operation),
        sequence: cause.sequence,
        message: text(&cause.message),
    });
    let last = Last { result, text: text(&error.to_string()), cause };
    // A thread that is ending has no place for it any more; the code says the kind.
    let _is_kept = LAST.try_with(|place| place.replace(last));
    result
}

fn text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}
