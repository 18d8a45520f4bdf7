//! A critical path in a sentence.

use super::critical::{CriticalPath, Part};
use std::collections::BTreeMap;
use ubccl_core::record::{At, Record, What};

/// A place that has this share of its group is named alone.
const MOST: f64 = 0.8;
/// Groups of less than this share of the whole are added up as the rest.
const LEAST: f64 = 0.005;

/// What parts have in common to be told together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Ranks,
    /// Of a class.
    Links(u16),
    Level(u8),
}

impl CriticalPath {
    /// The path in a sentence: `78 % serialisation on node 3 plane 2 up, 12 % start-up at rank 4, 10 % waiting at rank
    /// 17`. Where many links or ranks have a share each, they are told by class: `98 % serialisation on 384 links of
    /// rank in`.
    pub fn describe(&self, record: &Record) -> String {
        let total_ps = self.total_ps();
        if total_ps == 0 {
            return "it took no time".to_owned();
        }
        let mut groups: BTreeMap<(What, Group), Vec<Part>> = BTreeMap::new();
        for part in self.parts() {
            groups.entry((part.what, group(&part.at, record))).or_default().push(part);
        }
        let mut told: Vec<(u64, String)> = groups
            .into_iter()
            .map(|((what, group), parts)| (sum(&parts), sentence(what, group, &parts, record)))
            .collect();
        told.sort_by_key(|row| std::cmp::Reverse(row.0));
        let share = |ps: u64| ps as f64 / total_ps as f64;
        let is_lonely = told.iter().filter(|row| share(row.0) < LEAST).count() == 1;
        let (large, small): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|row| is_lonely || share(row.0) >= LEAST);
        let mut words: Vec<String> =
            large.into_iter().map(|(ps, text)| format!("{} {text}", percent(share(ps)))).collect();
        let rest_ps: u64 = small.iter().map(|row| row.0).sum();
        if rest_ps > 0 {
            words.push(format!("{} other things", percent(share(rest_ps))));
        }
        words.join(", ")
    }
}

fn sum(parts: &[Part]) -> u64 {
    parts.iter().map(|part| part.ps).sum()
}

fn percent(share: f64) -> String {
    match 100.0 * share {
        percent if (9.95..99.5).contains(&percent) || percent >= 99.95 => format!("{percent:.0} %"),
        percent => format!("{percent:.1} %"),
    }
}

fn group(at: &At, record: &Record) -> Group {
    match at {
        At::Rank(_) => Group::Ranks,
        At::Link(link) => Group::Links(record.links[link.0 as usize].class),
        At::Level(level) => Group::Level(*level),
    }
}

/// `parts` come largest first.
fn sentence(what: What, group: Group, parts: &[Part], record: &Record) -> String {
    let (what, first) = (what.name(), parts[0]);
    let is_one = first.ps as f64 >= MOST * sum(parts) as f64;
    match (group, first.at) {
        (Group::Ranks, At::Rank(rank)) if is_one => format!("{what} at rank {rank}"),
        (Group::Ranks, _) => format!("{what} at {} ranks", parts.len()),
        (Group::Links(_), At::Link(link)) if is_one => {
            format!("{what} on {}", record.links[link.0 as usize].name)
        }
        (Group::Links(class), _) => {
            format!("{what} on {} links of {}", parts.len(), record.classes[usize::from(class)])
        }
        (Group::Level(level), _) => format!("{what} within a {}", record.levels[usize::from(level)]),
    }
}
