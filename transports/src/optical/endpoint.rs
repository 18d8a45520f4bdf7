//! One rank's side of a simulated world.
#![allow(unsafe_code)] // `register` is declared unsafe by the trait

use super::network::Network;
use super::seats::SeatId;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use ubccl_core::endpoint::{Counters, Endpoint, Fault, Key, Memory, Post, Posted, RegionId, Token, Wake};
use ubccl_core::symbolic::Piece;
use ubccl_core::{Error, Result, Signature};

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

    fn inspect(&mut self, sequence: u64, signature: Signature) -> Result<(), Fault> {
        self.network.lock().inspect(self.seat, sequence, signature)
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
        self.network.lock().seats[self.seat].counters
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
