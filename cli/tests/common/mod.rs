//! Starting the program and looking at what it leaves behind.
#![allow(dead_code)] // every test file uses a part of it

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Every collective that the program runs.
pub(crate) const COLLECTIVES: [&str; 15] = [
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "broadcast",
    "sendrecv",
    "barrier",
    "reduce",
    "gather",
    "scatter",
    "all_to_all",
    "all_gather_v",
    "reduce_scatter_v",
    "gather_v",
    "scatter_v",
    "all_to_all_v",
];

/// A test that hangs is ended by this, and fails.
const WATCHDOG: Duration = Duration::from_secs(120);

/// The program, free of what a launcher of the tests may have set.
pub(crate) fn ubccl(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ubccl"));
    command.args(line.split_whitespace());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("UBCCL_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
pub(crate) fn run(line: &str) -> Output {
    finish(ubccl(line).spawn().unwrap())
}

/// Waits for the program to end, at most until the watchdog barks.
pub(crate) fn finish(child: Child) -> Output {
    let pid = child.id();
    let (done, waited) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        if waited.recv_timeout(WATCHDOG).is_err() {
            send_signal("KILL", pid);
        }
    });
    let output = child.wait_with_output().unwrap();
    let _ = done.send(());
    output
}

/// Sends a signal by name.
pub(crate) fn send_signal(name: &str, pid: u32) {
    Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
}

/// The processes whose parent is `pid`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Waits until a condition holds.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WATCHDOG;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process exists, zombies included.
pub(crate) fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Standard output as text.
pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
