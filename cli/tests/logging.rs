//! `UBCCL_DEBUG` shows what its level says on standard error, each line with host, process and rank.

mod common;
use common::{err, finish, ubccl};

/// Standard error of a small benchmark of two ranks with these variables.
fn logged(variables: &[(&str, &str)]) -> Vec<String> {
    let mut command = ubccl("bench all_reduce -b 8 -e 8 -n 1 -w 0 -c 1");
    let output = finish(command.envs(variables.iter().copied()).spawn().unwrap());
    assert!(output.status.success(), "{}", err(&output));
    err(&output).lines().map(str::to_owned).collect()
}

fn count(lines: &[String], part: &str) -> usize {
    lines.iter().filter(|line| line.contains(part)).count()
}

#[test]
fn nothing_is_logged_unless_asked_for() {
    assert_eq!(count(&logged(&[]), "UBCCL"), 0);
    assert_eq!(count(&logged(&[("UBCCL_DEBUG", "OFF")]), "UBCCL"), 0);
}

#[test]
fn warn_tells_the_version_once_and_info_each_rank_once() {
    let lines = logged(&[("UBCCL_DEBUG", "WARN")]);
    assert_eq!(count(&lines, "UBCCL INFO version: ubccl 0."), 1, "{lines:?}");
    assert_eq!(count(&lines, "UBCCL"), 1, "{lines:?}");
    let lines = logged(&[("UBCCL_DEBUG", "info")]);
    for rank in ["[0]", "[1]"] {
        let start = format!("{rank} UBCCL INFO init: 2 ranks over shm, algorithm chosen by cost");
        assert_eq!(count(&lines, &start), 1, "{lines:?}");
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for line in &lines {
        let pid = line.strip_prefix(&format!("{host}:")).and_then(|rest| rest.split(' ').next());
        assert!(pid.is_some_and(|pid| pid.parse::<u32>().is_ok()), "{line}");
    }
}

#[test]
fn subsystems_choose_what_info_and_more_are_about() {
    let lines = logged(&[("UBCCL_DEBUG", "DEBUG"), ("UBCCL_DEBUG_SUBSYS", "TUNING")]);
    assert!(count(&lines, " UBCCL DEBUG plan: mesh-one-shot for all_reduce") >= 2, "{lines:?}");
    assert_eq!(count(&lines, " init: "), 0, "{lines:?}");
    let lines = logged(&[("UBCCL_DEBUG", "TRACE"), ("UBCCL_DEBUG_SUBSYS", "^INIT")]);
    assert!(count(&lines, " UBCCL TRACE coll: all_reduce") >= 2, "{lines:?}");
    assert_eq!(count(&lines, " init: "), 0, "{lines:?}");
}

#[test]
fn what_was_configured_is_told_without_the_secret() {
    let lines = logged(&[("UBCCL_DEBUG", "INFO"), ("UBCCL_CHUNK", "1M"), ("UBCCL_CHUNKS", "1M")]);
    assert_eq!(count(&lines, "config: chunk = 1048576 B (environment UBCCL_CHUNK)"), 2, "{lines:?}");
    assert!(
        count(&lines, "WARN config: UBCCL_CHUNKS is set and means nothing; UBCCL_CHUNK does") == 2,
        "{lines:?}"
    );
    // Rank 0 of the program makes the rendezvous itself, rank 1 has it in its environment.
    let places: Vec<_> = lines.iter().filter(|line| line.contains("rendezvous = ")).collect();
    assert!(places.len() == 2 && places.iter().all(|line| line.contains(":(secret) (")), "{places:?}");
}

#[test]
fn a_bad_level_is_told_with_the_levels() {
    let mut command = ubccl("bench all_reduce -e 8");
    let output = finish(command.env("UBCCL_DEBUG", "LOUD").spawn().unwrap());
    assert!(!output.status.success() && err(&output).contains("ERROR, WARN, INFO"), "{}", err(&output));
}
