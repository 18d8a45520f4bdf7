//! `ubccl config` tells every value and where it came from, and what is wrong with a file.

mod common;
use common::{err, finish, out, ubccl};
use std::fs;

struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ubccl-cli-{name}-{}.toml", std::process::id()));
        fs::write(&path, content).unwrap();
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The words of the line that begins with `name`.
fn words<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).split_whitespace().collect()
}

#[test]
fn every_value_is_printed_with_its_origin_and_no_secret() {
    let file = File::new("origins", "lanes = 2\nchunk = '4K'\n");
    let mut command = ubccl("config");
    command.env("UBCCL_CONFIG", &file.0).env("UBCCL_CHUNK", "8K");
    command.env("UBCCL_RENDEZVOUS", "ubccl:1:127.0.0.1:4444:ffeeddccbbaa99887766554433221100");
    let output = finish(command.spawn().unwrap());
    assert!(output.status.success(), "{}", err(&output));
    let text = out(&output);
    let path = file.0.to_str().unwrap();
    assert_eq!(words(&text, "chunk"), ["chunk", "8192", "B", "environment", "UBCCL_CHUNK"]);
    assert_eq!(words(&text, "lanes"), ["lanes", "2", "file", path, "line", "1"]);
    assert_eq!(words(&text, "timeout"), ["timeout", "1800", "s", "default"]);
    assert!(text.contains("127.0.0.1:4444") && !text.contains("ffeedd"), "{text}");
}

#[test]
fn one_setting_is_explained_and_an_unknown_one_gets_a_suggestion() {
    let output = common::run("config UBCCL_CHUNK");
    for part in ["chunk = chosen by cost (default)", "UBCCL_CHUNK", "1 to 4294967295 B"] {
        assert!(out(&output).contains(part), "{part} is not in {}", out(&output));
    }
    let output = common::run("config chunky");
    assert!(!output.status.success() && err(&output).contains("did you mean 'chunk'?"), "{}", err(&output));
}

#[test]
fn a_bad_file_stops_a_benchmark_before_it_starts() {
    let file = File::new("bad", "# one\nlane = 2\n");
    let output = finish(ubccl("bench all_reduce -e 8").env("UBCCL_CONFIG", &file.0).spawn().unwrap());
    assert!(!output.status.success());
    for part in ["line 2", "'lane'", "did you mean 'lanes'?", file.0.to_str().unwrap()] {
        assert!(err(&output).contains(part), "{part} is not in {}", err(&output));
    }
    assert!(out(&output).is_empty());
}
