//! The transports of ubccl. Each is a folder (or a file) here and a line in the index below; names on the command
//! line, help, docs tables and the conformance suite are derived from its descriptor.

mod caches;
#[cfg(test)]
#[path = "../tests/support/exchange.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the test programs")]
mod exchange;
mod host;
mod local;

use ubccl_core::endpoint::Transport;

/// Declares the transports: `module::TYPE`, one line each.
macro_rules! index {
    ($($module:ident :: $transport:ident,)*) => {
        $(pub mod $module;)*

        /// Every transport there is.
        pub fn index() -> &'static [&'static dyn Transport] {
            static INDEX: &[&dyn Transport] = &[$(&$module::$transport),*];
            INDEX
        }
    };
}

index! {
    shm::SHM,
    threads::THREADS,
    tcp::TCP,
    optical::OPTICAL,
}

/// Counts of signals in memory that ranks address together ([`Endpoint::find_allocation`]).
///
/// [`Endpoint::find_allocation`]: ubccl_core::endpoint::Endpoint::find_allocation
pub mod signals {
    use crate::local::signal;
    use std::sync::atomic::AtomicU64;

    /// Signals `by`, after everything that this rank has written before.
    #[inline]
    pub fn add(count: &AtomicU64, by: u64) {
        signal::add(count, by);
    }

    /// What was signalled so far; what was written before those signals can be read afterwards.
    #[inline]
    pub fn total(count: &AtomicU64) -> u64 {
        signal::total(count)
    }
}

/// The transport of this name or alias.
///
/// Errors: InvalidArgument, listing what exists.
pub fn find(name: &str) -> ubccl_core::Result<&'static dyn Transport> {
    let is_named = |transport: &&&dyn Transport| {
        let descriptor = transport.descriptor();
        descriptor.name == name || descriptor.alias == Some(name)
    };
    index().iter().find(is_named).copied().ok_or_else(|| {
        let names: Vec<_> = index().iter().map(|transport| transport.descriptor().name).collect();
        ubccl_core::Error::invalid(format!("unknown transport '{name}'; there are: {}", names.join(", ")))
    })
}
