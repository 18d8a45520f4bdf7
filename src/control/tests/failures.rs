//! Causes, departures, and the service thread, with ranks as threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Weak};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use ubccl_core::{Cause, Error, ErrorKind, Exchange};

use super::super::{Control, Interest, Join, LEFT_TOO_EARLY, Progress, ProgressState, Service};
use super::{join_as, on_service, ranks, try_ranks, wait_for_cause, wait_until, watchdog};

#[test]
fn a_report_reaches_every_rank_with_what_the_culprit_was_doing() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(4);
    let causes = ranks(4, |rank, control| {
        control.board().start(5, u128::from(rank) + 70);
        barrier.wait();
        if rank == 3 {
            let cause = control.cause(ErrorKind::Mismatch, 1, "rank 3 expected count=4, got count=8");
            assert_eq!(control.report(cause.clone()).unwrap(), cause);
        }
        let cause = wait_for_cause(control.poison());
        assert_eq!(control.poison().check().unwrap_err().kind(), ErrorKind::Mismatch);
        control.leave(4).unwrap();
        cause
    });
    assert_eq!((causes[0].culprit.rank, causes[0].sequence), (1, 5));
    assert_eq!(causes[0].operation, "operation 71");
    assert!(causes.iter().all(|cause| *cause == causes[0]));
}

#[test]
fn of_reports_at_once_one_wins_everywhere_and_every_reporter_learns_it() {
    let _watchdog = watchdog();
    for _ in 0..20 {
        let barrier = Barrier::new(5);
        let causes = ranks(5, |rank, control| {
            barrier.wait();
            if rank != 2 {
                let own = control.cause(ErrorKind::Timeout, rank, format!("reported by {rank}"));
                let won = control.report(own).unwrap();
                assert_eq!(wait_for_cause(control.poison()), won);
            }
            wait_for_cause(control.poison())
        });
        assert!(causes.iter().all(|cause| *cause == causes[0]), "{causes:?}");
        assert_ne!(causes[0].culprit.rank, 2);
    }
}

#[test]
fn an_idle_culprit_is_named_without_an_operation() {
    let _watchdog = watchdog();
    ranks(1, |_, control| {
        control.board().start(9, 1);
        control.board().finish(9);
        let cause = control.cause(ErrorKind::Aborted, 0, "abort was called");
        assert_eq!((cause.operation.as_str(), cause.sequence), ("", 9));
    });
}

#[test]
fn a_verdict_blames_the_suspect_after_the_grace_and_at_once_if_it_left() {
    let _watchdog = watchdog();
    for (grace, leaves) in [(Duration::from_millis(20), false), (Duration::from_secs(60), true)] {
        let causes = ranks_with_grace(3, grace, |rank, control| {
            if rank == 1 && leaves {
                control.leave(0).unwrap();
            }
            match rank {
                0 => control.verdict(1, "its data connection broke").unwrap(),
                _ => wait_for_cause(control.poison()),
            }
        });
        assert!(causes.iter().all(|cause| *cause == causes[0]));
        let message = if leaves { LEFT_TOO_EARLY } else { "its data connection broke" };
        assert_eq!((causes[0].culprit.rank, causes[0].message.as_str()), (1, message));
    }
}

#[test]
fn a_rank_that_left_is_no_cause_but_later_operations_cannot_complete() {
    let _watchdog = watchdog();
    let left = Barrier::new(3);
    let done = Barrier::new(3);
    ranks(3, |rank, control| {
        assert!(control.check_left(1).is_none());
        if rank == 2 {
            control.leave(7).unwrap();
        }
        left.wait();
        if rank != 2 {
            assert_eq!(control.left(2), Some(7));
            wait_until(control.poison(), || control.check_left(8).is_some());
            assert!(control.check_left(7).is_none());
            let cause = control.check_left(8).unwrap();
            assert_eq!((cause.kind, cause.culprit.rank, cause.sequence), (ErrorKind::Remote, 2, 7));
            assert!(cause.message.contains("after sequence 7"));
        }
        assert!(!control.poison().is_set());
        done.wait();
    });
}

#[test]
fn dropping_an_idle_control_is_a_goodbye() {
    let _watchdog = watchdog();
    ranks(2, |rank, control| {
        control.board().start(3, 1);
        control.board().finish(3);
        if rank == 0 {
            return; // rank 0, which the others joined at
        }
        wait_until(control.poison(), || control.check_left(4).is_some());
        assert_eq!(control.left(0), Some(3));
        assert!(!control.poison().is_set());
    });
}

#[test]
fn dropping_a_control_in_the_middle_of_an_operation_is_a_cause() {
    let _watchdog = watchdog();
    let causes = ranks(3, |rank, control| {
        if rank == 0 {
            control.board().start(3, 12);
            return None;
        }
        Some(wait_for_cause(control.poison()))
    });
    let causes: Vec<Cause> = causes.into_iter().flatten().collect();
    assert!(causes.iter().all(|cause| *cause == causes[0]));
    assert_eq!((causes[0].culprit.rank, causes[0].operation.as_str()), (0, "operation 12"));
}

#[test]
fn a_poisoned_communicator_exchanges_nothing() {
    let _watchdog = watchdog();
    ranks(2, |rank, mut control| {
        if rank == 0 {
            control.report(control.cause(ErrorKind::Aborted, 0, "abort was called")).unwrap();
        }
        wait_for_cause(control.poison());
        let error: Error = control.all_gather(b"").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Aborted);
    });
}

#[test]
fn a_handler_is_called_until_its_registration_is_dropped() {
    let _watchdog = watchdog();
    let service = Service::shared().unwrap();
    let (told, tell) = channel();
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
    let reader = bell.clone();
    let handler = move || {
        let mut count = [0; 8];
        if rustix::io::read(&*reader, &mut count).is_ok() {
            told.send(u64::from_ne_bytes(count)).unwrap();
        }
    };
    let registration = service.register(bell.clone(), Interest::Readable, handler).unwrap();
    for count in [1u64, 5] {
        rustix::io::write(&*bell, &count.to_ne_bytes()).unwrap();
        assert_eq!(tell.recv().unwrap(), count);
    }
    drop(registration);
    rustix::io::write(&*bell, &9u64.to_ne_bytes()).unwrap();
    pass_the_service(&service);
    assert!(tell.try_recv().is_err());
}

#[test]
fn a_panicking_handler_silences_nobody() {
    let _watchdog = watchdog();
    let service = Service::shared().unwrap();
    on_service(&service, || panic!("a panic on purpose"));
    pass_the_service(&service);
}

/// Pending for some polls after each ring.
struct Work {
    left: AtomicUsize,
    done: std::sync::mpsc::Sender<()>,
}

impl Progress for Work {
    fn progress(&self) -> ProgressState {
        match self.left.load(Ordering::SeqCst) {
            0 => ProgressState::Idle,
            left => {
                self.left.store(left - 1, Ordering::SeqCst);
                if left == 1 {
                    self.done.send(()).unwrap();
                }
                ProgressState::Pending { next_poll: Duration::from_micros(left as u64 % 3 * 50) }
            }
        }
    }
}

#[test]
fn pending_work_is_driven_until_it_is_idle_and_again_when_rung() {
    let _watchdog = watchdog();
    let service = Service::shared().unwrap();
    let (done, all_done) = channel();
    let work = Arc::new(Work { left: AtomicUsize::new(100), done });
    let weak: Weak<dyn Progress> = Arc::downgrade(&(work.clone() as Arc<dyn Progress>));
    service.register_progress(weak);
    all_done.recv().unwrap();
    for _ in 0..50 {
        work.left.store(3, Ordering::SeqCst);
        service.ring();
        all_done.recv().unwrap();
    }
}

/// Returns when the service thread has finished what it had to do when this was called.
fn pass_the_service(service: &Service) {
    for _ in 0..2 {
        let (passed, pass) = channel();
        on_service(service, move || passed.send(()).unwrap());
        pass.recv().unwrap();
    }
}

fn ranks_with_grace<T: Send>(size: u32, grace: Duration, body: impl Fn(u32, Control) -> T + Sync) -> Vec<T> {
    let joins = (0..size).map(|rank| Join { grace, ..join_as(rank, size) }).collect();
    try_ranks(joins, |rank, joined| body(rank, joined.unwrap()))
}
