//! An 8-byte all-reduce between two spinning ranks makes no system call on the calling thread.
#![allow(unsafe_code)] // installs a seccomp filter and forks ranks off by re-executing

use std::process::{Command, Stdio};
use std::time::Duration;
use ubccl::{Communicator, Config, ReduceOp, Rendezvous};

const ROLE: &str = "UBCCL_TEST_SECCOMP_RANK";
const CALLS: usize = 20_000;

/// Kills the process at any system call of this thread but `write` (to tell how it went) and `exit_group`.
fn allow_only_write_and_exit() {
    const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let allow = |number: libc::c_long, over: u8| libc::sock_filter {
        code: JUMP_IF_EQUAL,
        jt: over,
        jf: 0,
        k: number as u32,
    };
    let stop = |code: u16, k: u32| libc::sock_filter { code, jt: 0, jf: 0, k };
    let mut filter = [
        stop(LOAD_NUMBER, 0),
        allow(libc::SYS_write, 2),
        allow(libc::SYS_exit_group, 1),
        stop(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        stop(RETURN, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: a plain call without pointers.
    let quiet = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(quiet, 0, "no_new_privs is always allowed");
    // SAFETY: the program and its filter outlive the call, which copies them.
    let installed =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(installed, 0, "seccomp filters are available: {}", std::io::Error::last_os_error());
}

/// One rank, in its own process: warms up, locks itself in, calls, and tells.
fn rank(rank: u32, forbidden: bool) {
    let text = std::env::var("UBCCL_TEST_SECCOMP_RENDEZVOUS").expect("the parent set it");
    let config = Config {
        rendezvous: Some(text.parse().expect("the parent's text parses")),
        rank,
        ranks: 2,
        spin: Duration::from_secs(60),
        ..Config::default()
    };
    let comm = Communicator::init(config).expect("both come");
    let (send, mut recv) = ([1.0_f32, f32::from(rank as u16)], [0.0_f32; 2]);
    for _ in 0..100 {
        comm.all_reduce(&send, &mut recv, ReduceOp::Sum).expect("it works");
    }
    allow_only_write_and_exit();
    if forbidden {
        // Proves that the filter bites.
        std::thread::yield_now();
    }
    for _ in 0..CALLS {
        if comm.all_reduce(&send, &mut recv, ReduceOp::Sum).is_err() {
            leave(b"failed\n");
        }
    }
    leave(if recv == [2.0, 1.0] { b"done\n" } else { b"wrong\n" });
}

/// Says one word and ends the process with nothing but the two calls that are allowed.
fn leave(word: &[u8]) -> ! {
    // SAFETY: the bytes are there, and standard output is open.
    unsafe { libc::write(1, word.as_ptr().cast(), word.len()) };
    // SAFETY: ends the process without running anything else.
    unsafe { libc::_exit(0) }
}

fn both(forbidden: bool) -> Vec<String> {
    // A port that is free now: rank 0, a child, binds it.
    let free = Rendezvous::create().expect("a rendezvous").text();
    let me = std::env::current_exe().expect("this program has a path");
    let children: Vec<_> = (0..2)
        .map(|rank| {
            Command::new(&me)
                .args(["--exact", "ranks_under_seccomp", "--nocapture"])
                .env(ROLE, format!("{rank} {forbidden}"))
                .env("UBCCL_TEST_SECCOMP_RENDEZVOUS", &free)
                .stdout(Stdio::piped())
                .spawn()
                .expect("this program starts again")
        })
        .collect();
    children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().expect("it ends");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            format!("{} {:?}", said.lines().last().unwrap_or_default(), output.status)
        })
        .collect()
}

/// Not a test by itself: the ranks of the one below run it.
#[test]
fn ranks_under_seccomp() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (number, forbidden) = role.split_once(' ').expect("the parent set both");
    rank(number.parse().expect("a number"), forbidden == "true");
}

#[test]
fn an_8_byte_all_reduce_makes_no_system_call() {
    for said in both(false) {
        assert!(said.contains("done"), "a rank ended with: {said}");
    }
    for said in both(true) {
        assert!(!said.contains("done"), "the filter lets everything through: {said}");
    }
}
