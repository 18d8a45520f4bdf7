//! The programs: ours, built from this checkout, and the peers' as their `setup.sh` installed them.

use super::Question;
use super::contestants::{
    BFLOAT16, BFLOAT16_PEERS, CommandLine, Contestant, FLOAT32, FLOOR, Folders, Memory, OURS, Part,
};
use super::runs::Run;
use super::slices::Slice;
use crate::failure::{Failure, Outcome};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The checkout that this program was built from.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// A run may take so long, in seconds …
const LIMIT_S: u32 = 120;
/// … and with more ranks than processors so long.
const CROWDED_LIMIT_S: u32 = 400;

/// Everything that is run.
#[derive(Debug)]
pub(super) struct Programs {
    folders: Folders,
}

impl Programs {
    /// Finds the peers and builds ours.
    ///
    /// Errors: what is missing, and how to get it.
    pub(super) fn find(peers_dir: &Path, home: Option<&Path>, dtypes: &[&str]) -> Outcome<Self> {
        let script = peers_dir.join("src/setup.sh");
        if !script.is_file() {
            let told =
                format!("--compare {}: not the peers' folder, it has no src/setup.sh", peers_dir.display());
            return Err(Failure::new(told));
        }
        let home = home.unwrap_or(peers_dir).to_owned();
        if !home.join("bin/limits").is_file() {
            return Err(Failure::new(format!(
                "there are no peers in {home}; install them (1 GB, with gloo 5.5 GB):\n  PEERS_HOME={home} bash {} \
                 mpich openmpi impi oneccl gloo\nand name the folder with PEERS_HOME or --peers-home",
                script.display(),
                home = home.display()
            )));
        }
        let folders = Folders { peers_dir: peers_dir.to_owned(), home, built: build()? };
        let programs = Programs { folders };
        let mut peers = BFLOAT16_PEERS.iter().filter(|peer| dtypes.contains(&BFLOAT16) && programs.has(peer));
        peers.try_for_each(|peer| build_bfloat16(&programs.folders, peer))?;
        Ok(programs)
    }

    /// Who measures a slice, and which of its operations; ours first.
    pub(super) fn contestants(
        &self,
        question: &Question,
        slice: &Slice,
    ) -> Vec<(Contestant, Vec<&'static str>)> {
        let all: Vec<Contestant> = if slice.is_registered {
            let memories = [Memory::Registered, Memory::Rewritten];
            let ours = memories.into_iter().flat_map(|memory| Contestant::ours(FLOAT32, memory));
            ours.chain([Contestant::floor()]).collect()
        } else {
            let (part, ranks) = (question.part, question.ranks);
            let ours = question.dtypes.iter().flat_map(|&dtype| Contestant::ours(dtype, Memory::Ordinary));
            let peers: Vec<&'static str> =
                question.peers.iter().copied().filter(|peer| self.has(peer)).collect();
            let usual = peers.iter().flat_map(|peer| Contestant::of(part, ranks, peer));
            let bfloat16 = peers.iter().filter_map(|peer| Contestant::of_bfloat16(part, ranks, peer));
            let bfloat16 = bfloat16.filter(|_| question.dtypes.contains(&BFLOAT16));
            ours.chain(usual).chain(bfloat16).collect()
        };
        let with_ops = all.into_iter().map(|contestant| {
            let ops = contestant.ops(question.part, &question.dtypes, &slice.ops);
            (contestant, ops)
        });
        with_ops.filter(|(_, ops)| !ops.is_empty()).collect()
    }

    /// The peers that were asked for and are not installed.
    pub(super) fn missing(&self, question: &Question) -> String {
        let missing = question.peers.iter().filter(|peer| !self.has(peer));
        let told = missing.map(|peer| {
            let (home, dir) = (self.folders.home.display(), self.folders.peers_dir.display());
            format!("{peer} is not installed: PEERS_HOME={home} bash {dir}/src/setup.sh {peer}\n")
        });
        told.collect()
    }

    fn has(&self, peer: &str) -> bool {
        let program = match peer {
            "gloo" => "venv-torch/bin/python".to_owned(),
            "oneccl" => "bin/ccl_bench".to_owned(),
            mpi => format!("bin/mpi_bench_{mpi}"),
        };
        self.folders.home.join(program).exists()
    }

    /// Runs one program once. That it fails is part of what is found.
    pub(super) fn run(
        &self,
        question: &Question,
        contestant: &Contestant,
        ops: &[&str],
        sizes: &[u64],
        round: u32,
    ) -> Outcome<Run> {
        let part = question.part;
        let line = self.command_line(question, contestant, ops, sizes, round);
        let before = self.near_ns()?;
        let said = command(&line, if part == Part::Crowded { CROWDED_LIMIT_S } else { LIMIT_S }).output();
        let near_ns = [before, self.near_ns()?];
        let said = said.map_err(|error| cannot_run("timeout", &error))?;
        let lines = String::from_utf8_lossy(&said.stdout);
        let lines = lines.lines().filter(|line| line.starts_with('{')).map(str::to_owned).collect();
        let error = (!said.status.success()).then(|| why(&said.status, &said.stderr));
        Ok(Run {
            who: *contestant,
            transport: part.transport(),
            ranks: question.ranks,
            round,
            near_ns,
            lines,
            error,
        })
    }

    fn command_line(
        &self,
        question: &Question,
        contestant: &Contestant,
        ops: &[&str],
        sizes: &[u64],
        round: u32,
    ) -> CommandLine {
        let part = question.part;
        let sizes: Vec<String> = sizes.iter().map(u64::to_string).collect();
        let mut line = match contestant.peer {
            OURS => self.ours(question, contestant),
            FLOOR => {
                let program = self.folders.home.join("bin/floor").display().to_string();
                let words = vec![program, round.to_string(), sizes.join(",")];
                return CommandLine { environment: Vec::new(), words };
            }
            _ => contestant.command(part, question.ranks, &self.folders),
        };
        line.words.extend([
            format!("--transport={}", part.transport()),
            format!("--pin={}", u8::from(contestant.is_pinned(part))),
            format!("--sizes={}", sizes.join(",")),
            format!("--ops={}", ops.join(",")),
            format!("--time={}", question.time.as_secs_f64()),
            format!("--rep={round}"),
            format!("--note={}", contestant.note),
        ]);
        line
    }

    fn ours(&self, question: &Question, contestant: &Contestant) -> CommandLine {
        let mut words = vec![
            self.folders.built.join("ubccl_bench").display().to_string(),
            format!("--ranks={}", question.ranks),
            format!("--dtype={}", contestant.dtype),
            format!("--registered={}", u8::from(contestant.memory != Memory::Ordinary)),
            format!("--rewrite={}", u8::from(contestant.memory == Memory::Rewritten)),
        ];
        words.extend(question.algorithm.as_ref().map(|name| format!("--algorithm={name}")));
        CommandLine { environment: Vec::new(), words }
    }

    /// How long a cache line takes from one CPU to the other, in ns.
    fn near_ns(&self) -> Outcome<f64> {
        let limits = self.folders.home.join("bin/limits");
        let said = Command::new(&limits).args(["0", "near"]).stderr(Stdio::inherit()).output();
        let said = said.map_err(|error| cannot_run(&limits.display().to_string(), &error))?;
        let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        text.parse().map_err(|_| Failure::new(format!("{} near said '{text}', no number", limits.display())))
    }
}

fn cannot_run(program: &str, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot run {program}: {error}"))
}

/// Ended by `timeout` when it takes too long, in the foreground, so that Ctrl-C reaches it.
fn command(line: &CommandLine, limit_s: u32) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=5"]).arg(limit_s.to_string()).args(&line.words);
    command.envs(line.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
    command
}

/// Why a program failed: its last word.
fn why(status: &std::process::ExitStatus, stderr: &[u8]) -> String {
    const TIMED_OUT: i32 = 124; // of timeout
    if status.code() == Some(TIMED_OUT) {
        return "took too long".to_owned();
    }
    let text = String::from_utf8_lossy(stderr);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    format!("{status}: {}", last.chars().take(200).collect::<String>())
}

/// Builds the library and the program that measures it, as users would; the folder that they are in.
fn build() -> Outcome<PathBuf> {
    let root = Path::new(SOURCE);
    let program = root.join("benches/peers/ubccl_bench.c");
    if !program.is_file() {
        return Err(Failure::new(format!(
            "--compare needs the checkout that this program was built from, and {} is gone: run `cargo run --release \
             -- bench --compare …` in a checkout",
            program.display()
        )));
    }
    succeed(Command::new("cargo").current_dir(root).args([
        "build",
        "--release",
        "--quiet",
        "-p",
        "ubccl-ffi",
        "--lib",
    ]))?;
    let release = target_directory(root)?.join("release");
    let mut compiler = Command::new("cc");
    compiler.current_dir(root).args(["-std=c11", "-O2", "-Iinclude", "-o"]).arg(release.join("ubccl_bench"));
    compiler.arg(&program).arg(release.join("libubccl.so"));
    compiler.arg(format!("-Wl,-rpath,{}", release.display()));
    succeed(&mut compiler)?;
    Ok(release)
}

/// Builds the program that measures a peer's MPI in bfloat16.
fn build_bfloat16(folders: &Folders, peer: &str) -> Outcome<()> {
    let venv = folders.home.join(format!("venv-{peer}"));
    let libraries = venv.join("lib");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-O2", "-o"]).arg(folders.bfloat16_program(peer));
    compiler.arg(Path::new(SOURCE).join("benches/peers/mpi_bfloat16.c"));
    compiler.arg("-I").arg(venv.join("include")).arg("-L").arg(&libraries).arg("-lmpi");
    succeed(compiler.arg(format!("-Wl,-rpath,{}", libraries.display())))
}

fn target_directory(root: &Path) -> Outcome<PathBuf> {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(["metadata", "--no-deps", "--format-version", "1"]);
    let said = command.output().map_err(|error| cannot_run("cargo", &error))?;
    let metadata: Value = serde_json::from_slice(&said.stdout)
        .map_err(|error| Failure::new(format!("cannot read cargo's metadata: {error}")))?;
    let directory = metadata["target_directory"].as_str();
    directory.map(PathBuf::from).ok_or_else(|| Failure::new("cargo's metadata name no target folder"))
}

fn succeed(command: &mut Command) -> Outcome<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| cannot_run(&name, &error))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{name} failed ({status}), see above"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(outcome: Outcome<Programs>) -> String {
        match outcome {
            Err(Failure::Message(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_peers_it_is_said_how_to_get_them() {
        let nowhere = message(Programs::find(Path::new("/no/such/folder"), None, &[]));
        assert!(nowhere.contains("/no/such/folder") && nowhere.contains("src/setup.sh"), "{nowhere}");
        let folder = std::env::temp_dir().join(format!("ubccl-peers-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("src")).unwrap();
        std::fs::write(folder.join("src/setup.sh"), "").unwrap();
        let empty = message(Programs::find(&folder, None, &[]));
        std::fs::remove_dir_all(&folder).unwrap();
        let advice = format!("bash {}/src/setup.sh mpich openmpi impi oneccl gloo", folder.display());
        assert!(empty.contains(&advice) && empty.contains("PEERS_HOME="), "{empty}");
    }

    #[test]
    fn a_program_that_fails_is_told_by_its_last_word() {
        let line = |script: &str| CommandLine {
            environment: vec![("WORD", "so".to_owned())],
            words: ["sh", "-c", script].map(str::to_owned).to_vec(),
        };
        let said =
            command(&line("echo first >&2; echo $WORD it is >&2; echo >&2; exit 3"), 10).output().unwrap();
        assert_eq!(why(&said.status, &said.stderr), "exit status: 3: so it is");
        let said = command(&line("exec sleep 30"), 1).output().unwrap();
        assert_eq!(why(&said.status, &said.stderr), "took too long");
    }
}
