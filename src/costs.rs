//! What things cost here: where a communicator's cost model comes from.
//!
//! ```text
//! simulated    the fabric's description
//! otherwise    the file of `ubccl tune` if rank 0 is told one, and refuses it if it is another machine's;
//!              else the model built in for the transport
//! ```
//!
//! Rank 0's is everybody's, so that all ranks choose alike.

use crate::config::{Config, settings};
use std::path::Path;
use ubccl_algorithms::tuner::{LinkCost, Model};
use ubccl_core::endpoint::Machine;
use ubccl_core::{Error, ErrorKind, Exchange, Layout, Result};

/// See the module. A cost for each level that links can have, not only those of one communicator.
#[derive(Clone, Debug)]
pub(crate) struct Costs {
    model: Model,
}
