//! A program that runs.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take; far more than it needs on a busy machine. Programs end themselves before.
const PATIENCE: Duration = Duration::from_secs(300);

/// A program that is killed if it takes too long or the test fails.
pub struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    deadline: Instant,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        // What is set for this program stays, what is set for the tests does not concern it.
        let given: Vec<_> = command.get_envs().map(|row| row.0.to_owned()).collect();
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("UBCCL_") && !given.contains(&name) {
                command.env_remove(name);
            }
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Running { child, output, deadline: Instant::now() + PATIENCE }
    }

    /// The next line it prints; empty if it ended, which its own alarm sees to.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it prints text");
        line
    }

    /// How it ended and what it printed, which must fit into a pipe.
    pub fn finish(mut self) -> (ExitStatus, String) {
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

/// Runs a program that says by its status whether all was well.
#[track_caller]
pub fn run(command: &mut Command) {
    let status = Running::start(command).finish().0;
    assert!(status.success(), "{command:?}: {status}");
}
