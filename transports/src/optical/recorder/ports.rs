//! What ports that serve one message after the other tell: when they were whose, and what waited for what.

use super::Recorder;
use ubccl_core::Rank;
use ubccl_core::record::{At, LinkId, Reason, What};

/// A message takes its sender's port.
#[derive(Debug)]
pub(in super::super) struct Injection {
    pub(in super::super) message: u32,
    pub(in super::super) from: Rank,
    pub(in super::super) to: Rank,
    pub(in super::super) level: u8,
    pub(in super::super) port: LinkId,
    pub(in super::super) now_ps: u64,
    /// When the port takes it.
    pub(in super::super) taken_ps: u64,
    /// When the rank begins with it: later, if it follows another message to the same rank.
    pub(in super::super) start_ps: u64,
    pub(in super::super) overhead_ps: u64,
    /// How long its link is down before its first byte leaves.
    pub(in super::super) held_ps: u64,
    /// What of `message_ps` goes into faults.
    pub(in super::super) recovery_ps: u64,
    pub(in super::super) latency_ps: u64,
    /// What its bytes take of the port, and themselves.
    pub(in super::super) port_ps: u64,
    pub(in super::super) message_ps: u64,
    /// When the port is free again.
    pub(in super::super) free_ps: u64,
    /// When the next message to the same rank may start, where one is slower than the port.
    pub(in super::super) pair_ps: Option<u64>,
}

/// A message passes a rank on its way round a ring.
#[derive(Debug)]
pub(in super::super) struct Passing {
    pub(in super::super) message: u32,
    pub(in super::super) level: u8,
    pub(in super::super) port: LinkId,
    pub(in super::super) now_ps: u64,
    /// When the port takes it, and its first byte leaves: later, if the link is down.
    pub(in super::super) taken_ps: u64,
    pub(in super::super) first_ps: u64,
    /// When the port is free again.
    pub(in super::super) port_ps: u64,
    pub(in super::super) latency_ps: u64,
}

/// A message is at its receiver's port.
#[derive(Debug)]
pub(in super::super) struct Reception {
    pub(in super::super) message: u32,
    pub(in super::super) from: Rank,
    pub(in super::super) to: Rank,
    pub(in super::super) port: LinkId,
    pub(in super::super) now_ps: u64,
    /// When the port takes it.
    pub(in super::super) begin_ps: u64,
    /// What of `message_ps` goes into faults.
    pub(in super::super) recovery_ps: u64,
    pub(in super::super) overhead_ps: u64,
    pub(in super::super) port_ps: u64,
    pub(in super::super) message_ps: u64,
    /// When it is there: later than by itself, if the message before it from the same rank is late.
    pub(in super::super) arrival_ps: u64,
}

impl Recorder {
    /// See [`Injection`].
    pub(in super::super) fn injected(&mut self, it: &Injection) {
        let Some(posted) = self.reason_of(it.message) else { return self.free(it.port, Reason::Unknown) };
        let (out, from) = (At::Link(it.port), At::Rank(it.from));
        let taken = if it.taken_ps > it.now_ps { self.free_by(it.port) } else { posted };
        let started = if it.start_ps > it.taken_ps { self.pair(it.from, it.to).0 } else { taken };
        let (ready_ps, port_first_ps) = (it.start_ps + it.overhead_ps, it.taken_ps + it.overhead_ps);
        let first_ps = ready_ps + it.held_ps;
        let sent_ps = first_ps + it.message_ps;
        let ready = self.stretch(What::Overhead, from, (it.start_ps, ready_ps), started);
        let ready = self.stretch(What::Recovery, out, (ready_ps, first_ps), ready);
        let whole_ps = sent_ps - it.recovery_ps;
        let whole = self.stretch(What::Serialisation, out, (first_ps, whole_ps), ready);
        let sent = self.stretch(What::Recovery, out, (whole_ps, sent_ps), whole);
        self.leaves(it.message, (first_ps, sent_ps), sent);
        self.occupy(it.port, it.message, (port_first_ps, port_first_ps + it.port_ps));
        let free = if it.free_ps > port_first_ps + it.port_ps {
            self.stretch(What::Gap, out, (it.taken_ps, it.free_ps), taken)
        } else if (it.free_ps, it.start_ps) == (sent_ps, it.taken_ps) {
            sent
        } else {
            let ready = self.stretch(What::Overhead, from, (it.taken_ps, port_first_ps), taken);
            self.stretch(What::Serialisation, out, (port_first_ps, it.free_ps), ready)
        };
        self.free(it.port, free);
        if let Some(pair_ps) = it.pair_ps {
            self.pair(it.from, it.to).0 = sent;
            if pair_ps > sent_ps {
                let gap = self.stretch(What::Gap, out, (it.start_ps, pair_ps), started);
                self.pair(it.from, it.to).0 = gap;
            }
        }
        let way = (first_ps, first_ps + it.latency_ps);
        let head = self.stretch(What::Latency, At::Level(it.level), way, ready);
        self.lead(it.message, head);
    }

    /// See [`Passing`].
    pub(in super::super) fn passes(&mut self, it: &Passing) {
        let Some(head) = self.reason_of(it.message) else { return self.free(it.port, Reason::Unknown) };
        let taken = if it.taken_ps > it.now_ps { self.free_by(it.port) } else { head };
        let first = self.stretch(What::Recovery, At::Link(it.port), (it.taken_ps, it.first_ps), taken);
        self.occupy(it.port, it.message, (it.first_ps, it.port_ps));
        let free = self.stretch(What::Serialisation, At::Link(it.port), (it.first_ps, it.port_ps), first);
        self.free(it.port, free);
        let way = (it.first_ps, it.first_ps + it.latency_ps);
        let head = self.stretch(What::Latency, At::Level(it.level), way, first);
        self.lead(it.message, head);
    }

    /// See [`Reception`].
    pub(in super::super) fn reaches(&mut self, it: &Reception) {
        let Some(head) = self.reason_of(it.message) else { return self.free(it.port, Reason::Unknown) };
        self.head(it.message, it.now_ps);
        let within = At::Link(it.port);
        let begun = if it.begin_ps > it.now_ps { self.free_by(it.port) } else { head };
        let all_ps = it.begin_ps + it.message_ps;
        let whole_ps = all_ps - it.recovery_ps;
        let whole = self.stretch(What::Serialisation, within, (it.begin_ps, whole_ps), begun);
        let all = self.stretch(What::Recovery, within, (whole_ps, all_ps), whole);
        self.occupy(it.port, it.message, (it.begin_ps, it.begin_ps + it.port_ps));
        let free = match it.port_ps == it.message_ps {
            true => all,
            false => {
                self.stretch(What::Serialisation, within, (it.begin_ps, it.begin_ps + it.port_ps), begun)
            }
        };
        self.free(it.port, free);
        let own_ps = all_ps + it.overhead_ps;
        let mut there = self.stretch(What::Overhead, At::Rank(it.to), (all_ps, own_ps), all);
        if it.port_ps < it.message_ps {
            let last = &mut self.pair(it.from, it.to).1;
            if it.arrival_ps > own_ps {
                there = *last;
            }
            *last = there;
        }
        self.lead(it.message, there);
    }
}
