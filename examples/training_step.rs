//! One step of data-parallel training on a simulated machine: what overlap is worth.
//!
//! ```text
//! backward    layer L, L−1, …, 1: each computes, and leaves its gradients
//! buckets     gradients of layers one after another, as soon as there are enough bytes, are all-reduced
//! overlapped  a bucket's all-reduce is issued and the next layer computes; all are awaited at the end
//! in turn     the same, but each all-reduce is awaited before the next layer computes
//! ```
//!
//! `cargo run --release --example training_step -- [RANKS] [FABRIC]`
#![allow(clippy::print_stdout)] // a program that shows its table

use std::time::Duration;
use ubccl::sim::{Communicator, Phantom, Work, World};
use ubccl::{ReduceOp, Result};

/// Layers of the model, and what each costs: a transformer of 32 equal layers with 200 million parameters each.
const LAYERS: usize = 32;
const PARAMETERS: usize = 200_000_000;
/// A layer's backward pass.
const BACKWARD: Duration = Duration::from_micros(5_000);

/// What one step took on one rank.
#[derive(Clone, Copy)]
struct Step {
    /// Until the last gradient was there.
    total: Duration,
    /// Of it, after the last layer had computed.
    exposed: Duration,
}

/// One backward pass, whose gradients are all-reduced in buckets of so many layers.
async fn step(comm: Communicator<'_>, layers_per_bucket: usize, overlap: bool) -> Result<Step> {
    let begin = comm.now();
    let mut under_way: Vec<Work<'_, Phantom<half::bf16>>> = Vec::new();
    let mut waiting = Duration::ZERO;
    for layer in 1..=LAYERS {
        comm.compute(BACKWARD).await;
        if layer % layers_per_bucket > 0 && layer < LAYERS {
            continue;
        }
        let layers = (layer - 1) % layers_per_bucket + 1;
        let bucket = Phantom::new(layers * PARAMETERS);
        let work = comm.all_reduce_in_place(bucket, ReduceOp::Sum);
        if overlap {
            under_way.push(work);
        } else {
            let issued = comm.now();
            work.await?;
            waiting += comm.now() - issued;
        }
    }
    let computed = comm.now();
    for work in under_way {
        work.await?;
    }
    Ok(Step { total: comm.now() - begin, exposed: waiting + (comm.now() - computed) })
}

/// The slowest rank's step.
fn run(fabric: &str, ranks: u32, layers_per_bucket: usize, overlap: bool) -> Result<Step> {
    let report = World::run(fabric, ranks, async |comm| step(comm, layers_per_bucket, overlap).await)?;
    let steps = report.into_results()?;
    Ok(steps.into_iter().max_by_key(|step| step.total).expect("there is a rank"))
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let ranks = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(64);
    let fabric = arguments.next().unwrap_or_else(|| "cloudmatrix384".to_owned());
    let computing = BACKWARD * LAYERS as u32;
    println!("# {LAYERS} layers of {PARAMETERS} bf16 gradients, {ranks} ranks of {fabric}; virtual time");
    println!("# backward alone: {:.3} ms", ms(computing));
    println!(
        "{:>7} {:>11} {:>12} {:>12} {:>12} {:>8}",
        "buckets", "bytes", "in turn ms", "overlap ms", "exposed ms", "gain"
    );
    for layers in [1, 2, 4, 8, 16, 32] {
        let in_turn = run(&fabric, ranks, layers, false)?;
        let overlapped = run(&fabric, ranks, layers, true)?;
        assert!(overlapped.total <= in_turn.total && overlapped.total >= computing, "overlap costs nothing");
        println!(
            "{:>7} {:>11} {:>12.3} {:>12.3} {:>12.3} {:>7.1}%",
            LAYERS.div_ceil(layers),
            layers * PARAMETERS * 2,
            ms(in_turn.total),
            ms(overlapped.total),
            ms(overlapped.exposed),
            100.0 * (1.0 - overlapped.total.as_secs_f64() / in_turn.total.as_secs_f64()),
        );
    }
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
