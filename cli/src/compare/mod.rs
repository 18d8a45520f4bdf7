//! `ubccl bench --compare`: the peers' programs and ours, one right after the other, and how they stand.
//!
//! A round has slices (a few operations at a few sizes); for each, every program runs once for about a second, in an
//! order that turns from slice to slice: whatever the machine does meanwhile, it does to all. Ours runs twice, under two
//! notes: how far these differ is how far any two may by chance (A/A). Each run is tagged with how long a cache line
//! takes between two CPUs before and after it, because a virtual machine's CPUs move.

mod contestants;
mod programs;
mod runs;
mod slices;
mod tables;
mod verdict;

use crate::args::BenchArgs;
use crate::failure::{Failure, Outcome};
use crate::report::print;
use crate::target::DataType;
use contestants::{Contestant, Part};
use programs::Programs;
use runs::{Run, Runs};
use slices::Slice;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// What the peers' programs and ours measure, by their names, in the order in which they do. In the tables and JSON
/// `allreduce_inplace` is `allreduce` with `inplace` 1.
pub(crate) const OPERATIONS: [&str; 8] = [
    "allreduce",
    "allreduce_inplace",
    "allgather",
    "reduce_scatter",
    "broadcast",
    "alltoall",
    "barrier",
    "pingpong",
];

/// The sizes of the comparisons with a processor for each rank …
const SIZES: [u64; 10] = [8, 64, 1 << 10, 8 << 10, 64 << 10, 512 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20];
/// … and without.
const CROWDED_SIZES: [u64; 3] = [8, 64 << 10, 4 << 20];

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    part: Part,
    ranks: u32,
    /// The type's name in the programs.
    dtype: &'static str,
    ops: Vec<&'static str>,
    sizes: Vec<u64>,
    peers: Vec<&'static str>,
    /// How long a point is measured.
    time: Duration,
    /// An algorithm for all of our calls.
    algorithm: Option<String>,
}

/// Runs it.
pub(crate) fn run(args: &BenchArgs, peers_dir: &Path, out: &mut dyn Write) -> Outcome<()> {
    let question = Question::of(args)?;
    let mut runs = Runs::open(args.sweep.json.as_deref())?;
    if args.compare.rounds > 0 {
        let programs = Programs::find(peers_dir, args.compare.peers_home.as_deref())?;
        let contestants = programs.contestants(&question);
        tell(&programs.missing(&question));
        measure(&question, &programs, &contestants, args.compare.rounds, &mut runs)?;
    }
    print(out, &tables::of(&runs.records))?;
    if runs.has_wrong_results() { Err(Failure::Told) } else { Ok(()) }
}

/// Tells on standard error what goes on; if nobody reads it, nothing is lost.
fn tell(text: &str) {
    if !text.is_empty() {
        let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
    }
}

fn measure(
    question: &Question,
    programs: &Programs,
    contestants: &[Contestant],
    rounds: u32,
    runs: &mut Runs,
) -> Outcome<()> {
    let slices = Slice::all(&question.ops, &question.sizes);
    let first = runs.last_round() + 1;
    let mut turn = first as usize;
    for round in first..first + rounds {
        for slice in &slices {
            let turned = contestants.iter().cycle().skip(turn % contestants.len()).take(contestants.len());
            for contestant in turned {
                let Some(ops) = contestant.ops(question, &slice.ops) else { continue };
                let run = programs.run(question, contestant, &ops, &slice.sizes, round)?;
                tell(&remark(&run, contestant, slice, round));
                runs.add(run)?;
            }
            turn += 1;
        }
    }
    Ok(())
}

/// What a run was and how near the CPUs were, for whoever watches.
fn remark(run: &Run, contestant: &Contestant, slice: &Slice, round: u32) -> String {
    let [before, after] = run.near_ns;
    let failed = run.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!(
        "round {round}: {contestant}, {slice}; a cache line took {before:.0} ns, then {after:.0} ns{failed}"
    )
}

impl Question {
    fn of(args: &BenchArgs) -> Outcome<Self> {
        let compare = &args.compare;
        let transport = args.transport.as_deref().unwrap_or("shm");
        let ranks = args.sweep.ranks;
        let part = Part::of(transport, ranks)?;
        let usual: &[u64] = if part == Part::Crowded { &CROWDED_SIZES } else { &SIZES };
        Ok(Question {
            part,
            ranks,
            dtype: dtype_name(&args.sweep.dtypes())?,
            ops: named(&compare.ops, &OPERATIONS, "--ops")?,
            sizes: if compare.sizes.is_empty() { usual.to_vec() } else { compare.sizes.clone() },
            peers: named(&compare.peers, &contestants::PEERS, "--peers")?,
            time: compare.time,
            algorithm: args.sweep.how.algorithm().map(str::to_owned),
        })
    }
}

fn dtype_name(dtypes: &[DataType]) -> Outcome<&'static str> {
    match dtypes {
        [DataType::F32] => Ok("float32"),
        [DataType::BF16] => Ok("bfloat16"),
        _ => Err(Failure::new("--compare measures one type, -d f32 or -d bf16")),
    }
}

/// The names that were asked for, in the list's order; all if none was.
fn named(asked: &[String], all: &[&'static str], flag: &str) -> Outcome<Vec<&'static str>> {
    if let Some(unknown) = asked.iter().find(|name| !all.contains(&name.as_str())) {
        return Err(Failure::new(format!("{flag} has {unknown}; there are: {}", all.join(", "))));
    }
    Ok(all
        .iter()
        .copied()
        .filter(|name| asked.is_empty() || asked.iter().any(|asked| asked == name))
        .collect())
}
