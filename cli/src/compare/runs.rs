//! What the programs said: JSON lines, kept in a file if that is asked for, so that rounds can be added later.

use super::contestants::{Contestant, FLOOR, Memory};
use crate::failure::{Failure, Outcome};
use serde::Deserialize;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// One run of a program.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) who: Contestant,
    /// The transport that is compared; a peer may say another word for what it did.
    pub(super) transport: &'static str,
    pub(super) ranks: u32,
    pub(super) round: u32,
    /// How long a cache line took from one CPU to the other, before and after.
    pub(super) near_ns: [f64; 2],
    /// Its JSON lines.
    pub(super) lines: Vec<String>,
    /// Why it failed, if it did.
    pub(super) error: Option<String>,
}

/// One line: an operation at a size, or why there is none.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(super) struct Record {
    pub(super) peer: String,
    #[serde(default)]
    pub(super) note: String,
    pub(super) transport: String,
    /// Added by us; a line of the peers' own runs has none.
    pub(super) compared_over: Option<String>,
    pub(super) ranks: u32,
    #[serde(default)]
    pub(super) rep: u32,
    #[serde(default)]
    pub(super) op: String,
    #[serde(default)]
    pub(super) inplace: u8,
    #[serde(default)]
    pub(super) dtype: String,
    #[serde(default)]
    pub(super) bytes: u64,
    #[serde(default)]
    pub(super) p50_us: f64,
    /// 0 if the result was wrong; the floor checks none.
    pub(super) ok: Option<u8>,
    /// Whether the buffers are registered memory, and whether each call finds them written anew.
    #[serde(default)]
    pub(super) registered: u8,
    #[serde(default)]
    pub(super) rewrite: u8,
    /// Added by us.
    pub(super) near_ns: Option<[f64; 2]>,
    pub(super) error: Option<String>,
}

/// All lines so far.
#[derive(Debug, Default)]
pub(super) struct Runs {
    pub(super) records: Vec<Record>,
    file: Option<(PathBuf, File)>,
}

impl Runs {
    /// Reads the lines of a file if there is one; later ones go to its end.
    pub(super) fn open(path: Option<&Path>) -> Outcome<Self> {
        let Some(path) = path else { return Ok(Runs::default()) };
        let wrong = |error: std::io::Error| {
            Failure::new(format!(
                "cannot keep the runs in {}: {error}; free space or name another file",
                path.display()
            ))
        };
        let opened = OpenOptions::new().read(true).append(true).create(true).open(path);
        let mut file = opened.map_err(wrong)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(wrong)?;
        let mut records = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let place = format!("{}, line {}", path.display(), index + 1);
            records.push(parse(line, &place)?);
        }
        Ok(Runs { records, file: Some((path.to_owned(), file)) })
    }

    /// The number of the last round, 0 if there is none.
    pub(super) fn last_round(&self) -> u32 {
        self.records.iter().map(|record| record.rep).max().unwrap_or(0)
    }

    /// Adds what a program said.
    pub(super) fn add(&mut self, run: Run) -> Outcome<()> {
        let [before, after] = run.near_ns;
        let tags = format!("\"near_ns\":[{before},{after}],\"compared_over\":\"{}\"}}", run.transport);
        let Contestant { peer, note, .. } = run.who;
        let mut lines: Vec<String> = run
            .lines
            .iter()
            .map(|line| format!("{},{tags}", line.trim_end().trim_end_matches('}')))
            .collect();
        if let Some(error) = &run.error {
            let Run { transport, ranks, round, .. } = &run;
            let error = serde_json::json!(error);
            lines.push(format!(
                "{{\"peer\":\"{peer}\",\"transport\":\"{transport}\",\"ranks\":{ranks},\"rep\":{round},\"note\":\"{note}\",\
                 \"error\":{error},{tags}"
            ));
        }
        for line in lines {
            self.records.push(parse(&line, &format!("what {peer} said"))?);
            self.write(&line)?;
        }
        Ok(())
    }

    /// Whether a program said that its result was wrong.
    pub(super) fn has_wrong_results(&self) -> bool {
        self.records.iter().any(Record::is_wrong)
    }

    fn write(&mut self, line: &str) -> Outcome<()> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        file.write_all(format!("{line}\n").as_bytes())
            .map_err(|error| Failure::new(format!("cannot write {}: {error}; free space", path.display())))
    }
}

impl Record {
    pub(super) fn is_wrong(&self) -> bool {
        self.error.is_none() && self.ok == Some(0)
    }

    /// What it reduced. The floor's threads address each other's memory, as registered memory may be.
    pub(super) fn memory(&self) -> Memory {
        match (self.registered, self.rewrite) {
            (0, _) if self.peer != FLOOR => Memory::Ordinary,
            (_, 0) => Memory::Registered,
            _ => Memory::Rewritten,
        }
    }
}

fn parse(line: &str, place: &str) -> Outcome<Record> {
    serde_json::from_str(line)
        .map_err(|error| Failure::new(format!("{place}: no line of these programs: {error}")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::compare::contestants::Part;

    /// A line as a program writes it.
    pub(in crate::compare) fn line(peer: &str, op: &str, bytes: u64, p50_us: f64) -> String {
        format!(
            "{{\"peer\":\"{peer}\",\"transport\":\"shm\",\"op\":\"{op}\",\"inplace\":0,\"dtype\":\"float32\",\
             \"bytes\":{bytes},\"real_bytes\":{bytes},\"ranks\":2,\"iters\":20,\"p50_us\":{p50_us},\"avg_us\":null,\
             \"rep\":1,\"ok\":1,\"note\":\"default\"}}"
        )
    }

    fn run(lines: Vec<String>, error: Option<&str>) -> Run {
        let who = Contestant::of(Part::Shm, 2, "impi")[0];
        let error = error.map(str::to_owned);
        Run { who, transport: "shm", ranks: 2, round: 1, near_ns: [57.0, 245.0], lines, error }
    }

    #[test]
    fn lines_are_tagged_kept_and_read_again() {
        let path = std::env::temp_dir().join(format!("ubccl-runs-{}.jsonl", std::process::id()));
        let mut runs = Runs::open(Some(&path)).unwrap();
        assert_eq!(runs.last_round(), 0);
        runs.add(run(vec![line("impi", "allreduce", 8, 0.5)], None)).unwrap();
        runs.add(run(Vec::new(), Some("it said \"no\""))).unwrap();
        let again = Runs::open(Some(&path)).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(again.records, runs.records);
        assert_eq!(again.last_round(), 1);
        let [told, failed] = &again.records[..] else { panic!("{:?}", again.records) };
        assert_eq!((told.near_ns, told.p50_us, told.ok), (Some([57.0, 245.0]), 0.5, Some(1)));
        assert_eq!(failed.error.as_deref(), Some("it said \"no\""));
        assert!(!again.has_wrong_results());
    }

    #[test]
    fn the_floor_checks_nothing_and_stands_with_registered_memory() {
        let text = line("floor", "allreduce", 1 << 20, 12.0).replace("\"ok\":1,", "");
        let floor = parse(&text, "here").unwrap();
        assert!(!floor.is_wrong() && floor.memory() == Memory::Registered);
        let rewritten =
            line("ubccl", "allreduce", 8, 1.0).replace("\"ok\"", "\"registered\":1,\"rewrite\":1,\"ok\"");
        assert_eq!(parse(&rewritten, "here").unwrap().memory(), Memory::Rewritten);
        assert_eq!(parse(&line("ubccl", "allreduce", 8, 1.0), "here").unwrap().memory(), Memory::Ordinary);
    }

    #[test]
    fn what_is_no_line_names_its_place() {
        let Err(Failure::Message(text)) = parse("{\"peer\":3}", "runs.jsonl, line 7") else { panic!() };
        assert!(text.starts_with("runs.jsonl, line 7: "), "{text}");
    }
}
