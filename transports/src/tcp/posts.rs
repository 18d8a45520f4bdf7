//! The posts under way.

use super::raw::Place;
use ubccl_core::endpoint::{Span, Token};
use ubccl_core::plan::{MAX_WINDOW, PeerRun};
use ubccl_core::{DataType, ReduceOp};

/// Posts that there may be at once, a full window on every lane. Room for them is asked for at the start, and costs memory
/// only where it was ever used.
pub(super) const ROOM: usize = super::wire::LANES * MAX_WINDOW as usize;

/// The posts under way, and the tokens of those that completed.
#[derive(Debug)]
pub(super) struct Posts {
    slots: Vec<Post>,
    free: Vec<u32>,
    finished: Vec<Token>,
    /// The post that is being made: its completion is an answer, not a token.
    current: Option<(u32, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Post {
    token: Token,
    /// Messages it still waits for; a reduction counts as one.
    left: u32,
    fold: Option<Fold>,
}

/// A reduction under way. A copy is one of a single source: this rank.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fold {
    pub(super) sources: PeerRun,
    pub(super) lane: usize,
    pub(super) own: Place,
    pub(super) into: Span,
    pub(super) how: (DataType, ReduceOp),
    /// Bytes written.
    pub(super) folded: u64,
    /// Sources that have nothing to fold.
    pub(super) lacking: u32,
}

impl Posts {
    pub(super) fn new() -> Self {
        Posts {
            slots: Vec::with_capacity(ROOM),
            free: Vec::with_capacity(ROOM),
            finished: Vec::with_capacity(ROOM),
            current: None,
        }
    }

    /// Bytes of memory that was ever used.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.slots) + size_of_val(&*self.free) + size_of_val(&*self.finished)
    }

    /// Begins a post that waits for `left` messages. [`Posts::end`] has to follow.
    pub(super) fn begin(&mut self, token: Token, left: u32, fold: Option<Fold>) -> u32 {
        let post = Post { token, left, fold };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = post;
                index
            }
            None => {
                self.slots.push(post);
                (self.slots.len() - 1) as u32
            }
        };
        self.current = Some((index, false));
        index
    }

    /// The post is made. Says whether it completed meanwhile.
    pub(super) fn end(&mut self) -> bool {
        self.current.take().is_some_and(|(_, is_done)| is_done)
    }

    /// One of a post's messages is done with.
    pub(super) fn complete(&mut self, index: u32) {
        let post = &mut self.slots[index as usize];
        post.left -= 1;
        if post.left > 0 {
            return;
        }
        match &mut self.current {
            Some((current, is_done)) if *current == index => *is_done = true,
            _ => self.finished.push(post.token),
        }
        self.free.push(index);
    }

    /// The reduction of a post.
    pub(super) fn fold(&mut self, index: u32) -> &mut Fold {
        self.slots[index as usize].fold.as_mut().expect("only reductions have sources to fold")
    }

    /// Appends the tokens of what completed. `true` if there were any.
    pub(super) fn hand_out(&mut self, done: &mut Vec<Token>) -> bool {
        let any = !self.finished.is_empty();
        done.append(&mut self.finished);
        any
    }

    pub(super) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
        self.finished.clear();
        self.current = None;
    }
}
