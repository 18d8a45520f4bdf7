//! The tables of docs/algorithms.md are what the algorithms say.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use ubccl::{Choice, Collective, DataType, ReduceOp};
use ubccl_algorithms::composition::{Composition, families};
use ubccl_algorithms::index;
use ubccl_algorithms::reproducible::is_reproducible;
use ubccl_core::{Algorithm, Kind, Layout, Spec};

const RANKS: [u32; 3] = [8, 48, 384];
/// Bytes enough that shares of them show.
const COUNT: u64 = 1 << 40;

/// Kinds whose cost is told: those with tables cost what their longest blocks do, and messages between two ranks are one.
fn kinds() -> impl Iterator<Item = Kind> {
    Kind::TABLE.iter().filter(|row| !row.tabled && row.kind != Kind::SendReceive).map(|row| row.kind)
}

/// Each kind's name in a text, without tables and with.
fn kind_names(algorithm: &dyn Algorithm) -> String {
    let names = Kind::TABLE.iter().filter(|row| algorithm.supports(row.kind, 8).is_ok());
    names.map(|row| row.name.replace('_', "-")).collect::<Vec<_>>().join(", ")
}

fn spec(kind: Kind, ranks: u32) -> Spec {
    let call = Collective::all_reduce(COUNT, DataType::U8, ReduceOp::Sum);
    let row = kind.row();
    let (op, root) = (row.reduces.then_some(ReduceOp::Sum), row.rooted.then_some(0));
    Spec { kind, op, root, ..Spec::new(&call, ranks, 0, false, Choice::default()) }
}

/// Steps, and bytes of the busiest port as a multiple of the longest buffer's.
fn cost(algorithm: &dyn Algorithm, kind: Kind, layout: &Layout) -> Option<(u32, f64)> {
    let ranks = layout.ranks();
    algorithm.supports(kind, ranks).ok()?;
    let profile = algorithm.profile(&spec(kind, ranks), layout);
    Some((profile.steps(), profile.bytes(1.0)))
}

fn written(cost: Option<(u32, f64)>) -> String {
    match cost {
        None => "–".to_owned(),
        Some((steps, 0.0)) => steps.to_string(),
        Some((steps, bytes)) => format!("{steps} · {} n", short(bytes)),
    }
}

/// Four digits at most, and no zeros at the end.
fn short(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn head(columns: &[String]) -> String {
    format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()))
}

fn columns(first: &str, rest: impl IntoIterator<Item = String>) -> Vec<String> {
    std::iter::once(first.to_owned()).chain(rest).collect()
}

fn names() -> String {
    let mut text = head(&["name", "collectives", "what it does", "source"].map(str::to_owned));
    for algorithm in index() {
        let descriptor = algorithm.descriptor();
        let kinds = kind_names(*algorithm);
        writeln!(
            text,
            "| `{}` | {kinds} | {} | {} |",
            descriptor.name, descriptor.summary, descriptor.source
        )
        .expect("a string takes everything");
    }
    text
}

fn costs() -> String {
    let mut text = String::new();
    for kind in kinds() {
        let title = kind.name().replace('_', "-");
        write!(text, "### {}{}\n\n", title[..1].to_uppercase(), &title[1..])
            .expect("a string takes everything");
        text += &head(&columns("algorithm", RANKS.map(|ranks| format!("{ranks} ranks"))));
        for algorithm in index() {
            let costs = RANKS.map(|ranks| cost(*algorithm, kind, &Layout::flat(ranks)));
            if costs.iter().any(Option::is_some) {
                let costs = costs.map(written).join(" | ");
                writeln!(text, "| `{}` | {costs} |", algorithm.descriptor().name)
                    .expect("a string takes everything");
            }
        }
        text += "\n";
    }
    text
}

fn composed(text: &str, layout: &Arc<Layout>) -> Composition {
    Composition::parse(text, layout).expect("families and levels that there are")
}

fn family_table() -> String {
    let layout = Arc::new(Layout::parse("node=8", 384).expect("a layout"));
    let mut text = head(
        &["family", "inside nodes (of 8, mesh between 48)", "between nodes (mesh inside)"].map(str::to_owned),
    );
    for family in families() {
        let inner = kind_names_of(&composed(&format!("node:{family};all:mesh"), &layout));
        let outer = kind_names_of(&composed(&format!("node:mesh;all:{family}"), &layout));
        writeln!(text, "| `{family}` | {inner} | {outer} |").expect("a string takes everything");
    }
    text
}

fn kind_names_of(composition: &Composition) -> String {
    let rows = Kind::TABLE.iter().filter(|row| composition.supports(row.kind, 384).is_ok());
    rows.map(|row| row.name.replace('_', "-")).collect::<Vec<_>>().join(", ")
}

fn compositions() -> String {
    let layout = Arc::new(Layout::parse("node=8", 384).expect("a layout"));
    let least = 2.0 * 383.0 / 384.0;
    let mut text = head(&columns("inside \\ between", families().map(|family| format!("`{family}`"))));
    for inner in families() {
        let cell = |outer: &str| {
            let composition = composed(&format!("node:{inner};all:{outer}"), &layout);
            match cost(&composition, Kind::AllReduce, &layout) {
                Some((steps, bytes)) if (bytes - least).abs() < 1e-6 => steps.to_string(),
                other => written(other),
            }
        };
        let cells: Vec<String> = families().map(cell).collect();
        writeln!(text, "| `{inner}` | {} |", cells.join(" | ")).expect("a string takes everything");
    }
    text
}

/// The fewest steps and the least bytes of any algorithm.
fn best(kind: Kind, ranks: u32) -> String {
    let layout = Layout::flat(ranks);
    let costs: Vec<_> = index().iter().filter_map(|algorithm| cost(*algorithm, kind, &layout)).collect();
    let steps = costs.iter().map(|cost| cost.0).min().expect("every kind has an algorithm");
    let bytes = costs.iter().map(|cost| cost.1).fold(f64::INFINITY, f64::min);
    format!("{steps} {}; {} n", if steps == 1 { "step" } else { "steps" }, short(bytes))
}

fn reproducible() -> String {
    let mut text = head(&columns("collective, algorithm", RANKS.map(|ranks| format!("{ranks} ranks"))));
    for kind in kinds().filter(|kind| kind.row().reduces) {
        let title = kind.name().replace('_', "-");
        let bests = RANKS.map(|ranks| best(kind, ranks)).join(" | ");
        writeln!(text, "| **{title}**, the best of all | {bests} |").expect("a string takes everything");
        for algorithm in index() {
            let promised = |ranks: u32| {
                algorithm.supports(kind, ranks).is_ok() && is_reproducible(*algorithm, &spec(kind, ranks))
            };
            if RANKS.into_iter().any(promised) {
                let costs = RANKS.map(|ranks| {
                    written(if promised(ranks) { cost(*algorithm, kind, &Layout::flat(ranks)) } else { None })
                });
                writeln!(text, "| {title}, `{}` | {} |", algorithm.descriptor().name, costs.join(" | "))
                    .expect("a string takes everything");
            }
        }
    }
    text
}

/// Puts every table between its marks.
fn filled(page: &str, tables: &BTreeMap<&str, String>) -> String {
    let mut page = page.to_owned();
    for (name, table) in tables {
        let mark = format!("<!-- generated: {name} -->\n");
        let start =
            page.find(&mark).unwrap_or_else(|| panic!("the page has no place for {name}")) + mark.len();
        let end = start + page[start..].find("<!-- end -->").expect("a generated part has an end");
        page.replace_range(start..end, &format!("\n{}\n\n", table.trim_end()));
    }
    page
}

/// Run with `UBCCL_WRITE_DOCS=1` to write them.
#[test]
fn the_chapters_tables_are_what_the_algorithms_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/algorithms.md");
    let tables = BTreeMap::from([
        ("names", names()),
        ("costs", costs()),
        ("families", family_table()),
        ("compositions", compositions()),
        ("reproducible", reproducible()),
    ]);
    let committed = std::fs::read_to_string(&path).expect("docs/algorithms.md is there");
    let generated = filled(&committed, &tables);
    if std::env::var_os("UBCCL_WRITE_DOCS").is_some() {
        std::fs::write(&path, &generated).expect("the page can be written");
        return;
    }
    assert!(
        committed == generated,
        "docs/algorithms.md is stale: UBCCL_WRITE_DOCS=1 cargo test -p ubccl --test chapter"
    );
}

/// What the page's text names, outside its tables, exists.
#[test]
fn the_chapter_names_only_families_that_there_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/algorithms.md");
    let page = std::fs::read_to_string(path).expect("docs/algorithms.md is there");
    let mut named = 0;
    for line in page.lines().filter(|line| line.starts_with("--algo \"")) {
        let text = line.split('"').nth(1).expect("it is quoted");
        for item in text.split(';') {
            let (_, family) = item.split_once(':').expect("LEVEL:FAMILY");
            assert!(families().any(|known| known == family), "{line}");
            named += 1;
        }
    }
    for line in page.lines().filter_map(|line| line.strip_prefix("UBCCL_LAYOUT=\"")) {
        let text = line.split('"').next().expect("it is quoted");
        Layout::parse(text, 16).unwrap_or_else(|error| panic!("{line}: {error}"));
        named += 1;
    }
    assert!(named >= 8, "only {named} are named");
}
