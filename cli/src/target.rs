//! The seam to the library: everything the program asks of it goes through here.

pub(crate) use ubccl_core::{DataType, Error, ErrorKind, Kind, ReduceOp};

use crate::call::Call;

/// One rank's communicator, as the measuring needs it.
pub(crate) trait Target {
    /// This rank.
    fn rank(&self) -> u32;
    /// How many ranks there are.
    fn ranks(&self) -> u32;
    /// The calls from here on are this one.
    fn select(&mut self, call: &Call);
    /// Runs the selected call from `input` to `output`.
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), Error>;
    /// Runs the selected call in place.
    fn run_in_place(&mut self, buffer: &mut [u8]) -> Result<(), Error>;
    /// Waits until all ranks are here.
    fn barrier(&mut self) -> Result<(), Error>;
    /// The name of the algorithm that the selected call runs.
    fn algorithm(&self) -> String;
}
