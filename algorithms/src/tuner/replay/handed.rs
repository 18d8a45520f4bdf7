//! Chunks that a root hands out, and that all gather from each other meanwhile.
//!
//! ```text
//! the root    posts what it sends of a chunk in the rounds that hand it on, as far as its window goes, and what it sends of it
//!             later once that has left: its port passes some of one chunk between some of others
//! a chunk     has come as far as a round when it had come as far as the one before and was sent on, and when what the root sends
//!             in the round has left; a latency later
//! the others  do all later rounds for a chunk from then on; what they get in the first of these takes no place in a window, as
//!             most of it was sent sooner, by ranks to which the chunk came sooner
//! ```
//!
//! That leaves out that ranks which hand much on do as much as the root, for chunks that all came before: the chain of all rounds
//! as one rank's, in which a port does little of two of them at once, is replayed beside, and what takes longer counts. (72 dies,
//! a broadcast of 2.9 MB by meshes, predicted / simulated: in chunks of 64 KiB 1.00 here and .94 by the chain, of 256 KiB
//! .94 and 1.03.)

use super::{Flows, Message, Replay, Run, Turn};
use ubccl_core::profile::Flow;

/// How long it takes, if one of these ranks hands out what it has; where ports are shared or pass messages in turn.
pub(super) fn total_ps(all: &[Replay], is_shared: bool) -> Option<f64> {
    let is_root = |replay: &&Replay| {
        replay.handed > 0 && replay.handed < replay.turns.len() && replay.turns.iter().all(Replay::gives)
    };
    let root = all.iter().find(is_root)?;
    let comes_ps = root.handed_ps(is_shared);
    let others = all.iter().filter(|replay| !is_root(replay));
    let totals = others.map(|replay| {
        let ends = Run::new(&replay.behind(&comes_ps), comes_ps.len(), is_shared).ends_ps();
        replay.all_ps(&ends, super::PACE).max(root.all_ps(&ends, super::PACE))
    });
    totals.reduce(f64::max)
}

impl Replay {
    fn gives(turn: &Turn) -> bool {
        turn.messages.is_empty() || turn.flow == Flow::Out
    }

    /// When each of the first chunks is handed out.
    fn handed_ps(&self, is_shared: bool) -> Vec<f64> {
        let (root, turns, chunks) = (self.of_root(is_shared), self.turns.len(), self.replayed());
        let left_ps = Run::new(&root, chunks, is_shared).done().overs_ps;
        // When the chunk before was sent on, in each round.
        let mut before_ps = vec![0.0_f64; self.handed];
        let of_chunk = |chunk: usize| {
            let part = self.part(chunk);
            (0..self.handed).fold(0.0_f64, |came_ps, turn| {
                let Turned { port_ps, rest_ps, latency_ps } = Turned::of(&self.turns[turn]);
                before_ps[turn] = came_ps.max(before_ps[turn]) + port_ps * part;
                let sent_on_ps = before_ps[turn] + rest_ps * part;
                sent_on_ps.max(left_ps[chunk * turns + turn]) + latency_ps
            })
        };
        (0..chunks).map(of_chunk).collect()
    }

    /// What the root does: nothing it sends hangs on anything that comes.
    fn of_root(&self, is_shared: bool) -> Replay {
        let mut root = self.clone();
        let first = self.turns[self.handed].lane;
        // Each message that hands on goes to a rank of its own.
        let mut pairs = Pairs::default();
        for (index, turn) in root.turns.iter_mut().enumerate() {
            let is_handing = index < self.handed;
            turn.lane = if is_handing { 0 } else { turn.lane + 1 - first };
            turn.messages.iter_mut().for_each(|message| message.latency_ps = 0.0);
            turn.messages = match is_handing || !is_shared {
                true => pairs.own(&turn.messages),
                false => pairs.among(&turn.messages),
            };
        }
        let sends = |&turn: &usize| !self.turns[turn].messages.is_empty();
        root.gate = (0..self.handed).rev().find(sends);
        (root.lanes, root.levels) = (self.lanes + 1 - first, pairs.all);
        root
    }

    /// What a rank does with chunks that come handed out.
    fn behind(&self, comes_ps: &[f64]) -> Replay {
        let mut rest = self.clone();
        rest.turns.drain(..self.handed);
        let first = rest.turns.first().map_or(0, |turn| turn.lane);
        rest.turns.iter_mut().for_each(|turn| turn.lane -= first);
        rest.lanes -= first;
        if let Some(turn) = rest.turns.first_mut() {
            turn.receives = 0.0;
        }
        rest.comes_ps = comes_ps.to_vec();
        rest
    }
}

/// To whom the root sends: messages to the same ranks follow each other.
#[derive(Default)]
struct Pairs {
    all: usize,
    /// Which, of what level, and how many messages: of those that hand on.
    handed: Vec<(usize, usize, f64)>,
}

impl Pairs {
    fn next(&mut self) -> usize {
        self.all += 1;
        self.all - 1
    }

    /// Messages to ranks of their own.
    fn own(&mut self, messages: &[Message]) -> Vec<Message> {
        let own = messages.iter().map(|message| {
            let pair = self.next();
            self.handed.push((pair, message.level, message.flows.count));
            Message { level: pair, ..*message }
        });
        own.collect()
    }

    /// Messages to all, those who were handed something among them. Each gets its part of what all together could get of the port,
    /// even while it is alone: too little, which stands in for what receivers' ports lose. (A broadcast of 48 dies by meshes in
    /// `fluid`, predicted / simulated: .93 so, .85 if who is alone gets more.)
    fn among(&mut self, messages: &[Message]) -> Vec<Message> {
        let mut among = Vec::new();
        for message in messages {
            let (mut left, all) = (message.flows.count, message.flows.count);
            let part = |pair: usize, count: f64| {
                let part = count / all;
                let flows = Flows {
                    port_ps: message.flows.port_ps * part,
                    count,
                    most: message.flows.most * part,
                    ..message.flows
                };
                Message { level: pair, share: message.share * part, flows, ..*message }
            };
            for &(pair, level, count) in &self.handed {
                if level == message.level && count <= left {
                    among.push(part(pair, count));
                    left -= count;
                }
            }
            if left > 0.0 {
                among.push(part(self.next(), left));
            }
        }
        among
    }
}

/// What sending a chunk on in a turn takes.
struct Turned {
    port_ps: f64,
    rest_ps: f64,
    latency_ps: f64,
}

impl Turned {
    fn of(turn: &Turn) -> Self {
        let most = |of: fn(&Message) -> f64| turn.messages.iter().map(of).fold(0.0, f64::max);
        Turned {
            port_ps: most(|message| message.port_ps),
            rest_ps: most(|message| message.rest_ps),
            latency_ps: most(|message| message.latency_ps),
        }
    }
}
