//! What it takes to go through the lanes of a profile whose chunks overlap: one rank's rounds replayed on its ports.
//!
//! Formulas know how long one chunk takes and how much a port has to do in all. In between, lanes are in each other's
//! way: a short message of one waits behind a long one of another, at either end, and all that hangs on it waits too. So
//! the first chunks are replayed in the order of time, and the rest follows at the pace that these have come to.
//!
//! ```text
//! a lane   does its rounds for one chunk after the other; a round begins when the one before it is over for this chunk,
//!          and a lane goes on to the next chunk once it has posted its last round, as far as its window goes: a send
//!          makes room when it has left, a receive when it is over
//! a port   takes messages in the order they come, each for max(gap, overhead + bytes / rate); if one message is slower than the port,
//!          the next to the same rank waits for its end, those to others do not
//! ```
//!
//! Where a port passes several messages at once, those under way share it (`flows`), and those to the same ranks follow
//! each other. Where all ranks do alike, that comes nearest. Where there is a root, neither that nor queues come near for all plans,
//! and both say too little rather than too much: what takes longer counts. (48 dies, predicted / simulated: an all-reduce of
//! 6 MB by meshes 1.00 shared, 1.12 queued; of 690 MB, a reduction by nb .80 and .95, a broadcast by meshes .85 and .82.)
//!
//! All ranks do alike in such plans, so what a rank sends now is what reaches it a latency later: one rank stands for all,
//! and of a round's messages over links of one level one message of as many bytes. Where a root only gives or takes, so does
//! this rank: what goes the other way is shared out among all the others.

mod handed;

use super::flows::{Flows, UnderWay};
use super::model::{Model, byte_ps};
use super::predict::crowd;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use ubccl_core::profile::{Flow, Profile, Round};
use ubccl_core::{Choice, Layout};

/// Chunks that are replayed; those behind them come at the pace of some of them, past the beginning and before lanes run empty.
const REPLAYED: usize = 40;
const PACE: Range<usize> = 14..34;
/// As many instead, where the first come about as fast as the busiest port takes them, or faster: the first lanes run ahead, in
/// which all ranks do alike, and come to a halt only when windows are full. (All-reduce of 943 MB by rings on 4 dies in chunks of
/// 1 MiB, predicted / simulated by `loggp`: .78 by the first 40 chunks, 1.00 by 160.)
const REPLAYED_LONGER: usize = 160;
const PACE_LONGER: Range<usize> = 100..150;
const ABOUT: f64 = 1.2;
/// Steps that a lane of a schedule may have under way.
const WINDOW: f64 = 64.0;
/// Messages of a turn that make room together, if they come one after the other; and the most such portions.
const PORTION: f64 = 8.0;
const MOST_PORTIONS: u32 = 4;

/// How long a rank takes by its profile, if chunks overlap in several lanes; the longest, of several kinds of ranks.
pub(super) fn replayed_ps(
    model: &Model,
    profile: &Profile,
    bytes: u64,
    choice: &Choice,
    layout: &Layout,
) -> Option<f64> {
    let of = |profile| Replay::new(model, profile, bytes, choice, layout);
    let all: Vec<Replay> = std::iter::once(profile).chain(&profile.also).filter_map(of).collect();
    let of_one = |replay: &Replay| {
        let are_alike = || replay.turns.iter().all(|turn| turn.flow == Flow::Both);
        match model.at_once {
            None => replay.total_ps(false),
            Some(_) if are_alike() => replay.total_ps(true),
            Some(_) => replay.total_ps(false).max(replay.total_ps(true)),
        }
    };
    let shared: &[bool] = if model.at_once.is_some() { &[false, true] } else { &[false] };
    let handed = shared.iter().filter_map(|&is_shared| handed::total_ps(&all, is_shared));
    all.iter().map(of_one).chain(handed).reduce(f64::max)
}

/// Whether formulas alone are too rough for a profile.
pub(super) fn is_needed(model: &Model, profile: &Profile) -> bool {
    model.cores.is_none() && (profile.stages.len() > 1 || profile.also.iter().any(|o| is_needed(model, o)))
}

/// What one round does for one whole chunk.
#[derive(Clone, Debug, Default)]
struct Turn {
    /// Of each level.
    messages: Vec<Message>,
    /// Which way they go: others' ports have less of what goes one way.
    flow: Flow,
    /// Reducing and copying.
    compute_ps: f64,
    /// Steps of a plan that are over once they have left the port, and those that are over when what comes is there.
    sends: f64,
    receives: f64,
    lane: usize,
}

/// The messages of a turn over links of one level.
#[derive(Clone, Copy, Debug)]
struct Message {
    level: usize,
    /// Which part of all they are.
    share: f64,
    /// Which of a rank's ports takes them, and for how long.
    port: usize,
    port_ps: f64,
    /// For how long the receiver's takes them.
    taken_ps: f64,
    /// How long each is on its way to its rank, and how much longer than the port.
    alone_ps: f64,
    rest_ps: f64,
    /// From leaving to arriving.
    latency_ps: f64,
    /// As flows, where ports are shared; without the ports.
    flows: Flows,
}

/// See the module.
#[derive(Clone)]
struct Replay {
    turns: Vec<Turn>,
    lanes: usize,
    ports: usize,
    levels: usize,
    launch_ps: f64,
    /// Whether ports pass several messages at once: then nothing stands in a queue for a lane to run ahead of.
    is_at_once: bool,
    /// Chunks, the last of which may be a part of one.
    chunks: f64,
    /// How many turns hand on what a root gives.
    handed: usize,
    /// Of the root: the turn whose messages have left when those behind it may be posted. It has everything.
    gate: Option<usize>,
    /// When each chunk has come; all are there from the beginning, if it is not said.
    comes_ps: Vec<f64>,
}

impl Replay {
    fn new(model: &Model, profile: &Profile, bytes: u64, choice: &Choice, layout: &Layout) -> Option<Self> {
        let (share, chunk) = (profile.chunked?.of_bytes(bytes as f64), f64::from(choice.chunk_bytes.max(1)));
        if profile.stages.len() < 2 || share <= chunk {
            return None;
        }
        let bytes = bytes as f64 * chunk / share;
        let lane_of =
            |round: usize| profile.stages.partition_point(|&start| start <= round).saturating_sub(1);
        let mut turns: Vec<Turn> = Vec::new();
        for (index, round) in profile.rounds.iter().enumerate() {
            let turn = turn(model, layout, round, bytes);
            for _ in 0..round.times {
                let lane = lane_of(index);
                turns.push(Turn { lane, ..turn.clone() });
            }
        }
        let lanes = profile.stages.len();
        let (ports, levels) = (usize::from(model.ports()), model.level.len());
        let is_at_once = model.at_once.is_some();
        let chunks = share / chunk;
        let (launch_ps, handed) = (model.launch_ps, profile.handed);
        let (gate, comes_ps) = (None, Vec::new());
        Some(Replay { turns, lanes, ports, levels, launch_ps, is_at_once, chunks, handed, gate, comes_ps })
    }

    /// How long it takes, where ports are shared or pass messages in turn.
    fn total_ps(&self, is_shared: bool) -> f64 {
        let chunks = self.chunks.ceil() as usize;
        let replayed = self.replayed();
        let ends = Run::new(self, replayed, is_shared).ends_ps();
        let is_alike = self.turns.first().is_some_and(|turn| turn.flow == Flow::Both);
        let runs_ahead = is_alike && !self.is_at_once;
        if runs_ahead && replayed < chunks && pace_ps(&ends, PACE) < self.port_ps() * ABOUT {
            let replayed = chunks.min(REPLAYED_LONGER);
            return self.all_ps(&Run::new(self, replayed, is_shared).ends_ps(), PACE_LONGER);
        }
        self.all_ps(&ends, PACE)
    }

    fn replayed(&self) -> usize {
        (self.chunks.ceil() as usize).min(REPLAYED)
    }

    /// The same from the ends of the first chunks.
    fn all_ps(&self, ends_ps: &[f64], pace: Range<usize>) -> f64 {
        let behind = self.chunks - ends_ps.len() as f64;
        let behind_ps = if behind > 0.0 { behind * pace_ps(ends_ps, pace).max(self.port_ps()) } else { 0.0 };
        self.launch_ps + ends_ps.last().copied().unwrap_or(0.0) + behind_ps
    }

    /// What the busiest port does for a chunk.
    fn port_ps(&self) -> f64 {
        let mut ports_ps = vec![0.0; self.ports];
        for message in self.turns.iter().flat_map(|turn| &turn.messages) {
            ports_ps[message.port] += message.port_ps;
        }
        ports_ps.into_iter().fold(0.0, f64::max)
    }

    /// Of the last chunk only a part may be there.
    fn part(&self, chunk: usize) -> f64 {
        (self.chunks - chunk as f64).clamp(0.0, 1.0)
    }
}

/// From one of these chunks to the next.
fn pace_ps(ends_ps: &[f64], pace: Range<usize>) -> f64 {
    (ends_ps[pace.end] - ends_ps[pace.start]) / pace.len() as f64
}

fn turn(model: &Model, layout: &Layout, round: &Round, bytes: f64) -> Turn {
    let receives = f64::from(round.steps - round.sends);
    let mut turn = Turn { flow: round.flow, sends: f64::from(round.sends), receives, ..Turn::default() };
    let all: u32 = round.traffic.iter().map(|traffic| traffic.messages).sum();
    for traffic in &round.traffic {
        let level = model.link(layout, traffic.level);
        let (link, messages) = (&model.level[level], f64::from(traffic.messages.max(1)));
        let crowd = if round.alone { 1.0 } else { crowd(layout, traffic.level, link.ports) };
        let bytes_ps = traffic.share.of_bytes(bytes) * link.byte_ps() * crowd;
        let (overheads_ps, gaps_ps) = (messages * link.port_overhead_ps, messages * link.gap_ps);
        let port_ps = (overheads_ps + bytes_ps / link.streams()).max(gaps_ps);
        let taken_ps = (bytes_ps / link.streams()).max(gaps_ps);
        let alone_ps = ((overheads_ps + bytes_ps) / f64::from(traffic.peers.max(1))).max(link.gap_ps);
        // What is left when the receiver's port has taken as many bytes: of the last message, and of overheads before it.
        let rest_ps =
            bytes_ps / messages * (1.0 - 1.0 / link.streams()) + overheads_ps - link.port_overhead_ps;
        let (port, latency_ps) = (usize::from(link.port), link.latency_ps + link.overhead_ps);
        let share = f64::from(traffic.messages) / f64::from(all.max(1));
        let count = f64::from(traffic.peers.max(1));
        // Not sooner than an engine has issued all of them.
        let (shared_ps, issue_ps) =
            (bytes_ps / link.streams(), messages * link.gap_ps.max(link.port_overhead_ps));
        let most = if shared_ps < issue_ps { shared_ps / issue_ps } else { 1.0 };
        let most = if shared_ps > 0.0 { most.min(count / link.streams()) } else { 1.0 };
        let flows = Flows { port_ps: shared_ps, count, most, passes: [None; 2] };
        let message = Message { level, share, port, port_ps, taken_ps, alone_ps, rest_ps, latency_ps, flows };
        turn.messages.push(message);
    }
    turn.compute_ps = round.folds() * model.fold_ps
        + round.reduced.of_bytes(bytes) * byte_ps(model.reduce_bytes_per_s)
        + round.copied.of_bytes(bytes) * byte_ps(model.copy_bytes_per_s);
    turn
}

/// A point in time. They are never NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Time(f64);

impl Eq for Time {}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Time {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// What happens to a chunk's turn; in the order of time, then as made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// All messages have left.
    Left,
    /// Those of one level have, which shared the ports with others. Never queued.
    Through { message: usize },
    /// The first byte of a message reaches the port.
    Head { message: usize },
    /// Some of the messages of one level are there.
    Partly { message: usize },
    /// All of them are.
    Arrived { message: usize },
    /// What came is reduced or copied.
    Computed,
    /// One more chunk has come.
    Come,
}

/// A lane's place.
#[derive(Clone, Debug)]
struct Lane {
    turns: Range<usize>,
    /// The next to post.
    chunk: usize,
    turn: usize,
    /// Steps under way.
    steps: f64,
}

/// Whether a window has a place left. Parts of steps are none.
fn has_room(steps: f64) -> bool {
    steps + 0.5 < WINDOW
}

/// Chunks under way.
struct Run<'a> {
    replay: &'a Replay,
    /// Whether ports pass several messages at once.
    is_shared: bool,
    chunks: usize,
    lanes: Vec<Lane>,
    /// By port.
    injection_free_ps: Vec<f64>,
    reception_free_ps: Vec<f64>,
    /// By level: when what went to the same ranks before has left.
    pair_free_ps: Vec<f64>,
    compute_free_ps: f64,
    /// What shares the ports, and by level what is to the same ranks and waits for those before.
    under_way: UnderWay<(usize, usize)>,
    behind: Vec<VecDeque<(usize, usize)>>,
    events: BinaryHeap<Reverse<(Time, u64, usize, What)>>,
    made: u64,
    /// Per chunk and turn: messages that have not arrived; one more until the turn is posted, and for computing.
    missing: Vec<u32>,
    /// When these were over, and the chunks.
    overs_ps: Vec<f64>,
    ends_ps: Vec<f64>,
    /// How many chunks have come.
    come: usize,
}

impl<'a> Run<'a> {
    fn new(replay: &'a Replay, chunks: usize, is_shared: bool) -> Self {
        let place = |lane| {
            let start = replay.turns.partition_point(|turn| turn.lane < lane);
            let end = replay.turns.partition_point(|turn| turn.lane <= lane);
            Lane { turns: start..end, chunk: 0, turn: start, steps: 0.0 }
        };
        Run {
            replay,
            is_shared,
            chunks,
            lanes: (0..replay.lanes).map(place).collect(),
            injection_free_ps: vec![0.0; replay.ports],
            reception_free_ps: vec![0.0; replay.ports],
            pair_free_ps: vec![0.0; replay.levels],
            compute_free_ps: 0.0,
            under_way: UnderWay::new(2 * replay.ports),
            behind: vec![VecDeque::new(); replay.levels],
            events: BinaryHeap::new(),
            made: 0,
            missing: vec![u32::MAX; chunks * replay.turns.len()],
            overs_ps: vec![0.0; chunks * replay.turns.len()],
            ends_ps: vec![0.0; chunks],
            come: if replay.comes_ps.is_empty() { chunks } else { 0 },
        }
    }

    /// When each chunk is through.
    fn ends_ps(self) -> Vec<f64> {
        self.done().ends_ps
    }

    fn done(mut self) -> Self {
        self.replay.comes_ps.iter().for_each(|&time_ps| self.push(time_ps, 0, What::Come));
        self.post_all(0.0);
        while let Some((now_ps, at, what)) = self.next() {
            match what {
                What::Through { message } => self.through(now_ps, at, message),
                What::Left => self.left(now_ps, at),
                What::Head { message } => self.head(now_ps, at, message),
                What::Partly { message } => self.some_arrived(now_ps, at, message),
                What::Arrived { message } => {
                    self.some_arrived(now_ps, at, message);
                    self.arrived(now_ps, at);
                }
                What::Computed => self.finished(now_ps, at),
                What::Come => {
                    self.come += 1;
                    self.post_all(now_ps);
                }
            }
        }
        self
    }

    /// What happens next: what is through passes on before anything else happens.
    fn next(&mut self) -> Option<(f64, usize, What)> {
        let event_ps = self.events.peek().map(|Reverse((Time(time_ps), ..))| *time_ps);
        if let Some(through_ps) = self.under_way.next_ps()
            && event_ps.is_none_or(|event_ps| through_ps <= event_ps)
            && let Some((at, message)) = self.under_way.end(through_ps)
        {
            return Some((through_ps, at, What::Through { message }));
        }
        let Reverse((Time(now_ps), _, at, what)) = self.events.pop()?;
        Some((now_ps, at, what))
    }

    fn push(&mut self, time_ps: f64, at: usize, what: What) {
        self.made += 1;
        self.events.push(Reverse((Time(time_ps), self.made, at, what)));
    }

    /// Posts whatever any lane may post.
    fn post_all(&mut self, now_ps: f64) {
        let mut is_over = true;
        // A turn without messages is over at once: then others may go on.
        while is_over {
            is_over = false;
            for lane in 0..self.lanes.len() {
                while self.may_post(lane) {
                    is_over |= self.post(now_ps, lane);
                }
            }
        }
    }

    fn may_post(&self, lane: usize) -> bool {
        let Lane { ref turns, chunk, turn, steps } = self.lanes[lane];
        if turns.is_empty() || chunk >= self.chunks {
            return false;
        }
        let is_over = |turn: usize| self.missing[chunk * self.replay.turns.len() + turn] == 0;
        let is_ready = match self.replay.gate {
            Some(gate) => turn <= gate || is_over(gate),
            None if turn == 0 => chunk < self.come,
            None => is_over(turn - 1),
        };
        // Sends are the first of a turn's steps, and make room for the others as they leave.
        is_ready && has_room(steps)
    }

    /// Posts a lane's next turn; whether that is over at once.
    fn post(&mut self, now_ps: f64, lane: usize) -> bool {
        let Lane { ref turns, chunk, turn, .. } = self.lanes[lane];
        let (start, is_last) = (turns.start, turn + 1 == turns.end);
        let at = chunk * self.replay.turns.len() + turn;
        let replay = self.replay;
        let posted = &replay.turns[turn];
        self.lanes[lane].steps += posted.sends + posted.receives;
        self.missing[at] = posted.messages.len() as u32;
        match self.is_shared {
            true => (0..posted.messages.len()).for_each(|message| self.come(now_ps, at, message)),
            false => self.queue(now_ps, at),
        }
        let state = &mut self.lanes[lane];
        (state.chunk, state.turn) = if is_last { (chunk + 1, start) } else { (chunk, turn + 1) };
        if posted.messages.is_empty() {
            self.missing[at] = 1;
            self.arrived(now_ps, at);
            return posted.compute_ps <= 0.0;
        }
        false
    }

    /// Messages stand behind those that are at the port, and behind those to the same ranks.
    fn queue(&mut self, now_ps: f64, at: usize) {
        let replay = self.replay;
        let turns = replay.turns.len();
        let (posted, part) = (&replay.turns[at % turns], replay.part(at / turns));
        let mut left_ps = now_ps;
        for (message, what) in posted.messages.iter().enumerate() {
            let mut taken_ps = now_ps;
            if posted.flow != Flow::In {
                taken_ps = now_ps.max(self.injection_free_ps[what.port]);
                self.injection_free_ps[what.port] = taken_ps + what.port_ps * part;
            }
            let start_ps = taken_ps.max(self.pair_free_ps[what.level]);
            self.pair_free_ps[what.level] = start_ps + what.alone_ps * part;
            left_ps = left_ps.max(self.injection_free_ps[what.port]).max(self.pair_free_ps[what.level]);
            self.push(start_ps + what.latency_ps, at, What::Head { message });
        }
        if posted.sends > 0.0 {
            self.push(left_ps, at, What::Left);
        }
    }

    /// Messages share the ports from now on, or wait for those before them to the same ranks.
    fn come(&mut self, now_ps: f64, at: usize, message: usize) {
        let level = self.replay.turns[at % self.replay.turns.len()].messages[message].level;
        self.behind[level].push_back((at, message));
        if self.behind[level].len() == 1 {
            self.begin(now_ps, at, message);
        }
    }

    fn begin(&mut self, now_ps: f64, at: usize, message: usize) {
        let turns = self.replay.turns.len();
        let Turn { ref messages, flow, .. } = self.replay.turns[at % turns];
        let Message { port, flows, .. } = messages[message];
        let passes = [(flow != Flow::In).then_some(2 * port), (flow != Flow::Out).then_some(2 * port + 1)];
        let port_ps = flows.port_ps * self.replay.part(at / turns);
        self.under_way.begin(now_ps, (at, message), Flows { port_ps, passes, ..flows });
    }

    /// Messages have left, and are there a latency later.
    fn through(&mut self, now_ps: f64, at: usize, message: usize) {
        let turn = &self.replay.turns[at % self.replay.turns.len()];
        let Message { level, latency_ps, share, .. } = turn.messages[message];
        self.behind[level].pop_front();
        if let Some(&(at, message)) = self.behind[level].front() {
            self.begin(now_ps, at, message);
        }
        self.push(now_ps + latency_ps, at, What::Arrived { message });
        self.make_room(now_ps, turn.lane, turn.sends * share);
    }

    fn left(&mut self, now_ps: f64, at: usize) {
        let turn = &self.replay.turns[at % self.replay.turns.len()];
        self.make_room(now_ps, turn.lane, turn.sends);
    }

    fn make_room(&mut self, now_ps: f64, lane: usize, places: f64) {
        let steps = &mut self.lanes[lane].steps;
        let had_room = has_room(*steps);
        *steps -= places;
        if !had_room && has_room(*steps) {
            self.post_all(now_ps);
        }
    }

    fn head(&mut self, now_ps: f64, at: usize, message: usize) {
        let turns = self.replay.turns.len();
        let Turn { ref messages, flow, .. } = self.replay.turns[at % turns];
        let Message { port, taken_ps, rest_ps, .. } = messages[message];
        let part = self.replay.part(at / turns);
        let taken_ps = taken_ps * part;
        let mut begin_ps = now_ps;
        if flow != Flow::Out {
            begin_ps = now_ps.max(self.reception_free_ps[port]);
            self.reception_free_ps[port] = begin_ps + taken_ps;
        }
        let portions = self.portions(at, message);
        for portion in 1..=portions {
            let here_ps = begin_ps + taken_ps * f64::from(portion) / f64::from(portions);
            let what = if portion < portions { What::Partly { message } } else { What::Arrived { message } };
            self.push(here_ps + rest_ps * part, at, what);
        }
    }

    /// In how many portions the messages of one level make room: there may be more than a window has places.
    fn portions(&self, at: usize, message: usize) -> u32 {
        let turn = &self.replay.turns[at % self.replay.turns.len()];
        match turn.compute_ps > 0.0 || self.is_shared {
            true => 1,
            false => {
                let receives = turn.receives * turn.messages[message].share;
                ((receives / PORTION).ceil() as u32).clamp(1, MOST_PORTIONS)
            }
        }
    }

    /// Steps whose messages are there make room for further ones, unless they have something to do with them.
    fn some_arrived(&mut self, now_ps: f64, at: usize, message: usize) {
        let portions = f64::from(self.portions(at, message));
        let turn = &self.replay.turns[at % self.replay.turns.len()];
        if turn.compute_ps <= 0.0 {
            let places = turn.receives * turn.messages[message].share / portions;
            self.make_room(now_ps, turn.lane, places);
        }
    }

    fn arrived(&mut self, now_ps: f64, at: usize) {
        self.missing[at] -= 1;
        if self.missing[at] > 0 {
            return;
        }
        let turns = self.replay.turns.len();
        let compute_ps = self.replay.turns[at % turns].compute_ps * self.replay.part(at / turns);
        if compute_ps <= 0.0 {
            return self.finished(now_ps, at);
        }
        self.missing[at] = 1;
        self.compute_free_ps = now_ps.max(self.compute_free_ps) + compute_ps;
        self.push(self.compute_free_ps, at, What::Computed);
    }

    fn finished(&mut self, now_ps: f64, at: usize) {
        let turns = self.replay.turns.len();
        let turn = &self.replay.turns[at % turns];
        self.missing[at] = 0;
        if turn.messages.is_empty() || turn.compute_ps > 0.0 {
            self.lanes[turn.lane].steps -= turn.receives;
        }
        self.overs_ps[at] = now_ps;
        let end_ps = &mut self.ends_ps[at / turns];
        *end_ps = end_ps.max(now_ps);
        self.post_all(now_ps);
    }
}
