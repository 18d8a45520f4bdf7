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
    let planner = target::planner(&given, ranks, fabric.map(|fabric| (fabric, args.fabric.fidelity())))?;
    let (candidates, engines) = (target::candidates(&planner, &call)?, planner.engines());
    let place = match is_virtual {
        true => args.fabric.name().to_owned(),
        false => target::configuration(&given)?.transport,
    };
    let head = format!("# {}, {place}, ranks stand {}\n", target::describe(&call)?, planner.layout());
    print(out, &head)?;
    print(out, &table(&candidates, &engines))?;
    print(out, &verdict(&candidates, &engines))
}

/// The algorithm, and the engine where there are several.
fn title(candidate: &Candidate, engines: &[String]) -> String {
    target::how(candidate.algorithm.descriptor().name, candidate.choice, engines).title()
}

fn table(candidates: &[Candidate], engines: &[String]) -> String {
    let able: Vec<(&Candidate, &Cost)> = able(candidates).collect();
    let shown = |place: usize, candidate: &Candidate| place < MOST_SHOWN || candidate.is_picked;
    let titles = able.iter().map(|(candidate, _)| title(candidate, engines).len());
    let width = titles.max().unwrap_or(0).max("algorithm".len());
    let mut text = format!(
        "# {:width$}  {:>5}  {:>8}  {:>12}  {:>12}  {:>12}  {:>12}  {:>12}\n",
        "algorithm", "lanes", "chunk", "predicted", "latency", "bandwidth", "reduction", "contention"
    );
    text += &format!(
        "# {:width$}  {:>5}  {:>8}  {:>12}  {:>12}  {:>12}  {:>12}  {:>12}\n",
        "", "", "", "(us)", "(us)", "(us)", "(us)", "(us)"
    );
    for (_, (candidate, cost)) in able.iter().enumerate().filter(|(place, row)| shown(*place, row.0)) {
        text += &row(candidate, cost, &format!("{:width$}", title(candidate, engines)));
    }
    if able.len() > MOST_SHOWN {
        text += &format!("# and {} more\n", able.len() - MOST_SHOWN);
    }
    for (refused, refusal) in refused(candidates, engines) {
        text += &format!("# not {refused}: {refusal}\n");
    }
    text
}

/// What can't do it, and why. An engine refuses whatever the algorithm, and is told once.
fn refused<'a>(candidates: &'a [Candidate], engines: &'a [String]) -> Vec<(&'a str, &'a str)> {
    let mut refused = Vec::new();
    for Candidate { algorithm, choice, cost, .. } in candidates {
        let Err(refusal) = cost else { continue };
        let engine = choice.engine.and_then(|place| engines.get(usize::from(place)));
        let told = (engine.map_or(algorithm.descriptor().name, String::as_str), refusal.message());
        if engine.is_none() || !refused.contains(&told) {
            refused.push(told);
        }
    }
    refused
}

/// What can do it, with what it costs.
fn able(candidates: &[Candidate]) -> impl Iterator<Item = (&Candidate, &Cost)> {
    candidates.iter().filter_map(|candidate| Some((candidate, candidate.cost.as_ref().ok()?)))
}

fn row(candidate: &Candidate, cost: &Cost, title: &str) -> String {
    let Candidate { choice, is_chunked, is_picked, .. } = candidate;
    let mark = if *is_picked { '*' } else { ' ' };
    let chunk = if *is_chunked { show_bytes(choice.chunk_bytes.into()) } else { "-".to_owned() };
    let mut text = format!("{mark} {title}  {:>5}  {chunk:>8}", choice.lanes);
    let Cost { latency_ps, bandwidth_ps, reduction_ps, contention_ps } = *cost;
    for ps in [cost.total_ps(), latency_ps, bandwidth_ps, reduction_ps, contention_ps] {
        text += &format!("  {:>12.3}", ps / 1e6);
    }
    text + "\n"
}

/// Why the pick is taken.
fn verdict(candidates: &[Candidate], engines: &[String]) -> String {
    let name = |candidate: &Candidate| title(candidate, engines);
    let Some((best, cost)) = able(candidates).find(|row| row.0.is_picked) else {
        return "# nothing can do it\n".to_owned();
    };
    let head = format!("# {} is taken", name(best));
    let Some((other, others)) = able(candidates).find(|row| name(row.0) != name(best)) else {
        return head + ": there is no other\n";
    };
    let ratio = others.total_ps() / cost.total_ps().max(f64::MIN_POSITIVE);
    let other = name(other);
    match ratio < 1.0 {
        true => format!("{head}: {other} is expected to be hardly faster, with more messages\n"),
        false => {
            let why = difference(cost, others);
            format!("{head}: {other}, the next, is expected to take {ratio:.2} times as long{why}\n")
        }
    }
}

/// Which part of the cost makes most of the difference.
fn difference(best: &Cost, other: &Cost) -> &'static str {
    let parts = [
        (other.latency_ps - best.latency_ps, ", for latency"),
        (other.bandwidth_ps - best.bandwidth_ps, ", for bandwidth"),
        (other.reduction_ps - best.reduction_ps, ", for reductions and copies"),
        (other.contention_ps - best.contention_ps, ", for what it shares with others"),
    ];
    let most = parts.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    most.filter(|part| part.0 > 0.0).map_or("", |part| part.1)
}
