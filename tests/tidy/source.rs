//! Rust source as the tidy test reads it: code without comments and strings, line by line.

use std::fs;
use std::path::{Path, PathBuf};

/// The workspace's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One source file.
pub struct Source {
    /// Its path from the root, with `/`.
    pub path: String,
    /// Its lines as they are.
    pub lines: Vec<String>,
    /// The same lines with comments, strings and characters blanked.
    pub code: Vec<String>,
}

impl Source {
    /// Reads a file.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let relative = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        let lines_of = |text: &str| text.lines().map(str::to_owned).collect();
        Source { path: relative, lines: lines_of(&text), code: lines_of(&blank(&text)) }
    }

    /// Whether all of it is there for tests or benches.
    pub fn is_test(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        parts.iter().any(|part| matches!(*part, "tests" | "benches" | "tests.rs"))
    }

    /// The code before the tests that end the file.
    pub fn shipped(&self) -> &[String] {
        let opens =
            |at: usize| self.code.get(at).is_some_and(|line| line.contains("mod ") && line.contains('{'));
        let is_test = |&at: &usize| self.code[at].trim() == "#[cfg(test)]" && opens(at + 1);
        &self.code[..(0..self.code.len()).find(is_test).unwrap_or(self.code.len())]
    }

    /// Where a word stands in the code, as `path:line`.
    pub fn places(&self, code: &[String], word: &str) -> Vec<String> {
        let hits = code.iter().enumerate().filter(|(_, line)| has_word(line, word));
        hits.map(|(at, _)| format!("{}:{}", self.path, at + 1)).collect()
    }
}

/// Whether `word` stands in `line` with no letter, digit or `_` around it.
pub fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Every Rust file under a folder of the workspace; nothing if there is no such folder.
pub fn under(folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join(folder), &mut paths);
    paths.sort();
    paths.iter().map(|path| Source::read(path)).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, paths);
            }
        } else if name.ends_with(".rs") {
            paths.push(path);
        }
    }
}

/// The text with everything in comments, strings and character literals replaced by blanks; lines stay.
pub fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    while at < chars.len() {
        let end = end_of_blank(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The end of the comment or literal that begins at `at`, or `at` if none does.
fn end_of_blank(chars: &[char], at: usize) -> usize {
    let next = |by: usize| chars.get(at + by).copied();
    let find = |from: usize, is_end: &dyn Fn(usize) -> bool| {
        (from..chars.len()).find(|&end| is_end(end)).unwrap_or(chars.len())
    };
    let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match (chars[at], next(1)) {
        ('/', Some('/')) => find(at, &|end| chars[end] == '\n'),
        ('/', Some('*')) => end_of_block_comment(chars, at),
        ('"', _) => end_of_string(chars, at + 1),
        ('r', Some('"' | '#')) if !after_word || chars[at - 1] == 'b' => end_of_raw_string(chars, at),
        ('\'', Some('\\')) => find(at + 3, &|end| chars[end] == '\'') + 1,
        ('\'', Some(_)) if next(2) == Some('\'') => at + 3,
        _ => at,
    }
}

fn end_of_block_comment(chars: &[char], at: usize) -> usize {
    let (mut depth, mut end) = (0, at);
    while end < chars.len() {
        match (chars[end], chars.get(end + 1)) {
            ('/', Some('*')) => (depth, end) = (depth + 1, end + 2),
            ('*', Some('/')) => (depth, end) = (depth - 1, end + 2),
            _ => end += 1,
        }
        if depth == 0 {
            return end;
        }
    }
    end
}

fn end_of_string(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '"' => return at + 1,
            '\\' => at += 2,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `r"…"` or `r#"…"#`; an identifier such as `r#type` is no string.
fn end_of_raw_string(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return at;
    }
    let closes = |end: usize| {
        chars[end] == '"' && chars[end + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    let end = (open + 1..chars.len()).find(|&end| closes(end));
    end.map_or(chars.len(), |end| end + 1 + hashes)
}
