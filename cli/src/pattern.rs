//! The data of the check: integers for which any order of reduction gives the same bits, repeated with a prime
//! period, and what they must become.
//!
//! Three sets of data:
//! - [`Data::Plain`]: every rank brings numbers from 1 up, so that a missing, doubled or misplaced contribution
//!   changes the result.
//! - [`Data::Repeated`]: for a call that is repeated in place on its own result, many times between two looks. An
//!   all-reduce would multiply by the number of ranks each time, so the contributions cancel: +v and −v on two ranks
//!   (+v, +v, −2v on three), so that the first call must make zero, and every later one keep it. A reduce-scatter
//!   adds the others' constant contributions once per call, so the result counts the calls. A send/receive hands
//!   the data once further round the ring per call.
//! - [`Data::Zero`]: the fixed point of the above, the bulk of a long timed run in which a few elements carry plain
//!   data (`layout.rs`).

use crate::call::Call;
use crate::target::{DataType, Error, Kind, ReduceOp};
use half::bf16;

/// Which data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// One call.
    Plain {
        /// Other data for another seed.
        seed: u64,
    },
    /// So many calls in place, each on the result of the one before.
    Repeated {
        /// How many.
        calls: u32,
    },
    /// Nothing but zeros.
    Zero,
}

/// One period of a rank's input, of what it must get, and of something that is neither.
#[derive(Debug)]
pub(crate) struct Tables {
    /// Elements of a period; the tables may end earlier, where no call of this size reads.
    pub(crate) period: u64,
    /// Bytes of an element.
    pub(crate) size: usize,
    /// What the rank brings.
    pub(crate) input: Vec<u8>,
    /// What the rank gets.
    pub(crate) expected: Vec<u8>,
    /// What an output holds before: wrong in every element.
    pub(crate) poison: Vec<u8>,
}

/// Integers up to here are exact in the type; `None` if sums wrap instead.
fn exact_limit(dtype: DataType) -> Result<Option<i64>, Error> {
    match dtype {
        DataType::F32 => Ok(Some(1 << 24)),
        DataType::BF16 => Ok(Some(1 << 8)),
        DataType::I32 | DataType::U8 => Ok(None),
        _ => Err(Error::unsupported(format!("no data to check {} with; use -c 0", dtype.name()))),
    }
}

fn encode(dtype: DataType, value: i64, bytes: &mut Vec<u8>) {
    match dtype {
        DataType::F32 => bytes.extend((value as f32).to_le_bytes()),
        DataType::BF16 => bytes.extend(bf16::from_f32(value as f32).to_le_bytes()),
        _ => bytes.extend(&value.to_le_bytes()[..dtype.size()]), // integers wrap
    }
}

/// A well-mixed number from three (splitmix64's finaliser).
fn mix(seed: u64, a: u64, b: u64) -> u64 {
    let mut x = seed
        .wrapping_add(a.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(b.wrapping_mul(0xd1b5_4a32_d192_ed03))
        .wrapping_add(0x632b_e59b_d9b4_e019);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// How many ranks bring something to one element, and how much at most, so that every partial sum stays exact.
#[derive(Clone, Copy)]
struct Budget {
    active: u32,
    magnitude: u64,
}

impl Budget {
    fn new(call: &Call, data: Data) -> Result<Self, Error> {
        let limit = exact_limit(call.dtype)?;
        let wrapped = if call.dtype.size() == 1 { 100 } else { 1 << 20 };
        let (most_active, copies) = match (call.kind, data) {
            (Kind::ReduceScatter, Data::Repeated { calls }) => (3, 3 * (i64::from(calls) + 1)),
            _ => (if limit.is_some_and(|limit| limit < 1 << 12) { 15 } else { 4095 }, 0),
        };
        let active = call.ranks.min(most_active);
        let copies = copies.max(i64::from(active) + 1);
        let magnitude = limit.map_or(wrapped, |limit| (limit / copies).clamp(1, 1 << 16)) as u64;
        Ok(Budget { active, magnitude })
    }
}

/// The sum's contributions.
fn summand(call: &Call, data: Data, budget: Budget, rank: u32, j: u64) -> i64 {
    let (seed, cancels) = match data {
        Data::Plain { seed } => (seed, false),
        Data::Repeated { .. } => (1, call.kind == Kind::AllReduce && call.ranks > 1),
        Data::Zero => return 0,
    };
    // The active ranks are a window that moves with j.
    let first = mix(seed, j, 1 << 40) % u64::from(call.ranks);
    let place = (u64::from(rank) + u64::from(call.ranks) - first) % u64::from(call.ranks);
    if place >= u64::from(budget.active) {
        return 0;
    }
    let value = |place: u64| 1 + (mix(seed, j, place) % budget.magnitude) as i64;
    if !cancels {
        return value(place);
    }
    let in_last_three = budget.active % 2 == 1 && place + 3 >= u64::from(budget.active);
    match (in_last_three, place % 2) {
        (true, _) if place + 1 == u64::from(budget.active) => -2 * value(u64::from(budget.active)),
        (true, _) => value(u64::from(budget.active)),
        (false, 0) => value(place),
        (false, _) => -value(place - 1),
    }
}

/// The maximum's contributions: different on every rank, as far as the type goes.
fn candidate(dtype: DataType, data: Data, rank: u32, j: u64) -> i64 {
    let seed = match data {
        Data::Plain { seed } => seed,
        Data::Repeated { .. } => 1,
        Data::Zero => return 0,
    };
    let (range, lowest) = match dtype {
        DataType::U8 => (251, 0),
        DataType::BF16 => (509, -254),
        _ => (1_000_003, -500_001),
    };
    lowest + ((mix(seed, j, 7) + u64::from(rank) * 97) % range) as i64
}

/// What `rank` brings to element `j`, for a collective that reduces.
fn contribution(call: &Call, data: Data, budget: Budget, rank: u32, j: u64) -> i64 {
    match call.op {
        ReduceOp::Max => candidate(call.dtype, data, rank, j),
        _ => summand(call, data, budget, rank, j),
    }
}

/// What all ranks bring together: the same for every rank, and the most work to find out.
#[derive(Debug)]
pub(crate) struct Totals {
    call: Call,
    data: Data,
    /// One for each element of the part of the period that is used; none if nothing is reduced.
    totals: Vec<i64>,
}

impl Totals {
    /// The totals of a call.
    ///
    /// Errors: Unsupported, for a type or operation this file knows no exact data of.
    pub(crate) fn new(call: &Call, data: Data) -> Result<Self, Error> {
        let call = *call;
        if data == Data::Zero || !call.kind.row().reduces {
            return Ok(Totals { call, data, totals: Vec::new() });
        }
        if !matches!(call.op, ReduceOp::Sum | ReduceOp::Max) {
            let name = call.op.name();
            return Err(Error::unsupported(format!("no data to check the operation {name} with; use -c 0")));
        }
        let budget = Budget::new(&call, data)?;
        let total = |j| {
            let all = (0..call.ranks).map(|rank| contribution(&call, data, budget, rank, j));
            if call.op == ReduceOp::Max { all.max().unwrap_or(0) } else { all.sum() }
        };
        Ok(Totals { call, data, totals: (0..entries(&call)).map(total).collect() })
    }
}

impl Totals {
    /// What they are the totals of.
    pub(crate) fn call_and_data(&self) -> (&Call, Data) {
        (&self.call, self.data)
    }
}

/// The elements of the period that a call uses: no position in any rank's part lies beyond.
fn entries(call: &Call) -> u64 {
    let parts = match call.kind {
        Kind::AllReduce | Kind::Broadcast => 1,
        _ => u64::from(call.ranks),
    };
    period(call).min(call.count.saturating_mul(parts))
}

/// The result after the calls of `data`, from the own contribution and the first call's total.
fn after_calls(call: &Call, data: Data, own: i64, total: i64) -> i64 {
    match (call.kind, call.op, data) {
        (Kind::ReduceScatter, ReduceOp::Sum, Data::Repeated { calls }) => {
            own + i64::from(calls) * (total - own)
        }
        _ => total,
    }
}

/// The period: prime, and such that no two blocks of the call hold the same data.
fn period(call: &Call) -> u64 {
    let part = call.count / u64::from(call.ranks);
    let divides = |p: u64, count: u64| count > 0 && count.is_multiple_of(p);
    let clashes = |p: &u64| divides(*p, call.count) || divides(*p, part);
    [4093, 4091, 4079].into_iter().find(|p| !clashes(p)).unwrap_or(4093)
}

/// The next smaller number of calls for which [`Data::Repeated`] is exact and differs from doing nothing.
pub(crate) fn repeatable_calls(call: &Call, calls: u32) -> u32 {
    match (call.kind, exact_limit(call.dtype)) {
        (Kind::ReduceScatter, Ok(Some(limit))) if call.op == ReduceOp::Sum => {
            calls.min((limit / 3 - 1).clamp(1, 1 << 12) as u32)
        }
        // A full circle would bring everybody's own data back.
        (Kind::SendReceive, _) if calls > 1 && calls.is_multiple_of(call.ranks) => calls - 1,
        _ => calls,
    }
}

impl Tables {
    /// The data of one rank.
    ///
    /// Errors: Unsupported, for a type this file knows no exact data of.
    pub(crate) fn new(totals: &Totals, rank: u32) -> Result<Self, Error> {
        let Totals { call, data, totals } = totals;
        let size = call.dtype.size();
        let bytes = entries(call) as usize * size;
        let (mut input, mut expected) = (Vec::with_capacity(bytes), Vec::with_capacity(bytes));
        if *data == Data::Zero {
            input.resize(bytes, 0);
            expected.resize(bytes, 0);
        } else if call.kind.row().reduces {
            let budget = Budget::new(call, *data)?;
            for (j, &total) in totals.iter().enumerate() {
                let own = contribution(call, *data, budget, rank, j as u64);
                encode(call.dtype, own, &mut input);
                encode(call.dtype, after_calls(call, *data, own, total), &mut expected);
            }
        } else {
            let seed = if let Data::Plain { seed } = data { *seed } else { 1 };
            input.extend((0..bytes).map(|i| mix(seed, i as u64, 3) as u8)); // copies keep any bits
            expected.clone_from(&input);
        }
        let poison = expected.iter().map(|byte| !byte).collect();
        Ok(Tables { period: period(call), size, input, expected, poison })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::tests::call;

    fn exact(dtype: DataType, value: i64) -> bool {
        exact_limit(dtype).unwrap().is_none_or(|limit| value.abs() <= limit)
    }

    /// Every sum of any subset stays within the sum of the magnitudes.
    fn magnitudes(call: &Call, data: Data, j: u64) -> i64 {
        let budget = Budget::new(call, data).unwrap();
        (0..call.ranks).map(|r| summand(call, data, budget, r, j).abs()).sum()
    }

    const TYPES: [DataType; 4] = [DataType::F32, DataType::BF16, DataType::I32, DataType::U8];

    #[test]
    fn partial_sums_are_exact_in_any_order_for_every_type_and_rank_count() {
        for dtype in TYPES {
            for ranks in [1, 2, 3, 8, 15, 16, 17, 64, 384, 768] {
                let reduce = Call { dtype, ..call(Kind::AllReduce, 100, ranks) };
                for j in 0..50 {
                    for data in [Data::Plain { seed: 5 }, Data::Repeated { calls: 64 }] {
                        let most = magnitudes(&reduce, data, j);
                        assert!(exact(dtype, most), "{dtype:?} {ranks} {data:?}: {most}");
                    }
                }
            }
        }
    }

    #[test]
    fn repeated_contributions_cancel_in_an_all_reduce_and_none_is_zero_on_few_ranks() {
        for dtype in TYPES {
            for ranks in 2..=15 {
                let reduce = Call { dtype, ..call(Kind::AllReduce, 100, ranks) };
                let data = Data::Repeated { calls: 64 };
                let budget = Budget::new(&reduce, data).unwrap();
                for j in 0..50 {
                    let all: Vec<i64> = (0..ranks).map(|r| summand(&reduce, data, budget, r, j)).collect();
                    assert_eq!(all.iter().sum::<i64>(), 0, "{ranks} {all:?}");
                    assert!(all.iter().all(|&value| value != 0), "{ranks} {all:?}");
                }
            }
        }
    }

    #[test]
    fn a_repeated_reduce_scatter_counts_its_calls_exactly() {
        for dtype in TYPES {
            let scatter = Call { dtype, ..call(Kind::ReduceScatter, 100, 4) };
            let data = Data::Repeated { calls: 64 };
            let budget = Budget::new(&scatter, data).unwrap();
            for j in 0..50 {
                let all: Vec<i64> = (0..4).map(|r| summand(&scatter, data, budget, r, j)).collect();
                for own in 0..4 {
                    let mut value = all[own];
                    for _ in 0..64 {
                        value += all.iter().sum::<i64>() - all[own];
                        assert!(exact(dtype, value + all.iter().sum::<i64>()) || !dtype.row().is_float);
                    }
                    assert_eq!(after_calls(&scatter, data, all[own], all.iter().sum()), value);
                }
            }
            assert_eq!(repeatable_calls(&scatter, 64), 64);
        }
    }

    #[test]
    fn a_block_of_sends_round_a_ring_never_brings_the_own_data_back() {
        assert_eq!(repeatable_calls(&call(Kind::SendReceive, 1, 2), 64), 63);
        assert_eq!(repeatable_calls(&call(Kind::SendReceive, 1, 3), 64), 64);
        assert_eq!(repeatable_calls(&call(Kind::SendReceive, 1, 2), 1), 1);
    }

    #[test]
    fn doing_nothing_keeping_ones_own_and_poison_are_all_wrong() {
        for dtype in TYPES {
            for op in [ReduceOp::Sum, ReduceOp::Max] {
                for data in [Data::Plain { seed: 9 }, Data::Repeated { calls: 3 }] {
                    let reduce = Call { dtype, op, ..call(Kind::AllReduce, 64, 2) };
                    let ranks: Vec<Tables> = (0..2)
                        .map(|r| Tables::new(&Totals::new(&reduce, data).unwrap(), r).unwrap())
                        .collect();
                    assert_eq!(ranks[0].expected, ranks[1].expected);
                    let size = dtype.size();
                    for element in 0..64 {
                        let at = element * size..(element + 1) * size;
                        let kept =
                            ranks.iter().filter(|t| t.input[at.clone()] == t.expected[at.clone()]).count();
                        // The maximum is one rank's own number, but never both ranks'.
                        assert_eq!(
                            kept,
                            usize::from(op == ReduceOp::Max),
                            "{dtype:?} {op:?} {data:?} {element}"
                        );
                        assert_ne!(ranks[0].poison[at.clone()], ranks[0].expected[at]);
                    }
                }
            }
        }
    }

    #[test]
    fn swapped_blocks_are_different_data_even_when_the_count_is_the_usual_prime() {
        assert_ne!(period(&call(Kind::AllGather, 4093, 3)), 4093);
        assert_ne!(period(&call(Kind::AllReduce, 4093 * 8, 8)), 4093);
        assert_eq!(period(&call(Kind::AllReduce, 1 << 20, 8)), 4093);
    }
}
