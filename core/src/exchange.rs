//! The out-of-band exchange used only while a communicator starts.

use crate::error::Result;
use std::time::Instant;

/// All-gathers small blobs between the ranks of a communicator that is starting.
///
/// Contract:
/// 1. Every rank calls [`Exchange::all_gather`] equally often; call k of one rank meets call k of the others.
/// 2. The answer has one blob per rank, in rank order, this rank's own included.
/// 3. No call outlives [`Exchange::deadline`]; an error names the ranks that are missing.
pub trait Exchange {
    /// This rank.
    fn rank(&self) -> u32;
    /// How many ranks there are.
    fn ranks(&self) -> u32;
    /// Gives `blob` to every rank and returns everybody's.
    fn all_gather(&mut self, blob: &[u8]) -> Result<Vec<Vec<u8>>>;
    /// When start-up has to be over.
    fn deadline(&self) -> Instant;
}
