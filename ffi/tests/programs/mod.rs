//! Compiles programs against the library, and runs them with an eye on the clock.

mod running;

pub use running::{Running, run};

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-Iinclude"];
const SANITIZED: [&str; 4] =
    ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"];

/// Which library a program is linked with, and how it is compiled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Link {
    /// `libubccl.so`.
    Shared,
    /// `libubccl.a`.
    Static,
    /// `libubccl.so`, the program itself under AddressSanitizer and UndefinedBehaviorSanitizer.
    Sanitized,
}

/// The language of a source, by its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Language {
    C11,
    Cpp17,
}

impl Language {
    pub fn of(source: &str) -> Self {
        if source.ends_with(".cpp") { Language::Cpp17 } else { Language::C11 }
    }

    fn standard(self) -> &'static str {
        match self {
            Language::C11 => "-std=c11",
            Language::Cpp17 => "-std=c++17",
        }
    }

    pub fn compiler(self) -> String {
        let (variable, default) = match self {
            Language::C11 => ("CC", "cc"),
            Language::Cpp17 => ("CXX", "c++"),
        };
        std::env::var(variable).unwrap_or_else(|_| default.into())
    }
}

/// Compiles a program of the tree, strictly.
pub fn build(source: &str, link: Link) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = Path::new(source).file_stem().expect("a source has a name").to_string_lossy().into_owned();
    let program = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{name}-{link:?}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let language = Language::of(source);
    let mut command = Command::new(language.compiler());
    command.current_dir(root()).args([language.standard(), "-O1", "-pthread"]).args(STRICT).arg(source);
    if link == Link::Sanitized {
        command.args(SANITIZED);
    }
    command.arg("-o").arg(&program);
    match link {
        Link::Static => {
            // What `rustc --print native-static-libs` says of it.
            command.arg(&library().archive).args(["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"]);
        }
        Link::Shared | Link::Sanitized => {
            let folder = library().shared.parent().expect("in a folder");
            command.arg(&library().shared).arg(format!("-Wl,-rpath,{}", folder.display()));
        }
    }
    succeed(&mut command);
    program
}

/// The libraries.
struct Library {
    shared: PathBuf,
    archive: PathBuf,
}

/// Built now: cargo builds a package's C library for no test of the package.
fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "-p", "ubccl-ffi", "--lib", "--offline", "--message-format=json"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        let messages = succeed(command.current_dir(root()));
        let messages: Vec<serde_json::Value> =
            messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let file =
            |name| messages.iter().find_map(|message| made(message, name)).expect("cargo names what it made");
        Library { shared: file("libubccl.so"), archive: file("libubccl.a") }
    })
}

fn made(message: &serde_json::Value, name: &str) -> Option<PathBuf> {
    let files = message["filenames"].as_array()?.iter().filter_map(serde_json::Value::as_str);
    files.map(PathBuf::from).find(|file| file.ends_with(name))
}

/// Compiles text that includes headers. The error is that of starting the compiler.
pub fn compile_text(text: &str, language: Language) -> std::io::Result<()> {
    let name = if language == Language::C11 { "c" } else { "c++" };
    let mut command = Command::new(language.compiler());
    command.current_dir(root()).args([language.standard(), "-fsyntax-only"]).args(STRICT);
    command.args(["-x", name, "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().expect("it is piped").write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    assert!(output.status.success(), "{language:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What the command printed.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
