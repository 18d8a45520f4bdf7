//! What ubccl logs, and who sees it.
//!
//! The library speaks through [`tracing`] and installs nothing: a program that has a subscriber sees what its filter
//! lets through. The C library and the program `ubccl` have none; they install [one](install) if `UBCCL_DEBUG` is set.
//!
//! | level | for whom |
//! |---|---|
//! | `ERROR` | an operation failed, once for each communicator and rank |
//! | `WARN` | somebody should look: a rank is late, a stranger knocked, a variable is misspelt |
//! | `INFO` | once for each communicator: transport, algorithm, ranks, spinning, memory, what was configured |
//! | `DEBUG` | plans as they are made |
//! | `TRACE` | every operation |
//!
//! Targets are `ubccl::` and a [subsystem](SUBSYSTEMS); an event of one rank has a field `rank`. A level that is off
//! costs a comparison.

mod events;
#[cfg(feature = "subscriber")]
mod subscriber;

#[cfg(feature = "subscriber")]
pub use subscriber::install;

pub(crate) use events::tell_start;

use std::fmt;
use std::str::FromStr;
use ubccl_core::{Error, Result};

/// How much is logged: each level and those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Off,
    /// The version, once, by rank 0.
    Version,
    /// Operations that failed.
    Error,
    /// What somebody should look at.
    Warn,
    /// What a communicator is, once.
    Info,
    /// Plans as they are made.
    Debug,
    /// Every operation.
    Trace,
}

impl Level {
    const TABLE: [(Level, &'static str, &'static str); 7] = [
        (Level::Off, "OFF", "off"),
        (Level::Version, "VERSION", "off"),
        (Level::Error, "ERROR", "error"),
        (Level::Warn, "WARN", "warn"),
        (Level::Info, "INFO", "info"),
        (Level::Debug, "DEBUG", "debug"),
        (Level::Trace, "TRACE", "trace"),
    ];

    fn row(self) -> &'static (Level, &'static str, &'static str) {
        &Self::TABLE[self as usize]
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().1)
    }
}

impl FromStr for Level {
    type Err = Error;

    /// Reads a level, in capitals or not.
    ///
    /// Errors: InvalidArgument, with the levels there are.
    fn from_str(text: &str) -> Result<Self> {
        let found = Self::TABLE.iter().find(|row| row.1.eq_ignore_ascii_case(text));
        found.map(|row| row.0).ok_or_else(|| {
            let names = Self::TABLE.map(|row| row.1);
            Error::invalid(format!("the levels are {}", names.join(", ")))
        })
    }
}

/// The subsystems: name, target, and NCCL's names for the same.
pub const SUBSYSTEMS: &[(&str, &str, &[&str])] = &[
    ("INIT", "ubccl::init", &[]),
    ("PLAN", "ubccl::plan", &["TUNING", "GRAPH"]),
    ("COLL", "ubccl::coll", &["P2P", "CALL"]),
    ("CONTROL", "ubccl::control", &["BOOTSTRAP", "RAS"]),
    ("SHM", "ubccl::shm", &[]),
    ("NET", "ubccl::net", &[]),
    ("CONFIG", "ubccl::config", &["ENV"]),
    ("MEMORY", "ubccl::memory", &["ALLOC"]),
];

/// NCCL's subsystems of which ubccl has none: accepted, and nothing is logged about them.
const NOTHING: &[&str] = &["PROXY", "NVLS", "REG", "PROFILE"];

/// Which subsystems are logged, as in `INIT,NET`, `^COLL` (all but it), `ALL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subsystems {
    is_except: bool,
    targets: Vec<&'static str>,
}

impl FromStr for Subsystems {
    type Err = Error;

    /// Reads names with commas between; NCCL's are understood.
    ///
    /// Errors: InvalidArgument, with the names there are.
    fn from_str(text: &str) -> Result<Self> {
        let (is_except, list) = match text.strip_prefix('^') {
            Some(list) => (true, list),
            None => (false, text),
        };
        let mut targets = Vec::new();
        for name in list.split(',').map(str::trim) {
            let is_named = |row: &&(&str, &str, &[&str])| {
                std::iter::once(&row.0).chain(row.2).any(|known| known.eq_ignore_ascii_case(name))
            };
            match SUBSYSTEMS.iter().find(is_named) {
                Some(row) => targets.push(row.1),
                None if name.eq_ignore_ascii_case("ALL") => {
                    targets.extend(SUBSYSTEMS.iter().map(|row| row.1))
                }
                None if NOTHING.iter().any(|known| known.eq_ignore_ascii_case(name)) => {}
                None => {
                    let names: Vec<_> = SUBSYSTEMS.iter().map(|row| row.0).collect();
                    return Err(Error::invalid(format!("the subsystems are {} and ALL", names.join(", "))));
                }
            }
        }
        Ok(Subsystems { is_except, targets })
    }
}

/// The filter of `tracing_subscriber` for a level and subsystems, as text: `ubccl=warn,ubccl::init=info`. For programs
/// that install a subscriber of their own. Errors and warnings of every subsystem pass, as NCCL's do.
pub fn directives(level: Level, subsystems: &Subsystems) -> String {
    let name = level.row().2;
    // NCCL tells its version at every level from VERSION on.
    let version = if level == Level::Off { "off" } else { "info" };
    let is_selected = |target: &&str| subsystems.targets.contains(target) != subsystems.is_except;
    let unselected = level.min(Level::Warn).row().2;
    let mut directives = vec![format!("ubccl={unselected}"), format!("{VERSION}={version}")];
    if level > Level::Warn {
        let selected = SUBSYSTEMS.iter().map(|row| row.1).filter(is_selected);
        directives.extend(selected.map(|target| format!("{target}={name}")));
    }
    directives.join(",")
}

/// The target of the version.
pub(crate) const VERSION: &str = "ubccl::version";

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Subsystems {
        "ALL".parse().unwrap()
    }

    #[test]
    fn levels_have_nccls_names_in_any_case() {
        for (k, row) in Level::TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, k);
            assert_eq!(row.1.to_lowercase().parse::<Level>().unwrap(), row.0);
        }
        assert!("LOUD".parse::<Level>().unwrap_err().message().contains("WARN, INFO"));
    }

    #[test]
    fn warnings_pass_whatever_the_subsystem() {
        assert_eq!(directives(Level::Off, &all()), "ubccl=off,ubccl::version=off");
        assert_eq!(directives(Level::Version, &all()), "ubccl=off,ubccl::version=info");
        assert_eq!(directives(Level::Warn, &"INIT".parse().unwrap()), "ubccl=warn,ubccl::version=info");
        let some = directives(Level::Info, &"init, ENV".parse().unwrap());
        assert_eq!(some, "ubccl=warn,ubccl::version=info,ubccl::init=info,ubccl::config=info");
    }

    #[test]
    fn subsystems_may_be_left_out() {
        let text = directives(Level::Trace, &"^COLL,NVLS".parse().unwrap());
        assert!(!text.contains("coll") && text.contains("ubccl::net=trace"), "{text}");
        assert_eq!(directives(Level::Trace, &all()).matches("=trace").count(), SUBSYSTEMS.len());
        assert!("INIT,WARP".parse::<Subsystems>().unwrap_err().message().contains("INIT, PLAN"));
    }
}
