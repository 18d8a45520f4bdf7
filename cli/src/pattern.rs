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
//!   (+v, +v, −2v on three), so that the first call must make zero, and every later one keep it. A reduce-scatter or a
//!   reduce adds the others' constant contributions once per call, so the result counts the calls. A send/receive
//!   hands the data once further round the ring per call, and an all-to-all brings them back with every second.
//! - [`Data::Zero`]: the fixed point of the above, the bulk of a long timed run in which a few elements carry plain
//!   data (`layout.rs`).

mod contribution;

use crate::call::Call;
use crate::target::{Error, Kind, ReduceOp};
use contribution::{Budget, contribution, encode, fold, limit, mix};

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
    let buffers = match call.shape() {
        Kind::SendReceive | Kind::AllToAll => u64::from(call.ranks),
        _ => 1, // all ranks' buffers are parts of one
    };
    period(call).min(call.elements().saturating_mul(buffers))
}

/// The result after the calls of `data`, from the own contribution and the first call's total.
fn after_calls(call: &Call, data: Data, own: i64, total: i64) -> i64 {
    match (call.op, data) {
        (ReduceOp::Sum | ReduceOp::Prod, Data::Repeated { calls }) if call.meets_others_again() => {
            own + i64::from(calls) * (total - own)
        }
        _ => total,
    }
}

/// The period: prime, and such that no two parts of a buffer hold the same data. Parts are apart by multiples of the
/// count, or of a share of it, by one more where tables share out what is left over, and by as many parts as there are
/// ranks.
fn period(call: &Call) -> u64 {
    let (count, ranks) = (call.count, u64::from(call.ranks));
    let share = count / ranks;
    let distances = [count, count.saturating_sub(1), count + 1, share, share + 1, ranks];
    let clashes = |p: &u64| distances.iter().any(|&distance| distance > 0 && distance.is_multiple_of(*p));
    [4093, 4091, 4079, 4073, 4057, 4051].into_iter().find(|p| !clashes(p)).unwrap_or(4093)
}

/// The next smaller number of calls for which [`Data::Repeated`] is exact and differs from doing nothing.
pub(crate) fn repeatable_calls(call: &Call, calls: u32) -> u32 {
    let odd = calls - u32::from(calls.is_multiple_of(2));
    match (call.shape(), call.op) {
        (Kind::ReduceScatter | Kind::Reduce, ReduceOp::Sum | ReduceOp::Prod) => match limit(call) {
            Ok(Some(limit)) => calls.min((limit / 3 - 1).clamp(1, 1 << 12) as u32),
            _ => calls,
        },
        // The average of an average is another number, rounded.
        (Kind::ReduceScatter | Kind::Reduce, ReduceOp::Avg) => 1,
        // Two exclusive ors of the same are none.
        (Kind::ReduceScatter | Kind::Reduce, ReduceOp::Xor) => odd,
        // The second exchange undoes the first.
        (Kind::AllToAll, _) => odd,
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
