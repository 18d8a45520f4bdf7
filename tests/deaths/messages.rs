//! Ranks killed in the middle of groups, and while others wait for tagged messages.

use crate::real_transports;
use crate::support::processes::{Child, Job, now_ns, told};
use crate::support::{Random, seed};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use ubccl::{Communicator, Result};

/// Kills, over all transports and kinds.
const TRIALS: usize = 24;
/// Messages of each pair in a group.
const EACH: usize = 90;

/// A rank that repeats an exchange until it fails, and says how.
pub(crate) fn exchanges(child: &Child) {
    let comm = child.join().expect("all ranks come");
    let is_tagged = child.text("kind") == "tagged";
    let len = child.number("bytes") as usize;
    for number in 1.. {
        let result = if is_tagged { any_source(&comm, len) } else { group(&comm, len) };
        if let Err(error) = result {
            let again = comm.send_tagged(&[0_u8], 0, 1).expect_err("a poisoned communicator stays so");
            assert_eq!(again.cause(), error.cause());
            return child.say(&json!({ "at": now_ns(), "error": told(&error) }));
        }
        child.publish(number);
    }
}

/// Everybody sends many messages to everybody.
fn group(comm: &Communicator, len: usize) -> Result<()> {
    let out = vec![comm.rank() as u8; len];
    let mut back = vec![0_u8; len * EACH * comm.ranks() as usize];
    let mut group = comm.group();
    for (k, part) in back.chunks_exact_mut(len).enumerate() {
        let peer = (k / EACH) as u32;
        group.send(&out, peer)?;
        group.receive(part, peer)?;
    }
    group.run()?;
    for (k, part) in back.chunks_exact(len).enumerate() {
        assert!(part.iter().all(|&byte| usize::from(byte) == k / EACH), "message {k}");
    }
    Ok(())
}

/// Everybody gets a message of every other, in whatever order.
fn any_source(comm: &Communicator, len: usize) -> Result<()> {
    let out = vec![comm.rank() as u8; len];
    let others = (0..comm.ranks()).filter(|&peer| peer != comm.rank());
    let sends = others.map(|peer| comm.send_tagged_async(out.clone(), peer, 5));
    let sends = sends.collect::<Result<Vec<_>>>()?;
    let mut buffer = vec![0_u8; len];
    for _ in 1..comm.ranks() {
        let source = comm.receive_tagged(&mut buffer, None, 5)?;
        assert!(buffer.iter().all(|&byte| u32::from(byte) == source));
    }
    sends.into_iter().try_for_each(|work| work.wait().map(drop))
}

#[test]
fn a_rank_killed_among_messages_is_the_cause_on_every_other() {
    let mut random = Random(seed("killed among messages"));
    let transports = real_transports();
    for number in 0..TRIALS {
        let transport = transports[number % transports.len()];
        let kind = ["group", "tagged"][number / transports.len() % 2];
        let ranks = 2 + random.below(3) as u32;
        let victim = random.below(u64::from(ranks)) as u32;
        let bytes = [1, 3000, 200_000][random.below(3) as usize];
        let settings = json!({ "transport": transport, "kind": kind, "bytes": bytes });
        let mut job = Job::start("exchanges", ranks, &settings);
        job.watch(victim, |word| word >= 3);
        let until = Instant::now() + Duration::from_micros(random.below(3000));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        job.kill(victim);
        for rank in (0..ranks).filter(|&rank| rank != victim) {
            let error: Value = job.hear(rank);
            let cause = &error["error"]["cause"];
            let who = json!([cause["kind"], cause["rank"], cause["pid"]]);
            assert_eq!(who, json!(["remote rank failed", victim, job.pid(victim)]), "{settings}: {error}");
        }
        job.finish();
    }
}
