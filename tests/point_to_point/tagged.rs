//! Tagged messages that work.

use crate::real_setups;
use crate::support::ranks::on_threads;
use std::collections::VecDeque;
use std::sync::{Arc, Barrier};

#[test]
fn messages_are_received_by_tag_in_any_order() {
    const MESSAGES: u32 = 60;
    for setup in real_setups(2) {
        on_threads(&setup, |comm| {
            let len = |tag: u32| if tag.is_multiple_of(20) { 100_000 } else { tag as usize };
            if comm.rank() == 0 {
                let send =
                    |tag| comm.send_tagged_async(vec![tag as i32; len(tag)], 1, tag).expect("it is issued");
                let works: Vec<_> = (0..MESSAGES).map(send).collect();
                works.into_iter().for_each(|work| drop(work.wait().expect("it works")));
                return;
            }
            for tag in (0..MESSAGES).rev() {
                let mut buffer = vec![-1_i32; len(tag)];
                let source = comm.receive_tagged(&mut buffer, Some(0), tag).expect("it works");
                assert!(source == 0 && buffer.iter().all(|&x| x == tag as i32), "tag {tag}");
            }
        });
    }
}

#[test]
fn messages_of_one_tag_keep_their_order_and_other_messages_pass_them() {
    for setup in real_setups(2) {
        on_threads(&setup, |comm| {
            let peer = 1 - comm.rank();
            let send =
                |k: i32| comm.send_tagged_async(vec![k; 5], peer, (k % 3) as u32).expect("it is issued");
            let works: Vec<_> = (0..200).map(send).collect();
            // Neither an untagged message nor a collective waits for them.
            let mut token = [0_u8];
            comm.send_receive(&[7], peer, &mut token, peer).expect("it works");
            comm.barrier().expect("it works");
            for tag in [2, 0, 1] {
                for k in (0..200).filter(|k| (k % 3) as u32 == tag) {
                    let mut buffer = [0; 5];
                    comm.receive_tagged(&mut buffer, None, tag).expect("it works");
                    assert_eq!(buffer, [k; 5], "of tag {tag}");
                }
            }
            works.into_iter().for_each(|work| drop(work.wait().expect("it works")));
        });
    }
}

#[test]
fn a_receive_from_any_rank_says_whose_message_it_is_and_no_sender_starves() {
    const EACH: usize = 60;
    const AHEAD: usize = 4;
    for setup in real_setups(4) {
        let meet = Arc::new(Barrier::new(4));
        on_threads(&setup, move |comm| {
            let me = comm.rank();
            if me != 0 {
                let send = |k| comm.send_tagged_async(vec![me as i32, k as i32], 0, 9).expect("it is issued");
                let mut works: VecDeque<_> = (0..EACH).map(send).collect();
                // What is known to be on its way is what the receiver may choose from, whoever runs when.
                works.drain(..AHEAD).for_each(|work| drop(work.wait().expect("it works")));
                meet.wait();
                works.into_iter().for_each(|work| drop(work.wait().expect("it works")));
                return;
            }
            meet.wait();
            let mut seen = [0; 4];
            for number in 0..3 * EACH {
                let mut buffer = [0_i32; 2];
                let source = comm.receive_tagged(&mut buffer, None, 9).expect("it works") as usize;
                assert_eq!(buffer, [source as i32, seen[source] as i32], "in order of each sender");
                seen[source] += 1;
                let was_ahead = number == 3 * AHEAD - 1;
                assert!(!was_ahead || seen[1..].iter().all(|&count| count >= AHEAD / 2), "{seen:?}");
            }
            assert_eq!(seen, [0, EACH, EACH, EACH]);
        });
    }
}

#[test]
fn receives_may_wait_before_their_messages_come_and_take_turns() {
    for setup in real_setups(3) {
        on_threads(&setup, |comm| {
            let me = comm.rank();
            if me == 0 {
                let receive =
                    |source, tag| comm.receive_tagged_async(vec![0_i32; 3], source, tag).expect("issued");
                let named = receive(Some(2), 4);
                let first = receive(None, 4);
                let second = receive(None, 4);
                let other = receive(Some(1), 5);
                comm.barrier().expect("it works");
                assert_eq!(other.wait().expect("it works"), (vec![15; 3], 1));
                // Rank 2's first message goes to the receive that was issued first.
                assert_eq!(named.wait().expect("it works"), (vec![24; 3], 2));
                let mut rest = [first.wait().expect("it works"), second.wait().expect("it works")];
                rest.sort();
                assert_eq!(rest, [(vec![14; 3], 1), (vec![34; 3], 2)]);
            } else {
                comm.barrier().expect("it works");
                let numbers: &[i32] = if me == 1 { &[14] } else { &[24, 34] };
                numbers.iter().for_each(|&k| comm.send_tagged(&[k; 3], 0, 4).expect("it works"));
                if me == 1 {
                    comm.send_tagged(&[15_i32; 3], 0, 5).expect("it works");
                }
            }
        });
    }
}

#[test]
fn a_rank_may_send_to_itself_with_a_tag() {
    for ranks in [1, 2] {
        for setup in real_setups(ranks) {
            on_threads(&setup, |comm| {
                let me = comm.rank();
                for tag in [3, 1, 2] {
                    comm.send_tagged(&vec![tag as u8; 70_000], me, tag).expect("it is kept");
                }
                let waiting = comm.receive_tagged_async(vec![0_u8; 4], None, 77).expect("it is issued");
                for tag in [1, 2, 3] {
                    let mut buffer = vec![0_u8; 70_000];
                    assert_eq!(comm.receive_tagged(&mut buffer, Some(me), tag).expect("it works"), me);
                    assert!(buffer.iter().all(|&x| u32::from(x) == tag));
                }
                comm.send_tagged(&[8_u8; 4], me, 77).expect("a receive waits for it");
                assert_eq!(waiting.wait().expect("it works"), (vec![8; 4], me));
                let error = comm.send_tagged(&vec![0_u8; 65 << 20], me, 1).expect_err("there is no room");
                assert_eq!(error.kind(), ubccl::ErrorKind::InvalidArgument, "{error}");
                comm.send_tagged::<i32>(&[], me, 1).expect("nothing was sent before");
                assert_eq!(comm.receive_tagged::<i32>(&mut [], None, 1).expect("it works"), me);
                comm.barrier().expect("who is left alone waits for nobody");
            });
        }
    }
}

/// The messages of a rank that nobody waits for stay with it: there may be any number of them.
#[test]
fn nobody_keeps_messages_of_a_rank_that_it_does_not_wait_for() {
    const LARGE: usize = 9 << 20;
    for setup in real_setups(3) {
        on_threads(&setup, |comm| match comm.rank() {
            0 => {
                let mut token = [0_u8];
                comm.receive_tagged(&mut token, Some(2), 1)
                    .expect("rank 1's messages do not stand in the way");
                let mut buffer = vec![0_u8; LARGE];
                for k in 0..8 {
                    comm.receive_tagged(&mut buffer, Some(1), 2).expect("it works");
                    assert!(buffer.iter().all(|&x| x == k), "message {k}");
                }
            }
            1 => {
                let send = |k| comm.send_tagged_async(vec![k as u8; LARGE], 0, 2).expect("it is issued");
                let works: Vec<_> = (0..8).map(send).collect();
                comm.send(&[1_u8], 2).expect("it works");
                works.into_iter().for_each(|work| drop(work.wait().expect("it works")));
            }
            _ => {
                let mut token = [0_u8];
                comm.receive(&mut token, 1).expect("it works");
                comm.send_tagged(&token, 0, 1).expect("it works");
            }
        });
    }
}
