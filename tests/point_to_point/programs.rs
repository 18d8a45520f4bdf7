//! Random programs of messages against an oracle: what was sent as the k-th must come as the k-th.

use crate::support::ranks::on_threads;
use crate::support::{Random, seed};
use crate::{content, real_setups};
use std::collections::BTreeMap;
use ubccl::{Collective, Communicator, DataType, Held, Work};

const PROGRAMS: u64 = 12;
const PHASES: usize = 6;

/// What kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Direct,
    Tagged(u32),
    /// Tagged, and received from any rank.
    Any(u32),
}

#[derive(Clone, Copy, Debug)]
struct Message {
    from: u32,
    to: u32,
    kind: Kind,
    number: usize,
    len: usize,
}

/// One rank's part in a message.
#[derive(Clone, Copy, Debug)]
struct Part {
    is_send: bool,
    message: Message,
}

/// What was issued.
enum Issued {
    Send(Work<Vec<u8>>),
    Direct(Work<(Vec<u8>, Vec<u8>)>, Part),
    Tagged(Work<(Vec<u8>, u32)>, Part),
    Group(ubccl::GroupWork, Vec<(Held<u8>, Part)>),
}

/// The messages of a phase, numbered within their pair and kind. Those received from any rank are of one length.
fn phase(ranks: u32, random: &mut Random, numbers: &mut BTreeMap<(u32, u32, Kind), usize>) -> Vec<Message> {
    let any_len = random.below(3000) as usize;
    let count = 1 + random.below(60);
    let message = |_| {
        let from = random.below(u64::from(ranks)) as u32;
        let mut to = random.below(u64::from(ranks)) as u32;
        let kind = match random.below(5) {
            0 | 1 => Kind::Direct,
            2 | 3 => Kind::Tagged(random.below(4) as u32),
            _ => Kind::Any(100),
        };
        // A message of a rank to itself goes with a tag, or in a group, which is tested elsewhere.
        if kind == Kind::Direct && from == to {
            to = (to + 1) % ranks;
        }
        let len = match random.below(15) {
            0 => random.below(300_000) as usize,
            1..4 => 0,
            _ => random.below(200) as usize,
        };
        let number = numbers.entry((from, to, kind)).or_default();
        *number += 1;
        let len = if matches!(kind, Kind::Any(_)) { any_len } else { len };
        Message { from, to, kind, number: *number, len }
    };
    (0..count).map(message).collect()
}

/// A rank's parts in random order; those that are matched by order stay in order.
fn parts(messages: &[Message], rank: u32, random: &mut Random) -> Vec<Part> {
    let mut lines: BTreeMap<(bool, u32, u32, Kind), Vec<Part>> = BTreeMap::new();
    for &message in messages {
        for is_send in [true, false] {
            if rank == if is_send { message.from } else { message.to } {
                let Message { from, to, kind, .. } = message;
                lines.entry((is_send, from, to, kind)).or_default().push(Part { is_send, message });
            }
        }
    }
    let mut lines: Vec<Vec<Part>> = lines.into_values().collect();
    let mut merged = Vec::new();
    while !lines.is_empty() {
        let line = random.below(lines.len() as u64) as usize;
        merged.push(lines[line].remove(0));
        lines.retain(|line| !line.is_empty());
    }
    merged
}

/// Issues parts one by one, or direct ones that follow each other as a group.
fn issue(comm: &Communicator, parts: &[Part], random: &mut Random) -> Vec<Issued> {
    let (mut issued, mut rest) = (Vec::new(), parts);
    while let Some((&part, others)) = rest.split_first() {
        let direct = rest.iter().take_while(|part| part.message.kind == Kind::Direct).count();
        if direct > 1 && random.below(2) == 0 {
            issued.push(group(comm, &rest[..direct]));
            rest = &rest[direct..];
            continue;
        }
        issued.push(single(comm, part));
        rest = others;
    }
    issued
}

fn bytes(part: &Part) -> Vec<u8> {
    let Message { from, to, kind, number, len } = part.message;
    let salt = match kind {
        Kind::Direct => 0,
        Kind::Tagged(tag) | Kind::Any(tag) => (tag as usize + 1) << 20,
    };
    content(from, to, salt + number, len)
}

fn group(comm: &Communicator, parts: &[Part]) -> Issued {
    let mut group = comm.group_owned();
    let held = parts.iter().map(|part| {
        let held = match part.is_send {
            true => group.send(bytes(part), part.message.to),
            false => group.receive(vec![0xee; part.message.len], part.message.from),
        };
        (held.expect("a message"), *part)
    });
    let held = held.collect();
    Issued::Group(group.issue().expect("it is issued"), held)
}

fn single(comm: &Communicator, part: Part) -> Issued {
    let Message { from, to, kind, len, .. } = part.message;
    let call = |to, from| Collective::send_receive(len as u64, DataType::U8, to, from);
    let empty = vec![0xee; len];
    match (kind, part.is_send) {
        (Kind::Direct, true) => {
            let work = comm.run_async(&call(Some(to), None), bytes(&part), Vec::new());
            Issued::Direct(work.expect("it is issued"), part)
        }
        (Kind::Direct, false) => {
            let work = comm.run_async(&call(None, Some(from)), Vec::new(), empty);
            Issued::Direct(work.expect("it is issued"), part)
        }
        (Kind::Tagged(tag) | Kind::Any(tag), true) => {
            Issued::Send(comm.send_tagged_async(bytes(&part), to, tag).expect("it is issued"))
        }
        (Kind::Tagged(tag), false) => {
            Issued::Tagged(comm.receive_tagged_async(empty, Some(from), tag).expect("it is issued"), part)
        }
        (Kind::Any(tag), false) => {
            Issued::Tagged(comm.receive_tagged_async(empty, None, tag).expect("it is issued"), part)
        }
    }
}

/// Waits for everything; answers whose messages came to receives from any rank.
fn finish(issued: Vec<Issued>, rank: u32) -> Vec<(u32, Vec<u8>)> {
    let mut any = Vec::new();
    for issued in issued {
        match issued {
            Issued::Send(work) => drop(work.wait().expect("it works")),
            Issued::Direct(work, part) => {
                let (sent, received) = work.wait().expect("it works");
                let got = if part.is_send { sent } else { received };
                assert!(got == bytes(&part), "rank {rank}: {part:?}");
            }
            Issued::Tagged(work, part) => {
                let (got, source) = work.wait().expect("it works");
                match part.message.kind {
                    Kind::Any(_) => any.push((source, got)),
                    _ => assert!(source == part.message.from && got == bytes(&part), "rank {rank}: {part:?}"),
                }
            }
            Issued::Group(work, held) => {
                let mut back = work.wait().expect("it works");
                for (held, part) in held {
                    assert!(back.take(held).expect("it is ours") == bytes(&part), "rank {rank}: {part:?}");
                }
            }
        }
    }
    any
}

/// Of each sender everything came, in the order sent.
fn check_any(messages: &[Message], rank: u32, any: &[(u32, Vec<u8>)]) {
    let is_any = |message: &&Message| matches!(message.kind, Kind::Any(_)) && message.to == rank;
    for message in messages.iter().filter(is_any) {
        let expected = bytes(&Part { is_send: false, message: *message });
        let mut of_sender = any.iter().filter(|got| got.0 == message.from);
        let before = messages
            .iter()
            .filter(is_any)
            .filter(|other| other.from == message.from && other.number < message.number);
        let got = of_sender.nth(before.count()).unwrap_or_else(|| panic!("{message:?} did not come"));
        assert!(got.1 == expected, "rank {rank}: {message:?}");
    }
    assert_eq!(any.len(), messages.iter().filter(is_any).count());
}

#[test]
fn random_programs_of_messages_agree_with_the_oracle() {
    let seed = seed("programs of messages");
    for number in 0..PROGRAMS {
        let ranks = 2 + (number % 4) as u32;
        for setup in real_setups(ranks) {
            on_threads(&setup, move |comm| {
                let rank = comm.rank();
                let mut shared = Random(seed.wrapping_add(number));
                let mut own = Random(seed ^ number << 8 ^ u64::from(rank) << 32);
                let mut numbers = BTreeMap::new();
                for _ in 0..PHASES {
                    let messages = phase(ranks, &mut shared, &mut numbers);
                    let order = parts(&messages, rank, &mut own);
                    let any = finish(issue(comm, &order, &mut own), rank);
                    check_any(&messages, rank, &any);
                    // Messages from any rank of the next phase are of another length.
                    comm.barrier().expect("it works");
                }
            });
        }
    }
}
