//! The vocabulary of ubccl: ranks, types, collectives, plans and their verifier, and the contracts of algorithms and
//! transports. It depends on nothing else of ours.

pub mod dtype;
pub mod error;
pub mod exchange;
pub mod kernels;
pub mod op;

pub use dtype::{DataType, Element};
pub use error::{Cause, Culprit, Error, ErrorKind, Result};
pub use exchange::Exchange;
pub use op::ReduceOp;
