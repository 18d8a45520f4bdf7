//! What splitting takes is given back.

use crate::real_transports;
use crate::support::processes::{Child, Job};
use serde_json::{Value, json};

/// Splits before anything is counted: caches fill, threads come.
const WARM: u64 = 20;
/// Splits that are counted.
const SPLITS: u64 = 200;
const RANKS: u32 = 3;

/// A rank that splits, uses its part and gives it back, by closing or dropping it.
pub(crate) fn hoarder(child: &Child) {
    let comm = child.join().expect("all ranks come");
    (0..WARM).for_each(|round| split_once(&comm, round));
    let before = held(&comm);
    (0..SPLITS).for_each(|round| split_once(&comm, round));
    let after = held(&comm);
    comm.close().expect("nothing is left over");
    child.say(&json!({ "before": before, "after": after }));
}

fn split_once(comm: &ubccl::Communicator, round: u64) {
    let colour = comm.rank() % (1 + round as u32 % 2);
    let part = comm.split(Some(colour), 0).expect("a split").expect("a colour");
    part.barrier().expect("all members come");
    match round % 3 {
        0 => drop(part),
        _ => part.close().expect("nothing is left over"),
    }
}

/// Descriptors, shared mappings, threads and resident pages of this process, when all ranks have given back theirs.
fn held(comm: &ubccl::Communicator) -> Value {
    comm.barrier().expect("all ranks come");
    let entries = |folder: &str| std::fs::read_dir(folder).expect("Linux").count();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let resident: u64 = pages.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    let held = json!({
        "descriptors": entries("/proc/self/fd"),
        "mappings": maps.lines().filter(|line| line.contains("memfd")).count(),
        "threads": entries("/proc/self/task"),
        "resident_pages": resident,
    });
    comm.barrier().expect("all ranks come");
    held
}

#[test]
fn two_hundred_splits_leave_no_descriptor_mapping_thread_or_memory() {
    for transport in real_transports() {
        let mut job = Job::start("hoarder", RANKS, &json!({ "transport": transport }));
        for rank in 0..RANKS {
            let said = job.hear(rank);
            let (before, after) = (&said["before"], &said["after"]);
            for what in ["descriptors", "mappings", "threads"] {
                assert_eq!(before[what], after[what], "{transport}: rank {rank}'s {what}: {said}");
            }
            let grown = |said: &Value| said["resident_pages"].as_u64().expect("a number");
            // A part's rings alone are a megabyte and more for each peer: one kept in ten would show.
            let pages = grown(after).saturating_sub(grown(before));
            assert!(pages < 2 * SPLITS, "{transport}: rank {rank} grew by {pages} pages: {said}");
        }
        job.finish();
    }
}
