//! What transports within one host share: rings with one producer and one consumer, the doorbell by which a sleeper is
//! woken, and the small tables of pending posts.
//!
//! The protocols (`ring`, `doorbell`) are written over the words of `atomics`, so that loom checks the very same code
//! that runs between processes and between threads.

pub(crate) mod atomics;
pub(crate) mod bell;
pub(crate) mod doorbell;
pub(crate) mod label;
pub(crate) mod queue;
pub(crate) mod ring;
