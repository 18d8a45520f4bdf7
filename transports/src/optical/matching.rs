//! Who meets whom: for each sending seat, receiving seat and lane, the k-th message meets the k-th receive.

use super::events::FixedMap;
use super::seats::SeatId;
use super::slab::{NONE, Slab};
use ubccl_core::endpoint::TAGGED_LANE;
use ubccl_core::prefetch::prefetch_at;

/// The lines of all pairs of seats and lanes.
#[derive(Debug)]
pub(super) struct Matching {
    lines: Vec<Line>,
    line_of: FixedMap<u32>,
    /// Lines into each seat, in the order of their first use.
    into_seat: Vec<Vec<u32>>,
    entries: Slab<Entry>,
}

/// What waits on one line: messages nobody has asked for yet, or receives whose message is not there yet. Never both.
#[derive(Clone, Copy, Debug)]
struct Line {
    from: SeatId,
    to: SeatId,
    lane: u8,
    side: Side,
    first: u32,
    last: u32,
    /// How many wait.
    count: u32,
    /// Messages that have begun or reached the receiver's port and are not there yet, where switches fold.
    moving: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Messages,
    Receives,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    waiting: Waiting,
    next: u32,
}

/// A message or a receive on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// A message that has arrived.
    Message(u32),
    /// A receive's source of this position.
    Receive {
        /// Which receive.
        receive: u32,
        /// Position in its list of sources.
        source: u32,
    },
}

impl Matching {
    pub(super) fn new() -> Self {
        Matching {
            lines: Vec::new(),
            line_of: FixedMap::default(),
            into_seat: Vec::new(),
            entries: Slab::new(),
        }
    }

    /// Bytes of memory it has taken.
    pub(super) fn bytes(&self) -> usize {
        let into: usize = self.into_seat.iter().map(|lines| lines.capacity() * size_of::<u32>()).sum();
        let lines = self.lines.capacity() * size_of::<Line>();
        // A map keeps key, value and a byte for each place.
        let map = self.line_of.capacity() * (size_of::<(u64, u32)>() + 1);
        into + lines + map + self.entries.bytes()
    }

    /// The line from one seat to another.
    #[inline]
    pub(super) fn line(&mut self, from: SeatId, to: SeatId, lane: u8) -> u32 {
        let Self { lines, line_of, into_seat, .. } = self;
        *line_of.entry(name(from, to, lane)).or_insert_with(|| {
            let id = lines.len() as u32;
            lines.push(Line {
                from,
                to,
                lane,
                side: Side::Messages,
                first: NONE,
                last: NONE,
                count: 0,
                moving: 0,
            });
            if into_seat.len() <= to as usize {
                into_seat.resize(to as usize + 1, Vec::new());
            }
            into_seat[to as usize].push(id);
            id
        })
    }

    /// The receive that a message just arrived on this line meets; if there is none, the message waits.
    #[inline]
    pub(super) fn arrive(&mut self, line: u32, message: u32) -> Option<(u32, u32)> {
        match self.meet(line, Side::Messages, Waiting::Message(message))? {
            Waiting::Receive { receive, source } => Some((receive, source)),
            Waiting::Message(_) => unreachable!("a line holds one side only"),
        }
    }

    /// The message that a receive just posted on this line meets; if there is none, the receive waits.
    #[inline]
    pub(super) fn receive(&mut self, line: u32, receive: u32, source: u32) -> Option<u32> {
        match self.meet(line, Side::Receives, Waiting::Receive { receive, source })? {
            Waiting::Message(message) => Some(message),
            Waiting::Receive { .. } => unreachable!("a line holds one side only"),
        }
    }

    /// Takes the first of the other side, or leaves `who` waiting.
    #[inline]
    fn meet(&mut self, line: u32, side: Side, who: Waiting) -> Option<Waiting> {
        let line = &mut self.lines[line as usize];
        if line.first != NONE && line.side != side {
            let entry = self.entries[line.first];
            self.entries.remove(line.first);
            line.first = entry.next;
            line.count -= 1;
            return Some(entry.waiting);
        }
        let id = self.entries.insert(Entry { waiting: who, next: NONE });
        if line.first == NONE {
            *line = Line { side, first: id, ..*line };
        } else {
            self.entries[line.last].next = id;
        }
        line.last = id;
        line.count += 1;
        None
    }

    /// Has a line fetched that will be wanted soon.
    #[inline]
    pub(super) fn foresee(&self, line: u32) {
        prefetch_at(&self.lines, line as usize);
    }

    /// Has what waits first on a line fetched.
    #[inline]
    pub(super) fn foresee_first(&self, line: u32) {
        self.entries.foresee(self.lines[line as usize].first);
    }

    /// The receive that waits first on a line, if one does.
    #[inline]
    pub(super) fn first_receive(&self, line: u32) -> Option<u32> {
        let line = &self.lines[line as usize];
        match (line.first != NONE).then(|| self.entries[line.first].waiting)? {
            Waiting::Receive { receive, .. } => Some(receive),
            Waiting::Message(_) => None,
        }
    }

    /// Notes that a message moves, and finds the receive that it will meet, if that is posted.
    pub(super) fn begin_to_move(&mut self, line: u32) -> Option<u32> {
        let line = &mut self.lines[line as usize];
        let ahead = line.moving;
        line.moving += 1;
        if line.side != Side::Receives || line.first == NONE {
            return None;
        }
        let mut at = line.first;
        for _ in 0..ahead {
            at = self.entries[at].next;
            if at == NONE {
                return None;
            }
        }
        match self.entries[at].waiting {
            Waiting::Receive { receive, .. } => Some(receive),
            Waiting::Message(_) => None,
        }
    }

    /// Notes that a message that moved is there.
    pub(super) fn end_moving(&mut self, line: u32) {
        self.lines[line as usize].moving -= 1;
    }

    /// Whether the message of the receive that waits last on a line has not begun to move.
    pub(super) fn is_last_unmoved(&self, line: u32) -> bool {
        let line = &self.lines[line as usize];
        line.count > line.moving
    }

    /// Whether the message of the receive that waits last on a line is the last that has begun to move.
    pub(super) fn is_last_moved(&self, line: u32) -> bool {
        let line = &self.lines[line as usize];
        line.side == Side::Receives && line.count == line.moving
    }

    /// Forgets every receive of a seat.
    pub(super) fn forget_receives(&mut self, seat: SeatId) {
        for &line in self.into_seat.get(seat as usize).into_iter().flatten() {
            let line = &mut self.lines[line as usize];
            if line.side == Side::Receives {
                while line.first != NONE {
                    self.entries.remove(line.first);
                    line.first = self.entries[line.first].next;
                }
                line.count = 0;
            }
        }
    }

    /// Who receives on a line, if it is one of tagged messages.
    #[inline]
    pub(super) fn tagged_receiver(&self, line: u32) -> Option<SeatId> {
        let line = &self.lines[line as usize];
        (line.lane == TAGGED_LANE).then_some(line.to)
    }

    /// The first message that waits on a line.
    pub(super) fn next_message(&self, from: SeatId, to: SeatId, lane: u8) -> Option<u32> {
        let line = self.lines[*self.line_of.get(&name(from, to, lane))? as usize];
        match (line.first != NONE).then(|| self.entries[line.first].waiting)? {
            Waiting::Message(message) => Some(message),
            Waiting::Receive { .. } => None,
        }
    }

    /// Sender and number of every message that waits for a seat: lines in the order of their first use.
    pub(super) fn messages_for(&self, seat: SeatId) -> impl Iterator<Item = (SeatId, u32)> + '_ {
        let lines = self.into_seat.get(seat as usize).into_iter().flatten();
        let lines = lines.map(|&line| self.lines[line as usize]);
        lines.filter(|line| line.side == Side::Messages).flat_map(move |line| {
            let mut at = line.first;
            std::iter::from_fn(move || {
                let entry = (at != NONE).then(|| self.entries[at])?;
                at = entry.next;
                match entry.waiting {
                    Waiting::Message(message) => Some((line.from, message)),
                    Waiting::Receive { .. } => None,
                }
            })
        })
    }
}

/// Names a line. Seats are below 2^24, see `Seats::add`.
#[inline]
fn name(from: SeatId, to: SeatId, lane: u8) -> u64 {
    u64::from(from) << 32 | u64::from(to) << 8 | u64::from(lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kth_message_meets_the_kth_receive_whoever_comes_first() {
        let mut matching = Matching::new();
        let line = matching.line(0, 1, 0);
        assert_eq!(matching.arrive(line, 10), None);
        assert_eq!(matching.arrive(line, 11), None);
        assert_eq!(matching.messages_for(1).collect::<Vec<_>>(), [(0, 10), (0, 11)]);
        assert_eq!(matching.receive(line, 7, 0), Some(10));
        assert_eq!(matching.receive(line, 8, 0), Some(11));
        assert_eq!(matching.receive(line, 9, 3), None);
        assert_eq!(matching.receive(line, 9, 4), None);
        assert_eq!(matching.arrive(line, 12), Some((9, 3)));
        assert_eq!(matching.arrive(line, 13), Some((9, 4)));
        assert_eq!(matching.entries.len(), 0);
    }

    #[test]
    fn lines_of_other_pairs_and_lanes_are_apart() {
        let mut matching = Matching::new();
        let lines =
            [(0, 1, 0), (0, 1, 1), (2, 1, 0), (1, 0, 0)].map(|(a, b, lane)| matching.line(a, b, lane));
        assert_eq!(lines, [0, 1, 2, 3]);
        assert_eq!(matching.line(2, 1, 0), 2);
        assert_eq!(matching.arrive(lines[2], 5), None);
        for line in [lines[0], lines[1], lines[3]] {
            assert_eq!(matching.receive(line, 0, 0), None);
        }
        matching.forget_receives(1);
        assert_eq!(matching.entries.len(), 2, "the message of line 2 and the receive of rank 0 stay");
        assert_eq!(matching.messages_for(1).collect::<Vec<_>>(), [(2, 5)]);
    }
}
