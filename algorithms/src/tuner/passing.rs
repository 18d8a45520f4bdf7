//! Messages that pass ranks on their way, where ranks stand in a ring.

use super::Model;
use std::borrow::Cow;
use ubccl_core::Layout;
use ubccl_core::profile::{Distances, Profile, Round, Traffic};

/// What passing other ranks takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passing {
    /// Of a latency: to the rank that is farthest, from the nearest on.
    pub(super) latency_ps: f64,
    /// How many messages pass a link for each that a rank sends. 0 where none passes anybody.
    pub(super) loads: f64,
    /// Whether each rank sends to both of its neighbours, over a link each.
    pub(super) is_both_ways: bool,
}

impl Model {
    /// The same for plans of this profile: on a ring, messages that go farther than to a neighbour pass other ranks, and
    /// their links. How far each goes, not all profiles say. Of messages to all others n²/8 pass each link, of those of
    /// one rank with all others half; those to one rank go a quarter of the way round, about as far as the steps of halving
    /// and of trees on average.
    pub(super) fn around(&self, profile: &Profile, layout: &Layout) -> (Cow<'_, Self>, Passing) {
        let ring = &layout.levels()[0];
        let (Some(hop_ps), 0) = (self.level[0].hop_ps, ring.link()) else {
            return (Cow::Borrowed(self), Passing::default());
        };
        let (loads, hops) = way_round(profile, f64::from(ring.largest()));
        let latency_ps = (hops - 1.0) * hop_ps;
        let mut own = self.clone();
        let link = &mut own.level[0];
        link.rate_bytes_per_s /= loads;
        link.port_bytes_per_s = link.port_bytes_per_s.map(|rate| rate / loads);
        link.latency_ps += latency_ps;
        let is_both_ways = profile.neighbours && loads < 1.0;
        (Cow::Owned(own), Passing { latency_ps, loads, is_both_ways })
    }
}

/// How many messages pass a link for each that a rank sends, and how many links the farthest passes.
fn way_round(profile: &Profile, ranks: f64) -> (f64, f64) {
    let traffic = profile.rounds.iter().flat_map(|round| &round.traffic);
    let is_many = |traffic: &Traffic| traffic.level == 0 && traffic.peers > 1;
    let has_many = traffic.clone().any(is_many);
    // One rank with all others: half of them are reached either way.
    let is_one =
        |round: &Round| round.traffic.is_empty() || round.doers == 1 && round.traffic.iter().any(is_many);
    let Distances { rounds, farthest, parts, passed } = profile.distances;
    match (profile.neighbours, has_many) {
        // Counted. Two ranks have both of their links to each other.
        (false, _) if parts > 0 => ((passed as f64 / parts as f64).max(0.5), farthest as f64 / rounds as f64),
        (false, true) if profile.rounds.iter().all(is_one) => {
            ((ranks / 2.0).floor() / (ranks - 1.0), (ranks / 2.0).max(1.0))
        }
        // Both neighbours have a link each.
        (true, true) if ranks > 2.0 => (0.5, 1.0),
        (true, _) => (1.0, 1.0),
        (false, true) => {
            // Half way round, every other rank sends either way: some links are passed by one more than others.
            let passing = ((ranks * ranks) / 8.0).round();
            ((passing / (ranks - 1.0)).max(0.5), (ranks / 2.0).floor().max(1.0))
        }
        (false, false) => ((ranks / 4.0).max(1.0), (ranks / 4.0).max(1.0)),
    }
}
