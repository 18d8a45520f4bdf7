//! Ping-pong between real processes at a fabric's pace, against what the fabric promises.
//!
//! ```sh
//! cargo run --release --example ping_pong -- 2 100 1000    # ranks, latency in us, rate in MB/s
//! ```
//!
//! Ranks play in pairs (0 and 1, 2 and 3, …), all at once. Half a round trip is to take the latency and the bytes over
//! the rate. Every message is compared with what was sent.
#![allow(clippy::print_stdout)] // a program that shows its table

use std::error::Error;
use std::process::{Child, Command};
use std::time::Instant;
use ubccl::{Communicator, Config, Rendezvous};

const SIZES: [usize; 6] = [8, 4 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20];
const ROUNDS: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<u64> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [ranks, latency_us, rate] =
        [(0, 2), (1, 100), (2, 1000)].map(|(k, default)| arguments.get(k).copied().unwrap_or(default));
    let paced = format!("custom:latency_ps={},bytes_per_s={}", latency_us * 1_000_000, rate * 1_000_000);
    let paced = || Some(paced.clone());
    let config = |config: Config| Config { transport: "optical".into(), paced: paced(), ..config };
    if std::env::var_os("UBCCL_RENDEZVOUS").is_some() {
        return play(config(Config::from_env()?), latency_us as f64, rate as f64);
    }
    let rendezvous = Rendezvous::create()?;
    let start = |rank: u64| -> std::io::Result<Child> {
        Command::new(std::env::current_exe()?)
            .args(arguments.iter().map(u64::to_string))
            .env("UBCCL_RANK", rank.to_string())
            .env("UBCCL_SIZE", ranks.to_string())
            .env("UBCCL_RENDEZVOUS", rendezvous.text())
            .spawn()
    };
    let others = (1..ranks).map(start).collect::<Result<Vec<_>, _>>()?;
    let own = Config { rendezvous: Some(rendezvous), ..Config::from_env_with(0, ranks as u32)? };
    let played = play(config(own), latency_us as f64, rate as f64);
    for mut child in others {
        let status = child.wait()?;
        if !status.success() {
            return Err(format!("a rank ended with {status}; rank 0: {played:?}").into());
        }
    }
    played
}

fn play(config: Config, latency_us: f64, rate_mb_per_s: f64) -> Result<(), Box<dyn Error>> {
    let comm = Communicator::init(config)?;
    let (rank, peer) = (comm.rank(), comm.rank() ^ 1);
    if rank == 0 {
        println!(
            "# ping-pong of {} ranks in pairs, {latency_us} us and {rate_mb_per_s} MB/s; medians of {ROUNDS}",
            comm.ranks()
        );
        println!(
            "{:>10} {:>12} {:>12} {:>8} {:>12} {:>12}",
            "bytes", "model us", "measured us", "off", "MB/s less L", "worst us"
        );
    }
    for bytes in SIZES {
        let sent: Vec<u8> = (0..bytes).map(|k| (k * 31 % 251) as u8).collect();
        let mut got = vec![0; bytes];
        let mut halves_us = Vec::new();
        for round in 0..ROUNDS + 2 {
            comm.barrier()?;
            got.fill(0);
            let began = Instant::now();
            if peer < comm.ranks() && rank < peer {
                comm.send(&sent, peer)?;
                comm.receive(&mut got, peer)?;
            } else if peer < comm.ranks() {
                comm.receive(&mut got, peer)?;
                comm.send(&got, peer)?;
            }
            let half_us = began.elapsed().as_secs_f64() * 1e6 / 2.0;
            if peer < comm.ranks() && got != sent {
                return Err(format!("rank {rank}: wrong bytes in a message of {bytes}").into());
            }
            if round >= 2 {
                halves_us.push(half_us);
            }
        }
        halves_us.sort_by(f64::total_cmp);
        let (measured, model) = (halves_us[ROUNDS / 2], latency_us + bytes as f64 / rate_mb_per_s);
        if rank == 0 {
            let off = 100.0 * (measured / model - 1.0);
            let rate = bytes as f64 / (measured - latency_us);
            let worst = halves_us[ROUNDS - 1];
            println!("{bytes:>10} {model:>12.1} {measured:>12.1} {off:>7.1}% {rate:>12.1} {worst:>12.1}");
        }
    }
    comm.close()?;
    Ok(())
}
