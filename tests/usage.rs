//! Bytes and messages are counted by link class, and memory by kind; both agree with what can be told from outside.
#![allow(unsafe_code)] // a counting global allocator

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use support::ranks::{Setup, on_threads, start_threads};
use ubccl::sim::{World, WorldConfig};
use ubccl::{
    Choice, Clock, Collective, Communicator, Config, Counters, DataType, LinkClass, MemoryKind, Reach,
    ReduceOp, Rendezvous,
};

struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);

fn note(bytes: i64) {
    LIVE.fetch_add(bytes, Ordering::Relaxed);
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as i64);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Held by every test: what is looked at belongs to the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn real_transports() -> impl Iterator<Item = &'static str> {
    ubccl::transports().filter(|transport| transport.clock == Clock::Real).map(|transport| transport.name)
}

fn reaches_processes(transport: &str) -> bool {
    ubccl::transports().any(|known| known.name == transport && known.reach == Reach::Host)
}

fn setup(transport: &'static str, ranks: u32) -> Setup {
    Setup {
        transport,
        ranks,
        algorithm: Some("ring"),
        choice: Choice { chunk_bytes: 1 << 20, lanes: 1, ..Choice::default() },
    }
}

/// What a rank sends and receives in a ring all-reduce: 2(n − 1) blocks of an n-th.
fn ring(ranks: u64, bytes: u64) -> Counters {
    let (messages, moved) = (2 * (ranks - 1), 2 * (ranks - 1) * (bytes / ranks));
    Counters {
        messages_sent: messages,
        bytes_sent: moved,
        messages_received: messages,
        bytes_received: moved,
    }
}

#[test]
fn a_ring_all_reduce_counts_what_the_formula_says() {
    let _alone = ALONE.lock();
    for transport in real_transports() {
        for ranks in [1, 2, 5] {
            let counted = on_threads(&setup(transport, ranks), move |comm| {
                let before = comm.counters();
                comm.all_reduce_in_place(&mut vec![1.0_f32; 6000], ReduceOp::Sum).expect("it works");
                (before, comm.counters())
            });
            for (before, after) in counted {
                let expected = ring(u64::from(ranks), 24_000);
                assert_eq!(before.total, Counters::default(), "{transport}: starting moves no messages");
                assert_eq!(after.total, expected, "{transport}, {ranks} ranks");
                assert_eq!(
                    after.over(&LinkClass::SameProcess),
                    expected,
                    "{transport}: all are threads here"
                );
                let classes = usize::from(ranks > 1);
                assert_eq!(
                    after.by_class.len(),
                    classes,
                    "{transport}: no other class: {:?}",
                    after.by_class
                );
            }
        }
    }
}

const RENDEZVOUS: &str = "UBCCL_TEST_USAGE_RENDEZVOUS";

fn as_process(rank: u32, text: &str, transport: &str) -> Communicator {
    let rendezvous = Some(text.parse().expect("its own text parses"));
    let transport = transport.to_owned();
    Communicator::init(Config { rendezvous, rank, ranks: 2, transport, ..Config::default() })
        .expect("both come")
}

/// Not a test by itself: rank 1 of the next one runs it in a process of its own.
#[test]
fn rank_1_in_a_process_of_its_own() {
    let Ok(given) = std::env::var(RENDEZVOUS) else { return };
    let (text, transport) = given.split_once(' ').expect("the parent set both");
    let comm = as_process(1, text, transport);
    comm.all_reduce_in_place(&mut [1_i32; 100], ReduceOp::Sum).expect("it works");
    comm.close().expect("it closes");
}

#[test]
fn a_rank_of_another_process_is_on_the_same_host() {
    let _alone = ALONE.lock();
    for transport in real_transports().filter(|name| reaches_processes(name)) {
        let text = Rendezvous::create().expect("a rendezvous").text();
        let child = Command::new(std::env::current_exe().expect("this program has a path"))
            .args(["--exact", "rank_1_in_a_process_of_its_own"])
            .env(RENDEZVOUS, format!("{text} {transport}"))
            .stdout(Stdio::null())
            .spawn();
        let mut child = child.expect("this program starts again");
        let comm = as_process(0, &text, transport);
        comm.all_reduce_in_place(&mut [1_i32; 100], ReduceOp::Sum).expect("it works");
        let counted = comm.counters();
        assert!(counted.total.messages_sent > 0, "{transport}: {counted:?}");
        assert_eq!(counted.by_class, [(LinkClass::SameHost, counted.total)], "{transport}");
        comm.close().expect("it closes");
        assert!(child.wait().expect("it ends").success(), "{transport}");
    }
}

#[test]
fn a_simulated_ring_counts_each_level_of_the_fabric() {
    let _alone = ALONE.lock();
    let mut world = World::new(WorldConfig {
        ranks: 16,
        algorithm: Some("ring".into()),
        lanes: 1,
        ..WorldConfig::default()
    })
    .unwrap();
    let call = Collective::all_reduce(1600, DataType::F32, ReduceOp::Sum);
    world.run_phantom(&|_| call, true).unwrap();
    let names: Vec<String> = world.counters(0).by_class.iter().map(|row| row.0.to_string()).collect();
    assert_eq!(names.len(), 2, "a node and a supernode: {names:?}");
    let [node, supernode] = [0, 1].map(|k| LinkClass::Level(names[k].clone()));
    let expected = ring(16, 6400);
    for rank in 0..16 {
        let counted = world.counters(rank);
        assert_eq!(counted.total, expected, "rank {rank}");
        // Nodes hold 8: who sends to the next node, and who receives from the one before.
        let (sends_out, receives_in) = (rank % 8 == 7, rank % 8 == 0);
        let side = |class, out: bool, into: bool| {
            let over = counted.over(class);
            assert_eq!(over.bytes_sent, if out { expected.bytes_sent } else { 0 }, "rank {rank} {class:?}");
            assert_eq!(
                over.messages_received,
                if into { expected.messages_received } else { 0 },
                "rank {rank}"
            );
        };
        side(&supernode, sends_out, receives_in);
        side(&node, !sends_out, !receives_in);
        assert!(world.memory(rank).of(MemoryKind::Plans) > 0);
    }
}

/// Resident bytes of this process's mappings of segments and boards, and how many there are.
fn shared_memory() -> (u64, usize) {
    let text = std::fs::read_to_string("/proc/self/smaps").expect("Linux tells its mappings");
    let (mut bytes, mut mappings, mut is_ours) = (0, 0, false);
    for line in text.lines() {
        if line.split_whitespace().next().is_some_and(|word| word.contains('-')) {
            is_ours = line.contains("memfd:ubccl");
            mappings += usize::from(is_ours);
        } else if is_ours && let Some(kilobytes) = line.strip_prefix("Rss:") {
            let number = kilobytes.trim().trim_end_matches(" kB");
            bytes += number.parse::<u64>().expect("Rss is a number") << 10;
        }
    }
    (bytes, mappings)
}

#[test]
fn memory_of_a_communicator_is_told_and_given_back() {
    let _alone = ALONE.lock();
    for transport in real_transports() {
        // Threads, allocators' caches and the like are there after a first time.
        run_and_measure(transport);
        let before = LIVE.load(Ordering::Relaxed);
        run_and_measure(transport);
        let left = LIVE.load(Ordering::Relaxed) - before;
        assert!(left.abs() < 16 << 10, "{transport}: {left} bytes of heap were not given back");
        assert_eq!(shared_memory(), (0, 0), "{transport}: no mapping is left");
    }
}

/// Three ranks with some megabytes of traffic: what they tell of their memory against what the process has.
fn run_and_measure(transport: &'static str) {
    const RANKS: u32 = 3;
    let heap_before = LIVE.load(Ordering::Relaxed);
    let meet = Arc::new(Barrier::new(RANKS as usize));
    let told = on_threads(&setup(transport, RANKS), move |comm| {
        let fresh = comm.memory();
        let mut data = vec![1.0_f32; 300_000];
        comm.all_reduce_in_place(&mut data, ReduceOp::Sum).expect("it works");
        drop(data);
        meet.wait();
        let found = (comm.memory(), shared_memory().0, LIVE.load(Ordering::Relaxed) - heap_before);
        meet.wait();
        assert_eq!(fresh.of(MemoryKind::Shared), found.0.of(MemoryKind::Shared), "made at the start");
        assert_eq!((fresh.of(MemoryKind::Plans), fresh.of(MemoryKind::Scratch)), (0, 0));
        assert!(found.0.of(MemoryKind::Plans) > 0 && found.0.of(MemoryKind::Queues) > 0);
        found
    });
    let heap_kinds = [MemoryKind::Buffers, MemoryKind::Queues, MemoryKind::Plans, MemoryKind::Scratch];
    let heap: u64 = told.iter().flat_map(|row| heap_kinds.map(|kind| row.0.of(kind))).sum();
    let shared: u64 = told.iter().map(|row| row.0.of(MemoryKind::Shared)).sum();
    for (_, resident, live) in &told {
        // Each rank maps every segment, so that a page of one counts once for each rank that touched it.
        assert!(*resident <= u64::from(RANKS) * shared, "{transport}: {resident} resident, {shared} told");
        assert!(*resident > 0, "{transport}: the board, at least, is used");
        assert!(*live >= heap as i64, "{transport}: {live} bytes of heap, but {heap} were told");
    }
    for (memory, ..) in &told {
        let sum: u64 = MemoryKind::ALL.into_iter().map(|kind| memory.of(kind)).sum();
        assert_eq!(memory.total(), sum - memory.of(MemoryKind::Mapped));
    }
}

#[test]
fn more_buffering_for_each_pair_takes_more_shared_memory() {
    let _alone = ALONE.lock();
    let shared = |pair_bytes| {
        let configure = move |config| Config { pair_bytes: Some(pair_bytes), ..config };
        let told = start_threads(&setup("shm", 3), configure, |_, comm| {
            let comm = comm.expect("all come");
            let memory = comm.memory();
            comm.close().expect("it closes");
            memory.of(MemoryKind::Shared)
        });
        told[2]
    };
    // A page for the header, and a block for each of two peers.
    for pair_bytes in [64 << 10, 1 << 20] {
        let told = shared(pair_bytes);
        assert!(
            told <= (64 << 10) + 2 * pair_bytes && told > 2 * pair_bytes * 8 / 10,
            "{told} for {pair_bytes}"
        );
    }
}

#[test]
fn a_rank_alone_takes_little() {
    let _alone = ALONE.lock();
    for transport in real_transports() {
        let comm =
            Communicator::init(Config { transport: transport.into(), ..Config::default() }).expect("alone");
        comm.all_reduce(&[1_u8; 100], &mut [0; 100], ReduceOp::Max).expect("alone");
        let memory = comm.memory();
        assert!(memory.total() < 64 << 10, "{transport}: {memory}");
        assert_eq!(memory.of(MemoryKind::Mapped), 0, "{transport}: nobody else's");
        comm.close().expect("alone");
    }
}
