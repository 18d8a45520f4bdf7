//! `shm` between real processes: this program starts itself as ranks and passes their cards around.
#![allow(unsafe_code)] // registers guarded memory
#![allow(unreachable_pub, reason = "nothing is public outside a test program")]

mod support;

use rustix::io::{FdFlags, fcntl_getfd};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::memory::{Area, pattern};
use support::work::{key, list, receive, send, send_to};
use ubccl_core::endpoint::{ConnectOptions, Endpoint, Key, Post, Posted, RegionId, Token};
use ubccl_core::{DataType, Deadline, Exchange, Rank, ReduceOp, Result};

const PATIENCE: Duration = Duration::from_secs(60);
const RANKS: u32 = 3;
/// Bytes of the largest message.
const LARGEST: usize = 300_000;

/// What the ranks are started for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Job {
    /// All-reduce of many sizes, checked.
    Reduce = 0,
    /// Rank 2 is killed while all send to all.
    Die = 1,
}

/// All-gather over standard input, which is a socket to the program that started the ranks.
struct Wire {
    stream: UnixStream,
    rank: u32,
}

impl Wire {
    fn put(&mut self, blob: &[u8]) {
        self.stream.write_all(&(blob.len() as u32).to_le_bytes()).unwrap();
        self.stream.write_all(blob).unwrap();
    }

    fn get(&mut self) -> Option<Vec<u8>> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len).ok()?;
        let mut blob = vec![0; u32::from_le_bytes(len) as usize];
        self.stream.read_exact(&mut blob).ok()?;
        Some(blob)
    }
}

impl Exchange for Wire {
    fn rank(&self) -> u32 {
        self.rank
    }
    fn ranks(&self) -> u32 {
        RANKS
    }
    fn all_gather(&mut self, blob: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.put(blob);
        Ok((0..RANKS).map(|_| self.get().expect("the starter lives")).collect())
    }
    fn deadline(&self) -> Deadline {
        Deadline::at(Instant::now() + PATIENCE)
    }
}

/// The ranks, seen from the program that started them.
struct Ranks {
    children: Vec<Child>,
    wires: Vec<Wire>,
}

impl Ranks {
    /// Starts the ranks and serves the exchanges of `connect`.
    fn start(job: Job) -> Self {
        let mut ranks = Ranks { children: Vec::new(), wires: Vec::new() };
        for rank in 0..RANKS {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_read_timeout(Some(PATIENCE)).unwrap();
            let program = std::env::current_exe().unwrap();
            let child = Command::new(program)
                .args(["--exact", "as_a_rank", "--ignored", "--nocapture"])
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null())
                .spawn();
            ranks.children.push(child.unwrap());
            let mut wire = Wire { stream: ours, rank };
            wire.put(&[rank as u8, job as u8]);
            ranks.wires.push(wire);
        }
        for _ in 0..2 {
            let blobs: Vec<_> = ranks.wires.iter_mut().map(|wire| wire.get().expect("a card")).collect();
            ranks.wires.iter_mut().for_each(|wire| blobs.iter().for_each(|blob| wire.put(blob)));
        }
        ranks
    }

    /// Waits for a rank's word that all went well.
    fn expect_report(&mut self, rank: usize) {
        let report = self.wires[rank].get().unwrap_or_else(|| panic!("rank {rank} failed"));
        assert_eq!(report, b"well", "rank {rank}");
        assert!(self.children[rank].wait().unwrap().success());
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn processes_reduce_through_memory_they_pass_each_other() {
    let mut ranks = Ranks::start(Job::Reduce);
    (0..RANKS as usize).for_each(|rank| ranks.expect_report(rank));
}

#[test]
fn a_killed_rank_neither_crashes_nor_blocks_the_others() {
    let mut ranks = Ranks::start(Job::Die);
    // The victim says that it is about to send for ever; it dies in the middle.
    assert_eq!(ranks.wires[2].get().as_deref(), Some(&b"sending"[..]));
    ranks.children[2].kill().unwrap();
    ranks.children[2].wait().unwrap();
    for rank in [0, 1] {
        ranks.wires[rank].put(b"dead");
        ranks.expect_report(rank);
    }
}

/// One rank. Does nothing unless this program started it.
#[test]
#[ignore = "a rank of the tests above, which start it"]
fn as_a_rank() {
    let Ok(stdin) = std::io::stdin().as_fd().try_clone_to_owned() else { return };
    let stream = UnixStream::from(stdin);
    if stream.peer_addr().is_err() {
        return; // standard input is no socket
    }
    let mut wire = Wire { stream, rank: 0 };
    let Some(job) = wire.get() else { return };
    wire.rank = u32::from(job[0]);
    let before = descriptors();
    let endpoint =
        ubccl_transports::find("shm").unwrap().connect(&mut wire, &ConnectOptions::default()).unwrap();
    check_descriptors(before.len());
    let mut rank = Worker { rank: wire.rank, endpoint, done: Vec::new() };
    if job[1] == Job::Reduce as u8 {
        rank.reduce_all();
    } else {
        rank.survive(&mut wire);
    }
    wire.put(b"well");
}

fn descriptors() -> Vec<i32> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let numbers = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().unwrap());
    // Without the one of the listing itself, which is gone by now.
    let numbers: Vec<i32> = numbers.collect();
    numbers.into_iter().filter(|number| fs::read_link(format!("/proc/self/fd/{number}")).is_ok()).collect()
}

/// Connecting leaves one descriptor per rank, an eventfd, and this rank's own segment, which no child inherits: no other
/// file, no socket.
fn check_descriptors(before: usize) {
    let after = descriptors();
    assert_eq!(after.len(), before + RANKS as usize + 1);
    let target = |number: i32| fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
    let are = |what: &str| -> Vec<i32> {
        after.iter().copied().filter(|&number| target(number).to_string_lossy().contains(what)).collect()
    };
    let (events, segments) = (are("eventfd"), are("memfd:ubccl"));
    assert_eq!((events.len(), segments.len()), (RANKS as usize, 1));
    for number in events.into_iter().chain(segments) {
        // SAFETY: the descriptor is open: it was just listed, and this thread alone opens and closes any.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        assert!(fcntl_getfd(descriptor).unwrap().contains(FdFlags::CLOEXEC));
    }
    let mappings = fs::read_to_string("/proc/self/maps").unwrap();
    assert_eq!(mappings.matches("memfd:ubccl").count(), RANKS as usize);
    assert!(
        mappings.lines().filter(|line| line.contains("memfd:ubccl")).all(|line| line.contains("(deleted)"))
    );
}

struct Worker {
    rank: Rank,
    endpoint: Box<dyn Endpoint>,
    done: Vec<Token>,
}

impl Worker {
    fn area(&mut self, region: u32, len: usize) -> Area {
        let area = Area::new(RegionId(region), len);
        // SAFETY: callers keep the area as long as they post with it, and look at it only in between.
        unsafe { self.endpoint.register(area.region(), area.memory()) }.unwrap();
        area
    }

    /// Posts and waits, by spinning a little and then sleeping.
    fn run(&mut self, key: &Key, posts: &[Post]) {
        let post = |worker: &mut Self, post: &Post| worker.endpoint.post(Token(1), key, post).unwrap();
        let pending = posts.iter().filter(|&it| post(self, it) == Posted::Pending).count();
        let start = Instant::now();
        self.done.clear();
        let mut idle = 0;
        while self.done.len() < pending {
            idle = if self.endpoint.poll(&mut self.done).unwrap() { 0 } else { idle + 1 };
            if idle > 100 {
                self.endpoint.sleep(PATIENCE).unwrap();
            }
            assert!(start.elapsed() < PATIENCE, "rank {} hangs", self.rank);
        }
    }

    fn reduce_all(&mut self) {
        let (input, output) = (self.area(0, LARGEST), self.area(1, LARGEST));
        let others: Vec<_> = (0..RANKS).filter(|&peer| peer != self.rank).collect();
        let mut sizes = vec![0, 1, 8, 24, 25, 4096, 47_104, 47_105, LARGEST];
        sizes.extend((0..150).map(|turn| turn * 1999 % LARGEST));
        for (sequence, len) in (1..).zip(sizes) {
            let given = |rank: Rank| pattern(sequence * 10 + u64::from(rank), len);
            input.write(0, &given(self.rank));
            let posts = [
                send_to(input.span(0, len), &others),
                Post::ReceiveReduce {
                    sources: list(&[0, 1, 2]),
                    own: input.span(0, len),
                    into: output.span(0, len),
                    dtype: DataType::U8,
                    op: ReduceOp::Max,
                },
            ];
            self.run(&key(sequence, 0), &posts);
            let inputs = [given(0), given(1), given(2)];
            let expected: Vec<_> =
                (0..len).map(|at| inputs.iter().map(|input| input[at]).max().unwrap()).collect();
            output.assert_holds(0, &expected, "a reduction between processes");
        }
        output.assert_guards("reductions between processes");
        assert_eq!(self.endpoint.counters().messages_sent, 159 * 2);
    }

    /// Everybody sends to everybody until rank 2 is dead; then what is left neither moves for ever nor fails.
    fn survive(&mut self, wire: &mut Wire) {
        let (from, into) = (self.area(0, LARGEST), self.area(1, LARGEST));
        let partner = (self.rank + 1) % RANKS;
        let mut pending = 0;
        let mut is_dead = false;
        let mut quiet = 0;
        for sequence in 1.. {
            for post in [send(from.all(), partner), receive(into.all(), (self.rank + 2) % RANKS)] {
                if pending < 60 {
                    let posted = self.endpoint.post(Token(1), &key(1, 0), &post).unwrap();
                    pending += usize::from(posted == Posted::Pending);
                }
            }
            self.done.clear();
            let moved = self.endpoint.poll(&mut self.done).unwrap();
            pending -= self.done.len();
            if sequence == 1000 && self.rank == 2 {
                wire.put(b"sending");
            }
            if !is_dead && self.rank != 2 && sequence % 64 == 0 {
                is_dead = has_word(&wire.stream);
            }
            quiet = if moved || !is_dead { 0 } else { quiet + 1 };
            if quiet == 1000 {
                break;
            }
        }
        self.endpoint.sleep(Duration::from_millis(1)).unwrap();
        self.endpoint.cancel();
        assert_eq!(wire.get().as_deref(), Some(&b"dead"[..]));
    }
}

/// Whether the starter has said something.
fn has_word(stream: &UnixStream) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let now = rustix::thread::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&now)).unwrap() > 0
}
