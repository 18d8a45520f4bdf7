//! What the fabrics say beside what was published, point by point: product plans and executor, no formula.
//!
//! Each software path is an engine of a preset, with the numbers that stand in its TOML and none for a single point.
//! `cargo test --test published -- --nocapture` prints every point with its error.

use std::fmt::Write as _;
use toml::{Table, Value};
use ubccl::sim::{CommunicatorId, Fidelity, World, WorldConfig};
use ubccl::{Collective, DataType, ReduceOp};
use ubccl_core::Signature;
use ubccl_core::blocks::Message;

const PUBLISHED: &str = include_str!("data/published.toml");

/// A software path: what is simulated, how many numbers of it were fitted, and how far a point may be off, in percent.
struct Path {
    name: &'static str,
    fabric: &'static str,
    free: u32,
    limit: f64,
}

const READ: Path = Path { name: "reads", fabric: "cloudmatrix384-die+read", free: 4, limit: 5.0 };
const WRITE: Path = Path { name: "writes", fabric: "cloudmatrix384-die", free: 3, limit: 5.0 };
const BLOCKS: [Path; 2] = [
    Path { name: "hixl, blocks written", fabric: "cloudmatrix384-die+hixl-write", free: 4, limit: 10.0 },
    Path { name: "hixl, blocks read", fabric: "cloudmatrix384-die+hixl-read", free: 4, limit: 10.0 },
];
const VECTOR: Path = Path { name: "vector", fabric: "cloudmatrix384-die+vector", free: 2, limit: 12.0 };
const ISOLATED: Path =
    Path { name: "host, isolated", fabric: "cloudmatrix384-die+host-isolated", free: 1, limit: 12.0 };
const PIPELINED: Path =
    Path { name: "host, pipelined", fabric: "cloudmatrix384-die+host-pipelined", free: 3, limit: 12.0 };
const NVL72: Path = Path { name: "slope, NVLink", fabric: "gb200-nvl72", free: 1, limit: 10.0 };

/// One published number and what the simulation gives instead.
struct Point {
    path: &'static Path,
    what: String,
    published: f64,
    simulated: f64,
}

impl Point {
    fn error(&self) -> f64 {
        100.0 * (self.simulated / self.published - 1.0)
    }
}

fn world(path: &Path, ranks: u32, fidelity: Fidelity, algorithm: Option<&str>) -> World {
    World::new(WorldConfig {
        fabric: path.fabric.to_owned(),
        ranks,
        algorithm: algorithm.map(str::to_owned),
        lanes: 1,
        chunk_bytes: Some(u32::MAX),
        fidelity,
        ..WorldConfig::default()
    })
    .expect("a world")
}

fn number(value: &Value, key: &str) -> f64 {
    let value = &value[key];
    value.as_float().or(value.as_integer().map(|number| number as f64)).unwrap_or_else(|| panic!("{key}"))
}

fn data(machine: &str) -> Table {
    let mut data: Table = toml::from_str(PUBLISHED).expect("the file is TOML");
    match data.remove(machine) {
        Some(Value::Table(machine)) => machine,
        _ => panic!("no {machine}"),
    }
}

/// Microseconds of one message of so many bytes to another die.
fn message_us(path: &Path, to: u32, bytes: u64, fidelity: Fidelity) -> f64 {
    let mut world = world(path, 32, fidelity, None);
    let pair = world.split_ranks(CommunicatorId::WORLD, &[0, to]).expect("a pair");
    let calls = |rank: u32| {
        let (to, from) = if rank == 0 { (Some(1), None) } else { (None, Some(0)) };
        Collective::send_receive(bytes, DataType::U8, to, from)
    };
    let outcome = world.run_phantom_on(pair, &calls, false).expect("it runs");
    assert_eq!(outcome.wrong, 0);
    outcome.elapsed_ps as f64 / 1e6
}

/// GB/s of 128 MiB in blocks from one die to another.
fn blocks_rate(path: &Path, to: u32, block: u64, fidelity: Fidelity) -> f64 {
    const BYTES: u64 = 128 << 20;
    let mut world = world(path, 32, fidelity, None);
    let pair = world.split_ranks(CommunicatorId::WORLD, &[0, to]).expect("a pair");
    let messages = |peer| -> Vec<Message> {
        let of = |at| Message { peer, start: at * block, len: block, signature: Signature(1) };
        (0..BYTES / block).map(of).collect()
    };
    let (sent, received) = (messages(1), messages(0));
    let calls = |rank: u32| match rank {
        0 => Collective::group(&sent, &[]),
        _ => Collective::group(&[], &received),
    };
    let elapsed_ps = world.run_phantom_on(pair, &calls, false).expect("it runs").elapsed_ps;
    BYTES as f64 * 1e3 / elapsed_ps as f64
}

fn point_to_point(fidelity: Fidelity) -> Vec<Point> {
    let mut points = Vec::new();
    for row in data("cloudmatrix384")["point_to_point"].as_array().expect("rows") {
        let path = if row["op"].as_str() == Some("read") { &READ } else { &WRITE };
        for (place, to) in [("intra_node", 2), ("inter_node", 16)] {
            let row = &row[place];
            let bytes = 1_u64 << 30;
            let rate = bytes as f64 / message_us(path, to, bytes, fidelity) / 1e3;
            let latency_us = message_us(path, to, 512, fidelity);
            let mut point = |what, key, simulated| {
                let published = number(row, key);
                points.push(Point { path, what: format!("{place}, {what}"), published, simulated });
            };
            point("GB/s", "gbytes_per_s", rate);
            point("us for 512 B", "latency_us", latency_us);
        }
    }
    points
}

fn blocks(fidelity: Fidelity) -> Vec<Point> {
    let mut points = Vec::new();
    let data = data("cloudmatrix384");
    for (place, to) in [("one_server", 2), ("two_servers", 16)] {
        for row in data["blocks"][place].as_array().expect("rows") {
            let block = number(row, "block") as u64;
            for (path, key) in BLOCKS.iter().zip(["write", "read"]) {
                let simulated = blocks_rate(path, to, block, fidelity);
                let what = format!("{place}, {block} B, GB/s");
                points.push(Point { path, what, published: number(row, key), simulated });
            }
        }
    }
    points
}

fn collectives(fidelity: Fidelity) -> Vec<Point> {
    let mut points = Vec::new();
    for (name, rows) in data("cloudmatrix384")["collectives"].as_table().expect("a table") {
        let (kind, ranks) = name.rsplit_once('_').expect("kind and ranks");
        let ranks: u32 = ranks.parse().expect("ranks");
        for row in rows.as_array().expect("rows") {
            let path = match (row["engine"].as_str(), row["mode"].as_str()) {
                (Some("vector"), _) => &VECTOR,
                (_, Some("isolated")) => &ISOLATED,
                _ => &PIPELINED,
            };
            let bytes = number(row, "bytes") as u64;
            let call = match kind {
                "all_gather" => Collective::all_gather(bytes / 2, DataType::BF16),
                _ => Collective::reduce_scatter(bytes / 2, DataType::BF16, ReduceOp::Sum),
            };
            let mut world = world(path, ranks, fidelity, Some("mesh-one-shot"));
            let outcome = world.run_phantom(&|_| call, false).expect("it runs");
            assert_eq!(outcome.wrong, 0);
            let what = format!("{kind} of {ranks}, {bytes} B, us");
            let simulated = outcome.elapsed_ps as f64 / 1e6;
            points.push(Point { path, what, published: number(row, "us"), simulated });
        }
    }
    points
}

fn slope(fidelity: Fidelity) -> Vec<Point> {
    let data = data("gb200_nvl72");
    let rows = data["collectives"]["all_reduce_72"].as_array().expect("rows");
    let [small, large] = &rows[..] else { panic!("two rows") };
    let us = |row: &Value| {
        let call = Collective::all_reduce(number(row, "bytes") as u64 / 4, DataType::F32, ReduceOp::Sum);
        let mut world = world(&NVL72, 72, fidelity, Some("mesh-two-shot"));
        world.run_phantom(&|_| call, false).expect("it runs").elapsed_ps as f64 / 1e6
    };
    let bytes = number(large, "bytes") - number(small, "bytes");
    let per_gb = |us: f64| us / bytes * 1e9;
    vec![Point {
        path: &NVL72,
        what: "all_reduce of 72, us for a GB".to_owned(),
        published: per_gb(number(large, "us") - number(small, "us")),
        simulated: per_gb(us(large) - us(small)),
    }]
}

#[test]
fn every_published_point_is_met_within_its_paths_limit() {
    let mut table = String::new();
    let mut wrong = Vec::new();
    for fidelity in Fidelity::ALL {
        let points = [point_to_point, blocks, collectives, slope].map(|of| of(fidelity));
        for point in points.iter().flatten() {
            let Point { path, what, published, simulated } = point;
            let Path { name, free, limit, .. } = path;
            let line = format!(
                "{fidelity:>6}  {name:<22} {free} fitted  {what:<38} {published:>10.2} {simulated:>10.2} {:>+7.2} %",
                point.error()
            );
            writeln!(table, "{line}").expect("text");
            if point.error().abs() > *limit {
                wrong.push(line);
            }
        }
    }
    println!(
        "fidelity  path                            what                                    published  simulated   error\n{table}"
    );
    assert!(wrong.is_empty(), "beyond their limits:\n{}", wrong.join("\n"));
}
