//! Ranks as real processes, killed for real: this test program runs itself as puppets that do what they are told.
#![allow(clippy::exit)] // puppets exit when told, without dropping anything

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ubccl_core::{Cause, ErrorKind};

use super::super::{Control, Join, Rendezvous, Service};
use super::{PATIENCE, join_as, on_service, wait_for_cause, wait_until, watchdog};

const RENDEZVOUS: &str = "UBCCL_TEST_RENDEZVOUS";
const RANK: &str = "UBCCL_TEST_RANK";
const SIZE: &str = "UBCCL_TEST_SIZE";

/// A rank in a process of its own. Dropping it kills and reaps it.
struct Puppet {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Puppet {
    fn start(rendezvous: &str, rank: u32, size: u32) -> Puppet {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "control::tests::processes::puppet",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(RENDEZVOUS, rendezvous)
            .env(RANK, rank.to_string())
            .env(SIZE, size.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Puppet { child, orders, answers }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// The next answer; answers stand behind a mark because the test runner prints too.
    fn answer(&mut self) -> String {
        loop {
            let line = self.answers.next().expect("the puppet ended early").unwrap();
            if let Some((_, answer)) = line.split_once("@@") {
                return answer.to_owned();
            }
        }
    }

    fn ask(&mut self, order: &str) -> String {
        self.order(order);
        self.answer()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = self.child.kill(); // may have ended
        let _ = self.child.wait();
    }
}

/// Starts a job whose launcher only makes the text.
fn job(size: u32) -> Vec<Puppet> {
    let text = Rendezvous::create().unwrap().text();
    // Rank 0 last: the others wait for it.
    let mut puppets: Vec<Puppet> = (0..size).rev().map(|rank| Puppet::start(&text, rank, size)).collect();
    puppets.reverse();
    for puppet in &mut puppets {
        assert_eq!(puppet.answer(), "joined");
    }
    puppets
}

fn all_same_cause(survivors: &mut [Puppet]) -> String {
    survivors.iter_mut().for_each(|puppet| puppet.order("wait"));
    let causes: Vec<String> = survivors.iter_mut().map(Puppet::answer).collect();
    assert!(causes.iter().all(|cause| *cause == causes[0]), "{causes:#?}");
    causes[0].clone()
}

#[test]
fn any_killed_rank_is_the_cause_on_every_survivor_with_pid_operation_and_sequence() {
    let _watchdog = watchdog();
    for victim in [0, 1, 3] {
        let mut puppets = job(4);
        for (rank, puppet) in puppets.iter_mut().enumerate() {
            assert_eq!(puppet.ask(&format!("start 41 {}", 100 + rank)), "ok");
        }
        assert_eq!(puppets[victim].ask(&format!("start 42 {}", 200 + victim)), "ok");
        let mut killed = puppets.remove(victim);
        killed.kill();
        let cause = all_same_cause(&mut puppets);
        let expected =
            format!("Remote|{victim}|{}|operation {}|42|its process died", killed.pid(), 200 + victim);
        assert_eq!(cause, expected);
    }
}

#[test]
fn an_idle_rank_that_is_killed_has_a_sequence_and_no_operation() {
    let _watchdog = watchdog();
    let mut puppets = job(3);
    puppets[2].ask("start 6 1");
    puppets[2].ask("finish 6");
    let mut killed = puppets.pop().unwrap();
    killed.kill();
    assert_eq!(all_same_cause(&mut puppets), format!("Remote|2|{}||6|its process died", killed.pid()));
}

#[test]
fn when_several_die_at_once_hub_included_the_survivors_still_agree() {
    let _watchdog = watchdog();
    for _ in 0..5 {
        let mut puppets = job(6);
        let mut dead: Vec<Puppet> = puppets.drain(..3).collect();
        dead.iter_mut().for_each(|puppet| puppet.child.kill().unwrap());
        let cause = all_same_cause(&mut puppets);
        let rank: usize = cause.split('|').nth(1).unwrap().parse().unwrap();
        assert!(cause.contains(&format!("|{}|", dead[rank].pid())), "{cause}");
    }
}

#[test]
fn a_rank_that_reports_and_exits_at_once_is_not_itself_the_cause() {
    let _watchdog = watchdog();
    for reporter in [0, 2] {
        let mut puppets = job(4);
        puppets[reporter].order("report-and-exit 3");
        let mut gone = puppets.remove(reporter);
        gone.child.wait().unwrap();
        let accused = puppets[2].pid();
        let cause = all_same_cause(&mut puppets);
        assert_eq!(cause, format!("Mismatch|3|{accused}||0|found by rank {reporter}"));
    }
}

#[test]
fn after_rank_0_left_and_exited_a_death_is_still_noticed() {
    let _watchdog = watchdog();
    let mut puppets = job(4);
    assert_eq!(puppets[0].ask("leave 5"), "ok");
    puppets[0].order("exit");
    puppets[0].child.wait().unwrap();
    for puppet in &mut puppets[1..] {
        assert_eq!(puppet.ask("wait-left 6"), "0|5");
        assert_eq!(puppet.ask("poisoned"), "false");
    }
    let mut killed = puppets.remove(2);
    killed.kill();
    let cause = all_same_cause(&mut puppets[1..]);
    assert_eq!(cause, format!("Remote|2|{}||0|its process died", killed.pid()));
}

#[test]
fn a_verdict_waited_for_on_the_service_thread_itself_learns_of_the_death() {
    let _watchdog = watchdog();
    let mut puppets = job(3);
    assert_eq!(puppets[1].ask("verdict-on-service 2"), "ok");
    let mut killed = puppets.pop().unwrap();
    killed.kill();
    let died = format!("Remote|2|{}||0|its process died", killed.pid());
    assert_eq!(puppets[1].answer(), died);
    assert_eq!(all_same_cause(&mut puppets), died);
}

#[test]
fn a_goodbye_and_an_exit_are_no_death() {
    let _watchdog = watchdog();
    let mut puppets = job(3);
    for rank in [1, 0] {
        assert_eq!(puppets[rank].ask("leave 2"), "ok");
        puppets[rank].order("exit");
        puppets[rank].child.wait().unwrap();
    }
    assert_eq!(puppets[2].ask("wait-left 3"), "0|2");
    assert_eq!(puppets[2].ask("poisoned"), "false");
}

#[test]
fn a_rank_killed_while_starting_fails_the_start() {
    let _watchdog = watchdog();
    let rendezvous = Rendezvous::create().unwrap();
    let mut joining = Puppet::start(&rendezvous.text(), 1, 3);
    // Nothing shows from outside whether its hello is in when it is killed: both endings are right.
    let hub = std::thread::spawn(move || {
        let soon = Join { deadline: (Instant::now() + Duration::from_secs(2)).into(), ..join_as(0, 3) };
        Control::join(rendezvous, soon).err().unwrap()
    });
    joining.kill();
    let error = hub.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Start);
    assert!(
        error.to_string().contains("rank 1 (host") || error.to_string().contains("deadline: 1, 2;"),
        "{error}"
    );
}

#[test]
fn dropped_controls_leave_no_descriptor_thread_or_mapping_and_an_idle_one_sleeps() {
    let _watchdog = watchdog();
    let mut puppet = Puppet::start("unused", 0, 1);
    assert_eq!(puppet.answer(), "without any service before: none");
    assert_eq!(puppet.answer(), "joined");
    assert_eq!(puppet.ask("leaks"), "none"); // the service stays
    assert_eq!(puppet.ask("idle"), "0 wakes");
}

#[test]
fn a_forked_child_gets_errors_and_does_not_disturb_its_parent() {
    let _watchdog = watchdog();
    let mut puppets = job(2);
    assert_eq!(puppets[1].ask("fork"), "refused, refused");
    for puppet in &mut puppets {
        assert_eq!(puppet.ask("poisoned"), "false");
    }
    let mut killed = puppets.remove(0);
    killed.kill();
    assert!(all_same_cause(&mut puppets).starts_with("Remote|0|"));
}

/// Not a test: what the puppets run.
#[test]
#[ignore = "run by other tests in a process of its own"]
fn puppet() {
    let Ok(size) = std::env::var(SIZE) else { return };
    let rank: u32 = std::env::var(RANK).unwrap().parse().unwrap();
    let size = size.parse().unwrap();
    let text = std::env::var(RENDEZVOUS).unwrap();
    let rendezvous = if size == 1 { Rendezvous::create().unwrap() } else { text.parse().unwrap() };
    if size == 1 {
        println!("@@without any service before: {}", leaks());
    }
    let join = Join { grace: PATIENCE, ..join_as(rank, size) };
    let control = Arc::new(Control::join(rendezvous, join).unwrap());
    println!("@@joined");
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let words: Vec<&str> = order.split(' ').collect();
        println!("@@{}", obey(&control, rank, &words));
    }
    // The test has ended or died.
    std::process::exit(0);
}

fn obey(control: &Arc<Control>, rank: u32, order: &[&str]) -> String {
    let number = |index: usize| order[index].parse::<u64>().unwrap();
    match order[0] {
        "start" => control.board().start(number(1), u128::from(number(2))),
        "finish" => control.board().finish(number(1)),
        "leave" => control.leave(number(1)).unwrap(),
        "exit" => std::process::exit(0),
        "report-and-exit" => {
            let cause = control.cause(ErrorKind::Mismatch, number(1) as u32, format!("found by rank {rank}"));
            control.report(cause).unwrap();
            std::process::exit(1);
        }
        "wait" => return in_short(&wait_for_cause(control.poison())),
        "verdict-on-service" => {
            let (control, peer) = (control.clone(), number(1) as u32);
            on_service(control.clone().service(), move || {
                println!("@@{}", in_short(&control.verdict(peer, "never used").unwrap()));
            });
        }
        "wait-left" => {
            wait_until(control.poison(), || control.check_left(number(1)).is_some());
            let cause = control.check_left(number(1)).unwrap();
            return format!("{}|{}", cause.culprit.rank, cause.sequence);
        }
        "poisoned" => return control.poison().is_set().to_string(),
        "leaks" => return leaks(),
        "idle" => return idle(control.service()),
        "fork" => return fork(control),
        other => panic!("unknown order {other}"),
    }
    "ok".into()
}

fn in_short(cause: &Cause) -> String {
    let Cause { kind, culprit, operation, sequence, message } = cause;
    format!("{kind:?}|{}|{}|{operation}|{sequence}|{message}", culprit.rank, culprit.pid)
}

/// Joins and drops communicators of threads, a few times, and compares what is open.
fn leaks() -> String {
    let before = open_things();
    for round in 0..3 {
        super::ranks(5, |rank, control| {
            if round == 1 && rank == 1 {
                control.report(control.cause(ErrorKind::Aborted, 1, "abort")).unwrap();
            }
        });
        // A joined thread stands in /proc for a moment longer, and a handler may just be ending.
        let mut looks = 0;
        while open_things() != before {
            looks += 1;
            if looks == 1000 {
                return format!("{before:?} before, {:?} after", open_things());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    "none".into()
}

/// Descriptors, threads, mappings of boards.
fn open_things() -> (usize, usize, usize) {
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (count("fd"), count("task"), maps.matches("memfd:ubccl-board").count())
}

/// How often the service thread wakes while nothing happens: a sample, not a synchronisation.
fn idle(service: &Service) -> String {
    let (passed, pass) = std::sync::mpsc::channel();
    on_service(service, move || passed.send(()).unwrap());
    pass.recv().unwrap();
    std::thread::sleep(Duration::from_millis(50)); // the loop's last turn
    let before = service.wakes();
    std::thread::sleep(Duration::from_millis(500));
    format!("{} wakes", service.wakes() - before)
}

#[allow(unsafe_code)] // fork itself
fn fork(control: &Control) -> String {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // SAFETY: the child only runs the few lines below and ends; the one lock they could need that another thread might
    // hold is the allocator's, which the C library keeps usable across fork.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let word = |refused: bool| if refused { "refused" } else { "allowed" };
        let text = format!("{}, {}", word(Service::shared().is_err()), word(control.leave(1).is_err()));
        let _ = writer.write_all(text.as_bytes());
        // SAFETY: reads the parent's control bit for bit in the child's copy of the memory and drops that; the original
        // is not used again in this process, which ends on the next line.
        drop(unsafe { std::ptr::read(control) });
        // SAFETY: ends the child without running anything else.
        unsafe { libc::_exit(0) };
    }
    drop(writer);
    std::io::read_to_string(reader).unwrap()
}
