//! The queues between the ranks of a double.

use super::Defect;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use ubccl_core::Rank;
use ubccl_core::endpoint::{Header, WorldStats};
use ubccl_core::symbolic::Piece;

/// Messages a lane holds before sends wait (in real time).
const ROOM: usize = 4;

/// What a message carries.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Bytes(Vec<u8>),
    Pieces(Vec<Piece>),
}

pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Payload,
    /// Counts the messages of the whole network.
    serial: u64,
}

/// From whom, to whom, on which lane.
pub(super) type Route = (Rank, Rank, u8);

/// The network of one communicator.
pub(super) struct Net {
    pub(super) ranks: u32,
    pub(super) defect: Option<Defect>,
    /// In virtual time: how long a message flies.
    pub(super) latency_ps: Option<u64>,
    pub(super) state: Mutex<NetState>,
    pub(super) bell: Condvar,
    pub(super) descriptors: Vec<OwnedFd>,
}

#[derive(Default)]
pub(super) struct NetState {
    lanes: BTreeMap<Route, VecDeque<Message>>,
    /// In virtual time: what is still under way, by time of arrival.
    pub(super) flights: VecDeque<(u64, Route, Message)>,
    /// In virtual time: who is to be woken, by time.
    pub(super) alarms: BTreeSet<(u64, Rank)>,
    pub(super) now_ps: u64,
    pub(super) stats: WorldStats,
    pub(super) rung: Vec<bool>,
    pub(super) watched: Vec<bool>,
    serial: u64,
}

impl NetState {
    /// When something happens next.
    pub(super) fn next_ps(&self) -> Option<u64> {
        let flight = self.flights.front().map(|flight| flight.0);
        flight.into_iter().chain(self.alarms.first().map(|alarm| alarm.0)).min()
    }
}

impl Net {
    pub(super) fn new(ranks: u32, defect: Option<Defect>, latency_ps: Option<u64>) -> Arc<Self> {
        let none = vec![false; ranks as usize];
        let state = NetState { rung: none.clone(), watched: none, ..NetState::default() };
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let descriptors =
            (0..ranks).map(|_| eventfd(0, flags).expect("tests may open descriptors")).collect();
        Arc::new(Net {
            ranks,
            defect,
            latency_ps,
            state: Mutex::new(state),
            bell: Condvar::new(),
            descriptors,
        })
    }

    pub(super) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// Takes a message if there is room for it.
    pub(super) fn push(&self, route: Route, header: Header, payload: impl FnOnce() -> Payload) -> bool {
        let state = &mut *self.state.lock().unwrap();
        if self.latency_ps.is_none() && state.lanes.get(&route).is_some_and(|lane| lane.len() >= ROOM) {
            return false;
        }
        if header.len == 0 && self.has(Defect::DropsEmptyMessages) {
            return true;
        }
        state.serial += 1;
        let message = Message { header, payload: payload(), serial: state.serial };
        match self.latency_ps {
            Some(latency_ps) => state.flights.push_back((state.now_ps + latency_ps, route, message)),
            None => {
                self.arrive(state, route, message);
                self.ring(state, route.1);
            }
        }
        true
    }

    /// Puts a message where its receiver finds it.
    pub(super) fn arrive(&self, state: &mut NetState, route: Route, message: Message) {
        let lane = state.lanes.entry(route).or_default();
        let last = lane.len().saturating_sub(usize::from(self.has(Defect::ReordersALane)));
        lane.insert(last, message);
    }

    /// What waits on a route, if its receiver may see it.
    pub(super) fn peek(&self, route: Route) -> Option<Header> {
        let state = self.state.lock().unwrap();
        let message = state.lanes.get(&route)?.front()?;
        let older = |on: &dyn Fn(&Route) -> bool| {
            state.lanes.iter().any(|(other, lane)| {
                on(other)
                    && *other != route
                    && lane.front().is_some_and(|first| first.serial < message.serial)
            })
        };
        let held = self.has(Defect::HoldsUpLanes) && older(&|other| (other.0, other.1) == (route.0, route.1))
            || self.has(Defect::HoldsUpPeers) && older(&|other| other.1 == route.1);
        (!held).then_some(message.header)
    }

    /// Takes what [`Net::peek`] has seen.
    pub(super) fn pop(&self, route: Route) -> Payload {
        let state = &mut *self.state.lock().unwrap();
        let message = state.lanes.get_mut(&route).and_then(VecDeque::pop_front).expect("peek has seen one");
        self.ring(state, route.0);
        message.payload
    }

    /// Everything that waits for a rank.
    pub(super) fn waiting(&self, rank: Rank) -> Vec<(Rank, Header)> {
        let state = self.state.lock().unwrap();
        let own = state.lanes.iter().filter(|(route, _)| route.1 == rank);
        own.flat_map(|(route, lane)| lane.iter().map(|message| (route.0, message.header))).collect()
    }

    fn ring(&self, state: &mut NetState, rank: Rank) {
        if self.has(Defect::NeverRings) {
            return;
        }
        state.rung[rank as usize] = true;
        self.bell.notify_all();
        if state.watched[rank as usize] {
            // A full counter is readable as well.
            let _ = rustix::io::write(&self.descriptors[rank as usize], &1_u64.to_ne_bytes());
        }
    }
}
