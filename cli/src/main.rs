//! The program `ubccl`: measures, simulates and shows collectives. `args.rs` is its command line, `target.rs` its only
//! way to the library.

mod args;
mod bench;
mod bound;
mod buffer;
mod call;
mod compare;
mod config;
mod contest;
mod explain;
mod failure;
#[cfg(test)]
mod fake;
#[cfg(test)]
#[path = "../../core/src/kernels/tests/layout.rs"]
mod floats;
mod json;
mod launch;
mod layout;
mod measure;
mod observe;
mod orders;
mod pattern;
mod picture;
mod plan;
mod plot;
mod progress;
mod rank;
mod report;
mod signals;
mod sim;
mod stats;
mod sweep;
mod table;
mod target;
mod threads;
mod together;
mod topo;
mod tune;
mod tune_check;
mod units;
mod virtual_contest;
mod wire;
mod worker;

use args::{Command, WorkerArgs};
use failure::{Failure, Outcome};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output, errors to standard error; if neither can be written, nobody reads.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    target::show_logs();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(failure),
    }
}

fn run(command: Command) -> Outcome<()> {
    let out = &mut std::io::stdout();
    match command {
        Command::Bench(args) => bench::run(&args, out),
        Command::Sim(args) => bench::run_sim(&args, out),
        Command::Plan(args) => plan::run(&args, out),
        Command::Explain(args) => explain::run(&args, out),
        Command::Topo(args) => topo::run(&args, out),
        Command::Tune(args) => tune::run(&args, out),
        Command::Config(args) => config::run(&args, out),
        Command::Worker(args) => worker::run(worker_of(args)),
    }
}

fn worker_of(args: WorkerArgs) -> worker::Worker {
    let WorkerArgs { parent, pin, set } = args;
    let pair = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    worker::Worker { parent, pin, settings: set.iter().filter_map(pair).collect() }
}

fn end(failure: Failure) -> ExitCode {
    match failure {
        Failure::Message(text) => {
            // Nothing is left to do if standard error is gone too.
            let _ = writeln!(std::io::stderr(), "ubccl: {text}");
        }
        Failure::Signal(signal) => {
            // Ends as the signal would have, so that a shell sees the truth.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
        Failure::NobodyListens | Failure::Told => {}
    }
    ExitCode::FAILURE
}
