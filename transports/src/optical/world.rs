//! The world: endpoints handed out, time moved on.

use super::endpoint::OpticalEndpoint;
use super::fabric::Fabric;
use super::network::Network;
use super::seats::SeatId;
use parking_lot::Mutex;
use std::sync::Arc;
use ubccl_core::endpoint::{
    CommunicatorId, Endpoint, Fidelity, Machine, Place, Token, World, WorldOptions, WorldStats,
};
use ubccl_core::record::Record;
use ubccl_core::{Error, Rank, Result};

/// A simulated machine. Its endpoints share its state; the lock is there for soundness and never contended by a single
/// driver.
pub(super) struct OpticalWorld {
    network: Arc<Mutex<Network>>,
    is_taken: Vec<bool>,
    /// Now, and who is known to be dead: only steps change them, and drivers ask all the time.
    now_ps: u64,
    dead: Vec<Rank>,
}

impl OpticalWorld {
    pub(super) fn new(fabric: Fabric, options: &WorldOptions) -> Result<Self> {
        let network = Arc::new(Mutex::new(Network::new(fabric, options)?));
        let is_taken = vec![false; options.ranks as usize];
        Ok(OpticalWorld { network, is_taken, now_ps: 0, dead: Vec::new() })
    }

    fn endpoint_at(&self, seat: SeatId) -> Box<dyn Endpoint> {
        Box::new(OpticalEndpoint::new(seat, Arc::clone(&self.network)))
    }
}

impl World for OpticalWorld {
    fn endpoint(&mut self, rank: Rank) -> Result<Box<dyn Endpoint>> {
        let ranks = self.is_taken.len();
        let Some(is_taken) = self.is_taken.get_mut(rank as usize) else {
            return Err(Error::invalid(format!("there is no rank {rank} in a world of {ranks}")));
        };
        if std::mem::replace(is_taken, true) {
            return Err(Error::invalid(format!("the endpoint of rank {rank} was taken before")));
        }
        Ok(self.endpoint_at(rank))
    }

    fn communicator(&mut self, ranks: &[Rank]) -> Result<(CommunicatorId, Vec<Box<dyn Endpoint>>)> {
        let (communicator, seats) = {
            let mut network = self.network.lock();
            let communicator = network.seats.add(ranks)?;
            (communicator, network.seats.of(communicator))
        };
        Ok((communicator, seats.map(|seat| self.endpoint_at(seat)).collect()))
    }

    fn now_ps(&self) -> u64 {
        self.now_ps
    }

    fn step(&mut self, woken: &mut Vec<Place>) -> Result<bool> {
        let mut network = self.network.lock();
        let has_moved = network.step(woken);
        self.now_ps = network.now_ps;
        if network.detected.len() > self.dead.len() {
            self.dead = network.detected.clone();
            self.dead.sort_unstable();
        }
        Ok(has_moved)
    }

    fn foresee(&mut self, coming: &mut Vec<(Place, Token)>) {
        self.network.lock().tell_coming(coming);
    }

    fn next_ps(&self) -> Option<u64> {
        self.network.lock().next_ps()
    }

    fn alarm(&mut self, rank: Rank, after_ps: u64) {
        self.network.lock().alarm(rank, after_ps);
    }

    fn compute(&mut self, rank: Rank, duration_ps: u64) -> u64 {
        self.network.lock().compute(rank, duration_ps)
    }

    fn stands_until_ps(&self, rank: Rank) -> u64 {
        self.network.lock().stands_until_ps(rank)
    }

    fn kill(&mut self, rank: Rank, after_ps: u64) {
        self.network.lock().kill(rank, after_ps);
    }

    fn dead(&self) -> Vec<Rank> {
        self.dead.clone()
    }

    fn stats(&self) -> WorldStats {
        self.network.lock().stats()
    }

    fn describe(&self) -> String {
        let network = self.network.lock();
        let fidelity = network.fidelity();
        format!(
            "{}\ntimed by {fidelity}: {}; not seen: {}{}",
            network.fabric.describe(),
            fidelity.summary(),
            fidelity.unseen(),
            network.describe_faults()
        )
    }

    fn fidelity(&self) -> Fidelity {
        self.network.lock().fidelity()
    }

    fn machine(&self) -> Machine {
        let network = self.network.lock();
        network.fabric.machine(network.fidelity())
    }

    fn start_recording(&mut self) {
        self.network.lock().start_recording();
    }

    fn stop_recording(&mut self) -> Record {
        self.network.lock().stop_recording()
    }
}
