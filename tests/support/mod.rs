//! What end-to-end tests share: a plain oracle, random data, guard bytes, and ranks of every transport.
#![allow(dead_code, missing_docs, unreachable_pub)] // each test binary uses its part of it
#![allow(clippy::print_stdout)] // seeds, and what ranks tell their parent

pub mod memory;
pub mod oracle;
pub mod processes;
pub mod ranks;
pub mod tables;

/// A small deterministic source of randomness (splitmix64); its seed is printed by the tests that use it.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The seed given in `UBCCL_TEST_SEED`, or a fresh one; printed.
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("UBCCL_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let clock = || {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64)
    };
    let seed = given.unwrap_or_else(clock);
    println!("{test}: UBCCL_TEST_SEED={seed}");
    seed
}
