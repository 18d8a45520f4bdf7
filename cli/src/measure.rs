//! One row half: all ranks prepare a call, warm up, are timed and checked.

use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::orders::{Answer, Crew, How, Order};
use crate::pattern::repeatable_calls;
use crate::rank::CALL_BY_CALL_BYTES;
use crate::stats::{Times, slowest_rank_us};
use crate::target::Kind;

/// A block of calls lasts about this long, so that reading the clock (25 ns) does not show.
const BLOCK_US: f64 = 20.0;
/// Blocks have at most so many calls.
const MOST_CALLS_PER_BLOCK: u32 = 64;
/// Without `--iters`: about so long per row half …
const AUTO_US: f64 = 100_000.0;
/// … but at least so many iterations …
const AUTO_LEAST: f64 = 20.0;
/// … and at most so many …
const AUTO_MOST: f64 = 5_000.0;
/// … unless they last longer than this, when three will do.
const AUTO_MOST_US: f64 = 4_000_000.0;
/// Without `--warmup_iters`: so many calls, but not for longer than a second.
const AUTO_WARMUP: f64 = 20.0;
const AUTO_WARMUP_US: f64 = 1_000_000.0;
/// Calls that tell how long a call takes.
const PROBE_CALLS: u32 = 3;
/// The warm-up goes in so many parts: the fastest tells how long a call takes, whatever disturbed the others.
const WARMUP_PARTS: u32 = 4;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effort {
    /// Timed iterations; chosen by time if not given.
    pub(crate) iterations: Option<u32>,
    /// Untimed calls before; chosen by time if not given.
    pub(crate) warmup: Option<u32>,
    /// Checked calls after; none means that nothing is checked.
    pub(crate) checks: u32,
    /// Whether it is also measured where the time goes.
    pub(crate) breakdown: bool,
}

/// What was measured of one call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    /// The times per call.
    pub(crate) times: Times,
    /// Timed iterations.
    pub(crate) iterations: u32,
    /// Calls in each of them; above 1 the 99th percentile is a block's.
    pub(crate) calls_per_iteration: u32,
    /// How it was done.
    pub(crate) how: How,
    /// Wrong elements of all ranks, if checked.
    pub(crate) wrong: Option<u64>,
    /// What is wrong first, with its rank.
    pub(crate) note: Option<String>,
    /// Processor time per call, the mean over ranks.
    pub(crate) cpu_us: f64,
    /// What only a simulation knows.
    pub(crate) simulated: Option<Simulated>,
    /// Where rank 0's time goes, in microseconds per call: check, look-up, post, poll. Of calls of their own.
    pub(crate) breakdown_us: Option<[f64; 4]>,
    /// Where a simulated call's time goes.
    pub(crate) explained: Option<Explained>,
}

/// Where a simulated call's time goes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Explained {
    /// The critical path in a sentence.
    pub(crate) path: String,
    /// Its parts, the longest first: what, where, and how many virtual picoseconds.
    pub(crate) parts: Vec<(&'static str, String, u64)>,
    /// How much each class of links was used.
    pub(crate) links: Vec<LinkClass>,
}

/// How much a class of links was used: shares of their rates, from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LinkClass {
    /// Its name.
    pub(crate) class: String,
    /// The mean of all its links.
    pub(crate) mean: f64,
    /// The link that was used most.
    pub(crate) busiest: String,
    /// How much that is.
    pub(crate) most: f64,
}

/// What only a simulation knows, for all its iterations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Simulated {
    /// Messages between ranks.
    pub(crate) messages: u64,
    /// Events.
    pub(crate) events: u64,
    /// How often bytes were sent again.
    pub(crate) retries: u64,
    /// Messages that were lost with a rank.
    pub(crate) lost: u64,
    /// Hash of all events.
    pub(crate) hash: u64,
    /// How long the simulation took in real time.
    pub(crate) real_us: f64,
    /// The least time that the fabric's ports allow.
    pub(crate) bound_us: f64,
}

/// Anything that can measure a call: processes, or a simulation.
pub(crate) trait Measure {
    /// Measures one call. `capacity` is the largest buffer of the sweep in bytes.
    fn measure(&mut self, call: &Call, in_place: bool, capacity: u64) -> Outcome<Measured>;
}

/// Measures with real ranks.
pub(crate) struct Stopwatch<C> {
    /// The ranks.
    pub(crate) crew: C,
    /// How much.
    pub(crate) effort: Effort,
}

/// Wrong elements and the first note, of all answers so far.
#[derive(Default)]
struct Verdict {
    wrong: u64,
    note: Option<String>,
}

impl Verdict {
    fn add(&mut self, answers: &[Answer]) {
        for (rank, answer) in answers.iter().enumerate() {
            self.wrong += answer.wrong;
            if let Some(note) = answer.note.as_ref().filter(|_| self.note.is_none()) {
                self.note = Some(format!("rank {rank}: {note}"));
            }
        }
    }

    /// A barrier is right if nobody left before the last one came.
    fn add_barrier(&mut self, answers: &[Answer], late: usize) {
        let times =
            |index: usize| answers.iter().filter_map(move |answer| answer.samples_ns.get(index).copied());
        let last_came = times(0).max().unwrap_or(0);
        let left_early = times(1).filter(|&left| left < last_came).count();
        if left_early > 0 {
            self.wrong += left_early as u64;
            let told = format!("{left_early} ranks left a barrier before rank {late} had come to it");
            self.note.get_or_insert(told);
        }
    }
}

impl<C: Crew> Measure for Stopwatch<C> {
    fn measure(&mut self, call: &Call, in_place: bool, capacity: u64) -> Outcome<Measured> {
        let check = self.effort.checks > 0;
        let mut verdict = Verdict::default();
        let prepared = self.crew.run(&Order::Prepare { call: (*call).into(), in_place, check, capacity })?;
        verdict.add(&prepared);
        let call_us = self.warm_up()?;
        let calls_per_sample = calls_per_sample(call, in_place, call_us);
        let samples = samples(self.effort.iterations, call_us * f64::from(calls_per_sample));
        let timed = self.crew.run(&Order::Measure { calls_per_sample, samples })?;
        verdict.add(&timed);
        self.check(call, &mut verdict)?;
        let all_samples: Vec<Vec<u64>> = timed.iter().map(|answer| answer.samples_ns.clone()).collect();
        let times = Times::of(slowest_rank_us(&all_samples, calls_per_sample));
        Ok(Measured {
            times: times.ok_or_else(|| Failure::new("the ranks answered without times"))?,
            iterations: samples,
            calls_per_iteration: calls_per_sample,
            how: prepared.into_iter().next().map(|answer| answer.how).unwrap_or_default(),
            wrong: check.then_some(verdict.wrong),
            note: verdict.note,
            cpu_us: mean_cpu_us(&timed),
            simulated: None,
            breakdown_us: self.breakdown(samples * calls_per_sample)?,
            explained: None,
        })
    }
}

impl<C: Crew> Stopwatch<C> {
    /// Where rank 0's time goes, if that is asked for. In place the data grow meaningless, and are not looked at.
    fn breakdown(&mut self, calls: u32) -> Outcome<Option<[f64; 4]>> {
        if !self.effort.breakdown {
            return Ok(None);
        }
        let answers = self.crew.run(&Order::Where { calls })?;
        let Some(Answer { samples_ns, calls, .. }) = answers.into_iter().next() else { return Ok(None) };
        let per_call = |ns: u64| ns as f64 / 1000.0 / calls.max(1) as f64;
        Ok(<[u64; 4]>::try_from(samples_ns).ok().map(|parts| parts.map(per_call)))
    }

    /// Warms up and tells about how long a call takes.
    fn warm_up(&mut self) -> Outcome<f64> {
        let probed_us = self.spin(PROBE_CALLS)?;
        let calls = self.effort.warmup.unwrap_or((AUTO_WARMUP_US / probed_us).clamp(0.0, AUTO_WARMUP) as u32);
        let mut fastest_us = probed_us;
        let mut left = calls.saturating_sub(PROBE_CALLS); // the probe has warmed up too
        while left > 0 {
            let part = calls.div_ceil(WARMUP_PARTS).min(left);
            fastest_us = fastest_us.min(self.spin(part)?);
            left -= part;
        }
        Ok(fastest_us)
    }

    /// Runs calls back to back; the time of one on the slowest rank.
    fn spin(&mut self, calls: u32) -> Outcome<f64> {
        let answers = self.crew.run(&Order::Spin { calls })?;
        let slowest_ns = answers.iter().flat_map(|answer| &answer.samples_ns).max().copied().unwrap_or(0);
        Ok((slowest_ns as f64 / 1000.0 / f64::from(calls)).max(0.001))
    }

    fn check(&mut self, call: &Call, verdict: &mut Verdict) -> Outcome<()> {
        for check in 0..self.effort.checks {
            if call.kind != Kind::Barrier {
                verdict.add(&self.crew.run(&Order::Check { round: check })?);
                continue;
            }
            for late in 0..call.ranks.min(8) {
                verdict.add_barrier(&self.crew.run(&Order::Check { round: late })?, late as usize);
            }
        }
        Ok(())
    }
}

/// Small calls are timed in blocks, unless they would pipeline behind a root.
fn calls_per_sample(call: &Call, in_place: bool, call_us: f64) -> u32 {
    if call.bytes() >= CALL_BY_CALL_BYTES || call.is_rooted() {
        return 1;
    }
    let calls = (BLOCK_US / call_us).ceil().clamp(1.0, f64::from(MOST_CALLS_PER_BLOCK)) as u32;
    if in_place { repeatable_calls(call, calls) } else { calls }
}

fn samples(asked: Option<u32>, sample_us: f64) -> u32 {
    let by_time = (AUTO_US / sample_us).clamp(AUTO_LEAST, AUTO_MOST);
    let by_patience = (AUTO_MOST_US / sample_us).max(3.0);
    asked.unwrap_or(by_time.min(by_patience) as u32)
}

fn mean_cpu_us(answers: &[Answer]) -> f64 {
    let per_call = |answer: &Answer| answer.cpu_ns as f64 / 1000.0 / answer.calls.max(1) as f64;
    answers.iter().map(per_call).sum::<f64>() / answers.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::tests::{KINDS, call};
    use crate::fake::{Fault, Threads};
    use crate::target::{DataType, ReduceOp};

    fn measure(call: Call, in_place: bool, fault: Fault, iterations: u32) -> Measured {
        let effort = Effort { iterations: Some(iterations), warmup: Some(1), checks: 1, breakdown: false };
        let mut stopwatch = Stopwatch { crew: Threads::start(call.ranks, fault), effort };
        stopwatch.measure(&call, in_place, call.bytes()).unwrap()
    }

    #[test]
    fn right_results_are_found_right_for_every_collective_type_operation_and_size() {
        for kind in KINDS {
            for (dtype, op) in [
                (DataType::F32, ReduceOp::Sum),
                (DataType::BF16, ReduceOp::Sum),
                (DataType::U8, ReduceOp::Sum),
                (DataType::I32, ReduceOp::Max),
                (DataType::F8E5M2, ReduceOp::Prod),
                (DataType::U16, ReduceOp::Xor),
            ] {
                for (count, ranks) in [(0, 2), (1, 2), (7, 3), (1, 1), (3000, 2), (4999, 3)] {
                    for in_place in [false, true] {
                        let call = Call { dtype, op, root: ranks - 1, ..call(kind, count, ranks) };
                        let measured = measure(call, in_place, Fault::None, 3);
                        assert_eq!(measured.wrong, Some(0), "{call:?} {in_place}: {:?}", measured.note);
                        assert_eq!(measured.iterations, 3);
                    }
                }
            }
        }
    }

    #[test]
    fn right_results_are_found_right_for_every_type_and_operation() {
        for (dtype, op) in
            DataType::TABLE.iter().flat_map(|row| ReduceOp::TABLE.iter().map(|op| (row.dtype, op.0)))
        {
            if op.supports(dtype).is_err() || op == ReduceOp::PreMulSum {
                continue;
            }
            for (kind, in_place, count, ranks) in [
                (Kind::AllReduce, true, 7, 3),
                (Kind::AllReduce, false, 64, 4),
                (Kind::ReduceScatter, true, 64, 2),
                (Kind::ReduceScatter, true, 1400, 3), // call by call, with stamps
                (Kind::Reduce, true, 64, 3),
                (Kind::Reduce, true, 4200, 2),
                (Kind::ReduceScatterV, true, 65, 2),
            ] {
                let call = Call { dtype, op, ..call(kind, count, ranks) };
                let measured = measure(call, in_place, Fault::None, 2);
                assert_eq!(measured.wrong, Some(0), "{call:?} {in_place}: {:?}", measured.note);
            }
        }
    }

    #[test]
    fn a_lost_rank_is_found_in_every_type_and_operation() {
        for (dtype, op) in
            DataType::TABLE.iter().flat_map(|row| ReduceOp::TABLE.iter().map(|op| (row.dtype, op.0)))
        {
            if op.supports(dtype).is_err() || op == ReduceOp::PreMulSum {
                continue;
            }
            for (fault, in_place) in [(Fault::LosesLastRank, false), (Fault::SwapsHalves, true)] {
                let call = Call { dtype, op, ..call(Kind::AllReduce, 32, 3) };
                assert!(measure(call, in_place, fault, 2).wrong > Some(0), "{call:?} {in_place} {fault:?}");
            }
        }
    }

    #[test]
    fn every_fault_of_the_data_is_found_in_and_out_of_place_small_and_large() {
        for kind in KINDS {
            for (count, in_place) in [(16, false), (16, true), (5000, false), (5000, true)] {
                for fault in [Fault::LosesLastRank, Fault::SwapsHalves, Fault::ForgetsLastElement] {
                    // What comes from the first rank alone does not miss the last one's.
                    let is_from_root = matches!(kind, Kind::Broadcast | Kind::Scatter | Kind::ScatterV);
                    let root = u32::from(is_from_root);
                    let call = Call { root, ..call(kind, count, 2) };
                    let measured = measure(call, in_place, fault, 3);
                    assert!(measured.wrong > Some(0), "{call:?} {in_place} {fault:?}");
                    assert!(measured.note.unwrap().starts_with("rank "));
                }
            }
        }
    }

    #[test]
    fn a_call_that_stops_working_during_the_timed_iterations_is_found_by_them() {
        for kind in KINDS {
            for (count, in_place) in [(16, false), (16, true), (5000, false), (5000, true)] {
                // 1 prepared and 3 probed calls, then the timed ones begin; the first of them works.
                let measured = measure(call(kind, count, 2), in_place, Fault::NothingFrom(5), 4);
                let note = measured.note.unwrap();
                assert!(note.contains("a timed call"), "{kind:?} {count} {in_place}: {note}");
            }
        }
    }

    #[test]
    fn an_input_that_changes_in_place_is_found() {
        for kind in [Kind::ReduceScatter, Kind::ReduceScatterV, Kind::Scatter, Kind::Reduce, Kind::Gather] {
            let measured = measure(call(kind, 50, 3), true, Fault::ScribblesOnInput, 2);
            assert!(measured.wrong > Some(0), "{kind:?}");
        }
    }

    #[test]
    fn a_barrier_is_checked_by_who_leaves_when() {
        assert_eq!(measure(call(Kind::Barrier, 0, 3), false, Fault::None, 2).wrong, Some(0));
        let open = measure(call(Kind::Barrier, 0, 3), false, Fault::OpenBarrier, 2);
        assert!(open.wrong > Some(0));
        assert!(open.note.unwrap().contains("left a barrier before"));
    }

    #[test]
    fn without_checks_nothing_is_claimed() {
        let effort = Effort { iterations: Some(2), warmup: Some(0), checks: 0, breakdown: false };
        let mut stopwatch = Stopwatch { crew: Threads::start(2, Fault::NothingFrom(0)), effort };
        let measured = stopwatch.measure(&call(Kind::AllReduce, 9, 2), true, 36).unwrap();
        assert_eq!((measured.wrong, measured.note), (None, None));
    }

    #[test]
    fn small_calls_come_in_blocks_and_rooted_or_large_ones_do_not() {
        assert_eq!(calls_per_sample(&call(Kind::AllReduce, 2, 2), false, 0.5), 40);
        assert_eq!(calls_per_sample(&call(Kind::AllReduce, 2, 2), false, 0.001), 64);
        assert_eq!(calls_per_sample(&call(Kind::AllReduce, 1023, 2), false, 7.0), 3);
        assert_eq!(calls_per_sample(&call(Kind::AllReduce, 1024, 2), false, 0.5), 1);
        assert_eq!(calls_per_sample(&call(Kind::Broadcast, 2, 2), false, 0.5), 1);
        assert_eq!(calls_per_sample(&call(Kind::SendReceive, 2, 2), true, 0.5), 39);
        assert_eq!(
            calls_per_sample(&call(Kind::AllToAll, 2, 3), true, 0.5),
            39,
            "an even number undoes itself"
        );
        assert_eq!(calls_per_sample(&call(Kind::AllToAll, 2, 3), false, 0.5), 40);
        for kind in [Kind::Reduce, Kind::Gather, Kind::Scatter, Kind::GatherV] {
            assert_eq!(calls_per_sample(&call(kind, 2, 2), false, 0.5), 1, "{kind:?}");
        }
    }

    #[test]
    fn iterations_follow_the_time_unless_asked_for() {
        assert_eq!(samples(Some(7), 1e9), 7);
        assert_eq!(samples(None, 20.0), 5000);
        assert_eq!(samples(None, 1000.0), 100);
        assert_eq!(samples(None, 100_000.0), 20);
        assert_eq!(samples(None, 1_000_000.0), 4);
        assert_eq!(samples(None, 1e9), 3);
    }
}
