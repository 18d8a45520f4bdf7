//! Order statistics of times.

/// The times of one row, in microseconds per call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Times {
    /// The median: the headline.
    pub(crate) p50_us: f64,
    /// The least.
    pub(crate) min_us: f64,
    /// The 99th percentile (nearest rank).
    pub(crate) p99_us: f64,
}

impl Times {
    /// The statistics of at least one sample. The median of an even number is the upper one, as in nccl-tests.
    pub(crate) fn of(mut samples_us: Vec<f64>) -> Option<Self> {
        samples_us.sort_by(f64::total_cmp);
        let last = samples_us.len().checked_sub(1)?;
        let p99 = (samples_us.len() * 99).div_ceil(100).max(1) - 1;
        Some(Times {
            p50_us: samples_us[samples_us.len() / 2],
            min_us: samples_us[0],
            p99_us: samples_us[p99.min(last)],
        })
    }
}

/// The median of at least one value; of an even number, the upper one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// For each sample the largest of all ranks, divided by the calls in it, in microseconds.
pub(crate) fn slowest_rank_us(samples_of_ranks: &[Vec<u64>], calls_per_sample: u32) -> Vec<f64> {
    let samples = samples_of_ranks.iter().map(Vec::len).min().unwrap_or(0);
    let slowest = |sample: usize| samples_of_ranks.iter().map(|rank| rank[sample]).max().unwrap_or(0);
    (0..samples).map(|sample| slowest(sample) as f64 / 1000.0 / f64::from(calls_per_sample)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let times = Times::of((1..=200).rev().map(f64::from).collect()).unwrap();
        assert_eq!(times, Times { p50_us: 101.0, min_us: 1.0, p99_us: 198.0 });
        let one = Times::of(vec![7.0]).unwrap();
        assert_eq!(one, Times { p50_us: 7.0, min_us: 7.0, p99_us: 7.0 });
        let few = Times::of((1..=20).map(f64::from).collect()).unwrap();
        assert_eq!((few.p50_us, few.p99_us), (11.0, 20.0));
        assert_eq!(Times::of(Vec::new()), None);
    }

    #[test]
    fn the_slowest_rank_of_each_iteration_counts() {
        let ranks = [vec![1000, 9000, 3000], vec![4000, 2000, 3500]];
        assert_eq!(slowest_rank_us(&ranks, 1), [4.0, 9.0, 3.5]);
        assert_eq!(slowest_rank_us(&ranks, 10), [0.4, 0.9, 0.35]);
    }
}
