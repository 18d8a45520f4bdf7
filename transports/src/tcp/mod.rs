//! TCP, for now on loopback: one connection for each pair of ranks.
//!
//! | file | what |
//! |---|---|
//! | `mesh` | connecting, authentication |
//! | `wire`, `parser` | frames; a peer's bytes cut into frames and payload |
//! | `outbound`, `inbound`, `ring` | the two sides of a channel (pair of ranks, lane), and where early bytes wait |
//! | `connection` | one socket and its channels |
//! | `links`, `events` | all connections; who may be read or written, and sleeping until somebody may |
//! | `posts`, `fold`, `endpoint` | posts under way, reductions, the endpoint itself |
//! | `farewell` | closing without losing what was sent |
//! | `raw` | addresses, system calls |
//!
//! **Flow.** Each channel is a stream of messages with a limit up to which its sender may send (see `wire`). At first that
//! is what fits the receiver's ring, so that small messages, and the beginning of large ones, go at once. Every plain
//! receive that is posted raises it by the whole message, whose bytes are then read straight into memory. Reductions read
//! through the ring and raise it as they go. Every byte that arrives has a place, so sockets are always drained: a
//! message that nobody receives yet holds up neither another lane nor another peer, nor can full sockets deadlock.
//!
//! **Mismatches** are found by the receiver: the header travels with a message's first bytes, which need no receive.
//!
//! **Room to grow.** Connecting lazily and over several hosts touches `mesh` and `links` only: a connection is made from an
//! authenticated socket, whenever it comes.

mod connection;
mod endpoint;
mod events;
mod farewell;
mod fold;
mod inbound;
mod links;
mod mesh;
mod outbound;
mod parser;
mod posts;
mod raw;
mod ring;
#[cfg(test)]
mod tests;
mod wire;

use crate::host::HostMemory;
use connection::Connection;
use endpoint::TcpEndpoint;
use ubccl_core::endpoint::{Clock, ConnectOptions, Endpoint, Reach, Transport, TransportDescriptor};
use ubccl_core::{Exchange, Result};
use wire::MESSAGE_COST;

/// Bytes of buffering for each ordered pair, unless said.
const PAIR_BYTES: u64 = 512 << 10;

/// The transport.
pub const TCP: Tcp = Tcp;

/// TCP on loopback.
#[derive(Debug)]
pub struct Tcp;

impl Transport for Tcp {
    fn descriptor(&self) -> &'static TransportDescriptor {
        &TransportDescriptor {
            name: "tcp",
            alias: None,
            summary: "TCP between processes of one host (127.0.0.1)",
            clock: Clock::Real,
            reach: Reach::Host,
        }
    }

    /// Connects this rank with all others.
    ///
    /// Cost:   one exchange, one socket for each other rank; `options.pair_bytes` of memory for each as lanes are used.
    /// Errors: Start, naming the ranks that did not connect by the exchange's deadline; System.
    fn connect(&self, exchange: &mut dyn Exchange, options: &ConnectOptions) -> Result<Box<dyn Endpoint>> {
        Ok(Box::new(connect(exchange, options)?))
    }
}

fn connect(exchange: &mut dyn Exchange, options: &ConnectOptions) -> Result<TcpEndpoint> {
    let ring_bytes = ring_bytes(options);
    let peers = mesh::connect(exchange, ring_bytes)?;
    let connection = |peer: mesh::Peer| Connection::new(peer.socket.into(), ring_bytes, peer.ring_bytes);
    TcpEndpoint::new(exchange.rank(), peers.into_iter().map(|peer| peer.map(connection)).collect())
}

/// Bytes of one lane's ring: the lanes and, as one, those of point-to-point messages share what a pair may take, of which
/// a quarter is for remembering messages. More than two bites are no use, and less than a few messages would be slow.
fn ring_bytes(options: &ConnectOptions) -> u64 {
    let share = options.pair_bytes.unwrap_or(PAIR_BYTES) / 4 * 3 / (u64::from(options.lanes) + 1);
    share.clamp(8 * MESSAGE_COST, 2 * HostMemory::BITE as u64) / MESSAGE_COST * MESSAGE_COST
}
