//! Reductions by a user's function: bite by bite through two small buffers on the stack.
//!
//! The function gets references, and the memory of sources may belong to other processes, so what it sees are copies.
//! They also are where the type wants them, wherever the sources are, and dst may be any of these: a bite of it is
//! written when that of every source has been read.
#![allow(unsafe_code)] // kernels work on raw pointers, because their memory may belong to other processes

use super::copy;
use crate::{DataType, Result, UserOp};

/// Enough that a call and two copies weigh little per byte; a whole number of elements of every type.
const BITE_BYTES: usize = 2048;

#[repr(align(64))]
struct Bite([u8; BITE_BYTES]);

/// Folds with a user's function.
///
/// Errors: those of the function; dst is written up to the bite before.
///
/// # Safety
/// As for [`super::reduce`].
pub(super) unsafe fn reduce(
    op: &UserOp,
    dtype: DataType,
    sources: &[*const u8],
    dst: *mut u8,
    count: usize,
) -> Result<()> {
    let bytes = count * dtype.size();
    let (mut folded, mut next) = (Bite([0; BITE_BYTES]), Bite([0; BITE_BYTES]));
    for at in (0..bytes).step_by(BITE_BYTES) {
        let len = BITE_BYTES.min(bytes - at);
        let (folded, next) = (&mut folded.0[..len], &mut next.0[..len]);
        // SAFETY: `at + len` is within the bytes that every source has; a buffer on the stack is apart from them.
        unsafe { copy(sources[0].wrapping_add(at), folded.as_mut_ptr(), len) };
        for source in &sources[1..] {
            // SAFETY: the same.
            unsafe { copy(source.wrapping_add(at), next.as_mut_ptr(), len) };
            op.combine(folded, next, dtype)?;
        }
        // SAFETY: `at + len` is within the bytes of dst; the buffer is apart from it.
        unsafe { copy(folded.as_ptr(), dst.wrapping_add(at), len) };
    }
    Ok(())
}
