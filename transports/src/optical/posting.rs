//! Posts: what a rank starts, how a message meets a receive, and when a receive is over.

use super::events::{Kind, NO_LINK};
use super::network::{Message, Network, Send};
use super::payload::{Reduction, of_rank};
use super::seats::{Operation, Seat, SeatId};
use super::slab::NONE;
use ubccl_core::endpoint::{Fault, Header, Key, Post, Posted, Span, Stream, Token};
use ubccl_core::plan::PeerRun;
use ubccl_core::record::What;
use ubccl_core::{DataType, Error, Rank, ReduceOp};

/// A receive, a receive-reduce or a copy that is under way.
#[derive(Debug)]
pub(super) struct Receive {
    pub(super) seat: SeatId,
    state: State,
    pub(super) token: Token,
    header: Header,
    pub(super) into: Span,
    work: Work,
    /// The send that each source of a reduction brought; [`NONE`] for the own contribution and what is not there yet.
    sends: Vec<u32>,
    /// Messages that are not there yet.
    missing: u32,
    /// What folds or copies.
    engine: u8,
    /// Of its messages, those that switches fold into one on their way, and the number of that fold.
    folded: u32,
    fold: u64,
}

impl Receive {
    /// Its own contribution to a reduction.
    pub(super) fn own(&self) -> Option<Span> {
        match self.work {
            Work::Reduce { own, .. } => Some(own),
            Work::Nothing | Work::Copy { .. } => None,
        }
    }

    /// What switches fold for it: the fold's number, and of how many messages.
    pub(super) fn fold(&self) -> Option<(u64, u32)> {
        (self.folded > 1).then_some((self.fold, self.folded))
    }

    /// One of them comes by itself; how many are left.
    pub(super) fn fold_fewer(&mut self) -> u32 {
        self.folded -= 1;
        self.folded
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not in use.
    Free,
    /// Waits for messages.
    Waiting,
    /// Has its messages, and an event that ends it.
    Computing,
    /// Forgotten, but its event is still to come.
    Forgotten,
    /// A message did not fit: it takes what else comes and never completes.
    Failed,
}

/// What is done once every message is there.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// The message was delivered when it came.
    Nothing,
    Reduce {
        own: Span,
        dtype: DataType,
        op: ReduceOp,
    },
    Copy {
        from: Span,
    },
}

impl Network {
    /// See `Endpoint::post`.
    pub(super) fn post(
        &mut self,
        seat: SeatId,
        token: Token,
        key: &Key,
        post: &Post,
    ) -> Result<Posted, Fault> {
        if self.is_dead(seat) {
            // The dead wait for ever.
            return Ok(Posted::Pending);
        }
        self.operate(seat, key)?;
        if let Some(recorder) = &mut self.recorder {
            let Seat { place, rank, .. } = self.seats[seat];
            recorder.posted((place, rank), key, post, self.now_ps);
        }
        let posted = self.start(seat, token, key, post);
        if let (Some(recorder), Ok(Posted::Done)) = (&mut self.recorder, &posted) {
            recorder.is_done(self.now_ps);
        }
        posted
    }

    fn start(&mut self, seat: SeatId, token: Token, key: &Key, post: &Post) -> Result<Posted, Fault> {
        match *post {
            Post::Send { from, to } => self.send(seat, token, key, from, &to),
            Post::Receive { into, from } => {
                let sources = PeerRun::one(from);
                let receive = self.new_receive(seat, token, key, into, Work::Nothing);
                self.expect(receive, key.lane, &sources, None)
            }
            Post::ReceiveReduce { sources, own, into, dtype, op } => {
                let rank = self.seats[seat].place.rank;
                if sources.iter().any(|source| source == rank) && own.len != into.len {
                    let lens = (own.len, into.len);
                    return Err(
                        Error::internal(format!("rank {rank} reduces spans of {lens:?} bytes")).into()
                    );
                }
                let receive = self.new_receive(seat, token, key, into, Work::Reduce { own, dtype, op });
                self.expect(receive, key.lane, &sources, Some(rank))
            }
            Post::Copy { from, into } => {
                let receive = self.new_receive(seat, token, key, into, Work::Copy { from });
                self.posted(receive)
            }
        }
    }

    /// Finds the engine for the operation that a seat posts for; a collective's first post starts it.
    #[inline]
    fn operate(&mut self, seat: SeatId, key: &Key) -> Result<(), Fault> {
        let before = self.seats[seat].operation;
        let engine = self.fabric.engine(key.engine)?;
        if (before.stream, before.engine) == (Some(key.stream), engine) {
            return Ok(());
        }
        let mut operation = Operation { stream: Some(key.stream), engine, ready_ps: self.now_ps, ..before };
        if let Stream::Collective(sequence) = key.stream
            && sequence > before.started
        {
            operation.started = sequence;
            operation.ready_ps = self.now_ps.saturating_add(self.fabric.costs(engine).start_ps);
        }
        self.seats[seat].operation = operation;
        Ok(())
    }

    fn send(
        &mut self,
        seat: SeatId,
        token: Token,
        key: &Key,
        from: Span,
        to: &PeerRun,
    ) -> Result<Posted, Fault> {
        if to.is_empty() {
            return Ok(Posted::Done);
        }
        let first = self.seats.of_peers(seat, to)?;
        let state = &mut self.seats[seat];
        let (rank, payload) = (state.rank, state.memory.snapshot(from, &mut self.shop));
        let payload = payload.map_err(|error| of_rank(state.place.rank, &error))?;
        let header = header(key, from.len);
        let Operation { engine, ready_ps, .. } = self.seats[seat].operation;
        let send = Send {
            seat,
            rank,
            token: Some(token),
            header,
            payload,
            holders: 1,
            unsent: 1,
            link: NO_LINK,
            peers: to.len() as u32,
            engine,
            ready_ps,
        };
        let id = self.sends.insert(send);
        if let Some(recorder) = &mut self.recorder {
            recorder.is_send(id, self.now_ps);
        }
        let (mut injected_ps, mut unsent, mut copied) = (None, 0, None);
        for peer in to.iter() {
            let sent_ps = self.inject(id, first + peer, key.lane, &mut copied);
            injected_ps = injected_ps.max(sent_ps);
            unsent += u32::from(sent_ps.is_none());
        }
        self.sends[id].unsent = unsent + u32::from(injected_ps.is_some());
        if let Some(injected_ps) = injected_ps {
            self.queue.push(injected_ps, Kind::Injected, id);
        }
        Ok(Posted::Pending)
    }

    fn new_receive(&mut self, seat: SeatId, token: Token, key: &Key, into: Span, work: Work) -> u32 {
        let (state, header, missing) = (State::Waiting, header(key, into.len), 0);
        let sends = self.spare_lists.pop().unwrap_or_default();
        let engine = self.seats[seat].operation.engine;
        let (folded, fold) = (0, 0);
        let receive =
            Receive { seat, state, token, header, into, work, sends, missing, engine, folded, fold };
        let id = self.receives.insert(receive);
        if let Some(recorder) = &mut self.recorder {
            recorder.is_receive(id);
        }
        id
    }

    /// Waits for one message from each source but `own`.
    fn expect(&mut self, id: u32, lane: u8, sources: &PeerRun, own: Option<Rank>) -> Result<Posted, Fault> {
        let seat = self.receives[id].seat;
        let first = match self.seats.of_peers(seat, sources) {
            Ok(first) => first,
            Err(error) => {
                self.free(id);
                return Err(error.into());
            }
        };
        let receive = &mut self.receives[id];
        if matches!(receive.work, Work::Reduce { .. }) {
            receive.sends.resize(sources.len(), NONE);
        }
        receive.missing = sources.len() as u32;
        let (mut verdict, mut are_late) = (Ok(()), false);
        for (k, source) in sources.iter().enumerate() {
            if Some(source) == own {
                self.receives[id].missing -= 1;
                continue;
            }
            let peer = first + source;
            let line = self.matching.line(peer, seat, lane);
            if let Some(message) = self.matching.receive(line, id, k as u32) {
                // What does not fit is told once; the other sources keep their places in line.
                verdict = verdict.and(self.accept(id, k as u32, message));
            } else if own.is_some() && self.folds_on_the_way(self.seats.rank(peer), self.seats.rank(seat)) {
                let is_late = self.is_passing(line);
                let is_folded = is_late || self.matching.is_last_unmoved(line);
                self.receives[id].folded += u32::from(is_folded);
                are_late |= is_late;
            }
        }
        let folded = self.receives[id].folded;
        if folded > 1 {
            self.folds += 1;
            self.receives[id].fold = self.folds;
            if are_late {
                let others = sources.iter().filter(|source| Some(*source) != own);
                others.for_each(|source| self.fold_rest((first + source, seat, lane), folded));
            }
        }
        match verdict {
            Ok(()) => self.posted(id),
            Err(fault) => {
                self.fail_receive(id);
                Err(fault)
            }
        }
    }

    /// The answer to a post whose messages, if any, were asked for.
    fn posted(&mut self, id: u32) -> Result<Posted, Fault> {
        if self.receives[id].missing > 0 {
            return Ok(Posted::Pending);
        }
        let finished = self.finish_unless_later(id);
        if !matches!(finished, Ok(false)) {
            self.free(id);
        }
        finished.map(|is_finished| if is_finished { Posted::Done } else { Posted::Pending })
    }

    /// A message has arrived for a receive that was posted before.
    pub(super) fn accept_later(&mut self, id: u32, source: u32, message: u32) {
        let Receive { seat, token, .. } = self.receives[id];
        if let Some(recorder) = &mut self.recorder {
            recorder.comes_for(id, message);
        }
        let mut finished = self.accept(id, source, message).map(|()| false);
        let Receive { state, missing, .. } = self.receives[id];
        if state == State::Failed && finished.is_ok() {
            return self.fail_receive(id);
        }
        if missing == 0 && finished.is_ok() {
            finished = self.finish_unless_later(id);
        }
        match finished {
            Ok(true) => {
                self.complete_receive(id, seat, token);
                self.free(id);
            }
            Ok(false) => {}
            Err(fault) => {
                self.fail_receive(id);
                self.fail(seat, fault);
            }
        }
    }

    /// A receive that never completes is gone once the last of its messages came.
    fn fail_receive(&mut self, id: u32) {
        self.receives[id].state = State::Failed;
        if self.receives[id].missing == 0 {
            self.free(id);
        }
    }

    /// Gives a message to the receive it meets.
    fn accept(&mut self, id: u32, source: u32, message: u32) -> Result<(), Fault> {
        let Message { send, link, .. } = self.messages[message];
        if let Some(recorder) = &mut self.recorder {
            recorder.takes(id, message);
        }
        self.messages.remove(message);
        let receive = &mut self.receives[id];
        receive.missing -= 1;
        if receive.state == State::Failed {
            self.release(send);
            return Ok(());
        }
        let (theirs, ours, seat) = (self.sends[send].header, receive.header, receive.seat);
        if theirs != ours {
            let peer = self.seats[self.sends[send].seat].place.rank;
            self.release(send);
            return Err(Fault::Mismatch { peer, theirs, ours });
        }
        let level = if link == NO_LINK { 0 } else { usize::from(link) };
        self.seats[seat].counters[level].received(theirs.len);
        if let Some(place) = receive.sends.get_mut(source as usize) {
            *place = send;
            return Ok(());
        }
        let state = &mut self.seats[seat];
        let delivered = state.memory.deliver(&self.sends[send].payload, receive.into);
        let delivered = delivered.map_err(|error| of_rank(state.place.rank, &error).into());
        self.release(send);
        delivered
    }

    /// Finishes a receive whose messages are all there, or lets an event finish it. `true` if it is finished.
    fn finish_unless_later(&mut self, id: u32) -> Result<bool, Fault> {
        let receive = &self.receives[id];
        let (rank, len) = (self.seats[receive.seat].rank, receive.header.len);
        let costs = *self.fabric.costs(receive.engine);
        let (what, (from_ps, until_ps)) = match receive.work {
            Work::Nothing => return Ok(true),
            Work::Reduce { .. } => {
                let folded = u64::from(receive.folded.saturating_sub(1));
                let terms = (receive.sends.len() as u64).saturating_sub(1 + folded);
                let (bytes, overhead_ps) = (terms.saturating_mul(len), terms.saturating_mul(costs.fold_ps));
                (What::Reduction, self.compute_ps(rank, bytes, costs.reduce_bytes_per_s, overhead_ps))
            }
            Work::Copy { .. } => (What::Copy, self.compute_ps(rank, len, costs.copy_bytes_per_s, 0)),
        };
        if let Some(recorder) = &mut self.recorder {
            recorder.computes(what, id, rank, (from_ps, until_ps), self.now_ps);
        }
        if until_ps == self.now_ps {
            return self.finish(id).map(|()| true);
        }
        self.receives[id].state = State::Computing;
        self.queue.push(until_ps, Kind::Computed, id);
        Ok(false)
    }

    /// A copy or reduction is over.
    pub(super) fn computed(&mut self, id: u32) {
        let Receive { seat, state, token, header, .. } = self.receives[id];
        self.record_compute(self.seats[seat].rank, header.len);
        if state == State::Forgotten || self.is_dead(seat) {
            return self.free(id);
        }
        match self.finish(id) {
            Ok(()) => self.complete_receive(id, seat, token),
            Err(fault) => self.fail(seat, fault),
        }
        self.free(id);
    }

    fn complete_receive(&mut self, id: u32, seat: SeatId, token: Token) {
        if let Some(recorder) = &mut self.recorder {
            recorder.received(id, self.now_ps);
        }
        self.complete(seat, token);
    }

    /// Moves or combines the bytes.
    fn finish(&mut self, id: u32) -> Result<(), Fault> {
        let Receive { seat, work, into, ref sends, .. } = self.receives[id];
        let ranks = self.seats.size(seat);
        let state = &mut self.seats[seat];
        let memory = &mut state.memory;
        let finished = match work {
            Work::Nothing => Ok(()),
            Work::Copy { from } => memory.copy(from, into, &mut self.shop),
            Work::Reduce { own, dtype, op } => {
                let term = |k: usize| (sends[k] != NONE).then(|| &self.sends[sends[k]].payload);
                let reduction = Reduction { terms: sends.len(), term, own, into, dtype, op, ranks };
                memory.reduce(&reduction, &mut self.shop)
            }
        };
        finished.map_err(|error| of_rank(state.place.rank, &error).into())
    }

    /// Gives a receive's record and the messages it holds back.
    fn free(&mut self, id: u32) {
        let mut sends = std::mem::take(&mut self.receives[id].sends);
        for send in sends.drain(..).filter(|&send| send != NONE) {
            self.release(send);
        }
        self.spare_lists.push(sends);
        self.receives[id].state = State::Free;
        self.receives.remove(id);
    }

    /// See `Endpoint::cancel`. Messages that were posted stay on their way: they hold copies.
    pub(super) fn cancel(&mut self, seat: SeatId) {
        self.matching.forget_receives(seat);
        // At the end of a clean life nothing is under way, and looking through every record would take long.
        let receives = if self.receives.is_empty() { 0..0 } else { self.receives.ids() };
        for id in receives {
            match self.receives[id].state {
                _ if self.receives[id].seat != seat => {}
                State::Waiting | State::Failed => self.free(id),
                State::Computing => self.receives[id].state = State::Forgotten,
                State::Forgotten | State::Free => {}
            }
        }
        let sends = if self.sends.is_empty() { 0..0 } else { self.sends.ids() };
        for id in sends {
            if self.sends[id].seat == seat {
                self.sends[id].token = None;
            }
        }
        let state = &mut self.seats[seat];
        state.done.clear();
        state.heed(None);
        state.faults.clear();
        state.memory.clear();
    }
}

/// What a message says of itself.
fn header(key: &Key, len: u64) -> Header {
    Header { stream: key.stream, signature: key.signature, len }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optical::Fabric;
    use ubccl_core::Signature;
    use ubccl_core::endpoint::{Fidelity, Memory, RegionId, WorldOptions};
    use ubccl_core::symbolic::{Piece, Value};

    const KEY: Key = Key { stream: Stream::Collective(1), lane: 0, signature: Signature(1), engine: None };
    const OTHER: Key = Key { signature: Signature(2), ..KEY };
    const WORDS: Span = Span { region: RegionId(0), offset: 0, len: 8 };

    fn network() -> Network {
        let toml = "name = 'slow'\nrank = { reduce_bytes_per_s = 1000, copy_bytes_per_s = 1000 }\n[topology]
            unit = 'NPU'\n[[topology.level]]\nname = 'node'\nholds = 4\n
            link = { latency_ps = 5, rate_bytes_per_s = 1_000_000_000 }";
        let mut network = Network::new(
            Fabric::parse(toml).unwrap(),
            &WorldOptions {
                ranks: 4,
                fabric: String::new(),
                seed: 0,
                fidelity: Fidelity::LogGp,
                faults: String::new(),
            },
        )
        .unwrap();
        for rank in 0..4 {
            let content = vec![Piece { len: 2, value: Value::contribution(rank, 4, 0) }];
            network.register(rank, WORDS.region, Memory::Phantom { unit: 4, content }).unwrap();
        }
        network
    }

    fn post(network: &mut Network, rank: Rank, key: &Key, post: Post) -> Result<Posted, Fault> {
        network.post(rank, Token(0), key, &post)
    }

    fn run(network: &mut Network) {
        while network.step(&mut Vec::new()) {}
    }

    fn exchange(network: &mut Network, wrong_sender: Option<Rank>) -> Result<Posted, Fault> {
        let sources = PeerRun::circle(0, 4, 4);
        let (dtype, op) = (DataType::F32, ReduceOp::Sum);
        for rank in 1..4 {
            let key = if wrong_sender == Some(rank) { &OTHER } else { &KEY };
            post(network, rank, key, Post::Send { from: WORDS, to: PeerRun::one(0) })?;
        }
        post(network, 0, &KEY, Post::ReceiveReduce { sources, own: WORDS, into: WORDS, dtype, op })
    }

    fn left(network: &Network) -> (usize, usize, usize) {
        (network.sends.len(), network.messages.len(), network.receives.len())
    }

    #[test]
    fn whatever_happens_every_record_is_given_back() {
        let mut network = network();
        exchange(&mut network, None).unwrap();
        run(&mut network);
        assert_eq!(left(&network), (0, 0, 0), "after a reduction");

        exchange(&mut network, Some(2)).unwrap();
        run(&mut network);
        assert_eq!(network.seats[0].faults.len(), 1);
        assert_eq!(left(&network), (0, 0, 0), "after a mismatch that came later");

        for rank in 1..4 {
            post(&mut network, rank, &OTHER, Post::Send { from: WORDS, to: PeerRun::one(0) }).unwrap();
        }
        run(&mut network);
        assert_eq!(left(&network), (3, 3, 0), "messages wait");
        for rank in 1..4 {
            let receive = Post::Receive { into: WORDS, from: rank };
            assert!(post(&mut network, 0, &KEY, receive).is_err());
        }
        assert_eq!(left(&network), (0, 0, 0), "after mismatches that were there before");

        exchange(&mut network, None).unwrap();
        post(&mut network, 0, &KEY, Post::Copy { from: WORDS, into: WORDS }).unwrap();
        network.cancel(0);
        run(&mut network);
        assert_eq!(left(&network), (3, 3, 0), "nobody takes the messages to a rank that cancelled");

        network.kill(3, 0);
        post(&mut network, 1, &KEY, Post::Send { from: WORDS, to: PeerRun::one(3) }).unwrap();
        run(&mut network);
        assert_eq!(left(&network), (3, 3, 0), "the dead rank's message is lost");
    }

    #[test]
    fn a_seat_is_woken_for_what_it_heeds_and_finds_the_rest_then() {
        let mut network = network();
        let mut woken = Vec::new();
        let send = Post::Send { from: WORDS, to: PeerRun::one(0) };
        network.seats[1].heed(Some(&[Token(7)]));
        for token in [6, 7] {
            network.post(1, Token(token), &KEY, &send).unwrap();
        }
        while network.seats[1].done.is_empty() {
            assert!(network.step(&mut woken));
        }
        assert_eq!((&network.seats[1].done[..], woken.len()), (&[Token(6)][..], 0));
        while woken.is_empty() {
            assert!(network.step(&mut woken));
        }
        assert_eq!((&network.seats[1].done[..], woken[0].rank), (&[Token(6), Token(7)][..], 1));
        run(&mut network);

        network.seats[1].heed(None);
        network.post(1, Token(8), &KEY, &send).unwrap();
        woken.clear();
        while network.step(&mut woken) {}
        assert_eq!(woken.len(), 1, "any, unless told otherwise");
    }

    #[test]
    fn a_cancel_while_reducing_touches_nothing_later() {
        let mut network = network();
        exchange(&mut network, None).unwrap();
        // Past the last arrival, before the slow reduction ends.
        while network.receives[0].state != State::Computing {
            assert!(network.step(&mut Vec::new()));
        }
        network.cancel(0);
        run(&mut network);
        assert!(network.seats[0].done.is_empty() && network.seats[0].faults.is_empty());
        assert_eq!(left(&network), (0, 0, 0));
    }
}
