//! Signals that ask the program to end, as something that can be polled.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The signals that end the program, each with the socket its handler writes to.
#[derive(Debug)]
pub(crate) struct Signals {
    sockets: Vec<(i32, UnixStream)>,
}

impl Signals {
    /// Catches the signals from now on, except those the program was started to ignore (`nohup`).
    pub(crate) fn catch() -> std::io::Result<Self> {
        let ignored = ignored_signals();
        let mut sockets = Vec::new();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if ignored & (1 << (signal - 1)) == 0 {
                let (read, write) = UnixStream::pair()?;
                read.set_nonblocking(true)?;
                signal_hook::low_level::pipe::register(signal, write)?;
                sockets.push((signal, read));
            }
        }
        Ok(Signals { sockets })
    }

    /// What to poll.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(|(_, socket)| socket.as_fd())
    }

    /// The signal that came, if one did.
    pub(crate) fn caught(&mut self) -> Option<i32> {
        self.sockets.iter_mut().find_map(|(signal, socket)| match socket.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            _ => Some(*signal),
        })
    }
}

/// The mask of ignored signals; none if the system does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        // Rust programs ignore SIGPIPE, number 13.
        assert_ne!(ignored_signals() & (1 << 12), 0);
    }
}
