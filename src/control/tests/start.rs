//! Joining, and everything that can be wrong about it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ubccl_core::exchange::BLOB_BYTES_MAX;
use ubccl_core::{Deadline, Error, ErrorKind, Exchange};

use super::super::wire::{Hello, Member, Message, WIRE_VERSION};
use super::super::{Control, Join, Rendezvous};
use super::{join_as, ranks, try_ranks, watchdog};

fn start_errors(joins: Vec<Join>) -> Vec<Error> {
    let errors = try_ranks(joins, |_, joined| joined.err().expect("no rank may start"));
    for error in &errors {
        assert_eq!(error.kind(), ErrorKind::Start, "{error}");
    }
    errors
}

fn soon(join: Join) -> Join {
    Join { deadline: (Instant::now() + Duration::from_secs(1)).into(), ..join }
}

#[test]
fn any_number_of_ranks_join_know_each_other_and_exchange() {
    let _watchdog = watchdog();
    for size in [1, 2, 3, 8, 32] {
        let blobs =
            |round: u32| (0..size).map(|rank| vec![rank as u8; (rank * round) as usize]).collect::<Vec<_>>();
        let members = ranks(size, |rank, mut control| {
            for round in 0..4 {
                let mine = vec![rank as u8; (rank * round) as usize];
                assert_eq!(control.all_gather(&mine).unwrap(), blobs(round));
            }
            assert_eq!((control.rank(), control.ranks()), (rank, size));
            control.members().to_vec()
        });
        assert!(members.iter().all(|others| *others == members[0]));
        assert!(members[0].iter().map(|member| member.rank).eq(0..size));
        assert!(members[0].iter().all(|member| member.pid == std::process::id()));
    }
}

#[test]
fn a_blob_of_the_greatest_length_passes_and_a_longer_one_is_refused_before_anything_is_sent() {
    let _watchdog = watchdog();
    ranks(3, |rank, mut control| {
        let mut blob = vec![rank as u8; BLOB_BYTES_MAX + 1];
        assert_eq!(control.all_gather(&blob).unwrap_err().kind(), ErrorKind::InvalidArgument);
        blob.pop();
        let all = control.all_gather(&blob).unwrap();
        assert!((0u8..).zip(&all).all(|(rank, blob)| blob.len() == BLOB_BYTES_MAX && blob[77] == rank));
    });
}

#[test]
fn impossible_places_are_refused_at_once() {
    for (rank, size) in [(0, 0), (2, 2), (0, 5000)] {
        let error = Control::join(Rendezvous::create().unwrap(), join_as(rank, size)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn a_rank_with_a_wrong_secret_is_told_and_the_job_starts_without_it() {
    let _watchdog = watchdog();
    let rendezvous = Rendezvous::create().unwrap();
    let text = rendezvous.text();
    let address = rendezvous.address().to_string();
    std::thread::scope(|scope| {
        let hub = scope.spawn(|| Control::join(rendezvous, join_as(0, 2)).unwrap());
        let wrong: Rendezvous = format!("ubccl:1:{address}:{}", "0".repeat(32)).parse().unwrap();
        let error = Control::join(wrong, join_as(1, 2)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Start);
        assert!(error.to_string().contains("secret"), "{error}");
        Control::join(text.parse().unwrap(), join_as(1, 2)).unwrap();
        hub.join().unwrap();
    });
}

#[test]
fn strangers_neither_enter_nor_delay() {
    let _watchdog = watchdog();
    let rendezvous = Rendezvous::create().unwrap();
    let (text, address) = (rendezvous.text(), rendezvous.address());
    // More than fit in the door, silent; kept open to the end.
    let _silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut half = TcpStream::connect(address).unwrap();
    half.write_all(&[0; 7]).unwrap();
    let mut web = TcpStream::connect(address).unwrap();
    web.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    std::thread::scope(|scope| {
        let hub = scope.spawn(|| Control::join(rendezvous, join_as(0, 3)).unwrap());
        // Its answer is the end of the connection, before the job has started.
        assert!(!matches!(web.read(&mut [0; 64]), Ok(1..)));
        let spokes = [1, 2].map(|rank| {
            let text: Rendezvous = text.parse().unwrap();
            scope.spawn(move || Control::join(text, join_as(rank, 3)).unwrap())
        });
        let _all = (hub.join().unwrap(), spokes.map(|spoke| spoke.join().unwrap()));
    });
    assert!(!matches!(half.read(&mut [0; 64]), Ok(1..)));
}

#[test]
fn two_processes_with_one_rank_fail_the_start_everywhere() {
    let _watchdog = watchdog();
    // Rank 3 never comes, so only the conflict can end the start.
    let joins = [0, 1, 2, 2].map(|rank| join_as(rank, 4)).to_vec();
    for error in start_errors(joins) {
        assert!(error.to_string().contains("same rank: rank 2 (host "), "{error}");
    }
}

#[test]
fn ranks_that_disagree_about_the_size_are_named() {
    let _watchdog = watchdog();
    let joins = vec![join_as(0, 3), join_as(1, 3), join_as(2, 8)];
    for error in start_errors(joins) {
        let text = error.to_string();
        assert!(
            text.contains("rank 2 (host ") && text.contains("8 ranks") && text.contains("for 3"),
            "{text}"
        );
    }
}

#[test]
fn a_rank_that_never_comes_is_named_on_the_ranks_that_did() {
    let _watchdog = watchdog();
    let joins = [0, 1, 3].map(|rank| soon(join_as(rank, 5))).to_vec();
    for error in start_errors(joins) {
        assert!(error.to_string().contains("2 of 5 ranks did not come"), "{error}");
        assert!(error.to_string().contains("deadline: 2, 4;"), "{error}");
    }
}

#[test]
fn without_rank_0_the_others_say_so() {
    let _watchdog = watchdog();
    let error = start_errors(vec![soon(join_as(1, 2))]).remove(0);
    assert!(error.to_string().contains("rank 0"), "{error}");
}

#[test]
fn rank_0_may_come_last_and_bind_the_text_itself() {
    let _watchdog = watchdog();
    let launcher = Rendezvous::create().unwrap();
    let (text, address) = (launcher.text(), launcher.address());
    drop(launcher);
    // Someone else has the port at first; when the ranks have been turned away, it is free, and rank 0 comes.
    let decoy = TcpListener::bind(address).unwrap();
    std::thread::scope(|scope| {
        let spokes = [1, 2].map(|rank| {
            let text: Rendezvous = text.parse().unwrap();
            scope.spawn(move || Control::join(text, join_as(rank, 3)).unwrap())
        });
        drop((decoy.accept().unwrap(), decoy.accept().unwrap()));
        drop(decoy);
        let _hub = Control::join(text.parse().unwrap(), join_as(0, 3)).unwrap();
        let _spokes = spokes.map(|spoke| spoke.join().unwrap());
    });
}

/// Rank 0 of three meets rank 2 and a raw connection that says `hello`; returns the errors of ranks 0 and 2 and what
/// the raw one was told.
fn raw_hello(hello: Hello) -> (Vec<Error>, String) {
    let rendezvous = Rendezvous::create().unwrap();
    let (text, address) = (rendezvous.text(), rendezvous.address());
    let secret = *rendezvous.secret().bytes();
    std::thread::scope(|scope| {
        let hub = scope.spawn(|| Control::join(rendezvous, join_as(0, 3)).err().unwrap());
        let mut raw = TcpStream::connect(address).unwrap();
        raw.write_all(&secret).unwrap();
        let mut greeting = [0; 5];
        raw.read_exact(&mut greeting).unwrap();
        let other = scope
            .spawn(move || Control::join(text.parse().unwrap(), soon_after(join_as(2, 3))).err().unwrap());
        raw.write_all(&Message::Hello(hello).encode()).unwrap();
        let mut told = Vec::new();
        let _ = raw.read_to_end(&mut told);
        drop(raw);
        (vec![hub.join().unwrap(), other.join().unwrap()], String::from_utf8_lossy(&told).into_owned())
    })
}

/// Time enough to join, and little to wait for who is missing then.
fn soon_after(join: Join) -> Join {
    Join { deadline: (Instant::now() + Duration::from_secs(3)).into(), ..join }
}

fn hello(version: u32, rank: u32) -> Hello {
    let member = Member { pid: 4321, host: "elsewhere".into(), process: [9; 16], ring: [8; 16] };
    Hello { version, rank, size: 3, member }
}

#[test]
fn another_wire_version_a_second_rank_0_and_a_rank_out_of_range_are_named() {
    let _watchdog = watchdog();
    let cases = [
        (hello(WIRE_VERSION + 1, 1), "speaks version 2"),
        (hello(WIRE_VERSION, 0), "same rank: rank 0"),
        (hello(WIRE_VERSION, 3), "does not exist among 3"),
    ];
    for (hello, expected) in cases {
        let (errors, told) = raw_hello(hello);
        assert!(errors[0].to_string().contains(expected), "{}", errors[0]);
        assert!(errors[0].to_string().contains("(host elsewhere, pid 4321)"), "{}", errors[0]);
        assert!(told.contains(expected), "{told}");
        assert_eq!(errors[1].kind(), ErrorKind::Start);
    }
}

#[test]
fn a_rank_that_goes_away_during_the_exchange_fails_it_everywhere() {
    let _watchdog = watchdog();
    let errors = ranks(4, |rank, mut control| {
        if rank == 2 {
            return None; // drops its control
        }
        Some(control.all_gather(b"blob").unwrap_err())
    });
    for error in errors.into_iter().flatten() {
        assert!(error.to_string().contains("rank 2 (host "), "{error}");
        assert_eq!(error.kind(), ErrorKind::Start);
    }
}

#[test]
fn a_rank_that_is_late_for_a_round_is_named() {
    let _watchdog = watchdog();
    let barrier = std::sync::Barrier::new(3);
    let joins = (0..3).map(|rank| soon_after(join_as(rank, 3))).collect();
    let errors = try_ranks(joins, |rank, joined| {
        let mut control = joined.unwrap();
        let error = (rank != 1).then(|| control.all_gather(b"").unwrap_err());
        barrier.wait();
        error
    });
    for error in errors.into_iter().flatten() {
        assert!(error.to_string().contains("still missing: rank 1 (host "), "{error}");
    }
}

/// Rank 0 waits for the others, or another rank knocks at a door that nobody opens.
#[test]
fn a_reason_to_give_up_ends_a_start_at_once() {
    let _watchdog = watchdog();
    let nobody = Rendezvous::create().unwrap().text();
    for rank in [0, 1] {
        let hopeless = Arc::new(AtomicBool::new(false));
        let asked = hopeless.clone();
        let never = Deadline::at(Instant::now() + Duration::from_secs(3600));
        let deadline = never.unless(move || asked.load(Ordering::SeqCst));
        let rendezvous = if rank == 0 { Rendezvous::create().unwrap() } else { nobody.parse().unwrap() };
        let (begun, begins) = std::sync::mpsc::channel();
        let start = std::thread::spawn(move || {
            begun.send(()).unwrap();
            Control::join(rendezvous, Join { deadline, ..join_as(rank, 3) }).err().unwrap()
        });
        begins.recv().unwrap();
        hopeless.store(true, Ordering::SeqCst);
        assert_eq!(start.join().unwrap().kind(), ErrorKind::Start);
    }
}
