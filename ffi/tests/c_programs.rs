//! C programs on the C interface: the header compiles as strict C11 and C++17, one program uses every function on two
//! processes, and the peers' benchmark runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a program may take; far more than it needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-Iinclude"];

#[test]
fn the_header_compiles_as_c11() {
    compile_header(&c_compiler(), "c", "-std=c11").expect("the README asks for a C compiler");
}

/// A C++ compiler is not asked for; without one there is nothing to learn here.
#[test]
fn the_header_compiles_as_cpp17() {
    let compiler = compiler_from("CXX", "c++");
    if let Err(missing) = compile_header(&compiler, "c++", "-std=c++17") {
        eprintln!("not tested: {compiler} does not start: {missing}");
    }
}

#[test]
fn a_c_program_runs_on_two_processes_over_shared_memory() {
    two_processes("shm");
}

#[test]
fn a_c_program_runs_on_two_processes_over_tcp() {
    two_processes("tcp");
}

#[test]
fn the_peers_benchmark_runs_and_its_results_are_right() {
    let program = build("benches/peers/ubccl_bench.c");
    for transport in ["shm", "tcp"] {
        let mut command = Command::new(&program);
        command.args(["--time=0", "--sizes=4,65536", "--pin=1", &format!("--transport={transport}")]);
        let (status, output) = Running::start(&mut command).finish();
        assert!(status.success(), "{transport}: {status}");
        assert_eq!(output.lines().count(), 4, "two operations, two sizes: {output}");
        for line in output.lines() {
            let record: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
            assert_eq!(record["ok"], 1, "{line}");
            assert!(record["iters"].as_u64().unwrap() >= 3, "{line}");
            assert!(record["p50_us"].as_f64().unwrap() > 0.0, "{line}");
        }
    }
}

#[test]
fn a_c_program_logs_to_standard_error_what_ubccl_debug_asks_for() {
    let program = build("benches/peers/ubccl_bench.c");
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
    let program = build("ffi/tests/c/two_processes.c");
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

/// A program that is killed if it takes too long or the test fails.
struct Running {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    deadline: Instant,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        for variable in ["RENDEZVOUS", "RANK", "SIZE", "TRANSPORT", "ALGO", "TIMEOUT"] {
            command.env_remove(format!("UBCCL_{variable}"));
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Running { child, output, deadline: Instant::now() + PATIENCE }
    }

    /// The next line it prints; empty if it ended, which its own alarm sees to.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it prints text");
        line
    }

    /// How it ended and what it printed, which must fit into a pipe.
    fn finish(mut self) -> (ExitStatus, String) {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            assert!(Instant::now() < self.deadline, "it still runs after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut output = String::new();
        self.output.read_to_string(&mut output).expect("it prints text");
        (status, output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails if the program has ended, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Compiles a program of the tree as strict C11 against the shared library.
fn build(source: &str) -> PathBuf {
    let library = library();
    let name = Path::new(source).file_stem().expect("a source has a name").to_str().unwrap();
    let id = format!("{name}-{:?}", std::thread::current().id()).replace(['(', ')'], "");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(id);
    let mut command = Command::new(c_compiler());
    command.current_dir(root()).args(["-std=c11", "-O2"]).args(STRICT).arg(source).arg("-o").arg(&program);
    command.arg(library).arg(format!("-Wl,-rpath,{}", library.parent().expect("in a folder").display()));
    succeed(&mut command);
    program
}

/// `libubccl.so`, built now: cargo builds a package's C library for no test of the package.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "-p", "ubccl-ffi", "--lib", "--offline", "--message-format=json"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        let messages = succeed(command.current_dir(root()));
        let mut messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
        messages.find_map(|message| shared_object(&message)).expect("cargo names libubccl.so")
    })
}

fn shared_object(message: &serde_json::Value) -> Option<PathBuf> {
    let files = message["filenames"].as_array()?.iter().filter_map(serde_json::Value::as_str);
    files.map(PathBuf::from).find(|file| file.ends_with("libubccl.so"))
}

/// Compiles the header alone, included twice. The error is that of starting the compiler.
fn compile_header(compiler: &str, language: &str, standard: &str) -> std::io::Result<()> {
    let mut command = Command::new(compiler);
    command.current_dir(root()).args([standard, "-fsyntax-only"]).args(STRICT).args(["-x", language, "-"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let program = "#include \"ubccl.h\"\n#include \"ubccl.h\"\nint used(struct ubccl_config *);\n\
                   int used(struct ubccl_config *c) { return (int)ubccl_config_init(c); }\n";
    child.stdin.take().expect("it is piped").write_all(program.as_bytes())?;
    let output = child.wait_with_output()?;
    assert!(output.status.success(), "{standard}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What the command printed.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

fn c_compiler() -> String {
    compiler_from("CC", "cc")
}

fn compiler_from(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.into())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
