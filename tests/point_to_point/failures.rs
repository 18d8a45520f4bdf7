//! Messages that go wrong: calls that do not fit, bounds, ranks that leave or do not come.

use crate::real_setups;
use crate::support::ranks::start_threads;
use std::sync::{Arc, Barrier};
use std::time::Duration;
use ubccl::{Communicator, Config, Error, ErrorKind};

/// Runs `body` on every rank of every transport; answers what each rank's `body`, or else its close, failed with.
fn errors(
    ranks: u32,
    body: impl Fn(&Communicator) -> Result<(), Error> + Clone + Send + 'static,
) -> Vec<(&'static str, Vec<Option<Error>>)> {
    let impatient = |config| Config { operation_timeout: Duration::from_secs(20), ..config };
    let run = |setup: crate::support::ranks::Setup| {
        let body = body.clone();
        let found = start_threads(&setup, impatient, move |_, comm| {
            let comm = comm.expect("all ranks come");
            let failed = body(&comm).err();
            failed.or(comm.close().err())
        });
        (setup.transport, found)
    };
    real_setups(ranks).map(run).collect()
}

fn expect(error: Option<&Error>, kind: ErrorKind, parts: &[&str]) {
    let error = error.expect("it goes wrong");
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "'{part}' is not in: {error}");
    }
}

#[test]
fn messages_of_a_group_that_do_not_fit_name_both_ranks_and_both_calls() {
    for types_differ in [false, true] {
        let found = errors(3, move |comm| {
            let (mut a, mut b, c) = ([0_i32; 4], [0_i32; 5], [0_u8; 20]);
            let mut group = comm.group();
            match comm.rank() {
                0 => {
                    group.receive(&mut a, 1)?;
                    group.receive(&mut b, 2)?;
                }
                1 => group.send(&a, 0)?,
                _ if types_differ => group.send(&c, 0)?,
                _ => group.send(&b[..3], 0)?,
            }
            group.run()?;
            comm.barrier()
        });
        let theirs = if types_differ { "count=20 u8" } else { "count=3 i32" };
        for (_, errors) in found {
            expect(errors[0].as_ref(), ErrorKind::Mismatch, &["rank 2", "rank 0", "count=5 i32", theirs]);
            for error in &errors {
                assert_eq!(error.as_ref().and_then(Error::cause), errors[0].as_ref().and_then(Error::cause));
            }
        }
    }
}

#[test]
fn a_tagged_message_of_another_length_or_type_is_a_mismatch_whenever_it_comes() {
    for is_kept in [false, true] {
        let found = errors(2, move |comm| {
            if comm.rank() == 0 {
                comm.send_tagged(&[1_i32; 6], 1, 7)?;
                comm.send_tagged(&[1_u8], 1, 8)?;
            } else {
                if is_kept {
                    comm.receive_tagged(&mut [0_u8], None, 8)?;
                }
                comm.receive_tagged(&mut [0_u8; 24], Some(0), 7)?;
            }
            comm.barrier()
        });
        for (_, errors) in found {
            let parts = ["rank 0", "count=6 i32", "count=24 u8", "tag 7"];
            expect(errors[1].as_ref(), ErrorKind::Mismatch, &parts);
        }
    }
}

#[test]
fn messages_that_nobody_receives_are_kept_up_to_a_bound() {
    for (count, len, bound) in [(4200_usize, 1_usize, "4096"), (10, 8 << 20, "67108864")] {
        let found = errors(2, move |comm| {
            if comm.rank() == 1 {
                comm.receive_tagged(&mut [0_u8], None, 2)?;
                return Ok(());
            }
            let works = (0..count).map(|_| comm.send_tagged_async(vec![0_u8; len], 1, 1));
            let works = works.collect::<Result<Vec<_>, _>>()?;
            works.into_iter().try_for_each(|work| work.wait().map(drop))?;
            comm.barrier()
        });
        for (_, errors) in found {
            let parts = ["rank 0", "tag 1", "a message with tag 2 from any rank", bound];
            expect(errors[1].as_ref(), ErrorKind::Mismatch, &parts);
            expect(errors[0].as_ref(), ErrorKind::Mismatch, &parts);
        }
    }
}

#[test]
fn a_message_unread_at_close_is_told_with_its_tag() {
    for is_kept in [false, true] {
        let found = errors(2, move |comm| {
            if comm.rank() == 0 {
                comm.send_tagged(&[1_i32; 3], 1, 5)?;
                comm.send_tagged(&[1_i32; 2], 1, 6)?;
                return comm.barrier();
            }
            if is_kept {
                comm.receive_tagged(&mut [0_i32; 2], None, 6)?;
            }
            comm.barrier()
        });
        for (_, errors) in found {
            let parts = ["rank 0 called", "count=3 i32 with tag 5", "rank 1 called close"];
            expect(errors[1].as_ref(), ErrorKind::Mismatch, &parts);
        }
    }
}

/// Rank 1 closes at once; whoever waits for it, or for any when nobody else is left, is told.
#[test]
fn who_waits_for_a_rank_that_left_is_told() {
    for source in [Some(1), None] {
        let found = errors(2, move |comm| match comm.rank() {
            0 => comm.receive_tagged(&mut [0_u8], source, 3).map(drop),
            _ => Ok(()),
        });
        for (_, errors) in found {
            expect(errors[0].as_ref(), ErrorKind::Remote, &["rank 1"]);
        }
    }
}

#[test]
fn a_message_that_was_sent_before_its_sender_left_is_received() {
    let found = errors(2, |comm| match comm.rank() {
        0 => {
            while comm.receive_tagged_async(vec![0_u8; 0], Some(1), 1)?.wait()?.1 != 1 {}
            std::thread::sleep(Duration::from_millis(30)); // rank 1 is most likely gone by then
            let mut buffer = vec![0_u8; 20_000];
            comm.receive_tagged(&mut buffer[..10], None, 3)?;
            comm.receive_tagged(&mut buffer[10..20], Some(1), 2)?;
            assert_eq!(buffer[..20], [[3; 10], [2; 10]].concat());
            Ok(())
        }
        _ => {
            comm.send_tagged::<u8>(&[], 0, 1)?;
            comm.send_tagged(&[2_u8; 10], 0, 2)?;
            comm.send_tagged(&[3_u8; 10], 0, 3)
        }
    });
    for (transport, errors) in found {
        assert!(errors.iter().all(Option::is_none), "{transport}: {errors:?}");
    }
}

#[test]
fn a_deadline_says_what_is_waited_for_and_whose_message_is_missing() {
    for tagged in [None, Some(Some(2)), Some(None)] {
        for setup in real_setups(3) {
            let meet = Arc::new(Barrier::new(3));
            let soon = |config| Config { operation_timeout: Duration::from_millis(200), ..config };
            let errors = start_threads(&setup, soon, move |rank, comm| {
                let comm = comm.expect("all ranks come");
                if rank > 0 {
                    let sent = if rank == 1 && tagged.is_none() { comm.send(&[1_u8], 0) } else { Ok(()) };
                    meet.wait();
                    return sent.err();
                }
                let (mut a, mut b) = ([0_u8], [0_u8]);
                let failed = match tagged {
                    Some(source) => comm.receive_tagged(&mut a, source, 7).err(),
                    None => {
                        let mut group = comm.group();
                        group.receive(&mut a, 1).expect("a message");
                        group.receive(&mut b, 2).expect("a message");
                        group.run().err()
                    }
                };
                meet.wait();
                failed
            });
            let parts: &[&str] = match tagged {
                None => &["rank 0 is in group", "waits for rank 2"],
                Some(Some(_)) => {
                    &["rank 0 waits for a message with tag 7 from rank 2, which has not answered"]
                }
                Some(None) => &["rank 0 waits for a message with tag 7 from any rank"],
            };
            expect(errors[0].as_ref(), ErrorKind::Timeout, parts);
        }
    }
}

#[test]
fn ranks_that_do_not_exist_are_refused_and_nothing_is_sent() {
    let found = errors(2, |comm| {
        let peer = 1 - comm.rank();
        for error in [
            comm.send_tagged(&[1_u8], 2, 1).expect_err("there is no rank 2"),
            comm.receive_tagged(&mut [1_u8], Some(9), 1).expect_err("there is no rank 9"),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
        let mut back = [0_u8];
        let work = comm.send_tagged_async(vec![4_u8], peer, 1)?;
        assert_eq!(comm.receive_tagged(&mut back, None, 1)?, peer);
        assert_eq!(work.wait()?, [4]);
        Ok(())
    });
    for (transport, errors) in found {
        assert!(errors.iter().all(Option::is_none), "{transport}: {errors:?}");
    }
}

/// Operations under way end with the communicator, and none of their memory is touched again.
#[test]
fn abort_ends_receives_that_wait_and_groups() {
    let found = errors(2, |comm| {
        let waiting = comm.receive_tagged_async(vec![0_u8; 100], None, 1)?;
        let mut group = comm.group_owned();
        let _held = group.receive(vec![0_u8; 1000], 1 - comm.rank())?;
        let work = group.issue()?;
        if comm.rank() == 0 {
            comm.abort("enough")?;
        }
        let error = waiting.wait().expect_err("it is aborted");
        assert_eq!(work.wait().expect_err("it is aborted").kind(), ErrorKind::Aborted);
        Err(error)
    });
    for (_, errors) in found {
        errors.iter().for_each(|error| expect(error.as_ref(), ErrorKind::Aborted, &["enough"]));
    }
}

/// The one rank that is left may still send to itself what it receives from any.
#[test]
fn a_receive_from_any_rank_waits_for_this_rank_when_all_others_have_left() {
    let meet = Arc::new(Barrier::new(2));
    for setup in real_setups(2) {
        let meet = meet.clone();
        let found = start_threads(
            &setup,
            |config| config,
            move |rank, comm| {
                let comm = comm.expect("all ranks come");
                comm.barrier().expect("it works");
                if rank == 1 {
                    comm.close()?;
                    meet.wait();
                    return Ok(());
                }
                meet.wait();
                let work = comm.receive_tagged_async(vec![0_u8; 3], None, 4)?;
                // The service thread looks after it meanwhile; that it finds nothing wrong takes as long as one looks.
                let until = std::time::Instant::now() + Duration::from_millis(20);
                while std::time::Instant::now() < until {
                    assert!(!work.test()?, "nobody has sent");
                }
                comm.send_tagged(&[7_u8; 3], 0, 4)?;
                assert_eq!(work.wait()?, (vec![7; 3], 0));
                comm.close()
            },
        );
        for end in found {
            end.unwrap_or_else(|error: Error| panic!("{}: {error}", setup.transport));
        }
    }
}
