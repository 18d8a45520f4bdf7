//! A single-threaded executor of ranks' programs in virtual time.
//!
//! ```text
//! while a program is not over:
//!     poll the programs that were woken, lowest rank first; move on what they issued; again, until none is woken
//!     go to the next time at which something happens, and move on whom it concerns
//! ```
//!
//! Everything is in one order, so the same programs give the same events.

use super::blocking::Running;
use super::communicator::Communicator;
use super::inside::Inside;
use super::report::{End, Ended};
use parking_lot::Mutex;
use std::any::Any;
use std::collections::BTreeSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use ubccl_core::{Error, ErrorKind, Rank, Result};

/// How often a program may be polled without virtual time moving on.
const MOST_POLLS: u32 = 1 << 20;

type Program<'p, T> = Pin<Box<dyn Future<Output = Result<T>> + 'p>>;

/// All programs of a world.
pub(super) struct Tasks<'p, T> {
    inside: &'p Inside,
    tasks: Vec<Task<'p, T>>,
    woken: Arc<Woken>,
    running: usize,
}

struct Task<'p, T> {
    program: Option<Program<'p, T>>,
    waker: Waker,
    end: Option<Ended<T>>,
    /// At the time `polled_ps`.
    polls: u32,
    polled_ps: u64,
}

/// Who was woken.
#[derive(Debug, Default)]
struct Woken(Mutex<BTreeSet<Rank>>);

/// Wakes one rank's program.
struct Bell {
    rank: Rank,
    woken: Arc<Woken>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.woken.0.lock().insert(self.rank);
    }
}

impl<'p, T: 'p> Tasks<'p, T> {
    pub(super) fn new<F>(inside: &'p Inside, ranks: u32, program: &'p F) -> Self
    where
        F: AsyncFn(Communicator<'p>) -> Result<T>,
    {
        let woken = Arc::new(Woken(Mutex::new((0..ranks).collect())));
        let task = |rank| Task {
            program: Some(Box::pin(program(Communicator::of_world(inside, rank, ranks))) as Program<'p, T>),
            waker: Arc::new(Bell { rank, woken: woken.clone() }).into(),
            end: None,
            polls: 0,
            polled_ps: 0,
        };
        Tasks { inside, tasks: (0..ranks).map(task).collect(), woken: woken.clone(), running: ranks as usize }
    }

    /// Runs all to their ends.
    pub(super) fn run(mut self) -> Vec<Ended<T>> {
        loop {
            self.poll_woken();
            if self.running == 0 {
                break;
            }
            let has_moved = self.inside.state.borrow_mut().step();
            self.notice_deaths();
            if !has_moved {
                self.break_silence();
            }
        }
        self.tasks.into_iter().filter_map(|task| task.end).collect()
    }

    fn poll_woken(&mut self) {
        loop {
            while let Some(rank) = self.next_woken() {
                self.poll(rank);
            }
            if !self.inside.state.borrow_mut().move_issued() {
                return;
            }
        }
    }

    fn next_woken(&self) -> Option<Rank> {
        self.woken.0.lock().pop_first()
    }

    fn poll(&mut self, rank: Rank) {
        let now_ps = self.inside.now_ps();
        let task = &mut self.tasks[rank as usize];
        let Some(program) = &mut task.program else { return };
        if self.inside.stands(rank, &task.waker) {
            return;
        }
        let _running = Running::enter(rank);
        let mut context = Context::from_waker(&task.waker);
        let polled = catch_unwind(AssertUnwindSafe(|| program.as_mut().poll(&mut context)));
        (task.polls, task.polled_ps) = (if task.polled_ps == now_ps { task.polls + 1 } else { 1 }, now_ps);
        match polled {
            Ok(Poll::Pending) if task.polls < MOST_POLLS => {}
            Ok(Poll::Pending) => self.end(rank, End::Failed(spinning())),
            Ok(Poll::Ready(Ok(result))) => self.end(rank, End::Returned(result)),
            Ok(Poll::Ready(Err(error))) => self.end(rank, End::Failed(error)),
            Err(payload) => self.end(rank, End::Panicked(said(&*payload))),
        }
    }

    /// A program is over. If it did not end well its rank is dead to the others.
    fn end(&mut self, rank: Rank, end: End<T>) {
        let task = &mut self.tasks[rank as usize];
        task.program = None;
        self.running -= 1;
        let at_ps = self.inside.now_ps();
        let ended = Ended { end, at_ps };
        let why = ended.failure().map(|failure| format!("its program {failure}"));
        task.end = Some(ended);
        if let Some(why) = why
            && self.running > 0
        {
            self.inside.state.borrow_mut().world.bury(rank, why);
        }
    }

    /// The programs of ranks that are known to be dead do not go on.
    fn notice_deaths(&mut self) {
        let dead = self.inside.state.borrow().world.world.dead();
        for rank in dead {
            if self.tasks[rank as usize].end.is_none() {
                self.end(rank, End::Died);
            }
        }
    }

    fn break_silence(&mut self) {
        let ended = (0..).zip(&self.tasks).filter(|(_, task)| task.end.is_some()).map(|(rank, _)| rank);
        if self.inside.state.borrow_mut().break_silence(&ended.collect()) {
            return;
        }
        for rank in 0..self.tasks.len() as Rank {
            if self.tasks[rank as usize].end.is_none() {
                self.end(rank, End::Failed(foreign()));
            }
        }
    }
}

fn spinning() -> Error {
    let message = format!(
        "the program was woken {MOST_POLLS} times without virtual time moving on; await operations or compute()"
    );
    Error::new(ErrorKind::Timeout, message)
}

fn foreign() -> Error {
    let message = "the program awaits something that is not of this world (another runtime's timer or channel?): \
                   nothing here will ever wake it";
    Error::new(ErrorKind::Timeout, message)
}

/// What a panic said.
fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}
