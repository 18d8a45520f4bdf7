#![doc = include_str!("../README.md")]

mod blocking;
mod breakdown;
mod choose;
mod coalesced;
mod collectives;
mod communicator;
mod config;
mod control;
mod cores;
mod costs;
mod engine;
mod executor;
mod faults;
mod group;
pub mod logging;
mod machine;
mod one_pass;
mod planned;
mod planner;
mod point_to_point;
mod prepared;
mod raw;
mod reduction;
mod region;
mod round;
pub mod sim;
mod split;
pub mod trace;
mod usage;
mod waiting;
mod window;
mod work;

pub use breakdown::Breakdown;
pub use communicator::Communicator;
pub use config::{Agreement, Config, Origin, Origins, Place, Resolved, Setting, settings};
pub use control::Rendezvous;
pub use costs::{Measurement, Tuning};
pub use group::{Group, GroupBuffers, GroupWork, Held, OwnedGroup};
pub use planner::Planner;
pub use prepared::{Prepared, PreparedRaw};
pub use reduction::Reduction;
pub use region::{Buffer, Region};
pub use ubccl_algorithms::tuner::{Candidate, Cost};
pub use ubccl_core::endpoint::{Clock, Counters, Reach, TransportDescriptor};
pub use ubccl_core::group::GroupSide;
pub use ubccl_core::topology::{Level, Link, Ring, Topology};
pub use ubccl_core::usage::MemoryKind;
pub use ubccl_core::{
    Algorithm, AlgorithmDescriptor, Blocks, Cause, Choice, Collective, Culprit, DataType, Element, Error,
    ErrorKind, F8E4M3, F8E5M2, Kind, Layout, Rank, ReduceOp, Result, UserFunction, UserOp,
};
pub use ubccl_core::{blocks, plan, verify};
pub use usage::{LinkClass, MemoryUse, Traffic};
pub use window::Window;
pub use work::Work;

/// The algorithms there are.
pub fn algorithms() -> impl Iterator<Item = &'static AlgorithmDescriptor> {
    ubccl_algorithms::index().iter().map(|algorithm| algorithm.descriptor())
}

/// The algorithm of this name.
///
/// Errors: InvalidArgument, listing what exists.
pub fn algorithm(name: &str) -> Result<&'static dyn Algorithm> {
    ubccl_algorithms::find(name)
}

/// The transports there are.
pub fn transports() -> impl Iterator<Item = &'static TransportDescriptor> {
    ubccl_transports::index().iter().map(|transport| transport.descriptor())
}
