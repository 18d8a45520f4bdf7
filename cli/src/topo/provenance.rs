//! Where the numbers of a description come from, as its comments say: the comment behind a number, else the one above it,
//! else the one above its table.

/// A number of a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    /// Its table and key: `topology.level node: latency_ps`.
    pub(crate) key: String,
    /// As it is written.
    pub(crate) value: String,
    /// What its comment says.
    pub(crate) source: String,
}

/// What no comment says.
const UNSAID: &str = "see the sources above";

/// Reads a description line by line. It is known to be well-formed TOML with one key or one inline table a line.
pub(crate) fn numbers(text: &str) -> Vec<Number> {
    let mut numbers = Vec::new();
    let mut table = Table::default();
    let mut above = String::new();
    let mut is_blank_before = true;
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix('#') {
            if is_blank_before {
                above.clear();
            }
            above = format!("{above} {}", comment.trim()).trim().to_owned();
        } else if let Some(name) = table_name(line) {
            table = Table { name: name.to_owned(), says: std::mem::take(&mut above), ..Table::default() };
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.is_empty()) {
            let (value, behind) = split_comment(value.trim());
            let own = std::mem::take(&mut above);
            let is_text = value.starts_with(['"', '\'']) || value.starts_with("[\"");
            if is_text && matches!(key.trim(), "name" | "level" | "levels") && !table.name.is_empty() {
                table.of = value.replace(['"', '[', ']'], "");
                continue;
            }
            let said =
                [behind.unwrap_or_default(), &own, &table.says].into_iter().find(|said| !said.is_empty());
            let source = said.unwrap_or(UNSAID).to_owned();
            let place = [table.name.as_str(), table.of.as_str()].join(" ").trim().to_owned();
            for (key, value) in entries(key.trim(), value) {
                if value.starts_with(|c: char| c.is_ascii_digit()) {
                    let key = if place.is_empty() { key } else { format!("{place}: {key}") };
                    numbers.push(Number { key, value, source: source.clone() });
                }
            }
        }
        is_blank_before = line.is_empty();
        if is_blank_before {
            above.clear();
        }
    }
    numbers
}

/// The table that lines belong to.
#[derive(Default)]
struct Table {
    name: String,
    /// Its `name`, `level` or `levels`.
    of: String,
    /// The comment above it.
    says: String,
}

/// `[wire]` or `[[topology.level]]`.
fn table_name(line: &str) -> Option<&str> {
    let inner = line.strip_prefix('[')?;
    let end = inner.find(']')?;
    Some(inner[..end].trim_start_matches('['))
}

/// A value and the comment behind it: a `#` that is in no string.
fn split_comment(value: &str) -> (&str, Option<&str>) {
    let mut is_in_string = false;
    for (at, character) in value.char_indices() {
        match character {
            '"' => is_in_string = !is_in_string,
            '#' if !is_in_string => return (value[..at].trim(), Some(value[at + 1..].trim())),
            _ => {}
        }
    }
    (value, None)
}

/// The keys and values of a line: several, if it is an inline table.
fn entries(key: &str, value: &str) -> Vec<(String, String)> {
    let inner = value.trim_matches(['[', ']']).trim();
    match inner.strip_prefix('{').and_then(|inner| inner.rsplit_once('}')) {
        None => vec![(key.to_owned(), value.to_owned())],
        // Inline tables within inline tables lose their braces: their keys say enough.
        Some((inner, _)) => inner
            .split([',', '{', '}'])
            .filter_map(|entry| entry.rsplit_once('=').map(|(key, value)| (key.trim(), value.trim())))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::fabric_presets;

    #[test]
    fn a_number_has_the_nearest_comment() {
        let text = "# All of it: a paper.\n\nname = \"x\" # no number\n\n# P: published,\n# in a table.\n[[topology.level]]\n\
            name = \"node\"\nholds = 8\nlink = { latency_ps = 1_000, rate_bytes_per_s = 7 } # E: elsewhere\n\n[rank]\n\
            # O: ours.\ndetection_ps = 10\nstreams = 4\n";
        let found = numbers(text);
        let rows: Vec<[&str; 3]> = found.iter().map(|n| [&n.key[..], &n.value, &n.source]).collect();
        assert_eq!(
            rows,
            [
                ["topology.level node: holds", "8", "P: published, in a table."],
                ["topology.level node: latency_ps", "1_000", "E: elsewhere"],
                ["topology.level node: rate_bytes_per_s", "7", "E: elsewhere"],
                ["rank: detection_ps", "10", "O: ours."],
                ["rank: streams", "4", "see the sources above"],
            ]
        );
    }

    #[test]
    fn every_number_of_every_preset_is_found() {
        for (name, text) in fabric_presets() {
            let code: String = text.lines().map(|line| split_comment(line).0.to_owned() + "\n").collect();
            let is_number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
            let strings_out: String = code.split('"').step_by(2).collect::<Vec<_>>().join(" ");
            let written =
                strings_out.split([' ', ',', '{', '}', '\n', '=', '[', ']']).filter(is_number).count();
            assert_eq!(numbers(text).len(), written, "{name}");
        }
    }
}
