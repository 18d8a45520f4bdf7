//! One call over many buffers: small ones travel together, so that each does not pay a latency of its own.
#![allow(unsafe_code)] // hands buffers to the engine

use crate::communicator::{Communicator, host_mut};
use crate::engine::Buffers;
use ubccl_core::{Collective, Element, Rank, ReduceOp, Result, Signature};

/// Buffers up to this many bytes are copied into one and travel together. A copy of 64 KiB in a cache takes a few
/// microseconds, about what a message of its own costs in latency; beyond, the copies cost more.
const PACKED_BYTES: usize = 64 << 10;

impl Communicator {
    /// All-reduces every buffer in place, as one call each but with the small ones packed together.
    ///
    /// Shapes: as many buffers, each as long, on every rank.
    /// Order, errors: as [`Communicator::all_reduce`]; Mismatch too if the lengths of packed buffers differ. An error
    ///         leaves the buffers in no particular state.
    /// Source: torch.distributed.all_reduce_coalesced; ncclAllReduce in one group.
    pub fn all_reduce_coalesced<T: Element>(&self, buffers: &mut [&mut [T]], op: ReduceOp) -> Result<()> {
        let call = |count| Collective::all_reduce(count, T::DTYPE, op);
        self.run_coalesced(buffers, &call)
    }

    /// Gives every rank the root's buffers, in place, the small ones packed together.
    ///
    /// Shapes, order, errors: as [`Communicator::all_reduce_coalesced`].
    /// Source: torch.distributed._broadcast_coalesced.
    pub fn broadcast_coalesced<T: Element>(&self, buffers: &mut [&mut [T]], root: Rank) -> Result<()> {
        self.run_coalesced(buffers, &|count| Collective::broadcast(count, T::DTYPE, root))
    }

    /// Runs a call that is the same for every element on each buffer.
    fn run_coalesced<T: Element>(
        &self,
        buffers: &mut [&mut [T]],
        call: &dyn Fn(u64) -> Collective<'static>,
    ) -> Result<()> {
        let is_small = |buffer: &[T]| size_of_val(buffer) <= PACKED_BYTES;
        let small = buffers.iter().filter(|buffer| is_small(buffer));
        let mut packed: Vec<T> = Vec::with_capacity(small.clone().map(|buffer| buffer.len()).sum());
        let mut lengths = LENGTHS_SEED;
        for buffer in small {
            packed.extend_from_slice(buffer);
            lengths = mix(lengths, buffer.len() as u64);
        }
        // Checked before anything is sent: who would fail here sends nothing.
        for buffer in buffers.iter().filter(|buffer| !is_small(buffer)) {
            self.check_joint(&call(buffer.len() as u64), size_of_val(&**buffer))?;
        }
        self.run_packed(&call(packed.len() as u64), &mut packed, lengths)?;
        let mut rest = &packed[..];
        for buffer in buffers.iter_mut() {
            if is_small(buffer) {
                let (own, others) = rest.split_at(buffer.len());
                buffer.copy_from_slice(own);
                rest = others;
            }
        }
        let mut group = self.group();
        for buffer in buffers.iter_mut().filter(|buffer| !is_small(buffer)) {
            let call = call(buffer.len() as u64);
            group.call_in_place(&call, bytemuck::cast_slice_mut(buffer))?;
        }
        group.run()
    }

    /// Runs a call in place whose signature tells how the buffer was cut, too.
    fn run_packed<T: Element>(&self, call: &Collective<'_>, packed: &mut [T], lengths: u32) -> Result<()> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(packed);
        self.check_joint(call, bytes.len())?;
        let plan = self.shared.lock().plan(call, true)?;
        let signature: Signature = call.signature(plan.number() ^ lengths);
        let buffers = Buffers::InPlace(host_mut(bytes));
        // SAFETY: the buffer is borrowed until this returns, by which time nothing is under way; the plan is the call's.
        let op = unsafe { self.shared.issue_planned(call, (plan, signature), buffers) }?;
        self.shared.wait_borrowed(self.shared.lock(), &[op]).map(drop)
    }
}

const LENGTHS_SEED: u32 = 0x9e37_79b9;

/// A hash of a list of lengths, number by number: murmur's finaliser over the sum.
fn mix(hash: u32, len: u64) -> u32 {
    let x = (hash.rotate_left(5) ^ len as u32 ^ (len >> 32) as u32).wrapping_mul(0x85eb_ca6b);
    (x ^ x >> 13).wrapping_mul(0xc2b2_ae35)
}
