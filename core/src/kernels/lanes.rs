//! What the vector levels share: the walk over memory, and the table of kernels.
//!
//! A kernel is put together from three small parts, so that types and operations add up instead of multiplying:
//! a [`Machine`] moves registers to and from memory, a [`Format`] widens and narrows one stored type, and a
//! [`Combine`] is one operation on a wide type. bf16 and f32 use the same combinations.
//!
//! The walk keeps a block of accumulators in registers while it goes through the sources, and stores the block when
//! every source has been read. So sources are read once, dst is written once, and dst may be one of the sources.
//! Many sources are taken in groups over a bite of a page each, with the bite's accumulators on the stack.
//!
//! Everything here is inlined into functions of the level that enable its instructions.
#![allow(unsafe_code)] // kernels work on raw pointers, because their memory may belong to other processes

use std::mem::MaybeUninit;

/// The registers of one level.
pub(super) trait Machine {
    /// One register of raw bytes.
    type Register: Copy;
    /// Its size.
    const BYTES: usize;

    /// Loads a whole register from any address.
    ///
    /// # Safety
    /// The processor has this machine; `BYTES` are readable at `from`.
    unsafe fn load(from: *const u8) -> Self::Register;

    /// Stores a whole register to any address.
    ///
    /// # Safety
    /// The processor has this machine; `BYTES` are writable at `to`.
    unsafe fn store(to: *mut u8, register: Self::Register);

    /// Loads `bytes` and fills up with zeros; touches nothing behind them.
    ///
    /// # Safety
    /// The processor has this machine; `0 < bytes < BYTES`; `bytes` are readable at `from`.
    unsafe fn load_part(from: *const u8, bytes: usize) -> Self::Register;

    /// Stores the first `bytes` of a register; touches nothing behind them.
    ///
    /// # Safety
    /// The processor has this machine; `0 < bytes < BYTES`; `bytes` are writable at `to`.
    unsafe fn store_part(to: *mut u8, bytes: usize, register: Self::Register);
}

/// One stored type on a machine.
pub(super) trait Format<M: Machine> {
    /// A register's elements as they are accumulated. Their order inside is the format's own affair.
    type Wide: Copy;

    /// Widens a register of stored elements; exact.
    ///
    /// # Safety
    /// The processor has the machine.
    unsafe fn widen(stored: M::Register) -> Self::Wide;

    /// Rounds to stored elements, NaN to the canonical one.
    ///
    /// # Safety
    /// The processor has the machine.
    unsafe fn narrow(wide: Self::Wide) -> M::Register;
}

/// One operation on a wide type.
pub(super) trait Combine<Wide> {
    /// `a` is the fold so far, `b` the next source.
    ///
    /// # Safety
    /// The processor has the machine that `Wide` belongs to.
    unsafe fn combine(a: Wide, b: Wide) -> Wide;

    /// What is narrowed, from the fold of all sources. For an average, the quotient.
    ///
    /// # Safety
    /// As for [`Combine::combine`].
    #[inline(always)]
    unsafe fn finish(fold: Wide, _sources: usize) -> Wide {
        fold
    }
}

/// A format that needs two wide registers for one stored one uses the operations of the single register.
impl<Wide: Copy, Op: Combine<Wide>> Combine<[Wide; 2]> for Op {
    #[inline(always)]
    unsafe fn combine(a: [Wide; 2], b: [Wide; 2]) -> [Wide; 2] {
        // SAFETY: the caller has the machine.
        let first = unsafe { Op::combine(a[0], b[0]) };
        // SAFETY: the same.
        let second = unsafe { Op::combine(a[1], b[1]) };
        [first, second]
    }

    #[inline(always)]
    unsafe fn finish(fold: [Wide; 2], sources: usize) -> [Wide; 2] {
        // SAFETY: the caller has the machine.
        let first = unsafe { Op::finish(fold[0], sources) };
        // SAFETY: the same.
        let second = unsafe { Op::finish(fold[1], sources) };
        [first, second]
    }
}

/// Names things that each level implements.
macro_rules! markers {
    ($($name:ident)*) => {$( pub(super) enum $name {} )*};
}
markers!(Integers F16 Bf16 F32 F64 F8E4M3 F8E5M2); // formats
markers!(And Or Xor Add8 Add16 Add32 Add64 Mul8 Mul16 Mul32 Mul64); // combinations
markers!(MaxI8 MaxU8 MaxI16 MaxU16 MaxI32 MaxU32 MaxI64 MaxU64);
markers!(MinI8 MinU8 MinI16 MinU16 MinI32 MinU32 MinI64 MinU64);
markers!(SumF32 ProdF32 MaxF32 MinF32 AvgF32 SumF64 ProdF64 MaxF64 MinF64 AvgF64);

/// The table of kernels: which format and which combination make up each type and operation.
/// `kernel_table!(dtype, op, f(arguments), else g)` calls `f::<Format, Combination>(arguments)`, or evaluates `g` where
/// there is no vector kernel.
macro_rules! kernel_table {
    ($dtype:expr, $op:expr, $call:ident $arguments:tt, else $scalar:expr) => {
        kernel_table! { @match $dtype, $op, $call $arguments, $scalar;
            [I8 | U8] Sum => Integers, Add8;
            [I16 | U16] Sum => Integers, Add16;
            [I32 | U32] Sum => Integers, Add32;
            [I64 | U64] Sum => Integers, Add64;
            [I8 | U8] Prod => Integers, Mul8;
            [I16 | U16] Prod => Integers, Mul16;
            [I32 | U32] Prod => Integers, Mul32;
            [I64 | U64] Prod => Integers, Mul64;
            [I8] Max => Integers, MaxI8;
            [U8] Max => Integers, MaxU8;
            [I16] Max => Integers, MaxI16;
            [U16] Max => Integers, MaxU16;
            [I32] Max => Integers, MaxI32;
            [U32] Max => Integers, MaxU32;
            [I64] Max => Integers, MaxI64;
            [U64] Max => Integers, MaxU64;
            [I8] Min => Integers, MinI8;
            [U8] Min => Integers, MinU8;
            [I16] Min => Integers, MinI16;
            [U16] Min => Integers, MinU16;
            [I32] Min => Integers, MinI32;
            [U32] Min => Integers, MinU32;
            [I64] Min => Integers, MinI64;
            [U64] Min => Integers, MinU64;
            [I8 | U8 | I16 | U16 | I32 | U32 | I64 | U64] And => Integers, And;
            [I8 | U8 | I16 | U16 | I32 | U32 | I64 | U64] Or => Integers, Or;
            [I8 | U8 | I16 | U16 | I32 | U32 | I64 | U64] Xor => Integers, Xor;
            [F16] Sum => F16, SumF32;
            [F16] Prod => F16, ProdF32;
            [F16] Max => F16, MaxF32;
            [F16] Min => F16, MinF32;
            [F16] Avg => F16, AvgF32;
            [BF16] Sum => Bf16, SumF32;
            [BF16] Prod => Bf16, ProdF32;
            [BF16] Max => Bf16, MaxF32;
            [BF16] Min => Bf16, MinF32;
            [BF16] Avg => Bf16, AvgF32;
            [F32] Sum => F32, SumF32;
            [F32] Prod => F32, ProdF32;
            [F32] Max => F32, MaxF32;
            [F32] Min => F32, MinF32;
            [F32] Avg => F32, AvgF32;
            [F64] Sum => F64, SumF64;
            [F64] Prod => F64, ProdF64;
            [F64] Max => F64, MaxF64;
            [F64] Min => F64, MinF64;
            [F64] Avg => F64, AvgF64;
            [F8E4M3] Sum => F8E4M3, SumF32;
            [F8E4M3] Prod => F8E4M3, ProdF32;
            [F8E4M3] Max => F8E4M3, MaxF32;
            [F8E4M3] Min => F8E4M3, MinF32;
            [F8E4M3] Avg => F8E4M3, AvgF32;
            [F8E5M2] Sum => F8E5M2, SumF32;
            [F8E5M2] Prod => F8E5M2, ProdF32;
            [F8E5M2] Max => F8E5M2, MaxF32;
            [F8E5M2] Min => F8E5M2, MinF32;
            [F8E5M2] Avg => F8E5M2, AvgF32;
        }
    };
    (@match $dtype:expr, $op:expr, $call:ident $arguments:tt, $scalar:expr;
     $([$($type:ident)|+] $name:ident => $format:ident, $combine:ident;)*) => {{
        use $crate::DataType::*;
        use $crate::ReduceOp::*;
        match ($dtype, $op) {
            $(($($type)|+, $name) => {
                // SAFETY: the function around this table has the same contract as the kernels in it.
                unsafe { $call::<lanes::$format, lanes::$combine> $arguments }
            })*
            // An integer average needs wider sums and a division, which no vector unit has.
            (I8 | U8 | I16 | U16 | I32 | U32 | I64 | U64, Avg) => $scalar,
            // Refused before it comes here; the scalar level says so.
            (F16 | BF16 | F32 | F64 | F8E4M3 | F8E5M2, And | Or | Xor) => $scalar,
            (_, PreMulSum | User(_)) => $scalar,
        }
    }};
}
pub(super) use kernel_table;

/// Implements formats for a machine: `Name: Wide, widen(stored) => …, narrow(wide) => …;`
macro_rules! formats {
    ($features:literal $machine:ty; $($format:ident: $wide_type:ty,
     widen($stored:ident) => $widen:expr, narrow($wide:ident) => $narrow:expr;)*) => {$(
        impl lanes::Format<$machine> for lanes::$format {
            type Wide = $wide_type;
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn widen($stored: <$machine as lanes::Machine>::Register) -> $wide_type { $widen }
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn narrow($wide: $wide_type) -> <$machine as lanes::Machine>::Register { $narrow }
        }
    )*};
}
pub(super) use formats;

/// Implements combinations on a machine: `Name(a, b: Wide) => …;`
macro_rules! combinations {
    ($features:literal; $($combine:ident($a:ident, $b:ident: $wide:ty) => $result:expr;)*) => {$(
        impl lanes::Combine<$wide> for lanes::$combine {
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn combine($a: $wide, $b: $wide) -> $wide { $result }
        }
    )*};
}
pub(super) use combinations;

/// Implements averages on a machine: `Name(sum, n: Wide), as Sum => quotient;`, where `n` is the number of sources.
macro_rules! averages {
    ($features:literal; $($average:ident($fold:ident, $n:ident: $wide:ty), as $sum:ident => $result:expr;)*) => {$(
        impl lanes::Combine<$wide> for lanes::$average {
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn combine(a: $wide, b: $wide) -> $wide {
                // SAFETY: the caller has the machine.
                unsafe { <lanes::$sum as lanes::Combine<$wide>>::combine(a, b) }
            }
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn finish($fold: $wide, $n: usize) -> $wide { $result }
        }
    )*};
}
pub(super) use averages;

/// Registers of dst per block: four independent chains hide the latency of an add, and with two wide registers each
/// the accumulators still fit the sixteen registers of AVX2.
const BLOCK: usize = 4;

/// Sources read side by side. The processor's prefetchers follow about a dozen streams and stop at the end of a page:
/// with 64 f32 sources of 1 MiB, side by side gave 8 GiB/s and groups in bites 12, with 64 of bf16 4 to 7 and 14
/// (Zen 4, shared machine; software prefetch and blocks of eight gained less).
const GROUP: usize = 8;

/// Blocks per bite: 4 KiB of each source with 64-byte registers, a page, and at most 16 KiB of accumulators.
const BITE: usize = 16;

/// The accumulators of one block.
type Rows<Wide, const N: usize> = [Wide; N];

/// Whether there are so many sources that [`reduce_many`] is the faster one.
#[inline]
pub(super) fn are_many(sources: &[*const u8]) -> bool {
    sources.len() > GROUP
}

/// Reduces `bytes` of every source into dst, all sources side by side.
///
/// # Safety
/// The processor has the machine; the rest as for [`super::reduce`], `bytes` being whole elements.
#[inline(always)]
pub(super) unsafe fn reduce_few<M: Machine, F: Format<M>, C: Combine<F::Wide>>(
    sources: &[*const u8],
    dst: *mut u8,
    bytes: usize,
) {
    match *sources {
        [] => {} // refused by our caller
        // SAFETY: the same promises. Inlined with a known length, the pointers stay in registers and the loop over
        // sources disappears: two is what rings use.
        [a, b] => unsafe { walk::<M, F, C>(a, &[b], dst, 0..bytes) },
        // SAFETY: the same promises.
        [first, ref rest @ ..] => unsafe { walk::<M, F, C>(first, rest, dst, 0..bytes) },
    }
}

/// The same for many sources. It has a large stack frame, so it is not to be inlined where few are reduced.
///
/// # Safety
/// As for [`reduce_few`].
#[inline(always)]
pub(super) unsafe fn reduce_many<M: Machine, F: Format<M>, C: Combine<F::Wide>>(
    sources: &[*const u8],
    dst: *mut u8,
    bytes: usize,
) {
    let Some((&first, rest)) = sources.split_first() else { return }; // refused by our caller
    let bitten = bytes - bytes % (BLOCK * M::BYTES);
    // SAFETY: the same promises, for the whole blocks at the start.
    unsafe { walk_in_bites::<M, F, C>(first, rest, dst, bitten) };
    // SAFETY: the same promises, for what is left.
    unsafe { walk::<M, F, C>(first, rest, dst, bitten..bytes) };
}

/// Goes through a range of memory in blocks, then single registers, then what is left, all sources side by side.
///
/// # Safety
/// As for [`reduce_few`].
#[inline(always)]
unsafe fn walk<M: Machine, F: Format<M>, C: Combine<F::Wide>>(
    first: *const u8,
    rest: &[*const u8],
    dst: *mut u8,
    range: std::ops::Range<usize>,
) {
    let (mut at, end) = (range.start, range.end);
    while end - at >= BLOCK * M::BYTES {
        // SAFETY: the block's bytes, from `at`, are inside the buffers.
        unsafe { block::<M, F, C, BLOCK>(first, rest, dst, at) };
        at += BLOCK * M::BYTES;
    }
    while end - at >= M::BYTES {
        // SAFETY: one register from `at` is inside the buffers.
        unsafe { block::<M, F, C, 1>(first, rest, dst, at) };
        at += M::BYTES;
    }
    if at < end {
        // SAFETY: what is left is less than a register, and ends where the buffers end.
        unsafe { tail::<M, F, C>(first, rest, dst, at, end - at) };
    }
}

/// Goes through whole blocks with many sources: a bite of dst at a time, in it a group of sources after the other,
/// the accumulators wide in the first-level cache in between.
///
/// # Safety
/// As for [`reduce_few`], `bytes` being whole blocks.
#[inline(always)]
unsafe fn walk_in_bites<M: Machine, F: Format<M>, C: Combine<F::Wide>>(
    first: *const u8,
    rest: &[*const u8],
    dst: *mut u8,
    bytes: usize,
) {
    let mut bite = [const { MaybeUninit::<Rows<F::Wide, BLOCK>>::uninit() }; BITE];
    let mut start = 0;
    while start < bytes {
        let blocks = (start..bytes).step_by(BLOCK * M::BYTES).zip(&mut bite);
        for (at, rows) in blocks {
            // SAFETY: the block at `at` is inside the buffer.
            rows.write(unsafe { load::<M, F, BLOCK>(first, at) });
        }
        for group in rest.chunks(GROUP) {
            for (at, rows) in (start..bytes).step_by(BLOCK * M::BYTES).zip(&mut bite) {
                // SAFETY: the loop over the first source has written the rows of the same blocks.
                let rows = unsafe { rows.assume_init_mut() };
                // SAFETY: the block at `at` is inside the buffers.
                *rows = unsafe { fold::<M, F, C, BLOCK>(*rows, group, at) };
            }
        }
        for (at, rows) in (start..bytes).step_by(BLOCK * M::BYTES).zip(&bite) {
            // SAFETY: as above.
            let rows = unsafe { rows.assume_init_read() };
            // SAFETY: the block at `at` is inside dst, and every source has been read there.
            unsafe { store::<M, F, C, BLOCK>(rows, dst, at, rest.len() + 1) };
        }
        start += BITE * BLOCK * M::BYTES;
    }
}

/// Reduces `N` registers at offset `at`, all of them read before the first is written.
///
/// # Safety
/// As for [`reduce_few`], with `N` registers from `at` inside the buffers.
#[inline(always)]
unsafe fn block<M: Machine, F: Format<M>, C: Combine<F::Wide>, const N: usize>(
    first: *const u8,
    rest: &[*const u8],
    dst: *mut u8,
    at: usize,
) {
    // SAFETY: the registers are inside the first source.
    let rows = unsafe { load::<M, F, N>(first, at) };
    // SAFETY: the registers are inside the other sources.
    let rows = unsafe { fold::<M, F, C, N>(rows, rest, at) };
    // SAFETY: the registers are inside dst.
    unsafe { store::<M, F, C, N>(rows, dst, at, rest.len() + 1) };
}

/// Loads and widens `N` registers.
///
/// # Safety
/// The processor has the machine; `N` registers from `at` are readable.
#[inline(always)]
unsafe fn load<M: Machine, F: Format<M>, const N: usize>(source: *const u8, at: usize) -> Rows<F::Wide, N> {
    // SAFETY: the first register is inside the buffer.
    let mut rows = [unsafe { fetch::<M, F>(source.wrapping_add(at)) }; N];
    for (i, row) in rows.iter_mut().enumerate().skip(1) {
        // SAFETY: i < N, so the register is inside the buffer.
        *row = unsafe { fetch::<M, F>(source.wrapping_add(at + i * M::BYTES)) };
    }
    rows
}

/// Combines `N` accumulators with the registers of each source, in order.
///
/// # Safety
/// The processor has the machine; `N` registers from `at` are readable in each source.
#[inline(always)]
unsafe fn fold<M: Machine, F: Format<M>, C: Combine<F::Wide>, const N: usize>(
    mut rows: Rows<F::Wide, N>,
    sources: &[*const u8],
    at: usize,
) -> Rows<F::Wide, N> {
    for source in sources {
        for (i, row) in rows.iter_mut().enumerate() {
            // SAFETY: i < N, so the register is inside the buffer.
            let next = unsafe { fetch::<M, F>(source.wrapping_add(at + i * M::BYTES)) };
            // SAFETY: the caller has the machine.
            *row = unsafe { C::combine(*row, next) };
        }
    }
    rows
}

/// Finishes, narrows and stores `N` accumulators of so many sources.
///
/// # Safety
/// The processor has the machine; `N` registers from `at` are writable.
#[inline(always)]
unsafe fn store<M: Machine, F: Format<M>, C: Combine<F::Wide>, const N: usize>(
    rows: Rows<F::Wide, N>,
    dst: *mut u8,
    at: usize,
    sources: usize,
) {
    for (i, row) in rows.into_iter().enumerate() {
        // SAFETY: the caller has the machine.
        let row = unsafe { C::finish(row, sources) };
        // SAFETY: the caller has the machine.
        let stored = unsafe { F::narrow(row) };
        // SAFETY: i < N, so the register is inside dst.
        unsafe { M::store(dst.wrapping_add(at + i * M::BYTES), stored) };
    }
}

/// Loads and widens one register.
///
/// # Safety
/// As for [`Machine::load`].
#[inline(always)]
unsafe fn fetch<M: Machine, F: Format<M>>(from: *const u8) -> F::Wide {
    // SAFETY: the caller's promise.
    let stored = unsafe { M::load(from) };
    // SAFETY: the caller has the machine.
    unsafe { F::widen(stored) }
}

/// Reduces the last `bytes`, less than a register, at offset `at`.
///
/// # Safety
/// As for [`reduce_few`], with `0 < bytes < M::BYTES` from `at` inside the buffers.
#[inline(always)]
unsafe fn tail<M: Machine, F: Format<M>, C: Combine<F::Wide>>(
    first: *const u8,
    rest: &[*const u8],
    dst: *mut u8,
    at: usize,
    bytes: usize,
) {
    // SAFETY: the bytes are inside the first source and less than a register.
    let mut fold = unsafe { fetch_part::<M, F>(first.wrapping_add(at), bytes) };
    for source in rest {
        // SAFETY: the same for this source.
        let next = unsafe { fetch_part::<M, F>(source.wrapping_add(at), bytes) };
        // SAFETY: the caller has the machine. Lanes behind the end fold zeros and are not stored.
        fold = unsafe { C::combine(fold, next) };
    }
    // SAFETY: the caller has the machine.
    let fold = unsafe { C::finish(fold, rest.len() + 1) };
    // SAFETY: the caller has the machine.
    let stored = unsafe { F::narrow(fold) };
    // SAFETY: the bytes are inside dst and less than a register.
    unsafe { M::store_part(dst.wrapping_add(at), bytes, stored) };
}

/// Loads and widens the first part of a register.
///
/// # Safety
/// As for [`Machine::load_part`].
#[inline(always)]
unsafe fn fetch_part<M: Machine, F: Format<M>>(from: *const u8, bytes: usize) -> F::Wide {
    // SAFETY: the caller's promise.
    let stored = unsafe { M::load_part(from, bytes) };
    // SAFETY: the caller has the machine.
    unsafe { F::widen(stored) }
}
