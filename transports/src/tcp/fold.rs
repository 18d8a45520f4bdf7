//! Reductions under way: as soon as every source has bytes, those are folded in list order, and their places are free.
#![allow(unsafe_code)] // the kernels take addresses

use super::endpoint::TcpEndpoint;
use super::inbound::Source;
use super::posts::Fold;
use crate::host::HostMemory;
use ubccl_core::Result;
use ubccl_core::endpoint::Span;

impl TcpEndpoint {
    /// Folds what can be folded of one post. A turn folds at most one bite of a post that needs nobody else, so that
    /// the links are looked at in between; says whether there is more of that kind.
    pub(super) fn fold(&mut self, post: u32) -> Result<bool> {
        loop {
            let fold = *self.posts.fold(post);
            if fold.lacking > 0 {
                return Ok(false);
            }
            let bytes = self.fold_bite(post, &fold)?;
            let is_complete = fold.folded + bytes == fold.into.len;
            if is_complete {
                for peer in fold.sources.iter().filter(|&peer| peer != self.rank) {
                    self.counters[peer as usize].received(fold.into.len);
                }
                self.posts.complete(post);
                return Ok(false);
            }
            if self.is_local(&fold) {
                return Ok(true);
            }
        }
    }

    /// Folds as much as every source has in one piece.
    fn fold_bite(&mut self, post: u32, fold: &Fold) -> Result<u64> {
        let Fold { sources, lane, own, into, how, folded, .. } = *fold;
        let mut bytes = (into.len - folded).min(HostMemory::BITE as u64);
        self.sources.clear();
        for (number, peer) in (0..).zip(sources.iter()) {
            if peer == self.rank {
                self.sources.push_place(own.from(folded));
            } else {
                let piece = self.links.connection(peer)?.inbound(lane).foldable(Source { post, number });
                bytes = bytes.min(piece.len() as u64);
                self.sources.push(piece);
            }
        }
        if bytes > 0 {
            let into = Span { offset: into.offset + folded, len: bytes, ..into };
            // SAFETY: every source was pushed above with at least `bytes` bytes. Those of other ranks are in rings, which
            // neither move nor change before `take`.
            unsafe { self.sources.reduce(&self.memory, how, into) }?;
        }
        self.take(post, fold, bytes)?;
        Ok(bytes)
    }

    /// Gives the places of folded bytes back to their senders.
    fn take(&mut self, post: u32, fold: &Fold, bytes: u64) -> Result<()> {
        let mut lacking = 0;
        for (number, peer) in (0..).zip(fold.sources.iter()).filter(|&(_, peer)| peer != self.rank) {
            let connection = self.links.connection(peer)?;
            let has_more = connection.inbound(fold.lane).take(Source { post, number }, bytes);
            connection.schedule_grant(fold.lane);
            let is_due = connection.wants_to_write();
            lacking += u32::from(!has_more);
            if is_due {
                self.links.queue_writer(peer);
            }
        }
        let fold = self.posts.fold(post);
        fold.folded += bytes;
        fold.lacking = lacking;
        Ok(())
    }

    /// Whether it needs no other rank.
    pub(super) fn is_local(&self, fold: &Fold) -> bool {
        fold.sources.iter().all(|peer| peer == self.rank)
    }
}
