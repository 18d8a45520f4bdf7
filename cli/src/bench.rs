//! `ubccl bench` and `ubccl sim`: from the command line to the table.

use crate::args::{BenchArgs, FabricArgs, Pin, SimArgs, SweepArgs};
use crate::compare;
use crate::contest;
use crate::failure::{Failure, Outcome};
use crate::json::JsonLines;
use crate::launch::{Launch, Processes};
use crate::measure::{Effort, Stopwatch};
use crate::observe::{Observers, TraceFile};
use crate::orders::Crew;
use crate::picture::PictureFile;
use crate::plot::Plot;
use crate::progress::{self, Progress};
use crate::report::{self, Agenda, Report, Summary, conclude, print};
use crate::sim::{Simulator, most_real_bytes, peak_memory_bytes};
use crate::table::general;
use crate::target::{self, Kind, Machine, MachineOptions, Member, Planner, Settings, settings};
use crate::threads::{Muster, Threads};
use crate::together::Together;
use crate::units::show_bytes;
use crate::virtual_contest;
use std::ffi::OsString;
use std::io::Write;

/// The table names so many ranks one by one.
const MOST_LISTED: usize = 16;

/// Runs `ubccl bench`.
pub(crate) fn run(args: &BenchArgs, out: &mut dyn Write) -> Outcome<()> {
    match (&args.compare.compare, args.collective) {
        (Some(peers_dir), _) => compare::run(args, peers_dir, out),
        (None, Some(kind)) => measure(args, kind, out),
        (None, None) => Err(Failure::new("name a collective, or --compare PEERS_DIR")),
    }
}

/// Measures one collective.
fn measure(args: &BenchArgs, kind: Kind, out: &mut dyn Write) -> Outcome<()> {
    let mut given = args.sweep.how.settings();
    given.extend(args.transport.clone().map(|name| (settings::TRANSPORT.name.to_owned(), name)));
    given.extend(
        args.timeout.map(|time| (settings::TIMEOUT.name.to_owned(), format!("{}ns", time.as_nanos()))),
    );
    if args.paced {
        let fabric = args.fabric.specification().map_err(Failure::new)?;
        given.push((settings::PACED.name.to_owned(), fabric));
    }
    let config = target::configuration(&given)?;
    let is_paced = config.paced.is_some();
    let (transport, is_virtual) = target::find_transport(&config.transport).map_err(Failure::new)?;
    if is_virtual && !is_paced {
        return simulate(kind, &args.sweep, &args.fabric, transport, out);
    }
    if args.fabric.is_given() && !is_paced {
        let advice = "it belongs to `ubccl sim` or --transport optical";
        return Err(Failure::new(format!(
            "--fabric, --latency, --bandwidth, --seed, --faults, --fault-seed, --trace, --links: {transport} is real; {advice}"
        )));
    }
    if !args.fabric.faults().map_err(Failure::new)?.is_empty() {
        return Err(Failure::new("--faults, --fault-seed: paced transfers have no faults; use `ubccl sim`"));
    }
    if config.rendezvous.is_some() {
        return run_launched(args, kind, Member::join(config)?, transport, out);
    }
    if config.rank != 0 || config.ranks != 1 {
        let advice =
            "an external launcher sets UBCCL_RENDEZVOUS too; unset both to let bench start the ranks";
        return Err(Failure::new(format!(
            "UBCCL_RANK or UBCCL_SIZE is set but UBCCL_RENDEZVOUS is not: {advice}"
        )));
    }
    if target::is_within_a_process(transport) && !is_paced {
        return run_threads(args, kind, transport, given, out);
    }
    run_processes(args, kind, transport, given, out)
}

/// Runs `ubccl sim`.
pub(crate) fn run_sim(args: &SimArgs, out: &mut dyn Write) -> Outcome<()> {
    let transport =
        target::virtual_transport().ok_or_else(|| Failure::new("there is no virtual transport"))?;
    simulate(args.collective, &args.sweep, &args.fabric, transport, out)
}

fn agenda(kind: Kind, args: &SweepArgs, ranks: u32, transport: &str) -> Outcome<Agenda> {
    Ok(Agenda {
        kind,
        sweep: args.sweep().map_err(Failure::new)?,
        dtypes: args.dtypes(),
        ops: args.ops(),
        roots: args.roots(ranks).map_err(Failure::new)?,
        ranks,
        effort: Effort {
            iterations: args.iters,
            warmup: args.warmup_iters,
            checks: args.check,
            breakdown: args.breakdown,
        },
        transport: transport.to_owned(),
        remarks: Vec::new(),
        bound: None,
    })
}

fn json(args: &SweepArgs) -> Outcome<Option<JsonLines>> {
    args.json.as_deref().map(JsonLines::create).transpose()
}

/// The picture of `--plot`, made at once: a long sweep should not end with a wrong path.
fn plot(args: &SweepArgs, agenda: &Agenda) -> Outcome<Option<Plot>> {
    args.plot.as_deref().map(|path| Plot::create(path, agenda)).transpose()
}

/// The picture of `--links`.
fn link_file(fabric: &FabricArgs) -> Outcome<Option<(PictureFile, String)>> {
    let Some(path) = fabric.links.as_deref() else { return Ok(None) };
    let below = format!("simulated on {}, virtual time", fabric.name());
    Ok(Some((PictureFile::create(path, "--links")?, below)))
}

/// Whether each rank binds to a processor.
fn is_pinned(args: &BenchArgs) -> bool {
    args.pin == Pin::On || (args.pin == Pin::Auto && is_enough(args.sweep.ranks))
}

/// Whether there is a processor for each rank.
fn is_enough(ranks: u32) -> bool {
    ranks as usize <= std::thread::available_parallelism().map_or(1, usize::from)
}

/// Starts the ranks as threads and measures.
fn run_threads(
    args: &BenchArgs,
    kind: Kind,
    transport: &str,
    settings: Settings,
    out: &mut dyn Write,
) -> Outcome<()> {
    let ranks = args.sweep.ranks;
    let planner = target::planner(&settings, ranks, None)?;
    let mut agenda = agenda(kind, &args.sweep, ranks, transport)?;
    let crew = Threads::start(&Muster { ranks, pin: is_pinned(args), settings })?;
    agenda.remarks =
        crew_remarks(std::iter::repeat(std::process::id()), &crew.cpus, &crew.memory_bytes, transport);
    let (crew, summary) = sweep(args, &agenda, &planner, crew, out)?;
    crew.finish()?;
    summary.map_or(Ok(()), |summary| conclude(&agenda, &summary, out))
}

/// Starts the ranks as processes and measures.
fn run_processes(
    args: &BenchArgs,
    kind: Kind,
    transport: &str,
    settings: Settings,
    out: &mut dyn Write,
) -> Outcome<()> {
    let ranks = args.sweep.ranks;
    let planner = target::planner(&settings, ranks, None)?;
    let mut agenda = agenda(kind, &args.sweep, ranks, transport)?;
    let crew = Processes::start(&launch(transport, ranks, settings, is_pinned(args)))?;
    agenda.remarks = crew_remarks(crew.pids(), &crew.cpus, &crew.memory_bytes, transport);
    let (crew, summary) = sweep(args, &agenda, &planner, crew, out)?;
    crew.finish()?;
    summary.map_or(Ok(()), |summary| conclude(&agenda, &summary, out))
}

/// Processes of this program, each a rank.
fn launch(transport: &str, ranks: u32, settings: Settings, is_pinned: bool) -> Launch {
    let mut arguments: Vec<OsString> =
        vec!["worker".into(), "--parent".into(), std::process::id().to_string().into()];
    if is_pinned {
        arguments.push("--pin".into());
    }
    for (name, value) in settings {
        arguments.extend(["--set".into(), format!("{name}={value}").into()]);
    }
    Launch { ranks, transport: transport.to_owned(), arguments }
}

/// Starts ranks, has them do something, and lets them go.
pub(crate) fn with_crew(
    transport: &str,
    ranks: u32,
    settings: Settings,
    work: &mut dyn FnMut(&mut dyn Crew) -> Outcome<()>,
) -> Outcome<()> {
    let pin = is_enough(ranks);
    if target::is_within_a_process(transport) {
        let mut crew = Threads::start(&Muster { ranks, pin, settings })?;
        work(&mut crew)?;
        return crew.finish();
    }
    let mut crew = Processes::start(&launch(transport, ranks, settings, pin))?;
    work(&mut crew)?;
    crew.finish()
}

/// Measures everything that was asked for; gives the ranks back, and what a sweep says.
fn sweep<C: Crew>(
    args: &BenchArgs,
    agenda: &Agenda,
    planner: &Planner,
    crew: C,
    out: &mut dyn Write,
) -> Outcome<(C, Option<Summary>)> {
    let mut stopwatch = Stopwatch { crew, effort: agenda.effort };
    if args.sweep.how.is_contest() {
        if args.sweep.plot.is_some() {
            return Err(Failure::new(
                "--plot draws one way to do a call, and --algo all compares many; name one",
            ));
        }
        contest::run(agenda, &mut stopwatch, planner, out)?;
        return Ok((stopwatch.crew, None));
    }
    let plot = plot(&args.sweep, agenda)?;
    let progress = Progress::new(progress::can_show());
    let mut report = Report { out, json: json(&args.sweep)?, mark: "", plot, progress };
    let summary = report::run(agenda, &mut stopwatch, &mut report)?;
    Ok((stopwatch.crew, Some(summary)))
}

/// nccl-tests' list of devices.
fn crew_remarks(
    pids: impl Iterator<Item = u32>,
    cpus: &[Option<usize>],
    memory_bytes: &[u64],
    transport: &str,
) -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut remarks = vec!["Using devices".to_owned()];
    for (rank, (pid, cpu)) in pids.zip(cpus).take(MOST_LISTED).enumerate() {
        let cpu = cpu.map_or(-1, |cpu| cpu as i64);
        remarks.push(format!(
            " Rank {rank:2} Group  0 Pid {pid:6} on {host:>10} device {cpu:2} [cpu] {transport}"
        ));
    }
    let more = cpus.len().saturating_sub(MOST_LISTED);
    if more > 0 {
        remarks.push(format!(" and {more} ranks more"));
    }
    let memory_bytes = memory_bytes.iter().copied().max().unwrap_or(0);
    remarks.push(format!("Communicator memory per rank: {} at most", show_bytes(memory_bytes)));
    remarks
}

/// Measures as one of the ranks that another launcher started; rank 0 prints.
fn run_launched(
    args: &BenchArgs,
    kind: Kind,
    member: Member,
    transport: &str,
    out: &mut dyn Write,
) -> Outcome<()> {
    let (rank, ranks) = (target::Target::rank(&member), target::Target::ranks(&member));
    let told = |error: target::Error| Failure::new(format!("rank {rank}: {error}"));
    let mut together = Together::new(member)?;
    if rank != 0 {
        together.follow().map_err(told)?;
        return together.into_target().close().map_err(told);
    }
    let mut agenda = agenda(kind, &args.sweep, ranks, transport)?;
    agenda.remarks = vec![format!("Using {ranks} ranks over {transport}, started by another launcher")];
    let json = json(&args.sweep)?;
    let mut stopwatch = Stopwatch { crew: together, effort: agenda.effort };
    let plot = plot(&args.sweep, &agenda)?;
    let mut report = Report { out, json, mark: "", plot, progress: Progress::new(progress::can_show()) };
    let summary = report::run(&agenda, &mut stopwatch, &mut report)?;
    stopwatch.crew.dismiss().map_err(told)?;
    stopwatch.crew.into_target().close().map_err(told)?;
    conclude(&agenda, &summary, out)
}

/// Measures in virtual time.
fn simulate(
    kind: Kind,
    args: &SweepArgs,
    fabric: &FabricArgs,
    transport: &str,
    out: &mut dyn Write,
) -> Outcome<()> {
    let mut agenda = agenda(kind, args, args.ranks, transport)?;
    let (iterations, warmup) = (args.iters.unwrap_or(1), args.warmup_iters.unwrap_or(0));
    agenda.effort.iterations = Some(iterations);
    agenda.effort.warmup = Some(warmup);
    let options = MachineOptions {
        fabric: fabric.specification().map_err(Failure::new)?,
        ranks: args.ranks,
        settings: args.how.settings(),
        seed: fabric.seed(),
        fidelity: fabric.fidelity(),
        faults: fabric.faults().map_err(Failure::new)?,
        how: None,
        timeout: None,
    };
    if args.how.is_contest() {
        let budget = virtual_contest::Budget {
            messages: args.most_messages as f64,
            margin: args.margin,
            variants: args.variants,
        };
        return virtual_contest::run(&agenda, &options, budget, out);
    }
    let machine = Machine::new(&options)?;
    agenda.remarks = vec![
        format!("VIRTUAL TIME: simulated, not measured; {} ranks on {}", args.ranks, fabric.name()),
        format!(" {}", machine.describe().trim_end().replace('\n', "\n#  ")),
        format!(" data: real up to {}, above fingerprints", show_bytes(most_real_bytes(args.ranks))),
    ];
    let ports = machine.ports();
    agenda.bound = agenda.calls().last().map(|(call, _)| ports.describe(call));
    let (json, plot) = (json(args)?, plot(args, &agenda)?);
    let observers = Observers {
        explains: args.breakdown,
        trace: fabric.trace.as_deref().map(TraceFile::create).transpose()?,
        links: link_file(fabric)?,
    };
    let progress = Progress::new(progress::can_show());
    let check = args.check > 0;
    let mut simulator =
        Simulator { machine, iterations, warmup, check, ports, observers, progress: progress.clone() };
    let mut report = Report { out, json, mark: "  virtual", plot, progress };
    let summary = report::run(&agenda, &mut simulator, &mut report)?;
    print(out, &simulation_footer(&summary))?;
    conclude(&agenda, &summary, out)
}

fn simulation_footer(summary: &Summary) -> String {
    let rate = summary.messages as f64 / (summary.real_us.max(1.0) / 1e6);
    let memory = peak_memory_bytes().map_or("unknown".to_owned(), show_bytes);
    let line = |name: &str, value: String| format!("# {name:<20} : {value}\n");
    let faults = match summary.retries + summary.lost {
        0 => String::new(),
        _ => line(
            "Faults",
            format!("bytes sent again {} times, {} messages lost", summary.retries, summary.lost),
        ),
    };
    [
        line("Messages", summary.messages.to_string()),
        line("Messages per second", format!("{} (simulated, per second of real time)", general(rate))),
        faults,
        line("Peak memory", memory),
        line("Event hash", format!("{:016x}", summary.hash)),
    ]
    .concat()
}
