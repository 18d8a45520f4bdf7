//! Which fabric is simulated, and what is shown of one.

use crate::target::{self, Fidelity};
use crate::units::{parse_bytes_per_second, parse_picoseconds};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Which fabric.
#[derive(Debug, Args)]
pub(crate) struct NamedFabricArgs {
    /// Simulated: a preset's name, a TOML file, or custom [default: cloudmatrix384]
    #[arg(long, value_name = "NAME|FILE")]
    fabric: Option<String>,
    /// Latency of a custom fabric, for example 2.1us
    #[arg(long, value_name = "TIME", value_parser = parse_picoseconds, requires = "fabric")]
    latency: Option<u64>,
    /// Bandwidth of a custom fabric's links, for example 392GB/s
    #[arg(long, value_name = "RATE", value_parser = parse_bytes_per_second, requires = "fabric")]
    bandwidth: Option<u64>,
}

/// What is simulated.
#[derive(Debug, Args)]
pub(crate) struct FabricArgs {
    #[command(flatten)]
    named: NamedFabricArgs,
    /// Simulated: seed of everything random [default: 0]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Simulated: how exactly messages are timed: loggp (queues at ports), fluid (fair shares) [default: loggp]
    #[arg(long, value_name = "NAME", value_parser = parse_fidelity)]
    fidelity: Option<Fidelity>,
    /// Simulated: what goes wrong and when: a TOML file, see docs/simulation.md
    #[arg(long, value_name = "FILE", conflicts_with = "fault_seed")]
    faults: Option<PathBuf>,
    /// Simulated: draws one to six faults within the first millisecond
    #[arg(long, value_name = "NUMBER")]
    fault_seed: Option<u64>,
    /// Simulated: also writes a trace of every row's first call, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Simulated: also draws how much links are used over time (SVG), of the last row
    #[arg(long, value_name = "FILE")]
    pub(crate) links: Option<PathBuf>,
}

/// Arguments of `ubccl topo`.
#[derive(Debug, Args)]
pub(crate) struct TopoArgs {
    /// What to show.
    #[command(subcommand)]
    pub(crate) command: TopoCommand,
}

/// What `ubccl topo` shows.
#[derive(Debug, Subcommand)]
pub(crate) enum TopoCommand {
    /// Names the fabrics there are.
    List,
    /// Prints what follows from a fabric's description: capacity and bisection of each level, what a lone message takes
    /// between each class of ranks, and where every number comes from.
    Show {
        #[command(flatten)]
        fabric: NamedFabricArgs,
        /// Prints the description itself, to be copied and changed
        #[arg(long)]
        toml: bool,
    },
}

/// The fabric when none is named.
const DEFAULT_FABRIC: &str = "cloudmatrix384";
/// The fabric whose numbers come from the command line.
const CUSTOM: &str = "custom";

impl FabricArgs {
    /// Whether anything was said about a fabric.
    pub(crate) fn is_given(&self) -> bool {
        self.named.fabric.is_some()
            || self.seed.is_some()
            || self.fidelity.is_some()
            || self.faults.is_some()
            || self.fault_seed.is_some()
            || self.trace.is_some()
            || self.links.is_some()
    }

    /// How exactly messages are timed.
    pub(crate) fn fidelity(&self) -> Fidelity {
        self.fidelity.unwrap_or_default()
    }

    /// The seed.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }

    /// What goes wrong, as the library wants it.
    pub(crate) fn faults(&self) -> Result<String, String> {
        match (&self.faults, self.fault_seed) {
            (Some(file), _) => std::fs::read_to_string(file)
                .map_err(|error| format!("cannot read the faults {}: {error}", file.display())),
            (None, Some(seed)) => Ok(format!("seed = {seed}")),
            (None, None) => Ok(String::new()),
        }
    }

    /// The fabric as it is called in the table.
    pub(crate) fn name(&self) -> &str {
        self.named.name()
    }

    /// The fabric as the library wants it.
    pub(crate) fn specification(&self) -> Result<String, String> {
        self.named.specification()
    }
}

impl NamedFabricArgs {
    /// The fabric as it is called in the table.
    pub(crate) fn name(&self) -> &str {
        self.fabric.as_deref().unwrap_or(DEFAULT_FABRIC)
    }

    /// The fabric as the library wants it: a name, `custom:…`, or the text of a file.
    pub(crate) fn specification(&self) -> Result<String, String> {
        let name = self.name();
        if name == CUSTOM {
            let (Some(latency_ps), Some(bytes_per_s)) = (self.latency, self.bandwidth) else {
                return Err(
                    "--fabric custom needs --latency and --bandwidth, for example 2.1us and 392GB/s".into()
                );
            };
            return Ok(format!("custom:latency_ps={latency_ps},bytes_per_s={bytes_per_s}"));
        }
        if self.latency.is_some() || self.bandwidth.is_some() {
            return Err(
                "--latency and --bandwidth describe --fabric custom; other fabrics have their own".into()
            );
        }
        if name.contains('/') || name.ends_with(".toml") {
            let read = std::fs::read_to_string(name);
            return read.map_err(|error| format!("cannot read the fabric {name}: {error}"));
        }
        Ok(name.to_owned())
    }
}

fn parse_fidelity(text: &str) -> Result<Fidelity, String> {
    text.parse().map_err(|error: target::Error| error.message().to_owned())
}
