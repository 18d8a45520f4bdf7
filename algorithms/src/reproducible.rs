//! Which algorithms give the same bits as each other, on any transport and for any layout.
//!
//! The expression is fixed: one reduction over ranks 0 to n − 1 in that order, accumulated wide and rounded once
//! ([`Association::Flat`]). An algorithm's plans declare it, and the verifier holds every element of every rank to what
//! is declared: there is no claim beside the proof.

use ubccl_core::plan::Association;
use ubccl_core::{Algorithm, Spec};

/// Whether the algorithm's results for such a call have the same bits as all other reproducible algorithms'. Only asked
/// where it supports the call.
pub fn is_reproducible(algorithm: &dyn Algorithm, spec: &Spec) -> bool {
    spec.op.is_none() || spec.ranks == 1 || algorithm.plan(spec).association() == Association::Flat
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index;
    use std::collections::BTreeSet;
    use ubccl_core::{Choice, Collective, DataType, Kind, ReduceOp};

    /// A plan's promise is part of the algorithm, not of the tuner's choice.
    #[test]
    fn no_choice_changes_whether_results_are_reproducible() {
        let mut names = BTreeSet::new();
        for ranks in [1, 2, 3, 8, 33, 65, 384] {
            let calls = [
                Collective::all_reduce(9, DataType::BF16, ReduceOp::Sum),
                Collective::reduce_scatter(9, DataType::BF16, ReduceOp::Sum),
                Collective::reduce(9, DataType::BF16, ReduceOp::Sum, 0),
                Collective::all_gather(9, DataType::BF16),
            ];
            for call in calls {
                for &algorithm in index().iter().filter(|one| one.supports_call(&call, ranks).is_ok()) {
                    let choices = [1, 2, 8].into_iter().flat_map(|lanes| {
                        [1, 1 << 20].map(|chunk_bytes| Choice { lanes, chunk_bytes, ..Choice::default() })
                    });
                    let answers: BTreeSet<bool> = choices
                        .flat_map(|choice| [false, true].map(|in_place| (choice, in_place)))
                        .map(|(choice, in_place)| {
                            is_reproducible(algorithm, &Spec::new(&call, ranks, ranks - 1, in_place, choice))
                        })
                        .collect();
                    let name = algorithm.descriptor().name;
                    assert_eq!(answers.len(), 1, "{name} {call} of {ranks}");
                    if call.op().is_none() || ranks == 1 {
                        assert!(answers.contains(&true), "{name} {call} of {ranks} combines nothing");
                    } else if answers.contains(&true) && call.kind() == Kind::AllReduce {
                        names.insert(name);
                    }
                }
            }
        }
        let wanted = ["mesh-one-shot", "mesh-two-shot", "ordered-nb", "ordered-nhr", "ordered-ring"];
        assert!(wanted.iter().all(|name| names.contains(name)), "{names:?}");
        assert!(!names.contains("ring") && !names.contains("nhr"), "{names:?}");
    }
}
