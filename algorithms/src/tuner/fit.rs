//! A model's numbers from measurements: those that predict them best.
//!
//! ```text
//! repeat: what each time is made of, by the numbers so far (a prediction is linear in them while it is bound by the same)
//!         the numbers ≥ 0 with the least squares of (predicted − measured) / √(predicted before × measured)
//! ```
//!
//! The weights make twice as slow and half as fast equally wrong, and count less what is far off: some measurements are.
//! What no measurement depends on stays as it was.

use super::model::{MAX_LEVELS, Model};
use super::nnls::nnls;
use super::usage::Usage;
use ubccl_core::{Choice, Error, Layout, Profile, Result};

/// A measurement.
#[derive(Clone, Debug)]
pub struct Point {
    /// What was done.
    pub profile: Profile,
    /// Where the ranks stood.
    pub layout: Layout,
    /// Bytes of the call's longest buffer.
    pub bytes: u64,
    /// With which lanes and chunks.
    pub choice: Choice,
    /// How long it took.
    pub seconds: f64,
}

/// How far a model's predictions are from measurements, as shares of these.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residuals {
    /// Half of them are nearer.
    pub median: f64,
    /// The farthest.
    pub worst: f64,
}

/// Times to solve; a few suffice, unless what binds a point changes back and forth.
const ROUNDS: usize = 40;
/// A prediction this far off (by the logarithm) and farther counts by its distance, not the square.
const FAR: f64 = 0.25;
/// How strongly numbers are held at what they were, for each point: enough for those that no point depends on.
const HOLD: f64 = 1e-9;
/// The time of a link's or a kernel's byte that takes none: faster than any machine.
const LEAST_BYTE_PS: f64 = 1e-4;
const PS_PER_S: f64 = 1e12;

impl Model {
    /// The model with the numbers that predict measurements best, beginning with this one's.
    ///
    /// Errors: InvalidArgument, for fewer measurements than numbers, or a time that is none.
    pub fn fit(&self, points: &[Point]) -> Result<(Model, Residuals)> {
        if let Some(point) = points.iter().find(|point| !(point.seconds > 0.0 && point.seconds < 1e9)) {
            return Err(Error::invalid(format!("{} s is no time that a call takes", point.seconds)));
        }
        let numbers = Numbers::used(self, points);
        if points.len() < numbers.0.len().max(1) {
            let (points, numbers) = (points.len(), numbers.0.len());
            return Err(Error::invalid(format!(
                "{points} measurements are too few to tell {numbers} numbers of a cost model: measure more sizes"
            )));
        }
        let mut now = numbers.positive(self);
        let (mut best, mut least) = (self.clone(), badness(self, points));
        for round in 0..ROUNDS {
            let solved = numbers.solve(&now, points);
            // If what binds points goes back and forth, steps get shorter.
            let step = if round < 6 { 1.0 } else { 0.5 };
            now = numbers.between(&now, &solved, step);
            let bad = badness(&now, points);
            if bad < least {
                (best, least) = (now.clone(), bad);
            }
        }
        let residuals = residuals(&best, points);
        Ok((Model { fitted: None, ..best }, residuals))
    }
}

fn predicted_ps(model: &Model, point: &Point) -> f64 {
    let Point { profile, layout, bytes, choice, .. } = point;
    model.usage(profile, *bytes, choice, layout).total_ps(model)
}

/// By how much a prediction is off, as a logarithm.
fn distance(model: &Model, point: &Point) -> f64 {
    (predicted_ps(model, point).max(1.0) / (point.seconds * PS_PER_S)).ln()
}

/// What is to be small: squares of small distances, large ones themselves.
fn badness(model: &Model, points: &[Point]) -> f64 {
    let of = |point: &Point| {
        let distance = distance(model, point).abs();
        if distance < FAR { distance * distance } else { FAR * (2.0 * distance - FAR) }
    };
    points.iter().map(of).sum()
}

fn residuals(model: &Model, points: &[Point]) -> Residuals {
    let of = |point: &Point| (predicted_ps(model, point) / (point.seconds * PS_PER_S) - 1.0).abs();
    let mut all: Vec<f64> = points.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    Residuals { median: all[all.len() / 2], worst: all[all.len() - 1] }
}

/// One of a model's numbers, as a time for one of its units.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Launch,
    Latency(usize),
    Overhead(usize),
    LinkByte(usize),
    ReducedByte,
    CopiedByte,
}

impl Number {
    /// What to begin with where there is nothing: about what a processor takes.
    fn usual_ps(self) -> f64 {
        match self {
            Number::Launch | Number::Overhead(_) => 1e5,
            Number::Latency(_) => 1e6,
            Number::LinkByte(_) | Number::ReducedByte | Number::CopiedByte => 100.0,
        }
    }

    fn get(self, model: &Model) -> f64 {
        let byte = |rate: Option<f64>| rate.map_or(0.0, |rate| PS_PER_S / rate);
        match self {
            Number::Launch => model.launch_ps,
            Number::Latency(level) => model.level[level].latency_ps,
            Number::Overhead(level) => model.level[level].overhead_ps,
            Number::LinkByte(level) => model.level[level].byte_ps(),
            Number::ReducedByte => byte(model.reduce_bytes_per_s),
            Number::CopiedByte => byte(model.copy_bytes_per_s),
        }
    }

    fn set(self, model: &mut Model, ps: f64) {
        let rate = PS_PER_S / ps.max(LEAST_BYTE_PS);
        let rate_if_any = (ps > LEAST_BYTE_PS).then_some(rate);
        match self {
            Number::Launch => model.launch_ps = ps,
            Number::Latency(level) => model.level[level].latency_ps = ps,
            Number::Overhead(level) => model.level[level].overhead_ps = ps,
            Number::LinkByte(level) => model.level[level].rate_bytes_per_s = rate,
            Number::ReducedByte => model.reduce_bytes_per_s = rate_if_any,
            Number::CopiedByte => model.copy_bytes_per_s = rate_if_any,
        }
    }

    /// How many of its units a time is made of.
    fn times(self, usage: &Usage) -> f64 {
        match self {
            Number::Launch => usage.launches,
            Number::Latency(level) => usage.latencies[level],
            Number::Overhead(level) => usage.overheads[level],
            Number::LinkByte(level) => usage.bytes[level],
            Number::ReducedByte => usage.reduced_bytes,
            Number::CopiedByte => usage.copied_bytes,
        }
    }
}

/// The numbers to be found.
struct Numbers(Vec<Number>);

impl Numbers {
    /// Those that some point depends on.
    fn used(model: &Model, points: &[Point]) -> Self {
        let levels = 0..model.level.len().min(MAX_LEVELS);
        let links = levels.flat_map(|l| [Number::Latency(l), Number::Overhead(l), Number::LinkByte(l)]);
        let all = [Number::Launch, Number::ReducedByte, Number::CopiedByte].into_iter().chain(links);
        let usages: Vec<Usage> = points
            .iter()
            .map(|point| model.usage(&point.profile, point.bytes, &point.choice, &point.layout))
            .collect();
        Numbers(all.filter(|number| usages.iter().any(|usage| number.times(usage) > 0.0)).collect())
    }

    /// A model whose numbers are all above 0, so that whatever a time may be made of shows.
    fn positive(&self, model: &Model) -> Model {
        let mut model = model.clone();
        for number in self.0.iter().filter(|number| number.get(&model) <= 0.0).copied().collect::<Vec<_>>() {
            number.set(&mut model, number.usual_ps());
        }
        model
    }

    /// The numbers that are best if times are made of what `model` says.
    fn solve(&self, model: &Model, points: &[Point]) -> Model {
        let scale = |number: &Number| number.get(model).max(1e-3 * number.usual_ps());
        let scales: Vec<f64> = self.0.iter().map(scale).collect();
        let (mut rows, mut wanted) = (Vec::new(), Vec::new());
        for point in points {
            let usage = model.usage(&point.profile, point.bytes, &point.choice, &point.layout);
            let (measured, predicted) = (point.seconds * PS_PER_S, usage.total_ps(model).max(1.0));
            let far = (FAR / (predicted / measured).ln().abs().max(FAR)).sqrt();
            let weight = far / (measured * predicted).sqrt();
            let fixed: f64 = usage.gaps.iter().zip(&model.level).map(|(gaps, link)| gaps * link.gap_ps).sum();
            rows.push(
                self.0.iter().zip(&scales).map(|(n, scale)| n.times(&usage) * scale * weight).collect(),
            );
            wanted.push((measured - fixed) * weight);
        }
        let hold = HOLD * points.len() as f64;
        let now: Vec<f64> =
            self.0.iter().zip(&scales).map(|(number, scale)| number.get(model) / scale).collect();
        let found = nnls(&rows, &wanted, &now, hold);
        let mut solved = model.clone();
        for ((number, scale), value) in self.0.iter().zip(&scales).zip(found) {
            number.set(&mut solved, value * scale);
        }
        solved
    }

    /// Part of the way from one model to another.
    fn between(&self, from: &Model, to: &Model, part: f64) -> Model {
        let mut model = from.clone();
        for number in &self.0 {
            let (a, b) = (number.get(from), number.get(to));
            number.set(&mut model, a + (b - a) * part);
        }
        model
    }
}

#[cfg(test)]
mod tests;
