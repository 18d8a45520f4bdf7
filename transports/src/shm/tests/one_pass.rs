//! All-reduces in one pass over heaps: contract 14 of `Endpoint`.

use super::*;
use crate::host::HostMemory;
use crate::shm::shelf::HEADER_BYTES;
use std::sync::atomic::Ordering;
use ubccl_core::endpoint::{OnePass, OnePassCall, OnePassProgress};

/// More than is done at once, of any rank's share; and a few bytes.
const COUNTS: [usize; 3] = [5 * HostMemory::BITE / 4 + 33, 1000, 1];

/// An all-reduce of one rank.
struct Pass {
    call: OnePassCall,
    progress: OnePassProgress,
}

impl Pass {
    fn new(rig: &Rig, rank: usize, input: Span, output: Span) -> Self {
        let address = |span| HostPointer(rig.endpoints[rank].memory.address(span).unwrap().addr());
        let (dtype, op, count) = (DataType::I32, ReduceOp::Sum, input.len / 4);
        let call = OnePassCall { dtype, op, count, input: address(input), output: address(output) };
        Pass { call, progress: OnePassProgress::default() }
    }

    fn go(&mut self, endpoint: &mut ShmEndpoint, sequence: u64) -> Result<OnePass, Fault> {
        // SAFETY: the rig's areas live as long as its endpoints, and these spans were checked against them.
        unsafe { endpoint.one_pass(&key(sequence, 0), &self.call, &mut self.progress) }
    }
}

fn ints(rank: usize, count: usize) -> Vec<u8> {
    (0..count).flat_map(|at| ((at * 31 + rank * 1009) as i32).to_le_bytes()).collect()
}

fn sums(ranks: usize, count: usize) -> Vec<u8> {
    let sum = |at: usize| (0..ranks).map(|rank| (at * 31 + rank * 1009) as i32).sum::<i32>();
    (0..count).flat_map(|at| sum(at).to_le_bytes()).collect()
}

/// Calls in turn, beginning with `first`, until all have an answer.
fn all_answers(rig: &mut Rig, passes: &mut [Pass], sequence: u64, first: usize) -> Vec<OnePass> {
    let mut answers = vec![OnePass::Pending; passes.len()];
    for _ in 0..100_000 {
        for at in 0..passes.len() {
            let rank = (first + at) % passes.len();
            if answers[rank] == OnePass::Pending {
                answers[rank] = passes[rank].go(&mut rig.endpoints[rank], sequence).unwrap();
            }
        }
        if !answers.contains(&OnePass::Pending) {
            return answers;
        }
    }
    panic!("{answers:?}");
}

/// A part of an area in the heap, with a guard on each side.
fn guarded(rig: &mut Rig, rank: usize, bytes: &[u8]) -> Span {
    let area = [&[7; 20][..], bytes, &[7; 12]].concat();
    let span = rig.heap_area(rank, &area);
    Span { offset: 20, len: bytes.len() as u64, ..span }
}

fn assert_guards(rig: &Rig, rank: usize, span: Span) {
    let all = rig.areas[rank][span.region.0 as usize].bytes();
    assert!(all[..20].iter().chain(&all[20 + span.len as usize..]).all(|&byte| byte == 7), "rank {rank}");
}

#[test]
fn every_rank_gets_the_sum_in_place_and_apart_whoever_comes_first() {
    for ranks in [2, 3, 5] {
        let mut rig = Rig::new(ranks, 1, 64 << 10);
        let mut sequence = 0;
        for (count, first) in COUNTS.into_iter().flat_map(|count| (0..ranks).map(move |first| (count, first)))
        {
            sequence += 1;
            let buffers: Vec<_> = (0..ranks)
                .map(|rank| {
                    let input = guarded(&mut rig, rank, &ints(rank, count));
                    // Some in place, some apart.
                    let is_apart = (rank + first) % 2 == 1;
                    let output = is_apart.then(|| guarded(&mut rig, rank, &vec![9; 4 * count]));
                    (input, output)
                })
                .collect();
            let pass = |(rank, &(input, output)): (usize, &(Span, Option<Span>))| {
                Pass::new(&rig, rank, input, output.unwrap_or(input))
            };
            let mut passes: Vec<_> = buffers.iter().enumerate().map(pass).collect();
            let answers = all_answers(&mut rig, &mut passes, sequence, first);
            assert_eq!(answers, vec![OnePass::Done; ranks]);
            for (rank, &(input, output)) in buffers.iter().enumerate() {
                assert!(rig.bytes(rank, output.unwrap_or(input)) == sums(ranks, count), "rank {rank}");
                assert_guards(&rig, rank, input);
                if let Some(output) = output {
                    assert!(rig.bytes(rank, input) == ints(rank, count), "rank {rank}");
                    assert_guards(&rig, rank, output);
                }
            }
        }
        let counters: Vec<_> = rig.endpoints.iter().map(|endpoint| endpoint.counters()).collect();
        let sent: u64 = counters.iter().map(|counters| counters.bytes_sent).sum();
        let received: u64 = counters.iter().map(|counters| counters.bytes_received).sum();
        let bytes: usize = COUNTS.iter().map(|count| 4 * count * ranks).sum();
        assert_eq!((sent, received), (2 * (ranks as u64 - 1) * bytes as u64, sent));
    }
}

#[test]
fn where_one_buffer_is_ordinary_all_decline_and_nothing_is_touched() {
    let (ranks, count) = (3, 50_000);
    for ordinary in 0..2 {
        let mut rig = Rig::new(ranks, 1, 64 << 10);
        for sequence in 1..10 {
            let spans: Vec<_> = (0..ranks)
                .map(|rank| {
                    let mut span = |is_ordinary| match is_ordinary {
                        true => rig.area(rank, &ints(rank, count)),
                        false => rig.heap_area(rank, &ints(rank, count)),
                    };
                    [span(rank == 1 && ordinary == 0), span(rank == 1 && ordinary == 1)]
                })
                .collect();
            let mut passes: Vec<_> = (0..ranks)
                .map(|rank| {
                    let [input, output] = spans[rank];
                    Pass::new(&rig, rank, input, output)
                })
                .collect();
            let answers = all_answers(&mut rig, &mut passes, sequence, 0);
            assert_eq!(answers, vec![OnePass::Declined; ranks]);
            for (rank, span) in
                spans.into_iter().enumerate().flat_map(|(rank, [a, b])| [(rank, a), (rank, b)])
            {
                assert!(rig.bytes(rank, span) == ints(rank, count));
            }
            assert!(rig.endpoints.iter().all(|endpoint| endpoint.offered.is_none()));
        }
    }
}

/// Two ranks that have offered their buffers, which are long.
fn under_way(rig: &mut Rig) -> (Vec<Span>, Vec<Pass>) {
    let count = COUNTS[0];
    let spans: Vec<_> = (0..2).map(|rank| rig.heap_area(rank, &ints(rank, count))).collect();
    let mut passes: Vec<_> = (0..2).map(|rank| Pass::new(rig, rank, spans[rank], spans[rank])).collect();
    assert_eq!(passes[0].go(&mut rig.endpoints[0], 1).unwrap(), OnePass::Pending);
    (spans, passes)
}

#[test]
fn what_was_taken_back_is_not_touched_and_does_not_count() {
    // Before the peer has begun, and in the middle of its share.
    for begins in [false, true] {
        let mut rig = Rig::new(2, 1, 64 << 10);
        let (spans, mut passes) = under_way(&mut rig);
        if begins {
            assert_eq!(passes[1].go(&mut rig.endpoints[1], 1).unwrap(), OnePass::Pending);
            assert!(passes[1].progress.shared > 0 && !passes[1].progress.finished);
        }
        rig.endpoints[0].cancel();
        let before = rig.bytes(0, spans[0]);
        let fault = passes[1].go(&mut rig.endpoints[1], 1).unwrap_err();
        let Fault::Lost { peer: 0, message } = fault else { panic!("{fault:?}") };
        assert!(message.contains("took back"), "{message}");
        assert!(rig.bytes(0, spans[0]) == before);
        assert_eq!(rig.endpoints[1].own.visiting().load(Ordering::Relaxed), 0, "nobody waits for it");
    }
}

#[test]
fn a_visitor_that_does_not_go_keeps_pages_that_are_its_own() {
    let mut rig = Rig::new(2, 1, 64 << 10);
    let (spans, mut passes) = under_way(&mut rig);
    // As if it had been stopped in the middle of a piece.
    rig.endpoints[1].own.visiting().store(1, Ordering::Relaxed);
    let start = Instant::now();
    rig.endpoints[0].cancel();
    assert!(start.elapsed() < PATIENCE);
    let own = rig.bytes(0, spans[0]);
    assert!(own == ints(0, COUNTS[0]), "it is all there");
    let share = passes[1].call.share(1, 2);
    let len = (share.end - share.start) as usize;
    let shelves = &rig.endpoints[1].publications.shelves;
    let place = shelves[0].segment().heap_range(share.start, len as u64).unwrap();
    // SAFETY: in the heap of a peer, which nobody else writes now.
    unsafe { place.write_bytes(5, len) };
    assert!(rig.bytes(0, spans[0]) == own);
    // Whoever owns it writes and reads what is there as before.
    rig.areas[0][spans[0].region.0 as usize].write(&pattern(4, own.len()));
    assert!(rig.bytes(0, spans[0]) == pattern(4, own.len()));
    // What was not offered is common as before.
    let bytes = pattern(3, 100_000);
    let other = rig.heap_area(0, &bytes);
    let offset = rig.endpoints[0].own.heap_offset(rig.endpoints[0].memory.address(other).unwrap().addr(), 1);
    let seen =
        rig.endpoints[1].publications.shelves[0].segment().heap_range(offset.unwrap(), 100_000).unwrap();
    // SAFETY: as above; it is as long.
    let seen: Vec<u8> = (0..100_000).map(|at| unsafe { seen.wrapping_add(at).read() }).collect();
    assert!(seen == bytes);
    assert!(passes[1].go(&mut rig.endpoints[1], 1).is_err());
}

#[test]
fn an_offer_outside_the_heap_is_refused() {
    for (word, value) in [(0, u64::MAX), (1, u64::MAX), (0, 1 << 50), (1, 1 << 50)] {
        let mut rig = Rig::new(2, 1, 64 << 10);
        let (_, mut passes) = under_way(&mut rig);
        let publications = &rig.endpoints[0].publications;
        publications.shelves[0]
            .word(publications.author.spot(1), HEADER_BYTES / 8 + word)
            .store(value, Ordering::Relaxed);
        let fault = passes[1].go(&mut rig.endpoints[1], 1).unwrap_err();
        let Fault::Lost { peer: 0, message } = fault else { panic!("{fault:?}") };
        assert!(message.contains("outside its memory"), "{message}");
        assert_eq!(rig.endpoints[1].own.visiting().load(Ordering::Relaxed), 0);
    }
}

#[test]
fn another_call_is_a_mismatch() {
    let mut rig = Rig::new(2, 1, 64 << 10);
    let (spans, passes) = under_way(&mut rig);
    let mut other = Pass::new(&rig, 1, spans[1], spans[1]);
    let key = Key { signature: Signature(77), ..key(1, 0) };
    // SAFETY: as in `Pass::go`.
    let fault = unsafe { rig.endpoints[1].one_pass(&key, &other.call, &mut other.progress) }.unwrap_err();
    let Fault::Mismatch { peer: 0, theirs, ours } = fault else { panic!("{fault:?}") };
    assert_eq!((theirs.signature, ours.signature), (Signature(0x1234 << 64 | 5), Signature(77)));
    assert_eq!(passes[0].progress.shared, 0);
    assert!(rig.bytes(0, spans[0]) == ints(0, COUNTS[0]));
}

#[test]
fn who_waits_can_sleep_until_the_other_has_called_or_is_through() {
    let mut rig = Rig::new(2, 1, 64 << 10);
    let (_, mut passes) = under_way(&mut rig);
    assert!(!rig.endpoints[0].publications.has_news());
    assert_eq!(passes[1].go(&mut rig.endpoints[1], 1).unwrap(), OnePass::Pending);
    assert!(rig.endpoints[0].publications.has_news(), "the other has called");
    while !passes[0].progress.finished {
        assert_eq!(passes[0].go(&mut rig.endpoints[0], 1).unwrap(), OnePass::Pending);
    }
    assert!(!rig.endpoints[0].publications.has_news());
    assert_eq!(passes[0].go(&mut rig.endpoints[0], 1).unwrap(), OnePass::Pending);
    while passes[1].go(&mut rig.endpoints[1], 1).unwrap() == OnePass::Pending {}
    assert!(rig.endpoints[0].publications.has_news(), "the other is through");
    assert_eq!(passes[0].go(&mut rig.endpoints[0], 1).unwrap(), OnePass::Done);
}
