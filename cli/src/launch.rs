//! Ranks as processes: started, ordered about, watched, and never left behind.
//!
//! Every rank is this program again (`ubccl worker`), in its own process group so that Ctrl-C reaches the parent
//! alone, with a socket to the parent as its standard input. If a rank fails or a signal comes, the parent kills and
//! reaps them all; if the parent itself is killed, the kernel kills the ranks (parent-death signal, `worker.rs`).

use crate::failure::{Failure, Outcome};
use crate::orders::{Answer, Crew, Order};
use crate::signals::Signals;
use crate::target::place_variables;
use crate::wire::{self, Inbox, Word};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::ffi::OsString;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// When one rank fails, the others have so long to say what they saw.
const GRACE: Duration = Duration::from_secs(2);
/// At the end, ranks have so long to close their communicator.
const FAREWELL: Duration = Duration::from_secs(10);

/// How to start the ranks.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// How many.
    pub(crate) ranks: u32,
    /// The transport's name.
    pub(crate) transport: String,
    /// Arguments for every rank: `ubccl worker …`.
    pub(crate) arguments: Vec<OsString>,
}

/// One rank's process.
#[derive(Debug)]
struct Member {
    child: Child,
    socket: UnixStream,
    inbox: Inbox,
    /// What it has said and nobody has read yet.
    word: Option<Word>,
    ended: Option<ExitStatus>,
}

impl Member {
    fn spawn(launch: &Launch, rank: u32, rendezvous: Option<&str>) -> std::io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(&launch.arguments).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        let [meeting, place, size, transport] = place_variables();
        command.env(place, rank.to_string()).env(size, launch.ranks.to_string());
        command.env(transport, &launch.transport).env_remove(meeting);
        if let Some(rendezvous) = rendezvous {
            command.env(meeting, rendezvous);
        }
        let child = command.process_group(0).spawn()?;
        Ok(Member { child, socket: ours, inbox: Inbox::default(), word: None, ended: None })
    }

    /// Reads what came. At the end of the stream the process is ending: it is reaped.
    fn listen(&mut self) {
        let open = self.inbox.read_missing(&mut self.socket);
        match open.and_then(|open| Ok((open, self.inbox.take()?))) {
            Ok((_, Some(word))) => self.word = Some(word),
            Ok((true, None)) => {}
            Ok((false, None)) | Err(_) => self.end(),
        }
    }

    /// Kills what is left of it and reaps it. A process that ended by itself keeps its own status.
    fn end(&mut self) {
        if self.ended.is_none() {
            // Both fail only when there is nothing to kill or to wait for any more.
            let _ = self.child.kill();
            self.ended = Some(self.child.wait().unwrap_or_default());
        }
    }

    /// How it ended, if it had nothing to say about it.
    fn obituary(&self) -> Option<String> {
        let status = self.ended?;
        let pid = self.child.id();
        match (status.signal(), status.code()) {
            (Some(signal), _) => Some(format!("its process (pid {pid}) was killed by signal {signal}")),
            (None, Some(0)) => Some(format!("its process (pid {pid}) left early")),
            (None, code) => {
                Some(format!("its process (pid {pid}) ended with exit status {}", code.unwrap_or(-1)))
            }
        }
    }
}

/// All ranks.
#[derive(Debug)]
pub(crate) struct Processes {
    members: Vec<Member>,
    signals: Signals,
    /// The processors they are bound to.
    pub(crate) cpus: Vec<Option<usize>>,
    /// Bytes that the communicator takes on each when it has started.
    pub(crate) memory_bytes: Vec<u64>,
}

impl Processes {
    /// Starts the ranks and waits until their communicator is up.
    ///
    /// Must be called on the main thread: the parent-death signal comes when the *thread* that started a process
    /// ends.
    pub(crate) fn start(launch: &Launch) -> Outcome<Self> {
        let caught = Signals::catch();
        let signals = caught.map_err(|error| Failure::new(format!("cannot catch signals: {error}")))?;
        let mut crew = Processes { members: Vec::new(), signals, cpus: Vec::new(), memory_bytes: Vec::new() };
        crew.add(launch, 0, None)?;
        let mut first = crew.gather()?;
        let Some(Word::Rendezvous(rendezvous)) = first.pop() else {
            return Err(Failure::new("rank 0: did not say where the others find it; is it another build?"));
        };
        for rank in 1..launch.ranks {
            crew.add(launch, rank, Some(&rendezvous))?;
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

    /// The ranks' process ids.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.members.iter().map(|member| member.child.id())
    }

    /// Lets the ranks end by themselves.
    pub(crate) fn finish(mut self) -> Outcome<()> {
        for member in &self.members {
            // A rank that is gone already is found below.
            let _ = member.socket.shutdown(Shutdown::Write);
        }
        let deadline = Instant::now() + FAREWELL;
        while self.members.iter().any(|member| member.ended.is_none()) {
            self.listen(Some(deadline))?;
            if self.members.iter().any(|member| member.word.is_some()) || Instant::now() >= deadline {
                return Err(self.fail());
            }
        }
        let all_well = self.members.iter().all(|member| member.ended.is_some_and(|status| status.success()));
        if all_well { Ok(()) } else { Err(self.fail()) }
    }

    fn add(&mut self, launch: &Launch, rank: u32, rendezvous: Option<&str>) -> Outcome<()> {
        let member = Member::spawn(launch, rank, rendezvous).map_err(|error| {
            Failure::new(format!(
                "rank {rank}: cannot start its process: {error}; use fewer --ranks or raise the limits \
                 (ulimit -u for processes, ulimit -n for open files)"
            ))
        })?;
        self.members.push(member);
        Ok(())
    }

    /// Waits for one word from every rank, in rank order.
    fn gather(&mut self) -> Outcome<Vec<Word>> {
        while self.members.iter().any(|member| member.word.is_none()) {
            self.listen(None)?;
            let failed = |m: &Member| m.ended.is_some() || matches!(m.word, Some(Word::Failed(_)));
            if self.members.iter().any(failed) {
                return Err(self.fail());
            }
        }
        Ok(self.members.iter_mut().filter_map(|member| member.word.take()).collect())
    }

    /// Waits until something comes from a rank that has no unread word, and reads it.
    fn listen(&mut self, deadline: Option<Instant>) -> Outcome<()> {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let quiet = |member: &Member| member.word.is_none() && member.ended.is_none();
        let waiting: Vec<usize> =
            (0..self.members.len()).filter(|&rank| quiet(&self.members[rank])).collect();
        let sockets = waiting.iter().map(|&rank| PollFd::new(&self.members[rank].socket, PollFlags::IN));
        let signals = self.signals.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> = sockets.chain(signals).collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::new(format!("cannot wait for the ranks: {error}"))),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if let Some(signal) = self.signals.caught() {
            self.end_all();
            return Err(Failure::Signal(signal));
        }
        for (rank, _) in waiting.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            self.members[rank].listen();
        }
        Ok(())
    }

    /// After one rank failed: hears the others out for a moment, ends all, and tells each cause once.
    fn fail(&mut self) -> Failure {
        let deadline = Instant::now() + GRACE;
        let done = |m: &Member| m.ended.is_some() || matches!(m.word, Some(Word::Failed(_)));
        while !self.members.iter().all(done) && Instant::now() < deadline {
            for member in self.members.iter_mut().filter(|m| matches!(m.word, Some(Word::Answer(_)))) {
                member.word = None; // an answer from before; what comes next counts
            }
            if let Err(failure) = self.listen(Some(deadline)) {
                return failure;
            }
        }
        let mut causes = Causes::default();
        for (rank, member) in self.members.iter().enumerate() {
            match &member.word {
                Some(Word::Failed(text)) => causes.errors.push((rank, text.clone())),
                _ => causes.deaths.extend(member.obituary().map(|text| (rank, text))),
            }
        }
        self.end_all();
        Failure::new(causes.tell())
    }

    fn end_all(&mut self) {
        // Kill all before waiting for any.
        for member in &mut self.members {
            if member.ended.is_none() {
                let _ = member.child.kill();
            }
        }
        self.members.iter_mut().for_each(Member::end);
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.end_all();
    }
}

impl Crew for Processes {
    fn run(&mut self, order: &Order) -> Outcome<Vec<Answer>> {
        for member in &mut self.members {
            // A rank that is gone cannot be written to; gathering finds out how it ended.
            let _ = wire::send(&mut member.socket, order);
        }
        let answer = |word| match word {
            Word::Answer(answer) => Ok(answer),
            other => Err(Failure::new(format!("a rank answered out of turn: {other:?}"))),
        };
        self.gather()?.into_iter().map(answer).collect()
    }
}

/// What the ranks said and how they ended.
#[derive(Debug, Default)]
pub(crate) struct Causes {
    /// Ranks whose process ended.
    pub(crate) deaths: Vec<(usize, String)>,
    /// Ranks that failed, and why.
    pub(crate) errors: Vec<(usize, String)>,
}

impl Causes {
    /// Deaths first, then every different error once, with the ranks that report it.
    pub(crate) fn tell(self) -> String {
        let mut lines: Vec<String> =
            self.deaths.iter().map(|(rank, text)| format!("rank {rank}: {text}")).collect();
        let mut grouped: Vec<(String, Vec<String>)> = Vec::new();
        for (rank, text) in self.errors {
            match grouped.iter_mut().find(|(known, _)| *known == text) {
                Some((_, ranks)) => ranks.push(rank.to_string()),
                None => grouped.push((text, vec![rank.to_string()])),
            }
        }
        for (text, ranks) in grouped {
            let who = if ranks.len() == 1 { "rank" } else { "ranks" };
            lines.push(format!("{who} {}: {text}", ranks.join(", ")));
        }
        if lines.is_empty() {
            lines.push("a rank did not end in time and was killed".to_owned());
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_told_once_with_its_ranks_and_deaths_come_first() {
        let said = |rank: usize, text: &str| (rank, text.to_owned());
        let causes = Causes {
            deaths: vec![said(2, "was killed by signal 9")],
            errors: vec![said(0, "rank 2 died"), said(1, "rank 2 died"), said(3, "other")],
        };
        assert_eq!(causes.tell(), "rank 2: was killed by signal 9\nranks 0, 1: rank 2 died\nrank 3: other");
        assert!(Causes::default().tell().contains("killed"));
    }
}
