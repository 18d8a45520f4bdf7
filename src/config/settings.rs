//! The table of everything that can be set.

use super::setting::{Agreement, Domain, Place, Setting, TimeUnit};
use crate::logging::{Level, Subsystems};
use std::time::Duration;
use ubccl_core::{Error, Result};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The configuration file.
pub static CONFIG: Setting = Setting {
    name: "config",
    variable: "UBCCL_CONFIG",
    doc: "the configuration file, TOML; there is none unless this names it, and a named one must exist",
    absent: "none",
    agreement: Agreement::Own,
    place: Place::Launcher,
    is_secret: false,
    domain: Domain::Text {
        form: "a path",
        get: |config| config.origins.file.as_ref().map(|path| path.display().to_string()),
        set: |config, text| {
            config.origins.file = Some(text.into());
            Ok(())
        },
    },
};

/// Where the ranks meet.
pub static RENDEZVOUS: Setting = Setting {
    name: "rendezvous",
    variable: "UBCCL_RENDEZVOUS",
    doc: "where the ranks meet (SECRET: 32 hexadecimal digits); whoever knows it can join, so it is never shown",
    absent: "none",
    agreement: Agreement::Own,
    place: Place::Launcher,
    is_secret: true,
    domain: Domain::Text {
        form: "ubccl:1:ADDRESS:PORT:SECRET",
        get: |config| config.rendezvous.as_ref().map(|place| format!("ubccl:1:{}:(secret)", place.address())),
        set: |config, text| {
            config.rendezvous = Some(text.parse()?);
            Ok(())
        },
    },
};

/// This rank.
pub static RANK: Setting = Setting {
    name: "rank",
    variable: "UBCCL_RANK",
    doc: "this process's rank, from 0",
    absent: "",
    agreement: Agreement::Own,
    place: Place::Launcher,
    is_secret: false,
    domain: Domain::Number {
        least: 0,
        most: MOST_RANKS - 1,
        get: |config| config.rank.into(),
        set: |config, rank| config.rank = narrow(rank),
    },
};

/// How many ranks.
pub static SIZE: Setting = Setting {
    name: "size",
    variable: "UBCCL_SIZE",
    doc: "how many ranks",
    absent: "",
    agreement: Agreement::Plans,
    place: Place::Launcher,
    is_secret: false,
    domain: Domain::Number {
        least: 1,
        most: MOST_RANKS,
        get: |config| config.ranks.into(),
        set: |config, ranks| config.ranks = narrow(ranks),
    },
};

/// The transport.
pub static TRANSPORT: Setting = Setting {
    name: "transport",
    variable: "UBCCL_TRANSPORT",
    doc: "over what the ranks talk; `ubccl bench --help` lists the names",
    absent: "",
    agreement: Agreement::Same,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Text {
        form: "a transport's name",
        get: |config| Some(transport_name(&config.transport)),
        set: |config, text| {
            config.transport = text.to_owned();
            Ok(())
        },
    },
};

/// An algorithm for every call.
pub static ALGO: Setting = Setting {
    name: "algo",
    variable: "UBCCL_ALGO",
    doc: "an algorithm for every call, or a family for each level of the layout: `node:mesh;all:nhr`; `ubccl bench \
          --help` lists the names",
    absent: "chosen by cost",
    agreement: Agreement::Plans,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Text {
        form: "an algorithm's name, or LEVEL:FAMILY;…",
        get: |config| config.algorithm.as_deref().map(algorithm_name),
        set: |config, text| {
            config.algorithm = Some(text.to_owned());
            Ok(())
        },
    },
};

/// An engine for every call.
pub static ENGINE: Setting = Setting {
    name: "engine",
    variable: "UBCCL_ENGINE",
    doc: "an engine for every call, of a simulated fabric that has several (`cloudmatrix384-die+read+write`): a software path \
          with costs and limits of its own",
    absent: "chosen by cost",
    agreement: Agreement::Plans,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Text {
        form: "an engine's name",
        get: |config| config.engine.clone(),
        set: |config, text| {
            config.engine = Some(text.to_owned());
            Ok(())
        },
    },
};

/// Where ranks stand.
pub static LAYOUT: Setting = Setting {
    name: "layout",
    variable: "UBCCL_LAYOUT",
    doc: "which ranks stand together, innermost level first: groups of as many ranks, `node=8`, or of each its own, \
          `node=5+8+3`; algorithms by level and their costs go by it",
    absent: "one level, all",
    agreement: Agreement::Plans,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Text {
        form: "NAME=SIZES;NAME=SIZES",
        get: |config| config.layout.clone(),
        set: |config, text| {
            config.layout = Some(text.to_owned());
            Ok(())
        },
    },
};

/// The same bits whatever the algorithm.
pub static REPRODUCIBLE: Setting = Setting {
    name: "reproducible",
    variable: "UBCCL_REPRODUCIBLE",
    doc: "only algorithms that reduce in rank order: results have the same bits whatever the algorithm, transport or \
          layout, at the cost that the chapter on algorithms tells",
    absent: "",
    agreement: Agreement::Plans,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Switch {
        get: |config| config.reproducible,
        set: |config, wanted| config.reproducible = wanted,
    },
};

/// What things cost here.
pub static TUNING: Setting = Setting {
    name: "tuning",
    variable: "UBCCL_TUNING",
    doc: "a file that `ubccl tune` wrote on this machine: what messages, copies and reductions cost; rank 0's counts \
          for all",
    absent: "built in",
    agreement: Agreement::Own,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Text {
        form: "a path",
        get: |config| config.tuning.as_ref().map(|path| path.display().to_string()),
        set: |config, text| {
            config.tuning = Some(text.into());
            Ok(())
        },
    },
};

/// The fabric at whose pace real data move.
pub static PACED: Setting = Setting {
    name: "paced",
    variable: "UBCCL_PACED",
    doc: "with transport `optical`: real transfers between real processes, with the latency and bandwidth of this fabric",
    absent: "none: virtual time",
    agreement: Agreement::Plans,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Text {
        form: "a fabric's name, custom:latency_ps=N,bytes_per_s=N, or TOML",
        get: |config| config.paced.clone(),
        set: |config, text| {
            config.paced = Some(text.to_owned());
            Ok(())
        },
    },
};

/// Bytes of a chunk.
pub static CHUNK: Setting = Setting {
    name: "chunk",
    variable: "UBCCL_CHUNK",
    doc: "bytes of a chunk where an algorithm pipelines",
    absent: "chosen by cost",
    agreement: Agreement::Plans,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Bytes {
        least: 1,
        most: u32::MAX as u64,
        get: |config| config.chunk_bytes.map(u64::from),
        set: |config, bytes| config.chunk_bytes = Some(narrow(bytes)),
    },
};

/// Lanes of every plan.
pub static LANES: Setting = Setting {
    name: "lanes",
    variable: "UBCCL_LANES",
    doc: "lanes (channels) that a plan may use, which move their shares of the data concurrently",
    absent: "",
    agreement: Agreement::Plans,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Number {
        least: 1,
        most: ubccl_core::plan::MAX_LANES as u64,
        get: |config| config.lanes.into(),
        set: |config, lanes| config.lanes = u8::try_from(lanes).unwrap_or(u8::MAX),
    },
};

/// Buffering between two ranks.
pub static PAIR_BYTES: Setting = Setting {
    name: "pair_bytes",
    variable: "UBCCL_PAIR_BYTES",
    doc: "bytes of buffering from one rank to another; more lets larger messages be under way, and costs memory for \
          each pair of ranks",
    absent: "by the number of ranks",
    agreement: Agreement::Same,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Bytes {
        least: 16 << 10,
        most: 1 << 30,
        get: |config| config.pair_bytes,
        set: |config, bytes| config.pair_bytes = Some(bytes),
    },
};

/// Reading in other processes.
pub static PEER_READS: Setting = Setting {
    name: "peer_reads",
    variable: "UBCCL_PEER_READS",
    doc: "whether long messages may be read in the memory of the process that sends them (process_vm_readv), on shm, where \
          the kernel lets this user; under Yama's ptrace scope 1 this rank then lets this user's processes read it",
    absent: "",
    agreement: Agreement::Own,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Switch {
        get: |config| config.peer_reads,
        set: |config, wanted| config.peer_reads = wanted,
    },
};

/// How long an operation may take.
pub static TIMEOUT: Setting = Setting {
    name: "timeout",
    variable: "UBCCL_TIMEOUT",
    doc: "how long one operation may take before it fails on every rank",
    absent: "",
    agreement: Agreement::Own,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Time {
        unit: TimeUnit::Seconds,
        least: MILLISECOND,
        most: YEAR,
        get: |config| Some(config.operation_timeout),
        set: |config, time| config.operation_timeout = time,
    },
};

/// How long start-up may take.
pub static START_TIMEOUT: Setting = Setting {
    name: "start_timeout",
    variable: "UBCCL_START_TIMEOUT",
    doc: "how long start-up may take: until all ranks have come and are connected",
    absent: "",
    agreement: Agreement::Own,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Time {
        unit: TimeUnit::Seconds,
        least: MILLISECOND,
        most: YEAR,
        get: |config| Some(config.start_timeout),
        set: |config, time| config.start_timeout = time,
    },
};

/// When a waiting operation speaks.
pub static WARN_AFTER: Setting = Setting {
    name: "warn_after",
    variable: "UBCCL_WARN_AFTER",
    doc: "after how long a waiting operation logs, once, which ranks are missing",
    absent: "",
    agreement: Agreement::Own,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Time {
        unit: TimeUnit::Seconds,
        least: MILLISECOND,
        most: YEAR,
        get: |config| Some(config.warn_after),
        set: |config, time| config.warn_after = time,
    },
};

/// How long a waiting call spins.
pub static SPIN_US: Setting = Setting {
    name: "spin_us",
    variable: "UBCCL_SPIN_US",
    doc: "how long a waiting call looks for messages before it sleeps",
    absent: "",
    agreement: Agreement::Own,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Time {
        unit: TimeUnit::Microseconds,
        least: Duration::ZERO,
        most: YEAR,
        get: |config| Some(config.spin),
        set: |config, time| config.spin = time,
    },
};

/// How much is logged.
pub static DEBUG: Setting = Setting {
    name: "debug",
    variable: "UBCCL_DEBUG",
    doc: "how much the C library and the program log to standard error; NCCL_DEBUG's names mean the same",
    absent: "",
    agreement: Agreement::Own,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Text {
        form: "OFF, VERSION, ERROR, WARN, INFO, DEBUG or TRACE",
        get: |config| Some(config.debug.to_string()),
        set: |config, text| {
            config.debug = text.parse::<Level>()?;
            Ok(())
        },
    },
};

/// What is logged about.
pub static DEBUG_SUBSYS: Setting = Setting {
    name: "debug_subsys",
    variable: "UBCCL_DEBUG_SUBSYS",
    doc: "what INFO, DEBUG and TRACE are about; ^ before the first name means all but these; errors and warnings are \
          always shown",
    absent: "",
    agreement: Agreement::Own,
    place: Place::Anywhere,
    is_secret: false,
    domain: Domain::Text {
        form: "INIT, PLAN, COLL, CONTROL, SHM, NET, CONFIG, MEMORY or ALL, with commas between",
        get: |config| Some(config.debug_subsys.clone()),
        set: |config, text| {
            text.parse::<Subsystems>()?;
            config.debug_subsys = text.to_owned();
            Ok(())
        },
    },
};

/// Every setting. The file comes first, because the others may stand in it.
pub static SETTINGS: &[&Setting] = &[
    &CONFIG,
    &RENDEZVOUS,
    &RANK,
    &SIZE,
    &TRANSPORT,
    &PACED,
    &ALGO,
    &ENGINE,
    &LAYOUT,
    &REPRODUCIBLE,
    &TUNING,
    &CHUNK,
    &LANES,
    &PAIR_BYTES,
    &PEER_READS,
    &TIMEOUT,
    &START_TIMEOUT,
    &WARN_AFTER,
    &SPIN_US,
    &DEBUG,
    &DEBUG_SUBSYS,
];

const MOST_RANKS: u64 = (1 << 20) - 1;

/// The setting of this name, or of this variable.
///
/// Errors: InvalidArgument, with the nearest name.
pub fn find(name: &str) -> Result<&'static Setting> {
    let found = SETTINGS.iter().copied().find(|setting| setting.name == name || setting.variable == name);
    found.ok_or_else(|| Error::invalid(format!("there is no setting '{name}'; {}", suggestion(name))))
}

/// `did you mean 'chunk'?`, or all names if none is near.
pub(super) fn suggestion(name: &str) -> String {
    match nearest(name, SETTINGS.iter().map(|setting| setting.name)) {
        Some(near) => format!("did you mean '{near}'?"),
        None => {
            let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            format!("there are: {}", names.join(", "))
        }
    }
}

/// Variables that look like one of ours and are none, with the one they look like.
pub(super) fn strays(variables: &[String]) -> Vec<(String, &'static str)> {
    let is_known = |name: &str| SETTINGS.iter().any(|setting| setting.variable == name);
    let ours = variables.iter().filter(|name| name.starts_with("UBCCL_") && !is_known(name));
    let near =
        |name: &String| Some((name.clone(), nearest(name, SETTINGS.iter().map(|setting| setting.variable))?));
    ours.filter_map(near).collect()
}

/// The candidate that a typing error away from `word`: at most a third of its letters.
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let letters = word.strip_prefix("ubccl_").unwrap_or(&word).chars().count();
    let near = candidates.map(|name| (distance(&word, &name.to_ascii_lowercase()), name));
    near.min_by_key(|row| row.0).filter(|row| row.0 <= letters.div_ceil(3)).map(|row| row.1)
}

/// Letters to insert, delete or change between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The name behind a name or alias; an unknown one stays as it is, for the start to refuse.
fn transport_name(given: &str) -> String {
    ubccl_transports::find(given).map_or(given, |found| found.descriptor().name).to_owned()
}

fn algorithm_name(given: &str) -> String {
    ubccl_algorithms::find(given).map_or(given, |found| found.descriptor().name).to_owned()
}

/// Too large stays too large, and the range says so.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The table as a page of the documentation, in Markdown.
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    for setting in SETTINGS {
        let Setting { name, variable, doc, .. } = setting;
        let unit = if setting.unit().is_empty() { String::new() } else { format!(" {}", setting.unit()) };
        let key = if setting.is_for_files() { format!("`{name}`") } else { "–".into() };
        let alike = match setting.agreement {
            Agreement::Own => "",
            Agreement::Same => "yes",
            Agreement::Plans => "yes, plans depend on it",
        };
        let default = setting.default_text();
        let is_number = default.starts_with(|c: char| c.is_ascii_digit());
        let default = if is_number { default + &unit } else { default };
        let kind = format!(
            "{}{}",
            setting.kind(),
            if unit.is_empty() { unit } else { format!(" ({})", unit.trim()) }
        );
        let range = setting.range();
        page += &format!("| `{variable}` | {key} | {kind} | {default} | {range} | {alike} | {doc} |\n");
    }
    page
}

/// What stands above the table.
const HEAD: &str = include_str!("head.md");
