//! Whether a mutant behaves like the plans it was made from, decided by running it: many schedules, moving element by
//! element, and no check of any order. For tests of the verifier; nothing here looks at hazards, matchings or edges
//! but to obey them.
//!
//! A send may read its slice at any moment between its post and its completion, a receive may write as long. Messages are
//! buffered, or each waits until the one before it on its channel was taken, and its send until the step that takes it
//! has completed. Schedules hold back one step at a time as long as anything else can move,
//! or pick at random, by fixed random priorities or anew each time.

use super::flat::{Flat, NONE};
use super::mutate::Random;
use crate::collective::{Collective, Rank};
use crate::kind::Kind;
use crate::plan::{Association, MAX_LANES, Plan};
use crate::symbolic::Value;
use std::collections::BTreeMap;

/// Schedules by chance, beside those that hold back each step of the changed rank.
const RANDOM_SCHEDULES: usize = 24;
/// At most so many steps are held back, picked at random if there are more.
const HELD_BACK: usize = 160;

/// Whether `mutant`, which differs from `original` in the plan of `changed`, gave for these calls under every schedule tried what
/// `original` gives: same values, same expressions, inputs unchanged, no step stuck, no message left; and as a barrier
/// still holds every rank. Where the order of combination is the algorithm's own, another one is as good, if it is the
/// same everywhere and always.
pub fn equivalent<'a>(
    original: &[Plan],
    mutant: &[Plan],
    calls: &dyn Fn(Rank) -> Collective<'a>,
    changed: Rank,
    random: &mut Random,
) -> bool {
    let ranks = original.len() as u32;
    let (plans, mutants) = (|r: Rank| original[r as usize].clone(), |r: Rank| mutant[r as usize].clone());
    let all: Vec<_> = (0..ranks).map(calls).collect();
    let calls = |r: Rank| all[r as usize];
    let flat = Flat::new(&plans, &calls, ranks).expect("real plans have form");
    // What names no memory or no rank cannot be run at all.
    let Ok(mutant) = Flat::new(&mutants, &calls, ranks) else { return false };
    let wanted = Execution::run(&flat, Schedule::new(random.bits())).expect("real plans run");
    let wanted = match flat.association {
        Association::Own => match Execution::run(&mutant, Schedule::new(random.bits())) {
            Some(found) if same_but_for_order(&wanted, &found, ranks) => found,
            _ => return false,
        },
        _ => wanted,
    };
    let same = |schedule| Execution::run(&mutant, schedule).as_ref() == Some(&wanted);
    schedules(&mutant, changed, random).into_iter().all(same) && holds_as_barrier(&mutant, random)
}

/// Whether everything is the same but for the expressions of reductions, and these are the same as each other where they
/// were.
fn same_but_for_order(wanted: &[Vec<Value>], found: &[Vec<Value>], ranks: u32) -> bool {
    let mut orders = BTreeMap::new();
    let pairs = wanted.iter().flatten().zip(found.iter().flatten());
    wanted.iter().map(Vec::len).eq(found.iter().map(Vec::len))
        && pairs.into_iter().all(|(wanted, found)| {
            if !wanted.is_reduction(ranks) {
                return wanted == found;
            }
            let order = *orders.entry((wanted.expression, wanted.origin)).or_insert(found.expression);
            *found == Value { expression: order, ..*wanted }
        })
}

/// Whether plans give the same for these calls under every schedule tried.
pub fn stable<'a>(plans: &[Plan], calls: &dyn Fn(Rank) -> Collective<'a>, random: &mut Random) -> bool {
    (0..plans.len() as u32).all(|rank| equivalent(plans, plans, calls, rank, random))
}

fn schedules(flat: &Flat, changed: Rank, random: &mut Random) -> Vec<Schedule> {
    let mut schedules = Vec::new();
    for k in 0..RANDOM_SCHEDULES {
        let fixed = k % 2 == 0;
        schedules.push(Schedule { eager: k % 4 < 2, fixed, ..Schedule::new(random.bits()) });
    }
    let mut steps: Vec<u32> = flat.steps_of(changed).map(|step| step as u32).collect();
    while steps.len() > HELD_BACK {
        steps.swap_remove(random.below(steps.len()));
    }
    for step in steps {
        for (eager, first_bite) in [(true, false), (false, false), (true, true)] {
            let held_back = Some((step, first_bite));
            schedules.push(Schedule { eager, held_back, fixed: true, ..Schedule::new(random.bits()) });
        }
    }
    schedules
}

/// With one rank absent, nobody else may come to the end.
fn holds_as_barrier(flat: &Flat, random: &mut Random) -> bool {
    flat.specs[0].kind != Kind::Barrier
        || (0..flat.ranks).all(|absent| {
            let mut execution = Execution::new(flat, Schedule::new(random.bits()), Some(absent));
            while execution.advance() {}
            (0..flat.ranks).all(|rank| rank == absent || !execution.is_done(rank))
        })
}

/// Who goes first.
#[derive(Clone)]
struct Schedule {
    seed: u64,
    /// Whether messages are buffered.
    eager: bool,
    /// Whether a step keeps its priority.
    fixed: bool,
    /// A step that moves only if nothing else can, and whether its first bite is free.
    held_back: Option<(u32, bool)>,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        Schedule { seed, eager: true, fixed: false, held_back: None }
    }
}

/// What can happen next.
#[derive(Clone, Copy)]
enum Move {
    /// The lane's next step is posted.
    Post(usize),
    /// An element of a posted send goes into a message.
    Fill(u32, u32),
    /// An element of a posted receive is written.
    Write(u32),
    /// A step completes.
    Complete(u32),
}

#[derive(Default)]
struct Message {
    sender: Option<u32>,
    receiver: Option<u32>,
    /// The one before it on its channel.
    before: Option<u32>,
    values: Vec<Value>,
}

#[derive(Clone, Default)]
struct Progress {
    posted: bool,
    done: bool,
    written: u64,
    /// Numbers of messages; `None` stands for the rank's own slice.
    messages: Vec<Option<u32>>,
}

struct Execution<'a> {
    flat: &'a Flat<'a>,
    schedule: Schedule,
    random: Random,
    absent: Option<Rank>,
    memories: Vec<Vec<Value>>,
    steps: Vec<Progress>,
    next: Vec<u32>,
    active: Vec<u32>,
    messages: Vec<Message>,
    /// Per sender, receiver and lane: its messages, and how many were sent and received.
    channels: Vec<(Vec<u32>, [usize; 2])>,
    failed: bool,
}

impl<'a> Execution<'a> {
    /// What the callers' buffers hold at the end, or `None` if there is no good end.
    fn run(flat: &'a Flat<'a>, schedule: Schedule) -> Option<Vec<Vec<Value>>> {
        let mut execution = Execution::new(flat, schedule, None);
        while !execution.failed && execution.advance() {}
        let left = execution.messages.iter().any(|message| message.receiver.is_none());
        let all = (0..flat.ranks).all(|rank| execution.is_done(rank));
        if execution.failed || left || !all {
            return None;
        }
        for (memory, layout) in execution.memories.iter_mut().zip(&flat.layouts) {
            memory.truncate(layout.scratch.start as usize);
        }
        Some(execution.memories)
    }

    fn new(flat: &'a Flat<'a>, schedule: Schedule, absent: Option<Rank>) -> Self {
        let memory = |rank: Rank| {
            let layout = &flat.layouts[rank as usize];
            let initial = |element: u64| match layout.input.contains(&element) {
                true => Value::contribution(rank, flat.ranks, element - layout.input.start),
                false => Value::UNWRITTEN,
            };
            (0..layout.len()).map(initial).collect()
        };
        let pairs = (flat.ranks * flat.ranks) as usize * MAX_LANES;
        Execution {
            flat,
            random: Random(schedule.seed),
            schedule,
            absent,
            memories: (0..flat.ranks).map(memory).collect(),
            steps: vec![Progress::default(); flat.total()],
            next: flat.lanes.iter().map(|lane| lane.steps.start).collect(),
            active: Vec::new(),
            messages: Vec::new(),
            channels: vec![Default::default(); pairs],
            failed: false,
        }
    }

    fn is_done(&self, rank: Rank) -> bool {
        self.flat.steps_of(rank).all(|step| self.steps[step].done)
    }

    /// Makes one move; whether there was one.
    fn advance(&mut self) -> bool {
        let posts = (0..self.next.len()).filter(|&lane| self.may_post(lane)).map(Move::Post);
        let others = self.active.iter().filter_map(|&step| self.next_move(step));
        let moves: Vec<Move> = posts.chain(others).collect();
        let Some(&chosen) = moves.iter().max_by_key(|&&m| self.priority(m)) else { return false };
        self.random.bits();
        match chosen {
            Move::Post(lane) => self.post(lane),
            Move::Fill(step, message) => self.fill(step, message),
            Move::Write(step) => self.write(step),
            Move::Complete(step) => {
                self.steps[step as usize].done = true;
                self.active.retain(|&other| other != step);
            }
        }
        true
    }

    fn priority(&self, chosen: Move) -> u64 {
        let (step, kind) = match chosen {
            Move::Post(lane) => (self.next[lane], 0),
            Move::Fill(step, message) => (step, 3 + u64::from(message)),
            Move::Write(step) => (step, 1),
            Move::Complete(step) => (step, 2),
        };
        if let Some((held, first_bite)) = self.schedule.held_back
            && held == step
            && kind != 0
            && !(first_bite && self.untouched(step))
        {
            return 0;
        }
        let seed = if self.schedule.fixed { self.schedule.seed } else { self.random.0 };
        Random(seed ^ (u64::from(step) << 32 | kind)).bits() | 1
    }

    fn untouched(&self, step: u32) -> bool {
        let progress = &self.steps[step as usize];
        let mut messages =
            progress.messages.iter().flatten().map(|&message| &self.messages[message as usize]);
        progress.written == 0
            && (!self.flat.steps[step as usize].sends || messages.all(|message| message.values.is_empty()))
    }

    fn may_post(&self, lane: usize) -> bool {
        let (flat, step) = (self.flat, self.next[lane]);
        let steps = &flat.lanes[lane].steps;
        let under_way = || (steps.start..step).filter(|&s| !self.steps[s as usize].done).count() as u32;
        step < steps.end
            && Some(flat.owner(step).0) != self.absent
            && under_way() < flat.lanes[lane].window
            && flat.arrows[flat.arrows_of(step)].iter().all(|arrow| self.steps[arrow.target as usize].done)
    }

    fn post(&mut self, lane: usize) {
        let (flat, step) = (self.flat, self.next[lane]);
        self.next[lane] += 1;
        let rank = flat.owner(step).0;
        // A group's messages share one lane of the endpoint.
        let is_group = flat.specs[0].kind == Kind::Group;
        let lane_of_rank = if is_group { 0 } else { lane - flat.lanes_of(rank).start };
        let sends = flat.steps[step as usize].sends;
        for entry in flat.entries_of(step) {
            let peer = flat.entries[entry].peer;
            let message = (peer != rank).then(|| {
                let (from, to) = if sends { (rank, peer) } else { (peer, rank) };
                let pair = (from * flat.ranks + to) as usize * MAX_LANES + lane_of_rank;
                self.meet(pair, step, sends)
            });
            self.steps[step as usize].messages.push(message);
        }
        self.steps[step as usize].posted = true;
        self.active.push(step);
    }

    /// The step's next message of a channel.
    fn meet(&mut self, pair: usize, step: u32, sends: bool) -> u32 {
        let (messages, counts) = &mut self.channels[pair];
        let ordinal = counts[usize::from(sends)];
        counts[usize::from(sends)] += 1;
        if ordinal == messages.len() {
            let before = messages.last().copied();
            messages.push(self.messages.len() as u32);
            self.messages.push(Message { before, ..Message::default() });
        }
        let number = messages[ordinal];
        let message = &mut self.messages[number as usize];
        *if sends { &mut message.sender } else { &mut message.receiver } = Some(step);
        if let (Some(send), Some(receive)) = (message.sender, message.receiver) {
            self.failed |= self.flat.steps[send as usize].len != self.flat.steps[receive as usize].len;
        }
        number
    }

    fn next_move(&self, step: u32) -> Option<Move> {
        let now = &self.flat.steps[step as usize];
        let progress = &self.steps[step as usize];
        let messages = || progress.messages.iter().flatten().map(|&m| (m, &self.messages[m as usize]));
        if now.sends {
            let open = |message: &Message| self.schedule.eager || self.is_open(message);
            let mut fill = messages().filter(|(_, m)| (m.values.len() as u64) < now.len && open(m));
            if let Some((number, _)) = fill.next() {
                return Some(Move::Fill(step, number));
            }
            let is_taken = |m: &Message| self.schedule.eager || self.is_taken(m);
            let full = |m: &Message| m.values.len() as u64 == now.len && is_taken(m);
            return messages().all(|(_, m)| full(m)).then_some(Move::Complete(step));
        }
        if !self.schedule.eager && !messages().all(|(_, m)| self.is_open(m)) {
            return None;
        }
        if progress.written < now.len {
            let there = messages().all(|(_, m)| m.values.len() as u64 > progress.written);
            return there.then_some(Move::Write(step));
        }
        messages().all(|(_, m)| m.sender.is_some()).then_some(Move::Complete(step))
    }

    /// Whether both sides are there and the channel's message before was taken, unless the same step takes both.
    fn is_open(&self, message: &Message) -> bool {
        let before = message.before.map(|before| &self.messages[before as usize]);
        message.receiver.is_some()
            && message.sender.is_some()
            && before.is_none_or(|before| before.receiver == message.receiver || self.is_taken(before))
    }

    fn is_taken(&self, message: &Message) -> bool {
        message.receiver.is_some_and(|receiver| self.steps[receiver as usize].done)
    }

    fn fill(&mut self, step: u32, message: u32) {
        let rank = self.flat.owner(step).0 as usize;
        let values = &mut self.messages[message as usize].values;
        let element = self.flat.steps[step as usize].read + values.len() as u64;
        values.push(self.memories[rank][element as usize]);
    }

    fn write(&mut self, step: u32) {
        let now = self.flat.steps[step as usize];
        let rank = self.flat.owner(step).0;
        let progress = &self.steps[step as usize];
        let (element, memory) = (progress.written, &self.memories[rank as usize]);
        let parts = progress.messages.iter().map(|message| match message {
            Some(message) => self.messages[*message as usize].values[element as usize],
            None => memory[(now.read + element) as usize],
        });
        let value = Value::reduction(parts, self.flat.ranks);
        debug_assert!(now.write != NONE);
        self.memories[rank as usize][(now.write + element) as usize] = value;
        self.steps[step as usize].written += 1;
    }
}
