//! How many cores the ranks of a communicator have between them.

use rustix::thread::{CpuSet, sched_getaffinity};
use ubccl_core::{Error, Exchange, Result};

/// Cores that the ranks may use together: the union of their affinities, and no more than the smallest CPU quota a
/// control group gives one of them.
pub(crate) fn shared_by(exchange: &mut dyn Exchange) -> Result<u32> {
    let mine = own_cores()?;
    let all = exchange.all_gather(&mine)?;
    let mut union = [0_u8; CpuSet::MAX_CPU / 8];
    let mut quota = u32::MAX;
    for blob in &all {
        let (limit, mask) =
            blob.split_first_chunk::<4>().ok_or_else(|| Error::internal("a short CPU mask"))?;
        quota = quota.min(u32::from_le_bytes(*limit));
        union.iter_mut().zip(mask).for_each(|(into, bits)| *into |= bits);
    }
    Ok(union.iter().map(|bits| bits.count_ones()).sum::<u32>().min(quota))
}

/// Cores that this process may use.
pub(crate) fn own() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
}

/// The quota (or no limit), then the mask.
fn own_cores() -> Result<Vec<u8>> {
    let set =
        sched_getaffinity(None).map_err(|error| Error::system("sched_getaffinity was refused", error))?;
    let mut mask = vec![0_u8; CpuSet::MAX_CPU / 8];
    for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)) {
        mask[cpu / 8] |= 1 << (cpu % 8);
    }
    // The standard library counts the smaller of affinity and control group quota.
    let usable = own();
    let quota = if usable < set.count() { usable } else { u32::MAX };
    Ok([&quota.to_le_bytes()[..], &mask].concat())
}
