//! The fences between "I have published" and "who sleeps?".
//!
//! A writer publishes and then reads the reader's flags; a sleeper raises its flag and then looks for entries. Each needs
//! a fence between its store and its load. Writers pass it all the time, sleepers seldom, and a full fence costs a writer
//! the travel of the line it has just written. So where the kernel can make every running thread of the others pass a
//! barrier (`membarrier`, Linux 4.16), the sleeper asks for that and the writer's fence binds the compiler only. All ranks
//! have to do it alike.

use super::atomics::Word;
use rustix::thread::{MembarrierCommand, membarrier};
use std::sync::atomic::{Ordering, compiler_fence};
use ubccl_core::{Error, Result};

/// Who pays for the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fences {
    /// Both sides.
    Symmetric,
    /// The sleeper, by a barrier in all processes that [`Fences::register`]ed.
    OfSleepers,
}

impl Fences {
    /// Has this process take part in the barriers of others; `false` if the kernel knows no such thing.
    pub(crate) fn register() -> bool {
        membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok()
            && membarrier(MembarrierCommand::GlobalExpedited).is_ok()
    }

    /// What a writer passes between publishing and reading flags.
    #[inline]
    pub(crate) fn of_writer<T, W: Word<T>>(self) {
        match self {
            // SeqCst: partner of `of_sleeper`; of these two, the later one sees what came before the earlier one.
            Fences::Symmetric => W::fence(Ordering::SeqCst),
            Fences::OfSleepers => compiler_fence(Ordering::SeqCst),
        }
    }

    /// What a sleeper passes between raising its flag and looking a last time.
    ///
    /// Errors: System, if the kernel that once could make the barrier cannot any more.
    pub(crate) fn of_sleeper<T, W: Word<T>>(self) -> Result<()> {
        // SeqCst: partner of `of_writer`, and of the barriers that the kernel makes.
        W::fence(Ordering::SeqCst);
        match self {
            Fences::Symmetric => Ok(()),
            // Every thread that runs has passed a barrier when this returns, and those that do not run had one when they
            // stopped: a writer's store before its fence is seen from here on, or its load after it sees the flag.
            Fences::OfSleepers => membarrier(MembarrierCommand::GlobalExpedited)
                .map_err(|errno| Error::system("membarrier refused (allow it in the sandbox)", errno)),
        }
    }
}
