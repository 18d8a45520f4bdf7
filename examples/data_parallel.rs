//! Data-parallel training of a linear model: every rank holds a shard of the data, all hold the same weights.
//!
//! ```sh
//! cargo run --release --example data_parallel            # starts 2 ranks by itself
//! cargo run --release --example data_parallel -- 3       # 3 ranks
//! UBCCL_TRANSPORT=tcp cargo run --release --example data_parallel
//! ```
//!
//! Under a launcher of your own, give every rank `UBCCL_RANK`, `UBCCL_SIZE` and one `UBCCL_RENDEZVOUS`.
#![allow(clippy::print_stdout)] // A program, not the library.

use std::error::Error;
use std::process::{Child, Command};

use ubccl::{Communicator, Config, ReduceOp, Rendezvous};

const TRUE_WEIGHTS: [f32; 3] = [3.0, -2.0, 0.5];
const EPOCHS: usize = 60;
const RATE: f32 = 0.5;

type Sample = ([f32; 3], f32);

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::var_os("UBCCL_RENDEZVOUS").is_some() {
        return train(Config::from_env()?);
    }
    let ranks: u32 = std::env::args().nth(1).map_or(Ok(2), |text| text.parse())?;
    let rendezvous = Rendezvous::create()?;
    let others: Vec<Child> =
        (1..ranks).map(|rank| start(rank, ranks, &rendezvous.text())).collect::<std::io::Result<_>>()?;
    // This process is rank 0, because it holds the rendezvous. Its own result comes second: if a rank failed, all did.
    let config = Config { rendezvous: Some(rendezvous), ..Config::from_env_with(0, ranks)? };
    let trained = train(config);
    for mut child in others {
        let status = child.wait()?;
        if !status.success() {
            return Err(format!("a rank ended with {status}; rank 0: {trained:?}").into());
        }
    }
    trained
}

fn start(rank: u32, ranks: u32, rendezvous: &str) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .env("UBCCL_RANK", rank.to_string())
        .env("UBCCL_SIZE", ranks.to_string())
        .env("UBCCL_RENDEZVOUS", rendezvous)
        .spawn()
}

fn train(config: Config) -> Result<(), Box<dyn Error>> {
    let comm = Communicator::init(config)?;
    let (rank, ranks) = (comm.rank(), comm.ranks() as usize);
    let shard = make_shard(rank);

    let mut counts = vec![0_u64; ranks];
    comm.all_gather(&[shard.len() as u64], &mut counts)?;
    let total: u64 = counts.iter().sum();
    // Shards differ in length. With this factor the average over ranks is the mean over samples.
    let share = ranks as f32 / total as f32;

    let mut weights = if rank == 0 { [0.1, 0.2, 0.3] } else { [0.0; 3] };
    comm.broadcast(&mut weights, 0)?;
    let (mut first, mut last) = (f32::NAN, f32::NAN);
    for epoch in 0..EPOCHS {
        let (mut gradient, loss) = gradient_and_loss(&shard, &weights, share);
        comm.all_reduce_in_place(&mut gradient, ReduceOp::Avg)?;
        let mut mean_loss = [0.0_f32];
        comm.all_reduce(&[loss], &mut mean_loss, ReduceOp::Avg)?;
        for (weight, slope) in weights.iter_mut().zip(gradient) {
            *weight -= RATE * slope;
        }
        last = mean_loss[0];
        if epoch == 0 {
            first = last;
        }
    }
    comm.barrier()?;

    let mut everybodys = vec![0.0_f32; 3 * ranks];
    comm.all_gather(&weights, &mut everybodys)?;
    let differs = everybodys.chunks(3).position(|theirs| theirs != weights);
    comm.close()?;

    if let Some(other) = differs {
        return Err(format!("rank {rank}: rank {other} has other weights than {weights:?}").into());
    }
    if last.is_nan() || last >= first / 100.0 {
        return Err(format!("rank {rank}: the loss went from {first} to {last} only").into());
    }
    if rank == 0 {
        println!("{ranks} ranks, samples {counts:?}: loss {first:.4} -> {last:.2e}, weights {weights:.3?}");
    }
    Ok(())
}

/// This rank's samples: a bias, two inputs in [-1, 1), and the true model's answer.
fn make_shard(rank: u32) -> Vec<Sample> {
    let mut state = rank.wrapping_add(1).wrapping_mul(0x9e37_79b9);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let inputs = (0..100 + 20 * rank).map(|_| [next(), next(), 1.0]);
    inputs.map(|input| (input, dot(&input, &TRUE_WEIGHTS))).collect()
}

fn gradient_and_loss(shard: &[Sample], weights: &[f32; 3], share: f32) -> ([f32; 3], f32) {
    let (mut gradient, mut loss) = ([0.0; 3], 0.0);
    for (input, target) in shard {
        let error = dot(input, weights) - target;
        loss += share * error * error;
        for (slope, x) in gradient.iter_mut().zip(input) {
            *slope += share * 2.0 * error * x;
        }
    }
    (gradient, loss)
}

fn dot(left: &[f32; 3], right: &[f32; 3]) -> f32 {
    left.iter().zip(right).map(|(l, r)| l * r).sum()
}
