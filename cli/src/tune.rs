//! `ubccl tune`: measures on this machine and fits the cost model that algorithms are chosen by.

use crate::args::TuneArgs;
use crate::bench;
use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::measure::{Effort, Measure, Stopwatch};
use crate::orders::{Crew, How, Order};
use crate::report::print;
use crate::stats::median;
use crate::target::{self, DataType, Kind, Planner, ReduceOp, Settings, Timed, Way, settings};
use crate::tune_check;
use std::io::Write;
use std::num::NonZeroUsize;

/// What is measured of each algorithm.
pub(crate) const KINDS: [Kind; 10] = [
    Kind::AllReduce,
    Kind::AllGather,
    Kind::ReduceScatter,
    Kind::ReduceScatterV,
    Kind::Broadcast,
    Kind::Reduce,
    Kind::AllToAll,
    Kind::Gather,
    Kind::Scatter,
    Kind::Barrier,
];
/// The file when none is named: it may hold every transport of a machine.
const DEFAULT_FILE: &str = "ubccl-tuning.toml";
/// At these sizes of the longest buffer: by octaves, but for the shortest, which cost about the same.
const SIZES: [u64; 20] = [
    8,
    64,
    256,
    512,
    1 << 10,
    2 << 10,
    4 << 10,
    8 << 10,
    16 << 10,
    32 << 10,
    64 << 10,
    128 << 10,
    256 << 10,
    512 << 10,
    1 << 20,
    2 << 20,
    4 << 20,
    8 << 20,
    16 << 20,
    32 << 20,
];
/// As far as the buffers of all ranks come to no more than this.
const MOST_OF_ALL: u64 = 64 << 20;
/// Of ranks so many to a core every third size is measured: their calls take milliseconds.
const MANY_PER_CORE: usize = 5;
const SIZES_APART: usize = 3;
/// Rounds over all ways to do a call, and where ranks share cores, whose luck differs from round to round, and where they are
/// many.
const ROUNDS: usize = 5;
const ROUNDS_IF_CROWDED: usize = 7;
const ROUNDS_OF_MANY: usize = 3;
/// Timed iterations in each round: ranks run ahead of each other, so that a call costs less in a long row than in a short one.
const ITERATIONS: u32 = 30;
/// Iterations before those: at least so many, and no more than so many to warm memory: calls of so many bytes, of which half
/// or more goes through a ring or publications, that is once round their 2 MiB.
const LEAST_WARMUP: u32 = 5;
const MOST_WARMUP: u64 = 600;
const WARMED_BYTES: u64 = 4 << 20;
/// Of large calls.
const ITERATIONS_LARGE: u32 = 3;
const LARGE: u64 = 2 << 20;

/// Measures, fits, writes the file, and says how well it fits.
pub(crate) fn run(args: &TuneArgs, out: &mut dyn Write) -> Outcome<()> {
    let given: Settings =
        args.transport.iter().map(|name| (settings::TRANSPORT.name.to_owned(), name.clone())).collect();
    let transport = target::configuration(&given)?.transport;
    let (transport, is_virtual) = target::find_transport(&transport).map_err(Failure::new)?;
    if is_virtual {
        return Err(Failure::new(format!(
            "{transport} is simulated: its fabric's description says what things cost"
        )));
    }
    if args.check {
        return tune_check::run(args, transport, args.seed, out);
    }
    let mut timed = Vec::new();
    for &ranks in &args.ranks {
        print(out, &format!("# measuring {ranks} ranks over {transport}\n"))?;
        let settings = vec![(settings::TRANSPORT.name.to_owned(), transport.to_owned())];
        let planner = target::planner(&settings, ranks, None)?;
        bench::with_crew(transport, ranks, settings, &mut |crew| {
            measure(crew, &planner, ranks, args.max_bytes, &mut timed)
        })?;
    }
    let tuning = target::fit(transport, &timed)?;
    let path = args.out.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    tuning.write(&path)?;
    let (median, worst) = tuning.residuals();
    let told = format!(
        "# {} points; half are predicted within {:.0} %, all within {:.0} %\n# written to {}; it counts where \
         UBCCL_TUNING or --tuning names it\n",
        timed.len(),
        median * 100.0,
        worst * 100.0,
        path.display()
    );
    print(out, &told)
}

fn measure(
    crew: &mut dyn Crew,
    planner: &Planner,
    ranks: u32,
    max_bytes: u64,
    timed: &mut Vec<Timed>,
) -> Outcome<()> {
    let sizes = sizes(ranks, max_bytes, cores());
    let mut points = Vec::new();
    for kind in KINDS {
        for &bytes in sizes.iter().take(if kind == Kind::Barrier { 1 } else { sizes.len() }) {
            let call = Call { kind, count: 0, dtype: DataType::F32, op: ReduceOp::Sum, root: 0, ranks };
            points.push((call.sized(bytes), target::ways(planner, &call.sized(bytes))?));
        }
    }
    let hows_of = |(call, ways): &(Call, Vec<Way>)| {
        (*call, ways.iter().map(|(algorithm, choice)| target::how(algorithm, *choice, &[])).collect())
    };
    let asked: Vec<(Call, Vec<How>)> = points.iter().map(hows_of).collect();
    let mut tape = Tape::new(crew, ranks, sizes.iter().copied().max().unwrap_or(0));
    let times_us = tape.measure(&asked)?;
    for ((call, ways), times_us) in points.into_iter().zip(times_us) {
        let way_timed = |(way, us): (Way, f64)| Timed { call, way, seconds: us / 1e6 };
        timed.extend(ways.into_iter().zip(times_us).map(way_timed));
    }
    tape.crew().run(&Order::Choose(None)).map(drop)
}

/// Measures calls for tuning: ways to do them in turns, and of each what is typical.
pub(crate) struct Tape<'a> {
    stopwatch: Stopwatch<&'a mut dyn Crew>,
    capacity: u64,
    is_crowded: bool,
    rounds: usize,
}

impl<'a> Tape<'a> {
    /// With these ranks, and buffers of at most so many bytes.
    pub(crate) fn new(crew: &'a mut dyn Crew, ranks: u32, capacity: u64) -> Self {
        let effort = Effort { iterations: None, warmup: None, checks: 0, breakdown: false };
        let is_crowded = is_crowded(ranks);
        let rounds = match (are_many(ranks, cores()), is_crowded) {
            (true, _) => ROUNDS_OF_MANY,
            (false, true) => ROUNDS_IF_CROWDED,
            (false, false) => ROUNDS,
        };
        Tape { stopwatch: Stopwatch { crew, effort }, capacity, is_crowded, rounds }
    }

    /// Microseconds of each of these calls, in each of its ways. Each round goes over all calls before the next one starts:
    /// virtual processors move, nearer to each other and farther, every few seconds, and so each call is met in most places.
    pub(crate) fn measure(&mut self, asked: &[(Call, Vec<How>)]) -> Outcome<Vec<Vec<f64>>> {
        let mut times_us: Vec<Vec<Vec<f64>>> =
            asked.iter().map(|(_, hows)| vec![Vec::new(); hows.len()]).collect();
        for round in 0..self.rounds {
            for ((call, hows), times_us) in asked.iter().zip(&mut times_us) {
                let iterations = if call.bytes() > LARGE { ITERATIONS_LARGE } else { ITERATIONS };
                self.stopwatch.effort.iterations = Some(iterations);
                self.stopwatch.effort.warmup = Some(warmup(call, self.is_crowded).max(LEAST_WARMUP));
                for turn in turns_of(round, hows.len()) {
                    self.stopwatch.crew.run(&Order::Choose(Some(hows[turn].clone())))?;
                    times_us[turn].push(self.both_us(call)?);
                }
            }
        }
        let typical = |times_us: &Vec<f64>| typical(times_us, self.is_crowded);
        Ok(times_us.iter().map(|times_us| times_us.iter().map(typical).collect()).collect())
    }

    /// Microseconds of a call, in place and not by halves if it may be either: ranks choose without knowing of each other
    /// which it is.
    fn both_us(&mut self, call: &Call) -> Outcome<f64> {
        let apart_us = self.stopwatch.measure(call, false, self.capacity)?.times.p50_us;
        if call.kind != Kind::AllReduce {
            return Ok(apart_us);
        }
        let in_place_us = self.stopwatch.measure(call, true, self.capacity)?.times.p50_us;
        Ok((apart_us + in_place_us) / 2.0)
    }

    /// The ranks.
    pub(crate) fn crew(&mut self) -> &mut dyn Crew {
        self.stopwatch.crew
    }
}

/// Whether so many ranks share cores.
pub(crate) fn is_crowded(ranks: u32) -> bool {
    cores() < ranks as usize
}

fn are_many(ranks: u32, cores: usize) -> bool {
    ranks as usize >= cores.saturating_mul(MANY_PER_CORE)
}

/// This process may use so many; if nobody knows, enough.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(usize::MAX, NonZeroUsize::get)
}

/// The sizes that are measured of so many ranks.
fn sizes(ranks: u32, max_bytes: u64, cores: usize) -> Vec<u64> {
    let most = max_bytes.min(MOST_OF_ALL / u64::from(ranks.max(1)));
    let sizes = SIZES.into_iter().filter(|&bytes| bytes <= most);
    sizes.step_by(if are_many(ranks, cores) { SIZES_APART } else { 1 }).collect()
}

/// Calls before those that are timed, of ways that are measured in turns: until their messages have gone once round the
/// memory that they go through. Some ways share it and find it in the caches where others have left it, and a way that has
/// memory to itself would be measured cold and the others warm. Not where ranks share cores, whose calls take longer than
/// that makes a difference.
pub(crate) fn warmup(call: &Call, is_crowded: bool) -> u32 {
    match is_crowded {
        true => 0,
        false => (WARMED_BYTES / call.bytes().max(1)).min(MOST_WARMUP) as u32,
    }
}

/// Whose turn it is when so many are measured in so many rounds.
pub(crate) fn turns(count: usize, rounds: usize) -> impl Iterator<Item = usize> {
    (0..rounds).flat_map(move |round| turns_of(round, count))
}

/// The same of one round, each in another order: what one leaves behind (which ranks share a core, above all) must not
/// always meet the same next one.
fn turns_of(round: usize, count: usize) -> impl Iterator<Item = usize> {
    let strides: Vec<usize> = (1..=count).filter(|&stride| is_coprime(stride, count)).collect();
    (0..count).map(move |turn| (turn * strides[round % strides.len()] + round) % count)
}

fn is_coprime(a: usize, b: usize) -> bool {
    if b == 0 { a == 1 } else { is_coprime(b, a % b) }
}

/// What counts of the rounds: the fastest, since what disturbs a measurement makes it longer; where ranks share cores, luck
/// makes it shorter too, and the median counts.
fn typical(times_us: &[f64], is_crowded: bool) -> f64 {
    if is_crowded { median(times_us) } else { times_us.iter().copied().fold(f64::INFINITY, f64::min) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_ranks_are_measured_at_fewer_and_shorter_sizes() {
        assert_eq!(sizes(2, 32 << 20, 2), SIZES);
        assert_eq!(sizes(8, 1 << 40, 2).last(), Some(&(8 << 20)), "64 MiB in all");
        assert_eq!(sizes(16, 8 << 20, 16).last(), Some(&(4 << 20)));
        let many = sizes(16, 8 << 20, 2);
        assert_eq!(many, [8, 512, 4 << 10, 32 << 10, 256 << 10, 2 << 20]);
        assert_eq!(sizes(1024, 8 << 20, 2), [8, 512, 4 << 10, 32 << 10]);
    }

    #[test]
    fn every_round_is_a_turn_of_all_and_rounds_differ() {
        let all: Vec<usize> = turns(5, 3).collect();
        for round in all.chunks(5) {
            let mut sorted = round.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        assert!(all[..5] != all[5..10]);
    }
}
