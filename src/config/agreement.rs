//! What all ranks must have alike: compared when they start, so that ranks that differ fail with both values.

use super::setting::Agreement;
use super::settings::SETTINGS;
use super::{Config, Setting};
use ubccl_core::{Error, ErrorKind, Exchange, Result};

/// Between the parts of a setting, and after it: neither stands in a name or a number, and in a path only by malice.
const PART: char = '\u{1f}';
const END: char = '\u{1e}';

/// Fails, on every rank, if ranks are configured differently in what they must have alike.
pub(crate) fn check_alike(exchange: &mut dyn Exchange, config: &Config) -> Result<()> {
    let mine = told(config);
    let all = exchange.all_gather(mine.as_bytes())?;
    let me = exchange.rank();
    for (rank, theirs) in all.iter().enumerate() {
        let theirs = String::from_utf8_lossy(theirs);
        if let Some((setting, theirs, mine)) = difference(&theirs, &mine) {
            return Err(Error::new(
                ErrorKind::Start,
                format!(
                    "ranks differ in {}: rank {rank} has {theirs}, rank {me} has {mine}; configure all ranks alike \
                     ({})",
                    setting.name, setting.variable
                ),
            ));
        }
    }
    Ok(())
}

/// The settings that must be alike, their values and where those came from.
fn told(config: &Config) -> String {
    let shared = config.describe().into_iter().filter(|told| told.setting.agreement != Agreement::Own);
    shared
        .map(|told| {
            format!("{}{PART}{}{PART}{}{END}", told.setting.name, told.value_with_unit(), told.origin)
        })
        .collect()
}

/// The first setting in which two ranks differ, with what each has. A rank of another version may have others.
fn difference(theirs: &str, mine: &str) -> Option<(&'static Setting, String, String)> {
    let find = |text: &str, name: &str| -> Option<(String, String)> {
        let mut parts =
            text.split(END).find(|entry| entry.split(PART).next() == Some(name))?.split(PART).skip(1);
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    };
    let show = |found: &Option<(String, String)>| match found {
        Some((value, origin)) => format!("{value} ({origin})"),
        None => "no such setting (another version of ubccl)".to_owned(),
    };
    let shared = SETTINGS.iter().filter(|setting| setting.agreement != Agreement::Own);
    shared.copied().find_map(|setting| {
        let (theirs, mine) = (find(theirs, setting.name), find(mine, setting.name));
        let value = |found: &Option<(String, String)>| found.as_ref().map(|found| found.0.clone());
        (value(&theirs) != value(&mine)).then(|| (setting, show(&theirs), show(&mine)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_told_with_both_values_and_origins() {
        let mine = Config::default();
        let theirs = Config { chunk_bytes: Some(4096), rank: 3, ..Config::default() };
        assert!(difference(&told(&mine), &told(&mine)).is_none());
        let (setting, theirs, mine) = difference(&told(&theirs), &told(&mine)).unwrap();
        assert_eq!(
            (setting.name, &*theirs, &*mine),
            ("chunk", "4096 B (argument)", "chosen by cost (default)")
        );
        assert!(difference("nonsense", &told(&Config::default())).unwrap().1.contains("version"));
    }

    #[test]
    fn another_name_for_the_same_thing_is_no_difference() {
        let named = |name: &str| told(&Config { algorithm: Some(name.into()), ..Config::default() });
        assert!(difference(&named("mesh_one_shot"), &named("mesh-one-shot")).is_none());
        assert!(difference(&named("ring"), &named("mesh-one-shot")).is_some());
    }
}
