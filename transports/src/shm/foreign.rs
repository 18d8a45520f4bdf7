//! Reading the memory of another process of this host, so that a long message in ordinary memory crosses in one copy.
//!
//! The kernel does it (`process_vm_readv`) where it may: for processes of one user, unless a sandbox forbids the call, and
//! under Yama's scope 1 once the owner has allowed it. Nothing is assumed: each rank tries it on each other when they meet, and
//! a pair that cannot sends through slots.
#![allow(unsafe_code)] // a system call that takes addresses

use super::segment::Segment;
use rustix::process::Pid;
use std::io::Error;

/// Where Yama says who may read whom.
const SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Another rank's process, which has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    process: Pid,
}

/// What came of reading.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// The process is gone.
    Gone,
    /// There is no such memory, or it may not be read.
    Refused(Error),
}

/// Lets the other processes of this user read this one, where Yama asks for that.
pub(crate) fn allow() {
    if std::fs::read_to_string(SCOPE).is_ok_and(|scope| scope.trim() == "1") {
        // SAFETY: this option takes a number and no address; that it may be refused is what trying is for.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
    }
}

impl Foreign {
    /// The process, if it can be read: the header of its segment, at the address where it says it has it, is tried.
    pub(crate) fn meet(process: Pid, segment: &Segment) -> Result<Foreign, Unreadable> {
        let foreign = Foreign { process };
        let (mut read, expected) = ([0; 4], segment.header());
        // SAFETY: the words have as many bytes.
        unsafe { foreign.read(segment.address_of_owner(), (&raw mut read).cast(), size_of_val(&read)) }?;
        match read == expected {
            true => Ok(foreign),
            false => Err(Unreadable::Refused(Error::other("another process answers to its number"))),
        }
    }

    /// Reads so many bytes at an address of that process. What they are while the process writes them is anybody's guess.
    ///
    /// # Safety
    /// `into` is valid for writes of `bytes`.
    pub(crate) unsafe fn read(&self, from: u64, into: *mut u8, bytes: usize) -> Result<(), Unreadable> {
        let mut done = 0;
        while done < bytes {
            let left = bytes - done;
            let local = libc::iovec { iov_base: into.wrapping_add(done).cast(), iov_len: left };
            let there = from.wrapping_add(done as u64) as usize;
            let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(there), iov_len: left };
            let process = self.process.as_raw_nonzero().get();
            // SAFETY: both vectors have one element; the local one is inside what the caller vouches for, and the kernel
            // checks the remote one.
            let read =
                unsafe { libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0) };
            done += match read {
                1.. => read as usize,
                0 => return Err(Unreadable::Refused(Error::other("it ended early"))),
                _ => match Error::last_os_error() {
                    error if error.raw_os_error() == Some(libc::EINTR) => 0,
                    error if error.raw_os_error() == Some(libc::ESRCH) => return Err(Unreadable::Gone),
                    error => return Err(Unreadable::Refused(error)),
                },
            };
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn this() -> Foreign {
        Foreign { process: rustix::process::getpid() }
    }

    #[test]
    fn a_process_reads_what_is_there_and_is_told_what_is_not() {
        let from: Vec<u8> = (0..100_000_u32).map(|byte| (byte * 7) as u8).collect();
        let mut into = vec![0; from.len()];
        let address = |at: usize| from.as_ptr().wrapping_add(at).expose_provenance() as u64;
        // SAFETY: `into` has as many bytes.
        unsafe { this().read(address(3), into.as_mut_ptr(), from.len() - 3) }.expect("its own memory");
        assert_eq!(into[..from.len() - 3], from[3..]);
        // SAFETY: as above.
        let nowhere = unsafe { this().read(8, into.as_mut_ptr(), 8) };
        assert!(matches!(nowhere, Err(Unreadable::Refused(_))), "{nowhere:?}");
        // A number that the kernel gives to nobody.
        let nobody = Foreign { process: Pid::from_raw(i32::MAX).expect("not zero") };
        // SAFETY: as above.
        let gone = unsafe { nobody.read(address(0), into.as_mut_ptr(), 8) };
        assert!(matches!(gone, Err(Unreadable::Gone)), "{gone:?}");
    }
}
