//! `ubccl explain`: what a collective may be done with, what each way is expected to cost, and which is chosen.

use crate::args::ExplainArgs;
use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::report::print;
use crate::target::{self, Candidate, Cost, settings};
use crate::units::show_bytes;
use std::io::Write;

/// Candidates that are shown; the rest are counted.
const MOST_SHOWN: usize = 40;

/// Prints the candidates, the best first, and why it is the best.
pub(crate) fn run(args: &ExplainArgs, out: &mut dyn Write) -> Outcome<()> {
    let ExplainArgs { collective: kind, ranks, datatype: dtype, op, root, .. } = *args;
    if root >= ranks {
        return Err(Failure::new(format!("--root {root} is not a rank; ranks are 0 to {}", ranks - 1)));
    }
    let call = Call { kind, count: 0, dtype, op, root, ranks }.sized(args.bytes);
    let mut given = args.how.settings();
    given.extend(args.transport.clone().map(|name| (settings::TRANSPORT.name.to_owned(), name)));
    let is_virtual = match &args.transport {
        Some(name) => target::find_transport(name).map_err(Failure::new)?.1,
        None => args.fabric.is_given(),
    };
    let fabric = is_virtual.then(|| args.fabric.specification()).transpose().map_err(Failure::new)?;
    let planner = target::planner(&given, ranks, fabric)?;
    let candidates = target::candidates(&planner, &call)?;
    let place = match is_virtual {
        true => args.fabric.name().to_owned(),
        false => target::configuration(&given)?.transport,
    };
    let head = format!("# {}, {place}, ranks stand {}\n", target::describe(&call)?, planner.layout());
    print(out, &head)?;
    print(out, &table(&candidates))?;
    print(out, &verdict(&candidates))
}

fn table(candidates: &[Candidate]) -> String {
    let able: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.refusal.is_none()).collect();
    let names = able.iter().take(MOST_SHOWN).map(|candidate| candidate.algorithm.descriptor().name);
    let width = names.map(str::len).max().unwrap_or(0).max("algorithm".len());
    let mut text = format!(
        "# {:width$}  {:>5}  {:>8}  {:>12}  {:>12}  {:>12}  {:>12}  {:>12}\n",
        "algorithm", "lanes", "chunk", "predicted", "latency", "bandwidth", "reduction", "contention"
    );
    text += &format!(
        "# {:width$}  {:>5}  {:>8}  {:>12}  {:>12}  {:>12}  {:>12}  {:>12}\n",
        "", "", "", "(us)", "(us)", "(us)", "(us)", "(us)"
    );
    for (place, candidate) in able.iter().take(MOST_SHOWN).enumerate() {
        text += &row(candidate, width, place == 0);
    }
    if able.len() > MOST_SHOWN {
        text += &format!("# and {} more\n", able.len() - MOST_SHOWN);
    }
    for candidate in candidates {
        if let Some(refusal) = &candidate.refusal {
            text += &format!("# not {}: {refusal}\n", candidate.algorithm.descriptor().name);
        }
    }
    text
}

fn row(candidate: &Candidate, width: usize, is_chosen: bool) -> String {
    let Candidate { algorithm, choice, cost, is_chunked, .. } = candidate;
    let mark = if is_chosen { '*' } else { ' ' };
    let chunk = if *is_chunked { show_bytes(choice.chunk_bytes.into()) } else { "-".to_owned() };
    let mut text =
        format!("{mark} {:width$}  {:>5}  {chunk:>8}", algorithm.descriptor().name, choice.lanes);
    let Cost { latency, bandwidth, reduction, contention } = *cost;
    for seconds in [cost.total(), latency, bandwidth, reduction, contention] {
        text += &format!("  {:>12.3}", seconds * 1e6);
    }
    text + "\n"
}

/// Why the first is taken.
fn verdict(candidates: &[Candidate]) -> String {
    let mut able = candidates.iter().filter(|candidate| candidate.refusal.is_none());
    let Some(best) = able.next() else { return "# nothing can do it\n".to_owned() };
    let name = best.algorithm.descriptor().name;
    let other = able.find(|other| !std::ptr::eq(other.algorithm.descriptor(), best.algorithm.descriptor()));
    match other {
        None => format!("# {name} is taken: there is no other\n"),
        Some(other) => {
            let ratio = other.cost.total() / best.cost.total().max(f64::MIN_POSITIVE);
            let other_name = other.algorithm.descriptor().name;
            let why = difference(&best.cost, &other.cost);
            format!("# {name} is taken: {other_name}, the next, is expected to take {ratio:.2} times as long{why}\n")
        }
    }
}

/// Which part of the cost makes most of the difference.
fn difference(best: &Cost, other: &Cost) -> &'static str {
    let parts = [
        (other.latency - best.latency, ", for latency"),
        (other.bandwidth - best.bandwidth, ", for bandwidth"),
        (other.reduction - best.reduction, ", for reductions and copies"),
        (other.contention - best.contention, ", for what it shares with others"),
    ];
    let most = parts.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    most.filter(|part| part.0 > 0.0).map_or("", |part| part.1)
}
