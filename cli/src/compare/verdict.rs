//! How ours and the best peer stand at one point.

use super::contestants::{AGAIN, FIRST, FLOAT32, FLOOR, MOVE_ONLY, Memory, OURS, processors};
use super::runs::Record;
use crate::stats::median;
use std::collections::BTreeMap;
use std::fmt;

/// Near: a cache line takes at most this many ns from one CPU to the other …
const NEAR_NS: f64 = 100.0;
/// … far: at least this many.
const FAR_NS: f64 = 150.0;
/// Bounds, and a word in the summary, need so many rounds of both.
pub(super) const LEAST_ROUNDS: usize = 3;
/// Samples of the bootstrap.
const SAMPLES: usize = 1000;

/// Where the CPUs stood during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Near,
    Far,
    /// With more ranks than processors all rounds count.
    Anywhere,
}

impl Place {
    fn has(self, near_ns: Option<[f64; 2]>) -> bool {
        let within = |test: &dyn Fn(f64) -> bool| near_ns.is_some_and(|times| times.into_iter().all(test));
        match self {
            Place::Near => within(&|ns| ns <= NEAR_NS),
            Place::Far => within(&|ns| ns >= FAR_NS),
            Place::Anywhere => true,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Near => write!(f, "CPUs near each other (a cache line takes {NEAR_NS} ns at most)"),
            Place::Far => write!(f, "CPUs far from each other (a cache line takes {FAR_NS} ns at least)"),
            Place::Anywhere => write!(f, "CPUs anywhere"),
        }
    }
}

/// What is measured together: one table's worth of points, but for the operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Setting {
    pub(super) transport: String,
    pub(super) ranks: u32,
    pub(super) dtype: String,
    pub(super) memory: Memory,
}

impl Setting {
    /// Where CPUs may stand for a round to count, table by table.
    pub(super) fn places(&self) -> &'static [Place] {
        if self.ranks > processors() { &[Place::Anywhere] } else { &[Place::Near, Place::Far] }
    }
}

/// One operation at one size.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) setting: Setting,
    pub(super) op: String,
    pub(super) in_place: bool,
    pub(super) bytes: u64,
}

/// A program: its peer and note.
pub(super) type Who = (String, String);

/// Rounds of one program at one point: where the CPUs were, and the median time in µs.
type Rounds = BTreeMap<u32, (Option<[f64; 2]>, f64)>;

/// All times, by point and program.
#[derive(Debug, Default)]
pub(super) struct Times(BTreeMap<Point, BTreeMap<Who, Rounds>>);

impl Times {
    /// The right results of all runs.
    pub(super) fn of(records: &[Record]) -> Self {
        let mut times = Times::default();
        for record in records.iter().filter(|record| record.error.is_none() && !record.is_wrong()) {
            // The floor's note says which of its two ways was the quicker; it is the least of both.
            let note = if record.peer == FLOOR { FIRST } else { &record.note };
            let who = (record.peer.clone(), note.to_owned());
            let rounds = times.0.entry(point(record)).or_default().entry(who).or_default();
            rounds.insert(record.rep, (record.near_ns, record.p50_us));
        }
        times
    }

    /// The points that we have measured.
    pub(super) fn points(&self) -> impl Iterator<Item = &Point> {
        let ours = us(FIRST);
        self.0.iter().filter(move |(_, programs)| programs.contains_key(&ours)).map(|(point, _)| point)
    }

    /// How a point stands.
    pub(super) fn verdict(&self, point: &Point, place: Place) -> Verdict {
        let best = self.best(point);
        let all_ours = self.rounds(point, &us(FIRST));
        let all_theirs = best.as_ref().map(|(at_point, who)| self.rounds(at_point, who)).unwrap_or_default();
        let (ours, theirs) = (at(&all_ours, place), at(&all_theirs, place));
        let again = at(&self.rounds(point, &us(AGAIN)), place);
        Verdict {
            point: point.clone(),
            ours_us: middle(&ours),
            theirs_us: middle(&theirs),
            best: best.map(|(_, who)| who),
            ratio: Ratio::of(&ours, &theirs),
            chance: Ratio::of(&again, &ours),
            lines: lines(&all_ours, place),
            rounds: [ours.len(), theirs.len()],
            dropped: [all_ours.len() - ours.len(), all_theirs.len() - theirs.len()],
        }
    }

    fn rounds(&self, point: &Point, who: &Who) -> Rounds {
        self.0.get(point).and_then(|programs| programs.get(who)).cloned().unwrap_or_default()
    }

    /// The peer with the lowest median over all rounds, and the point at which it was measured.
    fn best(&self, point: &Point) -> Option<(Point, Who)> {
        let at_point = peers_point(point);
        let peers = self.0.get(&at_point)?.iter().filter(|(who, _)| who.0 != OURS);
        let medians = peers.map(|(who, rounds)| {
            let times: Vec<f64> = rounds.values().map(|&(_, p50_us)| p50_us).collect();
            (median(&times), who)
        });
        let best = medians.min_by(|a, b| a.0.total_cmp(&b.0))?.1.clone();
        Some((at_point, best))
    }
}

/// Where the peers' times of a point are. What only moves takes the same for every type: they do it in float32 alone. The
/// floor is one, whatever happens to the memory between calls.
fn peers_point(point: &Point) -> Point {
    let mut at_point = point.clone();
    if MOVE_ONLY.contains(&point.op.as_str()) {
        at_point.setting.dtype = FLOAT32.to_owned();
    }
    if point.setting.memory == Memory::Rewritten {
        at_point.setting.memory = Memory::Registered;
    }
    at_point
}

fn point(record: &Record) -> Point {
    let transport = record.compared_over.as_ref().unwrap_or(&record.transport).clone();
    let (dtype, memory) = (record.dtype.clone(), record.memory());
    let setting = Setting { transport, ranks: record.ranks, dtype, memory };
    Point { setting, op: record.op.clone(), in_place: record.inplace != 0, bytes: record.bytes }
}

/// Our program under a note.
fn us(note: &str) -> Who {
    (OURS.to_owned(), note.to_owned())
}

fn at(rounds: &Rounds, place: Place) -> BTreeMap<u32, f64> {
    let here = rounds.iter().filter(|(_, (near_ns, _))| place.has(*near_ns));
    here.map(|(&round, &(_, p50_us))| (round, p50_us)).collect()
}

/// The median, if there are rounds.
fn middle(rounds: &BTreeMap<u32, f64>) -> Option<f64> {
    let times: Vec<f64> = rounds.values().copied().collect();
    (!times.is_empty()).then(|| median(&times))
}

/// How many ways of a cache line from one CPU to the other a call takes: the median over rounds.
fn lines(rounds: &Rounds, place: Place) -> Option<f64> {
    let here = rounds.values().filter(|(near_ns, _)| place.has(*near_ns));
    let share = |&(near_ns, p50_us): &(Option<[f64; 2]>, f64)| {
        near_ns.map(|[before, after]| 1000.0 * p50_us / ((before + after) / 2.0))
    };
    let shares: Vec<f64> = here.filter_map(share).collect();
    (!shares.is_empty()).then(|| median(&shares))
}

/// What can be said of a point; `None` where there are no rounds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) point: Point,
    pub(super) ours_us: Option<f64>,
    pub(super) theirs_us: Option<f64>,
    pub(super) best: Option<Who>,
    /// Ours over theirs.
    pub(super) ratio: Option<Ratio>,
    /// Our second program over our first.
    pub(super) chance: Option<Ratio>,
    /// Our time, in ways of a cache line from one CPU to the other.
    pub(super) lines: Option<f64>,
    /// Rounds that count, ours and theirs.
    pub(super) rounds: [usize; 2],
    /// Those that do not, because the CPUs stood elsewhere.
    pub(super) dropped: [usize; 2],
}

/// A ratio of medians over rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    pub(super) median: f64,
    /// What is known of its spread; nothing if there are too few rounds.
    pub(super) spread: Option<Spread>,
}

/// Of the ratio when rounds are drawn with replacement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    /// Holds nine tenths of the samples; a twentieth is below, one above.
    pub(super) interval: [f64; 2],
    /// The lower 90 % bound: a tenth of the samples is below.
    pub(super) low: f64,
}

impl Ratio {
    /// One program's times over another's; nothing if one has none.
    fn of(ours: &BTreeMap<u32, f64>, theirs: &BTreeMap<u32, f64>) -> Option<Self> {
        let median = middle(ours)? / middle(theirs)?;
        let is_enough = ours.len().min(theirs.len()) >= LEAST_ROUNDS;
        Some(Ratio { median, spread: is_enough.then(|| Spread::of(ours, theirs)) })
    }

    /// Whether it is further from 1 than that.
    pub(super) fn is_beyond(&self, share: f64) -> bool {
        (self.median - 1.0).abs() > share
    }

    /// Whether its interval reaches further from 1 than that.
    pub(super) fn reaches_beyond(&self, share: f64) -> bool {
        self.spread.is_some_and(|spread| spread.interval.iter().any(|bound| (bound - 1.0).abs() > share))
    }
}

impl Spread {
    fn of(ours: &BTreeMap<u32, f64>, theirs: &BTreeMap<u32, f64>) -> Self {
        let mut rounds: Vec<u32> = ours.keys().chain(theirs.keys()).copied().collect();
        rounds.sort_unstable();
        rounds.dedup();
        let mut draw = Draw(rounds.len() as u64);
        let mut ratios: Vec<f64> = Vec::with_capacity(SAMPLES);
        while ratios.len() < SAMPLES {
            let drawn: Vec<u32> = (0..rounds.len()).map(|_| rounds[draw.below(rounds.len())]).collect();
            let of = |times: &BTreeMap<u32, f64>| -> Vec<f64> {
                drawn.iter().filter_map(|round| times.get(round).copied()).collect()
            };
            let (ours, theirs) = (of(ours), of(theirs));
            if !ours.is_empty() && !theirs.is_empty() {
                ratios.push(median(&ours) / median(&theirs));
            }
        }
        ratios.sort_by(f64::total_cmp);
        let interval = [ratios[SAMPLES / 20], ratios[SAMPLES - 1 - SAMPLES / 20]];
        Spread { interval, low: ratios[SAMPLES / 10] }
    }
}

/// Numbers that are always the same (SplitMix64, Steele, Lea and Flood 2014).
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Rounds of a program at an all-reduce of 8 bytes: where the CPUs were and the time, from round 1 on.
    pub(in crate::compare) fn records(peer: &str, note: &str, times: &[(f64, f64)]) -> Vec<Record> {
        let record = |(index, &(near_ns, p50_us)): (usize, &(f64, f64))| Record {
            peer: peer.to_owned(),
            note: note.to_owned(),
            transport: "shm".to_owned(),
            compared_over: None,
            ranks: 1,
            rep: index as u32 + 1,
            op: "allreduce".to_owned(),
            inplace: 0,
            dtype: "float32".to_owned(),
            bytes: 8,
            p50_us,
            ok: Some(1),
            registered: 0,
            rewrite: 0,
            near_ns: Some([near_ns, near_ns]),
            error: None,
        };
        times.iter().enumerate().map(record).collect()
    }

    fn verdict(records: Vec<Record>, place: Place) -> Verdict {
        let times = Times::of(&records);
        let points: Vec<&Point> = times.points().collect();
        let [point] = points[..] else { panic!("{points:?}") };
        times.verdict(point, place)
    }

    #[test]
    fn near_is_compared_with_near_and_far_with_far() {
        let mut all = records(
            "ubccl",
            "default",
            &[(57.0, 1.0), (57.0, 1.2), (245.0, 9.0), (57.0, 1.1), (120.0, 99.0)],
        );
        all.extend(records("impi", "default", &[(57.0, 2.0), (245.0, 6.0), (57.0, 2.2), (57.0, 2.1)]));
        let near = verdict(all.clone(), Place::Near);
        assert_eq!((near.ours_us, near.theirs_us), (Some(1.1), Some(2.1)));
        assert_eq!((near.rounds, near.dropped), ([3, 3], [2, 1]));
        assert_eq!(near.lines, Some(1100.0 / 57.0));
        let far = verdict(all.clone(), Place::Far);
        let ratio = Some(Ratio { median: 1.5, spread: None });
        assert_eq!((far.ratio, far.rounds), (ratio, [1, 1]), "one round has no spread");
        assert_eq!(verdict(all, Place::Anywhere).rounds, [5, 4]);
    }

    #[test]
    fn the_best_peer_is_the_one_of_all_rounds() {
        // Near, impi is faster, but it was near by luck: over all rounds openmpi is.
        let mut all = records("ubccl", "default", &[(57.0, 1.0); 5]);
        all.extend(records(
            "impi",
            "default",
            &[(57.0, 1.0), (57.0, 1.0), (57.0, 1.0), (245.0, 9.0), (245.0, 9.0), (245.0, 9.0), (245.0, 9.0)],
        ));
        all.extend(records("openmpi", "coll_sm", &[(57.0, 2.0); 5]));
        let near = verdict(all, Place::Near);
        assert_eq!(near.best, Some(("openmpi".to_owned(), "coll_sm".to_owned())));
        assert_eq!(near.ratio.unwrap().median, 0.5);
    }

    #[test]
    fn bounds_hold_the_ratio_and_widen_with_the_spread() {
        let ours: BTreeMap<u32, f64> =
            (1..=9).map(|round| (round, 1.0 + f64::from(round % 3) * 0.2)).collect();
        let theirs: BTreeMap<u32, f64> = (1..=9).map(|round| (round, 2.0)).collect();
        let spread = Spread::of(&ours, &theirs);
        let [least, most] = spread.interval;
        assert!(0.5 <= least && least <= spread.low && spread.low < most && most <= 0.7, "{spread:?}");
        let steady: BTreeMap<u32, f64> = (1..=9).map(|round| (round, 1.0)).collect();
        assert_eq!(Spread::of(&steady, &theirs), Spread { interval: [0.5, 0.5], low: 0.5 });
        assert_eq!(Spread::of(&ours, &theirs), spread, "the same rounds, the same bounds");
    }

    #[test]
    fn our_second_program_shows_what_differs_by_chance() {
        let mut all = records("ubccl", "default", &[(57.0, 1.0); 3]);
        all.extend(records("ubccl", "again", &[(57.0, 1.25); 3]));
        let near = verdict(all, Place::Near);
        let chance = near.chance.unwrap();
        assert!(chance.is_beyond(0.1) && chance.reaches_beyond(0.1) && !chance.is_beyond(0.3), "{chance:?}");
        assert_eq!((chance.median, near.best, near.ratio), (1.25, None, None));
    }

    #[test]
    fn what_only_moves_is_compared_in_any_type_and_sums_are_not() {
        for (op, ratio) in [("allgather", Some(0.5)), ("allreduce", None)] {
            let of = |peer, dtype: &str, p50_us| {
                let mut all = records(peer, "default", &[(57.0, p50_us); 3]);
                all.iter_mut()
                    .for_each(|record| (record.op, record.dtype) = (op.to_owned(), dtype.to_owned()));
                all
            };
            let mut all = of("ubccl", "bfloat16", 1.0);
            all.extend(of("impi", "float32", 2.0));
            assert_eq!(verdict(all, Place::Near).ratio.map(|ratio| ratio.median), ratio, "{op}");
        }
    }

    #[test]
    fn registered_memory_is_held_to_the_floor_and_to_no_peer() {
        let mut all = records("floor", "ordinary stores", &[(57.0, 10.0); 3]);
        all[1].note = "non-temporal stores".to_owned();
        for (registered, rewrite, p50_us) in [(0, 0, 30.0), (1, 0, 15.0), (1, 1, 20.0)] {
            let mut ours = records("ubccl", "default", &[(57.0, p50_us); 3]);
            ours.iter_mut().for_each(|record| (record.registered, record.rewrite) = (registered, rewrite));
            all.extend(ours);
        }
        all.extend(records("impi", "default", &[(57.0, 60.0); 3]));
        let times = Times::of(&all);
        let ratio = |point: &Point| times.verdict(point, Place::Near).ratio.unwrap().median;
        assert_eq!(times.points().map(ratio).collect::<Vec<_>>(), [0.5, 1.5, 2.0]);
    }

    #[test]
    fn wrong_results_and_failures_are_no_times() {
        let mut all = records("ubccl", "default", &[(57.0, 1.0); 3]);
        let mut wrong = records("impi", "default", &[(57.0, 0.1); 3]);
        wrong[0].ok = Some(0);
        wrong[1].error = Some("took too long".to_owned());
        all.extend(wrong);
        assert_eq!(verdict(all, Place::Near).rounds, [3, 1]);
    }
}
