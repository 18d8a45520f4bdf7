//! Markdown tables of verdicts.

use super::OPERATIONS;
use super::contestants::{FLOAT32, MOVE_ONLY, Memory};
use super::runs::Record;
use super::verdict::{LEAST_ROUNDS, Place, Point, Ratio, Setting, Spread, Times, Verdict};
use crate::units::show_bytes;
use std::fmt::Write;

/// A lower bound above this is a point that is lost for sure.
const LOST: f64 = 1.1;
/// Our two programs differ by more than this share: run again.
const UNEASY: f64 = 0.1;
/// So many rounds of both make a comparison.
const ROUNDS: usize = 9;
/// Calls to this size are a few cache lines' ways.
const TINY_BYTES: u64 = 8;

/// All tables, each setting's summary behind them, and what went wrong.
pub(super) fn of(records: &[Record]) -> String {
    let times = Times::of(records);
    let mut settings: Vec<&Setting> = times.points().map(|point| &point.setting).collect();
    settings.sort();
    settings.dedup();
    let mut text = String::new();
    for setting in settings {
        for &place in setting.places() {
            text += &tables(&times, setting, place);
        }
    }
    text += &format!(
        "Ratios are ubccl's median over rounds over the best peer's, under 1 where ubccl is faster; the best peer is the \
         one with the least median over all rounds, near and far. Intervals are of a bootstrap over rounds ({LEAST_ROUNDS} \
         of both at least) and hold 90 % of its samples; a lower bound has a tenth of them below it. A/A is a second run of \
         ubccl over the first. Rounds are dropped where the CPUs stood elsewhere before or after, and for nothing else.\n"
    );
    text + &faults(records)
}

fn tables(times: &Times, setting: &Setting, place: Place) -> String {
    let mut text = String::new();
    let mut verdicts = Vec::new();
    let here = |op: &str| -> Vec<Verdict> {
        let points = times.points().filter(|point| point.setting == *setting && option(point) == op);
        points.map(|point| times.verdict(point, place)).collect()
    };
    for op in OPERATIONS {
        let rows = here(op);
        if rows.iter().all(|row| row.ours_us.is_none()) {
            continue;
        }
        // Writing to a String does not fail.
        let _ = writeln!(text, "#### {}: {}, {place}\n", title(op), name(setting));
        if setting.dtype != FLOAT32 && MOVE_ONLY.contains(&op) {
            text += "The peers move float32: of what only moves, bytes count and not types.\n\n";
        }
        let theirs = if setting.memory == Memory::Ordinary { "best peer" } else { "floor" };
        let _ = writeln!(
            text,
            "| size | ubccl p50 µs | {theirs} p50 µs | {theirs} | ubccl / {theirs} (90 % interval) | A/A (90 % interval) | \
             rounds, ours / theirs |\n|---:|---:|---:|---|---|---|---|"
        );
        text.extend(rows.iter().map(row));
        text.push('\n');
        verdicts.extend(rows);
    }
    if verdicts.is_empty() { text } else { text + &summary(setting, place, &verdicts) }
}

/// How the programs call what was measured at a point.
fn option(point: &Point) -> String {
    if point.op == "allreduce" && point.in_place { format!("{}_inplace", point.op) } else { point.op.clone() }
}

fn title(op: &str) -> &'static str {
    match op {
        "allreduce" => "All-reduce, out of place",
        "allreduce_inplace" => "All-reduce, in place",
        "allgather" => "All-gather",
        "reduce_scatter" => "Reduce-scatter",
        "broadcast" => "Broadcast",
        "alltoall" => "All-to-all",
        "barrier" => "Barrier",
        _ => "Ping-pong, one way",
    }
}

fn name(setting: &Setting) -> String {
    let Setting { transport, ranks, dtype, memory } = setting;
    let memory = match memory {
        Memory::Ordinary => "",
        Memory::Registered => ", registered memory",
        Memory::Rewritten => ", registered memory that each rank rewrites before each call (not timed)",
    };
    format!("{transport}, {ranks} ranks, {dtype}{memory}")
}

fn row(verdict: &Verdict) -> String {
    let time = |us: Option<f64>| us.map_or_else(|| "–".to_owned(), show_us);
    let best = verdict.best.as_ref().map_or_else(
        || "–".to_owned(),
        |(peer, note)| match note.as_str() {
            "default" | "" => peer.clone(),
            note => format!("{peer} ({note})"),
        },
    );
    let [ours, theirs] = verdict.rounds;
    let dropped = match verdict.dropped {
        [0, 0] => String::new(),
        [ours, theirs] => format!(", dropped {ours} / {theirs}"),
    };
    format!(
        "| {} | {} | {} | {best} | {} | {} | {ours} / {theirs}{dropped} |\n",
        show_bytes(verdict.point.bytes),
        time(verdict.ours_us),
        time(verdict.theirs_us),
        show_ratio(verdict.ratio),
        show_ratio(verdict.chance)
    )
}

fn show_ratio(ratio: Option<Ratio>) -> String {
    let Some(Ratio { median, spread }) = ratio else { return "–".to_owned() };
    match spread {
        None => format!("{median:.2}"),
        Some(Spread { interval: [least, most], .. }) => format!("{median:.2} ({least:.2}–{most:.2})"),
    }
}

fn show_us(us: f64) -> String {
    match us {
        _ if us < 10.0 => format!("{us:.2}"),
        _ if us < 100.0 => format!("{us:.1}"),
        _ => format!("{us:.0}"),
    }
}

/// How a setting stands as a whole.
fn summary(setting: &Setting, place: Place, verdicts: &[Verdict]) -> String {
    let told: Vec<(&Verdict, f64, f64)> = verdicts
        .iter()
        .filter_map(|verdict| {
            verdict.ratio.and_then(|ratio| Some((verdict, ratio.median, ratio.spread?.low)))
        })
        .collect();
    let mut text = format!("**{}, {place}:** ", name(setting));
    if told.is_empty() {
        return text + "no point has rounds enough of ours and of theirs.\n\n";
    }
    let count = told.len();
    let mean = (told.iter().map(|(_, ratio, _)| ratio.ln()).sum::<f64>() / count as f64).exp();
    let share =
        |number: usize| format!("{number} of {count} ({:.0} %)", 100.0 * number as f64 / count as f64);
    let won = told.iter().filter(|(_, ratio, _)| *ratio <= 1.0).count();
    let lost: Vec<_> = told.iter().filter(|(_, _, low)| *low > LOST).map(|(v, _, low)| (*v, *low)).collect();
    let chances = verdicts.iter().filter_map(|verdict| Some((verdict, verdict.chance?)));
    let uneasy = chances.clone().filter(|(_, chance)| chance.is_beyond(UNEASY));
    let uneasy: Vec<_> = uneasy.map(|(verdict, chance)| (verdict, chance.median)).collect();
    let wide = chances.filter(|(_, chance)| chance.reaches_beyond(UNEASY)).count();
    let few =
        told.iter().filter(|(verdict, _, _)| verdict.rounds.iter().any(|&rounds| rounds < ROUNDS)).count();
    // Writing to a String does not fail.
    let _ = write!(text, "geometric mean {mean:.2}");
    if setting.memory == Memory::Ordinary {
        let _ = write!(
            text,
            "; {} at 1.00 or less by median; {} at {LOST:.2} or less by the lower bound; above it: {}",
            share(won),
            share(count - lost.len()),
            list(&lost)
        );
    }
    let _ = write!(
        text,
        ". A/A beyond ± {percent:.0} % by median: {}; by its interval: {wide}.",
        list(&uneasy),
        percent = 100.0 * UNEASY,
    );
    let tiny = verdicts.iter().filter(|verdict| (1..=TINY_BYTES).contains(&verdict.point.bytes));
    for (verdict, lines) in tiny.filter_map(|verdict| Some((verdict, verdict.lines?))) {
        if place != Place::Anywhere && verdict.point.op == "allreduce" {
            let _ = write!(text, " {} takes {lines:.1} ways of a cache line.", label(&verdict.point));
        }
    }
    if few > 0 {
        let _ = write!(
            text,
            " {few} points have fewer than {ROUNDS} rounds of both: run again with the same --json."
        );
    }
    text + "\n\n"
}

fn label(point: &Point) -> String {
    format!("{} {}", option(point), show_bytes(point.bytes))
}

/// Each with its number.
fn list(points: &[(&Verdict, f64)]) -> String {
    let named: Vec<String> =
        points.iter().map(|(verdict, value)| format!("{} {value:.2}", label(&verdict.point))).collect();
    if named.is_empty() { "none".to_owned() } else { named.join(", ") }
}

fn faults(records: &[Record]) -> String {
    let fault = |record: &Record| {
        let Record { peer, note, transport, ranks, rep, op, bytes, .. } = record;
        let what = match &record.error {
            Some(error) => error.clone(),
            None => format!("{op} of {bytes} bytes: WRONG RESULT"),
        };
        format!("- {peer} ({note}) over {transport}, {ranks} ranks, round {rep}: {what}\n")
    };
    records.iter().filter(|record| record.error.is_some() || record.is_wrong()).map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::verdict::tests::records;

    #[test]
    fn a_table_says_who_is_faster_how_sure_that_is_and_what_was_dropped() {
        let mut all = records("ubccl", "default", &[(57.0, 0.5), (57.0, 0.5), (57.0, 0.5), (245.0, 3.0)]);
        all.extend(records("ubccl", "again", &[(57.0, 0.6); 3]));
        all.extend(records("openmpi", "coll_sm", &[(57.0, 0.25); 3]));
        all.extend(records("mpich", "default", &[(57.0, 25.0); 3]));
        let text = of(&all);
        let head = "#### All-reduce, out of place: shm, 1 ranks, float32, CPUs near each other";
        assert!(text.starts_with(head), "{text}");
        let row = "| 8 B | 0.50 | 0.25 | openmpi (coll_sm) | 2.00 (2.00–2.00) | 1.20 (1.20–1.20) | 3 / 3, dropped 1 / 0 |\n";
        assert!(text.contains(row), "{text}");
        let summary = "geometric mean 2.00; 0 of 1 (0 %) at 1.00 or less by median; 0 of 1 (0 %) at 1.10 or less by the \
                       lower bound; above it: allreduce 8 B 2.00. A/A beyond ± 10 % by median: allreduce 8 B 1.20; by \
                       its interval: 1. allreduce 8 B takes 8.8 ways of a cache line. 1 points have fewer than 9 rounds \
                       of both: run again";
        assert!(text.contains(summary), "{text}");
        let far = text.find("far from each other").unwrap();
        assert!(text[far..].contains("| 8 B | 3.00 | – |"), "far with far stands apart: {text}");
    }

    #[test]
    fn failures_and_wrong_results_are_told() {
        let mut all = records("ubccl", "default", &[(57.0, 0.5); 2]);
        all[0].ok = Some(0);
        all[1].error = Some("took too long".to_owned());
        let text = of(&all);
        assert!(text.contains("round 1: allreduce of 8 bytes: WRONG RESULT\n"), "{text}");
        assert!(text.contains("round 2: took too long\n"), "{text}");
    }
}
