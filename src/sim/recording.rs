//! Recording a world (what the fabric saw, and which plans explain it), and watching it.

use super::World;
use crate::engine::Begun;
use crate::trace::{Operation, Recording, Share, Span};
use std::collections::BTreeMap;
use std::fmt;
use ubccl_core::endpoint::{CommunicatorId, Place, Stream};
use ubccl_core::record::Record;

/// How far a world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Virtual time.
    pub now_ps: u64,
    /// Messages that have arrived.
    pub messages: u64,
}

/// Somebody is told now and then.
#[derive(Default)]
pub(super) struct Watch {
    observer: Option<Box<dyn FnMut(Moment) + Send>>,
    steps: u32,
}

/// The observer is told every so many steps of time: often enough for people, too seldom to be felt.
const STEPS: u32 = 64;

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("is_on", &self.observer.is_some()).finish_non_exhaustive()
    }
}

impl World {
    /// Has somebody told now and then how far a call is, or nobody any more. Nothing is changed by it.
    pub fn observe(&mut self, observer: Option<Box<dyn FnMut(Moment) + Send>>) {
        self.watch = Watch { observer, steps: 0 };
    }

    /// A step of time was made.
    pub(super) fn stepped(&mut self) {
        let Some(observer) = &mut self.watch.observer else { return };
        self.watch.steps = self.watch.steps.wrapping_add(1);
        if self.watch.steps.is_multiple_of(STEPS) {
            let moment = Moment { now_ps: self.world.now_ps(), messages: self.world.stats().messages };
            observer(moment);
        }
    }

    /// Begins to record what happens, until [`World::stop_recording`]. It changes no time and no hash, and takes memory:
    /// about 250 bytes for each message. Begin when nothing is under way: what is, is not in the record.
    pub fn start_recording(&mut self) {
        self.world.start_recording();
        self.is_recording = true;
        self.communicators.iter_mut().for_each(|company| company.keep_journals(true));
    }

    /// What was recorded; nothing, if nobody began. Communicators made since the beginning are in it.
    pub fn stop_recording(&mut self) -> Recording {
        let record = self.world.stop_recording();
        self.is_recording = false;
        let spans = spans(&record);
        let mut operations: BTreeMap<(CommunicatorId, u64), Operation> = BTreeMap::new();
        for (communicator, company) in (0..).map(CommunicatorId).zip(&mut self.communicators) {
            let ranks = &company.ranks;
            for ((index, engine), &rank) in (0..).zip(&mut company.engines).zip(ranks) {
                for Begun { stream, signature, plan, binding } in engine.journal.take().unwrap_or_default() {
                    let Stream::Collective(sequence) = stream else { continue };
                    let operation = operations.entry((communicator, sequence)).or_insert_with(|| Operation {
                        communicator,
                        sequence,
                        text: signature.describe(),
                        algorithm: plan.algorithm(),
                        ranks: ranks.iter().map(|&rank| Share { rank, span: None, plan: None }).collect(),
                    });
                    let span = spans.get(&(Place { communicator, rank: index }, sequence)).copied();
                    operation.ranks[index as usize] = Share { rank, span, plan: Some((plan, binding)) };
                }
            }
        }
        Recording { record, operations: operations.into_values().collect() }
    }
}

/// From when to when each place did something for each collective.
fn spans(record: &Record) -> BTreeMap<(Place, u64), Span> {
    let mut spans: BTreeMap<(Place, u64), Span> = BTreeMap::new();
    for post in &record.posts {
        let Stream::Collective(sequence) = post.stream else { continue };
        let begin = Span { begin_ps: post.posted_ps, end_ps: Some(post.posted_ps) };
        let span = spans.entry((post.place, sequence)).or_insert(begin);
        span.begin_ps = span.begin_ps.min(post.posted_ps);
        span.end_ps = span.end_ps.and_then(|end_ps| Some(end_ps.max(post.done_ps?)));
    }
    spans
}
