//! Which process this is.

use parking_lot::Mutex;
use ubccl_core::{Error, Result};

use super::rendezvous::random_bytes;
use super::wire::{HOST_BYTES_MAX, Token};

/// The process behind a rank, as other ranks see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Host name.
    pub(crate) host: String,
    /// Process id.
    pub(crate) pid: u32,
    /// Random, drawn once per process: tells processes apart that have the same pid in different namespaces.
    pub(crate) process: Token,
}

/// The identity's random part and the process that drew it (a forked child draws its own).
static DRAWN: Mutex<Option<(u32, Token)>> = Mutex::new(None);

impl Identity {
    /// The identity of the calling process.
    pub(crate) fn of_this_process() -> Result<Self> {
        let pid = std::process::id();
        let name = rustix::system::uname();
        let mut host = name.nodename().to_string_lossy().into_owned();
        host.truncate(host.floor_char_boundary(HOST_BYTES_MAX));
        let mut drawn = DRAWN.lock();
        let process = match *drawn {
            Some((owner, process)) if owner == pid => process,
            _ => random_bytes()?,
        };
        *drawn = Some((pid, process));
        Ok(Identity { host, pid, process })
    }
}

/// Fails in a forked child: threads, descriptors and the place on the board belong to the parent.
pub(crate) fn check_not_forked(owner: u32) -> Result<()> {
    let pid = std::process::id();
    if pid == owner {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "this process ({pid}) was forked from process {owner}, which owns the communicator; \
         start communicators after forking, or use spawn instead of fork"
    )))
}

/// `rank 3 (host node7, pid 41)`.
pub(crate) fn who(rank: u32, host: &str, pid: u32) -> String {
    format!("rank {rank} (host {host}, pid {pid})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_has_one_identity() {
        let mine = Identity::of_this_process().unwrap();
        assert_eq!(mine, Identity::of_this_process().unwrap());
        assert_eq!(mine.pid, std::process::id());
        assert!(!mine.host.is_empty());
    }

    #[test]
    fn another_pid_means_forked() {
        assert!(check_not_forked(std::process::id()).is_ok());
        assert!(check_not_forked(1).unwrap_err().to_string().contains("forked"));
    }
}
