//! Point-to-point operations under way: in which order they begin, and how many posts of theirs an endpoint gets.
//!
//! A *line* is what goes one way between this rank and one peer on one lane. Messages of a line keep program order, and an
//! endpoint takes a bounded number of posts on it. So an operation stands in the queue of every line it uses; a line lets
//! in its first one when the one before has posted all its steps and there is room; and an operation that all its lines
//! have let in may begin. Each event looks at the lines of one operation only, however many wait.

use super::slots::Slots;
use std::collections::VecDeque;
use ubccl_core::plan::{MAX_WINDOW, MAX_WINDOW_PER_PEER, Side};
use ubccl_core::{Collective, Rank};

/// Lanes times directions.
const WAYS: usize = 4;

/// Which lane, in which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Sends without a tag.
    Send = 0,
    /// Receives without a tag.
    Receive = 1,
    /// Sends with a tag.
    SendTagged = 2,
    /// Receives with a tag.
    ReceiveTagged = 3,
}

/// An operation's part in a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    line: u32,
    /// Posts that it may have under way there.
    weight: u32,
}

/// What an operation is to the lines it uses.
#[derive(Debug, Default)]
pub(super) struct Standing {
    uses: Vec<Use>,
    /// Lines that have not let it in.
    missing: u32,
    stage: Stage,
    /// Its neighbours in the order issued.
    before: Option<usize>,
    after: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Has not begun.
    #[default]
    Waiting,
    /// Has begun, and what it posts at once is being posted.
    Begun,
    /// Has steps left to post.
    Posting,
    /// Has posted all its steps.
    Posted,
}

#[derive(Debug)]
struct Line {
    way: Way,
    peer: Rank,
    /// Those not let in, with their weights.
    queue: VecDeque<(usize, u32)>,
    /// Whether the last one let in has steps left to post.
    is_taken: bool,
    /// Posts that those let in may have under way.
    weight: u32,
    /// Where it stands in the list of an operation that is being queued.
    place: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Loose {
    /// By peer and way: the line's number + 1; 0 if it was never used.
    numbers: Vec<[u32; WAYS]>,
    lines: Vec<Line>,
    /// Let in by all their lines, not begun.
    ready: VecDeque<usize>,
    /// Begun, with steps left to post.
    posting: Vec<usize>,
    /// Posts that those which have begun may have under way, by way.
    weights: [u32; WAYS],
    first: Option<usize>,
    last: Option<usize>,
}

impl Loose {
    /// The operations in the order issued.
    pub(super) fn iter<'a>(&self, slots: &'a Slots) -> impl Iterator<Item = usize> + use<'a> {
        std::iter::successors(self.first, |&index| slots[index].standing.after)
    }

    /// The oldest operation.
    #[inline]
    pub(super) fn first(&self) -> Option<usize> {
        self.first
    }

    /// Whether there is none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Lists an operation as the youngest.
    pub(super) fn list(&mut self, slots: &mut Slots, index: usize) {
        let standing = &mut slots[index].standing;
        (standing.before, standing.after) = (self.last, None);
        match self.last {
            Some(last) => slots[last].standing.after = Some(index),
            None => self.first = Some(index),
        }
        self.last = Some(index);
    }

    /// Takes an operation off the list.
    pub(super) fn unlist(&mut self, slots: &mut Slots, index: usize) {
        let standing = &mut slots[index].standing;
        let (before, after) = (standing.before.take(), standing.after.take());
        match before {
            Some(before) => slots[before].standing.after = after,
            None => self.first = after,
        }
        match after {
            Some(after) => slots[after].standing.before = before,
            None => self.last = before,
        }
    }

    /// Queues an operation at the lines of its call: each peer it sends to, each it receives from.
    pub(super) fn queue(&mut self, slots: &mut Slots, index: usize, is_tagged: bool) {
        let (send, receive) =
            if is_tagged { (Way::SendTagged, Way::ReceiveTagged) } else { (Way::Send, Way::Receive) };
        slots[index].standing.restart();
        let call = std::mem::take(&mut slots[index].called);
        for (way, side) in [(send, Side::Send), (receive, Side::Receive)] {
            self.use_lines(slots, index, way, (&call.get(), side));
        }
        slots[index].called = call;
        let standing = &mut slots[index].standing;
        standing.missing = standing.uses.len() as u32;
        for k in 0..slots[index].standing.uses.len() {
            let Use { line, weight } = slots[index].standing.uses[k];
            self.lines[line as usize].queue.push_back((index, weight));
            self.let_in(slots, line);
        }
        if slots[index].standing.uses.is_empty() {
            self.ready.push_back(index);
        }
    }

    fn use_lines(
        &mut self,
        slots: &mut Slots,
        index: usize,
        way: Way,
        (call, side): (&Collective<'_>, Side),
    ) {
        let (single, table) = match side {
            Side::Send => (call.to(), call.send()),
            Side::Receive => (call.from(), call.receive()),
        };
        for peer in single.into_iter().chain(table.messages().iter().map(|message| message.peer)) {
            let line = self.line(way, peer);
            let uses = &mut slots[index].standing.uses;
            // Marked in the line while this runs: a group may list thousands of messages of one peer.
            let place = &mut self.lines[line as usize].place;
            match uses.get_mut(*place as usize).filter(|used| used.line == line) {
                Some(used) => used.weight = (used.weight + 1).min(MAX_WINDOW_PER_PEER),
                None => {
                    *place = uses.len() as u32;
                    uses.push(Use { line, weight: 1 });
                }
            }
        }
    }

    fn line(&mut self, way: Way, peer: Rank) -> u32 {
        if self.numbers.len() <= peer as usize {
            self.numbers.resize(peer as usize + 1, [0; WAYS]);
        }
        let number = &mut self.numbers[peer as usize][way as usize];
        if *number == 0 {
            let queue = VecDeque::new();
            self.lines.push(Line { way, peer, queue, is_taken: false, weight: 0, place: 0 });
            *number = self.lines.len() as u32;
        }
        *number - 1
    }

    /// Lets the first of a line's queue in, if it may.
    fn let_in(&mut self, slots: &mut Slots, line: u32) {
        let line = &mut self.lines[line as usize];
        let Some(&(index, weight)) = line.queue.front() else { return };
        if line.is_taken || line.weight + weight > MAX_WINDOW_PER_PEER {
            return;
        }
        line.queue.pop_front();
        line.is_taken = true;
        line.weight += weight;
        let standing = &mut slots[index].standing;
        standing.missing -= 1;
        if standing.missing == 0 {
            self.ready.push_back(index);
        }
    }

    /// The next operation that may begin now, which is then about to.
    #[inline]
    pub(super) fn next_ready(&mut self, slots: &mut Slots) -> Option<usize> {
        let &index = self.ready.front()?;
        let weights = self.weights_of(slots, index);
        if (0..WAYS).any(|way| self.weights[way] + weights[way] > MAX_WINDOW) {
            return None;
        }
        self.ready.pop_front();
        (0..WAYS).for_each(|way| self.weights[way] += weights[way]);
        slots[index].standing.stage = Stage::Begun;
        Some(index)
    }

    /// Posts that an operation may have under way, by way: those of a group go through one window.
    fn weights_of(&self, slots: &Slots, index: usize) -> [u32; WAYS] {
        let mut weights = [0; WAYS];
        for used in &slots[index].standing.uses {
            let weight = &mut weights[self.lines[used.line as usize].way as usize];
            *weight = (*weight + used.weight).min(MAX_WINDOW_PER_PEER);
        }
        weights
    }

    /// Whether a tagged receive from a peer may begin at once.
    pub(super) fn has_room(&mut self, peer: Rank) -> bool {
        let line = self.line(Way::ReceiveTagged, peer);
        let in_all = self.weights[Way::ReceiveTagged as usize];
        self.lines[line as usize].weight < MAX_WINDOW_PER_PEER && in_all < MAX_WINDOW
    }

    /// Begins a tagged receive, for which there is room: its one step is about to be posted.
    pub(super) fn begin_tagged(&mut self, slots: &mut Slots, index: usize, peer: Rank) {
        let line = self.line(Way::ReceiveTagged, peer);
        self.lines[line as usize].weight += 1;
        self.weights[Way::ReceiveTagged as usize] += 1;
        let standing = &mut slots[index].standing;
        standing.restart();
        standing.uses.push(Use { line, weight: 1 });
        standing.stage = Stage::Begun;
    }

    /// Begins an operation that uses no line.
    pub(super) fn begin_alone(&mut self, slots: &mut Slots, index: usize) {
        let standing = &mut slots[index].standing;
        standing.restart();
        standing.stage = Stage::Begun;
    }

    /// Notes whether an operation that has begun has steps left to post; once it has none its lines go on.
    pub(super) fn note_posted(&mut self, slots: &mut Slots, index: usize, has_posted_all: bool) {
        let stage = &mut slots[index].standing.stage;
        match (*stage, has_posted_all) {
            (Stage::Begun, false) => {
                *stage = Stage::Posting;
                self.posting.push(index);
            }
            (Stage::Begun, true) => {
                *stage = Stage::Posted;
                self.free_lines(slots, index);
            }
            (Stage::Posting, true) => {
                *stage = Stage::Posted;
                self.posting.retain(|&other| other != index);
                self.free_lines(slots, index);
            }
            (Stage::Posting, false) | (Stage::Posted | Stage::Waiting, _) => {}
        }
    }

    fn free_lines(&mut self, slots: &mut Slots, index: usize) {
        for k in 0..slots[index].standing.uses.len() {
            let Use { line, .. } = slots[index].standing.uses[k];
            self.lines[line as usize].is_taken = false;
            self.let_in(slots, line);
        }
    }

    /// The k-th operation that has begun and has steps left to post.
    #[inline]
    pub(super) fn posting(&self, k: usize) -> Option<usize> {
        self.posting.get(k).copied()
    }

    /// An operation that had posted all its steps is over: its lines have room again.
    pub(super) fn leave(&mut self, slots: &mut Slots, index: usize) {
        let weights = self.weights_of(slots, index);
        (0..WAYS).for_each(|way| self.weights[way] -= weights[way]);
        for k in 0..slots[index].standing.uses.len() {
            let Use { line, weight } = slots[index].standing.uses[k];
            self.lines[line as usize].weight -= weight;
            self.let_in(slots, line);
        }
        slots[index].standing.restart();
    }

    /// The peers of an operation that has not begun.
    pub(super) fn peers_of(&self, slots: &Slots, index: usize, peer: impl FnMut(Rank)) {
        let standing = &slots[index].standing;
        if standing.stage == Stage::Waiting {
            standing.uses.iter().map(|used| self.lines[used.line as usize].peer).for_each(peer);
        }
    }

    /// Posts that untagged receives from a peer may have under way.
    #[cfg(test)]
    pub(super) fn weight(&self, peer: Rank) -> u32 {
        let is_it = |line: &&Line| line.way == Way::Receive && line.peer == peer;
        self.lines.iter().find(is_it).map_or(0, |line| line.weight)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Loose::default();
    }
}

impl Standing {
    fn restart(&mut self) {
        self.uses.clear();
        (self.missing, self.stage) = (0, Stage::Waiting);
    }
}
