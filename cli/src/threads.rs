//! Ranks as threads of this program, for the transports whose ranks share a process.
//!
//! They do what the processes of `launch.rs` do, and say the same words, over channels. Nothing has to be cleaned up: a
//! signal ends the program with all its threads.

use crate::failure::{Failure, Outcome};
use crate::launch::Causes;
use crate::orders::{Answer, Crew, Order};
use crate::target::{self, Error, Settings};
use crate::wire::Word;
use crate::worker::{Parent, serve};
use rustix::time::ClockId;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// When one rank fails, the others have so long to say what they saw.
const GRACE: Duration = Duration::from_secs(2);
/// At the end, ranks have so long to close their communicator.
const FAREWELL: Duration = Duration::from_secs(10);

/// How to start the ranks.
#[derive(Clone, Debug)]
pub(crate) struct Muster {
    /// How many.
    pub(crate) ranks: u32,
    /// Whether each binds to a processor.
    pub(crate) pin: bool,
    /// How to join, but for what stands in the environment.
    pub(crate) settings: Settings,
}

/// All ranks.
#[derive(Debug)]
pub(crate) struct Threads {
    orders: Vec<Sender<Order>>,
    said: Receiver<(usize, Said)>,
    /// The processors they are bound to.
    pub(crate) cpus: Vec<Option<usize>>,
    /// Of each rank: the memory of its communicator.
    pub(crate) memory_bytes: Vec<u64>,
}

/// What comes from a rank.
#[derive(Debug)]
enum Said {
    Word(Word),
    /// It closed its communicator and ended.
    Ended,
}

/// A rank's line to the one that measures.
struct Line {
    rank: usize,
    orders: Receiver<Order>,
    say: Sender<(usize, Said)>,
}

impl Parent for Line {
    fn say(&mut self, word: Word) -> Result<(), Error> {
        // Nobody listens any more when the program ends.
        self.say.send((self.rank, Said::Word(word))).map_err(|_| Error::internal("nobody listens"))
    }

    fn next(&mut self) -> Result<Option<Order>, Error> {
        Ok(self.orders.recv().ok())
    }
}

impl Threads {
    /// Starts the ranks and waits until their communicator is up.
    pub(crate) fn start(muster: &Muster) -> Outcome<Self> {
        let rendezvous = target::new_rendezvous()?;
        let text = rendezvous.text();
        let mut first = Some(rendezvous);
        let (say, said) = channel();
        let mut crew = Threads { orders: Vec::new(), said, cpus: Vec::new(), memory_bytes: Vec::new() };
        for rank in 0..muster.ranks {
            let mut config = target::configuration(&muster.settings)?;
            let rendezvous = first.take().map_or_else(|| text.parse(), Ok)?;
            (config.rendezvous, config.rank, config.ranks) = (Some(rendezvous), rank, muster.ranks);
            let (order, orders) = channel();
            let mut line = Line { rank: rank as usize, orders, say: say.clone() };
            let pin = muster.pin;
            let live = move || {
                let end = match serve(config, pin, ClockId::ThreadCPUTime, &mut line) {
                    Ok(()) => Said::Ended,
                    Err(error) => Said::Word(Word::Failed(error.to_string())),
                };
                // As in `Line::say`.
                let _ = line.say.send((line.rank, end));
            };
            let thread = std::thread::Builder::new().name(format!("rank {rank}")).spawn(live);
            thread.map_err(|error| {
                Failure::new(format!("rank {rank}: cannot start its thread: {error}; use fewer --ranks"))
            })?;
            crew.orders.push(order);
        }
        for word in crew.gather()? {
            let Word::Ready { cpu, memory_bytes } = word else {
                return Err(Failure::new("a rank did not start as agreed"));
            };
            crew.cpus.push(cpu);
            crew.memory_bytes.push(memory_bytes);
        }
        Ok(crew)
    }

    /// Lets the ranks end by themselves.
    pub(crate) fn finish(mut self) -> Outcome<()> {
        let ranks = self.orders.len();
        self.orders.clear();
        let deadline = Instant::now() + FAREWELL;
        for _ in 0..ranks {
            match self.hear(deadline) {
                Some((_, Said::Ended)) => {}
                Some((rank, Said::Word(word))) => return Err(self.fail(rank, word)),
                None => return Err(Failure::new("a rank did not end in time")),
            }
        }
        Ok(())
    }

    fn hear(&self, deadline: Instant) -> Option<(usize, Said)> {
        self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// Waits for one word from every rank, in rank order.
    fn gather(&mut self) -> Outcome<Vec<Word>> {
        let mut words: Vec<Option<Word>> = self.orders.iter().map(|_| None).collect();
        while words.iter().any(Option::is_none) {
            match self.said.recv() {
                Ok((rank, Said::Word(word @ Word::Failed(_)))) => return Err(self.fail(rank, word)),
                Ok((rank, Said::Word(word))) => words[rank] = Some(word),
                // A thread that panicked drops its line without a word; its message is on standard error.
                Ok((rank, Said::Ended)) => return Err(Failure::new(format!("rank {rank} left early"))),
                Err(_) => return Err(Failure::new("every rank is gone")),
            }
        }
        Ok(words.into_iter().flatten().collect())
    }

    /// After one rank failed: hears the others out for a moment and tells each cause once.
    fn fail(&self, rank: usize, word: Word) -> Failure {
        let mut causes = Causes::default();
        let mut note = |rank, word| {
            if let Word::Failed(text) = word {
                causes.errors.push((rank, text));
            }
            causes.errors.len()
        };
        let mut failed = note(rank, word);
        let deadline = Instant::now() + GRACE;
        while failed < self.orders.len() {
            match self.hear(deadline) {
                Some((rank, Said::Word(word))) => failed = note(rank, word),
                Some((_, Said::Ended)) => {}
                None => break,
            }
        }
        causes.errors.sort();
        Failure::new(causes.tell())
    }
}

impl Crew for Threads {
    fn run(&mut self, order: &Order) -> Outcome<Vec<Answer>> {
        for line in &self.orders {
            // A rank that is gone cannot be told; gathering finds out how it ended.
            let _ = line.send(order.clone());
        }
        let answer = |word| match word {
            Word::Answer(answer) => Ok(answer),
            other => Err(Failure::new(format!("a rank answered out of turn: {other:?}"))),
        };
        self.gather()?.into_iter().map(answer).collect()
    }
}
