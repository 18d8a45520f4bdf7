//! Plans written as a list of messages about ranges of a vector; where they lie in memory, and what has to wait for what,
//! follows.
//!
//! A schedule is one rank's. The vector is what is reduced (all-reduce, reduce-scatter, reduce) or handed round
//! (all-gather, broadcast); it is cut into the cells of a [`Grid`]. Each cell is held somewhere: at first in the input,
//! where this rank has it, later where the last reduction or receive put it. Edges are made from who touched a cell
//! before. Phases are lanes: with chunks, one phase of a chunk overlaps another phase of another.

mod counted;
mod grid;
mod marks;
mod orders;
mod peers;
mod profiles;
mod touched;

pub(crate) use grid::Grid;
pub(crate) use profiles::profile;

use counted::Counted;
use marks::Marks;
use orders::Orders;
use peers::{fixed, lists, progression};
use std::collections::BTreeSet;
use std::ops::Range;
use touched::Touched;
use ubccl_core::plan::{
    Association, Buffer, Cut, Index, MAX_LISTED_PEERS, Plan, PlanBuilder, Shape, Slice, StepId, Trips,
};
use ubccl_core::profile::Round;
use ubccl_core::{Kind, Layout, Rank, Spec};

/// Where a cell is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// This rank has nothing of it.
    Nowhere,
    Input,
    Output,
    Scratch,
}

/// See the module.
pub(crate) struct Schedule<'a> {
    plan: PlanBuilder,
    spec: Spec,
    layout: &'a Layout,
    grid: Grid,
    /// Where each cell of the vector is held.
    places: Vec<Place>,
    /// Per memory: input, output, scratch.
    touched: [Touched; 3],
    /// Per lane, per step: whether the lane has waited for it.
    known: Vec<Vec<bool>>,
    needs_scratch: bool,
    rounds: Vec<Round>,
    /// What comes in each of them; they say what goes.
    taken: Vec<Round>,
    /// To whom this rank gave and from whom it took in each round so far.
    met: BTreeSet<(bool, usize, Rank)>,
    /// How far it sends, if it has no root.
    distances: Counted,
    /// How many rounds there were when each lane began, and when each phase did.
    stages: Vec<usize>,
    phases: Vec<usize>,
    /// How many steps the last lane may have under way.
    window: u32,
    /// Which of the rounds messages are part of.
    now: usize,
    /// The next round, if it is not a new one.
    beside: Option<usize>,
    /// Per cell: how many messages, one after the other, brought it to what it is.
    depths: Vec<usize>,
    orders: Orders,
    chunked: bool,
    /// If pieces go in the order in which they are named: the cells that none of them goes on to from the one before.
    as_named: Option<Vec<u32>>,
    /// The last step so far, and its lane; and the one that other lanes wait for, and how many rounds were before it.
    last: Option<(usize, StepId)>,
    gate: Option<(usize, StepId)>,
    handed: usize,
}

impl<'a> Schedule<'a> {
    /// An empty schedule; the grid's cells are blocks of the call's longest buffer.
    pub(crate) fn new(
        spec: &Spec,
        name: &'static str,
        association: Association,
        layout: &'a Layout,
        grid: Grid,
    ) -> Self {
        let cells = grid.cells() as usize;
        let mut schedule = Schedule {
            plan: PlanBuilder::new(spec, name, association),
            spec: *spec,
            layout,
            grid,
            places: vec![Place::Nowhere; cells],
            touched: std::array::from_fn(|_| Touched::new()),
            known: Vec::new(),
            needs_scratch: false,
            rounds: Vec::new(),
            taken: Vec::new(),
            met: BTreeSet::new(),
            distances: Counted::default(),
            stages: Vec::new(),
            phases: Vec::new(),
            window: 0,
            now: 0,
            beside: None,
            depths: vec![0; cells],
            orders: Orders::new(cells),
            chunked: false,
            as_named: None,
            last: None,
            gate: None,
            handed: 0,
        };
        for cell in schedule.brought() {
            schedule.places[cell as usize] = Place::Input;
        }
        schedule
    }

    /// The cells that this rank brings.
    fn brought(&self) -> Range<u32> {
        match self.spec.kind {
            Kind::AllGather => self.own(),
            Kind::Broadcast if self.spec.root != Some(self.spec.rank) => 0..0,
            _ => 0..self.grid.cells(),
        }
    }

    /// The cells of this rank's block, where every rank has one.
    fn own(&self) -> Range<u32> {
        let per_rank = self.grid.cells() / self.spec.ranks;
        self.spec.rank * per_rank..(self.spec.rank + 1) * per_rank
    }

    pub(crate) fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Begins a phase: in a lane of its own, as long as the choice has any. Its steps loop over chunks, if there are.
    pub(crate) fn phase(&mut self, window: u32) {
        self.phases.push(self.rounds.len());
        if self.known.len() < usize::from(self.spec.choice.lanes.max(1)) {
            self.plan.lane(window);
            self.known.push(Vec::new());
            self.stages.push(self.rounds.len());
            self.window = window;
            self.begin_loop();
        }
    }

    fn begin_loop(&mut self) {
        let chunks = match self.chunk() {
            None => Trips::ONCE,
            Some(elements) => Trips::Chunks { shape: Shape::whole(self.longest()), elements },
        };
        self.plan.repeat(chunks, Trips::ONCE);
    }

    /// Has the vector cut into chunks first. To be said before the first phase.
    pub(crate) fn in_chunks(&mut self) {
        self.chunked = true;
    }

    /// Has cells sent in the order in which they are named, whatever their place in the vector. None of these, in order, is in
    /// one piece with the cell before: the two come at different times.
    pub(crate) fn as_named(&mut self, starts: Vec<u32>) {
        self.as_named = Some(starts);
    }

    /// All is handed out: has the lanes of later phases of the root wait for what this one has done so far of a chunk, though
    /// nothing they send hangs on it. Their messages would go first otherwise, and others wait for those of this phase.
    pub(crate) fn hold_back(&mut self) {
        self.handed = self.rounds.len();
        self.gate = self.last.filter(|_| self.spec.root == Some(self.spec.rank));
    }

    /// Elements of a chunk of the vector.
    fn chunk(&self) -> Option<u64> {
        self.chunked.then(|| self.spec.chunk_elements())
    }

    /// The call's longest buffer.
    fn longest(&self) -> Buffer {
        match self.spec.kind {
            Kind::AllGather | Kind::AllReduce | Kind::Broadcast => Buffer::Output,
            _ => Buffer::Input,
        }
    }

    /// The next messages, exchanges excepted, hang on all those before, but those that they are beside.
    pub(crate) fn round(&mut self) {
        let now = self.beside.unwrap_or(self.rounds.len());
        self.beside = self.beside.map(|round| round + 1);
        self.begin_round(now);
    }

    /// Does the same with each of these, and none of it hangs on what is done with another.
    pub(crate) fn for_each_beside<T>(
        &mut self,
        all: impl IntoIterator<Item = T>,
        mut one: impl FnMut(&mut Self, T),
    ) {
        let first = self.rounds.len();
        for each in all {
            self.beside = Some(first);
            one(self, each);
        }
        self.beside = None;
    }

    /// How many rounds there are.
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// The next messages, exchanges excepted, are part of round `now`.
    pub(crate) fn begin_round(&mut self, now: usize) {
        self.now = now;
        let last = self.rounds.len().max(now + 1);
        self.rounds.resize(last, Round { times: 1, ..Round::default() });
        self.taken.resize(last, Round { times: 1, ..Round::default() });
    }

    /// There have been so many rounds of messages between few, whether this rank took part or not: what follows hangs on
    /// all of them. Each is of other ranks, which go on with the next chunk meanwhile.
    pub(crate) fn settle(&mut self, rounds: usize) {
        let begun = self.stages.last().map_or(0, |&stage| stage + 1);
        self.stages.extend(begun..rounds);
        let rounds_now = self.rounds.len().max(rounds);
        self.rounds.resize(rounds_now, Round { times: 1, ..Round::default() });
        self.taken.resize(rounds_now, Round { times: 1, ..Round::default() });
        self.depths.fill(rounds);
    }

    /// Sends cells that this rank holds, to each of these ranks the same. The root of a broadcast has everything: what is
    /// sent to it is left out on both sides.
    pub(crate) fn send(&mut self, cells: &[Range<u32>], to: &[Rank]) {
        self.pieces(cells).iter().for_each(|piece| self.send_piece(piece, to));
    }

    /// Receives cells.
    pub(crate) fn receive(&mut self, cells: &[Range<u32>], from: Rank) {
        self.pieces(cells).iter().for_each(|piece| self.receive_piece(piece, from));
    }

    /// Folds what these ranks send into what this rank holds, in the order of ranks. All send the same cells.
    pub(crate) fn reduce(&mut self, cells: &[Range<u32>], from: &[Rank]) {
        self.pieces(cells).iter().for_each(|piece| self.reduce_piece(piece, from));
    }

    /// Sends and receives in turns, so that any number of messages fits into a window. All members do the same with
    /// their own neighbours: what comes is as many messages old as what goes.
    pub(crate) fn exchange(
        &mut self,
        (give, to): (&[Range<u32>], Rank),
        (take, from): (&[Range<u32>], Rank),
    ) {
        self.in_turns(
            give,
            take,
            |schedule, piece| schedule.send_piece(piece, &[to]),
            |schedule, piece| {
                schedule.receive_piece(piece, from);
            },
        );
    }

    /// The same, folding in what comes.
    pub(crate) fn exchange_reduce(
        &mut self,
        (give, to): (&[Range<u32>], Rank),
        (take, from): (&[Range<u32>], Rank),
    ) {
        self.in_turns(
            give,
            take,
            |schedule, piece| schedule.send_piece(piece, &[to]),
            |schedule, piece| {
                schedule.reduce_piece(piece, &[from]);
            },
        );
    }

    fn in_turns(
        &mut self,
        give: &[Range<u32>],
        take: &[Range<u32>],
        mut one: impl FnMut(&mut Self, &Range<u32>),
        mut other: impl FnMut(&mut Self, &Range<u32>),
    ) {
        let (give, take) = (self.pieces(give), self.pieces(take));
        let ages = give.iter().flat_map(|piece| &self.depths[piece.start as usize..piece.end as usize]);
        self.begin_round(ages.copied().max().unwrap_or(self.now));
        for turn in 0..give.len().max(take.len()) {
            give.get(turn).into_iter().for_each(|piece| one(self, piece));
            take.get(turn).into_iter().for_each(|piece| other(self, piece));
        }
    }

    fn send_piece(&mut self, piece: &Range<u32>, to: &[Rank]) {
        let to: Vec<Rank> = to.iter().copied().filter(|&peer| !self.needs_nothing(peer)).collect();
        if to.is_empty() {
            return;
        }
        self.turn(true, piece);
        self.orders.goes(self.now, (&self.depths, piece));
        to.iter().for_each(|&peer| self.account(true, peer, piece));
        let place = self.gather(piece);
        for peers in lists(&to, MAX_LISTED_PEERS) {
            let slice = self.slice(place, piece);
            let step = self.plan.send(slice, peers);
            self.order(step, &[(place, piece.clone())], None);
        }
    }

    /// Whether a rank has everything from the beginning.
    fn needs_nothing(&self, rank: Rank) -> bool {
        self.spec.kind == Kind::Broadcast && self.spec.root == Some(rank)
    }

    fn receive_piece(&mut self, piece: &Range<u32>, from: Rank) {
        if self.needs_nothing(self.spec.rank) {
            return self.age(piece);
        }
        self.turn(false, piece);
        self.account(false, from, piece);
        self.orders.comes(self.now, from, piece);
        let home = self.home_of(piece);
        let slice = self.slice(home, piece);
        let step = self.plan.receive(slice, fixed(from));
        self.order(step, &[], Some((home, piece.clone())));
        self.hold(home, piece);
        self.age(piece);
    }

    fn reduce_piece(&mut self, piece: &Range<u32>, from: &[Rank]) {
        let mut all = from.to_vec();
        all.push(self.spec.rank);
        all.sort_unstable();
        // More than a list holds, and no run: one list after the other.
        let some = if progression(&all).is_some() { all.len() } else { MAX_LISTED_PEERS - 1 };
        let now = self.now;
        for (list, some) in from.chunks(some).enumerate() {
            // A sum waits for the one before, and all that its lane does after it. Who sends as much has done so before.
            self.begin_round(if self.spec.root.is_some() { now + list } else { now });
            self.reduce_some(piece, some);
        }
        self.now = now;
    }

    fn reduce_some(&mut self, piece: &Range<u32>, from: &[Rank]) {
        self.turn(false, piece);
        from.iter().for_each(|&peer| self.account(false, peer, piece));
        from.iter().for_each(|&peer| self.orders.comes(self.now, peer, piece));
        let mut sources = from.to_vec();
        sources.push(self.spec.rank);
        sources.sort_unstable();
        let held = self.gather(piece);
        let home = self.home_of(piece);
        let (own, into) = (self.slice(held, piece), self.slice(home, piece));
        let mut lists = lists(&sources, MAX_LISTED_PEERS);
        let sources = lists.pop().expect("there are sources");
        debug_assert!(lists.is_empty(), "what is more than a list was cut before");
        let step = self.plan.receive_reduce(sources, own, into);
        self.order(step, &[(held, piece.clone())], Some((home, piece.clone())));
        self.hold(home, piece);
        self.age(piece);
        let (parts, of) = (piece.len() as u64 * from.len() as u64, u64::from(self.grid.cells()));
        if let Some(round) = self.rounds.get_mut(self.now) {
            round.reduced.parts += parts;
            round.reduced.of = of;
        }
    }

    /// Brings what this rank holds of its output to the output, if it is not there yet, and ends.
    pub(crate) fn finish(mut self) -> Plan {
        let result = match self.spec.kind {
            Kind::ReduceScatter => self.own(),
            Kind::Reduce if self.spec.root != Some(self.spec.rank) => 0..0,
            _ => 0..self.grid.cells(),
        };
        let is_here = |place: Place| matches!(place, Place::Input | Place::Scratch);
        let left: Vec<Range<u32>> =
            self.runs(result, |schedule, cell| is_here(schedule.places[cell as usize]));
        if !left.is_empty() && self.known.is_empty() {
            self.phase(64);
        }
        for piece in self.pieces(&left) {
            let from = self.places[piece.start as usize];
            if from == Place::Input && self.spec.in_place {
                continue;
            }
            self.copy(&piece, from, Place::Output);
        }
        if self.needs_scratch {
            self.plan.scratch(1, Shape::whole(Buffer::Input));
        }
        self.plan.finish()
    }

    /// One more turn of the round, that sends something or brings it. Of kinds with a root no rank does as all others do.
    fn turn(&mut self, gives: bool, piece: &Range<u32>) {
        let is_own = self.depths[piece.start as usize..piece.end as usize].iter().all(|&depth| depth == 0);
        let Some(round) = self.rounds.get_mut(self.now) else { return };
        round.steps += 1;
        round.sends += u32::from(gives);
        round.lane_window = self.window;
        round.behind = self.stages.last().is_some_and(|&first| first < self.now);
        match gives {
            _ if self.spec.root.is_some() => {}
            true => (round.leads, round.turns) = (round.leads || is_own && round.turns == 0, round.turns + 1),
            false => round.brings += 1,
        }
    }

    fn account(&mut self, gives: bool, peer: Rank, piece: &Range<u32>) {
        let level = self.layout.shared_level(self.spec.rank, peer);
        let of = u64::from(self.grid.cells());
        let rounds = if gives { &mut self.rounds } else { &mut self.taken };
        let Some(round) = rounds.get_mut(self.now) else { return };
        if gives {
            self.distances.add(self.now, (self.layout, &self.spec), peer, piece.len() as u64);
        }
        match self.met.insert((gives, self.now, peer)) {
            true => round.add(level, piece.len() as u64, of),
            false => round.add_another(level, piece.len() as u64, of),
        }
    }

    /// Runs of these cells, merged where they touch, cut where slices must be, and where memory ends; in their order, or in
    /// the order in which they are named first.
    pub(crate) fn pieces(&self, cells: &[Range<u32>]) -> Vec<Range<u32>> {
        if let [run] = cells {
            return self.grid.pieces(run.clone());
        }
        let mut marks = Marks::new(self.grid.cells());
        cells.iter().for_each(|run| marks.add(run));
        let runs = match &self.as_named {
            None => marks.runs().collect(),
            Some(starts) => marks.runs_as_named(cells, starts),
        };
        runs.into_iter().flat_map(|run| self.grid.pieces(run)).collect()
    }

    /// Maximal runs of the cells of `range` that `is_in`.
    fn runs(&self, range: Range<u32>, is_in: impl Fn(&Self, u32) -> bool) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for cell in range.filter(|&cell| is_in(self, cell)) {
            match runs.last_mut() {
                Some(last)
                    if last.end == cell && self.places[last.start as usize] == self.places[cell as usize] =>
                {
                    last.end += 1;
                }
                _ => runs.push(cell..cell + 1),
            }
        }
        runs
    }

    /// Where received and reduced cells go.
    fn home(&self) -> Place {
        match self.spec.kind {
            Kind::ReduceScatter => Place::Scratch,
            Kind::Reduce if self.spec.root != Some(self.spec.rank) => Place::Scratch,
            _ => Place::Output,
        }
    }

    /// The same, but of a reduce-scatter's result.
    fn home_of(&self, piece: &Range<u32>) -> Place {
        if self.spec.kind == Kind::ReduceScatter && *piece == self.own() {
            Place::Output
        } else {
            self.home()
        }
    }

    /// A message more has come.
    fn age(&mut self, piece: &Range<u32>) {
        let depths = &mut self.depths[piece.start as usize..piece.end as usize];
        depths.iter_mut().for_each(|depth| *depth = (*depth).max(self.now + 1));
    }

    fn hold(&mut self, place: Place, piece: &Range<u32>) {
        self.places[piece.start as usize..piece.end as usize].fill(place);
    }

    /// Brings cells that are held in several places to one; answers which.
    fn gather(&mut self, piece: &Range<u32>) -> Place {
        let first = self.places[piece.start as usize];
        let is_one = piece.clone().all(|cell| self.places[cell as usize] == first);
        debug_assert!(first != Place::Nowhere, "rank {} does not hold {piece:?}", self.spec.rank);
        if is_one {
            return first;
        }
        let home = self.home();
        for run in self.runs(piece.clone(), |schedule, cell| schedule.places[cell as usize] != home) {
            let from = self.places[run.start as usize];
            for part in self.grid.pieces(run) {
                match from == Place::Input && self.spec.in_place && home == Place::Output {
                    true => self.hold(home, &part), // the same memory
                    false => self.copy(&part, from, home),
                }
            }
        }
        home
    }

    fn copy(&mut self, piece: &Range<u32>, from: Place, into: Place) {
        let (source, target) = (self.slice(from, piece), self.slice(into, piece));
        let step = self.plan.copy(source, target);
        self.order(step, &[(from, piece.clone())], Some((into, piece.clone())));
        self.hold(into, piece);
        let (parts, of) = (piece.len() as u64, u64::from(self.grid.cells()));
        if let Some(round) = self.rounds.get_mut(self.now) {
            round.copied.parts += parts;
            round.copied.of = of;
        }
    }

    /// The memory of a piece.
    fn slice(&mut self, place: Place, piece: &Range<u32>) -> Slice {
        let mut cuts = Vec::new();
        cuts.extend(self.chunk().map(|elements| Cut::Chunk { elements, index: Index::OUTER }));
        let is_own = match (self.spec.kind, place) {
            // The rank's block is all of this buffer.
            (Kind::AllGather, Place::Input) | (Kind::ReduceScatter, Place::Output) => true,
            _ => false,
        };
        if is_own {
            debug_assert_eq!(*piece, self.own(), "a rank's own block is one piece");
        } else {
            cuts.extend(self.grid.cuts(piece));
        }
        match place {
            Place::Input => Shape { buffer: Buffer::Input, cuts }.into(),
            Place::Output => Shape { buffer: Buffer::Output, cuts }.into(),
            Place::Scratch => {
                self.needs_scratch = true;
                Slice::Scratch { slot: Index::fixed(0), shape: Shape::whole(Buffer::Input), part: cuts }
            }
            Place::Nowhere => unreachable!("a piece is held before it is read"),
        }
    }

    /// Has `step` wait for whatever touched the same memory before.
    fn order(&mut self, step: StepId, reads: &[(Place, Range<u32>)], write: Option<(Place, Range<u32>)>) {
        let mut wanted: Vec<StepId> = Vec::new();
        for (place, piece) in reads {
            self.memory(*place).read(piece, step, &mut wanted);
        }
        if let Some((place, piece)) = write {
            self.memory(place).write(&piece, step, &mut wanted);
        }
        let lane = self.known.len() - 1;
        wanted.extend(self.gate.filter(|gate| gate.0 != lane).map(|gate| gate.1));
        self.last = Some((lane, step));
        wanted.sort_unstable();
        wanted.dedup();
        for &earlier in wanted.iter().rev().filter(|&&earlier| earlier != step) {
            let known = &mut self.known[lane];
            known.resize(known.len().max(usize::from(earlier.0) + 1), false);
            if !std::mem::replace(&mut known[usize::from(earlier.0)], true) {
                self.plan.after(step, earlier);
            }
        }
    }

    fn memory(&mut self, place: Place) -> &mut Touched {
        // In place, what lies in both buffers is one memory.
        let place = if self.spec.in_place && place == Place::Output { Place::Input } else { place };
        let memory = match place {
            Place::Input => 0,
            Place::Output => 1,
            Place::Scratch => 2,
            Place::Nowhere => unreachable!("a piece is held before it is read"),
        };
        &mut self.touched[memory]
    }
}
