//! What switches fold on the way: which messages meet there, and for which receive.

use super::network::{Message, Network};
use super::seats::SeatId;
use super::timing::Agenda;
use ubccl_core::Rank;

impl Network {
    /// If switches fold this message with others for the receive that it will meet: which fold, and of how many. What
    /// they copy they do not fold.
    pub(super) fn fold_on_the_way(&mut self, message: &Message) -> Option<(u64, u32)> {
        let link = &self.fabric.topology().levels()[usize::from(message.link)].link;
        if !link.reduces {
            return None;
        }
        let receive = self.matching.begin_to_move(message.line)?;
        let fold = self.receives[receive].fold()?;
        if !(link.multicast && self.sends[message.send].peers > 1) {
            return Some(fold);
        }
        let left = self.receives[receive].fold_fewer();
        let recorder = self.recorder.as_deref_mut();
        let agenda = &mut Agenda { now_ps: self.now_ps, queue: &mut self.queue, recorder };
        self.timing.fold_fewer(fold.0, left, agenda);
        None
    }

    /// Whether switches fold what comes to a rank from another.
    pub(super) fn folds_on_the_way(&self, from: Rank, to: Rank) -> bool {
        from != to && self.fabric.topology().link(from, to).reduces
    }

    /// Whether the message of the receive just posted on a line passes its ports now, and is none that switches copy.
    pub(super) fn is_passing(&self, line: u32) -> bool {
        let passing = self.timing.passing(line).filter(|_| self.matching.is_last_moved(line));
        passing.is_some_and(|id| {
            let Message { send, link, .. } = self.messages[id];
            let copies = self.fabric.topology().levels()[usize::from(link)].link.multicast;
            !(copies && self.sends[send].peers > 1)
        })
    }

    /// Switches fold the rest of what passes from one seat to another, if they can, with so many messages in all.
    pub(super) fn fold_rest(&mut self, (from, to, lane): (SeatId, SeatId, u8), messages: u32) {
        let line = self.matching.line(from, to, lane);
        if self.is_passing(line) {
            self.timing.fold_rest(line, messages, self.now_ps);
        }
    }
}
