//! C and C++ programs on the C interface: the headers compile strictly, programs use every function over shared memory,
//! TCP and threads, against the shared library and the static one, and the peers' benchmark runs.

#![allow(unreachable_pub, reason = "nothing is public outside a test program")]

mod programs;

use programs::{Language, Link, Running, build, compile_text, run};
use std::process::Command;

#[test]
fn the_header_compiles_as_c11() {
    compile_text(TWICE, Language::C11).expect("the README asks for a C compiler");
}

/// A C++ compiler is not asked for; without one there is nothing to learn here.
#[test]
fn the_headers_compile_as_cpp17() {
    let twice = format!("{TWICE}#include \"ubccl.hpp\"\n#include \"ubccl.hpp\"\n");
    for text in [TWICE, &twice] {
        if let Err(missing) = compile_text(text, Language::Cpp17) {
            return programs_not_run("the headers as C++17", &missing.to_string());
        }
    }
}

const TWICE: &str = "#include \"ubccl.h\"\n#include \"ubccl.h\"\nint used(struct ubccl_config *);\n\
                     int used(struct ubccl_config *c) { return (int)ubccl_config_init(c); }\n";

#[test]
fn a_c_program_runs_on_two_processes_over_shared_memory() {
    two_processes("shm");
}

#[test]
fn a_c_program_runs_on_two_processes_over_tcp() {
    two_processes("tcp");
}

#[test]
fn every_call_is_right_in_c() {
    for source in ["ffi/tests/c/all_calls.c", "ffi/tests/c/further_calls.c"] {
        let program = build(source, Link::Shared);
        for (transport, ranks) in [("shm", "1"), ("shm", "3"), ("tcp", "2"), ("tcp", "3"), ("threads", "3")] {
            run(Command::new(&program).args([transport, ranks]));
        }
    }
}

#[test]
fn every_call_is_right_in_c_linked_statically() {
    for source in ["ffi/tests/c/all_calls.c", "ffi/tests/c/further_calls.c"] {
        run(Command::new(build(source, Link::Static)).args(["shm", "2"]));
    }
}

#[test]
fn the_example_trains_with_its_own_ranks() {
    let program = build("examples/data_parallel.c", Link::Shared);
    for (transport, ranks) in [("shm", "1"), ("shm", "2"), ("tcp", "3")] {
        let mut command = Command::new(&program);
        let (status, output) = Running::start(command.arg(ranks).env("UBCCL_TRANSPORT", transport)).finish();
        assert!(status.success(), "{ranks} ranks over {transport}: {status}, {output}");
        assert!(output.contains(&format!("rank 0 of {ranks}, ")), "rank 0 tells of all: {output:?}");
    }
}

/// All that a rank knows is in the environment: `ubccl_config_init` reads its place there.
#[test]
fn the_example_trains_under_a_launcher() {
    let program = build("examples/data_parallel.c", Link::Shared);
    // Free a moment ago: rank 0 binds it again.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let rendezvous = format!("ubccl:1:{address}:00112233445566778899aabbccddeeff");
    let start = |rank: u32| {
        let place = [("UBCCL_RANK", rank.to_string()), ("UBCCL_SIZE", "3".into())];
        let mut command = Command::new(&program);
        Running::start(command.envs(place).env("UBCCL_RENDEZVOUS", &rendezvous))
    };
    for (rank, running) in [0, 1, 2].map(start).into_iter().enumerate() {
        let (status, output) = running.finish();
        assert!(status.success(), "rank {rank}: {status}, {output}");
        let told = if rank == 0 { "rank 0 of 3, 360 samples" } else { "" };
        assert!(output.starts_with(told) && output.is_empty() == told.is_empty(), "rank {rank}: {output:?}");
    }
}

#[test]
fn every_call_is_right_in_cpp() {
    if !has_cpp() {
        return programs_not_run("wrapper.cpp", "there is no C++ compiler");
    }
    let program = build("ffi/tests/c/wrapper.cpp", Link::Shared);
    for (transport, ranks) in [("shm", "2"), ("tcp", "3"), ("threads", "3"), ("threads", "1")] {
        run(Command::new(&program).args([transport, ranks]));
    }
    run(Command::new(build("ffi/tests/c/wrapper.cpp", Link::Static)).args(["shm", "2"]));
}

#[test]
fn mistakes_have_codes_and_do_no_harm() {
    let program = build("ffi/tests/c/misuse.c", Link::Shared);
    for transport in ["shm", "tcp"] {
        run(Command::new(&program).arg(transport));
    }
}

/// Freed too early, read beyond the end, leaked: the programs' own memory is exactly as large as the calls need.
#[test]
fn programs_are_clean_under_sanitizers() {
    if let Err(why) = sanitizers() {
        return programs_not_run("programs under AddressSanitizer and UndefinedBehaviorSanitizer", &why);
    }
    let mut programs: Vec<(&str, &[&[&str]])> = vec![
        ("ffi/tests/c/all_calls.c", &[&["shm", "2"], &["tcp", "2"], &["threads", "3"]]),
        ("ffi/tests/c/further_calls.c", &[&["shm", "2"], &["threads", "3"]]),
        ("examples/data_parallel.c", &[&["2"]]),
        ("ffi/tests/c/misuse.c", &[&["shm"], &["tcp"]]),
    ];
    if has_cpp() {
        programs.push(("ffi/tests/c/wrapper.cpp", &[&["shm", "2"], &["threads", "2"]]));
    }
    for (source, runs) in programs {
        let program = build(source, Link::Sanitized);
        for arguments in runs {
            run(Command::new(&program).args(*arguments).envs([
                ("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0:exitcode=98"),
                ("UBSAN_OPTIONS", "print_stacktrace=1"),
            ]));
        }
    }
}

/// Valgrind shows the program a processor without AVX-512, so that kernels are those of AVX2 that it knows. A forked
/// child of a program with threads has lost what those held: that is no leak of the program.
#[test]
fn programs_are_clean_under_valgrind() {
    if let Err(missing) = Command::new("valgrind").arg("--version").output() {
        return programs_not_run("programs under valgrind", &missing.to_string());
    }
    let build = |source| build(source, Link::Shared);
    let (small, misuse) = (build("ffi/tests/c/small.c"), build("ffi/tests/c/misuse.c"));
    let further = build("ffi/tests/c/further_calls.c");
    let checked = |program: &std::path::Path, arguments: &[&str]| {
        let mut command = Command::new("valgrind");
        command.args(["-q", "--error-exitcode=99", "--leak-check=full"]);
        command.args(["--show-leak-kinds=definite,indirect", "--errors-for-leak-kinds=definite,indirect"]);
        run(command.arg(program).args(arguments));
    };
    checked(&small, &["shm"]);
    checked(&small, &["tcp"]);
    checked(&small, &["threads"]);
    checked(&misuse, &["shm", "without-fork"]);
    checked(&further, &["shm", "2"]);
}

#[test]
fn the_peers_benchmark_runs_and_its_results_are_right() {
    let program = build("benches/peers/ubccl_bench.c", Link::Shared);
    for transport in ["shm", "tcp"] {
        let mut command = Command::new(&program);
        let ops = "allreduce,allreduce_inplace,allgather,reduce_scatter,broadcast,alltoall,barrier,pingpong";
        command.args(["--time=0", "--sizes=4,65536", "--pin=1", &format!("--ops={ops}")]);
        command.arg(format!("--transport={transport}"));
        let (status, output) = Running::start(&mut command).finish();
        assert!(status.success(), "{transport}: {status}");
        command.args(["--rewrite=1", "--registered=1"]);
        let (status, registered) = Running::start(&mut command).finish();
        assert!(status.success(), "{transport}, registered memory: {status}");
        assert_eq!(registered.lines().count(), 15, "the same in registered memory: {registered}");
        assert_eq!(output.lines().count(), 15, "seven operations of two sizes, and a barrier: {output}");
        for line in output.lines().chain(registered.lines()) {
            let record: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
            assert_eq!(record["ok"], 1, "{line}");
            assert!(record["iters"].as_u64().unwrap() >= 3, "{line}");
            assert!(record["p50_us"].as_f64().unwrap() > 0.0, "{line}");
        }
    }
}

#[test]
fn a_c_program_logs_to_standard_error_what_ubccl_debug_asks_for() {
    let program = build("benches/peers/ubccl_bench.c", Link::Shared);
    let log = program.with_extension("log");
    for (level, expected) in [("INFO", 2), ("", 0)] {
        let mut command = Command::new(&program);
        command.args(["--time=0", "--sizes=4", "--pin=0"]).env("UBCCL_DEBUG", level);
        command.stderr(std::fs::File::create(&log).expect("a file for the log"));
        let (status, _) = Running::start(&mut command).finish();
        assert!(status.success(), "{status}");
        let text = std::fs::read_to_string(&log).expect("the log is there");
        assert_eq!(text.matches("UBCCL INFO init: 2 ranks over shm").count(), expected, "{level}: {text}");
    }
}

/// Rank 0 prints the rendezvous text, rank 1 gets it as an argument.
fn two_processes(transport: &str) {
    let program = build("ffi/tests/c/two_processes.c", Link::Shared);
    let part = |text: &str| text.parse::<u32>().unwrap();
    let version = part(env!("CARGO_PKG_VERSION_MAJOR")) * 10_000
        + part(env!("CARGO_PKG_VERSION_MINOR")) * 100
        + part(env!("CARGO_PKG_VERSION_PATCH"));
    let mut first = Running::start(Command::new(&program).args([&version.to_string(), transport]));
    let text = first.line();
    assert!(text.starts_with("ubccl:1:127.0.0.1:"), "rank 0 prints its rendezvous: {text:?}");
    let second = [&version.to_string(), transport, text.trim()];
    let second = Running::start(Command::new(&program).args(second));
    let (first, second) = (first.finish().0, second.finish().0);
    assert!(first.success() && second.success(), "rank 0: {first}, rank 1: {second}");
}

fn has_cpp() -> bool {
    Command::new(Language::Cpp17.compiler()).arg("--version").output().is_ok()
}

/// Whether the compiler has them and they can look at a process here.
fn sanitizers() -> Result<(), String> {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (folder.join("leak.c"), folder.join("leak"));
    let text =
        "#include <stdlib.h>\nint main(void) { volatile char *p = malloc(8); p = 0; return p != 0; }\n";
    std::fs::write(&source, text).map_err(|error| error.to_string())?;
    let mut compiler = Command::new(Language::C11.compiler());
    compiler.arg("-fsanitize=address,undefined").arg(&source).arg("-o").arg(&program);
    let compiled = compiler.output().map_err(|error| error.to_string())?;
    if !compiled.status.success() {
        return Err("the compiler has none".into());
    }
    let mut leaky = Command::new(&program);
    let found = leaky.env("ASAN_OPTIONS", "detect_leaks=1:exitcode=98").output();
    let found = found.map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&found.stderr).into_owned();
    if told.contains("detected memory leaks") {
        Ok(())
    } else {
        Err(format!("leaks are not found here: {told}"))
    }
}

/// What a machine cannot run is said, with the reason.
#[allow(clippy::print_stderr, reason = "it is a test's")]
fn programs_not_run(what: &str, why: &str) {
    eprintln!("not tested: {what}: {why}");
}
