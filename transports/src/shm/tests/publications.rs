//! Rounds of publications, and messages at once: contract 12 and 13 of `Endpoint`.

use super::*;
use ubccl_core::direct::{Direct, Part};
use ubccl_core::endpoint::{
    DirectCall, DirectProgress, Header, HostPointer, MessageNow, Now, POINT_TO_POINT_LANE, Stream,
};
use ubccl_core::{DataType, Rank, ReduceOp};

/// An all-reduce of `ranks`, as rank `rank` sees it.
fn all_reduce(ranks: u32, rank: Rank) -> Direct {
    let others: Vec<Rank> = (0..ranks).filter(|&other| other != rank).collect();
    let parts = vec![Part::Fold { at: 0, into: 0 }];
    let (dtype, op) = (DataType::I32, Some(ReduceOp::Sum));
    let (readers, writers) = (others.clone(), others);
    Direct {
        input: 1,
        longest: 1,
        keeps_own: false,
        is_exchange: false,
        carries: true,
        readers,
        writers,
        reads_first: false,
        parts,
        dtype,
        op,
    }
}

/// The same where all meet at rank 0.
fn met_all_reduce(ranks: u32, rank: Rank) -> Direct {
    let flat = all_reduce(ranks, rank);
    match rank {
        0 => Direct { reads_first: true, ..flat },
        _ => Direct {
            readers: vec![0],
            writers: vec![0],
            parts: vec![Part::Copy { from: 0, at: 0, into: 0 }],
            ..flat
        },
    }
}

/// A broadcast from rank 0.
fn broadcast(ranks: u32, rank: Rank) -> Direct {
    let (readers, writers) = if rank == 0 { ((1..ranks).collect(), vec![]) } else { (vec![], vec![0]) };
    let parts = if rank == 0 { vec![] } else { vec![Part::Copy { from: 0, at: 0, into: 0 }] };
    let (input, dtype) = (u64::from(rank == 0), DataType::I32);
    Direct {
        input,
        longest: 1,
        keeps_own: false,
        is_exchange: false,
        carries: true,
        readers,
        writers,
        reads_first: false,
        parts,
        dtype,
        op: None,
    }
}

/// An all-to-all.
fn all_to_all(ranks: u32, rank: Rank) -> Direct {
    let others: Vec<Rank> = (0..ranks).filter(|&other| other != rank).collect();
    let part = |from: Rank| Part::Copy { from, at: u64::from(rank), into: u64::from(from) };
    Direct {
        input: u64::from(ranks),
        longest: u64::from(ranks) - 1,
        keeps_own: true,
        is_exchange: true,
        carries: true,
        readers: others.clone(),
        writers: others,
        reads_first: false,
        parts: (0..ranks).map(part).collect(),
        dtype: DataType::U8,
        op: None,
    }
}

/// A barrier that meets at rank 0.
fn barrier(ranks: u32, rank: Rank) -> Direct {
    let others: Vec<Rank> = if rank == 0 { (1..ranks).collect() } else { vec![0] };
    let (readers, writers) = (others.clone(), others);
    let (input, longest, parts, dtype, op) = (0, 0, vec![], DataType::I8, None);
    Direct {
        input,
        longest,
        keeps_own: false,
        is_exchange: false,
        carries: false,
        readers,
        writers,
        reads_first: rank == 0,
        parts,
        dtype,
        op,
    }
}

struct Round {
    direct: Direct,
    progress: DirectProgress,
    input: Span,
    output: Span,
}

impl Round {
    fn new(direct: Direct, input: Span, output: Span) -> Self {
        Round { direct, progress: DirectProgress::default(), input, output }
    }

    fn go(&mut self, endpoint: &mut ShmEndpoint, sequence: u64) -> Result<bool, Fault> {
        self.go_with(endpoint, sequence, &mut || ())
    }

    fn go_with(
        &mut self,
        endpoint: &mut ShmEndpoint,
        sequence: u64,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<bool, Fault> {
        let block_bytes = self.output.len / self.direct.parts.len().max(1) as u64;
        let spans = [Span { len: self.direct.input * block_bytes, ..self.input }, self.output];
        let [input, output] = spans.map(|span| HostPointer(endpoint.memory.address(span).unwrap().addr()));
        let call = DirectCall { direct: &self.direct, block_bytes, input, output, looks: 1 };
        // SAFETY: the rig's areas live as long as its endpoints, and these spans were checked against them.
        unsafe { endpoint.direct(&key(sequence, 0), &call, &mut self.progress, meanwhile) }
    }
}

fn ints(values: impl Iterator<Item = i32>) -> Vec<u8> {
    values.flat_map(i32::to_le_bytes).collect()
}

/// Every order in which three ranks come, many times round the entries, short and long, in place and apart; all showing all,
/// and meeting.
#[test]
fn a_round_gives_everybody_the_sum_whoever_comes_first() {
    const RANKS: usize = 3;
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let ways = [all_reduce, met_all_reduce];
    for (direct, count) in ways.into_iter().flat_map(|way| [1, 8, 9, 2048].map(|count| (way, count))) {
        let mut rig = Rig::new(RANKS, 1, 64 << 10);
        let value = |rank: usize, at: i32, sequence: u64| at * 3 + rank as i32 * 1000 + sequence as i32;
        let guarded = |values: Vec<u8>| [vec![0xa5; 64], values, vec![0xa5; 64]].concat();
        let inside = |span: Span| Span { offset: 64, len: 4 * count as u64, ..span };
        for sequence in 1..=18 {
            let mut rounds: Vec<_> = (0..RANKS)
                .map(|rank| {
                    let input = guarded(ints((0..count).map(|at| value(rank, at, sequence))));
                    let input = inside(rig.area(rank, &input));
                    let apart = rig.area(rank, &guarded(vec![0; 4 * count as usize]));
                    let output = if sequence % 2 == 0 { input } else { inside(apart) };
                    Round::new(direct(RANKS as u32, rank as Rank), input, output)
                })
                .collect();
            let order = orders[sequence as usize % orders.len()];
            let mut done = [false; RANKS];
            while done.contains(&false) {
                for rank in order.into_iter().filter(|&rank| !done[rank]).collect::<Vec<_>>() {
                    done[rank] = rounds[rank].go(&mut rig.endpoints[rank], sequence).unwrap();
                }
            }
            let sums = ints((0..count).map(|at| (0..RANKS).map(|rank| value(rank, at, sequence)).sum()));
            for (rank, round) in rounds.iter().enumerate() {
                let whole = Span { offset: 0, len: 128 + 4 * count as u64, ..round.output };
                assert_eq!(rig.bytes(rank, whole), guarded(sums.clone()), "rank {rank}, {sequence}, {count}");
            }
        }
        let counters = rig.endpoints[0].counters();
        assert_eq!((counters.messages_sent, counters.bytes_sent), (36, 36 * 4 * count as u64));
    }
}

/// Nobody is through before the last has come, and in two looks of everybody after it all are; with broadcasts between that
/// the root runs ahead with.
#[test]
fn a_barrier_ends_once_the_last_has_come() {
    const RANKS: usize = 3;
    let mut rig = Rig::new(RANKS, 1, 64 << 10);
    let areas = [0, 1, 2].map(|rank| rig.area(rank, &[0; 4]));
    let mut sequence = 0;
    for late in [0, 1, 2].repeat(6) {
        sequence += 1;
        let mut rounds: Vec<_> = (0..RANKS)
            .map(|rank| {
                let nothing = Span { len: 0, ..areas[rank] };
                Round::new(barrier(RANKS as u32, rank as Rank), nothing, nothing)
            })
            .collect();
        let early = || (0..RANKS).filter(|&rank| rank != late);
        for rank in early().chain(early()) {
            let is_through = rounds[rank].go(&mut rig.endpoints[rank], sequence).unwrap();
            assert!(!is_through, "rank {rank} is through before {late} has come");
        }
        let mut done = [false; RANKS];
        for _ in 0..2 {
            for rank in [late].into_iter().chain(early()).filter(|&rank| !done[rank]).collect::<Vec<_>>() {
                done[rank] = rounds[rank].go(&mut rig.endpoints[rank], sequence).unwrap();
            }
        }
        assert_eq!(done, [true; RANKS], "after {late} came last");
        sequence += 1;
        rig.areas[0][0].write(&(sequence as i32).to_le_bytes());
        for (rank, area) in areas.into_iter().enumerate() {
            let mut round = Round::new(broadcast(RANKS as u32, rank as Rank), area, area);
            assert!(round.go(&mut rig.endpoints[rank], sequence).unwrap());
            assert_eq!(rig.bytes(rank, area), (sequence as i32).to_le_bytes());
        }
    }
}

/// Entries of each rank in a rig of so many with 64 KiB for a pair.
fn depth(ranks: u32) -> u64 {
    let options = ConnectOptions { lanes: 1, pair_bytes: Some(64 << 10), paced: None, peer_reads: false };
    Geometry::new(ranks, &options).unwrap().publications().entries as u64
}

#[test]
fn who_publishes_runs_ahead_as_far_as_there_are_entries_and_overwrites_nothing() {
    let mut rig = Rig::new(2, 1, 64 << 10);
    let depth = depth(2);
    let input = rig.area(0, &[0; 4]);
    let output = rig.area(1, &[0; 4]);
    let publish = |rig: &mut Rig, sequence: u64| {
        rig.areas[0][0].write(&(sequence as i32).to_le_bytes());
        Round::new(broadcast(2, 0), input, Span { region: RegionId(0), ..output })
            .go(&mut rig.endpoints[0], sequence)
            .unwrap()
    };
    for sequence in 1..=depth {
        assert!(publish(&mut rig, sequence), "there is an entry for {sequence}");
    }
    let next = depth + 1;
    assert!(!publish(&mut rig, next), "nothing was read yet");
    for sequence in 1..=depth {
        let mut round = Round::new(broadcast(2, 1), output, output);
        assert!(round.go(&mut rig.endpoints[1], sequence).unwrap());
        assert_eq!(rig.bytes(1, output), (sequence as i32).to_le_bytes());
    }
    assert!(publish(&mut rig, next));
}

/// What is done meanwhile is done when others can read what was published, before theirs are looked for, and not by a rank
/// that may not publish yet.
#[test]
fn meanwhile_is_between_publishing_and_looking() {
    let (mut rig, depth) = (Rig::new(2, 1, 64 << 10), depth(2));
    let areas = [0, 1].map(|rank| rig.area(rank, &[1, 0, 0, 0]));
    let [mut first, mut second] =
        [0, 1].map(|rank| Round::new(all_reduce(2, rank as Rank), areas[rank], areas[rank]));
    let (zero, one) = rig.endpoints.split_at_mut(1);
    let mut times = 0;
    let mut meanwhile = || {
        times += 1;
        assert!(second.go(&mut one[0], 1).unwrap(), "the first rank's is there");
    };
    assert!(first.go_with(&mut zero[0], 1, &mut meanwhile).unwrap(), "the second's was there when it looked");
    assert_eq!(times, 1);
    assert_eq!([0, 1].map(|rank| rig.bytes(rank, areas[rank])), [vec![2, 0, 0, 0], vec![2, 0, 0, 0]]);

    let mut publish = |sequence: u64| {
        let mut was_told = false;
        let mut round = Round::new(broadcast(2, 0), areas[0], areas[0]);
        let is_done = round.go_with(&mut rig.endpoints[0], sequence, &mut || was_told = true).unwrap();
        assert_eq!(was_told, is_done, "{sequence}");
        is_done
    };
    // The second rank has finished 1 and reads nothing after it.
    assert!((2..depth + 2).all(&mut publish) && !publish(depth + 2));
}

/// Rank 1 gives, first to rank 2, which is late, and then to rank 0, which is not: what stands in the first entry is rank
/// 2's until it has read it, whoever is to read what comes next.
#[test]
fn an_entry_waits_for_who_reads_what_stands_there() {
    let (mut rig, depth) = (Rig::new(3, 1, 64 << 10), depth(3));
    let areas = [0, 1, 2].map(|rank| rig.area(rank, &[0; 4]));
    let go = |rig: &mut Rig, rank: usize, sequence: u64| {
        let root = if sequence == 1 { 2 } else { 0 };
        let (input, is_root) = (u64::from(rank == 1), rank as Rank == root);
        let direct = Direct {
            keeps_own: false,
            is_exchange: false,
            input,
            longest: 1,
            carries: true,
            readers: if rank == 1 { vec![root] } else { vec![] },
            writers: if is_root { vec![1] } else { vec![] },
            reads_first: false,
            parts: if is_root { vec![Part::Copy { from: 1, at: 0, into: 0 }] } else { vec![] },
            dtype: DataType::I32,
            op: None,
        };
        if rank == 1 {
            rig.areas[1][0].write(&(sequence as i32).to_le_bytes());
        }
        Round::new(direct, areas[rank], areas[rank]).go(&mut rig.endpoints[rank], sequence).unwrap()
    };
    for sequence in 1..=depth {
        assert!(go(&mut rig, 1, sequence), "there is an entry for {sequence}");
        assert!(go(&mut rig, 0, sequence));
    }
    assert!(!go(&mut rig, 1, depth + 1), "rank 2 has not read what stands there");
    assert!(go(&mut rig, 2, 1));
    assert_eq!(rig.bytes(2, areas[2]), 1_i32.to_le_bytes());
    assert!(go(&mut rig, 1, depth + 1));
}

/// What its own rank alone needs is left out before, between and after the others' blocks, in heads, beside them and in
/// places of their own.
#[test]
fn a_rank_publishes_the_blocks_of_others_alone() {
    for ranks in [2, 3, 5] {
        let mut rig = Rig::new(ranks, 1, 64 << 10);
        for (sequence, block) in (1..).zip([1, 8, 19, 200, 1000, 2000]) {
            let input = |rank: usize| pattern(rank as u64 * 31 + sequence, ranks * block);
            let of = |rank: usize, at: usize| input(rank)[at * block..][..block].to_vec();
            let mut rounds: Vec<_> = (0..ranks)
                .map(|rank| {
                    let from = rig.area(rank, &input(rank));
                    let into = rig.area(rank, &vec![0; ranks * block + 64]);
                    let direct = all_to_all(ranks as u32, rank as Rank);
                    Round::new(direct, from, Span { len: (ranks * block) as u64, ..into })
                })
                .collect();
            let mut done = vec![false; ranks];
            while done.contains(&false) {
                for rank in 0..ranks {
                    done[rank] = done[rank] || rounds[rank].go(&mut rig.endpoints[rank], sequence).unwrap();
                }
            }
            for (rank, round) in rounds.iter().enumerate() {
                let expected: Vec<u8> = (0..ranks).flat_map(|from| of(from, rank)).collect();
                let whole = Span { len: round.output.len + 64, ..round.output };
                let guarded = [expected, vec![0; 64]].concat();
                assert_eq!(rig.bytes(rank, whole), guarded, "rank {rank} of {ranks}, {block}");
            }
        }
    }
}

#[test]
fn a_publication_of_another_call_is_a_mismatch_and_no_byte_of_it_arrives() {
    let mut rig = Rig::new(2, 1, 64 << 10);
    let (input, output) = (rig.area(0, &[7; 4]), rig.area(1, &[0; 8]));
    let mut theirs = Round::new(broadcast(2, 0), input, Span { region: RegionId(0), ..input });
    assert!(theirs.go(&mut rig.endpoints[0], 1).unwrap());
    let mut ours = Round::new(broadcast(2, 1), output, output);
    let fault = ours.go(&mut rig.endpoints[1], 1).unwrap_err();
    let Fault::Mismatch { peer: 0, theirs: Header { len: 4, .. }, ours: Header { stream, len: 8, .. } } =
        fault
    else {
        panic!("{fault:?}");
    };
    assert_eq!(stream, Stream::Collective(1));
    assert_eq!(rig.bytes(1, output), [0; 8]);
}

/// A ping-pong, whose answers come at once or, if there is no room for all of one, are posted.
#[test]
fn answers_of_a_pair_go_round_in_half_of_the_slots_however_they_are_sent() {
    let mut rig = Rig::near_pair();
    let key = Key { stream: Stream::Direct, lane: POINT_TO_POINT_LANE, ..key(1, 0) };
    let now = |rig: &mut Rig, rank: usize, is_send: bool, span: Span| {
        let memory = HostPointer(rig.endpoints[rank].memory.address(span).unwrap().addr());
        let message = MessageNow { peer: 1 - rank as Rank, is_send, memory, len: span.len, looks: 1 };
        // SAFETY: the rig's areas live as long as its endpoints, and this span was checked against them.
        unsafe { rig.endpoints[rank].message_now(&key, &message) }.unwrap()
    };
    let mut narrow = Vec::new();
    for (turn, len) in [300 << 10, 300 << 10, 300 << 10, 3 << 20, 3 << 20].into_iter().enumerate() {
        let (rank, peer) = (turn % 2, 1 - turn % 2);
        let bytes = pattern(turn as u64, len);
        let (from, into) = (rig.area(rank, &bytes), rig.area(peer, &vec![0; len]));
        if now(&mut rig, rank, true, from) != Now::Done {
            rig.post(rank, 1, &key, send(from, peer as Rank)).unwrap();
        }
        // Behind the one lane.
        let incoming = &rig.endpoints[peer].incoming[rank * rig.endpoints[peer].channels + 1];
        let first = incoming.consumer.next();
        narrow.push(incoming.memory.spot(first, first, len as u64).is_narrow);
        while now(&mut rig, peer, false, into) != Now::Done {
            rig.endpoints[rank].poll(&mut rig.done[rank]).unwrap();
        }
        assert!(rig.bytes(peer, into) == bytes, "turn {turn}");
    }
    assert_eq!(narrow, [false, true, true, true, true], "from the first answer on");
}

#[test]
fn a_message_at_once_is_sent_if_there_is_room_and_taken_if_it_is_there() {
    let mut rig = Rig::new(2, 1, 64 << 10);
    let bytes = pattern(5, 100_000);
    let from = rig.area(0, &bytes);
    let into = rig.area(1, &vec![0; 100_000]);
    let part = |span: Span, len| Span { len, ..span };
    let try_now = |rig: &mut Rig, rank: usize, peer: Rank, span: Span| {
        let memory = HostPointer(rig.endpoints[rank].memory.address(span).unwrap().addr());
        let message = MessageNow { peer, is_send: rank == 0, memory, len: span.len, looks: 1 };
        // SAFETY: the rig's areas live as long as its endpoints, and this span was checked against them.
        unsafe { rig.endpoints[rank].message_now(&key(1, 0), &message) }
    };
    let now = |rig: &mut Rig, rank, peer, span| try_now(rig, rank, peer, span).unwrap();
    assert_eq!(now(&mut rig, 1, 0, part(into, 100)), Now::NotYet);
    assert_eq!(now(&mut rig, 0, 1, from), Now::Never, "it takes more than one go");
    assert_eq!(now(&mut rig, 0, 1, part(from, 100)), Now::Done);
    let fault = try_now(&mut rig, 1, 0, part(into, 99)).unwrap_err();
    assert!(matches!(fault, Fault::Mismatch { peer: 0, .. }), "{fault:?}");
    assert_eq!(now(&mut rig, 1, 0, part(into, 100)), Now::Done);
    assert_eq!(rig.bytes(1, part(into, 101)), [&bytes[..100], &[0]].concat());
    // Behind one that waits nothing goes at once.
    rig.post(1, 1, &key(1, 0), receive(part(into, 10), 0)).unwrap();
    assert_eq!(now(&mut rig, 1, 0, part(into, 10)), Now::Never);
    let mut sent = 0;
    while now(&mut rig, 0, 1, part(from, 10)) == Now::Done {
        sent += 1;
    }
    assert!((2..1000).contains(&sent), "{sent} messages that nobody takes found room");
}

#[test]
fn what_goes_past_the_caches_is_the_same_bytes() {
    let mut rig = Rig::new(2, 1, 64 << 10);
    rig.endpoints[1].caches = Caches { second: 0, third: 0 };
    let bytes = pattern(9, 5000);
    let from = rig.area(0, &bytes);
    let into = rig.area(1, &[0xa5; 6000]);
    let part = |offset, len| Span { offset, len, ..into };
    rig.post(0, 1, &key(1, 0), send(from, 1)).unwrap();
    assert_eq!(rig.post(1, 1, &key(1, 0), receive(part(77, 5000), 0)).unwrap(), Posted::Done);
    let guarded = |bytes: &[u8]| [&[0xa5; 77][..], bytes, &[0xa5; 923]].concat();
    assert_eq!(rig.bytes(1, into), guarded(&bytes));
    rig.areas[1][0].write(&[0xa5; 6000]);
    rig.post(0, 1, &key(2, 0), send(from, 1)).unwrap();
    let memory = HostPointer(rig.endpoints[1].memory.address(part(77, 5000)).unwrap().addr());
    let message = MessageNow { peer: 0, is_send: false, memory, len: 5000, looks: 1 };
    // SAFETY: the rig's areas live as long as its endpoints, and this span was checked against them.
    assert_eq!(unsafe { rig.endpoints[1].message_now(&key(2, 0), &message) }.unwrap(), Now::Done);
    assert_eq!(rig.bytes(1, into), guarded(&bytes));
}
