//! Connecting among strangers, and without everybody.

use super::memory::pattern;
use super::work::{key, receive, send};
use super::{Node, PATIENCE, finish};
use crate::exchange::LocalExchange;
use crate::tcp::wire::VERSION;
use crate::tcp::{connect, mesh};
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};
use ubccl_core::endpoint::ConnectOptions;
use ubccl_core::{Deadline, ErrorKind, Exchange, Result};

/// An exchange that lets a test see the cards before the rank does.
struct Watched<F> {
    inner: LocalExchange,
    see: F,
}

impl<F: FnMut(&mut Vec<Vec<u8>>)> Exchange for Watched<F> {
    fn rank(&self) -> u32 {
        self.inner.rank()
    }

    fn ranks(&self) -> u32 {
        self.inner.ranks()
    }

    fn all_gather(&mut self, blob: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut cards = self.inner.all_gather(blob)?;
        (self.see)(&mut cards);
        Ok(cards)
    }

    fn deadline(&self) -> Deadline {
        self.inner.deadline()
    }
}

fn port(card: &[u8]) -> u16 {
    u16::from_le_bytes([card[4], card[5]])
}

/// Connects to a listening rank and says something.
fn stranger(card: &[u8], words: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port(card))).unwrap();
    socket.write_all(words).unwrap();
    socket
}

/// Strangers come before anybody else and stay.
fn besiege(cards: &[Vec<u8>], held: &mut Vec<TcpStream>) {
    for card in cards {
        let secret = &card[14..];
        let with_rank = |secret: &[u8], rank: u32| [secret, &rank.to_le_bytes()].concat();
        held.push(stranger(card, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        held.push(stranger(card, &with_rank(&[0; 16], 1)));
        held.push(stranger(card, &with_rank(secret, 0)));
        held.push(stranger(card, &with_rank(secret, 3)));
        held.push(stranger(card, &with_rank(secret, u32::MAX)));
        held.push(stranger(card, &secret[..7]));
        drop(stranger(card, b""));
        // More than are remembered.
        held.extend((0..80).map(|_| stranger(card, b"")));
    }
}

#[test]
fn strangers_are_dropped_and_hold_up_nobody() {
    let exchanges = LocalExchange::all(3, Instant::now() + PATIENCE);
    let options = ConnectOptions::default();
    let mut nodes: Vec<Node> = std::thread::scope(|scope| {
        let start = |inner: LocalExchange| {
            let options = &options;
            scope.spawn(move || {
                let mut held = Vec::new();
                let is_first = inner.rank() == 0;
                let see = |cards: &mut Vec<Vec<u8>>| {
                    if is_first {
                        besiege(cards, &mut held);
                    }
                };
                let endpoint = connect(&mut Watched { inner, see }, options).unwrap();
                drop(held);
                endpoint
            })
        };
        let threads: Vec<_> = exchanges.into_iter().map(start).collect();
        threads.into_iter().map(|thread| Node::new(thread.join().unwrap())).collect()
    });
    // Everybody talks to whom it means to.
    let mut wanted = Vec::new();
    for (rank, node) in nodes.iter_mut().enumerate() {
        let out = node.area(&pattern(rank as u64, 1000));
        let out = node.areas[out].all();
        wanted.push((rank, node.post(&key(1, 0), &send(out, (rank as u32 + 1) % 3))));
        let into = node.area(&[0; 1000]);
        let into = node.areas[into].all();
        wanted.push((rank, node.post(&key(1, 0), &receive(into, (rank as u32 + 2) % 3))));
    }
    finish(&mut nodes, &wanted);
    for (rank, node) in nodes.iter().enumerate() {
        node.areas[1].assert_holds(0, &pattern((rank as u64 + 2) % 3, 1000), "the neighbour's message");
    }
}

#[test]
fn a_rank_that_does_not_connect_is_named() {
    let mut exchanges = LocalExchange::all(3, Instant::now() + Duration::from_millis(300));
    let mut absent = exchanges.pop().unwrap();
    let errors: Vec<_> = std::thread::scope(|scope| {
        let connect = |mut exchange| scope.spawn(move || mesh::connect(&mut exchange, 1 << 16).unwrap_err());
        let threads: Vec<_> = exchanges.into_iter().map(connect).collect();
        // It takes part in the exchange, and no more. Nobody listens on its port, but that is for higher ranks.
        let mut card = vec![0; 30];
        card[..4].copy_from_slice(&VERSION.to_le_bytes());
        card[4] = 1;
        card[6..14].copy_from_slice(&(1u64 << 16).to_le_bytes());
        absent.all_gather(&card).unwrap();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Start);
        assert!(error.to_string().contains("no tcp connection with rank 2 before"), "{error}");
    }
}

#[test]
fn a_rank_that_ended_is_named_at_once() {
    let mut exchanges = LocalExchange::all(2, Instant::now() + PATIENCE);
    let inner = exchanges.pop().unwrap();
    let mut first = exchanges.pop().unwrap();
    let gone = std::thread::spawn(move || {
        // A port that was free a moment ago and is free again.
        let port =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut card = vec![0; 30];
        card[..4].copy_from_slice(&VERSION.to_le_bytes());
        card[4..6].copy_from_slice(&port.to_le_bytes());
        card[6..14].copy_from_slice(&(1u64 << 16).to_le_bytes());
        first.all_gather(&card).unwrap();
    });
    let mut exchange = Watched { inner, see: |_: &mut Vec<Vec<u8>>| () };
    let error = connect(&mut exchange, &ConnectOptions::default()).unwrap_err();
    gone.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Start);
    assert!(error.to_string().contains("rank 1 cannot connect to rank 0"), "{error}");
}

#[test]
fn a_card_of_another_version_or_beyond_reason_is_named() {
    for (change, part) in [(0..4, "speaks version 2576980377"), (6..14, "grants")] {
        let see = |cards: &mut Vec<Vec<u8>>| cards[0][change.clone()].fill(0x99);
        let error = connect(&mut Watched { inner: one(), see }, &ConnectOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Start);
        assert!(error.to_string().contains(&format!("rank 0 {part}")), "{error}");
    }
}

fn one() -> LocalExchange {
    LocalExchange::all(1, Instant::now() + PATIENCE).remove(0)
}

#[test]
fn nobody_listens_once_all_are_connected() {
    let mut ports = Vec::new();
    let see = |cards: &mut Vec<Vec<u8>>| ports = cards.iter().map(|card| port(card)).collect();
    let endpoint = connect(&mut Watched { inner: one(), see }, &ConnectOptions::default()).unwrap();
    assert_eq!(ports.len(), 1);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, ports[0])).is_err());
    drop(endpoint);
}
