//! JSON lines: one object per row half, written at once.

use crate::bound;
use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::measure::{LinkClass, Measured};
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// One object. The order of the fields is the order in the file.
#[derive(Debug, Serialize)]
#[allow(non_snake_case)] // algbw_GBps: GB are 10⁹ bytes, and the name says so
struct Row<'a> {
    op: &'a str,
    dtype: &'a str,
    bytes: u64,
    asked_bytes: u64,
    in_place: bool,
    ranks: u32,
    transport: &'a str,
    algo: &'a str,
    lanes: u8,
    chunk_bytes: u32,
    /// Where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'a str>,
    iters: u32,
    p50_us: f64,
    min_us: f64,
    p99_us: f64,
    algbw_GBps: f64,
    busbw_GBps: f64,
    /// Null when nothing was checked.
    wrong: Option<u64>,
    /// User and system time per call, the mean over ranks.
    cpu_us: f64,
    redop: Option<&'a str>,
    root: Option<u32>,
    /// Calls timed as one iteration.
    calls_per_iter: u32,
    /// Whether the 99th percentile is that of blocks of calls.
    p99_of_block: bool,
    #[serde(flatten)]
    simulated: Option<Simulated>,
}

#[derive(Debug, Serialize)]
struct Simulated {
    #[serde(rename = "virtual")]
    is_virtual: bool,
    messages: u64,
    messages_per_s: f64,
    events: u64,
    /// What faults did: how often bytes were sent again, messages that were lost.
    retries: u64,
    lost: u64,
    event_hash: String,
    bound_us: f64,
    percent_of_bound: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    critical_path: Option<Vec<Part>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<Vec<Links>>,
}

/// A part of the critical path.
#[derive(Debug, Serialize)]
struct Part {
    what: &'static str,
    at: String,
    ps: u64,
}

/// How much a class of links was used.
#[derive(Debug, Serialize)]
struct Links {
    class: String,
    mean: f64,
    busiest: String,
    most: f64,
}

impl Simulated {
    fn new(simulated: &crate::measure::Simulated, measured: &Measured) -> Self {
        let explained = measured.explained.clone();
        let (parts, links) = explained.map(|explained| (explained.parts, explained.links)).unzip();
        let part = |(what, at, ps)| Part { what, at, ps };
        let class = |LinkClass { class, mean, busiest, most }| Links { class, mean, busiest, most };
        let messages_per_s = simulated.messages as f64 / (simulated.real_us.max(1e-3) / 1e6);
        Simulated {
            is_virtual: true,
            messages: simulated.messages,
            messages_per_s,
            events: simulated.events,
            retries: simulated.retries,
            lost: simulated.lost,
            event_hash: format!("{:016x}", simulated.hash),
            bound_us: simulated.bound_us,
            percent_of_bound: bound::percent(simulated.bound_us, measured.times.p50_us),
            critical_path: parts.map(|parts: Vec<_>| parts.into_iter().map(part).collect()),
            links: links.map(|links: Vec<_>| links.into_iter().map(class).collect()),
        }
    }
}

/// The facts of a row half that neither the call nor the measurement knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances<'a> {
    /// The size that was asked for.
    pub(crate) asked_bytes: u64,
    /// Whether it ran in place.
    pub(crate) in_place: bool,
    /// The transport's name.
    pub(crate) transport: &'a str,
}

fn row(call: &Call, around: Circumstances<'_>, measured: &Measured) -> String {
    let (algbw, busbw) = call.bandwidths(measured.times.p50_us);
    let row = Row {
        op: call.kind.name(),
        dtype: call.dtype.name(),
        bytes: call.bytes(),
        asked_bytes: around.asked_bytes,
        in_place: around.in_place,
        ranks: call.ranks,
        transport: around.transport,
        algo: &measured.how.algorithm,
        lanes: measured.how.lanes,
        chunk_bytes: measured.how.chunk_bytes,
        engine: measured.how.engine.as_deref(),
        iters: measured.iterations,
        p50_us: measured.times.p50_us,
        min_us: measured.times.min_us,
        p99_us: measured.times.p99_us,
        algbw_GBps: algbw,
        busbw_GBps: busbw,
        wrong: measured.wrong,
        cpu_us: measured.cpu_us,
        redop: call.kind.row().reduces.then(|| call.op.name()),
        root: call.is_rooted().then_some(call.root),
        calls_per_iter: measured.calls_per_iteration,
        p99_of_block: measured.calls_per_iteration > 1,
        simulated: measured.simulated.as_ref().map(|simulated| Simulated::new(simulated, measured)),
    };
    serde_json::to_string(&row).expect("a row of numbers and names has a JSON form")
}

/// The file that `--json` names.
#[derive(Debug)]
pub(crate) struct JsonLines {
    file: File,
    path: PathBuf,
}

impl JsonLines {
    /// Makes or empties the file.
    pub(crate) fn create(path: &Path) -> Outcome<Self> {
        let file = File::create(path).map_err(|error| Self::failure(path, &error))?;
        Ok(JsonLines { file, path: path.to_owned() })
    }

    /// Writes one row, unbuffered: what is measured is on disk even if the next row fails.
    pub(crate) fn write(
        &mut self,
        call: &Call,
        around: Circumstances<'_>,
        measured: &Measured,
    ) -> Outcome<()> {
        let line = row(call, around, measured) + "\n";
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|error| Self::failure(&self.path, &error))
    }

    fn failure(path: &Path, error: &std::io::Error) -> Failure {
        let advice = "free space there or name another file with --json";
        Failure::new(format!("cannot write {}: {error}; {advice}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::tests::call;
    use crate::measure::Explained;
    use crate::table::tests::measured;
    use crate::target::Kind;

    #[test]
    fn a_row_has_the_promised_fields_in_order() {
        let around = Circumstances { asked_bytes: 9, in_place: true, transport: "shm" };
        let line = row(&call(Kind::AllReduce, 2, 2), around, &measured(0.5, Some(0)));
        let golden = "{\"op\":\"all_reduce\",\"dtype\":\"f32\",\"bytes\":8,\"asked_bytes\":9,\"in_place\":true,\"ranks\":2,\
            \"transport\":\"shm\",\"algo\":\"ring\",\"lanes\":2,\"chunk_bytes\":65536,\"iters\":20,\"p50_us\":0.5,\"min_us\":0.5,\"p99_us\":0.5,\
            \"algbw_GBps\":0.016,\"busbw_GBps\":0.016,\"wrong\":0,\"cpu_us\":0.5,\"redop\":\"sum\",\"root\":null,\
            \"calls_per_iter\":1,\"p99_of_block\":false}";
        assert_eq!(line, golden);
    }

    #[test]
    fn a_block_and_a_simulation_are_marked() {
        let around = Circumstances { asked_bytes: 8, in_place: false, transport: "optical" };
        let simulated = crate::measure::Simulated {
            messages: 10,
            events: 20,
            retries: 0,
            lost: 0,
            hash: 255,
            real_us: 2.0,
            bound_us: 0.75,
        };
        let explained = Explained {
            path: "all of it".into(),
            parts: vec![("latency", "node".into(), 5)],
            links: vec![LinkClass {
                class: "out".into(),
                mean: 0.5,
                busiest: "rank 0 out".into(),
                most: 0.75,
            }],
        };
        let block = Measured {
            calls_per_iteration: 40,
            simulated: Some(simulated),
            explained: Some(explained),
            ..measured(1.0, None)
        };
        let line = row(&call(Kind::Broadcast, 2, 2), around, &block);
        for part in [
            "\"p99_of_block\":true",
            "\"virtual\":true",
            "\"messages_per_s\":5000000.0",
            "00ff\"",
            "\"wrong\":null",
            "\"root\":0",
            "\"percent_of_bound\":75.0",
            "\"critical_path\":[{\"what\":\"latency\",\"at\":\"node\",\"ps\":5}]",
            "\"links\":[{\"class\":\"out\",\"mean\":0.5,\"busiest\":\"rank 0 out\",\"most\":0.75}]",
        ] {
            assert!(line.contains(part), "{part} {line}");
        }
    }

    #[test]
    fn a_full_disk_and_a_missing_folder_name_the_file_and_what_to_do() {
        let around = Circumstances { asked_bytes: 8, in_place: false, transport: "shm" };
        let mut full = JsonLines::create(Path::new("/dev/full")).unwrap();
        let full = full.write(&call(Kind::Barrier, 0, 2), around, &measured(1.0, None));
        let missing = JsonLines::create(Path::new("/nowhere/at/all.json"));
        for failure in [full.unwrap_err(), missing.unwrap_err()] {
            let Failure::Message(text) = failure else { panic!("{failure:?}") };
            assert!(text.contains("/dev/full") || text.contains("/nowhere/at/all.json"), "{text}");
            assert!(text.contains("free space"), "{text}");
        }
    }
}
