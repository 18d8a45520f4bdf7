//! What a communicator says of itself when it has started.

use super::VERSION;
use crate::Config;
use crate::config::settings::{ALGO, CHUNK, SPIN_US, TRANSPORT};

/// Tells once what the communicator is.
pub(crate) fn tell_start(config: &Config, crowded: bool) {
    let (rank, ranks) = (config.rank, config.ranks);
    if rank == 0 {
        tracing::info!(target: VERSION, rank, "ubccl {}", env!("CARGO_PKG_VERSION"));
    }
    if !tracing::enabled!(target: "ubccl::init", tracing::Level::INFO) {
        return;
    }
    let [transport, algorithm, chunk, spin] =
        [&TRANSPORT, &ALGO, &CHUNK, &SPIN_US].map(|setting| setting.show(config));
    let lanes = config.lanes;
    let how = if crowded { " and yields, having more ranks than cores" } else { "" };
    tracing::info!(
        target: "ubccl::init",
        rank,
        "{ranks} ranks over {transport}, algorithm {algorithm}, up to {lanes} lanes, chunks {chunk}, spins {spin}{how}"
    );
}
