//! The out-of-band exchange that transports use while a communicator starts.

use crate::error::Result;
use std::time::Instant;

/// The longest blob of one rank in one round of an [`Exchange`], in bytes.
pub const BLOB_BYTES_MAX: usize = 1 << 20;

/// Lets every rank of a starting communicator tell every other rank a few bytes: addresses, capabilities, names of
/// segments. It is slow (a round trip through rank 0) and meant for start-up only.
///
/// The contract:
/// 1. All ranks call [`all_gather`](Exchange::all_gather) the same number of times, in the same order.
/// 2. A round ends on a rank only after every rank has entered it, so a round is a barrier too.
/// 3. The answer has one blob per rank, in rank order, the own one included; blobs may be empty and differ in length.
/// 4. A blob is at most [`BLOB_BYTES_MAX`] long; a longer one is `InvalidArgument` and nothing is sent.
/// 5. A rank that does not come, dies or fails ends the round with one error on every rank, which names it; after
///    an error (other than point 4) the exchange cannot be used any more.
/// 6. Nothing blocks for longer than a few seconds after [`deadline`](Exchange::deadline).
pub trait Exchange {
    /// The own rank.
    fn rank(&self) -> u32;

    /// The number of ranks.
    fn ranks(&self) -> u32;

    /// Gives `blob` to every rank and returns the blobs of all ranks, in rank order.
    ///
    /// # Errors
    /// `InvalidArgument` if the blob is too long; `Start`, naming the culprits, if the round failed.
    fn all_gather(&mut self, blob: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// When the start-up as a whole must be over.
    fn deadline(&self) -> Instant;
}
