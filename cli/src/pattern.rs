//! The data of the check: numbers for which any order of reduction gives the same bits, repeated with a prime period,
//! and what they must become.
//!
//! Every contribution is a whole number that stands for an element, and the ranks' numbers are folded exactly:
//!
//! | operation | the number is | the numbers are | folded by |
//! |---|---|---|---|
//! | sum | the value | small enough that every partial sum is exact | addition |
//! | prod | an exponent, of 2 in floats and of 3 in integers, which wrap | small enough for the exponent | addition |
//! | max, min | the value | different on every rank, as far as the type goes | comparison |
//! | avg | the value | a mean plus deviations that cancel, so the quotient is exact | the mean |
//! | or, xor | the bits | one bit of two for each of four ranks; any bits | or, xor |
//! | and | the bits | the complement of or's | and |
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
use crate::target::{DataType, Error, F8E4M3, F8E5M2, Kind, ReduceOp};
use half::{bf16, f16};

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
        DataType::F64 => Ok(Some(1 << 53)),
        DataType::F32 => Ok(Some(1 << 24)),
        DataType::F16 => Ok(Some(1 << 11)),
        DataType::BF16 => Ok(Some(1 << 8)),
        DataType::F8E4M3 => Ok(Some(1 << 4)),
        DataType::F8E5M2 => Ok(Some(1 << 3)),
        _ if !dtype.row().is_float => Ok(None),
        _ => Err(Error::unsupported(format!("no data to check {} with; use -c 0", dtype.name()))),
    }
}

/// Powers of two up to here, and their inverses, are exact in the type; `None` if products wrap instead.
fn exponent_limit(dtype: DataType) -> Result<Option<i64>, Error> {
    let limit = match dtype {
        DataType::F8E4M3 => 6,
        DataType::F8E5M2 | DataType::F16 => 14,
        DataType::BF16 | DataType::F32 => 126,
        DataType::F64 => 1022,
        _ => return exact_limit(dtype), // there is none, or none is known
    };
    Ok(Some(limit))
}

/// The contributions' numbers and their partial sums stay within this.
fn limit(call: &Call) -> Result<Option<i64>, Error> {
    if call.op == ReduceOp::Prod { exponent_limit(call.dtype) } else { exact_limit(call.dtype) }
}

fn encode(call: &Call, number: i64, bytes: &mut Vec<u8>) {
    let (dtype, is_product) = (call.dtype, call.op == ReduceOp::Prod && call.kind.row().reduces);
    let value = if is_product { 2.0_f64.powi(number as i32) } else { number as f64 };
    match dtype {
        DataType::F64 => bytes.extend(value.to_le_bytes()),
        DataType::F32 => bytes.extend((value as f32).to_le_bytes()),
        DataType::F16 => bytes.extend(f16::from_f64(value).to_le_bytes()),
        DataType::BF16 => bytes.extend(bf16::from_f64(value).to_le_bytes()),
        DataType::F8E4M3 => bytes.push(F8E4M3::from_f32(value as f32).0),
        DataType::F8E5M2 => bytes.push(F8E5M2::from_f32(value as f32).0),
        _ if is_product => bytes.extend(&power_of_three(number).to_le_bytes()[..dtype.size()]),
        _ => bytes.extend(&number.to_le_bytes()[..dtype.size()]), // integers wrap
    }
}

/// 3 to any power, modulo 2⁶⁴, where 3 has an inverse.
fn power_of_three(exponent: i64) -> u64 {
    const INVERSE: u64 = 0xaaaa_aaaa_aaaa_aaab;
    let base = if exponent < 0 { INVERSE } else { 3 };
    let mut bits = exponent.unsigned_abs();
    let (mut power, mut square) = (1_u64, base);
    while bits > 0 {
        if bits & 1 == 1 {
            power = power.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        bits >>= 1;
    }
    power
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
        let limit = limit(call)?;
        let wrapped = match call.op {
            ReduceOp::Prod => 50, // the powers of 3 repeat after 64 in a byte
            _ if call.dtype.size() == 1 => 100,
            _ => 1 << 20,
        };
        let (most_active, copies) = match (call.kind, data) {
            (Kind::ReduceScatter, Data::Repeated { calls }) => (3, 3 * (i64::from(calls) + 1)),
            _ => (most_active(limit), 0),
        };
        let active = call.ranks.min(most_active);
        let copies = copies.max(i64::from(active) + 1);
        let magnitude = limit.map_or(wrapped, |limit| (limit / copies).clamp(1, 1 << 16)) as u64;
        Ok(Budget { active, magnitude })
    }

    /// For deviations from a mean: they fold wide, so only each value has to be exact.
    fn of_deviations(call: &Call) -> Result<Self, Error> {
        let (_, spread) = mean_and_spread(call.dtype)?;
        Ok(Budget { active: call.ranks.min(4095), magnitude: spread as u64 })
    }
}

/// The less room there is, the fewer ranks share it, so that their numbers still differ.
fn most_active(limit: Option<i64>) -> u32 {
    match limit {
        Some(..32) => 2,
        Some(..4096) => 15,
        _ => 4095,
    }
}

/// The rank's place among those that bring something to an element: a window that moves with j.
fn place(call: &Call, budget: Budget, seed: u64, rank: u32, j: u64) -> Option<u64> {
    let first = mix(seed, j, 1 << 40) % u64::from(call.ranks);
    let place = (u64::from(rank) + u64::from(call.ranks) - first) % u64::from(call.ranks);
    (place < u64::from(budget.active)).then_some(place)
}

/// The sum's contributions, and the product's exponents.
fn summand(call: &Call, data: Data, budget: Budget, rank: u32, j: u64) -> i64 {
    let (seed, cancels) = match data {
        Data::Plain { seed } => (seed, false),
        Data::Repeated { .. } => (1, call.kind == Kind::AllReduce && call.ranks > 1),
        Data::Zero => return 0,
    };
    let Some(place) = place(call, budget, seed, rank, j) else { return 0 };
    if cancels { deviation(budget, seed, place, j) } else { magnitude(budget, seed, place, j) }
}

fn magnitude(budget: Budget, seed: u64, place: u64, j: u64) -> i64 {
    1 + (mix(seed, j, place) % budget.magnitude) as i64
}

/// Contributions of both signs, whose sum is zero.
fn deviation(budget: Budget, seed: u64, place: u64, j: u64) -> i64 {
    let value = |place: u64| magnitude(budget, seed, place, j);
    let last = u64::from(budget.active);
    let in_last_three = budget.active % 2 == 1 && place + 3 >= last;
    match (in_last_three, place % 2) {
        (true, _) if place + 1 == last => -2 * value(last),
        (true, _) => value(last),
        (false, 0) => value(place),
        (false, _) => -value(place - 1),
    }
}

/// An average's means lie between −m and m, of unsigned types between m and 2m, and its deviations between −2d and d,
/// so that every value is exact in the type: m and d.
fn mean_and_spread(dtype: DataType) -> Result<(i64, i64), Error> {
    let room = match (exact_limit(dtype)?, dtype.size()) {
        (Some(limit), _) => limit.min(1 << 12),
        (None, 1) => 100,
        (None, _) => 1 << 12,
    };
    Ok((room / 2, room / 4))
}

fn is_unsigned(dtype: DataType) -> bool {
    matches!(dtype, DataType::U8 | DataType::U16 | DataType::U32 | DataType::U64)
}

/// The average's contributions: the mean is the same on every rank, the deviations cancel.
fn around_a_mean(call: &Call, seed: u64, rank: u32, j: u64) -> Result<i64, Error> {
    let (most, _) = mean_and_spread(call.dtype)?;
    let mean = match is_unsigned(call.dtype) {
        true => most + (mix(seed, j, 11) % most as u64) as i64,
        false => (mix(seed, j, 11) % (2 * most as u64 + 1)) as i64 - most,
    };
    let budget = Budget::of_deviations(call)?;
    let place = place(call, budget, seed, rank, j).filter(|_| call.ranks > 1);
    Ok(mean + place.map_or(0, |place| deviation(budget, seed, place, j)))
}

/// The maximum's and minimum's contributions: different on every rank, as far as the type goes, and spread over the
/// range, so that every rank has the extreme of some elements.
fn candidate(call: &Call, seed: u64, rank: u32, j: u64) -> i64 {
    let (range, lowest) = match call.dtype {
        DataType::U8 => (251, 0),
        DataType::I8 => (251, -125),
        DataType::U16 => (65_521, 0),
        DataType::I16 => (65_521, -32_760),
        DataType::U32 | DataType::U64 => (1_000_003, 0),
        DataType::BF16 => (509, -254),
        DataType::F16 => (4093, -2046),
        DataType::F8E4M3 => (31, -15),
        DataType::F8E5M2 => (15, -7),
        _ => (1_000_003, -500_001),
    };
    let step = (range / u64::from(call.ranks)).max(1);
    lowest + ((mix(seed, j, 7) % range + u64::from(rank) * step) % range) as i64
}

/// The or's contributions: each of four ranks sets one bit of its own two.
fn own_bit(call: &Call, seed: u64, rank: u32, j: u64) -> i64 {
    let budget = Budget { active: call.ranks.min(4), magnitude: 1 };
    let bit = |place: u64| 1 << (2 * place + (mix(seed, j, place) & 1));
    place(call, budget, seed, rank, j).map_or(0, bit)
}

/// The exclusive or's contributions. Where they must cancel: v twice, and v, w and both together for the last three.
fn bits(call: &Call, data: Data, seed: u64, rank: u32, j: u64) -> i64 {
    let any = |place: u64| mix(seed, j, place) as i64 | 1; // odd, so that none is 0 in any type
    let cancels = matches!(data, Data::Repeated { .. }) && call.kind == Kind::AllReduce && call.ranks > 1;
    if !cancels {
        return any(u64::from(rank));
    }
    let (rank, last) = (u64::from(rank), u64::from(call.ranks));
    let (v, w) = (any(last), (any(last + 1) | 2) & !1); // odd and even, so they differ
    match (last % 2 == 1, last - rank) {
        (true, 1) => v ^ w,
        (true, 2) => w,
        (true, 3) => v,
        _ => any(rank & !1),
    }
}

/// What `rank` brings to element `j`, for a collective that reduces.
fn contribution(call: &Call, data: Data, budget: Budget, rank: u32, j: u64) -> Result<i64, Error> {
    let seed = match data {
        Data::Plain { seed } => seed,
        Data::Repeated { .. } => 1,
        Data::Zero => return Ok(0),
    };
    Ok(match call.op {
        ReduceOp::Sum | ReduceOp::Prod => summand(call, data, budget, rank, j),
        ReduceOp::Max | ReduceOp::Min => candidate(call, seed, rank, j),
        ReduceOp::Avg => around_a_mean(call, seed, rank, j)?,
        ReduceOp::Or => own_bit(call, seed, rank, j),
        ReduceOp::And => !own_bit(call, seed, rank, j),
        ReduceOp::Xor => bits(call, data, seed, rank, j),
        other => {
            let name = other.name();
            return Err(Error::unsupported(format!("no data to check the operation {name} with; use -c 0")));
        }
    })
}

/// All ranks' contributions together.
fn fold(call: &Call, all: impl Iterator<Item = i64>) -> i64 {
    match call.op {
        ReduceOp::Max => all.max().unwrap_or(0),
        ReduceOp::Min => all.min().unwrap_or(0),
        ReduceOp::Avg => all.sum::<i64>() / i64::from(call.ranks), // a whole number
        ReduceOp::And => all.fold(-1, |a, b| a & b),
        ReduceOp::Or => all.fold(0, |a, b| a | b),
        ReduceOp::Xor => all.fold(0, |a, b| a ^ b),
        _ => all.sum(),
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
        let budget = Budget::new(&call, data)?;
        let total = |j| {
            let all = (0..call.ranks).map(|rank| contribution(&call, data, budget, rank, j));
            Ok(fold(&call, all.collect::<Result<Vec<_>, _>>()?.into_iter()))
        };
        Ok(Totals { call, data, totals: (0..entries(&call)).map(total).collect::<Result<_, Error>>()? })
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
        (Kind::ReduceScatter, ReduceOp::Sum | ReduceOp::Prod, Data::Repeated { calls }) => {
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
    match (call.kind, limit(call)) {
        (Kind::ReduceScatter, Ok(Some(limit))) if matches!(call.op, ReduceOp::Sum | ReduceOp::Prod) => {
            calls.min((limit / 3 - 1).clamp(1, 1 << 12) as u32)
        }
        // The average of an average is another number, rounded.
        (Kind::ReduceScatter, _) if call.op == ReduceOp::Avg => 1,
        // Two exclusive ors of the same are none.
        (Kind::ReduceScatter, _) if call.op == ReduceOp::Xor => calls - u32::from(calls.is_multiple_of(2)),
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
                let own = contribution(call, *data, budget, rank, j as u64)?;
                encode(call, own, &mut input);
                encode(call, after_calls(call, *data, own, total), &mut expected);
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
mod tests;
