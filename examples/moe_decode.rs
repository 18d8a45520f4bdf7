//! Decoding with a mixture of experts on a simulated machine: what routing costs.
//!
//! ```text
//! each layer   every token goes to 8 of the experts, which live one on each rank
//! dispatch     all-to-all-v of the tokens' activations      (1 byte an element)
//! experts      each rank computes for the tokens that came; the rank with most of them is the last
//! combine      all-to-all-v back                            (2 bytes an element), and the sum over the 8
//! ```
//!
//! The data are real: what comes back is compared with what every token should get.
//!
//! `cargo run --release --example moe_decode -- [RANKS] [FABRIC]`
#![allow(clippy::print_stdout)] // a program that shows its table

use std::time::Duration;
use ubccl::sim::{Communicator, World};
use ubccl::{Blocks, Error, Result};

/// Elements of a token's activation here: few, so that real data fit; times are those of so many.
const HIDDEN: usize = 256;
const LAYERS: usize = 3;
/// Experts that a token goes to.
const CHOSEN: usize = 8;
/// An expert computes for so long, whoever comes, and for so long for each token.
const EXPERT: Duration = Duration::from_micros(10);
const PER_TOKEN: Duration = Duration::from_nanos(200);

/// Where the time of one rank went, over all layers.
#[derive(Clone, Copy, Default)]
struct Spent {
    dispatch: Duration,
    experts: Duration,
    combine: Duration,
    /// Tokens that came to the rank's expert.
    tokens: u64,
}

/// A generator of numbers that is the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The experts of a token: distinct; with `skew`, low ones more often.
fn experts(random: &mut Random, ranks: u32, skew: bool) -> Vec<u32> {
    let mut chosen: Vec<u32> = Vec::with_capacity(CHOSEN);
    while chosen.len() < CHOSEN.min(ranks as usize) {
        let mut expert = random.below(u64::from(ranks));
        if skew {
            expert = expert.min(random.below(u64::from(ranks)));
        }
        if !chosen.contains(&(expert as u32)) {
            chosen.push(expert as u32);
        }
    }
    chosen
}

/// Decodes one token for each of `batch` sequences of this rank, through all layers.
async fn decode(comm: Communicator<'_>, batch: usize, skew: bool) -> Result<Spent> {
    let (me, ranks) = (comm.rank(), comm.ranks());
    let mut random = Random(u64::from(me) + 1);
    let mut spent = Spent::default();
    for layer in 0..LAYERS {
        let tokens: Vec<u8> = (0..batch).map(|token| (token * 31 + layer * 7 + me as usize) as u8).collect();
        let chosen: Vec<Vec<u32>> = tokens.iter().map(|_| experts(&mut random, ranks, skew)).collect();
        // For each expert the tokens that go to it, in order.
        let of_expert =
            |expert| (0..batch).filter(|&token| chosen[token].contains(&expert)).collect::<Vec<_>>();
        let routed: Vec<Vec<usize>> = (0..ranks).map(of_expert).collect();
        let counts: Vec<u64> = routed.iter().map(|tokens| tokens.len() as u64).collect();

        let began = comm.now();
        let coming = comm.all_to_all(counts.clone()).await?;
        let elements = |counts: &[u64]| counts.iter().map(|count| count * HIDDEN as u64).collect::<Vec<_>>();
        let (sends, receives) = (elements(&counts), elements(&coming));
        let activations =
            routed.iter().flatten().flat_map(|&token| [tokens[token]; HIDDEN]).collect::<Vec<u8>>();
        let arrived =
            comm.all_to_all_v(activations, Blocks::packed(&sends), Blocks::packed(&receives)).await?;
        let dispatched = comm.now();

        let here = coming.iter().sum::<u64>();
        comm.compute(EXPERT + PER_TOKEN * here as u32).await;
        // Every expert adds its number.
        let outputs: Vec<u16> = arrived.iter().map(|&activation| u16::from(activation) + me as u16).collect();
        let computed = comm.now();

        let back = comm.all_to_all_v(outputs, Blocks::packed(&receives), Blocks::packed(&sends)).await?;
        let mut sums = vec![0_u64; batch];
        for (&token, output) in routed.iter().flatten().zip(back.chunks_exact(HIDDEN)) {
            sums[token] += output.iter().map(|&element| u64::from(element)).sum::<u64>();
        }
        for token in 0..batch {
            let expected: u64 = chosen[token].iter().map(|&e| u64::from(tokens[token]) + u64::from(e)).sum();
            if sums[token] != expected * HIDDEN as u64 {
                return Err(Error::internal(format!("token {token} of rank {me} got {}", sums[token])));
            }
        }
        spent.dispatch += dispatched - began;
        spent.experts += computed - dispatched;
        spent.combine += comm.now() - computed;
        spent.tokens += here;
    }
    Ok(spent)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let ranks: u32 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(32);
    let fabric = arguments.next().unwrap_or_else(|| "cloudmatrix384".to_owned());
    println!(
        "# {LAYERS} layers, {CHOSEN} of {ranks} experts, {HIDDEN} elements a token, {ranks} ranks of {fabric}; virtual time"
    );
    println!("# means over ranks; combine includes the wait for the slowest expert");
    println!(
        "{:>6} {:>8} {:>11} {:>10} {:>10} {:>10} {:>14}",
        "batch", "routing", "dispatch us", "experts us", "combine us", "total us", "most tokens"
    );
    for batch in [1, 8, 32] {
        for (skew, routing) in [(false, "even"), (true, "skewed")] {
            let report = World::run(&fabric, ranks, async |comm| decode(comm, batch, skew).await)?;
            let total_us = report.elapsed_ps as f64 / 1e6;
            let spent = report.into_results()?;
            let mean = |part: fn(&Spent) -> Duration| {
                spent.iter().map(|spent| part(spent).as_secs_f64() * 1e6).sum::<f64>() / spent.len() as f64
            };
            println!(
                "{batch:>6} {routing:>8} {:>11.2} {:>10.2} {:>10.2} {total_us:>10.2} {:>14}",
                mean(|spent| spent.dispatch),
                mean(|spent| spent.experts),
                mean(|spent| spent.combine),
                spent.iter().map(|spent| spent.tokens).max().unwrap_or(0),
            );
        }
    }
    Ok(())
}
