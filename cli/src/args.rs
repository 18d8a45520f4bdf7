//! The command line.

mod fabric;

use crate::sweep::Sweep;
use crate::target::{self, DataType, Kind, Named, ReduceOp, Settings, settings};
use crate::units::{parse_bytes, parse_duration};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
pub(crate) use fabric::{FabricArgs, TopoArgs, TopoCommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Collective communication over verified plans: shared memory, TCP, and a simulated optical fabric.
#[derive(Debug, Parser)]
#[command(name = "ubccl", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measures a collective between processes that it starts, and checks every result.
    Bench(BenchArgs),
    /// Runs a collective in virtual time on a simulated fabric; the same as `bench --transport optical`.
    Sim(SimArgs),
    /// Prints the plans of a collective and whether the verifier accepts them.
    Plan(PlanArgs),
    /// Prints what a collective may be done with, the predicted time of each, and which is chosen.
    Explain(ExplainArgs),
    /// Shows simulated fabrics: which there are, what one can do, and where its numbers come from.
    Topo(TopoArgs),
    /// Measures what messages, copies and reductions cost on this machine, for algorithms to be chosen by.
    Tune(TuneArgs),
    /// Prints every setting with its value and where that came from: argument, environment, file or default.
    Config(ConfigArgs),
    /// One rank of `bench`; started by it.
    #[command(hide = true)]
    Worker(WorkerArgs),
}

/// Arguments of `ubccl bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The collective: all_reduce, all_to_all, … (an unknown name lists them)
    #[arg(value_parser = parse_kind, required_unless_present = "compare")]
    pub(crate) collective: Option<Kind>,
    #[command(flatten)]
    pub(crate) compare: CompareArgs,
    #[command(flatten)]
    pub(crate) sweep: SweepArgs,
    /// Over what the ranks talk [default: shm, or UBCCL_TRANSPORT]
    #[arg(long, value_name = "NAME", value_parser = parse_transport)]
    pub(crate) transport: Option<String>,
    /// With --transport optical: real transfers between real processes, with the fabric's latency and bandwidth
    #[arg(long)]
    pub(crate) paced: bool,
    /// Fails an operation that takes longer, for example 30s [default: 30min]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Binds rank r to the r-th processor; auto does so if there is one for each rank
    #[arg(long, value_enum, default_value_t = Pin::Auto, num_args = 0..=1, default_missing_value = "on")]
    pub(crate) pin: Pin,
    #[command(flatten)]
    pub(crate) fabric: FabricArgs,
}

/// A comparison with other libraries instead of a measurement of one collective.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Runs MPICH, Open MPI, Intel MPI, oneCCL and Gloo, as the setup.sh in this folder installed them, and this library's
    /// C interface one after the other, and prints the ratio of each point with its interval; also with --ranks, -d (all:
    /// float and bfloat16), --algo, --transport. --json FILE keeps the runs; a file that has some gets further rounds
    #[arg(long, value_name = "PEERS_DIR", help_heading = "Comparison", conflicts_with_all = [
        "collective", "minbytes", "maxbytes", "stepfactor", "stepbytes", "iters", "warmup_iters", "check", "op", "root",
        "layout", "reproducible", "lanes", "chunk", "tuning", "breakdown", "timeout", "pin", "fabric", "latency",
        "bandwidth", "seed",
    ])]
    pub(crate) compare: Option<PathBuf>,
    /// Where the peers are installed [default: PEERS_DIR]
    #[arg(long, value_name = "DIR", help_heading = "Comparison", env = "PEERS_HOME")]
    pub(crate) peers_home: Option<PathBuf>,
    /// Which peers [default: all that are installed]
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        help_heading = "Comparison",
        conflicts_with = "collective"
    )]
    pub(crate) peers: Vec<String>,
    /// Which operations, by the peers' names: allreduce, allreduce_inplace, …, and registered: all-reduce in place of
    /// registered memory, against the least it can cost [default: all; registered with two ranks over shm]
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        help_heading = "Comparison",
        conflicts_with = "collective"
    )]
    pub(crate) ops: Vec<String>,
    /// Which sizes [default: ten from 8 to 64M; with more ranks than processors 8, 64K, 4M]
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = parse_bytes, help_heading = "Comparison",
          conflicts_with = "collective")]
    pub(crate) sizes: Vec<u64>,
    /// How often everything is measured; 0 only prints what is in the file
    #[arg(long, value_name = "COUNT", default_value_t = 9, help_heading = "Comparison", conflicts_with = "collective",
          value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) rounds: u32,
    /// How long a point is measured in a round, at least 20 calls
    #[arg(long, value_name = "TIME", default_value = "30ms", value_parser = parse_duration, help_heading = "Comparison",
          conflicts_with = "collective")]
    pub(crate) time: Duration,
}

/// Arguments of `ubccl sim`.
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// The collective: all_reduce, all_to_all, … (an unknown name lists them)
    #[arg(value_parser = parse_kind)]
    pub(crate) collective: Kind,
    #[command(flatten)]
    pub(crate) sweep: SweepArgs,
    #[command(flatten)]
    pub(crate) fabric: FabricArgs,
}

/// What is measured, and how long: nccl-tests' options where it has them.
#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// How many ranks
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..1 << 20))]
    pub(crate) ranks: u32,
    /// Smallest size; K, M, G are powers of 1024 [default: 8]
    #[arg(short = 'b', long, value_name = "SIZE", value_parser = parse_bytes)]
    minbytes: Option<u64>,
    /// Largest size [default: 64M]
    #[arg(short = 'e', long, value_name = "SIZE", value_parser = parse_bytes)]
    maxbytes: Option<u64>,
    /// Factor between sizes [default: 2]
    #[arg(short = 'f', long, value_name = "FACTOR")]
    stepfactor: Option<u64>,
    /// Step between sizes, instead of a factor
    #[arg(short = 'i', long, value_name = "SIZE", value_parser = parse_bytes)]
    stepbytes: Option<u64>,
    /// Timed iterations: calls, or below 4 KiB blocks of calls [default: about 0.1 s, at least 20; simulated: 1]
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) iters: Option<u32>,
    /// Untimed calls before; more with --algo all, until each way's memory is warm [default: 20, at most about a second;
    /// simulated: 0]
    #[arg(short = 'w', long = "warmup_iters", alias = "warmup-iters", value_name = "COUNT")]
    pub(crate) warmup_iters: Option<u32>,
    /// Checked calls after the timed ones, which are checked too; 0 checks nothing
    #[arg(short = 'c', long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) check: u32,
    /// Operation: sum, max, … or all
    #[arg(short = 'o', long, value_name = "OP", default_value = "sum", value_parser = parse_op)]
    op: Choice<ReduceOp>,
    /// Element type: float (f32), bfloat16 (bf16), … or all
    #[arg(short = 'd', long, value_name = "TYPE", default_value = "float", value_parser = parse_dtype)]
    datatype: Choice<DataType>,
    /// Root rank of a broadcast, reduce, gather or scatter; or all
    #[arg(short = 'r', long, value_name = "RANK", default_value = "0", value_parser = parse_root)]
    root: Choice<u32>,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    /// Also measures where the time goes: check, look-up, post, poll, in calls of their own; simulated: the critical path
    /// and the use of links
    #[arg(long = "where")]
    pub(crate) breakdown: bool,
    /// So many sizes from the smallest to the largest, each as many times the one before
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["stepfactor", "stepbytes"],
          value_parser = clap::value_parser!(u32).range(2..=1000))]
    points: Option<u32>,
    /// With `sim --algo all`: ways that send more messages are left out
    #[arg(long, value_name = "COUNT", default_value_t = 3_000_000)]
    pub(crate) most_messages: u64,
    /// With `sim --algo all`: ways that are predicted to take so many times as long as the best are left out
    #[arg(long, value_name = "FACTOR", default_value_t = 1.5)]
    pub(crate) margin: f64,
    /// With `sim --algo all`: of each algorithm the so many best choices of lanes and chunks are simulated
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub(crate) variants: usize,
    /// Also writes one JSON object per row half to this file, as soon as it is measured
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also draws time against size (SVG), simulated with the bound
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// How a collective is done; each is a setting, which the environment or a file may give too.
#[derive(Debug, Args)]
pub(crate) struct HowArgs {
    /// An algorithm for every call, or a family for each level: node:mesh;all:nhr [default: by cost, or UBCCL_ALGO];
    /// `bench --algo all` measures each and compares the tuner's choice
    #[arg(long, value_name = "NAME", value_parser = parse_algorithm)]
    algo: Option<String>,
    /// An engine for every call, of a fabric that has several: cloudmatrix384-die+read+write [default: by cost, or
    /// UBCCL_ENGINE]
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
    /// Which ranks stand together: node=8, or node=5+8+3 [default: one level, or the fabric's; or UBCCL_LAYOUT]
    #[arg(long, value_name = "LEVELS")]
    layout: Option<String>,
    /// Only algorithms that give the same bits on any transport and layout
    #[arg(long)]
    reproducible: bool,
    /// Lanes that a plan may use [default: 1; simulated: 4]
    #[arg(long, value_name = "COUNT")]
    lanes: Option<u8>,
    /// Bytes of a chunk where an algorithm pipelines [default: by cost]
    #[arg(long, value_name = "SIZE")]
    chunk: Option<String>,
    /// The file of `ubccl tune` for this machine [default: built-in costs, or UBCCL_TUNING]
    #[arg(long, value_name = "FILE")]
    tuning: Option<String>,
}

impl HowArgs {
    /// Whether all algorithms are to be compared.
    pub(crate) fn is_contest(&self) -> bool {
        self.algo.as_deref() == Some(ALL)
    }

    /// The algorithm for every call, if one was given.
    pub(crate) fn algorithm(&self) -> Option<&str> {
        self.algo.as_deref().filter(|_| !self.is_contest())
    }

    /// What was given, by the settings' names.
    pub(crate) fn settings(&self) -> Settings {
        let lanes = self.lanes.map(|lanes| lanes.to_string());
        let reproducible = self.reproducible.then(|| "1".to_owned());
        let named = [
            (&settings::ALGO, self.algo.clone().filter(|_| !self.is_contest())),
            (&settings::ENGINE, self.engine.clone()),
            (&settings::LAYOUT, self.layout.clone()),
            (&settings::REPRODUCIBLE, reproducible),
            (&settings::LANES, lanes),
            (&settings::CHUNK, self.chunk.clone()),
            (&settings::TUNING, self.tuning.clone()),
        ];
        named.into_iter().filter_map(|(setting, text)| Some((setting.name.to_owned(), text?))).collect()
    }
}

/// Arguments of `ubccl plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The collective: all_reduce, all_to_all, … (an unknown name lists them)
    #[arg(value_parser = parse_kind)]
    pub(crate) collective: Kind,
    /// How many ranks
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..1 << 20))]
    pub(crate) ranks: u32,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    /// Size of the larger buffer; it decides how often loops turn
    #[arg(short = 'b', long, value_name = "SIZE", default_value = "1M", value_parser = parse_bytes)]
    pub(crate) bytes: u64,
    /// Operation
    #[arg(short = 'o', long, value_name = "OP", default_value = "sum", value_parser = one_op)]
    pub(crate) op: ReduceOp,
    /// Element type
    #[arg(short = 'd', long, value_name = "TYPE", default_value = "float", value_parser = one_dtype)]
    pub(crate) datatype: DataType,
    /// Root rank of a broadcast, reduce, gather or scatter
    #[arg(short = 'r', long, value_name = "RANK", default_value_t = 0)]
    pub(crate) root: u32,
    /// In place
    #[arg(long)]
    pub(crate) in_place: bool,
    /// Prints this rank's plan only; all are verified
    #[arg(long, value_name = "RANK")]
    pub(crate) rank: Option<u32>,
}

/// Arguments of `ubccl explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The collective: all_reduce, all_gather, … (an unknown name lists them)
    #[arg(value_parser = parse_kind)]
    pub(crate) collective: Kind,
    /// Size of the larger buffer: 8, 64K, 1MiB
    #[arg(value_parser = parse_bytes, default_value = "1M")]
    pub(crate) bytes: u64,
    /// How many ranks
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..1 << 20))]
    pub(crate) ranks: u32,
    /// Over what the ranks talk [default: shm, or UBCCL_TRANSPORT]
    #[arg(long, value_name = "NAME", value_parser = parse_transport, conflicts_with = "fabric")]
    pub(crate) transport: Option<String>,
    #[command(flatten)]
    pub(crate) fabric: FabricArgs,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    /// Operation
    #[arg(short = 'o', long, value_name = "OP", default_value = "sum", value_parser = one_op)]
    pub(crate) op: ReduceOp,
    /// Element type
    #[arg(short = 'd', long, value_name = "TYPE", default_value = "float", value_parser = one_dtype)]
    pub(crate) datatype: DataType,
    /// Root rank, where there is one
    #[arg(short = 'r', long, value_name = "RANK", default_value_t = 0)]
    pub(crate) root: u32,
}

/// Arguments of `ubccl tune`.
#[derive(Debug, Args)]
pub(crate) struct TuneArgs {
    /// Over what the ranks talk [default: shm, or UBCCL_TRANSPORT]
    #[arg(long, value_name = "NAME", value_parser = parse_transport)]
    pub(crate) transport: Option<String>,
    /// How many ranks, one measurement after the other
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_values_t = [2, 4, 8],
          value_parser = clap::value_parser!(u32).range(2..1 << 20))]
    pub(crate) ranks: Vec<u32>,
    /// Buffers are at most so long; what is longer is reckoned
    #[arg(short = 'e', long = "maxbytes", value_name = "SIZE", value_parser = parse_bytes, default_value = "32M")]
    pub(crate) max_bytes: u64,
    /// The file to write [default: ubccl-tuning.toml]; with --check the file to check [default: UBCCL_TUNING, or the
    /// built-in costs]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Checks costs instead: predicts calls, sizes and algorithms that a seed draws, measures each twice, and compares
    #[arg(long)]
    pub(crate) check: bool,
    /// With --check: what decides the draws
    #[arg(long, value_name = "NUMBER", default_value_t = 0, requires = "check")]
    pub(crate) seed: u64,
    /// With --check: so many draws for each number of ranks
    #[arg(long, value_name = "COUNT", default_value_t = 40, requires = "check",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) draws: u32,
}

/// Arguments of `ubccl config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Explains this setting only: its name, or its variable
    pub(crate) name: Option<String>,
}

/// Arguments of a rank of `ubccl bench`; the rest is in its environment.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// The parent's process id.
    #[arg(long)]
    pub(crate) parent: u32,
    /// Whether to bind to a processor.
    #[arg(long)]
    pub(crate) pin: bool,
    /// Settings, each NAME=VALUE.
    #[arg(long)]
    pub(crate) set: Vec<String>,
}

/// Whether ranks are bound to processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pin {
    /// If there is a processor for each rank.
    Auto,
    /// Round and round.
    On,
    /// Not at all.
    Off,
}

/// One of something, or all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice<T> {
    One(T),
    All,
}

fn or_all<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Choice<T>, String> {
    if text == "all" {
        return Ok(Choice::All);
    }
    parse(text).map(Choice::One).map_err(|message| message + "; or all")
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    Kind::parse(text).map_err(|error| error.message().to_owned())
}

fn one_op(text: &str) -> Result<ReduceOp, String> {
    let op = ReduceOp::parse(text).map_err(|error| error.message().to_owned())?;
    if ops().any(|known| known == op) {
        return Ok(op);
    }
    Err(format!("{text} multiplies before it sums, which is no part of the collective: measure sum"))
}

/// The operations that can be measured.
fn ops() -> impl Iterator<Item = ReduceOp> {
    ReduceOp::TABLE.iter().map(|row| row.0).filter(|&op| op != ReduceOp::PreMulSum)
}

fn one_dtype(text: &str) -> Result<DataType, String> {
    DataType::parse(text).map_err(|error| error.message().to_owned())
}

fn parse_op(text: &str) -> Result<Choice<ReduceOp>, String> {
    or_all(text, one_op)
}

fn parse_dtype(text: &str) -> Result<Choice<DataType>, String> {
    or_all(text, one_dtype)
}

fn parse_root(text: &str) -> Result<Choice<u32>, String> {
    or_all(text, |text| text.parse().map_err(|_| format!("'{text}' is not a rank; ranks are numbers from 0")))
}

/// A name must exist; whether a composition fits is known with its layout.
fn parse_algorithm(text: &str) -> Result<String, String> {
    if text.contains(':') || text == ALL { Ok(text.to_owned()) } else { target::find_algorithm(text) }
}

fn parse_transport(text: &str) -> Result<String, String> {
    target::find_transport(text).map(|(name, _)| name.to_owned())
}

impl SweepArgs {
    /// The sizes.
    pub(crate) fn sweep(&self) -> Result<Sweep, String> {
        let sweep = Sweep::new(self.minbytes, self.maxbytes, self.stepfactor, self.stepbytes)?;
        Ok(self.points.map_or(sweep, |points| sweep.with_points(points)))
    }

    /// The operations in turn.
    pub(crate) fn ops(&self) -> Vec<ReduceOp> {
        match self.op {
            Choice::One(op) => vec![op],
            Choice::All => ops().collect(),
        }
    }

    /// The element types in turn.
    pub(crate) fn dtypes(&self) -> Vec<DataType> {
        match self.datatype {
            Choice::One(dtype) => vec![dtype],
            Choice::All => DataType::TABLE.iter().map(|row| row.dtype).collect(),
        }
    }

    /// The roots in turn.
    pub(crate) fn roots(&self, ranks: u32) -> Result<Vec<u32>, String> {
        match self.root {
            Choice::One(root) if root >= ranks => {
                Err(format!("--root {root} is not a rank; ranks are 0 to {}", ranks - 1))
            }
            Choice::One(root) => Ok(vec![root]),
            Choice::All => Ok((0..ranks).collect()),
        }
    }
}

/// What stands for every algorithm.
const ALL: &str = "all";
/// A list for the end of a help text.
fn section<T: std::fmt::Display>(title: &str, named: &[(&str, T)]) -> String {
    let width = named.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = named.iter().map(|(name, summary)| format!("\n  {name:width$}  {summary}"));
    format!("{title}:{}", lines.collect::<String>())
}

/// The command with help texts that list what exists.
fn command() -> clap::Command {
    let kinds: Vec<Named> = Kind::TABLE.iter().map(|row| (row.name, "")).collect();
    let algorithms = section("Algorithms", &target::algorithms());
    let collectives = section("Collectives", &kinds);
    let types: Vec<Named> = DataType::TABLE.iter().map(|row| (row.name, row.nccl_name)).collect();
    let ops: Vec<Named> = ops().map(|op| (op.name(), "")).collect();
    let words = [collectives, section("Types", &types), section("Operations", &ops), algorithms].join("\n\n");
    let transports = section("Transports", &target::transports());
    let environment = section("Environment", &target::environment());
    let json = "JSON: op dtype bytes asked_bytes in_place ranks transport algo iters p50_us min_us p99_us algbw_GBps \
                busbw_GBps wrong cpu_us\n(cpu_us is user and system time per call, the mean over ranks; \
                calls_per_iter above 1 marks p99_us as a block's, p99_of_block; simulated: also bound_us percent_of_bound and, \
                with --where, critical_path links)";
    let bench = format!("{words}\n\n{transports}\n\n{environment}\n\n{json}");
    let sim = format!("{words}\n\n{json}");
    Cli::command()
        .mut_subcommand("bench", |command| command.after_help(bench))
        .mut_subcommand("sim", |command| command.after_help(sim))
        .mut_subcommand("plan", |command| command.after_help(words))
        .mut_subcommand("config", |command| command.after_help(environment))
}

/// Reads the command line; help, version and errors are ready to be printed.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches =
        command.try_get_matches_from_mut(&arguments).map_err(|error| with_list(error, &arguments))?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Adds to an unknown flag the flags that exist, to an unknown subcommand the subcommands.
fn with_list(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    let command = command();
    let named = |name: &OsString| command.get_subcommands().find(|sub| name == sub.get_name());
    let list = match (error.kind(), arguments.iter().skip(1).find_map(named)) {
        (ErrorKind::UnknownArgument, Some(sub)) => {
            let flags: Vec<String> = sub.get_arguments().filter_map(flag).collect();
            format!("flags of {} are: {}", sub.get_name(), flags.join(", "))
        }
        (ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand, None) => {
            let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set());
            let names: Vec<&str> = visible.map(clap::Command::get_name).collect();
            format!("subcommands are: {}", names.join(", "))
        }
        _ => return error,
    };
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![list.into()]));
    error
}

/// How a flag is written.
fn flag(argument: &clap::Arg) -> Option<String> {
    let long = argument.get_long()?;
    Some(argument.get_short().map_or(format!("--{long}"), |short| format!("-{short} --{long}")))
}

#[cfg(test)]
mod tests;
