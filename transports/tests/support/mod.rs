//! What the transports' tests stand on: an exchange between threads, guarded memory, ranks as small coroutines, and
//! the drivers that run them in real and in virtual time.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]

pub mod double;
pub mod drive;
pub mod exchange;
pub mod memory;
pub mod oracle;
pub mod rank;
pub mod work;
