//! One piece's way through rounds of turns, each of which hangs on one that the round before brings.

use super::model::Model;
use super::predict::Parts;
use super::usage::{Usage, longer};
use ubccl_core::profile::Round;

/// In which bursts what a round brings is there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bursts {
    /// How many there are; 0 if what follows waits for all of it.
    pub(super) count: u32,
    /// What part of all each is, but the last, which is the rest.
    pub(super) part: f64,
    /// How many pieces come in them.
    pub(super) pieces: u32,
}

impl Bursts {
    /// Each of so many pieces for itself.
    pub(super) fn one_by_one(pieces: u32) -> Self {
        Bursts { count: pieces, part: 1.0 / f64::from(pieces.max(1)), pieces }
    }

    /// What part of all comes in a burst, counted from 1, and in those behind it.
    fn left(&self, burst: u32) -> f64 {
        1.0 - f64::from(burst - 1) * self.part
    }
}

/// How far one piece is on its way through the rounds, as one of many ranks that all do alike sees it.
pub(super) struct Line<'a> {
    model: &'a Model,
    /// When all that the last round brings is there, and when the last of its turns could begin.
    pub(super) end: Usage,
    last: Usage,
    /// When it began, what it does, and in which bursts what it brings is there.
    start: Usage,
    parts: Parts,
    brings: Bursts,
    /// When its messages have left, and how many steps and receives it is.
    through: Usage,
    steps: [f64; 2],
    /// When each port is free.
    ports: Vec<Usage>,
}

impl<'a> Line<'a> {
    pub(super) fn new(model: &'a Model) -> Self {
        let [end, last, start, through] = [Usage::default(); 4];
        let ports = vec![Usage::default(); usize::from(model.ports())];
        let (parts, brings) = (Parts::default(), Bursts::default());
        Line { model, end, last, start, parts, brings, through, steps: [0.0; 2], ports }
    }

    /// Rounds that hang on all of what was before; `queue` times as much stands before each at its port.
    pub(super) fn follow(&mut self, parts: &Parts, times: f64, queue: f64) {
        for part in [&parts.latency, &parts.port, &parts.rank] {
            self.end.add(part, times);
        }
        self.end.add(&parts.port, times * queue);
        (self.last, self.brings, self.steps) = (self.end, Bursts::default(), [0.0; 2]);
        self.ports.fill(self.end);
    }

    /// All that follows waits.
    pub(super) fn wait(&mut self, wait: &Usage) {
        [&mut self.end, &mut self.last]
            .into_iter()
            .chain(&mut self.ports)
            .for_each(|time| time.add(wait, 1.0));
    }

    /// When a burst of what the last round brings is there, of which a turn takes at least such a part.
    fn comes(&self, burst: u32, turn: f64) -> Usage {
        if burst >= self.brings.count {
            return self.end;
        }
        let part = turn.max(f64::from(burst) * self.brings.part);
        let came = self.start.plus(&self.parts.latency, 1.0);
        // Reductions and copies of what came before go on beside the messages.
        let [port, rank] = [&self.parts.port, &self.parts.rank].map(|work| Usage::default().plus(work, part));
        let one = self.brings.part;
        longer(self.model, port.plus(&self.parts.rank, one), rank.plus(&self.parts.port, one))
            .plus(&came, 1.0)
    }

    /// When a lane comes to a round: no more steps of the one before are under way then than it may have. Sends make room as they
    /// leave, receives a latency later.
    fn posted(&self, round: &Round) -> Usage {
        if !round.behind {
            return Usage::default();
        }
        let ([steps, receives], window) = (self.steps, f64::from(round.lane_window));
        // Some sends and some receives, or all that is left are receives.
        [steps, receives].into_iter().filter(|all| *all > window).fold(Usage::default(), |latest, all| {
            let over = self.through.plus(&self.parts.port, -window / all);
            longer(self.model, latest, over.plus(&self.parts.latency, receives / all))
        })
    }

    /// When the last turn of a round has left at the earliest: it stands in its lane behind what the others receive, of which as
    /// many as the lane may have under way take a latency. Only where a port passes one after the other: where it passes some at
    /// once, a turn's part of what it does is not the turn's alone.
    fn starved(&self, start: Usage, parts: &Parts, round: &Round, turn: f64) -> Usage {
        if round.lane_window == 0 || self.model.at_once.is_some() {
            return start;
        }
        let before = f64::from(round.steps - round.sends) * (1.0 - turn);
        let waits = (before / f64::from(round.lane_window)).floor();
        start.plus(&parts.latency, waits).plus(&parts.port, turn)
    }

    /// A round of turns that hang on what the round before brings, in its order. A turn that has to wait holds up those
    /// behind it.
    pub(super) fn flow(&mut self, parts: &Parts, round: &Round, brings: Bursts) {
        let model = self.model;
        let turn = 1.0 / f64::from(round.turns.max(1));
        let is_free = round.leads && round.turns == 1;
        // When what the first turn that hangs on anything hangs on is there.
        let first = if is_free { Usage::default() } else { self.comes(1, turn) };
        let start = if round.leads { self.last } else { longer(model, self.last, first) };
        let start = longer(model, start, self.posted(round));
        let hung = if round.leads { 1.0 - turn } else { 1.0 };
        // Of a burst, as much as hangs on it and on those behind it.
        let hung_on = |burst: u32| match burst {
            1 => hung,
            _ => turn.max(hung.min(turn * f64::from(self.brings.pieces)) * self.brings.left(burst)),
        };
        // Bursts are alike, but the last: those between the first and these are never the latest.
        let last = self.brings.count.max(1);
        let bursts = [1, last.saturating_sub(1).max(1), last].map(|burst| match is_free {
            true => (Usage::default(), 0.0),
            false => (self.comes(burst, turn), hung_on(burst)),
        });
        let mut through = self.starved(start, parts, round, turn);
        for (port, free) in (0..).zip(&mut self.ports) {
            let work = parts.ports.of_port(model, port);
            if work == Usage::default() {
                continue;
            }
            let all = longer(model, start, *free).plus(&work, 1.0);
            *free = bursts
                .iter()
                .fold(all, |latest, (there, part)| longer(model, latest, there.plus(&work, *part)));
            through = longer(model, through, *free);
        }
        // Reductions and copies of what came first go on beside the messages.
        let brought = 1.0 / f64::from(brings.count.max(1));
        let done = through.plus(&parts.latency, 1.0).plus(&parts.rank, brought);
        let worked = start.plus(&parts.port, brought).plus(&parts.latency, 1.0).plus(&parts.rank, 1.0);
        (self.start, self.parts, self.brings, self.through) = (start, *parts, brings, through);
        self.steps = [round.steps, round.steps - round.sends].map(f64::from);
        self.last = longer(model, start, if is_free { Usage::default() } else { self.end });
        self.end = [done, worked].into_iter().fold(self.end, |latest, other| longer(model, latest, other));
    }
}
