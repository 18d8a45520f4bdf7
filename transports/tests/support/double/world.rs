//! The world of a double: messages that fly for a fixed time.

use super::Defect;
use super::endpoint::DoubleEndpoint;
use super::net::Net;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use ubccl_core::endpoint::{
    CommunicatorId, Endpoint, EngineCosts, Fidelity, Machine, Place, World, WorldStats,
};
use ubccl_core::topology::Link;
use ubccl_core::{Rank, Result, Topology};

/// How many worlds there have been in this process.
static WORLDS: AtomicU64 = AtomicU64::new(0);

pub(super) struct DoubleWorld {
    net: Arc<Net>,
    /// Which of them this is: another in each run, as an address is that an allocator may, but need not, give again.
    number: u64,
}

impl DoubleWorld {
    pub(super) fn new(net: Arc<Net>) -> Self {
        DoubleWorld { net, number: WORLDS.fetch_add(1, Ordering::Relaxed) }
    }
}

impl World for DoubleWorld {
    fn endpoint(&mut self, rank: Rank) -> Result<Box<dyn Endpoint>> {
        Ok(Box::new(DoubleEndpoint::new(self.net.clone(), rank)))
    }

    fn now_ps(&self) -> u64 {
        let now = self.net.state.lock().unwrap().now_ps;
        if self.net.has(Defect::TurnsTimeBack) { 1_000_000_000 - now } else { now }
    }

    fn step(&mut self, woken: &mut Vec<Place>) -> Result<bool> {
        let state = &mut *self.net.state.lock().unwrap();
        let Some(next) = state.next_ps() else { return Ok(false) };
        state.now_ps = next;
        while let Some(&(at_ps, rank)) = state.alarms.first().filter(|alarm| alarm.0 == next) {
            state.alarms.remove(&(at_ps, rank));
            woken.push(Place { communicator: CommunicatorId::WORLD, rank });
        }
        while state.flights.front().is_some_and(|flight| flight.0 == next) {
            let (_, route, message) = state.flights.pop_front().expect("just seen");
            let bytes = message.header.len;
            let salt = if self.net.has(Defect::HashesTheRun) { self.number } else { 0 };
            let facts = [next, u64::from(route.0), u64::from(route.1), u64::from(route.2), bytes, salt];
            let fold =
                |hash: u64, fact: u64| (hash ^ fact).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            state.stats.hash = facts.into_iter().fold(state.stats.hash, fold);
            state.stats.messages += 1;
            state.stats.bytes += bytes;
            state.stats.events += 1;
            woken.push(Place { communicator: CommunicatorId::WORLD, rank: route.1 });
            self.net.arrive(state, route, message);
        }
        woken.sort_unstable();
        woken.dedup();
        if self.net.has(Defect::WakesInDisorder) {
            woken.reverse();
        }
        Ok(true)
    }

    fn next_ps(&self) -> Option<u64> {
        self.net.state.lock().unwrap().next_ps()
    }

    fn alarm(&mut self, rank: Rank, after_ps: u64) {
        let state = &mut *self.net.state.lock().unwrap();
        state.alarms.insert((state.now_ps + after_ps, rank));
    }

    fn kill(&mut self, _rank: Rank, _after_ps: u64) {}

    fn dead(&self) -> Vec<Rank> {
        Vec::new()
    }

    fn stats(&self) -> WorldStats {
        self.net.state.lock().unwrap().stats
    }

    fn describe(&self) -> String {
        "a double".into()
    }

    fn fidelity(&self) -> Fidelity {
        Fidelity::LogGp
    }

    fn machine(&self) -> Machine {
        let link = Link::plain(1_000, 1_000_000_000);
        let topology = Topology::flat("rank", link).expect("a plain link");
        Machine { topology, engines: vec![EngineCosts { links: vec![link], ..EngineCosts::default() }] }
    }
}
