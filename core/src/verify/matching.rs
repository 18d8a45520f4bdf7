//! Which send meets which receive: the k-th from a to b on a lane meets the k-th there, whatever the timing. Messages of
//! a group share one lane of the endpoint, whatever lane of the plan they are on.

use super::flat::{Flat, OWN};
use super::violation::Violation;
use crate::kind::Kind;

/// Names each message's partner in both steps' entries, and the receiving step of the channel's next message; answers
/// how many messages there are and how many elements they move.
pub(super) fn match_messages(flat: &mut Flat) -> Result<(u64, u64), Violation> {
    let lanes = match flat.specs[0].kind == Kind::Group {
        true => 1,
        false => (0..flat.ranks).map(|rank| flat.lanes_of(rank).len()).max().unwrap_or(0),
    };
    let mut totals = (0, 0);
    let mut channels = Channels::new(flat.ranks);
    for lane in 0..lanes {
        let (messages, elements) = channels.match_lane(flat, lane)?;
        totals = (totals.0 + messages, totals.1 + elements);
    }
    Ok(totals)
}

/// The sends of one lane, sorted by sender and receiver, each pair's in order.
struct Channels {
    ranks: usize,
    /// Per pair: where its next message stands in `sends`; before that was filled, how many there are.
    next: Vec<u32>,
    /// Step and entry of the send; once it is met, of its receive.
    sends: Vec<(u32, u32)>,
}

impl Channels {
    fn new(ranks: u32) -> Self {
        let ranks = ranks as usize;
        Channels { ranks, next: vec![0; ranks * ranks + 1], sends: Vec::new() }
    }

    fn match_lane(&mut self, flat: &mut Flat, lane: usize) -> Result<(u64, u64), Violation> {
        self.sort_sends(flat, lane);
        let ends = self.next.clone();
        self.rewind();
        let mut elements = 0;
        for rank in 0..flat.ranks {
            let Some(steps) = lane_steps(flat, rank, lane) else { continue };
            for step in steps {
                let entries = if flat.steps[step as usize].sends { 0..0 } else { flat.entries_of(step) };
                for entry in entries {
                    if flat.entries[entry].peer != rank {
                        elements += self.meet(flat, &ends, step, entry, rank)?;
                    }
                }
            }
        }
        self.check_all_met(flat, &ends)?;
        Ok((self.sends.len() as u64, elements))
    }

    /// Counting sort: afterwards `next` holds where each pair's messages end.
    fn sort_sends(&mut self, flat: &Flat, lane: usize) {
        self.next.fill(0);
        let each = |visit: &mut dyn FnMut(usize, u32, u32)| {
            for rank in 0..flat.ranks {
                let Some(steps) = lane_steps(flat, rank, lane) else { continue };
                for step in steps.filter(|&step| flat.steps[step as usize].sends) {
                    for entry in flat.entries_of(step) {
                        let pair = rank as usize * self.ranks + flat.entries[entry].peer as usize;
                        visit(pair, step, entry as u32);
                    }
                }
            }
        };
        let next = &mut self.next;
        each(&mut |pair, _, _| next[pair + 1] += 1);
        for pair in 1..next.len() {
            next[pair] += next[pair - 1];
        }
        let total = next.last().copied().unwrap_or(0);
        let sends = &mut self.sends;
        sends.clear();
        sends.resize(total as usize, (0, 0));
        each(&mut |pair, step, entry| {
            sends[next[pair] as usize] = (step, entry);
            next[pair] += 1;
        });
    }

    /// From ends to beginnings: a pair's messages begin where the pair's before it end.
    fn rewind(&mut self) {
        let last = self.next.len() - 1;
        self.next.copy_within(0..last, 1);
        self.next[0] = 0;
    }

    fn meet(
        &mut self,
        flat: &mut Flat,
        ends: &[u32],
        step: u32,
        entry: usize,
        rank: u32,
    ) -> Result<u64, Violation> {
        let peer = flat.entries[entry].peer;
        let pair = peer as usize * self.ranks + rank as usize;
        let at = self.next[pair];
        if at == ends[pair] {
            let ordinal = at - pair.checked_sub(1).map_or(0, |before| ends[before]);
            return Err(Violation::Unmatched { step: flat.describe(step), peer, sends: false, ordinal });
        }
        self.next[pair] += 1;
        let (send, send_entry) = self.sends[at as usize];
        let (sent, expected) = (flat.steps[send as usize].len, flat.steps[step as usize].len);
        if sent != expected {
            let (send, receive) = (flat.describe(send), flat.describe(step));
            return Err(Violation::Lengths { send, receive, sent, expected });
        }
        debug_assert!(flat.entries[entry].partner == OWN && flat.entries[send_entry as usize].partner == OWN);
        flat.entries[entry].partner = send;
        flat.entries[send_entry as usize].partner = step;
        self.sends[at as usize] = (step, entry as u32);
        let first = pair.checked_sub(1).map_or(0, |before| ends[before]);
        // A step that names a peer twice does not wait for itself.
        if at > first && self.sends[at as usize - 1].0 != step {
            let (_, before) = self.sends[at as usize - 1];
            flat.entries[before as usize].next = step;
        }
        Ok(sent)
    }

    fn check_all_met(&self, flat: &Flat, ends: &[u32]) -> Result<(), Violation> {
        let pairs = self.ranks * self.ranks;
        let Some(pair) = (0..pairs).find(|&pair| self.next[pair] != ends[pair]) else { return Ok(()) };
        let (step, entry) = self.sends[self.next[pair] as usize];
        let ordinal = self.next[pair] - pair.checked_sub(1).map_or(0, |before| ends[before]);
        let peer = flat.entries[entry as usize].peer;
        Err(Violation::Unmatched { step: flat.describe(step), peer, sends: true, ordinal })
    }
}

fn lane_steps(flat: &Flat, rank: u32, lane: usize) -> Option<std::ops::Range<u32>> {
    if flat.specs[0].kind == Kind::Group {
        let steps = flat.steps_of(rank);
        return Some(steps.start as u32..steps.end as u32);
    }
    flat.lanes[flat.lanes_of(rank)].get(lane).map(|lane| lane.steps.clone())
}
