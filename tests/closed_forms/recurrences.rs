//! Two recurrences for NHR, NB and halving-doubling, from the algorithms' descriptions alone: what waits for what, and when.

use super::LATENCY_PS;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One rank's turn.
enum Turn {
    Send { to: usize, blocks: Vec<usize> },
    Receive { blocks: Vec<usize> },
}

/// The blocks of every step of a rank, as the algorithms are described: distance to the receiver (as it is in an
/// all-gather), and the blocks that go there, counted from the sender's own.
fn steps(algorithm: &str, p: isize) -> Vec<(isize, Vec<isize>)> {
    let doubling = std::iter::successors(Some(1), |d| Some(2 * d)).take_while(|&d| d < p);
    let mut steps: Vec<(isize, Vec<isize>)> = match algorithm {
        "nhr" => doubling.map(|d| (d, (0..(p - 1 + d) / (2 * d)).map(|k| -2 * d * k).collect())).collect(),
        _ => doubling.map(|d| (-d, (0..d.min(p - d)).collect())).collect(),
    };
    if algorithm == "nhr" {
        steps.reverse();
    }
    steps
}

/// Where each rank's block is in memory: an all-reduce by NHR numbers them by the reversed low bits of the rank.
fn place(algorithm: &str, is_all_reduce: bool, p: usize, rank: usize) -> usize {
    if algorithm != "nhr" || !is_all_reduce {
        return rank;
    }
    let twos = p.trailing_zeros();
    let low = (0..twos).filter(|bit| rank >> bit & 1 == 1).map(|bit| 1 << (twos - 1 - bit)).sum::<usize>();
    low * (p >> twos) + (rank >> twos)
}

/// What a rank does, in its order: in each step a message for each run of blocks that are neighbours, sent and received
/// in turns.
fn turns(algorithm: &str, is_all_reduce: bool, p: usize, rank: usize) -> Vec<Turn> {
    let at = |by: isize| (rank as isize + by).rem_euclid(p as isize) as usize;
    let runs = |of: &mut dyn Iterator<Item = isize>| {
        let mut blocks: Vec<usize> = of.map(|by| place(algorithm, is_all_reduce, p, at(by))).collect();
        blocks.sort_unstable();
        blocks.chunk_by(|a, b| a + 1 == *b).map(<[usize]>::to_vec).collect::<Vec<_>>()
    };
    let mut turns = Vec::new();
    let mut step = |give: Vec<Vec<usize>>, to: usize, take: Vec<Vec<usize>>| {
        let (mut give, mut take) = (give.into_iter(), take.into_iter());
        loop {
            let (blocks, taken) = (give.next(), take.next());
            if blocks.is_none() && taken.is_none() {
                break;
            }
            turns.extend(blocks.map(|blocks| Turn::Send { to, blocks }));
            turns.extend(taken.map(|blocks| Turn::Receive { blocks }));
        }
    };
    let all = steps(algorithm, p as isize);
    if is_all_reduce {
        for (d, blocks) in all.iter().rev() {
            step(runs(&mut blocks.iter().map(|by| by - d)), at(-d), runs(&mut blocks.iter().copied()));
        }
    }
    for (d, blocks) in &all {
        step(runs(&mut blocks.iter().copied()), at(*d), runs(&mut blocks.iter().map(|by| by - d)));
    }
    turns
}

/// The same of an all-reduce by halving and doubling, in as many blocks as ranks do not rest.
fn halving_turns(p: usize, rank: usize) -> Vec<Turn> {
    let size = 1 << p.ilog2();
    let resting = p - size;
    let all = || (0..size).collect::<Vec<_>>();
    let has_partner = rank < 2 * resting;
    if has_partner && rank % 2 == 1 {
        return vec![Turn::Send { to: rank - 1, blocks: all() }, Turn::Receive { blocks: all() }];
    }
    let number = if has_partner { rank / 2 } else { rank - resting };
    let member = |number| if number < resting { 2 * number } else { number + resting };
    let mut turns = Vec::new();
    if has_partner {
        turns.push(Turn::Receive { blocks: all() });
    }
    let distances = || (0..size.ilog2()).map(|bit| 1 << bit);
    // Of `d` blocks, those that a number keeps.
    let kept = |number: usize, d: usize| (number / d * d..number / d * d + d).collect::<Vec<_>>();
    for d in distances().rev() {
        let partner = number ^ d;
        turns.push(Turn::Send { to: member(partner), blocks: kept(partner, d) });
        turns.push(Turn::Receive { blocks: kept(number, d) });
    }
    for d in distances() {
        let partner = number ^ d;
        turns.push(Turn::Send { to: member(partner), blocks: kept(number, d) });
        turns.push(Turn::Receive { blocks: kept(partner, d) });
    }
    if has_partner {
        turns.push(Turn::Send { to: rank + 1, blocks: all() });
    }
    turns
}

/// A call.
pub(super) struct Walk {
    pub(super) algorithm: &'static str,
    pub(super) is_all_reduce: bool,
    pub(super) ranks: usize,
    pub(super) block_ps: u64,
    /// How many sends and receives a rank has under way at most.
    pub(super) window: u32,
}

impl Walk {
    /// Steps one after the other.
    pub(super) fn steps(&self) -> usize {
        if self.algorithm == "halving-doubling" {
            return 2 * self.ranks.ilog2() as usize + 2;
        }
        let steps = steps(self.algorithm, self.ranks as isize).len();
        if self.is_all_reduce { 2 * steps } else { steps }
    }

    fn members(&self) -> Vec<Member> {
        let turns = |rank| match self.algorithm {
            "halving-doubling" => halving_turns(self.ranks, rank),
            _ => turns(self.algorithm, self.is_all_reduce, self.ranks, rank),
        };
        let member = |rank| Member {
            turns: turns(rank),
            missing: vec![0; self.ranks],
            leaving: vec![0; self.ranks],
            ..Member::default()
        };
        (0..self.ranks).map(member).collect()
    }
}

/// One rank of a recurrence.
#[derive(Default)]
struct Member {
    turns: Vec<Turn>,
    next: usize,
    /// Sends that are not sent, and receives that have not come.
    under_way: u32,
    /// By block: messages of it that it waits for, less those that came before.
    missing: Vec<i32>,
    /// By block: messages of it that have not left.
    leaving: Vec<u32>,
    sending_free_ps: u64,
    receiving_free_ps: u64,
}

impl Member {
    /// Takes the turns that it can take, one after the other: each once its blocks are complete, those of a receive have
    /// left, and fewer than `window` are under way. The sends among them.
    fn proceed(&mut self, window: u32) -> Vec<(usize, Vec<usize>)> {
        let Member { turns, next, under_way, missing, leaving, .. } = self;
        let mut sends = Vec::new();
        while let Some(turn) = turns.get(*next).filter(|_| *under_way < window) {
            let (Turn::Send { blocks, .. } | Turn::Receive { blocks }) = turn;
            let is_receive = matches!(turn, Turn::Receive { .. });
            if blocks.iter().any(|&block| missing[block] > 0 || (is_receive && leaving[block] > 0)) {
                break;
            }
            *next += 1;
            if let Turn::Send { to, blocks } = turn {
                blocks.iter().for_each(|&block| leaving[block] += 1);
                *under_way += 1;
                sends.push((*to, blocks.clone()));
            } else {
                blocks.iter().for_each(|&block| missing[block] += 1);
                *under_way += u32::from(missing[blocks[0]] > 0);
            }
        }
        sends
    }

    fn has_sent(&mut self, blocks: &[usize]) {
        blocks.iter().for_each(|&block| self.leaving[block] -= 1);
        self.under_way -= 1;
    }

    fn has_received(&mut self, blocks: &[usize]) {
        self.under_way -= u32::from(self.missing[blocks[0]] > 0);
        blocks.iter().for_each(|&block| self.missing[block] -= 1);
    }
}

/// What happens to the blocks of a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    ReachesPort,
    IsThere,
    IsSent,
}

/// Max-plus, in order of time: a port sends one message after the other, and takes them in the order their heads reach it.
pub(super) fn queued_ps(walk: &Walk) -> u64 {
    let mut members = walk.members();
    // Time, order, rank, what happens to which blocks.
    let mut events: BTreeSet<(u64, u64, usize, Happens, Vec<usize>)> = BTreeSet::new();
    let (mut order, mut now_ps) = (0_u64, 0);
    let mut woken: Vec<usize> = (0..walk.ranks).collect();
    loop {
        for rank in woken.drain(..) {
            let member = &mut members[rank];
            for (to, blocks) in member.proceed(walk.window) {
                let start_ps = now_ps.max(member.sending_free_ps);
                member.sending_free_ps = start_ps + blocks.len() as u64 * walk.block_ps;
                order += 2;
                events.insert((start_ps + LATENCY_PS, order, to, Happens::ReachesPort, blocks.clone()));
                events.insert((member.sending_free_ps, order + 1, rank, Happens::IsSent, blocks));
            }
        }
        let Some(&(time_ps, ..)) = events.first() else { return now_ps };
        now_ps = time_ps;
        while events.first().is_some_and(|event| event.0 == now_ps) {
            let Some((_, _, rank, happens, blocks)) = events.pop_first() else { break };
            let member = &mut members[rank];
            match happens {
                Happens::ReachesPort => {
                    let begin_ps = now_ps.max(member.receiving_free_ps);
                    member.receiving_free_ps = begin_ps + blocks.len() as u64 * walk.block_ps;
                    order += 2;
                    events.insert((member.receiving_free_ps, order, rank, Happens::IsThere, blocks));
                    continue;
                }
                Happens::IsThere => member.has_received(&blocks),
                Happens::IsSent => member.has_sent(&blocks),
            }
            woken.push(rank);
        }
        woken.sort_unstable();
        woken.dedup();
    }
}

/// Blocks on their way from a rank to another, as a fluid.
struct Flow {
    from: usize,
    to: usize,
    blocks: Vec<usize>,
    /// What is left at `since_ps`, in picoseconds of a whole port.
    left_ps: f64,
    since_ps: f64,
    /// Of a port.
    rate: f64,
}

impl Flow {
    fn end_ps(&self) -> f64 {
        self.since_ps + self.left_ps / self.rate
    }
}

/// Gives each flow the rate that is max-min fair: the ports that have least for each of their flows give them that, then
/// the others share out what they have left, and so on.
fn share_fairly(flows: &mut [Flow], ranks: usize, now_ps: f64) {
    // Out of rank 0, of rank 1, …, into rank 0, …
    let ports = |flow: &Flow| [flow.from, ranks + flow.to];
    let (mut left, mut open) = (vec![1.0_f64; 2 * ranks], vec![0_u32; 2 * ranks]);
    flows.iter().flat_map(ports).for_each(|port| open[port] += 1);
    let mut rates = vec![0.0; flows.len()];
    let mut waiting: Vec<usize> = (0..flows.len()).collect();
    while !waiting.is_empty() {
        let share = |port: usize| left[port] / f64::from(open[port]);
        let fair = |flow: &usize| ports(&flows[*flow]).map(share).into_iter().fold(f64::MAX, f64::min);
        let least = waiting.iter().map(fair).fold(f64::MAX, f64::min);
        let (fixed, others): (Vec<usize>, Vec<usize>) =
            waiting.iter().partition(|flow| fair(flow) <= least * (1.0 + 1e-12));
        for flow in fixed {
            rates[flow] = least;
            for port in ports(&flows[flow]) {
                left[port] -= least;
                open[port] -= 1;
            }
        }
        waiting = others;
    }
    for (flow, rate) in flows.iter_mut().zip(rates) {
        if rate != flow.rate {
            flow.left_ps -= flow.rate * (now_ps - flow.since_ps);
            (flow.since_ps, flow.rate) = (now_ps, rate);
        }
    }
}

/// Max-min fair: messages from one rank to another follow each other, all others share the ports that they leave by and
/// come in by; the last byte is there a latency after it left.
pub(super) fn shared_ps(walk: &Walk) -> f64 {
    /// What is nearer is at the same time: less than a picosecond, more than the arithmetic's error.
    const SAME_PS: f64 = 1e-3;
    let begins = |from, to, blocks: Vec<usize>, now_ps| {
        let left_ps = (blocks.len() as u64 * walk.block_ps) as f64;
        Flow { from, to, blocks, left_ps, since_ps: now_ps, rate: 0.0 }
    };
    let mut members = walk.members();
    let mut flows: Vec<Flow> = Vec::new();
    // By sender and receiver: messages behind the one that is on its way.
    let mut behind: BTreeMap<(usize, usize), VecDeque<Vec<usize>>> = BTreeMap::new();
    // In the order in which they left: when, to whom, and what.
    let mut arrivals: VecDeque<(f64, usize, Vec<usize>)> = VecDeque::new();
    let mut now_ps = 0.0_f64;
    let mut woken: Vec<usize> = (0..walk.ranks).collect();
    loop {
        for rank in woken.drain(..) {
            for (to, blocks) in members[rank].proceed(walk.window) {
                match behind.get_mut(&(rank, to)) {
                    Some(line) => line.push_back(blocks),
                    None => {
                        behind.insert((rank, to), VecDeque::new());
                        flows.push(begins(rank, to, blocks, now_ps));
                    }
                }
            }
        }
        share_fairly(&mut flows, walk.ranks, now_ps);
        let left_ps = flows.iter().map(Flow::end_ps).fold(f64::MAX, f64::min);
        let next_ps = arrivals.front().map_or(left_ps, |arrival| arrival.0.min(left_ps));
        if next_ps == f64::MAX {
            return now_ps;
        }
        now_ps = next_ps;
        let (ended, others): (Vec<Flow>, Vec<Flow>) =
            flows.into_iter().partition(|flow| flow.end_ps() <= now_ps + SAME_PS);
        flows = others;
        for Flow { from, to, blocks, .. } in ended {
            members[from].has_sent(&blocks);
            arrivals.push_back((now_ps + LATENCY_PS as f64, to, blocks));
            woken.push(from);
            match behind.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
                Some(blocks) => flows.push(begins(from, to, blocks, now_ps)),
                None => drop(behind.remove(&(from, to))),
            }
        }
        while let Some((_, rank, blocks)) = arrivals.pop_front_if(|arrival| arrival.0 <= now_ps + SAME_PS) {
            members[rank].has_received(&blocks);
            woken.push(rank);
        }
        woken.sort_unstable();
        woken.dedup();
    }
}
