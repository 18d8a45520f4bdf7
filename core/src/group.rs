//! The messages of a group in an order that ends, whatever the windows of the plan that takes them.
//!
//! **The order.** The k-th message of an ordered pair is matched with the k-th that the other side lists. All messages of
//! all ranks have one order: by k, then by distance from sender to receiver (modulo the number of ranks), then by sender.
//! Each rank sends its messages, and receives its messages, in that order. So the first message of all that is not
//! through has everything before it, on both its sides, through: both sides have posted it, with windows of any size.

use crate::blocks::Message;
use crate::collective::Rank;
use crate::plan::Side;

/// What one rank sends, or what it receives, in a group. Kept and filled again: allocates only for more messages than
/// ever before.
#[derive(Clone, Debug, Default)]
pub struct GroupSide {
    /// With the ordinal in its pair and the distance from sender to receiver.
    keyed: Vec<(u32, u32, Message)>,
    ordinals: Vec<u32>,
    sorted: Vec<Message>,
}

impl GroupSide {
    /// Forgets all messages.
    pub fn clear(&mut self) {
        self.keyed.clear();
    }

    /// Lists a message after those listed before.
    pub fn push(&mut self, message: Message) {
        self.keyed.push((0, 0, message));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keyed.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keyed.is_empty()
    }

    /// The messages in the order in which `rank` takes them; their peers are ranks.
    pub fn sort(&mut self, side: Side, rank: Rank, ranks: u32) -> &[Message] {
        self.ordinals.clear();
        self.ordinals.resize(ranks as usize, 0);
        for (ordinal, distance, message) in &mut self.keyed {
            let (from, to) = match side {
                Side::Send => (rank, message.peer),
                Side::Receive => (message.peer, rank),
            };
            let count = &mut self.ordinals[message.peer as usize];
            (*ordinal, *distance) = (*count, (to + ranks - from) % ranks);
            *count += 1;
        }
        // On one rank, ordinal and distance name a message: the same distance is the same peer.
        self.keyed.sort_unstable_by_key(|&(ordinal, distance, _)| (ordinal, distance));
        self.sorted.clear();
        self.sorted.extend(self.keyed.iter().map(|keyed| keyed.2));
        &self.sorted
    }

    /// The messages as they were sorted last.
    pub fn sorted(&self) -> &[Message] {
        &self.sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::Signature;

    #[test]
    fn messages_of_a_pair_keep_their_order_and_pairs_take_turns() {
        let mut side = GroupSide::default();
        for round in 0..2 {
            side.clear();
            for (number, peer) in [3, 3, 0, 2, 3, 0].into_iter().enumerate() {
                side.push(Message { peer, start: number as u64, len: round, signature: Signature(0) });
            }
            let order = |side: &[Message]| side.iter().map(|m| (m.peer, m.start)).collect::<Vec<_>>();
            let sent = order(side.sort(Side::Send, 1, 4));
            assert_eq!(sent, [(2, 3), (3, 0), (0, 2), (3, 1), (0, 5), (3, 4)]);
            let received = order(side.sort(Side::Receive, 1, 4));
            assert_eq!(received[..3], [(0, 2), (3, 0), (2, 3)]);
        }
    }
}
