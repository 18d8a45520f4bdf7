//! What a profile costs by a model.
//!
//! ```text
//! N   = pieces: lanes × parts × chunks of a lane's share, where there are any; each is a part of all messages
//! way = Σ over rounds (latency + the port's messages + reductions and copies), of one piece
//! T   = launch + max( way + what the slowest round (or lane's run of rounds) does for the other N − 1 pieces,
//!                     what the busiest port does for all + the last latency,
//!                     what the cores of a node do for all its ranks, one rank after the other, + all latencies )
//! ```
//!
//! Of a round whose messages go in m turns, each of which hangs on one that the round before brings, a port
//!
//! ```text
//! is through at the latest of   when it is free and the lane has come so far + all turns,
//!                               when the first of what it hangs on is there + all turns (but one that hangs on none),
//!                               when the last is there + one turn
//! ```
//!
//! Where a port passes several messages at once, what is posted with others ends with them, and nothing stands in a queue.
//!
//! Where chunks of several lanes overlap, the rounds of one rank are replayed instead (see `replay.rs`).
//!
//! A port takes a message for `max(gap, port overhead + bytes / rate)`, as the simulated machine does; a processor, where
//! `cores` are named, for the whole `overhead`, and it is the same that reduces and copies. Where ranks share a group's way out, bytes take
//! as many times longer as there are more ranks than ports. What comes of sharing ports and cores is told as contention:
//! the prediction less that for the same machine with enough of both.

use super::line::{Bursts, Line};
use super::model::Model;
use super::passing::Passing;
use super::replay;
use super::usage::{Usage, longer};
use ubccl_core::profile::{Profile, Round, Traffic};
use ubccl_core::{Choice, Layout};

/// A predicted time, by what it is spent on. All are picoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Starting, and waiting for messages that hang on one another.
    pub latency_ps: f64,
    /// Moving messages.
    pub bandwidth_ps: f64,
    /// Reducing and copying.
    pub reduction_ps: f64,
    /// What it takes longer because ranks share ports or cores.
    pub contention_ps: f64,
}

impl Cost {
    /// The predicted time.
    pub fn total_ps(&self) -> f64 {
        self.latency_ps + self.bandwidth_ps + self.reduction_ps + self.contention_ps
    }
}

impl Model {
    /// What plans of this profile cost for a call of so many bytes (those of its longest buffer).
    pub fn cost(&self, profile: &Profile, bytes: u64, choice: &Choice, layout: &Layout) -> Cost {
        let total_ps = self.total_ps(profile, bytes, choice, layout);
        self.cost_in_all(total_ps, profile, bytes, choice, layout)
    }

    /// The same if it is known how long they take in all.
    pub(super) fn cost_in_all(
        &self,
        total_ps: f64,
        profile: &Profile,
        bytes: u64,
        choice: &Choice,
        layout: &Layout,
    ) -> Cost {
        let (model, passing) = self.around(profile, layout);
        let reckoning = Reckoning::new(&model, profile, bytes, choice, layout).around(passing, choice);
        let alone = Reckoning { shared: false, ..reckoning }.usage();
        let (latency_ps, bandwidth_ps) = (alone.latency_ps(&model), alone.bandwidth_ps(&model));
        let reduction_ps = alone.reduction_ps(&model);
        let alone = Cost { latency_ps, bandwidth_ps, reduction_ps, contention_ps: 0.0 };
        match total_ps - alone.total_ps() {
            less if less < 0.0 => alone.times(total_ps / alone.total_ps()),
            contention_ps => Cost { contention_ps, ..alone },
        }
    }

    /// What they cost in all.
    pub(super) fn total_ps(&self, profile: &Profile, bytes: u64, choice: &Choice, layout: &Layout) -> f64 {
        let (model, passing) = self.around(profile, layout);
        let replayed = match replay::is_needed(&model, profile) {
            true => replay::replayed_ps(&model, profile, bytes, choice, layout),
            false => None,
        };
        let reckoning = Reckoning::new(&model, profile, bytes, choice, layout).around(passing, choice);
        replayed.unwrap_or_else(|| reckoning.usage().total_ps(&model))
    }

    /// What they cost at least, and whether that is all: to find out takes much less time.
    pub(super) fn least_ps(
        &self,
        profile: &Profile,
        bytes: u64,
        choice: &Choice,
        layout: &Layout,
    ) -> (f64, bool) {
        let (model, passing) = self.around(profile, layout);
        let is_needed = replay::is_needed(&model, profile);
        let reckoning = Reckoning::new(&model, profile, bytes, choice, layout).around(passing, choice);
        let reckoning = Reckoning { is_bound: is_needed, ..reckoning };
        (reckoning.usage().total_ps(&model), !is_needed)
    }

    /// What the whole of it is made of.
    pub(super) fn usage(&self, profile: &Profile, bytes: u64, choice: &Choice, layout: &Layout) -> Usage {
        Reckoning::new(self, profile, bytes, choice, layout).usage()
    }
}

/// One call of one profile.
#[derive(Clone, Copy)]
struct Reckoning<'a> {
    model: &'a Model,
    profile: &'a Profile,
    layout: &'a Layout,
    bytes: f64,
    /// How many pieces there are, and what part of everything the first is.
    pieces: f64,
    first: f64,
    /// What it takes on a ring.
    passing: Passing,
    /// Whether ports and cores are shared.
    shared: bool,
    /// Whether it is only to be found how long it takes at least.
    is_bound: bool,
}

/// What a round does for a piece: what it waits for and what a port does, of the port whose messages are through last;
/// what all ports do; and what the rank does itself.
#[derive(Clone, Copy, Default)]
pub(super) struct Parts {
    pub(super) latency: Usage,
    pub(super) port: Usage,
    pub(super) ports: Usage,
    pub(super) rank: Usage,
}

impl<'a> Reckoning<'a> {
    fn new(model: &'a Model, profile: &'a Profile, bytes: u64, choice: &Choice, layout: &'a Layout) -> Self {
        let bytes = bytes as f64;
        let (pieces, first) = pieces(profile, bytes, choice);
        let passing = Passing::default();
        Reckoning { model, profile, layout, bytes, pieces, first, passing, shared: true, is_bound: false }
    }

    /// The same, where messages pass ranks. If each way round a ring has lanes and links of its own, two lanes have one piece.
    fn around(self, passing: Passing, choice: &Choice) -> Self {
        let lanes = if passing.is_both_ways { (choice.lanes / 2).max(1) } else { choice.lanes };
        let (pieces, first) = pieces(self.profile, self.bytes, &Choice { lanes, ..*choice });
        Reckoning { passing, pieces, first, ..self }
    }

    /// Of the rank that is last.
    fn usage(&self) -> Usage {
        let others = self.profile.also.iter().map(|other| Reckoning { profile: other, ..*self }.of_rank());
        others.fold(self.of_rank(), |last, other| longer(self.model, last, other))
    }

    fn of_rank(&self) -> Usage {
        let (before, after) = self.profile.rounds.split_at(self.profile.fence.min(self.profile.rounds.len()));
        // Before and after a fence each port does what its rounds say.
        let mut all = match before {
            [] => self.piped(after, &self.profile.busiest),
            _ => self.piped(before, &[]).plus(&self.piped(after, &[]), 1.0),
        };
        if self.model.cores.is_some() && self.shared {
            all = longer(self.model, all, self.crowded());
        }
        all.launches += 1.0;
        all
    }

    /// Piece after piece: bound by the way of one, or by the busiest port.
    fn piped(&self, rounds: &[Round], busiest: &[Traffic]) -> Usage {
        let mut way = Line::new(self.model);
        let (mut slowest, mut ports) = (Usage::default(), Usage::default());
        let (mut last, mut ranks, mut windows) = (Usage::default(), Usage::default(), Usage::default());
        let (mut hops, mut longest) = (Usage::default(), Usage::default());
        let others = self.pieces - 1.0;
        let (is_staged, mut run) = (!self.profile.stages.is_empty(), Usage::default());
        let mut is_ones = false;
        for (index, round) in rounds.iter().enumerate() {
            let times = f64::from(round.times);
            let mut parts = self.parts(round, 1.0, self.first);
            parts.port.add(&self.joining(round, &rounds[index + 1..]), 1.0);
            match round.turns > 0 && self.model.cores.is_none() {
                true => {
                    (0..round.times).for_each(|_| way.flow(&parts, round, self.brings(round)));
                    way.wait(&self.overtaking(&parts, round, &rounds[index + 1..]));
                }
                false => way.follow(&parts, times, self.queue(round)),
            }
            if !round.traffic.is_empty() {
                last = parts.latency;
            }
            if self.profile.relays {
                let hop = parts.latency.plus(&parts.port, 1.0).plus(&parts.rank, 1.0);
                hops.add(&hop, times);
                longest = longer(self.model, longest, parts.port);
            }
            if self.profile.window > 0 {
                // A window's worth of parts waits for the first of them to be through.
                windows.add(&parts.latency, times * others / f64::from(self.profile.window));
            }
            if others > 0.0 {
                way.end.add(&self.behind(&parts, &rounds[index..], others), 1.0);
                let rest = self.parts(round, others, 1.0 - self.first);
                // What one rank alone does, round after round, passes one port.
                let was_ones = std::mem::replace(&mut is_ones, round.doers == 1);
                let goes_on = self.model.cores.is_none() && is_ones && was_ones;
                if !is_staged && !goes_on || self.profile.stages.contains(&index) {
                    run = Usage::default();
                }
                run.add(&self.turn(&rest, others), if is_staged { times } else { 1.0 });
                slowest = longer(self.model, slowest, run);
                ports.add(&parts.ports.plus(&rest.ports, 1.0), times);
                ranks.add(&parts.rank.plus(&rest.rank, 1.0), times);
            }
        }
        let way = way.end;
        if others <= 0.0 && busiest.is_empty() {
            return way;
        }
        if !busiest.is_empty() {
            ports = self.ports(busiest, self.pieces, 1.0, &Round::default().alone());
        }
        let ports = ports.of_slowest_port(self.model);
        let way = if self.is_bound { way } else { way.plus(&slowest, 1.0).plus(&windows, 1.0) };
        // What the busiest has no part in goes before it or after it, all latencies among it.
        let elsewhere = if self.profile.relays { hops.plus(&longest, -1.0) } else { last };
        longer(self.model, way, self.together(ports, ranks).plus(&windows, 1.0).plus(&elsewhere, 1.0))
    }

    /// What a port that passes several messages at once does while it passes those of a round: what is posted with them.
    fn joining(&self, round: &Round, later: &[Round]) -> Usage {
        let mut all = Usage::default();
        if self.model.at_once.is_none() {
            return all;
        }
        let port_of = |traffic: &Traffic| self.model.level[self.model.link(self.layout, traffic.level)].port;
        let port = round.traffic.first().map(port_of);
        let is_there = |later: &Round| later.traffic.iter().all(|traffic| Some(port_of(traffic)) == port);
        // Of turns that begin with what a rank has itself, the first.
        let first = later.first().filter(|next| round.leads && next.leads && is_there(next));
        let joining = later.iter().take_while(|round| round.joins).map(|round| (round, 1.0));
        for (other, part) in joining.chain(first.map(|next| (next, 1.0 / f64::from(next.turns.max(1))))) {
            all.add(&self.parts(other, 1.0, self.first).port, part);
        }
        all
    }

    /// What a port that passes several messages at once does, before it is through with those of a round, for later ones that
    /// overtake them. These are there at any time in between: while half of the round passes, as much of them does.
    fn overtaking(&self, parts: &Parts, round: &Round, later: &[Round]) -> Usage {
        let mut all = Usage::default();
        if self.model.at_once.is_none() {
            return all;
        }
        let overtakes = |later: &&Round| later.overtakes && self.port_of(later) == self.port_of(round);
        for later in later.iter().take_while(overtakes) {
            all.add(&self.parts(later, 1.0, self.first).port, f64::from(later.times));
        }
        let half = Usage::default().plus(&parts.port, 0.5);
        if all.total_ps(self.model) < half.total_ps(self.model) { all } else { half }
    }

    /// The port of all messages of a round, if they have one.
    fn port_of(&self, round: &Round) -> Option<u8> {
        let of = |traffic: &Traffic| self.model.level[self.model.link(self.layout, traffic.level)].port;
        let mut ports = round.traffic.iter().map(of);
        ports.next().filter(|first| ports.all(|port| port == *first))
    }

    /// What the last piece waits for in all at its receivers' ports, if what those send on reaches all of them in bursts:
    /// of the burst of the piece before as much as is left, which began as much later as its messages were on their way,
    /// and so piece after piece. The first piece's lack those of whoever is served later, so that they hold up but the
    /// ranks served last, whose own messages go to neighbours then.
    fn behind(&self, parts: &Parts, rounds: &[Round], others: f64) -> Usage {
        let [Round { meets: true, .. }, next, ..] = rounds else { return Usage::default() };
        let is_plain =
            self.model.cores.is_none() && self.model.at_once.is_none() && self.passing.loads == 0.0;
        if !is_plain || next.traffic.is_empty() {
            return Usage::default();
        }
        let messages: u32 = rounds[0].traffic.iter().map(|traffic| traffic.messages).sum();
        let under_way = self.nearest_first(next.traffic.iter(), (1.0, self.first), next);
        let wait = under_way.plus(&parts.port, -1.0 / f64::from(messages.max(1)));
        // What is longer on its way than a piece takes finds the burst of another piece; what is nearly so, not all of it.
        let apart = parts.port.plus(&under_way, -1.0);
        let wait = if apart.total_ps(self.model) < wait.total_ps(self.model) { apart } else { wait };
        let all = if others < 2.0 {
            let farthest = self.latency(next.traffic.iter(), (1.0, self.first), false);
            wait.plus(&farthest, -1.0).plus(&under_way, 1.0)
        } else {
            Usage::default().plus(&wait, others - 1.0)
        };
        let is_met = wait.total_ps(self.model) > 0.0 && all.total_ps(self.model) > 0.0;
        if is_met { all } else { Usage::default() }
    }

    /// In how many bursts what a round brings is there: of what a port passes at once, all comes at the same time.
    fn brings(&self, round: &Round) -> Bursts {
        let alone = Bursts::one_by_one(round.brings);
        let Some(most) = self.model.at_once else { return alone };
        let of = |count: fn(&Traffic) -> u32| round.traffic.iter().map(count).sum::<u32>();
        let (messages, peers) = (of(|traffic| traffic.messages), of(|traffic| traffic.peers));
        let at_once = peers.clamp(1, most);
        let count = messages.div_ceil(at_once).max(1);
        let part = (f64::from(at_once) / f64::from(messages.max(1))).min(1.0);
        if count < round.brings { Bursts { count, part, ..alone } } else { alone }
    }

    /// How many times what a round's messages of one piece take those of other pieces before them do. A processor has no
    /// queue: it turns to whatever is there. Nor has a port that passes several at once.
    fn queue(&self, round: &Round) -> f64 {
        let messages: u32 = round.traffic.iter().map(|traffic| traffic.messages).sum();
        let others = self.pieces - 1.0;
        // No limit where it does not fill: so many pieces by none.
        let queue = f64::from(round.queue).min(others / f64::from(round.fills_in));
        match (self.model.cores, self.model.at_once) {
            (None, None) => (queue / f64::from(messages.max(1))).min(others),
            _ => 0.0,
        }
    }

    /// What keeps a round's successor from the next piece: in a lane's run of rounds, the wait for messages as well.
    fn turn(&self, rest: &Parts, others: f64) -> Usage {
        match self.profile.stages.is_empty() {
            true => self.together(rest.port, rest.rank),
            false => rest.port.plus(&rest.rank, 1.0).plus(&rest.latency, others),
        }
    }

    /// What one rank does at the same time: ports and engines work beside each other, a processor does one thing.
    fn together(&self, port: Usage, rank: Usage) -> Usage {
        match self.model.cores {
            Some(_) => port.plus(&rank, 1.0),
            None => longer(self.model, port, rank),
        }
    }

    /// The cores of a node do the work of all its ranks.
    fn crowded(&self) -> Usage {
        let ranks = f64::from(self.layout.ranks());
        let in_node = f64::from(self.layout.levels()[0].largest());
        let cores = f64::from(self.model.cores.unwrap_or(1)).min(in_node);
        let mut all = Usage::default();
        for round in &self.profile.rounds {
            let times = f64::from(round.times);
            let doers = if round.doers == 0 { ranks } else { f64::from(round.doers) };
            let doers_in_node = (doers * in_node / ranks).max(1.0);
            // Those who do something wait for their turn on a core, and do it there.
            let turns = (doers_in_node / cores).max(1.0);
            let parts = self.parts(round, self.pieces, 1.0);
            all.add(&parts.latency, times * turns);
            all.add(&parts.port, times * doers_in_node / cores);
            all.add(&parts.rank, times * doers_in_node / cores);
        }
        all
    }

    /// What a round does for so many pieces, which are together such a part of everything.
    fn parts(&self, round: &Round, pieces: f64, part: f64) -> Parts {
        let (bytes, shares) = (self.bytes * part, pieces / f64::from(self.profile.spread.max(1)));
        let rank = Usage {
            folds: round.folds() * shares,
            reduced_bytes: round.reduced.of_bytes(bytes),
            copied_bytes: round.copied.of_bytes(bytes),
            ..Usage::default()
        };
        let ports = self.ports(&round.traffic, shares, part, round);
        let mut parts = Parts { ports, rank, ..Parts::default() };
        for port in 0..self.model.ports() {
            let own = round.traffic.iter().filter(|traffic| self.is_of_port(traffic, port));
            let is_irregular = own.clone().count() < round.traffic.len();
            let are_many = own.clone().any(|traffic| traffic.peers > 1);
            let (mut latency, ports) =
                (self.latency(own.clone(), (pieces, part), is_irregular), ports.of_port(self.model, port));
            if are_many && self.passing.loads > 1.0 {
                self.overlap(&mut latency, &ports);
            }
            // What passes a port at once ends at once: the farthest is the last to come.
            if round.fans_in && self.model.cores.is_none() && self.model.at_once.is_none() {
                latency = self.nearest_first(own, (shares, part), round);
            }
            let (takes, took) = (latency.plus(&ports, 1.0), parts.latency.plus(&parts.port, 1.0));
            if port == 0 || takes.total_ps(self.model) > took.total_ps(self.model) {
                (parts.latency, parts.port) = (latency, ports);
            }
        }
        let messages: u32 = round.traffic.iter().map(|traffic| traffic.messages).sum();
        if round.window > 0 && messages > round.window {
            self.wait_for_window(&mut parts, round, (f64::from(messages), pieces, part));
        }
        parts
    }

    /// While some messages pass ranks on their way round a ring, others pass the links.
    fn overlap(&self, latency: &mut Usage, ports: &Usage) {
        let Passing { latency_ps, loads, .. } = self.passing;
        let of_others = ports.bytes[0] * (1.0 - 1.0 / loads);
        latency.bytes[0] -= of_others.min(latency.latencies[0] * latency_ps / self.model.level[0].byte_ps());
    }

    /// What is left to wait for where messages come from ranks that all send at once: while those of far ranks are on their
    /// way, a port takes those of near ones.
    fn nearest_first<'t>(
        &self,
        traffic: impl Iterator<Item = &'t Traffic>,
        (pieces, part): (f64, f64),
        round: &Round,
    ) -> Usage {
        let works = |traffic: &Traffic| self.ports(std::slice::from_ref(traffic), pieces, part, round);
        let mut levels: Vec<(Usage, Usage)> = traffic
            .map(|traffic| (self.latency(std::iter::once(traffic), (pieces, part), false), works(traffic)))
            .collect();
        levels.sort_by(|(a, _), (b, _)| a.total_ps(self.model).total_cmp(&b.total_ps(self.model)));
        let mut nearer = Usage::default();
        levels.iter().fold(Usage::default(), |longest, (latency, work)| {
            let left = latency.plus(&nearer, -1.0);
            nearer.add(work, 1.0);
            longer(self.model, longest, left)
        })
    }

    /// After each window's worth of messages, the next waits for the first of them to be through. Those that are left at
    /// last wait for as many as they are, the nearest first.
    fn wait_for_window(&self, parts: &mut Parts, round: &Round, (messages, pieces, part): (f64, f64, f64)) {
        let window = f64::from(round.window);
        let waits = (messages / window).ceil() - 1.0;
        let mut left = messages - waits * window;
        let latency = |traffic| self.latency(std::iter::once(traffic), (pieces, part), false);
        let mut levels: Vec<(f64, Usage)> = round
            .traffic
            .iter()
            .map(|traffic| (f64::from(traffic.messages) * window / messages, latency(traffic)))
            .collect();
        let ps = |usage: &Usage| usage.total_ps(self.model);
        levels.sort_by(|(_, a), (_, b)| ps(a).total_cmp(&ps(b)));
        let last = levels.into_iter().find(|(under_way, _)| {
            left -= under_way.ceil();
            left <= 0.0
        });
        let last = last.map_or(parts.latency, |(_, latency)| latency);
        let farthest = parts.latency;
        for (latency, waits) in [(farthest, waits - 1.0), (last, 1.0)] {
            let mut wait = latency;
            wait.add(&parts.port, (1.0 - window) / messages);
            if wait.total_ps(self.model) > 0.0 {
                parts.latency.add(&wait, waits);
            }
        }
    }

    /// What ports do for these messages of so many pieces.
    fn ports(&self, traffic: &[Traffic], pieces: f64, part: f64, round: &Round) -> Usage {
        let mut usage = Usage::default();
        let peers = |port: u8| {
            let own = traffic.iter().filter(|traffic| self.is_of_port(traffic, port));
            own.map(|traffic| f64::from(traffic.peers)).sum::<f64>()
        };
        for traffic in traffic {
            let index = self.model.link(self.layout, traffic.level);
            let link = &self.model.level[index];
            // What switches copy or fold passes a port once.
            let is_once = round.multicast && link.multicast || round.folds && link.reduces;
            let times = if is_once { f64::from(traffic.peers.max(1)) } else { 1.0 };
            let messages = f64::from(traffic.messages) * pieces / times;
            let bytes = traffic.share.of_bytes(self.bytes * part) / times;
            let is_alone = round.alone || !self.shared;
            let bytes = bytes * if is_alone { 1.0 } else { crowd(self.layout, traffic.level, link.ports) };
            // Messages of several rounds, to different ranks, may meet at a port.
            let abreast = if self.is_bound { link.streams() } else { link.abreast(peers(link.port)) };
            let bytes = bytes / abreast;
            let overheads = messages * if self.model.cores.is_some() { 1.0 } else { link.port_share() };
            if messages * link.gap_ps > bytes * link.byte_ps() + overheads * link.overhead_ps {
                usage.gaps[index] += messages;
            } else {
                usage.bytes[index] += bytes;
                usage.overheads[index] += overheads;
            }
        }
        usage
    }

    fn is_of_port(&self, traffic: &Traffic, port: u8) -> bool {
        self.model.is_of_port(&self.model.level[self.model.link(self.layout, traffic.level)], port)
    }

    /// The longest way of these messages of so many pieces, from where the port is through with them. Where ranks turn to
    /// another port in between, each at a time of its own, two messages meet at a port that had none before.
    fn latency<'t>(
        &self,
        traffic: impl Iterator<Item = &'t Traffic>,
        (pieces, part): (f64, f64),
        is_irregular: bool,
    ) -> Usage {
        let one = |traffic: &Traffic| {
            let mut usage = Usage::default();
            let index = self.model.link(self.layout, traffic.level);
            let (link, messages) = (&self.model.level[index], f64::from(traffic.messages));
            usage.latencies[index] = 1.0;
            usage.overheads[index] = if self.model.cores.is_some() { 0.0 } else { 1.0 - link.port_share() };
            // What is left of the last message, where a message is slower than the port.
            let slower = (link.abreast(f64::from(traffic.peers)) - 1.0) / link.streams();
            let meets = if is_irregular && traffic.peers > 1 { 1.0 / link.streams() } else { 0.0 };
            // Messages that pass at once end together.
            if slower + meets > 0.0 && self.model.at_once.is_none() {
                let bytes = traffic.share.of_bytes(self.bytes * part) / (messages * pieces).max(1.0);
                usage.bytes[index] = bytes * (slower + meets);
            }
            usage
        };
        traffic.fold(Usage::default(), |longest, traffic| longer(self.model, longest, one(traffic)))
    }
}

/// How many messages the busiest rank sends, or takes in.
pub(super) fn messages(profile: &Profile, bytes: u64, choice: &Choice) -> f64 {
    let others = profile.also.iter().map(|other| messages(other, bytes, choice)).fold(0.0, f64::max);
    let of = |traffic: &[Traffic]| traffic.iter().map(|part| f64::from(part.messages)).sum::<f64>();
    let each = match profile.busiest[..] {
        [] => profile.rounds.iter().map(|round| f64::from(round.times) * of(&round.traffic)).sum(),
        _ => of(&profile.busiest),
    };
    (pieces(profile, bytes as f64, choice).0 / f64::from(profile.spread.max(1)) * each).max(others)
}

/// How many ranks of a group share each of its ports to a level.
pub(super) fn crowd(layout: &Layout, level: usize, ports: Option<u32>) -> f64 {
    let (Some(ports), Some(within)) = (ports, level.checked_sub(1)) else { return 1.0 };
    (f64::from(layout.levels()[within].largest()) / f64::from(ports)).max(1.0)
}

/// How many pieces, and what part of everything the first is.
fn pieces(profile: &Profile, bytes: f64, choice: &Choice) -> (f64, f64) {
    let lanes = if profile.split { f64::from(choice.lanes.max(1)) } else { 1.0 };
    let all = lanes * f64::from(profile.parts.max(1));
    let share = profile.chunked.map_or(0.0, |share| share.of_bytes(bytes)) / all;
    let chunk = f64::from(choice.chunk_bytes.max(1));
    if share <= chunk {
        return (all, 1.0 / all);
    }
    (all * (share / chunk).ceil(), chunk / share / all)
}
