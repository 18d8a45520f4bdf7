//! See README.md.

mod choose;
mod communicator;
mod config;
#[allow(dead_code, unused_imports)]
mod control;
mod cores;
mod engine;
mod executor;
mod faults;
pub mod sim;
mod waiting;
mod work;

pub use communicator::Communicator;
pub use config::{Config, ENVIRONMENT};
pub use control::Rendezvous;
pub use ubccl_core::plan;
pub use ubccl_core::{
    Algorithm, AlgorithmDescriptor, Cause, Choice, Collective, Culprit, DataType, Element, Error, ErrorKind,
    Kind, Rank, ReduceOp, Result,
};
pub use work::Work;

/// The algorithms there are.
pub fn algorithms() -> impl Iterator<Item = &'static AlgorithmDescriptor> {
    ubccl_algorithms::index().iter().map(|algorithm| algorithm.descriptor())
}

/// The transports there are.
pub fn transports() -> impl Iterator<Item = &'static ubccl_core::endpoint::TransportDescriptor> {
    ubccl_transports::index().iter().map(|transport| transport.descriptor())
}
