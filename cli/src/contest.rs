//! `ubccl bench --algo all`: every way to do a call measured in turns, and how the tuner's pick stands among them.
//!
//! One crew of ranks measures all candidates, round after round, so that a machine that grows slower does so for all;
//! the pick is measured twice in each round, and the ratio of the two (A/A) says what the machine's noise is.

use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::measure::{Measure, Stopwatch};
use crate::orders::{Crew, How, Order};
use crate::report::{Agenda, print};
use crate::target::{self, Candidate, Planner};
use crate::units::show_bytes;
use std::io::Write;

/// How often each candidate is measured.
const ROUNDS: usize = 5;
/// Candidates that are measured: the tuner's best, but every algorithm in its best form.
const MOST_MEASURED: usize = 24;

/// A contest whose A/A is above this is held again …
const MOST_NOISE: f64 = 1.1;
/// … so many times.
const REPEATS: usize = 3;
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
    print(out, &format!("# {ROUNDS} rounds over all ways to do each call, the pick twice in each\n"))?;
    let calls = agenda.calls();
    let capacity = calls.iter().map(|(call, _)| call.bytes()).max().unwrap_or(0);
    let mut verdicts: Vec<Verdict> = Vec::new();
    for (call, _) in &calls {
        let candidates = target::candidates(planner, call)?;
        let mut verdict = contest(stopwatch, call, capacity, &candidates)?;
        for _ in 0..REPEATS {
            if verdict.noise > MOST_NOISE {
                print(out, &format!("# {}: A/A {:.2}, again\n", target::describe(call)?, verdict.noise))?;
                verdict = contest(stopwatch, call, capacity, &candidates)?;
            }
        }
        print(out, &verdict.text)?;
        verdicts.push(verdict);
    }
    stopwatch.crew.run(&Order::Choose(None))?;
    let within = verdicts.iter().filter(|verdict| verdict.ratio <= NEAR.max(verdict.noise)).count();
    let worst = verdicts.iter().map(|verdict| verdict.ratio).fold(0.0, f64::max);
    let noise = verdicts.iter().map(|verdict| verdict.noise).fold(0.0, f64::max);
    print(
        out,
        &format!(
            "# picks within {NEAR} of the best, or A/A: {within} of {}; the worst at {worst:.2}; A/A at most {noise:.2}\n",
            verdicts.len()
        ),
    )
}

/// What a contest showed.
struct Verdict {
    text: String,
    /// The pick's time over the best's.
    ratio: f64,
    /// The pick's time over the pick's, whichever was more: the median of the rounds.
    noise: f64,
}

/// Measures all ways to do a call in turns.
fn contest<C: Crew>(
    stopwatch: &mut Stopwatch<C>,
    call: &Call,
    capacity: u64,
    candidates: &[Candidate],
) -> Outcome<Verdict> {
    let mut entries = entries(candidates)?;
    for round in 0..ROUNDS {
        for turn in 0..entries.len() {
            let entry = (turn + round) % entries.len();
            measure(stopwatch, call, capacity, &mut entries[entry])?;
        }
    }
    told(call, entries)
}

/// The ways to measure: the pick first, and again as the last.
fn entries(candidates: &[Candidate]) -> Outcome<Vec<Entry>> {
    let able: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.cost.is_ok()).collect();
    let name = |candidate: &Candidate| candidate.algorithm.descriptor().name;
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
        how: target::how(name(candidate), candidate.choice),
        predicted_us: us(candidate),
        is_picked: candidate.is_picked,
        times_us: Vec::new(),
    };
    Ok(chosen.iter().map(entry).collect())
}

fn measure<C: Crew>(
    stopwatch: &mut Stopwatch<C>,
    call: &Call,
    capacity: u64,
    entry: &mut Entry,
) -> Outcome<()> {
    stopwatch.crew.run(&Order::Choose(Some(entry.how.clone())))?;
    let measured = stopwatch.measure(call, false, capacity)?;
    if let Some(note) = measured.note {
        return Err(Failure::new(format!("{} gives wrong results: {note}", entry.how.algorithm)));
    }
    entry.times_us.push(measured.times.p50_us);
    Ok(())
}

/// The rows of one call, and what they show.
fn told(call: &Call, mut entries: Vec<Entry>) -> Outcome<Verdict> {
    let again = entries.pop().ok_or_else(|| Failure::new("nothing was measured"))?;
    let pick_us = median(&entries[0].times_us);
    let mut noise: Vec<f64> =
        entries[0].times_us.iter().zip(&again.times_us).map(|(a, b)| (a / b).max(b / a)).collect();
    noise.sort_by(f64::total_cmp);
    let noise = noise[noise.len() / 2];
    let picked = entries[0].how.algorithm.clone();
    entries.sort_by(|a, b| median(&a.times_us).total_cmp(&median(&b.times_us)));
    let width = entries.iter().map(|entry| entry.how.algorithm.len()).max().unwrap_or(0);
    let mut text = format!("# {}\n", target::describe(call)?);
    for Entry { how: How { algorithm: name, lanes, chunk_bytes }, predicted_us, is_picked, times_us } in
        &entries
    {
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
    let ratio = pick_us / median(&entries[0].times_us);
    text += &format!(
        "# the pick, {picked}, takes {ratio:.2} times as long as the best, {}; A/A {noise:.2}\n",
        entries[0].how.algorithm
    );
    Ok(Verdict { text, ratio, noise })
}

fn median(times_us: &[f64]) -> f64 {
    let mut sorted = times_us.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
