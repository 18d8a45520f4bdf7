//! Point 7: after `cancel` nothing of this rank's memory is touched, and posts are forgotten.

use crate::cases::Case;
use crate::support::memory::pattern;
use crate::support::rank::TestRank;
use crate::support::work::{key, list, receive, send};
use std::rc::Rc;
use ubccl_core::endpoint::Post;
use ubccl_core::{DataType, ReduceOp};

pub const CASES: &[Case] = &[
    Case::new("c7_after_cancel_a_receive_writes_nothing", &[2], |r| Box::pin(receives(r))).variants(6),
    Case::new("c7_after_cancel_a_reduction_writes_nothing", &[3], |r| Box::pin(reductions(r))).variants(2),
    Case::new("c7_after_cancel_a_send_is_forgotten", &[2], |r| Box::pin(sends(r))).variants(2),
];

const LENGTHS: [usize; 3] = [16, 60_000, 8 << 20];

/// Rank 1 cancels a receive: before its message is sent, or (odd variants) while it may be under way.
async fn receives(rank: Rc<TestRank>) {
    rank.expect_faults();
    let len = LENGTHS[rank.variant / 2];
    let under_way = rank.variant % 2 == 1;
    if rank.me == 0 {
        let area = rank.area_of(&pattern(1, len));
        if !under_way {
            rank.meet().await;
        }
        rank.try_post(&key(1, 0), &send(area.all(), 1));
        if under_way {
            rank.meet().await;
        }
        rank.settle().await;
        rank.meet().await;
        return;
    }
    let area = rank.area(len);
    let token = rank.try_post(&key(1, 0), &receive(area.all(), 0));
    if under_way {
        rank.meet().await;
    }
    let was_done = rank.is_done(token);
    rank.with(|endpoint| endpoint.cancel());
    let marked = pattern(2, len);
    area.write(0, &marked);
    if !under_way {
        rank.meet().await;
    }
    rank.settle().await;
    rank.meet().await;
    area.assert_holds(0, &marked, "memory after cancel");
    assert_eq!(rank.is_done(token), was_done, "a forgotten post completed");
}

/// Rank 2 cancels a reduction that has one of its two messages.
async fn reductions(rank: Rc<TestRank>) {
    rank.expect_faults();
    let len = [16, 2 << 20][rank.variant];
    let area = rank.area_of(&pattern(rank.me.into(), len));
    match rank.me {
        0 => {
            rank.try_post(&key(1, 0), &send(area.all(), 2));
            rank.meet().await;
        }
        1 => {
            rank.meet().await;
            rank.try_post(&key(1, 0), &send(area.all(), 2));
        }
        _ => {
            let post = Post::ReceiveReduce {
                sources: list(&[0, 1, 2]),
                own: area.all(),
                into: area.all(),
                dtype: DataType::U8,
                op: ReduceOp::Sum,
            };
            let token = rank.try_post(&key(1, 0), &post);
            rank.settle().await;
            rank.with(|endpoint| endpoint.cancel());
            let marked = pattern(9, len);
            area.write(0, &marked);
            rank.meet().await;
            rank.settle().await;
            area.assert_holds(0, &marked, "memory after cancel");
            assert!(!rank.is_done(token), "a forgotten reduction completed");
        }
    }
}

/// Rank 0 cancels sends that nobody has received: what was under way does not complete any more, and what the other
/// side may still get is what was sent, never what the memory holds afterwards.
async fn sends(rank: Rc<TestRank>) {
    rank.expect_faults();
    let len = [16, 8 << 20][rank.variant];
    let area = rank.area_of(&pattern(1, len));
    if rank.me == 1 {
        rank.meet().await;
        let into = rank.area(len);
        let token = rank.try_post(&key(1, 0), &receive(into.all(), 0));
        rank.settle().await;
        if rank.is_done(token) {
            into.assert_holds(0, &pattern(1, len), "what was received of a cancelled send");
        }
        return;
    }
    let token = rank.try_post(&key(1, 0), &send(area.all(), 1));
    let was_done = rank.is_done(token);
    rank.with(|endpoint| endpoint.cancel());
    area.write(0, &vec![0x99; len]);
    rank.meet().await;
    rank.settle().await;
    assert_eq!(rank.is_done(token), was_done, "a forgotten send completed");
    area.assert_holds(0, &vec![0x99; len], "the source of a cancelled send");
}
