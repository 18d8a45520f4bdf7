//! The fingerprint of a call: 128 bits that travel with every message.

use crate::collective::Collective;
use crate::dtype::DataType;
use crate::kind::Kind;
use crate::op::ReduceOp;
use std::fmt;

/// What a rank called, packed without loss into 128 bits, so that whoever sees a message can tell the sender's whole
/// call, with nothing looked up and nobody asked.
///
/// Bits, from the low end: plan 32, count 48, root + 1 20, kind 8, dtype 8, op + 1 8; the top 4 are 0. What may
/// legally differ between ranks (in place or not, the peers of a send/receive, each rank's own lengths) is not in it; where
/// lengths differ by rank but all ranks know them, the count is their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Signature(pub u128);

impl Signature {
    #[inline]
    pub(crate) fn new(call: &Collective<'_>, plan: u32) -> Self {
        let root = call.root().map_or(0, |root| u128::from(root) + 1);
        let op = call.op().map_or(0, |op| u128::from(op.code()) + 1);
        Signature(
            u128::from(plan)
                | u128::from(call.common_count()) << 32
                | root << 80
                | u128::from(call.kind().code()) << 100
                | u128::from(call.dtype().code()) << 108
                | op << 116,
        )
    }

    /// The call as text; says so if the bits are no call of this version.
    pub fn describe(self) -> String {
        let field = |shift: u32, bits: u32| (self.0 >> shift) & ((1 << bits) - 1);
        let kind = Kind::from_code(field(100, 8) as u8);
        let dtype = DataType::from_code(field(108, 8) as u8);
        let (Some(kind), Some(dtype)) = (kind, dtype) else {
            return format!("no call of this version ({:#034x})", self.0);
        };
        let mut text = kind.name().to_owned();
        if !matches!(kind, Kind::Barrier | Kind::Group) {
            text += &format!(" count={} {}", field(32, 48), dtype.name());
        }
        match (field(116, 8) as u8).checked_sub(1) {
            // Which one, only the rank that called it knows; the plan's number has its name in it.
            Some(ReduceOp::USER_CODE) => text += " user-defined",
            Some(code) => {
                text +=
                    ReduceOp::from_code(code).map_or(String::new(), |op| format!(" {}", op.name())).as_str()
            }
            None => {}
        }
        if let Some(root) = field(80, 20).checked_sub(1) {
            text += &format!(" root={root}");
        }
        text
    }

    /// Bytes of the longest buffer of the call among so many ranks, or about as many if lengths differ by rank; 0 if it is
    /// of no version of ours.
    pub fn buffer_bytes(self, ranks: u32) -> u64 {
        let dtype = DataType::from_code((self.0 >> 108 & 0xff) as u8);
        let count = (self.0 >> 32 & ((1 << 48) - 1)) as u64;
        let bytes = dtype.map_or(0, |dtype| count * dtype.size() as u64);
        match self.kind() {
            Some(Kind::AllGather | Kind::ReduceScatter | Kind::AllToAll | Kind::Gather | Kind::Scatter) => {
                bytes.saturating_mul(u64::from(ranks))
            }
            _ => bytes,
        }
    }

    /// The kind of call in it, if it is of this version.
    pub fn kind(self) -> Option<Kind> {
        Kind::from_code((self.0 >> 100 & 0xff) as u8)
    }

    /// Whether the call has an operation: what some of its messages carry is combined with something.
    #[inline]
    pub fn reduces(self) -> bool {
        self.0 >> 116 & 0xff != 0
    }

    /// The number of the plan in it.
    pub fn plan(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_tells_the_whole_call() {
        let calls = [
            Collective::all_reduce(Collective::MAX_COUNT, DataType::BF16, ReduceOp::Max),
            Collective::all_reduce(1, DataType::U16, ReduceOp::Xor),
            Collective::all_gather(0, DataType::U8),
            Collective::all_gather(5, DataType::F32),
            Collective::reduce_scatter(6, DataType::F64, ReduceOp::Sum),
            Collective::all_to_all(7, DataType::I16),
            Collective::gather(8, DataType::U8, 1),
            Collective::scatter(9, DataType::U32, 2),
            Collective::broadcast(17, DataType::I32, 767),
            Collective::barrier(),
        ];
        for call in calls {
            let signature = call.signature(0xdead_beef);
            assert_eq!(signature.describe(), call.to_string());
            assert_eq!(signature.plan(), 0xdead_beef);
            assert_eq!(signature.reduces(), call.op().is_some());
            assert_eq!(signature.buffer_bytes(3), call.longest_bytes(3), "{call}");
        }
        assert!(Signature(0).describe().starts_with("no call"));
    }

    #[test]
    fn a_users_operation_is_told_by_what_it_is_since_its_name_does_not_travel() {
        fn nothing(_: usize, _: &mut [u8], _: &[u8], _: DataType) {}
        static OP: crate::UserOp = crate::UserOp::new("nothing", true, nothing, 0);
        let call = Collective::all_reduce(3, DataType::F16, ReduceOp::User(&OP));
        assert_eq!(call.to_string(), "all_reduce count=3 f16 nothing");
        assert_eq!(call.signature(0).describe(), "all_reduce count=3 f16 user-defined");
    }
}
