//! One rank's side of a simulated world.
#![allow(unsafe_code)] // `register` is declared unsafe by the trait

use super::network::Network;
use super::seats::SeatId;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use ubccl_core::endpoint::{
    Counters, Endpoint, Fault, Header, Key, Memory, Post, Posted, RegionId, Token, Wake,
};
use ubccl_core::symbolic::Piece;
use ubccl_core::usage::{MemoryKind, Over};
use ubccl_core::{Error, Rank, Result, Signature};

/// The endpoint of one rank. Everything happens in the shared network.
pub(super) struct OpticalEndpoint {
    seat: SeatId,
    network: Arc<Mutex<Network>>,
}

impl OpticalEndpoint {
    pub(super) fn new(seat: SeatId, network: Arc<Mutex<Network>>) -> Self {
        OpticalEndpoint { seat, network }
    }
}

impl Endpoint for OpticalEndpoint {
    unsafe fn register(&mut self, region: RegionId, memory: Memory) -> Result<()> {
        self.network.lock().register(self.seat, region, memory)
    }

    fn post(&mut self, token: Token, key: &Key, post: &Post) -> Result<Posted, Fault> {
        self.network.lock().post(self.seat, token, key, post)
    }

    fn poll(&mut self, done: &mut Vec<Token>) -> Result<bool, Fault> {
        let mut network = self.network.lock();
        let state = &mut network.seats[self.seat];
        let has_moved = !state.done.is_empty();
        done.append(&mut state.done);
        match state.faults.pop_front() {
            Some(fault) => Err(fault),
            None => Ok(has_moved),
        }
    }

    fn heed(&mut self, wanted: Option<&[Token]>) {
        self.network.lock().seats[self.seat].heed(wanted);
    }

    fn inspect(&mut self, sequence: u64, signature: Signature) -> Result<(), Fault> {
        self.network.lock().inspect(self.seat, sequence, signature)
    }

    fn probe(&mut self, peer: Rank) -> Result<Option<Header>, Fault> {
        Ok(self.network.lock().probe(self.seat, peer))
    }

    fn cancel(&mut self) {
        self.network.lock().cancel(self.seat);
    }

    /// Virtual time does not pass by waiting: an error that says who moves it.
    fn sleep(&mut self, _timeout: Duration) -> Result<()> {
        Err(Error::unsupported(format!(
            "rank {} cannot block in virtual time: only World::step moves time; use the asynchronous call",
            self.network.lock().seats[self.seat].place.rank
        )))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(NobodySleeps)
    }

    fn counters(&self) -> Counters {
        self.network.lock().seats[self.seat].counters.iter().copied().sum()
    }

    fn count_links(&self, each: &mut dyn FnMut(Over<'_>, Counters)) {
        let network = self.network.lock();
        let levels = network.fabric.topology().levels();
        for (level, counters) in levels.iter().zip(&network.seats[self.seat].counters) {
            each(Over::Level(&level.name), *counters);
        }
    }

    /// This rank's share of the world's tables.
    fn count_memory(&self, each: &mut dyn FnMut(MemoryKind, u64)) {
        let network = self.network.lock();
        each(MemoryKind::Queues, network.bytes() as u64 / u64::from(network.seats.len()));
    }

    fn phantom(&self, region: RegionId) -> Option<Vec<Piece>> {
        self.network.lock().phantom(self.seat, region)
    }
}

impl Drop for OpticalEndpoint {
    /// Registered memory may be gone after this.
    fn drop(&mut self) {
        self.network.lock().cancel(self.seat);
    }
}

/// There is no sleeper to wake.
struct NobodySleeps;

impl Wake for NobodySleeps {
    fn wake(&self) {}
}
