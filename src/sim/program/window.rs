//! Windows of simulated ranks: what `crate::window` does over messages, in virtual time.

use super::communicator::Communicator;
use super::work::Work;
use crate::window::head::{DATA, HEAD, Head, WORDS};
use crate::window::part::{Deed, Part};
use crate::window::{Access, WindowId};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use ubccl_core::{Element, Error, Rank, Result};

/// A window of simulated ranks. Order and failures are those of [`ubccl::Window`](crate::Window). It is messages in virtual
/// time, and a rank serves others only while it awaits a call on the window. A wait that nothing can end any more is a
/// Timeout.
pub struct Window<'p, T: Element> {
    comm: Communicator<'p>,
    len: usize,
    state: RefCell<State<'p, T>>,
}

struct State<'p, T: Element> {
    part: Part<T>,
    serving: Serving<'p, T>,
    /// What this rank has sent and nobody waits for.
    heads: Vec<Work<'p, Vec<u64>>>,
    data: Vec<Work<'p, Vec<T>>>,
}

/// What a rank receives next.
enum Serving<'p, T: Element> {
    /// Nothing is posted.
    Idle,
    /// Anybody's head.
    Head(Work<'p, (Vec<u64>, Rank)>),
    /// The data of a put to elements from here on.
    Put(usize, Work<'p, (Vec<T>, Rank)>),
    /// What this rank asked for.
    Reply(Work<'p, (Vec<T>, Rank)>),
    Stopped,
}

impl<'p> Communicator<'p> {
    /// Makes a window of `count` elements on every rank, zeroed. See
    /// [`ubccl::Communicator::window`](crate::Communicator::window).
    pub async fn window<T: Element>(&self, count: usize) -> Result<Window<'p, T>> {
        let card = vec![count as u64, T::DTYPE as u64];
        let cards = self.all_gather(card.clone()).await?;
        if let Some(rank) = cards.chunks_exact(2).position(|other| other != card) {
            return Err(Error::invalid(format!(
                "a window has the same count and type on every rank: this rank asks for {count} elements, rank {rank} for \
                 {} or another type",
                cards[2 * rank]
            )));
        }
        let comm = self.duplicate().await?;
        let part = Part::new(comm.ranks(), count);
        let state = State { part, serving: Serving::Idle, heads: Vec::new(), data: Vec::new() };
        Ok(Window { comm, len: count, state: RefCell::new(state) })
    }
}

impl<'p, T: Element> Window<'p, T> {
    /// Elements on every rank.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// See [`ubccl::Window::put`](crate::Window::put).
    pub async fn put(&self, peer: Rank, offset: usize, data: &[T]) -> Result<()> {
        self.check(peer, offset, data.len())?;
        if peer == self.comm.rank() {
            self.state.borrow_mut().part.write(offset, data);
            return Ok(());
        }
        let head = Head::Put { offset: offset as u64, count: data.len() as u64 };
        self.send(&mut self.state.borrow_mut(), peer, head, Some(data.to_vec()));
        Ok(())
    }

    /// See [`ubccl::Window::get`](crate::Window::get).
    pub async fn get(&self, peer: Rank, offset: usize, count: usize) -> Result<Vec<T>> {
        self.check(peer, offset, count)?;
        if peer == self.comm.rank() {
            return Ok(self.state.borrow().part.read(offset, count).to_vec());
        }
        let number = self.state.borrow_mut().part.ask(peer, count);
        let head = Head::Get { offset: offset as u64, count: count as u64 };
        self.send(&mut self.state.borrow_mut(), peer, head, None);
        self.until(|state| state.part.take_reply(peer, number)).await
    }

    /// See [`ubccl::Window::signal`](crate::Window::signal).
    pub async fn signal(&self, peer: Rank, by: u64) -> Result<()> {
        self.check(peer, 0, 0)?;
        let state = &mut *self.state.borrow_mut();
        match peer == self.comm.rank() {
            true => state.part.signal_own(peer, by),
            false => self.send(state, peer, Head::Signal { by }, None),
        }
        Ok(())
    }

    /// See [`ubccl::Window::wait_signal`](crate::Window::wait_signal).
    pub async fn wait_signal(&self, from: Rank, total: u64) -> Result<()> {
        self.check(from, 0, 0)?;
        self.until(|state| (state.part.signalled(from) >= total).then_some(())).await
    }

    /// See [`ubccl::Window::flush`](crate::Window::flush).
    pub async fn flush(&self, peer: Rank) -> Result<()> {
        self.check(peer, 0, 0)?;
        if peer == self.comm.rank() {
            return Ok(());
        }
        let number = self.state.borrow_mut().part.ask_flush(peer);
        self.send(&mut self.state.borrow_mut(), peer, Head::Flush, None);
        self.until(|state| state.part.is_flushed(peer, number).then_some(())).await
    }

    /// See [`ubccl::Window::fence`](crate::Window::fence).
    pub async fn fence(&self) -> Result<()> {
        for peer in 0..self.comm.ranks() {
            self.flush(peer).await?;
        }
        self.during(self.comm.barrier()).await
    }

    /// See [`ubccl::Window::close`](crate::Window::close).
    pub async fn close(self) -> Result<()> {
        self.fence().await?;
        self.send(&mut self.state.borrow_mut(), self.comm.rank(), Head::Stop, None);
        self.until(|state| matches!(state.serving, Serving::Stopped).then_some(())).await?;
        let state = self.state.into_inner();
        for work in state.heads {
            work.await?;
        }
        for work in state.data {
            work.await?;
        }
        Ok(())
    }

    /// Sends a head, and data behind it.
    fn send(&self, state: &mut State<'p, T>, peer: Rank, head: Head, data: Option<Vec<T>>) {
        state.heads.push(self.comm.send_tagged(head.encode(), peer, HEAD));
        state.data.extend(data.map(|data| self.comm.send_tagged(data, peer, DATA)));
    }

    /// Serves others until an operation of this rank is done.
    async fn during<B>(&self, mut work: Work<'p, B>) -> Result<B>
    where
        Work<'p, B>: Future<Output = Result<B>> + Unpin,
    {
        poll_fn(|context| {
            if let Poll::Ready(done) = Pin::new(&mut work).poll(context) {
                return Poll::Ready(done);
            }
            match self.serve(context) {
                Ok(()) => Pin::new(&mut work).poll(context),
                Err(error) => Poll::Ready(Err(error)),
            }
        })
        .await
    }

    /// Serves others until something has come of it.
    async fn until<R>(&self, mut done: impl FnMut(&mut State<'p, T>) -> Option<R>) -> Result<R> {
        poll_fn(|context| {
            if let Err(error) = self.serve(context) {
                return Poll::Ready(Err(error));
            }
            done(&mut self.state.borrow_mut()).map_or(Poll::Pending, |result| Poll::Ready(Ok(result)))
        })
        .await
    }

    /// Does all that others have asked for by now.
    fn serve(&self, context: &mut Context<'_>) -> Result<()> {
        let state = &mut *self.state.borrow_mut();
        self.take_all(state, context)?;
        // What failed fails the receive too.
        state.heads.retain_mut(|work| Pin::new(work).poll(context).is_pending());
        state.data.retain_mut(|work| Pin::new(work).poll(context).is_pending());
        Ok(())
    }

    fn take_all(&self, state: &mut State<'p, T>, context: &mut Context<'_>) -> Result<()> {
        loop {
            match &mut state.serving {
                Serving::Stopped => return Ok(()),
                Serving::Idle => {
                    state.serving = Serving::Head(self.comm.receive_tagged(WORDS, None, HEAD));
                }
                Serving::Head(work) => {
                    let Poll::Ready(came) = Pin::new(work).poll(context) else { return Ok(()) };
                    let (words, source) = came?;
                    state.serving = Serving::Idle;
                    self.act(state, source, &words)?;
                }
                Serving::Put(offset, work) => {
                    let Poll::Ready(came) = Pin::new(work).poll(context) else { return Ok(()) };
                    let (data, offset) = (came?.0, *offset);
                    state.part.write(offset, &data);
                    state.serving = Serving::Idle;
                }
                Serving::Reply(work) => {
                    let Poll::Ready(came) = Pin::new(work).poll(context) else { return Ok(()) };
                    let (data, source) = came?;
                    state.part.reply(source, data);
                    state.serving = Serving::Idle;
                }
            }
        }
    }

    fn act(&self, state: &mut State<'p, T>, source: Rank, words: &[u64]) -> Result<()> {
        let receive = |count| self.comm.receive_tagged(count, Some(source), DATA);
        match state.part.hear(source, words)? {
            Deed::Nothing => {}
            Deed::ReceivePut(range) => state.serving = Serving::Put(range.start, receive(range.len())),
            Deed::ReceiveReply(count) => state.serving = Serving::Reply(receive(count)),
            Deed::Answer(head) => self.send(state, source, head, None),
            Deed::AnswerData(head, data) => self.send(state, source, head, Some(data)),
            Deed::Stop => state.serving = Serving::Stopped,
        }
        Ok(())
    }

    fn check(&self, peer: Rank, offset: usize, count: usize) -> Result<()> {
        let access = Access { peer, ranks: self.comm.ranks(), offset, count };
        access.check(WindowId(self.comm.id().0), self.len)
    }
}

impl<T: Element> std::fmt::Debug for Window<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window").field("dtype", &T::DTYPE).field("len", &self.len).finish_non_exhaustive()
    }
}
