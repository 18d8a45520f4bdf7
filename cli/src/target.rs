//! The seam to the library: everything the program asks of it goes through here.

pub(crate) use ubccl::{DataType, Error, ErrorKind, F8E4M3, F8E5M2, Kind, ReduceOp, Resolved};

use crate::call::Call;
use crate::measure::Simulated;
use std::time::Duration;
pub(crate) use ubccl::Config;
use ubccl::plan::Plan;
use ubccl::settings::{self, SETTINGS};
use ubccl::sim::{RankMemory, World, WorldConfig};
use ubccl::{Clock, Collective, Communicator, Reach, Rendezvous, Result, Setting};

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
    /// The name of the algorithm that the selected call runs.
    fn algorithm(&self) -> Result<String>;
    /// Begins (`true`) or ends to measure where the time goes; the end tells nanoseconds of check, look-up, post and
    /// poll.
    fn breakdown(&mut self, begin: bool) -> Option<[u64; 4]>;
}

/// The library's form of one rank's call.
fn collective(call: &Call, rank: u32) -> Result<Collective<'static>> {
    let Call { kind, count, dtype, op, root, .. } = *call;
    Ok(match kind {
        Kind::AllReduce => Collective::all_reduce(count, dtype, op),
        Kind::AllGather => Collective::all_gather(count, dtype),
        Kind::ReduceScatter => Collective::reduce_scatter(count, dtype, op),
        Kind::Broadcast => Collective::broadcast(count, dtype, root),
        Kind::Barrier => Collective::barrier(),
        Kind::SendReceive => {
            Collective::send_receive(count, dtype, Some(call.receiver_of(rank)), Some(call.sender_to(rank)))
        }
        other => return Err(Error::unsupported(format!("this program cannot run {} yet", other.name()))),
    })
}

/// What the command line may change about a communicator.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// The transport's name.
    pub(crate) transport: Option<String>,
    /// The algorithm's name.
    pub(crate) algorithm: Option<String>,
    /// How long one operation may take.
    pub(crate) timeout: Option<Duration>,
}

/// The configuration that the environment and the command line give.
pub(crate) fn configuration(overrides: &Overrides) -> Result<Config> {
    let mut config = Config::from_env()?;
    if let Some(transport) = &overrides.transport {
        config.transport.clone_from(transport);
    }
    if overrides.algorithm.is_some() {
        config.algorithm.clone_from(&overrides.algorithm);
    }
    config.operation_timeout = overrides.timeout.unwrap_or(config.operation_timeout);
    Ok(config)
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
    call: Collective<'static>,
    selected: Result<()>,
}

impl Member {
    /// Joins.
    pub(crate) fn join(config: Config) -> Result<Self> {
        Ok(Member {
            communicator: Communicator::init(config)?,
            call: Collective::barrier(),
            selected: Ok(()),
        })
    }

    /// Bytes of memory that its communicator takes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.communicator.memory().total()
    }

    /// Leaves in good order.
    pub(crate) fn close(self) -> Result<()> {
        self.communicator.close()
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
        self.selected = collective(call, self.rank()).map(|call| self.call = call);
    }

    #[inline]
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<()> {
        self.communicator.run(&self.call, input, output)
    }

    #[inline]
    fn run_in_place(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.communicator.run_in_place(&self.call, buffer)
    }

    fn barrier(&mut self) -> Result<()> {
        self.communicator.barrier()
    }

    fn algorithm(&self) -> Result<String> {
        self.selected.clone()?;
        Ok(self.communicator.algorithm_for(&self.call)?.to_owned())
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
    /// The algorithm's name.
    pub(crate) algorithm: Option<String>,
    /// Seed of everything random.
    pub(crate) seed: u64,
}

/// What one simulated call gave.
#[derive(Debug)]
pub(crate) struct Simulation {
    /// Virtual time.
    pub(crate) elapsed_ps: u64,
    /// Wrong elements, as far as the simulation itself can tell.
    pub(crate) wrong: u64,
    /// The algorithm.
    pub(crate) algorithm: String,
    /// What happened; without the real time, which the caller knows.
    pub(crate) events: Simulated,
}

impl Machine {
    /// Makes the machine.
    pub(crate) fn new(options: &MachineOptions) -> Result<Self> {
        let MachineOptions { fabric, ranks, algorithm, seed } = options.clone();
        let mut config = WorldConfig { fabric, ranks, algorithm, seed, ..WorldConfig::default() };
        if let Some(virtual_one) = ubccl::transports().find(|transport| transport.clock == Clock::Virtual) {
            config.transport = virtual_one.name.to_owned();
        }
        Ok(Machine { world: World::new(config)? })
    }

    /// What it is.
    pub(crate) fn describe(&self) -> String {
        self.world.describe()
    }

    /// Runs a call on fingerprints of who contributed what.
    pub(crate) fn run_phantom(&mut self, call: &Call, in_place: bool) -> Result<Simulation> {
        collective(call, 0)?;
        let outcome =
            self.world.run(&|rank| collective(call, rank).unwrap_or(Collective::barrier()), in_place)?;
        Ok(simulation(outcome))
    }

    /// Runs a call on real bytes: two buffers for each rank, or one in place.
    pub(crate) fn run_real(
        &mut self,
        call: &Call,
        in_place: bool,
        data: &mut [[Vec<u8>; 2]],
    ) -> Result<Simulation> {
        collective(call, 0)?;
        let mut memory: Vec<RankMemory> = data
            .iter_mut()
            .map(|rank| match rank.each_mut().map(std::mem::take) {
                [buffer, _] if in_place => RankMemory::InPlace(buffer),
                [input, output] => RankMemory::Apart { input, output },
            })
            .collect();
        let calls = |rank| collective(call, rank).unwrap_or(Collective::barrier());
        let outcome = self.world.run_real(&calls, &mut memory);
        for (rank, memory) in data.iter_mut().zip(memory) {
            *rank = match memory {
                RankMemory::InPlace(buffer) => [buffer, Vec::new()],
                RankMemory::Apart { input, output } => [input, output],
            };
        }
        Ok(simulation(outcome?))
    }
}

fn simulation(outcome: ubccl::sim::Outcome) -> Simulation {
    let ubccl::sim::Outcome { elapsed_ps, stats, wrong, algorithm, .. } = outcome;
    let events = Simulated { messages: stats.messages, events: stats.events, hash: stats.hash, real_us: 0.0 };
    Simulation { elapsed_ps, wrong, algorithm: algorithm.to_owned(), events }
}

/// The plan of one rank's call, without a communicator.
pub(crate) fn plan(call: &Call, rank: u32, in_place: bool, algorithm: Option<&str>) -> Result<Plan> {
    ubccl::plan_for(&collective(call, rank)?, call.ranks, rank, in_place, algorithm)
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
    Ok(format!("{} on {} ranks", collective(call, 0)?, call.ranks))
}

/// Proves the plans of all ranks: the proof in numbers, or what is wrong with them.
pub(crate) fn prove(
    call: &Call,
    in_place: bool,
    algorithm: Option<&str>,
) -> Result<std::result::Result<String, String>> {
    let plans: Vec<Plan> =
        (0..call.ranks).map(|rank| plan(call, rank, in_place, algorithm)).collect::<Result<_>>()?;
    let verdict = ubccl::verify::verify(&|rank| plans[rank as usize].clone(), call.ranks, call.count);
    Ok(verdict.map_err(|violation| violation.to_string()).map(|report| {
        let ubccl::verify::Report { steps, messages, elements, depth, .. } = report;
        format!("{steps} steps, {messages} messages with {elements} elements, {depth} after each other")
    }))
}
