//! What each collective must give, by plain loops in f64 and i128: shares no code with kernels, plans or Collective.

use super::tables::{Tables, tables};
use ubccl::{DataType, ReduceOp};

#[path = "../../core/src/kernels/tests/layout.rs"]
mod layout;

/// A call as the oracle understands it. Those with a seed take [`tables`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call {
    AllReduce(ReduceOp),
    AllGather,
    ReduceScatter(ReduceOp),
    Broadcast {
        root: usize,
    },
    Barrier,
    /// Every rank sends to `rank + shift` and receives from `rank - shift`.
    Shift(usize),
    Reduce {
        op: ReduceOp,
        root: usize,
    },
    Gather {
        root: usize,
    },
    Scatter {
        root: usize,
    },
    AllToAll,
    /// As much from each rank as it sends to the root.
    GatherV {
        root: usize,
        seed: u64,
    },
    ScatterV {
        root: usize,
        seed: u64,
    },
    /// As much from each rank as it sends to rank 0.
    AllGatherV {
        seed: u64,
    },
    /// As much to each rank as it sends to rank 0.
    ReduceScatterV {
        op: ReduceOp,
        seed: u64,
    },
    AllToAllV {
        seed: u64,
    },
}

impl Call {
    /// The operation, if it has one.
    pub fn op(self) -> Option<ReduceOp> {
        match self {
            Call::AllReduce(op) | Call::ReduceScatter(op) => Some(op),
            Call::Reduce { op, .. } | Call::ReduceScatterV { op, .. } => Some(op),
            _ => None,
        }
    }

    /// Whether it may be done in place: an all-to-all only if as much comes as goes.
    pub fn may_be_in_place(self) -> bool {
        !matches!(self, Call::AllToAllV { seed } if !seed.is_multiple_of(2))
    }
}

/// Elements that one rank brings and gets.
pub fn sizes(call: Call, ranks: usize, rank: usize, count: usize) -> (usize, usize) {
    let of_root = |root: usize, elements: usize| if rank == root { elements } else { 0 };
    let sent = |t: &Tables, s: usize| Tables::extent(&t.counts[s], &t.send_starts[s]);
    let received = |t: &Tables, r: usize| Tables::extent(&t.columns[r], &t.receive_starts[r]);
    match call {
        Call::AllReduce(_) | Call::Shift(_) => (count, count),
        Call::AllGather => (count, count * ranks),
        Call::ReduceScatter(_) => (count * ranks, count),
        Call::Broadcast { root } => (of_root(root, count), count),
        Call::Barrier => (0, 0),
        Call::Reduce { root, .. } => (count, of_root(root, count)),
        Call::Gather { root } => (count, of_root(root, count * ranks)),
        Call::Scatter { root } => (of_root(root, count * ranks), count),
        Call::AllToAll => (count * ranks, count * ranks),
        Call::GatherV { root, seed } => {
            let t = tables(seed, ranks, count);
            (t.counts[rank][root] as usize, of_root(root, received(t, root)))
        }
        Call::ScatterV { root, seed } => {
            let t = tables(seed, ranks, count);
            (of_root(root, sent(t, root)), t.counts[root][rank] as usize)
        }
        Call::AllGatherV { seed } => {
            let t = tables(seed, ranks, count);
            let placed = Tables::extent(&t.columns[0], &t.receive_starts[0]);
            (t.columns[0][rank] as usize, placed)
        }
        Call::ReduceScatterV { seed, .. } => {
            let counts = &tables(seed, ranks, count).columns[0];
            (counts.iter().sum::<u64>() as usize, counts[rank] as usize)
        }
        Call::AllToAllV { seed } => {
            let t = tables(seed, ranks, count);
            (sent(t, rank), received(t, rank))
        }
    }
}

/// What stands in an output before the call.
pub const RUBBISH: u8 = 0xee;

/// Everybody's output for everybody's input; out of place, an output is rubbish before.
pub fn outputs(call: Call, dtype: DataType, inputs: &[Vec<u8>], count: usize) -> Vec<Vec<u8>> {
    outputs_over(call, dtype, inputs, count, false)
}

/// The same; in place, what a table does not name is what it was.
pub fn outputs_over(
    call: Call,
    dtype: DataType,
    inputs: &[Vec<u8>],
    count: usize,
    in_place: bool,
) -> Vec<Vec<u8>> {
    let n = inputs.len();
    let size = element_size(dtype);
    let reduced = |op: ReduceOp, elements: usize| -> Vec<u8> {
        (0..elements)
            .flat_map(|i| combine(op, dtype, inputs.iter().map(|x| &x[i * size..][..size])))
            .collect()
    };
    let only = |root: usize, output: Vec<u8>| {
        (0..n).map(|rank| if rank == root { output.clone() } else { Vec::new() }).collect()
    };
    let part =
        |bytes: &[u8], start: u64, len: u64| bytes[start as usize * size..][..len as usize * size].to_vec();
    // Block q of an output at its place, the rest as it was.
    let placed = |rank: usize, blocks: &mut dyn Iterator<Item = (u64, Vec<u8>)>| {
        let elements = sizes(call, n, rank, count).1;
        let mut output = match in_place && matches!(call, Call::AllToAllV { .. }) {
            true => inputs[rank].clone(),
            false => vec![RUBBISH; elements * size],
        };
        for (start, block) in blocks {
            output[start as usize * size..][..block.len()].copy_from_slice(&block);
        }
        output
    };
    match call {
        Call::AllReduce(op) => vec![reduced(op, count); n],
        Call::Reduce { op, root } => only(root, reduced(op, count)),
        Call::ReduceScatter(op) => {
            let all = reduced(op, count * n);
            (0..n).map(|rank| part(&all, (rank * count) as u64, count as u64)).collect()
        }
        Call::ReduceScatterV { op, seed } => {
            let counts = &tables(seed, n, count).columns[0];
            let all = reduced(op, counts.iter().sum::<u64>() as usize);
            (0..n).map(|rank| part(&all, counts[..rank].iter().sum(), counts[rank])).collect()
        }
        Call::AllGather => vec![inputs.concat(); n],
        Call::Gather { root } => only(root, inputs.concat()),
        Call::Broadcast { root } => vec![inputs[root].clone(); n],
        Call::Scatter { root } => {
            (0..n).map(|rank| part(&inputs[root], (rank * count) as u64, count as u64)).collect()
        }
        Call::Barrier => vec![Vec::new(); n],
        Call::Shift(shift) => (0..n).map(|rank| inputs[(rank + n - shift % n) % n].clone()).collect(),
        Call::AllToAll => {
            let block = |from: usize, to: usize| part(&inputs[from], (to * count) as u64, count as u64);
            (0..n).map(|rank| (0..n).flat_map(|from| block(from, rank)).collect()).collect()
        }
        Call::GatherV { root, seed } => {
            let starts = &tables(seed, n, count).receive_starts[root];
            only(root, placed(root, &mut (0..n).map(|r| (starts[r], inputs[r].clone()))))
        }
        Call::ScatterV { root, seed } => {
            let t = tables(seed, n, count);
            let block = |rank| part(&inputs[root], t.send_starts[root][rank], t.counts[root][rank]);
            (0..n).map(block).collect()
        }
        Call::AllGatherV { seed } => {
            let starts = &tables(seed, n, count).receive_starts[0];
            let blocks = || (0..n).map(|r| (starts[r], inputs[r].clone()));
            (0..n).map(|rank| placed(rank, &mut blocks())).collect()
        }
        Call::AllToAllV { seed } => {
            let t = tables(seed, n, count);
            let block = |s: usize, r: usize| part(&inputs[s], t.send_starts[s][r], t.counts[s][r]);
            let blocks = |r: usize| (0..n).map(move |s| (t.receive_starts[r][s], block(s, r)));
            (0..n).map(|rank| placed(rank, &mut blocks(rank))).collect()
        }
    }
}

fn element_size(dtype: DataType) -> usize {
    match dtype {
        DataType::I64 | DataType::U64 | DataType::F64 => 8,
        DataType::I32 | DataType::U32 | DataType::F32 => 4,
        DataType::I16 | DataType::U16 | DataType::F16 | DataType::BF16 => 2,
        DataType::I8 | DataType::U8 | DataType::F8E4M3 | DataType::F8E5M2 => 1,
        other => panic!("the oracle does not know {other:?}"),
    }
}

/// The value of one element of a float type.
pub fn decode(dtype: DataType, bytes: &[u8]) -> f64 {
    let mut whole = [0; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    layout::of(dtype.name()).expect("a float type").value(u64::from_le_bytes(whole))
}

/// The element of a float type that is nearest to a value.
pub fn encode(dtype: DataType, value: f64) -> Vec<u8> {
    let bits = layout::of(dtype.name()).expect("a float type").nearest(value);
    bits.to_le_bytes()[..element_size(dtype)].to_vec()
}

fn is_signed(dtype: DataType) -> bool {
    matches!(dtype, DataType::I8 | DataType::I16 | DataType::I32 | DataType::I64)
}

/// Which pairs exist: the bits of floats are nobody's business.
pub fn has(op: ReduceOp, dtype: DataType) -> bool {
    let bitwise = matches!(op, ReduceOp::And | ReduceOp::Or | ReduceOp::Xor);
    !(bitwise && layout::of(dtype.name()).is_some())
}

/// One element's result. Float data of these tests is exact in any order, so f64 folds need no care.
fn combine<'a>(op: ReduceOp, dtype: DataType, values: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let bits = values.map(|bytes| {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(whole)
    });
    let result = match layout::of(dtype.name()) {
        Some(layout) => {
            let (result, n) = fold_float(op, bits.map(|bits| layout.value(bits)));
            if op == ReduceOp::Avg {
                // The one operation whose result is rounded: in f32, if that is wider, and once more when stored.
                let wide = result / n as f64;
                layout.nearest(if dtype == DataType::F64 { wide } else { f64::from(wide as f32) })
            } else {
                let stored = layout.nearest(result);
                assert_eq!(layout.value(stored), result, "the test's data is exact in {dtype:?}");
                stored
            }
        }
        None => {
            let unused = 128 - 8 * element_size(dtype) as u32;
            let widen = |bits: u64| match is_signed(dtype) {
                true => i128::from(bits) << unused >> unused,
                false => i128::from(bits),
            };
            fold_int(op, bits.map(widen)) as u64
        }
    };
    result.to_le_bytes()[..element_size(dtype)].to_vec()
}

/// The fold, for an average the sum, and of how many values.
fn fold_float(op: ReduceOp, values: impl Iterator<Item = f64>) -> (f64, usize) {
    let values: Vec<f64> = values.collect();
    let each = values.iter().copied();
    let fold = match op {
        ReduceOp::Sum | ReduceOp::PreMulSum | ReduceOp::Avg => each.sum(),
        ReduceOp::Prod => each.product(),
        ReduceOp::Max => each.fold(f64::NEG_INFINITY, f64::max),
        ReduceOp::Min => each.fold(f64::INFINITY, f64::min),
        other => panic!("the oracle does not know {other:?} of floats"),
    };
    (fold, values.len())
}

fn fold_int(op: ReduceOp, values: impl Iterator<Item = i128>) -> i128 {
    let values: Vec<i128> = values.collect();
    let each = values.iter().copied();
    match op {
        ReduceOp::Sum | ReduceOp::PreMulSum => each.sum(),
        ReduceOp::Prod => each.fold(1, i128::wrapping_mul),
        ReduceOp::Max => each.max().unwrap(),
        ReduceOp::Min => each.min().unwrap(),
        ReduceOp::Avg => each.sum::<i128>() / values.len() as i128,
        ReduceOp::And => each.reduce(|a, b| a & b).unwrap(),
        ReduceOp::Or => each.reduce(|a, b| a | b).unwrap(),
        ReduceOp::Xor => each.reduce(|a, b| a ^ b).unwrap(),
        other => panic!("the oracle does not know {other:?}"),
    }
}

/// Data that are exact in any order of reduction in every type, for up to eight ranks. Floats get small whole numbers
/// of both signs, so small that no partial sum needs more bits than the type has; for products powers of two that
/// neither over- nor underflow. Integers, which wrap, get any bits.
pub fn exact_data(call: Call, dtype: DataType, elements: usize, random: &mut super::Random) -> Vec<u8> {
    let is_product = call.op() == Some(ReduceOp::Prod);
    let Some(layout) = layout::of(dtype.name()) else {
        let bytes = elements * element_size(dtype);
        return (0..bytes).map(|_| random.next() as u8).collect();
    };
    let mut float = || match dtype {
        _ if is_product => [0.5, -1.0, 1.0, 1.0, 2.0][random.below(5) as usize],
        DataType::F32 | DataType::F64 => (random.below(15) as f64 - 7.0) * 1000.0,
        DataType::F8E4M3 => random.below(5) as f64 - 2.0,
        DataType::F8E5M2 => random.below(3) as f64 - 1.0,
        _ => random.below(15) as f64 - 7.0,
    };
    let mut element = || layout.nearest(float()).to_le_bytes().into_iter().take(element_size(dtype));
    (0..elements).flat_map(|_| element()).collect()
}

/// Random floats of both signs and many magnitudes, for which order and rounding show; whole numbers otherwise.
pub fn rough_data(dtype: DataType, elements: usize, random: &mut super::Random) -> Vec<u8> {
    let Some(layout) = layout::of(dtype.name()) else {
        return exact_data(Call::AllGather, dtype, elements, random);
    };
    let mut float = || {
        let sign = if random.below(2) == 0 { 1.0 } else { -1.0 };
        let most = if element_size(dtype) == 1 { 6 } else { 12 }; // e4m3 ends at 448
        let fraction = random.below(1 << 52) as f64 / 2.0_f64.powi(52);
        sign * (1.0 + fraction) * 2.0_f64.powi(random.below(most) as i32)
    };
    let mut element = || layout.nearest(float()).to_le_bytes().into_iter().take(element_size(dtype));
    (0..elements).flat_map(|_| element()).collect()
}
