//! What transports within one host share: rings with one producer and one consumer, the doorbell by which a sleeper is
//! woken, and the small tables of pending posts.
//!
//! The protocols (`ring`, `doorbell`, `signal`, …) are written over the words of `atomics`, so that loom checks the very same code
//! that runs between processes and between threads.

pub(crate) mod announcement;
pub(crate) mod atomics;
pub(crate) mod bell;
pub(crate) mod doorbell;
pub(crate) mod fences;
pub(crate) mod label;
pub(crate) mod publication;
pub(crate) mod queue;
pub(crate) mod ring;
pub(crate) mod scattered;
pub(crate) mod signal;
pub(crate) mod stores;
pub(crate) mod visit;
pub(crate) mod ways;

use ubccl_core::{Error, ErrorKind, Exchange, Result};

/// Channels of a pair beside the lanes: that of direct messages, then that of tagged ones.
pub(crate) const POINT_TO_POINT_CHANNELS: usize = 2;

/// Looks that follow one another without a pause: for about as long as a line takes from another processor.
const EAGER_LOOKS: u32 = 64;

/// Whether something is there, at the `look`-th of many looks.
#[inline]
pub(crate) fn is_there(look: u32, mut is_there: impl FnMut() -> bool) -> bool {
    if look >= EAGER_LOOKS {
        std::hint::spin_loop();
    }
    is_there()
}

/// Tells the others how it went, so that the rank that knows why is the one that all of them name.
pub(crate) fn agree<T>(exchange: &mut dyn Exchange, endpoint: Result<T>) -> Result<T> {
    let failure = endpoint.as_ref().err().map_or_else(String::new, |error| error.to_string());
    let failures = exchange.all_gather(failure.as_bytes());
    let endpoint = endpoint?;
    match failures?.iter().find(|failure| !failure.is_empty()) {
        Some(failure) => Err(Error::new(ErrorKind::Start, String::from_utf8_lossy(failure))),
        None => Ok(endpoint),
    }
}
