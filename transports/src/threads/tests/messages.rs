//! Small messages in their entries, large ones in their sender's memory, and both at once.

use super::*;
use crate::threads::channel::{INLINE_BYTES, INLINE_ENTRIES};
use ubccl_core::plan::MAX_WINDOW_PER_PEER;

#[test]
fn a_small_message_is_copied_and_its_source_is_free() {
    let mut rig = Rig::new(2);
    let message = pattern(1, INLINE_BYTES as usize);
    let (from, into) = (rig.area(0, &message), rig.area(1, &vec![0; message.len()]));
    assert_eq!(rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap(), Posted::Done);
    rig.areas[0][0].fill(0xEE);
    assert_eq!(rig.post(1, 2, &key(1, 0), receive(into, 0)).unwrap(), Posted::Done);
    assert_eq!(rig.bytes(1, into), message);
}

#[test]
fn a_larger_message_is_read_where_it_is() {
    let mut rig = Rig::new(2);
    let message = pattern(2, INLINE_BYTES as usize + 1);
    let (from, into) = (rig.area(0, &message), rig.area(1, &vec![0; message.len()]));
    assert_eq!(rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap(), Posted::Pending);
    assert!(!rig.poll(0).unwrap(), "nobody has read it");
    assert_eq!(rig.post(1, 2, &key(1, 0), receive(into, 0)).unwrap(), Posted::Done);
    assert!(rig.poll(0).unwrap());
    assert_eq!((rig.finished(0), rig.finished(1)), (vec![1], vec![2]));
    assert_eq!(rig.bytes(1, into), message);
}

/// So that no poll takes long.
#[test]
fn a_poll_moves_one_bite_of_a_large_message() {
    let mut rig = Rig::new(2);
    let message = pattern(3, 2 * crate::host::HostMemory::BITE + 1);
    let (from, into) = (rig.area(0, &message), rig.area(1, &vec![0; message.len()]));
    rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
    rig.post(1, 2, &key(1, 0), receive(into, 0)).unwrap();
    for is_finished in [false, true] {
        assert!(rig.finished(1).is_empty());
        assert!(rig.poll(1).unwrap());
        assert_eq!(!rig.finished(1).is_empty(), is_finished);
    }
    assert_eq!(rig.bytes(1, into), message);
}

/// A window of small messages is copied and done with; a second window of them is announced, and fits too.
#[test]
fn small_messages_beyond_a_window_are_announced_and_nothing_is_refused() {
    let mut rig = Rig::new(2);
    let window = MAX_WINDOW_PER_PEER as usize;
    let message = pattern(4, 2 * window);
    let (from, into) = (rig.area(0, &message), rig.area(1, &vec![0; message.len()]));
    let one = |of: Span, at: usize| Span { offset: at as u64, len: 1, ..of };
    for at in 0..2 * window {
        let posted = rig.post(0, at as u64, &tagged(7), send(one(from, at), 1)).unwrap();
        let is_copied = (at as u64) < INLINE_ENTRIES;
        assert_eq!(posted, if is_copied { Posted::Done } else { Posted::Pending }, "message {at}");
    }
    for at in 0..2 * window {
        rig.post(1, at as u64, &tagged(7), receive(one(into, at), 0)).unwrap();
    }
    rig.settle().unwrap();
    assert_eq!(rig.finished(0), (0..2 * window as u64).collect::<Vec<_>>());
    assert_eq!(rig.bytes(1, into), message);
    assert_eq!(rig.endpoint(0).counters().messages_sent, 2 * window as u64);
}

/// One source's message was copied, the other's was not, since it had a window unread.
#[test]
fn a_reduction_combines_copied_and_announced_messages() {
    let mut rig = Rig::new(3);
    let own = rig.area(2, &[1, 2, 3]);
    let scrap = rig.area(2, &[0; 3]);
    let sources: Vec<Span> = (0..2).map(|rank| rig.area(rank, &[10 * (rank as u8 + 1); 3])).collect();
    for token in 0..INLINE_ENTRIES {
        rig.post(0, token, &key(1, 0), send(sources[0], 2)).unwrap();
    }
    for (rank, &source) in sources.iter().enumerate() {
        let posted = rig.post(rank, 1000, &key(2, 0), send(source, 2)).unwrap();
        assert_eq!(posted, if rank == 0 { Posted::Pending } else { Posted::Done });
    }
    for token in 0..INLINE_ENTRIES {
        rig.post(2, token, &key(1, 0), receive(scrap, 0)).unwrap();
    }
    let all = PeerRun::circle(0, 3, 3);
    assert_eq!(rig.post(2, 1001, &key(2, 0), sum(all, own, own)).unwrap(), Posted::Done);
    assert_eq!(rig.bytes(2, own), [31, 32, 33]);
    rig.settle().unwrap();
    assert!(rig.finished(0).contains(&1000));
}

/// A list of peers: one of them has a window unread and gets the message announced, the other gets it copied.
#[test]
fn a_send_is_done_when_the_last_of_its_peers_has_it() {
    for slow in [1, 2] {
        let mut rig = Rig::new(3);
        let from = rig.area(0, &[5; 4]);
        let into: Vec<Span> = (1..3).map(|rank| rig.area(rank, &[0; 4])).collect();
        for token in 0..INLINE_ENTRIES {
            rig.post(0, token, &key(1, 1), send(from, slow as Rank)).unwrap();
        }
        let both = Post::Send { from, to: PeerRun::circle(1, 2, 3) };
        assert_eq!(rig.post(0, 1000, &key(2, 1), both).unwrap(), Posted::Pending);
        let other = 3 - slow;
        rig.post(other, 0, &key(2, 1), receive(into[other - 1], 0)).unwrap();
        rig.settle().unwrap();
        assert!(!rig.finished(0).contains(&1000), "rank {slow} has not read it");
        for token in 0..INLINE_ENTRIES {
            rig.post(slow, token, &key(1, 1), receive(into[slow - 1], 0)).unwrap();
        }
        rig.post(slow, 1000, &key(2, 1), receive(into[slow - 1], 0)).unwrap();
        rig.settle().unwrap();
        assert!(rig.finished(0).contains(&1000));
        assert_eq!(rig.endpoint(0).counters().messages_sent, INLINE_ENTRIES + 2);
    }
}

#[test]
fn more_than_a_window_is_a_defect_and_told() {
    let mut rig = Rig::new(2);
    let from = rig.area(0, &[1; 200]);
    for token in 0..u64::from(2 * MAX_WINDOW_PER_PEER) {
        rig.post(0, token, &key(1, 0), send(from, 1)).unwrap();
    }
    let Err(Fault::Other(error)) = rig.post(0, 999, &key(1, 0), send(from, 1)) else {
        panic!("it is refused")
    };
    assert!(error.to_string().contains("rank 1"), "{error}");
}
