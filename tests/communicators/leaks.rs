//! What splitting takes is given back.

use crate::support::processes::{Child, Job};
use crate::support::ranks::on_threads;
use crate::{real_transports, setup};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Splits before anything is counted: caches fill, threads come, the parent has used all of its slots.
const WARM: u64 = 300;
/// Splits that are counted.
const SPLITS: u64 = 400;
const RANKS: u32 = 3;

/// A process of its own, because tests that run beside take and give descriptors too. Its ranks are threads.
pub(crate) fn hoarder(child: &Child) {
    let transport = real_transports().into_iter().find(|name| *name == child.text("transport"));
    let setup = setup(transport.expect("a transport of the index"), RANKS);
    let told = on_threads(&setup, |comm| {
        (0..WARM).for_each(|round| split_once(comm, round));
        let before = look(comm, held);
        (0..SPLITS).for_each(|round| split_once(comm, round));
        json!({ "before": before, "after": look(comm, || settled(&before)) })
    });
    child.say(&told[0]);
}

/// A rank that splits, uses its part and gives it back, by closing or dropping it.
fn split_once(comm: &ubccl::Communicator, round: u64) {
    let colour = comm.rank() % (1 + round as u32 % 2);
    let part = comm.split(Some(colour), 0).expect("a split").expect("a colour");
    part.barrier().expect("all members come");
    match round % 3 {
        0 => drop(part),
        _ => part.close().expect("nothing is left over"),
    }
}

/// What rank 0 finds while all ranks have given back what they took.
fn look(comm: &ubccl::Communicator, find: impl Fn() -> Value) -> Value {
    comm.barrier().expect("all ranks come");
    let found = if comm.rank() == 0 { find() } else { Value::Null };
    comm.barrier().expect("all ranks come");
    found
}

/// The service thread may just be looking at a communicator that was dropped: then it drops it, a moment later.
fn settled(before: &Value) -> Value {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let found = held();
        if found["descriptors"] == before["descriptors"] || Instant::now() > patience {
            return found;
        }
        std::thread::yield_now();
    }
}

/// Descriptors, shared mappings and their bytes, threads and private resident KiB of this process. Which pages of a
/// shared mapping are resident is not asked: the parent's slots are touched one after the other, call by call.
fn held() -> Value {
    let entries = |folder: &str| std::fs::read_dir(folder).expect("Linux").count();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    let shared: Vec<u64> = maps.lines().filter(|line| line.contains("memfd")).map(length).collect();
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let private = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux 4.5");
    json!({
        "descriptors": entries("/proc/self/fd"),
        "mappings": shared.len(),
        "mapped_bytes": shared.iter().sum::<u64>(),
        "threads": entries("/proc/self/task"),
        "private_kib": private.trim().trim_end_matches(" kB").parse::<u64>().expect("a number"),
    })
}

/// The bytes of a mapping, from its line in /proc/self/maps.
fn length(line: &str) -> u64 {
    let (start, rest) = line.split_once('-').expect("a range");
    let end = rest.split_once(' ').expect("a range").0;
    let address = |hex| u64::from_str_radix(hex, 16).expect("an address");
    address(end) - address(start)
}

#[test]
fn hundreds_of_splits_leave_no_descriptor_mapping_thread_or_memory() {
    for transport in real_transports() {
        let mut job = Job::start("hoarder", 1, &json!({ "transport": transport }));
        let said = job.hear(0);
        let (before, after) = (&said["before"], &said["after"]);
        for what in ["descriptors", "mappings", "mapped_bytes", "threads"] {
            assert_eq!(before[what], after[what], "{transport}: {what}: {said}");
        }
        let private = |said: &Value| said["private_kib"].as_u64().expect("a number");
        // Three ranks, 6 KiB for each and every split: what a part keeps is much more.
        let grown = private(after).saturating_sub(private(before));
        assert!(grown < u64::from(RANKS) * 6 * SPLITS, "{transport}: it grew by {grown} KiB: {said}");
        job.finish();
    }
}
