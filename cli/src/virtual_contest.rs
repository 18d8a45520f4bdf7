//! `ubccl sim --algo all`: every way to do a call simulated, and how the tuner's pick stands among them.
//!
//! Ways are simulated in the order of their predicted times, the pick first, each until it is over or has taken longer
//! than the best so far. Two kinds of ways are left out and counted: those predicted to take many times as long as the
//! best, and those with more messages than anybody wants to wait for. How far predictions are from simulations is told
//! beside, so that a reader can judge what was left out.

use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::orders::How;
use crate::report::{Agenda, print};
use crate::target::{self, Candidate, ErrorKind, Machine, MachineOptions};
use crate::units::show_bytes;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// A simulation goes on until it takes so many times as long as the best so far: to tell by how much others lose.
const CUT: f64 = 1.1;
/// A pick that takes at most so many times as long as the best is good.
const NEAR: f64 = 1.03;

/// How much is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Ways with more messages, of all ranks together, are left out.
    pub(crate) messages: f64,
    /// Ways that are predicted to take so many times as long as the best is simulated to are left out.
    pub(crate) margin: f64,
    /// Of each algorithm, lanes and chunks that are predicted to be the best so many; the others are left out.
    pub(crate) variants: usize,
}

/// One way to do a call.
struct Entry {
    how: How,
    predicted_us: f64,
    /// Messages of all ranks together, at most.
    messages: f64,
    is_picked: bool,
    fate: Fate,
}

/// What a simulation gave.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It took so long.
    Took(f64),
    /// It was not over after so long.
    Over(f64),
    /// Predicted to lose by far.
    Hopeless,
    /// Too many messages.
    TooMany,
}

/// Simulates every call of the agenda in every way; the pick's place in each is printed, and the worst at last.
pub(crate) fn run(
    agenda: &Agenda,
    options: &MachineOptions,
    budget: Budget,
    out: &mut dyn Write,
) -> Outcome<()> {
    let fabric = Some((options.fabric.clone(), options.fidelity));
    let planner = target::planner(&options.settings, options.ranks, fabric)?;
    let mut verdicts: Vec<Verdict> = Vec::new();
    for (call, _) in &agenda.calls() {
        let mut entries = entries(&target::candidates(&planner, call)?, &planner.engines(), call.ranks)?;
        simulate(&mut entries, call, options, budget)?;
        print(out, &table(call, &entries)?)?;
        let verdict = Verdict::of(&entries);
        print(out, &verdict.told())?;
        verdicts.push(verdict);
    }
    print(out, &summary(&verdicts))
}

/// The ways to do a call, the pick first, then by predicted time. Chunks longer than the data are all the same.
fn entries(candidates: &[Candidate], engines: &[String], ranks: u32) -> Outcome<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for candidate in candidates {
        let Ok(cost) = &candidate.cost else { continue };
        let entry = Entry {
            how: target::how(candidate.algorithm.descriptor().name, candidate.choice, engines),
            predicted_us: cost.total_ps() / 1e6,
            messages: candidate.messages * f64::from(ranks),
            is_picked: candidate.is_picked,
            fate: Fate::Hopeless,
        };
        let is_same = |other: &Entry| {
            let (ours, theirs) = (&entry.how, &other.how);
            (&ours.algorithm, &ours.engine, ours.lanes) == (&theirs.algorithm, &theirs.engine, theirs.lanes)
                && (entry.predicted_us, entry.messages) == (other.predicted_us, other.messages)
        };
        match entries.iter_mut().find(|other| is_same(other)) {
            Some(other) => other.is_picked |= entry.is_picked,
            None => entries.push(entry),
        }
    }
    let pick = entries.iter().position(|entry| entry.is_picked);
    let pick = pick.ok_or_else(|| Failure::new("no algorithm can do this call"))?;
    entries[..=pick].rotate_right(1);
    Ok(entries)
}

fn simulate(entries: &mut [Entry], call: &Call, options: &MachineOptions, budget: Budget) -> Outcome<()> {
    let mut best_us = f64::INFINITY;
    let mut variants: BTreeMap<String, usize> = BTreeMap::new();
    for entry in entries {
        let variant = variants.entry(entry.how.title()).or_default();
        *variant += 1;
        entry.fate = match entry {
            Entry { messages, .. } if *messages > budget.messages => Fate::TooMany,
            Entry { predicted_us, .. } if *predicted_us > best_us * budget.margin => Fate::Hopeless,
            _ if *variant > budget.variants => Fate::Hopeless,
            _ => simulate_one(&entry.how, call, options, best_us * CUT)?,
        };
        if let Fate::Took(us) = entry.fate {
            best_us = best_us.min(us);
        }
    }
    Ok(())
}

fn simulate_one(how: &How, call: &Call, options: &MachineOptions, most_us: f64) -> Outcome<Fate> {
    let timeout = most_us.is_finite().then(|| Duration::from_nanos((most_us * 1e3).ceil() as u64));
    let mut machine = Machine::new(&MachineOptions { how: Some(how.clone()), timeout, ..options.clone() })?;
    match machine.run_phantom(call, false) {
        Ok(simulation) if simulation.wrong > 0 => {
            Err(Failure::new(format!("{} gives wrong results", how.algorithm)))
        }
        Ok(simulation) => Ok(Fate::Took(simulation.elapsed_ps as f64 / 1e6)),
        Err(error) if error.kind() == ErrorKind::Timeout => Ok(Fate::Over(most_us)),
        Err(error) => Err(error.into()),
    }
}

/// The rows of a call: what was simulated, the fastest first.
fn table(call: &Call, entries: &[Entry]) -> Outcome<String> {
    let mut rows: Vec<(&Entry, f64, &str)> = Vec::new();
    for entry in entries {
        match entry.fate {
            Fate::Took(us) => rows.push((entry, us, " ")),
            Fate::Over(us) => rows.push((entry, us, ">")),
            Fate::Hopeless | Fate::TooMany => {}
        }
    }
    rows.sort_by(|a, b| a.1.total_cmp(&b.1));
    let width = rows.iter().map(|row| row.0.how.title().len()).max().unwrap_or(0);
    let mut text = format!("# {}\n", target::describe(call)?);
    for (Entry { how, predicted_us, is_picked, .. }, us, sign) in rows {
        let (name, How { lanes, chunk_bytes, .. }) = (how.title(), how);
        let mark = if *is_picked { '*' } else { ' ' };
        let chunk = show_bytes(u64::from(*chunk_bytes));
        text += &format!(
            "{mark} {:>12} {name:width$}  {lanes:>2}  {chunk:>9}  predicted {predicted_us:>14.3}  virtual \
             {sign}{us:>14.3}  {:.3}\n",
            call.bytes(),
            predicted_us / us
        );
    }
    Ok(text)
}

/// How a pick stands.
struct Verdict {
    pick: String,
    best: String,
    /// The pick's time over the best's; none if the pick has too many messages.
    ratio: Option<f64>,
    /// The least and the greatest prediction over its simulation.
    errors: [f64; 2],
    simulated: usize,
    hopeless: usize,
    too_many: usize,
}

impl Verdict {
    fn of(entries: &[Entry]) -> Self {
        let took = |entry: &Entry| match entry.fate {
            Fate::Took(us) => Some(us),
            _ => None,
        };
        let name = |entry: &Entry| {
            let How { lanes, chunk_bytes, .. } = &entry.how;
            format!("{} {lanes} x {}", entry.how.title(), show_bytes(u64::from(*chunk_bytes)))
        };
        let finished: Vec<(&Entry, f64)> =
            entries.iter().filter_map(|entry| Some((entry, took(entry)?))).collect();
        let best = finished.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
        let count = |what| entries.iter().filter(|entry| entry.fate == what).count();
        let errors = finished.iter().map(|(entry, us)| entry.predicted_us / us);
        let errors = errors.fold([f64::INFINITY, 0.0], |all, one| [all[0].min(one), all[1].max(one)]);
        let (hopeless, too_many) = (count(Fate::Hopeless), count(Fate::TooMany));
        Verdict {
            pick: name(&entries[0]),
            best: best.map_or_else(String::new, |best| name(best.0)),
            ratio: best.and_then(|best| Some(took(&entries[0])? / best.1)),
            errors,
            simulated: entries.len() - hopeless - too_many,
            hopeless,
            too_many,
        }
    }

    fn is_good(&self) -> bool {
        self.ratio.is_some_and(|ratio| ratio <= NEAR)
    }

    fn told(&self) -> String {
        let Verdict { pick, best, ratio, errors: [least, most], simulated, hopeless, too_many } = self;
        let place = match ratio {
            Some(ratio) => {
                let mark = if self.is_good() { "" } else { " LOST" };
                format!("takes {ratio:.3} times as long as the best, {best}{mark}")
            }
            None => "has too many messages to be simulated".to_owned(),
        };
        format!(
            "# the pick, {pick}, {place}; {simulated} simulated, predicted at {least:.3} to {most:.3} times their time; \
             {hopeless} hopeless, {too_many} with too many messages\n"
        )
    }
}

fn summary(verdicts: &[Verdict]) -> String {
    let good = verdicts.iter().filter(|verdict| verdict.is_good()).count();
    let worst = verdicts.iter().filter_map(|verdict| verdict.ratio).fold(0.0, f64::max);
    let unknown = verdicts.iter().filter(|verdict| verdict.ratio.is_none()).count();
    format!(
        "# picks within {NEAR} of the best: {good} of {}; the worst at {worst:.3}; not simulated: {unknown}\n",
        verdicts.len()
    )
}
