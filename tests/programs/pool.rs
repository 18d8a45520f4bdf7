//! Rank threads that live for many programs: one set for each world size.

use crate::program::Program;
use crate::run_threads;
use crate::support::ranks::WATCHDOG;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use ubccl::{Communicator, Config, Rendezvous};

/// A program went wrong on a rank.
#[derive(Debug)]
pub struct Failure {
    pub program: Arc<Program>,
    pub transport: &'static str,
    /// `None`: on all ranks at once.
    pub rank: Option<usize>,
    pub step: usize,
    pub message: String,
}

/// Programs that wait for their ranks, at most.
const QUEUE: usize = 8;
/// Programs on one communicator of the world; then it is closed, and another is made.
const PROGRAMS: usize = 300;

/// How long a waiting rank spins, in worlds of an even and of an odd number of ranks: both ways of waiting occur. Longer
/// would only keep the other ranks off the cores.
const SPINS: [Duration; 2] = [Duration::from_micros(20), Duration::ZERO];

/// The ranks of a world.
pub struct Pool {
    jobs: Vec<Sender<Arc<Program>>>,
    /// What each rank made of each program, or of its end.
    done: Receiver<Result<(), Failure>>,
    open: usize,
    given: usize,
}

impl Pool {
    pub fn new(transport: &'static str, ranks: usize) -> Self {
        let rendezvous = Rendezvous::create().expect("a rendezvous on loopback");
        let text = rendezvous.text();
        let mut first = Some(rendezvous);
        let (sender, done) = channel();
        let start = |rank| {
            let rendezvous = first.take().unwrap_or_else(|| text.parse().expect("its own text parses"));
            let config = Config {
                rendezvous: Some(rendezvous),
                rank: rank as u32,
                ranks: ranks as u32,
                transport: transport.into(),
                operation_timeout: WATCHDOG / 2,
                start_timeout: WATCHDOG / 2,
                spin: SPINS[ranks % 2],
                ..Config::default()
            };
            let (job, jobs) = channel();
            let sender = sender.clone();
            let run = move || serve(transport, config, jobs, &sender);
            std::thread::Builder::new().name(format!("rank {rank}")).spawn(run).expect("a thread");
            job
        };
        let jobs = (0..ranks).map(start).collect();
        Pool { jobs, done, open: 0, given: 0 }
    }

    /// Whether it should be ended and another made.
    pub fn is_old(&self) -> bool {
        self.given >= PROGRAMS
    }

    /// Gives the program to the ranks; waits while many others wait.
    pub fn give(&mut self, program: &Arc<Program>) -> Result<(), Vec<Failure>> {
        while self.open >= QUEUE * self.jobs.len() {
            self.collect()?;
        }
        for job in &self.jobs {
            // A rank that has ended has told why, which is heard later.
            let _ = job.send(program.clone());
            self.open += 1;
        }
        self.given += 1;
        Ok(())
    }

    /// Waits for everything, and for the ranks to close their communicators.
    pub fn finish(mut self) -> Result<(), Vec<Failure>> {
        while self.open > 0 {
            self.collect()?;
        }
        self.jobs.clear();
        loop {
            match self.done.recv_timeout(WATCHDOG) {
                Ok(done) => done.map_err(|failure| vec![failure])?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => panic!("the watchdog barked: a rank does not end"),
            }
        }
    }

    /// Waits for one rank with one program; of a failure waits what the other ranks say.
    fn collect(&mut self) -> Result<(), Vec<Failure>> {
        let done =
            self.done.recv_timeout(WATCHDOG).expect("the watchdog barked: a rank neither works nor fails");
        self.open -= 1;
        let Err(failure) = done else { return Ok(()) };
        let mut failures = vec![failure];
        self.jobs.clear();
        while let Ok(done) = self.done.recv_timeout(WATCHDOG) {
            failures.extend(done.err());
        }
        Err(failures)
    }
}

/// One rank: runs programs until there are no more or one fails.
fn serve(
    transport: &'static str,
    config: Config,
    jobs: Receiver<Arc<Program>>,
    done: &Sender<Result<(), Failure>>,
) {
    let rank = config.rank as usize;
    let world = Communicator::init(config).expect("all ranks come");
    let mut last = None;
    let failure = |program: Arc<Program>, (step, message)| Failure {
        program,
        transport,
        rank: Some(rank),
        step,
        message,
    };
    for program in jobs {
        let mut has_failed = false;
        run_threads::run(&world, &program, |result| {
            has_failed = result.is_err();
            // Nobody listens any more after the first failure was heard.
            let _ = done.send(result.map_err(|error| failure(program.clone(), error)));
        });
        if has_failed {
            return;
        }
        last = Some(program);
    }
    if let (Err(error), Some(program)) = (world.close(), last) {
        let step = program.steps.len();
        let _ = done.send(Err(failure(program, (step, format!("the world does not close: {error}")))));
    }
}
