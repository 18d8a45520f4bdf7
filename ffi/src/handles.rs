//! Pointers of C: checked for null, turned into boxes and back; panics and errors turned into codes.

use crate::{UBCCL_INTERNAL_ERROR, UBCCL_SUCCESS, code_of, ubccl_result};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use ubccl_rs::Error;

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::new(CString::default());
}

/// Runs a call's body: no panic leaves it, and an error becomes a code and this thread's last error.
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Error>) -> ubccl_result {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => UBCCL_SUCCESS,
        Ok(Err(error)) => code_of(&error),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            set_last_error(&format!("internal error: ubccl panicked: {text}; please report it"));
            UBCCL_INTERNAL_ERROR
        }
    }
}

pub(crate) fn set_last_error(text: &str) {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    LAST_ERROR.with(|last| *last.borrow_mut() = text);
}

pub(crate) fn last_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}

/// Boxes what `make` makes and writes the pointer to `out`.
///
/// # Safety
/// `out` is null or may be written.
pub(crate) unsafe fn put<T>(out: *mut *mut T, make: impl FnOnce() -> Result<T, Error>) -> Result<(), Error> {
    if out.is_null() {
        return Err(Error::invalid("the out-parameter is null"));
    }
    let handle = Box::into_raw(Box::new(make()?));
    // SAFETY: it is not null, and the caller vouches that it may be written.
    unsafe { out.write(handle) };
    Ok(())
}

/// # Safety
/// `handle` is null or valid for `'a`.
pub(crate) unsafe fn get<'a, T>(handle: *const T, what: &str) -> Result<&'a T, Error> {
    // SAFETY: the caller vouches that it is valid if it is not null.
    unsafe { handle.as_ref() }.ok_or_else(|| Error::invalid(format!("{what} is null")))
}

/// # Safety
/// `handle` is null or came from [`put`], and is not used again.
pub(crate) unsafe fn take<T>(handle: *mut T, what: &str) -> Result<Box<T>, Error> {
    if handle.is_null() {
        return Err(Error::invalid(format!("{what} is null")));
    }
    // SAFETY: it is not null, so it came from `put`, and the caller gives it up.
    Ok(unsafe { Box::from_raw(handle) })
}

/// # Safety
/// As for [`take`].
pub(crate) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: as for `take`.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// # Safety
/// `text` is null or zero-terminated.
pub(crate) unsafe fn read_text(text: *const c_char, what: &str) -> Result<Option<String>, Error> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: it is not null, and the caller vouches that it is zero-terminated.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_str().map_err(|_| Error::invalid(format!("{what} is not UTF-8")))?;
    Ok(Some(text.to_owned()))
}

/// Writes `text` and a zero.
///
/// # Safety
/// `out` is null or has `len` bytes that may be written.
pub(crate) unsafe fn write_text(text: &str, out: *mut c_char, len: usize) -> Result<(), Error> {
    if out.is_null() || len <= text.len() {
        return Err(Error::invalid(format!("the text needs {} bytes", text.len() + 1)));
    }
    // SAFETY: `out` has more than `text.len()` bytes, and a Rust string does not overlap it.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len()) };
    // SAFETY: the byte after the text is inside `len`.
    let end = unsafe { out.add(text.len()) };
    // SAFETY: as above.
    unsafe { end.write(0) };
    Ok(())
}
