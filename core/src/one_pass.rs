//! All-reduces in one pass over memory that all ranks reach ([`Endpoint::allocate`]): every rank combines its share of all
//! inputs and writes it to all outputs. Nothing is copied on its way, and every byte is read once and written once.
//!
//! Whether memory is of that kind is each rank's own affair, so the ranks of a call that may be done so first show each other
//! where their buffers are, if they can be reached. If those of one cannot, all know, and the plan is walked. The result
//! is the plan's, bit for bit: every element is combined once, from all ranks in order.
//!
//! [`Endpoint::allocate`]: crate::endpoint::Endpoint::allocate

use crate::algorithm::Spec;
use crate::collective::Rank;
use crate::dtype::DataType;
use crate::endpoint::{DirectProgress, HostPointer};
use crate::kind::Kind;
use crate::op::ReduceOp;
use crate::plan::Association;
use std::ops::Range;

/// Shares begin at multiples of so many bytes of the buffer: two cache lines, since processors fetch them by pairs.
const SHARE_STEP: u64 = 128;

/// An all-reduce with its buffers, which are no regions.
#[derive(Clone, Copy, Debug)]
pub struct OnePassCall {
    /// The element type.
    pub dtype: DataType,
    /// The operation.
    pub op: ReduceOp,
    /// Elements.
    pub count: u64,
    /// Where the rank's input is.
    pub input: HostPointer,
    /// Where its output is; in place, the same.
    pub output: HostPointer,
}

/// How far it has come. All zeros before it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnePassProgress {
    /// Of showing each other where the buffers are.
    pub asked: DirectProgress,
    /// Whether all can be reached, which all ranks know.
    pub agreed: bool,
    /// Bytes of this rank's share that stand in all outputs.
    pub shared: u64,
    /// Whether this rank is through with its share, and has said so.
    pub finished: bool,
    /// How many ranks, in order, are known to be through.
    pub ended: u32,
}

/// How a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnePass {
    /// Others have something to do first, or there is more to do.
    Pending,
    /// The output is whole, and nobody touches the buffers any more.
    Done,
    /// It cannot be done so, on any rank; nothing was touched.
    Declined,
}

impl OnePassCall {
    /// Bytes of a buffer.
    pub fn bytes(&self) -> u64 {
        self.count * self.dtype.size() as u64
    }

    /// The bytes of the buffers that a rank combines: as many as others, but for what does not come out even.
    pub fn share(&self, rank: Rank, ranks: u32) -> Range<u64> {
        let bytes = self.bytes();
        let each = bytes.div_ceil(u64::from(ranks)).next_multiple_of(SHARE_STEP);
        let begin = |rank: Rank| (u64::from(rank) * each).min(bytes);
        begin(rank)..begin(rank + 1)
    }

    /// Whether what plans of this kind make of every element is the reduction of all ranks' in order: by their association,
    /// or because two ranks' elements may change places.
    pub fn suits(spec: &Spec, association: Association) -> bool {
        let is_flat = association == Association::Flat;
        let may_change_places = match spec.op {
            Some(ReduceOp::User(op)) => op.is_commutative(),
            op => op.is_some(),
        };
        spec.kind == Kind::AllReduce && (is_flat || spec.ranks == 2 && may_change_places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Choice, Collective, UserOp};

    fn nothing(_: usize, _: &mut [u8], _: &[u8], _: DataType) {}
    static COMMUTES: UserOp = UserOp::new("commutes", true, nothing, 0);
    static KEEPS_ORDER: UserOp = UserOp::new("keeps order", false, nothing, 0);

    #[test]
    fn plans_that_combine_in_another_order_are_walked_unless_two_ranks_may_change_places() {
        let suits = |op: ReduceOp, ranks: u32, association: Association| {
            let call = Collective::all_reduce(1, DataType::F32, op);
            OnePassCall::suits(&Spec::new(&call, ranks, 0, false, Choice::default()), association)
        };
        let others = [Association::Ring, Association::Tree { radix: 2 }, Association::Own];
        for op in [ReduceOp::Sum, ReduceOp::User(&COMMUTES), ReduceOp::User(&KEEPS_ORDER)] {
            assert!(suits(op, 2, Association::Flat) && suits(op, 3, Association::Flat), "{op:?}");
            for association in others {
                let may_change_places = op != ReduceOp::User(&KEEPS_ORDER);
                assert_eq!(suits(op, 2, association), may_change_places, "{op:?} {association:?}");
                assert!(!suits(op, 3, association), "{op:?} {association:?}");
            }
        }
        let scattered = Collective::reduce_scatter(1, DataType::F32, ReduceOp::Sum);
        let spec = Spec::new(&scattered, 2, 0, false, Choice::default());
        assert!(!OnePassCall::suits(&spec, Association::Flat));
    }

    #[test]
    fn shares_follow_one_another_and_cut_no_element() {
        for (dtype, count) in [(DataType::F64, 1000), (DataType::U8, 1), (DataType::BF16, 4097)] {
            let place = HostPointer(0);
            let call = OnePassCall { dtype, op: ReduceOp::Sum, count, input: place, output: place };
            for ranks in [1, 2, 3, 7, 64] {
                let mut end = 0;
                for rank in 0..ranks {
                    let share = call.share(rank, ranks);
                    assert_eq!(share.start, end, "rank {rank} of {ranks}");
                    assert!(share.start.is_multiple_of(dtype.size() as u64));
                    end = share.end;
                }
                assert_eq!(end, call.bytes());
            }
        }
    }
}
