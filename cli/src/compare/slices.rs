//! Slices of a round: what one run of a program measures. They are short, or the CPUs move within them.

use crate::units::show_bytes;
use std::fmt;

/// To this size sizes go together …
const SMALL_BYTES: u64 = 8 << 10;
/// … and from there to this …
const MIDDLE_BYTES: u64 = 1 << 20;
/// … and above this each operation at each size is a run of its own.
const LARGE_BYTES: u64 = 8 << 20;
/// What has no size, and is measured once in a round.
const SIZELESS: &str = "barrier";
/// What is measured in registered memory.
const REGISTERED_OP: &str = "allreduce_inplace";

/// A few operations at a few sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) ops: Vec<&'static str>,
    pub(super) sizes: Vec<u64>,
    /// Whether it is registered memory against the floor, instead of ordinary memory against the peers.
    pub(super) is_registered: bool,
}

impl Slice {
    /// Everything in slices: each operation at each size once.
    pub(super) fn all(ops: &[&'static str], sizes: &[u64]) -> Vec<Slice> {
        let (sizeless, sized): (Vec<_>, Vec<_>) = ops.iter().copied().partition(|&op| op == SIZELESS);
        let within = |low: u64, high: u64| -> Vec<u64> {
            sizes.iter().copied().filter(|bytes| (low..=high).contains(bytes)).collect()
        };
        let of = |ops: &[&'static str], sizes| Slice { ops: ops.to_vec(), sizes, is_registered: false };
        let mut slices =
            vec![of(&sized, within(0, SMALL_BYTES)), of(&sized, within(SMALL_BYTES + 1, MIDDLE_BYTES))];
        for bytes in within(MIDDLE_BYTES + 1, LARGE_BYTES) {
            slices.push(of(&sized, vec![bytes]));
        }
        for bytes in within(LARGE_BYTES + 1, u64::MAX) {
            slices.extend(sized.iter().map(|&op| of(&[op], vec![bytes])));
        }
        slices.retain(|slice| !slice.ops.is_empty() && !slice.sizes.is_empty());
        match slices.first_mut() {
            Some(first) => first.ops.extend(sizeless),
            None if sizeless.is_empty() => {}
            None => slices.push(of(&sizeless, sizes.iter().copied().take(1).collect())),
        }
        slices
    }

    /// An all-reduce in place in registered memory, each size for itself.
    pub(super) fn registered(sizes: &[u64]) -> impl Iterator<Item = Slice> {
        let of = |&bytes| Slice { ops: vec![REGISTERED_OP], sizes: vec![bytes], is_registered: true };
        sizes.iter().map(of)
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.sizes.iter().map(|&bytes| show_bytes(bytes)).collect();
        let memory = if self.is_registered { " in registered memory" } else { "" };
        write!(f, "{}{memory} at {}", self.ops.join(", "), sizes.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{OPERATIONS, SIZES};
    use std::collections::BTreeMap;

    #[test]
    fn each_operation_is_measured_once_at_each_size_and_a_barrier_once() {
        let mut times = BTreeMap::new();
        for slice in Slice::all(&OPERATIONS, &SIZES) {
            for &op in &slice.ops {
                // A program measures a barrier at the first size it is given.
                let sizes = if op == SIZELESS { &slice.sizes[..1] } else { &slice.sizes[..] };
                for bytes in sizes {
                    *times.entry((op, *bytes)).or_insert(0) += 1;
                }
            }
        }
        assert!(times.values().all(|&times| times == 1), "{times:?}");
        assert_eq!(times.len(), (OPERATIONS.len() - 1) * SIZES.len() + 1);
    }

    #[test]
    fn nothing_asked_is_no_slice_and_a_barrier_alone_is_one() {
        assert_eq!(Slice::all(&[], &SIZES), []);
        let barrier = Slice { ops: vec!["barrier"], sizes: vec![8], is_registered: false };
        assert_eq!(Slice::all(&["barrier"], &[8, 64]), [barrier]);
    }
}
