//! The subscriber of the C library and the program: lines on standard error that tell host, process and rank.

use super::{Subsystems, directives};
use crate::Config;
use std::fmt::{self, Write as _};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, layer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, registry};
use ubccl_core::{Error, Result};

/// Shows on standard error what `debug` and `debug_subsys` ask for, for the whole process; `false` if that is nothing
/// or the process has a subscriber already. For programs: a library leaves this to the program it is part of.
///
/// Errors: InvalidArgument for subsystems that do not exist.
pub fn install(config: &Config) -> Result<bool> {
    if config.debug == super::Level::Off {
        return Ok(false);
    }
    let subsystems: Subsystems = config.debug_subsys.parse()?;
    let filter: Targets = directives(config.debug, &subsystems).parse().map_err(|error| {
        Error::internal(format!("the filter for {} does not parse: {error}", config.debug))
    })?;
    let lines = layer().event_format(Line::new()).with_writer(std::io::stderr).with_filter(filter);
    // Fails if there is one already: that one is the program's choice.
    Ok(registry().with(lines).try_init().is_ok())
}

/// `node7:4711 [3] UBCCL INFO init: text name=value`, which is NCCL's shape.
struct Line {
    host: String,
    pid: u32,
}

impl Line {
    fn new() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Line { host, pid: std::process::id() }
    }
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let Parts { rank, message, fields } = parts;
        let rank = rank.as_deref().unwrap_or("-");
        let metadata = event.metadata();
        let subsystem = metadata.target().rsplit("::").next().unwrap_or_default();
        let (host, pid, level) = (&self.host, self.pid, metadata.level());
        // A message is one line, whoever wrote what is in it.
        let text = format!("{message}{fields}").replace('\n', "\\n");
        writeln!(writer, "{host}:{pid} [{rank}] UBCCL {level} {subsystem}: {text}")
    }
}

/// An event's fields: the rank, the message, the others as ` name=value`.
#[derive(Default)]
struct Parts {
    rank: Option<String>,
    message: String,
    fields: String,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "rank" => {
                self.rank = Some(format!("{value:?}"));
                Ok(())
            }
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
