//! See README.md.

#[allow(dead_code, unused_imports, reason = "the communicator, which uses all of it, is not written yet")]
mod control;

pub use control::Rendezvous;
