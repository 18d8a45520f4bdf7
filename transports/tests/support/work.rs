//! Names for what tests post: calls, keys and posts in few words.

use ubccl_core::endpoint::{Key, POINT_TO_POINT_LANE, Post, Span, Stream, TAGGED_LANE};
use ubccl_core::plan::{At, Index, PeerRun, Peers, Sizes};
use ubccl_core::{Collective, DataType, Rank, ReduceOp, Signature};

/// The call most tests pretend to be in.
pub fn call() -> Signature {
    Collective::all_reduce(1000, DataType::F32, ReduceOp::Sum).signature(7)
}

/// The key of collective `sequence` on `lane`.
pub fn key(sequence: u64, lane: u8) -> Key {
    Key { stream: Stream::Collective(sequence), lane, signature: call(), engine: None }
}

/// The key of a tagged message.
pub fn tagged(tag: u32) -> Key {
    Key { stream: Stream::Tagged(tag), lane: TAGGED_LANE, signature: sent(), engine: None }
}

/// The key of a point-to-point message without a tag.
pub fn direct() -> Key {
    Key { stream: Stream::Direct, lane: POINT_TO_POINT_LANE, signature: sent(), engine: None }
}

fn sent() -> Signature {
    Collective::send_receive(0, DataType::U8, None, None).signature(1)
}

/// A send to one peer.
pub fn send(from: Span, to: Rank) -> Post {
    Post::Send { from, to: PeerRun::one(to) }
}

/// A send to listed peers.
pub fn send_to(from: Span, to: &[Rank]) -> Post {
    Post::Send { from, to: list(to) }
}

/// A receive.
pub fn receive(into: Span, from: Rank) -> Post {
    Post::Receive { into, from }
}

/// An ordered list of peers, as a plan would give it.
pub fn list(ranks: &[Rank]) -> PeerRun {
    Peers::List(ranks.iter().map(|&rank| Index::fixed(rank as i32)).collect())
        .at(&Sizes::default(), At::default())
}
