//! What a communicator may be told, and where from: argument, then environment, then file, then default. Environment
//! variables and the configuration file are read here and nowhere else.
//!
//! ```text
//! settings   the table: one entry for each thing that can be set      setting  what an entry is, its type and range
//! origin     where each value came from                               file     TOML, with line numbers
//! agreement  what all ranks must have alike
//! ```

mod agreement;
mod file;
mod origin;
mod setting;
pub mod settings;
#[cfg(test)]
mod tests;

pub(crate) use agreement::check_alike;
pub use origin::{Origin, Origins, Resolved};
pub use setting::{Agreement, Place, Setting};

use crate::control::Rendezvous;
use crate::logging::Level;
use crate::sim::WorldConfig;
use file::File;
use settings::SETTINGS;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ubccl_core::endpoint::{Clock, ConnectOptions, Machine};
use ubccl_core::{Error, Layout, Result};

/// How a communicator is made.
///
/// [`Config::from_env`] fills it from the environment and the configuration file; what a program sets in it comes
/// before both:
///
/// ```
/// # fn main() -> ubccl::Result<()> {
/// use ubccl::{Communicator, Config};
/// let config = Config { transport: "shm".into(), ..Config::from_env()? };
/// for told in config.describe() {
///     println!("{told}"); // lanes = 1 (default) …
/// }
/// Communicator::init(config)?.close()
/// # }
/// ```
///
/// Every field is an entry of [`settings::SETTINGS`], which knows its variable, range and documentation.
#[derive(Debug)]
pub struct Config {
    /// Where the ranks meet; one rank alone needs none. Rank 0 makes it ([`Rendezvous::create`]) and keeps it here; the
    /// others parse its text: `Some(text.parse()?)`.
    pub rendezvous: Option<Rendezvous>,
    /// This rank.
    pub rank: u32,
    /// How many ranks.
    pub ranks: u32,
    /// The transport's name.
    pub transport: String,
    /// With transport `optical`: the fabric at whose pace real data move between real processes (a preset's name,
    /// `custom:latency_ps=…,bytes_per_s=…`, or TOML text). A communicator split from one is paced as the first ranks of
    /// the fabric, with ports of its own.
    pub paced: Option<String>,
    /// An algorithm for every call (`ring`), or a family for each level of the layout (`node:mesh;all:nhr`), instead of
    /// the tuner's.
    pub algorithm: Option<String>,
    /// The engine for every call, of a paced fabric with several, instead of the tuner's.
    pub engine: Option<String>,
    /// Which ranks stand together, as [`Layout::parse`](ubccl_core::Layout::parse) reads it; `None` is one level.
    pub layout: Option<String>,
    /// Only algorithms that give the same bits, whichever of them runs, on any transport and layout.
    pub reproducible: bool,
    /// The file of `ubccl tune` for this machine; rank 0's counts for all.
    pub tuning: Option<PathBuf>,
    /// Bytes of a chunk where an algorithm pipelines, instead of the tuner's; the same on all ranks.
    pub chunk_bytes: Option<u32>,
    /// Lanes that a plan may use; the same on all ranks.
    pub lanes: u8,
    /// Bytes of buffering for each ordered pair of ranks; the same on all ranks.
    pub pair_bytes: Option<u64>,
    /// Whether this rank may read messages in the memory of other processes, and be read by them.
    pub peer_reads: bool,
    /// How long start-up may take.
    pub start_timeout: Duration,
    /// How long one operation may take before it fails and poisons the communicator.
    pub operation_timeout: Duration,
    /// After how long a waiting operation says which ranks are missing.
    pub warn_after: Duration,
    /// How long a waiting call looks for messages before it sleeps. With more ranks than cores it gives its core away
    /// between looks.
    pub spin: Duration,
    /// How much is logged, where something shows it: see [`crate::logging`].
    pub debug: Level,
    /// What is logged about: subsystems with commas between, `^` before the first for all but them.
    pub debug_subsys: String,
    /// Where the values came from. Made by the constructors; a field changed afterwards counts as an argument.
    pub origins: Origins,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            rendezvous: None,
            rank: 0,
            ranks: 1,
            transport: "shm".into(),
            paced: None,
            algorithm: None,
            engine: None,
            layout: None,
            reproducible: false,
            tuning: None,
            chunk_bytes: None,
            lanes: 1,
            pair_bytes: None,
            peer_reads: true,
            start_timeout: Duration::from_secs(120),
            operation_timeout: Duration::from_secs(30 * 60),
            warn_after: Duration::from_secs(10),
            // Waking a blocked core costs 50 us.
            spin: Duration::from_millis(1),
            debug: Level::Off,
            debug_subsys: "ALL".into(),
            origins: Origins::default(),
        }
    }
}

impl Config {
    /// The defaults, changed by the file that `UBCCL_CONFIG` names, if it names one, and then by the environment.
    ///
    /// Errors: InvalidArgument, naming the variable, or the file and its line, and what the value may be; a file that
    /// is named and cannot be read.
    pub fn from_env() -> Result<Self> {
        Self::from_arguments(&[])
    }

    /// The same for a rank that was given as an argument, as by a program that starts its own ranks:
    ///
    /// ```
    /// use ubccl::{Communicator, Config, Rendezvous};
    /// # fn main() -> ubccl::Result<()> {
    /// let ranks = 1;
    /// let rendezvous = Rendezvous::create()?;
    /// // … start ranks 1 to ranks - 1, with rendezvous.text() in their UBCCL_RENDEZVOUS …
    /// let config = Config { rendezvous: Some(rendezvous), ..Config::from_env_with(0, ranks)? };
    /// Communicator::init(config)?.close()
    /// # }
    /// ```
    pub fn from_env_with(rank: u32, ranks: u32) -> Result<Self> {
        let place = [(settings::RANK.name, rank.to_string()), (settings::SIZE.name, ranks.to_string())];
        Self::from_arguments(&place.each_ref().map(|(name, value)| (*name, value.as_str())))
    }

    /// The same for settings that were given as arguments, as names and texts: `("chunk", "64K")`. They come before
    /// the environment.
    ///
    /// Errors: as [`Config::from_env`]; a name that is no setting's.
    pub fn from_arguments(arguments: &[(&str, &str)]) -> Result<Self> {
        let environment = Environment {
            get: &from_process,
            names: std::env::vars_os().map(|row| row.0).filter_map(|name| name.into_string().ok()).collect(),
        };
        Self::resolve(arguments, &environment)
    }

    fn resolve(arguments: &[(&str, &str)], environment: &Environment<'_>) -> Result<Self> {
        for (name, _) in arguments {
            settings::find(name)?;
        }
        let argument =
            |name: &str| arguments.iter().rev().find(|row| row.0 == name).map(|row| row.1.to_owned());
        let mut config = Config::default();
        let mut file = File::default();
        // The file's own setting is the table's first entry.
        for setting in SETTINGS {
            let given = match argument(setting.name) {
                Some(text) => Some((text, Origin::Argument)),
                None => match (environment.get)(setting.variable)? {
                    Some(text) => Some((text, Origin::Environment(setting.variable))),
                    None => file.get(setting.name),
                },
            };
            let Some((text, origin)) = given else { continue };
            setting.read(&mut config, text.trim()).map_err(|error| origin.blame(setting, &text, &error))?;
            if setting.name == settings::CONFIG.name {
                file = File::read(Path::new(text.trim()))?;
            }
            let noted = Origins::noted(setting, &config, origin);
            config.origins.note(noted);
        }
        config.origins.strays = settings::strays(&environment.names);
        config.check()?;
        Ok(config)
    }

    /// Every setting with its value and where that came from, in the table's order. Secrets are not shown.
    pub fn describe(&self) -> Vec<Resolved> {
        SETTINGS.iter().map(|setting| self.origins.resolved(setting, self)).collect()
    }

    /// Checks every value against the table, and what belongs together.
    ///
    /// Errors: InvalidArgument.
    pub(crate) fn check(&self) -> Result<()> {
        for setting in SETTINGS {
            setting.check(self).map_err(|why| {
                let told = self.origins.resolved(setting, self);
                Error::invalid(format!("{} is {} ({}); {why}", setting.name, told.value, told.origin))
            })?;
        }
        if self.rank >= self.ranks {
            let last = self.ranks - 1;
            return Err(Error::invalid(format!("rank {} is out of range; ranks are 0 to {last}", self.rank)));
        }
        Ok(())
    }

    /// What the transport is told.
    pub(crate) fn connect_options(&self) -> ConnectOptions {
        let Config { lanes, pair_bytes, ref paced, peer_reads, .. } = *self;
        ConnectOptions { lanes, pair_bytes, paced: paced.clone(), peer_reads }
    }

    /// The machine at whose pace data move, if there is one.
    ///
    /// Errors: InvalidArgument, for a fabric that does not exist or is too small, or a transport that is not simulated.
    pub(crate) fn machine(&self) -> Result<Option<Machine>> {
        let Some(fabric) = &self.paced else { return Ok(None) };
        let transport = ubccl_transports::find(&self.transport)?;
        let name = transport.descriptor().name;
        if transport.descriptor().clock != Clock::Virtual {
            let message = format!("{name} is as fast as it is: only a simulated transport can be paced");
            return Err(self.blame(&settings::PACED, Error::invalid(message)));
        }
        let config = WorldConfig { fabric: fabric.clone(), ranks: self.ranks, ..WorldConfig::default() };
        let world = transport.world(&config.options());
        Ok(Some(world.map_err(|error| self.blame(&settings::PACED, error))?.machine()))
    }

    /// Where the ranks stand: as configured, otherwise as a machine that sets the pace is built.
    ///
    /// Errors: InvalidArgument, saying what is wrong with the text.
    pub(crate) fn layout(&self) -> Result<Layout> {
        if let (None, Some(machine)) = (&self.layout, self.machine()?) {
            return Ok(Layout::of(&machine.topology, self.ranks));
        }
        let text = self.layout.as_deref().unwrap_or_default();
        Layout::parse(text, self.ranks).map_err(|error| self.blame(&settings::LAYOUT, error))
    }

    /// An error about a setting's value, with where the value came from unless the program itself gave it.
    pub(crate) fn blame(&self, setting: &'static Setting, error: Error) -> Error {
        match self.origins.resolved(setting, self).origin {
            Origin::Default | Origin::Argument => error,
            origin => Error::new(error.kind(), format!("{} ({origin})", error.message())),
        }
    }
}

/// The environment, or a test's.
struct Environment<'a> {
    /// The value of a variable that is set to something.
    get: &'a dyn Fn(&str) -> Result<Option<String>>,
    /// The variables there are.
    names: Vec<String>,
}

/// A variable of this process; set to nothing counts as not set.
fn from_process(name: &str) -> Result<Option<String>> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    let text = value.into_string().map_err(|_| Error::invalid(format!("{name} is not UTF-8")))?;
    Ok((!text.trim().is_empty()).then_some(text))
}
