//! What every rank brings to an element of a collective that reduces.

use super::Data;
use crate::call::Call;
use crate::target::{DataType, Error, F8E4M3, F8E5M2, Kind, ReduceOp};
use half::{bf16, f16};

/// Integers up to here are exact in the type; `None` if sums wrap instead.
pub(super) fn exact_limit(dtype: DataType) -> Result<Option<i64>, Error> {
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
pub(super) fn exponent_limit(dtype: DataType) -> Result<Option<i64>, Error> {
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
pub(super) fn limit(call: &Call) -> Result<Option<i64>, Error> {
    if call.op == ReduceOp::Prod { exponent_limit(call.dtype) } else { exact_limit(call.dtype) }
}

pub(super) fn encode(call: &Call, number: i64, bytes: &mut Vec<u8>) {
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
pub(super) fn power_of_three(exponent: i64) -> u64 {
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
pub(super) fn mix(seed: u64, a: u64, b: u64) -> u64 {
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
pub(super) struct Budget {
    pub(super) active: u32,
    magnitude: u64,
}

impl Budget {
    pub(super) fn new(call: &Call, data: Data) -> Result<Self, Error> {
        let limit = limit(call)?;
        let wrapped = match call.op {
            ReduceOp::Prod => 50, // the powers of 3 repeat after 64 in a byte
            _ if call.dtype.size() == 1 => 100,
            _ => 1 << 20,
        };
        let (most_active, copies) = match data {
            Data::Repeated { calls } if call.meets_others_again() => (3, 3 * (i64::from(calls) + 1)),
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
pub(super) fn summand(call: &Call, data: Data, budget: Budget, rank: u32, j: u64) -> i64 {
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
pub(super) fn contribution(call: &Call, data: Data, budget: Budget, rank: u32, j: u64) -> Result<i64, Error> {
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
pub(super) fn fold(call: &Call, all: impl Iterator<Item = i64>) -> i64 {
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
