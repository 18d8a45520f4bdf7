//! What things cost here: where a communicator's cost model comes from, and how measurements become one.
//!
//! ```text
//! simulated    the fabric's description
//! otherwise    the file that `tuning` names on rank 0, refused if it is another machine's;
//!              else, or if it has no such transport, the model built in for the transport
//! ```
//!
//! Rank 0's is everybody's, so that all ranks choose alike.

use crate::config::{Config, settings};
use crate::machine;
use std::collections::BTreeMap;
use std::path::Path;
use ubccl_algorithms::find;
use ubccl_algorithms::tuner::{Correction, Engines, Fitted, Model, Point};
use ubccl_core::endpoint::Machine;
use ubccl_core::topology::parse_toml;
use ubccl_core::{Choice, Collective, Error, ErrorKind, Exchange, Kind, Layout, Result, Spec};

/// Measured by `ubccl tune` on the machine that the file's head tells, without its name: for machines nobody tuned.
const BUILT_IN: &str = include_str!("costs/built_in.toml");

/// Models by transport: what a file of `ubccl tune` holds.
type Models = BTreeMap<String, Model>;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Costs {
    engines: Engines,
    /// Cores that all ranks share, if processors move the bytes.
    cores: Option<u32>,
}

impl Costs {
    /// Of a simulated machine.
    pub(crate) fn of_machine(machine: &Machine) -> Self {
        Costs { engines: Engines::of(machine), cores: None }
    }

    /// Of a real transport; what other ranks than 0 have is not looked at.
    ///
    /// Errors: InvalidArgument, for a file that cannot be read, is wrong, or is another machine's; for an engine that there
    /// is not.
    pub(crate) fn of_config(config: &Config) -> Result<Self> {
        let costs = Self::of_transport(config)?;
        if let Some(engine) = &config.engine {
            costs.engines.find(engine).map_err(|error| config.blame(&settings::ENGINE, error))?;
        }
        Ok(costs)
    }

    fn of_transport(config: &Config) -> Result<Self> {
        if let Some(machine) = config.machine()? {
            // At the fabric's pace each message passes the ports by itself.
            let costs = Costs::of_machine(&machine);
            return Ok(Costs { engines: costs.engines.map(Model::with_plain_switches), ..costs });
        }
        // Found before: another name for the same.
        let transport = ubccl_transports::find(&config.transport).map_or("", |found| found.descriptor().name);
        let tuned = match config.tuning.as_deref().filter(|_| config.rank == 0) {
            Some(path) => read(path)
                .and_then(|models| of_here(models, path))
                .map_err(|error| config.blame(&settings::TUNING, error))?
                .remove(transport),
            None => None,
        };
        let built_in = || {
            let mut models: Models = parse_toml("the built-in costs", BUILT_IN)?;
            // A transport nobody measured costs what shared memory does: wrong numbers, but the same on all ranks.
            let model = models.remove(transport).or_else(|| models.remove("shm"));
            model.ok_or_else(|| Error::internal("there are no built-in costs"))
        };
        Ok(Costs { engines: tuned.map_or_else(built_in, Ok)?.into(), cores: None })
    }

    /// With so many cores for all ranks.
    pub(crate) fn on_cores(self, cores: u32) -> Self {
        Costs { cores: Some(cores), ..self }
    }

    /// Rank 0's, on every rank.
    pub(crate) fn of_first(self, exchange: &mut dyn Exchange, cores: u32) -> Result<Self> {
        let mine = if exchange.rank() == 0 { self.engines.to_toml()? } else { String::new() };
        let all = exchange.all_gather(mine.as_bytes())?;
        let text = String::from_utf8_lossy(&all[0]);
        let engines = Engines::from_toml(&text).map_err(|error| {
            let message = format!("rank 0's costs are not understood (another version of ubccl?): {error}");
            Error::new(ErrorKind::Start, message)
        })?;
        Ok(Costs { engines, cores: Some(cores) })
    }

    /// To reckon with where ranks stand so: groups share the cores in proportion.
    pub(crate) fn engines(&self, layout: &Layout) -> Engines {
        let group = |cores: u32| {
            let (largest, ranks) =
                (u64::from(layout.levels()[0].largest()), u64::from(layout.ranks().max(1)));
            (u64::from(cores) * largest / ranks).max(1) as u32
        };
        let cores = self.cores.map(group);
        self.engines.clone().map(|model| Model { cores, ..model })
    }
}

/// The models of a file.
fn read(path: &Path) -> Result<Models> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("the tuning file {} cannot be read", path.display());
        Error::new(ErrorKind::InvalidArgument, message).with_source(error)
    })?;
    let models: Models = parse_toml(&format!("the tuning file {}", path.display()), &text)?;
    for model in models.values() {
        model.check()?;
    }
    Ok(models)
}

/// The models, if they were measured here.
fn of_here(models: Models, path: &Path) -> Result<Models> {
    let here = machine::identity();
    let others = models.values().filter_map(|model| model.fitted.as_ref()).map(|fitted| &fitted.machine);
    match others.into_iter().find(|&other| *other != here) {
        None => Ok(models),
        Some(other) => Err(Error::invalid(format!(
            "the tuning file {} was measured on another machine ({other}; this is {here}): run `ubccl tune` here",
            path.display()
        ))),
    }
}

/// How long a call took.
#[derive(Clone, Debug)]
pub struct Measurement<'a> {
    /// The call, as rank 0 made it.
    pub call: Collective<'a>,
    /// How many ranks made it.
    pub ranks: u32,
    /// The algorithm's name.
    pub algorithm: String,
    /// With how many lanes and what chunks.
    pub choice: Choice,
    /// How long it took.
    pub seconds: f64,
}

/// A cost model that was fitted to measurements on this machine.
#[derive(Clone, Debug)]
pub struct Tuning {
    transport: String,
    model: Model,
}

impl Tuning {
    /// Fits the model of a transport.
    ///
    /// Errors: InvalidArgument, for an algorithm that does not exist, or too few measurements.
    pub fn fit(transport: &str, measurements: &[Measurement<'_>]) -> Result<Self> {
        let config = Config { transport: transport.to_owned(), ..Config::default() };
        let costs = Costs::of_config(&config)?;
        let cores = crate::cores::own();
        let point = |measurement: &Measurement<'_>| {
            let Measurement { call, ranks, algorithm, choice, seconds } = measurement;
            let layout = Layout::flat(*ranks);
            let spec = Spec::new(call, *ranks, 0, false, *choice);
            let profile = find(algorithm)?.profile(&spec, &layout);
            Ok(Point {
                profile,
                layout,
                bytes: call.longest_bytes(*ranks),
                choice: *choice,
                seconds: *seconds,
            })
        };
        let points = measurements.iter().map(point).collect::<Result<Vec<_>>>()?;
        let start = Model {
            cores: Some(cores),
            at_once: None,
            correction: Vec::new(),
            fitted: None,
            ..costs.engines.first().clone()
        };
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let (model, residuals) = start.fit(&points)?;
        let correction = corrections(&model, measurements, &points);
        let fitted = Fitted {
            machine: machine::identity(),
            date,
            residual_median: residuals.median,
            residual_worst: residuals.worst,
            points: points.len() as u32,
        };
        Ok(Tuning {
            transport: transport.to_owned(),
            model: Model { correction, fitted: Some(fitted), ..model },
        })
    }

    /// How far predictions are from measurements, as a share of these: half of them are nearer, and the farthest.
    pub fn residuals(&self) -> (f64, f64) {
        self.model
            .fitted
            .as_ref()
            .map_or((0.0, 0.0), |fitted| (fitted.residual_median, fitted.residual_worst))
    }

    /// Writes it to a file; what that holds of other transports of this machine stays.
    ///
    /// Errors: InvalidArgument, for a file that is something else; System, if it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut models =
            if path.exists() { read(path).and_then(|models| of_here(models, path))? } else { Models::new() };
        models.insert(self.transport.clone(), self.model.clone());
        let text =
            toml::to_string(&models).map_err(|error| Error::internal(format!("the costs: {error}")))?;
        std::fs::write(path, HEAD.to_owned() + &text)
            .map_err(|error| Error::system(format!("{} cannot be written", path.display()), error))
    }
}

/// Sizes, each with a factor.
type Sizes = Vec<(u64, f64)>;

/// How each algorithm differs from what the model's numbers say of it.
fn corrections(model: &Model, measurements: &[Measurement<'_>], points: &[Point]) -> Vec<Correction> {
    let mut factors: BTreeMap<(u8, u32, &str), Sizes> = BTreeMap::new();
    for (measurement, point) in measurements.iter().zip(points) {
        let predicted_ps = model.cost(&point.profile, point.bytes, &point.choice, &point.layout).total_ps();
        let factor = point.seconds * 1e12 / predicted_ps.max(1.0);
        let key = (measurement.call.kind().code(), measurement.ranks, &*measurement.algorithm);
        factors.entry(key).or_default().push((point.bytes, factor));
    }
    let kinds = Kind::TABLE.iter().map(|row| row.kind);
    let of_kind = |kind: Kind| {
        let mine = factors.iter().filter(move |(key, _)| key.0 == kind.code());
        mine.map(move |(key, measured)| Correction::new(kind, key.2, key.1, measured.clone()))
    };
    kinds.flat_map(of_kind).collect()
}

/// First in every file.
const HEAD: &str = "# What messages, copies and reductions cost on this machine, by transport: written by `ubccl tune`,\n\
                    # read where UBCCL_TUNING or --tuning names this file.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_real_transport_has_built_in_costs_that_hold() {
        let models: Models = parse_toml("the built-in costs", BUILT_IN).unwrap();
        for transport in ubccl_transports::index().iter().map(|transport| transport.descriptor()) {
            if transport.clock == ubccl_core::endpoint::Clock::Real {
                models[transport.name].check().unwrap();
                assert!(models[transport.name].fitted.is_none(), "{}: for any machine", transport.name);
            }
        }
    }

    #[test]
    fn another_machines_file_is_refused_and_ones_own_is_read() {
        let mut models: Models = parse_toml("the built-in costs", BUILT_IN).unwrap();
        let fitted = |machine: &str| Fitted {
            machine: machine.to_owned(),
            date: "2026-01-02".to_owned(),
            residual_median: 0.1,
            residual_worst: 0.5,
            points: 7,
        };
        let path = Path::new("here.toml");
        for model in models.values_mut() {
            model.fitted = Some(fitted(&machine::identity()));
        }
        assert_eq!(of_here(models.clone(), path).unwrap(), models);
        models.get_mut("shm").unwrap().fitted = Some(fitted("another, 3 CPUs"));
        let error = of_here(models, path).unwrap_err();
        assert!(error.message().contains("another machine (another, 3 CPUs; this is"), "{error}");
    }
}
