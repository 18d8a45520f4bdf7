//! Throughput of the sum of 2, 8 and 64 sources, in f32 and bf16, for buffers in L1, in L2 or L3, and in memory; their
//! floor is `copy`, which moves bytes and does not reckon. `cargo bench -p ubccl-core --bench kernels`
//!
//! Bytes count what must move: every source once, dst once. Each case is checked once before it is timed: the data
//! are small whole numbers, for which any order is exact.
#![allow(unsafe_code, missing_docs)] // the kernels take pointers; criterion's macro makes an undocumented function

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use std::hint::black_box;
use ubccl_core::kernels::Level;
use ubccl_core::{DataType, ReduceOp};

const SOURCES: [usize; 3] = [2, 8, 64];
const BYTES: [usize; 3] = [4 << 10, 256 << 10, 16 << 20];
/// Larger cases are left out: they would measure memory once more, and need too much of it.
const MOST_BYTES: usize = 256 << 20;

struct Case {
    dtype: DataType,
    sources: Vec<Vec<u8>>,
    dst: Vec<u8>,
}

impl Case {
    fn new(dtype: DataType, sources: usize, bytes: usize) -> Self {
        let sources = (0..sources).map(|k| elements(dtype, bytes, |i| (i + k) % 8)).collect();
        Self { dtype, sources, dst: vec![0; bytes] }
    }

    fn run(&mut self, level: Level, pointers: &[*const u8]) {
        let count = self.dst.len() / self.dtype.size();
        // SAFETY: every source and dst has `count` elements, and they are different vectors.
        unsafe { level.reduce(self.dtype, ReduceOp::Sum, pointers, self.dst.as_mut_ptr(), count) }
            .expect("a sum cannot fail")
    }

    fn check(&self) {
        let n = self.sources.len();
        let sum = |i: usize| (0..n).map(|k| (i + k) % 8).sum();
        assert!(self.dst == elements(self.dtype, self.dst.len(), sum), "the benchmark summed wrongly");
    }
}

/// A buffer whose element i is the whole number `value(i)`.
fn elements(dtype: DataType, bytes: usize, value: impl Fn(usize) -> usize) -> Vec<u8> {
    (0..bytes / dtype.size())
        .flat_map(|i| {
            let number = value(i) as f32;
            let (wide, narrow) = (number.to_ne_bytes(), bf16::from_f32(number).to_ne_bytes());
            if dtype == DataType::F32 { wide.to_vec() } else { narrow.to_vec() }
        })
        .collect()
}

fn sums(criterion: &mut Criterion) {
    for (dtype, n) in [DataType::F32, DataType::BF16].into_iter().flat_map(|d| SOURCES.map(|n| (d, n))) {
        let mut group = criterion.benchmark_group(format!("sum/{}/{n}", dtype.name()));
        for bytes in BYTES.into_iter().filter(|bytes| bytes * n <= MOST_BYTES) {
            let mut case = Case::new(dtype, n, bytes);
            let pointers: Vec<_> = case.sources.iter().map(|source| source.as_ptr()).collect();
            group.throughput(Throughput::Bytes((bytes * (n + 1)) as u64));
            for level in Level::available() {
                case.dst.fill(0);
                case.run(level, &pointers);
                case.check();
                group.bench_function(BenchmarkId::new(level.name(), bytes), |bencher| {
                    bencher.iter(|| case.run(level, &pointers));
                });
            }
        }
        group.finish();
    }
}

/// The least: as many bytes, moved by the C library.
fn copies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("copy");
    for bytes in BYTES {
        let (source, mut dst) = (vec![1_u8; bytes], vec![0_u8; bytes]);
        group.throughput(Throughput::Bytes(2 * bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter(|| black_box(&mut dst[..]).copy_from_slice(black_box(&source)));
        });
    }
    group.finish();
}

criterion_group!(benches, copies, sums);
criterion_main!(benches);
