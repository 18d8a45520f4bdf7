//! `ubccl tune --check`: calls drawn by a seed, predicted by the costs that would count here, measured, and measured again.
//!
//! All draws are measured once, then all once more, each as `tune` measures: so the second time tells how far a
//! measurement is from itself, some time later, which no prediction can be nearer than.

use crate::args::TuneArgs;
use crate::bench;
use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::orders::{Crew, How, Order};
use crate::report::print;
use crate::stats::median;
use crate::target::{self, DataType, Planner, ReduceOp, Settings, settings};
use crate::tune::{KINDS, Tape};
use crate::units::show_bytes;
use std::io::Write;

/// The smallest size that is drawn.
const LEAST_BYTES: u64 = 8;

/// One call, done in one way.
struct Draw {
    call: Call,
    how: How,
    predicted_us: f64,
    /// The first time, and the second.
    measured_us: Vec<f64>,
}

impl Draw {
    /// How far the prediction is from the first measurement, as a share of that.
    fn error(&self) -> f64 {
        (self.predicted_us / self.measured_us[0] - 1.0).abs()
    }

    /// How far the second measurement is from the first.
    fn retest(&self) -> f64 {
        (self.measured_us[1] / self.measured_us[0] - 1.0).abs()
    }
}

/// Numbers that follow from a seed: splitmix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// In 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Prints predicted, measured and measured again, and the median errors of each number of ranks.
pub(crate) fn run(args: &TuneArgs, transport: &str, seed: u64, out: &mut dyn Write) -> Outcome<()> {
    let file = args.out.as_ref().map(|path| {
        let path = path.to_str().ok_or_else(|| Failure::new("--out: the file's name is no text"))?;
        Ok::<_, Failure>((settings::TUNING.name.to_owned(), path.to_owned()))
    });
    let transport_setting = (settings::TRANSPORT.name.to_owned(), transport.to_owned());
    let given: Settings = std::iter::once(transport_setting).chain(file.transpose()?).collect();
    print(out, &format!("# {} calls for each number of ranks, drawn by seed {seed}\n", args.draws))?;
    for &ranks in &args.ranks {
        let planner = target::planner(&given, ranks, None)?;
        let mut draws = draw(&planner, ranks, args, &mut Numbers(seed))?;
        bench::with_crew(transport, ranks, given.clone(), &mut |crew| measure(crew, ranks, &mut draws))?;
        print(out, &table(ranks, &draws))?;
    }
    Ok(())
}

/// Draws kinds, sizes (as many in each octave) and algorithms.
fn draw(planner: &Planner, ranks: u32, args: &TuneArgs, numbers: &mut Numbers) -> Outcome<Vec<Draw>> {
    let octaves = (args.max_bytes.max(LEAST_BYTES) as f64 / LEAST_BYTES as f64).log2();
    let mut draws = Vec::new();
    while draws.len() < args.draws as usize {
        let kind = KINDS[numbers.below(KINDS.len())];
        let bytes = (LEAST_BYTES as f64 * (octaves * numbers.share()).exp2()) as u64;
        let call =
            Call { kind, count: 0, dtype: DataType::F32, op: ReduceOp::Sum, root: 0, ranks }.sized(bytes);
        let ways = target::best_of_each(planner, &call)?;
        if !ways.is_empty() {
            let (how, predicted_us) = ways[numbers.below(ways.len())].clone();
            draws.push(Draw { call, how, predicted_us, measured_us: Vec::new() });
        }
    }
    Ok(draws)
}

fn measure(crew: &mut dyn Crew, ranks: u32, draws: &mut [Draw]) -> Outcome<()> {
    let capacity = draws.iter().map(|draw| draw.call.bytes()).max().unwrap_or(0);
    let mut tape = Tape::new(crew, ranks, capacity);
    let asked: Vec<(Call, Vec<How>)> = draws.iter().map(|draw| (draw.call, vec![draw.how.clone()])).collect();
    for _ in 0..2 {
        for (draw, times_us) in draws.iter_mut().zip(tape.measure(&asked)?) {
            draw.measured_us.extend(times_us);
        }
    }
    tape.crew().run(&Order::Choose(None)).map(drop)
}

fn table(ranks: u32, draws: &[Draw]) -> String {
    let width = draws.iter().map(|draw| draw.how.algorithm.len()).max().unwrap_or(0);
    let kinds = draws.iter().map(|draw| draw.call.kind.name().len()).max().unwrap_or(0);
    let mut text = format!(
        "# {ranks} ranks\n# {:kinds$}  {:>12}  {:width$}  {:>5}  {:>8}  {:>12}  {:>12}  {:>12}  {:>6}  {:>6}\n",
        "",
        "bytes",
        "algorithm",
        "lanes",
        "chunk",
        "predicted us",
        "measured us",
        "again us",
        "error",
        "retest"
    );
    for draw in draws {
        let How { algorithm, lanes, chunk_bytes, .. } = &draw.how;
        let chunk = show_bytes(u64::from(*chunk_bytes));
        text += &format!(
            "  {:kinds$}  {:>12}  {algorithm:width$}  {lanes:>5}  {chunk:>8}  {:>12.2}  {:>12.2}  {:>12.2}  {:>5.0}%  \
             {:>5.0}%\n",
            draw.call.kind.name(),
            draw.call.bytes(),
            draw.predicted_us,
            draw.measured_us[0],
            draw.measured_us[1],
            draw.error() * 100.0,
            draw.retest() * 100.0
        );
    }
    let of = |part: fn(&Draw) -> f64| median(&draws.iter().map(part).collect::<Vec<_>>()) * 100.0;
    text + &format!(
        "# {ranks} ranks: half of the predictions are within {:.1} % of what was measured, half of the measurements within \
         {:.1} % of themselves\n",
        of(Draw::error),
        of(Draw::retest)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_numbers_and_another_seed_others() {
        let numbers = |seed| {
            let mut numbers = Numbers(seed);
            (0..8).map(|_| numbers.next()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        let mut shares = Numbers(1);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&shares.share())));
    }
}
