//! The vocabulary of ubccl: ranks, types, collectives, plans and their verifier, and the contracts of algorithms and
//! transports. It depends on nothing else of ours.
//!
//! Start with [`plan`] (what runs), then [`endpoint`] (what runs it) and [`algorithm`] (what makes it).

pub mod algorithm;
pub mod blocks;
pub mod collective;
pub mod direct;
pub mod dtype;
pub mod endpoint;
pub mod error;
pub mod exchange;
pub mod float8;
pub mod group;
pub mod kernels;
pub mod kind;
pub mod layout;
pub mod memory_nodes;
pub mod one_pass;
pub mod op;
pub mod plan;
pub mod prefetch;
pub mod profile;
pub mod record;
pub mod signature;
pub mod symbolic;
pub mod topology;
pub mod usage;
pub mod user_op;
pub mod verify;

pub use algorithm::{Algorithm, AlgorithmDescriptor, Choice, Spec};
pub use blocks::Blocks;
pub use collective::{Collective, Rank};
pub use dtype::{DataType, Element};
pub use error::{Cause, Culprit, Error, ErrorKind, Result};
pub use exchange::{Deadline, Exchange};
pub use float8::{F8E4M3, F8E5M2};
pub use kind::Kind;
pub use layout::Layout;
pub use memory_nodes::{MemoryNode, MemoryNodes};
pub use op::ReduceOp;
pub use profile::Profile;
pub use signature::Signature;
pub use topology::Topology;
pub use user_op::{UserFunction, UserOp};
