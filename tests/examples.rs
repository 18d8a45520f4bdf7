//! The examples run as their documentation says: with ranks of their own, and under a launcher.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use ubccl::Rendezvous;

/// Every rank checks the weights and the loss and says so by its status.
#[test]
fn data_parallel_training_starts_its_own_ranks() {
    for (ranks, transport) in [("1", "shm"), ("2", "shm"), ("3", "tcp")] {
        let output = example().arg(ranks).env("UBCCL_TRANSPORT", transport).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{ranks} ranks over {transport}: {output:?}");
        assert!(said.contains(&format!("{ranks} ranks, samples [100")), "rank 0 tells of all: {said:?}");
    }
}

#[test]
fn data_parallel_training_works_under_a_launcher() {
    // Dropped at once: rank 0 binds the address that the text names.
    let rendezvous = Rendezvous::create().expect("loopback has a free port").text();
    let start = |rank: u32| {
        let place = [("UBCCL_RANK", rank.to_string()), ("UBCCL_SIZE", "2".into())];
        example().envs(place).env("UBCCL_RENDEZVOUS", &rendezvous).spawn().expect("it starts")
    };
    for (rank, mut child) in [0, 1].map(start).into_iter().enumerate() {
        let status = child.wait().expect("it is our child");
        assert!(status.success(), "rank {rank}: {status}");
    }
}

/// The example, in an environment that says nothing of ranks; its own deadlines end it.
fn example() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(PROGRAM.get_or_init(build));
    for (name, _) in std::env::vars_os().filter(|row| row.0.to_string_lossy().starts_with("UBCCL_")) {
        command.env_remove(name);
    }
    command.envs([("UBCCL_TIMEOUT", "60"), ("UBCCL_START_TIMEOUT", "60")]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Built now: `cargo test --test examples` builds no example. After `cargo test` there is nothing left to do, because
/// the whole workspace decides on features in both.
fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--workspace",
        "--example",
        "data_parallel",
        "--offline",
        "--message-format=json",
    ]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("cargo prints text");
    let made = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = made.into_iter().find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.expect("cargo names the program that it made")
}
