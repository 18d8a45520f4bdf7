//! The calls made last, with their plans: a call that is repeated, alone or in turn with others, is found by one comparison.

use crate::planned::Planned;
use std::ops::Index;
use std::sync::Arc;
use ubccl_core::{Collective, Rank, ReduceOp, Signature};

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
    /// Bytes of a block, if it is done by publications.
    pub(super) direct_block: Option<u64>,
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
        let mixed = (bits as u64 >> 32) ^ (bits >> 64) as u64 ^ rest << 20;
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % PLACES
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Recent {
    calls: [Option<Call>; PLACES],
}

impl Default for Recent {
    fn default() -> Self {
        Recent { calls: [const { None }; PLACES] }
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

    pub(super) fn clear(&mut self) {
        self.calls = [const { None }; PLACES];
    }
}

impl Index<usize> for Recent {
    type Output = Call;

    #[inline]
    fn index(&self, place: usize) -> &Call {
        self.calls[place].as_ref().expect("places are those of calls that were found or kept")
    }
}
