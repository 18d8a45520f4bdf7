//! The border to C: panics and errors become codes; texts, structures and tables are read and written.
#![allow(unsafe_code)] // takes C's word for its pointers; each function says which

use crate::codes::{UBCCL_INTERNAL_ERROR, UBCCL_SUCCESS, ubccl_result};
use crate::error;
use crate::handles::Table;
use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use ubccl_rs::{Blocks, Error, Result};

/// Runs a call's body: no panic leaves it, and an error becomes a code and this thread's last error.
pub(crate) fn guard(body: impl FnOnce() -> Result<()>) -> ubccl_result {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => UBCCL_SUCCESS,
        Ok(Err(error)) => error::remember(&error),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            error::remember(&Error::internal(format!("ubccl panicked: {text}; please report it")));
            UBCCL_INTERNAL_ERROR
        }
    }
}

/// Makes a value and writes its handle to `out`; makes nothing if `out` is null.
///
/// # Safety
/// `out` is null or may be written.
pub(crate) unsafe fn put<T, H>(
    table: &Table<T>,
    out: *mut *mut H,
    make: impl FnOnce() -> Result<T>,
) -> Result<()> {
    check_out(out)?;
    let handle = table.insert(make)?;
    // SAFETY: it is not null, and the caller vouches that it may be written.
    unsafe { out.write(std::ptr::without_provenance_mut(handle)) };
    Ok(())
}

/// # Safety
/// `out` is null or may be written.
pub(crate) unsafe fn write<T>(out: *mut T, value: T) -> Result<()> {
    check_out(out)?;
    // SAFETY: it is not null, and the caller vouches that it may be written.
    unsafe { out.write(value) };
    Ok(())
}

pub(crate) fn check_out<T>(out: *mut T) -> Result<()> {
    if out.is_null() { Err(Error::invalid("the out-parameter is null")) } else { Ok(()) }
}

/// Fills a structure of which the caller may know only the beginning: its first field, which stays as it is, says how
/// many bytes, and they are at least `least`.
///
/// # Safety
/// `T` is `repr(C)` and begins with a `usize`. `out` is null or begins with a `usize` that may be read and that is the
/// number of bytes that may be written from there on.
pub(crate) unsafe fn fill<T: Copy>(out: *mut T, value: T, least: usize) -> Result<()> {
    check_out(out)?;
    // SAFETY: it is not null, and the caller vouches for the size.
    let size = unsafe { out.cast::<usize>().read() };
    if size < least {
        return Err(Error::invalid(format!(
            "size is {size}; set it to the sizeof of the structure, {least} or more"
        )));
    }
    let (head, bytes) = (size_of::<usize>(), size.min(size_of::<T>()));
    let from = (&raw const value).cast::<u8>();
    // SAFETY: `value` is longer than its first field.
    let from = unsafe { from.add(head) };
    // SAFETY: `out` has `size` bytes, which is `least`, or more: longer than the first field.
    let to = unsafe { out.cast::<u8>().add(head) };
    // SAFETY: both have `bytes` bytes from their beginning on, and `value` is a copy of our own.
    unsafe { to.copy_from_nonoverlapping(from, bytes - head) };
    Ok(())
}

/// # Safety
/// `text` is null or zero-terminated.
pub(crate) unsafe fn read_text(text: *const c_char, what: &str) -> Result<Option<String>> {
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
pub(crate) unsafe fn write_text(text: &str, out: *mut c_char, len: usize) -> Result<()> {
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

/// Lengths of blocks, one for each rank; without displacements they follow one another.
///
/// # Safety
/// Both are null, misaligned, or have `ranks` entries that stay as they are for `'a`.
pub(crate) unsafe fn read_blocks<'a>(
    counts: *const usize,
    displacements: *const usize,
    ranks: u32,
) -> Result<Blocks<'a>> {
    // SAFETY: the caller vouches for `counts`.
    let counts = unsafe { read_lengths(counts, "counts", ranks) }?;
    if displacements.is_null() {
        return Ok(Blocks::packed(counts));
    }
    // SAFETY: the caller vouches for `displacements`.
    Ok(Blocks::at(counts, unsafe { read_lengths(displacements, "displacements", ranks) }?))
}

/// # Safety
/// As for [`read_blocks`].
pub(crate) unsafe fn read_lengths<'a>(lengths: *const usize, what: &str, ranks: u32) -> Result<&'a [u64]> {
    if lengths.is_null() {
        return Err(Error::invalid(format!("{what} is null; it needs an entry for each of {ranks} ranks")));
    }
    if !lengths.is_aligned() {
        return Err(Error::invalid(format!("{what} is not aligned as an array of size_t is")));
    }
    // SAFETY: it is neither null nor misaligned, so the caller vouches for `ranks` entries; `usize` has 64 bits here
    // (checked in lib.rs), every value of which is a `u64`.
    Ok(unsafe { std::slice::from_raw_parts(lengths.cast::<u64>(), ranks as usize) })
}

/// Has `call` called in every child that this process forks; `false` if there is no memory for that.
pub(crate) fn at_fork_in_child(call: extern "C" fn()) -> bool {
    type Handler = Option<extern "C" fn()>;
    unsafe extern "C" {
        fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> c_int;
    }
    // SAFETY: this is its declaration in POSIX, and `call` is a function of this library: the C library forgets it if
    // the library is unloaded.
    unsafe { pthread_atfork(None, None, Some(call)) == 0 }
}
