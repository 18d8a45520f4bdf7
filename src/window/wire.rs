//! Windows over messages: what a rank does to a peer's part is told to the peer, which does it.
//!
//! Messages go over a communicator of the window's own. Each begins with a head of four words; data follows on another
//! tag, posted together with the head, so who has taken a head waits for nobody when it receives the data. A rank has one
//! receive posted all the time, for the next head of anybody or the data behind one. Whoever is in a call on the window
//! serves what comes; while nobody is, the service thread does. So a rank that computes, or waits in another call, keeps
//! nobody waiting for long.

use super::WindowId;
use super::head::{DATA, HEAD, Head, WORDS};
use super::part::{Deed, Part};
use super::wait::Wait;
use crate::communicator::{Communicator, Shared};
use crate::control::{Progress, ProgressState};
use crate::work::Work;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::Duration;
use ubccl_core::{Collective, Element, Rank, Result};

/// How long a wait sleeps before it looks again: another thread may have taken what it waits for off the endpoint.
const NAP: Duration = Duration::from_millis(5);
/// Bytes of one message at most; a longer put is several.
const PIECE_BYTES: usize = 8 << 20;
/// What this rank has sent and peers have not taken, at most: then a put or a signal waits.
const MOST_UNFINISHED: usize = 1024;
const MOST_UNFINISHED_BYTES: usize = 64 << 20;

/// One rank's side.
pub(super) struct Wire<T: Element> {
    comm: Communicator,
    window: WindowId,
    side: Arc<Side<T>>,
}

/// What callers and the service thread share.
struct Side<T: Element> {
    /// The window's own communicator, and the one that the user has.
    shared: Arc<Shared>,
    parent: Arc<Shared>,
    state: Mutex<State<T>>,
}

struct State<T: Element> {
    part: Part<T>,
    serving: Serving<T>,
    /// Messages of this rank that nobody waits for.
    heads: Vec<Work<Vec<u64>>>,
    data: Vec<(usize, Work<Vec<T>>)>,
}

/// What is received next.
enum Serving<T: Element> {
    /// Nothing is posted.
    Idle,
    /// Anybody's head.
    Head(Work<(Vec<u64>, Rank)>),
    /// The data of a put, for elements from here on.
    Put(usize, Work<(Vec<T>, Rank)>),
    /// What this rank has asked for.
    Reply(Work<(Vec<T>, Rank)>),
    /// Nothing more.
    Stopped,
}

impl<T: Element> Wire<T> {
    /// The window's own communicator and part; a collective.
    pub(super) fn new(parent: &Communicator, window: WindowId, count: usize) -> Result<Self> {
        let comm = parent.duplicate_for_window()?;
        let state = State {
            part: Part::new(comm.ranks(), count),
            serving: Serving::Idle,
            heads: Vec::new(),
            data: Vec::new(),
        };
        let (shared, parent) = (comm.shared.clone(), parent.shared.clone());
        let side = Arc::new(Side { shared, parent, state: Mutex::new(state) });
        // A peer may have gone already, which the next call tells: the window was made.
        let _told_by_the_next_call = side.serve(&mut side.state.lock());
        let progress: Weak<dyn Progress> = Arc::downgrade(&(side.clone() as Arc<dyn Progress>));
        comm.shared.control.service().register_progress(progress);
        Ok(Wire { comm, window, side })
    }

    /// The cause, if the window's own communicator has failed: it may be the first to know.
    pub(super) fn check(&self) -> Result<()> {
        self.side.shared.control.poison().check()
    }

    pub(super) fn put(&self, peer: Rank, offset: usize, data: &[T]) -> Result<()> {
        if peer == self.comm.rank() {
            self.side.state.lock().part.write(offset, data);
            return Ok(());
        }
        let mut at = offset;
        for piece in data.chunks(PIECE_BYTES / size_of::<T>()) {
            self.wait_for_room(peer)?;
            let head = Head::Put { offset: at as u64, count: piece.len() as u64 };
            self.side.send(&mut self.side.state.lock(), peer, head, Some(piece.to_vec()))?;
            at += piece.len();
        }
        Ok(())
    }

    pub(super) fn get(&self, peer: Rank, offset: usize, data: &mut [T]) -> Result<()> {
        if peer == self.comm.rank() {
            data.copy_from_slice(self.side.state.lock().part.read(offset, data.len()));
            return Ok(());
        }
        let mut at = offset;
        for piece in data.chunks_mut(PIECE_BYTES / size_of::<T>()) {
            let number = self.ask(peer, at, piece.len())?;
            at += piece.len();
            self.take_reply((peer, number), piece)?;
        }
        Ok(())
    }

    pub(super) fn signal(&self, peer: Rank, by: u64) -> Result<()> {
        if peer == self.comm.rank() {
            self.side.state.lock().part.signal_own(peer, by);
            return Ok(());
        }
        self.wait_for_room(peer)?;
        self.side.send(&mut self.side.state.lock(), peer, Head::Signal { by }, None)
    }

    pub(super) fn signalled(&self, from: Rank) -> Result<u64> {
        let state = &mut *self.side.state.lock();
        self.side.serve(state)?;
        Ok(state.part.signalled(from))
    }

    pub(super) fn wait_signal(&self, from: Rank, total: u64) -> Result<()> {
        self.wait(from, "a signal", |state| Ok(state.part.signalled(from) >= total))
    }

    pub(super) fn flush(&self, peer: Rank) -> Result<()> {
        if peer == self.comm.rank() {
            return Ok(());
        }
        let number = self.ask_flush(peer)?;
        self.wait(peer, "a flush", |state| Ok(state.part.is_flushed(peer, number)))
    }

    fn ask_flush(&self, peer: Rank) -> Result<u64> {
        let state = &mut *self.side.state.lock();
        self.side.send(state, peer, Head::Flush, None)?;
        Ok(state.part.ask_flush(peer))
    }

    pub(super) fn fence(&self) -> Result<()> {
        (0..self.comm.ranks()).try_for_each(|peer| self.flush(peer))?;
        let barrier = self.comm.run_async(&Collective::barrier(), Vec::<u8>::new(), Vec::new())?;
        self.wait(self.comm.rank(), "the other ranks at a fence", |_| barrier.test())
    }

    /// Comes together with all ranks, and ends the receive that is always posted.
    pub(super) fn close(self) -> Result<()> {
        self.fence()?;
        let me = self.comm.rank();
        self.side.send(&mut self.side.state.lock(), me, Head::Stop, None)?;
        self.wait(me, "its own messages at the end", |state| {
            Ok(matches!(state.serving, Serving::Stopped) && state.heads.is_empty() && state.data.is_empty())
        })?;
        self.comm.close()
    }

    /// Asks a peer for elements; the number of the question.
    fn ask(&self, peer: Rank, offset: usize, count: usize) -> Result<u64> {
        let state = &mut *self.side.state.lock();
        self.side.send(state, peer, Head::Get { offset: offset as u64, count: count as u64 }, None)?;
        Ok(state.part.ask(peer, count))
    }

    fn take_reply(&self, (peer, number): (Rank, u64), into: &mut [T]) -> Result<()> {
        let mut reply = None;
        self.wait(peer, "the answer to a get", |state| {
            reply = state.part.take_reply(peer, number);
            Ok(reply.is_some())
        })?;
        into.copy_from_slice(&reply.expect("it was waited for"));
        Ok(())
    }

    /// Waits until another message may be sent without being waited for.
    fn wait_for_room(&self, peer: Rank) -> Result<()> {
        self.wait(peer, "room for more puts and signals, which its peers do not take", |state| {
            let bytes: usize = state.data.iter().map(|(bytes, _)| bytes).sum();
            Ok(state.heads.len() < MOST_UNFINISHED && bytes < MOST_UNFINISHED_BYTES)
        })
    }

    /// Serves what comes until something is done.
    fn wait(
        &self,
        peer: Rank,
        what: &str,
        mut is_done: impl FnMut(&mut State<T>) -> Result<bool>,
    ) -> Result<()> {
        let (shared, parent, window) = (&*self.side.shared, &*self.side.parent, self.window);
        let wait = Wait { shared, parent, window, peer, what, longest_sleep: NAP };
        let look = || {
            let state = &mut *self.side.state.lock();
            if is_done(state)? {
                return Ok(true);
            }
            self.side.serve(state)?;
            is_done(state)
        };
        // Serving takes the engine, which a sleeper has.
        let waited = wait.until(look, &|| false);
        // From now on it is the service thread that serves.
        shared.control.service().ring();
        waited
    }
}

impl<T: Element> Side<T> {
    /// Sends a head, and data behind it.
    fn send(&self, state: &mut State<T>, peer: Rank, head: Head, data: Option<Vec<T>>) -> Result<()> {
        state.heads.push(self.shared.send_tagged_async(head.encode(), peer, HEAD)?);
        if let Some(data) = data {
            let bytes = size_of_val(&data[..]);
            state.data.push((bytes, self.shared.send_tagged_async(data, peer, DATA)?));
        }
        Ok(())
    }

    /// Does all that others have asked for by now.
    fn serve(&self, state: &mut State<T>) -> Result<()> {
        loop {
            state.serving = match std::mem::replace(&mut state.serving, Serving::Idle) {
                Serving::Idle => {
                    Serving::Head(self.shared.receive_tagged_async(vec![0; WORDS], None, HEAD)?)
                }
                Serving::Head(work) if work.test()? => {
                    let (words, source) = work.wait()?;
                    self.act(state, source, &words)?
                }
                Serving::Put(offset, work) if work.test()? => {
                    state.part.write(offset, &work.wait()?.0);
                    Serving::Idle
                }
                Serving::Reply(work) if work.test()? => {
                    let (data, source) = work.wait()?;
                    state.part.reply(source, data);
                    Serving::Idle
                }
                waiting => {
                    state.serving = waiting;
                    state.forget_finished();
                    return Ok(());
                }
            };
        }
    }

    fn act(&self, state: &mut State<T>, source: Rank, words: &[u64]) -> Result<Serving<T>> {
        let receive = |count| self.shared.receive_tagged_async(vec![T::zeroed(); count], Some(source), DATA);
        match state.part.hear(source, words)? {
            Deed::Nothing => {}
            Deed::ReceivePut(range) => return Ok(Serving::Put(range.start, receive(range.len())?)),
            Deed::ReceiveReply(count) => return Ok(Serving::Reply(receive(count)?)),
            Deed::Answer(head) => self.send(state, source, head, None)?,
            Deed::AnswerData(head, data) => self.send(state, source, head, Some(data))?,
            Deed::Stop => return Ok(Serving::Stopped),
        }
        Ok(Serving::Idle)
    }
}

impl<T: Element> State<T> {
    fn forget_finished(&mut self) {
        self.heads.retain(|work| !work.is_over());
        self.data.retain(|(_, work)| !work.is_over());
    }
}

impl<T: Element> Progress for Side<T> {
    fn progress(&self) -> ProgressState {
        // Who has the engine is in a call on the window, and serves.
        if !self.shared.engine.is_locked()
            && let Some(mut state) = self.state.try_lock()
        {
            let _told_by_the_next_call = self.serve(&mut state);
        }
        // The communicator itself says when to look again.
        ProgressState::Idle
    }
}

impl<T: Element> Drop for Side<T> {
    /// If the user's communicator has failed, peers whose waits end with this one are told the same.
    fn drop(&mut self) {
        if let Some(cause) = self.parent.control.poison().cause() {
            let _first_or_not = self.shared.control.report(cause.clone());
        }
    }
}
