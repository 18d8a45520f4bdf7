//! The seam to the library: everything the program asks of it goes through here.

use ubccl::Measurement;
pub(crate) use ubccl::settings;
pub(crate) use ubccl::{Candidate, Choice, Cost, Planner};
pub(crate) use ubccl::{DataType, Error, ErrorKind, F8E4M3, F8E5M2, Kind, ReduceOp, Resolved};

mod calls;

use crate::bound::Ports;
use crate::call::Call;
use crate::measure::Simulated;
use crate::orders::How;
use calls::{Calls, untabled};
use std::time::Duration;
pub(crate) use ubccl::Config;
use ubccl::plan::Plan;
use ubccl::settings::SETTINGS;
pub(crate) use ubccl::sim::Fidelity;
pub(crate) use ubccl::sim::{Fabric, FabricLevel, Moment};
use ubccl::sim::{RankMemory, World, WorldConfig};
pub(crate) use ubccl::trace::{Recording, perfetto::Trace};
use ubccl::{Clock, Collective, Communicator, Origin, Reach, Rendezvous, Result, Setting, Tuning};

/// One rank's communicator, as the measuring needs it.
pub(crate) trait Target {
    /// This rank.
    fn rank(&self) -> u32;
    /// How many ranks there are.
    fn ranks(&self) -> u32;
    /// The calls from here on are this one.
    fn select(&mut self, call: &Call);
    /// Runs the selected call from `input` to `output`.
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<()>;
    /// Runs the selected call in place.
    fn run_in_place(&mut self, buffer: &mut [u8]) -> Result<()>;
    /// Waits until all ranks are here.
    fn barrier(&mut self) -> Result<()>;
    /// Does calls so from now on, or as the tuner chooses.
    fn force(&mut self, how: Option<&How>) -> Result<()>;
    /// How the selected call is done.
    fn how(&self) -> Result<How>;
    /// Begins (`true`) or ends to measure where the time goes; the end tells nanoseconds of check, look-up, post and
    /// poll.
    fn breakdown(&mut self, begin: bool) -> Option<[u64; 4]>;
}

/// Settings that the command line gives, as names and texts.
pub(crate) type Settings = Vec<(String, String)>;

/// The configuration that the command line, the environment and the file give.
pub(crate) fn configuration(settings: &Settings) -> Result<Config> {
    let given: Vec<(&str, &str)> = settings.iter().map(|(name, text)| (&**name, &**text)).collect();
    Config::from_arguments(&given)
}

/// Shows on standard error what `UBCCL_DEBUG` asks for. What is wrong with the configuration is for the subcommand to
/// say, if it uses one.
pub(crate) fn show_logs() {
    let _ = Config::from_env().and_then(|config| ubccl::logging::install(&config));
}

/// A new place to meet, which rank 0 makes.
pub(crate) fn new_rendezvous() -> Result<Rendezvous> {
    Rendezvous::create()
}

/// A rank of a real communicator.
pub(crate) struct Member {
    communicator: Communicator,
    /// For barriers around what is timed, once an algorithm was forced: they must be the same for all algorithms.
    barriers: Option<Communicator>,
    selected: Result<Selected>,
}

/// The selected call.
enum Selected {
    /// As it is, since making it anew each time would show in small calls.
    Plain(Collective<'static>),
    /// With its tables.
    Tabled(Calls),
}

impl Member {
    /// Joins.
    pub(crate) fn join(config: Config) -> Result<Self> {
        Ok(Member {
            communicator: Communicator::init(config)?,
            barriers: None,
            selected: Ok(Selected::Plain(Collective::barrier())),
        })
    }

    /// Bytes of memory that its communicator takes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.communicator.memory().total()
    }

    /// Leaves in good order.
    pub(crate) fn close(self) -> Result<()> {
        self.barriers.map_or(Ok(()), Communicator::close)?;
        self.communicator.close()
    }

    #[inline]
    fn with_call<R>(&self, act: impl FnOnce(&Communicator, &Collective<'_>) -> Result<R>) -> Result<R> {
        match &self.selected {
            Ok(Selected::Plain(call)) => act(&self.communicator, call),
            Ok(Selected::Tabled(calls)) => act(&self.communicator, &calls.of(self.communicator.rank())),
            Err(error) => Err(error.clone()),
        }
    }
}

impl Target for Member {
    fn rank(&self) -> u32 {
        self.communicator.rank()
    }

    fn ranks(&self) -> u32 {
        self.communicator.ranks()
    }

    fn select(&mut self, call: &Call) {
        self.selected = Calls::new(call)
            .map(|calls| untabled(call, self.rank()).map_or(Selected::Tabled(calls), Selected::Plain));
    }

    #[inline]
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<()> {
        self.with_call(|communicator, call| communicator.run(call, input, output))
    }

    #[inline]
    fn run_in_place(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.with_call(|communicator, call| communicator.run_in_place(call, buffer))
    }

    fn barrier(&mut self) -> Result<()> {
        self.barriers.as_ref().unwrap_or(&self.communicator).barrier()
    }

    fn force(&mut self, wanted: Option<&How>) -> Result<()> {
        if self.barriers.is_none() {
            self.barriers = Some(self.communicator.duplicate()?);
        }
        let engines = self.communicator.engines();
        self.communicator.force(wanted.map(|&How { ref algorithm, lanes, chunk_bytes, ref engine }| {
            let place = engines.iter().position(|name| Some(name) == engine.as_ref());
            (algorithm.as_str(), Choice { lanes, chunk_bytes, engine: place.map(|place| place as u8) })
        }))
    }

    fn how(&self) -> Result<How> {
        self.with_call(|communicator, call| {
            let choice = communicator.choice_for(call)?;
            Ok(how(communicator.algorithm_for(call)?, choice, &communicator.engines()))
        })
    }

    fn breakdown(&mut self, begin: bool) -> Option<[u64; 4]> {
        if begin {
            self.communicator.start_breakdown();
            return None;
        }
        let found = self.communicator.stop_breakdown()?;
        Some([found.check, found.look_up, found.post, found.poll].map(|part| part.as_nanos() as u64))
    }
}

/// A simulated machine with all its ranks.
pub(crate) struct Machine {
    world: World,
}

/// How a simulated machine is made.
#[derive(Clone, Debug)]
pub(crate) struct MachineOptions {
    /// A preset's name, `custom:…`, or TOML.
    pub(crate) fabric: String,
    /// How many ranks.
    pub(crate) ranks: u32,
    /// How collectives are done, but for what stands in the environment.
    pub(crate) settings: Settings,
    /// Seed of everything random.
    pub(crate) seed: u64,
    /// How exactly messages are timed.
    pub(crate) fidelity: Fidelity,
    /// What goes wrong, in TOML.
    pub(crate) faults: String,
    /// How every call is done, whatever the settings say.
    pub(crate) how: Option<How>,
    /// After so much virtual time a call ends in a timeout.
    pub(crate) timeout: Option<Duration>,
}

/// A world as the command line, the environment and the file want it.
fn world_config(settings: &Settings) -> Result<WorldConfig> {
    let config = configuration(settings)?;
    let default = WorldConfig::default();
    let told = |told: &Resolved| told.setting.name == settings::LANES.name && told.origin != Origin::Default;
    let lanes = if config.describe().iter().any(told) { config.lanes } else { default.lanes };
    let Config { algorithm, engine, layout, reproducible, chunk_bytes, .. } = config;
    Ok(WorldConfig { algorithm, engine, layout, reproducible, lanes, chunk_bytes, ..default })
}

/// What one simulated call gave.
#[derive(Debug)]
pub(crate) struct Simulation {
    /// Virtual time.
    pub(crate) elapsed_ps: u64,
    /// Wrong elements, as far as the simulation itself can tell.
    pub(crate) wrong: u64,
    /// How it was done.
    pub(crate) how: How,
    /// What happened; without the real time, which the caller knows.
    pub(crate) events: Simulated,
}

impl Machine {
    /// Makes the machine.
    pub(crate) fn new(options: &MachineOptions) -> Result<Self> {
        let MachineOptions { fabric, ranks, settings, seed, fidelity, faults, how, timeout } =
            options.clone();
        let mut config = WorldConfig { fabric, ranks, seed, fidelity, faults, ..world_config(&settings)? };
        config.operation_timeout = timeout.unwrap_or(config.operation_timeout);
        if let Some(How { algorithm, lanes, chunk_bytes, engine }) = how {
            (config.algorithm, config.engine) = (Some(algorithm), engine.or(config.engine));
            (config.lanes, config.chunk_bytes) = (lanes, Some(chunk_bytes));
        }
        if let Some(virtual_one) = ubccl::transports().find(|transport| transport.clock == Clock::Virtual) {
            config.transport = virtual_one.name.to_owned();
        }
        Ok(Machine { world: World::new(config)? })
    }

    /// What it is.
    pub(crate) fn describe(&self) -> String {
        self.world.describe()
    }

    /// What its ranks' ports can do at best.
    pub(crate) fn ports(&self) -> Ports {
        let machine = self.world.machine();
        let (topology, ranks) = (&machine.topology, self.world.ranks());
        let farthest = topology.shared_level(0, ranks.saturating_sub(1));
        // Overheads of both ranks are on the way too.
        let way = |link: &ubccl::Link| link.send_overhead_ps + link.latency_ps + link.receive_overhead_ps;
        let links = || machine.engines.iter().flat_map(|engine| engine.links[..=farthest].iter().enumerate());
        // On a ring a rank has two links, and the farthest is half way round.
        let has_ring = topology.levels()[0].ring.is_some();
        let rate = |(level, link): (usize, &ubccl::Link)| match has_ring && level == 0 && ranks > 2 {
            true => link.port_rate_bytes_per_s().saturating_mul(2),
            false => link.rate_bytes_per_s,
        };
        let around = has_ring && farthest == 0;
        let passing_ps = if around { topology.passing_ps(0, ranks / 2, ranks) } else { 0 };
        let farthest_ps = machine.engines.iter().map(|engine| way(&engine.links[farthest])).min();
        Ports {
            rate_bytes_per_s: links().map(rate).max().unwrap_or(1),
            nearest_ps: links().map(|(_, link)| way(link)).min().unwrap_or(0),
            farthest_ps: farthest_ps.unwrap_or(0) + passing_ps,
            around,
            folds: false,
            start_ps: 0,
        }
    }

    /// How long a call is expected to take, as the tuner reckons.
    pub(crate) fn expected_ps(&self, call: &Call) -> Option<f64> {
        let calls = Calls::new(call).ok()?;
        let candidates = self.world.candidates(&calls.of(0)).ok()?;
        let picked = candidates.iter().find(|candidate| candidate.is_picked)?;
        picked.cost.as_ref().ok().map(Cost::total_ps)
    }

    /// Has somebody told how far a call is.
    pub(crate) fn observe(&mut self, observer: Option<Box<dyn FnMut(Moment) + Send>>) {
        self.world.observe(observer);
    }

    /// Virtual time.
    pub(crate) fn now(&self) -> Moment {
        Moment { now_ps: self.world.now_ps(), messages: self.world.stats().messages }
    }

    /// Begins to record.
    pub(crate) fn start_recording(&mut self) {
        self.world.start_recording();
    }

    /// What was recorded.
    pub(crate) fn stop_recording(&mut self) -> Recording {
        self.world.stop_recording()
    }

    /// Runs a call on fingerprints of who contributed what.
    pub(crate) fn run_phantom(&mut self, call: &Call, in_place: bool) -> Result<Simulation> {
        let calls = Calls::new(call)?;
        let outcome = self.world.run_phantom(&|rank| calls.of(rank), in_place)?;
        Ok(simulation(outcome, &self.world.engines()))
    }

    /// Runs a call on real bytes: two buffers for each rank, or one in place.
    pub(crate) fn run_real(
        &mut self,
        call: &Call,
        in_place: bool,
        data: &mut [[Vec<u8>; 2]],
    ) -> Result<Simulation> {
        let calls = Calls::new(call)?;
        let mut memory: Vec<RankMemory> = data
            .iter_mut()
            .map(|rank| match rank.each_mut().map(std::mem::take) {
                [buffer, _] if in_place => RankMemory::InPlace(buffer),
                [input, output] => RankMemory::Apart { input, output },
            })
            .collect();
        let outcome = self.world.run_real(&|rank| calls.of(rank), &mut memory);
        for (rank, memory) in data.iter_mut().zip(memory) {
            *rank = match memory {
                RankMemory::InPlace(buffer) => [buffer, Vec::new()],
                RankMemory::Apart { input, output } => [input, output],
            };
        }
        Ok(simulation(outcome?, &self.world.engines()))
    }
}

fn simulation(outcome: ubccl::sim::Outcome, engines: &[String]) -> Simulation {
    let ubccl::sim::Outcome { elapsed_ps, stats, wrong, algorithm, choice, .. } = outcome;
    let events = Simulated {
        messages: stats.messages,
        events: stats.events,
        retries: stats.retries,
        lost: stats.lost,
        hash: stats.hash,
        real_us: 0.0,
        bound_us: 0.0,
    };
    Simulation { elapsed_ps, wrong, how: how(algorithm, choice, engines), events }
}

/// What plans and explains without a communicator.
pub(crate) fn planner(
    settings: &Settings,
    ranks: u32,
    fabric: Option<(String, Fidelity)>,
) -> Result<Planner> {
    match fabric {
        Some((fabric, fidelity)) => {
            Planner::simulated(&WorldConfig { fabric, ranks, fidelity, ..world_config(settings)? })
        }
        None => Planner::new(&Config { rank: 0, ranks, rendezvous: None, ..configuration(settings)? }),
    }
}

/// An algorithm, its numbers and its engine, as the program passes them on.
pub(crate) fn how(algorithm: &str, choice: Choice, engines: &[String]) -> How {
    let Choice { lanes, chunk_bytes, engine } = choice;
    let engine = engine.and_then(|place| engines.get(usize::from(place)).cloned());
    How { algorithm: algorithm.to_owned(), lanes, chunk_bytes, engine }
}

/// The plan of one rank's call.
pub(crate) fn plan(planner: &Planner, call: &Call, rank: u32, in_place: bool) -> Result<Plan> {
    planner.plan(&Calls::new(call)?.of(rank), rank, in_place)
}

/// Each algorithm in its best form, with what it is predicted to take in microseconds.
pub(crate) fn best_of_each(planner: &Planner, call: &Call) -> Result<Vec<(How, f64)>> {
    let mut best: Vec<(How, f64)> = Vec::new();
    for candidate in candidates(planner, call)? {
        let name = candidate.algorithm.descriptor().name;
        if let Ok(cost) = candidate.cost
            && !best.iter().any(|known| known.0.algorithm == name)
        {
            best.push((how(name, candidate.choice, &planner.engines()), cost.total_ps() / 1e6));
        }
    }
    Ok(best)
}

/// An algorithm by its name, in one of its forms.
pub(crate) type Way = (String, Choice);

/// The ways to do a call: each algorithm in its best form.
pub(crate) fn ways(planner: &Planner, call: &Call) -> Result<Vec<Way>> {
    let mut ways: Vec<Way> = Vec::new();
    for candidate in candidates(planner, call)?.iter().filter(|candidate| candidate.cost.is_ok()) {
        let name = candidate.algorithm.descriptor().name;
        if !ways.iter().any(|way| way.0 == name) {
            ways.push((name.to_owned(), candidate.choice));
        }
    }
    Ok(ways)
}

/// How long a call took.
#[derive(Debug)]
pub(crate) struct Timed {
    /// The call.
    pub(crate) call: Call,
    /// How it was done.
    pub(crate) way: Way,
    /// How long, in seconds.
    pub(crate) seconds: f64,
}

/// The cost model that measured times fit.
pub(crate) fn fit(transport: &str, timed: &[Timed]) -> Result<Tuning> {
    let calls: Vec<Calls> = timed.iter().map(|timed| Calls::new(&timed.call)).collect::<Result<_>>()?;
    let measurements: Vec<Measurement<'_>> = timed
        .iter()
        .zip(&calls)
        .map(|(Timed { call, way: (algorithm, choice), seconds }, calls)| Measurement {
            call: calls.of(0),
            ranks: call.ranks,
            algorithm: algorithm.clone(),
            choice: *choice,
            seconds: *seconds,
        })
        .collect();
    Tuning::fit(transport, &measurements)
}

/// What a call may be done with, the best first.
pub(crate) fn candidates(planner: &Planner, call: &Call) -> Result<Vec<Candidate>> {
    planner.candidates(&Calls::new(call)?.of(0))
}

/// Names and descriptions of the fabrics there are.
pub(crate) fn fabric_presets() -> &'static [(&'static str, &'static str)] {
    Fabric::presets()
}

/// A name and what it stands for, for help and error messages.
pub(crate) type Named = (&'static str, &'static str);

/// The algorithms there are.
pub(crate) fn algorithms() -> Vec<Named> {
    ubccl::algorithms().map(|algorithm| (algorithm.name, algorithm.summary)).collect()
}

/// The transports there are.
pub(crate) fn transports() -> Vec<Named> {
    ubccl::transports().map(|transport| (transport.name, transport.summary)).collect()
}

/// The environment variables that count, with what they do and what they may be.
pub(crate) fn environment() -> Vec<(&'static str, String)> {
    let told = |setting: &&'static Setting| {
        let default = setting.default_text();
        (setting.variable, format!("{} (default {default})", setting.doc))
    };
    SETTINGS.iter().map(told).collect()
}

/// The variables that tell a process which rank it is: where the ranks meet, rank, size, transport.
pub(crate) fn place_variables() -> [&'static str; 4] {
    [&settings::RENDEZVOUS, &settings::RANK, &settings::SIZE, &settings::TRANSPORT]
        .map(|place| place.variable)
}

/// Finds a setting by its name or its variable.
pub(crate) fn find_setting(name: &str) -> Result<&'static Setting> {
    settings::find(name)
}

/// Finds a transport by name or alias: its name, and whether its time is virtual.
pub(crate) fn find_transport(name: &str) -> std::result::Result<(&'static str, bool), String> {
    let known = ubccl::transports().find(|transport| transport.name == name || transport.alias == Some(name));
    let found = known.map(|transport| (transport.name, transport.clock == Clock::Virtual));
    found.ok_or_else(|| format!("unknown transport '{name}'; there are: {}", list(&transports())))
}

/// Whether all ranks of this transport must be in one process.
pub(crate) fn is_within_a_process(name: &str) -> bool {
    ubccl::transports().any(|transport| transport.name == name && transport.reach == Reach::Process)
}

/// Finds an algorithm; `-` and `_` are the same.
pub(crate) fn find_algorithm(name: &str) -> std::result::Result<String, String> {
    let wanted = name.replace('_', "-");
    let known = ubccl::algorithms().find(|algorithm| algorithm.name.replace('_', "-") == wanted);
    let found = known.map(|algorithm| algorithm.name.to_owned());
    found.ok_or_else(|| format!("unknown algorithm '{name}'; there are: {}", list(&algorithms())))
}

fn list(named: &[Named]) -> String {
    named.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The transport whose time is virtual.
pub(crate) fn virtual_transport() -> Option<&'static str> {
    ubccl::transports().find(|transport| transport.clock == Clock::Virtual).map(|transport| transport.name)
}

/// The call as the library tells it, from rank 0's view.
pub(crate) fn describe(call: &Call) -> Result<String> {
    let told = format!("{} on {} ranks", Calls::new(call)?.of(0), call.ranks);
    let is_tabled = call.kind.row().tabled; // where ranks name different counts, the library tells none
    Ok(if is_tabled { format!("{told} (in all {} elements)", call.count) } else { told })
}

/// Proves the plans of all ranks: the proof in numbers, or what is wrong with them.
pub(crate) fn prove(
    planner: &Planner,
    call: &Call,
    in_place: bool,
) -> Result<std::result::Result<String, String>> {
    let plans: Vec<Plan> =
        (0..call.ranks).map(|rank| plan(planner, call, rank, in_place)).collect::<Result<_>>()?;
    let calls = Calls::new(call)?;
    let plan = |rank: u32| plans[rank as usize].clone();
    let verdict = ubccl::verify::verify_calls(&plan, &|rank| calls.of(rank), call.ranks);
    Ok(verdict.map_err(|violation| violation.to_string()).map(|report| {
        let ubccl::verify::Report { steps, messages, elements, depth, .. } = report;
        format!("{steps} steps, {messages} messages with {elements} elements, {depth} after each other")
    }))
}
