//! The connections to all peers, and the lists of those that have something to read or write.

use super::connection::Connection;
use super::events::Events;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use ubccl_core::collective::Rank;
use ubccl_core::endpoint::Fault;
use ubccl_core::{Error, Result};

/// With so few peers each poll tries to read from each: one call that brings data beats two, of which one only says that
/// there is some.
const FEW_PEERS: usize = 2;

/// The connections of one endpoint.
#[derive(Debug)]
pub(super) struct Links {
    links: Vec<Option<Link>>,
    pub(super) events: Events,
    /// Peers that may have sent something.
    readers: Vec<Rank>,
    /// Peers that something can be written to.
    writers: VecDeque<Rank>,
    /// Peers whose connection ended.
    ended: Vec<Rank>,
    is_watched: bool,
}

#[derive(Debug)]
struct Link {
    connection: Connection,
    is_reader: bool,
    is_writer: bool,
    is_ended: bool,
}

impl Links {
    /// Takes over connections; the place of this rank itself is empty.
    pub(super) fn new(connections: Vec<Option<Connection>>) -> Result<Self> {
        let events = Events::new()?;
        for (peer, connection) in (0..).zip(&connections) {
            if let Some(connection) = connection {
                events.add(peer, connection.as_fd())?;
            }
        }
        let ranks = connections.len();
        let link = |connection| Link { connection, is_reader: false, is_writer: false, is_ended: false };
        Ok(Links {
            links: connections.into_iter().map(|connection| connection.map(link)).collect(),
            events,
            readers: Vec::with_capacity(ranks),
            writers: VecDeque::with_capacity(ranks),
            ended: Vec::with_capacity(ranks),
            is_watched: false,
        })
    }

    /// Every connection, for those who only look.
    pub(super) fn all(&self) -> impl Iterator<Item = &Connection> {
        self.links.iter().flatten().map(|link| &link.connection)
    }

    fn link(&mut self, peer: Rank) -> Result<&mut Link> {
        let ranks = self.links.len();
        self.links.get_mut(peer as usize).and_then(Option::as_mut).ok_or_else(|| {
            Error::internal(format!("a step names rank {peer}, which is no peer among {ranks} ranks"))
        })
    }

    /// The connection to a peer.
    pub(super) fn connection(&mut self, peer: Rank) -> Result<&mut Connection> {
        Ok(&mut self.link(peer)?.connection)
    }

    /// All connections.
    pub(super) fn connections(&mut self) -> impl Iterator<Item = (Rank, &mut Connection)> {
        (0..).zip(&mut self.links).filter_map(|(peer, link)| Some((peer, &mut link.as_mut()?.connection)))
    }

    /// Notes who may be read and written. The direct way asks nobody and tries everybody.
    pub(super) fn look(&mut self) -> Result<()> {
        if self.links.len() > FEW_PEERS + 1 || self.is_watched {
            return self.fetch();
        }
        for peer in 0..self.links.len() as Rank {
            self.note(peer, true, true);
        }
        Ok(())
    }

    /// Notes who may be read and written, as the kernel tells.
    pub(super) fn fetch(&mut self) -> Result<()> {
        let Links { links, events, readers, writers, .. } = self;
        events.fetch(|event| {
            if let Some(Some(link)) = links.get_mut(event.peer as usize) {
                link.note(event.peer, (event.is_readable, event.is_writable), readers, writers);
            }
        })
    }

    fn note(&mut self, peer: Rank, is_readable: bool, is_writable: bool) {
        if let Some(link) = &mut self.links[peer as usize] {
            link.note(peer, (is_readable, is_writable), &mut self.readers, &mut self.writers);
        }
    }

    /// Notes that there is something to write to a peer.
    pub(super) fn queue_writer(&mut self, peer: Rank) {
        if let Some(Some(link)) = self.links.get_mut(peer as usize) {
            link.queue_writer(peer, &mut self.writers);
        }
    }

    /// Whether somebody can be read or written now, as far as known.
    pub(super) fn has_work(&self) -> bool {
        !self.readers.is_empty() || !self.writers.is_empty()
    }

    /// Takes the list of those to read from; each goes through [`Links::read_done`] and the list comes back.
    pub(super) fn take_readers(&mut self) -> Vec<Rank> {
        std::mem::take(&mut self.readers)
    }

    /// Gives back the list's memory, with those that have more to read.
    pub(super) fn put_readers(&mut self, readers: Vec<Rank>) {
        debug_assert!(self.readers.is_empty());
        self.readers = readers;
    }

    /// A peer was read from and has no more.
    pub(super) fn read_done(&mut self, peer: Rank) {
        if let Some(link) = &mut self.links[peer as usize] {
            link.is_reader = false;
        }
    }

    /// How many peers something can be written to.
    pub(super) fn writers(&self) -> usize {
        self.writers.len()
    }

    /// The next peer to write to.
    pub(super) fn next_writer(&mut self) -> Option<Rank> {
        let peer = self.writers.pop_front()?;
        if let Some(link) = &mut self.links[peer as usize] {
            link.is_writer = false;
        }
        Some(peer)
    }

    /// Notes if a connection ended when it was last read or written.
    pub(super) fn note_end(&mut self, peer: Rank) {
        let Some(Some(link)) = self.links.get_mut(peer as usize) else { return };
        if link.connection.gone().is_none() || link.is_ended {
            return;
        }
        link.is_ended = true;
        self.ended.push(peer);
        if !link.connection.is_open() {
            self.events.remove(link.connection.as_fd());
        }
    }

    /// A peer that is gone though something under way needs it.
    pub(super) fn missed(&mut self) -> Result<(), Fault> {
        for &peer in &self.ended {
            let link = self.links[peer as usize].as_ref();
            if let Some(why) = link.and_then(|link| link.connection.missed()) {
                return Err(lost(peer, why));
            }
        }
        Ok(())
    }

    /// Turns the descriptor for others on or off.
    pub(super) fn watch(&mut self, on: bool) -> Result<()> {
        if on {
            // What was told and not acted upon has to ring, too.
            self.fetch()?;
            for &peer in self.readers.iter().chain(&self.writers) {
                if let Some(link) = &self.links[peer as usize] {
                    self.events.repeat(peer, link.connection.as_fd());
                }
            }
        }
        self.is_watched = on;
        self.events.watch(on);
        Ok(())
    }
}

/// The fault of a peer that is gone.
pub(super) fn lost(peer: Rank, why: &str) -> Fault {
    Fault::Lost { peer, message: format!("rank {peer} is lost: {why}") }
}

impl Link {
    fn note(
        &mut self,
        peer: Rank,
        (is_readable, is_writable): (bool, bool),
        readers: &mut Vec<Rank>,
        writers: &mut VecDeque<Rank>,
    ) {
        if is_readable && !self.is_reader && self.connection.is_open() {
            self.is_reader = true;
            readers.push(peer);
        }
        if is_writable && self.connection.is_blocked() {
            self.connection.unblock();
            self.queue_writer(peer, writers);
        }
    }

    fn queue_writer(&mut self, peer: Rank, writers: &mut VecDeque<Rank>) {
        if !self.is_writer {
            self.is_writer = true;
            writers.push_back(peer);
        }
    }
}
