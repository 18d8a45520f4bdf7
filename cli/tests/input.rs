//! Bad input is refused with a message that says what exists or what to do.

mod common;
use common::{err, out, run};

#[test]
fn bad_words_end_with_an_error_that_lists_what_exists() {
    for (line, parts) in [
        ("bench all_recude", &["all_recude", "all_reduce", "reduce_scatter"][..]),
        ("bench all_reduce --datatype f33", &["f33", "f32 (float)", "u8 (uint8)"]),
        ("bench all_reduce -o summ", &["summ", "sum", "max"]),
        ("bench all_reduce --algo treee", &["treee", "ring", "mesh-one-shot"]),
        ("bench all_reduce --transport teleport", &["teleport", "shm", "threads", "tcp", "optical"]),
        ("bench all_reduce --warmup", &["--warmup", "--warmup_iters", "--minbytes"]),
        ("sim all_reduce --fabric atlantis --ranks 2", &["atlantis", "cloudmatrix384"]),
        ("nonsense", &["nonsense", "bench", "sim", "plan"]),
        ("plan all_reduce --rank 9 --ranks 4", &["9", "0 to 3"]),
        ("bench broadcast -r 7", &["7", "0 to 1"]),
        ("bench gather -r 2", &["2", "0 to 1"]),
        ("plan group", &["group", "one call at a time"]),
        ("bench all_reduce -b 2M -e 1M", &["larger"]),
        ("bench all_reduce --fabric custom", &["--fabric", "sim"]),
    ] {
        let output = run(line);
        assert!(!output.status.success(), "{line}");
        for part in parts {
            assert!(err(&output).contains(part), "{line}: {part} in {}", err(&output));
        }
        assert!(out(&output).is_empty(), "{line}: {}", out(&output));
    }
}

#[test]
fn half_an_environment_of_a_launcher_is_refused() {
    let mut command = common::ubccl("bench all_reduce");
    let output = common::finish(command.env("UBCCL_RANK", "1").env("UBCCL_SIZE", "2").spawn().unwrap());
    assert!(!output.status.success());
    assert!(err(&output).contains("UBCCL_RENDEZVOUS"), "{}", err(&output));
}

#[test]
fn a_full_disk_names_the_file_and_what_to_do() {
    for line in ["bench all_reduce -e 8 --json /dev/full", "sim all_reduce -e 8 --json /dev/full"] {
        let output = run(line);
        assert!(!output.status.success());
        assert!(
            err(&output).contains("/dev/full") && err(&output).contains("free space"),
            "{}",
            err(&output)
        );
    }
}

#[test]
fn help_and_version_succeed() {
    assert!(out(&run("bench --help")).contains("mesh-one-shot"));
    assert!(out(&run("--version")).contains(env!("CARGO_PKG_VERSION")));
}
