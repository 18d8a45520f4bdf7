//! What is expected of ranks that are gone.

use super::channel::Content;
use super::endpoint::ThreadsEndpoint;
use ubccl_core::Rank;
use ubccl_core::endpoint::Fault;

impl ThreadsEndpoint {
    /// Whether anything under way needs a rank that is gone. Evidence, not a cause.
    #[cold]
    pub(crate) fn look_for_the_lost(&self) -> Result<(), Fault> {
        let gone =
            (0..self.world.ranks()).filter(|&rank| rank != self.rank && self.world.seat(rank).is_gone());
        for peer in gone {
            let mut channels = 0..self.world.channels();
            if channels.clone().any(|channel| self.waits_for(peer, channel)) {
                return Err(lost(peer, "it is gone, and this rank waits for a message of it"));
            }
            if channels.any(|channel| self.is_unread_by(peer, channel)) {
                return Err(lost(peer, "it is gone without having read a message of this rank"));
            }
        }
        Ok(())
    }

    /// Whether a receive waits for a message that is not there. Asked after the peer was seen to be gone, so it never
    /// will be.
    fn waits_for(&self, peer: usize, channel: usize) -> bool {
        let index = peer * self.world.channels() + channel;
        !self.incoming[index].queue.is_empty() && self.arrived(index).is_none()
    }

    /// Whether a message that was announced on a channel has not been read. Small ones that were copied do not count:
    /// their sends are complete.
    fn is_unread_by(&self, peer: usize, channel: usize) -> bool {
        if self.sends[channel].next(0).is_none() {
            return false;
        }
        let ring = self.world.ring(self.rank, peer, channel);
        let written = self.outgoing[peer * self.world.channels() + channel].next();
        // Acquire: as in `Producer::has_room`; the peer is gone, so this is the last value.
        let consumed = ring.consumed.load(std::sync::atomic::Ordering::Acquire);
        let epoch = self.world.seat(self.rank).epoch();
        let is_announced = |number| match ring.entry(number).map(|entry| entry.content()) {
            Some(Content::Announced(announcement)) => announcement.epoch == epoch,
            _ => false,
        };
        (consumed..written).any(is_announced)
    }
}

fn lost(peer: usize, message: &str) -> Fault {
    Fault::Lost { peer: peer as Rank, message: message.into() }
}
