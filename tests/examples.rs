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

/// Each checks what it computes; the tables have a row for each setting, with numbers in order.
#[test]
fn programs_of_simulated_ranks_print_their_tables() {
    let rows = |name: &str, ranks: &str| {
        let output = Command::new(built(name)).arg(ranks).stdin(Stdio::null()).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}: {output:?}");
        let rows = said.lines().filter(|line| !line.starts_with('#')).skip(1);
        rows.map(|row| row.split_whitespace().map(str::to_owned).collect()).collect::<Vec<Vec<String>>>()
    };
    let number = |text: &String| text.trim_end_matches('%').parse::<f64>().expect("a number");
    let training = rows("training_step", "16");
    assert_eq!(training.len(), 6, "{training:?}");
    for (k, row) in training.iter().enumerate() {
        let [in_turn, overlapped, exposed] = [2, 3, 4].map(|column| number(&row[column]));
        let is_one_bucket = k == 5; // there is nothing to overlap with
        assert!(if is_one_bucket { overlapped == in_turn } else { overlapped < in_turn }, "{row:?}");
        assert!(exposed > 0.0 && exposed < overlapped, "{row:?}");
    }
    assert!(
        number(&training[0][4]) < number(&training[5][4]),
        "one bucket overlaps with nothing: {training:?}"
    );
    let decoding = rows("moe_decode", "16");
    assert_eq!(decoding.len(), 6, "{decoding:?}");
    for pair in decoding.chunks_exact(2) {
        let most = |row: &Vec<String>| number(&row[6]);
        assert!(most(&pair[1]) >= most(&pair[0]), "skewed routing has a fuller expert: {pair:?}");
        assert!(number(&pair[0][5]) > number(&pair[0][3]), "exchanges take time: {pair:?}");
    }
}

/// Every rank compares what comes with what was sent.
#[test]
fn ping_pong_at_a_pace_moves_the_right_bytes_and_takes_at_least_what_the_model_says() {
    for ranks in ["2", "4"] {
        let output =
            Command::new(built("ping_pong")).args([ranks, "1000", "2000"]).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{ranks} ranks: {output:?}");
        let rows: Vec<Vec<f64>> = said
            .lines()
            .skip(2)
            .map(|row| row.split_whitespace().take(3).map(|cell| cell.parse().expect("a number")).collect())
            .collect();
        assert_eq!(rows.len(), 6, "{said}");
        for row in rows {
            assert!(row[2] >= row[1] * 0.999, "no message is early: {said}");
        }
    }
}

/// The example, in an environment that says nothing of ranks; its own deadlines end it.
fn example() -> Command {
    let mut command = Command::new(built("data_parallel"));
    for (name, _) in std::env::vars_os().filter(|row| row.0.to_string_lossy().starts_with("UBCCL_")) {
        command.env_remove(name);
    }
    command.envs([("UBCCL_TIMEOUT", "60"), ("UBCCL_START_TIMEOUT", "60")]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Built now: `cargo test --test examples` builds no example. After `cargo test` there is nothing left to do, because
/// the whole workspace decides on features in both.
fn build() -> Vec<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--workspace", "--examples", "--offline", "--message-format=json"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("cargo prints text");
    let made = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    made.into_iter().filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect()
}

/// One of the examples.
fn built(name: &str) -> PathBuf {
    static PROGRAMS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(build);
    let program = programs.iter().find(|program| program.file_stem().is_some_and(|stem| stem == name));
    program.unwrap_or_else(|| panic!("cargo made no example {name}, but {programs:?}")).clone()
}
