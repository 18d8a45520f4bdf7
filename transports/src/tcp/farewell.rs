//! Closing connections without losing what was sent.
//!
//! A send completes when this kernel has the bytes, and then the rank may leave. But a socket that is closed while the
//! peer still sends (a grant is enough) answers with a reset, and a reset destroys what the peer's kernel does not have
//! yet. So: say that nothing more comes, then take and discard what arrives until everything is acknowledged.

use super::connection::Connection;
use super::raw::unacknowledged;
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long no byte may be acknowledged by anybody before the rest is given up. A peer that is stopped costs this much.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How long all of it may take.
const MOST: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// Waits until the peers have everything. Closing is left to the owner.
pub(super) fn part<'a>(connections: impl Iterator<Item = &'a Connection>) {
    let mut waiting: Vec<_> = connections.map(|connection| (connection.as_fd(), u32::MAX)).collect();
    for (socket, _) in &waiting {
        // Refused only if the peer is gone, which the loop sees, too.
        let _ = shutdown(socket, Shutdown::Write);
    }
    let begin = Instant::now();
    let mut last_progress = begin;
    loop {
        let mut has_progress = false;
        waiting.retain_mut(|(socket, before)| {
            let rest = if discard(*socket) { unacknowledged(*socket).unwrap_or(0) } else { 0 };
            has_progress |= rest < *before;
            *before = rest;
            rest > 0
        });
        if has_progress {
            last_progress = Instant::now();
        }
        if waiting.is_empty() {
            return;
        }
        if last_progress.elapsed() > PATIENCE || begin.elapsed() > MOST {
            tracing::warn!(
                target: "ubccl::net", peers = waiting.len(),
                "closing tcp connections whose peers do not take what was sent"
            );
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Takes what arrived. `false` if the connection failed: then nothing sent can be saved.
fn discard(socket: BorrowedFd<'_>) -> bool {
    let mut bytes = [0u8; 16 << 10];
    loop {
        match recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
            // An end from the peer only says that it sends no more.
            Ok((0, _)) | Err(Errno::AGAIN) => return true,
            Ok(_) | Err(Errno::INTR) => (),
            Err(_) => return false,
        }
    }
}
