//! Point to point over every real transport: groups, tags, any source, what goes wrong; and in virtual time.

#[path = "../support/mod.rs"]
mod support;

mod failures;
mod groups;
mod programs;
mod tagged;
mod virtual_time;

use support::ranks::Setup;
use ubccl::{Choice, Clock};

/// Ranks of every transport whose ranks are processes or threads.
fn real_setups(ranks: u32) -> impl Iterator<Item = Setup> {
    let real = ubccl::transports().filter(|transport| transport.clock == Clock::Real);
    real.map(move |transport| Setup {
        transport: transport.name,
        ranks,
        algorithm: None,
        choice: Choice::default(),
    })
}

/// The bytes of message `number` from `from` to `to`.
fn content(from: u32, to: u32, number: usize, len: usize) -> Vec<u8> {
    let mut random = support::Random(u64::from(from) << 48 | u64::from(to) << 32 | number as u64);
    (0..len).map(|_| random.next() as u8).collect()
}
