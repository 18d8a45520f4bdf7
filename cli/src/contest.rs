//! `ubccl bench --algo all`: every way to do a call measured in turns, and how the tuner's pick stands among them.
//!
//! One crew of ranks measures all candidates, round after round. The fastest of two dozen noisy ones looks faster than it
//! is, so a final follows: the pick, the pick once more, and its nearest rivals, in turns and more often. A rival is
//! compared with the pick round by round, so that a machine that changes its pace does so for both. The pick compared with
//! itself (A/A) says what the machine's noise is.

use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::measure::{Measure, Stopwatch};
use crate::orders::{Crew, How, Order};
use crate::report::{Agenda, print};
use crate::stats::median;
use crate::target::{self, Candidate, Planner};
use crate::tune::{is_crowded, turns, warmup};
use crate::units::show_bytes;
use std::io::Write;

/// How often each candidate is measured in the heats.
const ROUNDS: usize = 5;
/// How often in the final.
const FINAL_ROUNDS: usize = 15;
/// Of so many ratios the median is between the fourth and the fourth last with a confidence of 96 % (binomial).
const INTERVAL: [usize; 2] = [3, FINAL_ROUNDS - 4];
/// Candidates in the heats: the tuner's best, but every algorithm in its best form.
const MOST_MEASURED: usize = 24;
/// Rivals of the pick in the final.
const RIVALS: usize = 3;
/// A final whose A/A interval is farther from 1 than this is held again …
const MOST_NOISE: f64 = 1.1;
/// … so many times.
const REPEATS: usize = 4;
/// A pick that takes at most so many times as long as the best is good.
const NEAR: f64 = 1.15;

/// One way to do a call, and how long it took in each round.
struct Entry {
    how: How,
    predicted_us: f64,
    is_picked: bool,
    times_us: Vec<f64>,
}

/// Measures every call of the agenda in every way; the pick's place in each is printed, and the worst at last.
pub(crate) fn run<C: Crew>(
    agenda: &Agenda,
    stopwatch: &mut Stopwatch<C>,
    planner: &Planner,
    out: &mut dyn Write,
) -> Outcome<()> {
    let told = format!(
        "# {ROUNDS} rounds over all ways to do each call, {FINAL_ROUNDS} over the pick and the best\n"
    );
    print(out, &told)?;
    let calls = agenda.calls();
    let capacity = calls.iter().map(|(call, _)| call.bytes()).max().unwrap_or(0);
    let mut verdicts: Vec<Verdict> = Vec::new();
    for (call, _) in &calls {
        let mut entries = entries(&target::candidates(planner, call)?, &planner.engines())?;
        measure_in_turns(stopwatch, call, capacity, &mut entries, ROUNDS)?;
        print(out, &table(call, &entries)?)?;
        finalists(&mut entries);
        for _ in 0..=REPEATS {
            entries.iter_mut().for_each(|entry| entry.times_us.clear());
            measure_in_turns(stopwatch, call, capacity, &mut entries, FINAL_ROUNDS)?;
            if Verdict::of(&entries).noise <= MOST_NOISE {
                break;
            }
        }
        let verdict = Verdict::of(&entries);
        print(out, &verdict.told())?;
        verdicts.push(verdict);
    }
    stopwatch.crew.run(&Order::Choose(None))?;
    let good = verdicts.iter().filter(|verdict| verdict.ratio <= NEAR.max(verdict.noise)).count();
    let worst = verdicts.iter().map(|verdict| verdict.ratio).fold(0.0, f64::max);
    let noise = verdicts.iter().map(|verdict| verdict.noise).fold(0.0, f64::max);
    let told = format!(
        "# picks within {NEAR} of the best, or A/A: {good} of {}; the worst at {worst:.2}; A/A at most {noise:.2}\n",
        verdicts.len()
    );
    print(out, &told)
}

/// The ways to measure: the pick first, and again as the last.
fn entries(candidates: &[Candidate], engines: &[String]) -> Outcome<Vec<Entry>> {
    let able: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.cost.is_ok()).collect();
    let name = |candidate: &Candidate| (candidate.algorithm.descriptor().name, candidate.choice.engine);
    let us = |candidate: &Candidate| candidate.cost.as_ref().map_or(f64::MAX, |cost| cost.total_ps() / 1e6);
    let pick = able.iter().copied().find(|candidate| candidate.is_picked);
    let pick = pick.ok_or_else(|| Failure::new("no algorithm can do this call"))?;
    let mut chosen: Vec<&Candidate> = vec![pick];
    for candidate in &able {
        if !chosen.iter().any(|other| name(other) == name(candidate)) {
            chosen.push(candidate);
        }
    }
    chosen.truncate(MOST_MEASURED);
    for candidate in &able {
        // Chunks longer than the data are all the same.
        let is_same = |other: &&Candidate| name(other) == name(candidate) && us(other) == us(candidate);
        if chosen.len() < MOST_MEASURED && !chosen.iter().any(is_same) {
            chosen.push(candidate);
        }
    }
    chosen.push(pick);
    let entry = |candidate: &&Candidate| Entry {
        how: target::how(candidate.algorithm.descriptor().name, candidate.choice, engines),
        predicted_us: us(candidate),
        is_picked: candidate.is_picked,
        times_us: Vec::new(),
    };
    Ok(chosen.iter().map(entry).collect())
}

fn measure_in_turns<C: Crew>(
    stopwatch: &mut Stopwatch<C>,
    call: &Call,
    capacity: u64,
    entries: &mut [Entry],
    rounds: usize,
) -> Outcome<()> {
    let asked = stopwatch.effort.warmup;
    let least = warmup(call, is_crowded(call.ranks));
    stopwatch.effort.warmup = asked.map(|asked| asked.max(least));
    for turn in turns(entries.len(), rounds) {
        let entry = &mut entries[turn];
        stopwatch.crew.run(&Order::Choose(Some(entry.how.clone())))?;
        let measured = stopwatch.measure(call, false, capacity)?;
        if let Some(note) = measured.note {
            return Err(Failure::new(format!("{} gives wrong results: {note}", entry.how.algorithm)));
        }
        entry.times_us.push(measured.times.p50_us);
    }
    stopwatch.effort.warmup = asked;
    Ok(())
}

/// The rows of the heats, the fastest first.
fn table(call: &Call, entries: &[Entry]) -> Outcome<String> {
    let pick_us = median(&entries[0].times_us);
    let mut rows: Vec<&Entry> = entries[..entries.len() - 1].iter().collect();
    rows.sort_by(|a, b| median(&a.times_us).total_cmp(&median(&b.times_us)));
    let width = rows.iter().map(|entry| entry.how.title().len()).max().unwrap_or(0);
    let mut text = format!("# {}\n", target::describe(call)?);
    for Entry { how, predicted_us, is_picked, times_us } in rows {
        let (name, How { lanes, chunk_bytes, .. }) = (how.title(), how);
        let measured_us = median(times_us);
        let least_us = times_us.iter().copied().fold(f64::INFINITY, f64::min);
        let most_us = times_us.iter().copied().fold(0.0, f64::max);
        let mark = if *is_picked { '*' } else { ' ' };
        let chunk = show_bytes(u64::from(*chunk_bytes));
        text += &format!(
            "{mark} {:>12} {name:width$}  {lanes:>2}  {chunk:>9}  predicted {predicted_us:>12.2}  measured \
             {measured_us:>12.2} ({least_us:.2} to {most_us:.2})  {:.2}\n",
            call.bytes(),
            measured_us / pick_us
        );
    }
    Ok(text)
}

/// Leaves the pick, its nearest rivals, and the pick again.
fn finalists(entries: &mut Vec<Entry>) {
    let last = entries.len() - 1;
    entries[1..last].sort_by(|a, b| median(&a.times_us).total_cmp(&median(&b.times_us)));
    entries.drain(last.min(1 + RIVALS)..last);
}

/// What a final showed.
struct Verdict {
    pick: String,
    best: String,
    /// The pick's time over the best's.
    ratio: f64,
    /// How far the pick's time over the pick's own may be from 1.
    noise: f64,
}

impl Verdict {
    /// Of the pick, its rivals, and the pick again.
    fn of(entries: &[Entry]) -> Self {
        let ratios = |other: &Entry| {
            let mut ratios: Vec<f64> =
                entries[0].times_us.iter().zip(&other.times_us).map(|(pick, other)| pick / other).collect();
            ratios.sort_by(f64::total_cmp);
            ratios
        };
        let [low, high] = INTERVAL.map(|at| ratios(&entries[entries.len() - 1])[at]);
        let pick = entries[0].how.title();
        let (mut best, mut ratio) = (pick.clone(), 1.0);
        for rival in &entries[1..entries.len() - 1] {
            let median = median(&ratios(rival));
            if median > ratio {
                (best, ratio) = (rival.how.title(), median);
            }
        }
        Verdict { pick, best, ratio, noise: high.max(1.0 / low) }
    }

    fn told(&self) -> String {
        let Verdict { pick, best, ratio, noise } = self;
        format!(
            "# the pick, {pick}, takes {ratio:.2} times as long as the best, {best}; A/A within {noise:.2}\n"
        )
    }
}
