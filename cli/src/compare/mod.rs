//! `ubccl bench --compare`: the peers' programs and ours, one right after the other, and how they stand.
//!
//! A round has slices (a few operations at a few sizes); for each, every program runs once for about a second, in an
//! order that turns from slice to slice: whatever the machine does meanwhile, it does to all. Ours runs twice, under two
//! notes: how far these differ is how far any two may by chance (A/A). Two ranks also reduce registered memory, against
//! the least that this can cost: two threads which address both buffers. Each run is tagged with how long a cache line
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
use contestants::{BFLOAT16, Contestant, FLOAT32, OURS, Part, processors};
use programs::Programs;
use runs::{Run, Runs};
use slices::Slice;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

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

/// All-reduce in place of registered memory, which no peer has: against the floor.
const REGISTERED: &str = "registered";

/// The sizes of the comparisons with a processor for each rank …
const SIZES: [u64; 10] = [8, 64, 1 << 10, 8 << 10, 64 << 10, 512 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20];
/// … and without.
const CROWDED_SIZES: [u64; 3] = [8, 64 << 10, 4 << 20];
/// Those of registered memory.
const REGISTERED_SIZES: [u64; 4] = [1 << 20, 4 << 20, 16 << 20, 64 << 20];

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    part: Part,
    ranks: u32,
    /// The types' names in the programs.
    dtypes: Vec<&'static str>,
    ops: Vec<&'static str>,
    sizes: Vec<u64>,
    /// Of registered memory.
    registered_sizes: Vec<u64>,
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
        let programs = Programs::find(peers_dir, args.compare.peers_home.as_deref(), &question.dtypes)?;
        tell(&programs.missing(&question));
        measure(&question, &programs, args.compare.rounds, &mut runs)?;
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

/// One slice for one program.
type Job<'a> = (&'a Slice, Contestant, Vec<&'static str>);

fn measure(question: &Question, programs: &Programs, rounds: u32, runs: &mut Runs) -> Outcome<()> {
    let slices = question.slices();
    let first = runs.last_round() + 1;
    let mut turn = first as usize;
    let mut jobs: Vec<(u32, Job<'_>)> = Vec::new();
    for round in first..first + rounds {
        for slice in &slices {
            let mut contestants = programs.contestants(question, slice);
            let begin = turn % contestants.len().max(1);
            contestants.rotate_left(begin);
            jobs.extend(contestants.into_iter().map(|(contestant, ops)| (round, (slice, contestant, ops))));
            turn += 1;
        }
    }
    let mut left = jobs.iter().map(|(_, job)| expected(question, job)).sum::<Duration>();
    tell(&format!("{rounds} rounds, {} runs: about {}", jobs.len(), show_time(left)));
    // What was expected of the runs so far, and what they took.
    let (mut planned, begin) = (Duration::ZERO, Instant::now());
    for (round, job) in &jobs {
        let (slice, contestant, ops) = job;
        let run = programs.run(question, contestant, ops, &slice.sizes, *round)?;
        planned += expected(question, job);
        left = left.saturating_sub(expected(question, job));
        let to_go =
            left.mul_f64(begin.elapsed().as_secs_f64() / planned.as_secs_f64().max(f64::MIN_POSITIVE));
        tell(&format!("{}; about {} left", remark(&run, contestant, slice, *round), show_time(to_go)));
        runs.add(run)?;
    }
    Ok(())
}

/// About how long a run takes: its start and two looks at the CPUs, the points' times, and some forty calls, a fill and a
/// check of each buffer, as measured on two processors; with more ranks, these share them.
fn expected(question: &Question, (slice, contestant, ops): &Job<'_>) -> Duration {
    const START: Duration = Duration::from_millis(600);
    const RANK: Duration = Duration::from_millis(20);
    const S_PER_BYTE: f64 = 23e-9;
    let points = ops.len() as u32 * slice.sizes.len() as u32;
    let bytes = ops.len() as u64 * slice.sizes.iter().sum::<u64>();
    let share = f64::from(question.ranks) / f64::from(processors().min(question.ranks));
    let is_ours = contestant.peer == OURS;
    let start = if is_ours { START / 2 } else { START };
    start
        + RANK * question.ranks
        + question.time * points
        + Duration::from_secs_f64(S_PER_BYTE * bytes as f64 * share)
}

/// Minutes, or seconds if there are few.
fn show_time(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 100 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
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
        let sizes =
            |usual: &[u64]| if compare.sizes.is_empty() { usual.to_vec() } else { compare.sizes.clone() };
        let dtypes = dtype_names(&args.sweep.dtypes())?;
        let all: Vec<&'static str> = OPERATIONS.into_iter().chain([REGISTERED]).collect();
        let (registered, ops): (Vec<_>, Vec<_>) =
            named(&compare.ops, &all, "--ops")?.into_iter().partition(|&op| op == REGISTERED);
        // The floor is two threads that sum float32.
        let has_floor = part == Part::Shm && ranks == 2 && dtypes.contains(&FLOAT32);
        if !registered.is_empty() && !compare.ops.is_empty() && !has_floor {
            let told =
                format!("--ops {REGISTERED} is for two ranks over shm and float: the floor has no other");
            return Err(Failure::new(told));
        }
        let is_registered = !registered.is_empty() && has_floor;
        Ok(Question {
            part,
            ranks,
            dtypes,
            ops,
            sizes: sizes(usual),
            registered_sizes: if is_registered { floor_sizes(sizes(&REGISTERED_SIZES)) } else { Vec::new() },
            peers: named(&compare.peers, &contestants::PEERS, "--peers")?,
            time: compare.time,
            algorithm: args.sweep.how.algorithm().map(str::to_owned),
        })
    }

    /// What a round is.
    fn slices(&self) -> Vec<Slice> {
        Slice::all(&self.ops, &self.sizes)
            .into_iter()
            .chain(Slice::registered(&self.registered_sizes))
            .collect()
    }
}

/// Those that the floor does: its threads share cache lines of 16 floats.
fn floor_sizes(sizes: Vec<u64>) -> Vec<u64> {
    sizes.into_iter().filter(|bytes| *bytes >= 128 && bytes % 64 == 0).collect()
}

/// `-d all` is both types that are compared.
fn dtype_names(dtypes: &[DataType]) -> Outcome<Vec<&'static str>> {
    match dtypes {
        [DataType::F32] => Ok(vec![FLOAT32]),
        [DataType::BF16] => Ok(vec![BFLOAT16]),
        [_, _, ..] => Ok(vec![FLOAT32, BFLOAT16]),
        _ => Err(Failure::new("--compare measures -d float, -d bfloat16, or with -d all both")),
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
