//! The calls made last, with their plans: a call that is repeated, alone or in turn with others, is found by one comparison.

use crate::planned::Planned;
use crate::round::Places;
use std::ops::Index;
use std::sync::Arc;
use ubccl_core::endpoint::{Key as MessageKey, Stream};
use ubccl_core::{Collective, DataType, Kind, Rank, ReduceOp, Signature, Spec};

/// Places; a call has one by what it is. Enough for the calls of a training step, few enough to stay in a cache.
const PLACES: usize = 32;

/// A call, as far as its plan and the way it is done depend on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Key {
    /// Kind, type, operation, count, root.
    signature: Signature,
    /// Two operations of users' have the same signature.
    op: Option<ReduceOp>,
    peers: (Option<Rank>, Option<Rank>),
    in_place: bool,
}

/// A call and what was found out about it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) key: Key,
    pub(super) plan: Arc<Planned>,
    /// With the plan's number.
    pub(super) signature: Signature,
}

impl Key {
    #[inline]
    pub(super) fn new(call: &Collective<'_>, in_place: bool) -> Self {
        Key { signature: call.signature(0), op: call.op(), peers: (call.to(), call.from()), in_place }
    }

    pub(super) fn in_place(&self) -> bool {
        self.in_place
    }

    /// Any number that differs between calls that follow each other; the count varies most.
    #[inline]
    fn place(&self) -> usize {
        let Signature(bits) = self.signature;
        let peer = |rank: Option<Rank>| rank.map_or(0, |rank| u64::from(rank) + 1);
        let rest = u64::from(self.in_place) ^ peer(self.peers.0) << 1 ^ peer(self.peers.1) << 20;
        place_of((bits as u64 >> 32) ^ (bits >> 64) as u64 ^ rest << 20)
    }
}

/// A call that is one round of publications, checked once, with all that repeating it takes.
#[derive(Debug)]
pub(super) struct Known {
    key: RoundKey,
    pub(super) plan: Arc<Planned>,
    pub(super) block_bytes: u64,
    /// What its publications say of the last such call. Kept, so that what does not change was not stored just before it is
    /// loaded, by another width, which a processor has to wait for.
    pub(super) message: MessageKey,
    input_bytes: u64,
    output_bytes: u64,
    /// From the output to the input in place, modulo 2^64.
    ahead: usize,
}

impl Known {
    /// A call whose plan is a round of blocks of so many bytes.
    pub(super) fn new(call: &Collective<'_>, plan: &Arc<Planned>, block_bytes: u64) -> Self {
        let Spec { rank, ranks, dtype, .. } = *plan.spec();
        let bytes = |elements: u64| elements * dtype.size() as u64;
        let (input, output) = call.in_place_offsets(rank);
        Known {
            key: RoundKey::new(call),
            block_bytes,
            message: MessageKey {
                stream: Stream::Collective(0),
                lane: 0,
                signature: call.signature(plan.number()),
                engine: None,
            },
            input_bytes: bytes(call.input_elements(ranks, rank)),
            output_bytes: bytes(call.output_elements(ranks, rank)),
            ahead: (bytes(input) as usize).wrapping_sub(bytes(output) as usize),
            plan: plan.clone(),
        }
    }

    /// Where two buffers are, if they are such as the call may have: there, and the same or apart.
    #[inline]
    pub(super) fn places(&self, input: *const u8, output: *mut u8) -> Option<Places> {
        let Known { input_bytes, output_bytes, ahead, .. } = *self;
        if input.is_null() && input_bytes > 0 || output.is_null() && output_bytes > 0 {
            return None;
        }
        let (first, into) = (input.addr(), output.addr());
        let end = |start: usize, len: u64| (start as u64).saturating_add(len);
        let are_fine = first == into.wrapping_add(ahead)
            || end(first, input_bytes) <= into as u64
            || end(into, output_bytes) <= first as u64
            || input_bytes == 0
            || output_bytes == 0;
        are_fine.then(|| Places::at(input, output))
    }

    /// Whether they are as long as they have to be, as far as is known.
    #[inline]
    pub(super) fn fits(&self, lengths: Lengths) -> bool {
        let needed = (self.input_bytes, self.output_bytes);
        match lengths {
            Lengths::Vouched => true,
            Lengths::Apart(input, output) => needed == (input as u64, output as u64),
            Lengths::Joint(both) => [(both, 0), (0, both), (both, both)]
                .iter()
                .any(|&(input, output)| needed == (input as u64, output as u64)),
        }
    }
}

/// What is known of the lengths of two buffers, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lengths {
    /// Whoever calls vouches for them.
    Vouched,
    /// Of the input and of the output.
    Apart(usize, usize),
    /// Of one buffer that is both, from its first byte on.
    Joint(usize),
}

/// All that a call without tables and peers is. Not its signature: that is of a call that was checked, these may be of any.
#[derive(Clone, Copy, Debug, PartialEq)]
struct RoundKey {
    kind: Kind,
    dtype: DataType,
    op: Option<ReduceOp>,
    root: Option<Rank>,
    count: u64,
}

impl RoundKey {
    #[inline]
    fn new(call: &Collective<'_>) -> Self {
        let (kind, dtype, op, root, count) =
            (call.kind(), call.dtype(), call.op(), call.root(), call.count());
        RoundKey { kind, dtype, op, root, count }
    }

    #[inline]
    fn place(&self) -> usize {
        let root = self.root.map_or(0, |root| u64::from(root) + 1);
        place_of(self.count ^ u64::from(self.kind.code()) << 48 ^ root << 24)
    }
}

/// One of the places, for a number in which calls differ that follow each other.
#[inline]
fn place_of(mixed: u64) -> usize {
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % PLACES
}

/// See the module.
#[derive(Debug)]
pub(super) struct Recent {
    calls: [Option<Call>; PLACES],
    rounds: [Option<Known>; PLACES],
}

impl Default for Recent {
    fn default() -> Self {
        Recent { calls: [const { None }; PLACES], rounds: [const { None }; PLACES] }
    }
}

impl Recent {
    /// Where a call stands.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<usize> {
        let place = key.place();
        self.calls[place].as_ref().is_some_and(|call| call.key == *key).then_some(place)
    }

    /// Keeps a call instead of the one in its place.
    pub(super) fn keep(&mut self, call: Call) -> usize {
        let place = call.key.place();
        self.calls[place] = Some(call);
        place
    }

    /// Where a round stands, if this call was one; then it has been checked.
    #[inline]
    pub(super) fn find_round(&self, call: &Collective<'_>) -> Option<usize> {
        let key = RoundKey::new(call);
        let place = key.place();
        self.rounds[place].as_ref().is_some_and(|known| known.key == key).then_some(place)
    }

    /// Keeps a round instead of the one in its place.
    pub(super) fn keep_round(&mut self, round: Known) -> usize {
        let place = round.key.place();
        self.rounds[place] = Some(round);
        place
    }

    /// A round that was found or kept.
    #[inline]
    pub(super) fn round(&mut self, place: usize) -> &mut Known {
        self.rounds[place].as_mut().expect("places are those of rounds that were found or kept")
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Index<usize> for Recent {
    type Output = Call;

    #[inline]
    fn index(&self, place: usize) -> &Call {
        self.calls[place].as_ref().expect("places are those of calls that were found or kept")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubccl_core::Choice;
    use ubccl_core::direct::DirectLimits;

    fn known(call: &Collective<'_>, rank: Rank) -> Known {
        let algorithm = crate::algorithm("mesh-one-shot").unwrap();
        let spec = Spec::new(call, 3, rank, false, Choice::default());
        let limits = DirectLimits { any: 8192, exchange: 8192 };
        let plan = Arc::new(Planned::new(&spec, |spec| algorithm.plan(spec), (limits, None), false));
        let block_bytes = plan.direct_block(call.count()).unwrap();
        Known::new(call, &plan, block_bytes)
    }

    #[test]
    fn only_buffers_that_a_call_may_have_are_taken_unchecked() {
        let memory = [0_u8; 64];
        let at = |offset: usize| memory.as_ptr().wrapping_add(offset);
        let places = |known: &Known, input: *const u8, output: *const u8| {
            known.places(input, output.cast_mut()).is_some()
        };
        // Rank 1 of 3 brings 8 bytes and gets 24; in place it brings the second 8 of them.
        let gather = known(&Collective::all_gather(2, DataType::F32), 1);
        assert!(places(&gather, at(0), at(8)) && places(&gather, at(24), at(0)), "apart");
        assert!(places(&gather, at(8), at(0)), "in place");
        assert!(!places(&gather, at(0), at(0)) && !places(&gather, at(16), at(0)), "not its block");
        assert!(!places(&gather, at(1), at(8)) && !places(&gather, at(31), at(8)), "a byte overlaps");
        let null = std::ptr::null();
        assert!(!places(&gather, null, at(0)) && !places(&gather, at(0), null));
        // What a rank does not bring may be null and anywhere.
        let broadcast = known(&Collective::broadcast(2, DataType::F32, 0), 1);
        assert!(places(&broadcast, null, at(0)) && places(&broadcast, at(4), at(0)));
        assert!(!places(&broadcast, at(0), null));
    }

    #[test]
    fn buffers_of_other_lengths_do_not_fit() {
        let gather = known(&Collective::all_gather(2, DataType::F32), 1);
        assert!(gather.fits(Lengths::Apart(8, 24)));
        for (input, output) in [(8, 20), (8, 28), (4, 24), (12, 24), (24, 8)] {
            assert!(!gather.fits(Lengths::Apart(input, output)), "{input} {output}");
        }
        assert!(!gather.fits(Lengths::Joint(24)), "its input does not begin where its output does");
        let sum = known(&Collective::all_reduce(2, DataType::F32, ReduceOp::Sum), 1);
        assert!(sum.fits(Lengths::Joint(8)) && sum.fits(Lengths::Apart(8, 8)));
        assert!(
            !sum.fits(Lengths::Joint(4)) && !sum.fits(Lengths::Joint(12)) && !sum.fits(Lengths::Apart(8, 4))
        );
        for rank in [0, 1] {
            let broadcast = known(&Collective::broadcast(2, DataType::F32, 0), rank);
            assert!(broadcast.fits(Lengths::Joint(8)) && !broadcast.fits(Lengths::Joint(4)), "rank {rank}");
        }
    }

    #[test]
    fn a_call_that_was_not_checked_is_taken_for_no_other() {
        let mut recent = Recent::default();
        let call = Collective::broadcast(2, DataType::F32, 0);
        let place = recent.keep_round(known(&call, 1));
        assert_eq!(recent.find_round(&call), Some(place));
        for other in [
            Collective::broadcast(3, DataType::F32, 0),
            Collective::broadcast(2, DataType::I32, 0),
            Collective::broadcast(2, DataType::F32, 1),
            // These are no valid calls: their bits would be another's in a signature.
            Collective::broadcast(2, DataType::F32, 1 << 20),
            Collective::broadcast(2 + (1 << 48), DataType::F32, 0),
            Collective::all_gather(2, DataType::F32),
        ] {
            assert_eq!(recent.find_round(&other), None, "{other:?}");
        }
    }
}
