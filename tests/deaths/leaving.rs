//! Ranks that are stopped for a while, leave while others go on, or leave with messages under way.

use crate::real_transports;
use crate::support::processes::{Child, Job, told};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;
use ubccl::ReduceOp;

/// Longer than the grace that a suspicion is given, and than any pause of a machine that is merely busy.
const STOP: Duration = Duration::from_secs(3);

/// Sums until a sum is reached that tells that all ranks want to end.
pub(crate) fn stopped(child: &Child) {
    let comm = child.join().expect("all ranks come");
    let (mut data, mut rounds) = (vec![0_f32; child.number("count") as usize], 0_u64);
    // Rank 0 decides when it is over; the decision reaches all in the same round.
    loop {
        data.fill(1.0);
        data[0] = f32::from(child.rank == 0 && rounds >= child.number("rounds"));
        comm.all_reduce_in_place(&mut data, ReduceOp::Sum).expect("nobody is lost");
        rounds += 1;
        child.publish(rounds);
        assert!(data[1..].iter().all(|&sum| sum == child.ranks as f32), "round {rounds}");
        if data[0] > 0.0 {
            break;
        }
    }
    comm.close().expect("nobody is lost");
    child.say(&json!({ "rounds": rounds }));
}

#[test]
fn a_rank_that_stands_still_for_seconds_breaks_nothing() {
    let jobs = real_transports().into_iter().map(|transport| {
        let settings = json!({ "transport": transport, "count": 100_000, "rounds": 200 });
        let job = Job::start("stopped", 3, &settings);
        job.watch(1, |rounds| rounds >= 20);
        job.signal(1, Signal::STOP);
        job
    });
    let jobs: Vec<Job> = jobs.collect();
    std::thread::sleep(STOP); // what is tested is that so long a pause changes nothing
    for mut job in jobs {
        job.signal(1, Signal::CONT);
        let rounds: Vec<Value> = (0..3).map(|rank| job.hear(rank)).collect();
        assert!(rounds.iter().all(|said| said == &rounds[0]), "{rounds:?}");
        assert!(job.finish().iter().all(|status| status.success()));
    }
}

/// Rank 1 sends, closes and ends; rank 0 receives only when rank 1's process is gone.
pub(crate) fn last_words(child: &Child) {
    let comm = child.join().expect("all ranks come");
    let lengths = [0_usize, 1, 5, 200, 1000];
    let content = |k: usize, len: usize| (0..len).map(|i| (i * 7 + k) as i32).collect::<Vec<_>>();
    if child.rank == 1 {
        for (k, &len) in lengths.iter().enumerate() {
            comm.send(&content(k, len), 0).expect("it fits what a pair may keep");
        }
        comm.close().expect("a message under way is no error of the sender");
        return child.say(&json!("gone"));
    }
    child.watch(0, |word| word == u64::MAX); // the parent says when
    for (k, &len) in lengths.iter().enumerate() {
        let mut received = vec![0; len];
        comm.receive(&mut received, 1).expect("the message was sent before its sender left");
        assert_eq!(received, content(k, len), "message {k}");
    }
    let error = comm.receive(&mut [0_i32], 1).expect_err("nobody is there to send more");
    child.say(&told(&error));
}

#[test]
fn a_message_outlives_its_sender() {
    for transport in real_transports() {
        let mut job = Job::start("last words", 2, &json!({ "transport": transport }));
        assert_eq!(job.hear(1), "gone");
        assert!(job.wait(1).success());
        job.publish(0, u64::MAX);
        let said = job.hear(0);
        assert_eq!(said["kind"], "remote rank failed", "{transport}: {said}");
        let text = said["text"].as_str().expect("a text");
        assert!(text.contains("rank 1 ") && text.contains("closed the communicator"), "{text}");
        assert!(job.wait(0).success());
    }
}

/// Some ranks leave after so many calls, the others make one more; the leavers leave in good order or just end.
pub(crate) fn deserter(child: &Child) {
    let comm = child.join().expect("all ranks come");
    let (deserter, closes) = (child.number("deserter") as u32, child.settings["closes"] == true);
    let mut data = vec![1_i32; 1000];
    let calls = if child.rank == deserter { 4 } else { 5 };
    // Who is slow may learn from the others that it is over before its own last call is.
    let error = (0..calls).find_map(|_| comm.all_reduce_in_place(&mut data, ReduceOp::Max).err());
    if child.rank == deserter {
        assert!(error.is_none(), "all take part in the deserter's calls: {error:?}");
        if closes {
            let _may_see_the_others_calls = comm.close();
        } else {
            drop(comm);
        }
        return;
    }
    let error = error.expect("one rank does not take part in the last call");
    let again = comm.barrier().expect_err("it stays so");
    assert_eq!(again.cause(), error.cause());
    child.say(&told(&error));
}

#[test]
fn leaving_early_is_an_error_of_all_who_go_on() {
    for transport in real_transports() {
        for closes in [true, false] {
            for leaver in 0..3 {
                let settings = json!({ "transport": transport, "deserter": leaver, "closes": closes });
                let mut job = Job::start("deserter", 3, &settings);
                let pid = job.pid(leaver);
                for rank in (0..3).filter(|&rank| rank != leaver) {
                    let said = job.hear(rank);
                    check_desertion(&said, leaver, pid);
                }
                assert!(job.finish().iter().all(|status| status.success()), "{settings}");
            }
        }
    }
}

/// Either the others found that it left, or it found on leaving that the others had called more: both name it and what
/// it did.
fn check_desertion(said: &Value, leaver: u32, pid: u32) {
    let text = said["text"].as_str().expect("a text");
    match said["kind"].as_str() {
        Some("remote rank failed") => {
            assert!(text.contains("closed the communicator "), "{said}");
            assert_eq!(
                (&said["cause"]["rank"], &said["cause"]["pid"]),
                (&json!(leaver), &json!(pid)),
                "{said}"
            );
            assert_eq!(said["cause"]["sequence"], 4, "{said}");
        }
        Some("ranks disagree") => {
            let whom = format!("rank {leaver} called close");
            assert!(text.contains(&whom) && text.contains("all_reduce count=1000 i32 max"), "{said}");
        }
        _ => panic!("{said}"),
    }
}
