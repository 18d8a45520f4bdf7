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

impl Costs {
    /// Of a simulated machine.
    pub(crate) fn of_machine(machine: &Machine) -> Self {
        let seconds = |ps: u64| ps as f64 * 1e-12;
        let rate = |rate: Option<std::num::NonZeroU64>| rate.map(|rate| rate.get() as f64);
        let level = |level: &ubccl_core::topology::Level| LinkCost {
            name: level.name.clone(),
            latency: seconds(level.link.latency_ps),
            overhead: seconds(level.link.send_overhead_ps + level.link.receive_overhead_ps),
            gap: seconds(level.link.gap_ps),
            bandwidth: level.link.rate_bytes_per_s as f64,
        };
        let model = Model {
            levels: machine.topology.levels().iter().map(level).collect(),
            reduce_rate: rate(machine.reduce_bytes_per_s),
            copy_rate: rate(machine.copy_bytes_per_s),
            cores: None,
            launch: 0.0,
        };
        Costs { model }
    }

    pub(crate) fn of_config(_: &Config) -> Result<Self> {
        todo!()
    }
    pub(crate) fn on_cores(self, _: u32) -> Self { self }
    pub(crate) fn of_first(self, _: &mut dyn Exchange, _: u32) -> Result<Self> { Ok(self) }

    /// Reckoned with where ranks stand so.
    pub(crate) fn model(&self, layout: &Layout) -> Model {
        self.model.clone()
    }
}
pub struct Measurement<'a> { pub call: ubccl_core::Collective<'a>, pub ranks: u32, pub algorithm: String, pub choice: ubccl_core::Choice, pub seconds: f64 }
pub struct Tuning { pub text: String, pub median_residual: f64, pub p90_residual: f64 }
impl Tuning { pub fn fit(_: &str, _: &[Measurement<'_>]) -> Result<Tuning> { todo!() } }
