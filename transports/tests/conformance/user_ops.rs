//! Point 6, for operations of users: their function folds in list order, sees whole elements, and may panic.

use crate::cases::Case;
use crate::support::memory::pattern;
use crate::support::rank::TestRank;
use crate::support::work::{key, list, send};
use std::rc::Rc;
use ubccl_core::endpoint::{Fault, Post};
use ubccl_core::{DataType, ErrorKind, ReduceOp, UserOp};

pub const CASES: &[Case] = &[
    Case::new("c6_a_users_function_folds_in_list_order", &[3, 5], |r| Box::pin(folds(r))),
    Case::new("c6_a_panic_in_a_users_function_is_a_fault_that_names_it", &[2], |r| Box::pin(panics(r)))
        .variants(2),
];

/// 10 a + b of 16-bit numbers, wrapping.
fn append(_: usize, accumulator: &mut [u8], next: &[u8], dtype: DataType) {
    assert!(dtype.size() == 2 && accumulator.len() == next.len());
    for (a, b) in accumulator.chunks_exact_mut(2).zip(next.chunks_exact(2)) {
        let [a_value, b] = [[a[0], a[1]], [b[0], b[1]]].map(u16::from_le_bytes);
        a.copy_from_slice(&a_value.wrapping_mul(10).wrapping_add(b).to_le_bytes());
    }
}

static APPEND: UserOp = UserOp::new("append", false, append, 0);

async fn folds(rank: Rc<TestRank>) {
    let n = rank.ranks;
    for (number, count) in (0..).zip([0_usize, 1, 33, 1024, 1025, 3001, 300_001]) {
        let brings = |r: u32| pattern(u64::from(r) + 100 * number, 2 * count);
        let own = rank.area_of(&brings(rank.me));
        if rank.me != 0 {
            let token = rank.post(&key(1, 0), &send(own.all(), 0));
            rank.wait(&[token]).await;
            continue;
        }
        // Own is first, in the middle and last.
        let order: Vec<u32> = (0..n).map(|k| (k + number as u32) % n).collect();
        let into = if number % 2 == 0 { own.clone() } else { rank.area(own.len()) };
        let (dtype, op) = (DataType::U16, ReduceOp::User(&APPEND));
        let post = Post::ReceiveReduce { sources: list(&order), own: own.all(), into: into.all(), dtype, op };
        let token = rank.post(&key(1, 0), &post);
        rank.wait(&[token]).await;
        let data: Vec<_> = order.iter().map(|&r| brings(r)).collect();
        let element = |at: usize| {
            let values = data.iter().map(|bytes| u64::from(bytes[at]) + 256 * u64::from(bytes[at + 1]));
            let digits = values.reduce(|a, b| 10 * a + b).unwrap();
            [digits as u8, (digits >> 8) as u8]
        };
        let expected: Vec<u8> = (0..count).flat_map(|k| element(2 * k)).collect();
        into.assert_holds(0, &expected, &format!("{count} elements in the order {order:?}"));
    }
}

fn fail(_: usize, _: &mut [u8], _: &[u8], _: DataType) {
    panic!("on purpose");
}

static FAIL: UserOp = UserOp::new("failing", true, fail, 0);

/// Small and large; afterwards the endpoint can be cancelled like any other.
async fn panics(rank: Rc<TestRank>) {
    let len = [16, (1 << 20) + 8][rank.variant];
    rank.expect_faults();
    let area = rank.area_of(&pattern(rank.me.into(), len));
    if rank.me == 1 {
        rank.try_post(&key(1, 0), &send(area.all(), 0));
        return;
    }
    let (own, into) = (area.all(), area.all());
    let (dtype, op) = (DataType::U8, ReduceOp::User(&FAIL));
    let token =
        rank.try_post(&key(1, 0), &Post::ReceiveReduce { sources: list(&[0, 1]), own, into, dtype, op });
    let Fault::Other(error) = rank.fault_instead_of(&[token]).await else { panic!("another fault") };
    assert_eq!(error.kind(), ErrorKind::Remote);
    assert!(error.message().contains("'failing' panicked (on purpose)"), "{error}");
    rank.with(|endpoint| endpoint.cancel());
    rank.settle().await;
}
