//! See README.md.

mod choose;
mod engine;
mod executor;
mod faults;
pub mod sim;

pub use ubccl_core::{
    Algorithm, AlgorithmDescriptor, Cause, Choice, Collective, Culprit, DataType, Element, Error, ErrorKind,
    Kind, Rank, ReduceOp, Result,
};
