//! The sizes of a sweep, with nccl-tests' semantics.

/// How one size leads to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Multiply.
    Factor(u64),
    /// Add bytes.
    Bytes(u64),
    /// So many sizes, each as many times the one before.
    Points(u32),
}

/// A range of sizes in bytes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sweep {
    /// First size.
    pub(crate) min_bytes: u64,
    /// Last size, if the steps meet it.
    pub(crate) max_bytes: u64,
    /// From one size to the next.
    pub(crate) step: Step,
}

impl Sweep {
    /// Checks the options. Without any, 8 B to 64 MiB by powers of two. As in nccl-tests a factor above 1 wins over
    /// a step, and a factor of 1 means the step.
    pub(crate) fn new(
        min_bytes: Option<u64>,
        max_bytes: Option<u64>,
        factor: Option<u64>,
        step_bytes: Option<u64>,
    ) -> Result<Self, String> {
        const DEFAULT_MAX: u64 = 64 << 20;
        let max = max_bytes.unwrap_or(DEFAULT_MAX.max(min_bytes.unwrap_or(0)));
        let min = min_bytes.unwrap_or(max.min(8));
        if min > max {
            return Err(format!("--minbytes {min} is larger than --maxbytes {max}"));
        }
        let step = match (factor, step_bytes) {
            (Some(0), _) => return Err("--stepfactor 0 never reaches --maxbytes; use 2 or more".into()),
            (Some(factor), _) if factor > 1 => Step::Factor(factor),
            (None, None) => Step::Factor(2),
            (_, Some(0)) => return Err("--stepbytes 0 never reaches --maxbytes; use 1 or more".into()),
            (_, bytes) => Step::Bytes(bytes.unwrap_or(1 << 20)),
        };
        Ok(Sweep { min_bytes: min, max_bytes: max, step })
    }

    /// The same range with so many sizes.
    pub(crate) fn with_points(self, points: u32) -> Self {
        Sweep { step: Step::Points(points), ..self }
    }

    /// The sizes. After a size of zero a factor goes on with one element, which is `element_bytes`.
    pub(crate) fn sizes(self, element_bytes: u64) -> impl Iterator<Item = u64> {
        let at = move |index: u64| match self.step {
            Step::Points(points) => self.point(index, points),
            _ => None,
        };
        let next = move |&(index, bytes): &(u64, u64)| {
            let bytes = match self.step {
                Step::Factor(_) if bytes == 0 => Some(element_bytes),
                Step::Factor(factor) => bytes.checked_mul(factor),
                Step::Bytes(step) => bytes.checked_add(step),
                Step::Points(_) => at(index + 1),
            };
            bytes.map(|bytes| (index + 1, bytes))
        };
        let sizes = std::iter::successors(Some((0, self.min_bytes)), next).map(|(_, bytes)| bytes);
        sizes.take_while(move |bytes| *bytes <= self.max_bytes)
    }

    /// Of so many sizes the one at this place: from the first to the last by one factor.
    fn point(self, index: u64, points: u32) -> Option<u64> {
        let last = u64::from(points - 1);
        if index >= last {
            return (index == last).then_some(self.max_bytes);
        }
        let first = self.min_bytes.max(1) as f64;
        let factor = (self.max_bytes as f64 / first).powf(index as f64 / last as f64);
        Some((first * factor).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(min: u64, max: u64, factor: Option<u64>, step: Option<u64>) -> Vec<u64> {
        Sweep::new(Some(min), Some(max), factor, step).unwrap().sizes(4).collect()
    }

    #[test]
    fn the_default_sweep_is_8_bytes_to_64_mebibytes_by_two() {
        let all: Vec<u64> = Sweep::new(None, None, None, None).unwrap().sizes(4).collect();
        assert_eq!((all[0], all[1], *all.last().unwrap(), all.len()), (8, 16, 64 << 20, 24));
    }

    #[test]
    fn points_go_from_end_to_end_by_one_factor() {
        let sweep = Sweep::new(Some(8), Some(4 << 30), None, None).unwrap().with_points(12);
        let all: Vec<u64> = sweep.sizes(4).collect();
        assert_eq!((all.len(), all[0], all[11]), (12, 8, 4 << 30));
        let factors: Vec<f64> = all.windows(2).map(|pair| pair[1] as f64 / pair[0] as f64).collect();
        assert!(factors.iter().all(|factor| (6.0..6.5).contains(factor)), "{factors:?}");
    }

    #[test]
    fn factor_wins_over_step_and_ends_are_included() {
        assert_eq!(sizes(8, 32, None, None), [8, 16, 32]);
        assert_eq!(sizes(8, 100, Some(3), Some(5)), [8, 24, 72]);
        assert_eq!(sizes(10, 30, None, Some(10)), [10, 20, 30]);
        assert_eq!(sizes(10, 30, Some(1), Some(15)), [10, 25]);
        assert_eq!(sizes(5, 5, None, None), [5]);
    }

    #[test]
    fn zero_leads_to_one_element_instead_of_looping() {
        assert_eq!(sizes(0, 16, None, None), [0, 4, 8, 16]);
        assert_eq!(sizes(0, 0, None, None), [0]);
    }

    #[test]
    fn a_single_end_moves_the_other_default() {
        assert_eq!(Sweep::new(Some(1 << 30), None, None, None).unwrap().max_bytes, 1 << 30);
        assert_eq!(Sweep::new(None, Some(4), None, None).unwrap().min_bytes, 4);
    }

    #[test]
    fn ranges_that_never_end_or_start_are_refused() {
        assert!(Sweep::new(Some(9), Some(8), None, None).unwrap_err().contains("larger"));
        assert!(Sweep::new(None, None, Some(0), None).is_err());
        assert!(Sweep::new(None, None, None, Some(0)).is_err());
        let near_the_end = Sweep::new(Some(u64::MAX - 1), Some(u64::MAX), Some(2), None).unwrap();
        assert_eq!(near_the_end.sizes(4).count(), 1);
    }
}
