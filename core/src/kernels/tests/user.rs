//! Users' functions: what they are given, in which order, and what their panics do.

use super::{GUARD, Level, run};
use crate::{DataType, ErrorKind, ReduceOp, UserOp};

/// 10 a + b, wrapping: neither commutes nor associates, so any other order or nesting shows.
fn append(context: usize, accumulator: &mut [u8], next: &[u8], dtype: DataType) {
    assert_eq!((context, accumulator.len()), (7, next.len()));
    assert!(!next.is_empty() && next.len().is_multiple_of(dtype.size()), "whole elements");
    for slice in [accumulator.as_ptr(), next.as_ptr()] {
        assert!(slice.addr().is_multiple_of(dtype.size()), "where the type wants them");
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |n, &byte| n << 8 | u64::from(byte));
    for (a, b) in accumulator.chunks_exact_mut(dtype.size()).zip(next.chunks_exact(dtype.size())) {
        let appended = number(a).wrapping_mul(10).wrapping_add(number(b)).to_le_bytes();
        a.copy_from_slice(&appended[..dtype.size()]);
    }
}

static APPEND: UserOp = UserOp::new("append", false, append, 7);

/// The same by definition.
fn appended(dtype: DataType, sources: &[&[u8]]) -> Vec<u8> {
    let size = dtype.size();
    let number =
        |source: &[u8], at: usize| (0..size).rfold(0_u128, |n, k| n << 8 | u128::from(source[at + k]));
    let element = |at: usize| {
        let fold = sources.iter().map(|source| number(source, at)).reduce(|a, b| (a * 10 + b) % (1 << 64));
        fold.unwrap().to_le_bytes().into_iter().take(size)
    };
    (0..sources[0].len()).step_by(size).flat_map(element).collect()
}

#[test]
fn a_users_function_folds_every_type_in_list_order_wherever_dst_is() {
    let pool: Vec<u8> = (0..50_000_u32).map(|k| (k.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for level in Level::available() {
        for row in DataType::TABLE {
            // Around the bites of the kernel, and from odd addresses.
            for (count, n) in
                [(0, 2), (1, 3), (7, 2), (2048 / row.size, 4), (2048 / row.size + 1, 3), (3001, 2)]
            {
                let bytes = count * row.size;
                let sources: Vec<&[u8]> = (0..n).map(|k| &pool[k * 1001 + 1..][..bytes]).collect();
                let expected = appended(row.dtype, &sources);
                for in_place in (0..n).map(Some).chain([None]) {
                    let result = run(level, (row.dtype, ReduceOp::User(&APPEND)), &sources, 3, in_place);
                    assert!(result == expected, "{row:?} count {count} of {n}, in place {in_place:?}");
                }
            }
        }
    }
}

#[test]
fn one_source_is_copied_and_the_function_not_called() {
    fn never(_: usize, _: &mut [u8], _: &[u8], _: DataType) {
        panic!("there is nothing to combine");
    }
    static NEVER: UserOp = UserOp::new("never", true, never, 0);
    let best = Level::best();
    assert_eq!(run(best, (DataType::I16, ReduceOp::User(&NEVER)), &[&[1, 2]], 1, None), [1, 2]);
    assert_eq!(run(best, (DataType::I16, ReduceOp::User(&NEVER)), &[&[], &[]], 1, None), []);
}

#[test]
fn a_panic_in_a_users_function_is_an_error_and_nothing_outside_dst_is_written() {
    fn picky(_: usize, accumulator: &mut [u8], next: &[u8], _: DataType) {
        accumulator.fill(0);
        assert!(!next.contains(&13), "thirteen");
    }
    static PICKY: UserOp = UserOp::new("picky", true, picky, 0);
    let (a, mut b) = (vec![1_u8; 5000], vec![2_u8; 5000]);
    b[4000] = 13; // in the second bite
    let mut dst = vec![GUARD; 5002];
    let sources = [a.as_ptr(), b.as_ptr()];
    let into = dst[1..].as_mut_ptr();
    // SAFETY: all are 5000 bytes from there on, and apart.
    let result = unsafe { super::reduce(DataType::U8, ReduceOp::User(&PICKY), &sources, into, 5000) };
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Remote);
    assert!(error.message().contains("'picky' panicked (thirteen)"), "{error}");
    assert_eq!((dst[0], dst[5001]), (GUARD, GUARD));
}
