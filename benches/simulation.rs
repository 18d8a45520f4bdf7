//! How fast simulations are: one row for each case, each in a process of its own so that peaks of memory are its own.
//!
//! `cargo bench --bench simulation` runs all, `-- NAME` one.

#![allow(clippy::print_stdout, reason = "a table is what it is for")]

use std::process::{Command, ExitCode};
use std::time::Instant;
use ubccl::sim::{Fidelity, World, WorldConfig};
use ubccl::{Blocks, Collective, DataType, ReduceOp};

/// A case: its name, the aim in seconds and MB, and what it runs.
struct Case {
    name: &'static str,
    seconds: f64,
    megabytes: Option<u64>,
    run: fn() -> Done,
}

struct Done {
    messages: u64,
    virtual_us: f64,
    /// Of the call alone, without making the world.
    call_s: f64,
    hash: u64,
}

const GIB: u64 = 1 << 30;

/// 1,024 nodes of 8: as many NPUs as 21 supernodes.
const LARGE: &str = "name = 'large'\n[topology]\nunit = 'NPU'\n[[topology.level]]\nname = 'node'\nholds = 8\n\
    link = { latency_ps = 1_300_000, rate_bytes_per_s = 274_000_000_000 }\n[[topology.level]]\nname = 'supernode'\n\
    holds = 1024\nlink = { latency_ps = 2_100_000, rate_bytes_per_s = 270_000_000_000 }\n";

const CASES: &[Case] = &[
    Case {
        name: "ring all-reduce, 384 ranks, 1 GiB, loggp",
        seconds: 1.0,
        megabytes: Some(200),
        run: || all_reduce("cloudmatrix384", 384, "ring", Fidelity::LogGp),
    },
    Case {
        name: "ring all-reduce, 384 ranks, 1 GiB, fluid",
        seconds: 1.0,
        megabytes: Some(200),
        run: || all_reduce("cloudmatrix384", 384, "ring", Fidelity::Fluid),
    },
    Case {
        name: "ring all-reduce, 384 ranks, 1 GiB, four lanes in chunks, loggp",
        seconds: 1.0,
        megabytes: Some(200),
        run: || chunked(Fidelity::LogGp),
    },
    Case {
        name: "ring all-reduce, 384 ranks, 1 GiB, four lanes in chunks, fluid",
        seconds: 1.0,
        megabytes: Some(200),
        run: || chunked(Fidelity::Fluid),
    },
    Case {
        name: "NHR all-reduce, 384 ranks, 1 GiB, loggp",
        seconds: 0.3,
        megabytes: None,
        run: || all_reduce("cloudmatrix384", 384, "nhr", Fidelity::LogGp),
    },
    Case {
        name: "hierarchical all-reduce, 384 ranks, 1 GiB, loggp",
        seconds: 0.3,
        megabytes: None,
        run: || all_reduce("cloudmatrix384", 384, "node:mesh;supernode:nhr", Fidelity::LogGp),
    },
    Case {
        name: "uniform all-to-all, 384 ranks, 1 GiB each, fluid",
        seconds: 1.0,
        megabytes: None,
        run: uniform,
    },
    Case { name: "Zipf all-to-all-v, 384 ranks, fluid", seconds: 10.0, megabytes: None, run: zipf },
    Case {
        name: "hierarchical all-reduce, 8192 ranks, 1 GiB, loggp",
        seconds: 10.0,
        megabytes: Some(2000),
        run: || all_reduce(LARGE, 8192, "node:mesh;supernode:nhr", Fidelity::LogGp),
    },
];

fn config(fabric: &str, ranks: u32, algorithm: Option<&str>, fidelity: Fidelity) -> WorldConfig {
    WorldConfig {
        fabric: fabric.to_owned(),
        ranks,
        algorithm: algorithm.map(str::to_owned),
        chunk_bytes: Some(u32::MAX),
        lanes: 1,
        fidelity,
        ..WorldConfig::default()
    }
}

fn world(fabric: &str, ranks: u32, algorithm: Option<&str>, fidelity: Fidelity) -> World {
    World::new(config(fabric, ranks, algorithm, fidelity)).expect("a world")
}

fn run<'a>(world: &mut World, calls: &dyn Fn(u32) -> Collective<'a>) -> Done {
    let start = Instant::now();
    let outcome = world.run_phantom(calls, false).expect("it runs");
    assert_eq!(outcome.wrong, 0, "every element is what it should be");
    Done {
        messages: outcome.stats.messages,
        virtual_us: outcome.elapsed_ps as f64 / 1e6,
        call_s: start.elapsed().as_secs_f64(),
        hash: outcome.stats.hash,
    }
}

fn all_reduce(fabric: &str, ranks: u32, algorithm: &str, fidelity: Fidelity) -> Done {
    let call = Collective::all_reduce(GIB / 4, DataType::F32, ReduceOp::Sum);
    run(&mut world(fabric, ranks, Some(algorithm), fidelity), &|_| call)
}

/// As `ubccl sim` does it by default.
fn chunked(fidelity: Fidelity) -> Done {
    let call = Collective::all_reduce(GIB / 4, DataType::F32, ReduceOp::Sum);
    let one = config("cloudmatrix384", 384, Some("ring"), fidelity);
    let config = WorldConfig { lanes: 4, chunk_bytes: Some(1 << 20), ..one };
    run(&mut World::new(config).expect("a world"), &|_| call)
}

fn uniform() -> Done {
    let call = Collective::all_to_all(GIB / 4 / 384, DataType::F32);
    run(&mut world("cloudmatrix384", 384, None, Fidelity::Fluid), &|_| call)
}

/// 1 GiB from each rank; the k-th most wanted of 384 receivers, in an order of the sender's own, gets 1/k as much as the
/// first.
fn zipf() -> Done {
    const RANKS: u64 = 384;
    let harmonic: f64 = (1..=RANKS).map(|k| 1.0 / k as f64).sum();
    let mut random = 1_u64;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let rows: Vec<Vec<u64>> = (0..RANKS)
        .map(|_| {
            let mut row: Vec<u64> =
                (1..=RANKS).map(|k| ((GIB / 4) as f64 / harmonic / k as f64) as u64).collect();
            (1..RANKS).rev().for_each(|k| row.swap(k as usize, draw(k + 1) as usize));
            row
        })
        .collect();
    let columns: Vec<Vec<u64>> =
        (0..RANKS as usize).map(|to| rows.iter().map(|row| row[to]).collect()).collect();
    let calls = |rank: u32| {
        let [send, receive] = [&rows, &columns].map(|table| Blocks::packed(&table[rank as usize]));
        Collective::all_to_all_v(DataType::F32, send, receive)
    };
    run(&mut world("cloudmatrix384", 384, None, Fidelity::Fluid), &calls)
}

/// The most memory this process has had.
fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024 / 1_000_000
}

fn row(case: &Case) {
    let start = Instant::now();
    let Done { messages, virtual_us, call_s, hash } = (case.run)();
    let (all_s, megabytes) = (start.elapsed().as_secs_f64(), peak_megabytes());
    let rate = messages as f64 / call_s / 1e6;
    let aim = case.megabytes.map_or(String::new(), |most| format!(", {most} MB"));
    println!(
        "| {} | {messages} | {virtual_us:.1} | {all_s:.2} | {rate:.2} | {megabytes} | {} s{aim} | {hash:016x} |",
        case.name, case.seconds
    );
}

fn main() -> ExitCode {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    if let Some(case) = CASES.iter().find(|case| wanted.as_deref() == Some(case.name)) {
        row(case);
        return ExitCode::SUCCESS;
    }
    println!("| case | messages | virtual µs | real s | million messages/s | peak MB | aim | event hash |");
    println!("|---|---:|---:|---:|---:|---:|---|---|");
    let program = std::env::current_exe().expect("a program knows where it is");
    let is_well =
        |case: &Case| Command::new(&program).arg(case.name).status().is_ok_and(|status| status.success());
    let chosen = |case: &&Case| wanted.as_ref().is_none_or(|wanted| case.name.contains(&wanted[..]));
    ExitCode::from(u8::from(!CASES.iter().filter(chosen).all(is_well)))
}
