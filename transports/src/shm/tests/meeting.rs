//! Starting: who is let in, and what is said when it fails.

use super::super::card::Host;
use super::*;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect as dial, send as send_to,
    socket_with,
};

fn errors(answers: Vec<Result<ShmEndpoint>>) -> Vec<String> {
    answers.into_iter().map(|answer| answer.expect_err("it starts").to_string()).collect()
}

#[test]
fn many_ranks_meet() {
    for ranks in [1, 2, 3, 17] {
        assert_eq!(connected(ranks, 2, 64 << 10, true).len(), ranks);
    }
}

#[test]
fn ranks_with_other_options_are_named_on_every_rank() {
    let mut options = vec![ConnectOptions::default(); 3];
    options[2].lanes = 3;
    for text in errors(try_connect(&options, PATIENCE)) {
        assert!(text.contains("rank 2") && text.contains("3"), "{text}");
    }
}

#[test]
fn what_one_rank_is_refused_is_told_by_all() {
    let mut options = vec![ConnectOptions::default(); 3];
    options[1].pair_bytes = Some(100);
    for text in errors(try_connect(&options, PATIENCE)) {
        assert!(text.contains("give at least"), "{text}");
    }
}

#[test]
fn a_rank_that_does_not_come_is_named() {
    let mut exchanges = LocalExchange::all(3, Instant::now() + Duration::from_millis(300));
    let mut absent = exchanges.pop().unwrap();
    let texts = std::thread::scope(|scope| {
        let start = |mut exchange: LocalExchange| {
            scope.spawn(move || connect(&mut exchange, &ConnectOptions::default()))
        };
        let threads: Vec<_> = exchanges.into_iter().map(start).collect();
        // Rank 2 gives a card and then neither calls nor listens.
        let card = Card::new(&ConnectOptions::default()).unwrap();
        absent.all_gather(&Card::encode(Ok(&card))).unwrap();
        errors(threads.into_iter().map(|thread| thread.join().unwrap()).collect())
    });
    for text in texts {
        assert!(text.contains("no connection from rank 2"), "{text}");
    }
}

/// A card like that of a rank on another host.
#[test]
fn another_host_is_pointed_to_tcp() {
    let mut exchanges = LocalExchange::all(2, Instant::now() + PATIENCE);
    let mut elsewhere = exchanges.pop().unwrap();
    let mut exchange = exchanges.pop().unwrap();
    let thread = std::thread::spawn(move || connect(&mut exchange, &ConnectOptions::default()));
    let mut bytes = Card::encode(Ok(&Card::new(&ConnectOptions::default()).unwrap()));
    let boot = 4 + 1 + 16 + 16;
    bytes[boot..boot + 36].copy_from_slice(&[b'x'; 36]);
    elsewhere.all_gather(&bytes).unwrap();
    let text = thread.join().unwrap().expect_err("it starts").to_string();
    assert!(text.contains("ranks 0 and 1") && text.contains("tcp"), "{text}");
    assert_eq!(Host::this(), Host::this());
}

/// Lets strangers call before the ranks do: an exchange that shows them every card and then goes on.
struct Leaky {
    inner: LocalExchange,
    strangers: Vec<OwnedFd>,
}

impl Leaky {
    fn dial(card: &Card) -> OwnedFd {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        dial(&socket, &SocketAddrUnix::new_abstract_name(&card.socket).unwrap()).unwrap();
        socket
    }

    /// One is silent, one hangs up, one has a wrong token, one has none, one has too much to say.
    fn disturb(&mut self, card: &Card) {
        self.strangers.push(Self::dial(card));
        drop(Self::dial(card));
        for packet in [&[7; 20][..], &[1], &[9; 4000]] {
            let stranger = Self::dial(card);
            send_to(&stranger, packet, SendFlags::NOSIGNAL).unwrap();
            self.strangers.push(stranger);
        }
        // The right token, but nothing handed over.
        let knows_token = Self::dial(card);
        send_to(&knows_token, &[&card.token[..], &1_u32.to_le_bytes()].concat(), SendFlags::NOSIGNAL)
            .unwrap();
        self.strangers.push(knows_token);
    }
}

impl Exchange for Leaky {
    fn rank(&self) -> u32 {
        self.inner.rank()
    }
    fn ranks(&self) -> u32 {
        self.inner.ranks()
    }
    fn all_gather(&mut self, blob: &[u8]) -> Result<Vec<Vec<u8>>> {
        let blobs = self.inner.all_gather(blob)?;
        if self.strangers.is_empty() {
            for (rank, blob) in blobs.iter().enumerate() {
                let card = Card::decode(rank, blob).unwrap();
                self.disturb(&card);
            }
        }
        Ok(blobs)
    }
    fn deadline(&self) -> Deadline {
        self.inner.deadline()
    }
}

#[test]
fn strangers_are_dropped_and_block_nobody() {
    let exchanges = LocalExchange::all(3, Instant::now() + PATIENCE)
        .into_iter()
        .map(|inner| Leaky { inner, strangers: Vec::new() });
    std::thread::scope(|scope| {
        let start = |mut exchange: Leaky| {
            scope.spawn(move || {
                let endpoint = connect(&mut exchange, &ConnectOptions::default());
                (endpoint, exchange.strangers.len())
            })
        };
        let threads: Vec<_> = exchanges.map(start).collect();
        for thread in threads {
            let (endpoint, strangers) = thread.join().unwrap();
            assert!(strangers >= 12);
            endpoint.unwrap();
        }
    });
}
