//! Ranks as real processes: the test program runs itself again, once for each rank, and each rank plays a scenario.
//!
//! The parent starts a [`Job`], reads what its ranks [say](Child::say) as JSON lines, sees what each is doing in a word
//! that the rank [publishes](Child::publish) (it survives the rank, so that the parent knows what a killed one was
//! doing), kills or stops ranks, and waits until all are gone. Whatever happens, a watchdog ends the job, dropping the
//! job kills and reaps its processes, and a rank whose parent dies is killed by the kernel.
//!
//! A test program that uses it has one test that is nothing by itself:
//!
//! ```ignore
//! #[test]
//! fn a_rank() {
//!     support::processes::play(&[("scenario", scenario)]); // fn scenario(child: &Child)
//! }
//! ```

use super::ranks::WATCHDOG;
use rustix::process::{Pid, Signal, WaitIdOptions, kill_process};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;
use ubccl::{Communicator, Config, Error, Rendezvous};

/// The environment variable by which a rank knows what it is: a JSON object.
const ROLE: &str = "UBCCL_TEST_ROLE";
/// Stands before what a rank says, because the test runner prints too.
const MARK: &str = "@@";

/// Processes that play the ranks of one communicator.
pub struct Job {
    processes: Vec<Option<std::process::Child>>,
    pids: Vec<u32>,
    said: Receiver<(u32, Value)>,
    /// Lines that were read before somebody asked for them.
    unread: Vec<VecDeque<Value>>,
    words: File,
    deadline: Instant,
}

impl Job {
    /// Starts `ranks` processes that play `scenario` with these settings. Rank 0 makes the rendezvous.
    pub fn start(scenario: &str, ranks: u32, settings: &Value) -> Job {
        let (sender, said) = channel();
        let mut job = Job {
            processes: Vec::new(),
            pids: Vec::new(),
            said,
            unread: vec![VecDeque::new(); ranks as usize],
            words: memory(u64::from(ranks)),
            deadline: Instant::now() + WATCHDOG,
        };
        let mut rendezvous = Value::Null;
        for rank in 0..ranks {
            let role = json!({
                "scenario": scenario, "rank": rank, "ranks": ranks, "settings": settings, "rendezvous": rendezvous,
                "words": format!("/proc/{}/fd/{}", std::process::id(), job.words.as_raw_fd()),
                "parent": std::process::id(),
            });
            job.spawn(rank, &role, sender.clone());
            if rank == 0 {
                rendezvous = job.hear(0)["rendezvous"].clone();
            }
        }
        job
    }

    fn spawn(&mut self, rank: u32, role: &Value, sender: Sender<(u32, Value)>) {
        let mut process = Command::new(std::env::current_exe().expect("this program has a path"))
            .args(["--exact", "a_rank", "--nocapture", "--test-threads=1"])
            .env(ROLE, role.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let output = process.stdout.take().expect("it is piped");
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            let said = lines.filter_map(|line| line.split_once(MARK).map(|(_, said)| said.to_owned()));
            let values = said.map(|text| serde_json::from_str(&text).expect("ranks say JSON"));
            // The last word is that there is none. The job may be gone: then nobody wants to know.
            let _ = values.chain([Value::Null]).try_for_each(|value| sender.send((rank, value)));
        });
        self.pids.push(process.id());
        self.processes.push(Some(process));
    }

    pub fn ranks(&self) -> u32 {
        self.pids.len() as u32
    }

    pub fn pid(&self, rank: u32) -> u32 {
        self.pids[rank as usize]
    }

    /// The next thing that a rank says.
    pub fn hear(&mut self, rank: u32) -> Value {
        loop {
            if let Some(value) = self.unread[rank as usize].pop_front() {
                assert!(!value.is_null(), "rank {rank} ended and said no more: {}", self.state());
                return value;
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok((speaker, value)) => self.unread[speaker as usize].push_back(value),
                Err(error) => panic!("rank {rank} says nothing ({error}): {}", self.state()),
            }
        }
    }

    /// The word that a rank published last; it outlives the rank.
    pub fn word(&self, rank: u32) -> u64 {
        let mut bytes = [0; 8];
        self.words.read_exact_at(&mut bytes, 8 * u64::from(rank)).expect("there is a word for every rank");
        u64::from_ne_bytes(bytes)
    }

    /// Sets a rank's word, for a rank that waits for it.
    pub fn publish(&self, rank: u32, word: u64) {
        self.words
            .write_all_at(&word.to_ne_bytes(), 8 * u64::from(rank))
            .expect("there is a word for every rank");
    }

    /// Watches a rank's word, without sleeping, until it is as wanted.
    pub fn watch(&self, rank: u32, is_wanted: impl Fn(u64) -> bool) -> u64 {
        loop {
            let word = self.word(rank);
            if is_wanted(word) {
                return word;
            }
            assert!(Instant::now() < self.deadline, "rank {rank} does not get there: {}", self.state());
        }
    }

    /// Sends a signal to a rank.
    pub fn signal(&self, rank: u32, signal: Signal) {
        kill_process(self.process(rank), signal).expect("the rank has not been reaped");
    }

    fn process(&self, rank: u32) -> Pid {
        Pid::from_raw(self.pid(rank) as i32).expect("a pid is not 0")
    }

    /// Kills a rank with SIGKILL and returns when it is dead; when the signal was sent, in [`now_ns`].
    pub fn kill(&mut self, rank: u32) -> u64 {
        let at = now_ns();
        self.signal(rank, Signal::KILL);
        // Waits without reaping, so that the pid cannot be another's until the job ends.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(self.process(rank)), options)
            .expect("it is a child");
        at
    }

    /// Waits until every process has ended; how.
    pub fn finish(mut self) -> Vec<ExitStatus> {
        let ranks = 0..self.ranks();
        ranks.map(|rank| self.wait(rank)).collect()
    }

    /// Waits until a rank's process has ended; how.
    pub fn wait(&mut self, rank: u32) -> ExitStatus {
        loop {
            let process = self.processes[rank as usize].as_mut().expect("a rank is waited for once");
            if let Some(status) = process.try_wait().expect("it is a child") {
                self.processes[rank as usize] = None;
                return status;
            }
            assert!(Instant::now() < self.deadline, "rank {rank} does not end: {}", self.state());
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }

    /// What the kernel and the words know of every rank, for a watchdog's bark.
    fn state(&self) -> String {
        let of = |rank: u32| {
            let read = |file| std::fs::read_to_string(format!("/proc/{}/{file}", self.pid(rank)));
            let status = read("status").unwrap_or_else(|_| "gone".into());
            let state = status.lines().find(|line| line.starts_with("State")).unwrap_or("gone").to_owned();
            let place = read("wchan").unwrap_or_default();
            format!("rank {rank} (pid {}): {state} {place}, word {:#x}", self.pid(rank), self.word(rank))
        };
        (0..self.ranks()).map(of).collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            let _ = process.kill(); // may have ended
            let _ = process.wait();
        }
    }
}

/// Anonymous memory of so many words.
fn memory(words: u64) -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = File::from(rustix::fs::memfd_create("words-of-a-test", flags).expect("anonymous memory"));
    file.set_len(8 * words).expect("a few bytes");
    file
}

/// The monotonic clock, the same for all processes.
pub fn now_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A rank, as its own process sees it.
pub struct Child {
    pub rank: u32,
    pub ranks: u32,
    pub settings: Value,
    rendezvous: parking_lot::Mutex<Option<Rendezvous>>,
    words: File,
}

impl Child {
    /// The configuration of this rank: its place and the transport of the settings.
    pub fn config(&self) -> Config {
        Config {
            rendezvous: self.rendezvous.lock().take(),
            rank: self.rank,
            ranks: self.ranks,
            transport: self.text("transport").to_owned(),
            start_timeout: WATCHDOG / 2,
            operation_timeout: WATCHDOG / 2,
            ..Config::default()
        }
    }

    /// Joins the others.
    pub fn join(&self) -> Result<Communicator, Error> {
        Communicator::init(self.config())
    }

    pub fn text(&self, setting: &str) -> &str {
        self.settings[setting].as_str().expect("the setting is a text")
    }

    pub fn number(&self, setting: &str) -> u64 {
        self.settings[setting].as_u64().expect("the setting is a number")
    }

    /// Tells the parent.
    pub fn say(&self, value: &Value) {
        println!("\n{MARK}{value}");
    }

    /// Shows the parent a word, with one system call and no waiting.
    pub fn publish(&self, word: u64) {
        let at = 8 * u64::from(self.rank);
        self.words.write_all_at(&word.to_ne_bytes(), at).expect("there is a word for every rank");
    }

    /// Waits until another rank has published what is wanted.
    pub fn watch(&self, rank: u32, is_wanted: impl Fn(u64) -> bool) {
        let mut bytes = [0; 8];
        loop {
            self.words
                .read_exact_at(&mut bytes, 8 * u64::from(rank))
                .expect("there is a word for every rank");
            if is_wanted(u64::from_ne_bytes(bytes)) {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// All that an error says, for [`Child::say`].
pub fn told(error: &Error) -> Value {
    let cause = error.cause().map(|cause| {
        json!({
            "kind": cause.kind.name(), "rank": cause.culprit.rank, "host": cause.culprit.host,
            "pid": cause.culprit.pid, "operation": cause.operation, "sequence": cause.sequence,
            "message": cause.message,
        })
    });
    json!({ "kind": error.kind().name(), "text": error.to_string(), "cause": cause })
}

/// What a rank does.
pub type Scenario = fn(&Child);

/// Plays this process's scenario, if it is a rank of a job.
pub fn play(scenarios: &[(&str, Scenario)]) {
    let Ok(role) = std::env::var(ROLE) else { return };
    let role: Value = serde_json::from_str(&role).expect("the parent wrote it");
    die_with_the_parent(&role);
    let number = |name: &str| role[name].as_u64().expect("the parent set it") as u32;
    let rendezvous: Rendezvous = match role["rendezvous"].as_str() {
        Some(text) => text.parse().expect("rank 0 wrote it"),
        None => Rendezvous::create().expect("a rendezvous on loopback"),
    };
    let path = role["words"].as_str().expect("the parent set it");
    let child = Child {
        rank: number("rank"),
        ranks: number("ranks"),
        settings: role["settings"].clone(),
        words: File::options().read(true).write(true).open(path).expect("the parent holds it open"),
        rendezvous: parking_lot::Mutex::new(None),
    };
    if child.rank == 0 {
        child.say(&json!({ "rendezvous": rendezvous.text() }));
    }
    *child.rendezvous.lock() = Some(rendezvous);
    let name = role["scenario"].as_str().expect("the parent set it");
    let scenario = scenarios.iter().find(|scenario| scenario.0 == name).expect("a scenario of this program");
    scenario.1(&child);
}

fn die_with_the_parent(role: &Value) {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).expect("Linux can");
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    assert_eq!(Some(parent as u64), role["parent"].as_u64(), "the parent died before this rank began");
}
