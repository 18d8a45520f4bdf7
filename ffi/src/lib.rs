//! The C interface: `ubccl_<noun>_<verb>`, opaque handles, a result code from every call that can fail, out-parameters
//! last and written only on success, panics caught. The header `include/ubccl.h` is generated from here.
//!
//! - `codes`: results, element types, operations; `ops`: operations that C makes; `error`: the text and fields of the last error.
//! - `handles`: why a handle that was destroyed, or never was one, is an error and nothing worse.
//! - `start`: rendezvous and configuration; `comm` and its endings; `queries` of it; `split`: more of them.
//! - `memory`: buffers that ranks read and write in place.
//! - `collectives`; `work`: what is not waited for; `group`; `prepared`.

mod boundary;
pub mod codes;
pub mod collectives;
pub mod comm;
pub mod error;
pub mod group;
mod handles;
pub mod memory;
pub mod ops;
pub mod prepared;
pub mod queries;
pub mod split;
pub mod start;
pub mod work;

// Counts are `size_t` in C and 64 bits in the library; handles carry three numbers in one pointer.
const _: () = assert!(size_of::<usize>() == 8, "the C interface is for 64-bit targets");
