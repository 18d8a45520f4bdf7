//! What the handles of all ranks share with who moves time on.
#![allow(unsafe_code)] // hands buffers that operations own to the engines

use super::audit::{Audited, Audits};
use crate::engine::{Buffers, OpId, Status, Taken};
use crate::sim::World;
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::task::{Poll, Waker};
use ubccl_core::collective::{CallStore, Rank};
use ubccl_core::endpoint::{CommunicatorId, Place};
use ubccl_core::{Collective, Error, Result};

/// See the module. Handles of one run borrow it; nobody holds it across a program's own code.
pub(super) struct Inside {
    pub(super) state: RefCell<State>,
}

/// Everything that changes.
pub(super) struct State {
    pub(super) world: World,
    /// Places where something was issued since they were moved on.
    issued: BTreeSet<Place>,
    /// By rank of the world: who waits until when.
    timers: Vec<Vec<(u64, Waker)>>,
    audits: Audits,
    /// Communicators that were split off, by parent, number of the split there, and first rank.
    children: BTreeMap<(CommunicatorId, u64, Rank), CommunicatorId>,
    /// Operations that somebody may await, by number.
    open: BTreeMap<u64, Open>,
    /// When operations have taken too long: all have as long, so they stand in order. With their numbers.
    deadlines: VecDeque<(u64, u64)>,
    numbers: u64,
}

struct Open {
    place: Place,
    op: OpId,
    phantom: Option<(Audited, CallStore)>,
}

/// An operation about to be issued.
pub(super) struct Issue<'a> {
    pub(super) call: &'a Collective<'a>,
    pub(super) buffers: Buffers,
    pub(super) owned: Box<dyn Any + Send>,
    /// Whether it is the library's own, which no forced algorithm is for.
    pub(super) is_own: bool,
}

impl Inside {
    pub(super) fn new(world: World) -> Self {
        let timers = (0..world.ranks()).map(|_| Vec::new()).collect();
        let state = State {
            world,
            issued: BTreeSet::new(),
            timers,
            audits: Audits::default(),
            children: BTreeMap::new(),
            open: BTreeMap::new(),
            deadlines: VecDeque::new(),
            numbers: 0,
        };
        Inside { state: RefCell::new(state) }
    }

    pub(super) fn now_ps(&self) -> u64 {
        self.state.borrow().world.now_ps()
    }

    /// Issues an operation of one rank; its number.
    pub(super) fn issue(&self, place: Place, issue: Issue<'_>) -> Result<u64> {
        self.state.borrow_mut().issue(place, issue)
    }

    /// Issues a tagged one.
    pub(super) fn issue_tagged(
        &self,
        place: Place,
        call: crate::engine::TaggedCall,
        owned: Box<dyn Any + Send>,
    ) -> Result<u64> {
        let state = &mut *self.state.borrow_mut();
        state.world.usable(place.communicator)?;
        let engine =
            &mut state.world.communicators[place.communicator.0 as usize].engines[place.rank as usize];
        // SAFETY: the memory is in `owned`, which the engine keeps until the operation is over.
        let op = unsafe { engine.issue_tagged(call, Some(owned)) }?;
        Ok(state.opened(Open { place, op, phantom: None }))
    }

    /// How an operation stands; it is over for the caller once it is ready.
    pub(super) fn poll_operation(&self, number: u64, waker: &Waker) -> Poll<Result<Taken>> {
        let state = &mut *self.state.borrow_mut();
        let Some(&Open { place, op, .. }) = state.open.get(&number) else {
            return Poll::Ready(Err(Error::internal("an operation is known until it is over")));
        };
        let company = &mut state.world.communicators[place.communicator.0 as usize];
        if let Err(error) = company.check() {
            state.give_up(number);
            return Poll::Ready(Err(error));
        }
        let engine = &mut company.engines[place.rank as usize];
        if engine.status(op) == Status::Pending {
            engine.set_waker(op, waker);
            return Poll::Pending;
        }
        Poll::Ready(state.take(number))
    }

    /// Nobody awaits this operation.
    pub(super) fn abandon(&self, number: u64) {
        self.state.borrow_mut().give_up(number);
    }

    /// A rank computes for so long from now on: when it is done, and is woken.
    pub(super) fn compute(&self, rank: Rank, duration_ps: u64) -> u64 {
        self.state.borrow_mut().world.world.compute(rank, duration_ps)
    }

    /// Whether a rank stands still; if so, who is told when it goes on.
    pub(super) fn stands(&self, rank: Rank, waker: &Waker) -> bool {
        let until_ps = {
            let world = &self.state.borrow().world;
            if world.has_faults { world.world.stands_until_ps(rank) } else { 0 }
        };
        !self.is_past(rank, until_ps, waker)
    }

    /// Whether a time has come; if not, who is told.
    pub(super) fn is_past(&self, rank: Rank, until_ps: u64, waker: &Waker) -> bool {
        let state = &mut *self.state.borrow_mut();
        if state.world.now_ps() >= until_ps {
            return true;
        }
        let timers = &mut state.timers[rank as usize];
        if !timers.iter().any(|(at_ps, known)| *at_ps == until_ps && known.will_wake(waker)) {
            timers.push((until_ps, waker.clone()));
        }
        false
    }

    /// The communicator of these ranks that the split of this number of `of` makes: made by the first who asks.
    pub(super) fn child(&self, of: CommunicatorId, split: u64, ranks: &[Rank]) -> Result<CommunicatorId> {
        let state = &mut *self.state.borrow_mut();
        let key = (of, split, ranks[0]);
        if let Some(&known) = state.children.get(&key) {
            return Ok(known);
        }
        let made = state.world.split_ranks(of, ranks)?;
        state.children.insert(key, made);
        Ok(made)
    }
}

impl State {
    fn issue(&mut self, place: Place, issue: Issue<'_>) -> Result<u64> {
        let Issue { call, buffers, owned, is_own } = issue;
        let company = &mut self.world.communicators[place.communicator.0 as usize];
        company.check()?;
        let ranks = company.size();
        let in_place = matches!(buffers, Buffers::InPlace(_));
        let is_phantom = buffers.is_phantom();
        let engine = &mut company.engines[place.rank as usize];
        let forced = is_own.then(|| {
            let free = engine.chooser().free();
            engine.replace_chooser(free)
        });
        // SAFETY: the memory is in `owned`, which the engine keeps until the operation is over.
        let issued = unsafe { engine.issue(call, buffers, Some(owned)) };
        if let Some(forced) = forced {
            engine.replace_chooser(forced);
        }
        let op = issued?;
        let sequence = (!call.kind().is_point_to_point()).then(|| engine.sequence());
        let phantom = is_phantom.then(|| {
            let mut store = CallStore::default();
            store.set(call);
            (Audited { sequence, in_place }, store)
        });
        if let (true, Some(sequence)) = (is_phantom, sequence) {
            self.audits.called(place, ranks, sequence, call);
        }
        Ok(self.opened(Open { place, op, phantom }))
    }

    fn opened(&mut self, open: Open) -> u64 {
        self.numbers += 1;
        self.issued.insert(open.place);
        let deadline_ps = self.world.now_ps().saturating_add(self.world.config.operation_timeout_ps());
        self.deadlines.push_back((deadline_ps, self.numbers));
        self.open.insert(self.numbers, open);
        self.numbers
    }

    /// What a finished operation leaves.
    fn take(&mut self, number: u64) -> Result<Taken> {
        let Open { place, op, phantom } = self.open.remove(&number).expect("the caller found it");
        let company = &mut self.world.communicators[place.communicator.0 as usize];
        let (ranks, engine) = (company.size(), &mut company.engines[place.rank as usize]);
        if let Some((audited, call)) = phantom {
            let region = engine.output_region(op);
            let held = engine.endpoint().phantom(region).unwrap_or_default();
            let verdict = self.audits.over(place, audited, &call.get(), ranks, Some(held));
            if let Err(error) = verdict {
                company.poison(error);
            }
        }
        let taken = company.engines[place.rank as usize].take(op);
        company.check().map(|()| taken)
    }

    fn give_up(&mut self, number: u64) {
        let Some(Open { place, op, phantom }) = self.open.remove(&number) else { return };
        let company = &mut self.world.communicators[place.communicator.0 as usize];
        company.engines[place.rank as usize].detach(op);
        if let Some((audited @ Audited { sequence: Some(_), .. }, call)) = phantom {
            // Nobody looks at this rank's part; what is wrong with others' is told to nobody who would still know.
            let ranks = company.size();
            let _unseen = self.audits.over(place, audited, &call.get(), ranks, None);
        }
    }

    /// Moves on the places where something was issued. `true` if there were any.
    pub(super) fn move_issued(&mut self) -> bool {
        let places = std::mem::take(&mut self.issued);
        places.iter().for_each(|&place| self.world.advance(place));
        !places.is_empty()
    }

    /// Goes to the next time at which something happens and moves on whom it concerns; `false` if nothing ever will.
    pub(super) fn step(&mut self) -> bool {
        let Some(next_ps) = self.world.world.next_ps() else { return false };
        if let Some((deadline_ps, place)) = self.next_deadline()
            && deadline_ps < next_ps
        {
            let rank = self.world.communicators[place.communicator.0 as usize].ranks[place.rank as usize];
            self.world.world.alarm(rank, deadline_ps.saturating_sub(self.world.now_ps()));
        }
        let mut woken = Vec::new();
        if let Err(error) = self.world.world.step(&mut woken) {
            self.world.communicators.iter_mut().for_each(|company| company.poison(error.clone()));
        }
        self.world.stepped();
        self.world.notice_deaths();
        for place in woken {
            if place.communicator == CommunicatorId::WORLD {
                self.ring(place.rank);
            }
            self.world.advance(place);
        }
        self.time_out();
        true
    }

    /// Wakes who waited until now.
    fn ring(&mut self, rank: Rank) {
        let now_ps = self.world.now_ps();
        let timers = &mut self.timers[rank as usize];
        for (_, waker) in timers.extract_if(.., |timer| timer.0 <= now_ps) {
            waker.wake();
        }
    }

    /// When the oldest operation that somebody awaits has taken too long.
    fn next_deadline(&mut self) -> Option<(u64, Place)> {
        loop {
            let &(deadline_ps, number) = self.deadlines.front()?;
            match self.open.get(&number) {
                Some(open) if self.is_pending(open) => return Some((deadline_ps, open.place)),
                _ => drop(self.deadlines.pop_front()),
            }
        }
    }

    fn is_pending(&self, open: &Open) -> bool {
        let company = &self.world.communicators[open.place.communicator.0 as usize];
        company.poisoned.is_none()
            && company.engines[open.place.rank as usize].status(open.op) == Status::Pending
    }

    /// Ends the communicators of operations that have taken too long.
    fn time_out(&mut self) {
        let timeout = self.world.config.operation_timeout;
        while let Some((deadline_ps, place)) = self.next_deadline()
            && deadline_ps <= self.world.now_ps()
        {
            let company = &mut self.world.communicators[place.communicator.0 as usize];
            company.inspect(crate::engine::Engine::inspect);
            company.stall(place.rank, &format!("within {timeout:?} of virtual time"));
        }
    }
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inside").finish_non_exhaustive()
    }
}
