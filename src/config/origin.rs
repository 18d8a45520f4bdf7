//! Where values came from.

use super::Config;
use super::setting::Setting;
use super::settings::SETTINGS;
use std::fmt;
use std::path::PathBuf;
use ubccl_core::Error;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// This environment variable.
    Environment(&'static str),
    /// The program set it.
    Argument,
}

/// `environment UBCCL_CHUNK`, `file /etc/ubccl.toml line 3`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "file {} line {line}", path.display()),
            Origin::Environment(variable) => write!(f, "environment {variable}"),
            Origin::Argument => f.write_str("argument"),
        }
    }
}

impl Origin {
    /// What is wrong with a value that came from here; a secret is not repeated.
    pub(super) fn blame(&self, setting: &Setting, text: &str, error: &Error) -> Error {
        let place = match self {
            Origin::File { path, line } => format!("{} line {line}: {}", path.display(), setting.name),
            Origin::Environment(variable) => (*variable).to_owned(),
            Origin::Default | Origin::Argument => setting.name.to_owned(),
        };
        let why = error.message();
        Error::new(
            error.kind(),
            match setting.is_secret {
                true => format!("{place}: {why}"),
                false => format!("{place} is '{text}'; {why}"),
            },
        )
    }
}

/// What a [`Config`] remembers of its making. A program has no use for it but to pass it on.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// The configuration file, if one was named.
    pub(super) file: Option<PathBuf>,
    /// Variables that look like a setting's and are none, with the one they look like.
    pub(super) strays: Vec<(String, &'static str)>,
    /// Name of the setting, value as it was shown, origin.
    noted: Vec<(&'static str, String, Origin)>,
}

impl Origins {
    /// Where a value came from that was just read; called with what it was read into.
    pub(super) fn noted(
        setting: &'static Setting,
        config: &Config,
        origin: Origin,
    ) -> (&'static str, String, Origin) {
        (setting.name, setting.show(config), origin)
    }

    pub(super) fn note(&mut self, noted: (&'static str, String, Origin)) {
        self.noted.push(noted);
    }

    /// A value and where it came from. What differs from what was read, or from the default, was set by the program.
    pub(super) fn resolved(&self, setting: &'static Setting, config: &Config) -> Resolved {
        let value = setting.show(config);
        let noted = self.noted.iter().rev().find(|noted| noted.0 == setting.name);
        let (read, origin) = match noted {
            Some((_, read, origin)) => (read.clone(), origin.clone()),
            None => (setting.default_text(), Origin::Default),
        };
        let origin = if read == value { origin } else { Origin::Argument };
        Resolved { setting, value, origin }
    }

    /// Logs what was set, and what was probably meant to be.
    pub(crate) fn tell(&self, config: &Config) {
        for (stray, near) in &self.strays {
            tracing::warn!(target: "ubccl::config", rank = config.rank, "{stray} is set and means nothing; {near} does");
        }
        if !tracing::enabled!(target: "ubccl::config", tracing::Level::INFO) {
            return;
        }
        for setting in SETTINGS {
            let told = self.resolved(setting, config);
            if told.origin != Origin::Default {
                tracing::info!(target: "ubccl::config", rank = config.rank, "{told}");
            }
        }
    }
}

/// A setting, its value and where that came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The entry of the table.
    pub setting: &'static Setting,
    /// The value as text, in the setting's unit; secrets masked.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

impl Resolved {
    /// The value with its unit.
    pub fn value_with_unit(&self) -> String {
        let is_number = self.value.starts_with(|c: char| c.is_ascii_digit());
        match self.setting.unit() {
            unit if is_number && !unit.is_empty() => format!("{} {unit}", self.value),
            _ => self.value.clone(),
        }
    }
}

/// `chunk = 65536 B (environment UBCCL_CHUNK)`.
impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} ({})", self.setting.name, self.value_with_unit(), self.origin)
    }
}
