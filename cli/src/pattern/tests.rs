//! That the data are exact in any order, and that wrong results differ from right ones.

use super::contribution::{exact_limit, exponent_limit, power_of_three, summand};
use super::*;
use crate::call::tests::call;
use crate::floats;
use crate::target::DataType;

fn exact(dtype: DataType, value: i64) -> bool {
    exact_limit(dtype).unwrap().is_none_or(|limit| value.abs() <= limit)
}

/// Every sum of any subset stays within the sum of the magnitudes.
fn magnitudes(call: &Call, data: Data, j: u64) -> i64 {
    let budget = Budget::new(call, data).unwrap();
    (0..call.ranks).map(|r| summand(call, data, budget, r, j).abs()).sum()
}

fn types() -> impl Iterator<Item = DataType> {
    DataType::TABLE.iter().map(|row| row.dtype)
}

fn pairs() -> impl Iterator<Item = (DataType, ReduceOp)> {
    let all = types().flat_map(|dtype| ReduceOp::TABLE.iter().map(move |row| (dtype, row.0)));
    all.filter(|(dtype, op)| op.supports(*dtype).is_ok() && *op != ReduceOp::PreMulSum)
}

#[test]
fn partial_sums_are_exact_in_any_order_for_every_type_and_rank_count() {
    for dtype in types() {
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
    for dtype in types() {
        for ranks in 2..=15 {
            let reduce = Call { dtype, ..call(Kind::AllReduce, 100, ranks) };
            let data = Data::Repeated { calls: 64 };
            let budget = Budget::new(&reduce, data).unwrap();
            for j in 0..50 {
                let all: Vec<i64> = (0..ranks).map(|r| summand(&reduce, data, budget, r, j)).collect();
                assert_eq!(all.iter().sum::<i64>(), 0, "{ranks} {all:?}");
                let some = budget.active < ranks;
                assert!(some || all.iter().all(|&value| value != 0), "{ranks} {all:?}");
            }
        }
    }
}

#[test]
fn a_repeated_reduce_scatter_or_reduce_counts_its_calls_exactly() {
    let kinds = [Kind::ReduceScatter, Kind::ReduceScatterV, Kind::Reduce];
    for (dtype, kind) in types().flat_map(|dtype| kinds.map(|kind| (dtype, kind))) {
        let scatter = Call { dtype, ..call(kind, 100, 4) };
        let calls = repeatable_calls(&scatter, 64);
        let data = Data::Repeated { calls };
        let budget = Budget::new(&scatter, data).unwrap();
        for j in 0..50 {
            let all: Vec<i64> = (0..4).map(|r| summand(&scatter, data, budget, r, j)).collect();
            for own in 0..4 {
                let mut value = all[own];
                for _ in 0..calls {
                    value += all.iter().sum::<i64>() - all[own];
                    assert!(exact(dtype, value + all.iter().sum::<i64>()) || !dtype.row().is_float);
                }
                assert_eq!(after_calls(&scatter, data, all[own], all.iter().sum()), value);
            }
        }
        let fewer = exact_limit(dtype).unwrap().is_some_and(|limit| limit < 195);
        assert_eq!(calls < 64, fewer, "{dtype:?}");
    }
}

#[test]
fn a_second_exchange_is_never_the_last() {
    for kind in [Kind::AllToAll, Kind::AllToAllV] {
        assert_eq!([1, 2, 63, 64].map(|calls| repeatable_calls(&call(kind, 1, 3), calls)), [1, 1, 63, 63]);
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
    for (dtype, op) in pairs() {
        for data in [Data::Plain { seed: 9 }, Data::Repeated { calls: 3 }] {
            let reduce = Call { dtype, op, ..call(Kind::AllReduce, 64, 2) };
            let ranks: Vec<Tables> =
                (0..2).map(|r| Tables::new(&Totals::new(&reduce, data).unwrap(), r).unwrap()).collect();
            assert_eq!(ranks[0].expected, ranks[1].expected);
            let size = dtype.size();
            for element in 0..64 {
                let at = element * size..(element + 1) * size;
                let kept = ranks.iter().filter(|t| t.input[at.clone()] == t.expected[at.clone()]).count();
                // The extreme is one rank's own number, but never both ranks'.
                assert_eq!(
                    kept,
                    usize::from(matches!(op, ReduceOp::Max | ReduceOp::Min)),
                    "{dtype:?} {op:?} {data:?} {element}"
                );
                assert_ne!(ranks[0].poison[at.clone()], ranks[0].expected[at]);
            }
        }
    }
}

#[test]
fn swapped_blocks_are_different_data_even_when_the_count_is_the_usual_prime() {
    assert_ne!(period(&call(Kind::AllGather, 4093, 3)), 4093);
    assert_ne!(period(&call(Kind::AllReduce, 4093 * 8, 8)), 4093);
    assert_ne!(period(&call(Kind::AllToAll, 7, 4093)), 4093);
    assert_ne!(period(&call(Kind::AllToAllV, 4093 + 1, 3)), 4093);
    assert_eq!(period(&call(Kind::AllReduce, 1 << 20, 8)), 4093);
}

/// The value of a float's bits, by the layout of the type.
fn value(dtype: DataType, bytes: &[u8]) -> f64 {
    let mut whole = [0; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    floats::of(dtype.name()).expect("it is a float").value(u64::from_le_bytes(whole))
}

/// One call's inputs and expected outputs, rank by rank, as values.
fn columns(call: &Call, data: Data) -> Vec<(Vec<f64>, Vec<f64>)> {
    let totals = Totals::new(call, data).unwrap();
    let values = |bytes: &[u8]| bytes.chunks(call.dtype.size()).map(|b| value(call.dtype, b)).collect();
    let tables = (0..call.ranks).map(|rank| Tables::new(&totals, rank).unwrap());
    tables.map(|tables| (values(&tables.input), values(&tables.expected))).collect()
}

/// The smallest and the largest product of any of the contributions are powers of two that the type has.
#[test]
fn partial_products_of_floats_are_exact_in_any_order() {
    for dtype in types().filter(|dtype| dtype.row().is_float) {
        for ranks in [1, 2, 3, 8, 16, 384] {
            let reduce = Call { dtype, op: ReduceOp::Prod, ..call(Kind::AllReduce, 50, ranks) };
            for data in [Data::Plain { seed: 5 }, Data::Repeated { calls: 64 }] {
                let columns = columns(&reduce, data);
                for j in 0..50 {
                    let exponents = columns.iter().map(|(input, _)| input[j].log2());
                    let (up, down): (Vec<f64>, Vec<f64>) = exponents.partition(|&exponent| exponent > 0.0);
                    let most = exponent_limit(dtype).unwrap().unwrap() as f64;
                    assert!(
                        up.iter().sum::<f64>() <= most && down.iter().sum::<f64>() >= -most,
                        "{reduce:?}"
                    );
                    let product: f64 = columns.iter().map(|(input, _)| input[j]).product();
                    assert!(columns.iter().all(|(_, expected)| expected[j] == product), "{reduce:?}");
                }
            }
        }
    }
}

#[test]
fn averages_of_floats_are_exact_and_stay_what_they_are_when_repeated() {
    for dtype in types().filter(|dtype| dtype.row().is_float) {
        for ranks in [1, 2, 3, 8, 15, 384] {
            let reduce = Call { dtype, op: ReduceOp::Avg, ..call(Kind::AllReduce, 50, ranks) };
            let columns = columns(&reduce, Data::Plain { seed: 5 });
            for j in 0..50 {
                let magnitudes: f64 = columns.iter().map(|(input, _)| input[j].abs()).sum();
                assert!(magnitudes <= f64::from(1 << 24), "sums are exact in f32");
                let mean = columns.iter().map(|(input, _)| input[j]).sum::<f64>() / f64::from(ranks);
                assert!(columns.iter().all(|(_, expected)| expected[j] == mean), "{reduce:?} {j}");
            }
        }
    }
}

#[test]
fn powers_of_three_have_inverses() {
    assert_eq!((power_of_three(0), power_of_three(1), power_of_three(5)), (1, 3, 243));
    assert_eq!(power_of_three(-7).wrapping_mul(power_of_three(7)), 1);
}

#[test]
fn repeated_exclusive_ors_vanish_in_an_all_reduce_and_are_odd_in_a_reduce_scatter() {
    for ranks in 2..9 {
        let reduce = Call { dtype: DataType::U8, op: ReduceOp::Xor, ..call(Kind::AllReduce, 9, ranks) };
        assert!(
            Totals::new(&reduce, Data::Repeated { calls: 3 }).unwrap().totals.iter().all(|&total| total == 0)
        );
        for kind in [Kind::ReduceScatter, Kind::Reduce, Kind::ReduceScatterV] {
            let scatter = Call { kind, ..reduce };
            assert_eq!((repeatable_calls(&scatter, 64), repeatable_calls(&scatter, 1)), (63, 1));
        }
    }
}
