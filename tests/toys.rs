//! What a new algorithm and a new transport touch: one new file and one line of an index each, nothing else.
//!
//! The test copies the tree, adds a toy of each, builds, and finds both wherever a user or a test would look. The copy
//! and its build stay in the target folder, so that a second run compiles only what changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const ALGORITHM: &str = r#"//! A toy: ring under another name.

use crate::ring::RING;
use ubccl_core::plan::Plan;
use ubccl_core::{Algorithm, AlgorithmDescriptor, Kind, Layout, Profile, Result, Spec};

/// The toy.
pub static TOY: Toy = Toy;

/// See the module.
#[derive(Debug)]
pub struct Toy;

impl Algorithm for Toy {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        &AlgorithmDescriptor { name: "toy-circle", summary: "a toy", source: "tests/toys.rs" }
    }

    fn supports(&self, kind: Kind, ranks: u32) -> Result<()> {
        RING.supports(kind, ranks)
    }

    fn plan(&self, spec: &Spec) -> Plan {
        RING.plan(spec)
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        RING.profile(spec, layout)
    }
}
"#;

const TRANSPORT: &str = r#"//! A toy: shared memory under another name.

use crate::shm::SHM;
use ubccl_core::endpoint::{Clock, ConnectOptions, Endpoint, Reach, Transport, TransportDescriptor};
use ubccl_core::{Exchange, Result};

/// The toy.
pub static TOY: Toy = Toy;

/// See the module.
#[derive(Debug)]
pub struct Toy;

impl Transport for Toy {
    fn descriptor(&self) -> &'static TransportDescriptor {
        &TransportDescriptor {
            name: "toy-wire",
            alias: None,
            summary: "a toy",
            clock: Clock::Real,
            reach: Reach::Host,
        }
    }

    fn connect(&self, exchange: &mut dyn Exchange, options: &ConnectOptions) -> Result<Box<dyn Endpoint>> {
        SHM.connect(exchange, options)
    }
}
"#;

/// How long a command of the toy tree may take; compiling on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(1200);

#[test]
fn one_file_and_one_line_make_an_algorithm_and_a_transport() {
    let toys = Toys::build();
    toys.are_listed_by_the_program();
    toys.run_by_name();
    toys.are_tested();
}

/// A copy of the tree with toys in it.
struct Toys {
    tree: PathBuf,
    target: PathBuf,
}

impl Toys {
    fn build() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("toys");
        let toys = Toys { tree: home.join("tree"), target: home.join("target") };
        let added = [("algorithms", ALGORITHM), ("transports", TRANSPORT)];
        let mut files = tree_of(root);
        for (member, toy) in added {
            let library = Path::new(member).join("src/lib.rs");
            let index = files.iter_mut().find(|file| file.path == library).expect("a member has a library");
            index.add_line_to_index();
            let path = Path::new(member).join("src/toy.rs");
            assert!(files.iter().all(|file| file.path != path), "{} is taken", path.display());
            files.push(File { path, content: toy.into() });
        }
        replace(&toys.tree, &files);
        toys.cargo(&["build", "-p", "ubccl-cli"]);
        toys
    }

    /// Names and help texts come from the descriptors.
    fn are_listed_by_the_program(&self) {
        let help = self.ubccl(&["bench", "--help"]);
        assert!(help.status.success(), "{}", told(&help));
        assert_names(&help, &["toy-circle", "toy-wire", "a toy"]);
        for (flag, toy) in [("--algo", "toy-circle"), ("--transport", "toy-wire")] {
            let refused = self.ubccl(&["bench", "all_reduce", flag, "nonsense"]);
            assert!(!refused.status.success(), "{flag} nonsense is accepted");
            assert_names(&refused, &["nonsense", toy]);
        }
    }

    /// Two processes all-reduce by the toy algorithm over the toy transport, with nothing wrong.
    fn run_by_name(&self) {
        let json = self.target.join("toys.json");
        let toys = ["--algo", "toy-circle", "--transport", "toy-wire"];
        let sweep = ["bench", "all_reduce", "-e", "64K", "-n", "2", "-w", "1", "--json"];
        let arguments: Vec<&str> = sweep.into_iter().chain(json.to_str()).chain(toys).collect();
        let run = self.ubccl(&arguments);
        assert!(run.status.success(), "{}", told(&run));
        let rows = fs::read_to_string(&json).unwrap();
        let rows: Vec<serde_json::Value> =
            rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
        assert!(!rows.is_empty(), "{}", told(&run));
        for row in rows {
            assert_eq!((&row["transport"], &row["wrong"]), (&"toy-wire".into(), &0.into()), "{row}");
        }
    }

    /// The conformance suite finds the toy transport through the index.
    fn are_tested(&self) {
        let suite = ["test", "-p", "ubccl-transports", "--test", "conformance", "--"];
        let cases = self.cargo(&[&suite[..], &["--list"]].concat());
        let is_toy = |line: &&str| line.starts_with("toy-wire::");
        let count = String::from_utf8_lossy(&cases.stdout).lines().filter(is_toy).count();
        assert!(count > 30, "conformance has {count} cases for the toy:\n{}", told(&cases));
        let run = self.cargo(&[&suite[..], &["toy-wire::c3"]].concat());
        assert_names(&run, &["toy-wire::c3_every_size_arrives_whole", "test result: ok"]);
    }

    /// Runs cargo in the toy tree, not optimised and without the network; it has to succeed.
    fn cargo(&self, arguments: &[&str]) -> Output {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(arguments).current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        command.env("CARGO_NET_OFFLINE", "true").env_remove("RUSTFLAGS");
        for (setting, value) in [("OPT_LEVEL", "0"), ("DEBUG", "0")] {
            command.env(format!("CARGO_PROFILE_DEV_{setting}"), value);
        }
        let output = run(command, &self.target);
        assert!(output.status.success(), "cargo {arguments:?}:\n{}", told(&output));
        output
    }

    fn ubccl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.target.join("debug/ubccl"));
        command.args(arguments);
        run(command, &self.target)
    }
}

/// A file of the tree.
struct File {
    /// From the root.
    path: PathBuf,
    content: Vec<u8>,
}

impl File {
    /// Adds the toy's line, and nothing else.
    fn add_line_to_index(&mut self) {
        let text = String::from_utf8(std::mem::take(&mut self.content)).unwrap();
        let opening = "\nindex! {\n";
        assert_eq!(text.matches(opening).count(), 1, "{}: where is the index?", self.path.display());
        let line = if text.contains("\n    ring: RING;\n") { "toy: TOY;" } else { "toy::TOY," };
        self.content = text.replace(opening, &format!("{opening}    {line}\n")).into();
    }
}

/// Every file of the tree but what cargo, git and editors put there.
fn tree_of(root: &Path) -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            if path == Path::new("target") || path == Path::new("fuzz/target") || name.starts_with('.') {
                continue;
            }
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(path),
                kind if kind.is_file() => {
                    files.push(File { content: fs::read(root.join(&path)).unwrap(), path })
                }
                _ => {}
            }
        }
    }
    files
}

/// Makes `tree` hold exactly these files, leaving those alone that are the same, so that cargo builds only the rest.
fn replace(tree: &Path, files: &[File]) {
    fs::create_dir_all(tree).unwrap();
    for old in tree_of(tree) {
        if files.iter().all(|file| file.path != old.path) {
            fs::remove_file(tree.join(old.path)).unwrap();
        }
    }
    for File { path, content } in files {
        let path = tree.join(path);
        if fs::read(&path).ok().as_ref() != Some(content) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
        }
    }
}

/// Runs a command with a watchdog. Its output goes through files, so that it cannot block on a full pipe.
fn run(mut command: Command, folder: &Path) -> Output {
    fs::create_dir_all(folder).unwrap();
    let [out, err] = ["stdout", "stderr"].map(|name| folder.join(format!("toys.{name}")));
    command.stdin(std::process::Stdio::null());
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{command:?} did not end in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    Output { status, stdout: fs::read(out).unwrap(), stderr: fs::read(err).unwrap() }
}

fn told(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{}\n{out}\n{err}", output.status)
}

#[track_caller]
fn assert_names(output: &Output, words: &[&str]) {
    let text = told(output);
    for word in words {
        assert!(text.contains(word), "'{word}' is not in:\n{text}");
    }
}
