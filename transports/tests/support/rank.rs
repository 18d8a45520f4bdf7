//! A rank as a test body sees it: a coroutine that posts, waits, and checks memory.
//!
//! A body is an `async fn` over a [`TestRank`]. It never touches a clock: while it waits, the driver polls the
//! endpoint (all the time in real time, when the world wakes the rank in virtual time) and resumes it.

use super::drive::Run;
use super::memory::Area;
use std::cell::{Cell, Ref, RefCell};
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;
use ubccl_core::endpoint::{Clock, Counters, Endpoint, Fault, Key, Memory, Post, Posted, RegionId, Token};
use ubccl_core::plan::PeerRun;
use ubccl_core::symbolic::Piece;
use ubccl_core::usage::Over;
use ubccl_core::{Rank, Signature};

/// A test body under way.
pub type Running = Pin<Box<dyn Future<Output = ()>>>;

/// What the ranks of one test share beside the transport.
#[derive(Default)]
pub struct Shared {
    arrived: AtomicU64,
    /// Some rank has failed; the others stop.
    pub failed: AtomicBool,
    /// Counts everything that happens; a watchdog looks at it.
    pub activity: AtomicU64,
    /// How often a virtual world has run dry while ranks asked for that.
    pub quiet: AtomicU64,
}

/// One rank of a test.
pub struct TestRank {
    /// This rank.
    pub me: Rank,
    /// How many there are.
    pub ranks: u32,
    /// Which variant of the case.
    pub variant: usize,
    /// Whether time is real.
    pub clock: Clock,
    /// How long a wait in the kernel may take before the test fails.
    pub patience: Duration,
    /// What this rank waits for, for the watchdog's message.
    pub waits_for: Cell<(&'static str, u64)>,
    /// Whether this rank waits for a world to run dry.
    pub settling: Cell<bool>,
    /// Whether the body has been told to expect faults: then counters and left-over faults are not looked at.
    pub faulty: Cell<bool>,
    shared: Arc<Shared>,
    // Before the areas, so that the endpoint is gone when memory goes.
    state: RefCell<State>,
    areas: RefCell<Vec<Rc<Area>>>,
    meetings: Cell<u64>,
    regions: Cell<u32>,
}

struct State {
    endpoint: Box<dyn Endpoint>,
    completed: Vec<bool>,
    done: Vec<Token>,
    fault: Option<Fault>,
    posted: Counters,
}

impl TestRank {
    /// A rank over its endpoint.
    pub fn new(
        (me, ranks): (Rank, u32),
        run: Run,
        shared: Arc<Shared>,
        endpoint: Box<dyn Endpoint>,
    ) -> Rc<Self> {
        let state = State {
            endpoint,
            completed: Vec::new(),
            done: Vec::with_capacity(1024),
            fault: None,
            posted: Counters::default(),
        };
        Rc::new(TestRank {
            me,
            ranks,
            variant: run.variant,
            clock: run.transport.descriptor().clock,
            patience: run.patience,
            waits_for: Cell::new(("nothing", 0)),
            settling: Cell::default(),
            faulty: Cell::default(),
            shared,
            state: RefCell::new(state),
            areas: RefCell::default(),
            meetings: Cell::default(),
            regions: Cell::default(),
        })
    }

    /// New registered memory with guards: every other one of the endpoint's own giving, if it gives any.
    pub fn area(&self, len: usize) -> Rc<Area> {
        let region = self.new_region();
        let given = (region.0 % 2 == 1).then(|| self.with(|endpoint| endpoint.allocate(Area::bytes(len))));
        let area = Rc::new(match given.transpose().expect("there is memory").flatten() {
            Some(allocation) => Area::within(region, len, allocation),
            None => Area::new(region, len),
        });
        self.register(area.region(), area.memory());
        self.areas.borrow_mut().push(area.clone());
        area
    }

    /// New registered memory that holds `bytes`.
    pub fn area_of(&self, bytes: &[u8]) -> Rc<Area> {
        let area = self.area(bytes.len());
        area.write(0, bytes);
        area
    }

    #[expect(unsafe_code, reason = "tests vouch for their areas, which outlive the endpoint")]
    fn register(&self, region: RegionId, memory: Memory) {
        // SAFETY: an area lives in `areas` until after the endpoint, and only endpoints and tests that know when it is
        // busy touch it.
        let registered = unsafe { self.state.borrow_mut().endpoint.register(region, memory) };
        registered.unwrap_or_else(|error| panic!("rank {}: register: {error}", self.me));
    }

    /// Registers phantom memory.
    pub fn phantom(&self, unit: u32, content: Vec<Piece>) -> RegionId {
        let region = self.new_region();
        self.register(region, Memory::Phantom { unit, content });
        region
    }

    fn new_region(&self) -> RegionId {
        let id = self.regions.get();
        self.regions.set(id + 1);
        RegionId(id)
    }

    /// Posts; a fault fails the test.
    #[track_caller]
    pub fn post(&self, key: &Key, post: &Post) -> Token {
        let token = self.try_post(key, post);
        self.complain();
        token
    }

    /// Posts; a fault is kept for [`TestRank::outcome`].
    pub fn try_post(&self, key: &Key, post: &Post) -> Token {
        let state = &mut *self.state.borrow_mut();
        let token = Token(state.completed.len() as u64);
        state.completed.push(false);
        count(&mut state.posted, self.me, post);
        match state.endpoint.post(token, key, post) {
            Ok(Posted::Done) => state.completed[token.0 as usize] = true,
            Ok(Posted::Pending) => {}
            Err(fault) => state.fault = Some(state.fault.take().unwrap_or(fault)),
        }
        self.shared.activity.fetch_add(1, SeqCst);
        token
    }

    /// Polls the endpoint once, and says whether anything moved.
    pub fn pump(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let moved = match state.endpoint.poll(&mut state.done) {
            Ok(moved) => moved,
            Err(fault) => {
                let first = state.fault.is_none();
                state.fault = Some(state.fault.take().unwrap_or(fault));
                first
            }
        };
        let completed = !state.done.is_empty();
        for token in state.done.drain(..) {
            let known = state.completed.get_mut(token.0 as usize);
            let known = known.unwrap_or_else(|| panic!("rank {}: {token:?} was never posted", self.me));
            assert!(!std::mem::replace(known, true), "rank {}: {token:?} completed twice", self.me);
        }
        if moved || completed {
            self.shared.activity.fetch_add(1, SeqCst);
        }
        moved || completed
    }

    /// Whether a post has completed.
    pub fn is_done(&self, token: Token) -> bool {
        self.state.borrow().completed[token.0 as usize]
    }

    /// Waits for posts; a fault fails the test.
    pub async fn wait(&self, tokens: &[Token]) {
        if let Err(fault) = self.outcome(tokens).await {
            panic!("rank {}: unexpected fault: {fault:?}", self.me);
        }
    }

    /// Waits for posts or a fault.
    pub async fn outcome(&self, tokens: &[Token]) -> Result<(), Fault> {
        loop {
            if let Some(fault) = self.state.borrow_mut().fault.take() {
                return Err(fault);
            }
            let Some(missing) = tokens.iter().find(|&&token| !self.is_done(token)) else { return Ok(()) };
            self.turn("the completion of post", missing.0).await;
        }
    }

    /// Waits for a fault; posts that complete instead fail the test.
    pub async fn fault_instead_of(&self, tokens: &[Token]) -> Fault {
        loop {
            if let Some(fault) = self.state.borrow_mut().fault.take() {
                return fault;
            }
            let wrong = tokens.iter().find(|&&token| self.is_done(token));
            assert!(wrong.is_none(), "rank {}: {wrong:?} completed where a fault was due", self.me);
            self.turn("a fault instead of completion", 0).await;
        }
    }

    /// Waits until every rank has come here. Uses no message of the transport.
    pub async fn meet(&self) {
        self.meetings.set(self.meetings.get() + 1);
        let expected = self.meetings.get() * u64::from(self.ranks);
        self.shared.arrived.fetch_add(1, SeqCst);
        self.shared.activity.fetch_add(1, SeqCst);
        while self.shared.arrived.load(SeqCst) < expected {
            self.turn("the other ranks, meeting", self.meetings.get()).await;
        }
    }

    /// Waits until whatever can move has moved, as far as one can tell: in virtual time until nothing happens any
    /// more, in real time for a good many polls.
    pub async fn settle(&self) {
        if self.clock == Clock::Virtual {
            let before = self.shared.quiet.load(SeqCst);
            self.settling.set(true);
            while self.shared.quiet.load(SeqCst) == before {
                self.turn("the world to run dry, after", before).await;
            }
            self.settling.set(false);
            return;
        }
        for _ in 0..500 {
            self.turn("nothing", 0).await;
        }
    }

    /// Gives the driver a turn; the words are for its watchdog.
    pub async fn turn(&self, waits_for: &'static str, number: u64) {
        self.waits_for.set((waits_for, number));
        let mut resumed = false;
        std::future::poll_fn(|_: &mut Context<'_>| {
            if std::mem::replace(&mut resumed, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Direct access to the endpoint.
    pub fn with<R>(&self, act: impl FnOnce(&mut dyn Endpoint) -> R) -> R {
        act(&mut *self.state.borrow_mut().endpoint)
    }

    /// Looks for messages that can no longer be taken.
    pub fn inspect(&self, sequence: u64, signature: Signature) -> Result<(), Fault> {
        self.with(|endpoint| endpoint.inspect(sequence, signature))
    }

    /// What the endpoint counted.
    pub fn counters(&self) -> Counters {
        self.state.borrow().endpoint.counters()
    }

    /// What the endpoint counted by peer or by level, summed up.
    pub fn counted_over_links(&self) -> Counters {
        let (mut sum, ranks) = (Counters::default(), self.ranks);
        self.state.borrow().endpoint.count_links(&mut |over, counters| {
            if let Over::Peer(peer) = over {
                assert!(peer < ranks, "rank {peer} of {ranks}");
            }
            sum += counters;
        });
        sum
    }

    /// What was posted so far.
    pub fn posted(&self) -> Counters {
        self.state.borrow().posted
    }

    /// From here on faults are the test's business.
    pub fn expect_faults(&self) {
        self.faulty.set(true);
    }

    /// What every test checks at its end: guards whole, no fault left over, counters equal to what was posted.
    pub fn finish(&self) {
        for area in self.areas.borrow().iter() {
            area.assert_guards(&format!("rank {}", self.me));
        }
        if !self.faulty.get() {
            self.complain();
            assert_eq!(self.counters(), self.posted(), "rank {}: counters (left) and posts (right)", self.me);
        }
    }

    #[track_caller]
    fn complain(&self) {
        if self.faulty.get() {
            return;
        }
        let fault: Ref<'_, _> = Ref::map(self.state.borrow(), |state| &state.fault);
        if let Some(fault) = fault.deref() {
            panic!("rank {}: unexpected fault: {fault:?}", self.me);
        }
    }
}

fn count(counters: &mut Counters, me: Rank, post: &Post) {
    let from_others = |sources: &PeerRun| sources.iter().filter(|&source| source != me).count() as u64;
    match post {
        Post::Send { from, to } => {
            counters.messages_sent += to.len() as u64;
            counters.bytes_sent += to.len() as u64 * from.len;
        }
        Post::Receive { into, .. } => {
            counters.messages_received += 1;
            counters.bytes_received += into.len;
        }
        Post::ReceiveReduce { sources, into, .. } => {
            counters.messages_received += from_others(sources);
            counters.bytes_received += from_others(sources) * into.len;
        }
        Post::Copy { .. } => {}
    }
}
