//! What a simulated call leaves beside its times: where they went, a trace, a picture of the links.

use crate::failure::{Failure, Outcome};
use crate::measure::{Explained, LinkClass};
use crate::picture::{ClassRows, LINK_PARTS, LinkPicture, PictureFile, draw_links};
use crate::target::{Recording, Trace};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// So many parts of a critical path are told in JSON; the rest are many and short.
const MOST_PARTS: usize = 20;

/// Who wants to know.
#[derive(Debug, Default)]
pub(crate) struct Observers {
    /// Whether `--where` was given.
    pub(crate) explains: bool,
    /// The file of `--trace`.
    pub(crate) trace: Option<TraceFile>,
    /// The file of `--links`, and its second line.
    pub(crate) links: Option<(PictureFile, String)>,
}

/// A trace that is being written.
#[derive(Debug)]
pub(crate) struct TraceFile {
    trace: Trace<BufWriter<File>>,
    path: PathBuf,
}

impl TraceFile {
    /// Makes or empties the file.
    pub(crate) fn create(path: &Path) -> Outcome<Self> {
        let file = File::create(path).map_err(|error| failure(path, &error))?;
        Ok(TraceFile { trace: Trace::new(BufWriter::new(file)), path: path.to_owned() })
    }
}

fn failure(path: &Path, error: &std::io::Error) -> Failure {
    let advice = "free space there, trace fewer ranks or smaller sizes, or name another file with --trace";
    Failure::new(format!("cannot write {}: {error}; {advice}", path.display()))
}

impl Observers {
    /// Whether calls have to be recorded.
    pub(crate) fn record(&self) -> bool {
        self.explains || self.trace.is_some() || self.links.is_some()
    }

    /// Looks at one recorded call; where its time went, if that is asked for.
    pub(crate) fn see(
        &mut self,
        recording: &Recording,
        [title, how]: &[String; 2],
    ) -> Outcome<Option<Explained>> {
        if let Some(TraceFile { trace, path }) = &mut self.trace {
            trace.add(recording).map_err(|error| failure(path, &error))?;
        }
        if let Some((file, below)) = &self.links {
            let below = format!("{below}; {how}");
            file.write(&draw_links(&link_picture(recording, title, &below))?, "--links")?;
        }
        if self.explains { explain(recording).map(Some) } else { Ok(None) }
    }
}

/// From the operation's beginning to its end.
fn span(recording: &Recording) -> (u64, u64) {
    let starts = recording.operations.iter().map(|operation| operation.start_ps());
    let ends = recording.operations.iter().filter_map(|operation| operation.end_ps());
    (starts.min().unwrap_or(0), ends.max().unwrap_or(0))
}

fn explain(recording: &Recording) -> Outcome<Explained> {
    let record = &recording.record;
    // Alone, a rank does nothing.
    let (path, parts) = match recording.operations.is_empty() {
        true => ("it took no time".to_owned(), Vec::new()),
        false => {
            let path = recording.critical_path(0)?;
            (path.describe(record), path.parts())
        }
    };
    let parts = parts.into_iter().take(MOST_PARTS);
    let (from_ps, until_ps) = span(recording);
    let classes = recording.utilisation(from_ps, until_ps).into_iter().map(|class| {
        let (busiest, most) =
            class.busiest.map_or((String::new(), 0.0), |(link, share)| (record.link(link), share));
        LinkClass { class: class.class, mean: class.mean, busiest, most }
    });
    Ok(Explained {
        path,
        parts: parts.map(|part| (part.what.name(), record.place(&part.at), part.ps)).collect(),
        links: classes.collect(),
    })
}

fn link_picture(recording: &Recording, title: &str, below: &str) -> LinkPicture {
    let record = &recording.record;
    let (from_ps, until_ps) = span(recording);
    let mut classes: Vec<ClassRows> =
        record.classes.iter().map(|class| ClassRows { class: class.clone(), rows: Vec::new() }).collect();
    for used in recording.utilisation_over_time(from_ps, until_ps, LINK_PARTS) {
        classes[record.class_of(used.link)].rows.push(used.shares);
    }
    classes.retain(|class| !class.rows.is_empty());
    let (title, below) = (title.to_owned(), below.to_owned());
    LinkPicture { title, below, elapsed_ps: until_ps.saturating_sub(from_ps), classes }
}
