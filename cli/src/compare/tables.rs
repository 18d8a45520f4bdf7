//! Markdown tables of verdicts.

use super::OPERATIONS;
use super::runs::Record;
use super::verdict::{LEAST_ROUNDS, Place, Point, Setting, Times, Verdict};
use crate::units::show_bytes;
use std::fmt::Write;

/// A lower bound above this is a point that is lost for sure.
const LOST: f64 = 1.1;
/// Our two programs differ by more than this share: run again.
const UNEASY: f64 = 0.1;

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
        "A ratio under 1 means that ubccl is faster; the best peer is by median over all rounds; the bounds are those of \
         a bootstrap over rounds, each with a tenth of the samples outside; A/A is our program against itself; bounds need {LEAST_ROUNDS} rounds of both.\n"
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
        let Setting { transport, ranks, dtype } = setting;
        // Writing to a String does not fail.
        let _ = writeln!(text, "#### {}: {transport}, {ranks} ranks, {dtype}, {place}\n", title(op));
        if dtype != "float32" {
            text +=
                "No peer's program has this type. What only moves is compared with theirs of float32.\n\n";
        }
        text += "| size | ubccl p50 µs | best peer p50 µs | best peer | ubccl / peer (90 % bounds) | A/A | rounds, ours / theirs |\n\
                 |---:|---:|---:|---|---|---|---|\n";
        text.extend(rows.iter().map(row));
        text.push('\n');
        verdicts.extend(rows);
    }
    text + &summary(setting, place, &verdicts)
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

fn row(verdict: &Verdict) -> String {
    let time = |us: Option<f64>| us.map_or_else(|| "–".to_owned(), show_us);
    let best = verdict.best.as_ref().map_or_else(
        || "–".to_owned(),
        |(peer, note)| match note.as_str() {
            "default" | "" => peer.clone(),
            note => format!("{peer} ({note})"),
        },
    );
    let ratio = match (verdict.ratio, verdict.bounds) {
        (None, _) => "–".to_owned(),
        (Some(ratio), None) => format!("{ratio:.2}"),
        (Some(ratio), Some([low, high])) => format!("{ratio:.2} ({low:.2}–{high:.2})"),
    };
    let chance = verdict.chance.map_or_else(|| "–".to_owned(), |chance| format!("{chance:.2}"));
    let [ours, theirs] = verdict.rounds;
    let dropped = if verdict.dropped > 0 { format!(", {} dropped", verdict.dropped) } else { String::new() };
    format!(
        "| {} | {} | {} | {best} | {ratio} | {chance} | {ours} / {theirs}{dropped} |\n",
        show_bytes(verdict.point.bytes),
        time(verdict.ours_us),
        time(verdict.theirs_us)
    )
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
    let Setting { transport, ranks, dtype } = setting;
    let told: Vec<(&Verdict, f64, f64)> =
        verdicts.iter().filter_map(|verdict| Some((verdict, verdict.ratio?, verdict.bounds?[0]))).collect();
    let mut text = format!("**{transport}, {ranks} ranks, {dtype}, {place}:** ");
    if told.is_empty() {
        return text + "no point has rounds enough of ours and of a peer.\n\n";
    }
    let count = told.len() as f64;
    let mean = (told.iter().map(|(_, ratio, _)| ratio.ln()).sum::<f64>() / count).exp();
    let won = told.iter().filter(|(_, ratio, _)| *ratio <= 1.0).count();
    let lost = told.iter().filter(|(_, _, low)| *low > LOST).map(|(verdict, _, low)| (&verdict.point, *low));
    let uneasy = verdicts.iter().filter_map(|verdict| Some((&verdict.point, verdict.chance?)));
    let uneasy = uneasy.filter(|(_, chance)| (chance - 1.0).abs() > UNEASY);
    let _ = write!(
        text,
        "{} points, geometric mean {mean:.2}, {won} of them ({:.0} %) at 1.00 or less; lower bound above {LOST:.2} at \
         {}; A/A beyond ± {:.0} % at {}.\n\n",
        told.len(),
        100.0 * won as f64 / count,
        list(lost),
        100.0 * UNEASY,
        list(uneasy)
    );
    text
}

/// How many, and each with its number.
fn list<'a>(points: impl Iterator<Item = (&'a Point, f64)>) -> String {
    let named: Vec<String> = points
        .map(|(point, value)| format!("{} {} {value:.2}", option(point), show_bytes(point.bytes)))
        .collect();
    if named.is_empty() { "0".to_owned() } else { format!("{}: {}", named.len(), named.join(", ")) }
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
        let row = "| 8 B | 0.50 | 0.25 | openmpi (coll_sm) | 2.00 (2.00–2.00) | 1.20 | 3 / 3, 1 dropped |\n";
        assert!(text.contains(row), "{text}");
        let summary = "1 points, geometric mean 2.00, 0 of them (0 %) at 1.00 or less; lower bound above 1.10 at 1: \
                       allreduce 8 B 2.00; A/A beyond ± 10 % at 1: allreduce 8 B 1.20.";
        assert!(text.contains(summary), "{text}");
        let far = text.find("far from each other").unwrap();
        assert!(text[far..].contains("| 8 B | 3.00 | – |"), "far with far stands apart: {text}");
    }

    #[test]
    fn failures_and_wrong_results_are_told() {
        let mut all = records("ubccl", "default", &[(57.0, 0.5); 2]);
        all[0].ok = 0;
        all[1].error = Some("took too long".to_owned());
        let text = of(&all);
        assert!(text.contains("round 1: allreduce of 8 bytes: WRONG RESULT\n"), "{text}");
        assert!(text.contains("round 2: took too long\n"), "{text}");
    }
}
