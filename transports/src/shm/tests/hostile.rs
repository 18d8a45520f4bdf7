//! A peer that writes anything anywhere into what it shares: this rank reports a fault or waits, and that is all.

use super::*;
use crate::local::fences::Fences;
use proptest::prelude::*;

const GUARD: u8 = 0xA5;

#[derive(Clone, Debug)]
enum Act {
    /// Words of a segment, from an offset on, become these.
    Spoil {
        segment: usize,
        at: usize,
        words: Vec<u64>,
    },
    /// The same near the beginning of the entries, where it hurts most.
    SpoilEntry {
        channel: usize,
        entry: usize,
        word: usize,
        value: u64,
    },
    /// The receiver's counter becomes this.
    SpoilCount {
        channel: usize,
        value: u64,
    },
    Send {
        len: usize,
    },
    Receive {
        len: usize,
    },
    Poll,
    Sleep,
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0_u64..20, Just(u64::MAX)]
}

fn act() -> impl Strategy<Value = Act> {
    let len = || prop_oneof![0_usize..40, 0_usize..9000];
    prop_oneof![
        (0_usize..2, any::<usize>(), prop::collection::vec(value(), 1..600))
            .prop_map(|(segment, at, words)| Act::Spoil { segment, at, words }),
        (0_usize..2, 0_usize..4, 0_usize..8, value())
            .prop_map(|(channel, entry, word, value)| Act::SpoilEntry { channel, entry, word, value }),
        (0_usize..2, value()).prop_map(|(channel, value)| Act::SpoilCount { channel, value }),
        len().prop_map(|len| Act::Send { len }),
        len().prop_map(|len| Act::Receive { len }),
        Just(Act::Poll),
        Just(Act::Sleep),
    ]
}

/// Writes into a segment as a hostile process would.
fn spoil(segment: &Segment, offset: usize, value: u64) {
    segment.word(offset).store(value, std::sync::atomic::Ordering::SeqCst);
}

struct Victim {
    endpoint: ShmEndpoint,
    bells: Vec<Arc<Bell<Segment>>>,
    geometry: Geometry,
    area: Area,
    sequence: u64,
}

impl Victim {
    /// Rank 0 of two; nobody drives rank 1, whose segment is the test's to spoil, as is rank 0's own.
    fn new() -> Self {
        let geometry = Geometry::new(
            2,
            &ConnectOptions { lanes: 1, pair_bytes: Some(16 << 10), paced: None, peer_reads: false },
        )
        .unwrap();
        let bell = |rank| {
            let (segment, _file) = Segment::create(rank, &geometry).unwrap();
            Arc::new(Bell::new(Arc::new(segment), descriptor(rank).unwrap()))
        };
        let bells = vec![bell(0), bell(1)];
        let mut endpoint = ShmEndpoint::new(0, &geometry, (bells.clone(), Fences::Symmetric));
        let area = Area::new(&[GUARD; 30_000]);
        let address = HostPointer(area.first().expose_provenance() + 10_000);
        // SAFETY: 10,000 bytes inside the area, which lives as long as the endpoint.
        unsafe { endpoint.register(RegionId(0), Memory::Host { address, len: 10_000 }) }.unwrap();
        Victim { endpoint, bells, geometry, area, sequence: 0 }
    }

    fn act(&mut self, act: &Act) -> Result<(), Fault> {
        let peer = self.bells[1].place();
        match act {
            Act::Spoil { segment, at, words } => {
                let segment = self.bells[*segment].place();
                let slots = segment.len() / 8;
                for (step, &value) in words.iter().enumerate() {
                    spoil(segment, (at % slots + step) % slots * 8, value);
                }
            }
            Act::SpoilEntry { channel, entry, word, value } => {
                spoil(peer, self.geometry.channel(0, *channel).entries + entry * 64 + word * 8, *value);
            }
            Act::SpoilCount { channel, value } => spoil(peer, self.geometry.consumed(0, *channel), *value),
            Act::Send { len } => drop(self.post(|span| send(span, 1), *len)?),
            Act::Receive { len } => drop(self.post(|span| receive(span, 1), *len)?),
            Act::Poll => drop(self.endpoint.poll(&mut Vec::new())?),
            Act::Sleep => self.endpoint.sleep(Duration::from_micros(1))?,
        }
        self.endpoint.inspect(self.sequence, key(1, 0).signature)
    }

    fn post(&mut self, post: impl Fn(Span) -> Post, len: usize) -> Result<Posted, Fault> {
        self.sequence += 1;
        let span = Span { region: RegionId(0), offset: 0, len: len as u64 };
        self.endpoint.post(Token(1), &key(self.sequence, 0), &post(span))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn spoilt_memory_gives_a_fault_or_a_wait(acts in prop::collection::vec(act(), 1..60)) {
        let mut victim = Victim::new();
        for act in &acts {
            if let Err(fault) = victim.act(act) {
                // Whatever it is, it can be told, and going on afterwards is safe as well.
                let told = format!("{:?}", fault);
                prop_assert!(!told.is_empty());
            }
        }
        let bytes = victim.area.bytes();
        prop_assert!(bytes[..10_000].iter().chain(&bytes[20_000..]).all(|&byte| byte == GUARD));
    }
}

#[test]
fn a_count_that_cannot_be_is_a_fault_that_names_the_peer() {
    let mut victim = Victim::new();
    victim.act(&Act::SpoilCount { channel: 0, value: 1000 }).unwrap();
    let fault = (0..20).find_map(|_| victim.act(&Act::Send { len: 8 }).err());
    let Some(Fault::Lost { peer: 1, message }) = fault else { panic!("{fault:?}") };
    assert!(message.contains("1000"), "{message}");
}

#[test]
fn a_half_written_entry_is_no_entry() {
    let mut victim = Victim::new();
    victim.act(&Act::Receive { len: 8 }).unwrap();
    for word in 1..8 {
        victim.act(&Act::SpoilEntry { channel: 0, entry: 0, word, value: 3 }).unwrap();
        assert!(!victim.endpoint.poll(&mut Vec::new()).unwrap());
    }
}
