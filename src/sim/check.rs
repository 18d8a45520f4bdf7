//! What a simulated call is given, and whether what it gave is right.

use super::RankMemory;
use crate::engine::Buffers;
use ubccl_core::collective::{Content, Rank};
use ubccl_core::endpoint::{HostPointer, Memory};
use ubccl_core::symbolic::{Piece, Value};
use ubccl_core::{Collective, Error, Result};

/// Real buffers of one rank. Whoever issues them keeps `memory` until nothing is under way.
pub(super) fn real_buffers(memory: &mut RankMemory) -> Buffers {
    let host = |bytes: &mut Vec<u8>| Memory::Host {
        address: HostPointer(bytes.as_mut_ptr().expose_provenance()),
        len: bytes.len() as u64,
    };
    match memory {
        RankMemory::Apart { input, output } => Buffers::Apart { input: host(input), output: host(output) },
        RankMemory::InPlace(buffer) => Buffers::InPlace(host(buffer)),
    }
}

/// Phantom buffers of one rank: the input holds its contribution, the rest nothing anybody wrote.
pub(super) fn phantom_buffers(call: &Collective<'_>, ranks: u32, rank: Rank, in_place: bool) -> Buffers {
    let unit = call.dtype().size() as u32;
    let (input, output) = (call.input_elements(ranks, rank), call.output_elements(ranks, rank));
    let own = Piece { len: input, value: Value::contribution(rank, ranks, 0) };
    let empty = |len| Piece { len, value: Value::UNWRITTEN };
    let phantom = |content| Memory::Phantom { unit, content };
    if !in_place {
        return Buffers::Apart { input: phantom(vec![own]), output: phantom(vec![empty(output)]) };
    }
    let total = call.in_place_elements(ranks, rank);
    let before = call.in_place_offsets(rank).0;
    let content = vec![empty(before), own, empty(total - before - input)];
    Buffers::InPlace(phantom(content.into_iter().filter(|piece| piece.len > 0).collect()))
}

/// What a sum over all ranks tells of who is in it.
pub(super) fn all_contributors(ranks: u32) -> u128 {
    let all = (0..ranks).map(|rank| Value::contribution(rank, ranks, 0));
    Value::reduction(all, ranks).contributors
}

/// Elements of one rank's output that are not what the collective promises, where `all` are to be in sums.
pub(super) fn wrong_elements<'a>(
    calls: &dyn Fn(Rank) -> Collective<'a>,
    (ranks, all): (u32, u128),
    rank: Rank,
    in_place: bool,
    held: &[Piece],
) -> u64 {
    let mut memory =
        ubccl_core::symbolic::SymbolicMemory::unwritten(held.iter().map(|piece| piece.len).sum());
    memory.write(0, held);
    let base = if in_place { calls(rank).in_place_offsets(rank).1 } else { 0 };
    let mut wrong = 0;
    let mut pieces = Vec::new();
    for holding in Collective::holdings(calls, ranks, rank) {
        pieces.clear();
        if base + holding.start + holding.len > memory.len() {
            wrong += holding.len;
            continue;
        }
        memory.read(base + holding.start, holding.len, &mut pieces);
        let mut done = 0;
        for piece in &pieces {
            let is_right = match holding.content {
                Content::Of { rank, at } => piece.value == Value::contribution(rank, ranks, at + done),
                Content::Reduction { at } => {
                    piece.value.contributors == all
                        && piece.value.origin == (at + done) as i64
                        && !piece.value.doubled
                }
            };
            wrong += if is_right { 0 } else { piece.len };
            done += piece.len;
        }
    }
    wrong
}

pub(super) fn check_sizes(call: &Collective<'_>, ranks: u32, rank: Rank, memory: &RankMemory) -> Result<()> {
    let size = call.dtype().size() as u64;
    let expect = |what: &str, bytes: usize, elements: u64| {
        let is_longer = call.kind().row().tabled && bytes as u64 > elements * size;
        if bytes as u64 == elements * size || is_longer {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{call}: rank {rank}'s {what} has {bytes} bytes, it needs {} ({elements} elements)",
            elements * size
        )))
    };
    match memory {
        RankMemory::Apart { input, output } => {
            expect("input", input.len(), call.input_elements(ranks, rank))?;
            expect("output", output.len(), call.output_elements(ranks, rank))
        }
        RankMemory::InPlace(buffer) => expect("buffer", buffer.len(), call.in_place_elements(ranks, rank)),
    }
}
