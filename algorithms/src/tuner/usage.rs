//! What a time is made of, in the units of a model's numbers. A prediction is linear in them as long as the same things are
//! in each other's way, which is what a fit needs.

use super::model::{MAX_LEVELS, Model, byte_ps};

/// How much of each number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) launches: f64,
    pub(super) latencies: [f64; MAX_LEVELS],
    pub(super) overheads: [f64; MAX_LEVELS],
    pub(super) gaps: [f64; MAX_LEVELS],
    /// On links.
    pub(super) bytes: [f64; MAX_LEVELS],
    pub(super) folds: f64,
    pub(super) reduced_bytes: f64,
    pub(super) copied_bytes: f64,
}

impl Usage {
    /// `times` as much of `other` more.
    #[inline]
    pub(super) fn add(&mut self, other: &Usage, times: f64) {
        self.launches += times * other.launches;
        for level in 0..MAX_LEVELS {
            self.latencies[level] += times * other.latencies[level];
            self.overheads[level] += times * other.overheads[level];
            self.gaps[level] += times * other.gaps[level];
            self.bytes[level] += times * other.bytes[level];
        }
        self.folds += times * other.folds;
        self.reduced_bytes += times * other.reduced_bytes;
        self.copied_bytes += times * other.copied_bytes;
    }

    /// The same and `times` as much of `other`.
    #[inline]
    pub(super) fn plus(mut self, other: &Usage, times: f64) -> Self {
        self.add(other, times);
        self
    }

    /// What waiting for messages takes.
    pub(super) fn latency_ps(&self, model: &Model) -> f64 {
        let links = model.level.iter().zip(&self.latencies);
        self.launches * model.launch_ps + links.map(|(link, times)| link.latency_ps * times).sum::<f64>()
    }

    /// What ports and processors take to move messages.
    pub(super) fn bandwidth_ps(&self, model: &Model) -> f64 {
        let of = |(index, link): (usize, &super::LinkCost)| {
            self.overheads[index] * link.overhead_ps
                + self.gaps[index] * link.gap_ps
                + self.bytes[index] * link.byte_ps()
        };
        model.level.iter().enumerate().map(of).sum()
    }

    /// What reducing and copying take.
    pub(super) fn reduction_ps(&self, model: &Model) -> f64 {
        self.folds * model.fold_ps
            + self.reduced_bytes * byte_ps(model.reduce_bytes_per_s)
            + self.copied_bytes * byte_ps(model.copy_bytes_per_s)
    }

    /// What one of a rank's ports does of it.
    pub(super) fn of_port(mut self, model: &Model, port: u8) -> Self {
        for (index, _) in model.level.iter().enumerate().filter(|(_, link)| !model.is_of_port(link, port)) {
            (self.latencies[index], self.overheads[index]) = (0.0, 0.0);
            (self.gaps[index], self.bytes[index]) = (0.0, 0.0);
        }
        self
    }

    /// What the port that takes longest does, where all work at the same time.
    pub(super) fn of_slowest_port(self, model: &Model) -> Self {
        let others = (1..model.ports()).map(|port| self.of_port(model, port));
        others.fold(self.of_port(model, 0), |slowest, other| longer(model, slowest, other))
    }

    /// All of it.
    pub(super) fn total_ps(&self, model: &Model) -> f64 {
        self.latency_ps(model) + self.bandwidth_ps(model) + self.reduction_ps(model)
    }
}

/// The one that takes longer; the first, if both take as long.
pub(super) fn longer(model: &Model, a: Usage, b: Usage) -> Usage {
    if b.total_ps(model) > a.total_ps(model) { b } else { a }
}
