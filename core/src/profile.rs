//! What a plan costs, without sizes or times: rounds of messages, of which a cost model makes a time.
//!
//! A profile describes the critical path: the rounds that the last rank to end waits for, and what the busiest rank's port
//! has to do meanwhile. Everything is a share of the call's bytes, which are those of its longest buffer ([`Collective::longest_bytes`](crate::Collective::longest_bytes)).

use crate::collective::Rank;
use crate::layout::Layout;

/// A share of the call's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Share {
    /// So many …
    pub parts: u64,
    /// … of as many equal parts. 0 only where `parts` is 0.
    pub of: u64,
}

/// Messages of a round over the links of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Index in [`Layout::levels`].
    pub level: usize,
    /// How many messages the busiest rank puts on its port, or takes from it.
    pub messages: u32,
    /// To how many ranks, or from how many: messages of one pair follow each other.
    pub peers: u32,
    /// Bytes of all of them together.
    pub share: Share,
}

/// Which way a rank's messages of a round go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Flow {
    /// It sends as much as it receives, as all do.
    #[default]
    Both,
    /// It only sends, to ranks of which none receives as much.
    Out,
    /// It only receives, from ranks of which none sends as much.
    In,
}

/// Messages that hang on those of the round before.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Round {
    /// So many rounds like this, one after the other.
    pub times: u32,
    /// Its messages, by level.
    pub traffic: Vec<Traffic>,
    /// How many of them are under way at once; 0 if all may be.
    pub window: u32,
    /// In how many turns they go, which hang on those that the round before brings, in their order. 0 if all hang on all.
    pub turns: u32,
    /// Whether the first of these turns hangs on none.
    pub leads: bool,
    /// In how many turns what comes is there, each for itself.
    pub brings: u32,
    /// Steps of a plan that do this, each of which has a place in its lane's window. 0 if nobody counted them.
    pub steps: u32,
    /// How many of these are sends, whose places are free once they have left.
    pub sends: u32,
    /// How many steps its lane may have under way. 0 if nobody counted them.
    pub lane_window: u32,
    /// Whether its lane does the round before first, which is more steps than that: it comes to this one when no more of them
    /// are under way.
    pub behind: bool,
    /// Which way its messages go.
    pub flow: Flow,
    /// How many messages of other chunks may stand before one of these at a port, where chunks overlap.
    pub queue: u32,
    /// How many pieces go by until one message more stands there. 0: they all stand there from the beginning.
    pub fills_in: u32,
    /// Whether of each group only one rank has messages that leave it: the others do not crowd the group's way out.
    pub alone: bool,
    /// How many ranks of all do this in it; 0 if all do.
    pub doers: u32,
    /// Whether the same goes to all of its peers, so that switches may copy it.
    pub multicast: bool,
    /// Whether what comes from all of its peers is one reduction, so that switches may fold it.
    pub folds: bool,
    /// Whether its messages come from ranks that all send at once: those of near ranks come first.
    pub fans_in: bool,
    /// Whether whoever takes one of its messages gets those of the round after from all others at once: of the next piece,
    /// one waits behind them.
    pub meets: bool,
    /// Whether whoever sends those of the round before has posted these with them: where a port passes several messages at
    /// once, these take their share from the beginning.
    pub joins: bool,
    /// Whether ranks differ in the order in which its turns hang on those of the round before: some post these while others
    /// still wait for that round's, and where a port passes several messages at once, these take their share.
    pub overtakes: bool,
    /// Bytes folded in: a reduction of k terms of n bytes folds (k − 1)·n.
    pub reduced: Share,
    /// Bytes copied inside a rank.
    pub copied: Share,
}

/// How far messages go on the circle of the innermost group, each the shorter way round: for rings, on which they pass the
/// links of others. Counted of one rank, where all do the same; else `parts` is what the busiest port does in all, and
/// `passed` what passes the busiest link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Distances {
    /// Rounds that have such messages. 0 if nobody counted.
    pub rounds: u64,
    /// Added up over these rounds: how many links the farthest of a round's messages passes.
    pub farthest: u64,
    /// Added up: how many parts of the call's bytes a rank sends.
    pub parts: u64,
    /// Added up: each part as often as it passes a link, in the direction in which a round passes more. Half way round, half
    /// of the ranks send either way.
    pub passed: u64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Profile {
    /// The critical path.
    pub rounds: Vec<Round>,
    /// What the busiest rank puts on its port in all, or takes from it, where the rounds are not all of one rank. Empty
    /// where they are: then it is their sum.
    pub busiest: Vec<Traffic>,
    /// What other ranks do, where it differs: the last to end is one of them.
    pub also: Vec<Profile>,
    /// What is cut into chunks of [`Choice::chunk_bytes`](crate::Choice::chunk_bytes), which overlap: a chunk's rounds
    /// need not wait for the other chunks'. `None` if nothing is.
    pub chunked: Option<Share>,
    /// Into how many parts everything is cut, whatever its size, that overlap as chunks do. 0 if it is not.
    pub parts: u32,
    /// Of how many parts one after the other each has its share of a round's messages. 0 if each part has all of them.
    pub spread: u32,
    /// How many parts a round has under way at once; 0 if all may be.
    pub window: u32,
    /// Rounds from this one on begin when all chunks are through those before. 0 if none waits for that.
    pub fence: usize,
    /// Where runs of rounds begin that a lane does for one chunk before it turns to the next. Empty if each round is a
    /// turn of its own: then a chunk's round overlaps the next chunk's one before it.
    pub stages: Vec<usize>,
    /// Rounds before this one hand on what a root gives, by ever more ranks. The root does its part of them one after the
    /// other, and what it sends of a chunk in later rounds once that has left. 0 if there are none.
    pub handed: usize,
    /// Whether each round is another rank's, as on the ways of a tree: who is busiest does one of them for each piece.
    pub relays: bool,
    /// Whether each lane moves its share of the data, beside the other lanes.
    pub split: bool,
    /// Whether every message is between ranks that follow each other on the circle of all ranks.
    pub neighbours: bool,
    /// How far messages go, of plans without a root.
    pub distances: Distances,
}

impl Share {
    /// Nothing.
    pub const NONE: Share = Share { parts: 0, of: 0 };
    /// All.
    pub const ALL: Share = Share { parts: 1, of: 1 };

    /// `parts` of `of`.
    pub const fn new(parts: u64, of: u64) -> Self {
        Share { parts, of }
    }

    /// Of this many bytes, as a real number.
    pub fn of_bytes(self, bytes: f64) -> f64 {
        if self.parts == 0 { 0.0 } else { bytes * self.parts as f64 / self.of as f64 }
    }
}

impl Round {
    /// A round of one message of `share` between two ranks.
    pub fn message(layout: &Layout, (from, to): (Rank, Rank), share: Share) -> Self {
        let traffic = vec![Traffic { level: layout.shared_level(from, to), messages: 1, peers: 1, share }];
        Round { times: 1, traffic, ..Round::default() }
    }

    /// A round in which `rank` talks to these peers, `parts` of `of` with each.
    pub fn with_peers(
        layout: &Layout,
        rank: Rank,
        peers: impl IntoIterator<Item = (Rank, u64)>,
        of: u64,
    ) -> Self {
        let mut round = Round { times: 1, ..Round::default() };
        for (peer, parts) in peers {
            round.add(layout.shared_level(rank, peer), parts, of);
        }
        round
    }

    /// How many terms are folded in, each as long as the messages are.
    pub fn folds(&self) -> f64 {
        let messages: u32 = self.traffic.iter().map(|traffic| traffic.messages).sum();
        let bytes: f64 = self.traffic.iter().map(|traffic| traffic.share.of_bytes(1.0)).sum();
        if bytes > 0.0 { self.reduced.of_bytes(1.0) * f64::from(messages) / bytes } else { 0.0 }
    }

    /// One more message, to or from a further rank.
    pub fn add(&mut self, level: usize, parts: u64, of: u64) {
        match self.traffic.iter_mut().find(|traffic| traffic.level == level) {
            Some(traffic) => {
                traffic.messages += 1;
                traffic.peers += 1;
                traffic.share.parts += parts;
            }
            None => self.traffic.push(Traffic { level, messages: 1, peers: 1, share: Share::new(parts, of) }),
        }
    }

    /// One more message of a pair that has one already.
    pub fn add_another(&mut self, level: usize, parts: u64, of: u64) {
        self.add(level, parts, of);
        let traffic = self.traffic.iter_mut().find(|traffic| traffic.level == level);
        traffic.into_iter().for_each(|traffic| traffic.peers = (traffic.peers - 1).max(1));
    }

    /// The same, reducing so much.
    pub fn reducing(self, parts: u64, of: u64) -> Self {
        Round { reduced: Share::new(parts, of), ..self }
    }

    /// The same, copying so much.
    pub fn copying(self, parts: u64, of: u64) -> Self {
        Round { copied: Share::new(parts, of), ..self }
    }

    /// The same, with so many messages under way at once.
    pub fn windowed(self, window: u32) -> Self {
        Round { window, ..self }
    }

    /// The same, with so many messages of other chunks before each.
    pub fn queued(self, queue: u32) -> Self {
        Round { queue, ..self }
    }

    /// The same, where it takes so many pieces until one of these messages more stands before each.
    pub fn filling_in(self, pieces: u32) -> Self {
        Round { fills_in: pieces, ..self }
    }

    /// The same, by one rank of each group.
    pub fn alone(self) -> Self {
        Round { alone: true, ..self }
    }

    /// The same, by so many ranks of all, of each group no more than one.
    pub fn by(self, doers: u32) -> Self {
        Round { alone: true, doers, ..self }
    }

    /// The same, one message to all of its peers.
    pub fn to_all_alike(self) -> Self {
        Round { multicast: true, ..self }
    }

    /// The same, what comes from all of its peers folded at once.
    pub fn folding(self) -> Self {
        Round { folds: true, ..self }
    }

    /// The same, from ranks that all send at once.
    pub fn fanning_in(self) -> Self {
        Round { fans_in: true, ..self }
    }

    /// The same, so often.
    pub fn times(self, times: u32) -> Self {
        Round { times, ..self }
    }
}

impl Profile {
    /// These rounds, unchunked.
    pub fn of(rounds: Vec<Round>) -> Self {
        Profile { rounds, ..Profile::default() }
    }

    /// The same, but no rank does all of it: the busiest does so much.
    pub fn busiest(self, busiest: Vec<Traffic>) -> Self {
        Profile { busiest, ..self }
    }

    /// The same, with that much cut into chunks.
    pub fn chunked(self, parts: u64, of: u64) -> Self {
        Profile { chunked: Some(Share::new(parts, of)), ..self }
    }

    /// The same, cut into so many parts, each of `spread` of which has its share of a round's messages.
    pub fn parts(self, parts: u32, spread: u32) -> Self {
        Profile { parts, spread, ..self }
    }

    /// The same, with so many parts under way at once.
    pub fn windowed(self, window: u32) -> Self {
        Profile { window, ..self }
    }

    /// The same, but rounds from this one on wait for all chunks.
    pub fn fenced(self, fence: usize) -> Self {
        Profile { fence, ..self }
    }

    /// The same, but a lane turns to the next chunk only where such a run of rounds is over.
    pub fn staged(self, stages: Vec<usize>) -> Self {
        Profile { stages, ..self }
    }

    /// The same, and rounds before this one hand on what a root gives.
    pub fn handing(self, handed: usize) -> Self {
        Profile { handed, ..self }
    }

    /// The same, each round by another rank.
    pub fn relaying(self) -> Self {
        Profile { relays: true, ..self }
    }

    /// The same, shared out among the lanes.
    pub fn split(self) -> Self {
        Profile { split: true, ..self }
    }

    /// The same, and every message goes to the rank before or after.
    pub fn among_neighbours(self) -> Self {
        Profile { neighbours: true, ..self }
    }

    /// The same, whose messages go so far.
    pub fn going(self, distances: Distances) -> Self {
        Profile { distances, ..self }
    }

    /// The same, and all wait for ranks that do something else: what those do.
    pub fn also(self, also: Vec<Profile>) -> Self {
        Profile { also, ..self }
    }

    /// Steps, as papers count them: rounds that move something, one after the other.
    pub fn steps(&self) -> u32 {
        let moving = self.rounds.iter().filter(|round| !round.traffic.is_empty());
        let others = self.also.iter().map(Profile::steps).max().unwrap_or(0);
        moving.map(|round| round.times).sum::<u32>().max(others)
    }

    /// The bytes that the busiest rank sends (or takes in), of a call of so many bytes.
    pub fn bytes(&self, bytes: f64) -> f64 {
        let of = |traffic: &[Traffic]| traffic.iter().map(|part| part.share.of_bytes(bytes)).sum::<f64>();
        let own = match self.busiest[..] {
            [] => self.rounds.iter().map(|round| of(&round.traffic) * f64::from(round.times)).sum(),
            _ => of(&self.busiest),
        };
        self.also.iter().map(|other| other.bytes(bytes)).fold(own, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_add_up_by_level() {
        let layout = Layout::parse("node=2", 4).unwrap();
        let mesh = Round::with_peers(&layout, 0, [(1, 1), (2, 1), (3, 1)], 4).reducing(3, 4);
        let traffic = |level, messages, parts| Traffic {
            level,
            messages,
            peers: messages,
            share: Share::new(parts, 4),
        };
        assert_eq!(mesh.traffic, [traffic(0, 1, 1), traffic(1, 2, 2)]);
        let mut twice = mesh.clone();
        twice.add_another(1, 1, 4);
        assert_eq!(twice.traffic[1], Traffic { messages: 3, ..traffic(1, 2, 3) });
        let hop = Round::message(&layout, (1, 2), Share::new(1, 4)).times(5);
        let profile = Profile::of(vec![mesh, hop, Round { times: 1, ..Round::default() }]).chunked(1, 4);
        assert_eq!((profile.steps(), profile.bytes(400.0)), (6, 300.0 + 500.0));
        let relayed = profile.busiest(vec![traffic(0, 1, 2)]);
        assert_eq!((relayed.steps(), relayed.bytes(400.0)), (6, 200.0));
        assert_eq!(Share::NONE.of_bytes(7.0), 0.0);
    }
}
