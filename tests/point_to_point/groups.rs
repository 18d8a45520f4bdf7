//! Groups that work.

use crate::support::memory::Guarded;
use crate::support::ranks::on_threads;
use crate::support::{Random, seed};
use crate::{content, real_setups};
use std::sync::{Arc, Barrier};
use ubccl::{Collective, Communicator, DataType, ReduceOp};

/// One message of a group.
#[derive(Clone, Copy, Debug)]
struct Message {
    from: u32,
    to: u32,
    number: usize,
    len: usize,
}

/// Messages between random pairs (ranks and themselves included), of random lengths, none among them.
fn random_messages(ranks: u32, random: &mut Random) -> Vec<Message> {
    let mut messages = Vec::new();
    for from in 0..ranks {
        for to in 0..ranks {
            let count = match random.below(12) {
                0 => 70 + random.below(40),
                1..4 => 0,
                _ => random.below(4),
            };
            for number in 0..count as usize {
                let len = match random.below(20) {
                    0 if count < 10 => 200_000 + random.below(400_000),
                    1..5 => 0,
                    5..8 => random.below(20_000),
                    _ => random.below(60),
                };
                messages.push(Message { from, to, number, len: len as usize });
            }
        }
    }
    messages
}

/// Merges a rank's sends and receives in random order; those of a pair stay in order.
fn interleaved(messages: &[Message], rank: u32, random: &mut Random) -> Vec<(bool, Message)> {
    let mut pairs: Vec<Vec<(bool, Message)>> = Vec::new();
    for &message in messages {
        for (is_send, is_mine) in [(true, message.from == rank), (false, message.to == rank)] {
            let fits = |pair: &&mut Vec<(bool, Message)>| {
                pair[0].0 == is_send && (pair[0].1.from, pair[0].1.to) == (message.from, message.to)
            };
            match pairs.iter_mut().find(fits) {
                Some(pair) if is_mine => pair.push((is_send, message)),
                None if is_mine => pairs.push(vec![(is_send, message)]),
                _ => {}
            }
        }
    }
    let mut merged = Vec::new();
    while !pairs.is_empty() {
        let pair = random.below(pairs.len() as u64) as usize;
        merged.push(pairs[pair].remove(0));
        pairs.retain(|pair| !pair.is_empty());
    }
    merged
}

/// Runs one group with buffers between guard bytes and checks every one of them.
fn run_group(comm: &Communicator, order: &[(bool, Message)], extra: bool) {
    let mut buffers: Vec<Guarded> = order
        .iter()
        .map(|&(is_send, Message { from, to, number, len })| {
            let bytes = if is_send { content(from, to, number, len) } else { vec![0xee; len] };
            Guarded::new(&bytes, number % 7)
        })
        .collect();
    let (ones, mut sum) = (vec![1_i32; 100], vec![0; 100]);
    let mut group = comm.group();
    for (buffer, (is_send, message)) in buffers.iter_mut().zip(order) {
        match is_send {
            true => group.send(&*buffer.get_mut(), message.to),
            false => group.receive(buffer.get_mut(), message.from),
        }
        .expect("it is a message");
    }
    if extra {
        group.all_reduce(&ones, &mut sum, ReduceOp::Sum).expect("it is a call");
    }
    group.run().unwrap_or_else(|error| panic!("rank {}: {error}", comm.rank()));
    for (buffer, (_, Message { from, to, number, len })) in buffers.iter().zip(order) {
        assert!(buffer.get() == content(*from, *to, *number, *len), "message {number} from {from} to {to}");
        buffer.check(&format!("message {number} from {from} to {to} on rank {}", comm.rank()));
    }
    assert!(!extra || sum.iter().all(|&x| x == comm.ranks() as i32));
}

#[test]
fn random_groups_bring_every_byte_to_its_place_and_none_elsewhere() {
    let seed = seed("groups");
    for ranks in [1, 2, 3, 5] {
        for setup in real_setups(ranks) {
            on_threads(&setup, move |comm| {
                let mut shared = Random(seed ^ u64::from(ranks));
                let mut own = Random(seed ^ u64::from(comm.rank()) << 40);
                for round in 0..12 {
                    let messages = random_messages(ranks, &mut shared);
                    let order = interleaved(&messages, comm.rank(), &mut own);
                    run_group(comm, &order, round % 3 == 0);
                }
            });
        }
    }
}

#[test]
fn a_pair_may_have_hundreds_of_messages_in_a_group() {
    for setup in real_setups(2) {
        on_threads(&setup, |comm| {
            let (me, peer) = (comm.rank(), 1 - comm.rank());
            let len = |number: usize| if number.is_multiple_of(60) { 150_000 } else { number % 50 };
            let message = |from, to, number| Message { from, to, number, len: len(number) };
            let order: Vec<_> = (0..300)
                .map(|number| (true, message(me, peer, number)))
                .chain((0..300).map(|number| (false, message(peer, me, number))))
                .collect();
            run_group(comm, &order, false);
            run_group(comm, &order, true);
        });
    }
}

#[test]
fn all_ranks_may_send_to_one_at_once() {
    for setup in real_setups(5) {
        on_threads(&setup, |comm| {
            let messages: Vec<Message> = (1..5)
                .flat_map(|from| (0..100).map(move |number| Message { from, to: 0, number, len: 3000 }))
                .collect();
            let order = interleaved(&messages, comm.rank(), &mut Random(u64::from(comm.rank())));
            run_group(comm, &order, false);
        });
    }
}

/// The k-th of a pair meets the k-th, whether sent alone, in a group or in another.
#[test]
fn messages_of_a_pair_keep_their_order_across_groups_and_single_calls() {
    for setup in real_setups(2) {
        on_threads(&setup, |comm| {
            let bytes = |number: usize| content(0, 1, number, 1000 + number);
            if comm.rank() == 0 {
                let mut group = comm.group_owned();
                let held: Vec<_> = (0..70).map(|k| group.send(bytes(k), 1).expect("a message")).collect();
                let work = group.issue().expect("it is issued");
                let single = Collective::send_receive(1070, DataType::U8, Some(1), None);
                let single = comm.run_async(&single, bytes(70), Vec::new()).expect("it is issued");
                let parts: Vec<_> = (71..80).map(bytes).collect();
                let mut group = comm.group();
                parts.iter().for_each(|part| group.send(part, 1).expect("a message"));
                group.run().expect("it works");
                single.wait().expect("it works");
                let mut back = work.wait().expect("it works");
                for (k, held) in held.into_iter().enumerate() {
                    assert!(back.take(held).expect("it is ours") == bytes(k));
                }
            } else {
                let mut parts: Vec<Vec<u8>> = (0..80).map(|k| vec![0; 1000 + k]).collect();
                let (first, rest) = parts.split_at_mut(1);
                let (middle, last) = rest.split_at_mut(75);
                comm.receive(&mut first[0], 0).expect("it works");
                let mut group = comm.group();
                middle.iter_mut().for_each(|part| group.receive(part, 0).expect("a message"));
                group.run().expect("it works");
                last.iter_mut().for_each(|part| comm.receive(part, 0).expect("it works"));
                for (k, part) in parts.iter().enumerate() {
                    assert!(*part == bytes(k), "message {k}");
                }
            }
        });
    }
}

#[test]
fn a_group_that_nobody_waits_for_gives_its_buffers_back_later() {
    for setup in real_setups(3) {
        let meet = Arc::new(Barrier::new(3));
        on_threads(&setup, move |comm| {
            let (me, ranks) = (comm.rank(), comm.ranks());
            let mut group = comm.group_owned();
            let mut held = Vec::new();
            for peer in 0..ranks {
                held.push(group.send(vec![(me * 10 + peer) as i32; 40_000], peer).expect("a message"));
                held.push(group.receive(vec![0_i32; 40_000], peer).expect("a message"));
            }
            let call = Collective::all_reduce(5000, DataType::I32, ReduceOp::Sum);
            let sum = group.call_in_place(&call, vec![me as i32; 5000]).expect("a call");
            if me == 0 {
                meet.wait();
            }
            let mut work = group.issue().expect("it is issued");
            if me != 0 {
                assert!(!work.test().expect("nothing is wrong"), "rank 0 has not come");
                meet.wait();
            }
            while !work.wait_timeout(std::time::Duration::from_millis(1)).expect("it works") {}
            let mut back = work.wait().expect("it works");
            assert!(back.take(sum).expect("it is ours").iter().all(|&x| x == 3));
            for (k, held) in held.into_iter().enumerate() {
                let (peer, is_received) = (k as u32 / 2, k % 2 == 1);
                let expected = if is_received { peer * 10 + me } else { me * 10 + peer };
                let buffer = back.take(held).expect("it is ours");
                assert!(buffer.len() == 40_000 && buffer.iter().all(|&x| x == expected as i32), "buffer {k}");
            }
        });
    }
}

#[test]
fn collectives_of_a_group_keep_their_order_and_may_be_any() {
    for setup in real_setups(3) {
        on_threads(&setup, |comm| {
            let (me, ranks) = (comm.rank(), comm.ranks());
            let (mut a, mut b, mut all) =
                (vec![me as f32; 3000], vec![f32::from(me as u8 + 1); 10], vec![0_u8; 6]);
            let gather = Collective::all_gather(2, DataType::U8);
            let shift =
                Collective::send_receive(1, DataType::U8, Some((me + 1) % ranks), Some((me + 2) % ranks));
            let (mine, token, mut passed) = ([me as u8; 2], [me as u8], [9_u8]);
            let mut group = comm.group();
            group.all_reduce_in_place(&mut a, ReduceOp::Sum).expect("a call");
            group.call(&gather, &mine, &mut all).expect("a call");
            group.call(&shift, &token, &mut passed).expect("two messages");
            group.all_reduce_in_place(&mut b, ReduceOp::Max).expect("a call");
            group.run().expect("it works");
            assert!(a.iter().all(|&x| x == 3.0) && b.iter().all(|&x| x == 3.0));
            assert_eq!((all, passed), (vec![0, 0, 1, 1, 2, 2], [((me + 2) % 3) as u8]));
        });
    }
}

#[test]
fn what_cannot_be_in_a_group_leaves_nothing_sent() {
    for setup in real_setups(2) {
        on_threads(&setup, |comm| {
            let (me, peer) = (comm.rank(), 1 - comm.rank());
            let (out, mut back) = ([me as i32], [7_i32]);
            let mut group = comm.group();
            let error = group.send(&out, 2).expect_err("there is no rank 2").to_string();
            assert!(error.contains('2'), "{error}");
            let inner = Collective::group(&[], &[]);
            assert!(group.call(&inner, &[], &mut []).is_err(), "a group in a group");
            group.send(&out, peer).expect("a message");
            group.send(&out, me).expect("a message");
            let error = group.run().expect_err("nobody receives the message to itself").to_string();
            assert!(error.contains("does not receive it"), "{error}");
            let (other, mut longer) = ([1_u8], [0_u8; 2]);
            let mut group = comm.group();
            group.send(&other, me).expect("a message");
            group.receive(&mut longer, me).expect("a message");
            let error = group.run().expect_err("their lengths differ").to_string();
            assert!(error.contains("count=1 u8") && error.contains("count=2 u8"), "{error}");
            // Nothing of that is on its way: the next message is the first.
            comm.send_receive(&[me as i32 + 10], peer, &mut back, peer).expect("the communicator works");
            assert_eq!(back, [peer as i32 + 10]);
            comm.group().run().expect("nothing is nothing");
        });
    }
}
