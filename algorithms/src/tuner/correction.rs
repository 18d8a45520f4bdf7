//! What measurements know of single algorithms beyond a model's few numbers.

use super::{Cost, Model};
use serde::{Deserialize, Serialize};
use ubccl_core::{Error, Kind, Result};

/// How many times as long as the rest of the model says one algorithm takes, by the size of the call: between two sizes in
/// proportion to their octaves, beyond the ends as at the ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// The collective's name.
    pub kind: String,
    /// The algorithm's.
    pub algorithm: String,
    /// How many ranks were measured; it holds for all numbers of them to which no other is nearer, by powers of two first.
    pub ranks: u32,
    /// Sizes of the longest buffer, in order.
    pub bytes: Vec<u64>,
    /// One for each size.
    pub factors: Vec<f64>,
}

/// A measurement more than so many times off is a disturbance, not a property.
const MOST: f64 = 32.0;

impl Correction {
    /// Of measured sizes, in any order, with their factors.
    pub fn new(kind: Kind, algorithm: &str, ranks: u32, mut measured: Vec<(u64, f64)>) -> Self {
        measured.sort_by_key(|row| row.0);
        measured.dedup_by_key(|row| row.0);
        // Three decimals of the smallest are within 2 % of it.
        let rounded = |factor: f64| (factor.clamp(1.0 / MOST, MOST) * 1000.0).round() / 1000.0;
        Correction {
            kind: kind.name().to_owned(),
            algorithm: algorithm.to_owned(),
            ranks,
            bytes: measured.iter().map(|row| row.0).collect(),
            factors: measured.iter().map(|row| rounded(row.1)).collect(),
        }
    }

    /// Checks what a file says.
    pub(super) fn check(&self) -> Result<()> {
        let Correction { kind, algorithm, ranks, bytes, factors } = self;
        let is_ordered = bytes.windows(2).all(|pair| pair[0] < pair[1]);
        let is_range = factors.iter().all(|factor| (1.0 / MOST..=MOST).contains(factor));
        if bytes.is_empty() || bytes.len() != factors.len() || !is_ordered || !is_range {
            return Err(Error::invalid(format!(
                "the cost model: the correction of {algorithm} for {kind} on {ranks} ranks needs sizes in order and as \
                 many factors, each between {} and {MOST}",
                1.0 / MOST
            )));
        }
        Ok(())
    }

    /// For a call of so many bytes.
    pub(super) fn factor(&self, bytes: u64) -> f64 {
        let next = self.bytes.partition_point(|&size| size <= bytes);
        let Some(last) = next.checked_sub(1) else { return self.factors[0] };
        let (Some(&end), Some(&to)) = (self.bytes.get(next), self.factors.get(next)) else {
            return self.factors[last];
        };
        let start = octaves(self.bytes[last]);
        let share = (octaves(bytes) - start) / (octaves(end) - start);
        self.factors[last] + share * (to - self.factors[last])
    }
}

/// About the binary logarithm, by the same arithmetic everywhere.
fn octaves(bytes: u64) -> f64 {
    let bits = bytes.max(1).ilog2();
    f64::from(bits) + bytes.max(1) as f64 / (1_u64 << bits) as f64 - 1.0
}

impl Model {
    /// What is known of an algorithm: of a kind with tables of lengths, if nothing, what is known of it with equal blocks.
    pub(super) fn correction(&self, kind: Kind, algorithm: &str, ranks: u32) -> Option<Correction> {
        let of = |kind: Kind| {
            let known =
                self.correction.iter().filter(|row| row.algorithm == algorithm && row.kind == kind.name());
            // Trees and rounds of halves are as deep for all numbers of ranks up to a power of two.
            let depth = |ranks: u32| ranks.max(1).next_power_of_two().ilog2();
            let far = |row: &Correction| depth(row.ranks).abs_diff(depth(ranks));
            known.min_by_key(|row| (far(row), row.ranks.abs_diff(ranks), row.ranks)).cloned()
        };
        of(kind).or_else(|| match kind {
            Kind::AllGatherV => of(Kind::AllGather),
            Kind::ReduceScatterV => of(Kind::ReduceScatter),
            _ => None,
        })
    }
}

impl Cost {
    /// So many times as much, in all its parts.
    pub(super) fn times(self, factor: f64) -> Self {
        Cost {
            latency_ps: self.latency_ps * factor,
            bandwidth_ps: self.bandwidth_ps * factor,
            reduction_ps: self.reduction_ps * factor,
            contention_ps: self.contention_ps * factor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_go_by_octaves_and_stay_at_the_ends() {
        let known = Correction::new(Kind::AllReduce, "ring", 4, vec![(4096, 3.0), (64, 1.0), (65536, 0.5)]);
        known.check().unwrap();
        let factors = [0, 64, 512, 4096, 16384, 65536, 1 << 40].map(|bytes| known.factor(bytes));
        assert_eq!(factors, [1.0, 1.0, 2.0, 3.0, 1.75, 0.5, 0.5]);
        // Without jumps: the next size is nearly as good.
        for bytes in 1..100_000 {
            assert!((known.factor(bytes + 1) - known.factor(bytes)).abs() < 0.02, "{bytes}");
        }
    }

    #[test]
    fn the_nearest_number_of_ranks_counts_and_mistakes_are_named() {
        let of = |ranks, factor| Correction::new(Kind::AllReduce, "ring", ranks, vec![(8, factor)]);
        let text = "[[level]]\nname = 'host'\nlatency_ps = 1\nrate_bytes_per_s = 1e9\n";
        let model = Model { correction: vec![of(2, 1.5), of(8, 2.0)], ..Model::from_toml(text).unwrap() };
        let factor = |kind, name, ranks| model.correction(kind, name, ranks).map(|row| row.factor(8));
        assert_eq!(factor(Kind::AllReduce, "ring", 4), Some(1.5));
        assert_eq!(factor(Kind::AllReduce, "ring", 6), Some(2.0));
        assert_eq!(factor(Kind::AllReduce, "ring", 5), Some(2.0), "as deep as of 8");
        assert_eq!(factor(Kind::AllReduce, "ring", 64), Some(2.0));
        assert_eq!(factor(Kind::AllGather, "ring", 4), None);
        assert_eq!(factor(Kind::AllReduce, "nhr", 4), None);
        let gather = Correction::new(Kind::AllGather, "ring", 2, vec![(8, 3.0)]);
        let with_gather = Model { correction: vec![gather, of(2, 1.5)], ..model.clone() };
        let factor_v = with_gather.correction(Kind::AllGatherV, "ring", 2).map(|row| row.factor(8));
        assert_eq!(factor_v, Some(3.0), "as with equal blocks");
        let scatter = |factor| Correction::new(Kind::ReduceScatter, "ring", 2, vec![(8, factor)]);
        let own = Correction::new(Kind::ReduceScatterV, "ring", 2, vec![(8, 4.0)]);
        let of_v = |correction| {
            let known = Model { correction, ..model.clone() }.correction(Kind::ReduceScatterV, "ring", 2);
            known.map(|row| row.factor(8))
        };
        assert_eq!(of_v(vec![scatter(3.0)]), Some(3.0), "as with equal blocks");
        assert_eq!(of_v(vec![scatter(3.0), own]), Some(4.0), "what was measured of it counts more");
        assert_eq!(with_gather.correction(Kind::ReduceScatterV, "ring", 2), None);
        assert_eq!(Model::from_toml(&model.to_toml().unwrap()).unwrap(), model);
        let wrong =
            Model { correction: vec![Correction { bytes: vec![8, 8], ..of(2, 1.0) }], ..model.clone() };
        let error = Model::from_toml(&wrong.to_toml().unwrap()).unwrap_err();
        assert!(error.message().contains("correction of ring for all_reduce on 2 ranks"), "{error}");
    }
}
