//! `ubccl topo`: which fabrics there are, what one can do, and where its numbers come from.

mod provenance;

use crate::args::{TopoArgs, TopoCommand};
use crate::failure::{Failure, Outcome};
use crate::report::print;
use crate::target::{self, Fabric, FabricLevel};
use crate::units::{show_bytes, show_bytes_per_second, show_picoseconds};
use provenance::{Number, numbers};
use std::io::Write;

/// Sizes whose times alone are shown.
const SIZES: [u64; 3] = [8, 512, 1 << 20];

/// Runs `ubccl topo`.
pub(crate) fn run(args: &TopoArgs, out: &mut dyn Write) -> Outcome<()> {
    match &args.command {
        TopoCommand::List => list(out),
        TopoCommand::Show { fabric, toml } => {
            let specification = fabric.specification().map_err(Failure::new)?;
            match toml {
                true => print(out, text_of(&specification).ok_or_else(|| no_text(fabric.name()))?),
                false => show(&specification, out),
            }
        }
    }
}

fn no_text(name: &str) -> Failure {
    Failure::new(format!("{name} is no description in TOML; `ubccl topo list` names those that are"))
}

/// A line for each preset.
fn list(out: &mut dyn Write) -> Outcome<()> {
    let presets = target::fabric_presets();
    let width = presets.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, _) in presets {
        print(out, &format!("{name:width$}  {}\n", Fabric::parse(name)?.topology()))?;
    }
    print(
        out,
        "\n`ubccl topo show --fabric NAME` shows one, with --toml its description, to be copied and changed.\n",
    )
}

/// The description of a preset (whatever engines were named), or the text itself.
fn text_of(specification: &str) -> Option<&str> {
    let name = specification.split('+').next().unwrap_or_default();
    let preset = target::fabric_presets().iter().find(|preset| preset.0 == name);
    preset.map(|preset| preset.1).or_else(|| specification.contains('\n').then_some(specification))
}

fn show(specification: &str, out: &mut dyn Write) -> Outcome<()> {
    let fabric = Fabric::parse(specification)?;
    print(out, &format!("{}\n\n", fabric.describe()))?;
    let levels = fabric.levels();
    print(out, &table(&capacities(&levels)))?;
    print(
        out,
        "\nmessage: the most that one message gets; port: one rank's port, each way; out: all that leaves one group;\n\
         bisection: what passes between the halves of one group. Each way, no more than ports and links allow.\n\n",
    )?;
    print(out, &table(&latencies(&levels)))?;
    print(
        out,
        "\nOne message with nothing else under way: overheads of both ranks, latency, and its bytes.\n",
    )?;
    let Some(text) = text_of(specification) else { return Ok(()) };
    print(out, "\nEvery number of the description, and what it says of where it comes from:\n\n")?;
    print(out, &table(&sources(&numbers(text))))
}

/// What levels can do.
fn capacities(levels: &[FabricLevel]) -> Vec<Vec<String>> {
    let head = ["level", "is", "how many", "ranks each", "message", "port", "out", "bisection"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for level in levels {
        let out = level.out_bytes_per_s.map_or("-".to_owned(), show_bytes_per_second);
        rows.push(vec![
            level.name.clone(),
            format!("{} × {}", level.holds.0, level.holds.1),
            level.groups.to_string(),
            level.group_ranks.to_string(),
            show_bytes_per_second(level.link.rate_bytes_per_s),
            show_bytes_per_second(level.link.port_rate_bytes_per_s()),
            out,
            show_bytes_per_second(level.bisection_bytes_per_s),
        ]);
    }
    rows
}

/// What lone messages take, by class of pairs.
fn latencies(levels: &[FabricLevel]) -> Vec<Vec<String>> {
    let mut head =
        vec!["pair of ranks".to_owned(), "latency".to_owned(), "overheads".to_owned(), "gap".to_owned()];
    head.extend(SIZES.map(show_bytes));
    let mut rows = vec![head];
    let mut lower = "itself".to_owned();
    for level in levels {
        let link = &level.link;
        let mut row = vec![
            format!("one {}, not one {lower}", level.name),
            show_picoseconds(link.latency_ps),
            show_picoseconds(link.send_overhead_ps + link.receive_overhead_ps),
            show_picoseconds(link.gap_ps),
        ];
        row.extend(SIZES.map(|bytes| show_picoseconds(level.lone_ps(bytes))));
        rows.push(row);
        lower.clone_from(&level.name);
    }
    if let Some(first) = rows.get_mut(1) {
        first[0] = format!("one {}", levels[0].name);
    }
    if let Some(around_ps) = levels.first().filter(|level| level.ring.is_some()).map(FabricLevel::around_ps) {
        let (level, far) = (&levels[0], format!("one {}, half way round", levels[0].name));
        rows[1][0] = format!("one {}, neighbours", level.name);
        let mut row = rows[1].clone();
        (row[0], row[1]) = (far, show_picoseconds(level.link.latency_ps + around_ps));
        row.truncate(4);
        row.extend(SIZES.map(|bytes| show_picoseconds(level.lone_ps(bytes) + around_ps)));
        rows.insert(2, row);
    }
    rows
}

fn sources(numbers: &[Number]) -> Vec<Vec<String>> {
    let row = |number: &Number| vec![number.key.clone(), number.value.clone(), number.source.clone()];
    let head = ["number", "value", "where from"].map(str::to_owned).to_vec();
    std::iter::once(head).chain(numbers.iter().map(row)).collect()
}

/// Columns as wide as they need to be, the first row underlined.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
    let mut text = String::new();
    for (k, row) in rows.iter().enumerate() {
        text += &line(row);
        if k == 0 {
            text += &line(&rule);
        }
    }
    text
}
