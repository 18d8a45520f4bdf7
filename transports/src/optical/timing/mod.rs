//! How exactly messages are timed: one trait, a fidelity for each implementation.
//!
//! The network decides what is sent, who meets whom and what completes; a fidelity only says when a message's last
//! byte leaves and when its first byte reaches the receiver's port or its last byte is there. Further fidelities
//! (cells with credits) are further implementations.

mod loggp;

use super::events::EventQueue;
use super::recorder::Recorder;
use loggp::LogGp;
use std::fmt;
use ubccl_core::Rank;
use ubccl_core::endpoint::Fidelity;

/// A message, as far as its time goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Ranks of the world, not the same one.
    pub(super) from: Rank,
    pub(super) to: Rank,
    /// Which level's link it takes.
    pub(super) link: u8,
    pub(super) bytes: u64,
    /// Which line of the matching: lines have one sender, one receiver, and keep order.
    pub(super) line: u32,
}

/// Now, and what is to come.
#[derive(Debug)]
pub(super) struct Agenda<'a> {
    pub(super) now_ps: u64,
    pub(super) queue: &'a mut EventQueue,
    /// Who writes down what happens, if anybody does.
    pub(super) recorder: Option<&'a mut Recorder>,
}

/// One fidelity: ports and links and what is on them.
///
/// Contract:
/// 1. Every message that was posted gets one event of its own, and unless it is lost then, one `Arrived` event.
/// 2. Messages of one line arrive in the order posted.
/// 3. Nothing depends on anything but the posts, their times and order, and the seed.
pub(super) trait Timing: fmt::Debug + Send {
    /// Which it is.
    fn fidelity(&self) -> Fidelity;

    /// A message is posted now. Answers when its last byte leaves its rank, if that is known now; otherwise
    /// [`Timing::settle`] tells it once it is.
    fn post(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>) -> Option<u64>;

    /// The message's own event (`Begun` or `Head`) has come.
    fn moved(&mut self, message: u32, way: &Way, agenda: &mut Agenda<'_>);

    /// Its own event has come, but its sender or receiver is dead: it goes no further, and gets no `Arrived`.
    fn lost(&mut self, _message: u32, _way: &Way, _agenda: &mut Agenda<'_>) {}

    /// The next time at which something happens that is no event of the queue.
    fn next_ps(&self) -> Option<u64> {
        None
    }

    /// Every event of this time was handled. Appends the messages whose last bytes leave their ranks now, in order;
    /// they arrive later, by events of the queue.
    fn settle(&mut self, _agenda: &mut Agenda<'_>, _left: &mut Vec<u32>) {}

    /// Tells a new recorder its links, in an order of its own.
    fn tell_links(&self, levels: &[String], recorder: &mut Recorder);

    /// Bytes of memory it has taken.
    fn memory_bytes(&self) -> usize;
}

/// The fidelity of that name for a fabric's links and so many ranks.
pub(super) fn of(fidelity: Fidelity, links: &[ubccl_core::topology::Link], ranks: u32) -> Box<dyn Timing> {
    debug_assert_eq!(fidelity, Fidelity::LogGp, "`Optical::world` refuses others");
    Box::new(LogGp::new(links, ranks))
}
