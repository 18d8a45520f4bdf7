//! The configuration file: TOML, one key for each setting.

use super::origin::Origin;
use super::settings;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};
use ubccl_core::{Error, ErrorKind, Result};

/// What a file says: setting, text of its value, line.
#[derive(Debug, Default)]
pub(super) struct File {
    path: PathBuf,
    entries: Vec<(&'static str, String, usize)>,
}

impl File {
    /// Reads and checks a file.
    ///
    /// Errors: InvalidArgument, with the line and, for a key that does not exist, the nearest one that does.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!(
                "the configuration file {} cannot be read; {} names it: correct or unset it",
                path.display(),
                settings::CONFIG.variable
            );
            Error::new(ErrorKind::InvalidArgument, message).with_source(error)
        })?;
        Self::parse(path, &text)
    }

    /// Reads a file's text.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self> {
        let line_at = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
        let wrong =
            |line: usize, what: &str| Error::invalid(format!("{} line {line}: {what}", path.display()));
        let table = DeTable::parse(text)
            .map_err(|error| wrong(error.span().map_or(1, |span| line_at(span.start)), error.message()))?;
        let mut entries = Vec::new();
        for (key, value) in table.into_inner() {
            let (line, name) = (line_at(key.span().start), key.into_inner());
            let setting = settings::SETTINGS.iter().find(|setting| setting.name == name);
            let Some(setting) = setting else {
                return Err(wrong(
                    line,
                    &format!("there is no setting '{name}'; {}", settings::suggestion(&name)),
                ));
            };
            if !setting.is_for_files() {
                let advice = format!(
                    "'{name}' belongs to one job; whoever starts the ranks gives it, as an argument or in {}",
                    setting.variable
                );
                return Err(wrong(line, &advice));
            }
            let text = match value.into_inner() {
                DeValue::String(text) => text.into_owned(),
                DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
                DeValue::Float(number) => number.as_str().to_owned(),
                _ => return Err(wrong(line, &format!("'{name}' takes a number or a text"))),
            };
            entries.push((setting.name, text, line));
        }
        Ok(File { path: path.to_owned(), entries })
    }

    /// What it says about a setting.
    pub(super) fn get(&self, name: &str) -> Option<(String, Origin)> {
        let (_, text, line) = self.entries.iter().find(|entry| entry.0 == name)?;
        Some((text.clone(), Origin::File { path: self.path.clone(), line: *line }))
    }
}
