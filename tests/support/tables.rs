//! Tables of lengths for the collectives that take them: random counts with many zeros, blocks anywhere with gaps.

use super::Random;
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

/// What every rank sends to every other and where it lies.
#[derive(Debug)]
pub struct Tables {
    /// `counts[s][r]`: elements from s to r.
    pub counts: Vec<Vec<u64>>,
    /// The same by receiver: `columns[r][s]`.
    pub columns: Vec<Vec<u64>>,
    /// Where each sender's blocks lie in its input.
    pub send_starts: Vec<Vec<u64>>,
    /// Where each receiver's blocks go in its output.
    pub receive_starts: Vec<Vec<u64>>,
}

/// The tables of a seed: the same for the same arguments, kept for ever. With an even seed what goes to a rank is as
/// long, and lies in the same place, as what comes from it: such an all-to-all may be in place.
pub fn tables(seed: u64, ranks: usize, count: usize) -> &'static Tables {
    type Kept = Mutex<HashMap<(u64, usize, usize), &'static Tables>>;
    static KEPT: OnceLock<Kept> = OnceLock::new();
    let mut kept = KEPT.get_or_init(Kept::default).lock().unwrap();
    kept.entry((seed, ranks, count)).or_insert_with(|| Box::leak(Box::new(Tables::new(seed, ranks, count))))
}

impl Tables {
    fn new(seed: u64, ranks: usize, count: usize) -> Self {
        let is_symmetric = seed.is_multiple_of(2);
        let cell = |s: usize, r: usize| {
            let pair = if is_symmetric { (s.min(r), s.max(r)) } else { (s, r) };
            let mut random = Random(seed ^ (pair.0 << 16 | pair.1) as u64);
            if random.below(4) == 0 { 0 } else { random.below(count as u64 + 1) }
        };
        let counts: Vec<Vec<u64>> = (0..ranks).map(|s| (0..ranks).map(|r| cell(s, r)).collect()).collect();
        let mut random = Random(seed);
        let columns: Vec<Vec<u64>> = (0..ranks).map(|r| counts.iter().map(|row| row[r]).collect()).collect();
        let send_starts: Vec<_> = counts.iter().map(|row| scatter(row, &mut random)).collect();
        let receive_starts = match is_symmetric {
            true => send_starts.clone(),
            false => columns.iter().map(|column| scatter(column, &mut random)).collect(),
        };
        Tables { counts, columns, send_starts, receive_starts }
    }

    /// The elements from `start` on that blocks of these lengths, beginning there, reach to.
    pub fn extent(counts: &[u64], starts: &[u64]) -> usize {
        counts.iter().zip(starts).map(|(count, start)| count + start).max().unwrap_or(0) as usize
    }
}

/// Random places for blocks, in random order and with gaps.
fn scatter(counts: &[u64], random: &mut Random) -> Vec<u64> {
    let mut order: Vec<usize> = (0..counts.len()).collect();
    for k in (1..order.len()).rev() {
        order.swap(k, random.below(k as u64 + 1) as usize);
    }
    let (mut starts, mut next) = (vec![0; counts.len()], 0);
    for rank in order {
        next += random.below(4);
        starts[rank] = next;
        next += counts[rank];
    }
    starts
}
